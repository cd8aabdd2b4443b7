//! `kill -9` of whoever runs it, before and after every command of a pod's life: it converges afterwards, with no residue.

use crate::harness::{FOREVER, World, pod, skip};
use std::time::{Duration, Instant};

/// More steps than a pod's life has.
const STEPS_MOST: usize = 400;

/// An image of one shell, known as `local/box:1`.
fn image(world: &World) {
    let root = world.dir.join("box");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in ["sh", "sleep", "cat", "echo"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    world.ctl(&["image", "import", root.to_str().unwrap(), "--name", "local/box:1"]).ok();
}

/// A pod with a root of its own, a volume and a limit, a service that leads to it, and a policy that isolates it.
fn manifest() -> String {
    let more = "image: 'local/box:1', imagePullPolicy: Never, volumeMounts: [{name: data, mountPath: /data}], \
                resources: {limits: {cpu: 500m, memory: 64Mi}}";
    let command = format!("[/bin/sh, -c, {FOREVER:?}]");
    let pod = pod("a", "volumes: [{name: data, emptyDir: {}}],", &command, more);
    let pod = pod.replacen("metadata:\n", "metadata:\n  labels: {app: a}\n", 1);
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  selector: {app: a}\n  ports: [{port: 80}]\n";
    let policy =
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {podSelector: {}}\n";
    format!("{pod}---\n{service}---\n{policy}")
}

/// Every `stride`th command from the `first` on; `REDDWARF_EVERY_STEP=1` takes no step out.
fn every_step(action: &str, first: usize, stride: usize) {
    if skip() {
        return;
    }
    let mut world = World::started(action);
    // Image and template of the brand are made before: they stay.
    image(&world);
    world.file("a.yaml", &manifest());
    world.ready("a");
    world.remove("a.yaml");
    world.gone("a");
    world.no_traces();
    let every = std::env::var_os("REDDWARF_EVERY_STEP").is_some();
    let (first, stride) = if every { (1, 1) } else { (first, stride) };
    for step in (first..STEPS_MOST).step_by(stride) {
        world.lab.forget_transcript().unwrap();
        world.lab.faults(&format!("changing {step} {action}\n")).unwrap();
        let began = Instant::now();
        world.file("a.yaml", &manifest());
        survive(&mut world, "a pod that is ready", |w| w.pod("a").is_some_and(|p| crate::harness::is_ready(&p)));
        // The daemon may well be killed at this very command, which its client then hears of.
        survive(&mut world, "a command in it", |w| w.exec("a", &["echo", "fine"]).out == "fine\n");
        world.remove("a.yaml");
        survive(&mut world, "no pod", |w| w.ctl(&["get", "pod", "a"]).code == 4);
        // Who is killed may be the daemon, or the supervisor of the pod's container.
        let calls = world.calls();
        world.lab.faults("").unwrap();
        world.no_traces();
        let Some(call) = calls.iter().find(|l| l.fault.is_some()) else {
            // One that ends with its zone, as a container's own does, comes to no end at which its caller could be killed.
            if calls.iter().filter(|l| l.changing).count() + 1 >= step {
                println!("{action} {step}: did not end by itself");
                continue;
            }
            println!("{action}: a pod's life has less than {step} steps");
            assert!(step > 20, "too few steps to be a pod's life");
            return;
        };
        println!("{action} {step}: {} {}: {} ms", call.tool, call.argv.join(" "), began.elapsed().as_millis());
    }
    panic!("{action}: never an end of steps");
}

/// Waits for something, starting the daemon again whenever it was killed.
fn survive(world: &mut World, what: &str, mut done: impl FnMut(&World) -> bool) {
    let began = Instant::now();
    loop {
        if world.died() {
            world.spawn();
        }
        if done(world) {
            return;
        }
        if began.elapsed() > Duration::from_secs(60) {
            world.within(Duration::ZERO, what, |_| None::<()>);
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

#[test]
fn killed_before_every_command() {
    every_step("kill-caller", 1, 3);
}

/// What is there after a command is what is there before the next one; only what the daemon wrote down in between differs.
#[test]
fn killed_after_every_command() {
    every_step("kill-caller-after", 2, 5);
}
