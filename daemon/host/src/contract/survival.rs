//! Restarting the daemon is no event: everything is found again as it was.

use super::lab::{Lab, changed, holds, same, unchanged};
use super::{Case, Outcome, Program, case};
use crate::spec::Signal;

pub(super) fn cases() -> Vec<Case> {
    vec![case!(a_restart_of_the_daemon_changes_nothing), case!(what_ended_meanwhile_is_known_afterwards)]
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
