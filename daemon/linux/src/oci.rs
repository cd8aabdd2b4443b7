//! The OCI runtime config of a container (OCI runtime spec 1.0, `config.json`). Pure.

use crate::cgroup;
use crate::devices;
use crate::record::Launch;
use crate::user::User;
use reddwarf_host::capability;
use reddwarf_host::spec::{EnvVar, Propagation, Security};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What OCI engines grant by default, without `CAP_`. Not `MKNOD`: where no device filter is enforced (cgroup v2
/// without BPF) it would open every disk of the host; CRI-O leaves it out as well.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
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
#[derive(Debug, thiserror::Error)]
#[error("capability {0:?} does not exist: see capabilities(7), names without CAP_")]
pub(crate) struct UnknownCapability(String);

/// What a container holds: defaults, minus drops, plus adds; drops of `ALL` come first, as in Kubernetes.
pub(crate) fn capabilities(security: &Security) -> Result<BTreeSet<&'static str>, UnknownCapability> {
    let known = |name: &String| capability::known(name).ok_or_else(|| UnknownCapability(name.clone()));
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    if security.privileged {
        return Ok(capability::ALL.into());
    }
    let mut set: BTreeSet<&'static str> = DEFAULT_CAPABILITIES.into();
    if security.cap_drop.iter().any(is_all) {
        set.clear();
    }
    if security.cap_add.iter().any(is_all) {
        set.extend(capability::ALL);
    }
    for name in security.cap_drop.iter().filter(|n| !is_all(n)) {
        set.remove(known(name)?);
    }
    for name in security.cap_add.iter().filter(|n| !is_all(n)) {
        set.insert(known(name)?);
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
) -> Result<Value, UnknownCapability> {
    let container = &launch.container;
    let security = &container.security;
    let (masked, readonly): (&[&str], &[&str]) =
        if security.privileged || security.unmasked_proc { (&[], &[]) } else { (&MASKED_PATHS, &READONLY_PATHS) };
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": process(launch, user)?,
        "root": { "path": root, "readonly": security.read_only_root },
        "mounts": all_mounts(launch, mounts),
        "annotations": { "io.reddwarf.instance": launch.options.instance },
        "linux": {
            "cgroupsPath": launch.cgroup,
            "namespaces": namespaces(launch, processes),
            "resources": resources(launch),
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

fn process(launch: &Launch, user: &User) -> Result<Value, UnknownCapability> {
    let container = &launch.container;
    let security = &container.security;
    let granted: Vec<String> = capabilities(security)?.iter().map(|c| format!("CAP_{c}")).collect();
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

fn resources(launch: &Launch) -> Value {
    let r = &launch.container.resources;
    let mut out = json!({ "devices": devices::rules(launch.container.security.privileged) });
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
