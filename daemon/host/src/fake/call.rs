//! One call from its beginning to its end: counting, recording, faults, saving.

use super::journal::Asked;
use super::{FakeHost, Fault, Mutation, Op, lock};
use crate::error::{HostError, HostErrorKind, HostResult};
use crate::names::{ContainerName, SandboxId};
use crate::observe::Change;
use std::future::pending;

impl FakeHost {
    /// Begins a call: counts it, records it, lets the faults that come before its effect happen.
    pub(super) async fn begin(
        &self,
        op: Op,
        subject: impl Into<String>,
        mutation: Option<Mutation>,
    ) -> HostResult<Call<'_>> {
        self.settle();
        self.arm();
        let sandbox = mutation.as_ref().and_then(|m| m.sandbox.clone());
        let number = {
            let mut journal = lock(&self.shared.journal);
            journal.count(op);
            mutation.map(|m| journal.begin(m, self.shared.options.journal))
        };
        let fault = self.faults().next(op);
        let boot = *self.shared.boots.borrow();
        let call = Call { host: self, op, subject: subject.into(), sandbox, number, fault, taken: 0, boot };
        call.before().await
    }
}

/// One call under way.
pub(super) struct Call<'a> {
    pub(super) host: &'a FakeHost,
    op: Op,
    pub(super) subject: String,
    sandbox: Option<SandboxId>,
    number: Option<u64>,
    pub(super) fault: Option<Fault>,
    taken: u32,
    boot: u64,
}

impl Call<'_> {
    async fn before(self) -> HostResult<Self> {
        match &self.fault {
            Some(Fault::FailBefore(kind)) => Err(self.finish_injected(*kind)),
            Some(Fault::AskLater(pause)) => {
                Err(self.finish_injected(HostErrorKind::Unreachable).retry_after(Some(*pause)))
            }
            Some(Fault::TimeoutBefore(after)) => {
                tokio::time::sleep(*after).await;
                Err(self.finish_injected(HostErrorKind::Timeout))
            }
            Some(Fault::Hang) => pending().await,
            Some(Fault::PowerCutBefore) => self.lose_power().await,
            Some(Fault::Slow(d)) => {
                tokio::time::sleep(*d).await;
                self.host.settle();
                Ok(self)
            }
            _ => Ok(self),
        }
    }

    /// One step is done; the next may never come.
    pub(super) async fn step(&mut self) -> HostResult<()> {
        self.taken += 1;
        self.save();
        if !self.host.shared.options.step_time.is_zero() {
            tokio::time::sleep(self.host.shared.options.step_time).await;
            self.host.settle();
        }
        if *self.host.shared.boots.borrow() != self.boot {
            return pending().await;
        }
        match self.fault {
            Some(Fault::FailPartway(steps, kind)) if steps == self.taken => Err(self.injected(kind)),
            Some(Fault::PowerCutAfter(steps)) if steps == self.taken => self.lose_power().await,
            _ => Ok(()),
        }
    }

    /// Whether the call is to claim success and do nothing.
    pub(super) fn nothing_done(&self) -> bool {
        self.fault == Some(Fault::NothingDone)
    }

    /// Ends a call that returns a change.
    pub(super) async fn end(self, result: HostResult<Change>) -> HostResult<Change> {
        let changed = matches!(result, Ok(Change::Changed(_)));
        self.end_with(result, changed).await
    }

    /// Ends any call: lets the faults that come after its effect happen.
    pub(super) async fn end_with<T>(self, result: HostResult<T>, changed: bool) -> HostResult<T> {
        self.save();
        self.host.settle();
        self.host.arm();
        if *self.host.shared.boots.borrow() != self.boot {
            return pending().await;
        }
        let result = match (&self.fault, result) {
            (Some(Fault::FailAfter(kind)), Ok(_)) => Err(self.injected(*kind)),
            (Some(Fault::TimeoutAfter(after)), Ok(_)) => {
                tokio::time::sleep(*after).await;
                Err(self.injected(HostErrorKind::Timeout))
            }
            (Some(Fault::HangAfter), Ok(_)) => pending().await,
            (Some(Fault::PowerCutAfter(_)), Ok(_)) => self.lose_power().await,
            (_, result) => result,
        };
        if let Some(number) = self.number {
            lock(&self.host.shared.journal).outcome(number, &result, changed);
        }
        result
    }

    fn save(&self) {
        if let Some(id) = &self.sandbox {
            self.host.shared.save(id);
        }
        if self.op.is_mutating() {
            self.host.shared.save_machine();
        }
    }

    async fn lose_power<T>(&self) -> T {
        self.host.power_cut();
        pending().await
    }

    pub(super) fn error(&self, kind: HostErrorKind, message: impl Into<String>) -> HostError {
        HostError::new(kind, self.op.words(), self.subject.clone(), message)
    }

    fn injected(&self, kind: HostErrorKind) -> HostError {
        self.error(kind, "the fault plan says so")
    }

    fn finish_injected(&self, kind: HostErrorKind) -> HostError {
        let error = self.injected(kind);
        if let Some(number) = self.number {
            lock(&self.host.shared.journal).outcome::<()>(number, &Err(self.injected(kind)), false);
        }
        error
    }

    /// Fails while the administrator keeps `subject` busy.
    pub(super) fn not_busy(&self, subject: &str) -> HostResult<()> {
        let now = self.host.now().boot;
        let mut world = self.host.world();
        match world.busy.get(subject).copied() {
            Some(until) if until > now => Err(self.error(HostErrorKind::Busy, format!("{subject} is in use"))),
            Some(_) => {
                world.busy.remove(subject);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(id) = &self.sandbox
            && self.number.is_some()
        {
            lock(&self.host.shared.journal).leave(id);
        }
    }
}

/// The record of a mutating call, as far as known at its beginning.
pub(super) fn mutation(host: &FakeHost, op: Op, sandbox: Option<&SandboxId>, asked: Asked) -> Mutation {
    host.settle();
    let world = host.world();
    let found = sandbox.and_then(|id| world.sandboxes().get(id));
    Mutation {
        at: host.now().boot,
        op,
        sandbox: sandbox.cloned(),
        container: None,
        asked,
        found: found.map(|s| Box::new(s.spec.clone())),
        running: found.map(|s| s.live().map(|i| i.spec.clone()).collect()).unwrap_or_default(),
        outcome: None,
    }
}

/// The record of a mutating call about one instance.
pub(super) fn instance_mutation(
    host: &FakeHost,
    op: Op,
    sandbox: &SandboxId,
    (name, attempt): (&ContainerName, u32),
    asked: Asked,
) -> Mutation {
    let mut record = mutation(host, op, Some(sandbox), asked);
    record.running.retain(|s| s.name == *name && s.attempt == attempt);
    record.container = Some((name.clone(), attempt));
    record
}
