//! Source texts and places in them.

use crate::diagnostic::{Excerpt, Position};
use std::sync::Arc;

/// A source text and the name under which users know it.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// The file as shown to users.
    pub name: Arc<str>,
    /// The text, without a byte order mark.
    pub text: Arc<str>,
}

/// A [`Position`] in one of the sources of a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct At {
    /// Index into the document's sources.
    pub(crate) source: u32,
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) length: u32,
}

impl At {
    pub(crate) fn position(self) -> Position {
        Position { line: self.line, column: self.column, length: self.length }
    }
}

/// Of a line longer than this only the part around the finding is shown, so that a finding stays small.
const EXCERPT: usize = 200;

impl Source {
    /// The line of `at`.
    pub(crate) fn excerpt(&self, at: At) -> Option<Excerpt> {
        let line = lines(&self.text).nth(at.line.checked_sub(1)? as usize)?;
        let column = at.column.max(1);
        if self.holds_a_secret() {
            let text = masked(line);
            let last = text.chars().count() as u32;
            return Some(Excerpt { text, column: column.min(last.max(1)) });
        }
        if line.len() <= EXCERPT {
            return Some(Excerpt { text: line.to_owned(), column });
        }
        let skip = (column as usize - 1).saturating_sub(EXCERPT / 2);
        let mut rest = line.chars().skip(skip);
        let mut text: String = if skip > 0 { "…".into() } else { String::new() };
        text.extend(rest.by_ref().take(EXCERPT));
        if rest.next().is_some() {
            text.push('…');
        }
        let column = if skip > 0 { column - skip as u32 + 1 } else { column };
        Some(Excerpt { text, column })
    }
}

impl Source {
    /// Whether a Secret is declared here, as far as a text that may not even parse can tell.
    fn holds_a_secret(&self) -> bool {
        self.text.contains("Secret")
    }
}

/// A line of a file that holds a Secret: its key is shown, never what follows.
fn masked(line: &str) -> String {
    let Some(end) = line.find([':', '=']) else { return "<redacted>".to_owned() };
    let (key, rest) = line.split_at(end);
    let mut rest = rest.chars();
    let sign = rest.next().unwrap_or(':');
    match rest.next() {
        None | Some(' ' | '\t') if key.chars().all(is_key) => format!("{key}{sign} <redacted>"),
        _ => "<redacted>".to_owned(),
    }
}

fn is_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | '"' | '\'')
}

/// Lines as YAML 1.2 breaks them (section 5.4): at LF, CR LF and CR.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let current = rest?;
        match current.find(['\n', '\r']) {
            None => rest = None,
            Some(end) => {
                let width = if current[end..].starts_with("\r\n") { 2 } else { 1 };
                rest = Some(&current[end + width..]);
                return Some(&current[..end]);
            }
        }
        Some(current)
    })
}

/// Finds line and column of byte offsets, in constant time whatever the length of the lines.
pub(crate) struct LineIndex<'a> {
    text: &'a str,
    line_starts: Vec<usize>,
    /// Characters before every `BLOCK`th byte.
    blocks: Vec<u32>,
}

const BLOCK: usize = 256;

impl<'a> LineIndex<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let bytes = text.as_bytes();
        let mut line_starts = vec![0];
        let mut blocks = Vec::with_capacity(bytes.len() / BLOCK + 1);
        let mut characters = 0u32;
        for (i, byte) in bytes.iter().enumerate() {
            if i % BLOCK == 0 {
                blocks.push(characters);
            }
            characters += u32::from(starts_character(*byte));
            if *byte == b'\n' || (*byte == b'\r' && bytes.get(i + 1) != Some(&b'\n')) {
                line_starts.push(i + 1);
            }
        }
        Self { text, line_starts, blocks }
    }

    fn characters_before(&self, offset: usize) -> u32 {
        let block = offset / BLOCK;
        let Some(before) = self.blocks.get(block) else {
            // Exactly at the end of a text that fills its last block.
            let start = block.saturating_sub(1) * BLOCK;
            return self.blocks.last().copied().unwrap_or(0) + count(&self.text.as_bytes()[start.min(offset)..offset]);
        };
        before + count(&self.text.as_bytes()[block * BLOCK..offset])
    }

    /// The place from byte `start` to byte `end`, cut at the end of the line of `start`.
    pub(crate) fn at(&self, start: usize, end: usize) -> At {
        let start = start.min(self.text.len());
        let line = self.line_starts.partition_point(|s| *s <= start).max(1);
        let line_start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let line_end = self.line_starts.get(line).copied().unwrap_or(self.text.len());
        let before = self.characters_before(start);
        let end = end.clamp(start, line_end);
        let covered = self.text.get(start..end).unwrap_or("").trim_end_matches(['\n', '\r']);
        At {
            source: 0,
            line: line as u32,
            column: before - self.characters_before(line_start) + 1,
            length: covered.chars().count() as u32,
        }
    }
}

fn starts_character(byte: u8) -> bool {
    byte & 0xC0 != 0x80
}

fn count(bytes: &[u8]) -> u32 {
    bytes.iter().map(|b| u32::from(starts_character(*b))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_line_index_agrees_with_counting(text in "[a-zé日\n\r ]{0,700}", pick in 0usize..700) {
            let offsets: Vec<usize> = text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
            let offset = offsets[pick % offsets.len()];
            let at = LineIndex::new(&text).at(offset, offset);
            let before = &text[..offset];
            let split_crlf = before.ends_with('\r') && text[offset..].starts_with('\n');
            prop_assume!(!split_crlf);
            let all: Vec<&str> = lines(before).collect();
            prop_assert_eq!(at.line as usize, all.len());
            prop_assert_eq!(at.column as usize, all[all.len() - 1].chars().count() + 1);
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_finding() {
        let source = Source { name: "x".into(), text: format!("{}HERE{}", "a".repeat(5000), "b".repeat(5000)).into() };
        let excerpt = source.excerpt(At { source: 0, line: 1, column: 5001, length: 4 }).expect("line 1 exists");
        let shown: String = excerpt.text.chars().skip(excerpt.column as usize - 1).take(4).collect();
        assert_eq!(shown, "HERE");
        assert!(excerpt.text.chars().count() <= EXCERPT + 2);
    }

    #[test]
    fn no_line_of_a_file_with_a_secret_shows_a_value() {
        let text = "kind: Secret\nstringData: {word: hush}\n  aGFzaA==\n  user:hush\n- word: hush\n";
        let source = Source { name: "x".into(), text: text.into() };
        let shown: Vec<String> = (1..=5)
            .map(|line| source.excerpt(At { source: 0, line, column: 30, length: 4 }).expect("a line").text)
            .collect();
        assert_eq!(
            shown,
            ["kind: <redacted>", "stringData: <redacted>", "<redacted>", "<redacted>", "- word: <redacted>"]
        );
    }
}
