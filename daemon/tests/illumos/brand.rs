//! Pods in zones of reddwarf's own brand (`smf/brand`).

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
