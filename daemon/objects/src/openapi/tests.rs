use super::*;
use crate::kind::kinds;
use serde_json::Value;

fn parsed(group: &str, version: &str) -> Value {
    serde_json::from_str(&v3(group, version).unwrap()).unwrap()
}

/// Every `$ref` in a value.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(list) => list.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    for (group, version) in group_versions() {
        let document = parsed(group, version);
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty(), "{group}/{version}");
        for reference in found {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(document["components"]["schemas"].get(name).is_some(), "{group}/{version}: {name}");
        }
    }
    let document: Value = serde_json::from_str(&v2_json()).unwrap();
    let mut found = Vec::new();
    references(&document, &mut found);
    for reference in found {
        let name = reference.strip_prefix("#/definitions/").unwrap();
        assert!(document["definitions"].get(name).is_some(), "{name}");
    }
}

#[test]
fn every_kind_can_be_found_by_its_name() {
    for (group, version) in group_versions() {
        let document = parsed(group, version);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for kind in kinds().iter().filter(|k| (k.group, k.version) == (group, version)) {
            let gvk = serde_json::json!({"group": group, "version": version, "kind": kind.kind});
            let kinds_of =
                |schema: &Value| schema["x-kubernetes-group-version-kind"].as_array().cloned().unwrap_or_default();
            assert_eq!(schemas.values().filter(|s| kinds_of(s).contains(&gvk)).count(), 1, "{gvk}");
        }
        let items = document["paths"].as_object().unwrap().values().map(|item| item.as_object().unwrap());
        let ids: Vec<&str> = items.flat_map(|item| item.values()).filter_map(|o| o["operationId"].as_str()).collect();
        let distinct: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), distinct.len(), "{ids:?}");
    }
}

#[test]
fn patches_say_that_fields_are_validated() {
    let document = parsed("apps", "v1");
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    assert_eq!(patch["x-kubernetes-action"], "patch");
    let names: Vec<&str> = patch["parameters"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
    assert!(names.contains(&"fieldValidation") && names.contains(&"force"));
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    assert_eq!(
        scale["x-kubernetes-group-version-kind"],
        serde_json::json!({"group": "autoscaling", "version": "v1", "kind": "Scale"})
    );
    assert_eq!(scale["operationId"], "readAppsV1NamespacedDeploymentScale");
}

#[test]
fn schemas_say_what_the_reference_says() {
    let document = parsed("", "v1");
    let schemas = &document["components"]["schemas"];
    let container = &schemas["io.k8s.api.core.v1.Container"]["properties"];
    let ports = &container["ports"];
    assert_eq!(ports["x-kubernetes-list-map-keys"], serde_json::json!(["containerPort", "protocol"]));
    assert_eq!((ports["x-kubernetes-list-type"].as_str(), ports["type"].as_str()), (Some("map"), Some("array")));
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
    assert_eq!(ports["items"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.core.v1.ContainerPort");
    assert_eq!(container["imagePullPolicy"]["enum"], serde_json::json!(["Always", "IfNotPresent", "Never"]));
    assert!(container["image"]["description"].as_str().unwrap().starts_with("Container image name."));
    let port = &schemas["io.k8s.api.core.v1.ContainerPort"];
    assert_eq!(port["properties"]["protocol"]["default"], "TCP");
    assert_eq!(port["required"], serde_json::json!(["containerPort"]));
    assert_eq!(schemas["io.k8s.api.core.v1.Pod"]["properties"]["spec"]["default"], serde_json::json!({}));
    assert_eq!(schemas["io.k8s.api.core.v1.PodList"]["required"], serde_json::json!(["items"]));
}

#[test]
fn versions_that_there_are_not_have_no_document() {
    assert!(v3("apps", "v2").is_none() && v3("nope", "v1").is_none());
}

/// The fields of a message: tag and, for those that hold something, what they hold.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = varint(&mut bytes);
        if key & 7 == 2 {
            let (content, rest) = bytes.split_at(length as usize);
            found.push((key >> 3, content));
            bytes = rest;
        } else {
            found.push((key >> 3, &[]));
        }
    }
    found
}

#[test]
fn the_protobuf_form_holds_what_the_json_form_holds() {
    let bytes = v2_protobuf();
    let json: Value = serde_json::from_str(&v2_json()).unwrap();
    let document = fields(&bytes);
    let of = |tag: u64| document.iter().find(|(t, _)| *t == tag).map(|(_, content)| fields(content)).unwrap();
    assert_eq!(document[0], (1, b"2.0".as_slice()));
    assert_eq!(of(8).len(), json["paths"].as_object().unwrap().len());
    let definitions = of(9);
    assert_eq!(definitions.len(), json["definitions"].as_object().unwrap().len());
    let pod = definitions.iter().map(|(_, d)| fields(d)).find(|d| d[0].1 == b"io.k8s.api.core.v1.Pod").unwrap();
    let schema = fields(pod[1].1);
    let description = schema.iter().find(|(tag, _)| *tag == 4).unwrap().1;
    assert_eq!(
        Some(std::str::from_utf8(description).unwrap()),
        json["definitions"]["io.k8s.api.core.v1.Pod"]["description"].as_str()
    );
}
