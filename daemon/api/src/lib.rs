//! The HTTP API of reddwarfd: Kubernetes routes and the daemon's own, over a Unix socket and TCP.
//!
//! ```text
//!  serve/     socket, listeners, server, tls: accept ─ limits ─ hyper ─ graceful end; dispatch: one request: span, time-out, panic → 500
//!             gather: HTTP/2's frames go out together; alone: a watch takes its HTTP/1.1 connection from hyper; stall: who takes nothing is cut
//!  access/    authenticate → authorise → admit: certificates, tokens, roles and bindings, reviews, the audit log
//!  wire/      the request line and Accept; bodies to checked objects (decode, strict); answers in every form (answer, table,
//!             rows, render, frames); errors as `Status`
//!  verbs/     every Kubernetes verb for every kind: wire → access → Registry; list and watch
//!  streams/   logs, exec, attach, port-forward, proxy → Runtime
//!  discovery/ /api, /apis (classic and aggregated), /version, /
//!  openapi/   /openapi/v2, /openapi/v3: documents made from the tables of kinds and types
//!  daemon/    /reddwarf/v1 (types.rs): apply → Registry, the rest → Runtime, Directory
//! ```
//!
//! Errors of every route are Kubernetes `Status` objects. The API knows no host: what it needs of the node and the
//! directory are the two traits of [`runtime`].

mod access;
mod daemon;
mod discovery;
mod openapi;
pub mod runtime;
mod serve;
mod streams;
pub mod types;
mod verbs;
mod wire;

pub use access::audit::AuditSettings;
pub use access::certificates::CertificateError;
pub use access::certificates::keyring::TlsSettings;
pub use access::certificates::offline::{check_authorities, check_pair};
pub use access::files::FileError;
pub use access::principal::{Principal, Role};
pub use access::state::{Access, AccessSettings, PodToken, PodTokenRequest, SecretTokenRequest};
pub use daemon::apply::{applied_object, diagnostic, field_change};
pub use serve::listeners::Listeners;
pub use serve::server::{Api, ApiDeps, ApiHandle, ApiSettings, Limits};
pub use serve::socket::BindError;
