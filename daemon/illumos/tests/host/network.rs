//! The gateway's addresses, and rules of translation (ipnat(8)) through what others do to them.

use crate::support::{World, played};
use reddwarf_host::service::{Backends, Frontend, Place, Protocol, ServiceTable};
use reddwarf_host::spec::Subnet;
use reddwarf_host::{Change, Host, HostErrorKind, Network, Services};
use std::time::{Duration, Instant};

fn run(world: &World, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let answer = world.lab.run(words[0], &words[1..]).unwrap();
    assert_eq!(answer.code, 0, "{line}: {}", answer.err);
}

fn table(backends: &[(&str, &str)]) -> ServiceTable {
    let frontends = backends.iter().map(|(at, backend)| {
        let place = Place::Address(at.parse().unwrap());
        let of = Backends { addresses: [backend.parse().unwrap()].into(), ..Backends::default() };
        (Frontend { place, protocol: Protocol::Tcp, port: 80 }, of)
    });
    ServiceTable { frontends: frontends.collect(), ..ServiceTable::default() }
}

fn nat(world: &World) -> Vec<String> {
    world.lab.state().unwrap().nat
}

async fn drift(world: &World) -> Vec<String> {
    let seen = world.host.observe().await;
    seen.network.known().unwrap().as_ref().unwrap().drift.clone()
}

/// It is a private property, which may go as it came.
#[test]
fn a_host_whose_redirects_cannot_be_turned_off_has_a_network() {
    played(|world| async move {
        world.lab.faults("ipadm/set-prop+_send_redirects=0 1 fail-before 1 Unknown property\n").unwrap();
        let _ = world.host.network_ensure(&world.network()).await.unwrap();
        let state = world.lab.state().unwrap();
        assert_eq!(state.protocols.get("ipv4/forwarding").map(String::as_str), Some("on"));
        assert!(!state.protocols.contains_key("ipv4/_send_redirects"));
        assert_eq!(drift(&world).await, Vec::<String>::new());
    });
}

#[test]
fn a_new_address_is_waited_for_and_one_that_another_has_is_told() {
    played(|world| async move {
        world.lab.change(|state| state.times.dad = 700).unwrap();
        let began = Instant::now();
        let _ = world.host.network_ensure(&world.network()).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
        assert_eq!(drift(&world).await, Vec::<String>::new());
        let gateway = "10.213.0.1".parse().unwrap();
        world.lab.change(|state| state.neighbours.insert(gateway)).unwrap();
        assert_eq!(drift(&world).await, [format!("address {}/v4 is duplicate", world.options.gateway_link)]);
        let failed = world.host.network_ensure(&world.network()).await.unwrap_err();
        assert_eq!(failed.kind, HostErrorKind::Conflict, "{}", failed.chain());
        world.lab.change(|state| state.neighbours.clear()).unwrap();
        assert_eq!(world.host.network_ensure(&world.network()).await.unwrap(), Change::Unchanged);
    });
}

/// Rules are about an interface: one that was made anew is another one.
#[test]
fn rules_find_a_gateway_that_was_made_anew() {
    played(|world| async move {
        let _ = world.host.network_ensure(&world.network()).await.unwrap();
        let _ = world.host.services_ensure(&table(&[("10.96.0.5", "10.213.0.5:8080")])).await.unwrap();
        let link = &world.options.gateway_link;
        run(&world, &format!("ipadm delete-if {link}"));
        run(&world, &format!("dladm delete-vnic -t {link}"));
        world.lab.forget_transcript().unwrap();
        let _ = world.host.network_ensure(&world.network()).await.unwrap();
        let calls = world.lab.transcript().unwrap().into_iter().filter(|l| l.changing);
        let calls: Vec<String> = calls.map(|l| format!("{} {}", l.tool, l.argv.join(" "))).collect();
        let at =
            |part: &str| calls.iter().position(|c| c.starts_with(part)).unwrap_or_else(|| panic!("{part}: {calls:#?}"));
        assert!(at("dladm create-vnic") < at("ipf -y") && at("ipadm create-addr") < at("ipf -y"), "{calls:#?}");
    });
}

/// As many rules as before, of which one is another: what is missing comes back, what is too much goes all the same.
#[test]
fn rules_that_somebody_took_away_come_back_and_none_is_forgotten() {
    played(|world| async move {
        let _ = world.host.network_ensure(&world.network()).await.unwrap();
        let two = [("10.96.0.5", "10.213.0.5:8080"), ("10.96.0.6", "10.213.0.6:8080")];
        let _ = world.host.services_ensure(&table(&two)).await.unwrap();
        assert_eq!(world.host.services_drift().await.unwrap(), Vec::<String>::new());
        let all = nat(&world);
        let replaced = |state: &mut reddwarf_hostsim::state::State| {
            for rule in &mut state.nat {
                *rule = rule.replace("to 10.213.0.0/24 -> 0.0.0.0/32 portmap", "to 10.99.0.0/24 -> 0.0.0.0/32 portmap");
                *rule = rule.replace("10.96.0.5/32", "10.97.0.5/32");
            }
        };
        world.lab.change(replaced).unwrap();
        let (ours, theirs): (Vec<String>, Vec<String>) = nat(&world).into_iter().partition(|r| all.contains(r));
        assert_eq!(theirs.len(), 3, "{theirs:?}");
        let drift = world.host.services_drift().await.unwrap();
        assert_eq!(drift, [format!("ipnat: 3 of our {} rules are not loaded", ours.len() + 3)]);
        // The second service is gone by now.
        let _ = world.host.services_ensure(&table(&two[..1])).await.unwrap();
        let left = nat(&world);
        assert!(theirs.iter().all(|r| left.contains(r)), "others' are left alone");
        assert!(!left.iter().any(|r| r.contains("10.96.0.6")), "{left:#?}");
        for rule in all.iter().filter(|r| !r.contains("10.96.0.6")) {
            assert!(left.contains(rule), "{rule}");
        }
        // The one that maps ports comes first again.
        let at = |end: &str| {
            left.iter()
                .position(|r| r.starts_with("map net0 from 10.213.0.0/24 ! to 10.213.0.0/24") && r.ends_with(end))
        };
        assert!(at("portmap tcp/udp auto") < at("0.0.0.0/32"), "{left:#?}");
        assert_eq!(world.host.services_drift().await.unwrap(), Vec::<String>::new());
    });
}

#[test]
fn without_ipfilter_it_is_said_what_to_do() {
    played(|world| async move {
        let _ = world.host.network_ensure(&world.network()).await.unwrap();
        run(&world, "svcadm disable svc:/network/ipfilter:default");
        let failed = world.host.services_ensure(&table(&[("10.96.0.5", "10.213.0.5:8080")])).await.unwrap_err();
        assert!(failed.chain().contains("svcadm enable ipfilter"), "{}", failed.chain());
        run(&world, "svcadm enable svc:/network/ipfilter:default");
        let _ = world.host.services_ensure(&table(&[("10.96.0.5", "10.213.0.5:8080")])).await.unwrap();
        let nat = nat(&world);
        assert!(
            nat.iter().any(|r| r.starts_with("map net0 ")) && nat.iter().any(|r| r.starts_with("rdr net0 ")),
            "{nat:?}"
        );
    });
}

/// IPv6 leaves by another NIC than IPv4 does.
#[test]
fn each_family_has_its_own_way_out() {
    played(|world| async move {
        world
            .lab
            .change(|state| {
                let mut net1 = state.links["net0"].clone();
                net1.mac = "2:8:20:0:0:2".into();
                state.links.insert("net1".into(), net1);
            })
            .unwrap();
        run(&world, "ipadm create-addr -T addrconf net1/ll");
        run(&world, "ipadm create-addr -T static -a local=fd00:2::2/64 net1/v6");
        run(&world, "route -n add -inet6 default fd00:2::1");
        let mut network = world.network();
        network.second =
            Some(Subnet { cidr: "fd00:213::/64".parse().unwrap(), gateway: "fd00:213::1".parse().unwrap() });
        let _ = world.host.network_ensure(&network).await.unwrap();
        let both = table(&[("10.96.0.5", "10.213.0.5:8080"), ("fd00:96::5", "[fd00:213::5]:8080")]);
        let _ = world.host.services_ensure(&both).await.unwrap();
        let gateway = &world.options.gateway_link;
        let mut expected = vec![
            "map net0 from 10.213.0.0/24 ! to 10.213.0.0/24 -> 0.0.0.0/32".to_owned(),
            "map net0 from 10.213.0.0/24 ! to 10.213.0.0/24 -> 0.0.0.0/32 portmap tcp/udp auto".to_owned(),
            "map net1 from fd00:213::/64 ! to fd00:213::/64 -> ::/128".to_owned(),
            "map net1 from fd00:213::/64 ! to fd00:213::/64 -> ::/128 portmap tcp/udp auto".to_owned(),
            format!("map {gateway} from 10.213.0.0/24 to 10.213.0.0/24 -> 10.213.0.1/32 portmap tcp/udp auto"),
            format!("map {gateway} from fd00:213::/64 to fd00:213::/64 -> fd00:213::1/128 portmap tcp/udp auto"),
            "rdr net0 10.96.0.5/32 port 80 -> 10.213.0.5 port 8080 tcp round-robin".to_owned(),
            "rdr net1 fd00:96::5/128 port 80 -> fd00:213::5 port 8080 tcp round-robin".to_owned(),
            format!("rdr {gateway} 10.96.0.5/32 port 80 -> 10.213.0.5 port 8080 tcp round-robin"),
            format!("rdr {gateway} fd00:96::5/128 port 80 -> fd00:213::5 port 8080 tcp round-robin"),
        ];
        expected.sort();
        let mut found = nat(&world);
        found.sort();
        assert_eq!(found, expected);
        let routes = world.host.routes().await.unwrap();
        assert_eq!(
            routes,
            [("net0".to_owned(), "192.0.2.0/24".parse().unwrap()), ("net1".to_owned(), "fd00:2::/64".parse().unwrap())]
        );
    });
}
