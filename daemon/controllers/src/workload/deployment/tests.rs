//! Sizes and numbers, by table.

use super::revision::{DESIRED, MAX, REVISION, missing_annotations, next_revision};
use super::scale::{new_size, proportional, shrink_old};
use super::{Deployment, Pods, Set};
use reddwarf_objects::Object;
use serde_json::{Value, json};

fn deployment(replicas: i64, spec: Value) -> Deployment {
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "d", "uid": "u"},
        "spec": {"replicas": replicas, "template": {}}});
    for (key, value) in spec.as_object().cloned().unwrap_or_default() {
        object["spec"][key] = value;
    }
    Deployment::of(Object::from_value(object).unwrap()).unwrap()
}

fn rolling(replicas: i64, surge: Value, unavailable: Value) -> Deployment {
    let strategy =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
    deployment(replicas, json!({ "strategy": strategy }))
}

fn set(name: &str, replicas: i64, available: i64, annotations: Value) -> Set {
    let count = usize::try_from(available).unwrap();
    let created = format!("2026-01-01T00:00:0{}Z", name.len());
    let object = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": "d", "uid": name, "annotations": annotations, "creationTimestamp": created},
        "spec": {"replicas": replicas}, "status": {"replicas": replicas, "availableReplicas": available}});
    Set::of(Object::from_value(object).unwrap(), Pods { live: count, active: count, available: count }).unwrap()
}

#[test]
fn limits_of_a_rollout() {
    for (replicas, surge, unavailable, expected) in [
        (4, json!("25%"), json!("25%"), (1, 1)),
        (10, json!("25%"), json!("25%"), (3, 2)),
        (1, json!("25%"), json!("25%"), (1, 0)),
        (3, json!(0), json!(0), (0, 1)),
        (2, json!(5), json!(5), (5, 2)),
        (0, json!("25%"), json!("25%"), (0, 0)),
    ] {
        let found = rolling(replicas, surge, unavailable);
        assert_eq!((found.max_surge, found.max_unavailable), expected, "{replicas}");
    }
}

#[test]
fn the_new_replica_set_grows_into_the_room_there_is() {
    let web = rolling(10, json!(3), json!(2));
    for (new, all, expected) in [(0, 10, 3), (3, 13, 3), (3, 11, 5), (9, 9, 10), (12, 12, 10)] {
        assert_eq!(new_size(&web, new, all), expected, "{new} of {all}");
    }
}

#[test]
fn old_replica_sets_shrink_as_far_as_enough_stay_available() {
    let web = rolling(10, json!(3), json!(2));
    let sizes = |old: &[Set], new: &Set| shrink_old(&web, old, new);
    let none = json!({});
    assert_eq!(sizes(&[set("a", 10, 10, none.clone())], &set("new", 3, 0, none.clone())), [(0, 8)]);
    assert_eq!(sizes(&[set("a", 8, 8, none.clone())], &set("new", 5, 0, none.clone())), []);
    assert_eq!(sizes(&[set("a", 8, 8, none.clone())], &set("new", 5, 5, none.clone())), [(0, 3)]);
    // What is not available goes first.
    let broken = [set("a", 8, 8, none.clone()), set("bb", 2, 0, none.clone())];
    assert_eq!(sizes(&broken, &set("new", 3, 0, none)), [(1, 0)]);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    let sized = |replicas: i64, most: i64| json!({DESIRED: replicas.to_string(), MAX: most.to_string()});
    let web = rolling(20, json!("25%"), json!("25%"));
    let sets = [set("a", 8, 8, sized(10, 13)), set("bb", 5, 5, sized(10, 13))];
    let sizes = proportional(&web, &sets, Some(1));
    let total: i64 = sizes.iter().map(|(_, size)| size).sum();
    assert_eq!((total, sizes), (25, vec![(0, 15), (1, 10)]));
    assert_eq!(proportional(&rolling(0, json!(1), json!(1)), &sets, Some(1)), [(0, 0), (1, 0)]);
    assert_eq!(proportional(&web, &sets[..1], None), [(0, 20)], "only one: it takes all");
}

#[test]
fn a_version_that_comes_back_gets_a_new_number_and_remembers_the_old_one() {
    let web = deployment(1, json!({}));
    let old = [set("a", 0, 0, json!({REVISION: "2"})), set("bb", 0, 0, json!({REVISION: "3"}))];
    assert_eq!(next_revision(&old), 4);
    let back = set("ccc", 1, 1, json!({REVISION: "1"}));
    let patch = missing_annotations(&web, &back, 4).unwrap();
    assert_eq!(patch["metadata"]["annotations"][REVISION], "4");
    assert_eq!(patch["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"], "1");
    assert_eq!(missing_annotations(&web, &set("d", 1, 1, json!({REVISION: "4"})), 4), None);
}
