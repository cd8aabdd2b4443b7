//! CreateOptions, UpdateOptions, PatchOptions and DeleteOptions (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/delete-options/>).

use crate::wire::decode::decode_options;
use crate::wire::error::ApiError;
use crate::wire::request::Query;
use hyper::header::{HeaderMap, USER_AGENT};
use reddwarf_objects::{FieldError, FieldPath};
use reddwarf_registry::{DeleteOptions, Patch, Preconditions, Propagation, WriteOptions};
use serde_json::Value;

/// Most bytes of a field manager's name.
const MANAGER_MAX: usize = 128;

/// Options of a write, `of` being their kind.
///
/// # Errors
/// 422.
pub(super) fn write(query: &Query, headers: &HeaderMap, of: &str) -> Result<WriteOptions, ApiError> {
    let dry_run = dry_run(query.all("dryRun"), of)?;
    let mut errors = Vec::new();
    if let Some(manager) = query.get("fieldManager") {
        let path = FieldPath::of("fieldManager");
        if manager.len() > MANAGER_MAX {
            errors.push(FieldError::too_long(&path, MANAGER_MAX));
        }
        for (at, c) in manager.char_indices().filter(|(_, c)| !printable(*c)) {
            let message = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
            errors.push(FieldError::invalid(&path, manager, message));
        }
    }
    if let Some(given) = query.get("fieldValidation").filter(|v| !["Ignore", "Warn", "Strict"].contains(v)) {
        let path = FieldPath::of("fieldValidation");
        errors.push(FieldError::not_supported(&path, given, &["Ignore", "Strict", "Warn"]));
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid_options(of, "meta.k8s.io", &errors));
    }
    let manager = query.get("fieldManager").map_or_else(|| manager_of(headers), str::to_owned);
    Ok(WriteOptions { dry_run, manager: Some(manager), ..WriteOptions::default() })
}

/// `?force`, and that an apply names its manager.
///
/// # Errors
/// 422.
pub(super) fn force(query: &Query, patch: &Patch) -> Result<bool, ApiError> {
    let refuse = |error: FieldError| Err(ApiError::invalid_options("PatchOptions", "meta.k8s.io", &[error]));
    match patch {
        Patch::Apply(_) if query.get("fieldManager").is_none() => {
            refuse(FieldError::required(&FieldPath::of("fieldManager"), "is required for apply patch"))
        }
        Patch::Apply(_) => Ok(query.flag("force")),
        _ if query.get("force").is_some() => {
            refuse(FieldError::forbidden(&FieldPath::of("force"), "may not be specified for non-apply patch"))
        }
        _ => Ok(false),
    }
}

/// The User-Agent up to its first slash, as far as it is printable and fits.
fn manager_of(headers: &HeaderMap) -> String {
    let agent = headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let name = agent.split('/').next().unwrap_or_default();
    name.chars().filter(|c| printable(*c)).take(MANAGER_MAX).collect()
}

fn printable(c: char) -> bool {
    !c.is_control() && (c == ' ' || !c.is_whitespace())
}

/// Options of a delete, from the body, or from the URL when there is none; `dryRun` counts wherever it stands.
///
/// # Errors
/// 400, 415, 422.
pub(super) fn delete(query: &Query, headers: &HeaderMap, body: &[u8]) -> Result<DeleteOptions, ApiError> {
    let options = if body.is_empty() { of_query(query)? } else { decode_options(headers, body)? };
    // Who sends the object itself may mean something else.
    let kind = options.get("kind").and_then(Value::as_str).unwrap_or_default();
    if !matches!(kind, "" | "DeleteOptions") {
        return Err(ApiError::bad_request(format!("a delete takes DeleteOptions in its body, not {kind:?}")));
    }
    checked(&options, query)
}

/// DeleteOptions in the URL as a document.
fn of_query(query: &Query) -> Result<Value, ApiError> {
    let mut options = serde_json::Map::new();
    if let Some(seconds) = query.number::<i64>("gracePeriodSeconds")? {
        options.insert("gracePeriodSeconds".to_owned(), seconds.into());
    }
    if let Some(policy) = query.get("propagationPolicy") {
        options.insert("propagationPolicy".to_owned(), policy.into());
    }
    if query.get("orphanDependents").is_some() {
        options.insert("orphanDependents".to_owned(), query.flag("orphanDependents").into());
    }
    Ok(Value::Object(options))
}

/// DeleteOptions as a document, checked. Also those inside an Eviction.
///
/// # Errors
/// 400, 422.
pub(super) fn checked(options: &Value, query: &Query) -> Result<DeleteOptions, ApiError> {
    let text = |pointer: &str| options.pointer(pointer).and_then(Value::as_str).filter(|t| !t.is_empty());
    let in_body = options.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let dry_run = dry_run(query.all("dryRun").chain(in_body), "DeleteOptions")?;
    let grace = match options.get("gracePeriodSeconds") {
        None | Some(Value::Null) => None,
        // As the reference: a negative grace is the shortest one.
        Some(seconds) => Some(
            seconds
                .as_i64()
                .map(|s| if s < 0 { 1 } else { s })
                .ok_or_else(|| ApiError::bad_request(format!("gracePeriodSeconds: {seconds} is no whole number")))?,
        ),
    };
    Ok(DeleteOptions {
        grace_period_seconds: grace,
        preconditions: Preconditions {
            uid: text("/preconditions/uid").map(str::to_owned),
            resource_version: text("/preconditions/resourceVersion").map(str::to_owned),
        },
        propagation: propagation(text("/propagationPolicy"), options.get("orphanDependents").and_then(Value::as_bool))?,
        dry_run,
    })
}

fn propagation(policy: Option<&str>, orphan: Option<bool>) -> Result<Option<Propagation>, ApiError> {
    let path = FieldPath::of("propagationPolicy");
    let refuse = |error: FieldError| Err(ApiError::invalid_options("DeleteOptions", "meta.k8s.io", &[error]));
    match (policy, orphan) {
        (Some(policy), Some(_)) => {
            refuse(FieldError::invalid(&path, policy, "orphanDependents and deletionPropagation cannot be both set"))
        }
        (Some("Background"), None) | (None, Some(false)) => Ok(Some(Propagation::Background)),
        (Some("Foreground"), None) => Ok(Some(Propagation::Foreground)),
        (Some("Orphan"), None) | (None, Some(true)) => Ok(Some(Propagation::Orphan)),
        (Some(other), None) => {
            refuse(FieldError::not_supported(&path, other, &["Foreground", "Background", "Orphan", "nil"]))
        }
        (None, None) => Ok(None),
    }
}

/// `dryRun=All` is the only value there is.
fn dry_run<'a>(values: impl Iterator<Item = &'a str>, of: &str) -> Result<bool, ApiError> {
    let mut dry = false;
    for value in values.filter(|v| !v.is_empty()) {
        if value != "All" {
            let error = FieldError::not_supported(&FieldPath::of("dryRun"), value, &["All"]);
            return Err(ApiError::invalid_options(of, "meta.k8s.io", &[error]));
        }
        dry = true;
    }
    Ok(dry)
}
