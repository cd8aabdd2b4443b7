//! Rules of what containers may do and see.

use super::lab::{Lab, changed, holds, refused, same};
use super::{Case, Outcome, Program, case};
use crate::error::HostErrorKind;
use crate::names::ContainerName;
use crate::observe::{ContainerState, SandboxState};
use crate::spec::{ContainerSpec, FsGroup, FsGroupChange, ProcessView, SandboxSpec, Seccomp, Signal};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(filters_are_kept_and_a_missing_profile_is_named),
        case!(containers_that_share_processes_end_one_by_one),
        case!(what_a_sandbox_shares_can_not_change_in_place),
    ]
}

async fn filters_are_kept_and_a_missing_profile_is_named(lab: &Lab<'_>) -> Outcome {
    let sandbox = lab.sandbox().await?;
    let with = |name: &str, seccomp: Seccomp| {
        let mut spec = lab.container(&sandbox, name, Program::Exit(0));
        spec.security.seccomp = Some(seccomp);
        spec.oom_score_adj = Some(900);
        spec
    };
    let missing = with("missing", Seccomp::Localhost("no/such.json".into()));
    let started = lab.host.container_start(&sandbox.id, &missing).await;
    let said = started.as_ref().err().map(|e| e.message.clone()).unwrap_or_default();
    refused(started, HostErrorKind::InvalidSpec, "a profile that is not there")?;
    holds(said.contains("cannot load seccomp profile") && said.contains("no/such.json"), format!("it says {said:?}"))?;
    for (name, seccomp) in [("default", Seccomp::RuntimeDefault), ("all", Seccomp::Unconfined)] {
        let spec = with(name, seccomp);
        changed(lab.host.container_start(&sandbox.id, &spec).await, name)?;
        same(&lab.end(&sandbox.id, &spec).await?.code, &0, "exit code")?;
        same(
            &lab.instance(&sandbox.id, &spec.name, 0).await?.map(|c| (*c.spec).clone()),
            &Some(spec),
            "the recorded spec",
        )?;
    }
    Ok(())
}

async fn containers_that_share_processes_end_one_by_one(lab: &Lab<'_>) -> Outcome {
    let apart = lab.sandbox().await?;
    let shared = |sandbox: &SandboxSpec, name: &str| {
        let spec = lab.container(sandbox, name, Program::Until(0));
        ContainerSpec { processes: ProcessView::Sandbox, ..spec }
    };
    let stray = shared(&apart, "stray");
    refused(lab.host.container_start(&apart.id, &stray).await, HostErrorKind::InvalidSpec, "nothing is shared there")?;

    let spec = SandboxSpec { share_processes: true, ..lab.spec().await? };
    changed(lab.host.sandbox_ensure(&spec).await, "a sandbox that shares processes")?;
    let (one, two) = (shared(&spec, "one"), shared(&spec, "two"));
    for container in [&one, &two] {
        changed(lab.host.container_start(&spec.id, container).await, "a container in it")?;
    }
    let pid = lab.pid(&spec.id, &two).await?;
    let _ = lab.host.container_signal(&spec.id, &one.name, 0, Signal::Sigkill).await?;
    same(&lab.end(&spec.id, &one).await?.code, &137, "the killed one's code")?;
    same(&lab.pid(&spec.id, &two).await?, &pid, "the other one's pid")?;
    same(&lab.see(&spec.id).await?.state, &SandboxState::Running, "the sandbox")?;
    lab.insist(async || lab.host.sandbox_stop(&spec.id).await).await?;
    let seen = lab.see(&spec.id).await?;
    let ended = seen.containers.values().flatten().all(|c| matches!(c.state, ContainerState::Exited { .. }));
    holds(ended, format!("a container has not ended: {:?}", seen.containers))?;
    changed(lab.host.sandbox_ensure(&spec).await, "bringing it up again")?;
    let Ok(name) = ContainerName::new("three") else { return holds(false, "name") };
    let again = ContainerSpec { name, ..shared(&spec, "three") };
    changed(lab.host.container_start(&spec.id, &again).await, "a container in the sandbox that was brought up again")
}

async fn what_a_sandbox_shares_can_not_change_in_place(lab: &Lab<'_>) -> Outcome {
    let spec = lab.sandbox().await?;
    let group = FsGroup { gid: 2000, change: FsGroupChange::Always };
    for (other, what) in [
        (SandboxSpec { share_processes: true, ..spec.clone() }, "shared processes"),
        (SandboxSpec { host_ipc: true, ..spec.clone() }, "the host's IPC"),
        (SandboxSpec { fs_group: Some(group), ..spec.clone() }, "another group of volumes"),
        (SandboxSpec { own_users: true, ..spec.clone() }, "users of its own"),
        (SandboxSpec { sysctls: [("net.ipv4.tcp_syncookies".into(), "1".into())].into(), ..spec.clone() }, "a sysctl"),
    ] {
        refused(lab.host.sandbox_ensure(&other).await, HostErrorKind::Conflict, what)?;
    }
    same(&*lab.see(&spec.id).await?.spec, &spec, "the mark")
}
