//! svcs, svcprop, svccfg and svcadm: the global zone's services, and what they say inside of a zone.

use crate::call::{Answer, Call, Sim};
use crate::platform;
use crate::state::{Service, State};

/// One call in the global zone.
pub(crate) fn run(call: &Call<'_>, state: &mut State) -> Answer {
    let words = call.words();
    match call.tool {
        "svcs" => svcs(state, &words),
        "svcprop" => svcprop(state, &words),
        "svcadm" => svcadm(state, &words),
        _ => svccfg(state, &words),
    }
}

/// The instance that a pattern means: whole, without `svc:/`, without `:default`.
fn find<'s>(state: &'s State, pattern: &str) -> Option<&'s str> {
    let whole = if pattern.starts_with("svc:/") {
        pattern.to_owned()
    } else {
        format!("svc:/{}", pattern.trim_start_matches('/'))
    };
    let mut names = state.services.keys().map(String::as_str);
    names.find(|n| **n == *whole || **n == *format!("{whole}:default"))
}

fn no_match(tool: &str, pattern: &str) -> Answer {
    Answer::fail(format!("{tool}: Pattern '{pattern}' doesn't match any instances"))
}

fn svcs(state: &State, words: &[&str]) -> Answer {
    let (fields, patterns) = match words {
        ["-H", "-o", fields, rest @ ..] | ["-Ho", fields, rest @ ..] => (*fields, rest),
        ["-L", pattern] => {
            return match find(state, pattern) {
                Some(name) => {
                    let file = name.trim_start_matches("svc:/").replace('/', "-");
                    Answer::out(format!("/var/svc/log/{file}.log\n"))
                }
                None => no_match("svcs", pattern),
            };
        }
        _ => return Answer::usage("Usage: svcs [-aHpv] [-o col[,col ... ]] [<service> ...]"),
    };
    let mut answer = Answer::ok();
    for pattern in patterns {
        let Some(service) = find(state, pattern).and_then(|n| state.services.get(n)) else {
            let missing = no_match("svcs", pattern);
            (answer.err, answer.code) = (answer.err + &missing.err, 1);
            continue;
        };
        answer.out += &row(fields, &service.state, pattern);
    }
    answer
}

fn row(fields: &str, state: &str, name: &str) -> String {
    let field = |f: &str| match f.to_ascii_lowercase().as_str() {
        "state" => state.to_owned(),
        "nstate" => "-".to_owned(),
        "stime" => "12:00:00".to_owned(),
        "fmri" => name.to_owned(),
        _ => "-".to_owned(),
    };
    fields.split(',').map(field).collect::<Vec<_>>().join(" ") + "\n"
}

fn svcprop(state: &State, words: &[&str]) -> Answer {
    let (property, pattern) = match words {
        ["-p", property, pattern] | ["-c", "-p", property, pattern] => (*property, *pattern),
        _ => {
            return Answer::usage(
                "Usage: svcprop [-fqtv] [-C | -c | -s snapshot] [-p [name/]name]... {FMRI | pattern} ...",
            );
        }
    };
    let Some(service) = find(state, pattern).and_then(|n| state.services.get(n)) else {
        return no_match("svcprop", pattern);
    };
    if !property.contains('/') {
        let of = |name: &str| name.split_once('/').is_some_and(|(group, _)| group == property);
        let all: String = service
            .properties
            .iter()
            .filter(|(name, _)| of(name))
            .map(|(name, (kind, value))| format!("{name} {kind} {}\n", escaped(value)))
            .collect();
        return match all.as_str() {
            "" => Answer::fail(format!("svcprop: Couldn't find property group '{property}' for instance '{pattern}'.")),
            _ => Answer::out(all),
        };
    }
    match service.properties.get(property) {
        Some((_, value)) => Answer::out(format!("{}\n", escaped(value))),
        None if property == "restarter/state" => Answer::out(format!("{}\n", service.state)),
        None => Answer::fail(format!("svcprop: Couldn't find property '{property}' for instance '{pattern}'.")),
    }
}

/// As svcprop prints a value: blanks, quotes and backslashes behind backslashes; nothing as two quotes.
fn escaped(value: &str) -> String {
    if value.is_empty() {
        return "\"\"".into();
    }
    let one = |c: char| if matches!(c, ' ' | '\t' | '\\' | '"' | '\'') { format!("\\{c}") } else { c.to_string() };
    value.chars().map(one).collect()
}

fn svcadm(state: &mut State, words: &[&str]) -> Answer {
    let (verb, pattern) = match words {
        [verb @ ("enable" | "disable"), "-s" | "-t" | "-st", pattern] => (*verb, *pattern),
        [verb, pattern] => (*verb, *pattern),
        _ => return Answer::usage("Usage: svcadm [-v] [cmd [args ... ]]"),
    };
    let Some(name) = find(state, pattern).map(ToOwned::to_owned) else { return no_match("svcadm", pattern) };
    let flushes = name == "svc:/network/ipfilter:default" && matches!(verb, "restart" | "refresh" | "enable");
    if flushes {
        // Its method does `ipnat -CF` and loads the administrator's files.
        state.nat.clear();
        state.filters.remove("");
    }
    let Some(service) = state.services.get_mut(&name) else { return Answer::ok() };
    match verb {
        "enable" | "restart" | "clear" => service.state = "online".into(),
        "disable" => service.state = "disabled".into(),
        "refresh" => {}
        _ => return Answer::usage("Usage: svcadm [-v] [cmd [args ... ]]"),
    }
    if name == crate::ipf::SERVICE {
        crate::ipf::start(state);
    }
    if name.contains("-forwarding:") {
        state.protocols.retain(|property, _| !property.ends_with("/forwarding"));
        forward(state);
    }
    balancer_waits(state);
    Answer::ok()
}

/// What the services of forwarding do when they start.
pub(crate) fn forward(state: &mut State) {
    for family in ["ipv4", "ipv6"] {
        let service = state.services.get(&format!("svc:/network/{family}-forwarding:default"));
        if service.is_some_and(|s| s.state == "online") {
            state.protocols.insert(format!("{family}/forwarding"), "on".to_owned());
        }
    }
}

/// ILB's service waits for one of the forwarding services: that something forwards is not enough.
fn balancer_waits(state: &mut State) {
    let online = |name: &str| state.services.get(name).is_some_and(|s| s.state == "online");
    let forwards = online("svc:/network/ipv4-forwarding:default") || online("svc:/network/ipv6-forwarding:default");
    if let Some(balancer) = state.services.get_mut(crate::ilbadm::SERVICE).filter(|s| s.state != "disabled") {
        balancer.state = if forwards { "online" } else { "offline" }.to_owned();
    }
}

fn svccfg(state: &mut State, words: &[&str]) -> Answer {
    match words {
        ["validate", file] if std::fs::metadata(file).is_ok() => Answer::ok(),
        ["import", file] => {
            let Ok(text) = std::fs::read_to_string(file) else {
                return Answer::fail(format!("svccfg: couldn't open {file}"));
            };
            let name = text.split_once("<service name=").and_then(|(_, r)| r.split(['"', '\'']).nth(1));
            let Some(name) = name else { return Answer::fail(format!("svccfg: couldn't parse document {file}")) };
            let service = Service { state: "disabled".into(), ..Service::default() };
            state.services.insert(format!("svc:/{name}:default"), service);
            Answer::ok()
        }
        ["delete", pattern] => match find(state, pattern).map(ToOwned::to_owned) {
            Some(name) => {
                state.services.remove(&name);
                Answer::ok()
            }
            None => no_match("svccfg", pattern),
        },
        ["-s", pattern, "setprop", name, "=", kind, value] => {
            let Some(found) = find(state, pattern).map(ToOwned::to_owned) else { return no_match("svccfg", pattern) };
            if let Some(service) = state.services.get_mut(&found) {
                service
                    .properties
                    .insert((*name).to_owned(), (kind.trim_end_matches(':').to_owned(), (*value).to_owned()));
            }
            Answer::ok()
        }
        _ => Answer::fail("svccfg: Syntax error."),
    }
}

/// What tools say inside of a zone.
pub(crate) fn inside_a_zone(sim: &Sim, tool: &str, args: &[String]) -> Answer {
    let about = platform::inside(sim);
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match (tool, words.as_slice()) {
        ("zonename", []) => Answer::out(format!("{}\n", about.zone)),
        ("svcs", ["-H", "-o", fields, patterns @ ..] | ["-Ho", fields, patterns @ ..]) => {
            let up = platform::wall() >= about.booted_at + about.milestone;
            let state = if up { "online" } else { "offline" };
            Answer::out(patterns.iter().map(|p| row(fields, state, p)).collect::<String>())
        }
        ("newtask" | "prctl", words) => crate::project::run(tool, words),
        ("uname", _) => crate::figures::uname(&words, &about.zone),
        ("ipmgmtd" | "ipadm", words) if about.own_init => crate::stack::run(&about, tool, words),
        ("ipadm", ["show-addr", ..]) | ("svcadm", _) => Answer::ok(),
        _ => Answer::fail(format!("hostsim: {tool} is not played inside of a zone")),
    }
}
