//! Protobuf bodies as kubectl sends them: for objects, and for the options of a deletion.

use crate::*;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

macro_rules! body {
    ($name:literal) => {
        include_bytes!(concat!("../../../objects/tests/protobuf/", $name, ".pb")).as_slice()
    };
}

async fn create(world: &World, path: &str, body: &[u8]) -> (u16, Value) {
    let headers = [("content-type", PROTOBUF), ("accept", "application/vnd.kubernetes.protobuf,application/json")];
    let (code, headers, body) = finish(world.send("POST", path, &headers, body).await).await;
    assert_eq!(headers["content-type"], "application/json");
    (code, body)
}

#[tokio::test]
async fn what_kubectl_creates_is_there() {
    let world = World::new().await;
    let strict = "fieldManager=kubectl-create&fieldValidation=Strict";
    for (path, body, name) in [
        ("/api/v1/namespaces", body!("namespace"), "demo"),
        ("/api/v1/namespaces/default/configmaps", body!("configmap"), "cm"),
        ("/api/v1/namespaces/default/secrets", body!("secret"), "r"),
        ("/apis/apps/v1/namespaces/default/deployments", body!("deployment"), "web"),
        ("/apis/batch/v1/namespaces/default/jobs", body!("job"), "j"),
        ("/apis/batch/v1/namespaces/default/cronjobs", body!("cronjob"), "cj"),
        ("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", body!("role"), "r"),
        ("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", body!("rolebinding"), "rb"),
        ("/api/v1/namespaces/default/resourcequotas", body!("quota"), "q"),
        ("/api/v1/namespaces/default/serviceaccounts", body!("serviceaccount"), "sa"),
        ("/apis/networking.k8s.io/v1/namespaces/default/ingresses", body!("ingress"), "ing"),
        ("/apis/policy/v1/namespaces/default/poddisruptionbudgets", body!("pdb"), "pdb"),
        ("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", body!("autoscaler"), "web"),
    ] {
        let (code, answer) = create(&world, &format!("{path}?{strict}"), body).await;
        assert_eq!((code, answer["metadata"]["name"].clone()), (201, json!(name)), "{path}: {answer}");
    }
    let (_, secret) = world.get("/api/v1/namespaces/default/configmaps/cm").await;
    assert_eq!((secret["data"]["a"].clone(), secret["binaryData"]["bin"].clone()), (json!("1"), json!("AP8Q")));
    let (_, deployment) = world.get("/apis/apps/v1/namespaces/default/deployments/web").await;
    assert_eq!(deployment["spec"]["replicas"], 3);
    assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"], 80);
}

#[tokio::test]
async fn what_is_no_such_message_is_refused() {
    let world = World::new().await;
    let at = "/api/v1/namespaces/default/configmaps";
    let (code, body) = create(&world, at, body!("secret")).await;
    let message = "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion";
    assert_eq!((code, body["message"].clone()), (400, json!(message)));
    for (bytes, why) in
        [(b"{}".as_slice(), "expected prefix [107 56 115 0]"), (&body!("configmap")[..40], "unexpected end of data")]
    {
        let (code, body) = create(&world, at, bytes).await;
        assert_eq!(code, 400);
        assert!(body["message"].as_str().unwrap().contains(why), "{body}");
    }
    // metadata has no field 99: a newer client than this server.
    let mut newer = body!("configmap").to_vec();
    newer.extend(b"\x12\x0c\x0a\x0a\x0a\x05newer\x98\x06\x01");
    let (code, body) = create(&world, &format!("{at}?fieldValidation=Strict"), &newer).await;
    assert_eq!(code, 400, "{body}");
    assert!(
        body["message"].as_str().unwrap().ends_with("strict decoding error: unknown field \"metadata.#99\""),
        "{body}"
    );
    let (code, headers, _) = finish(world.send("POST", at, &[("content-type", PROTOBUF)], &newer).await).await;
    assert_eq!((code, headers["warning"].to_str().unwrap()), (201, "299 - \"unknown field \\\"metadata.#99\\\"\""));
}

#[tokio::test]
async fn options_of_a_deletion_are_read() {
    let world = World::new().await;
    let at = "/api/v1/namespaces/default/configmaps";
    create(&world, at, body!("configmap")).await;
    // DeleteOptions { preconditions { uid: "nope" } }
    let options = b"k8s\0\x0a\x13\x0a\x02v1\x12\x0dDeleteOptions\x12\x08\x12\x06\x0a\x04nope";
    let headers = [("content-type", PROTOBUF)];
    let (code, _, body) = finish(world.send("DELETE", &format!("{at}/cm"), &headers, options).await).await;
    assert_eq!(code, 409, "{body}");
    assert!(body["message"].as_str().unwrap().contains("nope"), "{body}");
    let patch = finish(world.send("PATCH", &format!("{at}/cm"), &headers, options).await).await;
    assert_eq!(patch.0, 415);
}

/// A field that holds bytes, in a message of less than 128 bytes.
fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
}

/// A body: the envelope of a message.
fn envelope(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(1, &type_meta), field(2, message)].concat()
}

#[tokio::test]
async fn subresources_take_protobuf() {
    let world = World::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    create(&world, deployments, body!("deployment")).await;
    // Scale { metadata { name: "web" }, spec { replicas: 7 } }
    let scale = envelope("autoscaling/v1", "Scale", &[field(1, &field(1, b"web")), field(2, &[0x08, 7])].concat());
    let headers = [("content-type", PROTOBUF)];
    let (code, _, answer) =
        finish(world.send("PUT", &format!("{deployments}/web/scale"), &headers, &scale).await).await;
    assert_eq!((code, answer["spec"]["replicas"].clone()), (200, json!(7)), "{answer}");

    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(world.post(pods, pod).await.0, 201);
    // Binding { metadata { name: "p" }, target { kind: "Node", name: "n" } }
    let target = [field(1, b"Node"), field(3, b"n")].concat();
    let binding = envelope("v1", "Binding", &[field(1, &field(1, b"p")), field(2, &target)].concat());
    let (code, answer) = create(&world, &format!("{pods}/p/binding"), &binding).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(world.get(&format!("{pods}/p")).await.1["spec"]["nodeName"], "n");
    // Eviction { metadata { name: "p" }, deleteOptions { gracePeriodSeconds: 0 } }
    let eviction = envelope("policy/v1", "Eviction", &[field(1, &field(1, b"p")), field(2, &[0x08, 0])].concat());
    let (code, answer) = create(&world, &format!("{pods}/p/eviction"), &eviction).await;
    assert_eq!((code, answer["status"].clone()), (201, json!("Success")), "{answer}");
    assert_eq!(world.get(&format!("{pods}/p")).await.0, 404);
}
