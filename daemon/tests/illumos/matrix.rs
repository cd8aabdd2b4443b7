//! F27: every state of a zone as a starting point for every desired state.

use crate::harness::{FOREVER, World, script, skip};
use reddwarf_hostsim::state::ZoneState;

/// A pod whose zone somebody brought into this state while no daemon ran.
fn begun(world: &mut World, state: ZoneState) {
    world.file("a.yaml", &script("a", FOREVER));
    world.ready("a");
    world.stop();
    let (name, _) = world.zone("a");
    world.lab.force(&name, state).unwrap();
}

#[test]
fn f27_from_every_state_to_running() {
    if skip() {
        return;
    }
    let mut world = World::started("to-running");
    for state in ZoneState::ALL {
        println!("{} → running", state.word());
        begun(&mut world, state);
        world.start();
        world.until(&format!("{} → running", state.word()), |w| (w.in_state(ZoneState::Running) == 1).then_some(()));
        world.ready("a");
        world.until("its processes", |w| (w.exec("a", &["true"]).code == 0).then_some(()));
        world.remove("a.yaml");
        world.gone("a");
        world.no_traces();
    }
}

#[test]
fn f27_from_every_state_to_absent() {
    if skip() {
        return;
    }
    let mut world = World::started("to-absent");
    for state in ZoneState::ALL {
        println!("{} → absent", state.word());
        begun(&mut world, state);
        world.remove("a.yaml");
        world.start();
        world.gone("a");
        world.no_traces();
    }
}

/// A halt that does not end at once is asked for again.
#[test]
fn a_zone_that_hangs_in_down_is_halted_again() {
    if skip() {
        return;
    }
    let world = World::started("stuck");
    world.file("a.yaml", &script("a", FOREVER));
    world.ready("a");
    let (name, _) = world.zone("a");
    world.lab.change(|s| s.zones.get_mut(&name).unwrap().stuck = 3).unwrap();
    world.remove("a.yaml");
    world.gone("a");
    world.no_traces();
}
