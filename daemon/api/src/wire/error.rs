//! Errors as Kubernetes `Status` objects, with the texts of kube-apiserver where it has one.

use crate::runtime::RuntimeError;
use reddwarf_objects::apply::{ApplyError, Conflict};
use reddwarf_objects::patch::PatchError;
use reddwarf_objects::{FieldError, Kind, ObjectKey};
use reddwarf_registry::RegistryError;
use reddwarf_store::CommitError;
use serde_json::{Map, Value, json};

/// A request that failed, as the client will read it.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// `details` of the Status; absent when `None`.
    pub(crate) details: Option<Value>,
    /// Further top-level fields (our own routes' diagnostics).
    pub(crate) extra: Map<String, Value>,
}

impl ApiError {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, extra: Map::new() }
    }

    pub(crate) fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, "Forbidden", message)
    }

    pub(crate) fn unknown_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource").with_details(json!({}))
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
            .with_details(json!({}))
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    pub(crate) fn too_many(message: impl Into<String>) -> Self {
        Self::new(429, "TooManyRequests", message).with_details(json!({"retryAfterSeconds": 1}))
    }

    /// What passes: the client may come again soon.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message).with_details(json!({"retryAfterSeconds": 1}))
    }

    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
            .with_details(json!({"causes": [{"message": message.to_string()}]}))
    }

    /// 422 about options, `ListOptions.meta.k8s.io "" is invalid: ...`.
    pub(crate) fn invalid_options(kind: &str, group: &str, errors: &[FieldError]) -> Self {
        invalid(kind, group, "", errors)
    }

    /// 422 with a cause for each field of an object, or of options that name one.
    pub(crate) fn invalid(kind: &str, group: &str, name: &str, errors: &[FieldError]) -> Self {
        invalid(kind, group, name, errors)
    }

    /// The Status object.
    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if let Some(map) = status.as_object_mut() {
            if !self.reason.is_empty() {
                map.insert("reason".into(), self.reason.into());
            }
            if let Some(details) = &self.details {
                map.insert("details".into(), details.clone());
            }
            map.extend(self.extra.clone());
        }
        status
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

/// `details` that name an object by its plural.
fn named(key: &ObjectKey) -> Value {
    let mut details = json!({"name": key.name, "kind": key.resource});
    set_group(&mut details, &key.group);
    details
}

fn set_group(details: &mut Value, group: &str) {
    if let Some(map) = details.as_object_mut().filter(|_| !group.is_empty()) {
        map.insert("group".into(), group.into());
    }
}

/// 422 with a cause for each field.
fn invalid(kind: &str, group: &str, name: &str, errors: &[FieldError]) -> ApiError {
    let causes: Vec<Value> = errors
        .iter()
        .map(|e| json!({"reason": e.reason.cause(), "message": e.body(), "field": e.path.to_string()}))
        .collect();
    let mut details = json!({"causes": causes});
    if let Some(map) = details.as_object_mut().filter(|_| !kind.is_empty()) {
        map.insert("kind".into(), kind.into());
    }
    set_group(&mut details, group);
    if let Some(map) = details.as_object_mut().filter(|_| !name.is_empty()) {
        map.insert("name".into(), name.into());
    }
    let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
    let mut texts: Vec<String> = Vec::with_capacity(errors.len());
    for text in errors.iter().map(ToString::to_string) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    let list = if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) };
    ApiError::new(422, "Invalid", format!("{qualified} \"{name}\" is invalid: {list}")).with_details(details)
}

impl From<RegistryError> for ApiError {
    fn from(e: RegistryError) -> Self {
        let message = e.to_string();
        match e {
            RegistryError::NotFound(key) => Self::new(404, "NotFound", message).with_details(named(&key)),
            RegistryError::AlreadyExists(key) => Self::new(409, "AlreadyExists", message).with_details(named(&key)),
            RegistryError::Conflict(key) => Self::new(409, "Conflict", message).with_details(named(&key)),
            RegistryError::Precondition { kind, group, name, .. } => {
                let mut details = json!({"name": name, "kind": kind});
                set_group(&mut details, &group);
                Self::new(409, "Conflict", message).with_details(details)
            }
            RegistryError::FileOwned { key, source_file, line, fields } => {
                let line = line.map(|line| format!(":{line}")).unwrap_or_default();
                let text = format!("conflict with \"{source_file}{line}\"");
                let cause = |field: &String| json!({"reason": "FieldManagerConflict", "message": text, "field": field});
                let causes: Vec<Value> = fields.iter().map(cause).collect();
                let mut details = named(&key);
                if let Some(map) = details.as_object_mut().filter(|_| !causes.is_empty()) {
                    map.insert("causes".into(), causes.into());
                }
                Self::new(409, "Conflict", message).with_details(details)
            }
            RegistryError::Invalid { kind, group, name, errors } => invalid(&kind, &group, &name, &errors),
            RegistryError::Forbidden { key, .. } => Self::new(403, "Forbidden", message).with_details(named(&key)),
            RegistryError::Terminating { key, namespace } => {
                let cause = json!({"reason": "NamespaceTerminating", "field": "metadata.namespace",
                    "message": format!("namespace {namespace} is being terminated")});
                let mut details = named(&key);
                details["causes"] = json!([cause]);
                Self::new(403, "Forbidden", message).with_details(details)
            }
            RegistryError::Budget { message: cause, retry_seconds } => {
                let mut details = json!({"causes": [{"reason": "DisruptionBudget", "message": cause}]});
                if let Some(seconds) = retry_seconds {
                    details["retryAfterSeconds"] = seconds.into();
                }
                Self::new(429, "TooManyRequests", message).with_details(details)
            }
            RegistryError::Binding { name, .. } => {
                Self::new(409, "Conflict", message).with_details(json!({"name": name, "kind": "pods/binding"}))
            }
            RegistryError::Unsupported(_) => Self::new(500, "", message),
            RegistryError::Patch(e) => patch(e),
            RegistryError::Apply(e) => apply(e),
            RegistryError::Refused(e) => match e.downcast::<Self>() {
                Ok(error) => *error,
                Err(e) => Self::internal(e),
            },
            RegistryError::BadRequest(_) => Self::bad_request(message),
            RegistryError::Expired { .. } => {
                Self::new(410, "Expired", "The resourceVersion for the provided list is too old.")
            }
            RegistryError::TooLarge { .. } => too_large_version(message),
            RegistryError::Contended { .. } => Self::too_many(message),
            RegistryError::Commit(CommitError::Closed) => Self::unavailable(message),
            RegistryError::Commit(CommitError::Invalid(_)) => Self::new(413, "RequestEntityTooLarge", message),
            RegistryError::Commit(ref commit) if commit.is_transient() => Self::unavailable(message),
            RegistryError::Commit(_) | RegistryError::Store(_) | RegistryError::Damaged { .. } => {
                Self::internal(message)
            }
        }
    }
}

/// A patch that can't be carried out.
fn patch(e: PatchError) -> ApiError {
    match e {
        PatchError::Malformed(message) => ApiError::bad_request(message),
        PatchError::Rejected(why) => {
            tracing::debug!(%why, "a patch was rejected");
            ApiError::new(422, "Invalid", PatchError::REJECTED).with_details(json!({}))
        }
        PatchError::TooLarge(message) => ApiError::new(413, "RequestEntityTooLarge", message),
        // The reference gives no reason here.
        PatchError::Unmergeable(message) => ApiError::new(500, "", message),
    }
}

/// An apply that can't be carried out.
fn apply(e: ApplyError) -> ApiError {
    match e {
        ApplyError::Conflicts { message, conflicts } => {
            let cause =
                |c: &Conflict| json!({"reason": "FieldManagerConflict", "message": c.message, "field": c.field});
            let causes: Vec<Value> = conflicts.iter().map(cause).collect();
            ApiError::new(409, "Conflict", message).with_details(json!({"causes": causes}))
        }
        ApplyError::BadRequest(message) => ApiError::bad_request(message),
        // The reference gives no reason here.
        ApplyError::Schema(message) => ApiError::new(500, "", message),
    }
}

/// 504 for a resourceVersion that does not exist yet.
pub(crate) fn too_large_version(message: String) -> ApiError {
    let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
    ApiError::new(504, "Timeout", message).with_details(json!({"causes": [cause], "retryAfterSeconds": 1}))
}

impl From<RuntimeError> for ApiError {
    fn from(e: RuntimeError) -> Self {
        let message = e.to_string();
        match e {
            RuntimeError::NotFound(_) => Self::new(404, "NotFound", message),
            RuntimeError::BadRequest(_) => Self::bad_request(message),
            RuntimeError::Conflict(_) => Self::new(409, "Conflict", message),
            RuntimeError::Unsupported(_) => Self::new(501, "NotImplemented", message),
            RuntimeError::Unavailable(_) => Self::unavailable(message),
            RuntimeError::Internal(_) => Self::internal(message),
        }
    }
}

/// The key of an object of a kind, for errors and reads.
pub(crate) fn key_of(kind: &Kind, namespace: Option<&str>, name: &str) -> ObjectKey {
    ObjectKey {
        group: kind.group.to_owned(),
        resource: kind.plural.to_owned(),
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
    }
}
