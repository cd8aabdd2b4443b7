//! Events: one inotify watch on the directory of locks tells of every shim's end, without a task per container.

use crate::files::io_error;
use crate::host::Shared;
use crate::lock;
use crate::record::ContainerDir;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use reddwarf_host::{ContainerName, ContainerState, HostEvent, HostResult, SandboxId};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

struct Source(Inotify);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Starts watching. Shims that ended while no daemon ran are looked after at once.
pub(crate) fn start(shared: &Arc<Shared>, runtime: &tokio::runtime::Handle) -> HostResult<AbortHandle> {
    let locks = shared.paths.run.locks();
    let watch = || -> io::Result<AsyncFd<Source>> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(&locks, AddWatchFlags::IN_CLOSE_WRITE)?;
        let _in_runtime = runtime.enter();
        register(Source(inotify))
    };
    let source = watch().map_err(|e| io_error("watch", &locks, e))?;
    let weak = Arc::downgrade(shared);
    Ok(runtime.spawn(run(source, weak)).abort_handle())
}

#[allow(unsafe_code)]
fn register(source: Source) -> io::Result<AsyncFd<Source>> {
    // SAFETY: `source` owns its descriptor, which stays open and the same for as long as the AsyncFd owns `source`.
    Ok(unsafe { AsyncFd::register(source) }?)
}

async fn run(source: AsyncFd<Source>, shared: Weak<Shared>) {
    if let Some(shared) = shared.upgrade() {
        let _ = tokio::task::spawn_blocking(move || end_orphans(&shared)).await;
    }
    loop {
        let Ok(mut ready) = source.readable().await else { return };
        let events = match ready.get_inner().0.read_events() {
            Ok(events) => events,
            Err(nix::errno::Errno::EAGAIN) => {
                ready.clear_ready();
                continue;
            }
            Err(e) => {
                tracing::error!(error = %e, "watching shims failed: periodic passes go on");
                return;
            }
        };
        let Some(shared) = shared.upgrade() else { return };
        for event in events {
            notice(&shared, event).await;
        }
    }
}

async fn notice(shared: &Arc<Shared>, event: InotifyEvent) {
    if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
        let _ = shared.events.send(HostEvent::Everything);
        return;
    }
    let Some((id, name, attempt)) = event.name.and_then(|n| parse_lock(n.to_str()?)) else { return };
    let dir = shared.paths.run.container(&id, &name, attempt);
    // Without an exit record the shim was killed: what it watched over must not go on unwatched.
    if dir.state().is_ok_and(|s| s.is_some()) && dir.exit().is_ok_and(|e| e.is_none()) {
        let (shared, id, name) = (shared.clone(), id.clone(), name.clone());
        let _ = tokio::task::spawn_blocking(move || end_orphan(&shared, &id, &name, attempt, &dir)).await;
    }
    let _ = shared.events.send(HostEvent::Container(id, name));
}

/// Lock files are named `SANDBOX.CONTAINER.ATTEMPT`; no part holds a dot.
pub(crate) fn parse_lock(name: &str) -> Option<(SandboxId, ContainerName, u32)> {
    let mut parts = name.split('.');
    let id = SandboxId::new(parts.next()?).ok()?;
    let name = ContainerName::new(parts.next()?).ok()?;
    let attempt = parts.next()?.parse().ok()?;
    if parts.next().is_some() { None } else { Some((id, name, attempt)) }
}

/// Kills what a killed shim left running. The instance stays Lost until the node makes sure of
/// its end: nobody knows how it would have ended.
fn end_orphan(shared: &Shared, id: &SandboxId, name: &ContainerName, attempt: u32, dir: &ContainerDir) {
    let lock_file = shared.paths.run.lock(id, name, attempt);
    if !matches!(dir.observed(&lock_file), Ok(ContainerState::Lost(_))) {
        return;
    }
    tracing::warn!(sandbox = %id, container = %name, attempt, "its shim was killed: ending its processes");
    let cgroup = shared.container_cgroup(id, name, attempt);
    match shared.cgroups.kill_all(&cgroup, Duration::from_secs(10)) {
        Ok(true) => {}
        Ok(false) => tracing::error!(sandbox = %id, container = %name, "its processes can't be killed"),
        Err(e) => tracing::error!(sandbox = %id, container = %name, error = %e, "its processes can't be killed"),
    }
}

/// The same for everything found at the start of the daemon.
fn end_orphans(shared: &Shared) {
    let names = crate::files::names_in(&shared.paths.run.locks()).unwrap_or_default();
    for (id, name, attempt) in names.iter().filter_map(|n| parse_lock(n)) {
        let lock_file = shared.paths.run.lock(&id, &name, attempt);
        if lock::is_held(&lock_file).unwrap_or(true) {
            continue;
        }
        end_orphan(shared, &id, &name, attempt, &shared.paths.run.container(&id, &name, attempt));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_names_are_taken_apart() {
        let (id, name, attempt) = parse_lock("default-web-1.app.12").unwrap();
        assert_eq!((id.as_str(), name.as_str(), attempt), ("default-web-1", "app", 12));
        for bad in ["a.b", "a.b.c", "a.b.1.2", "A.b.1", ""] {
            assert!(parse_lock(bad).is_none(), "{bad}");
        }
    }
}
