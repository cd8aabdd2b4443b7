//! The pod lifecycle on this host: from pods that are wanted to processes that run, and back to their status.
//!
//! ```text
//!  control plane ──changes──→ view (desired) ──┐
//!  host ──events──→ queue ←──timers, full pass ─┤
//!                     │ one worker per pod      ↓
//!                     └──→ observe (shared) → plan (pure) → execute: reserve, host calls, release → status, events
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`settings`] | what the node must know besides objects and the host |
//! | [`plan`] | `plan(desired, observed, reservations, memory, now)`: steps with reasons, nothing executed |
//! | [`key`] | which pod |

pub mod compare;
pub mod control_plane;
pub mod desired;
mod events;
pub mod follow;
mod handle;
mod heartbeat;
pub mod key;
pub mod logs;
pub mod node_object;
pub mod observe;
pub mod perform;
pub mod plan;
pub mod queue;
pub mod registry_plane;
mod run;
pub mod settings;
mod state;
pub mod status;
pub mod translate;

pub use handle::{Node, NodeDeps, NodeError, NodeHandle, NodeSummary, Planned, PlannedStep, Proposal, Why};
pub use key::PodKey;
pub use settings::{NodeSettings, PruneGuard};
pub use state::Record;
