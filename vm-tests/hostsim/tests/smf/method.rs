//! The method as SMF would run it, with a stand-in for the daemon.

use crate::smf;
use reddwarf_hostsim::lab::Lab;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const FMRI: &str = "svc:/system/reddwarf:default";

/// A daemon that writes down how it was called, then runs until it is told to end. It has a child in its contract.
const DAEMON: &str = r#"#!/bin/sh
here=${0%/*}
for word; do [ "$word" = --check ] && exec test ! -e "$here/bad-settings"; done
trap 'echo HUP >>"$here/signals"' HUP
trap 'echo TERM >>"$here/signals"; exit 0' TERM
sh -c 'trap "echo child >>$0/signals" HUP TERM; while :; do sleep 0.05; done' "$here" &
echo $! >"$here/child"
for word; do printf '%s\n' "$word"; done >"$here/words"
env | grep ^REDDWARF_ | sort >"$here/settings"
while :; do sleep 0.05; done
"#;

struct Bench {
    lab: Lab,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab::new(&dir.path().join("system")).unwrap();
        let answer = lab.run("svccfg", &["import", smf("reddwarf.xml").to_str().unwrap()]).unwrap();
        assert_eq!(answer.code, 0, "{}", answer.err);
        let bench = Self { lab, dir };
        bench.put("reddwarfd", DAEMON, 0o755);
        let method = std::fs::read_to_string(smf("reddwarfd")).unwrap();
        let method = method
            .replace("program=/usr/bin/reddwarfd", &format!("program={}", bench.path("reddwarfd").display()))
            .replace("run=/var/run/reddwarf", &format!("run={}", bench.path("run").display()));
        bench.put("method", &method, 0o755);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, text: &str, mode: u32) {
        std::fs::File::create(self.path(name)).unwrap().write_all(text.as_bytes()).unwrap();
        std::fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn set(&self, property: &str, value: &str) {
        let answer = self.lab.run("svccfg", &["-s", FMRI, "setprop", property, "=", "astring:", value]).unwrap();
        assert_eq!(answer.code, 0, "{}", answer.err);
    }

    fn method(&self, what: &str) -> Command {
        // A shell can't trap what whoever runs the tests has it ignore (nohup).
        let mut command = Command::new("/usr/bin/env");
        command.arg("--default-signal=HUP").arg(self.path("method"));
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.lab.tools().display());
        command.arg(what).env_clear().env("PATH", path).env("LC_ALL", "C").env("SMF_FMRI", FMRI);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, what: &str) -> Output {
        self.method(what).output().unwrap()
    }

    #[track_caller]
    fn until(&self, what: &str, mut ask: impl FnMut() -> bool) {
        for _ in 0..500 {
            if ask() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("waited for {what}: signals {:?} words {:?}", self.read("signals"), self.read("words"));
    }
}

fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn the_method_becomes_the_daemon_and_properties_reach_it_as_they_are() {
    let bench = Bench::new();
    let nasty = "a b  *;$(touch /tmp/never) `id` \"quoted\" 'single' \\ -n";
    bench.set("reddwarfd/node_name", nasty);
    bench.set("reddwarfd/manifests", "/etc/reddwarf.d:/opt/with blank");
    bench.set("reddwarfd/evil;name", "left out");
    bench.put("settings file.toml", "", 0o644);
    bench.set("config/file", bench.path("settings file.toml").to_str().unwrap());
    let mut child = bench.method("start").spawn().unwrap();
    bench.until("the daemon", || !bench.read("settings").is_empty());
    let run = bench.path("run");
    // Each word arrived as one.
    let words = format!("--run\n{}\n--config\n{}\n", run.display(), bench.path("settings file.toml").display());
    assert_eq!(bench.read("words"), words);
    assert_eq!(
        bench.read("settings"),
        format!("REDDWARF_MANIFESTS=/etc/reddwarf.d:/opt/with blank\nREDDWARF_NODE_NAME={nasty}\n")
    );
    // SMF watches the process that it started: the daemon is that process.
    assert_eq!(bench.read("run/reddwarfd.pid").trim(), child.id().to_string());
    assert_eq!(run.metadata().unwrap().permissions().mode() & 0o777, 0o750);

    // A refresh reaches the daemon alone, and it goes on.
    assert!(bench.run("refresh").status.success());
    bench.until("HUP", || bench.read("signals") == "HUP\n");
    assert!(child.try_wait().unwrap().is_none());

    // So does a stop; what else is in the contract is left to SMF.
    let reaper = std::thread::spawn(move || child.wait().unwrap());
    assert!(bench.run("stop").status.success());
    assert_eq!(reaper.join().unwrap().code(), Some(0));
    assert_eq!(bench.read("signals"), "HUP\nTERM\n");
    let other = bench.read("child");
    assert!(lives(&other), "a child under way is not hit");
    let _ = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(other.trim().parse().unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    );
    assert!(!Path::new("/tmp/never").exists());
    assert!(!bench.path("run/reddwarfd.pid").exists());
}

#[test]
fn what_a_person_must_mend_is_maintenance() {
    let bench = Bench::new();
    bench.put("bad-settings", "", 0o644);
    let output = bench.run("start");
    assert_eq!(output.status.code(), Some(96), "SMF_EXIT_ERR_CONFIG");
    assert!(String::from_utf8_lossy(&output.stderr).contains("svcadm clear"), "{output:?}");
    std::fs::remove_file(bench.path("reddwarfd")).unwrap();
    assert_eq!(bench.run("start").status.code(), Some(95), "SMF_EXIT_ERR_FATAL");
    assert_eq!(bench.run("").status.code(), Some(95));
}

#[test]
fn a_stale_pid_file_hits_nobody() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("run")).unwrap();
    let mut bystander = Command::new("sleep").arg("60").spawn().unwrap();
    for text in [bystander.id().to_string(), "1".into(), "not a number".into(), "-1".into(), String::new()] {
        bench.put("run/reddwarfd.pid", &format!("{text}\n"), 0o644);
        assert!(bench.run("stop").status.success(), "nothing to stop is no error");
        assert_eq!(bench.run("refresh").status.code(), Some(1));
    }
    assert!(bystander.try_wait().unwrap().is_none());
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

/// U13: the earlier method split properties into words, put the daemon into the background (a loop of restarts under
/// `child`), and its refresh did nothing.
#[test]
fn u13_the_method_is_plain_shell() {
    for shell in ["sh", "dash", "bash", "ksh"] {
        let Ok(output) = Command::new(shell).arg("-n").arg(smf("reddwarfd")).output() else { continue };
        assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
    }
    if let Ok(output) = Command::new("shellcheck").arg(smf("reddwarfd")).output() {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let text = std::fs::read_to_string(smf("reddwarfd")).unwrap();
    assert!(text.contains("exec \"$program\" \"$@\"") && !text.contains("eval "));
    let background = text.lines().any(|l| l.trim_end().ends_with(" &"));
    assert!(!background, "under duration=child the method must become the daemon");
    let manifest = std::fs::read_to_string(smf("reddwarf.xml")).unwrap();
    assert!(!manifest.contains("exec=\":"), "no :true, no :kill");
}
