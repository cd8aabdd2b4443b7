//! A network without some of its parts, as networks.

use ipnet::IpNet;

/// `net` without `holes`: the fewest networks that hold the rest.
pub(super) fn without(net: IpNet, holes: &[IpNet]) -> Vec<IpNet> {
    let mut left = vec![net];
    for hole in holes {
        left = left.into_iter().flat_map(|part| minus(part, *hole)).collect();
    }
    left
}

fn minus(mut part: IpNet, hole: IpNet) -> Vec<IpNet> {
    if hole.contains(&part) {
        return Vec::new();
    }
    if !part.contains(&hole) {
        return vec![part];
    }
    // Halve until what is left is the hole; the other halves stay.
    let mut kept = Vec::new();
    while part != hole {
        let Ok(halves) = part.subnets(part.prefix_len() + 1) else { break };
        let (inside, outside): (Vec<IpNet>, Vec<IpNet>) = halves.partition(|half| half.contains(&hole));
        kept.extend(outside);
        match inside.first() {
            Some(half) => part = *half,
            None => break,
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    proptest! {
        #[test]
        fn an_address_is_left_exactly_when_it_is_in_no_hole(
            length in 8_u8..=30,
            holes in prop::collection::vec((any::<u32>(), 8_u8..=32), 0..5),
            probes in prop::collection::vec(any::<u32>(), 1..50),
        ) {
            let net = IpNet::new(IpAddr::from([10, 0, 0, 0]), length).unwrap().trunc();
            let inside = |bits: u32| IpAddr::from(Ipv4Addr::from(0x0a00_0000 | (bits & (u32::MAX >> length))));
            let holes: Vec<IpNet> = holes.iter().map(|(a, l)| IpNet::new(inside(*a), *l).unwrap().trunc()).collect();
            let left = without(net, &holes);
            for probe in probes {
                let address = inside(probe);
                let wanted = !holes.iter().any(|h| h.contains(&address));
                prop_assert_eq!(left.iter().filter(|n| n.contains(&address)).count(), usize::from(wanted), "{} in {:?}", address, left);
            }
        }
    }
}
