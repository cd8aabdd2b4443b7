//! Which probes and hooks should be at work, from what is wanted and what is observed.

use super::checks::{Checks, InstanceId};
use super::spec::{Kind, ProbeSpec, probes};
use super::standing::{Start, pre_stop, standing};
use crate::desired::PodIntent;
use reddwarf_host::spec::{ContainerRole, Hook, SandboxNetwork};
use reddwarf_host::{BootTime, ContainerObserved, ContainerState, SandboxObserved, SandboxState};
use reddwarf_objects::pod::Container;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// One probe or hook of one instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskKey {
    /// Of which instance.
    pub instance: InstanceId,
    /// Which.
    pub what: What,
}

/// A probe or a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The probe of this kind.
    Probe(Kind),
    /// The postStart hook.
    PostStart,
    /// The preStop hook.
    PreStop,
}

/// What there is to do. A task runs for as long as its job stays the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// What.
    pub work: Work,
    /// The container's role, for events.
    pub role: ContainerRole,
    /// The pod's address.
    pub address: IpAddr,
    /// When the instance started.
    pub started: BootTime,
}

/// A probe until further notice, or a hook once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// A probe.
    Probe(ProbeSpec),
    /// A hook, and since when it is due.
    Hook(Hook, BootTime),
}

/// All that should be at work for one pod.
pub type Jobs = BTreeMap<TaskKey, Job>;

/// What should be at work for a pod: `own` is its sandbox, `boxes` are all that bear its name, `host` is the address of
/// pods on the host's network.
pub fn jobs(
    intent: Option<&PodIntent>,
    own: Option<&SandboxObserved>,
    boxes: &[&SandboxObserved],
    checks: &Checks,
    host: Option<IpAddr>,
) -> Jobs {
    let mut jobs = Jobs::new();
    for sandbox in boxes.iter().filter(|s| s.state == SandboxState::Running) {
        let address = match &sandbox.spec.network {
            SandboxNetwork::Pod { address, .. } => address.addr(),
            SandboxNetwork::Host => host.unwrap_or(Ipv4Addr::LOCALHOST.into()),
        };
        let intent_of = intent.filter(|_| own.is_some_and(|own| own.spec.id == sandbox.spec.id));
        for instance in sandbox.containers.values().filter_map(|all| all.last()) {
            let ContainerState::Running { started, .. } = instance.state else { continue };
            let job = |work| Job { work, role: instance.spec.role, address, started };
            let id = InstanceId::of(&sandbox.spec.id, instance);
            let mut add = |what, work| jobs.insert(TaskKey { instance: id.clone(), what }, job(work));
            stopping(intent, sandbox, instance, checks, &mut add);
            let container = intent_of.and_then(|i| Some((i, i.container(instance.spec.name.as_str())?)));
            if let Some((intent, container)) = container {
                asking(intent, container, sandbox, instance, checks, &mut add);
            }
        }
    }
    jobs
}

/// The preStop hook of an instance that is to stop and was not told so yet.
fn stopping(
    intent: Option<&PodIntent>,
    sandbox: &SandboxObserved,
    instance: &ContainerObserved,
    checks: &Checks,
    add: &mut impl FnMut(What, Work) -> Option<Job>,
) {
    let Some(stop) = instance.stop.filter(|s| s.signalled().is_none() && !s.killed) else { return };
    let id = InstanceId::of(&sandbox.spec.id, instance);
    let key = crate::key::PodKey::from(&sandbox.spec.pod);
    if checks.of(&key, &id).pre_stopped {
        return;
    }
    if let Some(hook) = pre_stop(intent, sandbox, instance) {
        add(What::PreStop, Work::Hook(hook, stop.at));
    }
}

/// The postStart hook, then the startup probe, then the other two. A container that stops is only asked whether it takes
/// requests.
fn asking(
    intent: &PodIntent,
    container: &Container,
    sandbox: &SandboxObserved,
    instance: &ContainerObserved,
    checks: &Checks,
    add: &mut impl FnMut(What, Work) -> Option<Job>,
) {
    let ContainerState::Running { started, .. } = instance.state else { return };
    let found = checks.of(&intent.key, &InstanceId::of(&sandbox.spec.id, instance));
    let standing = standing(intent, container, &sandbox.spec.id, instance, found);
    let stays = instance.stop.is_none() && intent.deleting.is_none();
    if standing.start == Start::Waiting {
        if let Some(hook) = instance.spec.lifecycle.post_start.clone()
            && stays
            && found.post_start.is_none()
        {
            add(What::PostStart, Work::Hook(hook, started));
        }
        return;
    }
    for probe in probes(container) {
        let at_work = match probe.kind {
            Kind::Startup => stays && !standing.started && found.started.is_none(),
            Kind::Liveness => stays && standing.started && found.live != Some(false),
            Kind::Readiness => standing.started,
        };
        if at_work {
            add(What::Probe(probe.kind), Work::Probe(probe));
        }
    }
}
