//! Addresses for pods and services, and their names.
//!
//! | module | holds |
//! |---|---|
//! | [`allocate`] | cluster IPs and node ports of a service: what it holds, what it is given |
//! | [`dns`] | the name server: records from Services and EndpointSlices, answers, forwarding, sockets |
//! | [`services`] | the host's table of services and policies, from objects |
//! | [`pool`] | [`Pool`]: which addresses of a range are free, who holds the others, which comes next |
//! | [`tls`] | TLS into a pod, whose certificate does not matter |
//!
//! A pool is a pure value. Making a choice durable is the caller's: the node writes `reserve/pod-ip/<address>` into the store in one
//! transaction that expects the key to be absent, creates only after that, and releases only once destruction was
//! observed. [`Pool::from_reservations`] rebuilds a pool from those keys.

pub mod allocate;
pub mod dns;
pub mod pool;
pub mod services;
pub mod tls;

pub use allocate::ServiceRanges;
pub use pool::{Pool, PoolError};
