//! What is not as asked says so: in `status`, which then exits 3, and in `why`.

use crate::harness::{World, skip};
use crate::pods::{FOREVER, pod, script};

/// A template's pod that fails.
const CRASHING: &str = "metadata: {labels: {app: crash}, annotations: {reddwarf.io/zone-brand: sparse}}, spec: \
                        {terminationGracePeriodSeconds: 1, RESTART containers: [{name: main, command: [sh, -c, 'exit 3']}]}";

fn says(world: &World, object: &str, expected: &str) {
    world.until(&format!("{object} to say {expected:?}"), |w| {
        let said = w.ctl(&["why", object]);
        (said.code == 3 && said.out.contains(" is not as asked: ") && said.out.contains(expected)).then_some(())
    });
}

#[test]
fn what_is_not_as_asked_says_why() {
    if skip() {
        return;
    }
    let world = World::started("why");
    world.file("big.yaml", &pod("big", "", "[sleep, '1']", "resources: {requests: {cpu: '100000'}}"));
    says(&world, "pod/big", "Insufficient cpu");
    let status = world.until("status to say it too", |w| {
        let said = w.ctl(&["status"]);
        said.out.contains("Unschedulable: ").then_some(said)
    });
    assert_eq!(status.code, 3, "{}", status.out);
    world.remove("big.yaml");
    world.gone("big");

    // What runs on, though it can't be made as it is asked for now.
    world.file("web.yaml", &script("web", FOREVER));
    world.ready("web");
    world.until("peace", |w| (w.ctl(&["status"]).code == 0).then_some(()));
    let asking = "env: [{name: A, valueFrom: {configMapKeyRef: {name: none, key: a}}}]";
    world.file("web.yaml", &pod("web", "", &format!("[sh, -c, {FOREVER:?}]"), asking));
    let status = world.until("status to say what is missing", |w| {
        let said = w.ctl(&["status"]);
        said.out.contains("configmap \"none\" not found").then_some(said)
    });
    assert_eq!(status.code, 3, "{}", status.out);
    world.remove("web.yaml");
    world.gone("web");

    let template = |restart: &str| CRASHING.replace("RESTART", restart);
    world.file(
        "crash.yaml",
        &format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: crash}}, spec: {{replicas: 2, selector: \
         {{matchLabels: {{app: crash}}}}, template: {{{}}}}}}}\n",
            template("")
        ),
    );
    says(&world, "deploy/crash", "0 of 2 replicas are available; pod crash-");
    says(&world, "deploy/crash", "CrashLoopBackOff");
    world.file("failing.yaml", &format!(
        "{{apiVersion: batch/v1, kind: Job, metadata: {{name: failing}}, spec: {{backoffLimit: 0, template: {{{}}}}}}}\n",
        template("restartPolicy: Never,").replace("app: crash", "job: failing")));
    says(&world, "job/failing", "BackoffLimitExceeded");
    let claim = "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: never}, spec: {storageClassName: none, \
                 accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}\n";
    world.file("never.yaml", claim);
    says(&world, "pvc/never", "storageclass.storage.k8s.io \"none\" not found");
    world.file("fine.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: fine}}\n");
    world.until("what is as asked to say that", |w| {
        let said = w.ctl(&["why", "cm/fine"]);
        (said.code == 0 && said.out.contains("configmaps/default/fine is as asked: stored as declared")).then_some(())
    });
    assert_eq!(world.ctl(&["why", "pod/nobody"]).code, 4);
}
