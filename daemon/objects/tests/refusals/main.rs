//! Malformed objects and what is said about them: the tables beside, written from the reference's rules and recordings.
//!
//! ```text
//! == Pod                                   a section: objects of this kind, made from its row of examples.txt
//! /spec/restartPolicy = "Sometimes"        what is changed in it: a JSON pointer and a value, or nothing to take it away
//!     spec.restartPolicy: Unsupported …    every problem that is reported, in order
//! == update Pod                            the same for changes: `was` lines change the object as it is stored, too
//! let label = …                            names a text; `{label}` stands for it from then on
//! ```
//! `…` in an expectation stands for any text: for values that the reference shows as its programming language lays them out.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use reddwarf_objects::default::{prepare_create, prepare_update};
use reddwarf_objects::{FieldError, FieldReason, Object, default, schema, validate, validate_update};
use serde_json::Value;
use std::collections::BTreeMap;

const EXAMPLES: &str = include_str!("examples.txt");
const TABLES: [(&str, &str); 5] = [
    ("pod.txt", include_str!("pod.txt")),
    ("workload.txt", include_str!("workload.txt")),
    ("network.txt", include_str!("network.txt")),
    ("storage.txt", include_str!("storage.txt")),
    ("other.txt", include_str!("other.txt")),
];
/// How a problem's text begins and the `reason` that clients read in the Status' causes.
const REASONS: [(&str, &str); 8] = [
    ("Required value", "FieldValueRequired"),
    ("Invalid value", "FieldValueInvalid"),
    ("Unsupported value", "FieldValueNotSupported"),
    ("Forbidden", "FieldValueForbidden"),
    ("Duplicate value", "FieldValueDuplicate"),
    ("Not found", "FieldValueNotFound"),
    ("Too long", "FieldValueTooLong"),
    ("Too many", "FieldValueTooMany"),
];
const UID: &str = "8f7e2a5c-0000-4000-8000-000000000001";

/// A row of a table.
#[derive(Default)]
struct Row {
    place: String,
    kind: String,
    is_update: bool,
    was: Vec<(String, String)>,
    changes: Vec<(String, String)>,
    expected: Vec<String>,
}

fn rows(file: &str, table: &str) -> Vec<Row> {
    let (mut rows, mut names): (Vec<Row>, BTreeMap<&str, &str>) = (Vec::new(), BTreeMap::new());
    let (mut kind, mut is_update) = ("", false);
    for (number, line) in table.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        if let Some(section) = line.strip_prefix("== ") {
            (kind, is_update) = section.strip_prefix("update ").map_or((section, false), |kind| (kind, true));
        } else if let Some((name, text)) = line.strip_prefix("let ").and_then(|rest| rest.split_once(" = ")) {
            names.insert(name, text);
        } else if let Some(expected) = line.strip_prefix("    ") {
            let named =
                names.iter().fold(expected.to_owned(), |line, (name, text)| line.replace(&format!("{{{name}}}"), text));
            rows.last_mut().unwrap().expected.push(named);
        } else {
            if rows.last().is_none_or(|row| !row.expected.is_empty()) {
                let place = format!("{file}:{}", number + 1);
                rows.push(Row { place, kind: kind.to_owned(), is_update, ..Row::default() });
            }
            let row = rows.last_mut().unwrap();
            let (list, line) = line.strip_prefix("was ").map_or((&mut row.changes, line), |line| (&mut row.was, line));
            let (pointer, value) = line.split_once(" = ").unwrap_or((line, ""));
            list.push((pointer.to_owned(), value.to_owned()));
        }
    }
    rows
}

fn example(kind: &str) -> Value {
    let line = EXAMPLES.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
    serde_json::from_str(line.unwrap_or_else(|| panic!("no example of {kind}"))).unwrap()
}

/// Sets (or takes away) what the lines say; maps on the way are made, and `-` adds to a list.
fn change(value: &mut Value, changes: &[(String, String)], place: &str) {
    for (pointer, text) in changes {
        let (parent, last) = pointer.rsplit_once('/').unwrap_or_else(|| panic!("{place}: {pointer}"));
        let mut at = &mut *value;
        for step in parent.split('/').skip(1).map(unescaped) {
            at = match at {
                Value::Array(list) => &mut list[step.parse::<usize>().unwrap()],
                Value::Object(map) => map.entry(step).or_insert_with(|| Value::Object(serde_json::Map::new())),
                _ => panic!("{place}: nothing is below {pointer}"),
            };
        }
        let new = (!text.is_empty()).then(|| filled(text, place));
        match (at, new) {
            (Value::Array(list), Some(new)) if last == "-" => list.push(new),
            (Value::Array(list), Some(new)) => list[last.parse::<usize>().unwrap()] = new,
            (Value::Array(list), None) => drop(list.remove(last.parse::<usize>().unwrap())),
            (Value::Object(map), Some(new)) => drop(map.insert(unescaped(last), new)),
            (Value::Object(map), None) => {
                drop(map.remove(&unescaped(last)).unwrap_or_else(|| panic!("{place}: no {pointer}")))
            }
            _ => panic!("{place}: nothing is at {pointer}"),
        }
    }
}

/// JSON, or `TEXT * N`: the text so many times.
fn filled(text: &str, place: &str) -> Value {
    let wrong = |e: serde_json::Error| -> Value { panic!("{place}: {e}: {text}") };
    match text.rsplit_once(" * ").and_then(|(text, times)| Some((text, times.parse::<usize>().ok()?))) {
        None => serde_json::from_str(text).unwrap_or_else(wrong),
        Some((text, times)) => match serde_json::from_str(text).unwrap_or_else(wrong) {
            Value::String(text) => text.repeat(times).into(),
            Value::Array(list) => list.iter().cycle().take(list.len() * times).cloned().collect(),
            _ => panic!("{place}: neither text nor list"),
        },
    }
}

fn unescaped(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

/// The object as it is checked: defaulted, with what the server fills in.
fn made(value: Value) -> Result<Object, Vec<FieldError>> {
    let mut object = Object::from_value(value).unwrap();
    let kind = object.known_kind().unwrap();
    let wrong: Vec<_> =
        schema::check(kind, &object).into_iter().filter(|e| e.reason == FieldReason::TypeInvalid).collect();
    if !wrong.is_empty() {
        return Err(wrong);
    }
    default(kind, &mut object);
    object.set_uid(UID);
    prepare_create(kind, &mut object);
    Ok(object)
}

fn problems(row: &Row) -> Vec<FieldError> {
    let mut value = example(&row.kind);
    change(&mut value, &row.was, &row.place);
    // What is changed is the object as it is stored.
    let old = row.is_update.then(|| made(value.clone()).unwrap());
    let mut value = old.as_ref().map_or(value, Object::value);
    change(&mut value, &row.changes, &row.place);
    let mut new = match (made(value.clone()), old.is_some()) {
        (Ok(_), true) => Object::from_value(value).unwrap(),
        (Ok(new), false) => new,
        (Err(wrong), _) => return wrong,
    };
    let kind = new.known_kind().unwrap();
    let Some(old) = old else { return validate(kind, &new) };
    default(kind, &mut new);
    prepare_update(kind, &old, &mut new);
    validate_update(kind, &old, &new)
}

/// Does a text have the parts of a pattern, in order, and nothing besides them but where `…` stands?
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('…') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = rest.split('…').collect();
    for (index, part) in parts.iter().enumerate() {
        if index + 1 == parts.len() {
            return text.ends_with(part);
        }
        let Some(found) = text.find(part) else { return false };
        text = &text[found + part.len()..];
    }
    true
}

#[test]
fn malformed_objects_are_refused_in_the_references_words() {
    let (mut wrong, mut count, mut of_pods) = (Vec::new(), 0, 0);
    for row in TABLES.iter().flat_map(|(file, table)| rows(file, table)) {
        count += 1;
        of_pods += u32::from(row.kind == "Pod");
        let found = problems(&row);
        let texts: Vec<String> = found.iter().map(FieldError::to_string).collect();
        let same = texts.len() == row.expected.len() && row.expected.iter().zip(&texts).all(|(e, t)| matches(e, t));
        if !same {
            let list = |lines: &[String]| lines.iter().map(|line| format!("\n        {line}")).collect::<String>();
            wrong.push(format!(
                "{} {}\n    expected{}\n    found{}",
                row.place,
                row.kind,
                list(&row.expected),
                list(&texts)
            ));
        }
        for error in &found {
            let body = error.body();
            let reason = REASONS.iter().find(|(words, _)| body.starts_with(words)).map(|(_, reason)| *reason);
            assert_eq!(reason, Some(error.reason.cause()), "{}: {error}", row.place);
        }
    }
    assert!(wrong.is_empty(), "{} of {count} rows:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 200 && of_pods >= 60, "{count} rows, {of_pods} of them of pods");
}

/// A table of refusals proves nothing when what is refused is the example itself.
#[test]
fn the_examples_are_in_order() {
    for line in EXAMPLES.lines() {
        let kind = line.split(' ').next().unwrap();
        let object = made(example(kind)).unwrap();
        let known = object.known_kind().unwrap();
        assert_eq!(validate(known, &object), [], "{kind}");
        assert_eq!(validate_update(known, &object, &object), [], "{kind}");
    }
}
