//! Order and ends of containers on real ones: what the fake host's goldens say, and what only real processes show.

use crate::harness::{World, is_ready, skip};
use crate::pods::{FOREVER, script};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

#[path = "../../node/tests/support/statuses.rs"]
mod scripted;

fn manifest(name: &str, spec: &Value) -> String {
    let annotations = json!({"reddwarf.io/zone-brand": "sparse"});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations}, "spec": spec})
        .to_string()
}

fn sh(name: &str, script: &str) -> Value {
    json!({"name": name, "command": ["sh", "-c", script]})
}

fn sidecar(name: &str, script: &str) -> Value {
    json!({"name": name, "command": ["sh", "-c", script], "restartPolicy": "Always"})
}

/// A container's lines with their times, which are of one clock and compare as text.
fn log(world: &World, pod: &str, container: &str) -> Vec<(String, String)> {
    let text = world.ctl(&["logs", pod, "-c", container, "--timestamps"]).ok();
    text.lines().filter_map(|l| l.split_once(' ')).map(|(time, line)| (line.to_owned(), time.to_owned())).collect()
}

/// When a container said this.
#[track_caller]
fn said(log: &[(String, String)], line: &str) -> String {
    log.iter().find(|(said, _)| said == line).unwrap_or_else(|| panic!("{line:?} in {log:?}")).1.clone()
}

fn events(world: &World, pod: &str) -> Vec<(String, String, String)> {
    let list = world.json(&["get", "events", "-o", "json"]);
    let own = list["items"].as_array().unwrap().iter().filter(|e| e["involvedObject"]["name"] == pod);
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    own.map(|e| (text(&e["reason"]), text(&e["message"]), text(&e["involvedObject"]["fieldPath"]))).collect()
}

#[test]
fn real_containers_come_to_the_same_statuses_as_the_fake_hosts() {
    if skip() {
        return;
    }
    let world = World::started("statuses");
    let all = scripted::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("node/tests/statuses"));
    for one in &all {
        world.file(&format!("{}.yaml", one.name), &manifest(&one.name, &one.spec));
    }
    let mut seen = BTreeMap::new();
    let began = Instant::now();
    while seen.len() < all.len() && began.elapsed() < Duration::from_secs(60) {
        let pods = world.json(&["get", "pods", "-o", "json"]);
        for one in &all {
            if seen.contains_key(&one.name) {
                continue;
            }
            let pod = pods["items"].as_array().unwrap().iter().find(|p| p["metadata"]["name"] == *one.name);
            if let Some(pod) = pod.filter(|p| one.is_there(p)) {
                seen.insert(one.name.clone(), pod.clone());
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let missing: Vec<_> = all.iter().filter(|one| !seen.contains_key(&one.name)).collect();
    for one in &missing {
        eprintln!("never there: {} {:#}", one.name, world.pod(&one.name).unwrap_or_default()["status"]);
    }
    assert!(missing.is_empty());
    let differences: Vec<_> = all.iter().filter_map(|one| one.difference(&seen[&one.name], false)).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    // What the goldens leave out.
    let deadline = world.pod("deadline").unwrap();
    let told = events(&world, "deadline");
    let message = deadline["status"]["message"].as_str().unwrap().to_owned();
    assert!(told.contains(&("DeadlineExceeded".into(), message, String::new())), "{told:?}");
    let told = events(&world, "start-error");
    let failed = told.iter().find(|e| e.0 == "Failed").unwrap();
    assert!(failed.1.contains("no such file or directory") && failed.2 == "spec.containers{main}", "{failed:?}");
    let told = events(&world, "crash-loop");
    let backoff = told.iter().find(|e| e.0 == "BackOff").unwrap();
    assert!(backoff.1.starts_with("Back-off restarting failed container main in pod crash-loop_default("), "{told:?}");
}

#[test]
fn containers_start_in_order_share_the_pod_and_sidecars_go_last() {
    if skip() {
        return;
    }
    let world = World::started("order");
    let stops = |name: &str| format!("echo {name}; trap 'echo {name} over; exit 0' TERM; while :; do sleep 0.05; done");
    let serve = "echo second; trap 'sleep 0.3; echo second over; exit 3' TERM; busybox httpd -f -p 8080 -h /work & while :; do sleep 0.05; done";
    let work = |mut container: Value| {
        container["volumeMounts"] = json!([{"name": "work", "mountPath": "/work"}]);
        container
    };
    world.file(
        "job.yaml",
        &manifest(
            "job",
            &json!({
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "volumes": [{"name": "work", "emptyDir": {}}],
                "initContainers": [
                    work(sh("one", "sleep 0.2; echo one | tee /work/order")),
                    work(sidecar("first", &stops("first"))),
                    work(sh("two", "echo two; echo two >> /work/order")),
                    work(sidecar("second", serve)),
                ],
                "containers": [
                    work(sh("app", "echo app; until curl -sf http://127.0.0.1:8080/order; do sleep 0.1; done; echo app over")),
                    work(sh("other", "echo other; sleep 1; echo other over")),
                ],
            }),
        ),
    );
    let pod = world.until("success", |w| w.pod("job").filter(|p| p["status"]["phase"] == "Succeeded"));
    let logs: BTreeMap<_, _> =
        ["one", "first", "two", "second", "app", "other"].map(|name| (name, log(&world, "job", name))).into();
    let begun = ["one", "first", "two", "second", "app"].map(|name| said(&logs[name], name));
    assert!(begun.is_sorted(), "{begun:?}");
    assert!(begun[3] < said(&logs["other"], "other"));
    let over = [("other", "other over"), ("second", "second over"), ("first", "first over")];
    let over = over.map(|(name, line)| said(&logs[name], line));
    assert!(over.is_sorted() && said(&logs["app"], "app over") < over[1], "{over:?}");
    said(&logs["app"], "one");
    said(&logs["app"], "two");
    let second = &pod["status"]["initContainerStatuses"][3];
    assert_eq!(second["state"]["terminated"]["exitCode"], 3, "{second:#}");
    assert_eq!(world.ctl(&["get", "pod", "job", "-o", "jsonpath={.status.phase}"]).ok().trim(), "Succeeded");
}

#[test]
fn delays_grow_and_a_child_out_of_memory_is_told_from_an_error() {
    if skip() {
        return;
    }
    let world = World::started("delays");
    world.file("crash.yaml", &script("crash", "echo up; exit 1"));
    let hog = json!({"name": "main", "command": ["sh", "-c", "tail -n1 /dev/zero; exit 5"], "resources": {"limits": {"memory": "32Mi"}}});
    world.file("hog.yaml", &manifest("hog", &json!({"restartPolicy": "Never", "containers": [hog]})));
    let pod = world.until("the hog's end", |w| w.pod("hog").filter(|p| p["status"]["phase"] == "Failed"));
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(ended["reason"], "OOMKilled", "{ended:#}");
    let of = |w: &World| w.pod("crash").map(|p| p["status"]["containerStatuses"][0].clone()).unwrap_or_default();
    let time = |v: &Value| chrono::DateTime::parse_from_rfc3339(v.as_str().unwrap_or_default()).unwrap();
    let mut waits = Vec::new();
    let mut ends: BTreeMap<u64, Value> = BTreeMap::new();
    world.within(Duration::from_secs(40), "two restarts", |w| {
        let status = of(w);
        for state in ["state", "lastState"] {
            let ended = &status[state]["terminated"];
            let restarts = status["restartCount"].as_u64().unwrap_or_default();
            let attempt = ended["containerID"].as_str().and_then(|id| id.rsplit('/').next()?.parse().ok());
            ends.entry(attempt.unwrap_or(restarts + 100)).or_insert_with(|| ended.clone());
        }
        (ends.contains_key(&2)).then_some(())
    });
    for (before, after) in [(0, 1), (1, 2)] {
        waits.push((time(&ends[&after]["startedAt"]) - time(&ends[&before]["finishedAt"])).num_seconds());
    }
    let slow = i64::from(crate::client::slowness());
    assert!(waits[0] <= 2 * slow && (9..=13 * slow).contains(&waits[1]), "at once, then after 10 s: {waits:?}");
    let waiting = world.until("the next wait", |w| {
        let text = of(w)["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned();
        text.starts_with("back-off 20s restarting failed container=main pod=crash_default(").then_some(text)
    });
    assert!(waiting.ends_with(')'), "{waiting}");
}

#[test]
fn deletion_comes_through_at_every_moment() {
    if skip() {
        return;
    }
    let world = World::started("deletion");
    let ignores = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    let slow = json!({"terminationGracePeriodSeconds": 2, "initContainers": [sh("first", ignores)], "containers": [sh("main", FOREVER)]});
    // While it is being made, while its init container runs, and in a crash loop.
    world.file("early.yaml", &manifest("early", &slow));
    world.until("it is seen", |w| w.pod("early"));
    world.remove("early.yaml");
    world.gone("early");
    world.file("init.yaml", &manifest("init", &slow));
    world.until("its init container", |w| {
        w.pod("init").filter(|p| p["status"]["initContainerStatuses"][0]["state"]["running"].is_object())
    });
    let began = Instant::now();
    world.remove("init.yaml");
    world.gone("init");
    assert!((2..6).contains(&began.elapsed().as_secs()), "its grace: {:?}", began.elapsed());
    world.file("crash.yaml", &script("crash", "exit 1"));
    world.until("back-off", |w| {
        w.pod("crash")
            .filter(|p| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff")
    });
    world.remove("crash.yaml");
    world.gone("crash");

    // Through the API, with a grace of its own, with none at all, and shortened while it runs.
    for (name, arguments, most) in
        [("zero", &["--grace-period=0"][..], 4), ("force", &["--force"], 4), ("one", &["--grace-period=1"], 5)]
    {
        let mut value: Value =
            serde_json::from_str(&manifest(name, &json!({"containers": [sh("main", ignores)]}))).unwrap();
        value["spec"]["terminationGracePeriodSeconds"] = json!(60);
        let file = world.dir.join(format!("{name}.json"));
        std::fs::write(&file, value.to_string()).unwrap();
        world.ctl(&["apply", "-f", file.to_str().unwrap()]).ok();
        world.ready(name);
        let began = Instant::now();
        let mut all = vec!["delete", "pod", name];
        all.extend_from_slice(arguments);
        world.ctl(&all).ok();
        world.gone(name);
        assert!(began.elapsed() < Duration::from_secs(most), "{name}: {:?}", began.elapsed());
        world.until("nothing left of it", |w| {
            let traces = w.traces();
            (!traces.iter().any(|t| t.contains(&format!("-{name}-")))).then_some(())
        });
    }
}

#[test]
fn a_restart_by_hand_is_a_restart_and_last_words_reach_the_user() {
    if skip() {
        return;
    }
    let world = World::started("restart");
    let speaks = "trap 'echo bye > /tmp/words; exit 7' TERM; echo up; while :; do sleep 0.05; done";
    let mut main = sh("main", speaks);
    main["terminationMessagePath"] = json!("/tmp/words");
    world.file(
        "web.yaml",
        &manifest("web", &json!({"terminationGracePeriodSeconds": 3, "containers": [main, sh("other", FOREVER)]})),
    );
    world.ready("web");
    world.until("it listens", |w| w.ctl(&["logs", "web", "-c", "main"]).out.contains("up").then_some(()));
    world.ctl(&["restart", "pod/web", "-c", "main"]).ok();
    let pod = world.until("the restart", |w| {
        w.pod("web").filter(|p| p["status"]["containerStatuses"][0]["restartCount"] == 1 && is_ready(p))
    });
    let main = &pod["status"]["containerStatuses"][0];
    let last = &main["lastState"]["terminated"];
    assert_eq!(
        (&last["exitCode"], &last["message"], &last["reason"]),
        (&json!(7), &json!("bye\n"), &json!("Error")),
        "{main:#}"
    );
    assert_eq!(pod["status"]["containerStatuses"][1]["restartCount"], 0);
    assert!(events(&world, "web").iter().any(|e| e.0 == "Killing" && e.1 == "Stopping container main"));
    // The file is the container's, not the pod's: the next one begins with none.
    assert_eq!(world.ctl(&["exec", "web", "-c", "main", "--", "cat", "/tmp/words"]).ok(), "");
}
