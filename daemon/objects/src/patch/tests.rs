//! Strategic merge patches: every body that kubectl sends (recorded from kubectl 1.36), directives, and algebra.

use super::*;
use crate::{
    kind::{Kind, kinds},
    schema::View,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

fn kind(api_version: &str, name: &str) -> &'static Kind {
    kinds().by_gvk(api_version, name).unwrap()
}

fn patched(kind: &Kind, doc: Value, patch: Value) -> Result<Value, PatchError> {
    let mut doc = doc;
    strategic(kind, &mut doc, &patch).map(|()| doc)
}

fn pod(doc: Value, patch: Value) -> Value {
    patched(kind("v1", "Pod"), json!({"spec": doc}), json!({"spec": patch})).unwrap()["spec"].take()
}

#[test]
fn kubectl_set_env() {
    let doc = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "web", "image": "busybox", "env": [{"name": "X", "value": "1"}]}, {"name": "side"}]}}}});
    let patch = json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "web"}],
        "containers": [{"$setElementOrder/env": [{"name": "X"}, {"name": "FOO"}], "env": [{"name": "FOO", "value": "bar"}], "name": "web"}]}}}});
    let result = patched(kind("apps/v1", "Deployment"), doc, patch).unwrap();
    assert_eq!(
        result["spec"]["template"]["spec"]["containers"],
        json!([{"name": "web", "image": "busybox", "env": [{"name": "X", "value": "1"}, {"name": "FOO", "value": "bar"}]}, {"name": "side"}])
    );
}

#[test]
fn kubectl_rollout_restart_pause_resume() {
    let deployment = kind("apps/v1", "Deployment");
    let doc = json!({"spec": {"template": {"metadata": {"labels": {"app": "web"}}}}});
    let restart =
        json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}}});
    let restarted = patched(deployment, doc, restart).unwrap();
    assert_eq!(
        restarted["spec"]["template"]["metadata"],
        json!({"labels": {"app": "web"}, "annotations": {"kubectl.kubernetes.io/restartedAt": "now"}})
    );
    let paused = patched(deployment, restarted, json!({"spec": {"paused": true}})).unwrap();
    assert_eq!(paused["spec"]["paused"], true);
    let resumed = patched(deployment, paused, json!({"spec": {"paused": null}})).unwrap();
    assert!(resumed["spec"].get("paused").is_none());
}

#[test]
fn kubectl_cordon_and_taint() {
    let node = kind("v1", "Node");
    let cordoned = patched(node, json!({"spec": {}}), json!({"spec": {"unschedulable": true}})).unwrap();
    assert_eq!(cordoned, json!({"spec": {"unschedulable": true}}));
    assert_eq!(patched(node, cordoned, json!({"spec": {"unschedulable": null}})).unwrap(), json!({"spec": {}}));
    let taints = json!([{"effect": "PreferNoSchedule", "key": "k", "value": "v"}]);
    let tainted =
        patched(node, json!({"spec": {"taints": [{"key": "old"}]}}), json!({"spec": {"taints": taints}})).unwrap();
    assert_eq!(tainted["spec"]["taints"], taints);
    assert_eq!(patched(node, tainted, json!({"spec": {"taints": null}})).unwrap(), json!({"spec": {}}));
}

#[test]
fn kubectl_debug_adds_a_container() {
    let debugger = json!({"command": ["sleep", "1"], "image": "busybox", "name": "debugger-shdjk", "resources": {},
        "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}, "targetContainerName": "main", "terminationMessagePolicy": "File"});
    let first = pod(json!({"containers": [{"name": "main"}]}), json!({"ephemeralContainers": [debugger]}));
    assert_eq!(first["ephemeralContainers"], json!([debugger]));
    let second = pod(first, json!({"ephemeralContainers": [{"name": "two"}]}));
    assert_eq!(second["ephemeralContainers"], json!([{"name": "two"}, debugger]));
}

#[test]
fn kubectl_edit_and_patch() {
    let edited = patched(
        kind("v1", "ConfigMap"),
        json!({"metadata": {"name": "cm1", "creationTimestamp": "2026-11-20T21:10:53Z"}, "data": {"a": "11", "b": "2"}}),
        json!({"data": {"a": "12"}, "metadata": {"creationTimestamp": "2026-12-20T21:10:53Z"}}),
    );
    assert_eq!(
        edited,
        Ok(
            json!({"metadata": {"name": "cm1", "creationTimestamp": "2026-12-20T21:10:53Z"}, "data": {"a": "12", "b": "2"}})
        )
    );
    let env = pod(
        json!({"containers": [{"name": "web"}]}),
        json!({"containers": [{"name": "web", "env": [{"name": "X", "value": "1"}]}]}),
    );
    assert_eq!(env["containers"], json!([{"name": "web", "env": [{"name": "X", "value": "1"}]}]));
}

#[test]
fn lists_of_maps_follow_their_directives() {
    let three = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}, {"name": "c"}]});
    let containers = |patch: Value| pod(three.clone(), json!({"containers": patch}))["containers"].clone();
    assert_eq!(
        containers(json!([{"name": "b", "$patch": "delete"}])),
        json!([{"name": "a", "image": "1"}, {"name": "c"}])
    );
    assert_eq!(containers(json!([{"$patch": "replace"}, {"name": "z"}])), json!([{"name": "z"}]));
    assert_eq!(containers(json!([{"name": "a", "image": null}]))[0], json!({"name": "a"}));
    assert_eq!(containers(json!([{"name": "a", "image": "2"}]))[0], json!({"name": "a", "image": "2"}));
    // What is new comes first, what only the document has stays among the rest.
    assert_eq!(
        containers(json!([{"name": "new"}, {"name": "c", "image": "3"}])),
        json!([{"name": "new"}, {"name": "a", "image": "1"}, {"name": "b"}, {"name": "c", "image": "3"}])
    );
    let order = json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}]});
    assert_eq!(
        pod(three.clone(), order)["containers"],
        json!([{"name": "c"}, {"name": "b"}, {"name": "a", "image": "1"}])
    );
    // Lists without a strategy are replaced.
    let command = pod(
        json!({"containers": [{"name": "a", "command": ["x", "y"]}]}),
        json!({"containers": [{"name": "a", "command": ["z"]}]}),
    );
    assert_eq!(command["containers"][0]["command"], json!(["z"]));
    let tolerations = pod(json!({"tolerations": [{"key": "a"}]}), json!({"tolerations": [{"key": "b"}]}));
    assert_eq!(tolerations["tolerations"], json!([{"key": "b"}]));
}

#[test]
fn lists_of_scalars_are_merged_as_sets() {
    let config_map = kind("v1", "ConfigMap");
    let finalizers = |before: Value, patch: Value| {
        let mut patched =
            patched(config_map, json!({"metadata": {"finalizers": before}}), json!({"metadata": patch})).unwrap();
        patched["metadata"]["finalizers"].take()
    };
    assert_eq!(finalizers(json!(["a", "b"]), json!({"finalizers": ["b", "c"]})), json!(["a", "b", "c"]));
    assert_eq!(finalizers(json!(["a", "b"]), json!({"$deleteFromPrimitiveList/finalizers": ["a"]})), json!(["b"]));
    assert_eq!(
        finalizers(
            json!(["a", "b"]),
            json!({"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"]})
        ),
        json!(["c", "b"])
    );
}

#[test]
fn maps_follow_their_directives() {
    let config_map = kind("v1", "ConfigMap");
    let data =
        |before: Value, patch: Value| patched(config_map, json!({"data": before}), json!({"data": patch})).unwrap();
    assert_eq!(data(json!({"a": "1"}), json!({"$patch": "replace", "z": "9"})), json!({"data": {"z": "9"}}));
    assert_eq!(data(json!({"a": "1"}), json!({"$patch": "delete"})), json!({"data": {}}));
    let strategy = patched(
        kind("apps/v1", "Deployment"),
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
    );
    assert_eq!(strategy, Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})));
    let volumes = pod(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}),
    );
    assert_eq!(volumes["volumes"], json!([{"name": "v", "hostPath": {"path": "/x"}}]));
    // A value that is new is taken without nulls and directives.
    let new = pod(
        json!({}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x", "type": null}}]}),
    );
    assert_eq!(new["volumes"], json!([{"name": "v", "hostPath": {"path": "/x"}}]));
}

#[test]
fn mistakes_are_told_in_the_references_words() {
    let pod = kind("v1", "Pod");
    let doc = || json!({"spec": {"containers": [{"name": "a"}], "x": 1}, "metadata": {"finalizers": ["a"]}});
    let why = |patch: Value| patched(pod, doc(), patch).unwrap_err();
    assert_eq!(
        why(json!({"spec": {"containers": [{"image": "x", "args": ["a", 1]}]}})),
        PatchError::Unmergeable("map: map[args:[a 1] image:x] does not contain declared merge key: name".to_owned())
    );
    assert_eq!(
        why(json!({"spec": {"$patch": "mend"}})),
        PatchError::Unmergeable("unknown patch type: mend in map: map[$patch:mend]".to_owned())
    );
    assert_eq!(
        why(json!({"spec": {"containers": [{"name": "a", "$patch": "merge"}]}})),
        PatchError::Unmergeable("merging lists cannot yet be specified in the patch".to_owned())
    );
    assert_eq!(
        why(json!({"metadata": {"finalizers": [1]}})),
        PatchError::Unmergeable("list element types are not identical: [[a] [1]]".to_owned())
    );
    assert_eq!(
        why(json!({"spec": {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]}})),
        PatchError::Unmergeable(
            "The order in patch list:\n[map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:b]]\n"
                .to_owned()
        )
    );
    for (patch, text) in [
        (json!({"spec": {"$setElementOrder": []}}), "invalid patch format of setElementOrder list"),
        (json!({"spec": {"$deleteFromPrimitiveList": []}}), "invalid patch format of primitive list"),
        (json!({"spec": {"$retainKeys": "x"}}), "invalid patch format of retainKeys"),
        (json!({"spec": {"$retainKeys": ["a"], "b": 1}}), "invalid patch format of retainKeys"),
        (json!([]), "json: cannot unmarshal array into Go value of type map[string]interface {}"),
    ] {
        assert_eq!(why(patch), PatchError::Malformed(text.to_owned()));
    }
}

/// The strategic patch that makes `to` out of `from`, as kubectl would write it.
fn difference(view: View<'_>, from: &Map<String, Value>, to: &Map<String, Value>, retain: bool) -> Map<String, Value> {
    let mut patch = Map::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, new) in to.iter().filter(|(key, new)| from.get(*key) != Some(new)) {
        let strategy = view.patch(key);
        let child = view.child(key).map_or(View::Untyped, |child| child.view);
        match (from.get(key), new) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                patch.insert(key.clone(), difference(child, old, new, strategy.retain_keys).into());
            }
            (Some(Value::Array(old)), Value::Array(new)) if strategy.merge => {
                lists(child.element(), key, strategy, old, new, &mut patch);
            }
            _ => {
                patch.insert(key.clone(), new.clone());
            }
        }
    }
    if retain && !patch.is_empty() {
        patch.insert("$retainKeys".to_owned(), to.keys().cloned().collect::<Vec<_>>().into());
    }
    patch
}

fn lists(
    view: View<'_>,
    field: &str,
    strategy: crate::schema::Patch,
    old: &[Value],
    new: &[Value],
    patch: &mut Map<String, Value>,
) {
    let Some(key) = strategy.key else {
        let gone: Vec<Value> = old.iter().filter(|value| !new.contains(value)).cloned().collect();
        let added: Vec<Value> = new.iter().filter(|value| !old.contains(value)).cloned().collect();
        patch.insert(format!("$deleteFromPrimitiveList/{field}"), gone.into());
        patch.insert(format!("$setElementOrder/{field}"), new.to_vec().into());
        patch.insert(field.to_owned(), added.into());
        return;
    };
    let find = |list: &[Value], element: &Value| list.iter().find(|other| other[key] == element[key]).cloned();
    let mut elements = Vec::new();
    for element in new {
        match find(old, element) {
            None => elements.push(element.clone()),
            Some(before) if before != *element => {
                let (Value::Object(a), Value::Object(b)) = (&before, element) else { continue };
                let mut change = difference(view, a, b, strategy.retain_keys);
                change.insert(key.to_owned(), element[key].clone());
                elements.push(change.into());
            }
            Some(_) => {}
        }
    }
    elements.extend(old.iter().filter(|e| find(new, e).is_none()).map(|e| json!({key: e[key], "$patch": "delete"})));
    let order: Vec<Value> = new.iter().map(|element| json!({key: element[key]})).collect();
    patch.insert(format!("$setElementOrder/{field}"), order.into());
    patch.insert(field.to_owned(), elements.into());
}

fn named(fields: impl Strategy<Value = Value> + Clone + 'static) -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-e]", fields, 1..4).prop_flat_map(|elements: BTreeMap<String, Value>| {
        let list: Vec<Value> = elements
            .into_iter()
            .map(|(name, mut element)| {
                element["name"] = name.into();
                element
            })
            .collect();
        Just(list).prop_shuffle().prop_map(Value::from)
    })
}

fn optional(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> impl Strategy<Value = Value> + Clone {
    let fields: Vec<_> = fields
        .into_iter()
        .map(|(name, value)| prop::option::of(value).prop_map(move |value| Some((name.to_owned(), value?))))
        .collect();
    fields.prop_map(|fields| Value::Object(fields.into_iter().flatten().collect()))
}

fn words() -> BoxedStrategy<Value> {
    prop::collection::btree_set("[a-e]", 1..4)
        .prop_flat_map(|set| Just(set.into_iter().collect::<Vec<_>>()).prop_shuffle())
        .prop_map(Value::from)
        .boxed()
}

fn random_pod() -> impl Strategy<Value = Value> {
    let text = || "[xyz]".prop_map(Value::from).boxed();
    let texts = || prop::collection::btree_map("[a-c]", "[xyz]", 1..3).prop_map(|map| json!(map)).boxed();
    let env = named(optional(vec![("value", text())])).boxed();
    let resources = optional(vec![("limits", texts()), ("requests", texts())]).boxed();
    let container = optional(vec![("image", text()), ("env", env), ("command", words()), ("resources", resources)]);
    let volume = optional(vec![("emptyDir", Just(json!({})).boxed()), ("hostPath", texts())]);
    let spec = optional(vec![
        ("containers", named(container.clone()).boxed()),
        ("initContainers", named(container).boxed()),
        ("volumes", named(volume).boxed()),
        ("nodeSelector", texts()),
        ("hostname", text()),
    ]);
    let metadata = optional(vec![("labels", texts()), ("finalizers", words())]);
    (metadata, spec).prop_map(|(metadata, spec)| json!({"metadata": metadata, "spec": spec}))
}

proptest! {
    #[test]
    fn the_difference_of_two_pods_makes_one_of_the_other(from in random_pod(), to in random_pod()) {
        let pod = kind("v1", "Pod");
        let patch = Value::Object(difference(View::of_kind(pod), from.as_object().unwrap(), to.as_object().unwrap(), false));
        let once = patched(pod, from, patch.clone()).unwrap();
        prop_assert_eq!(&once, &to, "{}", patch);
        let twice = patched(pod, once.clone(), patch).unwrap();
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn patching_by_a_pod_itself_changes_nothing(doc in random_pod()) {
        prop_assert_eq!(patched(kind("v1", "Pod"), doc.clone(), doc.clone()), Ok(doc));
    }

    #[test]
    fn nothing_panics(doc in wild(), patch in wild()) {
        let _ = patched(kind("v1", "Pod"), doc, patch);
    }
}

/// Something like a pod, with anything anywhere.
fn wild() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        Just(json!(1)),
        prop::sample::select(vec!["a", "b", "replace", "delete", "merge"]).prop_map(Value::from),
    ];
    let keys = vec![
        "spec",
        "metadata",
        "containers",
        "finalizers",
        "name",
        "env",
        "volumes",
        "$patch",
        "$retainKeys",
        "x",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/finalizers",
        "$setElementOrder/finalizers",
        "$setElementOrder",
    ];
    leaf.prop_recursive(5, 48, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(keys.clone()), inner), 0..4).prop_map(|fields| Value::Object(
                fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            )),
        ]
    })
}
