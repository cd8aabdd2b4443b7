//! Bodies of PATCH.

use crate::wire::decode::from_yaml;
use crate::wire::error::ApiError;
use crate::wire::request::content_type;
use crate::wire::strict::{self, Read};
use hyper::header::HeaderMap;
use reddwarf_config::Limits;
use reddwarf_objects::patch::unknown_fields;
use reddwarf_objects::{Kind, Object};
use reddwarf_registry::{Part, Patch};
use serde_json::{Value, json};

/// A patch, and which fields its text holds twice or in vain: `duplicate field "data.a"`.
pub(crate) type Decoded = (Patch, Vec<String>);

/// The patch in a body, of the kind that its media type names.
///
/// # Errors
/// 415 for media types that are no patch, 400 for text that is none.
pub(crate) fn decode(
    kind: &Kind,
    part: Part,
    headers: &HeaderMap,
    bytes: &[u8],
    limits: &Limits,
) -> Result<Decoded, ApiError> {
    let of = |patch: fn(Value) -> Patch, what: &str| {
        let read = read(bytes, what)?;
        Ok((patch(read.value), read.problems))
    };
    match content_type(headers).as_str() {
        // That it is a list of operations, or a map, is the patch's own to say.
        "application/json-patch+json" => {
            let Read { value, mut problems } = read(bytes, "error decoding patch: ")?;
            problems.extend(unknown_fields(&value));
            let problems = problems.into_iter().map(|problem| format!("json patch {problem}")).collect();
            Ok((Patch::Json(value), problems))
        }
        "application/merge-patch+json" => of(Patch::Merge, "error decoding patch: "),
        "application/strategic-merge-patch+json" => of(Patch::Strategic, ""),
        "application/apply-patch+yaml" => applied(kind, part, bytes, limits),
        _ => Err(ApiError::new(415, "UnsupportedMediaType", "415: Unsupported Media Type").with_details(json!({}))),
    }
}

fn read(bytes: &[u8], what: &str) -> Result<Read, ApiError> {
    strict::from_json(None, bytes).map_err(|_| {
        let why = crate::wire::syntax::error(bytes).unwrap_or_else(|| "the text is no JSON".to_owned());
        ApiError::bad_request(format!("{what}{why}"))
    })
}

/// What is applied: YAML, and so JSON too. It names its kind.
fn applied(kind: &Kind, part: Part, bytes: &[u8], limits: &Limits) -> Result<Decoded, ApiError> {
    let Read { value, problems } = match strict::from_json(None, bytes) {
        Ok(read) => read,
        Err(_) => {
            let (value, problems) = from_yaml(bytes, limits, "error decoding YAML: ")?;
            Read { value, problems }
        }
    };
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, name) = (text("apiVersion"), text("kind"));
    let wanted = match part {
        Part::Scale => ("autoscaling/v1".to_owned(), "Scale"),
        _ => (kind.api_version(), kind.kind),
    };
    if version != wanted.0 {
        return Err(ApiError::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {}",
            wanted.0
        )));
    }
    if name != wanted.1 {
        let (group, version) = version.split_once('/').unwrap_or(("", version.as_str()));
        return Err(ApiError::bad_request(format!(
            "invalid object type: {group}/{version}, Kind={name}; expected {group}/{version}, Kind={}",
            wanted.1
        )));
    }
    let object = Object::from_value(value).map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))?;
    Ok((Patch::Apply(object), problems))
}
