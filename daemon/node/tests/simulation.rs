//! A seeded simulation of the whole node: random histories of pods and ConfigMaps, faults of host and control plane,
//! daemon restarts, power cuts, lost databases and a meddling administrator, under paused time on the fake host.
//!
//! After every step I1 and I3 are checked; at the end, with all faults gone: I5 (it converges in bounded time), I4 (the
//! plan is then empty), what runs is what was asked, I7 (every pod says how it stands), I3 again over daemon restarts,
//! and I6 (after everything was deleted nothing of ours is left). A failing seed is printed with its history;
//! `REDDWARF_SEED=<seed> cargo test -p reddwarf-node --test simulation` runs it alone, `REDDWARF_SCHEDULES=<n>` sets how
//! many seeds a run takes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use fastrand::Rng;
use reddwarf_host::fake::{FakeHost, FakeOptions, Fault, Op as HostOp, ZoneState};
use reddwarf_host::{ContainerName, ContainerState, HostErrorKind, SandboxState};
use reddwarf_node::{PodKey, Proposal};
use reddwarf_objects::Object;
use reddwarf_objects::pod::Phase;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::*;

const SCHEDULES: u64 = 2000;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// What a pod of the model asks for.
#[derive(Clone, Debug)]
struct Model {
    image: u8,
    args: u8,
    hostname: u8,
    limit: u8,
    env: bool,
    volume: bool,
    init: bool,
    sidecar: Sidecar,
    /// Probes that pass, and hooks that take their time.
    probed: bool,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sidecar {
    None,
    Forever,
    Stubborn,
    Crash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Forever,
    Stubborn,
    Crash,
    Once,
    /// Ends well, with restartPolicy OnFailure.
    Job,
    /// Runs for ever, and may not.
    Deadline,
}

impl Kind {
    /// It comes to an end.
    fn ends(self) -> bool {
        matches!(self, Self::Once | Self::Job | Self::Deadline)
    }
}

impl Model {
    fn random(rng: &mut Rng) -> Self {
        let kind = match rng.u8(0..10) {
            0 => Kind::Crash,
            1 => Kind::Once,
            2 => Kind::Stubborn,
            3 => Kind::Job,
            4 => Kind::Deadline,
            _ => Kind::Forever,
        };
        Self {
            image: rng.u8(1..=2),
            args: rng.u8(0..3),
            hostname: rng.u8(0..2),
            limit: rng.u8(0..3),
            env: rng.bool(),
            volume: rng.bool(),
            init: rng.u8(0..4) == 0,
            sidecar: match rng.u8(0..12) {
                0 | 1 => Sidecar::Forever,
                2 => Sidecar::Stubborn,
                3 => Sidecar::Crash,
                _ => Sidecar::None,
            },
            probed: rng.u8(0..3) == 0,
            kind,
        }
    }

    /// One thing about it changes.
    fn edit(&mut self, rng: &mut Rng) {
        match rng.u8(0..6) {
            0 => self.image = 3 - self.image,
            1 => self.args = (self.args + 1) % 3,
            2 => self.hostname = 1 - self.hostname,
            3 => self.limit = (self.limit + 1) % 3,
            4 => self.env = !self.env,
            _ => self.volume = !self.volume,
        }
    }

    fn command(&self) -> Vec<String> {
        let text = match self.kind {
            Kind::Forever | Kind::Deadline => "sleep infinity",
            Kind::Stubborn => "trap '' TERM; sleep infinity",
            Kind::Crash => "sleep 5; exit 1",
            Kind::Once | Kind::Job => "sleep 20",
        };
        ["sh", "-c", text, &format!("v{}", self.args)].map(str::to_owned).to_vec()
    }

    fn object(&self, name: &str) -> Object {
        let mut app = json!({"name": "app", "image": format!("web:{}", self.image), "command": self.command()});
        let mut spec = json!({"terminationGracePeriodSeconds": 5});
        if self.probed {
            let probe = |period: u8| json!({"exec": {"command": ["true"]}, "periodSeconds": period, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 1});
            app["startupProbe"] = probe(1);
            app["readinessProbe"] = probe(3);
            app["livenessProbe"] = probe(2);
            app["lifecycle"] =
                json!({"postStart": {"sleep": {"seconds": 1}}, "preStop": {"exec": {"command": ["sleep", "2"]}}});
        }
        if self.limit > 0 {
            app["resources"] = json!({"limits": {"memory": format!("{}Mi", 64 * u32::from(self.limit))}});
        }
        if self.env {
            app["env"] = json!([{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "v"}}}]);
        }
        if self.volume {
            spec["volumes"] = json!([{"name": "files", "configMap": {"name": "files"}}]);
            app["volumeMounts"] = json!([{"name": "files", "mountPath": "/files"}]);
        }
        let mut init = Vec::new();
        if self.init {
            init.push(json!({"name": "first", "image": "web:1", "command": ["sleep", "2"]}));
        }
        let side = match self.sidecar {
            Sidecar::None => None,
            Sidecar::Forever => Some("sleep infinity"),
            Sidecar::Stubborn => Some("trap '' TERM; sleep infinity"),
            Sidecar::Crash => Some("sleep 7; exit 1"),
        };
        if let Some(command) = side {
            // Before and behind one that runs once.
            let sidecar = |name| json!({"name": name, "image": "web:1", "command": ["sh", "-c", command], "restartPolicy": "Always"});
            init.insert(0, sidecar("side"));
            init.push(sidecar("more"));
        }
        if !init.is_empty() {
            spec["initContainers"] = json!(init);
        }
        if self.hostname > 0 {
            spec["hostname"] = json!("other");
        }
        match self.kind {
            Kind::Once => spec["restartPolicy"] = json!("Never"),
            Kind::Job => spec["restartPolicy"] = json!("OnFailure"),
            Kind::Deadline => spec["activeDeadlineSeconds"] = json!(30),
            Kind::Forever | Kind::Stubborn | Kind::Crash => {}
        }
        spec["containers"] = json!([app]);
        pod(name, spec)
    }
}

struct Sim {
    world: World,
    rng: Rng,
    wanted: BTreeMap<&'static str, Model>,
    /// ConfigMaps by name: version; absent: deleted.
    maps: BTreeMap<&'static str, u8>,
    /// Pods that something happened to since the last time that all was settled: they may be disturbed.
    touched: BTreeSet<String>,
    log: Vec<String>,
}

impl Sim {
    async fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        fastrand::seed(seed);
        let mut settings = settings();
        if rng.bool() {
            settings.network.cidr = "10.88.0.0/29".parse().unwrap();
        }
        settings.concurrency = rng.usize(1..5);
        let step_time = Duration::from_millis([0, 0, 20, 400][rng.usize(0..4)]);
        let host = FakeHost::with(FakeOptions { step_time, ..FakeOptions::default() });
        let world = World::on(host, settings).await;
        let mut sim = Self {
            world,
            rng,
            wanted: BTreeMap::new(),
            maps: BTreeMap::new(),
            touched: BTreeSet::new(),
            log: Vec::new(),
        };
        sim.set_map("env", 0);
        sim.set_map("files", 0);
        sim
    }

    fn set_map(&mut self, name: &'static str, version: u8) {
        let came = self.maps.insert(name, version).is_none();
        self.world.plane.apply(config("ConfigMap", name, &[("v", &format!("{version}"))]));
        // Variables are made when a container starts: the map that they come from concerns nobody who runs, other than by
        // letting a change go on that waited for it.
        if came || name == "files" {
            self.touch_users(name);
        }
    }

    fn touch_users(&mut self, name: &str) {
        let uses = |m: &Model| if name == "env" { m.env } else { m.volume };
        let users: Vec<_> = self.wanted.iter().filter(|(_, m)| uses(m)).map(|(n, _)| (*n).to_owned()).collect();
        self.touched.extend(users);
    }

    fn touch_all(&mut self) {
        self.touched.extend(NAMES.map(str::to_owned));
    }

    fn apply(&mut self, name: &'static str, model: Model) {
        self.touched.insert(name.to_owned());
        let going = self.world.pod(name).is_some_and(|p| p.deletion_timestamp().is_some());
        if !going {
            self.world.plane.apply(model.object(name));
            self.wanted.insert(name, model);
        }
    }

    /// One thing happens.
    async fn act(&mut self) {
        let name = NAMES[self.rng.usize(0..NAMES.len())];
        let sandbox = self.world.sandbox(name);
        let id = sandbox.as_ref().map(|s| s.spec.id.clone());
        match self.rng.u8(0..40) {
            0..=7 => {
                let model = Model::random(&mut self.rng);
                self.log.push(format!("apply {name} {model:?}"));
                self.apply(name, model);
            }
            8..=13 => {
                if let Some(mut model) = self.wanted.get(name).cloned() {
                    model.edit(&mut self.rng);
                    self.log.push(format!("edit {name} {model:?}"));
                    self.apply(name, model);
                }
            }
            14..=16 => {
                let grace = [None, Some(0), Some(3)][self.rng.usize(0..3)];
                self.log.push(format!("delete {name} {grace:?}"));
                self.wanted.remove(name);
                self.touched.insert(name.into());
                self.world.plane.delete("Pod", name, grace);
            }
            17 => {
                self.log.push(format!("forget {name}"));
                self.wanted.remove(name);
                self.touched.insert(name.into());
                self.world.plane.forget(name);
            }
            18 | 19 => {
                let map = ["env", "files"][self.rng.usize(0..2)];
                let version = self.rng.u8(0..4);
                self.log.push(format!("config map {map} {version}"));
                if version == 3 {
                    self.world.plane.delete("ConfigMap", map, None);
                    self.maps.remove(map);
                    if map == "files" {
                        self.touch_users(map);
                    }
                } else {
                    self.set_map(map, version);
                }
            }
            20 | 21 => {
                if let Some(id) = id {
                    self.touched.insert(name.into());
                    let app = ContainerName::new("app").unwrap();
                    match self.rng.u8(0..4) {
                        0 => self.world.host.lose_container(&id, &app),
                        1 => self.world.host.out_of_memory(&id, &app),
                        _ => self.world.host.kill_container(&id, &app),
                    }
                    self.log.push(format!("someone kills {name}'s app"));
                }
            }
            22 | 23 => {
                if let Some(id) = id {
                    self.touched.insert(name.into());
                    let states = [
                        ZoneState::Configured,
                        ZoneState::Incomplete,
                        ZoneState::Installed,
                        ZoneState::Ready,
                        ZoneState::Running,
                        ZoneState::ShuttingDown,
                        ZoneState::Down,
                        ZoneState::Mounted,
                    ];
                    let state = states[self.rng.usize(0..states.len())].clone();
                    self.log.push(format!("someone puts {name} into {state:?}"));
                    self.world.host.set_zone_state(&id, state);
                }
            }
            24 => {
                if let Some(id) = id {
                    self.touched.insert(name.into());
                    self.log.push(format!("someone deletes {name}'s sandbox"));
                    self.world.host.delete_sandbox(&id);
                }
            }
            25 => match self.rng.u8(0..5) {
                4 => {
                    let days = self.rng.i64(-400..400);
                    self.log.push(format!("the wall clock jumps by {days} days"));
                    self.world.clock.jump(chrono::TimeDelta::days(days));
                }
                0 => {
                    self.log.push("someone disturbs the network".into());
                    self.world.host.disturb_network("the bridge is down");
                }
                1 => {
                    self.log.push("a left-over appears".into());
                    self.world.host.add_leftover("link", "rwleftover0");
                }
                2 => {
                    self.log.push("events get lost".into());
                    self.world.host.lose_events();
                }
                _ => {
                    if let Some(id) = id {
                        self.log.push(format!("{name} is busy"));
                        self.world.host.keep_busy(id.as_str(), Duration::from_secs(20));
                    }
                }
            },
            26..=28 => {
                self.log.push("the daemon is killed and started".into());
                self.world.kill().await;
                if self.rng.bool() {
                    self.world.sleep(self.rng.u64(0..20)).await;
                }
                self.world.start().await;
            }
            29 => {
                self.log.push("power cut".into());
                self.touch_all();
                self.world.kill().await;
                self.world.host.power_cut();
                self.world.start().await;
            }
            30 => self.lose_database().await,
            31..=35 => self.break_something(),
            36 => {
                self.log.push("faults end".into());
                self.world.host.clear_faults();
                self.world.plane.fail(0, 0);
            }
            37 => {
                if self.wanted.contains_key(name) {
                    self.touched.insert(name.into());
                    self.log.push(format!("restart {name} by hand"));
                    let _ = self.world.node().restart(&PodKey::new("default", name), None).await;
                }
            }
            38 => {
                self.log.push("reconcile".into());
                let allow = self.rng.u8(0..3) == 0;
                if allow {
                    self.touch_all();
                }
                self.world.node().reconcile(allow);
            }
            _ => {
                self.world.sleep(60).await;
                self.checkpoint().await;
            }
        }
        let wait = [0, 1, 50, 700, 3_000, 12_000][self.rng.usize(0..6)];
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }

    async fn lose_database(&mut self) {
        self.log.push("the database is lost".into());
        self.touch_all();
        self.world.kill().await;
        self.world.plane.lose_database();
        let early = self.rng.bool();
        if early {
            self.world.start().await;
            self.world.sleep(self.rng.u64(0..40)).await;
        }
        for (name, version) in self.maps.clone() {
            self.set_map(name, version);
        }
        for (name, model) in self.wanted.clone() {
            self.world.plane.apply(model.object(name));
        }
        self.world.plane.sources_read(true);
        if !early {
            self.world.start().await;
        }
    }

    fn break_something(&mut self) {
        use HostErrorKind as K;
        let ops = [
            HostOp::SandboxEnsure,
            HostOp::SandboxStop,
            HostOp::SandboxDestroy,
            HostOp::VolumeUpdate,
            HostOp::ContainerStart,
            HostOp::ContainerSignal,
            HostOp::ContainerUpdate,
            HostOp::ContainerRemove,
            HostOp::NetworkEnsure,
            HostOp::NetworkRemove,
        ];
        let faults = [
            Fault::FailBefore(K::Other),
            Fault::FailAfter(K::Busy),
            Fault::FailBefore(K::Exhausted),
            Fault::FailPartway(1, K::Other),
            Fault::FailPartway(2, K::Busy),
            Fault::TimeoutBefore(Duration::from_secs(3)),
            Fault::TimeoutAfter(Duration::from_secs(3)),
            Fault::Slow(Duration::from_secs(2)),
            Fault::Hang,
            Fault::HangAfter,
            Fault::NothingDone,
        ];
        let blind = [
            Fault::UnknownList,
            Fault::UnknownSandbox(None),
            Fault::Truncated,
            Fault::UnknownNetwork,
            Fault::UnknownImages,
            Fault::Hang,
            Fault::Slow(Duration::from_secs(1)),
        ];
        let seed = self.rng.u64(..);
        match self.rng.u8(0..4) {
            0 => {
                let fault = blind[self.rng.usize(0..blind.len())].clone();
                self.log.push(format!("observing suffers {fault:?} often"));
                self.world.host.faults().chance(seed, 0.4, &[HostOp::Observe], &[fault]);
            }
            1 => {
                self.log.push("the control plane fails one write in four".into());
                self.world.plane.fail(4, seed);
            }
            2 => {
                let (op, fault) = (ops[self.rng.usize(0..ops.len())], faults[self.rng.usize(0..faults.len())].clone());
                self.log.push(format!("the next {op:?} suffers {fault:?}"));
                self.world.host.faults().on(op, fault);
            }
            _ => {
                let fault = faults[self.rng.usize(0..faults.len())].clone();
                self.log.push(format!("changes suffer {fault:?} now and then"));
                self.world.host.faults().chance(seed, 0.25, &ops, &[fault]);
            }
        }
    }

    /// I1, I3.
    fn check(&mut self) {
        let violations = self.world.host.violations();
        assert!(violations.is_empty(), "I1: {violations:?}");
        for mutation in self.world.host.mutations() {
            let Some(found) = mutation.found.as_ref().filter(|_| mutation.disrupts()) else { continue };
            assert!(
                self.touched.contains(&found.pod.name),
                "I3: nothing happened to {}, yet: {mutation:?}",
                found.pod.name
            );
        }
        self.world.host.forget_calls();
    }

    /// When nothing is to be done any more, what happened before is no excuse for later disturbances.
    async fn checkpoint(&mut self) {
        self.check();
        if !self.world.host.faults().is_empty() {
            return;
        }
        let planned = self.world.node().plan(Proposal::default()).await;
        if planned.is_ok_and(|p| p.steps.is_empty()) && self.world.node().is_idle(Duration::from_secs(1)) {
            self.touched.clear();
        }
    }

    /// With all faults gone: I5, I4, I7, and what runs is what was asked.
    async fn converge(&mut self) {
        self.world.host.clear_faults();
        self.world.plane.fail(0, 0);
        for map in ["env", "files"] {
            let version = self.maps.get(map).copied().unwrap_or(0);
            self.set_map(map, version);
        }
        self.log.push("all faults end; prune allowed".into());
        self.touch_all();
        self.world.node().reconcile(true);
        for _ in 0..900 {
            if self.is_converged().await {
                return;
            }
            self.world.sleep(2).await;
        }
        let mut text = String::new();
        for (name, model) in &self.wanted {
            text += &format!(
                "{name} {model:?}: {:?}\n{:#?}\n",
                self.wrong(name, model),
                self.world.pod(name).map(|p| p.status().cloned())
            );
        }
        panic!("I5: not converged within half an hour\n{text}{}", self.world.describe().await);
    }

    async fn is_converged(&self) -> bool {
        let planned = self.world.node().plan(Proposal::default()).await;
        let gone = self.world.plane.pods().iter().all(|p| self.wanted.contains_key(p.name()));
        let none_more = self.world.host.sandboxes().iter().all(|s| self.wanted.contains_key(s.spec.pod.name.as_str()));
        planned.is_ok_and(|p| p.steps.is_empty() && !p.blocked.iter().any(|(_, n)| n.reason == "StepFailed"))
            && gone
            && none_more
            && self.wanted.iter().all(|(name, model)| self.wrong(name, model).is_none())
    }

    /// What is not as asked about a pod.
    fn wrong(&self, name: &str, model: &Model) -> Option<String> {
        let status = self.world.status(name);
        let Some(sandbox) = self.world.sandbox(name) else {
            // Lost with the power, and not to be run again.
            let over = model.kind.ends() && matches!(status.phase, Phase::Failed | Phase::Succeeded);
            return (!over).then(|| "no sandbox".to_owned());
        };
        if model.kind.ends() {
            let running =
                sandbox.containers.values().flatten().any(|c| !matches!(c.state, ContainerState::Exited { .. }));
            let over = match model.kind {
                Kind::Job => status.phase == Phase::Succeeded,
                Kind::Deadline => status.phase == Phase::Failed && status.reason == "DeadlineExceeded",
                _ => matches!(status.phase, Phase::Failed | Phase::Succeeded),
            };
            return (!over || running).then(|| format!("phase {:?} {}, runs: {running}", status.phase, status.reason));
        }
        if sandbox.state != SandboxState::Running {
            return Some(format!("{:?}", sandbox.state));
        }
        if sandbox.spec.volumes.keys().any(|v| v.as_str() == "files") != model.volume {
            return Some(format!("volumes {:?}", sandbox.spec.volumes.keys()));
        }
        let hostname = if model.hostname > 0 { "other" } else { name };
        if sandbox.spec.hostname != hostname {
            return Some(format!("hostname {}", sandbox.spec.hostname));
        }
        let Some(app) = sandbox.containers.get(&ContainerName::new("app").unwrap()).and_then(|all| all.last()) else {
            return Some("its app was never started".to_owned());
        };
        if app.spec.argv != model.command() || app.spec.image_name != format!("web:{}", model.image) {
            return Some(format!("runs {:?} of {}", app.spec.argv, app.spec.image_name));
        }
        let stopping = sandbox.containers.values().flatten();
        if stopping.into_iter().any(|c| c.stop.is_some() && matches!(c.state, ContainerState::Running { .. })) {
            return Some("a container is being stopped".to_owned());
        }
        let env = app.spec.env.iter().find(|v| v.name == "V").map(|v| v.value.expose().clone());
        // Whatever the map said when it started.
        if env.is_some() != model.env {
            return Some(format!("env {env:?}"));
        }
        let limit = (model.limit > 0).then(|| (64 * u64::from(model.limit)) << 20);
        if app.spec.resources.memory_limit_bytes != limit && model.kind != Kind::Crash {
            return Some(format!("limit {:?}", app.spec.resources.memory_limit_bytes));
        }
        if model.sidecar != Sidecar::None && model.sidecar != Sidecar::Crash {
            let side = sandbox.containers.get(&ContainerName::new("more").unwrap()).and_then(|all| all.last());
            if !side.is_some_and(|side| matches!(side.state, ContainerState::Running { .. })) {
                return Some("a sidecar does not run".to_owned());
            }
        }
        if model.kind == Kind::Crash {
            let Some(said) = status.container_statuses.first().map(|s| &s.state) else {
                return Some("says nothing (I7)".to_owned());
            };
            return (said.waiting.is_none() && said.running.is_none()).then(|| "says nothing (I7)".to_owned());
        }
        // A pod is as ready as its sidecars.
        (!self.world.is_ready(name) && model.sidecar != Sidecar::Crash).then(|| "not ready".to_owned())
    }

    /// I3 over restarts of the daemon, and a wall clock gone mad; promises are exactly those of what is there.
    async fn stay_quiet(&mut self) {
        self.log.push("quiet".into());
        self.world.host.forget_calls();
        for _ in 0..3 {
            self.world.clock.jump(chrono::TimeDelta::hours(self.rng.i64(-9000..9000)));
            self.world.restart().await;
            self.world.sleep(40).await;
        }
        let disrupted: Vec<_> = self.world.host.mutations().into_iter().filter(|m| m.disrupts()).collect();
        assert!(disrupted.is_empty(), "I3: a restart of the daemon disturbed {disrupted:?}");
        let promised: BTreeSet<_> = self.world.plane.promised().into_iter().flat_map(|p| p.addresses).collect();
        let there: BTreeSet<_> = self.world.host.sandboxes().into_iter().flat_map(|s| s.spec.network.ips()).collect();
        assert_eq!(promised, there, "promises and sandboxes differ");
    }

    /// I6.
    async fn remove_all(&mut self) {
        self.log.push("everything is deleted".into());
        for name in NAMES {
            self.world.plane.delete("Pod", name, None);
        }
        self.wanted.clear();
        for _ in 0..300 {
            let nothing = self.world.plane.pods().is_empty()
                && self.world.host.sandboxes().is_empty()
                && self.world.plane.promised().is_empty();
            let planned = self.world.node().plan(Proposal::default()).await;
            let idle = planned.is_ok_and(|p| p.steps.is_empty());
            if nothing && idle {
                use reddwarf_host::Host;
                let left = self.world.host.observe().await;
                assert!(left.leftovers.is_empty() && left.network.known() == Some(&None), "I6: {left:?}");
                return;
            }
            self.world.sleep(1).await;
        }
        panic!("I6: something is left: {:?}\n{}", self.world.plane.promised(), self.world.describe().await);
    }
}

async fn schedule(seed: u64, log: &std::sync::Mutex<Vec<String>>) {
    let mut sim = Sim::new(seed).await;
    let steps = sim.rng.usize(5..35);
    for _ in 0..steps {
        sim.act().await;
        log.lock().unwrap().append(&mut sim.log);
        sim.check();
    }
    sim.converge().await;
    log.lock().unwrap().append(&mut sim.log);
    sim.check();
    sim.stay_quiet().await;
    log.lock().unwrap().append(&mut sim.log);
    sim.remove_all().await;
}

fn run(seed: u64) -> Result<(), String> {
    let log = std::sync::Mutex::new(Vec::new());
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(schedule(seed, &log));
    }));
    result.map_err(|panic| {
        let why =
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        let log = log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).join("\n  ");
        format!("seed {seed}: replay it with REDDWARF_SEED={seed}\n  {log}\n{}", why.unwrap_or_default())
    })
}

#[test]
fn random_histories_keep_the_invariants() {
    let variable = |name| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    if let Some(seed) = variable("REDDWARF_SEED") {
        if std::env::var_os("REDDWARF_TRACE").is_some() {
            tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).init();
        }
        run(seed).unwrap_or_else(|e| panic!("{e}"));
        return;
    }
    std::panic::set_hook(Box::new(|_| {}));
    let schedules = variable("REDDWARF_SCHEDULES").unwrap_or(SCHEDULES);
    let next = AtomicU64::new(variable("REDDWARF_FIRST_SEED").unwrap_or(1));
    let end = next.load(Ordering::SeqCst) + schedules;
    let failures = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).min(4) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= end || failures.lock().unwrap().len() >= 3 {
                        return;
                    }
                    if let Err(failure) = run(seed) {
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
