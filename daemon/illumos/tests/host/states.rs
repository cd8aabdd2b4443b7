//! F27: every state of a zone as a starting point for every wish.

use crate::support::played;
use reddwarf_host::{SandboxState, Sandboxes};
use reddwarf_hostsim::state::ZoneState;

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
