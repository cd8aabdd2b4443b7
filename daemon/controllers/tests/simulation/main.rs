//! Controllers over a real store, with a kubelet of straw and time moved by hand.
#![allow(unreachable_pub, missing_docs, clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod deployments;
mod engine;
mod jobs;
mod namespaces;
mod ownership;
mod random;
mod sets;
mod taints;
mod tokens;
mod volumes;
mod world;
