//! One throw-away world per test: own directories, own network namespace, own bridge, own cgroups.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "exit {}\nstdout: {}\nstderr: {}", self.code, self.out, self.err);
        self.out
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit {}\nstdout: {}\nstderr: {}", self.code, self.out, self.err);
        self
    }
}

/// Runs a program to its end.
pub fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Said {
    let out =
        Command::new(program).args(args).stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    Said {
        code: out.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&out.stdout).into_owned(),
        err: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// True (and says so) when a test can't run here.
pub fn skip() -> bool {
    if is_root() {
        return false;
    }
    eprintln!("SKIPPED: needs root (make test runs it through sudo)");
    true
}

fn target(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_reddwarfd")).with_file_name(name);
    assert!(path.exists(), "{} is missing: cargo build -p reddwarfd -p reddwarfctl", path.display());
    path
}

/// A host of its own for one daemon.
pub struct World {
    pub name: String,
    pub dir: PathBuf,
    pub manifests: PathBuf,
    pub socket: PathBuf,
    pub cidr: String,
    pub bridge: String,
    netns: String,
    extra: Vec<String>,
    daemon: Option<Child>,
    starts: u32,
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
            manifests: dir.join("manifests"),
            socket: dir.join("run/reddwarf.sock"),
            cidr: format!("10.99.{}.0/24", n % 250),
            bridge: format!("rdt{n}"),
            netns: name.clone(),
            name,
            dir,
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
        let Some(mut child) = self.daemon.take() else { return Duration::ZERO };
        let began = Instant::now();
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGTERM);
        while began.elapsed() < Duration::from_secs(15) {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "reddwarfd ended with {status}\n{}", self.log());
                return began.elapsed();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        panic!("reddwarfd did not stop within 15 s\n{}", self.log());
    }

    pub fn daemon_exited(&mut self) -> Option<i32> {
        let child = self.daemon.as_mut()?;
        child.try_wait().unwrap().map(|s| s.code().unwrap_or(-1))
    }

    pub fn ctl(&self, args: &[&str]) -> Said {
        let socket = self.socket.to_str().unwrap();
        let mut all = vec!["--socket", socket];
        all.extend_from_slice(args);
        run(target("reddwarfctl").to_str().unwrap(), &all)
    }

    pub fn ctl_command(&self) -> Command {
        let mut command = Command::new(target("reddwarfctl"));
        command.arg("--socket").arg(&self.socket);
        command
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

    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let text = self.ctl(args).ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}\n{text}"))
    }

    pub fn pod(&self, name: &str) -> Option<serde_json::Value> {
        let said = self.ctl(&["get", "pod", name, "-o", "json"]);
        (said.code == 0).then(|| serde_json::from_str(&said.out).unwrap())
    }

    /// Writes a manifest as the documentation says: beside, then rename.
    pub fn file(&self, name: &str, text: &str) {
        let path = self.manifests.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let temporary = self.dir.join(format!("new-{}", name.replace('/', "_")));
        let mut file = std::fs::File::create(&temporary).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        drop(file);
        std::fs::rename(temporary, path).unwrap();
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.manifests.join(name)).unwrap();
    }

    /// Asks until there is an answer; fails loudly with the daemon's log after 20 s.
    #[track_caller]
    pub fn until<T>(&self, what: &str, ask: impl FnMut(&Self) -> Option<T>) -> T {
        self.within(Duration::from_secs(20), what, ask)
    }

    #[track_caller]
    pub fn within<T>(&self, limit: Duration, what: &str, mut ask: impl FnMut(&Self) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(answer) = ask(self) {
                return answer;
            }
            if began.elapsed() > limit {
                let mut story = String::new();
                for args in [&["status"][..], &["get", "pods", "-A", "-o", "json"], &["events"]] {
                    let _ = writeln!(story, "$ reddwarfctl {}\n{:?}", args.join(" "), self.ctl(args));
                }
                panic!("waited {limit:?} for {what}\n{story}\nlog:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(15));
        }
    }

    /// Waits until the pod is Ready and gives it.
    #[track_caller]
    pub fn ready(&self, name: &str) -> serde_json::Value {
        self.until(&format!("pod {name} to be ready"), |w| w.pod(name).filter(is_ready))
    }

    #[track_caller]
    pub fn gone(&self, name: &str) {
        self.until(&format!("pod {name} to be gone"), |w| (w.ctl(&["get", "pod", name]).code == 4).then_some(()));
    }

    /// Host process ids of a pod's processes, as its cgroups tell.
    pub fn exec(&self, pod: &str, argv: &[&str]) -> Said {
        let mut args = vec!["exec", pod, "--"];
        args.extend_from_slice(argv);
        self.ctl(&args)
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

    /// cgroup directories below this world's own.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let digest = instance(&self.dir.join("run"));
        let mut found = Vec::new();
        let mut roots: Vec<PathBuf> = vec!["/sys/fs/cgroup".into()];
        roots.extend(std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path()).filter(|p| p.is_dir()));
        for root in roots {
            let ours = root.join(&digest);
            let Ok(entries) = std::fs::read_dir(&ours) else { continue };
            // Where shims live, apart from the pods.
            found.extend(entries.flatten().map(|e| e.path()).filter(|p| p.is_dir() && !p.ends_with("shims")));
        }
        found
    }
}

/// The instance name that a daemon with this run directory uses (as `reddwarfd --version`'s docs say).
pub fn instance(run_dir: &Path) -> String {
    let said = run(env!("CARGO_BIN_EXE_reddwarfd"), &["__instance", run_dir.to_str().unwrap()]);
    said.ok().trim().to_owned()
}

pub fn is_ready(pod: &serde_json::Value) -> bool {
    pod["status"]["conditions"]
        .as_array()
        .is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
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
        for root in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|e| e.path()) {
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
