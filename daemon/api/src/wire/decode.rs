//! Bodies of requests to checked objects, with the texts of kube-apiserver where it has one.

use crate::wire::error::ApiError;
use crate::wire::request::{Format, body_format};
use crate::wire::strict::{self, Read};
use hyper::header::HeaderMap;
use reddwarf_objects::{FieldReason, Kind, Object, protobuf, schema};
use serde_json::{Map, Value, json};

/// An object of the kind asked for, without unknown fields.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) object: Object,
    /// Unknown fields that were dropped.
    pub(crate) warnings: Vec<String>,
}

/// How a body is read.
pub(crate) struct Reading<'a> {
    /// `fieldValidation`: `Strict`, `Warn` (when absent) or `Ignore`.
    pub(crate) strictness: Option<&'a str>,
    /// For YAML.
    pub(crate) limits: &'a reddwarf_config::Limits,
}

/// The object of `kind` in a body of any format. Unknown fields are dropped, and they and duplicate ones refused
/// (`fieldValidation=Strict`), warned of (`Warn`, the default) or passed over (`Ignore`). `kind` may be one of
/// [`reddwarf_objects::bodies`].
///
/// # Errors
/// 415 for other formats, 400 for what is no object of `kind`.
pub(crate) fn decode_body(
    kind: &Kind,
    headers: &HeaderMap,
    bytes: &[u8],
    reading: &Reading<'_>,
) -> Result<Decoded, ApiError> {
    let structure = schema::of_kind(kind);
    let read = match body_format(headers)? {
        Format::Json => strict::from_json(structure, bytes).map_err(|e| {
            let why = crate::wire::syntax::error(bytes).unwrap_or_else(|| e.to_string());
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(64)]);
            ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {why} ({text})",
                kind.kind
            ))
        })?,
        Format::Yaml => {
            let (value, doubled) = from_yaml(bytes, reading.limits, "error parsing the YAML body: ")?;
            let mut read = strict::from_value(structure, value);
            read.problems.splice(0..0, doubled);
            read
        }
        Format::Protobuf => from_protobuf(kind, bytes)?,
    };
    checked(kind, read, reading.strictness)
}

/// The one document of a YAML body, and which keys it holds twice: what that means is for `fieldValidation` to say.
///
/// # Errors
/// 400.
pub(super) fn from_yaml(
    bytes: &[u8],
    limits: &reddwarf_config::Limits,
    what: &str,
) -> Result<(Value, Vec<String>), ApiError> {
    let (documents, diagnostics) = reddwarf_config::parse_body("body.yaml", bytes, limits);
    if let Some(error) = diagnostics.iter().find(|d| d.is_error()) {
        return Err(ApiError::bad_request(format!("{what}{}", error.one_line())));
    }
    let doubled = diagnostics.iter().filter(|d| d.is_duplicate_key());
    let doubled = doubled.map(|d| format!("line {}: {}", d.position.map_or(0, |p| p.line), d.message)).collect();
    let mut documents = documents.into_iter();
    match (documents.next(), documents.next()) {
        (Some(document), None) => Ok((document.value, doubled)),
        _ => Err(ApiError::bad_request(format!("{what}it must hold exactly one object"))),
    }
}

fn from_protobuf(kind: &Kind, bytes: &[u8]) -> Result<Read, ApiError> {
    let bad = |e: protobuf::ProtobufError| {
        ApiError::bad_request(format!("the object provided is unrecognized (must be of type {}): {e}", kind.kind))
    };
    let envelope = protobuf::envelope(bytes).map_err(bad)?;
    let ours = |given: &str, wanted: &str| given.is_empty() || given == wanted;
    // Another kind's message can't be read by this kind's numbers; what it says it is will be refused.
    let read = ours(envelope.api_version, &kind.api_version()) && ours(envelope.kind, kind.kind);
    let structure = schema::of_kind(kind).filter(|_| read);
    let (mut fields, unknown) = match structure.map(|s| protobuf::decode(s, envelope.raw)).transpose().map_err(bad)? {
        Some(decoded) => (decoded.fields, decoded.unknown),
        None => (Map::new(), Vec::new()),
    };
    for (field, text) in [("apiVersion", envelope.api_version), ("kind", envelope.kind)] {
        fields.insert(field.to_owned(), text.into());
    }
    let problems = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
    Ok(Read { value: Value::Object(fields), problems })
}

/// Checks that a value is an object of `kind`; apiVersion and kind may be left out. Unknown fields as [`decode_body`], after the
/// problems that were found already.
///
/// # Errors
/// 400.
pub(crate) fn decode_object(
    kind: &Kind,
    value: Value,
    found: Vec<String>,
    strictness: Option<&str>,
) -> Result<Decoded, ApiError> {
    let mut read = strict::from_value(schema::of_kind(kind), value);
    read.problems.splice(0..0, found);
    checked(kind, read, strictness)
}

fn checked(kind: &Kind, read: Read, strictness: Option<&str>) -> Result<Decoded, ApiError> {
    let unusable = |why: String| {
        let (name, version) = (kind.kind, kind.version);
        ApiError::bad_request(format!("{name} in version \"{version}\" cannot be handled as a {name}: {why}"))
    };
    let Value::Object(mut map) = read.value else {
        let text = format!("the object provided is unrecognized (must be of type {})", kind.kind);
        return Err(ApiError::bad_request(text));
    };
    check_kind(kind, &mut map)?;
    let object = Object::from_value(Value::Object(map)).map_err(|e| unusable(e.to_string()))?;
    let wrong: Vec<String> = schema::check(kind, &object)
        .into_iter()
        .filter(|e| e.reason == FieldReason::TypeInvalid)
        .map(|e| e.to_string())
        .collect();
    if !wrong.is_empty() {
        return Err(unusable(wrong.join("; ")));
    }
    match strictness.unwrap_or("Warn") {
        "Strict" if !read.problems.is_empty() => {
            Err(unusable(format!("strict decoding error: {}", read.problems.join(", "))))
        }
        "Ignore" => Ok(Decoded { object, warnings: Vec::new() }),
        "Warn" | "Strict" => Ok(Decoded { object, warnings: read.problems }),
        other => {
            let path = reddwarf_objects::FieldPath::of("fieldValidation");
            let error = reddwarf_objects::FieldError::not_supported(&path, other, &["Ignore", "Warn", "Strict"]);
            Err(ApiError::invalid_options("CreateOptions", "meta.k8s.io", &[error]))
        }
    }
}

/// Fills in apiVersion and kind, or checks those given.
fn check_kind(kind: &Kind, map: &mut Map<String, Value>) -> Result<(), ApiError> {
    let given = |map: &Map<String, Value>, field: &str| {
        map.get(field).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned)
    };
    let api_version = kind.api_version();
    let (is_kind, is_version) = (given(map, "kind"), given(map, "apiVersion"));
    if is_kind.as_deref().is_some_and(|k| k != kind.kind) || is_version.as_deref().is_some_and(|v| v != api_version) {
        let (k, v) = (is_kind.unwrap_or_else(|| kind.kind.into()), is_version.unwrap_or_else(|| api_version.clone()));
        let version = v.rsplit('/').next().unwrap_or_default();
        let group = if kind.group.is_empty() { "core" } else { kind.group };
        return Err(ApiError::bad_request(format!(
            "{k} in version \"{version}\" cannot be handled as a {}: converting ({version}.{k}) to ({group}.{}): unknown conversion",
            kind.kind, kind.kind
        )));
    }
    map.insert("kind".into(), kind.kind.into());
    map.insert("apiVersion".into(), api_version.into());
    Ok(())
}

/// DeleteOptions, with or without kind, of any group's version; an empty body is none.
///
/// # Errors
/// 415, 400.
pub(crate) fn decode_options(headers: &HeaderMap, bytes: &[u8]) -> Result<Value, ApiError> {
    if bytes.is_empty() {
        return Ok(json!({}));
    }
    let unreadable = |e: String| ApiError::bad_request(format!("the options can't be read: {e}"));
    let options = match body_format(headers)? {
        Format::Json => serde_json::from_slice(bytes).map_err(|e| unreadable(format!("json parse error: {e}")))?,
        Format::Yaml => from_yaml(bytes, &reddwarf_config::Limits::default(), "the options can't be read: ")?.0,
        Format::Protobuf => {
            let envelope = protobuf::envelope(bytes).map_err(|e| unreadable(e.to_string()))?;
            let structure = schema::types().by_name("meta.DeleteOptions").filter(|_| envelope.kind == "DeleteOptions");
            let Some(structure) = structure else {
                return Err(unreadable(format!("it is of kind {:?}", envelope.kind)));
            };
            let decoded = protobuf::decode(structure, envelope.raw).map_err(|e| unreadable(e.to_string()))?;
            Value::Object(decoded.fields)
        }
    };
    if options.is_object() { Ok(options) } else { Err(ApiError::bad_request("DeleteOptions must be a map")) }
}
