//! What a container finds around itself in an lx zone: files of /etc, devices and processes, volumes. Made by the zone's own
//! shell, as the starter makes it elsewhere, and undone when the program has ended.

use super::identity::{self, Identity};
use crate::inside;
use crate::starter::{Start, command_prefix};
use crate::zlogin::quoted;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What the text calls. `$z`: the zone's root; `$root`: the container's; both without a slash at their end.
///
/// | | |
/// |---|---|
/// | `fail KIND MESSAGE` | ends the start: nothing runs without what it was promised |
/// | `resolve PATH` | sets `$at` to where a path of the container leads, from `$root`: its links begin at its own root |
/// | `mounted PLACE` | whether something is mounted there; blanks are spelt out in Linux' table, not in lx' |
/// | `bind SOURCE PATH [:]` | mounts, and sets `$bound` to the place; empty: something was mounted there before. `:`: it need not be |
/// | `down PLACE` | unmounts: what is killed may still be there for a moment |
/// | `etc NAME` | a file of /etc; a root without /etc, or one that is read-only, does without |
/// | `sweep` | ends all that has the container's root, wherever it has put itself |
/// | `beside FILES` | ends commands whose files begin so, unless they have ended |
///
/// lx' mount(2) takes none without a type, which BusyBox leaves out (lx_mount.c).
pub(super) const CALLED: &str = r#"nl='
'
tab='	'
fail() { undo; printf '%s\n' "128 0 $1 ${2%%"$nl"*}" > "$ended"; exit 128; }
resolve() {
  at= left=$1 n=0
  while [ -n "$left" ]; do
    case $left in */*) part=${left%%/*}; left=${left#*/};; *) part=$left; left=;; esac
    case $part in
      ''|.) ;;
      ..) at=${at%/*};;
      *) if [ -L "$root$at/$part" ]; then
          n=$((n + 1)); [ $n -le 40 ] && to=$(readlink "$root$at/$part") || return 1
          case $to in /*) at=;; esac
          left=$to/$left
        else at=$at/$part; fi;;
    esac
  done
}
mounted() {
  left=$1 spelt=
  while [ -n "$left" ]; do
    rest=${left#?} char=${left%"${left#?}"} left=$rest
    case $char in ' ') char='\040';; "$tab") char='\011';; "$nl") char='\012';; \\) char='\134';; esac
    spelt=$spelt$char
  done
  while IFS= read -r line; do case $line in *" $1 "*|*" $spelt "*) return 0;; esac; done < /proc/self/mounts
  return 1
}
bind() {
  bound=
  resolve "$2" || { ${3:-fail} other "mount at $2: its links lead nowhere"; return; }
  place=$root$at
  mounted "$place" && return
  said=$({ { [ -e "$1" ] || mkdir -p "$1"; } && if [ -d "$1" ]; then mkdir -p "$place"
    else mkdir -p "${place%/*}" && { [ -e "$place" ] || : > "$place"; }; fi \
    && mount -t none --bind "$1" "$place"; } 2>&1) || { ${3:-fail} other "mount at $2: $said"; return; }
  bound=$place
}
down() { n=0; until umount "$1" 2>/dev/null; do n=$((n + 1)); [ $n -lt 3 ] || return 0; sleep 1; done; }
etc() {
  resolve /etc && mkdir -p "$root$at" && new=$root$at/.$1.new && rm -f "$new" \
    && cp "$files/$1" "$new" && mv -f "$new" "$root$at/$1" || rm -f "$new"
}
sweep() { for p in /proc/[0-9]*; do [ "$p/root" -ef "$root" ] && kill -KILL "${p#/proc/}"; done; }
beside() { for f in "$1"*.started; do [ ! -s "${f%started}ended" ] && read p q < "$f" && kill -KILL -$p; done; }
"#;

/// The shell's text before the program begins.
pub(super) fn made(start: &Start, identity: &Identity) -> String {
    let mut text = called(start);
    let _ = writeln!(text, "undo() {{ {}:; }}", undone(start));
    text.push_str(&identity::check(identity));
    if !start.hostname.is_empty() {
        let _ = writeln!(text, "hostname {} 2>/dev/null", quoted(&start.hostname));
    }
    let _ =
        writeln!(text, "files={}; for name in hosts resolv.conf; do etc $name 2>/dev/null; done", place(&start.etc));
    for mount in start.mounts.iter().filter(|mount| mount.read_only) {
        // An older zone's configuration lacks it, and nothing must be made in its place.
        let (there, seen) = (place(&mount.source), place(&read_only(&mount.source)));
        let (what, lacking) =
            (quoted(&format!("mount at {}", mount.target)), "read-only volumes come with the next boot of the zone");
        let _ = writeln!(text, "[ -e {there} ] || mkdir -p {there}; [ -e {seen} ] || fail other {what}': {lacking}'");
    }
    for (number, words) in binds(start).enumerate() {
        let _ = writeln!(text, "bind {words}; m{number}=$bound");
    }
    // As everywhere, an image's directory is made where it has none.
    if start.root.is_some() {
        let _ = writeln!(text, "resolve {} && mkdir -p \"$root$at\" 2>/dev/null", quoted(&start.working_dir));
    }
    text
}

/// What all texts call, with the places that it stands on.
pub(super) fn called(start: &Start) -> String {
    format!("z=${{PWD%/}}; root={}; ended={}\n{CALLED}", root(start), ended(start))
}

/// The same when it has ended. What is mounted in the zone's own root is there for its other containers too.
pub(super) fn end(start: &Start) -> String {
    let name = start.out.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let commands = start.out.with_file_name(command_prefix(&name));
    let own_root = if start.root.is_some() { "sweep; undo; " } else { "" };
    format!("beside {}; {own_root}", quoted(&commands.to_string_lossy()))
}

/// Else the root file system can't be destroyed before the zone is halted.
fn undone(start: &Start) -> String {
    let count = if start.root.is_some() { binds(start).count() } else { 0 };
    (0..count).rev().map(|number| format!("[ -z \"$m{number}\" ] || down \"$m{number}\"; ")).collect()
}

fn root(start: &Start) -> String {
    start.root.as_deref().map_or_else(|| "$z".to_owned(), place)
}

fn ended(start: &Start) -> String {
    quoted(&format!("{}.ended", start.out.display()))
}

/// A place of the zone, from its very root: `mount` and the table of mounts know no other.
fn place(path: &Path) -> String {
    match path.is_absolute() {
        true => quoted(&path.to_string_lossy()),
        false => format!("$z/{}", quoted(&path.to_string_lossy())),
    }
}

/// Where the zone sees a source that nobody can write by: a mount below it is read-only, too. lofs does not become so by
/// another mount. What is made of ConfigMaps and the like is so by itself.
fn read_only(source: &Path) -> PathBuf {
    match source.strip_prefix(inside::path("")) {
        Ok(place) if place.starts_with("rw") || place.starts_with("host") => inside::path("read").join(place),
        _ => source.to_owned(),
    }
}

/// What can't be mounted as it is asked for.
pub(super) fn refusal(start: &Start) -> Option<String> {
    let memory = inside::path("memory");
    let bad = start.mounts.iter().find(|mount| mount.read_only && mount.source.starts_with(&memory))?;
    let message = "volumes on memory can't be mounted read-only in lx zones: leave readOnly or medium: Memory out";
    Some(format!("mount at {}: {message}", bad.target))
}

/// What is mounted in order, as words for `bind`. A root file system of its own has the zone's devices and processes too.
fn binds(start: &Start) -> impl Iterator<Item = String> {
    let own = ["dev", "proc"].into_iter().filter(|_| start.root.is_some()).map(|name| format!("$z/{name} /{name}"));
    own.chain(start.mounts.iter().map(|mount| {
        let need_not = if mount.optional { " :" } else { "" };
        let source = if mount.read_only { read_only(&mount.source) } else { mount.source.clone() };
        format!("{} {}{need_not}", place(&source), quoted(&mount.target))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rooted::links;
    use std::process::Command;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the shell itself is what is tested")]
    fn links_of_a_root_lead_nowhere_but_into_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("it's a root");
        links::make(&root);
        // Places begin with a slash, but for the root itself.
        let places =
            links::LEAD.map(|(path, leads)| (path, if leads.is_empty() { String::new() } else { format!("/{leads}") }));
        for (path, leads) in places.into_iter().chain([(links::ENDLESS, "nowhere".to_owned())]) {
            for shell in super::super::SHELLS {
                let text = format!("root=$1\n{CALLED}resolve \"$2\" && printf '%s' \"$at\" || printf nowhere");
                let mut command = Command::new(shell[0]);
                let Ok(said) = command.args(&shell[1..]).args(["-c", &text, "sh"]).arg(&root).arg(path).output() else {
                    continue;
                };
                assert_eq!(String::from_utf8(said.stdout).unwrap(), leads, "{path} by {shell:?}");
            }
        }
    }
}
