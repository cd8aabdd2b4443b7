//! ipf(8): packet filters, an active and an inactive set of each family, for the global zone and, twice, for each zone that
//! runs: its own (`ipf … ZONE`) and the one that the global zone controls (`ipf -G … ZONE`).
//!
//! As with the real one only a flush and a bad rule end with 1; all else that fails is said and ends with 0.

use crate::call::{Answer, Call};
use crate::state::{FilterSet, Filters, State};
use ipnet::IpNet;
use std::net::IpAddr;

/// Whose method enables the global zone's own filter.
pub(crate) const SERVICE: &str = "svc:/network/ipfilter:default";

/// The global zone's filter after a start or an end of its service. One that is off has no rules, and no translations.
pub(crate) fn start(state: &mut State) {
    let enabled = state.services.get(SERVICE).is_some_and(|s| s.state == "online");
    if !enabled {
        state.filters.remove("");
        state.nat.clear();
    }
    state.filters.entry(String::new()).or_default().enabled = enabled;
}

/// Whether the global zone's filter is enabled: without it ipnat takes and tells nothing.
pub(crate) fn is_running(state: &State) -> bool {
    state.filters.get("").is_some_and(|f| f.enabled)
}

/// A zone's filters end with its stack.
pub(crate) fn stack_gone(state: &mut State, zone: &str) {
    for kind in ["zone", "gz"] {
        state.filters.remove(&format!("{kind}/{zone}"));
    }
}

fn usage() -> Answer {
    Answer {
        code: 1,
        ..Answer::usage(
            "usage: ipf [-6AdDEGInoPrRsvVyzZ] [-l block|pass|nomatch|state|nat] [-cc] [-F i|o|a|s|S|u] [-f filename] \
             [-T <tuneopts>] [zonename]",
        )
    }
}

/// Options with their values, and the zone.
type Options<'w> = (Vec<(char, &'w str)>, Option<&'w str>);

/// Options as getopt(3C) takes them: letters joined or apart, up to the first word that is none. That one is the zone.
fn options<'w>(words: &[&'w str]) -> Option<Options<'w>> {
    let mut found = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(mut letters) = word.strip_prefix('-').filter(|l| !l.is_empty()) else {
            return Some((found, Some(word)));
        };
        while let Some(letter) = letters.chars().next() {
            letters = letters.get(letter.len_utf8()..).unwrap_or_default();
            match letter {
                'c' | 'f' | 'F' | 'l' | 'T' => {
                    let value = if letters.is_empty() { words.next().copied()? } else { letters };
                    found.push((letter, value));
                    break;
                }
                _ if "6AdDEGInoPrRsvVyzZ".contains(letter) => found.push((letter, "")),
                _ => return None,
            }
        }
    }
    Some((found, None))
}

/// One call of ipf: options are carried out in their order.
pub(crate) fn run(call: &Call<'_>, state: &mut State) -> Answer {
    let words = call.words();
    let Some((options, zone)) = options(&words).filter(|_| !words.is_empty()) else { return usage() };
    let controlled = options.iter().any(|(letter, _)| *letter == 'G');
    let mut run = Run { stack: Some(String::new()), answer: Answer::ok(), ..Run::default() };
    if let Some(zone) = zone {
        let up = state.zones.get(zone).is_some_and(|z| z.state.is_up());
        run.stack = up.then(|| format!("{}/{zone}", if controlled { "gz" } else { "zone" }));
    } else if controlled {
        // The real one would change the global zone's own.
        return Answer::fail("hostsim: ipf -G without a zone is not played");
    }
    for (letter, value) in options {
        match letter {
            'G' | 'R' => {}
            '6' => run.v6 = true,
            'A' => run.inactive = false,
            'I' => run.inactive = !run.inactive,
            'n' => run.dry = !run.dry,
            'r' => run.remove = !run.remove,
            'E' | 'D' => run.enable(state, zone, letter == 'E'),
            'F' if value == "a" => {
                if !run.flush(state, zone) {
                    return Answer { code: 1, ..run.answer };
                }
            }
            'f' => {
                let text = match value {
                    "-" => call.stdin().to_owned(),
                    path => match std::fs::read_to_string(path) {
                        Ok(text) => text,
                        Err(_) => {
                            run.answer.err += &format!("fopen({path}) failed: No such file or directory\n");
                            continue;
                        }
                    },
                };
                if !run.load(state, zone, &text) {
                    return Answer { code: 1, ..run.answer };
                }
            }
            's' => run.swap(state, zone),
            'y' => {
                if run.open(state, zone).is_some_and(|f| f.enabled) || run.stack.is_none() {
                    run.answer.out += "filter sync'd\n";
                } else {
                    run.answer.err += "SIOCFRSYN: I/O error\n";
                }
            }
            'V' => {
                let running = if run.open(state, zone).is_some_and(|f| f.enabled) { "yes" } else { "no" };
                run.answer.out += &format!(
                    "ipf: IP Filter: v4.1.9 (592)\nKernel: IP Filter: v4.1.9\nRunning: {running}\nLog Flags: 0 = none set\n\
                     Default: pass all, Logging: available\nActive list: 0\nFeature mask: 0x10f\n"
                );
            }
            _ => return Answer::fail(format!("hostsim: ipf -{letter} {value} is not played")),
        }
    }
    run.answer
}

/// What options said so far.
#[derive(Default)]
struct Run {
    /// The stack that it is about; `None`: that of a zone that does not run.
    stack: Option<String>,
    v6: bool,
    inactive: bool,
    dry: bool,
    remove: bool,
    answer: Answer,
}

impl Run {
    /// The stack, or the complaint that it is not there.
    fn open<'s>(&mut self, state: &'s mut State, zone: Option<&str>) -> Option<&'s mut Filters> {
        match &self.stack {
            Some(stack) => Some(state.filters.entry(stack.clone()).or_default()),
            None => {
                self.answer.err += &format!("Could not find running zone: {}\n", zone.unwrap_or_default());
                None
            }
        }
    }

    fn set<'f>(&self, filters: &'f mut Filters) -> &'f mut Vec<String> {
        let set = if self.inactive { &mut filters.inactive } else { &mut filters.active };
        if self.v6 { &mut set.v6 } else { &mut set.v4 }
    }

    fn enable(&mut self, state: &mut State, zone: Option<&str>, on: bool) {
        if self.dry {
            return;
        }
        if let Some(filters) = self.open(state, zone) {
            if on {
                // Once more is no error.
                filters.enabled = true;
            } else {
                *filters = Filters::default();
            }
        }
        if !on && self.stack.as_deref() == Some("") {
            state.nat.clear();
        }
    }

    /// Rules of one family and one set go.
    fn flush(&mut self, state: &mut State, zone: Option<&str>) -> bool {
        let six = self.v6;
        if self.dry {
            return false;
        }
        let Some(filters) = self.open(state, zone) else { return false };
        if filters.enabled {
            self.set(filters).clear();
            return true;
        }
        self.answer.err += &format!("ioctl({}): I/O error\n", if six { "SIOCIPFL6" } else { "SIOCIPFFL" });
        false
    }

    /// Line by line, up to one that is wrong.
    fn load(&mut self, state: &mut State, zone: Option<&str>, text: &str) -> bool {
        if !self.dry && self.open(state, zone).is_none() {
            for number in 1..=text.lines().count() {
                self.answer.err += &format!("{number}:ioctl(add/insert rule): Bad file number\n");
            }
            return true;
        }
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let number = number + 1;
            let (at, line) = match placed(line) {
                Ok(placed) => placed,
                Err(what) => {
                    self.answer.err += &format!("{what}, line {number}\n");
                    return false;
                }
            };
            let rule = match rule(line, self.v6) {
                Ok(rule) => rule,
                Err(what) => {
                    self.answer.err += &format!("{what}, line {number}\n");
                    return false;
                }
            };
            if self.dry {
                continue;
            }
            let remove = self.remove;
            let Some(filters) = self.open(state, zone) else { return true };
            let enabled = filters.enabled;
            let set = self.set(filters);
            let refused = match (enabled, remove) {
                (false, _) => Err("I/O error"),
                (true, true) => take_away(set, &rule),
                (true, false) => add(set, rule, at),
            };
            if let Err(why) = refused {
                let ioctl = if remove { "delete rule" } else { "add/insert rule" };
                self.answer.err += &format!("{number}:ioctl({ioctl}): {why}\n");
            }
        }
        true
    }

    /// Both families at once.
    fn swap(&mut self, state: &mut State, zone: Option<&str>) {
        let Some(filters) = self.open(state, zone) else {
            // Said all the same.
            self.answer.out += "Set 2 now inactive\n";
            return;
        };
        if filters.enabled {
            let old: FilterSet = std::mem::take(&mut filters.active);
            filters.active = std::mem::replace(&mut filters.inactive, old);
            self.answer.out += "Set 0 now inactive\n";
        } else {
            self.answer.err += "ioctl(SIOCSWAPA): I/O error\n";
        }
    }
}

/// The place in its list that a rule is to have (`@0`: the first), and the rule.
fn placed(line: &str) -> Result<(Option<usize>, &str), String> {
    let Some(rest) = line.strip_prefix('@') else { return Ok((None, line)) };
    let (at, rule) = rest.split_once(' ').unwrap_or((rest, ""));
    at.parse().map(|at| (Some(at), rule)).map_err(|_| format!("syntax error error at \"{at}\""))
}

/// What follows a word.
pub(crate) fn named<'r>(rule: &'r str, word: &str) -> Option<&'r str> {
    rule.split_whitespace().skip_while(|w| *w != word).nth(1)
}

/// A rule of a group needs its head. Rules with a place count those of their own list alone.
fn add(set: &mut Vec<String>, rule: String, at: Option<usize>) -> Result<(), &'static str> {
    if set.contains(&rule) {
        return Err("File exists");
    }
    let group = named(&rule, "group");
    if group.is_some() && !set.iter().any(|r| named(r, "head") == group) {
        return Err("No such process");
    }
    let same: Vec<usize> = (0..set.len()).filter(|i| set.get(*i).is_some_and(|r| named(r, "group") == group)).collect();
    let place = at.and_then(|at| same.get(at).copied()).unwrap_or(set.len());
    set.insert(place, rule);
    Ok(())
}

/// With its last head a group's rules are out of reach.
fn take_away(set: &mut Vec<String>, rule: &str) -> Result<(), &'static str> {
    let at = set.iter().position(|r| r == rule).ok_or("No such process")?;
    set.remove(at);
    if let Some(group) = named(rule, "head").filter(|group| !set.iter().any(|r| named(r, "head") == Some(group))) {
        set.retain(|r| named(r, "group") != Some(group));
    }
    Ok(())
}

/// ipfstat(8), of which only lists of rules are played: those of the way out, then those of the way in; groups come last.
pub(crate) fn stat(call: &Call<'_>, state: &State) -> Answer {
    let words = call.words();
    let (mut letters, mut stack, mut rest) = (String::new(), String::new(), words.iter());
    while let Some(word) = rest.next() {
        match word.strip_prefix('-') {
            Some("G") => stack = format!("gz/{}", rest.next().copied().unwrap_or_default()),
            Some(flags) if !flags.is_empty() && flags.chars().all(|c| "6ioR".contains(c)) => letters += flags,
            _ => return Answer::fail("hostsim: ipfstat is played as -6, -i, -o, -R and -G only"),
        }
    }
    let set = state.filters.get(&stack).map(|f| f.active.clone()).unwrap_or_default();
    let rules = if letters.contains('6') { set.v6 } else { set.v4 };
    let mut answer = Answer::ok();
    for (_, way) in [('o', "out"), ('i', "in")].into_iter().filter(|(letter, _)| letters.contains(*letter)) {
        let (grouped, own): (Vec<_>, Vec<_>) = rules
            .iter()
            .filter(|r| r.split_whitespace().find(|w| matches!(*w, "in" | "out")) == Some(way))
            .partition(|r| named(r, "group").is_some());
        if own.is_empty() {
            answer.err += &format!("empty list for ipfilter({way})\n");
        }
        answer.out.extend(own.into_iter().chain(grouped).map(|r| format!("{r}\n")));
    }
    answer
}

/// One rule of ipf(5) as the kernel has it, or what is wrong with it. Words that the family decides on are told apart here:
/// the real one takes some that then fit no packet.
fn rule(line: &str, v6: bool) -> Result<String, String> {
    let mut words: Vec<String> = line.split_whitespace().map(ToOwned::to_owned).collect();
    let mut at = 0;
    let text = words.clone();
    let word = |at: usize| text.get(at).map(String::as_str).unwrap_or_default();
    let bad = |at: usize| Err(format!("syntax error error at \"{}\"", word(at)));
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
    let mut protocol = "";
    if word(at) == "proto" {
        protocol = word(at + 1);
        let known = matches!(protocol, "tcp" | "udp" | "tcp/udp" | "tcp-udp" | "icmp" | "ipv6-icmp" | "sctp");
        if !(known || protocol.parse::<u8>().is_ok()) {
            return Err(format!("protocol unknown error at \"{protocol}\""));
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
            let Some(named) = words.get_mut(at) else { return bad(at) };
            *named = host(named, v6)?;
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
        if protocol != "tcp" {
            return Err("flags with non-TCP rule error at \"flags\"".to_owned());
        }
        at += 2;
    }
    if word(at) == "icmp-type" {
        if word(at + 1).parse::<u8>().is_err() {
            return bad(at + 1);
        }
        at += 2;
    }
    if word(at) == "keep" {
        if !matches!(word(at + 1), "state" | "frags") {
            return bad(at + 1);
        }
        at += 2;
    }
    for member in ["head", "group"] {
        if word(at) == member {
            let name = word(at + 1);
            if name.is_empty() || name.len() > 15 || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return bad(at + 1);
            }
            at += 2;
        }
    }
    if at >= words.len() { Ok(words.join(" ")) } else { bad(at) }
}

/// A host or network in one spelling.
fn host(word: &str, v6: bool) -> Result<String, String> {
    if word == "any" {
        return Ok(word.to_owned());
    }
    let net = word.parse::<IpNet>().or_else(|_| word.parse::<IpAddr>().map(IpNet::from));
    let Ok(net) = net else { return Err(format!("syntax error error at \"{word}\"")) };
    if net.addr().is_ipv6() && !v6 && net.prefix_len() > 32 && word.contains('/') {
        return Err(format!("Bad value specified for netmask error at \"{}\"", net.prefix_len()));
    }
    if net.addr().is_ipv6() != v6 {
        return Err(format!("hostsim: {word} is not of the family that is read (-6): it would fit nothing"));
    }
    if v6 && net.trunc() != net {
        return Err(format!("hostsim: {word} has bits beyond its prefix: it would fit nothing"));
    }
    Ok(if net.prefix_len() == 0 { "any".to_owned() } else { net.trunc().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_word_by_word() {
        for (good, v6) in [
            ("pass in quick on rwa0 proto tcp from any to 10.0.0.1/32 port = 80 flags S keep state", false),
            ("block out log quick from 10.0.0.1/32 to ! 10.0.0.0/24", false),
            ("pass in quick proto 58 from any to any icmp-type 135", true),
            ("pass in quick from fd00::/64 to any keep state", true),
            ("block in all", false),
            ("pass in proto udp from any to any port 100 >< 200", false),
        ] {
            assert_eq!(rule(good, v6).as_deref(), Ok(good));
        }
        assert_eq!(
            rule("block in from 10.0.0.1 to 0.0.0.0/0", false).as_deref(),
            Ok("block in from 10.0.0.1/32 to any")
        );
        for (bad, v6) in [
            ("pass", false),
            ("allow in all", false),
            ("pass in from any", false),
            ("pass in from any to host:80", false),
            ("pass in all please", false),
            ("pass in quick family inet6 from any to any", true),
            ("pass in quick from fd00::1/128 to any", false),
            ("pass in quick from fd00::1/64 to any", true),
            ("pass in quick from 10.0.0.1/32 to any", true),
            ("pass in quick from any to any flags S", false),
        ] {
            assert!(rule(bad, v6).is_err(), "{bad}");
        }
        let error = rule("pass in from fd00::1/128 to any", false).unwrap_err();
        assert_eq!(error, "Bad value specified for netmask error at \"128\"");
    }

    #[test]
    fn groups_have_heads_and_lists_of_their_own() {
        let mut set = vec!["pass out all".to_owned()];
        let head = "block out quick from any to 10.0.0.1/32 head g1".to_owned();
        let member = "pass out from 10.0.0.2/32 to any group g1".to_owned();
        assert_eq!(add(&mut set, member.clone(), None), Err("No such process"));
        assert_eq!(add(&mut set, head.clone(), Some(0)), Ok(()));
        assert_eq!(add(&mut set, member.clone(), None), Ok(()));
        assert_eq!(add(&mut set, member.clone(), None), Err("File exists"));
        assert_eq!(set, [&head, "pass out all", &member]);
        assert_eq!(take_away(&mut set, &head), Ok(()));
        assert_eq!(take_away(&mut set, &member), Err("No such process"));
        assert_eq!(set, ["pass out all"]);
        assert_eq!(placed("@0 block in all"), Ok((Some(0), "block in all")));
        assert!(placed("@x block in all").is_err() && rule("block in all head", false).is_err());
    }

    #[test]
    fn options_are_those_of_getopt() {
        let of = |words: &[&'static str]| options(words);
        assert_eq!(of(&["-GE", "web"]), Some((vec![('G', ""), ('E', "")], Some("web"))));
        let joined = vec![('6', ""), ('G', ""), ('I', ""), ('F', "a"), ('f', "-")];
        assert_eq!(of(&["-6GIFa", "-f", "-", "web"]), Some((joined.clone(), Some("web"))));
        assert_eq!(of(&["-6", "-G", "-I", "-Fa", "-f", "-", "web"]), Some((joined, Some("web"))));
        // What follows the zone is not read any more.
        assert_eq!(of(&["-G", "web", "-s"]), Some((vec![('G', "")], Some("web"))));
        assert_eq!(of(&["-x"]), None);
    }
}
