//! What is on the fake machine, and the passing of time for its processes.

use super::script::{Reaction, Script, Step};
use crate::names::{ContainerName, ImageId, LinkName, SandboxId};
use crate::observe::{
    ContainerObserved, ContainerState, ImageInfo, Leftover, Note, SandboxObserved, SandboxState, StopOrder, StopRequest,
};
use crate::spec::{ContainerSpec, NetworkSpec, SandboxSpec, Signal};
use crate::termination::LOG_LINES;
use crate::time::BootTime;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// The present moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) boot: BootTime,
    pub(crate) wall: DateTime<Utc>,
}

impl Now {
    /// The wall time of a moment of this boot.
    fn wall_at(self, at: BootTime) -> DateTime<Utc> {
        self.wall - self.boot.since(at) + at.since(self.boot)
    }
}

/// An illumos zone's states (zoneadm(8)); on the Linux profile they stand for the same stages of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ZoneState {
    /// The mark is written, nothing else.
    Configured,
    /// An installation broke off.
    Incomplete,
    /// Complete and halted.
    Installed,
    /// Virtual platform up, no processes.
    Ready,
    /// Up.
    Running,
    /// Going down.
    ShuttingDown,
    /// Processes gone, resources not yet.
    Down,
    /// Mounted for maintenance.
    Mounted,
    /// Any other text (`unavailable`).
    Unrecognised(String),
}

impl ZoneState {
    /// As observations show it: the table of [`SandboxState`].
    pub(crate) fn observed(&self) -> SandboxState {
        match self {
            Self::Configured => SandboxState::Partial("not installed".into()),
            Self::Incomplete => SandboxState::Partial("installation broke off".into()),
            Self::Ready => SandboxState::Partial("not booted".into()),
            Self::Installed => SandboxState::Stopped,
            Self::Running => SandboxState::Running,
            Self::ShuttingDown | Self::Down | Self::Mounted => SandboxState::Stopping,
            Self::Unrecognised(text) => SandboxState::Other(text.clone()),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    pub(crate) spec: SandboxSpec,
    pub(crate) link: LinkName,
    pub(crate) zone: ZoneState,
    pub(crate) started: Option<BootTime>,
    pub(crate) instances: BTreeMap<ContainerName, BTreeMap<u32, Instance>>,
}

impl Sandbox {
    pub(crate) fn observed(&self) -> SandboxObserved {
        let containers = self.instances.iter();
        let containers = containers.map(|(name, all)| (name.clone(), all.values().map(Instance::observed).collect()));
        SandboxObserved {
            spec: Arc::new(self.spec.clone()),
            state: self.zone.observed(),
            started: self.started,
            containers: containers.collect(),
        }
    }

    pub(crate) fn instance(&self, name: &ContainerName, attempt: u32) -> Option<&Instance> {
        self.instances.get(name)?.get(&attempt)
    }

    pub(crate) fn instance_mut(&mut self, name: &ContainerName, attempt: u32) -> Option<&mut Instance> {
        self.instances.get_mut(name)?.get_mut(&attempt)
    }

    /// Instances whose process runs, may run, or is being made.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values().flat_map(BTreeMap::values).filter(|i| i.is_live())
    }
}

/// One attempt of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Instance {
    pub(crate) spec: ContainerSpec,
    pub(crate) state: ContainerState,
    pub(crate) stop: Option<StopRequest>,
    pub(crate) oom_killed: bool,
    #[serde(default)]
    lost: bool,
    /// When it was started, of one that got lost.
    #[serde(default)]
    began: Option<(BootTime, DateTime<Utc>)>,
    #[serde(default)]
    post_started: bool,
    script: Script,
    end: Option<PlannedEnd>,
    prints: VecDeque<PlannedPrint>,
    /// Its termination message's file.
    #[serde(default)]
    last_words: String,
    /// The end of its log.
    #[serde(default)]
    tail: VecDeque<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct PlannedEnd {
    at: BootTime,
    code: i32,
    signal: Option<i32>,
    oom: bool,
    message: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct PlannedPrint {
    at: BootTime,
    to: Output,
    text: String,
}

/// Where a process writes to.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Output {
    Stdout,
    Stderr,
    File(String),
}

/// A line that a process wrote.
pub(crate) struct Line {
    pub(crate) log: crate::spec::LogSpec,
    pub(crate) at: DateTime<Utc>,
    pub(crate) stderr: bool,
    pub(crate) text: String,
}

impl Instance {
    /// The record of a start that has begun.
    pub(crate) fn creating(spec: ContainerSpec, script: Script) -> Self {
        Self {
            spec,
            state: ContainerState::Creating,
            stop: None,
            oom_killed: false,
            lost: false,
            began: None,
            post_started: false,
            script,
            end: None,
            prints: VecDeque::new(),
            last_words: String::new(),
            tail: VecDeque::new(),
        }
    }

    fn observed(&self) -> ContainerObserved {
        ContainerObserved {
            spec: Arc::new(self.spec.clone()),
            state: self.state.clone(),
            stop: self.stop,
            oom_killed: self.oom_killed,
            lost: self.lost,
            post_started: self.post_started,
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        !matches!(self.state, ContainerState::Exited { .. })
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }

    /// Whether it copies its standard input to its standard output.
    pub(crate) fn copies_input(&self) -> bool {
        self.is_running() && self.spec.stdin && self.script.steps.contains(&Step::Copy)
    }

    /// The end of its standard input: a process that copies it ends well.
    pub(crate) fn input_ended(&mut self, now: Now) {
        if self.copies_input() {
            self.end = Some(PlannedEnd { at: now.boot, code: 0, signal: None, oom: false, message: String::new() });
        }
    }

    /// Whether it answers at a TCP port.
    pub(crate) fn listens(&self, port: u16) -> bool {
        self.is_running() && self.script.steps.contains(&Step::Listen(port))
    }

    /// Memory in use.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.script.memory_bytes
    }

    /// The next moment at which something happens by itself.
    pub(crate) fn next_moment(&self) -> Option<BootTime> {
        let print = self.prints.front().map(|p| p.at);
        let end = self.end.as_ref().map(|e| e.at);
        [print, end].into_iter().flatten().min()
    }

    /// The process starts: its steps become moments.
    pub(crate) fn start(&mut self, now: Now, pid: u32) {
        self.state = ContainerState::Running { started: now.boot, started_at: now.wall, pid };
        let mut at = now.boot;
        let short_of_memory = self.spec.resources.memory_limit_bytes.is_some_and(|l| l < self.script.memory_bytes);
        let steps = if short_of_memory { vec![Step::OutOfMemory] } else { self.script.steps.clone() };
        let end = |at, code, signal| PlannedEnd { at, code, signal, oom: false, message: String::new() };
        for step in steps {
            match step {
                Step::Sleep(d) => at = at.plus(d),
                Step::SleepForever | Step::Listen(_) => return,
                Step::Print(text) => self.prints.push_back(PlannedPrint { at, to: Output::Stdout, text }),
                Step::Complain(text) => self.prints.push_back(PlannedPrint { at, to: Output::Stderr, text }),
                Step::Write(path, text) => self.prints.push_back(PlannedPrint { at, to: Output::File(path), text }),
                Step::Exit(code) => return self.end = Some(end(at, code & 0xff, None)),
                Step::Die(signal) => return self.end = Some(end(at, 128 + signal, Some(signal))),
                Step::OutOfMemory => {
                    return self.end = Some(PlannedEnd { oom: true, ..end(at, 137, Some(9)) });
                }
                Step::Copy if self.spec.stdin => return,
                Step::Copy => {}
                Step::CannotExecute(code, message) => {
                    self.state = exited(now, now.boot, None, code, None, message);
                    return;
                }
            }
        }
        self.end = Some(end(at, 0, None));
    }

    /// Time passed: prints and the end that are due happen. Returns whether the process ended.
    pub(crate) fn settle(&mut self, now: Now, lines: &mut Vec<Line>) -> bool {
        let ContainerState::Running { started, started_at, .. } = self.state else { return false };
        let until = self.end.as_ref().map_or(now.boot, |e| e.at.min(now.boot));
        while self.prints.front().is_some_and(|p| p.at <= until) {
            let Some(p) = self.prints.pop_front() else { break };
            let stderr = match p.to {
                Output::Stdout => false,
                Output::Stderr => true,
                Output::File(path) => {
                    if path == self.spec.termination_message.path {
                        self.last_words = format!("{}\n", p.text);
                    }
                    continue;
                }
            };
            if self.tail.len() >= LOG_LINES {
                self.tail.pop_front();
            }
            self.tail.push_back(p.text.clone());
            lines.push(Line { log: self.spec.log.clone(), at: now.wall_at(p.at), stderr, text: p.text });
        }
        let Some(end) = self.end.take_if(|e| e.at <= now.boot) else { return false };
        self.prints.clear();
        self.oom_killed |= end.oom;
        let log = || self.tail.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
        let words = self.spec.termination_message.of(end.code, self.last_words.as_bytes(), log);
        let message = if end.message.is_empty() { words } else { end.message };
        self.tail.clear();
        self.state = exited(now, end.at, Some((started, started_at)), end.code, end.signal, message);
        true
    }

    /// Delivers a signal from outside. Returns false when even SIGKILL does nothing.
    pub(crate) fn signal(&mut self, now: Now, signal: Signal) -> bool {
        let at_once =
            |code, number| PlannedEnd { at: now.boot, code, signal: Some(number), oom: false, message: String::new() };
        let number = signal.linux_number();
        match (self.script.reaction(signal), signal) {
            (Some(Reaction::Stuck), Signal::Sigkill) => return false,
            (_, Signal::Sigkill) => self.end = Some(at_once(137, 9)),
            (Some(Reaction::Ignore | Reaction::Stuck), _)
            | (None, Signal::Sigwinch | Signal::Sigchld | Signal::Sigcont | Signal::Sigurg) => {}
            (Some(Reaction::Exit { after, code }), _) => {
                let end = PlannedEnd { at: now.boot.plus(after), signal: None, ..at_once(code, number) };
                // A second signal does not put the end off.
                if self.end.as_ref().is_none_or(|e| e.at > end.at) {
                    self.end = Some(end);
                }
            }
            (None, _) => self.end = Some(at_once(128 + number, number)),
        }
        if signal == Signal::Sigkill && !self.is_running() {
            // A lost or half-made instance: what is left of it is gone now.
            self.end = None;
            self.lost = self.is_lost();
            self.state = exited(now, now.boot, self.began, 137, None, "its supervisor was gone".into());
        }
        true
    }

    /// Its supervisor is gone and left no word, if it had one.
    pub(crate) fn lose(&mut self) {
        let ContainerState::Running { started, started_at, .. } = self.state else { return };
        self.began = Some((started, started_at));
        self.state = ContainerState::Lost("its supervisor is gone".into());
    }

    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.state, ContainerState::Lost(_))
    }

    /// Records that it was asked to stop.
    pub(crate) fn note_stop(&mut self, now: Now, killed: bool) {
        let stop = self.stop.get_or_insert(StopRequest { at: now.boot, killed, order: None });
        stop.killed |= killed;
        if let Some(order) = &mut stop.order {
            order.signalled.get_or_insert(now.boot);
        }
    }

    /// Notes how far it has come; false: that was known.
    pub(crate) fn note(&mut self, now: Now, note: Note) -> bool {
        match note {
            Note::Started => !std::mem::replace(&mut self.post_started, true),
            Note::Stopping { .. } if self.stop.is_some() => false,
            Note::Stopping { grace, fault } => {
                let order = Some(StopOrder { grace, fault, signalled: None });
                self.stop = Some(StopRequest { at: now.boot, killed: false, order });
                true
            }
        }
    }

    /// The kernel kills it for want of memory, now.
    pub(crate) fn out_of_memory(&mut self, now: Now) {
        self.end = Some(PlannedEnd { at: now.boot, code: 137, signal: Some(9), oom: true, message: String::new() });
    }
}

fn exited(
    now: Now,
    finished: BootTime,
    started: Option<(BootTime, DateTime<Utc>)>,
    code: i32,
    signal: Option<i32>,
    message: String,
) -> ContainerState {
    ContainerState::Exited {
        code,
        signal,
        started: started.map(|s| s.0),
        finished,
        started_at: started.map(|s| s.1),
        finished_at: now.wall_at(finished),
        message,
    }
}

/// The pod network as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NetworkState {
    pub(crate) spec: NetworkSpec,
    pub(crate) drift: Vec<String>,
}

/// Something on the machine that is not ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Foreign {
    /// A zone, cgroup or directory of this name.
    Sandbox(String),
    /// A network link of this name.
    Link(String),
}

/// What happened by itself while time passed.
#[derive(Default)]
pub(crate) struct Settled {
    /// Sandboxes in which something happened.
    pub(crate) touched: Vec<SandboxId>,
    /// Containers that ended.
    pub(crate) ended: Vec<(SandboxId, ContainerName)>,
    /// What processes wrote.
    pub(crate) lines: Vec<Line>,
}

/// All that is on the machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    sandboxes: BTreeMap<SandboxId, Sandbox>,
    /// The next moment at which a process does something, when it is known and nothing was changed since: a look at
    /// the clock then takes the place of a look at every process.
    next: Option<Option<BootTime>>,
    pub(crate) machine: Machine,
    pub(crate) services: super::services::ServiceState,
    pub(crate) foreign: BTreeSet<Foreign>,
    /// Subjects that are in use until then.
    pub(crate) busy: BTreeMap<String, BootTime>,
    /// What the registry has, by full name.
    pub(crate) served: BTreeMap<String, super::images::Served>,
}

/// What belongs to no sandbox.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) boot_id: String,
    pub(crate) boots: u64,
    pub(crate) pids: u32,
    pub(crate) network: Option<NetworkState>,
    pub(crate) images: BTreeMap<ImageId, ImageInfo>,
    pub(crate) leftovers: BTreeSet<Leftover>,
}

/// How a machine behaves when its power fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// /run is lost, and with it every sandbox and the network; root file systems stay behind as leftovers.
    #[default]
    Linux,
    /// Configured zones stay, halted; container records and temporary links are lost.
    Illumos,
}

impl World {
    pub(crate) fn sandboxes(&self) -> &BTreeMap<SandboxId, Sandbox> {
        &self.sandboxes
    }

    pub(crate) fn sandboxes_mut(&mut self) -> &mut BTreeMap<SandboxId, Sandbox> {
        self.next = None;
        &mut self.sandboxes
    }

    /// Lets the processes live up to `now`.
    pub(crate) fn settle(&mut self, now: Now) -> Settled {
        let mut settled = Settled::default();
        if self.next.is_some_and(|next| next.is_none_or(|at| at > now.boot)) {
            return settled;
        }
        self.next = None;
        for (id, sandbox) in &mut self.sandboxes {
            let lines = settled.lines.len();
            let ended = settled.ended.len();
            for (name, instances) in &mut sandbox.instances {
                for instance in instances.values_mut() {
                    if instance.settle(now, &mut settled.lines) {
                        settled.ended.push((id.clone(), name.clone()));
                    }
                }
            }
            if (settled.lines.len(), settled.ended.len()) != (lines, ended) {
                settled.touched.push(id.clone());
            }
        }
        settled
    }

    /// The next moment at which a process does something by itself.
    pub(crate) fn next_moment(&mut self) -> Option<BootTime> {
        if let Some(next) = self.next {
            return next;
        }
        let instances = self.sandboxes.values().flat_map(|s| s.instances.values()).flat_map(BTreeMap::values);
        let next = instances.filter_map(Instance::next_moment).min();
        self.next = Some(next);
        next
    }

    pub(crate) fn next_pid(&mut self) -> u32 {
        self.machine.pids = self.machine.pids.wrapping_add(1).max(1000);
        self.machine.pids
    }

    /// The machine loses its power and boots again.
    pub(crate) fn power_cut(&mut self, profile: Profile) {
        self.next = None;
        self.machine.boots += 1;
        self.machine.boot_id = format!("fake-boot-{}", self.machine.boots);
        self.machine.network = None;
        self.services = super::services::ServiceState::default();
        self.busy.clear();
        match profile {
            Profile::Linux => {
                for id in std::mem::take(&mut self.sandboxes).into_keys() {
                    self.machine.leftovers.insert(Leftover { kind: "directory".into(), name: id.to_string() });
                }
            }
            Profile::Illumos => {
                for sandbox in self.sandboxes.values_mut() {
                    sandbox.started = None;
                    sandbox.instances.clear();
                    if !matches!(sandbox.zone, ZoneState::Configured | ZoneState::Incomplete) {
                        sandbox.zone = ZoneState::Installed;
                    }
                }
            }
        }
    }
}
