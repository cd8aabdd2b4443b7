//! `/reddwarf/v1`, health and metrics.

use crate::*;

fn files(text: &str) -> Value {
    json!({"files": [{"name": "web.yaml", "text": text}]})
}

#[tokio::test]
async fn routes_reach_what_they_name() {
    let world = World::new().await;
    assert_eq!(world.get("/reddwarf/v1/status").await.1["node"], "box");
    assert_eq!(world.get("/reddwarf/v1/why/po/default/web").await.1["object"], "pods/default/web");
    assert_eq!(world.get("/reddwarf/v1/why/node/-/box").await.1["object"], "nodes/-/box");
    assert_eq!(
        world.post("/reddwarf/v1/restart/default/web?container=main", Value::Null).await.1["message"],
        "restart default/web Some(\"main\")"
    );
    assert_eq!(world.post("/reddwarf/v1/plan", json!({})).await.1["steps"], json!([]));
    assert_eq!(world.post("/reddwarf/v1/plan", files("")).await.1["unknown"], json!(["1 files"]));
    assert_eq!(world.post("/reddwarf/v1/reload", Value::Null).await.1["generation"], 3);
    assert_eq!(world.get("/reddwarf/v1/generations/2/diff/3").await.1["from"], 2);
    assert_eq!(world.post("/reddwarf/v1/reconcile?allowPrune=true", Value::Null).await.1["message"], "reconcile true");
    assert_eq!(
        world.post("/reddwarf/v1/images", json!({"source": "/x", "name": "web:1"})).await.1["names"],
        json!(["web:1"])
    );
    let (code, _, body) = world.ask("DELETE", "/reddwarf/v1/images?name=web%3A1", "").await;
    assert_eq!((code, body["message"].clone()), (200, json!("remove web:1")));
    assert_eq!(world.post("/reddwarf/v1/shutdown?stopPods=true", Value::Null).await.1["message"], "shutdown true");
    let (code, error) = world.get("/reddwarf/v1/generations/9").await;
    assert_eq!(
        (code, error["kind"].clone(), error["message"].clone()),
        (404, json!("Status"), json!("generation 9 is not retained"))
    );
    assert_eq!(world.get("/reddwarf/v1/shutdown").await.0, 405);
    assert_eq!(world.get("/reddwarf/v1/nope").await.0, 404);
    let (code, error) = world.post("/reddwarf/v1/backup", json!({"path": "relative"})).await;
    assert_eq!(
        (code, error["message"].clone()),
        (400, json!("\"relative\" must be an absolute path on the daemon's host"))
    );
}

const GOOD: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: \"1\"\n";

#[tokio::test]
async fn apply_goes_through_the_parser_of_files() {
    let world = World::new().await;
    world.namespace("team").await;
    let (code, report) = world.post("/reddwarf/v1/apply?namespace=team&dryRun=true", files(GOOD)).await;
    assert_eq!(
        (code, report["objects"][0]["verdict"].clone(), report["dryRun"].clone()),
        (200, json!("created"), json!(true))
    );
    let (code, report) = world.post("/reddwarf/v1/apply?namespace=team", files(GOOD)).await;
    assert_eq!(code, 200, "{report}");
    let object = &report["objects"][0];
    assert_eq!(
        (object["resource"].clone(), object["namespace"].clone(), object["source"].clone(), object["verdict"].clone()),
        (json!("configmaps"), json!("team"), json!("web.yaml:1"), json!("created"))
    );
    assert_eq!(report["revision"].as_u64(), Some(world.registry.revision().get()));
    let (_, again) = world.post("/reddwarf/v1/apply?namespace=team", files(GOOD)).await;
    assert_eq!(again["objects"][0]["verdict"], "unchanged");
    let (_, changed) = world.post("/reddwarf/v1/apply?namespace=team", files(&GOOD.replace("\"1\"", "\"2\""))).await;
    assert_eq!(changed["objects"][0]["changes"], json!([{"path": "data[k]", "old": "1", "new": "2"}]));
}

#[tokio::test]
async fn a_bad_file_applies_nothing_and_says_where() {
    let world = World::new().await;
    let text = format!("{GOOD}---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\ndatta: {{}}\n");
    let (code, error) = world.post("/reddwarf/v1/apply", files(&text)).await;
    assert_eq!((code, error["kind"].clone(), error["reason"].clone()), (422, json!("Status"), json!("Invalid")));
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("nothing was applied: web.yaml:12:1: "), "{message}");
    let finding = &error["diagnostics"][0];
    assert_eq!(
        (finding["line"].clone(), finding["column"].clone(), finding["severity"].clone()),
        (json!(12), json!(1), json!("error"))
    );
    assert!(finding["rendered"].as_str().unwrap().contains("datta: {}"), "{finding}");
    assert_eq!(world.get("/api/v1/namespaces/default/configmaps/a").await.0, 404);
    assert_eq!(world.post("/reddwarf/v1/apply", json!({})).await.0, 400);
}

#[tokio::test]
async fn health_names_its_checks() {
    let world = World::new().await;
    for probe in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(world.get(probe).await, (200, json!("ok")));
    }
    assert_eq!(world.get("/readyz?verbose").await.1, "[+]ping ok\n[+]store ok\nreadyz check passed\n");
    *world.fake.broken.lock().unwrap() = Some("disk full".into());
    assert_eq!(
        world.get("/readyz").await,
        (500, json!("[+]ping ok\n[-]store failed: disk full\nreadyz check failed\n"))
    );
    assert_eq!(world.get("/readyz?exclude=store").await.0, 200);
    assert_eq!(world.get("/readyz/ping").await.0, 200);
    assert_eq!(world.get("/livez").await.0, 200, "alive all the same");
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let world = World::new().await;
    world.get("/api/v1/pods").await;
    let (code, headers, text) = world.ask("GET", "/metrics", "").await;
    assert_eq!((code, headers["content-type"].to_str().unwrap()), (200, "text/plain; version=0.0.4; charset=utf-8"));
    let text = text.as_str().unwrap();
    for line in [
        "reddwarf_generation 3",
        "reddwarf_manifests_invalid 2",
        "reddwarf_pods{phase=\"Running\"} 0",
        "reddwarf_api_requests_total{verb=\"list\",resource=\"pods\",code=\"200\"} 1",
        "reddwarf_fake 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        assert!(line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok()), "{line}");
    }
}

#[tokio::test]
async fn a_panic_answers_500_and_the_daemon_lives() {
    let world = World::new().await;
    let (code, error) = world.get("/reddwarf/v1/why/pods/default/panic").await;
    assert_eq!((code, error["reason"].clone()), (500, json!("InternalError")));
    assert_eq!(world.get("/healthz").await.0, 200);
}
