//! Properties of the planner: total, deterministic, explained, patient with what is unknown, and empty once its steps
//! took effect. Inputs are arbitrary: pods, sandboxes and promises that need not fit together at all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use chrono::DateTime;
use proptest::prelude::*;
use reddwarf_host::spec::{PodIdentity, SandboxNetwork, SandboxSpec};
use reddwarf_host::{
    BootTime, ContainerName, ContainerObserved, ContainerState, Family, HostObservation, ImageConfig, ImageId,
    ImageInfo, NetworkObserved, Observation, PodUid, SandboxId, SandboxObserved, SandboxState, StopRequest,
};
use reddwarf_node::control_plane::{ObjectChange, Promise};
use reddwarf_node::desired::{ConfigData, Desired, HostFacts};
use reddwarf_node::plan::{Failure, Memory, Op, Plan, Reservations, Tickets, plan};
use reddwarf_node::translate::{self, Facts, Identity, Images};
use reddwarf_node::{PodKey, follow};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use support::*;

const NOW: u64 = 10_000;

fn at(seconds: u64) -> BootTime {
    BootTime::from_duration(Duration::from_secs(seconds))
}

/// A uid is one pod's only, whatever pods there are of its name.
fn uid(name: u8, uid: u8) -> String {
    format!("u{name}-{uid}")
}

fn desired(pods: &[PodInput]) -> Desired {
    let mut desired = Desired {
        complete: true,
        halted: false,
        pods: BTreeMap::new(),
        config: ConfigData::default(),
        tokens: Default::default(),
        settings: Arc::new(settings()),
        host: HostFacts {
            ip: Some("192.0.2.10".parse().unwrap()),
            cpu_millis: 8000,
            memory_bytes: 16 << 30,
            storage_bytes: 100 << 30,
            brands: vec![reddwarf_host::Brand::new("oci").unwrap()],
        },
    };
    for input in pods {
        follow::apply(&mut desired, ObjectChange::Put(Box::new(input.object())));
    }
    desired
}

#[derive(Clone, Debug)]
struct PodInput {
    name: u8,
    uid: u8,
    version: u8,
    policy: u8,
    deleting: Option<u8>,
    host_network: bool,
    init: bool,
    missing_config: bool,
}

impl PodInput {
    fn object(&self) -> reddwarf_objects::Object {
        let mut spec = json!({
            "restartPolicy": (["Always", "OnFailure", "Never"][usize::from(self.policy % 3)]),
            "hostNetwork": self.host_network,
            "containers": [{"name": "app", "image": format!("web:{}", self.version % 4), "command": ["run", format!("{}", self.version)]}],
        });
        if self.init {
            spec["initContainers"] = json!([{"name": "first", "image": "web:1"}]);
        }
        if self.missing_config {
            spec["volumes"] = json!([{"name": "v", "configMap": {"name": "nope"}}]);
        }
        let mut object = pod(&format!("p{}", self.name), spec);
        object.set_uid(&uid(self.name, self.uid));
        object.set_generation(i64::from(self.version));
        if let Some(grace) = self.deleting {
            object.set_deletion(DateTime::UNIX_EPOCH, Some(i64::from(grace)));
        }
        object
    }
}

#[allow(clippy::type_complexity, reason = "drawn from strategies, which are tuples")]
#[derive(Clone, Debug)]
struct BoxInput {
    pod: PodInput,
    address: u8,
    state: u8,
    readable: bool,
    started: Option<u64>,
    instances: Vec<InstanceInput>,
}

/// Of the init container or the main one, state, exit code, start, life, stop request.
type InstanceInput = (bool, u8, u8, u64, u64, Option<(u64, bool)>);

fn images() -> BTreeMap<ImageId, ImageInfo> {
    (1..3u8)
        .map(|n| {
            let id = ImageId::new(format!("sha256:{}", format!("{n:x}").repeat(64))).unwrap();
            let config = ImageConfig { entrypoint: vec!["/bin/web".into()], ..ImageConfig::default() };
            (
                id.clone(),
                ImageInfo {
                    id,
                    names: vec![format!("web:{n}")],
                    size_bytes: 1,
                    config,
                    pulled: BTreeMap::new(),
                    last_used: None,
                },
            )
        })
        .collect()
}

fn identity(pod: &PodInput) -> PodIdentity {
    PodIdentity {
        namespace: "default".into(),
        name: format!("p{}", pod.name),
        uid: PodUid::new(uid(pod.name, pod.uid)).unwrap(),
    }
}

impl BoxInput {
    fn observed(&self) -> Option<(SandboxId, Observation<SandboxObserved>)> {
        let input =
            PodInput { missing_config: false, deleting: None, version: 1 + self.pod.version % 2, ..self.pod.clone() };
        let wanted = desired(std::slice::from_ref(&input));
        let intent = wanted.pods.values().next()?.clone();
        let pod = identity(&input);
        let address = format!("10.88.0.{}", self.address).parse().unwrap();
        let identity = Identity {
            id: SandboxId::for_pod(&pod),
            pod,
            addresses: if input.host_network { Vec::new() } else { vec![address] },
            account_volume: translate::AccountVolume::ToDecide,
        };
        let known = Observation::Known(images());
        let images = Images::new(&known);
        let facts = Facts {
            pods: &wanted.pods,
            config: &wanted.config,
            tokens: &wanted.tokens,
            images: &images,
            settings: &wanted.settings,
            host: &wanted.host,
            pulls: &Tickets::default(),
        };
        let spec: SandboxSpec = translate::sandbox(&intent, &identity, facts, None).ok()?;
        let mut containers: BTreeMap<ContainerName, Vec<ContainerObserved>> = BTreeMap::new();
        for (init, state, code, started, lived, stop) in &self.instances {
            let all = translate::containers(&intent);
            let which = all.iter().find(|c| (c.name.as_str() == "first") == *init)?;
            let mut spec = translate::container(&intent, which, &identity, facts, None).ok()?;
            let instances = containers.entry(which.name.clone()).or_default();
            spec.attempt = u32::try_from(instances.len()).unwrap();
            let state = match state % 4 {
                0 => ContainerState::Creating,
                1 => ContainerState::Running { started: at(*started), started_at: DateTime::UNIX_EPOCH, pid: 7 },
                2 => ContainerState::Lost("gone".into()),
                _ => ContainerState::Exited {
                    code: i32::from(*code),
                    signal: None,
                    started: Some(at(*started)),
                    finished: at(started + lived),
                    started_at: None,
                    finished_at: DateTime::UNIX_EPOCH,
                    message: String::new(),
                },
            };
            let stop = stop.map(|(when, killed)| StopRequest { at: at(when), killed, order: None });
            instances.push(ContainerObserved {
                spec: spec.into(),
                state,
                stop,
                post_started: false,
                oom_killed: false,
                lost: false,
            });
        }
        let state = match self.state % 6 {
            0 => SandboxState::Partial("half".into()),
            1 => SandboxState::Stopping,
            2 => SandboxState::Stopped,
            3 => SandboxState::Other("odd".into()),
            _ => SandboxState::Running,
        };
        let id = spec.id.clone();
        let observed = SandboxObserved { spec: spec.into(), state, started: self.started.map(at), containers };
        Some((id, if self.readable { Observation::Known(observed) } else { Observation::Unknown("torn".into()) }))
    }
}

#[derive(Clone, Debug)]
struct Input {
    pods: Vec<PodInput>,
    boxes: Vec<BoxInput>,
    promises: Vec<(u8, u8, Option<u8>, bool)>,
    list_known: bool,
    network: u8,
    images_known: bool,
    complete: bool,
    halted: bool,
    allow_prune: bool,
}

fn any_pod() -> impl Strategy<Value = PodInput> {
    (
        0u8..4,
        0u8..4,
        1u8..5,
        0u8..3,
        prop::option::weighted(0.2, 0u8..40),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(name, uid, version, policy, deleting, host_network, init, missing_config)| PodInput {
            name,
            uid,
            version,
            policy,
            deleting,
            host_network,
            init,
            missing_config,
        })
}

fn any_box() -> impl Strategy<Value = BoxInput> {
    let instance =
        (any::<bool>(), 0u8..4, 0u8..3, 0u64..2 * NOW, 0u64..2000, prop::option::of((0u64..2 * NOW, any::<bool>())));
    (
        any_pod(),
        2u8..12,
        0u8..8,
        prop::bool::weighted(0.9),
        prop::option::of(0u64..2 * NOW),
        prop::collection::vec(instance, 0..4),
    )
        .prop_map(|(pod, address, state, readable, started, instances)| BoxInput {
            pod,
            address,
            state,
            readable,
            started,
            instances,
        })
}

fn any_input() -> impl Strategy<Value = Input> {
    (
        prop::collection::vec(any_pod(), 0..5),
        prop::collection::vec(any_box(), 0..5),
        prop::collection::vec((0u8..4, 0u8..4, prop::option::of(2u8..12), any::<bool>()), 0..5),
        prop::bool::weighted(0.9),
        0u8..4,
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.05),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(pods, boxes, promises, list_known, network, images_known, complete, halted, allow_prune)| {
            Input { pods, boxes, promises, list_known, network, images_known, complete, halted, allow_prune }
        })
}

struct Case {
    desired: Desired,
    observed: HostObservation,
    reservations: Reservations,
    memory: Memory,
}

impl Input {
    fn case(&self) -> Case {
        let mut desired = desired(&self.pods);
        desired.complete = self.complete;
        desired.halted = self.halted;
        let settings = desired.settings.clone();
        let unknown = || "can't".to_owned();
        let network = NetworkObserved { spec: settings.network.clone(), drift: Vec::new() };
        let observed = HostObservation {
            at: at(NOW),
            sandboxes: if self.list_known {
                Observation::Known(self.boxes.iter().filter_map(BoxInput::observed).collect())
            } else {
                Observation::Unknown(unknown())
            },
            network: match self.network {
                0 => Observation::Unknown(unknown()),
                1 => Observation::Known(None),
                2 => Observation::Known(Some(NetworkObserved { drift: vec!["bent".into()], ..network })),
                _ => Observation::Known(Some(network)),
            },
            leftovers: Vec::new(),
            images: if self.images_known { Observation::Known(images()) } else { Observation::Unknown(unknown()) },
        };
        let mut reservations = Reservations::new(&settings.network.subnets());
        for (name, uid, address, rebuilt) in &self.promises {
            let address = address.map(|a| format!("10.88.0.{a}").parse().unwrap());
            if address.is_some_and(|a| reservations.holder_of(a).is_some()) {
                continue;
            }
            reservations.promise(Promise {
                uid: PodUid::new(self::uid(*name, *uid)).unwrap(),
                pod: PodKey::new("default", format!("p{name}")),
                addresses: address.into_iter().collect(),
                rebuilt: *rebuilt,
            });
        }
        let memory = Memory { allow_prune: self.allow_prune, ..Memory::default() };
        Case { desired, observed, reservations, memory }
    }
}

impl Case {
    fn plan(&self) -> Plan {
        plan(&self.desired, &self.observed, &self.reservations, &self.memory, at(NOW))
    }
}

/// Whether the step takes something away from a running or readable pod.
fn takes(op: &Op) -> bool {
    matches!(op, Op::SandboxDestroy(_) | Op::SandboxStop(_) | Op::ContainerSignal { .. } | Op::ContainerRemove { .. })
}

fn sandbox_of(op: &Op) -> Option<&SandboxId> {
    match op {
        Op::SandboxEnsure(spec) => Some(&spec.id),
        Op::SandboxStop(id) | Op::SandboxDestroy(id) => Some(id),
        Op::VolumeUpdate { sandbox, .. }
        | Op::ContainerStart { sandbox, .. }
        | Op::ContainerSignal { sandbox, .. }
        | Op::ContainerUpdate { sandbox, .. }
        | Op::ContainerRemove { sandbox, .. } => Some(sandbox),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Any input gives a plan, the same for the same input, and every step says why.
    #[test]
    fn planning_is_total_deterministic_and_explained(input in any_input()) {
        let case = input.case();
        let plan = case.plan();
        prop_assert_eq!(&plan, &case.plan());
        for step in &plan.steps {
            prop_assert!(!step.reason.is_empty(), "{}", step);
            prop_assert!(!step.to_string().contains("Sensitive"));
        }
        for key in case.desired.pods.keys() {
            prop_assert!(plan.pods.contains_key(key), "I7: {key} has no verdict");
        }
    }

    /// U3: what can't be read is neither changed nor made again, and its promises stay.
    #[test]
    fn u03_the_unknown_is_left_alone(input in any_input()) {
        let case = input.case();
        let plan = case.plan();
        match &case.observed.sandboxes {
            Observation::Unknown(_) => {
                prop_assert!(plan.steps.iter().all(|s| s.pod.is_none() && !matches!(s.op, Op::NetworkRemove)), "{:?}", plan.steps);
            }
            Observation::Known(all) => {
                let unreadable: Vec<_> = all.iter().filter(|(_, s)| s.known().is_none()).map(|(id, _)| id).collect();
                for step in &plan.steps {
                    prop_assert!(sandbox_of(&step.op).is_none_or(|id| !unreadable.contains(&id)), "{}", step);
                }
            }
        }
    }

    /// An address that is planned for a sandbox is nobody else's: not on the host, not promised, not in the same plan.
    #[test]
    fn u08_a_planned_address_is_free(input in any_input()) {
        let case = input.case();
        let mut given = BTreeMap::new();
        for step in case.plan().steps {
            let Op::SandboxEnsure(spec) = &step.op else { continue };
            let SandboxNetwork::Pod { address, .. } = &spec.network else { continue };
            let address = address.addr();
            let found = case.observed.sandboxes.known().unwrap();
            let of_found = found.get(&spec.id).and_then(|s| s.known()).map(|s| &s.spec);
            if of_found.is_some_and(|s| s.network == spec.network) {
                continue;
            }
            prop_assert!(given.insert(address, spec.id.clone()).is_none_or(|other| other == spec.id), "{address} twice");
            for (id, other) in found.iter().filter(|(id, _)| **id != spec.id) {
                let taken = other.known().is_some_and(|o| matches!(&o.spec.network, SandboxNetwork::Pod { address: a, .. } if a.addr() == address));
                prop_assert!(!taken, "{address} is {id}'s");
            }
            prop_assert!(case.reservations.holder_of(address).is_none_or(|u| *u == spec.pod.uid), "{address} is promised");
        }
    }

    /// Promises are taken back only where no sandbox stands behind them.
    #[test]
    fn releases_follow_destruction(input in any_input()) {
        let case = input.case();
        let Some(found) = case.observed.sandboxes.known() else { return Ok(()) };
        for step in case.plan().steps {
            if let Op::Release { uid, address } = &step.op {
                for sandbox in found.values().filter_map(|s| s.known()).filter(|s| s.spec.pod.uid == *uid) {
                    let used = matches!(&sandbox.spec.network, SandboxNetwork::Pod { address: a, .. } if Some(a.addr()) == *address);
                    let of_key = step.pod.as_ref().is_some_and(|k| *k == PodKey::from(&sandbox.spec.pod));
                    prop_assert!(!used && (address.is_some() || !of_key), "{}: {:?}", step, sandbox.spec.network);
                }
            }
        }
    }

    /// Nothing that no pod wants goes before all sources were read.
    #[test]
    fn an_incomplete_picture_removes_nothing_unwanted(input in any_input()) {
        let mut case = input.case();
        case.desired.complete = false;
        case.desired.halted = false;
        for step in case.plan().steps {
            if takes(&step.op) {
                let key = step.pod.clone().unwrap();
                prop_assert!(case.desired.pods.contains_key(&key), "{}", step);
            }
        }
    }

    /// A step that failed is not planned before its time, nor what needs it.
    #[test]
    fn failures_are_waited_for(input in any_input()) {
        let mut case = input.case();
        let first = case.plan();
        for step in &first.steps {
            let failure = Failure {
                op: step.op.clone(), family: Family::Transient, message: "injected".into(), at: at(NOW), count: 1,
                retry: Some(at(NOW + 7)),
            };
            case.memory.failed(step.pod.as_ref(), failure);
        }
        let second = case.plan();
        for step in &second.steps {
            prop_assert!(!first.steps.iter().any(|s| s.op == step.op && s.pod == step.pod), "{}", step);
        }
        if !first.steps.is_empty() {
            prop_assert!(second.wake.is_some_and(|w| w <= at(NOW + 7)));
        }
    }
}
