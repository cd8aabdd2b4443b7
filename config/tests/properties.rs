//! What holds for every text: no panic, places that point at what was parsed, and a round trip.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![expect(clippy::disallowed_methods, reason = "says how long it took")]

use proptest::prelude::*;
use reddwarf_config::{Document, Limits, parse_file};
use serde_json::Value;

const NAMES: [&str; 3] = ["x.yaml", "x.json", "x.toml"];

/// A text of one line that all three formats can hold.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9 :#&*!|>'\"%@`{}\\[\\],?~-]{0,12}",
        "[a-z]{1,8}",
        Just("yes".to_owned()),
        Just("0644".to_owned()),
        Just("größe 日本".to_owned()),
        Just("a\nb\tc".to_owned()),
        Just("<<".to_owned()),
        Just("null".to_owned()),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9f64..1e9).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..5).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(text(), value(), 1..5).prop_map(|m| Value::Object(m.into_iter().collect()))
}

/// Block-style YAML, with quotes of either kind, flow style and comments mixed in.
fn yaml(value: &Value, indent: usize, style: &mut impl FnMut(usize) -> usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() && style(4) > 0 => {
            for (key, value) in map {
                out.push_str(&format!("\n{pad}{}:", scalar(key, style)));
                inner(value, indent, style, out);
            }
        }
        Value::Array(items) if !items.is_empty() && style(4) > 0 => {
            for value in items {
                out.push_str(&format!("\n{pad}-"));
                inner(value, indent, style, out);
            }
        }
        Value::String(text) => out.push_str(&format!(" {}", scalar(text, style))),
        other => out.push_str(&format!(" {other}")),
    }
}

fn inner(value: &Value, indent: usize, style: &mut impl FnMut(usize) -> usize, out: &mut String) {
    if style(5) == 0 && matches!(value, Value::Object(_) | Value::Array(_)) {
        out.push_str(" # größe");
    }
    match value {
        Value::Object(_) | Value::Array(_) => {
            let before = out.len();
            yaml(value, indent + 2, style, out);
            if !out[before..].starts_with('\n') && out[..before].ends_with("größe") {
                let rest = out.split_off(before);
                out.push_str(&format!("\n{}{rest}", " ".repeat(indent + 2)));
            }
        }
        _ => yaml(value, indent + 2, style, out),
    }
}

fn scalar(text: &str, style: &mut impl FnMut(usize) -> usize) -> String {
    let plain = !text.is_empty()
        && text.chars().all(|c| c.is_alphabetic())
        && !matches!(text.to_ascii_lowercase().as_str(), "null" | "true" | "false");
    match style(3) {
        0 if plain => text.to_owned(),
        1 if !text.contains(['\n', '\t']) => format!("'{}'", text.replace('\'', "''")),
        _ => Value::from(text).to_string(),
    }
}

fn parsed(name: &str, text: &str) -> Result<Document, TestCaseError> {
    let (mut documents, findings) = parse_file(name, text.as_bytes(), &Limits::default());
    let errors: Vec<String> = findings.iter().filter(|f| f.is_error()).map(|f| f.render(false)).collect();
    prop_assert!(errors.is_empty(), "{text}\n{}", errors.join("\n"));
    prop_assert_eq!(documents.len(), 1, "{}", text);
    Ok(documents.remove(0))
}

/// Checks that every scalar's place, read back, is that scalar, and that every key's place is that key.
fn places_point_at_the_text(document: &Document, text: &str) -> Result<(), TestCaseError> {
    let lines: Vec<&str> = text.split('\n').collect();
    let at = |position: reddwarf_config::Position| -> String {
        let line = lines[position.line as usize - 1];
        line.chars().skip(position.column as usize - 1).take(position.length as usize).collect()
    };
    let mut todo = vec![(String::new(), &document.value)];
    while let Some((pointer, value)) = todo.pop() {
        let place = document.origin.value_at(&pointer).map(|p| p.position);
        prop_assert!(place.is_some(), "{} has no place", pointer);
        let shown = at(place.unwrap_or_default());
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                    let key_text = at(document.origin.key_at(&pointer).map(|p| p.position).unwrap_or_default());
                    prop_assert_eq!(&unquote(&key_text), key, "{}", text);
                    todo.push((pointer, value));
                }
            }
            Value::Array(items) => todo.extend(items.iter().enumerate().map(|(i, v)| (format!("{pointer}/{i}"), v))),
            Value::String(string) => prop_assert_eq!(&unquote(&shown), string, "{}", text),
            other => prop_assert_eq!(shown, other.to_string(), "{}", text),
        }
    }
    Ok(())
}

fn unquote(text: &str) -> String {
    match text.chars().next() {
        Some('\'') => text.trim_matches('\'').replace("''", "'"),
        Some('"') => serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}")),
        _ => text.to_owned(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn yaml_comes_back_with_its_places(object in object(), seed in any::<u64>()) {
        let mut state = seed | 1;
        let mut style = |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) as usize) % n
        };
        let mut text = String::new();
        yaml(&object, 0, &mut style, &mut text);
        text.push('\n');
        let document = parsed("x.yaml", &text)?;
        prop_assert_eq!(&document.value, &object, "{}", text);
        if !text.contains("''") {
            places_point_at_the_text(&document, &text)?;
        }
    }

    #[test]
    fn json_comes_back_with_its_places(object in object(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&object).unwrap() } else { object.to_string() };
        let document = parsed("x.json", &text)?;
        prop_assert_eq!(&document.value, &object);
        places_point_at_the_text(&document, &text)?;
    }

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for name in NAMES {
            let (_, findings) = parse_file(name, &bytes, &Limits::default());
            prop_assert!(findings.iter().all(|f| f.code.as_str() != "RD0044"), "{:?}", bytes);
            for finding in findings {
                finding.render(true);
            }
        }
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in "([a-z0-9]{1,3}|[-:,?&*!|>'\"%@`{}\\[\\]#~.<= \t\n\r\\\\é\u{feff}]){0,60}") {
        for name in NAMES {
            let (documents, findings) = parse_file(name, text.as_bytes(), &Limits::default());
            prop_assert!(findings.iter().all(|f| f.code.as_str() != "RD0044"), "{:?}", text);
            for finding in &findings {
                let line = finding.one_line();
                prop_assert!(!line.contains('\n') && finding.render(false).lines().all(|l| !l.contains('\x1b')));
            }
            reddwarf_config::check(documents);
        }
    }

    #[test]
    fn a_cut_or_damaged_manifest_is_never_a_panic(cut in 0usize..400, damage in any::<u8>(), at in 0usize..400) {
        let whole = "apiVersion: v1\nkind: Pod\nmetadata: {name: &n web, labels: {a: *n}}\nspec:\n  containers:\n  - name: web\n    \
                     image: \"nginx\"\n    env: [{name: A, value: 'b'}]\n    command:\n    - |\n      echo\n    - >-\n      folded\n      text\n";
        let mut bytes = whole.as_bytes()[..cut.min(whole.len())].to_vec();
        if let Some(byte) = bytes.get_mut(at) {
            *byte = damage;
        }
        let (documents, findings) = parse_file("x.yaml", &bytes, &Limits::default());
        prop_assert!(findings.iter().all(|f| f.code.as_str() != "RD0044"));
        reddwarf_config::check(documents);
    }
}

#[test]
fn hostile_nesting_ends_in_a_finding_soon() {
    let began = std::time::Instant::now();
    for (name, text) in [
        ("x.yaml", "[".repeat(500_000)),
        ("x.yaml", "- ".repeat(500_000)),
        ("x.yaml", "? ".repeat(500_000)),
        ("x.yaml", "{a: ".repeat(250_000)),
        ("x.yaml", "&a ".repeat(250_000)),
        ("x.yaml", format!("a: {}", "x ".repeat(500_000))),
        ("x.json", "[".repeat(500_000)),
        ("x.json", "{\"a\":".repeat(200_000)),
        ("x.json", format!("[{}]", "1,".repeat(400_000))),
        ("x.toml", format!("a = {}", "[".repeat(500_000))),
        ("x.toml", format!("{} = 1", vec!["a"; 400_000].join("."))),
        ("x.toml", format!("[{}]", vec!["a"; 400_000].join("."))),
        ("x.toml", format!("a = [{}]", "1,".repeat(400_000))),
    ] {
        let (documents, findings) = parse_file(name, text.as_bytes(), &Limits::default());
        let head: String = text.chars().take(8).collect();
        assert!(findings.iter().all(|f| f.code.as_str() != "RD0044"), "{name} {head}: the parser failed");
        assert!(!findings.is_empty() || documents.len() == 1, "{name} {head}");
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(60), "{:?}", began.elapsed());
}
