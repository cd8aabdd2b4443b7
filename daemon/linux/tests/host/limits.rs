//! Limits are enforced, not only written down.

use crate::support::{as_root, code};
use reddwarf_host::spec::Resources;
use reddwarf_host::{Change, ContainerState, Sandboxes, Usage};
use std::time::{Duration, Instant};

#[test]
fn too_much_memory_kills_and_is_told() {
    as_root(|world| async move {
        let sandbox = world.sandbox();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        // tail keeps a line without an end in memory.
        let mut container = world.shell(&sandbox, "app", "exec tail -n1 /dev/zero");
        container.resources.memory_limit_bytes = Some(32 << 20);
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let observed = world.until_exit(&sandbox.id, &container.name).await;
        assert_eq!(code(&observed), 137);
        assert!(observed.oom_killed);
        assert!(matches!(observed.state, ContainerState::Exited { signal: Some(9), .. }));
        world.destroy(&sandbox).await;
    });
}

#[test]
fn the_pods_own_limit_holds_for_all_its_containers() {
    as_root(|world| async move {
        let mut sandbox = world.sandbox();
        sandbox.resources.memory_limit_bytes = Some(32 << 20);
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let container = world.shell(&sandbox, "app", "exec tail -n1 /dev/zero");
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let observed = world.until_exit(&sandbox.id, &container.name).await;
        assert_eq!((code(&observed), observed.oom_killed), (137, true));
        world.destroy(&sandbox).await;
    });
}

#[test]
fn processes_are_limited() {
    as_root(|world| async move {
        let sandbox = world.sandbox();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let script = "i=0; while [ $i -lt 50 ]; do sleep 1000 & i=$((i+1)); done; echo all started";
        let mut container = world.shell(&sandbox, "app", script);
        container.resources.pids_limit = Some(20);
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let observed = world.until_exit(&sandbox.id, &container.name).await;
        assert_ne!(code(&observed), 0);
        let log = world.log(&container).join("\n");
        assert!(log.contains("fork") && !log.contains("all started"), "{log}");
        world.destroy(&sandbox).await;
    });
}

#[test]
fn processor_time_is_limited_and_the_limit_can_change_in_place() {
    as_root(|world| async move {
        let sandbox = world.sandbox();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let mut container = world.shell(&sandbox, "app", "while :; do :; done");
        container.resources.cpu_limit_millis = Some(100);
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let observed = world.instance(&sandbox.id, &container.name).await;
        let ContainerState::Running { pid, .. } = observed.state else { panic!("{:?}", observed.state) };
        let share = |from: (f64, Instant)| (cpu_seconds(pid) - from.0) / from.1.elapsed().as_secs_f64();
        let from = (cpu_seconds(pid), Instant::now());
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let limited = share(from);
        assert!(limited < 0.2, "a tenth of a processor was allowed, {limited} were used");

        let more = Resources { cpu_limit_millis: Some(1000), ..container.resources };
        assert!(matches!(
            world.host.container_update(&sandbox.id, &container.name, 0, &more).await.unwrap(),
            Change::Changed(_)
        ));
        assert_eq!(
            world.host.container_update(&sandbox.id, &container.name, 0, &more).await.unwrap(),
            Change::Unchanged
        );
        assert_eq!(world.instance(&sandbox.id, &container.name).await.spec.resources, more);
        let from = (cpu_seconds(pid), Instant::now());
        tokio::time::sleep(Duration::from_millis(1000)).await;
        assert!(share(from) > limited * 1.5, "the new limit is higher");
        world.destroy(&sandbox).await;
    });
}

#[test]
fn who_asked_for_more_of_the_processors_gets_more() {
    as_root(|world| async move {
        let mut pods = Vec::new();
        for request in [2000, 100] {
            let mut sandbox = world.sandbox();
            sandbox.resources.cpu_request_millis = Some(request);
            let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
            // More than there are processors.
            let burn = "for n in 1 2 3 4 5 6 7 8; do while :; do :; done & done; wait";
            let mut container = world.shell(&sandbox, "app", burn);
            container.resources.cpu_request_millis = Some(request);
            let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
            pods.push((sandbox, container.name));
        }
        let used = async || {
            let report = world.host.usage().await.unwrap();
            [0, 1].map(|n: usize| report.sandboxes[&pods[n].0.id].containers[&pods[n].1].1.cpu_nanos)
        };
        let before = used().await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let after = used().await;
        let [much, little] = [0, 1].map(|n: usize| after[n] - before[n]);
        // Ten times as much on v2, twenty times on v1.
        assert!(much > 3 * little, "{much} and {little} ns");
        for (sandbox, _) in &pods {
            let _ = world.host.sandbox_stop(&sandbox.id).await.unwrap();
        }
        for (sandbox, _) in &pods {
            world.destroy(sandbox).await;
        }
    });
}

/// User and system time of a process.
fn cpu_seconds(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
