//! Images: imported by processes of their own, run as containers.

use crate::support::{World, as_root};
use reddwarf_host::spec::{ContainerImage, ContainerSpec, SandboxSpec};
use reddwarf_host::{
    BuildContent, BuildFile, Change, ContainerState, HostErrorKind, ImageBuild, ImageConfig, ImageStore, Sandboxes,
};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A root file system directory with a static busybox as its only program.
pub(crate) fn root_file_system(world: &World) -> PathBuf {
    let root = world.dir.path().join("rootfs");
    if root.join("bin/sh").exists() {
        return root;
    }
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
    std::fs::copy("/etc/hostname", root.join("etc/from-image")).unwrap();
    std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    root
}

pub(crate) async fn pod(world: &World, script: &str) -> (SandboxSpec, ContainerSpec) {
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

/// A container's changes as an image: what was made, changed and removed, and nothing of the host's mounts.
#[test]
fn a_container_of_what_another_left_sees_what_it_did() {
    as_root(what_another_left);
}

#[test]
fn the_same_with_roots_that_are_clones() {
    as_root(|world| async move {
        if let Some(world) = world.on_clones().await {
            what_another_left(world).await;
        }
    });
}

async fn what_another_left(world: World) {
    {
        let root = root_file_system(&world);
        for path in ["old/gone", "old/kept", "tree/a", "tree/b", "swap/x", "mode"] {
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            std::fs::copy("/etc/hostname", root.join(path)).unwrap();
        }
        let script = "set -e; b=/bin/busybox; echo new > /new; $b rm /old/gone; $b rm -r /tree; $b mkdir /tree; echo c > /tree/c; \
                      $b rm -r /swap; echo file > /swap; $b chown 12:34 /mode; $b chmod 4711 /mode; $b ln /new /hard; \
                      $b ln -s /nowhere /soft; $b mkfifo /pipe; $b mkdir -m 700 /private";
        let (sandbox, container) = pod(&world, script).await;
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let observed = world.until_exit(&sandbox.id, &container.name).await;
        assert!(
            matches!(observed.state, ContainerState::Exited { code: 0, .. }),
            "{observed:?} {:?}",
            world.log(&container)
        );
        let content = BuildContent::Container { sandbox: sandbox.id.clone(), name: container.name.clone(), attempt: 0 };
        let config = ImageConfig { env: vec!["A=b".into()], ..ImageConfig::default() };
        let build = ImageBuild { content, config: config.clone(), name: "box:2".into() };
        let made = world.host.image_build(&build).await.unwrap();
        assert_eq!((made.config.clone(), made.names.clone()), (config, vec!["box:2".to_owned()]));
        assert_eq!(world.host.image_build(&build).await.unwrap().id, made.id, "the same again is the same image");

        let layers = world.options.state_dir.join("images/layers");
        assert_eq!(std::fs::read_dir(&layers).unwrap().count(), 2, "the layer below is shared");
        let own = std::fs::read_dir(&layers).unwrap().flatten().find(|l| l.path().join("new").exists()).unwrap().path();
        for mounted in ["proc", "sys", "dev", "etc/hosts", "etc/resolv.conf", "etc/hostname"] {
            assert!(!own.join(mounted).exists(), "{mounted} is the host's");
        }

        let look = "b=/bin/busybox; $b ls / | $b tr '\\n' ' '; $b ls /old /tree | $b tr '\\n' ' '; $b cat /new /swap /tree/c | $b tr '\\n' ' '; \
                    $b stat -c '%a %u %g' /mode /private | $b tr '\\n' ' '; $b stat -c %h /hard; $b readlink /soft; echo $A";
        let mut next = world.shell(&sandbox, "app", look);
        next.attempt = 1;
        next.image = ContainerImage::Image { id: made.id.clone() };
        let _ = world.host.container_start(&sandbox.id, &next).await.unwrap();
        world.until_exit(&sandbox.id, &next.name).await;
        let log = world.log(&next).join("\n");
        let seen = "bin dev etc hard mode new old pipe private proc soft swap sys tmp tree /old: kept  /tree: c new file c 4711 12 34 700 0 0 2";
        assert!(log.contains(seen) && log.contains("/nowhere"), "{log}");
        world.destroy(&sandbox).await;
    }
}

#[test]
fn files_lie_over_an_image_with_their_owner_and_what_is_there_keeps_its_own() {
    as_root(|world| async move {
        let base = world.host.image_import(&root_file_system(&world), "box:1").await.unwrap();
        let site = world.dir.path().join("site");
        std::fs::create_dir_all(site.join("sub")).unwrap();
        std::fs::copy("/etc/hostname", site.join("sub/page")).unwrap();
        std::fs::set_permissions(site.join("sub/page"), std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("page", site.join("sub/link")).unwrap();
        std::fs::set_permissions(&site, std::fs::Permissions::from_mode(0o700)).unwrap();
        let script = world.dir.path().join("script");
        let program = world.dir.path().join("program");
        std::fs::copy("/bin/busybox", &program).unwrap();
        std::fs::hard_link(&program, world.dir.path().join("its-other-name")).unwrap();
        std::os::unix::fs::symlink(&program, &script).unwrap();
        let file = |source: &std::path::Path, target: &str, owner| BuildFile {
            source: source.to_owned(),
            target: target.into(),
            owner,
        };
        let files = vec![
            file(&site, "/tmp", (0, 0)),
            file(&site, "/srv/www", (33, 34)),
            file(&script, "/usr/bin/", (0, 0)),
            file(&script, "/run-me", (5, 6)),
        ];
        let content = BuildContent::Files { base: Some(base.id), files };
        let build = ImageBuild { content, config: ImageConfig::default(), name: "box:files".into() };
        let made = world.host.image_build(&build).await.unwrap();
        let look = "b=/bin/busybox; $b stat -c '%a %u %g %n' /tmp /srv /srv/www /srv/www/sub /srv/www/sub/page /usr/bin/script /run-me; \
                    $b readlink /srv/www/sub/link; $b ls /tmp";
        let mut sandbox = world.sandbox();
        sandbox.brand = reddwarf_host::Brand::new("oci").unwrap();
        let mut container = world.shell(&sandbox, "app", look);
        container.image = ContainerImage::Image { id: made.id };
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        world.until_exit(&sandbox.id, &container.name).await;
        let lines: Vec<_> =
            world.log(&container).iter().map(|l| l.trim_start_matches("stdout F ").to_owned()).collect();
        assert_eq!(
            lines,
            [
                "1777 0 0 /tmp",
                "755 0 0 /srv",
                "755 0 0 /srv/www",
                "755 33 34 /srv/www/sub",
                "640 33 34 /srv/www/sub/page",
                "755 0 0 /usr/bin/script",
                "755 5 6 /run-me",
                "page",
                "sub",
            ]
        );
        world.destroy(&sandbox).await;
        let hostile = ImageBuild {
            content: BuildContent::Files { base: None, files: vec![file(&site, "/a/../../b", (0, 0))] },
            ..build
        };
        assert_eq!(world.host.image_build(&hostile).await.unwrap_err().kind, HostErrorKind::InvalidSpec);
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
