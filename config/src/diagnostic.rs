//! What is wrong where, why, and how to mend it: one type for every refusal and warning of this crate.

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

/// A stable code, `RD0001` and up; the table is [`Code::all`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Code(pub(crate) &'static str);

impl Code {
    /// The code as text, for example `RD0012`.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
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

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Which rule.
    pub code: Code,
    /// The file as shown to users: its path as configured, or the name given to the parser.
    pub file: String,
    /// Where in the file, when it is about a place in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// What is wrong.
    pub message: String,
    /// Why it is refused.
    pub why: String,
    /// How to mend it.
    pub help: String,
    /// The line of `position`, without its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_line: Option<String>,
    /// Other places that belong to it, for example the first of two declarations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
}

/// Another place that a [`Diagnostic`] points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    /// `path:line:column: what, why, how to mend` on one line; `path: …` without a position.
    pub fn one_line(&self) -> String {
        let place = self.position.map(|p| format!(":{}:{}", p.line, p.column)).unwrap_or_default();
        format!("{}{place}: {}, {}, {}", self.file, self.message, self.why, self.help)
    }

    /// The rustc-like form with source line and caret, ending in a line break; `color` adds ANSI colours.
    pub fn render(&self, color: bool) -> String {
        let _ = color;
        self.one_line()
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.one_line())
    }
}
