//! Says every few seconds that the node is alive, and keeps its Node object true.

use crate::control_plane::EventText;
use crate::node_object::{NodeInput, node_object};
use crate::plan::Notice;
use crate::pressure::{self, Shortage};
use crate::run::{Shared, Work, host_facts};
use reddwarf_host::HostInfo;
use reddwarf_objects::Object;
use std::sync::Arc;
use std::time::Duration;

/// Looking at the host's pressure may take this long.
const LOOK: Duration = Duration::from_secs(20);

/// Runs until the node ends.
pub(crate) async fn beat(shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    let mut previous = None;
    let mut ticks = tokio::time::interval(shared.settings.heartbeat);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Cancel safe: a tick is taken or not.
            _ = ticks.tick() => {}
            _ = stop.changed() => return,
        }
        once(&shared, &mut previous).await;
    }
}

async fn once(shared: &Arc<Shared>, previous: &mut Option<Object>) {
    let limit = shared.settings.call_timeout;
    let info = tokio::time::timeout(limit, shared.host.info()).await;
    let (info, trouble) = match info {
        Ok(Ok(info)) => (Some(info), None),
        Ok(Err(error)) => (None, Some(error.chain())),
        Err(_) => (None, Some(format!("the host did not say what it is within {} s", limit.as_secs()))),
    };
    if let Some(info) = &info {
        take_facts(shared, info);
    }
    let seen = shared.state().observed.clone();
    let observed = match seen {
        Some(observed) => Some(observed),
        // At the start: a Node object without its zones would be written twice.
        None => Some(shared.observer.fresh().await),
    };
    let trouble = trouble.or_else(|| trouble_of(shared));
    // The heartbeat goes on whatever hangs there.
    let looked = tokio::time::timeout(limit.min(LOOK), pressure::look(shared)).await;
    let (changes, short) = looked.unwrap_or_default();
    let conditions = shared.state().memory.pressure.clone();
    if let Some(info) = info {
        let node = node_object(NodeInput {
            settings: &shared.settings,
            info: &info,
            observed: observed.as_deref(),
            trouble: trouble.as_deref(),
            pressure: &conditions,
            previous: previous.as_ref(),
            now: shared.clock.wall(),
        });
        tell(shared, &changes, &short);
        if let Some(node) = node {
            match shared.control.write_node(node.clone()).await {
                Ok(()) => *previous = Some(node),
                Err(error) => tracing::warn!(%error, "the Node object could not be written"),
            }
        }
    }
    if let Err(error) = shared.control.heartbeat(&shared.settings.node_name, shared.clock.wall()).await {
        tracing::warn!(%error, "the node's heartbeat could not be written");
    }
}

/// Events about the node's pressure.
fn tell(shared: &Shared, changes: &[pressure::Change], short: &[Shortage]) {
    if changes.is_empty() {
        return;
    }
    let name = &shared.settings.node_name;
    // By its name as the kubelet does: `kubectl describe node` looks for both.
    let node = serde_json::json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name}});
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
