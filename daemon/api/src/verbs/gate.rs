//! What a client's write must pass on its way through the registry: patched objects must fit the schema, and the client must be
//! allowed to write what it writes.

use crate::access::principal::Principal;
use crate::serve::dispatch::Call;
use crate::wire::decode::{Decoded, decode_object};
use crate::wire::error::ApiError;
use reddwarf_objects::{FieldError, FieldPath, FieldReason, Kind, Object};
use reddwarf_registry::{Gate, Patch, RegistryError};
use serde_json::{Value, json};
use std::fmt::Write;

pub(crate) struct ClientGate<'a> {
    call: &'a Call,
    /// Fields that the patch's text holds twice.
    problems: Vec<String>,
    /// Of the patch that was carried out last.
    pub(super) warnings: Vec<String>,
}

impl<'a> ClientGate<'a> {
    pub(crate) fn new(call: &'a Call) -> Self {
        Self::of_patch(call, Vec::new())
    }

    /// For a patch in whose text these problems were found.
    pub(super) fn of_patch(call: &'a Call, problems: Vec<String>) -> Self {
        Self { call, problems, warnings: Vec::new() }
    }
}

impl Gate for ClientGate<'_> {
    fn decode(&mut self, kind: &Kind, patch: &Patch, document: Value) -> Result<Object, RegistryError> {
        let shown = match patch {
            // As the reference: the patched document, or the patch as Go prints a map.
            Patch::Json(_) | Patch::Merge(_) => document.to_string(),
            Patch::Strategic(patch) => go(patch),
            Patch::Apply(_) => String::new(),
        };
        match decode_object(kind, document, self.problems.clone(), self.call.query.get("fieldValidation")) {
            Ok(Decoded { object, warnings }) => {
                self.warnings = warnings;
                Ok(object)
            }
            Err(error) if error.code == 400 && !matches!(patch, Patch::Apply(_)) => {
                Err(refused(invalid(&error, &shown)))
            }
            Err(error) => Err(refused(error)),
        }
    }

    fn complete(&mut self, kind: &Kind, new: &mut Object) {
        sign_request(&self.call.principal, kind, new);
    }

    fn admit(&mut self, kind: &Kind, old: Option<&Object>, new: &Object) -> Result<(), RegistryError> {
        self.call.admit(kind, old, new).map(drop).map_err(refused)
    }

    fn note(&mut self, notes: Vec<(&'static str, String)>) {
        self.call.notes.add(notes);
    }
}

/// A request for a certificate says who asks: whoever approves it goes by that, so no client says it of itself.
fn sign_request(principal: &Principal, kind: &Kind, new: &mut Object) {
    if kind.group != "certificates.k8s.io" || kind.kind != "CertificateSigningRequest" {
        return;
    }
    for field in ["username", "uid", "groups", "extra"] {
        new.remove(&format!("/spec/{field}"));
    }
    new.set("/spec/username", principal.name.as_str());
    if !principal.uid.is_empty() {
        new.set("/spec/uid", principal.uid.as_str());
    }
    new.set("/spec/groups", json!(principal.groups));
    if !principal.extra.is_empty() {
        new.set("/spec/extra", json!(principal.extra));
    }
}

fn refused(error: ApiError) -> RegistryError {
    RegistryError::Refused(Box::new(error))
}

/// 422 for a patch whose outcome is no object of its kind.
fn invalid(error: &ApiError, shown: &str) -> ApiError {
    let message = match error.message.split_once("strict decoding error: ") {
        Some((_, errors)) => format!("strict decoding error: {errors}"),
        None => error.message.clone(),
    };
    let mut cause = FieldError::invalid(&FieldPath::of("patch"), shown, message);
    cause.reason = FieldReason::Invalid;
    ApiError::invalid_options("", "", &[cause])
}

/// A value as Go's `%v` prints it: `map[data:map[a:1]]`.
fn go(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut out = String::from("map[");
            for (index, (key, value)) in map.iter().enumerate() {
                let space = if index > 0 { " " } else { "" };
                // Writing into a String has no way to fail.
                let _ = write!(out, "{space}{key}:{}", go(value));
            }
            out + "]"
        }
        Value::Array(list) => format!("[{}]", list.iter().map(go).collect::<Vec<_>>().join(" ")),
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}
