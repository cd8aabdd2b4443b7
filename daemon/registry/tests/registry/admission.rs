//! What the objects around a new one do to it.

use crate::*;
use reddwarf_registry::{ApplyOptions, Declared, DeleteOptions, ListQuery, RegistryError, Verdict};

fn quota(hard: Value) -> Object {
    object(json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "default"},
        "spec": {"hard": hard}}))
}

async fn try_create(world: &World, author: &Author, object: Object) -> Result<Object, RegistryError> {
    world.registry.create(author, object, WriteOptions::default()).await.map(|done| done.object)
}

#[tokio::test]
async fn what_the_api_and_controllers_create_is_admitted_and_files_are_not() {
    let world = World::new().await;
    for author in [alice(), Author::System("controller/replicaset")] {
        let made = try_create(&world, &author, pod(&format!("p{}", u8::from(author.is_api())), "a")).await.unwrap();
        assert_eq!(made.get_str("/spec/serviceAccountName"), Some("default"));
        assert_eq!(made.get("/spec/tolerations").and_then(Value::as_array).map(Vec::len), Some(2));
        let owned = serde_json::to_string(made.get("/metadata/managedFields").unwrap()).unwrap();
        assert!(!owned.contains("f:tolerations"), "the server's fields are nobody's: {owned}");
    }
    let mut robot = pod("robot", "a");
    robot.set("/spec/serviceAccountName", "robot");
    let error = try_create(&world, &alice(), robot).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "pods \"robot\" is forbidden: error looking up service account default/robot: serviceaccount \"robot\" not found"
    );
    world.registry.apply_set(&file(), vec![from_file(pod("file", "a"), "a.yaml")], Default::default()).await.unwrap();
    let made = world.registry.get(&pod_key("file")).unwrap();
    assert_eq!(made.get("/spec/tolerations"), None);
}

/// What was read is kept until one of them changes, and no longer.
#[tokio::test]
async fn priority_classes_are_read_when_they_have_changed_only() {
    let world = World::new().await;
    let class = |value: i64| {
        object(json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "usual"},
            "value": value, "globalDefault": true}))
    };
    let priority = async |name: &str| {
        let made = try_create(&world, &alice(), pod(name, "a")).await.unwrap();
        made.get("/spec/priority").and_then(Value::as_i64)
    };
    let made = world.create(class(7)).await;
    assert_eq!(priority("a").await, Some(7));
    let before = world.registry.counters().lists;
    assert_eq!(priority("b").await, Some(7));
    assert_eq!(world.registry.counters().lists, before);
    let key = made.key(made.known_kind().unwrap());
    world.registry.delete(&alice(), &key, &DeleteOptions::default()).await.unwrap();
    world.create(class(9)).await;
    assert_eq!(priority("c").await, Some(9));
}

#[tokio::test]
async fn a_quota_holds_against_many_at_once() {
    let world = World::new().await;
    world.create(config("before", json!({}))).await;
    world.create(quota(json!({"configmaps": "3"}))).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..6 {
        let registry = world.registry.clone();
        let object = config(&format!("c{n}"), json!({}));
        tasks.spawn(async move { registry.create(&alice(), object, WriteOptions::default()).await });
    }
    let errors: Vec<String> =
        tasks.join_all().await.into_iter().filter_map(|done| done.err()).map(|e| e.to_string()).collect();
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert!(
        errors[0].ends_with(
            "is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=3, limited: configmaps=3"
        ),
        "{errors:?}"
    );
    let key = ObjectKey::core("resourcequotas", "default", "q");
    let status = world.registry.get(&key).unwrap().get("/status").cloned();
    assert_eq!(status, Some(json!({"hard": {"configmaps": "3"}, "used": {"configmaps": "3"}})));
    let gone = world.registry.delete(&alice(), &config_key("before"), &Default::default()).await;
    assert!(gone.is_ok());
    try_create(&world, &alice(), config("after", json!({}))).await.unwrap();
}

/// One path for all that clients write: what is applied as a set is charged, each of it, to quotas that are there and to
/// those of the set.
#[tokio::test]
async fn what_a_client_applies_is_charged_to_quotas() {
    let world = World::new().await;
    let from_client = |object| Declared { object, source: None };
    let made = |n: u8| from_client(config(&format!("c{n}"), json!({})));
    world.create(config("before", json!({}))).await;
    world.create(quota(json!({"configmaps": "3"}))).await;
    let used = |name: &str| {
        let quota = world.registry.get(&ObjectKey::core("resourcequotas", "default", name)).unwrap();
        quota.get_str("/status/used/configmaps").map(str::to_owned)
    };
    let refused = |done: &reddwarf_registry::AppliedSet| -> Vec<String> {
        let error = |applied: &reddwarf_registry::Applied| match &applied.verdict {
            Verdict::Refused(error) => Some(error.to_string()),
            _ => None,
        };
        done.objects.iter().filter_map(error).collect()
    };
    let dry = ApplyOptions { dry_run: true, ..Default::default() };
    for (options, counted) in [(dry, None), (ApplyOptions::default(), Some("3"))] {
        let done = world.registry.apply_set(&alice(), (0..4).map(made).collect(), options).await.unwrap();
        let refused = refused(&done);
        let wanted =
            "is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=3, limited: configmaps=3";
        assert!(refused.len() == 2 && refused.iter().all(|error| error.ends_with(wanted)), "{refused:?}");
        assert_eq!(used("q").as_deref(), counted);
    }
    // Applied again, what is there costs nothing.
    let done = world.registry.apply_set(&alice(), (0..2).map(made).collect(), Default::default()).await.unwrap();
    assert_eq!(refused(&done), Vec::<String>::new());
    // A quota of the same set holds for all of it, wherever it stands.
    let mut other = quota(json!({"configmaps": "4"}));
    other.set("/metadata/name", "other");
    let larger = from_client(quota(json!({"configmaps": "9"})));
    let set = vec![made(5), made(6), from_client(other), larger];
    let done = world.registry.apply_set(&alice(), set, Default::default()).await.unwrap();
    let refused = refused(&done);
    assert!(refused.len() == 1 && refused[0].contains("\"c6\"") && refused[0].contains("quota: other"), "{refused:?}");
    assert_eq!((used("q").as_deref(), used("other").as_deref()), (Some("4"), Some("4")));
    // A file says what there is: it is counted, and refused by none.
    let files = (7..9).map(|n| from_file(config(&format!("c{n}"), json!({})), "a.yaml")).collect();
    let done = world.registry.apply_set(&file(), files, Default::default()).await.unwrap();
    assert!(done.objects.iter().all(|applied| matches!(applied.verdict, Verdict::Created)));
}

/// What is remembered of an account and of a namespace is true at each write: made, changed, gone, there again.
#[tokio::test]
async fn a_new_object_is_admitted_by_what_is_there_now() {
    let world = World::new().await;
    let key = ObjectKey::core("serviceaccounts", "default", "robot");
    let account = |secret: &str| {
        object(
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot", "namespace": "default"},
            "imagePullSecrets": [{"name": secret}]}),
        )
    };
    for round in 0..2 {
        let robot = |part: &str| {
            let mut robot = pod(&format!("{part}{round}"), "a");
            robot.set("/spec/serviceAccountName", "robot");
            robot
        };
        let secrets = |made: &Object| made.get_str("/spec/imagePullSecrets/0/name").map(str::to_owned);
        assert!(try_create(&world, &alice(), robot("before")).await.is_err());
        world.create(account("one")).await;
        assert_eq!(secrets(&world.create(robot("a")).await).as_deref(), Some("one"));
        assert_eq!(secrets(&world.create(robot("b")).await).as_deref(), Some("one"));
        world.registry.update(&alice(), account("two"), WriteOptions::default()).await.unwrap();
        assert_eq!(secrets(&world.create(robot("c")).await).as_deref(), Some("two"));
        world.registry.delete(&alice(), &key, &Default::default()).await.unwrap();
        assert!(try_create(&world, &alice(), robot("after")).await.is_err());

        let mut elsewhere = config(&format!("c{round}"), json!({}));
        elsewhere.set_namespace(Some("shop"));
        assert!(matches!(try_create(&world, &alice(), elsewhere.clone()).await, Err(RegistryError::NotFound(_))));
        world.create(object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))).await;
        world.create(elsewhere.clone()).await;
        let shop =
            ObjectKey { group: String::new(), resource: "namespaces".into(), namespace: None, name: "shop".into() };
        world.registry.delete(&alice(), &shop, &Default::default()).await.unwrap();
        assert!(try_create(&world, &alice(), elsewhere).await.is_err());
    }
}

fn namespace(name: &str, labels: &[(&str, &str)]) -> Object {
    let mut namespace = object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    labels.iter().for_each(|(key, value)| namespace.set_label(&format!("pod-security.kubernetes.io/{key}"), value));
    namespace
}

fn pod_in(namespace: &str, name: &str) -> Object {
    let mut pod = pod(name, "a");
    pod.set_namespace(Some(namespace));
    pod
}

fn replica_set(namespace: &str, name: &str) -> Object {
    object(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "main", "image": "a"}]}}}}))
}

const BEYOND: &str = "PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"main\" must set \
    securityContext.allowPrivilegeEscalation=false), ";

#[tokio::test]
async fn e11_a_namespace_takes_pods_by_its_labels_whoever_makes_them() {
    let world = World::new().await;
    world.create(namespace("t", &[("enforce", "restricted")])).await;
    for author in [alice(), Author::System("controller/replicaset")] {
        let error = try_create(&world, &author, pod_in("t", "x")).await.unwrap_err();
        assert!(matches!(error, RegistryError::Forbidden { .. }), "{error:?}");
        assert!(error.to_string().starts_with(&format!("pods \"x\" is forbidden: violates {BEYOND}")), "{error}");
    }
    let applied = Patch::Apply(pod_in("t", "x"));
    let key = ObjectKey::pod("t", "x");
    let error = world.registry.patch(&alice(), &key, Part::Main, applied, &WriteOptions::default()).await;
    assert!(matches!(error, Err(RegistryError::Forbidden { .. })), "{error:?}");
    let set = vec![Declared { object: pod_in("t", "x"), source: None }];
    let done = world.registry.apply_set(&alice(), set, Default::default()).await.unwrap();
    assert!(matches!(done.objects[0].verdict, Verdict::Refused(RegistryError::Forbidden { .. })), "{done:?}");
    // What makes pods is warned.
    let made = world.registry.create(&alice(), replica_set("t", "web"), WriteOptions::default()).await.unwrap();
    assert!(made.warnings[0].starts_with(&format!("would violate {BEYOND}")), "{:?}", made.warnings);
    // Elsewhere nothing changed.
    world.create(pod("x", "a")).await;
}

#[tokio::test]
async fn pods_of_files_run_whatever_is_enforced_and_it_is_said() {
    let world = World::new().await;
    let all = vec![
        from_file(pod_in("t", "x"), "a.yaml"),
        from_file(replica_set("t", "web"), "a.yaml"),
        from_file(namespace("t", &[("enforce", "restricted")]), "a.yaml"),
        from_file(pod("elsewhere", "a"), "a.yaml"),
    ];
    for round in ["made", "there"] {
        let done = world.registry.apply_set(&file(), all.clone(), Default::default()).await.unwrap();
        for one in &done.objects {
            assert!(!matches!(one.verdict, Verdict::Refused(_)), "{one:?}");
            let said = one.warnings.iter().filter(|w| w.starts_with(&format!("would violate {BEYOND}"))).count();
            assert_eq!(said, usize::from(["x", "web"].contains(&one.key.name.as_str())), "{round}: {one:?}");
        }
    }
    // A level that is none is an error of the file.
    let bad = vec![from_file(namespace("u", &[("warn", "foo")]), "b.yaml")];
    let done = world.registry.apply_set(&file(), bad, Default::default()).await.unwrap();
    assert!(matches!(done.objects[0].verdict, Verdict::Refused(RegistryError::Invalid { .. })), "{done:?}");
}

#[tokio::test]
async fn a_pod_that_is_there_stays_until_what_runs_in_it_changes() {
    let world = World::new().await;
    world.create(namespace("t", &[])).await;
    world.create(pod_in("t", "x")).await;
    world.create(pod_in("t", "y")).await;
    let ns = ObjectKey { group: String::new(), resource: "namespaces".into(), namespace: None, name: "t".into() };
    let label = |level: &str| merge(&json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}}));
    let patch = async |key: &ObjectKey, part, patch, dry_run| {
        let options = WriteOptions { dry_run, ..WriteOptions::default() };
        world.registry.patch(&alice(), key, part, patch, &options).await
    };
    let said = [
        "existing pods in namespace \"t\" violate the new PodSecurity enforce level \"restricted:latest\"",
        "x (and 1 other pod): allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile",
    ];
    for dry_run in [true, false] {
        let done = patch(&ns, Part::Main, label("restricted"), dry_run).await.unwrap();
        assert_eq!(done.warnings, said);
    }
    assert!(patch(&ns, Part::Main, label("baseline"), false).await.unwrap().warnings.is_empty());
    patch(&ns, Part::Main, label("restricted"), false).await.unwrap();
    let error = patch(&ns, Part::Main, label("foo"), false).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Namespace \"t\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"foo\": \
         must be one of privileged, baseline, restricted"
    );
    let key = ObjectKey::pod("t", "x");
    patch(&key, Part::Main, merge(&json!({"metadata": {"labels": {"a": "b"}}})), false).await.unwrap();
    patch(&key, Part::Status, merge(&json!({"status": {"message": "m"}})), false).await.unwrap();
    let image = json!({"spec": {"containers": [{"name": "main", "image": "b"}]}});
    let error = patch(&key, Part::Main, Patch::Strategic(image), false).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("pods \"x\" is forbidden: violates {BEYOND}")), "{error}");
    let guest = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "b"}]}});
    let error = patch(&key, Part::EphemeralContainers, Patch::Strategic(guest), false).await.unwrap_err().to_string();
    assert!(error.starts_with("pods \"x\" is forbidden: violates PodSecurity"), "{error}");
}

#[tokio::test]
async fn what_grows_is_charged_by_how_much() {
    let world = World::new().await;
    let claim = object(
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "grows", "resources": {"requests": {"storage": "1Gi"}}}}),
    );
    world.create(storage_class("grows", Some(true))).await;
    let service =
        object(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"},
        "spec": {"ports": [{"port": 80}]}}));
    world.create(quota(json!({"requests.storage": "2Gi", "services.nodeports": "0"}))).await;
    world.create(claim).await;
    world.create(service).await;
    let claim = ObjectKey::core("persistentvolumeclaims", "default", "c");
    world.registry.modify_status(&Author::System("test"), &claim, |c| c.set("/status/phase", "Bound")).await.unwrap();
    let patch = async |key: &ObjectKey, change: Value, dry_run| {
        let options = WriteOptions { dry_run, ..WriteOptions::default() };
        world.registry.patch(&alice(), key, Part::Main, merge(&change), &options).await
    };
    let size = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
    for dry_run in [true, false] {
        let error = patch(&claim, size("3Gi"), dry_run).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "persistentvolumeclaims \"c\" is forbidden: exceeded quota: q, requested: requests.storage=2Gi, used: requests.storage=1Gi, \
             limited: requests.storage=2Gi"
        );
    }
    patch(&claim, size("2Gi"), false).await.unwrap();
    let quota = ObjectKey::core("resourcequotas", "default", "q");
    let used = world.registry.get(&quota).unwrap().get("/status/used/requests.storage").cloned();
    assert_eq!(used, Some(json!("2Gi")));
    // What does not grow costs nothing, whatever is left.
    patch(&claim, json!({"metadata": {"labels": {"a": "b"}}}), false).await.unwrap();
    let service = ObjectKey::core("services", "default", "s");
    let error = patch(&service, json!({"spec": {"type": "NodePort"}}), false).await.unwrap_err().to_string();
    assert!(
        error.contains("exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=0"),
        "{error}"
    );
}

fn storage_class(name: &str, grows: Option<bool>) -> Object {
    let mut class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}, "provisioner": "x.io/p"});
    if let Some(grows) = grows {
        class["allowVolumeExpansion"] = grows.into();
    }
    object(class)
}

#[tokio::test]
async fn claims_grow_only_where_their_class_lets_them() {
    let world = World::new().await;
    for (name, grows) in [("grows", Some(true)), ("fixed", Some(false)), ("silent", None)] {
        world.create(storage_class(name, grows)).await;
    }
    let classes = [("a", "grows"), ("b", "fixed"), ("c", "silent"), ("d", "gone"), ("e", "")];
    for (name, class) in classes {
        let claim = object(
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}}}),
        );
        world.create(claim).await;
        let key = ObjectKey::core("persistentvolumeclaims", "default", name);
        world.registry.modify_status(&Author::System("test"), &key, |c| c.set("/status/phase", "Bound")).await.unwrap();
        world
            .registry
            .modify_status(&Author::System("test"), &key, |c| c.set("/status/capacity/storage", "1Gi"))
            .await
            .unwrap();
    }
    let patch = async |name: &str, size: &str| {
        let key = ObjectKey::core("persistentvolumeclaims", "default", name);
        let change = merge(&json!({"spec": {"resources": {"requests": {"storage": size}}}}));
        world.registry.patch(&alice(), &key, Part::Main, change, &WriteOptions::default()).await
    };
    assert!(patch("a", "2Gi").await.unwrap().changed);
    for (name, _) in &classes[1..] {
        let error = patch(name, "2Gi").await.unwrap_err();
        assert!(matches!(error, RegistryError::Forbidden { .. }), "{error:?}");
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
        assert_eq!(error.to_string(), format!("persistentvolumeclaims \"{name}\" is forbidden: {why}"));
        assert!(!patch(name, "1024Mi").await.unwrap().changed, "the same size in other words");
    }
}

fn priority(name: &str, more: Value) -> Object {
    let mut class =
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 10});
    class.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object(class)
}

#[tokio::test]
async fn the_systems_priorities_are_there_and_stay() {
    let world = World::new().await;
    world.registry.make_system_classes().await.unwrap();
    let key = |name: &str| ObjectKey {
        group: "scheduling.k8s.io".into(),
        resource: "priorityclasses".into(),
        namespace: None,
        name: name.into(),
    };
    let made = world.registry.get(&key("system-node-critical")).unwrap();
    assert_eq!(
        (made.map()["value"].clone(), made.get_str("/preemptionPolicy"), made.generation()),
        (json!(2_000_001_000), Some("PreemptLowerPriority"), Some(1))
    );
    let revision = world.registry.revision();
    world.registry.make_system_classes().await.unwrap();
    assert_eq!(world.registry.revision(), revision, "at every start, as far as they are missing");
    let error = world.registry.delete(&alice(), &key("system-cluster-critical"), &DeleteOptions::default()).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "priorityclasses.scheduling.k8s.io \"system-cluster-critical\" is forbidden: this is a system priority class and cannot be deleted"
    );
    world.create(priority("mine", json!({}))).await;
    let all = ListQuery::all(kinds().by_group_resource("scheduling.k8s.io", "priorityclasses").unwrap());
    let gone = world.registry.delete_collection(&alice(), &all, &DeleteOptions::default()).await.unwrap();
    assert_eq!(gone.iter().map(|one| one.object().name()).collect::<Vec<_>>(), ["mine"]);
    assert_eq!(world.registry.list(&all).unwrap().items.len(), 2);
}

#[tokio::test]
async fn one_priority_class_is_the_default() {
    let world = World::new().await;
    world.create(priority("first", json!({"globalDefault": true}))).await;
    let other = world.create(priority("second", json!({}))).await;
    let options = WriteOptions::default;
    let error = world.registry.create(&alice(), priority("third", json!({"globalDefault": true})), options()).await;
    let why = "PriorityClass first is already marked as default. Only one default can exist";
    assert_eq!(
        error.unwrap_err().to_string(),
        format!("priorityclasses.scheduling.k8s.io \"third\" is forbidden: {why}")
    );
    let key = other.key(other.known_kind().unwrap());
    let change = || merge(&json!({"globalDefault": true}));
    let error = world.registry.patch(&alice(), &key, Part::Main, change(), &options()).await.unwrap_err().to_string();
    assert_eq!(error, format!("priorityclasses.scheduling.k8s.io \"second\" is forbidden: {why}"));
    let first = ObjectKey { name: "first".into(), ..key };
    let change = merge(&json!({"globalDefault": true, "description": "d"}));
    assert!(world.registry.patch(&alice(), &first, Part::Main, change, &options()).await.unwrap().changed);
}
