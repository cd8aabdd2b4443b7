//! What is kept of an object in memory: enough to find it, own it, count it. Read straight from the stored JSON, without a
//! tree of it in between.

use super::id::Id;
use chrono::{DateTime, Utc};
use reddwarf_objects::pod::Phase;
use reddwarf_objects::selector::LabelSelector;
use reddwarf_objects::{OwnerReference, Quantity, SOURCE_ANNOTATION};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// An owner, as the object names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Its apiVersion.
    pub api_version: Box<str>,
    /// Its kind.
    pub kind: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its uid.
    pub uid: Box<str>,
    /// Does it manage the object?
    pub controller: bool,
    /// Must its foreground deletion wait for the object?
    pub blocks: bool,
}

/// The projection of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Slim {
    /// Which object.
    pub id: Id,
    /// Its uid.
    pub uid: Arc<str>,
    /// Its resourceVersion.
    pub revision: u64,
    /// When it was made.
    pub created: Option<DateTime<Utc>>,
    /// When it is to go, if it is to.
    pub deleted: Option<DateTime<Utc>>,
    /// Finalizers.
    pub finalizers: Arc<[Box<str>]>,
    /// Owners.
    pub owners: Arc<[Owner]>,
    /// Labels, sorted by key.
    pub labels: Arc<[(Box<str>, Box<str>)]>,
    /// Does a file declare it?
    pub declared: bool,
    /// What only its kind has.
    pub detail: Detail,
}

/// What only some kinds have.
#[derive(Clone, Debug, PartialEq)]
pub enum Detail {
    /// Nothing that matters here.
    Plain,
    /// A pod.
    Pod(PodSlim),
    /// Something that selects pods (or, a Deployment, ReplicaSets). `None`: its selector can't be read or selects nothing.
    Selects(Option<Arc<LabelSelector>>),
    /// A node.
    Node(Arc<NodeSlim>),
    /// A PersistentVolumeClaim: the volume that it names, empty while it names none.
    Claim(Box<str>),
    /// A PersistentVolume: namespace and name of the claim that it is for.
    Volume(Option<(Box<str>, Box<str>)>),
    /// A Secret with a token of an account: the account that it names.
    AccountToken(Box<str>),
}

/// What controllers need of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSlim {
    /// Its phase.
    pub phase: Phase,
    /// Since when it is ready, if it is.
    pub ready_since: Option<DateTime<Utc>>,
    /// Its node; empty while it has none.
    pub node: Arc<str>,
    /// `controller.kubernetes.io/pod-deletion-cost`.
    pub deletion_cost: i32,
    /// Restarts of all its containers.
    pub restarts: u32,
    /// When its last container ended, if it ran to its end.
    pub finished: Option<DateTime<Utc>>,
    /// CPU that it asks for, thousandths.
    pub cpu_millis: i64,
    /// Memory that it asks for, bytes.
    pub memory: i64,
    /// Waits for this daemon's scheduler: no node, no gates, the default scheduler.
    pub to_schedule: bool,
    /// Shown to be unschedulable already (condition PodScheduled is False).
    pub unschedulable: bool,
    /// How it is reached, once it has an address.
    pub net: Option<Arc<PodNet>>,
    /// The PersistentVolumeClaims that it mounts, by name, those that are made for it among them.
    pub claims: Arc<[Box<str>]>,
}

/// How a pod is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodNet {
    /// Its addresses, the first one first.
    pub ips: Vec<Box<str>>,
    /// `spec.hostname`; empty when it does not say.
    pub hostname: Box<str>,
    /// `spec.subdomain`; empty when it does not say.
    pub subdomain: Box<str>,
    /// Its containers' ports that have names.
    pub ports: Vec<NamedPort>,
}

/// A container's port by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// Its name.
    pub name: Box<str>,
    /// TCP, UDP or SCTP.
    pub protocol: Box<str>,
    /// Its number.
    pub number: u16,
}

/// What the scheduler needs of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSlim {
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// `spec.taints`.
    pub taints: Vec<Taint>,
    /// CPU for pods, thousandths.
    pub cpu_millis: i64,
    /// Memory for pods, bytes.
    pub memory: i64,
    /// How many pods.
    pub pods: i64,
}

/// What keeps pods from a node that do not tolerate it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value; empty when it has none.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
    /// When it was put there, if it says so.
    pub added: Option<DateTime<Utc>>,
}

impl Slim {
    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| &**k == key).map(|(_, v)| &**v)
    }

    /// The owner that manages it.
    pub fn controller(&self) -> Option<&Owner> {
        self.owners.iter().find(|o| o.controller)
    }

    /// Does it have this finalizer?
    pub fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|f| &**f == name)
    }

    /// Does this selector select it?
    pub fn matches(&self, selector: &LabelSelector) -> bool {
        selector.matches_labels(|key| self.label(key))
    }

    /// The pod's part, when it is a pod.
    pub fn pod(&self) -> Option<&PodSlim> {
        match &self.detail {
            Detail::Pod(pod) => Some(pod),
            _ => None,
        }
    }

    /// The node's part, when it is a node.
    pub fn node(&self) -> Option<&NodeSlim> {
        match &self.detail {
            Detail::Node(node) => Some(node),
            _ => None,
        }
    }

    /// The selector, when it is something that selects.
    pub fn selector(&self) -> Option<&LabelSelector> {
        match &self.detail {
            Detail::Selects(Some(selector)) => Some(selector),
            _ => None,
        }
    }

    /// Neither ended nor being deleted (pods only).
    pub fn is_active(&self) -> bool {
        self.deleted.is_none() && self.pod().is_some_and(|p| !matches!(p.phase, Phase::Succeeded | Phase::Failed))
    }

    /// Waits for this daemon's scheduler (pods only).
    pub fn waits_for_a_node(&self) -> bool {
        self.deleted.is_none() && self.pod().is_some_and(|p| p.to_schedule)
    }

    /// Ready (pods only).
    pub fn is_ready(&self) -> bool {
        self.pod().is_some_and(|p| p.ready_since.is_some())
    }

    /// Ready for at least so many seconds (pods only).
    pub fn is_available(&self, min_ready_seconds: i64, now: DateTime<Utc>) -> bool {
        self.available_at(min_ready_seconds).is_some_and(|at| at <= now)
    }

    /// From when it counts as available, if it stays ready (pods only).
    pub fn available_at(&self, min_ready_seconds: i64) -> Option<DateTime<Utc>> {
        let since = self.pod()?.ready_since?;
        Some(since + chrono::TimeDelta::try_seconds(min_ready_seconds).unwrap_or_default())
    }
}

/// Is anything of an object of this kind worth keeping, whoever owns it?
fn always(id: &Id) -> bool {
    match id.kind.group {
        "" => match id.kind.kind {
            "Pod"
            | "ReplicationController"
            | "Namespace"
            | "Node"
            | "PersistentVolume"
            | "PersistentVolumeClaim"
            | "ResourceQuota"
            | "Service"
            | "Endpoints"
            | "ServiceAccount" => true,
            "ConfigMap" => &*id.name == "kube-root-ca.crt",
            _ => false,
        },
        "apps" | "batch" => true,
        "policy" => id.kind.kind == "PodDisruptionBudget",
        "storage.k8s.io" => id.kind.kind == "StorageClass",
        _ => false,
    }
}

type Labels = Arc<[(Box<str>, Box<str>)]>;

/// Equal sets of labels, owners, finalizers and node names are kept once.
#[derive(Debug, Default)]
pub(super) struct Pool {
    labels: HashSet<Labels>,
    owners: HashSet<Arc<[Owner]>>,
    finalizers: HashSet<Arc<[Box<str>]>>,
    names: HashSet<Arc<str>>,
    claims: HashSet<Arc<[Box<str>]>>,
}

fn shared<T: ?Sized + Eq + std::hash::Hash>(set: &mut HashSet<Arc<T>>, value: Arc<T>) -> Arc<T> {
    if let Some(known) = set.get(&*value) {
        return known.clone();
    }
    // Those that nobody uses any more go when the set has grown to twice what is in use.
    if set.len() == set.capacity() {
        set.retain(|v| Arc::strong_count(v) > 1);
    }
    set.insert(value.clone());
    value
}

#[derive(Deserialize)]
struct Stored {
    metadata: StoredMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredMetadata {
    #[serde(default)]
    uid: Box<str>,
    creation_timestamp: Option<DateTime<Utc>>,
    deletion_timestamp: Option<DateTime<Utc>>,
    #[serde(default)]
    finalizers: Option<Vec<Box<str>>>,
    #[serde(default)]
    owner_references: Option<Vec<OwnerReference>>,
    #[serde(default)]
    labels: Option<BTreeMap<Box<str>, Box<str>>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, Value>>,
}

impl Slim {
    /// Reads the stored JSON. `None`: nothing of it has to be kept (with `whatever`, it is read all the same).
    ///
    /// # Errors
    /// When the JSON is not an object of Kubernetes' form.
    pub(super) fn read(
        pool: &mut Pool,
        id: Id,
        revision: u64,
        json: &[u8],
        whatever: bool,
    ) -> Result<Option<Self>, String> {
        let (metadata, pod) = parse(&id, json)?;
        let owners = metadata.owner_references.unwrap_or_default();
        let annotations = metadata.annotations.unwrap_or_default();
        let token = account_of_token(&id, json, &annotations);
        let plain = owners.is_empty() && metadata.deletion_timestamp.is_none() && token.is_none();
        if plain && !always(&id) && !whatever {
            return Ok(None);
        }
        let owners = owners.into_iter().map(|o| Owner {
            api_version: o.api_version.into(),
            kind: o.kind.into(),
            name: o.name.into(),
            uid: o.uid.into(),
            controller: o.controller == Some(true),
            blocks: o.block_owner_deletion == Some(true),
        });
        let owners = shared(&mut pool.owners, owners.collect());
        let labels = metadata.labels.unwrap_or_default().into_iter().collect();
        let detail = match pod {
            Some((spec, status)) => Detail::Pod(self::pod(pool, &id.name, (spec, status), &annotations)),
            None => token.map_or_else(|| detail(&id, json), Detail::AccountToken),
        };
        Ok(Some(Self {
            uid: metadata.uid.into(),
            revision,
            created: metadata.creation_timestamp,
            deleted: metadata.deletion_timestamp,
            finalizers: shared(&mut pool.finalizers, metadata.finalizers.unwrap_or_default().into()),
            owners,
            labels: shared(&mut pool.labels, labels),
            declared: annotations.contains_key(SOURCE_ANNOTATION),
            detail,
            id: Id { namespace: shared(&mut pool.names, id.namespace), ..id },
        }))
    }
}

/// The metadata and, of a pod that can be read, the rest. Most objects are pods: they are read in one go.
fn parse(id: &Id, json: &[u8]) -> Result<(StoredMetadata, Option<(StoredPodSpec, StoredPodStatus)>), String> {
    if id.is_pod()
        && let Ok(StoredPod { metadata, spec, status }) = serde_json::from_slice(json)
    {
        return Ok((metadata, Some((spec, status))));
    }
    let stored: Stored = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    Ok((stored.metadata, None))
}

/// The account whose token a Secret is for; only such Secrets are kept.
fn account_of_token(id: &Id, json: &[u8], annotations: &BTreeMap<String, Value>) -> Option<Box<str>> {
    let account =
        annotations.get(reddwarf_objects::ACCOUNT_NAME_ANNOTATION).filter(|_| id.is("", "Secret"))?.as_str()?;
    let stored = serde_json::from_slice::<StoredSecret>(json).unwrap_or_default();
    (&*stored.kind == reddwarf_objects::ACCOUNT_TOKEN_TYPE).then(|| account.into())
}

fn detail(id: &Id, json: &[u8]) -> Detail {
    match (id.kind.group, id.kind.kind) {
        ("", "PersistentVolumeClaim") => {
            let stored = serde_json::from_slice::<StoredClaim>(json).unwrap_or_default();
            Detail::Claim(stored.spec.volume_name.unwrap_or_default())
        }
        ("", "PersistentVolume") => {
            let claim = serde_json::from_slice::<StoredVolume>(json).unwrap_or_default().spec.claim_ref;
            Detail::Volume(claim.map(|c| (c.namespace, c.name)))
        }
        ("", "Node") => {
            Detail::Node(Arc::new(serde_json::from_slice::<StoredNode>(json).map(node).unwrap_or_default()))
        }
        ("apps", "ControllerRevision") | ("batch", "CronJob") => Detail::Plain,
        ("apps" | "batch", _) | ("", "ReplicationController" | "Service") | ("policy", "PodDisruptionBudget") => {
            let selector = serde_json::from_slice::<StoredSelector>(json).ok().and_then(|s| s.spec.selector);
            Detail::Selects(selector.and_then(|s| selector_of(id, s)).map(Arc::new))
        }
        _ => Detail::Plain,
    }
}

fn selector_of(id: &Id, value: Value) -> Option<LabelSelector> {
    let labels_only = matches!(id.kind.kind, "ReplicationController" | "Service");
    let value = if labels_only { serde_json::json!({ "matchLabels": value }) } else { value };
    let selector = LabelSelector::from_value(&value).ok()?;
    // An empty selector of a disruption budget selects every pod; of anything else nothing.
    (id.kind.kind == "PodDisruptionBudget" || !selector.is_empty()).then_some(selector)
}

#[derive(Deserialize)]
struct StoredSelector {
    spec: SelectorSpec,
}

#[derive(Deserialize)]
struct SelectorSpec {
    selector: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredSecret {
    #[serde(rename = "type")]
    kind: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredClaim {
    spec: StoredClaimSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredClaimSpec {
    volume_name: Option<Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredVolume {
    spec: StoredVolumeSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredVolumeSpec {
    claim_ref: Option<StoredClaimRef>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredClaimRef {
    namespace: Box<str>,
    name: Box<str>,
}

#[derive(Deserialize)]
struct StoredPod {
    metadata: StoredMetadata,
    #[serde(default)]
    spec: StoredPodSpec,
    #[serde(default)]
    status: StoredPodStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredPodSpec {
    node_name: Option<String>,
    scheduler_name: Option<String>,
    scheduling_gates: Option<Vec<Value>>,
    hostname: Option<Box<str>>,
    subdomain: Option<Box<str>>,
    containers: Vec<StoredContainer>,
    init_containers: Option<Vec<StoredContainer>>,
    volumes: Option<Vec<StoredPodVolume>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredPodVolume {
    name: Box<str>,
    persistent_volume_claim: Option<StoredClaimName>,
    ephemeral: Option<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredClaimName {
    claim_name: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredContainer {
    resources: Option<StoredResources>,
    restart_policy: Option<String>,
    ports: Option<Vec<StoredPort>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredPort {
    name: Option<Box<str>>,
    protocol: Option<Box<str>>,
    container_port: u16,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredResources {
    requests: Option<BTreeMap<String, Value>>,
}

impl StoredContainer {
    fn request(&self, name: &str) -> Option<Quantity> {
        Quantity::from_value(self.resources.as_ref()?.requests.as_ref()?.get(name)?).ok()
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredPodStatus {
    phase: Phase,
    #[serde(rename = "podIP")]
    pod_ip: Option<Box<str>>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<StoredIp>>,
    conditions: Option<Vec<StoredCondition>>,
    container_statuses: Option<Vec<StoredContainerStatus>>,
    init_container_statuses: Option<Vec<StoredContainerStatus>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    last_transition_time: Option<DateTime<Utc>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredContainerStatus {
    restart_count: u32,
    state: Option<StoredState>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredState {
    terminated: Option<StoredTerminated>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredTerminated {
    finished_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct StoredIp {
    ip: Box<str>,
}

/// How a pod is reached; `None` before it has an address.
fn net(spec: &StoredPodSpec, status: &StoredPodStatus) -> Option<Arc<PodNet>> {
    let mut ips: Vec<Box<str>> = status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    if ips.is_empty() {
        ips.extend(status.pod_ip.clone().filter(|ip| !ip.is_empty()));
    }
    if ips.is_empty() {
        return None;
    }
    let sidecar = |c: &&StoredContainer| c.restart_policy.as_deref() == Some("Always");
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(sidecar));
    let named = |port: &StoredPort| {
        let name = port.name.clone().filter(|name| !name.is_empty())?;
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        Some(NamedPort { name, protocol, number: port.container_port })
    };
    let ports = containers.flat_map(|c| c.ports.iter().flatten()).filter_map(named).collect();
    let text = |text: &Option<Box<str>>| text.clone().unwrap_or_default();
    Some(Arc::new(PodNet { ips, hostname: text(&spec.hostname), subdomain: text(&spec.subdomain), ports }))
}

/// The claims that a pod of this name mounts.
fn claims_of(name: &str, spec: &StoredPodSpec) -> Arc<[Box<str>]> {
    let volumes = spec.volumes.iter().flatten();
    let claim = |volume: &StoredPodVolume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{name}-{}", volume.name).into()),
        (None, None) => None,
    };
    volumes.filter_map(claim).collect()
}

fn pod(
    pool: &mut Pool,
    name: &str,
    (spec, status): (StoredPodSpec, StoredPodStatus),
    annotations: &BTreeMap<String, Value>,
) -> PodSlim {
    let net = net(&spec, &status);
    let conditions = status.conditions.unwrap_or_default();
    let condition = |kind: &str, value: &str| conditions.iter().find(|c| c.kind == kind && c.status == value);
    let ready = condition("Ready", "True");
    let ended = matches!(status.phase, Phase::Succeeded | Phase::Failed);
    let containers = status.container_statuses.unwrap_or_default();
    let init = status.init_container_statuses.unwrap_or_default();
    let finished = containers.iter().filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at).max();
    let fallback = || conditions.iter().filter_map(|c| c.last_transition_time).max();
    let node = spec.node_name.as_deref().unwrap_or_default();
    let default_scheduler = matches!(spec.scheduler_name.as_deref(), None | Some("" | "default-scheduler"));
    let gates = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    let cost = annotations.get("controller.kubernetes.io/pod-deletion-cost").and_then(Value::as_str);
    PodSlim {
        phase: status.phase,
        // A ready pod whose condition bears no time has been ready for ever.
        ready_since: ready.map(|c| c.last_transition_time.unwrap_or_default()),
        node: shared(&mut pool.names, node.into()),
        deletion_cost: cost.and_then(|c| c.parse().ok()).unwrap_or(0),
        restarts: containers.iter().chain(&init).map(|c| c.restart_count).fold(0, u32::saturating_add),
        finished: if ended { finished.or_else(fallback) } else { None },
        cpu_millis: request(&spec, "cpu").map_or(0, |q| q.millis()),
        memory: request(&spec, "memory").map_or(0, |q| q.units()),
        to_schedule: node.is_empty() && default_scheduler && !gates,
        unschedulable: condition("PodScheduled", "False").is_some(),
        net,
        claims: shared(&mut pool.claims, claims_of(name, &spec)),
    }
}

/// What a pod asks for: all containers and sidecars together, or the largest init container when that is more
/// (Kubernetes: "Resource sharing within containers").
fn request(spec: &StoredPodSpec, name: &str) -> Option<Quantity> {
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let (sidecars, once): (Vec<_>, Vec<_>) = init.iter().partition(|c| c.restart_policy.as_deref() == Some("Always"));
    let together = spec.containers.iter().chain(sidecars).filter_map(|c| c.request(name));
    let sum = together.map(|q| q.millis()).fold(0_i64, i64::saturating_add);
    let largest = once.iter().filter_map(|c| c.request(name)).map(|q| q.millis()).max().unwrap_or(0);
    Some(Quantity::from_millis(sum.max(largest)))
}

#[derive(Deserialize)]
struct StoredNode {
    #[serde(default)]
    spec: StoredNodeSpec,
    #[serde(default)]
    status: StoredNodeStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredNodeSpec {
    unschedulable: bool,
    taints: Option<Vec<StoredTaint>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredTaint {
    key: String,
    value: String,
    effect: String,
    time_added: Option<Value>,
}

impl From<StoredTaint> for Taint {
    fn from(stored: StoredTaint) -> Self {
        // A time that can't be read is none: the rest of the node counts all the same.
        let added = stored.time_added.as_ref().and_then(Value::as_str).and_then(|time| time.parse().ok());
        Self { key: stored.key, value: stored.value, effect: stored.effect, added }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredNodeStatus {
    allocatable: BTreeMap<String, Value>,
}

fn node(stored: StoredNode) -> NodeSlim {
    let amount = |name: &str| Quantity::from_value(stored.status.allocatable.get(name)?).ok();
    NodeSlim {
        unschedulable: stored.spec.unschedulable,
        cpu_millis: amount("cpu").map_or(0, |q| q.millis()),
        memory: amount("memory").map_or(0, |q| q.units()),
        pods: amount("pods").map_or(0, |q| q.units()),
        taints: stored.spec.taints.unwrap_or_default().into_iter().map(Taint::from).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(group: &str, kind: &str, value: &Value) -> Option<Slim> {
        let id = Id::new(group, kind, "d", value["metadata"]["name"].as_str().unwrap()).unwrap();
        Slim::read(&mut Pool::default(), id, 7, value.to_string().as_bytes(), false).unwrap()
    }

    #[test]
    fn what_controllers_need_of_a_pod() {
        let pod = read("", "Pod", &json!({
            "metadata": {"name": "p", "uid": "u", "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"controller.kubernetes.io/pod-deletion-cost": "-3"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "x", "controller": true}]},
            "spec": {"nodeName": "n", "containers": [{"resources": {"requests": {"cpu": "250m", "memory": "1Mi"}}}, {}],
                "initContainers": [{"resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}],
                "containerStatuses": [{"restartCount": 2, "state": {"running": {}}}]}
        }))
        .unwrap();
        assert_eq!((pod.label("a"), pod.is_ready(), pod.is_active()), (Some("b"), true, true));
        assert_eq!(pod.controller().map(|o| &*o.name), Some("r"));
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        assert!(pod.is_available(10, at("2026-01-01T00:00:15Z")) && !pod.is_available(10, at("2026-01-01T00:00:14Z")));
        let detail = pod.pod().unwrap();
        assert_eq!((detail.restarts, detail.deletion_cost, detail.to_schedule), (2, -3, false));
        assert_eq!((detail.cpu_millis, detail.memory), (1000, 1 << 20), "the init container asks for more cpu");
    }

    #[test]
    fn nothing_is_kept_of_what_nobody_owns() {
        let plain = json!({"metadata": {"name": "c", "uid": "u"}, "data": {"a": "b"}});
        assert_eq!(read("", "ConfigMap", &plain), None);
        let mut owned = plain.clone();
        owned["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "x"}]);
        assert!(read("", "ConfigMap", &owned).is_some());
    }
}
