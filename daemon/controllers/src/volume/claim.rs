//! One claim: its class, its volume, growing, its protection.

use super::decide::{Choice, Fit, best, fits};
use super::read::{Claim, Volume};
use super::{
    BETA_STORAGE_PROVISIONER, BIND_COMPLETED, BOUND_BY_CONTROLLER, CLAIM_PROTECTION, DEFAULT_CLASS, DRIVER, NAME,
    PROVISIONED_BY, PROVISIONER, PROVISIONER_FINALIZER, Provisioned, Provisioner, Request, STORAGE_PROVISIONER,
    VOLUME_PROTECTION, Volumes,
};
use crate::runtime::{Action, Again, Context, Events, Failure, Id};
use crate::schedule::selects_node;
use chrono::{DateTime, TimeDelta};
use reddwarf_objects::object::timestamp;
use reddwarf_objects::{Object, kinds};
use reddwarf_registry::{Author, ListQuery, RegistryError, WriteOptions};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

const US: Author = Author::System(NAME);
const FIRST_CONSUMER: &str = "waiting for first consumer to be created before binding";
const NO_CLASS: &str = "no persistent volumes available for this claim and no storage class is set";
/// The condition that says why a claim has no volume yet.
const PROVISIONED: &str = "reddwarf.io/Provisioned";
/// So often the words of one reason are written anew.
const NOTED_AGAIN: TimeDelta = TimeDelta::seconds(60);
const LOST: &str = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
const MISBOUND: &str = "Two claims are bound to the same volume, this one is bound incorrectly";

/// A storage class as claims need it.
struct Class {
    name: String,
    provisioner: String,
    /// Volumes are chosen and made once it is known where the first pod runs.
    waits: bool,
    expands: bool,
    policy: String,
    mount_options: Option<Value>,
    parameters: BTreeMap<String, String>,
}

impl Class {
    fn of(object: &Object) -> Self {
        let text = |pointer: &str| object.get_str(pointer).unwrap_or_default().to_owned();
        let parameters = object.get("/parameters").and_then(Value::as_object).into_iter().flatten();
        Self {
            name: object.name().to_owned(),
            provisioner: text("/provisioner"),
            waits: object.get_str("/volumeBindingMode") == Some("WaitForFirstConsumer"),
            expands: object.get("/allowVolumeExpansion") == Some(&Value::Bool(true)),
            policy: object.get_str("/reclaimPolicy").unwrap_or("Delete").to_owned(),
            mount_options: object.get("/mountOptions").filter(|v| v.is_array()).cloned(),
            parameters: parameters.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect(),
        }
    }
}

/// A claim and how it is written.
struct Subject<'s> {
    context: &'s Context,
    id: &'s Id,
    object: &'s Object,
    claim: Claim,
    events: Events,
}

impl Subject<'_> {
    fn uid(&self) -> Arc<str> {
        self.claim.uid.as_str().into()
    }

    async fn patch(&self, patch: Value) -> Result<(), Failure> {
        let (id, uid) = (self.id.clone(), self.uid());
        self.context.act(NAME, vec![Action::Patch { id, uid, patch }]).await
    }

    /// Keeps why it waits where it can be read when the event is long gone. `waits`: for what comes in the course of things,
    /// which is written only over another reason. A reason whose words change all the time is written now and then: every
    /// write brings the next attempt nearer.
    async fn note(&self, event: &Action, waits: bool) -> Result<Again, Failure> {
        let Action::Say(said) = event else { return Ok(Again::NEVER) };
        let before = self.object.condition(PROVISIONED);
        let reason = before.filter(|c| c["reason"] == said.reason);
        let same = reason.is_some_and(|c| c["message"] == said.message);
        if self.claim.bound || same || (waits && before.is_none()) {
            return Ok(Again::NEVER);
        }
        let now = self.context.registry.now();
        let since = reason.and_then(|c| DateTime::parse_from_rfc3339(c["lastTransitionTime"].as_str()?).ok());
        if let Some(due) = since.map(|since| since.to_utc() + NOTED_AGAIN).filter(|due| *due > now) {
            return Ok(Again::NEVER.at(due, now));
        }
        let condition = json!({"type": PROVISIONED, "status": "False", "reason": said.reason, "message": said.message,
            "lastTransitionTime": timestamp(now)});
        let key = self.id.key();
        let written = self.context.registry.modify_status(&US, &key, |live| {
            if live.uid() != Some(&self.claim.uid) {
                return;
            }
            let all = live.get("/status/conditions").and_then(Value::as_array).into_iter().flatten();
            let kept: Vec<Value> = all.filter(|c| c["type"] != PROVISIONED).cloned().collect();
            live.set("/status/conditions", Value::Array(kept.into_iter().chain([condition.clone()]).collect()));
        });
        match written.await {
            Ok(_) | Err(RegistryError::NotFound(_)) => Ok(Again::NEVER),
            Err(error) => Err(error.into()),
        }
    }

    async fn say(&self, event: Action) -> Result<(), Failure> {
        self.context.act(NAME, vec![event]).await
    }

    /// Writes a status, with the conditions that are there.
    async fn status(&self, phase: &str, volume: Option<&Object>) -> Result<bool, Failure> {
        let before = self.object.status().cloned().unwrap_or_else(|| json!({}));
        let mut status = json!({ "phase": phase });
        if let Some(volume) = volume {
            for (field, pointer) in [("accessModes", "/spec/accessModes"), ("capacity", "/spec/capacity")] {
                if let Some(value) = volume.get(pointer) {
                    status[field] = value.clone();
                }
            }
        }
        // Why it waited is over.
        let conditions = before.get("conditions").and_then(Value::as_array).into_iter().flatten();
        let conditions: Vec<&Value> = conditions.filter(|c| c["type"] != PROVISIONED).collect();
        if !conditions.is_empty() {
            status["conditions"] = json!(conditions);
        }
        if before == status {
            return Ok(false);
        }
        let action = Action::Status { id: self.id.clone(), uid: self.uid(), status };
        self.context.act(NAME, vec![action]).await?;
        Ok(true)
    }
}

impl Volumes {
    /// Says why a claim waits, once for each reason.
    async fn explain(&self, subject: &Subject<'_>, event: Action) -> Result<Again, Failure> {
        let text = match &event {
            Action::Say(said) => format!("{}: {}", said.reason, said.message),
            _ => String::new(),
        };
        let waits = text.starts_with("WaitFor");
        let again = subject.note(&event, waits).await?;
        let now = (subject.claim.uid.clone(), text);
        let before = self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(subject.id.clone(), now.clone());
        if before.as_ref() != Some(&now) {
            subject.say(event).await?;
        }
        Ok(again)
    }

    async fn warn(
        &self,
        subject: &Subject<'_>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Result<Again, Failure> {
        self.explain(subject, subject.events.warning(reason, message)).await
    }

    fn forget(&self, id: &Id) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    pub(super) async fn sync_claim(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let Some(object) = context.find(id)? else {
            self.forget(id);
            return Ok(Again::NEVER);
        };
        let (claim, events) = (Claim::of(&object), Events::about(&object));
        let subject = Subject { context, id, object: &object, claim, events };
        if object.deletion_timestamp().is_some() {
            return self.let_go(&subject).await;
        }
        let finalizers = object.finalizers();
        if !finalizers.contains(&CLAIM_PROTECTION) {
            let all: Vec<&str> = finalizers.into_iter().chain([CLAIM_PROTECTION]).collect();
            subject.patch(json!({"metadata": {"finalizers": all}})).await?;
        }
        if subject.claim.bound { self.keep(&subject).await } else { self.find_volume(subject).await }
    }

    /// A claim that is to go stays while a pod uses it. What was being made for it goes with it.
    async fn let_go(&self, subject: &Subject<'_>) -> Result<Again, Failure> {
        let Subject { context, id, object, claim, .. } = subject;
        let finalizers = object.finalizers();
        if !finalizers.contains(&CLAIM_PROTECTION) || self.users(&context.view(), id).next().is_some() {
            return Ok(Again::NEVER);
        }
        let begun = object.annotation(STORAGE_PROVISIONER) == Some(PROVISIONER) && !claim.bound;
        if let Some(provisioner) = self.provisioner.as_ref().filter(|_| begun)
            && context.find(&Id::of(self.volumes, "", &claim.own_volume()))?.is_none()
        {
            // Made, perhaps, and never shown to anybody. Unless it was, and an older store or a person has forgotten it: then
            // something is in it.
            let own = claim.own_volume();
            if !provisioner.destroy_unused(&own).await.map_err(|e| Failure::Wait(e.to_string()))? {
                let message = format!("volume {own:?} has no PersistentVolume and is not empty: its data is kept");
                subject.say(subject.events.warning("VolumeKept", message)).await?;
            }
        }
        let left = finalizers.into_iter().filter(|f| *f != CLAIM_PROTECTION);
        context.act(NAME, vec![Action::finalizers(id, &subject.uid(), left)]).await?;
        Ok(Again::NEVER)
    }

    async fn find_volume(&self, mut subject: Subject<'_>) -> Result<Again, Failure> {
        if subject.claim.class.is_none() {
            let Some(class) = self.default_class(subject.context)? else {
                return self.match_or_explain(&subject, None).await;
            };
            subject.patch(json!({"spec": {"storageClassName": class}})).await?;
            subject.claim.class = Some(class);
        }
        let class = match subject.claim.class.as_deref().filter(|name| !name.is_empty()) {
            None => None,
            Some(name) => subject.context.find(&Id::of(self.classes, "", name))?.map(|object| Class::of(&object)),
        };
        self.match_or_explain(&subject, class).await
    }

    /// The newest of those that say that they are it, as the reference has it.
    fn default_class(&self, context: &Context) -> Result<Option<String>, Failure> {
        let all = context.registry.list(&ListQuery::all(self.classes))?.items;
        let mut marked: Vec<Object> = all.into_iter().filter(|c| c.annotation(DEFAULT_CLASS) == Some("true")).collect();
        marked.sort_by(|a, b| b.creation_timestamp().cmp(&a.creation_timestamp()).then_with(|| a.name().cmp(b.name())));
        Ok(marked.first().map(|class| class.name().to_owned()))
    }

    async fn match_or_explain(&self, subject: &Subject<'_>, class: Option<Class>) -> Result<Again, Failure> {
        let Subject { context, claim, .. } = subject;
        let objects = context.registry.list(&ListQuery::all(self.volumes))?.items;
        let mut volumes: Vec<Volume> = objects.iter().map(Volume::of).collect();
        // As far as the class goes it is looked at where they are compared: another one than the claim's does not fit anyway.
        let grows = self.provisioner.is_some() && class.as_ref().is_some_and(|c| c.expands);
        volumes.iter_mut().for_each(|v| v.grows = grows && v.handle.is_some());
        if !claim.volume.is_empty() {
            return self.take_named(subject, &volumes).await;
        }
        let waits = class.as_ref().is_some_and(|c| c.waits);
        let node = self.node_of(subject);
        match (waits, &node) {
            // Only what was set aside for it.
            (true, None) => volumes.retain(|v| v.is_for(claim)),
            (true, Some(node)) => {
                let node =
                    context.view().get(&Id::new("", "Node", "", node).unwrap_or_else(|| subject.id.clone())).cloned();
                let affinity = |name: &str| {
                    objects
                        .iter()
                        .find(|o| o.name() == name)
                        .and_then(|o| o.get("/spec/nodeAffinity/required"))
                        .cloned()
                };
                let reached =
                    |name: &str| affinity(name).is_none_or(|a| node.as_ref().is_some_and(|n| selects_node(&a, n)));
                volumes.retain(|v| v.is_for(claim) || reached(&v.name));
            }
            (false, _) => {}
        }
        match best(claim, &volumes) {
            Choice::Take(volume) => return self.take(subject, volume).await,
            Choice::Withheld(volume, why) => {
                let message = format!(
                    "Cannot bind to volume {:?}, which is set aside for this claim: {}; no other one is taken or made while it is there",
                    volume.name,
                    why.text()
                );
                return self.warn(subject, "VolumeMismatch", message).await;
            }
            Choice::None => {}
        }
        match class {
            Some(_) if waits && node.is_none() => self.explain_waiting(subject).await,
            Some(class) => self.provision(subject, &class).await,
            None => match claim.class.as_deref() {
                None | Some("") => self.explain(subject, subject.events.normal("FailedBinding", NO_CLASS)).await,
                Some(name) => {
                    let message = format!("storageclass.storage.k8s.io {name:?} not found");
                    self.warn(subject, "ProvisioningFailed", message).await
                }
            },
        }
    }

    /// Where the claim's first pod runs: what the scheduler chose, or where one was put without it.
    fn node_of(&self, subject: &Subject<'_>) -> Option<String> {
        let view = subject.context.view();
        let placed = || {
            let mut users = self.users(&view, subject.id);
            users.find_map(|s| s.pod().map(|p| p.node.to_string()).filter(|node| !node.is_empty()))
        };
        subject.claim.node.clone().or_else(placed)
    }

    async fn explain_waiting(&self, subject: &Subject<'_>) -> Result<Again, Failure> {
        let pod = self.users(&subject.context.view(), subject.id).next().map(|s| s.id.name.clone());
        let event = match pod {
            None => subject.events.normal("WaitForFirstConsumer", FIRST_CONSUMER),
            Some(pod) => subject.events.normal("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
        };
        self.explain(subject, event).await
    }

    /// The claim names its volume.
    async fn take_named(&self, subject: &Subject<'_>, volumes: &[Volume]) -> Result<Again, Failure> {
        let claim = &subject.claim;
        let Some(volume) = volumes.iter().find(|v| v.name == claim.volume) else {
            let message = format!("requested volume {:?} does not exist", claim.volume);
            return self.warn(subject, "FailedBinding", message).await;
        };
        match fits(claim, volume) {
            Fit::Fits => self.take(subject, volume).await,
            Fit::Taken if volume.claim.is_none() => Ok(Again::NEVER),
            Fit::Taken => {
                let message = format!("volume {:?} already bound to a different claim.", volume.name);
                self.warn(subject, "FailedBinding", message).await
            }
            misfit => {
                let message = format!("Cannot bind to requested volume {:?}: {}", volume.name, misfit.text());
                self.warn(subject, "VolumeMismatch", message).await
            }
        }
    }

    /// Binds a volume. One that was set aside with less room than is asked for gets that first: from here on the claim relies
    /// on it.
    async fn take(&self, subject: &Subject<'_>, volume: &Volume) -> Result<Again, Failure> {
        if volume.bytes < subject.claim.bytes {
            self.enlarge(subject, volume).await?;
        }
        self.bind(subject, &volume.name).await
    }

    /// First the volume says whose it is, then the claim which it has: from any point in between this is found again.
    async fn bind(&self, subject: &Subject<'_>, volume: &str) -> Result<Again, Failure> {
        let Subject { context, claim, .. } = subject;
        let volume_key = Id::of(self.volumes, "", volume).key();
        let reference = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": claim.namespace,
            "name": claim.name, "uid": claim.uid, "resourceVersion": subject.object.resource_version().map(|v| v.to_string())});
        let written = context.registry.modify(&US, &volume_key, |live| {
            let now = Volume::of(live);
            if now.claim.is_none() {
                live.set_annotation(BOUND_BY_CONTROLLER, "yes");
            }
            // Somebody else may have been faster.
            if now.claim.is_none() || (now.is_for(claim) && now.claim.as_ref().is_some_and(|c| c.uid.is_empty())) {
                live.set("/spec/claimRef", reference.clone());
            }
        });
        let bound = match written.await {
            Ok(written) => written.object,
            Err(RegistryError::NotFound(_)) => return Err(Failure::Wait(format!("volume {volume:?} is gone"))),
            Err(error) => return Err(error.into()),
        };
        if bound.get_str("/spec/claimRef/uid") != Some(&claim.uid) {
            return Err(Failure::Wait(format!("volume {volume:?} was bound to another claim meanwhile")));
        }
        let shown = context.registry.modify_status(&US, &volume_key, |live| live.set("/status/phase", "Bound"));
        shown.await?;
        let mut annotations = json!({BIND_COMPLETED: "yes"});
        if claim.volume.is_empty() {
            annotations[BOUND_BY_CONTROLLER] = json!("yes");
        }
        subject.patch(json!({"metadata": {"annotations": annotations}, "spec": {"volumeName": volume}})).await?;
        subject.status("Bound", Some(&bound)).await?;
        self.forget(subject.id);
        Ok(Again::NEVER)
    }

    /// No volume fits: one is made, or it is said who has to make it.
    async fn provision(&self, subject: &Subject<'_>, class: &Class) -> Result<Again, Failure> {
        let provisioner = match (class.provisioner.as_str(), &self.provisioner) {
            (PROVISIONER, Some(provisioner)) => provisioner.clone(),
            (name, _) if name.starts_with("kubernetes.io/") => {
                return self
                    .warn(subject, "ProvisioningFailed", format!("no volume plugin matched name: {name}"))
                    .await;
            }
            (name, _) => return self.ask_others(subject, name).await,
        };
        if subject.claim.node.as_deref().is_some_and(|node| node != provisioner.node()) {
            return Ok(Again::NEVER);
        }
        let lacks = [
            (subject.claim.block, "block devices are not made by this provisioner: use volumeMode Filesystem"),
            (
                ["/spec/dataSource", "/spec/dataSourceRef"]
                    .iter()
                    .any(|p| subject.object.get(p).is_some_and(|v| !v.is_null())),
                "volumes are not made from data sources: use `reddwarfctl volume clone`",
            ),
            (
                subject.claim.selector.is_some(),
                "claim Selector is not supported: it chooses among volumes that are there, and none with these labels is free",
            ),
            (
                class.mount_options.as_ref().and_then(Value::as_array).is_some_and(|options| !options.is_empty()),
                "its mountOptions are not applied by this version: take them off the class",
            ),
        ];
        let failed = |why: &str| format!("failed to provision volume with StorageClass {:?}: {why}", class.name);
        if let Some((_, why)) = lacks.iter().find(|(lacks, _)| *lacks) {
            return self.warn(subject, "ProvisioningFailed", failed(why)).await;
        }
        self.note_provisioner(subject, PROVISIONER).await?;
        let claim = &subject.claim;
        let request = Request {
            name: claim.own_volume(),
            namespace: claim.namespace.clone(),
            claim: claim.name.clone(),
            uid: claim.uid.clone(),
            bytes: u64::try_from(claim.bytes).unwrap_or(0),
            parameters: class.parameters.clone(),
        };
        match provisioner.provision(&request).await {
            Ok(made) => {
                let volume = volume_object(subject, class, &request.name, &made, &*provisioner)?;
                match subject.context.registry.create(&US, volume, WriteOptions::default()).await {
                    Ok(_) | Err(RegistryError::AlreadyExists(_)) => {}
                    Err(error) => return Err(error.into()),
                }
                let message = format!("Successfully provisioned volume {}", request.name);
                subject.say(subject.events.normal("ProvisioningSucceeded", message)).await?;
                self.bind(subject, &request.name).await
            }
            Err(error) => {
                self.warn(subject, "ProvisioningFailed", failed(&error.0)).await?;
                Err(Failure::Wait(error.0))
            }
        }
    }

    async fn note_provisioner(&self, subject: &Subject<'_>, name: &str) -> Result<(), Failure> {
        if subject.object.annotation(STORAGE_PROVISIONER) == Some(name) {
            return Ok(());
        }
        let annotations = json!({STORAGE_PROVISIONER: name, BETA_STORAGE_PROVISIONER: name});
        subject.patch(json!({"metadata": {"annotations": annotations}})).await
    }

    async fn ask_others(&self, subject: &Subject<'_>, name: &str) -> Result<Again, Failure> {
        self.note_provisioner(subject, name).await?;
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{name}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        );
        self.explain(subject, subject.events.normal("ExternalProvisioning", message)).await
    }

    /// A claim that was bound stays so, or is lost.
    async fn keep(&self, subject: &Subject<'_>) -> Result<Again, Failure> {
        let Subject { context, claim, .. } = subject;
        let Some(object) = context.find(&Id::of(self.volumes, "", &claim.volume))? else {
            return self.lose(subject, "ClaimLost", LOST).await;
        };
        let volume = Volume::of(&object);
        match &volume.claim {
            None => return self.bind(subject, &volume.name).await,
            Some(of) if of.uid.is_empty() && volume.is_for(claim) => return self.bind(subject, &volume.name).await,
            Some(_) if volume.is_for(claim) => {}
            Some(_) => return self.lose(subject, "ClaimMisbound", MISBOUND).await,
        }
        if claim.bytes > volume.bytes {
            return self.grow(subject, &volume).await;
        }
        subject.status("Bound", Some(&object)).await?;
        Ok(Again::NEVER)
    }

    async fn lose(&self, subject: &Subject<'_>, reason: &'static str, message: &str) -> Result<Again, Failure> {
        if subject.status("Lost", None).await? {
            return self.warn(subject, reason, message).await;
        }
        Ok(Again::NEVER)
    }

    async fn grow(&self, subject: &Subject<'_>, volume: &Volume) -> Result<Again, Failure> {
        let class = subject.context.find(&Id::of(self.classes, "", &volume.class))?.map(|object| Class::of(&object));
        if volume.handle.is_none() || self.provisioner.is_none() {
            return Ok(Again::NEVER);
        }
        if !class.is_some_and(|class| class.expands) {
            let message = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
            return self.warn(subject, "VolumeResizeFailed", message).await;
        }
        if let Some(grown) = self.enlarge(subject, volume).await? {
            subject.status("Bound", Some(&grown)).await?;
            subject.say(subject.events.normal("VolumeResizeSuccessful", "Resize volume succeeded")).await?;
        }
        Ok(Again::NEVER)
    }

    /// Gives a volume the room that a claim asks for: the volume as it is then. `None`: it is not of this host's storage.
    async fn enlarge(&self, subject: &Subject<'_>, volume: &Volume) -> Result<Option<Object>, Failure> {
        let (Some(handle), Some(provisioner)) = (&volume.handle, &self.provisioner) else { return Ok(None) };
        if let Err(error) = provisioner.resize(handle, u64::try_from(subject.claim.bytes).unwrap_or(0)).await {
            let message = format!("resize volume {:?} failed: {error}", volume.name);
            self.warn(subject, "VolumeResizeFailed", message).await?;
            return Err(Failure::Wait(error.0));
        }
        let asked = subject.object.get("/spec/resources/requests/storage").cloned().unwrap_or(Value::Null);
        let key = Id::of(self.volumes, "", &volume.name).key();
        let written = subject.context.registry.modify(&US, &key, |live| {
            if Volume::of(live).is_for(&subject.claim) {
                live.set("/spec/capacity/storage", asked.clone());
            }
        });
        Ok(Some(written.await?.object))
    }
}

/// The object of a volume that was made for a claim.
fn volume_object(
    subject: &Subject<'_>,
    class: &Class,
    name: &str,
    made: &Provisioned,
    provisioner: &dyn Provisioner,
) -> Result<Object, Failure> {
    let claim = &subject.claim;
    let capacity = subject.object.get("/spec/resources/requests/storage").cloned().unwrap_or(Value::Null);
    let term = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [provisioner.node()]}]});
    let spec = json!({
        "capacity": {"storage": capacity},
        "accessModes": subject.object.get("/spec/accessModes").cloned().unwrap_or_else(|| json!([])),
        "claimRef": {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": claim.namespace,
            "name": claim.name, "uid": claim.uid},
        "persistentVolumeReclaimPolicy": class.policy,
        "storageClassName": class.name,
        "volumeMode": "Filesystem",
        "csi": {"driver": DRIVER, "volumeHandle": made.handle, "volumeAttributes": made.attributes},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
    });
    let value = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {
        "name": name,
        "annotations": {PROVISIONED_BY: PROVISIONER},
        "finalizers": [PROVISIONER_FINALIZER, VOLUME_PROTECTION],
    }, "spec": spec});
    debug_assert!(kinds().by_gvk("v1", "PersistentVolume").is_some());
    Object::from_value(value).map_err(|e| Failure::Wait(e.to_string()))
}
