//! Who a program of an lx zone is: what chroot(1) is told of its user and groups, which it finds in the new root.

use super::surroundings;
use crate::starter::Start;
use crate::zlogin::quoted;
use reddwarf_host::spec::UserSpec;
use std::fmt::Write;

/// How a program becomes its user.
pub(super) struct Identity {
    /// The shell's text before: sets `$also`.
    pub(super) before: String,
    /// Options for chroot(1), each after a space.
    pub(super) words: String,
}

/// Adds to `$also` the groups that the container's /etc/group gives a user, by name or number, each after a comma.
const MEMBERSHIPS: &str = r#"memberships() {
  user= also=
  resolve /etc/passwd && while IFS=: read -r name x id rest || [ -n "$name" ]; do
    case $1 in "$name"|"$id") user=$name; break;; esac
  done 2>/dev/null < "$root$at"
  [ -n "$user" ] && resolve /etc/group && while IFS=: read -r name x id members || [ -n "$name" ]; do
    case $id in ''|*[!0-9]*) continue;; esac
    case ,$members, in *",$user,"*) also=$also,+$id;; esac
  done 2>/dev/null < "$root$at"
  export also
}
"#;

/// For a start. Root without further groups needs none.
pub(super) fn options(start: &Start) -> Identity {
    let (user, primary, groups) = match &start.user {
        UserSpec::Ids { uid, gid, groups } => (format!("+{uid}:+{gid}"), Some(*gid), groups),
        UserSpec::Named { user, groups } if is_root(user) => ("+0:+0".to_owned(), Some(0), groups),
        UserSpec::Named { user, groups } => (user.clone(), None, groups),
    };
    let (mut before, mut words) = (String::new(), String::new());
    if user == "+0:+0" && groups.is_empty() {
        return Identity { before, words };
    }
    let _ = write!(words, " --userspec={}", quoted(&user));
    // Without further ones it finds the user's own groups by itself.
    if start.strict_groups || !groups.is_empty() {
        let all: Vec<_> = groups.iter().copied().chain(primary).map(|group| format!("+{group}")).collect();
        let _ = write!(words, " --groups={}", all.join(","));
        if !start.strict_groups {
            let of = user.split(':').next().unwrap_or_default().trim_start_matches('+');
            let called = if start.joins { surroundings::called(start) } else { String::new() };
            before = format!("{called}{MEMBERSHIPS}memberships {}\n", quoted(of));
            words.push_str("\"$also\"");
        }
    }
    Identity { before, words }
}

fn is_root(user: &str) -> bool {
    matches!(user, "" | "root" | "0")
}

/// The shell's text that ends a start where chroot(1) can't do that: a program never runs as somebody else.
pub(super) fn check(start: &Start) -> String {
    if options(start).words.is_empty() {
        return String::new();
    }
    let message = "users and groups (runAsUser, fsGroup, supplementalGroups) need a chroot(1) in the lx zone that knows \
                   --userspec and --groups: coreutils has one, BusyBox none";
    format!("case $(chroot --help 2>&1) in *--groups*) ;; *) fail invalid {};; esac\n", quoted(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the shell itself is what is tested")]
    fn memberships_are_those_of_the_containers_own_files() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n\nwww:x:33:33:www:/var/www:/bin/false")
            .unwrap();
        std::fs::write(root.join("passwd"), "").unwrap();
        std::fs::write(root.join("group"), "www:x:33:\nadm:x:4:a,www\nbad:x:$(id):www\nlast:x:7:www").unwrap();
        std::os::unix::fs::symlink("/group", root.join("etc/group")).unwrap();
        for (user, also) in [("www", ",+4,+7"), ("33", ",+4,+7"), ("0", ""), ("none", "")] {
            for shell in super::super::SHELLS {
                let text =
                    format!("root=$1\n{}{MEMBERSHIPS}memberships \"$2\"; printf '%s' \"$also\"", surroundings::CALLED);
                let mut command = Command::new(shell[0]);
                let Ok(said) = command.args(&shell[1..]).args(["-c", &text, "sh"]).arg(root).arg(user).output() else {
                    continue;
                };
                assert_eq!(String::from_utf8(said.stdout).unwrap(), also, "{user} by {shell:?}");
            }
        }
    }
}
