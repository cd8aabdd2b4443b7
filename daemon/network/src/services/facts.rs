//! What is kept of services, slices, pods, namespaces and policies: what the table needs, read straight from stored JSON.

use ipnet::IpNet;
use reddwarf_host::service::{Direction, Protocol};
use reddwarf_objects::selector::LabelSelector;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Namespace and name; the namespace of a cluster-wide object is empty.
pub(super) type Name = (String, String);
pub(super) type Labels = BTreeMap<String, String>;

/// Kinds that the table is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Service.
    Service,
    /// EndpointSlice.
    Slice,
    /// Pod.
    Pod,
    /// Namespace.
    Namespace,
    /// NetworkPolicy.
    Policy,
}

impl Subject {
    /// Of a group and resource; `None` for what does not matter here.
    pub fn of(group: &str, resource: &str) -> Option<Self> {
        match (group, resource) {
            ("", "services") => Some(Self::Service),
            ("discovery.k8s.io", "endpointslices") => Some(Self::Slice),
            ("", "pods") => Some(Self::Pod),
            ("", "namespaces") => Some(Self::Namespace),
            ("networking.k8s.io", "networkpolicies") => Some(Self::Policy),
            _ => None,
        }
    }
}

/// All that the table follows from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    pub(super) services: BTreeMap<Name, Service>,
    pub(super) slices: BTreeMap<Name, Slice>,
    pub(super) pods: BTreeMap<Name, Pod>,
    pub(super) namespaces: BTreeMap<String, Labels>,
    pub(super) policies: BTreeMap<Name, Policy>,
}

impl Cluster {
    /// Takes an object in as it is now (`None`: it is gone). Says whether anything that matters changed. What can't be read
    /// counts as gone.
    pub fn take(&mut self, subject: Subject, name: (String, String), json: Option<&[u8]>) -> bool {
        fn put<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
            match value {
                Some(value) if map.get(&key) == Some(&value) => false,
                Some(value) => {
                    map.insert(key, value);
                    true
                }
                None => map.remove(&key).is_some(),
            }
        }
        match subject {
            Subject::Service => put(&mut self.services, name, json.and_then(Service::read)),
            Subject::Slice => put(&mut self.slices, name, json.and_then(Slice::read)),
            Subject::Pod => put(&mut self.pods, name, json.and_then(Pod::read)),
            Subject::Policy => put(&mut self.policies, name, json.and_then(Policy::read)),
            Subject::Namespace => put(&mut self.namespaces, name.1, json.and_then(read_labels)),
        }
    }
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: Option<Labels>,
}

fn read_labels(json: &[u8]) -> Option<Labels> {
    #[derive(Deserialize)]
    struct Stored {
        metadata: Metadata,
    }
    Some(serde_json::from_slice::<Stored>(json).ok()?.metadata.labels.unwrap_or_default())
}

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Service {
    pub(super) cluster_ips: Vec<IpAddr>,
    pub(super) external_ips: Vec<IpAddr>,
    pub(super) balancer_ips: Vec<IpAddr>,
    pub(super) ports: Vec<ServicePort>,
    pub(super) affinity_seconds: Option<u32>,
    /// Only endpoints of this node, for connections to the cluster IP.
    pub(super) internal_local: bool,
    /// Only endpoints of this node, for connections from outside.
    pub(super) external_local: bool,
    pub(super) sources: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServicePort {
    pub(super) name: String,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    pub(super) node_port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredService {
    #[serde(default)]
    spec: StoredServiceSpec,
    #[serde(default)]
    status: StoredServiceStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredServiceSpec {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    ports: Option<Vec<StoredServicePort>>,
    session_affinity: String,
    session_affinity_config: Value,
    internal_traffic_policy: String,
    external_traffic_policy: String,
    load_balancer_source_ranges: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredServicePort {
    name: String,
    protocol: String,
    port: u16,
    node_port: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredServiceStatus {
    load_balancer: Value,
}

impl Service {
    fn read(json: &[u8]) -> Option<Self> {
        let StoredService { spec, status } = serde_json::from_slice(json).ok()?;
        if spec.kind == "ExternalName" || spec.cluster_ip == "None" {
            return None;
        }
        let ips = |texts: Option<Vec<String>>| -> Vec<IpAddr> {
            texts.iter().flatten().filter_map(|text| text.parse().ok()).collect()
        };
        let mut cluster_ips = ips(spec.cluster_ips);
        if cluster_ips.is_empty() {
            cluster_ips.extend(spec.cluster_ip.parse::<IpAddr>().ok());
        }
        let ingress = status.load_balancer.get("ingress").and_then(Value::as_array);
        let balancer = ingress.into_iter().flatten().filter_map(|i| i.get("ip")?.as_str()?.parse().ok());
        let has_node_ports = matches!(spec.kind.as_str(), "NodePort" | "LoadBalancer");
        let port = |p: StoredServicePort| {
            let node_port = p.node_port.filter(|n| *n > 0 && has_node_ports);
            let protocol = if p.protocol.is_empty() { "TCP" } else { &p.protocol };
            Some(ServicePort { protocol: Protocol::parse(protocol)?, name: p.name, port: p.port, node_port })
        };
        let timeout = spec.session_affinity_config.pointer("/clientIP/timeoutSeconds").and_then(Value::as_u64);
        let timeout = timeout.and_then(|t| u32::try_from(t).ok()).unwrap_or(10_800);
        let range = |text: &String| text.trim().parse::<IpNet>().ok().map(|net| net.trunc());
        Some(Self {
            cluster_ips,
            external_ips: ips(spec.external_ips),
            balancer_ips: if spec.kind == "LoadBalancer" { balancer.collect() } else { Vec::new() },
            ports: spec.ports.into_iter().flatten().filter_map(port).collect(),
            affinity_seconds: (spec.session_affinity == "ClientIP").then_some(timeout),
            internal_local: spec.internal_traffic_policy == "Local",
            external_local: spec.external_traffic_policy == "Local",
            sources: spec.load_balancer_source_ranges.iter().flatten().filter_map(range).collect(),
        })
    }
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Slice {
    pub(super) service: String,
    pub(super) ports: Vec<(String, Protocol, u16)>,
    pub(super) endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Endpoint {
    pub(super) address: IpAddr,
    pub(super) ready: bool,
    /// Serves, though it is going.
    pub(super) last_resort: bool,
    pub(super) node: String,
}

#[derive(Deserialize)]
struct StoredSlice {
    metadata: Metadata,
    #[serde(default)]
    endpoints: Option<Vec<StoredEndpoint>>,
    #[serde(default)]
    ports: Option<Vec<StoredSlicePort>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredEndpoint {
    addresses: Vec<String>,
    conditions: StoredConditions,
    node_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredSlicePort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

impl Slice {
    fn read(json: &[u8]) -> Option<Self> {
        let stored: StoredSlice = serde_json::from_slice(json).ok()?;
        let service = stored.metadata.labels?.remove("kubernetes.io/service-name").filter(|name| !name.is_empty())?;
        let port = |p: StoredSlicePort| {
            let protocol = Protocol::parse(p.protocol.as_deref().unwrap_or("TCP"))?;
            Some((p.name.unwrap_or_default(), protocol, p.port.filter(|n| *n > 0)?))
        };
        let endpoint = |e: StoredEndpoint| {
            // Of several addresses the first counts (the API says so of them).
            let address = e.addresses.first()?.parse().ok()?;
            let conditions = e.conditions;
            let ready = conditions.ready != Some(false);
            let serving = conditions.serving.unwrap_or(ready);
            let last_resort = serving && conditions.terminating == Some(true);
            Some(Endpoint { address, ready, last_resort, node: e.node_name.unwrap_or_default() })
        };
        Some(Self {
            service,
            ports: stored.ports.into_iter().flatten().filter_map(port).collect(),
            endpoints: stored.endpoints.into_iter().flatten().filter_map(endpoint).collect(),
        })
    }
}

/// A pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pod {
    pub(super) labels: Labels,
    /// None of a pod on the host's network, or without an address, or that is over.
    pub(super) ips: Vec<IpAddr>,
    pub(super) node: String,
    pub(super) ports: Vec<PodPort>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct PodPort {
    pub(super) name: String,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    pub(super) host_port: Option<u16>,
    pub(super) host_ip: Option<IpAddr>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredPod {
    metadata: Metadata,
    #[serde(default)]
    spec: StoredPodSpec,
    #[serde(default)]
    status: StoredPodStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredPodSpec {
    host_network: bool,
    node_name: Option<String>,
    containers: Vec<StoredContainer>,
    init_containers: Option<Vec<StoredContainer>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredContainer {
    ports: Option<Vec<StoredPodPort>>,
    restart_policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredPodPort {
    name: Option<String>,
    protocol: Option<String>,
    container_port: u16,
    host_port: Option<u16>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredPodStatus {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<StoredIp>>,
}

#[derive(Deserialize)]
struct StoredIp {
    ip: String,
}

impl Pod {
    fn read(json: &[u8]) -> Option<Self> {
        let StoredPod { metadata, spec, status } = serde_json::from_slice(json).ok()?;
        let over = matches!(status.phase.as_str(), "Succeeded" | "Failed");
        if spec.host_network || over {
            return None;
        }
        let mut ips: Vec<IpAddr> = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
        if ips.is_empty() {
            ips.extend(status.pod_ip.and_then(|ip| ip.parse::<IpAddr>().ok()));
        }
        let sidecar = |c: &StoredContainer| c.restart_policy.as_deref() == Some("Always");
        let containers = spec.containers.into_iter().chain(spec.init_containers.into_iter().flatten().filter(sidecar));
        let port = |p: StoredPodPort| {
            Some(PodPort {
                protocol: Protocol::parse(p.protocol.as_deref().unwrap_or("TCP"))?,
                name: p.name.unwrap_or_default(),
                port: p.container_port,
                host_port: p.host_port.filter(|n| *n > 0),
                host_ip: p.host_ip.and_then(|ip| ip.parse::<IpAddr>().ok()).filter(|ip| !ip.is_unspecified()),
            })
        };
        Some(Self {
            labels: metadata.labels.unwrap_or_default(),
            ips,
            node: spec.node_name.unwrap_or_default(),
            ports: containers.flat_map(|c| c.ports.into_iter().flatten()).filter_map(port).collect(),
        })
    }
}

/// A NetworkPolicy.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Policy {
    pub(super) selects: LabelSelector,
    pub(super) ingress: Option<Vec<Rule>>,
    pub(super) egress: Option<Vec<Rule>>,
}

impl Policy {
    /// The rules of a direction; `None` where the policy says nothing of it.
    pub(super) fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// Who may do what. Empty lists mean everybody and everything.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    pub(super) peers: Vec<Peer>,
    pub(super) ports: Vec<RulePort>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Peer {
    /// Pods, of the policy's namespace unless namespaces are selected.
    Pods { pods: Option<LabelSelector>, namespaces: Option<LabelSelector> },
    /// Addresses.
    Block { cidr: IpNet, except: Vec<IpNet> },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum RulePort {
    /// Every port of a protocol, or these.
    Numbers { protocol: Protocol, first: u16, last: u16 },
    /// The port of this name, whatever its number at each pod.
    Named { protocol: Protocol, name: String },
}

#[derive(Deserialize)]
struct StoredPolicy {
    #[serde(default)]
    spec: StoredPolicySpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredPolicySpec {
    pod_selector: Option<Value>,
    policy_types: Option<Vec<String>>,
    ingress: Option<Vec<StoredRule>>,
    egress: Option<Vec<StoredRule>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredRule {
    from: Option<Vec<StoredPeer>>,
    to: Option<Vec<StoredPeer>>,
    ports: Option<Vec<StoredRulePort>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredPeer {
    pod_selector: Option<Value>,
    namespace_selector: Option<Value>,
    ip_block: Option<StoredBlock>,
}

#[derive(Deserialize)]
struct StoredBlock {
    cidr: String,
    #[serde(default)]
    except: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredRulePort {
    protocol: Option<String>,
    port: Option<Value>,
    end_port: Option<u16>,
}

impl Policy {
    fn read(json: &[u8]) -> Option<Self> {
        let StoredPolicy { spec } = serde_json::from_slice(json).ok()?;
        let types = spec.policy_types.unwrap_or_default();
        // Without types: ingress, and egress where there are rules for it (the API says so).
        let says = |name: &str, unsaid: bool| if types.is_empty() { unsaid } else { types.iter().any(|t| t == name) };
        let (ingress, egress) = (says("Ingress", true), says("Egress", spec.egress.is_some()));
        let rules = |rules: Option<Vec<StoredRule>>| rules.into_iter().flatten().map(Rule::of).collect();
        let everything = Value::Object(serde_json::Map::new());
        Some(Self {
            selects: LabelSelector::from_value(spec.pod_selector.as_ref().unwrap_or(&everything)).ok()?,
            ingress: ingress.then(|| rules(spec.ingress)),
            egress: egress.then(|| rules(spec.egress)),
        })
    }
}

impl Rule {
    fn of(stored: StoredRule) -> Self {
        let peers = stored.from.or(stored.to).unwrap_or_default();
        // A peer that can't be read lets nobody pass, rather than everybody.
        let nobody = || Peer::Block { cidr: IpNet::from(IpAddr::from([0, 0, 0, 0])), except: Vec::new() };
        let ports = stored.ports.unwrap_or_default();
        Self {
            peers: peers.into_iter().map(|p| Peer::of(p).unwrap_or_else(nobody)).collect(),
            ports: ports.into_iter().filter_map(RulePort::of).collect(),
        }
    }
}

impl Peer {
    fn of(stored: StoredPeer) -> Option<Self> {
        if let Some(block) = stored.ip_block {
            let net = |text: &String| text.parse::<IpNet>().ok().map(|net| net.trunc());
            let except = block.except.iter().flatten().filter_map(net).collect();
            return Some(Self::Block { cidr: net(&block.cidr)?, except });
        }
        let read = |value: Option<Value>| match value {
            None | Some(Value::Null) => Some(None),
            Some(value) => LabelSelector::from_value(&value).ok().map(Some),
        };
        let (pods, namespaces) = (read(stored.pod_selector)?, read(stored.namespace_selector)?);
        (pods.is_some() || namespaces.is_some()).then_some(Self::Pods { pods, namespaces })
    }
}

impl RulePort {
    fn of(stored: StoredRulePort) -> Option<Self> {
        let protocol = Protocol::parse(stored.protocol.as_deref().unwrap_or("TCP"))?;
        match stored.port {
            None | Some(Value::Null) => Some(Self::Numbers { protocol, first: 0, last: u16::MAX }),
            Some(Value::String(name)) => Some(Self::Named { protocol, name }),
            Some(number) => {
                let first = u16::try_from(number.as_u64()?).ok()?;
                Some(Self::Numbers { protocol, first, last: stored.end_port.unwrap_or(first).max(first) })
            }
        }
    }
}
