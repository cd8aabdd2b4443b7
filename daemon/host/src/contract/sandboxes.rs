//! Rules of sandboxes.

use super::lab::{Lab, changed, holds, needs, refused, same, unchanged};
use super::{Case, Outcome, Program, Stop, case};
use crate::error::HostErrorKind;
use crate::names::Brand;
use crate::observe::{ContainerState, SandboxState};
use crate::spec::{HostsEntry, Resources, SandboxSpec};
use std::time::Duration;
use tokio::time::timeout;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_sandbox_is_made_once_and_bears_its_spec),
        case!(awkward_values_come_back_as_they_were),
        case!(another_spec_is_a_conflict_and_changes_nothing),
        case!(resources_change_in_place),
        case!(an_unknown_brand_is_refused),
        case!(stopping_kills_and_can_be_undone),
        case!(destroying_is_refused_while_a_container_runs),
        case!(destroying_leaves_nothing),
        case!(what_is_not_there_is_gone_already),
        case!(what_is_not_ours_is_not_touched),
        case!(a_call_that_broke_off_is_finished_by_a_repeat),
        case!(sandboxes_are_made_side_by_side),
    ]
}

async fn a_sandbox_is_made_once_and_bears_its_spec(lab: &Lab<'_>) -> Outcome {
    let spec = lab.spec().await?;
    same(&lab.look(&spec.id).await?.is_some(), &false, "there before it was made")?;
    let before = lab.observe().await?.at;
    changed(lab.host.sandbox_ensure(&spec).await, "a new sandbox")?;
    let seen = lab.see(&spec.id).await?;
    same(&*seen.spec, &spec, "the mark")?;
    same(&seen.state, &SandboxState::Running, "state")?;
    holds(seen.containers.is_empty(), "a new sandbox has containers")?;
    let started = seen.started.ok_or_else(|| Stop::Broken("a running sandbox has no start time".into()))?;
    holds(before <= started, format!("started {started:?} before it was asked for at {before:?}"))?;
    unchanged(lab.host.sandbox_ensure(&spec).await, "the same again")?;
    same(&lab.see(&spec.id).await?, &seen, "after the same again")
}

async fn awkward_values_come_back_as_they_were(lab: &Lab<'_>) -> Outcome {
    let mut spec = lab.spec().await?;
    spec.dns.nameservers = vec!["10.0.0.53".parse().map_err(unparsable)?, "fd00::53".parse().map_err(unparsable)?];
    spec.dns.searches = vec!["default.svc.cluster.local".into(), "example.org".into()];
    spec.dns.options = vec!["ndots:5".into(), "edns0".into()];
    spec.hosts = vec![HostsEntry {
        ip: "192.0.2.1".parse().map_err(unparsable)?,
        names: vec!["db.example.org".into(), "db".into()],
    }];
    let _ = lab.host.sandbox_ensure(&spec).await?;
    same(&*lab.see(&spec.id).await?.spec, &spec, "the mark")?;
    unchanged(lab.host.sandbox_ensure(&spec).await, "the same again")
}

async fn another_spec_is_a_conflict_and_changes_nothing(lab: &Lab<'_>) -> Outcome {
    let spec = lab.sandbox().await?;
    let seen = lab.see(&spec.id).await?;
    let mut other = spec.clone();
    other.hostname = "another-name".into();
    refused(lab.host.sandbox_ensure(&other).await, HostErrorKind::Conflict, "another host name")?;
    let mut other = spec.clone();
    other.pod.uid = lab.fixture.sandbox().pod.uid;
    refused(lab.host.sandbox_ensure(&other).await, HostErrorKind::Conflict, "another pod under the same name")?;
    same(&lab.see(&spec.id).await?, &seen, "after the refusals")
}

async fn resources_change_in_place(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().limits, "limits")?;
    let (mut spec, container) = lab.running(Program::Until(0)).await?;
    let pid = lab.pid(&spec.id, &container).await?;
    spec.resources = Resources {
        cpu_request_millis: Some(100),
        cpu_limit_millis: Some(500),
        memory_limit_bytes: Some(256 << 20),
        pids_limit: Some(200),
        ..Resources::default()
    };
    changed(lab.host.sandbox_ensure(&spec).await, "other resources")?;
    unchanged(lab.host.sandbox_ensure(&spec).await, "the same again")?;
    same(&*lab.see(&spec.id).await?.spec, &spec, "the mark")?;
    same(&lab.pid(&spec.id, &container).await?, &pid, "the container's pid")
}

async fn an_unknown_brand_is_refused(lab: &Lab<'_>) -> Outcome {
    let mut spec = lab.spec().await?;
    spec.brand = Brand::new("no-such-brand").map_err(unparsable)?;
    refused(lab.host.sandbox_ensure(&spec).await, HostErrorKind::InvalidSpec, "an unknown brand")?;
    same(&lab.look(&spec.id).await?, &None, "what an invalid spec left behind")
}

async fn stopping_kills_and_can_be_undone(lab: &Lab<'_>) -> Outcome {
    let (spec, container) = lab.running(Program::IgnoreTerm).await?;
    lab.insist(async || lab.host.sandbox_stop(&spec.id).await).await?;
    let seen = lab.see(&spec.id).await?;
    same(&seen.state, &SandboxState::Stopped, "state after stop")?;
    same(&*seen.spec, &spec, "the mark after stop")?;
    let ended = seen.containers.values().flatten().all(|c| matches!(c.state, ContainerState::Exited { .. }));
    holds(ended, format!("a container has not ended: {:?}", seen.containers))?;
    unchanged(lab.host.sandbox_stop(&spec.id).await, "stopping again")?;
    refused(
        lab.host.container_start(&spec.id, &next(&container)).await,
        HostErrorKind::InvalidState,
        "starting a container in a stopped sandbox",
    )?;
    changed(lab.host.sandbox_ensure(&spec).await, "bringing it up again")?;
    same(&lab.see(&spec.id).await?.state, &SandboxState::Running, "state after bringing it up again")?;
    let again = next(&container);
    let _ = lab.host.container_start(&spec.id, &again).await?;
    lab.pid(&spec.id, &again).await.map(drop)
}

async fn destroying_is_refused_while_a_container_runs(lab: &Lab<'_>) -> Outcome {
    let (spec, container) = lab.running(Program::Until(0)).await?;
    let pid = lab.pid(&spec.id, &container).await?;
    refused(lab.host.sandbox_destroy(&spec.id).await, HostErrorKind::InvalidState, "destroying a busy sandbox")?;
    same(&lab.pid(&spec.id, &container).await?, &pid, "the container's pid after the refusal")?;
    unchanged(lab.host.sandbox_ensure(&spec).await, "the sandbox after the refusal")
}

async fn destroying_leaves_nothing(lab: &Lab<'_>) -> Outcome {
    let (spec, container) = lab.running(Program::Until(0)).await?;
    let _ = lab.host.container_signal(&spec.id, &container.name, 0, crate::spec::Signal::Sigkill).await?;
    lab.end(&spec.id, &container).await?;
    changed(lab.host.sandbox_destroy(&spec.id).await, "destroying")?;
    unchanged(lab.host.sandbox_destroy(&spec.id).await, "destroying again")?;
    let seen = lab.observe().await?;
    holds(seen.sandboxes.known().is_some_and(|all| !all.contains_key(&spec.id)), "it is still observed")?;
    let left: Vec<_> = seen.leftovers.iter().filter(|l| l.name.contains(spec.id.as_str())).collect();
    holds(left.is_empty(), format!("it left {left:?}"))?;
    // The address is free for its next owner.
    let mut heir = lab.spec().await?;
    heir.network = spec.network.clone();
    changed(lab.host.sandbox_ensure(&heir).await, "another sandbox with the freed address")
}

async fn what_is_not_there_is_gone_already(lab: &Lab<'_>) -> Outcome {
    let spec = lab.spec().await?;
    unchanged(lab.host.sandbox_stop(&spec.id).await, "stopping what is not there")?;
    unchanged(lab.host.sandbox_destroy(&spec.id).await, "destroying what is not there")
}

async fn what_is_not_ours_is_not_touched(lab: &Lab<'_>) -> Outcome {
    let spec = lab.fixture.sandbox();
    let _ = lab.host.network_ensure(&lab.fixture.network()).await?;
    needs(lab.fixture.plant_foreign(&spec.id).await, "a way to plant something foreign")?;
    refused(lab.host.sandbox_ensure(&spec).await, HostErrorKind::Foreign, "a sandbox in a foreign place")?;
    same(&lab.look(&spec.id).await?, &None, "the foreign thing in the observation")
}

/// What a kill of the daemon does to a call: its future is dropped at some point.
async fn a_call_that_broke_off_is_finished_by_a_repeat(lab: &Lab<'_>) -> Outcome {
    for millis in [0, 1, 3, 10, 30] {
        let spec = lab.spec().await?;
        let _ = timeout(Duration::from_millis(millis), lab.host.sandbox_ensure(&spec)).await;
        lab.insist(async || lab.host.sandbox_ensure(&spec).await).await?;
        up(lab, &spec).await?;
        let _ = timeout(Duration::from_millis(millis), lab.host.sandbox_stop(&spec.id)).await;
        lab.insist(async || lab.host.sandbox_stop(&spec.id).await).await?;
        lab.insist(async || lab.host.sandbox_ensure(&spec).await).await?;
        up(lab, &spec).await?;
        let _ = timeout(Duration::from_millis(millis), lab.host.sandbox_destroy(&spec.id)).await;
        lab.insist(async || lab.host.sandbox_destroy(&spec.id).await).await?;
        same(&lab.look(&spec.id).await?, &None, "after destroying twice")?;
    }
    Ok(())
}

async fn sandboxes_are_made_side_by_side(lab: &Lab<'_>) -> Outcome {
    let (one, two, three) = (lab.spec().await?, lab.spec().await?, lab.spec().await?);
    let all = [&one, &two, &three];
    let results =
        tokio::join!(lab.host.sandbox_ensure(&one), lab.host.sandbox_ensure(&two), lab.host.sandbox_ensure(&three));
    for result in [results.0, results.1, results.2] {
        changed(result, "one of three sandboxes made at once")?;
    }
    for spec in all {
        up(lab, spec).await?;
    }
    Ok(())
}

async fn up(lab: &Lab<'_>, spec: &SandboxSpec) -> Outcome {
    let seen = lab.see(&spec.id).await?;
    same(&seen.state, &SandboxState::Running, "state")?;
    same(&*seen.spec, spec, "the mark")
}

fn next(spec: &crate::spec::ContainerSpec) -> crate::spec::ContainerSpec {
    crate::spec::ContainerSpec { attempt: spec.attempt + 1, ..spec.clone() }
}

fn unparsable(error: impl std::fmt::Display) -> Stop {
    Stop::Broken(error.to_string())
}
