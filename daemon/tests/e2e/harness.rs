//! One throw-away world per test: own directories, own network namespace, own bridge, own cgroups.

use crate::client::{self, Client};
pub use crate::client::{Said, is_ready, run, skip};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The machine that tests may be short of room; whether pods start and images stay must not hang on it.
const ROOM_OF_THE_MACHINE: [&str; 10] = [
    "--eviction-hard",
    "nodefs.available<1Mi",
    "--eviction-hard",
    "nodefs.inodesFree<1",
    "--eviction-hard",
    "memory.available<1Mi",
    "--eviction-hard",
    "pid.available<1",
    "--image-gc-high-percent",
    "100",
];
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A host of its own for one daemon.
pub struct World {
    pub name: String,
    client: Client,
    pub cidr: String,
    pub bridge: String,
    netns: String,
    extra: Vec<String>,
    daemon: Option<Child>,
    starts: u32,
}

impl Deref for World {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl World {
    pub fn new(test: &str) -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("rd{}x{n}", std::process::id());
        let dir = std::env::temp_dir().join(format!("{name}-{test}"));
        std::fs::create_dir_all(dir.join("manifests")).unwrap();
        run("ip", &["netns", "add", &name]).ok();
        run("ip", &["-n", &name, "link", "set", "lo", "up"]).ok();
        Self {
            client: Client { manifests: dir.join("manifests"), socket: dir.join("run/reddwarf.sock"), dir },
            cidr: format!("10.99.{}.0/24", n % 250),
            bridge: format!("rdt{n}"),
            netns: name.clone(),
            name,
            extra: Vec::new(),
            daemon: None,
            starts: 0,
        }
    }

    /// A world with a running daemon.
    pub fn started(test: &str) -> Self {
        let mut world = Self::new(test);
        world.start();
        world
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.extra.push(arg.into());
        self
    }

    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("no daemon").id()
    }

    pub fn without_arguments(mut self) -> Self {
        self.extra.clear();
        self
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.join("reddwarfd.log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.netns))
            .arg("--")
            .arg(env!("CARGO_BIN_EXE_reddwarfd"))
            .arg("--manifests")
            .arg(&self.manifests)
            .arg("--state")
            .arg(self.dir.join("state"))
            .arg("--run")
            .arg(self.dir.join("run"))
            .args(["--pod-cidr", &self.cidr, "--bridge", &self.bridge, "--node-name", "node-under-test"])
            .args(ROOM_OF_THE_MACHINE)
            .args(&self.extra)
            .stdin(Stdio::null());
        command
    }

    /// Starts the daemon without waiting for it.
    pub fn spawn(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = self.command();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        command.env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into()));
        self.daemon = Some(command.spawn().unwrap());
        self.starts += 1;
    }

    pub fn start(&mut self) {
        self.spawn();
        self.until("the daemon to be ready", |w| (w.curl("/readyz").code == 0).then_some(()));
    }

    pub fn kill9(&mut self) {
        let mut child = self.daemon.take().expect("no daemon");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and how long it took to go.
    pub fn stop(&mut self) -> Duration {
        let Some(child) = self.daemon.take() else { return Duration::ZERO };
        client::stop(child, || self.log())
    }

    pub fn daemon_exited(&mut self) -> Option<i32> {
        let child = self.daemon.as_mut()?;
        child.try_wait().unwrap().map(|s| s.code().unwrap_or(-1))
    }

    /// A command within this world's network.
    pub fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).arg("--").arg(program);
        command
    }

    /// A request by a client that knows nothing of us.
    pub fn curl(&self, path: &str) -> Said {
        let url = format!("http://localhost{path}");
        run(
            "curl",
            &["-sS", "--max-time", "20", "--fail-with-body", "--unix-socket", self.socket.to_str().unwrap(), &url],
        )
    }

    /// Asks until there is an answer; fails loudly with the daemon's log after 20 s.
    #[track_caller]
    pub fn until<T>(&self, what: &str, ask: impl FnMut(&Self) -> Option<T>) -> T {
        self.within(Duration::from_secs(20), what, ask)
    }

    #[track_caller]
    pub fn within<T>(&self, limit: Duration, what: &str, mut ask: impl FnMut(&Self) -> Option<T>) -> T {
        self.wait(limit, what, || ask(self), || self.log())
    }

    /// Waits until the pod is Ready and gives it.
    #[track_caller]
    pub fn ready(&self, name: &str) -> serde_json::Value {
        self.until(&format!("pod {name} to be ready"), |w| w.ready_pod(name))
    }

    #[track_caller]
    pub fn gone(&self, name: &str) {
        self.until(&format!("pod {name} to be gone"), |w| w.is_gone(name).then_some(()));
    }

    /// Everything on the machine that names this world: mounts, cgroups, processes, links.
    pub fn traces(&self) -> Vec<String> {
        let mut found = Vec::new();
        let dir = self.dir.to_str().unwrap();
        for line in std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
            // The daemon's own tmpfs and its program on it stay for the next start.
            let own = line.contains(&format!(" {dir}/run/private rw")) || line.contains("/run/private/exe ");
            if line.contains(dir) && !own {
                found.push(format!("mount {line}"));
            }
        }
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(cmdline) = std::fs::read(entry.path().join("cmdline")) else { continue };
            let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
            let pid: u32 = entry.file_name().to_string_lossy().parse().unwrap_or(0);
            // A child of the daemon that is about to become nft(8) still has the daemon's arguments.
            let fork = cmdline.contains(" --manifests ");
            if cmdline.contains(dir) && !fork && Some(pid) != self.daemon.as_ref().map(Child::id) {
                found.push(format!("process {pid} {cmdline}"));
            }
        }
        let links = run("ip", &["-n", &self.netns, "-o", "link"]).out;
        for line in links.lines().filter(|l| !l.contains(" lo:") && !l.contains(&format!(" {}:", self.bridge))) {
            found.push(format!("link {line}"));
        }
        found.extend(self.cgroups().into_iter().map(|c| format!("cgroup {}", c.display())));
        found
    }

    /// This world's own cgroup, in every hierarchy that has it.
    pub fn instance_cgroups(&self) -> Vec<PathBuf> {
        let digest = instance(&self.dir.join("run"));
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path());
        let roots = hierarchies.chain(["/sys/fs/cgroup".into()]);
        roots.map(|root| root.join(&digest)).filter(|dir| dir.is_dir()).collect()
    }

    /// cgroup directories below this world's own.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for ours in self.instance_cgroups() {
            for parent in [ours.join("best-effort"), ours] {
                let Ok(entries) = std::fs::read_dir(&parent) else { continue };
                // Where shims live, apart from the pods.
                let apart = |p: &PathBuf| p.ends_with("shims") || p.ends_with("best-effort");
                found.extend(entries.flatten().map(|e| e.path()).filter(|p| p.is_dir() && !apart(p)));
            }
        }
        found
    }
}

/// The instance name that a daemon with this run directory uses (as `reddwarfd --version`'s docs say).
pub fn instance(run_dir: &Path) -> String {
    let said = run(env!("CARGO_BIN_EXE_reddwarfd"), &["__instance", run_dir.to_str().unwrap()]);
    said.ok().trim().to_owned()
}

impl Drop for World {
    fn drop(&mut self) {
        // Whatever a failed test left: stop pods, then the daemon, then what is left of both.
        if self.daemon.is_some() {
            let _ = self.ctl(&["shutdown", "--stop-pods"]);
        }
        if let Some(mut child) = self.daemon.take() {
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(10) && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let digest = instance(&self.dir.join("run"));
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|e| e.path());
        for root in hierarchies.chain(["/sys/fs/cgroup".into()]) {
            kill_cgroup(&root.join(&digest));
        }
        let dir = self.dir.to_str().unwrap().to_owned();
        for _ in 0..10 {
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let mut ours: Vec<&str> =
                mounts.lines().filter_map(|l| l.split(' ').nth(4)).filter(|m| m.starts_with(&dir)).collect();
            if ours.is_empty() {
                break;
            }
            ours.reverse();
            for mount in ours {
                run("umount", &["-l", mount]);
            }
        }
        run("ip", &["netns", "del", &self.netns]);
        if std::thread::panicking() && std::env::var_os("REDDWARF_KEEP").is_some() {
            eprintln!("kept {}", self.dir.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn kill_cgroup(path: &Path) {
    let Ok(entries) = std::fs::read_dir(path) else { return };
    for entry in entries.flatten().filter(|e| e.path().is_dir()) {
        kill_cgroup(&entry.path());
    }
    for _ in 0..50 {
        let pids = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines().filter_map(|p| p.parse().ok()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        }
        if std::fs::remove_dir(path).is_ok() || !path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
