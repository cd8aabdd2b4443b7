//! Who was promised which address. The durable truth is in the store; this is its image in memory, with the claims
//! of plans that are being carried out.

use crate::control_plane::Promise;
use crate::key::PodKey;
use ipnet::IpNet;
use reddwarf_host::PodUid;
use reddwarf_network::Pool;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Promises, durable and claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservations {
    /// The range; it holds nobody. `None`: it is too small for any pod.
    pool: Option<Pool>,
    /// Durable promises of addresses.
    held: BTreeMap<IpAddr, PodUid>,
    /// Durable holders.
    holders: BTreeMap<PodUid, Holder>,
    /// The same by the pod's name.
    by_pod: BTreeMap<PodKey, BTreeSet<PodUid>>,
    /// Chosen by a plan, not yet durable.
    claims: Claims,
    /// The address given last: the next one is looked for behind it, so that an address rests before it is used anew.
    last: Option<IpAddr>,
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

/// Addresses chosen by plans that are being carried out: at most one of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Claims {
    by_address: BTreeMap<IpAddr, PodUid>,
    by_uid: BTreeMap<PodUid, IpAddr>,
}

impl Claims {
    fn of(&self, uid: &PodUid) -> Option<IpAddr> {
        self.by_uid.get(uid).copied()
    }

    fn insert(&mut self, address: IpAddr, uid: PodUid) {
        self.remove(&uid);
        self.by_address.insert(address, uid.clone());
        self.by_uid.insert(uid, address);
    }

    fn remove(&mut self, uid: &PodUid) {
        if let Some(address) = self.by_uid.remove(uid) {
            self.by_address.remove(&address);
        }
    }

    fn remove_address(&mut self, address: IpAddr) {
        if let Some(uid) = self.by_address.remove(&address) {
            self.by_uid.remove(&uid);
        }
    }
}

impl Reservations {
    /// No promises yet, in this network.
    pub fn new(cidr: IpNet, gateway: IpAddr) -> Self {
        Self {
            pool: Pool::new(cidr.trunc(), [gateway]).ok(),
            held: BTreeMap::new(),
            holders: BTreeMap::new(),
            by_pod: BTreeMap::new(),
            claims: Claims::default(),
            last: None,
        }
    }

    /// Notes a durable promise.
    pub fn promise(&mut self, promise: Promise) {
        let Promise { uid, pod, address, rebuilt } = promise;
        self.by_pod.entry(pod.clone()).or_default().insert(uid.clone());
        let holder = self.holders.entry(uid.clone()).or_insert(Holder { pod, rebuilt, addresses: BTreeSet::new() });
        if let Some(address) = address {
            holder.addresses.insert(address);
            self.claims.remove_address(address);
            self.held.insert(address, uid);
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
        if address.is_none_or(|only| self.claims.of(uid) == Some(only)) {
            self.claims.remove(uid);
        }
        match address {
            Some(address) => {
                if let Some(holder) = self.holders.get_mut(uid) {
                    holder.addresses.remove(&address);
                }
            }
            None => {
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

    /// Whether this promise is durable.
    pub fn is_durable(&self, uid: &PodUid, address: Option<IpAddr>) -> bool {
        self.holders.contains_key(uid) && address.is_none_or(|a| self.held.get(&a) == Some(uid))
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
        self.holders.contains_key(uid) || self.claims.of(uid).is_some()
    }

    /// Whether a pod may have this address in the present network.
    pub fn fits(&self, address: IpAddr) -> bool {
        self.pool.as_ref().is_some_and(|pool| pool.is_ours(address))
    }

    /// The address for a new sandbox of `uid`: its own if it has one, else the next free one, which is claimed.
    /// `live` are the addresses that sandboxes on the host have. `None`: there is none left.
    pub fn claim(&mut self, uid: &PodUid, live: &BTreeMap<IpAddr, PodUid>) -> Option<IpAddr> {
        let usable = |a: &IpAddr| self.fits(*a) && live.get(a).is_none_or(|u| u == uid);
        let own = self.addresses(uid).into_iter().chain(self.claims.of(uid)).find(usable);
        if own.is_some() {
            return own;
        }
        let taken =
            |a: IpAddr| self.held.contains_key(&a) || self.claims.by_address.contains_key(&a) || live.contains_key(&a);
        let address = self.pool.as_ref()?.next_free(self.last, taken)?;
        self.claims.insert(address, uid.clone());
        self.last = Some(address);
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uid(n: u32) -> PodUid {
        PodUid::new(format!("u{n}")).unwrap()
    }

    fn pool(cidr: &str) -> Reservations {
        let cidr: IpNet = cidr.parse().unwrap();
        Reservations::new(cidr, cidr.hosts().next().unwrap())
    }

    fn promise(pool: &mut Reservations, n: u32, address: IpAddr) {
        let (uid, pod) = (uid(n), PodKey::new("default", format!("p{n}")));
        pool.promise(Promise { uid, pod, address: Some(address), rebuilt: false });
    }

    #[test]
    fn an_address_rests_before_it_is_used_anew() {
        let mut pool = pool("10.0.0.0/29");
        let none = BTreeMap::new();
        let first = pool.claim(&uid(1), &none).unwrap();
        assert_eq!(first.to_string(), "10.0.0.2");
        promise(&mut pool, 1, first);
        pool.release(&uid(1), None);
        let given: Vec<_> = (2..7).map(|n| pool.claim(&uid(n), &none).map(|a| a.to_string())).collect();
        assert_eq!(
            given,
            ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"].map(|a| Some(a.to_owned())),
            "the gateway, network and broadcast addresses are nobody's"
        );
        assert_eq!(pool.claim(&uid(7), &none), None, "exhausted");
        pool.unclaim(&uid(4));
        assert_eq!(pool.claim(&uid(7), &none).unwrap().to_string(), "10.0.0.5", "and it recovers");
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
        assert_eq!(pool.claim(&uid(1), &live).unwrap().to_string(), "10.0.0.3");
    }

    proptest! {
        /// U8: whatever is claimed, promised and released in whatever order, no address has two holders.
        #[test]
        fn u08_no_address_is_given_twice(
            cidr in prop::sample::select(vec!["10.0.0.0/29", "10.0.0.0/30", "10.0.0.0/31", "10.0.0.0/24", "fd00::/125", "10.1.2.3/32"]),
            ops in prop::collection::vec((0u8..4, 0u32..8), 0..60),
        ) {
            let mut pool = pool(cidr);
            let none = BTreeMap::new();
            let mut given: BTreeMap<IpAddr, u32> = BTreeMap::new();
            for (op, n) in ops {
                match op {
                    0 | 1 => if let Some(a) = pool.claim(&uid(n), &none) {
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
