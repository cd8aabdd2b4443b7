//! From the host's table of services to chains and maps. Pure.
//!
//! ```text
//! prerouting, output ─→ services ─ frontends4/6, local4/6 ─→ pick_0                    one backend
//!                                                          ─→ balance_N ─ random ─→ pick_I   N backends
//!                                                          ─→ sticky_X ─→ ends_Y             ClientIP affinity
//! pick_I ─ backends4/6_I: the Ith backend of every frontend ─→ dnat
//! input, forward, output ─→ refused4/6 ─→ refuse;  forward, input ─→ egress4/6, ingress4/6 ─→ policies
//! ```
//!
//! A connection costs two look-ups however many services there are, and a changed endpoint is a changed element.

use super::guard;
use super::model::{Model, Rule, digest};
use super::words::{Element, Part, Types, Value, Values, Words};
use ipnet::IpNet;
use reddwarf_host::service::{Allow, Backends, Direction, Frontend, Isolation, Place, PortRange, ServiceTable};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Only our table has it: the table's mark.
pub(crate) const MARK_CHAIN: &str = "owned_by_reddwarfd";
pub(super) const PREROUTING: &str = "type nat hook prerouting priority -100; policy accept;";
pub(super) const OUTPUT_NAT: &str = "type nat hook output priority -100; policy accept;";
pub(super) const POSTROUTING: &str = "type nat hook postrouting priority 100; policy accept;";
// A little before other tables: what is refused here needs no opinion of theirs.
pub(super) const INPUT: &str = "type filter hook input priority -5; policy accept;";
pub(super) const FORWARD: &str = "type filter hook forward priority -5; policy accept;";
pub(super) const OUTPUT: &str = "type filter hook output priority -5; policy accept;";

/// What of a family nft calls how.
struct Family {
    v4: bool,
    /// `4` or `6`, in names of maps.
    digit: char,
    /// `ip` or `ip6`.
    ip: &'static str,
    loopback: &'static str,
    /// An address, two of them, one with protocol and port, one with a port.
    address: &'static [Part],
    pair: &'static [Part],
    frontend: &'static [Part],
    backend: &'static [Part],
}

const FAMILIES: [Family; 2] = [
    Family {
        v4: true,
        digit: '4',
        ip: "ip",
        loopback: "127.0.0.0/8",
        address: &[Part::Ipv4],
        pair: &[Part::Ipv4, Part::Ipv4],
        frontend: &[Part::Ipv4, Part::Protocol, Part::Port],
        backend: &[Part::Ipv4, Part::Port],
    },
    Family {
        v4: false,
        digit: '6',
        ip: "ip6",
        loopback: "::1",
        address: &[Part::Ipv6],
        pair: &[Part::Ipv6, Part::Ipv6],
        frontend: &[Part::Ipv6, Part::Protocol, Part::Port],
        backend: &[Part::Ipv6, Part::Port],
    },
];

/// A frontend's key where its address is every one of the host.
const LOCAL: &[Part] = &[Part::Protocol, Part::Port];

fn family(v4: bool) -> &'static Family {
    let [four, six] = &FAMILIES;
    if v4 { four } else { six }
}

/// The chains and maps that make packets go as the table says.
pub(crate) fn render(table: &ServiceTable) -> Model {
    let mut model = Model::default();
    skeleton(&mut model, table);
    let mut picks = Picks::new();
    for (frontend, backends) in &table.frontends {
        add_frontend(&mut model, &mut picks, frontend, backends);
    }
    for ((v4, local), all) in picks {
        for (index, elements) in all.into_iter().enumerate() {
            add_pick(&mut model, family(v4), local, index, elements);
        }
    }
    for isolation in &table.isolations {
        add_isolation(&mut model, isolation);
    }
    model.settle();
    model
}

/// Backends by family, by whether the frontend is at every address of the host, and by index. There are ten thousand of them:
/// too many to look each one's map up.
type Picks = BTreeMap<(bool, bool), Vec<Vec<Element>>>;

fn rule(model: &mut Model, chain: &str, text: impl Into<String>) {
    model.chain(chain, "").rules.push(Rule::new(text));
}

/// What is there whatever services there are.
fn skeleton(model: &mut Model, table: &ServiceTable) {
    model.chain(MARK_CHAIN, "");
    for (chain, hook) in [("prerouting", PREROUTING), ("output_nat", OUTPUT_NAT)] {
        model.chain(chain, hook);
        rule(model, chain, "jump services");
    }
    model.chain("postrouting", POSTROUTING);
    for (chain, hook) in [("input", INPUT), ("forward", FORWARD), ("output", OUTPUT)] {
        model.chain(chain, hook);
        rule(model, chain, "ct state established,related accept");
    }
    for f in &FAMILIES {
        let (ip, digit) = (f.ip, f.digit);
        for name in ["frontends", "refused", "local", "refused_local"] {
            let keys = if name.ends_with("local") { LOCAL } else { f.frontend };
            model.map(format!("{name}{digit}"), Types::map(keys, Values::Verdicts));
        }
        model.map(format!("self{digit}"), Types::set(f.pair));
        for name in ["ingress", "egress"] {
            model.map(format!("{name}{digit}"), Types::map(f.address, Values::Verdicts));
        }
        rule(model, "services", format!("{ip} daddr . meta l4proto . th dport vmap @frontends{digit}"));
        // A pod that reaches itself through a service must see a stranger.
        let own = format!("ct status dnat {ip} saddr . {ip} daddr @self{digit} masquerade");
        rule(model, "postrouting", own);
        // What a service sends beyond the pods has to come back through here.
        let pods = nets(&table.pods, f.v4);
        let outside = match pods.is_empty() {
            true => format!("meta nfproto {}", if f.v4 { "ipv4" } else { "ipv6" }),
            false => format!("{ip} daddr != {{ {pods} }}"),
        };
        rule(model, "postrouting", format!("ct status dnat {outside} oifname != \"lo\" masquerade"));
    }
    for f in &FAMILIES {
        let (ip, digit, loopback) = (f.ip, f.digit, f.loopback);
        let text = format!("fib daddr type local {ip} daddr != {loopback} meta l4proto . th dport vmap @local{digit}");
        rule(model, "services", text);
    }
    refusals(model, table);
    policy_hooks(model, table);
    rule(model, "refuse", "meta l4proto tcp reject with tcp reset");
    rule(model, "refuse", "reject with icmpx port-unreachable");
}

/// Services without endpoints, and cluster addresses that are nobody's: refused at once.
fn refusals(model: &mut Model, table: &ServiceTable) {
    for chain in ["input", "forward", "output"] {
        for f in &FAMILIES {
            let (ip, digit, loopback) = (f.ip, f.digit, f.loopback);
            rule(model, chain, format!("{ip} daddr . meta l4proto . th dport vmap @refused{digit}"));
            if chain == "input" {
                let text = format!(
                    "fib daddr type local {ip} daddr != {loopback} meta l4proto . th dport vmap @refused_local{digit}"
                );
                rule(model, chain, text);
            }
            let cluster = nets(&table.cluster, f.v4);
            if !cluster.is_empty() && chain != "input" {
                rule(model, chain, format!("{ip} daddr {{ {cluster} }} goto refuse"));
            }
        }
    }
}

/// What lets a packet pass a policy, and tells the guard so.
fn passes(direction: Direction, verdict: &str) -> String {
    format!("meta mark set meta mark | {:#x} {verdict}", guard::mark(direction))
}

/// Where packets meet policies: forwarded ones on both ends, those for the host itself on the pod's.
fn policy_hooks(model: &mut Model, table: &ServiceTable) {
    for f in &FAMILIES {
        let (ip, digit) = (f.ip, f.digit);
        for resolver in table.resolvers.iter().filter(|r| r.is_ipv4() == f.v4) {
            let asked =
                format!("{ip} daddr {} meta l4proto {{ tcp, udp }} th dport {}", resolver.ip(), resolver.port());
            let pass =
                if table.isolations.is_empty() { "accept".to_owned() } else { passes(Direction::Egress, "accept") };
            rule(model, "input", format!("{asked} {pass}"));
        }
        for chain in ["input", "forward"] {
            rule(model, chain, format!("{ip} saddr vmap @egress{digit}"));
        }
        rule(model, "forward", format!("{ip} daddr vmap @ingress{digit}"));
    }
}

fn nets(nets: &BTreeSet<IpNet>, v4: bool) -> String {
    let of_family = nets.iter().filter(|n| n.addr().is_ipv4() == v4);
    of_family.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn add_frontend(model: &mut Model, picks: &mut Picks, frontend: &Frontend, backends: &Backends) {
    let f = family(frontend.place.is_ipv4());
    let digit = f.digit;
    let (local, place) = match frontend.place {
        Place::Address(address) => (false, Words::default().address(address)),
        Place::HostV4 | Place::HostV6 => (true, Words::default()),
    };
    let key = place.protocol(frontend.protocol).port(frontend.port);
    let types = Types::map(if local { LOCAL } else { f.frontend }, Values::Verdicts);
    let (found, refused) = if local { ("local", "refused_local") } else { ("frontends", "refused") };
    let lead = |model: &mut Model, map: &str, goal: &str| {
        model.map(format!("{map}{digit}"), types).push(Element { key, value: Value::Goto(goal.into()) });
    };
    if backends.addresses.is_empty() {
        lead(model, refused, "refuse");
        return;
    }
    let pair = |address: &SocketAddr| Element::of_set(Words::default().address(address.ip()).address(address.ip()));
    model.map(format!("self{digit}"), Types::set(f.pair)).extend(backends.addresses.iter().map(pair));
    let goal = match backends.affinity_seconds {
        Some(seconds) => sticky(model, f, frontend, &backends.addresses, seconds),
        None => {
            let count = backends.addresses.len();
            let all = picks.entry((f.v4, local)).or_default();
            all.resize_with(all.len().max(count), Vec::new);
            for (elements, address) in all.iter_mut().zip(&backends.addresses) {
                elements.push(Element { key, value: Value::Words(Words::default().socket(address)) });
            }
            balance(model, f, local, count)
        }
    };
    let goal = if backends.sources.is_empty() {
        goal
    } else {
        // Named by what is in it, as all chains that frontends lead to: none of them ever changes.
        let sources = nets(&backends.sources, f.v4);
        let guard = format!("guard_{}", digest(&format!("{frontend} {sources} {goal}")));
        rule(model, &guard, format!("{} saddr != {{ {sources} }} drop", f.ip));
        rule(model, &guard, format!("goto {goal}"));
        guard
    };
    lead(model, found, &goal);
}

/// The map of the backends with this index, and the chain that goes by it.
fn add_pick(model: &mut Model, f: &Family, local: bool, index: usize, elements: Vec<Element>) {
    let (ip, digit) = (f.ip, f.digit);
    let at = if local { "local_" } else { "" };
    let map = format!("{at}backends{digit}_{index}");
    let place = if local { String::new() } else { format!("{ip} daddr . ") };
    let text = format!("dnat {ip} to {place}meta l4proto . th dport map @{map}");
    rule(model, &format!("{at}pick{digit}_{index}"), text);
    let keys = if local { LOCAL } else { f.frontend };
    *model.map(map, Types::map(keys, Values::Parts(f.backend))) = elements;
}

/// The chain that leads to one of so many backends, each as likely as another.
fn balance(model: &mut Model, f: &Family, local: bool, count: usize) -> String {
    let at = if local { "local_" } else { "" };
    let digit = f.digit;
    if count == 1 {
        return format!("{at}pick{digit}_0");
    }
    let name = format!("{at}balance{digit}_{count}");
    if model.chain(&name, "").rules.is_empty() {
        let goals: Vec<String> = (0..count).map(|i| format!("{i} : goto {at}pick{digit}_{i}")).collect();
        rule(model, &name, format!("numgen random mod {count} vmap {{ {} }}", goals.join(", ")));
    }
    name
}

/// Chains of a frontend whose clients stay with their backends: a set of clients for each backend, which packets fill.
fn sticky(
    model: &mut Model,
    f: &Family,
    frontend: &Frontend,
    addresses: &BTreeSet<SocketAddr>,
    seconds: u32,
) -> String {
    let ip = f.ip;
    let name = format!("sticky_{}", digest(&format!("{frontend} {seconds} {addresses:?}")));
    let mut goals = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        let id = digest(&format!("{frontend} {seconds} {address}"));
        let (clients, end) = (format!("clients_{id}"), format!("ends_{id}"));
        model.map(&clients, Types { timeout: Some(seconds), ..Types::set(f.address) });
        rule(model, &end, format!("update @{clients} {{ {ip} saddr }}"));
        let to = match address {
            SocketAddr::V4(a) => a.to_string(),
            SocketAddr::V6(a) => format!("[{}]:{}", a.ip(), a.port()),
        };
        rule(model, &end, format!("meta l4proto {} dnat {ip} to {to}", frontend.protocol.as_str()));
        rule(model, &name, format!("{ip} saddr @{clients} goto {end}"));
        goals.push(format!("{index} : goto {end}"));
    }
    rule(model, &name, format!("numgen random mod {} vmap {{ {} }}", goals.len(), goals.join(", ")));
    name
}

fn add_isolation(model: &mut Model, isolation: &Isolation) {
    let (way, peer) = match isolation.direction {
        Direction::Ingress => ("ingress", "saddr"),
        Direction::Egress => ("egress", "daddr"),
    };
    for f in &FAMILIES {
        let pods: Vec<&IpAddr> = isolation.pods.iter().filter(|pod| pod.is_ipv4() == f.v4).collect();
        if pods.is_empty() {
            continue;
        }
        let mut rules: Vec<String> = Vec::new();
        // Of a pod with itself policies say nothing.
        let pass = passes(isolation.direction, "return");
        rules.push(format!("{0} saddr . {0} daddr @self_pods{1} {pass}", f.ip, f.digit));
        for allow in &isolation.allow {
            rules.extend(allowed(f, peer, allow).into_iter().map(|what| format!("{what}{pass}")));
        }
        rules.push("drop".to_owned());
        let chain = format!("{way}_{}", digest(&format!("{} {rules:?}", f.digit)));
        if model.chain(&chain, "").rules.is_empty() {
            rules.into_iter().for_each(|text| rule(model, &chain, text));
        }
        let own = model.map(format!("self_pods{}", f.digit), Types::set(f.pair));
        own.extend(pods.iter().map(|pod| Element::of_set(Words::default().address(**pod).address(**pod))));
        let goal = Value::Jump(chain.into());
        let map = model.map(format!("{way}{}", f.digit), Types::map(f.address, Values::Verdicts));
        map.extend(pods.iter().map(|pod| Element { key: Words::default().address(**pod), value: goal.clone() }));
    }
}

/// What is let pass: matches, each with a space at its end.
fn allowed(f: &Family, peer: &str, allow: &Allow) -> Vec<String> {
    let who = match &allow.peers {
        None => String::new(),
        Some(peers) => match nets(peers, f.v4) {
            none if none.is_empty() => return Vec::new(),
            peers => format!("{} {peer} {{ {peers} }} ", f.ip),
        },
    };
    let Some(ports) = &allow.ports else { return vec![who] };
    let port = |range: &PortRange| {
        let protocol = range.protocol.as_str();
        match (range.first, range.last) {
            (0, u16::MAX) => format!("{who}meta l4proto {protocol} "),
            (first, last) if first == last => format!("{who}{protocol} dport {first} "),
            (first, last) => format!("{who}{protocol} dport {first}-{last} "),
        }
    };
    ports.iter().map(port).collect()
}
