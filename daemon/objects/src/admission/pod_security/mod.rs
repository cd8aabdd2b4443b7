//! Pod Security: which pods a namespace takes, by its labels `pod-security.kubernetes.io/{enforce,warn,audit}[-version]`.
//!
//! | file | what |
//! |---|---|
//! | `policy.rs` | labels: levels, versions, what is wrong with them |
//! | `template.rs` | a pod, or what pods are made from, as the checks see it |
//! | `checks.rs` | the table of checks: since which version, of which level, instead of which |
//! | `baseline.rs` `restricted.rs` | the checks themselves |
//! | `existing.rs` | the pods that are in a namespace whose labels change |
//!
//! Levels, texts and order are those of `k8s.io/pod-security-admission` 1.36 and of
//! <https://kubernetes.io/docs/concepts/security/pod-security-standards/>.

mod baseline;
mod checks;
mod existing;
mod policy;
mod restricted;
mod template;

pub use checks::{Violation, violations};
pub use existing::warnings_of_existing;
pub use policy::{Level, Policy, Profile, Version, check_labels};
pub use template::Template;

use super::Refusal;
use crate::{kind::Kind, object::Object};

/// Keys of an audit event's annotations.
const ENFORCED: &str = "pod-security.kubernetes.io/enforce-policy";
const VIOLATIONS: &str = "pod-security.kubernetes.io/audit-violations";

/// What a namespace's levels say to a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Review {
    /// It is not let in.
    pub refusal: Option<Refusal>,
    /// For who writes.
    pub warnings: Vec<String>,
    /// For the audit log: key and value.
    pub notes: Vec<(&'static str, String)>,
}

/// Holds a new or changed object against the levels of its namespace. Of what makes pods nothing is enforced, as its pods will be
/// looked at; a pod is looked at again only when a container comes or runs another image.
pub fn review(policy: &Policy, kind: &Kind, old: Option<&Object>, new: &Object) -> Review {
    let mut review = Review::default();
    let Some(template) = Template::of(kind, new).filter(|_| !policy.is_privileged()) else { return review };
    let is_pod = kind.is_core("Pod");
    if is_pod && old.is_some_and(|old| !is_significant(old, new)) {
        return review;
    }
    if is_pod {
        review.notes.push((ENFORCED, policy.enforce.to_string()));
        review.refusal = violated(policy.enforce, template, "violates").map(Refusal);
    }
    if let Some(text) = violated(policy.audit, template, "would violate") {
        review.notes.push((VIOLATIONS, text));
    }
    if review.refusal.is_none() {
        review.warnings.extend(violated(policy.warn, template, "would violate"));
    }
    review
}

/// What is to be said of an object that the namespace's levels do not refuse whatever it is: one that a file declares.
pub fn warning(policy: &Policy, kind: &Kind, object: &Object) -> Option<String> {
    violated(policy.warn, Template::of(kind, object)?, "would violate")
}

fn violated(profile: Profile, template: Template<'_>, verb: &str) -> Option<String> {
    let found = violations(profile, template);
    if found.is_empty() {
        return None;
    }
    let details: Vec<String> = found.iter().map(ToString::to_string).collect();
    Some(format!("{verb} PodSecurity \"{profile}\": {}", details.join(", ")))
}

/// Does an update change what the checks look at? Of a pod that is there, a client can change images and add ephemeral containers.
fn is_significant(old: &Object, new: &Object) -> bool {
    let (Some(before), Some(after)) = (old.spec(), new.spec()) else { return true };
    let same_images = ["containers", "initContainers"].into_iter().all(|list| {
        let (before, after) = (template::items(before, list), template::items(after, list));
        before.len() == after.len() && before.iter().zip(after).all(|(b, a)| b.get("image") == a.get("image"))
    });
    let there = template::items(before, "ephemeralContainers");
    let same_guests = template::items(after, "ephemeralContainers").iter().all(|guest| {
        let known = there.iter().find(|known| known.get("name") == guest.get("name"));
        known.is_some_and(|known| known.get("image") == guest.get("image"))
    });
    !same_images || !same_guests
}

#[cfg(test)]
mod tests;
