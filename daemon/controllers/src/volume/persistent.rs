//! One volume: whose it is, and what becomes of it when its claim is gone. The only place where data is destroyed.

use super::read::{Claim, Volume};
use super::{CLAIM_PROTECTION, NAME, PROVISIONER_FINALIZER, ProvisionError, Provisioner, VOLUME_PROTECTION, Volumes};
use crate::runtime::{Action, Again, Context, Events, Failure, Id};
use reddwarf_objects::Object;
use reddwarf_registry::ListQuery;
use serde_json::{Value, json};

/// What a volume's state and its claim's mean together. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody's.
    Available,
    /// Its claim has it, or is about to.
    Bound,
    /// Its claim is there and has another volume: this one says the same of itself, as a copied object does. It is never
    /// destroyed for that: what it stands for may be what the claim uses.
    Elsewhere,
    /// Its claim was there and is gone.
    Released,
}

/// `claim`: the claim of the name that the volume says, if there is one.
pub(super) fn standing(volume: &Volume, claim: Option<&Claim>) -> Standing {
    let Some(of) = &volume.claim else { return Standing::Available };
    match claim {
        // Set aside for a claim that is not there yet.
        _ if of.uid.is_empty() => Standing::Available,
        Some(claim) if claim.uid == of.uid => {
            if claim.volume.is_empty() || claim.volume == volume.name {
                Standing::Bound
            } else {
                Standing::Elsewhere
            }
        }
        _ => Standing::Released,
    }
}

impl Volumes {
    pub(super) async fn sync_volume(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let Some(object) = context.find(id)? else { return Ok(Again::NEVER) };
        let volume = Volume::of(&object);
        let claim = self.claim_of(context, &volume)?;
        let standing = standing(&volume, claim.as_ref());
        let subject = Subject { context, id, object: &object, volume: &volume };
        if volume.leaving {
            return match standing {
                Standing::Bound => Ok(Again::NEVER),
                Standing::Available | Standing::Elsewhere => subject.unprotect().await,
                Standing::Released => self.reclaim(&subject).await,
            };
        }
        subject.protect().await?;
        match standing {
            Standing::Available => subject.show("Available", "").await.map(|_| Again::NEVER),
            Standing::Bound if claim.as_ref().is_some_and(|c| c.volume == volume.name) => {
                subject.show("Bound", "").await.map(|_| Again::NEVER)
            }
            // The claim is about to say so.
            Standing::Bound => Ok(Again::NEVER),
            Standing::Elsewhere => {
                let has = claim.map(|c| c.volume).unwrap_or_default();
                let message = format!(
                    "its claim has the volume {has:?}, not this one: nothing is done to its data; delete this object if it is a copy"
                );
                subject.fail("VolumeMisbound", &message).await
            }
            Standing::Released => self.reclaim(&subject).await,
        }
    }

    /// The claim of the name that a volume says. Read from the store, not from the view: on this answer data is destroyed.
    fn claim_of(&self, context: &Context, volume: &Volume) -> Result<Option<Claim>, Failure> {
        let Some(of) = &volume.claim else { return Ok(None) };
        Ok(context.find(&Id::of(self.claims, &of.namespace, &of.name))?.map(|object| Claim::of(&object)))
    }

    async fn reclaim(&self, subject: &Subject<'_>) -> Result<Again, Failure> {
        let Subject { volume, .. } = subject;
        match volume.policy.as_str() {
            "Delete" => {}
            "Recycle" => {
                let message =
                    "volumes are not recycled by this version: set persistentVolumeReclaimPolicy to Retain or Delete";
                return subject.fail("VolumeFailedRecycle", message).await;
            }
            _ if volume.leaving => return subject.unprotect().await,
            _ => return subject.show("Released", "").await.map(|_| Again::NEVER),
        }
        let (Some(handle), Some(provisioner)) = (&volume.handle, &self.provisioner) else {
            if volume.leaving {
                return subject.unprotect().await;
            }
            let message = "error getting deleter volume plugin for volume: no deletable volume plugin matched";
            return subject.fail("VolumeFailedDelete", message).await;
        };
        if !volume.leaving && volume.phase != "Failed" {
            subject.show("Released", "").await?;
        }
        let wanted = match self.wanted_by(subject, handle)? {
            Some(wanted) => Ok(Some(wanted)),
            None => self.made_for(subject.context, &**provisioner, handle).await?,
        };
        match wanted {
            Ok(Some(why)) => {
                let message = format!("nothing is destroyed: {why}");
                subject.fail("VolumeFailedDelete", &message).await?;
                // Whoever takes the object away leaves the data to who has it.
                return if volume.leaving { subject.unprotect().await } else { Err(Failure::Wait(message)) };
            }
            Ok(None) => {}
            Err(error) => return subject.not_destroyed(error).await,
        }
        if let Err(error) = provisioner.destroy(handle).await {
            return subject.not_destroyed(error).await;
        }
        let (id, uid) = (subject.id.clone(), subject.object.uid().unwrap_or_default().into());
        subject.context.act(NAME, vec![Action::Delete { id, uid }]).await?;
        subject.unprotect().await
    }
}

impl Volumes {
    /// Another PersistentVolume that stands for the same data and is not to lose it, in words.
    fn wanted_by(&self, subject: &Subject<'_>, handle: &str) -> Result<Option<String>, Failure> {
        for object in subject.context.registry.list(&ListQuery::all(self.volumes))?.items {
            let other = Volume::of(&object);
            if other.name == subject.volume.name || other.handle.as_deref() != Some(handle) {
                continue;
            }
            let claim = self.claim_of(subject.context, &other)?;
            if standing(&other, claim.as_ref()) != Standing::Released || other.policy != "Delete" {
                return Ok(Some(format!("PersistentVolume {:?} has the same volumeHandle {handle:?}", other.name)));
            }
        }
        Ok(None)
    }

    /// A claim that is there and that the data was made for, whatever became of its PersistentVolume, in words.
    async fn made_for(
        &self,
        context: &Context,
        provisioner: &dyn Provisioner,
        handle: &str,
    ) -> Result<Result<Option<String>, ProvisionError>, Failure> {
        let of = match provisioner.made_for(handle).await {
            Ok(Some(of)) => of,
            Ok(None) => return Ok(Ok(None)),
            Err(error) => return Ok(Err(error)),
        };
        let claim = context.find(&Id::of(self.claims, &of.namespace, &of.name))?;
        let lives = claim.is_some_and(|claim| claim.uid() == Some(&of.uid));
        Ok(Ok(lives.then(|| format!("{handle:?} was made for claim {}/{}, which is there", of.namespace, of.name))))
    }
}

struct Subject<'s> {
    context: &'s Context,
    id: &'s Id,
    object: &'s Object,
    volume: &'s Volume,
}

impl Subject<'_> {
    /// Shows a phase; whether it was another one before.
    async fn show(&self, phase: &str, message: &str) -> Result<bool, Failure> {
        let at = |pointer: &str| self.object.get_str(pointer).unwrap_or_default();
        if at("/status/phase") == phase && at("/status/message") == message {
            return Ok(false);
        }
        let mut status = json!({ "phase": phase });
        if !message.is_empty() {
            status["message"] = Value::from(message);
        }
        let uid = self.object.uid().unwrap_or_default().into();
        self.context.act(NAME, vec![Action::Status { id: self.id.clone(), uid, status }]).await?;
        Ok(true)
    }

    async fn fail(&self, reason: &'static str, message: &str) -> Result<Again, Failure> {
        if self.show("Failed", message).await? {
            self.context.act(NAME, vec![Events::about(self.object).warning(reason, message)]).await?;
        }
        Ok(Again::NEVER)
    }

    async fn not_destroyed(&self, error: ProvisionError) -> Result<Again, Failure> {
        self.fail("VolumeFailedDelete", &error.0).await?;
        Err(Failure::Wait(error.0))
    }

    async fn protect(&self) -> Result<(), Failure> {
        let finalizers = self.object.finalizers();
        if finalizers.contains(&VOLUME_PROTECTION) {
            return Ok(());
        }
        let all: Vec<&str> = finalizers.into_iter().chain([VOLUME_PROTECTION]).collect();
        let patch = json!({"metadata": {"finalizers": all}});
        let uid = self.object.uid().unwrap_or_default().into();
        self.context.act(NAME, vec![Action::Patch { id: self.id.clone(), uid, patch }]).await
    }

    /// Lets the object go. What else holds it stays.
    async fn unprotect(&self) -> Result<Again, Failure> {
        let Some(object) = self.context.find(self.id)?.filter(|o| o.uid() == self.object.uid()) else {
            return Ok(Again::NEVER);
        };
        let ours = [VOLUME_PROTECTION, PROVISIONER_FINALIZER, CLAIM_PROTECTION];
        let finalizers = object.finalizers();
        if finalizers.iter().any(|f| ours.contains(f)) {
            let left = finalizers.into_iter().filter(|f| !ours.contains(f));
            let uid = self.object.uid().unwrap_or_default().into();
            self.context.act(NAME, vec![Action::finalizers(self.id, &uid, left)]).await?;
        }
        Ok(Again::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reddwarf_objects::Object;

    fn volume(claim: Value) -> Volume {
        let value = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": {"claimRef": claim}});
        Volume::of(&Object::from_value(value).unwrap())
    }

    fn claim(uid: &str, volume: &str) -> Claim {
        let value = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "d", "uid": uid},
            "spec": {"volumeName": volume}});
        Claim::of(&Object::from_value(value).unwrap())
    }

    #[test]
    fn a_volume_is_released_only_when_its_claim_was_there_and_is_gone() {
        let bound = json!({"namespace": "d", "name": "c", "uid": "u"});
        for (reference, claim, expected) in [
            (Value::Null, None, Standing::Available),
            (json!({"namespace": "d", "name": "c"}), None, Standing::Available),
            (json!({"namespace": "d", "name": "c"}), Some(claim("u", "")), Standing::Available),
            (bound.clone(), Some(claim("u", "v")), Standing::Bound),
            (bound.clone(), Some(claim("u", "")), Standing::Bound),
            (bound.clone(), None, Standing::Released),
            (bound.clone(), Some(claim("successor", "v")), Standing::Released),
            (bound, Some(claim("u", "another")), Standing::Elsewhere),
        ] {
            assert_eq!(standing(&volume(reference.clone()), claim.as_ref()), expected, "{reference}");
        }
    }
}
