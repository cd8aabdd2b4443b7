//! Whether the pod network collides with what the host already has.

use super::netlink::{Link, LinkAddress, NetworkRoute};
use ipnet::IpNet;

/// The first address or route of the host, on another link than `bridge`, that shares addresses with `cidr`, in words.
/// Default routes don't count (they are not among `routes`).
pub(crate) fn overlap(
    cidr: &IpNet,
    bridge: Option<u32>,
    links: &[Link],
    addresses: &[LinkAddress],
    routes: &[NetworkRoute],
) -> Option<String> {
    let elsewhere = |index: Option<u32>| index.is_none() || index != bridge;
    let name = |index: Option<u32>| {
        links.iter().find(|l| Some(l.index) == index).map_or_else(|| "another link".to_owned(), |l| l.name.clone())
    };
    let address = addresses
        .iter()
        .filter(|a| elsewhere(Some(a.index)))
        .find(|a| shares_addresses(cidr, &a.address.trunc()))
        .map(|a| format!("the address {} of {}", a.address, name(Some(a.index))));
    address.or_else(|| {
        routes
            .iter()
            .filter(|r| elsewhere(r.link))
            .find(|r| shares_addresses(cidr, &r.destination))
            .map(|r| format!("the route to {} through {}", r.destination, name(r.link)))
    })
}

fn shares_addresses(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_route_that_holds_or_lies_in_the_pod_network_collides() {
        let links = [Link { index: 2, name: "eth1".into(), ..Link::default() }];
        for (destination, collides) in
            [("10.88.4.0/24", true), ("10.0.0.0/8", true), ("10.89.0.0/16", false), ("fd00::/8", false)]
        {
            let routes = [NetworkRoute { destination: net(destination), link: Some(2) }];
            let found = overlap(&net("10.88.0.0/16"), None, &links, &[], &routes);
            assert_eq!(found.is_some(), collides, "{destination}: {found:?}");
            if collides {
                assert_eq!(found.unwrap(), format!("the route to {destination} through eth1"));
            }
            assert_eq!(overlap(&net("10.88.0.0/16"), Some(2), &links, &[], &routes), None, "our own bridge");
        }
    }
}
