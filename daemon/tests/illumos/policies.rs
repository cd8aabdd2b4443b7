//! Network policies, through restarts and deaths of the daemon and reboots of zones behind its back.

use crate::harness::{FOREVER, World, script, skip};
use reddwarf_hostsim::state::Filters;
use std::time::Duration;

fn web(name: &str) -> String {
    script(name, FOREVER).replacen("metadata:\n", "metadata:\n  labels: {app: web}\n", 1)
}

const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed}\n\
                      spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}\n";

fn filters(world: &World, pod: &str) -> Filters {
    let (zone, _) = world.zone(pod);
    world.state().filters.remove(&format!("gz/{zone}")).unwrap_or_default()
}

fn is_closed(filters: &Filters) -> bool {
    let block = |rules: &[String]| rules.iter().any(|r| r == "block in quick from any to any");
    filters.enabled && block(&filters.active.v4) && block(&filters.active.v6)
}

#[track_caller]
fn until_closed(world: &World, pod: &str) {
    world.until("the policy", |w| is_closed(&filters(w, pod)).then_some(()));
}

#[track_caller]
fn until_open(world: &World, pod: &str) {
    world.until("the policy to be lifted", |w| (filters(w, pod).active == Filters::default().active).then_some(()));
}

/// Waits until a fault killed the daemon.
fn died(world: &mut World) {
    world.until("the daemon's death", |w| w.calls().iter().any(|l| l.fault.is_some()).then_some(()));
    while !world.died() {
        std::thread::sleep(Duration::from_millis(10));
    }
    world.lab.faults("").unwrap();
    world.lab.forget_transcript().unwrap();
}

#[test]
fn policies_outlast_deaths_of_the_daemon_and_reboots_of_zones() {
    if skip() {
        return;
    }
    let mut world = World::new("policies").dual();
    world.start();
    world.file("policy.yaml", POLICY);
    world.file("a.yaml", &web("a"));
    world.file("b.yaml", &script("b", FOREVER));
    let pod = world.ready("a");
    world.ready("b");
    until_closed(&world, "a");
    assert_eq!(filters(&world, "b"), Filters::default(), "the other pod has none");
    // Two families, each with its own host.
    assert_eq!(pod["status"]["podIPs"].as_array().unwrap().len(), 2, "{}", pod["status"]);
    let has = |rules: &[String], rule: &str| rules.iter().any(|r| r == rule);
    let found = filters(&world, "a").active;
    assert!(has(&found.v6, "pass in quick from fd00:88::/128 to any keep state"), "{:?}", found.v6);
    assert!(found.v4.iter().any(|r| r.starts_with("pass in quick from 10.")), "{:?}", found.v4);

    // Booted anew behind the daemon's back.
    let (zone, _) = world.zone("a");
    assert_eq!(world.lab.run("zoneadm", &["-z", &zone, "reboot"]).unwrap().code, 0);
    until_closed(&world, "a");
    world.ready("a");

    // Deleted while the daemon is down.
    world.stop();
    assert!(is_closed(&filters(&world, "a")), "it outlasts the daemon");
    world.remove("policy.yaml");
    world.start();
    until_open(&world, "a");

    // Killed between the loading and the exchange, and right after the exchange.
    for action in ["kill-caller", "kill-caller-after"] {
        world.lab.forget_transcript().unwrap();
        world.lab.faults(&format!("ipf/-s 1 {action}\n")).unwrap();
        world.file("policy.yaml", POLICY);
        died(&mut world);
        assert_eq!(is_closed(&filters(&world, "a")), action == "kill-caller-after");
        world.start();
        until_closed(&world, "a");
        world.remove("policy.yaml");
        until_open(&world, "a");
    }
    for name in ["a", "b"] {
        world.remove(&format!("{name}.yaml"));
        world.gone(name);
    }
    world.no_traces();
    assert!(world.state().filters.keys().all(String::is_empty), "{:?}", world.state().filters);
}
