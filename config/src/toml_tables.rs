//! TOML (<https://toml.io/en/v1.0.0>): one object per file, or several under `[[object]]`.

use crate::diagnostic::{Diagnostic, codes};
use crate::limits::Limits;
use crate::node::{Budget, Entry, Findings, Node, NodeValue};
use crate::source::LineIndex;
use serde_json::Number;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// The documents of a text, none after a syntax error.
pub(crate) fn parse(text: &str, limits: &Limits, findings: &mut Findings<'_>) -> Vec<Node> {
    let Some(root) = parse_tree(text, limits, findings) else { return Vec::new() };
    match root.value {
        NodeValue::Mapping(mut entries)
            if entries.len() == 1
                && entries[0].key == "object"
                && matches!(entries[0].value.value, NodeValue::Sequence(_)) =>
        {
            let items = match entries.remove(0).value.value {
                NodeValue::Sequence(items) => items,
                _ => Vec::new(),
            };
            if items.len() > limits.documents {
                findings.error(
                    codes::TOO_MANY_DOCUMENTS,
                    items[limits.documents].at,
                    format!("the file holds more than {} documents", limits.documents),
                    "a file has a limit so that one can't exhaust the daemon",
                    "split the file, or raise `manifest_documents` in reddwarfd.toml",
                );
                return Vec::new();
            }
            items
        }
        NodeValue::Mapping(entries) if entries.is_empty() => Vec::new(),
        value => vec![Node { at: root.at, value }],
    }
}

/// The whole text as one mapping; `None` after a syntax error. Also serves `reddwarfd.toml`.
pub(crate) fn parse_tree(text: &str, limits: &Limits, findings: &mut Findings<'_>) -> Option<Node> {
    let lines = LineIndex::new(text);
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            refuse(text, &lines, &error, findings);
            return None;
        }
    };
    let mut convert = Convert { lines, budget: Budget::new(limits), findings };
    let span = table.span();
    let mut root = Node { at: convert.lines.at(span.start, span.end), value: NodeValue::Null };
    root.value = NodeValue::Mapping(convert.table(table.into_inner(), 0)?);
    if let NodeValue::Mapping(entries) = &root.value
        && let Some(first) = entries.iter().min_by_key(|e| (e.at.line, e.at.column))
    {
        root.at = first.at;
    }
    Some(root)
}

fn refuse(text: &str, lines: &LineIndex<'_>, error: &toml::de::Error, findings: &mut Findings<'_>) {
    let span = error.span().unwrap_or(0..0);
    let at = lines.at(span.start, span.end);
    let message = error.message().trim().replace('\n', ", ");
    if message.contains("duplicate key") {
        let key = text.get(span.clone()).unwrap_or_default();
        let what = format!("key `{key}` is given twice");
        let (why, help) = ("only one of them can count", "remove one of them");
        let first = earlier_key(text, key, span.start).map(|s| lines.at(s.start, s.end));
        let source = findings.source;
        let diagnostic = match first {
            None => Diagnostic::error(codes::DUPLICATE_KEY, source, at, what, why, help),
            Some(first) => {
                let why = format!("the first is at {}, and {why}", first.position());
                Diagnostic::error(codes::DUPLICATE_KEY, source, at, what, why, help).related(
                    source,
                    first,
                    "first given here",
                )
            }
        };
        return findings.push(diagnostic);
    }
    let (code, why) = match message.contains("recursion limit") {
        true => (codes::TOO_DEEP, "no object needs that"),
        false => (codes::TOML_SYNTAX, "nothing of a file that can't be parsed is applied"),
    };
    let help = "compare it with https://toml.io/en/v1.0.0";
    findings.error(code, at, format!("the text is not TOML: {message}"), why, help);
}

/// The place of the one key of this name that stands before `end`; none when there are several.
fn earlier_key(text: &str, key: &str, end: usize) -> Option<Range<usize>> {
    fn search(table: &DeTable<'_>, key: &str, end: usize, found: &mut Vec<Range<usize>>) {
        for (name, value) in table {
            if name.get_ref() == key && name.span().start < end {
                found.push(name.span());
            }
            let items = value.get_ref().as_array().into_iter().flat_map(|a| a.iter());
            let tables = items.chain([value]).filter_map(|v| v.get_ref().as_table());
            tables.for_each(|t| search(t, key, end, found));
        }
    }
    let (table, _) = DeTable::parse_recoverable(text);
    let mut found = Vec::new();
    search(table.get_ref(), key.trim_matches(['"', '\'']), end, &mut found);
    (found.len() == 1).then(|| found.remove(0))
}

struct Convert<'t, 'f, 's> {
    lines: LineIndex<'t>,
    budget: Budget,
    findings: &'f mut Findings<'s>,
}

impl Convert<'_, '_, '_> {
    fn table(&mut self, table: DeTable<'_>, depth: usize) -> Option<Vec<Entry>> {
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table {
            let span = key.span();
            let at = self.lines.at(span.start, span.end);
            let value_span = value.span();
            let value = self.value(value.into_inner(), value_span, depth + 1)?;
            entries.push(Entry { key: key.into_inner().into_owned(), at, value });
        }
        entries.sort_by_key(|e| (e.at.line, e.at.column));
        Some(entries)
    }

    fn value(&mut self, value: DeValue<'_>, span: Range<usize>, depth: usize) -> Option<Node> {
        let at = self.lines.at(span.start, span.end);
        if !self.budget.take(at, self.findings) {
            return None;
        }
        if depth > self.budget.depth {
            self.budget.too_deep(at, self.findings);
            return None;
        }
        let value = match value {
            DeValue::String(text) => NodeValue::String(text.into_owned()),
            DeValue::Boolean(b) => NodeValue::Bool(b),
            DeValue::Datetime(time) => NodeValue::String(time.to_string()),
            DeValue::Integer(n) => {
                let signed = i64::from_str_radix(n.as_str(), n.radix()).ok().map(Number::from);
                let unsigned = || u64::from_str_radix(n.as_str(), n.radix()).ok().map(Number::from);
                NodeValue::Number(self.number(signed.or_else(unsigned), n.as_str(), at)?)
            }
            DeValue::Float(f) => {
                let number = f.as_str().parse::<f64>().ok().and_then(Number::from_f64);
                NodeValue::Number(self.number(number, f.as_str(), at)?)
            }
            DeValue::Array(items) => {
                let mut nodes = Vec::with_capacity(items.len());
                for item in items {
                    let span = item.span();
                    nodes.push(self.value(item.into_inner(), span, depth + 1)?);
                }
                NodeValue::Sequence(nodes)
            }
            DeValue::Table(table) => NodeValue::Mapping(self.table(table, depth)?),
        };
        Some(Node { at, value })
    }

    fn number(&mut self, number: Option<Number>, text: &str, at: crate::source::At) -> Option<Number> {
        if number.is_none() {
            self.findings.error(
                codes::BAD_NUMBER,
                at,
                format!("number `{text}` can't be represented"),
                "JSON, in which Kubernetes objects are kept, has neither infinities nor numbers this large",
                "write a smaller number, or put it in quotes if it is meant as text",
            );
        }
        number
    }
}
