//! Virtual machines: zones of the brand bhyve, with disks that somebody gave them, and a container that stands for each.

use crate::support::{World, played};
use reddwarf_host::spec::{ContainerSpec, SandboxSpec, Signal};
use reddwarf_host::{
    Attach, AttachRequest, Brand, ContainerState, Exec, ExecRequest, HostErrorKind, Sandboxes, Session,
};
use reddwarf_hostsim::state::ZoneState;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn machine(world: &World, said: &[(&str, &str)]) -> SandboxSpec {
    let machine = said.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    SandboxSpec { brand: Brand::new("bhyve").unwrap(), machine, ..world.sandbox() }
}

#[test]
fn a_machine_has_the_disks_that_it_was_given_and_no_others() {
    played(|world| async move {
        let zfs = |args: &[&str]| {
            let said = world.lab.run("zfs", args).unwrap();
            assert_eq!(said.code, 0, "{said:?}");
        };
        let _ = reddwarf_host::Network::network_ensure(&world.host, &world.network()).await.unwrap();
        let spec = machine(&world, &[("bootdisk", "rpool/vm/web"), ("cdrom", "debian.iso"), ("vnc", "on")]);
        let id = &spec.id;
        let pod = format!("{}/{}", spec.pod.namespace, spec.pod.name);
        let refused = async |why: &str| {
            let error = world.host.sandbox_ensure(&spec).await.unwrap_err();
            assert_eq!(error.kind, HostErrorKind::InvalidSpec, "{error}");
            assert!(error.to_string().contains(why), "{error}");
        };
        refused("there is no volume rpool/vm/web: zfs create -V SIZE rpool/vm/web").await;
        zfs(&["create", "-p", "rpool/vm"]);
        zfs(&["create", "-V", "1g", "rpool/vm/web"]);
        let mend = format!("rpool/vm/web is not this pod's to use: zfs set io.reddwarf:disk={pod} rpool/vm/web");
        refused(&mend).await;
        zfs(&["set", "io.reddwarf:disk=test/another", "rpool/vm/web"]);
        refused(&mend).await;
        // What is inherited was given to nobody.
        zfs(&["inherit", "io.reddwarf:disk", "rpool/vm/web"]);
        zfs(&["set", &format!("io.reddwarf:disk={pod}"), "rpool/vm"]);
        refused(&mend).await;
        zfs(&["set", &format!("io.reddwarf:disk={pod}"), "rpool/vm/web"]);
        refused("put the ISO image there").await;
        std::fs::create_dir_all(world.options.state_dir.join("iso")).unwrap();
        std::fs::write(world.options.state_dir.join("iso/debian.iso"), "iso").unwrap();

        let _ = world.host.sandbox_ensure(&spec).await.unwrap();
        let zone = || world.lab.state().unwrap().zones[id.as_str()].clone();
        assert_eq!(zone().state, ZoneState::Running);
        let config = zone().config;
        let attr = |name: &str| config.attr(name).unwrap_or_default().to_owned();
        assert_eq!(
            (attr("bootdisk"), attr("cdrom"), attr("vnc")),
            ("rpool/vm/web".into(), "/iso/debian.iso".into(), "on".into())
        );
        assert_eq!(config.all("device").map(|d| d.get("match")).collect::<Vec<_>>(), ["/dev/zvol/rdsk/rpool/vm/web"]);
        assert_eq!(config.all("fs").map(|f| f.get("dir")).collect::<Vec<_>>(), ["/iso/debian.iso"], "nothing of ours");

        // Its container is there while it is up, over restarts of the daemon too.
        let container = world.container(&spec, "machine", vec!["machine".into()]);
        let _ = world.host.container_start(id, &container).await.unwrap();
        let again = world.second_daemon();
        let seen = crate::common::instance(&again, id, &container.name).await;
        assert!(matches!(seen.state, ContainerState::Running { .. }), "{seen:?}");
        let request = ExecRequest { argv: vec!["true".into()], stdin: false, tty: false, contained: false };
        let refused = world.host.exec(id, &container.name, request).await.err().unwrap();
        assert_eq!(refused.kind, HostErrorKind::Unsupported, "{refused}");

        // Asked to end, it is shut down; its container ends with it.
        let _ = again.container_signal(id, &container.name, 0, Signal::Sigterm).await.unwrap();
        let ended = crate::common::until_exit(&again, id, &container.name).await;
        assert!(matches!(ended.state, ContainerState::Exited { code: 0, .. }), "{:?}", ended.state);
        assert_eq!(zone().state, ZoneState::Installed);
        let calls = world.lab.transcript().unwrap();
        assert!(calls.iter().any(|l| l.tool == "zoneadm" && l.argv.contains(&"shutdown".into())));

        // Up again, with a guest that does not answer: killed, it is halted, whoever waits for its shutdown.
        world.lab.change(|state| state.zones.get_mut(id.as_str()).unwrap().deaf = true).unwrap();
        let _ = again.sandbox_ensure(&spec).await.unwrap();
        let second = reddwarf_host::spec::ContainerSpec { attempt: 1, ..container.clone() };
        let _ = again.container_remove(id, &container.name, 0).await.unwrap();
        let _ = again.container_start(id, &second).await.unwrap();
        let shutdowns = || {
            let calls = std::fs::read_dir("/proc").unwrap().flatten();
            let lines = calls.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok());
            let ours = |l: &Vec<u8>| String::from_utf8_lossy(l).contains(&format!("zoneadm\0-z\0{id}\0shutdown"));
            lines.filter(|l| ours(l) && String::from_utf8_lossy(l).contains(world.dir.path().to_str().unwrap())).count()
        };
        let _ = again.container_signal(id, &container.name, 1, Signal::Sigterm).await.unwrap();
        while shutdowns() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let _ = again.container_signal(id, &container.name, 1, Signal::Sigkill).await.unwrap();
        assert_eq!(shutdowns(), 0);
        let ended = crate::common::until_exit(&again, id, &container.name).await;
        assert!(matches!(ended.state, ContainerState::Exited { .. }), "{:?}", ended.state);
        assert_eq!(zone().state, ZoneState::Installed);
        let _ = again.sandbox_stop(id).await.unwrap();
        let _ = again.container_remove(id, &container.name, 1).await.unwrap();
        let _ = again.sandbox_destroy(id).await.unwrap();
        let state = world.lab.state().unwrap();
        assert!(!state.zones.contains_key(id.as_str()));
        assert!(state.datasets.contains_key("rpool/vm/web"), "somebody else's, and stays");
    });
}

/// A machine that ends by itself ends its container.
#[test]
fn a_machine_that_is_turned_off_inside_ends_its_container() {
    played(|world| async move {
        let _ = reddwarf_host::Network::network_ensure(&world.host, &world.network()).await.unwrap();
        let spec = machine(&world, &[]);
        let _ = world.host.sandbox_ensure(&spec).await.unwrap();
        let container = world.container(&spec, "machine", vec!["machine".into()]);
        let _ = world.host.container_start(&spec.id, &container).await.unwrap();
        let said = world.lab.run("zoneadm", &["-z", spec.id.as_str(), "halt"]).unwrap();
        assert_eq!(said.code, 0, "{said:?}");
        let ended = world.until_exit(&spec.id, &container.name).await;
        assert!(matches!(ended.state, ContainerState::Exited { code: 0, .. }), "{:?}", ended.state);
        let log = std::fs::read_to_string(&container.log.path).unwrap();
        assert!(log.contains("runs; its console") && log.contains("has ended"), "{log}");
        let _ = world.host.sandbox_stop(&spec.id).await.unwrap();
        let _ = world.host.container_remove(&spec.id, &container.name, 0).await.unwrap();
        let _ = world.host.sandbox_destroy(&spec.id).await.unwrap();
    });
}

/// One that crashed has failed, and is started again where failures are.
#[test]
fn a_machine_that_crashes_has_failed() {
    played(|world| async move {
        let _ = reddwarf_host::Network::network_ensure(&world.host, &world.network()).await.unwrap();
        let spec = machine(&world, &[]);
        let _ = world.host.sandbox_ensure(&spec).await.unwrap();
        let container = world.container(&spec, "machine", vec!["machine".into()]);
        let _ = world.host.container_start(&spec.id, &container).await.unwrap();
        let init = world.lab.change(|state| {
            let zone = state.zones.get_mut(spec.id.as_str()).unwrap();
            // bhyve(8): a triple fault.
            zone.exits = Some(3);
            zone.init
        });
        reddwarf_hostsim::platform::kill(init.unwrap());
        let ended = world.until_exit(&spec.id, &container.name).await;
        assert!(matches!(ended.state, ContainerState::Exited { code: 3, .. }), "{:?}", ended.state);
        let log = std::fs::read_to_string(&container.log.path).unwrap();
        assert!(log.contains("has crashed: a triple fault"), "{log}");
        let _ = world.host.sandbox_stop(&spec.id).await.unwrap();
        let _ = world.host.container_remove(&spec.id, &container.name, 0).await.unwrap();
        let _ = world.host.sandbox_destroy(&spec.id).await.unwrap();
    });
}

/// A machine's console is its container's terminal, where it has one: in the log, and for whoever attaches.
#[test]
fn a_machine_with_a_terminal_has_its_console_attached() {
    played(|world| async move {
        let _ = reddwarf_host::Network::network_ensure(&world.host, &world.network()).await.unwrap();
        let spec = machine(&world, &[]);
        let _ = world.host.sandbox_ensure(&spec).await.unwrap();
        let plain = world.container(&spec, "machine", vec!["machine".into()]);
        let container = ContainerSpec { tty: true, stdin: true, ..plain };
        let _ = world.host.container_start(&spec.id, &container).await.unwrap();
        let attach = AttachRequest { stdin: true, stdout: true, stderr: false };
        let mut first = world.host.attach(&spec.id, &container.name, attach).await.unwrap();
        first.stdin.as_mut().unwrap().write_all(b"hello\r").await.unwrap();
        until(&mut first, "you said: hello").await;
        // A daemon that comes later finds it as it is, beside the first client.
        let again = world.second_daemon();
        let mut second = again.attach(&spec.id, &container.name, attach).await.unwrap();
        // Not an escape of zlogin's.
        second.stdin.as_mut().unwrap().write_all(b"\r~.\r").await.unwrap();
        until(&mut second, "you said: ~.").await;
        until(&mut first, "you said: ~.").await;
        let log = std::fs::read_to_string(&container.log.path).unwrap();
        assert!(log.contains("its console:") && log.contains("you said: hello"), "{log}");

        let said = world.lab.run("zoneadm", &["-z", spec.id.as_str(), "halt"]).unwrap();
        assert_eq!(said.code, 0, "{said:?}");
        let ended = world.until_exit(&spec.id, &container.name).await;
        assert!(matches!(ended.state, ContainerState::Exited { code: 0, .. }), "{:?}", ended.state);
        let _ = world.host.sandbox_stop(&spec.id).await.unwrap();
        let _ = world.host.container_remove(&spec.id, &container.name, 0).await.unwrap();
        let _ = world.host.sandbox_destroy(&spec.id).await.unwrap();
    });
}

/// Reads until it comes.
async fn until(session: &mut Session, wanted: &str) {
    let mut seen = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            seen.push(session.stdout.read_u8().await.unwrap());
        }
    };
    let came = tokio::time::timeout(Duration::from_secs(20), read).await;
    assert!(came.is_ok(), "{wanted:?} in {:?}", String::from_utf8_lossy(&seen));
}
