//! ipadm(8): addresses of the global zone, and what its stack does.

use crate::call::{Answer, Call};
use crate::dladm::row;
use crate::state::{Address, Interface, State};
use ipnet::IpNet;

fn error(message: impl AsRef<str>) -> Answer {
    Answer::fail(format!("ipadm: {}", message.as_ref()))
}

fn usage() -> Answer {
    Answer { code: 1, ..Answer::usage("usage:  ipadm <subcommand> <args> ...") }
}

/// One call of ipadm.
pub(crate) fn run(call: &Call<'_>, state: &mut State) -> Answer {
    let words = call.words();
    let answer = match words.as_slice() {
        ["create-if", rest @ ..] => create_if(state, rest),
        ["delete-if", name] => delete_if(state, name),
        ["create-addr", rest @ ..] => create_addr(state, rest),
        ["delete-addr", name] => delete_addr(state, name),
        ["show-addr", rest @ ..] => show_addr(state, rest),
        ["set-prop", rest @ ..] => set_prop(state, rest),
        ["set-ifprop", rest @ ..] => set_ifprop(state, rest),
        ["show-prop", rest @ ..] => show_prop(state, rest),
        ["show-if", "-p", "-o", fields] => show_if(state, fields),
        _ => Err(usage()),
    };
    answer.unwrap_or_else(|answer| answer)
}

type Outcome = Result<Answer, Answer>;

/// The loopback: always plumbed, with two addresses of its own. It needs no link-local one for IPv6.
const LOOPBACK: &str = "lo0";
const OF_LOOPBACK: [(&str, &str); 2] = [("v4", "127.0.0.1/8"), ("v6", "::1/128")];

fn plumb(state: &mut State, name: &str, temporary: bool) -> Result<(), Answer> {
    if name == LOOPBACK {
        state.interfaces.entry(name.to_owned()).or_default();
        return Ok(());
    }
    let Some(link) = state.links.get(name) else {
        return Err(error(format!("Could not create {name} : Datalink does not exist")));
    };
    if link.zone.is_some() {
        return Err(error(format!("Could not create {name} : Interface already in use")));
    }
    if link.temporary && !temporary {
        return Err(error(format!("Could not create {name} : Persistent operation on temporary object")));
    }
    state.interfaces.entry(name.to_owned()).or_insert_with(|| Interface { temporary, ..Interface::default() });
    Ok(())
}

fn create_if(state: &mut State, words: &[&str]) -> Outcome {
    let (temporary, name) = match words {
        ["-t", name] => (true, *name),
        [name] if !name.starts_with('-') => (false, *name),
        _ => return Err(usage()),
    };
    if name == LOOPBACK || state.interfaces.contains_key(name) {
        return Err(error(format!("Could not create {name} : Interface already exists")));
    }
    plumb(state, name, temporary)?;
    Ok(Answer::ok())
}

fn delete_if(state: &mut State, name: &str) -> Outcome {
    if name == LOOPBACK {
        return Err(Answer::fail("hostsim: ipadm delete-if of the loopback is not played"));
    }
    match state.interfaces.remove(name) {
        Some(_) => Ok(Answer::ok()),
        None => Err(error(format!("Could not delete {name}: Interface does not exist"))),
    }
}

fn create_addr(state: &mut State, words: &[&str]) -> Outcome {
    let (mut kind, mut temporary, mut local, mut object) = (None, false, None, None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "-T" => kind = words.next().copied(),
            "-t" => temporary = true,
            "-a" => local = words.next().copied(),
            "-w" => {
                words.next();
            }
            other if !other.starts_with('-') && object.is_none() => object = Some(other),
            _ => return Err(usage()),
        }
    }
    let (Some(kind), Some(object)) = (kind, object) else { return Err(usage()) };
    let fail = |what: &str| Err(error(format!("Could not create address: {what}")));
    let Some((link, name)) = object.split_once('/') else { return fail("Invalid argument provided") };
    let proper = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(|b| b.is_ascii_alphanumeric());
    if !proper || object.len() > 32 {
        return fail("Invalid argument provided");
    }
    let there = state.interfaces.get(link);
    let of_loopback = link == LOOPBACK && OF_LOOPBACK.iter().any(|(own, _)| *own == name);
    if of_loopback || there.is_some_and(|i| i.addresses.contains_key(name)) {
        return fail("Address object already exists");
    }
    if there.is_some_and(|i| i.temporary && !temporary) {
        return fail("Persistent operation on temporary object");
    }
    let address = match (kind, local.map(|l| l.strip_prefix("local=").unwrap_or(l))) {
        ("static", Some(text)) => {
            let Ok(net) = text.parse::<IpNet>() else { return fail("Invalid argument provided") };
            let others = state.interfaces.values().flat_map(|i| i.addresses.values()).map(|a| a.address.as_str());
            let taken = |a: &str| a.parse::<IpNet>().is_ok_and(|other| other.addr() == net.addr());
            if others.chain(OF_LOOPBACK.map(|(_, address)| address)).any(taken) {
                return fail("Address already in use");
            }
            let linked = link == LOOPBACK || there.is_some_and(|i| i.addresses.values().any(|a| a.kind == "addrconf"));
            if net.addr().is_ipv6() && !linked {
                return fail("Can't assign requested address");
            }
            text.to_owned()
        }
        ("addrconf", None) => format!("fe80::8:20ff:fe00:{:x}%{link}/10", state.next_number & 0xffff),
        ("dhcp", None) => "0.0.0.0/0".into(),
        _ => return Err(usage()),
    };
    plumb(state, link, temporary)?;
    let tentative_until = crate::platform::wall() + state.times.dad;
    if let Some(interface) = state.interfaces.get_mut(link) {
        let made = Address { kind: kind.to_owned(), address, temporary, tentative_until };
        interface.addresses.insert(name.to_owned(), made);
    }
    Ok(Answer::ok())
}

fn delete_addr(state: &mut State, object: &str) -> Outcome {
    let missing = || error("could not delete address: Object not found");
    let (link, name) = object.split_once('/').ok_or_else(missing)?;
    let interface = state.interfaces.get_mut(link).ok_or_else(missing)?;
    interface.addresses.remove(name).ok_or_else(missing)?;
    Ok(Answer::ok())
}

/// Whether an address serves: the object is made before that is known.
fn state_of(state: &State, address: &Address) -> &'static str {
    let ip = address.address.parse::<IpNet>().map(|net| net.addr());
    if crate::platform::wall() < address.tentative_until {
        "tentative"
    } else if ip.is_ok_and(|ip| state.neighbours.contains(&ip)) {
        "duplicate"
    } else {
        "ok"
    }
}

fn show_addr(state: &State, words: &[&str]) -> Outcome {
    let (fields, only) = match words {
        ["-p", "-o", fields] | ["-po", fields] => (fields, None),
        ["-p", "-o", fields, object] | ["-po", fields, object] => (fields, Some(*object)),
        _ => return Err(usage()),
    };
    let fields: Vec<&str> = fields.split(',').collect();
    let mut out = String::new();
    let own =
        OF_LOOPBACK.map(|(name, address)| (format!("{LOOPBACK}/{name}"), "static", address.to_owned(), false, "ok"));
    let mut all = Vec::from(own);
    for (link, interface) in &state.interfaces {
        for (name, a) in &interface.addresses {
            all.push((format!("{link}/{name}"), a.kind.as_str(), a.address.clone(), a.temporary, state_of(state, a)));
        }
    }
    let fits = |object: &str| {
        only.is_none_or(|o| {
            object == o
                || object.strip_prefix(o).is_some_and(|r| r.starts_with('/'))
                || o.strip_suffix('/').is_some_and(|l| object.starts_with(&format!("{l}/")))
        })
    };
    let shown: Vec<_> = all.into_iter().filter(|(object, ..)| fits(object)).collect();
    if let (Some(only), true) = (only, shown.is_empty()) {
        return Err(error(format!("{only}: Object not found")));
    }
    for (object, kind, address, temporary, serves) in shown {
        let field = |f: &&str| match *f {
            "addrobj" => Ok(object.clone()),
            "type" => Ok(kind.to_owned()),
            "state" => Ok(serves.to_owned()),
            "current" => Ok("U--".to_owned()),
            "persistent" => Ok(if temporary { "---" } else { "U--" }.to_owned()),
            "addr" => Ok(address.clone()),
            other => Err(error(format!("invalid output field '{other}'"))),
        };
        out += &row(&fields.iter().map(field).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(Answer::out(out))
}

fn show_if(state: &State, fields: &str) -> Outcome {
    let fields: Vec<&str> = fields.split(',').collect();
    let mut out = String::new();
    let others = state.interfaces.keys().map(String::as_str).filter(|name| *name != LOOPBACK);
    for name in std::iter::once(LOOPBACK).chain(others) {
        let field = |f: &&str| match *f {
            "ifname" => Ok(name.to_owned()),
            "state" => Ok("ok".to_owned()),
            other => Err(error(format!("invalid output field '{other}'"))),
        };
        out += &row(&fields.iter().map(field).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(Answer::out(out))
}

fn is_family(text: &str) -> bool {
    matches!(text, "ipv4" | "ipv6" | "ip" | "tcp" | "udp" | "sctp" | "icmp")
}

fn pair(text: &str) -> Result<(&str, &str), Answer> {
    let (name, value) = text.split_once('=').ok_or_else(usage)?;
    let fine = match name {
        "forwarding" => matches!(value, "on" | "off"),
        // Private ones are the kernel's, which knows no words. Solaris 11.2 has a public one; illumos never did.
        "_send_redirects" => matches!(value, "0" | "1"),
        "hoplimit" | "ttl" | "mtu" | "metric" => value.parse::<u32>().is_ok(),
        _ => return Err(error(format!("Could not set '{name}': Unknown property"))),
    };
    if fine { Ok((name, value)) } else { Err(error(format!("Could not set '{name}': Invalid argument provided"))) }
}

fn set_prop(state: &mut State, words: &[&str]) -> Outcome {
    let (text, family) = match words {
        ["-t", "-p", text, family] | ["-p", text, family] if is_family(family) => (text, family),
        _ => return Err(usage()),
    };
    let (name, value) = pair(text)?;
    state.protocols.insert(format!("{family}/{name}"), value.to_owned());
    Ok(Answer::ok())
}

fn set_ifprop(state: &mut State, words: &[&str]) -> Outcome {
    let (text, family, link) = match words {
        ["-t", "-p", text, "-m", family, link] | ["-p", text, "-m", family, link] if is_family(family) => {
            (text, family, link)
        }
        _ => return Err(usage()),
    };
    let (name, value) = pair(text)?;
    let interface = state
        .interfaces
        .get_mut(*link)
        .ok_or_else(|| error(format!("Could not set '{name}': Interface does not exist")))?;
    interface.properties.insert(format!("{family}/{name}"), value.to_owned());
    Ok(Answer::ok())
}

fn show_prop(state: &State, words: &[&str]) -> Outcome {
    let ["-c", "-p", names, "-o", fields, family] = words else { return Err(usage()) };
    let mut out = String::new();
    for name in names.split(',') {
        let default = if name == "_send_redirects" { "1" } else { "off" };
        let value = state.protocols.get(&format!("{family}/{name}")).cloned().unwrap_or_else(|| default.to_owned());
        let field = |f: &str| match f {
            "proto" => Ok((*family).to_owned()),
            "property" => Ok(name.to_owned()),
            "perm" => Ok("rw".to_owned()),
            "current" => Ok(value.clone()),
            "persistent" => Ok(String::new()),
            "default" => Ok(default.to_owned()),
            other => Err(error(format!("invalid output field '{other}'"))),
        };
        out += &row(&fields.split(',').map(field).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(Answer::out(out))
}
