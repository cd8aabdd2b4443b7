//! route(8) and `netstat -rn`.

use crate::call::{Answer, Call};
use crate::state::State;
use ipnet::IpNet;
use std::net::IpAddr;

/// One call of route or netstat.
pub(crate) fn run(call: &Call<'_>, state: &mut State) -> Answer {
    let words: Vec<&str> = call.words();
    if call.tool == "netstat" {
        return netstat(state, &words);
    }
    let rest: Vec<&str> = words.into_iter().filter(|w| !matches!(*w, "-n" | "-p" | "-q")).collect();
    match rest.as_slice() {
        [verb @ ("add" | "delete"), words @ ..] => {
            let words: Vec<&str> = words.iter().copied().filter(|w| !matches!(*w, "-inet" | "-inet6")).collect();
            let (destination, router) = match words.as_slice() {
                ["-net" | "-host", destination, router] => (*destination, *router),
                [destination @ "default", router] => (*destination, *router),
                [destination, router] if !destination.starts_with('-') => (*destination, *router),
                _ => return Answer::fail("usage: route [-fnvq] cmd [[-<qualifers>] args ]"),
            };
            let proper = destination == "default"
                || destination.parse::<IpNet>().is_ok()
                || destination.parse::<IpAddr>().is_ok();
            if !proper || router.parse::<IpAddr>().is_err() {
                return Answer::fail(format!("{verb} net {destination}: gateway {router}: bad address"));
            }
            let entry = (destination.to_owned(), router.to_owned());
            match *verb {
                "add" if !state.routes.insert(entry) => {
                    Answer::fail(format!("add net {destination}: gateway {router}: entry exists"))
                }
                "delete" if !state.routes.remove(&(destination.to_owned(), router.to_owned())) => {
                    Answer::fail(format!("delete net {destination}: gateway {router}: not in table"))
                }
                _ => Answer::out(format!("{verb} net {destination}: gateway {router}\n")),
            }
        }
        ["get", words @ ..] => get(state, words.last().copied().unwrap_or_default(), words.contains(&"-inet6")),
        _ => Answer::fail("usage: route [-fnvq] cmd [[-<qualifers>] args ]"),
    }
}

/// The link that an address is reached by, and the router on the way.
fn get(state: &State, destination: &str, ipv6: bool) -> Answer {
    let wanted = match destination {
        "default" => None,
        text => match text.parse::<IpAddr>() {
            Ok(ip) => Some(ip),
            Err(_) => return Answer::fail(format!("{destination}: bad address")),
        },
    };
    let on_link = |ip: IpAddr| {
        let mut all = state.interfaces.iter().flat_map(|(l, i)| i.addresses.values().map(move |a| (l, a)));
        all.find(|(_, a)| a.address.parse::<IpNet>().is_ok_and(|n| n.contains(&ip))).map(|(l, _)| l.clone())
    };
    let direct = wanted.and_then(on_link);
    let ipv6 = wanted.map_or(ipv6, |ip| ip.is_ipv6());
    let of_family = |router: &str| router.parse::<IpAddr>().is_ok_and(|r| r.is_ipv6() == ipv6);
    let router = state.routes.iter().find(|(d, r)| d == "default" && of_family(r)).map(|(_, r)| r.clone());
    let (gateway, link) = match (direct, router) {
        (Some(link), _) => (String::new(), link),
        (None, Some(router)) => {
            let link = router.parse().ok().and_then(on_link);
            (format!("    gateway: {router}\n"), link.unwrap_or_default())
        }
        (None, None) => return Answer::fail(format!("{destination}: not in table")),
    };
    Answer::out(format!(
        "   route to: {destination}\ndestination: {destination}\n{gateway}  interface: {link}\n      flags: <UP,DONE>\n"
    ))
}

fn netstat(state: &State, words: &[&str]) -> Answer {
    if let ["-an", "-f", family @ ("inet" | "inet6"), "-P", protocol @ ("tcp" | "udp")] = words {
        let (name, family) = (protocol.to_ascii_uppercase(), if *family == "inet" { "IPv4" } else { "IPv6" });
        return Answer::out(format!(
            "\n{name}: {family}\n   Local Address        Remote Address    Swind Send-Q Rwind Recv-Q    State\n"
        ));
    }
    if words == ["-rn", "-f", "inet6"] {
        return six(state);
    }
    if words != ["-rn", "-f", "inet"] && words != ["-rn"] {
        return Answer::fail("hostsim: netstat is played as -rn and -an only");
    }
    let mut out = String::from(
        "\nRouting Table: IPv4\n  Destination           Gateway           Flags  Ref     Use     Interface \n\
         -------------------- -------------------- ----- ----- ---------- --------- \n",
    );
    for (destination, router) in state.routes.iter().filter(|(_, router)| !router.contains(':')) {
        out += &format!("{destination:<20} {router:<20} UG        1          0           \n");
    }
    for (link, interface) in &state.interfaces {
        for net in
            interface.addresses.values().filter_map(|a| a.address.parse::<IpNet>().ok()).filter(|n| n.addr().is_ipv4())
        {
            out += &format!(
                "{:<20} {:<20} U         1          0 {link:<10}\n",
                net.network().to_string(),
                net.addr().to_string()
            );
        }
    }
    Answer::out(out + "127.0.0.1            127.0.0.1            UH        2          0 lo0       \n")
}

fn six(state: &State) -> Answer {
    let mut out = String::from(
        "\nRouting Table: IPv6\n  Destination/Mask            Gateway                   Flags Ref   Use    If   \n\
         --------------------------- --------------------------- ----- --- ------- ----- \n",
    );
    for (destination, router) in state.routes.iter().filter(|(_, router)| router.contains(':')) {
        out += &format!("{destination:<27} {router:<27} UG      2       0       \n");
    }
    for (link, interface) in &state.interfaces {
        let nets = interface.addresses.values().filter_map(|a| a.address.parse::<IpNet>().ok());
        for net in nets.filter(|n| n.addr().is_ipv6()) {
            out += &format!(
                "{:<27} {:<27} U       2       0 {link:<5}\n",
                net.trunc().to_string(),
                net.addr().to_string()
            );
        }
    }
    Answer::out(out + "::1                         ::1                         UH      2       0 lo0   \n")
}
