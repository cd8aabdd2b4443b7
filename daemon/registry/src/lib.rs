//! The one write path: files, API clients, controllers and the node all write objects through here and nowhere else.
//!
//! ```text
//!  create ────────────────────┐
//!  write: PUT or one of four  ├─ edit ─→ take its part ─→ admit ─→ no-op? ─→ Store::commit ─ conflict ─→ read again
//!  patches, to a part         │  (patch)  (status, scale)  default, owners of    └─ same: no version, no watch event
//!  modify (the daemon's own)  │                            fields, gate, file's,
//!  delete, evict, bind        │                            rules, generation
//!  apply_set (a whole set)  ──┘
//!  get / list / watch ────────→ Store reads; resourceVersion is put in on the way out and never stored
//! ```
//!
//! | to know | look in |
//! |---|---|
//! | where an object lies in the store | `key.rs` |
//! | who may write what (files own their objects), on which line they say so | `ownership.rs`, `line.rs` |
//! | what a write does to metadata: uid, times, generation, owners of fields | `admit.rs` |
//! | single writes and their retries | `write.rs`; what an edit does: `edit.rs`; which part it concerns: `part.rs`, `scale.rs` |
//! | deleting, finalizers, grace, propagation | `delete.rs`; namespaces: `namespace.rs`; pods: `evict.rs`, `bind.rs` |
//! | many objects in one transaction, pruning | `apply.rs`, three-way merge in `merge.rs` |
//! | how objects lie in the store, and answers without parsing them | `stored.rs` |
//! | lists, continue tokens, watches | `list.rs`, `watch.rs`; selectors on stored text: `select.rs`; everything at once: `follow.rs` |
//! | what every write asks for, remembered | `remember.rs` |
//! | PriorityClasses that every cluster has | `priority.rs` |
//! | addresses and ports of services | `service.rs`, chosen in `reddwarf-network` |
//! | Events | `event/` |

mod admit;
mod apply;
mod around;
mod author;
mod bind;
mod counters;
mod delete;
mod edit;
mod error;
mod event;
mod evict;
mod follow;
mod key;
mod line;
mod list;
mod merge;
mod namespace;
mod ownership;
mod part;
mod priority;
mod registry;
mod remember;
mod scale;
mod select;
mod service;
mod stored;
mod watch;
mod write;

pub use apply::{Applied, AppliedSet, ApplyOptions, Declared, PruneScope, Verdict};
pub use author::Author;
pub use counters::Counters;
pub use delete::{DeleteOptions, Deleted, Preconditions, Propagation};
pub use edit::{Edit, Gate, Open, Patch};
pub use error::RegistryError;
pub use event::{EventTarget, EventType};
pub use follow::{FollowAll, Followed};
pub use key::{APPLIED_PREFIX, OBJECT_PREFIX, applied_key, kind_of, kind_prefix, object_key, store_key};
pub use list::{Continue, ListEnd, ListQuery, ObjectList};
pub use ownership::source_of;
pub use part::Part;
pub use registry::{Clock, Registry};
pub use stored::{MetadataPlace, RawObject, RawRef};
pub use watch::{ObjectWatch, RawEvent, RawWatch, WatchError, WatchEvent, WatchEventType};
pub use write::{WriteOptions, Written};
