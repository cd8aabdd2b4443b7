//! Events: counted, bounded, forgotten after an hour.

use crate::*;
use reddwarf_registry::{EventTarget, EventType, ListQuery};

async fn record(world: &World, target: &EventTarget, message: &str) {
    world.registry.record_event(target, EventType::Warning, "BackOff", message, "node").await.unwrap();
}

fn events(world: &World) -> Vec<Object> {
    world.registry.list(&ListQuery::all(kind("events"))).unwrap().items
}

#[tokio::test]
async fn the_same_event_is_counted_and_others_stand_beside_it() {
    let world = World::new().await;
    let web = EventTarget::of(&world.create(pod("web", "a")).await).container("main");
    record(&world, &web, "again").await;
    world.pass(10);
    record(&world, &web, "again").await;
    record(&world, &web, "something else").await;
    let all = events(&world);
    assert_eq!(all.len(), 2);
    let counted = all.iter().find(|e| e.get_str("/message") == Some("again")).unwrap();
    assert_eq!(counted.get("/count"), Some(&json!(2)));
    assert_eq!(counted.get_str("/firstTimestamp"), Some("2026-01-02T03:04:05Z"));
    assert_eq!(counted.get_str("/lastTimestamp"), Some("2026-01-02T03:04:15Z"));
    assert_eq!(counted.get_str("/involvedObject/fieldPath"), Some("spec.containers{main}"));
    assert_eq!(counted.get_str("/involvedObject/uid"), Some(web.uid.as_str()));
    assert_eq!(counted.get_str("/source/component"), Some("node"));
    assert_eq!((counted.namespace(), counted.get_str("/type")), (Some("default"), Some("Warning")));
    assert!(counted.name().starts_with("web."));
}

#[tokio::test]
async fn f43_a_chatty_object_keeps_a_bounded_number_of_its_newest() {
    let world = World::new().await;
    let web = EventTarget::of(&world.create(pod("web", "a")).await);
    for n in 0..60 {
        world.pass(1);
        // Reasons of their own, or they would be combined; from several sources, or they would not be heard.
        let (reason, source) = (format!("Reason{n}"), ["node", "volumes", "services"][n % 3]);
        let message = format!("attempt {n}");
        world.registry.record_event(&web, EventType::Warning, &reason, &message, source).await.unwrap();
    }
    let all = events(&world);
    assert_eq!(all.len(), 25);
    let oldest = all.iter().map(|e| e.get_str("/message").unwrap()).min_by_key(|m| m[8..].parse::<u32>().unwrap());
    assert_eq!(oldest, Some("attempt 35"));
    world.pass(3601);
    assert_eq!(world.registry.purge_events().await.unwrap(), 25);
    assert!(events(&world).is_empty());
}

#[tokio::test]
async fn many_similar_events_are_one_and_a_flood_is_not_written() {
    let world = World::new().await;
    let web = EventTarget::of(&world.create(pod("web", "a")).await);
    for n in 0..12 {
        world.pass(1);
        record(&world, &web, &format!("attempt {n}")).await;
    }
    let all = events(&world);
    let alone = all.iter().filter(|e| e.get("/count") == Some(&json!(1))).count();
    assert_eq!((all.len(), alone), (10, 9));
    let combined = all.iter().find(|e| e.get("/count") == Some(&json!(3))).unwrap();
    assert_eq!(combined.get_str("/message"), Some("(combined from similar events): attempt 11"));
    assert_eq!(combined.get_str("/reason"), Some("BackOff"));
    assert_eq!(combined.get_str("/firstTimestamp"), Some("2026-01-02T03:04:15Z"));
    assert_eq!(combined.get_str("/lastTimestamp"), Some("2026-01-02T03:04:17Z"));
    let before = world.registry.revision();
    for _ in 0..40 {
        record(&world, &web, "attempt 3").await;
    }
    assert_eq!(world.registry.revision().0 - before.0, 13, "25 in all");
    world.pass(300);
    record(&world, &web, "attempt 3").await;
    let all = events(&world);
    let third = all.iter().find(|e| e.get_str("/message") == Some("attempt 3")).unwrap();
    assert_eq!(third.get("/count"), Some(&json!(42)), "what was not written is counted");
}

#[tokio::test]
async fn events_about_what_has_no_namespace_go_to_default() {
    let world = World::new().await;
    let host = object(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "box"}}));
    record(&world, &EventTarget::of(&host), "x").await;
    let mut lost = EventTarget::of(&pod("gone", "a"));
    lost.namespace = Some("nons".into());
    record(&world, &lost, &"long ".repeat(1000)).await;
    let all = events(&world);
    assert!(all.iter().all(|e| e.namespace() == Some("default")));
    assert_eq!(all.iter().map(|e| e.get_str("/message").unwrap().len()).max(), Some(1024));
}
