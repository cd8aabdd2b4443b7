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
fn autoscalers_print_what_there_is_of_what_should_be() {
    let of = |metrics: Value, current: Value| {
        let spec = json!({"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 3, "metrics": metrics});
        let autoscaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": spec, "status": {"currentMetrics": current, "currentReplicas": 2}});
        line(autoscaler).split('|').nth(2).unwrap().to_owned()
    };
    let resource =
        |name: &str, target: Value| json!({"type": "Resource", "resource": {"name": name, "target": target}});
    let named = |kind: &str, source: &str, target: Value| json!({"type": kind, source: {"metric": {"name": "m"}, "target": target}});
    let (half, one) = (json!({"averageUtilization": 50}), json!({"averageValue": "1k"}));
    let cpu = resource("cpu", half.clone());
    let used = json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7, "averageValue": "70m"}}});
    assert_eq!(of(json!([]), json!([])), "<none>");
    assert_eq!(of(json!([cpu]), json!([])), "cpu: <unknown>/50%");
    assert_eq!(of(json!([cpu]), json!([used])), "cpu: 7%/50%");
    assert_eq!(of(json!([resource("cpu", one.clone())]), json!([used])), "cpu: 70m/1k");
    assert_eq!(of(json!([resource("memory", json!({}))]), json!([])), "memory: <unknown>/<auto>");
    let container =
        json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": half}});
    assert_eq!(of(json!([container]), json!([])), "cpu: <unknown>/50%");
    // What is no resource has no name here, and averages say that they are some.
    assert_eq!(of(json!([named("Pods", "pods", one.clone())]), json!([])), "<unknown>/1k");
    assert_eq!(of(json!([named("Object", "object", json!({"value": "5"}))]), json!([])), "<unknown>/5");
    let external = named("External", "external", one.clone());
    let measured = json!({"type": "External", "external": {"metric": {"name": "m"}, "current": {"averageValue": "2"}}});
    assert_eq!(of(json!([external]), json!([measured])), "2/1k (avg)");
    assert_eq!(of(json!([named("Object", "object", one)]), json!([])), "<unknown>/1k (avg)");
    assert_eq!(of(json!([external, cpu]), json!([])), "<unknown>/1k (avg), cpu: <unknown>/50%");
    assert_eq!(
        of(json!([cpu, external, cpu, {"type": "New"}]), json!([])),
        "cpu: <unknown>/50%, <unknown>/1k (avg) + 2 more..."
    );
    let text = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"}, "spec": {"minReplicas": 2}});
    let object = Object::from_value(text).unwrap();
    let cells = row(object.known_kind().unwrap(), &object, now());
    assert_eq!((&cells[3], &cells[4]), (&json!("2"), &json!(0)), "the least is text, the most a number");
}

#[test]
fn addresses_classes_and_modes_are_in_order() {
    for (value, expected) in [
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "lb"}, "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1",
                "externalIPs": ["1.1.1.1"], "ports": [{"port": 80}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "9.0.0.2"}, {"ip": "9.0.0.1"}, {"hostname": "a.example"}, {"ip": "9.0.0.2"}]}}}),
            "lb|LoadBalancer|10.96.0.1|9.0.0.1,9.0.0.2,a.example,1.1.1.1|80/TCP|9s|<none>",
        ),
        (
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i", "annotations": {"kubernetes.io/ingress.class": "old"}},
                "spec": {"rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "9.0.0.2"}, {"ip": "9.0.0.1"}, {"ip": "9.0.0.1"}]}}}),
            "i|<none>|a,b,c + 1 more...|9.0.0.1,9.0.0.2|80|9s",
        ),
        (
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "annotations": {"volume.beta.kubernetes.io/storage-class": "old"}},
                "spec": {"volumeName": "v", "storageClassName": "new"}, "status": {"phase": "Pending",
                "accessModes": ["ReadWriteOncePod", "ReadWriteMany", "ReadOnlyMany", "ReadWriteOnce", "ReadWriteMany"]}}),
            "c|Pending|v|0|RWO,ROX,RWX,RWOP|old|<unset>|9s|<unset>",
        ),
        (
            json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "storageClassName": "new"}, "status": {"phase": "Available"}}),
            "v|1Gi|RWO,RWX||Available||new|<unset>||9s|<unset>",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "e"}, "subsets": [{"notReadyAddresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}),
            "e||9s",
        ),
        (json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "e"}}), "e|<none>|9s"),
        (
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "s"}, "addressType": "IPv4",
                "ports": [{"name": "http"}, {"port": 80, "name": "x"}, {}], "endpoints": []}),
            "s|IPv4|http,80,*|<unset>|9s",
        ),
        (
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"name": ""}]}),
            "s|IPv4|<unset>|<unset>|9s",
        ),
        (
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "metadata": {"name": "gold",
                "annotations": {"volumeattributesclass.alpha.kubernetes.io/is-default-class": "true"}}, "driverName": "d"}),
            "gold (default)|d|9s",
        ),
        (
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": {
                "matchLabels": {"b": "2", "d": "4"}, "matchExpressions": [{"key": "c", "operator": "Exists"}, {"key": "a", "operator": "In", "values": ["z", "y"]}]}}}),
            "d|0/1|0|0|9s|||a in (y,z),b=2,c,d=4",
        ),
        (
            json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "p"}, "value": 7, "globalDefault": true, "preemptionPolicy": "Never"}),
            "p|7|true|9s|Never",
        ),
    ] {
        assert_eq!(line(value), expected);
    }
}

#[test]
fn rows_of_pods_that_are_over_say_so() {
    let of = |phase: &str| {
        let object = Object::from_value(pod(json!({}), json!({"phase": phase}))).unwrap();
        super::completed(object.known_kind().unwrap(), &object).map(|completed| (completed.reason, completed.message))
    };
    assert_eq!(of("Succeeded"), Some(("Succeeded", "The pod has completed successfully.")));
    assert_eq!(of("Failed"), Some(("Failed", "The pod failed.")));
    assert_eq!(of("Running"), None);
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
