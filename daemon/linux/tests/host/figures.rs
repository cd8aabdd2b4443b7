//! Figures: printed with `cargo test -p reddwarf-linux --test host figures -- --nocapture`, bounds that only something
//! badly wrong would break (this may run beside other tests on a slow machine).

use crate::support::as_root;
use reddwarf_host::{Exec, ExecRequest, Host, Network, Sandboxes};
use std::time::{Duration, Instant};

const COUNT: usize = 20;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Private memory of a process in bytes.
fn private_bytes(pid: i64) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let lines = text.lines().filter(|l| l.starts_with("Private_"));
    lines.map(|l| l.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024).sum()
}

#[test]
fn starting_is_quick_and_shims_are_small() {
    as_root(|world| async move {
        let _ = world.host.network_ensure(&world.network()).await.unwrap();
        let (mut ensures, mut starts, mut execs) = (Vec::new(), Vec::new(), Vec::new());
        let mut sandboxes = Vec::new();
        for _ in 0..COUNT {
            let sandbox = world.pod_sandbox();
            let container = world.container(&sandbox, "app", vec!["/bin/sleep".into(), "1000000".into()]);
            let begun = Instant::now();
            let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
            ensures.push(begun.elapsed());
            let begun = Instant::now();
            let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
            starts.push(begun.elapsed());
            let begun = Instant::now();
            let request = ExecRequest { argv: vec!["/bin/true".into()], tty: false, stdin: false, contained: false };
            let session = world.host.exec(&sandbox.id, &container.name, request).await.unwrap();
            let _ = session.exit.await.unwrap();
            execs.push(begun.elapsed());
            sandboxes.push((sandbox, container));
        }
        let shims: Vec<u64> = sandboxes
            .iter()
            .map(|(sandbox, _)| {
                let file = world.options.run_dir.join(format!("sandboxes/{}/containers/app/0/state.json", sandbox.id));
                let value: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
                private_bytes(value["shim"]["pid"].as_i64().unwrap())
            })
            .collect();
        let _ = world.host.observe().await;
        let begun = Instant::now();
        for _ in 0..10 {
            let _ = world.host.observe().await;
        }
        let observe = begun.elapsed() / 10;
        let (mut stops, mut destroys) = (Vec::new(), Vec::new());
        for (sandbox, _) in &sandboxes {
            let begun = Instant::now();
            let _ = world.host.sandbox_stop(&sandbox.id).await.unwrap();
            stops.push(begun.elapsed());
            let begun = Instant::now();
            let _ = world.host.sandbox_destroy(&sandbox.id).await.unwrap();
            destroys.push(begun.elapsed());
        }
        let (start, exec, stop, destroy) = (median(starts), median(execs), median(stops), median(destroys));
        let shim = *shims.iter().max().unwrap();
        eprintln!(
            "sandbox_ensure {:?}, container_start {start:?}, exec {exec:?} (medians of {COUNT})",
            median(ensures)
        );
        eprintln!(
            "stop {stop:?}, destroy {destroy:?}, observe {observe:?} with {COUNT} sandboxes; shim at most {} KiB private",
            shim / 1024
        );
        assert!(start < Duration::from_millis(500));
        // 1 MiB is for the optimised program: this one has its relocated tables twice as large.
        assert!(shim <= 3 << 19, "a shim has {shim} bytes of its own");
    });
}
