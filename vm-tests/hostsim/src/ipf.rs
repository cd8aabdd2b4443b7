//! ipf(8): packet filters, an active and an inactive set for the global zone and for each zone that it controls.

use crate::call::{Answer, Call};
use crate::state::State;
use ipnet::IpNet;
use std::net::IpAddr;

/// One call of ipf: options are carried out in their order.
pub(crate) fn run(call: &Call<'_>, state: &mut State) -> Answer {
    let words = call.words();
    let mut zone = String::new();
    let mut options: Vec<&str> = words.clone();
    if words.iter().any(|w| matches!(*w, "-G" | "-z")) {
        let Some(last) = options.pop().filter(|l| state.zones.contains_key(*l)) else {
            return Answer::fail("ipf: zone not found");
        };
        zone = format!("zone/{last}");
        options.retain(|w| !matches!(*w, "-G" | "-z"));
    }
    let mut inactive = false;
    let mut answer = Answer::ok();
    let mut rest = options.into_iter();
    while let Some(word) = rest.next() {
        match word {
            "-V" => {
                answer.out += "ipf: IP Filter: v4.1.9 (592)\nKernel: IP Filter: v4.1.9\nRunning: yes\nLog Flags: 0 = none set\nDefault: pass all, Logging: available\nActive list: 0\nFeature mask: 0x10f\n"
            }
            "-E" | "-y" | "-D" => {}
            "-I" => inactive = true,
            "-A" => inactive = false,
            "-Fa" => {
                let set = state.filters.entry(zone.clone()).or_default();
                if inactive { set.inactive.clear() } else { set.active.clear() }
            }
            "-s" => {
                let set = state.filters.entry(zone.clone()).or_default();
                std::mem::swap(&mut set.active, &mut set.inactive);
                answer.out += "Set 0 now inactive\n";
            }
            "-f" | "-n" => {
                let dry = word == "-n";
                let path = if dry { rest.next().filter(|w| *w == "-f").and_then(|_| rest.next()) } else { rest.next() };
                let text = match path {
                    Some("-") => call.stdin().to_owned(),
                    Some(path) => match std::fs::read_to_string(path) {
                        Ok(text) => text,
                        Err(e) => return Answer::fail(format!("{path}: {e}")),
                    },
                    None => return Answer::fail("usage: ipf [-6AdDEGInoPrRsvVyzZ] [-f filename]"),
                };
                for (number, line) in text.lines().enumerate() {
                    let line = line.split('#').next().unwrap_or_default().trim();
                    if line.is_empty() {
                        continue;
                    }
                    if let Err(what) = rule(line) {
                        return Answer::fail(format!("syntax error error at \"{what}\", line {}", number + 1));
                    }
                    if !dry {
                        let set = state.filters.entry(zone.clone()).or_default();
                        if inactive { &mut set.inactive } else { &mut set.active }.push(line.to_owned());
                    }
                }
            }
            _ => return Answer::fail("usage: ipf [-6AdDEGInoPrRsvVyzZ] [-f filename]"),
        }
    }
    answer
}

/// One rule of ipf(5), as far as a word that is wrong.
fn rule(line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut at = 0;
    let word = |at: usize| words.get(at).copied().unwrap_or_default();
    let bad = |at: usize| Err(word(at).to_owned());
    if !matches!(word(at), "pass" | "block") {
        return bad(at);
    }
    at += 1;
    // block return-rst, return-icmp
    if word(0) == "block" && word(at).starts_with("return-") {
        at += 1;
    }
    if !matches!(word(at), "in" | "out") {
        return bad(at);
    }
    at += 1;
    for flag in ["log", "quick"] {
        at += usize::from(word(at) == flag);
    }
    if word(at) == "on" {
        at += 2;
    }
    if word(at) == "family" {
        if !matches!(word(at + 1), "inet" | "inet6") {
            return bad(at + 1);
        }
        at += 2;
    }
    if word(at) == "proto" {
        let known = matches!(word(at + 1), "tcp" | "udp" | "tcp/udp" | "icmp" | "ipv6-icmp" | "sctp")
            || word(at + 1).parse::<u8>().is_ok();
        if !known {
            return bad(at + 1);
        }
        at += 2;
    }
    if word(at) == "all" {
        at += 1;
    } else {
        for side in ["from", "to"] {
            if word(at) != side {
                return bad(at);
            }
            at += 1;
            at += usize::from(word(at) == "!");
            let host = word(at);
            if !(matches!(host, "any") || host.parse::<IpNet>().is_ok() || host.parse::<IpAddr>().is_ok()) {
                return bad(at);
            }
            at += 1;
            if word(at) == "port" {
                at += 1;
                match (word(at), word(at + 1), word(at + 2)) {
                    ("=" | "!=" | "<" | ">" | "<=" | ">=", number, _) if number.parse::<u16>().is_ok() => at += 2,
                    (from, "><" | "<>" | ":", to) if from.parse::<u16>().is_ok() && to.parse::<u16>().is_ok() => {
                        at += 3
                    }
                    _ => return bad(at),
                }
            }
        }
    }
    if word(at) == "flags" {
        at += 2;
    }
    if word(at) == "keep" {
        if !matches!(word(at + 1), "state" | "frags") {
            return bad(at + 1);
        }
        at += 2;
    }
    if at >= words.len() { Ok(()) } else { bad(at) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_word_by_word() {
        for good in [
            "pass in quick on rwa0 proto tcp from any to 10.0.0.1/32 port = 80 flags S keep state",
            "block out log quick from 10.0.0.1 to ! 10.0.0.0/24",
            "pass in quick family inet6 proto ipv6-icmp from any to any keep state",
            "block in all",
            "pass in proto udp from any to any port 100 >< 200",
        ] {
            assert_eq!(rule(good), Ok(()), "{good}");
        }
        for bad in ["pass", "allow in all", "pass in from any", "pass in from any to host:80", "pass in all please"] {
            assert!(rule(bad).is_err(), "{bad}");
        }
    }
}
