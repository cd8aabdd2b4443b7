//! The fake host's own rules, beyond those of the contract suite: faults, power, the administrator, the files.

use super::*;
use crate::contract::sample;
use crate::error::HostErrorKind;
use crate::names::{Brand, ContainerName, ImageId, PodUid};
use crate::observe::{Change, ContainerState, ImageConfig, Observation, SandboxState};
use crate::spec::*;
use crate::traits::{Host, ImageStore, Network, Sandboxes};
use std::path::{Path, PathBuf};
use tokio::time::{advance, timeout};

fn network() -> NetworkSpec {
    NetworkSpec {
        link: "reddwarf0".into(),
        cidr: "10.88.0.0/16".parse().unwrap(),
        gateway: "10.88.0.1".parse().unwrap(),
        second: None,
        masquerade: true,
    }
}

fn sandbox(name: &str, last: u8) -> SandboxSpec {
    let pod =
        PodIdentity { namespace: "default".into(), name: name.into(), uid: PodUid::new(format!("u-{name}")).unwrap() };
    let network = SandboxNetwork::Pod {
        address: format!("10.88.0.{last}/16").parse().unwrap(),
        gateway: "10.88.0.1".parse().unwrap(),
        second: None,
    };
    sample::sandbox(SandboxId::for_pod(&pod), pod, Brand::new("oci").unwrap(), network)
}

fn container(image: &ImageId, argv: &[&str], log: &Path) -> ContainerSpec {
    let image = ContainerImage::Image { id: image.clone() };
    let argv = argv.iter().map(ToString::to_string).collect();
    sample::container(ContainerName::new("app").unwrap(), image, "web:1", argv, log.into())
}

/// A host with a network and one running sandbox.
async fn host_with_sandbox(options: FakeOptions) -> (FakeHost, SandboxSpec, ImageId) {
    let host = FakeHost::with(options);
    let image = host.add_image("web:1", ImageConfig::default());
    let _ = host.network_ensure(&network()).await.unwrap();
    let spec = sandbox("web", 5);
    let _ = host.sandbox_ensure(&spec).await.unwrap();
    (host, spec, image)
}

fn state(host: &FakeHost, id: &SandboxId) -> Option<SandboxState> {
    host.sandbox(id).map(|s| s.state)
}

#[tokio::test(start_paused = true)]
async fn a_process_ends_at_its_time_and_its_event_comes_by_itself() {
    let (host, spec, image) = host_with_sandbox(FakeOptions::default()).await;
    let mut events = host.events();
    let app = container(&image, &["sh", "-c", "sleep 90; exit 3"], Path::new("/dev/null"));
    let started = host.clock().boot();
    let _ = host.container_start(&spec.id, &app).await.unwrap();
    assert_eq!(events.recv().await.unwrap(), HostEvent::Container(spec.id.clone(), app.name.clone()));
    assert_eq!(events.recv().await.unwrap(), HostEvent::Container(spec.id.clone(), app.name.clone()));
    let seen = host.sandbox(&spec.id).unwrap().containers[&app.name][0].state.clone();
    let ContainerState::Exited { code, signal, finished, .. } = seen else { panic!("{seen:?}") };
    assert_eq!((code, signal, finished), (3, None, started.plus(Duration::from_secs(90))));
}

#[tokio::test(start_paused = true)]
async fn scripts_go_by_attempt_and_override_argv() {
    let (host, spec, image) = host_with_sandbox(FakeOptions::default()).await;
    let scripts = vec![Script::exits(Duration::ZERO, 1), Script::forever()];
    host.set_script(For::Container("app".into()), scripts);
    for attempt in 0..2 {
        let app = ContainerSpec { attempt, ..container(&image, &["true"], Path::new("/dev/null")) };
        let _ = host.container_start(&spec.id, &app).await.unwrap();
        advance(Duration::from_millis(1)).await;
    }
    let attempts = &host.sandbox(&spec.id).unwrap().containers[&ContainerName::new("app").unwrap()];
    assert!(matches!(attempts[0].state, ContainerState::Exited { code: 1, .. }));
    assert!(matches!(attempts[1].state, ContainerState::Running { .. }));
}

/// F26: exit status 1 having done it; exit status 0 having done nothing; U11: no answer at all.
#[tokio::test(start_paused = true)]
async fn faults_strike_before_after_halfway_and_not_at_all() {
    let host = FakeHost::new();
    let _ = host.network_ensure(&network()).await.unwrap();
    let spec = sandbox("web", 5);

    host.faults().on(Op::SandboxEnsure, Fault::FailBefore(HostErrorKind::Other));
    assert!(host.sandbox_ensure(&spec).await.is_err());
    assert_eq!(state(&host, &spec.id), None);

    host.faults().on(Op::SandboxEnsure, Fault::NothingDone);
    assert!(matches!(host.sandbox_ensure(&spec).await, Ok(Change::Changed(_))));
    assert_eq!(state(&host, &spec.id), None);

    host.faults().on(Op::SandboxEnsure, Fault::FailPartway(2, HostErrorKind::Other));
    assert!(host.sandbox_ensure(&spec).await.is_err());
    assert_eq!(state(&host, &spec.id), Some(SandboxState::Stopped));

    host.faults().on(Op::SandboxEnsure, Fault::FailAfter(HostErrorKind::Other));
    assert!(host.sandbox_ensure(&spec).await.is_err());
    assert_eq!(state(&host, &spec.id), Some(SandboxState::Running));

    host.faults().on(Op::SandboxStop, Fault::Hang);
    assert!(timeout(Duration::from_secs(3600), host.sandbox_stop(&spec.id)).await.is_err());
    assert_eq!(state(&host, &spec.id), Some(SandboxState::Running));
    assert_eq!(host.sandbox_stop(&spec.id).await.unwrap(), Change::Changed("halted".into()));

    let outcomes: Vec<_> = host.mutations().into_iter().map(|m| m.outcome).collect();
    let failed = Some(Err(HostErrorKind::Other));
    assert_eq!(outcomes, [Some(Ok(true)), failed, Some(Ok(true)), failed, failed, None, Some(Ok(true))]);
}

/// U3: what can't be read is unknown, never absent.
#[tokio::test(start_paused = true)]
async fn observations_can_be_unknown_in_every_part() {
    let (host, spec, _) = host_with_sandbox(FakeOptions::default()).await;
    for fault in [Fault::UnknownList, Fault::FailBefore(HostErrorKind::Timeout)] {
        host.faults().on(Op::Observe, fault);
        assert!(matches!(host.observe().await.sandboxes, Observation::Unknown(_)));
    }
    for fault in [Fault::UnknownSandbox(Some(spec.id.clone())), Fault::UnknownSandbox(None), Fault::Truncated] {
        host.faults().on(Op::Observe, fault);
        let seen = host.observe().await.sandboxes;
        assert!(matches!(seen.known().unwrap()[&spec.id], Observation::Unknown(_)));
    }
    host.faults().on(Op::Observe, Fault::UnknownNetwork);
    assert!(matches!(host.observe().await.network, Observation::Unknown(_)));
    host.faults().on(Op::Observe, Fault::UnknownImages);
    assert!(matches!(host.observe().await.images, Observation::Unknown(_)));
    assert!(matches!(host.observe().await.sandboxes.known().unwrap()[&spec.id], Observation::Known(_)));
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_leaves_what_each_system_leaves() {
    for (profile, left) in [(Profile::Linux, None), (Profile::Illumos, Some(SandboxState::Stopped))] {
        let (host, spec, image) = host_with_sandbox(FakeOptions { profile, ..FakeOptions::default() }).await;
        let app = container(&image, &["server"], Path::new("/dev/null"));
        let _ = host.container_start(&spec.id, &app).await.unwrap();
        let (before, boot_id) = (host.clock().boot(), host.info().await.unwrap().boot_id);
        let mut boots = host.boots();
        host.faults().on(Op::VolumeUpdate, Fault::PowerCutBefore);
        let volume = crate::names::VolumeName::new("v").unwrap();
        let empty = VolumeSpec::EmptyDir { memory: false, size_limit_bytes: None };
        let call = host.volume_update(&spec.id, &volume, &empty);
        tokio::select! {
            _ = call => panic!("a call under way never returns from a power cut"),
            changed = boots.changed() => changed.unwrap(),
        }
        assert!(host.clock().boot() < before);
        assert_ne!(host.info().await.unwrap().boot_id, boot_id);
        let after = host.observe().await;
        assert_eq!(after.network, Observation::Known(None));
        assert_eq!(state(&host, &spec.id), left);
        assert_eq!(after.leftovers.len(), usize::from(profile == Profile::Linux));
        assert_eq!(after.images.known().unwrap().len(), 1);
        // Everything comes back by asking again, and the leftover is taken over.
        let _ = host.network_ensure(&network()).await.unwrap();
        let _ = host.sandbox_ensure(&spec).await.unwrap();
        assert_eq!(state(&host, &spec.id), Some(SandboxState::Running));
        assert!(host.observe().await.leftovers.is_empty());
    }
}

/// F27: every zone state as a starting point, for every wish.
#[tokio::test(start_paused = true)]
async fn f27_every_state_leads_to_running_and_to_gone_or_says_why_not() {
    use ZoneState::*;
    let states = [
        Configured,
        Incomplete,
        Installed,
        Ready,
        Running,
        ShuttingDown,
        Down,
        Mounted,
        Unrecognised("unavailable".into()),
    ];
    for zone in states {
        let (host, spec, _) = host_with_sandbox(FakeOptions::default()).await;
        host.set_zone_state(&spec.id, zone.clone());
        let up = host.sandbox_ensure(&spec).await.map_err(|e| e.kind);
        match zone {
            ShuttingDown | Down | Mounted => assert_eq!(up, Err(HostErrorKind::Busy), "{zone:?}"),
            Unrecognised(_) => assert_eq!(up, Err(HostErrorKind::Other), "{zone:?}"),
            Running => assert_eq!(up, Ok(Change::Unchanged)),
            _ => assert!(matches!(up, Ok(Change::Changed(_))), "{zone:?}"),
        }
        host.set_zone_state(&spec.id, zone.clone());
        let gone = host.sandbox_destroy(&spec.id).await;
        assert_eq!(gone.is_ok(), !matches!(zone, Unrecognised(_)), "{zone:?}");
        assert_eq!(state(&host, &spec.id).is_none(), gone.is_ok(), "{zone:?}");
    }
}

/// A daemon that dies in the middle (its future is dropped) leaves a half-made sandbox that the next one finishes.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_leaves_its_steps_done() {
    let options = FakeOptions { step_time: Duration::from_secs(1), ..FakeOptions::default() };
    let host = FakeHost::with(options);
    let _ = host.network_ensure(&network()).await.unwrap();
    let spec = sandbox("web", 5);
    assert!(timeout(Duration::from_millis(1500), host.sandbox_ensure(&spec)).await.is_err());
    assert_eq!(state(&host, &spec.id), Some(SandboxState::Stopped));
    let second_daemon = host.clone();
    let _ = second_daemon.sandbox_ensure(&spec).await.unwrap();
    assert_eq!(state(&host, &spec.id), Some(SandboxState::Running));
    assert_eq!(host.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn broken_rules_of_the_caller_are_told() {
    let options = FakeOptions { step_time: Duration::from_secs(1), ..FakeOptions::default() };
    let (host, spec, _) = host_with_sandbox(options).await;
    let other = sandbox("other", 5);
    assert_eq!(host.sandbox_ensure(&other).await.unwrap_err().kind, HostErrorKind::Conflict);
    let (one, two) = tokio::join!(host.sandbox_stop(&spec.id), host.sandbox_stop(&spec.id));
    assert!(one.is_ok() && two.is_ok());
    let told = host.violations();
    assert!(told[0].starts_with("I1") && told[0].contains("10.88.0.5"), "{told:?}");
    assert!(told[1].contains("second mutating call"), "{told:?}");
}

/// I3: a stop of something that ran is recorded with what ran.
#[tokio::test(start_paused = true)]
async fn disruptions_are_recorded_with_the_spec_that_ran() {
    let (host, spec, image) = host_with_sandbox(FakeOptions::default()).await;
    let app = container(&image, &["server"], Path::new("/dev/null"));
    let _ = host.container_start(&spec.id, &app).await.unwrap();
    host.forget_calls();
    let _ = host.observe().await;
    assert_eq!((host.calls().mutating(), host.calls().observing()), (0, 1));
    let _ = host.container_signal(&spec.id, &app.name, 0, Signal::Sigterm).await.unwrap();
    advance(Duration::from_millis(1)).await;
    let _ = host.sandbox_stop(&spec.id).await.unwrap();
    let all = host.mutations();
    assert_eq!(all.iter().map(Mutation::disrupts).collect::<Vec<_>>(), [true, false]);
    assert_eq!(all[0].running, [app]);
    assert_eq!(all[0].found.as_deref(), Some(&spec));
}

#[tokio::test(start_paused = true)]
async fn the_administrator_interferes_and_events_tell() {
    let (host, spec, image) = host_with_sandbox(FakeOptions::default()).await;
    let app = container(&image, &["server"], Path::new("/dev/null"));
    let _ = host.container_start(&spec.id, &app).await.unwrap();
    let mut events = host.events();
    host.kill_container(&spec.id, &app.name);
    assert!(matches!(events.recv().await.unwrap(), HostEvent::Container(..)));
    let seen = host.sandbox(&spec.id).unwrap().containers[&app.name][0].clone();
    assert!(matches!(seen.state, ContainerState::Exited { code: 137, signal: Some(9), .. }) && seen.stop.is_none());
    host.disturb_network("masquerade rule is missing");
    assert_eq!(events.recv().await.unwrap(), HostEvent::Network);
    assert_eq!(host.observe().await.network.known().unwrap().as_ref().unwrap().drift.len(), 1);
    assert!(matches!(host.network_ensure(&network()).await.unwrap(), Change::Changed(_)));
    host.keep_busy(spec.id.as_str(), Duration::from_secs(5));
    assert_eq!(host.sandbox_destroy(&spec.id).await.unwrap_err().kind, HostErrorKind::Busy);
    advance(Duration::from_secs(5)).await;
    let _ = host.sandbox_destroy(&spec.id).await.unwrap();
    host.add_foreign(Foreign::Sandbox(spec.id.to_string()));
    assert_eq!(host.sandbox_ensure(&spec).await.unwrap_err().kind, HostErrorKind::Foreign);
}

#[tokio::test(start_paused = true)]
async fn room_runs_out_and_comes_back() {
    let options = FakeOptions { max_sandboxes: 1, max_containers: 1, ..FakeOptions::default() };
    let (host, spec, image) = host_with_sandbox(options).await;
    let exhausted = host.sandbox_ensure(&sandbox("other", 6)).await.unwrap_err();
    assert_eq!(exhausted.kind, HostErrorKind::Exhausted);
    let app = container(&image, &["server"], Path::new("/dev/null"));
    let _ = host.container_start(&spec.id, &app).await.unwrap();
    let second = ContainerSpec { name: ContainerName::new("second").unwrap(), ..app };
    assert_eq!(host.container_start(&spec.id, &second).await.unwrap_err().kind, HostErrorKind::Exhausted);
    host.kill_container(&spec.id, &ContainerName::new("app").unwrap());
    let _ = host.container_start(&spec.id, &second).await.unwrap();
}

#[tokio::test]
async fn the_simulation_outlives_its_daemon_and_writes_logs() {
    let dir = tempfile::tempdir().unwrap();
    let log: PathBuf = dir.path().join("logs/0.log");
    let state_dir = dir.path().join("sim");
    let spec = sandbox("web", 5);
    let app;
    {
        let host = FakeHost::sim(&state_dir, FakeOptions::default()).unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::File::create(root.join("bin/app")).unwrap();
        let image = host.image_import(&root, "web:1").await.unwrap().id;
        let _ = host.network_ensure(&network()).await.unwrap();
        let _ = host.sandbox_ensure(&spec).await.unwrap();
        app = container(&image, &["sh", "-c", "echo hello; echo oops >&2; server"], &log);
        let _ = host.container_start(&spec.id, &app).await.unwrap();
    }
    let host = FakeHost::sim(&state_dir, FakeOptions::default()).unwrap();
    assert_eq!(host.sandbox_ensure(&spec).await.unwrap(), Change::Unchanged);
    assert_eq!(host.container_start(&spec.id, &app).await.unwrap(), Change::Unchanged);
    assert_eq!(host.network_ensure(&network()).await.unwrap(), Change::Unchanged);
    assert_eq!(host.image_list().await.unwrap()[0].names, ["web:1"]);
    let lines = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<_> = lines.lines().map(|l| l.split_once(' ').unwrap().1).collect();
    assert_eq!(lines, ["stdout F hello", "stderr F oops"]);
    let _ = host.sandbox_stop(&spec.id).await.unwrap();
    let _ = host.sandbox_destroy(&spec.id).await.unwrap();
    drop(host);
    let host = FakeHost::sim(&state_dir, FakeOptions::default()).unwrap();
    assert!(host.sandboxes().is_empty());
}

/// F6: the real machine booted since: the simulated one lost what is volatile.
#[tokio::test]
async fn the_simulation_notices_a_reboot() {
    let dir = tempfile::tempdir().unwrap();
    let spec = sandbox("web", 5);
    {
        let host = FakeHost::sim(dir.path(), FakeOptions::default()).unwrap();
        let _ = host.network_ensure(&network()).await.unwrap();
        let _ = host.sandbox_ensure(&spec).await.unwrap();
    }
    let path = dir.path().join("machine.json");
    let machine = std::fs::read_to_string(&path).unwrap();
    let mut machine: serde_json::Value = serde_json::from_str(&machine).unwrap();
    machine["boot_id"] = "another boot".into();
    serde_json::to_writer(std::fs::File::create(&path).unwrap(), &machine).unwrap();
    for _ in 0..2 {
        let host = FakeHost::sim(dir.path(), FakeOptions::default()).unwrap();
        let seen = host.observe().await;
        assert!(seen.sandboxes.known().unwrap().is_empty());
        assert_eq!(seen.network, Observation::Known(None));
        assert_eq!(seen.leftovers.len(), 1);
    }
}

/// F1, I5: whatever goes wrong and wherever a daemon dies, asking again until it works arrives, and arrives exactly.
#[tokio::test(start_paused = true)]
async fn asking_again_arrives_whatever_went_wrong() {
    use HostErrorKind::{Busy, Other};
    let faults = [
        Fault::FailBefore(Busy),
        Fault::FailAfter(Other),
        Fault::FailPartway(1, Other),
        Fault::FailPartway(2, Other),
        Fault::TimeoutBefore(Duration::from_secs(3)),
        Fault::TimeoutAfter(Duration::from_secs(3)),
        Fault::Hang,
        Fault::HangAfter,
        Fault::NothingDone,
        Fault::PowerCutBefore,
        Fault::PowerCutAfter(1),
        Fault::PowerCutAfter(9),
    ];
    for seed in 0..150 {
        let profile = if seed % 2 == 0 { Profile::Linux } else { Profile::Illumos };
        let step_time = Duration::from_millis(seed % 3);
        let host = FakeHost::with(FakeOptions { profile, step_time, ..FakeOptions::default() });
        let image = host.add_image("web:1", ImageConfig::default());
        let spec = sandbox("web", 5);
        let app = container(&image, &["server"], Path::new("/dev/null"));
        host.faults().chance(seed, 0.4, &Op::ALL, &faults);
        let patience = Duration::from_secs(10);
        let mut tries = 0;
        let running = |host: &FakeHost| {
            let seen = host.sandbox(&spec.id)?;
            let newest = seen.containers.get(&app.name)?.last()?.state.clone();
            (seen.state == SandboxState::Running).then_some(newest)
        };
        while !matches!(running(&host), Some(ContainerState::Running { .. })) {
            tries += 1;
            assert!(tries < 500, "seed {seed}: {:?}", host.sandboxes());
            let _ = timeout(patience, host.network_ensure(&network())).await;
            let _ = timeout(patience, host.sandbox_ensure(&spec)).await;
            let _ = timeout(patience, host.container_start(&spec.id, &app)).await;
        }
        while host.sandbox(&spec.id).is_some() {
            tries += 1;
            assert!(tries < 1000, "seed {seed}: {:?}", host.sandboxes());
            let _ = timeout(patience, host.sandbox_stop(&spec.id)).await;
            let _ = timeout(patience, host.sandbox_destroy(&spec.id)).await;
        }
        assert_eq!(host.violations(), Vec::<String>::new(), "seed {seed}");
        host.clear_faults();
        for leftover in host.observe().await.leftovers {
            let _ = host.leftover_remove(&leftover).await.unwrap();
        }
        let _ = host.network_remove().await.unwrap();
        let end = host.observe().await;
        assert!(end.leftovers.is_empty() && end.network == Observation::Known(None), "seed {seed}: {end:?}");
    }
}

/// A thousand pods cost the fake host little, so that what a test measures is the node.
#[tokio::test(start_paused = true)]
async fn a_thousand_sandboxes_are_no_burden() {
    let host = FakeHost::new();
    let image = host.add_image("web:1", ImageConfig::default());
    let _ = host.network_ensure(&network()).await.unwrap();
    let began = std::time::Instant::now();
    for n in 0..1000_u32 {
        let mut spec = sandbox(&format!("web-{n}"), 5);
        let address = format!("10.88.{}.{}/16", n / 250 + 1, n % 250 + 2);
        spec.network =
            SandboxNetwork::Pod { address: address.parse().unwrap(), gateway: network().gateway, second: None };
        let _ = host.sandbox_ensure(&spec).await.unwrap();
        let app = container(&image, &["server"], Path::new("/dev/null"));
        let _ = host.container_start(&spec.id, &app).await.unwrap();
    }
    let made = began.elapsed();
    let seen = host.observe().await;
    assert_eq!(seen.sandboxes.known().unwrap().len(), 1000);
    // Generous: an unoptimised build on a shared machine.
    assert!(made < Duration::from_secs(20), "{made:?}");
}
