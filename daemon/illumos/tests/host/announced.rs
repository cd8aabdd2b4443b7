//! Load balancers' addresses: taken on once the rules lead there, given up before those go, and nobody else's touched.

use crate::balancer;
use crate::support::{World, played};
use reddwarf_host::service::{Backends, Frontend, Place, Protocol, ServiceTable};
use reddwarf_host::{Change, Host, HostErrorKind, Network, Services};
use reddwarf_illumos::Balancer;
use std::net::IpAddr;

fn backends(of: &[&str]) -> Backends {
    let addresses = of.iter().map(|b| b.parse().unwrap()).collect();
    Backends { name: "default/web".into(), addresses, ..Backends::default() }
}

/// A service at each of the addresses, and one at a port of the host.
fn table(announced: &[&str]) -> ServiceTable {
    let announced: Vec<IpAddr> = announced.iter().map(|ip| ip.parse().unwrap()).collect();
    let at = |place| Frontend { place, protocol: Protocol::Tcp, port: 80 };
    let of = |ip: &IpAddr| backends(&[if ip.is_ipv4() { "10.213.0.5:8080" } else { "[fd00::5]:8080" }]);
    let mut frontends: std::collections::BTreeMap<_, _> =
        announced.iter().map(|ip| (at(Place::Address(*ip)), of(ip))).collect();
    frontends.insert(Frontend { port: 30_080, ..at(Place::HostV4) }, backends(&["10.213.0.5:8080"]));
    let pods = ["10.213.0.0/24".parse().unwrap()].into();
    ServiceTable { frontends, announced: announced.into_iter().collect(), pods, ..ServiceTable::default() }
}

/// Address objects of ours, as `interface address`.
fn taken(world: &World) -> Vec<String> {
    let interfaces = world.lab.state().unwrap().interfaces;
    let objects = interfaces.iter().flat_map(|(link, i)| i.addresses.iter().map(move |(name, a)| (link, name, a)));
    let ours = objects.filter(|(_, name, _)| name.starts_with("rwlb"));
    let mut found: Vec<String> = ours
        .map(|(link, _, a)| {
            assert!(a.temporary, "{a:?}");
            format!("{link} {}", a.address)
        })
        .collect();
    found.sort();
    found
}

fn changes(world: &World) -> Vec<String> {
    let lines = world.lab.transcript().unwrap().into_iter().filter(|l| l.changing);
    lines.map(|l| format!("{} {}", l.tool, l.argv[0])).collect()
}

fn tool(world: &World, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let answer = world.lab.run(words[0], &words[1..]).unwrap();
    assert_eq!(answer.code, 0, "{line}: {}", answer.err);
}

/// A second NIC, by which no default route leads, with both families.
fn second_nic(world: &World) {
    let added = world.lab.change(|state| {
        let net0 = state.links["net0"].clone();
        state.links.insert("net1".into(), net0);
    });
    added.unwrap();
    tool(world, "ipadm create-addr -T static -a local=198.51.100.2/24 net1/v4");
    tool(world, "ipadm create-addr -T addrconf net1/ll");
    tool(world, "ipadm create-addr -T static -a local=2001:db8::2/64 net1/v6");
}

#[test]
fn addresses_are_where_neighbours_ask_for_them() {
    played(|world| async move {
        let host = &world.host;
        second_nic(&world);
        let _ = host.network_ensure(&world.network()).await.unwrap();
        let own = host.info().await.unwrap().addresses;
        let wanted = table(&["192.0.2.64", "198.51.100.64", "203.0.113.64", "2001:db8::40", "2001:db8:1::40"]);
        world.lab.forget_transcript().unwrap();
        assert!(matches!(host.services_ensure(&wanted).await.unwrap(), Change::Changed(_)));
        assert_eq!(
            taken(&world),
            [
                "lo0 2001:db8:1::40/128",
                "lo0 203.0.113.64/32",
                "net0 192.0.2.64/32",
                "net1 198.51.100.64/32",
                "net1 2001:db8::40/128",
            ]
        );
        let done = changes(&world);
        assert!(done[0].starts_with("ipnat") && done[1..].iter().all(|c| c == "ipadm create-addr"), "{done:?}");
        // They are no addresses of the host itself, and what comes in where they are is led on.
        assert_eq!(host.info().await.unwrap().addresses, own);
        assert!(host.routes().await.unwrap().iter().all(|(_, net)| net.prefix_len() < net.max_prefix_len()));
        let nat = world.lab.state().unwrap().nat;
        let leads = |link: &str, to: &str| nat.iter().any(|r| r.starts_with(&format!("rdr {link} {to}")));
        for to in ["192.0.2.64/32", "198.51.100.64/32", "203.0.113.64/32"] {
            assert!(leads("net0", to), "{to}: {nat:?}");
        }
        assert!(leads("net1", "198.51.100.64/32") && leads("net1", "2001:db8::40/128"), "{nat:?}");
        assert!(!leads("net0", "2001:db8::40/128"), "IPv6 has no way out by net0: {nat:?}");
        // The host's own addresses, too: a port of the host is one on each.
        assert!(leads("net1", "198.51.100.2/32 port 30080"), "{nat:?}");
        assert!(
            !leads("net1", "192.0.2.64/32") && !nat.iter().any(|r| r.contains("192.0.2.64/32 port 30080")),
            "{nat:?}"
        );

        // What is as it should be takes as many commands for one as for five, and changes nothing.
        let unchanged = async |table: &ServiceTable| {
            world.lab.forget_transcript().unwrap();
            assert_eq!(host.services_ensure(table).await.unwrap(), Change::Unchanged);
            world.lab.transcript().unwrap().len()
        };
        let five = unchanged(&wanted).await;
        assert_eq!(host.services_drift().await.unwrap(), Vec::<String>::new());
        let _ = host.services_ensure(&table(&[])).await.unwrap();
        assert_eq!(taken(&world), [""; 0]);
        assert_eq!(unchanged(&table(&[])).await, five, "none announced");

        // Gone before their rules; without services nobody looks any more.
        let _ = host.services_ensure(&wanted).await.unwrap();
        world.lab.forget_transcript().unwrap();
        let _ = host.services_ensure(&ServiceTable::default()).await.unwrap();
        let done = changes(&world);
        let (last, first) = done.split_last().unwrap();
        assert!(last.starts_with("ipnat") && first.len() == 5, "{done:?}");
        assert!(first.iter().all(|c| c == "ipadm delete-addr"), "{done:?}");
        assert_eq!(taken(&world), [""; 0]);
        let _ = unchanged(&ServiceTable::default()).await;
        assert!(world.lab.transcript().unwrap().iter().all(|l| l.tool != "ipadm"));
    });
}

#[test]
fn one_address_that_fails_keeps_no_other_and_nothing_of_others_is_touched() {
    played(|world| async move {
        let host = &world.host;
        let _ = host.network_ensure(&world.network()).await.unwrap();
        tool(&world, "ipadm create-addr -T static -a local=192.0.2.65/32 net0/web");
        tool(&world, "ipadm create-addr -t -T static -a local=192.0.2.67/32 net0/rwlbmine");
        let wanted = table(&["192.0.2.64", "192.0.2.65", "192.0.2.66"]);
        world.lab.faults("ipadm/create-addr+192.0.2.64/32 1 fail-before 1 Permission denied\n").unwrap();
        let error = host.services_ensure(&wanted).await.unwrap_err();
        assert!(error.subject.starts_with("net0/rwlb") && error.message.contains("Permission denied"), "{error}");
        let mine = "net0 192.0.2.67/32";
        assert_eq!(taken(&world), ["net0 192.0.2.66/32", mine]);
        assert!(world.lab.state().unwrap().nat.iter().any(|r| r.contains("192.0.2.64/32")), "the rules are there");
        assert_eq!(host.services_drift().await.unwrap(), ["address 192.0.2.64 is on no interface"]);
        // The next pass has it, and finds again what another daemon of this instance made.
        assert!(matches!(world.second_daemon().services_ensure(&wanted).await.unwrap(), Change::Changed(_)));
        assert_eq!(taken(&world), ["net0 192.0.2.64/32", "net0 192.0.2.66/32", mine]);
        assert_eq!(host.services_ensure(&wanted).await.unwrap(), Change::Unchanged);

        // Somebody takes one away: it comes back. One that can't be given up keeps no other either.
        let there = world.lab.state().unwrap().interfaces["net0"].addresses.clone();
        let (object, _) = there.iter().find(|(_, a)| a.address == "192.0.2.64/32").unwrap();
        tool(&world, &format!("ipadm delete-addr net0/{object}"));
        assert!(matches!(host.services_ensure(&wanted).await.unwrap(), Change::Changed(_)));
        world
            .lab
            .faults(&format!("ipadm/delete-addr+{object} 1 fail-before 1 Could not communicate with ipmgmtd\n"))
            .unwrap();
        let error = host.services_ensure(&ServiceTable::default()).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::Busy, "{error}");
        assert_eq!(taken(&world), ["net0 192.0.2.64/32", mine]);
        assert!(!world.lab.state().unwrap().nat.iter().any(|r| r.starts_with("rdr ")));
        let _ = host.services_ensure(&ServiceTable::default()).await.unwrap();
        assert_eq!(taken(&world), [mine]);
        let web = world.lab.state().unwrap().interfaces["net0"].addresses["web"].address.clone();
        assert_eq!(web, "192.0.2.65/32");
    });
}

/// An address that was taken on is none of the host's own: ILB keeps the service.
#[test]
fn ilb_keeps_the_services_whose_addresses_are_taken_on() {
    played(|world| async move {
        balancer::enable(&world);
        let host = balancer::host(&world, Balancer::Ilb);
        let _ = host.network_ensure(&world.network()).await.unwrap();
        let wanted = table(&["192.0.2.64"]);
        let _ = host.services_ensure(&wanted).await.unwrap();
        assert_eq!(taken(&world), ["net0 192.0.2.64/32"]);
        assert_eq!(host.services_ensure(&wanted).await.unwrap(), Change::Unchanged);
        let state = world.lab.state().unwrap();
        assert_eq!(state.balancer.rules.len(), 1);
        assert!(!state.nat.iter().any(|r| r.contains("192.0.2.64")), "{:?}", state.nat);
        let _ = host.services_ensure(&ServiceTable::default()).await.unwrap();
        assert_eq!(taken(&world), [""; 0]);
    });
}
