//! JSON values as YAML 1.2 block style, as `kubectl get -o yaml` writes them. What another reader could take for
//! something other than text is quoted (YAML 1.1's `yes`, `0x10`, `1_000`, `12:30` too).

use serde_json::Value;

/// The document, with a line end.
pub fn emit_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut out, map, 0),
        Value::Array(list) if !list.is_empty() => sequence(&mut out, list, 0),
        scalar => {
            out.push_str(&inline(scalar, 0));
            out.push('\n');
        }
    }
    out
}

fn mapping(out: &mut String, map: &serde_json::Map<String, Value>, depth: usize) {
    for (index, (key, value)) in map.iter().enumerate() {
        // The first key of a sequence's item stands behind its dash.
        if index > 0 || !out.ends_with("- ") {
            indent(out, depth);
        }
        out.push_str(&key_text(key));
        out.push(':');
        after(out, value, depth);
    }
}

fn sequence(out: &mut String, list: &[Value], depth: usize) {
    for (index, value) in list.iter().enumerate() {
        if index > 0 || !out.ends_with("- ") {
            indent(out, depth);
        }
        out.push_str("- ");
        match value {
            Value::Object(map) if !map.is_empty() => mapping(out, map, depth + 1),
            Value::Array(list) if !list.is_empty() => sequence(out, list, depth + 1),
            scalar => {
                out.push_str(&inline(scalar, depth + 1));
                out.push('\n');
            }
        }
    }
}

/// What stands behind a key's colon.
fn after(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            mapping(out, map, depth + 1);
        }
        // A list under a key starts at the key's own column, as kubectl prints it.
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            sequence(out, list, depth);
        }
        scalar => {
            out.push(' ');
            out.push_str(&inline(scalar, depth + 1));
            out.push('\n');
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    out.push_str(&"  ".repeat(depth));
}

fn inline(value: &Value, depth: usize) -> String {
    match value {
        Value::String(text) if is_block(text) => block(text, depth),
        Value::String(text) => scalar(text),
        Value::Object(_) => "{}".into(),
        Value::Array(_) => "[]".into(),
        other => other.to_string(),
    }
}

/// A long key would need YAML's explicit form, which nobody expects: such keys do not occur in Kubernetes objects,
/// but are still quoted.
fn key_text(key: &str) -> String {
    scalar(key)
}

/// Several lines of printable text, without blanks that a block can't keep, read best as a block.
fn is_block(text: &str) -> bool {
    text.trim_end_matches('\n').contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(|c| c == '\n' || c == '\t' || is_printable(c))
        && text.split('\n').all(|line| line.trim_end() == line && !line.starts_with('\t'))
}

fn block(text: &str, depth: usize) -> String {
    let body = text.trim_end_matches('\n');
    let ends = text.len() - body.len();
    let mut out = String::from(match ends {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.push_str(&"  ".repeat(depth.max(1)));
            out.push_str(line);
        }
    }
    out.push_str(&"\n".repeat(ends.saturating_sub(1)));
    out
}

fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { quoted(text) }
}

/// Text that no reader takes for anything else without quotes: begins with a letter, or is a path or a dotted or
/// dashed word, and is no word of YAML.
fn is_plain(text: &str) -> bool {
    // Options as `-f` and `--all` too: a dash is a mark only before a blank.
    let Some(first) = text.trim_start_matches('-').chars().next() else { return false };
    let starts = first.is_ascii_alphabetic() || (!text.starts_with('-') && (first == '/' || first == '_'));
    if !starts || text.ends_with([' ', ':']) || text.len() > 400 {
        return false;
    }
    let inside = |c: char| c.is_ascii_alphanumeric() || " -._/()+@=;%~^$<>?!'\"|\\*&,:[]{}".contains(c);
    if !text.chars().all(inside) || text.contains(": ") || text.contains(" #") {
        return false;
    }
    // Flow indicators are fine inside block scalars, but only after a first plain character: kept out for old readers.
    if text.contains(['[', ']', '{', '}', ',']) && !text.contains(' ') {
        return false;
    }
    let word = text.to_ascii_lowercase();
    !matches!(word.as_str(), "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "nan" | "inf")
}

fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{85}')
        && !matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// Double quotes: JSON's escapes are YAML's.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) > 0xffff => out.push_str(&format!("\\U{:08x}", u32::from(c))),
            c => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn looks_as_kubectl_prints_it() {
        let value = json!({
            "apiVersion": "v1",
            "data": {"empty": "", "lines": "a\nb\n", "open": "a\n\nb", "yes": "yes", "port": "8080", "time": "12:30"},
            "items": [{"name": "a", "list": [1, 2.5, null]}, [], {}, [["x"]], "two words"],
            "path": "/etc/reddwarf.d/web.yaml",
            "when": "2026-01-01T00:00:00Z",
        });
        assert_eq!(
            emit_yaml(&value),
            "apiVersion: v1\n\
             data:\n  empty: \"\"\n  lines: |\n    a\n    b\n  open: |-\n    a\n\n    b\n  port: \"8080\"\n  time: \"12:30\"\n  \"yes\": \"yes\"\n\
             items:\n- list:\n  - 1\n  - 2.5\n  - null\n  name: a\n- []\n- {}\n- - - x\n- two words\n\
             path: /etc/reddwarf.d/web.yaml\n\
             when: \"2026-01-01T00:00:00Z\"\n"
        );
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~\n\t]{0,12}",
            "\\PC{0,8}",
            any::<String>().prop_map(|s| s.chars().take(6).filter(|c| *c != '\0').collect()),
            proptest::sample::select(vec![
                "",
                "~",
                "null",
                "yes",
                "No",
                "0x1f",
                "1e3",
                "1_000",
                "012",
                "12:30:45",
                "- a",
                "? a",
                "# a",
                "a: b",
                "a #b",
                "&a",
                "*a",
                "!t",
                "%x",
                "@a",
                "`a",
                "{a}",
                "[a]",
                "|",
                ">",
                "a\n",
                "a\n\n",
                "\na",
                " a",
                "a ",
                "a\n b",
                "a\nb\n\n",
                "---",
                "...",
                ".inf",
                ".nan",
                "=",
                "<<",
                "a:",
                "'",
                "\"",
                "\u{85}",
                "\u{2028}",
                "\u{feff}",
                "2026-01-01",
            ])
            .prop_map(str::to_owned),
        ]
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            text().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(text(), inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]
        #[test]
        fn our_own_reader_reads_back_what_was_written(value in value()) {
            let document = json!({"value": value});
            let yaml = emit_yaml(&document);
            let (read, findings) = crate::parse_file("x.yaml", yaml.as_bytes(), &crate::Limits::default());
            prop_assert!(findings.iter().all(|f| !f.is_error()), "{yaml}\n{findings:?}");
            prop_assert_eq!(&read[0].value, &document, "{}", yaml);
        }
    }
}
