//! Disks that are full, broken, or lose power.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

mod common;
#[path = "common/disk.rs"]
mod disk;

use common::{Place, key, options};
use disk::{Disk, Mood};
use reddwarf_store::{CommitError, ListOptions, Revision, Store, StoreOptions, Transaction};

fn tx() -> Transaction {
    Transaction::new("t", "t")
}

fn on(disk: &Disk) -> StoreOptions {
    StoreOptions { backend: Some(disk.factory()), ..options() }
}

/// F7, F8: the commit fails with a clear, transient error; nothing acknowledged is lost; the store goes on by itself.
#[tokio::test]
async fn the_store_goes_on_when_the_disk_does() {
    let moods = [
        Mood::NoWrites(libc::ENOSPC),
        Mood::NoWrites(libc::EROFS),
        Mood::NoSync(libc::EIO),
        Mood::NoSync(libc::ENOSPC),
        Mood::Dead(libc::EIO),
    ];
    for mood in moods {
        let (place, disk) = (Place::new(), Disk::new(1));
        let store = place.open_with(on(&disk));
        let before = store.commit(tx().put(key("a"), "1")).await.unwrap().revision;
        let mut watch = store.watch("", Revision::ZERO).unwrap();
        disk.set(mood);
        for _ in 0..3 {
            let failed = store.commit(tx().put(key("b"), vec![1; 5000])).await.unwrap_err();
            assert!(matches!(failed, CommitError::Disk(_)) && failed.is_transient(), "{mood:?}: {failed}");
            assert!(failed.to_string().starts_with("the write could not be made durable: can't "), "{failed}");
        }
        disk.set(Mood::Well);
        assert_eq!(&store.get(&key("a")).unwrap().unwrap().value[..], b"1", "{mood:?}");
        let after = store.commit(tx().put(key("c"), "3")).await.unwrap();
        assert!(after.revision > before);
        // The watcher sees exactly what there is, whether or not a failed write landed.
        let mut seen = Vec::new();
        while let Some(change) = watch.try_next().unwrap() {
            seen.push(change.key.to_string());
        }
        seen.sort();
        let there = store.list("", &ListOptions::default()).unwrap();
        assert_eq!(seen, there.entries.iter().map(|e| e.key.to_string()).collect::<Vec<_>>(), "{mood:?}");
        assert!(store.stats().failures == 3);
        drop((store, watch));
        assert!(place.open_with(on(&disk)).get(&key("c")).unwrap().is_some());
    }
}

/// A commit leaves nothing that later reads would have to look through, and write, to make room in the cache.
#[tokio::test]
async fn reading_writes_nothing() {
    let (place, disk) = (Place::new(), Disk::new(3));
    let store = place.open_with(StoreOptions { cache_bytes: 64 << 10, ..on(&disk) });
    for n in 0..40 {
        store.commit(tx().put(key(&format!("k/{n:02}")), vec![0; 3000])).await.unwrap();
        assert_eq!(disk.unsynced_writes(), 0, "after commit {n}");
    }
    assert_eq!(store.list("k/", &ListOptions::default()).unwrap().entries.len(), 40);
    assert_eq!(disk.unsynced_writes(), 0, "after a list of more than the cache holds");
}

/// Two keys that always change together.
fn pair(n: u64) -> Transaction {
    tx().put(key("x"), n.to_string()).put(key("y"), n.to_string()).put(key(&format!("log/{n:03}")), vec![0; 700])
}

/// F5: power is cut in sync N, for every N of a scenario, with a random part of that sync's writes on the platter.
#[test]
fn acknowledged_writes_survive_a_power_cut_at_every_sync() {
    let total = {
        let (place, disk) = (Place::new(), Disk::new(0));
        let opened = Store::open(place.path(), short(&disk)).unwrap();
        assert_eq!(scenario(&opened.store), 25);
        drop(opened);
        disk.get().syncs
    };
    assert!(total >= 25);
    for cut in 0..total {
        for seed in 0..3 {
            power_cut(cut, seed);
        }
    }
}

/// With so little history that every few commits compact.
fn short(disk: &Disk) -> StoreOptions {
    StoreOptions { history_commits: 5, ..on(disk) }
}

/// Writes, with the file's pages moved together in between; gives how many writes were acknowledged.
fn scenario(store: &Store) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for n in 1..=25 {
        if let Err(e) = store.commit_blocking(pair(n)) {
            assert!(e.is_transient(), "{e}");
            return n - 1;
        }
        if n.is_multiple_of(10) && runtime.block_on(store.shrink()).is_err() {
            return n;
        }
    }
    25
}

fn power_cut(cut: u64, seed: u64) {
    let (place, disk) = (Place::new(), Disk::new(cut * 31 + seed));
    disk.get().cut_after = Some(cut);
    let acknowledged = Store::open(place.path(), short(&disk)).map_or(0, |opened| scenario(&opened.store));
    // The next boot, on what reached the platter.
    let opened = Store::open(place.path(), options()).unwrap();
    assert_eq!(opened.recovery, None, "cut {cut} seed {seed}");
    let store = opened.store;
    let number = |k: &str| -> u64 {
        store.get(&key(k)).unwrap().map_or(0, |e| std::str::from_utf8(&e.value).unwrap().parse().unwrap())
    };
    let (x, y) = (number("x"), number("y"));
    assert_eq!(x, y, "cut {cut} seed {seed}: half a transaction");
    assert!(x == acknowledged || x == acknowledged + 1, "cut {cut} seed {seed}: {x} of {acknowledged}");
    assert_eq!((store.revision(), store.count("log/").unwrap()), (Revision(x), x));
    assert_eq!(store.commit_blocking(pair(99)).unwrap().revision, Revision(x + 1));
}
