//! When a Secret's token was used last: a label of the Secret, as in the reference. Requests only note it; a task of the API writes it, so that
//! nobody waits for the store to be known.

use chrono::{DateTime, TimeDelta, Utc};
use reddwarf_objects::{Object, ObjectKey};
use reddwarf_registry::{Author, Part, Patch, Registry, RegistryError, WriteOptions};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// Label: the day of the last use, `2026-11-22`.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// Label: the token is not believed since that day.
pub(crate) const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Secrets that may wait for their label. One that finds no room is noted at a later use.
const WAITING: usize = 1024;
/// Who writes it in the reference.
const MANAGER: &str = "kube-apiserver";

/// Secrets whose label is out of date.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    /// With their uids.
    noted: Mutex<BTreeMap<ObjectKey, String>>,
    wake: Notify,
}

impl Uses {
    /// A token was shown that this Secret has. Written at most once a day; never waits.
    pub(crate) fn note(&self, key: ObjectKey, secret: &Object, now: DateTime<Utc>) {
        // A clock that was ahead may have written tomorrow's day.
        let known =
            secret.label(LAST_USED).is_some_and(|last| last == day(now) || last == day(now + TimeDelta::days(1)));
        if known {
            return;
        }
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < WAITING {
            noted.insert(key, secret.uid().unwrap_or_default().to_owned());
            self.wake.notify_one();
        }
    }

    /// Returns when there is something to write.
    pub(crate) async fn noted(&self) {
        self.wake.notified().await;
    }

    /// Writes what was noted. What can't be written is noted again at a later use.
    pub(crate) async fn write(&self, registry: &Registry) {
        let noted = std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner));
        // Files come first: who sets the label in a file keeps it.
        let author = Author::Api { user: "system:apiserver".to_owned() };
        let options = WriteOptions { manager: Some(MANAGER.to_owned()), ..WriteOptions::default() };
        for (key, uid) in noted {
            let patch = json!({"metadata": {"uid": uid, "labels": {LAST_USED: day(registry.now())}}});
            match registry.patch(&author, &key, Part::Main, Patch::Merge(patch), &options).await {
                Ok(_) | Err(RegistryError::NotFound(_)) => {}
                Err(error) => tracing::debug!(%error, "the last use of a Secret's token is not on record"),
            }
        }
    }
}

fn day(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use reddwarf_objects::kinds;

    #[test]
    fn a_use_is_noted_once_a_day() {
        let kind = kinds().by_gvk("v1", "Secret").unwrap();
        let now = "2026-11-22T23:30:00Z".parse().unwrap();
        let noted = |label: Option<&str>| {
            let mut secret = Object::new(kind, Some("a"), "t");
            if let Some(label) = label {
                secret.set("/metadata/labels", json!({LAST_USED: label}));
            }
            let uses = Uses::default();
            uses.note(secret.key(kind), &secret, now);
            let noted = uses.noted.lock().unwrap();
            noted.len() == 1
        };
        assert!(noted(None) && noted(Some("2026-11-21")) && noted(Some("never")));
        assert!(!noted(Some("2026-11-22")) && !noted(Some("2026-11-23")));
    }
}
