use super::model::{Elements, Model, Steps};
use super::{elements, listing, render::render};
use crate::network::generation;
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use reddwarf_host::service::{
    Allow, Backends, Direction, Frontend, Isolation, Place, PortRange, Protocol, ServiceTable,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

fn frontend(place: &str, protocol: Protocol, port: u16) -> Frontend {
    let place = match place {
        "host4" => Place::HostV4,
        "host6" => Place::HostV6,
        address => Place::Address(address.parse().unwrap()),
    };
    Frontend { place, protocol, port }
}

fn backends(name: &str, addresses: &[&str]) -> Backends {
    let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
    Backends { name: name.to_owned(), addresses, ..Backends::default() }
}

/// One of everything.
fn table() -> ServiceTable {
    let mut table = ServiceTable {
        cluster: ["10.96.0.0/16".parse().unwrap(), "fd96::/108".parse().unwrap()].into(),
        pods: ["10.88.0.0/16".parse().unwrap()].into(),
        resolvers: ["10.88.0.1:53".parse().unwrap()].into(),
        ..ServiceTable::default()
    };
    let web = ["10.88.0.2:8080", "10.88.0.3:8080"];
    let mut put = |frontend, backends| drop(table.frontends.insert(frontend, backends));
    put(frontend("10.96.0.10", Protocol::Tcp, 80), backends("default/web", &web));
    put(frontend("host4", Protocol::Tcp, 30_080), backends("default/web", &web));
    put(frontend("10.96.0.11", Protocol::Udp, 53), backends("default/one", &["10.88.0.4:53"]));
    put(frontend("10.96.0.12", Protocol::Tcp, 80), backends("default/none", &[]));
    put(frontend("fd96::10", Protocol::Tcp, 80), backends("default/six", &["[fd88::2]:8080"]));
    let sticky = Backends { affinity_seconds: Some(600), ..backends("default/sticky", &web) };
    put(frontend("10.96.0.13", Protocol::Tcp, 80), sticky);
    let guarded = Backends { sources: ["192.0.2.0/24".parse().unwrap()].into(), ..backends("default/lb", &web) };
    put(frontend("203.0.113.7", Protocol::Tcp, 80), guarded);
    let port = |first, last| PortRange { protocol: Protocol::Tcp, first, last };
    table.isolations = vec![
        Isolation {
            direction: Direction::Ingress,
            pods: ["10.88.0.2".parse().unwrap(), "10.88.0.3".parse().unwrap()].into(),
            allow: [
                Allow { peers: Some(["10.88.0.9/32".parse().unwrap()].into()), ports: Some([port(80, 90)].into()) },
                Allow { peers: None, ports: Some([port(8080, 8080)].into()) },
            ]
            .into(),
        },
        Isolation { direction: Direction::Egress, pods: ["10.88.0.2".parse().unwrap()].into(), allow: [].into() },
    ];
    table
}

/// The exact text. When it changes on purpose, write the new one: `UPDATE_GOLDEN=1 cargo test`.
#[test]
fn the_rendered_table_is_as_reviewed() {
    let one = render(&table());
    let mut other = table();
    other.frontends.remove(&frontend("10.96.0.13", Protocol::Tcp, 80));
    let web = frontend("10.96.0.10", Protocol::Tcp, 80);
    other.frontends.insert(web, backends("default/web", &["10.88.0.2:8080", "10.88.0.7:8080"]));
    let other = render(&other);
    for (name, text) in [
        ("services.nft", one.replace("rd_services")),
        ("services-change.nft", other.change(&one, "rd_services").unwrap().text("rd_services")),
    ] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{}", path.display());
    }
    assert!(one.change(&one, "t").unwrap().is_empty());
}

/// Keys and values as nft has them.
fn texts(map: &Elements) -> BTreeMap<String, String> {
    let types = map.types.unwrap();
    map.elements.iter().map(|e| (types.key_text(e), types.value_text(e))).collect()
}

/// Where a connection to a frontend can end, followed through maps and chains as the kernel would.
fn follow(model: &Model, frontend: &Frontend) -> Result<BTreeSet<SocketAddr>, String> {
    let digit = if frontend.place.is_ipv4() { '4' } else { '6' };
    let (key, local) = match frontend.place {
        Place::Address(a) => (format!("{a} . {} . {}", frontend.protocol.as_str(), frontend.port), ""),
        _ => (format!("{} . {}", frontend.protocol.as_str(), frontend.port), "local"),
    };
    let map = |name: &str| model.maps.get(name).map(texts);
    let found = if local.is_empty() { format!("frontends{digit}") } else { format!("local{digit}") };
    match map(&found).and_then(|mut m| m.remove(&key)) {
        Some(goal) => chain(model, goal.strip_prefix("goto ").ok_or("no goto")?, &key),
        None => {
            let refused = if local.is_empty() { format!("refused{digit}") } else { format!("refused_local{digit}") };
            let refused = map(&refused).and_then(|mut m| m.remove(&key));
            if refused.as_deref() == Some("goto refuse") {
                Ok(BTreeSet::new())
            } else {
                Err(format!("{key} leads nowhere"))
            }
        }
    }
}

fn chain(model: &Model, name: &str, key: &str) -> Result<BTreeSet<SocketAddr>, String> {
    let mut ends = BTreeSet::new();
    for rule in &model.chains.get(name).ok_or(format!("no chain {name}"))?.rules {
        let text = &rule.text;
        if let Some((_, map)) = text.split_once(" map @") {
            let element = texts(&model.maps[map]).remove(key).ok_or(format!("{key} is not in {map}"))?;
            let (ip, port) = element.split_once(" . ").ok_or("no port")?;
            ends.insert(SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port.parse().unwrap()));
        } else if let Some((_, goals)) = text.split_once(" vmap { ") {
            let goals = goals.trim_end_matches(" }").split(", ");
            let goals: Vec<&str> = goals.filter_map(|g| g.split_once("goto ")).map(|(_, g)| g).collect();
            let count: usize = text.split_whitespace().nth(3).unwrap().parse().unwrap();
            if goals.len() != count {
                return Err(format!("{text}: not every number has a goal"));
            }
            for goal in goals {
                ends.extend(chain(model, goal, key)?);
            }
        } else if let Some((_, to)) = text.split_once(" to ") {
            ends.insert(to.parse().unwrap());
        } else if let Some((_, goal)) = text.split_once("goto ") {
            ends.extend(chain(model, goal, key)?);
        }
    }
    Ok(ends)
}

fn any_table() -> impl Strategy<Value = ServiceTable> {
    let place = prop_oneof![
        (0_u8..30).prop_map(|n| Place::Address(IpAddr::from([10, 96, 0, n]))),
        (0_u16..9).prop_map(|n| Place::Address(IpAddr::from([0xfd96, 0, 0, 0, 0, 0, 0, n]))),
        Just(Place::HostV4),
        Just(Place::HostV6),
    ];
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    let ends = prop::collection::btree_set((1_u8..40, 1_u16..5), 0..6);
    let one = (place, protocol, 1_u16..200, ends, prop::option::weighted(0.2, 60_u32..100), any::<bool>());
    let isolation = (any::<bool>(), 1_u8..5, prop::option::of(1_u8..9), 1_u16..100);
    (prop::collection::vec(one, 0..25), prop::collection::vec(isolation, 0..4)).prop_map(|(all, isolations)| {
        let mut table = table();
        table.frontends.clear();
        table.isolations.clear();
        for (place, protocol, port, ends, affinity_seconds, guarded) in all {
            let v4 = place.is_ipv4();
            let address = |n: u8| {
                if v4 { IpAddr::from([10, 88, 0, n]) } else { IpAddr::from([0xfd88, 0, 0, 0, 0, 0, 0, u16::from(n)]) }
            };
            let addresses = ends.iter().map(|(n, port)| SocketAddr::new(address(*n), *port)).collect();
            let range = if v4 { "192.0.2.0/24" } else { "2001:db8::/64" };
            let sources = if guarded { [range.parse().unwrap()].into() } else { BTreeSet::new() };
            let backends = Backends { name: "d/s".into(), addresses, affinity_seconds, sources };
            table.frontends.insert(Frontend { place, protocol, port }, backends);
        }
        let mut seen = BTreeSet::new();
        for (ingress, pod, peer, port) in isolations {
            let direction = if ingress { Direction::Ingress } else { Direction::Egress };
            if seen.insert((direction, pod)) {
                let peers = peer.map(|p| [IpAddr::from([10, 88, 0, p]).into()].into());
                let ports = Some([PortRange { protocol: Protocol::Tcp, first: port, last: port + 1 }].into());
                let pods = [IpAddr::from([10, 88, 0, pod])].into();
                table.isolations.push(Isolation { direction, pods, allow: [Allow { peers, ports }].into() });
            }
        }
        table
    })
}

proptest! {
    #[test]
    fn every_frontend_leads_to_its_backends_and_nowhere_else(table in any_table()) {
        let model = render(&table);
        for (frontend, backends) in &table.frontends {
            prop_assert_eq!(follow(&model, frontend), Ok(backends.addresses.clone()), "{}", frontend);
        }
        let known: usize = ["frontends4", "frontends6", "local4", "local6", "refused4", "refused6", "refused_local4", "refused_local6"]
            .iter().map(|name| model.maps[*name].elements.len()).sum();
        prop_assert_eq!(known, table.frontends.len());
    }
}

/// Runs nft in this thread's network namespace.
fn nft(args: &[&str], text: &str) -> Vec<u8> {
    let mut child = Command::new("nft").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "nft {args:?}\n{text}");
    out.stdout
}

/// In a network namespace of its own; skipped, loudly, without root.
fn in_a_namespace(test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        test();
    });
    thread.join().unwrap();
}

/// As the host takes steps.
fn take(steps: &Steps<'_>) {
    let text = |text: &str| {
        if !text.is_empty() {
            nft(&["-f", "-"], text);
        }
    };
    text(&steps.before);
    if !steps.elements.is_empty() {
        elements::apply("rd", &steps.elements, generation::current()).unwrap();
    }
    text(&steps.after);
}

fn listed(wanted: &Model) -> Model {
    listing::parse(&nft(&["-j", "list", "table", "inet", "rd"], ""), wanted).unwrap()
}

/// Whatever follows whatever: the kernel takes the transaction, and what it lists is what was wanted.
#[test]
fn the_kernel_takes_every_change_and_lists_what_was_wanted() {
    in_a_namespace(|| {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let mut before = Model::default();
        nft(&["-f", "-"], &before.replace("rd"));
        for round in 0..25 {
            let table = any_table().new_tree(&mut runner).unwrap().current();
            let model = render(&table);
            let found = if round == 0 { Model::default() } else { listed(&before) };
            let steps = model.change(&found, "rd").unwrap();
            take(&steps);
            let found = listed(&model);
            assert_eq!(model.drift(&found), Vec::<String>::new(), "round {round}\n{}", steps.text("rd"));
            assert!(model.change(&found, "rd").unwrap().is_empty(), "round {round}");
            before = model;
        }
        // From nothing, in steps and in one.
        nft(&["delete", "table", "inet", "rd"], "");
        take(&before.create("rd"));
        assert_eq!(before.drift(&listed(&before)), Vec::<String>::new());
        nft(&["-f", "-"], &before.replace("rd"));
        assert_eq!(before.drift(&listed(&before)), Vec::<String>::new());
        // What others do is seen.
        nft(&["add", "chain", "inet", "rd", "theirs"], "");
        nft(&["flush", "chain", "inet", "rd", "postrouting"], "");
        let drift = before.drift(&listed(&before));
        assert_eq!(drift, ["the rules of chain postrouting changed", "theirs is not ours"]);
        take(&before.change(&listed(&before), "rd").unwrap());
        assert_eq!(before.drift(&listed(&before)), Vec::<String>::new());
        // An element that none of ours could be: the table is replaced as a whole.
        nft(&["add", "element", "inet", "rd", "refused4", "{ 10.96.0.99 . icmp . 0 : drop }"], "");
        let found = listed(&before);
        assert_eq!(before.drift(&found), ["the elements of map refused4 changed"]);
        assert_eq!(before.change(&found, "rd"), None);
        nft(&["-f", "-"], &before.replace("rd"));
        assert_eq!(before.drift(&listed(&before)), Vec::<String>::new());
        // Elements that were told by an old number are refused whole.
        let now = generation::current().unwrap();
        let mut other = before.clone();
        other.maps.values_mut().for_each(|map| map.elements.clear());
        let change = other.change(&before, "rd").unwrap();
        let refused = elements::apply("rd", &change.elements, Some(now.wrapping_sub(1))).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ERESTART));
        assert_eq!(before.drift(&listed(&before)), Vec::<String>::new());
        elements::apply("rd", &change.elements, Some(now)).unwrap();
        assert_eq!(generation::current(), Some(now.wrapping_add(1)));
    });
}

/// The budget: 1,000 services of 10 endpoints within 300 ms, one endpoint within 50 ms. Printed; a debug build on a busy
/// machine is given more.
#[test]
fn a_large_table_and_a_small_change_are_quick() {
    in_a_namespace(|| {
        let service = |n: u16, moved: bool| {
            let [high, low] = n.to_be_bytes();
            let ends = (0..10_u16).map(|e| {
                let [a, b] = (n.wrapping_mul(10) + e + u16::from(moved) * 30_000).to_be_bytes();
                SocketAddr::from(([10, 88, a, b], 8080))
            });
            let at = Place::Address(IpAddr::from([10, 96, high, low]));
            let backends = Backends { name: format!("d/s{n}"), addresses: ends.collect(), ..Backends::default() };
            (Frontend { place: at, protocol: Protocol::Tcp, port: 80 }, backends)
        };
        let mut table = ServiceTable { frontends: (0..1000).map(|n| service(n, false)).collect(), ..table() };
        let began = std::time::Instant::now();
        let one = render(&table);
        take(&one.create("rd"));
        let whole = began.elapsed();
        table.frontends.extend([service(500, true)]);
        let began = std::time::Instant::now();
        let two = render(&table);
        take(&two.change(&one, "rd").unwrap());
        let small = began.elapsed();
        println!(
            "1,000 services x 10 endpoints: {whole:?} (budget 300 ms); ten other endpoints of one: {small:?} (50 ms)"
        );
        assert_eq!(two.drift(&listed(&two)), Vec::<String>::new());
        assert!(whole.as_millis() < 3000 && small.as_millis() < 1000, "{whole:?}, {small:?}");
    });
}
