//! Diagnostics as SARIF 2.1.0 (<https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>), for code hosts
//! and editors.

use super::{Code, Diagnostic, Position, Severity};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// One SARIF log with one run. Columns count characters (`columnKind` `unicodeCodePoints`).
pub fn sarif(diagnostics: &[Diagnostic]) -> Value {
    let used: BTreeSet<&str> = diagnostics.iter().map(|d| d.code.as_str()).collect();
    let rules: Vec<Value> = Code::all()
        .iter()
        .filter(|info| used.contains(info.code))
        .map(|info| json!({"id": info.code, "shortDescription": {"text": info.title}}))
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "reddwarf",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": diagnostics.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

fn result(d: &Diagnostic) -> Value {
    let level = match d.severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let parts = [&d.message, &d.why, &d.help];
    let text = parts.iter().filter(|p| !p.is_empty()).map(|p| p.as_str()).collect::<Vec<_>>().join(", ");
    let mut result = json!({
        "ruleId": d.code,
        "level": level,
        "message": {"text": text},
        "locations": [location(&d.file, d.position, None)],
    });
    if !d.related.is_empty() {
        let related = d.related.iter().map(|r| location(&r.file, Some(r.position), Some(&r.label)));
        result["relatedLocations"] = Value::Array(related.collect());
    }
    result
}

fn location(file: &str, position: Option<Position>, label: Option<&str>) -> Value {
    let mut physical = json!({"artifactLocation": {"uri": uri(file)}});
    if let Some(p) = position {
        physical["region"] =
            json!({"startLine": p.line, "startColumn": p.column, "endColumn": p.column.saturating_add(p.length)});
    }
    let mut location = json!({"physicalLocation": physical});
    if let Some(label) = label {
        location["message"] = json!({"text": label});
    }
    location
}

/// A path as a URI reference (RFC 3986): absolute ones under `file://`, everything unusual percent-encoded.
fn uri(path: &str) -> String {
    let mut out = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
