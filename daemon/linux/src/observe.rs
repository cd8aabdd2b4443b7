//! All of ours on this host, from files: a few directory reads and small files per sandbox, one mount table, one
//! netlink dump. Nothing is executed, nothing changed.

use crate::files::{io_error, names_in};
use crate::host::{LinuxHost, Shared};
use crate::leftovers;
use crate::link;
use crate::mounts;
use crate::namespaces;
use crate::pause;
use crate::record::{ContainerRunning, SandboxMark, SandboxPhase, read_mark};
use crate::sandbox;
use reddwarf_host::spec::{ContainerImage, ContainerSpec};
use reddwarf_host::{
    HostObservation, HostResult, ImageId, ImageStore, Leftover, Observation, SandboxId, SandboxObserved, SandboxState,
};
use reddwarf_supervise::instance::Seen;
use reddwarf_supervise::kept::Kept;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Records as they were last read.
#[derive(Default)]
pub(crate) struct Cache {
    marks: Kept<SandboxMark>,
    phases: Kept<SandboxPhase>,
    instances: Seen<ContainerRunning>,
}

impl Cache {
    fn sweep(&self, sandboxes: usize, instances: usize) {
        self.marks.sweep(sandboxes);
        self.phases.sweep(sandboxes);
        self.instances.sweep(sandboxes, instances);
    }
}

/// What is looked up once per pass.
struct Facts {
    mounted: Result<BTreeSet<PathBuf>, String>,
    links: Result<BTreeSet<SandboxId>, String>,
}

type Sandboxes = Observation<BTreeMap<SandboxId, Observation<SandboxObserved>>>;

pub(crate) async fn observe(host: &LinuxHost) -> HostObservation {
    let listed = link::list(&host.shared.options).await.map_err(|e| e.chain());
    let links = listed.as_ref().map(|all| link::marked(&host.shared.options, all)).map_err(Clone::clone);
    let network = match listed {
        Ok(all) => host.network_observe(all).await.map_err(|e| e.chain()),
        Err(why) => Err(why),
    };
    let network = network.map_or_else(Observation::Unknown, Observation::Known);
    let images = match host.image_list().await {
        Ok(list) => Observation::Known(list.into_iter().map(|i| (i.id.clone(), i)).collect()),
        Err(e) => Observation::Unknown(e.chain()),
    };
    let files = host.blocking("observe", move |shared| Ok(read_files(shared, links))).await;
    let (sandboxes, leftovers) = files.unwrap_or_else(|e| (Observation::Unknown(e.chain()), Vec::new()));
    HostObservation { at: host.shared.clock.boot(), sandboxes, network, leftovers, images }
}

fn read_files(shared: &Shared, links: Result<BTreeSet<SandboxId>, String>) -> (Sandboxes, Vec<Leftover>) {
    let private = shared.paths.private();
    let mounted = mounts::targets_below(&private).map_err(|e| io_error("read mounts", &private, e).chain());
    let facts = Facts { mounted, links };
    let dir = shared.paths.run.sandboxes();
    let names = match names_in(&dir) {
        Ok(names) => names,
        Err(e) => return (Observation::Unknown(io_error("list sandboxes", &dir, e).chain()), Vec::new()),
    };
    let mut found = BTreeMap::new();
    for id in names.into_iter().filter_map(|n| SandboxId::new(n).ok()) {
        match one(shared, &id, &facts) {
            Ok(Some(observed)) => {
                found.insert(id, Observation::Known(observed));
            }
            // Without a mark it is not ours, or about to be made or gone.
            Ok(None) => {}
            Err(e) => {
                found.insert(id, Observation::Unknown(e.chain()));
            }
        }
    }
    let known = || found.values().filter_map(Observation::known);
    let containers = known().map(|s| s.containers.values().map(Vec::len).sum::<usize>()).sum();
    shared.records.sweep(known().count(), containers);
    let leftovers = leftovers::find(shared, &found.keys().cloned().collect(), &facts.mounted, &facts.links);
    (Observation::Known(found), leftovers)
}

fn one(shared: &Shared, id: &SandboxId, facts: &Facts) -> HostResult<Option<SandboxObserved>> {
    let path = shared.paths.sandbox_mark(id);
    let Some(mark) = shared.records.marks.file(&path, || read_mark(&path))? else { return Ok(None) };
    let phase = shared.records.phases.file(&shared.paths.run.sandbox_state(id), || sandbox::phase(shared, id))?;
    let (state, started) = match phase.as_deref().copied() {
        None => (SandboxState::Partial("not all of it is made".to_owned()), None),
        Some(SandboxPhase::Stopping) => (SandboxState::Stopping, None),
        Some(SandboxPhase::Stopped) => (SandboxState::Stopped, None),
        Some(SandboxPhase::Running { started }) => (running_state(shared, &mark, facts)?, Some(started)),
    };
    let containers = shared.paths.run.observed(id, &shared.records.instances)?;
    Ok(Some(SandboxObserved { spec: mark.spec.clone(), state, started, containers }))
}

/// Running, or Partial when something of it was taken away behind our back.
fn running_state(shared: &Shared, mark: &SandboxMark, facts: &Facts) -> HostResult<SandboxState> {
    let unknown = |why: &String| {
        let id = mark.spec.id.as_str();
        reddwarf_host::HostError::new(reddwarf_host::HostErrorKind::Other, "observe sandbox", id, why.clone())
    };
    let id = &mark.spec.id;
    let mounted = facts.mounted.as_ref().map_err(unknown)?;
    let partial = |what: &str| Ok(SandboxState::Partial(what.to_owned()));
    if !namespaces::paths(&shared.paths, &mark.spec).are_pinned(mounted) {
        return partial("its namespaces are gone");
    }
    if !pause::lives(shared, &mark.spec)? {
        return partial("its first process has ended");
    }
    if !mark.spec.host_ipc && !mounted.contains(&shared.paths.shm(id)) {
        return partial("its /dev/shm is gone");
    }
    if namespaces::has_link(&mark.spec) && !facts.links.as_ref().map_err(unknown)?.contains(id) {
        return partial("its network link is gone");
    }
    Ok(SandboxState::Running)
}

/// Images that a recorded container was started from.
pub(crate) fn images_in_use(shared: &Shared) -> HostResult<BTreeSet<ImageId>> {
    let dir = shared.paths.run.sandboxes();
    let mut used = BTreeSet::new();
    for name in names_in(&dir).map_err(|e| io_error("list sandboxes", &dir, e))? {
        let Ok(id) = SandboxId::new(name) else { continue };
        for (_, _, dir) in shared.paths.run.instances(&id)? {
            if let Some(ContainerSpec { image: ContainerImage::Image { id }, .. }) = dir.spec()? {
                used.insert(id);
            }
        }
    }
    Ok(used)
}
