//! F27: every state of a zone as a starting point for every wish.

use crate::support::played;
use reddwarf_host::{Host, HostErrorKind, HostEvent, SandboxState, Sandboxes, SystemClock};
use reddwarf_hostsim::state::ZoneState;
use reddwarf_illumos::IllumosHost;
use reddwarf_illumos::zone_events::{ZoneChange, channel};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn f27_from_every_state_a_pod_comes_up_and_goes_away() {
    played(|world| async move {
        for state in ZoneState::ALL {
            for up in [true, false] {
                let sandbox = world.running().await;
                // A zone does not leave its links to others by itself.
                if !matches!(state, ZoneState::Ready | ZoneState::Running | ZoneState::ShuttingDown | ZoneState::Down) {
                    let _ = world.host.sandbox_stop(&sandbox.id).await.unwrap();
                }
                world.lab.force(sandbox.id.as_str(), state).unwrap();
                if up {
                    let change = world.host.sandbox_ensure(&sandbox).await;
                    assert!(change.is_ok(), "{state:?} → running: {change:?}");
                    let seen = world.observe(&sandbox.id).await.unwrap();
                    assert_eq!(seen.state, SandboxState::Running, "from {state:?}");
                }
                let stopped = world.host.sandbox_stop(&sandbox.id).await;
                assert!(stopped.is_ok(), "{state:?} → installed: {stopped:?}");
                let gone = world.host.sandbox_destroy(&sandbox.id).await;
                assert!(gone.is_ok(), "{state:?} → absent: {gone:?}");
                let zones = world.lab.state().unwrap().zones;
                assert!(!zones.contains_key(sandbox.id.as_str()), "{state:?}: {zones:?}");
            }
        }
    });
}

/// What somebody put aside by `zoneadm detach` is never taken for what an installation left.
#[test]
fn detached_files_are_left_to_whoever_detached_them() {
    played(|world| async move {
        let sandbox = world.running().await;
        let id = sandbox.id.as_str();
        let _ = world.host.sandbox_stop(&sandbox.id).await.unwrap();
        let zone = |args: &[&str]| assert_eq!(world.lab.run("zoneadm", args).unwrap().code, 0, "{args:?}");
        zone(&["-z", id, "detach"]);
        let note = world.lab.state().unwrap().zones[id].config.zonepath().join("root/note");
        std::fs::write(&note, "mine").unwrap();
        let error = world.host.sandbox_ensure(&sandbox).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::InvalidState, "{error}");
        assert!(error.to_string().contains(&format!("zoneadm -z {id} attach")), "{error}");
        assert_eq!(std::fs::read_to_string(&note).unwrap(), "mine");
        zone(&["-z", id, "attach"]);
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        assert_eq!(std::fs::read_to_string(&note).unwrap(), "mine");
        let _ = world.host.sandbox_stop(&sandbox.id).await.unwrap();
        let _ = world.host.sandbox_destroy(&sandbox.id).await.unwrap();
        // Nor does anything of a pod stay with the template that its zone was cloned from.
        let snapshots: Vec<_> = world.lab.state().unwrap().datasets.into_keys().filter(|n| n.contains('@')).collect();
        assert_eq!(snapshots, Vec::<String>::new());
    });
}

/// The kernel's word on a zone has it looked at, at once and once more; that on other people's zones has not.
#[test]
fn a_zone_that_ends_is_told_of_at_once_if_it_is_ours() {
    played(|world| async move {
        let sandbox = world.running().await;
        let (teller, events) = channel();
        let host = IllumosHost::with_zone_events(world.options.clone(), Arc::new(SystemClock), events).unwrap();
        let mut told = host.events();
        let change = |zone: &str, from: &str, to: &str| {
            teller.tell(ZoneChange { zone: zone.into(), from: from.into(), to: to.into() });
        };
        // Nobody's, a path, another daemon's, a word nobody knows, a state on the way: none of them is heard of below.
        for zone in ["oracle", "../../etc", ""] {
            change(zone, "running", "shutting_down");
        }
        change(sandbox.id.as_str(), "running", "hibernating");
        change(sandbox.id.as_str(), "initialized", "ready");
        world.lab.force(sandbox.id.as_str(), ZoneState::Installed).unwrap();
        change(sandbox.id.as_str(), "shutting_down", "uninitialized");
        for _ in 0..2 {
            let event = tokio::time::timeout(Duration::from_secs(10), told.recv()).await;
            assert_eq!(event.unwrap().unwrap(), HostEvent::Sandbox(sandbox.id.clone()));
        }
        assert_eq!(world.observe(&sandbox.id).await.unwrap().state, SandboxState::Stopped);
        assert!(told.try_recv().is_err());
        teller.tell_lost();
        let event = tokio::time::timeout(Duration::from_secs(10), told.recv()).await;
        assert_eq!(event.unwrap().unwrap(), HostEvent::Everything);
        // With the host ends the listening.
        drop(told);
        drop(host);
        teller.tell_lost();
        let _ = world.host.sandbox_destroy(&sandbox.id).await.unwrap();
    });
}
