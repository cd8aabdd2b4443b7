//! Containers in zones: what runs is what was asked for, and its end is told truly.

use crate::support::{World, linux_root, played};
use reddwarf_host::spec::{
    ContainerImage, ContainerSpec, EnvVar, MountSpec, SandboxSpec, Sensitive, UserSpec, VolumeSpec,
};
use reddwarf_host::{Brand, ContainerState, ImageStore, Network, Sandboxes, VolumeName};

/// U1: image, command, arguments, environment, user and directory are what the program sees, whatever is in them.
#[test]
fn u1_the_program_is_started_as_asked_for_and_its_end_is_known() {
    played(|world| async move {
        let sandbox = world.running().await;
        let hostile = "it's \"quoted\"; $(id) `id`\n-n \\ \u{e4} *";
        let script = "printf '%s|%s|%s|%s' \"$1\" \"$V\" \"$(id -u):$(id -g)\" \"$PWD\"; kill -SEGV $$";
        let mut spec = world.shell(&sandbox, "app", script);
        spec.argv.extend(["sh".to_owned(), hostile.to_owned()]);
        spec.env = vec![EnvVar { name: "V".into(), value: Sensitive::new(hostile.into()) }];
        spec.user = UserSpec::Ids { uid: 60001, gid: 60001, groups: vec![] };
        spec.working_dir = "/tmp".into();
        let _ = world.host.container_start(&sandbox.id, &spec).await.unwrap();
        let ended = world.until_exit(&sandbox.id, &spec.name).await;
        let ContainerState::Exited { code, signal, message, .. } = ended.state else { panic!("{:?}", ended.state) };
        assert_eq!((code, signal, message.as_str()), (139, Some(11), ""), "zlogin itself says 0");
        let log = std::fs::read_to_string(&spec.log.path).unwrap();
        let texts: Vec<&str> = log.lines().map(|l| l.splitn(4, ' ').nth(3).unwrap()).collect();
        assert_eq!(texts.join("\n"), format!("{hostile}|{hostile}|60001:60001|/tmp"));
        // Secrets are in no arguments of any tool.
        let transcript = world.lab.transcript().unwrap();
        assert!(transcript.iter().all(|line| line.argv.iter().all(|arg| !arg.contains("quoted"))));
        let missing = world.container(&sandbox, "missing", vec!["/no/such/program".into()]);
        let _ = world.host.container_start(&sandbox.id, &missing).await.unwrap();
        let ended = world.until_exit(&sandbox.id, &missing.name).await;
        assert!(matches!(ended.state, ContainerState::Exited { code: 127, started: None, .. }), "{:?}", ended.state);
    });
}

/// A pod with an empty directory, and a container of an image that mounts it at `target`.
async fn with_volume(world: &World, brand: &str, target: &str) -> (SandboxSpec, ContainerSpec) {
    let _ = world.host.network_ensure(&world.network()).await.unwrap();
    let image = world.host.image_import(&linux_root(world.dir.path()), "lx-zone").await.unwrap();
    let mut sandbox = SandboxSpec { brand: Brand::new(brand).unwrap(), ..world.sandbox() };
    let volume = VolumeName::new("scratch").unwrap();
    sandbox.volumes.insert(volume.clone(), VolumeSpec::EmptyDir { memory: false, size_limit_bytes: None });
    let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
    let mut spec = world.container(&sandbox, "app", vec!["/bin/sleep".into(), "1000".into()]);
    spec.image = ContainerImage::Image { id: image.id };
    let mount = |target: &str| MountSpec {
        volume: volume.clone(),
        target: target.into(),
        sub_path: String::new(),
        read_only: false,
        recursive_read_only: None,
        propagation: None,
    };
    spec.mounts = vec![mount("/with blanks in it"), mount(target)];
    (sandbox, spec)
}

/// What is mounted in a container's root, as the zone has it.
fn mounts(world: &World, sandbox: &SandboxSpec) -> String {
    let script = "while read -r line; do case $line in *' /.reddwarf/roots/00/'*) echo \"$line\";; esac; done < /proc/self/mounts";
    world.lab.run("zlogin", &[sandbox.id.as_str(), script]).unwrap().out
}

/// Whoever started a container may be killed: its program goes at once, its mounts with the container, not with the zone.
#[test]
fn what_a_killed_starter_leaves_mounted_goes_with_the_container() {
    played(|world| async move {
        for brand in ["sparse", "lx"] {
            let (sandbox, spec) = with_volume(&world, brand, "/data").await;
            let _ = world.host.container_start(&sandbox.id, &spec).await.unwrap();
            assert!(mounts(&world, &sandbox).contains("/data "), "{brand}");
            let script = "read p q < /.reddwarf/rw/out/app.0.started; kill -KILL $q";
            let killed = world.lab.run("zlogin", &[sandbox.id.as_str(), script]).unwrap();
            assert_eq!(killed.code, 0, "{killed:?}");
            let ended = world.until_exit(&sandbox.id, &spec.name).await;
            assert!(matches!(ended.state, ContainerState::Exited { code: 137, .. }), "{:?}", ended.state);
            assert_ne!(mounts(&world, &sandbox), "", "{brand}");
            // Nor does its program go on, beside the next attempt's.
            let lives = "read p q < /.reddwarf/rw/out/app.0.started; kill -0 $p 2>/dev/null";
            let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while world.lab.run("zlogin", &[sandbox.id.as_str(), lives]).unwrap().code == 0 {
                assert!(std::time::Instant::now() < until, "{brand}: the program outlives its container");
            }
            let _ = world.host.container_remove(&sandbox.id, &spec.name, 0).await.unwrap();
            assert_eq!(mounts(&world, &sandbox), "", "{brand}");
            let _ = world.host.container_start(&sandbox.id, &spec).await.unwrap();
            let _ = world.host.sandbox_stop(&sandbox.id).await.unwrap();
            let _ = world.host.container_remove(&sandbox.id, &spec.name, 0).await.unwrap();
            let _ = world.host.sandbox_destroy(&sandbox.id).await.unwrap();
        }
    });
}

/// A start that fails half-way leaves nothing mounted.
#[test]
fn a_start_that_fails_takes_its_mounts_back() {
    played(|world| async move {
        for brand in ["sparse", "lx"] {
            let (sandbox, spec) = with_volume(&world, brand, "/etc/alpine-release/no").await;
            let error = world.host.container_start(&sandbox.id, &spec).await.unwrap_err();
            assert!(error.to_string().contains("mount at /etc/alpine-release/no"), "{error}");
            assert_eq!(mounts(&world, &sandbox), "", "{brand}");
            let _ = world.host.sandbox_stop(&sandbox.id).await.unwrap();
            let _ = world.host.sandbox_destroy(&sandbox.id).await.unwrap();
        }
    });
}
