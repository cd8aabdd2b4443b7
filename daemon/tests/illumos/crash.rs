//! `kill -9` of the daemon before and after every command of a pod's life: it converges afterwards, with no residue.

use crate::harness::{FOREVER, World, script, skip};
use std::time::{Duration, Instant};

/// More steps than a pod's life has.
const STEPS_MOST: u32 = 200;

/// `REDDWARF_EVERY_STEP=1` takes no step out.
fn every_step(action: &str, stride: usize) {
    if skip() {
        return;
    }
    let mut world = World::started(action);
    // The template of the brand is made before: it stays.
    world.file("warm.yaml", &script("warm", FOREVER));
    world.ready("warm");
    world.remove("warm.yaml");
    world.gone("warm");
    world.no_traces();
    let stride = if std::env::var_os("REDDWARF_EVERY_STEP").is_some() { 1 } else { stride };
    for step in (1..STEPS_MOST).step_by(stride) {
        world.lab.forget_transcript().unwrap();
        world.lab.faults(&format!("changing {step} {action}\n")).unwrap();
        let mut deaths = 0;
        world.file("a.yaml", &script("a", FOREVER));
        deaths +=
            survive(&mut world, "a pod that is ready", |w| w.pod("a").is_some_and(|p| crate::harness::is_ready(&p)));
        // The daemon may well be killed at this very command, which its client then hears of.
        deaths += survive(&mut world, "a command in it", |w| w.exec("a", &["echo", "fine"]).out == "fine\n");
        world.remove("a.yaml");
        deaths += survive(&mut world, "no pod", |w| w.ctl(&["get", "pod", "a"]).code == 4);
        world.lab.faults("").unwrap();
        world.no_traces();
        if deaths == 0 {
            println!("{action}: a pod's life has less than {step} steps");
            assert!(step > 8, "too few steps to be a pod's life");
            return;
        }
    }
    panic!("{action}: never an end of steps");
}

/// Waits for something, starting the daemon again whenever it was killed; how often it was.
fn survive(world: &mut World, what: &str, mut done: impl FnMut(&World) -> bool) -> u32 {
    let began = Instant::now();
    let mut deaths = 0;
    loop {
        if world.died() {
            deaths += 1;
            world.spawn();
        }
        if done(world) {
            return deaths;
        }
        if began.elapsed() > Duration::from_secs(60) {
            world.within(Duration::ZERO, what, |_| None::<()>);
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

#[test]
fn killed_before_every_command() {
    every_step("kill-caller", 1);
}

/// What is there after a command is what is there before the next one; only what the daemon wrote down in between differs.
#[test]
fn killed_after_every_command() {
    every_step("kill-caller-after", 3);
}
