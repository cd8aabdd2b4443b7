//! What the node's tests share: a control plane in memory, and a node on the fake host under paused time.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

pub mod plane;

pub use plane::MemoryPlane;

use reddwarf_host::fake::FakeHost;
use reddwarf_host::{Clock, Host, SandboxObserved};
use reddwarf_node::{Node, NodeDeps, NodeHandle, NodeSettings, PodKey, Proposal};
use reddwarf_objects::Object;
use reddwarf_objects::pod::PodStatus;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The host's clock with a wall clock that can be set.
pub struct JumpyClock {
    host: Arc<dyn Clock>,
    offset: std::sync::Mutex<chrono::TimeDelta>,
}

impl JumpyClock {
    /// Someone sets the wall clock.
    pub fn jump(&self, by: chrono::TimeDelta) {
        *self.offset.lock().unwrap() += by;
    }
}

impl Clock for JumpyClock {
    fn boot(&self) -> reddwarf_host::BootTime {
        self.host.boot()
    }

    fn wall(&self) -> chrono::DateTime<chrono::Utc> {
        self.host.wall() + *self.offset.lock().unwrap()
    }
}

/// A node, its host and its control plane.
pub struct World {
    pub host: FakeHost,
    pub plane: MemoryPlane,
    pub clock: Arc<JumpyClock>,
    pub settings: NodeSettings,
    pub tokens: Option<Arc<dyn reddwarf_node::TokenSource>>,
    pub node: Option<NodeHandle>,
}

pub fn settings() -> NodeSettings {
    let mut settings = NodeSettings::new("node-1", "reddwarf0", "10.88.0.0/24".parse().unwrap(), "/var/log/pods");
    settings.host_path_allow = vec!["/srv".into()];
    settings.call_timeout = Duration::from_secs(30);
    settings
}

impl World {
    pub async fn new() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(settings: NodeSettings) -> Self {
        Self::on(FakeHost::new(), settings).await
    }

    pub async fn on(host: FakeHost, settings: NodeSettings) -> Self {
        host.add_image("web:1", image(&["/bin/web"]));
        host.add_image("web:2", image(&["/bin/web"]));
        let clock = Arc::new(JumpyClock { host: host.clock(), offset: Default::default() });
        let plane = MemoryPlane::new(clock.clone());
        plane.sources_read(true);
        let mut world = Self { host, plane, clock, settings, tokens: None, node: None };
        world.start().await;
        world
    }

    /// The daemon starts.
    pub async fn start(&mut self) {
        let host: Arc<dyn Host> = Arc::new(self.host.clone());
        let deps = NodeDeps {
            control: Arc::new(self.plane.clone()),
            host,
            clock: self.clock.clone(),
            tokens: self.tokens.clone(),
            settings: self.settings.clone(),
        };
        self.node = Some(Node::start(deps).await);
    }

    /// The daemon dies in the middle of whatever it does.
    pub async fn kill(&mut self) {
        self.node = None;
        // Aborted tasks are dropped when the runtime comes to them.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    pub async fn restart(&mut self) {
        self.kill().await;
        self.start().await;
    }

    pub fn node(&self) -> &NodeHandle {
        self.node.as_ref().expect("the node runs")
    }

    pub async fn sleep(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// Waits until the condition holds, at most so many (virtual) seconds.
    pub async fn until(&self, seconds: u64, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        for _ in 0..seconds * 10 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not within {seconds} s: {what}\n{}", self.describe().await);
    }

    /// Waits until planning is empty and stays so for a second.
    pub async fn settled(&self, seconds: u64) {
        let mut quiet = 0;
        for _ in 0..seconds * 2 {
            let planned = self.node().plan(Proposal::default()).await;
            let idle = planned.is_ok_and(|p| p.steps.is_empty()) && self.node().is_idle(Duration::ZERO);
            quiet = if idle { quiet + 1 } else { 0 };
            if quiet >= 3 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("not settled within {seconds} s\n{}", self.describe().await);
    }

    pub async fn describe(&self) -> String {
        let mut text = String::new();
        if let Some(node) = &self.node {
            let planned = node.plan(Proposal::default()).await;
            text += &format!("plan: {planned:#?}\nsummary: {:#?}\n", node.status());
        }
        for sandbox in self.host.sandboxes() {
            text += &format!("sandbox {} {:?} {:?}\n", sandbox.spec.id, sandbox.state, sandbox.spec.network);
            for instance in sandbox.containers.values().flatten() {
                text += &format!(
                    "  {} #{} {:?} stop {:?}\n",
                    instance.spec.name, instance.spec.attempt, instance.state, instance.stop
                );
            }
        }
        text
    }

    pub fn pod(&self, name: &str) -> Option<Object> {
        self.plane.get("Pod", name)
    }

    pub fn status(&self, name: &str) -> PodStatus {
        self.pod(name).map(|p| PodStatus::from_object(&p)).unwrap_or_default()
    }

    pub fn sandbox(&self, name: &str) -> Option<SandboxObserved> {
        self.host.sandboxes().into_iter().find(|s| s.spec.pod.name == name)
    }

    pub fn is_ready(&self, name: &str) -> bool {
        use reddwarf_objects::pod::ConditionStatus;
        self.status(name).condition("Ready").is_some_and(|c| c.status == ConditionStatus::True)
    }

    pub async fn why(&self, name: &str) -> reddwarf_node::Why {
        self.node().why(&key(name)).await.unwrap()
    }
}

pub fn key(name: &str) -> PodKey {
    PodKey::new("default", name)
}

pub fn image(entrypoint: &[&str]) -> reddwarf_host::ImageConfig {
    reddwarf_host::ImageConfig {
        entrypoint: entrypoint.iter().map(ToString::to_string).collect(),
        ..reddwarf_host::ImageConfig::default()
    }
}

/// A pod of one container `app` of image `web:1`, with more merged into its spec.
pub fn pod(name: &str, spec: Value) -> Object {
    let mut value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "annotations": {"reddwarf.io/source": format!("/etc/reddwarf.d/{name}.yaml")}},
        "spec": {"containers": [{"name": "app", "image": "web:1"}]},
    });
    merge(&mut value["spec"], spec);
    Object::from_value(value).unwrap()
}

/// A pod whose container runs this command.
pub fn pod_running(name: &str, command: &[&str], spec: Value) -> Object {
    let mut object = pod(name, spec);
    object.set("/spec/containers/0/command", json!(command));
    object
}

pub fn config(kind: &str, name: &str, entries: &[(&str, &str)]) -> Object {
    use base64::Engine;
    let encode = |v: &str| match kind {
        "Secret" => base64::engine::general_purpose::STANDARD.encode(v),
        _ => v.to_owned(),
    };
    let data: serde_json::Map<_, _> = entries.iter().map(|(k, v)| ((*k).to_owned(), encode(v).into())).collect();
    Object::from_value(json!({
        "apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, "data": data,
    }))
    .unwrap()
}

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch,
    }
}
