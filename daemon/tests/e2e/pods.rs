//! A file becomes a running, isolated, addressed process, and everything a pod asks for is real.

use crate::harness::{World, run, skip};
use std::process::Command;

pub use crate::client::{FOREVER, pod, script};

#[test]
fn a_pod_file_becomes_a_running_isolated_addressed_process_and_leaves_nothing() {
    if skip() {
        return;
    }
    let mut world = World::started("pod");
    world.file("web.yaml", &script("web", FOREVER));
    let pod = world.ready("web");
    let ip = pod["status"]["podIP"].as_str().unwrap().to_owned();
    assert!(ip.starts_with(world.cidr.rsplit_once('.').unwrap().0), "{ip} outside {}", world.cidr);
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(pod["spec"]["nodeName"], "node-under-test");

    // Its own host name, pids, mounts and network.
    assert_eq!(world.exec("web", &["hostname"]).ok().trim(), "web");
    let processes = world.exec("web", &["sh", "-c", "ls -d /proc/[0-9]* | wc -l"]).ok();
    assert!(processes.trim().parse::<u32>().unwrap() < 8, "sees {processes} processes");
    assert!(!std::path::Path::new("/etc/shadow").exists() || world.exec("web", &["cat", "/etc/shadow"]).code != 0);
    assert_ne!(world.exec("web", &["touch", "/usr/oops"]).code, 0, "/usr must be read-only");
    world.exec("web", &["touch", "/tmp/fine", "/etc/fine", "/var/fine"]).ok();
    run("nsenter", &[&format!("--net=/run/netns/{}", world.name), "--", "ping", "-c1", "-W2", &ip]).ok();

    assert_eq!(world.ctl(&["logs", "web"]).ok(), "up\n");

    world.remove("web.yaml");
    world.gone("web");
    assert_eq!(world.traces(), Vec::<String>::new());
    world.stop();
}

#[test]
fn containers_share_the_network_and_init_containers_run_first() {
    if skip() {
        return;
    }
    let world = World::started("init");
    world.file(
        "pair.yaml",
        r#"
apiVersion: v1
kind: Pod
metadata: {name: pair, annotations: {reddwarf.io/zone-brand: sparse}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
    - {name: one, command: [sh, -c, "echo one >> /work/order"], volumeMounts: [{name: work, mountPath: /work}]}
    - {name: two, command: [sh, -c, "echo two >> /work/order"], volumeMounts: [{name: work, mountPath: /work}]}
  containers:
    - {name: server, command: [busybox, httpd, -f, -p, "8080", -h, /work], volumeMounts: [{name: work, mountPath: /work}]}
    - {name: other, command: [sh, -c, "exec sleep 1000"]}
  volumes: [{name: work, emptyDir: {}}]
"#,
    );
    let pod = world.ready("pair");
    assert_eq!(pod["status"]["initContainerStatuses"][1]["state"]["terminated"]["reason"], "Completed");
    let text = world.until("the neighbour's answer", |w| {
        let said = w.ctl(&["exec", "pair", "-c", "other", "--", "curl", "-s", "http://127.0.0.1:8080/order"]);
        (said.code == 0).then_some(said.out)
    });
    assert_eq!(text, "one\ntwo\n");
    let own = world.ctl(&[
        "exec",
        "pair",
        "-c",
        "other",
        "--",
        "sh",
        "-c",
        "grep -l httpd /proc/[0-9]*/cmdline | grep -v self",
    ]);
    assert!(!own.out.contains("/proc/1/"), "pid namespaces are separate: {own:?}");
}

#[test]
fn limits_of_cpu_memory_and_pids_are_enforced() {
    if skip() {
        return;
    }
    let world = World::started("limits");
    world.file(
        "hog.yaml",
        &pod(
            "hog",
            "restartPolicy: Never,",
            r#"[python3, -c, "x = bytearray(200 << 20)"]"#,
            "resources: {limits: {memory: 32Mi, cpu: 500m}}",
        ),
    );
    let pod = world.until("the hog to be killed", |w| w.pod("hog").filter(|p| p["status"]["phase"] == "Failed"));
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(ended["reason"], "OOMKilled", "{pod:#}");
    assert_eq!(ended["exitCode"], 137);
}

#[test]
fn configmaps_and_secrets_from_files_reach_environment_and_volumes_and_changes_are_live() {
    if skip() {
        return;
    }
    let world = World::started("config");
    let config = |colour: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: paint}}\ndata: {{colour: {colour}, fixed: same}}\n---\n\
             apiVersion: v1\nkind: Secret\nmetadata: {{name: key}}\nstringData: {{word: hush}}\n"
        )
    };
    world.file("config.yaml", &config("red"));
    world.file(
        "user.yaml",
        &format!(
            "{}  volumes:\n    - {{name: paint, configMap: {{name: paint}}}}\n    - {{name: key, secret: {{secretName: key}}}}\n",
            r#"
apiVersion: v1
kind: Pod
metadata: {name: user, annotations: {reddwarf.io/zone-brand: sparse}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      command: [sh, -c, "exec sleep 1000"]
      env:
        - {name: FIXED, valueFrom: {configMapKeyRef: {name: paint, key: fixed}}}
        - {name: WORD, valueFrom: {secretKeyRef: {name: key, key: word}}}
        - {name: BOTH, value: "$(FIXED)-$(WORD)"}
        - {name: COLOUR, valueFrom: {configMapKeyRef: {name: paint, key: colour}}}
        - {name: TIER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}
      envFrom: [{prefix: ALL_, configMapRef: {name: paint}}]
      volumeMounts: [{name: paint, mountPath: /paint}, {name: key, mountPath: /key}]
"#
            .trim_start()
        ),
    );
    let before = world.ready("user");
    assert_eq!(
        world.exec("user", &["sh", "-c", "echo $BOTH; cat /paint/colour; echo; cat /key/word"]).ok(),
        "same-hush\nred\nhush"
    );

    world.file("config.yaml", &config("blue"));
    world.until("the file to change inside", |w| {
        (w.exec("user", &["cat", "/paint/colour"]).out == "blue").then_some(())
    });
    let after = world.pod("user").unwrap();
    assert_eq!(
        before["status"]["containerStatuses"][0]["containerID"], after["status"]["containerStatuses"][0]["containerID"],
        "a mounted file's change restarts nothing, nor does a variable's source"
    );
    let variables = ["sh", "-c", "echo $COLOUR-$ALL_colour"];
    assert_eq!(world.exec("user", &variables).ok().trim(), "red-red");
    world.ctl(&["restart", "user"]).ok();
    world.until("the next start's variables", |w| (w.exec("user", &variables).out.trim() == "blue-blue").then_some(()));
    for args in [&["describe", "secret", "key"][..], &["why", "pod/user"], &["events"], &["plan"]] {
        let said = world.ctl(args);
        assert!(!said.out.contains("hush") && !said.out.contains("aHVzaA"), "{args:?} shows the secret: {}", said.out);
    }
    assert!(!world.log().contains("hush"));
}

#[test]
fn a_missing_reference_is_named_and_heals_when_it_appears() {
    if skip() {
        return;
    }
    let world = World::started("missing");
    world.file(
        "needy.yaml",
        &pod(
            "needy",
            "",
            "[sh, -c, 'exec sleep 1000']",
            "env: [{name: A, valueFrom: {configMapKeyRef: {name: late, key: a}}}]",
        ),
    );
    let waiting = world.until("the reason", |w| {
        let pod = w.pod("needy")?;
        let waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
        (waiting["reason"] == "CreateContainerConfigError").then_some(waiting)
    });
    assert!(waiting["message"].as_str().unwrap().contains("late"), "{waiting}");
    assert_eq!(world.ctl(&["status"]).code, 3);
    world.file("late.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: late}\ndata: {a: b}\n");
    world.ready("needy");
}

#[test]
fn an_image_is_imported_from_a_directory_and_run_with_its_own_root() {
    if skip() {
        return;
    }
    let world = World::started("image");
    let root = world.dir.join("rootfs");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::create_dir_all(root.join("data")).unwrap();
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
    std::fs::File::create(root.join("data/from-the-image")).unwrap();

    let file = "apiVersion: v1\nkind: Pod\nmetadata: {name: boxed}\nspec: {terminationGracePeriodSeconds: 1, \
                containers: [{name: main, image: 'local/box:1', command: [/bin/sh, -c, '/bin/busybox ls /data; exec /bin/busybox sleep 1000']}]}\n";
    world.file("boxed.yaml", file);
    world.until("the missing image to be named", |w| {
        let pod = w.pod("boxed")?;
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
            .as_str()
            .filter(|r| r.contains("Image"))
            .map(drop)
    });
    world.ctl(&["image", "import", root.to_str().unwrap(), "--name", "local/box:1"]).ok();
    world.ready("boxed");
    world.until("the log", |w| (w.ctl(&["logs", "boxed"]).out == "from-the-image\n").then_some(()));
    assert!(world.ctl(&["image", "ls"]).ok().contains("local/box:1"));
    assert_ne!(world.ctl(&["image", "rm", "local/box:1"]).code, 0, "in use");
    world.remove("boxed.yaml");
    world.gone("boxed");
    world.ctl(&["image", "rm", "local/box:1"]).ok();
}

#[test]
fn pods_reach_each_other_and_the_host_and_traffic_outward_is_masqueraded() {
    if skip() {
        return;
    }
    let world = World::started("net");
    world.file("a.yaml", &pod("a", "", "[busybox, httpd, -f, -p, '8080', -h, /usr/share]", ""));
    world.file("b.yaml", &script("b", FOREVER));
    let a = world.ready("a")["status"]["podIP"].as_str().unwrap().to_owned();
    let b = world.ready("b")["status"]["podIP"].as_str().unwrap().to_owned();
    assert_ne!(a, b);
    world.until("b to reach a", |w| {
        (w.exec("b", &["curl", "-s", "-o", "/dev/null", &format!("http://{a}:8080/")]).code == 0).then_some(())
    });

    // An outer host that knows nothing of the pod network.
    let outer = format!("{}o", world.name);
    run("ip", &["netns", "add", &outer]).ok();
    struct Gone(String);
    impl Drop for Gone {
        fn drop(&mut self) {
            run("ip", &["netns", "del", &self.0]);
        }
    }
    let _gone = Gone(outer.clone());
    run("ip", &["-n", &world.name, "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", &outer])
        .ok();
    run("ip", &["-n", &world.name, "addr", "add", "192.0.2.1/30", "dev", "up0"]).ok();
    run("ip", &["-n", &world.name, "link", "set", "up0", "up"]).ok();
    run("ip", &["-n", &outer, "addr", "add", "192.0.2.2/30", "dev", "down0"]).ok();
    run("ip", &["-n", &outer, "link", "set", "down0", "up"]).ok();
    let mut server = Command::new("nsenter")
        .args([&format!("--net=/run/netns/{outer}"), "--", "busybox", "httpd", "-f", "-p", "8081", "-h", "/usr/share"])
        .spawn()
        .unwrap();
    world.until("b to reach the outer host", |w| {
        (w.exec("b", &["curl", "-s", "-o", "/dev/null", "--max-time", "2", "http://192.0.2.2:8081/"]).code == 0)
            .then_some(())
    });
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn security_settings_reach_the_process() {
    if skip() {
        return;
    }
    let world = World::started("security");
    world.file(
        "plain.yaml",
        &pod("plain", "", "[sh, -c, 'exec sleep 1000']", "securityContext: {runAsUser: 1234, runAsGroup: 2345, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}"),
    );
    world.ready("plain");
    assert_eq!(world.exec("plain", &["sh", "-c", "id -u; id -g"]).ok(), "1234\n2345\n");
    assert_ne!(world.exec("plain", &["touch", "/etc/x"]).code, 0);
    let status = world.exec("plain", &["cat", "/proc/1/status"]).ok();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("CapBnd:\t0000000000000000"), "{status}");
}

/// The daemon's own runtime is one of three: with the others a pod lives just the same.
#[test]
fn pods_live_by_crun_and_runc_too() {
    if skip() {
        return;
    }
    for runtime in ["crun", "runc"] {
        if !["/usr/bin", "/usr/sbin"].iter().any(|dir| std::path::Path::new(dir).join(runtime).exists()) {
            assert!(runtime != "crun" || std::env::var_os("CI").is_none(), "there is no crun: .ci/setup installs it");
            eprintln!("SKIPPED: {runtime} is not installed");
            continue;
        }
        let mut world = World::new(runtime).arg("--container-runtime").arg(runtime);
        world.start();
        let limits = "securityContext: {runAsUser: 1234}, resources: {limits: {memory: 64Mi}}";
        world.file("web.yaml", &pod("web", "", "[sh, -c, 'echo up; exec sleep 1000']", limits));
        let id = world.ready("web")["status"]["containerStatuses"][0]["containerID"].clone();
        let node: serde_json::Value =
            serde_json::from_str(&world.ctl(&["get", "node", "node-under-test", "-o", "json"]).ok()).unwrap();
        let version = node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap_or_default().to_owned();
        assert!(version.starts_with(&format!("{runtime}://")), "{version}");
        let said = world.exec("web", &["sh", "-c", "id -u; grep NoNewPrivs /proc/1/status; exit 7"]);
        assert_eq!((said.code, said.out.as_str()), (7, "1234\nNoNewPrivs:\t1\n"), "{said:?}");
        assert_eq!(world.ctl(&["logs", "web"]).ok(), "up\n");
        world.kill9();
        world.start();
        assert_eq!(world.ready("web")["status"]["containerStatuses"][0]["containerID"], id, "{runtime}");
        world.remove("web.yaml");
        world.gone("web");
        assert_eq!(world.traces(), Vec::<String>::new(), "{runtime}");
        world.stop();
    }
}

#[test]
fn exec_passes_exit_codes_and_input_through() {
    if skip() {
        return;
    }
    let world = World::started("exec");
    world.file("web.yaml", &script("web", FOREVER));
    world.ready("web");
    assert_eq!(world.exec("web", &["sh", "-c", "exit 7"]).code, 7);
    let mut child = world
        .ctl_command()
        .args(["exec", "-i", "web", "--", "cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"through and back\n").unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    assert_eq!(String::from_utf8_lossy(&out.stdout), "through and back\n");
    let said = world.exec("web", &["no-such-program"]);
    assert!(said.code != 0 && said.err.contains("no-such-program"), "{said:?}");
}
