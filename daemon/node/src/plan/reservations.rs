//! Who was promised which address. The durable truth is in the store; this is its image in memory, with the claims
//! of plans that are being carried out.

use crate::control_plane::Promise;
use crate::key::PodKey;
use reddwarf_host::PodUid;
use reddwarf_host::spec::Subnet;
use reddwarf_network::Pool;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Promises, durable and claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservations {
    /// The ranges, one or one of each family; they hold nobody. `None`: one is too small for any pod.
    pools: Option<Vec<Pool>>,
    /// Durable promises of addresses.
    held: BTreeMap<IpAddr, PodUid>,
    /// Durable holders.
    holders: BTreeMap<PodUid, Holder>,
    /// The same by the pod's name.
    by_pod: BTreeMap<PodKey, BTreeSet<PodUid>>,
    /// Chosen by a plan, not yet durable.
    claims: Claims,
    /// The address of each family given last: the next one is looked for behind it, so that an address rests before it
    /// is used anew.
    last: Vec<IpAddr>,
}

/// A durable holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The pod as it was called.
    pub pod: PodKey,
    /// Found on the host after the database was lost.
    pub rebuilt: bool,
    /// Its durable addresses.
    pub addresses: BTreeSet<IpAddr>,
}

/// Addresses chosen by plans that are being carried out: at most one of each family of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Claims {
    by_address: BTreeMap<IpAddr, PodUid>,
    by_uid: BTreeMap<PodUid, BTreeSet<IpAddr>>,
}

impl Claims {
    fn of(&self, uid: &PodUid) -> impl Iterator<Item = IpAddr> {
        self.by_uid.get(uid).into_iter().flatten().copied()
    }

    fn knows(&self, uid: &PodUid) -> bool {
        self.by_uid.contains_key(uid)
    }

    fn insert(&mut self, address: IpAddr, uid: PodUid) {
        let former = self.of(&uid).find(|a| a.is_ipv4() == address.is_ipv4());
        former.into_iter().for_each(|former| self.remove_address(former));
        self.by_address.insert(address, uid.clone());
        self.by_uid.entry(uid).or_default().insert(address);
    }

    fn remove(&mut self, uid: &PodUid) {
        for address in self.by_uid.remove(uid).into_iter().flatten() {
            self.by_address.remove(&address);
        }
    }

    fn remove_address(&mut self, address: IpAddr) {
        if let Some(uid) = self.by_address.remove(&address)
            && let Some(all) = self.by_uid.get_mut(&uid)
        {
            all.remove(&address);
            if all.is_empty() {
                self.by_uid.remove(&uid);
            }
        }
    }
}

impl Reservations {
    /// No promises yet, in these networks: one, or one of each family.
    pub fn new(subnets: &[Subnet]) -> Self {
        let pools = subnets.iter().map(|s| Pool::new(s.cidr.trunc(), [s.gateway]));
        Self {
            pools: pools.collect::<Result<_, _>>().ok(),
            held: BTreeMap::new(),
            holders: BTreeMap::new(),
            by_pod: BTreeMap::new(),
            claims: Claims::default(),
            last: Vec::new(),
        }
    }

    /// Notes a durable promise.
    pub fn promise(&mut self, promise: Promise) {
        let Promise { uid, pod, addresses, rebuilt } = promise;
        self.by_pod.entry(pod.clone()).or_default().insert(uid.clone());
        let holder = self.holders.entry(uid.clone()).or_insert(Holder { pod, rebuilt, addresses: BTreeSet::new() });
        for address in addresses {
            holder.addresses.insert(address);
            self.claims.remove_address(address);
            self.held.insert(address, uid.clone());
        }
    }

    /// Replaces all durable promises by what the store holds. Claims stay.
    pub fn replace(&mut self, promises: Vec<Promise>) {
        self.held.clear();
        self.holders.clear();
        self.by_pod.clear();
        for promise in promises {
            self.promise(promise);
        }
        for address in self.held.keys() {
            self.claims.remove_address(*address);
        }
    }

    /// Notes that a promise was taken back durably; `None`: all of the holder's.
    pub fn release(&mut self, uid: &PodUid, address: Option<IpAddr>) {
        let goes = |a: &IpAddr, u: &PodUid| u == uid && address.is_none_or(|only| only == *a);
        self.held.retain(|a, u| !goes(a, u));
        match address {
            Some(address) => {
                if self.claims.of(uid).any(|claimed| claimed == address) {
                    self.claims.remove_address(address);
                }
                if let Some(holder) = self.holders.get_mut(uid) {
                    holder.addresses.remove(&address);
                }
            }
            None => {
                self.claims.remove(uid);
                let pod = self.holders.remove(uid).map(|h| h.pod);
                if let Some(pod) = pod
                    && let Some(uids) = self.by_pod.get_mut(&pod)
                {
                    uids.remove(uid);
                    if uids.is_empty() {
                        self.by_pod.remove(&pod);
                    }
                }
            }
        }
    }

    /// Gives up claims of a pod that did not become durable.
    pub fn unclaim(&mut self, uid: &PodUid) {
        self.claims.remove(uid);
    }

    /// The durable holder of that uid.
    pub fn holder(&self, uid: &PodUid) -> Option<&Holder> {
        self.holders.get(uid)
    }

    /// The durable holders under a pod's name.
    pub fn holders_of(&self, pod: &PodKey) -> impl Iterator<Item = &PodUid> {
        self.by_pod.get(pod).into_iter().flatten()
    }

    /// All durable holders.
    pub fn holders(&self) -> impl Iterator<Item = (&PodUid, &Holder)> {
        self.holders.iter()
    }

    /// How many pods hold promises or claims. A pod that changes its address counts twice while it does.
    pub fn len(&self) -> usize {
        self.holders.len() + self.claims.by_uid.len()
    }

    /// Whether nothing is promised.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether these are promised durably.
    pub fn is_durable(&self, uid: &PodUid, addresses: &[IpAddr]) -> bool {
        self.holders.contains_key(uid) && addresses.iter().all(|a| self.held.get(a) == Some(uid))
    }

    /// Durable addresses of a holder.
    pub fn addresses(&self, uid: &PodUid) -> Vec<IpAddr> {
        self.holders.get(uid).map(|h| h.addresses.iter().copied().collect()).unwrap_or_default()
    }

    /// The durable holder of an address.
    pub fn holder_of(&self, address: IpAddr) -> Option<&PodUid> {
        self.held.get(&address)
    }

    /// Whether the pod counts already: promised or claimed.
    pub fn knows(&self, uid: &PodUid) -> bool {
        self.holders.contains_key(uid) || self.claims.knows(uid)
    }

    /// Whether a pod may have this address in the present network.
    pub fn fits(&self, address: IpAddr) -> bool {
        self.pools.iter().flatten().any(|pool| pool.is_ours(address))
    }

    /// The addresses for a new sandbox of `uid`, one of each range: its own where it has one, else the next free one,
    /// which is claimed. `live` are the addresses that sandboxes on the host have. `None`: a range has none left.
    pub fn claim(&mut self, uid: &PodUid, live: &BTreeMap<IpAddr, PodUid>) -> Option<Vec<IpAddr>> {
        let mine: Vec<IpAddr> = self.addresses(uid).into_iter().chain(self.claims.of(uid)).collect();
        let taken =
            |a: IpAddr| self.held.contains_key(&a) || self.claims.by_address.contains_key(&a) || live.contains_key(&a);
        let mut given = Vec::new();
        for pool in self.pools.as_deref()? {
            let own = mine.iter().find(|a| pool.is_ours(**a) && live.get(*a).is_none_or(|u| u == uid));
            let last = self.last.iter().find(|a| pool.cidr().contains(*a)).copied();
            given.push(own.copied().or_else(|| pool.next_free(last, taken))?);
        }
        for address in given.iter().filter(|a| !mine.contains(a)) {
            self.claims.insert(*address, uid.clone());
            self.last.retain(|a| a.is_ipv4() != address.is_ipv4());
            self.last.push(*address);
        }
        Some(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uid(n: u32) -> PodUid {
        PodUid::new(format!("u{n}")).unwrap()
    }

    /// One range, or two with a comma.
    fn pool(cidrs: &str) -> Reservations {
        let subnets: Vec<Subnet> = cidrs.split(',').map(|cidr| Subnet::of(cidr.parse().unwrap())).collect();
        Reservations::new(&subnets)
    }

    /// The first of what is claimed.
    fn claim(pool: &mut Reservations, n: u32, live: &BTreeMap<IpAddr, PodUid>) -> Option<String> {
        pool.claim(&uid(n), live).map(|all| all[0].to_string())
    }

    fn promise(pool: &mut Reservations, n: u32, address: IpAddr) {
        let (uid, pod) = (uid(n), PodKey::new("default", format!("p{n}")));
        pool.promise(Promise { uid, pod, addresses: [address].into(), rebuilt: false });
    }

    #[test]
    fn an_address_rests_before_it_is_used_anew() {
        let mut pool = pool("10.0.0.0/29");
        let none = BTreeMap::new();
        let first = claim(&mut pool, 1, &none).unwrap();
        assert_eq!(first, "10.0.0.2");
        promise(&mut pool, 1, first.parse().unwrap());
        pool.release(&uid(1), None);
        let given: Vec<_> = (2..7).map(|n| claim(&mut pool, n, &none)).collect();
        assert_eq!(
            given,
            ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"].map(|a| Some(a.to_owned())),
            "the gateway, network and broadcast addresses are nobody's"
        );
        assert_eq!(pool.claim(&uid(7), &none), None, "exhausted");
        pool.unclaim(&uid(4));
        assert_eq!(claim(&mut pool, 7, &none).unwrap(), "10.0.0.5", "and it recovers");
    }

    #[test]
    fn asking_again_gives_the_same_address() {
        let mut pool = pool("10.0.0.0/24");
        let none = BTreeMap::new();
        let first = pool.claim(&uid(1), &none);
        assert_eq!(pool.claim(&uid(1), &none), first);
    }

    #[test]
    fn what_lives_on_the_host_is_not_given_whatever_the_promises_say() {
        let mut pool = pool("10.0.0.0/24");
        let other = uid(9);
        let address: IpAddr = "10.0.0.2".parse().unwrap();
        promise(&mut pool, 1, address);
        let live = BTreeMap::from([(address, other)]);
        assert_eq!(claim(&mut pool, 1, &live).unwrap(), "10.0.0.3");
    }

    #[test]
    fn a_pod_has_an_address_of_each_family_or_none_at_all() {
        let mut pool = pool("10.0.0.0/29,fd00::/126");
        let none = BTreeMap::new();
        let text =
            |given: Option<Vec<IpAddr>>| given.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
        let first = text(pool.claim(&uid(1), &none)).unwrap();
        assert_eq!(first, ["10.0.0.2", "fd00::2"]);
        assert_eq!(text(pool.claim(&uid(1), &none)).unwrap(), first, "asked again");
        assert_eq!(text(pool.claim(&uid(2), &none)).unwrap(), ["10.0.0.3", "fd00::3"]);
        // The range of IPv6 is used up: an address of the other alone would be none to be reached at.
        assert_eq!(pool.claim(&uid(3), &none), None);
        pool.unclaim(&uid(2));
        assert_eq!(text(pool.claim(&uid(3), &none)).unwrap(), ["10.0.0.4", "fd00::3"]);
        // One of its two addresses is durable already, the other was lost.
        promise(&mut pool, 3, "fd00::3".parse().unwrap());
        assert!(!pool.is_durable(&uid(3), &["10.0.0.4".parse().unwrap(), "fd00::3".parse().unwrap()]));
        assert_eq!(text(pool.claim(&uid(3), &none)).unwrap(), ["10.0.0.4", "fd00::3"]);
    }

    proptest! {
        /// U8: whatever is claimed, promised and released in whatever order, no address has two holders.
        #[test]
        fn u08_no_address_is_given_twice(
            cidr in prop::sample::select(vec!["10.0.0.0/29", "10.0.0.0/30", "10.0.0.0/31", "10.0.0.0/24", "fd00::/125", "10.1.2.3/32", "10.0.0.0/29,fd00::/126"]),
            ops in prop::collection::vec((0u8..4, 0u32..8), 0..60),
        ) {
            let mut pool = pool(cidr);
            let none = BTreeMap::new();
            let mut given: BTreeMap<IpAddr, u32> = BTreeMap::new();
            for (op, n) in ops {
                match op {
                    0 | 1 => for a in pool.claim(&uid(n), &none).unwrap_or_default() {
                        prop_assert!(pool.fits(a));
                        prop_assert!(given.get(&a).is_none_or(|m| *m == n), "{a} given to {n} and {given:?}");
                        given.insert(a, n);
                        if op == 1 { promise(&mut pool, n, a); }
                    },
                    2 => { pool.release(&uid(n), None); given.retain(|_, m| *m != n); }
                    _ => {
                        pool.unclaim(&uid(n));
                        let held = pool.addresses(&uid(n));
                        given.retain(|a, m| *m != n || held.contains(a));
                    }
                }
            }
        }
    }
}
