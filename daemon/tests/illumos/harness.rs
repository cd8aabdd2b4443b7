//! One played illumos and one real daemon per test.

use crate::client::{self, Client};
pub use crate::client::{FOREVER, is_ready, pod, script, skip};
use reddwarf_hostsim::call::Line;
use reddwarf_hostsim::lab::Lab;
use reddwarf_hostsim::state::{State, Zone, ZoneState};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct World {
    client: Client,
    pub lab: Lab,
    daemon: Option<Child>,
    extra: Vec<String>,
    /// What follows the pods' first network: a comma and the second.
    second: &'static str,
    number: u32,
}

impl Deref for World {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl World {
    pub fn new(test: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("rdi{}x{number}-{test}", std::process::id()));
        std::fs::create_dir_all(dir.join("manifests")).unwrap();
        let lab = Lab::new(&dir.join("sim")).unwrap();
        let dir = dir.canonicalize().unwrap();
        let socket = lab.dir().join("root/var/run/reddwarf/reddwarf.sock");
        Self {
            client: Client { manifests: dir.join("manifests"), socket, dir },
            lab,
            daemon: None,
            extra: Vec::new(),
            second: "",
            number,
        }
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.extra = args.iter().map(ToString::to_string).collect();
        self
    }

    /// Pods have addresses of both families.
    pub fn dual(mut self) -> Self {
        self.second = ",fd00:88::/64";
        self
    }

    /// A world with a running daemon.
    pub fn started(test: &str) -> Self {
        let mut world = Self::new(test);
        world.start();
        world
    }

    pub fn state_dir(&self) -> PathBuf {
        // Datasets are mounted below it: it has to lie in the played system.
        self.lab.dir().join("root/var/lib/reddwarf")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("reddwarfd.log")).unwrap_or_default()
    }

    pub fn spawn(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("reddwarfd.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_reddwarfd"));
        command
            .args(["--host", "illumos", "--dns-listen", "off", "--node-name", "zone-host", "--resync-seconds", "2"])
            // Many pods go at once here.
            .args(["--prune-guard-percent", "100"])
            // The machine that plays may be short of room.
            .args(["--eviction-hard", "nodefs.available<1Mi", "--eviction-hard", "memory.available<1Mi"])
            .arg("--manifests")
            .arg(&self.manifests)
            .arg("--state")
            .arg(self.state_dir())
            .arg("--run")
            .arg(self.lab.dir().join("root/var/run/reddwarf"))
            .args(["--pod-cidr", &format!("10.{}.0.0/24{}", 100 + self.number % 100, self.second)])
            .args(&self.extra)
            .env("REDDWARF_TOOLS", self.lab.tools())
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        std::fs::create_dir_all(self.state_dir()).unwrap();
        self.daemon = Some(command.spawn().unwrap());
    }

    pub fn start(&mut self) {
        self.spawn();
        self.until("the daemon to be ready", |w| (w.ctl(&["status"]).code != 7).then_some(()));
    }

    pub fn kill9(&mut self) {
        let mut child = self.daemon.take().expect("no daemon");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM: it ends by itself.
    pub fn stop(&mut self) {
        if let Some(child) = self.daemon.take() {
            client::stop(child, || self.log());
        }
    }

    /// Whether the daemon has ended; then it may be started again.
    pub fn died(&mut self) -> bool {
        let ended = self.daemon.as_mut().is_none_or(|d| d.try_wait().unwrap().is_some());
        if ended {
            self.daemon = None;
        }
        ended
    }

    /// Asks until there is an answer; fails loudly with the daemon's log.
    #[track_caller]
    pub fn until<T>(&self, what: &str, ask: impl FnMut(&Self) -> Option<T>) -> T {
        self.within(Duration::from_secs(30), what, ask)
    }

    #[track_caller]
    pub fn within<T>(&self, limit: Duration, what: &str, mut ask: impl FnMut(&Self) -> Option<T>) -> T {
        let story = || {
            let calls = self.calls();
            let calls = calls.iter().map(|line| format!("{:?} {} {}\n", line.rc, line.tool, line.argv.join(" ")));
            calls.chain([self.log()]).collect()
        };
        self.wait(limit, what, || ask(self), story)
    }

    #[track_caller]
    pub fn ready(&self, name: &str) -> Value {
        self.until(&format!("pod {name} to be ready"), |w| w.ready_pod(name))
    }

    #[track_caller]
    pub fn gone(&self, name: &str) {
        self.until(&format!("pod {name} to be gone"), |w| w.is_gone(name).then_some(()));
    }

    pub fn state(&self) -> State {
        self.lab.state().unwrap()
    }

    pub fn calls(&self) -> Vec<Line> {
        self.lab.transcript().unwrap()
    }

    /// Pods' zones: templates left out.
    pub fn zones(&self) -> BTreeMap<String, Zone> {
        self.state().zones.into_iter().filter(|(name, _)| !name.contains("-golden-")).collect()
    }

    /// The one pod's zone of this name.
    #[track_caller]
    pub fn zone(&self, pod: &str) -> (String, Zone) {
        let mut found = self.zones().into_iter().filter(|(name, _)| name.starts_with(&format!("default-{pod}-")));
        found.next().unwrap_or_else(|| panic!("no zone for {pod}"))
    }

    /// Everything on the played system that is there for a pod.
    pub fn traces(&self) -> Vec<String> {
        let state = self.state();
        let mut found: Vec<String> = self.zones().into_keys().map(|z| format!("zone {z}")).collect();
        found.extend(
            state
                .links
                .iter()
                .filter(|(_, l)| l.class == "vnic")
                .map(|(n, _)| n.clone())
                .filter(|n| !n.starts_with("rwgw"))
                .map(|n| format!("link {n}")),
        );
        let of_pod =
            |name: &&String| name.contains("/pods/") || (name.contains("/zones/") && !name.contains("-golden-"));
        found.extend(state.datasets.keys().filter(of_pod).map(|n| format!("dataset {n}")));
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(cmdline) = std::fs::read(process.path().join("cmdline")) else { continue };
            let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
            let ours = cmdline.contains(self.dir.to_str().unwrap());
            if ours
                && (cmdline.contains(" __zone-supervisor ")
                    || cmdline.contains(" __platform ")
                    || cmdline.contains(" __init "))
            {
                found.push(format!("process {cmdline}"));
            }
        }
        let run = self.lab.dir().join("root/var/run/reddwarf");
        let kept = ["sandboxes", "zonecfg"].map(|dir| self.state_dir().join(dir));
        for dir in kept.into_iter().chain(["sandboxes", "sockets"].map(|dir| run.join(dir))) {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            found.extend(entries.map(|e| format!("file {}", e.path().display())));
        }
        // Of pods' addresses are redirections' targets.
        let pods = format!("-> 10.{}.0.", 100 + self.number % 100);
        found.extend(
            state.nat.iter().filter(|r| r.starts_with("rdr ") && r.contains(&pods)).map(|r| format!("rule {r}")),
        );
        let of_global_zone = state.filters.get("").map(|f| f.active.clone()).unwrap_or_default();
        found.extend([of_global_zone.v4, of_global_zone.v6].concat().into_iter().map(|r| format!("guard {r}")));
        found
    }

    #[track_caller]
    pub fn no_traces(&self) {
        let began = Instant::now();
        while !self.traces().is_empty() && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let left = self.traces();
        assert!(left.is_empty(), "{left:#?}\n{}", self.log());
    }

    /// How many zones are in which state.
    pub fn in_state(&self, state: ZoneState) -> usize {
        self.zones().values().filter(|z| z.state == state).count()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.lab.stop_zones();
        if std::thread::panicking() && std::env::var_os("REDDWARF_KEEP").is_some() {
            eprintln!("kept {}", self.dir.display());
        } else {
            // Supervisors write down their containers' ends a moment after the zones'.
            for _ in 0..100 {
                if std::fs::remove_dir_all(&self.dir).is_ok() || !self.dir.exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
