//! Addresses of the global zone and forwarding (ipadm(8)), routes (route(8)). All of ours are temporary (`-t`), as the links
//! under them are. Zones' own addresses come from their configuration.

use crate::dladm::AnswerError;
use crate::parsable;
use ipnet::IpNet;
use reddwarf_command::{Invocation, Tool};
use reddwarf_host::LinkName;
use std::collections::BTreeMap;

/// The address object of a pod network's gateway: `rwgw0/v4`. It has one address of each family at most.
pub fn address_object(link: &LinkName, address: &IpNet) -> String {
    format!("{link}/{}", if address.addr().is_ipv4() { "v4" } else { "v6" })
}

/// Gives a link of the global zone an address; makes the interface where it is missing.
pub fn create_address(link: &LinkName, address: &IpNet) -> Invocation {
    create_object(&address_object(link, address), address)
}

/// The same for any address object, `net0/rwlb…`: an interface has as many addresses as objects.
pub fn create_object(object: &str, address: &IpNet) -> Invocation {
    Invocation::change(Tool::Ipadm, ["create-addr", "-t", "-T", "static", "-a", &format!("local={address}"), object])
}

/// Takes one address object away; its interface and other addresses stay.
pub fn delete_object(object: &str) -> Invocation {
    Invocation::change(Tool::Ipadm, ["delete-addr", object])
}

/// A link-local IPv6 address: needed before any other IPv6 address of the link.
pub fn create_link_local(link: &LinkName) -> Invocation {
    Invocation::change(Tool::Ipadm, ["create-addr", "-t", "-T", "addrconf", &format!("{link}/ll")])
}

/// Takes a link's interface and all its addresses away: before that the link itself can't go.
pub fn delete_interface(link: &LinkName) -> Invocation {
    Invocation::change(Tool::Ipadm, ["delete-if", link.as_str()])
}

/// Asks for all address objects; [`addresses`] reads the answer.
pub fn show_addresses() -> Invocation {
    Invocation::read(Tool::Ipadm, ["show-addr", "-p", "-o", "addrobj,type,state,addr"])
}

/// Lets the host forward packets until its next boot.
pub fn forward(ipv6: bool) -> Invocation {
    set_protocol(ipv6, "forwarding=on")
}

/// Keeps the host from telling pods on one link to bypass it, by the names that this property has: illumos' is private, and
/// handed to the kernel as it is (`ip_tunables.c`), with its underscore and a number; the other is that of Solaris 11.2.
pub fn redirect_nobody(ipv6: bool) -> [Invocation; 2] {
    ["_send_redirects=0", "send_redirects=off"].map(|property| set_protocol(ipv6, property))
}

fn set_protocol(ipv6: bool, property: &str) -> Invocation {
    Invocation::change(Tool::Ipadm, ["set-prop", "-t", "-p", property, if ipv6 { "ipv6" } else { "ipv4" }])
}

/// Asks whether the host forwards packets: `on` or `off`.
pub fn show_forwarding(ipv6: bool) -> Invocation {
    let family = if ipv6 { "ipv6" } else { "ipv4" };
    Invocation::read(Tool::Ipadm, ["show-prop", "-c", "-p", "forwarding", "-o", "current", family])
}

/// The state of an address that serves.
pub const OK: &str = "ok";
/// The state of one that is new: whether somebody else has it is being asked.
pub const TENTATIVE: &str = "tentative";
/// The state of one that another machine answered for. ipadm makes the object all the same.
pub const DUPLICATE: &str = "duplicate";

/// An address object of the global zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `static`, `addrconf`, `dhcp`, `from-gz`.
    pub kind: String,
    /// `ok`, `tentative`, `duplicate`, `inaccessible`, `down`, `disabled`.
    pub state: String,
    /// The address; `None` while there is none.
    pub address: Option<IpNet>,
}

/// Address objects by name.
///
/// # Errors
/// [`AnswerError`].
pub fn addresses(text: &str) -> Result<BTreeMap<String, Address>, AnswerError> {
    let address = |line: &str| {
        let fields = parsable::fields(line);
        let [name, kind, state, address] = &fields[..] else { return None };
        // Scoped addresses (`fe80::1%rwgw0/10`) have their link's name in them.
        let plain = address.split_once('%').map_or_else(
            || address.clone(),
            |(ip, rest)| format!("{ip}{}", rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default()),
        );
        let (kind, state) = (kind.clone(), state.trim_end_matches('*').to_owned());
        Some((name.clone(), Address { kind, state, address: plain.parse().ok() }))
    };
    text.lines().map(|line| address(line).ok_or_else(|| AnswerError(line.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_given_until_the_next_boot_only() {
        let gateway = LinkName::new("rwgw0").unwrap();
        let (four, six) = ("10.88.0.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap());
        assert_eq!(
            create_address(&gateway, &four).to_string(),
            "ipadm create-addr -t -T static -a local=10.88.0.1/24 rwgw0/v4"
        );
        assert_eq!(create_link_local(&gateway).to_string(), "ipadm create-addr -t -T addrconf rwgw0/ll");
        assert!(create_address(&gateway, &six).to_string().ends_with("-a local=fd00::1/64 rwgw0/v6"));
        assert_eq!(delete_interface(&gateway).to_string(), "ipadm delete-if rwgw0");
        let one = "192.0.2.64/32".parse().unwrap();
        assert_eq!(
            create_object("net0/rwlbabc", &one).to_string(),
            "ipadm create-addr -t -T static -a local=192.0.2.64/32 net0/rwlbabc"
        );
        assert_eq!(delete_object("net0/rwlbabc").to_string(), "ipadm delete-addr net0/rwlbabc");
        assert_eq!(forward(false).to_string(), "ipadm set-prop -t -p forwarding=on ipv4");
        let quiet = redirect_nobody(true).map(|run| run.to_string());
        assert_eq!(quiet[0], "ipadm set-prop -t -p _send_redirects=0 ipv6");
        assert_eq!(quiet[1], "ipadm set-prop -t -p send_redirects=off ipv6");
        assert_eq!(show_forwarding(true).to_string(), "ipadm show-prop -c -p forwarding -o current ipv6");
    }

    #[test]
    fn answers_are_read_with_their_escapes() {
        let text = "lo0/v4:static:ok:127.0.0.1/8\nrwgw0/v4:static:tentative:10.88.0.1/24\n\
                    rwgw0/ll:addrconf:ok:fe80\\:\\:8\\:20ff%rwgw0/10\nnet0/dhcp:dhcp:disabled*:\n";
        let shown = addresses(text).unwrap();
        assert_eq!(shown["rwgw0/v4"].address, Some("10.88.0.1/24".parse().unwrap()));
        assert_eq!(shown["rwgw0/v4"].state, "tentative");
        assert_eq!(shown["rwgw0/ll"].address, Some("fe80::8:20ff/10".parse().unwrap()));
        assert_eq!((shown["net0/dhcp"].state.as_str(), shown["net0/dhcp"].address), ("disabled", None));
        assert!(addresses("rwgw0/v4:static").is_err());
    }
}
