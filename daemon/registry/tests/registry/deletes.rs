//! Deleting: preconditions, finalizers, pods' grace.

use crate::*;
use reddwarf_registry::{DeleteOptions, Deleted, Preconditions, RegistryError};

fn grace(seconds: i64) -> DeleteOptions {
    DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() }
}

async fn placed(world: &World, name: &str) -> Object {
    let mut object = pod(name, "a");
    object.set("/spec/nodeName", "box");
    world.create(object).await
}

#[tokio::test]
async fn preconditions_name_what_was_found() {
    let world = World::new().await;
    let made = world.create(config("a", json!({}))).await;
    let with = |preconditions| DeleteOptions { preconditions, ..DeleteOptions::default() };
    let uid = with(Preconditions { uid: Some("nope".into()), resource_version: None });
    let error = world.registry.delete(&alice(), &config_key("a"), &uid).await.unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (nope) does not match the UID in record ({}). The object might have been deleted and then recreated",
            made.uid().unwrap()
        )
    );
    let version = with(Preconditions { uid: None, resource_version: Some("1".into()) });
    let error = world.registry.delete(&alice(), &config_key("a"), &version).await.unwrap_err().to_string();
    assert!(error.contains("the ResourceVersion in the precondition (1) does not match"), "{error}");
    let right = with(Preconditions {
        uid: made.uid().map(str::to_owned),
        resource_version: made.resource_version().map(|r| r.to_string()),
    });
    let deleted = world.registry.delete(&alice(), &config_key("a"), &right).await.unwrap();
    assert!(matches!(deleted, Deleted::Gone(_)));
    let error = world.registry.delete(&alice(), &config_key("a"), &right).await;
    assert!(matches!(error, Err(RegistryError::NotFound(_))));
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_removed() {
    let world = World::new().await;
    let mut held = config("fin", json!({}));
    held.set("/metadata/finalizers", json!(["x.io/y"]));
    world.create(held).await;
    let key = config_key("fin");
    let Deleted::Marked(marked) = world.registry.delete(&alice(), &key, &DeleteOptions::default()).await.unwrap()
    else {
        panic!("it has a finalizer")
    };
    assert_eq!(marked.get_str("/metadata/deletionTimestamp"), Some("2026-01-02T03:04:05Z"));
    assert_eq!(marked.deletion_grace_period_seconds(), Some(0));
    let again = world.registry.delete(&alice(), &key, &DeleteOptions::default()).await.unwrap();
    assert_eq!(again.object(), &marked, "deleting twice changes nothing");
    let more = json!({"metadata": {"finalizers": ["x.io/y", "new.io/z"]}});
    let error =
        world.registry.patch(&alice(), &key, Part::Main, merge(&more), &WriteOptions::default()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "ConfigMap \"fin\" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"new.io/z\"}"
    );
    let none = json!({"metadata": {"finalizers": null}});
    let written =
        world.registry.patch(&alice(), &key, Part::Main, merge(&none), &WriteOptions::default()).await.unwrap();
    assert!(written.deleted);
    assert!(world.registry.find(&key).unwrap().is_none());
}

#[tokio::test]
async fn a_pod_on_a_node_waits_for_the_node_with_this_uid() {
    let world = World::new().await;
    let made = placed(&world, "web").await;
    let key = pod_key("web");
    let deleted = world.registry.delete(&alice(), &key, &DeleteOptions::default()).await.unwrap();
    let Deleted::Marked(marked) = deleted else { panic!("it runs") };
    assert_eq!(marked.deletion_grace_period_seconds(), Some(30));
    assert_eq!(marked.get_str("/metadata/deletionTimestamp"), Some("2026-01-02T03:04:35Z"), "the end of the grace");
    // Shorter counts, longer does not.
    world.registry.delete(&alice(), &key, &grace(300)).await.unwrap();
    let shorter = world.registry.delete(&alice(), &key, &grace(5)).await.unwrap();
    assert_eq!(shorter.object().deletion_grace_period_seconds(), Some(5));
    // Status of a marked pod can be written; that does not remove it.
    world.registry.modify_status(&node(), &key, |o| o.set("/status/phase", "Succeeded")).await.unwrap();
    assert!(!world.registry.finish_delete(&key, "another uid").await.unwrap());
    assert!(world.registry.find(&key).unwrap().is_some());
    assert!(world.registry.finish_delete(&key, made.uid().unwrap()).await.unwrap());
    assert!(world.registry.find(&key).unwrap().is_none());
    assert!(!world.registry.finish_delete(&key, made.uid().unwrap()).await.unwrap(), "safe to repeat");
}

#[tokio::test]
async fn grace_zero_and_pods_that_never_had_a_node_go_at_once() {
    let world = World::new().await;
    placed(&world, "forced").await;
    let forced = world.registry.delete(&alice(), &pod_key("forced"), &grace(0)).await.unwrap();
    assert!(matches!(forced, Deleted::Gone(_)));
    world.create(pod("waiting", "a")).await;
    let waiting = world.registry.delete(&alice(), &pod_key("waiting"), &DeleteOptions::default()).await.unwrap();
    assert!(matches!(waiting, Deleted::Gone(_)));
}

#[tokio::test]
async fn a_stopped_pod_with_finalizers_goes_with_the_last_of_them() {
    let world = World::new().await;
    let mut held = pod("web", "a");
    held.set("/spec/nodeName", "box");
    held.set("/metadata/finalizers", json!(["x.io/y"]));
    let made = world.create(held).await;
    let key = pod_key("web");
    world.registry.delete(&alice(), &key, &DeleteOptions::default()).await.unwrap();
    assert!(world.registry.finish_delete(&key, made.uid().unwrap()).await.unwrap());
    assert_eq!(world.registry.get(&key).unwrap().deletion_grace_period_seconds(), Some(0));
    let none = json!({"metadata": {"finalizers": null}});
    assert!(
        world.registry.patch(&alice(), &key, Part::Main, merge(&none), &WriteOptions::default()).await.unwrap().deleted
    );
}

#[tokio::test]
async fn f41_a_delete_during_concurrent_writes_wins_or_loses_whole() {
    let world = World::new().await;
    for round in 0..8 {
        let name = format!("c{round}");
        let made = world.create(config(&name, json!({"n": "0"}))).await;
        let key = config_key(&name);
        let (registry, uid) = (world.registry.clone(), made.uid().unwrap().to_owned());
        let (k, u) = (key.clone(), uid.clone());
        let writer = tokio::spawn(async move {
            for n in 0..10 {
                match registry.modify(&alice(), &k, |o| o.set("/data/n", n.to_string())).await {
                    Ok(written) => assert_eq!(written.object.uid(), Some(u.as_str())),
                    Err(RegistryError::NotFound(_)) => return,
                    Err(e) => panic!("{e}"),
                }
            }
        });
        world.registry.delete(&alice(), &key, &DeleteOptions::default()).await.unwrap();
        writer.await.unwrap();
        assert!(world.registry.find(&key).unwrap().is_none(), "a write never revives a deleted object");
    }
}

#[tokio::test]
async fn an_evicted_pod_says_why_it_goes() {
    let world = World::new().await;
    placed(&world, "p").await;
    let version = |object: &Object| object.resource_version().map(|v| v.to_string());
    let asked = |uid: Option<&str>, resource_version| DeleteOptions {
        preconditions: Preconditions { uid: uid.map(str::to_owned), resource_version },
        ..grace(30)
    };
    let conditions = || world.registry.get(&pod_key("p")).unwrap().get("/status/conditions").cloned();
    let wrong = world.registry.evict(&alice(), &pod_key("p"), &asked(Some("nope"), None)).await;
    assert!(matches!(wrong, Err(RegistryError::Precondition { .. })), "{wrong:?}");
    let rehearsed = DeleteOptions { dry_run: true, ..grace(30) };
    world.registry.evict(&alice(), &pod_key("p"), &rehearsed).await.unwrap();
    assert_eq!(conditions(), None, "what is not deleted is not marked");
    let now = version(&world.registry.get(&pod_key("p")).unwrap());
    world.registry.evict(&alice(), &pod_key("p"), &asked(None, now)).await.unwrap();
    let going = world.registry.get(&pod_key("p")).unwrap();
    assert!(going.deletion_timestamp().is_some());
    let mark = json!([{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": "2026-01-02T03:04:05Z"}]);
    assert_eq!(conditions(), Some(mark.clone()));
    // A second time the mark is there already.
    world.pass(5);
    world.registry.evict(&alice(), &pod_key("p"), &grace(30)).await.unwrap();
    assert_eq!(conditions(), Some(mark));
}

#[tokio::test]
async fn a_pod_that_has_ended_waits_for_no_grace() {
    let world = World::new().await;
    for (name, phase) in [("done", "Succeeded"), ("broken", "Failed"), ("running", "Running")] {
        placed(&world, name).await;
        let node = Author::System("node");
        world.registry.modify_status(&node, &pod_key(name), |pod| pod.set("/status/phase", phase)).await.unwrap();
        let deleted = world.registry.delete(&alice(), &pod_key(name), &grace(30)).await.unwrap();
        assert_eq!(matches!(deleted, Deleted::Gone(_)), phase != "Running", "{phase}");
    }
}
