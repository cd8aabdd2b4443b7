//! Paths of a container as the zone sees them, and files put there: links in its root file system lead into that, not into the zone's own files.

use reddwarf_supervise::files::write_atomically;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// As many as the system follows itself.
const LINKS: u32 = 40;

/// Where `path` of a container whose root is `root` leads. What is not there yet is named as it would be.
///
/// # Errors
/// Links that lead round and round, or can't be read.
pub(crate) fn resolve(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let (mut at, mut links) = (PathBuf::new(), 0);
    let mut left: VecDeque<OsString> = VecDeque::new();
    follow(path, &mut at, &mut left);
    while let Some(part) = left.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(part);
        match root.join(&next).symlink_metadata() {
            Ok(found) if found.is_symlink() => {
                links += 1;
                if links > LINKS {
                    return Err(io::Error::other(format!("{}: too many links", path.display())));
                }
                follow(&root.join(&next).read_link()?, &mut at, &mut left);
            }
            _ => at = next,
        }
    }
    Ok(root.join(at))
}

/// Puts a path's parts before what is left; an absolute one begins at the root.
fn follow(path: &Path, at: &mut PathBuf, left: &mut VecDeque<OsString>) {
    for component in path.components().rev() {
        match component {
            Component::Normal(part) => left.push_front(part.to_owned()),
            Component::ParentDir => left.push_front("..".into()),
            Component::RootDir => at.clear(),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

/// A file of /etc; what was there, if only a link, is replaced.
pub(crate) fn put(etc: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let to = etc.join(name);
    if to.symlink_metadata().is_ok_and(|found| found.is_file()) && fs::read(&to)? == text {
        return Ok(());
    }
    fs::create_dir_all(etc)?;
    write_atomically(&to, text, 0o644)
}

/// Links of a root and where they lead: here, and by the shell of lx zones, which has no other way to go.
#[cfg(test)]
pub(crate) mod links {
    use std::path::Path;

    /// A path, and where it leads below the root.
    pub(crate) const LEAD: [(&str, &str); 8] = [
        ("/var/run/a/b", "run/a/b"),
        ("/var/run/a b/c", "run/a b/c"),
        ("/var/lib/up/x", "run/x"),
        ("/both/x", "run/x"),
        ("//var/./lib/../../../etc/", "etc"),
        ("etc", "etc"),
        ("/star", "*"),
        ("/", ""),
    ];
    /// One that leads nowhere.
    pub(crate) const ENDLESS: &str = "/loop/x";

    /// Makes them below `root`.
    pub(crate) fn make(root: &Path) {
        std::fs::create_dir_all(root.join("var/lib")).unwrap();
        for (target, link) in [
            ("/run", "var/run"),
            ("../../../run", "var/lib/up"),
            ("loop", "loop"),
            ("var/lib/../run/", "both"),
            ("*", "star"),
        ] {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write where nobody else reads")]
mod tests {
    use super::*;

    #[test]
    fn links_of_a_root_lead_nowhere_but_into_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        links::make(root);
        for (path, leads) in links::LEAD {
            assert_eq!(resolve(root, Path::new(path)).unwrap(), root.join(leads), "{path}");
        }
        assert!(resolve(root, Path::new(links::ENDLESS)).unwrap_err().to_string().contains("too many links"));
    }

    #[test]
    fn a_file_of_etc_takes_the_place_of_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (etc, other) = (dir.path().join("etc"), dir.path().join("other"));
        fs::write(&other, "text").unwrap();
        fs::create_dir(&etc).unwrap();
        std::os::unix::fs::symlink(&other, etc.join("hosts")).unwrap();
        for text in ["text", "more"] {
            put(&etc, "hosts", text.as_bytes()).unwrap();
            assert!(etc.join("hosts").symlink_metadata().unwrap().is_file());
            assert_eq!(fs::read_to_string(etc.join("hosts")).unwrap(), text);
        }
        assert_eq!(fs::read_to_string(&other).unwrap(), "text", "what it led to is as it was");
    }
}
