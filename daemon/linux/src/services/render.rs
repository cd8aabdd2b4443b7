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

use super::guard::SEEN;
use super::model::{LAST_CHAIN, Model, Rule, digest};
use ipnet::IpNet;
use reddwarf_host::service::{Allow, Backends, Direction, Frontend, Isolation, Place, PortRange, ServiceTable};
use std::collections::BTreeSet;
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
    /// Type of an address.
    kind: &'static str,
    loopback: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family { v4: true, digit: '4', ip: "ip", kind: "ipv4_addr", loopback: "127.0.0.0/8" },
    Family { v4: false, digit: '6', ip: "ip6", kind: "ipv6_addr", loopback: "::1" },
];

fn family(v4: bool) -> &'static Family {
    let [four, six] = &FAMILIES;
    if v4 { four } else { six }
}

/// The chains and maps that make packets go as the table says.
pub(crate) fn render(table: &ServiceTable) -> Model {
    let mut model = Model::default();
    skeleton(&mut model, table);
    for (frontend, backends) in &table.frontends {
        add_frontend(&mut model, frontend, backends);
    }
    for isolation in &table.isolations {
        add_isolation(&mut model, isolation);
    }
    model
}

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
    if !table.isolations.is_empty() {
        // The guard takes the bit away again, and drops what comes to isolated pods without: also what comes before there are policies.
        for chain in ["input", "forward"] {
            rule(model, chain, format!("jump {LAST_CHAIN}"));
        }
        rule(model, LAST_CHAIN, format!("meta mark set meta mark | {SEEN:#x}"));
    }
    for f in &FAMILIES {
        let (ip, digit, kind) = (f.ip, f.digit, f.kind);
        for name in [format!("frontends{digit}"), format!("refused{digit}")] {
            model.map(name, &format!("type {kind} . inet_proto . inet_service : verdict;"));
        }
        for name in [format!("local{digit}"), format!("refused_local{digit}")] {
            model.map(name, "type inet_proto . inet_service : verdict;");
        }
        model.set(format!("self{digit}"), &format!("type {kind} . {kind};"));
        model.map(format!("ingress{digit}"), &format!("type {kind} : verdict;"));
        model.map(format!("egress{digit}"), &format!("type {kind} : verdict;"));
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

/// Where packets meet policies: forwarded ones on both ends, those for the host itself on the pod's.
fn policy_hooks(model: &mut Model, table: &ServiceTable) {
    for f in &FAMILIES {
        let (ip, digit) = (f.ip, f.digit);
        for chain in ["input", "forward"] {
            for resolver in table.resolvers.iter().filter(|r| r.is_ipv4() == f.v4) {
                let text = format!(
                    "{ip} daddr {} meta l4proto {{ tcp, udp }} th dport {} accept",
                    resolver.ip(),
                    resolver.port()
                );
                if chain == "input" {
                    rule(model, chain, text);
                }
            }
            rule(model, chain, format!("{ip} saddr vmap @egress{digit}"));
        }
        rule(model, "forward", format!("{ip} daddr vmap @ingress{digit}"));
    }
}

fn nets(nets: &BTreeSet<IpNet>, v4: bool) -> String {
    let of_family = nets.iter().filter(|n| n.addr().is_ipv4() == v4);
    of_family.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A frontend's key, without its address when it is every address of the host.
fn key(frontend: &Frontend) -> String {
    let (protocol, port) = (frontend.protocol.as_str(), frontend.port);
    match frontend.place {
        Place::Address(address) => format!("{address} . {protocol} . {port}"),
        Place::HostV4 | Place::HostV6 => format!("{protocol} . {port}"),
    }
}

fn add_frontend(model: &mut Model, frontend: &Frontend, backends: &Backends) {
    let f = family(frontend.place.is_ipv4());
    let digit = f.digit;
    let local = !matches!(frontend.place, Place::Address(_));
    let key = key(frontend);
    let (found, refused) = if local { ("local", "refused_local") } else { ("frontends", "refused") };
    if backends.addresses.is_empty() {
        model.map(format!("{refused}{digit}"), "").insert(key, "goto refuse".to_owned());
        return;
    }
    let own = model.set(format!("self{digit}"), "");
    own.extend(backends.addresses.iter().map(|address| (format!("{0} . {0}", address.ip()), String::new())));
    let goal = match backends.affinity_seconds {
        Some(seconds) => sticky(model, f, frontend, &backends.addresses, seconds),
        None => {
            for (index, address) in backends.addresses.iter().enumerate() {
                let element = format!("{} . {}", address.ip(), address.port());
                pick(model, f, local, index).insert(key.clone(), element);
            }
            balance(model, f, local, backends.addresses.len())
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
    model.map(format!("{found}{digit}"), "").insert(key, format!("goto {goal}"));
}

/// The map of the backends with this index, and the chain that goes by it.
fn pick<'m>(
    model: &'m mut Model,
    f: &Family,
    local: bool,
    index: usize,
) -> &'m mut std::collections::BTreeMap<String, String> {
    let (ip, digit, kind) = (f.ip, f.digit, f.kind);
    let at = if local { "local_" } else { "" };
    let map = format!("{at}backends{digit}_{index}");
    // Ten thousand times there, once not.
    if !model.maps.contains_key(&map) {
        let (keys, types) = if local {
            ("meta l4proto . th dport".to_owned(), "inet_proto . inet_service".to_owned())
        } else {
            (format!("{ip} daddr . meta l4proto . th dport"), format!("{kind} . inet_proto . inet_service"))
        };
        rule(model, &format!("{at}pick{digit}_{index}"), format!("dnat {ip} to {keys} map @{map}"));
        model.map(&map, &format!("type {types} : {kind} . inet_service;"));
    }
    &mut model.maps.entry(map).or_default().elements
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
        model.set(&clients, &format!("type {}; size 65535; flags dynamic,timeout; timeout {seconds}s;", f.kind));
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
        rules.push(format!("{0} saddr . {0} daddr @self_pods{1} return", f.ip, f.digit));
        for allow in &isolation.allow {
            rules.extend(allowed(f, peer, allow));
        }
        rules.push("drop".to_owned());
        let chain = format!("{way}_{}", digest(&format!("{} {rules:?}", f.digit)));
        if model.chain(&chain, "").rules.is_empty() {
            rules.into_iter().for_each(|text| rule(model, &chain, text));
        }
        let own = model.set(format!("self_pods{}", f.digit), &format!("type {0} . {0};", f.kind));
        own.extend(pods.iter().map(|pod| (format!("{pod} . {pod}"), String::new())));
        let map = model.map(format!("{way}{}", f.digit), "");
        map.extend(pods.iter().map(|pod| (pod.to_string(), format!("jump {chain}"))));
    }
}

/// The rules that let something pass.
fn allowed(f: &Family, peer: &str, allow: &Allow) -> Vec<String> {
    let who = match &allow.peers {
        None => String::new(),
        Some(peers) => match nets(peers, f.v4) {
            none if none.is_empty() => return Vec::new(),
            peers => format!("{} {peer} {{ {peers} }} ", f.ip),
        },
    };
    let Some(ports) = &allow.ports else { return vec![format!("{who}return")] };
    let port = |range: &PortRange| {
        let protocol = range.protocol.as_str();
        match (range.first, range.last) {
            (0, u16::MAX) => format!("{who}meta l4proto {protocol} return"),
            (first, last) if first == last => format!("{who}{protocol} dport {first} return"),
            (first, last) => format!("{who}{protocol} dport {first}-{last} return"),
        }
    };
    ports.iter().map(port).collect()
}
