//! Layers are anybody's: a child without rights unpacks them, below the place where they belong.

use crate::support::{World, played};
use reddwarf_host::{HostErrorKind, ImageStore};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// An OCI layout of one layer with a file of this path and owner.
fn layout(world: &World, name: &str, path: &str) -> PathBuf {
    let dir = world.dir.path().join(name);
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        std::fs::write(blobs.join(&hex), bytes).unwrap();
        format!("{{\"digest\":\"sha256:{hex}\",\"size\":{}}}", bytes.len())
    };
    let mut header = tar::Header::new_gnu();
    let field = &mut header.as_old_mut().name;
    field[..path.len()].copy_from_slice(path.as_bytes());
    header.set_size(5);
    header.set_mode(0o640);
    header.set_uid(12);
    header.set_gid(34);
    header.set_cksum();
    let mut layer = tar::Builder::new(Vec::new());
    layer.append(&header, &b"hello"[..]).unwrap();
    let layer = put(&layer.into_inner().unwrap());
    // An image is known by its config.
    let config = put(format!("{{\"config\":{{\"Cmd\":[\"{name}\"]}}}}").as_bytes());
    let manifest = put(format!("{{\"config\":{config},\"layers\":[{layer}]}}").as_bytes());
    std::fs::write(dir.join("index.json"), format!("{{\"manifests\":[{manifest}]}}")).unwrap();
    std::fs::write(dir.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
    dir
}

/// An archive of a layout whose file at `at` is what `add` puts there.
fn archive(world: &World, name: &str, at: &str, add: impl FnOnce(&mut tar::Builder<std::fs::File>, &str)) -> PathBuf {
    let dir = layout(world, &format!("{name}-layout"), "srv/page");
    let path = world.dir.path().join(format!("{name}.tar"));
    let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
    tar.follow_symlinks(false);
    let at = match at {
        "blob" => {
            let mut blobs: Vec<_> =
                std::fs::read_dir(dir.join("blobs/sha256")).unwrap().map(|b| b.unwrap().path()).collect();
            // Its layer is the largest.
            blobs.sort_by_key(|b| b.metadata().unwrap().len());
            blobs.pop().unwrap().strip_prefix(&dir).unwrap().to_str().unwrap().to_owned()
        }
        at => at.to_owned(),
    };
    std::fs::remove_file(dir.join(&at)).unwrap();
    tar.append_dir_all(".", &dir).unwrap();
    add(&mut tar, &at);
    tar.finish().unwrap();
    path
}

#[test]
fn an_archive_leads_nowhere_and_to_nothing_without_an_end() {
    played(|world| async move {
        let link = |to: &'static str| {
            move |tar: &mut tar::Builder<std::fs::File>, at: &str| {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, at, to).unwrap();
            }
        };
        let pipe = |tar: &mut tar::Builder<std::fs::File>, at: &str| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Fifo);
            header.set_size(0);
            header.set_mode(0o644);
            tar.append_data(&mut header, at, std::io::empty()).unwrap();
        };
        let archives = [
            (archive(&world, "zeros", "blob", link("/dev/zero")), "leads outside"),
            (archive(&world, "index", "index.json", link("/etc/passwd")), "leads outside"),
            // It is unpacked as a file without content.
            (archive(&world, "pipe", "blob", pipe), "has the digest"),
            (archive(&world, "directory", "blob", link("..")), "is no regular file"),
        ];
        for (archive, why) in archives {
            let import = world.host.image_import(&archive, "bad:1");
            let ended = tokio::time::timeout(std::time::Duration::from_secs(30), import).await;
            let refused = ended.unwrap_or_else(|_| panic!("{} is read for ever", archive.display())).unwrap_err();
            assert_eq!(refused.kind, HostErrorKind::InvalidSpec, "{refused}");
            assert!(refused.message.contains(why), "{}: {refused}", archive.display());
        }
        assert!(world.host.image_list().await.unwrap().is_empty());
    });
}

#[test]
fn layers_are_unpacked_by_a_child_that_may_touch_files_and_nothing_else() {
    played(|world| async move {
        use std::os::unix::fs::MetadataExt;
        let image = world.host.image_import(&layout(&world, "good", "srv/page"), "good:1").await.unwrap();
        let root = world.options.state_dir.join("pool/images").join(image.id.as_str().trim_start_matches("sha256:"));
        let page = root.join("root/srv/page");
        let found = page.metadata().unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (12, 34, 0o640));
        assert_eq!(std::fs::read_to_string(page).unwrap(), "hello");
        assert!(reddwarf_command::counts().contains_key("ppriv"), "by the runner of commands");
        let calls = world.lab.transcript().unwrap();
        let call = calls.iter().find(|l| l.tool == "ppriv").unwrap();
        let allowed = call.argv[2].strip_prefix("LI=").unwrap();
        for right in ["proc_exec", "proc_fork", "net_access", "proc_info", "sys_", "basic", "all"] {
            assert!(!allowed.split(',').any(|p| p.starts_with(right)), "{allowed}");
        }
        assert!(call.argv.contains(&"__zone-unpack".to_owned()), "{call:?}");

        // Ways out, and what is no archive: the image is at fault, and nothing of it stays.
        for (name, path) in [("up", "../../escaped"), ("deep", "a/../../escaped")] {
            let refused = world.host.image_import(&layout(&world, name, path), "bad:1").await.unwrap_err();
            assert_eq!(refused.kind, HostErrorKind::InvalidSpec, "{refused}");
        }
        let garbage = world.dir.path().join("garbage.tar");
        std::fs::write(&garbage, "x".repeat(2000)).unwrap();
        let refused = world.host.image_import(&garbage, "bad:1").await.unwrap_err();
        assert_eq!(refused.kind, HostErrorKind::InvalidSpec, "{refused}");
        assert_eq!(world.host.image_list().await.unwrap().len(), 1);
        for place in [root.parent().unwrap(), world.dir.path(), &world.options.state_dir] {
            assert!(!place.join("escaped").exists(), "{}", place.display());
        }
    });
}
