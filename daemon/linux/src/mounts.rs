//! Mounts: the table as the kernel shows it, and the few calls that we make.

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One line of `/proc/thread-self/mountinfo` (proc(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountInfo {
    pub(crate) target: PathBuf,
    pub(crate) fs_type: String,
    /// Per-superblock options; cgroup v1 controllers are among them.
    pub(crate) super_options: String,
}

/// All mounts that this process sees.
pub(crate) fn table() -> io::Result<Vec<MountInfo>> {
    Ok(parse(&fs::read("/proc/thread-self/mountinfo")?))
}

/// Mount points below `dir`, itself included.
pub(crate) fn targets_below(dir: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut prefix = dir.as_os_str().as_bytes().to_vec();
    prefix.push(b'/');
    // The table may be long: only lines that can match are parsed.
    let bytes = fs::read("/proc/thread-self/mountinfo")?;
    let wanted = bytes.split(|b| *b == b'\n').filter_map(parse_target);
    Ok(wanted.filter(|t| t == dir || t.as_os_str().as_bytes().starts_with(&prefix)).collect())
}

fn parse(bytes: &[u8]) -> Vec<MountInfo> {
    bytes.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

fn parse_target(line: &[u8]) -> Option<PathBuf> {
    Some(PathBuf::from(unescape(line.split(|b| *b == b' ').nth(4)?)))
}

fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let target = parse_target(line)?;
    // Optional fields end with a lone `-`; then type, source, superblock options.
    let mut rest = line.split(|b| *b == b' ').skip(6).skip_while(|f| *f != b"-").skip(1);
    let fs_type = String::from_utf8_lossy(rest.next()?).into_owned();
    let super_options = String::from_utf8_lossy(rest.nth(1)?).into_owned();
    Some(MountInfo { target, fs_type, super_options })
}

/// Blank, tab, newline and backslash are written as `\` and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut i = 0;
    while let Some(&byte) = field.get(i) {
        let octal = field.get(i + 1..i + 4).filter(|d| byte == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        if let Some(&[a, b, c]) = octal {
            out.push((a - b'0').wrapping_mul(64).wrapping_add((b - b'0') * 8).wrapping_add(c - b'0'));
            i += 4;
        } else {
            out.push(byte);
            i += 1;
        }
    }
    OsString::from_vec(out)
}

/// Mounts a tmpfs, no set-user-id programs and no devices on it.
pub(crate) fn mount_tmpfs(target: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(OsStr::new("tmpfs")), target, Some("tmpfs"), flags, Some(options))?;
    Ok(())
}

/// Keeps mounts below `target` from showing up elsewhere.
pub(crate) fn make_private(target: &Path) -> io::Result<()> {
    mount(None::<&str>, target, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(())
}

/// Binds one path onto another.
pub(crate) fn bind(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// Binds and makes it read-only, without set-user-id programs and devices.
pub(crate) fn bind_read_only(source: &Path, target: &Path) -> io::Result<()> {
    bind(source, target)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)?;
    Ok(())
}

/// Takes a mount away, in use or not (`MNT_DETACH`), and what is stacked below it; whether there was one.
pub(crate) fn detach(target: &Path) -> io::Result<bool> {
    let mut any = false;
    // Several mounts may be stacked on one place after a crash between mount and record.
    for _ in 0..64 {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => any = true,
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(any),
            Err(e) => return Err(e.into()),
        }
    }
    Err(io::Error::other(format!("{}: more than 64 mounts on one place", target.display())))
}

/// Detaches every mount below `dir`, `dir` included, deepest first; whether there was one.
pub(crate) fn detach_below(dir: &Path) -> io::Result<bool> {
    let targets = targets_below(dir)?;
    let mut any = false;
    // BTreeSet orders a directory before what is in it.
    for target in targets.iter().rev() {
        any |= detach(target)?;
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_with_odd_names_and_optional_fields_is_read() {
        let text =
            b"29 1 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct\n\
            30 1 0:27 / /mnt/a\\040b\\134c rw - tmpfs tmpfs rw,size=1k\nbroken line\n";
        let table = parse(text);
        assert_eq!(table.len(), 2);
        assert_eq!(table[0].fs_type, "cgroup");
        assert_eq!(table[0].super_options, "rw,cpu,cpuacct");
        assert_eq!(table[1].target, PathBuf::from("/mnt/a b\\c"));
        assert_eq!(table[1].super_options, "rw,size=1k");
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let _ = parse(&line);
        }
    }
}
