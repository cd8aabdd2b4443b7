//! JSON patch (RFC 6902).

use super::PatchError;
use serde_json::Value;

/// Carries out the operations of `patch`, a JSON array, on `doc` in order.
///
/// # Errors
/// [`PatchError::Malformed`], [`PatchError::Rejected`], [`PatchError::TooLarge`].
pub fn json(doc: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let _ = (doc, patch);
    Err(PatchError::Malformed("JSON patch is not available yet".to_owned()))
}
