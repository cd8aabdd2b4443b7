//! Exec over WebSocket, frame by frame as recorded from the reference.

use crate::*;
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};

pub type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

pub async fn pod(world: &World, name: &str, spec: Value) {
    let (code, body) =
        world.post("/api/v1/namespaces/default/pods", json!({"metadata": {"name": name}, "spec": spec})).await;
    assert_eq!(code, 201, "{body}");
}

fn plain() -> Value {
    json!({"containers": [{"name": "main", "image": "a"}]})
}

async fn upgrade(world: &World, query: &str, protocol: Option<&str>) -> hyper::Response<hyper::body::Incoming> {
    handshake(world, &format!("/api/v1/namespaces/default/pods/bb/exec?{query}"), protocol).await
}

pub async fn handshake(world: &World, path: &str, protocol: Option<&str>) -> hyper::Response<hyper::body::Incoming> {
    let mut headers = vec![
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    headers.extend(protocol.map(|p| ("sec-websocket-protocol", p)));
    world.send("GET", path, &headers, "").await
}

async fn exec(world: &World, query: &str, protocol: Option<&str>) -> Socket {
    let response = upgrade(world, query, protocol).await;
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let agreed = response.headers().get("sec-websocket-protocol").map(|v| v.to_str().unwrap().to_owned());
    assert_eq!(agreed.as_deref(), protocol.map(|p| p.split(',').next().unwrap()));
    let upgraded = hyper::upgrade::on(response).await.unwrap();
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await
}

/// All frames until the close; `< close 1000` ends them.
pub async fn frames(socket: &mut Socket) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        match soon(socket.next()).await {
            Some(Ok(Message::Binary(data))) => {
                seen.push(format!("{} {}", data[0], String::from_utf8_lossy(&data[1..])));
            }
            Some(Ok(Message::Close(Some(CloseFrame { code, .. })))) => seen.push(format!("close {}", u16::from(code))),
            Some(Ok(other)) => panic!("{other:?}"),
            Some(Err(_)) | None => return seen,
        }
    }
}

const OUT: &str = "container=main&stdout=true&stderr=true";
const SUCCESS: &str = r#"3 {"metadata":{},"status":"Success"}"#;

#[tokio::test]
async fn frames_are_the_references() {
    let world = World::new().await;
    pod(&world, "bb", plain()).await;
    let v5 = Some("v5.channel.k8s.io,v4.channel.k8s.io,channel.k8s.io");
    let mut socket = exec(&world, &format!("{OUT}&command=echo&command=hi"), v5).await;
    assert_eq!(frames(&mut socket).await, ["1 ", "1 hi\n", SUCCESS, "close 1000"]);

    let mut socket = exec(&world, &format!("{OUT}&command=fail&command=7"), Some("v4.channel.k8s.io")).await;
    let got = frames(&mut socket).await;
    assert_eq!(got[..2], ["1 ", "2 e\n"]);
    let status: Value = serde_json::from_str(&got[2][2..]).unwrap();
    assert_eq!(
        status,
        json!({"metadata": {}, "status": "Failure",
            "message": "command terminated with non-zero exit code: command terminated with exit code 7",
            "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}})
    );

    let mut socket = exec(&world, &format!("{OUT}&command=nosuch"), v5).await;
    let got = frames(&mut socket).await;
    assert!(got[1].contains("error executing command in container: exec: \\\"nosuch\\\": not found"), "{got:?}");

    let mut socket = exec(&world, &format!("{OUT}&stdin=true&command=cat"), v5).await;
    socket.send(Message::binary(b"\0data\n".to_vec())).await.unwrap();
    socket.send(Message::binary(vec![255, 0])).await.unwrap();
    assert_eq!(frames(&mut socket).await, ["1 ", "1 data\n", SUCCESS, "close 1000"]);

    let mut socket = exec(&world, "container=main&stdout=true&stdin=true&tty=true&command=size", v5).await;
    socket.send(Message::binary(b"\x04{\"Width\":100,\"Height\":40}".to_vec())).await.unwrap();
    assert_eq!(frames(&mut socket).await, ["1 ", "1 40 100\r\n", SUCCESS, "close 1000"]);

    let mut socket = exec(&world, &format!("{OUT}&command=echo"), None).await;
    assert_eq!(frames(&mut socket).await, ["1 ", "1 hi\n", "close 1000"]);
}

/// kubectl before 1.33 throws away output that comes before it has made its streams.
#[tokio::test]
async fn output_leaves_clients_the_time_to_make_their_streams() {
    let world = World::new().await;
    pod(&world, "bb", plain()).await;
    let began = tokio::time::Instant::now();
    let mut socket = exec(&world, &format!("{OUT}&command=echo"), Some("v5.channel.k8s.io")).await;
    assert_eq!(frames(&mut socket).await, ["1 ", "1 hi\n", SUCCESS, "close 1000"]);
    assert!(began.elapsed() >= std::time::Duration::from_millis(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_can_be_refused_is_refused_before_the_upgrade() {
    let world = World::new().await;
    pod(&world, "bb", plain()).await;
    let refused = async |query: &str, protocol| {
        let (code, _, body) = finish(upgrade(&world, query, protocol).await).await;
        (code, body["message"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(
        refused("container=nope&stdout=1&command=ls", None).await,
        (400, "container nope is not valid for pod bb".into())
    );
    assert_eq!(refused("stdout=1", None).await, (400, "you must specify at least 1 command for the container".into()));
    assert_eq!(
        refused("command=ls", None).await,
        (400, "you must specify at least one of stdin, stdout, stderr".into())
    );
    assert_eq!(refused("stdout=1&command=ls", Some("v9.channel.k8s.io")).await.0, 400);
    let (code, body) = world.get("/api/v1/namespaces/default/pods/nope/exec?stdout=1&command=ls").await;
    assert_eq!((code, body["message"].clone()), (404, json!("pods \"nope\" not found")));
    let (code, body) = world.get("/api/v1/namespaces/default/pods/bb/exec?stdout=1&command=ls").await;
    assert_eq!(code, 400);
    assert!(body["message"].as_str().unwrap().starts_with("Upgrade request required"), "{body}");
    assert!(world.fake.asked.lock().unwrap().is_empty(), "no command was started");
}

#[tokio::test]
async fn f45_the_command_ends_when_its_client_vanishes_or_the_daemon_stops() {
    let world = World::new().await;
    pod(&world, "bb", plain()).await;
    for stop in [false, true] {
        let mut socket = exec(&world, &format!("{OUT}&stdin=true&command=sleep"), Some("v5.channel.k8s.io")).await;
        soon(socket.next()).await.unwrap().unwrap();
        let ended = world.fake.ended.lock().unwrap().pop().unwrap();
        if stop {
            world.stop.cancel();
        } else {
            drop(socket);
        }
        soon(ended).await.unwrap();
    }
}
