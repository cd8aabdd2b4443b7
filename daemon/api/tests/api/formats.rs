//! The same objects in every form that a client may ask for.

use crate::objects::map;
use crate::*;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use std::io::Read;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: &str =
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

async fn ask(world: &World, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, String) {
    let (parts, body) = world.send("GET", path, headers, "").await.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn json_of(world: &World, path: &str, accept: &str) -> Value {
    let (code, headers, text) = ask(world, path, &[("accept", accept)]).await;
    assert_eq!((code, &headers["content-type"]), (200, &"application/json".parse().unwrap()), "{text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn tables_of_one_and_of_many() {
    let world = World::new().await;
    let (_, a) = world.post(MAPS, map("a", "1")).await;
    world.post(MAPS, map("b", "1")).await;
    let table = json_of(&world, &format!("{MAPS}?limit=1"), TABLE).await;
    assert_eq!((table["kind"].clone(), table["apiVersion"].clone()), (json!("Table"), json!("meta.k8s.io/v1")));
    assert!(table["metadata"]["continue"].is_string() && table["metadata"]["remainingItemCount"] == 1);
    let columns = table["columnDefinitions"].as_array().unwrap();
    let named: Vec<_> = columns.iter().map(|c| (c["name"].as_str().unwrap(), c["type"].as_str().unwrap())).collect();
    assert_eq!(named, [("Name", "string"), ("Data", "string"), ("Age", "string")]);
    assert_eq!((columns[0]["format"].clone(), columns[0]["priority"].clone()), (json!("name"), json!(0)));
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["cells"][1], 1);
    assert_eq!(
        table["rows"][0]["object"],
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": a["metadata"]})
    );
    let one = json_of(&world, &format!("{MAPS}/a"), TABLE).await;
    assert_eq!((one["rows"].as_array().unwrap().len(), one["rows"][0]["cells"][0].clone()), (1, json!("a")));
    assert_eq!(one["metadata"]["resourceVersion"], a["metadata"]["resourceVersion"]);
    let none = json_of(&world, &format!("{MAPS}?includeObject=None"), TABLE).await;
    assert_eq!(none["rows"][1].get("object"), None);
    let whole = json_of(&world, &format!("{MAPS}?includeObject=Object"), TABLE).await;
    assert_eq!(whole["rows"][0]["object"], a);
    let (code, _, text) = ask(&world, &format!("{MAPS}?includeObject=Half"), &[("accept", TABLE)]).await;
    assert!(code == 400 && text.contains("Unable to convert to Table as requested"), "{text}");
    // A changed object is not printed from memory.
    world.ask("PATCH", &format!("{MAPS}/a"), r#"{"data":{"n":"2"}}"#).await;
    assert_eq!(json_of(&world, MAPS, TABLE).await["rows"][0]["cells"][1], 2);
}

#[tokio::test]
async fn a_scale_is_a_row_of_its_own() {
    let world = World::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    world.post(deployments, crate::writes::deployment("web")).await;
    let table = json_of(&world, &format!("{deployments}/web/scale"), TABLE).await;
    let columns = table["columnDefinitions"].as_array().unwrap();
    let text = |column: &Value, field: &str| column[field].as_str().unwrap().to_owned();
    let columns: Vec<_> = columns.iter().map(|c| (text(c, "name"), text(c, "type"), text(c, "format"))).collect();
    let wanted = [("Name", "string"), ("Desired", "integer"), ("Available", "integer"), ("Age", "string")];
    assert_eq!(columns, wanted.map(|(name, kind)| (name.to_owned(), kind.to_owned(), String::new())));
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..3], [json!("web"), json!(2), json!(0)]);
    assert_eq!(table["rows"][0]["object"]["metadata"]["name"], "web");
}

#[tokio::test]
async fn rows_of_finished_pods_have_a_condition() {
    let world = World::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    for name in ["done", "failed", "runs"] {
        let spec = json!({"containers": [{"name": "main", "image": "a"}], "restartPolicy": "Never"});
        assert_eq!(world.post(pods, json!({"metadata": {"name": name}, "spec": spec})).await.0, 201);
    }
    for (name, phase) in [("done", "Succeeded"), ("failed", "Failed"), ("runs", "Running")] {
        let status = json!({"status": {"phase": phase}}).to_string();
        assert_eq!(world.ask("PATCH", &format!("{pods}/{name}/status"), &status).await.0, 200);
    }
    let over = |reason: &str, message: &str| json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]);
    let expected =
        [over("Succeeded", "The pod has completed successfully."), over("Failed", "The pod failed."), Value::Null];
    // As printed now, and as remembered.
    for _ in 0..2 {
        let rows = json_of(&world, pods, TABLE).await["rows"].take();
        let conditions: Vec<Value> = rows.as_array().unwrap().iter().map(|row| row["conditions"].clone()).collect();
        assert_eq!(conditions, expected);
        assert_eq!(rows[0]["object"]["metadata"]["name"], "done");
    }
    let one = json_of(&world, &format!("{pods}/failed"), TABLE).await;
    assert_eq!(one["rows"][0]["conditions"], expected[1]);
}

/// The `Warning` headers of an answer, without what goes before their text.
fn warnings(headers: &HeaderMap) -> Vec<String> {
    let text = |value: &hyper::header::HeaderValue| value.to_str().unwrap().trim_start_matches("299 - ").to_owned();
    headers.get_all("warning").iter().map(text).collect()
}

#[tokio::test]
async fn every_answer_about_a_deprecated_kind_says_so() {
    let world = World::new().await;
    let endpoints = "/api/v1/namespaces/default/endpoints";
    let said = "\"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    let one = format!("{endpoints}/web");
    let body = json!({"metadata": {"name": "web"}, "bogus": 1}).to_string();
    let (code, headers, _) = world.ask("POST", endpoints, &body).await;
    assert_eq!((code, warnings(&headers)), (201, vec![said.to_owned(), "\"unknown field \\\"bogus\\\"\"".to_owned()]));
    for (method, path, code) in [
        ("GET", endpoints, 200),
        ("GET", one.as_str(), 200),
        ("PATCH", one.as_str(), 200),
        ("DELETE", one.as_str(), 200),
        ("GET", one.as_str(), 404),
        ("POST", one.as_str(), 405),
    ] {
        let (answered, headers, _) = world.ask(method, path, if method == "PATCH" { "{}" } else { "" }).await;
        assert_eq!((answered, warnings(&headers)), (code, vec![said.to_owned()]), "{method} {path}");
    }
    let watch = world.send("GET", &format!("{endpoints}?watch=true"), &[], "").await;
    assert_eq!(warnings(watch.headers()), [said]);
    let (_, headers, _) = world.ask("GET", "/api/v1/componentstatuses", "").await;
    assert_eq!(warnings(&headers), ["\"v1 ComponentStatus is deprecated in v1.19+\""]);
    let (_, headers, _) = world.ask("GET", "/apis/discovery.k8s.io/v1/endpointslices", "").await;
    assert!(warnings(&headers).is_empty());
}

#[tokio::test]
async fn changes_are_warned_of_where_the_spec_changed() {
    let world = World::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let one = format!("{deployments}/a.b");
    let container = json!({"name": "main", "image": "a", "env": [{"name": "A"}, {"name": "A"}]});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}});
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    let body = json!({"metadata": {"name": "a.b"}, "spec": spec}).to_string();
    let count = |answer: (u16, HeaderMap, Value)| {
        assert!(answer.0 < 300, "{answer:?}");
        warnings(&answer.1).len()
    };
    assert_eq!(count(world.ask("POST", deployments, &body).await), 2, "of its name and its environment");
    let labels = r#"{"metadata":{"labels":{"x":"y"}}}"#;
    assert_eq!(count(world.ask("PATCH", &one, labels).await), 0);
    assert_eq!(count(world.ask("PATCH", &format!("{one}/status"), r#"{"status":{"replicas":1}}"#).await), 0);
    assert_eq!(count(world.ask("PATCH", &one, r#"{"spec":{"paused":true}}"#).await), 1, "of its environment");
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "a.b"}, "spec": {"containers": [container]}}).to_string();
    assert_eq!(count(world.ask("POST", pods, &pod).await), 2);
    assert_eq!(count(world.ask("PATCH", &format!("{pods}/a.b"), labels).await), 0);
}

#[tokio::test]
async fn metadata_only_in_lists_singles_and_watches() {
    let world = World::new().await;
    let (_, a) = world.post(MAPS, map("a", "1")).await;
    let of_list = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let of_one = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let wanted = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": a["metadata"]});
    let list = json_of(&world, MAPS, of_list).await;
    assert_eq!((list["kind"].clone(), list["items"][0].clone()), (json!("PartialObjectMetadataList"), wanted.clone()));
    assert_eq!(json_of(&world, &format!("{MAPS}/a"), of_one).await, wanted);
    assert_eq!(ask(&world, MAPS, &[("accept", of_one)]).await.0, 406);
    assert_eq!(ask(&world, &format!("{MAPS}/a"), &[("accept", of_list)]).await.0, 406);
    let mut watch = Lines::of(world.send("GET", &format!("{MAPS}?watch=true"), &[("accept", of_one)], "").await);
    assert_eq!(soon(watch.next()).await.unwrap(), json!({"type": "ADDED", "object": wanted}));
    let mut watch = Lines::of(world.send("GET", &format!("{MAPS}?watch=true"), &[("accept", TABLE)], "").await);
    let first = soon(watch.next()).await.unwrap();
    assert_eq!(
        (first["object"]["kind"].clone(), first["object"]["rows"][0]["cells"][0].clone()),
        (json!("Table"), json!("a"))
    );
    assert_eq!(first["object"]["columnDefinitions"].as_array().unwrap().len(), 3);
    world.post(MAPS, map("b", "1")).await;
    let next = soon(watch.next()).await.unwrap();
    assert_eq!(next["object"]["rows"][0]["object"]["metadata"]["name"], "b");
    assert_eq!(next["object"]["columnDefinitions"], json!([]), "told once");
}

#[tokio::test]
async fn yaml_indented_and_compressed() {
    let world = World::new().await;
    let (_, a) = world.post(MAPS, map("a", "yes")).await;
    let (code, headers, yaml) = ask(&world, &format!("{MAPS}/a"), &[("accept", "application/yaml")]).await;
    assert_eq!((code, &headers["content-type"]), (200, &"application/yaml".parse().unwrap()));
    assert!(yaml.starts_with("apiVersion: v1\ndata:\n  k: \"yes\"\nkind: ConfigMap\nmetadata:\n"), "{yaml}");
    let read = |text: &str| {
        let (documents, findings) = reddwarf_config::parse_file("x.yaml", text.as_bytes(), &Default::default());
        assert!(findings.is_empty(), "{findings:?}");
        documents[0].value.clone()
    };
    assert_eq!(read(&yaml), a);
    let (_, _, list) = ask(&world, MAPS, &[("accept", "application/yaml")]).await;
    assert_eq!(read(&list), world.get(MAPS).await.1);
    let (code, _, missing) = ask(&world, &format!("{MAPS}/x"), &[("accept", "application/yaml")]).await;
    assert!(code == 404 && missing.starts_with("apiVersion: v1\ncode: 404\n"), "{missing}");
    let (_, _, compact) = ask(&world, &format!("{MAPS}/a"), &[]).await;
    assert!(!compact.contains('\n') && compact.starts_with(r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"#));
    for headers in [&[("user-agent", "curl/8.5.0")] as &[_], &[("user-agent", "Mozilla/5.0 (X11)")]] {
        let (_, _, pretty) = ask(&world, MAPS, headers).await;
        assert!(pretty.starts_with("{\n  \"kind\": \"ConfigMapList\",\n  \"apiVersion\": \"v1\",\n"), "{pretty}");
        assert_eq!(serde_json::from_str::<Value>(&pretty).unwrap(), world.get(MAPS).await.1);
    }
    let (_, _, pretty) = ask(&world, &format!("{MAPS}/a?pretty=true"), &[]).await;
    assert!(pretty.starts_with("{\n  \""));
    for n in 0..4 {
        world.post(MAPS, map(&format!("big{n}"), &"x".repeat(100_000))).await;
    }
    let zipped = |path: String| {
        let world = &world;
        async move {
            let (parts, body) = world.send("GET", &path, &[("accept-encoding", "gzip")], "").await.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let encoding = parts.headers.get("content-encoding").map(|v| v.to_str().unwrap().to_owned());
            (encoding, bytes)
        }
    };
    let (encoding, bytes) = zipped(MAPS.to_owned()).await;
    assert_eq!(encoding.as_deref(), Some("gzip"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), world.get(MAPS).await.1);
    assert_eq!(zipped(format!("{MAPS}/a")).await.0, None, "not worth it");
}

#[tokio::test]
async fn what_nobody_can_read_is_406() {
    let world = World::new().await;
    for accept in ["text/html", "application/vnd.kubernetes.protobuf", "application/json;as=Chart;v=v1;g=meta.k8s.io"] {
        let (code, headers, text) = ask(&world, MAPS, &[("accept", accept)]).await;
        assert_eq!((code, &headers["content-type"]), (406, &"application/json".parse().unwrap()), "{accept}");
        assert!(
            text.contains("\n  \"message\": \"406: Not Acceptable\\n\\nAvailable representations: application/json,"),
            "{text}"
        );
    }
    for accept in ["*/*", "application/vnd.kubernetes.protobuf,application/json", "application/json, */*"] {
        assert_eq!(ask(&world, MAPS, &[("accept", accept)]).await.0, 200, "{accept}");
    }
}

#[tokio::test]
async fn discovery_in_one_document() {
    let world = World::new().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    let (code, headers, text) = ask(&world, "/api?timeout=32s", &[("accept", accept)]).await;
    assert_eq!(code, 200);
    assert_eq!(headers["content-type"], "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let core: Value = serde_json::from_str(&text).unwrap();
    let find = |list: &Value, field: &str, name: &str| {
        list.as_array().unwrap().iter().find(|r| r[field] == name).unwrap_or_else(|| panic!("{name}")).clone()
    };
    let pods = find(&core["items"][0]["versions"][0]["resources"], "resource", "pods");
    assert_eq!((pods["scope"].clone(), pods["singularResource"].clone()), (json!("Namespaced"), json!("pod")));
    assert_eq!((pods["shortNames"].clone(), pods["categories"].clone()), (json!(["po"]), json!(["all"])));
    assert_eq!(
        find(&pods["subresources"], "subresource", "eviction"),
        json!({"subresource": "eviction", "responseKind": {"group": "policy", "version": "v1", "kind": "Eviction"}, "verbs": ["create"]})
    );
    let etag = headers["etag"].to_str().unwrap();
    let (code, again, text) = ask(&world, "/api", &[("accept", accept), ("if-none-match", etag)]).await;
    assert_eq!((code, text.as_str(), &again["etag"]), (304, "", &headers["etag"]));
    let (_, headers, text) = ask(&world, "/apis", &[("accept", accept)]).await;
    assert_ne!(headers["etag"], etag);
    let apis: Value = serde_json::from_str(&text).unwrap();
    let apps = apis["items"].as_array().unwrap().iter().find(|g| g["metadata"]["name"] == "apps").unwrap();
    assert_eq!(apps["versions"][0]["freshness"], "Current");
    let scale = find(
        &find(&apps["versions"][0]["resources"], "resource", "deployments")["subresources"],
        "subresource",
        "scale",
    );
    assert_eq!(scale["responseKind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    let beta = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
    let (_, _, text) = ask(&world, "/apis", &[("accept", beta)]).await;
    assert!(text.contains("\"apidiscovery.k8s.io/v2beta1\""));
    assert_eq!(world.get("/apis").await.1["kind"], "APIGroupList", "only for who asks");
    for path in ["/apis/nope.io", "/apis/nope.io/v1/things", "/api/v2/pods", "/apis/apps/v9/deployments", "/nope"] {
        let (code, headers, text) = ask(&world, path, &[]).await;
        assert_eq!((code, text.as_str()), (404, "404 page not found\n"), "{path}");
        assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
    }
    let (_, _, paths) = ask(&world, "/", &[]).await;
    assert!(paths.contains("\"/apis/apps/v1\"") && paths.contains("\"/version\""), "{paths}");
}

#[tokio::test]
async fn probes_say_what_they_looked_at() {
    let world = World::new().await;
    let text = async |path: &str| {
        let (code, _, text) = ask(&world, path, &[]).await;
        (code, text)
    };
    assert_eq!(text("/readyz").await, (200, "ok".into()));
    assert_eq!(text("/livez?verbose").await, (200, "[+]ping ok\nlivez check passed\n".into()));
    assert_eq!(text("/readyz?verbose").await, (200, "[+]ping ok\n[+]store ok\nreadyz check passed\n".into()));
    assert_eq!(text("/readyz/store").await, (200, "ok".into()));
    assert_eq!(text("/readyz/nope").await.0, 404);
    assert_eq!(
        text("/readyz?verbose&exclude=store&exclude=nope").await,
        (200, "[+]ping ok\n[+]store excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"nope\"\nreadyz check passed\n".into())
    );
    *world.fake.broken.lock().unwrap() = Some("the disk is gone".into());
    let (code, report) = text("/readyz").await;
    assert_eq!((code, report.as_str()), (500, "[+]ping ok\n[-]store failed: the disk is gone\nreadyz check failed\n"));
    assert_eq!(text("/livez").await.0, 200);
    assert_eq!(text("/readyz?exclude=store").await, (200, "ok".into()));
}

#[tokio::test]
async fn metrics_count_by_verb_and_resource() {
    let world = World::new().await;
    world.post(MAPS, map("a", "1")).await;
    world.get(MAPS).await;
    world.get(&format!("{MAPS}/nope")).await;
    let _watch = Lines::of(world.send("GET", &format!("{MAPS}?watch=1"), &[], "").await);
    let (_, headers, text) = ask(&world, "/metrics", &[]).await;
    assert_eq!(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "reddwarf_api_requests_total{verb=\"create\",resource=\"configmaps\",code=\"201\"} 1\n",
        "reddwarf_api_requests_total{verb=\"get\",resource=\"configmaps\",code=\"404\"} 1\n",
        "reddwarf_api_request_duration_seconds_count{verb=\"list\",resource=\"configmaps\"} 1\n",
        "reddwarf_api_request_duration_seconds_bucket{verb=\"list\",resource=\"configmaps\",le=\"+Inf\"} 1\n",
        "reddwarf_api_watches{resource=\"configmaps\"} 1\n",
        "reddwarf_api_streams 1\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn a_key_given_twice_is_what_field_validation_says() {
    let world = World::new().await;
    let text = |name: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  a: first\n  a: last\n")
    };
    for (name, validation, wanted, warned) in [
        ("a", "", 201, true),
        ("b", "&fieldValidation=Warn", 201, true),
        ("c", "&fieldValidation=Ignore", 201, false),
        ("d", "&fieldValidation=Strict", 400, false),
    ] {
        let headers = [("content-type", "application/yaml")];
        let made = finish(world.send("POST", &format!("{MAPS}?x{validation}"), &headers, text(name)).await).await;
        let headers = [("content-type", "application/apply-patch+yaml")];
        let path = format!("{MAPS}/{name}2?fieldManager=m{validation}");
        let applied = finish(world.send("PATCH", &path, &headers, text(&format!("{name}2"))).await).await;
        for (code, headers, body) in [made, applied] {
            assert_eq!(code, wanted, "{validation}: {body}");
            let warning = headers.get("warning").map(|w| w.to_str().unwrap().to_owned());
            assert_eq!(warning.is_some(), warned, "{validation}");
            match wanted {
                201 => assert_eq!(body["data"], json!({"a": "last"}), "the last one counts"),
                _ => assert!(body["message"].as_str().unwrap().contains("key `a` is given twice"), "{body}"),
            }
            assert!(warning.is_none_or(|w| w.contains("line 7: key `a` is given twice")));
        }
    }
}
