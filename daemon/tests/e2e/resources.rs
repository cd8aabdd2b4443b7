//! Requests and limits, seen in the machine's cgroups, and changed while the pod runs.

use crate::harness::{Said, World, instance, run, skip};
use crate::pods::FOREVER;
use serde_json::{Value, json};
use std::path::Path;

/// A value of a pod's own cgroup, or of its container's first instance: by its name on v1 and on v2.
pub fn cgroup(world: &World, pod: &str, container: Option<&str>, v1: (&str, &str), v2: &str) -> String {
    let root = Path::new("/sys/fs/cgroup");
    let name = instance(&world.dir.join("run"));
    let unified = root.join("cgroup.controllers").exists();
    let base = if unified { root.to_owned() } else { root.join(v1.0) }.join(name);
    let all = [base.join("best-effort"), base];
    let mut sandboxes = all.iter().flat_map(|d| std::fs::read_dir(d).into_iter().flatten().flatten()).map(|e| e.path());
    let named = format!("default-{pod}-");
    let ours = |p: &std::path::PathBuf| p.file_name().unwrap().to_str().unwrap().starts_with(&named);
    let mut dir = sandboxes.find(ours).expect("a cgroup");
    if let Some(container) = container {
        dir = dir.join(format!("{container}.0"));
    }
    let file = dir.join(if unified { v2 } else { v1.1 });
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).trim().to_owned()
}

pub fn request(world: &World, method: &str, path: &str, kind: &str, body: &Value) -> Said {
    let url = format!("http://localhost{path}");
    let socket = world.socket.to_str().unwrap();
    let header = format!("Content-Type: {kind}");
    run(
        "curl",
        &[
            "-sS",
            "--fail-with-body",
            "--unix-socket",
            socket,
            "-X",
            method,
            "-H",
            &header,
            "-d",
            &body.to_string(),
            &url,
        ],
    )
}

fn pod(name: &str, resources: Value, policy: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": {"reddwarf.io/zone-brand": "sparse"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "main", "command": ["sh", "-c", FOREVER], "resources": resources, "resizePolicy": policy}]}})
}

fn resize(world: &World, name: &str, resources: Value) -> Said {
    let path = format!("/api/v1/namespaces/default/pods/{name}/resize");
    let patch = json!({"spec": {"containers": [{"name": "main", "resources": resources}]}});
    request(world, "PATCH", &path, "application/strategic-merge-patch+json", &patch)
}

fn condition<'p>(pod: &'p Value, kind: &str) -> Option<&'p Value> {
    pod["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

#[test]
fn resources_reach_the_cgroups_and_change_without_a_restart() {
    if skip() {
        return;
    }
    let world = World::started("resources");
    let pods = "/api/v1/namespaces/default/pods";
    let both = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}});
    request(&world, "POST", pods, "application/json", &pod("sized", both("250m", "64Mi"), json!([]))).ok();
    let best = json!({});
    request(&world, "POST", pods, "application/json", &pod("best", best, json!([]))).ok();
    let made = world.ready("sized");
    assert_eq!(made["status"]["qosClass"], "Guaranteed");
    let main = &made["status"]["containerStatuses"][0];
    assert_eq!(main["allocatedResources"], json!({"cpu": "250m", "memory": "64Mi"}));
    assert_eq!(main["resources"], both("250m", "64Mi"));
    let pid = main["containerID"].clone();

    let of = |container, v1, v2| cgroup(&world, "sized", container, v1, v2);
    let quota = ("cpu,cpuacct", "cpu.cfs_quota_us");
    let quota = if Path::new("/sys/fs/cgroup/cpu,cpuacct").exists() { quota } else { ("cpu", quota.1) };
    let memory = ("memory", "memory.limit_in_bytes");
    for container in [None, Some("main")] {
        assert!(["25000", "25000 100000"].contains(&of(container, quota, "cpu.max").as_str()));
        assert_eq!(of(container, memory, "memory.max"), (64 << 20).to_string());
    }
    let shares = cgroup(&world, "sized", Some("main"), (quota.0, "cpu.shares"), "cpu.weight");
    assert!(["256", "35"].contains(&shares.as_str()), "{shares}");
    world.ready("best");
    let shares = cgroup(&world, "best", Some("main"), (quota.0, "cpu.shares"), "cpu.weight");
    assert!(["2", "1"].contains(&shares.as_str()), "{shares}");
    // All pods that ask for nothing together have the least weight, and the others none above them.
    let groups = world.cgroups();
    let groups_of = |pod: &str| {
        groups.iter().filter(|g| g.display().to_string().contains(&format!("/default-{pod}-"))).collect::<Vec<_>>()
    };
    assert!(
        !groups_of("best").is_empty() && groups_of("best").iter().all(|g| g.parent().unwrap().ends_with("best-effort")),
        "{groups:?}"
    );
    assert!(
        !groups_of("sized").is_empty()
            && groups_of("sized").iter().all(|g| !g.parent().unwrap().ends_with("best-effort")),
        "{groups:?}"
    );
    assert_eq!(world.exec("best", &["cat", "/proc/self/oom_score_adj"]).ok(), "1000\n");

    resize(&world, "sized", both("500m", "96Mi")).ok();
    let after = world.until("the resize", |w| {
        w.pod("sized").filter(|p| p["status"]["containerStatuses"][0]["resources"]["limits"]["memory"] == "96Mi")
    });
    for container in [None, Some("main")] {
        assert!(["50000", "50000 100000"].contains(&of(container, quota, "cpu.max").as_str()));
        assert_eq!(of(container, memory, "memory.max"), (96 << 20).to_string());
    }
    let main = &after["status"]["containerStatuses"][0];
    assert_eq!((&main["restartCount"], &main["containerID"]), (&json!(0), &pid), "nothing was restarted");
    assert_eq!(main["allocatedResources"], json!({"cpu": "500m", "memory": "96Mi"}));
    assert_eq!(after["status"]["observedGeneration"], after["metadata"]["generation"]);
    assert!(condition(&after, "PodResizePending").is_none() && condition(&after, "PodResizeInProgress").is_none());

    // More than the machine has: it keeps what it has, and says so.
    resize(&world, "sized", both("100000", "96Mi")).ok();
    let stuck = world.until("the refusal", |w| w.pod("sized").filter(|p| condition(p, "PodResizePending").is_some()));
    let pending = condition(&stuck, "PodResizePending").unwrap();
    assert_eq!(pending["reason"], "Infeasible");
    let message = pending["message"].as_str().unwrap();
    assert!(
        message.starts_with("Node didn't have enough capacity: cpu, requested: 100000000, capacity: "),
        "{message}"
    );
    assert_eq!(stuck["status"]["containerStatuses"][0]["resources"], both("500m", "96Mi"));
    assert!(["50000", "50000 100000"].contains(&of(Some("main"), quota, "cpu.max").as_str()));

    let refused = resize(&world, "sized", json!({"requests": {"cpu": "100m"}}));
    assert_ne!(refused.code, 0);
    assert!(refused.out.contains("Pod QOS Class may not change as a result of resizing"), "{refused:?}");
}

#[test]
fn a_container_that_says_so_is_restarted_for_its_new_resources() {
    if skip() {
        return;
    }
    let world = World::started("restarting");
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}, {"resourceName": "cpu", "restartPolicy": "NotRequired"}]);
    let limits = |cpu: &str, memory: &str| json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": cpu, "memory": memory}});
    let pods = "/api/v1/namespaces/default/pods";
    request(&world, "POST", pods, "application/json", &pod("again", limits("100m", "64Mi"), policy)).ok();
    world.ready("again");
    resize(&world, "again", limits("200m", "64Mi")).ok();
    let after = world.until("the new cpu", |w| {
        w.pod("again").filter(|p| p["status"]["containerStatuses"][0]["resources"]["limits"]["cpu"] == "200m")
    });
    assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], 0);
    resize(&world, "again", limits("200m", "80Mi")).ok();
    let after = world.until("the restart", |w| {
        w.pod("again")
            .filter(|p| p["status"]["containerStatuses"][0]["restartCount"] == 1 && crate::harness::is_ready(p))
    });
    assert_eq!(after["status"]["containerStatuses"][0]["resources"], limits("200m", "80Mi"));
}
