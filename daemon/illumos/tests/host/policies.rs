//! Network policies by ipf(8): what is loaded, when it is loaded again, and ways that end in the middle.

use crate::support::{World, played};
use reddwarf_host::service::{
    Allow, Backends, Direction, Frontend, Isolation, Place, PortRange, Protocol, ServiceTable,
};
use reddwarf_host::spec::{PodAddress, SandboxNetwork, SandboxSpec, Subnet};
use reddwarf_host::{Change, Host, Network, Observation, SandboxState, Sandboxes, Services};
use reddwarf_hostsim::packet::{Fate, connect};
use reddwarf_hostsim::state::Filters;
use std::net::{IpAddr, SocketAddr};

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

fn address(spec: &SandboxSpec) -> IpAddr {
    spec.network.addresses()[0].address.addr()
}

const VIP: &str = "10.96.0.5:80";

/// A service before these pods' port 8080.
fn service(behind: &[&SandboxSpec]) -> (Frontend, Backends) {
    let at: SocketAddr = VIP.parse().unwrap();
    let frontend = Frontend { place: Place::Address(at.ip()), protocol: Protocol::Tcp, port: at.port() };
    let addresses = behind.iter().map(|spec| SocketAddr::new(address(spec), 8080)).collect();
    (frontend, Backends { name: "default/web".to_owned(), addresses, ..Backends::default() })
}

fn only(direction: Direction, pod: &SandboxSpec, peers: &[&SandboxSpec]) -> Isolation {
    let peers = peers.iter().map(|peer| address(peer).into()).collect();
    Isolation { direction, pods: [address(pod)].into(), allow: [Allow { peers: Some(peers), ports: None }].into() }
}

/// Where a pod's connection to the service ends.
fn fates(world: &World, from: &SandboxSpec) -> Vec<Fate> {
    connect(&world.lab.state().unwrap(), address(from), VIP.parse().unwrap(), "tcp").into_iter().collect()
}

fn arrives(at: &SandboxSpec) -> Fate {
    Fate::Arrives { at: SocketAddr::new(address(at), 8080), from: "10.213.0.1".parse().unwrap() }
}

fn blocked() -> Fate {
    Fate::Blocked("gz".to_owned())
}

/// The pod's own zone sees the gateway in either case.
#[test]
fn who_comes_by_way_of_a_service_is_told_from_others() {
    played(|world| async move {
        let (web, friend, stranger) = (world.running().await, world.running().await, world.running().await);
        let rules = |world: &World| world.lab.state().unwrap().filters[""].active.v4.clone();
        let answer = world.lab.run_reading("ipf", &["-f", "-"], "pass out quick all\n").unwrap();
        assert_eq!(answer.code, 0, "{}", answer.err);
        let mut table = ServiceTable { frontends: [service(&[&web])].into(), ..ServiceTable::default() };
        let _ = world.host.services_ensure(&table).await.unwrap();
        assert_eq!(rules(&world), ["pass out quick all"], "nobody is isolated");
        assert_eq!(fates(&world, &stranger), [arrives(&web)]);

        table.isolations = vec![only(Direction::Ingress, &web, &[&friend])];
        assert!(matches!(world.host.services_ensure(&table).await.unwrap(), Change::Changed(_)));
        let all = [fates(&world, &friend), fates(&world, &stranger), fates(&world, &web)].concat();
        assert_eq!(all, [arrives(&web), blocked(), arrives(&web)], "{:?}", rules(&world));
        let direct = |from| connect(&world.lab.state().unwrap(), address(from), (address(&web), 8080).into(), "tcp");
        assert_eq!(direct(&stranger), [Fate::Blocked(web.id.to_string())].into());
        // Once more is nothing; so it is for the next daemon, which knows by its notes.
        world.lab.forget_transcript().unwrap();
        let next = world.second_daemon();
        assert_eq!(next.services_ensure(&table).await.unwrap(), Change::Unchanged);
        assert_eq!((calls(&world), next.services_drift().await.unwrap()), (vec![], vec![]));

        // Taken away by somebody: told, and put back before what the administrator loads now.
        let answer = world.lab.run_reading("ipf", &["-Fa", "-f", "-"], "pass out quick all\n").unwrap();
        assert_eq!(answer.code, 0, "{}", answer.err);
        assert_eq!(fates(&world, &stranger), [arrives(&web)]);
        assert_eq!(next.services_drift().await.unwrap(), ["ipf: 4 of our 4 guards are not loaded"]);
        let _ = next.services_ensure(&table).await.unwrap();
        assert_eq!(fates(&world, &stranger), [blocked()]);

        // Another friend; then nobody is isolated any more.
        table.isolations = vec![only(Direction::Ingress, &web, &[&stranger])];
        let _ = next.services_ensure(&table).await.unwrap();
        assert_eq!([fates(&world, &friend), fates(&world, &stranger)].concat(), [blocked(), arrives(&web)]);
        table.isolations.clear();
        let _ = next.services_ensure(&table).await.unwrap();
        assert_eq!(rules(&world), ["pass out quick all"], "the administrator's stay");
    });
}

/// ILB has chosen the pod by the time that guards are asked.
#[test]
fn services_of_ilb_are_guarded_too() {
    played(|world| async move {
        let (web, stranger) = (world.running().await, world.running().await);
        crate::balancer::enable(&world);
        let host = crate::balancer::host(&world, reddwarf_illumos::Balancer::Ilb);
        let table = ServiceTable {
            pods: ["10.213.0.0/24".parse().unwrap()].into(),
            frontends: [service(&[&web])].into(),
            isolations: vec![only(Direction::Ingress, &web, &[])],
            ..ServiceTable::default()
        };
        let _ = host.services_ensure(&table).await.unwrap();
        assert_eq!(world.lab.state().unwrap().balancer.rules.len(), 1);
        assert_eq!([fates(&world, &web), fates(&world, &stranger)].concat(), [arrives(&web), blocked()]);
        let _ = host.services_ensure(&ServiceTable { isolations: vec![], ..table }).await.unwrap();
        assert_eq!(fates(&world, &stranger), [arrives(&web)]);
    });
}

#[test]
fn a_pod_reaches_of_a_service_whom_its_policies_of_egress_name() {
    played(|world| async move {
        let (good, bad, client) = (world.running().await, world.running().await, world.running().await);
        let mut table = ServiceTable {
            frontends: [service(&[&good, &bad])].into(),
            isolations: vec![only(Direction::Egress, &client, &[&good])],
            ..ServiceTable::default()
        };
        let _ = world.host.services_ensure(&table).await.unwrap();
        assert_eq!(fates(&world, &client), [arrives(&good), blocked()]);
        assert_eq!(fates(&world, &bad).len(), 2, "others reach both");
        table.frontends = [service(&[&bad])].into();
        let _ = world.host.services_ensure(&table).await.unwrap();
        assert_eq!(fates(&world, &client), [Fate::Blocked(client.id.to_string())], "its own zone ends it");
    });
}

/// Before redirections there are guards, and after them.
#[test]
fn no_moment_is_without_guards() {
    played(|world| async move {
        let (web, stranger) = (world.running().await, world.running().await);
        let table = ServiceTable {
            frontends: [service(&[&web])].into(),
            isolations: vec![only(Direction::Ingress, &web, &[])],
            ..ServiceTable::default()
        };
        let steps = [
            "ipf * fail-before 1 died",
            "ipf * fail-after 1 died",
            "ipnat * fail-before 1 died",
            "ipnat/-r * fail-after 1 died",
        ];
        for step in steps {
            for (from, to) in [(ServiceTable::default(), &table), (table.clone(), &ServiceTable::default())] {
                let _ = world.second_daemon().services_ensure(&from).await.unwrap();
                world.lab.faults(&format!("{step}\n")).unwrap();
                let _ = world.second_daemon().services_ensure(to).await;
                world.lab.faults("").unwrap();
                assert!(!fates(&world, &stranger).contains(&arrives(&web)), "{step}");
                let _ = world.second_daemon().services_ensure(&from).await.unwrap();
            }
        }
        let _ = world.second_daemon().services_ensure(&ServiceTable::default()).await.unwrap();
        assert!(world.lab.state().unwrap().filters[""].active.v4.is_empty());
    });
}
