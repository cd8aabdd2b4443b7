//! Puts load on a reddwarfd of its own over TLS and prints what it costs: the table of docs/performance.md.
//!
//! `cargo run --release -p reddwarf-api --example api_bench -- target/release/reddwarfd [PODS]`
//!
//! With fewer pods than 10,000, all loads are that much smaller. The daemon runs as `reddwarfd serve` (an API without a node) in a temporary directory and on a port of the loopback.
//! CPU is the daemon's own, user and system, of all its threads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![expect(clippy::disallowed_methods, reason = "a measurement runs in real time")]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Sender = SendRequest<Full<Bytes>>;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: api_bench PATH_OF_REDDWARFD [PODS]");
        std::process::exit(2);
    };
    let pods = arguments.next().map_or(10_000, |n| n.parse().expect("a number of pods"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(Path::new(&program), pods));
}

/// The daemon under load.
struct Daemon {
    child: Child,
    dir: tempfile::TempDir,
    address: SocketAddr,
}

impl Daemon {
    fn spawn(program: &Path, dir: tempfile::TempDir) -> Self {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let under = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(under("manifests")).unwrap();
        let log = File::options().create(true).append(true).open(under("log")).unwrap();
        let child = Command::new(program)
            .arg("serve")
            .args([Path::new("--manifests"), &under("manifests"), Path::new("--state"), &under("state")])
            .args([Path::new("--run"), &under("run")])
            .args(["--listen", &address.to_string(), "--host", "sim", "--node-name", "bench", "--log-level", "warn"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("start reddwarfd");
        Self { child, dir, address }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// CPU of all threads so far.
    fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = text.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    fn rss_mib(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }

    /// Connects once the daemon is ready.
    async fn client(&self) -> Client {
        let config = self.dir.path().join("state/admin.kubeconfig");
        loop {
            if let Some(client) = Client::of(&config, self.address)
                && let Ok(mut sender) = client.connect().await
                && let Ok((StatusCode::OK, _)) = call(&mut sender, Method::GET, "/readyz", None).await
            {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Who connects, with the admin's certificate.
#[derive(Clone)]
struct Client {
    connector: TlsConnector,
    address: SocketAddr,
}

impl Client {
    fn of(kubeconfig: &Path, address: SocketAddr) -> Option<Self> {
        let text = std::fs::read_to_string(kubeconfig).ok()?;
        let field = |name: &str| {
            let line = text.lines().find_map(|l| l.trim().strip_prefix(name)?.strip_prefix(": "))?;
            BASE64_STANDARD.decode(line).ok()
        };
        let mut roots = rustls::RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(&field("certificate-authority-data")?) {
            roots.add(authority.ok()?).ok()?;
        }
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(&field("client-certificate-data")?).collect::<Result<_, _>>().ok()?;
        let key = PrivateKeyDer::from_pem_slice(&field("client-key-data")?).ok()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .ok()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .ok()?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Some(Self { connector: TlsConnector::from(Arc::new(config)), address })
    }

    async fn connect(&self) -> Result<Sender, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.connector.connect(ServerName::from(self.address.ip()), stream).await?;
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(8 << 20)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

fn request(method: Method, path: &str, accept: &str, body: Option<Bytes>) -> Request<Full<Bytes>> {
    let kind = match method {
        Method::PATCH => "application/merge-patch+json",
        _ => "application/json",
    };
    Request::builder()
        .method(method)
        .uri(format!("https://127.0.0.1{path}"))
        .header("accept", accept)
        .header("content-type", kind)
        .body(Full::new(body.unwrap_or_default()))
        .unwrap()
}

async fn call(
    sender: &mut Sender,
    method: Method,
    path: &str,
    body: Option<Bytes>,
) -> Result<(StatusCode, Bytes), hyper::Error> {
    let response = sender.send_request(request(method, path, "application/json", body)).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

/// Bytes of a streamed answer; nothing of it is kept.
async fn drain(sender: &mut Sender, path: &str, accept: &str) -> usize {
    let response = sender.send_request(request(Method::GET, path, accept, None)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().data_ref().map_or(0, Bytes::len);
    }
    bytes
}

/// A pod of the usual size: 2 KiB in a list once it has its defaults.
fn pod(index: usize) -> Bytes {
    let env: Vec<Value> =
        (0..8).map(|i| json!({"name": format!("SETTING_{i}"), "value": format!("value of setting {i}")})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{index:05}"), "namespace": "default",
            "labels": {"app": format!("app-{}", index % 100), "tier": "backend", "release": "stable"}},
        "spec": {"containers": [{
            "name": "main", "image": "registry.example.com/team/app:1.2.3", "env": env,
            "ports": [{"name": "http", "containerPort": 8080}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}}}]}
    })
    .to_string()
    .into()
}

fn row(what: &str, figure: String, budget: &str) {
    println!("{what:<52} {figure:>34}   {budget}");
}

fn quantile(sorted: &[Duration], q: f64) -> f64 {
    let last = sorted.len() - 1;
    sorted[((sorted.len() as f64 * q) as usize).min(last)].as_secs_f64() * 1e3
}

/// `count` calls by `workers` over as many connections; prints rate, latencies and the daemon's CPU for each.
async fn load<F>(daemon: &Daemon, client: &Client, what: &str, budget: &str, workers: usize, count: usize, make: F)
where
    F: Fn(usize) -> (Method, String, Option<Bytes>, StatusCode) + Send + Sync + 'static,
{
    let (make, next) = (Arc::new(make), Arc::new(AtomicUsize::new(0)));
    let mut senders = Vec::new();
    for _ in 0..workers {
        senders.push(client.connect().await.unwrap());
    }
    let (began, cpu) = (Instant::now(), daemon.cpu());
    let running: Vec<_> = senders
        .into_iter()
        .map(|mut sender| {
            let (make, next) = (make.clone(), next.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return took;
                    }
                    let (method, path, body, wanted) = make(index);
                    let began = Instant::now();
                    let (status, body) = call(&mut sender, method, &path, body).await.unwrap();
                    assert_eq!(status, wanted, "{path}: {}", String::from_utf8_lossy(&body));
                    took.push(began.elapsed());
                }
            })
        })
        .collect();
    let mut took = Vec::new();
    for worker in running {
        took.extend(worker.await.unwrap());
    }
    let (elapsed, cpu) = (began.elapsed(), daemon.cpu() - cpu);
    took.sort_unstable();
    let figure = format!(
        "{:.0}/s, p50 {:.1} p99 {:.1} ms, {:.3} ms CPU",
        count as f64 / elapsed.as_secs_f64(),
        quantile(&took, 0.5),
        quantile(&took, 0.99),
        cpu.as_secs_f64() * 1e3 / count as f64
    );
    row(what, figure, budget);
}

/// CPU and time of a whole read, the mean of several.
async fn read(daemon: &Daemon, client: &Client, what: &str, budget: &str, path: &str, accept: &str) {
    const TIMES: u32 = 10;
    let mut sender = client.connect().await.unwrap();
    let bytes = drain(&mut sender, path, accept).await;
    let (began, cpu) = (Instant::now(), daemon.cpu());
    for _ in 0..TIMES {
        assert!(drain(&mut sender, path, accept).await > 0);
    }
    let (elapsed, cpu) = (began.elapsed() / TIMES, (daemon.cpu() - cpu) / TIMES);
    let (mib, elapsed, cpu) = (bytes as f64 / (1 << 20) as f64, elapsed.as_millis(), cpu.as_millis());
    row(what, format!("{mib:.1} MiB, {elapsed} ms, {cpu} ms CPU"), budget);
}

/// Patches under the eyes of watchers: is every event delivered, and how soon after its write was answered or begun?
async fn watches(daemon: &Daemon, client: &Client, watchers: usize, patches: usize) {
    let (_, list) =
        call(&mut client.connect().await.unwrap(), Method::GET, "/api/v1/namespaces/default/pods?limit=1", None)
            .await
            .unwrap();
    let version =
        serde_json::from_slice::<Value>(&list).unwrap()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/namespaces/default/pods?watch=true&resourceVersion={version}");
    let mut running = Vec::new();
    for _ in 0..watchers {
        let mut sender = client.connect().await.unwrap();
        let response = sender.send_request(request(Method::GET, &path, "application/json", None)).await.unwrap();
        running.push(tokio::spawn(async move {
            let _connection = sender;
            let (mut body, mut text, mut late) = (response.into_body(), Vec::new(), Vec::new());
            while late.len() < patches {
                let frame = body.frame().await.expect("the watch ended").unwrap();
                let now = micros();
                text.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d));
                while let Some(end) = text.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    let event: Value = serde_json::from_slice(&line).unwrap();
                    let sent: u64 =
                        event["object"]["metadata"]["annotations"]["sent"].as_str().unwrap().parse().unwrap();
                    late.push(Duration::from_micros(now.saturating_sub(sent)));
                }
            }
            late
        }));
    }
    let mut sender = client.connect().await.unwrap();
    let (began, cpu) = (Instant::now(), daemon.cpu());
    for i in 0..patches {
        let body = json!({"metadata": {"annotations": {"sent": micros().to_string()}}}).to_string().into();
        let path = format!("/api/v1/namespaces/default/pods/pod-{:05}", i % 100);
        let (status, answer) = call(&mut sender, Method::PATCH, &path, Some(body)).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer));
    }
    let rate = patches as f64 / began.elapsed().as_secs_f64();
    let mut late = Vec::new();
    for watcher in running {
        late.extend(watcher.await.unwrap());
    }
    let cpu = (daemon.cpu() - cpu).as_secs_f64() * 1e3 / patches as f64;
    late.sort_unstable();
    assert_eq!(late.len(), watchers * patches);
    let figure =
        format!("{rate:.0}/s, p50 {:.1} p99 {:.1} ms, {cpu:.3} ms CPU", quantile(&late, 0.5), quantile(&late, 0.99));
    row(&format!("{patches} patches, {watchers} watchers, all {} events", late.len()), figure, "p99 <= 20 ms");
}

fn micros() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

/// Idle watches of one connection: what each costs.
async fn idle_watchers(daemon: &Daemon, client: &Client, count: usize) {
    let path = "/api/v1/namespaces/default/configmaps?watch=true&resourceVersion=0&fieldSelector=metadata.name=none";
    let mut open = Vec::new();
    let mut senders = Vec::new();
    for _ in 0..count / 50 {
        senders.push(client.connect().await.unwrap());
    }
    for sender in &mut senders {
        drop(call(sender, Method::GET, "/readyz", None).await.unwrap());
    }
    let before = daemon.rss_mib();
    for sender in &mut senders {
        for _ in 0..50 {
            open.push(sender.send_request(request(Method::GET, path, "application/json", None)).await.unwrap());
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let each = (daemon.rss_mib() - before) * 1024.0 / count as f64;
    row(&format!("{count} idle watches on {} connections, each", senders.len()), format!("{each:.1} KiB"), "8 kB");
    drop(open);
}

/// What the disk takes to make 4 KiB durable.
fn fdatasync(dir: &Path) -> f64 {
    let mut file = File::create(dir.join("probe")).unwrap();
    let mut took: Vec<Duration> = (0..200)
        .map(|_| {
            file.write_all(&[7; 4096]).unwrap();
            let began = Instant::now();
            file.sync_data().unwrap();
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    quantile(&took, 0.5)
}

async fn measure(program: &Path, pods: usize) {
    let dir = tempfile::Builder::new().prefix("reddwarf-api-bench").tempdir().unwrap();
    row("fdatasync of 4 KiB, p50", format!("{:.2} ms", fdatasync(dir.path())), "");
    let began = Instant::now();
    let daemon = Daemon::spawn(program, dir);
    let ready = tokio::time::timeout(Duration::from_secs(20), daemon.client()).await;
    let client = ready.unwrap_or_else(|_| panic!("not ready:\n{}", daemon.log()));
    row("start on an empty state to ready (keys made)", format!("{} ms", began.elapsed().as_millis()), "");
    tokio::time::sleep(Duration::from_secs(2)).await;
    row("resident, idle", format!("{:.1} MiB", daemon.rss_mib()), "20 MiB");

    let path = |index: usize| format!("/api/v1/namespaces/default/pods/pod-{index:05}");
    load(&daemon, &client, "create a pod, 16 clients", "0.16 ms CPU", 16, pods, |i| {
        (Method::POST, "/api/v1/namespaces/default/pods".into(), Some(pod(i)), StatusCode::CREATED)
    })
    .await;
    load(&daemon, &client, "create a ConfigMap, 64 clients", "5,000/s", 64, 2 * pods, |i| {
        let body = json!({"metadata": {"name": format!("c{i}")}, "data": {"key": "value"}}).to_string().into();
        (Method::POST, "/api/v1/namespaces/default/configmaps".into(), Some(body), StatusCode::CREATED)
    })
    .await;
    load(&daemon, &client, "delete a ConfigMap, 64 clients", "", 64, 2 * pods, |i| {
        (Method::DELETE, format!("/api/v1/namespaces/default/configmaps/c{i}"), None, StatusCode::OK)
    })
    .await;
    load(&daemon, &client, "get a pod, 16 clients", "0.03 ms CPU", 16, 4 * pods, move |i| {
        (Method::GET, path(i * 7919 % pods), None, StatusCode::OK)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = daemon.rss_mib();
    row(&format!("resident, {pods} pods"), format!("{before:.1} MiB"), "60 MiB");
    read(&daemon, &client, &format!("list {pods} pods"), "45 ms CPU", "/api/v1/pods", "application/json").await;
    row("resident after it, more than before", format!("{:.1} MiB", daemon.rss_mib() - before), "8 MB");
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    read(&daemon, &client, &format!("Table of {pods} pods"), "40 ms CPU", "/api/v1/pods", table).await;
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    read(&daemon, &client, &format!("metadata of {pods} pods"), "", "/api/v1/pods", partial).await;
    watches(&daemon, &client, 10, 1000).await;
    idle_watchers(&daemon, &client, 1000).await;
    restart(program, daemon).await;
}

/// The same state again: how soon is it served?
async fn restart(program: &Path, mut daemon: Daemon) {
    let _ = daemon.child.kill();
    let _ = daemon.child.wait();
    let state: PathBuf = daemon.dir.path().to_owned();
    let dir = std::mem::replace(&mut daemon.dir, tempfile::tempdir().unwrap());
    assert_eq!(dir.path(), state);
    let began = Instant::now();
    let again = Daemon::spawn(program, dir);
    let ready = tokio::time::timeout(Duration::from_secs(20), again.client()).await;
    assert!(ready.is_ok(), "not ready:\n{}", again.log());
    row("start with all of it to ready", format!("{} ms", began.elapsed().as_millis()), "150 ms");
}
