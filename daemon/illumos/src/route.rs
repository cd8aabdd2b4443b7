//! Routes (route(8), netstat(8)): which link leads outside, and which networks this host reaches.

use ipnet::IpNet;
use reddwarf_command::{Invocation, Tool};
use std::net::IpAddr;

/// Asks for the way out; [`interface`] reads the answer. Fails where there is none.
pub fn get_default(ipv6: bool) -> Invocation {
    let family: &[&str] = if ipv6 { &["-n", "get", "-inet6", "default"] } else { &["-n", "get", "default"] };
    Invocation::read(Tool::Route, family.iter().copied())
}

/// The link that `route get` names.
pub fn interface(text: &str) -> Option<String> {
    let line = text.lines().find_map(|l| l.trim_start().strip_prefix("interface:"))?;
    let name = line.trim();
    let plain =
        !name.is_empty() && name.len() <= 31 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b));
    plain.then(|| name.to_owned())
}

/// Asks for all routes; [`routes`] reads the answer.
pub fn show() -> Invocation {
    Invocation::read(Tool::Netstat, ["-rn", "-f", "inet"])
}

/// Networks and the links that lead there, where the table names one. A network without a prefix length has that of its
/// old class, which is no use to anyone: it is taken as /24 or as a host.
pub fn routes(text: &str) -> Vec<(String, IpNet)> {
    let route = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (destination, _gateway, _flags) = (words.next()?, words.next()?.parse::<IpAddr>().ok()?, words.next()?);
        let link = words.nth(2)?.to_owned();
        let net = match destination.parse::<IpNet>() {
            Ok(net) => net,
            Err(_) => {
                let address: IpAddr = destination.parse().ok()?;
                let host = destination.rsplit('.').next() != Some("0");
                IpNet::new(address, if host { 32 } else { 24 }).ok()?
            }
        };
        Some((link, net))
    };
    text.lines().filter_map(route).filter(|(link, _)| link != "lo0").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_is_the_named_interface() {
        let said = "   route to: default\ndestination: default\n    gateway: 192.0.2.1\n  interface: net0\n      flags: <UP>\n";
        assert_eq!(interface(said).as_deref(), Some("net0"));
        assert_eq!(interface("default: not in table"), None);
        assert_eq!(interface("  interface: net0; rm\n"), None);
        assert_eq!(get_default(false).to_string(), "route -n get default");
    }

    #[test]
    fn a_table_is_read_line_by_line() {
        let text = "\nRouting Table: IPv4\n  Destination           Gateway           Flags  Ref     Use     Interface \n\
                    -------------------- -------------------- ----- ----- ---------- --------- \n\
                    default              192.0.2.1            UG        1          0           \n\
                    192.0.2.0            192.0.2.2            U         1          0 net0      \n\
                    127.0.0.1            127.0.0.1            UH        2          0 lo0       \n";
        assert_eq!(routes(text), [("net0".to_owned(), "192.0.2.0/24".parse().unwrap())]);
    }
}
