//! How containers end: by which signal, for want of memory in a child, with which last words.

use crate::support::{as_root, code};
use reddwarf_host::spec::{ProcessView, Signal, TerminationMessage, UserSpec};
use reddwarf_host::{ContainerState, Sandboxes};

#[test]
fn real_time_signals_reach_the_program_and_end_it() {
    as_root(|world| async move {
        let sandbox = world.sandbox();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let mut asked =
            world.shell(&sandbox, "asked", "trap 'echo told; exit 9' 37; echo ready; while :; do sleep 0.05; done");
        asked.stop_signal = Signal::RealTime(3);
        // Outside a pid namespace of its own: the first process of one ignores what it has no handler for.
        let mut dies = world.shell(&sandbox, "dies", "echo ready; exec sleep 1000");
        dies.processes = ProcessView::Host;
        for container in [&asked, &dies] {
            let _ = world.host.container_start(&sandbox.id, container).await.unwrap();
            while !world.log(container).iter().any(|l| l.ends_with("ready")) {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            let _ = world.host.container_signal(&sandbox.id, &container.name, 0, Signal::RealTime(3)).await.unwrap();
        }
        let told = world.until_exit(&sandbox.id, &asked.name).await;
        assert_eq!((code(&told), told.stop.is_some()), (9, true), "{told:?}");
        let dead = world.until_exit(&sandbox.id, &dies.name).await;
        assert!(matches!(dead.state, ContainerState::Exited { code: 165, signal: Some(37), .. }), "{dead:?}");
        world.destroy(&sandbox).await;
    });
}

#[test]
fn a_child_that_is_killed_for_want_of_memory_is_told() {
    as_root(|world| async move {
        let sandbox = world.sandbox();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let mut container = world.shell(&sandbox, "app", "tail -n1 /dev/zero; exit 5");
        container.resources.memory_limit_bytes = Some(32 << 20);
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let observed = world.until_exit(&sandbox.id, &container.name).await;
        assert!(observed.oom_killed, "{observed:?}");
        // On cgroup v2 the kernel kills the container as a whole.
        let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        let whole = controllers.split_whitespace().any(|controller| controller == "memory");
        assert_eq!(code(&observed), if whole { 137 } else { 5 }, "{observed:?}");
        world.destroy(&sandbox).await;
    });
}

#[test]
fn last_words_are_kept_whoever_runs_and_wherever_the_file_is() {
    as_root(|world| async move {
        let sandbox = world.sandbox();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let script = "head -c 9000 /dev/zero | tr '\\0' x > /dev/end; echo end >> /dev/end; rm -f /dev/end; ls -l /dev/end; exit 1";
        let mut container = world.shell(&sandbox, "app", script);
        container.termination_message = TerminationMessage { path: "/dev/end".into(), fall_back_to_log: false };
        container.user = UserSpec::Ids { uid: 1234, gid: 1234, groups: Vec::new() };
        container.security.read_only_root = true;
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let observed = world.until_exit(&sandbox.id, &container.name).await;
        let ContainerState::Exited { message, .. } = &observed.state else { panic!("{observed:?}") };
        assert_eq!((message.len(), message.ends_with("xend\n")), (4096, true), "{message}");
        let missing = world.container(&sandbox, "missing", vec!["no-such-program".into()]);
        let _ = world.host.container_start(&sandbox.id, &missing).await.unwrap();
        let observed = world.until_exit(&sandbox.id, &missing.name).await;
        let ContainerState::Exited { message, started: None, .. } = &observed.state else { panic!("{observed:?}") };
        assert!(message.contains("exec: \"no-such-program\": executable file not found in $PATH"), "{message}");
        world.destroy(&sandbox).await;
    });
}
