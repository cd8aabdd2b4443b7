use super::{cell_text, reads, row, status_word};
use crate::Object;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

fn now() -> DateTime<Utc> {
    "2026-11-20T21:10:00Z".parse().unwrap()
}

/// The row with wide columns, a bar between cells.
fn line(mut value: Value) -> String {
    value["metadata"]["creationTimestamp"] = "2026-11-20T21:09:51Z".into();
    let object = Object::from_value(value).unwrap();
    let kind = object.known_kind().unwrap();
    let cells = row(kind, &object, now());
    assert_eq!(cells.len(), kind.columns.len());
    if let Some(partial) = reads(kind) {
        let part = partial.read(object.to_json().as_bytes()).unwrap();
        assert_eq!(row(kind, &part, now()), cells, "what is read is all that a row needs");
    }
    cells.iter().map(cell_text).collect::<Vec<_>>().join("|")
}

fn pod(spec: Value, status: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bb"}, "spec": spec, "status": status})
}

#[test]
fn a_running_pod_as_recorded() {
    let spec = json!({"nodeName": "peer-node", "containers": [{"name": "main"}, {"name": "web"}]});
    let running = json!({"name": "main", "ready": true, "restartCount": 0, "state": {"running": {}}, "lastState": {}});
    let status =
        json!({"phase": "Running", "podIPs": [{"ip": "10.244.0.34"}], "containerStatuses": [running, running]});
    assert_eq!(line(pod(spec, status)), "bb|2/2|Running|0|9s|10.244.0.34|peer-node|<none>|<none>");
}

#[test]
fn a_crashing_pod_says_when_it_last_ended() {
    let ended = json!({"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "2026-11-20T21:05:00Z"}});
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    let status = json!({"phase": "Running", "containerStatuses": [{"name": "a", "restartCount": 3, "state": waiting, "lastState": ended}]});
    assert_eq!(
        line(pod(json!({"containers": [{"name": "a"}]}), status)),
        "bb|0/1|CrashLoopBackOff|3 (5m ago)|9s|<none>|<none>|<none>|<none>"
    );
}

#[test]
fn words_of_init_containers_and_ends() {
    let word = |value: Value| status_word(&Object::from_value(value).unwrap());
    let spec = json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]});
    let init = |state: Value| json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 0, "state": state}]});
    assert_eq!(word(pod(spec.clone(), init(json!({"running": {}})))), "Init:0/2");
    assert_eq!(word(pod(spec.clone(), init(json!({"terminated": {"exitCode": 2}})))), "Init:ExitCode:2");
    assert_eq!(
        word(pod(spec.clone(), init(json!({"waiting": {"reason": "CrashLoopBackOff"}})))),
        "Init:CrashLoopBackOff"
    );
    let one = |phase: &str, state: Value| json!({"phase": phase, "containerStatuses": [{"name": "a", "restartCount": 0, "state": state}]});
    assert_eq!(
        word(pod(spec.clone(), one("Succeeded", json!({"terminated": {"exitCode": 0, "reason": "Completed"}})))),
        "Completed"
    );
    assert_eq!(
        word(pod(spec.clone(), one("Failed", json!({"terminated": {"exitCode": 137, "signal": 9}})))),
        "Signal:9"
    );
    let mut dying = pod(spec, one("Running", json!({"running": {}})));
    dying["metadata"]["deletionTimestamp"] = "2026-11-20T21:10:00Z".into();
    assert_eq!(word(dying), "Terminating");
}

#[test]
fn other_kinds() {
    for (value, expected) in [
        (
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "rec"}, "status": {"phase": "Active"}}),
            "rec|Active|9s",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}, "binaryData": {"b": ""}}),
            "c|2|9s",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "Opaque", "data": {"a": "1"}}),
            "s|Opaque|1|9s",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"type": "NodePort", "clusterIP": "10.96.0.1",
                "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}], "selector": {"app": "web"}}}),
            "web|NodePort|10.96.0.1|<none>|80:30080/TCP,53/UDP|9s|app=web",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}},
                "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}], "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian"}}}),
            "n|Ready,SchedulingDisabled|control-plane|9s|v1.36.0|10.0.0.1|<none>|Debian|<unknown>|<unknown>",
        ),
        (
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
                "template": {"spec": {"containers": [{"name": "x", "image": "i"}]}}}, "status": {"readyReplicas": 1, "updatedReplicas": 2}}),
            "d|1/2|2|0|9s|x|i|a=b",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "type": "Normal", "reason": "Started", "message": "Container started\n",
                "involvedObject": {"kind": "Pod", "name": "bb"}, "source": {"component": "kubelet", "host": "n"}, "count": 5,
                "firstTimestamp": "2026-11-20T21:07:48Z", "lastTimestamp": "2026-11-20T21:09:07Z"}),
            "53s|Normal|Started|pod/bb||kubelet, n|Container started|2m12s|5|e",
        ),
        (
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "web-gvdld"}, "addressType": "IPv4",
                "ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.244.0.45"]}, {"addresses": ["10.244.0.42"]}]}),
            "web-gvdld|IPv4|8080|10.244.0.45,10.244.0.42|9s",
        ),
    ] {
        assert_eq!(line(value), expected);
    }
}

#[test]
fn kinds_of_the_api_itself() {
    for (value, expected) in [
        (
            json!({"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": "store"},
                "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}]}),
            "store|Healthy|ok|",
        ),
        (
            json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.apps"}, "spec": {"version": "v1"},
                "status": {"conditions": [{"type": "Available", "status": "True", "reason": "Local"}]}}),
            "v1.apps|Local|True|9s",
        ),
        (
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "w"}, "webhooks": [{}, {}]}),
            "w|2|9s",
        ),
        (
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"},
                "spec": {"validations": [{}], "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}}),
            "p|1|v1/ConfigMap|9s",
        ),
        (
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "b"},
                "spec": {"policyName": "p"}}),
            "b|p|<unset>|9s",
        ),
        (
            json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "c"},
                "spec": {"signerName": "example.com/s", "username": "alice", "expirationSeconds": 3600},
                "status": {"conditions": [{"type": "Approved"}], "certificate": "eA=="}}),
            "c|9s|example.com/s|alice|60m|Approved,Issued",
        ),
        (
            json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "f"},
                "spec": {"priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 1},
                "status": {"conditions": [{"type": "Dangling", "status": "False"}]}}),
            "f|exempt|1|<none>|9s|False",
        ),
        (
            json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": {"name": "l"},
                "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 5, "limitResponse": {"type": "Queue", "queuing": {"queues": 64, "handSize": 6, "queueLengthLimit": 50}}}}}),
            "l|Limited|5|64|6|50|9s",
        ),
    ] {
        assert_eq!(line(value), expected);
    }
}

#[test]
fn every_kind_prints_even_nonsense() {
    for kind in crate::kinds().iter() {
        for part in [json!(null), json!(3), json!({"metrics": [{"type": "ü"}], "ports": 4}), json!([[]])] {
            let object = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": "x"}, "spec": part, "status": part, "subsets": part});
            assert_eq!(row(kind, &Object::from_value(object).unwrap(), now()).len(), kind.columns.len());
        }
    }
}
