//! Sets: generations of the directory and `reddwarfctl apply`.

use crate::*;
use reddwarf_objects::SOURCE_ANNOTATION;
use reddwarf_registry::{Applied, ApplyOptions, PruneScope, RegistryError, Verdict};
use reddwarf_store::NewGeneration;
use std::collections::BTreeSet;

const WEB: &str = "/etc/reddwarf.d/web.yaml";
const DB: &str = "/etc/reddwarf.d/db.yaml";

fn whole_directory(keep: &[&str]) -> ApplyOptions {
    let keep_sources: BTreeSet<String> = keep.iter().map(|s| (*s).to_owned()).collect();
    ApplyOptions { prune: PruneScope::FileOwned { keep_sources }, ..ApplyOptions::default() }
}

fn verdicts(applied: &[Applied]) -> Vec<String> {
    let word = |v: &Verdict| match v {
        Verdict::Created => "created".to_owned(),
        Verdict::Configured(changes) => {
            let paths: Vec<String> = changes.iter().map(|c| c.path.to_string()).collect();
            format!("configured {}", paths.join(","))
        }
        Verdict::Unchanged => "unchanged".to_owned(),
        Verdict::Refused(e) => format!("refused {e}"),
        Verdict::Pending => "pending".to_owned(),
        Verdict::Deleted => "deleted".to_owned(),
    };
    applied.iter().map(|a| format!("{} {}", a.key, word(&a.verdict))).collect()
}

async fn apply(world: &World, set: Vec<Declared>, options: ApplyOptions) -> Vec<Applied> {
    world.registry.apply_set(&file(), set, options).await.unwrap().objects
}

#[tokio::test]
async fn a_generation_is_one_transaction_with_a_verdict_for_each_object() {
    let world = World::new().await;
    let before = world.registry.counters();
    let generation = NewGeneration { note: "first".into(), ..NewGeneration::default() };
    let set = vec![
        from_file(config("b", json!({"k": "1"})), DB),
        from_file(
            object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "nons"}})),
            DB,
        ),
        from_file(pod("web", "a:1"), WEB),
        from_file(
            object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "y", "namespace": "team"}})),
            WEB,
        ),
        from_file(object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})), WEB),
    ];
    let options = ApplyOptions { generation: Some(generation), ..whole_directory(&[]) };
    let done = world.registry.apply_set(&file(), set, options).await.unwrap();
    assert_eq!(
        verdicts(&done.objects),
        [
            "configmaps/default/b created",
            "configmaps/nons/x refused namespaces \"nons\" not found",
            "pods/default/web created",
            "configmaps/team/y created",
            "namespaces/-/team created",
        ]
    );
    assert_eq!((done.changed, done.generation), (true, Some(1)));
    assert_eq!(world.registry.counters().commits - before.commits, 1);
    let web = world.registry.get(&pod_key("web")).unwrap();
    assert_eq!(web.resource_version(), Some(done.revision.get()));
    assert_eq!(web.annotation(SOURCE_ANNOTATION), Some(WEB));
    assert_eq!(done.objects[2].object.as_ref(), Some(&web));
}

#[tokio::test]
async fn applying_again_changes_nothing_and_an_edit_keeps_the_uid() {
    let world = World::new().await;
    let set = |image: &str| vec![from_file(pod("web", image), WEB), from_file(config("c", json!({"k": "1"})), DB)];
    apply(&world, set("a:1"), whole_directory(&[])).await;
    let key = pod_key("web");
    world.registry.modify(&node(), &key, |o| o.set("/spec/nodeName", "box")).await.unwrap();
    world.registry.modify_status(&node(), &key, |o| o.set("/status/phase", "Running")).await.unwrap();
    let old = world.registry.get(&key).unwrap();
    let revision = world.registry.revision();
    let again = apply(&world, set("a:1"), whole_directory(&[])).await;
    assert_eq!(verdicts(&again), ["pods/default/web unchanged", "configmaps/default/c unchanged"]);
    assert_eq!(world.registry.revision(), revision);
    let edited = apply(&world, set("a:2"), whole_directory(&[])).await;
    assert_eq!(verdicts(&edited)[0], "pods/default/web configured spec.containers[0].image");
    let new = world.registry.get(&key).unwrap();
    assert_eq!((new.uid(), new.generation()), (old.uid(), old.generation().map(|g| g + 1)));
    assert_eq!(new.get_str("/spec/nodeName"), Some("box"), "what the daemon assigned stays");
    assert_eq!(new.get_str("/status/phase"), Some("Running"));
}

#[tokio::test]
async fn what_left_the_directory_is_deleted_except_what_broken_files_declared() {
    let world = World::new().await;
    world.create(config("mine", json!({}))).await;
    apply(
        &world,
        vec![from_file(config("web", json!({})), WEB), from_file(config("db", json!({})), DB)],
        whole_directory(&[]),
    )
    .await;
    // web.yaml does not parse this time: what it declared stays.
    let broken = apply(&world, vec![from_file(config("db", json!({})), DB)], whole_directory(&[WEB])).await;
    assert_eq!(verdicts(&broken), ["configmaps/default/db unchanged"]);
    let dry = ApplyOptions { dry_run: true, ..whole_directory(&[]) };
    assert_eq!(verdicts(&apply(&world, vec![], dry).await).len(), 2);
    let emptied = apply(&world, vec![], whole_directory(&[])).await;
    assert_eq!(verdicts(&emptied), ["configmaps/default/db deleted", "configmaps/default/web deleted"]);
    assert!(world.registry.find(&config_key("web")).unwrap().is_none());
    assert!(world.registry.find(&config_key("mine")).unwrap().is_some(), "API objects are never pruned");
    assert!(apply(&world, vec![], whole_directory(&[])).await.is_empty());
}

#[tokio::test]
async fn a_pod_being_deleted_is_applied_again_once_it_is_gone() {
    let world = World::new().await;
    let set = || vec![from_file(pod("web", "a:1"), WEB)];
    apply(&world, set(), whole_directory(&[])).await;
    let key = pod_key("web");
    world.registry.modify(&node(), &key, |o| o.set("/spec/nodeName", "box")).await.unwrap();
    let old = world.registry.get(&key).unwrap();
    assert_eq!(verdicts(&apply(&world, vec![], whole_directory(&[])).await), ["pods/default/web deleted"]);
    assert!(world.registry.get(&key).unwrap().deletion_timestamp().is_some(), "it waits for the node");
    assert!(apply(&world, vec![], whole_directory(&[])).await.is_empty(), "already on its way");
    assert_eq!(verdicts(&apply(&world, set(), whole_directory(&[])).await), ["pods/default/web pending"]);
    world.registry.finish_delete(&key, old.uid().unwrap()).await.unwrap();
    assert_eq!(verdicts(&apply(&world, set(), whole_directory(&[])).await), ["pods/default/web created"]);
    assert_ne!(world.registry.get(&key).unwrap().uid(), old.uid());
}

#[tokio::test]
async fn an_object_can_move_between_files_and_from_the_api_to_a_file() {
    let world = World::new().await;
    let mut made = config("c", json!({"k": "1", "old": "x"}));
    made.set_label("team", "blue");
    let made = world.create(made).await;
    let taken = apply(&world, vec![from_file(config("c", json!({"k": "2"})), WEB)], whole_directory(&[])).await;
    assert!(matches!(taken[0].verdict, Verdict::Configured(_)));
    let owned = world.registry.get(&config_key("c")).unwrap();
    assert_eq!(owned.get("/data"), Some(&json!({"k": "2"})), "the file declares the whole of it");
    assert_eq!((owned.uid(), owned.label("team")), (made.uid(), Some("blue")));
    let moved = apply(&world, vec![from_file(config("c", json!({"k": "2"})), DB)], whole_directory(&[])).await;
    assert!(matches!(moved[0].verdict, Verdict::Configured(_)));
    assert_eq!(world.registry.get(&config_key("c")).unwrap().annotation(SOURCE_ANNOTATION), Some(DB));
}

#[tokio::test]
async fn labels_that_a_file_drops_go_and_those_of_others_stay() {
    let world = World::new().await;
    let mut declared = config("c", json!({"k": "1"}));
    declared.set_label("app", "web");
    declared.set_label("tier", "front");
    apply(&world, vec![from_file(declared.clone(), WEB)], whole_directory(&[])).await;
    world.registry.modify(&alice(), &config_key("c"), |o| o.set_label("team", "blue")).await.unwrap();
    declared.remove("/metadata/labels/tier");
    apply(&world, vec![from_file(declared, WEB)], whole_directory(&[])).await;
    let labels = world.registry.get(&config_key("c")).unwrap().get("/metadata/labels").cloned();
    assert_eq!(labels, Some(json!({"app": "web", "team": "blue"})));
}

#[tokio::test]
async fn apply_by_the_api_merges_and_respects_files() {
    let world = World::new().await;
    apply(&world, vec![from_file(config("filed", json!({"k": "1"})), WEB)], whole_directory(&[])).await;
    let author = alice();
    let by_api = |objects: Vec<Object>| {
        let set = objects.into_iter().map(|object| Declared { object, source: None }).collect();
        world.registry.apply_set(&author, set, whole_directory(&[]))
    };
    let done =
        by_api(vec![config("c", json!({"a": "1", "b": "1"})), config("filed", json!({"k": "2"}))]).await.unwrap();
    assert_eq!(verdicts(&done.objects)[0], "configmaps/default/c created");
    assert!(
        verdicts(&done.objects)[1].contains(
            "refused Operation cannot be fulfilled on configmaps \"filed\": it is declared by /etc/reddwarf.d/web.yaml"
        ),
        "{:?}",
        done.objects
    );
    assert!(world.registry.find(&config_key("filed")).unwrap().is_some(), "an API client prunes nothing");
    world.registry.modify(&alice(), &config_key("c"), |o| o.set("/data/theirs", "1")).await.unwrap();
    by_api(vec![config("c", json!({"a": "2"}))]).await.unwrap();
    let data = world.registry.get(&config_key("c")).unwrap().get("/data").cloned();
    assert_eq!(data, Some(json!({"a": "2", "theirs": "1"})));
    // Applying what a file declares, unchanged, does not take it from the file.
    let same = by_api(vec![config("filed", json!({"k": "1"}))]).await.unwrap();
    assert_eq!(verdicts(&same.objects), ["configmaps/default/filed unchanged"]);
    assert_eq!(verdicts(&apply(&world, vec![], whole_directory(&[])).await), ["configmaps/default/filed deleted"]);
}

#[tokio::test]
async fn a_namespace_stays_while_files_still_use_it() {
    let world = World::new().await;
    let team = || object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}));
    let mut inside = config("c", json!({}));
    inside.set_namespace(Some("team"));
    apply(&world, vec![from_file(team(), WEB), from_file(inside.clone(), DB)], whole_directory(&[])).await;
    let kept = apply(&world, vec![from_file(inside, DB)], whole_directory(&[])).await;
    assert!(
        matches!(&kept[1].verdict, Verdict::Refused(RegistryError::Forbidden { message, .. })
            if message == "no file declares it any more, but /etc/reddwarf.d/db.yaml still declares configmaps/team/c in it"),
        "{kept:?}"
    );
    let gone = apply(&world, vec![], whole_directory(&[])).await;
    assert_eq!(verdicts(&gone), ["configmaps/team/c deleted", "namespaces/-/team deleted"]);
    assert!(world.registry.find(&team().key(kind("namespaces"))).unwrap().is_none());
    // `default` in a file is only given back when the file goes.
    let default =
        object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "labels": {"a": "b"}}}));
    apply(&world, vec![from_file(default.clone(), WEB)], whole_directory(&[])).await;
    apply(&world, vec![], whole_directory(&[])).await;
    let live = world.registry.get(&default.key(kind("namespaces"))).unwrap();
    assert_eq!((live.annotation(SOURCE_ANNOTATION), live.deletion_timestamp()), (None, None));
}

#[tokio::test]
async fn one_bad_object_and_a_duplicate_are_refused_alone() {
    let world = World::new().await;
    let set = vec![
        from_file(object(json!({"apiVersion": "v1", "kind": "Podd", "metadata": {"name": "x"}})), WEB),
        from_file(config("c", json!({"k": "1"})), WEB),
        from_file(config("c", json!({"k": "2"})), DB),
        from_file(object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}})), DB),
    ];
    let applied = apply(&world, set, whole_directory(&[])).await;
    assert_eq!(verdicts(&applied)[1], "configmaps/default/c created");
    for refused in [0, 2, 3] {
        assert!(matches!(applied[refused].verdict, Verdict::Refused(_)), "{:?}", applied[refused]);
    }
    assert_eq!(world.registry.get(&config_key("c")).unwrap().get_str("/data/k"), Some("1"));
}

#[tokio::test]
async fn sets_and_single_writes_race_without_losing_anything() {
    let world = World::new().await;
    apply(&world, vec![from_file(config("c", json!({"k": "0"})), WEB)], whole_directory(&[])).await;
    let registry = world.registry.clone();
    let labels = tokio::spawn(async move {
        for n in 0..20 {
            registry.modify(&alice(), &config_key("c"), |o| o.set_label(&format!("l{n}"), "x")).await.unwrap();
        }
    });
    for n in 1..=20 {
        apply(&world, vec![from_file(config("c", json!({"k": n.to_string()})), WEB)], whole_directory(&[])).await;
    }
    labels.await.unwrap();
    let live = world.registry.get(&config_key("c")).unwrap();
    assert_eq!((live.get_str("/data/k"), live.labels().count()), (Some("20"), 20));
}
