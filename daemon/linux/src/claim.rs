//! One daemon an instance, also where several have a file system each and one tree of control groups between them.
//!
//! The instance's name comes from the path of the run directory ([`crate::instance_name`]), so daemons in chroots or mount
//! namespaces may bear the same one: each would take the other's pods for leftovers. A lock on the instance's cgroup,
//! which they do share, tells them apart and ends with the process, however that ends.

use crate::cgroup::Cgroups;
use crate::files::io_error;
use crate::options::LinuxOptions;
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

const OP: &str = "claim instance";
/// How long a lock that others hold is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(20);

/// Claims the instance for as long as the file stays open.
///
/// # Errors
/// `Foreign` when another process has it, `Unsupported` without cgroups, `Other` when they can't be made.
pub fn claim(options: &LinuxOptions) -> HostResult<File> {
    let error = |kind, message: String| HostError::new(kind, OP, options.instance.clone(), message);
    let cgroups = Cgroups::detect(&options.cgroup_root)
        .map_err(|e| error(HostErrorKind::Unsupported, format!("{e}: mount cgroups first")))?;
    let cgroup = Path::new("/").join(&options.instance);
    cgroups.make(&cgroup).map_err(|e| io_error(OP, &cgroup, e))?;
    let Some(directory) = cgroups.limited(&cgroup) else {
        return Err(error(HostErrorKind::Unsupported, "no cgroup hierarchy limits anything".to_owned()));
    };
    let file = File::open(&directory).map_err(|e| io_error(OP, &directory, e))?;
    match lock(&file) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(error(
            HostErrorKind::Foreign,
            format!(
                "another reddwarfd runs the pods below {}: stop it, or give this one a run directory of another name \
                 (`--run`)",
                directory.display()
            ),
        )),
        Err(TryLockError::Error(e)) => Err(io_error(OP, &directory, e)),
    }
}

/// Takes the lock, with patience: what a daemon that was just killed had forked keeps the lock until it becomes another
/// program.
fn lock(file: &File) -> Result<(), TryLockError> {
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
    file.try_lock()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_has_one_daemon_and_is_free_when_that_has_gone() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIP: cgroups are made by root");
            return;
        }
        let mut options = LinuxOptions::new("/run/reddwarf-claim-test", "/nonexistent", "/nonexistent");
        options.instance = format!("reddwarf-claim-{}", std::process::id());
        let held = claim(&options).unwrap();
        let refused = claim(&options).unwrap_err();
        assert_eq!(refused.kind, HostErrorKind::Foreign);
        assert!(refused.to_string().contains("--run"), "{refused}");
        drop(held);
        drop(claim(&options).unwrap());
        let cgroups = Cgroups::detect(&options.cgroup_root).unwrap();
        assert!(cgroups.remove(&Path::new("/").join(&options.instance)).unwrap());
    }
}
