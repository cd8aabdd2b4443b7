//! What is particular to cgroup v2, on this machine's own v2 hierarchy: containers run in it, are kept from devices, ended by its
//! switch, and leave nothing.

use crate::support::{as_root_on_v2, cgroup_dirs};
use reddwarf_host::spec::Security;
use reddwarf_host::{ContainerState, Sandboxes};

/// Nodes of devices can be made and not opened; those that everyone has work.
const DEVICES: &str = "grep CapBnd /proc/self/status; mknod /tmp/loop b 7 0; mknod /tmp/kmsg c 1 11; mknod /tmp/null c 1 3; \
    for d in /tmp/loop /tmp/kmsg; do head -c0 $d 2>&1; done; (echo > /tmp/kmsg) 2>&1; \
    echo > /tmp/null && head -c4 /dev/zero | wc -c; echo end";

#[test]
fn containers_use_no_devices_but_the_harmless_ones_and_go_at_once() {
    as_root_on_v2(|world| async move {
        let (sandbox, plain) = world.start(&format!("{DEVICES}; trap '' TERM; sleep 1000 & sleep 1000")).await;
        let log = world.until_log(&plain, "end").await.join("\n");
        assert!(log.contains("00000000a80425fb"), "MKNOD is among them: {log}");
        for (device, times) in [("/tmp/loop", 1), ("/tmp/kmsg", 2)] {
            let refused = |l: &&str| l.contains(device) && l.ends_with("Operation not permitted");
            assert_eq!(log.lines().filter(refused).count(), times, "{device}: {log}");
        }
        assert!(log.contains("stdout F 4\n") && !log.contains("/tmp/null"), "{log}");
        let (_, said, _) = world.exec(&sandbox.id, &plain.name, "head -c0 /tmp/loop 2>&1; cat /proc/self/cgroup").await;
        assert!(said.contains("Operation not permitted") && said.contains("0::/"), "commands neither: {said}");

        let mut privileged =
            world.shell(&sandbox, "all", "head -c0 /dev/loop0 && echo opened; grep CapBnd /proc/self/status");
        privileged.security = Security { privileged: true, ..Security::default() };
        let _ = world.host.container_start(&sandbox.id, &privileged).await.unwrap();
        let _ = world.until_exit(&sandbox.id, &privileged.name).await;
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let bounds = status.lines().find(|l| l.starts_with("CapBnd:")).unwrap();
        assert_eq!(world.log(&privileged), ["stdout F opened".to_owned(), format!("stdout F {bounds}")]);

        let dirs = cgroup_dirs(&world.options.instance);
        let own = dirs.iter().find(|d| d.ends_with(format!("{}.0", plain.name))).unwrap();
        assert!(own.starts_with("/sys/fs/cgroup/") && own.join("cgroup.kill").exists(), "{own:?}");
        let pids = std::fs::read_to_string(own.join("cgroup.procs")).unwrap();
        assert!(pids.lines().count() >= 2, "{pids}");
        let running = world.instance(&sandbox.id, &plain.name).await;
        let ContainerState::Running { pid, .. } = running.state else { panic!("{:?}", running.state) };
        assert!(pids.lines().any(|l| l == pid.to_string()), "{pid} in {pids}");
        world.destroy(&sandbox).await;
    });
}
