//! Fields of pods as containers meet them: variables and arguments, what containers share, what images bring along, gates,
//! hooks, limits of pods, every kind of hostPath.

use crate::harness::{World, run, skip};
use crate::pods::{FOREVER, pod};
use crate::probes::SERVER;
use crate::resources::{cgroup, request};
use crate::security::box_image;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const OBJECTS: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {COLOUR: red}\n---\n\
    apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {WORD: hush}\n---\n\
    apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.7.7, ports: [{port: 80}]}\n";

fn ns(world: &World, container: &str, what: &str) -> String {
    world.ctl(&["exec", "vars", "-c", container, "--", "readlink", &format!("/proc/self/ns/{what}")]).ok()
}

#[test]
fn variables_and_arguments_are_put_together_and_containers_share_what_they_should() {
    if skip() {
        return;
    }
    let world = World::started("fields");
    world.file("a.yaml", OBJECTS);
    world.until("the service", |w| (w.ctl(&["get", "service", "web"]).code == 0).then_some(()));
    let env = "env: [{name: WHO, value: you}, {name: GREETING, value: 'hello $(WHO)'}, \
        {name: WORD, valueFrom: {secretKeyRef: {name: key, key: WORD}}}, \
        {name: NONE, valueFrom: {configMapKeyRef: {name: gone, key: k, optional: true}}}, \
        {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}, \
        {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}], \
        envFrom: [{prefix: MAP_, configMapRef: {name: map}}, {configMapRef: {name: gone, optional: true}}], \
        resources: {limits: {cpu: 250m}}";
    world.file(
        "b.yaml",
        &format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: vars, annotations: {{reddwarf.io/zone-brand: sparse}}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
             - {{name: main, command: [sh, -c, 'echo \"$@\"; env; exec sleep 1000', sh], args: ['$(GREETING), $(MAP_COLOUR) $(NOBODY) $$(GREETING)'], {env}}}\n  \
             - {{name: other, command: [sh, -c, {FOREVER:?}]}}\n"
        ),
    );
    world.file("c.yaml", &pod("host", "hostNetwork: true,", &format!("[sh, -c, {FOREVER:?}]"), ""));
    world.ready("vars");
    let log = world.ctl(&["logs", "vars", "-c", "main"]).ok();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], "hello you, red $(NOBODY) $(GREETING)");
    for line in [
        "GREETING=hello you",
        "MAP_COLOUR=red",
        "WORD=hush",
        "CPU=250",
        "NODE=node-under-test",
        "WEB_SERVICE_HOST=10.96.7.7",
        "WEB_SERVICE_PORT=80",
        "WEB_PORT_80_TCP_ADDR=10.96.7.7",
        "HOSTNAME=vars",
    ] {
        assert!(lines.contains(&line), "{line} is missing in {log}");
    }
    assert!(!log.contains("NONE="), "{log}");
    for shared in ["net", "ipc", "uts"] {
        assert_eq!(ns(&world, "main", shared), ns(&world, "other", shared), "{shared}");
    }
    for own in ["pid", "mnt"] {
        assert_ne!(ns(&world, "main", own), ns(&world, "other", own), "{own}");
    }
    world.ctl(&["exec", "vars", "-c", "main", "--", "touch", "/dev/shm/here"]).ok();
    assert_eq!(world.ctl(&["exec", "vars", "-c", "other", "--", "ls", "/dev/shm"]).ok(), "here\n");

    let status = world.ready("host")["status"].clone();
    assert_eq!(status["podIP"], status["hostIP"]);
    let of_host = world.inside("readlink").arg("/proc/self/ns/net").output().unwrap().stdout;
    assert_eq!(world.exec("host", &["readlink", "/proc/self/ns/net"]).ok().as_bytes(), of_host);
    let own_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(world.exec("host", &["cat", "/proc/sys/kernel/hostname"]).ok(), own_name);
}

const RECIPE: &str = "name: local/set:1
from: local/own:1
entrypoint: [/bin/sh, -c, 'trap \"echo asked; exit 0\" USR1; echo \"$0 $GREETING $(pwd) $(id -u)\"; while :; do sleep 0.05; done']
cmd: [word]
env: {GREETING: hello, PATH: /bin}
workdir: /srv/here
user: '1234'
stopSignal: SIGUSR1
";

#[test]
fn an_image_says_how_it_is_run_and_the_pod_has_the_last_word() {
    if skip() {
        return;
    }
    let world = World::started("imageconfig");
    box_image(&world);
    let recipe = world.dir.join("set.yaml");
    std::fs::write(&recipe, RECIPE).unwrap();
    world.ctl(&["image", "build", recipe.to_str().unwrap()]).ok();
    let pod = |name: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{terminationGracePeriodSeconds: 15, containers: [{{name: main, image: 'local/set:1', {more}}}]}}\n"
        )
    };
    world.file("own.yaml", &pod("own", ""));
    world.file(
        "other.yaml",
        &pod(
            "other",
            "args: [another], env: [{name: GREETING, value: hi}], workingDir: /srv, securityContext: {runAsUser: 7}",
        ),
    );
    world.ready("own");
    world.ready("other");
    world.until("what it says", |w| (w.ctl(&["logs", "own"]).out == "word hello /srv/here 1234\n").then_some(()));
    world.until("the other's word", |w| (w.ctl(&["logs", "other"]).out == "another hi /srv 7\n").then_some(()));
    let began = Instant::now();
    world.ctl(&["restart", "own"]).ok();
    world.until("the restart", |w| {
        w.pod("own").filter(|p| p["status"]["containerStatuses"][0]["restartCount"] == 1 && crate::harness::is_ready(p))
    });
    assert!(world.ctl(&["logs", "--previous", "own"]).ok().ends_with("\nasked\n"), "by the image's signal");
    assert!(began.elapsed() < Duration::from_secs(10), "and not after the grace");
}

fn sparse(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": {"reddwarf.io/zone-brand": "sparse"}}, "spec": spec})
}

fn condition(pod: &Value, kind: &str) -> Value {
    let all = pod["status"]["conditions"].as_array().into_iter().flatten();
    all.into_iter().find(|c| c["type"] == kind).cloned().unwrap_or_default()
}

#[test]
fn every_kind_of_host_path_gates_hooks_and_limits_of_pods() {
    if skip() {
        return;
    }
    let world = World::new("kinds");
    let given = world.dir.join("given");
    std::fs::create_dir_all(given.join("dir")).unwrap();
    std::fs::write(given.join("file"), "x").unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(given.join("socket")).unwrap();
    for (name, kind, numbers) in [("char", "c", ["1", "3"]), ("block", "b", ["7", "0"])] {
        run("mknod", &[given.join(name).to_str().unwrap(), kind, numbers[0], numbers[1]]).ok();
    }
    let mut world = world.arg("--host-path-allow").arg(given.to_str().unwrap());
    world.start();
    let kinds = [
        ("file", "File", "regular file"),
        ("dir", "Directory", "directory"),
        ("socket", "Socket", "socket"),
        ("char", "CharDevice", "character special file"),
        ("block", "BlockDevice", "block special file"),
        ("new-file", "FileOrCreate", "regular empty file"),
        ("new/dir", "DirectoryOrCreate", "directory"),
    ];
    let volume = |(at, (path, kind, _)): (usize, &(&str, &str, &str))| json!({"name": format!("v{at}"), "hostPath": {"path": given.join(path), "type": kind}});
    let volumes: Vec<Value> = kinds.iter().enumerate().map(volume).collect();
    let mounts: Vec<Value> =
        (0..kinds.len()).map(|at| json!({"name": format!("v{at}"), "mountPath": format!("/v{at}")})).collect();
    let main = |more: Value| {
        let mut main = json!({"name": "main", "command": ["sh", "-c", FOREVER]});
        more.as_object().unwrap().iter().for_each(|(key, value)| main[key] = value.clone());
        main
    };
    let quick = |containers: Value| json!({"terminationGracePeriodSeconds": 1, "containers": containers});
    let mut kept = quick(json!([main(json!({"volumeMounts": mounts}))]));
    kept["volumes"] = json!(volumes);
    world.file("kinds.json", &sparse("kinds", kept).to_string());
    let mut wrong = quick(json!([main(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))]));
    wrong["volumes"] = json!([{"name": "v", "hostPath": {"path": given.join("file"), "type": "Directory"}}]);
    world.file("wrong.json", &sparse("wrong", wrong).to_string());
    // Of the pod, not of its containers.
    let mut sized = quick(json!([main(json!({})), {"name": "second", "command": ["sh", "-c", FOREVER]}]));
    sized["resources"] = json!({"limits": {"memory": "64Mi", "cpu": "500m"}});
    world.file("sized.json", &sparse("sized", sized).to_string());
    let mut bare = quick(json!([main(json!({"securityContext": {"procMount": "Unmasked"}}))]));
    bare["hostUsers"] = json!(false);
    world.file("bare.json", &sparse("bare", bare).to_string());
    let server = json!({"name": "main", "command": ["perl", "-e", SERVER]});
    world.file("web.json", &sparse("web", quick(json!([server]))).to_string());
    let gated = sparse(
        "gated",
        json!({"terminationGracePeriodSeconds": 1, "readinessGates": [{"conditionType": "example.com/switch"}], "containers": [main(json!({}))]}),
    );
    let pods = "/api/v1/namespaces/default/pods";
    request(&world, "POST", pods, "application/json", &gated).ok();

    world.ready("kinds");
    for (at, (path, _, what)) in kinds.iter().enumerate() {
        assert_eq!(world.exec("kinds", &["stat", "-c", "%F", &format!("/v{at}")]).ok(), format!("{what}\n"), "{path}");
    }
    assert_eq!(
        world.exec("kinds", &["sh", "-c", "echo > /v3 && head -c0 /v4"]).code,
        1,
        "a device that it may not open"
    );
    let words = format!("hostPath type check failed: {} is not a directory", given.join("file").display());
    world.until("the wrong kind to be named", |w| {
        let events = w.ctl(&["events"]).out + &w.pod("wrong")?.to_string();
        events.contains(&words).then_some(())
    });

    // Hooks by HTTP and by time.
    let web = world.ready("web")["status"]["podIP"].as_str().unwrap().to_owned();
    let told = json!({"lifecycle": {"postStart": {"httpGet": {"host": web, "port": 8080, "path": "/started"}}, "preStop": {"httpGet": {"host": web, "port": 8080, "path": "/stopping"}}}});
    let slept = json!({"name": "slept", "command": ["sh", "-c", FOREVER], "lifecycle": {"postStart": {"sleep": {"seconds": 1}}}});
    let began = Instant::now();
    world.file("hooked.json", &sparse("hooked", quick(json!([main(told), slept]))).to_string());
    world.ready("hooked");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    world.remove("hooked.json");
    world.gone("hooked");
    let asked = world.ctl(&["logs", "web"]).ok();
    assert_eq!(
        asked,
        "GET /started HTTP/1.1\r\nGET /stopping HTTP/1.1\r\n"
            .replace('\r', if asked.contains('\r') { "\r" } else { "" })
    );

    world.ready("sized");
    let of_pod = cgroup(&world, "sized", None, ("memory", "memory.limit_in_bytes"), "memory.max");
    assert_eq!(of_pod, (64 << 20).to_string());
    world.ready("bare");
    let masked = "grep -c ' /proc/' /proc/self/mountinfo";
    assert_eq!(world.exec("bare", &["sh", "-c", masked]).out, "0\n");
    assert_ne!(world.exec("kinds", &["sh", "-c", masked]).out, "0\n");

    // Others have a say in whether it is ready.
    let waiting = world.until("its containers", |w| {
        w.pod("gated").filter(|p| {
            condition(p, "ContainersReady")["status"] == "True" && condition(p, "Ready")["status"] == "False"
        })
    });
    assert_eq!(condition(&waiting, "Ready")["reason"], "ReadinessGatesNotReady");
    let switch = json!({"status": {"conditions": [{"type": "example.com/switch", "status": "True"}]}});
    request(&world, "PATCH", &format!("{pods}/gated/status"), "application/strategic-merge-patch+json", &switch).ok();
    let ready = world.ready("gated");
    for kind in ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"] {
        let one = condition(&ready, kind);
        assert!(one["status"] == "True" && one["lastTransitionTime"].is_string(), "{kind}: {one}");
    }
    assert_eq!(ready["status"]["qosClass"], "BestEffort");
}
