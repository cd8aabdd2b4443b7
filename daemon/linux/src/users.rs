//! Users and groups of a sandbox's own (user_namespaces(7)): 0 to 65535 inside is a range of the host's that nobody else
//! has. Files stay as they are: what is mounted inside is mapped on the way (mount_setattr(2), `MOUNT_ATTR_IDMAP`).

use nix::sys::stat::{SFlag, fstat};
use reddwarf_host::SandboxId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// How many users and groups a sandbox has.
const COUNT: u32 = 1 << 16;

/// Where ranges may begin, in steps of [`COUNT`]: what systemd's documents (UIDS-GIDS) leave to containers.
const FIRST: u32 = 0x0008_0000;
const LAST: u32 = 0x6fff_0000;

/// A range of the host's users, by its first one; the groups are the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct UserRange(u32);

impl UserRange {
    /// A range for a sandbox that none of `taken` is. The same one again where that is possible.
    pub(crate) fn choose(id: &SandboxId, taken: &BTreeSet<Self>) -> Option<Self> {
        let places = (LAST - FIRST) / COUNT + 1;
        let digest = Sha256::digest(id.as_str().as_bytes());
        let start = digest.iter().take(4).fold(0, |number: u32, byte| number << 8 | u32::from(*byte)) % places;
        (0..places).map(|more| Self(FIRST + (start + more) % places * COUNT)).find(|range| !taken.contains(range))
    }

    /// The host's number of a user or group inside. Numbers that the range does not have belong to its last one.
    pub(crate) fn outside(self, inside: u32) -> u32 {
        self.0 + inside.min(COUNT - 1)
    }

    /// Gives the range to the user namespace of a process that has just made it.
    pub(crate) fn map(self, process: u32) -> io::Result<()> {
        for file in ["uid_map", "gid_map"] {
            // One write is all that the kernel takes.
            let mut map = File::options().write(true).open(format!("/proc/{process}/{file}"))?;
            map.write_all(format!("0 {} {COUNT}\n", self.0).as_bytes())?;
        }
        Ok(())
    }
}

/// A sandbox's own users, and the namespace that says so.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Users {
    pub(crate) range: UserRange,
    /// Where the user namespace is pinned.
    pub(crate) namespace: PathBuf,
}

impl Users {
    /// A copy of what `source` shows whose files belong to these users as they belong to the host's.
    pub(crate) fn view(&self, source: &Path) -> io::Result<OwnedFd> {
        let copy = crate::mounts::copy(&crate::inside::open_no_follow(source)?)?;
        crate::mounts::map_users(&copy, &File::open(&self.namespace)?).map_err(|e| self.explain(source, e))?;
        Ok(copy)
    }

    fn explain(&self, source: &Path, error: io::Error) -> io::Error {
        match error.raw_os_error() {
            Some(libc::EINVAL) => {
                let text = format!(
                    "{}: its file system can't show files to a pod's own users (hostUsers: false): {error}",
                    source.display()
                );
                io::Error::new(io::ErrorKind::Unsupported, text)
            }
            _ => error,
        }
    }
}

/// Gives a pipe that is to be a standard stream to the user, as the host counts them, of the process that gets it: programs
/// open theirs anew by `/dev/stdout`. Anything else (`/dev/null`, a terminal) is left alone.
pub(crate) fn give_stream(stream: &OwnedFd, user: u32) -> io::Result<()> {
    let kind = SFlag::from_bits_truncate(fstat(stream)?.st_mode & SFlag::S_IFMT.bits());
    if kind == SFlag::S_IFIFO {
        nix::unistd::fchown(stream, Some(nix::unistd::Uid::from_raw(user)), None)?;
    }
    Ok(())
}

/// The host's number of a user of a container.
pub(crate) fn on_host(users: Option<&Users>, user: u32) -> u32 {
    users.map_or(user, |users| users.range.outside(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_apart_and_come_again() {
        let id = |name: &str| SandboxId::new(name).unwrap();
        let mut taken = BTreeSet::new();
        for number in 0..300 {
            let id = id(&format!("default-web-{number}"));
            let range = UserRange::choose(&id, &taken).unwrap();
            assert_eq!(UserRange::choose(&id, &taken), Some(range));
            assert!(range.0 >= FIRST && range.outside(u32::MAX) <= LAST + 0xffff && range.0.is_multiple_of(COUNT));
            assert!(taken.insert(range), "{range:?} twice");
        }
        let all: BTreeSet<_> = (FIRST..=LAST).step_by(COUNT as usize).map(UserRange).collect();
        assert_eq!(UserRange::choose(&id("one-more"), &all), None);
        let last = *all.last().unwrap();
        let others: BTreeSet<_> = all.iter().copied().filter(|range| *range != last).collect();
        assert_eq!(UserRange::choose(&id("one-more"), &others), Some(last));
    }
}
