//! Images: imported by processes of their own, run as containers.

use crate::support::{World, as_root};
use reddwarf_host::spec::{ContainerImage, ContainerSpec, SandboxSpec};
use reddwarf_host::{Change, ContainerState, HostErrorKind, ImageStore, Sandboxes};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A root file system directory with a static busybox as its only program.
fn root_file_system(world: &World) -> PathBuf {
    let root = world.dir.path().join("rootfs");
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
    std::fs::copy("/etc/hostname", root.join("etc/from-image")).unwrap();
    std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    root
}

async fn pod(world: &World, script: &str) -> (SandboxSpec, ContainerSpec) {
    let image = world.host.image_import(&root_file_system(world), "box:1").await.unwrap();
    let mut sandbox = world.sandbox();
    sandbox.brand = reddwarf_host::Brand::new("oci").unwrap();
    let mut container = world.shell(&sandbox, "app", script);
    container.image = ContainerImage::Image { id: image.id };
    let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
    (sandbox, container)
}

#[test]
fn a_container_runs_from_an_imported_directory_and_writes_to_its_own_layer() {
    as_root(|world| async move {
        let script = "ls() { /bin/busybox ls \"$@\"; }; ls / | /bin/busybox tr '\\n' ' '; echo; echo changed > /etc/from-image; \
                      /bin/busybox cat /etc/from-image; /bin/busybox rm /bin/busybox; ls / 2>&1 | /bin/sh -c true; echo done";
        let (sandbox, container) = pod(&world, script).await;
        let begun = Instant::now();
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        eprintln!("oci container start: {:?}", begun.elapsed());
        let observed = world.until_exit(&sandbox.id, &container.name).await;
        assert!(matches!(observed.state, ContainerState::Exited { code: 0, .. }), "{observed:?}");
        let log = world.log(&container).join("\n");
        assert!(log.contains("bin dev etc proc sys tmp "), "{log}");
        assert!(log.contains("stdout F changed") && log.contains("stdout F done"), "{log}");
        // The next instance starts from the image again.
        let mut next = world.shell(&sandbox, "app", "/bin/busybox cat /etc/from-image");
        next.image = container.image.clone();
        next.attempt = 1;
        let _ = world.host.container_start(&sandbox.id, &next).await.unwrap();
        world.until_exit(&sandbox.id, &next.name).await;
        let hostname = std::fs::read_to_string("/etc/hostname").unwrap();
        assert!(world.log(&next).join("\n").contains(hostname.trim()), "{:?}", world.log(&next));
        world.destroy(&sandbox).await;
    });
}

#[test]
fn an_image_in_use_is_busy_until_its_container_is_gone() {
    as_root(|world| async move {
        let (sandbox, container) = pod(&world, "exec /bin/busybox sleep 1000").await;
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let error = world.host.image_remove("box:1").await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::Busy, "{error}");
        world.destroy(&sandbox).await;
        assert!(matches!(world.host.image_remove("box:1").await.unwrap(), Change::Changed(_)));
        assert!(world.host.image_list().await.unwrap().is_empty());
        let layers = std::fs::read_dir(world.options.state_dir.join("images/layers")).unwrap();
        assert_eq!(layers.count(), 0);
    });
}

#[test]
fn an_image_that_is_not_here_is_not_found() {
    as_root(|world| async move {
        let (sandbox, mut container) = pod(&world, "true").await;
        let id = reddwarf_host::ImageId::new(format!("sha256:{}", "0".repeat(64))).unwrap();
        container.image = ContainerImage::Image { id };
        let error = world.host.container_start(&sandbox.id, &container).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::NotFound, "{error}");
        world.destroy(&sandbox).await;
    });
}

/// F1: an import that is cut off at any moment (its process is killed, as the daemon's death does) leaves a store that
/// the next import finds usable.
#[test]
fn f1_an_import_may_be_killed_at_any_moment() {
    as_root(|world| async move {
        // On memory: every import waits for its disk, and this test has no time for that.
        std::fs::create_dir_all(&world.options.state_dir).unwrap();
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), &world.options.state_dir, Some("tmpfs"), flags, None::<&str>).unwrap();
        let root = root_file_system(&world);
        for i in 0..300 {
            std::fs::create_dir_all(root.join(format!("data/{i}"))).unwrap();
            std::fs::copy("/etc/services", root.join(format!("data/{i}/file"))).map(drop).unwrap();
        }
        for millis in [0, 10, 40, 120] {
            let cut_off = tokio::time::timeout(Duration::from_millis(millis), world.host.image_import(&root, "box:1"));
            // It may be done already: fine too.
            let _ = cut_off.await;
            let host = world.second_daemon();
            let image = host.image_import(&root, "box:1").await.unwrap();
            let listed = host.image_list().await.unwrap();
            assert_eq!(listed, [image]);
            let images = world.options.state_dir.join("images");
            assert_eq!(std::fs::read_dir(images.join("layers")).unwrap().count(), 1);
            assert_eq!(std::fs::read_dir(images.join("tmp")).unwrap().count(), 0);
            let _ = host.image_remove("box:1").await.unwrap();
        }
    });
}

#[test]
fn a_file_that_is_no_image_is_refused_by_the_unpacking_process() {
    as_root(|world| async move {
        let error = world.host.image_import(std::path::Path::new("/bin/busybox"), "x").await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::InvalidSpec, "{error}");
        let error = world.host.image_import(std::path::Path::new("/no/such/thing"), "x").await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::NotFound, "{error}");
        assert_eq!(error.to_string(), "import image x: open /no/such/thing: no such file or directory");
    });
}

/// A killed daemon leaves its unpacking process behind: it notices, and ends by itself.
#[test]
fn an_unpacking_process_ends_when_nobody_waits_for_it() {
    as_root(|world| async move {
        // A layer with one file of 8 GiB, sparse: nothing of it is on disk yet.
        let scratch = world.dir.path().join("scratch");
        std::fs::create_dir(&scratch).unwrap();
        let layer = scratch.join("layer.tar");
        let mut header = [0u8; 512];
        header[..3].copy_from_slice(b"big");
        header[100..107].copy_from_slice(b"0000644");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..136].copy_from_slice(b"77777777777\0");
        header[136..147].copy_from_slice(b"00000000000");
        header[148..156].copy_from_slice(b"        ");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        std::fs::write(&layer, header).unwrap();
        std::fs::OpenOptions::new().write(true).open(&layer).unwrap().set_len(9 << 30).unwrap();
        let job = serde_json::json!({ "layer": {
            "source": {
                "place": { "file": layer, "offset": 0, "length": 9u64 << 30 },
                "digest": null,
                "diffId": format!("sha256:{}", "0".repeat(64)),
            },
            "layersDir": scratch, "below": [], "scratch": scratch,
            "limits": { "bytes": 1u64 << 40, "entries": 10, "ratio": 1000, "ratioFreeBytes": 0 },
        }});
        let mut child = std::process::Command::new(&world.options.helpers)
            .arg("__unpack")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, job.to_string().as_bytes()).unwrap();
        drop(stdin);
        while !scratch.join("upper/big").exists() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it began");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let begun = Instant::now();
        drop(child.stdout.take());
        let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
        assert!(!status.success(), "it had nobody to answer to");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    });
}
