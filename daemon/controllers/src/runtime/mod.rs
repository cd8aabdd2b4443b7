//! What every controller stands on.
//!
//! ```text
//!  registry ─ follow_all ─→ view (slim, indexed) ─→ triggers of each controller ─→ queue ─→ sync ─→ registry
//! ```
//!
//! | to know | look in |
//! |---|---|
//! | how an object is called here, what is kept of it | `id.rs`, `slim.rs` |
//! | the shared view and its indexes | `view.rs` |
//! | which key is due when, back-off | `queue.rs` |
//! | what a controller is | `controller.rs` |
//! | what a decision may ask for, and how it is carried out | `act.rs` |
//! | the loop: panics caught, full passes, own writes read before the next look | `engine.rs` |

mod act;
mod controller;
mod engine;
mod id;
mod queue;
mod slim;
mod view;

pub(crate) use act::owner_id;
pub use act::{Action, Events, Said};
pub use controller::{Again, Context, Controller, Failure};
pub use engine::{Engine, EngineError};
pub use id::Id;
pub use queue::Queue;
pub use slim::{Detail, NamedPort, NodeSlim, Owner, PodNet, PodSlim, Slim, Taint};
pub use view::{Change, Usage, View};
