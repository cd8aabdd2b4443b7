//! Answers recorded from kube-apiserver 1.36, and what its documentation says about managedFields.

use super::*;
use serde_json::json;

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn config_map(data: Value) -> Object {
    object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}))
}

fn create(object: &Object, manager: &str) -> Object {
    let mut created = object.clone();
    track(kind(object.api_version(), object.kind()), None, &mut created, &by(manager), at(16));
    created
}

fn update(old: &Object, manager: &str, change: impl FnOnce(&mut Object)) -> Object {
    let mut new = old.clone();
    change(&mut new);
    track(kind(old.api_version(), old.kind()), Some(old), &mut new, &by(manager), at(17));
    new
}

fn entry(manager: &str, operation: &str, second: u32, fields: Value) -> Value {
    json!({"manager": manager, "operation": operation, "apiVersion": "v1", "time": timestamp(at(second)), "fieldsType": "FieldsV1", "fieldsV1": fields})
}

fn list(object: &Object) -> Value {
    managed::list(object).cloned().unwrap_or_default()
}

#[test]
fn a_create_owns_what_it_set() {
    let created = create(&config_map(json!({"k": "1"})), "probe");
    assert_eq!(list(&created), json!([entry("probe", "Update", 16, json!({"f:data": {".": {}, "f:k": {}}}))]));
    let named = object(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "g-x", "generateName": "g-", "uid": "u", "namespace": "n"}}),
    );
    let fields = json!({"f:metadata": {"f:generateName": {}}});
    assert_eq!(list(&create(&named, "probe")), json!([entry("probe", "Update", 16, fields)]));
    let held =
        object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "f", "finalizers": ["x.io/y"]}}));
    let fields = json!({"f:metadata": {"f:finalizers": {".": {}, "v:\"x.io/y\"": {}}}});
    assert_eq!(list(&create(&held, "probe")), json!([entry("probe", "Update", 16, fields)]));
    let bare = object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "w1"}}));
    assert_eq!(list(&create(&bare, "probe")), Value::Null);
    let review = object(
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {},
        "spec": {"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}}, "status": {"allowed": true}}),
    );
    let fields =
        json!({"f:spec": {"f:resourceAttributes": {".": {}, "f:namespace": {}, "f:resource": {}, "f:verb": {}}}});
    let mut review_fields = list(&create(&review, ""));
    assert_eq!(review_fields[0]["fieldsV1"].as_object_mut().unwrap().remove("f:status").map(drop), Some(()));
    assert_eq!((&review_fields[0]["fieldsV1"], &review_fields[0]["manager"]), (&fields, &json!("unknown")));
}

#[test]
fn a_pod_and_a_deployment_are_owned_as_everywhere() {
    let pod = object(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "nginx", "namespace": "default", "labels": {"run": "nginx"}, "uid": "u", "creationTimestamp": "2026-11-20T21:38:16Z"},
        "spec": {"containers": [{"name": "nginx", "image": "nginx", "resources": {}, "terminationMessagePath": "/dev/termination-log",
                "ports": [{"containerPort": 80, "protocol": "TCP"}], "args": ["a"]}],
            "restartPolicy": "Always", "securityContext": {}, "nodeSelector": {"a": "b"}},
        "status": {"phase": "Pending"}}));
    assert_eq!(
        list(&create(&pod, "kubectl-run"))[0]["fieldsV1"],
        json!({"f:metadata": {"f:labels": {".": {}, "f:run": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"nginx\"}": {".": {}, "f:args": {}, "f:image": {}, "f:name": {},
                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}},
                    "f:resources": {}, "f:terminationMessagePath": {}}},
                "f:nodeSelector": {}, "f:restartPolicy": {}, "f:securityContext": {}}})
    );
    let deployment = object(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web"}]}}}}));
    assert_eq!(
        list(&create(&deployment, "kubectl-create"))[0]["fieldsV1"],
        json!({"f:spec": {"f:replicas": {}, "f:selector": {},
            "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
            "f:template": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:name": {}, "f:resources": {}}}}}}})
    );
}

#[test]
fn an_update_owns_what_it_changed() {
    let created = create(&config_map(json!({"k": "1"})), "probe");
    let same = update(&created, "other", |_| {});
    assert_eq!(same, created);
    let changed = update(&created, "other", |new| new.set("/data/k", "2"));
    assert_eq!(
        list(&changed),
        json!([
            entry("probe", "Update", 16, json!({"f:data": {}})),
            entry("other", "Update", 17, json!({"f:data": {"f:k": {}}}))
        ])
    );
    let replaced = update(&created, "probe", |new| new.set("/data", json!({"z": "9"})));
    assert_eq!(list(&replaced), json!([entry("probe", "Update", 17, json!({"f:data": {".": {}, "f:z": {}}}))]));
    // What only removes leaves the times.
    let shrunk = update(&changed, "probe", |new| drop(new.remove("/data/k")));
    assert_eq!(list(&shrunk), json!([entry("probe", "Update", 16, json!({"f:data": {}}))]));
    // What the server keeps is nobody's.
    let moved = update(&created, "other", |new| {
        new.set("/metadata/resourceVersion", "7");
        new.set_generation(3);
    });
    assert_eq!(list(&moved), list(&created));
}

#[test]
fn status_is_owned_through_status_only() {
    let pod = object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"hostname": "a"}}));
    let created = create(&pod, "m");
    let mut new = created.clone();
    new.set("/status", json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}));
    let through_main = update(&created, "m", |object| *object = new.clone());
    assert_eq!(list(&through_main), list(&created));
    new.set("/spec/hostname", "b");
    let manager = FieldManager { name: "kubelet", subresource: Some("status") };
    track(kind("v1", "Pod"), Some(&created), &mut new, &manager, at(17));
    let mut kubelet = entry(
        "kubelet",
        "Update",
        17,
        json!({"f:status": {"f:conditions": {".": {}, "k:{\"type\":\"Ready\"}": {".": {}, "f:lastProbeTime": {}, "f:lastTransitionTime": {}, "f:status": {}, "f:type": {}}}, "f:phase": {}}}),
    );
    kubelet["subresource"] = json!("status");
    assert_eq!(list(&new), json!([list(&created)[0], kubelet]));
    let config = object(
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"hostname": "a"}, "status": {"phase": "Failed"}}),
    );
    let applied = apply(kind("v1", "Pod"), Some(&created), &config, &by("a"), false, at(18)).unwrap();
    assert_eq!(list(&applied)[0]["fieldsV1"], json!({"f:spec": {"f:hostname": {}}}));
}

#[test]
fn scaling_takes_the_replicas() {
    let web = object(
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 1, "paused": true}}),
    );
    let applied = apply(kind("apps/v1", "Deployment"), None, &web, &by("m1"), false, at(1)).unwrap();
    let mut scaled = applied.clone();
    scaled.set("/spec/replicas", 3);
    let scaler = FieldManager { name: "hpa", subresource: Some("scale") };
    track(kind("apps/v1", "Deployment"), Some(&applied), &mut scaled, &scaler, at(2));
    assert_eq!(
        list(&scaled),
        json!([
            {"manager": "m1", "operation": "Apply", "apiVersion": "apps/v1", "time": timestamp(at(1)), "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:paused": {}}}},
            {"manager": "hpa", "operation": "Update", "apiVersion": "apps/v1", "time": timestamp(at(2)), "fieldsType": "FieldsV1", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        ])
    );
    let error = apply(kind("apps/v1", "Deployment"), Some(&scaled), &web, &by("m1"), false, at(3)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
}

#[test]
fn apply_creates_conflicts_and_removes() {
    let cm = kind("v1", "ConfigMap");
    let both = apply(cm, None, &config_map(json!({"a": "1", "b": "1"})), &by("m1"), false, at(17)).unwrap();
    let owned = |fields: Value| json!([entry("m1", "Apply", 17, json!({"f:data": fields}))]);
    assert_eq!(list(&both), owned(json!({"f:a": {}, "f:b": {}})));
    let error = apply(cm, Some(&both), &config_map(json!({"a": "2"})), &by("m2"), false, at(17)).unwrap_err();
    let ApplyError::Conflicts { message, conflicts } = error else { panic!("{error}") };
    assert_eq!(message, "Apply failed with 1 conflict: conflict with \"m1\": .data.a");
    assert_eq!(conflicts, [Conflict { message: "conflict with \"m1\"".to_owned(), field: ".data.a".to_owned() }]);
    let one = apply(cm, Some(&both), &config_map(json!({"a": "1"})), &by("m1"), false, at(17)).unwrap();
    assert_eq!(list(&one), owned(json!({"f:a": {}})));
    assert_eq!(one.get("/data"), Some(&json!({"a": "1"})));
    let again = apply(cm, Some(&one), &config_map(json!({"a": "1"})), &by("m1"), false, at(30)).unwrap();
    assert_eq!(again, one);
    let error = apply(
        cm,
        Some(&create(&config_map(json!({"a": "1"})), "kubectl-create")),
        &config_map(json!({"a": "2"})),
        &by("kubectl"),
        false,
        at(1),
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-create\" using v1: .data.a"
    );
}

#[test]
fn several_conflicts_are_told_by_manager() {
    let cm = kind("v1", "ConfigMap");
    let first = apply(cm, None, &config_map(json!({"a": "1", "b": "1"})), &by("foo"), false, at(1)).unwrap();
    let second = apply(cm, Some(&first), &config_map(json!({"c": "1"})), &by("bar"), false, at(2)).unwrap();
    let mine = config_map(json!({"a": "2", "b": "2", "c": "2"}));
    let error = apply(cm, Some(&second), &mine, &by("m"), false, at(3)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 3 conflicts: conflicts with \"bar\":\n- .data.c\nconflicts with \"foo\":\n- .data.a\n- .data.b"
    );
    let forced = apply(cm, Some(&second), &mine, &by("m"), true, at(3)).unwrap();
    assert_eq!(list(&forced), json!([entry("m", "Apply", 3, json!({"f:data": {"f:a": {}, "f:b": {}, "f:c": {}}}))]));
}

#[test]
fn what_was_there_before_the_first_apply_is_kept() {
    let cm = kind("v1", "ConfigMap");
    let live = config_map(json!({"a": "1", "b": "1"}));
    let applied = apply(cm, Some(&live), &config_map(json!({"a": "1"})), &by("m"), false, at(3)).unwrap();
    let before = json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}});
    assert_eq!(
        list(&applied),
        json!([
            entry("m", "Apply", 3, json!({"f:data": {"f:a": {}}})),
            entry("before-first-apply", "Update", 3, before)
        ])
    );
    // And an update does not begin to track what nobody tracked.
    assert_eq!(list(&update(&live, "m", |new| new.set("/data/a", "2"))), Value::Null);
}

#[test]
fn clients_may_reset_or_replace_the_list_but_not_break_it() {
    let created = create(&config_map(json!({"k": "1"})), "probe");
    for reset in [json!([]), json!([{}])] {
        assert_eq!(list(&update(&created, "m", |new| new.set("/metadata/managedFields", reset))), Value::Null);
    }
    let theirs = json!([{"manager": "x", "operation": "Apply", "apiVersion": "v1", "time": "2026-11-20T22:38:16+01:00", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:k": {}}, "f:l": {"k:{ \"name\":\"y\" }": {}}}}]);
    let taken = update(&created, "m", |new| new.set("/metadata/managedFields", theirs));
    let fields = json!({"f:data": {"f:k": {}}, "f:l": {"k:{\"name\":\"y\"}": {}}});
    assert_eq!(list(&taken), json!([entry("x", "Apply", 16, fields)]));
    for bad in [
        json!([{"manager": "x", "operation": "Patch", "apiVersion": "v1", "fieldsType": "FieldsV1"}]),
        json!([{"manager": "x", "operation": "Apply", "apiVersion": "", "fieldsType": "FieldsV1"}]),
        json!([{"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV2"}]),
        json!([{"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"data": {}}}]),
        json!([{"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "time": "now"}]),
        json!("x"),
    ] {
        assert_eq!(list(&update(&created, "m", |new| new.set("/metadata/managedFields", bad))), list(&created));
    }
    let gone = update(&created, "m", |new| drop(new.remove("/metadata/managedFields")));
    assert_eq!(list(&gone), list(&created));
    // Through a subresource the list is not the client's.
    let mut new = created.clone();
    new.set("/metadata/managedFields", json!([]));
    track(
        kind("v1", "ConfigMap"),
        Some(&created),
        &mut new,
        &FieldManager { name: "m", subresource: Some("x") },
        at(1),
    );
    assert_eq!(list(&new), list(&created));
}

#[test]
fn what_cannot_be_applied_says_why() {
    let cm = kind("v1", "ConfigMap");
    let why = |config: Value| apply(cm, None, &object(config), &by("m"), false, at(1)).unwrap_err();
    assert_eq!(
        why(json!({"apiVersion": "apps/v1", "kind": "Deployment"})),
        ApplyError::BadRequest("invalid object type: apps/v1, Kind=Deployment".to_owned())
    );
    assert_eq!(
        why(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"managedFields": [{}]}})),
        ApplyError::BadRequest("metadata.managedFields must be nil".to_owned())
    );
    assert_eq!(
        why(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n"}, "data": {"a": 1}})),
        ApplyError::Schema(
            "failed to create typed patch object (n/a; /v1, Kind=ConfigMap): .data.a: expected string, got &value.valueUnstructured{Value:1}"
                .to_owned()
        )
    );
}

#[test]
fn the_oldest_updaters_become_one() {
    let mut live = create(&config_map(json!({"k0": "1"})), "m00");
    for n in 1..14u32 {
        let mut new = live.clone();
        new.set(&format!("/data/k{n}"), "1");
        track(kind("v1", "ConfigMap"), Some(&live), &mut new, &by(&format!("m{n:02}")), at(16 + n));
        live = new;
    }
    let managers = owners(&live);
    assert_eq!(managers.len(), 10);
    assert_eq!(managers["ancient-changes"], [".data", ".data.k0", ".data.k1", ".data.k2", ".data.k3", ".data.k4"]);
    assert_eq!(list(&live)[0]["manager"], "ancient-changes");
    assert_eq!(list(&live)[0]["time"], timestamp(at(20)));
}

#[test]
fn kubectl_moves_to_server_side_apply() {
    let cm = kind("v1", "ConfigMap");
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    let mut applied = config_map(json!({"a": "1", "b": "1"}));
    applied.set_annotation(annotation, &config_map(json!({"a": "1", "b": "1"})).to_json());
    let live = create(&applied, "kubectl-client-side-apply");
    let live = update(&live, "other", |new| new.set("/data/b", "2"));
    // What it applied and still is so, kubectl may change; what somebody else changed, it may not.
    let moved = apply(cm, Some(&live), &config_map(json!({"a": "3"})), &by("kubectl"), false, at(20)).unwrap();
    assert_eq!(moved.get("/data"), Some(&json!({"a": "3", "b": "2"})));
    assert_eq!(moved.annotation(annotation).unwrap(), format!("{}\n", config_map(json!({"a": "3"})).to_json()));
    let error = apply(cm, Some(&live), &config_map(json!({"a": "3", "b": "3"})), &by("kubectl"), false, at(20));
    assert_eq!(
        error.unwrap_err().to_string(),
        "Apply failed with 1 conflict: conflict with \"other\" using v1: .data.b"
    );
    assert!(apply(cm, Some(&live), &config_map(json!({"a": "3"})), &by("else"), false, at(20)).is_err());
}

#[test]
fn times_alone_are_no_change() {
    let old = create(&config_map(json!({"k": "1"})), "probe");
    let mut new = old.clone();
    new.set("/metadata/managedFields/0/time", timestamp(at(50)));
    new.set("/metadata/resourceVersion", "9");
    keep_times(&old, &mut new);
    assert_eq!(list(&new), list(&old));
    new.set("/metadata/managedFields/0/time", timestamp(at(50)));
    new.set("/data/k", "2");
    keep_times(&old, &mut new);
    assert_ne!(list(&new), list(&old));
}
