//! Watches: every event once and in order, selectors, resuming from any revision.

use crate::*;
use WatchEventType::{Added, Deleted, Modified};
use reddwarf_objects::selector::LabelSelector;
use reddwarf_registry::{ListQuery, WatchError, WatchEventType};
use reddwarf_store::Revision;
use std::collections::BTreeMap;

#[tokio::test]
async fn objects_enter_and_leave_a_selector() {
    let world = World::new().await;
    let query = ListQuery { labels: LabelSelector::parse("app=web").unwrap(), ..ListQuery::all(kind("configmaps")) };
    let (list, mut watch) = world.registry.list_and_watch(&query).unwrap();
    assert!(list.items.is_empty());
    let key = config_key("a");
    world.create(config("other", json!({}))).await;
    world.create(config("a", json!({"k": "1"}))).await;
    let label = |value: &'static str| move |o: &mut Object| o.set_label("app", value);
    world.registry.modify(&alice(), &key, label("web")).await.unwrap();
    world.registry.modify(&alice(), &key, |o| o.set("/data/k", "2")).await.unwrap();
    let left = world.registry.modify(&alice(), &key, label("db")).await.unwrap().object;
    world.registry.modify(&alice(), &key, label("web")).await.unwrap();
    world.registry.delete(&alice(), &key, &Default::default()).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(watch.next().await.unwrap());
    }
    assert_eq!(seen.iter().map(|e| e.kind).collect::<Vec<_>>(), [Added, Modified, Deleted, Added, Deleted]);
    assert_eq!(seen[2].object.label("app"), Some("web"), "as the watcher knew it");
    assert_eq!(seen[2].object.resource_version(), left.resource_version(), "with the version that took it away");
    assert_eq!(seen[4].revision, world.registry.revision());
    assert!(seen.windows(2).all(|w| w[0].revision < w[1].revision));
    assert_eq!(watch.revision(), world.registry.revision());
}

/// Replays a random history to watchers that come and go, each resuming where it was: all end with the truth.
#[tokio::test]
async fn b09_resuming_anywhere_sees_each_event_exactly_once() {
    let world = World::new().await;
    let start = world.registry.revision();
    let mut random = 0x5eed_u64;
    let mut next = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize
    };
    let mut history = vec![(start, BTreeMap::new())];
    let mut model: BTreeMap<String, String> = BTreeMap::new();
    for step in 0..120 {
        let name = format!("c{}", next() % 5);
        let key = config_key(&name);
        let value = step.to_string();
        let there = model.contains_key(&name);
        if !there {
            world.create(config(&name, json!({"k": value}))).await;
            model.insert(name, value);
        } else if next() % 3 == 0 {
            world.registry.delete(&alice(), &key, &Default::default()).await.unwrap();
            model.remove(&name);
        } else {
            world.registry.modify(&alice(), &key, |o| o.set("/data/k", value.clone())).await.unwrap();
            model.insert(name, value);
        }
        history.push((world.registry.revision(), model.clone()));
    }
    let end = world.registry.revision();
    for (from, state) in &history {
        let mut state = state.clone();
        let mut at = *from;
        while at < end {
            // A new watch every few events, from where the last one got to.
            let mut watch = world.registry.watch(&ListQuery::all(kind("configmaps")), at).unwrap();
            for _ in 0..=next() % 7 {
                if at == end {
                    break;
                }
                let event = watch.next().await.unwrap();
                assert_eq!(event.revision, Revision(at.get() + 1), "no event is missed or repeated");
                at = event.revision;
                let name = event.object.name().to_owned();
                match event.kind {
                    Added => assert!(state.insert(name, event.object.get_str("/data/k").unwrap().to_owned()).is_none()),
                    Modified => {
                        assert!(state.insert(name, event.object.get_str("/data/k").unwrap().to_owned()).is_some())
                    }
                    Deleted => assert!(state.remove(&name).is_some()),
                }
            }
        }
        assert_eq!(state, model);
    }
}

#[tokio::test]
async fn too_old_and_future_positions_are_told() {
    let world = World::new().await;
    let start = world.registry.revision();
    world.create(config("a", json!({}))).await;
    world.create(config("b", json!({}))).await;
    world.registry.store().compact(world.registry.revision()).await.unwrap();
    let query = ListQuery::all(kind("configmaps"));
    let error = world.registry.watch(&query, start).err().unwrap();
    assert!(matches!(error, WatchError::Expired { .. }), "{error}");
    assert!(error.to_string().starts_with(&format!("too old resource version: {start} (")), "{error}");
    let future = world.registry.watch(&query, Revision(9999)).err().unwrap();
    assert!(matches!(future, WatchError::TooLarge { .. }), "{future}");
}

#[tokio::test]
async fn b08_a_watcher_that_sleeps_through_everything_still_sees_everything() {
    let world = World::with(|options| options.recent_bytes = 4096).await;
    let query = ListQuery::all(kind("configmaps"));
    let mut watch = world.registry.watch(&query, world.registry.revision()).unwrap();
    let set = |round: usize| {
        let object = |n: usize| config(&format!("c{n}"), json!({"k": format!("{round}")}));
        (0..20).map(|n| Declared { object: object(n), source: None }).collect()
    };
    for round in 0..20 {
        world.registry.apply_set(&alice(), set(round), Default::default()).await.unwrap();
    }
    for round in 0..20 {
        for _ in 0..20 {
            let event = watch.next().await.unwrap();
            assert_eq!(event.object.get_str("/data/k"), Some(round.to_string().as_str()));
            assert_eq!(event.kind, if round == 0 { Added } else { Modified });
        }
    }
}
