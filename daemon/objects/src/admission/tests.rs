use super::*;
use crate::{default, kinds};
use serde_json::{Value, json};

fn object(value: Value) -> Object {
    let mut object = Object::from_value(value).unwrap();
    let kind = object.known_kind().unwrap();
    default(kind, &mut object);
    object
}

fn pod(spec: Value) -> Object {
    let mut pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
    if pod.pointer("/spec/containers").is_none() {
        pod["spec"]["containers"] = json!([{"name": "main", "image": "a"}]);
    }
    object(pod)
}

fn account(more: Value) -> Object {
    let mut account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    account.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object(account)
}

fn limits(limits: Value) -> Object {
    object(json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "lr"}, "spec": {"limits": limits}}))
}

fn quota(spec: Value, used: Value) -> Object {
    let status = json!({"hard": spec["hard"], "used": used});
    object(
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": spec, "status": status}),
    )
}

fn class(name: &str, value: i64, more: Value) -> Object {
    let mut class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value});
    class.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object(class)
}

fn admit_pod(pod: &mut Object, around: &Surroundings) -> Result<(), String> {
    let kind = pod.known_kind().unwrap();
    admit(kind, pod, around, 7).and_then(|()| check(kind, pod, around)).map_err(|refusal| refusal.0)
}

fn admitted(mut pod: Object, around: &Surroundings) -> Object {
    admit_pod(&mut pod, around).unwrap();
    pod
}

fn refused(mut pod: Object, around: &Surroundings) -> String {
    admit_pod(&mut pod, around).unwrap_err()
}

#[test]
fn a_pod_without_an_account_runs_as_default() {
    let pod = admitted(pod(json!({})), &Surroundings::default());
    assert_eq!(pod.get_str("/spec/serviceAccountName"), Some("default"));
    assert_eq!(pod.get_str("/spec/serviceAccount"), Some("default"));
}

#[test]
fn an_account_that_is_not_there_is_refused() {
    let text = refused(pod(json!({"serviceAccountName": "robot"})), &Surroundings::default());
    assert_eq!(text, "error looking up service account shop/robot: serviceaccount \"robot\" not found");
}

#[test]
fn pull_secrets_come_from_the_account_unless_the_pod_has_some() {
    let around = Surroundings {
        service_account: Some(account(json!({"imagePullSecrets": [{"name": "registry"}]})).into()),
        ..Surroundings::default()
    };
    assert_eq!(admitted(pod(json!({})), &around).get("/spec/imagePullSecrets"), Some(&json!([{"name": "registry"}])));
    let own = pod(json!({"imagePullSecrets": [{"name": "mine"}]}));
    assert_eq!(admitted(own, &around).get("/spec/imagePullSecrets"), Some(&json!([{"name": "mine"}])));
}

/// The volume of row C38, as the recorded pods show it.
#[test]
fn the_token_is_mounted_into_every_container_that_has_none() {
    let mut pod = pod(json!({"containers": [
        {"name": "a", "image": "a"},
        {"name": "b", "image": "b", "volumeMounts": [{"name": "own", "mountPath": service_account::TOKEN_PATH}]}],
        "volumes": [{"name": "own", "emptyDir": {}}]}));
    service_account::mount_token(&mut pod, 7);
    let name = pod.get_str("/spec/volumes/1/name").unwrap().to_owned();
    assert!(name.starts_with("kube-api-access-") && name.len() == "kube-api-access-".len() + 5, "{name}");
    let mount = json!({"name": name, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"});
    assert_eq!(pod.get("/spec/containers/0/volumeMounts"), Some(&json!([mount])));
    assert_eq!(pod.get("/spec/containers/1/volumeMounts/0/name"), Some(&json!("own")));
    let projected = json!({"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
        {"downwardAPI": {"items": [
            {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}]}}]});
    assert_eq!(pod.get("/spec/volumes/1/projected"), Some(&projected));
}

/// Whoever declares the pod again, replacing lists, does not know of it.
#[test]
fn the_mounted_token_stays_when_the_pod_is_declared_again() {
    let own = json!({"name": "own", "mountPath": "/own"});
    let declared =
        pod(json!({"containers": [{"name": "a", "image": "a"}, {"name": "b", "image": "b", "volumeMounts": [own]}],
        "volumes": [{"name": "own", "emptyDir": {}}]}));
    let mut live = declared.clone();
    service_account::mount_token(&mut live, 7);
    let mut again = declared.clone();
    service_account::keep_token(&live, &mut again);
    assert_eq!(again, live);
    service_account::keep_token(&live, &mut again);
    assert_eq!(again, live, "twice is once");
    let mut plain = declared.clone();
    service_account::keep_token(&declared, &mut plain);
    assert_eq!(plain, declared, "nothing comes from nothing");
}

#[test]
fn who_says_whether_the_token_is_wanted() {
    for (of_pod, of_account, wanted) in [
        (None, None, true),
        (None, Some(false), false),
        (Some(true), Some(false), true),
        (Some(false), Some(true), false),
        (Some(false), None, false),
    ] {
        let asked = |value: Option<bool>| value.map_or(json!({}), |v| json!({"automountServiceAccountToken": v}));
        assert_eq!(service_account::mounts_token(&pod(asked(of_pod)), &account(asked(of_account))), wanted);
    }
}

#[test]
fn every_pod_tolerates_a_lost_node_for_five_minutes() {
    let pod = admitted(pod(json!({})), &Surroundings::default());
    let toleration =
        |key: &str| json!({"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": 300});
    let both = json!([toleration("node.kubernetes.io/not-ready"), toleration("node.kubernetes.io/unreachable")]);
    assert_eq!(pod.get("/spec/tolerations"), Some(&both));
    let own = json!([{"operator": "Exists"}]);
    let mut tolerant = pod.clone();
    tolerant.set("/spec/tolerations", own.clone());
    assert_eq!(admitted(tolerant, &Surroundings::default()).get("/spec/tolerations"), Some(&own));
}

#[test]
fn priority_follows_from_the_class() {
    let classes = vec![
        class("low", 10, json!({})),
        class("usual", 100, json!({"globalDefault": true, "preemptionPolicy": "Never"})),
    ];
    let around = Surroundings { priority_classes: classes.into(), ..Surroundings::default() };
    let named = admitted(pod(json!({"priorityClassName": "low"})), &around);
    assert_eq!(named.get("/spec/priority"), Some(&json!(10)));
    let unnamed = admitted(pod(json!({})), &around);
    assert_eq!(unnamed.get("/spec/priority"), Some(&json!(100)));
    assert_eq!(unnamed.get_str("/spec/priorityClassName"), Some("usual"));
    assert_eq!(unnamed.get_str("/spec/preemptionPolicy"), Some("Never"));
    let none = admitted(pod(json!({})), &Surroundings::default());
    assert_eq!(none.get("/spec/priority"), Some(&json!(0)));
    assert_eq!(none.get_str("/spec/preemptionPolicy"), Some("PreemptLowerPriority"));
    let system = admitted(pod(json!({"priorityClassName": "system-node-critical"})), &around);
    assert_eq!(system.get("/spec/priority"), Some(&json!(2_000_001_000)));
    assert_eq!(
        refused(pod(json!({"priorityClassName": "gold"})), &around),
        "no PriorityClass with name gold was found"
    );
    assert_eq!(
        refused(pod(json!({"priority": 5, "priorityClassName": "low"})), &around),
        "the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 10 \
         from the given PriorityClass name"
    );
}

#[test]
fn a_runtime_class_brings_overhead_and_places() {
    let runtime = object(json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "vm"},
        "handler": "vm", "overhead": {"podFixed": {"memory": "64Mi"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}}));
    let around = Surroundings { runtime_class: Some(runtime), ..Surroundings::default() };
    let done = admitted(pod(json!({"runtimeClassName": "vm"})), &around);
    assert_eq!(done.get("/spec/overhead"), Some(&json!({"memory": "64Mi"})));
    assert_eq!(done.get("/spec/nodeSelector"), Some(&json!({"vm": "yes"})));
    assert_eq!(
        refused(pod(json!({"runtimeClassName": "vm", "overhead": {"memory": "1Mi"}})), &around),
        "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
    );
    assert_eq!(
        refused(pod(json!({"runtimeClassName": "gone"})), &Surroundings::default()),
        "pod rejected: RuntimeClass \"gone\" not found"
    );
}

#[test]
fn a_limit_range_fills_in_what_containers_lack() {
    let range = limits(json!([{"type": "Container", "default": {"cpu": "500m", "memory": "128Mi"},
        "defaultRequest": {"cpu": "100m"}}]));
    let around = Surroundings { limit_ranges: vec![range], ..Surroundings::default() };
    let done = admitted(
        pod(json!({"containers": [
        {"name": "main", "image": "a", "resources": {"limits": {"cpu": "2"}}}]})),
        &around,
    );
    assert_eq!(
        done.get("/spec/containers/0/resources"),
        Some(&json!({"limits": {"cpu": "2", "memory": "128Mi"}, "requests": {"cpu": "2", "memory": "128Mi"}}))
    );
    assert_eq!(
        done.annotation("kubernetes.io/limit-ranger"),
        Some("LimitRanger plugin set: memory request for container main; memory limit for container main")
    );
}

#[test]
fn bounds_of_a_limit_range() {
    let max = json!([{"type": "Container", "max": {"cpu": "1"}, "min": {"memory": "1Gi"},
        "maxLimitRequestRatio": {"cpu": "2"}}]);
    let around = Surroundings { limit_ranges: vec![limits(max)], ..Surroundings::default() };
    let with = |requests: Value, limits: Value| {
        pod(json!({"containers": [
            {"name": "main", "image": "a", "resources": {"requests": requests, "limits": limits}}]}))
    };
    assert_eq!(
        refused(with(json!({"cpu": "500m", "memory": "2Gi"}), json!({"cpu": "1500m", "memory": "2Gi"})), &around),
        "[maximum cpu usage per Container is 1, but limit is 1500m, cpu max limit to request ratio per Container is 2, \
         but provided ratio is 3.000000]"
    );
    assert_eq!(
        refused(with(json!({"cpu": "1", "memory": "1Mi"}), json!({"cpu": "1", "memory": "2Gi"})), &around),
        "minimum memory usage per Container is 1Gi, but request is 1Mi"
    );
    assert!(admit_pod(&mut with(json!({"memory": "1Gi"}), json!({"cpu": "1"})), &around).is_ok());
}

fn charged(object: &Object, quotas: &[Object], there: Option<&[Object]>) -> Result<Vec<Value>, String> {
    let charges = charge(object.known_kind().unwrap(), None, object, quotas, there).map_err(|refusal| refusal.0)?;
    Ok(charges.into_iter().map(|charge| charge.status["used"].clone()).collect())
}

#[test]
fn a_quota_is_charged_until_it_is_exceeded() {
    let quotas = [quota(
        json!({"hard": {"pods": "2", "requests.cpu": "1", "services": "1"}}),
        json!({"pods": "1", "requests.cpu": "800m", "services": "0"}),
    )];
    let asks = |cpu: &str| {
        pod(json!({"containers": [{"name": "main", "image": "a", "resources": {"requests": {"cpu": cpu}}}]}))
    };
    let used = json!({"pods": "2", "requests.cpu": "1", "services": "0"});
    assert_eq!(charged(&asks("200m"), &quotas, None), Ok(vec![used]));
    assert_eq!(
        charged(&asks("300m"), &quotas, None).unwrap_err(),
        "exceeded quota: q, requested: requests.cpu=300m, used: requests.cpu=800m, limited: requests.cpu=1"
    );
    let used = json!({"pods": "1", "requests.cpu": "300m", "services": "0"});
    assert_eq!(charged(&asks("300m"), &quotas, Some(&[])), Ok(vec![used]), "counted anew");
    assert_eq!(
        charged(&pod(json!({})), &quotas, None).unwrap_err(),
        "failed quota: q: must specify requests.cpu for: main"
    );
}

#[test]
fn a_quota_counts_any_kind() {
    let quotas = [quota(json!({"hard": {"count/deployments.apps": "1", "configmaps": "1"}}), json!({}))];
    let map = object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}));
    assert!(charged(&map, &quotas, None).is_err(), "nobody has counted");
    assert_eq!(charged(&map, &quotas, Some(&[])), Ok(vec![json!({"configmaps": "1"})]));
    assert_eq!(
        charged(&map, &quotas, Some(std::slice::from_ref(&map))).unwrap_err(),
        "exceeded quota: q, requested: configmaps=1, used: configmaps=1, limited: configmaps=1"
    );
    let secret = object(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}));
    assert_eq!(charged(&secret, &quotas, None), Ok(vec![]));
}

#[test]
fn scopes_of_a_quota() {
    let best_effort = pod(json!({}));
    let ends = pod(json!({"activeDeadlineSeconds": 5, "containers": [
        {"name": "a", "image": "a", "resources": {"requests": {"cpu": "1"}}}]}));
    for (scope, of_best_effort, of_ends) in [
        ("BestEffort", true, false),
        ("NotBestEffort", false, true),
        ("Terminating", false, true),
        ("NotTerminating", true, false),
    ] {
        let quotas = [quota(json!({"hard": {"pods": "0"}, "scopes": [scope]}), json!({"pods": "0"}))];
        assert_eq!(charged(&best_effort, &quotas, None).is_err(), of_best_effort, "{scope}");
        assert_eq!(charged(&ends, &quotas, None).is_err(), of_ends, "{scope}");
    }
    let selector = json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["gold"]}]});
    let quotas = [quota(json!({"hard": {"pods": "0"}, "scopeSelector": selector}), json!({"pods": "0"}))];
    assert!(charged(&best_effort, &quotas, None).is_ok());
    assert!(charged(&pod(json!({"priorityClassName": "gold"})), &quotas, None).is_err());
}

#[test]
fn a_pod_uses_its_containers_or_its_greatest_start() {
    let asks = |name: &str, cpu: &str| json!({"name": name, "image": "a", "resources": {"requests": {"cpu": cpu}}});
    let mut sidecar = asks("side", "1");
    sidecar["restartPolicy"] = json!("Always");
    let pod = pod(json!({"initContainers": [asks("big", "5"), sidecar, asks("late", "2")],
        "containers": [asks("a", "1"), asks("b", "1")], "overhead": {"cpu": "250m"}}));
    let used = quota::usage(kinds().by_group_resource("", "pods").unwrap(), &pod);
    assert_eq!(used.get("requests.cpu").map(ToString::to_string).as_deref(), Some("5250m"));
}

#[test]
fn the_newest_default_class_is_taken() {
    let class = |name: &str, made: &str| {
        object(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "zfs",
            "metadata": {"name": name, "creationTimestamp": made,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}))
    };
    let storage_classes = vec![class("old", "2026-01-01T00:00:00Z"), class("new", "2026-02-01T00:00:00Z")];
    let around = Surroundings { storage_classes, ..Surroundings::default() };
    let claim = |spec: Value| {
        let mut claim = object(
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": spec}),
        );
        admit_pod(&mut claim, &around).unwrap();
        claim.get_str("/spec/storageClassName").map(str::to_owned)
    };
    assert_eq!(claim(json!({})).as_deref(), Some("new"));
    assert_eq!(claim(json!({"storageClassName": ""})).as_deref(), Some(""));
}
