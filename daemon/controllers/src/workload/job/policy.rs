//! What a Job's podFailurePolicy and successPolicy say. Pure (Kubernetes: "Pod failure policy", "Success policy").

use super::index;
use crate::workload::fields::text;
use reddwarf_objects::Object;
use serde_json::Value;
use std::collections::BTreeSet;

/// What becomes of a pod's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It counts.
    Count,
    /// It does not count.
    Ignore,
    /// Its index has failed for good.
    Index,
    /// The Job has failed; why.
    Job(String),
}

/// Judges a failed pod: the first rule that matches decides.
pub(super) fn judge(policy: Option<&Value>, pod: &Object) -> Failed {
    let rules = policy.and_then(|p| p.get("rules")).and_then(Value::as_array);
    for (at, rule) in rules.into_iter().flatten().enumerate() {
        let Some(what) = matched(rule, pod) else { continue };
        return match text(rule, "action") {
            "FailJob" => {
                let namespace = pod.namespace().unwrap_or_default();
                Failed::Job(format!(
                    "{} matching FailJob rule at index {at}",
                    what.replace("{pod}", &format!("{namespace}/{}", pod.name()))
                ))
            }
            "Ignore" => Failed::Ignore,
            "FailIndex" => Failed::Index,
            _ => Failed::Count,
        };
    }
    Failed::Count
}

/// What of the pod matches the rule, in words.
fn matched(rule: &Value, pod: &Object) -> Option<String> {
    if let Some(codes) = rule.get("onExitCodes").filter(|v| v.is_object()) {
        return exit_code(codes, pod);
    }
    let conditions = pod.get("/status/conditions").and_then(Value::as_array)?;
    for wanted in rule.get("onPodConditions").and_then(Value::as_array)? {
        let status = wanted.get("status").and_then(Value::as_str).unwrap_or("True");
        let is = |c: &&Value| text(c, "type") == text(wanted, "type") && text(c, "status") == status;
        if let Some(found) = conditions.iter().find(is) {
            return Some(format!("Pod {{pod}} has condition {}", text(found, "type")));
        }
    }
    None
}

fn exit_code(codes: &Value, pod: &Object) -> Option<String> {
    let only = codes.get("containerName").and_then(Value::as_str);
    let values: Vec<i64> = codes.get("values")?.as_array()?.iter().filter_map(Value::as_i64).collect();
    let inside = text(codes, "operator") == "In";
    let lists = ["/status/containerStatuses", "/status/initContainerStatuses"];
    let all = lists.into_iter().filter_map(|p| pod.get(p)?.as_array()).flatten();
    for status in all.filter(|s| only.is_none_or(|name| text(s, "name") == name)) {
        let Some(code) = status.pointer("/state/terminated/exitCode").and_then(Value::as_i64) else { continue };
        if code != 0 && values.contains(&code) == inside {
            return Some(format!("Container {} for pod {{pod}} failed with exit code {code}", text(status, "name")));
        }
    }
    None
}

/// The rule of the success policy that these indexes meet, in words.
pub(super) fn met(policy: Option<&Value>, completed: &BTreeSet<i64>) -> Option<String> {
    for (at, rule) in policy?.get("rules")?.as_array()?.iter().enumerate() {
        let among = rule.get("succeededIndexes").and_then(Value::as_str).map(index::parse);
        let count = rule.get("succeededCount").and_then(Value::as_u64).and_then(|c| usize::try_from(c).ok());
        let done = among.as_ref().map_or(completed.len(), |among| completed.intersection(among).count());
        let wanted = count.or_else(|| among.as_ref().map(BTreeSet::len)).unwrap_or(usize::MAX);
        if done >= wanted {
            return Some(format!("Matched rules at index {at}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(code: i64, condition: &str) -> Object {
        Object::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d"},
            "status": {"conditions": [{"type": condition, "status": "True"}],
                "containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": code}}}]}}))
        .unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = json!({"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1, 2]}}]});
        let failed = "Container main for pod d/p failed with exit code 42 matching FailJob rule at index 1";
        for (code, condition, verdict) in [
            (42, "DisruptionTarget", Failed::Ignore),
            (42, "Ready", Failed::Job(failed.to_owned())),
            (3, "Ready", Failed::Index),
            (1, "Ready", Failed::Count),
        ] {
            assert_eq!(judge(Some(&policy), &pod(code, condition)), verdict, "{code} {condition}");
        }
        assert_eq!(judge(None, &pod(42, "Ready")), Failed::Count);
    }

    #[test]
    fn success_by_index_or_by_number() {
        let of = |rule: Value, done: &str| met(Some(&json!({"rules": [rule]})), &index::parse(done)).is_some();
        for (rule, done, expected) in [
            (json!({"succeededIndexes": "0,2"}), "0-1", false),
            (json!({"succeededIndexes": "0,2"}), "0-2", true),
            (json!({"succeededCount": 2}), "5,7", true),
            (json!({"succeededIndexes": "0-4", "succeededCount": 2}), "4,7", false),
            (json!({"succeededIndexes": "0-4", "succeededCount": 2}), "3-4", true),
        ] {
            assert_eq!(of(rule.clone(), done), expected, "{rule} {done}");
        }
    }
}
