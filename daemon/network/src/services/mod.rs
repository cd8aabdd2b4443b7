//! From objects to the one table that a host makes of services and policies. Pure.
//!
//! | to know | look in |
//! |---|---|
//! | what is kept of each object, and how it keeps up | `facts.rs`: [`Cluster`] |
//! | which frontend leads where | `table.rs`: [`table()`] |
//! | which pods are isolated and what may pass | `policy.rs` |
//! | a network without some of its parts | `nets.rs` |

mod facts;
mod nets;
mod policy;
mod table;
#[cfg(test)]
mod tests;

pub use facts::{Cluster, Subject};
pub use table::{Finding, TableSettings, table};
