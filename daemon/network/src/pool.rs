//! One range of addresses and their holders.

use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why a pool can't be made or can't give an address. The text says which pool and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The range's address has bits beyond its prefix.
    #[error("address range {cidr} has bits set beyond its prefix; write {network}")]
    HostBits {
        /// As written.
        cidr: IpNet,
        /// As meant.
        network: IpNet,
    },
    /// No address is left beside the gateway.
    #[error("address range {cidr} has no room for a gateway and one more address; choose a shorter prefix")]
    TooSmall {
        /// The range.
        cidr: IpNet,
    },
    /// The range overlaps one that the host uses already.
    #[error("address range {cidr} overlaps {route}, which this host uses already; choose another range")]
    Overlap {
        /// The range.
        cidr: IpNet,
        /// The host's.
        route: IpNet,
    },
    /// All addresses are held.
    #[error(
        "no address is left in {cidr}: {used} of {size} in use; delete what is no longer wanted or choose a larger range"
    )]
    Exhausted {
        /// The range.
        cidr: IpNet,
        /// Addresses held.
        used: u128,
        /// Addresses that can be held.
        size: u128,
    },
    /// The address is not of this pool.
    #[error("address {address} is not in {cidr}; choose one of {first} to {last}")]
    Outside {
        /// The address.
        address: IpAddr,
        /// The range.
        cidr: IpNet,
        /// The lowest that can be had.
        first: IpAddr,
        /// The highest that can be had.
        last: IpAddr,
    },
    /// The address is set aside.
    #[error("address {address} of {cidr} is set aside ({why}); choose another one")]
    Reserved {
        /// The address.
        address: IpAddr,
        /// The range.
        cidr: IpNet,
        /// As what.
        why: &'static str,
    },
    /// Someone else holds the address.
    #[error("address {address} belongs to {holder}; choose another one, or none to have one chosen")]
    Taken {
        /// The address.
        address: IpAddr,
        /// Who holds it.
        holder: String,
    },
    /// The owner holds another address of this pool.
    #[error("{owner} holds {present} already and can't have {asked} as well")]
    HoldsAnother {
        /// Who asks.
        owner: String,
        /// What it has.
        present: IpAddr,
        /// What it asks for.
        asked: IpAddr,
    },
}

/// Which addresses of one range are free, who holds the others, and which comes next.
///
/// Never given out: the network address and the broadcast address (IPv4, RFC 919), the subnet-router anycast address
/// (IPv6, RFC 4291 section 2.6.1), the gateway, what the caller reserves. Ranges of two addresses have neither
/// network nor broadcast address (RFC 3021, RFC 6164). The gateway is the first host address.
///
/// Addresses are given in order, beginning after the last one given and wrapping around, so that an address that
/// just came free rests for as long as the range allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    cidr: IpNet,
    /// The first address given out lies after this one.
    gateway: u128,
    /// The last address that can be given out.
    last: u128,
    reserved: BTreeSet<u128>,
    holders: BTreeMap<u128, String>,
    addresses: BTreeMap<String, u128>,
    /// Where the search begins.
    next: u128,
}

impl Pool {
    /// A pool of `cidr` without `reserved` (addresses outside the range do not matter), nothing held yet.
    ///
    /// # Errors
    /// [`PoolError::HostBits`], [`PoolError::TooSmall`].
    pub fn new(cidr: IpNet, reserved: impl IntoIterator<Item = IpAddr>) -> Result<Self, PoolError> {
        if cidr != cidr.trunc() {
            return Err(PoolError::HostBits { cidr, network: cidr.trunc() });
        }
        let spare = cidr.max_prefix_len() - cidr.prefix_len();
        let (first, last) = (number(cidr.network()), number(cidr.broadcast()));
        let (gateway, last) = match (spare, &cidr) {
            (0, _) => return Err(PoolError::TooSmall { cidr }),
            (1, _) => (first, last),
            (_, IpNet::V4(_)) => (first + 1, last - 1),
            (_, IpNet::V6(_)) => (first + 1, last),
        };
        let inside = reserved.into_iter().filter(|a| cidr.contains(a)).map(number);
        let reserved = inside.filter(|a| (gateway + 1..=last).contains(a)).collect();
        let pool = Self {
            cidr,
            gateway,
            last,
            reserved,
            holders: BTreeMap::new(),
            addresses: BTreeMap::new(),
            next: gateway + 1,
        };
        if pool.size() == 0 { Err(PoolError::TooSmall { cidr }) } else { Ok(pool) }
    }

    /// A pool as durable reservations (address, owner) describe it. Those that the pool can't hold, because the range
    /// was changed under live pods or two claim one address, are returned with the reason: their pods have to be
    /// made anew or the range put back, and nothing is guessed here.
    ///
    /// The search goes on after the highest address held.
    ///
    /// # Errors
    /// As [`Pool::new`].
    pub fn from_reservations(
        cidr: IpNet,
        reserved: impl IntoIterator<Item = IpAddr>,
        reservations: impl IntoIterator<Item = (IpAddr, String)>,
    ) -> Result<(Self, Vec<PoolError>), PoolError> {
        let mut pool = Self::new(cidr, reserved)?;
        let mut misfits = Vec::new();
        for (address, owner) in reservations {
            misfits.extend(pool.take(address, &owner).err());
        }
        let highest = pool.holders.last_key_value().map_or(pool.gateway, |(a, _)| *a);
        pool.next = pool.after(highest);
        Ok((pool, misfits))
    }

    /// The range.
    pub fn cidr(&self) -> IpNet {
        self.cidr
    }

    /// The first host address: the host's own address in the range.
    pub fn gateway(&self) -> IpAddr {
        self.address(self.gateway)
    }

    /// An address of this pool with the range's prefix length, as interfaces want it.
    pub fn with_prefix(&self, address: IpAddr) -> IpNet {
        // The prefix length is that of a valid network of the same family; a foreign family keeps its own longest.
        IpNet::new(address, self.cidr.prefix_len()).unwrap_or_else(|_| IpNet::from(address))
    }

    /// How many addresses can be held.
    pub fn size(&self) -> u128 {
        (self.last - self.gateway) - self.reserved.len() as u128
    }

    /// How many addresses are held.
    pub fn used(&self) -> u128 {
        self.holders.len() as u128
    }

    /// Who holds `address`.
    pub fn holder(&self, address: IpAddr) -> Option<&str> {
        self.same_family(address).then(|| self.holders.get(&number(address)))?.map(String::as_str)
    }

    /// The address that `owner` holds.
    pub fn held_by(&self, owner: &str) -> Option<IpAddr> {
        self.addresses.get(owner).map(|n| self.address(*n))
    }

    /// Addresses held, with their holders, in order of address.
    pub fn holders(&self) -> impl Iterator<Item = (IpAddr, &str)> {
        self.holders.iter().map(|(n, owner)| (self.address(*n), owner.as_str()))
    }

    /// Gives `owner` the next free address, or the one that it holds already.
    ///
    /// # Errors
    /// [`PoolError::Exhausted`].
    pub fn allocate(&mut self, owner: &str) -> Result<IpAddr, PoolError> {
        if let Some(address) = self.held_by(owner) {
            return Ok(address);
        }
        if self.used() >= self.size() {
            return Err(PoolError::Exhausted { cidr: self.cidr, used: self.used(), size: self.size() });
        }
        let found = self.free_from(self.next).or_else(|| self.free_from(self.gateway + 1));
        let Some(found) = found else {
            return Err(PoolError::Exhausted { cidr: self.cidr, used: self.used(), size: self.size() });
        };
        self.hold(found, owner);
        self.next = self.after(found);
        Ok(self.address(found))
    }

    /// Whether the pool could ever give this address out.
    pub fn is_ours(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address) && self.set_aside(number(address)).is_none()
    }

    /// The next address behind `last` (wrapping around) that nobody holds here and that is not `taken` elsewhere, for
    /// callers who keep the holders themselves. Nothing is held by asking.
    pub fn next_free(&self, last: Option<IpAddr>, taken: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let start = last.filter(|l| self.is_ours(*l)).map_or(self.gateway + 1, |l| self.after(number(l)));
        let mut candidates = (start..=self.last).chain(self.gateway + 1..start);
        let free = |n: &u128| self.set_aside(*n).is_none() && !self.holders.contains_key(n) && !taken(self.address(*n));
        candidates.find(free).map(|n| self.address(n))
    }

    /// Gives `owner` the address of its choice; holding it already is fine.
    ///
    /// # Errors
    /// [`PoolError::Outside`], [`PoolError::Reserved`], [`PoolError::Taken`], [`PoolError::HoldsAnother`].
    pub fn take(&mut self, address: IpAddr, owner: &str) -> Result<(), PoolError> {
        if !self.cidr.contains(&address) {
            let (first, last) = (self.address(self.gateway + 1), self.address(self.last));
            return Err(PoolError::Outside { address, cidr: self.cidr, first, last });
        }
        let wanted = number(address);
        if let Some(why) = self.set_aside(wanted) {
            return Err(PoolError::Reserved { address, cidr: self.cidr, why });
        }
        match self.holders.get(&wanted) {
            Some(holder) if holder == owner => return Ok(()),
            Some(holder) => return Err(PoolError::Taken { address, holder: holder.clone() }),
            None => {}
        }
        if let Some(present) = self.held_by(owner) {
            return Err(PoolError::HoldsAnother { owner: owner.into(), present, asked: address });
        }
        self.hold(wanted, owner);
        Ok(())
    }

    /// Takes `address` back from `owner`. False, and nothing is changed, when `owner` does not hold it: a late release
    /// never takes an address from its next holder.
    pub fn release(&mut self, address: IpAddr, owner: &str) -> bool {
        if self.holder(address) != Some(owner) {
            return false;
        }
        self.holders.remove(&number(address));
        self.addresses.remove(owner);
        true
    }

    /// Checks the range against the routes that the host has besides ours.
    ///
    /// # Errors
    /// [`PoolError::Overlap`] with the first that overlaps. A default route (prefix length 0) overlaps nothing.
    pub fn check_routes(&self, routes: impl IntoIterator<Item = IpNet>) -> Result<(), PoolError> {
        match routes.into_iter().find(|r| r.prefix_len() > 0 && (r.contains(&self.cidr) || self.cidr.contains(r))) {
            Some(route) => Err(PoolError::Overlap { cidr: self.cidr, route }),
            None => Ok(()),
        }
    }

    fn hold(&mut self, address: u128, owner: &str) {
        self.holders.insert(address, owner.into());
        self.addresses.insert(owner.into(), address);
    }

    /// Why an address inside the range is never given out.
    fn set_aside(&self, address: u128) -> Option<&'static str> {
        match address {
            a if a == self.gateway => Some("gateway"),
            a if a < self.gateway => Some("network address"),
            a if a > self.last => Some("broadcast address"),
            a if self.reserved.contains(&a) => Some("reserved"),
            _ => None,
        }
    }

    /// The lowest free address from `start` up; walks over runs of held and reserved ones only.
    fn free_from(&self, start: u128) -> Option<u128> {
        let mut candidate = start;
        let mut held = self.holders.range(start..).map(|(a, _)| *a).peekable();
        let mut reserved = self.reserved.range(start..).copied().peekable();
        while candidate <= self.last {
            if held.next_if_eq(&candidate).is_none() && reserved.next_if_eq(&candidate).is_none() {
                return Some(candidate);
            }
            candidate = candidate.checked_add(1)?;
        }
        None
    }

    fn after(&self, address: u128) -> u128 {
        if address >= self.last { self.gateway + 1 } else { address + 1 }
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.cidr {
            // A number of an IPv4 pool lies within its range, below 2^32.
            IpNet::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
            IpNet::V6(_) => Ipv6Addr::from(number).into(),
        }
    }

    fn same_family(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_next_free_address_lies_behind_the_last_and_wraps_around() {
        let mut pool = pool("10.0.0.0/29");
        let ip = |n: u8| IpAddr::from([10, 0, 0, n]);
        assert_eq!(pool.next_free(None, |_| false), Some(ip(2)));
        assert_eq!(pool.next_free(Some(ip(6)), |_| false), Some(ip(2)), "the broadcast address is nobody's");
        pool.take(ip(4), "a").unwrap();
        assert_eq!(pool.next_free(Some(ip(2)), |a| a == ip(3)), Some(ip(5)));
        assert_eq!(pool.next_free(None, |a| a != ip(4)), None);
        assert_eq!(pool.next_free(Some("10.9.9.9".parse().unwrap()), |_| false), Some(ip(2)), "a foreign last is none");
        assert!(pool.is_ours(ip(6)) && !pool.is_ours(ip(1)) && !pool.is_ours(ip(7)));
    }

    fn pool(cidr: &str) -> Pool {
        Pool::new(cidr.parse().unwrap(), []).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn all(pool: &mut Pool) -> Vec<String> {
        (0..).map_while(|n| pool.allocate(&format!("pod-{n}")).ok()).map(|a| a.to_string()).collect()
    }

    #[test]
    fn small_ranges_give_what_they_have() {
        let mut four = pool("10.0.0.0/30");
        assert_eq!(four.gateway(), ip("10.0.0.1"));
        assert_eq!(all(&mut four), ["10.0.0.2"]);
        let mut two = pool("10.0.0.0/31");
        assert_eq!(two.gateway(), ip("10.0.0.0"));
        assert_eq!(all(&mut two), ["10.0.0.1"]);
        let mut eight = pool("10.0.0.8/29");
        assert_eq!(all(&mut eight), ["10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14"]);
        let mut six = pool("fd00::/126");
        assert_eq!(six.gateway(), ip("fd00::1"));
        assert_eq!(all(&mut six), ["fd00::2", "fd00::3"]);
        assert_eq!(all(&mut pool("fd00::/127")), ["fd00::1"]);
    }

    #[test]
    fn ranges_that_can_not_work_are_refused_with_a_way_out() {
        let refuse = |cidr: &str| Pool::new(cidr.parse().unwrap(), []).unwrap_err().to_string();
        assert_eq!(
            refuse("10.88.3.1/16"),
            "address range 10.88.3.1/16 has bits set beyond its prefix; write 10.88.0.0/16"
        );
        assert!(refuse("10.0.0.1/32").contains("choose a shorter prefix"));
        assert!(refuse("fd00::1/128").contains("choose a shorter prefix"));
        assert!(Pool::new("10.0.0.0/30".parse().unwrap(), [ip("10.0.0.2")]).is_err());
        let routes = ["0.0.0.0/0", "192.168.0.0/24", "10.88.7.0/24"].map(|r| r.parse().unwrap());
        let overlap = pool("10.88.0.0/16").check_routes(routes).unwrap_err();
        assert!(overlap.to_string().contains("overlaps 10.88.7.0/24"), "{overlap}");
        assert_eq!(pool("10.88.0.0/16").check_routes(["0.0.0.0/0".parse().unwrap()]), Ok(()));
        assert!(pool("10.88.0.0/16").check_routes(["10.0.0.0/8".parse().unwrap()]).is_err());
    }

    #[test]
    fn exhaustion_says_which_pool_and_how_full_and_is_cured_by_a_release() {
        let mut pool = pool("10.0.0.0/29");
        assert_eq!(all(&mut pool).len(), 5);
        assert_eq!(
            pool.allocate("late").unwrap_err().to_string(),
            "no address is left in 10.0.0.0/29: 5 of 5 in use; delete what is no longer wanted or choose a larger range"
        );
        assert!(pool.release(ip("10.0.0.4"), "pod-2"));
        assert_eq!(pool.allocate("late"), Ok(ip("10.0.0.4")));
    }

    #[test]
    fn chosen_addresses_are_checked() {
        let mut pool = Pool::new("10.0.0.0/24".parse().unwrap(), [ip("10.0.0.53")]).unwrap();
        assert_eq!(pool.take(ip("10.0.0.9"), "a"), Ok(()));
        assert_eq!(pool.take(ip("10.0.0.9"), "a"), Ok(()));
        let text = |r: Result<(), PoolError>| r.unwrap_err().to_string();
        assert!(text(pool.take(ip("10.0.0.9"), "b")).contains("belongs to a"));
        assert!(text(pool.take(ip("10.0.0.10"), "a")).contains("holds 10.0.0.9 already"));
        assert!(text(pool.take(ip("10.0.0.0"), "b")).contains("network address"));
        assert!(text(pool.take(ip("10.0.0.1"), "b")).contains("gateway"));
        assert!(text(pool.take(ip("10.0.0.255"), "b")).contains("broadcast"));
        assert!(text(pool.take(ip("10.0.0.53"), "b")).contains("reserved"));
        assert!(text(pool.take(ip("10.0.1.1"), "b")).contains("choose one of 10.0.0.2 to 10.0.0.254"));
        assert!(text(pool.take(ip("fd00::9"), "b")).contains("not in 10.0.0.0/24"));
        assert!(!pool.release(ip("10.0.0.9"), "b"), "a stranger releases nothing");
        assert_eq!(pool.holder(ip("10.0.0.9")), Some("a"));
    }

    #[test]
    fn a_pool_comes_back_from_its_reservations_and_names_what_does_not_fit() {
        let held = [("10.0.0.7", "a"), ("10.9.0.7", "b"), ("10.0.0.7", "c"), ("10.0.0.3", "d")];
        let held = held.map(|(a, o)| (ip(a), o.to_owned()));
        let (mut pool, misfits) = Pool::from_reservations("10.0.0.0/24".parse().unwrap(), [], held).unwrap();
        assert_eq!(pool.used(), 2);
        assert!(matches!(&misfits[..], [PoolError::Outside { .. }, PoolError::Taken { .. }]), "{misfits:?}");
        assert_eq!(pool.allocate("new"), Ok(ip("10.0.0.8")), "the search goes on after the highest");
        assert_eq!(pool.allocate("a"), Ok(ip("10.0.0.7")), "who holds one keeps it");
        assert_eq!(pool.with_prefix(ip("10.0.0.8")).to_string(), "10.0.0.8/24");
    }

    #[test]
    fn a_huge_range_is_as_quick_as_a_small_one() {
        let mut pool = pool("::/0");
        assert_eq!(pool.allocate("a"), Ok(ip("::2")));
        let mut pool = self::pool("fd00::/48");
        assert_eq!(pool.allocate("a"), Ok(ip("fd00::2")));
        assert_eq!(pool.size(), (1 << 80) - 2);
    }

    /// U8, I05, I06: addresses were looked up, then written; two owners could get one. Ten thousand rounds, pods and
    /// services (of both families) interleaved, against a model.
    #[test]
    fn u8_churn_never_gives_an_address_to_two_owners() {
        let mut pools = [pool("10.88.0.0/24"), pool("10.96.0.0/24"), pool("fd01::/120")];
        let mut models = [BTreeMap::<IpAddr, String>::new(), BTreeMap::new(), BTreeMap::new()];
        // A plain linear congruence: reproducible, and enough to mix two pools.
        let mut seed = 12345_u64;
        for round in 0..10_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (which, action) = (usize::try_from((seed >> 33) % 3).unwrap(), seed >> 40 & 7);
            let (pool, model) = (&mut pools[which], &mut models[which]);
            if action < 5 {
                match pool.allocate(&format!("pod-{round}")) {
                    Ok(address) => {
                        assert!(model.insert(address, format!("pod-{round}")).is_none(), "{address} given twice");
                        assert!(pool.cidr().contains(&address) && address != pool.gateway());
                    }
                    Err(error) => assert_eq!(model.len() as u128, pool.size(), "{error}"),
                }
            } else if let Some(address) = model.keys().nth((seed >> 45) as usize % model.len().max(1)).copied() {
                let owner = model.remove(&address).unwrap();
                assert!(pool.release(address, &owner));
            }
            assert_eq!(pool.used(), model.len() as u128);
        }
        let all: BTreeSet<IpAddr> = models.iter().flat_map(BTreeMap::keys).copied().collect();
        assert_eq!(all.len(), models.iter().map(BTreeMap::len).sum::<usize>(), "pools overlap");
    }

    proptest! {
        #[test]
        fn any_range_gives_each_of_its_addresses_once(base in any::<u32>(), prefix in 22u8..=31, gaps in prop::collection::vec(any::<u16>(), 0..20)) {
            let cidr: IpNet = ipnet::Ipv4Net::new(base.into(), prefix).unwrap().trunc().into();
            let reserved = gaps.iter().map(|g| IpAddr::from(Ipv4Addr::from(base & !0x3ff | u32::from(*g) & 0x3ff)));
            let Ok(mut pool) = Pool::new(cidr, reserved.clone()) else { return Ok(()) };
            let mut seen = BTreeSet::new();
            for n in 0..pool.size() {
                let address = pool.allocate(&format!("{n}")).unwrap();
                prop_assert!(seen.insert(address));
                prop_assert!(cidr.contains(&address) && address != pool.gateway());
                prop_assert!(prefix == 31 || (address != cidr.network() && address != cidr.broadcast()));
                prop_assert!(reserved.clone().all(|r| r != address));
            }
            prop_assert!(matches!(pool.allocate("more"), Err(PoolError::Exhausted { .. })), "one more");
        }

        #[test]
        fn an_address_that_came_free_rests_while_others_are_free(released in 0usize..50) {
            let mut pool = pool("10.2.0.0/24");
            let given: Vec<IpAddr> = (0..50).map(|n| pool.allocate(&format!("{n}")).unwrap()).collect();
            prop_assert!(pool.release(given[released], &released.to_string()));
            for n in 50..253 {
                prop_assert_ne!(pool.allocate(&n.to_string()).unwrap(), given[released]);
            }
            prop_assert_eq!(pool.allocate("last").unwrap(), given[released]);
        }

        #[test]
        fn reservations_round_trip(actions in prop::collection::vec((any::<bool>(), 0u8..40), 0..200)) {
            let mut pool = pool("10.3.0.0/27");
            for (give, n) in actions {
                let owner = format!("pod-{n}");
                if give {
                    let _ = pool.allocate(&owner);
                } else if let Some(address) = pool.held_by(&owner) {
                    prop_assert!(pool.release(address, &owner));
                }
            }
            let held: Vec<_> = pool.holders().map(|(a, o)| (a, o.to_owned())).collect();
            let (again, misfits) = Pool::from_reservations(pool.cidr(), [], held).unwrap();
            prop_assert!(misfits.is_empty());
            prop_assert!(again.holders().eq(pool.holders()));
        }
    }
}
