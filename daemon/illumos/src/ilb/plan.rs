//! What leads from ILB's rules and groups as they are to those that are wanted.

use crate::ilbadm::{self, Balanced, Groups, Name, Prefix, Terms};
use reddwarf_command::Invocation;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// What ilbd has, others' included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) rules: BTreeMap<String, Terms>,
    pub(crate) groups: Groups,
    /// Servers that take no connections.
    pub(crate) disabled: BTreeSet<String>,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    DeleteRule(Name),
    DeleteGroup(Name),
    CreateGroup(Name, BTreeMap<IpAddr, u16>),
    CreateRule(Name, Balanced),
    AddServers(Name, BTreeMap<IpAddr, u16>),
    RemoveServers(Name, Vec<String>),
    EnableServers(Name, Vec<String>),
}

impl Step {
    pub(crate) fn run(&self) -> Invocation {
        match self {
            Self::DeleteRule(name) => ilbadm::delete_rule(name),
            Self::DeleteGroup(name) => ilbadm::delete_group(name),
            Self::CreateGroup(name, servers) => ilbadm::create_group(name, servers),
            Self::CreateRule(name, rule) => ilbadm::create_rule(name, rule),
            Self::AddServers(name, servers) => ilbadm::add_servers(name, servers),
            Self::RemoveServers(name, ids) => ilbadm::remove_servers(name, ids),
            Self::EnableServers(_, ids) => ilbadm::enable_servers(ids),
        }
    }
}

impl fmt::Display for Step {
    /// What is wrong as long as it is to be done.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeleteRule(name) => write!(f, "ILB: rule {name} is too much, or not as it was made"),
            Self::DeleteGroup(name) => write!(f, "ILB: server group {name} is too much"),
            Self::CreateGroup(name, _) => write!(f, "ILB: server group {name} is missing"),
            Self::CreateRule(name, rule) => write!(f, "ILB: rule {name} for {rule} is missing"),
            Self::AddServers(name, servers) => write!(f, "ILB: {} servers of {name} are missing", servers.len()),
            Self::RemoveServers(_, ids) => write!(f, "ILB: servers {} are too much", ids.join(", ")),
            Self::EnableServers(_, ids) => write!(f, "ILB: servers {} are disabled", ids.join(", ")),
        }
    }
}

/// What is to be done. A crash between any two steps leaves something that the next plan completes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// For each rule that is not as it should be, in this order; what fails with one keeps no other.
    pub(crate) make: Vec<(Name, Vec<Step>)>,
    /// Taking away what is ours and not wanted any more: rules before their groups.
    pub(crate) unmake: Vec<Step>,
    /// What can't be made: somebody else's rule, by its name, has that place.
    pub(crate) clashes: Vec<(Name, String)>,
}

impl Plan {
    /// All steps.
    pub(crate) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.make.iter().flat_map(|(_, steps)| steps).chain(&self.unmake)
    }
}

pub(crate) fn plan(wanted: &BTreeMap<Name, Balanced>, seen: &Seen, prefix: &Prefix) -> Plan {
    let mut plan = Plan::default();
    for (name, rule) in wanted {
        match foreign(rule, seen, prefix) {
            Some(of) => plan.clashes.push((name.clone(), of.to_owned())),
            None => plan.make.push((name.clone(), make(name, rule, seen))),
        }
    }
    plan.make.retain(|(_, steps)| !steps.is_empty());
    let stale = |name: &String| prefix.own(name).filter(|name| !wanted.contains_key(name));
    plan.unmake.extend(seen.rules.keys().filter_map(stale).map(Step::DeleteRule));
    // A group that a rule of others uses can't go before that does.
    let borrowed = |group: &&String| seen.rules.iter().any(|(n, t)| t.group == **group && prefix.own(n).is_none());
    let groups = seen.groups.keys().filter(|group| !borrowed(group));
    plan.unmake.extend(groups.filter_map(stale).map(Step::DeleteGroup));
    plan
}

/// The rules without servers that are `held` and that nothing leads to so far; without those that have none left.
pub(crate) fn allowed(
    wanted: &BTreeMap<Name, Balanced>,
    seen: &Seen,
    held: &BTreeSet<SocketAddr>,
) -> BTreeMap<Name, Balanced> {
    let led_to = |name: &Name, ip: &IpAddr, port: u16| {
        let servers = seen.rules.get(name.as_str()).filter(|t| t.enabled && t.group == name.as_str());
        let server = servers.and_then(|terms| seen.groups.get(&terms.group)?.get(ip));
        server.is_some_and(|of| of.ports == (port, port) && !seen.disabled.contains(&of.id))
    };
    let mut allowed = wanted.clone();
    allowed.retain(|name, rule| {
        rule.servers.retain(|ip, port| !held.contains(&SocketAddr::new(*ip, *port)) || led_to(name, ip, *port));
        !rule.servers.is_empty()
    });
    allowed
}

/// The rule of others that takes connections to the same place.
fn foreign<'s>(rule: &Balanced, seen: &'s Seen, prefix: &Prefix) -> Option<&'s str> {
    let terms = |t: &Terms| {
        t.vip == Some(rule.vip)
            && t.protocol.eq_ignore_ascii_case(match rule.protocol {
                ilbadm::Protocol::Tcp => "tcp",
                ilbadm::Protocol::Udp => "udp",
            })
            && (t.ports.0..=t.ports.1).contains(&rule.port)
    };
    let others = seen.rules.iter().filter(|(name, _)| prefix.own(name).is_none());
    others.filter(|(_, t)| terms(t)).map(|(name, _)| name.as_str()).next()
}

/// The group's servers are changed one by one, so that connections to those that stay go on. A rule can't be changed: one
/// that says something else is made anew, which its connections outlive.
fn make(name: &Name, rule: &Balanced, seen: &Seen) -> Vec<Step> {
    let mut steps = Vec::new();
    let there = seen.rules.get(name.as_str());
    let fits = there == Some(&rule.terms(name));
    if there.is_some() && !fits {
        steps.push(Step::DeleteRule(name.clone()));
    }
    let mut disabled = Vec::new();
    match seen.groups.get(name.as_str()) {
        None => steps.push(Step::CreateGroup(name.clone(), rule.servers.clone())),
        Some(servers) => {
            let port = |ip: &IpAddr| rule.servers.get(ip).copied();
            let stays = |ip: &IpAddr, of: &ilbadm::Server| port(ip).is_some_and(|port| of.ports == (port, port));
            let missing: BTreeMap<IpAddr, u16> = rule
                .servers
                .iter()
                .filter(|(ip, _)| !servers.get(*ip).is_some_and(|of| stays(ip, of)))
                .map(|(ip, port)| (*ip, *port))
                .collect();
            // An address is in a group once: one with another port has to go first. Others go when those that come are there.
            let (moved, gone): (Vec<_>, Vec<_>) =
                servers.iter().filter(|(ip, of)| !stays(ip, of)).partition(|(ip, _)| port(ip).is_some());
            let ids =
                |of: Vec<(&IpAddr, &ilbadm::Server)>| of.into_iter().map(|(_, s)| s.id.clone()).collect::<Vec<_>>();
            let (moved, gone) = (ids(moved), ids(gone));
            if !moved.is_empty() {
                steps.push(Step::RemoveServers(name.clone(), moved));
            }
            if !missing.is_empty() {
                steps.push(Step::AddServers(name.clone(), missing));
            }
            if !gone.is_empty() {
                steps.push(Step::RemoveServers(name.clone(), gone));
            }
            let off = servers.iter().filter(|(ip, of)| stays(ip, of) && seen.disabled.contains(&of.id));
            disabled.extend(off.map(|(_, of)| of.id.clone()));
        }
    }
    if !fits {
        steps.push(Step::CreateRule(name.clone(), rule.clone()));
    }
    // One that no rule uses can't be enabled.
    if !disabled.is_empty() {
        steps.push(Step::EnableServers(name.clone(), disabled));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ilbadm::{Protocol, Server};
    use proptest::prelude::*;
    use std::num::NonZeroU32;

    fn prefix() -> Prefix {
        Prefix::of("reddwarf")
    }

    fn rule(port: u16, servers: &[(&str, u16)]) -> (Name, Balanced) {
        let rule = Balanced {
            vip: "10.96.0.5".parse().unwrap(),
            protocol: Protocol::Tcp,
            port,
            affinity_seconds: None,
            servers: servers.iter().map(|(ip, port)| (ip.parse().unwrap(), *port)).collect(),
        };
        (prefix().name(rule.vip, rule.protocol, port), rule)
    }

    /// What ilbd would have after a step, or that it refuses.
    fn apply(seen: &mut Seen, step: &Step) -> Result<(), String> {
        let add = |group: &mut BTreeMap<IpAddr, Server>, name: &Name, servers: &BTreeMap<IpAddr, u16>| {
            for (ip, port) in servers {
                let free = |n: &u32| group.values().all(|s| s.id != format!("_{name}.{n}"));
                let id = format!("_{name}.{}", (0..).find(free).unwrap());
                let server = Server { id, ports: (*port, *port) };
                if group.insert(*ip, server).is_some() {
                    return Err(format!("{ip} is there"));
                }
            }
            Ok(())
        };
        match step {
            Step::DeleteRule(name) => seen.rules.remove(name.as_str()).map(drop).ok_or("no rule")?,
            Step::DeleteGroup(name) => {
                if seen.rules.values().any(|t| t.group == name.as_str()) {
                    return Err("in use".into());
                }
                seen.groups.remove(name.as_str()).map(drop).ok_or("no group")?;
            }
            Step::CreateGroup(name, servers) => {
                let mut group = BTreeMap::new();
                add(&mut group, name, servers)?;
                if seen.groups.insert(name.as_str().to_owned(), group).is_some() {
                    return Err("group exists".into());
                }
            }
            Step::CreateRule(name, rule) => {
                if seen.groups.get(name.as_str()).is_none_or(BTreeMap::is_empty) {
                    return Err("no server".into());
                }
                if seen.rules.insert(name.as_str().to_owned(), rule.terms(name)).is_some() {
                    return Err("rule exists".into());
                }
            }
            Step::AddServers(name, servers) => {
                add(seen.groups.get_mut(name.as_str()).ok_or("no group")?, name, servers)?;
            }
            Step::RemoveServers(name, ids) => {
                let group = seen.groups.get_mut(name.as_str()).ok_or("no group")?;
                let before = group.len();
                group.retain(|_, s| !ids.contains(&s.id));
                if before - group.len() != ids.len() {
                    return Err("no server".into());
                }
            }
            Step::EnableServers(name, ids) => {
                if !seen.rules.contains_key(name.as_str()) {
                    return Err("no rule".into());
                }
                seen.disabled.retain(|id| !ids.contains(id));
            }
        }
        Ok(())
    }

    fn shown(wanted: &BTreeMap<Name, Balanced>, seen: &Seen) -> Vec<String> {
        plan(wanted, seen, &prefix()).steps().map(|s| s.run().args[0].clone()).collect()
    }

    #[test]
    fn only_the_difference_is_done() {
        let (name, web) = rule(80, &[("10.88.0.5", 8080), ("10.88.0.6", 8080)]);
        let wanted: BTreeMap<_, _> = [(name.clone(), web.clone())].into();
        let mut seen = Seen::default();
        assert_eq!(shown(&wanted, &seen), ["create-servergroup", "create-rule"]);
        for step in plan(&wanted, &seen, &prefix()).steps() {
            apply(&mut seen, step).unwrap();
        }
        assert_eq!(shown(&wanted, &seen), [""; 0]);

        // One pod takes another's place: who comes is there before who goes has gone, and the one that stays is not touched.
        let (_, other) = rule(80, &[("10.88.0.6", 8080), ("10.88.0.7", 8080)]);
        assert_eq!(shown(&[(name.clone(), other)].into(), &seen), ["add-server", "remove-server"]);
        // Another port of the same pod: an address is in a group once.
        let (_, moved) = rule(80, &[("10.88.0.5", 9090), ("10.88.0.6", 8080)]);
        assert_eq!(shown(&[(name.clone(), moved)].into(), &seen), ["remove-server", "add-server"]);
        // Other terms: the rule anew, its group as it is.
        let sticky = Balanced { affinity_seconds: NonZeroU32::new(9), ..web.clone() };
        assert_eq!(shown(&[(name.clone(), sticky)].into(), &seen), ["delete-rule", "create-rule"]);
        // Somebody turned things off.
        seen.rules.get_mut(name.as_str()).unwrap().enabled = false;
        seen.disabled = seen.groups[name.as_str()].values().take(1).map(|s| s.id.clone()).collect();
        assert_eq!(shown(&wanted, &seen), ["delete-rule", "create-rule", "enable-server"]);
        assert_eq!(shown(&BTreeMap::new(), &seen), ["delete-rule", "delete-servergroup"]);
    }

    #[test]
    fn what_is_others_is_never_touched() {
        let (name, web) = rule(80, &[("10.88.0.5", 8080)]);
        let mut theirs = web.terms(&name);
        theirs.group = "theirs".into();
        let server = Server { id: "_theirs.0".into(), ports: (80, 80) };
        let groups = [("theirs".to_owned(), [("192.0.2.7".parse().unwrap(), server)].into())].into();
        let seen = Seen { rules: [("web".to_owned(), theirs.clone())].into(), groups, ..Seen::default() };
        assert_eq!(shown(&BTreeMap::new(), &seen), [""; 0]);
        // Theirs has the place of ours: that is said, and nothing done.
        let wanted: BTreeMap<_, _> = [(name.clone(), web.clone())].into();
        let plan = plan(&wanted, &seen, &prefix());
        assert_eq!((plan.steps().count(), plan.clashes), (0, vec![(name.clone(), "web".to_owned())]));
        // A group of ours that a rule of theirs uses stays until that goes.
        theirs.group = name.as_str().to_owned();
        let groups = [(name.as_str().to_owned(), BTreeMap::new())].into();
        let seen = Seen { rules: [("web".to_owned(), theirs)].into(), groups, ..Seen::default() };
        assert_eq!(shown(&BTreeMap::new(), &seen), [""; 0]);
    }

    fn wanted() -> impl Strategy<Value = BTreeMap<Name, Balanced>> {
        let servers = prop::collection::btree_map(1u8..6, 80u16..82, 1..4);
        let one = (80u16..84, servers, prop::option::of(1u32..3)).prop_map(|(port, servers, affinity)| {
            let servers = servers.into_iter().map(|(n, port)| (IpAddr::from([10, 88, 0, n]), port)).collect();
            let (name, rule) = rule(port, &[]);
            (name, Balanced { servers, affinity_seconds: affinity.and_then(NonZeroU32::new), ..rule })
        });
        prop::collection::vec(one, 0..5).prop_map(|all| all.into_iter().collect())
    }

    proptest! {
        /// From any state to any other, also when the way is left in the middle for another: ilbd refuses no step, and at the
        /// end there is what was wanted and nothing else of ours.
        #[test]
        fn every_way_ends_where_it_should(first in wanted(), second in wanted(), crash in 0usize..30) {
            let mut seen = Seen::default();
            for step in plan(&first, &seen, &prefix()).steps().take(crash) {
                prop_assert_eq!(apply(&mut seen, step), Ok(()));
            }
            let way = plan(&second, &seen, &prefix());
            for step in way.steps() {
                prop_assert_eq!(apply(&mut seen, step), Ok(()), "{:?}", way);
            }
            prop_assert_eq!(plan(&second, &seen, &prefix()), Plan::default());
            let names: Vec<&str> = second.keys().map(Name::as_str).collect();
            prop_assert!(seen.rules.keys().map(String::as_str).eq(names.iter().copied()));
            prop_assert!(seen.groups.keys().map(String::as_str).eq(names.iter().copied()));
        }
    }
}
