//! ilbadm(8) and ilbd: rules, server groups, health checks, by what their sources and the kernel's refuse.

use crate::call::{Answer, Call};
use crate::dladm::row;
use crate::state::{Balancer, BalancerRule, BalancerServer, ServerGroup, State};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

pub(crate) const SERVICE: &str = "svc:/network/loadbalancer/ilb:default";
/// Servers in a group.
const SERVERS: u32 = 1000;
/// Names in one answer: a message holds 102,400 bytes.
const NAMES: usize = 5119;
const INVALID: &str = "invalid argument(s) - see man page";

/// What a command prints to standard error, and its failure.
type Outcome = Result<Answer, String>;

/// One call of ilbadm.
pub(crate) fn run(call: &Call<'_>, state: &mut State) -> Answer {
    let online = state.services.get(SERVICE).is_some_and(|s| s.state == "online");
    let words = call.words();
    let Some((verb, rest)) = words.split_first() else {
        return Answer { code: 1, ..Answer::usage("ilbadm: the command line is incomplete (more arguments expected)") };
    };
    let balancer = &mut state.balancer;
    // What the command line alone is wrong in is told before ilbd is asked.
    let outcome = match *verb {
        "create-rule" => rule_of(rest).and_then(|(name, rule)| {
            reached(online)?;
            create_rule(balancer, name, rule)
        }),
        "create-servergroup" => servers_and_name(rest, false).and_then(|(servers, name)| {
            if name.len() > 14 {
                return Err(format!("servergroup name {name} is too long - must not exceed 14 chars"));
            }
            reached(online)?;
            create_group(balancer, &servers, name)
        }),
        "add-server" => servers_and_name(rest, true).and_then(|(servers, name)| {
            reached(online)?;
            add_servers(balancer, &servers, name)
        }),
        "remove-server" => ids_and_name(rest).and_then(|(ids, name)| {
            reached(online)?;
            remove_servers(balancer, &ids, name)
        }),
        _ => reached(online).and_then(|()| other(balancer, verb, rest)),
    };
    outcome.unwrap_or_else(|message| Answer::fail(format!("ilbadm: {message}")))
}

fn reached(online: bool) -> Result<(), String> {
    if online { Ok(()) } else { Err("socket() failed".to_owned()) }
}

fn other(balancer: &mut Balancer, verb: &str, words: &[&str]) -> Outcome {
    match (verb, words) {
        ("delete-rule", [_, ..]) => {
            for name in words {
                balancer.rules.remove(*name).ok_or("specified rule does not exist")?;
                balancer.held.retain(|(rule, _)| rule != name);
            }
            Ok(Answer::ok())
        }
        ("enable-rule" | "disable-rule", [_, ..]) => {
            for name in words {
                let rule = balancer.rules.get_mut(*name).ok_or("specified rule does not exist")?;
                rule.enabled = verb == "enable-rule";
            }
            Ok(Answer::ok())
        }
        ("delete-servergroup", [name]) => {
            if !balancer.groups.contains_key(*name) {
                return Err("cannot find specified server group".into());
            }
            if balancer.rules.values().any(|r| r.group == **name) {
                return Err("cannot remove server group - its in use with other active rules".into());
            }
            balancer.groups.remove(*name);
            Ok(Answer::ok())
        }
        ("enable-server" | "disable-server", [_, ..]) => toggle(balancer, verb == "enable-server", words),
        ("create-healthcheck", ["-h", options, name]) => {
            let options = pairs(options, &["hc-test", "hc-timeout", "hc-count", "hc-interval"])?;
            let options: BTreeMap<String, String> = options.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
            if !options.contains_key("hc-test") {
                return Err("hc-test: missing value".into());
            }
            match balancer.checks.insert((*name).to_owned(), options) {
                None => Ok(Answer::ok()),
                Some(_) => Err("object already exists".into()),
            }
        }
        ("delete-healthcheck", [name]) if balancer.rules.values().any(|r| r.check == **name) => {
            Err("object is in use, cannot destroy".into())
        }
        ("delete-healthcheck", [name]) => {
            balancer.checks.remove(*name).ok_or("missing healthcheck info")?;
            Ok(Answer::ok())
        }
        ("show-rule" | "show-servergroup" | "show-server", ["-p", "-o", fields]) => show(balancer, verb, fields),
        ("show-rule" | "show-servergroup" | "show-server", ["-p", ..]) => Err("option -p requires -o".into()),
        _ => Err(format!("hostsim: {verb} {words:?} is not played")),
    }
}

/// `key=value,key=value`, keys of this list only.
fn pairs<'t>(text: &'t str, keys: &[&'t str]) -> Result<Vec<(&'t str, &'t str)>, String> {
    let pair = |part: &'t str| {
        let (key, value) = part.split_once('=').ok_or_else(|| format!("{part}: assignment '=' missing"))?;
        if !keys.contains(&key) {
            return Err(format!("bad keyword {key}"));
        }
        if value.is_empty() { Err(format!("{key}: missing value")) } else { Ok((key, value)) }
    };
    text.split(',').map(pair).collect()
}

/// `-s server=A,B`: the keyword is said once, what follows are values.
fn values(text: &str) -> Result<Vec<&str>, String> {
    let rest = text.strip_prefix("server=").ok_or_else(|| match text.split_once('=') {
        Some((key, _)) => format!("bad keyword {key}"),
        None => format!("{text}: assignment '=' missing"),
    })?;
    let all: Vec<&str> = rest.split(',').collect();
    if all.contains(&"") { Err("server: missing value".into()) } else { Ok(all) }
}

fn servers_and_name<'t>(words: &[&'t str], needed: bool) -> Result<(Vec<BalancerServer>, &'t str), String> {
    match words {
        ["-s", servers, name] => {
            let servers = values(servers)?.into_iter().map(server).collect::<Result<_, _>>()?;
            Ok((servers, name))
        }
        [name] if !needed && !name.starts_with('-') => Ok((Vec::new(), name)),
        [option, ..] if option.starts_with('-') && *option != "-s" => Err(format!("bad or misplaced option {option}")),
        _ => Err("missing mandatory arguments - please refer to the subcommand description in ilbadm(8)".into()),
    }
}

/// `ADDRESS[:PORT[-PORT]]`; IPv6 stands in brackets. Names of hosts are not played.
fn server(text: &str) -> Result<BalancerServer, String> {
    let of = |address, ports| Ok(BalancerServer { address, ports, enabled: true });
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return match socket.port() {
            0 => Err("invalid port value 0 specified".to_owned()),
            port => of(socket.ip(), Some((port, port))),
        };
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    match bare.unwrap_or(text).parse::<IpAddr>() {
        Ok(ip) if ip.is_ipv6() != bare.is_some() => Err("server: syntax failure - refer to ilbadm(8)".to_owned()),
        Ok(ip) => of(ip, None),
        Err(_) => Err(format!("{text}: address is invalid")),
    }
}

fn ids_and_name<'t>(words: &[&'t str]) -> Result<(Vec<&'t str>, &'t str), String> {
    let ["-s", ids, name] = words else { return Err("mandatory argument(s) missing - refer to ilbadm(8)".into()) };
    let ids = values(ids)?;
    if ids.iter().any(|id| !id.starts_with('_')) {
        return Err("server: server ID is invalid".into());
    }
    Ok((ids, name))
}

fn create_group(balancer: &mut Balancer, servers: &[BalancerServer], name: &str) -> Outcome {
    if balancer.groups.contains_key(name) {
        return Err("servergroup already exists".into());
    }
    balancer.groups.insert(name.to_owned(), ServerGroup::default());
    for server in servers {
        if let Err(why) = add(balancer, name, server) {
            balancer.groups.remove(name);
            return Err(format!("cannot add {} to {name}: {why}", server.address));
        }
    }
    Ok(Answer::ok())
}

/// One after the other; one that is refused keeps no other.
fn add_servers(balancer: &mut Balancer, servers: &[BalancerServer], name: &str) -> Outcome {
    let mut answer = Answer::ok();
    for server in servers {
        if let Err(why) = add(balancer, name, server) {
            answer.err += &format!("ilbadm: cannot add {} to {name}: {why}\n", server.address);
            answer.code = 1;
        }
    }
    Ok(answer)
}

fn add(balancer: &mut Balancer, name: &str, server: &BalancerServer) -> Result<(), &'static str> {
    let group = balancer.groups.get_mut(name).ok_or("no such/no more element(s)")?;
    let rules: Vec<(&String, &BalancerRule)> = balancer.rules.iter().filter(|(_, r)| r.group == name).collect();
    let family = group.servers.values().next().map(|s| s.address).or_else(|| rules.first().map(|(_, r)| r.vip));
    if family.is_some_and(|of| of.is_ipv4() != server.address.is_ipv4()) {
        return Err("address family mismatch with previous hosts in servergroup or with rule");
    }
    // Names that were given and taken away are given again, the last one first.
    let numbers = (0..SERVERS).map(|n| (group.last + n) % SERVERS);
    let free = numbers.map(|n| (n, format!("_{name}.{n}"))).find(|(_, id)| !group.servers.contains_key(id));
    let (number, id) = free.ok_or("servergroup is full - cannot add any more servers to this servergroup")?;
    if group.servers.values().any(|s| s.address == server.address) {
        return Err("object already exists");
    }
    group.last = number;
    if rules.iter().any(|(rule, _)| balancer.held.contains(&((*rule).clone(), id.clone()))) {
        return Err(INVALID);
    }
    group.servers.insert(id, server.clone());
    Ok(())
}

fn remove_servers(balancer: &mut Balancer, ids: &[&str], name: &str) -> Outcome {
    let mut answer = Answer::ok();
    for id in ids {
        let why = match balancer.groups.get_mut(name) {
            None => Some("cannot find specified server group"),
            Some(group) => group.servers.remove(*id).is_none().then_some("cannot find specified server"),
        };
        if let Some(why) = why {
            answer.err += &format!("ilbadm: cannot remove {id} from {name}: {why}\n");
            answer.code = 1;
        } else if balancer.connected.contains(*id) {
            let rules = balancer.rules.iter().filter(|(_, r)| r.group == name);
            balancer.held.extend(rules.map(|(rule, _)| (rule.clone(), (*id).to_owned())));
        }
    }
    Ok(answer)
}

fn toggle(balancer: &mut Balancer, on: bool, ids: &[&str]) -> Outcome {
    let mut answer = Answer::ok();
    for id in ids {
        if !id.starts_with('_') {
            return Err("server ID is invalid".into());
        }
        let found = balancer.groups.iter_mut().find_map(|(name, g)| g.servers.get_mut(*id).map(|s| (name, s)));
        match found {
            None => {
                answer.err += &format!("ilbadm: no such/no more element(s): {id}\n");
                answer.code = 1;
            }
            Some((group, _)) if !balancer.rules.values().any(|r| r.group == *group) => {
                return Err("server cannot be enabled because it's not associated with any rule".into());
            }
            Some((_, server)) => server.enabled = on,
        }
    }
    Ok(answer)
}

/// What the words of `create-rule` say, as far as ilbadm itself looks at them.
fn rule_of<'t>(words: &[&'t str]) -> Result<(&'t str, BalancerRule), String> {
    let mut rule = BalancerRule {
        enabled: false,
        vip: IpAddr::from([0, 0, 0, 0]),
        ports: None,
        protocol: "tcp".into(),
        algorithm: String::new(),
        kind: String::new(),
        proxy_source: String::new(),
        mask: None,
        check: String::new(),
        check_port: String::new(),
        conn_drain: None,
        nat_timeout: None,
        persist_timeout: None,
        group: String::new(),
    };
    let mut vip = None;
    let mut sticky = false;
    let mut words = words.iter();
    let name = loop {
        let word = *words.next().ok_or(
            "missing mandatory arguments - please refer to 'ilbadm create-rule' subcommand description in ilbadm(1M)",
        )?;
        let mut options = |keys: &[&'t str]| {
            let text = words.next().ok_or_else(|| format!("missing option-argument for {}", &word[1..]))?;
            pairs(text, keys)
        };
        match word {
            "-e" => rule.enabled = true,
            "-p" => sticky = true,
            "-i" => incoming(&mut rule, &mut vip, &options(&["vip", "port", "protocol"])?)?,
            "-m" => method(&mut rule, vip, &options(&["lbalg", "type", "proxy-src", "pmask"])?)?,
            "-t" => times(&mut rule, &options(&["conn-drain", "nat-timeout", "persist-timeout"])?)?,
            "-h" => {
                for (key, value) in options(&["hc-name", "hc-port"])? {
                    if key == "hc-name" { rule.check = value.into() } else { rule.check_port = value.into() }
                }
            }
            "-o" => options(&["servergroup"])?.iter().for_each(|(_, value)| rule.group = (*value).to_owned()),
            option if option.starts_with('-') => return Err(format!("bad or misplaced option {option}")),
            name => break name,
        }
    };
    if words.next().is_some() {
        return Err("hostsim: words after the rule's name are not played".into());
    }
    // The mask that goes with -p alone is kept, and nothing looks at it: no client stays.
    if rule.mask.is_some() && !sticky {
        return Err("use of stickymask requires -p option".into());
    }
    if name.len() > 19 {
        return Err(format!("rule name {name} is too long - must not exceed 19 chars"));
    }
    rule.vip = vip.ok_or("address family is invalid")?;
    if rule.group.is_empty() {
        return Err("servergroup name missing".into());
    }
    if rule.algorithm.is_empty() || rule.kind.is_empty() {
        return Err("lbalg or type is unspecified".into());
    }
    let source = rule.proxy_source.split('-').next().and_then(|a| a.parse::<IpAddr>().ok());
    if rule.kind == "NAT" && source.is_none_or(|a| a.is_ipv4() != rule.vip.is_ipv4()) {
        return Err("proxy-src is either missing or its address family does not match that of the VIP address".into());
    }
    Ok((name, rule))
}

fn incoming(rule: &mut BalancerRule, vip: &mut Option<IpAddr>, options: &[(&str, &str)]) -> Result<(), String> {
    for (key, value) in options {
        match *key {
            "vip" => {
                let bare = value.strip_prefix('[').and_then(|v| v.strip_suffix(']')).unwrap_or(value);
                *vip = Some(bare.parse().map_err(|_| "vip: address is invalid")?);
            }
            "port" => {
                let (first, last) = value.split_once('-').unwrap_or((value, value));
                let port = |text: &str| text.parse::<u16>().ok().filter(|p| *p > 0);
                let (Some(first), Some(last)) = (port(first), port(last)) else {
                    return Err(format!("invalid port value {value} specified"));
                };
                rule.ports = Some((first, last));
            }
            _ if matches!(*value, "tcp" | "udp" | "TCP" | "UDP") => rule.protocol = value.to_ascii_lowercase(),
            _ => return Err("protocol: protocol does not exist in protocol database".into()),
        }
    }
    Ok(())
}

fn method(rule: &mut BalancerRule, vip: Option<IpAddr>, options: &[(&str, &str)]) -> Result<(), String> {
    for (key, value) in options {
        match *key {
            "lbalg" => {
                rule.algorithm = match *value {
                    "rr" | "roundrobin" => "roundrobin",
                    "hip" | "hash-ip" => "hash-ip",
                    "hipp" | "hash-ip-port" => "hash-ip-port",
                    "hipv" | "hash-ip-vip" => "hash-ip-vip",
                    _ => return Err("lbalg: LB algorithm is invalid".into()),
                }
                .into();
            }
            "type" => {
                rule.kind = match *value {
                    "DSR" | "d" => "DSR",
                    "NAT" | "n" => "NAT",
                    "HALF-NAT" | "h" => "HALF-NAT",
                    _ => return Err("type: operation type is invalid".into()),
                }
                .into();
            }
            // Only behind the type.
            "proxy-src" if rule.kind != "NAT" => return Err("proxy-src: proxy-src not allowed".into()),
            "proxy-src" => {
                rule.proxy_source = if value.contains('-') { (*value).into() } else { format!("{value}-{value}") }
            }
            _ => {
                let most = match vip {
                    None => return Err("option 'pmask' requires that VIP be specified first".into()),
                    Some(vip) => {
                        if vip.is_ipv4() {
                            32
                        } else {
                            128
                        }
                    }
                };
                let bits =
                    value.strip_prefix('/').unwrap_or(value).parse::<u8>().map_err(|_| "invalid pmask provided")?;
                if bits == 0 || bits > most {
                    return Err("invalid pmask provided (AF mismatch?)".into());
                }
                rule.mask = Some(bits);
            }
        }
    }
    Ok(())
}

/// Of the three only `nat-timeout` may be 0, which stands for the kernel's own.
fn times(rule: &mut BalancerRule, options: &[(&str, &str)]) -> Result<(), String> {
    for (key, value) in options {
        let seconds = value.parse::<u32>().ok().filter(|n| *n > 0 || *key == "nat-timeout");
        let seconds = Some(seconds.ok_or_else(|| format!("{key}: invalid value  - refer to ilbadm(8)"))?);
        match *key {
            "conn-drain" => rule.conn_drain = seconds,
            "nat-timeout" => rule.nat_timeout = seconds.filter(|n| *n > 0),
            _ => rule.persist_timeout = seconds,
        }
    }
    Ok(())
}

/// What ilbd and the kernel say.
fn create_rule(balancer: &mut Balancer, name: &str, rule: BalancerRule) -> Outcome {
    if balancer.rules.contains_key(name) {
        return Err("specified rule name already exists".into());
    }
    let group = balancer.groups.get(&rule.group).ok_or("cannot find specified server group")?;
    let first = group.servers.values().next().ok_or("servergroup does not contain any servers")?;
    if first.address.is_ipv4() != rule.vip.is_ipv4() {
        return Err("address family mismatch with servergroup".into());
    }
    if !rule.check.is_empty() && !balancer.checks.contains_key(&rule.check) {
        return Err("missing healthcheck info".into());
    }
    let funny = match rule.vip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_multicast() || v4.is_broadcast() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_multicast() || v6.is_unspecified() || v6.to_ipv4_mapped().is_some(),
    };
    if funny {
        return Err(INVALID.into());
    }
    let all = |ports: Option<(u16, u16)>| ports.unwrap_or((1, u16::MAX));
    let meets = |of: &BalancerRule| {
        let (ours, theirs) = (all(rule.ports), all(of.ports));
        (of.vip, &of.protocol) == (rule.vip, &rule.protocol) && ours.0 <= theirs.1 && theirs.0 <= ours.1
    };
    if balancer.rules.values().any(meets) {
        return Err("object already exists".into());
    }
    balancer.rules.insert(name.to_owned(), rule);
    Ok(Answer::ok())
}

fn show(balancer: &Balancer, verb: &str, fields: &str) -> Outcome {
    let fields: Vec<String> = fields.split(',').map(str::to_ascii_lowercase).collect();
    let mut answer = Answer::ok();
    let mut line = |value: &dyn Fn(&str) -> Option<String>| {
        let values =
            fields.iter().map(|f| value(f).ok_or_else(|| format!("ofmt_open failed: unknown output field: `{f}'")));
        answer.out += &row(&values.collect::<Result<Vec<_>, _>>()?);
        Ok::<(), String>(())
    };
    match verb {
        "show-rule" => {
            for (name, rule) in balancer.rules.iter().take(NAMES) {
                line(&|field| rule_field(name, rule, field))?;
            }
        }
        "show-servergroup" => {
            for (name, group) in balancer.groups.iter().take(NAMES) {
                // By address, and a group without servers as a line without one.
                let mut servers: Vec<_> = group.servers.iter().map(Some).collect();
                servers.sort_by_key(|s| s.map(|(_, s)| s.address));
                if servers.is_empty() {
                    servers.push(None);
                }
                for of in servers {
                    line(&|field| group_field(name, of, field))?;
                }
            }
        }
        _ => {
            for (name, rule) in balancer.rules.iter().take(NAMES) {
                for (id, server) in balancer.groups.get(&rule.group).into_iter().flat_map(|g| &g.servers) {
                    line(&|field| match field {
                        "serverid" => Some(id.clone()),
                        "address" => Some(server.address.to_string()),
                        "port" => Some(ports(server.ports)),
                        "rulename" => Some(name.clone()),
                        "status" => Some(status(server.enabled)),
                        "servergroup" => Some(rule.group.clone()),
                        _ => None,
                    })?;
                }
            }
        }
    }
    Ok(answer)
}

fn status(enabled: bool) -> String {
    if enabled { "E" } else { "D" }.to_owned()
}

fn ports(ports: Option<(u16, u16)>) -> String {
    match ports {
        None => "?".to_owned(),
        Some((first, last)) if last > first => format!("{first}-{last}"),
        Some((first, _)) => first.to_string(),
    }
}

/// Times that were not given are the kernel's own, that of clients only where they stay.
fn rule_field(name: &str, rule: &BalancerRule, field: &str) -> Option<String> {
    let own = if rule.protocol == "tcp" { 120 } else { 60 };
    Some(match field {
        "rulename" => name.to_owned(),
        "status" => status(rule.enabled),
        "vip" => rule.vip.to_string(),
        "port" => ports(rule.ports),
        "protocol" => rule.protocol.to_ascii_uppercase(),
        "lbalg" => rule.algorithm.clone(),
        "type" => rule.kind.clone(),
        "proxy-src" => rule.proxy_source.clone(),
        "pmask" => rule.mask.map_or_else(String::new, |bits| format!("/{bits}")),
        "hc-name" => rule.check.clone(),
        "hc-port" if rule.check.is_empty() => String::new(),
        "hc-port" if rule.check_port.is_empty() => "ANY".to_owned(),
        "hc-port" => rule.check_port.clone(),
        "conn-drain" => rule.conn_drain.unwrap_or(0).to_string(),
        "nat-timeout" => rule.nat_timeout.unwrap_or(if rule.kind == "DSR" { 0 } else { own }).to_string(),
        "persist-timeout" => rule.persist_timeout.unwrap_or(if rule.mask.is_some() { 60 } else { 0 }).to_string(),
        "servergroup" => rule.group.clone(),
        _ => return None,
    })
}

fn group_field(name: &str, of: Option<(&String, &BalancerServer)>, field: &str) -> Option<String> {
    let port =
        |which: fn((u16, u16)) -> u16| of.and_then(|(_, s)| s.ports).map_or_else(String::new, |p| which(p).to_string());
    Some(match field {
        "sgname" => name.to_owned(),
        "serverid" => of.map_or_else(String::new, |(id, _)| id.clone()),
        "minport" => port(|p| p.0),
        "maxport" => port(|p| p.1),
        "ip_address" => of.map_or_else(String::new, |(_, s)| s.address.to_string()),
        _ => return None,
    })
}
