//! Watches over the wire.

use crate::objects::map;
use crate::*;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn watch(world: &World, query: &str) -> Lines {
    Lines::of(world.send("GET", &format!("{MAPS}?watch=1{query}"), &[], "").await)
}

fn short(event: &Value) -> String {
    format!("{} {}", event["type"].as_str().unwrap(), event["object"]["metadata"]["name"].as_str().unwrap_or("-"))
}

#[tokio::test]
async fn events_come_as_they_happen_and_from_where_the_client_was() {
    let world = World::new().await;
    let (_, made) = world.post(MAPS, map("a", "1")).await;
    let start = made["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut fresh = watch(&world, "").await;
    assert_eq!(short(&soon(fresh.next()).await.unwrap()), "ADDED a", "without a version first what there is");
    let mut later = watch(&world, &format!("&resourceVersion={start}")).await;
    world.post(MAPS, map("b", "1")).await;
    world.ask("PATCH", &format!("{MAPS}/b"), r#"{"data":{"k":"2"}}"#).await;
    world.ask("DELETE", &format!("{MAPS}/b"), "").await;
    for stream in [&mut fresh, &mut later] {
        let mut last = start.parse::<u64>().unwrap();
        for wanted in ["ADDED b", "MODIFIED b", "DELETED b"] {
            let event = soon(stream.next()).await.unwrap();
            assert_eq!(short(&event), wanted);
            assert_eq!(
                (event["object"]["kind"].clone(), event["object"]["apiVersion"].clone()),
                (json!("ConfigMap"), json!("v1"))
            );
            let version: u64 = event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            assert!(version > last);
            last = version;
        }
    }
}

#[tokio::test]
async fn selectors_bookmarks_and_ends() {
    let world = World::with(|s| s.limits.bookmarks = std::time::Duration::from_millis(50)).await;
    let mut object = map("a", "1");
    object["metadata"]["labels"] = json!({"app": "web"});
    world.post(MAPS, object).await;
    world.post(MAPS, map("b", "1")).await;
    let mut chosen = watch(&world, "&labelSelector=app%3Dweb&allowWatchBookmarks=true&timeoutSeconds=1").await;
    assert_eq!(short(&soon(chosen.next()).await.unwrap()), "ADDED a");
    let mark = soon(chosen.next()).await.unwrap();
    assert_eq!(
        mark,
        json!({"type": "BOOKMARK", "object": {"kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"resourceVersion": world.registry.revision().to_string()}}})
    );
    while let Some(event) = soon(chosen.next()).await {
        assert_eq!(event["type"], "BOOKMARK", "until timeoutSeconds ends it cleanly");
    }
    let initial = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut initial = watch(&world, initial).await;
    assert_eq!(short(&soon(initial.next()).await.unwrap()), "ADDED a");
    assert_eq!(short(&soon(initial.next()).await.unwrap()), "ADDED b");
    let end = soon(initial.next()).await.unwrap();
    assert_eq!(end["object"]["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
}

#[tokio::test]
async fn a_watch_from_a_compacted_version_says_410() {
    let world = World::new().await;
    world.post(MAPS, map("a", "1")).await;
    world.post(MAPS, map("b", "1")).await;
    world.registry.store().compact(world.registry.revision()).await.unwrap();
    let mut old = watch(&world, "&resourceVersion=1").await;
    let error = soon(old.next()).await.unwrap();
    assert_eq!(
        (error["type"].clone(), error["object"]["reason"].clone(), error["object"]["code"].clone()),
        (json!("ERROR"), json!("Expired"), json!(410))
    );
    assert!(error["object"]["message"].as_str().unwrap().starts_with("too old resource version: 1 ("));
    assert_eq!(soon(old.next()).await, None);
}

#[tokio::test]
async fn a04_shutdown_ends_a_hundred_watches_cleanly_and_in_time() {
    let world = World::new().await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(watch(&world, "").await);
    }
    let started = tokio::time::Instant::now();
    world.stop.cancel();
    for stream in &mut streams {
        assert_eq!(soon(stream.next()).await, None, "a clean end");
    }
    soon(world.serving).await.unwrap();
    assert!(started.elapsed().as_secs() < 5);
    world.next.2.close().await;
    assert!(!world.socket.exists());
}

#[tokio::test]
async fn f41_a_watcher_that_never_reads_is_cut_and_harms_nobody() {
    let world = World::with(|s| s.limits.stall_timeout = std::time::Duration::from_millis(300)).await;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut idle = tokio::net::UnixStream::connect(&world.socket).await.unwrap();
    idle.write_all(format!("GET {MAPS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut start = [0; 12];
    soon(idle.read_exact(&mut start)).await.unwrap();
    let mut other = watch(&world, "").await;
    let big = "x".repeat(100_000);
    for n in 0..40 {
        let (code, _) = world.post(MAPS, map(&format!("c{n:02}"), &big)).await;
        assert_eq!(code, 201);
        assert_eq!(short(&soon(other.next()).await.unwrap()), format!("ADDED c{n:02}"));
    }
    // What was sent before the cut can still be read; then the connection ends.
    let metrics = || async { world.get("/metrics").await.1.as_str().unwrap().to_owned() };
    soon(async {
        while !metrics().await.contains("reddwarf_api_streams 1\n") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut rest = Vec::new();
    drop(soon(idle.read_to_end(&mut rest)).await);
    assert!(rest.len() < 4_000_000, "not all of it: {}", rest.len());
}

#[tokio::test]
async fn server_sent_events_only_for_who_names_them_and_resumed_by_their_id() {
    use http_body_util::BodyExt;
    let world = World::new().await;
    let (_, made) = world.post(MAPS, map("a", "1")).await;
    let version = made["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let path = format!("{MAPS}?watch=1");
    let mut first = world.send("GET", &path, &[("accept", "text/event-stream")], "").await;
    assert_eq!(first.headers()["content-type"], "text/event-stream");
    let frame = soon(first.frame()).await.unwrap().unwrap().into_data().unwrap();
    let text = std::str::from_utf8(&frame).unwrap();
    let data = text.strip_prefix(&format!("id: {version}\ndata: ")).unwrap().strip_suffix("\n\n").unwrap();
    assert_eq!(serde_json::from_str::<Value>(data).unwrap(), json!({"type": "ADDED", "object": made}));
    world.post(MAPS, map("b", "1")).await;
    let headers = [("accept", "text/event-stream"), ("last-event-id", version.as_str())];
    let mut resumed = world.send("GET", &path, &headers, "").await;
    let frame = soon(resumed.frame()).await.unwrap().unwrap().into_data().unwrap();
    let text = std::str::from_utf8(&frame).unwrap();
    assert!(text.contains(r#"data: {"type":"ADDED""#) && text.contains(r#""name":"b""#), "{text}");
    let plain = world.send("GET", &path, &[("accept", "*/*")], "").await;
    assert_eq!(plain.headers()["content-type"], "application/json");
}

#[tokio::test]
async fn over_websocket_every_event_is_a_message() {
    use futures_util::StreamExt;
    use tokio_tungstenite::tungstenite::Message;
    let world = World::new().await;
    world.post(MAPS, map("a", "1")).await;
    world.post(MAPS, map("b", "1")).await;
    let stream = tokio::net::UnixStream::connect(&world.socket).await.unwrap();
    let url = format!("ws://localhost{MAPS}?watch=1&timeoutSeconds=2");
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let mut seen = Vec::new();
    world.post(MAPS, map("c", "1")).await;
    while seen.len() < 3 {
        if let Message::Text(text) = soon(socket.next()).await.unwrap().unwrap() {
            seen.push(short(&serde_json::from_str(&text).unwrap()));
        }
    }
    assert_eq!(seen, ["ADDED a", "ADDED b", "ADDED c"]);
    let end = soon(socket.next()).await.unwrap().unwrap();
    assert!(matches!(end, Message::Close(Some(ref frame)) if u16::from(frame.code) == 1000), "{end:?}");
}

#[tokio::test]
async fn selectors_turn_changes_into_comings_and_goings_also_on_paths_of_old() {
    let world = World::new().await;
    let labelled = |value: &str| json!({"metadata": {"labels": {"app": value}}}).to_string();
    world.post(MAPS, map("a", "1")).await;
    let old = "/api/v1/watch/namespaces/default/configmaps?labelSelector=app%3Dweb";
    let mut chosen = Lines::of(world.send("GET", old, &[], "").await);
    let one = "/api/v1/watch/namespaces/default/configmaps/a";
    let mut single = Lines::of(world.send("GET", one, &[], "").await);
    assert_eq!(short(&soon(single.next()).await.unwrap()), "ADDED a");
    world.post(MAPS, map("other", "1")).await;
    for value in ["web", "db"] {
        world.ask("PATCH", &format!("{MAPS}/a"), &labelled(value)).await;
    }
    assert_eq!(short(&soon(chosen.next()).await.unwrap()), "ADDED a");
    let gone = soon(chosen.next()).await.unwrap();
    assert_eq!((short(&gone), gone["object"]["metadata"]["labels"]["app"].clone()), ("DELETED a".into(), json!("web")));
    assert_eq!(gone["object"]["metadata"]["resourceVersion"], world.registry.revision().to_string());
    assert_eq!(short(&soon(single.next()).await.unwrap()), "MODIFIED a");
    assert_eq!(short(&soon(single.next()).await.unwrap()), "MODIFIED a");
}
