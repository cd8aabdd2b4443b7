//! Bodies of requests to checked objects, with the texts of kube-apiserver where it has one.

use crate::wire::error::ApiError;
use crate::wire::request::{Format, body_format};
use hyper::header::HeaderMap;
use reddwarf_objects::{FieldReason, Kind, Object, schema};
use serde_json::{Map, Value, json};

/// An object of the kind asked for, without unknown fields.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) object: Object,
    /// Unknown fields that were dropped.
    pub(crate) warnings: Vec<String>,
}

/// The value in a body.
///
/// # Errors
/// 415 for other formats, 400 for text that is none.
pub(crate) fn parse(
    kind: &Kind,
    headers: &HeaderMap,
    bytes: &[u8],
    strictness: Option<&str>,
    limits: &reddwarf_config::Limits,
) -> Result<Value, ApiError> {
    let bad = |e: serde_json::Error| {
        let why = crate::wire::syntax::error(bytes).unwrap_or_else(|| e.to_string());
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(64)]);
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {why} ({text})",
            kind.kind
        ))
    };
    match body_format(headers)? {
        Format::Json if strictness != Some("Strict") => serde_json::from_slice(bytes).map_err(bad),
        Format::Json => {
            let (value, duplicates) = crate::wire::strict::parse(bytes).map_err(bad)?;
            if duplicates.is_empty() {
                return Ok(value);
            }
            let mut errors: Vec<String> = unknown(kind, &value);
            errors.extend(duplicates.iter().map(|path| format!("duplicate field \"{path}\"")));
            Err(strict(kind, &errors))
        }
        Format::Yaml => {
            let (documents, diagnostics) = reddwarf_config::parse_file("body.yaml", bytes, limits);
            if let Some(error) = diagnostics.iter().find(|d| d.is_error()) {
                return Err(ApiError::bad_request(format!("error parsing the YAML body: {}", error.one_line())));
            }
            let mut documents = documents.into_iter();
            match (documents.next(), documents.next()) {
                (Some(document), None) => Ok(document.value.clone()),
                _ => Err(ApiError::bad_request("the YAML body must hold exactly one document")),
            }
        }
    }
}

/// Checks that a value is an object of `kind`; apiVersion and kind may be left out. Unknown fields are refused
/// (`fieldValidation=Strict`), dropped with a warning (`Warn`, the default) or dropped (`Ignore`).
///
/// # Errors
/// 400.
pub(crate) fn decode_object(kind: &Kind, value: Value, strictness: Option<&str>) -> Result<Decoded, ApiError> {
    let mut map = match value {
        Value::Object(map) => map,
        _ => {
            return Err(ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type {})",
                kind.kind
            )));
        }
    };
    check_kind(kind, &mut map)?;
    let mut object = Object::from_value(Value::Object(map)).map_err(|e| {
        ApiError::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: {e}",
            kind.kind, kind.version, kind.kind
        ))
    })?;
    let wrong: Vec<String> = schema::check(kind, &object)
        .into_iter()
        .filter(|e| e.reason == FieldReason::TypeInvalid)
        .map(|e| e.to_string())
        .collect();
    if !wrong.is_empty() {
        return Err(ApiError::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: {}",
            kind.kind,
            kind.version,
            kind.kind,
            wrong.join("; ")
        )));
    }
    let dropped = schema::prune_unknown(kind, &mut object);
    let texts: Vec<String> = dropped.iter().map(|e| unknown_text(&e.path.to_string(), e.help.as_deref())).collect();
    match strictness.unwrap_or("Warn") {
        "Strict" if !texts.is_empty() => Err(strict(kind, &texts)),
        "Ignore" => Ok(Decoded { object, warnings: Vec::new() }),
        "Warn" | "Strict" => Ok(Decoded { object, warnings: texts }),
        other => {
            let path = reddwarf_objects::FieldPath::of("fieldValidation");
            let error = reddwarf_objects::FieldError::not_supported(&path, other, &["Ignore", "Warn", "Strict"]);
            Err(ApiError::invalid_options("CreateOptions", "meta.k8s.io", &[error]))
        }
    }
}

fn unknown_text(path: &str, help: Option<&str>) -> String {
    match help {
        Some(help) => format!("unknown field \"{path}\" ({help})"),
        None => format!("unknown field \"{path}\""),
    }
}

fn unknown(kind: &Kind, value: &Value) -> Vec<String> {
    let Some(mut map) = value.as_object().cloned() else { return Vec::new() };
    if check_kind(kind, &mut map).is_err() {
        return Vec::new();
    }
    let Ok(mut object) = Object::from_value(Value::Object(map)) else { return Vec::new() };
    let dropped = schema::prune_unknown(kind, &mut object);
    dropped.iter().map(|e| unknown_text(&e.path.to_string(), e.help.as_deref())).collect()
}

fn strict(kind: &Kind, errors: &[String]) -> ApiError {
    ApiError::bad_request(format!(
        "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
        kind.kind,
        kind.version,
        kind.kind,
        errors.join(", ")
    ))
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

/// DeleteOptions, with or without kind; an empty body is none.
///
/// # Errors
/// 415, 400.
pub(crate) fn decode_options(headers: &HeaderMap, bytes: &[u8]) -> Result<Value, ApiError> {
    if bytes.is_empty() {
        return Ok(json!({}));
    }
    body_format(headers)?;
    match serde_json::from_slice(bytes) {
        Ok(options @ Value::Object(_)) => Ok(options),
        Ok(_) => Err(ApiError::bad_request("DeleteOptions must be a map")),
        Err(e) => Err(ApiError::bad_request(format!("the options can't be read: json parse error: {e}"))),
    }
}
