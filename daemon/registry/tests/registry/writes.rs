//! Single writes: bookkeeping, compare-and-swap, no-ops, ownership.

use crate::*;
use reddwarf_objects::SOURCE_ANNOTATION;
use reddwarf_registry::{ApplyOptions, ListQuery, RegistryError, store_key};

#[tokio::test]
async fn a_new_object_gets_its_bookkeeping_and_reads_back_the_same() {
    let world = World::new().await;
    let mut sent = pod("web", "a:1");
    for (field, value) in [("uid", "mine"), ("deletionTimestamp", "2020-01-01T00:00:00Z"), ("selfLink", "/x")] {
        sent.set(&format!("/metadata/{field}"), value);
    }
    sent.set("/metadata/generation", 7);
    sent.set("/status", json!({"phase": "Running"}));
    let made = world.create(sent).await;
    assert_eq!(made.uid().map(str::len), Some(36));
    assert_eq!(made.get_str("/metadata/creationTimestamp"), Some("2026-01-02T03:04:05Z"));
    assert_eq!(made.generation(), Some(1));
    assert_eq!(made.deletion_timestamp(), None);
    assert_eq!(made.get("/metadata/selfLink"), None);
    assert_eq!(made.get_str("/status/phase"), Some("Pending"), "status is not the client's to create");
    assert_eq!(made.resource_version(), Some(world.registry.revision().get()));
    assert_eq!(world.registry.get(&pod_key("web")).unwrap(), made);
}

#[tokio::test]
async fn u05_the_version_is_never_stored_and_each_write_is_one_transaction() {
    let world = World::new().await;
    let before = world.registry.counters();
    let made = world.create(config("a", json!({"k": "1"}))).await;
    let mut changed = made.clone();
    changed.set("/data/k", "2");
    world.registry.update(&alice(), changed, WriteOptions::default()).await.unwrap();
    let stored = world.registry.store().get(&store_key(&config_key("a")).unwrap()).unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&stored.value).contains("resourceVersion"));
    let read = world.registry.get(&config_key("a")).unwrap();
    assert_eq!(read.resource_version(), Some(stored.modified.get()), "what is read carries the version just written");
    world.registry.delete(&alice(), &config_key("a"), &Default::default()).await.unwrap();
    let after = world.registry.counters();
    assert_eq!(after.commits - before.commits, 3, "create, update, delete: one store transaction each");
    // create: the namespace; update: the object; read: the object; delete: the object, then its namespace.
    assert_eq!(after.gets - before.gets, 5);
    assert_eq!(after.retries, before.retries);
}

#[tokio::test]
async fn b05_thirty_two_writers_lose_no_update() {
    let world = World::new().await;
    world.create(config("counter", json!({"n": "0"}))).await;
    let mut tasks = Vec::new();
    for writer in 0..32 {
        let registry = world.registry.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..4 {
                if writer % 2 == 0 {
                    put_retry(&registry).await;
                } else {
                    registry.modify(&alice(), &config_key("counter"), bump).await.unwrap();
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(world.registry.get(&config_key("counter")).unwrap().get_str("/data/n"), Some("128"));
}

fn bump(object: &mut Object) {
    let n: u32 = object.get_str("/data/n").unwrap().parse().unwrap();
    object.set("/data/n", (n + 1).to_string());
}

/// What a careful client does: read, change, PUT with the version read, again on conflict.
async fn put_retry(registry: &Registry) {
    loop {
        let mut object = registry.get(&config_key("counter")).unwrap();
        bump(&mut object);
        match registry.update(&alice(), object, WriteOptions::default()).await {
            Ok(_) => return,
            Err(RegistryError::Conflict(_)) => tokio::task::yield_now().await,
            Err(e) => panic!("{e}"),
        }
    }
}

#[tokio::test]
async fn a_stale_version_is_refused_and_none_means_last_writer_wins() {
    let world = World::new().await;
    let first = world.create(config("a", json!({"k": "1"}))).await;
    let mut second = first.clone();
    second.set("/data/k", "2");
    world.registry.update(&alice(), second, WriteOptions::default()).await.unwrap();
    let mut stale = first.clone();
    stale.set("/data/k", "3");
    let error = world.registry.update(&alice(), stale.clone(), WriteOptions::default()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    stale.set_resource_version(None);
    let written = world.registry.update(&alice(), stale, WriteOptions::default()).await.unwrap();
    assert_eq!(written.object.get_str("/data/k"), Some("3"));
    let patch =
        json!({"metadata": {"resourceVersion": first.resource_version().unwrap().to_string()}, "data": {"k": "4"}});
    let error =
        world.registry.patch(&alice(), &config_key("a"), Part::Main, merge(&patch), &WriteOptions::default()).await;
    assert!(matches!(error, Err(RegistryError::Conflict(_))));
    let mut other = world.registry.get(&config_key("a")).unwrap();
    other.set_uid("11111111-2222-3333-4444-555555555555");
    let error = world.registry.update(&alice(), other, WriteOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("Precondition failed: UID in precondition: 11111111"), "{error}");
}

#[tokio::test]
async fn b07_identical_writes_make_no_version_and_no_event() {
    let world = World::new().await;
    let made = world.create(config("a", json!({"k": "1"}))).await;
    let mut watch = world.registry.watch(&ListQuery::all(kind("configmaps")), world.registry.revision()).unwrap();
    for _ in 0..50 {
        let put = world.registry.update(&alice(), made.clone(), WriteOptions::default()).await.unwrap();
        let patch = json!({"data": {"k": "1"}});
        let patched = world
            .registry
            .patch(&alice(), &config_key("a"), Part::Main, merge(&patch), &WriteOptions::default())
            .await
            .unwrap();
        assert!(!put.changed && !patched.changed);
        assert_eq!(patched.object, made);
    }
    world.create(config("b", json!({}))).await;
    assert_eq!(watch.next().await.unwrap().object.name(), "b", "nothing in between");
}

#[tokio::test]
async fn b06_generation_counts_changes_of_the_spec_only() {
    let world = World::new().await;
    let deployment = object(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "a"}]}}},
    }));
    let made = world.create(deployment).await;
    let key = made.key(kind("deployments"));
    let generation = |w: reddwarf_registry::Written| w.object.generation();
    let labelled = world.registry.modify(&alice(), &key, |o| o.set_label("a", "b")).await.unwrap();
    assert_eq!(generation(labelled), Some(1));
    let status = |o: &mut Object| {
        o.set("/status/replicas", 1);
        o.set("/spec/replicas", 99);
    };
    let reported = world.registry.modify_status(&node(), &key, status).await.unwrap().object;
    assert_eq!(reported.generation(), Some(1));
    assert_eq!(reported.get("/spec/replicas"), Some(&json!(1)), "a status write touches status only");
    let scale = |o: &mut Object| {
        o.set("/spec/replicas", 2);
        o.set("/status/replicas", 5);
        o.set_generation(40);
    };
    let scaled = world.registry.modify(&alice(), &key, scale).await.unwrap().object;
    assert_eq!(scaled.generation(), Some(2));
    assert_eq!(scaled.get("/status/replicas"), Some(&json!(1)), "a spec write leaves status");
    assert_eq!(world.create(config("c", json!({}))).await.generation(), None, "configmaps have no generation");
}

#[tokio::test]
async fn names_taken_missing_and_generated() {
    let world = World::new().await;
    world.create(config("a", json!({}))).await;
    let author = alice();
    let create = |o: Object| world.registry.create(&author, o, WriteOptions::default());
    assert_eq!(create(config("a", json!({}))).await.unwrap_err().to_string(), "configmaps \"a\" already exists");
    let nameless = object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}));
    assert_eq!(
        create(nameless.clone()).await.unwrap_err().to_string(),
        "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required"
    );
    let mut generated = nameless;
    generated.set("/metadata/generateName", "g-");
    let (one, two) = (create(generated.clone()).await.unwrap().object, create(generated).await.unwrap().object);
    assert!(one.name().starts_with("g-") && one.name().len() == 7 && one.name() != two.name());
    let error = world.registry.update(&alice(), config("nope", json!({})), WriteOptions::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "configmaps \"nope\" not found");
}

#[tokio::test]
async fn dry_runs_store_nothing() {
    let world = World::new().await;
    let made = world.create(config("a", json!({"k": "1"}))).await;
    let revision = world.registry.revision();
    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let created = world.registry.create(&alice(), config("b", json!({})), dry.clone()).await.unwrap().object;
    assert!(created.uid().is_some() && created.resource_version().is_none());
    assert!(matches!(
        world.registry.create(&alice(), config("a", json!({})), dry.clone()).await,
        Err(RegistryError::AlreadyExists(_))
    ));
    let mut changed = made;
    changed.set("/data/k", "2");
    assert_eq!(
        world.registry.update(&alice(), changed, dry.clone()).await.unwrap().object.get_str("/data/k"),
        Some("2")
    );
    let options = reddwarf_registry::DeleteOptions { dry_run: true, ..Default::default() };
    world.registry.delete(&alice(), &config_key("a"), &options).await.unwrap();
    assert_eq!(world.registry.revision(), revision);
}

#[tokio::test]
async fn a06_api_clients_cannot_change_what_a_file_declares() {
    let world = World::new().await;
    let mut declared = pod("web", "a:1");
    declared.set_label("app", "web");
    let set = vec![from_file(declared, "/etc/reddwarf.d/web.yaml")];
    world.registry.apply_set(&file(), set, ApplyOptions::default()).await.unwrap();
    let key = pod_key("web");
    let author = alice();
    let change = |f: fn(&mut Object)| world.registry.modify(&author, &key, f);

    let error = change(|o| o.set("/spec/containers/0/image", "evil")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Operation cannot be fulfilled on pods \"web\": it is declared by /etc/reddwarf.d/web.yaml; change spec.containers[0].image there"
    );
    let error = change(|o| o.set_label("app", "other")).await.unwrap_err();
    assert!(error.to_string().contains("change metadata.labels[app] there"), "{error}");
    let error = world.registry.delete(&alice(), &key, &Default::default()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Operation cannot be fulfilled on pods \"web\": it is declared by /etc/reddwarf.d/web.yaml; remove it from that file and the daemon deletes it"
    );
    // What the file does not set is free, and so is status.
    let labelled = change(|o| o.set_label("team", "blue")).await.unwrap().object;
    assert_eq!(labelled.label("team"), Some("blue"));
    world.registry.modify_status(&alice(), &key, |o| o.set("/status/phase", "Running")).await.unwrap();
    // The mark can't be taken off or faked.
    let kept = change(|o| o.remove_annotation(SOURCE_ANNOTATION)).await.unwrap().object;
    assert_eq!(kept.annotation(SOURCE_ANNOTATION), Some("/etc/reddwarf.d/web.yaml"));
    let fake = change(|o| o.set_annotation(SOURCE_ANNOTATION, "/etc/reddwarf.d/other.yaml")).await.unwrap_err();
    assert!(fake.to_string().contains("metadata.annotations[reddwarf.io/source]: Forbidden"), "{fake}");
    let mut faked = pod("fake", "a");
    faked.set_annotation(SOURCE_ANNOTATION, "/etc/reddwarf.d/x.yaml");
    assert!(matches!(
        world.registry.create(&alice(), faked, WriteOptions::default()).await,
        Err(RegistryError::Invalid { .. })
    ));
    // The daemon itself may write its part of the spec.
    let placed = world.registry.modify(&node(), &key, |o| o.set("/spec/nodeName", "box")).await.unwrap();
    assert!(placed.changed);
}
