//! Attach, port-forward in its three forms, and the proxy.

use crate::exec::{Socket, frames, handshake, pod};
use crate::*;
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

const BASE: &str = "/api/v1/namespaces/default/pods/bb";

fn spec() -> Value {
    json!({"containers": [{"name": "main", "image": "a", "stdin": true, "ports": [{"name": "web", "containerPort": 8081}]}]})
}

async fn socket(world: &World, path: &str, protocol: Option<&str>) -> Socket {
    let response = handshake(world, &format!("{BASE}/{path}"), protocol).await;
    assert_eq!(response.status(), 101);
    let upgraded = hyper::upgrade::on(response).await.unwrap();
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await
}

#[tokio::test]
async fn attach_has_execs_frames() {
    let world = World::new().await;
    pod(&world, "bb", spec()).await;
    let mut attached = socket(&world, "attach?stdin=1&stdout=1&stderr=1", Some("v5.channel.k8s.io")).await;
    attached.send(Message::binary(b"\0typed\n".to_vec())).await.unwrap();
    attached.send(Message::binary(vec![255, 0])).await.unwrap();
    let got = frames(&mut attached).await;
    let text: String = got.iter().filter_map(|f| f.strip_prefix("1 ")).collect();
    assert_eq!(text, "tick\ntyped\n");
    assert_eq!(got[got.len() - 2..], [r#"3 {"metadata":{},"status":"Success"}"#, "close 1000"]);
    assert_eq!(
        world.fake.asked.lock().unwrap()[0],
        "attach AttachOptions { container: \"main\", stdin: true, stdout: true, stderr: true }"
    );
    let (code, body) = world.get(&format!("{BASE}/attach?stdout=1&tty=1")).await;
    assert_eq!(
        (code, body["message"].clone()),
        (400, json!("container main did not allocate a TTY: attach without one"))
    );

    // A client that leaves is detached.
    let attached = socket(&world, "attach?stdout=1", Some("v4.channel.k8s.io")).await;
    let ended = world.fake.ended.lock().unwrap().pop().unwrap();
    drop(attached);
    soon(ended).await.unwrap();
}

#[tokio::test]
async fn base64_frames_are_the_references() {
    let world = World::new().await;
    pod(&world, "bb", spec()).await;
    for (protocol, last) in [
        ("base64.channel.k8s.io", None),
        ("v4.base64.channel.k8s.io", Some("3eyJtZXRhZGF0YSI6e30sInN0YXR1cyI6IlN1Y2Nlc3MifQ==")),
    ] {
        let mut socket = socket(&world, "exec?stdout=1&command=echo", Some(protocol)).await;
        let mut seen = Vec::new();
        while let Some(Ok(Message::Text(text))) = soon(socket.next()).await {
            seen.push(text.to_string());
        }
        let expected: Vec<&str> = ["1", "1aGkK"].into_iter().chain(last).collect();
        assert_eq!(seen, expected);
    }
    // The first versions tell a failure in words.
    let mut socket = socket(&world, "exec?stdout=1&stderr=1&command=fail&command=7", Some("channel.k8s.io")).await;
    assert_eq!(
        frames(&mut socket).await[2..],
        ["3 command terminated with non-zero exit code: command terminated with exit code 7", "close 1000"]
    );
}

#[tokio::test]
async fn ports_are_forwarded_over_channels() {
    let world = World::new().await;
    pod(&world, "bb", spec()).await;
    let protocol = Some("v4.channel.k8s.io");
    let mut forward = socket(&world, "portforward?ports=8080&ports=81", protocol).await;
    let mut seen = Vec::new();
    for _ in 0..5 {
        let Some(Ok(Message::Binary(data))) = soon(forward.next()).await else { panic!("no frame") };
        seen.push((data[0], data[1..].to_vec()));
    }
    seen.sort();
    let refused = b"error forwarding port 81 to pod bb, uid : dial tcp4: connect: connection refused";
    assert_eq!(
        seen,
        [(0, vec![0x90, 0x1f]), (1, vec![0x90, 0x1f]), (2, vec![81, 0]), (3, vec![81, 0]), (3, refused.to_vec()),]
    );
    forward.send(Message::binary(b"\0there and back".to_vec())).await.unwrap();
    assert_eq!(soon(forward.next()).await.unwrap().unwrap(), Message::binary(b"\0there and back".to_vec()));

    for (query, message) in [
        ("", "query parameter \"ports\" is required"),
        ("?ports=0", "unable to parse \"0\" as a port: it must be 1 to 65535"),
        ("?ports=x", "unable to parse \"x\" as a port: it must be 1 to 65535"),
    ] {
        let refused = handshake(&world, &format!("{BASE}/portforward{query}"), protocol).await;
        let (code, _, body) = finish(refused).await;
        assert_eq!((code, body["message"].clone()), (400, json!(message)));
    }
}

/// A SPDY client made of bytes: what is sent here is what the protocol's text says.
struct Spdy<S> {
    io: S,
    begun: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Spdy<S> {
    async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) {
        let mut block = (headers.len() as u32).to_be_bytes().to_vec();
        for part in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend((part.len() as u32).to_be_bytes());
            block.extend(part.as_bytes());
        }
        let mut payload = stream.to_be_bytes().to_vec();
        payload.extend([0; 6]);
        if !std::mem::replace(&mut self.begun, true) {
            payload.extend([0x78, 0x20, 0xe3, 0xc6, 0xa7, 0xc2]);
        }
        let length = block.len() as u16;
        payload.push(0);
        payload.extend(length.to_le_bytes());
        payload.extend((!length).to_le_bytes());
        payload.extend(block);
        let mut frame = vec![0x80, 3, 0, 1, 0];
        frame.extend(&(payload.len() as u32).to_be_bytes()[1..]);
        frame.extend(payload);
        self.io.write_all(&frame).await.unwrap();
        self.io.flush().await.unwrap();
    }

    async fn data(&mut self, stream: u32, fin: bool, bytes: &[u8]) {
        let mut frame = stream.to_be_bytes().to_vec();
        frame.push(u8::from(fin));
        frame.extend(&(bytes.len() as u32).to_be_bytes()[1..]);
        frame.extend(bytes);
        self.io.write_all(&frame).await.unwrap();
        self.io.flush().await.unwrap();
    }

    /// All that comes on one stream until its end.
    async fn read(&mut self, stream: u32) -> Vec<u8> {
        let mut found = Vec::new();
        loop {
            let mut head = [0; 8];
            soon(self.io.read_exact(&mut head)).await.unwrap();
            let mut bytes = vec![0; u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize];
            soon(self.io.read_exact(&mut bytes)).await.unwrap();
            if head[..4] == stream.to_be_bytes() {
                found.extend(bytes);
                if head[4] & 1 == 1 {
                    return found;
                }
            }
        }
    }

    async fn forward(&mut self, first: u32, port: &str, id: &str, text: &[u8]) -> Vec<u8> {
        let headers = |kind| [("streamtype", kind), ("port", port), ("requestid", id)];
        self.open(first, &headers("error")).await;
        self.data(first, true, b"").await;
        self.open(first + 2, &headers("data")).await;
        self.data(first + 2, true, text).await;
        self.read(if text.is_empty() { first } else { first + 2 }).await
    }
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy_plain_and_tunnelled() {
    let world = World::new().await;
    pod(&world, "bb", spec()).await;
    let big = vec![7; 100_000];

    let headers =
        [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "portforward.k8s.io")];
    let response = world.send("POST", &format!("{BASE}/portforward"), &headers, "").await;
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["x-stream-protocol-version"], "portforward.k8s.io");
    let io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut plain = Spdy { io, begun: false };
    assert_eq!(plain.forward(1, "8080", "0", b"hello").await, b"hello");
    assert_eq!(plain.forward(5, "8080", "1", &big).await, big);
    let refused = plain.forward(9, "81", "2", b"").await;
    assert_eq!(refused, b"error forwarding port 81 to pod bb, uid : dial tcp4: connect: connection refused");

    // The same bytes in a WebSocket's messages.
    let mut tunnel = socket(&world, "portforward", Some("SPDY/3.1+portforward.k8s.io")).await;
    let (io, theirs) = tokio::io::duplex(1 << 20);
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(theirs);
        let mut buffer = vec![0; 1000];
        loop {
            tokio::select! {
                Ok(n @ 1..) = read.read(&mut buffer) => tunnel.send(Message::binary(buffer[..n].to_vec())).await.unwrap(),
                Some(Ok(Message::Binary(bytes))) = tunnel.next() => write.write_all(&bytes).await.unwrap(),
                else => return,
            }
        }
    });
    let mut tunnelled = Spdy { io, begun: false };
    assert_eq!(tunnelled.forward(1, "8080", "0", &big).await, big);
}

#[tokio::test]
async fn exec_is_spoken_over_spdy() {
    let world = World::new().await;
    pod(&world, "bb", spec()).await;
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "SPDY/3.1"),
        ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ("x-stream-protocol-version", "channel.k8s.io"),
    ];
    let query = "exec?stdin=1&stdout=1&stderr=1&command=fail&command=7";
    let response = world.send("POST", &format!("{BASE}/{query}"), &headers, "").await;
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
    let mut spdy = Spdy { io: TokioIo::new(hyper::upgrade::on(response).await.unwrap()), begun: false };
    for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        spdy.open(stream, &[("streamtype", kind)]).await;
    }
    let status: Value = serde_json::from_slice(&spdy.read(1).await).unwrap();
    assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "7"}));

    let response = world.send("POST", &format!("{BASE}/exec?stdin=1&stdout=1&command=cat"), &headers, "").await;
    let mut spdy = Spdy { io: TokioIo::new(hyper::upgrade::on(response).await.unwrap()), begun: false };
    for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
        spdy.open(stream, &[("streamtype", kind)]).await;
    }
    spdy.data(3, true, b"typed").await;
    assert_eq!(spdy.read(5).await, b"typed");
    assert_eq!(spdy.read(1).await, br#"{"metadata":{},"status":"Success"}"#);

    let unknown =
        [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v9.channel.k8s.io")];
    let response = world.send("POST", &format!("{BASE}/{query}"), &unknown, "").await;
    assert_eq!(response.status(), 403);
}

#[tokio::test]
async fn requests_are_proxied_into_pods_and_services() {
    let world = World::new().await;
    pod(&world, "bb", spec()).await;
    let ask = async |path: &str| world.ask("GET", path, "").await;
    let (_, made) = world.post("/reddwarf/v1/tokens", json!({"user": "a", "groups": ["system:masters"]})).await;
    let secret = made["token"].as_str().unwrap();
    let bearer = format!("Bearer {secret}");
    let headers = [("authorization", bearer.as_str()), ("x-mine", "1"), ("connection", "x-gone"), ("x-gone", "1")];
    let response = world.send("GET", &format!("{BASE}:8081/proxy/a%20b//c?x=1&y"), &headers, "").await;
    let (code, _, body) = finish(response).await;
    let text = body.as_str().unwrap();
    assert_eq!(code, 200);
    assert!(text.starts_with("GET /a%20b//c?x=1&y HTTP/1.1\r\n"), "{text}");
    assert!(text.contains("x-mine: 1") && text.contains("host: localhost:8081"), "{text}");
    assert!(!text.contains(secret) && !text.contains("x-gone"), "{text}");

    let (_, headers, _) = ask(&format!("{BASE}:web/proxy/moved")).await;
    assert_eq!(headers["location"], format!("{BASE}:web/proxy/there"));
    let (code, headers, _) = ask(&format!("{BASE}:8081/proxy?q=1")).await;
    assert_eq!((code, headers["location"].to_str().unwrap()), (301, &*format!("{BASE}:8081/proxy/?q=1")));
    let (code, _, body) = ask(&format!("{BASE}:81/proxy/")).await;
    assert_eq!(code, 503);
    assert!(body["message"].as_str().unwrap().starts_with("error trying to reach service: "), "{body}");

    let headers = [("connection", "Upgrade"), ("upgrade", "echo")];
    let response = world.send("GET", &format!("{BASE}:8081/proxy/ws"), &headers, "").await;
    assert_eq!(response.status(), 101);
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    io.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    soon(io.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"ping");

    let services = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "s"}, "spec": {"selector": {"app": "w"}, "ports": [{"port": 80, "targetPort": "web"}]}});
    assert_eq!(world.post(services, service).await.0, 201);
    let (code, _, body) = ask(&format!("{services}/s/proxy/")).await;
    assert_eq!((code, body["message"].clone()), (503, json!("no endpoints available for service \"s\"")));
    let mut ready = json!({"metadata": {"name": "w", "labels": {"app": "w"}}, "spec": spec()});
    assert_eq!(world.post("/api/v1/namespaces/default/pods", ready.clone()).await.0, 201);
    ready["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    let (code, _, body) = world.ask("PUT", "/api/v1/namespaces/default/pods/w/status", &ready.to_string()).await;
    assert_eq!(code, 200, "{body}");
    let (code, _, body) = ask(&format!("{services}/s:80/proxy/hello")).await;
    assert_eq!(code, 200, "{body}");
    assert!(body.as_str().unwrap().starts_with("GET /hello "), "{body}");
    assert_eq!(ask(&format!("{services}/s:81/proxy/")).await.0, 503);
}
