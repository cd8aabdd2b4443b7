//! Two managers and others over random configurations, against what everybody may rely on.

use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;

/// What is done to a pod's spec.
#[derive(Clone, Debug)]
enum Step {
    Apply { manager: &'static str, config: Value, force: bool },
    Update { manager: &'static str, spec: Value },
}

fn spec() -> impl Strategy<Value = Value> {
    let text = || prop::sample::select(vec!["x", "y"]).prop_map(Value::from);
    let env = prop::collection::btree_map("[a-b]", prop::option::of(text()), 0..3);
    let env = env.prop_map(|map| {
        map.into_iter()
            .map(|(name, value)| {
                value.map_or_else(|| json!({"name": name}), |value| json!({"name": name, "value": value}))
            })
            .collect::<Vec<_>>()
    });
    let resources = prop::collection::btree_map("[a-b]", prop::sample::select(vec!["1", "2"]), 0..3);
    let command = prop::collection::vec(text(), 0..2);
    let container =
        (prop::option::of(text()), prop::option::of(env), prop::option::of(command), prop::option::of(resources))
            .prop_map(|(image, env, command, limits)| {
                let mut container = json!({});
                let fields = [("image", image), ("env", env.map(Value::from)), ("command", command.map(Value::from))];
                for (field, value) in fields.into_iter().filter_map(|(field, value)| Some((field, value?))) {
                    container[field] = value;
                }
                if let Some(limits) = limits {
                    container["resources"] = json!({"limits": limits});
                }
                container
            });
    let containers = prop::collection::btree_map("[a-c]", container, 0..3).prop_flat_map(|map| {
        let list: Vec<Value> = map
            .into_iter()
            .map(|(name, mut container)| {
                container["name"] = name.into();
                container
            })
            .collect();
        Just(list).prop_shuffle()
    });
    let selector = prop::collection::btree_map("[a-b]", text(), 0..2);
    let user = (prop::option::of(0..2), prop::option::of(0..2)).prop_map(|(user, group)| {
        let mut context = json!({});
        if let Some(user) = user {
            context["runAsUser"] = json!(user);
        }
        if let Some(group) = group {
            context["runAsGroup"] = json!(group);
        }
        context
    });
    (prop::option::of(text()), prop::option::of(containers), prop::option::of(selector), prop::option::of(user))
        .prop_map(|(hostname, containers, selector, context)| {
            let mut spec = json!({});
            let fields = [
                ("hostname", hostname),
                ("containers", containers.map(Value::from)),
                ("nodeSelector", selector.map(|map| json!(map))),
                ("securityContext", context),
            ];
            for (field, value) in fields.into_iter().filter_map(|(field, value)| Some((field, value?))) {
                spec[field] = value;
            }
            spec
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let manager = || prop::sample::select(vec!["one", "two", "three"]);
    let apply =
        (manager(), spec(), any::<bool>()).prop_map(|(manager, config, force)| Step::Apply { manager, config, force });
    let update = (manager(), spec()).prop_map(|(manager, spec)| Step::Update { manager, spec });
    prop::collection::vec(prop_oneof![3 => apply, 1 => update], 1..8)
}

fn pod(spec: &Value) -> Object {
    Object::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})).unwrap()
}

/// The fields that a document names, as printed paths.
fn fields(object: &Object) -> BTreeSet<String> {
    let set = extract::object(View::of_kind(kind("v1", "Pod")), object.map());
    Reach::Whole.limit(set).print().into_iter().collect()
}

/// The scalars and atomic values of a document by path.
fn leaves(object: &Object) -> BTreeMap<String, Value> {
    fn walk(view: View<'_>, path: &str, value: &Value, out: &mut BTreeMap<String, Value>) {
        match (view.shape(value), value) {
            (crate::schema::Shape::Map, Value::Object(map)) => {
                for (key, value) in map {
                    let child = view.child(key).map_or(View::Untyped, |child| child.view);
                    walk(child, &format!("{path}.{key}"), value, out);
                }
            }
            (crate::schema::Shape::List(elements), Value::Array(list)) => {
                for value in list {
                    let step = element::print(&element::element(elements, value).unwrap());
                    walk(elements.view, &format!("{path}{step}"), value, out);
                }
            }
            _ => drop(out.insert(path.to_owned(), value.clone())),
        }
    }
    let mut out = BTreeMap::new();
    let spec = View::of_kind(kind("v1", "Pod")).child("spec").unwrap().view;
    walk(spec, ".spec", object.get("/spec").unwrap_or(&json!({})), &mut out);
    out
}

fn owned_by(object: &Object, manager: &str, operation: Operation) -> BTreeSet<String> {
    Managed::stored(managed::list(object).cloned())
        .0
        .into_iter()
        .filter(|entry| entry.owner.manager == manager && entry.owner.operation == operation)
        .flat_map(|entry| entry.fields.print())
        .collect()
}

fn all_owned(object: &Object) -> BTreeSet<String> {
    owners(object).into_values().flatten().collect()
}

fn without_list(object: &Object) -> Object {
    let mut bare = object.clone();
    drop(managed::take_list(&mut bare));
    bare
}

/// After an apply that went through.
fn check_applied(before: Option<&Object>, after: &Object, config: &Object, manager: &str) -> Result<(), TestCaseError> {
    // What was applied holds, and is owned.
    let (found, wanted) = (leaves(after), leaves(config));
    for (path, value) in &wanted {
        prop_assert_eq!(found.get(path), Some(value), "{} of {:?}", path, after);
    }
    prop_assert_eq!(owned_by(after, manager, Operation::Apply), fields(config));
    // Applied again, nothing changes.
    let again = apply(kind("v1", "Pod"), Some(after), config, &by(manager), false, at(59));
    prop_assert_eq!(again.as_ref().map(Object::to_json), Ok(after.to_json()));
    let Some(before) = before else { return Ok(()) };
    let (old, mine) = (leaves(before), owned_by(before, manager, Operation::Apply));
    for (path, value) in old.iter().filter(|(path, _)| !wanted.contains_key(*path)) {
        // What the manager did not apply stays as it was, but for what was in an element or map that it lets go.
        let let_go = mine.iter().any(|field| path.starts_with(field.as_str()) && !all_owned(after).contains(field));
        let under_null = config.get("/spec").is_some_and(Value::is_null);
        if !let_go && !under_null {
            prop_assert_eq!(found.get(path), Some(value), "{} was lost", path);
        }
    }
    for path in found.keys().filter(|path| !wanted.contains_key(*path)) {
        prop_assert!(
            old.contains_key(path) || old.keys().any(|was| was.starts_with(path.as_str())),
            "{} came from nowhere",
            path
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn ownership_holds(steps in steps()) {
        let pods = kind("v1", "Pod");
        let mut live: Option<Object> = None;
        for (step, second) in steps.into_iter().zip(1..) {
            match step {
                Step::Apply { manager, config, force } => {
                    let config = pod(&config);
                    match apply(pods, live.as_ref(), &config, &by(manager), force, at(second)) {
                        Ok(after) => {
                            check_applied(live.as_ref(), &after, &config, manager)?;
                            live = Some(after);
                        }
                        Err(ApplyError::Conflicts { conflicts, .. }) => {
                            prop_assert!(!force);
                            let live = live.as_ref().unwrap();
                            let (old, new) = (leaves(live), leaves(&config));
                            for conflict in conflicts {
                                let is_tracked = managed::list(live).is_some();
                                prop_assert!(all_owned(live).contains(&conflict.field) || !is_tracked);
                                prop_assert!(old.get(&conflict.field) != new.get(&conflict.field));
                            }
                        }
                        Err(other) => return Err(TestCaseError::fail(other.to_string())),
                    }
                }
                Step::Update { manager, spec } => {
                    let mut new = pod(&spec);
                    let bare = new.clone();
                    track(pods, live.as_ref(), &mut new, &by(manager), at(second));
                    prop_assert_eq!(&without_list(&new), &bare);
                    let mut again = new.clone();
                    track(pods, Some(&new), &mut again, &by("another"), at(59));
                    prop_assert_eq!(&again, &new);
                    live = Some(new);
                }
            }
            // Nobody owns what is not there, and every leaf has an owner.
            let live = live.as_ref().unwrap_or(&pod(&json!({}))).clone();
            let (there, owned) = (leaves(&live), all_owned(&live));
            // An object that nobody began to own is not tracked.
            for path in there.keys().filter(|_| managed::list(&live).is_some()) {
                prop_assert!(owned.contains(path), "{} is nobody's: {}", path, live.to_json());
            }
            let everything = fields(&live);
            for path in &owned {
                let is_there = everything.iter().any(|field| field.starts_with(path.as_str()));
                let is_list_or_map = there.keys().chain(&everything).any(|field| path.starts_with(field.as_str()));
                prop_assert!(is_there || is_list_or_map || path == ".spec" || path.ends_with("containers") || path.ends_with("env"), "{} is not there: {}", path, live.to_json());
            }
        }
    }

    #[test]
    fn nothing_panics(list in crate::patch::arbitrary::value(), entry in crate::patch::arbitrary::map(), spec in crate::patch::arbitrary::value(), config in crate::patch::arbitrary::map()) {
        let pods = kind("v1", "Pod");
        for list in [list, json!([entry]), json!([{"manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": entry}])] {
            let mut live = pod(&spec);
            live.set("/metadata/managedFields", list.clone());
            let mut new = pod(&config);
            new.set("/metadata/managedFields", list);
            track(pods, Some(&live), &mut new, &by("m"), at(1));
            let _ = apply(pods, Some(&live), &pod(&config), &by("m"), true, at(1));
            let widget = Kind { group: "example.com", kind: "Widget", ..pods.clone() };
            let mut config = pod(&config);
            config.set("/apiVersion", "example.com/v1");
            config.set("/kind", "Widget");
            let _ = apply(&widget, Some(&live), &config, &by("m"), true, at(1));
            keep_times(&live, &mut config);
        }
    }
}
