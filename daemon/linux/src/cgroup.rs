//! Control groups, v1 and v2 (cgroups(7)): `/INSTANCE/SANDBOX/CONTAINER.ATTEMPT` in every hierarchy, those of pods that asked
//! for nothing below `/INSTANCE/best-effort`.
//!
//! The runtime makes a container's cgroup and sets its limits; here are the pod's own cgroup, changes in place,
//! counters, killing and removal, the same for every runtime. On v1 a cgroup is one directory per hierarchy.

use crate::devices::filter;
use crate::files::write_kernel_file;
use crate::mounts::{MountInfo, table};
use reddwarf_host::spec::Resources;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How this machine's cgroups are laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cgroups {
    /// v1 hierarchies that processes are put into: mount point and controllers (`name=systemd` among them).
    v1: Vec<Hierarchy>,
    /// The v2 hierarchy; on hybrid machines it has few or no controllers.
    v2: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    controllers: Vec<String>,
}

/// Controllers that pods are limited by.
const LIMITING: [&str; 3] = ["cpu", "memory", "pids"];

/// CFS period in microseconds: what everyone uses.
const PERIOD_US: u64 = 100_000;

impl Cgroups {
    /// Looks at what is mounted below `root`.
    pub(crate) fn detect(root: &Path) -> io::Result<Self> {
        let found = Self::from_table(&table()?, root);
        if found.v1.is_empty() && found.v2.is_none() {
            let message = format!("no cgroup hierarchy is mounted below {}", root.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        Ok(found)
    }

    fn from_table(table: &[MountInfo], root: &Path) -> Self {
        let mut found = Self { v1: Vec::new(), v2: None };
        for mount in table.iter().filter(|m| m.target.starts_with(root)) {
            match mount.fs_type.as_str() {
                "cgroup" if !found.v1.iter().any(|h| h.mount == mount.target) => {
                    let controllers = mount.super_options.split(',').map(str::to_owned).collect();
                    found.v1.push(Hierarchy { mount: mount.target.clone(), controllers });
                }
                "cgroup2" => found.v2 = Some(mount.target.clone()),
                _ => {}
            }
        }
        found
    }

    /// Whether limits are v2's. On a hybrid machine the v1 controllers hold them.
    pub(crate) fn is_unified(&self) -> bool {
        self.v1.is_empty()
    }

    /// Whether containers can be kept from devices: v1 has a controller for it, v2 takes programs.
    pub(crate) fn filters_devices(&self) -> bool {
        self.is_unified() || self.directory("devices", Path::new("/")).is_some()
    }

    /// `v1`, `v2` or `hybrid`, for messages.
    pub(crate) fn layout(&self) -> &'static str {
        match (self.v1.is_empty(), &self.v2) {
            (true, _) => "v2",
            (false, None) => "v1",
            (false, Some(_)) => "hybrid",
        }
    }

    /// The directories of one cgroup in all hierarchies, existing or not.
    fn directories<'a>(&'a self, cgroup: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
        let relative = cgroup.strip_prefix("/").unwrap_or(cgroup);
        self.v1.iter().map(|h| &h.mount).chain(self.v2.as_ref()).map(move |m| m.join(relative))
    }

    /// The directory of one cgroup in the hierarchy that holds `controller`.
    pub(crate) fn directory(&self, controller: &str, cgroup: &Path) -> Option<PathBuf> {
        let relative = cgroup.strip_prefix("/").unwrap_or(cgroup);
        if self.is_unified() {
            return self.v2.as_ref().map(|m| m.join(relative));
        }
        let hierarchy = self.v1.iter().find(|h| h.controllers.iter().any(|c| c == controller))?;
        Some(hierarchy.mount.join(relative))
    }

    /// Whether it was made to be limited.
    pub(crate) fn exists(&self, cgroup: &Path) -> bool {
        LIMITING.iter().filter_map(|controller| self.directory(controller, cgroup)).any(|dir| dir.is_dir())
    }

    /// One directory of it, the same at each call, in a hierarchy that limits.
    pub(crate) fn limited(&self, cgroup: &Path) -> Option<PathBuf> {
        LIMITING.iter().find_map(|controller| self.directory(controller, cgroup))
    }

    /// Makes a cgroup that limits can be set on (v2: with its controllers on for children).
    pub(crate) fn make(&self, cgroup: &Path) -> io::Result<()> {
        if self.is_unified() {
            return self.make_unified(cgroup);
        }
        for controller in LIMITING {
            if let Some(dir) = self.directory(controller, cgroup) {
                fs::create_dir_all(&dir)?;
            }
        }
        Ok(())
    }

    fn make_unified(&self, cgroup: &Path) -> io::Result<()> {
        let Some(root) = &self.v2 else { return Ok(()) };
        let mut dir = root.clone();
        enable_controllers(&dir)?;
        for part in cgroup.strip_prefix("/").unwrap_or(cgroup).components() {
            dir.push(part);
            fs::create_dir_all(&dir)?;
            enable_controllers(&dir)?;
        }
        Ok(())
    }

    /// Sets limits and weights, raising before lowering never matters here: each file is one value.
    pub(crate) fn limit(&self, cgroup: &Path, resources: &Resources) -> io::Result<()> {
        for (controller, file, value) in limit_files(resources, self.is_unified()) {
            let Some(dir) = self.directory(controller, cgroup) else { continue };
            let path = dir.join(file);
            match write_kernel_file(&path, &value) {
                Ok(()) => {}
                // Not every kernel counts swap or has huge pages of both sizes: there is nothing to limit then.
                Err(e) if file.starts_with("memory.swap") || controller == "hugetlb" => {
                    tracing::debug!(path = %path.display(), error = %e, "can't be limited");
                }
                // A controller that is not there limits nothing.
                Err(e) if e.kind() == io::ErrorKind::NotFound && (value.starts_with("max") || file == "cpu.weight") => {
                    tracing::debug!(path = %path.display(), "there is no such controller here");
                }
                Err(e) => return Err(io::Error::new(e.kind(), format!("write {value} to {}: {e}", path.display()))),
            }
        }
        Ok(())
    }

    /// What runtimes leave to us: all of it on v2, where they would set weights differently, swap and huge pages not at all.
    /// There a container that has no memory left ends as a whole, as the kubelet has it: half of one is of no use.
    pub(crate) fn limit_further(&self, cgroup: &Path, resources: &Resources) -> io::Result<()> {
        let Some(dir) = self.directory("memory", cgroup).filter(|_| self.is_unified()) else { return Ok(()) };
        self.limit(cgroup, resources)?;
        match write_kernel_file(&dir.join("memory.oom.group"), "1") {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(io::Error::new(e.kind(), format!("write 1 to {}/memory.oom.group: {e}", dir.display())))
            }
            _ => Ok(()),
        }
    }

    /// Keeps its processes from devices that are not on the list, where that takes a program (v2; on v1 the runtime sees to it).
    pub(crate) fn filter_devices(&self, cgroup: &Path) -> io::Result<()> {
        let Some(dir) = self.directory("devices", cgroup).filter(|_| self.is_unified()) else { return Ok(()) };
        filter::install(&dir).map_err(|e| {
            let message = format!(
                "keep {} from devices by a BPF program: {e} (is CONFIG_CGROUP_BPF in the kernel?)",
                dir.display()
            );
            io::Error::new(e.kind(), message)
        })
    }

    /// Bytes of memory in use; `None` when that is not counted here.
    pub(crate) fn memory_in_use(&self, cgroup: &Path) -> Option<u64> {
        let file = if self.is_unified() { "memory.current" } else { "memory.usage_in_bytes" };
        fs::read_to_string(self.directory("memory", cgroup)?.join(file)).ok()?.trim().parse().ok()
    }

    /// Puts the calling process into a cgroup in every hierarchy where the cgroup exists.
    pub(crate) fn join(&self, cgroup: &Path) -> io::Result<()> {
        for dir in self.directories(cgroup) {
            match write_kernel_file(&dir.join("cgroup.procs"), "0") {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(io::Error::new(e.kind(), format!("join {}: {e}", dir.display()))),
            }
        }
        Ok(())
    }

    /// Where processes are told apart that share their limits: v2, or one v1 hierarchy whose children inherit.
    fn tracking(&self, cgroup: &Path) -> Option<PathBuf> {
        if self.is_unified() {
            return self.directory("pids", cgroup);
        }
        ["pids", "freezer", "name=systemd"].iter().find_map(|controller| self.directory(controller, cgroup))
    }

    /// Makes a cgroup that only tells its processes apart and puts the calling process into it.
    pub(crate) fn track(&self, cgroup: &Path) -> io::Result<()> {
        let Some(dir) = self.tracking(cgroup) else { return Ok(()) };
        fs::create_dir_all(&dir)?;
        write_kernel_file(&dir.join("cgroup.procs"), "0")
    }

    /// Moves all processes of a cgroup made by [`Self::track`] into another one.
    pub(crate) fn move_all(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (Some(from), Some(to)) = (self.tracking(from), self.tracking(to)) else { return Ok(()) };
        let mut pids = BTreeSet::new();
        processes_below(&from, &mut pids)?;
        for pid in pids {
            // One that has just ended can't be moved and need not be.
            let _ = write_kernel_file(&to.join("cgroup.procs"), &pid.to_string());
        }
        Ok(())
    }

    /// Takes the calling process out of the daemon's cgroup, so that a service manager which stops or limits the
    /// daemon leaves it alone. Only where that matters: memory and pids are counted there, systemd looks there; and
    /// processor time is shared out there, so that a shim whose container writes without end takes it from its like.
    pub(crate) fn leave_daemon(&self, cgroup: &Path) -> io::Result<()> {
        self.move_to(cgroup, &["cpu", "memory", "pids", "name=systemd"], 0)
    }

    /// The same for another process, where only processes are counted and a runtime puts its container nowhere.
    pub(crate) fn take_from_daemon(&self, cgroup: &Path, pid: u32) -> io::Result<()> {
        if self.is_unified() {
            return Ok(());
        }
        self.move_to(cgroup, &["name=systemd"], pid)
    }

    fn move_to(&self, cgroup: &Path, hierarchies: &[&str], pid: u32) -> io::Result<()> {
        let relative = cgroup.strip_prefix("/").unwrap_or(cgroup);
        let v1 = self.v1.iter().filter(|h| h.controllers.iter().any(|c| hierarchies.contains(&c.as_str())));
        for mount in v1.map(|h| &h.mount).chain(self.v2.as_ref()) {
            let dir = mount.join(relative);
            fs::create_dir_all(&dir)?;
            write_kernel_file(&dir.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// How often the kernel killed for want of memory in it.
    pub(crate) fn oom_kills(&self, cgroup: &Path) -> u64 {
        let file = if self.is_unified() { "memory.events" } else { "memory.oom_control" };
        let Some(dir) = self.directory("memory", cgroup) else { return 0 };
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        keyed_value(&text, "oom_kill")
    }

    /// Processes in it and below it.
    pub(crate) fn processes(&self, cgroup: &Path) -> io::Result<BTreeSet<u32>> {
        let mut pids = BTreeSet::new();
        for dir in self.directories(cgroup) {
            processes_below(&dir, &mut pids)?;
        }
        Ok(pids)
    }

    /// Kills all processes in it and below, and waits until they are gone. `false` when some are left at the end.
    #[expect(
        clippy::disallowed_methods,
        reason = "waits for the kernel on a thread of its own, where no simulated clock reaches"
    )]
    pub(crate) fn kill_all(&self, cgroup: &Path, patience: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(v2) = &self.v2 {
                // v2's own switch catches processes that fork at this very moment (Linux 5.14).
                let file = v2.join(cgroup.strip_prefix("/").unwrap_or(cgroup)).join("cgroup.kill");
                if file.exists() {
                    let _ = write_kernel_file(&file, "1");
                }
            }
            let pids = self.processes(cgroup)?;
            if pids.is_empty() {
                return Ok(true);
            }
            for pid in pids {
                // Listed in our own cgroup a moment ago: a number reused within that moment is not possible in
                // practice, as pids are handed out in order.
                let _ =
                    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Removes it and everything below; whether there was anything. Fails with `ResourceBusy` while processes live.
    pub(crate) fn remove(&self, cgroup: &Path) -> io::Result<bool> {
        let mut any = false;
        for dir in self.directories(cgroup) {
            any |= remove_below(&dir)?;
        }
        Ok(any)
    }

    /// The same for one whose processes have ended: dead ones are let go of a moment later.
    #[expect(
        clippy::disallowed_methods,
        reason = "waits for the kernel on a thread of its own, where no simulated clock reaches"
    )]
    pub(crate) fn remove_soon(&self, cgroup: &Path) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            match self.remove(cgroup) {
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                done => return done.map(drop),
            }
        }
    }

    /// Removes it in each hierarchy where nothing is in it or below it.
    pub(crate) fn remove_if_empty(&self, cgroup: &Path) -> io::Result<()> {
        for dir in self.directories(cgroup) {
            match fs::remove_dir(&dir) {
                Err(e) if matches!(e.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty) => {}
                Err(e) if !gone(&e) => return Err(io::Error::new(e.kind(), format!("rmdir {}: {e}", dir.display()))),
                _ => {}
            }
        }
        Ok(())
    }

    /// Names of the cgroups directly below in the hierarchy that holds `controller`.
    pub(crate) fn children_of(&self, controller: &str, cgroup: &Path) -> io::Result<Vec<String>> {
        let Some(dir) = self.directory(controller, cgroup) else { return Ok(Vec::new()) };
        let name = |dir: &PathBuf| Some(dir.file_name()?.to_str()?.to_owned());
        Ok(child_directories(&dir)?.iter().filter_map(name).collect())
    }

    /// A made-up v2 layout, for tests of what reads its files.
    #[cfg(test)]
    pub(crate) fn unified(mount: PathBuf) -> Self {
        Self { v1: Vec::new(), v2: Some(mount) }
    }

    /// A made-up v1 layout.
    #[cfg(test)]
    pub(crate) fn separate(hierarchies: impl IntoIterator<Item = (PathBuf, Vec<String>)>) -> Self {
        let v1 = hierarchies.into_iter().map(|(mount, controllers)| Hierarchy { mount, controllers }).collect();
        Self { v1, v2: None }
    }

    /// Names of the cgroups directly below, over all hierarchies.
    pub(crate) fn children(&self, cgroup: &Path) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for dir in self.directories(cgroup) {
            for child in child_directories(&dir)? {
                if let Some(name) = child.file_name().and_then(|n| n.to_str()) {
                    names.insert(name.to_owned());
                }
            }
        }
        Ok(names)
    }
}

/// Files and values for `resources`. "Not limited" is written too, so that a limit can be taken away in place.
fn limit_files(resources: &Resources, unified: bool) -> Vec<(&'static str, &'static str, String)> {
    let quota = resources.cpu_limit_millis.map(quota_us);
    let shares = cpu_shares(resources.cpu_request_millis);
    let number = |v: Option<u64>, none: &str| v.map_or_else(|| none.to_owned(), |v| v.to_string());
    if unified {
        let max = quota.map_or_else(|| "max".to_owned(), |q| q.to_string());
        return vec![
            ("cpu", "cpu.weight", weight_of_shares(shares).to_string()),
            ("cpu", "cpu.max", format!("{max} {PERIOD_US}")),
            ("memory", "memory.max", number(resources.memory_limit_bytes, "max")),
            ("memory", "memory.swap.max", if resources.memory_limit_bytes.is_some() { "0" } else { "max" }.to_owned()),
            ("hugetlb", "hugetlb.2MB.max", number(resources.huge_pages_2mi_bytes, "0")),
            ("hugetlb", "hugetlb.1GB.max", number(resources.huge_pages_1gi_bytes, "0")),
            ("pids", "pids.max", number(resources.pids_limit, "max")),
        ];
    }
    vec![
        ("cpu", "cpu.shares", shares.to_string()),
        ("cpu", "cpu.cfs_period_us", PERIOD_US.to_string()),
        ("cpu", "cpu.cfs_quota_us", quota.map_or_else(|| "-1".to_owned(), |q| q.to_string())),
        ("memory", "memory.limit_in_bytes", number(resources.memory_limit_bytes, "-1")),
        ("hugetlb", "hugetlb.2MB.limit_in_bytes", number(resources.huge_pages_2mi_bytes, "0")),
        ("hugetlb", "hugetlb.1GB.limit_in_bytes", number(resources.huge_pages_1gi_bytes, "0")),
        ("pids", "pids.max", number(resources.pids_limit, "max")),
    ]
}

/// `cpu.shares` as the kubelet computes it: 1024 per CPU, at least 2, which is also what those get who ask for none.
pub(crate) fn cpu_shares(request_millis: Option<u64>) -> u64 {
    (request_millis.unwrap_or(0).saturating_mul(1024) / 1000).clamp(2, 262_144)
}

/// CFS quota for one period; the kernel takes nothing below 1 ms.
pub(crate) fn quota_us(limit_millis: u64) -> u64 {
    (limit_millis.saturating_mul(PERIOD_US) / 1000).max(1000)
}

/// CFS period in microseconds.
pub(crate) fn period_us() -> u64 {
    PERIOD_US
}

/// The OCI runtimes' mapping of 2..262144 shares to a weight of 1..10000: through (2, 1), (1024, 100) and
/// (262144, 10000), so that one CPU asked for weighs as much as the kernel's default (runc 1.4, crun 1.23).
fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            // Between 1 and 10000 by construction.
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

fn keyed_value(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|l| l.split_once(' '))
        .find(|(k, _)| *k == key)
        .and_then(|(_, v)| v.trim().parse().ok())
        .unwrap_or(0)
}

fn enable_controllers(dir: &Path) -> io::Result<()> {
    let available = fs::read_to_string(dir.join("cgroup.controllers"))?;
    for controller in available.split_whitespace() {
        // One by one: a single one that can't be enabled (realtime tasks, …) must not take the others down.
        if let Err(e) = write_kernel_file(&dir.join("cgroup.subtree_control"), &format!("+{controller}")) {
            tracing::debug!(dir = %dir.display(), controller, error = %e, "controller can't be enabled");
        }
    }
    Ok(())
}

fn child_directories(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if gone(&e) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut children = Vec::new();
    for entry in entries {
        let Ok(entry) = entry else { break };
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            children.push(entry.path());
        }
    }
    Ok(children)
}

fn processes_below(dir: &Path, pids: &mut BTreeSet<u32>) -> io::Result<()> {
    match fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => pids.extend(text.lines().filter_map(|l| l.parse::<u32>().ok()).filter(|p| *p != 0)),
        Err(e) if gone(&e) => return Ok(()),
        // v2: a threaded cgroup has no list of processes.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        Err(e) => return Err(e),
    }
    for child in child_directories(dir)? {
        processes_below(&child, pids)?;
    }
    Ok(())
}

fn remove_below(dir: &Path) -> io::Result<bool> {
    for child in child_directories(dir)? {
        remove_below(&child)?;
    }
    match fs::remove_dir(dir) {
        Ok(()) => Ok(true),
        Err(e) if gone(&e) => Ok(false),
        Err(e) => Err(io::Error::new(e.kind(), format!("rmdir {}: {e}", dir.display()))),
    }
}

fn gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(target: &str, fs_type: &str, options: &str) -> MountInfo {
        MountInfo { target: target.into(), fs_type: fs_type.into(), super_options: options.into() }
    }

    #[test]
    fn layouts_are_told_apart() {
        let root = Path::new("/sys/fs/cgroup");
        let v2 = Cgroups::from_table(&[mount("/sys/fs/cgroup", "cgroup2", "rw,nsdelegate")], root);
        assert_eq!((v2.layout(), v2.is_unified()), ("v2", true));
        let hybrid = [
            mount("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
            mount("/sys/fs/cgroup/memory", "cgroup", "rw,memory"),
            mount("/sys/fs/cgroup/unified", "cgroup2", "rw"),
            mount("/elsewhere/memory", "cgroup", "rw,memory"),
        ];
        let hybrid = Cgroups::from_table(&hybrid, root);
        assert_eq!(hybrid.layout(), "hybrid");
        assert_eq!(hybrid.directory("cpu", Path::new("/a/b")).unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b"));
        assert_eq!(hybrid.directory("pids", Path::new("/a")), None);
        assert_eq!(hybrid.directories(Path::new("/a")).count(), 3);
    }

    #[test]
    fn limits_become_the_kernels_numbers() {
        let resources = Resources {
            cpu_request_millis: Some(250),
            cpu_limit_millis: Some(500),
            memory_limit_bytes: Some(64 << 20),
            pids_limit: None,
            ..Resources::default()
        };
        let v1 = limit_files(&resources, false);
        assert!(v1.contains(&("cpu", "cpu.shares", "256".into())));
        assert!(v1.contains(&("cpu", "cpu.cfs_quota_us", "50000".into())));
        assert!(v1.contains(&("memory", "memory.limit_in_bytes", "67108864".into())));
        assert!(v1.contains(&("pids", "pids.max", "max".into())));
        let v2 = limit_files(&resources, true);
        assert!(v2.contains(&("cpu", "cpu.max", "50000 100000".into())));
        assert!(v2.contains(&("cpu", "cpu.weight", "35".into())));
        assert_eq!(quota_us(1), 1000, "the kernel refuses less");
    }

    /// Request in thousandths to cpu.shares and cpu.weight.
    #[test]
    fn requests_become_shares_and_weights() {
        for (millis, shares, weight) in [
            (None, 2, 1),
            (Some(1), 2, 1),
            (Some(100), 102, 17),
            (Some(250), 256, 35),
            (Some(1000), 1024, 100),
            (Some(2000), 2048, 174),
            (Some(500_000), 262_144, 10_000),
        ] {
            assert_eq!((cpu_shares(millis), weight_of_shares(cpu_shares(millis))), (shares, weight), "{millis:?}");
        }
    }

    #[test]
    fn counters_are_found_by_exact_key() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(keyed_value(text, "oom_kill"), 3);
        assert_eq!(keyed_value("low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\n", "oom"), 2);
        assert_eq!(keyed_value("", "oom_kill"), 0);
    }
}
