//! A host of its own for each test, and words for what tests do with it.

use crate::common::{self, patience};
use nix::sched::{CloneFlags, unshare};
use reddwarf_command::Tools;
use reddwarf_host::spec::{ContainerSpec, NetworkSpec, SandboxNetwork, SandboxSpec};
use reddwarf_host::{Area, DatasetId, EngineKind, StorageEngine};
use reddwarf_host::{
    ContainerName, ContainerObserved, ContainerState, Exec, ExecRequest, Host, SandboxId, SandboxObserved, Sandboxes,
    SystemClock,
};
use reddwarf_linux::{LinuxHost, LinuxOptions};
use reddwarf_storage::choose::{Wanted, choose};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Runs a test in namespaces of its own. Skips, loudly, without root.
pub(crate) fn as_root<F: Future<Output = ()>>(test: impl FnOnce(World) -> F + Send + 'static) {
    with_mounts(|| (), test);
}

/// The same where nothing but cgroup v2 is to be seen, as on machines of today. Which controllers it has is this machine's
/// affair: those that v1 holds are not among them.
pub(crate) fn as_root_on_v2<F: Future<Output = ()>>(test: impl FnOnce(World) -> F + Send + 'static) {
    let mount = || {
        let none = nix::mount::MsFlags::empty();
        // With all that is below it.
        nix::mount::umount2("/sys/fs/cgroup", nix::mount::MntFlags::MNT_DETACH).unwrap();
        nix::mount::mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), none, None::<&str>).unwrap();
    };
    with_mounts(mount, test);
}

fn with_mounts<F: Future<Output = ()>>(
    mount: impl FnOnce() + Send + 'static,
    test: impl FnOnce(World) -> F + Send + 'static,
) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: this test makes containers and needs root");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let flags = nix::mount::MsFlags::MS_PRIVATE | nix::mount::MsFlags::MS_REC;
        nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
        mount();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::Builder::new().prefix("rdl").tempdir().unwrap();
            let world = World::new(Dir(dir.path().to_owned()));
            let cleaner = Cleaner { options: world.options.clone(), dir };
            test(world).await;
            drop(cleaner);
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Kills and removes what a failed test left, so that the next run starts clean.
struct Cleaner {
    options: LinuxOptions,
    dir: tempfile::TempDir,
}

fn on_zfs() -> bool {
    std::env::var_os("REDDWARF_TEST_ZFS").is_some_and(|which| which == "kernel")
}

/// The file system that roots which are clones lie on.
pub(crate) fn clones_on() -> &'static str {
    if on_zfs() { "zfs" } else { "btrfs" }
}

/// The name of a test's own pool.
fn pool_of(dir: &Path) -> String {
    dir.file_name().unwrap().to_str().unwrap().to_owned()
}

fn run(program: &str, args: &[&str]) -> bool {
    std::process::Command::new(program).args(args).output().is_ok_and(|out| out.status.success())
}

/// A test's directory; the [`Cleaner`] removes it.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        for pid in cgroup_pids(&self.options.instance) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        let deadline = Instant::now() + patience(Duration::from_secs(5));
        while !cgroup_dirs(&self.options.instance).is_empty() && Instant::now() < deadline {
            for dir in cgroup_dirs(&self.options.instance).iter().rev() {
                let _ = std::fs::remove_dir(dir);
            }
        }
        // The host's own tmpfs stays as long as the host; without it the directory can go.
        let private = self.dir.path().join("run/private");
        while nix::mount::umount2(&private, nix::mount::MntFlags::MNT_DETACH).is_ok() {}
        if on_zfs() {
            run("zpool", &["destroy", "-f", &pool_of(self.dir.path())]);
        }
        let _ = nix::mount::umount2(&self.dir.path().join("btrfs"), nix::mount::MntFlags::MNT_DETACH);
        if let Err(e) = std::fs::remove_dir_all(self.dir.path()) {
            eprintln!("{} stays: {e}", self.dir.path().display());
        }
    }
}

/// Directories of an instance in all hierarchies, parents first.
pub(crate) fn cgroup_dirs(instance: &str) -> Vec<PathBuf> {
    fn walk(dir: PathBuf, found: &mut Vec<PathBuf>) {
        if !dir.is_dir() {
            return;
        }
        found.push(dir.clone());
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                walk(entry.path(), found);
            }
        }
    }
    let mut found = Vec::new();
    let root = Path::new("/sys/fs/cgroup");
    walk(root.join(instance), &mut found);
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        walk(entry.path().join(instance), &mut found);
    }
    found
}

pub(crate) fn cgroup_pids(instance: &str) -> Vec<i32> {
    let files = cgroup_dirs(instance).into_iter().map(|d| d.join("cgroup.procs"));
    let text: String = files.filter_map(|f| std::fs::read_to_string(f).ok()).collect();
    text.lines().filter_map(|l| l.parse().ok()).collect()
}

pub(crate) struct World {
    pub(crate) dir: Dir,
    pub(crate) options: LinuxOptions,
    pub(crate) host: LinuxHost,
    /// Where roots are cloned, if they are.
    pub(crate) roots: Option<Arc<dyn StorageEngine>>,
    count: AtomicU32,
}

impl World {
    fn new(dir: Dir) -> Self {
        let mut options = LinuxOptions::new(
            dir.path().join("run"),
            dir.path().join("state"),
            env!("CARGO_BIN_EXE_reddwarf-linux-shim"),
        );
        options.bridge = "rdtest0".to_owned();
        options.host_path_allow = vec![dir.path().to_owned()];
        let host = LinuxHost::new(options.clone(), Arc::new(SystemClock)).unwrap();
        Self { dir, options, host, roots: None, count: AtomicU32::new(2) }
    }

    /// The same with roots that are clones, on a btrfs of its own or, with `REDDWARF_TEST_ZFS=kernel` (`vm-tests/vm.py zfs`), on a
    /// pool of its own; `None`, and says so, where that can't be had. The mount goes with the test's namespace.
    pub(crate) async fn on_clones(mut self) -> Option<Self> {
        let file = self.dir.path().join("disk");
        std::fs::File::create(&file).unwrap().set_len(512 << 20).unwrap();
        let at = self.dir.path().join(clones_on());
        std::fs::create_dir(&at).unwrap();
        let (disk, mounted) = (file.to_str().unwrap(), at.to_str().unwrap());
        if on_zfs() {
            assert!(run("zpool", &["create", "-m", mounted, &pool_of(self.dir.path()), disk]), "no pool");
        } else if !run("mkfs.btrfs", &["-q", "-f", disk])
            || !run("mount", &["-o", "loop", "-t", "btrfs", disk, mounted])
        {
            eprintln!("SKIPPED: needs btrfs-progs and a kernel with btrfs");
            return None;
        }
        let engine = self.engine().await;
        drop(engine.prepare().await.unwrap());
        self.roots = Some(engine);
        self.host = self.second_daemon();
        Some(self)
    }

    async fn engine(&self) -> Arc<dyn StorageEngine> {
        let (place, engine) = if on_zfs() {
            (format!("{}/place", pool_of(self.dir.path())), EngineKind::Zfs)
        } else {
            (self.dir.path().join("btrfs/place").display().to_string(), EngineKind::Btrfs)
        };
        let wanted = Wanted {
            pool: Some(place),
            engine: Some(engine),
            areas: BTreeMap::new(),
            default: "/".into(),
            look_for_pools: false,
            record: None,
        };
        let calls = Arc::new(reddwarf_linux::btrfs::Calls);
        choose(&wanted, Tools::linux(), Some(calls), Arc::new(SystemClock)).await.unwrap()
    }

    /// Datasets of an area.
    pub(crate) async fn datasets(&self, area: Area) -> Vec<DatasetId> {
        let all = self.roots.as_ref().unwrap().list().await.unwrap();
        all.into_keys().filter(|id| id.area == area).collect()
    }

    /// Waits until an area holds so many datasets.
    pub(crate) async fn until_datasets(&self, area: Area, count: usize) {
        let deadline = Instant::now() + patience(Duration::from_secs(20));
        loop {
            let found = self.datasets(area).await;
            if found.len() == count {
                return;
            }
            assert!(Instant::now() < deadline, "{found:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What a restarted daemon would have.
    pub(crate) fn second_daemon(&self) -> LinuxHost {
        LinuxHost::with_roots(self.options.clone(), Arc::new(SystemClock), self.roots.clone()).unwrap()
    }

    pub(crate) fn network(&self) -> NetworkSpec {
        NetworkSpec {
            link: self.options.bridge.clone(),
            cidr: "10.213.0.0/24".parse().unwrap(),
            gateway: "10.213.0.1".parse().unwrap(),
            second: None,
            masquerade: false,
        }
    }

    /// On the host's network (which is the test's own): nothing to set up.
    pub(crate) fn sandbox(&self) -> SandboxSpec {
        common::sandbox(self.count.fetch_add(1, Ordering::Relaxed), SandboxNetwork::Host)
    }

    /// With an address of its own; the pod network must be there.
    pub(crate) fn pod_sandbox(&self) -> SandboxSpec {
        let mut spec = self.sandbox();
        let n: u32 = spec.id.as_str().rsplit('-').next().unwrap().parse().unwrap();
        spec.network = common::address(n + 1);
        spec
    }

    pub(crate) fn container(&self, sandbox: &SandboxSpec, name: &str, argv: Vec<String>) -> ContainerSpec {
        common::container(self.dir.path(), sandbox, name, argv)
    }

    pub(crate) fn shell(&self, sandbox: &SandboxSpec, name: &str, script: &str) -> ContainerSpec {
        self.container(sandbox, name, common::shell(script))
    }

    /// A running sandbox with one started container.
    pub(crate) async fn start(&self, script: &str) -> (SandboxSpec, ContainerSpec) {
        let sandbox = self.sandbox();
        let container = self.shell(&sandbox, "app", script);
        let _ = self.host.sandbox_ensure(&sandbox).await.unwrap();
        let _ = self.host.container_start(&sandbox.id, &container).await.unwrap();
        (sandbox, container)
    }

    /// The same, waited for to its end.
    pub(crate) async fn run(&self, script: &str) -> (SandboxSpec, ContainerObserved) {
        let (sandbox, container) = self.start(script).await;
        let observed = self.until_exit(&sandbox.id, &container.name).await;
        (sandbox, observed)
    }

    pub(crate) async fn observe(&self, id: &SandboxId) -> SandboxObserved {
        observe(&self.host, id).await.unwrap_or_else(|| panic!("{id} is not there"))
    }

    /// The newest instance of a container.
    pub(crate) async fn instance(&self, id: &SandboxId, name: &ContainerName) -> ContainerObserved {
        common::instance(&self.host, id, name).await
    }

    pub(crate) async fn until_exit(&self, id: &SandboxId, name: &ContainerName) -> ContainerObserved {
        common::until_exit(&self.host, id, name).await
    }

    /// Waits for a state, woken by the host's events.
    pub(crate) async fn until(
        &self,
        id: &SandboxId,
        name: &ContainerName,
        wanted: impl Fn(&ContainerState) -> bool,
    ) -> ContainerObserved {
        common::until(&self.host, id, name, wanted).await
    }

    /// Runs a command in a container: exit code, stdout, stderr.
    pub(crate) async fn exec(&self, id: &SandboxId, name: &ContainerName, script: &str) -> (i32, String, String) {
        let argv = vec!["/bin/sh".into(), "-c".into(), script.into()];
        exec(&self.host, id, name, argv, b"").await
    }

    /// A log's texts, rotated files first, without times.
    pub(crate) fn log(&self, container: &ContainerSpec) -> Vec<String> {
        let text = std::fs::read_to_string(&container.log.path).unwrap_or_default();
        text.lines().map(|l| l.split_once(' ').unwrap().1.to_owned()).collect()
    }

    /// Waits until a line of the log ends with `text`; the log's texts up to now.
    pub(crate) async fn until_log(&self, container: &ContainerSpec, text: &str) -> Vec<String> {
        let deadline = Instant::now() + patience(Duration::from_secs(20));
        loop {
            let log = self.log(container);
            if log.iter().any(|line| line.ends_with(text)) {
                return log;
            }
            assert!(Instant::now() < deadline, "no line {text:?} in {log:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops and destroys, and checks that nothing of the sandbox is left anywhere.
    pub(crate) async fn destroy(&self, sandbox: &SandboxSpec) {
        let _ = self.host.sandbox_stop(&sandbox.id).await.unwrap();
        let _ = self.host.sandbox_destroy(&sandbox.id).await.unwrap();
        self.assert_nothing_left(&sandbox.id).await;
    }

    pub(crate) async fn assert_nothing_left(&self, id: &SandboxId) {
        let observed = self.host.observe().await;
        assert!(!observed.sandboxes.known().unwrap().contains_key(id), "{id} is still there");
        assert_eq!(observed.leftovers, [], "left over");
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let ours: Vec<&str> = mounts.lines().filter(|l| l.contains(id.as_str())).collect();
        assert_eq!(ours, Vec::<&str>::new(), "mounts left");
        let cgroups: Vec<_> =
            cgroup_dirs(&self.options.instance).into_iter().filter(|d| d.ends_with(id.as_str())).collect();
        assert_eq!(cgroups, Vec::<PathBuf>::new(), "cgroups left");
        let files = find(self.dir.path(), id.as_str());
        assert_eq!(files, Vec::<PathBuf>::new(), "files left");
        // Shims end a moment after their containers.
        let deadline = Instant::now() + patience(Duration::from_secs(5));
        while !cgroup_pids(&self.options.instance).is_empty() {
            assert!(Instant::now() < deadline, "processes left");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Paths below `dir` whose name is or begins with `name`, logs left out.
fn find(dir: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let file_name = entry.file_name().into_string().unwrap();
        if file_name == "logs" {
            continue;
        }
        if file_name == name || file_name.starts_with(&format!("{name}.")) {
            found.push(path);
        } else if entry.file_type().unwrap().is_dir() {
            found.extend(find(&path, name));
        }
    }
    found
}

pub(crate) async fn observe(host: &LinuxHost, id: &SandboxId) -> Option<SandboxObserved> {
    common::observe(host, id).await
}

pub(crate) async fn exec(
    host: &LinuxHost,
    id: &SandboxId,
    name: &ContainerName,
    argv: Vec<String>,
    input: &[u8],
) -> (i32, String, String) {
    let request = ExecRequest { argv, tty: false, stdin: true, contained: false };
    let mut session = host.exec(id, name, request).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(input).await.unwrap();
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    let mut stderr = session.stderr.take().unwrap();
    let both = async { tokio::join!(session.stdout.read_to_string(&mut out), stderr.read_to_string(&mut err)) };
    let (a, b) = tokio::time::timeout(patience(Duration::from_secs(20)), both).await.expect("output in time");
    a.unwrap();
    b.unwrap();
    let exit =
        tokio::time::timeout(patience(Duration::from_secs(20)), session.exit).await.expect("exit in time").unwrap();
    (exit.code, out, err)
}

/// Exit code of an ended container.
pub(crate) fn code(observed: &ContainerObserved) -> i32 {
    match &observed.state {
        ContainerState::Exited { code, .. } => *code,
        other => panic!("has not exited: {other:?}"),
    }
}

pub(crate) fn message(observed: &ContainerObserved) -> &str {
    match &observed.state {
        ContainerState::Exited { message, .. } => message,
        other => panic!("has not exited: {other:?}"),
    }
}
