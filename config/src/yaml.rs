//! YAML 1.2.2 with the core schema, from saphyr-parser's events, as far as manifests need it.
//!
//! Differences to plain YAML 1.2, for files that were written for kubectl (go-yaml): `0644` is octal; `<<` merges;
//! `yes`, `no`, `on`, `off` stay texts (the check warns where a boolean belongs).

use crate::diagnostic::codes;
use crate::limits::Limits;
use crate::node::{Budget, Entry, Findings, Node, NodeValue, refuse_duplicates};
use crate::source::At;
use crate::{yaml_errors, yaml_scalar};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};
use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

/// The documents of a text; those before a syntax error are given.
pub(crate) fn parse(text: &str, limits: &Limits, findings: &mut Findings<'_>) -> Vec<Node> {
    let mut builder = Builder {
        findings,
        budget: Budget::new(limits),
        documents: Vec::new(),
        limits: *limits,
        stack: Vec::new(),
        anchors: HashMap::new(),
        lines: LineLengths::new(text),
    };
    let mut parser = Parser::new_from_str(text);
    builder.run(&mut parser);
    builder.documents
}

/// Stops the parse; the reason is among the findings.
struct Stop;

struct Builder<'t, 'f, 's> {
    findings: &'f mut Findings<'s>,
    budget: Budget,
    limits: Limits,
    documents: Vec<Node>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Rc<Anchored>>,
    lines: LineLengths<'t>,
}

struct Anchored {
    node: Node,
    size: usize,
    height: usize,
}

/// A collection that is not closed yet.
struct Frame {
    at: At,
    anchor: usize,
    open: Open,
    /// Nodes in it, itself included.
    size: usize,
    height: usize,
}

enum Open {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, key: Option<(String, At)>, merges: Vec<Node> },
}

/// The text of a merge key (<https://yaml.org/type/merge.html>), as a plain scalar.
const MERGE: &str = "<<";

impl<'t> Builder<'t, '_, '_> {
    fn run(&mut self, parser: &mut Parser<'t, StrInput<'t>>) {
        while let Some(event) = parser.next_event() {
            let step = match event {
                Ok((event, span)) => self.event(event, span),
                Err(error) => {
                    let at = self.point(error.marker());
                    self.findings.push(yaml_errors::explain(self.findings.source, at, error.info()));
                    Err(Stop)
                }
            };
            if step.is_err() {
                return;
            }
        }
    }

    fn event(&mut self, event: Event<'t>, span: Span) -> Result<(), Stop> {
        let at = self.at(span);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                if self.documents.len() < self.limits.documents {
                    return Ok(());
                }
                self.findings.error(
                    codes::TOO_MANY_DOCUMENTS,
                    at,
                    format!("the file holds more than {} documents", self.limits.documents),
                    "a file has a limit so that one can't exhaust the daemon",
                    "split the file, or raise `manifest_documents` in reddwarfd.toml",
                );
                Err(Stop)
            }
            Event::Scalar(text, style, anchor, tag) => self.scalar(text, style, anchor, tag.as_deref(), at),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::SequenceStart(anchor, tag) => self.open(at, anchor, tag.as_deref(), "seq"),
            Event::MappingStart(anchor, tag) => self.open(at, anchor, tag.as_deref(), "map"),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    fn scalar(
        &mut self,
        text: Cow<'t, str>,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        at: At,
    ) -> Result<(), Stop> {
        self.take(at)?;
        if self.expects_key() {
            return self.key(text, style, tag, anchor, at);
        }
        let key = match self.stack.last().map(|f| &f.open) {
            Some(Open::Mapping { key: Some((key, _)), .. }) => key.as_str(),
            _ => "",
        };
        let value = yaml_scalar::resolve(text, style, tag, key, at, self.findings).ok_or(Stop)?;
        self.complete(Node { at, value }, anchor, 1, 0)
    }

    /// A scalar in the place of a key: the text counts, whatever type it would have as a value, as for kubectl.
    fn key(
        &mut self,
        text: Cow<'t, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        anchor: usize,
        at: At,
    ) -> Result<(), Stop> {
        let merge = style == ScalarStyle::Plain && text == MERGE;
        let null =
            style == ScalarStyle::Plain && tag.is_none() && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
        if null {
            return self.bad_key(at, "an empty key");
        }
        if anchor != 0 {
            let node = Node { at, value: NodeValue::String(text.clone().into_owned()) };
            self.anchors.insert(anchor, Rc::new(Anchored { node, size: 1, height: 0 }));
        }
        if let Some(Frame { open: Open::Mapping { key, .. }, .. }) = self.stack.last_mut() {
            // A merge key is told from a quoted "<<" by a NUL, which no text can hold.
            *key = Some((if merge { "\0<<".into() } else { text.into_owned() }, at));
        }
        Ok(())
    }

    fn bad_key(&mut self, at: At, what: &str) -> Result<(), Stop> {
        self.findings.error(
            codes::BAD_KEY,
            at,
            format!("{what} can't be a key"),
            "an object's keys are texts",
            "write a text, in quotes if need be",
        );
        Err(Stop)
    }

    fn alias(&mut self, anchor: usize, at: At) -> Result<(), Stop> {
        let Some(anchored) = self.anchors.get(&anchor).cloned() else {
            self.findings.error(
                codes::YAML_SYNTAX,
                at,
                "an alias stands inside the value that it names, or names one of another document",
                "it can only repeat a value that is complete, in the same document",
                "write the value out",
            );
            return Err(Stop);
        };
        let Some(left) = self.budget.nodes.checked_sub(anchored.size) else {
            self.findings.error(
                codes::ALIAS_BOMB,
                at,
                format!("aliases expand to more than {} values", self.limits.nodes),
                "a small file of nested aliases could exhaust the daemon's memory (an \"alias bomb\")",
                "write the values out, or nest fewer aliases",
            );
            return Err(Stop);
        };
        if self.stack.len() + anchored.height > self.limits.depth {
            self.budget.too_deep(at, self.findings);
            return Err(Stop);
        }
        self.budget.nodes = left;
        if self.expects_key() {
            return match anchored.node.text() {
                Some(text) => self.key(Cow::Owned(text.to_owned()), ScalarStyle::DoubleQuoted, None, 0, at),
                None => self.bad_key(at, "an alias of something other than a text"),
            };
        }
        self.complete(anchored.node.clone(), 0, anchored.size, anchored.height)
    }

    fn open(&mut self, at: At, anchor: usize, tag: Option<&Tag>, core: &str) -> Result<(), Stop> {
        self.take(at)?;
        if self.expects_key() {
            return self.bad_key(at, if core == "seq" { "a list" } else { "a mapping" });
        }
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && tag.suffix == core)
        {
            yaml_scalar::unknown_tag(tag, at, self.findings);
            return Err(Stop);
        }
        if self.stack.len() >= self.limits.depth {
            self.budget.too_deep(at, self.findings);
            return Err(Stop);
        }
        let open = match core {
            "seq" => Open::Sequence(Vec::new()),
            _ => Open::Mapping { entries: Vec::new(), key: None, merges: Vec::new() },
        };
        self.stack.push(Frame { at, anchor, open, size: 1, height: 1 });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Stop> {
        let Some(frame) = self.stack.pop() else { return Err(Stop) };
        let mut at = frame.at;
        let value = match frame.open {
            Open::Sequence(items) => {
                if at.length == 0 {
                    at.length = 1;
                }
                NodeValue::Sequence(items)
            }
            Open::Mapping { mut entries, merges, .. } => {
                if let (0, Some(first)) = (at.length, entries.first()) {
                    at = first.at;
                }
                refuse_duplicates(&mut entries, self.findings);
                merge(&mut entries, merges);
                NodeValue::Mapping(entries)
            }
        };
        self.complete(Node { at, value }, frame.anchor, frame.size, frame.height)
    }

    /// Puts a complete value where it belongs.
    fn complete(&mut self, node: Node, anchor: usize, size: usize, height: usize) -> Result<(), Stop> {
        if anchor != 0 {
            // The copy that aliases are made from costs memory as well.
            self.budget.nodes = self.budget.nodes.saturating_sub(size);
            self.anchors.insert(anchor, Rc::new(Anchored { node: node.clone(), size, height }));
        }
        let Some(frame) = self.stack.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        frame.size += size;
        frame.height = frame.height.max(height + 1);
        match &mut frame.open {
            Open::Sequence(items) => items.push(node),
            Open::Mapping { entries, key, merges } => match key.take() {
                Some((key, at)) if key == "\0<<" => match mappings(node) {
                    Some(nodes) => merges.extend(nodes),
                    None => self.findings.error(
                        codes::BAD_MERGE,
                        at,
                        "the merge key `<<` has no mapping to merge",
                        "it takes an alias of a mapping, or a list of such aliases",
                        "write `<<: *name`, or quote the key if a field is really named so",
                    ),
                },
                Some((key, at)) => entries.push(Entry { key, at, value: node }),
                None => return Err(Stop),
            },
        }
        Ok(())
    }

    fn expects_key(&self) -> bool {
        matches!(self.stack.last(), Some(Frame { open: Open::Mapping { key: None, .. }, .. }))
    }

    fn take(&mut self, at: At) -> Result<(), Stop> {
        if self.budget.take(at, self.findings) { Ok(()) } else { Err(Stop) }
    }

    fn at(&mut self, span: Span) -> At {
        let mut at = self.point(&span.start);
        at.length = if span.end.line() == span.start.line() {
            span.len() as u32
        } else {
            self.lines.characters_from(span.start.line(), span.start.col())
        };
        at
    }

    fn point(&self, mark: &Marker) -> At {
        At { source: 0, line: mark.line().max(1) as u32, column: mark.col() as u32 + 1, length: 0 }
    }
}

/// The mappings that a merge key's value names.
fn mappings(node: Node) -> Option<Vec<Node>> {
    match node.value {
        NodeValue::Mapping(_) => Some(vec![node]),
        NodeValue::Sequence(items) => items.iter().all(|i| matches!(i.value, NodeValue::Mapping(_))).then_some(items),
        _ => None,
    }
}

/// Adds merged keys that the mapping does not give itself; of several merged mappings the first wins.
fn merge(entries: &mut Vec<Entry>, merges: Vec<Node>) {
    let mut known: std::collections::HashSet<String> = match merges.is_empty() {
        true => return,
        false => entries.iter().map(|e| e.key.clone()).collect(),
    };
    for node in merges {
        let NodeValue::Mapping(merged) = node.value else { continue };
        for entry in merged {
            if known.insert(entry.key.clone()) {
                entries.push(entry);
            }
        }
    }
}

/// Finds how much of a line is left, going through the text once.
struct LineLengths<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> LineLengths<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text, line: 1 }
    }

    /// Characters from column `column` (from 0) of `line` to its end; events come in order, so lines only grow.
    fn characters_from(&mut self, line: usize, column: usize) -> u32 {
        while self.line < line {
            let Some(end) = self.rest.find(['\n', '\r']) else { return 0 };
            let width = if self.rest[end..].starts_with("\r\n") { 2 } else { 1 };
            self.rest = &self.rest[end + width..];
            self.line += 1;
        }
        let end = self.rest.find(['\n', '\r']).unwrap_or(self.rest.len());
        let characters = self.rest[..end].trim_end_matches([' ', '\t']).chars().count();
        characters.saturating_sub(column) as u32
    }
}
