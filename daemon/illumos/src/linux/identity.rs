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

/// Sets `$gid` to the group that the container's /etc/passwd gives a user's number; 0: it has none.
const PRIMARY: &str = r#"primary() {
  gid=0
  resolve /etc/passwd && while IFS=: read -r name x id group rest || [ -n "$name" ]; do
    case $id in "$1") case $group in ''|*[!0-9]*) ;; *) gid=$group;; esac; break;; esac
  done 2>/dev/null < "$root$at"
  export gid
}
"#;

/// Sets `HOME` to what the container's /etc/passwd says of a user, by name or number; by itself `/`.
const HOME: &str = r#"HOME=/; while IFS=: read -r n x i g c d s || [ -n "$n" ]; do
  case $u in "$n"|"$i") HOME=${d:-/}; break;; esac
done 2>/dev/null < /etc/passwd; export HOME
"#;

/// The shell's text that gives a program its home, in its own root.
pub(super) fn home(start: &Start) -> String {
    let user = match &start.user {
        UserSpec::Ids { uid, .. } => uid.to_string(),
        UserSpec::Named { user, .. } if is_root(user) => "0".to_owned(),
        UserSpec::Named { user, .. } => user.split(':').next().unwrap_or_default().to_owned(),
    };
    format!("u={}; {HOME}", quoted(&user))
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
    // A number alone is a user, be it known there or not; chroot(1) would want its group said.
    let alone = |user: &str| user.bytes().all(|b| b.is_ascii_digit());
    let (user, primary, groups) = match &start.user {
        UserSpec::Ids { uid, gid, groups } => (quoted(&format!("+{uid}:+{gid}")), Some(format!("+{gid}")), groups),
        UserSpec::Named { user, groups } if is_root(user) => (quoted(ROOT), Some("+0".to_owned()), groups),
        UserSpec::Named { user, groups } if alone(user) => {
            (format!("+{user}:+\"$gid\""), Some("+\"$gid\"".to_owned()), groups)
        }
        UserSpec::Named { user, groups } => (quoted(user), None, groups),
    };
    let (mut before, mut words) = (String::new(), String::new());
    if user == quoted(ROOT) && groups.is_empty() {
        return Identity { before, words };
    }
    let of = match &start.user {
        UserSpec::Ids { uid, .. } => uid.to_string(),
        UserSpec::Named { user, .. } => user.split(':').next().unwrap_or_default().to_owned(),
    };
    let by_number = primary.as_deref().is_some_and(|group| group.contains('$'));
    // Without further ones it finds the user's own groups by itself.
    let listed = start.strict_groups || !groups.is_empty();
    if start.joins && (by_number || (listed && !start.strict_groups)) {
        before.push_str(&surroundings::called(start));
    }
    if by_number {
        let _ = writeln!(before, "{PRIMARY}primary {}", quoted(&of));
    }
    let _ = write!(words, " --userspec={user}");
    if listed {
        let all: Vec<_> = groups.iter().map(|group| format!("+{group}")).chain(primary).collect();
        let _ = write!(words, " --groups={}", all.join(","));
        if !start.strict_groups {
            let _ = writeln!(before, "{MEMBERSHIPS}memberships {}", quoted(&of));
            words.push_str("\"$also\"");
        }
    }
    Identity { before, words }
}

const ROOT: &str = "+0:+0";

fn is_root(user: &str) -> bool {
    matches!(user, "" | "root" | "0")
}

/// The shell's text that ends a start where chroot(1) can't do that: a program never runs as somebody else.
pub(super) fn check(identity: &Identity) -> String {
    if identity.words.is_empty() {
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
