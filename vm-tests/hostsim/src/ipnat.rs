//! ipnat(8) and the rules of ipnat(5): a strict parser, the canonical form, and loading that is not atomic.

use crate::call::{Answer, Call};
use crate::state::State;
use ipnet::IpNet;
use std::net::IpAddr;

/// One call of ipnat.
pub(crate) fn run(call: &Call<'_>, state: &mut State) -> Answer {
    let words = call.words();
    let (mut letters, mut file) = (String::new(), None);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let Some(flags) = word.strip_prefix('-').filter(|f| !f.is_empty()) else { return usage() };
        for letter in flags.chars() {
            match letter {
                'f' => file = rest.next().copied(),
                'G' | 'z' => return Answer::fail("hostsim: ipnat of a zone is not played"),
                'n' | 'r' | 'C' | 'F' | 'l' | 'R' | 'v' | 'h' | 's' => letters.push(letter),
                _ => return usage(),
            }
        }
    }
    let has = |l| letters.contains(l);
    if !has('n') && !crate::ipf::is_running(state) {
        return Answer::fail("ioctl(SIOCGNATS): I/O error");
    }
    let mut answer = Answer::ok();
    if has('C') && !has('n') {
        answer.out += &format!("{} entries flushed from NAT list\n", state.nat.len());
        state.nat.clear();
    }
    if has('F') {
        answer.out += "0 entries flushed from NAT table\n";
    }
    match file {
        Some(path) => {
            let text = match path {
                "-" => call.stdin().to_owned(),
                path => match std::fs::read_to_string(path) {
                    Ok(text) => text,
                    Err(e) => return Answer::fail(format!("{path}: open: {e}")),
                },
            };
            load(state, &text, has('n'), has('r'), answer)
        }
        None if has('l') => {
            let rules: String = state.nat.iter().map(|r| format!("{r}\n")).collect();
            answer.out += &format!("List of active MAP/Redirect filters:\n{rules}\nList of active sessions:\n");
            answer
        }
        None if has('C') || has('F') => answer,
        None => usage(),
    }
}

fn usage() -> Answer {
    Answer { code: 1, ..Answer::usage("Usage:\tipnat [-CFhlnrRsv] [-f filename]") }
}

/// Line by line: what came before a bad one is loaded.
fn load(state: &mut State, text: &str, dry: bool, remove: bool, mut answer: Answer) -> Answer {
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let rule = match parse(line) {
            Ok(rule) => rule,
            Err(what) => {
                answer.err += &format!("syntax error error at \"{what}\", line {}\n", number + 1);
                answer.code = 1;
                return answer;
            }
        };
        let known = state.nat.iter().position(|r| *r == rule);
        match (dry, remove, known) {
            (true, ..) => {}
            (false, true, Some(at)) => {
                state.nat.remove(at);
            }
            (false, true, None) => answer.err += &format!("{number}:ioctl(remove nat): No such process\n"),
            // Said, but no error.
            (false, false, Some(_)) => answer.err += &format!("{number}:ioctl(add/insert rule): File exists\n"),
            (false, false, None) => state.nat.push(rule),
        }
    }
    answer
}

struct Words<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Words<'a> {
    fn peek(&self) -> &'a str {
        self.words.get(self.at).copied().unwrap_or_default()
    }

    fn next(&mut self) -> &'a str {
        let word = self.peek();
        self.at += 1;
        word
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.peek() == word;
        self.at += usize::from(found);
        found
    }

    fn must(&mut self, word: &str) -> Result<(), String> {
        if self.take(word) { Ok(()) } else { Err(self.peek().to_owned()) }
    }
}

/// A rule in canonical form, or the word that is wrong.
pub(crate) fn parse(line: &str) -> Result<String, String> {
    let mut words = Words { words: line.split_whitespace().collect(), at: 0 };
    let verb = words.next();
    let links = interfaces(words.next())?;
    let rule = match verb {
        "rdr" => redirect(&mut words, &links),
        "map" => translate(&mut words, &links),
        "bimap" => {
            let from = network(words.next())?;
            words.must("->")?;
            Ok(format!("bimap {links} {from} -> {}", network(words.next())?))
        }
        other => Err(other.to_owned()),
    }?;
    if words.peek().is_empty() { Ok(rule) } else { Err(words.peek().to_owned()) }
}

fn interfaces(word: &str) -> Result<String, String> {
    let fine = |name: &str| {
        !name.is_empty() && name.len() <= 31 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b))
    };
    let names: Vec<&str> = word.split(',').collect();
    if names.len() > 2 || !names.iter().all(|n| fine(n)) {
        return Err(word.to_owned());
    }
    // Two names are printed with a blank more behind them.
    Ok(if names.len() == 2 { format!("{word} ") } else { word.to_owned() })
}

fn address(word: &str) -> Result<IpAddr, String> {
    word.parse().map_err(|_| word.to_owned())
}

/// With its prefix: `0/32` and bare addresses are spelt out.
fn network(word: &str) -> Result<String, String> {
    if word == "any" {
        return Ok("any".into());
    }
    if let Some(bits) = word.strip_prefix("0/") {
        return bits
            .parse::<u8>()
            .ok()
            .filter(|b| *b <= 32)
            .map(|b| format!("0.0.0.0/{b}"))
            .ok_or_else(|| word.to_owned());
    }
    if let Ok(ip) = word.parse::<IpAddr>() {
        return Ok(format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 }));
    }
    word.parse::<IpNet>().map(|n| n.to_string()).map_err(|_| word.to_owned())
}

fn port(word: &str) -> Result<&str, String> {
    let one = |p: &str| p.parse::<u16>().is_ok_and(|n| n > 0);
    let fine = match word.split_once('-') {
        Some((from, to)) => one(from) && one(to),
        None => one(word),
    };
    if fine { Ok(word) } else { Err(word.to_owned()) }
}

fn single_port(word: &str) -> Result<&str, String> {
    port(word).and_then(|p| if p.contains('-') { Err(p.to_owned()) } else { Ok(p) })
}

fn is_protocol(word: &str) -> bool {
    matches!(word, "tcp" | "udp" | "tcp/udp" | "icmp" | "ip") || word.parse::<u8>().is_ok()
}

fn redirect(words: &mut Words<'_>, links: &str) -> Result<String, String> {
    let mut text = format!("rdr {links} ");
    let negated = words.take("!");
    let mut matched = false;
    if negated || words.peek() == "from" {
        words.must("from")?;
        let from = network(words.next())?;
        words.must("to")?;
        text += &format!("{}from {from} to {}", if negated { "! " } else { "" }, network(words.next())?);
        if words.take("port") {
            words.must("=")?;
            text += &format!(" port = {}", single_port(words.next())?);
            matched = true;
        }
    } else {
        text += &network(words.next())?;
        if words.take("port") {
            text += &format!(" port {}", port(words.next())?);
            matched = true;
        }
    }
    words.must("->")?;
    let targets: Vec<&str> = words.next().split(',').collect();
    if targets.len() > 2 {
        return Err(targets.join(","));
    }
    let targets = targets.into_iter().map(|t| address(t).map(|ip| ip.to_string())).collect::<Result<Vec<_>, _>>()?;
    text += &format!(" -> {}", targets.join(","));
    if words.take("port") {
        // The sign is kept: with it the port is no beginning of a range.
        let sign = if words.take("=") { "= " } else { "" };
        text += &format!(" port {sign}{}", single_port(words.next())?);
    } else if matched {
        // The target's port can't be left out.
        return Err(words.peek().to_owned());
    }
    let protocol = if is_protocol(words.peek()) { words.next() } else { "tcp" };
    text += &format!(" {protocol}");
    if words.take("round-robin") {
        text += " round-robin";
        if words.take("sticky") {
            text += " sticky";
        }
    }
    for option in ["frag"] {
        if words.take(option) {
            text += &format!(" {option}");
        }
    }
    for option in ["age", "mssclamp", "tag"] {
        if words.take(option) {
            text += &format!(" {option} {}", words.next());
        }
    }
    Ok(text)
}

fn translate(words: &mut Words<'_>, links: &str) -> Result<String, String> {
    let mut text = format!("map {links} ");
    if words.take("from") {
        text += &format!("from {}", network(words.next())?);
        let negated = words.take("!");
        words.must("to")?;
        text += &format!("{} to {}", if negated { " !" } else { "" }, network(words.next())?);
        if words.take("port") {
            words.must("=")?;
            text += &format!(" port = {}", single_port(words.next())?);
        }
    } else {
        text += &network(words.next())?;
    }
    words.must("->")?;
    text += &format!(" -> {}", network(words.next())?);
    if words.take("portmap") {
        let protocol = words.next();
        if !matches!(protocol, "tcp" | "udp" | "tcp/udp") {
            return Err(protocol.to_owned());
        }
        let range = words.next();
        let fine = range == "auto"
            || range.split_once(':').is_some_and(|(a, b)| single_port(a).is_ok() && single_port(b).is_ok());
        if !fine {
            return Err(range.to_owned());
        }
        text += &format!(" portmap {protocol} {range}");
    } else if words.take("proxy") {
        words.must("port")?;
        text += &format!(" proxy port {} {}", words.next(), words.next());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_printed_as_the_real_parser_prints_them() {
        for (given, canonical) in [
            ("map net0 10.0.0.0/24 -> 0/32", "map net0 10.0.0.0/24 -> 0.0.0.0/32"),
            (
                "map net0 from 10.0.0.0/24 ! to 10.0.0.0/24 -> 0/32 portmap tcp/udp auto",
                "map net0 from 10.0.0.0/24 ! to 10.0.0.0/24 -> 0.0.0.0/32 portmap tcp/udp auto",
            ),
            (
                "rdr net0 10.96.0.5 port 80 -> 10.0.0.1 port 8080",
                "rdr net0 10.96.0.5/32 port 80 -> 10.0.0.1 port 8080 tcp",
            ),
            (
                "rdr a0,b0 10.96.0.5/32 port 80 -> 10.0.0.1 port 80 udp round-robin sticky",
                "rdr a0,b0  10.96.0.5/32 port 80 -> 10.0.0.1 port 80 udp round-robin sticky",
            ),
            (
                "rdr net0 fd00::10/128 port 80 -> fd00::1 port 8080 tcp",
                "rdr net0 fd00::10/128 port 80 -> fd00::1 port 8080 tcp",
            ),
            (
                "rdr net0 ! from 10.0.0.0/8 to 10.96.0.5/32 port = 80 -> 10.0.0.1 port 80",
                "rdr net0 ! from 10.0.0.0/8 to 10.96.0.5/32 port = 80 -> 10.0.0.1 port 80 tcp",
            ),
        ] {
            assert_eq!(parse(given).as_deref(), Ok(canonical));
        }
    }

    #[test]
    fn what_the_grammar_has_not_is_refused() {
        for bad in [
            "rdr net0 10.96.0.5/32 port 80 -> 10.0.0.1",
            "rdr net0 10.96.0.5/32 port 80 -> 10.0.0.1,10.0.0.2,10.0.0.3 port 80 tcp",
            "rdr net0 10.96.0.5/32 port 80 -> 10.0.0.1:80",
            "rdr net0 10.96.0.5/32 port 80 -> 10.0.0.1 port 80 tcp sticky",
            "map net0 from 10.0.0.0/24 to ! 10.0.0.0/24 -> 0/32",
            "map net0 ! from 10.0.0.0/24 to 10.0.0.0/24 -> 0/32",
            "map net0 10.0.0.0/24 -> 0/32 portmap sctp auto",
            "map net0 10.0.0.0/24 -> 0/32 extra",
            "pass in all",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
