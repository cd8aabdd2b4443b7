//! Services and network policies on this host: follows the objects, keeps the one table that they make, has the host apply it.
//!
//! Level-triggered: whatever happened, the table of now is asked for. While the host is at work changes gather, so that many
//! of them cost one transaction.

use chrono::{DateTime, Utc};
use reddwarf_host::service::{Listener, Place, ServiceTable};
use reddwarf_host::time::leisurely;
use reddwarf_host::{Change, Host, HostEvent};
use reddwarf_network::services::{Cluster, Finding, Subject, TableSettings, table};
use reddwarf_objects::object::timestamp;
use reddwarf_objects::{Object, ObjectKey, kinds};
use reddwarf_registry::{Author, EventTarget, EventType, FollowAll, Followed, Registry, RegistryError, WatchError};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::Instant;

/// The table is asked for anew this often, whatever happened: then what others did is found at the latest.
const RESYNC: Duration = Duration::from_secs(30);
/// After others changed the rule set it is looked at this often at most.
const LOOKS_APART: Duration = Duration::from_millis(300);
/// Waits after a failure: the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The condition of services, and of pods with a hostPort, whose ports are somebody else's: False, with the reason.
const PORTS: &str = "reddwarf.io/PortsAvailable";
/// Findings that are remembered as said.
const SAID: usize = 4096;

/// What the task needs.
pub struct ServicesDeps {
    /// Objects.
    pub registry: Registry,
    /// Who applies the table.
    pub host: Arc<dyn Host>,
    /// What the table needs besides objects.
    pub settings: TableSettings,
}

/// Why everything has to be listed anew.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("objects can't be listed: {0}")]
    List(#[from] RegistryError),
    #[error("the watch broke: {0}")]
    Watch(#[from] WatchError),
}

/// Runs until the future is dropped. What is applied stays: connections outlive the daemon.
pub async fn run(deps: ServicesDeps) {
    let mut task = Task { deps, said: BTreeSet::new(), failure: String::new() };
    loop {
        let Err(error) = task.round().await;
        tracing::warn!(%error, "services are listed anew");
        tokio::time::sleep(BACKOFF.0).await;
    }
}

/// What the table follows from, and who bears our condition.
#[derive(Default)]
struct Seen {
    cluster: Cluster,
    /// Services (false) and pods (true) whose status says that a port of theirs is another's.
    marked: BTreeSet<Target>,
}

/// Is it a pod, its namespace and name.
type Target = (bool, (String, String));

struct Task {
    deps: ServicesDeps,
    /// Findings that were said already.
    said: BTreeSet<Finding>,
    /// The failure that was said last.
    failure: String,
}

impl Task {
    /// Lists everything, then follows it until that breaks.
    async fn round(&mut self) -> Result<std::convert::Infallible, Broken> {
        let mut events = self.deps.host.events();
        let mut seen = Seen::default();
        let mut follow = self.deps.registry.follow_all(&mut |followed| {
            seen.take(&followed);
        })?;
        let mut due = Instant::now();
        let mut backoff = BACKOFF.0;
        let mut looked = Instant::now();
        loop {
            if due <= Instant::now() {
                drain(&mut follow, &mut seen)?;
                looked = Instant::now();
                due = match self.apply(&seen).await {
                    true => {
                        backoff = BACKOFF.0;
                        Instant::now() + leisurely(RESYNC)
                    }
                    false => {
                        backoff = (backoff * 2).min(BACKOFF.1);
                        Instant::now() + backoff
                    }
                };
            }
            // Each branch only receives: what is not taken stays where it is.
            tokio::select! {
                followed = follow.next() => {
                    if seen.take(&followed?) {
                        due = Instant::now();
                    }
                }
                event = events.recv() => match event {
                    Ok(HostEvent::Network | HostEvent::Everything) | Err(broadcast::error::RecvError::Lagged(_)) => {
                        due = due.min(looked + LOOKS_APART).max(Instant::now());
                    }
                    Ok(_) => {}
                    // The host is going, and this task with it.
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                },
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    /// Has the host apply the table; false when it has to be tried again.
    async fn apply(&mut self, seen: &Seen) -> bool {
        let (table, mut findings) = table(&seen.cluster, &self.deps.settings);
        let began = Instant::now();
        match self.deps.host.services_ensure(&table).await {
            Ok(Change::Unchanged) => {}
            Ok(Change::Changed(what)) => {
                tracing::debug!(what, milliseconds = began.elapsed().as_millis(), "services applied");
            }
            Err(error) => {
                self.say_failure(error.chain()).await;
                return false;
            }
        }
        self.failure.clear();
        findings.extend(self.clashes(&table).await);
        self.mark(seen, &findings).await;
        self.say(findings).await;
        true
    }

    /// The condition [`PORTS`] of those whose ports are another's, and of those whose are not any more.
    async fn mark(&self, seen: &Seen, findings: &[Finding]) {
        let mut wanted: BTreeMap<Target, (&'static str, Vec<&str>)> = BTreeMap::new();
        for finding in findings.iter().take(SAID) {
            let (_, messages) =
                wanted.entry((finding.pod, finding.about.clone())).or_insert((finding.reason, Vec::new()));
            messages.push(&finding.message);
        }
        let over = seen.marked.iter().filter(|target| !wanted.contains_key(*target));
        for target in over {
            self.set_condition(target, true, "PortsAvailable", "").await;
        }
        for (target, (reason, messages)) in &wanted {
            self.set_condition(target, false, reason, &messages.join("; ")).await;
        }
    }

    async fn set_condition(&self, (pod, (namespace, name)): &Target, fine: bool, reason: &str, message: &str) {
        let resource = if *pod { "pods" } else { "services" };
        let key = ObjectKey {
            group: String::new(),
            resource: resource.to_owned(),
            namespace: Some(namespace.clone()),
            name: name.clone(),
        };
        let now = self.deps.registry.now();
        let write = |live: &mut Object| {
            let wanted = json!({"type": PORTS, "status": if fine { "True" } else { "False" }, "reason": reason, "message": message});
            let list = live.get("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
            live.set("/status/conditions", with_condition(list, wanted, now));
        };
        let author = Author::System("services");
        match self.deps.registry.modify_status(&author, &key, write).await {
            Ok(_) | Err(RegistryError::NotFound(_)) => {}
            Err(error) => tracing::debug!(%error, "a condition could not be written"),
        }
    }

    /// Ports of the host that both a service and a program of its own want.
    async fn clashes(&self, table: &ServiceTable) -> Vec<Finding> {
        let wanted = || table.frontends.iter().filter(|(f, _)| !matches!(f.place, Place::Address(_)));
        if wanted().next().is_none() {
            return Vec::new();
        }
        let Ok(listeners) = self.deps.host.listeners().await else { return Vec::new() };
        let held = wanted().filter(|(f, _)| listeners.contains(&Listener { protocol: f.protocol, port: f.port }));
        let finding = held.filter_map(|(frontend, backends)| {
            let (namespace, rest) = backends.name.split_once('/')?;
            let (name, pod) = match rest.strip_suffix(" (hostPort)") {
                Some(name) => (name, true),
                None => (rest.split(':').next().unwrap_or(rest), false),
            };
            let message = format!(
                "a program of this host listens on port {}/{} too: connections from elsewhere reach {} instead of it",
                frontend.port,
                frontend.protocol.as_str(),
                backends.name
            );
            Some(Finding { pod, about: (namespace.to_owned(), name.to_owned()), reason: "PortClash", message })
        });
        finding.collect()
    }

    /// Each finding is said once, as an event of the object that it is about.
    async fn say(&mut self, findings: Vec<Finding>) {
        let findings: BTreeSet<Finding> = findings.into_iter().take(SAID).collect();
        let new: Vec<Finding> = findings.difference(&self.said).cloned().collect();
        self.said = findings;
        for finding in new {
            let Some(kind) = kinds().by_gvk("v1", if finding.pod { "Pod" } else { "Service" }) else { continue };
            let (namespace, name) = finding.about;
            let key =
                ObjectKey { group: String::new(), resource: kind.plural.to_owned(), namespace: Some(namespace), name };
            let found = self.deps.registry.find(&key).ok().flatten();
            let target = found.as_ref().map_or_else(|| EventTarget::key(kind, &key), EventTarget::of);
            self.event(&target, finding.reason, &finding.message).await;
        }
    }

    async fn say_failure(&mut self, text: String) {
        tracing::warn!(error = text, "services could not be applied");
        if text == self.failure {
            return;
        }
        let target = EventTarget::node(&self.deps.settings.node);
        self.event(&target, "ServicesNotApplied", &text).await;
        self.failure = text;
    }

    async fn event(&self, target: &EventTarget, reason: &str, text: &str) {
        let said = self.deps.registry.record_event(target, EventType::Warning, reason, text, "services");
        if let Err(error) = said.await {
            tracing::debug!(%error, "an event could not be recorded");
        }
    }
}

/// Takes in everything committed so far.
fn drain(follow: &mut FollowAll, seen: &mut Seen) -> Result<(), WatchError> {
    while let Some(followed) = follow.try_next()? {
        seen.take(&followed);
    }
    Ok(())
}

impl Seen {
    /// Does a change matter to the table?
    fn take(&mut self, followed: &Followed) -> bool {
        let key = &followed.key;
        let Some(subject) = Subject::of(&key.group, &key.resource) else { return false };
        let name = (key.namespace.clone().unwrap_or_default(), key.name.clone());
        if matches!(subject, Subject::Service | Subject::Pod) {
            let target = (subject == Subject::Pod, name.clone());
            match followed.json.as_deref().is_some_and(is_marked) {
                true => self.marked.insert(target),
                false => self.marked.remove(&target),
            };
        }
        self.cluster.take(subject, name, followed.json.as_deref())
    }
}

/// Does the object's status say that a port of it is another's?
fn is_marked(json: &[u8]) -> bool {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Stored {
        status: Status,
    }
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Status {
        conditions: Option<Vec<Condition>>,
    }
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Condition {
        #[serde(rename = "type")]
        kind: String,
        status: String,
    }
    // Reading all of an object costs more than looking for a word that hardly any has.
    if !json.windows(PORTS.len()).any(|part| part == PORTS.as_bytes()) {
        return false;
    }
    let stored: Stored = serde_json::from_slice(json).unwrap_or_default();
    stored.status.conditions.iter().flatten().any(|c| c.kind == PORTS && c.status == "False")
}

/// The conditions with this one, which keeps its time for as long as its status does.
fn with_condition(mut list: Vec<Value>, mut wanted: Value, now: DateTime<Utc>) -> Vec<Value> {
    let place = list.iter().position(|c| c.get("type") == wanted.get("type"));
    let old = place.and_then(|at| list.get(at)).filter(|c| c.get("status") == wanted.get("status"));
    let since = old.and_then(|c| c.get("lastTransitionTime").cloned());
    wanted["lastTransitionTime"] = since.unwrap_or_else(|| json!(timestamp(now)));
    match place.and_then(|at| list.get_mut(at)) {
        Some(place) => *place = wanted,
        None => list.push(wanted),
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_and_its_neighbours() {
        let at = |second| DateTime::from_timestamp(second, 0).unwrap();
        let clash = |text: &str| json!({"type": PORTS, "status": "False", "reason": "PortClash", "message": text});
        let other = json!({"type": "Other", "status": "True"});
        let one = with_condition(vec![other.clone()], clash("a"), at(10));
        let two = with_condition(one.clone(), clash("b"), at(20));
        assert_eq!(two[0], other);
        assert_eq!((&two[1]["message"], &two[1]["lastTransitionTime"]), (&json!("b"), &json!("1970-01-01T00:00:10Z")));
        let over = with_condition(two, json!({"type": PORTS, "status": "True"}), at(30));
        assert_eq!((over.len(), &over[1]["lastTransitionTime"]), (2, &json!("1970-01-01T00:00:30Z")));
        let marked = |list: &[Value]| is_marked(json!({"status": {"conditions": list}}).to_string().as_bytes());
        assert!(marked(&one) && !marked(&over) && !is_marked(b"{}"));
    }
}
