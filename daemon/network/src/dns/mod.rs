//! The name server of pods and of this host.
//!
//! ```text
//!  Services, EndpointSlices, Namespaces ─→ Records ─→ Snapshot (immutable, swapped whole)
//!                                                        │
//!  packet ─→ serve (UDP threads, TCP) ─→ answer(snapshot, packet) ─┬─→ reply: a look-up and a copy
//!                                                                  └─→ forward: cache, coalescing, the host's servers
//! ```
//!
//! | to know | look in |
//! |---|---|
//! | which fields of objects matter | `source.rs` |
//! | which records a Service has (the Kubernetes DNS specification) | `zone.rs` |
//! | how changes become the next snapshot | `snapshot.rs` |
//! | how an answer lies ready | `prepared.rs` |
//! | what is answered to what | `answer.rs` |
//! | names and messages on the wire | `name.rs`, `message.rs` |
//! | everything that is not ours | [`forward`] |
//! | sockets | [`serve`] |
//!
//! Why the loop and nearly all encoding are ours, and what hickory does: docs/adr/0009-dns.md.

mod answer;
pub mod forward;
mod message;
mod name;
mod prepared;
pub mod serve;
mod snapshot;
mod source;
#[cfg(test)]
mod tests;
mod zone;

pub use message::Transport;
pub use snapshot::{Records, Snapshot};
pub use source::{Change, Endpoint, Key, Port, Service, Slice, Unreadable};
pub use zone::{BadDomain, Zones};
