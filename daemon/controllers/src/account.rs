//! What every namespace has: the ServiceAccount `default`, and the ConfigMap `kube-root-ca.crt` with the authority that signs the
//! API's certificate.

use crate::runtime::{Action, Again, Change, Context, Controller, Failure, Id, View};
use async_trait::async_trait;
use reddwarf_objects::{Kind, Object, kinds};
use reddwarf_registry::RegistryError;
use serde_json::{Value, json};

/// Name of the ConfigMap.
const ROOT_CA: &str = "kube-root-ca.crt";

/// The controller.
#[derive(Debug)]
pub struct Accounts {
    namespaces: &'static Kind,
    root_ca: Option<String>,
}

impl Accounts {
    /// `root_ca`: the authority's certificate as PEM; without one there is no ConfigMap.
    pub fn new(root_ca: Option<String>) -> Option<Self> {
        Some(Self { namespaces: kinds().by_gvk("v1", "Namespace")?, root_ca })
    }

    async fn account(&self, context: &Context, namespace: &str) -> Result<(), Failure> {
        let value = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}});
        create(context, "service-account-controller", value).await
    }

    async fn authority(&self, context: &Context, namespace: &str) -> Result<(), Failure> {
        const NAME: &str = "root-ca-certificate-publisher";
        let Some(pem) = &self.root_ca else { return Ok(()) };
        let Some(id) = Id::new("", "ConfigMap", namespace, ROOT_CA) else { return Ok(()) };
        let data = json!({ "ca.crt": pem });
        match context.find(&id)? {
            Some(found)
                if found.get("/data") == Some(&data)
                    || found.annotation(reddwarf_objects::SOURCE_ANNOTATION).is_some() =>
            {
                Ok(())
            }
            Some(found) => {
                let uid = found.uid().unwrap_or_default().into();
                context.act(NAME, vec![Action::Patch { id, uid, patch: json!({ "data": data }) }]).await
            }
            None => {
                let note = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";
                let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": ROOT_CA, "namespace": namespace,
                    "annotations": {"kubernetes.io/description": note}}, "data": data});
                create(context, NAME, value).await
            }
        }
    }
}

/// Makes an object unless it is there, or its namespace goes.
async fn create(context: &Context, author: &'static str, value: Value) -> Result<(), Failure> {
    let object = Object::from_value(value).map_err(|e| Failure::Wait(e.to_string()))?;
    match context.act(author, vec![Action::Create(Box::new(object))]).await {
        Err(Failure::Registry(
            RegistryError::AlreadyExists(_) | RegistryError::Forbidden { .. } | RegistryError::NotFound(_),
        )) => Ok(()),
        other => other,
    }
}

#[async_trait]
impl Controller for Accounts {
    fn name(&self) -> &'static str {
        "serviceaccount-controller"
    }

    fn triggers(&self, _view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        if slim.id.is("", "Namespace") && change.before.is_none() {
            add(slim.id.clone());
        }
        let gone = change.after.is_none() && slim.id.is("", "ServiceAccount") && &*slim.id.name == "default";
        if gone || (slim.id.is("", "ConfigMap") && &*slim.id.name == ROOT_CA) {
            add(Id::of(self.namespaces, "", &slim.id.namespace));
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let open = context.view().get(id).is_some_and(|n| n.deleted.is_none());
        if !open {
            return Ok(Again::NEVER);
        }
        let known = Id::new("", "ServiceAccount", &id.name, "default");
        let there = known.is_some_and(|known| context.view().get(&known).is_some());
        if !there {
            self.account(context, &id.name).await?;
        }
        self.authority(context, &id.name).await?;
        Ok(Again::NEVER)
    }
}
