//! Namespaces: there from the start, needed by what lives in them, emptied when deleted.

use crate::*;
use reddwarf_registry::{ApplyOptions, DeleteOptions, Deleted, RegistryError};

fn space(name: &str) -> Object {
    object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
}

fn space_key(name: &str) -> ObjectKey {
    space(name).key(kind("namespaces"))
}

fn in_space(name: &str, mut object: Object) -> Object {
    object.set_namespace(Some(name));
    object
}

#[tokio::test]
async fn the_two_that_are_always_there_cannot_be_deleted() {
    let world = World::new().await;
    for name in ["default", "kube-system"] {
        assert_eq!(world.registry.get(&space_key(name)).unwrap().get_str("/status/phase"), Some("Active"));
        let error = world.registry.delete(&alice(), &space_key(name), &DeleteOptions::default()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted"));
    }
    let revision = world.registry.revision();
    world.registry.bootstrap().await.unwrap();
    assert_eq!(world.registry.revision(), revision, "starting again changes nothing");
}

#[tokio::test]
async fn objects_need_their_namespace() {
    let world = World::new().await;
    let lost = in_space("nons", config("a", json!({})));
    let error = world.registry.create(&alice(), lost, WriteOptions::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "namespaces \"nons\" not found");
}

#[tokio::test]
async fn deleting_one_deletes_its_contents_and_waits_for_its_pods() {
    let world = World::new().await;
    world.create(space("team")).await;
    world.create(in_space("team", config("a", json!({})))).await;
    let mut running = in_space("team", pod("web", "a"));
    running.set("/spec/nodeName", "box");
    let running = world.create(running).await;
    let deleted = world.registry.delete(&alice(), &space_key("team"), &DeleteOptions::default()).await.unwrap();
    let Deleted::Marked(marked) = deleted else { panic!("a pod runs in it") };
    assert_eq!(marked.get_str("/status/phase"), Some("Terminating"));
    assert!(world.registry.find(&ObjectKey::core("configmaps", "team", "a")).unwrap().is_none());
    let key = ObjectKey::pod("team", "web");
    assert!(world.registry.get(&key).unwrap().deletion_timestamp().is_some());
    let late = in_space("team", config("late", json!({})));
    let error = world.registry.create(&alice(), late, WriteOptions::default()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "configmaps \"late\" is forbidden: unable to create new content in namespace team because it is being terminated"
    );
    // Writing to it does not make it go early.
    world.registry.modify(&alice(), &space_key("team"), |o| o.set_label("a", "b")).await.unwrap();
    assert!(world.registry.find(&space_key("team")).unwrap().is_some());
    world.registry.finish_delete(&key, running.uid().unwrap()).await.unwrap();
    assert!(world.registry.find(&space_key("team")).unwrap().is_none(), "gone with the last thing in it");
}

#[tokio::test]
async fn an_empty_one_goes_at_once_and_a_start_finishes_an_interrupted_deletion() {
    let world = World::new().await;
    world.create(space("empty")).await;
    let deleted = world.registry.delete(&alice(), &space_key("empty"), &DeleteOptions::default()).await.unwrap();
    assert!(matches!(deleted, Deleted::Gone(_)));
    // A crash between the mark and the rest: the mark is there, the contents too.
    world.create(space("half")).await;
    world.create(in_space("half", config("a", json!({})))).await;
    let mut half = world.registry.get(&space_key("half")).unwrap();
    half.set_deletion(world.registry.now(), None);
    half.set_resource_version(None);
    let key = reddwarf_registry::store_key(&space_key("half")).unwrap();
    let write = reddwarf_store::Transaction::new("test", "crash").put(key, half.to_json());
    world.registry.store().commit(write).await.unwrap();
    world.registry.bootstrap().await.unwrap();
    assert!(world.registry.find(&space_key("half")).unwrap().is_none());
}

#[tokio::test]
async fn one_in_which_files_declare_something_is_not_the_apis_to_delete() {
    let world = World::new().await;
    world.create(space("team")).await;
    let declared = from_file(in_space("team", config("a", json!({}))), "/etc/reddwarf.d/a.yaml");
    world.registry.apply_set(&file(), vec![declared], ApplyOptions::default()).await.unwrap();
    let error = world.registry.delete(&alice(), &space_key("team"), &DeleteOptions::default()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Forbidden { .. }));
    assert!(error.to_string().contains("configmaps/team/a in it is declared by /etc/reddwarf.d/a.yaml"), "{error}");
}

#[tokio::test]
async fn a_missing_namespace_is_noticed_before_the_fields() {
    let world = World::new().await;
    let wrong = object(
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "Bad_Name", "namespace": "nons"}, "spec": {}}),
    );
    let error = world.registry.create(&alice(), wrong.clone(), WriteOptions::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "namespaces \"nons\" not found");
    let key = wrong.key(kind("pods"));
    let applied = world.registry.patch(&alice(), &key, Part::Main, Patch::Apply(wrong), &WriteOptions::default()).await;
    assert_eq!(applied.unwrap_err().to_string(), "namespaces \"nons\" not found");
}
