//! What every Kubernetes protobuf body is wrapped in: four bytes and a `runtime.Unknown`.

use super::ProtobufError;
use super::wire::{Raw, Reader};

/// The first bytes of every body.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// A body's envelope: whose message it is, and the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// For example `apps/v1`; empty when the sender leaves it to the receiver.
    pub api_version: &'a str,
    /// For example `Deployment`; empty likewise.
    pub kind: &'a str,
    /// The message.
    pub raw: &'a [u8],
}

/// Opens a body's envelope.
///
/// # Errors
/// [`ProtobufError`].
pub fn envelope(bytes: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    let message = bytes.strip_prefix(&MAGIC).ok_or(ProtobufError::NoMagic)?;
    let mut envelope = Envelope { api_version: "", kind: "", raw: &[] };
    let mut reader = Reader::new(message);
    while let Some((tag, value)) = reader.next()? {
        match (tag, value) {
            (1, Raw::Bytes(type_meta)) => {
                let mut reader = Reader::new(type_meta);
                while let Some((tag, value)) = reader.next()? {
                    match (tag, value) {
                        (1, Raw::Bytes(bytes)) => envelope.api_version = text("apiVersion", bytes)?,
                        (2, Raw::Bytes(bytes)) => envelope.kind = text("kind", bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Raw::Bytes(raw)) => envelope.raw = raw,
            (3, Raw::Bytes(encoding)) if !encoding.is_empty() => {
                return Err(ProtobufError::Content(text("contentEncoding", encoding)?.to_owned()));
            }
            (4, Raw::Bytes(content)) => {
                let content = text("contentType", content)?;
                if !matches!(content, "" | super::MEDIA_TYPE) {
                    return Err(ProtobufError::Content(content.to_owned()));
                }
            }
            _ => {}
        }
    }
    Ok(envelope)
}

fn text<'a>(field: &str, bytes: &'a [u8]) -> Result<&'a str, ProtobufError> {
    std::str::from_utf8(bytes).map_err(|_| ProtobufError::Utf8 { path: field.to_owned() })
}
