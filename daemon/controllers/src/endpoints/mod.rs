//! Services → EndpointSlices and Endpoints.
//!
//! | to know | look in |
//! |---|---|
//! | which endpoints a service has, and on which ports | `decide.rs`, pure |
//! | how they are spread over slices with the fewest writes | `slices.rs`, pure |
//! | the same as an Endpoints object | `legacy.rs`, pure |
//! | slices of Endpoints that people write themselves | `mirror.rs`, pure |
//! | the service `kubernetes` | [`kubernetes`] |
//!
//! One key is one service: everything about it is looked at and written anew, so that nothing depends on what was seen before.

mod decide;
pub mod kubernetes;
mod legacy;
mod mirror;
mod slices;
#[cfg(test)]
mod tests;

pub use decide::{Endpoint, Port, endpoints};
pub use slices::{SliceChange, Wanted, spread};

use crate::runtime::{Again, Change, Context, Controller, Failure, Id, Slim, View};
use async_trait::async_trait;
use reddwarf_objects::object::timestamp;
use reddwarf_objects::{Kind, Object, kinds};
use reddwarf_registry::{Author, DeleteOptions, RegistryError, WriteOptions};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const NAME: &str = "endpointslice-controller";
/// Names a slice's service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Names who writes a slice.
pub(crate) const SLICE_MANAGER: &str = "endpointslice.kubernetes.io/managed-by";
const US: &str = "endpointslice-controller.k8s.io";
const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";
const ENDPOINTS_MANAGER: &str = "endpoints.kubernetes.io/managed-by";
const ENDPOINTS_US: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const ZONE: &str = "topology.kubernetes.io/zone";

/// The controller.
#[derive(Debug)]
pub struct Endpoints {
    services: &'static Kind,
    pods: &'static Kind,
    nodes: &'static Kind,
    slices: &'static Kind,
    endpoints: &'static Kind,
}

impl Endpoints {
    /// `None` only if the table of kinds lacks one that it needs.
    pub fn new() -> Option<Self> {
        Some(Self {
            services: kinds().by_gvk("v1", "Service")?,
            pods: kinds().by_gvk("v1", "Pod")?,
            nodes: kinds().by_gvk("v1", "Node")?,
            slices: kinds().by_gvk("discovery.k8s.io/v1", "EndpointSlice")?,
            endpoints: kinds().by_gvk("v1", "Endpoints")?,
        })
    }

    /// The zone of each node that has one.
    fn zones(&self, view: &View) -> BTreeMap<String, String> {
        let zone = |node: &Arc<Slim>| Some((node.id.name.to_string(), node.label(ZONE)?.to_owned()));
        view.list(self.nodes, None).filter_map(zone).collect()
    }

    /// The slices of a service that `manager` writes.
    fn slices_of(&self, context: &Context, service: &Id, manager: &str) -> Result<Vec<Object>, Failure> {
        let ids: Vec<Id> = {
            let view = context.view();
            let ours = |s: &&Arc<Slim>| {
                s.label(SERVICE_NAME) == Some(&*service.name) && s.label(SLICE_MANAGER) == Some(manager)
            };
            view.list(self.slices, Some(&service.namespace)).filter(ours).map(|s| s.id.clone()).collect()
        };
        let found = ids.iter().map(|id| context.find(id)).collect::<Result<Vec<_>, _>>()?;
        Ok(found.into_iter().flatten().filter(|s| s.deletion_timestamp().is_none()).collect())
    }

    async fn selected_pods(&self, context: &Context, service: &Object, id: &Id) -> Result<(), Failure> {
        let selector: Vec<(String, String)> = selector(service);
        let (pods, zones) = {
            let view = context.view();
            let selected = |p: &&Arc<Slim>| selector.iter().all(|(k, v)| p.label(k) == Some(v));
            let pods: Vec<_> = view.list(self.pods, Some(&id.namespace)).filter(selected).cloned().collect();
            (pods, self.zones(&view))
        };
        let all = endpoints(service, &pods, &zones);
        self.write_slices(context, id, US, service, &slices::wanted(service, &all)).await?;
        let owned = legacy::object(self.endpoints, service, &all);
        self.write_endpoints(context, id, owned).await
    }

    /// Brings the slices that `manager` writes to what is wanted.
    async fn write_slices(
        &self,
        context: &Context,
        service: &Id,
        manager: &'static str,
        owner: &Object,
        wanted: &[Wanted],
    ) -> Result<(), Failure> {
        let present = self.slices_of(context, service, manager)?;
        for change in spread(&present, wanted, &slice_labels(owner, service, manager)) {
            match change {
                SliceChange::Create(fields) => {
                    let slice = slices::new_slice(self.slices, service, owner, &fields, &timestamp(context.now()));
                    self.create(context, slice).await?;
                }
                SliceChange::Replace(name, fields) => {
                    let stamp = timestamp(context.now());
                    let id = Id::of(self.slices, &service.namespace, &name);
                    self.modify(context, &id, |slice| slices::overwrite(slice, &fields, &stamp)).await?;
                }
                SliceChange::Delete(name) => {
                    self.delete(context, &Id::of(self.slices, &service.namespace, &name)).await?;
                }
            }
        }
        Ok(())
    }

    async fn write_endpoints(&self, context: &Context, service: &Id, wanted: Object) -> Result<(), Failure> {
        let id = Id::of(self.endpoints, &service.namespace, &service.name);
        let stamp = timestamp(context.now());
        let Some(found) = context.find(&id)? else {
            let mut wanted = wanted;
            wanted.set_annotation(TRIGGERED, &stamp);
            return self.create(context, wanted).await;
        };
        if !legacy::overwrite(&mut found.clone(), &wanted, &stamp) {
            return Ok(());
        }
        let write = |live: &mut Object| {
            legacy::overwrite(live, &wanted, &stamp);
        };
        self.modify(context, &id, write).await
    }

    /// A service that selects nothing: what we made of it before goes, what people write of it is mirrored.
    async fn without_selector(&self, context: &Context, service: &Object, id: &Id) -> Result<(), Failure> {
        self.write_slices(context, id, US, service, &[]).await?;
        let endpoints = Id::of(self.endpoints, &id.namespace, &id.name);
        let found = context.find(&endpoints)?;
        if found.as_ref().is_some_and(|e| e.label(ENDPOINTS_MANAGER) == Some(ENDPOINTS_US)) {
            return self.delete(context, &endpoints).await;
        }
        match found.filter(|e| service.get_str("/spec/type") != Some("ExternalName") && mirror::wants(e)) {
            Some(found) => self.write_slices(context, id, MIRROR, &found, &mirror::wanted(&found)).await,
            None => self.write_slices(context, id, MIRROR, service, &[]).await,
        }
    }

    /// The service is gone: its slices go with their owner, the Endpoints that we made have none.
    async fn leftovers(&self, context: &Context, id: &Id) -> Result<(), Failure> {
        for manager in [US, MIRROR] {
            for slice in self.slices_of(context, id, manager)? {
                self.delete(context, &Id::of(self.slices, &id.namespace, slice.name())).await?;
            }
        }
        let endpoints = Id::of(self.endpoints, &id.namespace, &id.name);
        match context.find(&endpoints)? {
            Some(found) if found.label(ENDPOINTS_MANAGER) == Some(ENDPOINTS_US) => {
                self.delete(context, &endpoints).await
            }
            _ => Ok(()),
        }
    }

    async fn create(&self, context: &Context, object: Object) -> Result<(), Failure> {
        match context.registry.create(&Author::System(NAME), object, WriteOptions::default()).await {
            // Its namespace goes, and everything in it.
            Ok(_) | Err(RegistryError::Terminating { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn modify(&self, context: &Context, id: &Id, change: impl FnMut(&mut Object) + Send) -> Result<(), Failure> {
        match context.registry.modify(&Author::System(NAME), &id.key(), change).await {
            Ok(_) | Err(RegistryError::NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn delete(&self, context: &Context, id: &Id) -> Result<(), Failure> {
        match context.registry.delete(&Author::System(NAME), &id.key(), &DeleteOptions::default()).await {
            Ok(_) | Err(RegistryError::NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[async_trait]
impl Controller for Endpoints {
    fn name(&self) -> &'static str {
        NAME
    }

    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        let service = |name: &str| Id::of(self.services, &slim.id.namespace, name);
        if slim.id.is("", "Service") {
            add(slim.id.clone());
        } else if slim.id.is("", "Endpoints") {
            add(service(&slim.id.name));
        } else if slim.id.is("discovery.k8s.io", "EndpointSlice") {
            let ours = slim.label(SLICE_MANAGER).is_some_and(|m| [US, MIRROR].contains(&m));
            slim.label(SERVICE_NAME).filter(|_| ours).into_iter().for_each(|name| add(service(name)));
        } else if slim.id.is_pod() {
            let states = || [&change.before, &change.after].into_iter().flatten();
            let selecting = view
                .list(self.services, Some(&slim.id.namespace))
                .filter(|s| s.selector().is_some_and(|selector| states().any(|p| p.matches(selector))));
            selecting.for_each(|s| add(s.id.clone()));
        } else if slim.id.is("", "Node") {
            let zone = |s: &Option<Arc<Slim>>| s.as_ref().and_then(|s| s.label(ZONE).map(str::to_owned));
            if change.before.is_some() && zone(&change.before) != zone(&change.after) {
                view.list(self.services, None).for_each(|s| add(s.id.clone()));
            }
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        if kubernetes::is_it(id) {
            return Ok(Again::NEVER);
        }
        match context.find(id)?.filter(|service| service.deletion_timestamp().is_none()) {
            None => self.leftovers(context, id).await?,
            Some(service) if selector(&service).is_empty() || service.get_str("/spec/type") == Some("ExternalName") => {
                self.without_selector(context, &service, id).await?;
            }
            Some(service) => self.selected_pods(context, &service, id).await?,
        }
        Ok(Again::NEVER)
    }
}

fn selector(service: &Object) -> Vec<(String, String)> {
    let map = service.get("/spec/selector").and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

/// The labels of a service's slices: its own (or its Endpoints'), and ours.
fn slice_labels(owner: &Object, service: &Id, manager: &str) -> Map<String, Value> {
    let foreign = |key: &&str| ![SERVICE_NAME, SLICE_MANAGER, HEADLESS, ENDPOINTS_MANAGER].contains(key);
    let own = owner.labels().filter(|(key, _)| foreign(key));
    let mut labels: Map<String, Value> = own.map(|(k, v)| (k.to_owned(), json!(v))).collect();
    labels.insert(SERVICE_NAME.to_owned(), json!(&*service.name));
    labels.insert(SLICE_MANAGER.to_owned(), json!(manager));
    if owner.get_str("/spec/clusterIP") == Some("None") {
        labels.insert(HEADLESS.to_owned(), json!(""));
    }
    labels
}
