//! Opening what is there: nothing, damage, newer formats, somebody else's lock; backup and restore.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

mod common;

use common::{Place, key, names, options};
use reddwarf_store::{ListOptions, Revision, Store, StoreError, Transaction, WatchError};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn tx() -> Transaction {
    Transaction::new("t", "t")
}

/// A closed store with `n` values; gives its bytes.
fn filled(place: &Place, n: usize) -> Vec<u8> {
    let store = place.open();
    for i in 0..n {
        store.commit_blocking(tx().put(key(&format!("a/{i:04}")), vec![7; 300])).unwrap();
    }
    drop(store);
    fs::read(place.path()).unwrap()
}

#[test]
fn a_new_store_is_private_and_leaves_nothing_beside_it() {
    let place = Place::new();
    let store = place.open();
    assert_eq!(fs::metadata(place.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(place.names(), ["store.redb", "store.redb.lock"]);
    assert_eq!(store.revision(), Revision::ZERO);
}

/// F9, I10: whatever the bytes are, the daemon starts, nothing is thrown away, and it is said.
#[test]
fn a_damaged_file_is_moved_aside_and_reported() {
    let place = Place::new();
    let good = filled(&place, 200);
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("garbage", (0..50_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()),
        ("text", b"apiVersion: v1\n".to_vec()),
        ("zeroed", vec![0; good.len()]),
        ("cut to a half", good[..good.len() / 2].to_vec()),
        ("cut to 100 bytes", good[..100].to_vec()),
        ("cut by one page", good[..good.len() - 4096].to_vec()),
    ];
    let mut holed = good.clone();
    holed[4096..].iter_mut().skip(4096).step_by(512).for_each(|b| *b ^= 0x55);
    cases.push(("flipped bits", holed));
    let mut head = good.clone();
    head[..512].fill(0);
    cases.push(("zeroed header", head));
    for (name, bytes) in cases {
        let place = Place::new();
        fs::write(place.path(), &bytes).unwrap();
        let opened = Store::open(place.path(), options()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let recovery = opened.recovery.unwrap_or_else(|| panic!("{name}: not reported"));
        assert_eq!(fs::read(&recovery.moved_to).unwrap(), bytes, "{name}: the evidence is kept");
        assert_eq!(recovery.moved_to.file_name().unwrap(), "store.redb.corrupt-20231114T221320Z");
        assert!(!recovery.why.is_empty());
        assert_eq!(opened.store.list("", &ListOptions::default()).unwrap().entries, []);
        // Old clients' revisions must not mean something else now.
        assert!(matches!(opened.store.watch("", Revision(150)), Err(WatchError::Compacted { .. })), "{name}");
        let next = opened.store.commit_blocking(tx().put(key("a"), "1")).unwrap().revision;
        assert!(next > Revision(1_700_000_000_000));
        drop(opened.store);
        assert_eq!(place.open().revision(), next);
    }
}

/// Damage anywhere: a byte of the file changed at random never stops the start, and never goes unnoticed.
#[test]
fn one_changed_byte_is_survived_wherever_it_is() {
    let place = Place::new();
    let good = filled(&place, 60);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..60 {
        let place = Place::new();
        let mut bytes = good.clone();
        let at = random.usize(..bytes.len());
        bytes[at] ^= 1 << random.u8(..8);
        fs::write(place.path(), &bytes).unwrap();
        let opened = Store::open(place.path(), options()).unwrap_or_else(|e| panic!("byte {at}: {e}"));
        if opened.recovery.is_none() {
            let page = opened.store.list("a/", &ListOptions::default()).unwrap();
            assert!(page.entries.iter().all(|e| e.value[..] == [7; 300]), "byte {at} changed a value silently");
        }
        opened.store.commit_blocking(tx().put(key("b"), "1")).unwrap();
    }
}

#[test]
fn a_file_in_use_is_refused_with_its_holder_and_not_touched() {
    let place = Place::new();
    let store = place.open();
    store.commit_blocking(tx().put(key("a"), "1")).unwrap();
    let refused = Store::open(place.path(), options()).unwrap_err();
    let me = std::process::id();
    assert!(matches!(&refused, StoreError::Locked { .. }));
    assert!(refused.to_string().contains(&format!("is in use by process {me} (")), "{refused}");
    assert_eq!(place.names(), ["store.redb", "store.redb.lock"]);
    drop(store);
    assert!(place.open().get(&key("a")).unwrap().is_some());
}

fn set_format(path: &Path, format: u64) {
    let database = redb::Database::open(path).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap().insert("format", format).unwrap();
    txn.commit().unwrap();
}

#[test]
fn a_newer_format_is_refused_and_kept() {
    let place = Place::new();
    filled(&place, 3);
    set_format(&place.path(), 99);
    let refused = Store::open(place.path(), options()).unwrap_err();
    let want = format!(
        "{} has store format 99, this version knows up to 1; install the newer version again or restore a backup",
        place.path().display()
    );
    assert_eq!(refused.to_string(), want);
    assert_eq!(place.names(), ["store.redb", "store.redb.lock"]);
    set_format(&place.path(), 1);
    assert_eq!(place.open().count("").unwrap(), 3);
}

#[test]
fn leftovers_of_interrupted_work_are_cleared() {
    let place = Place::new();
    filled(&place, 1);
    for suffix in ["new", "migrating", "restoring"] {
        fs::write(place.dir.path().join(format!("store.redb.{suffix}")), "x").unwrap();
    }
    place.open();
    assert_eq!(place.names(), ["store.redb", "store.redb.lock"]);
}

#[tokio::test]
async fn a_backup_is_consistent_and_never_overwrites() {
    let place = Place::new();
    let store = place.open();
    store.commit(tx().put(key("a"), "0").put(key("b"), "0")).await.unwrap();
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 1..200 {
                store.commit(tx().put(key("a"), n.to_string()).put(key("b"), n.to_string())).await.unwrap();
            }
        })
    };
    let to = place.dir.path().join("backups.redb");
    let revision = store.backup(&to).await.unwrap();
    writer.await.unwrap();
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
    let refused = store.backup(&to).await.unwrap_err();
    assert!(matches!(refused, StoreError::Exists { .. }), "{refused}");
    assert_eq!(names(place.dir.path()), ["backups.redb", "store.redb", "store.redb.lock"]);

    let copy = Store::open(&to, options()).unwrap();
    assert_eq!(copy.recovery, None);
    assert_eq!(copy.store.revision(), revision);
    let value = |k: &str| copy.store.get(&key(k)).unwrap().unwrap().value;
    assert_eq!(value("a"), value("b"));
}

#[tokio::test]
async fn restoring_an_open_store_goes_on_in_a_new_revision() {
    // F11: the backup is older than what clients have seen.
    let place = Place::new();
    let store = place.open();
    store.commit(tx().put(key("a"), "backed up")).await.unwrap();
    let backup = place.dir.path().join("backup");
    store.backup(&backup).await.unwrap();
    for n in 0..10 {
        store.commit(tx().put(key("a"), format!("later {n}"))).await.unwrap();
    }
    let seen = store.revision();
    let mut watch = store.watch("", seen).unwrap();

    let aside = store.restore_from(&backup).await.unwrap();
    assert!(aside.exists());
    assert!(store.revision() > seen);
    assert_eq!(&store.get(&key("a")).unwrap().unwrap().value[..], b"backed up");
    assert!(matches!(watch.next().await, Err(WatchError::Compacted { .. })), "watchers are told");
    assert!(matches!(store.get_at(&key("a"), seen), Err(StoreError::Compacted { .. })));
    let mut fresh = store.watch("", store.revision()).unwrap();
    let done = store.commit(tx().put(key("a"), "after")).await.unwrap();
    assert_eq!(fresh.next().await.unwrap().revision, done.revision);
    drop((store, watch, fresh));
    assert_eq!(place.open().revision(), done.revision);

    // Nonsense is refused and changes nothing.
    let store = place.open();
    fs::write(&backup, "nonsense").unwrap();
    let refused = store.restore_from(&backup).await.unwrap_err();
    assert!(matches!(refused, StoreError::Invalid { .. }), "{refused}");
    assert_eq!(&store.get(&key("a")).unwrap().unwrap().value[..], b"after");
    assert!(!place.names().iter().any(|n| n.ends_with(".restoring")));
}

#[tokio::test]
async fn restoring_a_closed_store_keeps_the_old_file() {
    let place = Place::new();
    let store = place.open();
    let first = store.commit(tx().put(key("a"), "1")).await.unwrap().revision;
    let backup = place.dir.path().join("backup");
    store.backup(&backup).await.unwrap();
    let last = store.commit(tx().put(key("a"), "2")).await.unwrap().revision;
    assert!(matches!(Store::restore(&backup, &place.path(), &options()), Err(StoreError::Locked { .. })));
    drop(store);
    let aside = Store::restore(&backup, &place.path(), &options()).unwrap().unwrap();
    let store = place.open();
    assert!(store.revision() > last && last > first);
    assert_eq!(&store.get(&key("a")).unwrap().unwrap().value[..], b"1");
    assert_eq!(&Store::open(aside, options()).unwrap().store.get(&key("a")).unwrap().unwrap().value[..], b"2");
    let elsewhere = place.dir.path().join("new").join("s");
    fs::create_dir(elsewhere.parent().unwrap()).unwrap();
    assert_eq!(Store::restore(&backup, &elsewhere, &options()).unwrap(), None);
    assert_eq!(Store::open(elsewhere, options()).unwrap().store.count("").unwrap(), 1);
}

/// F10: deleted while running.
#[tokio::test]
async fn a_deleted_file_is_written_again() {
    let place = Place::new();
    let store = place.open();
    store.commit(tx().put(key("a"), "1")).await.unwrap();
    let mut watch = store.watch("", Revision::ZERO).unwrap();
    fs::remove_file(place.path()).unwrap();
    assert_eq!(&store.get(&key("a")).unwrap().unwrap().value[..], b"1");
    store.commit(tx().put(key("b"), "2")).await.unwrap();
    fs::write(place.path(), "somebody else's").unwrap();
    fs::remove_file(place.path()).unwrap();
    fs::write(place.path(), "somebody else's").unwrap();
    store.commit(tx().put(key("c"), "3")).await.unwrap();
    for revision in 1..=3 {
        assert_eq!(watch.next().await.unwrap().revision, Revision(revision));
    }
    drop((store, watch));
    let store = place.open();
    assert_eq!(store.count("").unwrap(), 3);
    assert!(place.names().iter().any(|n| n.contains(".foreign-")));
}
