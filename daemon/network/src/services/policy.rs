//! Network policies: which pods are isolated, and what may pass to and from them all the same.

use super::facts::{Cluster, Labels, Name, Peer, Pod, Policy, Rule, RulePort};
use super::nets::without;
use ipnet::IpNet;
use reddwarf_host::service::{Allow, Direction, Isolation, PortRange};
use reddwarf_objects::selector::LabelSelector;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The isolations that all policies together make; pods with the same rules share one.
pub(super) fn isolations(cluster: &Cluster) -> Vec<Isolation> {
    let mut groups: BTreeMap<(Direction, BTreeSet<Allow>), BTreeSet<IpAddr>> = BTreeMap::new();
    if cluster.policies.is_empty() {
        return Vec::new();
    }
    for (name, pod) in cluster.pods.iter().filter(|(_, pod)| !pod.ips.is_empty()) {
        for direction in [Direction::Ingress, Direction::Egress] {
            let selecting = cluster.policies.iter().filter(|((namespace, _), policy)| {
                *namespace == name.0 && policy.rules(direction).is_some() && selects(&policy.selects, &pod.labels)
            });
            let selecting: Vec<(&Name, &Policy)> = selecting.collect();
            if selecting.is_empty() {
                continue;
            }
            let mut allow = BTreeSet::new();
            for (policy_name, policy) in selecting {
                let maker = Maker { cluster, namespace: &policy_name.0, pod, direction };
                for rule in policy.rules(direction).unwrap_or_default() {
                    maker.add(rule, &mut allow);
                }
            }
            groups.entry((direction, allow)).or_default().extend(&pod.ips);
        }
    }
    groups.into_iter().map(|((direction, allow), pods)| Isolation { direction, pods, allow }).collect()
}

fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    selector.matches_labels(|key| labels.get(key).map(String::as_str))
}

/// One isolated pod.
struct Maker<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    pod: &'a Pod,
    direction: Direction,
}

impl<'a> Maker<'a> {
    fn add(&self, rule: &Rule, allow: &mut BTreeSet<Allow>) {
        if rule.peers.is_empty() {
            let ports = self.ports(rule, self.pod);
            match self.direction {
                Direction::Egress if has_names(rule) => self.add_by_pod(rule, self.cluster.pods.values(), allow),
                _ => push(allow, None, ports),
            }
            return;
        }
        for peer in &rule.peers {
            match peer {
                Peer::Block { cidr, except } => {
                    let nets = without(*cidr, except).into_iter().collect();
                    push(allow, Some(nets), numbers(rule));
                }
                Peer::Pods { pods, namespaces } => {
                    let found = self.pods(pods.as_ref(), namespaces.as_ref());
                    if self.direction == Direction::Egress && has_names(rule) {
                        self.add_by_pod(rule, found.into_iter(), allow);
                    } else {
                        let nets = found.iter().flat_map(|p| &p.ips).map(|ip| IpNet::from(*ip)).collect();
                        push(allow, Some(nets), self.ports(rule, self.pod));
                    }
                }
            }
        }
    }

    /// Egress to ports by name: which number that is, each peer says.
    fn add_by_pod(&self, rule: &Rule, peers: impl Iterator<Item = &'a Pod>, allow: &mut BTreeSet<Allow>) {
        for peer in peers {
            let nets = peer.ips.iter().map(|ip| IpNet::from(*ip)).collect();
            push(allow, Some(nets), self.ports(rule, peer));
        }
    }

    fn pods(&self, pods: Option<&LabelSelector>, namespaces: Option<&LabelSelector>) -> Vec<&'a Pod> {
        let empty = Labels::new();
        let namespace = |name: &str| match namespaces {
            Some(selector) => selects(selector, self.cluster.namespaces.get(name).unwrap_or(&empty)),
            None => name == self.namespace,
        };
        let chosen = |(name, pod): &(&Name, &Pod)| namespace(&name.0) && pods.is_none_or(|s| selects(s, &pod.labels));
        self.cluster.pods.iter().filter(chosen).map(|(_, pod)| pod).collect()
    }

    /// The rule's ports at `pod`; `None`: every port.
    fn ports(&self, rule: &Rule, pod: &Pod) -> Option<BTreeSet<PortRange>> {
        if rule.ports.is_empty() {
            return None;
        }
        let mut ports = numbers(rule).unwrap_or_default();
        for port in &rule.ports {
            if let RulePort::Named { protocol, name } = port {
                let named = pod.ports.iter().filter(|p| p.name == *name && p.protocol == *protocol);
                ports.extend(named.map(|p| PortRange { protocol: *protocol, first: p.port, last: p.port }));
            }
        }
        Some(ports)
    }
}

fn has_names(rule: &Rule) -> bool {
    rule.ports.iter().any(|port| matches!(port, RulePort::Named { .. }))
}

/// The ports that a rule gives by number; `None`: it restricts no ports.
fn numbers(rule: &Rule) -> Option<BTreeSet<PortRange>> {
    let number = |port: &RulePort| match port {
        RulePort::Numbers { protocol, first, last } => {
            Some(PortRange { protocol: *protocol, first: *first, last: *last })
        }
        RulePort::Named { .. } => None,
    };
    (!rule.ports.is_empty()).then(|| rule.ports.iter().filter_map(number).collect())
}

/// What lets nobody or nothing pass is left out.
fn push(allow: &mut BTreeSet<Allow>, peers: Option<BTreeSet<IpNet>>, ports: Option<BTreeSet<PortRange>>) {
    if peers.as_ref().is_none_or(|p| !p.is_empty()) && ports.as_ref().is_none_or(|p| !p.is_empty()) {
        allow.insert(Allow { peers, ports });
    }
}
