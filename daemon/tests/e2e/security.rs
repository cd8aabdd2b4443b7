//! What a pod's security context asks for, seen from inside its containers.

use crate::harness::{World, skip};
use crate::pods::{FOREVER, pod};

/// What a process is and may do, in one line each.
const SELF: &str = "grep -E '^(Uid|Gid|Groups|Seccomp|NoNewPrivs|CapEff|CapBnd):' /proc/self/status | tr -s '\\t' ' '";

fn looks(world: &World, pod: &str, container: &str) -> String {
    world.ctl(&["exec", pod, "-c", container, "--", "sh", "-c", SELF]).ok()
}

#[test]
fn contexts_of_pod_and_container_hold_inside_and_for_commands() {
    if skip() {
        return;
    }
    let world = World::started("security");
    std::fs::create_dir_all(world.dir.join("state/seccomp")).unwrap();
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}"#;
    std::fs::write(world.dir.join("state/seccomp/no-dirs.json"), profile).unwrap();
    let main = |name: &str, context: &str| {
        format!(
            "{{name: {name}, command: [sh, -c, {FOREVER:?}], securityContext: {{{context}}}, volumeMounts: [{{name: data, mountPath: /data}}]}}"
        )
    };
    let containers = [
        main("plain", ""),
        main("ids", "runAsUser: 1234, runAsGroup: 4321, capabilities: {drop: [ALL]}"),
        main(
            "loose",
            "allowPrivilegeEscalation: true, seccompProfile: {type: Unconfined}, readOnlyRootFilesystem: true",
        ),
        main("local", "runAsUser: 0, seccompProfile: {type: Localhost, localhostProfile: no-dirs.json}"),
        main("lost", "seccompProfile: {type: Localhost, localhostProfile: none.json}"),
        main("rootish", "runAsNonRoot: true"),
    ];
    world.file(
        "secure.yaml",
        &format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: secure, annotations: {{reddwarf.io/zone-brand: sparse}}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
             securityContext: {{fsGroup: 2000, supplementalGroups: [3000], sysctls: [{{name: net.ipv4.tcp_keepalive_time, value: '777'}}]}}\n  \
             containers: [{}]\n  volumes: [{{name: data, emptyDir: {{}}}}]\n",
            containers.join(", ")
        ),
    );
    let waits = |name: &str| {
        world.until(&format!("{name} to wait"), |w| {
            let pod = w.pod("secure")?;
            let statuses = pod["status"]["containerStatuses"].as_array()?.clone();
            let waiting = statuses.iter().find(|s| s["name"] == name)?["state"]["waiting"].clone();
            (waiting["reason"].as_str()? != "ContainerCreating").then_some(waiting)
        })
    };
    let rootish = waits("rootish");
    assert_eq!(rootish["reason"], "CreateContainerConfigError");
    let uid = world.pod("secure").unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    assert_eq!(
        rootish["message"],
        format!(
            "container has runAsNonRoot and image will run as root (pod: \"secure_default({uid})\", container: rootish)"
        )
    );
    let lost = waits("lost");
    assert_eq!(lost["reason"], "CreateContainerError");
    let path = world.dir.join("state/seccomp/none.json");
    let wanted = format!(
        "cannot load seccomp profile \"{}\": open {}: no such file or directory",
        path.display(),
        path.display()
    );
    assert!(lost["message"].as_str().unwrap().contains(&wanted), "{lost:#}");

    world.until("the others to run", |w| {
        (w.ctl(&["exec", "secure", "-c", "local", "--", "true"]).code == 0).then_some(())
    });
    let plain = looks(&world, "secure", "plain");
    assert!(plain.contains("Seccomp: 2\n") && plain.contains("NoNewPrivs: 1\n"), "{plain}");
    assert!(plain.contains("Groups: 0 2000 3000"), "{plain}");
    let ids = looks(&world, "secure", "ids");
    assert!(ids.contains("Uid: 1234 1234") && ids.contains("Gid: 4321 4321"), "{ids}");
    assert!(ids.contains("CapEff: 0000000000000000") && ids.contains("CapBnd: 0000000000000000"), "{ids}");
    let loose = looks(&world, "secure", "loose");
    assert!(loose.contains("Seccomp: 0\n") && loose.contains("NoNewPrivs: 0\n"), "{loose}");

    let sh = |container: &str, script: &str| world.ctl(&["exec", "secure", "-c", container, "--", "sh", "-c", script]);
    let refused = sh("plain", "unshare -U true; unshare -m true; mount -t tmpfs x /mnt; keyctl show 2>&1");
    assert!(refused.err.matches("Operation not permitted").count() >= 1, "{refused:?}");
    assert_ne!(sh("plain", "unshare -U true").code, 0);
    assert_eq!(sh("loose", "unshare -U true").code, 0, "nothing filters it");
    assert_ne!(sh("loose", "touch /oops").code, 0, "its root is read-only");
    assert!(sh("local", "mkdir /tmp/d").err.contains("No space left on device"));
    assert_eq!(sh("ids", "touch /data/x && stat -c %g /data/x && stat -c '%g %a' /data").ok(), "2000\n2000 2777\n");
    assert_eq!(sh("plain", "cat /proc/sys/net/ipv4/tcp_keepalive_time").ok(), "777\n");
}

#[test]
fn pods_that_the_node_must_not_take_fail_with_the_references_words() {
    if skip() {
        return;
    }
    let world = World::started("refused");
    let context = |context: &str| format!("securityContext: {{{context}}},");
    let command = format!("[sh, -c, {FOREVER:?}]");
    world
        .file("unsafe.yaml", &pod("unsafe", &context("sysctls: [{name: kernel.msgmax, value: '9000'}]"), &command, ""));
    world.file("armour.yaml", &pod("armour", &context("appArmorProfile: {type: RuntimeDefault}"), &command, ""));
    let long = "a23456789012345678901234567890";
    world.file(
        "long.yaml",
        &pod("long", &format!("setHostnameAsFQDN: true, hostname: {long}, subdomain: {long},"), &command, ""),
    );
    for (name, reason, message) in [
        ("unsafe", "SysctlForbidden", "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted"),
        ("armour", "AppArmor", "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host"),
    ] {
        let pod = world.until("the refusal", |w| w.pod(name).filter(|p| p["status"]["phase"] == "Failed"));
        assert_eq!(pod["status"]["reason"], reason);
        assert_eq!(pod["status"]["message"], message);
    }
    let events = world.until("the events", |w| {
        let events = w.ctl(&["events"]).out;
        (events.contains("SysctlForbidden") && events.contains("is too long (64 characters is the max"))
            .then_some(events)
    });
    assert!(events.contains("FailedCreatePodSandBox"), "{events}");
    assert_eq!(world.pod("long").unwrap()["status"]["phase"], "Pending");
}

/// What a pod with users of its own is asked from inside.
const OWN: &str = "id -u; stat -c '%u %a' / /usr /data /files/key /etc/hosts | tr '\\n' ,; echo; touch /data/new /tmp/new /dev/shm/new && \
                   stat -c %u /data/new /tmp/new /dev/shm/new | tr '\\n' ,; echo; cat /etc/hostname; echo said > /dev/stderr";

#[test]
fn a_pod_with_users_of_its_own_is_root_at_home_and_nobody_on_the_host() {
    if skip() {
        return;
    }
    let world = World::started("ownusers");
    let image = box_image(&world);
    world.file("config.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: files}\ndata: {key: value}\n");
    let manifest = |name: &str, brand: &str, image: &str, spec: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, annotations: {{{brand}}}}}\nspec:\n  hostUsers: false\n  \
             terminationGracePeriodSeconds: 1\n  {spec}\n  containers:\n  - {{name: main, {image} command: [sh, -c, {FOREVER:?}], workingDir: /made/here, \
             volumeMounts: [{{name: data, mountPath: /data}}, {{name: files, mountPath: /files}}]}}\n  \
             - {{name: user, {image} command: [sh, -c, {FOREVER:?}], securityContext: {{runAsUser: 1234}}, volumeMounts: [{{name: data, mountPath: /data}}]}}\n  \
             volumes: [{{name: data, emptyDir: {{}}}}, {{name: files, configMap: {{name: files}}}}]\n"
        )
    };
    let sparse = "reddwarf.io/zone-brand: sparse";
    world.file("one.yaml", &manifest("one", sparse, "", "securityContext: {fsGroup: 2000}"));
    world.file("two.yaml", &manifest("two", "", &format!("image: {image:?},"), "shareProcessNamespace: true"));
    let mut ranges = Vec::new();
    for name in ["one", "two"] {
        let pod = world.ready(name);
        let sh = |script: &str| world.ctl(&["exec", name, "-c", "main", "--", "sh", "-c", script]);
        let said = sh(OWN).ok();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[0], "0", "{said}");
        assert!(lines[1].split(',').filter(|l| !l.is_empty()).all(|line| line.starts_with("0 ")), "{said}");
        assert_eq!(lines[2], "0,0,0,", "{said}");
        assert_eq!(lines[3], name, "{said}");
        let map = sh("cat /proc/self/uid_map").ok();
        let fields: Vec<u32> = map.split_whitespace().map(|f| f.parse().unwrap()).collect();
        assert_eq!((fields[0], fields[2]), (0, 65536), "{map}");
        assert!(fields[1] >= 0x80000, "{map}");
        ranges.push(fields[1]);
        // On the host its root is that range's first, and its files in volumes are what they are inside.
        let outside = users_on_host(&world, name);
        assert!(outside.contains(&fields[1]) && outside.contains(&(fields[1] + 1234)), "{outside:?} {map}");
        assert!(outside.iter().all(|user| *user >= 0x80000), "{outside:?}");
        // What root may do at home, and not on the host.
        assert_eq!(sh("chown 77:88 /data/new && stat -c '%u %g' /data/new").ok(), "77 88\n");
        assert_ne!(sh("echo 1 > /proc/sys/kernel/panic").code, 0);
        assert_ne!(sh("mount -t tmpfs x /mnt").code, 0);
        assert_eq!(sh("stat -c '%u %a' /made/here; pwd").ok(), "0 755\n/made/here\n");
        let user = world.ctl(&[
            "exec",
            name,
            "-c",
            "user",
            "--",
            "sh",
            "-c",
            "id -u; touch /data/mine; stat -c %u /data/mine; echo > /dev/stdout",
        ]);
        assert!(user.out.starts_with("1234\n1234\n"), "{user:?}");
        let address = pod["status"]["podIP"].as_str().unwrap();
        assert!(sh("cat /proc/net/fib_trie").ok().contains(address));
    }
    assert_ne!(ranges[0], ranges[1]);
    let group = world.ctl(&["exec", "one", "-c", "user", "--", "stat", "-c", "%g", "/data/mine"]).ok();
    assert_eq!(group, "2000\n");
    let first = world.ctl(&["exec", "two", "-c", "user", "--", "cat", "/proc/1/comm"]).ok();
    assert_eq!(first, "pause\n");
}

#[test]
fn processes_names_and_hosts_are_shared_as_asked() {
    if skip() {
        return;
    }
    let world = World::started("shared");
    world.file(
        "pair.yaml",
        &format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: pair, annotations: {{reddwarf.io/zone-brand: sparse}}}}\nspec:\n  \
             shareProcessNamespace: true\n  terminationGracePeriodSeconds: 1\n  hostname: h\n  subdomain: sub\n  setHostnameAsFQDN: true\n  \
             hostAliases: [{{ip: 1.2.3.4, hostnames: [one, two]}}]\n  dnsPolicy: None\n  \
             dnsConfig: {{nameservers: [9.9.9.9], searches: [a.example, b.example], options: [{{name: ndots, value: '2'}}]}}\n  \
             containers: [{{name: one, command: [sh, -c, {FOREVER:?}]}}, {{name: two, command: [sh, -c, {FOREVER:?}]}}]\n"
        ),
    );
    let pod = world.ready("pair");
    let ip = pod["status"]["podIP"].as_str().unwrap();
    let sh = |script: &str| world.ctl(&["exec", "pair", "-c", "one", "--", "sh", "-c", script]).ok();
    assert_eq!(sh("cat /proc/1/comm"), "pause\n");
    assert_eq!(sh("grep -lz '^trap' /proc/[0-9]*/cmdline 2>/dev/null | wc -l").trim(), "2", "each sees both");
    assert_eq!(sh("hostname"), "h.sub.default.svc.cluster.local\n");
    let hosts = sh("cat /etc/hosts");
    assert!(hosts.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"), "{hosts}");
    assert!(hosts.contains(&format!("{ip}\th.sub.default.svc.cluster.local\th\n")), "{hosts}");
    assert!(hosts.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\tone\ttwo\n"), "{hosts}");
    assert_eq!(sh("cat /etc/resolv.conf"), "nameserver 9.9.9.9\nsearch a.example b.example\noptions ndots:2\n");

    let host = pod_of_host(&world);
    let inside = |what: &str| world.exec(&host, &["readlink", &format!("/proc/self/ns/{what}")]).ok().trim().to_owned();
    let outside = |what: &str| std::fs::read_link(format!("/proc/self/ns/{what}")).unwrap().display().to_string();
    assert_eq!(inside("ipc"), outside("ipc"));
    assert_eq!(inside("pid"), outside("pid"));
    assert_ne!(inside("net"), outside("net"));
}

/// An image with busybox and all of its programs.
pub fn box_image(world: &World) -> &'static str {
    let root = world.dir.join("own-root");
    for name in ["bin", "usr", "tmp"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::set_permissions(root.join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let programs = crate::harness::run("/bin/busybox", &["--list"]).ok();
    for program in programs.lines().filter(|p| *p != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(program)).unwrap();
    }
    world.ctl(&["image", "import", root.to_str().unwrap(), "--name", "local/own:1"]).ok();
    "local/own:1"
}

/// As whom a pod's processes run, as the host sees it.
fn users_on_host(world: &World, pod: &str) -> Vec<u32> {
    let sandboxes =
        world.cgroups().into_iter().filter(|g| g.display().to_string().contains(&format!("/default-{pod}-")));
    let groups = sandboxes.flat_map(|g| std::fs::read_dir(g).unwrap().flatten().map(|e| e.path()));
    let processes = groups.filter_map(|g| std::fs::read_to_string(g.join("cgroup.procs")).ok());
    let all: String = processes.collect();
    let status = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/status")).ok();
    let user =
        |status: String| status.lines().find_map(|l| l.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok());
    all.lines().filter_map(status).filter_map(user).collect()
}

/// A pod that shares the host's processes and IPC.
fn pod_of_host(world: &World) -> String {
    let command = format!("[sh, -c, {FOREVER:?}]");
    world.file("host.yaml", &pod("host", "hostPID: true, hostIPC: true,", &command, ""));
    world.ready("host");
    "host".to_owned()
}
