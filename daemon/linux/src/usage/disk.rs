//! What sandboxes have on disk, by looking at every file: quotas by directory are not to be had on most file systems.
//!
//! The trees belong to containers, which may change them under the walk: nothing is followed that is a link, and a
//! directory is read only when it is the very one that was seen.

use crate::host::Shared;
use crate::roots::RootOf;
use crate::sandbox;
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use reddwarf_host::spec::VolumeSpec;
use reddwarf_host::usage::{DiskUsage, SandboxDisk};
use reddwarf_host::{HostResult, SandboxId};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Entries between two looks at the clock.
const STRIDE: u32 = 64;

pub(super) fn usage(
    shared: &Shared,
    sandboxes: &[SandboxId],
    budget: Duration,
) -> HostResult<BTreeMap<SandboxId, SandboxDisk>> {
    let mut walk = Walk { deadline: now() + budget, stride: 0, over: budget.is_zero() };
    let mut found = BTreeMap::new();
    // Of a clone, all but what it shares with its image: the engine knows at once.
    let own = shared.roots.as_ref().map(|roots| tokio::runtime::Handle::current().block_on(roots.own_bytes()));
    let known = !matches!(own, Some(Err(_)));
    let own = own.and_then(Result::ok).unwrap_or_default();
    for id in sandboxes {
        let Some(mark) = sandbox::own_mark(shared, id)? else { continue };
        let mut disk = SandboxDisk::default();
        for (name, volume) in &mark.spec.volumes {
            if matches!(volume, VolumeSpec::EmptyDir { memory: false, .. }) {
                disk.volumes.insert(name.clone(), walk.tree(&shared.paths.disk_volume(id, name)));
            }
        }
        // Attempts of one container share a directory of logs.
        let mut log_dirs = BTreeSet::new();
        for (name, attempt, dir) in shared.paths.run.instances(id)? {
            let one = disk.containers.entry(name.clone()).or_default();
            one.writable = one.writable.plus(walk.tree(&shared.paths.disk_container(id, &name, attempt)));
            let of = RootOf { sandbox: id.clone(), container: name.clone(), attempt };
            if let Some(bytes) = shared.roots.as_ref().and_then(|roots| roots.bytes_of(&own, &of)) {
                one.writable = one.writable.plus(DiskUsage { bytes, inodes: 0 });
            }
            let Some(spec) = dir.spec()? else { continue };
            if let Some(dir) = spec.log.path.parent()
                && log_dirs.insert(dir.to_owned())
            {
                one.logs = one.logs.plus(walk.tree(dir));
            }
        }
        disk.complete = known && !walk.over;
        found.insert(id.clone(), disk);
    }
    Ok(found)
}

/// Runs on a thread of its own beside the real machine.
#[expect(clippy::disallowed_methods, reason = "see above")]
fn now() -> Instant {
    Instant::now()
}

struct Walk {
    deadline: Instant,
    stride: u32,
    over: bool,
}

impl Walk {
    /// All below a directory, itself left out. What vanishes under the walk is not counted.
    fn tree(&mut self, root: &Path) -> DiskUsage {
        let mut total = DiskUsage::default();
        let mut linked = HashSet::new();
        let mut waiting: Vec<(PathBuf, Option<(u64, u64)>)> = vec![(root.to_owned(), None)];
        while let Some((path, expected)) = waiting.pop() {
            if self.is_over() {
                return total;
            }
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let Ok(mut dir) = Dir::open(&path, flags, Mode::empty()) else { continue };
            let Ok(here) = fstat(&dir) else { continue };
            if expected.is_some_and(|expected| expected != identity(&here)) {
                continue;
            }
            let names: Vec<_> = dir.iter().map_while(Result::ok).map(|e| e.file_name().to_owned()).collect();
            for name in names.iter().filter(|n| !matches!(n.to_bytes(), b"." | b"..")) {
                if self.is_over() {
                    return total;
                }
                let Ok(stat) = fstatat(dir.as_fd(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
                // Another file system is mounted there: not this one's bytes.
                if stat.st_dev != here.st_dev || (stat.st_nlink > 1 && !is_dir(&stat) && !linked.insert(stat.st_ino)) {
                    continue;
                }
                let blocks = u64::try_from(stat.st_blocks).unwrap_or_default();
                total = total.plus(DiskUsage { bytes: blocks.saturating_mul(512), inodes: 1 });
                if is_dir(&stat) {
                    waiting.push((path.join(OsStr::from_bytes(name.to_bytes())), Some(identity(&stat))));
                }
            }
        }
        total
    }

    fn is_over(&mut self) -> bool {
        self.stride += 1;
        if !self.over && self.stride >= STRIDE {
            self.stride = 0;
            self.over = now() >= self.deadline;
        }
        self.over
    }
}

fn identity(stat: &FileStat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn is_dir(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn walk() -> Walk {
        Walk { deadline: now() + Duration::from_secs(60), stride: 0, over: false }
    }

    #[test]
    fn links_are_not_followed_and_hard_links_count_once() {
        let dir = tempfile::tempdir().unwrap();
        let big = dir.path().join("outside");
        crate::files::write_atomically(&big, &vec![1; 1 << 20], 0o600).unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        crate::files::write_atomically(&root.join("a/b/f"), &vec![1; 100_000], 0o600).unwrap();
        fs::hard_link(root.join("a/b/f"), root.join("g")).unwrap();
        std::os::unix::fs::symlink(&big, root.join("l")).unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("up")).unwrap();
        let found = walk().tree(&root);
        assert!((100_000..200_000).contains(&found.bytes), "{found:?}");
        assert_eq!(found.inodes, 5, "a, b, f, l, up");
        assert_eq!(walk().tree(&dir.path().join("nowhere")), DiskUsage::default());
    }

    #[test]
    fn a_walk_without_time_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let mut walk = Walk { deadline: now(), stride: STRIDE, over: false };
        assert_eq!(walk.tree(dir.path()), DiskUsage::default());
        assert!(walk.over);
    }
}
