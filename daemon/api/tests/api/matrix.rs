//! Every verb for every kind: one code path serves them all, so a kind needs a row of the table and, where it has rules, an
//! example here.

use crate::*;
use reddwarf_objects::{Kind, kinds};

/// What an object of a kind needs besides its name to be valid.
fn example(kind: &Kind) -> Value {
    let containers = json!([{"name": "main", "image": "a"}]);
    let template = |labels: Value, restart: &str| json!({"metadata": {"labels": labels}, "spec": {"restartPolicy": restart, "containers": containers}});
    let selected = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template(json!({"a": "b"}), "Always")});
    let job = json!({"template": template(json!({}), "Never")});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"});
    match kind.kind {
        "Event" if kind.group.is_empty() => {
            json!({"involvedObject": {"namespace": "default", "kind": "Pod", "name": "p"}})
        }
        "Event" => {
            json!({"regarding": {"namespace": "default", "kind": "Pod", "name": "p"}, "eventTime": "2026-01-02T03:04:05.000000Z",
            "reportingController": "x.io/c", "reportingInstance": "i", "action": "a", "reason": "r", "type": "Normal"})
        }
        "PersistentVolumeClaim" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
        }
        "PersistentVolume" => {
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}})
        }
        "Pod" => json!({"spec": {"containers": containers}}),
        "PodTemplate" => json!({"template": template(json!({}), "Always")}),
        "ReplicationController" => {
            json!({"spec": {"selector": {"a": "b"}, "template": template(json!({"a": "b"}), "Always")}})
        }
        "Service" => json!({"spec": {"ports": [{"port": 80}]}}),
        "ControllerRevision" => json!({"revision": 1, "data": {"a": 1}}),
        "DaemonSet" | "Deployment" | "ReplicaSet" => json!({"spec": selected}),
        "StatefulSet" => {
            let mut spec = selected;
            spec["serviceName"] = "s".into();
            json!({"spec": spec})
        }
        "HorizontalPodAutoscaler" => {
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}})
        }
        "CronJob" => json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job}}}),
        "Job" => json!({"spec": job}),
        "CertificateSigningRequest" => {
            json!({"spec": {"request": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlISE1HNENBUUF3RERFS01BZ0dBMVVFQXd3QllUQlpNQk1HQnlxR1NNNDlBZ0VHQ0NxR1NNNDlBd0VIQTBJQQpCQzhEK1YxdFVUWE9QYzloUjRPVkVEWmlQYTErcDY3RWZ6MEVWb3YrcFp3QzFKUVF5cW51a2x5TUtqSFgzeHozCnk2Q3JBMzRVZDIxbkRRYVd0ekc4Wk82Z0FEQUtCZ2dxaGtqT1BRUURBZ05KQURCR0FpRUF4Tk5VRVlKVGRaZHYKNm50dVd2blAvek1qdWRUU05Xb2hKZXRYdUg5VTJzZ0NJUURlK0p6cWxuSG9xNnJZdkE0YnoydTV2UGtwb1pVVgpBTkVVaXlHRVNmUWVNQT09Ci0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=",
            "signerName": "example.com/s", "usages": ["client auth"]}})
        }
        "IngressClass" => json!({"spec": {"controller": "x.io/c"}}),
        "Ingress" => json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
        "IPAddress" => json!({"spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "s"}}}),
        "ServiceCIDR" => json!({"spec": {"cidrs": ["10.20.0.0/24"]}}),
        "ClusterRoleBinding" | "RoleBinding" => json!({"roleRef": role}),
        "CSIDriver" => json!({"spec": {}}),
        "CSINode" => json!({"spec": {"drivers": []}}),
        "CSIStorageCapacity" => json!({"storageClassName": "s"}),
        "StorageClass" => json!({"provisioner": "x.io/p"}),
        "VolumeAttachment" => {
            json!({"spec": {"attacher": "x.io", "nodeName": "n", "source": {"persistentVolumeName": "v"}}})
        }
        "VolumeAttributesClass" => json!({"driverName": "x.io", "parameters": {"a": "b"}}),
        "PriorityClass" => json!({"value": 5}),
        "RuntimeClass" => json!({"handler": "h"}),
        "EndpointSlice" => json!({"addressType": "IPv4", "endpoints": []}),
        "PodDisruptionBudget" => json!({"spec": {"minAvailable": 1}}),
        "MutatingAdmissionPolicy" | "ValidatingAdmissionPolicy" => policy(kind),
        "MutatingAdmissionPolicyBinding" => json!({"spec": {"policyName": "p"}}),
        "ValidatingAdmissionPolicyBinding" => json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}}),
        "CustomResourceDefinition" => json!({"spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}}),
        "FlowSchema" => json!({"spec": {"priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 100}}),
        "PriorityLevelConfiguration" => json!({"spec": {"type": "Exempt", "exempt": {}}}),
        _ => json!({}),
    }
}

fn policy(kind: &Kind) -> Value {
    let rules = json!({"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]});
    if kind.kind == "ValidatingAdmissionPolicy" {
        return json!({"spec": {"matchConstraints": rules, "validations": [{"expression": "true"}]}});
    }
    let patch = json!({"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}});
    json!({"spec": {"matchConstraints": rules, "reinvocationPolicy": "Never", "mutations": [patch]}})
}

fn name(kind: &Kind) -> &'static str {
    match kind.kind {
        "CustomResourceDefinition" => "widgets.example.com",
        "IPAddress" => "10.20.0.7",
        _ => "example",
    }
}

#[tokio::test]
async fn every_kind_takes_every_verb_that_it_lists() {
    let world = World::new().await;
    let mut wrong = Vec::new();
    for kind in kinds().iter().filter(|kind| !kind.is_virtual) {
        if let Err(why) = walk(&world, kind).await {
            wrong.push(format!("{} {}: {why}", kind.api_version(), kind.kind));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Creates, reads, changes in each way and deletes one object.
async fn walk(world: &World, kind: &Kind) -> Result<(), String> {
    let root = if kind.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}", kind.api_version()) };
    let home = if kind.namespaced {
        format!("{root}/namespaces/default/{}", kind.plural)
    } else {
        format!("{root}/{}", kind.plural)
    };
    let mut body = example(kind);
    body["metadata"] = json!({"name": name(kind)});
    let (code, made) = world.post(&home, body).await;
    is(code, 201, "create", &made)?;
    let one = format!("{home}/{}", name(kind));
    let (code, got) = world.get(&one).await;
    is(code, 200, "get", &got)?;
    if got != made {
        return Err(format!("get gives {got}, create gave {made}"));
    }
    let (code, list) = world.get(&home).await;
    is(code, 200, "list", &list)?;
    if !list["items"].as_array().is_some_and(|items| items.iter().any(|item| item["metadata"]["name"] == name(kind))) {
        return Err(format!("not in the list: {list}"));
    }
    let mut labelled = got.clone();
    labelled["metadata"]["labels"]["put"] = "1".into();
    let (code, _, put) = world.ask("PUT", &one, &labelled.to_string()).await;
    is(code, 200, "update", &put)?;
    for (media, patch) in [
        ("application/merge-patch+json", json!({"metadata": {"labels": {"merge": "1"}}})),
        ("application/strategic-merge-patch+json", json!({"metadata": {"labels": {"strategic": "1"}}})),
        ("application/json-patch+json", json!([{"op": "add", "path": "/metadata/labels/json", "value": "1"}])),
    ] {
        let response = world.send("PATCH", &one, &[("content-type", media)], &patch.to_string()).await;
        let (code, _, patched) = finish(response).await;
        is(code, 200, media, &patched)?;
    }
    let (_, now) = world.get(&one).await;
    for label in ["put", "merge", "strategic", "json"] {
        if now["metadata"]["labels"][label] != "1" {
            return Err(format!("the label {label} is lost: {now}"));
        }
    }
    if now["metadata"]["generation"] != made["metadata"]["generation"] {
        return Err("labels count as a change of the spec".to_owned());
    }
    let (code, _, again) = world.ask("PUT", &one, &now.to_string()).await;
    is(code, 200, "update with the same", &again)?;
    if again != now {
        return Err(format!("writing the same makes a difference: {again}, was {now}"));
    }
    for subresource in kind.subresources.iter().filter(|s| ["status", "scale"].contains(s)) {
        let at = format!("{one}/{subresource}");
        let (code, part) = world.get(&at).await;
        is(code, 200, subresource, &part)?;
        let (code, _, put) = world.ask("PUT", &at, &part.to_string()).await;
        is(code, 200, subresource, &put)?;
    }
    let (code, _, gone) = world.ask("DELETE", &format!("{one}?propagationPolicy=Background"), "").await;
    is(code, 200, "delete", &gone)?;
    is(world.get(&one).await.0, 404, "get after delete", &Value::Null)?;
    if kind.allows("deletecollection") {
        let (code, _, list) = world.ask("DELETE", &format!("{home}?labelSelector=none"), "").await;
        is(code, 200, "deletecollection", &list)?;
    }
    Ok(())
}

fn is(code: u16, wanted: u16, what: &str, body: &Value) -> Result<(), String> {
    if code == wanted { Ok(()) } else { Err(format!("{what}: {code} {}", body["message"])) }
}
