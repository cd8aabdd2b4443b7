//! A pool that is suspended while pods run (fault F33), and comes back.

use crate::harness::{FOREVER, World, is_ready, script, skip};
use reddwarf_hostsim::state::ZoneState;
use serde_json::Value;
use std::time::{Duration, Instant};

const POOL: &str = "rpool";

fn set_health(world: &World, health: Option<&str>) {
    let set = |state: &mut reddwarf_hostsim::state::State| match health {
        Some(health) => drop(state.pools.insert(POOL.to_owned(), health.to_owned())),
        None => drop(state.pools.remove(POOL)),
    };
    world.lab.change(set).unwrap();
}

/// The Node's word on its storage: whether it is ready, why, and the message.
fn storage(world: &World) -> Option<(bool, String, String)> {
    let node = world.json(&["get", "node", "zone-host", "-o", "json"]);
    let conditions = node["status"]["conditions"].as_array()?.clone();
    let found = conditions.into_iter().find(|c| c["type"] == "reddwarf.io/StorageReady")?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Some((found["status"] == "True", text("reason"), text("message")))
}

fn container(pod: &Value) -> (Value, Value) {
    let status = &pod["status"]["containerStatuses"][0];
    (status["containerID"].clone(), status["restartCount"].clone())
}

#[test]
fn f33_pods_outlast_a_suspended_pool_and_others_wait_for_it() {
    if skip() {
        return;
    }
    let mut world = World::new("suspended").args(&["--storage-pool", "rpool/volumes"]);
    world.start();
    for name in ["stays", "goes"] {
        world.file(&format!("{name}.yaml"), &script(name, FOREVER));
    }
    let before = world.ready("stays");
    world.ready("goes");
    let zone = world.zone("stays").1;
    let datasets = world.state().datasets;
    world.until("storage that is ready", |w| storage(w)?.0.then_some(()));

    set_health(&world, Some("SUSPENDED"));
    world.within(Duration::from_secs(60), "the Node to say so", |w| {
        let (ready, reason, message) = storage(w)?;
        (!ready && reason == "StorageSuspended" && message.contains("the pool rpool is SUSPENDED")).then_some(())
    });
    world.until("an event", |w| w.ctl(&["events"]).out.contains("StorageSuspended").then_some(()));
    let status = world.ctl(&["status"]).exits(3).out;
    assert!(status.contains("the pool rpool is SUSPENDED"), "{status}");

    // One more, and one fewer.
    world.file("waits.yaml", &script("waits", FOREVER));
    world.remove("goes.yaml");
    world.until("a condition that says why it waits", |w| {
        let pod = w.pod("waits")?;
        let mut conditions = pod["status"]["conditions"].as_array()?.iter();
        conditions
            .any(|c| c["status"] == "False" && c["message"].as_str().is_some_and(|m| m.contains("suspended")))
            .then_some(())
    });
    world.until("why the other one does not go", |w| {
        w.ctl(&["why", "pod/goes"]).out.contains("suspended").then_some(())
    });
    // Nothing waits for the pool, and a daemon that starts meanwhile does not either.
    for round in 0..2 {
        let began = Instant::now();
        assert!(is_ready(&world.pod("stays").unwrap()), "round {round}");
        world.ctl(&["exec", "stays", "--", "true"]).ok();
        assert!(world.ctl(&["status"]).exits(3).out.contains("SUSPENDED"), "round {round}");
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        if round == 0 {
            world.kill9();
            world.start();
        }
    }
    let now = world.zone("stays").1;
    assert_eq!((now.state, now.id, now.init), (ZoneState::Running, zone.id, zone.init));
    let state = world.state();
    let gone: Vec<_> = datasets.keys().filter(|name| !state.datasets.contains_key(*name)).collect();
    assert!(gone.is_empty(), "{gone:?}");

    set_health(&world, None);
    world.within(Duration::from_secs(60), "the Node to say so", |w| storage(w)?.0.then_some(()));
    world.within(Duration::from_secs(60), "the pod that waited", |w| w.ready_pod("waits"));
    world.within(Duration::from_secs(60), "the end of the other", |w| w.is_gone("goes").then_some(()));
    world.until("the event", |w| w.ctl(&["events"]).out.contains("StorageReady").then_some(()));
    assert_eq!(container(&world.ready("stays")), container(&before), "it went on");
    for name in ["stays", "waits"] {
        world.remove(&format!("{name}.yaml"));
        world.gone(name);
    }
    world.no_traces();
}
