//! Which pods are endpoints of a service, how they are, and where they listen. Pure.

use crate::runtime::Slim;
use reddwarf_objects::Object;
use reddwarf_objects::pod::Phase;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One port of an endpoint, as a slice writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The service port's name; empty when it has none.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// Where the pod listens.
    pub port: u16,
    /// `appProtocol`, where the service says one.
    pub app_protocol: Option<String>,
}

impl Port {
    /// As slices (`name` always) and Endpoints (`name` where there is one) write it.
    pub fn value(&self, always_named: bool) -> Value {
        let mut value = json!({"port": self.port, "protocol": self.protocol});
        if always_named || !self.name.is_empty() {
            value["name"] = json!(self.name);
        }
        if let Some(protocol) = &self.app_protocol {
            value["appProtocol"] = json!(protocol);
        }
        value
    }
}

/// One pod behind a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its addresses, of either family.
    pub addresses: Vec<String>,
    /// Where it listens.
    pub ports: Vec<Port>,
    /// Takes new connections.
    pub ready: bool,
    /// Its readiness, whatever else.
    pub serving: bool,
    /// Is going.
    pub terminating: bool,
    /// Its host name, where the service gives it a name of its own.
    pub hostname: Option<String>,
    /// Its node.
    pub node: Option<String>,
    /// Its node's zone.
    pub zone: Option<String>,
    /// Namespace, name and uid of the pod.
    pub pod: (String, String, String),
}

impl Endpoint {
    /// As slices write it, at the one address.
    pub fn value(&self, address: &str) -> Value {
        let (namespace, name, uid) = &self.pod;
        let mut value = json!({
            "addresses": [address],
            "conditions": {"ready": self.ready, "serving": self.serving, "terminating": self.terminating},
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": name, "uid": uid},
        });
        let texts = [("hostname", &self.hostname), ("nodeName", &self.node), ("zone", &self.zone)];
        for (field, text) in texts.into_iter().filter_map(|(f, t)| Some((f, t.as_ref()?))) {
            value[field] = json!(text);
        }
        value
    }
}

/// The endpoints of a service among the pods that it selects, in order of name.
pub fn endpoints(service: &Object, pods: &[Arc<Slim>], zones: &BTreeMap<String, String>) -> Vec<Endpoint> {
    let ports = service.get("/spec/ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let unready_too = service.get("/spec/publishNotReadyAddresses") == Some(&Value::Bool(true));
    let one = |slim: &Arc<Slim>| {
        let pod = slim.pod()?;
        let over = matches!(pod.phase, Phase::Succeeded | Phase::Failed);
        let net = pod.net.as_ref().filter(|net| !over && !net.ips.is_empty())?;
        let (serving, terminating) = (pod.ready_since.is_some(), slim.deleted.is_some());
        let named = !net.hostname.is_empty() && *net.subdomain == *service.name();
        Some(Endpoint {
            addresses: net.ips.iter().map(|ip| ip.to_string()).collect(),
            ports: ports.iter().filter_map(|port| resolve(port, net)).collect(),
            ready: unready_too || (serving && !terminating),
            serving,
            terminating,
            hostname: named.then(|| net.hostname.to_string()),
            node: (!pod.node.is_empty()).then(|| pod.node.to_string()),
            zone: zones.get(&*pod.node).cloned(),
            pod: (slim.id.namespace.to_string(), slim.id.name.to_string(), slim.uid.to_string()),
        })
    };
    let mut all: Vec<Endpoint> = pods.iter().filter_map(one).collect();
    all.sort_by(|a, b| a.pod.cmp(&b.pod));
    all
}

/// A service's port on one pod; `None` when the pod has no port of that name.
fn resolve(port: &Value, net: &crate::runtime::PodNet) -> Option<Port> {
    let text = |field: &str| port.get(field).and_then(Value::as_str);
    let protocol = text("protocol").unwrap_or("TCP");
    let number = |value: &Value| u16::try_from(value.as_u64()?).ok().filter(|n| *n > 0);
    let target = match port.get("targetPort") {
        Some(Value::String(name)) => {
            let named = net.ports.iter().find(|p| *p.name == **name && *p.protocol == *protocol);
            named.map(|p| p.number)?
        }
        Some(value) if number(value).is_some() => number(value)?,
        _ => number(port.get("port")?)?,
    };
    Some(Port {
        name: text("name").unwrap_or_default().to_owned(),
        protocol: protocol.to_owned(),
        port: target,
        app_protocol: text("appProtocol").map(str::to_owned),
    })
}
