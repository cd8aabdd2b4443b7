//! Running the system's tools: the one place of the daemon that does.
//!
//! ```text
//! Invocation (a value: tool, arguments, stdin, deadline) ─┐
//!                                                         ├─ Tools::run ─→ CommandOutput | CommandError ─ cause() ─→ Cause
//! Tools (where programs are, how many at once) ───────────┘       └─→ counts()
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`tools`] | [`Tools`]: where programs are found, checked once each, and how many of one may run at a time |
//! | [`invocation`] | [`Tool`] and [`Invocation`]: one run of a tool as a value, for builders, transcripts and dry runs |
//! | `run` | [`ExternalCommand`]: one run of a program, to its end, its deadline or its cap |
//! | [`cause`] | what a tool's message means, by one table |
//! | [`counts`] | how often and for how long each tool ran, for metrics |
//! | `error` | [`CommandError`], and how it becomes a host error |
//!
//! A program has an absolute path, a cleared environment ([`ENVIRONMENT`] only), a deadline and a cap on what it may print. It
//! runs in a process group of its own, which is killed as a whole at the deadline and when the caller goes away. There is
//! never a shell. Secrets and scripts go by standard input, never by arguments: arguments show in logs and in process
//! lists.

pub mod cause;
pub mod counts;
mod error;
pub mod invocation;
mod run;
pub mod tools;

pub use cause::Cause;
pub use counts::{ToolCounts, counts};
pub use error::CommandError;
pub use invocation::{Invocation, Tool};
pub use run::{CommandOutput, ENVIRONMENT, ExternalCommand};
pub use tools::{Beginning, Tools};
