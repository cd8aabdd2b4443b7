//! Rules of volumes.

use super::lab::{Lab, changed, holds, needs, refused, same, unchanged};
use super::{Case, Outcome, Program, Stop, case};
use crate::error::HostErrorKind;
use crate::names::{SandboxId, VolumeName};
use crate::spec::{ContainerSpec, FileContent, MountSpec, SandboxSpec, Sensitive, VolumeSpec};
use crate::traits::ExecRequest;
use std::collections::BTreeMap;
use tokio::io::AsyncReadExt;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(files_are_updated_as_one_value),
        case!(only_files_can_be_updated),
        case!(unsafe_file_names_are_refused),
        case!(containers_see_updated_files_without_a_restart),
        case!(an_empty_directory_is_shared_by_containers),
        case!(mounts_that_lead_nowhere_or_out_are_refused),
        case!(a_part_of_a_volume_is_made_where_missing_and_stays),
        case!(a_volume_on_memory_is_no_larger_than_asked),
    ]
}

fn files(list: &[(&str, &str)]) -> VolumeSpec {
    let content =
        |text: &str| FileContent { bytes: Sensitive::new(text.as_bytes().to_vec()), mode: 0o644, owner: None };
    let files: BTreeMap<String, FileContent> = list.iter().map(|(n, t)| ((*n).to_owned(), content(t))).collect();
    VolumeSpec::Files { files, secret: false }
}

fn volume(name: &str) -> Result<VolumeName, Stop> {
    VolumeName::new(name).map_err(|e| Stop::Broken(e.to_string()))
}

/// A running sandbox with the volume `config` of files and `scratch`, an empty directory.
async fn sandbox(lab: &Lab<'_>) -> Result<SandboxSpec, Stop> {
    let mut spec = lab.spec().await?;
    spec.volumes.insert(volume("config")?, files(&[("a.conf", "one"), ("sub/b.conf", "two")]));
    let empty = VolumeSpec::EmptyDir { memory: false, size_limit_bytes: None };
    spec.volumes.insert(volume("scratch")?, empty);
    let _ = lab.host.sandbox_ensure(&spec).await?;
    Ok(spec)
}

async fn files_are_updated_as_one_value(lab: &Lab<'_>) -> Outcome {
    let (mut spec, config) = (sandbox(lab).await?, volume("config")?);
    let second = files(&[("a.conf", "changed"), ("new.conf", "\0binary\n")]);
    changed(lab.host.volume_update(&spec.id, &config, &second).await, "other files")?;
    unchanged(lab.host.volume_update(&spec.id, &config, &second).await, "the same again")?;
    spec.volumes.insert(config, second);
    same(&*lab.see(&spec.id).await?.spec, &spec, "the mark")?;
    unchanged(lab.host.sandbox_ensure(&spec).await, "the sandbox with its updated files")
}

async fn only_files_can_be_updated(lab: &Lab<'_>) -> Outcome {
    let spec = sandbox(lab).await?;
    let update = async |id: &SandboxId, name: &str| -> Result<_, Stop> {
        Ok(lab.host.volume_update(id, &volume(name)?, &files(&[("a", "b")])).await)
    };
    refused(update(&spec.id, "scratch").await?, HostErrorKind::InvalidSpec, "files for an empty directory")?;
    refused(update(&spec.id, "unknown").await?, HostErrorKind::NotFound, "an unknown volume")?;
    refused(update(&lab.fixture.sandbox().id, "config").await?, HostErrorKind::NotFound, "an unknown sandbox")?;
    same(&*lab.see(&spec.id).await?.spec, &spec, "the mark after the refusals")
}

async fn unsafe_file_names_are_refused(lab: &Lab<'_>) -> Outcome {
    let spec = sandbox(lab).await?;
    for name in ["../escape", "/etc/passwd", "a/../../b", ""] {
        let result = lab.host.volume_update(&spec.id, &volume("config")?, &files(&[(name, "x")])).await;
        refused(result, HostErrorKind::InvalidSpec, &format!("file name {name:?}"))?;
        let mut bad = lab.spec().await?;
        bad.volumes.insert(volume("config")?, files(&[(name, "x")]));
        refused(lab.host.sandbox_ensure(&bad).await, HostErrorKind::InvalidSpec, &format!("a sandbox with {name:?}"))?;
    }
    same(&*lab.see(&spec.id).await?.spec, &spec, "the mark after the refusals")
}

/// Starts a container with `name` mounted at `/mnt/<name>`.
async fn mounted(lab: &Lab<'_>, sandbox: &SandboxSpec, container: &str, name: &str) -> Result<ContainerSpec, Stop> {
    let mut spec = lab.container(sandbox, container, Program::Until(0));
    let mount = MountSpec {
        volume: volume(name)?,
        target: format!("/mnt/{name}"),
        sub_path: String::new(),
        read_only: name == "config",
        recursive_read_only: None,
        propagation: None,
    };
    spec.mounts.push(mount);
    let _ = lab.host.container_start(&sandbox.id, &spec).await?;
    Ok(spec)
}

/// What a shell command prints in a container.
async fn shell(lab: &Lab<'_>, sandbox: &SandboxSpec, container: &ContainerSpec, script: &str) -> Result<String, Stop> {
    let argv = vec!["/bin/sh".into(), "-c".into(), script.into()];
    let request = ExecRequest { argv, tty: false, stdin: false, contained: false };
    let mut session = lab.host.exec(&sandbox.id, &container.name, request).await?;
    let mut text = String::new();
    let read = session.stdout.read_to_string(&mut text).await;
    read.map_err(|e| Stop::Broken(format!("reading from a command: {e}")))?;
    Ok(text.trim_end().to_owned())
}

async fn containers_see_updated_files_without_a_restart(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().files, "files")?;
    let spec = sandbox(lab).await?;
    let app = mounted(lab, &spec, "app", "config").await?;
    let pid = lab.pid(&spec.id, &app).await?;
    let read = "cat /mnt/config/a.conf /mnt/config/sub/b.conf";
    same(&shell(lab, &spec, &app, read).await?.as_str(), &"onetwo", "the files at first")?;
    let second = files(&[("a.conf", "changed"), ("sub/b.conf", "too")]);
    changed(lab.host.volume_update(&spec.id, &volume("config")?, &second).await, "other files")?;
    same(&shell(lab, &spec, &app, read).await?.as_str(), &"changedtoo", "the files after the update")?;
    let write = "touch /mnt/config/x 2>/dev/null && echo written || echo refused";
    same(&shell(lab, &spec, &app, write).await?.as_str(), &"refused", "writing to a read-only mount")?;
    same(&lab.pid(&spec.id, &app).await?, &pid, "pid")
}

async fn an_empty_directory_is_shared_by_containers(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().files, "files")?;
    let spec = sandbox(lab).await?;
    let one = mounted(lab, &spec, "one", "scratch").await?;
    let two = mounted(lab, &spec, "two", "scratch").await?;
    let before = shell(lab, &spec, &one, "ls -A /mnt/scratch").await?;
    holds(before.is_empty(), format!("an empty directory holds {before:?}"))?;
    shell(lab, &spec, &one, "echo shared >/mnt/scratch/note").await?;
    same(&shell(lab, &spec, &two, "cat /mnt/scratch/note").await?.as_str(), &"shared", "what the other one reads")
}

async fn mounts_that_lead_nowhere_or_out_are_refused(lab: &Lab<'_>) -> Outcome {
    let spec = sandbox(lab).await?;
    for (name, target, sub_path) in
        [("unknown", "/v", ""), ("scratch", "/v", "../x"), ("scratch", "/v", "a/../../x"), ("scratch", "relative", "")]
    {
        let mut container = lab.container(&spec, "app", Program::Until(0));
        container.mounts.push(mount(name, target, sub_path)?);
        let refusal = lab.host.container_start(&spec.id, &container).await;
        refused(refusal, HostErrorKind::InvalidSpec, &format!("{name} at {target:?}, sub path {sub_path:?}"))?;
    }
    holds(lab.see(&spec.id).await?.containers.is_empty(), "nothing is left of the refused ones")
}

fn mount(name: &str, target: &str, sub_path: &str) -> Result<MountSpec, Stop> {
    Ok(MountSpec {
        volume: volume(name)?,
        target: target.into(),
        sub_path: sub_path.into(),
        read_only: false,
        recursive_read_only: None,
        propagation: None,
    })
}

async fn a_part_of_a_volume_is_made_where_missing_and_stays(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().files, "files")?;
    let spec = sandbox(lab).await?;
    let mut app = lab.container(&spec, "app", Program::Until(0));
    app.mounts = vec![
        mount("scratch", "/mnt/all", "")?,
        mount("scratch", "/mnt/part", "made/for/it")?,
        mount("config", "/mnt/one", "a.conf")?,
        mount("config", "/mnt/whole", "")?,
    ];
    let _ = lab.host.container_start(&spec.id, &app).await?;
    let write = "echo x >/mnt/part/f; cat /mnt/all/made/for/it/f; touch /mnt/whole/y 2>/dev/null && echo written";
    same(
        &shell(lab, &spec, &app, write).await?.as_str(),
        &"x",
        "the part within the whole, and files not to be written",
    )?;
    changed(lab.host.volume_update(&spec.id, &volume("config")?, &files(&[("a.conf", "new")])).await, "other files")?;
    let read = "cat /mnt/one; echo; cat /mnt/whole/a.conf";
    same(&shell(lab, &spec, &app, read).await?.as_str(), &"one\nnew", "a part stays as it was at the start")
}

async fn a_volume_on_memory_is_no_larger_than_asked(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().files, "files")?;
    let mut spec = lab.spec().await?;
    let memory = VolumeSpec::EmptyDir { memory: true, size_limit_bytes: Some(1 << 20) };
    spec.volumes.insert(volume("memory")?, memory);
    let _ = lab.host.sandbox_ensure(&spec).await?;
    let app = mounted(lab, &spec, "app", "memory").await?;
    let fill = "head -c 900000 /dev/zero >/mnt/memory/a && echo fits; head -c 900000 /dev/zero 2>/dev/null >/mnt/memory/b || echo full";
    same(&shell(lab, &spec, &app, fill).await?.as_str(), &"fits\nfull", "what fits into a volume of a mebibyte")
}
