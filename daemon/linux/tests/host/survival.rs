//! Crashes: of the daemon, of shims, in the middle of things.

use crate::common::patience;
use crate::support::{World, as_root, cgroup_pids, code, exec, observe};
use reddwarf_host::SystemClock;
use reddwarf_host::spec::{ContainerSpec, Signal};
use reddwarf_host::{Change, ContainerName, ContainerState, Host, HostErrorKind, SandboxState, Sandboxes};
use reddwarf_linux::LinuxHost;
use std::sync::Arc;
use std::time::{Duration, Instant};

const FOREVER: &str = "echo up; trap 'echo down; exit 9' TERM; sleep 1000000 & wait";

fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

/// The shim's process id, from its record.
fn shim_of(world: &World, sandbox: &str) -> i32 {
    shim(world, sandbox, "app")
}

/// Kills the shim of a container's first attempt.
pub(crate) fn kill_shim(world: &World, sandbox: &str, container: &ContainerName) {
    kill(shim(world, sandbox, container.as_str()), nix::sys::signal::SIGKILL);
}

fn shim(world: &World, sandbox: &str, container: &str) -> i32 {
    let file = world.options.run_dir.join(format!("sandboxes/{sandbox}/containers/{container}/0/state.json"));
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    value["shim"]["pid"].as_i64().unwrap() as i32
}

#[test]
fn a_second_daemon_takes_over_what_the_first_one_started() {
    as_root(|world| async move {
        let (sandbox, container) = world.start(FOREVER).await;
        let before = world.observe(&sandbox.id).await;
        let second = world.second_daemon();
        assert_eq!(observe(&second, &sandbox.id).await.unwrap(), before);
        assert_eq!(second.container_start(&sandbox.id, &container).await.unwrap(), Change::Unchanged);
        let argv = vec!["/bin/sh".into(), "-c".into(), "echo still here".into()];
        assert_eq!(exec(&second, &sandbox.id, &container.name, argv, b"").await.1, "still here\n");
        let _ = second.container_signal(&sandbox.id, &container.name, 0, Signal::Sigterm).await.unwrap();
        let observed = world.until_exit(&sandbox.id, &container.name).await;
        assert_eq!(code(&observed), 9);
        assert!(observed.stop.is_some_and(|s| !s.killed));
        assert_eq!(world.log(&container), ["stdout F up", "stdout F down"]);
        world.destroy(&sandbox).await;
    });
}

/// /var/run is a link on most systems; the kernel's table of mounts knows none.
#[test]
fn a_run_directory_behind_a_link_is_the_same_one() {
    as_root(|world| async move {
        let (sandbox, container) = world.start(FOREVER).await;
        let before = world.observe(&sandbox.id).await;
        let link = world.dir.path().join("link");
        std::os::unix::fs::symlink(&world.options.run_dir, &link).unwrap();
        let options = reddwarf_linux::LinuxOptions { run_dir: link, ..world.options.clone() };
        let second = LinuxHost::new(options, Arc::new(SystemClock)).unwrap();
        assert_eq!(observe(&second, &sandbox.id).await.unwrap(), before);
        assert_eq!(second.sandbox_ensure(&sandbox).await.unwrap(), Change::Unchanged);
        assert_eq!(second.container_start(&sandbox.id, &container).await.unwrap(), Change::Unchanged);
        let private = std::fs::canonicalize(world.options.run_dir.join("private")).unwrap();
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let mounts = table.lines().filter(|line| line.contains(&format!(" {} ", private.display()))).count();
        assert_eq!(mounts, 1, "not one more with each daemon");
        world.destroy(&sandbox).await;
    });
}

#[test]
fn a_shim_does_not_mind_the_daemons_signals() {
    as_root(|world| async move {
        let (sandbox, container) = world.start(FOREVER).await;
        let shim = shim_of(&world, sandbox.id.as_str());
        let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(shim))).unwrap();
        assert_eq!(session.as_raw(), shim, "a session of its own");
        for signal in [nix::sys::signal::SIGHUP, nix::sys::signal::SIGTERM, nix::sys::signal::SIGINT] {
            kill(shim, signal);
        }
        let cgroup = std::fs::read_to_string(format!("/proc/{shim}/cgroup")).unwrap();
        assert!(cgroup.contains(&format!("/{}/shims", world.options.instance)), "outside of the daemon's: {cgroup}");
        let observed = world.instance(&sandbox.id, &container.name).await;
        assert!(matches!(observed.state, ContainerState::Running { .. }));
        world.destroy(&sandbox).await;
    });
}

#[test]
fn a_killed_shim_is_a_lost_container_whose_processes_are_ended() {
    as_root(|world| async move {
        let (sandbox, container) = world.start(FOREVER).await;
        let ContainerState::Running { pid, .. } = world.instance(&sandbox.id, &container.name).await.state else {
            panic!("not running")
        };
        let _ = world.until_log(&container, "up").await;
        kill(shim_of(&world, sandbox.id.as_str()), nix::sys::signal::SIGKILL);
        let observed = world
            .until(&sandbox.id, &container.name, |s| matches!(s, ContainerState::Lost(why) if why.contains("gone")))
            .await;
        assert!(!observed.oom_killed, "nothing is made up");
        assert!(!std::path::Path::new(&format!("/proc/{pid}/root/etc")).exists(), "nobody runs unwatched");
        // Made sure of, it has ended, and its log is there to be read.
        let _ = world.host.container_signal(&sandbox.id, &container.name, 0, Signal::Sigkill).await.unwrap();
        let observed = world.instance(&sandbox.id, &container.name).await;
        assert!(observed.lost && code(&observed) == 137, "{observed:?}");
        assert_eq!(world.log(&container), ["stdout F up"]);
        // The next attempt may start, the lost one be removed.
        let mut next = container.clone();
        next.attempt = 1;
        assert!(matches!(world.host.container_start(&sandbox.id, &next).await.unwrap(), Change::Changed(_)));
        let _ = world.host.container_remove(&sandbox.id, &container.name, 0).await.unwrap();
        world.destroy(&sandbox).await;
    });
}

#[test]
fn a_shim_that_died_while_no_daemon_ran_is_noticed_by_the_next_one() {
    as_root(|world| async move {
        let (sandbox, container) = world.start(FOREVER).await;
        let shim = shim_of(&world, sandbox.id.as_str());
        let options = world.options.clone();
        let ContainerState::Running { pid, .. } = world.instance(&sandbox.id, &container.name).await.state else {
            panic!("not running")
        };
        // The first daemon stops watching, as if it had ended.
        let crate::support::World { dir, host, .. } = world;
        drop(host);
        kill(shim, nix::sys::signal::SIGKILL);
        let host = LinuxHost::new(options, Arc::new(SystemClock)).unwrap();
        let deadline = Instant::now() + patience(Duration::from_secs(10));
        while std::path::Path::new(&format!("/proc/{pid}/root/etc")).exists() {
            assert!(Instant::now() < deadline, "runs unwatched");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let _ = host.sandbox_stop(&sandbox.id).await.unwrap();
        let _ = host.sandbox_destroy(&sandbox.id).await.unwrap();
        assert_eq!(host.observe().await.leftovers, []);
        drop(dir);
    });
}

#[test]
fn a_container_that_ignores_everything_is_killed_with_its_sandbox() {
    as_root(|world| async move {
        let (sandbox, _) =
            world.start("trap '' TERM INT HUP; sleep 1000000 & sleep 1000000 & while :; do wait; done").await;
        let error = world.host.sandbox_destroy(&sandbox.id).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::InvalidState);
        let begun = Instant::now();
        let _ = world.host.sandbox_stop(&sandbox.id).await.unwrap();
        assert!(begun.elapsed() < patience(Duration::from_secs(5)));
        let observed = world.observe(&sandbox.id).await;
        assert_eq!(observed.state, SandboxState::Stopped);
        assert_eq!(code(observed.containers.values().next().unwrap().last().unwrap()), 137);
        // And up again.
        assert!(matches!(world.host.sandbox_ensure(&sandbox).await.unwrap(), Change::Changed(_)));
        assert_eq!(world.observe(&sandbox.id).await.state, SandboxState::Running);
        world.destroy(&sandbox).await;
        let deadline = Instant::now() + patience(Duration::from_secs(5));
        while !cgroup_pids(&world.options.instance).is_empty() {
            assert!(Instant::now() < deadline, "processes left");
        }
    });
}

#[test]
fn creation_killed_at_any_moment_is_finished_by_a_repeat_and_leaves_nothing() {
    as_root(|world| async move {
        for delay_us in [0, 300, 1000, 2000, 4000, 7000, 11_000, 16_000, 25_000, 40_000] {
            let sandbox = world.sandbox();
            let container = world.shell(&sandbox, "app", FOREVER);
            let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
            let host = world.host.clone();
            let (id, spec) = (sandbox.id.clone(), container.clone());
            let start = tokio::spawn(async move { host.container_start(&id, &spec).await });
            tokio::time::sleep(Duration::from_micros(delay_us)).await;
            // The daemon dies (its call breaks off) and so does every shim and creator that it began.
            start.abort();
            for pid in cgroup_pids(&world.options.instance) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
            }
            let second = world.second_daemon();
            let result = second.container_start(&sandbox.id, &container).await;
            let observed = observe(&second, &sandbox.id).await.unwrap();
            let state = &observed.containers.get(&container.name).unwrap().last().unwrap().state;
            match result {
                Ok(_) => assert!(
                    matches!(
                        state,
                        ContainerState::Running { .. } | ContainerState::Lost(_) | ContainerState::Exited { .. }
                    ),
                    "after {delay_us} µs: {state:?}"
                ),
                Err(e) => panic!("after {delay_us} µs: {e}"),
            }
            world.destroy(&sandbox).await;
        }
    });
}

#[test]
fn what_is_taken_away_behind_our_back_is_seen_and_repaired() {
    as_root(|world| async move {
        let sandbox = world.sandbox();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let pinned = world.options.run_dir.join("private/ns").join(sandbox.id.as_str()).join("ipc");
        nix::mount::umount2(&pinned, nix::mount::MntFlags::MNT_DETACH).unwrap();
        assert!(
            matches!(world.observe(&sandbox.id).await.state, SandboxState::Partial(why) if why.contains("namespaces"))
        );
        assert!(matches!(world.host.sandbox_ensure(&sandbox).await.unwrap(), Change::Changed(_)));
        assert_eq!(world.observe(&sandbox.id).await.state, SandboxState::Running);
        world.destroy(&sandbox).await;
    });
}

/// As the node does, again and again: a shim whose records are gone ends by itself, and its lock goes then.
async fn clear_leftovers(world: &World) {
    let deadline = Instant::now() + patience(Duration::from_secs(5));
    loop {
        let left = world.host.observe().await.leftovers;
        for leftover in &left {
            let _ = world.host.leftover_remove(leftover).await;
        }
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{left:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn leftovers_are_named_and_removed() {
    as_root(|world| async move {
        let (sandbox, _) = world.start(FOREVER).await;
        // The record is lost; everything else stays.
        std::fs::remove_dir_all(world.options.run_dir.join("sandboxes").join(sandbox.id.as_str())).unwrap();
        let leftovers = world.host.observe().await.leftovers;
        let kinds: Vec<&str> = leftovers.iter().map(|l| l.kind.as_str()).collect();
        assert_eq!(kinds, ["cgroup", "directory", "mount"]);
        for leftover in &leftovers {
            let _ = world.host.leftover_remove(leftover).await.unwrap();
        }
        clear_leftovers(&world).await;
        world.assert_nothing_left(&sandbox.id).await;
    });
}

#[test]
fn what_no_record_tells_of_does_not_run_beside_what_is_started_anew() {
    as_root(|world| async move {
        let (sandbox, first) = world.start("exec sleep 1000000").await;
        let before = cgroup_pids(&world.options.instance).len();
        std::fs::remove_dir_all(world.options.run_dir.join("sandboxes").join(sandbox.id.as_str())).unwrap();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let next = ContainerSpec { attempt: first.attempt + 1, ..first };
        let _ = world.host.container_start(&sandbox.id, &next).await.unwrap();
        let deadline = Instant::now() + patience(Duration::from_secs(5));
        // The first one's shim ends by itself.
        while cgroup_pids(&world.options.instance).len() > before {
            assert!(Instant::now() < deadline, "one instance, not two");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let _ = world.host.sandbox_stop(&sandbox.id).await.unwrap();
        let _ = world.host.sandbox_destroy(&sandbox.id).await.unwrap();
        clear_leftovers(&world).await;
        world.assert_nothing_left(&sandbox.id).await;
    });
}
