//! Lets a node on the fake host converge and prints what its full passes cost once nothing is to do:
//! `cargo run --release -p reddwarf-node --example pass_bench [PODS]...` (default 10, 100 and 1,000).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use reddwarf_node::NodeSettings;
use std::time::Duration;
use support::{World, pod, settings};

/// Passes that are averaged.
const PASSES: u32 = 40;

/// CPU time of this process, user and system.
fn cpu() -> Duration {
    let used = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    Duration::from_micros((used.user_time() + used.system_time()).num_microseconds().unsigned_abs())
}

async fn measure(pods: usize) {
    let mut settings = settings();
    settings.network =
        NodeSettings::new("node-1", "reddwarf0", "10.88.0.0/16".parse().unwrap(), "/var/log/pods").network;
    settings.max_pods = 10_000;
    let began = cpu();
    let world = World::with(settings.clone()).await;
    for i in 0..pods {
        world.plane.apply(pod(&format!("p{i}"), serde_json::json!({})));
    }
    world.settled(600).await;
    let converged = cpu() - began;

    world.host.forget_calls();
    let passes = world.node().status().passes;
    let began = cpu();
    tokio::time::sleep(settings.resync * PASSES).await;
    let spent = cpu() - began;
    let passes = world.node().status().passes - passes;
    let calls = world.host.calls();
    println!(
        "{pods:>6} pods: {:>8.2} ms CPU a full pass, {:.1} host queries a pass, {} calls that change the host; \
         {:.0} ms CPU from files to running",
        spent.as_secs_f64() * 1e3 / passes as f64,
        calls.observing() as f64 / passes as f64,
        calls.mutating(),
        converged.as_secs_f64() * 1e3,
    );
}

fn main() {
    let given: Vec<usize> = std::env::args().skip(1).map(|a| a.parse().expect("a number of pods")).collect();
    println!("budget: 50 ms CPU a pass with 1,000 pods, and as many host queries as with 10");
    for pods in if given.is_empty() { vec![10, 100, 1000] } else { given } {
        // Virtual time: only the CPU counts. It includes the heartbeats and timers of a resync interval.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(measure(pods));
    }
}
