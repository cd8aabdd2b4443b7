//! Claims and volumes on real mounts: data outlives pods, waits say why, policies are kept.

use crate::harness::{World, is_ready, skip};
use serde_json::Value;

/// A sparse pod that mounts claims at /<volume>.
fn pod(name: &str, claims: &[(&str, &str)], script: &str) -> String {
    let volumes: Vec<String> =
        claims.iter().map(|(v, c)| format!("{{name: {v}, persistentVolumeClaim: {{claimName: {c}}}}}")).collect();
    let mounts: Vec<String> = claims.iter().map(|(v, _)| format!("{{name: {v}, mountPath: /{v}}}")).collect();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, annotations: {{reddwarf.io/zone-brand: sparse}}}}\n\
         spec: {{terminationGracePeriodSeconds: 1, volumes: [{}], containers: [{{name: main, command: [sh, -c, \"{script}\"], volumeMounts: [{}]}}]}}\n",
        volumes.join(", "),
        mounts.join(", ")
    )
}

fn claim(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\n\
         spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 64Mi}}}}{more}}}\n"
    )
}

fn get(world: &World, kind: &str, name: &str) -> Option<Value> {
    let said = world.ctl(&["get", kind, name, "-o", "json"]);
    (said.code == 0).then(|| serde_json::from_str(&said.out).unwrap())
}

fn phase(world: &World, kind: &str, name: &str) -> Option<String> {
    get(world, kind, name)?["status"]["phase"].as_str().map(str::to_owned)
}

fn said(world: &World, reason: &str) -> Vec<String> {
    let all = world.json(&["get", "events", "-A", "-o", "json"]);
    let list = all["items"].as_array().cloned().unwrap_or_default();
    list.iter().filter(|e| e["reason"] == reason).filter_map(|e| e["message"].as_str().map(str::to_owned)).collect()
}

fn unscheduled(world: &World, name: &str) -> Option<String> {
    let pod = world.pod(name)?;
    let conditions = pod["status"]["conditions"].as_array()?.clone();
    let condition = conditions.iter().find(|c| c["type"] == "PodScheduled" && c["status"] == "False")?;
    condition["message"].as_str().map(str::to_owned)
}

const STAY: &str = "exec sleep 1000";

#[test]
fn data_outlives_the_pod_and_the_daemon_and_goes_with_the_claim() {
    if skip() {
        return;
    }
    let mut world = World::started("pvc");
    // A pod before its claim says what it waits for, in the words that people search for.
    world.file("pod.yaml", &pod("web", &[("data", "keep")], STAY));
    let why = world.until("the pod to say what it waits for", |w| unscheduled(w, "web"));
    assert!(why.contains("persistentvolumeclaim \"keep\" not found"), "{why}");
    world.file("claim.yaml", &claim("keep", ""));
    world.ready("web");
    let bound = get(&world, "pvc", "keep").unwrap();
    assert_eq!(bound["status"]["phase"], "Bound");
    assert_eq!(bound["spec"]["storageClassName"], "reddwarf");
    let volume = bound["spec"]["volumeName"].as_str().unwrap().to_owned();
    assert_eq!(volume, format!("pvc-{}", bound["metadata"]["uid"].as_str().unwrap()));
    assert_eq!(phase(&world, "pv", &volume).as_deref(), Some("Bound"));
    world.until("the event", |w| said(w, "ProvisioningSucceeded").pop());
    world.exec("web", &["sh", "-c", "echo kept > /data/file && stat -c %a /data"]).ok();
    let on_disk = world.dir.join("state/storage/volumes").join(&volume).join("data/file");
    assert_eq!(std::fs::read_to_string(&on_disk).unwrap(), "kept\n");
    // What was filled in (class and volume) is no difference to its file.
    world.file("claim.yaml", &claim("keep", "").replace("{name: keep}", "{name: keep, labels: {said: again}}"));
    world.until("the label", |w| (get(w, "pvc", "keep")?["metadata"]["labels"]["said"] == "again").then_some(()));
    // The pod goes and comes again; so does the daemon.
    world.remove("pod.yaml");
    world.gone("web");
    assert!(on_disk.exists());
    world.stop();
    world.start();
    world.file("pod.yaml", &pod("web", &[("data", "keep")], STAY));
    let before = world.ready("web");
    assert_eq!(world.exec("web", &["cat", "/data/file"]).ok(), "kept\n");
    // The claim's file goes: a running pod keeps the claim, and is not disturbed.
    world.remove("claim.yaml");
    world.until("the claim to be on its way out", |w| {
        get(w, "pvc", "keep").filter(|c| c["metadata"]["deletionTimestamp"].is_string())
    });
    assert_eq!(world.exec("web", &["cat", "/data/file"]).ok(), "kept\n");
    let after = world.pod("web").unwrap();
    assert_eq!(after["status"]["containerStatuses"], before["status"]["containerStatuses"]);
    // With the last pod the claim goes, and as the class says Delete, the volume too.
    world.remove("pod.yaml");
    world.gone("web");
    world.until("the claim to be gone", |w| get(w, "pvc", "keep").is_none().then_some(()));
    world.until("the volume to be gone", |w| get(w, "pv", &volume).is_none().then_some(()));
    assert!(!on_disk.exists() && !on_disk.parent().unwrap().parent().unwrap().exists());
}

#[test]
fn classes_policies_and_static_volumes() {
    if skip() {
        return;
    }
    let world = World::new("classes");
    let shared = world.dir.join("shared");
    std::fs::create_dir_all(&shared).unwrap();
    std::fs::write(shared.join("f"), "from the host").unwrap();
    let mut world = world.arg("--host-path-allow").arg(shared.to_str().unwrap());
    world.start();
    // No such class: Pending with the reason; once it is there, bound at once, without a pod.
    world.file("now.yaml", &claim("now", ", storageClassName: at-once"));
    let why = world.until("the reason", |w| said(w, "ProvisioningFailed").pop());
    assert_eq!(why, "storageclass.storage.k8s.io \"at-once\" not found");
    let class = |name: &str, more: &str| {
        format!(
            "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {{name: {name}}}\nprovisioner: reddwarf.io/volumes\n{more}\n"
        )
    };
    world.file("class.yaml", &class("at-once", "reclaimPolicy: Retain\nallowVolumeExpansion: true"));
    world.until("the claim to be bound", |w| (phase(w, "pvc", "now")? == "Bound").then_some(()));
    let volume = get(&world, "pvc", "now").unwrap()["spec"]["volumeName"].as_str().unwrap().to_owned();
    // Growing.
    world.file("now.yaml", &claim("now", ", storageClassName: at-once").replace("64Mi", "128Mi"));
    world.until("the claim to have grown", |w| {
        (get(w, "pvc", "now")?["status"]["capacity"]["storage"] == "128Mi").then_some(())
    });
    assert_eq!(get(&world, "pv", &volume).unwrap()["spec"]["capacity"]["storage"], "128Mi");
    // Retain: the claim goes, the volume and its data stay, and nobody else gets them.
    let data = world.dir.join("state/storage/volumes").join(&volume).join("data");
    std::fs::write(data.join("precious"), "x").unwrap();
    world.remove("now.yaml");
    world.until("the volume to be released", |w| (phase(w, "pv", &volume)? == "Released").then_some(()));
    world.file("other.yaml", &claim("other", ", storageClassName: at-once"));
    world.until("the other claim to be bound", |w| (phase(w, "pvc", "other")? == "Bound").then_some(()));
    assert_ne!(get(&world, "pvc", "other").unwrap()["spec"]["volumeName"], volume.as_str());
    assert_eq!(world.ctl(&["delete", "pv", &volume]).code, 0);
    world.until("its object to be gone", |w| get(w, "pv", &volume).is_none().then_some(()));
    assert!(data.join("precious").exists(), "nobody said Delete");
    // A class that asks for what the engine can't do says so.
    world.file(
        "bad.yaml",
        &format!(
            "{}---\n{}",
            class("strict", "parameters: {quota: \"true\"}"),
            claim("strict", ", storageClassName: strict")
        ),
    );
    world.until("the refusal", |w| {
        said(w, "ProvisioningFailed").into_iter().find(|m| m.contains("can't keep volumes to a size"))
    });
    // A volume of the administrator's, mounted read-only by a pod that says so.
    world.file(
        "static.yaml",
        &format!(
            "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: by-hand}}\nspec: {{capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce, ReadOnlyMany], storageClassName: manual, hostPath: {{path: {}}}}}\n---\n{}",
            shared.display(),
            claim("manual", ", storageClassName: manual")
        ),
    );
    world.file(
        "reader.yaml",
        &pod("reader", &[("data", "manual")], STAY).replace("claimName: manual", "claimName: manual, readOnly: true"),
    );
    world.ready("reader");
    assert_eq!(world.exec("reader", &["cat", "/data/f"]).ok(), "from the host");
    assert_ne!(world.exec("reader", &["touch", "/data/new"]).code, 0);
    assert_eq!(phase(&world, "pv", "by-hand").as_deref(), Some("Bound"));
    let status = world.json(&["status", "-o", "json"]);
    assert_eq!(status["storage"]["engine"], "directory");
    let node = get(&world, "node", "node-under-test").unwrap();
    let about = node["metadata"]["annotations"]["reddwarf.io/storage"].as_str().unwrap();
    assert!(about.starts_with("directory at "), "{about}");
}

#[test]
fn pods_own_claims_sets_and_claims_for_one_pod() {
    if skip() {
        return;
    }
    let world = World::started("ephemeral");
    // A claim that is made for the pod goes with it.
    let template = "{metadata: {labels: {for: scratch}}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}";
    let text = pod("worker", &[("scratch", "unused")], STAY).replace(
        "persistentVolumeClaim: {claimName: unused}",
        &format!("ephemeral: {{volumeClaimTemplate: {template}}}"),
    );
    world.file("worker.yaml", &text);
    world.ready("worker");
    let made = get(&world, "pvc", "worker-scratch").unwrap();
    assert_eq!(made["metadata"]["labels"]["for"], "scratch");
    world.exec("worker", &["touch", "/scratch/x"]).ok();
    world.remove("worker.yaml");
    world.gone("worker");
    world.until("its claim to be gone", |w| get(w, "pvc", "worker-scratch").is_none().then_some(()));
    // ReadWriteOncePod: the second pod waits for the first to go.
    world.file("alone.yaml", &claim("alone", "").replace("ReadWriteOnce]", "ReadWriteOncePod]"));
    world.file("first.yaml", &pod("first", &[("data", "alone")], STAY));
    world.ready("first");
    world.file("second.yaml", &pod("second", &[("data", "alone")], STAY));
    let why = world.until("the second to wait", |w| unscheduled(w, "second"));
    assert!(why.contains("ReadWriteOncePod access mode"), "{why}");
    world.remove("first.yaml");
    world.until("the second to run", |w| w.pod("second").filter(is_ready));
    // A StatefulSet's claims stay when it is scaled to nothing, and are taken up again.
    let set = |replicas: u32| {
        format!(
            "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: db}}\nspec: {{replicas: {replicas}, serviceName: db, selector: {{matchLabels: {{app: db}}}},\
             template: {{metadata: {{labels: {{app: db}}, annotations: {{reddwarf.io/zone-brand: sparse}}}}, spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: main, command: [sh, -c, \"{STAY}\"], volumeMounts: [{{name: data, mountPath: /data}}]}}]}}}},\
             volumeClaimTemplates: [{{metadata: {{name: data}}, spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}}}]}}\n"
        )
    };
    world.file("set.yaml", &set(1));
    world.ready("db-0");
    world.exec("db-0", &["sh", "-c", "echo first > /data/f"]).ok();
    world.file("set.yaml", &set(0));
    world.gone("db-0");
    world.file("set.yaml", &set(1));
    world.ready("db-0");
    assert_eq!(world.exec("db-0", &["cat", "/data/f"]).ok(), "first\n");
}

#[test]
fn snapshots_go_back_and_volumes_travel_by_file() {
    if skip() {
        return;
    }
    let world = World::started("snapshots");
    world.file("claim.yaml", &claim("notes", ""));
    world.file("pod.yaml", &pod("writer", &[("data", "notes")], STAY));
    world.ready("writer");
    let write = |text: &str| world.exec("writer", &["sh", "-c", &format!("echo {text} > /data/f")]).ok();
    write("one");
    world.ctl(&["volume", "snapshot", "notes", "before"]).ok();
    assert_eq!(world.ctl(&["volume", "snapshot", "notes", "before"]).exits(5).code, 5, "there already");
    write("two");
    let list = world.json(&["volume", "ls", "-o", "json"]);
    assert_eq!(list["items"][0]["snapshots"][0]["name"], "before");
    assert_eq!(
        (list["items"][0]["claim"].as_str(), list["items"][0]["known"].as_bool()),
        (Some("default/notes"), Some(true))
    );
    // Nobody loses files under a running pod.
    let refused = world.ctl(&["volume", "rollback", "notes", "before"]).exits(5);
    assert!(refused.err.contains("default/writer"), "{}", refused.err);
    world.remove("pod.yaml");
    world.gone("writer");
    world.ctl(&["volume", "rollback", "notes", "before"]).ok();
    // To a file and back, for a claim that comes later.
    let file = world.dir.join("notes.copy");
    world.ctl(&["volume", "send", "notes", "before", file.to_str().unwrap()]).ok();
    world.ctl(&["volume", "receive", "restored", "before", file.to_str().unwrap()]).ok();
    world.ctl(&["volume", "clone", "notes", "before", "copied"]).ok();
    assert_eq!(world.ctl(&["volume", "rm", "notes", "before"]).code, 0);
    for name in ["restored", "copied"] {
        world.file(&format!("{name}.yaml"), &claim(name, "").replace("64Mi", "1Ki"));
        world.file(&format!("{name}-pod.yaml"), &pod(name, &[("data", name)], STAY));
        world.ready(name);
        assert_eq!(world.exec(name, &["cat", "/data/f"]).ok(), "one\n", "{name}");
        assert_eq!(get(&world, "pvc", name).unwrap()["spec"]["volumeName"], format!("default-{name}"));
    }
    // What a person made stays when its claim goes.
    world.remove("restored-pod.yaml");
    world.gone("restored");
    world.remove("restored.yaml");
    world.until("the volume to be released", |w| (phase(w, "pv", "default-restored")? == "Released").then_some(()));
    assert!(world.dir.join("state/storage/volumes/default-restored/data/f").exists());
}
