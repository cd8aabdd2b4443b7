//! Limits of single containers, beside those of their pod's zone.

use crate::harness::{World, skip};

fn pair(millis: u32) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: pair, annotations: {{reddwarf.io/zone-brand: sparse}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {{name: bounded, command: [/bin/sh, -c, "exec sleep 1000"], resources: {{limits: {{cpu: {millis}m}}}}}}
    - {{name: free, command: [/bin/sh, -c, "exec sleep 1000"]}}
"#
    )
}

/// The zone has no bound, as one container has none; the other one's is its project's, follows the file without a restart,
/// and holds for commands beside it.
#[test]
fn a_container_is_a_project_of_its_zone_with_limits_of_its_own() {
    if skip() {
        return;
    }
    let world = World::started("limits");
    world.file("pair.yaml", &pair(505));
    let before = world.ready("pair");
    let (_, zone) = world.zone("pair");
    assert!(!zone.config.all("rctl").any(|r| r.get("name") == "zone.cpu-cap"), "{:?}", zone.config);
    let seen = |file: &str| world.ctl(&["exec", "pair", "-c", "bounded", "--", "cat", file]).ok();
    let database = seen("/etc/project");
    let line = |name: &str| database.lines().find(|l| l.starts_with(&format!("rw-{name}:"))).unwrap().to_owned();
    assert!(line("bounded").contains("project.cpu-cap=(privileged,51,deny)"), "{database}");
    assert!(!line("free").contains("cpu-cap"), "{database}");
    // A container's processes are always bounded.
    for name in ["bounded", "free"] {
        assert!(line(name).contains("project.max-lwps=(privileged,4104,deny)"), "{database}");
    }
    let tasks = seen("/.hostsim/tasks");
    for name in ["rw-bounded", "rw-free"] {
        assert!(tasks.lines().any(|l| l.ends_with(&format!(" {name}"))), "{tasks}");
    }

    world.file("pair.yaml", &pair(1000));
    world.until("the other bound", |_| {
        seen("/.hostsim/controls").contains("rw-bounded project.cpu-cap 100\n").then_some(())
    });
    assert!(seen("/etc/project").contains("project.cpu-cap=(privileged,100,deny)"), "for who joins later");
    let after = world.pod("pair").unwrap();
    let ids = |pod: &serde_json::Value| {
        pod["status"]["containerStatuses"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["containerID"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&before), ids(&after), "nothing was restarted");
    world.remove("pair.yaml");
    world.gone("pair");
    world.no_traces();
}
