//! What names are made from: the few fields of Services, EndpointSlices and Namespaces that matter to them.

use serde::Deserialize;
use std::net::IpAddr;

/// An object by namespace and name.
pub type Key = (Box<str>, Box<str>);

/// One change of one object. `None`: it is gone.
#[derive(Clone, Debug)]
pub enum Change {
    /// A Service.
    Service(Key, Option<Service>),
    /// An EndpointSlice.
    Slice(Key, Option<Slice>),
    /// A Namespace, and whether it is there.
    Namespace(Box<str>, bool),
}

/// Why an object gives no names. The registry checks what it stores, so this is a fault of ours.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {namespace}/{name} can't be read: {why}")]
pub struct Unreadable {
    kind: &'static str,
    namespace: Box<str>,
    name: Box<str>,
    why: serde_json::Error,
}

impl Change {
    /// Whether objects of this resource (`services`, `endpointslices`, `namespaces`) matter to names.
    pub fn concerns(group: &str, resource: &str) -> bool {
        matches!((group, resource), ("", "services" | "namespaces") | ("discovery.k8s.io", "endpointslices"))
    }

    /// Reads an object's JSON; `None`: it is gone.
    ///
    /// # Errors
    /// [`Unreadable`] when it is not what its resource says.
    pub fn read(resource: &str, namespace: &str, name: &str, json: Option<&[u8]>) -> Result<Option<Self>, Unreadable> {
        let key: Key = (namespace.into(), name.into());
        let unreadable = |kind, why| Unreadable { kind, namespace: namespace.into(), name: name.into(), why };
        Ok(match resource {
            "services" => {
                Some(Self::Service(key, json.map(Service::read).transpose().map_err(|why| unreadable("Service", why))?))
            }
            "endpointslices" => Some(Self::Slice(
                key,
                json.map(Slice::read).transpose().map_err(|why| unreadable("EndpointSlice", why))?,
            )),
            "namespaces" => Some(Self::Namespace(name.into(), json.is_some())),
            _ => None,
        })
    }
}

/// A Service as far as names need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Where it answers.
    pub addresses: Vec<IpAddr>,
    /// It has no address of its own: its endpoints are found by name.
    pub headless: bool,
    /// It stands for this name elsewhere.
    pub external_name: Option<Box<str>>,
    /// Named ports.
    pub ports: Vec<Port>,
    /// Its endpoints are named before they are ready.
    pub publish_not_ready: bool,
}

/// A named port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// `http`.
    pub name: Box<str>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Box<str>,
    /// Number.
    pub port: u16,
}

/// An EndpointSlice as far as names need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The Service that it belongs to, in its namespace.
    pub service: Box<str>,
    /// Named ports.
    pub ports: Vec<Port>,
    /// Where the service is.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its own name below the service's.
    pub hostname: Option<Box<str>>,
    /// It takes requests. What is not said is yes.
    pub ready: bool,
}

#[derive(Deserialize)]
struct Wrapped<T> {
    spec: T,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    external_name: String,
    ports: Vec<JsonPort>,
    publish_not_ready_addresses: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct JsonPort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize)]
struct JsonSlice {
    metadata: Metadata,
    #[serde(default)]
    ports: Option<Vec<JsonPort>>,
    #[serde(default)]
    endpoints: Option<Vec<JsonEndpoint>>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct JsonEndpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    hostname: Option<Box<str>>,
    #[serde(default)]
    conditions: Conditions,
}

#[derive(Deserialize, Default)]
struct Conditions {
    #[serde(default)]
    ready: Option<bool>,
}

/// The label by which slices name their Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

impl Service {
    fn read(json: &[u8]) -> serde_json::Result<Self> {
        let Wrapped::<ServiceSpec> { spec } = serde_json::from_slice(json)?;
        let all = if spec.cluster_ips.is_empty() { std::slice::from_ref(&spec.cluster_ip) } else { &spec.cluster_ips };
        let external = spec.kind == "ExternalName";
        Ok(Self {
            addresses: if external { Vec::new() } else { all.iter().filter_map(|a| a.parse().ok()).collect() },
            headless: !external && spec.cluster_ip == "None",
            external_name: external.then(|| spec.external_name.into()),
            ports: named(spec.ports),
            publish_not_ready: spec.publish_not_ready_addresses,
        })
    }
}

impl Slice {
    fn read(json: &[u8]) -> serde_json::Result<Self> {
        let slice: JsonSlice = serde_json::from_slice(json)?;
        let endpoints = slice.endpoints.unwrap_or_default().into_iter().map(|e| Endpoint {
            // Slices of type FQDN hold names instead.
            addresses: e.addresses.iter().filter_map(|a| a.parse().ok()).collect(),
            hostname: e.hostname.filter(|h| !h.is_empty()),
            ready: e.conditions.ready.unwrap_or(true),
        });
        Ok(Self {
            service: slice.metadata.labels.get(SERVICE_LABEL).map(|s| s.as_str().into()).unwrap_or_default(),
            ports: named(slice.ports.unwrap_or_default()),
            endpoints: endpoints.collect(),
        })
    }
}

fn named(ports: Vec<JsonPort>) -> Vec<Port> {
    let named = ports.into_iter().filter_map(|p| {
        let name = p.name.filter(|n| !n.is_empty())?.into();
        Some(Port { name, protocol: p.protocol.unwrap_or_else(|| "TCP".into()).into(), port: p.port? })
    });
    named.collect()
}
