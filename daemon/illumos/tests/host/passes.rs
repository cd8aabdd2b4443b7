//! What a pass costs, and who waits for whom.

use crate::support::played;
use reddwarf_host::{Host, Observation, Sandboxes};
use reddwarf_hostsim::state::ZoneState;
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

/// The same with a thousand pods: as many commands as with one.
#[test]
fn a_pass_over_a_thousand_pods_takes_as_many_commands_as_over_one() {
    played(|world| async move {
        let sandbox = world.running().await;
        let pass = async || {
            world.lab.forget_transcript().unwrap();
            let began = Instant::now();
            let seen = world.host.observe().await;
            (seen.sandboxes.known().unwrap().len(), world.lab.transcript().unwrap().len(), began.elapsed())
        };
        let (_, one, _) = pass().await;
        let id = sandbox.id.as_str();
        let marks = world.options.state_dir.join("sandboxes");
        let mark = std::fs::read_to_string(marks.join(id).join("sandbox.json")).unwrap();
        let named = |n: u32| format!("many-{n}-x");
        for n in 1..1000 {
            let dir = marks.join(named(n));
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(dir.join("sandbox.json"), mark.replace(id, &named(n))).unwrap();
        }
        let added = world.lab.change(|state| {
            let mut zone = state.zones[id].clone();
            (zone.state, zone.id, zone.init) = (ZoneState::Installed, None, None);
            state.zones.extend((1..1000).map(|n| (named(n), zone.clone())));
        });
        added.unwrap();
        let (pods, many, took) = pass().await;
        println!("a pass: {one} commands with one pod, {many} with {pods} pods, in {} ms", took.as_millis());
        assert_eq!((pods, many), (1000, one));
        for n in 1..1000 {
            std::fs::remove_dir_all(marks.join(named(n))).unwrap();
        }
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
