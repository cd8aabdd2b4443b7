//! Pressure as users notice it, on the fake host under paused time: conditions, taints, who goes, who waits, who comes
//! back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use reddwarf_host::VolumeName;
use reddwarf_host::fake::{For, Load, Op as HostOp};
use reddwarf_host::usage::{DiskUsage, HostPressure};
use reddwarf_objects::Object;
use reddwarf_objects::pod::{ConditionStatus, Phase};
use serde_json::{Value, json};
use support::*;

/// As clients make it: no file declares it.
fn through_the_api(mut pod: Object) -> Object {
    pod.set("/metadata/annotations", json!({}));
    pod
}

fn asking(memory: &str) -> Value {
    json!({"containers": [{"name": "app", "image": "web:1", "resources": {"requests": {"memory": memory}}}]})
}

fn uses(world: &World, pod: &str, memory_mib: u64) {
    let load = Load { memory_bytes: memory_mib << 20, ..Load::default() };
    world.host.set_load(For::Pod(format!("default/{pod}"), "app".into()), load);
}

fn short_of_memory(world: &World) -> HostPressure {
    HostPressure { memory_available_bytes: 50 << 20, ..world.host.no_pressure() }
}

fn condition(world: &World, kind: &str) -> (String, String) {
    let node = world.plane.get("Node", "node-1").unwrap();
    let all = node.get("/status/conditions").unwrap().as_array().unwrap().clone();
    let found = all.iter().find(|c| c["type"] == kind).unwrap();
    (found["status"].as_str().unwrap().to_owned(), found["reason"].as_str().unwrap().to_owned())
}

fn taints(world: &World) -> Vec<String> {
    let node = world.plane.get("Node", "node-1").unwrap();
    let taints = node.get("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default();
    taints.iter().map(|t| t["key"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn memory_pressure_evicts_one_pod_at_a_time_in_the_references_order() {
    let world = World::new().await;
    world.plane.apply(through_the_api(pod("modest", asking("500Mi"))));
    world.plane.apply(through_the_api(pod("greedy", asking("10Mi"))));
    world.plane.apply(through_the_api(pod("critical", json!({"priority": 2_000_000_000}))));
    for (pod, memory) in [("modest", 400), ("greedy", 200), ("critical", 900)] {
        uses(&world, pod, memory);
    }
    world.until(10, "ready", |w| ["modest", "greedy", "critical"].iter().all(|p| w.is_ready(p))).await;
    assert_eq!(condition(&world, "MemoryPressure"), ("False".into(), "KubeletHasSufficientMemory".into()));
    world.host.set_pressure(Some(short_of_memory(&world)));
    world.until(12, "evicted", |w| w.status("greedy").phase == Phase::Failed).await;
    let status = world.status("greedy");
    assert_eq!(status.reason, "Evicted");
    assert_eq!(
        status.message,
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
         Container app was using 200Mi, request is 10Mi, has larger consumption of memory. "
    );
    let disrupted = status.condition("DisruptionTarget").unwrap();
    assert_eq!((disrupted.status, disrupted.reason.as_str()), (ConditionStatus::True, "TerminationByKubelet"));
    let event = world.plane.events().into_iter().find(|(_, e)| e.reason == "Evicted").unwrap().1;
    assert!(event.warning && event.message == status.message, "{event:?}");
    assert!(world.is_ready("modest") && world.is_ready("critical"));
    assert_eq!(condition(&world, "MemoryPressure"), ("True".into(), "KubeletHasInsufficientMemory".into()));
    assert_eq!(taints(&world), ["node.kubernetes.io/memory-pressure"]);
    world.until(5, "nothing of it is left", |w| w.sandbox("greedy").is_none()).await;
    // A beat out of turn looks again, but nobody else goes before the first one's end could show.
    let health = reddwarf_node::StorageHealth { ready: true, reason: "StorageReady", message: String::new() };
    world.node().storage_is(health);
    world
        .until(1, "a beat", |w| w.plane.get("Node", "node-1").unwrap().condition_holds("reddwarf.io/StorageReady"))
        .await;
    assert!(world.is_ready("modest"));
    world.host.set_pressure(None);
    world.sleep(60).await;
    assert!(world.is_ready("modest"), "enough was given back");
    assert_eq!(condition(&world, "MemoryPressure").0, "True", "for a while it is not believed");
    world.sleep(260).await;
    assert_eq!((condition(&world, "MemoryPressure").0.as_str(), taints(&world).len()), ("False", 0));
    assert_eq!(world.status("greedy").phase, Phase::Failed, "who made it is to make another one");
    let reasons: Vec<_> = world.plane.events().into_iter().map(|(_, e)| e.reason).collect();
    for wanted in ["NodeHasInsufficientMemory", "EvictionThresholdMet", "NodeHasSufficientMemory"] {
        assert_eq!(reasons.iter().filter(|r| *r == wanted).count(), 1, "{wanted}: {reasons:?}");
    }
    // A shortage that stays takes the next ones, but never a critical pod.
    world.host.set_pressure(Some(short_of_memory(&world)));
    world.until(30, "the next", |w| w.status("modest").phase == Phase::Failed).await;
    world.sleep(120).await;
    assert!(world.is_ready("critical"));
    assert!(world.host.violations().is_empty());
}

#[tokio::test(start_paused = true)]
async fn pods_of_files_come_back_when_pressure_is_over_later_each_time() {
    let mut world = World::new().await;
    world.plane.apply(pod("web", json!({"restartPolicy": "Never"})));
    uses(&world, "web", 300);
    world.until(10, "ready", |w| w.is_ready("web")).await;
    let mut waits = Vec::new();
    for round in 0..3 {
        world.host.set_pressure(Some(short_of_memory(&world)));
        world.until(20, "evicted", |w| w.status("web").reason == "Evicted").await;
        world.host.set_pressure(None);
        if round == 1 {
            // It is remembered by the pod's status.
            world.restart().await;
        }
        let began = world.host.clock().boot();
        world.until(700, "back", |w| w.is_ready("web")).await;
        waits.push(world.host.clock().boot().since(began).as_secs());
        let status = world.status("web");
        assert_eq!((status.phase, status.reason.as_str()), (Phase::Running, ""));
        assert!(status.condition("DisruptionTarget").is_none(), "{status:?}");
        assert_eq!(status.container_statuses[0].restart_count, round + 1);
        world.settled(20).await;
    }
    // The condition lasts for its transition, which a new daemon begins without, as the kubelet does.
    let expected = [290..330, 8..25, 290..330];
    assert!(waits.iter().zip(&expected).all(|(wait, range)| range.contains(wait)), "{waits:?}");
    assert!(world.host.violations().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_evicted_pod_says_when_it_comes_back_and_is_kept_out_when_it_is_edited() {
    let world = World::new().await;
    world.plane.apply(pod("web", json!({})));
    uses(&world, "web", 300);
    world.until(10, "ready", |w| w.is_ready("web")).await;
    world.host.set_pressure(Some(short_of_memory(&world)));
    world.until(20, "evicted", |w| w.status("web").reason == "Evicted" && w.sandbox("web").is_none()).await;
    let why = world.why("web").await;
    assert!(!why.ok && why.summary.starts_with("Evicted: The node was low on resource: memory."), "{}", why.summary);
    assert!(why.summary.ends_with("when the node's condition is over: [MemoryPressure]."), "{}", why.summary);
    world.sleep(15).await;
    world.plane.apply(pod("web", json!({"hostname": "edited"})));
    world.sleep(60).await;
    assert!(world.sandbox("web").is_none(), "it is kept out like any other");
    let why = world.why("web").await;
    assert!(why.summary.contains("NodePressure"), "{}", why.summary);
    world.host.set_pressure(None);
    world.sleep(30).await;
    let said: Vec<_> = world.node().status().notices.iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|n| n.contains("the shortage of memory is over")), "{said:?}");
    world.until(400, "it begins", |w| w.is_ready("web")).await;
}

#[tokio::test(start_paused = true)]
async fn new_pods_wait_or_fail_under_pressure_as_their_kind_demands() {
    let world = World::new().await;
    world.until(15, "a node", |w| w.plane.get("Node", "node-1").is_some()).await;
    world.host.set_pressure(Some(short_of_memory(&world)));
    world.until(15, "pressure", |w| !taints(w).is_empty()).await;
    world.plane.apply(through_the_api(pod("effort", json!({}))));
    world.plane.apply(pod("file", json!({})));
    world.until(10, "refused", |w| w.status("effort").phase == Phase::Failed).await;
    let status = world.status("effort");
    let message = "The node had condition: [MemoryPressure]. ";
    assert_eq!((status.reason.as_str(), status.message.as_str()), ("Evicted", message));
    assert!(world.sandbox("file").is_none());
    let why = world.why("file").await;
    assert!(why.summary.contains("NodePressure") && why.summary.contains("MemoryPressure"), "{why:?}");
    let status = world.node().status();
    assert!(status.notices.iter().any(|n| n.reason == "MemoryPressure"), "{status:?}");
    world.host.set_pressure(None);
    world.until(400, "the file's pod begins", |w| w.is_ready("file")).await;
    assert_eq!(world.status("effort").phase, Phase::Failed);
}

#[tokio::test(start_paused = true)]
async fn limits_of_disk_are_kept_by_eviction_and_cost_nothing_where_there_are_none() {
    let world = World::new().await;
    let volumes = json!([{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}]);
    world.plane.apply(through_the_api(pod("free", json!({}))));
    world.until(10, "ready", |w| w.is_ready("free")).await;
    world.sleep(60).await;
    assert_eq!(world.host.calls().of(HostOp::DiskUsage), 0, "nobody has limits");
    assert_eq!(world.host.calls().of(HostOp::Usage), 0, "nobody asks");
    world.plane.apply(through_the_api(pod("full", json!({"volumes": volumes}))));
    let limited = json!({"containers": [{"name": "app", "image": "web:1",
        "resources": {"limits": {"ephemeral-storage": "10Ki"}, "requests": {"ephemeral-storage": "1Ki"}}}]});
    world.plane.apply(through_the_api(pod("layer", limited)));
    world.until(10, "ready", |w| w.is_ready("full") && w.is_ready("layer")).await;
    world.sleep(30).await;
    assert!(world.is_ready("full") && world.is_ready("layer"));
    let used = |bytes| DiskUsage { bytes, inodes: 1 };
    let in_volume = [(VolumeName::new("scratch").unwrap(), used(2 << 20))].into();
    world.host.set_load(For::Pod("default/full".into(), "app".into()), Load { volumes: in_volume, ..Load::default() });
    let written = Load { writable: used(20 << 10), ..Load::default() };
    world.host.set_load(For::Pod("default/layer".into(), "app".into()), written);
    world.until(12, "evicted", |w| w.status("full").reason == "Evicted" && w.status("layer").reason == "Evicted").await;
    assert_eq!(world.status("full").message, "Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Mi\". ");
    assert_eq!(
        world.status("layer").message,
        "Pod ephemeral local storage usage exceeds the total limit of containers 10Ki. "
    );
    assert!(world.is_ready("free"));
    assert_eq!(condition(&world, "DiskPressure").0, "False");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_takes_no_notice_of_its_eviction_is_killed_after_a_second() {
    let world = World::new().await;
    world.host.set_script(For::Container("app".into()), vec![reddwarf_host::fake::Script::ignores_term()]);
    world.plane.apply(through_the_api(pod("deaf", json!({"terminationGracePeriodSeconds": 3600}))));
    world.until(10, "ready", |w| w.is_ready("deaf")).await;
    world.host.set_pressure(Some(HostPressure { processes: 32_767, ..world.host.no_pressure() }));
    world.until(15, "evicted", |w| w.status("deaf").reason == "Evicted").await;
    assert!(world.status("deaf").message.starts_with("The node was low on resource: pids. "));
}

/// Whether volumes can be had is a condition of the node, said at once, and only where it is known.
#[tokio::test(start_paused = true)]
async fn storage_that_is_gone_is_a_condition_of_the_node() {
    let world = World::new().await;
    world.until(15, "the node", |w| w.plane.get("Node", "node-1").is_some()).await;
    let named = |w: &World| {
        let node = w.plane.get("Node", "node-1").unwrap();
        let all = node.get("/status/conditions").unwrap().as_array().unwrap().clone();
        all.into_iter().find(|c| c["type"] == "reddwarf.io/StorageReady")
    };
    assert!(named(&world).is_none());
    for (ready, reason, status) in [(false, "StorageSuspended", "False"), (true, "StorageReady", "True")] {
        let message = "the pool tank is SUSPENDED".to_owned();
        world.node().storage_is(reddwarf_node::StorageHealth { ready, reason, message });
        // Sooner than the next heartbeat.
        world.until(2, "the condition", |w| named(w).is_some_and(|c| c["status"] == status)).await;
        assert_eq!(condition(&world, "reddwarf.io/StorageReady"), (status.to_owned(), reason.to_owned()));
    }
    assert_eq!(condition(&world, "Ready").0, "True");
}
