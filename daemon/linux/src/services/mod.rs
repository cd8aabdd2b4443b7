//! Services and network policies on Linux: one nftables table of ours, changed in single transactions.
//!
//! | to know | look in |
//! |---|---|
//! | which rules make packets go as the table says | `render.rs`, pure |
//! | the table as a value, and the steps that lead from one to another | `model.rs`, pure |
//! | keys and values of its maps | `words.rs` |
//! | these, told to the kernel without nft | `elements.rs` |
//! | reading it back | `listing.rs`, pure |
//! | what keeps connections alive and pods isolated while others flush all rules | `guard.rs` |
//! | flows of UDP services whose backend went, flows that began without rules | `conntrack.rs` |
//! | load balancers' addresses, the route to cluster IPs | `addresses.rs` |
//! | which ports the host's own programs hold | `listeners.rs` |
//!
//! What is in the kernel is known without asking for as long as the rule set's number is the one after our last transaction.
//! Otherwise it is read back; what differs is put right by the same steps that a change takes. So a start of the
//! daemon changes nothing, and what clients a sticky service remembers (sets that packets fill) stays. Packets go by the old table
//! or by the new one: what moves them is one transaction of elements, the rest comes before and goes after.

mod addresses;
mod conntrack;
mod elements;
mod guard;
mod listeners;
mod listing;
mod model;
mod render;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "writes golden files when asked to, and measures")]
mod tests;
mod words;

use crate::host::{LinuxHost, Shared};
use crate::network::generation;
use crate::nfnetlink::Socket;
use crate::nft;
use async_trait::async_trait;
use guard::{Guard, Holds, Pods};
use ipnet::IpNet;
use model::{Model, Steps};
use reddwarf_command::{CommandError, CommandOutput};
use reddwarf_host::service::{Listener, Protocol, ServiceTable};
use reddwarf_host::{Change, HostError, HostErrorKind, HostEvent, HostResult, Services};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

const ENSURE: &str = "make services";
const OBSERVE: &str = "look at services";
/// For a whole operation; a large table takes some 100 ms.
const DEADLINE: Duration = Duration::from_secs(60);
/// From so many elements on it pays to have the kernel tell nobody of each.
const MANY: usize = 500;

/// What we know of the kernel's state.
#[derive(Default)]
pub(crate) struct State {
    /// The table that was asked for last.
    table: ServiceTable,
    /// What is in the kernel, true for as long as the rule set's number is `generation`.
    model: Option<Model>,
    generation: Option<u32>,
    /// Keeps connections alive while others flush all rules.
    guard: Option<Guard>,
}

/// A socket for the guard of services' rules to belong to ([`LinuxHost::guard_by`]).
///
/// # Errors
/// When descriptors are used up.
pub fn guard_socket() -> io::Result<OwnedFd> {
    Ok(Socket::connect()?.into())
}

impl LinuxHost {
    /// The guard, which keeps connections alive and pods isolated when others flush all rules, is to last as long as this socket: who
    /// keeps a copy of it over a restart keeps the guard. To be called before the first services.
    pub fn guard_by(&self, socket: OwnedFd) {
        let _ = self.shared.guard_socket.set(socket);
    }
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
    make(shared, &mut state, table).await.map(changed)
}

/// Puts the table of before back where others took it away.
pub(crate) async fn restore(shared: &Shared) -> HostResult<Change> {
    let mut state = shared.services.lock().await;
    let table = state.table.clone();
    if table.is_empty() || nft::exists(&table_name(shared)) {
        return Ok(Change::Unchanged);
    }
    bounded(ENSURE, make(shared, &mut state, &table)).await.map(changed)
}

async fn make(shared: &Shared, state: &mut State, table: &ServiceTable) -> HostResult<Vec<String>> {
    let mut done = addresses::ensure(shared, table).await?;
    let isolated = Pods::of(table);
    let told = guard_meanwhile(shared, state, table, &isolated);
    let before = generation::current();
    let known = before.is_some() && state.generation.map(|number| number.wrapping_add(told)) == before;
    if known && state.table == *table {
        state.generation = before;
        shared.nft_generation.note(before);
        return Ok(done);
    }
    let former = state.model.take();
    state.generation = None;
    let rendered = || (!table.is_empty()).then(|| render::render(table));
    let (wanted, found) = match known {
        true => (rendered(), former),
        false => {
            // The same table is in other hands than ours: what it should be is known.
            let wanted = former.filter(|_| state.table == *table).or_else(rendered);
            let found = list(shared, wanted.as_ref()).await?;
            (wanted, found)
        }
    };
    let without = found.is_none() && wanted.is_some();
    let mut number = before;
    if transact(shared, found.as_ref(), wanted.as_ref(), &mut number).await? {
        done.push(match &wanted {
            Some(_) => format!("{} frontends, {} isolations", table.frontends.len(), table.isolations.len()),
            None => "removed the services".to_owned(),
        });
    }
    let told = guard(state, table, isolated);
    let number = number.map(|number| number.wrapping_add(told));
    // Ours, and nobody else's in between. What others did may not have been heard: it is looked at soon.
    state.generation = number.filter(|number| generation::current() == Some(*number));
    shared.nft_generation.note(state.generation);
    if number != state.generation {
        let _ = shared.events.send(HostEvent::Network);
    }
    let stale = udp_changes(&state.table, table);
    state.model = wanted;
    state.table = table.clone();
    if !stale.is_empty() {
        forget_flows("lead to backends of before", move || conntrack::forget_udp(&stale)).await;
    }
    if without {
        let table = table.clone();
        forget_flows("began without rules", move || conntrack::forget_lost(&table)).await;
    }
    Ok(done)
}

fn changed(done: Vec<String>) -> Change {
    if done.is_empty() { Change::Unchanged } else { Change::Changed(done.join(", ")) }
}

/// Sees to it that there is a guard while the table is changed: who is not isolated any more is let go before the rules are, and who is
/// now is held after them. Gives the guard's transactions, each of which changes the rule set's number.
fn guard_meanwhile(shared: &Shared, state: &mut State, table: &ServiceTable, isolated: &Pods) -> u32 {
    if state.guard.is_none() {
        let socket = shared.guard_socket.get().map_or_else(Socket::connect, |kept| kept.try_clone().map(Socket::from));
        match socket.and_then(|socket| Guard::of(socket, &format!("{}_guard", table_name(shared)))) {
            Ok(guard) => state.guard = Some(guard),
            Err(error) => tracing::warn!(%error, "there is no guard for when others flush all rules"),
        }
    }
    let staying = match state.guard.as_ref().map(Guard::holds) {
        // It holds whom the rules isolate, which a former daemon made too.
        Some(Holds::Former) => return 0,
        Some(Holds::Pods(now)) => now.and(isolated),
        Some(Holds::Nothing) | None if state.table == *table => isolated.clone(),
        Some(Holds::Nothing) | None => Pods::default(),
    };
    guard(state, table, staying)
}

/// Has the guard isolate these pods, and nobody where nothing is asked for. Gives its transactions.
fn guard(state: &mut State, table: &ServiceTable, pods: Pods) -> u32 {
    let Some(guard) = &mut state.guard else { return 0 };
    let first = *guard.holds() == Holds::Nothing;
    let done = if table.is_empty() { guard.remove() } else { guard.isolate(pods) };
    match done {
        Ok(changed) => u32::from(changed),
        Err(error) if first => {
            tracing::debug!(
                %error,
                "when others flush all rules, connections through services break and policies are open until the rules are back"
            );
            0
        }
        Err(error) => {
            tracing::warn!(%error, "policies are open for as long as others have flushed all rules");
            0
        }
    }
}

/// Leads from what was found to what is wanted, and counts the transactions. False: that is the same.
async fn transact(
    shared: &Shared,
    found: Option<&Model>,
    wanted: Option<&Model>,
    number: &mut Option<u32>,
) -> HostResult<bool> {
    let name = table_name(shared);
    if found.is_some_and(|found| !found.chains.contains_key(render::MARK_CHAIN)) {
        let message =
            format!("the nftables table inet {name} exists and was not made by reddwarfd: rename or remove it");
        return Err(HostError::new(HostErrorKind::Foreign, ENSURE, name, message));
    }
    let Some(wanted) = wanted else {
        if found.is_some() {
            text(&format!("delete table inet {name}\n"), number).await.map_err(|e| e.into_host(ENSURE, "services"))?;
        }
        return Ok(found.is_some());
    };
    let steps = match found {
        None => Some(wanted.create(&name)),
        Some(found) => wanted.change(found, &name),
    };
    if let Some(steps) = steps {
        if steps.is_empty() {
            return Ok(false);
        }
        match take(shared, &name, &steps, number).await {
            Ok(()) => return Ok(true),
            // Others may have changed the table in between. The whole of it fits always.
            Err(error) => tracing::debug!(error, "the change did not fit what is there; the table is replaced"),
        }
    }
    *number = generation::current();
    let _covered =
        (wanted.maps.values().map(|map| map.elements.len()).sum::<usize>() > MANY).then(|| shared.nft_ear.cover());
    text(&wanted.replace(&name), number).await.map_err(|e| e.into_host(ENSURE, "services"))?;
    Ok(true)
}

async fn take(shared: &Shared, name: &str, steps: &Steps<'_>, number: &mut Option<u32>) -> Result<(), String> {
    text(&steps.before, number).await.map_err(|e| e.to_string())?;
    if !steps.elements.is_empty() {
        let many = steps.elements.iter().map(|change| change.elements.len()).sum::<usize>() > MANY;
        let _covered = many.then(|| shared.nft_ear.cover());
        elements::apply(name, &steps.elements, *number).map_err(|e| e.to_string())?;
        *number = number.map(|n| n.wrapping_add(1));
    }
    text(&steps.after, number).await.map_err(|e| e.to_string())
}

/// One transaction of nft's, unless there is nothing to do.
async fn text(text: &str, number: &mut Option<u32>) -> Result<(), CommandError> {
    if !text.is_empty() {
        nft::apply(text).await?;
        *number = number.map(|n| n.wrapping_add(1));
    }
    Ok(())
}

/// The table as it is in the kernel; `None`: there is none.
async fn list(shared: &Shared, wanted: Option<&Model>) -> HostResult<Option<Model>> {
    let failed = |e: CommandError| e.into_host(OBSERVE, "services");
    if !nft::exists(&table_name(shared)) {
        return Ok(None);
    }
    let answer: Option<CommandOutput> = nft::read_table(&table_name(shared)).await.map_err(failed)?;
    let Some(answer) = answer else { return Ok(None) };
    let empty = Model::default();
    listing::parse(&answer.stdout, wanted.unwrap_or(&empty)).map(Some).map_err(|e| {
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
    match list(shared, Some(&wanted)).await? {
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

/// Such flows would go on for as long as the client sends.
async fn forget_flows(which: &str, work: impl FnOnce() -> io::Result<usize> + Send + 'static) {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(0)) => {}
        Ok(Ok(count)) => tracing::debug!(count, "flows that {which} were forgotten"),
        Ok(Err(error)) => tracing::warn!(%error, "flows that {which} can't be forgotten: they go on as they were"),
        Err(error) => tracing::warn!(%error, "flows that {which} can't be forgotten"),
    }
}
