//! F26: every run of a tool that changes something fails once, dies once having done its work, and lies once; afterwards
//! the pod comes up and goes away, and nothing is left.

use crate::support::{World, played};
use reddwarf_host::{Host, SandboxState, Sandboxes};
use std::sync::Arc;

/// More changing runs than a pod's way up has.
const MOST: usize = 16;

async fn residue(world: &Arc<World>, id: &str) -> Vec<String> {
    let state = world.lab.state().unwrap();
    let mut left: Vec<String> = state.zones.keys().filter(|z| z.as_str() == id).cloned().collect();
    left.extend(state.datasets.keys().filter(|d| d.contains(id)).cloned());
    let link = reddwarf_host::LinkName::for_sandbox(&reddwarf_host::SandboxId::new(id).unwrap());
    left.extend(state.links.keys().filter(|l| **l == link.as_str()).cloned());
    for leftover in world.host.observe().await.leftovers {
        left.push(format!("{} {}", leftover.kind, leftover.name));
    }
    left
}

#[test]
fn f26_a_tool_that_fails_dies_or_lies_costs_a_repeat_and_leaves_nothing() {
    played(|world| async move {
        // Template and network are there: what follows is the pod's own.
        let first = world.running().await;
        for action in ["fail-before", "crash-after", "lie"] {
            for number in 1..=MOST {
                let sandbox = world.sandbox();
                let id = sandbox.id.as_str().to_owned();
                world.lab.faults(&format!("changing {number} {action}\n")).unwrap();
                let begun = world.host.sandbox_ensure(&sandbox).await;
                world.lab.faults("").unwrap();
                let mut tries = 0;
                while let Err(error) = world.host.sandbox_ensure(&sandbox).await {
                    tries += 1;
                    assert!(tries < 4, "{action} at {number}: {begun:?}, then {}", error.chain());
                }
                let seen = world.observe(&sandbox.id).await.unwrap();
                assert_eq!(seen.state, SandboxState::Running, "{action} at {number}");
                let _ = world.host.sandbox_stop(&sandbox.id).await.unwrap();
                world.lab.faults(&format!("changing {number} {action}\n")).unwrap();
                let _ = world.host.sandbox_destroy(&sandbox.id).await;
                world.lab.faults("").unwrap();
                let gone = world.host.sandbox_destroy(&sandbox.id).await;
                assert!(gone.is_ok(), "{action} at {number}: {gone:?}");
                assert_eq!(residue(&world, &id).await, Vec::<String>::new(), "{action} at {number}");
            }
        }
        assert_eq!(world.observe(&first.id).await.unwrap().state, SandboxState::Running, "nobody else was touched");
    });
}

/// zonecfg keeps what came before an error. Of a zone that was not there nothing stays; an installed one has the
/// configuration that it had, until the next try.
#[test]
fn what_zonecfg_did_of_the_half_is_taken_back() {
    played(|world| async move {
        let mut first = world.running().await;
        // Whatever the order.
        let config = |id: &str| {
            let config = world.lab.state().unwrap().zones.get(id)?.config.clone();
            let mut resources: Vec<_> = config.resources.iter().map(|r| format!("{r:?}")).collect();
            resources.sort();
            Some((config.globals, resources))
        };
        let before = config(first.id.as_str());
        for statements in [1, 4, 9, 30, 45] {
            let fresh = world.sandbox();
            world.lab.faults(&format!("zonecfg/-f 1 partial {statements}\n")).unwrap();
            assert!(world.host.sandbox_ensure(&fresh).await.is_err(), "{statements}");
            assert_eq!(config(fresh.id.as_str()), None, "{statements}");
            let _ = world.host.sandbox_ensure(&fresh).await.unwrap();
            let _ = world.host.sandbox_stop(&fresh.id).await.unwrap();
            let _ = world.host.sandbox_destroy(&fresh.id).await.unwrap();
            assert_eq!(residue(&world, fresh.id.as_str()).await, Vec::<String>::new());
        }
        // An edit of a zone that runs: limits, all of which are taken away and made anew.
        first.resources.cpu_limit_millis = Some(500);
        first.resources.memory_limit_bytes = Some(1 << 30);
        let _ = world.host.sandbox_ensure(&first).await.unwrap();
        let limited = config(first.id.as_str());
        assert_ne!(limited, before);
        first.resources.cpu_limit_millis = Some(700);
        first.resources.memory_limit_bytes = Some(2 << 30);
        for statements in [1, 4, 5] {
            world.lab.faults(&format!("zonecfg/-f 1 partial {statements}\n")).unwrap();
            assert!(world.host.sandbox_ensure(&first).await.is_err(), "{statements}");
            assert_eq!(config(first.id.as_str()), limited, "{statements}");
        }
        world.lab.faults("").unwrap();
        let _ = world.host.sandbox_ensure(&first).await.unwrap();
        assert_ne!(config(first.id.as_str()), limited);
    });
}
