//! What end-to-end tests of every host have in common: a daemon as its user sees it, through manifests and reddwarfctl.

use serde_json::Value;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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
    #[allow(dead_code, reason = "one host's tests have no use for it")]
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

fn is_root() -> bool {
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

/// How many times slower this machine is, where `REDDWARF_TEST_PATIENCE` says so (an emulated one).
pub fn slowness() -> u32 {
    std::env::var("REDDWARF_TEST_PATIENCE").ok().and_then(|f| f.parse().ok()).unwrap_or(1)
}

/// A program that is built with the daemon.
pub fn target(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_reddwarfd")).with_file_name(name);
    assert!(path.exists(), "{} is missing: cargo build -p reddwarfd -p reddwarfctl", path.display());
    path
}

/// A daemon's user.
pub struct Client {
    /// The test's own directory.
    pub dir: PathBuf,
    pub manifests: PathBuf,
    pub socket: PathBuf,
}

impl Client {
    pub fn ctl(&self, args: &[&str]) -> Said {
        let socket = self.socket.to_str().unwrap();
        let mut all = vec!["--socket", socket];
        all.extend_from_slice(args);
        run(target("reddwarfctl").to_str().unwrap(), &all)
    }

    #[allow(dead_code, reason = "one host's tests have no use for it")]
    pub fn ctl_command(&self) -> Command {
        let mut command = Command::new(target("reddwarfctl"));
        command.arg("--socket").arg(&self.socket);
        command
    }

    pub fn exec(&self, pod: &str, argv: &[&str]) -> Said {
        let mut args = vec!["exec", pod, "--"];
        args.extend_from_slice(argv);
        self.ctl(&args)
    }

    #[allow(dead_code, reason = "one host's tests have no use for it")]
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.ctl(args).ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}\n{text}"))
    }

    pub fn pod(&self, name: &str) -> Option<Value> {
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

    /// Asks until there is an answer; fails loudly with what the daemon says of everything, and with `log`.
    #[track_caller]
    pub fn wait<T>(
        &self,
        limit: Duration,
        what: &str,
        mut ask: impl FnMut() -> Option<T>,
        log: impl Fn() -> String,
    ) -> T {
        let limit = limit.saturating_mul(slowness());
        let began = Instant::now();
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            if began.elapsed() > limit {
                let mut story = String::new();
                for args in [&["status"][..], &["get", "pods", "-A", "-o", "json"], &["events"]] {
                    let said = self.ctl(args);
                    let _ = writeln!(story, "$ reddwarfctl {}\n{}{}", args.join(" "), said.out, said.err);
                }
                panic!("waited {limit:?} for {what}\n{story}\nlog:\n{}", log());
            }
            std::thread::sleep(Duration::from_millis(15));
        }
    }

    /// The pod, once it is Ready.
    pub fn ready_pod(&self, name: &str) -> Option<Value> {
        self.pod(name).filter(is_ready)
    }

    pub fn is_gone(&self, name: &str) -> bool {
        self.ctl(&["get", "pod", name]).code == 4
    }
}

/// SIGTERM, and how long it took to go.
pub fn stop(mut child: Child, log: impl Fn() -> String) -> Duration {
    let began = Instant::now();
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGTERM);
    while began.elapsed() < Duration::from_secs(15).saturating_mul(slowness()) {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "reddwarfd ended with {status}\n{}", log());
            return began.elapsed();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    panic!("reddwarfd did not stop within 15 s\n{}", log());
}

/// A pod of one shell script, of the sparse brand.
pub fn script(name: &str, script: &str) -> String {
    pod(name, "", &format!("[sh, -c, {script:?}]"), "")
}

/// With further pod-level and container-level YAML (each a flow mapping's inside).
pub fn pod(name: &str, pod_level: &str, command: &str, container_level: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  annotations: {{reddwarf.io/zone-brand: sparse}}\n\
         spec: {{terminationGracePeriodSeconds: 2, {pod_level} containers: [{{name: main, command: {command}, {container_level} }}]}}\n"
    )
}

pub const FOREVER: &str = "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done";

pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}
