//! Zones of Linux programs: installed from an image of the store, cloned, and nothing of their variables in any argument.

use crate::support::{World, linux_root, played};
use reddwarf_host::spec::{
    ContainerImage, ContainerSpec, EnvVar, FileContent, MountSpec, SandboxSpec, Sensitive, Signal, UserSpec, VolumeSpec,
};
use reddwarf_host::{
    Brand, ContainerState, Exec, ExecRequest, HostErrorKind, ImageId, ImageStore, Network, Sandboxes, VolumeName,
};
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;

async fn sandbox(world: &World) -> SandboxSpec {
    let _ = world.host.network_ensure(&world.network()).await.unwrap();
    SandboxSpec { brand: Brand::new("lx").unwrap(), ..world.sandbox() }
}

#[test]
fn an_lx_zone_is_cloned_from_its_image_and_its_programs_get_what_they_are_to() {
    played(|world| async move {
        let sandbox = sandbox(&world).await;
        let id = &sandbox.id;
        let missing = world.host.sandbox_ensure(&sandbox).await.unwrap_err();
        assert!(missing.kind == HostErrorKind::NotFound && missing.to_string().contains("lx-zone"), "{missing}");
        let image = world.host.image_import(&linux_root(world.dir.path()), "lx-zone").await.unwrap();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();

        // The template is installed from the image's snapshot, and the pod's zone is a clone of the template's files.
        let state = world.lab.state().unwrap();
        let hex = image.id.as_str().trim_start_matches("sha256:");
        let template = format!("{}-golden-lx-{}", world.options.instance, &hex[..12]);
        assert!(state.zones.contains_key(&template), "{:?}", state.zones.keys());
        let installed = world.lab.transcript().unwrap().into_iter().find(|l| l.argv.contains(&"install".to_owned()));
        let source = format!("{}/images/{hex}@golden", world.options.dataset);
        assert_eq!(installed.unwrap().argv, ["-z", &template, "install", "-s", &source]);
        let origin = &state.datasets[&format!("{}/zones/{id}", world.options.dataset)].origin;
        assert!(origin.starts_with(&format!("{}/zones/{template}@", world.options.dataset)), "{origin}");

        // In the zone's own root and in an image's.
        let secret = "it's \"secret\"; $(id)\n-n \\ *";
        let images = [ContainerImage::Brand, ContainerImage::Image { id: image.id.clone() }];
        for (name, image) in ["own", "other"].into_iter().zip(images) {
            let mut spec = world.container(&sandbox, name, vec!["/bin/sh".into()]);
            spec.argv.extend(["-c".to_owned(), "echo \"$V|$(id -u)|$1\"; exec sleep 1000".to_owned()]);
            spec.argv.extend(["sh".to_owned(), "word of secret".to_owned()]);
            spec.env = vec![EnvVar { name: "V".into(), value: Sensitive::new(secret.into()) }];
            spec.image = image;
            let _ = world.host.container_start(id, &spec).await.unwrap();
            let said = || {
                let log = std::fs::read_to_string(&spec.log.path).unwrap_or_default();
                log.lines().map(|l| l.splitn(4, ' ').nth(3).unwrap().to_owned()).collect::<Vec<_>>().join("\n")
            };
            let wanted = format!("{secret}|0|word of secret");
            for _ in 0..500 {
                if said() == wanted {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            assert_eq!(said(), wanted);
            let argv = ["/bin/sh", "-c", "echo \"$V\"; exit 7"].map(str::to_owned).to_vec();
            let request = ExecRequest { argv, stdin: false, tty: false, contained: false };
            let mut session = world.host.exec(id, &spec.name, request).await.unwrap();
            let mut out = String::new();
            session.stdout.read_to_string(&mut out).await.unwrap();
            assert_eq!((out, session.exit.await.unwrap().code), (format!("{secret}\n"), 7));
            let _ = world.host.container_signal(id, &spec.name, 0, reddwarf_host::spec::Signal::Sigkill).await.unwrap();
            let ended = world.until_exit(id, &spec.name).await;
            assert!(matches!(ended.state, ContainerState::Exited { code: 137, .. }), "{:?}", ended.state);
            let _ = world.host.container_remove(id, &spec.name, 0).await.unwrap();
        }
        for line in world.lab.transcript().unwrap() {
            assert!(!line.argv.iter().any(|arg| arg.contains("secret")), "{line:?}");
        }
        // Files with variables are root's alone, and gone with what was started from them.
        let starts = world.options.run_dir.join("sandboxes").join(id.as_str());
        let left = walk(&starts).into_iter().filter(|p| p.extension().is_some_and(|e| e == "sh")).collect::<Vec<_>>();
        assert_eq!(left, Vec::<PathBuf>::new());
        let _ = world.host.sandbox_stop(id).await.unwrap();
        let _ = world.host.sandbox_destroy(id).await.unwrap();
    });
}

fn volume(name: &str) -> VolumeName {
    VolumeName::new(name).unwrap()
}

/// A pod with an empty directory, the image of its zone, and a container of the zone's own root to look from.
async fn with_scratch(world: &World) -> (SandboxSpec, ImageId, ContainerSpec) {
    let image = world.host.image_import(&linux_root(world.dir.path()), "lx-zone").await.unwrap();
    let mut sandbox = sandbox(world).await;
    for (name, memory) in [("scratch", false), ("memory", true)] {
        let _ = sandbox.volumes.insert(volume(name), VolumeSpec::EmptyDir { memory, size_limit_bytes: None });
    }
    let one = FileContent { bytes: Sensitive::new(b"one".to_vec()), mode: 0o644, owner: None };
    let files = VolumeSpec::Files { files: [("a".to_owned(), one)].into(), secret: false };
    let _ = sandbox.volumes.insert(volume("files"), files);
    let path = world.dir.path().join("shared");
    std::fs::create_dir(&path).unwrap();
    let _ = sandbox.volumes.insert(volume("data"), VolumeSpec::Persistent { path });
    let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
    let looker = world.container(&sandbox, "looker", vec!["/bin/sleep".into(), "1000".into()]);
    let _ = world.host.container_start(&sandbox.id, &looker).await.unwrap();
    (sandbox, image.id, looker)
}

fn mount(target: &str) -> MountSpec {
    MountSpec {
        volume: volume("scratch"),
        target: target.into(),
        sub_path: String::new(),
        read_only: false,
        recursive_read_only: None,
        propagation: None,
    }
}

/// What a shell prints in a container.
async fn says(world: &World, sandbox: &SandboxSpec, container: &ContainerSpec, script: &str) -> String {
    let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let request = ExecRequest { argv, stdin: false, tty: false, contained: false };
    let mut session = world.host.exec(&sandbox.id, &container.name, request).await.unwrap();
    let mut out = String::new();
    session.stdout.read_to_string(&mut out).await.unwrap();
    out.trim_end().to_owned()
}

#[test]
fn a_program_of_an_image_has_its_mounts_or_does_not_run_and_they_go_with_it() {
    played(|world| async move {
        let (sandbox, image, looker) = with_scratch(&world).await;
        let mounts = "grep -c /roots/00/ /proc/self/mounts";
        let mut spec = world.container(&sandbox, "app", vec!["/bin/sleep".into(), "1000".into()]);
        spec.image = ContainerImage::Image { id: image };
        // A link of the image's, as Debian's /var/run.
        spec.mounts = vec![mount("/data"), mount("/lib-run/place")];
        let _ = world.host.container_start(&sandbox.id, &spec).await.unwrap();
        let script =
            "echo x > /dev/null && [ -r /proc/self/status ] && echo shared > /data/note && cat /inside/place/note";
        assert_eq!(says(&world, &sandbox, &spec, script).await, "shared");
        assert_eq!(says(&world, &sandbox, &looker, "ls -d /inside 2>/dev/null; echo; ").await, "");
        assert_ne!(says(&world, &sandbox, &looker, mounts).await, "0");
        let _ = world.host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigkill).await.unwrap();
        let _ = world.until_exit(&sandbox.id, &spec.name).await;
        assert_eq!(says(&world, &sandbox, &looker, mounts).await, "0");
        let _ = world.host.container_remove(&sandbox.id, &spec.name, 0).await.unwrap();

        spec.mounts = vec![mount("/data"), mount("/etc/alpine-release/no")];
        let error = world.host.container_start(&sandbox.id, &spec).await.unwrap_err();
        assert!(error.to_string().contains("mount at /etc/alpine-release/no"), "{error}");
        assert_eq!(says(&world, &sandbox, &looker, mounts).await, "0");
        assert!(!world.observe(&sandbox.id).await.unwrap().containers.contains_key(&spec.name));
    });
}

#[test]
fn what_is_read_only_can_be_written_by_nobody_and_what_a_zone_cannot_do_is_refused() {
    played(|world| async move {
        let (sandbox, image, looker) = with_scratch(&world).await;
        let mut spec = world.container(&sandbox, "app", vec!["/bin/sleep".into(), "1000".into()]);
        spec.image = ContainerImage::Image { id: image };
        let read_only = |name: &str, sub_path: &str| MountSpec {
            volume: volume(name),
            sub_path: sub_path.into(),
            read_only: true,
            ..mount(&format!("/{name}{sub_path}"))
        };
        let all = [("scratch", ""), ("scratch", "part"), ("data", ""), ("files", "")];
        spec.mounts = all.iter().map(|(name, part)| read_only(name, part)).chain([mount("/writable")]).collect();
        let _ = world.host.container_start(&sandbox.id, &spec).await.unwrap();
        for (name, part) in all {
            let script = format!("touch /{name}{part}/x 2>/dev/null && echo written || echo refused");
            assert_eq!(says(&world, &sandbox, &spec, &script).await, "refused", "{name}{part}");
        }
        let script = "echo x > /writable/x && cat /scratch/x /files/a";
        assert_eq!(says(&world, &sandbox, &spec, script).await, "x\none");
        let mut spec = world.container(&sandbox, "second", looker.argv.clone());
        spec.mounts = vec![read_only("memory", "")];
        let error = world.host.container_start(&sandbox.id, &spec).await.unwrap_err();
        assert!(error.kind == HostErrorKind::InvalidSpec && error.to_string().contains("read-only"), "{error}");
        // Groups that the zone's chroot can't give.
        spec.mounts.clear();
        spec.user = UserSpec::Ids { uid: 0, gid: 0, groups: vec![2000] };
        let error = world.host.container_start(&sandbox.id, &spec).await.unwrap_err();
        assert!(error.kind == HostErrorKind::InvalidSpec && error.to_string().contains("--groups"), "{error}");
    });
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
