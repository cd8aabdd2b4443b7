//! The service `kubernetes` in `default`: the first cluster IP, and behind it the API where it listens over TCP.

use super::{Failure, SERVICE_NAME};
use crate::runtime::{Again, Change, Context, Controller, Id, View};
use async_trait::async_trait;
use reddwarf_objects::{Kind, Object, kinds};
use reddwarf_registry::{Author, RegistryError, WriteOptions};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

const NAME: &str = "kubernetes";
const AUTHOR: Author = Author::System("kubernetes-service");

/// What the service is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesService {
    /// The first address of each service range.
    pub addresses: Vec<IpAddr>,
    /// Where pods reach the API; `None` while it does not listen over TCP.
    pub endpoint: Option<SocketAddr>,
}

/// Is this the service?
pub(super) fn is_it(id: &Id) -> bool {
    &*id.namespace == "default" && &*id.name == NAME
}

/// The controller.
#[derive(Debug)]
pub struct Kubernetes {
    wanted: KubernetesService,
    services: &'static Kind,
}

impl Kubernetes {
    /// `None` without anything wanted.
    pub fn new(wanted: Option<KubernetesService>) -> Option<Self> {
        Some(Self { wanted: wanted?, services: kinds().by_gvk("v1", "Service")? })
    }

    fn labels() -> Value {
        json!({"component": "apiserver", "provider": "kubernetes"})
    }

    /// The three objects as they should be.
    fn objects(&self) -> Vec<Value> {
        let ips: Vec<String> = self.wanted.addresses.iter().map(ToString::to_string).collect();
        let six = |ip: &String| if ip.contains(':') { "IPv6" } else { "IPv4" };
        let families: Vec<&str> = ips.iter().map(six).collect();
        let policy = if ips.len() > 1 { "PreferDualStack" } else { "SingleStack" };
        let target = self.wanted.endpoint.map_or(6443, |e| e.port());
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": NAME, "namespace": "default", "labels": Self::labels()},
            "spec": {"clusterIP": ips.first(), "clusterIPs": ips, "ipFamilies": families, "ipFamilyPolicy": policy,
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": target}]},
        });
        let mut labels = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
        let address = self.wanted.endpoint.map(|e| e.ip().to_string());
        let port = json!([{"name": "https", "port": target, "protocol": "TCP"}]);
        let subsets: Vec<Value> = address.iter().map(|ip| json!({"addresses": [{"ip": ip}], "ports": port})).collect();
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": NAME, "namespace": "default", "labels": labels.take()}, "subsets": subsets,
        });
        let items: Vec<Value> =
            address.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": NAME, "namespace": "default", "labels": {SERVICE_NAME: NAME}},
            "addressType": address.as_ref().map_or("IPv4", six), "endpoints": items, "ports": port,
        });
        vec![service, endpoints, slice]
    }

    async fn ensure(&self, context: &Context, wanted: Value) -> Result<(), Failure> {
        let object = Object::from_value(wanted).map_err(|e| Failure::Wait(e.to_string()))?;
        let Some(id) = Id::of_object(&object) else { return Ok(()) };
        let fields: &[&str] = match id.kind.kind {
            "Service" => &["/spec/ports"],
            "Endpoints" => &["/subsets", "/metadata/labels"],
            _ => &["/endpoints", "/ports", "/metadata/labels"],
        };
        let written = match context.find(&id)? {
            None => context.registry.create(&AUTHOR, object, WriteOptions::default()).await.map(drop),
            Some(_) => {
                let change = |live: &mut Object| {
                    for field in fields {
                        let wanted = object.get(field).cloned().unwrap_or_default();
                        if live.get(field) != Some(&wanted) {
                            live.set(field, wanted);
                        }
                    }
                };
                context.registry.modify(&AUTHOR, &id.key(), change).await.map(drop)
            }
        };
        match written {
            Ok(()) | Err(RegistryError::AlreadyExists(_) | RegistryError::Terminating { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[async_trait]
impl Controller for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes-service"
    }

    fn triggers(&self, _view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        let ours = matches!(slim.id.kind.kind, "Service" | "Endpoints" | "EndpointSlice") && is_it(&slim.id);
        if ours || (slim.id.is("", "Namespace") && &*slim.id.name == "default" && change.before.is_none()) {
            add(Id::of(self.services, "default", NAME));
        }
    }

    async fn sync(&self, context: &Context, _id: &Id) -> Result<Again, Failure> {
        for object in self.objects() {
            self.ensure(context, object).await?;
        }
        Ok(Again::NEVER)
    }
}
