//! The record set at one moment: one value, never changed, replaced as a whole.

use super::name::Wire;
use super::prepared::{Node, wire};
use super::source::{Change, Key, Service, Slice};
use super::zone::{self, Fragment, Zones};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// All names of this host with their answers.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) zones: Arc<Zones>,
    nodes: HashMap<Wire, Arc<Node>>,
    /// The data of SOA records, names uncompressed.
    pub(crate) soa: Arc<[u8]>,
}

impl Snapshot {
    /// What is known of a name in lower case.
    pub(crate) fn node(&self, wire: &[u8]) -> Option<&Node> {
        self.nodes.get(wire).map(|node| &**node)
    }

    /// Names with or without records.
    pub fn names(&self) -> usize {
        self.nodes.len()
    }
}

/// Follows objects and makes snapshots of their names. Only what changed is encoded again.
#[derive(Debug)]
pub struct Records {
    zones: Arc<Zones>,
    services: HashMap<Key, Service>,
    slices: HashMap<Key, Slice>,
    /// Which slices belong to a service, in a fixed order.
    slices_of: HashMap<Key, BTreeSet<Box<str>>>,
    fragments: HashMap<Key, Fragment>,
    namespaces: BTreeSet<Box<str>>,
    /// The names that an address points back to. Each is one service's.
    pointers: HashMap<IpAddr, BTreeSet<Wire>>,
    changed: BTreeSet<Key>,
    changed_namespaces: BTreeSet<Box<str>>,
    current: Arc<Snapshot>,
    serial: u32,
}

impl Records {
    /// No objects yet.
    pub fn new(zones: Zones) -> Self {
        let zones = Arc::new(zones);
        let nodes = zones.fixed(0).into_iter().collect();
        let soa = soa_data(&zones, 0);
        let current = Arc::new(Snapshot { zones: Arc::clone(&zones), nodes, soa });
        Self {
            zones,
            services: HashMap::new(),
            slices: HashMap::new(),
            slices_of: HashMap::new(),
            fragments: HashMap::new(),
            namespaces: BTreeSet::new(),
            pointers: HashMap::new(),
            changed: BTreeSet::new(),
            changed_namespaces: BTreeSet::new(),
            current,
            serial: 0,
        }
    }

    /// Forgets all objects, for reading all of them again.
    pub fn clear(&mut self) {
        let serial = self.serial;
        *self = Self::new(Zones::clone(&self.zones));
        self.serial = serial;
    }

    /// Takes a change into account. The next snapshot shows it.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Service(key, service) => {
                let same = self.services.get(&key) == service.as_ref();
                match service {
                    Some(service) => drop(self.services.insert(key.clone(), service)),
                    None => drop(self.services.remove(&key)),
                }
                if !same {
                    self.changed.insert(key);
                }
            }
            Change::Slice(key, slice) => self.apply_slice(key, slice),
            Change::Namespace(name, there) => {
                let changed = if there { self.namespaces.insert(name.clone()) } else { self.namespaces.remove(&name) };
                if changed {
                    self.changed_namespaces.insert(name);
                }
            }
        }
    }

    fn apply_slice(&mut self, key: Key, slice: Option<Slice>) {
        let before = match slice.clone() {
            Some(slice) => self.slices.insert(key.clone(), slice),
            None => self.slices.remove(&key),
        };
        if before == slice {
            return;
        }
        let (namespace, name) = key;
        if let Some(before) = before {
            let service = (namespace.clone(), before.service);
            if let Some(all) = self.slices_of.get_mut(&service) {
                all.remove(&name);
            }
            if self.slices_of.get(&service).is_some_and(BTreeSet::is_empty) {
                self.slices_of.remove(&service);
            }
            self.changed.insert(service);
        }
        if let Some(slice) = slice {
            let service = (namespace, slice.service);
            self.slices_of.entry(service.clone()).or_default().insert(name);
            self.changed.insert(service);
        }
    }

    /// The names as they were last asked for.
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current)
    }

    /// The names now; `None` when nothing changed since the last call.
    pub fn snapshot(&mut self) -> Option<Arc<Snapshot>> {
        if self.changed.is_empty() && self.changed_namespaces.is_empty() && self.serial > 0 {
            return None;
        }
        self.serial = self.serial.wrapping_add(1);
        let mut nodes = self.current.nodes.clone();
        for name in std::mem::take(&mut self.changed_namespaces) {
            let there = self.namespaces.contains(&name);
            for (name, node) in self.zones.namespace(&name) {
                if there { drop(nodes.insert(name, node)) } else { drop(nodes.remove(&name)) }
            }
        }
        let mut addresses = BTreeSet::new();
        for key in std::mem::take(&mut self.changed) {
            self.replace(&key, &mut nodes, &mut addresses);
        }
        for address in addresses {
            self.point(address, &mut nodes);
        }
        nodes.extend(self.zones.fixed(self.serial));
        let soa = soa_data(&self.zones, self.serial);
        self.current = Arc::new(Snapshot { zones: Arc::clone(&self.zones), nodes, soa });
        Some(Arc::clone(&self.current))
    }

    /// Puts a service's names as they are now in place of those that it had.
    fn replace(&mut self, key: &Key, nodes: &mut HashMap<Wire, Arc<Node>>, addresses: &mut BTreeSet<IpAddr>) {
        let before = self.fragments.get_mut(key).map(std::mem::take).unwrap_or_default();
        for (address, name) in &before.pointers {
            addresses.insert(*address);
            if let Some(names) = self.pointers.get_mut(address) {
                names.remove(name);
            }
        }
        let fragment = self.services.get(key).map(|service| {
            let names = self.slices_of.get(key).into_iter().flatten();
            let slices: Vec<&Slice> = names.filter_map(|n| self.slices.get(&(key.0.clone(), n.clone()))).collect();
            zone::service_names(&self.zones, key, service, &slices)
        });
        let now = fragment.as_ref().map_or(&[][..], |fragment| &fragment.nodes);
        // Most changes are of what a service's names say: what is written over need not go first.
        if !before.nodes.iter().map(|(name, _)| name).eq(now.iter().map(|(name, _)| name)) {
            for (name, _) in &before.nodes {
                nodes.remove(name);
            }
        }
        let Some(fragment) = fragment else { return drop(self.fragments.remove(key)) };
        nodes.extend(fragment.nodes.iter().cloned());
        for (address, name) in &fragment.pointers {
            addresses.insert(*address);
            self.pointers.entry(*address).or_default().insert(name.clone());
        }
        match self.fragments.get_mut(key) {
            Some(place) => *place = fragment,
            None => drop(self.fragments.insert(key.clone(), fragment)),
        }
    }

    fn point(&mut self, address: IpAddr, nodes: &mut HashMap<Wire, Arc<Node>>) {
        match self.pointers.get(&address).filter(|targets| !targets.is_empty()) {
            None => {
                self.pointers.remove(&address);
                nodes.remove(&Wire::reverse(address));
            }
            Some(targets) => nodes.extend(self.zones.pointer(address, targets, zone::POINTER_TTL)),
        }
    }
}

/// RFC 1035 section 3.3.13, names uncompressed: it is copied to where nothing to point to may be.
fn soa_data(zones: &Zones, serial: u32) -> Arc<[u8]> {
    let Some(soa) = zones.soa(serial) else { return Arc::default() };
    let mut bytes = [wire(&soa.mname), wire(&soa.rname)].concat();
    bytes.extend(soa.serial.to_be_bytes());
    for seconds in [soa.refresh, soa.retry, soa.expire] {
        bytes.extend(seconds.to_be_bytes());
    }
    bytes.extend(soa.minimum.to_be_bytes());
    bytes.into()
}

#[cfg(test)]
impl Snapshot {
    /// All names with what is known of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Wire, &Arc<Node>)> {
        self.nodes.iter()
    }
}
