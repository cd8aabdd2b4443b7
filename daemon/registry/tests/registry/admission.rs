//! What the objects around a new one do to it.

use crate::*;
use reddwarf_registry::RegistryError;

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
