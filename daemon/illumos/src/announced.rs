//! Load balancers' addresses on the host's own interfaces: where the network holds them, so that neighbours who ask get an
//! answer, else on the loopback: then a router has to send them here.
//!
//! Each is a temporary address object (ipadm(8)) whose name follows from the instance and the address. What has both the
//! name and the address is ours, and nothing else is ever taken away. So the host's own list says all that has to be known,
//! after a crash too.

use crate::host::Shared;
use crate::ilbadm::digest;
use crate::ipadm::{self, Address, DUPLICATE};
use crate::options::IllumosOptions;
use ipnet::IpNet;
use reddwarf_command::{Cause, Invocation};
use reddwarf_host::{HostError, HostErrorKind};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const OP: &str = "announce addresses";
const LOOPBACK: &str = "lo0";

/// Address objects by name.
pub(crate) type Addresses = BTreeMap<String, Address>;

/// What ours are called on their interface. With any link's name of 15 characters that is the 32 that an object may have.
fn name(instance: &str, ip: IpAddr) -> String {
    format!("rwlb{}", digest(&format!("announced {instance} {ip}"), 12))
}

fn interface(object: &str) -> &str {
    object.split_once('/').map_or(object, |(interface, _)| interface)
}

/// Addresses in force with the interface that has each, the loopback left out: nothing comes in by that.
pub(crate) fn interfaces(seen: &Addresses) -> BTreeMap<IpAddr, BTreeSet<&str>> {
    let mut found = BTreeMap::<_, BTreeSet<_>>::new();
    let active = seen.iter().filter(|(object, address)| is_active(address) && interface(object) != LOOPBACK);
    for (object, net) in active.filter_map(|(object, address)| Some((object, address.address?))) {
        found.entry(net.addr()).or_default().insert(interface(object));
    }
    found
}

/// The objects of this instance and their addresses.
pub(crate) fn ours<'s>(seen: &'s Addresses, instance: &str) -> BTreeMap<&'s str, IpAddr> {
    let own = |(object, address): (&'s String, &Address)| {
        let net = address.address.filter(|net| net.prefix_len() == net.max_prefix_len())?;
        let (_, called) = object.split_once('/')?;
        (called == name(instance, net.addr())).then_some((object.as_str(), net.addr()))
    };
    seen.iter().filter_map(own).collect()
}

/// What leads from the addresses that are there to those that are announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Objects of ours that are too much.
    stale: Vec<String>,
    /// What is missing.
    missing: Vec<Missing>,
    /// Announced addresses and the interface that they are on, or will be; the loopback left out.
    links: BTreeMap<IpAddr, String>,
    /// Objects of ours that don't serve, and their state.
    troubled: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Missing {
    address: IpAddr,
    object: String,
    /// Where it is so far: two interfaces can't have one address.
    instead: Vec<String>,
}

impl Plan {
    /// The interface that neighbours reach the address by, if there is one.
    pub(crate) fn links(&self, ip: &IpAddr) -> Option<&String> {
        self.links.get(ip)
    }
}

/// Decides what is to be done. An address that the host has by itself stays its own.
pub(crate) fn plan(wanted: &BTreeSet<IpAddr>, seen: &Addresses, options: &IllumosOptions) -> Plan {
    let mut plan = Plan::default();
    let ours = ours(seen, &options.instance);
    let (kept, stale): (Vec<_>, Vec<_>) = ours.iter().partition(|(_, ip)| wanted.contains(ip));
    plan.stale.extend(stale.into_iter().map(|(object, _)| (*object).to_owned()));
    for ip in wanted {
        let objects = kept.iter().filter(|(_, of)| *of == ip).map(|(object, _)| **object);
        let host = seen.iter().find(|(object, a)| has(a, *ip) && !ours.contains_key(object.as_str()));
        let at = match host {
            Some((object, _)) => {
                plan.stale.extend(objects.map(str::to_owned));
                interface(object)
            }
            None => plan.place(*ip, objects, seen, options),
        };
        if at != LOOPBACK {
            plan.links.insert(*ip, at.to_owned());
        }
    }
    plan
}

impl Plan {
    /// Leaves an address where it is if it may be there, else moves it; its interface.
    fn place<'s>(
        &mut self,
        ip: IpAddr,
        objects: impl Iterator<Item = &'s str>,
        seen: &'s Addresses,
        options: &IllumosOptions,
    ) -> &'s str {
        let homes = homes(ip, seen, options);
        let best = homes.first().copied().unwrap_or(LOOPBACK);
        let (right, wrong): (Vec<&str>, Vec<&str>) =
            objects.partition(|object| interface(object) == best || homes.contains(&interface(object)));
        let mut wrong: Vec<String> = wrong.iter().chain(right.iter().skip(1)).map(ToString::to_string).collect();
        let Some(object) = right.first() else {
            let object = format!("{best}/{}", name(&options.instance, ip));
            self.missing.push(Missing { address: ip, object, instead: wrong });
            return best;
        };
        self.stale.append(&mut wrong);
        if let Some(address) = seen.get(*object).filter(|a| a.state == DUPLICATE || !is_active(a)) {
            self.troubled.push(((*object).to_owned(), address.state.clone()));
        }
        interface(object)
    }
}

/// Whether an object is in force and has this address.
fn has(address: &Address, ip: IpAddr) -> bool {
    is_active(address) && address.address.is_some_and(|net| net.addr() == ip)
}

/// `disabled` ones are known to ipadm only.
fn is_active(address: &Address) -> bool {
    !matches!(address.state.as_str(), "disabled" | "down")
}

/// Interfaces whose networks hold an address, the smallest network first. Those of pods and the loopback are none: nobody
/// asks there.
fn homes<'s>(ip: IpAddr, seen: &'s Addresses, options: &IllumosOptions) -> Vec<&'s str> {
    let active = || seen.iter().filter(|(_, a)| is_active(a)).filter_map(|(o, a)| Some((interface(o), a.address?)));
    let holds = |net: &IpNet| {
        net.contains(&ip) && !net.addr().is_unspecified() && (1..net.max_prefix_len()).contains(&net.prefix_len())
    };
    // Without a link-local address an interface takes no other of IPv6.
    let speaks =
        |of: &str| ip.is_ipv4() || active().any(|(interface, net)| interface == of && is_link_local(net.addr()));
    let mut found: Vec<(u8, &str)> = active()
        .filter(|(interface, net)| *interface != LOOPBACK && *interface != options.gateway_link && holds(net))
        .filter(|(interface, _)| speaks(interface))
        .map(|(interface, net)| (net.max_prefix_len() - net.prefix_len(), interface))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, interface)| interface).collect()
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Announced addresses that nobody, or not only this host, answers for.
pub(crate) fn drift(wanted: &BTreeSet<IpAddr>, seen: &Addresses) -> Vec<String> {
    let problem = |ip: &IpAddr| match seen.values().find(|a| has(a, *ip)) {
        None => Some(format!("address {ip} is on no interface")),
        Some(address) if address.state == DUPLICATE => Some(format!("another machine has address {ip} too")),
        Some(_) => None,
    };
    wanted.iter().filter_map(problem).collect()
}

/// What was done, in words, and what failed first: no address keeps another.
#[derive(Default)]
pub(crate) struct Moved {
    pub(crate) done: Vec<String>,
    pub(crate) failed: Option<HostError>,
}

impl Moved {
    /// Runs one command. `fine`: the failure that is none. Whether it is as it should be.
    async fn run(&mut self, shared: &Shared, object: &str, run: &Invocation, fine: Option<Cause>) -> bool {
        match shared.tools().run(run).await {
            Err(error) if Some(error.cause()) != fine => {
                self.failed.get_or_insert(error.into_host(OP, object));
                false
            }
            _ => true,
        }
    }
}

/// Gives up what is too much.
pub(crate) async fn give_up(shared: &Shared, plan: &Plan) -> Moved {
    let mut moved = Moved::default();
    for object in &plan.stale {
        if moved.run(shared, object, &ipadm::delete_object(object), Some(Cause::NotFound)).await {
            moved.done.push(format!("gave {object} up"));
        }
    }
    moved
}

/// Takes on what is missing. Neighbours are told by the kernel, which first asks whether another machine has it.
pub(crate) async fn take_on(shared: &Shared, plan: &Plan, moved: &mut Moved) {
    for Missing { address, object, instead } in &plan.missing {
        for old in instead {
            moved.run(shared, old, &ipadm::delete_object(old), Some(Cause::NotFound)).await;
        }
        if moved.run(shared, object, &ipadm::create_object(object, &IpNet::from(*address)), None).await {
            moved.done.push(format!("took {address} on ({object})"));
        }
    }
    if let Some((object, state)) = plan.troubled.first() {
        let message = match state.as_str() {
            DUPLICATE => "another machine on that network has this address too".to_owned(),
            state => format!("this address is {state}: `ipadm delete-addr {object}`, and it is made anew"),
        };
        moved.failed.get_or_insert_with(|| HostError::new(HostErrorKind::Conflict, OP, object.as_str(), message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> IllumosOptions {
        IllumosOptions::new("/var/run/reddwarf", "/state", "/bin/reddwarf-shim")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn set(list: &[&str]) -> BTreeSet<IpAddr> {
        list.iter().map(|text| ip(text)).collect()
    }

    fn seen(list: &[(&str, &str)]) -> Addresses {
        let address =
            |text: &str| Address { kind: "static".into(), state: "ok".into(), address: Some(text.parse().unwrap()) };
        list.iter().map(|(object, text)| ((*object).to_owned(), address(text))).collect()
    }

    const HOST: [(&str, &str); 6] = [
        ("lo0/v4", "127.0.0.1/8"),
        ("lo0/v6", "::1/128"),
        ("net0/v4", "192.0.2.2/24"),
        ("net1/v4", "198.51.100.2/24"),
        ("net1/ll", "fe80::1/10"),
        ("net1/v6", "2001:db8::2/64"),
    ];

    /// Where each address is missing, as `interface address`.
    fn missing(plan: &Plan) -> Vec<String> {
        plan.missing.iter().map(|m| format!("{} {}", interface(&m.object), m.address)).collect()
    }

    fn object(interface: &str, address: &str) -> String {
        format!("{interface}/{}", name("reddwarf", ip(address)))
    }

    #[test]
    fn names_are_legal_and_each_instances_own() {
        let one = name("reddwarf", ip("192.0.2.64"));
        assert!(one.len() == 16 && one.starts_with("rwlb"), "{one}");
        assert!(one.bytes().all(|b| b.is_ascii_alphanumeric()), "{one}");
        assert_ne!(one, name("reddwarf-01234567", ip("192.0.2.64")));
        assert_ne!(one, name("reddwarf", ip("192.0.2.65")));
    }

    #[test]
    fn an_address_goes_where_its_network_is_and_else_to_the_loopback() {
        let mut there = seen(&HOST);
        let wanted = set(&["192.0.2.64", "198.51.100.7", "203.0.113.9", "2001:db8::40", "2001:db8:1::40"]);
        let made = plan(&wanted, &there, &options());
        assert_eq!(
            missing(&made),
            ["net0 192.0.2.64", "net1 198.51.100.7", "lo0 203.0.113.9", "net1 2001:db8::40", "lo0 2001:db8:1::40"]
        );
        assert_eq!(made.links(&ip("198.51.100.7")).map(String::as_str), Some("net1"));
        assert_eq!(made.links(&ip("203.0.113.9")), None);
        // Carried out, there is nothing left to do.
        for Missing { address, object, .. } in &made.missing {
            there.extend(seen(&[(object, &IpNet::from(*address).to_string())]));
        }
        let again = plan(&wanted, &there, &options());
        assert_eq!((again.stale, again.missing, again.links), (vec![], vec![], made.links));
        assert_eq!(drift(&wanted, &there), Vec::<String>::new());

        // An interface without IPv6 of its own is left alone; the pods' is none; nor is one that is down.
        there = seen(&[("net0/v6", "2001:db8::2/64"), ("rwgw0/v4", "10.88.0.1/16"), ("net2/v4", "192.0.2.2/24")]);
        there.get_mut("net2/v4").unwrap().state = "down".into();
        let made = plan(&set(&["2001:db8::40", "10.88.9.9", "192.0.2.64"]), &there, &options());
        assert!(made.missing.iter().all(|m| interface(&m.object) == "lo0"), "{made:?}");
        // One that DHCP gave nothing holds no network.
        let made = plan(&set(&["192.0.2.64"]), &seen(&[("net0/dhcp", "0.0.0.0/0")]), &options());
        assert_eq!(missing(&made), ["lo0 192.0.2.64"]);
        // The smallest network is meant.
        let nested = seen(&[("net0/v4", "10.0.0.2/8"), ("net1/v4", "10.1.0.2/16")]);
        assert_eq!(missing(&plan(&set(&["10.1.2.3"]), &nested, &options())), ["net1 10.1.2.3"]);
    }

    #[test]
    fn only_what_is_ours_is_given_up() {
        let ours = object("net0", "192.0.2.64");
        let others = format!("net0/{}", name("reddwarf-01234567", ip("192.0.2.66")));
        let renamed = object("net1", "192.0.2.68");
        let wide = object("net1", "192.0.2.69");
        let mut there = seen(&HOST);
        there.extend(seen(&[
            (&ours, "192.0.2.64/32"),
            ("net0/web", "192.0.2.65/32"),
            (&others, "192.0.2.66/32"),
            (&renamed, "192.0.2.67/32"),
            (&wide, "192.0.2.69/24"),
        ]));
        let made = plan(&set(&[]), &there, &options());
        assert_eq!((made.stale, made.missing), (vec![ours.clone()], vec![]));
        // What the host has by itself stays its own, and is led on from where it is.
        let made = plan(&set(&["192.0.2.65"]), &there, &options());
        assert_eq!((made.stale, made.missing), (vec![ours.clone()], vec![]));
        assert_eq!(made.links.get(&ip("192.0.2.65")).map(String::as_str), Some("net0"));
        there.extend(seen(&[("net1/web", "192.0.2.64/24")]));
        assert_eq!(plan(&set(&["192.0.2.64"]), &there, &options()).stale, [ours]);
    }

    #[test]
    fn an_address_moves_when_its_network_came_and_stays_where_it_may_be() {
        let wanted = set(&["192.0.2.64"]);
        let (lost, home) = (object("lo0", "192.0.2.64"), object("net0", "192.0.2.64"));
        let mut there = seen(&HOST);
        there.extend(seen(&[(&lost, "192.0.2.64/32")]));
        let made = plan(&wanted, &there, &options());
        let moved = Missing { address: ip("192.0.2.64"), object: home.clone(), instead: vec![lost] };
        assert_eq!((made.stale, made.missing), (vec![], vec![moved]));
        // A second interface with the same network, and one that would be preferred.
        let mut there = seen(&[("net0/v4", "192.0.2.2/24"), ("aggr0/v4", "192.0.2.3/25")]);
        there.extend(seen(&[(&home, "192.0.2.64/32")]));
        let made = plan(&wanted, &there, &options());
        assert_eq!((made.stale, made.missing), (vec![], vec![]));
    }

    #[test]
    fn what_another_machine_has_too_is_told() {
        let wanted = set(&["192.0.2.64", "192.0.2.65"]);
        let home = object("net0", "192.0.2.64");
        let mut there = seen(&HOST);
        there.extend(seen(&[(&home, "192.0.2.64/32")]));
        there.get_mut(&home).unwrap().state = "duplicate".into();
        assert_eq!(plan(&wanted, &there, &options()).troubled, [(home, "duplicate".to_owned())]);
        assert_eq!(
            drift(&wanted, &there),
            ["another machine has address 192.0.2.64 too", "address 192.0.2.65 is on no interface"]
        );
    }
}
