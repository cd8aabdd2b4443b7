//! Probes and lifecycle hooks as the node reads them.

use serde::{Deserialize, Serialize};

/// A question that is asked of a container again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Probe {
    /// How it is asked.
    #[serde(flatten)]
    pub handler: Handler,
    /// Seconds after the container's start before the first question.
    pub initial_delay_seconds: i64,
    /// Seconds after which no answer is a bad answer; 1 when less.
    pub timeout_seconds: i64,
    /// Seconds from one question to the next; 10 when less than 1.
    pub period_seconds: i64,
    /// Good answers in a row that turn bad into good; 1 when less.
    pub success_threshold: i64,
    /// Bad answers in a row that turn good into bad; 3 when less than 1.
    pub failure_threshold: i64,
    /// The grace of a container that this probe ends; the pod's when absent.
    pub termination_grace_period_seconds: Option<i64>,
}

/// What is done at the turning points of a container's life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Lifecycle {
    /// At once after its start; the container does not count as running before this is done.
    pub post_start: Option<Handler>,
    /// Before its stop signal.
    pub pre_stop: Option<Handler>,
    /// The signal that asks it to stop; the image's, or SIGTERM, when absent.
    pub stop_signal: Option<String>,
}

/// One action; exactly one is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Handler {
    /// Run a command in the container.
    pub exec: Option<ExecAction>,
    /// Send a GET.
    pub http_get: Option<HttpGetAction>,
    /// Open a TCP connection.
    pub tcp_socket: Option<TcpSocketAction>,
    /// Ask a gRPC health service; probes only.
    pub grpc: Option<GrpcAction>,
    /// Wait; hooks only.
    pub sleep: Option<SleepAction>,
}

/// A command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecAction {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
}

/// A GET.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpGetAction {
    /// Path and query.
    pub path: String,
    /// The port.
    pub port: PortRef,
    /// Where; the pod's address when empty.
    pub host: String,
    /// `HTTP` or `HTTPS`.
    pub scheme: String,
    /// Further headers.
    pub http_headers: Vec<HttpHeader>,
}

/// A header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HttpHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A TCP connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TcpSocketAction {
    /// The port.
    pub port: PortRef,
    /// Where; the pod's address when empty.
    pub host: String,
}

/// A gRPC health service (grpc.health.v1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrpcAction {
    /// The port.
    pub port: u16,
    /// The service that is asked about; the server as a whole when absent or empty.
    pub service: Option<String>,
}

/// A wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SleepAction {
    /// How long.
    pub seconds: i64,
}

/// A port, by number or by the name that the container gives it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum PortRef {
    /// The port.
    Number(u16),
    /// A name of the container's `ports`.
    Name(String),
}

impl Default for PortRef {
    fn default() -> Self {
        Self::Number(0)
    }
}
