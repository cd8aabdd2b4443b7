//! What operators may put into pods: Pod Security's *baseline*, since anything beyond it is root on the host.

use crate::access::principal::{Principal, Role};
use crate::wire::error::ApiError;
use reddwarf_objects::admission::pod_security::{self, Level, Profile, Template, Version};
use reddwarf_objects::{Kind, Object};

/// The line.
const BASELINE: Profile = Profile { level: Level::Baseline, version: Version::Latest };

/// Refuses an operator's write of an object whose pods would reach the host, unless that part does not change.
pub(in crate::access) fn check_write(
    principal: &Principal,
    kind: &Kind,
    old: Option<&Object>,
    new: &Object,
) -> Result<(), ApiError> {
    if principal.role == Role::Admin {
        return Ok(());
    }
    let unchanged = old.is_some_and(|old| old.spec() == new.spec());
    let reasons = violations(kind, new);
    if unchanged || reasons.is_empty() {
        return Ok(());
    }
    Err(refusal(kind, new, &reasons))
}

/// Refuses an operator a way into a pod that it could not have made.
pub(in crate::access) fn check_enter(principal: &Principal, kind: &Kind, pod: &Object) -> Result<(), ApiError> {
    let reasons = violations(kind, pod);
    if principal.role == Role::Admin || reasons.is_empty() {
        return Ok(());
    }
    Err(refusal(kind, pod, &reasons))
}

fn refusal(kind: &Kind, object: &Object, reasons: &[String]) -> ApiError {
    let resource = kind.group_resource();
    let details = serde_json::json!({"name": object.name(), "kind": kind.plural});
    ApiError::forbidden(format!(
        "{resource} \"{}\" is forbidden: violates PodSecurity \"{BASELINE}\": {}; operators may not, root and files may",
        object.name(),
        reasons.join(", ")
    ))
    .with_details(details)
}

/// In which ways the pods of an object leave *baseline*.
pub(crate) fn violations(kind: &Kind, object: &Object) -> Vec<String> {
    let template = match (kind.group, kind.kind) {
        // Pods of a StatefulSet or DaemonSet are made from it.
        ("apps", "ControllerRevision") => Template::below(object, "/data/spec/template"),
        ("", "PersistentVolume") => {
            let on_host = ["/spec/hostPath", "/spec/local"].into_iter().filter(|p| object.get(p).is_some());
            return on_host.map(|p| format!("volume of the host ({})", p.trim_start_matches("/spec/"))).collect();
        }
        _ => Template::of(kind, object),
    };
    let found = template.map(|template| pod_security::violations(BASELINE, template)).unwrap_or_default();
    found.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use reddwarf_objects::kinds;
    use serde_json::{Value, json};

    #[test]
    fn revisions_are_templates_too() {
        let revision = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"},
            "data": {"spec": {"template": {"spec": {"hostNetwork": true, "containers": []}}}}});
        let revision = Object::from_value(revision).unwrap();
        let kind = kinds().by_gvk("apps/v1", "ControllerRevision").unwrap();
        assert_eq!(violations(kind, &revision).len(), 1);
    }

    fn pod(spec: Value) -> Object {
        Object::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn check(role: Role, kind: &str, old: Option<&Object>, new: &Object) -> Result<(), ApiError> {
        let who = Principal { role, ..Principal::known("alice", []) };
        check_write(&who, kinds().by_alias(kind).unwrap(), old, new)
    }

    #[test]
    fn operators_cannot_reach_the_host_and_admins_can() {
        let main = |context: Value| json!({"containers": [{"name": "main", "image": "a", "securityContext": context}]});
        let specs = [
            json!({"hostNetwork": true}),
            json!({"hostPID": true}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            main(json!({"privileged": true})),
            main(json!({"capabilities": {"add": ["SYS_ADMIN"]}})),
            main(json!({"procMount": "Unmasked"})),
            main(json!({"seccompProfile": {"type": "Unconfined"}})),
            json!({"containers": [{"name": "main", "ports": [{"hostPort": 80}]}]}),
            json!({"initContainers": [{"name": "i", "securityContext": {"privileged": true}}]}),
        ];
        for spec in specs {
            let bad = pod(spec.clone());
            let error = check(Role::Operator, "pods", None, &bad).unwrap_err();
            assert_eq!(error.code, 403, "{spec}");
            assert!(error.message.contains("violates PodSecurity"), "{}", error.message);
            assert!(check(Role::Admin, "pods", None, &bad).is_ok());
            assert!(check(Role::Operator, "pods", Some(&bad), &bad).is_ok(), "a label of it may change");
            let template = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
                "spec": {"template": {"spec": spec}}});
            let deployment = Object::from_value(template).unwrap();
            assert!(check(Role::Operator, "deployments", None, &deployment).is_err(), "by way of a template");
        }
        assert!(
            check(Role::Operator, "pods", None, &pod(main(json!({"capabilities": {"add": ["NET_BIND_SERVICE"]}}))))
                .is_ok()
        );
    }
}
