//! The objects that decide over a new one: what admission asks of the store.

use crate::key::{kind_prefix, store_key};
use crate::namespace::namespace_key;
use crate::part::Part;
use crate::stored::{decode_bytes, encode};
use crate::{Author, ListQuery, Registry, RegistryError};
use reddwarf_objects::admission::pod_security::{Policy, Template, warnings_of_existing};
use reddwarf_objects::admission::{self, Surroundings};
use reddwarf_objects::{Kind, Object, ObjectKey, kinds};
use reddwarf_store::{Expect, Revision, Transaction, Write};
use std::sync::Arc;

impl Registry {
    /// What is around a new object. Empty for what a file declares: that is what the file says.
    pub(crate) fn around(&self, author: &Author, kind: &Kind, object: &Object) -> Result<Surroundings, RegistryError> {
        let mut around = Surroundings::default();
        if matches!(author, Author::File(_)) {
            return Ok(around);
        }
        let namespace = object.namespace().unwrap_or("default");
        around.pod_security = self.levels(author, kind, Part::Main, object)?;
        match (kind.group, kind.kind) {
            ("", "Pod") => {
                around.service_account = self.account(namespace, admission::service_account_of(object))?;
                around.limit_ranges = self.all("", "limitranges", Some(namespace))?;
                around.priority_classes = self.priority_classes()?;
                if let Some(class) = object.get_str("/spec/runtimeClassName").filter(|name| !name.is_empty()) {
                    around.runtime_class = self.find(&key("node.k8s.io", "runtimeclasses", None, class))?;
                }
            }
            ("", "PersistentVolumeClaim") => {
                around.limit_ranges = self.all("", "limitranges", Some(namespace))?;
                around.storage_classes = self.all("storage.k8s.io", "storageclasses", None)?;
            }
            ("scheduling.k8s.io", "PriorityClass") => {
                around.priority_classes = self.priority_classes()?;
            }
            ("networking.k8s.io", "Ingress") => {
                around.ingress_classes = self.all("networking.k8s.io", "ingressclasses", None)?;
            }
            _ => {}
        }
        Ok(around)
    }

    /// The levels that a write of pods, or of what makes them, is held to. Not to any are what files declare, and parts that say
    /// nothing of how pods run.
    pub(crate) fn levels(
        &self,
        author: &Author,
        kind: &Kind,
        part: Part,
        object: &Object,
    ) -> Result<Policy, RegistryError> {
        let concerns = matches!(part, Part::Main | Part::EphemeralContainers | Part::Resize);
        if !concerns || matches!(author, Author::File(_)) || Template::of(kind, object).is_none() {
            return Ok(Policy::default());
        }
        self.pod_security(object.namespace().unwrap_or("default"))
    }

    /// What becomes of pods in a namespace.
    pub(crate) fn pod_security(&self, namespace: &str) -> Result<Policy, RegistryError> {
        self.inner.policies.get(self, namespace, || {
            Ok(self.find(&namespace_key(namespace))?.as_ref().map(Policy::of).unwrap_or_default())
        })
    }

    /// What is to be said of the pods in a namespace when it is changed.
    pub(crate) fn beyond_new_levels(
        &self,
        kind: &Kind,
        part: Part,
        old: &Object,
        new: &Object,
    ) -> Result<Vec<String>, RegistryError> {
        if !kind.is_core("Namespace") || part != Part::Main {
            return Ok(Vec::new());
        }
        let Some(enforce) = Policy::tightened(old, new) else { return Ok(Vec::new()) };
        let Some(pods) = kinds().by_group_resource("", "pods") else { return Ok(Vec::new()) };
        Ok(warnings_of_existing(new.name(), enforce, pods, &self.all("", "pods", Some(new.name()))?))
    }

    /// Refuses changes that the objects around don't allow: to enlarge a claim whose class does not let it grow, and a second default
    /// among PriorityClasses. What files declare is not held to that: their claims wait, and say why.
    pub(crate) fn check_change(
        &self,
        author: &Author,
        kind: &Kind,
        part: Part,
        old: &Object,
        new: &Object,
    ) -> Result<(), RegistryError> {
        if part != Part::Main || matches!(author, Author::File(_)) {
            return Ok(());
        }
        let verdict = match (kind.group, kind.kind) {
            ("", "PersistentVolumeClaim") => {
                let Some(class) = admission::class_to_grow(old, new) else { return Ok(()) };
                let class = match class {
                    "" => None,
                    class => self.find(&key("storage.k8s.io", "storageclasses", None, class))?,
                };
                admission::check_growth(old, new, class.as_ref())
            }
            ("scheduling.k8s.io", "PriorityClass") => admission::check_default(new, &self.priority_classes()?),
            _ => Ok(()),
        };
        verdict.map_err(|refusal| refused(kind, new, refusal))
    }

    /// The service account that a pod runs as.
    pub(crate) fn account(&self, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, RegistryError> {
        self.inner.accounts.get(self, &format!("{namespace}/{name}"), || {
            Ok(self.find(&key("", "serviceaccounts", Some(namespace), name))?.map(Arc::new))
        })
    }

    /// All priority classes: every pod asks for them.
    fn priority_classes(&self) -> Result<Arc<[Object]>, RegistryError> {
        self.inner.priorities.get(self, "", || Ok(self.all("scheduling.k8s.io", "priorityclasses", None)?.into()))
    }

    /// Charges an object that is new, or larger than `before`, to the quotas of its namespace, in the transaction that stores it: a
    /// quota that changes in between makes that conflict. What else the transaction writes counts as if it were there.
    pub(crate) fn charge(
        &self,
        kind: &'static Kind,
        before: Option<&Object>,
        object: &Object,
        transaction: &mut Transaction,
    ) -> Result<(), RegistryError> {
        let Some(namespace) = object.namespace().filter(|_| kind.namespaced) else { return Ok(()) };
        let Some(of_quotas) = kinds().by_group_resource("", "resourcequotas") else { return Ok(()) };
        let mut quotas = self.all("", "resourcequotas", Some(namespace))?;
        // A quota is not charged to itself.
        let itself = (kind.group_resource() == of_quotas.group_resource()).then(|| object.name());
        self.as_written_by(transaction, of_quotas, namespace, itself, &mut quotas)?;
        if quotas.is_empty() {
            return Ok(());
        }
        let charges = match admission::charge(kind, before, object, &quotas, None) {
            Ok(charges) => charges,
            // What the quotas remember may be gone by now: count what is there.
            Err(_) => {
                let mut there = self.list(&ListQuery::all(kind).in_namespace(namespace))?.items;
                self.as_written_by(transaction, kind, namespace, Some(object.name()), &mut there)?;
                admission::charge(kind, before, object, &quotas, Some(&there))
                    .map_err(|refusal| refused(kind, object, refusal))?
            }
        };
        for charge in charges {
            let Some(quota) = quotas.get(charge.index) else { continue };
            let mut charged = quota.clone();
            charged.set_resource_version(None);
            charged.set_status(Some(charge.status));
            let at = store_key(&quota.key(of_quotas))?;
            let bytes = encode(&charged);
            if let Some((_, write)) = transaction.writes.iter_mut().find(|(key, _)| *key == at) {
                *write = Write::Put(bytes);
            } else if let Some(revision) = quota.resource_version() {
                transaction.expect.push((at.clone(), Expect::AtRevision(Revision(revision))));
                transaction.writes.push((at, Write::Put(bytes)));
            }
        }
        Ok(())
    }

    /// What is in a namespace, as it is once the transaction is carried out, but for the object called `except`.
    fn as_written_by(
        &self,
        transaction: &Transaction,
        kind: &Kind,
        namespace: &str,
        except: Option<&str>,
        there: &mut Vec<Object>,
    ) -> Result<(), RegistryError> {
        let prefix = kind_prefix(kind, Some(namespace));
        for (key, write) in &transaction.writes {
            let Some(name) = key.as_str().strip_prefix(&prefix).filter(|name| Some(*name) != except) else { continue };
            let found = there.iter().position(|object| object.name() == name);
            match (write, found) {
                (Write::Delete, Some(at)) => drop(there.remove(at)),
                (Write::Delete, None) => {}
                (Write::Put(bytes), found) => {
                    let object = decode_bytes(key.as_str(), bytes, self.revision())?;
                    match found.and_then(|at| there.get_mut(at)) {
                        Some(old) => *old = object,
                        None => there.push(object),
                    }
                }
            }
        }
        Ok(())
    }

    fn all(&self, group: &str, resource: &str, namespace: Option<&str>) -> Result<Vec<Object>, RegistryError> {
        let Some(kind) = kinds().by_group_resource(group, resource) else { return Ok(Vec::new()) };
        // Most often there are none, and the store knows that without reading.
        if self.inner.store.count(&kind_prefix(kind, namespace))? == 0 {
            return Ok(Vec::new());
        }
        let query = ListQuery::all(kind);
        let query = namespace.map_or(query.clone(), |namespace| query.in_namespace(namespace));
        Ok(self.list(&query)?.items)
    }
}

/// The refusal of an object.
pub(crate) fn refused(kind: &Kind, object: &Object, refusal: admission::Refusal) -> RegistryError {
    RegistryError::Forbidden { key: object.key(kind), message: refusal.0 }
}

fn key(group: &str, resource: &str, namespace: Option<&str>, name: &str) -> ObjectKey {
    ObjectKey {
        group: group.to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
    }
}
