//! Which of a StatefulSet's pods come and go next. Pure.

use crate::runtime::{Again, Slim};
use crate::workload::claim::Claimant;
use crate::workload::fields::{number, positive, scaled, status_with};
use crate::workload::revision::{REVISION_LABEL, Revision};
use chrono::{DateTime, Utc};
use reddwarf_objects::Object;
use reddwarf_objects::pod::Phase;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What is decided over.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub(super) object: &'a Object,
    pub(super) owner: &'a Claimant,
    /// The version that was rolled out last.
    pub(super) current: &'a Revision,
    /// The present template's.
    pub(super) update: &'a Revision,
    /// Its pods.
    pub(super) pods: &'a [Arc<Slim>],
    pub(super) now: DateTime<Utc>,
}

impl<'a> Input<'a> {
    pub(super) fn revision(&self, update: bool) -> &'a Revision {
        if update { self.update } else { self.current }
    }
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Pods to make: number, and whether of the present template.
    pub create: Vec<(i64, bool)>,
    /// Pods that go.
    pub delete: Vec<Arc<Slim>>,
    /// The status to write.
    pub status: Value,
    /// When to look again.
    pub again: Again,
}

/// The number in a pod's name.
pub(super) fn ordinal(set: &str, pod: &str) -> Option<i64> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let number: i64 = digits.parse().ok()?;
    // `web-01` is somebody else's.
    (number >= 0 && number.to_string() == digits).then_some(number)
}

/// The numbers that there are to be.
pub(super) fn wanted_ordinals(set: &Object) -> Range<i64> {
    let start = number(set, "/spec/ordinals/start", 0).max(0);
    start..start.saturating_add(number(set, "/spec/replicas", 1).max(0))
}

/// Decides.
pub fn decide(input: &Input<'_>) -> Decision {
    let mut planner = Planner::new(input);
    if !input.owner.leaving {
        planner.run();
    }
    planner.decision.status = planner.status();
    let next =
        planner.pods.values().filter_map(|p| p.available_at(planner.min_ready)).filter(|at| *at > input.now).min();
    if let Some(at) = next {
        planner.decision.again = planner.decision.again.at(at, input.now);
    }
    planner.decision
}

struct Planner<'a> {
    input: &'a Input<'a>,
    pods: BTreeMap<i64, &'a Arc<Slim>>,
    wanted: Range<i64>,
    /// One after another?
    ordered: bool,
    min_ready: i64,
    /// Pods below this number keep the earlier version.
    partition: i64,
    on_delete: bool,
    decision: Decision,
}

impl<'a> Planner<'a> {
    fn new(input: &'a Input<'a>) -> Self {
        let object = input.object;
        let name = &input.owner.id.name;
        let numbered = input.pods.iter().filter_map(|p| Some((ordinal(name, &p.id.name)?, p)));
        Self {
            input,
            pods: numbered.collect(),
            wanted: wanted_ordinals(object),
            ordered: object.get_str("/spec/podManagementPolicy") != Some("Parallel"),
            min_ready: number(object, "/spec/minReadySeconds", 0),
            partition: number(object, "/spec/updateStrategy/rollingUpdate/partition", 0),
            on_delete: object.get_str("/spec/updateStrategy/type") == Some("OnDelete"),
            decision: Decision::default(),
        }
    }

    fn run(&mut self) {
        if self.fill() && self.shrink() && !self.on_delete {
            self.update();
        }
    }

    /// Makes what is missing, from the lowest number. `false`: something must be waited for.
    fn fill(&mut self) -> bool {
        for ordinal in self.wanted.clone() {
            let pod = self.pods.get(&ordinal).copied();
            let Some(pod) = pod else {
                self.decision.create.push((ordinal, self.is_new(ordinal)));
                if self.ordered {
                    return false;
                }
                continue;
            };
            let ended = pod.pod().is_some_and(|p| matches!(p.phase, Phase::Failed | Phase::Succeeded));
            if ended && pod.deleted.is_none() {
                // Made anew once it is gone.
                self.decision.delete.push(pod.clone());
            }
            if self.ordered && (ended || !self.is_healthy(pod)) {
                return false;
            }
        }
        true
    }

    /// Deletes what is too much, from the highest number.
    fn shrink(&mut self) -> bool {
        let wanted = self.wanted.clone();
        let condemned: Vec<_> = self.pods.iter().filter(|(n, _)| !wanted.contains(n)).map(|(_, p)| *p).collect();
        let unhealthy = self.pods.values().find(|p| !self.is_healthy(p)).map(|p| p.id.clone());
        for pod in condemned.into_iter().rev() {
            if pod.deleted.is_some() {
                if self.ordered {
                    return false;
                }
                continue;
            }
            let others_first =
                self.ordered && unhealthy.as_ref().is_some_and(|id| *id != pod.id) && !self.is_healthy(pod);
            if others_first {
                return false;
            }
            self.decision.delete.push(pod.clone());
            if self.ordered {
                return false;
            }
        }
        true
    }

    /// Replaces pods of earlier versions, from the highest number, no more at a time than may be missing.
    fn update(&mut self) {
        let replicas = self.wanted.end - self.wanted.start;
        let most = self.input.object.get("/spec/updateStrategy/rollingUpdate/maxUnavailable");
        let most = scaled(most, &json!(1), replicas, true).max(1);
        let mut missing = 0;
        let lowest = self.wanted.start.saturating_add(self.partition).max(self.wanted.start);
        for ordinal in (lowest..self.wanted.end).rev() {
            if missing >= most {
                return;
            }
            let Some(pod) = self.pods.get(&ordinal).copied() else {
                missing += 1;
                continue;
            };
            if pod.deleted.is_none() && !self.is_of(pod, self.input.update) {
                self.decision.delete.push(pod.clone());
                missing += 1;
            } else if !self.is_healthy(pod) {
                missing += 1;
            }
        }
    }

    fn is_of(&self, pod: &Slim, revision: &Revision) -> bool {
        pod.label(REVISION_LABEL) == Some(revision.name())
    }

    /// Runs, is ready, for long enough, and stays.
    fn is_healthy(&self, pod: &Slim) -> bool {
        pod.is_active() && pod.is_available(self.min_ready, self.input.now)
    }

    /// Is a pod made anew now one of the present template?
    fn is_new(&self, ordinal: i64) -> bool {
        if self.input.current == self.input.update || self.on_delete {
            return true;
        }
        if self.partition > 0 {
            return ordinal >= self.wanted.start.saturating_add(self.partition);
        }
        // As many of the lower numbers as still have the earlier version keep it.
        let current = number(self.input.object, "/status/currentReplicas", 0);
        ordinal >= self.wanted.start.saturating_add(current)
    }

    fn status(&self) -> Value {
        let input = self.input;
        let there = || self.pods.values().filter(|p| p.is_active());
        let count = |of: &dyn Fn(&Slim) -> bool| i64::try_from(there().filter(|p| of(p)).count()).unwrap_or(i64::MAX);
        let replicas = i64::try_from(self.pods.len()).unwrap_or(i64::MAX);
        let (ready, available) = (count(&|p| p.is_ready()), count(&|p| p.is_available(self.min_ready, input.now)));
        let (mut current, updated) =
            (count(&|p| self.is_of(p, input.current)), count(&|p| self.is_of(p, input.update)));
        let mut revision = input.current.name();
        let wanted = self.wanted.end - self.wanted.start;
        let all = [updated, ready, replicas].iter().all(|n| *n == wanted);
        if all && !self.on_delete && self.partition <= 0 {
            // The rollout is over.
            (current, revision) = (updated, input.update.name());
        }
        let set = json!({
            "observedGeneration": input.object.generation(),
            "replicas": replicas,
            "readyReplicas": positive(ready),
            "availableReplicas": available,
            "currentReplicas": positive(current),
            "updatedReplicas": positive(updated),
            "currentRevision": revision,
            "updateRevision": input.update.name(),
            "collisionCount": number(input.object, "/status/collisionCount", 0),
        });
        status_with(input.object, set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Id;
    use crate::workload::testing::{pod, with};

    fn revision(name: &str) -> Revision {
        let id = Id::new("apps", "ControllerRevision", "d", name).unwrap();
        Revision { id, uid: name.into(), number: 1, template: json!({}), hash: String::new() }
    }

    /// `r` ready, `u` not ready, `-` absent, `d` going; capitals are of the present template.
    fn pods(text: &str) -> Vec<Arc<Slim>> {
        let letters = text.chars().enumerate().filter(|(_, c)| *c != '-');
        letters
            .map(|(n, c)| {
                let lower = c.to_ascii_lowercase();
                let pod = pod(&format!("db-{n}"), |p| p.ready_since = (lower == 'r').then_some(DateTime::UNIX_EPOCH));
                let of = if c.is_ascii_uppercase() { "new" } else { "old" };
                with(&pod, |p| {
                    p.labels = [(Box::from(REVISION_LABEL), Box::from(of))].into();
                    p.deleted = (lower == 'd').then_some(DateTime::UNIX_EPOCH);
                })
            })
            .collect()
    }

    fn run(spec: Value, status: Value, text: &str) -> (Vec<(i64, bool)>, Vec<String>, Value) {
        let object = Object::from_value(json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "db", "namespace": "d", "uid": "u"}, "spec": spec, "status": status}))
        .unwrap();
        let owner = Claimant::of(&object).unwrap();
        let (old, new, pods) = (revision("old"), revision("new"), pods(text));
        let now = DateTime::from_timestamp(100, 0).unwrap();
        let input = Input { object: &object, owner: &owner, current: &old, update: &new, pods: &pods, now };
        let decision = decide(&input);
        let deleted = decision.delete.iter().map(|p| p.id.name.to_string()).collect();
        (decision.create, deleted, decision.status)
    }

    #[test]
    fn one_after_another_or_all_at_once() {
        let ordered = json!({"replicas": 3});
        let parallel = json!({"replicas": 3, "podManagementPolicy": "Parallel"});
        let updated = json!({"currentReplicas": 0});
        for (spec, text, create, delete) in [
            (&ordered, "", vec![0], vec![]),
            (&ordered, "U", vec![], vec![]),
            (&ordered, "R", vec![1], vec![]),
            (&ordered, "RRR", vec![], vec![]),
            (&ordered, "R-R", vec![1], vec![]),
            (&ordered, "RD", vec![], vec![]),
            (&ordered, "RRRRR", vec![], vec!["db-4"]),
            (&ordered, "RRRRD", vec![], vec![]),
            (&ordered, "RURRR", vec![], vec![]),
            (&parallel, "", vec![0, 1, 2], vec![]),
            (&parallel, "URURR", vec![], vec!["db-4", "db-3"]),
        ] {
            let (created, deleted, _) = run(spec.clone(), updated.clone(), text);
            let expected: Vec<(i64, bool)> = create.into_iter().map(|n| (n, true)).collect();
            let delete: Vec<String> = delete.into_iter().map(str::to_owned).collect();
            assert_eq!((created, deleted), (expected, delete), "{text} {spec}");
        }
        let (created, _, _) = run(json!({"replicas": 2, "ordinals": {"start": 5}}), json!({}), "");
        assert_eq!(created, [(5, true)]);
    }

    #[test]
    fn updates_go_from_the_highest_number_down_to_the_partition() {
        let plain = json!({"replicas": 3});
        let partition =
            json!({"replicas": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}});
        let two = json!({"replicas": 3, "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}});
        let on_delete = json!({"replicas": 3, "updateStrategy": {"type": "OnDelete"}});
        for (spec, text, delete) in [
            (&plain, "rrr", vec!["db-2"]),
            (&plain, "rrR", vec!["db-1"]),
            (&plain, "rrU", vec![]),
            (&plain, "RRR", vec![]),
            (&partition, "rrr", vec!["db-2"]),
            (&partition, "rrR", vec![]),
            (&two, "rrr", vec!["db-2", "db-1"]),
            (&two, "rrU", vec!["db-1"]),
            (&on_delete, "rrr", vec![]),
        ] {
            let (_, deleted, _) = run(spec.clone(), json!({"currentReplicas": 3}), text);
            assert_eq!(deleted, delete, "{text} {spec}");
        }
        // What is made anew in the middle of a rollout has the version of its number.
        assert_eq!(run(plain.clone(), json!({"currentReplicas": 2}), "-rR").0, [(0, false)]);
        assert_eq!(run(plain, json!({"currentReplicas": 2}), "rr-").0, [(2, true)]);
        assert_eq!(run(partition, json!({"currentReplicas": 3}), "r-R").0, [(1, false)]);
    }

    #[test]
    fn the_status_says_when_a_rollout_is_over() {
        let (_, _, status) = run(json!({"replicas": 3}), json!({"currentReplicas": 1}), "rRR");
        assert_eq!(
            (&status["currentRevision"], &status["currentReplicas"], &status["updatedReplicas"]),
            (&json!("old"), &json!(1), &json!(2))
        );
        let (_, _, status) = run(json!({"replicas": 3}), json!({}), "RRR");
        assert_eq!((&status["currentRevision"], &status["currentReplicas"]), (&json!("new"), &json!(3)));
    }

    #[test]
    fn numbers_in_names() {
        for (name, expected) in
            [("db-0", Some(0)), ("db-12", Some(12)), ("db-01", None), ("db-x", None), ("dbx-1", None)]
        {
            assert_eq!(ordinal("db", name), expected, "{name}");
        }
    }
}
