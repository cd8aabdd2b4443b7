//! core/v1 Events: counted instead of repeated, combined where they are many, one hour of life, bounded in number.

mod correlate;

use crate::counters::Counting;
use crate::key::{OBJECT_PREFIX, store_key};
use crate::namespace::Home;
use crate::stored::{decode, encode};
use crate::write::transaction;
use crate::{Author, Registry, RegistryError};
use chrono::{DateTime, TimeDelta, Utc};
pub(crate) use correlate::Correlator;
use correlate::{Identity, Write as ToWrite};
use reddwarf_objects::object::timestamp;
use reddwarf_objects::{Kind, Object, ObjectKey};
use reddwarf_store::{CommitError, Key, ListOptions, Transaction, Write};
use serde_json::{Value, json};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// How serious an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// As expected.
    Normal,
    /// Something to look at.
    Warning,
}

impl EventType {
    /// As in the object's `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTarget {
    /// Its apiVersion, `v1`.
    pub api_version: String,
    /// Its kind, `Pod`.
    pub kind: String,
    /// Its namespace; `None` for cluster-wide kinds, whose events go to `default`.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its uid; empty when there is no such object (a file that declares nothing valid).
    pub uid: String,
    /// The part of it, `spec.containers{main}`; empty for the whole.
    pub field_path: String,
}

impl EventTarget {
    /// A whole object.
    pub fn of(object: &Object) -> Self {
        if object.known_kind().is_some_and(|kind| kind.is_core("Node")) {
            return Self::node(object.name());
        }
        Self {
            api_version: object.api_version().to_owned(),
            kind: object.kind().to_owned(),
            namespace: object.namespace().map(str::to_owned),
            name: object.name().to_owned(),
            uid: object.uid().unwrap_or_default().to_owned(),
            field_path: String::new(),
        }
    }

    /// A node. Its uid is its name, as in the kubelet's events: `kubectl describe node` asks for that.
    pub fn node(name: &str) -> Self {
        Self {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            namespace: None,
            name: name.to_owned(),
            uid: name.to_owned(),
            field_path: String::new(),
        }
    }

    /// A key when the object itself is not at hand.
    pub fn key(kind: &Kind, key: &ObjectKey) -> Self {
        Self {
            api_version: kind.api_version(),
            kind: kind.kind.to_owned(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: String::new(),
            field_path: String::new(),
        }
    }

    /// A container of a pod.
    #[must_use]
    pub fn container(mut self, name: &str) -> Self {
        self.field_path = format!("spec.containers{{{name}}}");
        self
    }
}

impl Registry {
    /// Records an event. The same event about the same object (type, reason, message, component) is counted up instead
    /// of stored again; many similar ones are stored as one, and who says too much is not heard (`correlate.rs`). Old ones
    /// make room.
    ///
    /// # Errors
    /// When the store can't be written. Callers log that and go on: an event is never worth failing for.
    pub async fn record_event(
        &self,
        target: &EventTarget,
        kind: EventType,
        reason: &str,
        message: &str,
        component: &str,
    ) -> Result<(), RegistryError> {
        let mut message = cut(message, MAX_MESSAGE);
        let heard = self.observe(target, &Said { kind, reason, message: &message, component });
        let Some(ToWrite { combined, times }) = heard else { return Ok(()) };
        if combined {
            message = cut(&format!("{COMBINED}{message}"), MAX_MESSAGE);
        }
        let said = Said { kind, reason, message: &message, component };
        let namespace = self.event_namespace(target)?;
        let key = ObjectKey {
            group: String::new(),
            resource: "events".to_owned(),
            namespace: Some(namespace.clone()),
            name: format!("{}.{:016x}", event_stem(&target.name), name_of(target, &said, combined)),
        };
        let at = store_key(&key)?;
        for _ in 0..EVENT_ATTEMPTS {
            let write = match self.entry(&at)? {
                Some(entry) => {
                    let counted = counted(&decode(&entry)?, &message, times, self.now());
                    transaction(&US, "").replace(at.clone(), entry.modified, encode(&counted))
                }
                None => {
                    let event = event(target, &key, &namespace, &said, times, self.now())?;
                    let write = transaction(&US, "").create(at.clone(), encode(&event));
                    self.make_room(&key, &target.name, write)?
                }
            };
            match self.commit(write).await {
                Ok(_) => {
                    self.purge_sometimes().await;
                    return Ok(());
                }
                Err(CommitError::Conflict { .. }) => Counting::add(&self.inner.counting.retries),
                Err(e) => return Err(RegistryError::Commit(e)),
            }
        }
        Err(RegistryError::Contended { key, attempts: EVENT_ATTEMPTS })
    }

    /// Removes events not seen for an hour, and the oldest above the limit. Called from the daemon's periodic pass;
    /// `record_event` does it too from time to time. Gives how many went.
    ///
    /// # Errors
    /// When the store can't be read or written.
    pub async fn purge_events(&self) -> Result<usize, RegistryError> {
        let mut all = self.events(&format!("{OBJECT_PREFIX}core/events/"))?;
        all.sort_by_key(|(seen, _)| *seen);
        let surplus = all.len().saturating_sub(MAX_EVENTS);
        let oldest = self.now() - TimeDelta::hours(EVENT_HOURS);
        let gone = all.into_iter().enumerate().filter(|(index, (seen, _))| *index < surplus || *seen < oldest);
        let mut purge = transaction(&US, "purge events");
        purge.writes = gone.map(|(_, (_, key))| (key, Write::Delete)).collect();
        let count = purge.writes.len();
        if count > 0 {
            self.commit(purge).await.map_err(RegistryError::Commit)?;
        }
        Ok(count)
    }

    fn observe(&self, target: &EventTarget, said: &Said<'_>) -> Option<ToWrite> {
        let mut heard = self.inner.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.observe(identity(target, said), self.now())
    }

    async fn purge_sometimes(&self) {
        let count = self.inner.events.fetch_add(1, Ordering::Relaxed);
        if count % PURGE_EVERY != PURGE_EVERY - 1 {
            return;
        }
        if let Err(error) = self.purge_events().await {
            tracing::warn!(%error, "old events could not be removed");
        }
    }

    /// Where an event lives: beside its object, or in `default` when that has no namespace or it is not there any more.
    fn event_namespace(&self, target: &EventTarget) -> Result<String, RegistryError> {
        match &target.namespace {
            Some(namespace) if matches!(self.namespace_home(namespace)?, Home::Open { .. }) => Ok(namespace.clone()),
            _ => Ok("default".to_owned()),
        }
    }

    /// Deletes the oldest events about the same object when there are too many.
    fn make_room(&self, key: &ObjectKey, name: &str, mut write: Transaction) -> Result<Transaction, RegistryError> {
        let namespace = key.namespace.as_deref().unwrap_or("default");
        let mut own = self.events(&format!("{OBJECT_PREFIX}core/events/{namespace}/{}.", event_stem(name)))?;
        own.sort_by_key(|(seen, _)| *seen);
        let surplus = (own.len() + 1).saturating_sub(MAX_PER_OBJECT);
        write.writes.extend(own.into_iter().take(surplus).map(|(_, key)| (key, Write::Delete)));
        Ok(write)
    }

    fn events(&self, prefix: &str) -> Result<Vec<(DateTime<Utc>, Key)>, RegistryError> {
        let page = self.page(prefix, &ListOptions::default())?;
        page.entries.iter().map(|entry| Ok((last_seen(&decode(entry)?), entry.key.clone()))).collect()
    }
}

/// When an event was last seen. Events of clients may lack `lastTimestamp`.
fn last_seen(event: &Object) -> DateTime<Utc> {
    let times = ["/lastTimestamp", "/series/lastObservedTime", "/eventTime", "/metadata/creationTimestamp"];
    times.into_iter().find_map(|pointer| event.time(pointer)).unwrap_or_default()
}

/// What an event says.
struct Said<'a> {
    kind: EventType,
    reason: &'a str,
    message: &'a str,
    component: &'a str,
}

fn event(
    target: &EventTarget,
    key: &ObjectKey,
    namespace: &str,
    said: &Said<'_>,
    times: u64,
    now: DateTime<Utc>,
) -> Result<Object, RegistryError> {
    let time = timestamp(now);
    let mut about = json!({
        "apiVersion": target.api_version,
        "kind": target.kind,
        "name": target.name,
        "namespace": target.namespace,
        "uid": target.uid,
        "fieldPath": target.field_path,
    });
    if let Some(map) = about.as_object_mut() {
        map.retain(|_, value| value.as_str().is_some_and(|text| !text.is_empty()));
    }
    let value = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": key.name,
            "namespace": namespace,
            "uid": Uuid::new_v4().to_string(),
            "creationTimestamp": time,
        },
        "involvedObject": about,
        "type": said.kind.as_str(),
        "reason": said.reason,
        "message": said.message,
        "source": {"component": said.component},
        "reportingComponent": said.component,
        "reportingInstance": "",
        "firstTimestamp": time,
        "lastTimestamp": time,
        "eventTime": null,
        "count": times,
    });
    Object::from_value(value).map_err(|e| RegistryError::BadRequest(e.to_string()))
}

fn counted(event: &Object, message: &str, times: u64, now: DateTime<Utc>) -> Object {
    let mut event = event.clone();
    let count = event.get("/count").and_then(Value::as_u64).unwrap_or(0).saturating_add(times);
    event.set("/count", count);
    // Of several that are combined the newest is told.
    event.set("/message", message);
    event.set("/lastTimestamp", timestamp(now));
    event
}

/// What makes an event the same as another one, or similar to it.
fn identity(target: &EventTarget, said: &Said<'_>) -> Identity {
    let source =
        [said.component, target.kind.as_str(), &target.uid, &target.name, target.namespace.as_deref().unwrap_or("")];
    let similar = fingerprint(source.into_iter().chain([said.kind.as_str(), said.reason]));
    Identity { source: fingerprint(source), similar, message: fingerprint([said.message]), exact: exact(target, said) }
}

/// The last part of an event's name, which is always the same for the same event.
fn name_of(target: &EventTarget, said: &Said<'_>, combined: bool) -> u64 {
    if combined { identity(target, said).similar } else { exact(target, said) }
}

fn exact(target: &EventTarget, said: &Said<'_>) -> u64 {
    fingerprint([
        target.kind.as_str(),
        &target.uid,
        &target.field_path,
        said.kind.as_str(),
        said.reason,
        said.message,
        said.component,
    ])
}

/// FNV-1a over texts, each with an end.
fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a str>) -> u64 {
    let bytes = parts.into_iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The object's name as the first part of its events' names, which must fit into a name.
fn event_stem(name: &str) -> String {
    let name: String = name
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '-' })
        .collect();
    let stem = cut(&name, 200);
    let stem = stem.trim_matches(['-', '.']);
    if stem.is_empty() { "unnamed".to_owned() } else { stem.to_owned() }
}

/// At most `max` bytes, cut between characters.
fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = (0..=max).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    text[..end].to_owned()
}

const US: Author = Author::System("events");
/// What the message of events that stand for many begins with, as in the reference.
const COMBINED: &str = "(combined from similar events): ";
/// Bytes of a message, as in the reference.
const MAX_MESSAGE: usize = 1024;
/// Hours that an event lives after it was last seen, as in the reference.
const EVENT_HOURS: i64 = 1;
/// Events kept about one object.
const MAX_PER_OBJECT: usize = 25;
/// Events kept in all.
const MAX_EVENTS: usize = 2000;
/// Every so many recorded events old ones are looked for.
const PURGE_EVERY: u64 = 200;
const EVENT_ATTEMPTS: u32 = 20;
