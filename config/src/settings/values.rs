//! One text to one value, with the reason when it is none.

use super::{
    ClusterDns, ContainerRuntime, DnsListen, EvictionAmount, EvictionSignal, EvictionThreshold, HostKind, LogFormat,
    StorageEngineName, StorageRoots, ZoneBalancer,
};
use ipnet::IpNet;
use reddwarf_objects::{Quantity, names};
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};

/// Why a text is not a value, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) why: String,
    pub(super) help: String,
}

fn bad<T>(why: impl Into<String>, help: impl Into<String>) -> Result<T, Bad> {
    Err(Bad { why: why.into(), help: help.into() })
}

/// A kernel setting's name, or a prefix of names with a `*` behind (sysctl(8)).
pub(super) fn sysctl(text: &str) -> Result<String, Bad> {
    let plain = text.strip_suffix('*').unwrap_or(text);
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    if plain.is_empty() || !plain.chars().all(known) {
        return bad(
            "that is no kernel setting",
            "write a name such as `net.core.somaxconn`, or a prefix such as `net.core.*`",
        );
    }
    let own = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.", "net."];
    if !own.iter().any(|prefix| plain.starts_with(prefix)) {
        return bad(
            "it is one of the whole machine, not of a pod's own namespaces",
            "name settings of net, kernel.shm, kernel.msg, kernel.sem or fs.mqueue",
        );
    }
    Ok(text.to_owned())
}

pub(super) fn path(text: &str) -> Result<PathBuf, Bad> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return bad("a relative path would mean something else for every start", "write an absolute path");
    }
    if path.components().any(|c| c == Component::ParentDir) || text.contains('\0') {
        return bad("a path with `..` can't be compared with others", "write the path without it");
    }
    // Components leave out doubled and trailing slashes.
    Ok(path.components().collect())
}

/// A path, or `off`.
pub(super) fn path_or_off(text: &str) -> Result<Option<PathBuf>, Bad> {
    if text == "off" { Ok(None) } else { path(text).map(Some) }
}

/// sockaddr_un.sun_path holds 108 bytes on Linux and illumos, its end included.
const SOCKET_PATH: usize = 107;

pub(super) fn socket_path(text: &str) -> Result<PathBuf, Bad> {
    let path = path(text)?;
    if path.as_os_str().len() > SOCKET_PATH {
        return bad(format!("a socket's path can't be longer than {SOCKET_PATH} bytes"), "use a shorter `run`");
    }
    Ok(path)
}

pub(super) fn cidr(text: &str) -> Result<IpNet, Bad> {
    let example = "write a network like 10.88.0.0/16";
    let net: IpNet = match text.parse() {
        Ok(net) => net,
        Err(_) if text.parse::<IpAddr>().is_ok() => return bad("the prefix length is missing", example),
        Err(_) => return bad("it is not an address and a prefix length", example),
    };
    if net.addr() != net.network() {
        return bad("it has bits set behind the prefix", format!("write `{}`", net.trunc()));
    }
    let (smallest, unusable) = match net {
        IpNet::V4(n) => (30, n.network().is_loopback() || n.network().is_multicast() || n.network().is_link_local()),
        IpNet::V6(n) => (126, n.network().is_loopback() || n.network().is_multicast()),
    };
    if net.prefix_len() > smallest || net.prefix_len() < 8 {
        return bad(format!("the prefix must be between /8 and /{smallest}"), example);
    }
    if unusable {
        return bad("loopback, link-local and multicast addresses can't be given to pods", example);
    }
    Ok(net)
}

/// One network, or one of each family with a comma between.
pub(super) fn cidr_pair(text: &str) -> Result<Vec<IpNet>, Bad> {
    let nets = text.split(',').map(|one| cidr(one.trim())).collect::<Result<Vec<_>, _>>()?;
    match nets.as_slice() {
        [_] => Ok(nets),
        [a, b] if a.addr().is_ipv4() != b.addr().is_ipv4() => Ok(nets),
        _ => bad("two networks must be an IPv4 and an IPv6 one", "write networks like 10.96.0.0/16,fd96::/108"),
    }
}

/// Networks or single addresses with commas between, or `off`.
pub(super) fn cidrs_or_off(text: &str) -> Result<Vec<IpNet>, Bad> {
    if text == "off" {
        return Ok(Vec::new());
    }
    let example = "write networks like 192.0.2.16/28,2001:db8::/64, or off";
    let one = |text: &str| {
        let net: Option<IpNet> = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        match net {
            None => bad(format!("`{text}` is not an address and a prefix length"), example),
            Some(net) if net.addr() != net.network() => {
                bad("it has bits set behind the prefix", format!("write `{}`", net.trunc()))
            }
            Some(net) if net.network().is_loopback() || net.network().is_multicast() || net.prefix_len() < 8 => {
                bad("loopback, multicast and very large networks can't be given to services", example)
            }
            Some(net) => Ok(net),
        }
    };
    text.split(',').map(|text| one(text.trim())).collect()
}

/// `FIRST-LAST`.
pub(super) fn port_range(text: &str) -> Result<std::ops::RangeInclusive<u16>, Bad> {
    let ports = text.split_once('-').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    match ports {
        Some((first, last)) if first > 0 && first <= last => Ok(first..=last),
        _ => bad("it is not a range of ports", "write the first and the last port like 30000-32767"),
    }
}

pub(super) fn listen(text: &str) -> Result<Option<SocketAddr>, Bad> {
    if text == "off" {
        return Ok(None);
    }
    let example = "write an address and a port like 127.0.0.1:6443, or off";
    let address: SocketAddr = match text.parse() {
        Ok(address) => address,
        Err(_) if text.parse::<IpAddr>().is_ok() => return bad("the port is missing", example),
        Err(_) => return bad("it is not an address and a port from 0 to 65535", example),
    };
    Ok(Some(address))
}

pub(super) fn name_server(text: &str) -> Result<ClusterDns, Bad> {
    match text {
        "off" => return Ok(ClusterDns::Off),
        "auto" => return Ok(ClusterDns::Auto),
        _ => {}
    }
    let address = text.parse::<SocketAddr>().or_else(|_| text.parse::<IpAddr>().map(|ip| (ip, 53).into()));
    match address {
        Ok(address) if address.port() != 0 => Ok(ClusterDns::At(address)),
        _ => bad("it is not an address with or without a port", "write an address like 10.88.0.1, auto or off"),
    }
}

/// `None`: nowhere.
pub(super) fn dns_listen(text: &str) -> Result<Option<DnsListen>, Bad> {
    if text == "bridge" {
        return Ok(Some(DnsListen::Bridge));
    }
    match listen(text) {
        Ok(address) => Ok(address.map(DnsListen::At)),
        Err(Bad { why, .. }) => bad(why, "write an address and a port like 0.0.0.0:10053, bridge or off"),
    }
}

/// IFNAMSIZ of Linux, 16 with the end; illumos allows longer names.
const LINK_NAME: usize = 15;

pub(super) fn link_name(text: &str) -> Result<String, Bad> {
    let fits = !text.is_empty() && text.len() <= LINK_NAME;
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if fits && plain && text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Ok(text.to_owned());
    }
    bad(
        format!("a link's name has 1 to {LINK_NAME} of a-z, A-Z, 0-9, `_`, `-` and `.`, the first a letter or digit"),
        "write a name like reddwarf0",
    )
}

/// A datalink of illumos (dladm(8)), or `off`: it ends in a number that does not begin with 0.
pub(super) fn datalink_or_off(text: &str) -> Result<Option<String>, Bad> {
    if text == "off" {
        return Ok(None);
    }
    let number = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    let number = number.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    let ends = number == "0" || (!number.is_empty() && !number.starts_with('0'));
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
    if ends && plain && text.len() <= 31 && text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Ok(Some(text.to_owned()));
    }
    bad(
        "a link's name has 1 to 31 of a-z, A-Z, 0-9, `_` and `.`, the first a letter, and ends in a number without a 0 before it",
        "write a name that `dladm show-link` lists, like ixgbe0 or aggr1, or off",
    )
}

/// `docker.io=https://mirror.example:5000`, several with commas between them.
pub(super) fn mirrors(text: &str) -> Result<Vec<(String, String)>, Bad> {
    let example = "write registry=URL, like docker.io=https://mirror.example:5000, several with commas between them";
    let one = |part: &str| {
        let Some((registry, url)) = part.trim().split_once('=') else {
            return bad("it does not say of which registry it is a mirror", example);
        };
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme @ ("https" | "http"), rest)) => (scheme, rest.trim_end_matches('/')),
            _ => return bad("a mirror is a URL that begins with https:// or http://", example),
        };
        Ok((registry_host(registry)?, format!("{scheme}://{}", registry_host(rest)?)))
    };
    text.split(',').filter(|part| !part.trim().is_empty() && text != "off").map(one).collect()
}

/// `registry.lan:5000`, several with commas between them.
pub(super) fn registries(text: &str) -> Result<Vec<String>, Bad> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty() && text != "off").map(registry_host).collect()
}

fn registry_host(text: &str) -> Result<String, Bad> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'[' | b']' | b':');
    if host.is_empty() || !host.bytes().all(plain) || port.is_some_and(|p| p.parse::<u16>().is_err()) {
        return bad("it is no host with or without a port", "write a registry like registry.lan:5000");
    }
    Ok(text.to_owned())
}

pub(super) fn dns_name(text: &str) -> Result<String, Bad> {
    match names::dns1123_subdomain(text).into_iter().next() {
        None => Ok(text.to_owned()),
        Some(rule) => bad(rule, "use lower-case letters, digits, `-` and `.`"),
    }
}

pub(super) fn group(text: &str) -> Result<String, Bad> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if plain && !text.is_empty() && text.len() <= 32 && !text.starts_with('-') {
        return Ok(text.to_owned());
    }
    bad("it is not a group's name", "write the name of a group, like reddwarf")
}

pub(super) fn number(text: &str, least: u64, most: u64) -> Result<u64, Bad> {
    match text.parse::<u64>() {
        Ok(n) if (least..=most).contains(&n) => Ok(n),
        Ok(_) => bad(format!("it must be between {least} and {most}"), "change the number"),
        Err(_) => bad("it is not a whole number", format!("write a number from {least} to {most}")),
    }
}

pub(super) fn quantity(text: &str) -> Result<Quantity, Bad> {
    match text.parse::<Quantity>() {
        Ok(quantity) if quantity.is_negative() => bad("it can't be negative", "write 0 or more"),
        Ok(quantity) => Ok(quantity),
        Err(_) => bad("it is not a Kubernetes quantity", "write a number with or without a suffix, like 500m or 1Gi"),
    }
}

/// A threshold as the kubelet takes it: `memory.available<100Mi`, `nodefs.available<10%`; and the lesser of a share and an
/// amount: `nodefs.available<10%&5Gi`.
pub(super) fn eviction(text: &str) -> Result<EvictionThreshold, Bad> {
    let example =
        "write a signal and an amount, like memory.available<100Mi, nodefs.available<10%&5Gi or pid.available<off";
    let Some((signal, amount)) = text.split_once('<') else { return bad("there is no `<` in it", example) };
    use EvictionSignal::{Inodes, Memory, Pids, Storage};
    let signal = one_of(signal.trim(), &[Memory, Storage, Inodes, Pids], EvictionSignal::as_str)?;
    let amount = amount.trim();
    let absolute = |text: &str| Ok(u64::try_from(quantity(text.trim())?.units()).unwrap_or_default());
    let amount = match (amount, amount.split_once('%')) {
        ("off", _) => EvictionAmount::Off,
        (_, Some((percent, most))) => {
            let most = match (most.trim(), most.trim().strip_prefix('&')) {
                ("", _) => None,
                (_, Some(most)) => Some(absolute(most)?),
                _ => return bad("after the share there may be `&` and an amount, nothing else", example),
            };
            match percent.parse::<f64>() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => EvictionAmount::Percent(percent, most),
                _ => return bad("a share must be between 0% and 100%", example),
            }
        }
        (amount, None) => EvictionAmount::Absolute(absolute(amount)?),
    };
    Ok(EvictionThreshold { signal, amount })
}

pub(super) fn boolean(text: &str) -> Result<bool, Bad> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => bad("it is neither true nor false", "write true or false"),
    }
}

fn one_of<T: Copy>(text: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, Bad> {
    if let Some(value) = all.iter().find(|v| name(**v) == text) {
        return Ok(*value);
    }
    let known: Vec<&str> = all.iter().map(|v| name(*v)).collect();
    let near = names::did_you_mean(text, known.iter().copied());
    let help = near.map(|n| format!("did you mean `{n}`?")).unwrap_or_else(|| "use one of them".to_owned());
    bad(format!("it must be one of {}", known.join(", ")), help)
}

pub(super) fn host(text: &str) -> Result<HostKind, Bad> {
    one_of(text, &[HostKind::Linux, HostKind::Illumos, HostKind::Sim], HostKind::as_str)
}

pub(super) fn container_runtime(text: &str) -> Result<ContainerRuntime, Bad> {
    use ContainerRuntime::{Crun, Libcontainer, Runc};
    one_of(text, &[Libcontainer, Crun, Runc], ContainerRuntime::as_str)
}

pub(super) fn storage_engine(text: &str) -> Result<StorageEngineName, Bad> {
    use StorageEngineName::{Auto, Btrfs, Directory, Zfs};
    one_of(text, &[Auto, Zfs, Btrfs, Directory], StorageEngineName::as_str)
}

pub(super) fn storage_roots(text: &str) -> Result<StorageRoots, Bad> {
    one_of(text, &[StorageRoots::Auto, StorageRoots::Overlay], StorageRoots::as_str)
}

pub(super) fn zone_balancer(text: &str) -> Result<ZoneBalancer, Bad> {
    one_of(text, &[ZoneBalancer::Ipnat, ZoneBalancer::Ilb], ZoneBalancer::as_str)
}

/// An absolute path, or the name of a ZFS dataset.
pub(super) fn storage_place(text: &str) -> Result<Option<String>, Bad> {
    if text.starts_with('/') {
        return Ok(Some(path(text)?.display().to_string()));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    let component = |c: &str| c.starts_with(|c: char| c.is_ascii_alphanumeric()) && c.bytes().all(plain);
    if text.len() <= 200 && text.split('/').all(component) {
        return Ok(Some(text.to_owned()));
    }
    bad("it is neither an absolute path nor a ZFS dataset's name", "write `/srv/reddwarf` or `rpool/reddwarf`")
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, Bad> {
    one_of(text, &[LogFormat::Text, LogFormat::Json], LogFormat::as_str)
}

pub(super) fn log_level(text: &str) -> Result<String, Bad> {
    let level = |l: &str| matches!(l, "off" | "error" | "warn" | "info" | "debug" | "trace");
    let part = |p: &str| match p.split_once('=') {
        Some((target, l)) => !target.is_empty() && level(l),
        None => level(p),
    };
    if text.split(',').all(part) {
        return Ok(text.to_owned());
    }
    bad("levels are off, error, warn, info, debug and trace", "write a level, or pairs like reddwarf_node=debug,info")
}
