//! What goes wrong and when: an explicit plan, or chance by a seed.

use crate::error::HostErrorKind;
use crate::names::SandboxId;
use std::collections::VecDeque;
use std::time::Duration;

/// The calls that a host answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Op {
    SandboxEnsure,
    SandboxStop,
    SandboxDestroy,
    VolumeUpdate,
    ContainerStart,
    ContainerSignal,
    ContainerNote,
    ContainerUpdate,
    ContainerRemove,
    NetworkEnsure,
    NetworkRemove,
    ServicesEnsure,
    ServicesDrift,
    Listeners,
    Routes,
    ImageImport,
    ImageRemove,
    ImagePull,
    ImageBuild,
    ImageCollect,
    LeftoverRemove,
    Exec,
    Attach,
    Connect,
    Dial,
    ImageList,
    Info,
    Observe,
    Pressure,
    Usage,
    DiskUsage,
}

impl Op {
    /// Every call.
    pub const ALL: [Op; 31] = [
        Op::SandboxEnsure,
        Op::SandboxStop,
        Op::SandboxDestroy,
        Op::VolumeUpdate,
        Op::ContainerStart,
        Op::ContainerSignal,
        Op::ContainerNote,
        Op::ContainerUpdate,
        Op::ContainerRemove,
        Op::NetworkEnsure,
        Op::NetworkRemove,
        Op::ServicesEnsure,
        Op::ServicesDrift,
        Op::Listeners,
        Op::Routes,
        Op::ImageImport,
        Op::ImageRemove,
        Op::ImagePull,
        Op::ImageBuild,
        Op::ImageCollect,
        Op::LeftoverRemove,
        Op::Exec,
        Op::Attach,
        Op::Connect,
        Op::Dial,
        Op::ImageList,
        Op::Info,
        Op::Observe,
        Op::Pressure,
        Op::Usage,
        Op::DiskUsage,
    ];

    /// Whether the call is meant to change the host. `exec` is not counted: what it runs is the user's affair.
    pub fn is_mutating(self) -> bool {
        !matches!(
            self,
            Op::Exec
                | Op::Attach
                | Op::Connect
                | Op::Dial
                | Op::ServicesDrift
                | Op::Listeners
                | Op::Routes
                | Op::ImageList
                | Op::Info
                | Op::Observe
                | Op::Pressure
                | Op::Usage
                | Op::DiskUsage
        )
    }

    /// The words that a [`HostError`](crate::HostError) begins with.
    pub fn words(self) -> &'static str {
        match self {
            Op::SandboxEnsure => "ensure sandbox",
            Op::SandboxStop => "stop sandbox",
            Op::SandboxDestroy => "destroy sandbox",
            Op::VolumeUpdate => "update volume",
            Op::ContainerStart => "start container",
            Op::ContainerSignal => "signal container",
            Op::ContainerNote => "note about container",
            Op::ContainerUpdate => "update container",
            Op::ContainerRemove => "remove container",
            Op::NetworkEnsure => "ensure network",
            Op::NetworkRemove => "remove network",
            Op::ServicesEnsure => "ensure services",
            Op::ServicesDrift => "look at services",
            Op::Listeners => "list listeners",
            Op::Routes => "list routes",
            Op::ImageImport => "import image",
            Op::ImageRemove => "remove image",
            Op::ImagePull => "pull image",
            Op::ImageBuild => "build image",
            Op::ImageCollect => "collect images",
            Op::LeftoverRemove => "remove leftover",
            Op::Exec => "exec",
            Op::Attach => "attach",
            Op::Connect => "connect",
            Op::Dial => "dial",
            Op::ImageList => "list images",
            Op::Info => "read host information",
            Op::Observe => "observe",
            Op::Pressure => "read pressure",
            Op::Usage => "read usage",
            Op::DiskUsage => "read disk usage",
        }
    }
}

/// What goes wrong in one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Fails with this kind, having done nothing.
    FailBefore(HostErrorKind),
    /// Fails as unreachable, having done nothing, and asks to be left alone for so long.
    AskLater(Duration),
    /// Does all of it and then fails with this kind (exit status 1 having done it, F26).
    FailAfter(HostErrorKind),
    /// Does so many of its steps and then fails. `sandbox_ensure`, `sandbox_stop`, `sandbox_destroy` and
    /// `container_start` have several; a call with fewer steps is not disturbed.
    FailPartway(u32, HostErrorKind),
    /// Returns `Timeout` after so long, having done nothing.
    TimeoutBefore(Duration),
    /// Does all of it and then returns `Timeout` after so long.
    TimeoutAfter(Duration),
    /// Takes so much longer.
    Slow(Duration),
    /// Never returns, having done nothing (U11).
    Hang,
    /// Never returns, having done all of it.
    HangAfter,
    /// Says `Changed` and has done nothing (exit status 0, F26).
    NothingDone,
    /// `observe` only: the list of sandboxes can't be read (U3).
    UnknownList,
    /// `observe` only: the list is there, but one sandbox (`None`: every one) can't be read.
    UnknownSandbox(Option<SandboxId>),
    /// `observe` only: the answer is cut off: sandboxes in the second half of the list are `Unknown`.
    Truncated,
    /// `observe` only: the network can't be read.
    UnknownNetwork,
    /// `observe` only: the images can't be read.
    UnknownImages,
    /// The machine loses power before the call does anything. The call never returns.
    PowerCutBefore,
    /// The machine loses power when the call has done so many of its steps (or all). The call never returns.
    PowerCutAfter(u32),
}

/// What goes wrong on a fake host, and when.
///
/// ```
/// use reddwarf_host::fake::{Fault, FaultPlan, Op};
/// use reddwarf_host::HostErrorKind;
/// let mut plan = FaultPlan::default();
/// plan.on(Op::ContainerStart, Fault::FailAfter(HostErrorKind::Other)); // the next one
/// plan.on_nth(Op::SandboxEnsure, 2, 3, Fault::Hang); // skip two, then three times
/// plan.chance(42, 0.05, &[Op::SandboxStop], &[Fault::NothingDone]); // one in twenty, by seed
/// ```
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    planned: Vec<Planned>,
    chances: Vec<Chance>,
}

#[derive(Clone, Debug)]
struct Planned {
    op: Op,
    skip: u32,
    times: u32,
    fault: Fault,
}

#[derive(Clone, Debug)]
struct Chance {
    rng: fastrand::Rng,
    probability: f64,
    ops: Vec<Op>,
    faults: VecDeque<Fault>,
}

impl FaultPlan {
    /// The next call of `op` suffers `fault`; several such lines are used up in order.
    pub fn on(&mut self, op: Op, fault: Fault) {
        self.on_nth(op, 0, 1, fault);
    }

    /// Every call of `op` suffers `fault` until the plan is cleared.
    pub fn always(&mut self, op: Op, fault: Fault) {
        self.on_nth(op, 0, u32::MAX, fault);
    }

    /// After `skip` calls of `op` that are left alone, the next `times` suffer `fault`.
    pub fn on_nth(&mut self, op: Op, skip: u32, times: u32, fault: Fault) {
        self.planned.push(Planned { op, skip, times, fault });
    }

    /// Each call of one of `ops` suffers one of `faults` with `probability` (0 to 1), reproducibly by `seed`.
    pub fn chance(&mut self, seed: u64, probability: f64, ops: &[Op], faults: &[Fault]) {
        let rng = fastrand::Rng::with_seed(seed);
        self.chances.push(Chance { rng, probability, ops: ops.to_vec(), faults: faults.iter().cloned().collect() });
    }

    /// Whether something may still go wrong.
    pub fn is_empty(&self) -> bool {
        self.planned.is_empty() && self.chances.is_empty()
    }

    /// What goes wrong in this call of `op`.
    pub(crate) fn next(&mut self, op: Op) -> Option<Fault> {
        let mut found = None;
        for planned in self.planned.iter_mut().filter(|p| p.op == op && p.times > 0) {
            if planned.skip > 0 {
                planned.skip -= 1;
            } else if found.is_none() {
                planned.times = if planned.times == u32::MAX { u32::MAX } else { planned.times - 1 };
                found = Some(planned.fault.clone());
            }
        }
        self.planned.retain(|p| p.times > 0);
        found.or_else(|| self.chances.iter_mut().find_map(|c| c.next(op)))
    }
}

impl Chance {
    fn next(&mut self, op: Op) -> Option<Fault> {
        if !self.ops.contains(&op) || self.rng.f64() >= self.probability {
            return None;
        }
        self.faults.get(self.rng.usize(..self.faults.len().max(1))).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planned_faults_come_when_they_should() {
        let mut plan = FaultPlan::default();
        plan.on_nth(Op::SandboxStop, 1, 2, Fault::Hang);
        let got: Vec<bool> = (0..4).map(|_| plan.next(Op::SandboxStop).is_some()).collect();
        assert_eq!(got, [false, true, true, false]);
        assert!(plan.is_empty());
        assert!(plan.next(Op::Observe).is_none());
    }

    #[test]
    fn chance_is_the_same_for_the_same_seed() {
        let run = |seed| {
            let mut plan = FaultPlan::default();
            plan.chance(seed, 0.5, &[Op::Observe], &[Fault::UnknownList, Fault::Truncated]);
            (0..64).map(|_| plan.next(Op::Observe)).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!(run(1).iter().any(Option::is_some) && run(1).iter().any(Option::is_none));
    }
}
