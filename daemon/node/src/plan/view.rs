//! One moment of the world, indexed by pod.

use super::memory::Memory;
use super::reservations::Reservations;
use super::step::Notice;
use crate::desired::{Desired, PodIntent};
use crate::key::PodKey;
use crate::translate::{Facts, Images};
use reddwarf_host::spec::PodIdentity;
use reddwarf_host::{HostObservation, Observation, PodUid, SandboxId, SandboxObserved};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The reason of pods that wait for the pod network.
pub const NETWORK_NOT_READY: &str = "NetworkNotReady";

/// An observation indexed by pod. Made once for an observation, shared by all plans against it.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Readable sandboxes by the pod that their mark names.
    boxes: BTreeMap<PodKey, Vec<SandboxId>>,
    /// Sandboxes of ours that could not be read, and why.
    unreadable: Vec<(SandboxId, String)>,
    /// Addresses that sandboxes on the host have, and whose they are.
    live: BTreeMap<IpAddr, PodUid>,
}

impl Index {
    /// Indexes an observation.
    pub fn of(observed: &HostObservation) -> Self {
        let mut index = Self::default();
        for (id, sandbox) in observed.sandboxes.known().into_iter().flatten() {
            match sandbox {
                Observation::Known(sandbox) => {
                    let pod = &sandbox.spec.pod;
                    index.live.extend(sandbox.spec.network.ips().into_iter().map(|ip| (ip, pod.uid.clone())));
                    index.boxes.entry(PodKey::from(pod)).or_default().push(id.clone());
                }
                Observation::Unknown(why) => index.unreadable.push((id.clone(), why.clone())),
            }
        }
        index
    }

    /// The sandboxes of `observed`, which this is the index of, whose mark names the pod.
    pub(crate) fn boxes<'o>(&self, observed: &'o HostObservation, key: &PodKey) -> Vec<&'o SandboxObserved> {
        let all = observed.sandboxes.known();
        let ids = self.boxes.get(key).into_iter().flatten();
        ids.filter_map(|id| all?.get(id)?.known()).collect()
    }
}

/// What is wanted beside what is found.
#[derive(Debug)]
pub struct View<'a> {
    pub(super) desired: &'a Desired,
    pub(super) observed: &'a HostObservation,
    pub(super) memory: &'a Memory,
    pub(super) images: Images<'a>,
    index: &'a Index,
    /// Why no address can be given: some sandbox's is not known, neither from the host nor from a promise.
    pub(super) blind: Option<Notice>,
    /// Why unwanted sandboxes are kept; `None`: they may go. Only worked out when there are any.
    kept: OnceCell<Option<Notice>>,
    /// The pod network is there, or is made before the pods' steps.
    pub(super) network: Result<(), Notice>,
}

impl<'a> View<'a> {
    /// A moment; `index` is of the same observation.
    pub fn new(
        desired: &'a Desired,
        observed: &'a HostObservation,
        index: &'a Index,
        reservations: &Reservations,
        memory: &'a Memory,
    ) -> Self {
        Self {
            desired,
            observed,
            memory,
            images: Images::new(&observed.images),
            index,
            blind: blind(&index.unreadable, reservations),
            kept: OnceCell::new(),
            network: network(desired, observed),
        }
    }

    /// Every pod that is wanted, on the host, or holds a promise.
    pub fn keys(&self, reservations: &Reservations) -> Vec<PodKey> {
        let mut keys: Vec<_> = self.desired.pods.keys().chain(self.index.boxes.keys()).cloned().collect();
        keys.extend(reservations.holders().map(|(_, h)| h.pod.clone()));
        keys.sort();
        keys.dedup();
        keys
    }

    /// The pod as it is wanted.
    pub fn intent(&self, key: &PodKey) -> Option<&'a Arc<PodIntent>> {
        self.desired.pods.get(key)
    }

    /// The sandboxes whose mark names the pod.
    pub fn boxes(&self, key: &PodKey) -> Vec<&'a SandboxObserved> {
        self.index.boxes(self.observed, key)
    }

    /// Addresses that sandboxes on the host have, and whose they are.
    pub(super) fn live(&self) -> &'a BTreeMap<IpAddr, PodUid> {
        &self.index.live
    }

    /// Why sandboxes that no object wants must stay; `None`: they may go.
    pub(super) fn kept(&self, reservations: &Reservations) -> Option<&Notice> {
        self.kept.get_or_init(|| kept(self, reservations)).as_ref()
    }

    /// How many sandboxes of ours there are.
    pub fn sandboxes(&self) -> usize {
        self.index.boxes.values().map(Vec::len).sum::<usize>() + self.index.unreadable.len()
    }

    /// Why nothing can be said about a pod's sandboxes; `None` when all is known. `uid` is any uid that a pod of this
    /// name has or had.
    pub fn unknown(&self, key: &PodKey, uid: Option<&PodUid>) -> Option<Notice> {
        if let Observation::Unknown(why) = &self.observed.sandboxes {
            return Some(Notice::new("HostUnknown", format!("the host's sandboxes are not known: {why}")));
        }
        if self.index.unreadable.is_empty() {
            return None;
        }
        // The name without its digest: an unreadable mark hides the uid, so that any namesake's sandbox counts.
        let uid = uid?.clone();
        let pod = PodIdentity { namespace: key.namespace.clone(), name: key.name.clone(), uid };
        let one = SandboxId::for_pod(&pod);
        let (id, why) = self.index.unreadable.iter().find(|(id, _)| readable_part(id) == readable_part(&one))?;
        Some(Notice::new("HostUnknown", format!("sandbox {id} could not be read: {why}")))
    }

    /// How many sandboxes no object wants although nobody was seen to delete it.
    pub(super) fn unwanted(&self) -> usize {
        self.unwanted_ids().count()
    }

    fn unwanted_ids(&self) -> impl Iterator<Item = &'a SandboxId> {
        let unwanted = self.index.boxes.iter().filter(|(key, _)| !self.desired.pods.contains_key(*key));
        unwanted.flat_map(|(_, ids)| ids).filter(|id| !self.is_dismissed(id))
    }

    fn is_dismissed(&self, id: &SandboxId) -> bool {
        let found = self.observed.sandboxes.known().and_then(|all| all.get(id)?.known());
        found.is_some_and(|sandbox| self.memory.dismissed.contains(&sandbox.spec.pod.uid))
    }

    /// The plan that this view is for makes the network before anything else.
    pub(super) fn network_is_planned(&mut self) {
        self.network = Ok(());
    }

    /// What specs are made from.
    pub(super) fn facts(&self) -> Facts<'_> {
        let Desired { pods, config, tokens, settings, host, .. } = self.desired;
        Facts { pods, config, tokens, images: &self.images, settings, host, pulls: &self.memory.pulls }
    }
}

/// The part of a sandbox name before its digest.
fn readable_part(id: &SandboxId) -> &str {
    id.as_str().rsplit_once('-').map_or(id.as_str(), |(readable, _)| readable)
}

/// Whether a sandbox may have an address that nobody knows of: it can't be read and no promise is known for it.
fn blind(unreadable: &[(SandboxId, String)], reservations: &Reservations) -> Option<Notice> {
    if unreadable.is_empty() {
        return None;
    }
    let promised = |id: &SandboxId| {
        reservations.holders().any(|(uid, holder)| {
            let PodKey { namespace, name } = holder.pod.clone();
            SandboxId::for_pod(&PodIdentity { namespace, name, uid: uid.clone() }) == *id
        })
    };
    let (id, why) = unreadable.iter().find(|(id, _)| !promised(id))?;
    let message = format!("no address is given while that of sandbox {id} is not known: {why}");
    Some(Notice::new("HostUnknown", message))
}

/// Whether sandboxes that no object wants must stay.
fn kept(view: &View<'_>, reservations: &Reservations) -> Option<Notice> {
    if !view.desired.complete {
        return Some(Notice::new("SourcesIncomplete", "kept until all sources of pods were read"));
    }
    let all: usize = view.index.boxes.values().map(Vec::len).sum();
    let found = view.observed.sandboxes.known()?;
    let uids = view.unwanted_ids().filter_map(|id| Some(&found.get(id)?.known()?.spec.pod.uid));
    let going = uids.filter(|uid| reservations.holder(uid).is_some_and(|h| !h.rebuilt)).count();
    let guard = view.desired.settings.prune_guard;
    if view.memory.allow_prune || !guard.refuses(going, all) {
        return None;
    }
    let message = format!(
        "{going} of {all} sandboxes would go, more than {} % at once; `reddwarfctl reconcile --allow-prune` lets them",
        guard.percent
    );
    Some(Notice::new("PruneRefused", message))
}

/// Whether pods can be connected.
fn network(desired: &Desired, observed: &HostObservation) -> Result<(), Notice> {
    match &observed.network {
        Observation::Known(Some(network)) if network.spec == desired.settings.network => Ok(()),
        Observation::Known(_) => Err(Notice::new(NETWORK_NOT_READY, "the pod network is being made")),
        Observation::Unknown(why) => {
            Err(Notice::new(NETWORK_NOT_READY, format!("the state of the pod network is not known: {why}")))
        }
    }
}
