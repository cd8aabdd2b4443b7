//! Things that bear our mark but belong to no sandbox, left by a crash in the middle of something.

use crate::files::{io_error, names_in, remove_file, remove_tree};
use crate::host::{BEST_EFFORT, LinuxHost, Shared};
use crate::link;
use crate::lock;
use crate::mounts;
use crate::watch::parse_lock;
use reddwarf_host::{Change, HostError, HostErrorKind, HostResult, Leftover, SandboxId};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Kinds of leftovers, as they are named to people.
const LINK: &str = "link";
const MOUNT: &str = "mount";
const CGROUP: &str = "cgroup";
const DIRECTORY: &str = "directory";

/// The cgroup of this instance that holds shims, not a sandbox.
const SHIMS: &str = "shims";

/// Everything of ours whose sandbox is not among `sandboxes`. What can't be read is left out: not known is not left.
pub(crate) fn find(
    shared: &Shared,
    sandboxes: &BTreeSet<SandboxId>,
    mounted: &Result<BTreeSet<PathBuf>, String>,
    links: &Result<BTreeSet<SandboxId>, String>,
) -> Vec<Leftover> {
    let mut found = BTreeSet::new();
    let mut add = |kind: &str, id: &SandboxId| {
        // A directory without a mark may be in the making by a call that runs right now.
        if !sandboxes.contains(id) && !shared.paths.run.sandbox(id).exists() {
            found.insert(Leftover { kind: kind.to_owned(), name: id.to_string() });
        }
    };
    for id in links.iter().flatten() {
        add(LINK, id);
    }
    let private = shared.paths.private();
    for target in mounted.iter().flatten() {
        // KIND/SANDBOX or KIND/SANDBOX/…
        let below = target.strip_prefix(&private).ok().and_then(|p| p.components().nth(1));
        let name = below.and_then(|c| c.as_os_str().to_str());
        if let Some(id) = name.and_then(|n| SandboxId::new(n).ok()) {
            add(MOUNT, &id);
        }
    }
    for parent in [shared.instance_cgroup(), shared.best_effort_cgroup()] {
        for name in shared.cgroups.children(&parent).unwrap_or_default() {
            if let (false, Ok(id)) = ([SHIMS, BEST_EFFORT].contains(&name.as_str()), SandboxId::new(name)) {
                add(CGROUP, &id);
            }
        }
    }
    for (id, _) in directories(shared) {
        add(DIRECTORY, &id);
    }
    found.into_iter().collect()
}

/// Directories and files by sandbox, outside of the sandbox's own.
fn directories(shared: &Shared) -> Vec<(SandboxId, PathBuf)> {
    let private = shared.paths.private();
    let parents = [
        shared.paths.disk_sandboxes(),
        private.join("ns"),
        private.join("shm"),
        private.join("tmp"),
        private.join("files"),
    ];
    let mut found = Vec::new();
    for parent in parents {
        for name in names_in(&parent).unwrap_or_default() {
            let path = parent.join(&name);
            if let Ok(id) = SandboxId::new(name) {
                found.push((id, path));
            }
        }
    }
    let locks = shared.paths.run.locks();
    for name in names_in(&locks).unwrap_or_default() {
        if let Some((id, _, _)) = parse_lock(&name) {
            found.push((id, locks.join(name)));
        }
    }
    found
}

/// `leftover_remove`: looks again, then removes.
pub(crate) async fn remove(host: &LinuxHost, leftover: &Leftover) -> HostResult<Change> {
    let foreign = |message: &str| {
        HostError::new(
            HostErrorKind::Foreign,
            "remove leftover",
            format!("{} {}", leftover.kind, leftover.name),
            message,
        )
    };
    let id = SandboxId::new(leftover.name.as_str()).map_err(|e| foreign("not a name of ours").caused_by(e))?;
    if host.shared.paths.sandbox_mark(&id).exists() {
        return Err(foreign("a sandbox of that name exists: it is not left over"));
    }
    let kind = leftover.kind.clone();
    if kind == LINK {
        return link::detach(&host.shared.options, &id).await;
    }
    let removed = host
        .blocking("remove leftover", move |shared| match kind.as_str() {
            MOUNT => remove_mounts(shared, &id),
            CGROUP => remove_cgroup(shared, &id),
            DIRECTORY => remove_directories(shared, &id),
            other => {
                let message = format!("no leftovers of the kind {other} are ours");
                Err(HostError::new(HostErrorKind::Foreign, "remove leftover", id.as_str(), message))
            }
        })
        .await?;
    Ok(if removed {
        Change::Changed(format!("removed {} {}", leftover.kind, leftover.name))
    } else {
        Change::Unchanged
    })
}

fn remove_mounts(shared: &Shared, id: &SandboxId) -> HostResult<bool> {
    let mut any = false;
    let volumes = shared.paths.disk_sandbox(id).join("volumes");
    for dir in [shared.paths.namespaces(id), shared.paths.shm(id), shared.paths.memory_volumes(id), volumes] {
        any |= mounts::detach_below(&dir).map_err(|e| io_error("unmount", &dir, e))?;
    }
    Ok(any)
}

fn remove_cgroup(shared: &Shared, id: &SandboxId) -> HostResult<bool> {
    let cgroup = shared.cgroup(id);
    let failed = |e| io_error("remove cgroup", &cgroup, e);
    if !shared.cgroups.kill_all(&cgroup, Duration::from_secs(5)).map_err(failed)? {
        let message = "its processes were killed and are not gone yet";
        return Err(HostError::new(HostErrorKind::Busy, "remove cgroup", id.as_str(), message));
    }
    shared.cgroups.remove(&cgroup).map_err(failed)
}

/// Removes the cgroups of this instance once no sandbox runs: one that starts again makes its own. What bears no name of ours
/// stays, and so does what processes are in.
///
/// # Errors
/// `Busy` names the first that processes are in; the others were removed.
pub(crate) fn remove_cgroups(shared: &Shared) -> HostResult<()> {
    let mut failed = None;
    for parent in [shared.best_effort_cgroup(), shared.instance_cgroup()] {
        let mut keep = |path: &Path, error: io::Error| {
            failed.get_or_insert_with(|| io_error("remove cgroup", path, error));
        };
        match shared.cgroups.children(&parent) {
            Ok(names) => {
                let ours = names.into_iter().filter(|name| name != BEST_EFFORT && SandboxId::new(name).is_ok());
                for cgroup in ours.map(|name| parent.join(name)) {
                    shared.cgroups.remove_soon(&cgroup).unwrap_or_else(|e| keep(&cgroup, e));
                }
            }
            Err(error) => keep(&parent, error),
        }
        shared.cgroups.remove_if_empty(&parent).unwrap_or_else(|e| keep(&parent, e));
    }
    failed.map_or(Ok(()), Err)
}

fn remove_directories(shared: &Shared, id: &SandboxId) -> HostResult<bool> {
    let mut any = remove_mounts(shared, id)?;
    for (_, path) in directories(shared).into_iter().filter(|(owner, _)| owner == id) {
        let failed = |e: io::Error| io_error("remove", &path, e);
        if path.starts_with(shared.paths.run.locks()) {
            if !lock::is_held(&path).map_err(failed)? {
                any |= remove_file(&path).map_err(failed)?;
            }
        } else {
            any |= remove_tree(&path).map_err(failed)?;
        }
    }
    Ok(any)
}
