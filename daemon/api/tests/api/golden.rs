//! Answers compared with the reference's recorded ones.

use crate::*;

#[tokio::test]
async fn statuses_are_the_references() {
    let world = World::new().await;
    world.namespace("probe").await;
    for block in include_str!("golden.txt").split("\n### ").skip(1) {
        let mut lines = block.lines();
        let (title, request, answer) = (lines.next().unwrap(), lines.next().unwrap(), lines.next().unwrap());
        let mut words = request.splitn(3, ' ');
        let (method, path, body) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
        let (media, body) = match body.split_once(' ') {
            Some((media, body)) if media.starts_with("application/") => (media, body.replace("\\n", "\n")),
            _ => ("application/json", body.to_owned()),
        };
        let (code, wanted) = answer.split_once(' ').unwrap_or((answer, ""));
        let live = world.registry.find(&reddwarf_objects::ObjectKey::core("configmaps", "probe", "a")).unwrap();
        let uid = live.as_ref().and_then(|o| o.uid()).unwrap_or_default().to_owned();
        let rv = live.as_ref().and_then(|o| o.resource_version()).unwrap_or_default().to_string();
        let headers = [("content-type", media), ("user-agent", "probe/1")];
        let (got, headers, text) = finish(world.send(method, path, &headers, &body).await).await;
        assert_eq!(got.to_string(), code, "{title}: {text}");
        assert_eq!(headers["content-type"], "application/json", "{title}");
        assert_eq!(headers["cache-control"], "no-cache, private", "{title}");
        assert!(headers.contains_key("audit-id"), "{title}");
        if !wanted.is_empty() {
            let current = world.registry.revision().to_string();
            let wanted = wanted.replace("{uid}", &uid).replace("{rv}", &rv).replace("{current}", &current);
            let wanted: Value = serde_json::from_str(&wanted).unwrap();
            assert_eq!(masked(text), masked(wanted), "{title}");
        }
    }
}

/// An object without what a server makes up.
fn masked(mut value: Value) -> Value {
    if value["kind"] != "Status"
        && let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
    {
        for field in ["uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"] {
            metadata.remove(field);
        }
        for owner in metadata.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
            owner.as_object_mut().unwrap().remove("time");
        }
    }
    value
}

#[tokio::test]
async fn other_formats_and_paths() {
    let world = World::new().await;
    let at = "/api/v1/namespaces/default/configmaps";
    let (code, _, body) = finish(world.send("GET", "/nope", &[], "").await).await;
    assert_eq!((code, body), (404, json!("404 page not found\n")));
    let (code, _, body) = finish(world.send("POST", at, &[("content-type", "text/plain")], "x").await).await;
    assert_eq!((code, body["reason"].clone()), (415, json!("UnsupportedMediaType")));
    let (code, _, body) = finish(world.send("GET", at, &[("accept", "text/html")], "").await).await;
    assert_eq!((code, body["reason"].clone()), (406, json!("NotAcceptable")));
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    assert_eq!(finish(world.send("GET", at, &[("accept", table)], "").await).await.0, 200);
    let (code, _, body) = world.ask("POST", at, "{").await;
    assert_eq!(code, 400);
    assert!(
        body["message"].as_str().unwrap().starts_with(
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error:"
        ),
        "{body}"
    );
    let yaml = "metadata:\n  name: fromyaml\ndata:\n  a: b\n";
    let (code, _, body) = finish(world.send("POST", at, &[("content-type", "application/yaml")], yaml).await).await;
    assert_eq!((code, body["data"]["a"].clone()), (201, json!("b")));
    let (code, headers, _) =
        world.ask("POST", &format!("{at}?dryRun=All"), r#"{"metadata":{"name":"s"},"bogus":1}"#).await;
    assert_eq!((code, headers["warning"].to_str().unwrap()), (201, "299 - \"unknown field \\\"bogus\\\"\""));
}

#[tokio::test]
async fn discovery_lists_what_is_served() {
    let world = World::new().await;
    assert_eq!(world.get("/api").await.1["versions"], json!(["v1"]));
    let (_, groups) = world.get("/apis").await;
    let apps = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == "apps").unwrap();
    assert_eq!(apps["preferredVersion"], json!({"groupVersion": "apps/v1", "version": "v1"}));
    assert_eq!(world.get("/apis/apps").await.1["kind"], "APIGroup");
    let (_, core) = world.get("/api/v1").await;
    let named = |name: &str| core["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).cloned().unwrap();
    assert_eq!(named("pods")["shortNames"], json!(["po"]));
    assert_eq!(
        named("pods")["verbs"],
        json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"])
    );
    assert_eq!(named("pods/log")["verbs"], json!(["get"]));
    assert_eq!(world.get("/apis/apps/v9").await.0, 404);
    let (code, version) = world.get("/version").await;
    assert_eq!((code, version["major"].clone(), version["minor"].clone()), (200, json!("1"), json!("36")));
}

#[tokio::test]
async fn what_a_patch_says_twice_is_named() {
    let world = World::new().await;
    let at = "/api/v1/namespaces/default/configmaps";
    world.post(at, json!({"metadata": {"name": "twice"}})).await;
    let (path, patch) = (format!("{at}/twice"), r#"{"data":{"a":"1","a":"2"},"bogus":1}"#);
    let (code, headers, _) = world.ask("PATCH", &path, patch).await;
    let warnings: Vec<&str> = headers.get_all("warning").iter().map(|w| w.to_str().unwrap()).collect();
    assert_eq!(code, 200);
    assert_eq!(warnings, [r#"299 - "duplicate field \"data.a\"""#, r#"299 - "unknown field \"bogus\"""#]);
    let (code, _, answer) = world.ask("PATCH", &format!("{path}?fieldValidation=Strict"), patch).await;
    assert_eq!(code, 422);
    let wanted = r#"strict decoding error: duplicate field "data.a", unknown field "bogus""#;
    assert!(answer["message"].as_str().unwrap().contains(wanted), "{answer}");
}
