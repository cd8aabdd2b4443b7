//! Scripted pods and the statuses that they come to, `tests/statuses/NAME.pod.json` and `NAME.status.json`: the same on
//! the fake host and on real ones, but for names, addresses and times. Shared with the daemon's end-to-end tests.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// One pod and when to look at it.
pub struct Scripted {
    pub name: String,
    pub spec: Value,
    /// JSON pointers into the pod, and what is to be there; `type=Ready` finds an element of a list.
    until: Vec<(String, Value)>,
    golden: PathBuf,
}

/// All of them, by name.
pub fn all(directory: &Path) -> Vec<Scripted> {
    let mut found: Vec<_> = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    found.sort();
    let names = found.iter().filter_map(|p| p.file_name()?.to_str()?.strip_suffix(".pod.json").map(str::to_owned));
    let read = |name: String| {
        let text = std::fs::read_to_string(directory.join(format!("{name}.pod.json"))).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let pair = |p: &Value| (p[0].as_str().unwrap().to_owned(), p[1].clone());
        let until = value["until"].as_array().unwrap().iter().map(pair).collect();
        Scripted { golden: directory.join(format!("{name}.status.json")), spec: value["spec"].clone(), name, until }
    };
    names.map(read).collect()
}

impl Scripted {
    /// The spec with this put into every container.
    pub fn spec_with(&self, more: &Value) -> Value {
        let mut spec = self.spec.clone();
        for list in ["initContainers", "containers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                let more = more.as_object().into_iter().flatten();
                container.as_object_mut().unwrap().extend(more.map(|(k, v)| (k.clone(), v.clone())));
            }
        }
        spec
    }

    /// Whether the pod has come to where it is looked at.
    pub fn is_there(&self, pod: &Value) -> bool {
        self.until.iter().all(|(pointer, wanted)| at(pod, pointer) == Some(wanted))
    }

    /// Compares the pod's status with the golden one; writes that anew first when `update`. What differs, if anything.
    pub fn difference(&self, pod: &Value, update: bool) -> Option<String> {
        let said = serde_json::to_string_pretty(&normal(pod)).unwrap() + "\n";
        if update {
            std::fs::write(&self.golden, &said).unwrap();
        }
        let golden = std::fs::read_to_string(&self.golden).unwrap_or_default();
        (said != golden).then(|| format!("{}:\nsaid {said}\ngolden {golden}", self.golden.display()))
    }
}

fn at<'v>(value: &'v Value, pointer: &str) -> Option<&'v Value> {
    pointer.split('/').skip(1).try_fold(value, |value, step| match (value, step.split_once('=')) {
        (Value::Array(list), Some((key, wanted))) => list.iter().find(|e| e[key] == wanted),
        (Value::Array(list), None) => list.get(step.parse::<usize>().ok()?),
        (value, _) => value.get(step),
    })
}

/// The status without what no two runs have in common.
pub fn normal(pod: &Value) -> Value {
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    let mut status = replaced(&pod["status"], "", uid);
    if let Some(conditions) = status["conditions"].as_array_mut() {
        conditions.sort_by_key(|c| c["type"].to_string());
    }
    status
}

fn replaced(value: &Value, key: &str, uid: &str) -> Value {
    match (key, value) {
        (_, Value::Object(map)) => {
            // A host of a test may have no address of its own.
            let dropped = ["image", "imageID", "hostIP", "hostIPs"];
            let kept = map.iter().filter(|(key, _)| !dropped.contains(&key.as_str()));
            Value::Object(kept.map(|(key, value)| (key.clone(), replaced(value, key, uid))).collect::<Map<_, _>>())
        }
        (_, Value::Array(list)) => list.iter().map(|value| replaced(value, key, uid)).collect(),
        ("podIP" | "ip", Value::String(_)) => json!("IP"),
        ("containerID", Value::String(id)) if id.starts_with("reddwarf://") => json!("reddwarf://ID"),
        // Never: the reference's way to say so.
        (_, Value::String(time)) if time == "1970-01-01T00:00:00Z" => value.clone(),
        ("startTime" | "startedAt" | "finishedAt" | "lastTransitionTime", Value::String(_)) => json!("TIME"),
        (_, Value::String(text)) if !uid.is_empty() => json!(text.replace(uid, "UID")),
        _ => value.clone(),
    }
}
