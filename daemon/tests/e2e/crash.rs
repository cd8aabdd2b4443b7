//! kill -9, restarts, lost and damaged databases: pods never notice, nothing leaks.

use crate::harness::{World, is_ready, run, skip};
use crate::pods::{FOREVER, pod, script};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

fn identity(world: &World) -> BTreeMap<String, (String, String)> {
    let list = world.json(&["get", "pods", "-A", "-o", "json"]);
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p: &Value| {
            let status = &p["status"];
            let name = p["metadata"]["name"].as_str().unwrap().to_owned();
            (
                name,
                (
                    status["podIP"].to_string(),
                    status["containerStatuses"][0]["containerID"].to_string()
                        + &status["containerStatuses"][0]["restartCount"].to_string(),
                ),
            )
        })
        .collect()
}

#[test]
fn restart_term_and_kill_9_of_the_daemon_touch_no_pod() {
    if skip() {
        return;
    }
    let mut world = World::started("restart");
    for name in ["a", "b", "c"] {
        world.file(&format!("{name}.yaml"), &script(name, FOREVER));
    }
    for name in ["a", "b", "c"] {
        world.ready(name);
    }
    let before = identity(&world);
    let took = world.stop();
    assert!(took < Duration::from_secs(5), "SIGTERM took {took:?}");
    assert!(world.traces().iter().filter(|t| t.starts_with("process")).count() >= 3, "pods go on without the daemon");
    world.start();
    for name in ["a", "b", "c"] {
        world.ready(name);
    }
    assert_eq!(identity(&world), before);
    for _ in 0..5 {
        world.kill9();
        world.start();
        for name in ["a", "b", "c"] {
            world.ready(name);
        }
        assert_eq!(identity(&world), before);
    }
    assert_eq!(world.ctl(&["logs", "a"]).ok(), "up\n", "no line lost or doubled");
    // What ends while nobody looks is known afterwards.
    world.kill9();
    let pids = std::fs::read_dir("/proc").unwrap().flatten().count();
    assert!(pids > 0);
    world.start();
    world.remove("b.yaml");
    world.gone("b");
}

#[test]
fn kill_9_at_random_moments_under_churn_leaks_nothing_and_restarts_nothing() {
    if skip() {
        return;
    }
    let mut world = World::started("churn");
    let seed =
        std::env::var("REDDWARF_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| std::process::id().into());
    println!("REDDWARF_SEED={seed}");
    let mut state: u64 = seed;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    world.file("steady.yaml", &script("steady", FOREVER));
    world.ready("steady");
    let steady = identity(&world)["steady"].clone();
    let rounds = std::env::var("REDDWARF_CHURN_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(20);
    for round in 0..rounds {
        for _ in 0..3 {
            let name = format!("p{}", random(5));
            let path = world.manifests.join(format!("{name}.yaml"));
            match random(3) {
                0 if path.exists() => std::fs::remove_file(path).unwrap(),
                1 => world.file(
                    &format!("{name}.yaml"),
                    &pod(&name, "", "[sh, -c, 'exec sleep 1000']", &format!("env: [{{name: R, value: r{round}}}]")),
                ),
                _ => world.file(&format!("{name}.yaml"), &script(&name, "exec sleep 1000")),
            }
        }
        std::thread::sleep(Duration::from_millis(random(250)));
        world.kill9();
        world.start();
    }
    let wanted: Vec<String> = std::fs::read_dir(&world.manifests)
        .unwrap()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().trim_end_matches(".yaml").to_owned())
        .collect();
    world.within(Duration::from_secs(60), "exactly the wanted pods, all ready", |w| {
        let list = w.json(&["get", "pods", "-A", "-o", "json"]);
        let items = list["items"].as_array().unwrap();
        // By name: as many there may be before the daemon has read what changed while it was dead.
        let is_wanted = |p: &Value| wanted.iter().any(|name| p["metadata"]["name"] == name.as_str());
        (items.len() == wanted.len() && items.iter().all(|p| is_wanted(p) && is_ready(p))).then_some(())
    });
    assert_eq!(identity(&world)["steady"], steady, "an untouched pod is never restarted");
    let mut addresses: Vec<String> = identity(&world).into_values().map(|(ip, _)| ip).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), wanted.len(), "one address each");
    for name in &wanted {
        world.remove(&format!("{name}.yaml"));
    }
    world.ctl(&["reconcile", "--allow-prune"]).ok();
    for name in &wanted {
        world.within(Duration::from_secs(60), "all gone", |w| (w.ctl(&["get", "pod", name]).code == 4).then_some(()));
    }
    world.until("no trace", |w| w.traces().is_empty().then_some(()));
    world.file("again.yaml", &script("again", FOREVER));
    world.ready("again");
}

#[test]
fn a_damaged_database_is_moved_aside_and_what_runs_is_adopted() {
    if skip() {
        return;
    }
    let mut world = World::started("damaged");
    world.file("web.yaml", &script("web", FOREVER));
    world.ready("web");
    let before = identity(&world);
    let before_pids = world.exec("web", &["sh", "-c", "cat /proc/1/stat | cut -d' ' -f22"]).ok();
    world.stop();
    let state = world.dir.join("state");
    let db = std::fs::read_dir(&state)
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "redb"))
        .expect("a database");
    let file = std::fs::File::options().write(true).open(&db).unwrap();
    std::io::Write::write_all(&mut &file, &[0xA5; 8192]).unwrap();
    file.set_len(9000).unwrap();
    drop(file);
    world.start();
    world.ready("web");
    assert_eq!(
        world.exec("web", &["sh", "-c", "cat /proc/1/stat | cut -d' ' -f22"]).ok(),
        before_pids,
        "the same process"
    );
    assert_eq!(identity(&world)["web"].0, before["web"].0, "the same address");
    let aside =
        std::fs::read_dir(&state).unwrap().flatten().any(|e| e.file_name().to_string_lossy().contains("corrupt"));
    assert!(aside, "the damaged file is kept");
    assert!(world.log().to_lowercase().contains("corrupt"), "said loudly");
}

#[test]
fn a_shim_that_is_killed_is_not_taken_for_a_running_container() {
    if skip() {
        return;
    }
    let world = World::started("shim");
    world.file("web.yaml", &script("web", FOREVER));
    world.ready("web");
    let shim = world.traces().into_iter().find(|t| t.starts_with("process") && t.contains("__shim")).expect("a shim");
    let pid = shim.split(' ').nth(1).unwrap().to_owned();
    run("kill", &["-9", &pid]).ok();
    world.until("a new start", |w| {
        w.pod("web").filter(|p| p["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1) && is_ready(p))
    });
    let shims = world.traces().into_iter().filter(|t| t.starts_with("process") && t.contains("__shim")).count();
    assert_eq!(shims, 1);
}

#[test]
fn two_daemons_on_one_machine_mind_their_own_business() {
    if skip() {
        return;
    }
    let one = World::started("one");
    let two = World::started("two");
    one.file("web.yaml", &script("web", FOREVER));
    two.file("web.yaml", &script("web", FOREVER));
    one.ready("web");
    two.ready("web");
    one.remove("web.yaml");
    one.gone("web");
    assert!(is_ready(&two.pod("web").unwrap()));
    // A second daemon on the same directories is refused with a reason.
    let mut command = one.command();
    let out = command.output().unwrap();
    assert_ne!(out.status.code(), Some(0));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("already") || said.contains("in use") || said.contains("another"), "{said}");
}

#[test]
fn a_bridge_that_is_not_ours_is_refused_and_untouched() {
    if skip() {
        return;
    }
    let mut world = World::new("foreign");
    run("ip", &["-n", &world.name, "link", "add", &world.bridge, "type", "bridge"]).ok();
    run("ip", &["-n", &world.name, "addr", "add", "203.0.113.1/24", "dev", &world.bridge]).ok();
    let before = run("ip", &["-n", &world.name, "-j", "addr", "show", &world.bridge]).ok();
    world.spawn();
    world.file("web.yaml", &script("web", FOREVER));
    world.until("the refusal", |w| {
        let said = w.ctl(&["status"]);
        (said.code == 3 && said.out.contains(&w.bridge)).then_some(())
    });
    assert_eq!(run("ip", &["-n", &world.name, "-j", "addr", "show", &world.bridge]).ok(), before);
}

#[test]
fn a_flushed_firewall_table_is_put_back() {
    if skip() {
        return;
    }
    let world = World::started("flush");
    world.file("web.yaml", &script("web", FOREVER));
    world.ready("web");
    let rules =
        |w: &World| run("nsenter", &[&format!("--net=/run/netns/{}", w.name), "--", "nft", "list", "ruleset"]).out;
    assert!(rules(&world).contains("masquerade"));
    run("nsenter", &[&format!("--net=/run/netns/{}", world.name), "--", "nft", "flush", "ruleset"]).ok();
    world.ctl(&["reconcile"]).ok();
    world.until("the table", |w| rules(w).contains("masquerade").then_some(()));
}
