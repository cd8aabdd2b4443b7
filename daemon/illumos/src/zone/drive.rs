//! Reads a zone's state, decides, acts, reads again: until the goal is reached or nothing moves any more.

use super::brand::ZoneBrand;
use super::state::{Goal, Next, next};
use super::{commands, config};
use crate::datasets;
use crate::host::Shared;
use crate::zoneadm::{self, Zone, ZoneState};
use crate::zonecfg::{self, InterpretError, ZoneConfig};
use reddwarf_command::{Cause, CommandError, Invocation};
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use reddwarf_supervise::files::{io_error, make_dir, remove_file, write_atomically};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// More steps than any way from any state to any goal has, repeated halts aside.
const STEPS_MOST: u32 = 12;
/// How long a zone that does not come down is halted again and again.
pub(crate) const STUBBORN: Duration = Duration::from_secs(30);
/// How often an uninstallation that failed is tried again at once, and how long in between.
const UNINSTALLS_MOST: u32 = 6;
const PAUSE: Duration = Duration::from_millis(300);
/// How long after `zoneadm boot` its processes may take to run.
const COMES_UP: Duration = Duration::from_secs(30);

/// A zone, and what it is to be made from.
pub(crate) struct Order<'o> {
    /// Its name.
    pub(crate) zone: &'o str,
    /// Whom its mark must name.
    pub(crate) owner: &'o str,
    /// Its configuration; `None`: it is not to be made, only to be brought down.
    pub(crate) config: Option<&'o ZoneConfig>,
    /// What follows `install`.
    pub(crate) install: Vec<String>,
    /// The template that it is cloned from instead.
    pub(crate) clone: Option<String>,
}

/// What [`drive`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Driven {
    /// In words; empty when all was as asked.
    pub(crate) done: Vec<&'static str>,
    /// Changed properties that the zone sees at its next boot only.
    pub(crate) after_boot: BTreeSet<&'static str>,
}

/// All zones of the host.
///
/// # Errors
/// Of zoneadm(8), or an answer that makes no sense: then nothing may be taken as absent.
pub(crate) async fn zones(shared: &Shared, op: &'static str) -> HostResult<Vec<Zone>> {
    let text = shared.run(op, "zones", &commands::list()).await?;
    zoneadm::list(&text).map_err(|e| HostError::new(HostErrorKind::Other, op, "zones", e.to_string()))
}

async fn zone(shared: &Shared, op: &'static str, name: &str) -> HostResult<Option<Zone>> {
    Ok(zones(shared, op).await?.into_iter().find(|z| z.name == name))
}

/// Brings a zone to `goal`. Nobody else may work on it meanwhile.
///
/// # Errors
/// `Foreign` when a zone of that name lacks our mark, `Busy` when it does not come down, `Timeout` when a tool hangs,
/// `InvalidState` for states that a person must end, and what the tools say.
pub(crate) async fn drive(shared: &Shared, op: &'static str, order: &Order<'_>, goal: Goal) -> HostResult<Driven> {
    let mut driven = Driven::default();
    let fail = |kind, message: String| HostError::new(kind, op, order.zone, message);
    let mut found = zone(shared, op, order.zone).await?;
    if let Some(zone) = &found {
        let live = live(shared, op, order.zone).await?;
        check_owner(shared, op, order, zone, live.as_ref())?;
        if let Some(wanted) = order.config {
            adjust(shared, op, order, zone, live.as_ref(), wanted, &mut driven).await?;
        }
    }
    let mut stubborn = None;
    let mut uninstalls = 0;
    for _ in 0..STEPS_MOST {
        let state = found.as_ref().map(|z| &z.state);
        let step = next(state, goal);
        match &step {
            Next::Done => return Ok(driven),
            Next::Leave(why) => return Err(fail(HostErrorKind::InvalidState, why.clone())),
            Next::Halt => {
                let until = *stubborn.get_or_insert_with(|| Instant::now() + STUBBORN);
                found = halt(shared, op, order.zone, until).await?;
                driven.done.push("halted");
                continue;
            }
            _ => {}
        }
        let result = act(shared, op, order, &step, &mut driven).await;
        found = zone(shared, op, order.zone).await?;
        if step == Next::Boot && result.is_ok() {
            found = until_running(shared, op, order.zone, found).await?;
        }
        if let Err(error) = result {
            // Files of a zone that was halted just now may still be in use for a moment.
            if step == Next::Uninstall && uninstalls < UNINSTALLS_MOST && error.kind != HostErrorKind::Timeout {
                uninstalls += 1;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            // "Already" and the like: what counts is what is there now.
            if next(found.as_ref().map(|z| &z.state), goal) == step || error.kind == HostErrorKind::Timeout {
                return Err(error);
            }
            tracing::debug!(zone = order.zone, error = %error.chain(), "failed, and yet the zone went on");
            // What an installation left is cleaned up at once, but its failure is what the caller must know.
            if step == Next::Install && goal != Goal::Absent {
                return Err(error);
            }
        }
    }
    let state = found.map_or_else(|| "absent".to_owned(), |z| z.state.to_string());
    Err(fail(HostErrorKind::Busy, format!("is {state} and does not come to where it should be; it is tried again")))
}

async fn act(shared: &Shared, op: &'static str, order: &Order<'_>, step: &Next, driven: &mut Driven) -> HostResult<()> {
    if *step == Next::Install {
        make_way(shared, op, order).await?;
    }
    if *step == Next::Uninstall {
        return uninstall(shared, op, order, driven).await;
    }
    let (run, word) = match step {
        Next::Configure => {
            configure(shared, op, order).await?;
            driven.done.push("configured");
            return Ok(());
        }
        Next::Install => match &order.clone {
            Some(from) => (commands::clone(order.zone, from), "cloned"),
            None => (commands::install(order.zone, &order.install), "installed"),
        },
        Next::Boot => (commands::boot(order.zone), "booted"),
        Next::Unmount => (commands::unmount(order.zone), "unmounted"),
        Next::Delete => (commands::delete(order.zone), "deleted"),
        Next::Done | Next::Leave(_) | Next::Halt | Next::Uninstall => return Ok(()),
    };
    shared.run(op, order.zone, &run).await.map_err(|error| on_nfs(op, order.zone, error))?;
    if *step == Next::Boot {
        driven.after_boot.clear();
    }
    driven.done.push(word);
    Ok(())
}

/// What zoneadm(8) refuses each time, until the pod says otherwise.
fn on_nfs(op: &'static str, zone: &str, error: HostError) -> HostError {
    if !error.chain().contains("NFS mounted file-system") {
        return error;
    }
    let message = "a volume of it lies on NFS, which no zone can have of the global zone's: have its program mount it, or name \
                   another place";
    HostError::new(HostErrorKind::InvalidSpec, op, zone, message).caused_by(error)
}

/// What an installation left that was cut off, or a zone that was forgotten: a clone would not go over it. What somebody detached
/// was not left, but put aside.
async fn make_way(shared: &Shared, op: &'static str, order: &Order<'_>) -> HostResult<()> {
    let (zone, dataset) = (order.zone, datasets::zonepath(shared, order.zone)?);
    if shared.paths.zonepath(zone).join(DETACHED).symlink_metadata().is_ok() {
        let message = format!(
            "its files were detached: `zoneadm -z {zone} attach`, or `zfs destroy -r {dataset}` to have it made anew"
        );
        return Err(HostError::new(HostErrorKind::InvalidState, op, zone, message));
    }
    datasets::destroy(shared, op, &dataset).await.map(drop)
}

/// What `zoneadm detach` leaves in a zone's path.
const DETACHED: &str = "SUNWdetached.xml";

/// Brands destroy a zone's datasets, and leave snapshots of its template that it was cloned from: all of them (lx), or those of
/// further file systems (sparse). There would be no end of them, and after a hundred of one name sparse zones can't be cloned.
async fn uninstall(shared: &Shared, op: &'static str, order: &Order<'_>, driven: &mut Driven) -> HostResult<()> {
    // Not to know them keeps no zone.
    let origins = datasets::origins(shared, op, order.zone).await.unwrap_or_default();
    shared.run(op, order.zone, &commands::uninstall(order.zone)).await?;
    driven.done.push("uninstalled");
    for origin in origins {
        if let Err(error) = datasets::destroy_origin(shared, op, &origin).await {
            tracing::debug!(%origin, error = %error.chain(), "left");
        }
    }
    Ok(())
}

/// Halts until it is down, again and again: files that are open in the zone, links that do not come back and mounts that
/// hang keep it in `down` for a while. A virtual machine is turned off before: its brand would wait half an hour for the guest.
pub(crate) async fn halt(shared: &Shared, op: &'static str, name: &str, until: Instant) -> HostResult<Option<Zone>> {
    let mut pause = Duration::from_millis(100);
    let brand = zone(shared, op, name).await?.map(|z| z.brand);
    if brand.is_some_and(|brand| brand == ZoneBrand::Bhyve.name())
        && let Err(error) = shared.tools().run(&commands::turn_off(name)).await
    {
        tracing::debug!(zone = name, %error, "there is no machine to turn off");
    }
    loop {
        let said = shared.run(op, name, &commands::halt(name)).await;
        let found = zone(shared, op, name).await?;
        let up = |z: &Zone| {
            matches!(z.state, ZoneState::Ready | ZoneState::Running | ZoneState::ShuttingDown | ZoneState::Down)
        };
        if !found.as_ref().is_some_and(up) {
            return Ok(found);
        }
        if Instant::now() >= until {
            return Err(said.err().unwrap_or_else(|| {
                let message =
                    "does not come down: something still holds its files, a link or a mount (fuser -c shows it)";
                HostError::new(HostErrorKind::Busy, op, name, message)
            }));
        }
        if let Err(error) = said
            && error.kind == HostErrorKind::Timeout
        {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(3));
    }
}

async fn until_running(
    shared: &Shared,
    op: &'static str,
    name: &str,
    mut found: Option<Zone>,
) -> HostResult<Option<Zone>> {
    let until = Instant::now() + COMES_UP;
    while found.as_ref().is_some_and(|z| z.state == ZoneState::Ready) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(100)).await;
        found = zone(shared, op, name).await?;
    }
    Ok(found)
}

/// The configuration as it is; `None`: there is none. What we never make (an administrator's additions) is an error of
/// its own, since such a zone is not ours to change.
async fn live(shared: &Shared, op: &'static str, name: &str) -> HostResult<Option<Result<ZoneConfig, InterpretError>>> {
    match shared.tools().run(&commands::export(name)).await {
        Ok(said) => Ok(Some(zonecfg::export(&String::from_utf8_lossy(&said.stdout)))),
        Err(CommandError::Failed { cause: Cause::NotFound, .. }) => Ok(None),
        Err(error) => Err(error.into_host(op, name)),
    }
}

fn check_owner(
    shared: &Shared,
    op: &'static str,
    order: &Order<'_>,
    zone: &Zone,
    live: Option<&Result<ZoneConfig, InterpretError>>,
) -> HostResult<()> {
    let foreign = |message: String| Err(HostError::new(HostErrorKind::Foreign, op, order.zone, message));
    if zone.zonepath != shared.paths.zonepath(order.zone) {
        return foreign(format!("a zone of this name is at {}: it is not ours", zone.zonepath.display()));
    }
    match live {
        // Gone since the list was read: the next reading shows it.
        None => Ok(()),
        Some(Err(error)) => {
            foreign(format!("its configuration holds what reddwarfd never writes ({error}): left alone"))
        }
        Some(Ok(live)) => match config::owner(live, &shared.options.instance) {
            Some(owner) if owner == order.owner => Ok(()),
            Some(other) => foreign(format!("a zone of this name belongs to {other}")),
            None => foreign(format!("a zone of this name lacks the mark {}", config::INSTANCE)),
        },
    }
}

/// Makes the configuration of a zone that is there what is wanted: anew while nothing is installed, by the smallest edit
/// afterwards.
async fn adjust(
    shared: &Shared,
    op: &'static str,
    order: &Order<'_>,
    zone: &Zone,
    live: Option<&Result<ZoneConfig, InterpretError>>,
    wanted: &ZoneConfig,
    driven: &mut Driven,
) -> HostResult<()> {
    let Some(Ok(live)) = live else { return Ok(()) };
    if live == wanted {
        return Ok(());
    }
    if zone.state == ZoneState::Configured {
        configure(shared, op, order).await?;
        driven.done.push("configured anew");
        return Ok(());
    }
    let edit = zonecfg::edit(live, wanted)
        .map_err(|e| HostError::new(HostErrorKind::Conflict, op, order.zone, e.to_string()))?;
    let Some(edit) = edit else { return Ok(()) };
    if let Err(error) = apply(shared, op, order.zone, &edit.script, wanted).await {
        restore(shared, op, order.zone, live).await;
        return Err(error);
    }
    driven.done.push("changed its configuration");
    if matches!(zone.state, ZoneState::Running | ZoneState::Ready) {
        driven.after_boot = edit.after_boot;
    }
    Ok(())
}

/// Writes the whole configuration. Only for a zone that is not there or merely configured: an installed one would get all
/// resources a second time, and zonecfg would say that all went well.
async fn configure(shared: &Shared, op: &'static str, order: &Order<'_>) -> HostResult<()> {
    let Some(wanted) = order.config else {
        let message = "there is nothing to make it from";
        return Err(HostError::new(HostErrorKind::Other, op, order.zone, message));
    };
    let result = apply(shared, op, order.zone, &zonecfg::create(wanted), wanted).await;
    if result.is_err() {
        // A file that failed half-way leaves a valid zone that nobody asked for.
        let found = zone(shared, op, order.zone).await?;
        if found.is_some_and(|z| z.state == ZoneState::Configured && z.zonepath == shared.paths.zonepath(order.zone)) {
            let _ = shared.run(op, order.zone, &commands::delete(order.zone)).await;
        }
    }
    result
}

/// After an edit that failed: what it did of the half is taken back. A zone that boots before the next try would have neither
/// its old configuration nor its new one: no address, perhaps, or no bound.
async fn restore(shared: &Shared, op: &'static str, name: &str, before: &ZoneConfig) {
    let now = match live(shared, op, name).await {
        Ok(Some(Ok(now))) => now,
        // Nothing that could be told apart: the next try begins with reading it.
        Ok(_) | Err(_) => return,
    };
    let Ok(Some(back)) = zonecfg::edit(&now, before) else { return };
    if let Err(error) = apply(shared, op, name, &back.script, before).await {
        tracing::warn!(zone = name, error = %error.chain(), "its configuration is half changed until the next try");
    }
}

/// Gives a command file to zonecfg and reads back what came of it: its exit status proves nothing.
async fn apply(shared: &Shared, op: &'static str, name: &str, script: &str, wanted: &ZoneConfig) -> HostResult<()> {
    let (dir, file) = (shared.paths.zonecfg(), shared.paths.zonecfg().join(name));
    make_dir(&dir)
        .and_then(|()| write_atomically(&file, script.as_bytes(), 0o600))
        .map_err(|e| io_error(op, &file, e))?;
    let run: Invocation = commands::configure(name, &file);
    let said = shared.run(op, name, &run).await;
    let now = live(shared, op, name).await?;
    match now {
        Some(Ok(now)) if now == *wanted => {
            remove_file(&file).map_err(|e| io_error(op, &file, e))?;
            Ok(())
        }
        now => {
            said?;
            let what = match now {
                None => "it is not there afterwards".to_owned(),
                Some(Err(error)) => error.to_string(),
                Some(Ok(now)) => match zonecfg::edit(&now, wanted) {
                    Ok(Some(edit)) => format!("what is missing: {}", edit.script.replace('\n', "; ")),
                    Ok(None) => "it differs".to_owned(),
                    Err(rebuild) => rebuild.to_string(),
                },
            };
            let message = format!("zonecfg took the file {} without a word, and yet {what}", file.display());
            Err(HostError::new(HostErrorKind::Other, op, name, message))
        }
    }
}
