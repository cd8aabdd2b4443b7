//! The command line, the socket's guards, service manager, signals, examples and the documentation's commands.

use crate::client::pod;
use crate::harness::{World, run, skip};
use crate::pods::{FOREVER, script};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

fn repository() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn get_pods_of_all_namespaces_as_json_is_a_kubernetes_list() {
    if skip() {
        return;
    }
    let world = World::started("list");
    let empty = world.json(&["get", "pods", "-A", "-o", "json"]);
    assert_eq!((empty["kind"].as_str(), empty["apiVersion"].as_str()), (Some("List"), Some("v1")));
    assert_eq!(empty["items"].as_array().unwrap().len(), 0);
    world.file("web.yaml", &script("web", FOREVER));
    world.ready("web");
    let list = world.json(&["get", "pods", "-A", "-o", "json"]);
    let pod = &list["items"][0];
    assert_eq!(pod["kind"], "Pod");
    assert!(pod["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    let table = world.ctl(&["get", "pods", "-o", "wide"]).ok();
    assert!(table.starts_with("NAME") && table.contains("1/1") && table.contains("Running"), "{table}");
    let node = world.json(&["get", "node", "node-under-test", "-o", "json"]);
    assert!(node["status"]["capacity"]["cpu"].is_string(), "{node:#}");
    assert!(node["metadata"]["labels"]["reddwarf.io/zone-brands"].is_string());
    assert_eq!(node["spec"]["podCIDR"], *world.cidr);
    world.until("the zone count", |w| {
        let node = w.json(&["get", "node", "node-under-test", "-o", "json"]);
        (node["metadata"]["annotations"]["reddwarf.io/zone-count"] == "1").then_some(())
    });
}

#[test]
fn exit_codes_are_as_documented() {
    if skip() {
        return;
    }
    let world = World::started("codes");
    world.ctl(&["status"]).exits(0);
    world.ctl(&["get", "pod", "nobody"]).exits(4);
    world.ctl(&["plan"]).exits(0);
    let new = world.dir.join("new.yaml");
    std::fs::copy(repository().join("examples/manifests/web.yaml"), &new).unwrap();
    world.ctl(&["plan", new.to_str().unwrap()]).exits(2);
    world.ctl(&["validate", new.to_str().unwrap()]).exits(0);
    world.ctl(&["apply", "--dry-run", "-f", new.to_str().unwrap()]).exits(2);
    world.ctl(&["get", "pod", "web"]).exits(4);
    world.ctl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=1s"]);
    let bad = world.dir.join("bad.yaml");
    std::fs::copy(&new, &bad).unwrap();
    run("sed", &["-i", "s/containers/containres/", bad.to_str().unwrap()]).ok();
    let said = world.ctl(&["validate", bad.to_str().unwrap()]).exits(1);
    let text = format!("{}{}", said.out, said.err);
    assert!(text.contains("did you mean") && text.contains("bad.yaml:") && text.contains('^'), "{text}");
    let said = run("nsenter", &["--net=/proc/self/ns/net", "--", "true"]);
    assert_eq!(said.code, 0);
    let mut gone = world.ctl_command();
    gone.args(["--socket", "/nonexistent/reddwarf.sock", "status"]);
    let out = std::process::Command::new(gone.get_program())
        .args(["--socket", "/nonexistent/x.sock", "status"])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(7), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn file_owned_objects_are_the_files_and_api_objects_the_apis() {
    if skip() {
        return;
    }
    let world = World::started("owner");
    let text = |v: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{v: {v}}}\n");
    world.file("c.yaml", &text("file"));
    world.until("the object", |w| (w.ctl(&["get", "cm", "c"]).code == 0).then_some(()));
    let other = world.dir.join("other.yaml");
    std::fs::File::create(&other).and_then(|mut f| std::io::Write::write_all(&mut f, text("api").as_bytes())).unwrap();
    let said = world.ctl(&["apply", "-f", other.to_str().unwrap()]);
    assert_eq!(said.code, 5, "{said:?}");
    assert!(format!("{}{}", said.out, said.err).contains("c.yaml"), "{said:?}");
    let said = world.ctl(&["delete", "configmap", "c"]);
    assert!(said.code != 0 && said.err.contains("c.yaml"), "{said:?}");
    world.ctl(&["get", "cm", "c"]).ok();
}

#[test]
fn an_api_pod_runs_and_is_deleted() {
    if skip() {
        return;
    }
    let world = World::started("apipod");
    let file = world.dir.join("api.yaml");
    std::fs::File::create(&file)
        .and_then(|mut f| std::io::Write::write_all(&mut f, script("api", FOREVER).as_bytes()))
        .unwrap();
    world.ctl(&["apply", "-f", file.to_str().unwrap(), "--wait"]).ok();
    world.ready("api");
    world.ctl(&["apply", "-f", file.to_str().unwrap()]).ok();
    world.ctl(&["delete", "pod", "api"]).ok();
    world.gone("api");
    assert_eq!(world.traces(), Vec::<String>::new());
}

#[test]
fn strangers_are_refused_at_the_socket() {
    if skip() {
        return;
    }
    let world = World::started("peer");
    let directory = std::fs::metadata(world.socket.parent().unwrap()).unwrap().permissions().mode() & 0o777;
    assert_eq!(directory & 0o007, 0, "{directory:o}");
    let socket = std::fs::metadata(&world.socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(socket & 0o007, 0, "{socket:o}");
    // Even with both opened by an admin's slip, the kernel's word decides.
    for path in [&world.dir, &world.dir.join("run")] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    std::fs::set_permissions(&world.socket, PermissionsExt::from_mode(0o666)).unwrap();
    let url = "http://localhost/api/v1/pods";
    let said = run(
        "setpriv",
        &[
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "curl",
            "-sS",
            "--max-time",
            "5",
            "--unix-socket",
            world.socket.to_str().unwrap(),
            url,
        ],
    );
    assert!(said.out.contains("Forbidden"), "{said:?}");
}

#[test]
fn the_service_manager_is_told_when_ready_and_hup_looks_again() {
    if skip() {
        return;
    }
    let mut world = World::new("notify");
    let path = world.dir.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut command = world.command();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "600000").stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !(seen.contains("READY=1") && seen.contains("WATCHDOG=1")) {
        let n = socket.recv(&mut buffer).expect("READY=1 and WATCHDOG=1 within 20 s");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        seen.push('\n');
        if seen.contains("READY=1") {
            assert_eq!(world.curl("/readyz").code, 0, "ready means ready");
        }
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGHUP).unwrap();
    while !seen.contains("RELOADING=1") {
        let n = socket.recv(&mut buffer).expect("RELOADING=1 after SIGHUP");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    world.stop();
}

#[test]
fn shutdown_with_stop_pods_leaves_neither_processes_nor_mounts_nor_rules() {
    if skip() {
        return;
    }
    let mut world = World::started("shutdown");
    let volumes = "volumes: [{name: fast, emptyDir: {medium: Memory}}],";
    let mounts = "volumeMounts: [{name: fast, mountPath: /fast}]";
    world.file("web.yaml", &pod("web", volumes, &format!("[sh, -c, {FOREVER:?}]"), mounts));
    world.file(
        "service.yaml",
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: NodePort, selector: {app: web}, ports: [{port: 80}]}}\n",
    );
    world.ready("web");
    for _ in 0..2 {
        world.kill9();
        world.start();
    }
    world.ready("web");
    let rules = |world: &World| {
        let said = world.inside("nft").args(["list", "tables"]).output().unwrap();
        String::from_utf8(said.stdout).unwrap()
    };
    world.until("the services' rules", |w| rules(w).contains("services").then_some(()));
    for round in 0..2 {
        // Somebody else's among ours, the second time.
        let foreign = world.instance_cgroups().into_iter().take(round).map(|dir| dir.join("@others"));
        let others: Vec<String> = foreign
            .map(|dir| {
                std::fs::create_dir_all(&dir).unwrap();
                format!("cgroup {}", dir.display())
            })
            .collect();
        world.ctl(&["shutdown", "--stop-pods"]).ok();
        let began = std::time::Instant::now();
        while world.daemon_exited().is_none() {
            assert!(began.elapsed() < std::time::Duration::from_secs(30));
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(world.daemon_exited(), Some(0));
        assert_eq!(world.traces(), others, "round {round}");
        assert_eq!(world.instance_cgroups().len(), others.len(), "round {round}: the shims' is gone, too");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours: Vec<&str> = mounts.lines().filter(|line| line.contains(world.dir.to_str().unwrap())).collect();
        assert_eq!(ours, Vec::<&str>::new(), "round {round}");
        assert_eq!(rules(&world), "", "round {round}");
        let links = world.inside("ip").args(["-o", "link"]).output().unwrap();
        assert!(!String::from_utf8(links.stdout).unwrap().contains(&world.bridge), "the bridge");
        // All of it comes up again.
        world.start();
        world.ready("web");
    }
    world.stop();
}

#[test]
fn bad_settings_are_refused_at_start_with_their_place() {
    if skip() {
        return;
    }
    let world = World::new("settings");
    let file = world.dir.join("reddwarfd.toml");
    for (text, named) in [
        ("pod_cdir = \"10.0.0.0/8\"\n", "pod_cidr"),
        ("pod_cidr = \"10.96.0.0/16\"\nservice_cidr = \"10.96.0.0/12\"\n", "overlap"),
        ("listen = \"0.0.0.0\"\n", "port"),
        ("tls_cert = \"server.pem\"\n", "absolute"),
    ] {
        std::fs::File::create(&file).and_then(|mut f| std::io::Write::write_all(&mut f, text.as_bytes())).unwrap();
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_reddwarfd"))
            .args([
                "--config",
                file.to_str().unwrap(),
                "--state",
                world.dir.join("s").to_str().unwrap(),
                "--run",
                world.dir.join("r").to_str().unwrap(),
            ])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_ne!(out.status.code(), Some(0));
        assert!(said.contains(named), "{text}: {said}");
    }
}

#[test]
fn every_example_is_valid_and_runs() {
    if skip() {
        return;
    }
    let world = World::started("examples");
    let examples = repository().join("examples/manifests");
    world.ctl(&["validate", "--strict", examples.to_str().unwrap()]).ok();
    for entry in std::fs::read_dir(&examples).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        world.file(entry.file_name().to_str().unwrap(), &text);
    }
    world.ready("web");
    world.ready("worker");
    world.until("batch to succeed", |w| w.pod("batch").filter(|p| p["status"]["phase"] == "Succeeded"));
    assert_eq!(world.ctl(&["logs", "batch"]).ok(), "42\n");
    world.ctl(&["status"]).exits(0);
}

#[test]
fn u10_hostile_text_in_a_manifest_stays_text() {
    if skip() {
        return;
    }
    let world = World::started("hostile");
    let hostile = "a\"; touch /tmp/oops-$(id -u); `touch /tmp/oops`\nset brand=evil\n--flag";
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: hostile\n  annotations: {{reddwarf.io/zone-brand: sparse, note: {hostile:?}}}\n\
         spec:\n  terminationGracePeriodSeconds: 1\n  containers:\n    - name: main\n      command: [sh, -c, 'echo \"$NASTY\"; exec sleep 1000', {hostile:?}]\n      env: [{{name: NASTY, value: {hostile:?}}}]\n"
    );
    world.file("hostile.yaml", &text);
    world.ready("hostile");
    let log = world.until("the output", |w| Some(w.ctl(&["logs", "hostile"]).out).filter(|o| o.contains("--flag")));
    assert_eq!(log.trim_end(), hostile);
    assert!(!Path::new("/tmp/oops").exists());
    let rules = run("nsenter", &[&format!("--net=/run/netns/{}", world.name), "--", "nft", "list", "ruleset"]).out;
    assert!(!rules.contains("evil"), "{rules}");
}

#[test]
fn serve_stores_pods_and_never_touches_the_host_and_agent_runs_them() {
    if skip() {
        return;
    }
    let mut world = World::new("serve").arg("serve");
    world.start();
    world.file("web.yaml", &script("web", FOREVER));
    world.until("the stored pod", |w| w.pod("web"));
    assert_ne!(world.ctl(&["exec", "web", "--", "true"]).code, 0);
    assert_eq!(world.traces(), Vec::<String>::new());
    assert_eq!(run("ip", &["-n", &world.name, "link", "show", &world.bridge]).code, 1, "no bridge is made");
    world.stop();
    let mut world = world.without_arguments();
    world.start();
    world.ready("web");
}

#[test]
fn settings_are_taken_over_at_hup_and_bad_ones_are_not() {
    if skip() {
        return;
    }
    let world = World::new("hup");
    let file = world.dir.join("reddwarfd.toml");
    let write = |text: &str| {
        std::fs::File::create(&file).and_then(|mut f| std::io::Write::write_all(&mut f, text.as_bytes())).unwrap()
    };
    write("max_pods = 11\n");
    let mut world = world.arg("--config").arg(file.to_str().unwrap());
    world.start();
    world.file("web.yaml", &script("web", FOREVER));
    let before = world.ready("web")["status"]["containerStatuses"][0]["containerID"].clone();
    let pods =
        |w: &World| w.json(&["get", "node", "node-under-test", "-o", "json"])["status"]["capacity"]["pods"].clone();
    world.until("11 pods", |w| (pods(w) == "11").then_some(()));

    write("max_pods = many\n");
    let hup =
        || nix::sys::signal::kill(nix::unistd::Pid::from_raw(world.pid() as i32), nix::sys::signal::SIGHUP).unwrap();
    hup();
    world.until("the refusal", |w| w.ctl(&["events"]).out.contains("InvalidSettings").then_some(()));
    assert_eq!(pods(&world), "11");
    let refused = |w: &World| {
        let status = w.ctl(&["status"]);
        let said = |line: &str| line.contains("the settings were not taken over: ");
        let line = status.out.lines().find(|l| said(l)).map(str::to_owned);
        (status.code, line)
    };
    let line = world.until("the notice", |w| refused(w).1);
    assert!(line.starts_with('!') && line.ends_with("; the daemon would not start with them"), "{line}");
    assert_eq!(refused(&world).0, 3);

    write("max_pods = 12\n");
    hup();
    // Whoever asks while they are taken over waits for the answer: `pods` fails if there is no daemon.
    world.until("12 pods", |w| (pods(w) == "12").then_some(()));
    assert_eq!(world.ready("web")["status"]["containerStatuses"][0]["containerID"], before);
    world.until("all is well", |w| (refused(w) == (0, None)).then_some(()));

    // What was refused is over as well when the file says again what holds.
    for (text, code) in [("nonsense = 1\n", 3), ("max_pods = 12\n", 0)] {
        write(text);
        hup();
        world.until(text, |w| (w.ctl(&["status"]).code == code).then_some(()));
    }
}

#[test]
fn simulated_host_runs_the_whole_daemon_without_touching_this_one() {
    if skip() {
        return;
    }
    let mut world = World::new("sim").arg("--host").arg("sim");
    world.start();
    world.file("web.yaml", &script("web", "sleep 1000"));
    world.ready("web");
    assert_eq!(world.traces(), Vec::<String>::new());
    world.stop();
}
