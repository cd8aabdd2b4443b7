//! Programs of lx zones. Our own program can't run there: a shell does what the starter does elsewhere, with the tools that
//! every Linux root has.

use crate::starter::Start;
use crate::zlogin::quoted;
use reddwarf_host::spec::UserSpec;
use std::fmt::Write;

/// The one argument for zlogin that starts a program in an lx zone and says how that goes.
///
/// # Errors
/// What a shell can't do there: variables from files.
pub(crate) fn script(start: &Start) -> Result<String, String> {
    if !start.env_files.is_empty() {
        return Err(
            "variables from files (fileKeyRef) can't be read in lx zones: use variables from ConfigMaps".to_owned()
        );
    }
    let text = |path: &std::path::Path| quoted(&path.to_string_lossy());
    if start.tty {
        return Err("terminals can't be made in lx zones: leave -t (tty) out, or use zlogin".to_owned());
    }
    let root = start.root.as_deref();
    let mut script = String::new();
    if !start.joins {
        if !start.hostname.is_empty() {
            let _ = write!(script, "hostname {} 2>/dev/null; ", quoted(&start.hostname));
        }
        let at = root.map_or_else(|| ".".to_owned(), |r| r.to_string_lossy().into_owned());
        for name in ["hosts", "resolv.conf"] {
            let (from, to) = (quoted(&format!("{}/{name}", start.etc.display())), quoted(&format!("{at}/etc/{name}")));
            let _ = write!(script, "cp {from} {to} 2>/dev/null; ");
        }
        for mount in &start.mounts {
            let (from, to) = (text(&mount.source), quoted(&format!("{at}{}", mount.target)));
            let _ = write!(
                script,
                "[ -e {to} ] || if [ -d {from} ]; then mkdir -p {to}; else : > {to}; fi; mount --bind {from} {to}; "
            );
            if mount.read_only {
                let _ = write!(script, "mount -o remount,bind,ro {to}; ");
            }
        }
    }
    let out = start.out.to_string_lossy().into_owned();
    // What becomes the program: its own process group, its root, user, directory, environment.
    let inner = format!(
        "cd {dir} && exec env -i{env} sh -c 'exec \"$@\"' sh{argv}",
        dir = quoted(&start.working_dir),
        env = start.env.iter().fold(String::new(), |mut all, (name, value)| {
            let _ = write!(all, " {}", quoted(&format!("{name}={value}")));
            all
        }),
        argv = start.argv.iter().fold(String::new(), |mut all, word| {
            let _ = write!(all, " {}", quoted(word));
            all
        }),
    );
    let inner = quoted(&inner);
    let program = match (root, user(&start.user)) {
        (Some(root), user) => format!(
            "chroot{} {} sh -c {inner}",
            user.map(|u| format!(" --userspec={}", quoted(&u))).unwrap_or_default(),
            text(root)
        ),
        (None, None) => format!("sh -c {inner}"),
        (None, Some(user)) => format!("chroot --userspec={} / sh -c {inner}", quoted(&user)),
    };
    let (started, ended) = (quoted(&format!("{out}.started")), quoted(&format!("{out}.ended")));
    let _ = write!(
        script,
        "exec 3<&0; set -m; {program} <&3 & p=$!; exec 3<&-; echo \"$p $$\" > {started}; wait $p; c=$?; kill -s KILL -- -$p 2>/dev/null; \
         if [ $c -gt 128 ]; then s=$((c - 128)); else s=0; fi; echo \"$c $s - \" > {ended}; exit $c"
    );
    Ok(script)
}

/// For chroot(1): numbers or names, as it finds them in the new root. Root needs none.
fn user(user: &UserSpec) -> Option<String> {
    match user {
        UserSpec::Ids { uid: 0, gid: 0, .. } => None,
        UserSpec::Ids { uid, gid, .. } => Some(format!("+{uid}:+{gid}")),
        UserSpec::Named { user, .. } if user.is_empty() || user == "root" || user == "0" => None,
        UserSpec::Named { user, .. } => Some(user.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::starter::{read_ended, read_started};
    use std::process::{Command, Stdio};

    fn start(argv: &[&str], out: &std::path::Path) -> Start {
        Start {
            argv: argv.iter().map(ToString::to_string).collect(),
            env: vec![("V".into(), "it's\n$HOME".into())],
            env_files: Vec::new(),
            working_dir: "/".into(),
            user: UserSpec::Ids { uid: 0, gid: 0, groups: Vec::new() },
            strict_groups: false,
            root: None,
            hostname: String::new(),
            etc: "/nonexistent".into(),
            mounts: Vec::new(),
            out: out.to_owned(),
            joins: true,
            tty: false,
            size: "/nonexistent".into(),
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the shell itself is what is tested")]
    fn a_shell_starts_a_program_as_it_is_and_tells_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("app.0");
        for (argv, code, signal) in [
            (
                &[
                    "sh",
                    "-c",
                    "[ \"$V\" = \"$(printf \"it's\\n\\$HOME\")\" ] && [ \"$1\" = 'a b' ] && exit 7",
                    "sh",
                    "a b",
                ][..],
                7,
                None,
            ),
            (&["sh", "-c", "kill -SEGV $$"], 139, Some(11)),
            (&["no-such-program"], 127, None),
        ] {
            let script = script(&start(argv, &out)).unwrap();
            let status =
                Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::null()).stderr(Stdio::null()).status();
            assert_eq!(status.unwrap().code(), Some(code), "{script}");
            let ended = read_ended(&out).unwrap();
            assert_eq!((ended.code, ended.signal), (code, signal), "{argv:?}");
            assert!(read_started(&out).is_some());
        }
    }
}
