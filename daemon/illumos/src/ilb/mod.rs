//! Services by ILB, where the operator asks for it (`zone_balancer = "ilb"`).
//!
//! ILB's configuration outlasts boots and is others' too: it is looked at by the same three commands at every pass, only the
//! difference is applied (`plan`), and nothing but rules and groups that bear names of ours is touched. A file,
//! `STATE/ilb.json`, says that there may be some, so that hosts that never used ILB are not asked about it, and those that
//! did lose what is left when the setting changes. What ILB can't do stays with ipnat (`split`).

mod plan;
mod split;

pub(crate) use split::{Split, split};

use crate::dladm::AnswerError;
use crate::host::Shared;
use crate::ilbadm::{self, Balanced, Name, Prefix};
use crate::ipadm;
use plan::{Plan, Seen, Step, allowed, plan};
use reddwarf_command::{Cause, CommandError, Invocation};
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use reddwarf_supervise::files::{io_error, remove_file, write_json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

const ENSURE: &str = "make services";
const SUBJECT: &str = "ILB";
/// What ILB's service waits for is a service too: forwarding that is on by ipadm(8) alone does not do.
const MEND: &str = "`pkg install service/network/load-balancer/ilb`, `routeadm -u -e ipv4-forwarding`, `svcadm enable \
                    svc:/network/loadbalancer/ilb`; `svcs -xv ilb` tells what keeps it. Or set `zone_balancer` to ipnat";

/// The rules that ILB is to have, by name.
pub(crate) type Wanted = BTreeMap<Name, Balanced>;

/// What was made.
#[derive(Default)]
pub(crate) struct Made {
    /// Rules that are new or other than before.
    pub(crate) changed: usize,
    /// Rules that could not be made, or not be changed.
    pub(crate) lost: BTreeSet<Name>,
    /// Why the first of them could not.
    pub(crate) failed: Option<HostError>,
    /// What is too much; `None`: ILB was not asked.
    stale: Option<Vec<Step>>,
}

/// Makes what is wanted and leaves what is too much for [`unmake`]. `held`: whom nothing new may lead to. `told`: that ILB
/// gives no answer was said already.
///
/// # Errors
/// Nothing can be made: ILB is not there, or gives no answer, or nothing is forwarded. The message says how to mend it.
pub(crate) async fn make(
    shared: &Shared,
    wanted: &Wanted,
    held: &BTreeSet<SocketAddr>,
    told: &mut bool,
) -> HostResult<Made> {
    let mark = shared.paths.ilb();
    if wanted.is_empty() && !mark.exists() {
        return Ok(Made::default());
    }
    let seen = match look(shared).await {
        Ok(seen) => seen,
        // Services don't need it any more: that something of ours is left there is no reason to fail.
        Err(error) if wanted.is_empty() => {
            if !std::mem::replace(told, true) {
                tracing::warn!(error = error.chain(), "rules of ours may be left in ILB until it gives an answer");
            }
            return Ok(Made::default());
        }
        Err(error) => return Err(error),
    };
    *told = false;
    if let Some(problem) = not_forwarding(shared, wanted).await? {
        return Err(HostError::new(HostErrorKind::InvalidState, ENSURE, SUBJECT, problem));
    }
    let prefix = Prefix::of(&shared.options.instance);
    if !mark.exists() {
        write_json(&mark, &prefix.to_string()).map_err(|e| io_error(ENSURE, &mark, e))?;
    }
    let allowed = allowed(wanted, &seen, held);
    let Plan { make, unmake, clashes } = plan(&allowed, &seen, &prefix);
    let mut made = Made { stale: Some(unmake), ..Made::default() };
    made.lost.extend(wanted.keys().filter(|name| !allowed.contains_key(*name)).cloned());
    for (name, of) in clashes {
        let message = format!("{}: delete that rule, or give the service another place", taken(wanted, &name, &of));
        made.failed.get_or_insert_with(|| HostError::new(HostErrorKind::Foreign, ENSURE, SUBJECT, message));
        made.lost.insert(name);
    }
    for (name, steps) in make {
        let Some(rule) = allowed.get(&name) else { continue };
        match carry_out(shared, rule, steps).await {
            Ok(()) => made.changed += 1,
            Err(error) => {
                made.failed.get_or_insert(error);
                made.lost.insert(name);
            }
        }
    }
    Ok(made)
}

fn taken(wanted: &Wanted, name: &Name, of: &str) -> String {
    let place = wanted.get(name).map(ToString::to_string).unwrap_or_default();
    format!("{place} is ILB's rule {of}'s, which is not ours")
}

/// One rule's steps.
async fn carry_out(shared: &Shared, rule: &Balanced, steps: Vec<Step>) -> HostResult<()> {
    let there = !steps.iter().any(|step| matches!(step, Step::DeleteRule(_) | Step::CreateRule(..)));
    for step in steps {
        let Err(error) = shared.tools().run(&step.run()).await else { continue };
        return match &step {
            // ilbd gives a name of a server that was taken away to the next one, and the kernel refuses it as long as
            // connections to the former hold it. In another rule it is free.
            Step::AddServers(name, _) if error.cause() == Cause::Invalid => anew(shared, name, rule, there).await,
            _ => Err(error.into_host(ENSURE, SUBJECT)),
        };
    }
    Ok(())
}

/// Makes a rule and its group anew, which their connections outlive. `there`: so far there is the rule.
async fn anew(shared: &Shared, name: &Name, rule: &Balanced, there: bool) -> HostResult<()> {
    let old = there.then(|| Step::DeleteRule(name.clone()));
    let new = [
        Step::DeleteGroup(name.clone()),
        Step::CreateGroup(name.clone(), rule.servers.clone()),
        Step::CreateRule(name.clone(), rule.clone()),
    ];
    for step in old.into_iter().chain(new) {
        shared.run(ENSURE, SUBJECT, &step.run()).await?;
    }
    Ok(())
}

/// Takes away what is too much; how many steps that took.
///
/// # Errors
/// The first step that failed; the others were tried.
pub(crate) async fn unmake(shared: &Shared, wanted: &Wanted, made: &Made) -> HostResult<usize> {
    let Some(stale) = &made.stale else { return Ok(0) };
    let mut failed = None;
    for step in stale {
        match shared.tools().run(&step.run()).await {
            Err(error) if error.cause() != Cause::NotFound => {
                failed.get_or_insert_with(|| error.into_host(ENSURE, SUBJECT));
            }
            _ => {}
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if wanted.is_empty() {
        let mark = shared.paths.ilb();
        remove_file(&mark).map_err(|e| io_error(ENSURE, &mark, e))?;
    }
    Ok(stale.len())
}

/// What is not as it was made, in words.
pub(crate) async fn drift(shared: &Shared, wanted: &Wanted) -> HostResult<Vec<String>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let seen = match look(shared).await {
        Ok(seen) => seen,
        Err(error) => return Ok(vec![error.chain()]),
    };
    let plan = plan(wanted, &seen, &Prefix::of(&shared.options.instance));
    let clashes = plan.clashes.iter().map(|(name, of)| taken(wanted, name, of));
    let words = plan.steps().map(ToString::to_string).chain(clashes);
    Ok(words.chain(not_forwarding(shared, wanted).await?).collect())
}

/// Three runs, whatever there is.
async fn look(shared: &Shared) -> HostResult<Seen> {
    let bad = |e: AnswerError| HostError::new(HostErrorKind::Other, ENSURE, SUBJECT, e.to_string());
    let (rules, groups, servers) = (ilbadm::show_rules(), ilbadm::show_groups(), ilbadm::show_servers());
    let (rules, groups, servers) = tokio::try_join!(ask(shared, &rules), ask(shared, &groups), ask(shared, &servers))?;
    Ok(Seen {
        rules: ilbadm::rules(&rules).map_err(bad)?,
        groups: ilbadm::groups(&groups).map_err(bad)?,
        disabled: ilbadm::disabled(&servers).map_err(bad)?,
    })
}

async fn ask(shared: &Shared, run: &Invocation) -> HostResult<String> {
    match shared.tools().run(run).await {
        Ok(said) => Ok(String::from_utf8_lossy(&said.stdout).into_owned()),
        Err(error) => {
            let message = match &error {
                CommandError::Missing { .. } => format!("ILB is not installed: {MEND}"),
                _ => format!("ILB gives no answer: {MEND}"),
            };
            let kind = error_kind(&error);
            Err(HostError::new(kind, ENSURE, SUBJECT, message).caused_by(error))
        }
    }
}

fn error_kind(error: &CommandError) -> HostErrorKind {
    match error {
        CommandError::Missing { .. } | CommandError::Unsafe { .. } => HostErrorKind::Unsupported,
        CommandError::Timeout { .. } | CommandError::Crowded { .. } => HostErrorKind::Timeout,
        _ => HostErrorKind::InvalidState,
    }
}

/// The family that the host does not forward, and how to mend that.
async fn not_forwarding(shared: &Shared, wanted: &Wanted) -> HostResult<Option<String>> {
    for (ipv6, family) in [(false, "ipv4"), (true, "ipv6")] {
        if !wanted.values().any(|rule| rule.vip.is_ipv6() == ipv6) {
            continue;
        }
        let text = shared.run(ENSURE, SUBJECT, &ipadm::show_forwarding(ipv6)).await?;
        if text.trim() != "on" {
            let message =
                format!("{family} forwarding is off, so ILB passes nothing on: `routeadm -u -e {family}-forwarding`");
            return Ok(Some(message));
        }
    }
    Ok(None)
}
