//! Nobody gives rights that they do not have themselves, unless they may `escalate` a role or `bind` it.

use super::Rbac;
use super::index::rules_of;
use super::rule::{Rule, summary};
use crate::access::attributes::{Attributes, ResourceTarget};
use crate::access::authorise::{Authoriser, Decision};
use crate::access::principal::{Principal, Role};
use crate::wire::error::ApiError;
use reddwarf_objects::{Kind, Object};
use serde_json::json;

/// Looks at a role or binding that somebody wants to write.
///
/// # Errors
/// 403 naming the rules.
pub(crate) fn check(
    rbac: &Rbac,
    authoriser: &dyn Authoriser,
    who: &Principal,
    kind: &Kind,
    old: Option<&Object>,
    new: &Object,
) -> Result<(), ApiError> {
    if kind.group != super::GROUP || who.role == Role::Admin {
        return Ok(());
    }
    let same = |fields: &[&str]| old.is_some_and(|old| fields.iter().all(|f| old.get(f) == new.get(f)));
    let namespace = new.namespace().unwrap_or_default();
    let may = |verb: &'static str, resource: &str, namespace: &str, name: &str| {
        let target = ResourceTarget {
            group: super::GROUP.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..ResourceTarget::default()
        };
        matches!(authoriser.decide(who, &Attributes::resource(verb, target)), Decision::Allow(_))
    };
    let given = if matches!(kind.kind, "Role" | "ClusterRole") {
        if same(&["/rules", "/aggregationRule"]) || may("escalate", kind.plural, namespace, new.name()) {
            return Ok(());
        }
        if new.get("/aggregationRule").is_some() {
            // Whatever will be labelled so is in it: as much as everything.
            vec![Rule::on(&["*"], &["*"], &["*"])]
        } else {
            rules_of(new)
        }
    } else {
        let of_cluster = new.get_str("/roleRef/kind") == Some("ClusterRole");
        let (plural, home) = if of_cluster { ("clusterroles", "") } else { ("roles", namespace) };
        let name = new.get_str("/roleRef/name").unwrap_or_default();
        if same(&["/subjects", "/roleRef"]) || may("bind", plural, namespace, name) {
            return Ok(());
        }
        let index = rbac.index()?;
        let Some(rules) = index.role(home, name) else {
            let singular = plural.trim_end_matches('s');
            let text = format!("{singular}.{} \"{name}\" not found", super::GROUP);
            return Err(ApiError::new(404, "NotFound", text)
                .with_details(json!({"name": name, "group": super::GROUP, "kind": plural})));
        };
        rules.to_vec()
    };
    let held = held(rbac, who, namespace)?;
    let missing = summary(given.iter().flat_map(|rule| rule.beyond(&held)));
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<String> = who.groups.iter().map(|g| format!("{g:?}")).collect();
    let text = format!(
        "{} \"{}\" is forbidden: user \"{}\" (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        kind.group_resource(),
        new.name(),
        who.name,
        groups.join(" "),
        missing.join("\n")
    );
    let details = json!({"name": new.name(), "group": kind.group, "kind": kind.plural});
    Err(ApiError::forbidden(text).with_details(details))
}

/// What somebody may do, as rules.
pub(crate) fn held(rbac: &Rbac, who: &Principal, namespace: &str) -> Result<Vec<Rule>, ApiError> {
    let mut rules = rbac.rules(who, namespace)?;
    match who.role {
        Role::Admin => {
            rules.push(Rule::on(&["*"], &["*"], &["*"]));
            rules.push(Rule { verbs: vec!["*".into()], urls: vec!["*".into()], ..Rule::default() });
        }
        Role::Operator => {
            let verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
            rules.push(Rule::on(&verbs, &["*"], &["*"]));
            rules.push(Rule { verbs: vec!["get".into(), "post".into()], urls: vec!["*".into()], ..Rule::default() });
        }
        Role::User => {}
    }
    Ok(rules)
}
