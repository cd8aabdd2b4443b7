//! A served API over a temporary socket, a store of its own and a fake of everything else.

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use reddwarf_api::runtime::*;
use reddwarf_api::types::*;
use reddwarf_api::{Access, AccessSettings, Api, ApiDeps, ApiSettings, Limits, Listeners};
use reddwarf_registry::Registry;
use reddwarf_store::{Store, StoreOptions};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub struct World {
    pub registry: Registry,
    pub access: Arc<Access>,
    pub fake: Arc<Fake>,
    pub socket: PathBuf,
    pub state: PathBuf,
    pub tcp: Option<std::net::SocketAddr>,
    pub stop: CancellationToken,
    pub serving: JoinHandle<()>,
    /// What another [`Api`] is made of that serves after this one.
    pub next: (ApiSettings, ApiDeps, Arc<Listeners>),
    _dir: TempDir,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut ApiSettings)) -> Self {
        Self::with_access(change, |_| {}).await
    }

    pub async fn with_access(
        change: impl FnOnce(&mut ApiSettings),
        change_access: impl FnOnce(&mut AccessSettings),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock: reddwarf_registry::Clock = Arc::new(|| {
            #[allow(clippy::disallowed_methods, reason = "nothing here depends on the time")]
            Utc::now()
        });
        let store = Store::open(dir.path().join("store.redb"), StoreOptions::new(clock.clone())).unwrap().store;
        let registry = Registry::open(store, clock).await.unwrap();
        let fake = Arc::new(Fake::default());
        let mut settings = ApiSettings {
            socket: dir.path().join("run/reddwarf.sock"),
            socket_group: None,
            listen: None,
            listen_for_pods: None,
            node_name: "box".into(),
            limits: Limits::default(),
            manifest_limits: reddwarf_config::Limits::default(),
        };
        change(&mut settings);
        let mut access = AccessSettings::default();
        change_access(&mut access);
        let access = Access::open(access, dir.path(), registry.clone()).unwrap();
        let access = Arc::new(access);
        let deps = ApiDeps {
            registry: registry.clone(),
            runtime: fake.clone(),
            directory: fake.clone(),
            access: access.clone(),
        };
        let socket = settings.socket.clone();
        let listeners = Listeners::bind(&settings, &access).await.unwrap();
        let tcp = listeners.tcp_address();
        let listeners = Arc::new(listeners);
        let api = Api::new(settings.clone(), deps.clone(), Arc::clone(&listeners));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(api.serve(stop.clone()));
        let next = (settings, deps, listeners);
        Self { registry, access, fake, socket, state: dir.path().to_owned(), tcp, stop, serving, next, _dir: dir }
    }

    pub async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        client(TokioIo::new(stream)).await
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_ref()))).unwrap();
        let mut connection = self.connect().await;
        let response = connection.send_request(request).await.unwrap();
        // The connection lives as long as its answer.
        tokio::spawn(async move {
            drop(connection.ready().await);
        });
        response
    }

    /// Code, headers, JSON body (text as a string).
    pub async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, HeaderMap, Value) {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        finish(self.send(method, path, &[("content-type", kind)], body).await).await
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let (code, _, body) = self.ask("GET", path, "").await;
        (code, body)
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let (code, _, body) = self.ask("POST", path, &body.to_string()).await;
        (code, body)
    }

    pub async fn namespace(&self, name: &str) {
        assert_eq!(self.post("/api/v1/namespaces", serde_json::json!({"metadata": {"name": name}})).await.0, 201);
    }
}

pub async fn client<S>(stream: TokioIo<S>) -> SendRequest<Full<Bytes>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

pub async fn finish(response: Response<Incoming>) -> (u16, HeaderMap, Value) {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (parts.status.as_u16(), parts.headers, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Lines of a stream as they come.
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    pub fn of(response: Response<Incoming>) -> Self {
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), buffer: Vec::new() }
    }

    /// `None` at a clean end; panics when the stream breaks.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.expect("a clean end");
            self.buffer.extend_from_slice(frame.data_ref().unwrap());
        }
    }
}

/// Stands in for the node, the daemon and the directory, and notes what it was asked.
#[derive(Default)]
pub struct Fake {
    pub asked: Mutex<Vec<String>>,
    pub broken: Mutex<Option<String>>,
    /// Senders of followed logs, so that a test feeds them and sees them closed.
    pub logs: Mutex<Vec<mpsc::Sender<Result<Bytes, RuntimeError>>>>,
    /// Told when an exec session is dropped.
    pub ended: Mutex<Vec<oneshot::Receiver<()>>>,
}

impl Fake {
    fn note(&self, text: impl Into<String>) {
        self.asked.lock().unwrap().push(text.into());
    }

    fn done(&self, text: impl Into<String>) -> Result<Done, RuntimeError> {
        let message = text.into();
        self.note(message.clone());
        Ok(Done { message })
    }
}

struct Guard(Option<oneshot::Sender<()>>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

#[async_trait]
impl Runtime for Fake {
    async fn logs(&self, pod: &PodName, options: LogOptions) -> Result<LogStream, RuntimeError> {
        self.note(format!("logs {}/{} {options:?}", pod.namespace, pod.name));
        let (sender, receiver) = mpsc::channel(1);
        if options.follow {
            sender.send(Ok(Bytes::from("first\n"))).await.unwrap();
            self.logs.lock().unwrap().push(sender);
        } else {
            tokio::spawn(async move {
                for line in ["one\n", "two\n"] {
                    drop(sender.send(Ok(Bytes::from(line))).await);
                }
            });
        }
        Ok(receiver)
    }

    /// `cat` copies, `size` tells terminal sizes, `fail N` exits so, `nosuch` does not start, `panic` panics.
    async fn exec(&self, _: &PodName, options: ExecOptions) -> Result<Session, RuntimeError> {
        self.note(format!("exec {options:?}"));
        let (mut out, stdout) = tokio::io::duplex(1024);
        let (mut err, stderr) = tokio::io::duplex(1024);
        let (stdin, mut typed) = tokio::io::duplex(1024);
        let (resize, mut sizes) = mpsc::channel::<TerminalSize>(4);
        let (told, exit) = oneshot::channel();
        let (guard, ended) = oneshot::channel();
        self.ended.lock().unwrap().push(ended);
        let words: Vec<String> = options.command.clone();
        tokio::spawn(async move {
            let mut done = ExecExit::default();
            match words[0].as_str() {
                "cat" => {
                    drop(tokio::io::copy(&mut typed, &mut out).await);
                }
                "size" => {
                    let size = sizes.recv().await.unwrap();
                    out.write_all(format!("{} {}\r\n", size.height, size.width).as_bytes()).await.unwrap();
                }
                "fail" => {
                    err.write_all(b"e\n").await.unwrap();
                    done.code = words[1].parse().unwrap();
                }
                "nosuch" => done = ExecExit { code: 127, message: "exec: \"nosuch\": not found".into() },
                "sleep" => drop(typed.read_u8().await),
                _ => out.write_all(b"hi\n").await.unwrap(),
            }
            drop((out, err));
            drop(told.send(done));
        });
        Ok(Session {
            stdin: Some(Box::new(stdin)),
            stdout: Box::new(stdout),
            stderr: (!options.tty).then(|| Box::new(stderr) as Box<dyn tokio::io::AsyncRead + Send + Unpin>),
            resize,
            exit,
            guard: Box::new(Guard(Some(guard))),
        })
    }

    /// Copies its input, and says "tick" first.
    async fn attach(&self, _: &PodName, options: AttachOptions) -> Result<Session, RuntimeError> {
        self.note(format!("attach {options:?}"));
        let (mut out, stdout) = tokio::io::duplex(1024);
        let (stdin, mut typed) = tokio::io::duplex(1024);
        let (told, exit) = oneshot::channel();
        let (guard, ended) = oneshot::channel();
        self.ended.lock().unwrap().push(ended);
        tokio::spawn(async move {
            out.write_all(b"tick\n").await.unwrap();
            drop(tokio::io::copy(&mut typed, &mut out).await);
            drop(out);
            drop(told.send(ExecExit::default()));
        });
        Ok(Session {
            stdin: options.stdin.then(|| Box::new(stdin) as _),
            stdout: Box::new(stdout),
            stderr: None,
            resize: mpsc::channel(1).0,
            exit,
            guard: Box::new(Guard(Some(guard))),
        })
    }

    /// At 8080 an echo, at 8081 a web server that answers with the request that it got; nothing elsewhere.
    async fn connect(&self, pod: &PodName, port: u16) -> Result<Connection, RuntimeError> {
        self.note(format!("connect {} {port}", pod.name));
        let (ours, theirs) = tokio::io::duplex(4096);
        let (mut read, mut write) = tokio::io::split(theirs);
        match port {
            8080 => {
                tokio::spawn(async move {
                    drop(tokio::io::copy(&mut read, &mut write).await);
                    drop(write.shutdown().await);
                });
            }
            8081 => {
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(read.read_u8().await.unwrap());
                    }
                    let text = String::from_utf8(head).unwrap();
                    let answer = if text.contains("upgrade: echo") {
                        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n".to_owned()
                    } else {
                        let moved = if text.starts_with("GET /moved ") { "location: /there\r\n" } else { "" };
                        format!(
                            "HTTP/1.1 200 OK\r\n{moved}connection: close\r\ncontent-length: {}\r\n\r\n{text}",
                            text.len()
                        )
                    };
                    write.write_all(answer.as_bytes()).await.unwrap();
                    drop(tokio::io::copy(&mut read, &mut write).await);
                });
            }
            _ => return Err(RuntimeError::Conflict("dial tcp4: connect: connection refused".into())),
        }
        Ok(Box::new(ours))
    }

    async fn plan(&self) -> Result<PlanReport, RuntimeError> {
        Ok(PlanReport::default())
    }

    async fn why(&self, plural: &str, namespace: Option<&str>, name: &str) -> Result<WhyReport, RuntimeError> {
        if name == "panic" {
            panic!("a defect");
        }
        if name == "nope" {
            return Err(RuntimeError::NotFound(format!("{plural}/{name} is not there")));
        }
        Ok(WhyReport {
            object: format!("{plural}/{}/{name}", namespace.unwrap_or("-")),
            ok: true,
            ..Default::default()
        })
    }

    async fn restart(&self, pod: &PodName, container: Option<&str>) -> Result<Done, RuntimeError> {
        self.done(format!("restart {}/{} {container:?}", pod.namespace, pod.name))
    }

    async fn images(&self) -> Result<ImageList, RuntimeError> {
        Ok(ImageList::default())
    }

    async fn image_import(&self, request: &ImageImport) -> Result<Image, RuntimeError> {
        Ok(Image { names: vec![request.name.clone()], ..Default::default() })
    }

    async fn image_pull(&self, request: &ImagePull) -> Result<ImagePullStatus, RuntimeError> {
        Ok(ImagePullStatus { image: request.image.clone(), state: "waiting".into(), ..Default::default() })
    }

    async fn image_pulls(&self) -> Result<ImagePullList, RuntimeError> {
        Ok(ImagePullList::default())
    }

    async fn image_build(&self, request: &ImageBuild) -> Result<ImageBuildStatus, RuntimeError> {
        Ok(ImageBuildStatus { id: "1".into(), name: request.name.clone(), ..Default::default() })
    }

    async fn image_build_status(&self, id: &str) -> Result<ImageBuildStatus, RuntimeError> {
        Err(RuntimeError::NotFound(format!("there is no build {id:?}")))
    }

    async fn image_prune(&self, all: bool) -> Result<ImagesPruned, RuntimeError> {
        Ok(ImagesPruned { removed: vec![format!("all {all}")], bytes: 0 })
    }

    async fn image_remove(&self, name: &str) -> Result<Done, RuntimeError> {
        self.done(format!("remove {name}"))
    }

    async fn volumes(&self) -> Result<VolumeList, RuntimeError> {
        Ok(VolumeList::default())
    }

    async fn volume_action(&self, action: VolumeAction, request: &VolumeRequest) -> Result<Done, RuntimeError> {
        self.done(format!("volume {action:?} {}", request.volume))
    }

    async fn reconcile(&self, allow_prune: bool) -> Result<Done, RuntimeError> {
        self.done(format!("reconcile {allow_prune}"))
    }

    async fn shutdown(&self, stop_pods: bool) -> Result<Done, RuntimeError> {
        self.done(format!("shutdown {stop_pods}"))
    }

    async fn backup(&self, path: &str) -> Result<BackupReport, RuntimeError> {
        Ok(BackupReport { path: path.into(), ..Default::default() })
    }

    async fn restore(&self, path: &str) -> Result<Done, RuntimeError> {
        self.done(format!("restore {path}"))
    }

    fn checks(&self) -> Vec<Check> {
        let broken = self.broken.lock().unwrap().clone();
        vec![Check { name: "store".into(), ok: broken.is_none(), message: broken.unwrap_or_default() }]
    }

    async fn metrics_report(&self) -> Result<MetricsReport, RuntimeError> {
        let used = |cpu_nanocores, memory_bytes| Used { cpu_nanocores, memory_bytes };
        let pod = |namespace: &str, name: &str| PodName { namespace: namespace.into(), name: name.into() };
        Ok(MetricsReport {
            time: chrono::DateTime::UNIX_EPOCH,
            window: Duration::from_millis(15_250),
            node: "box".into(),
            used: used(1_500_000_000, 4096),
            pods: vec![
                (pod("default", "web"), vec![("app".into(), used(250_000_000, 10 << 20)), ("side".into(), used(1, 0))]),
                (pod("shop", "web"), vec![("app".into(), used(1, 1))]),
                (pod("shop", "of-yesterday"), vec![]),
            ],
        })
    }

    async fn stats_summary(&self) -> Result<Value, RuntimeError> {
        Ok(json!({"node": {"nodeName": "box"}, "pods": []}))
    }

    fn metrics(&self) -> String {
        "reddwarf_fake 1\n".into()
    }
}

#[async_trait]
impl Directory for Fake {
    async fn status(&self) -> Result<StatusReport, RuntimeError> {
        Ok(StatusReport { node: "box".into(), ready: true, ..Default::default() })
    }

    async fn reload(&self) -> Result<ReloadReport, RuntimeError> {
        Ok(ReloadReport { generation: 3, ..Default::default() })
    }

    async fn plan(&self, files: FileSet) -> Result<PlanReport, RuntimeError> {
        Ok(PlanReport { unknown: vec![format!("{} files", files.files.len())], ..Default::default() })
    }

    async fn generations(&self) -> Result<GenerationList, RuntimeError> {
        Ok(GenerationList::default())
    }

    async fn generation(&self, number: u64) -> Result<GenerationDetail, RuntimeError> {
        Err(RuntimeError::NotFound(format!("generation {number} is not retained")))
    }

    async fn generation_diff(&self, from: u64, to: u64) -> Result<GenerationDiff, RuntimeError> {
        Ok(GenerationDiff { from, to, ..Default::default() })
    }

    async fn rollback(&self, number: u64, _write: bool) -> Result<RollbackReport, RuntimeError> {
        Ok(RollbackReport { generation: number, ..Default::default() })
    }

    fn gauges(&self) -> DirectoryGauges {
        DirectoryGauges { generation: 3, manifests_invalid: 2, manifests: 5 }
    }
}

/// Waits at most so long for what must happen soon.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("it should have happened by now")
}
