//! Says every few seconds that the node is alive, and keeps its Node object true.

use crate::control_plane::EventText;
use crate::node_object::{NodeInput, node_object};
use crate::plan::Notice;
use crate::pressure::{self, Conditions, Shortage};
use crate::run::{Shared, Work, host_facts};
use crate::settings::StorageHealth;
use reddwarf_host::time::in_step;
use reddwarf_host::{BootTime, HostInfo, HostObservation};
use reddwarf_objects::Object;
use std::sync::Arc;
use std::time::Duration;

/// Looking at the host's pressure may take this long.
const LOOK: Duration = Duration::from_secs(20);

/// What the host says of itself (its addresses, the size of its memory) is asked anew after this long, or at once where it had no
/// address or did not answer.
const FACTS: Duration = Duration::from_secs(60);

/// Runs until the node ends.
pub(crate) async fn beat(shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    let mut beat = Beat::default();
    let mut ticks = in_step(shared.settings.heartbeat);
    loop {
        beat.once(&shared).await;
        tokio::select! {
            // Cancel safe: a tick is taken or not.
            _ = ticks.tick() => {}
            () = shared.beat_now.notified() => {}
            _ = stop.changed() => return,
        }
    }
}

/// What a Node object is made from, besides settings and what the host says of itself.
struct MadeFrom {
    observed: Arc<HostObservation>,
    trouble: Option<String>,
    pressure: Conditions,
    storage: Option<StorageHealth>,
}

/// What one heartbeat leaves for the next.
#[derive(Default)]
struct Beat {
    /// What the host said of itself last.
    info: Option<HostInfo>,
    /// When it said so; `None`: it did not answer since.
    said: Option<BootTime>,
    /// The Node object as it was written last.
    written: Option<Object>,
    /// Which version that made of the one that is stored.
    version: Option<u64>,
    /// What a Node object was made from last: of the same things the same would come.
    made_from: Option<MadeFrom>,
}

impl Beat {
    async fn once(&mut self, shared: &Arc<Shared>) {
        let trouble = self.refresh(shared).await;
        let seen = shared.state().observed.clone();
        let observed = match seen {
            Some(observed) => observed,
            // At the start: a Node object without its zones would be written twice.
            None => shared.observer.fresh().await,
        };
        let trouble = trouble.or_else(|| trouble_of(shared));
        // The heartbeat goes on whatever hangs there.
        let looked = tokio::time::timeout(shared.settings.call_timeout.min(LOOK), pressure::look(shared)).await;
        let (changes, short) = looked.unwrap_or_default();
        let (pressure, storage) = {
            let state = shared.state();
            (state.memory.pressure.clone(), state.storage.clone())
        };
        tell(shared, &changes, &short);
        self.write(shared, MadeFrom { observed, trouble, pressure, storage }).await;
        if let Err(error) = shared.control.heartbeat(&shared.settings.node_name, shared.clock.wall()).await {
            tracing::warn!(%error, "the node's heartbeat could not be written");
        }
    }

    /// Has the host say what it is, when that is due. Why it did not, if it did not.
    async fn refresh(&mut self, shared: &Shared) -> Option<String> {
        let now = shared.now();
        let has_addresses = self.info.as_ref().is_some_and(|info| !info.addresses.is_empty());
        if has_addresses && self.said.is_some_and(|said| now.since(said) < FACTS) {
            return None;
        }
        self.made_from = None;
        self.said = None;
        let limit = shared.settings.call_timeout;
        match tokio::time::timeout(limit, shared.host.info()).await {
            Ok(Ok(info)) => {
                take_facts(shared, &info);
                self.info = Some(info);
                self.said = Some(now);
                None
            }
            Ok(Err(error)) => Some(error.chain()),
            Err(_) => Some(format!("the host did not say what it is within {} s", limit.as_secs())),
        }
    }

    /// Writes the Node object if it is another one now and the host ever said what it is; also if the stored one is not as it
    /// was left: somebody may have deleted it, or restored a backup.
    async fn write(&mut self, shared: &Shared, from: MadeFrom) {
        let Some(info) = &self.info else { return };
        let same = |before: &MadeFrom| {
            let MadeFrom { observed, trouble, pressure, storage } = before;
            Arc::ptr_eq(observed, &from.observed)
                && (trouble, pressure, storage) == (&from.trouble, &from.pressure, &from.storage)
        };
        let name = &shared.settings.node_name;
        let untouched = self.version.is_some() && self.version == shared.control.node_version(name);
        if untouched && self.made_from.as_ref().is_some_and(same) {
            return;
        }
        let node = node_object(NodeInput {
            settings: &shared.settings,
            info,
            observed: Some(&from.observed),
            trouble: from.trouble.as_deref(),
            pressure: &from.pressure,
            storage: from.storage.as_ref(),
            previous: self.written.as_ref(),
            now: shared.clock.wall(),
        });
        self.made_from = Some(from);
        if let Some(node) = node.filter(|node| !untouched || self.written.as_ref() != Some(node)) {
            match shared.control.write_node(node.clone()).await {
                Ok(()) => {
                    self.written = Some(node);
                    self.version = shared.control.node_version(name);
                }
                Err(error) => {
                    self.made_from = None;
                    tracing::warn!(%error, "the Node object could not be written");
                }
            }
        }
    }
}

/// Events about the node's pressure.
fn tell(shared: &Shared, changes: &[pressure::Change], short: &[Shortage]) {
    if changes.is_empty() {
        return;
    }
    let name = &shared.settings.node_name;
    let node = serde_json::json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    let Ok(node) = Object::from_value(node).map(Arc::new) else { return };
    let event = |warning: bool, reason: &str, message: String| {
        let event = EventText { warning, reason: reason.to_owned(), message, field_path: String::new() };
        shared.event(&node, event);
    };
    for (condition, holds) in changes {
        let reason = condition.event(*holds);
        event(false, reason, format!("Node {name} status is now: {reason}"));
    }
    for shortage in short.iter().filter(|s| changes.contains(&(s.resource.condition(), true))) {
        event(true, "EvictionThresholdMet", format!("Attempting to reclaim {}", shortage.resource.name()));
    }
}

/// Takes up what the host says of itself; when pods can see the difference, they are looked at.
fn take_facts(shared: &Shared, info: &HostInfo) {
    let facts = host_facts(info, &shared.settings);
    let mut state = shared.state();
    if state.desired.host != facts {
        state.desired.host = facts;
        drop(state);
        shared.enqueue(Work::Host, shared.now());
    }
}

/// Why the node can't do its work, when it can't.
fn trouble_of(shared: &Shared) -> Option<String> {
    let state = shared.state();
    let unknown = state.observed.as_ref().and_then(|o| match &o.sandboxes {
        reddwarf_host::Observation::Known(_) => None,
        reddwarf_host::Observation::Unknown(why) => Some(format!("the host's sandboxes are not known: {why}")),
    });
    let failing = |n: &&Notice| matches!(n.reason.as_str(), "HostStepFailed" | "NetworkUnknown");
    unknown.or_else(|| state.host_notices.iter().find(failing).map(|n| n.message.clone()))
}
