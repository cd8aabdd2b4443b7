//! The OCI runtime config of a container (OCI runtime spec 1.0, `config.json`). Pure.

use crate::cgroup::{self, Cgroups};
use crate::devices;
use crate::record::Launch;
use crate::user::User;
use caps::CapSet;
use reddwarf_host::capability;
use reddwarf_host::spec::{EnvVar, Propagation, Security};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What OCI engines grant by default, without `CAP_`. `MKNOD` only where a filter of devices holds: without one it would open
/// every disk of the host.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Parts of /proc and /sys that would tell or do too much (the list of containerd and moby).
const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Search path of programs when the environment names none.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A mount whose source is ready.
#[derive(Clone, Debug)]
pub(crate) struct ReadyMount {
    pub(crate) source: PathBuf,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    pub(crate) recursive_read_only: bool,
    pub(crate) propagation: Propagation,
}

/// Why a container's security settings can't be carried out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CapabilityError {
    #[error("capability {0:?} does not exist: see capabilities(7), names without CAP_")]
    Unknown(String),
    #[error(
        "capability {0} is not this host's to grant: reddwarfd itself runs without it (CapBnd in its /proc/PID/status, \
         CapabilityBoundingSet= of its unit)"
    )]
    NotHere(&'static str),
}

/// What this host has to hand on to containers.
#[derive(Clone, Debug)]
pub(crate) struct Grantable {
    /// Capabilities of our own bounding set.
    bounding: BTreeSet<&'static str>,
    /// Containers are kept from devices that are not on the list.
    devices_filtered: bool,
}

impl Grantable {
    /// As this process has it from whoever started the daemon.
    pub(crate) fn of_host(cgroups: &Cgroups) -> Self {
        let own = caps::read(None, CapSet::Bounding).unwrap_or_else(|_| caps::all());
        let own: BTreeSet<String> = own.iter().map(ToString::to_string).collect();
        let has = |name: &&str| own.contains(&format!("CAP_{name}"));
        let bounding = capability::ALL.into_iter().filter(has).collect();
        Self { bounding, devices_filtered: cgroups.filters_devices() }
    }
}

/// What a container holds: defaults, minus drops, plus adds; drops of `ALL` come first, as in Kubernetes. `ALL` and
/// `privileged` mean all that the host has itself.
///
/// # Errors
/// For a name that there is not, or that the host lacks.
pub(crate) fn capabilities(security: &Security, host: &Grantable) -> Result<BTreeSet<&'static str>, CapabilityError> {
    let known = |name: &String| capability::known(name).ok_or_else(|| CapabilityError::Unknown(name.clone()));
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    if security.privileged {
        return Ok(host.bounding.clone());
    }
    let by_default = |name: &&str| host.bounding.contains(name) && (*name != "MKNOD" || host.devices_filtered);
    let mut set: BTreeSet<&'static str> = DEFAULT_CAPABILITIES.into_iter().filter(by_default).collect();
    if security.cap_drop.iter().any(is_all) {
        set.clear();
    }
    if security.cap_add.iter().any(is_all) {
        set.extend(&host.bounding);
    }
    for name in security.cap_drop.iter().filter(|n| !is_all(n)) {
        set.remove(known(name)?);
    }
    for name in security.cap_add.iter().filter(|n| !is_all(n)) {
        let name = known(name)?;
        if !host.bounding.contains(name) {
            return Err(CapabilityError::NotHere(name));
        }
        set.insert(name);
    }
    Ok(set)
}

/// The container's PID namespace.
pub(crate) enum PidNamespace {
    New,
    Host,
    /// By a path that stays good for as long as the container is being made.
    Join(PathBuf),
}

/// The whole `config.json`.
pub(crate) fn config(
    launch: &Launch,
    root: &Path,
    user: &User,
    mounts: &[ReadyMount],
    processes: &PidNamespace,
    cgroups: &Cgroups,
) -> Result<Value, CapabilityError> {
    let container = &launch.container;
    let security = &container.security;
    let (masked, readonly): (&[&str], &[&str]) =
        if security.privileged || security.unmasked_proc { (&[], &[]) } else { (&MASKED_PATHS, &READONLY_PATHS) };
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": process(launch, user, &Grantable::of_host(cgroups))?,
        "root": { "path": root, "readonly": security.read_only_root },
        "mounts": all_mounts(launch, mounts),
        "annotations": { "io.reddwarf.instance": launch.options.instance },
        "linux": {
            "cgroupsPath": launch.cgroup,
            "namespaces": namespaces(launch, processes),
            "resources": resources(launch, cgroups.is_unified()),
            "maskedPaths": masked,
            "readonlyPaths": readonly,
            "rootfsPropagation": root_propagation(mounts),
        },
    });
    if security.privileged {
        config["linux"]["devices"] = devices::of_host();
    }
    Ok(config)
}

fn process(launch: &Launch, user: &User, host: &Grantable) -> Result<Value, CapabilityError> {
    let container = &launch.container;
    let security = &container.security;
    let granted: Vec<String> = capabilities(security, host)?.iter().map(|c| format!("CAP_{c}")).collect();
    let no_new_privileges = !security.allow_privilege_escalation && !security.privileged;
    // A process that is not root gets them as bounds only: execve(2) clears the rest, as with docker.
    let held: &[String] = if user.uid == 0 { &granted } else { &[] };
    Ok(json!({
        "terminal": container.tty,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.groups },
        "args": container.argv,
        "env": environment(&container.env, user, container.tty),
        "cwd": if container.working_dir.is_empty() { "/" } else { &container.working_dir },
        "capabilities": {
            "bounding": granted, "permitted": held, "effective": held, "inheritable": [], "ambient": [],
        },
        "noNewPrivileges": no_new_privileges,
    }))
}

/// The spec's variables in order, and `PATH`, `HOME`, `TERM` where it lacks them.
fn environment(env: &[EnvVar], user: &User, tty: bool) -> Vec<String> {
    let has = |name: &str| env.iter().any(|v| v.name == name);
    let mut out = Vec::with_capacity(env.len() + 3);
    if !has("PATH") {
        out.push(format!("PATH={DEFAULT_PATH}"));
    }
    if !has("HOME") {
        let home = user.home.as_deref().filter(|h| !h.is_empty()).unwrap_or("/");
        out.push(format!("HOME={home}"));
    }
    if tty && !has("TERM") {
        out.push("TERM=xterm".to_owned());
    }
    out.extend(env.iter().map(|v| format!("{}={}", v.name, v.value.expose())));
    out
}

fn namespaces(launch: &Launch, processes: &PidNamespace) -> Vec<Value> {
    let mut list = vec![json!({"type": "mount"}), json!({"type": "cgroup"})];
    match processes {
        PidNamespace::New => list.push(json!({"type": "pid"})),
        PidNamespace::Host => {}
        PidNamespace::Join(path) => list.push(json!({"type": "pid", "path": path})),
    }
    if let Some(user) = &launch.namespaces.user {
        list.push(json!({"type": "user", "path": user}));
    }
    if let Some(ipc) = &launch.namespaces.ipc {
        list.push(json!({"type": "ipc", "path": ipc}));
    }
    if let Some(net) = &launch.namespaces.net {
        list.push(json!({"type": "network", "path": net}));
    }
    if let Some(uts) = &launch.namespaces.uts {
        list.push(json!({"type": "uts", "path": uts}));
    }
    list
}

/// Devices; and limits, where runtimes set them: on v2 we do ([`Cgroups::limit_further`]).
fn resources(launch: &Launch, unified: bool) -> Value {
    let r = &launch.container.resources;
    let mut out = json!({ "devices": devices::rules(launch.container.security.privileged) });
    if unified {
        return out;
    }
    let mut cpu = json!({ "shares": cgroup::cpu_shares(r.cpu_request_millis) });
    if let Some(limit) = r.cpu_limit_millis {
        cpu["quota"] = json!(cgroup::quota_us(limit));
        cpu["period"] = json!(cgroup::period_us());
    }
    out["cpu"] = cpu;
    if let Some(bytes) = r.memory_limit_bytes {
        out["memory"] = json!({ "limit": bytes });
    }
    if let Some(pids) = r.pids_limit {
        out["pids"] = json!({ "limit": pids });
    }
    out
}

fn all_mounts(launch: &Launch, mounts: &[ReadyMount]) -> Vec<Value> {
    let privileged = launch.container.security.privileged;
    let sys_mode = if privileged { "rw" } else { "ro" };
    let mount = |target: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": source, "options": options});
    let mut list = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sys_mode]),
        json!({"destination": "/dev/shm", "type": "bind", "source": launch.shm, "options": ["rbind", "nosuid", "noexec", "nodev", "rprivate"]}),
    ];
    for name in ["hosts", "hostname", "resolv.conf"] {
        let target = format!("/etc/{name}");
        // A volume of the user's own on that path wins.
        if !mounts.iter().any(|m| m.target == target || m.target == "/etc") {
            let source = launch.etc.join(name);
            list.push(json!({"destination": target, "type": "bind", "source": source, "options": ["bind", "rprivate", "nosuid", "nodev"]}));
        }
    }
    // Shorter targets first: a mount below another mount must come after it.
    let mut sorted: Vec<&ReadyMount> = mounts.iter().collect();
    sorted.sort_by_key(|m| (Path::new(&m.target).components().count(), m.target.clone()));
    list.extend(sorted.into_iter().map(|m| {
        let ties = match m.propagation {
            Propagation::None => "rprivate",
            Propagation::HostToContainer => "rslave",
            Propagation::Bidirectional => "rshared",
        };
        let mut options = vec!["rbind", ties, if m.read_only { "ro" } else { "rw" }];
        if m.recursive_read_only {
            options.push("rro");
        }
        json!({"destination": m.target, "type": "bind", "source": m.source, "options": options})
    }));
    list
}

/// Where the host mounts something into a container: what an image has there is not seen, what lies there on disk is
/// not the container's.
pub(crate) fn mount_points(launch: &Launch) -> Vec<PathBuf> {
    let standard = all_mounts(launch, &[]);
    let standard = standard.iter().filter_map(|m| m["destination"].as_str());
    let volumes = launch.mounts.iter().map(|m| m.target.as_str());
    let words = launch.container.termination_message.path.as_str();
    standard.chain(volumes).chain([words]).map(PathBuf::from).collect()
}

/// What becomes of all mounts before the container's are made: they keep as few ties as the volumes need. Those of
/// volumes without any were cut before.
fn root_propagation(mounts: &[ReadyMount]) -> &'static str {
    let any = |wanted: Propagation| mounts.iter().any(|m| m.propagation == wanted);
    match (any(Propagation::Bidirectional), any(Propagation::HostToContainer)) {
        (true, _) => "shared",
        (false, true) => "slave",
        (false, false) => "private",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(add: &[&str], drop: &[&str]) -> Security {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Security { cap_add: list(add), cap_drop: list(drop), ..Security::default() }
    }

    /// A host that lacks one capability itself, as in a container or under a unit that bounds it.
    #[test]
    fn nobody_gets_what_the_host_has_not() {
        let bounding: BTreeSet<&str> = capability::ALL.into_iter().filter(|c| *c != "SYS_RESOURCE").collect();
        let host = Grantable { bounding: bounding.clone(), devices_filtered: true };
        let privileged = Security { privileged: true, ..Security::default() };
        assert_eq!(capabilities(&privileged, &host).unwrap(), bounding);
        assert_eq!(capabilities(&security(&["ALL"], &["NET_RAW"]), &host).unwrap().len(), bounding.len() - 1);
        let named = capabilities(&security(&["CAP_sys_resource"], &[]), &host).unwrap_err();
        assert_eq!(named, CapabilityError::NotHere("SYS_RESOURCE"));
        let unknown = capabilities(&security(&[], &["SYS_MAGIC"]), &host).unwrap_err();
        assert_eq!(unknown, CapabilityError::Unknown("SYS_MAGIC".into()));
        let poor = Grantable { bounding: ["CHOWN", "MKNOD"].into(), devices_filtered: true };
        assert_eq!(capabilities(&security(&[], &[]), &poor).unwrap(), ["CHOWN", "MKNOD"].into());
    }

    #[test]
    fn nodes_of_devices_are_made_only_where_they_are_of_no_use() {
        let host = |devices_filtered| Grantable { bounding: capability::ALL.into(), devices_filtered };
        let by_default = |filtered| capabilities(&security(&[], &[]), &host(filtered)).unwrap();
        assert_eq!(by_default(true), DEFAULT_CAPABILITIES.into());
        assert!(!by_default(false).contains("MKNOD"));
        assert!(capabilities(&security(&["MKNOD"], &[]), &host(false)).unwrap().contains("MKNOD"), "asked for");
    }
}
