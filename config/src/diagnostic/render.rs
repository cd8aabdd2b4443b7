//! The two texts of a diagnostic.

use super::{Diagnostic, Severity};
use std::fmt::Write;

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const BLUE: &str = "\x1b[1;34m";
const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";

pub(super) fn one_line(d: &Diagnostic) -> String {
    let place = d.position.map(|p| format!(":{p}")).unwrap_or_default();
    let warning = if d.severity == Severity::Warning { "warning: " } else { "" };
    let mut text = format!("{}{place}: {warning}{}", d.file, d.message);
    for part in [&d.why, &d.help] {
        if !part.is_empty() {
            text.push_str(", ");
            text.push_str(part);
        }
    }
    visible(&text)
}

pub(super) fn rustc_style(d: &Diagnostic, color: bool) -> String {
    let paint = |style: &str, text: String| if color { format!("{style}{text}{RESET}") } else { text };
    let severity_style = if d.severity == Severity::Error { RED } else { YELLOW };
    let gutter = d.position.map(|p| p.line.to_string().len()).unwrap_or(1);
    let pad = " ".repeat(gutter);
    let bar = paint(BLUE, "|".into());
    let mut out = String::new();
    let head = paint(severity_style, format!("{}[{}]", d.severity, d.code));
    let message = paint(BOLD, visible(&d.message));
    let place = d.position.map(|p| format!(":{p}")).unwrap_or_default();
    let _ = writeln!(out, "{head}: {message}");
    let _ = writeln!(out, "{pad}{} {}{place}", paint(BLUE, "-->".into()), visible(&d.file));
    if let (Some(position), Some(excerpt)) = (d.position, &d.source_line) {
        let line = paint(BLUE, position.line.to_string());
        let column = excerpt.column.max(1) as usize - 1;
        let available = excerpt.text.chars().count().saturating_sub(column);
        let carets = "^".repeat((position.length as usize).clamp(1, available.max(1)));
        let _ = writeln!(out, "{pad} {bar}");
        let _ = writeln!(out, "{line} {bar} {}", printable_line(&excerpt.text));
        let _ = writeln!(out, "{pad} {bar} {}{}", " ".repeat(column), paint(severity_style, carets));
    }
    let notes = d.related.iter().map(|r| ("note", format!("{}: {}:{}", r.label, r.file, r.position)));
    let rest = [("why", d.why.clone()), ("help", d.help.clone())];
    for (name, text) in notes.chain(rest).filter(|(_, text)| !text.is_empty()) {
        let _ = writeln!(out, "{pad} {} {}: {}", paint(BLUE, "=".into()), paint(BOLD, name.into()), visible(&text));
    }
    out
}

/// One character for each character, so that the caret stays under its place: tabs become a space, other control
/// characters (terminal escapes) U+FFFD.
fn printable_line(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() || is_invisible(c) => '\u{FFFD}',
            c => c,
        })
        .collect()
}

/// Control characters escaped, so that no file name or content can drive a terminal or break a line.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Characters that reorder text on screen (<https://www.unicode.org/reports/tr9/>) and the byte order mark.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}
