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
pub mod key;
pub mod plan;
pub mod settings;
pub mod translate;

pub use key::PodKey;
pub use settings::{NodeSettings, PruneGuard};
