//! Cluster IPs and node ports: reserved in the transaction that stores the service, released in the one that removes it.
//!
//! Promises lie beside the objects: `reserve/service-ip/<address>` and `reserve/node-port/<port>` hold the service's
//! namespace and name. A transaction expects the keys that it takes to be absent: whoever loses a race chooses again.

use crate::key::{kind_prefix, store_key};
use crate::ownership::invalid;
use crate::stored::{decode, encode};
use crate::write::{ATTEMPTS, transaction};
use crate::{Author, Registry, RegistryError};
use bytes::Bytes;
use reddwarf_network::allocate::{Allocation, Claim, Refusal, ServiceRanges, claims};
use reddwarf_objects::{Kind, Object, ObjectKey, kinds};
use reddwarf_store::{CommitError, Expect, Key, ListOptions, Transaction, Write};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

const US: Author = Author::System("service-allocator");

/// The promises that a write of a service takes and gives back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promises {
    taken: Vec<(Key, Bytes)>,
    released: Vec<Key>,
}

impl Promises {
    /// Adds them to the transaction that stores the service.
    pub(crate) fn hold(self, mut transaction: Transaction) -> Transaction {
        self.add_to(&mut transaction);
        transaction
    }

    /// The same in place.
    pub(crate) fn add_to(self, transaction: &mut Transaction) {
        for (key, holder) in self.taken {
            transaction.expect.push((key.clone(), Expect::Absent));
            transaction.writes.push((key, Write::Put(holder)));
        }
        transaction.writes.extend(self.released.into_iter().map(|key| (key, Write::Delete)));
    }
}

impl Registry {
    /// From now on services are given addresses and ports of these ranges. Takes hold once; without it none are given.
    pub fn give_addresses(&self, ranges: ServiceRanges) {
        if self.inner.services.set(ranges).is_err() {
            tracing::debug!("service ranges are kept as they were at the start");
        }
    }

    /// Fills in what a service lacks, checks what it names, and says what is to be promised with it. Other kinds pass.
    /// `pending` are promises of the same transaction.
    pub(crate) fn allocate(
        &self,
        kind: &Kind,
        asked: Option<&Object>,
        old: Option<&Object>,
        new: &mut Object,
        pending: &Transaction,
    ) -> Result<Promises, RegistryError> {
        let Some(ranges) = self.inner.services.get().filter(|_| kind.is_core("Service")) else {
            return Ok(Promises::default());
        };
        let taken = |claim: &Claim| {
            let Ok(key) = Key::new(claim.key()) else { return true };
            let pending = pending.writes.iter().any(|(k, write)| *k == key && matches!(write, Write::Put(_)));
            // Can't be read: then it is not free either; the commit would tell.
            pending || !matches!(self.inner.store.get(&key), Ok(None))
        };
        let entropy = Uuid::new_v4().as_u64_pair().0;
        let allocation = Allocation { ranges, asked, old, taken: &taken, entropy };
        allocation.fill(new).map_err(|refusal| match refusal {
            Refusal::Fields(errors) => invalid(kind, new, errors),
            Refusal::Exhausted(text) => RegistryError::Unsupported(format!("Internal error occurred: {text}")),
        })?;
        let before = old.map(claims).unwrap_or_default();
        let after = claims(new);
        Ok(Promises {
            taken: keys(after.difference(&before)).map(|key| (key, holder(new))).collect(),
            released: keys(before.difference(&after)).collect(),
        })
    }

    /// What goes with a removed object.
    pub(crate) fn released(&self, kind: &Kind, old: &Object) -> Promises {
        if !kind.is_core("Service") || self.inner.services.get().is_none() {
            return Promises::default();
        }
        Promises { taken: Vec::new(), released: keys(claims(old).iter()).collect() }
    }

    /// Brings promises and services together: services without an address (of an older version, or of a changed range)
    /// are given one, what no service holds is free again. To be called at the start.
    ///
    /// # Errors
    /// When the store can't be read or written. A service that can't be given what it needs is left and said.
    pub async fn settle_services(&self) -> Result<(), RegistryError> {
        let Some(kind) = kinds().by_gvk("v1", "Service") else { return Ok(()) };
        if self.inner.services.get().is_none() {
            return Ok(());
        }
        let page = self.page(&kind_prefix(kind, None), &ListOptions::default())?;
        let mut held: BTreeMap<Key, ObjectKey> = BTreeMap::new();
        let services = page.entries.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        for service in &services {
            held.extend(keys(claims(service).iter()).map(|key| (key, service.key(kind))));
        }
        let mut promised = BTreeSet::new();
        for prefix in [Claim::CLUSTER_IPS, Claim::NODE_PORTS] {
            let entries = self.page(prefix, &ListOptions::default())?.entries;
            promised.extend(entries.into_iter().map(|entry| entry.key));
        }
        let mut mend = transaction(&US, "promises of services");
        mend.writes
            .extend(promised.iter().filter(|key| !held.contains_key(*key)).map(|key| (key.clone(), Write::Delete)));
        for (key, service) in held.iter().filter(|(key, _)| !promised.contains(*key)) {
            mend.writes.push((key.clone(), Write::Put(Bytes::from(name(service)))));
        }
        if !mend.writes.is_empty() {
            self.commit(mend).await.map_err(RegistryError::Commit)?;
        }
        for service in services {
            let external = service.get_str("/spec/type") == Some("ExternalName");
            if external || service.get_str("/spec/clusterIP").is_some_and(|ip| !ip.is_empty()) {
                continue;
            }
            let key = service.key(kind);
            if let Err(error) = self.give_address(kind, &key).await {
                tracing::warn!(service = %key, %error, "the service is given no address");
            }
        }
        Ok(())
    }

    async fn give_address(&self, kind: &'static Kind, key: &ObjectKey) -> Result<(), RegistryError> {
        for _ in 0..ATTEMPTS {
            let at = store_key(key)?;
            let Some(entry) = self.entry(&at)? else { return Ok(()) };
            let old = decode(&entry)?;
            let mut new = old.clone();
            let write = transaction(&US, &format!("update {key}"));
            let promises = self.allocate(kind, None, Some(&old), &mut new, &write)?;
            match self.commit(promises.hold(write.replace(at, entry.modified, encode(&new)))).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict { .. }) => {}
                Err(e) => return Err(RegistryError::Commit(e)),
            }
        }
        Err(RegistryError::Contended { key: key.clone(), attempts: ATTEMPTS })
    }
}

fn keys<'a>(claims: impl Iterator<Item = &'a Claim>) -> impl Iterator<Item = Key> {
    claims.filter_map(|claim| Key::new(claim.key()).ok())
}

fn holder(service: &Object) -> Bytes {
    Bytes::from(format!("{}/{}", service.namespace().unwrap_or_default(), service.name()))
}

fn name(key: &ObjectKey) -> String {
    format!("{}/{}", key.namespace.as_deref().unwrap_or_default(), key.name)
}
