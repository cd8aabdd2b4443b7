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

/// Asks for all routes of a family; [`routes`] reads the answer.
pub fn show(ipv6: bool) -> Invocation {
    Invocation::read(Tool::Netstat, ["-rn", "-f", if ipv6 { "inet6" } else { "inet" }])
}

/// Networks and the links that lead there, where the table names one, those of the links themselves left out. An IPv4
/// network without a prefix length has that of its old class, which is no use to anyone: it is taken as /24 or as a host.
pub fn routes(text: &str) -> Vec<(String, IpNet)> {
    let route = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (destination, _gateway, _flags) = (words.next()?, words.next()?.parse::<IpAddr>().ok()?, words.next()?);
        let link = words.nth(2)?.to_owned();
        let net = match destination.parse::<IpNet>() {
            Ok(net) => net,
            Err(_) => {
                let address: IpAddr = destination.parse().ok()?;
                let network = address.is_ipv4() && destination.rsplit('.').next() == Some("0");
                if network { IpNet::new(address, 24).ok()? } else { IpNet::from(address) }
            }
        };
        Some((link, net))
    };
    let of_links =
        |net: &IpNet| matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local() || v6.addr().is_multicast());
    text.lines().filter_map(route).filter(|(link, net)| link != "lo0" && !of_links(net)).collect()
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
        let text = "\nRouting Table: IPv6\n  Destination/Mask            Gateway                   Flags Ref   Use    If   \n\
                    --------------------------- --------------------------- ----- --- ------- ----- \n\
                    default                     fe80::1                     UG      2       0 net0  \n\
                    fd00:2::/64                 fd00:2::2                   U       2       0 net0  \n\
                    fe80::/10                   fe80::8:20ff:fe00:1         U       2       0 net0  \n\
                    ::1                         ::1                         UH      2       0 lo0   \n";
        assert_eq!(routes(text), [("net0".to_owned(), "fd00:2::/64".parse().unwrap())]);
        assert_eq!([show(false), show(true)].map(|r| r.to_string()), ["netstat -rn -f inet", "netstat -rn -f inet6"]);
        assert_eq!(get_default(true).to_string(), "route -n get -inet6 default");
    }
}
