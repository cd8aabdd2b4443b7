//! Imports of images that the tests build themselves. They need root and say so when they have to skip.

use super::import::import;
use super::*;
use crate::options::LinuxOptions;
use crate::rootfs;
use crate::unpack::digest_of;
use reddwarf_host::spec::ContainerImage;
use reddwarf_host::{Brand, ImageId};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

struct World {
    dir: tempfile::TempDir,
    options: LinuxOptions,
}

impl World {
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root to unpack images");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let options = LinuxOptions::new(dir.path().join("run"), dir.path().join("state"), "/proc/self/exe");
        Some(Self { dir, options })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn images(&self) -> PathBuf {
        self.options.state_dir.join("images")
    }

    async fn import(&self, source: &Path, name: &str) -> HostResult<ImageInfo> {
        import(&self.options, source, name, &|| Ok(BTreeSet::new())).await
    }

    async fn refused(&self, source: &Path) -> HostError {
        let error = self.import(source, "bad").await.unwrap_err();
        assert!(self.layers().is_empty(), "a refused image leaves no layer");
        assert_eq!(fs::read_dir(self.images().join("tmp")).unwrap().count(), 0);
        assert!(Store::of(&self.options).list().unwrap().is_empty());
        error
    }

    fn layers(&self) -> Vec<String> {
        let dir = fs::read_dir(self.images().join("layers")).into_iter().flatten().flatten();
        dir.map(|e| e.file_name().into_string().unwrap()).collect()
    }

    /// What a script prints in a container of the image.
    fn run(&self, id: &ImageId, script: &str) -> String {
        let request = rootfs::RootfsRequest {
            options: self.options.clone(),
            brand: Brand::new("oci").unwrap(),
            image: ContainerImage::Image { id: id.clone() },
            dir: self.path("container"),
            mountpoint: self.path("mountpoint"),
            users: None,
            cloned: None,
        };
        fs::create_dir_all(&request.dir).unwrap();
        fs::create_dir_all(&request.mountpoint).unwrap();
        let (script, dir) = (script.to_owned(), request.dir.clone());
        let thread = std::thread::spawn(move || {
            use nix::sched::{CloneFlags, unshare};
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
            let flags = nix::mount::MsFlags::MS_SLAVE | nix::mount::MsFlags::MS_REC;
            nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
            let root = rootfs::prepare(&request).unwrap();
            #[allow(clippy::disallowed_methods)]
            let mut shell = std::process::Command::new("/usr/sbin/chroot");
            let out = shell.arg(&root).args(["/bin/busybox", "sh", "-c", &script]).output().unwrap();
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
        });
        let text = thread.join().unwrap();
        rootfs::release(&dir).map(drop).unwrap();
        text
    }
}

/// One layer, built entry by entry.
struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn add(mut self, kind: tar::EntryType, path: &str, link: &str, content: &[u8], mode: u32) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        if link.is_empty() {
            self.0.append_data(&mut header, path, content).unwrap();
        } else {
            self.0.append_link(&mut header, path, link).unwrap();
        }
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.add(tar::EntryType::Regular, path, "", content.as_bytes(), 0o644)
    }

    fn dir(self, path: &str) -> Self {
        self.add(tar::EntryType::Directory, path, "", b"", 0o755)
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.add(tar::EntryType::Symlink, path, target, b"", 0o777)
    }

    fn hardlink(self, path: &str, target: &str) -> Self {
        self.add(tar::EntryType::Link, path, target, b"", 0o644)
    }

    fn busybox(self) -> Self {
        let busybox = fs::read("/bin/busybox").unwrap();
        self.dir("bin").add(tar::EntryType::Regular, "bin/busybox", "", &busybox, 0o755)
    }

    fn tar(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::File::create(path).unwrap().write_all(bytes).unwrap();
}

fn blob(layout: &Path, bytes: &[u8]) -> String {
    let digest = digest_of(bytes);
    put(&layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:")), bytes);
    digest
}

fn blob_path(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
}

fn config(layers: &[Vec<u8>], architecture: &str) -> String {
    let diff_ids: Vec<_> = layers.iter().map(|l| digest_of(l)).collect();
    json!({
        "architecture": architecture, "os": "linux",
        "config": { "Entrypoint": ["/bin/app"], "Env": ["A=b"], "WorkingDir": "/srv", "User": "app" },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string()
}

/// Writes an image into a layout; gives its manifest's descriptor.
fn manifest(layout: &Path, layers: &[Vec<u8>], architecture: &str) -> serde_json::Value {
    let config = config(layers, architecture);
    let layers: Vec<_> = layers
        .iter()
        .map(|l| json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": blob(layout, &gzip(l)), "size": 1 }))
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": blob(layout, config.as_bytes()), "size": 1 },
        "layers": layers,
    });
    let digest = blob(layout, manifest.to_string().as_bytes());
    json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1 })
}

fn layout(path: &Path, manifests: &[serde_json::Value]) {
    put(&path.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
    put(&path.join("index.json"), json!({ "schemaVersion": 2, "manifests": manifests }).to_string().as_bytes());
}

fn here() -> &'static str {
    crate::info::architecture(std::env::consts::ARCH)
}

fn simple_layout(path: &Path) {
    let descriptor = manifest(path, &[Layer::new().busybox().file("etc/who", "simple").tar()], here());
    layout(path, &[descriptor]);
}

fn archive_of(dir: &Path, target: &Path) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", dir).unwrap();
    let bytes = builder.into_inner().unwrap();
    put(target, &bytes);
    bytes
}

#[tokio::test]
async fn layers_add_hide_and_link_as_their_maker_meant() {
    let Some(world) = World::new() else { return };
    let base = Layer::new()
        .busybox()
        .dir("usr")
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .dir("etc")
        .file("etc/keep", "keep")
        .file("etc/gone", "gone")
        .dir("opaque")
        .file("opaque/old", "old")
        .dir("opaque/sub")
        .file("opaque/sub/old", "old")
        .dir("tree")
        .file("tree/a/b/c", "deep")
        .file("replaced", "file")
        .add(tar::EntryType::Directory, "tmp", "", b"", 0o1777)
        .add(tar::EntryType::Regular, "bin/su", "", b"su", 0o4755);
    let middle = Layer::new()
        // Written through the lower layer's link, into a directory that this layer does not mention.
        .file("lib/libx.so", "x")
        .file("etc/.wh.gone", "")
        .file("opaque/sub/new", "new")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "new")
        .file(".wh.tree", "")
        .dir("replaced")
        .file("replaced/inside", "inside")
        .hardlink("etc/keep-too", "etc/keep")
        .file("tmp/implicit/x", "x");
    let top = Layer::new().file("tree", "a file now").file("etc/keep", "newer").file(".wh..wh.plnk/1.2", "aufs");
    let image = world.path("image");
    layout(&image, &[manifest(&image, &[base.tar(), middle.tar(), top.tar()], here())]);
    let begun = std::time::Instant::now();
    let info = world.import(&image, "test:1").await.unwrap();
    eprintln!("import of three layers: {:?}", begun.elapsed());
    assert_eq!(info.names, ["test:1"]);
    assert_eq!((info.config.entrypoint, info.config.user), (vec!["/bin/app".to_owned()], "app".to_owned()));
    assert!(info.size_bytes > 1_000_000);
    let seen = world.run(
        &info.id,
        "busybox() { /bin/busybox \"$@\"; }
         busybox ls -A /etc /opaque /opaque/sub /usr/lib; busybox cat /tree /replaced/inside /etc/keep /etc/keep-too; echo
         busybox stat -c '%a %n' /tmp /bin/su /tmp/implicit; busybox readlink /lib; busybox ls -A / | busybox tr '\\n' ' '",
    );
    assert_eq!(
        seen,
        "/etc:\nkeep\nkeep-too\n\n/opaque:\nnew\nsub\n\n/opaque/sub:\nnew\n\n/usr/lib:\nlibx.so\n\
         a file nowinsidenewerkeep\n1777 /tmp\n4755 /bin/su\n755 /tmp/implicit\nusr/lib\n\
         bin etc lib opaque replaced tmp tree usr "
    );
    // Setuid programs of images are out of reach of the host's users.
    assert_eq!(fs::metadata(world.images()).unwrap().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn every_form_of_one_image_is_one_image() {
    let Some(world) = World::new() else { return };
    let dir = world.path("layout");
    simple_layout(&dir);
    let from_layout = world.import(&dir, "a").await.unwrap();
    let tar = archive_of(&dir, &world.path("image.tar"));
    put(&world.path("image.tar.gz"), &gzip(&tar));
    let layers = world.layers();
    for (file, name) in [("image.tar", "b"), ("image.tar.gz", "c")] {
        let info = world.import(&world.path(file), name).await.unwrap();
        assert_eq!(info.id, from_layout.id, "{file}");
    }
    // docker save: the same config, the layer not compressed.
    let layer = Layer::new().busybox().file("etc/who", "simple").tar();
    let docker = world.path("docker");
    put(&docker.join("abc.json"), config(std::slice::from_ref(&layer), here()).as_bytes());
    put(&docker.join("one/layer.tar"), &layer);
    fs::create_dir(docker.join("two")).unwrap();
    std::os::unix::fs::symlink("../one/layer.tar", docker.join("two/layer.tar")).unwrap();
    let listing = json!([{ "Config": "abc.json", "RepoTags": ["x:1"], "Layers": ["two/layer.tar"] }]);
    put(&docker.join("manifest.json"), listing.to_string().as_bytes());
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", &docker).unwrap();
    put(&world.path("docker.tar"), &builder.into_inner().unwrap());
    let info = world.import(&world.path("docker.tar"), "d").await.unwrap();
    assert_eq!(info.id, from_layout.id);
    assert_eq!(info.names, ["a", "b", "c", "d"]);
    assert_eq!(world.layers(), layers, "no layer twice");
    assert_eq!(world.run(&info.id, "/bin/busybox cat /etc/who"), "simple");
}

#[tokio::test]
async fn a_directory_is_an_image() {
    let Some(world) = World::new() else { return };
    let root = world.path("root");
    put(&root.join("bin/busybox"), &fs::read("/bin/busybox").unwrap());
    for (name, mode) in [("bin/busybox", 0o755), ("bin/su", 0o4755), ("etc/private", 0o600)] {
        if name != "bin/busybox" {
            put(&root.join(name), b"x");
        }
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::chown(root.join("etc/private"), Some(1234), Some(5678)).unwrap();
    fs::hard_link(root.join("bin/busybox"), root.join("bin/sh")).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", root.join("etc/link")).unwrap();
    nix::unistd::mkfifo(&root.join("etc/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("etc/socket")).unwrap();
    let deep = format!("{}/file", "long-directory-name-".repeat(6)).repeat(1);
    put(&root.join(&deep), b"deep");

    let info = world.import(&root, "dir").await.unwrap();
    let again = world.import(&root, "dir-again").await.unwrap();
    assert_eq!(info.id, again.id);
    assert_eq!(again.names, ["dir", "dir-again"]);
    let script = format!(
        "/bin/busybox stat -c '%a %u %h %n' /bin/su /bin/sh /etc/private; /bin/busybox readlink /etc/link; \
         /bin/busybox ls /etc; /bin/busybox cat /{deep}"
    );
    assert_eq!(
        world.run(&info.id, &script),
        "4755 0 1 /bin/su\n755 0 2 /bin/sh\n600 1234 1 /etc/private\n/etc/shadow\nlink\npipe\nprivate\ndeep"
    );
    put(&root.join("etc/more"), b"more");
    assert_ne!(world.import(&root, "dir").await.unwrap().id, info.id);

    let empty = world.path("empty");
    fs::create_dir(&empty).unwrap();
    assert!(world.import(&empty, "x").await.unwrap_err().message.contains("is an empty directory"));
    let missing = world.import(&world.path("missing"), "x").await.unwrap_err();
    assert_eq!(missing.kind, HostErrorKind::NotFound, "{missing}");
}

#[tokio::test]
async fn the_platform_is_chosen_by_this_machine() {
    let Some(world) = World::new() else { return };
    let other = if here() == "arm64" { "amd64" } else { "arm64" };
    let image = world.path("multi");
    let with_platform = |mut descriptor: serde_json::Value, os: &str, architecture: &str| {
        descriptor["platform"] = json!({ "os": os, "architecture": architecture });
        descriptor
    };
    let theirs = with_platform(manifest(&image, &[Layer::new().file("who", "theirs").tar()], other), "linux", other);
    let ours = manifest(&image, &[Layer::new().busybox().file("who", "ours").tar()], here());
    let ours = with_platform(ours, "linux", here());
    let attestation = with_platform(theirs.clone(), "unknown", "unknown");
    let index = json!({ "schemaVersion": 2, "manifests": [theirs.clone(), attestation, ours] }).to_string();
    let nested =
        json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "digest": blob(&image, index.as_bytes()) });
    layout(&image, &[nested]);
    let info = world.import(&image, "multi").await.unwrap();
    assert_eq!(world.run(&info.id, "/bin/busybox cat /who"), "ours");

    layout(&image, &[theirs]);
    let error = world.import(&image, "theirs").await.unwrap_err();
    assert_eq!(error.kind, HostErrorKind::InvalidSpec);
    assert_eq!(error.message, format!("it holds no image for linux/{}, only: linux/{other}", here()));
}

#[tokio::test]
async fn f39_a_changed_blob_is_found_out() {
    let Some(world) = World::new() else { return };
    let image = world.path("image");
    let layer = Layer::new().file("a", "a").tar();
    let descriptor = manifest(&image, std::slice::from_ref(&layer), here());
    layout(&image, std::slice::from_ref(&descriptor));
    let config = config(std::slice::from_ref(&layer), here());
    let other = gzip(&Layer::new().file("a", "evil").tar());
    for (digest, content) in [
        (digest_of(&gzip(&layer)), other.as_slice()),
        (digest_of(config.as_bytes()), b"{}"),
        (descriptor["digest"].as_str().unwrap().to_owned(), b"{}"),
    ] {
        let path = blob_path(&image, &digest);
        let good = fs::read(&path).unwrap();
        put(&path, content);
        let error = world.refused(&image).await;
        assert_eq!(error.kind, HostErrorKind::InvalidSpec, "{error}");
        assert!(error.message.contains("digest mismatch") && error.message.contains(&digest), "{error}");
        put(&path, &good);
    }
    // A partial blob.
    let path = blob_path(&image, &digest_of(&gzip(&layer)));
    let good = fs::read(&path).unwrap();
    put(&path, &good[..good.len() / 2]);
    assert_eq!(world.refused(&image).await.kind, HostErrorKind::InvalidSpec);
    fs::remove_file(&path).unwrap();
    assert_eq!(world.refused(&image).await.kind, HostErrorKind::NotFound);
    put(&path, &good);
    world.import(&image, "good").await.map(drop).unwrap();
}

#[tokio::test]
async fn what_is_no_image_is_said_so() {
    let Some(world) = World::new() else { return };
    let file = world.path("file");
    put(&file, b"hello, world");
    assert_eq!(world.refused(&file).await.kind, HostErrorKind::InvalidSpec);
    put(&file, &Layer::new().file("letters/one", "x").tar());
    let error = world.refused(&file).await;
    assert!(error.message.contains("holds neither index.json (OCI) nor manifest.json"), "{error}");
    put(&file, b"BZh91AY&SY");
    assert!(world.refused(&file).await.message.contains("bzip2: known here are tar, tar.gz and tar.zst"));
    put(&file, &[0x28, 0xb5, 0x2f, 0xfd, 0, 0]);
    assert!(world.refused(&file).await.message.contains("zstd"));
    let image = world.path("image");
    let mut config: serde_json::Value = serde_json::from_str(&config(&[], here())).unwrap();
    config["rootfs"]["diff_ids"] = json!([]);
    let manifest = json!({ "config": { "digest": blob(&image, config.to_string().as_bytes()) }, "layers": [] });
    layout(&image, &[json!({ "digest": blob(&image, manifest.to_string().as_bytes()) })]);
    assert!(world.refused(&image).await.message.contains("it has 0 layers"));
    for name in ["", "a b", "-x", "a\nb"] {
        let error = world.import(&image, name).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::InvalidSpec, "{name:?}");
    }
}

#[tokio::test]
async fn hostile_layers_reach_nothing_and_leave_nothing() {
    let Some(world) = World::new() else { return };
    let image = world.path("image");
    let outside = world.path("outside");
    fs::create_dir(&outside).unwrap();
    let raw = |path: &[u8], kind: u8| {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("path", path)]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(0);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
        builder.into_inner().unwrap()
    };
    for layer in [raw(b"../../../../outside/x", b'0'), raw(b"/outside/x", b'0'), raw(b"disk", b'4')] {
        // On its own, and on top of another layer (where overlayfs is below).
        for layers in [vec![layer.clone()], vec![Layer::new().file("a", "a").tar(), layer.clone()]] {
            layout(&image, &[manifest(&image, &layers, here())]);
            let error = world.refused(&image).await;
            assert_eq!(error.kind, HostErrorKind::InvalidSpec, "{error}");
        }
    }
    let escape =
        Layer::new().symlink("out", outside.to_str().unwrap()).dir(&outside.to_str().unwrap()[1..]).file("out/x", "x");
    layout(&image, &[manifest(&image, &[escape.tar()], here())]);
    world.import(&image, "contained").await.map(drop).unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test]
async fn names_move_and_unused_images_go() {
    let Some(world) = World::new() else { return };
    let (one, two) = (world.path("one"), world.path("two"));
    let base = Layer::new().file("base", "base").tar();
    layout(&one, &[manifest(&one, &[base.clone(), Layer::new().file("one", "1").tar()], here())]);
    layout(&two, &[manifest(&two, &[base, Layer::new().file("two", "2").tar()], here())]);
    let first = world.import(&one, "app").await.unwrap();
    world.import(&one, "old").await.map(drop).unwrap();
    let second = world.import(&two, "app").await.unwrap();
    assert_eq!(second.names, ["app"]);
    assert_eq!(world.layers().len(), 3, "the base is shared");
    let store = Store::of(&world.options);
    let names = |id: &ImageId| store.list().unwrap().into_iter().find(|i| i.id == *id).map(|i| i.names);
    assert_eq!(names(&first.id), Some(vec!["old".to_owned()]));

    let in_use = BTreeSet::from([first.id.clone()]);
    let error = store.lock().await.unwrap().remove_name("old", &in_use).unwrap_err();
    assert_eq!(error.kind, HostErrorKind::Busy, "{error}");
    assert!(matches!(store.lock().await.unwrap().remove_name("old", &BTreeSet::new()).unwrap(), Change::Changed(_)));
    assert_eq!(names(&first.id), None);
    assert_eq!(world.layers().len(), 2);
    assert_eq!(store.lock().await.unwrap().remove_name("old", &BTreeSet::new()).unwrap(), Change::Unchanged);
    let _ = store.lock().await.unwrap().remove_name("app", &BTreeSet::new()).unwrap();
    assert!(world.layers().is_empty() && store.list().unwrap().is_empty());
}

/// A name that moves away from an image that a container still runs from leaves the image in place.
#[tokio::test]
async fn an_image_in_use_survives_the_loss_of_its_name() {
    let Some(world) = World::new() else { return };
    let (one, two) = (world.path("one"), world.path("two"));
    layout(&one, &[manifest(&one, &[Layer::new().file("one", "1").tar()], here())]);
    layout(&two, &[manifest(&two, &[Layer::new().file("two", "2").tar()], here())]);
    let first = world.import(&one, "app").await.unwrap();
    let in_use = BTreeSet::from([first.id.clone()]);
    import(&world.options, &two, "app", &|| Ok(in_use.clone())).await.map(drop).unwrap();
    let store = Store::of(&world.options);
    assert!(store.record(&first.id).unwrap().is_some());
    import(&world.options, &two, "app", &|| Ok(BTreeSet::new())).await.map(drop).unwrap();
    assert!(store.record(&first.id).unwrap().is_none());
}

/// F1: what a killed import leaves is never used, and gone after the next.
#[tokio::test]
async fn f1_leftovers_of_a_killed_import_are_collected() {
    let Some(world) = World::new() else { return };
    let image = world.path("image");
    simple_layout(&image);
    for path in ["tmp/0123/upper/half", "tmp/found/archive.tar", "layers/00000000000000000000000000000000/x"] {
        put(&world.images().join(path), b"x");
    }
    let orphan = ImageId::new(digest_of(b"orphan")).unwrap();
    let hex = orphan.as_str().trim_start_matches("sha256:").to_owned();
    let record = json!({ "id": orphan, "config": reddwarf_host::ImageConfig::default(), "layers": [], "sizeBytes": 0 });
    put(&world.images().join(format!("records/{hex}.json")), record.to_string().as_bytes());
    put(&world.images().join("names.json.new"), b"{\"torn");
    let info = world.import(&image, "a").await.unwrap();
    assert_eq!(world.layers().len(), 1);
    let listed = Store::of(&world.options).list().unwrap();
    assert_eq!(listed.into_iter().map(|i| i.id).collect::<Vec<_>>(), [info.id]);
    assert_eq!(fs::read_dir(world.images().join("tmp")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_at_once_wait_for_each_other() {
    let Some(world) = World::new() else { return };
    let image = world.path("image");
    simple_layout(&image);
    let results = futures_util::future::join_all((0..6).map(|i| {
        let (options, image) = (world.options.clone(), image.clone());
        tokio::spawn(async move { import(&options, &image, &format!("n{i}"), &|| Ok(BTreeSet::new())).await })
    }))
    .await;
    let ids: BTreeSet<_> = results.into_iter().map(|r| r.unwrap().unwrap().id).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(Store::of(&world.options).list().unwrap()[0].names.len(), 6);
}

/// A large image that is unpacked for long keeps no container of another one waiting, and what is read does not go.
#[tokio::test]
async fn an_image_is_copied_while_another_one_is_unpacked_and_its_layers_stay_meanwhile() {
    let Some(world) = World::new() else { return };
    let image = world.path("image");
    simple_layout(&image);
    let info = world.import(&image, "app").await.unwrap();
    let store = Store::of(&world.options);
    let target = world.path("target");
    fs::create_dir(&target).unwrap();
    // As the import of another image holds it, from its first layer to its last.
    let unpacking = store.lock().await.unwrap();
    let copied = import::flatten(&world.options, &info.id, &target);
    tokio::time::timeout(std::time::Duration::from_secs(60), copied).await.expect("it waits for the other").unwrap();
    assert!(fs::read_dir(&target).unwrap().count() > 0);
    assert_eq!(fs::read_dir(world.images().join("together")).unwrap().count(), 0);
    drop(unpacking);
    let reading = store.read().await.unwrap();
    let _ = store.lock().await.unwrap().remove_name("app", &BTreeSet::new()).unwrap();
    assert_eq!(world.layers().len(), 1, "somebody reads it");
    let mut removal = Box::pin(store.lock_to_remove());
    let early = tokio::time::timeout(std::time::Duration::from_millis(50), &mut removal).await;
    assert!(early.is_err(), "nothing is removed while layers are read");
    drop(store.lock().await.expect("who waits to remove keeps nobody from importing"));
    drop(reading);
    removal.await.unwrap().collect(&BTreeSet::new()).unwrap();
    assert!(world.layers().is_empty());
}

/// F7: no room for a layer.
#[test]
fn f7_a_full_disk_leaves_the_store_as_it_was() {
    let Some(world) = World::new() else { return };
    let thread = std::thread::spawn(move || {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>).unwrap();
        fs::create_dir_all(&world.options.state_dir).unwrap();
        mount(Some("tmpfs"), &world.options.state_dir, Some("tmpfs"), MsFlags::empty(), Some("size=4m")).unwrap();
        let image = world.path("image");
        simple_layout(&image);
        let big = world.path("big");
        let content = vec![7u8; 8 << 20];
        let layer = Layer::new().add(tar::EntryType::Regular, "big", "", &content, 0o644);
        layout(&big, &[manifest(&big, &[layer.tar()], here())]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let good = world.import(&image, "good").await.unwrap();
            let error = world.import(&big, "big").await.unwrap_err();
            assert_eq!(error.kind, HostErrorKind::Exhausted, "{error}");
            assert!(error.message.contains("\"big\": No space left on device"), "{error}");
            let listed = Store::of(&world.options).list().unwrap();
            assert_eq!(listed, [good]);
            assert_eq!(fs::read_dir(world.images().join("tmp")).unwrap().count(), 0);
        });
    });
    thread.join().unwrap();
}

/// Numbers: of a thousand images that nobody uses each costs its record and its layer, and their names one file together; their
/// files go afterwards. Prints how long it took (5 s is what is promised).
#[tokio::test]
async fn a_thousand_unused_images_cost_two_changes_each() {
    let Some(world) = World::new() else { return };
    let store = Store::of(&world.options);
    drop(store.lock().await.unwrap());
    let mut names = serde_json::Map::new();
    let mut ids = Vec::new();
    for n in 0..1000u32 {
        let id = ImageId::new(digest_of(&n.to_le_bytes())).unwrap();
        let hex = id.as_str().trim_start_matches("sha256:").to_owned();
        let layer = &hex[..32];
        for file in 0..12 {
            put(&world.images().join(format!("layers/{layer}/usr/{}/{file}", file % 3)), b"x");
        }
        let record = store::Record {
            id: id.clone(),
            config: reddwarf_host::ImageConfig::default(),
            layers: vec![layer.to_owned()],
            diff_ids: vec![id.to_string()],
            size_bytes: 12,
            pulled: [(format!("r.io/{n}:1"), format!("r.io/{n}@{id}"))].into(),
        };
        put(&world.images().join(format!("records/{hex}.json")), &serde_json::to_vec(&record).unwrap());
        names.insert(format!("r.io/{n}:1"), id.to_string().into());
        ids.push(id);
    }
    put(&world.images().join("names.json"), serde_json::Value::Object(names).to_string().as_bytes());
    let kept = ids.pop().unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(store.list().unwrap().len(), 1000);
    let listed = begun.elapsed();
    let all: Vec<_> = ids.iter().cloned().chain([kept.clone()]).collect();
    let begun = std::time::Instant::now();
    let locked = store.lock().await.unwrap();
    let (changes, gone) = super::crash::passed(|| locked.remove_images(&all, &BTreeSet::from([kept.clone()])).unwrap());
    let took = begun.elapsed();
    drop(locked);
    let moved = fs::read_dir(world.images().join("removed")).unwrap().count();
    let begun = std::time::Instant::now();
    store.sweep();
    let swept = begun.elapsed();
    println!("listing 1,000 images: {listed:?}; collecting 999 of them: {took:?}; then their 12,000 files: {swept:?}");
    assert_eq!(fs::read_dir(world.images().join("removed")).unwrap().count(), 0);
    assert_eq!(gone.len(), 999);
    assert_eq!(store.list().unwrap().into_iter().map(|i| i.id).collect::<Vec<_>>(), [kept]);
    assert_eq!(world.layers().len(), 1);
    // The index of names is written once, by four steps.
    assert_eq!(
        (changes, moved),
        (2 * 999 + 4, 999),
        "files are removed while others wait, or something is written for each"
    );
}
