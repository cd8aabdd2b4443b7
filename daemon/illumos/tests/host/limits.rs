//! Limits of a pod that runs: what is changed holds at once, and what can't be is told.

use crate::support::{World, played, played_on};
use reddwarf_host::spec::{Resources, SandboxSpec};
use reddwarf_host::{Brand, Change, Network, Sandboxes};
use reddwarf_hostsim::state::Config;
use reddwarf_hostsim::system::System;

const GIB: u64 = 1 << 30;

/// Resource controls' names and bounds.
type Controls = Vec<(String, u64)>;

fn resources(cpu: Option<u64>, shares: Option<u64>, memory: Option<u64>, pids: Option<u64>) -> Resources {
    Resources {
        cpu_limit_millis: cpu,
        cpu_request_millis: shares,
        memory_limit_bytes: memory,
        pids_limit: pids,
        ..Resources::default()
    }
}

/// A zone's resource controls with their bounds: by its configuration, and as the kernel has them.
fn controls(config: &Config) -> Controls {
    let limit = |value: &String| value.split_once("limit=")?.1.split(',').next()?.parse().ok();
    let mut all: Controls =
        config.all("rctl").map(|r| (r.get("name").to_owned(), limit(&r.list("value")[0]).unwrap())).collect();
    all.sort();
    all
}

async fn ensure(world: &World, sandbox: &SandboxSpec) -> Change {
    let change = world.host.sandbox_ensure(sandbox).await.unwrap();
    assert_eq!(world.host.sandbox_ensure(sandbox).await.unwrap(), Change::Unchanged);
    change
}

fn both(world: &World, sandbox: &SandboxSpec) -> (Controls, Controls) {
    let zone = world.lab.state().unwrap().zones.remove(sandbox.id.as_str()).unwrap();
    (controls(&zone.config), controls(&zone.booted.unwrap()))
}

fn named(all: &[(&str, u64)]) -> Controls {
    all.iter().map(|(name, most)| (format!("zone.{name}"), *most)).collect()
}

/// Limits are added, raised, lowered and taken away, and the zone is not booted again.
#[test]
fn limits_of_a_running_zone_change_at_once() {
    played(|world| async move {
        let mut sandbox = world.running().await;
        let id = world.lab.state().unwrap().zones[sandbox.id.as_str()].id;
        for (wanted, bounds) in [
            (
                resources(Some(1500), Some(250), Some(GIB), Some(200)),
                &[
                    ("cpu-cap", 150),
                    ("cpu-shares", 250),
                    ("max-lwps", 200),
                    ("max-physical-memory", GIB),
                    ("max-processes", 200),
                    ("max-swap", GIB),
                ][..],
            ),
            (
                resources(Some(500), Some(250), Some(2 * GIB), None),
                &[("cpu-cap", 50), ("cpu-shares", 250), ("max-physical-memory", 2 * GIB), ("max-swap", 2 * GIB)],
            ),
        ] {
            sandbox.resources = wanted;
            assert_eq!(ensure(&world, &sandbox).await, Change::Changed("limits".into()));
            assert_eq!(both(&world, &sandbox), (named(bounds), named(bounds)));
        }
        // None: every zone has one share, and the most there are without the control.
        sandbox.resources = Resources::default();
        assert_eq!(ensure(&world, &sandbox).await, Change::Changed("limits".into()));
        assert_eq!(both(&world, &sandbox), (Vec::new(), named(&[("cpu-shares", 1)])));
        assert_eq!(world.lab.state().unwrap().zones[sandbox.id.as_str()].id, id, "it was not booted again");
    });
}

/// A daemon that died between the configuration and the running zone does the rest; a control that fails is told.
#[test]
fn what_a_running_zone_was_not_given_is_told_and_what_was_cut_off_is_done() {
    played(|world| async move {
        let mut sandbox = world.running().await;
        sandbox.resources = resources(Some(1500), None, Some(GIB), None);
        world.lab.faults("prctl/zone.max-swap * fail-before 1 prctl: cannot control process\n").unwrap();
        let waits = Change::Changed("limits (at the zone's next boot: capped-memory)".into());
        assert_eq!(ensure(&world, &sandbox).await, waits);
        world.lab.faults("").unwrap();
        sandbox.resources = resources(Some(2000), None, Some(GIB), None);
        // The first thing after the edit hangs; its caller is given up, as a daemon that is killed would be.
        world.lab.faults("prctl 1 hang\n").unwrap();
        let host = world.second_daemon();
        let spec = sandbox.clone();
        let begun = tokio::spawn(async move { host.sandbox_ensure(&spec).await });
        while !world.lab.transcript().unwrap().iter().any(|l| l.fault.as_deref() == Some("Hang")) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        begun.abort();
        let _ = begun.await;
        world.lab.faults("").unwrap();
        let (configured, running) = both(&world, &sandbox);
        assert_ne!(configured, running);
        let _ = ensure(&world, &sandbox).await;
        assert!(both(&world, &sandbox).1.contains(&("zone.cpu-cap".to_owned(), 200)));
    });
}

/// illumos-gate's kernel has no bound on resident memory: rcapd(8) keeps it, if it runs.
#[test]
fn where_rcapd_bounds_resident_memory_it_is_told() {
    played_on(System::Gate, |world| async move {
        let _ = world.host.network_ensure(&world.network()).await.unwrap();
        let mut sandbox = SandboxSpec { brand: Brand::new("ipkg").unwrap(), ..world.sandbox() };
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        sandbox.resources = resources(None, None, Some(GIB), None);
        let waits = Change::Changed("limits (at the zone's next boot: capped-memory)".into());
        assert_eq!(ensure(&world, &sandbox).await, waits);
        let enabled = |state: &mut reddwarf_hostsim::state::State| {
            state.services.get_mut("svc:/system/rcap:default").unwrap().state = "online".into();
        };
        world.lab.change(enabled).unwrap();
        sandbox.resources = resources(None, None, Some(2 * GIB), None);
        assert_eq!(ensure(&world, &sandbox).await, Change::Changed("limits".into()));
        let zone = world.lab.state().unwrap().zones.remove(sandbox.id.as_str()).unwrap().booted.unwrap();
        let cap = zone.all("capped-memory").next().unwrap();
        assert_eq!(cap.get("physical"), (2 * GIB).to_string());
    });
}
