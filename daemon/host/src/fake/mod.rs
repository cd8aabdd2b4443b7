//! An in-process host with real rules, for tests, for dry runs and for `reddwarfd --host sim`.
//!
//! | part | holds |
//! |---|---|
//! | [`FakeHost`] | the handle; clones share one machine, so a restarted daemon takes a second handle |
//! | [`Script`] | what a container's process does (from its argv, or set by the test) |
//! | [`FaultPlan`] | what goes wrong, planned or by seed |
//! | [`Mutation`], [`Calls`] | what was asked of the host; [`FakeHost::violations`] tells of broken rules (I1) |
//! | [`FakeServer`] | what a container answers at a port |
//! | `admin.rs` | the administrator and the power company: methods that change things behind the node's back |
//! | [`FakeClock`] | time since boot that follows tokio's, paused or not |
//! | [`MemoryEngine`] | a storage engine without files |
//! | `disk.rs` | the simulation's state in files |
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! use reddwarf_host::{Host, HostErrorKind, fake::*};
//! let host = FakeHost::new();
//! host.add_image("web:1", Default::default());
//! host.faults().on(Op::SandboxEnsure, Fault::FailAfter(HostErrorKind::Other));
//! host.set_script(For::Container("app".into()), vec![Script::exits(std::time::Duration::from_secs(3), 1), Script::forever()]);
//! let node_side: std::sync::Arc<dyn Host> = std::sync::Arc::new(host.clone());
//! // … run the node against node_side with host.clock(), then:
//! assert_eq!(host.calls().mutating(), 0);
//! assert!(host.violations().is_empty());
//! # });
//! ```

mod admin;
mod attach;
mod call;
mod clock;
mod connect;
mod containers;
mod disk;
mod exec;
mod fault;
mod image_source;
mod images;
mod journal;
mod machine;
mod options;
mod sandboxes;
mod script;
mod server;
mod services;
mod state;
mod storage;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "says how long it took")]
mod tests;
mod usage;

pub use clock::FakeClock;
pub use exec::ExecAnswer;
pub use fault::{Fault, FaultPlan, Op};
pub use journal::{Asked, Calls, Mutation};
pub use options::{FakeOptions, For};
pub use script::{Reaction, Script, Step};
pub use server::{FakeServer, Reply, Request};
pub use state::{Foreign, Profile, ZoneState};
pub use storage::{MemoryEngine, StorageFault};
pub use usage::Load;

use crate::names::SandboxId;
use crate::spec::ContainerSpec;
use crate::time::{BootTime, Clock};
use crate::traits::HostEvent;
use journal::Journal;
use state::{Now, World};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{broadcast, watch};

/// A handle on a fake machine; clones share it.
#[derive(Clone)]
pub struct FakeHost {
    shared: Arc<Shared>,
}

struct Shared {
    options: FakeOptions,
    clock: Arc<dyn Clock>,
    /// Set when the clock is ours: a power cut begins its time anew.
    fake_clock: Option<FakeClock>,
    world: Mutex<World>,
    faults: Mutex<FaultPlan>,
    journal: Mutex<Journal>,
    scripts: Mutex<BTreeMap<For, Vec<Script>>>,
    answers: Mutex<BTreeMap<String, ExecAnswer>>,
    figures: Mutex<usage::Figures>,
    servers: Mutex<Vec<(For, u16, FakeServer)>>,
    events: broadcast::Sender<HostEvent>,
    /// What containers write, for those attached.
    output: broadcast::Sender<attach::Output>,
    /// Counts power cuts.
    boots: watch::Sender<u64>,
    disk: Option<disk::Disk>,
    /// The moment that a timer waits for.
    armed: Mutex<Option<BootTime>>,
}

/// Locks are never held across an await, and code under them does not panic; a poisoned one is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeHost {
    /// A machine as [`FakeOptions::default`] builds it, with a clock that follows tokio's time.
    pub fn new() -> Self {
        Self::with(FakeOptions::default())
    }

    /// A machine built to order, with a clock that follows tokio's time.
    pub fn with(options: FakeOptions) -> Self {
        let clock = FakeClock::new();
        Self::build(options, Arc::new(clock.clone()), Some(clock), None, World::default())
    }

    fn build(
        options: FakeOptions,
        clock: Arc<dyn Clock>,
        fake_clock: Option<FakeClock>,
        disk: Option<disk::Disk>,
        mut world: World,
    ) -> Self {
        if world.machine.boot_id.is_empty() {
            world.machine.boot_id = "fake-boot-0".into();
        }
        let shared = Shared {
            options,
            clock,
            fake_clock,
            world: Mutex::new(world),
            faults: Mutex::default(),
            journal: Mutex::default(),
            scripts: Mutex::default(),
            answers: Mutex::default(),
            figures: Mutex::default(),
            servers: Mutex::default(),
            events: broadcast::channel(4096).0,
            output: broadcast::channel(1024).0,
            boots: watch::channel(0).0,
            disk,
            armed: Mutex::new(None),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The machine's clock, to be given to the node as well.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.shared.clock.clone()
    }

    /// What goes wrong from now on.
    pub fn faults(&self) -> MutexGuard<'_, FaultPlan> {
        lock(&self.shared.faults)
    }

    /// Nothing goes wrong any more. Calls that hang go on hanging.
    pub fn clear_faults(&self) {
        *self.faults() = FaultPlan::default();
    }

    /// What containers' processes do, by attempt; the last script serves all further attempts. Containers that no
    /// script is set for do what their argv says ([`Script::parse`]).
    pub fn set_script(&self, which: For, by_attempt: Vec<Script>) {
        lock(&self.shared.scripts).insert(which, by_attempt);
    }

    /// How often each call was made since the last [`FakeHost::forget_calls`].
    pub fn calls(&self) -> Calls {
        lock(&self.shared.journal).calls()
    }

    /// Every mutating call since the last [`FakeHost::forget_calls`], oldest first.
    pub fn mutations(&self) -> Vec<Mutation> {
        lock(&self.shared.journal).mutations()
    }

    /// Begins counting anew.
    pub fn forget_calls(&self) {
        lock(&self.shared.journal).clear();
    }

    /// Rules that the caller of this host broke, in words: an address or a link asked for by two sandboxes (I1), two
    /// mutating calls for one sandbox at once. That nothing foreign is modified (I2), the machine itself sees to.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.shared.journal).violations()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.shared.world)
    }

    fn now(&self) -> Now {
        self.shared.now()
    }

    fn event(&self, event: HostEvent) {
        // No receiver is fine.
        let _ = self.shared.events.send(event);
    }

    fn script_for(&self, sandbox: &crate::spec::SandboxSpec, spec: &ContainerSpec) -> Script {
        let scripts = lock(&self.shared.scripts);
        let keys = For::all(sandbox, spec);
        let by_attempt = keys.iter().find_map(|k| scripts.get(k));
        let attempt = usize::try_from(spec.attempt).unwrap_or(usize::MAX);
        let script = by_attempt.and_then(|all| all.get(attempt).or(all.last()));
        script.cloned().unwrap_or_else(|| Script::parse(&spec.argv))
    }

    /// Lets processes live up to now: their ends become visible, their output is written, events are sent.
    fn settle(&self) {
        self.shared.settle();
    }

    /// Wakes up when the next process does something, so that its event comes at its time.
    fn arm(&self) {
        Shared::arm(&self.shared);
    }
}

impl Default for FakeHost {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared {
    fn now(&self) -> Now {
        Now { boot: self.clock.boot(), wall: self.clock.wall() }
    }

    fn settle(&self) {
        let now = self.now();
        let settled = lock(&self.world).settle(now);
        if self.options.write_logs {
            disk::write_logs(&settled.lines);
        }
        settled.lines.iter().for_each(|line| attach::publish(&self.output, line));
        settled.touched.iter().for_each(|id| self.save(id));
        for (id, container) in settled.ended {
            let _ = self.events.send(HostEvent::Container(id, container));
        }
    }

    /// Sees to it that a timer waits for the next moment at which a process does something.
    fn arm(this: &Arc<Self>) {
        let next = lock(&this.world).next_moment();
        // Outside a runtime nobody waits for events either; the next call settles.
        let (Some(next), Ok(runtime)) = (next, tokio::runtime::Handle::try_current()) else { return };
        {
            let mut armed = lock(&this.armed);
            if armed.is_some_and(|waiting| waiting <= next) {
                return;
            }
            *armed = Some(next);
        }
        let wait = next.since(this.clock.boot()).max(Duration::from_millis(1));
        let timer = Timer(Arc::downgrade(this));
        runtime.spawn(async move {
            tokio::time::sleep(wait).await;
            let shared = timer.0.upgrade();
            drop(timer);
            if let Some(shared) = shared {
                shared.settle();
                Self::arm(&shared);
            }
        });
    }

    fn save(&self, id: &SandboxId) {
        if let Some(disk) = &self.disk {
            disk.save_sandbox(id, lock(&self.world).sandboxes().get(id));
        }
    }

    fn save_machine(&self) {
        if let Some(disk) = &self.disk {
            disk.save_machine(&lock(&self.world).machine);
        }
    }
}

/// A timer under way; when it ends, or its runtime does, another one may be set.
struct Timer(Weak<Shared>);

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            *lock(&shared.armed) = None;
        }
    }
}
