//! The three ways of changing a document by a patch; the fourth, server-side apply, is [`crate::apply`].
//!
//! | media type | function | source |
//! |---|---|---|
//! | `application/json-patch+json` | [`json`] | RFC 6902, with kube-apiserver's leniency |
//! | `application/merge-patch+json` | [`merge`] | RFC 7396 |
//! | `application/strategic-merge-patch+json` | [`strategic`] | Kubernetes' strategic merge patch, by the patch strategies of the schema |
//!
//! Each works on the JSON form of an object and leaves checking the outcome (schema, validation) to the caller. On an error the
//! document may be half changed: patch a copy.

#[cfg(test)]
pub(crate) mod arbitrary;
mod go;
mod json;
mod merge;
mod order;
mod strategic;

pub(crate) use go::{go_text, go_type};
pub use json::{json, unknown_fields};
pub use merge::{merge, merge_patch};
pub use strategic::strategic;

/// Why a patch can't be carried out. Each variant is one HTTP status of the reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed: 400 BadRequest with this message.
    #[error("{0}")]
    Malformed(String),
    /// The patch is well-formed but does not fit the document (a failing `test`, no such path): 422 Invalid. The reference hides the
    /// reason: its message is [`PatchError::REJECTED`] with empty details. Ours is for logs.
    #[error("{0}")]
    Rejected(String),
    /// More operations than a patch may have: 413 RequestEntityTooLarge with this message.
    #[error("{0}")]
    TooLarge(String),
    /// A list element that can't be merged because its merge key is absent and the like: 500 with this message and neither reason
    /// nor details in the reference, though it is the client's mistake.
    #[error("{0}")]
    Unmergeable(String),
}

impl PatchError {
    /// The message of the Status that answers a [`PatchError::Rejected`] patch.
    pub const REJECTED: &'static str = "the server rejected our request due to an error in our request";
}

#[cfg(test)]
mod tests;
