//! Each defect that the earlier implementation was found to have, by name: seen from what the real daemon calls and leaves.

use crate::harness::{FOREVER, World, pod, script, skip};
use reddwarf_hostsim::state::ZoneState;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// One pod's whole life, and what was called for it.
#[test]
fn commands_of_a_pods_life() {
    if skip() {
        return;
    }
    let world = World::started("commands");
    world.file("a.yaml", &script("a", FOREVER));
    world.ready("a");
    let state = world.state();
    let (name, zone) = world.zone("a");

    // VNIC names that end in no number, or over 31 characters.
    for (link, found) in state.links.iter().filter(|(_, l)| l.class == "vnic" || l.class == "etherstub") {
        assert!(reddwarf_hostsim::system::is_link_name(link) && found.temporary, "{link}");
    }
    // No gateway address, no forwarding, no translation.
    let gateway = state.interfaces.iter().find(|(link, _)| link.starts_with("rwgw")).unwrap().1;
    assert!(gateway.addresses.values().any(|a| a.address.contains(".0.1/24") && a.temporary), "{:?}", state.interfaces);
    assert_eq!(state.protocols.get("ipv4/forwarding").map(String::as_str), Some("on"));
    assert_eq!(state.protocols.get("ipv4/send_redirects").map(String::as_str), Some("off"));
    assert!(state.nat.iter().any(|r| r.starts_with("map net0 ")), "{:?}", state.nat);
    let net = zone.config.all("net").next().unwrap();
    assert!(net.get("defrouter").ends_with(".0.1"), "{net:?}");
    // zonepath not derived from the real mountpoint.
    let zones = state.datasets.keys().find(|d| d.ends_with("/zones")).unwrap();
    let mountpoint = world.lab.run("zfs", &["get", "-H", "-p", "-o", "value", "mountpoint", zones]).unwrap().out;
    assert_eq!(zone.config.zonepath().parent().unwrap().to_str(), Some(mountpoint.trim()));

    world.remove("a.yaml");
    world.gone("a");
    world.no_traces();
    let calls = world.calls();
    let of = |tool: &'static str| {
        calls.iter().filter(move |l| l.tool == tool).map(|l| l.argv.iter().map(String::as_str).collect::<Vec<_>>())
    };
    // `zoneadm -z X list -cp` is a usage error always; a list without -p is for people.
    for argv in of("zoneadm").filter(|a| a.contains(&"list")) {
        assert!(!argv.contains(&"-z") && argv.iter().any(|a| a.starts_with('-') && a.contains('p')), "{argv:?}");
    }
    // `create` without -b; commands in arguments, where an error is passed over; a predictable name in /tmp.
    for argv in of("zonecfg") {
        let fine = match argv.as_slice() {
            ["-z", _, "-f", file] => file.starts_with(world.state_dir().to_str().unwrap()),
            ["-z", _, "export" | "delete", ..] => true,
            _ => false,
        };
        assert!(fine, "{argv:?}");
    }
    assert!(world.state_dir().join("zonecfg").metadata().unwrap().permissions().mode() & 0o077 == 0);
    // A clone followed by an installation.
    assert!(of("zoneadm").any(|a| a.contains(&"clone") && a.contains(&name.as_str())));
    assert!(!of("zoneadm").any(|a| a.contains(&"install") && a.contains(&name.as_str())));
    // A quota set in a second step.
    assert!(!of("zfs").any(|a| a.first() == Some(&"set") && a.iter().any(|w| w.starts_with("quota="))));
    // zlogin with several arguments, which it joins as it likes.
    assert!(of("zlogin").all(|a| a.iter().filter(|w| !w.starts_with('-')).count() == 2), "zone and one argument");
    // Nothing that was called was wrong.
    let wrong = calls.iter().filter(|l| l.rc == Some(2)).map(|l| format!("{} {}", l.tool, l.argv.join(" ")));
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "usage errors: {wrong:#?}");
}

/// U9: ns `a-b` / pod `c` and ns `a` / pod `b-c` had one zone, long names were cut.
#[test]
fn u9_names_that_look_alike_have_zones_of_their_own() {
    if skip() {
        return;
    }
    let world = World::started("names");
    let long = "x".repeat(60);
    let named = |namespace: &str, name: &str| {
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n---\n")
            + &script(name, FOREVER).replace("metadata:\n", &format!("metadata:\n  namespace: {namespace}\n"))
    };
    world.file("one.yaml", &named("a-b", "c"));
    world.file("two.yaml", &named("a", "b-c"));
    world.file("three.yaml", &script(&format!("{long}1"), FOREVER));
    world.file("four.yaml", &script(&format!("{long}2"), FOREVER));
    world.until("four zones", |w| (w.in_state(ZoneState::Running) == 4).then_some(()));
    let zones = world.zones();
    assert!(zones.keys().all(|n| reddwarf_hostsim::system::is_zone_name(n)), "{:?}", zones.keys());
    let links: BTreeSet<_> =
        zones.values().map(|z| z.config.all("net").next().unwrap().get("physical").to_owned()).collect();
    assert_eq!(links.len(), 4);
}

/// `brand "reddwarf" unknown`: what this host has not is said in the pod's status, and hurts nobody else.
#[test]
fn a_brand_that_is_not_there_is_told() {
    if skip() {
        return;
    }
    let mut world = World::new("brand");
    // A host with zones, and without the one that is asked for.
    std::fs::remove_dir_all(world.lab.dir().join("brands/sparse")).unwrap();
    world.start();
    world.file("odd.yaml", &script("odd", FOREVER));
    world.until("a word about the brand", |w| {
        w.ctl(&["events"]).out.contains("can't make zones of the pod's brand").then_some(())
    });
    assert_eq!(world.in_state(ZoneState::Running), 0);
    let node: serde_json::Value =
        serde_json::from_str(&world.ctl(&["get", "node", "zone-host", "-o", "json"]).ok()).unwrap();
    let brands = node["metadata"]["labels"]["reddwarf.io/zone-brands"].to_string()
        + &node["metadata"]["annotations"].to_string();
    assert!(brands.contains("lx") && !brands.contains("sparse"), "{brands}");
}

/// Errors of the etherstub were passed over: now no pod starts without a network, and all is well once it can be made.
#[test]
fn an_etherstub_that_fails_is_told_and_made_later() {
    if skip() {
        return;
    }
    let mut world = World::new("etherstub");
    world
        .lab
        .faults("dladm/create-etherstub * fail-before 1 etherstub creation failed: insufficient resources\n")
        .unwrap();
    world.start();
    world.file("a.yaml", &script("a", FOREVER));
    world.until("a word about it", |w| w.log().contains("etherstub").then_some(()));
    assert_eq!(world.in_state(ZoneState::Running), 0);
    world.lab.faults("").unwrap();
    world.ready("a");
}

/// A probe that ran out of time left its process in the zone.
#[test]
fn a_probe_that_hangs_leaves_no_process() {
    if skip() {
        return;
    }
    let world = World::started("probe");
    let probe =
        "readinessProbe: {exec: {command: [/bin/sh, -c, 'exec sleep 4321']}, timeoutSeconds: 1, periodSeconds: 1}";
    world.file("a.yaml", &pod("a", "", &format!("[/bin/sh, -c, {FOREVER:?}]"), probe));
    world.until("the zone", |w| (w.in_state(ZoneState::Running) == 1).then_some(()));
    std::thread::sleep(Duration::from_secs(6));
    let sleeping = std::fs::read_dir("/proc").unwrap().flatten().filter(|p| {
        let cmdline = std::fs::read(p.path().join("cmdline")).unwrap_or_default();
        cmdline == b"sleep\x004321\x00"
    });
    assert!(sleeping.count() <= 1, "at most the probe of this moment");
    assert!(world.pod("a").is_some_and(|p| !crate::harness::is_ready(&p)));
}

/// A full pass costs the same number of commands whatever the number of zones.
#[test]
fn a_pass_costs_a_constant_number_of_commands() {
    if skip() {
        return;
    }
    let world = World::started("constant");
    let quiet = |what: &str| {
        world.lab.forget_transcript().unwrap();
        // Three passes of two seconds.
        std::thread::sleep(Duration::from_millis(6100));
        let calls = world.calls();
        assert!(calls.iter().all(|l| !l.changing), "{what}: {calls:#?}");
        calls.len()
    };
    world.file("p0.yaml", &script("p0", FOREVER));
    world.ready("p0");
    std::thread::sleep(Duration::from_secs(2));
    let one = quiet("one pod");
    for n in 1..6 {
        world.file(&format!("p{n}.yaml"), &script(&format!("p{n}"), FOREVER));
    }
    for n in 1..6 {
        world.ready(&format!("p{n}"));
    }
    // And many that are not ours.
    world
        .lab
        .change(|state| {
            let zone = state.zones.values().next().unwrap().clone();
            for n in 0..1000 {
                let mut other = zone.clone();
                other.config.globals.insert("zonepath".into(), format!("/zones/other{n}"));
                other.config.resources.clear();
                (other.state, other.id, other.init) = (ZoneState::Installed, None, None);
                state.zones.insert(format!("other{n}"), other);
            }
        })
        .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let many = quiet("six pods and a thousand zones");
    // A pass more or less may fall into the time.
    assert!(many <= one + one / 2 + 2, "{one} commands with one pod, {many} with many");
}
