//! What was asked of the fake host: counts, every mutating call with its arguments, and broken rules.

use super::fault::Op;
use crate::error::{HostErrorKind, HostResult};
use crate::names::{ContainerName, SandboxId, VolumeName};
use crate::observe::Note;
use crate::service::ServiceTable;
use crate::spec::{ContainerSpec, NetworkSpec, Resources, SandboxSpec, Signal, VolumeSpec};
use crate::time::BootTime;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How often each call was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls(BTreeMap<Op, u64>);

impl Calls {
    /// How often `op` was called.
    pub fn of(&self, op: Op) -> u64 {
        self.0.get(&op).copied().unwrap_or(0)
    }

    /// Calls that are meant to change the host.
    pub fn mutating(&self) -> u64 {
        self.0.iter().filter(|(op, _)| op.is_mutating()).map(|(_, n)| n).sum()
    }

    /// Calls that only look.
    pub fn observing(&self) -> u64 {
        self.0.iter().filter(|(op, _)| !op.is_mutating()).map(|(_, n)| n).sum()
    }
}

/// The arguments of a mutating call, beyond names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing further.
    Plain,
    /// `sandbox_ensure`.
    Sandbox(Box<SandboxSpec>),
    /// `container_start`.
    Container(Box<ContainerSpec>),
    /// `container_signal`.
    Signal(Signal),
    /// `container_note`.
    Note(Note),
    /// `container_update`.
    Resources(Resources),
    /// `volume_update`.
    Volume(VolumeName, Box<VolumeSpec>),
    /// `network_ensure`.
    Network(NetworkSpec),
    /// `services_ensure`.
    Services(Box<ServiceTable>),
    /// An image's name, or a leftover's kind and name.
    Name(String),
}

/// One mutating call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// When it was made.
    pub at: BootTime,
    /// Which.
    pub op: Op,
    /// On which sandbox.
    pub sandbox: Option<SandboxId>,
    /// On which container and attempt.
    pub container: Option<(ContainerName, u32)>,
    /// With what.
    pub asked: Asked,
    /// The sandbox's spec before the call, when it was there.
    pub found: Option<Box<SandboxSpec>>,
    /// Specs of the instances running before the call: all of the sandbox's, or the one that the call is about.
    pub running: Vec<ContainerSpec>,
    /// Whether it changed something, or how it failed; `None` when it never returned.
    pub outcome: Option<Result<bool, HostErrorKind>>,
}

impl Mutation {
    /// Whether this call ended, or set out to end, running containers (I3).
    pub fn disrupts(&self) -> bool {
        let ends = match self.op {
            Op::SandboxStop | Op::SandboxDestroy => true,
            Op::ContainerSignal => !matches!(self.asked, Asked::Signal(Signal::Sigwinch)),
            Op::ContainerNote => matches!(self.asked, Asked::Note(Note::Stopping { .. })),
            _ => false,
        };
        ends && !self.running.is_empty()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Journal {
    calls: Calls,
    mutations: VecDeque<Mutation>,
    /// Number of the first entry of `mutations`, when older ones were dropped.
    first: u64,
    violations: Vec<String>,
    in_flight: BTreeSet<SandboxId>,
}

impl Journal {
    /// Mutations and violations kept. Enough for any test; bounded for the simulation.
    const KEPT: usize = 100_000;

    pub(crate) fn count(&mut self, op: Op) {
        *self.calls.0.entry(op).or_default() += 1;
    }

    /// Records a mutating call and returns its number.
    pub(crate) fn begin(&mut self, mutation: Mutation, limit: usize) -> u64 {
        if let Some(id) = &mutation.sandbox
            && !self.in_flight.insert(id.clone())
        {
            let text = format!("{}: a second mutating call ({}) while one is under way", id, mutation.op.words());
            self.violation(text);
        }
        self.mutations.push_back(mutation);
        while self.mutations.len() > limit.min(Self::KEPT) {
            self.mutations.pop_front();
            self.first += 1;
        }
        self.first + self.mutations.len() as u64
    }

    pub(crate) fn outcome<T>(&mut self, number: u64, result: &HostResult<T>, changed: bool) {
        let index = number.checked_sub(self.first + 1).and_then(|i| usize::try_from(i).ok());
        if let Some(mutation) = index.and_then(|i| self.mutations.get_mut(i)) {
            mutation.outcome = Some(result.as_ref().map(|_| changed).map_err(|e| e.kind));
        }
    }

    pub(crate) fn leave(&mut self, sandbox: &SandboxId) {
        self.in_flight.remove(sandbox);
    }

    pub(crate) fn violation(&mut self, text: String) {
        if self.violations.len() < Self::KEPT {
            self.violations.push(text);
        }
    }

    pub(crate) fn calls(&self) -> Calls {
        self.calls.clone()
    }

    pub(crate) fn mutations(&self) -> Vec<Mutation> {
        self.mutations.iter().cloned().collect()
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.clone()
    }

    pub(crate) fn clear(&mut self) {
        self.calls = Calls::default();
        self.first += self.mutations.len() as u64;
        self.mutations.clear();
        self.violations.clear();
    }
}
