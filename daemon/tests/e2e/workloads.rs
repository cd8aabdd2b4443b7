//! What files declare makes pods: Deployments and Jobs from files, with real containers, across a restart.

use crate::harness::{World, skip};
use serde_json::Value;

fn deployment(replicas: u32, version: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata:\n      labels: {{app: web}}\n      \
         annotations: {{reddwarf.io/zone-brand: sparse}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      \
         containers:\n      - {{name: main, command: [sh, -c, \"trap exit TERM; while :; do sleep 0.1; done\"], \
         env: [{{name: VERSION, value: \"{version}\"}}]}}\n"
    )
}

fn items(world: &World, kind: &str) -> Vec<Value> {
    world.json(&["get", kind, "-o", "json"])["items"].as_array().cloned().unwrap_or_default()
}

fn names(world: &World) -> Vec<String> {
    items(world, "pods").iter().map(|p| p["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// All pods of this version are up, and no others are left.
fn settled(world: &World, count: usize, version: &str) -> Option<()> {
    let pods = items(world, "pods");
    let fine = |p: &Value| p["spec"]["containers"][0]["env"][0]["value"] == version && crate::harness::is_ready(p);
    (pods.len() == count && pods.iter().all(fine)).then_some(())
}

#[test]
fn a_deployment_in_a_file_makes_pods_that_follow_the_file() {
    if skip() {
        return;
    }
    let mut world = World::started("deployment");
    world.file("web.yaml", &deployment(2, "1"));
    world.until("two pods", |w| settled(w, 2, "1"));
    for pod in items(&world, "pods") {
        assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "ReplicaSet");
        assert!(pod["metadata"]["annotations"].get("reddwarf.io/source").is_none(), "it belongs to the API");
    }
    // A restart of the daemon makes and disturbs nothing.
    let before = names(&world);
    world.stop();
    world.start();
    world.until("the pods to be known", |w| settled(w, 2, "1"));
    assert_eq!(names(&world), before);

    world.file("web.yaml", &deployment(3, "2"));
    world.until("three pods of the new version", |w| settled(w, 3, "2"));
    assert_eq!(items(&world, "replicasets").len(), 2, "the earlier version is kept for a rollback");
    world.remove("web.yaml");
    world.until("everything to be gone", |w| {
        (items(w, "pods").is_empty() && items(w, "replicasets").is_empty()).then_some(())
    });
    world.stop();
    assert_eq!(world.traces(), Vec::<String>::new());
}

#[test]
fn apply_waits_until_what_makes_pods_is_up() {
    if skip() {
        return;
    }
    let world = World::started("applywait");
    let file = world.dir.join("web.yaml");
    let apply = |text: &str, timeout: &str| {
        std::fs::write(&file, text).unwrap();
        world.ctl(&["apply", "--wait", "--timeout", timeout, "-f", file.to_str().unwrap()])
    };
    apply(&deployment(2, "1"), "30s").ok();
    assert!(settled(&world, 2, "1").is_some(), "its pods are ready by then");
    let broken = deployment(2, "2").replace("trap exit TERM;", "exit 3;");
    let said = apply(&broken, "3s").exits(124);
    assert!(said.err.contains("deployment.apps/web") && said.err.contains("exit code 3"), "{}", said.err);
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: bad}\nspec:\n  backoffLimit: 0\n  template:\n    metadata: \
               {annotations: {reddwarf.io/zone-brand: sparse}}\n    spec: {restartPolicy: Never, containers: \
               [{name: main, command: [sh, -c, 'exit 1']}]}\n";
    let said = apply(job, "30s").exits(1);
    assert!(said.err.contains("job.batch/bad has failed: BackoffLimitExceeded"), "{}", said.err);
}

#[test]
fn a_job_in_a_file_runs_once() {
    if skip() {
        return;
    }
    let world = World::started("job");
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: sum}\nspec:\n  completions: 2\n  template:\n    metadata: \
               {annotations: {reddwarf.io/zone-brand: sparse}}\n    spec: {restartPolicy: Never, containers: \
               [{name: main, command: [sh, -c, 'echo 42']}]}\n";
    world.file("sum.yaml", job);
    world.until("the job to be complete", |w| {
        let said = w.ctl(&["get", "job", "sum", "-o", "json"]);
        let job: Value = serde_json::from_str(&said.out).ok()?;
        let all = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.iter().any(|c| c["type"] == "Complete" && c["status"] == "True").then_some(())
    });
    let pods = names(&world);
    assert_eq!(pods.len(), 2);
    assert_eq!(world.ctl(&["logs", &pods[0]]).ok().trim(), "42");
    world.file("sum.yaml", &format!("# touched\n{job}"));
    world.ctl(&["reload"]).ok();
    assert_eq!(names(&world), pods, "the same job does not run again");
    world.remove("sum.yaml");
    world.until("job and pods to be gone", |w| items(w, "pods").is_empty().then_some(()));
}
