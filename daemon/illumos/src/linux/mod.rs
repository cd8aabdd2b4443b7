//! Programs of lx zones. Our own program can't run there: a shell does what the starter does elsewhere, with the tools that
//! every Linux root has.
//!
//! What the program is, and its variables, stand in a file that only root can read: zlogin's arguments are seen by everybody
//! who lists processes. The shell that becomes the program reads it, through a descriptor that is opened before the root and
//! the user are another's.

mod identity;
mod surroundings;

use crate::inside;
use crate::starter::Start;
use crate::zlogin::quoted;
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use reddwarf_supervise::files::{io_error, write_atomically};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What shells keep for themselves, and may refuse to be set: numbers about the shell, no secrets.
const OF_SHELLS: &[&str] = &[
    "BASHOPTS",
    "BASHPID",
    "BASH_VERSINFO",
    "DIRSTACK",
    "EPOCHREALTIME",
    "EPOCHSECONDS",
    "EUID",
    "FUNCNAME",
    "GROUPS",
    "HISTCMD",
    "LINENO",
    "OPTIND",
    "PPID",
    "RANDOM",
    "SECONDS",
    "SHELLOPTS",
    "SRANDOM",
    "UID",
    "_",
];

/// Reads descriptor 4 to its end with nothing but the shell itself, and does what that says.
const READER: &str = "s=; while IFS= read -r l <&4; do s=\"$s$l\n\"; done; exec 4<&-; eval \"$s\"";

/// The file of a start, among those that the zone sees.
pub(crate) fn file(starts: &Path, name: &str) -> PathBuf {
    starts.join(format!("{name}.sh"))
}

/// Writes the start's file; the one argument for zlogin.
pub(crate) fn prepare(op: &'static str, starts: &Path, name: &str, start: &Start) -> HostResult<String> {
    let refused = |message| HostError::new(HostErrorKind::InvalidSpec, op, name, message);
    let (program, path) = (program(start).map_err(refused)?, file(starts, name));
    write_atomically(&path, program.as_bytes(), 0o600).map_err(|e| io_error(op, &path, e))?;
    Ok(script(start, &inside::path("run/start").join(format!("{name}.sh"))))
}

/// The shell's text that becomes the program: its directory, variables, words.
///
/// # Errors
/// What a shell can't do there.
fn program(start: &Start) -> Result<String, String> {
    if !start.env_files.is_empty() {
        let message = "variables from files (fileKeyRef) can't be read in lx zones: use variables from ConfigMaps";
        return Err(message.to_owned());
    }
    if start.tty {
        return Err("terminals can't be made in lx zones: leave -t (tty) out, or use zlogin".to_owned());
    }
    if let Some(message) = surroundings::refusal(start) {
        return Err(message);
    }
    let (of_shells, others): (Vec<_>, Vec<_>) = start.env.iter().partition(|(n, _)| OF_SHELLS.contains(&n.as_str()));
    let own_home = start.env.iter().any(|(name, _)| name == "HOME");
    // First, for it has variables of its own.
    let mut text = if own_home { String::new() } else { identity::home(start) };
    for (name, value) in others {
        if !is_identifier(name) {
            let message = "a shell sets the variables of lx zones: letters, digits and underlines only";
            return Err(format!("variable {name:?}: {message}"));
        }
        let _ = writeln!(text, "export {name}={}", quoted(value));
    }
    let words = start.argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    let become_it = match of_shells.is_empty() {
        true => words,
        false => {
            let set: Vec<_> = of_shells.iter().map(|(name, value)| quoted(&format!("{name}={value}"))).collect();
            format!("env {} sh -c 'exec \"$@\"' sh {words}", set.join(" "))
        }
    };
    let Some(program) = start.argv.first() else { return Err("no program is named".to_owned()) };
    let line = |text: String| quoted(&text.replace('\n', " "));
    let nowhere = line(format!("working directory {}: it can't be entered", start.working_dir));
    let missing = line(format!("exec {program}: no such program"));
    // A shell that can't become a program is not always there to say so.
    let _ = writeln!(
        text,
        "end() {{ printf '%s\\n' \"$1 0 $2 $3\" >&7; exit $1; }}; cd {} 2>/dev/null || end 128 invalid {nowhere}; \
         command -v {} >/dev/null || end 127 - {missing}; echo \"$$ $PPID\" >&6; exec {become_it} 6>&- 7>&-",
        quoted(&start.working_dir),
        quoted(program),
    );
    Ok(text)
}

/// What a shell takes for a variable's name.
fn is_identifier(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The one argument for zlogin that starts what `file` says and says how that goes.
fn script(start: &Start, file: &Path) -> String {
    let text = |path: &std::path::Path| quoted(&path.to_string_lossy());
    let root = start.root.as_deref();
    let identity = identity::options(start);
    let mut script = if start.joins { String::new() } else { surroundings::made(start, &identity) };
    script.push_str(&identity.before);
    let out = start.out.to_string_lossy().into_owned();
    // What becomes the program: its own process group, its root and user, and none of zlogin's variables.
    let inner = quoted(&format!("exec env -i sh -c {}", quoted(READER)));
    let program = match (root, identity.words.as_str()) {
        (None, "") => format!("sh -c {inner}"),
        (root, words) => format!("chroot{words} {} sh -c {inner}", text(root.unwrap_or(Path::new("/")))),
    };
    let file_of = |ending: &str| quoted(&format!("{out}.{ending}"));
    // A process group of its own. BusyBox's shell has no job control without a terminal, and a process in the background
    // without it is deaf to SIGINT; one in the foreground ends some shells with it.
    let leader = quoted(&format!("exec {program}"));
    // Shells tell death by a signal and a code above 128 apart for nobody. What they have to say of a death is nobody's.
    let _ = write!(
        script,
        "exec 4<{file} 5>&2 2>/dev/null 6>{started} 7>{ended}; trap : INT; \
         if command -v setsid >/dev/null; then g=setsid; else g=; set -m; fi; \
         $g sh -c {leader} 4<&4 2>&5 5>&-; c=$?; read p q <{started} && kill -KILL -$p; {undo}\
         if [ $c -gt 128 ]; then s=$((c - 128)); else s=0; fi; [ -s {ended} ] || echo \"$c $s - \" >&7; exit $c",
        file = text(file),
        started = file_of("started"),
        ended = file_of("ended"),
        undo = if start.joins { String::new() } else { surroundings::end(start) },
    );
    script
}

/// Those that zones of tests may have: what is written for one has to mean the same to all.
#[cfg(test)]
const SHELLS: [&[&str]; 3] = [&["/bin/sh"], &["/bin/bash"], &["/bin/busybox", "sh"]];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::starter::{Kind, read_ended, read_started};
    use proptest::prelude::*;
    use reddwarf_host::spec::UserSpec;
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

    /// What the zone's shell would do, with the local one.
    fn run(start: &Start, dir: &Path) -> (String, Option<i32>) {
        run_by(&["/bin/sh"], start, dir)
    }

    #[expect(clippy::disallowed_methods, reason = "the shell itself is what is tested")]
    fn run_by(shell: &[&str], start: &Start, dir: &Path) -> (String, Option<i32>) {
        let file = dir.join("app.0.sh");
        std::fs::write(&file, program(start).unwrap()).unwrap();
        let script = script(start, &file);
        let mut command = Command::new(shell[0]);
        command.args(&shell[1..]).args(["-c", &script]).env("LEAKED", "yes").stdin(Stdio::null()).stderr(Stdio::null());
        (script, command.status().unwrap().code())
    }

    #[test]
    fn variables_are_all_that_a_program_gets_and_shells_own_ones_too() {
        let dir = tempfile::tempdir().unwrap();
        let argv =
            ["sh", "-c", "[ -z \"$LEAKED\" ] && [ \"$(env | grep -c '^UID=7$')\" = 1 ] && [ \"$s$l\" = xy ] && exit 7"];
        let mut start = start(&argv, &dir.path().join("app.0"));
        let path = std::env::var("PATH").unwrap();
        for (name, value) in [("UID", "7"), ("s", "x"), ("l", "y"), ("PATH", path.as_str()), ("EMPTY", "")] {
            start.env.push((name.to_owned(), value.to_owned()));
        }
        assert_eq!(run(&start, dir.path()).1, Some(7));
        for bad in ["a.b", "1a", "", "a b", "a;b"] {
            start.env = vec![(bad.to_owned(), String::new())];
            assert!(program(&start).unwrap_err().contains("letters"), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// However long, and whatever is in it.
        #[test]
        fn any_word_and_value_arrives_as_it_is(word in "[^\0]{0,40}", value in "[^\0]{0,40}", many in 0_usize..600) {
            let dir = tempfile::tempdir().unwrap();
            let (word, value) = (word.repeat(many), value.repeat(many));
            let mut start = start(&["sh", "-c", "printf '%s|%s' \"$V\" \"$1\" > said", "sh", &word], &dir.path().join("a.0"));
            start.env = vec![("V".to_owned(), value.clone())];
            start.working_dir = dir.path().to_string_lossy().into_owned();
            prop_assert_eq!(run(&start, dir.path()).1, Some(0));
            let said = std::fs::read_to_string(dir.path().join("said")).unwrap();
            prop_assert_eq!(said, format!("{value}|{word}"));
        }
    }

    #[test]
    fn groups_are_those_that_are_asked_for() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: becoming another user needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let user = |uid, gid, groups: &[u32]| UserSpec::Ids { uid, gid, groups: groups.to_vec() };
        for (user, strict, groups) in [
            (user(60001, 60002, &[70001, 70002]), false, "60002 70001 70002"),
            (user(60001, 60002, &[70001]), true, "60002 70001"),
            (user(60001, 60002, &[]), true, "60002"),
            (user(0, 0, &[70001]), true, "0 70001"),
            (UserSpec::Named { user: "root".into(), groups: vec![70001] }, true, "0 70001"),
        ] {
            let mut start = start(
                &["sh", "-c", "exit $(test \"$(echo $(id -G))\" = \"$1\"; echo $?)", "sh", groups],
                &dir.path().join("app.0"),
            );
            (start.user, start.strict_groups) = (user, strict);
            start.env.push(("PATH".to_owned(), std::env::var("PATH").unwrap()));
            let (script, code) = run(&start, dir.path());
            assert_eq!(code, Some(0), "{groups}: {script}");
        }
    }

    #[test]
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
            // Leads a group, and hears SIGINT.
            (&["sh", "-c", "kill -s INT -- -$$"], 130, Some(2)),
        ] {
            for shell in SHELLS {
                if !Path::new(shell[0]).exists() {
                    continue;
                }
                let (script, status) = run_by(shell, &start(argv, &out), dir.path());
                assert_eq!(status, Some(code), "{script}");
                assert!(!["HOME", "SEGV", "no-such"].iter().any(|word| script.contains(word)), "{script}");
                let ended = read_ended(&out).unwrap();
                assert_eq!((ended.code, ended.signal), (code, signal), "{argv:?}");
                // Its own group's leader, and the shell's child; what is not there has not run.
                match read_started(&out) {
                    Some((pid, shell)) => assert!(pid != shell && ended.message.is_empty(), "{ended:?}"),
                    None => assert_eq!(ended.message, "exec no-such-program: no such program"),
                }
                assert_eq!(read_started(&out).is_some(), code != 127);
                std::fs::remove_file(dir.path().join("app.0.ended")).unwrap();
            }
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the shell itself is what is tested")]
    fn a_program_begins_where_its_image_says_and_has_a_home() {
        let dir = tempfile::tempdir().unwrap();
        let home = |user: &str| {
            let user = UserSpec::Named { user: user.to_owned(), groups: Vec::new() };
            let out = dir.path().join("app.0");
            let start = Start { user, ..start(&["sh", "-c", "echo \"$HOME\" > said"], &out) };
            let mut text = program(&start).unwrap();
            text = text.replace("/etc/passwd", &quoted(&dir.path().join("passwd").to_string_lossy()));
            text.replace("cd '/'", &format!("cd {}", quoted(&dir.path().to_string_lossy())))
        };
        std::fs::write(
            dir.path().join("passwd"),
            "root:x:0:0::/root:/bin/sh\nwww:x:33:33::/var/www:/bin/sh\nno:x:4:4:::",
        )
        .unwrap();
        let users =
            [("", "/root"), ("www", "/var/www"), ("33:4", "/var/www"), ("no", "/"), ("1000", "/"), ("x;y", "/")];
        for (user, wanted) in users {
            for shell in SHELLS.iter().filter(|shell| Path::new(shell[0]).exists()) {
                let text = format!("exec 6>/dev/null 7>/dev/null\n{}", home(user));
                let status = Command::new(shell[0]).args(&shell[1..]).args(["-c", &text]).env_remove("HOME").status();
                assert!(status.unwrap().success(), "{text}");
                assert_eq!(
                    std::fs::read_to_string(dir.path().join("said")).unwrap().trim(),
                    wanted,
                    "{user} {shell:?}"
                );
            }
        }
        // A directory that can't be entered is the pod's mistake.
        let mut start = start(&["true"], &dir.path().join("app.0"));
        start.working_dir = "/no\nsuch".to_owned();
        assert_eq!(run(&start, dir.path()).1, Some(128));
        let ended = read_ended(&start.out).unwrap();
        assert_eq!(
            (ended.kind, ended.message.as_str()),
            (Kind::Invalid, "working directory /no such: it can't be entered")
        );
    }

    /// `USER 1000`, as many images have it: nobody in its files is called so.
    #[test]
    fn a_user_may_be_a_number_that_nobody_knows() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: becoming another user needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        for (user, groups, wanted) in
            [("60001", &[][..], "60001:0:0"), ("60001", &[70001], "60001:0:0 70001"), ("60001:7", &[], "60001:7:7")]
        {
            let script = "echo $(id -u):$(id -g):$(id -G)";
            let mut start =
                start(&["sh", "-c", &format!("[ \"$({script})\" = \"$1\" ]"), "sh", wanted], &dir.path().join("app.0"));
            start.user = UserSpec::Named { user: user.to_owned(), groups: groups.to_vec() };
            start.env.push(("PATH".to_owned(), std::env::var("PATH").unwrap()));
            let (script, code) = run(&start, dir.path());
            assert_eq!(code, Some(0), "{user}: {script}");
        }
    }
}
