//! A pod's row: ready containers, one word for its state, restarts.

use super::{NONE, age, human_duration};
use crate::object::Object;
use chrono::{DateTime, Utc};
use serde_json::Value;

/// All that a row is made of.
pub(super) const READS: [&str; 33] = [
    "/metadata/creationTimestamp",
    "/metadata/deletionTimestamp",
    "/spec/containers/name",
    "/spec/initContainers/name",
    "/spec/initContainers/restartPolicy",
    "/spec/nodeName",
    "/spec/readinessGates",
    "/status/phase",
    "/status/reason",
    "/status/podIP",
    "/status/podIPs/ip",
    "/status/nominatedNodeName",
    "/status/conditions/type",
    "/status/conditions/status",
    "/status/conditions/reason",
    "/status/containerStatuses/ready",
    "/status/containerStatuses/restartCount",
    "/status/containerStatuses/state/waiting/reason",
    "/status/containerStatuses/state/running",
    "/status/containerStatuses/state/terminated/reason",
    "/status/containerStatuses/state/terminated/signal",
    "/status/containerStatuses/state/terminated/exitCode",
    "/status/containerStatuses/lastState/terminated/finishedAt",
    "/status/initContainerStatuses/name",
    "/status/initContainerStatuses/ready",
    "/status/initContainerStatuses/started",
    "/status/initContainerStatuses/restartCount",
    "/status/initContainerStatuses/state/waiting/reason",
    "/status/initContainerStatuses/state/running",
    "/status/initContainerStatuses/state/terminated/reason",
    "/status/initContainerStatuses/state/terminated/signal",
    "/status/initContainerStatuses/state/terminated/exitCode",
    "/status/initContainerStatuses/lastState/terminated/finishedAt",
];

pub(super) fn row(pod: &Object, now: DateTime<Utc>) -> Vec<Value> {
    let summary = Summary::of(pod);
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts > 0 => format!("{} ({} ago)", summary.restarts, human_duration(now - last)),
        _ => summary.restarts.to_string(),
    };
    let text_or_none = |pointer: &str| pod.get_str(pointer).filter(|text| !text.is_empty()).unwrap_or(NONE).into();
    let ip = pod.get_str("/status/podIPs/0/ip").or_else(|| pod.get_str("/status/podIP")).filter(|ip| !ip.is_empty());
    vec![
        pod.name().into(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.word.into(),
        restarts.into(),
        age(pod.creation_timestamp(), now).into(),
        ip.unwrap_or(NONE).into(),
        text_or_none("/spec/nodeName"),
        text_or_none("/status/nominatedNodeName"),
        readiness_gates(pod),
    ]
}

/// Something that is over, as a row's condition `Completed` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed {
    /// How it ended, in a word.
    pub reason: &'static str,
    /// The same in a sentence.
    pub message: &'static str,
}

/// How a pod ended, if it did.
pub(super) fn completed(pod: &Object) -> Option<Completed> {
    match pod.get_str("/status/phase")? {
        "Succeeded" => Some(Completed { reason: "Succeeded", message: "The pod has completed successfully." }),
        "Failed" => Some(Completed { reason: "Failed", message: "The pod failed." }),
        _ => None,
    }
}

/// A pod's state in the word of the STATUS column: `Running`, `CrashLoopBackOff`, `Init:0/2`, `Terminating`, ...
pub fn status_word(pod: &Object) -> String {
    Summary::of(pod).word
}

/// How often a pod's containers were started again, as the RESTARTS column counts: sidecars too, init containers while they run.
pub fn restarts(pod: &Object) -> i64 {
    Summary::of(pod).restarts
}

struct Summary {
    ready: usize,
    total: usize,
    word: String,
    restarts: i64,
    last_restart: Option<DateTime<Utc>>,
}

impl Summary {
    fn of(pod: &Object) -> Self {
        let init_specs = list(pod, "/spec/initContainers");
        let sidecars = init_specs.iter().filter(|c| is_sidecar(c)).count();
        let phase = pod.get_str("/status/phase").unwrap_or_default();
        let reason = pod.get_str("/status/reason").filter(|reason| !reason.is_empty());
        let mut summary = Self {
            ready: 0,
            total: list(pod, "/spec/containers").len() + sidecars,
            word: reason.unwrap_or(phase).to_owned(),
            restarts: 0,
            last_restart: None,
        };
        if pod.condition("PodScheduled").and_then(|c| c.get("reason")).is_some_and(|reason| reason == "SchedulingGated")
        {
            "SchedulingGated".clone_into(&mut summary.word);
        }
        let mut sidecar_restarts = Restarts::default();
        let initializing = summary.init_containers(pod, init_specs, &mut sidecar_restarts);
        if !initializing || pod.condition_holds("Initialized") {
            (summary.restarts, summary.last_restart) = (sidecar_restarts.count, sidecar_restarts.last);
            summary.containers(pod);
        }
        if pod.deletion_timestamp().is_some() {
            if reason == Some("NodeLost") {
                "Unknown".clone_into(&mut summary.word);
            } else if phase != "Succeeded" && phase != "Failed" {
                "Terminating".clone_into(&mut summary.word);
            }
        }
        summary
    }

    /// Looks at init containers in order up to the first that is not done; is there one?
    fn init_containers(&mut self, pod: &Object, specs: &[Value], sidecars: &mut Restarts) -> bool {
        let mut all = Restarts::default();
        let mut initializing = None;
        for (index, status) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
            all.add(status);
            let sidecar = specs.iter().any(|spec| spec.get("name") == status.get("name") && is_sidecar(spec));
            if sidecar {
                sidecars.add(status);
            }
            let terminated = status.pointer("/state/terminated");
            if terminated.is_some_and(|t| number(t, "exitCode") == 0) {
                continue;
            }
            if sidecar && status.get("started") == Some(&Value::Bool(true)) {
                self.ready += usize::from(status.get("ready") == Some(&Value::Bool(true)));
                continue;
            }
            let waiting = status.pointer("/state/waiting/reason").and_then(Value::as_str).unwrap_or_default();
            initializing = Some(match terminated {
                Some(terminated) => format!("Init:{}", ended(terminated)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
                None => format!("Init:{index}/{}", specs.len()),
            });
            break;
        }
        (self.restarts, self.last_restart) = (all.count, all.last);
        if let Some(word) = initializing {
            self.word = word;
            return true;
        }
        false
    }

    fn containers(&mut self, pod: &Object) {
        let mut restarts = Restarts { count: self.restarts, last: self.last_restart };
        let mut running = false;
        for status in list(pod, "/status/containerStatuses").iter().rev() {
            restarts.add(status);
            let waiting = status.pointer("/state/waiting/reason").and_then(Value::as_str).unwrap_or_default();
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.word);
            } else if let Some(terminated) = status.pointer("/state/terminated") {
                self.word = ended(terminated);
            } else if status.get("ready") == Some(&Value::Bool(true)) && status.pointer("/state/running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        (self.restarts, self.last_restart) = (restarts.count, restarts.last);
        if self.word == "Completed" && running {
            let word = if pod.condition_holds("Ready") { "Running" } else { "NotReady" };
            word.clone_into(&mut self.word);
        }
    }
}

#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<DateTime<Utc>>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += number(status, "restartCount");
        let ended = status.pointer("/lastState/terminated/finishedAt").and_then(Value::as_str);
        let ended = ended.and_then(|text| DateTime::parse_from_rfc3339(text).ok()).map(|time| time.with_timezone(&Utc));
        self.last = self.last.max(ended);
    }
}

/// How a container ended, in a word.
fn ended(terminated: &Value) -> String {
    match terminated.get("reason").and_then(Value::as_str).filter(|reason| !reason.is_empty()) {
        Some(reason) => reason.to_owned(),
        None if number(terminated, "signal") != 0 => format!("Signal:{}", number(terminated, "signal")),
        None => format!("ExitCode:{}", number(terminated, "exitCode")),
    }
}

fn readiness_gates(pod: &Object) -> Value {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return NONE.into();
    }
    let kinds = gates.iter().filter_map(|gate| gate.get("conditionType")?.as_str());
    format!("{}/{}", kinds.filter(|kind| pod.condition_holds(kind)).count(), gates.len()).into()
}

fn list<'a>(pod: &'a Object, pointer: &str) -> &'a [Value] {
    pod.get(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn number(value: &Value, field: &str) -> i64 {
    value.get(field).and_then(Value::as_i64).unwrap_or_default()
}

fn is_sidecar(container: &Value) -> bool {
    container.get("restartPolicy").is_some_and(|policy| policy == "Always")
}
