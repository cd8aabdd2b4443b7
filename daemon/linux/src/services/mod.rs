//! Services and network policies on Linux: one nftables table of ours, changed in single transactions.
//!
//! | to know | look in |
//! |---|---|
//! | which rules make packets go as the table says | `render.rs`, pure |
//! | the table as a value, and the text that leads from one to another | `model.rs`, pure |
//! | reading it back | `listing.rs`, pure |
//! | flows of UDP services whose backend went | `conntrack.rs` |
//! | load balancers' addresses, the route to cluster IPs | `addresses.rs` |
//! | which ports the host's own programs hold | `listeners.rs` |
//!
//! What is in the kernel is known without asking for as long as the rule set's number is the one after our last transaction.
//! Otherwise it is read back; what differs is put right by the same small transaction that a change makes. So a start of the
//! daemon changes nothing, and what clients a sticky service remembers (sets that packets fill) stays.

mod addresses;
mod conntrack;
mod listeners;
mod listing;
mod model;
mod render;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "writes golden files when asked to, and measures")]
mod tests;

use crate::host::{LinuxHost, Shared};
use crate::network::generation;
use crate::nft;
use async_trait::async_trait;
use ipnet::IpNet;
use model::Model;
use reddwarf_command::{CommandError, CommandOutput};
use reddwarf_host::service::{Listener, Protocol, ServiceTable};
use reddwarf_host::{Change, HostError, HostErrorKind, HostResult, Services};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

const ENSURE: &str = "make services";
const OBSERVE: &str = "look at services";
/// For a whole operation; a large table takes some 200 ms.
const DEADLINE: Duration = Duration::from_secs(60);

/// What we know of the kernel's state.
#[derive(Default)]
pub(crate) struct State {
    /// The table that was asked for last.
    table: ServiceTable,
    /// What is in the kernel, true for as long as the rule set's number is `generation`.
    model: Option<Model>,
    generation: Option<u32>,
}

#[async_trait]
impl Services for LinuxHost {
    async fn services_ensure(&self, table: &ServiceTable) -> HostResult<Change> {
        if let Some(problem) = table.problem() {
            return Err(HostError::new(HostErrorKind::InvalidSpec, ENSURE, "services", problem));
        }
        bounded(ENSURE, ensure(&self.shared, table)).await
    }

    async fn services_drift(&self) -> HostResult<Vec<String>> {
        bounded(OBSERVE, drift(&self.shared)).await
    }

    async fn listeners(&self) -> HostResult<BTreeSet<Listener>> {
        self.blocking("list listeners", |_| listeners::read()).await
    }

    async fn routes(&self) -> HostResult<Vec<(String, IpNet)>> {
        bounded("list routes", addresses::routes(&self.shared.options)).await
    }
}

async fn bounded<T>(op: &'static str, work: impl Future<Output = HostResult<T>>) -> HostResult<T> {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| {
        let message = format!("not done within {} s", DEADLINE.as_secs());
        Err(HostError::new(HostErrorKind::Timeout, op, "services", message))
    })
}

/// The table's name, beside that of the pod network.
fn table_name(shared: &Shared) -> String {
    format!("{}_services", nft::TableName::for_instance(&shared.options.instance).as_str())
}

async fn ensure(shared: &Shared, table: &ServiceTable) -> HostResult<Change> {
    let mut state = shared.services.lock().await;
    let mut done = addresses::ensure(shared, table).await?;
    let before = generation::current();
    let known = before.is_some() && state.generation == before;
    if known && state.table == *table {
        return Ok(changed(done));
    }
    let wanted = if table.is_empty() { None } else { Some(render::render(table)) };
    let empty = Model::default();
    let found = match known {
        true => state.model.take(),
        false => list(shared, wanted.as_ref().unwrap_or(&empty)).await?,
    };
    state.generation = None;
    if let Some(text) = transaction(shared, found.as_ref(), wanted.as_ref())? {
        apply(shared, &text, wanted.as_ref()).await?;
        done.push(match &wanted {
            Some(_) => format!("{} frontends, {} isolations", table.frontends.len(), table.isolations.len()),
            None => "removed the services".to_owned(),
        });
        let after = generation::current();
        // One step further: ours, and nobody else's.
        let ours = before.zip(after).is_some_and(|(before, after)| after == before.wrapping_add(1));
        state.generation = after.filter(|_| ours);
    } else {
        state.generation = before.filter(|_| generation::current() == before);
    }
    shared.nft_generation.note(state.generation);
    let stale = udp_changes(&state.table, table);
    state.model = wanted;
    state.table = table.clone();
    if !stale.is_empty() {
        forget_flows(stale).await;
    }
    Ok(changed(done))
}

fn changed(done: Vec<String>) -> Change {
    if done.is_empty() { Change::Unchanged } else { Change::Changed(done.join(", ")) }
}

/// The text that leads from what was found to what is wanted; `None` when that is the same.
fn transaction(shared: &Shared, found: Option<&Model>, wanted: Option<&Model>) -> HostResult<Option<String>> {
    let name = table_name(shared);
    if found.is_some_and(|found| !found.chains.contains_key(render::MARK_CHAIN)) {
        let message =
            format!("the nftables table inet {name} exists and was not made by reddwarfd: rename or remove it");
        return Err(HostError::new(HostErrorKind::Foreign, ENSURE, name, message));
    }
    Ok(match (found, wanted) {
        (None, None) => None,
        (Some(_), None) => Some(format!("delete table inet {name}\n")),
        (None, Some(wanted)) => Some(wanted.replace(&name)),
        (Some(found), Some(wanted)) => {
            let text = wanted.change(found, &name).unwrap_or_else(|| wanted.replace(&name));
            (!text.is_empty()).then_some(text)
        }
    })
}

async fn apply(shared: &Shared, text: &str, wanted: Option<&Model>) -> HostResult<()> {
    let Err(error) = nft::apply(text).await else { return Ok(()) };
    let Some(wanted) = wanted else { return Err(error.into_host(ENSURE, "services")) };
    // Others may have changed the table in between: then nothing of the transaction was done. The whole of it fits always.
    tracing::debug!(error = %error, "the change did not fit what is there; the table is replaced");
    nft::apply(&wanted.replace(&table_name(shared))).await.map_err(|e| e.into_host(ENSURE, "services"))
}

/// The table as it is in the kernel; `None`: there is none.
async fn list(shared: &Shared, wanted: &Model) -> HostResult<Option<Model>> {
    let failed = |e: CommandError| e.into_host(OBSERVE, "services");
    let answer: Option<CommandOutput> = nft::read_table(&table_name(shared)).await.map_err(failed)?;
    let Some(answer) = answer else { return Ok(None) };
    listing::parse(&answer.stdout, wanted).map(Some).map_err(|e| {
        HostError::new(HostErrorKind::Other, OBSERVE, "services", "what nft lists can't be read").caused_by(e)
    })
}

async fn drift(shared: &Shared) -> HostResult<Vec<String>> {
    let state = shared.services.lock().await;
    let mut drift = addresses::drift(&state.table).await?;
    if state.table.is_empty() || (state.generation.is_some() && state.generation == generation::current()) {
        return Ok(drift);
    }
    let wanted = render::render(&state.table);
    match list(shared, &wanted).await? {
        None => drift.push(format!("nftables: table inet {} is missing", table_name(shared))),
        Some(found) => drift.extend(wanted.drift(&found).into_iter().map(|d| format!("nftables: {d}"))),
    }
    Ok(drift)
}

/// UDP frontends whose backends are others now, with those that they have.
fn udp_changes(
    old: &ServiceTable,
    new: &ServiceTable,
) -> BTreeMap<(Option<std::net::IpAddr>, u16), BTreeSet<SocketAddr>> {
    use reddwarf_host::service::Place;
    let mut stale = BTreeMap::new();
    let udp =
        |t: &ServiceTable| t.frontends.keys().filter(|f| f.protocol == Protocol::Udp).copied().collect::<Vec<_>>();
    for frontend in udp(old).into_iter().chain(udp(new)) {
        let (before, after) = (old.frontends.get(&frontend), new.frontends.get(&frontend));
        if before.map(|b| &b.addresses) == after.map(|b| &b.addresses) {
            continue;
        }
        let place = match frontend.place {
            Place::Address(address) => Some(address),
            Place::HostV4 | Place::HostV6 => None,
        };
        let entry: &mut BTreeSet<SocketAddr> = stale.entry((place, frontend.port)).or_default();
        entry.extend(after.iter().flat_map(|b| &b.addresses));
    }
    stale
}

/// Flows that lead to backends which are none any more would go on for as long as the client sends.
async fn forget_flows(stale: BTreeMap<(Option<std::net::IpAddr>, u16), BTreeSet<SocketAddr>>) {
    let work = tokio::task::spawn_blocking(move || conntrack::forget_udp(&stale));
    match work.await {
        Ok(Ok(0)) => {}
        Ok(Ok(count)) => tracing::debug!(count, "flows of UDP services were forgotten"),
        Ok(Err(error)) => {
            tracing::warn!(%error, "flows of UDP services can't be forgotten: clients keep their backend")
        }
        Err(error) => tracing::warn!(%error, "flows of UDP services can't be forgotten"),
    }
}
