//! What a changed spec costs: field by field against the spec that the host says it applied.
//!
//! Both sides are unpacked without `..`: whoever adds a field to a spec is asked here, by the compiler, what a
//! change of it means. No stored hash takes part (a hash that changes meaning restarts every pod on an upgrade).

use reddwarf_host::spec::{ContainerSpec, MountSpec, SandboxSpec, Security, VolumeSpec};

/// What a change costs, cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cost {
    /// Takes hold while everything runs on.
    InPlace,
    /// The container must be stopped and started.
    Restart,
    /// The whole sandbox must be made anew.
    Recreate,
}

/// The field of a restart asked for by hand: of the pod, not of the container.
const RESTART_REQUESTED: &str = "metadata.annotations[reddwarf.io/restart-requested]";

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What the change costs.
    pub cost: Cost,
    /// The field in the pod: from `spec` for a sandbox (`spec.hostname`), below the container for a container
    /// (`image`).
    pub field: String,
}

impl Difference {
    /// Why it is acted on, in words.
    pub fn reason(&self) -> String {
        if self.field == RESTART_REQUESTED {
            "a restart was asked for".to_owned()
        } else {
            format!("{} changed", self.field)
        }
    }

    /// The field in the pod, where the container is at `container` (`spec.containers[0]`).
    pub fn path(&self, container: &str) -> String {
        if self.field.starts_with("metadata.") { self.field.clone() } else { format!("{container}.{}", self.field) }
    }

    fn new(cost: Cost, field: impl Into<String>) -> Self {
        Self { cost, field: field.into() }
    }
}

/// The dearest of some differences.
pub fn cost(differences: &[Difference]) -> Option<Cost> {
    differences.iter().map(|d| d.cost).max()
}

/// How two sandbox specs differ.
pub fn sandbox(old: &SandboxSpec, new: &SandboxSpec) -> Vec<Difference> {
    let SandboxSpec {
        id,
        pod,
        brand,
        hostname,
        network,
        dns,
        hosts,
        resources,
        share_processes,
        host_ipc,
        sysctls,
        fs_group,
        own_users,
        // A pod's class never changes; specs of earlier versions don't tell it.
        best_effort: _,
        machine,
        datasets,
        volumes,
    } = old;
    let mut found = Vec::new();
    let mut note = |differs: bool, cost, field: &str| {
        if differs {
            found.push(Difference::new(cost, field));
        }
    };
    note(*id != new.id || *pod != new.pod, Cost::Recreate, "metadata.uid");
    note(*brand != new.brand, Cost::Recreate, "metadata.annotations[reddwarf.io/zone-brand]");
    note(*hostname != new.hostname, Cost::Recreate, "spec.hostname");
    note(*network != new.network, Cost::Recreate, "spec.hostNetwork");
    note(*dns != new.dns, Cost::Recreate, "spec.dnsConfig");
    note(*hosts != new.hosts, Cost::Recreate, "spec.hostAliases");
    note(*share_processes != new.share_processes, Cost::Recreate, "spec.shareProcessNamespace");
    note(*host_ipc != new.host_ipc, Cost::Recreate, "spec.hostIPC");
    note(*sysctls != new.sysctls, Cost::Recreate, "spec.securityContext.sysctls");
    note(*fs_group != new.fs_group, Cost::Recreate, "spec.securityContext.fsGroup");
    note(*own_users != new.own_users, Cost::Recreate, "spec.hostUsers");
    note(*machine != new.machine, Cost::Recreate, "metadata.annotations[bhyve.reddwarf.io]");
    note(*datasets != new.datasets, Cost::Recreate, "metadata.annotations[reddwarf.io/zone-datasets]");
    note(*resources != new.resources, Cost::InPlace, "spec.resources");
    for (name, volume) in volumes {
        match new.volumes.get(name) {
            Some(other) if other == volume => {}
            Some(other) => {
                let field = format!("spec.volumes[{name}]");
                found.push(Difference::new(volume_cost(volume, other), field));
            }
            None => found.push(Difference::new(Cost::Recreate, format!("spec.volumes[{name}]"))),
        }
    }
    for name in new.volumes.keys().filter(|n| !volumes.contains_key(*n)) {
        found.push(Difference::new(Cost::Recreate, format!("spec.volumes[{name}]")));
    }
    found
}

/// What it costs to turn one volume into another, different one.
fn volume_cost(old: &VolumeSpec, new: &VolumeSpec) -> Cost {
    match (old, new) {
        (VolumeSpec::Files { files: _, secret: a }, VolumeSpec::Files { files: _, secret: b }) if a == b => {
            Cost::InPlace
        }
        (
            VolumeSpec::Files { .. }
            | VolumeSpec::EmptyDir { .. }
            | VolumeSpec::HostPath { .. }
            | VolumeSpec::Persistent { .. },
            _,
        ) => Cost::Recreate,
    }
}

/// Whether mounts are the same. What a spec of an earlier version does not tell is as it should be.
fn same_mounts(old: &[MountSpec], new: &[MountSpec]) -> bool {
    let same = |old: &MountSpec, new: &MountSpec| {
        let MountSpec { volume, target, sub_path, read_only, recursive_read_only, propagation } = old;
        *volume == new.volume
            && *target == new.target
            && *sub_path == new.sub_path
            && *read_only == new.read_only
            && recursive_read_only.is_none_or(|r| Some(r) == new.recursive_read_only)
            && propagation.is_none_or(|p| Some(p) == new.propagation)
    };
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same(old, new))
}

/// How two specs of one container differ. Of references among its variables counts where they point, not what they led
/// to at its start (specs of earlier versions don't tell). What it heard of services then never counts, nor does how readily it
/// is killed for want of memory: the next start takes it over. Attempt, back-off and log file belong to an instance, not
/// to what is asked: they never count. A moved image name counts only through what `new` was made from: the translator pins a
/// running container's image.
pub fn container(old: &ContainerSpec, new: &ContainerSpec) -> Vec<Difference> {
    let ContainerSpec {
        name,
        attempt: _,
        backoff: _,
        role,
        image,
        image_name,
        argv,
        env,
        service_env: _,
        references,
        env_files,
        working_dir,
        user,
        mounts,
        resources,
        security,
        oom_score_adj: _,
        tty,
        stdin,
        stdin_once,
        processes,
        stop_signal,
        log: _,
        termination_message,
        restart_token,
        // Hooks are taken from the pod; what is kept with the instance serves where there is no pod any more.
        lifecycle: _,
    } = old;
    let mut found = Vec::new();
    let mut note = |differs: bool, cost, field: &str| {
        if differs {
            found.push(Difference::new(cost, field));
        }
    };
    note(*name != new.name, Cost::Recreate, "name");
    note(*role != new.role, Cost::Restart, "restartPolicy");
    note(*image != new.image || *image_name != new.image_name, Cost::Restart, "image");
    note(*argv != new.argv, Cost::Restart, "command");
    let moved = references.as_ref().is_some_and(|old| !new.references.iter().flatten().map(|r| r.0).eq(old.keys()));
    note(*env != new.env || *env_files != new.env_files || moved, Cost::Restart, "env");
    note(*working_dir != new.working_dir, Cost::Restart, "workingDir");
    note(*user != new.user, Cost::Restart, "securityContext.runAsUser");
    note(!same_mounts(mounts, &new.mounts), Cost::Restart, "volumeMounts");
    note(security_differs(security, &new.security), Cost::Restart, "securityContext");
    note(*tty != new.tty, Cost::Restart, "tty");
    note(*stdin != new.stdin, Cost::Restart, "stdin");
    note(*stdin_once != new.stdin_once, Cost::Restart, "stdinOnce");
    note(*processes != new.processes, Cost::Restart, "hostPID");
    note(*stop_signal != new.stop_signal, Cost::Restart, "lifecycle.stopSignal");
    // What was started by a version that provided no file goes on without one.
    let provided = !termination_message.path.is_empty();
    note(provided && termination_message.path != new.termination_message.path, Cost::Restart, "terminationMessagePath");
    let falls_back = termination_message.fall_back_to_log != new.termination_message.fall_back_to_log;
    note(provided && falls_back, Cost::Restart, "terminationMessagePolicy");
    note(*restart_token != new.restart_token, Cost::Restart, RESTART_REQUESTED);
    note(*resources != new.resources, Cost::InPlace, "resources");
    found
}

/// A container from a version without system call filters has none recorded: that alone restarts nothing.
fn security_differs(old: &Security, new: &Security) -> bool {
    let Security {
        privileged,
        read_only_root,
        allow_privilege_escalation,
        cap_add,
        cap_drop,
        seccomp,
        strict_groups,
        unmasked_proc,
    } = old;
    *privileged != new.privileged
        || *read_only_root != new.read_only_root
        || *allow_privilege_escalation != new.allow_privilege_escalation
        || *cap_add != new.cap_add
        || *cap_drop != new.cap_drop
        || (seccomp.is_some() && *seccomp != new.seccomp)
        || *strict_groups != new.strict_groups
        || *unmasked_proc != new.unmasked_proc
}
