//! What a pod may learn of itself: fields and amounts, for variables and for files (Kubernetes: "Downward API").

use super::{Facts, Identity, resources};
use crate::desired::PodIntent;
use reddwarf_objects::pod::{Container, PodSpec, ResourceFieldRef};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A field that depends on the pod alone; `None` when it is no such field.
pub(super) fn field(intent: &PodIntent, identity: &Identity, facts: Facts<'_>, path: &str) -> Option<String> {
    let meta = &intent.pod.metadata;
    if let Some(key) = keyed(path, "metadata.labels") {
        return Some(meta.labels.get(key).cloned().unwrap_or_default());
    }
    if let Some(key) = keyed(path, "metadata.annotations") {
        return Some(meta.annotations.get(key).cloned().unwrap_or_default());
    }
    Some(match path {
        "metadata.name" => intent.key.name.clone(),
        "metadata.namespace" => intent.key.namespace.clone(),
        "metadata.uid" => identity.pod.uid.to_string(),
        "metadata.labels" => lines(&meta.labels),
        "metadata.annotations" => lines(&meta.annotations),
        "spec.nodeName" => facts.settings.node_name.clone(),
        "spec.serviceAccountName" => intent.pod.spec.service_account_name.clone(),
        _ => return None,
    })
}

/// `key` of `prefix['key']`.
fn keyed<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']")
}

/// `key="value"` lines in the order of the keys, without an end of line after the last.
fn lines(map: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (key, value) in map {
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = write!(text, "{key}={}", quoted(value));
    }
    text
}

/// A text in double quotes as Go writes it (strconv.Quote): programs that read these files undo it.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if c.is_control() || (c.is_whitespace() && c != ' ') => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// An amount of a container, and whether the host decided over it because the container says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) value: u64,
    pub(super) of_host: bool,
}

/// `resourceFieldRef`: rounded up to a multiple of the divisor. Without a limit it is what the host has for pods.
/// `None`: no such resource.
pub(super) fn amount(container: &Container, reference: &ResourceFieldRef, facts: Facts<'_>) -> Option<Amount> {
    let (limits, requests) = (&container.resources.limits, &container.resources.requests);
    let storage = "ephemeral-storage";
    let (own, of_host) = match reference.resource.as_str() {
        "limits.cpu" => (resources::cpu(limits), facts.host.cpu_millis),
        "limits.memory" => (resources::memory(limits), facts.host.memory_bytes),
        "limits.ephemeral-storage" => (resources::bytes(limits, storage), facts.host.storage_bytes),
        "requests.cpu" => (resources::cpu(requests).or_else(|| resources::cpu(limits)), 0),
        "requests.memory" => (resources::memory(requests).or_else(|| resources::memory(limits)), 0),
        "requests.ephemeral-storage" => {
            (resources::bytes(requests, storage).or_else(|| resources::bytes(limits, storage)), 0)
        }
        other => match other.split_once('.')? {
            ("limits", pages) if pages.starts_with("hugepages-") => (resources::bytes(limits, pages), 0),
            ("requests", pages) if pages.starts_with("hugepages-") => (resources::bytes(requests, pages), 0),
            _ => return None,
        },
    };
    let cpu = reference.resource.ends_with(".cpu");
    let divisor = reference.divisor.as_ref().map(|q| if cpu { q.millis() } else { q.units() });
    let divisor = divisor.and_then(|d| u64::try_from(d).ok()).filter(|d| *d > 0).unwrap_or(if cpu { 1000 } else { 1 });
    Some(Amount { value: own.unwrap_or(of_host).div_ceil(divisor), of_host: own.is_none() })
}

/// A container of the pod by its name.
pub(super) fn container<'s>(spec: &'s PodSpec, name: &str) -> Option<&'s Container> {
    spec.containers.iter().chain(&spec.init_containers).find(|c| c.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_go_quotes_them() {
        for (text, expected) in [
            ("plain", r#""plain""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("line\nnext\ttab", r#""line\nnext\ttab""#),
            ("\u{1}\u{7f}", r#""\x01\x7f""#),
            ("grün 'q' $", r#""grün 'q' $""#),
            ("\u{2028}", r#""\u2028""#),
        ] {
            assert_eq!(quoted(text), expected);
        }
        let map = [("b", "2"), ("a", "1")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(lines(&map.into()), "a=\"1\"\nb=\"2\"");
        assert_eq!(lines(&BTreeMap::new()), "");
    }
}
