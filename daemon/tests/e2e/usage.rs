//! What runs is measured, what takes too much goes, and logs are exact however much is written.

use crate::harness::{World, skip};
use crate::pods::{pod, script};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::time::Duration;

/// A quantity of processor in thousandths.
fn millis(cpu: &str) -> f64 {
    let (number, unit) = cpu.split_at(cpu.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(cpu.len()));
    let number: f64 = number.parse().unwrap();
    number
        * match unit {
            "n" => 1e-6,
            "u" => 1e-3,
            "m" => 1.0,
            "" => 1e3,
            other => panic!("{other}"),
        }
}

fn cpu_of(report: &Value, pod: &str) -> Option<f64> {
    let found = report["pods"].as_array()?.iter().find(|p| p["metadata"]["name"] == pod)?;
    Some(millis(found["containers"][0]["usage"]["cpu"].as_str()?))
}

#[test]
fn top_tells_who_burns_and_who_idles_and_disk_limits_are_kept() {
    if skip() {
        return;
    }
    let mut world = World::started("usage");
    world.file("burner.yaml", &script("burner", "trap 'exit 0' TERM; while :; do :; done"));
    world.file("idler.yaml", &script("idler", "trap 'exit 0' TERM; sleep 1000 & wait"));
    world.ready("burner");
    world.ready("idler");
    // Two processors are shared with whatever else this machine does.
    world.until("the burner to be seen", |w| {
        let report = w.json(&["top", "-o", "json"]);
        let node = millis(report["nodes"][0]["usage"]["cpu"].as_str()?);
        (cpu_of(&report, "burner")? > 150.0 && cpu_of(&report, "idler")? < 100.0 && node > 150.0).then_some(())
    });
    let table = world.ctl(&["top", "pod", "--containers"]).ok();
    let first = table.lines().nth(1).unwrap();
    assert!(first.starts_with("burner") && first.contains("main"), "{table}");
    let path = "/api/v1/nodes/node-under-test/proxy/stats/summary";
    let summary: Value = serde_json::from_str(&world.curl(path).ok()).unwrap();
    let burner = summary["pods"].as_array().unwrap().iter().find(|p| p["podRef"]["name"] == "burner").unwrap();
    assert!(burner["cpu"]["usageNanoCores"].as_u64().unwrap() > 100_000_000, "{burner}");
    assert!(burner["network"]["rxBytes"].is_u64() && burner["ephemeral-storage"]["usedBytes"].is_u64(), "{burner}");
    assert!(summary["node"]["memory"]["availableBytes"].as_u64().unwrap() > 0);

    let fill =
        |path: &str| format!("[sh, -c, \"trap 'exit 0' TERM; head -c 4000000 /dev/zero > {path}; sleep 1000 & wait\"]");
    let volume = "volumes: [{name: scratch, emptyDir: {sizeLimit: 1Mi}}],";
    let mount = "volumeMounts: [{name: scratch, mountPath: /scratch}]";
    world.file("volume.yaml", &pod("volume", volume, &fill("/scratch/f"), mount));
    world.file("layer.yaml", &pod("layer", "", &fill("/tmp/f"), "resources: {limits: {ephemeral-storage: 2Mi}}"));
    let evicted = |w: &World, name: &str| {
        let pod = w.pod(name)?;
        (pod["status"]["reason"] == "Evicted").then_some(pod)
    };
    let patience = Duration::from_secs(30);
    let found = world.within(patience, "the volume's pod to be evicted", |w| evicted(w, "volume"));
    assert_eq!(found["status"]["phase"], "Failed");
    assert_eq!(found["status"]["message"], "Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Mi\". ");
    let found = world.within(patience, "the layer's pod to be evicted", |w| evicted(w, "layer"));
    let message = "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ";
    assert_eq!(found["status"]["message"], message);
    // A file wants it: it comes back, and has another try.
    world.within(patience, "the pod to come back", |w| {
        let pod = w.pod("volume")?;
        (pod["status"]["phase"] == "Running" && pod["status"]["containerStatuses"][0]["restartCount"] == 1)
            .then_some(())
    });
    assert!(world.pod("burner").is_some_and(|p| crate::harness::is_ready(&p)), "others are left alone");
    for name in ["burner", "idler", "volume", "layer"] {
        world.remove(&format!("{name}.yaml"));
    }
    for name in ["burner", "idler", "volume", "layer"] {
        world.gone(name);
    }
    assert_eq!(world.traces(), Vec::<String>::new());
    world.stop();
}

#[test]
fn following_a_flood_across_rotations_is_exact_and_logs_go_with_their_pod() {
    if skip() {
        return;
    }
    let mut world = World::new("flood").arg("--log-max-bytes").arg("1000000").arg("--log-max-files").arg("8");
    world.start();
    const LINES: u32 = 150_000;
    let flood = format!("echo begin; sleep 1; seq -f 'line-%.0f and something to make it longer' {LINES}; sleep 1000");
    world.file("flood.yaml", &script("flood", &flood));
    world.ready("flood");
    let mut follower =
        world.ctl_command().args(["logs", "-f", "flood"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let last = format!("line-{LINES} and something to make it longer\n");
    // A log goes with its pod: who is to have all of it must have read it by then.
    let (all_read, (done, read)) = (last.clone(), std::sync::mpsc::channel());
    let out = BufReader::new(follower.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        for line in out.lines() {
            text.push_str(&line.unwrap());
            text.push('\n');
            if text.ends_with(&all_read) {
                let _ = done.send(());
            }
        }
        text
    });
    world.until("the last line", |w| (w.ctl(&["logs", "flood", "--tail", "1"]).out == last).then_some(()));
    let dir = world.dir.join("state/pods-log");
    let pod_dir = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    let files: Vec<_> = std::fs::read_dir(pod_dir.join("main")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(files.len(), 8, "{files:?}");
    for file in &files {
        assert!(std::fs::metadata(file).unwrap().len() <= 1_100_000, "{file:?}");
    }
    // Tails end where the whole ends, across files too.
    let tail = world.ctl(&["logs", "flood", "--tail", "40000"]).ok();
    let expected =
        |from: u32| (from..=LINES).map(|n| format!("line-{n} and something to make it longer\n")).collect::<String>();
    assert!(tail == expected(LINES - 40_000 + 1), "{} bytes", tail.len());
    world.until("the follower to have read all", |_| read.try_recv().ok());
    world.remove("flood.yaml");
    world.gone("flood");
    assert!(follower.wait().unwrap().success());
    let text = reader.join().unwrap();
    let wanted = format!("begin\n{}", expected(1));
    assert!(text == wanted, "{} of {} bytes", text.len(), wanted.len());
    world.until("the logs to be gone", |_| {
        std::fs::read_dir(&dir).map_or(Some(()), |mut d| d.next().is_none().then_some(()))
    });
    world.stop();
}

/// A host that is short of memory, disk and processes because of what it is told to keep free.
#[test]
fn pressure_is_shown_by_the_node_and_who_asked_for_nothing_goes_first() {
    if skip() {
        return;
    }
    let mut world = World::started("pressure");
    let apply = |world: &World, name: &str, resources: &str| {
        let file = world.dir.join(format!("{name}.yaml"));
        let command = "[sh, -c, \"trap 'exit 0' TERM; sleep 1000 & wait\"]";
        std::fs::write(&file, pod(name, "", command, resources)).unwrap();
        world.ctl(&["apply", "-f", file.to_str().unwrap()])
    };
    let all = "{cpu: 100m, memory: 64Mi}";
    apply(&world, "asks", &format!("resources: {{requests: {all}, limits: {all}}}")).ok();
    apply(&world, "takes", "").ok();
    world.ready("asks");
    world.ready("takes");
    world.stop();
    for short in ["memory.available<100Ti", "nodefs.available<100Ti", "pid.available<100000000"] {
        world = world.arg("--eviction-hard").arg(short);
    }
    world.start();
    let gone = world.within(Duration::from_secs(30), "the first eviction", |w| {
        w.pod("takes").filter(|p| p["status"]["reason"] == "Evicted")
    });
    assert_eq!(gone["status"]["phase"], "Failed");
    let message = gone["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("The node was low on resource: "), "{message}");
    let disruption = gone["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "DisruptionTarget");
    assert!(disruption.is_some_and(|c| c["reason"] == "TerminationByKubelet"), "{disruption:?}");
    // One at a time: the other one goes later, if at all by now.
    let when = |pod: &serde_json::Value| {
        let conditions = pod["status"]["conditions"].as_array()?;
        let condition = conditions.iter().find(|c| c["type"] == "DisruptionTarget")?;
        condition["lastTransitionTime"].as_str()?.parse::<chrono::DateTime<chrono::Utc>>().ok()
    };
    let (first, second) = (when(&gone).unwrap(), when(&world.pod("asks").unwrap()));
    assert!(second.is_none_or(|second| (second - first).num_seconds() >= 5), "{first} and {second:?}");
    let node = world.json(&["get", "node", "node-under-test", "-o", "json"]);
    for kind in ["MemoryPressure", "DiskPressure", "PIDPressure"] {
        let conditions = node["status"]["conditions"].as_array().unwrap();
        assert!(conditions.iter().any(|c| c["type"] == kind && c["status"] == "True"), "{kind}: {conditions:#?}");
    }
    for kind in ["memory", "disk", "pid"] {
        let key = format!("node.kubernetes.io/{kind}-pressure");
        let taints = node["spec"]["taints"].as_array().unwrap();
        assert!(taints.iter().any(|t| t["key"] == *key && t["effect"] == "NoSchedule"), "{key}: {taints:#?}");
    }
    let events = world.ctl(&["events"]).ok();
    assert!(events.contains("Evicted") && events.contains("NodeHasInsufficientMemory"), "{events}");
    // Nothing new is placed.
    apply(&world, "late", "").ok();
    let late = world.until("the refusal", |w| {
        let late = w.pod("late")?;
        let why = late["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == "PodScheduled")?.clone();
        (why["status"] == "False").then_some(why)
    });
    assert!(late["message"].as_str().unwrap().contains("taint"), "{late}");
}
