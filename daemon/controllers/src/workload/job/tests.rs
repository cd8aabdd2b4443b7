//! Jobs, by table.

use super::decide::{INDEX, TRACKING};
use super::{Decision, Failed, JobPod, Tries, decide};
use crate::workload::testing::{pod, with};
use chrono::{DateTime, Utc};
use reddwarf_objects::Object;
use reddwarf_objects::pod::Phase;
use serde_json::{Value, json};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn job(spec: Value, status: Value) -> Object {
    Object::from_value(
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "d", "uid": "u"},
        "spec": spec, "status": status}),
    )
    .unwrap()
}

/// `a` active, `s` succeeded, `f` failed (at second 0), `d` going; capitals have been counted. With an index after it.
fn pods(text: &str) -> Vec<JobPod> {
    let words = text.split_whitespace().enumerate();
    words
        .map(|(n, word)| {
            let letter = word.chars().next().unwrap();
            let index = &word[1..];
            let lower = letter.to_ascii_lowercase();
            let slim = pod(&format!("p{n}"), |p| {
                p.phase = match lower {
                    's' => Phase::Succeeded,
                    'f' => Phase::Failed,
                    _ => Phase::Running,
                };
                p.finished = matches!(lower, 's' | 'f').then(|| at(0));
            });
            let slim = with(&slim, |p| {
                if letter.is_ascii_lowercase() {
                    p.finalizers = [Box::from(TRACKING)].into();
                }
                p.deleted = (lower == 'd').then(|| at(0));
                if !index.is_empty() {
                    p.labels = [(Box::from(INDEX), Box::from(index))].into();
                }
            });
            JobPod { slim, failed: (lower == 'f').then_some(Failed::Count), tries: Tries::default() }
        })
        .collect()
}

fn run(spec: Value, status: Value, text: &str) -> Decision {
    decide(&job(spec, status), &pods(text), at(1000))
}

fn reason(decision: &Decision, kind: &str) -> String {
    let all = decision.status["conditions"].as_array().cloned().unwrap_or_default();
    all.iter().find(|c| c["type"] == kind).map(|c| c["reason"].as_str().unwrap().to_owned()).unwrap_or_default()
}

#[test]
fn how_many_pods() {
    let three = json!({"completions": 3, "parallelism": 2});
    for (spec, status, text, create, delete) in [
        (three.clone(), json!({}), "", 2, 0),
        (three.clone(), json!({}), "a", 1, 0),
        (three.clone(), json!({"succeeded": 2}), "", 1, 0),
        (three.clone(), json!({"succeeded": 2}), "a a", 0, 1),
        (json!({"parallelism": 3}), json!({}), "a", 2, 0),
        (json!({"parallelism": 3}), json!({"succeeded": 1}), "a", 0, 0),
        (json!({"completions": 1, "parallelism": 1, "suspend": true}), json!({}), "a", 0, 1),
        (json!({"completions": 2, "parallelism": 2}), json!({}), "d a", 1, 0),
        (json!({"completions": 2, "parallelism": 2, "podReplacementPolicy": "Failed"}), json!({}), "d a", 0, 0),
        (json!({"completions": 1, "parallelism": 0}), json!({}), "", 0, 0),
    ] {
        let decision = run(spec.clone(), status, text);
        assert_eq!((decision.create.len(), decision.delete.len()), (create, delete), "{spec} {text}");
    }
}

#[test]
fn indexes() {
    let spec = json!({"completions": 5, "parallelism": 3, "completionMode": "Indexed"});
    let of =
        |status: Value, text: &str| run(spec.clone(), status, text).create.into_iter().flatten().collect::<Vec<_>>();
    assert_eq!(of(json!({}), ""), [0, 1, 2]);
    assert_eq!(of(json!({"completedIndexes": "0,2"}), "a1"), [3, 4]);
    let done = run(spec.clone(), json!({"completedIndexes": "0"}), "s1 s2 a3");
    assert_eq!((&done.status["completedIndexes"], &done.status["succeeded"]), (&json!("0-2"), &json!(3)));
    let two = run(spec, json!({}), "a0 a0 a9");
    assert_eq!(two.delete.len(), 2, "a second pod of an index, and one beyond the last");
}

#[test]
fn every_pod_counts_once() {
    let spec = json!({"completions": 2, "parallelism": 2});
    let noted = run(spec.clone(), json!({}), "s f a");
    assert_eq!(noted.status["uncountedTerminatedPods"], json!({"succeeded": ["p0"], "failed": ["p1"]}));
    assert_eq!((noted.status.get("succeeded"), noted.release.len()), (None, 2));
    let again = run(spec.clone(), noted.status.clone(), "s f a");
    assert_eq!(again.status["uncountedTerminatedPods"], noted.status["uncountedTerminatedPods"], "noted once");
    let counted = run(spec, noted.status, "S F a");
    assert_eq!((&counted.status["succeeded"], &counted.status["failed"]), (&json!(1), &json!(1)));
    assert_eq!(counted.status["uncountedTerminatedPods"], json!({}));
}

#[test]
fn ends() {
    let met = |reason: &str| json!({"conditions": [{"type": "SuccessCriteriaMet", "status": "True", "reason": reason, "message": "m"}], "succeeded": 1});
    let one = json!({"completions": 1, "parallelism": 1});
    assert_eq!(reason(&run(one.clone(), json!({}), "s"), "SuccessCriteriaMet"), "CompletionsReached");
    assert_eq!(reason(&run(one.clone(), json!({}), "s"), "Complete"), "", "not before it is counted");
    let complete = run(one.clone(), met("CompletionsReached"), "S");
    assert_eq!(reason(&complete, "Complete"), "CompletionsReached");
    assert!(complete.status["completionTime"].is_string());
    assert_eq!(reason(&run(one.clone(), met("CompletionsReached"), "S d"), "Complete"), "", "not while pods are going");

    let limit = json!({"completions": 1, "parallelism": 1, "backoffLimit": 1});
    assert_eq!(reason(&run(limit.clone(), json!({}), "f"), "FailureTarget"), "");
    assert_eq!(reason(&run(limit, json!({}), "f f"), "FailureTarget"), "BackoffLimitExceeded");

    let deadline = json!({"completions": 1, "parallelism": 1, "activeDeadlineSeconds": 10});
    let started = |seconds: &str| json!({ "startTime": seconds });
    let over = run(deadline.clone(), started("1970-01-01T00:16:30Z"), "a");
    assert_eq!((reason(&over, "FailureTarget").as_str(), over.delete.len()), ("DeadlineExceeded", 1));
    assert_eq!(reason(&run(deadline, started("1970-01-01T00:16:31Z"), "a"), "FailureTarget"), "");

    let indexes = json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 0});
    let failed = run(indexes.clone(), json!({}), "f0 s1");
    assert_eq!(
        (reason(&failed, "FailureTarget").as_str(), &failed.status["failedIndexes"]),
        ("FailedIndexes", &json!("0"))
    );
    assert_eq!(run(indexes, json!({}), "f0 a1").create, [], "a failed index is not tried again");
}

#[test]
fn failures_hold_the_next_pod_back() {
    let spec = json!({"completions": 1, "parallelism": 1});
    let created =
        |seconds: i64, text: &str| decide(&job(spec.clone(), json!({})), &pods(text), at(seconds)).create.len();
    for (seconds, text, expected) in [(9, "F", 0), (10, "F", 1), (19, "F F", 0), (20, "F F", 1), (0, "", 1)] {
        assert_eq!(created(seconds, text), expected, "{seconds} {text}");
    }
}

#[test]
fn each_index_waits_for_itself_where_it_has_its_own_limit() {
    let spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 2});
    let seen = |seconds: i64, text: &str, tries: Tries, failed: Failed| {
        let mut pods = pods(text);
        for pod in pods.iter_mut().filter(|p| p.failed.is_some()) {
            (pod.tries, pod.failed) = (tries, Some(failed.clone()));
        }
        let decision = decide(&job(spec.clone(), json!({})), &pods, at(seconds));
        let created: Vec<i64> = decision.create.iter().flatten().copied().collect();
        (created, decision.release.len(), decision.status["failedIndexes"].clone(), decision.tries.get(&0).copied())
    };
    let tries = |failures, ignored| Tries { failures, ignored };
    let none = Value::Null;
    // The others go on, and the failed pod stays until another is made.
    assert_eq!(seen(9, "f0", tries(0, 0), Failed::Count), (vec![1, 2], 0, none.clone(), None));
    assert_eq!(seen(9, "f0 a1 s2", tries(0, 0), Failed::Count), (vec![], 1, none.clone(), None), "another's success");
    assert_eq!(seen(10, "f0 a1 a2", tries(0, 0), Failed::Count), (vec![0], 0, none.clone(), Some(tries(1, 0))));
    assert_eq!(seen(19, "f0 a1 a2", tries(1, 0), Failed::Count), (vec![], 0, none.clone(), None));
    assert_eq!(seen(20, "f0 a1 a2", tries(1, 0), Failed::Count), (vec![0], 0, none.clone(), Some(tries(2, 0))));
    assert_eq!(seen(20, "f0 a0 a1 a2", tries(1, 0), Failed::Count), (vec![], 1, none.clone(), None), "replaced");
    assert_eq!(seen(20, "f0 a1 a2", tries(2, 0), Failed::Count), (vec![], 1, json!("0"), None), "once too often");
    let mut suspended = spec.clone();
    suspended["suspend"] = json!(true);
    suspended["backoffLimitPerIndex"] = json!(0);
    let paused = run(suspended, json!({}), "d0 f1");
    assert_eq!(
        (paused.release.len(), &paused.status["failedIndexes"]),
        (2, &Value::Null),
        "who suspends means no harm"
    );
    // What the policy ignores is waited for, and counts for nothing.
    assert_eq!(seen(79, "f0 a1 a2", tries(2, 1), Failed::Ignore), (vec![], 0, none.clone(), None));
    assert_eq!(seen(80, "f0 a1 a2", tries(2, 1), Failed::Ignore), (vec![0], 0, none, Some(tries(2, 2))));
}

#[test]
fn what_ended_goes_after_its_time() {
    let ended =
        json!({"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": "1970-01-01T00:16:00Z"}]});
    assert!(!run(json!({}), ended.clone(), "").expired);
    assert!(run(json!({"ttlSecondsAfterFinished": 40}), ended.clone(), "").expired);
    let later = run(json!({"ttlSecondsAfterFinished": 41}), ended.clone(), "a");
    assert!(!later.expired && later.again.0.is_some());
    assert_eq!((later.delete.len(), &later.status), (1, &ended), "nothing of it runs on, its status is left as it is");
}
