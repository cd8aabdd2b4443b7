//! `zone_balancer = "ilb"`: a service of pods, as ILB is told of it.

use crate::harness::{FOREVER, World, script, skip};
use reddwarf_hostsim::state::Balancer;

fn pod(name: &str) -> String {
    script(name, FOREVER).replacen("metadata:\n", "metadata:\n  labels: {app: web}\n", 1)
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  selector: {app: web}\n  \
                       sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 600}}\n  \
                       ports: [{port: 80, targetPort: 8080}]\n";

fn enable(world: &World, service: &str) {
    assert_eq!(world.lab.run("svcadm", &["enable", service]).unwrap().code, 0);
}

/// Where connections arrive, for how long clients stay, and who takes them.
fn rules(balancer: &Balancer) -> Vec<(String, Option<u32>, Vec<String>)> {
    let rule = |rule: &reddwarf_hostsim::state::BalancerRule| {
        let servers = balancer.groups[&rule.group].servers.values().filter(|s| s.enabled);
        let mut servers: Vec<String> = servers.map(|s| s.address.to_string()).collect();
        servers.sort();
        (rule.vip.to_string(), rule.mask.and(rule.persist_timeout), servers)
    };
    balancer.rules.values().map(rule).collect()
}

#[test]
fn services_are_rules_of_ilb_where_that_is_asked_for() {
    if skip() {
        return;
    }
    let mut world = World::new("ilb").args(&["--zone-balancer", "ilb"]);
    world.start();
    world.file("web.yaml", SERVICE);
    world.file("a.yaml", &pod("a"));
    let a = world.ready("a")["status"]["podIP"].as_str().unwrap().to_owned();
    // Nobody enabled it: the operator hears what to do.
    world.until("an event that says how to mend it", |w| {
        let events = w.ctl(&["events"]).out;
        (events.contains("ServicesNotApplied") && events.contains("svcadm enable")).then_some(())
    });
    enable(&world, "svc:/network/ipv4-forwarding:default");
    enable(&world, "svc:/network/loadbalancer/ilb:default");
    let vip = world.json(&["get", "service", "web", "-o", "json"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let are = |world: &World, servers: &[&str]| {
        let mut servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        servers.sort();
        let expected = [(vip.clone(), Some(600), servers)];
        world.until("the rule", |w| (rules(&w.state().balancer) == expected).then_some(()));
    };
    are(&world, &[&a]);
    assert!(!world.state().nat.iter().any(|r| r.starts_with("rdr ")), "{:?}", world.state().nat);

    // Killed as soon as the second pod is a server: what is there is found again, and completed.
    world.lab.faults("ilbadm/add-server 1 kill-caller-after\n").unwrap();
    world.file("b.yaml", &pod("b"));
    world.until("the daemon's death", |w| w.calls().iter().any(|l| l.fault.is_some()).then_some(()));
    while !world.died() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    world.lab.forget_transcript().unwrap();
    world.start();
    let b = world.ready("b")["status"]["podIP"].as_str().unwrap().to_owned();
    are(&world, &[&a, &b]);
    world.remove("a.yaml");
    world.gone("a");
    are(&world, &[&b]);
    let made: Vec<_> = world.calls().into_iter().filter(|l| l.tool == "ilbadm" && l.changing).collect();
    assert!(made.iter().all(|l| l.argv[0] == "remove-server"), "nothing was made again: {made:?}");

    // The other balancer at the next start: the service goes on by ipnat, and ILB has nothing of ours.
    world.stop();
    let mut world = world.args(&[]);
    world.start();
    world.until("ipnat's redirection", |w| {
        let redirect = |r: &String| r.starts_with("rdr ") && r.contains(&vip) && r.contains(&b);
        (w.state().nat.iter().any(redirect) && w.state().balancer == Balancer::default()).then_some(())
    });
    world.remove("b.yaml");
    world.gone("b");
    world.no_traces();
}
