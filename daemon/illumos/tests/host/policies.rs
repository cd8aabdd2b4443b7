//! Network policies by ipf(8): what is loaded, when it is loaded again, and ways that end in the middle.

use crate::support::{World, played};
use reddwarf_host::service::{Allow, Direction, Isolation, PortRange, Protocol, ServiceTable};
use reddwarf_host::spec::{PodAddress, SandboxNetwork, SandboxSpec, Subnet};
use reddwarf_host::{Change, Host, Network, Observation, SandboxState, Sandboxes, Services};
use reddwarf_hostsim::state::Filters;

/// Every pod of both families, closed but for one port and one friend.
fn closed(spec: &SandboxSpec) -> ServiceTable {
    let port = PortRange { protocol: Protocol::Tcp, first: 80, last: 80 };
    let friends = ["10.213.0.9/32", "fd00:213::9/128"].map(|p| p.parse().unwrap());
    let allow = Allow { peers: Some(friends.into()), ports: Some([port].into()) };
    let pods = spec.network.addresses().iter().map(|a| a.address.addr()).collect();
    let isolation = Isolation { direction: Direction::Ingress, pods, allow: [allow].into() };
    ServiceTable { isolations: vec![isolation], ..ServiceTable::default() }
}

/// What the global zone has a pod's zone filter.
fn filters(world: &World, spec: &SandboxSpec) -> Filters {
    world.lab.state().unwrap().filters.remove(&format!("gz/{}", spec.id)).unwrap_or_default()
}

fn is_closed(filters: &Filters) -> bool {
    let block = |rules: &[String]| rules.iter().any(|r| r == "block in quick from any to any");
    filters.enabled && block(&filters.active.v4) && block(&filters.active.v6)
}

/// ipf's calls since the transcript was forgotten.
fn calls(world: &World) -> Vec<String> {
    let lines = world.lab.transcript().unwrap().into_iter().filter(|l| l.tool == "ipf");
    lines.map(|l| l.argv.join(" ")).collect()
}

async fn boot_anew(world: &World, spec: &SandboxSpec) {
    let answer = world.lab.run("zoneadm", &["-z", spec.id.as_str(), "reboot"]).unwrap();
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert_eq!(filters(world, spec), Filters::default(), "the stack is another one");
}

#[test]
fn a_pod_of_two_families_is_closed_in_both() {
    played(|world| async move {
        let second = Subnet { cidr: "fd00:213::/64".parse().unwrap(), gateway: "fd00:213::1".parse().unwrap() };
        let mut network = world.network();
        network.second = Some(second);
        let _ = world.host.network_ensure(&network).await.unwrap();
        let mut spec = world.sandbox();
        if let SandboxNetwork::Pod { second: other, .. } = &mut spec.network {
            *other = Some(PodAddress { address: "fd00:213::5/64".parse().unwrap(), gateway: second.gateway });
        }
        let _ = world.host.sandbox_ensure(&spec).await.unwrap();
        world.lab.forget_transcript().unwrap();
        let id = spec.id.as_str();
        assert!(matches!(world.host.services_ensure(&closed(&spec)).await.unwrap(), Change::Changed(_)));
        let load = format!("-G -I -Fa -f - {id}");
        assert_eq!(
            calls(&world),
            [format!("-G -E {id}"), load.clone(), format!("-6 {load}"), format!("-G -s {id}"), format!("-G -y {id}")]
        );
        let found = filters(&world, &spec);
        assert!(is_closed(&found), "{found:?}");
        let has = |rules: &[String], rule: &str| rules.iter().any(|r| r == rule);
        for (rules, host, friend) in [
            (&found.active.v4, "10.213.0.1/32", "10.213.0.9/32"),
            (&found.active.v6, "fd00:213::1/128", "fd00:213::9/128"),
        ] {
            assert!(has(rules, &format!("pass in quick from {host} to any keep state")), "{rules:?}");
            assert!(
                has(rules, &format!("pass in quick proto tcp from {friend} to any port = 80 keep state")),
                "{rules:?}"
            );
        }
        assert!(has(&found.active.v6, "pass in quick proto 58 from any to any icmp-type 135"));

        // Once more is nothing, and nothing is amiss.
        world.lab.forget_transcript().unwrap();
        assert_eq!(world.host.services_ensure(&closed(&spec)).await.unwrap(), Change::Unchanged);
        assert_eq!((calls(&world), world.host.services_drift().await.unwrap()), (vec![], vec![]));

        // Lifted, nothing of it is left, and pods that nobody isolates cost nothing.
        assert!(matches!(world.host.services_ensure(&ServiceTable::default()).await.unwrap(), Change::Changed(_)));
        assert_eq!(filters(&world, &spec).active, Default::default());
        world.lab.forget_transcript().unwrap();
        assert_eq!(world.host.services_ensure(&ServiceTable::default()).await.unwrap(), Change::Unchanged);
        assert_eq!((calls(&world), world.host.services_drift().await.unwrap()), (vec![], vec![]));
    });
}

/// By hand, behind our back: the pod is not ready before it has its filters again.
#[test]
fn a_zone_that_somebody_boots_anew_gets_its_filters_again() {
    played(|world| async move {
        let spec = world.running().await;
        let _ = world.host.services_ensure(&closed(&spec)).await.unwrap();
        boot_anew(&world, &spec).await;
        let drift = world.host.services_drift().await.unwrap();
        assert_eq!(drift, [format!("ipf: zone {} has not its filters", spec.id)]);
        let seen = world.observe(&spec.id).await.unwrap();
        assert!(matches!(seen.state, SandboxState::Partial(_)), "{:?}", seen.state);
        let _ = world.host.sandbox_ensure(&spec).await.unwrap();
        assert!(is_closed(&filters(&world, &spec)));
        assert_eq!(world.observe(&spec.id).await.unwrap().state, SandboxState::Running);
        assert_eq!(world.host.services_ensure(&closed(&spec)).await.unwrap(), Change::Unchanged);
        // The other way round: the pass over services comes first.
        boot_anew(&world, &spec).await;
        assert!(matches!(world.host.services_ensure(&closed(&spec)).await.unwrap(), Change::Changed(_)));
        assert!(is_closed(&filters(&world, &spec)));
        let sandboxes = world.host.observe().await.sandboxes;
        assert!(matches!(sandboxes, Observation::Known(_)));
    });
}

/// A daemon that dies with the policy in force, and before each of its commands.
#[test]
fn what_a_daemon_that_died_has_loaded_is_known_to_the_next() {
    played(|world| async move {
        let spec = world.running().await;
        let _ = world.host.services_ensure(&closed(&spec)).await.unwrap();
        // The next one finds it, and lifts nothing before it knows what is wanted.
        let next = world.second_daemon();
        world.lab.forget_transcript().unwrap();
        assert_eq!(next.sandbox_ensure(&spec).await.unwrap(), Change::Unchanged);
        assert_eq!(next.services_ensure(&closed(&spec)).await.unwrap(), Change::Unchanged);
        assert_eq!(calls(&world), Vec::<String>::new());
        // The policy went while nobody was there.
        let next = world.second_daemon();
        assert!(matches!(next.services_ensure(&ServiceTable::default()).await.unwrap(), Change::Changed(_)));
        assert_eq!(filters(&world, &spec).active, Default::default());

        for which in 1..=5 {
            let host = world.second_daemon();
            world.lab.faults(&format!("ipf {which} fail-before 1 died here\n")).unwrap();
            let failed = host.services_ensure(&closed(&spec)).await.unwrap_err();
            assert!(failed.chain().contains("died here"), "{}", failed.chain());
            assert_eq!(is_closed(&filters(&world, &spec)), which == 5, "in force from the exchange on, and not before");
            world.lab.faults("").unwrap();
            // Whether it is wanted still or not.
            let next = world.second_daemon();
            if which % 2 == 0 {
                let _ = next.services_ensure(&closed(&spec)).await.unwrap();
                assert!(is_closed(&filters(&world, &spec)));
            }
            let _ = next.services_ensure(&ServiceTable::default()).await.unwrap();
            assert_eq!(filters(&world, &spec).active, Default::default(), "after the {which}th");
        }
    });
}

/// ipf ends with 0 whatever the kernel says: what it prints is a failure, and what was in force stays.
#[test]
fn what_ipf_says_and_calls_a_success_is_a_failure() {
    played(|world| async move {
        let (one, two) = (world.running().await, world.running().await);
        let mut both = closed(&one);
        both.isolations.extend(closed(&two).isolations);
        let _ = world.host.services_ensure(&both).await.unwrap();
        for isolation in &mut both.isolations {
            isolation.allow.clear();
        }
        world.lab.faults(&format!("ipf/-6+{} * fail-after 0 3:ioctl(add/insert rule): I/O error\n", one.id)).unwrap();
        let failed = world.host.services_ensure(&both).await.unwrap_err().chain();
        assert!(failed.contains("I/O error"), "{failed}");
        let friend = |spec| filters(&world, spec).active.v4.iter().any(|r| r.contains("10.213.0.9"));
        assert!(friend(&one), "the old set stays");
        assert!(!friend(&two), "one that fails keeps no other");
        world.lab.faults("").unwrap();
        let _ = world.host.services_ensure(&both).await.unwrap();
        assert!(!friend(&one) && is_closed(&filters(&world, &one)));
    });
}
