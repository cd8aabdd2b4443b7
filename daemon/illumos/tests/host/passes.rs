//! What a pass costs, and who waits for whom.

use crate::support::played;
use reddwarf_host::{Host, Observation, Sandboxes};
use std::time::{Duration, Instant};

/// A pass over any number of zones takes the same few runs of tools.
#[test]
fn a_pass_costs_the_same_whatever_there_is() {
    played(|world| async move {
        let mut counts = Vec::new();
        for _ in 0..3 {
            let _ = world.running().await;
            world.lab.forget_transcript().unwrap();
            let seen = world.host.observe().await;
            assert!(matches!(seen.sandboxes, Observation::Known(_)));
            counts.push(world.lab.transcript().unwrap().len());
        }
        assert!(counts.iter().all(|n| *n == counts[0] && *n <= 5), "{counts:?}");
    });
}

/// U11: one hung zoneadm delays no other pod, and nothing is taken as absent.
#[test]
fn u11_one_hung_zoneadm_delays_no_other_pod() {
    played(|world| async move {
        let (one, two) = (world.running().await, world.running().await);
        world.lab.faults("zoneadm/halt 1 hang\n").unwrap();
        let host = world.host.clone();
        let id = one.id.clone();
        let hung = tokio::spawn(async move { host.sandbox_stop(&id).await });
        while !world.lab.transcript().unwrap().iter().any(|line| line.argv.iter().any(|a| a == "halt")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let begin = Instant::now();
        let _ = world.host.sandbox_stop(&two.id).await.unwrap();
        let _ = world.host.sandbox_destroy(&two.id).await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        assert!(world.observe(&one.id).await.is_some());
        hung.abort();
        let _ = hung.await;
    });
}

/// U3: a list that can't be read says nothing about what there is.
#[test]
fn u3_a_list_that_fails_is_unknown_not_absent() {
    played(|world| async move {
        let sandbox = world.running().await;
        world.lab.faults("zoneadm/list * fail-before\n").unwrap();
        let seen = world.host.observe().await;
        let one = seen.sandboxes.known().and_then(|all| all.get(&sandbox.id).cloned());
        assert!(matches!(one, Some(Observation::Unknown(_))), "{one:?}");
        assert_eq!(seen.leftovers, []);
    });
}
