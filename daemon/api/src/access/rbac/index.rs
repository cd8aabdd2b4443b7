//! Roles and bindings, laid out so that a user's rules are found quickly.

use super::rule::Rule;
use crate::access::principal::Principal;
use reddwarf_objects::selector::LabelSelector;
use reddwarf_objects::{Object, kinds};
use reddwarf_registry::{ListQuery, Registry, RegistryError};
use serde_json::Value;
use std::collections::HashMap;

/// Everything that RBAC knows.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// By namespace (empty for ClusterRoles) and name.
    roles: HashMap<(String, String), Vec<Rule>>,
    /// By namespace; empty for ClusterRoleBindings.
    bindings: HashMap<String, Vec<Binding>>,
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Clone, Debug)]
struct Binding {
    name: String,
    namespace: String,
    role_kind: String,
    role: String,
    subjects: Vec<Subject>,
}

#[derive(Clone, Debug)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

/// Rules that somebody has, and why.
pub(crate) struct Grant<'a> {
    pub(crate) rules: &'a [Rule],
    binding: &'a Binding,
    subject: &'a Subject,
}

impl Index {
    /// Reads all roles and bindings.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(crate) fn read(registry: &Registry) -> Result<Self, RegistryError> {
        let list = |plural: &str| match kinds().by_group_resource(super::GROUP, plural) {
            Some(kind) => registry.list(&ListQuery::all(kind)).map(|list| list.items),
            None => Ok(Vec::new()),
        };
        Ok(Self::of(
            &[list("roles")?, list("clusterroles")?].concat(),
            &[list("rolebindings")?, list("clusterrolebindings")?].concat(),
        ))
    }

    pub(crate) fn of(roles: &[Object], bindings: &[Object]) -> Self {
        let mut index = Self::default();
        for role in roles {
            let rules = all_rules_of(role, roles, DEEPEST);
            let key = (role.namespace().unwrap_or_default().to_owned(), role.name().to_owned());
            index.roles.insert(key, rules);
        }
        for binding in bindings {
            let namespace = binding.namespace().unwrap_or_default().to_owned();
            index.bindings.entry(namespace).or_default().push(Binding::of(binding));
        }
        index
    }

    /// The rules of a role; `None` when there is no such role.
    pub(crate) fn role(&self, namespace: &str, name: &str) -> Option<&[Rule]> {
        self.roles.get(&(namespace.to_owned(), name.to_owned())).map(Vec::as_slice)
    }

    /// What somebody may do in a namespace; in an empty one, in the whole cluster.
    pub(crate) fn grants<'a>(&'a self, who: &Principal, namespace: &str) -> Vec<Grant<'a>> {
        let bound = self.bound(who, namespace);
        let grant = |(binding, subject): (&'a Binding, &'a Subject)| {
            Some(Grant { rules: self.role(binding.role_namespace(), &binding.role)?, binding, subject })
        };
        bound.into_iter().filter_map(grant).collect()
    }

    /// Names the roles that bindings of somebody speak of and that are not there.
    pub(crate) fn missing_roles(&self, who: &Principal, namespace: &str) -> String {
        let missing =
            self.bound(who, namespace).into_iter().filter(|(b, _)| self.role(b.role_namespace(), &b.role).is_none());
        let texts: Vec<String> = missing
            .map(|(b, _)| format!("{}.{} \"{}\" not found", b.role_kind.to_ascii_lowercase(), super::GROUP, b.role))
            .collect();
        if texts.is_empty() { String::new() } else { format!("RBAC: {}", texts.join(", ")) }
    }

    fn bound<'a>(&'a self, who: &Principal, namespace: &str) -> Vec<(&'a Binding, &'a Subject)> {
        let own = if namespace.is_empty() { None } else { self.bindings.get(namespace) };
        let all = self.bindings.get("").into_iter().chain(own).flatten();
        all.filter_map(|b| Some((b, b.subjects.iter().find(|s| s.is(who))?))).collect()
    }
}

/// `rules` of a role. A rule that can't be read allows nothing.
pub(crate) fn rules_of(role: &Object) -> Vec<Rule> {
    let rules = role.get("/rules").and_then(Value::as_array);
    rules.into_iter().flatten().filter_map(|rule| serde_json::from_value(rule.clone()).ok()).collect()
}

/// Roles that are summed up may be sums; `admin` has what `edit` has, and that what `view` has.
const DEEPEST: usize = 4;

/// The rules of a role, those that it sums up included.
fn all_rules_of(role: &Object, roles: &[Object], depth: usize) -> Vec<Rule> {
    let mut rules = rules_of(role);
    if depth == 0 {
        return rules;
    }
    for selector in aggregated(role) {
        let chosen = roles.iter().filter(|r| r.kind() == "ClusterRole" && r.name() != role.name());
        rules.extend(chosen.filter(|r| selector.matches(r)).flat_map(|r| all_rules_of(r, roles, depth - 1)));
    }
    rules
}

/// Which other ClusterRoles' rules a ClusterRole has too.
fn aggregated(role: &Object) -> Vec<LabelSelector> {
    let selectors = role.get("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array);
    selectors.into_iter().flatten().filter_map(|selector| LabelSelector::from_value(selector).ok()).collect()
}

impl Binding {
    fn of(object: &Object) -> Self {
        let text = |pointer: &str| object.get_str(pointer).unwrap_or_default().to_owned();
        let namespace = object.namespace().unwrap_or_default().to_owned();
        let subjects = object.get("/subjects").and_then(Value::as_array);
        let subject = |value: &Value| {
            let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let own = Some(field("namespace")).filter(|n| !n.is_empty());
            Subject { kind: field("kind"), name: field("name"), namespace: own.unwrap_or_else(|| namespace.clone()) }
        };
        Self {
            name: object.name().to_owned(),
            role_kind: text("/roleRef/kind"),
            role: text("/roleRef/name"),
            subjects: subjects.into_iter().flatten().map(subject).collect(),
            namespace,
        }
    }

    /// Where the role lies: ClusterRoles may be bound in a namespace.
    fn role_namespace(&self) -> &str {
        if self.role_kind == "ClusterRole" { "" } else { &self.namespace }
    }
}

impl Subject {
    fn is(&self, who: &Principal) -> bool {
        match self.kind.as_str() {
            "User" => self.name == who.name,
            "Group" => who.groups.contains(&self.name),
            "ServiceAccount" => {
                let account = who.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
                account == Some((self.namespace.as_str(), self.name.as_str()))
            }
            _ => false,
        }
    }
}

impl Grant<'_> {
    /// As the reference says it: `ClusterRoleBinding "a" of ClusterRole "b" to User "alice"`.
    pub(crate) fn why(&self) -> String {
        let Binding { name, namespace, role_kind, role, .. } = self.binding;
        let binding = match namespace.as_str() {
            "" => format!("ClusterRoleBinding \"{name}\""),
            namespace => format!("RoleBinding \"{name}/{namespace}\""),
        };
        let subject = match self.subject.kind.as_str() {
            "ServiceAccount" => format!("ServiceAccount \"{}/{}\"", self.subject.name, self.subject.namespace),
            kind => format!("{kind} \"{}\"", self.subject.name),
        };
        format!("{binding} of {role_kind} \"{role}\" to {subject}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    fn role(kind: &str, namespace: Option<&str>, name: &str, verb: &str) -> Object {
        object(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "labels": {"part": name}},
            "rules": [{"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}]}))
    }

    fn binding(namespace: Option<&str>, role_kind: &str, role: &str, subject: Value) -> Object {
        let kind = if namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" };
        object(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": {"name": "b", "namespace": namespace},
            "roleRef": {"kind": role_kind, "name": role}, "subjects": [subject]}))
    }

    fn verbs(index: &Index, who: &Principal, namespace: &str) -> Vec<String> {
        index.grants(who, namespace).iter().flat_map(|g| g.rules).flat_map(|r| r.verbs.clone()).collect()
    }

    #[test]
    fn bindings_reach_as_far_as_they_say() {
        let roles = [
            role("ClusterRole", None, "all", "list"),
            role("ClusterRole", None, "local", "get"),
            role("Role", Some("a"), "own", "delete"),
            object(
                json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "sum"},
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": "all"}}, {"matchLabels": {"part": "local"}}]}}),
            ),
        ];
        let user = |name: &str| json!({"kind": "User", "name": name});
        let bindings = [
            binding(None, "ClusterRole", "all", json!({"kind": "Group", "name": "devs"})),
            binding(Some("a"), "ClusterRole", "local", user("alice")),
            binding(Some("a"), "Role", "own", json!({"kind": "ServiceAccount", "name": "bot"})),
            binding(Some("b"), "Role", "own", user("alice")),
            binding(None, "ClusterRole", "sum", user("sum")),
        ];
        let index = Index::of(&roles, &bindings);
        let alice = Principal::known("alice", ["devs".to_owned()]);
        assert_eq!(verbs(&index, &alice, "a"), ["list", "get"]);
        assert_eq!(verbs(&index, &alice, "b"), ["list"], "the role own is another namespace's");
        assert_eq!(index.missing_roles(&alice, "b"), "RBAC: role.rbac.authorization.k8s.io \"own\" not found");
        assert_eq!(verbs(&index, &alice, ""), ["list"]);
        let bot = |namespace: &str| Principal::known(format!("system:serviceaccount:{namespace}:bot"), []);
        assert_eq!(verbs(&index, &bot("a"), "a"), ["delete"]);
        assert!(verbs(&index, &bot("b"), "a").is_empty(), "another namespace's account of that name");
        assert_eq!(verbs(&index, &Principal::known("sum", []), ""), ["list", "get"]);
        assert_eq!(
            index.grants(&bot("a"), "a")[0].why(),
            "RoleBinding \"b/a\" of Role \"own\" to ServiceAccount \"bot/a\""
        );
    }
}
