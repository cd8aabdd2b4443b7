//! One moment of the world, indexed by pod.

use super::memory::Memory;
use super::reservations::Reservations;
use super::step::Notice;
use crate::desired::{Desired, PodIntent};
use crate::key::PodKey;
use crate::translate::{Facts, Images};
use reddwarf_host::spec::{PodIdentity, SandboxNetwork};
use reddwarf_host::{HostObservation, Observation, PodUid, SandboxId, SandboxObserved};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What is wanted beside what is found.
#[derive(Debug)]
pub struct View<'a> {
    pub(super) desired: &'a Desired,
    pub(super) observed: &'a HostObservation,
    pub(super) memory: &'a Memory,
    pub(super) images: Images<'a>,
    /// Readable sandboxes by the pod that their mark names.
    boxes: BTreeMap<PodKey, Vec<&'a SandboxObserved>>,
    /// Sandboxes of ours that could not be read, and why.
    unreadable: Vec<(&'a SandboxId, &'a str)>,
    /// Addresses that sandboxes on the host have.
    pub(super) live: BTreeMap<IpAddr, &'a PodUid>,
    /// Why no address can be given: some sandbox's is not known, neither from the host nor from a promise.
    pub(super) blind: Option<Notice>,
    /// Why unwanted sandboxes are kept; `None`: they may go.
    pub(super) kept: Option<Notice>,
    /// The pod network is there, or is made before the pods' steps.
    pub(super) network: Result<(), Notice>,
}

impl<'a> View<'a> {
    /// Indexes a moment.
    pub fn new(
        desired: &'a Desired,
        observed: &'a HostObservation,
        reservations: &Reservations,
        memory: &'a Memory,
    ) -> Self {
        let mut boxes: BTreeMap<PodKey, Vec<&SandboxObserved>> = BTreeMap::new();
        let mut unreadable = Vec::new();
        let mut live = BTreeMap::new();
        for (id, sandbox) in observed.sandboxes.known().into_iter().flatten() {
            match sandbox {
                Observation::Known(sandbox) => {
                    let pod = &sandbox.spec.pod;
                    if let SandboxNetwork::Pod { address, .. } = &sandbox.spec.network {
                        live.insert(address.addr(), &pod.uid);
                    }
                    boxes.entry(PodKey::from(pod)).or_default().push(sandbox);
                }
                Observation::Unknown(why) => unreadable.push((id, why.as_str())),
            }
        }
        let kept = kept(desired, &boxes, reservations, memory);
        let network = network(desired, observed);
        let images = Images::new(&observed.images);
        let blind = blind(&unreadable, reservations);
        Self { desired, observed, memory, images, boxes, unreadable, live, blind, kept, network }
    }

    /// Every pod that is wanted, on the host, or holds a promise.
    pub fn keys(&self, reservations: &Reservations) -> Vec<PodKey> {
        let mut keys: Vec<_> = self.desired.pods.keys().chain(self.boxes.keys()).cloned().collect();
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
    pub fn boxes(&self, key: &PodKey) -> &[&'a SandboxObserved] {
        self.boxes.get(key).map_or(&[], Vec::as_slice)
    }

    /// How many sandboxes of ours there are.
    pub fn sandboxes(&self) -> usize {
        self.boxes.values().map(Vec::len).sum::<usize>() + self.unreadable.len()
    }

    /// Why nothing can be said about a pod's sandboxes; `None` when all is known. `uid` is any uid that a pod of this
    /// name has or had.
    pub fn unknown(&self, key: &PodKey, uid: Option<&PodUid>) -> Option<Notice> {
        if let Observation::Unknown(why) = &self.observed.sandboxes {
            return Some(Notice::new("HostUnknown", format!("the host's sandboxes are not known: {why}")));
        }
        if self.unreadable.is_empty() {
            return None;
        }
        // The name without its digest: an unreadable mark hides the uid, so that any namesake's sandbox counts.
        let uid = uid?.clone();
        let pod = PodIdentity { namespace: key.namespace.clone(), name: key.name.clone(), uid };
        let one = SandboxId::for_pod(&pod);
        let (id, why) = self.unreadable.iter().find(|(id, _)| readable_part(id) == readable_part(&one))?;
        Some(Notice::new("HostUnknown", format!("sandbox {id} could not be read: {why}")))
    }

    /// How many sandboxes no object wants.
    pub(super) fn unwanted(&self) -> usize {
        self.boxes.iter().filter(|(key, _)| !self.desired.pods.contains_key(*key)).map(|(_, b)| b.len()).sum()
    }

    /// The plan that this view is for makes the network before anything else.
    pub(super) fn network_is_planned(&mut self) {
        self.network = Ok(());
    }

    /// What specs are made from.
    pub(super) fn facts(&self) -> Facts<'_> {
        let Desired { config, settings, host, .. } = self.desired;
        Facts { config, images: &self.images, settings, host }
    }
}

/// The part of a sandbox name before its digest.
fn readable_part(id: &SandboxId) -> &str {
    id.as_str().rsplit_once('-').map_or(id.as_str(), |(readable, _)| readable)
}

/// Whether a sandbox may have an address that nobody knows of: it can't be read and no promise is known for it.
fn blind(unreadable: &[(&SandboxId, &str)], reservations: &Reservations) -> Option<Notice> {
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
fn kept(
    desired: &Desired,
    boxes: &BTreeMap<PodKey, Vec<&SandboxObserved>>,
    reservations: &Reservations,
    memory: &Memory,
) -> Option<Notice> {
    if !desired.complete {
        return Some(Notice::new("SourcesIncomplete", "kept until all sources of pods were read"));
    }
    let all: usize = boxes.values().map(Vec::len).sum();
    let unwanted = boxes.iter().filter(|(key, _)| !desired.pods.contains_key(*key)).flat_map(|(_, b)| b);
    let going = unwanted.filter(|b| reservations.holder(&b.spec.pod.uid).is_some_and(|h| !h.rebuilt)).count();
    let guard = desired.settings.prune_guard;
    if memory.allow_prune || !guard.refuses(going, all) {
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
        Observation::Known(_) => Err(Notice::new("NetworkNotReady", "the pod network is being made")),
        Observation::Unknown(why) => {
            Err(Notice::new("NetworkNotReady", format!("the state of the pod network is not known: {why}")))
        }
    }
}
