//! A table as `nft -j list table` prints it, read back into a [`Model`] (libnftables-json(5)).

use super::model::{Chain, Elements, Model, Rule};
use super::render::{FORWARD, INPUT, OUTPUT, OUTPUT_NAT, POSTROUTING, PREROUTING};
use super::words::{Element, Types, names};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Answer {
    nftables: Vec<BTreeMap<String, Value>>,
}

/// Reads a listing. Rules have digests and no text; maps have types where they are those that `wanted` has, and hold nothing else.
pub(crate) fn parse(json: &[u8], wanted: &Model) -> Result<Model, serde_json::Error> {
    let answer: Answer = serde_json::from_slice(json)?;
    let mut model = Model::default();
    for object in &answer.nftables {
        for (kind, value) in object {
            let name = value.get("name").and_then(Value::as_str).unwrap_or_default();
            match kind.as_str() {
                "chain" => drop(model.chains.insert(name.to_owned(), Chain { hook: hook(value), rules: Vec::new() })),
                "rule" => add_rule(&mut model, value),
                "map" | "set" => {
                    let types = wanted.maps.get(name).and_then(|map| map.types).filter(|t| same(t, kind, value));
                    let read = types.and_then(|types| read(types, value));
                    let foreign =
                        || Elements { kind: if kind == "map" { "map" } else { "set" }, ..Elements::default() };
                    model.maps.insert(name.to_owned(), read.unwrap_or_else(foreign));
                }
                _ => {}
            }
        }
    }
    Ok(model)
}

fn add_rule(model: &mut Model, value: &Value) {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let rule = Rule { text: String::new(), digest: text("comment") };
    model.chains.entry(text("chain")).or_default().rules.push(rule);
}

/// Our words for a base chain, when it is one of ours; others for any other.
fn hook(chain: &Value) -> &'static str {
    let text = |field: &str| chain.get(field).and_then(Value::as_str).unwrap_or_default();
    let priority = chain.get("prio").and_then(Value::as_i64).unwrap_or_default();
    match (text("type"), text("hook"), priority, text("policy")) {
        ("", ..) => "",
        ("nat", "prerouting", -100, "accept") => PREROUTING,
        ("nat", "output", -100, "accept") => OUTPUT_NAT,
        ("nat", "postrouting", 100, "accept") => POSTROUTING,
        ("filter", "input", -5, "accept") => INPUT,
        ("filter", "forward", -5, "accept") => FORWARD,
        ("filter", "output", -5, "accept") => OUTPUT,
        _ => "foreign",
    }
}

fn is_dynamic(set: &Value) -> bool {
    let flags = set.get("flags").and_then(Value::as_array);
    flags.is_some_and(|flags| flags.iter().any(|f| f == "dynamic"))
}

/// Are these the types of what is listed?
fn same(types: &Types, kind: &str, listed: &Value) -> bool {
    let listed_names = |field: &str| match listed.get(field) {
        Some(Value::String(one)) => one.clone(),
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" . "),
        _ => String::new(),
    };
    types.kind() == kind
        && listed_names("type") == names(types.keys)
        && listed_names("map") == types.value_names()
        && listed.get("timeout").and_then(Value::as_u64) == types.timeout.map(u64::from)
}

/// What is in a map or set of these types. `None`: something else.
fn read(types: Types, set: &Value) -> Option<Elements> {
    let mut read = Elements::new(types);
    if is_dynamic(set) {
        return Some(read);
    }
    let list = set.get("elem").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let one = |element: &Value| match element {
        Value::Array(pair) => types.read(&text(pair.first()?), &text(pair.get(1)?)),
        key => types.read(&text(key), ""),
    };
    read.elements = list.iter().map(one).collect::<Option<Vec<Element>>>()?;
    read.settle();
    Some(read)
}

/// An expression as we write it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) => match map.iter().next().map(|(k, v)| (k.as_str(), v)) {
            Some(("concat", Value::Array(parts))) => parts.iter().map(text).collect::<Vec<_>>().join(" . "),
            Some((verdict @ ("goto" | "jump"), target)) => {
                format!("{verdict} {}", target.get("target").and_then(Value::as_str).unwrap_or_default())
            }
            Some(("elem", elem)) => elem.get("val").map(text).unwrap_or_default(),
            _ => value.to_string(),
        },
        other => other.to_string(),
    }
}
