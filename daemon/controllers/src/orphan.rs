//! Pods on nodes that are not there (Kubernetes: "Garbage collection of Pods"): nobody runs them, and nobody would ever say that
//! they have stopped.
//!
//! One that is being deleted goes: at once when its node was never there, after a while when the node has just been taken away
//! and may come back. One that is not being deleted fails and goes after that while, so that whoever manages it makes
//! another; what a file declares stays. This host's own node is left out of all this: its pods run, whatever became of its Node
//! object, which the node makes anew.

use crate::runtime::{Again, Change, Context, Controller, Failure, Id, Slim, View};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use reddwarf_objects::pod::Phase;
use reddwarf_objects::pod::set_disruption_target;
use reddwarf_objects::{Kind, kinds};
use reddwarf_registry::{Author, DeleteOptions, Preconditions, RegistryError};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

const NAME: &str = "pod-garbage-collector";
/// A node may be away for so long, as in the reference.
const PATIENCE: TimeDelta = TimeDelta::seconds(40);
/// So many nodes that are away are remembered.
const REMEMBERED: usize = 1000;

/// A node that is not there.
#[derive(Clone, Copy, Debug, Default)]
struct Away {
    /// Since when it is missed.
    since: Option<DateTime<Utc>>,
    /// It was seen to go.
    left: bool,
}

/// The controller.
#[derive(Debug)]
pub struct Orphans {
    own: String,
    pods: &'static Kind,
    nodes: &'static Kind,
    away: Mutex<BTreeMap<String, Away>>,
}

impl Orphans {
    /// `own`: this host's node; without it there is no controller.
    pub fn new(own: Option<String>) -> Option<Self> {
        let by = |kind| kinds().by_gvk("v1", kind);
        Some(Self { own: own?, pods: by("Pod")?, nodes: by("Node")?, away: Mutex::default() })
    }

    fn on<R>(&self, node: &str, change: impl FnOnce(&mut Away) -> R) -> R {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        if away.len() >= REMEMBERED && !away.contains_key(node) {
            away.clear();
        }
        change(away.entry(node.to_owned()).or_default())
    }

    /// The node of a pod, if it is missing.
    fn missing<'s>(&self, view: &View, pod: &'s Slim) -> Option<&'s str> {
        let node = pod.pod().map(|p| &*p.node).filter(|node| !node.is_empty() && *node != self.own)?;
        view.get(&Id::of(self.nodes, "", node)).is_none().then_some(node)
    }

    /// Fails the pod, for whoever counts it, and takes it away.
    async fn give_up(context: &Context, pod: &Slim) -> Result<(), RegistryError> {
        let (author, key) = (Author::System(NAME), pod.id.key());
        if pod.pod().is_some_and(|p| !matches!(p.phase, Phase::Succeeded | Phase::Failed)) {
            let now = context.now();
            let failed = context.registry.modify_status(&author, &key, |live| {
                if live.uid() != Some(&*pod.uid) {
                    return;
                }
                set_disruption_target(live, "DeletionByPodGC", "PodGC: node no longer exists", now);
                live.set("/status/phase", json!("Failed"));
            });
            failed.await?;
        }
        let preconditions = Preconditions { uid: Some(pod.uid.to_string()), ..Preconditions::default() };
        let options = DeleteOptions { grace_period_seconds: Some(0), preconditions, ..DeleteOptions::default() };
        context.registry.delete(&author, &key, &options).await.map(drop)
    }
}

#[async_trait]
impl Controller for Orphans {
    fn name(&self) -> &'static str {
        NAME
    }

    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        if slim.id.is_pod() {
            if change.after.is_some() && self.missing(view, slim).is_some() {
                add(slim.id.clone());
            }
        } else if slim.id.is("", "Node") && *slim.id.name != *self.own {
            if change.after.is_some() {
                self.away.lock().unwrap_or_else(PoisonError::into_inner).remove(&*slim.id.name);
                return;
            }
            self.on(&slim.id.name, |away| *away = Away { since: None, left: true });
            let here = |pod: &&std::sync::Arc<Slim>| pod.pod().is_some_and(|p| *p.node == *slim.id.name);
            view.list(self.pods, None).filter(here).for_each(|pod| add(pod.id.clone()));
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let Some(pod) = context.view().get(id).cloned() else { return Ok(Again::NEVER) };
        let now = context.now();
        let Some(away) = self.missing(&context.view(), &pod).map(|node| {
            self.on(node, |away| {
                away.since.get_or_insert(now);
                *away
            })
        }) else {
            return Ok(Again::NEVER);
        };
        let until = away.since.unwrap_or(now) + PATIENCE;
        let (going, waits) = (pod.deleted.is_some(), until > now);
        let done = match going {
            true if !(waits && away.left) => context.registry.finish_delete(&id.key(), &pod.uid).await.map(drop),
            false if !waits && !pod.declared => Self::give_up(context, &pod).await,
            _ if waits => return Ok(Again::NEVER.at(until, now)),
            _ => return Ok(Again::NEVER),
        };
        match done {
            Ok(()) | Err(RegistryError::NotFound(_) | RegistryError::Precondition { .. }) => Ok(Again::NEVER),
            Err(error) => Err(error.into()),
        }
    }
}
