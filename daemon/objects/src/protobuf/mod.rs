//! Objects in Kubernetes' protobuf form, read into the JSON form by the one table of types.
//!
//! ```text
//! "k8s\0"  runtime.Unknown { typeMeta { apiVersion, kind }, raw, contentEncoding, contentType }     envelope.rs
//!                                                            └─ message of the kind ─→ JSON value   message.rs
//! ```
//!
//! A message needs no converter of its own: every field of `schema/types.txt` carries its number, and what it holds says how it is
//! written. Input is hostile: nothing here panics, recursion is bounded, and what is made is bounded by the size of what was sent.
//!
//! Source: Kubernetes "API concepts", section "Protobuf encoding"; Protocol Buffers' "Encoding".

mod envelope;
mod message;
#[cfg(test)]
mod tests;
mod wire;

pub use envelope::{Envelope, MAGIC, envelope};

use crate::schema::Type;
use serde_json::{Map, Value};

/// The media type of this form.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// A message that was read.
#[derive(Debug)]
pub struct Decoded {
    /// Its fields as JSON has them; apiVersion and kind are not among them.
    pub fields: Map<String, Value>,
    /// Fields that the table does not know, as paths that end in the field's number: `spec.#99`.
    pub unknown: Vec<String>,
}

/// Why bytes are no message of a type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// They do not begin with the four bytes that every Kubernetes protobuf body begins with.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoMagic,
    /// The body is compressed or holds another format inside.
    #[error("the protobuf envelope holds {0:?}, which is not supported")]
    Content(String),
    /// They end inside a field.
    #[error("proto: unexpected end of data")]
    Truncated,
    /// A number of more than 64 bits, or a length beyond what memory could hold.
    #[error("proto: integer overflow")]
    Overflow,
    /// A field has the number 0 or a wire type that does not exist (any more).
    #[error("proto: illegal tag {tag} (wire type {wire_type})")]
    Tag {
        /// The field number.
        tag: u64,
        /// The lowest three bits.
        wire_type: u8,
    },
    /// A field is not written as its type is.
    #[error("proto: wrong wireType = {wire_type} for field {path}")]
    WireType {
        /// Where.
        path: String,
        /// As what it was written.
        wire_type: u8,
    },
    /// A text is not UTF-8.
    #[error("proto: field {path} contains invalid UTF-8")]
    Utf8 {
        /// Where.
        path: String,
    },
    /// JSON inside the message is none.
    #[error("proto: field {path} holds no valid JSON: {why}")]
    Json {
        /// Where.
        path: String,
        /// What the JSON reader says.
        why: String,
    },
    /// Messages in messages in messages.
    #[error("proto: messages are nested more than {MAX_DEPTH} deep")]
    TooDeep,
}

/// Messages inside one another; a schema in a custom resource definition is the deepest thing there is.
pub const MAX_DEPTH: usize = 100;

/// Reads a message of a type. Fields that hold their type's zero are left out where JSON leaves them out.
///
/// # Errors
/// [`ProtobufError`].
pub fn decode(structure: &Type, bytes: &[u8]) -> Result<Decoded, ProtobufError> {
    message::decode(structure, bytes)
}
