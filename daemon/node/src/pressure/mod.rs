//! Pressure: when the host runs short of memory, disk or processes, which pods go, and who comes back.
//!
//! | file | decides |
//! |---|---|
//! | `threshold.rs` | what there is too little of |
//! | `conditions.rs` | which conditions the node has, and which pods they keep out |
//! | `rank.rs` | who goes first |
//! | `limits.rs` | which pods have more on disk than they may |
//! | `watch.rs` | looks at the host every few seconds and carries it out |
//!
//! All but the last are pure. An eviction is a verdict in the planner's memory: the planner stops the pod, and its status
//! says `Failed`, `Evicted`.

mod conditions;
mod limits;
mod rank;
mod threshold;
mod watch;

pub use conditions::Conditions;
pub use limits::{exceeded, has_disk_limits};
pub use rank::{PodUse, choose, order};
pub use threshold::{Amount, NodeCondition, Resource, Shortage, Thresholds, shortages};
pub(crate) use watch::{Change, Evictions, evicted, look};
