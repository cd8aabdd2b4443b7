//! JSON by RFC 8259, strictly: no comments, no trailing commas, no duplicate keys. Several values may follow one
//! another, as `kubectl` accepts them.

use crate::diagnostic::codes;
use crate::limits::Limits;
use crate::node::{Budget, Entry, Findings, Node, NodeValue, refuse_duplicates};
use crate::source::{At, LineIndex};
use serde_json::Number;

/// The values of a text, an array's items one by one; those before a syntax error are given.
pub(crate) fn parse(text: &str, limits: &Limits, findings: &mut Findings<'_>) -> Vec<Node> {
    let mut parser =
        Json { text, bytes: text.as_bytes(), offset: 0, lines: LineIndex::new(text), budget: Budget::new(limits) };
    let mut documents = Vec::new();
    loop {
        parser.blank();
        if parser.offset >= parser.bytes.len() {
            return documents;
        }
        if documents.len() >= limits.documents {
            findings.error(
                codes::TOO_MANY_DOCUMENTS,
                parser.here(1),
                format!("the file holds more than {} documents", limits.documents),
                "a file has a limit so that one can't exhaust the daemon",
                "split the file, or raise `manifest_documents` in reddwarfd.toml",
            );
            return documents;
        }
        match parser.value(0, findings) {
            Some(Node { value: NodeValue::Sequence(items), .. }) => documents.extend(items),
            Some(node) => documents.push(node),
            None => return documents,
        }
    }
}

struct Json<'a> {
    text: &'a str,
    bytes: &'a [u8],
    offset: usize,
    lines: LineIndex<'a>,
    budget: Budget,
}

impl Json<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.offset).copied()
    }

    fn blank(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.offset += 1;
        }
    }

    fn here(&self, length: usize) -> At {
        self.lines.at(self.offset, (self.offset + length).min(self.bytes.len()))
    }

    /// What stands at the offset, for messages.
    fn found(&self) -> String {
        match self.text.get(self.offset..).and_then(|rest| rest.chars().next()) {
            Some(c) => format!("`{c}`"),
            None => "the end of the file".to_owned(),
        }
    }

    fn fail<T>(&self, findings: &mut Findings<'_>, what: String, why: &str, help: &str) -> Option<T> {
        findings.error(codes::JSON_SYNTAX, self.here(1), what, why, help);
        None
    }

    /// One value; `None` after a syntax error, which is among the findings.
    fn value(&mut self, depth: usize, findings: &mut Findings<'_>) -> Option<Node> {
        let start = self.offset;
        let at = self.here(1);
        if !self.budget.take(at, findings) {
            return None;
        }
        if depth >= self.budget.depth && matches!(self.peek(), Some(b'[' | b'{')) {
            self.budget.too_deep(at, findings);
            return None;
        }
        let value = match self.peek() {
            Some(b'{') => NodeValue::Mapping(self.object(depth, findings)?),
            Some(b'[') => NodeValue::Sequence(self.array(depth, findings)?),
            Some(b'"') => NodeValue::String(self.string(findings)?),
            Some(b'-' | b'0'..=b'9') => NodeValue::Number(self.number(findings)?),
            Some(b'a'..=b'z' | b'A'..=b'Z') => self.word(findings)?,
            Some(b'\'') => {
                return self.fail(
                    findings,
                    "a text stands in single quotes".into(),
                    "JSON texts stand in double quotes",
                    "write \" instead of '",
                );
            }
            Some(b'/' | b'#') => {
                return self.fail(
                    findings,
                    "a comment stands here".into(),
                    "JSON has no comments",
                    "remove it, or write the file as YAML",
                );
            }
            _ => {
                let what = format!("a value was expected, found {}", self.found());
                return self.fail(findings, what, "JSON needs a value here", "add the value, or remove a stray comma");
            }
        };
        Some(Node { at: self.lines.at(start, self.offset), value })
    }

    fn object(&mut self, depth: usize, findings: &mut Findings<'_>) -> Option<Vec<Entry>> {
        self.offset += 1;
        let mut entries = Vec::new();
        loop {
            self.blank();
            match self.peek() {
                Some(b'}') if entries.is_empty() => break,
                Some(b'"') => {}
                Some(b'}') => {
                    return self.fail(
                        findings,
                        "a comma stands before `}`".into(),
                        "JSON allows no trailing comma",
                        "remove the comma",
                    );
                }
                _ => {
                    let what = format!("a key in double quotes was expected, found {}", self.found());
                    return self.fail(findings, what, "JSON keys are texts", "put the key in double quotes");
                }
            }
            let start = self.offset;
            let key = self.string(findings)?;
            let at = self.lines.at(start, self.offset);
            self.blank();
            if self.peek() != Some(b':') {
                let what = format!("`:` was expected after a key, found {}", self.found());
                return self.fail(findings, what, "JSON members are `\"key\": value`", "add the `:`");
            }
            self.offset += 1;
            self.blank();
            let value = self.value(depth + 1, findings)?;
            entries.push(Entry { key, at, value });
            if self.ends(b'}', findings)? {
                break;
            }
        }
        self.offset += usize::from(self.peek() == Some(b'}') && entries.is_empty());
        refuse_duplicates(&mut entries, findings);
        Some(entries)
    }

    fn array(&mut self, depth: usize, findings: &mut Findings<'_>) -> Option<Vec<Node>> {
        self.offset += 1;
        let mut items = Vec::new();
        self.blank();
        if self.peek() == Some(b']') {
            self.offset += 1;
            return Some(items);
        }
        loop {
            self.blank();
            if self.peek() == Some(b']') {
                return self.fail(
                    findings,
                    "a comma stands before `]`".into(),
                    "JSON allows no trailing comma",
                    "remove the comma",
                );
            }
            items.push(self.value(depth + 1, findings)?);
            if self.ends(b']', findings)? {
                return Some(items);
            }
        }
    }

    /// Takes `,` (false) or the closing bracket (true) after an item.
    fn ends(&mut self, close: u8, findings: &mut Findings<'_>) -> Option<bool> {
        self.blank();
        match self.peek() {
            Some(b',') => {
                self.offset += 1;
                Some(false)
            }
            Some(byte) if byte == close => {
                self.offset += 1;
                Some(true)
            }
            _ => {
                let close = char::from(close);
                let what = format!("`,` or `{close}` was expected, found {}", self.found());
                self.fail(findings, what, "a value is followed by one of them", "add it")
            }
        }
    }

    fn word(&mut self, findings: &mut Findings<'_>) -> Option<NodeValue> {
        let rest = &self.text[self.offset..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let value = match &rest[..end] {
            "true" => NodeValue::Bool(true),
            "false" => NodeValue::Bool(false),
            "null" => NodeValue::Null,
            other => {
                let what = format!("`{other}` is not a value");
                return self.fail(
                    findings,
                    what,
                    "JSON's words are true, false and null",
                    "put a text in double quotes",
                );
            }
        };
        self.offset += end;
        Some(value)
    }

    fn number(&mut self, findings: &mut Findings<'_>) -> Option<Number> {
        let rest = &self.text[self.offset..];
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))).unwrap_or(rest.len());
        let text = &rest[..end];
        // serde_json holds to RFC 8259's grammar, std reads fractions to the last digit; only the range is left to us.
        let fraction = text.contains(['.', 'e', 'E']);
        let exact = |n: Number| if fraction { text.parse().ok().and_then(Number::from_f64).unwrap_or(n) } else { n };
        match serde_json::from_str::<Number>(text) {
            Ok(number) if !number.is_f64() || fraction => {
                self.offset += end;
                Some(exact(number))
            }
            result => {
                let (code, why) = match result {
                    Ok(_) => (codes::BAD_NUMBER, "it is larger than 64 bits hold"),
                    Err(e) if e.to_string().contains("out of range") => (codes::BAD_NUMBER, "it is too large"),
                    Err(_) => (codes::JSON_SYNTAX, "JSON numbers look like -12, 0.5 or 1e9"),
                };
                let help = "mend the number, or put it in double quotes if it is meant as text";
                findings.error(code, self.here(end), format!("`{text}` is not a usable number"), why, help);
                None
            }
        }
    }

    fn string(&mut self, findings: &mut Findings<'_>) -> Option<String> {
        self.offset += 1;
        let mut out = String::new();
        loop {
            let start = self.offset;
            while let Some(byte) = self.peek() {
                if byte == b'"' || byte == b'\\' || byte < 0x20 {
                    break;
                }
                self.offset += 1;
            }
            out.push_str(&self.text[start..self.offset]);
            match self.peek() {
                Some(b'"') => {
                    self.offset += 1;
                    return Some(out);
                }
                Some(b'\\') => out.push(self.escape(findings)?),
                Some(b'\n' | b'\r') | None => {
                    return self.fail(
                        findings,
                        "a text is not closed".into(),
                        "a JSON text ends on its line",
                        "add the closing quote; a line break is written \\n",
                    );
                }
                Some(byte) => {
                    let what = format!("a control character (U+{byte:04X}) stands in a text");
                    return self.fail(findings, what, "JSON allows it only as an escape", "write it as \\t or \\u….");
                }
            }
        }
    }

    fn escape(&mut self, findings: &mut Findings<'_>) -> Option<char> {
        let c = match self.bytes.get(self.offset + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(findings),
            _ => {
                return self.fail(
                    findings,
                    "an escape is not known".into(),
                    "JSON knows \\\" \\\\ \\/ \\b \\f \\n \\r \\t and \\u",
                    "write \\\\ for a backslash",
                );
            }
        };
        self.offset += 2;
        Some(c)
    }

    fn unicode(&mut self, findings: &mut Findings<'_>) -> Option<char> {
        let unit = |offset: usize| {
            let digits = self.bytes.get(offset..offset + 4)?;
            let text = std::str::from_utf8(digits).ok().filter(|t| t.bytes().all(|b| b.is_ascii_hexdigit()))?;
            u16::from_str_radix(text, 16).ok()
        };
        let first = unit(self.offset + 2);
        let second = match first {
            Some(0xD800..=0xDBFF) if self.bytes.get(self.offset + 6..self.offset + 8) == Some(b"\\u") => {
                unit(self.offset + 8)
            }
            _ => None,
        };
        let units: Vec<u16> = first.into_iter().chain(second).collect();
        match char::decode_utf16(units.iter().copied()).next() {
            Some(Ok('\0')) | Some(Err(_)) | None => self.fail(
                findings,
                "an escape is not a character".into(),
                "\\u takes four hexadecimal digits, a pair of them above U+FFFF, and not 0000",
                "write the character itself",
            ),
            Some(Ok(c)) => {
                self.offset += 6 * c.len_utf16();
                Some(c)
            }
        }
    }
}
