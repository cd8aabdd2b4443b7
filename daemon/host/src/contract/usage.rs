//! Rules of figures.

use super::lab::{Lab, holds, needs, same};
use super::{Case, Outcome, Program, Stop, case};
use crate::names::VolumeName;
use crate::spec::VolumeSpec;
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(the_host_and_what_runs_have_figures),
        case!(counters_grow),
        case!(what_has_ended_uses_nothing),
        case!(logs_and_volumes_have_a_size),
        case!(written_files_are_counted),
        case!(a_budget_is_kept),
    ]
}

async fn the_host_and_what_runs_have_figures(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().figures, "figures")?;
    let (sandbox, spec) = lab.running(Program::Until(0)).await?;
    let report = lab.host.usage().await?;
    let p = report.pressure;
    holds(p.memory_bytes > 0 && p.memory_available_bytes <= p.memory_bytes, format!("{p:?}"))?;
    holds(p.processes > 0 && p.processes < p.processes_max, format!("{p:?}"))?;
    let disk = p.storage;
    holds(disk.capacity_bytes > 0 && disk.available_bytes <= disk.capacity_bytes, format!("{disk:?}"))?;
    let host = report.host;
    holds(host.cpu_nanos > 0 && host.working_set_bytes <= host.memory_bytes, format!("{host:?}"))?;
    let Some(usage) = report.sandboxes.get(&sandbox.id) else { return holds(false, "the sandbox has no figures") };
    let Some((attempt, container)) = usage.containers.get(&spec.name) else {
        return holds(false, "the container has no figures");
    };
    same(attempt, &spec.attempt, "the attempt")?;
    holds(
        container.memory_bytes > 0 && container.working_set_bytes <= container.memory_bytes,
        format!("{container:?}"),
    )?;
    holds(container.processes >= 1, format!("{container:?}"))?;
    holds(usage.total.memory_bytes >= container.memory_bytes, format!("{usage:?}"))?;
    holds(usage.total.processes >= container.processes, format!("{usage:?}"))?;
    holds(usage.traffic.is_some(), "a pod on the pod network has no traffic")?;
    let alone = lab.host.pressure().await?;
    same(&alone.memory_bytes, &p.memory_bytes, "the memory of the machine")?;
    same(&alone.storage.capacity_bytes, &disk.capacity_bytes, "the size of its disk")
}

async fn counters_grow(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().figures, "figures")?;
    let (sandbox, spec) = lab.running(Program::Until(0)).await?;
    let cpu = async || {
        let report = lab.host.usage().await?;
        let one =
            report.sandboxes.get(&sandbox.id).and_then(|s| s.containers.get(&spec.name)).map(|(_, c)| c.cpu_nanos);
        one.map(|cpu| (report.at, report.host.cpu_nanos, cpu)).ok_or_else(|| Stop::Broken("no figures".into()))
    };
    let first = cpu().await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = cpu().await?;
    holds(second.0 > first.0, "time stands still")?;
    holds(second.1 >= first.1 && second.2 >= first.2, format!("{first:?}, then {second:?}"))?;
    holds(second.2 > 0, "starting it took no time")
}

async fn what_has_ended_uses_nothing(lab: &Lab<'_>) -> Outcome {
    let sandbox = lab.sandbox().await?;
    let spec = lab.container(&sandbox, "app", Program::Exit(0));
    let _ = lab.host.container_start(&sandbox.id, &spec).await?;
    lab.end(&sandbox.id, &spec).await?;
    let report = lab.host.usage().await?;
    let found = report.sandboxes.get(&sandbox.id).and_then(|s| s.containers.get(&spec.name));
    holds(found.is_none_or(|(_, c)| c.processes == 0), format!("{found:?}"))
}

async fn logs_and_volumes_have_a_size(lab: &Lab<'_>) -> Outcome {
    let mut sandbox = lab.spec().await?;
    let Ok(volume) = VolumeName::new("scratch") else { return holds(false, "name") };
    sandbox.volumes.insert(volume.clone(), VolumeSpec::EmptyDir { memory: false, size_limit_bytes: None });
    let _ = lab.host.sandbox_ensure(&sandbox).await?;
    let spec = lab.container(&sandbox, "app", Program::Print);
    let _ = lab.host.container_start(&sandbox.id, &spec).await?;
    lab.end(&sandbox.id, &spec).await?;
    let absent = lab.fixture.sandbox().id;
    let found = lab.host.disk_usage(&[sandbox.id.clone(), absent.clone()], Duration::from_secs(10)).await?;
    holds(!found.contains_key(&absent), "a sandbox that is not there has a size")?;
    let Some(disk) = found.get(&sandbox.id) else { return holds(false, "no figures") };
    holds(disk.complete, "ten seconds were not enough")?;
    let logs = disk.containers.get(&spec.name).map(|c| c.logs).unwrap_or_default();
    holds(logs.bytes > 0 && logs.inodes >= 1, format!("{disk:?}"))?;
    holds(disk.total().bytes >= logs.bytes, format!("{disk:?}"))
}

async fn written_files_are_counted(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().files, "real files")?;
    let mut sandbox = lab.spec().await?;
    let Ok(volume) = VolumeName::new("scratch") else { return holds(false, "name") };
    sandbox.volumes.insert(volume.clone(), VolumeSpec::EmptyDir { memory: false, size_limit_bytes: None });
    let _ = lab.host.sandbox_ensure(&sandbox).await?;
    // A hard link and a symbolic one add nothing.
    let script = "head -c 300000 /dev/zero > /scratch/f; ln /scratch/f /scratch/g; ln -s / /scratch/root; \
                  mkdir /tmp 2>/dev/null; head -c 100000 /dev/zero > /tmp/w; exit 0";
    let argv = vec!["/bin/sh".into(), "-c".into(), script.into()];
    let mut spec = lab.fixture.container(&sandbox, "app", argv);
    spec.mounts.push(crate::spec::MountSpec {
        volume: volume.clone(),
        target: "/scratch".into(),
        sub_path: String::new(),
        read_only: false,
        recursive_read_only: None,
        propagation: None,
    });
    let _ = lab.host.container_start(&sandbox.id, &spec).await?;
    same(&lab.end(&sandbox.id, &spec).await?.code, &0, "exit code")?;
    let found = lab.host.disk_usage(std::slice::from_ref(&sandbox.id), Duration::from_secs(10)).await?;
    let Some(disk) = found.get(&sandbox.id) else { return holds(false, "no figures") };
    let scratch = disk.volumes.get(&volume).copied().unwrap_or_default();
    holds((300_000..400_000).contains(&scratch.bytes), format!("{disk:?}"))?;
    let writable = disk.containers.get(&spec.name).map(|c| c.writable).unwrap_or_default();
    holds((100_000..2_000_000).contains(&writable.bytes), format!("{disk:?}"))
}

async fn a_budget_is_kept(lab: &Lab<'_>) -> Outcome {
    let (sandbox, _) = lab.running(Program::Until(0)).await?;
    let found = lab.host.disk_usage(std::slice::from_ref(&sandbox.id), Duration::ZERO).await?;
    // A host that answers at once may be complete all the same.
    holds(found.len() <= 1, format!("{found:?}"))
}
