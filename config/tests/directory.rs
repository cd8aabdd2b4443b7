//! The manifest directory as admins and attackers leave it: layers, masks, drop-ins, everything that is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![expect(clippy::disallowed_methods, reason = "says how long it took")]

use nix::sys::stat::Mode;
use nix::unistd::{Uid, chown, mkfifo};
use reddwarf_config::directory::{HeldLayer, Scan, Scanner, Trust, Verdict};
use reddwarf_config::limits::Limits;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

struct Place {
    directory: tempfile::TempDir,
    scanner: Scanner,
}

impl Place {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> = ["lib", "etc", "run"].iter().map(|l| directory.path().join(l)).collect();
        for layer in &layers {
            std::fs::create_dir(layer).unwrap();
        }
        Self { scanner: Scanner::new(layers, limits, Trust::default()), directory }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join(relative)
    }

    fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        put(&path, text.as_bytes());
    }

    fn scan(&mut self) -> Scan {
        self.scanner.scan()
    }

    /// Every finding as one line, the temporary directory left out.
    fn findings(&self, scan: &Scan) -> Vec<String> {
        let root = format!("{}/", self.directory.path().display());
        scan.diagnostics.iter().map(|d| d.one_line().replace(&root, "")).collect()
    }
}

fn put(path: &Path, bytes: &[u8]) {
    std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), bytes).unwrap();
}

fn map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  key: '{value}'\n")
}

fn names(scan: &Scan) -> Vec<String> {
    scan.declared
        .iter()
        .map(|d| d.object())
        .map(|o| format!("{}={}", o.name(), o.get_str("/data/key").unwrap_or("-")))
        .collect()
}

fn verdict(scan: &Scan, relative: &str) -> Verdict {
    scan.files.iter().rfind(|f| f.relative == relative).map(|f| f.verdict.clone()).expect("the file is listed")
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn higher_layers_mask_lower_ones() {
    let mut place = Place::new();
    place.write("lib/a.yaml", &map("a", "lib"));
    place.write("lib/b.yaml", &map("b", "lib"));
    place.write("lib/c.yaml", &map("c", "lib"));
    place.write("etc/a.yaml", &map("a", "etc"));
    place.write("run/a.yaml", &map("a", "run"));
    symlink("/dev/null", place.path("etc/b.yaml")).unwrap();
    let scan = place.scan();
    assert_eq!(names(&scan), ["a=run", "c=lib"]);
    assert_eq!(place.findings(&scan), Vec::<String>::new());
    assert_eq!(verdict(&scan, "b.yaml"), Verdict::Mask);
    let masked: Vec<_> = scan.files.iter().filter(|f| matches!(f.verdict, Verdict::Masked { .. })).collect();
    assert_eq!(masked.len(), 3);
    assert!(scan.is_complete() && scan.changed);
    assert_eq!(scan.files.iter().filter(|f| f.digest.is_some()).count(), 2, "masked files are not read");
}

#[test]
fn drop_ins_of_all_layers_merge_in_the_order_of_their_names() {
    let mut place = Place::new();
    place.write("lib/web.yaml", &(map("web", "lib") + "---\n" + &map("other", "lib")));
    place.write("run/web.d/10-a.yaml", "kind: ConfigMap\nmetadata: {name: web}\ndata: {key: ten, more: x}\n");
    place.write(
        "etc/web.d/20-b.json",
        r#"{"kind": "ConfigMap", "metadata": {"name": "web"}, "data": {"more": null, "key": "twenty"}}"#,
    );
    let scan = place.scan();
    assert_eq!(place.findings(&scan), Vec::<String>::new());
    assert_eq!(names(&scan), ["web=twenty", "other=lib"]);
    assert!(scan.declared[0].object().get("/data/more").is_none());
    assert_eq!(verdict(&scan, "web.d/10-a.yaml"), Verdict::DropIn { of: "web.yaml".into() });
    let origin = &scan.declared[0].origin;
    assert!(origin.file().ends_with("lib/web.yaml"));
    assert!(origin.value_at("/data/key").unwrap().source.name.ends_with("etc/web.d/20-b.json"));
    // A mistake in a drop-in is shown where it stands, and keeps the file as it was.
    place.write("etc/web.d/20-b.json", r#"{"kind": "ConfigMap", "metadata": {"name": "web"}, "dota": {}}"#);
    let scan = place.scan();
    assert_eq!(names(&scan), Vec::<String>::new());
    let findings = place.findings(&scan);
    assert!(findings.iter().any(|f| f.starts_with("etc/web.d/20-b.json:1:52: unknown field `dota`")), "{findings:?}");
    assert!(scan.held_sources.iter().any(|s| s.ends_with("lib/web.yaml")));
    place.write("etc/web.d/20-b.json", r#"{"kind": "ConfigMap", "metadata": {"name": "wob"}}"#);
    let findings = {
        let scan = place.scan();
        place.findings(&scan)
    };
    assert!(
        findings[0].contains("the drop-in changes ConfigMap default/wob, which its file doesn't declare"),
        "{findings:?}"
    );
    std::fs::remove_file(place.path("lib/web.yaml")).unwrap();
    let scan = place.scan();
    assert!(place.findings(&scan)[0].contains("warning: the drop-in changes nothing"));
}

#[test]
fn one_level_of_directories_groups_files() {
    let mut place = Place::new();
    place.write("etc/shop/web.yaml", &map("web", "1"));
    place.write("etc/shop/web.d/10.yaml", "kind: ConfigMap\nmetadata: {name: web}\ndata: {key: '2'}\n");
    place.write("etc/shop/deeper/x.yaml", &map("x", "1"));
    place.write("etc/.git/y.yaml", &map("y", "1"));
    for name in ["web.yaml~", ".web.yaml.swp", "#web.yaml#", "web.yaml.bak", "4913", "README.md"] {
        place.write(&format!("etc/{name}"), "not: [yaml");
    }
    let scan = place.scan();
    assert_eq!(names(&scan), ["web=2"]);
    assert_eq!(scan.files[1].group.as_deref(), Some("shop"));
    let findings = place.findings(&scan);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].starts_with("etc/shop/deeper: the directory lies too deep"), "{findings:?}");
}

#[test]
fn what_is_no_plain_file_is_refused_by_name_without_blocking() {
    let mut place = Place::new();
    place.write("outside.yaml", &map("outside", "1"));
    place.write("etc/real.yaml", &map("real", "1"));
    place.write("etc/apps/deep.yaml", &map("deep", "1"));
    symlink("../outside.yaml", place.path("etc/out.yaml")).unwrap();
    symlink("/etc/passwd", place.path("etc/absolute.yaml")).unwrap();
    symlink("apps/../../outside.yaml", place.path("etc/dots.yaml")).unwrap();
    symlink("nowhere.yaml", place.path("etc/dangling.yaml")).unwrap();
    symlink("loop2.yaml", place.path("etc/loop1.yaml")).unwrap();
    symlink("loop1.yaml", place.path("etc/loop2.yaml")).unwrap();
    symlink("apps", place.path("etc/directory.yaml")).unwrap();
    symlink("/usr", place.path("etc/everything")).unwrap();
    symlink("/dev/zero", place.path("etc/zero.yaml")).unwrap();
    mkfifo(&place.path("etc/fifo.yaml"), Mode::from_bits_truncate(0o600)).unwrap();
    symlink("fifo.yaml", place.path("etc/to-fifo.yaml")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.path("etc/socket.yaml")).unwrap();
    let scan = place.scan();
    assert_eq!(names(&scan), ["deep=1", "real=1"]);
    let findings = place.findings(&scan);
    for expected in [
        "etc/absolute.yaml: the symlink leads out of the manifest directory, to /etc/passwd",
        "etc/dangling.yaml: the symlink leads nowhere: there is no nowhere.yaml",
        "etc/directory.yaml: the symlink leads to a directory",
        "etc/dots.yaml: the symlink leads out of the manifest directory",
        "etc/everything: the symlink leads to a directory",
        "etc/fifo.yaml: this is a FIFO",
        "etc/loop1.yaml: the symlink leads in a circle",
        "etc/loop2.yaml: the symlink leads in a circle",
        "etc/out.yaml: the symlink leads out of the manifest directory",
        "etc/socket.yaml: this is a socket",
        "etc/to-fifo.yaml: this is a FIFO",
        "etc/zero.yaml: the symlink leads out of the manifest directory, to /dev/zero",
    ] {
        assert!(findings.iter().any(|f| f.starts_with(expected)), "{expected}\n{findings:#?}");
    }
    assert_eq!(findings.len(), 12, "{findings:#?}");
    assert!(scan.is_complete());
}

#[test]
fn symlinks_inside_the_layer_are_followed() {
    let mut place = Place::new();
    place.write("etc/.versions/2/web.yaml", &map("web", "2"));
    place.write("etc/.versions/1/web.yaml", &map("web", "1"));
    symlink("1", place.path("etc/.versions/current")).unwrap();
    symlink(".versions/current/web.yaml", place.path("etc/web.yaml")).unwrap();
    symlink(place.path("etc/.versions/1/web.yaml"), place.path("run/none.yaml")).unwrap();
    let scan = place.scan();
    assert_eq!(names(&scan), ["web=1"]);
    assert!(place.findings(&scan)[0].starts_with("run/none.yaml: the symlink leads out"));
    std::fs::remove_file(place.path("run/none.yaml")).unwrap();
    // Kubernetes' own way to switch a directory at once: the link changes, not the file.
    symlink("2", place.path("etc/.versions/next")).unwrap();
    std::fs::rename(place.path("etc/.versions/next"), place.path("etc/.versions/current")).unwrap();
    assert_eq!(names(&place.scan()), ["web=2"]);
}

#[test]
fn what_others_may_write_is_refused() {
    let mut place = Place::new();
    place.write("etc/a.yaml", &map("a", "1"));
    place.write("etc/b.yaml", &map("b", "1"));
    place.write("etc/shop/c.yaml", &map("c", "1"));
    mode(&place.path("etc/a.yaml"), 0o666);
    mode(&place.path("etc/b.yaml"), 0o664);
    let scan = place.scan();
    let findings = place.findings(&scan);
    assert!(findings[0].starts_with("etc/a.yaml: the file can be written by others (mode 0666)"), "{findings:?}");
    assert!(findings[1].contains("mode 0664"), "{findings:?}");
    assert_eq!(names(&scan), ["c=1"]);
    assert!(scan.held_sources.iter().any(|s| s.ends_with("etc/a.yaml")), "what it declared stays");
    mode(&place.path("etc/a.yaml"), 0o644);
    mode(&place.path("etc/b.yaml"), 0o600);
    assert_eq!(names(&place.scan()), ["a=1", "b=1", "c=1"]);
    mode(&place.path("etc/shop"), 0o777);
    let scan = place.scan();
    assert!(!scan.is_complete(), "what is missing must not be deleted");
    assert!(place.findings(&scan)[0].starts_with("etc/shop: the directory can be written by others (mode 0777)"));
    mode(&place.path("etc/shop"), 0o755);
    if Uid::effective().is_root() {
        let stranger = Some(Uid::from_raw(4242));
        chown(&place.path("etc/a.yaml"), stranger, None).unwrap();
        let scan = place.scan();
        assert!(place.findings(&scan)[0].starts_with("etc/a.yaml: the file belongs to user 4242"));
        assert_eq!(names(&scan), ["b=1", "c=1"]);
        chown(&place.path("etc"), stranger, None).unwrap();
        let scan = place.scan();
        assert!(place.findings(&scan)[0].starts_with("etc: the directory belongs to user 4242"));
        assert!(!scan.is_complete());
        let layers = place.scanner.layers().to_vec();
        let mut lenient = Scanner::new(layers, Limits::default(), Trust { any_owner_and_mode: true });
        assert_eq!(names(&lenient.scan()), ["a=1", "b=1", "c=1"]);
    }
}

#[test]
fn sizes_and_counts_are_limited() {
    let mut place = Place::with(Limits { file_bytes: 1000, total_bytes: 1500, files: 20, ..Limits::default() });
    place.write("etc/a.yaml", &map("a", "1"));
    // A sparse file: reading it would take minutes.
    std::fs::File::create(place.path("etc/huge.yaml")).unwrap().set_len(4 << 30).unwrap();
    let began = std::time::Instant::now();
    let scan = place.scan();
    assert!(began.elapsed() < std::time::Duration::from_secs(2));
    assert_eq!(names(&scan), ["a=1"]);
    assert!(place.findings(&scan)[0].starts_with("etc/huge.yaml: the file is 4294967296 bytes large"));
    place.write("etc/b.yaml", &(map("b", "1") + "#" + &"x".repeat(900)));
    place.write("etc/c.yaml", &(map("c", "1") + "#" + &"x".repeat(900)));
    let scan = place.scan();
    assert_eq!(names(&scan), ["a=1", "b=1"]);
    assert!(place.findings(&scan)[0].starts_with("etc/c.yaml: the file is not read, all manifests together"));
    assert!(!scan.is_complete());
    for i in 0..30 {
        place.write(&format!("etc/n{i}.yaml"), &map(&format!("n{i}"), "1"));
    }
    let scan = place.scan();
    assert!(!scan.is_complete());
    assert!(place.findings(&scan).iter().any(|f| f.contains("there are more than 20 manifest files")));
}

#[test]
fn names_that_are_not_utf8_are_shown() {
    use std::os::unix::ffi::OsStrExt;
    let mut place = Place::new();
    put(&place.path("etc").join(std::ffi::OsStr::from_bytes(b"caf\xff.yaml")), map("a", "1").as_bytes());
    let scan = place.scan();
    assert!(place.findings(&scan)[0].contains("the file name is not UTF-8"));
    assert_eq!(names(&scan), Vec::<String>::new());
}

#[test]
fn an_object_in_two_files_is_refused_in_both_orders() {
    for (first, second) in [("a.yaml", "b.yaml"), ("b.yaml", "a.yaml")] {
        let mut place = Place::new();
        place.write(&format!("etc/{first}"), &map("web", "1"));
        assert_eq!(names(&place.scan()), ["web=1"]);
        place.write(&format!("etc/{second}"), &map("web", "2"));
        let scan = place.scan();
        assert_eq!(names(&scan), Vec::<String>::new());
        let findings = place.findings(&scan);
        assert!(findings[0].starts_with("etc/a.yaml:4:9: configmaps/default/web is declared twice"), "{findings:?}");
        assert!(findings[0].contains("b.yaml:4:9"), "{findings:?}");
        assert!(findings[1].starts_with("etc/b.yaml:4:9:") && findings[1].contains("a.yaml:4:9"), "{findings:?}");
        assert_eq!(verdict(&scan, "a.yaml"), Verdict::Refused);
        // Moved: the one that is left counts.
        std::fs::remove_file(place.path(&format!("etc/{first}"))).unwrap();
        assert_eq!(names(&place.scan()), ["web=2"]);
    }
}

#[test]
fn a_layer_that_vanishes_is_no_deletion() {
    let mut place = Place::new();
    place.write("etc/a.yaml", &map("a", "1"));
    assert!(place.scan().is_complete());
    std::fs::rename(place.path("etc"), place.path("gone")).unwrap();
    let scan = place.scan();
    assert!(!scan.is_complete());
    assert!(
        place.findings(&scan)[0].starts_with("etc: the manifest directory vanished"),
        "{:?}",
        place.findings(&scan)
    );
    // An empty directory in its place: a mount that is gone.
    std::fs::create_dir(place.path("etc")).unwrap();
    let scan = place.scan();
    assert!(!scan.is_complete());
    assert!(place.findings(&scan)[0].starts_with("etc: the manifest directory was replaced by an empty one"));
    std::fs::remove_dir(place.path("etc")).unwrap();
    std::fs::rename(place.path("gone"), place.path("etc")).unwrap();
    let scan = place.scan();
    assert!(scan.is_complete());
    assert_eq!(names(&scan), ["a=1"]);
    // Emptied by hand: that is a deletion.
    std::fs::remove_file(place.path("etc/a.yaml")).unwrap();
    let scan = place.scan();
    assert!(scan.is_complete() && scan.declared.is_empty());
}

#[test]
fn a_scanner_that_is_told_what_was_there_misses_it_from_the_start() {
    let mut place = Place::new();
    place.write("etc/a.yaml", &map("a", "1"));
    place.scan();
    let held = place.scanner.held();
    assert_eq!(held.iter().map(|h| &h.path).collect::<Vec<_>>(), [&place.path("etc")]);
    let anew = |place: &Place, held: &[HeldLayer]| {
        let mut scanner = Scanner::new(place.scanner.layers().to_vec(), Limits::default(), Trust::default());
        scanner.expect(held);
        scanner
    };
    // As it was.
    assert!(anew(&place, &held).scan().is_complete());
    // Missing, and then another, empty one: what a mount leaves behind.
    std::fs::rename(place.path("etc"), place.path("gone")).unwrap();
    let scan = anew(&place, &held).scan();
    assert!(!scan.is_complete());
    assert_eq!(scan.incomplete_layers.into_iter().collect::<Vec<_>>(), [1]);
    std::fs::create_dir(place.path("etc")).unwrap();
    let mut scanner = anew(&place, &held);
    assert!(!scanner.scan().is_complete());
    scanner.accept_losses();
    assert!(scanner.scan().is_complete(), "it is meant to be gone");
    // Which directory it was is not known: only a missing one is a loss.
    let unknown = [HeldLayer { place: None, ..held[0].clone() }];
    assert!(anew(&place, &unknown).scan().is_complete());
    std::fs::remove_dir(place.path("etc")).unwrap();
    assert!(!anew(&place, &unknown).scan().is_complete());
    // Emptied while nobody looked: a deletion.
    std::fs::rename(place.path("gone"), place.path("etc")).unwrap();
    std::fs::remove_file(place.path("etc/a.yaml")).unwrap();
    let scan = anew(&place, &held).scan();
    assert!(scan.is_complete() && scan.declared.is_empty());
}

#[test]
fn an_empty_layer_may_come_and_go() {
    let mut place = Place::new();
    place.write("etc/a.yaml", &map("a", "1"));
    assert!(place.scan().is_complete());
    std::fs::remove_dir(place.path("lib")).unwrap();
    let scan = place.scan();
    assert!(scan.is_complete() && scan.diagnostics.is_empty(), "{:?}", scan.diagnostics);
}

#[test]
fn a_layer_that_never_was_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    let scan = Scanner::new(vec![directory.path().join("none")], Limits::default(), Trust::default()).scan();
    assert!(scan.is_complete() && scan.diagnostics.is_empty());
    put(&directory.path().join("file"), b"");
    let scan = Scanner::new(vec![directory.path().join("file")], Limits::default(), Trust::default()).scan();
    assert!(!scan.is_complete());
    assert!(scan.diagnostics[0].one_line().contains("this is not a directory"));
}

#[test]
fn half_written_and_empty_files_hold_what_was() {
    let mut place = Place::new();
    let whole = map("a", "1");
    place.write("etc/a.yaml", &whole);
    assert_eq!(names(&place.scan()), ["a=1"]);
    place.write("etc/a.yaml", "");
    let scan = place.scan();
    assert!(place.findings(&scan)[0].contains("the file is empty"));
    assert!(scan.held_sources.iter().any(|s| s.ends_with("etc/a.yaml")));
    place.write("etc/a.yaml", &whole[..30]);
    let scan = place.scan();
    assert!(!scan.held_sources.is_empty(), "{:?}", place.findings(&scan));
    place.write("etc/a.yaml", &whole);
    let scan = place.scan();
    assert_eq!(names(&scan), ["a=1"]);
    assert!(scan.held_sources.is_empty() && scan.diagnostics.is_empty());
}

#[test]
fn only_what_changed_is_read_again() {
    let mut place = Place::new();
    for i in 0..20 {
        place.write(&format!("etc/n{i}.yaml"), &map(&format!("n{i}"), "1"));
    }
    let mut last = place.scan();
    assert_eq!(last.read, 20);
    // Until the clock has moved on, another write could leave the same times, so the files are read again, and the scan says so.
    let scan = loop {
        let scan = place.scan();
        assert!(last.young || scan.read == 0, "{} files were read again unannounced", scan.read);
        if scan.read == 0 {
            break scan;
        }
        last = scan;
    };
    assert!(!scan.young);
    assert_eq!((scan.read, scan.changed), (0, false));
    place.write("etc/n3.yaml", &map("n3", "2"));
    let before = scan.declared[0].clone();
    let scan = place.scan();
    assert_eq!((scan.read, scan.changed), (1, true));
    assert!(std::sync::Arc::ptr_eq(&before, &scan.declared[0]), "what did not change is not parsed again");
    assert!(names(&scan).contains(&"n3=2".to_owned()));
    // Touched without another content: read, but nothing changed.
    place.write("etc/n3.yaml", &map("n3", "2"));
    let scan = place.scan();
    assert!(!scan.changed);
    assert_eq!(scan.declared.len(), 20);
}

#[test]
fn an_edit_of_the_same_size_and_mtime_is_seen() {
    let mut place = Place::new();
    place.write("etc/a.yaml", &map("a", "1"));
    let path = place.path("etc/a.yaml");
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    for value in ["2", "3", "4", "5"] {
        place.scan();
        put(&path, map("a", value).as_bytes());
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(names(&place.scan()), [format!("a={value}")]);
    }
}

#[test]
fn a_file_swapped_for_a_symlink_is_never_followed_out() {
    let mut place = Place::new();
    place.write("secret", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: stolen}\n");
    let (path, secret) = (place.path("etc/a.yaml"), place.path("secret"));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let stop = stop.clone();
        let aside = place.path("aside");
        move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                put(&aside, map("a", "1").as_bytes());
                std::fs::rename(&aside, &path).unwrap();
                symlink(&secret, &aside).unwrap();
                std::fs::rename(&aside, &path).unwrap();
            }
        }
    });
    for _ in 0..3000 {
        let scan = place.scan();
        assert!(scan.declared.iter().all(|d| d.object().name() == "a"));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    swapper.join().unwrap();
}
