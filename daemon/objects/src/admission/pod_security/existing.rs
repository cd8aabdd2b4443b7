//! The pods that are in a namespace whose labels change: they stay, and who changes the labels is told.

use super::{Profile, Template, violations};
use crate::{kind::Kind, object::Object};
use std::collections::{BTreeMap, HashSet};

/// Pods that are looked at.
const MOST: usize = 3000;

/// Which of a namespace's pods are beyond what it enforces from now on; as `EvaluatePodsInNamespace` of the reference.
pub fn warnings_of_existing(namespace: &str, enforce: Profile, kind: &Kind, pods: &[Object]) -> Vec<String> {
    // By what is wrong: the first of the pods, and how many they are.
    let mut found: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for pod in one_of_each_first(pods).take(MOST) {
        let Some(template) = Template::of(kind, pod) else { continue };
        let reasons: Vec<&str> = violations(enforce, template).iter().map(|violation| violation.reason).collect();
        if !reasons.is_empty() {
            let (first, count) = found.entry(reasons.join(", ")).or_insert((pod.name(), 0));
            *first = (*first).min(pod.name());
            *count += 1;
        }
    }
    let mut said = Vec::new();
    if pods.len() > MOST {
        let all = pods.len();
        said.push(format!(
            "new PodSecurity enforce level only checked against the first {MOST} of {all} existing pods"
        ));
    }
    if !found.is_empty() {
        said.push(format!(
            "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{enforce}\""
        ));
    }
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(reasons, (first, count))| match count {
            1 => format!("{first}: {reasons}"),
            2 => format!("{first} (and 1 other pod): {reasons}"),
            _ => format!("{first} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    lines.sort();
    said.extend(lines);
    said
}

/// Of pods of the same controller one comes first and the others last: they are likely to be alike.
fn one_of_each_first(pods: &[Object]) -> impl Iterator<Item = &Object> {
    let mut seen = HashSet::new();
    let (first, rest): (Vec<_>, Vec<_>) =
        pods.iter().partition(|pod| pod.controller().is_none_or(|controller| seen.insert(controller.uid)));
    first.into_iter().chain(rest)
}
