//! Addresses of services of type LoadBalancer, from the pool in the settings. The host answers for them.
//!
//! An address is reserved in the store (`reserve/load-balancer-ip/<address>` holds namespace and name) before it is shown in
//! the service's status, and free again once the service is gone or of another type. A service that says `loadBalancerClass`
//! is somebody else's; without a pool all are.

use crate::runtime::{Again, Change, Context, Controller, Events, Failure, Id, View};
use crate::workload::{Wanted, conditions_of, set_condition};
use async_trait::async_trait;
use ipnet::IpNet;
use reddwarf_network::allocate::{Family, nth};
use reddwarf_objects::Object;
use reddwarf_registry::{Author, RegistryError};
use reddwarf_store::{CommitError, Key, ListOptions, Transaction};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

const NAME: &str = "load-balancer";
const PREFIX: &str = "reserve/load-balancer-ip/";
const CONDITION: &str = "reddwarf.io/LoadBalancerAddress";
/// A service that got no address asks again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// Addresses of one range that are considered at most.
const MOST: u128 = 1 << 16;

/// The controller.
#[derive(Debug)]
pub struct LoadBalancers {
    pool: Vec<IpNet>,
}

/// Why a service has no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// In one word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// The address of a family that a service is to have: the one it names, the one it has, or the next free one. Pure.
///
/// # Errors
/// [`Lack`].
pub fn choose(
    pool: &[IpNet],
    family: Family,
    named: Option<IpAddr>,
    holder: &str,
    held: &BTreeMap<IpAddr, String>,
) -> Result<Option<IpAddr>, Lack> {
    let ranges: Vec<&IpNet> = pool.iter().filter(|range| Family::of(range.addr()) == family).collect();
    if ranges.is_empty() {
        return Ok(None);
    }
    let shown = || ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if let Some(address) = named.filter(|address| Family::of(*address) == family) {
        let lack = |reason, what: String| Err(Lack { reason, message: format!("address {address} {what}") });
        return match held.get(&address) {
            _ if !ranges.iter().any(|range| range.contains(&address)) => {
                lack("AddressOutside", format!("is not in the pool {}; choose another `loadBalancerIP`", shown()))
            }
            Some(other) if other != holder => lack("AddressTaken", format!("belongs to {other}; choose another one")),
            _ => Ok(Some(address)),
        };
    }
    let mut own = held.iter().filter(|(address, owner)| *owner == holder && Family::of(**address) == family);
    if let Some((address, _)) = own.find(|(address, _)| ranges.iter().any(|range| range.contains(*address))) {
        return Ok(Some(*address));
    }
    let mut free = ranges.iter().flat_map(|range| addresses(range)).filter(|address| !held.contains_key(address));
    free.next().map(Some).ok_or_else(|| Lack {
        reason: "PoolExhausted",
        message: format!(
            "every address of the pool {} is in use; delete services or enlarge `load_balancer_cidr`",
            shown()
        ),
    })
}

/// A range's addresses without its network's own and its broadcast address.
fn addresses(range: &IpNet) -> impl Iterator<Item = IpAddr> {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let all = 1_u128.checked_shl(bits).unwrap_or(MOST).min(MOST);
    let (first, last) = if bits < 2 { (0, all) } else { (1, all - 1) };
    let range = *range;
    (first..last).filter_map(move |n| nth(&range, n))
}

impl LoadBalancers {
    /// `None` without a pool.
    pub fn new(pool: Vec<IpNet>) -> Option<Self> {
        (!pool.is_empty()).then_some(Self { pool })
    }

    fn held(context: &Context) -> Result<BTreeMap<IpAddr, String>, Failure> {
        let page = context.registry.store().list(PREFIX, &ListOptions::default()).map_err(RegistryError::Store)?;
        let read = |entry: &reddwarf_store::Entry| {
            let address = entry.key.as_str().strip_prefix(PREFIX)?.parse().ok()?;
            Some((address, String::from_utf8_lossy(&entry.value).into_owned()))
        };
        Ok(page.entries.iter().filter_map(read).collect())
    }

    /// Reserves; false when somebody was faster.
    async fn reserve(context: &Context, address: IpAddr, holder: &str) -> Result<bool, Failure> {
        let Ok(key) = Key::new(format!("{PREFIX}{address}")) else { return Ok(false) };
        let write = Transaction::new(NAME, format!("reserve {address}")).create(key, holder.to_owned());
        match context.registry.store().commit(write).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict { .. }) => Ok(false),
            Err(e) => Err(RegistryError::Commit(e).into()),
        }
    }

    async fn release(context: &Context, addresses: &[IpAddr]) -> Result<(), Failure> {
        let keys = addresses.iter().filter_map(|a| Key::new(format!("{PREFIX}{a}")).ok());
        let write = keys.fold(Transaction::new(NAME, "release addresses"), Transaction::delete);
        if write.writes.is_empty() {
            return Ok(());
        }
        context.registry.store().commit(write).await.map(drop).map_err(|e| RegistryError::Commit(e).into())
    }

    /// What the service is to have: addresses, or why not.
    async fn addresses(
        &self,
        context: &Context,
        service: &Object,
        holder: &str,
    ) -> Result<Result<Vec<IpAddr>, Lack>, Failure> {
        let families = service.get("/spec/ipFamilies").and_then(Value::as_array);
        let families = families.into_iter().flatten().filter_map(|f| Family::parse(f.as_str()?));
        let named = service.get_str("/spec/loadBalancerIP").and_then(|ip| ip.parse().ok());
        let mut addresses = Vec::new();
        for family in families {
            loop {
                let held = Self::held(context)?;
                match choose(&self.pool, family, named, holder, &held) {
                    Err(lack) => return Ok(Err(lack)),
                    Ok(None) => break,
                    Ok(Some(address)) => {
                        if held.contains_key(&address) || Self::reserve(context, address, holder).await? {
                            addresses.push(address);
                            break;
                        }
                    }
                }
            }
        }
        Ok(Ok(addresses))
    }

    async fn show(
        context: &Context,
        id: &Id,
        service: &Object,
        found: &Result<Vec<IpAddr>, Lack>,
    ) -> Result<(), Failure> {
        let mut conditions = conditions_of(service);
        let (status, reason, message, addresses) = match found {
            Ok(addresses) => ("True", "Allocated", "", addresses.as_slice()),
            Err(lack) => ("False", lack.reason, lack.message.as_str(), &[][..]),
        };
        set_condition(&mut conditions, Wanted { kind: CONDITION, status, reason, message }, &[], context.now());
        for condition in conditions.iter_mut().filter(|c| c.get("message").is_none()) {
            condition["message"] = json!("");
        }
        let ingress: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip.to_string(), "ipMode": "VIP"})).collect();
        let balancer = if ingress.is_empty() { json!({}) } else { json!({ "ingress": ingress }) };
        let wanted = json!({"loadBalancer": balancer, "conditions": conditions});
        if service.status() == Some(&wanted) {
            return Ok(());
        }
        let (author, key) = (Author::System(NAME), id.key());
        let written = context.registry.modify_status(&author, &key, |live| live.set_status(Some(wanted.clone())));
        match written.await {
            Ok(_) | Err(RegistryError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let events = Events::about(service);
        let said = match found {
            Ok(addresses) => {
                let list = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                events.normal("AddressAllocated", format!("Reached at {list}"))
            }
            Err(lack) => events.warning(lack.reason, lack.message.clone()),
        };
        context.act(NAME, vec![said]).await
    }
}

#[async_trait]
impl Controller for LoadBalancers {
    fn name(&self) -> &'static str {
        NAME
    }

    fn triggers(&self, _view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        if slim.id.is("", "Service") {
            add(slim.id.clone());
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let holder = format!("{}/{}", id.namespace, id.name);
        let service = context.find(id)?.filter(|s| s.deletion_timestamp().is_none());
        let balances = |s: &&Object| {
            s.get_str("/spec/type") == Some("LoadBalancer") && s.get_str("/spec/loadBalancerClass").is_none()
        };
        let own = |held: &BTreeMap<IpAddr, String>| -> Vec<IpAddr> {
            held.iter().filter(|(_, owner)| **owner == holder).map(|(address, _)| *address).collect()
        };
        let Some(wanting) = service.as_ref().filter(balances) else {
            let held = own(&Self::held(context)?);
            if let Some(service) = service.as_ref().filter(|_| !held.is_empty()) {
                let key = id.key();
                let none = json!({"loadBalancer": {}});
                let author = Author::System(NAME);
                let written = context.registry.modify_status(&author, &key, |live| live.set_status(Some(none.clone())));
                written.await?;
                tracing::debug!(service = %service.name(), "gives its addresses back");
            }
            Self::release(context, &held).await?;
            return Ok(Again::NEVER);
        };
        let found = self.addresses(context, wanting, &holder).await?;
        Self::show(context, id, wanting, &found).await?;
        // What it had before and does not want any more.
        let kept = found.as_ref().map_or(&[][..], Vec::as_slice);
        let mut former = own(&Self::held(context)?);
        former.retain(|address| !kept.contains(address));
        Self::release(context, &former).await?;
        Ok(if found.is_err() { Again::NEVER.after(AGAIN) } else { Again::NEVER })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_chosen_and_refused() {
        let pool: Vec<IpNet> = vec!["192.0.2.0/30".parse().unwrap(), "198.51.100.7/32".parse().unwrap()];
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let held = |list: &[(&str, &str)]| list.iter().map(|(a, o)| (ip(a), (*o).to_owned())).collect();
        let ask = |named: Option<&str>, list: &[(&str, &str)]| {
            choose(&pool, Family::V4, named.map(ip), "d/me", &held(list)).map_err(|lack| lack.reason)
        };
        assert_eq!(ask(None, &[]), Ok(Some(ip("192.0.2.1"))));
        assert_eq!(ask(None, &[("192.0.2.1", "d/other")]), Ok(Some(ip("192.0.2.2"))));
        assert_eq!(ask(None, &[("192.0.2.2", "d/me")]), Ok(Some(ip("192.0.2.2"))), "it keeps what it has");
        let most = [("192.0.2.1", "d/a"), ("192.0.2.2", "d/b")];
        assert_eq!(ask(None, &most), Ok(Some(ip("198.51.100.7"))));
        let all = [most[0], most[1], ("198.51.100.7", "d/c")];
        assert_eq!(ask(None, &all), Err("PoolExhausted"));
        assert_eq!(ask(Some("198.51.100.7"), &all), Err("AddressTaken"));
        assert_eq!(ask(Some("198.51.100.8"), &[]), Err("AddressOutside"));
        assert_eq!(ask(Some("198.51.100.7"), &[]), Ok(Some(ip("198.51.100.7"))));
        assert_eq!(choose(&pool, Family::V6, None, "d/me", &held(&[])), Ok(None), "no pool of that family");
    }
}
