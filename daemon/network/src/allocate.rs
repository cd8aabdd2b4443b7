//! Cluster IPs and node ports of a service: what it holds, and what it is given. Pure: whether something is taken comes
//! as a question, randomness as a number.
//!
//! Texts and field paths are those that the reference's clients know.

use ipnet::IpNet;
use reddwarf_objects::{FieldError, FieldPath, Object};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// Addresses of a range that are considered at most: a larger IPv6 range is used from its beginning.
const MOST: u128 = 1 << 20;

/// What services are given addresses and ports from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRanges {
    /// One range, or one of each family; the first is the family of services that do not say.
    pub cluster: Vec<IpNet>,
    /// Ports on the host's own addresses.
    pub node_ports: RangeInclusive<u16>,
}

/// One address family, as `spec.ipFamilies` calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// `IPv4`.
    V4,
    /// `IPv6`.
    V6,
}

impl Family {
    /// An address's.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As objects write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// Read from an object.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }
}

/// Something that only one service can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// A cluster IP.
    ClusterIp(IpAddr),
    /// A port on the host's addresses, of every protocol.
    NodePort(u16),
}

impl Claim {
    /// Prefix of the keys of all claims on cluster IPs.
    pub const CLUSTER_IPS: &'static str = "reserve/service-ip/";
    /// Prefix of the keys of all claims on node ports.
    pub const NODE_PORTS: &'static str = "reserve/node-port/";

    /// The key under which the claim is kept in the store.
    pub fn key(&self) -> String {
        match self {
            Self::ClusterIp(address) => format!("{}{address}", Self::CLUSTER_IPS),
            Self::NodePort(port) => format!("{}{port}", Self::NODE_PORTS),
        }
    }

    /// Read back from a key.
    pub fn from_key(key: &str) -> Option<Self> {
        let address = key.strip_prefix(Self::CLUSTER_IPS).and_then(|a| a.parse().ok()).map(Self::ClusterIp);
        address.or_else(|| key.strip_prefix(Self::NODE_PORTS)?.parse().ok().map(Self::NodePort))
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClusterIp(address) => write!(f, "cluster IP {address}"),
            Self::NodePort(port) => write!(f, "node port {port}"),
        }
    }
}

/// Why a service gets nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It asks for what can't be had.
    Fields(Vec<FieldError>),
    /// Everything is held; the text says how much of what.
    Exhausted(String),
}

/// What a stored service holds.
pub fn claims(service: &Object) -> BTreeSet<Claim> {
    let mut claims = BTreeSet::new();
    if service.get_str("/spec/type") == Some("ExternalName") {
        return claims;
    }
    claims.extend(cluster_ips(service).into_iter().map(Claim::ClusterIp));
    claims.extend(ports(service).iter().filter_map(|p| port_number(p.get("nodePort"))).map(Claim::NodePort));
    claims.extend(port_number(service.get("/spec/healthCheckNodePort")).map(Claim::NodePort));
    claims
}

/// The addresses that a service has; none when it is headless.
pub fn cluster_ips(service: &Object) -> Vec<IpAddr> {
    let list = service.get("/spec/clusterIPs").and_then(Value::as_array);
    let texts: Vec<&str> = match list {
        Some(list) if !list.is_empty() => list.iter().filter_map(Value::as_str).collect(),
        _ => service.get_str("/spec/clusterIP").into_iter().collect(),
    };
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn ports(service: &Object) -> &[Value] {
    service.get("/spec/ports").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn port_number(value: Option<&Value>) -> Option<u16> {
    u16::try_from(value?.as_u64()?).ok().filter(|port| *port != 0)
}

/// One service being given what it asks for.
pub struct Allocation<'a> {
    /// The ranges.
    pub ranges: &'a ServiceRanges,
    /// The service as somebody sent it, before defaults, when it is new: what it says of families counts.
    pub asked: Option<&'a Object>,
    /// The service as it was; `None` for a new one.
    pub old: Option<&'a Object>,
    /// Does another one hold this?
    pub taken: &'a dyn Fn(&Claim) -> bool,
    /// Where the search begins.
    pub entropy: u64,
}

impl Allocation<'_> {
    /// Fills in what `new` lacks and checks what it names.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn fill(&self, new: &mut Object) -> Result<(), Refusal> {
        if new.get_str("/spec/type") == Some("ExternalName") {
            return Ok(());
        }
        self.families(new)?;
        self.addresses(new)?;
        self.node_ports(new)
    }

    fn configured(&self) -> Vec<Family> {
        self.ranges.cluster.iter().map(|range| Family::of(range.addr())).collect()
    }

    /// `ipFamilyPolicy` and `ipFamilies`.
    fn families(&self, new: &mut Object) -> Result<(), Refusal> {
        let configured = self.configured();
        let Some(first) = configured.first().copied() else { return Ok(()) };
        let headless = is_headless(new);
        let selects = new.get("/spec/selector").and_then(Value::as_object).is_some_and(|s| !s.is_empty());
        if headless && !selects {
            return Ok(());
        }
        let kept = self.old.filter(|old| old.get_str("/spec/type") != Some("ExternalName"));
        let asked = self.asked.unwrap_or(new);
        let said = |field: &str| asked.get(&format!("/spec/{field}")).filter(|v| !v.is_null());
        let mut families = family_list(kept.map_or(said("ipFamilies"), |_| new.get("/spec/ipFamilies")));
        let named: Vec<Family> = cluster_ips(new).into_iter().map(Family::of).collect();
        for family in named.iter().skip(families.len()) {
            if !families.contains(family) {
                families.push(*family);
            }
        }
        let policy = match kept {
            Some(_) => new.get_str("/spec/ipFamilyPolicy"),
            None => said("ipFamilyPolicy").and_then(Value::as_str),
        };
        let two = families.len() > 1 || named.len() > 1;
        let policy = policy.unwrap_or(if two { "RequireDualStack" } else { "SingleStack" }).to_owned();
        let mut errors = Vec::new();
        let spec = FieldPath::of("spec");
        for (index, family) in families.iter().enumerate().filter(|(_, family)| !configured.contains(family)) {
            let path = spec.child("ipFamilies").index(index);
            errors.push(FieldError::invalid(&path, family.as_str(), "not configured on this cluster"));
        }
        match policy.as_str() {
            "SingleStack" if kept.is_some() => families.truncate(1),
            "SingleStack" if two => {
                let message = if named.len() > 1 { "clusterIPs" } else { "ipFamilies" };
                let message =
                    format!("may only hold up to 1 value when `ipFamilyPolicy` is 'SingleStack' (`{message}`)");
                errors.push(FieldError::invalid(&spec.child("ipFamilyPolicy"), policy.as_str(), message));
            }
            "RequireDualStack" if configured.len() < 2 => {
                let message = "this cluster is not configured for dual-stack services";
                errors.push(FieldError::invalid(&spec.child("ipFamilyPolicy"), policy.as_str(), message));
            }
            _ => {}
        }
        if !errors.is_empty() {
            return Err(Refusal::Fields(errors));
        }
        if families.is_empty() {
            families.push(first);
        }
        if policy != "SingleStack" && families.len() == 1 {
            families.extend(configured.iter().copied().find(|family| !families.contains(family)));
        }
        new.set("/spec/ipFamilyPolicy", policy);
        new.set("/spec/ipFamilies", families.iter().map(|f| f.as_str()).collect::<Vec<_>>());
        Ok(())
    }

    /// `clusterIP` and `clusterIPs`, one of each family.
    fn addresses(&self, new: &mut Object) -> Result<(), Refusal> {
        if is_headless(new) {
            return Ok(());
        }
        let families = family_list(new.get("/spec/ipFamilies"));
        let held = self.old.map(claims).unwrap_or_default();
        let mut given = cluster_ips(new);
        given.truncate(families.len());
        let shown = given.clone();
        for (index, family) in families.iter().enumerate() {
            let Some(range) = self.ranges.cluster.iter().find(|range| Family::of(range.addr()) == *family) else {
                continue;
            };
            match given.get(index) {
                Some(address) if held.contains(&Claim::ClusterIp(*address)) => {}
                Some(address) => {
                    let problem = if !usable(range, *address) {
                        format!(
                            "the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
                        )
                    } else if (self.taken)(&Claim::ClusterIp(*address)) {
                        "provided IP is already allocated".to_owned()
                    } else {
                        continue;
                    };
                    let path = FieldPath::of("spec.clusterIPs");
                    let message = format!("failed to allocate IP {address}: {problem}");
                    return Err(Refusal::Fields(vec![FieldError::invalid(&path, json!(shown), message)]));
                }
                None => given.push(self.free_address(range)?),
            }
        }
        if let Some(first) = given.first() {
            new.set("/spec/clusterIP", first.to_string());
            new.set("/spec/clusterIPs", given.iter().map(ToString::to_string).collect::<Vec<_>>());
        }
        Ok(())
    }

    /// A free address: of the upper part first, so that addresses that people choose (of the lower) stay free.
    fn free_address(&self, range: &IpNet) -> Result<IpAddr, Refusal> {
        let size = usable_count(range);
        let below = (size / 16).clamp(16, 256).min(size.saturating_sub(1));
        // The first belongs to the service `kubernetes`.
        let upper = (below.max(2)..=size).collect_from(self.entropy);
        let lower = (2..=below.min(size)).collect_from(self.entropy);
        let mut candidates = upper.chain(lower).filter_map(|n| nth(range, n));
        candidates.find(|address| !(self.taken)(&Claim::ClusterIp(*address))).ok_or_else(|| {
            Refusal::Exhausted(format!(
                "failed to allocate a serviceIP: range is full: all {size} addresses of {range} are in use; delete services \
                 or choose a larger `service_cidr`"
            ))
        })
    }

    fn node_ports(&self, new: &mut Object) -> Result<(), Refusal> {
        let kind = new.get_str("/spec/type").unwrap_or("ClusterIP").to_owned();
        let held = self.old.map(claims).unwrap_or_default();
        let mut mine: BTreeSet<u16> = BTreeSet::new();
        let wants = match kind.as_str() {
            "NodePort" => true,
            "LoadBalancer" => new.get("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
            _ => return Ok(()),
        };
        let mut list = ports(new).to_vec();
        let path = FieldPath::of("spec.ports");
        for (index, port) in list.iter().enumerate() {
            if let Some(number) = port_number(port.get("nodePort")) {
                self.check_node_port(&path.index(index).child("nodePort"), number, &held)?;
                mine.insert(number);
            }
        }
        for index in 0..list.len() {
            let Some(port) = list.get(index).filter(|p| wants && port_number(p.get("nodePort")).is_none()) else {
                continue;
            };
            // The same port over another protocol shares its number.
            let other =
                list.iter().find(|p| p.get("port") == port.get("port") && p.get("protocol") != port.get("protocol"));
            let number = match other.and_then(|p| port_number(p.get("nodePort"))) {
                Some(number) => number,
                None => self.free_port(&mine)?,
            };
            mine.insert(number);
            if let Some(port) = list.get_mut(index) {
                port["nodePort"] = json!(number);
            }
        }
        if !list.is_empty() {
            new.set("/spec/ports", list);
        }
        let local = kind == "LoadBalancer" && new.get_str("/spec/externalTrafficPolicy") == Some("Local");
        match port_number(new.get("/spec/healthCheckNodePort")) {
            Some(number) if local => {
                self.check_node_port(&FieldPath::of("spec.healthCheckNodePort"), number, &held)?;
            }
            None if local => {
                let number = self.free_port(&mine)?;
                new.set("/spec/healthCheckNodePort", number);
            }
            _ => {}
        }
        Ok(())
    }

    fn check_node_port(&self, path: &FieldPath, number: u16, held: &BTreeSet<Claim>) -> Result<(), Refusal> {
        let claim = Claim::NodePort(number);
        let range = &self.ranges.node_ports;
        let message = if held.contains(&claim) {
            return Ok(());
        } else if !range.contains(&number) {
            format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                range.start(),
                range.end()
            )
        } else if (self.taken)(&claim) {
            "provided port is already allocated".to_owned()
        } else {
            return Ok(());
        };
        Err(Refusal::Fields(vec![FieldError::invalid(path, number, message)]))
    }

    fn free_port(&self, mine: &BTreeSet<u16>) -> Result<u16, Refusal> {
        let (first, last) = (u128::from(*self.ranges.node_ports.start()), u128::from(*self.ranges.node_ports.end()));
        let all = (first..=last).collect_from(self.entropy).filter_map(|n| u16::try_from(n).ok());
        let mut free = all.filter(|port| !mine.contains(port) && !(self.taken)(&Claim::NodePort(*port)));
        free.next().ok_or_else(|| {
            Refusal::Exhausted(format!(
                "failed to allocate a nodePort: range is full: all ports of {first}-{last} are in use; delete services or \
                 choose a larger `node_port_range`"
            ))
        })
    }
}

/// Going once round a range from somewhere in it.
trait Around {
    fn collect_from(self, entropy: u64) -> impl Iterator<Item = u128>;
}

impl Around for RangeInclusive<u128> {
    fn collect_from(self, entropy: u64) -> impl Iterator<Item = u128> {
        let (first, last) = self.into_inner();
        let size = if last < first { 0 } else { last - first + 1 };
        (0..size).map(move |n| first + (n + u128::from(entropy)) % size)
    }
}

fn is_headless(service: &Object) -> bool {
    service.get_str("/spec/clusterIP") == Some("None")
}

fn family_list(value: Option<&Value>) -> Vec<Family> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).filter_map(Family::parse).collect()
}

/// How many addresses of a range services can have, the first included.
fn usable_count(range: &IpNet) -> u128 {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let all = 1_u128.checked_shl(bits).unwrap_or(MOST).min(MOST);
    // Neither the network's own address nor, of IPv4, the broadcast address.
    all.saturating_sub(if range.addr().is_ipv4() { 2 } else { 1 })
}

/// The `n`th address of a range.
pub fn nth(range: &IpNet, n: u128) -> Option<IpAddr> {
    match range.network() {
        IpAddr::V4(base) => u32::from(base).checked_add(u32::try_from(n).ok()?).map(|a| IpAddr::V4(Ipv4Addr::from(a))),
        IpAddr::V6(base) => u128::from(base).checked_add(n).map(|a| IpAddr::V6(Ipv6Addr::from(a))),
    }
}

fn usable(range: &IpNet, address: IpAddr) -> bool {
    let broadcast = matches!(range, IpNet::V4(net) if IpAddr::V4(net.broadcast()) == address);
    range.contains(&address) && address != range.network() && !broadcast
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(cluster: &[&str]) -> ServiceRanges {
        ServiceRanges { cluster: cluster.iter().map(|c| c.parse().unwrap()).collect(), node_ports: 30_000..=30_003 }
    }

    fn service(spec: Value) -> Object {
        let value = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec});
        let mut object = Object::from_value(value).unwrap();
        let kind = object.known_kind().unwrap();
        reddwarf_objects::default(kind, &mut object);
        reddwarf_objects::default::prepare_create(kind, &mut object);
        object
    }

    fn fill(cluster: &[&str], spec: Value, old: Option<&Object>, taken: &[Claim]) -> Result<Object, String> {
        let value = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec.clone()});
        let asked = Object::from_value(value).unwrap();
        let mut new = service(spec);
        let ranges = ranges(cluster);
        let taken = |claim: &Claim| taken.contains(claim);
        let allocation = Allocation { ranges: &ranges, asked: Some(&asked), old, taken: &taken, entropy: 7 };
        match allocation.fill(&mut new) {
            Ok(()) => Ok(new),
            Err(Refusal::Fields(errors)) => Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
            Err(Refusal::Exhausted(text)) => Err(text),
        }
    }

    const ONE: &[&str] = &["10.96.0.0/16"];
    const TWO: &[&str] = &["10.96.0.0/16", "fd96::/108"];

    #[test]
    fn families_and_addresses_follow_what_is_asked_and_what_is_configured() {
        let port = json!([{"port": 80}]);
        for (cluster, spec, families, policy) in [
            (ONE, json!({"ports": port}), json!(["IPv4"]), "SingleStack"),
            (&["fd96::/108"], json!({"ports": port}), json!(["IPv6"]), "SingleStack"),
            (ONE, json!({"ports": port, "ipFamilyPolicy": "PreferDualStack"}), json!(["IPv4"]), "PreferDualStack"),
            (
                TWO,
                json!({"ports": port, "ipFamilyPolicy": "PreferDualStack"}),
                json!(["IPv4", "IPv6"]),
                "PreferDualStack",
            ),
            (TWO, json!({"ports": port, "ipFamilies": ["IPv6"]}), json!(["IPv6"]), "SingleStack"),
            (TWO, json!({"ports": port, "ipFamilies": ["IPv6", "IPv4"]}), json!(["IPv6", "IPv4"]), "RequireDualStack"),
            (TWO, json!({"ports": port, "clusterIP": "fd96::9"}), json!(["IPv6"]), "SingleStack"),
        ] {
            let new = fill(cluster, spec.clone(), None, &[]).unwrap_or_else(|e| panic!("{spec}: {e}"));
            assert_eq!(new.get("/spec/ipFamilies"), Some(&families), "{spec}");
            assert_eq!(new.get_str("/spec/ipFamilyPolicy"), Some(policy), "{spec}");
            let ips = cluster_ips(&new);
            assert_eq!(ips.len(), families.as_array().unwrap().len(), "{spec}");
            assert_eq!(new.get_str("/spec/clusterIP").map(str::to_owned), ips.first().map(ToString::to_string));
            assert!(ips.iter().all(|ip| cluster.iter().any(|c| c.parse::<IpNet>().unwrap().contains(ip))));
        }
        let headless =
            fill(ONE, json!({"ports": port, "clusterIP": "None", "selector": {"a": "b"}}), None, &[]).unwrap();
        assert!(claims(&headless).is_empty());
    }

    #[test]
    fn what_can_not_be_had_is_refused_in_the_references_words() {
        let port = json!([{"port": 80}]);
        let taken = [Claim::ClusterIp("10.96.0.50".parse().unwrap()), Claim::NodePort(30_001)];
        for (spec, text) in [
            (
                json!({"ports": port, "clusterIP": "10.96.0.50"}),
                r#"spec.clusterIPs: Invalid value: ["10.96.0.50"]: failed to allocate IP 10.96.0.50: provided IP is already allocated"#,
            ),
            (
                json!({"ports": port, "clusterIP": "10.97.0.50"}),
                r#"spec.clusterIPs: Invalid value: ["10.97.0.50"]: failed to allocate IP 10.97.0.50: the provided IP (10.97.0.50) is not in the valid range. The range of valid IPs is 10.96.0.0/16"#,
            ),
            (
                json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30_001}]}),
                "spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated",
            ),
            (
                json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}),
                "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-30003",
            ),
            (
                json!({"ports": port, "ipFamilies": ["IPv6"]}),
                r#"spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster"#,
            ),
            (
                json!({"ports": port, "ipFamilyPolicy": "RequireDualStack"}),
                r#"spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services"#,
            ),
        ] {
            assert_eq!(fill(ONE, spec, None, &taken).unwrap_err(), text);
        }
    }

    #[test]
    fn node_ports_are_given_kept_shared_and_run_out() {
        let spec = json!({"type": "NodePort", "ports": [
            {"name": "u", "port": 53, "protocol": "UDP"}, {"name": "t", "port": 53}, {"name": "w", "port": 80}]});
        let new = fill(ONE, spec.clone(), None, &[Claim::NodePort(30_000)]).unwrap();
        let numbers: Vec<u16> = ports(&new).iter().map(|p| port_number(p.get("nodePort")).unwrap()).collect();
        assert_eq!(numbers[0], numbers[1], "the same port over two protocols");
        assert_ne!(numbers[0], numbers[2]);
        // Asked again with what it holds: nothing changes, though it is taken (by itself).
        let held: Vec<Claim> = claims(&new).into_iter().collect();
        let again = fill(ONE, new.spec().unwrap().clone(), Some(&new), &held).unwrap();
        assert_eq!(again, new);
        let all: Vec<Claim> = (30_000..=30_003).map(Claim::NodePort).collect();
        assert!(fill(ONE, spec, None, &all).unwrap_err().contains("range is full"));
    }

    #[test]
    fn every_address_of_a_small_range_is_given_once_and_then_the_range_is_full() {
        let mut held: Vec<Claim> = Vec::new();
        // .1 is the service kubernetes', .15 broadcast.
        for _ in 0..13 {
            let new = fill(&["10.96.0.0/28"], json!({"ports": [{"port": 1}]}), None, &held).unwrap();
            let claim = claims(&new).into_iter().next().unwrap();
            assert!(!held.contains(&claim), "{claim} twice");
            held.push(claim);
        }
        let full = fill(&["10.96.0.0/28"], json!({"ports": [{"port": 1}]}), None, &held).unwrap_err();
        assert!(full.contains("range is full"), "{full}");
        held.pop();
        fill(&["10.96.0.0/28"], json!({"ports": [{"port": 1}]}), None, &held).unwrap();
    }

    #[test]
    fn claims_and_their_keys() {
        for claim in
            [Claim::ClusterIp("fd00::1".parse().unwrap()), Claim::ClusterIp([10, 0, 0, 1].into()), Claim::NodePort(3)]
        {
            assert_eq!(Claim::from_key(&claim.key()), Some(claim));
        }
        assert_eq!(Claim::from_key("reserve/pod-ip/10.0.0.1"), None);
    }
}
