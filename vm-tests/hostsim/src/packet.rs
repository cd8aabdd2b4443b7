//! Where the first packet of a connection goes: by the filters of zones, by translation, ILB and the filter of the global zone, as
//! they are loaded and in the order in which ipfilter and the kernel ask them. On the way in NAT comes before the filter, on the
//! way out after it; ILB is between the two.

use crate::ipf::named;
use crate::state::{State, Zone};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It comes to a zone.
    Arrives {
        /// To which address and port of it.
        at: SocketAddr,
        /// From whom, as the zone sees it.
        from: IpAddr,
    },
    /// A filter takes it: `gz`, or a zone's name.
    Blocked(String),
    /// It leaves the machine, or there is no such zone.
    Away(SocketAddr),
}

/// A packet that begins a connection, from a port that is nobody's.
#[derive(Clone, Copy, Debug)]
struct Packet<'p> {
    from: IpAddr,
    to: SocketAddr,
    protocol: &'p str,
}

const EPHEMERAL: u16 = 50_000;

/// What becomes of a connection of a zone's to somewhere: all that may, where backends take turns.
pub fn connect(state: &State, from: IpAddr, to: SocketAddr, protocol: &str) -> BTreeSet<Fate> {
    let packet = Packet { from, to, protocol };
    let Some((name, net)) = zone_at(state, from) else { return [Fate::Away(to)].into() };
    if !zone_passes(state, name, "out", packet) {
        return [Fate::Blocked(name.to_owned())].into();
    }
    if net.contains(&to.ip()) && !is_gateway(state, to.ip()) {
        return [arrives(state, packet)].into();
    }
    let gateway = state.interfaces.iter().find(|(_, i)| i.addresses.values().any(|a| holds(&a.address, from)));
    let Some((link, _)) = gateway else { return [Fate::Away(to)].into() };
    redirected(state, link, packet).into_iter().map(|packet| forwarded(state, link, packet)).collect()
}

fn holds(address: &str, ip: IpAddr) -> bool {
    address.parse::<IpNet>().is_ok_and(|net| net.contains(&ip))
}

fn is_gateway(state: &State, ip: IpAddr) -> bool {
    let addresses = state.interfaces.values().flat_map(|i| i.addresses.values());
    addresses.filter_map(|a| a.address.parse::<IpNet>().ok()).any(|net| net.addr() == ip)
}

/// The running zone that has an address, and its network.
fn zone_at(state: &State, ip: IpAddr) -> Option<(&str, IpNet)> {
    let net = |zone: &Zone| {
        let nets = zone.config.all("net").filter_map(|n| n.get("allowed-address").parse::<IpNet>().ok());
        nets.filter(|net| net.addr() == ip).last()
    };
    state.zones.iter().filter(|(_, z)| z.state.is_up()).find_map(|(name, zone)| Some((name.as_str(), net(zone)?)))
}

fn zone_passes(state: &State, name: &str, way: &str, packet: Packet<'_>) -> bool {
    passes(state, &format!("gz/{name}"), way, "", packet)
}

fn arrives(state: &State, packet: Packet<'_>) -> Fate {
    match zone_at(state, packet.to.ip()) {
        None => Fate::Away(packet.to),
        Some((name, _)) if zone_passes(state, name, "in", packet) => Fate::Arrives { at: packet.to, from: packet.from },
        Some((name, _)) => Fate::Blocked(name.to_owned()),
    }
}

/// Through the global zone, after NAT of the way in.
fn forwarded(state: &State, link: &str, packet: Packet<'_>) -> Fate {
    let blocked = || Fate::Blocked("gz".to_owned());
    if !passes(state, "", "in", link, packet) {
        return blocked();
    }
    let packet = balanced(state, packet);
    let inside = zone_at(state, packet.to.ip()).is_some();
    let way_out = if inside { link } else { "net0" };
    if !passes(state, "", "out", way_out, packet) {
        return blocked();
    }
    arrives(state, Packet { from: translated(state, way_out, packet), ..packet })
}

/// By each `rdr` that fits: rules with one front take turns.
fn redirected<'p>(state: &State, link: &str, packet: Packet<'p>) -> Vec<Packet<'p>> {
    let target = |rule: &String| {
        let words: Vec<&str> = rule.split_whitespace().filter(|w| *w != "=").collect();
        let (from, to, port, address, target, protocol) = match words.as_slice() {
            ["rdr", on, "from", from, "to", to, "port", port, "->", address, "port", target, protocol, ..]
                if *on == link =>
            {
                (Some(*from), *to, *port, *address, *target, *protocol)
            }
            ["rdr", on, to, "port", port, "->", address, "port", target, protocol, ..] if *on == link => {
                (None, *to, *port, *address, *target, *protocol)
            }
            _ => return None,
        };
        let fits = from.is_none_or(|from| holds(from, packet.from))
            && holds(to, packet.to.ip())
            && port.parse() == Ok(packet.to.port())
            && protocol == packet.protocol;
        fits.then(|| Some(SocketAddr::new(address.parse().ok()?, target.parse().ok()?)))?
    };
    let found: Vec<Packet<'p>> = state.nat.iter().filter_map(target).map(|to| Packet { to, ..packet }).collect();
    if found.is_empty() { vec![packet] } else { found }
}

/// By the first server of ILB's rule.
fn balanced<'p>(state: &State, packet: Packet<'p>) -> Packet<'p> {
    let rule = state.balancer.rules.values().find(|rule| {
        rule.enabled
            && rule.vip == packet.to.ip()
            && rule.protocol == packet.protocol
            && rule.ports.is_none_or(|(first, last)| (first..=last).contains(&packet.to.port()))
    });
    let servers = rule.and_then(|rule| state.balancer.groups.get(&rule.group)).map(|group| group.servers.values());
    match servers.and_then(|mut all| all.find(|server| server.enabled)) {
        Some(server) => {
            let port = server.ports.map_or(packet.to.port(), |(first, _)| first);
            Packet { to: SocketAddr::new(server.address, port), ..packet }
        }
        None => packet,
    }
}

/// The source address by the first `map` that fits.
fn translated(state: &State, link: &str, packet: Packet<'_>) -> IpAddr {
    let source = |rule: &String| {
        let words: Vec<&str> = rule.split_whitespace().collect();
        let (from, to, within, address) = match words.as_slice() {
            ["map", on, "from", from, "to", to, "->", address, ..] if *on == link => (from, to, true, address),
            ["map", on, "from", from, "!", "to", to, "->", address, ..] if *on == link => (from, to, false, address),
            _ => return None,
        };
        let fits = holds(from, packet.from) && holds(to, packet.to.ip()) == within;
        fits.then(|| address.parse::<IpNet>().ok().map(|net| net.addr()))?
    };
    state.nat.iter().find_map(source).unwrap_or(packet.from)
}

/// What a stack's filter says: a rule that fits decides, a later one in its place, unless the first is `quick`.
fn passes(state: &State, stack: &str, way: &str, link: &str, packet: Packet<'_>) -> bool {
    let Some(filters) = state.filters.get(stack).filter(|f| f.enabled) else { return true };
    let rules = if packet.to.is_ipv4() { &filters.active.v4 } else { &filters.active.v6 };
    scan(rules, None, (way, link, packet), (true, false), 0).0
}

/// Whether it passes, and whether that is the last word. A group's verdict stands for its head's.
fn scan(
    rules: &[String],
    group: Option<&str>,
    about: (&str, &str, Packet<'_>),
    mut verdict: (bool, bool),
    depth: u8,
) -> (bool, bool) {
    for rule in rules {
        let words: Vec<&str> = rule.split_whitespace().collect();
        if named(rule, "group") != group || !fits(&words, about) {
            continue;
        }
        verdict = (words.first() == Some(&"pass"), words.contains(&"quick"));
        if let Some(head) = named(rule, "head").filter(|_| depth < 16) {
            verdict = scan(rules, Some(head), about, verdict, depth + 1);
        }
        if verdict.1 {
            break;
        }
    }
    verdict
}

/// Whether a rule is about such a packet.
fn fits(words: &[&str], (way, link, packet): (&str, &str, Packet<'_>)) -> bool {
    let after = |word: &str| words.iter().position(|w| *w == word).map(|at| words.get(at + 1..).unwrap_or_default());
    let is = |word: &str, value: &str| after(word).is_none_or(|rest| rest.first() == Some(&value));
    let side = |word: &str, ip: IpAddr, port: u16| {
        let Some(rest) = after(word) else { return true };
        let (negated, rest) = match rest {
            ["!", rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let Some((net, rest)) = rest.split_first() else { return false };
        (*net == "any" || holds(net, ip)) != negated && port_fits(rest, port)
    };
    // Types of ICMP are of ICMP alone; what asks for flags asks for a first packet.
    words.iter().find(|w| matches!(**w, "in" | "out")) == Some(&way)
        && is("on", link)
        && is("proto", packet.protocol)
        && side("from", packet.from, EPHEMERAL)
        && side("to", packet.to.ip(), packet.to.port())
}

fn port_fits(rest: &[&str], port: u16) -> bool {
    let number = |word: &str| word.parse::<u16>().unwrap_or_default();
    match rest {
        ["port", "=", n, ..] => port == number(n),
        ["port", ">", n, ..] => port > number(n),
        ["port", from, "><", to, ..] => port > number(from) && port < number(to),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes_by(rules: &[&str], from: &str, to: &str, protocol: &str) -> bool {
        let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
        let packet = Packet { from: from.parse().unwrap(), to: to.parse().unwrap(), protocol };
        scan(&rules, None, ("out", "net0", packet), (true, false), 0).0
    }

    #[test]
    fn the_last_rule_that_fits_decides_or_the_first_quick_one() {
        let rules = ["block out all", "pass out quick proto tcp from any to any port = 80", "block out all"];
        assert!(passes_by(&rules, "10.0.0.1", "10.0.0.2:80", "tcp"));
        assert!(!passes_by(&rules, "10.0.0.1", "10.0.0.2:80", "udp"));
        assert!(passes_by(&["block out on net1 all", "block in all"], "10.0.0.1", "10.0.0.2:80", "tcp"));
        assert!(passes_by(&["block out all", "pass out from ! 10.0.0.2/32 to any"], "10.0.0.1", "10.0.0.2:80", "tcp"));
    }

    /// What a group lets pass is up to the rules behind; what it does not name its head decides.
    #[test]
    fn a_group_speaks_for_its_head() {
        let head = "block out quick proto tcp from any to 10.0.0.9/32 port = 80 flags S/SA head g";
        let member = "pass out from 10.0.0.1/32 to any group g";
        let to = "10.0.0.9:80";
        assert!(passes_by(&[head, member], "10.0.0.1", to, "tcp"));
        assert!(!passes_by(&[head, member], "10.0.0.2", to, "tcp"));
        assert!(!passes_by(&[head, member, "block out all"], "10.0.0.1", to, "tcp"));
        assert!(!passes_by(&[head, "pass out quick all", member], "10.0.0.2", to, "tcp"));
        assert!(passes_by(&[head, member], "10.0.0.2", "10.0.0.9:81", "tcp"));
    }
}
