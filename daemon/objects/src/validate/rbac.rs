//! Rules of roles and bindings.

use super::{
    at::{At, Errors},
    rules,
};
use crate::{kind::Kind, names};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn check(kind: &Kind, object: &At<'_, '_>, errors: &mut Errors) {
    if matches!(kind.kind, "Role" | "ClusterRole") {
        for rule in object.child("rules").items() {
            check_rule(&rule, kind.namespaced, errors);
        }
        if let Some(aggregation) = object.given("aggregationRule") {
            let selectors = aggregation.child("clusterRoleSelectors");
            if selectors.list().is_empty() {
                let message = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                selectors.required(errors, message);
            }
            for selector in selectors.items() {
                rules::label_selector(&selector, errors);
            }
        }
    } else {
        check_binding(kind, object, errors);
    }
}

fn check_rule(rule: &At<'_, '_>, namespaced: bool, errors: &mut Errors) {
    if !rule.filled("verbs") {
        rule.child("verbs").required(errors, "verbs must contain at least one value");
    }
    let urls = rule.child("nonResourceURLs");
    if !urls.list().is_empty() {
        if namespaced {
            urls.invalid(errors, "namespaced rules cannot apply to non-resource URLs");
        }
        if ["apiGroups", "resources", "resourceNames"].iter().any(|field| rule.filled(field)) {
            urls.invalid(errors, "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if !rule.filled("apiGroups") {
        rule.child("apiGroups").required(errors, "resource rules must supply at least one api group");
    }
    if !rule.filled("resources") {
        rule.child("resources").required(errors, "resource rules must supply at least one resource");
    }
}

fn check_binding(kind: &Kind, binding: &At<'_, '_>, errors: &mut Errors) {
    let role = binding.child("roleRef");
    let group = role.text("apiGroup");
    if group != GROUP {
        role.child("apiGroup").not_supported(errors, group, &[GROUP]);
    }
    let kinds: &[&str] = if kind.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.text("kind")) {
        role.child("kind").not_supported(errors, role.text("kind"), kinds);
    }
    role.require_name(errors, "name", names::path_segment);
    for subject in binding.child("subjects").items() {
        check_subject(&subject, kind.namespaced, errors);
    }
}

fn check_subject(subject: &At<'_, '_>, namespaced: bool, errors: &mut Errors) {
    let (name, group) = (subject.text("name"), subject.text("apiGroup"));
    subject.require(errors, "name");
    match subject.text("kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                subject.child("name").check_text(errors, names::dns1123_subdomain);
            }
            if !group.is_empty() {
                subject.child("apiGroup").not_supported(errors, group, &[""]);
            }
            if !namespaced && subject.text("namespace").is_empty() {
                subject.child("namespace").required(errors, "");
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                subject.child("apiGroup").not_supported(errors, group, &[GROUP]);
            }
        }
        other => {
            let kinds = ["ServiceAccount", "User", "Group"];
            subject.child("kind").not_supported(errors, other, &kinds);
        }
    }
}
