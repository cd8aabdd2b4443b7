//! Network policies, through restarts and deaths of the daemon and reboots of zones behind its back.

use crate::harness::{FOREVER, World, script, skip};
use reddwarf_hostsim::packet::{Fate, connect};
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
    assert!(has(&found.v6, "pass in quick from fd00:88::1/128 to any keep state"), "{:?}", found.v6);
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

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  selector: {app: web}\n  \
                       ports: [{port: 80, targetPort: 8080}]\n";

const FRIENDS: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: friends}\n\
                       spec:\n  podSelector: {matchLabels: {app: web}}\n  ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}]}]\n";

const TO_DB: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: to-db}\n\
                     spec:\n  podSelector: {matchLabels: {role: friend}}\n  policyTypes: [Egress]\n  \
                     egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]\n";

/// What becomes of a pod's connection to the service: whether it reaches the pod behind, or whose filter ends it.
fn by_service(world: &World, pod: &str) -> Result<(), String> {
    let ip = world.pod(pod).unwrap()["status"]["podIP"].as_str().unwrap().parse().unwrap();
    let service = world.json(&["get", "service", "web", "-o", "json"]);
    let vip = format!("{}:80", service["spec"]["clusterIP"].as_str().unwrap()).parse().unwrap();
    let fates = connect(&world.state(), ip, vip, "tcp");
    match fates.first().unwrap() {
        Fate::Arrives { at, .. } if at.port() == 8080 => Ok(()),
        Fate::Blocked(by) => Err(by.clone()),
        other => Err(format!("{other:?}")),
    }
}

#[track_caller]
fn until(world: &World, pod: &str, expected: Result<(), &str>) {
    let expected = expected.map_err(ToOwned::to_owned);
    world.until(&format!("{pod}: {expected:?}"), |w| (by_service(w, pod) == expected).then_some(()));
}

/// Who comes by way of a service comes from the gateway, as the pod's own zone sees it.
#[test]
fn policies_hold_for_what_pods_send_to_services() {
    if skip() {
        return;
    }
    let mut world = World::new("guards");
    world.start();
    world.file("service.yaml", SERVICE);
    world.file("web.yaml", &web("web"));
    world.file("stranger.yaml", &script("stranger", FOREVER));
    world.file("friend.yaml", &web("friend").replace("app: web", "role: friend"));
    for pod in ["web", "friend", "stranger"] {
        world.ready(pod);
    }
    until(&world, "stranger", Ok(()));
    world.file("policy.yaml", FRIENDS);
    until(&world, "stranger", Err("gz"));
    until(&world, "friend", Ok(()));

    // A refresh of ipfilter's service takes all rules away, translations too: these never come back alone.
    assert_eq!(world.lab.run("svcadm", &["refresh", "svc:/network/ipfilter:default"]).unwrap().code, 0);
    assert!(by_service(&world, "stranger").is_err());
    // The next change has them looked at. Egress goes by who is behind the service.
    world.file("egress.yaml", TO_DB);
    until(&world, "stranger", Err("gz"));
    let (zone, _) = world.zone("friend");
    until(&world, "friend", Err(&zone));
    world.file("egress.yaml", &TO_DB.replace("app: db", "app: web"));
    until(&world, "friend", Ok(()));

    // Deleted while the daemon is dead.
    let guards = world.state().filters[""].active.v4.clone();
    world.kill9();
    world.remove("policy.yaml");
    assert_eq!(world.state().filters[""].active.v4, guards, "they outlast it");
    world.start();
    until(&world, "stranger", Ok(()));
    for file in ["service", "web", "stranger", "friend", "egress"] {
        world.remove(&format!("{file}.yaml"));
    }
    world.gone("web");
    world.no_traces();
}
