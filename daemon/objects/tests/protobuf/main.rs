//! Protobuf bodies that kubectl sent, beside the JSON that it prints for the same command with `--dry-run=client -o json`.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use reddwarf_objects::kind::{bodies, kinds};
use reddwarf_objects::{protobuf, schema};
use serde_json::{Value, json};

/// The body as JSON, apiVersion and kind put in.
fn decoded(bytes: &[u8]) -> Value {
    let envelope = protobuf::envelope(bytes).unwrap();
    let find = |table: &'static reddwarf_objects::KindTable| table.by_gvk(envelope.api_version, envelope.kind);
    let kind = find(kinds()).or_else(|| find(bodies())).unwrap();
    let message = protobuf::decode(schema::of_kind(kind).unwrap(), envelope.raw).unwrap();
    assert!(message.unknown.is_empty(), "{:?}", message.unknown);
    let mut fields = message.fields;
    fields.insert("apiVersion".to_owned(), envelope.api_version.into());
    fields.insert("kind".to_owned(), envelope.kind.into());
    Value::Object(fields)
}

/// Nulls and empty maps say nothing; some JSON writers leave them out and others do not.
fn without_empty(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(without_empty);
            map.retain(|_, v| !v.is_null() && v.as_object().is_none_or(|m| !m.is_empty()));
        }
        Value::Array(list) => list.iter_mut().for_each(without_empty),
        _ => {}
    }
}

macro_rules! bodies_as_json {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_bytes!(concat!($name, ".pb")).as_slice(), include_str!(concat!($name, ".json")))),*]
    };
}

#[test]
fn what_kubectl_sends_is_what_kubectl_prints() {
    for (name, body, printed) in bodies_as_json![
        "namespace",
        "configmap",
        "secret",
        "deployment",
        "job",
        "cronjob",
        "role",
        "clusterrole",
        "rolebinding",
        "quota",
        "serviceaccount",
        "service",
        "ingress",
        "pdb",
        "priorityclass",
        "autoscaler",
        "tokenrequest",
        "selfsubjectaccessreview",
        "selfsubjectrulesreview",
        "selfsubjectreview",
        "pod",
    ] {
        let (mut ours, mut theirs) = (decoded(body), serde_json::from_str(printed).unwrap());
        without_empty(&mut ours);
        without_empty(&mut theirs);
        assert_eq!(ours, theirs, "{name}");
    }
}

#[test]
fn maps_and_zeros_are_as_json_has_them() {
    let namespace = decoded(include_bytes!("namespace.pb"));
    assert_eq!(
        namespace,
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}, "spec": {}, "status": {}})
    );
    let pod = decoded(include_bytes!("pod.pb"));
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 0);
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    assert!(pod["spec"].get("hostNetwork").is_none());
}
