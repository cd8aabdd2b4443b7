//! Restarting the daemon is no event: everything is found again as it was.

use super::lab::{Lab, changed, holds, same, unchanged};
use super::{Case, Outcome, Program, case};
use crate::observe::ContainerState;
use crate::spec::{ContainerSpec, Signal};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_restart_of_the_daemon_changes_nothing),
        case!(what_ended_meanwhile_is_known_afterwards),
        case!(what_lost_its_supervisor_is_made_sure_of_and_remembered),
    ]
}

async fn a_restart_of_the_daemon_changes_nothing(lab: &Lab<'_>) -> Outcome {
    let (sandbox, spec) = lab.running(Program::IgnoreTerm).await?;
    let _ = lab.host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigterm).await?;
    let mut before = lab.observe().await?;
    let host = lab.fixture.restart().await;
    let after = lab.observe_on(host.as_ref()).await?;
    holds(before.at <= after.at, "time since boot went backwards over a restart")?;
    before.at = after.at;
    same(&after, &before, "the observation after a restart")?;
    unchanged(host.network_ensure(&lab.fixture.network()).await, "the network after a restart")?;
    unchanged(host.sandbox_ensure(&sandbox).await, "the sandbox after a restart")?;
    unchanged(host.container_start(&sandbox.id, &spec).await, "the container after a restart")?;
    // The new daemon hears of what happens to the old one's containers.
    let mut events = host.events();
    changed(host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigkill).await, "killing it")?;
    lab.event(&mut events, &sandbox.id, &spec.name).await
}

async fn what_ended_meanwhile_is_known_afterwards(lab: &Lab<'_>) -> Outcome {
    let sandbox = lab.sandbox().await?;
    let spec = lab.container(&sandbox, "app", Program::Exit(7));
    let _ = lab.host.container_start(&sandbox.id, &spec).await?;
    let end = lab.end(&sandbox.id, &spec).await?;
    let before = lab.see(&sandbox.id).await?;
    let host = lab.fixture.restart().await;
    let after = lab.observe_on(host.as_ref()).await?;
    let seen = after.sandboxes.known().and_then(|all| all.get(&sandbox.id)).and_then(|s| s.known());
    same(&seen, &Some(&before), "the sandbox after a restart")?;
    same(&(end.code, end.signal), &(7, None), "how it ended")?;
    unchanged(host.container_start(&sandbox.id, &spec).await, "the attempt that ended")
}

async fn what_lost_its_supervisor_is_made_sure_of_and_remembered(lab: &Lab<'_>) -> Outcome {
    let (sandbox, spec) = lab.running(Program::IgnoreTerm).await?;
    lab.fixture.kill_supervisor(&sandbox.id, &spec).await;
    lab.lost(&sandbox.id, &spec).await?;
    let signal = async |signal| lab.host.container_signal(&sandbox.id, &spec.name, 0, signal).await;
    unchanged(signal(Signal::Sigterm).await, "a stop signal that nobody delivers")?;
    changed(signal(Signal::Sigkill).await, "making sure of it")?;
    let Some(seen) = lab.instance(&sandbox.id, &spec.name, 0).await? else { return holds(false, "it is forgotten") };
    let ContainerState::Exited { code, signal: by, started, message, .. } = &seen.state else {
        return holds(false, format!("it should have ended, is {:?}", seen.state));
    };
    same(&(*code, *by, started.is_some()), &(137, None, true), "code, signal and whether it ever ran")?;
    same(&(seen.lost, seen.oom_killed, seen.stop), &(true, false, None), "lost, oom and stop request")?;
    holds(!message.is_empty(), "no message")?;
    unchanged(signal(Signal::Sigkill).await, "making sure again")?;
    let host = lab.fixture.restart().await;
    let next = ContainerSpec { attempt: 1, ..spec.clone() };
    changed(host.container_start(&sandbox.id, &next).await, "the next attempt, by the next daemon")?;
    same(&lab.instance(&sandbox.id, &spec.name, 0).await?, &Some(seen), "what is known of the lost one")
}
