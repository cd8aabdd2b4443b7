//! Verbs on objects.

use crate::*;
use reddwarf_objects::Object;
use reddwarf_registry::{Author, Declared};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub fn map(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": value}})
}

#[tokio::test]
async fn create_get_list_update_patch_delete() {
    let world = World::new().await;
    let (code, made) = world.post(MAPS, map("a", "1")).await;
    assert_eq!((code, made["kind"].clone(), made["apiVersion"].clone()), (201, json!("ConfigMap"), json!("v1")));
    let one = format!("{MAPS}/a");
    assert_eq!(world.get(&one).await, (200, made.clone()));
    let (_, list) = world.get("/api/v1/configmaps?limit=500&").await;
    assert_eq!((list["kind"].clone(), list["items"][0]["kind"].clone()), (json!("ConfigMapList"), Value::Null));
    assert_eq!(list["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let mut changed = made.clone();
    changed["data"]["k"] = "2".into();
    let (code, _, put) = world.ask("PUT", &one, &changed.to_string()).await;
    assert_eq!((code, put["data"]["k"].clone()), (200, json!("2")));
    let (code, _, patched) = world.ask("PATCH", &one, r#"{"data":{"k":null,"n":"3"}}"#).await;
    assert_eq!((code, patched["data"].clone()), (200, json!({"n": "3"})));
    let (code, _, again) = world.ask("PATCH", &one, r#"{"data":{"n":"3"}}"#).await;
    assert_eq!((code, again), (200, patched), "a patch that changes nothing makes no version");
    let (code, _, conflict) = world.ask("PUT", &one, &made.to_string()).await;
    assert_eq!((code, conflict["reason"].clone()), (409, json!("Conflict")));
    assert_eq!(world.ask("DELETE", &one, "").await.0, 200);
    assert_eq!(world.get(&one).await.0, 404);
}

#[tokio::test]
async fn status_is_a_half_of_its_own() {
    let world = World::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "main", "image": "a"}]},
        "status": {"phase": "Running"}});
    let (_, made) = world.post(pods, pod).await;
    assert_eq!(made["status"]["phase"], "Pending");
    let patch = r#"{"status":{"phase":"Running"},"spec":{"nodeName":"x"}}"#;
    let (code, _, patched) = world.ask("PATCH", &format!("{pods}/web/status"), patch).await;
    assert_eq!((code, patched["status"]["phase"].clone()), (200, json!("Running")));
    assert_eq!(patched["spec"].get("nodeName"), None);
    assert_eq!(world.get(&format!("{pods}/web/status")).await, (200, patched));
    assert_eq!(world.ask("DELETE", &format!("{pods}/web/status"), "").await.0, 405);
}

#[tokio::test]
async fn long_lists_are_streamed_whole_and_paged_on_request() {
    let world = World::new().await;
    let object = |n: usize| {
        let mut value = map(&format!("c{n:04}"), "x");
        value["apiVersion"] = "v1".into();
        value["kind"] = "ConfigMap".into();
        Declared { object: Object::from_value(value).unwrap(), source: None }
    };
    let author = Author::Api { user: "test".into() };
    world.registry.apply_set(&author, (0..1203).map(object).collect(), Default::default()).await.unwrap();
    let (code, list) = world.get(MAPS).await;
    let names: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!((code, names.len(), names[0], names[1202]), (200, 1203, "c0000", "c1202"));
    assert!(names.is_sorted());
    assert_eq!(list["metadata"], json!({"resourceVersion": world.registry.revision().to_string()}));
    let (_, page) = world.get(&format!("{MAPS}?limit=1000")).await;
    assert_eq!(
        (page["items"].as_array().unwrap().len(), page["metadata"]["remainingItemCount"].clone()),
        (1000, json!(203))
    );
    let (_, rest) =
        world.get(&format!("{MAPS}?limit=1000&continue={}", page["metadata"]["continue"].as_str().unwrap())).await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 203);
    let (code, bad) = world.get(&format!("{MAPS}?continue=xx")).await;
    assert_eq!(code, 400);
    assert!(bad["message"].as_str().unwrap().starts_with("invalid continue token: continue key is not valid: "));
    world.registry.store().compact(world.registry.revision()).await.unwrap();
    let (code, old) = world.get(&format!("{MAPS}?resourceVersion=1&resourceVersionMatch=Exact")).await;
    assert_eq!(
        (code, old),
        (
            410,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "The resourceVersion for the provided list is too old.", "reason": "Expired", "code": 410})
        )
    );
}

#[tokio::test]
async fn what_files_declare_is_refused_with_the_files_name() {
    let world = World::new().await;
    let mut value = map("a", "1");
    value["apiVersion"] = "v1".into();
    value["kind"] = "ConfigMap".into();
    value["metadata"]["namespace"] = "default".into();
    let declared =
        Declared { object: Object::from_value(value).unwrap(), source: Some("/etc/reddwarf.d/a.yaml".into()) };
    world.registry.apply_set(&Author::File("x".into()), vec![declared], Default::default()).await.unwrap();
    let one = format!("{MAPS}/a");
    let (code, _, refused) = world.ask("PATCH", &one, r#"{"data":{"k":"2"}}"#).await;
    assert_eq!((code, refused["reason"].clone()), (409, json!("Conflict")));
    assert_eq!(
        refused["message"],
        "Operation cannot be fulfilled on configmaps \"a\": it is declared by /etc/reddwarf.d/a.yaml; change data[k] there"
    );
    assert_eq!(
        refused["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"/etc/reddwarf.d/a.yaml\"", "field": "data[k]"}])
    );
    let (code, _, refused) = world.ask("DELETE", &one, "").await;
    assert_eq!(code, 409);
    assert!(refused["message"].as_str().unwrap().contains("remove it from that file"), "{refused}");
    let (code, _, _) = world.ask("PATCH", &one, r#"{"metadata":{"labels":{"mine":"yes"}}}"#).await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn unknown_fields_never_reach_the_store() {
    let world = World::new().await;
    let body = json!({"metadata": {"name": "a"}, "data": {"k": "1"}, "bogus": {"x": 1}});
    let (code, _, made) = world.ask("POST", &format!("{MAPS}?fieldValidation=Ignore"), &body.to_string()).await;
    assert_eq!((code, made.get("bogus")), (201, None));
    let (code, headers, patched) = world.ask("PATCH", &format!("{MAPS}/a"), r#"{"data":{"k":"2"},"bogus":1}"#).await;
    assert_eq!((code, patched["data"]["k"].clone(), patched.get("bogus")), (200, json!("2"), None));
    assert!(headers["warning"].to_str().unwrap().contains("bogus"));
    let (code, _, wrong) = world.ask("PATCH", &format!("{MAPS}/a"), r#"{"data":"text"}"#).await;
    assert_eq!((code, wrong["details"]["causes"][0]["field"].clone()), (422, json!("patch")), "{wrong}");
}

#[tokio::test]
async fn logs_are_passed_on_with_their_options() {
    let world = World::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [
        {"name": "main", "image": "a"}, {"name": "side", "image": "a"}]}});
    world.post(pods, pod).await;
    let log = |query: &str| format!("{pods}/web/log?{query}");
    let (code, _, text) =
        world.ask("GET", &log("container=main&tailLines=5&timestamps=true&limitBytes=100&previous=true"), "").await;
    assert_eq!((code, text), (200, json!("one\ntwo\n")));
    let asked = world.fake.asked.lock().unwrap().join("\n");
    for part in
        ["container: \"main\"", "tail_lines: Some(5)", "timestamps: true", "limit_bytes: Some(100)", "previous: true"]
    {
        assert!(asked.contains(part), "{part} in {asked}");
    }
    let (code, body) = world.get(&log("")).await;
    assert_eq!(
        (code, body["message"].clone()),
        (400, json!("a container name must be specified for pod web, choose one of: [main side]"))
    );
    assert_eq!(world.get(&log("container=nope")).await.1["message"], "container nope is not valid for pod web");
    let (code, body) = world.get(&log("container=main&tailLines=-1")).await;
    assert_eq!(
        (code, body["message"].clone()),
        (
            422,
            json!("PodLogOptions \"web\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0")
        )
    );
    assert_eq!(world.get(&format!("{pods}/nope/log")).await.1["message"], "pods \"nope\" not found");
}

#[tokio::test]
async fn f45_a_followed_log_ends_with_its_reader() {
    let world = World::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    world
        .post(pods, json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "main", "image": "a"}]}}))
        .await;
    let mut response = world.send("GET", &format!("{pods}/web/log?follow=true"), &[], "").await;
    use http_body_util::BodyExt;
    let first = soon(response.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(first.data_ref().unwrap(), "first\n");
    let sender = world.fake.logs.lock().unwrap().pop().unwrap();
    drop(response);
    soon(sender.closed()).await;
}
