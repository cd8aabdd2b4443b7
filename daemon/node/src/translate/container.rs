//! One container of a pod.

use super::env::{Environment, HostEnvironment, Source, environment};
use super::mounts::mounts;
use super::{CONFIG_ERROR, Facts, Identity, config_error, expand, resources, rights};
use crate::desired::PodIntent;
use crate::plan::Notice;
use crate::probe;
use reddwarf_host::spec::{ContainerRole, ContainerSpec, LogSpec, ProcessView, Signal, TerminationMessage};
use reddwarf_host::{ContainerName, ImageConfig};
use reddwarf_objects::BRAND_BHYVE;
use reddwarf_objects::pod::{Container, PodSpec, TerminationMessagePolicy};
use std::path::PathBuf;
use std::time::Duration;

/// A container of a pod, and where it stands in it.
#[derive(Clone, Debug)]
pub struct ContainerRef<'a> {
    /// The container.
    pub container: &'a Container,
    /// Its name, checked.
    pub name: ContainerName,
    /// Init, main or ephemeral container; a sidecar is an init container that goes on.
    pub role: ContainerRole,
    /// `spec.containers[0]`.
    pub field: String,
    /// Whose processes it sees.
    pub processes: ProcessView,
}

impl ContainerRef<'_> {
    /// An init container that keeps running beside the others.
    pub fn is_sidecar(&self) -> bool {
        self.role == ContainerRole::Init && self.container.is_sidecar()
    }
}

/// A pod's containers in the order in which they start. One whose name is no name is left out: admission refuses it.
pub fn containers(intent: &PodIntent) -> Vec<ContainerRef<'_>> {
    let spec = &intent.pod.spec;
    let init = spec
        .init_containers
        .iter()
        .enumerate()
        .map(|(i, c)| (c, ContainerRole::Init, format!("spec.initContainers[{i}]")));
    let main =
        spec.containers.iter().enumerate().map(|(i, c)| (c, ContainerRole::Main, format!("spec.containers[{i}]")));
    let ephemeral = spec
        .ephemeral_containers
        .iter()
        .enumerate()
        .map(|(i, c)| (&c.container, ContainerRole::Ephemeral, format!("spec.ephemeralContainers[{i}]")));
    init.chain(main)
        .chain(ephemeral)
        .filter_map(|(container, role, field)| {
            let name = ContainerName::new(&container.name).ok()?;
            let processes = processes(spec, &name, role);
            Some(ContainerRef { container, name, role, field, processes })
        })
        .collect()
}

/// The host's with hostPID, the pod's with shareProcessNamespace, the target's for an ephemeral container that names one, else its own.
fn processes(spec: &PodSpec, name: &ContainerName, role: ContainerRole) -> ProcessView {
    if spec.host_pid {
        return ProcessView::Host;
    }
    if spec.share_process_namespace {
        return ProcessView::Sandbox;
    }
    let mut ephemeral = spec.ephemeral_containers.iter().filter(|_| role == ContainerRole::Ephemeral);
    let target = ephemeral.find(|c| c.container.name == name.as_str()).map(|c| c.target_container_name.as_str());
    let target = target.filter(|t| !t.is_empty()).and_then(|t| ContainerName::new(t).ok());
    target.map_or(ProcessView::Own, ProcessView::Container)
}

/// What a pod asks of one of its containers, as its first attempt. With `running`, what comes from the host and not
/// from the pod (where an image name points now, the host's address) is taken from the running instance, and so is what
/// references of its variables lead to: they are followed when a container starts.
///
/// # Errors
/// The reason, as a waiting container shows it.
pub fn container(
    intent: &PodIntent,
    which: &ContainerRef<'_>,
    identity: &Identity,
    facts: Facts<'_>,
    running: Option<&ContainerSpec>,
) -> Result<ContainerSpec, Notice> {
    let ContainerRef { container, name, role, field, processes } = which;
    let (image, config) = super::image::image(intent, which, facts, running)?;
    let hostname = if intent.pod.spec.hostname.is_empty() { &intent.key.name } else { &intent.pod.spec.hostname };
    let source = Source { intent, identity, facts, container, running, field };
    let env = environment(source, &config.env, hostname)?;
    let argv = match intent.pod.zone_brand() {
        BRAND_BHYVE => machine(container, field)?,
        _ => argv(container, &config, &env, field)?,
    };
    let mounts = mounts(intent, which, identity, facts, &env)?;
    let HostEnvironment { env, service_env, env_files, references } = env.into_host();
    let working_dir = [&container.working_dir, &config.working_dir].into_iter().find(|d| !d.is_empty());
    Ok(ContainerSpec {
        name: name.clone(),
        attempt: 0,
        backoff: Duration::ZERO,
        role: *role,
        image,
        image_name: container.image.clone(),
        argv,
        env,
        service_env,
        references: Some(references),
        env_files,
        working_dir: working_dir.cloned().unwrap_or_else(|| "/".into()),
        user: rights::user(intent, container, &config, field)?,
        mounts,
        resources: resources::container(&intent.pod.spec, container, facts.settings.default_pids_limit),
        security: rights::security(intent, container, field)?,
        oom_score_adj: Some(resources::oom_score_adj(&intent.pod, container, *role, resources::capacity(facts))),
        tty: container.tty,
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        processes: processes.clone(),
        // One that is no signal counts as none, as with docker.
        stop_signal: stop_signal(container, &config),
        log: log(identity, name, 0, facts),
        termination_message: TerminationMessage {
            path: container.termination_message_path.clone(),
            fall_back_to_log: container.termination_message_policy == TerminationMessagePolicy::FallbackToLogsOnError,
        },
        restart_token: match restart_token(intent, name) {
            _ if *role == ContainerRole::Init && !container.is_sidecar() => String::new(),
            // No request is not a request to undo one: an annotation that got lost restarts nothing.
            none if none.is_empty() => running.map(|r| r.restart_token.clone()).unwrap_or_default(),
            token => token,
        },
        lifecycle: probe::lifecycle(container),
    })
}

/// The pod's, else the image's.
fn stop_signal(container: &Container, config: &ImageConfig) -> Signal {
    let named = [&container.lifecycle.stop_signal, &config.stop_signal];
    named.into_iter().flatten().find_map(|name| name.parse().ok()).unwrap_or(Signal::Sigterm)
}

/// The log of one attempt: `<log_dir>/<namespace>_<name>_<uid>/<container>/<attempt>.log`, as the kubelet has it.
pub(crate) fn log(identity: &Identity, name: &ContainerName, attempt: u32, facts: Facts<'_>) -> LogSpec {
    let pod = &identity.pod;
    let directory = format!("{}_{}_{}", pod.namespace, pod.name, pod.uid);
    let path: PathBuf = [
        facts.settings.log_dir.as_path(),
        directory.as_ref(),
        name.as_str().as_ref(),
        format!("{attempt}.log").as_ref(),
    ]
    .iter()
    .collect();
    LogSpec { path, max_bytes: facts.settings.log_max_bytes, max_files: facts.settings.log_max_files }
}

/// `command` replaces the image's ENTRYPOINT and CMD, `args` alone replaces CMD (Kubernetes: "Define a Command and
/// Arguments for a Container").
fn argv(container: &Container, config: &ImageConfig, env: &Environment, field: &str) -> Result<Vec<String>, Notice> {
    let own = |list: &[String]| -> Vec<String> { list.iter().map(|text| expand(text, |name| env.get(name))).collect() };
    let argv: Vec<String> = match (container.command.is_empty(), container.args.is_empty()) {
        (false, _) => own(&container.command).into_iter().chain(own(&container.args)).collect(),
        (true, false) => config.entrypoint.iter().cloned().chain(own(&container.args)).collect(),
        (true, true) => config.entrypoint.iter().chain(&config.cmd).cloned().collect(),
    };
    if argv.first().is_none_or(String::is_empty) {
        let message = "nothing to run: set command, or use an image with an ENTRYPOINT or CMD";
        return Err(Notice::new(CONFIG_ERROR, message).at(format!("{field}.command")));
    }
    if argv.iter().any(|a| a.contains('\0')) {
        return Err(config_error(&format!("{field}.command"), "arguments can't hold a NUL byte"));
    }
    Ok(argv)
}

/// The container that stands for a virtual machine: nothing of the pod's runs in it.
fn machine(container: &Container, field: &str) -> Result<Vec<String>, Notice> {
    if container.command.is_empty() && container.args.is_empty() {
        return Ok(vec!["machine".to_owned()]);
    }
    let message = "a virtual machine runs what is on its disks: leave command and args out";
    Err(Notice::new(CONFIG_ERROR, message).at(format!("{field}.command")))
}

/// The part of the annotation `reddwarf.io/restart-requested` that concerns one container: `token` is for all,
/// `name=token,name=token` for some.
fn restart_token(intent: &PodIntent, name: &ContainerName) -> String {
    let Some(text) = intent.pod.metadata.annotations.get(reddwarf_objects::RESTART_REQUESTED_ANNOTATION) else {
        return String::new();
    };
    let for_this = text.split(',').filter_map(|part| match part.split_once('=') {
        Some((container, token)) if container == name.as_str() => Some(token),
        Some(_) => None,
        None => Some(part),
    });
    for_this.collect::<Vec<_>>().join(",")
}
