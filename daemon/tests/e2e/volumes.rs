//! Volumes and variables as containers see them: each kind from inside with mode and owner, changes without a moment
//! without the file, tokens that the API takes.

use crate::harness::{Said, World, run, skip};
use serde_json::Value;
use std::time::Instant;

fn sh(world: &World, pod: &str, script: &str) -> Said {
    world.exec(pod, &["sh", "-c", script])
}

/// A sparse pod that stays; `spec` and `container` are insides of flow mappings.
fn pod(name: &str, spec: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{tier: front}}\n  annotations: {{reddwarf.io/zone-brand: sparse}}\n\
         spec: {{terminationGracePeriodSeconds: 1, {spec} containers: [{{name: main, command: [sh, -c, \"exec sleep 1000\"], {container} }}]}}\n"
    )
}

fn events(world: &World, reason: &str) -> Vec<String> {
    let all = world.json(&["get", "events", "-A", "-o", "json"]);
    let list = all["items"].as_array().cloned().unwrap_or_default();
    let of = list.iter().filter(|e| e["reason"] == reason);
    of.filter_map(|e| e["message"].as_str().map(str::to_owned)).collect()
}

#[test]
fn every_kind_is_there_with_its_mode_and_owner() {
    if skip() {
        return;
    }
    let world = World::new("volumes");
    let host = world.dir.join("given");
    std::fs::create_dir_all(host.join("inner")).unwrap();
    std::fs::write(host.join("inner/f"), "from the host").unwrap();
    let mut world = world.arg("--host-path-allow").arg(host.to_str().unwrap());
    world.start();
    let volumes = format!(
        "volumes: [{{name: disk, emptyDir: {{}}}}, {{name: mem, emptyDir: {{medium: Memory, sizeLimit: 1Mi}}}},\
         {{name: map, configMap: {{name: map}}}}, {{name: key, secret: {{secretName: key, defaultMode: 256}}}},\
         {{name: self, downwardAPI: {{items: [{{path: labels, fieldRef: {{fieldPath: metadata.labels}}}},\
           {{path: mem, resourceFieldRef: {{containerName: main, resource: limits.memory, divisor: 1Mi}}}}]}}}},\
         {{name: all, projected: {{defaultMode: 288, sources: [{{configMap: {{name: map, items: [{{key: colour, path: deep/colour}}]}}}},\
           {{secret: {{name: key}}}}, {{secret: {{name: none, optional: true}}}}]}}}},\
         {{name: host, hostPath: {{path: {}, type: Directory}}}}],",
        host.display()
    );
    let container = "resources: {limits: {memory: 64Mi}}, env: [{name: WHO, value: one}, {name: FILE, valueFrom: {fileKeyRef: {volumeName: disk, path: made.env, key: SAID}}}],\
         volumeMounts: [{name: disk, mountPath: /disk}, {name: mem, mountPath: /mem}, {name: map, mountPath: /map},\
         {name: key, mountPath: /key}, {name: self, mountPath: /self}, {name: all, mountPath: /all}, {name: host, mountPath: /host, readOnly: true},\
         {name: disk, mountPath: /sub, subPath: a/b}, {name: disk, mountPath: /mine, subPathExpr: \"of-$(WHO)\"},\
         {name: map, mountPath: /etc/one-key, subPath: colour}]";
    let first = "initContainers: [{name: first, command: [sh, -c, \"echo 'SAID=hello there' > /disk/made.env\"], volumeMounts: [{name: disk, mountPath: /disk}]}],";
    world.file("a.yaml", &pod("all", &format!("{volumes}{first}"), container));
    // Until what it refers to is there it says what is missing.
    world.until("the event about the missing ConfigMap", |w| {
        let said = events(w, "FailedMount");
        said.iter()
            .any(|m| m == "MountVolume.SetUp failed for volume \"map\" : configmap \"map\" not found")
            .then_some(())
    });
    world.file(
        "b.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {colour: red}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {word: hush}\n",
    );
    world.ready("all");
    let look = "for p in /disk /mem /map/colour /key/word /self/labels /self/mem /all/deep/colour /all/word /host/inner/f /sub /mine /etc/one-key; do \
        stat -L -c '%n %a %u:%g %F' $p; done";
    assert_eq!(
        sh(&world, "all", look).ok(),
        "/disk 777 0:0 directory\n/mem 777 0:0 directory\n/map/colour 644 0:0 regular file\n/key/word 400 0:0 regular file\n\
         /self/labels 644 0:0 regular file\n/self/mem 644 0:0 regular file\n/all/deep/colour 440 0:0 regular file\n\
         /all/word 440 0:0 regular file\n/host/inner/f 644 0:0 regular file\n/sub 777 0:0 directory\n/mine 777 0:0 directory\n\
         /etc/one-key 644 0:0 regular file\n"
    );
    let read = "cat /map/colour /key/word /self/mem /all/deep/colour /host/inner/f /etc/one-key; echo; cat /self/labels; echo; echo $FILE; \
        readlink /map/colour /map/..data | sed 's/\\.\\.[0-9_.]*$/TIME/'; stat -f -c %T /mem /key /self /all";
    assert_eq!(
        sh(&world, "all", read).ok(),
        "redhush64redfrom the hostred\ntier=\"front\"\nhello there\n..data/colour\nTIME\ntmpfs\ntmpfs\ntmpfs\ntmpfs\n"
    );
    let write = "touch /disk/x /mem/x /sub/x && ls /disk/a/b; for p in /map /key /self /all /host /etc/one-key; do \
        touch $p/x 2>/dev/null && echo \"$p is written\"; done; head -c 3000000 /dev/zero > /mem/big 2>/dev/null || echo full";
    assert_eq!(sh(&world, "all", write).ok(), "x\nfull\n");
    // What the settings do not allow is refused with its field, and nothing runs.
    world.file(
        "c.yaml",
        &pod("no", "volumes: [{name: v, hostPath: {path: /etc}}],", "volumeMounts: [{name: v, mountPath: /v}]"),
    );
    let message = world.until("the refusal", |w| {
        let conditions = w.pod("no")?["status"]["conditions"].as_array()?.clone();
        conditions
            .iter()
            .find_map(|c| c["message"].as_str().filter(|m| m.contains("host_path_allow")).map(str::to_owned))
    });
    assert!(message.contains("spec.volumes[0].hostPath.path"), "{message}");
}

#[test]
fn a_change_shows_at_once_and_there_is_no_moment_without_the_file() {
    if skip() {
        return;
    }
    let world = World::started("live");
    let map =
        |value: u32| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: map}}\ndata: {{n: \"{value}\"}}\n");
    world.file("map.yaml", &map(0));
    let watch = "while :; do true < /map/n || echo MISSING; done";
    let spec = "volumes: [{name: map, configMap: {name: map}}, {name: self, downwardAPI: {items: [{path: l, fieldRef: {fieldPath: \"metadata.labels['tier']\"}}]}}],";
    let text = pod("user", spec, "volumeMounts: [{name: map, mountPath: /map}, {name: map, mountPath: /fixed, subPath: n}, {name: self, mountPath: /self}]")
        .replace("exec sleep 1000", watch);
    world.file("user.yaml", &text);
    let before = world.ready("user");
    for value in 1..=8 {
        world.file("map.yaml", &map(value));
        let began = Instant::now();
        world.until("the new value", |w| (sh(w, "user", "cat /map/n").out == value.to_string()).then_some(()));
        assert!(began.elapsed().as_millis() < 2500, "{value} came after {:?}", began.elapsed());
    }
    assert_eq!(sh(&world, "user", "cat /fixed").ok(), "0", "a sub path stays");
    world.until("one set to be left", |w| (sh(w, "user", "ls -A /map | wc -l").out == "3\n").then_some(()));
    world.file("user.yaml", &text.replace("tier: front", "tier: back"));
    world.until("the new label", |w| (sh(w, "user", "cat /self/l").out == "back").then_some(()));
    assert_eq!(world.ctl(&["logs", "user"]).ok(), "", "the file was there at every moment");
    let after = world.ready("user");
    assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
}

#[test]
fn a_pods_token_is_taken_by_the_api() {
    if skip() {
        return;
    }
    const DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mut world = World::new("token").arg("--listen").arg("127.0.0.1:6443");
    world.start();
    world.file("file.yaml", &pod("file", "hostNetwork: true,", ""));
    world.file("none.yaml", &pod("none", "automountServiceAccountToken: false,", ""));
    world.file(
        "made.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: made}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    \
         metadata: {labels: {a: b}, annotations: {reddwarf.io/zone-brand: sparse}}\n    spec: {terminationGracePeriodSeconds: 1, \
         containers: [{name: main, image: x, command: [sh, -c, \"exec sleep 1000\"]}]}\n",
    );
    let before = world.ready("file");
    world.ready("none");
    let ask = format!(
        "cd {DIR}; cat namespace; echo; stat -L -c %a token; curl -sS --cacert ca.crt -H \"Authorization: Bearer $(cat token)\" \
         -H 'Content-Type: application/json' -d '{{\"apiVersion\":\"authentication.k8s.io/v1\",\"kind\":\"SelfSubjectReview\"}}' \
         https://127.0.0.1:6443/apis/authentication.k8s.io/v1/selfsubjectreviews"
    );
    let answer = sh(&world, "file", &ask).ok();
    let (head, review) = answer.split_at(answer.find('{').unwrap_or_default());
    assert_eq!(head, "default\n644\n");
    let review: Value = serde_json::from_str(review).unwrap_or_else(|e| panic!("{e}: {answer}"));
    let who = &review["status"]["userInfo"];
    assert_eq!(who["username"], "system:serviceaccount:default:default", "{review:#}");
    assert_eq!(who["extra"]["authentication.kubernetes.io/pod-name"][0], "file", "{review:#}");
    assert!(!sh(&world, "file", "echo $KUBERNETES_SERVICE_PORT_HTTPS").ok().trim().is_empty());
    // The file's pod stays as the file has it; what a controller makes shows its volume.
    assert_eq!(before["spec"]["volumes"], Value::Null, "{before:#}");
    assert_ne!(sh(&world, "none", &format!("ls {DIR}")).code, 0);
    let made = world.until("the Deployment's pod", |w| {
        let pods = w.json(&["get", "pods", "-o", "json"]);
        pods["items"]
            .as_array()?
            .iter()
            .find(|p| p["metadata"]["labels"]["a"] == "b")
            .filter(|p| crate::harness::is_ready(p))
            .cloned()
    });
    let name = made["spec"]["volumes"][0]["name"].as_str().unwrap_or_default().to_owned();
    assert!(name.starts_with("kube-api-access-"), "{made:#}");
    let made = made["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(sh(&world, &made, &format!("cat {DIR}/token")).ok().starts_with("eyJ"));
    // Another daemon takes up the token that is there, and restarts nothing.
    let token = sh(&world, "file", &format!("cat {DIR}/token")).ok();
    world.kill9();
    world.start();
    world.ready("file");
    world.until("a pass", |w| (w.ctl(&["status"]).code == 0).then_some(()));
    assert_eq!(sh(&world, "file", &format!("cat {DIR}/token")).ok(), token);
    assert_eq!(world.ready("file")["status"]["containerStatuses"][0]["restartCount"], 0);
}

#[test]
fn mounts_pass_on_what_they_should() {
    if skip() {
        return;
    }
    let world = World::new("propagation");
    let shared = world.dir.join("shared");
    for dir in ["", "later", "below"] {
        std::fs::create_dir_all(shared.join(dir)).unwrap();
    }
    let path = shared.to_str().unwrap().to_owned();
    // Its own shared mount: the machine's root may be private.
    run("mount", &["--bind", &path, &path]).ok();
    run("mount", &["--make-shared", &path]).ok();
    run("mount", &["-t", "tmpfs", "below", &format!("{path}/below")]).ok();
    let mut world = world.arg("--host-path-allow").arg(&path);
    world.start();
    let mounts = "volumeMounts: [{name: v, mountPath: /alone}, {name: v, mountPath: /follows, mountPropagation: HostToContainer},\
        {name: v, mountPath: /ro, readOnly: true}, {name: v, mountPath: /rro, readOnly: true, recursiveReadOnly: Enabled}]";
    world.file("p.yaml", &pod("p", &format!("volumes: [{{name: v, hostPath: {{path: {path}}}}}],"), mounts));
    world.ready("p");
    run("mount", &["-t", "tmpfs", "later", &format!("{path}/later")]).ok();
    run("touch", &[&format!("{path}/later/seen")]).ok();
    let seen = sh(&world, "p", "cd /; ls alone/later follows/later").ok();
    assert_eq!(seen, "alone/later:\n\nfollows/later:\nseen\n");
    let write = "touch /ro/x 2>/dev/null && echo bad; touch /rro/x 2>/dev/null && echo bad; touch /ro/below/x && echo below; \
        touch /rro/below/y 2>/dev/null && echo bad; echo end";
    assert_eq!(sh(&world, "p", write).ok(), "below\nend\n");
    mounts_made_inside_are_seen_outside(&world, &path);
    world.remove("p.yaml");
    world.gone("p");
    for dir in ["later", "below"] {
        run("umount", &["-l", &format!("{path}/{dir}")]);
    }
    run("umount", &["-l", &path]);
}

/// A privileged pod mounts: what it mounts below a Bidirectional mount is there on the host and for pods that follow, and goes
/// with its unmounting; what it mounts elsewhere is its own.
fn mounts_made_inside_are_seen_outside(world: &World, path: &str) {
    let giver = "securityContext: {privileged: true}, \
        volumeMounts: [{name: v, mountPath: /both, mountPropagation: Bidirectional}, {name: v, mountPath: /own}]";
    world.file("giver.yaml", &pod("giver", &format!("volumes: [{{name: v, hostPath: {{path: {path}}}}}],"), giver));
    world.ready("giver");
    let of_giver = sh(world, "giver", "grep CapBnd /proc/self/status").ok();
    let of_host = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(of_host.contains(&of_giver), "all that the host has: {of_giver}");
    let mount = "mkdir -p /both/given /own/kept && mount -t tmpfs given /both/given && touch /both/given/mark && \
        mount -t tmpfs kept /own/kept && touch /own/kept/mark && ls /own/given /own/kept";
    assert_eq!(sh(world, "giver", mount).ok(), "/own/given:\n\n/own/kept:\nmark\n", "the other mount of it is private");
    let on_host = |dir: &str| std::fs::read_dir(format!("{path}/{dir}")).unwrap().count();
    assert_eq!((on_host("given"), on_host("kept")), (1, 0));
    assert_eq!(
        sh(world, "p", "cd /; ls follows/given alone/given follows/kept").ok(),
        "alone/given:\n\nfollows/given:\nmark\n\nfollows/kept:\n"
    );
    sh(world, "giver", "umount /both/given").ok();
    assert_eq!(on_host("given"), 0);
    assert_eq!(sh(world, "p", "ls /follows/given").ok(), "");
    world.remove("giver.yaml");
    world.gone("giver");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("/given") && !mounts.contains(&format!("{path}/kept")), "{mounts}");
}
