//! `POST /reddwarf/v1/apply`: the same parser, checks and write path as files, owned by the API.

use crate::daemon::ok;
use crate::serve::body::Body;
use crate::serve::dispatch::Call;
use crate::types::{AppliedObject, ApplyReport, ApplyVerdict, Diagnostic, FieldChange, FileSet, Severity};
use crate::verbs::gate::ClientGate;
use crate::wire::error::ApiError;
use hyper::Response;
use reddwarf_config::{Document, check, parse_file};
use reddwarf_objects::diff::Change;
use reddwarf_objects::{Kind, kinds};
use reddwarf_registry::{Applied, ApplyOptions, Declared, PruneScope, RegistryError, Verdict};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Parses and applies files of a client.
///
/// # Errors
/// 422 with `diagnostics` when a file is bad: then nothing at all is applied. 403 for an operator's privileged pods.
pub(crate) async fn answer(call: &Call, files: FileSet) -> Result<Response<Body>, ApiError> {
    if files.files.is_empty() {
        return Err(ApiError::bad_request("no files were given"));
    }
    let dry_run = call.query.flag("dryRun");
    let namespace = call.query.get("namespace");
    let (declared, diagnostics) = read(&files, namespace, &call.state.settings.manifest_limits);
    if diagnostics.iter().any(|d| d.severity == Severity::Error) {
        return Err(bad_files(call, diagnostics, dry_run));
    }
    let mut set = Vec::with_capacity(declared.len());
    for one in &declared {
        let old = call.state.deps.registry.find(&one.key)?;
        let object = one.object();
        call.admit_declared(one.kind, old.as_ref(), &object)?;
        set.push(Declared { object, source: None });
    }
    let message = format!("apply of {} objects", declared.len());
    let options = ApplyOptions { prune: PruneScope::Nothing, dry_run, generation: None, message };
    let mut gate = ClientGate::new(call);
    let done = call.state.deps.registry.apply_set_through(&call.admit_change(), set, options, &mut gate).await?;
    let places = declared.iter().map(|one| place(one)).chain(std::iter::repeat(String::new()));
    let objects = done.objects.iter().zip(places).map(|(applied, place)| applied_object(applied, place)).collect();
    ok(&ApplyReport { objects, diagnostics, revision: done.revision.get(), dry_run })
}

/// Objects and findings of files.
fn read(
    files: &FileSet,
    namespace: Option<&str>,
    limits: &reddwarf_config::Limits,
) -> (Vec<Arc<reddwarf_config::Declared>>, Vec<Diagnostic>) {
    let mut documents = Vec::new();
    let mut findings = Vec::new();
    for file in &files.files {
        // Standard input has no extension.
        let name = if file.name == "-" { "-.yaml" } else { &file.name };
        let (found, diagnostics) = parse_file(name, file.text.as_bytes(), limits);
        documents.extend(found);
        findings.extend(diagnostics);
    }
    if let Some(namespace) = namespace {
        documents.iter_mut().for_each(|document| put_into(document, namespace));
    }
    let checked = check(documents);
    findings.extend(checked.diagnostics);
    (checked.declared, findings.iter().map(diagnostic).collect())
}

/// Gives a namespaced object that names no namespace the client's.
fn put_into(document: &mut Document, namespace: &str) {
    let text = |field: &str| document.value.get(field).and_then(Value::as_str).unwrap_or_default();
    let namespaced = kinds().by_gvk(text("apiVersion"), text("kind")).is_some_and(|k| k.namespaced);
    let Some(metadata) = document.value.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if namespaced && metadata.get("namespace").is_none_or(Value::is_null) {
        metadata.insert("namespace".into(), namespace.into());
    }
}

/// A Status that also is an [`ApplyReport`] with nothing applied.
fn bad_files(call: &Call, diagnostics: Vec<Diagnostic>, dry_run: bool) -> ApiError {
    let errors: Vec<String> = diagnostics.iter().filter(|d| d.severity == Severity::Error).map(one_line).collect();
    let report =
        ApplyReport { diagnostics, revision: call.state.deps.registry.revision().get(), dry_run, ..Default::default() };
    let mut error = ApiError::new(422, "Invalid", format!("nothing was applied: {}", errors.join("; ")));
    error.extra = match serde_json::to_value(report) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    error
}

/// A finding as the API shows it.
pub fn diagnostic(of: &reddwarf_config::Diagnostic) -> Diagnostic {
    let (line, column) = of.position.map_or((0, 0), |p| (p.line, p.column));
    Diagnostic {
        severity: if of.is_error() { Severity::Error } else { Severity::Warning },
        code: of.code.as_str().to_owned(),
        file: of.file.clone(),
        line,
        column,
        what: of.message.clone(),
        why: of.why.clone(),
        help: of.help.clone(),
        rendered: of.render(false),
    }
}

/// `file:line:column: what, why, how to mend`.
fn one_line(of: &Diagnostic) -> String {
    let place = if of.line == 0 { of.file.clone() } else { format!("{}:{}:{}", of.file, of.line, of.column) };
    let parts: Vec<&str> =
        [&of.what, &of.why, &of.help].into_iter().map(String::as_str).filter(|t| !t.is_empty()).collect();
    format!("{place}: {}", parts.join(", "))
}

/// `file:line` of a declared object.
fn place(of: &reddwarf_config::Declared) -> String {
    format!("{}:{}", of.origin.file(), of.origin.start().line)
}

/// A verdict as the API shows it.
pub fn applied_object(applied: &Applied, source: String) -> AppliedObject {
    let (verdict, message) = match &applied.verdict {
        Verdict::Created => (ApplyVerdict::Created, String::new()),
        Verdict::Configured(_) => (ApplyVerdict::Configured, String::new()),
        Verdict::Unchanged => (ApplyVerdict::Unchanged, String::new()),
        Verdict::Refused(error) => (ApplyVerdict::Refused, error.to_string()),
        Verdict::Pending => (
            ApplyVerdict::Pending,
            "an object of this name is being deleted; it is applied once that is gone".to_owned(),
        ),
        Verdict::Deleted => (ApplyVerdict::Deleted, String::new()),
    };
    let changes = match &applied.verdict {
        Verdict::Configured(changes) => changes.iter().map(field_change).collect(),
        _ => Vec::new(),
    };
    let code = match &applied.verdict {
        Verdict::Refused(error) => refusal_code(error),
        _ => 0,
    };
    let kind = kinds().by_group_resource(&applied.key.group, &applied.key.resource);
    AppliedObject {
        api_version: kind.map(Kind::api_version).unwrap_or_default(),
        kind: kind.map_or_else(|| applied.key.resource.clone(), |k| k.kind.to_owned()),
        resource: applied.key.group_resource(),
        namespace: applied.key.namespace.clone().unwrap_or_default(),
        name: applied.key.name.clone(),
        verdict,
        message,
        code,
        source: if source.is_empty() { applied.source.clone().unwrap_or_default() } else { source },
        changes,
        warnings: applied.warnings.clone(),
    }
}

/// The HTTP status that the error has as an answer of its own.
fn refusal_code(error: &RegistryError) -> u16 {
    match error {
        RegistryError::NotFound(_) => 404,
        RegistryError::AlreadyExists(_)
        | RegistryError::Conflict(_)
        | RegistryError::Precondition { .. }
        | RegistryError::FileOwned { .. } => 409,
        RegistryError::Invalid { .. } => 422,
        RegistryError::Forbidden { .. } => 403,
        RegistryError::BadRequest(_) => 400,
        RegistryError::Contended { .. } => 429,
        _ => 500,
    }
}

/// A changed field as the API shows it.
pub fn field_change(change: &Change) -> FieldChange {
    FieldChange { path: change.path.to_string(), old: change.old.clone(), new: change.new.clone() }
}
