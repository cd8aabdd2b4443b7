//! Who may connect, and clients that behave badly (F41).

use crate::objects::map;
use crate::*;
use reddwarf_api::Api;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// What curl gets as another user: the body and then the code. Needs root to become somebody else; `None` elsewhere,
/// where `principal.rs` tests the decision alone.
async fn as_user(world: &World, uid: u32, gid: u32, args: &[&str], path: &str) -> Option<(u16, Value)> {
    if !nix::unistd::geteuid().is_root() || !std::path::Path::new("/usr/bin/curl").exists() {
        return None;
    }
    // Open the way to the socket itself: the daemon still decides.
    std::fs::set_permissions(&world.state, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(world.socket.parent().unwrap(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&world.socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    #[allow(clippy::disallowed_methods, reason = "a client with another uid")]
    let mut command = tokio::process::Command::new("/usr/bin/curl");
    command.uid(uid).gid(gid).args(["-s", "-w", "\n%{http_code}", "--unix-socket"]).arg(&world.socket);
    command.args(args).arg(format!("http://localhost{path}"));
    let output = soon(command.output()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').unwrap();
    Some((code.parse().unwrap(), serde_json::from_str(body).unwrap_or(json!(body))))
}

#[tokio::test]
async fn a07_strangers_are_refused_by_their_kernel_credentials() {
    let world = World::new().await;
    for path in ["/version", "/reddwarf/v1/status", "/api/v1/secrets", "/livez"] {
        let Some((code, body)) = as_user(&world, 65534, 65534, &[], path).await else { return };
        assert_eq!(code, 403, "{path}: {body}");
        assert!(body["message"].as_str().unwrap().contains("uid 65534 may not use this socket"), "{path}: {body}");
    }
}

#[tokio::test]
async fn a07_members_of_the_group_are_operators_and_cannot_reach_the_host() {
    let group = nix::unistd::Group::from_gid(nix::unistd::Gid::from_raw(1)).unwrap();
    let Some(group) = group else { return };
    let world = World::with(|s| s.socket_group = Some(group.name.clone())).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str, context: Value| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "a", "securityContext": context}]}});
    assert_eq!(world.post(pods, pod("root", json!({"privileged": true}))).await.0, 201, "root may");
    let ask = async |method: &str, path: &str, body: Value| {
        let body = body.to_string();
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let header = format!("Content-Type: {kind}");
        as_user(&world, 65534, 1, &["-X", method, "-H", &header, "-d", &body], path).await
    };
    let Some((code, _)) = ask("POST", pods, pod("plain", json!({}))).await else { return };
    assert_eq!(code, 201);
    let (code, body) = ask("POST", pods, pod("bad", json!({"privileged": true}))).await.unwrap();
    assert_eq!(code, 403);
    assert!(
        body["message"].as_str().unwrap().contains("violates PodSecurity \"baseline:latest\": privileged"),
        "{body}"
    );
    let host = json!({"spec": {"hostNetwork": true}});
    assert_eq!(ask("PATCH", &format!("{pods}/plain"), host).await.unwrap().0, 403);
    assert_eq!(
        ask("PATCH", &format!("{pods}/root"), json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap().0,
        200
    );
    let enter = format!("{pods}/root/exec?command=sh&stdout=1");
    assert_eq!(ask("POST", &enter, json!({})).await.unwrap().0, 403, "nor by way of somebody else's privileged pod");
    let file =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: f}\nspec:\n  hostPID: true\n  containers: [{name: c, image: a}]\n";
    let files = json!({"files": [{"name": "f.yaml", "text": file}]});
    assert_eq!(ask("POST", "/reddwarf/v1/apply", files).await.unwrap().0, 403);
    for route in [
        "shutdown",
        "backup",
        "restore",
        "images",
        "images/build",
        "generations/1/rollback",
        "reconcile?allowPrune=true",
    ] {
        let (code, body) = ask("POST", &format!("/reddwarf/v1/{route}"), json!({"path": "/x"})).await.unwrap();
        assert_eq!(code, 403, "{route}: {body}");
    }
    assert_eq!(ask("POST", "/reddwarf/v1/restart/default/plain", json!({})).await.unwrap().0, 200);
}

#[tokio::test]
async fn f42_a_removed_socket_is_there_again() {
    let world = World::with(|s| s.limits.socket_check = Duration::from_millis(20)).await;
    std::fs::remove_file(&world.socket).unwrap();
    soon(async {
        while UnixStream::connect(&world.socket).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(world.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn f41_a_body_over_the_limit_is_413_with_and_without_a_length() {
    let world = World::new().await;
    let (code, _, body) = world.ask("POST", MAPS, &"x".repeat((3 << 20) + 1)).await;
    assert_eq!((code, body["reason"].clone()), (413, json!("RequestEntityTooLarge")));
    let mut raw = UnixStream::connect(&world.socket).await.unwrap();
    raw.write_all(format!("POST {MAPS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 64 << 10, "y".repeat(64 << 10));
    let mut answer = vec![0; 64];
    let flood = async {
        loop {
            // Refused writes are the answer too: the daemon does not read on.
            if raw.write_all(chunk.as_bytes()).await.is_err() {
                break;
            }
        }
    };
    drop(tokio::time::timeout(Duration::from_secs(2), flood).await);
    let read = soon(raw.read(&mut answer)).await.unwrap_or(0);
    assert!(String::from_utf8_lossy(&answer[..read]).starts_with("HTTP/1.1 413"), "{:?}", &answer[..read]);
    assert_eq!(world.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn f41_a_length_over_the_limit_is_refused_before_anything_is_sent() {
    let world = World::new().await;
    let mut raw = UnixStream::connect(&world.socket).await.unwrap();
    let head = format!("POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n");
    raw.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(raw.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("RequestEntityTooLarge"), "{answer}");
}

#[tokio::test]
async fn f41_slow_headers_and_slow_bodies_are_ended() {
    let quick = |s: &mut reddwarf_api::ApiSettings| {
        s.limits.header_timeout = Duration::from_millis(200);
        s.limits.body_timeout = Duration::from_millis(200);
    };
    let world = World::with(quick).await;
    let mut header = UnixStream::connect(&world.socket).await.unwrap();
    header.write_all(b"GET /version HTTP/1.1\r\nHost").await.unwrap();
    let mut all = Vec::new();
    soon(header.read_to_end(&mut all)).await.unwrap();
    let mut body = UnixStream::connect(&world.socket).await.unwrap();
    body.write_all(format!("POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{").as_bytes())
        .await
        .unwrap();
    let mut answer = vec![0; 12];
    soon(body.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn f41_connections_requests_and_streams_are_bounded() {
    let narrow = |s: &mut reddwarf_api::ApiSettings| {
        s.limits.connections = 4;
        s.limits.reserved = 1;
        s.limits.streams = 1;
    };
    let world = World::with(narrow).await;
    let one = world.send("GET", &format!("{MAPS}?watch=1"), &[], "").await;
    let (code, body) = world.get(&format!("{MAPS}?watch=1")).await;
    assert_eq!((code, body["reason"].clone()), (429, json!("TooManyRequests")));
    drop(one);
    soon(async {
        while world.get("/metrics").await.1.as_str().is_none_or(|m| !m.contains("reddwarf_api_streams 0\n")) {}
    })
    .await;
    // Four that are let in and stay; earlier connections may take a moment to go.
    let mut held = Vec::new();
    soon(async {
        while held.len() < 4 {
            let mut connection = world.connect().await;
            let request = hyper::Request::get("/version").header("host", "x").body(Default::default()).unwrap();
            if finish(connection.send_request(request).await.unwrap()).await.0 == 200 {
                held.push(connection);
            }
        }
    })
    .await;
    // The fifth gets an answer, not silence.
    soon(async { while world.get("/version").await.0 != 429 {} }).await;
    drop(held);
    soon(async { while world.get("/version").await.0 != 200 {} }).await;
}

#[tokio::test]
async fn f41_a_write_whose_client_leaves_happens_whole_or_not_at_all() {
    let world = World::new().await;
    for n in 0..20 {
        let mut raw = UnixStream::connect(&world.socket).await.unwrap();
        let body = map(&format!("c{n}"), "1").to_string();
        let request = format!(
            "POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        // Half of them leave in the middle of the body.
        let end = if n % 2 == 0 { body.len() / 2 } else { body.len() };
        raw.write_all(request.as_bytes()).await.unwrap();
        raw.write_all(&body.as_bytes()[..end]).await.unwrap();
        drop(raw);
    }
    let (code, list) = world.get(MAPS).await;
    assert_eq!(code, 200);
    for object in list["items"].as_array().unwrap() {
        assert_eq!(object["data"]["k"], "1");
        let n: u32 = object["metadata"]["name"].as_str().unwrap()[1..].parse().unwrap();
        assert!(n % 2 == 1, "a half-sent body made an object");
    }
}

#[tokio::test]
async fn f41_a_hundred_concurrent_puts_leave_one_of_them() {
    let world = std::sync::Arc::new(World::new().await);
    world.post(MAPS, map("a", "start")).await;
    let mut tasks = Vec::new();
    for n in 0..100 {
        let world = world.clone();
        tasks.push(tokio::spawn(async move {
            world.ask("PUT", &format!("{MAPS}/a"), &map("a", &n.to_string()).to_string()).await.0
        }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), 200);
    }
    let (_, object) = world.get(&format!("{MAPS}/a")).await;
    assert!(object["data"]["k"].as_str().unwrap().parse::<u32>().unwrap() < 100);
}

#[tokio::test]
async fn requests_in_flight_finish_at_shutdown() {
    let world = World::new().await;
    let mut connection = world.connect().await;
    let mut idle = world.connect().await;
    idle.ready().await.unwrap();
    let body = map("late", "1").to_string();
    let request = hyper::Request::post(MAPS).header("host", "x").body(bytes::Bytes::from(body).into()).unwrap();
    let answer = connection.send_request(request);
    world.stop.cancel();
    let stored = match soon(answer).await {
        Ok(response) => response.status() == 201,
        // The daemon may have stopped before it read the request; then nothing was done.
        Err(_) => false,
    };
    soon(world.serving).await.unwrap();
    let key = reddwarf_objects::ObjectKey::core("configmaps", "default", "late");
    assert_eq!(world.registry.find(&key).unwrap().is_some(), stored);
}

#[tokio::test]
async fn u12_nothing_listens_on_the_network_without_being_asked() {
    let world = World::new().await;
    assert_eq!(world.tcp, None);
    assert!(!world.state.join("pki/ca.key").exists() && !world.state.join("admin.kubeconfig").exists());
}

/// A change of settings is such a change of rounds: nobody is told in between that there is no daemon.
#[tokio::test]
async fn who_connects_between_two_rounds_is_served_by_the_next() {
    let mut world = World::with(|s| s.listen = Some("127.0.0.1:0".parse().unwrap())).await;
    let mut late = world.connect().await;
    let get = || hyper::Request::get("/version").header("host", "localhost").body(Default::default()).unwrap();
    late.ready().await.unwrap();
    world.stop.cancel();
    tokio::task::yield_now().await;
    assert_eq!(late.send_request(get()).await.unwrap().status(), 200, "it came in before the end");
    (&mut world.serving).await.unwrap();
    let mut waiting = world.connect().await;
    tokio::net::TcpStream::connect(world.tcp.unwrap()).await.unwrap();
    let (settings, deps, listeners) = world.next.clone();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(Api::new(settings, deps, Arc::clone(&listeners)).serve(stop.clone()));
    assert_eq!(waiting.send_request(get()).await.unwrap().status(), 200);
    drop(waiting);

    stop.cancel();
    serving.await.unwrap();
    listeners.close().await;
    assert!(!world.socket.exists());
    let refused = tokio::net::TcpStream::connect(world.tcp.unwrap()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}
