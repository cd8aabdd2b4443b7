use crate::{Object, default, kinds};
use serde_json::{Value, json};

fn defaulted(value: Value) -> Value {
    let mut object = Object::from_value(value).unwrap();
    let kind = object.known_kind().unwrap();
    default(kind, &mut object);
    let once = object.clone();
    default(kind, &mut object);
    assert_eq!(object, once, "defaulting twice");
    once.into_value()
}

#[test]
fn a_pod_becomes_what_the_reference_stores() {
    let pod = defaulted(
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": null}, "spec": {
        "hostNetwork": true,
        "containers": [{"name": "web", "image": "reg:5000/nginx", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": 1.5, "memory": "1024Ki"}, "requests": {"cpu": "100m"}},
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "livenessProbe": {"httpGet": {"port": 80}}}],
        "volumes": [{"name": "a"}, {"name": "b", "configMap": {"name": "c"}}, {"name": "h", "hostPath": {"path": "/x"}}]}}),
    );
    assert_eq!(
        pod,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {
        "hostNetwork": true, "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
        "securityContext": {}, "terminationGracePeriodSeconds": 30, "enableServiceLinks": true,
        "containers": [{"name": "web", "image": "reg:5000/nginx", "imagePullPolicy": "Always",
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
            "resources": {"limits": {"cpu": "1500m", "memory": "1Mi"}, "requests": {"cpu": "100m", "memory": "1Mi"}},
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
            "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                "successThreshold": 1, "failureThreshold": 3}}],
        "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "c", "defaultMode": 420}},
            {"name": "h", "hostPath": {"path": "/x", "type": ""}}]}, "status": {}})
    );
}

#[test]
fn pull_policy_follows_the_tag() {
    for (image, policy) in [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("r:5000/a", "Always"),
        ("a@sha256:00", "IfNotPresent"),
    ] {
        let pod = defaulted(
            json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "a", "image": image}]}}),
        );
        assert_eq!(pod.pointer("/spec/containers/0/imagePullPolicy").unwrap(), policy, "{image}");
    }
}

#[test]
fn a_secrets_plain_text_goes_into_data_and_wins() {
    let secret = defaulted(
        json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "b2xk", "b": "Yg=="}, "stringData": {"a": "new"}}),
    );
    assert_eq!(
        secret,
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "type": "Opaque", "data": {"a": "bmV3", "b": "Yg=="}})
    );
}

#[test]
fn services_and_namespaces() {
    let service = defaulted(json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}}));
    assert_eq!(
        service["spec"],
        json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
    );
    let namespace = defaulted(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}));
    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
}

#[test]
fn a_deployment_rolls_by_a_quarter() {
    let deployment = defaulted(
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {"spec": {"containers": []}}}}),
    );
    assert_eq!(
        deployment["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(deployment["spec"]["replicas"], 1);
    assert_eq!(deployment["spec"]["template"]["spec"]["restartPolicy"], "Always");
    assert!(deployment["spec"]["template"]["spec"].get("enableServiceLinks").is_none());
}

#[test]
fn wrong_types_are_left_for_the_check_to_report() {
    for spec in [
        json!(7),
        json!([]),
        json!({"containers": 1, "volumes": {"a": 1}}),
        json!({"containers": [1, {"resources": 4, "ports": 5}]}),
    ] {
        for kind in kinds().iter() {
            defaulted(json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {}, "spec": spec}));
        }
    }
}
