//! Lists: selectors, pages over one snapshot.

use crate::*;
use reddwarf_objects::selector::{FieldSelector, LabelSelector};
use reddwarf_registry::{Continue, ListQuery, RegistryError};
use reddwarf_store::Revision;

fn names(items: &[Object]) -> Vec<&str> {
    items.iter().map(Object::name).collect()
}

#[tokio::test]
async fn pages_show_one_snapshot_while_writers_go_on() {
    let world = World::new().await;
    for n in 0..7 {
        world.create(config(&format!("c{n}"), json!({}))).await;
    }
    let mut query = ListQuery { limit: Some(3), ..ListQuery::all(kind("configmaps")).in_namespace("default") };
    let first = world.registry.list(&query).unwrap();
    assert_eq!((names(&first.items), first.remaining), (vec!["c0", "c1", "c2"], Some(4)));
    world.registry.delete(&alice(), &config_key("c4"), &Default::default()).await.unwrap();
    world.create(config("c3a", json!({}))).await;
    let token: Continue = first.next.unwrap().to_string().parse().unwrap();
    query.after = Some(token);
    let second = world.registry.list(&query).unwrap();
    assert_eq!((names(&second.items), second.remaining), (vec!["c3", "c4", "c5"], Some(1)));
    assert_eq!(second.revision, first.revision);
    query.after = second.next;
    let third = world.registry.list(&query).unwrap();
    assert_eq!((names(&third.items), third.next), (vec!["c6"], None));
    // A limit that is met exactly by the last object has no next page.
    let exact = ListQuery { limit: Some(7), ..ListQuery::all(kind("configmaps")) };
    assert!(world.registry.list(&exact).unwrap().next.is_none());
}

#[tokio::test]
async fn selectors_choose_and_pages_count_only_what_they_chose() {
    let world = World::new().await;
    for n in 0..6 {
        let mut object = config(&format!("c{n}"), json!({}));
        object.set_label("parity", if n % 2 == 0 { "even" } else { "odd" });
        world.create(object).await;
    }
    let mut query =
        ListQuery { labels: LabelSelector::parse("parity=even").unwrap(), ..ListQuery::all(kind("configmaps")) };
    assert_eq!(names(&world.registry.list(&query).unwrap().items), ["c0", "c2", "c4"]);
    query.limit = Some(2);
    let page = world.registry.list(&query).unwrap();
    assert_eq!((names(&page.items), page.remaining), (vec!["c0", "c2"], None));
    query.after = page.next;
    assert_eq!(names(&world.registry.list(&query).unwrap().items), ["c4"]);
    let fields = FieldSelector::parse(kind("configmaps"), "metadata.name=c3").unwrap();
    let query = ListQuery { fields, ..ListQuery::all(kind("configmaps")) };
    assert_eq!(names(&world.registry.list(&query).unwrap().items), ["c3"]);
}

#[tokio::test]
async fn old_future_and_broken_positions_are_told_apart() {
    let world = World::new().await;
    let made = world.create(config("a", json!({"k": "1"}))).await;
    let at = Revision(made.resource_version().unwrap());
    world.registry.modify(&alice(), &config_key("a"), |o| o.set("/data/k", "2")).await.unwrap();
    let query = |at| ListQuery { at: Some(at), ..ListQuery::all(kind("configmaps")) };
    assert_eq!(world.registry.list(&query(at)).unwrap().items[0].get_str("/data/k"), Some("1"));
    world.registry.store().compact(world.registry.revision()).await.unwrap();
    assert!(matches!(world.registry.list(&query(at)), Err(RegistryError::Expired { .. })));
    let error = world.registry.list(&query(Revision(999_999))).unwrap_err().to_string();
    assert!(error.starts_with("Timeout: Too large resource version: 999999, current: "), "{error}");
    for bad in ["xx", "eyJ2IjoieCIsInJ2IjoxLCJzdGFydCI6ImEifQ", ""] {
        let error = bad.parse::<Continue>().unwrap_err().to_string();
        assert!(error.starts_with("invalid continue token: "), "{error}");
    }
}

#[tokio::test]
async fn b13_a_list_of_a_thousand_takes_two_reads() {
    let world = World::new().await;
    let set = (0..1000)
        .map(|n| reddwarf_registry::Declared { object: config(&format!("c{n:04}"), json!({})), source: None })
        .collect();
    world.registry.apply_set(&alice(), set, Default::default()).await.unwrap();
    let before = world.registry.counters();
    assert_eq!(world.registry.list(&ListQuery::all(kind("configmaps"))).unwrap().items.len(), 1000);
    let after = world.registry.counters();
    assert_eq!((after.lists - before.lists, after.gets - before.gets), (2, 0));
}
