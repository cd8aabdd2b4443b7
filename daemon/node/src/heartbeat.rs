//! Says every few seconds that the node is alive, and keeps its Node object true.

use crate::node_object::{NodeInput, node_object};
use crate::plan::Notice;
use crate::run::{Shared, Work, host_facts};
use reddwarf_host::HostInfo;
use reddwarf_objects::Object;
use std::sync::Arc;

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
    if let Some(info) = info {
        let node = node_object(NodeInput {
            settings: &shared.settings,
            info: &info,
            observed: observed.as_deref(),
            trouble: trouble.as_deref(),
            previous: previous.as_ref(),
            now: shared.clock.wall(),
        });
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
