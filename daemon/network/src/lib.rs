//! Addresses for pods and services, chosen purely: nothing here touches a host, a file or the network.
//!
//! | module | holds |
//! |---|---|
//! | [`pool`] | [`Pool`]: which addresses of a range are free, who holds the others, which comes next |
//!
//! Making a choice durable is the caller's: the node writes `reserve/pod-ip/<address>` into the store in one
//! transaction that expects the key to be absent, creates only after that, and releases only once destruction was
//! observed. [`Pool::from_reservations`] rebuilds a pool from those keys.

pub mod pool;

pub use pool::{Pool, PoolError};
