//! ilbadm(8): health checks, server groups, rules.

use crate::call::{Answer, Call};
use crate::state::State;
use std::collections::BTreeMap;

fn error(message: &str) -> Answer {
    Answer::fail(format!("ilbadm: {message}"))
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    text.split(',').filter_map(|p| p.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

/// One call of ilbadm.
pub(crate) fn run(call: &Call<'_>, state: &mut State) -> Answer {
    let online = state.services.get("svc:/network/loadbalancer/ilb:default").is_some_and(|s| s.state == "online");
    if !online {
        return error("the ilbd service is not running");
    }
    let words = call.words();
    match words.as_slice() {
        ["create-healthcheck", "-h", options, name] => {
            if !pairs(options).contains_key("hc-test") {
                return error("hc-test is required");
            }
            match state.balancer.checks.insert((*name).to_owned(), pairs(options)) {
                None => Answer::ok(),
                Some(_) => error("healthcheck already exists"),
            }
        }
        ["delete-healthcheck", name] => gone(state.balancer.checks.remove(*name), "healthcheck does not exist"),
        ["create-servergroup", rest @ ..] => create_group(state, rest),
        ["delete-servergroup", name] => {
            let used = state.balancer.rules.values().any(|r| r.get("servergroup").is_some_and(|g| g == name));
            if used {
                error("servergroup is in use")
            } else {
                gone(state.balancer.groups.remove(*name), "servergroup does not exist")
            }
        }
        ["add-server", "-s", servers, name] => {
            let number = state.number();
            let Some(group) = state.balancer.groups.get_mut(*name) else { return error("servergroup does not exist") };
            add(group, name, servers, number);
            Answer::ok()
        }
        ["remove-server", "-s", server, name] => {
            let Some(group) = state.balancer.groups.get_mut(*name) else { return error("servergroup does not exist") };
            gone(group.remove(server.strip_prefix("server=").unwrap_or(server)), "server does not exist")
        }
        ["create-rule", rest @ ..] => create_rule(state, rest),
        ["delete-rule", name] => gone(state.balancer.rules.remove(*name), "rule does not exist"),
        ["show-rule", "-p", "-o", ..] => {
            Answer::out(state.balancer.rules.keys().map(|n| format!("{n}\n")).collect::<String>())
        }
        ["show-servergroup", "-p", ..] => {
            let rows = state
                .balancer
                .groups
                .iter()
                .flat_map(|(g, all)| all.iter().map(move |(id, s)| format!("{g}:{id}:{s}\n")));
            Answer::out(rows.collect::<String>())
        }
        _ => Answer { code: 1, ..Answer::usage("ilbadm: illegal command") },
    }
}

fn gone<T>(removed: Option<T>, missing: &str) -> Answer {
    if removed.is_some() { Answer::ok() } else { error(missing) }
}

fn add(group: &mut BTreeMap<String, String>, name: &str, servers: &str, number: u64) {
    for (at, server) in servers.split(',').filter_map(|s| s.strip_prefix("server=")).enumerate() {
        group.insert(format!("_{name}.{number}{at}"), server.to_owned());
    }
}

fn create_group(state: &mut State, words: &[&str]) -> Answer {
    let (servers, name) = match words {
        ["-s", servers, name] => (*servers, *name),
        [name] => ("", *name),
        _ => return Answer { code: 1, ..Answer::usage("ilbadm: illegal command") },
    };
    if name.is_empty() || name.len() > 14 {
        return error("servergroup name is too long");
    }
    if state.balancer.groups.contains_key(name) {
        return error("servergroup already exists");
    }
    let number = state.number();
    let mut group = BTreeMap::new();
    add(&mut group, name, servers, number);
    state.balancer.groups.insert(name.to_owned(), group);
    Answer::ok()
}

fn create_rule(state: &mut State, words: &[&str]) -> Answer {
    let mut rule = BTreeMap::new();
    let mut name = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "-e" | "-p" => {}
            "-i" | "-m" | "-h" | "-t" | "-o" => rule.extend(pairs(words.next().copied().unwrap_or_default())),
            other => name = Some(other),
        }
    }
    let Some(name) = name.filter(|n| (1..=19).contains(&n.len())) else { return error("rule name is too long") };
    for needed in ["vip", "port", "protocol", "lbalg", "type", "servergroup"] {
        if !rule.contains_key(needed) {
            return error(&format!("{needed} is required"));
        }
    }
    let proper = matches!(rule.get("lbalg").map(String::as_str), Some("rr" | "hip" | "hipp" | "hipv"))
        && matches!(rule.get("type").map(String::as_str), Some("DSR" | "HALF-NAT" | "NAT"));
    if !proper {
        return error("invalid value");
    }
    if !rule.get("servergroup").is_some_and(|g| state.balancer.groups.contains_key(g)) {
        return error("servergroup does not exist");
    }
    match state.balancer.rules.insert(name.to_owned(), rule) {
        None => Answer::ok(),
        Some(_) => error("rule already exists"),
    }
}
