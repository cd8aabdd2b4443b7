//! Roots that are clones of images on a storage engine: one dataset an image, one clone a container, nothing left.

use crate::common::patience;
use crate::images::{pod, root_file_system};
use crate::support::{World, as_root, clones_on};
use reddwarf_host::spec::{ContainerImage, ContainerSpec, SandboxSpec};
use reddwarf_host::{Area, ContainerState, DatasetSpec, HostErrorKind, ImageStore, Sandboxes, Usage};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

fn on_clones<F: Future<Output = ()>>(test: impl FnOnce(World) -> F + Send + 'static) {
    as_root(|world| async move {
        if let Some(world) = world.on_clones().await {
            test(world).await;
        }
    });
}

/// The container's next instance.
fn next(container: &ContainerSpec, script: &str) -> ContainerSpec {
    let argv = vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
    ContainerSpec { attempt: container.attempt + 1, argv, ..container.clone() }
}

async fn log_of(world: &World, sandbox: &SandboxSpec, container: &ContainerSpec) -> String {
    let _ = world.host.container_start(&sandbox.id, container).await.unwrap();
    let observed = world.until_exit(&sandbox.id, &container.name).await;
    let log = world.log(container).join("\n");
    assert!(matches!(observed.state, ContainerState::Exited { code: 0, .. }), "{observed:?} {log}");
    log
}

#[test]
fn every_container_has_a_clone_of_its_own_that_goes_with_it() {
    on_clones(|world| async move {
        let root = root_file_system(&world);
        std::fs::write(root.join("etc/big"), vec![7; 20 << 20]).unwrap();
        let hello = "b=/bin/busybox; echo mine > /etc/from-image; $b grep ' / / ' /proc/self/mountinfo || $b grep ' / rw' /proc/self/mountinfo";
        let (sandbox, container) = pod(&world, hello).await;
        assert_eq!(world.datasets(Area::Images).await.len(), 1, "imported once, with the image");
        let log = log_of(&world, &sandbox, &container).await;
        assert!(log.contains(clones_on()) && !log.contains("overlay"), "{log}");
        assert_eq!(world.datasets(Area::Pods).await.len(), 1);
        // The next one starts from the image again, with what its owner may do there.
        let script = "b=/bin/busybox; $b cat /etc/from-image; $b ls /etc/big; $b stat -c '%a %u' /tmp /bin/busybox / | $b tr '\\n' ' '; \
                      $b dd if=/dev/urandom of=/own bs=1M count=4 2>/dev/null; $b sync";
        let second = next(&container, script);
        let log = log_of(&world, &sandbox, &second).await;
        assert!(!log.contains("mine") && log.contains("/etc/big"), "{log}");
        assert!(log.contains("1777 0 755 0 755 0"), "{log}");
        // What is counted as the pod's is not what it shares with its image.
        let used = world.host.disk_usage(std::slice::from_ref(&sandbox.id), Duration::from_secs(10)).await.unwrap();
        let bytes = used[&sandbox.id].containers[&container.name].writable.bytes;
        assert!((4 << 20..16 << 20).contains(&bytes), "{bytes}");
        // In use: the image stays. Removed: its clone goes; the last user gone, the image's dataset goes with it.
        assert_eq!(world.host.image_remove("box:1").await.unwrap_err().kind, HostErrorKind::Busy);
        let _ = world.host.container_remove(&sandbox.id, &container.name, 0).await.unwrap();
        assert_eq!(world.datasets(Area::Pods).await.len(), 1);
        world.destroy(&sandbox).await;
        assert_eq!(world.datasets(Area::Pods).await, []);
        let _ = world.host.image_remove("box:1").await.unwrap();
        world.until_datasets(Area::Images, 0).await;
    });
}

/// Whoever is asked to switch: what runs on an overlay goes on, what starts afterwards is a clone, and back.
#[test]
fn containers_keep_the_root_they_have_over_an_upgrade() {
    as_root(|world| async move {
        let stay = "echo before > /etc/from-image; exec /bin/busybox sleep 1000";
        let (sandbox, container) = pod(&world, stay).await;
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let Some(mut world) = world.on_clones().await else { return };
        let look = "/bin/busybox cat /etc/from-image; /bin/busybox grep -c overlay /proc/self/mountinfo";
        world.until(&sandbox.id, &container.name, |s| matches!(s, ContainerState::Running { .. })).await;
        let seen = world.exec(&sandbox.id, &container.name, look).await.1;
        assert!(seen.starts_with("before\n1\n"), "{seen}");
        // An image that was imported before clones were: its dataset is made when it is first wanted.
        let (other, on_clone) = pod(&world, stay).await;
        let _ = world.host.container_start(&other.id, &on_clone).await.unwrap();
        assert_eq!((world.datasets(Area::Images).await.len(), world.datasets(Area::Pods).await.len()), (1, 1));
        let _ = world.host.sandbox_stop(&sandbox.id).await.unwrap();
        let _ = world.host.sandbox_destroy(&sandbox.id).await.unwrap();
        // Back to overlays: the clone's container is found, and goes on.
        let engine = world.roots.take();
        world.host = world.second_daemon();
        assert_eq!(world.exec(&other.id, &on_clone.name, look).await.1, "before\n0\n");
        world.roots = engine;
        world.host = world.second_daemon();
        world.destroy(&other).await;
        assert_eq!(world.datasets(Area::Pods).await, []);
    });
}

/// What a crash leaves: an import without its end, clones of a boot that is over. What bears other marks stays.
#[test]
fn what_nobody_has_any_more_is_collected_and_half_an_import_begun_anew() {
    on_clones(|world| async move {
        let engine = world.roots.clone().unwrap();
        let (sandbox, container) = pod(&world, "/bin/busybox cat /etc/from-image").await;
        let id = world.datasets(Area::Images).await.remove(0);
        // As if the daemon had been killed in the middle of the copy.
        let found = engine.list().await.unwrap().remove(&id).unwrap();
        drop(engine.destroy(&id).await.unwrap());
        drop(engine.create(&id, &DatasetSpec { marks: found.marks, ..DatasetSpec::default() }).await.unwrap());
        std::fs::write(engine.data(&id).join("half"), "").unwrap();
        let spec = |marks: &[(&str, &str)]| DatasetSpec {
            marks: marks.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
            ..DatasetSpec::default()
        };
        let others = reddwarf_host::DatasetId::root("others".to_owned().try_into().unwrap());
        drop(engine.create(&others, &spec(&[("owner", "somebody")])).await.unwrap());
        let mut world = world;
        world.host = world.second_daemon();
        log_of(&world, &sandbox, &container).await;
        assert!(!engine.data(&id).join("half").exists(), "imported anew");
        assert_eq!(world.datasets(Area::Pods).await.len(), 2);
        // The machine was switched off: nothing of /run is left, clones are.
        std::fs::remove_dir_all(world.options.run_dir.join("sandboxes").join(sandbox.id.as_str())).unwrap();
        world.host = world.second_daemon();
        world.until_datasets(Area::Pods, 1).await;
        assert_eq!(world.datasets(Area::Pods).await, [others]);
        // The same pod again starts from the image, whatever was left.
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        log_of(&world, &sandbox, &container).await;
        world.destroy(&sandbox).await;
    });
}

/// A pool that can't be used: the start says so, nothing is left, and it works once the pool is there again.
#[test]
fn storage_that_is_away_is_named_and_waited_for() {
    on_clones(|world| async move {
        if clones_on() == "zfs" {
            eprintln!("SKIPPED: the storage engine's own test exports a pool");
            return;
        }
        let (sandbox, container) = pod(&world, "true").await;
        let place = world.dir.path().join("btrfs/place");
        let away = world.dir.path().join("btrfs/away");
        std::fs::rename(&place, &away).unwrap();
        let refused = world.host.container_start(&sandbox.id, &container).await.unwrap_err();
        assert_eq!(refused.kind, HostErrorKind::NotFound, "{refused}");
        assert!(refused.to_string().contains("place"), "{refused}");
        assert!(world.observe(&sandbox.id).await.containers.is_empty());
        std::fs::rename(&away, &place).unwrap();
        log_of(&world, &sandbox, &container).await;
        world.destroy(&sandbox).await;
    });
}

#[test]
fn users_of_a_pods_own_own_their_clone() {
    on_clones(|world| async move {
        let image = world.host.image_import(&root_file_system(&world), "box:1").await.unwrap();
        let mut sandbox = world.sandbox();
        sandbox.brand = reddwarf_host::Brand::new("oci").unwrap();
        sandbox.own_users = true;
        let script = "/bin/busybox stat -c '%u %a' /bin/busybox; echo x > /new; /bin/busybox stat -c %u /new";
        let mut container = world.shell(&sandbox, "app", script);
        container.image = ContainerImage::Image { id: image.id };
        sandbox.network = world.pod_sandbox().network;
        let _ = reddwarf_host::Network::network_ensure(&world.host, &world.network()).await.unwrap();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let log = log_of(&world, &sandbox, &container).await;
        assert!(log.contains("0 755") && log.ends_with("F 0"), "{log}");
        world.destroy(&sandbox).await;
    });
}

/// The second start from one image takes no longer for a large one.
#[test]
fn a_clone_takes_no_time_for_a_large_image() {
    on_clones(|world| async move {
        let root = root_file_system(&world);
        for n in 0..64 {
            std::fs::write(root.join(format!("etc/part{n}")), vec![n; 4 << 20]).unwrap();
        }
        let (sandbox, container) = pod(&world, "true").await;
        log_of(&world, &sandbox, &container).await;
        let begun = Instant::now();
        let again = next(&container, "true");
        let _ = world.host.container_start(&sandbox.id, &again).await.unwrap();
        eprintln!("a start from a clone of 256 MiB: {:?}", begun.elapsed());
        assert!(begun.elapsed() < patience(Duration::from_secs(2)), "{:?}", begun.elapsed());
        world.until_exit(&sandbox.id, &again.name).await;
        world.destroy(&sandbox).await;
    });
}
