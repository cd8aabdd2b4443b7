//! Documents with the position of every key and value.

use crate::diagnostic::{Diagnostic, Position, Severity, codes};
use crate::limits::Limits;
use crate::node::{Findings, Node, NodeValue, Spans};
pub use crate::source::Source;
use crate::source::{At, LineIndex};
use crate::{json, toml_tables, yaml};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// How a file is written, told from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `.yaml`, `.yml`: YAML 1.2 with the core schema (<https://yaml.org/spec/1.2.2/>).
    Yaml,
    /// `.json`: RFC 8259; several documents one after another, an array of them, or a `List`.
    Json,
    /// `.toml`: TOML 1; one object, or several under `[[object]]`.
    Toml,
}

impl Format {
    /// The format of a file name, `None` when its extension is not one of ours.
    pub fn of(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }
}

/// Where a document was written: its source (and those of its drop-ins), and a position for every key and value.
#[derive(Debug)]
pub struct Origin {
    pub(crate) sources: Vec<Arc<Source>>,
    pub(crate) spans: Spans,
    /// The number of the document in its file, from 0, a `List`'s items counted one by one.
    pub index: usize,
}

/// A place in a source.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The text it is in.
    pub source: &'a Arc<Source>,
    /// Where in the text.
    pub position: Position,
    pub(crate) at: At,
}

/// One document: its value and where it came from.
#[derive(Clone, Debug)]
pub struct Document {
    /// The document; always a JSON object.
    pub value: Value,
    /// Where it was written.
    pub origin: Arc<Origin>,
}

impl Origin {
    /// The file that declares the document, as shown to users.
    pub fn file(&self) -> &str {
        self.sources.first().map(|s| &*s.name).unwrap_or_default()
    }

    /// The file and every drop-in that changed the document, as shown to users.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|s| &*s.name)
    }

    /// Where the document starts.
    pub fn start(&self) -> Position {
        self.spans.at.position()
    }

    /// Where the value at a JSON pointer (RFC 6901, `/spec/containers/0/image`) is written.
    pub fn value_at(&self, pointer: &str) -> Option<Place<'_>> {
        self.walk(pointer).and_then(|(_, value)| self.place(value))
    }

    /// Where the key that ends a JSON pointer is written; sequence items have none and answer with their value.
    pub fn key_at(&self, pointer: &str) -> Option<Place<'_>> {
        self.walk(pointer).and_then(|(key, value)| self.place(key.unwrap_or(value)))
    }

    /// Where the nearest existing value above or at a JSON pointer is written: its key, or the document's start.
    pub fn nearest(&self, pointer: &str) -> Option<Place<'_>> {
        let mut pointer = pointer;
        loop {
            if let Some(place) = self.key_at(pointer) {
                return Some(place);
            }
            pointer = &pointer[..pointer.rfind('/')?];
        }
    }

    fn walk(&self, pointer: &str) -> Option<(Option<At>, At)> {
        let mut spans = &self.spans;
        let mut key = None;
        for segment in pointer.split('/').skip(1) {
            let segment = segment.replace("~1", "/").replace("~0", "~");
            (key, spans) = spans.child(&segment)?;
        }
        Some((key, spans.at))
    }

    pub(crate) fn place(&self, at: At) -> Option<Place<'_>> {
        let source = self.sources.get(at.source as usize)?;
        Some(Place { source, position: at.position(), at })
    }
}

/// Parses one file's bytes; the format is told from the name, which need not be a real path. Documents that are sound
/// are given even when others in the file are not; an error among the findings says that the file as a whole is to
/// be refused.
pub fn parse_file(name: &str, bytes: &[u8], limits: &Limits) -> (Vec<Document>, Vec<Diagnostic>) {
    parse_named(name, bytes, limits, false)
}

/// The same for the body of a request, where keys that come twice are not always refused: they are warnings
/// ([`Diagnostic::is_duplicate_key`]), and the last value counts.
pub fn parse_body(name: &str, bytes: &[u8], limits: &Limits) -> (Vec<Document>, Vec<Diagnostic>) {
    parse_named(name, bytes, limits, true)
}

fn parse_named(name: &str, bytes: &[u8], limits: &Limits, last_wins: bool) -> (Vec<Document>, Vec<Diagnostic>) {
    let refuse = |code, what: String, why: &str, help: &str| {
        (Vec::new(), vec![Diagnostic::file(Severity::Error, code, name, what, why, help)])
    };
    let Some(format) = Format::of(name) else {
        let help = "name it .yaml, .yml, .json or .toml";
        return refuse(codes::UNKNOWN_FORMAT, "the file's format is not known".into(), "its name doesn't tell", help);
    };
    if bytes.len() as u64 > limits.file_bytes {
        return (Vec::new(), vec![too_large(name, bytes.len() as u64, limits)]);
    }
    let source = match text_of(name, bytes) {
        Ok(source) => Arc::new(source),
        Err(diagnostic) => return (Vec::new(), vec![*diagnostic]),
    };
    parse_text(&source, format, limits, last_wins)
}

pub(crate) fn too_large(name: &str, bytes: u64, limits: &Limits) -> Diagnostic {
    Diagnostic::file(
        Severity::Error,
        codes::FILE_TOO_LARGE,
        name,
        format!("the file is {bytes} bytes large"),
        format!("files of more than {} bytes are not read", limits.file_bytes),
        "split it, or raise `manifest_file_bytes` in reddwarfd.toml",
    )
}

/// Parses a text.
pub(crate) fn parse_source(source: &Arc<Source>, format: Format, limits: &Limits) -> (Vec<Document>, Vec<Diagnostic>) {
    parse_text(source, format, limits, false)
}

fn parse_text(
    source: &Arc<Source>,
    format: Format,
    limits: &Limits,
    last_wins: bool,
) -> (Vec<Document>, Vec<Diagnostic>) {
    if source.text.trim().is_empty() {
        let empty = Diagnostic::file(
            Severity::Error,
            codes::EMPTY_FILE,
            &*source.name,
            "the file is empty",
            "that looks like a file that was cut short, so what it declared stays as it is",
            "write it again, delete it to delete what it declared, or make it a symlink to /dev/null to mask lower layers",
        );
        return (Vec::new(), vec![empty]);
    }
    // The parsers are ours or well tested, but what they read is anybody's: a fault in one of them costs a file,
    // never the daemon.
    let parsed = catch_unwind(AssertUnwindSafe(|| {
        let mut findings = Findings::new(source);
        findings.last_wins = last_wins;
        let roots = match format {
            Format::Yaml => yaml::parse(&source.text, limits, &mut findings),
            Format::Json => json::parse(&source.text, limits, &mut findings),
            Format::Toml => toml_tables::parse(&source.text, limits, &mut findings),
        };
        let nodes = expand(roots, limits, &mut findings);
        if nodes.is_empty() && findings.list.is_empty() {
            let at = At { source: 0, line: 1, column: 1, length: 0 };
            let help = "delete the file if that is meant for good";
            let why = "it holds only comments or empty documents, so nothing is declared by it";
            findings.warning(codes::NO_DOCUMENTS, at, "the file declares nothing", why, help);
        }
        (nodes, findings.finish())
    }));
    let Ok((nodes, diagnostics)) = parsed else {
        let failed = Diagnostic::file(
            Severity::Error,
            codes::PARSER_FAILED,
            &*source.name,
            "the parser failed on this file",
            "this is a fault in reddwarf, not yours",
            "report it with the file, and write the file differently meanwhile",
        );
        return (Vec::new(), vec![failed]);
    };
    let document = |(index, node): (usize, Node)| {
        let (value, spans) = node.split();
        Document { value, origin: Arc::new(Origin { sources: vec![source.clone()], spans, index }) }
    };
    (nodes.into_iter().enumerate().map(document).collect(), diagnostics)
}

/// Bytes to text: UTF-8 without NUL, a byte order mark taken off.
pub(crate) fn text_of(name: &str, bytes: &[u8]) -> Result<Source, Box<Diagnostic>> {
    let source = |text: &str| Source { name: name.into(), text: text.strip_prefix('\u{FEFF}').unwrap_or(text).into() };
    let refuse = |code, valid: &[u8], what: String, why: &str, help: &str| {
        let text = String::from_utf8_lossy(valid);
        let at = LineIndex::new(text.strip_prefix('\u{FEFF}').unwrap_or(&text)).at(text.len(), text.len());
        Box::new(Diagnostic::error(code, &source(&text), at, what, why, help))
    };
    if matches!(bytes, [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..]) {
        let (what, why) = ("the file is UTF-16".to_owned(), "manifests are UTF-8");
        return Err(refuse(codes::NOT_UTF8, &[], what, why, "save it as UTF-8"));
    }
    if let Some(offset) = bytes.iter().position(|b| *b == 0) {
        let what = format!("a NUL byte stands at byte {offset}");
        let (why, help) = ("manifests are text", "remove it; the file may have been cut or is not a manifest");
        return Err(refuse(codes::NUL_BYTE, &bytes[..offset], what, why, help));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(source(text)),
        Err(error) => {
            let offset = error.valid_up_to();
            let what = format!("byte {offset} (0x{:02X}) is not UTF-8", bytes.get(offset).copied().unwrap_or(0));
            Err(refuse(codes::NOT_UTF8, &bytes[..offset], what, "manifests are UTF-8", "save the file as UTF-8"))
        }
    }
}

/// Takes `v1 List`s apart, leaves out empty documents, and refuses what is not an object.
fn expand(roots: Vec<Node>, limits: &Limits, findings: &mut Findings<'_>) -> Vec<Node> {
    let mut objects = Vec::new();
    let mut left: Vec<Node> = roots.into_iter().rev().collect();
    while let Some(node) = left.pop() {
        match node.value {
            NodeValue::Null => {}
            NodeValue::Mapping(_) if is_list(&node) => match take_items(node, findings) {
                Some(items) => left.extend(items.into_iter().rev()),
                None => continue,
            },
            NodeValue::Mapping(_) if objects.len() < limits.documents => objects.push(node),
            NodeValue::Mapping(_) => {
                findings.error(
                    codes::TOO_MANY_DOCUMENTS,
                    node.at,
                    format!("the file holds more than {} documents", limits.documents),
                    "a file has a limit so that one can't exhaust the daemon",
                    "split the file, or raise `manifest_documents` in reddwarfd.toml",
                );
                break;
            }
            ref other => findings.error(
                codes::NOT_AN_OBJECT,
                node.at,
                format!("a document is {}", other.kind()),
                "a document is a Kubernetes object: a mapping with apiVersion, kind and metadata",
                "write an object, and put several in documents of their own (`---`) or in a List",
            ),
        }
    }
    objects
}

fn is_list(node: &Node) -> bool {
    let text = |name| node.field(name).and_then(Node::text);
    text("kind") == Some("List") && text("apiVersion").is_none_or(|v| v == "v1")
}

fn take_items(node: Node, findings: &mut Findings<'_>) -> Option<Vec<Node>> {
    let NodeValue::Mapping(entries) = node.value else { return None };
    let items = entries.into_iter().find(|e| e.key == "items").map(|e| e.value);
    match items {
        Some(Node { value: NodeValue::Sequence(items), .. }) => Some(items),
        Some(Node { value: NodeValue::Null, .. }) => Some(Vec::new()),
        other => {
            let at = other.as_ref().map_or(node.at, |n| n.at);
            let what = match &other {
                Some(n) => format!("a List's `items` is {}", n.value.kind()),
                None => "a List has no `items`".to_owned(),
            };
            findings.error(codes::BAD_LIST, at, what, "`items` lists the objects", "write the objects as a list");
            None
        }
    }
}
