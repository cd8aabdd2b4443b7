//! The HTTP API of reddwarfd: Kubernetes routes and the daemon's own, over a Unix socket and optionally loopback TCP.

pub mod runtime;
pub mod types;
