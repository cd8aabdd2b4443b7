//! From what is wanted and what is found to what must be done: pure, total, the same for the same input.

mod step;

pub use step::{Effect, Notice, Op, Outlook, Plan, Step};
