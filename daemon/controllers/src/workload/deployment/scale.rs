//! How many pods each ReplicaSet of a Deployment is to have.

use super::revision::{DESIRED, MAX};
use super::{Deployment, Set};
use std::cmp::Reverse;

/// A ReplicaSet (by its place in the list) and its size to be.
pub(super) type Sizes = Vec<(usize, i64)>;

/// The size of the new ReplicaSet in the next step of a rolling update.
pub(super) fn new_size(deployment: &Deployment, new: i64, all: i64) -> i64 {
    if deployment.recreate || new >= deployment.replicas {
        return deployment.replicas;
    }
    let room = deployment.replicas + deployment.max_surge - all;
    new + room.clamp(0, deployment.replicas - new)
}

/// Sizes of the old ReplicaSets in the next step of a rolling update: first pods that are not available go, then others as far as
/// enough stay available.
pub(super) fn shrink_old(deployment: &Deployment, old: &[Set], new: &Set) -> Sizes {
    let mut sizes: Vec<i64> = old.iter().map(|s| s.replicas).collect();
    let all: i64 = sizes.iter().sum::<i64>() + new.replicas;
    let least = deployment.replicas - deployment.max_unavailable;
    let new_unavailable = (new.replicas - new.available).max(0);
    let mut room = all - least - new_unavailable;
    if room <= 0 {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..old.len()).collect();
    order.sort_by_key(|i| old.get(*i).and_then(|s| s.created));
    for i in &order {
        let (Some(set), Some(size)) = (old.get(*i), sizes.get_mut(*i)) else { continue };
        let go = room.min((*size - set.available).max(0));
        *size -= go;
        room -= go;
    }
    let available: i64 = old.iter().map(|s| s.available).sum::<i64>() + new.available;
    let mut surplus = (available - least).max(0);
    for i in &order {
        let Some(size) = sizes.get_mut(*i) else { continue };
        let go = surplus.min(*size);
        *size -= go;
        surplus -= go;
    }
    old.iter()
        .zip(sizes)
        .enumerate()
        .filter(|(_, (s, size))| s.replicas != *size)
        .map(|(i, (_, size))| (i, size))
        .collect()
}

/// Does the number of replicas differ from what the ReplicaSets were last scaled for?
pub(super) fn is_scaled(deployment: &Deployment, sets: &[&Set]) -> bool {
    let active = sets.iter().filter(|s| s.replicas > 0);
    active.filter_map(|s| s.annotated(DESIRED)).any(|desired| desired != deployment.replicas)
}

/// Sizes after the Deployment was scaled, possibly in the middle of a rollout: each ReplicaSet in proportion. `new` is the place of
/// the present template's.
pub(super) fn proportional(deployment: &Deployment, sets: &[Set], new: Option<usize>) -> Sizes {
    let mut active: Vec<usize> = (0..sets.len()).filter(|i| sets.get(*i).is_some_and(|s| s.replicas > 0)).collect();
    let to = |i: usize, size: i64| sets.get(i).filter(|s| s.replicas != size).map(|_| (i, size));
    let newest = || (0..sets.len()).max_by_key(|i| sets.get(*i).and_then(|s| s.created));
    match active.as_slice() {
        [] => return new.or_else(newest).and_then(|i| to(i, deployment.replicas)).into_iter().collect(),
        [one] => return to(*one, deployment.replicas).into_iter().collect(),
        _ => {}
    }
    if let Some(place) = new
        && sets.get(place).is_some_and(|s| saturated(deployment, s))
    {
        return active.into_iter().filter(|i| *i != place).filter_map(|i| to(i, 0)).collect();
    }
    if deployment.recreate {
        return Vec::new();
    }
    let size = |i: usize| sets.get(i).map_or(0, |s| s.replicas);
    let created = |i: usize| sets.get(i).and_then(|s| s.created);
    let allowed = if deployment.replicas > 0 { deployment.replicas + deployment.max_surge } else { 0 };
    let change = allowed - active.iter().map(|i| size(*i)).sum::<i64>();
    // The largest first; among equals the newest grows and the oldest shrinks.
    if change > 0 {
        active.sort_by_key(|i| (Reverse(size(*i)), Reverse(created(*i))));
    } else {
        active.sort_by_key(|i| (Reverse(size(*i)), created(*i)));
    }
    let mut given = 0;
    let mut sizes: Sizes = Vec::new();
    for i in &active {
        let left = change - given;
        let share = sets.get(*i).map_or(0, |s| share(deployment, s));
        let part = if change > 0 { share.clamp(0, left.max(0)) } else { share.clamp(left.min(0), 0) };
        given += part;
        sizes.push((*i, size(*i) + part));
    }
    if let Some((_, first)) = sizes.first_mut() {
        *first = (*first + change - given).max(0);
    }
    sizes.into_iter().filter(|(i, to)| size(*i) != *to).collect()
}

/// All its pods are there and available.
fn saturated(deployment: &Deployment, set: &Set) -> bool {
    set.replicas == deployment.replicas
        && set.annotated(DESIRED) == Some(deployment.replicas)
        && set.available == deployment.replicas
}

/// By how much a ReplicaSet grows or shrinks when its Deployment's size changes.
fn share(deployment: &Deployment, set: &Set) -> i64 {
    if deployment.replicas == 0 {
        return -set.replicas;
    }
    let to = deployment.replicas + deployment.max_surge;
    let from = set.annotated(MAX).filter(|m| *m > 0).unwrap_or(to);
    // Rounded to the nearest.
    let size = (set.replicas.saturating_mul(to) * 2 + from).div_euclid(from * 2);
    size - set.replicas
}
