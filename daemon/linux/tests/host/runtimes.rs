//! crun and runc behind the same shim, where they are installed.

use crate::support::{as_root, code};
use reddwarf_host::SystemClock;
use reddwarf_host::spec::Signal;
use reddwarf_host::{ContainerState, Sandboxes};
use reddwarf_linux::{LinuxHost, Runtime};
use std::path::PathBuf;
use std::sync::Arc;

fn installed(name: &str) -> Option<PathBuf> {
    let found =
        ["/usr/bin", "/usr/sbin", "/usr/local/bin"].iter().map(|d| PathBuf::from(d).join(name)).find(|p| p.exists());
    if found.is_none() {
        eprintln!("SKIPPED: {name} is not installed");
    }
    found
}

fn runs_a_container_by(runtime: Runtime) {
    as_root(|mut world| async move {
        world.options.runtime = runtime;
        world.host = LinuxHost::new(world.options.clone(), Arc::new(SystemClock)).unwrap();
        let (sandbox, container) = world.start("trap 'exit 9' TERM; echo up; sleep 1000000 & wait").await;
        // Before its trap is set, the signal would be lost: it is the first process of its namespace.
        world.until_log(&container, "up").await;
        let (code_of_exec, out, _) = world.exec(&sandbox.id, &container.name, "echo in; exit 3").await;
        assert_eq!((code_of_exec, out.as_str()), (3, "in\n"));
        let running = world.instance(&sandbox.id, &container.name).await;
        let ContainerState::Running { pid, .. } = running.state else { panic!("{:?}", running.state) };
        let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert!(cgroups.lines().all(|l| l.contains(&world.options.instance)), "not all ours: {cgroups}");
        let _ = world.host.container_signal(&sandbox.id, &container.name, 0, Signal::Sigterm).await.unwrap();
        let observed = world.until_exit(&sandbox.id, &container.name).await;
        assert_eq!(code(&observed), 9);
        assert_eq!(world.log(&container), ["stdout F up"]);
        let missing = world.container(&sandbox, "missing", vec!["/no/such".into()]);
        let _ = world.host.container_start(&sandbox.id, &missing).await.unwrap();
        assert_eq!(code(&world.until_exit(&sandbox.id, &missing.name).await), 127);
        world.destroy(&sandbox).await;
    });
}

#[test]
fn crun_can_be_chosen() {
    if let Some(path) = installed("crun") {
        runs_a_container_by(Runtime::Crun(path));
    }
}

#[test]
fn runc_can_be_chosen() {
    if let Some(path) = installed("runc") {
        runs_a_container_by(Runtime::Runc(path));
    }
}
