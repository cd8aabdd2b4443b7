//! One volume: whose it is, and what becomes of it when its claim is gone. The only place where data is destroyed.

use super::read::{Claim, Volume};
use super::{CLAIM_PROTECTION, NAME, PROVISIONER_FINALIZER, VOLUME_PROTECTION, Volumes};
use crate::runtime::{Action, Again, Context, Events, Failure, Id};
use reddwarf_objects::Object;
use serde_json::{Value, json};

/// What a volume's state and its claim's mean together. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody's.
    Available,
    /// Its claim has it, or is about to.
    Bound,
    /// Its claim was there and is gone.
    Released,
}

/// `claim`: the claim of the name that the volume says, if there is one.
pub(super) fn standing(volume: &Volume, claim: Option<&Claim>) -> Standing {
    let Some(of) = &volume.claim else { return Standing::Available };
    match claim {
        // Set aside for a claim that is not there yet.
        _ if of.uid.is_empty() => Standing::Available,
        Some(claim) if claim.uid == of.uid && (claim.volume.is_empty() || claim.volume == volume.name) => {
            Standing::Bound
        }
        _ => Standing::Released,
    }
}

impl Volumes {
    pub(super) async fn sync_volume(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let Some(object) = context.find(id)? else { return Ok(Again::NEVER) };
        let volume = Volume::of(&object);
        // Read from the store, not from the view: on this answer data is destroyed.
        let claim = match &volume.claim {
            None => None,
            Some(of) => context.find(&Id::of(self.claims, &of.namespace, &of.name))?.map(|object| Claim::of(&object)),
        };
        let standing = standing(&volume, claim.as_ref());
        let subject = Subject { context, id, object: &object, volume: &volume };
        if volume.leaving {
            return match standing {
                Standing::Bound => Ok(Again::NEVER),
                Standing::Available => subject.unprotect().await,
                Standing::Released => self.reclaim(&subject).await,
            };
        }
        subject.protect().await?;
        match standing {
            Standing::Available => subject.show("Available", "").await.map(|_| Again::NEVER),
            Standing::Bound if claim.is_some_and(|c| c.volume == volume.name) => {
                subject.show("Bound", "").await.map(|_| Again::NEVER)
            }
            // The claim is about to say so.
            Standing::Bound => Ok(Again::NEVER),
            Standing::Released => self.reclaim(&subject).await,
        }
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
        if let Err(error) = provisioner.destroy(handle).await {
            subject.fail("VolumeFailedDelete", &error.0).await?;
            return Err(Failure::Wait(error.0));
        }
        let (id, uid) = (subject.id.clone(), subject.object.uid().unwrap_or_default().into());
        subject.context.act(NAME, vec![Action::Delete { id, uid }]).await?;
        subject.unprotect().await
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
            (bound, Some(claim("u", "another")), Standing::Released),
        ] {
            assert_eq!(standing(&volume(reference.clone()), claim.as_ref()), expected, "{reference}");
        }
    }
}
