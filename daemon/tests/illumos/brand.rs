//! Pods in zones of reddwarf's own brand (`smf/brand`), and pods that are virtual machines.

use crate::harness::{FOREVER, World, skip};
use reddwarf_hostsim::state::ZoneState;
use std::path::Path;

#[test]
fn a_pod_without_an_image_runs_the_hosts_programs_in_a_zone_of_our_brand() {
    if skip() {
        return;
    }
    let mut world = World::new("own-brand");
    world.lab.add_brand("reddwarf", &Path::new(env!("CARGO_MANIFEST_DIR")).join("../smf/brand")).unwrap();
    world.start();
    world.file(
        "web.yaml",
        &format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, annotations: {{reddwarf.io/zone-brand: reddwarf}}}}\n\
             spec:\n  terminationGracePeriodSeconds: 2\n  containers:\n  - name: main\n    command: [/bin/sh, -c, {FOREVER:?}]\n    \
             resources: {{limits: {{cpu: 500m}}}}\n    \
             readinessProbe: {{exec: {{command: [test, -e, /etc/passwd]}}, periodSeconds: 1}}\n"
        ),
    );
    let pod = world.ready("web");
    let (name, zone) = world.zone("web");
    assert_eq!((zone.state, zone.config.global("brand")), (ZoneState::Running, "reddwarf"));
    assert_eq!(world.ctl(&["logs", "web"]).ok(), "up\n");
    assert_eq!(world.exec("web", &["sh", "-c", "/.hostsim/bin/zonename; exit 0"]).ok().trim(), name);
    assert_eq!(world.exec("web", &["sh", "-c", "kill -SEGV $$"]).code, 139);
    // A container is a project of the zone here too.
    assert!(world.exec("web", &["cat", "/etc/project"]).ok().contains("rw-main:"), "{pod}");
    // A restart of the daemon leaves it alone.
    world.kill9();
    world.start();
    world.ready("web");
    assert_eq!(world.zone("web").1.init, zone.init);
    world.remove("web.yaml");
    world.gone("web");
    world.no_traces();
}

#[test]
fn a_pod_is_a_virtual_machine_with_a_disk_that_it_was_given() {
    if skip() {
        return;
    }
    let world = World::started("machine");
    for args in [
        &["create", "-p", "rpool/vm"][..],
        &["create", "-V", "1g", "rpool/vm/web"],
        &["set", "io.reddwarf:disk=default/web", "rpool/vm/web"],
    ] {
        assert_eq!(world.lab.run("zfs", args).unwrap().code, 0);
    }
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/illumos.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("```yaml\n# a virtual machine\n").unwrap();
    world.file("web.yaml", rest.split_once("```").unwrap().0);
    world.ready("web");
    let (name, zone) = world.zone("web");
    assert_eq!((zone.state, zone.config.global("brand")), (ZoneState::Running, "bhyve"));
    let attr = |name: &str| zone.config.attr(name).unwrap_or_default().to_owned();
    assert_eq!(
        [attr("bootdisk"), attr("vcpus"), attr("ram"), attr("cloud-init"), attr("vnc")],
        ["rpool/vm/web", "2", "4096M", "on", "on"].map(str::to_owned)
    );
    assert!(world.ctl(&["logs", "web"]).ok().contains(&format!("zone {name} runs")));
    // Another disk is another machine; a word that is not for pods is told.
    let manifest = rest.split_once("```").unwrap().0;
    world.file("web.yaml", &manifest.replace("bhyve.reddwarf.io/vnc", "bhyve.reddwarf.io/extra"));
    world.until("a word about it", |w| w.ctl(&["events"]).out.contains("extra of the virtual machine").then_some(()));
    world.remove("web.yaml");
    world.gone("web");
    world.no_traces();
    assert!(world.state().datasets.contains_key("rpool/vm/web"), "the disk is not ours to destroy");
}
