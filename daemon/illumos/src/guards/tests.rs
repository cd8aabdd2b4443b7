use super::*;
use reddwarf_host::service::{Backends, Frontend, PortRange};

fn subnets() -> Vec<Subnet> {
    let subnet = |cidr: &str, gateway: &str| Subnet { cidr: cidr.parse().unwrap(), gateway: gateway.parse().unwrap() };
    vec![subnet("10.88.0.0/24", "10.88.0.1"), subnet("fd00::/64", "fd00::1")]
}

fn allow(peers: Option<&[&str]>, ports: Option<(Protocol, u16, u16)>) -> Allow {
    let peers = peers.map(|all| all.iter().map(|p| p.parse().unwrap()).collect());
    Allow { peers, ports: ports.map(|(protocol, first, last)| [PortRange { protocol, first, last }].into()) }
}

fn isolated(direction: Direction, pods: &[&str], allow: Vec<Allow>) -> Isolation {
    Isolation { direction, pods: pods.iter().map(|p| p.parse().unwrap()).collect(), allow: allow.into_iter().collect() }
}

/// A service of TCP for each: its address and port, and who is behind it.
fn table(services: &[(&str, &[&str])], isolations: Vec<Isolation>) -> ServiceTable {
    let frontends = services.iter().map(|(at, behind)| {
        let at: SocketAddr = at.parse().unwrap();
        let frontend = Frontend { place: Place::Address(at.ip()), protocol: Protocol::Tcp, port: at.port() };
        let addresses = behind.iter().map(|b| b.parse().unwrap()).collect();
        (frontend, Backends { addresses, ..Backends::default() })
    });
    ServiceTable { frontends: frontends.collect(), isolations, ..ServiceTable::default() }
}

fn text(table: &ServiceTable) -> Vec<String> {
    wanted(table, &subnets()).iter().map(Guard::loaded).collect()
}

const WEB: &[(&str, &[&str])] = &[("10.96.0.5:80", &["10.88.0.5:8080", "10.88.0.6:8080"])];

#[test]
fn a_backend_is_closed_to_all_pods_but_its_friends() {
    let friends = allow(Some(&["10.88.0.9/32", "192.0.2.0/24"]), Some((Protocol::Tcp, 8000, 8100)));
    let other_port = allow(None, Some((Protocol::Tcp, 9000, 9000)));
    let closed = table(WEB, vec![isolated(Direction::Ingress, &["10.88.0.5"], vec![friends, other_port])]);
    let group = group(&"10.88.0.5:8080".parse().unwrap(), Protocol::Tcp);
    assert!(group.len() <= 15 && group.bytes().all(|b| b.is_ascii_alphanumeric()), "{group}");
    let friend = |from: &str| format!("pass out from {from}/32 to any group {group}");
    assert_eq!(
        text(&closed),
        [
            format!(
                "@0 block out quick proto tcp from 10.88.0.0/24 to 10.88.0.5/32 port = 8080 flags S/SA head {group}"
            ),
            friend("10.88.0.1"),
            friend("10.88.0.5"),
            friend("10.88.0.9"),
        ],
        "the host, the pod itself, and who is named; whom the pod's own zone can tell is left to it"
    );
    // Who is open to all pods needs none, nor who is behind no service.
    for allowed in [allow(None, None), allow(Some(&["10.0.0.0/8"]), None)] {
        assert_eq!(text(&table(WEB, vec![isolated(Direction::Ingress, &["10.88.0.5"], vec![allowed])])), [""; 0]);
    }
    assert_eq!(text(&table(WEB, vec![isolated(Direction::Ingress, &["10.88.0.7"], vec![])])), [""; 0]);
    assert_eq!(text(&table(WEB, vec![])), [""; 0]);
}

#[test]
fn each_family_has_its_own_and_udp_has_no_flags() {
    let mut closed = table(
        &[("[fd00:96::5]:53", &["[fd00::5]:5353"])],
        vec![isolated(Direction::Ingress, &["10.88.0.5", "fd00::5"], vec![])],
    );
    let services = std::mem::take(&mut closed.frontends);
    let udp = |(frontend, backends)| (Frontend { protocol: Protocol::Udp, ..frontend }, backends);
    closed.frontends = services.into_iter().map(udp).collect();
    let rules = text(&closed);
    assert!(
        rules[0].starts_with("@0 block out quick proto udp from fd00::/64 to fd00::5/128 port = 5353 head rw"),
        "{rules:?}"
    );
    let runs = load(&wanted(&closed, &subnets()));
    assert_eq!(runs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["ipf -6 -f -"]);
}

#[test]
fn egress_goes_by_who_is_behind_a_service() {
    let only_five = vec![allow(Some(&["10.88.0.5/32"]), None)];
    let of = |services: &[(&str, &[&str])], allowed: &[Allow]| {
        let table = table(services, vec![isolated(Direction::Egress, &["10.88.0.9"], allowed.to_vec())]);
        let own = ["10.88.0.9".parse().unwrap()];
        let opened = services_behind_which(&table, &own, &allowed.iter().cloned().collect());
        (opened.into_iter().map(|(_, at)| at.to_string()).collect::<Vec<_>>(), text(&table))
    };
    let barred = "@0 block out quick proto tcp from 10.88.0.9/32 to 10.88.0.6/32 port = 8080 flags S/SA".to_owned();
    // One of two behind it may be reached: the service is open, the other one is barred.
    assert_eq!(of(WEB, &only_five), (vec!["10.96.0.5:80".to_owned()], vec![barred.clone()]));
    // Both, or none.
    assert_eq!(of(&[("10.96.0.5:80", &["10.88.0.5:8080"])], &only_five).1, [""; 0]);
    assert_eq!(of(&[("10.96.0.5:80", &["10.88.0.6:8080"])], &only_five), (vec![], vec![]));
    // Everything but one: the service needs no rule of its own.
    let all_but_six = vec![allow(Some(&["10.96.0.0/16", "10.88.0.5/32"]), None)];
    assert_eq!(of(WEB, &all_but_six), (vec![], vec![barred]));
    // A port that the policy does not name.
    let port = vec![allow(Some(&["10.88.0.5/32"]), Some((Protocol::Tcp, 80, 80)))];
    assert_eq!(of(WEB, &port), (vec![], vec![]));
    // Itself.
    assert_eq!(of(&[("10.96.0.5:80", &["10.88.0.9:8080"])], &[]), (vec!["10.96.0.5:80".to_owned()], vec![]));
}

#[test]
fn guards_are_found_by_what_they_say_and_go_in_the_other_order() {
    let guards = wanted(&table(WEB, vec![isolated(Direction::Ingress, &["10.88.0.5"], vec![])]), &subnets());
    let listing: String = guards.iter().map(|g| g.rule() + "\n").collect();
    assert_eq!(not_in(&guards, &listing), BTreeSet::new());
    let (first, rest) = listing.split_once('\n').unwrap();
    assert_eq!(not_in(&guards, &format!("pass out all\n{rest}")).len(), 1);
    let unload = unload(&guards);
    assert_eq!(unload[0].to_string(), "ipf -r -f -");
    let said = String::from_utf8(unload[0].stdin.clone()).unwrap();
    assert_eq!(said.lines().last(), Some(first), "the head goes last");
    assert_eq!(Family::ALL.map(|f| list(f).to_string()), ["ipfstat -o -R", "ipfstat -6 -o -R"]);
}

/// The guard that a line is, by the grammar and nothing more lenient.
fn parsed(line: &str) -> Option<Guard> {
    let words: Vec<&str> = line.split(' ').collect();
    let host = |text: &str| {
        let net: IpNet = text.parse().ok()?;
        (net.prefix_len() == net.max_prefix_len()).then_some(net.addr())
    };
    match words[..] {
        ["pass", "out", "from", from, "to", "any", "group", group] => {
            Some(Guard::Friend { group: group.to_owned(), from: from.parse().ok()? })
        }
        ["block", "out", "quick", "proto", protocol, "from", from, "to", to, "port", "=", port, ref rest @ ..] => {
            let to = SocketAddr::new(host(to)?, port.parse().ok()?);
            let (protocol, rest) = match (protocol, rest) {
                ("tcp", ["flags", "S/SA", rest @ ..]) => (Protocol::Tcp, rest),
                ("udp", rest) => (Protocol::Udp, rest),
                _ => return None,
            };
            match rest {
                [] => Some(Guard::Barred { from: host(from)?, to, protocol }),
                ["head", name] if *name == group(&to, protocol) => {
                    Some(Guard::Closed { pods: from.parse().ok()?, to, protocol })
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn any_guard() -> impl proptest::strategy::Strategy<Value = Guard> {
    use proptest::prelude::*;
    let address = |six: bool, bits: u128| match six {
        true => IpAddr::from(bits.to_be_bytes()),
        false => IpAddr::from(u32::try_from(bits >> 96).unwrap().to_be_bytes()),
    };
    (any::<bool>(), any::<u128>(), any::<u128>(), any::<u16>(), 0..=128_u8, 0..3, any::<bool>()).prop_map(
        move |(six, a, b, port, prefix, kind, udp)| {
            let net = IpNet::new(address(six, a), if six { prefix } else { prefix.min(32) }).unwrap().trunc();
            let (to, protocol) =
                (SocketAddr::new(address(six, b), port), if udp { Protocol::Udp } else { Protocol::Tcp });
            match kind {
                0 => Guard::Closed { pods: net, to, protocol },
                1 => Guard::Friend { group: group(&to, protocol), from: net },
                _ => Guard::Barred { from: address(six, a), to, protocol },
            }
        },
    )
}

proptest::proptest! {
    #[test]
    fn a_line_means_its_guard(guards in proptest::collection::btree_set(any_guard(), 1..8)) {
        let read: Option<BTreeSet<Guard>> = guards.iter().map(|g| parsed(&g.rule())).collect();
        proptest::prop_assert_eq!(read.as_ref(), Some(&guards));
        let listing: String = guards.iter().map(|g| g.rule() + "\n").collect();
        proptest::prop_assert_eq!(not_in(&guards, &listing), BTreeSet::new());
    }
}
