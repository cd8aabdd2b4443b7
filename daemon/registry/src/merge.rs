//! From a declaration and what is there to what shall be there. Pure.

use reddwarf_objects::{Kind, Object};
use serde_json::{Map, Value};

/// Merges a declared form into the live one, as `kubectl apply` does: what the declaration says holds; what the last
/// declaration said and this one does not is removed; what neither mentions stays. Maps merge, lists are replaced. A
/// `null` in the declaration removes.
pub(crate) fn three_way(live: &Object, last: Option<&Object>, declared: &Object) -> Object {
    let mut merged = live.clone();
    let nothing = Map::new();
    merge_map(merged.map_mut(), last.map_or(&nothing, Object::map), declared.map());
    merged
}

/// What a file declares is the whole of it: besides metadata (merged as above) and status every field is the file's,
/// except those that we assign where the file leaves them open.
pub(crate) fn wholly(kind: &Kind, live: &Object, last: Option<&Object>, declared: &Object) -> Object {
    let mut merged = three_way(live, last, declared);
    let stays = ["apiVersion", "kind", "metadata", "status"];
    merged.map_mut().retain(|field, _| stays.contains(&field.as_str()));
    for (field, value) in declared.map() {
        if !stays.contains(&field.as_str()) && !value.is_null() {
            merged.map_mut().insert(field.clone(), value.clone());
        }
    }
    for pointer in assigned(kind, declared) {
        if let (None, Some(value)) = (merged.get(pointer), live.get(pointer)) {
            let value = value.clone();
            merged.set(pointer, value);
        }
    }
    merged
}

/// Fields of a spec that the daemon fills in after creation.
fn assigned(kind: &Kind, declared: &Object) -> &'static [&'static str] {
    match (kind.group, kind.kind) {
        ("", "Secret") if declared.get_str("/type") == Some(reddwarf_objects::ACCOUNT_TOKEN_TYPE) => {
            &["/data/token", "/data/ca.crt", "/data/namespace"]
        }
        ("", "Pod") => &["/spec/nodeName"],
        ("", "Service") => &["/spec/clusterIP", "/spec/clusterIPs", "/spec/ipFamilies", "/spec/ipFamilyPolicy"],
        ("", "Namespace") => &["/spec/finalizers"],
        ("", "Node") => &["/spec/podCIDR", "/spec/podCIDRs", "/spec/providerID"],
        ("", "PersistentVolumeClaim") => &["/spec/volumeName", "/spec/storageClassName"],
        ("", "PersistentVolume") => &["/spec/claimRef"],
        ("batch", "Job") => &[
            "/spec/selector",
            "/spec/template/metadata/labels/controller-uid",
            "/spec/template/metadata/labels/job-name",
            "/spec/template/metadata/labels/batch.kubernetes.io~1controller-uid",
            "/spec/template/metadata/labels/batch.kubernetes.io~1job-name",
        ],
        _ => &[],
    }
}

fn merge_map(live: &mut Map<String, Value>, last: &Map<String, Value>, declared: &Map<String, Value>) {
    for (key, before) in last {
        if declared.contains_key(key) {
            continue;
        }
        // Only what the last declaration put there goes: a map loses the declared keys, not those of others.
        let empty = match (live.get_mut(key), before) {
            (Some(Value::Object(live)), Value::Object(before)) => {
                merge_map(live, before, &Map::new());
                live.is_empty()
            }
            (Some(_), _) => true,
            (None, _) => false,
        };
        if empty {
            live.remove(key);
        }
    }
    for (key, wanted) in declared {
        match (live.get_mut(key), wanted) {
            (_, Value::Null) => drop(live.remove(key)),
            (Some(Value::Object(live)), Value::Object(wanted)) => {
                let nothing = Map::new();
                merge_map(live, last.get(key).and_then(Value::as_object).unwrap_or(&nothing), wanted);
            }
            (_, wanted) => drop(live.insert(key.clone(), wanted.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn object(extra: Value) -> Object {
        let mut value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        if let (Value::Object(map), Value::Object(extra)) = (&mut value, extra) {
            map.extend(extra);
        }
        Object::from_value(value).unwrap()
    }

    #[test]
    fn others_fields_stay_and_dropped_fields_go() {
        let live = object(json!({"data": {"mine": "1", "dropped": "1", "theirs": "1"}}));
        let last = object(json!({"data": {"mine": "0", "dropped": "1"}}));
        let declared = object(json!({"data": {"mine": "2", "new": "3"}}));
        let merged = three_way(&live, Some(&last), &declared);
        assert_eq!(merged.get("/data"), Some(&json!({"mine": "2", "new": "3", "theirs": "1"})));
    }

    #[test]
    fn a_map_that_a_declaration_drops_keeps_what_others_put_there() {
        let live = object(json!({"data": {"mine": "1", "theirs": "1"}}));
        let last = object(json!({"data": {"mine": "1"}}));
        assert_eq!(three_way(&live, Some(&last), &object(json!({}))).get("/data"), Some(&json!({"theirs": "1"})));
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), "[a-c]{1,2}".prop_map(Value::from)];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    fn maps() -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-d]", json_value(), 0..4).prop_map(|m| Value::Object(m.into_iter().collect()))
    }

    /// Everything in `part` is in `whole`.
    fn contains(whole: &Value, part: &Value) -> bool {
        match (whole, part) {
            (Value::Object(whole), Value::Object(part)) => {
                part.iter().all(|(k, v)| whole.get(k).is_some_and(|w| contains(w, v)))
            }
            (whole, part) => whole == part,
        }
    }

    proptest! {
        #[test]
        fn what_is_declared_holds_and_merging_again_changes_nothing(live in maps(), last in maps(), declared in maps()) {
            let (live, last, declared) = (object(live), object(last), object(declared));
            let merged = three_way(&live, Some(&last), &declared);
            prop_assert!(contains(&merged.value(), &declared.value()));
            prop_assert_eq!(three_way(&merged, Some(&declared), &declared), merged);
        }

        #[test]
        fn declaring_and_withdrawing_leaves_what_others_wrote(live in maps(), declared in maps()) {
            let (live, declared) = (object(json!({"data": live})), object(json!({"mine": declared})));
            let merged = three_way(&live, None, &declared);
            let withdrawn = three_way(&merged, Some(&declared), &object(json!({})));
            prop_assert_eq!(withdrawn, live);
        }
    }
}
