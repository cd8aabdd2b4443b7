//! What is wrong where, why, and how to mend it: one type for every refusal and warning of this crate.

pub(crate) mod codes;
mod render;
mod sarif;

pub use codes::{Code, CodeInfo};
pub use sarif::sarif;

use crate::source::{At, Source};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; everything is applied.
    Warning,
    /// What it concerns is not applied; the last good state stays.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A stretch of one line of a source text. Lines and columns count from 1, columns and length in characters
/// (Unicode scalar values), as compilers and editors do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Characters covered, cut at the end of the line; 0 for a point.
    pub length: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The line a diagnostic is about. Of a very long line only the part around the finding is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// The line without its end, with `…` where it was cut.
    pub text: String,
    /// The column of the finding in `text`, in characters from 1.
    pub column: u32,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Which rule.
    pub code: Code,
    /// The file as shown to users: its path as configured, or the name given to the parser.
    pub file: String,
    /// Where in the file, when it is about a place in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// What is wrong.
    pub message: String,
    /// Why it is refused.
    pub why: String,
    /// How to mend it.
    pub help: String,
    /// The line of `position`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_line: Option<Excerpt>,
    /// Other places that belong to it, for example the first of two declarations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
}

/// Another place that a [`Diagnostic`] points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Related {
    /// The file as shown to users.
    pub file: String,
    /// Where in the file.
    pub position: Position,
    /// What is there.
    pub label: String,
}

impl Diagnostic {
    /// A finding about a file as a whole.
    pub(crate) fn file(
        severity: Severity,
        code: &'static str,
        file: impl Into<String>,
        message: impl Into<String>,
        why: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code: Code::new(code),
            file: file.into(),
            position: None,
            message: message.into(),
            why: why.into(),
            help: help.into(),
            source_line: None,
            related: Vec::new(),
        }
    }

    /// An error at a place in a source.
    pub(crate) fn error(
        code: &'static str,
        source: &Source,
        at: At,
        message: impl Into<String>,
        why: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self::file(Severity::Error, code, &*source.name, message, why, help).at(source, at)
    }

    /// A warning at a place in a source.
    pub(crate) fn warning(
        code: &'static str,
        source: &Source,
        at: At,
        message: impl Into<String>,
        why: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self::file(Severity::Warning, code, &*source.name, message, why, help).at(source, at)
    }

    fn at(mut self, source: &Source, at: At) -> Self {
        self.position = Some(at.position());
        self.source_line = source.excerpt(at);
        self
    }

    pub(crate) fn related(mut self, source: &Source, at: At, label: impl Into<String>) -> Self {
        self.related.push(Related { file: source.name.to_string(), position: at.position(), label: label.into() });
        self
    }

    /// Whether it keeps what it concerns from being applied.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Whether it is about a key that is given twice.
    pub fn is_duplicate_key(&self) -> bool {
        self.code.as_str() == codes::DUPLICATE_KEY
    }

    /// `path:line:column: what, why, how to mend` on one line; `path: …` without a position. A warning says so
    /// before the text. Control characters of file names and contents are escaped.
    pub fn one_line(&self) -> String {
        render::one_line(self)
    }

    /// The rustc-like form: code, message, place, source line with a caret, reason and help, each line ended.
    /// `color` adds ANSI colours: pass it only for a terminal, and not when `NO_COLOR` is set.
    pub fn render(&self, color: bool) -> String {
        render::rustc_style(self, color)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.one_line())
    }
}
