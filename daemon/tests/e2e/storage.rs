//! Claims and volumes on real mounts: data outlives pods, waits say why, policies are kept.

use crate::harness::{World, is_ready, run, skip};
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
    // Cut off before there was an object of it, a repeat finishes it, and nothing else does.
    world.ctl(&["delete", "pv", "default-restored"]).ok();
    world.until("the object to go", |w| get(w, "pv", "default-restored").is_none().then_some(()));
    let again = world.ctl(&["volume", "receive", "restored", "before", file.to_str().unwrap()]).ok();
    assert!(again.contains("was there already"), "{again}");
    let other = world.dir.join("notes.other");
    world.ctl(&["volume", "snapshot", "notes", "later"]).ok();
    world.ctl(&["volume", "send", "notes", "later", other.to_str().unwrap()]).ok();
    world.ctl(&["volume", "rm", "notes", "later"]).ok();
    world.ctl(&["volume", "receive", "restored", "before", other.to_str().unwrap()]).exits(5);
    world.ctl(&["volume", "clone", "notes", "before", "copied"]).ok();
    world.ctl(&["volume", "clone", "notes", "before", "little"]).ok();
    assert_eq!(world.ctl(&["volume", "rm", "notes", "before"]).code, 0);
    // Whatever the claim's size: it gets what was set aside for it, with the room that it asks for.
    for (name, asked, given) in [("restored", "1Gi", "1Gi"), ("copied", "128Mi", "128Mi"), ("little", "1Ki", "64Mi")] {
        world.file(&format!("{name}.yaml"), &claim(name, "").replace("64Mi", asked));
        world.file(&format!("{name}-pod.yaml"), &pod(name, &[("data", name)], STAY));
        world.ready(name);
        assert_eq!(world.exec(name, &["cat", "/data/f"]).ok(), "one\n", "{name}");
        let bound = get(&world, "pvc", name).unwrap();
        assert_eq!(bound["spec"]["volumeName"], format!("default-{name}"));
        assert_eq!(bound["status"]["capacity"]["storage"], given, "{name}");
    }
    let list = world.json(&["volume", "ls", "-o", "json"]);
    let restored = list["items"].as_array().unwrap().iter().find(|v| v["name"] == "default-restored").unwrap().clone();
    assert_eq!(restored["quotaBytes"], 1 << 30, "the engine is told as well: {restored}");
    // A claim that can't have its volume waits and says why; it gets no empty one.
    world.ctl(&["volume", "receive", "picky", "before", file.to_str().unwrap()]).ok();
    world.file("picky.yaml", &claim("picky", "").replace("ReadWriteOnce]", "ReadWriteOncePod]"));
    let why = world.until("the event", |w| said(w, "VolumeMismatch").pop());
    assert!(why.contains("\"default-picky\"") && why.contains("incompatible accessMode"), "{why}");
    assert_eq!(phase(&world, "pvc", "picky").as_deref(), Some("Pending"));
    // A stream that was cut off makes no volume.
    let (whole, cut) = (std::fs::read(&file).unwrap(), world.dir.join("notes.cut"));
    std::fs::write(&cut, &whole[..2000]).unwrap();
    let refused = world.ctl(&["volume", "receive", "truncd", "before", cut.to_str().unwrap()]).exits(1);
    assert!(refused.err.contains("cut off"), "{}", refused.err);
    assert!(get(&world, "pv", "default-truncd").is_none());
    assert!(!world.dir.join("state/storage/volumes/default-truncd").exists());
    // What a person made stays when its claim goes.
    world.remove("restored-pod.yaml");
    world.gone("restored");
    world.remove("restored.yaml");
    world.until("the volume to be released", |w| (phase(w, "pv", "default-restored")? == "Released").then_some(()));
    assert!(world.dir.join("state/storage/volumes/default-restored/data/f").exists());
}

/// A btrfs of a test's own.
struct Disk(std::path::PathBuf);

impl Disk {
    /// `None`, and says so, where that can't be had.
    fn mounted(world: &World) -> Option<Self> {
        let dir = std::env::temp_dir().join(format!("{}-disk", world.name));
        let (file, at) = (dir.join("disk"), dir.join("btrfs"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::File::create(&file).unwrap().set_len(1 << 30).unwrap();
        std::fs::create_dir(&at).unwrap();
        let (disk, mounted) = (file.to_str().unwrap(), at.to_str().unwrap());
        let made = std::process::Command::new("mkfs.btrfs").args(["-q", "-f", disk]).output();
        if !made.is_ok_and(|out| out.status.success()) || run("mount", &["-o", "loop", disk, mounted]).code != 0 {
            assert!(std::env::var_os("CI").is_none(), "btrfs can't be had: .ci/setup installs btrfs-progs");
            eprintln!("SKIPPED: needs btrfs-progs and a kernel with btrfs");
            return None;
        }
        Some(Self(at))
    }

    /// Names of datasets.
    fn datasets(&self, area: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.join("place").join(area)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
        names.retain(|name| ![".snapshots", ".reddwarf-id"].contains(&name.as_str()));
        names.sort();
        names
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.to_str().unwrap()]);
        let _ = self.0.parent().map(std::fs::remove_dir_all);
    }
}

/// A pod of an image, on a claim of its own.
fn app(name: &str) -> String {
    format!(
        "{}---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{terminationGracePeriodSeconds: 0, \
         volumes: [{{name: data, persistentVolumeClaim: {{claimName: {name}}}}}], containers: [{{name: main, image: \"local/box:1\", \
         imagePullPolicy: Never, command: [/bin/sh, -c, \"until [ -e /stop ]; do /bin/busybox sleep 0.05; done\"], volumeMounts: [{{name: data, mountPath: /data}}]}}]}}\n",
        claim(name, "")
    )
}

fn import(world: &World) {
    let root = world.dir.join("box");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
    std::fs::write(root.join("said"), "by the image\n").unwrap();
    world.ctl(&["image", "import", root.to_str().unwrap(), "--name", "local/box:1"]).ok();
}

/// Where storage clones, pods' roots are clones: said by `status`, switched by a setting, without a restart of what runs.
#[test]
fn roots_are_clones_where_storage_is_btrfs() {
    if skip() {
        return;
    }
    let world = World::new("clones");
    let Some(disk) = Disk::mounted(&world) else { return };
    let place = disk.0.join("place");
    let mut world = world.arg("--storage-pool").arg(place.to_str().unwrap()).arg("--storage-roots=overlay");
    world.start();
    let roots = |w: &World| w.json(&["status", "-o", "json"])["storage"]["roots"].as_str().unwrap().to_owned();
    assert_eq!(roots(&world), "overlays");
    import(&world);
    world.file("old.yaml", &app("old"));
    let old = world.ready("old");
    world.exec("old", &["/bin/sh", "-c", "echo mine > /said"]).ok();
    assert_eq!((disk.datasets("pods").len(), disk.datasets("images").len()), (0, 0));
    // Switched: what runs goes on, what is new is a clone.
    world.stop();
    let mut world = world.without_arguments().arg("--storage-pool").arg(place.to_str().unwrap());
    world.start();
    assert_eq!(roots(&world), "clones");
    assert!(world.ctl(&["status"]).out.contains("pods' roots: clones"), "{}", world.ctl(&["status"]).out);
    world.file("new.yaml", &app("new"));
    let new = world.ready("new");
    let mounted = |w: &World, pod: &str| {
        w.exec(pod, &["/bin/sh", "-c", "/bin/busybox awk '$5 == \"/\" {print $0}' /proc/self/mountinfo"]).ok()
    };
    assert!(mounted(&world, "old").contains("overlay") && mounted(&world, "new").contains("btrfs"));
    assert_eq!(world.exec("old", &["/bin/busybox", "cat", "/said"]).ok(), "mine\n");
    assert_eq!(world.exec("new", &["/bin/busybox", "cat", "/said"]).ok(), "by the image\n");
    assert_eq!((disk.datasets("pods").len(), disk.datasets("images").len()), (1, 1));
    world.exec("new", &["/bin/sh", "-c", "echo new > /said"]).ok();
    world.kill9();
    world.start();
    for (name, before) in [("old", &old), ("new", &new)] {
        assert_eq!(world.ready(name)["status"]["containerStatuses"], before["status"]["containerStatuses"]);
    }
    assert_eq!(world.exec("new", &["/bin/busybox", "cat", "/said"]).ok(), "new\n");
    // A restarted container has its image's files again, and the old clone goes with the old instance.
    world.exec("new", &["/bin/sh", "-c", "echo > /stop"]).ok();
    world.until("the next instance", |w| {
        w.pod("new").filter(|p| p["status"]["containerStatuses"][0]["restartCount"] == 1 && is_ready(p))
    });
    assert_eq!(world.exec("new", &["/bin/busybox", "cat", "/said"]).ok(), "by the image\n");
    for name in ["old", "new"] {
        world.remove(&format!("{name}.yaml"));
        world.gone(name);
    }
    world.until("the clones to be gone", |_| disk.datasets("pods").is_empty().then_some(()));
    world.until("the image to be free", |w| (w.ctl(&["image", "rm", "local/box:1"]).code == 0).then_some(()));
    world.until("the image's dataset to be gone", |_| disk.datasets("images").is_empty().then_some(()));
}

/// Has something done and kills the daemon after so many steps that can be seen from outside: commits of the store, changes
/// of datasets. Whether it came to so many.
#[cfg(target_os = "linux")]
fn die_at(world: &mut World, disk: &Disk, step: usize, act: impl FnOnce(&World)) -> bool {
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
    let watch = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    watch.add_watch(&world.dir.join("state/store.redb"), AddWatchFlags::IN_MODIFY).unwrap();
    let changes = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVE | AddWatchFlags::IN_DELETE;
    for area in ["images", "pods", "volumes"] {
        watch.add_watch(&disk.0.join("place").join(area), changes).unwrap();
    }
    act(world);
    let (mut seen, mut last) = (0, std::time::Instant::now());
    // Nothing more comes: all is done.
    while seen < step && last.elapsed().as_millis() < 1500 {
        match watch.read_events() {
            Ok(events) => (seen, last) = (seen + events.len(), std::time::Instant::now()),
            Err(_) => std::thread::sleep(std::time::Duration::from_micros(200)),
        }
    }
    world.kill9();
    seen >= step
}

/// F1: wherever the daemon is killed while a claim gets its volume and a pod its root, and while both go: what was promised
/// comes to be after the next start, once each, and what went is gone.
#[cfg(target_os = "linux")]
#[test]
fn f1_a_kill_at_any_step_of_provisioning_leaves_nothing_half_made() {
    if skip() {
        return;
    }
    let world = World::new("provisioning");
    let Some(disk) = Disk::mounted(&world) else { return };
    let mut world = world.arg("--storage-pool").arg(disk.0.join("place").to_str().unwrap());
    world.start();
    import(&world);
    world.file("kept.yaml", &app("kept"));
    world.ready("kept");
    world.exec("kept", &["/bin/sh", "-c", "echo precious > /data/file"]).ok();
    let mut rounds = 0;
    for step in [1, 2, 3, 5, 7, 10, 15, 22, 35, 60] {
        let made = die_at(&mut world, &disk, step, |w| w.file("app.yaml", &app("app")));
        world.start();
        world.ready("app");
        world.exec("app", &["/bin/sh", "-c", "echo own > /data/file; echo x > /new"]).ok();
        assert_eq!(disk.datasets("volumes").len(), 2, "at {step}: {:?}", disk.datasets("volumes"));
        assert_eq!(disk.datasets("pods").len(), 2, "at {step}: {:?}", disk.datasets("pods"));
        let volumes = world.json(&["get", "pv", "-o", "json"]);
        assert_eq!(volumes["items"].as_array().unwrap().len(), 2, "at {step}");
        let unmade = die_at(&mut world, &disk, step, |w| w.remove("app.yaml"));
        world.start();
        world.gone("app");
        world.until("claim and volume to go", |w| {
            let volumes = w.json(&["get", "pv", "-o", "json"])["items"].as_array().unwrap().len();
            (get(w, "pvc", "app").is_none() && disk.datasets("volumes").len() == 1 && volumes == 1).then_some(())
        });
        world.until("the clone to go", |_| (disk.datasets("pods").len() == 1).then_some(()));
        assert_eq!(world.exec("kept", &["/bin/busybox", "cat", "/data/file"]).ok(), "precious\n", "at {step}");
        rounds += 1;
        if !made && !unmade {
            break;
        }
    }
    println!("{rounds} rounds");
    assert!(rounds >= 6, "there were {rounds} steps only");
    assert_eq!(disk.datasets("images").len(), 1);
}

/// Where sizes can't be kept, a claim says that its volume has outgrown it, and that it has not any more.
#[test]
fn a_volume_that_outgrew_its_claim_is_named() {
    if skip() {
        return;
    }
    let mut world = World::started("oversize");
    world.file("claim.yaml", &claim("small", "").replace("64Mi", "1Mi"));
    world.file("pod.yaml", &pod("writer", &[("data", "small")], STAY));
    world.ready("writer");
    world.exec("writer", &["sh", "-c", "head -c 3000000 /dev/zero > /data/big"]).ok();
    let condition = |w: &World| {
        let claim = get(w, "pvc", "small")?;
        let all = claim["status"]["conditions"].as_array()?.clone();
        all.into_iter().find(|c| c["type"] == "reddwarf.io/OverSize")
    };
    // Looked at soon after every start.
    world.stop();
    world.start();
    let over = world.until("the condition", condition);
    assert_eq!(over["status"], "True");
    let said = world.until("the event", |w| said(w, "VolumeOverSize").pop());
    assert!(said.starts_with("its files take 3 MiB, 1 MiB were asked for"), "{said}");
    assert!(is_ready(&world.pod("writer").unwrap()), "nothing is evicted for it");
    world.exec("writer", &["rm", "/data/big"]).ok();
    world.stop();
    world.start();
    world.until("the condition to change", |w| (condition(w)?["status"] == "False").then_some(()));
}
