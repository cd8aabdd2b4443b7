//! What the directory loop last found, for `reddwarfctl status`, metrics and readiness.

use chrono::{DateTime, Utc};
use reddwarf_config::{Diagnostic, Severity};
use reddwarf_objects::ObjectKey;
use std::collections::BTreeSet;

/// The whole verdict over the directories.
#[derive(Clone, Debug, Default)]
pub struct DirectoryStatus {
    /// Passes finished; 0 before the first.
    pub passes: u64,
    /// The generation in force; 0 before the first.
    pub generation: u64,
    /// When the directories were last read.
    pub scanned: Option<DateTime<Utc>>,
    /// The layers that could not be read as a whole then, by index.
    pub incomplete_layers: BTreeSet<usize>,
    /// Every file with its verdict.
    pub files: Vec<FileStatus>,
    /// Findings that belong to no single file.
    pub diagnostics: Vec<Diagnostic>,
    /// What a person must know: a held removal, a rollback in force, a watch that does not work.
    pub notices: Vec<String>,
    /// The store or the registry failed; the pass is tried again.
    pub failure: Option<String>,
}

/// One file.
#[derive(Clone, Debug)]
pub struct FileStatus {
    /// As shown to users.
    pub path: String,
    /// The layer, lowest first.
    pub layer: usize,
    /// What became of it.
    pub verdict: FileVerdict,
    /// What it declares now, objects kept from an earlier state included.
    pub objects: Vec<ObjectKey>,
    /// Its findings.
    pub diagnostics: Vec<Diagnostic>,
    /// Objects of it that the registry refused, with the reason.
    pub refused: Vec<(ObjectKey, String)>,
    /// Accepted fields that have no effect in this version.
    pub warnings: Vec<String>,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileVerdict {
    /// All that it declares, or changes as a drop-in, is applied.
    Applied,
    /// It has errors: what it declared before stays.
    Refused,
    /// Some of its objects could not be applied.
    Partly,
    /// A higher layer stands in its place, or it masks a lower one; in words.
    Masked(String),
}

impl DirectoryStatus {
    /// Files whose content is not in force.
    pub fn invalid(&self) -> usize {
        self.files.iter().filter(|f| matches!(f.verdict, FileVerdict::Refused | FileVerdict::Partly)).count()
    }

    /// They were read, and everything that exists could be.
    pub fn is_complete(&self) -> bool {
        self.scanned.is_some() && self.incomplete_layers.is_empty()
    }

    /// Nothing needs a person.
    pub fn is_good(&self) -> bool {
        let findings = self.diagnostics.iter().any(|d| d.severity == Severity::Error);
        let files = self.is_complete() && self.invalid() == 0 && !findings;
        self.passes > 0 && files && self.notices.is_empty() && self.failure.is_none()
    }
}
