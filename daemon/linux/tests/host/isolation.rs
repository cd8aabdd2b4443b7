//! What containers share and what they don't, and what they see.

use crate::support::{as_root, code, message};
use reddwarf_host::spec::{
    EnvVar, FileContent, HostPathKind, HostsEntry, MountSpec, Security, Sensitive, UserSpec, VolumeSpec,
};
use reddwarf_host::{Exec, ExecRequest, HostErrorKind, Network, Sandboxes, TerminalSize, VolumeName};
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const FOREVER: &str = "trap 'exit 0' TERM; sleep 1000000 & wait";

#[test]
fn containers_of_a_pod_share_net_ipc_uts_and_shm_but_not_processes_and_files() {
    as_root(|world| async move {
        let _ = world.host.network_ensure(&world.network()).await.unwrap();
        let sandbox = world.pod_sandbox();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let one = world.shell(&sandbox, "one", FOREVER);
        let two = world.shell(&sandbox, "two", FOREVER);
        let _ = world.host.container_start(&sandbox.id, &one).await.unwrap();
        let _ = world.host.container_start(&sandbox.id, &two).await.unwrap();
        let look = "for n in net ipc uts pid mnt cgroup; do readlink /proc/self/ns/$n; done";
        let (code_one, of_one, _) = world.exec(&sandbox.id, &one.name, look).await;
        let (_, of_two, _) = world.exec(&sandbox.id, &two.name, look).await;
        assert_eq!(code_one, 0);
        let (of_one, of_two): (Vec<&str>, Vec<&str>) = (of_one.lines().collect(), of_two.lines().collect());
        assert_eq!(of_one.len(), 6);
        assert_eq!(of_one[..3], of_two[..3], "shared");
        assert!(of_one[3..].iter().zip(&of_two[3..]).all(|(a, b)| a != b), "apart: {of_one:?} {of_two:?}");
        let host_net = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        assert_ne!(of_one[0], host_net.to_str().unwrap());

        let (_, name, _) = world.exec(&sandbox.id, &one.name, "hostname; touch /dev/shm/x /tmp/x").await;
        assert_eq!(name.trim(), sandbox.hostname);
        let (_, there, _) = world.exec(&sandbox.id, &two.name, "ls /dev/shm /tmp").await;
        assert_eq!(there, "/dev/shm:\nx\n\n/tmp:\n", "memory is shared, files are not");
        let (_, processes, _) = world.exec(&sandbox.id, &two.name, "ls -d /proc/[0-9]* | wc -l").await;
        assert!(processes.trim().parse::<u32>().unwrap() <= 6, "sees only its own: {processes}");
        world.destroy(&sandbox).await;
        let _ = world.host.network_remove().await.unwrap();
    });
}

#[test]
fn the_default_container_has_few_rights() {
    as_root(|world| async move {
        let script = "grep -E 'Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status; \
            touch /proc/sys/kernel/x 2>/dev/null && echo WRITES; cat /proc/kcore 2>/dev/null | head -c1 | wc -c; \
            mknod /tmp/loop b 7 0; head -c1 /tmp/loop 2>&1; mount -t tmpfs t /mnt 2>/dev/null && echo MOUNTS; \
            ls -1 /proc/self/fd | wc -l; ls /dev; echo end";
        let (sandbox, observed) = world.run(script).await;
        assert_eq!(code(&observed), 0, "{observed:?}");
        let container = observed.spec;
        let log = world.log(&container);
        let text = log.join("\n");
        // The OCI default set.
        assert!(text.contains("CapEff:	00000000a80425fb"), "{text}");
        assert!(text.contains("NoNewPrivs:\t1"), "{text}");
        assert!(
            text.contains("/tmp/loop") && text.contains("Operation not permitted"),
            "a node, and no device: {text}"
        );
        for forbidden in ["WRITES", "MOUNTS", " sda", "kmsg"] {
            assert!(!text.contains(forbidden), "{forbidden}: {text}");
        }
        for device in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue"] {
            assert!(log.iter().any(|l| l == &format!("stdout F {device}")), "{device}: {text}");
        }
        world.destroy(&sandbox).await;
    });
}

#[test]
fn users_environment_directory_and_files_are_as_asked() {
    as_root(|world| async move {
        let mut sandbox = world.sandbox();
        sandbox.hosts =
            vec![HostsEntry { ip: "10.1.2.3".parse().unwrap(), names: vec!["db.test".into(), "db".into()] }];
        sandbox.dns.searches = vec!["svc.test".into()];
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let script = "id -u; id -g; id -G; pwd; echo $GREETING; echo $HOME; cat /etc/hostname; \
            grep db.test /etc/hosts; grep search /etc/resolv.conf; exit 3";
        let mut container = world.shell(&sandbox, "app", script);
        container.user = UserSpec::Ids { uid: 1234, gid: 4321, groups: vec![77] };
        container.working_dir = "/var/made/for/it".into();
        container.env = vec![EnvVar { name: "GREETING".into(), value: Sensitive::new("hello  there".into()) }];
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let observed = world.until_exit(&sandbox.id, &container.name).await;
        assert_eq!(code(&observed), 3, "{observed:?}");
        let lines = world.log(&container);
        let host_name = format!("stdout F {}", sandbox.hostname);
        let expected = [
            "stdout F 1234",
            "stdout F 4321",
            "stdout F 4321 77",
            "stdout F /var/made/for/it",
            "stdout F hello there",
            "stdout F /",
            host_name.as_str(),
            "stdout F 10.1.2.3\tdb.test\tdb",
            "stdout F search svc.test",
        ];
        assert_eq!(lines, expected);
        world.destroy(&sandbox).await;
    });
}

#[test]
fn an_unknown_user_is_the_users_mistake_and_leaves_nothing() {
    as_root(|world| async move {
        let sandbox = world.sandbox();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let mut container = world.shell(&sandbox, "app", "true");
        container.user = UserSpec::Named { user: "nobody-knows-me".into(), groups: vec![] };
        let error = world.host.container_start(&sandbox.id, &container).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::InvalidSpec);
        assert!(error.message.contains("nobody-knows-me"), "{error}");
        assert!(world.observe(&sandbox.id).await.containers.is_empty());
        world.destroy(&sandbox).await;
    });
}

#[test]
fn programs_that_can_not_run_end_with_the_shells_codes() {
    as_root(|world| async move {
        let sandbox = world.sandbox();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        for (name, argv, wanted) in
            [("missing", "/no/such", 127), ("unrunnable", "/etc/passwd", 126), ("nowhere", "no-such-name", 127)]
        {
            let container = world.container(&sandbox, name, vec![argv.to_owned()]);
            let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
            let observed = world.until_exit(&sandbox.id, &container.name).await;
            assert_eq!(code(&observed), wanted, "{name}");
            assert!(message(&observed).contains(argv), "{}", message(&observed));
        }
        world.destroy(&sandbox).await;
    });
}

fn file(text: &str) -> FileContent {
    FileContent { bytes: Sensitive::new(text.as_bytes().to_vec()), mode: 0o644, owner: None }
}

fn mount(volume: &str, target: &str, sub_path: &str, read_only: bool) -> MountSpec {
    MountSpec {
        volume: VolumeName::new(volume).unwrap(),
        target: target.into(),
        sub_path: sub_path.into(),
        read_only,
        recursive_read_only: None,
        propagation: None,
    }
}

#[test]
fn volumes_of_every_kind_with_sub_paths() {
    as_root(|world| async move {
        let outside = world.dir.path().join("outside");
        std::fs::create_dir_all(outside.join("data/inner")).unwrap();
        std::fs::write(outside.join("data/inner/f"), "from the host").unwrap();
        symlink("/etc", outside.join("data/escape")).unwrap();
        symlink(outside.join("data"), outside.join("link")).unwrap();
        let mut sandbox = world.sandbox();
        let files = BTreeMap::from([("key".to_owned(), file("value")), ("deep/er".to_owned(), file("down"))]);
        let mut volume = |name: &str, spec| sandbox.volumes.insert(VolumeName::new(name).unwrap(), spec);
        volume("disk", VolumeSpec::EmptyDir { memory: false, size_limit_bytes: None });
        volume("memory", VolumeSpec::EmptyDir { memory: true, size_limit_bytes: Some(1 << 20) });
        volume("config", VolumeSpec::Files { files: files.clone(), secret: false });
        volume("secret", VolumeSpec::Files { files, secret: true });
        volume("host", VolumeSpec::HostPath { path: outside.join("data"), kind: HostPathKind::Directory });
        volume("made", VolumeSpec::HostPath { path: outside.join("new/dir"), kind: HostPathKind::DirectoryOrCreate });
        volume("link", VolumeSpec::HostPath { path: outside.join("link"), kind: HostPathKind::Any });
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();

        let script = "cat /c/key /c/deep/er /s/key /h/inner/f /only/f /one-key; echo; \
            touch /d/x /m/x /made/x && echo written; touch /c/x 2>/dev/null && echo BAD; \
            head -c 3000000 /dev/zero > /m/big 2>/dev/null || echo full; stat -f -c %T /m /s";
        let mut container = world.shell(&sandbox, "app", script);
        container.mounts = vec![
            mount("disk", "/d", "sub/made", false),
            mount("memory", "/m", "", false),
            mount("config", "/c", "", true),
            mount("secret", "/s", "", true),
            mount("host", "/h", "", true),
            mount("host", "/only", "inner", true),
            mount("config", "/one-key", "key", true),
            mount("made", "/made", "", false),
        ];
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let observed = world.until_exit(&sandbox.id, &container.name).await;
        assert_eq!(code(&observed), 0, "{observed:?}");
        assert_eq!(
            world.log(&container),
            [
                "stdout F valuedownvaluefrom the hostfrom the hostvalue",
                "stdout F written",
                "stdout F full",
                "stdout F tmpfs",
                "stdout F tmpfs"
            ]
        );
        assert!(outside.join("new/dir/x").exists());

        for (name, bad, why) in [
            ("escape", mount("host", "/x", "escape", true), "leads out of the volume"),
            ("link", mount("link", "/x", "", true), "symbolic link"),
        ] {
            let mut container = world.shell(&sandbox, name, "true");
            container.mounts = vec![bad];
            let error = world.host.container_start(&sandbox.id, &container).await.unwrap_err();
            // What lies there may change: it is tried again.
            assert_eq!(error.kind, HostErrorKind::Other, "{name}: {error}");
            assert!(error.message.contains(why), "{name}: {error}");
        }
        world.destroy(&sandbox).await;
        assert!(outside.join("data/inner/f").exists(), "the host's own files stay");
    });
}

#[test]
fn capabilities_can_be_taken_and_given() {
    as_root(|world| async move {
        let sandbox = world.sandbox();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let mut container = world.shell(&sandbox, "app", "grep CapEff /proc/self/status");
        container.security =
            Security { cap_drop: vec!["ALL".into()], cap_add: vec!["NET_BIND_SERVICE".into()], ..Security::default() };
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let _ = world.until_exit(&sandbox.id, &container.name).await;
        assert_eq!(world.log(&container), ["stdout F CapEff:\t0000000000000400"]);
        let mut container = world.shell(&sandbox, "bad", "true");
        container.security.cap_add = vec!["FLY".into()];
        let error = world.host.container_start(&sandbox.id, &container).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::InvalidSpec);
        assert!(error.message.contains("FLY"), "{error}");
        world.destroy(&sandbox).await;
    });
}

#[test]
fn exec_has_the_containers_rights_and_exact_codes() {
    as_root(|world| async move {
        let (sandbox, container) =
            world.start("grep -E 'Cap|NoNew' /proc/self/status; trap 'exit 0' TERM; sleep 100000 & wait").await;
        let status = "grep -E 'Cap|NoNew' /proc/self/status; cat /proc/self/cgroup > /tmp/c; readlink /proc/self/exe >/dev/null; exit 42";
        let (code, out, err) = world.exec(&sandbox.id, &container.name, status).await;
        assert_eq!((code, err.as_str()), (42, ""));
        let own: Vec<String> = out.lines().map(|l| format!("stdout F {l}")).collect();
        assert_eq!(own, world.log(&container), "the same as the first process");
        let (code, _, _) = world.exec(&sandbox.id, &container.name, "kill -9 $$").await;
        assert_eq!(code, 137);
        let argv = vec!["cat".to_owned()];
        let input = vec![b'x'; 300_000];
        let (code, out, _) =
            crate::support::exec(&world.host, &sandbox.id, &container.name, argv, &input[..60_000]).await;
        assert_eq!((code, out.len()), (0, 60_000));
        let request = ExecRequest { argv: vec!["/nope".into()], tty: false, stdin: false, contained: false };
        let error = world.host.exec(&sandbox.id, &container.name, request).await.err().unwrap();
        assert_eq!(error.kind, HostErrorKind::InvalidSpec);
        world.destroy(&sandbox).await;
    });
}

#[test]
fn a_terminal_is_one_inside_and_changes_size() {
    as_root(|world| async move {
        let (sandbox, container) = world.start("trap 'exit 0' TERM; sleep 100000 & wait").await;
        let argv = vec!["/bin/sh".into(), "-c".into(), "tty; read line; stty size; echo got $line".into()];
        let request = ExecRequest { argv, tty: true, stdin: true, contained: false };
        let mut session = world.host.exec(&sandbox.id, &container.name, request).await.unwrap();
        session.resize.send(TerminalSize { width: 101, height: 33 }).await.unwrap();
        // The size travels another way than the input: seen before the input is read.
        tokio::time::sleep(Duration::from_millis(100)).await;
        session.stdin.as_mut().unwrap().write_all(b"typed\n").await.unwrap();
        let mut text = String::new();
        tokio::time::timeout(Duration::from_secs(10), session.stdout.read_to_string(&mut text)).await.unwrap().unwrap();
        assert!(text.contains("/dev/pts/"), "{text}");
        assert!(text.contains("33 101"), "{text}");
        assert!(text.contains("got typed"), "{text}");
        assert_eq!(session.exit.await.unwrap().code, 0);
        world.destroy(&sandbox).await;
    });
}
