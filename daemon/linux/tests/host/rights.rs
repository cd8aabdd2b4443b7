//! What containers may ask of the kernel, seen from inside.

use crate::support::as_root;
use reddwarf_host::spec::*;
use reddwarf_host::{HostErrorKind, Network, Sandboxes, VolumeName};
use std::collections::BTreeMap;

/// Calls by number through perl, each said with what came of it: `ok` or the error's text.
const CALLS: &str = r#"perl -e '
    my %n = (unshare => [272, 0x10000000], keyctl => [250, 0, -3, 0], mount => [165, 0, 0, 0, 0, 0],
             alg => [41, 38, 5, 0], inet => [41, 2, 2, 0], personality => [135, 0x40000], clone3 => [435, 0, 0],
             young => [600], chmod => [90, 0, 0]);
    for (sort keys %n) { my $r = syscall(shift @{$n{$_}}, @{$n{$_}}); print "$_ ", ($r < 0 ? "$!" : "ok"), "\n" }'"#;

const STATUS: &str = "grep -E '^(Seccomp|NoNewPrivs|CapEff|CapPrm|CapBnd):' /proc/self/status";

fn seccomp(profile: Seccomp) -> Security {
    Security { seccomp: Some(profile), ..Security::default() }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_default_filter_holds_for_the_container_and_for_commands_in_it() {
    as_root(|world| async move {
        let sandbox = world.sandbox();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let expected = "alg Operation not permitted\nchmod Bad address\nclone3 Function not implemented\ninet ok\n\
            keyctl Operation not permitted\nmount Operation not permitted\npersonality Operation not permitted\n\
            unshare Operation not permitted\nyoung Function not implemented\n";
        for (name, escalates, user) in
            [("root", false, 0), ("grows", true, 0), ("user", true, 1000), ("plain", false, 1000)]
        {
            let script = format!("{STATUS}; {CALLS}; echo done; trap 'exit 0' TERM; sleep 10000 & wait");
            let mut container = world.shell(&sandbox, name, &script);
            container.security = seccomp(Seccomp::RuntimeDefault);
            container.security.allow_privilege_escalation = escalates;
            container.user = UserSpec::Ids { uid: user, gid: user, groups: Vec::new() };
            let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
            let own = world.until_log(&container, "done").await;
            let own: String =
                own.iter().filter_map(|l| l.strip_prefix("stdout F ")).map(|l| format!("{l}\n")).collect();
            let own = own.strip_suffix("done\n").unwrap_or(&own).to_owned();
            let (code, out, err) = world.exec(&sandbox.id, &container.name, &format!("{STATUS}; {CALLS}")).await;
            assert_eq!((code, err.as_str()), (0, ""), "{name}");
            assert_eq!(out, own, "{name}: a command has what the first process has");
            assert!(own.contains("Seccomp:\t2\n"), "{name}: {own}");
            assert!(own.contains(&format!("NoNewPrivs:\t{}\n", u8::from(!escalates))), "{name}: {own}");
            assert!(own.ends_with(expected), "{name}: {own}");
            assert!(own.contains("CapBnd:\t00000000a80425fb\n"), "{name}: the default capabilities: {own}");
            let held = if user == 0 { "00000000a80425fb" } else { "0000000000000000" };
            assert!(own.contains(&format!("CapEff:\t{held}\n")), "{name}: {own}");
            assert!(own.contains(&format!("CapPrm:\t{held}\n")), "{name}: {own}");
        }
        world.destroy(&sandbox).await;
    });
}

#[test]
fn profiles_come_from_files_or_are_done_without() {
    as_root(|world| async move {
        let dir = world.options.seccomp_dir.clone();
        std::fs::create_dir_all(dir.join("web")).unwrap();
        let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#;
        std::fs::write(dir.join("web/no-dirs.json"), profile).unwrap();
        let sandbox = world.sandbox();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let script = format!(
            "{STATUS} | head -n1; mkdir /tmp/x || true; unshare -n true && echo unshared; trap 'exit 0' TERM; sleep 10000 & wait"
        );
        let mut container = world.shell(&sandbox, "local", &script);
        container.security = seccomp(Seccomp::Localhost("web/no-dirs.json".into()));
        container.security.cap_add = vec!["SYS_ADMIN".into()];
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let log = world.until_log(&container, "unshared").await.join("\n");
        assert!(log.contains("No space left on device"), "{log}");

        let mut container = world.shell(&sandbox, "free", "grep ^Seccomp: /proc/self/status");
        container.security = seccomp(Seccomp::Unconfined);
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let _ = world.until_exit(&sandbox.id, &container.name).await;
        assert_eq!(world.log(&container), ["stdout F Seccomp:\t0"]);

        let mut container = world.shell(&sandbox, "bad", "true");
        container.security = seccomp(Seccomp::Localhost("web/none.json".into()));
        let error = world.host.container_start(&sandbox.id, &container).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::InvalidSpec);
        let path = dir.join("web/none.json");
        assert!(error.message.contains(&format!("cannot load seccomp profile \"{}\"", path.display())), "{error}");
        world.destroy(&sandbox).await;
    });
}

#[test]
fn containers_that_share_processes_see_one_another_and_nobody_is_process_1() {
    as_root(|world| async move {
        let sandbox = SandboxSpec { share_processes: true, ..world.sandbox() };
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        for name in ["one", "two"] {
            let mut container = world.shell(&sandbox, name, "trap 'exit 0' TERM; sleep 98765 & wait");
            container.processes = ProcessView::Sandbox;
            let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        }
        let mut container = world.shell(&sandbox, "look", "cat /proc/1/comm; ls /proc/1/root/ 2>&1 | head -n1; grep -lz [9]8765 /proc/[0-9]*/cmdline | grep -v -e self -e /$$/ | wc -l; grep -E '^(Uid|CapEff|NoNewPrivs)' /proc/1/status; (sleep 0 & ); echo $$");
        container.processes = ProcessView::Sandbox;
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let _ = world.until_exit(&sandbox.id, &container.name).await;
        let log = world.log(&container);
        assert_eq!(log[0], "stdout F pause", "{log:?}");
        assert!(log.iter().any(|l| l == "stdout F Uid:\t65535\t65535\t65535\t65535"), "{log:?}");
        assert!(log.iter().any(|l| l == "stdout F CapEff:\t0000000000000000"), "{log:?}");
        assert!(!log[1].contains("etc"), "its root is empty or closed: {log:?}");
        assert_ne!(log.last().unwrap(), "stdout F 1", "{log:?}");
        assert!(log.iter().any(|l| l == "stdout F 4"), "two shells and two sleeps: {log:?}");
        world.destroy(&sandbox).await;
    });
}

#[test]
fn volumes_belong_to_their_group() {
    as_root(|world| async move {
        let mut sandbox = world.sandbox();
        let file = FileContent { bytes: Sensitive::new(b"x".to_vec()), mode: 0o400, owner: None };
        sandbox.fs_group = Some(FsGroup { gid: 4321, change: FsGroupChange::Always });
        let files = |secret| VolumeSpec::Files { files: [("key".to_owned(), file.clone())].into(), secret };
        let dir = |memory| VolumeSpec::EmptyDir { memory, size_limit_bytes: None };
        let volumes = [("plain", files(false)), ("secret", files(true)), ("disk", dir(false)), ("mem", dir(true))];
        sandbox.volumes =
            volumes.into_iter().map(|(n, v)| (VolumeName::new(n).unwrap(), v)).collect::<BTreeMap<_, _>>();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let script = "id -G; for v in disk mem; do touch /$v/new; stat -c '%g %a' /$v; stat -c %g /$v/new; done; \
            for v in plain secret; do stat -L -c '%g %a' /$v/key; cat /$v/key >/dev/null && echo read; done";
        let mut container = world.shell(&sandbox, "app", script);
        container.user = UserSpec::Ids { uid: 1000, gid: 1000, groups: vec![4321] };
        container.mounts = sandbox
            .volumes
            .keys()
            .map(|volume| MountSpec {
                volume: volume.clone(),
                target: format!("/{volume}"),
                sub_path: String::new(),
                read_only: false,
                recursive_read_only: None,
                propagation: None,
            })
            .collect();
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let _ = world.until_exit(&sandbox.id, &container.name).await;
        let log: Vec<String> = world.log(&container).iter().map(|l| l.replace("stdout F ", "")).collect();
        assert_eq!(
            log,
            ["1000 4321", "4321 2777", "4321", "4321 2777", "4321", "4321 440", "read", "4321 440", "read",]
        );
        world.destroy(&sandbox).await;
    });
}

#[test]
fn kernel_settings_ipc_and_scores_are_the_pods() {
    as_root(|world| async move {
        let mut sandbox = world.pod_sandbox();
        sandbox.sysctls = [
            ("net.ipv4.ip_unprivileged_port_start", "80"),
            ("kernel.shm_rmid_forced", "1"),
            ("kernel.msgmax", "12345"),
        ]
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .into();
        let _ = world.host.network_ensure(&world.network()).await.unwrap();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced /proc/sys/kernel/msgmax /proc/self/oom_score_adj";
        let mut container =
            world.shell(&sandbox, "app", &format!("{script}; trap 'exit 0' TERM; echo up; sleep 10000 & wait"));
        container.oom_score_adj = Some(765);
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let log = world.until_log(&container, "up").await;
        assert_eq!(log[..4], ["stdout F 80", "stdout F 1", "stdout F 12345", "stdout F 765"]);
        let (_, out, _) = world.exec(&sandbox.id, &container.name, "cat /proc/self/oom_score_adj").await;
        assert_eq!(out, "765\n");
        world.destroy(&sandbox).await;

        let mut sandbox = world.sandbox();
        sandbox.host_ipc = true;
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let container = world.shell(&sandbox, "ipc", "readlink /proc/self/ns/ipc");
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let _ = world.until_exit(&sandbox.id, &container.name).await;
        let host = std::fs::read_link("/proc/self/ns/ipc").unwrap();
        assert_eq!(world.log(&container), [format!("stdout F {}", host.display())]);
        world.destroy(&sandbox).await;
    });
}
