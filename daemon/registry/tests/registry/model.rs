//! Random writes against a model that knows the rules in a few lines.

use crate::*;
use proptest::prelude::*;
use reddwarf_objects::SOURCE_ANNOTATION;
use reddwarf_registry::{ApplyOptions, ListQuery, PruneScope, RegistryError, WatchEventType};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Op {
    Create {
        name: usize,
        value: u8,
    },
    Put {
        name: usize,
        value: u8,
        version: Version,
    },
    Patch {
        name: usize,
        value: u8,
    },
    Label {
        name: usize,
        value: u8,
    },
    Delete {
        name: usize,
    },
    /// The directory as a whole: each entry declares `c{index}` with this value.
    Directory {
        declared: Vec<Option<u8>>,
    },
}

#[derive(Clone, Copy, Debug)]
enum Version {
    None,
    Current,
    Stale,
}

const NAMES: usize = 3;

fn op() -> impl Strategy<Value = Op> {
    let (name, value) = (0..NAMES, 0..3u8);
    let version = prop_oneof![Just(Version::None), Just(Version::Current), Just(Version::Stale)];
    prop_oneof![
        3 => (name.clone(), value.clone()).prop_map(|(name, value)| Op::Create { name, value }),
        3 => (name.clone(), value.clone(), version).prop_map(|(name, value, version)| Op::Put { name, value, version }),
        2 => (name.clone(), value.clone()).prop_map(|(name, value)| Op::Patch { name, value }),
        2 => (name.clone(), value.clone()).prop_map(|(name, value)| Op::Label { name, value }),
        2 => name.prop_map(|name| Op::Delete { name }),
        2 => prop::collection::vec(prop::option::of(value), NAMES).prop_map(|declared| Op::Directory { declared }),
    ]
}

/// What is there by the rules.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    value: u8,
    label: Option<u8>,
    file: bool,
}

fn data(value: u8) -> Value {
    json!({"k": value.to_string()})
}

/// What one step did and what the rules say.
#[derive(Debug, PartialEq)]
enum Outcome {
    Done,
    Exists,
    Missing,
    Conflict,
    Owned,
}

fn outcome<T>(result: Result<T, RegistryError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Done,
        Err(RegistryError::AlreadyExists(_)) => Outcome::Exists,
        Err(RegistryError::NotFound(_)) => Outcome::Missing,
        Err(RegistryError::Conflict(_)) => Outcome::Conflict,
        Err(RegistryError::FileOwned { .. }) => Outcome::Owned,
        Err(e) => panic!("{e}"),
    }
}

async fn step(world: &World, model: &mut BTreeMap<usize, Model>, op: &Op) {
    let (registry, none) = (&world.registry, WriteOptions::default());
    let key = |name: usize| config_key(&format!("c{name}"));
    let named = |name: usize, value: u8| config(&format!("c{name}"), data(value));
    // A change of what a file declares is refused; the same again is no change.
    let owned = |m: &Model, value: u8| m.file && m.value != value;
    let (got, wanted) = match op.clone() {
        Op::Create { name, value } => {
            let got = outcome(registry.create(&alice(), named(name, value), none).await);
            let wanted = if model.contains_key(&name) { Outcome::Exists } else { Outcome::Done };
            model.entry(name).or_insert(Model { value, ..Model::default() });
            (got, wanted)
        }
        Op::Put { name, value, version } => {
            let live = registry.find(&key(name)).unwrap();
            let mut object = live.clone().unwrap_or_else(|| named(name, value));
            object.set("/data", data(value));
            let revision = live.and_then(|o| o.resource_version());
            object.set_resource_version(match version {
                Version::None => None,
                Version::Current => revision,
                Version::Stale => Some(1),
            });
            let got = outcome(registry.update(&alice(), object, none).await);
            let wanted = match model.get_mut(&name) {
                None => Outcome::Missing,
                Some(_) if matches!(version, Version::Stale) => Outcome::Conflict,
                Some(m) if owned(m, value) => Outcome::Owned,
                Some(m) => {
                    m.value = value;
                    Outcome::Done
                }
            };
            (got, wanted)
        }
        Op::Patch { name, value } => {
            let got = outcome(
                registry.patch(&alice(), &key(name), Part::Main, merge(&json!({"data": data(value)})), &none).await,
            );
            let wanted = match model.get_mut(&name) {
                None => Outcome::Missing,
                Some(m) if owned(m, value) => Outcome::Owned,
                Some(m) => {
                    m.value = value;
                    Outcome::Done
                }
            };
            (got, wanted)
        }
        Op::Label { name, value } => {
            let label = value.to_string();
            let got = outcome(registry.modify(&alice(), &key(name), |o| o.set_label("l", &label)).await);
            let wanted = match model.get_mut(&name) {
                None => Outcome::Missing,
                Some(m) => {
                    m.label = Some(value);
                    Outcome::Done
                }
            };
            (got, wanted)
        }
        Op::Delete { name } => {
            let got = outcome(registry.delete(&alice(), &key(name), &Default::default()).await);
            let wanted = match model.get(&name) {
                None => Outcome::Missing,
                Some(m) if m.file => Outcome::Owned,
                Some(_) => {
                    model.remove(&name);
                    Outcome::Done
                }
            };
            (got, wanted)
        }
        Op::Directory { declared } => {
            let declared: Vec<(usize, u8)> =
                declared.iter().enumerate().filter_map(|(n, v)| Some((n, (*v)?))).collect();
            let set = declared.iter().map(|(n, v)| from_file(named(*n, *v), "/etc/reddwarf.d/x.yaml")).collect();
            let options = ApplyOptions {
                prune: PruneScope::FileOwned { keep_sources: Default::default() },
                ..Default::default()
            };
            registry.apply_set(&file(), set, options).await.unwrap();
            model.retain(|name, m| !m.file || declared.iter().any(|(n, _)| n == name));
            for (name, value) in declared {
                let m = model.entry(name).or_default();
                (m.value, m.file) = (value, true);
            }
            (Outcome::Done, Outcome::Done)
        }
    };
    assert_eq!(got, wanted, "{op:?} on {model:?}");
}

fn seen(object: &Object) -> Model {
    Model {
        value: object.get_str("/data/k").unwrap().parse().unwrap(),
        label: object.label("l").map(|l| l.parse().unwrap()),
        file: object.annotation(SOURCE_ANNOTATION).is_some(),
    }
}

fn live(world: &World) -> BTreeMap<usize, (Object, Model)> {
    let list = world.registry.list(&ListQuery::all(kind("configmaps"))).unwrap();
    list.items.into_iter().map(|o| (o.name()[1..].parse().unwrap(), (o.clone(), seen(&o)))).collect()
}

async fn run(ops: Vec<Op>) {
    let world = World::new().await;
    let start = world.registry.revision();
    let mut model = BTreeMap::new();
    for op in &ops {
        let (before, revision) = (live(&world), world.registry.revision());
        step(&world, &mut model, op).await;
        let after = live(&world);
        let shown: BTreeMap<usize, Model> = after.iter().map(|(n, (_, m))| (*n, m.clone())).collect();
        assert_eq!(shown, model, "after {op:?}");
        for (name, (object, _)) in &after {
            let old = before.get(name).map(|(o, _)| o);
            let same = old.is_some_and(|o| o.resource_version() == object.resource_version());
            assert_eq!(same, old == Some(object), "a new version exactly when something differs");
            if let Some(old) = old.filter(|o| o.uid() == object.uid()) {
                assert_eq!(old.creation_timestamp(), object.creation_timestamp());
            }
            assert!(object.resource_version().unwrap() <= world.registry.revision().get());
        }
        assert!(world.registry.revision() >= revision);
    }
    // A watcher from the start sees each change once and ends with the same.
    let mut watch = world.registry.watch(&ListQuery::all(kind("configmaps")), start).unwrap();
    let mut told: BTreeMap<String, Object> = BTreeMap::new();
    let end: BTreeMap<String, Object> = live(&world).into_values().map(|(o, _)| (o.name().to_owned(), o)).collect();
    let mut last = start;
    while told != end {
        let event = watch.next().await.unwrap();
        assert!(event.revision >= last);
        last = event.revision;
        let name = event.object.name().to_owned();
        let known = match event.kind {
            WatchEventType::Deleted => told.remove(&name),
            _ => told.insert(name, event.object),
        };
        assert_eq!(known.is_none(), event.kind == WatchEventType::Added);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_registry_does_what_the_model_says(ops in prop::collection::vec(op(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(ops));
    }
}
