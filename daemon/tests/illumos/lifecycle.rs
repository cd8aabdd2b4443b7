//! A file becomes a zone with processes in it, and everything goes when the file goes.

use crate::harness::{FOREVER, World, pod, script, skip};
use reddwarf_hostsim::state::ZoneState;
use std::time::Duration;

#[test]
fn a_pod_file_becomes_a_zone_and_leaves_nothing() {
    if skip() {
        return;
    }
    let mut world = World::started("pod");
    world.file(
        "web.yaml",
        &pod(
            "web",
            "",
            &format!("[/bin/sh, -c, {FOREVER:?}]"),
            "env: [{name: WORDS, value: \"it's $HOME; \\\"x\\\"\"}]",
        ),
    );
    let seen = world.ready("web");
    assert_eq!(seen["status"]["phase"], "Running");
    assert_eq!(world.in_state(ZoneState::Running), 1);
    let (name, zone) = world.zone("web");
    // As the facts want it: our mark, no autoboot, an address of its own, protected by the system.
    let ip = seen["status"]["podIP"].as_str().unwrap().to_owned();
    assert_eq!(zone.config.global("autoboot"), "false");
    assert_eq!(zone.config.global("ip-type"), "exclusive");
    let net = zone.config.all("net").next().unwrap().clone();
    assert!(net.get("allowed-address").starts_with(&ip), "{net:?}");
    assert_eq!(world.state().links[net.get("physical")].zone.as_deref(), Some(name.as_str()));
    // Looked at from inside.
    assert_eq!(world.exec("web", &["sh", "-c", "echo $WORDS"]).ok(), "it's $HOME; \"x\"\n");
    assert_eq!(world.exec("web", &["sh", "-c", "exit 7"]).code, 7);
    assert_eq!(world.exec("web", &["sh", "-c", "kill -SEGV $$"]).code, 139, "death by a signal is no success");
    assert_eq!(world.ctl(&["logs", "web"]).ok(), "up\n");

    // Another spec: another instance, no trace of the old one.
    let before = world.zone("web").0;
    world.file("web.yaml", &script("web", "echo second; exec sleep 1000"));
    world.until("the second version", |w| (w.ctl(&["logs", "web"]).out.starts_with("second")).then_some(()));
    world.ready("web");
    assert_eq!(world.zones().len(), 1);
    println!("{before} → {}", world.zone("web").0);

    world.remove("web.yaml");
    world.gone("web");
    world.no_traces();
    world.stop();
}

#[test]
fn a_restart_of_the_daemon_touches_nothing() {
    if skip() {
        return;
    }
    let mut world = World::started("restart");
    for name in ["a", "b"] {
        world.file(&format!("{name}.yaml"), &script(name, FOREVER));
    }
    for name in ["a", "b"] {
        world.ready(name);
    }
    let identity = |w: &World| {
        let zones: Vec<_> = w.zones().into_iter().map(|(n, z)| (n, z.id, z.init)).collect();
        let ids: Vec<_> =
            ["a", "b"].map(|p| w.pod(p).unwrap()["status"]["containerStatuses"][0]["containerID"].clone()).into();
        (zones, ids)
    };
    let before = identity(&world);
    for round in 0..3 {
        if round == 0 {
            world.stop()
        } else {
            world.kill9()
        }
        world.lab.forget_transcript().unwrap();
        world.start();
        for name in ["a", "b"] {
            world.ready(name);
        }
        std::thread::sleep(Duration::from_millis(2500));
        assert_eq!(identity(&world), before);
        let changing: Vec<_> = world
            .calls()
            .into_iter()
            .filter(|l| l.changing && !matches!(l.tool.as_str(), "zlogin" | "ipadm"))
            .map(|l| format!("{} {}", l.tool, l.argv.join(" ")))
            .collect();
        assert!(changing.is_empty(), "a start changes nothing that is right: {changing:#?}");
    }
    assert_eq!(world.ctl(&["logs", "a"]).ok(), "up\n", "no line lost or doubled");
    // What ends while nobody looks is known afterwards.
    world.stop();
    let (name, _) = world.zone("a");
    world.lab.run("zoneadm", &["-z", &name, "halt"]).unwrap();
    world.start();
    world.until("the zone to be back", |w| (w.zone("a").1.state == ZoneState::Running).then_some(()));
    world.ready("a");
    for name in ["a", "b"] {
        world.remove(&format!("{name}.yaml"));
    }
    world.no_traces();
}

#[test]
fn several_containers_share_a_zone_and_end_in_order() {
    if skip() {
        return;
    }
    let world = World::started("several");
    world.file(
        "pair.yaml",
        r#"
apiVersion: v1
kind: Pod
metadata: {name: pair, annotations: {reddwarf.io/zone-brand: sparse}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
    - {name: one, command: [/bin/sh, -c, "echo one >> /work/order"], volumeMounts: [{name: work, mountPath: /work}]}
    - {name: two, command: [/bin/sh, -c, "echo two >> /work/order"], volumeMounts: [{name: work, mountPath: /work}]}
  containers:
    - {name: first, command: [/bin/sh, -c, "exec sleep 1000"], volumeMounts: [{name: work, mountPath: /work}]}
    - {name: other, command: [/bin/sh, -c, "exec sleep 1000"], volumeMounts: [{name: work, mountPath: /work}]}
  volumes: [{name: work, emptyDir: {}}]
"#,
    );
    let pod = world.ready("pair");
    assert_eq!(pod["status"]["initContainerStatuses"][1]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(world.zones().len(), 1);
    let said = world.ctl(&["exec", "pair", "-c", "other", "--", "cat", "/work/order"]).ok();
    assert_eq!(said, "one\ntwo\n");
    world.remove("pair.yaml");
    world.gone("pair");
    world.no_traces();
}

#[test]
fn a_reboot_of_the_machine_brings_pods_back() {
    if skip() {
        return;
    }
    let mut world = World::started("reboot");
    world.file("a.yaml", &script("a", FOREVER));
    world.ready("a");
    let before = world.zone("a").0;
    world.kill9();
    // Temporary links, addresses and rules are gone, so is what /var/run held; zones are installed.
    world.lab.reboot().unwrap();
    std::fs::remove_dir_all(world.lab.dir().join("root/var/run/reddwarf")).unwrap();
    world.start();
    world.until("the zone to be back", |w| (w.zone("a").1.state == ZoneState::Running).then_some(()));
    world.ready("a");
    assert_eq!(world.zone("a").0, before, "the same zone");
    world.remove("a.yaml");
    world.gone("a");
    world.no_traces();
}

/// The page for operators: its pod runs, and what it says of names is so.
#[test]
fn the_page_for_operators_holds() {
    if skip() {
        return;
    }
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/illumos.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("```yaml\n").unwrap();
    let manifest = rest.split_once("```").unwrap().0;
    let world = World::started("page");
    world.file("web.yaml", manifest);
    world.ready("web");
    let (name, zone) = world.zone("web");
    assert_eq!(world.exec("web", &["/.hostsim/bin/zonename"]).ok().trim(), name);
    let state = world.state();
    let net = zone.config.all("net").next().unwrap().get("physical").to_owned();
    assert!(net.starts_with("rw") && net.ends_with('0') && state.links.contains_key(&net), "{net}");
    assert!(state.zones.keys().any(|z| z.ends_with("-golden-sparse")), "{:?}", state.zones.keys());
    // A daemon beside the host's own: a name of its own.
    assert!(state.links.keys().any(|link| link.starts_with("rwgw") && link != "rwgw0"), "{:?}", state.links.keys());
    assert!(zone.config.all("attr").all(|a| a.get("name").starts_with("io-reddwarf-")));
    for control in ["zone.cpu-cap", "zone.max-swap"] {
        assert!(zone.config.all("rctl").any(|r| r.get("name") == control), "{control}: {:?}", zone.config);
    }
    world.remove("web.yaml");
    world.gone("web");
    world.no_traces();
}
