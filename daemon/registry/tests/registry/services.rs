//! Addresses and ports of services: given once, kept, given back, whoever writes and however many at a time.

use crate::{World, alice, file, object};
use reddwarf_network::ServiceRanges;
use reddwarf_objects::{Object, ObjectKey};
use reddwarf_registry::{
    ApplyOptions, Declared, DeleteOptions, Part, Patch, PruneScope, Registry, Verdict, WriteOptions,
};
use reddwarf_store::ListOptions;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn ranges(cidr: &str) -> ServiceRanges {
    ServiceRanges { cluster: vec![cidr.parse().unwrap()], node_ports: 30_000..=32_767 }
}

async fn world(cidr: &str) -> World {
    let world = World::new().await;
    world.registry.give_addresses(ranges(cidr));
    world
}

fn service(name: &str, spec: Value) -> Object {
    let mut spec = spec;
    if spec.get("ports").is_none() {
        spec["ports"] = json!([{"port": 80}]);
    }
    object(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec}),
    )
}

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        group: String::new(),
        resource: "services".into(),
        namespace: Some("default".into()),
        name: name.into(),
    }
}

fn promises(registry: &Registry) -> Vec<String> {
    let page = registry.store().list("reserve/", &ListOptions::default()).unwrap();
    page.entries.iter().map(|e| e.key.as_str().to_owned()).collect()
}

fn ip(service: &Object) -> String {
    service.get_str("/spec/clusterIP").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_services_made_at_once_have_five_hundred_addresses() {
    let world = world("10.96.0.0/22").await;
    let made = (0..500).map(|n| {
        let registry = world.registry.clone();
        tokio::spawn(async move {
            let object = service(&format!("s{n}"), json!({"type": "NodePort"}));
            registry.create(&alice(), object, WriteOptions::default()).await.unwrap().object
        })
    });
    let made: Vec<_> = made.collect();
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for one in made {
        let service = one.await.unwrap();
        addresses.insert(ip(&service));
        ports.insert(service.get("/spec/ports/0/nodePort").unwrap().as_u64().unwrap());
    }
    assert_eq!((addresses.len(), ports.len(), promises(&world.registry).len()), (500, 500, 1000));
    let all = (0..500).map(|n| {
        let registry = world.registry.clone();
        tokio::spawn(async move { registry.delete(&alice(), &key(&format!("s{n}")), &DeleteOptions::default()).await })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.unwrap().unwrap();
    }
    assert_eq!(promises(&world.registry), Vec::<String>::new());
}

#[tokio::test]
async fn a_taken_address_is_refused_and_free_again_with_its_service() {
    let world = world("10.96.0.0/16").await;
    let fixed = || json!({"clusterIP": "10.96.0.50"});
    world.create(service("a", fixed())).await;
    let again = world.registry.create(&alice(), service("b", fixed()), WriteOptions::default()).await;
    let text = again.unwrap_err().to_string();
    assert_eq!(
        text,
        r#"Service "b" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.50"]: failed to allocate IP 10.96.0.50: provided IP is already allocated"#
    );
    let twice = world.registry.create(&alice(), service("a", fixed()), WriteOptions::default()).await;
    assert!(twice.unwrap_err().to_string().contains("already exists"));
    world.registry.delete(&alice(), &key("a"), &DeleteOptions::default()).await.unwrap();
    assert_eq!(ip(&world.create(service("b", fixed())).await), "10.96.0.50");
}

#[tokio::test]
async fn updates_keep_what_was_given_and_other_types_take_and_give_back() {
    let world = world("10.96.0.0/16").await;
    let made = world.create(service("a", json!({}))).await;
    let patch = async |patch: Value| {
        let patch = Patch::Merge(patch);
        let written = world.registry.patch(&alice(), &key("a"), Part::Main, patch, &WriteOptions::default()).await;
        written.unwrap().object
    };
    let node = patch(json!({"spec": {"type": "NodePort"}})).await;
    assert_eq!(ip(&node), ip(&made));
    assert_eq!(promises(&world.registry).len(), 2);
    let same =
        world.registry.update(&alice(), service("a", json!({"type": "NodePort"})), WriteOptions::default()).await;
    let same = same.unwrap().object;
    assert_eq!(same.get("/spec/ports/0/nodePort"), node.get("/spec/ports/0/nodePort"));
    let plain = json!({"spec": {"type": "ClusterIP", "externalTrafficPolicy": null, "ports": [{"port": 80, "nodePort": null}]}});
    patch(plain).await;
    assert_eq!(promises(&world.registry), [format!("reserve/service-ip/{}", ip(&made))]);
    let outside = json!({"spec": {"type": "ExternalName", "externalName": "example.org", "clusterIP": null, "clusterIPs": null,
        "ipFamilies": null, "ipFamilyPolicy": null, "internalTrafficPolicy": null}});
    patch(outside).await;
    assert_eq!(promises(&world.registry), Vec::<String>::new());
    let back = patch(json!({"spec": {"type": "ClusterIP", "externalName": null}})).await;
    assert_eq!(promises(&world.registry), [format!("reserve/service-ip/{}", ip(&back))]);
}

#[tokio::test]
async fn a_full_range_says_so_and_serves_again_once_there_is_room() {
    let world = world("10.96.0.0/30").await;
    world.create(service("a", json!({}))).await;
    let full = world.registry.create(&alice(), service("b", json!({})), WriteOptions::default()).await;
    let text = full.unwrap_err().to_string();
    assert!(text.starts_with("Internal error occurred: failed to allocate a serviceIP: range is full"), "{text}");
    world.registry.delete(&alice(), &key("a"), &DeleteOptions::default()).await.unwrap();
    world.create(service("b", json!({}))).await;
}

#[tokio::test]
async fn services_of_files_have_addresses_too_and_keep_them() {
    let world = world("10.96.0.0/16").await;
    let declared = |name: &str, spec: Value| Declared {
        object: service(name, spec),
        source: Some("/etc/reddwarf.d/a.yaml".into()),
    };
    let options = || ApplyOptions {
        prune: PruneScope::FileOwned { keep_sources: BTreeSet::new() },
        message: "t".into(),
        ..ApplyOptions::default()
    };
    let set = vec![
        declared("a", json!({})),
        declared("b", json!({"clusterIP": "10.96.0.9"})),
        declared("c", json!({"clusterIP": "10.96.0.9"})),
    ];
    let applied = world.registry.apply_set(&file(), set.clone(), options()).await.unwrap();
    let verdicts: Vec<_> = applied.objects.iter().map(|o| matches!(o.verdict, Verdict::Created)).collect();
    assert_eq!(verdicts, [true, true, false], "one address for two: the second is refused, the others are there");
    let first = world.registry.find(&key("a")).unwrap().unwrap();
    let again = world.registry.apply_set(&file(), set, options()).await.unwrap();
    assert!(matches!(again.objects[0].verdict, Verdict::Unchanged), "{:?}", again.objects[0].verdict);
    assert_eq!(ip(&world.registry.find(&key("a")).unwrap().unwrap()), ip(&first));
    world.registry.apply_set(&file(), vec![declared("c", json!({"clusterIP": "10.96.0.9"}))], options()).await.unwrap();
    let last =
        world.registry.apply_set(&file(), vec![declared("c", json!({"clusterIP": "10.96.0.9"}))], options()).await;
    assert!(matches!(last.unwrap().objects[0].verdict, Verdict::Created));
    assert_eq!(promises(&world.registry), ["reserve/service-ip/10.96.0.9"]);
}

#[tokio::test]
async fn services_of_older_versions_are_given_addresses_at_the_start() {
    let world = World::new().await;
    world.create(service("old", json!({}))).await;
    world.create(service("headless", json!({"clusterIP": "None"}))).await;
    assert_eq!(promises(&world.registry), Vec::<String>::new());
    world.registry.give_addresses(ranges("10.96.0.0/16"));
    world.registry.settle_services().await.unwrap();
    let old = world.registry.find(&key("old")).unwrap().unwrap();
    assert_eq!(promises(&world.registry), [format!("reserve/service-ip/{}", ip(&old))]);
    // A promise that nobody holds (a crash can't leave one, a restored backup can) is free again.
    let lost = reddwarf_store::Key::new("reserve/service-ip/10.96.7.7").unwrap();
    world.registry.store().commit(reddwarf_store::Transaction::new("t", "t").put(lost, "default/gone")).await.unwrap();
    world.registry.settle_services().await.unwrap();
    assert_eq!(promises(&world.registry).len(), 1);
}

#[tokio::test]
async fn every_type_becomes_every_other_and_gives_back_what_that_has_not() {
    const TYPES: [&str; 4] = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
    let world = world("10.96.0.0/16").await;
    let named = |kind: &str| match kind {
        "ExternalName" => json!({"type": kind, "externalName": "example.org"}),
        "LoadBalancer" => json!({"type": kind, "externalTrafficPolicy": "Local"}),
        _ => json!({ "type": kind }),
    };
    for from in TYPES {
        for to in TYPES {
            let made = world.create(service("a", named(from))).await;
            let mut patch = named(to);
            if to == "LoadBalancer" {
                patch = json!({ "type": to });
            }
            let patch = Patch::Merge(json!({ "spec": patch }));
            let done = world.registry.patch(&alice(), &key("a"), Part::Main, patch, &WriteOptions::default()).await;
            let done = done.unwrap_or_else(|e| panic!("{from} to {to}: {e}")).object;
            let has = |field: &str| done.get(&format!("/spec/{field}")).is_some();
            let outside = ["NodePort", "LoadBalancer"].contains(&to);
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                assert_eq!(has(field), to != "ExternalName", "{from} to {to}: {field}");
            }
            assert_eq!(has("ports/0/nodePort"), outside, "{from} to {to}");
            assert_eq!(has("externalTrafficPolicy"), outside, "{from} to {to}");
            assert_eq!(has("allocateLoadBalancerNodePorts"), to == "LoadBalancer", "{from} to {to}");
            assert_eq!(has("externalName"), to == "ExternalName", "{from} to {to}");
            assert_eq!(has("healthCheckNodePort"), from == to && to == "LoadBalancer", "{from} to {to}");
            if from != "ExternalName" && to != "ExternalName" {
                assert_eq!(ip(&done), ip(&made), "{from} to {to}");
            }
            let held =
                usize::from(to != "ExternalName") + usize::from(outside) + usize::from(has("healthCheckNodePort"));
            assert_eq!(promises(&world.registry).len(), held, "{from} to {to}: the rest is free again");
            world.registry.delete(&alice(), &key("a"), &DeleteOptions::default()).await.unwrap();
            assert_eq!(promises(&world.registry), Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn what_a_client_asks_for_beside_a_new_type_is_not_taken_back_in_silence() {
    let world = world("10.96.0.0/16").await;
    for (spec, patch, field) in [
        (
            json!({"type": "NodePort"}),
            json!({"type": "ClusterIP", "ports": [{"port": 80, "nodePort": 31000}]}),
            "nodePort",
        ),
        (
            json!({"type": "NodePort"}),
            json!({"type": "ClusterIP", "externalTrafficPolicy": "Local"}),
            "externalTrafficPolicy",
        ),
        (
            json!({}),
            json!({"type": "ExternalName", "externalName": "example.org", "clusterIP": "10.96.0.77"}),
            "spec.clusterIPs",
        ),
        (
            json!({"type": "LoadBalancer"}),
            json!({"type": "ClusterIP", "allocateLoadBalancerNodePorts": false}),
            "allocateLoadBalancerNodePorts",
        ),
    ] {
        world.create(service("a", spec)).await;
        let patch = Patch::Merge(json!({ "spec": patch }));
        let done = world.registry.patch(&alice(), &key("a"), Part::Main, patch, &WriteOptions::default()).await;
        let text = done.unwrap_err().to_string();
        assert!(text.contains(field), "{text}");
        world.registry.delete(&alice(), &key("a"), &DeleteOptions::default()).await.unwrap();
    }
}
