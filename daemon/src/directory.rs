//! The API's view of the manifest directories: `controllers::directory` and the store's generations in the API's words.

use crate::chain::chain;
use crate::dns::NameServer;
use crate::node::NodeRuntime;
use crate::pods;
use crate::storage::Storage;
use async_trait::async_trait;
use reddwarf_api::runtime::{Directory, DirectoryGauges, Runtime, RuntimeError};
use reddwarf_api::{applied_object, diagnostic, field_change, types};
use reddwarf_config::Limits;
use reddwarf_controllers::directory::status::{DirectoryStatus, FileStatus, FileVerdict};
use reddwarf_controllers::directory::{DirectoryError, DirectoryHandle, PassReport, rollback};
use reddwarf_objects::{Object, diff, kinds};
use reddwarf_registry::{Applied, ApplyOptions, Author, Declared, ListQuery, Registry, Verdict};
use reddwarf_store::{FileChange, GenerationRecord};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Implements the API's [`Directory`].
pub(crate) struct Directories {
    /// The loop.
    pub handle: DirectoryHandle,
    /// Where objects and generations are.
    pub registry: Registry,
    /// For the pods and checks in `status`.
    pub node: Arc<NodeRuntime>,
    /// Layers, lowest first.
    pub layers: Vec<PathBuf>,
    /// Bounds on manifests given to `plan`.
    pub limits: Limits,
    /// Where generations are laid out for comparing.
    pub scratch: PathBuf,
    /// What `status` says of the daemon itself.
    pub about: About,
    /// The name server, unless it is off.
    pub dns: Option<Arc<NameServer>>,
    /// Where volumes are kept, if there is a host.
    pub storage: Option<Arc<Storage>>,
}

/// What a reload of the settings refused, until one succeeds; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refused(Arc<Mutex<Option<String>>>);

impl Refused {
    /// The last reload said this; `None`: it succeeded.
    pub(crate) fn set(&self, said: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = said;
    }

    fn notice(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Facts for `status`: constant, but for what was refused.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// Daemon version.
    pub version: String,
    /// Node name.
    pub node: String,
    /// Host adapter.
    pub host: String,
    /// When the daemon started.
    pub started: chrono::DateTime<chrono::Utc>,
    /// What opening the store had to repair, and other things said once.
    pub notices: Vec<String>,
    /// Settings that were not taken over.
    pub refused: Refused,
    /// How Kubernetes clients reach us.
    pub kubernetes: Option<types::KubernetesAccess>,
}

#[async_trait]
impl Directory for Directories {
    async fn status(&self) -> Result<types::StatusReport, RuntimeError> {
        self.node.first_look().await;
        let status = self.handle.status();
        let checks = self.node.checks();
        let pods = self.pods()?;
        let mut notices = self.about.notices.clone();
        notices.extend(self.about.refused.notice());
        notices.extend(status.notices.iter().cloned());
        notices.extend(status.failure.iter().cloned());
        notices.extend(self.node.notices().await);
        notices.extend(self.dns.iter().flat_map(|dns| dns.notices()));
        let storage = match &self.storage {
            Some(storage) => Some(storage.status().await),
            None => None,
        };
        notices.extend(storage.as_ref().map(|s| s.problem.clone()).filter(|p| !p.is_empty()));
        notices.extend(self.storage.iter().flat_map(|storage| storage.notices()));
        let ready = checks.iter().all(|c| c.ok)
            && status.is_good()
            && notices.is_empty()
            && pods.iter().all(|p| p.reason.is_empty());
        Ok(types::StatusReport {
            version: self.about.version.clone(),
            node: self.about.node.clone(),
            host: self.about.host.clone(),
            started: Some(self.about.started),
            ready,
            checks,
            generation: status.generation,
            revision: self.registry.revision().get(),
            sources: self.sources(&status),
            pods,
            notices,
            kubernetes: self.about.kubernetes.clone(),
            dns: self.dns.as_ref().map(|dns| dns.status()),
            storage,
        })
    }

    async fn reload(&self) -> Result<types::ReloadReport, RuntimeError> {
        let report = self.handle.reload(false).await.map_err(failed)?;
        let status = self.handle.status();
        let objects = changed_objects(&report);
        let diagnostics = all_diagnostics(&status);
        Ok(types::ReloadReport { generation: report.generation, changed: report.changed, objects, diagnostics })
    }

    async fn plan(&self, files: types::FileSet) -> Result<types::PlanReport, RuntimeError> {
        let (mut documents, mut findings) = (Vec::new(), Vec::new());
        for file in &files.files {
            let (parsed, said) = reddwarf_config::parse_file(&file.name, file.text.as_bytes(), &self.limits);
            documents.extend(parsed);
            findings.extend(said);
        }
        let checked = reddwarf_config::check(documents);
        findings.extend(checked.diagnostics);
        let places: BTreeMap<_, _> = checked.declared.iter().map(|d| (d.key.clone(), place(&d.origin))).collect();
        let set = checked
            .declared
            .iter()
            .map(|d| Declared { object: d.object(), source: Some(self.owner_or(&d.key, d.origin.file())) })
            .collect();
        let options = ApplyOptions { dry_run: true, message: "plan".into(), ..ApplyOptions::default() };
        let author = Author::File("plan".into());
        let applied = self.registry.apply_set(&author, set, options).await.map_err(internal)?;
        let wished: Vec<Object> = applied.objects.iter().filter_map(|o| o.object.clone()).collect();
        let mut report = self.node.plan_with(wished).await?;
        report.diagnostics = findings.iter().map(diagnostic).collect();
        let mut steps: Vec<types::PlanStep> =
            applied.objects.iter().filter_map(|o| object_step(o, places.get(&o.key))).collect();
        for step in &mut report.steps {
            if step.source.is_empty()
                && let Some((_, place)) = places.iter().find(|(key, _)| key.to_string() == step.object)
            {
                step.source.clone_from(place);
            }
        }
        steps.append(&mut report.steps);
        report.steps = steps;
        Ok(report)
    }

    async fn generations(&self) -> Result<types::GenerationList, RuntimeError> {
        let mut records = self.registry.store().generations().map_err(internal)?;
        records.sort_by_key(|r| std::cmp::Reverse(r.number));
        let current = self.handle.status().generation;
        Ok(types::GenerationList { items: records.iter().map(|r| summary(r, current)).collect() })
    }

    async fn generation(&self, number: u64) -> Result<types::GenerationDetail, RuntimeError> {
        let record = self.record(number)?;
        let mut objects_list: Vec<String> =
            record.declared.iter().filter_map(|d| Some(reddwarf_registry::object_key(&d.key)?.to_string())).collect();
        objects_list.sort();
        Ok(types::GenerationDetail {
            summary: summary(&record, self.handle.status().generation),
            files_list: record
                .files
                .iter()
                .map(|f| types::GenerationFile { path: f.name.clone(), digest: format!("sha256:{}", f.digest) })
                .collect(),
            objects_list,
            diagnostics: stored_diagnostics(&record.diagnostics),
        })
    }

    async fn generation_diff(&self, from: u64, to: u64) -> Result<types::GenerationDiff, RuntimeError> {
        let (before, after) = (self.record(from)?, self.record(to)?);
        let files = self.registry.store().generation_diff(from, to).map_err(internal)?;
        let files = files.map(|d| d.files).unwrap_or_default();
        let (registry, layers, scratch) = (self.registry.clone(), self.layers.clone(), self.scratch.clone());
        let objects = tokio::task::spawn_blocking(move || {
            let old = rollback::objects_of(&registry, &before, &layers, &scratch.join("diff-from"))?;
            let new = rollback::objects_of(&registry, &after, &layers, &scratch.join("diff-to"))?;
            Ok::<_, DirectoryError>(object_diffs(&old, &new))
        })
        .await
        .map_err(internal)?
        .map_err(failed)?;
        let files = files
            .iter()
            .map(|f| {
                let mark = match f.change {
                    FileChange::Added { .. } => '+',
                    FileChange::Removed { .. } => '-',
                    FileChange::Changed { .. } => '~',
                };
                format!("{mark} {}", f.name)
            })
            .collect();
        Ok(types::GenerationDiff { from, to, objects, files })
    }

    async fn rollback(&self, number: u64, write: bool) -> Result<types::RollbackReport, RuntimeError> {
        let report = self.handle.rollback(number, write).await.map_err(failed)?;
        let message = if write {
            String::new()
        } else {
            "the manifest directory still holds the newer files; they are applied again at its next change, \
             or make the files match with --write"
                .to_owned()
        };
        Ok(types::RollbackReport {
            generation: report.generation,
            objects: changed_objects(&report),
            files_written: report.written.iter().map(|p| p.display().to_string()).collect(),
            message,
        })
    }

    fn gauges(&self) -> DirectoryGauges {
        let status = self.handle.status();
        DirectoryGauges {
            generation: status.generation,
            manifests_invalid: status.invalid() as u64,
            manifests: status.files.len() as u64,
        }
    }
}

impl Directories {
    fn record(&self, number: u64) -> Result<GenerationRecord, RuntimeError> {
        let record = self.registry.store().generation(number).map_err(internal)?;
        record.ok_or_else(|| RuntimeError::NotFound(format!("generation {number} is not retained")))
    }

    /// The file that owns an object already, else the given one: planning a file of another name moves nothing.
    fn owner_or(&self, key: &reddwarf_objects::ObjectKey, file: &str) -> String {
        let stored = self.registry.get(key).ok();
        let owner = stored.as_ref().and_then(|o| o.annotation("reddwarf.io/source"));
        owner.unwrap_or(file).to_owned()
    }

    fn sources(&self, status: &DirectoryStatus) -> Vec<types::SourceStatus> {
        self.layers
            .iter()
            .enumerate()
            .map(|(index, layer)| types::SourceStatus {
                path: layer.display().to_string(),
                complete: !status.incomplete_layers.contains(&index),
                message: layer_message(status, layer),
                scanned: status.scanned,
                files: status.files.iter().filter(|f| f.layer == index).map(file).collect(),
            })
            .collect()
    }

    fn pods(&self) -> Result<Vec<types::PodSummary>, RuntimeError> {
        let Some(kind) = kinds().by_group_resource("", "pods") else { return Ok(Vec::new()) };
        let list = self.registry.list(&ListQuery::all(kind)).map_err(internal)?;
        let now = self.registry.now();
        Ok(list.items.iter().map(|pod| pods::summary(kind, pod, now)).collect())
    }
}

fn layer_message(status: &DirectoryStatus, layer: &std::path::Path) -> String {
    let about = |d: &&reddwarf_config::Diagnostic| std::path::Path::new(&d.file).starts_with(layer);
    status.diagnostics.iter().filter(about).map(|d| d.one_line()).collect::<Vec<_>>().join("; ")
}

fn file(file: &FileStatus) -> types::FileStatus {
    let mut diagnostics: Vec<types::Diagnostic> = file.diagnostics.iter().map(diagnostic).collect();
    let plain = |severity, code: &str, what: String| types::Diagnostic {
        severity,
        code: code.to_owned(),
        file: file.path.clone(),
        line: 0,
        column: 0,
        what,
        why: String::new(),
        help: String::new(),
        rendered: String::new(),
    };
    for (key, why) in &file.refused {
        diagnostics.push(plain(types::Severity::Error, "RD1001", format!("{key}: {why}")));
    }
    for warning in &file.warnings {
        diagnostics.push(plain(types::Severity::Warning, "RD1002", warning.clone()));
    }
    types::FileStatus {
        path: file.path.clone(),
        verdict: match file.verdict {
            FileVerdict::Applied => types::FileVerdict::Applied,
            FileVerdict::Refused => types::FileVerdict::Invalid,
            FileVerdict::Partly => types::FileVerdict::Partial,
            FileVerdict::Masked(_) => types::FileVerdict::Masked,
        },
        objects: file.objects.iter().map(ToString::to_string).collect(),
        diagnostics,
    }
}

fn all_diagnostics(status: &DirectoryStatus) -> Vec<types::Diagnostic> {
    let mut all: Vec<types::Diagnostic> = status.diagnostics.iter().map(diagnostic).collect();
    all.extend(status.files.iter().flat_map(|f| file(f).diagnostics));
    all
}

fn stored_diagnostics(stored: &serde_json::Value) -> Vec<types::Diagnostic> {
    let text = |v: &serde_json::Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
    let number =
        |v: &serde_json::Value, key: &str| u32::try_from(v["position"][key].as_u64().unwrap_or(0)).unwrap_or(0);
    stored
        .as_array()
        .into_iter()
        .flatten()
        .map(|d| types::Diagnostic {
            severity: if d["severity"] == "error" { types::Severity::Error } else { types::Severity::Warning },
            code: text(d, "code"),
            file: text(d, "file"),
            line: number(d, "line"),
            column: number(d, "column"),
            what: text(d, "message"),
            why: text(d, "why"),
            help: text(d, "help"),
            rendered: String::new(),
        })
        .collect()
}

fn summary(record: &GenerationRecord, current: u64) -> types::GenerationSummary {
    let diagnostics = record.diagnostics.as_array();
    types::GenerationSummary {
        number: record.number,
        time: Some(record.time),
        files: record.files.len() as u64,
        objects: record.declared.len() as u64,
        errors: diagnostics.map(|d| d.iter().filter(|d| d["severity"] == "error").count() as u64).unwrap_or(0),
        message: record.note.clone(),
        current: record.number == current,
    }
}

fn object_diffs(old: &[Object], new: &[Object]) -> Vec<types::ObjectDiff> {
    let keyed = |objects: &[Object]| -> BTreeMap<String, Object> {
        objects.iter().filter_map(|o| Some((o.key(o.known_kind()?).to_string(), o.clone()))).collect()
    };
    let (old, new) = (keyed(old), keyed(new));
    let mut found = Vec::new();
    for key in old.keys().chain(new.keys().filter(|k| !old.contains_key(*k))) {
        let (action, changes) = match (old.get(key), new.get(key)) {
            (Some(before), Some(after)) => {
                let Some(kind) = after.known_kind() else { continue };
                let changes: Vec<_> = diff::diff(kind, before, after).iter().map(field_change).collect();
                if changes.is_empty() {
                    continue;
                }
                (types::PlanAction::Update, changes)
            }
            (Some(_), None) => (types::PlanAction::Remove, Vec::new()),
            _ => (types::PlanAction::Create, Vec::new()),
        };
        found.push(types::ObjectDiff { object: key.clone(), action, changes });
    }
    found
}

/// Objects of a pass that are not as they were.
fn changed_objects(report: &PassReport) -> Vec<types::AppliedObject> {
    let Some(applied) = &report.applied else { return Vec::new() };
    applied
        .objects
        .iter()
        .filter(|o| !matches!(o.verdict, Verdict::Unchanged))
        .map(|o| applied_object(o, String::new()))
        .collect()
}

/// A plan's line for an object itself; pods have lines of their own from the node.
fn object_step(object: &Applied, place: Option<&String>) -> Option<types::PlanStep> {
    let shown = applied_object(object, String::new());
    let pod = object.key.group.is_empty() && object.key.resource == "pods";
    let (action, what) = match &object.verdict {
        Verdict::Created => (types::PlanAction::Create, "create"),
        Verdict::Configured(_) => (types::PlanAction::Update, "change"),
        Verdict::Deleted => (types::PlanAction::Remove, "remove"),
        Verdict::Refused(_) | Verdict::Pending => (types::PlanAction::Blocked, "not applied"),
        Verdict::Unchanged => return None,
    };
    if pod && matches!(object.verdict, Verdict::Created) {
        return None;
    }
    Some(types::PlanStep {
        action,
        object: object.key.to_string(),
        what: what.to_owned(),
        reason: if shown.message.is_empty() { "the file says so".to_owned() } else { shown.message },
        source: place.cloned().unwrap_or_default(),
        changes: shown.changes,
        interruption_ms: 0,
    })
}

fn place(origin: &reddwarf_config::Origin) -> String {
    format!("{}:{}", origin.file(), origin.start().line)
}

fn failed(error: DirectoryError) -> RuntimeError {
    match error {
        DirectoryError::NoGeneration(_) => RuntimeError::NotFound(error.to_string()),
        DirectoryError::Closed => RuntimeError::Unavailable(error.to_string()),
        DirectoryError::Damaged { .. } | DirectoryError::Registry(_) | DirectoryError::Io { .. } => internal(error),
    }
}

fn internal(error: impl std::error::Error) -> RuntimeError {
    RuntimeError::Internal(chain(&error))
}
