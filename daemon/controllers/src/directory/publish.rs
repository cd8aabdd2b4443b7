//! Telling what a pass found: status, log lines and events. Said once, not at every look.

use super::pass::{Ownership, Pass};
use super::status::{DirectoryStatus, FileStatus, FileVerdict};
use super::{DirectoryLoop, rollback};
use reddwarf_config::{Diagnostic, Scan, Severity, SourceFile, Verdict as FileScan};
use reddwarf_objects::ObjectKey;
use reddwarf_registry::{AppliedSet, EventTarget, EventType, RegistryError, Verdict};
use std::collections::BTreeMap;
use std::sync::Arc;

impl DirectoryLoop {
    /// After a pass that was applied.
    pub(super) async fn publish_applied(&mut self, scan: &Scan, decision: &Pass, applied: &AppliedSet) {
        let mut status = self.base(scan, decision);
        let place: BTreeMap<String, usize> =
            status.files.iter().enumerate().map(|(i, f)| (f.path.clone(), i)).collect();
        for object in &applied.objects {
            let Some(index) = object.source.as_ref().and_then(|source| place.get(source)) else { continue };
            let file = &mut status.files[*index];
            file.warnings.extend(object.warnings.iter().map(|w| format!("{}: {w}", object.key)));
            match &object.verdict {
                Verdict::Refused(error) => {
                    file.verdict = FileVerdict::Partly;
                    file.refused.push((object.key.clone(), error.to_string()));
                }
                Verdict::Pending => {
                    file.warnings.push(format!("{}: waits until the one being deleted is gone", object.key));
                }
                Verdict::Created | Verdict::Configured(_) | Verdict::Unchanged | Verdict::Deleted => {}
            }
        }
        for object in &applied.objects {
            match &object.verdict {
                Verdict::Created => tracing::info!(object = %object.key, "declared"),
                Verdict::Configured(_) => tracing::info!(object = %object.key, "changed"),
                Verdict::Deleted => tracing::info!(object = %object.key, "no longer declared"),
                _ => {}
            }
        }
        self.announce(&status).await;
        self.publish.send_replace(Arc::new(status));
    }

    /// After a look that found nothing new.
    pub(super) fn publish_unchanged(&mut self, scan: &Scan) {
        let (now, problem) = (self.registry.now(), self.watch.problem().map(str::to_owned));
        self.publish.send_modify(|status| {
            let status = Arc::make_mut(status);
            status.passes += 1;
            status.scanned = Some(now);
            status.incomplete_layers.clone_from(&scan.incomplete_layers);
            status.failure = None;
            if let Some(problem) = problem
                && !status.notices.contains(&problem)
            {
                status.notices.push(problem);
            }
        });
    }

    /// While a rollback is in force and the directory is as it was then.
    pub(super) fn publish_held(&mut self, scan: &Scan) {
        let generation = self.hold.as_ref().map(|h| h.generation).unwrap_or_default();
        let (now, current) = (self.registry.now(), self.generation);
        let files = Findings::of(scan, &self.ownership).files(scan);
        self.publish.send_modify(|status| {
            let status = Arc::make_mut(status);
            status.passes += 1;
            status.generation = current;
            status.scanned = Some(now);
            status.incomplete_layers.clone_from(&scan.incomplete_layers);
            status.failure = None;
            status.files = files;
            status.notices = vec![rollback::notice(generation)];
        });
    }

    /// When the registry or the store failed.
    pub(super) fn publish_failure(&mut self, error: &RegistryError) {
        let text = format!("the manifests could not be applied: {error}; trying again");
        self.publish.send_modify(|status| {
            let status = Arc::make_mut(status);
            status.passes += 1;
            status.failure = Some(text);
        });
    }

    fn base(&self, scan: &Scan, decision: &Pass) -> DirectoryStatus {
        let mut findings = Findings::of(scan, &decision.ownership);
        let files = findings.files(scan);
        let mut status = DirectoryStatus {
            passes: self.publish.borrow().passes + 1,
            generation: self.generation,
            scanned: Some(self.registry.now()),
            incomplete_layers: scan.incomplete_layers.clone(),
            files,
            diagnostics: findings.of_no_file(),
            notices: Vec::new(),
            failure: None,
        };
        if !scan.is_complete() {
            status
                .notices
                .push("a manifest directory could not be read as a whole: nothing is deleted until it can be".into());
        }
        status.notices.extend(decision.held.as_ref().map(ToString::to_string));
        status.notices.extend(self.watch.problem().map(str::to_owned));
        status.notices.extend(self.hold.as_ref().map(|h| rollback::notice(h.generation)));
        status
    }

    /// Logs and records what was not said at the last pass.
    async fn announce(&mut self, status: &DirectoryStatus) {
        let mut lines = Vec::new();
        let findings = status.files.iter().flat_map(|f| &f.diagnostics).chain(&status.diagnostics);
        lines.extend(findings.filter(|d| d.severity == Severity::Error).map(Diagnostic::one_line));
        for file in &status.files {
            lines.extend(file.refused.iter().map(|(key, why)| format!("{}: {key}: {why}", file.path)));
        }
        lines.extend(status.notices.iter().cloned());
        let target = EventTarget::node(&self.options.node_name);
        for line in lines.iter().filter(|line| !self.said.contains(line)) {
            tracing::warn!("{line}");
            let recorded =
                self.registry.record_event(&target, EventType::Warning, "InvalidManifest", line, "directory").await;
            if let Err(error) = recorded {
                tracing::debug!(%error, "an event could not be recorded");
            }
        }
        self.said = lines;
    }
}

/// Findings and objects by file, gathered once: with thousands of files a search for each would be felt.
struct Findings {
    diagnostics: BTreeMap<String, Vec<Diagnostic>>,
    objects: BTreeMap<String, Vec<ObjectKey>>,
}

impl Findings {
    fn of(scan: &Scan, ownership: &Ownership) -> Self {
        let mut this = Self { diagnostics: BTreeMap::new(), objects: BTreeMap::new() };
        for finding in &scan.diagnostics {
            this.diagnostics.entry(finding.file.clone()).or_default().push(finding.clone());
        }
        for (key, source) in ownership {
            this.objects.entry(source.clone()).or_default().push(key.clone());
        }
        this
    }

    /// Every file with what is known of it; takes that out.
    fn files(&mut self, scan: &Scan) -> Vec<FileStatus> {
        scan.files.iter().map(|file| self.file(file)).collect()
    }

    fn file(&mut self, file: &SourceFile) -> FileStatus {
        let path = file.path.display().to_string();
        let verdict = match &file.verdict {
            FileScan::Valid { .. } | FileScan::DropIn { .. } => FileVerdict::Applied,
            FileScan::Refused => FileVerdict::Refused,
            FileScan::Masked { by } => FileVerdict::Masked(format!("masked by {}", by.display())),
            FileScan::Mask => FileVerdict::Masked("masks lower layers".into()),
        };
        FileStatus {
            layer: file.layer,
            verdict,
            objects: self.objects.remove(&path).unwrap_or_default(),
            diagnostics: self.diagnostics.remove(&path).unwrap_or_default(),
            refused: Vec::new(),
            warnings: Vec::new(),
            path,
        }
    }

    /// What is left after [`Self::files`].
    fn of_no_file(self) -> Vec<Diagnostic> {
        self.diagnostics.into_values().flatten().collect()
    }
}
