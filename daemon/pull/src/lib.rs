//! Fetching images from registries: the OCI distribution protocol over HTTP/1.1 and TLS.
//!
//! ```text
//! Puller::pull ─ endpoints (mirrors, then the registry) ─ Session: tokens, redirects, retries
//!                    │ manifest (HEAD: known already?), index → platform, config
//!                    │ Local: which layers are here, is there room
//!                    └ blobs in parallel: stream → hash → file, resumed by Range, verified, then named
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`options`] | mirrors, plain registries, authorities, credentials' file, patience |
//! | `puller` | one pull from beginning to end |
//! | `session` | requests to one endpoint: authentication, redirects, answers that are failures |
//! | `challenge`, `credentials` | WWW-Authenticate; docker's documents of credentials |
//! | `transport` | one request on a connection of its own: names, TCP, TLS, time limits |
//! | `manifest` | indexes, manifests, configs; which platform |
//! | `blob` | one blob into a file |
//! | [`error`] | failures by what to do about them |
//!
//! Nothing is unpacked here and nothing of an image is believed but its digests. Memory is bounded: documents by 4 MiB,
//! blobs by a few buffers each. Nothing here knows a Kubernetes object.

mod blob;
mod challenge;
mod credentials;
pub mod error;
#[doc(hidden)]
pub mod fuzz;
mod manifest;
pub mod options;
mod puller;
mod session;
mod transport;

pub use error::{PullError, PullErrorKind};
pub use manifest::Platform;
pub use options::{Endpoint, RegistryOptions};
pub use puller::{FetchedImage, FetchedLayer, Local, Pulled, Puller};
