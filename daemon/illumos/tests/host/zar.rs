//! Golden images as `.zar` archives: of layers, and of a zone's own zfs streams.

use crate::common;
use crate::support::{World, played};
use reddwarf_host::spec::ContainerImage;
use reddwarf_host::{Change, ContainerState, HostErrorKind, ImageStore, Sandboxes};
use reddwarf_zar::{Manifest, PartKind, SigningKey, create};
use std::path::{Path, PathBuf};
use std::process::Command;

fn zfs(world: &World, args: &[&str]) {
    let said = world.lab.run("zfs", args).unwrap();
    assert_eq!(said.code, 0, "{args:?}: {said:?}");
}

/// What `zfs send` writes goes into a file.
fn send(world: &World, args: &[&str], file: &str) -> PathBuf {
    let path = world.dir.path().join(file);
    let mut send = Command::new(world.lab.tools().join("zfs"));
    let sent = send.arg("send").args(args).stdout(std::fs::File::create(&path).unwrap()).status().unwrap();
    assert!(sent.success());
    path
}

fn archive(world: &World, name: &str, parts: &[(PartKind, PathBuf)], key: Option<&SigningKey>) -> PathBuf {
    let manifest = Manifest {
        zar: 1,
        name: String::new(),
        os: "illumos".into(),
        architecture: match std::env::consts::ARCH {
            "aarch64" => "arm64".into(),
            _ => "amd64".into(),
        },
        config: serde_json::from_str(&format!("{{\"Cmd\": [\"{name}\"]}}")).unwrap(),
        parts: Vec::new(),
    };
    let target = world.dir.path().join(format!("{name}.zar"));
    let _ = create(manifest, parts, key, &target).unwrap();
    target
}

fn root_of(world: &World, id: &str) -> PathBuf {
    world.options.state_dir.join("pool/images").join(id.trim_start_matches("sha256:")).join("root")
}

fn tree(dir: &Path) -> PathBuf {
    std::fs::create_dir_all(dir.join("etc")).unwrap();
    std::fs::write(dir.join("etc/one"), "1").unwrap();
    dir.to_owned()
}

/// A zone's dataset with two snapshots as a full stream and an increment.
fn streams(world: &World, properties: &[&str]) -> Vec<(PartKind, PathBuf)> {
    let place = common::image_source(world.dir.path(), 7);
    let files = world.dir.path().join("files");
    std::fs::rename(&place, &files).unwrap();
    zfs(world, &["create", "-o", &format!("mountpoint={}", place.display()), "rpool/golden"]);
    for name in ["bin", "variant"] {
        std::fs::rename(files.join(name), place.join(name)).unwrap();
    }
    let _ = tree(&place);
    zfs(world, &["snapshot", "rpool/golden@a"]);
    std::fs::write(place.join("etc/two"), "2").unwrap();
    zfs(world, &["snapshot", "rpool/golden@golden"]);
    let full = send(world, &[properties, &["rpool/golden@a"]].concat(), "full");
    let more = send(world, &["-i", "a", "rpool/golden@golden"], "more");
    vec![(PartKind::Zfs, full), (PartKind::Zfs, more)]
}

#[test]
fn a_zones_streams_become_an_image_that_containers_are_cloned_from() {
    played(|world| async move {
        let parts = streams(&world, &[]);
        let file = archive(&world, "golden", &parts, None);
        let image = world.host.image_import(&file, "local/golden:1").await.unwrap();
        assert_eq!(image.config.cmd, ["golden"]);
        let root = root_of(&world, image.id.as_str());
        assert_eq!(std::fs::read_to_string(root.join("etc/one")).unwrap(), "1");
        assert_eq!(std::fs::read_to_string(root.join("etc/two")).unwrap(), "2", "the increment is in");
        // What runs is a clone of it.
        let sandbox = world.running().await;
        let mut spec = world.shell(&sandbox, "app", "cat /etc/one /etc/two /variant");
        spec.image = ContainerImage::Image { id: image.id.clone() };
        let _ = world.host.container_start(&sandbox.id, &spec).await.unwrap();
        let ended = world.until_exit(&sandbox.id, &spec.name).await;
        assert!(matches!(ended.state, ContainerState::Exited { code: 0, .. }), "{:?}", ended.state);
        let log = std::fs::read_to_string(&spec.log.path).unwrap();
        assert!(log.trim_end().ends_with(" 127"), "{log}");
        let origins: Vec<_> = world.lab.state().unwrap().datasets.values().map(|d| d.origin.clone()).collect();
        let golden = format!("/images/{}@golden", image.id.as_str().trim_start_matches("sha256:"));
        assert!(origins.iter().any(|origin| origin.ends_with(&golden)), "{origins:?}");
        let _ = world.host.sandbox_destroy(&sandbox.id).await.unwrap();
        // The same once more is the same image, and nothing is received again.
        world.lab.forget_transcript().unwrap();
        let again = world.host.image_import(&file, "local/golden:2").await.unwrap();
        assert_eq!(again.id, image.id);
        let calls = world.lab.transcript().unwrap();
        assert!(!calls.iter().any(|c| c.argv.iter().any(|a| a == "receive")), "{calls:?}");

        // Without an archive's own files, the image goes as every other.
        for name in ["local/golden:1", "local/golden:2"] {
            assert_ne!(world.host.image_remove(name).await.unwrap(), Change::Unchanged);
        }
        assert!(!root.exists());
        assert!(world.host.image_list().await.unwrap().is_empty());
    });
}

#[test]
fn layers_of_an_archive_and_plain_root_file_systems_are_images_too() {
    played(|world| async move {
        let from = tree(&world.dir.path().join("tree"));
        let tar = world.dir.path().join("root.tar");
        let mut packed = tar::Builder::new(std::fs::File::create(&tar).unwrap());
        packed.append_dir_all(".", &from).unwrap();
        packed.finish().unwrap();
        let file = archive(&world, "layers", &[(PartKind::Layer, tar.clone())], None);
        for (source, name) in [(&file, "local/layers:1"), (&tar, "local/tar:1")] {
            let image = world.host.image_import(source, name).await.unwrap();
            let one = root_of(&world, image.id.as_str()).join("etc/one");
            assert_eq!(std::fs::read_to_string(one).unwrap(), "1", "{name}");
        }
    });
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_of_it_stays() {
    played(|world| async move {
        let parts = streams(&world, &[]);
        let file = archive(&world, "whole", &parts, None);
        let refused = async |bytes: &[u8], what: &str| {
            let bad = world.dir.path().join("bad.zar");
            std::fs::write(&bad, bytes).unwrap();
            let error = world.host.image_import(&bad, "bad:1").await.unwrap_err();
            assert_eq!(error.kind, HostErrorKind::InvalidSpec, "{what}: {error}");
            error.message
        };
        let whole = std::fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        let at = flipped.len() - 2000;
        flipped[at] ^= 1;
        assert!(refused(&flipped, "a bit").await.contains("damaged"));
        let _ = refused(&whole[..whole.len() / 2], "cut off").await;
        // An increment alone, and one to something else.
        let alone = archive(&world, "alone", &parts[1..], None);
        let told = refused(&std::fs::read(alone).unwrap(), "an increment").await;
        assert!(told.contains("zfs stream can't be received"), "{told}");
        // Data is no root file system.
        zfs(&world, &["create", "-o", &format!("mountpoint={}/records", world.dir.path().display()), "rpool/records"]);
        zfs(&world, &["snapshot", "rpool/records@a"]);
        let data = send(&world, &["rpool/records@a"], "data");
        let data = archive(&world, "data", &[(PartKind::Zfs, data)], None);
        assert!(refused(&std::fs::read(data).unwrap(), "data").await.contains("no root file system"));

        assert!(world.host.image_list().await.unwrap().is_empty());
        let left: Vec<_> = world.lab.state().unwrap().datasets.into_keys().filter(|d| d.contains("/images/")).collect();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn only_archives_of_trusted_keys_are_taken() {
    played(|world| async move {
        let key = || SigningKey::parse(&SigningKey::generate().unwrap()).unwrap();
        let (ours, others) = (key(), key());
        let mut options = world.options.clone();
        options.zar_keys = vec![ours.public().text()];
        let host =
            reddwarf_illumos::IllumosHost::new(options, std::sync::Arc::new(reddwarf_host::SystemClock)).unwrap();
        let parts = streams(&world, &[]);
        for (name, key, fine) in [("none", None, false), ("others", Some(&others), false), ("ours", Some(&ours), true)]
        {
            let file = archive(&world, name, &parts, key);
            let result = host.image_import(&file, "local/golden:1").await;
            assert_eq!(result.is_ok(), fine, "{name}: {result:?}");
        }
    });
}
