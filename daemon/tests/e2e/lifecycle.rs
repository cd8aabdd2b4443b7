//! Restarts, back-off, graceful ends, changes in place and by restart.

use crate::harness::{World, skip};
use crate::pods::{FOREVER, pod, script};
use serde_json::Value;
use std::time::{Duration, Instant};

fn container_id(pod: &Value) -> String {
    pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_crashing_container_backs_off_and_tells_why() {
    if skip() {
        return;
    }
    let world = World::started("crash");
    world.file("bad.yaml", &script("bad", "echo about to fail; exit 3"));
    let pod = world.until("back-off", |w| {
        w.pod("bad").filter(|p| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff")
    });
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 3, "{status:#}");
    assert_eq!(status["lastState"]["terminated"]["reason"], "Error");
    let why = world.ctl(&["why", "pod/bad"]).exits(3).out;
    assert!(why.contains("bad.yaml") && why.contains("main: ended with exit code 3 (Error)"), "{why}");
    assert_eq!(world.ctl(&["status"]).code, 3);
    world.within(Duration::from_secs(30), "the second start", |w| {
        w.pod("bad").filter(|p| p["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1))
    });
}

#[test]
fn a_killed_process_is_started_again_without_waiting_for_the_periodic_pass() {
    if skip() {
        return;
    }
    let world = World::started("killed");
    world.file("web.yaml", &script("web", FOREVER));
    world.ready("web");
    let began = Instant::now();
    // An admin's kill from outside.
    let marker = world.exec("web", &["sh", "-c", "kill -9 1; echo"]);
    drop(marker);
    let _ = world.exec("web", &["sh", "-c", "kill -TERM 1"]);
    world.until("the restart to be seen", |w| {
        w.pod("web").filter(|p| p["status"]["containerStatuses"][0]["restartCount"].as_u64() == Some(1))
    });
    assert!(began.elapsed() < Duration::from_secs(15), "took {:?}", began.elapsed());
}

#[test]
fn completed_pods_stay_completed() {
    if skip() {
        return;
    }
    let world = World::started("once");
    world.file("once.yaml", &pod("once", "restartPolicy: OnFailure,", "[sh, -c, 'echo done']", ""));
    let pod = world.until("success", |w| w.pod("once").filter(|p| p["status"]["phase"] == "Succeeded"));
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(world.ctl(&["logs", "once"]).ok(), "done\n");
}

#[test]
fn a_container_that_ignores_term_is_killed_after_its_grace() {
    if skip() {
        return;
    }
    let world = World::started("grace");
    world.file("deaf.yaml", &script("deaf", "trap '' TERM; echo up; while :; do sleep 0.1; done"));
    world.ready("deaf");
    world.until("the trap", |w| (w.ctl(&["logs", "deaf"]).out == "up\n").then_some(()));
    let began = Instant::now();
    world.remove("deaf.yaml");
    world.gone("deaf");
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1900) && took < Duration::from_secs(8), "grace is 2 s, took {took:?}");
    assert_eq!(world.traces(), Vec::<String>::new());
}

#[test]
fn a_label_changes_nothing_a_limit_changes_in_place_a_command_restarts_a_hostname_recreates() {
    if skip() {
        return;
    }
    let world = World::started("change");
    let text = |label: &str, pod_level: &str, cpu: &str, word: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  labels: {{v: {label}}}\n  annotations: {{reddwarf.io/zone-brand: sparse}}\n\
             spec: {{terminationGracePeriodSeconds: 1, {pod_level} containers: [{{name: main, command: [sh, -c, 'trap exit TERM; echo {word}; while :; do sleep 0.1; done'], resources: {{limits: {{cpu: {cpu}}}}} }}]}}\n"
        )
    };
    world.file("web.yaml", &text("one", "", "500m", "hello"));
    let first = world.ready("web");
    let ip = first["status"]["podIP"].clone();

    world.file("web.yaml", &text("two", "", "500m", "hello"));
    let second = world.until("the label", |w| w.pod("web").filter(|p| p["metadata"]["labels"]["v"] == "two"));
    assert_eq!(container_id(&first), container_id(&second));
    assert_eq!(world.ctl(&["plan"]).code, 0, "a label needs no work on the host");

    world.file("web.yaml", &text("two", "", "250m", "hello"));
    world.until("the quota", |w| {
        let quota = std::fs::read_to_string(find_quota(w)?).ok()?;
        quota.trim().starts_with("25000").then_some(())
    });
    assert_eq!(container_id(&first), container_id(&world.ready("web")));

    let plan_file = world.dir.join("web.yaml");
    std::fs::File::create(&plan_file)
        .and_then(|mut f| std::io::Write::write_all(&mut f, text("two", "", "250m", "goodbye").as_bytes()))
        .unwrap();
    let plan = world.ctl(&["plan", plan_file.to_str().unwrap()]).exits(2);
    assert!(plan.out.contains("web") && plan.out.contains("no command has been executed"), "{}", plan.out);
    assert_eq!(container_id(&first), container_id(&world.pod("web").unwrap()), "plan executes nothing");

    world.file("web.yaml", &text("two", "", "250m", "goodbye"));
    let third = world.until("the restart", |w| {
        w.pod("web").filter(|p| container_id(p) != container_id(&first) && crate::harness::is_ready(p))
    });
    assert_eq!(third["status"]["podIP"], ip, "the sandbox stays");

    world.file("web.yaml", &text("two", "hostname: other,", "250m", "goodbye"));
    world.until("the new host name", |w| (w.exec("web", &["hostname"]).out.trim() == "other").then_some(()));
}

fn find_quota(world: &World) -> Option<std::path::PathBuf> {
    for sandbox in world.cgroups() {
        for entry in std::fs::read_dir(&sandbox).ok()?.flatten().filter(|e| e.path().is_dir()) {
            for name in ["cpu.cfs_quota_us", "cpu.max"] {
                let file = entry.path().join(name);
                if file.exists() && entry.file_name().to_string_lossy().contains("main") {
                    return Some(file);
                }
            }
        }
    }
    None
}

#[test]
fn restart_by_hand_restarts_once() {
    if skip() {
        return;
    }
    let world = World::started("restart");
    world.file("web.yaml", &script("web", FOREVER));
    let first = world.ready("web");
    world.ctl(&["restart", "pod/web"]).ok();
    world.until("the restart", |w| {
        w.pod("web").filter(|p| container_id(p) != container_id(&first) && crate::harness::is_ready(p))
    });
}

#[test]
fn a_pod_with_no_grace_goes_at_once_and_is_shown_until_it_is_gone() {
    if skip() {
        return;
    }
    let world = World::started("nograce");
    let text = script("quick", "trap '' TERM; echo up; while :; do sleep 0.1; done");
    world.file("quick.yaml", &text.replace("terminationGracePeriodSeconds: 2", "terminationGracePeriodSeconds: 0"));
    world.ready("quick");
    let began = Instant::now();
    world.remove("quick.yaml");
    world.gone("quick");
    assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
    assert_eq!(world.traces(), Vec::<String>::new(), "gone means gone");
}
