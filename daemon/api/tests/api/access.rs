//! Who gets in over TCP: TLS, certificates, tokens; 401 and 403.

use crate::*;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

async fn listening() -> World {
    World::with(|s| {
        s.listen = Some("127.0.0.1:0".parse().unwrap());
        s.limits.socket_check = Duration::from_millis(50);
        s.limits.handshake = Duration::from_millis(500);
    })
    .await
}

fn field(kubeconfig: &str, name: &str) -> Vec<u8> {
    use base64::Engine;
    let line = kubeconfig.lines().find_map(|l| l.trim().strip_prefix(name)).unwrap_or_else(|| panic!("{name}"));
    base64::prelude::BASE64_STANDARD.decode(line.trim_start_matches(": ")).unwrap()
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A kubeconfig's client.
struct Client {
    world: std::net::SocketAddr,
    roots: Arc<RootCertStore>,
    identity: Option<Identity>,
    alpn: Vec<Vec<u8>>,
    versions: &'static [&'static rustls::SupportedProtocolVersion],
}

impl Client {
    fn of(world: &World) -> Self {
        let kubeconfig = std::fs::read_to_string(world.state.join("admin.kubeconfig")).unwrap();
        let mut roots = RootCertStore::empty();
        let authority = field(&kubeconfig, "certificate-authority-data");
        roots.add(CertificateDer::from_pem_slice(&authority).unwrap()).unwrap();
        let certificate = CertificateDer::from_pem_slice(&field(&kubeconfig, "client-certificate-data")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(&field(&kubeconfig, "client-key-data")).unwrap();
        Self {
            world: world.tcp.unwrap(),
            roots: Arc::new(roots),
            identity: Some((vec![certificate], key)),
            alpn: vec![b"http/1.1".to_vec()],
            versions: rustls::ALL_VERSIONS,
        }
    }

    fn anonymous(mut self) -> Self {
        self.identity = None;
        self
    }

    async fn connect(&self, name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(self.versions).unwrap();
        let config = config.with_root_certificates(self.roots.clone());
        let mut config = match &self.identity {
            Some((chain, key)) => config.with_client_auth_cert(chain.clone(), key.clone_key()).unwrap(),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.clone();
        let stream = TcpStream::connect(self.world).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name).unwrap(), stream).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> (u16, Value) {
        let mut sender = client(TokioIo::new(self.connect("localhost").await.unwrap())).await;
        let (code, _, body) = finish(sender.send_request(request).await.unwrap()).await;
        (code, body)
    }

    async fn get(&self, path: &str, authorization: &[&str]) -> (u16, Value) {
        let mut request = Request::get(path).header("host", "localhost");
        for value in authorization {
            request = request.header("authorization", *value);
        }
        self.send(request.body(Default::default()).unwrap()).await
    }
}

const TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
const TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn unauthorized() -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "Unauthorized", "reason": "Unauthorized", "code": 401});
    (401, status)
}

#[tokio::test]
async fn c31_the_kubeconfig_opens_the_api_under_every_name_and_both_tls_versions() {
    let world = listening().await;
    let file = world.state.join("admin.kubeconfig");
    let mode = |path: &str| std::fs::metadata(world.state.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("admin.kubeconfig"), mode("pki"), mode("pki/ca.key")), (0o600, 0o700, 0o600));
    let (code, told) = world.get("/reddwarf/v1/kubeconfig").await;
    assert_eq!((code, told["kubeconfig"].as_str().unwrap()), (200, std::fs::read_to_string(&file).unwrap().as_str()));
    let url = format!("server: https://{}\n", world.tcp.unwrap());
    assert!(told["kubeconfig"].as_str().unwrap().contains(&url));
    let mut admin = Client::of(&world);
    for name in ["127.0.0.1", "::1", "localhost", "kubernetes", "kubernetes.default.svc"] {
        admin.connect(name).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    assert!(admin.connect("example.org").await.is_err());
    for versions in [TLS12, TLS13] {
        admin.versions = versions;
        assert_eq!(admin.get("/api/v1/namespaces/default/pods", &[]).await.0, 200, "{versions:?}");
    }
}

#[tokio::test]
async fn http2_carries_many_watches_on_one_connection() {
    let world = listening().await;
    let mut admin = Client::of(&world);
    admin.alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = admin.connect("localhost").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let ask = |path: String| {
        let mut sender = sender.clone();
        let request = Request::get(format!("https://localhost{path}")).body(Full::<Bytes>::default()).unwrap();
        async move { sender.send_request(request).await.unwrap() }
    };
    let mut watches = Vec::new();
    for _ in 0..50 {
        let answer = ask("/api/v1/namespaces/default/configmaps?watch=true".into()).await;
        watches.push(Lines::of(answer));
    }
    world.post("/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": "a"}})).await;
    for watch in &mut watches {
        assert_eq!(soon(watch.next()).await.unwrap()["object"]["metadata"]["name"], "a");
    }
    let (code, _, body) = finish(ask("/version".into()).await).await;
    assert_eq!((code, body["major"].clone()), (200, json!("1")));
    world.stop.cancel();
    for watch in &mut watches {
        assert!(soon(watch.next()).await.is_none(), "ended cleanly");
    }
    soon(world.serving).await.unwrap();
    drop(soon(connection).await);
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A POST over HTTP/2 whose body is sent piece by piece, and its answer.
async fn sending(
    client: &Client,
    headers: &[(&str, &str)],
) -> (tokio::sync::mpsc::Sender<Bytes>, tokio::task::JoinHandle<hyper::Result<hyper::Response<hyper::body::Incoming>>>)
{
    let stream = TokioIo::new(client.connect("localhost").await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let (pieces, mut arriving) = tokio::sync::mpsc::channel::<Bytes>(1);
    let frames = futures_util::stream::poll_fn(move |cx| {
        arriving.poll_recv(cx).map(|piece| piece.map(|bytes| Ok::<_, std::io::Error>(hyper::body::Frame::data(bytes))))
    });
    let mut request = Request::post(format!("https://localhost{MAPS}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(http_body_util::StreamBody::new(frames)).unwrap();
    (pieces, tokio::spawn(async move { sender.send_request(request).await }))
}

#[tokio::test]
async fn f41_over_http2_a_body_over_the_limit_is_answered_and_read_on() {
    let world = listening().await;
    let mut admin = Client::of(&world);
    admin.alpn = vec![b"h2".to_vec()];
    let (pieces, answer) = sending(&admin, &[]).await;
    let piece = Bytes::from(vec![b'x'; 256 << 10]);
    // More than the limit, and then more than any window: a stream that was reset would take no more of it.
    for _ in 0..16 {
        soon(pieces.send(piece.clone())).await.unwrap();
    }
    let (code, _, body) = finish(soon(answer).await.unwrap().unwrap()).await;
    assert_eq!((code, body["reason"].clone()), (413, json!("RequestEntityTooLarge")), "{body}");
    for _ in 0..64 {
        soon(pieces.send(piece.clone())).await.expect("it is read on");
    }
    drop(pieces);
    // Who is nobody is told so, however much it sends.
    let (pieces, answer) = sending(&admin, &[("authorization", "Bearer x")]).await;
    let (code, ..) = finish(soon(answer).await.unwrap().unwrap()).await;
    assert_eq!(code, 401);
    for _ in 0..16 {
        soon(pieces.send(piece.clone())).await.expect("it is read on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f41_curl_sees_why_a_body_is_refused() {
    if !std::path::Path::new("/usr/bin/curl").exists() {
        return;
    }
    let world = listening().await;
    let kubeconfig = std::fs::read_to_string(world.state.join("admin.kubeconfig")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("cert", field(&kubeconfig, "client-certificate-data")),
        ("key", field(&kubeconfig, "client-key-data")),
        ("ca", field(&kubeconfig, "certificate-authority-data")),
        ("large", vec![b'x'; 20 << 20]),
    ] {
        std::io::Write::write_all(&mut std::fs::File::create(dir.path().join(name)).unwrap(), &bytes).unwrap();
    }
    let url = format!("https://{}{MAPS}", world.tcp.unwrap());
    for (token, length, code) in
        [("", "", "413"), ("", "Transfer-Encoding: chunked", "413"), ("Authorization: Bearer x", "", "401")]
    {
        #[allow(clippy::disallowed_methods, reason = "another client")]
        let mut command = tokio::process::Command::new("/usr/bin/curl");
        command.current_dir(&dir).args([
            "-sS",
            "--http2",
            "--max-time",
            "60",
            "--cacert",
            "ca",
            "--cert",
            "cert",
            "--key",
            "key",
        ]);
        command.args(["-H", "Content-Type: application/json", "-H", token, "-H", length, "-o", "answer"]);
        command.args(["-w", "%{http_code} %{http_version}", "--data-binary", "@large", &url]);
        let output = command.output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{code} 2"), "{output:?}");
        assert!(output.status.success(), "{output:?}");
        let answer: Value = serde_json::from_slice(&std::fs::read(dir.path().join("answer")).unwrap()).unwrap();
        assert_eq!((answer["kind"].clone(), answer["code"].to_string()), (json!("Status"), code.to_owned()));
    }
}

#[tokio::test]
async fn head_has_no_body_and_breaks_no_stream() {
    let world = listening().await;
    let mut admin = Client::of(&world);
    admin.alpn = vec![b"h2".to_vec()];
    let stream = admin.connect("localhost").await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (path, wanted) in [
        ("/healthz", 200),
        ("/livez", 200),
        ("/readyz/store", 200),
        ("/version", 405),
        ("/api/v1/namespaces", 405),
        ("/x", 404),
    ] {
        let mut sender = sender.clone();
        let request = Request::head(format!("https://localhost{path}")).body(Full::<Bytes>::default()).unwrap();
        let answer = soon(sender.send_request(request)).await.unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(answer.status(), wanted, "{path}");
        let body = soon(answer.into_body().collect()).await.unwrap_or_else(|e| panic!("{path}: {e}")).to_bytes();
        assert!(body.is_empty(), "{path}: {body:?}");
        let over_http1 = world.send("HEAD", path, &[], "").await;
        assert_eq!(over_http1.status(), wanted, "{path}");
    }
}

#[tokio::test]
async fn strangers_see_health_and_version_and_bad_credentials_nothing() {
    let world = listening().await;
    let stranger = Client::of(&world).anonymous();
    for path in ["/healthz", "/livez", "/readyz", "/version", "/livez/ping"] {
        assert_eq!(stranger.get(path, &[]).await.0, 200, "{path}");
    }
    for path in ["/api", "/apis", "/metrics", "/api/v1/pods", "/reddwarf/v1/status", "/nope", "/healthz%2f..%2fmetrics"]
    {
        assert_eq!(stranger.get(path, &[]).await, unauthorized(), "{path}");
    }
    // E01; bearer() itself is tested with more.
    let malformed = [
        "",
        "Bearer",
        "Bearer ",
        "Bearerx",
        "Basic YTpi",
        "abc",
        "Token abc",
        "Bearer a b",
        "Bearer a,b",
        "Bearer \"a\"",
        "Negotiate abc",
        "Bearer eyJ.eyJ.x",
    ];
    let admin = Client::of(&world);
    for header in malformed {
        for who in [&stranger, &admin] {
            assert_eq!(who.get("/livez", &[header]).await, unauthorized(), "{header:?}");
        }
    }
    let token =
        world.post("/reddwarf/v1/tokens", json!({"user": "alice"})).await.1["token"].as_str().unwrap().to_owned();
    let good = format!("Bearer {token}");
    assert_eq!(stranger.get("/livez", &[&good, &good]).await, unauthorized(), "two headers");
    assert_eq!(admin.get("/livez", &["Bearer reddwarf.a.b"]).await, unauthorized(), "although the certificate is good");
}

#[tokio::test]
async fn e01_tokens_are_made_used_listed_and_revoked() {
    let world = listening().await;
    let stranger = Client::of(&world).anonymous();
    let wanted = json!({"user": "alice", "groups": ["system:masters"], "description": "ci", "expirationSeconds": 3600});
    let (code, made) = world.post("/reddwarf/v1/tokens", wanted).await;
    assert_eq!(code, 200, "{made}");
    let bearer = format!("Bearer {}", made["token"].as_str().unwrap());
    assert!(made["kubeconfig"].as_str().unwrap().contains(made["token"].as_str().unwrap()));
    assert_eq!(stranger.get("/api/v1/pods", &[&bearer]).await.0, 200);
    let (_, list) = world.get("/reddwarf/v1/tokens").await;
    assert_eq!(
        (list["items"][0]["user"].clone(), list["items"][0]["description"].clone()),
        (json!("alice"), json!("ci"))
    );
    assert!(!list.to_string().contains(made["token"].as_str().unwrap().rsplit('.').next().unwrap()));
    let id = made["id"].as_str().unwrap();
    assert_eq!(world.ask("DELETE", &format!("/reddwarf/v1/tokens?id={id}"), "").await.0, 200);
    assert_eq!(world.ask("DELETE", &format!("/reddwarf/v1/tokens?id={id}"), "").await.0, 404);
    assert_eq!(stranger.get("/api/v1/pods", &[&bearer]).await, unauthorized());
    for bad in [
        json!({}),
        json!({"user": "system:kube-scheduler"}),
        json!({"user": "a\nb"}),
        json!({"user": "a", "groups": [""]}),
        json!({"user": "a", "expirationSeconds": 1}),
        json!({"user": "a", "expirationSeconds": u64::MAX}),
    ] {
        assert_eq!(world.post("/reddwarf/v1/tokens", bad.clone()).await.0, 422, "{bad}");
    }
}

#[tokio::test]
async fn users_without_rights_are_refused_as_the_reference_refuses_them() {
    let world = listening().await;
    let (_, made) = world.post("/reddwarf/v1/tokens", json!({"user": "alice", "groups": ["devs"]})).await;
    let bearer = format!("Bearer {}", made["token"].as_str().unwrap());
    let stranger = Client::of(&world).anonymous();
    let (code, body) = stranger.get("/api/v1/namespaces/probe/pods", &[&bearer]).await;
    // Recorded (api-answers-1.36.txt).
    let wanted = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "pods is forbidden: User \"alice\" cannot list resource \"pods\" in API group \"\" in the namespace \"probe\"",
        "reason": "Forbidden", "details": {"kind": "pods"}, "code": 403});
    assert_eq!((code, body), (403, wanted));
    for path in ["/reddwarf/v1/status", "/reddwarf/v1/tokens", "/reddwarf/v1/kubeconfig", "/metrics"] {
        let (code, body) = stranger.get(path, &[&bearer]).await;
        let text = format!("forbidden: User \"alice\" cannot get path \"{path}\"");
        assert_eq!((code, body["message"].clone()), (403, json!(text)));
    }
}

#[tokio::test]
async fn who_speaks_no_tls_is_told_and_who_says_nothing_is_cut() {
    let world = listening().await;
    let mut plain = TcpStream::connect(world.tcp.unwrap()).await.unwrap();
    plain.write_all(b"GET /api HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon(plain.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.contains("Client sent an HTTP request to an HTTPS server"), "{answer}");
    for bytes in
        [&b""[..], &b"\x16\x03\x01\x02\x00\x01"[..], &b"\x16\xff\xff\xff\xff\xff\xff"[..], &b"\x80\x80\x80"[..]]
    {
        let mut odd = TcpStream::connect(world.tcp.unwrap()).await.unwrap();
        odd.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        // An alert, an end or a reset, but not a connection that stays.
        drop(soon(odd.read_to_end(&mut rest)).await);
    }
    assert_eq!(Client::of(&world).get("/version", &[]).await.0, 200, "others are served");
}

#[tokio::test]
async fn smuggled_and_oversized_requests_end_at_the_door() {
    let world = listening().await;
    let stranger = Client::of(&world).anonymous();
    let huge = "x".repeat(200 << 10);
    let long = format!("GET /{huge} HTTP/1.1\r\nHost: x\r\n\r\n");
    let header = format!("GET /version HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(300));
    for (request, code) in [
        ("GET /version HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "400"),
        ("POST /api/v1/pods HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "400"),
        ("GET /version HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n", "400"),
        ("GET /version HTTP/1.1\r\nHost: x\r\n X: folded\r\n\r\n", "400"),
        (&long, "4"),
        (&header, "431"),
    ] {
        let mut stream = stranger.connect("localhost").await.unwrap();
        drop(stream.write_all(request.as_bytes()).await);
        drop(stream.flush().await);
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "{}", request.chars().take(80).collect::<String>());
        let answer = String::from_utf8_lossy(&answer);
        let start = format!("HTTP/1.1 {code}");
        assert!(answer.starts_with(&start), "{}: {answer}", request.chars().take(80).collect::<String>());
    }
}

#[tokio::test]
async fn certificates_of_the_user_are_shown_and_taken_over_while_running() {
    let dir = tempfile::tempdir().unwrap();
    let other = rcgen::KeyPair::generate().unwrap();
    let authority = || {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(rcgen::DnType::CommonName, "theirs");
        params
    };
    let theirs = authority().self_signed(&other).unwrap();
    let issuer = rcgen::Issuer::new(authority(), other);
    let issue = |name: &str, groups: &[&str], ends: i32, purpose| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        groups.iter().for_each(|g| params.distinguished_name.push(rcgen::DnType::OrganizationName, *g));
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(ends, 1, 1);
        params.extended_key_usages = vec![purpose];
        (params.signed_by(&key, &issuer).unwrap().der().clone(), key)
    };
    let pem = |label: &str, der: &[u8]| {
        use base64::Engine;
        let text = base64::prelude::BASE64_STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    };
    let put = |text: &str| {
        let fresh = dir.path().join("fresh");
        std::io::Write::write_all(&mut std::fs::File::create(&fresh).unwrap(), text.as_bytes()).unwrap();
        std::fs::rename(fresh, dir.path().join("tls.pem")).unwrap();
    };
    let server = || {
        let (certificate, key) = issue("server", &[], 2100, rcgen::ExtendedKeyUsagePurpose::ServerAuth);
        let text = pem("CERTIFICATE", &certificate) + &pem("PRIVATE KEY", key.serialized_der());
        (text + &pem("CERTIFICATE", theirs.der()), certificate)
    };
    let (text, first) = server();
    put(&text);
    let trusted = dir.path().join("ca.pem");
    std::io::Write::write_all(
        &mut std::fs::File::create(&trusted).unwrap(),
        pem("CERTIFICATE", theirs.der()).as_bytes(),
    )
    .unwrap();
    let world = World::with_access(
        |s| {
            s.listen = Some("127.0.0.1:0".parse().unwrap());
            s.limits.socket_check = Duration::from_millis(20);
        },
        |access| {
            access.tls.certificate = Some(dir.path().join("tls.pem"));
            access.tls.client_ca = Some(trusted);
        },
    )
    .await;
    let mut client = Client::of(&world);
    let shown = async |client: &Client| {
        client.connect("localhost").await.unwrap().get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    assert_eq!(shown(&client).await, first);
    assert_eq!(client.get("/api/v1/pods", &[]).await.0, 200, "the admin's own certificate stays good");
    // C32: certificates of the user's authority.
    let identity = |(certificate, key): (CertificateDer<'static>, rcgen::KeyPair)| {
        Some((vec![certificate], PrivateKeyDer::try_from(key.serialize_der()).unwrap()))
    };
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    client.identity = identity(issue("alice", &["system:masters"], 2100, ClientAuth));
    assert_eq!(client.get("/api/v1/pods", &[]).await.0, 200);
    client.identity = identity(issue("alice", &["devs"], 2100, ClientAuth));
    assert_eq!(client.get("/api/v1/pods", &[]).await.0, 403);
    for (what, bad) in [
        ("expired", issue("alice", &["system:masters"], 2021, ClientAuth)),
        ("no client's", issue("alice", &["system:masters"], 2100, ServerAuth)),
        ("no name", issue("", &["system:masters"], 2100, ClientAuth)),
    ] {
        client.identity = identity(bad);
        assert_eq!(client.get("/api/v1/pods", &[]).await, unauthorized(), "{what}");
    }
    let stranger = rcgen::KeyPair::generate().unwrap();
    let mut own = authority();
    own.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
    let signed = own.self_signed(&stranger).unwrap();
    client.identity = identity((signed.der().clone(), stranger));
    assert_eq!(client.get("/api/v1/pods", &[]).await, unauthorized(), "another authority's");
    // A bad file leaves the old certificate in force and says so.
    put("-----BEGIN CERTIFICATE-----\nnonsense\n");
    let events = "/api/v1/namespaces/default/events";
    soon(async {
        while !world.get(events).await.1.to_string().contains("InvalidCertificate") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(shown(&client).await, first);
    let (text, second) = server();
    put(&text);
    soon(async {
        while shown(&client).await != second {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_the_rest_is_served() {
    let world = World::with(|s| {
        s.listen = Some("127.0.0.1:0".parse().unwrap());
        s.limits.connections = 12;
        s.limits.reserved = 4;
    })
    .await;
    let client = Client::of(&world);
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(client.connect("localhost").await.unwrap());
    }
    assert!(client.connect("localhost").await.is_err(), "one too many");
    assert_eq!(world.get("/version").await.0, 200, "root at the socket still has a place");
    held.pop();
    soon(async {
        while client.connect("localhost").await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
