//! The HTTP API of reddwarfd: Kubernetes routes and the daemon's own, over a Unix socket and optionally loopback TCP.
//!
//! ```text
//!  socket.rs   bind without a window, one daemon a socket, the TCP token
//!  server.rs   accept ─ peer's credentials (principal.rs) ─ limits ─ hyper HTTP/1.1 ─ graceful end
//!     └─ dispatch.rs  one request: span, place, time-out, panic → 500, routes
//!           ├─ discovery.rs  /api, /apis, /version          health.rs  /healthz /livez /readyz /metrics
//!           ├─ resource.rs   verbs for every kind: decode.rs → policy.rs → Registry
//!           │     ├─ list.rs, watch.rs   pages, streams of events
//!           │     └─ logs.rs, exec.rs    → Runtime
//!           └─ daemon.rs     /reddwarf/v1 (types.rs): apply.rs → Registry, the rest → Runtime, Directory
//! ```
//!
//! Errors of every route are Kubernetes `Status` objects (error.rs). The API knows no host: what it needs of the node and
//! the directory are the two traits of [`runtime`].

mod apply;
mod body;
mod counters;
mod daemon;
mod decode;
mod discovery;
mod dispatch;
mod error;
mod exec;
mod health;
mod list;
mod logs;
mod policy;
mod principal;
mod request;
mod resource;
pub mod runtime;
mod server;
mod socket;
mod strict;
pub mod types;
mod watch;

pub use apply::{applied_object, diagnostic, field_change};
pub use principal::{Principal, Role};
pub use server::{Api, ApiDeps, ApiSettings, Limits};
pub use socket::BindError;
