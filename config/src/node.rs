//! The tree that the three parsers build: values with places, before they become JSON.

use crate::compact::shared;
use crate::diagnostic::{Diagnostic, Severity, codes};
use crate::source::{At, Source};
use serde_json::{Map, Number, Value};
use std::sync::Arc;

/// A value and where it is written.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: At,
    pub(crate) value: NodeValue,
}

#[derive(Clone, Debug)]
pub(crate) enum NodeValue {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A key, where it is written, and its value. Keys of a mapping are unique.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: At,
    pub(crate) value: Node,
}

impl NodeValue {
    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing (null)",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a text",
            Self::Sequence(_) => "a list",
            Self::Mapping(_) => "a mapping",
        }
    }
}

impl Node {
    pub(crate) fn field(&self, name: &str) -> Option<&Node> {
        match &self.value {
            NodeValue::Mapping(entries) => entries.iter().find(|e| e.key == name).map(|e| &e.value),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            NodeValue::String(text) => Some(text),
            _ => None,
        }
    }

    /// Parts it into the JSON value and the places of its keys and values.
    pub(crate) fn split(self) -> (Value, Spans) {
        let at = self.at;
        let leaf = |value| (value, Spans { at, children: Children::None });
        match self.value {
            NodeValue::Null => leaf(Value::Null),
            NodeValue::Bool(b) => leaf(Value::Bool(b)),
            NodeValue::Number(n) => leaf(Value::Number(n)),
            NodeValue::String(s) => leaf(Value::String(s)),
            NodeValue::Sequence(items) => {
                let (values, spans): (Vec<_>, Vec<_>) = items.into_iter().map(Node::split).unzip();
                (Value::Array(values), Spans { at, children: Children::Sequence(spans) })
            }
            NodeValue::Mapping(entries) => {
                let mut map = Map::new();
                let mut spans = Vec::with_capacity(entries.len());
                for entry in entries {
                    let (value, inner) = entry.value.split();
                    spans.push(KeySpans { key: shared(&entry.key), at: entry.at, spans: inner });
                    map.insert(entry.key, value);
                }
                (Value::Object(map), Spans { at, children: Children::Mapping(spans) })
            }
        }
    }
}

/// Places of a value and of everything in it.
#[derive(Clone, Debug)]
pub(crate) struct Spans {
    pub(crate) at: At,
    pub(crate) children: Children,
}

#[derive(Clone, Debug)]
pub(crate) enum Children {
    None,
    Sequence(Vec<Spans>),
    Mapping(Vec<KeySpans>),
}

#[derive(Clone, Debug)]
pub(crate) struct KeySpans {
    pub(crate) key: Arc<str>,
    pub(crate) at: At,
    pub(crate) spans: Spans,
}

impl Spans {
    /// The child under one segment of a JSON pointer, with its key's place if it has a key.
    pub(crate) fn child(&self, segment: &str) -> Option<(Option<At>, &Spans)> {
        match &self.children {
            Children::None => None,
            Children::Sequence(items) => Some((None, items.get(segment.parse::<usize>().ok()?)?)),
            Children::Mapping(entries) => entries.iter().find(|e| &*e.key == segment).map(|e| (Some(e.at), &e.spans)),
        }
    }

    /// Moves every place to another source of the document.
    pub(crate) fn set_source(&mut self, source: u32) {
        self.at.source = source;
        match &mut self.children {
            Children::None => {}
            Children::Sequence(items) => items.iter_mut().for_each(|i| i.set_source(source)),
            Children::Mapping(entries) => entries.iter_mut().for_each(|e| {
                e.at.source = source;
                e.spans.set_source(source);
            }),
        }
    }
}

/// A bounded list of findings about one file.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    pub(crate) source: &'a Source,
    pub(crate) list: Vec<Diagnostic>,
    /// A key that comes twice is warned of, and its last value counts.
    pub(crate) last_wins: bool,
    dropped: usize,
}

/// Findings of one file at most; nobody reads the hundred-and-first.
pub(crate) const FINDINGS_PER_FILE: usize = 100;

impl<'a> Findings<'a> {
    pub(crate) fn new(source: &'a Source) -> Self {
        Self { source, list: Vec::new(), last_wins: false, dropped: 0 }
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        if self.list.len() < FINDINGS_PER_FILE {
            self.list.push(diagnostic);
        } else {
            self.dropped += 1;
        }
    }

    pub(crate) fn error(&mut self, code: &'static str, at: At, what: impl Into<String>, why: &str, help: &str) {
        self.push(Diagnostic::error(code, self.source, at, what, why, help));
    }

    pub(crate) fn warning(&mut self, code: &'static str, at: At, what: impl Into<String>, why: &str, help: &str) {
        self.push(Diagnostic::warning(code, self.source, at, what, why, help));
    }

    /// The findings, and one about those that were too many.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        if self.dropped > 0 {
            self.list.push(Diagnostic::file(
                Severity::Error,
                codes::MORE_FINDINGS,
                &*self.source.name,
                format!("{} more findings in this file", self.dropped),
                format!("only the first {FINDINGS_PER_FILE} are shown"),
                "mend those and look again",
            ));
        }
        self.list
    }
}

/// Reports every key that comes twice, with both places, and keeps the first of each; or the last, where that counts.
pub(crate) fn refuse_duplicates(entries: &mut Vec<Entry>, findings: &mut Findings<'_>) {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by(|a, b| entries[*a].key.cmp(&entries[*b].key).then(a.cmp(b)));
    let mut doubled = Vec::new();
    let mut first = order.first().copied().unwrap_or(0);
    for &i in order.iter().skip(1) {
        if entries[i].key != entries[first].key {
            first = i;
            continue;
        }
        doubled.push((i, first));
    }
    if doubled.is_empty() {
        return;
    }
    doubled.sort_unstable();
    for (i, first) in &doubled {
        let (entry, first) = (&entries[*i], &entries[*first]);
        let source = findings.source;
        let what = format!("key `{}` is given twice", entry.key);
        let why = format!("the first is at {}, and only one of them can count", first.at.position());
        let help = "remove one of them";
        let said = match findings.last_wins {
            true => Diagnostic::warning(codes::DUPLICATE_KEY, source, entry.at, what, why, help),
            false => Diagnostic::error(codes::DUPLICATE_KEY, source, entry.at, what, why, help),
        };
        findings.push(said.related(source, first.at, "first given here"));
    }
    if findings.last_wins {
        for (i, first) in &doubled {
            let last = entries[*i].value.clone();
            entries[*first].value = last;
        }
    }
    let mut index = 0;
    entries.retain(|_| {
        index += 1;
        doubled.binary_search_by_key(&(index - 1), |(i, _)| *i).is_err()
    });
}

/// What is left of the limits while one file is parsed.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) nodes: usize,
    pub(crate) depth: usize,
    limit: usize,
}

impl Budget {
    pub(crate) fn new(limits: &crate::Limits) -> Self {
        Self { nodes: limits.nodes, depth: limits.depth, limit: limits.nodes }
    }

    /// Takes one node, or says that there are too many; false means stop.
    pub(crate) fn take(&mut self, at: At, findings: &mut Findings<'_>) -> bool {
        match self.nodes.checked_sub(1) {
            Some(left) => {
                self.nodes = left;
                true
            }
            None => {
                findings.error(
                    codes::TOO_MANY_NODES,
                    at,
                    format!("the file holds more than {} values", self.limit),
                    "a file has a limit so that one can't exhaust the daemon's memory",
                    "split the file, or raise `manifest_nodes` in reddwarfd.toml",
                );
                false
            }
        }
    }

    /// Says that nesting is too deep.
    pub(crate) fn too_deep(&self, at: At, findings: &mut Findings<'_>) {
        findings.error(
            codes::TOO_DEEP,
            at,
            format!("values are nested more than {} deep", self.depth),
            "no Kubernetes object needs that, and parsers can be exhausted by it",
            "flatten the value",
        );
    }
}
