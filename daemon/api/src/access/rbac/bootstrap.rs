//! The roles that are there from the start: the user-facing ones of the reference and what binds them.

use super::rule::Rule;
use crate::access::principal::{AUTHENTICATED, MASTERS, UNAUTHENTICATED};
use reddwarf_objects::{Object, kinds};
use reddwarf_registry::{Author, Registry, RegistryError, WriteOptions};
use serde_json::{Value, json};

const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];
const EVERYTHING: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// What `view` shows of each group: nothing that would give more rights, so no secrets.
const VIEWED: [(&str, &[&str]); 8] = [
    (
        "",
        &[
            "bindings",
            "configmaps",
            "endpoints",
            "events",
            "limitranges",
            "namespaces",
            "namespaces/status",
            "persistentvolumeclaims",
            "persistentvolumeclaims/status",
            "pods",
            "pods/log",
            "pods/status",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "replicationcontrollers/status",
            "resourcequotas",
            "resourcequotas/status",
            "serviceaccounts",
            "services",
            "services/status",
        ],
    ),
    ("discovery.k8s.io", &["endpointslices"]),
    (
        "apps",
        &[
            "controllerrevisions",
            "daemonsets",
            "daemonsets/status",
            "deployments",
            "deployments/scale",
            "deployments/status",
            "replicasets",
            "replicasets/scale",
            "replicasets/status",
            "statefulsets",
            "statefulsets/scale",
            "statefulsets/status",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
    ("batch", &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
    ("policy", &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
    ("networking.k8s.io", &["ingresses", "ingresses/status", "networkpolicies"]),
    // In the reference a role of metrics-server's adds it.
    ("metrics.k8s.io", &["pods", "nodes"]),
];

/// What `edit` changes.
const EDITED: [(&str, &[&str]); 6] = [
    (
        "",
        &[
            "configmaps",
            "events",
            "persistentvolumeclaims",
            "pods",
            "pods/attach",
            "pods/exec",
            "pods/portforward",
            "pods/proxy",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "secrets",
            "serviceaccounts",
            "services",
            "services/proxy",
        ],
    ),
    (
        "apps",
        &[
            "daemonsets",
            "deployments",
            "deployments/rollback",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("policy", &["poddisruptionbudgets"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
];

fn view() -> Vec<Rule> {
    VIEWED.iter().map(|(group, resources)| Rule::on(&READ, &[group], resources)).collect()
}

fn edit() -> Vec<Rule> {
    let ways_in = ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"];
    let mut rules = vec![
        Rule::on(&READ, &[""], &ways_in),
        Rule::on(&["impersonate"], &[""], &["serviceaccounts"]),
        Rule::on(&["create"], &[""], &["pods/eviction", "serviceaccounts/token"]),
        Rule::on(&EVERYTHING, &["coordination.k8s.io"], &["leases"]),
    ];
    rules.extend(EDITED.iter().map(|(group, resources)| Rule::on(&WRITE, &[group], resources)));
    rules.extend(view());
    rules
}

fn admin() -> Vec<Rule> {
    let mut rules = edit();
    rules.push(Rule::on(&["create"], &["authorization.k8s.io"], &["localsubjectaccessreviews"]));
    rules.push(Rule::on(&EVERYTHING, &[super::GROUP], &["roles", "rolebindings"]));
    rules
}

fn paths(urls: &[&str]) -> Rule {
    let urls = urls.iter().map(|s| (*s).to_owned()).collect();
    Rule { verbs: vec!["get".to_owned()], urls, ..Rule::default() }
}

/// The roles: other roles add to those with a label of the name `aggregate-to-...`.
const SUMS: [&str; 3] = ["admin", "edit", "view"];

/// Name and rules.
fn roles() -> Vec<(&'static str, Vec<Rule>)> {
    let everything = vec![
        Rule::on(&["*"], &["*"], &["*"]),
        Rule { verbs: vec!["*".into()], urls: vec!["*".into()], ..Rule::default() },
    ];
    let about_oneself = vec![
        Rule::on(&["create"], &["authorization.k8s.io"], &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
        Rule::on(&["create"], &["authentication.k8s.io"], &["selfsubjectreviews"]),
    ];
    let reviews = vec![
        Rule::on(&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
        Rule::on(&["create"], &["authorization.k8s.io"], &["subjectaccessreviews"]),
    ];
    let discovery = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ];
    vec![
        ("cluster-admin", everything),
        ("admin", admin()),
        ("edit", edit()),
        ("view", view()),
        ("system:basic-user", about_oneself),
        ("system:discovery", vec![paths(&discovery)]),
        ("system:public-info-viewer", vec![paths(&["/healthz", "/livez", "/readyz", "/version", "/version/"])]),
        ("system:auth-delegator", reviews),
        (
            "system:service-account-issuer-discovery",
            vec![paths(&[
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/",
                "/openid/v1/jwks",
                "/openid/v1/jwks/",
            ])],
        ),
    ]
}

/// ClusterRole and the groups that have it.
const BINDINGS: [(&str, &[&str]); 5] = [
    ("cluster-admin", &[MASTERS]),
    ("system:basic-user", &[AUTHENTICATED]),
    ("system:discovery", &[AUTHENTICATED]),
    ("system:public-info-viewer", &[AUTHENTICATED, UNAUTHENTICATED]),
    ("system:service-account-issuer-discovery", &["system:serviceaccounts"]),
];

fn objects() -> Vec<Value> {
    let metadata = |name: &str| {
        json!({"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}})
    };
    let version = format!("{}/v1", super::GROUP);
    let label = |of: &str| format!("{}/aggregate-to-{of}", super::GROUP);
    let role = |(name, rules): (&str, Vec<Rule>)| {
        let mut role =
            json!({"apiVersion": version, "kind": "ClusterRole", "metadata": metadata(name), "rules": rules});
        if let Some(at) = SUMS.iter().position(|sum| *sum == name) {
            role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label(name): "true"}}]});
            // What is added to the lesser is added to the greater.
            if let Some(greater) = at.checked_sub(1).and_then(|i| SUMS.get(i)) {
                role["metadata"]["labels"][label(greater)] = "true".into();
            }
        }
        role
    };
    let binding = |(name, groups): (&str, &[&str])| {
        let subject = |group: &&str| json!({"apiGroup": super::GROUP, "kind": "Group", "name": group});
        json!({"apiVersion": version, "kind": "ClusterRoleBinding", "metadata": metadata(name),
            "roleRef": {"apiGroup": super::GROUP, "kind": "ClusterRole", "name": name},
            "subjects": groups.iter().map(subject).collect::<Vec<_>>()})
    };
    roles().into_iter().map(role).chain(BINDINGS.map(binding)).collect()
}

/// Makes what is missing; what is there, changed or not, stays.
///
/// # Errors
/// When the store can't be read or written.
pub(crate) async fn make(registry: &Registry) -> Result<(), RegistryError> {
    let us = Author::System("access");
    let mut missing = Vec::new();
    for value in objects() {
        let object = Object::from_value(value).map_err(|e| RegistryError::BadRequest(e.to_string()))?;
        let kind = kinds().by_gvk(object.api_version(), object.kind());
        if let Some(kind) = kind
            && registry.find(&object.key(kind))?.is_none()
        {
            missing.push(object);
        }
    }
    let made = missing.into_iter().map(|object| registry.create(&us, object, WriteOptions::default()));
    for one in futures_util::future::join_all(made).await {
        match one {
            Ok(_) | Err(RegistryError::AlreadyExists(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
