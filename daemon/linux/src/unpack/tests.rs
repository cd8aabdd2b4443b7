//! Hostile streams against a tree. The process is not confined here, so that what is tested is the resolution of paths
//! alone.

use super::layer::{Tree, open_root};
use super::*;
use proptest::prelude::*;
use reddwarf_host::UnpackLimits;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// One entry of a test's stream.
#[derive(Clone, Debug)]
struct E {
    path: String,
    kind: u8,
    link: String,
    content: &'static str,
    mode: u32,
}

fn e(kind: u8, path: &str, link: &str) -> E {
    E { path: path.into(), kind, link: link.into(), content: if kind == b'0' { "data" } else { "" }, mode: 0o755 }
}

/// The bytes of a stream; names are written as they are, good or bad.
fn stream(entries: &[E]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for E { path, kind, link, content, mode } in entries {
        let mut records = vec![("path", path.as_bytes())];
        if !link.is_empty() {
            records.push(("linkpath", link.as_bytes()));
        }
        builder.append_pax_extensions(records).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::new(*kind));
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// `root` to unpack into, and `outside`, which must stay as it is.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        let precious = fs::File::create(dir.path().join("outside/precious")).unwrap();
        precious.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn apply(&self, entries: &[E]) -> Result<layer::Applied> {
        let bytes = stream(entries);
        Tree::new(open_root(&self.root()).unwrap(), None).apply(&bytes[..], &UnpackLimits::default())
    }

    fn assert_outside_untouched(&self) {
        let outside: Vec<_> = fs::read_dir(self.dir.path().join("outside")).unwrap().flatten().collect();
        assert_eq!(outside.len(), 1, "something was written outside");
        let meta = outside[0].metadata().unwrap();
        assert_eq!((meta.len(), meta.nlink(), meta.mode() & 0o7777), (0, 1, 0o600));
        let here: Vec<_> = fs::read_dir(self.dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(here.len(), 2, "{here:?}");
    }
}

fn root_is_needed() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    eprintln!("SKIPPED: needs root to set owners");
    false
}

#[test]
fn hostile_streams_are_refused_by_name() {
    if !root_is_needed() {
        return;
    }
    let long = "d/".repeat(2100);
    let cases: Vec<(Vec<E>, &str)> = vec![
        (vec![e(b'0', "/etc/passwd", "")], "absolute path"),
        (vec![e(b'0', "../outside/new", "")], "'..' in its path"),
        (vec![e(b'0', "a/../../outside/new", "")], "'..' in its path"),
        (vec![e(b'1', "hard", "../outside/precious")], "'..' in its path"),
        (vec![e(b'1', "hard", "/etc/passwd")], "absolute path"),
        (vec![e(b'2', "up", "../outside"), e(b'1', "hard", "up/precious")], "link to"),
        (vec![e(b'1', "hard", "nothing")], "link to"),
        (vec![e(b'5', "d", ""), e(b'1', "hard", "d")], "hard link to the directory"),
        (vec![e(b'3', "null", "")], "device nodes outside of /dev"),
        (vec![e(b'4', "var/disk", "")], "device nodes outside of /dev"),
        (vec![e(b'0', "a/.wh...", "")], "whiteout of nothing"),
        (vec![e(b'0', ".wh.", "")], "whiteout of nothing"),
        (vec![e(b'0', ".wh.a/b", "")], "below a whiteout"),
        (vec![e(b'0', "f", ""), e(b'0', "f/g", "")], "Not a directory"),
        (vec![e(b'2', "loop", "loop"), e(b'0', "loop/x", "")], "Too many symbolic links"),
        (vec![e(b'2', "gone", "/nowhere/at/all"), e(b'0', "gone/x", "")], "File exists"),
        (vec![e(b'S', "sparse", "")], "type 'S' is not known"),
        (vec![e(b'0', ".", "")], "root is no directory"),
        (vec![e(b'0', &long, "")], "bytes"),
        (vec![e(b'2', "empty", "")], "link to nothing"),
    ];
    for (entries, why) in cases {
        let world = World::new();
        let error = world.apply(&entries).unwrap_err();
        assert!(error.message.contains(why), "{entries:?}: {error}");
        world.assert_outside_untouched();
    }
}

#[test]
fn links_lead_where_they_lead_in_the_container() {
    if !root_is_needed() {
        return;
    }
    let world = World::new();
    let outside = world.dir.path().join("outside");
    let absolute = outside.to_str().unwrap();
    // In the container these links lead to /outside and below its own root.
    world
        .apply(&[
            e(b'5', "usr", ""),
            e(b'5', "usr/lib", ""),
            e(b'2', "lib", "usr/lib"),
            e(b'0', "lib/x.so", ""),
            e(b'5', absolute.trim_start_matches('/'), ""),
            e(b'2', "abs", absolute),
            e(b'0', "abs/new", ""),
            e(b'5', "outside", ""),
            e(b'2', "up", "../../../../outside"),
            e(b'0', "up/new", ""),
            e(b'0', "lib", ""),
        ])
        .unwrap();
    world.assert_outside_untouched();
    let root = world.root();
    assert_eq!(fs::read_to_string(root.join("usr/lib/x.so")).unwrap(), "data");
    assert_eq!(fs::read_to_string(root.join("outside/new")).unwrap(), "data");
    assert_eq!(fs::read_to_string(root.join(absolute.trim_start_matches('/')).join("new")).unwrap(), "data");
    assert!(fs::symlink_metadata(root.join("lib")).unwrap().is_file(), "a file replaces a link, not its target");
}

#[test]
fn attributes_are_kept_and_foreign_ones_left_out() {
    if !root_is_needed() {
        return;
    }
    let world = World::new();
    let mut builder = tar::Builder::new(Vec::new());
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    builder
        .append_pax_extensions([
            ("SCHILY.xattr.security.capability", &capability[..]),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.note", b"a\nb"),
            ("mtime", b"1234567890.5"),
        ])
        .unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("ping").unwrap();
    header.set_mode(0o4755);
    header.set_uid(1234);
    header.set_gid(5678);
    header.set_size(0);
    header.set_cksum();
    builder.append(&header, &b""[..]).unwrap();
    let bytes = builder.into_inner().unwrap();
    Tree::new(open_root(&world.root()).unwrap(), None).apply(&bytes[..], &UnpackLimits::default()).unwrap();
    let meta = fs::metadata(world.root().join("ping")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o4755, 1234, 5678));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_234_567_890, 500_000_000));
    let file = fs::File::open(world.root().join("ping")).unwrap();
    let names: Vec<_> = xattr::list(&file).unwrap().into_iter().map(|n| n.into_string().unwrap()).collect();
    assert!(names.contains(&"security.capability".to_owned()) && !names.iter().any(|n| n.starts_with("trusted")));
    assert_eq!(xattr::get(&file, c"user.note").unwrap(), b"a\nb");
}

#[test]
fn directories_keep_their_times_and_devices_below_dev_are_left_out() {
    if !root_is_needed() {
        return;
    }
    let world = World::new();
    let applied = world
        .apply(&[
            e(b'5', "d", ""),
            e(b'0', "d/f", ""),
            e(b'6', "d/pipe", ""),
            e(b'3', "dev/null", ""),
            e(b'1', "d/g", "d/f"),
        ])
        .unwrap();
    assert_eq!((applied.entries, applied.skipped_devices), (5, 1));
    assert_eq!(fs::metadata(world.root().join("d")).unwrap().mtime(), 1_000_000);
    assert_eq!(fs::metadata(world.root().join("d/f")).unwrap().nlink(), 2);
}

#[test]
fn too_many_entries_are_refused() {
    if !root_is_needed() {
        return;
    }
    let world = World::new();
    let bytes = stream(&[e(b'5', "a", ""), e(b'5', "b", "")]);
    let limits = UnpackLimits { entries: 1, ..UnpackLimits::default() };
    let error = Tree::new(open_root(&world.root()).unwrap(), None).apply(&bytes[..], &limits).unwrap_err();
    assert_eq!(error.message, "it has more than 1 entries");
}

#[test]
fn a_stream_that_ends_early_is_refused() {
    if !root_is_needed() {
        return;
    }
    let whole = stream(&[e(b'0', "file", "")]);
    for length in [600, 1024, 1200, 1600, 2049] {
        let world = World::new();
        let cut = &whole[..length.min(whole.len())];
        let result = Tree::new(open_root(&world.root()).unwrap(), None).apply(cut, &UnpackLimits::default());
        assert!(result.is_err(), "{length}");
    }
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "up", "abs", ".wh.a", ".wh..wh..opq", "outside", "precious"])
        .prop_map(str::to_owned)
}

fn target() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec!["..", ".", "a", "b", "up", "abs", "outside", "precious", "root", "proc", "self"]),
        1..6,
    )
    .prop_flat_map(|parts| {
        prop::bool::ANY.prop_map(move |abs| format!("{}{}", if abs { "/" } else { "" }, parts.join("/")))
    })
}

fn entry() -> impl Strategy<Value = E> {
    (prop::sample::select(vec![b'0', b'1', b'2', b'5', b'6']), prop::collection::vec(name(), 1..4), target()).prop_map(
        |(kind, names, target)| {
            let link = if kind == b'1' { target.trim_start_matches(['/', '.']).replace("../", "") } else { target };
            e(kind, &names.join("/"), &link)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever entries come in whatever order, each alone legal: nothing outside changes.
    #[test]
    fn no_sequence_of_entries_reaches_outside(entries in prop::collection::vec(entry(), 1..16)) {
        if nix::unistd::geteuid().is_root() {
            let world = World::new();
            for one in &entries {
                // A refused entry must not save the rest from being tried.
                let _ = world.apply(std::slice::from_ref(one));
            }
            world.assert_outside_untouched();
        }
    }
}
