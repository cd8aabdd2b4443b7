//! Watches: replay, live, grouping, falling behind, compaction.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

mod common;

use common::{HandClock, Place, key, options};
use reddwarf_store::{Change, ListOptions, Op, Revision, Store, StoreOptions, Transaction, Watch, WatchError};
use std::collections::BTreeMap;
use std::time::Duration;

fn tx() -> Transaction {
    Transaction::new("t", "t")
}

fn drain(watch: &mut Watch) -> Vec<Change> {
    std::iter::from_fn(|| watch.try_next().unwrap()).collect()
}

#[tokio::test]
async fn a_watch_replays_and_then_follows() {
    let place = Place::new();
    let store = place.open();
    store.commit(tx().create(key("p/a"), "1").create(key("q/a"), "1")).await.unwrap();
    store.commit(tx().put(key("p/a"), "2")).await.unwrap();
    store.commit(tx().delete(key("p/a"))).await.unwrap();
    drop(store);
    // After a restart all comes from history.
    let store = place.open();
    let mut watch = store.watch("p/", Revision::ZERO).unwrap();
    let old = drain(&mut watch);
    let brief: Vec<_> =
        old.iter().map(|c| (c.revision.0, c.op, c.value.clone(), c.previous.clone(), c.created.0)).collect();
    assert_eq!(
        brief,
        [
            (1, Op::Put, Some("1".into()), None, 1),
            (2, Op::Put, Some("2".into()), Some("1".into()), 1),
            (3, Op::Delete, None, Some("2".into()), 1),
        ]
    );
    assert!(old.iter().all(|c| c.last));
    store.commit(tx().create(key("p/b"), "live")).await.unwrap();
    let live = watch.next().await.unwrap();
    assert_eq!((live.revision, live.created, &live.value.unwrap()[..]), (Revision(4), Revision(4), &b"live"[..]));
}

/// What was listed can be followed, also when the list shows a commit of which watchers are being told just then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_list_can_be_followed_while_others_write() {
    let place = Place::new();
    let store = std::sync::Arc::new(place.open());
    let readers = store.clone();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ended = done.clone();
    let follower = std::thread::spawn(move || {
        let mut last = None;
        while !ended.load(std::sync::atomic::Ordering::Relaxed) {
            let page = readers.list("p/", &ListOptions::default()).unwrap();
            last = Some((page.revision, readers.watch("p/", page.revision).unwrap()));
        }
        last
    });
    for n in 0..500u16 {
        store.commit(tx().put(key("p/a"), n.to_string())).await.unwrap();
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let (after, mut watch) = follower.join().unwrap().unwrap();
    store.commit(tx().put(key("p/a"), "end")).await.unwrap();
    let told = drain(&mut watch);
    assert!(told.iter().all(|change| change.revision > after), "nothing twice");
    assert_eq!(told.last().unwrap().value.as_deref(), Some(&b"end"[..]));
}

#[tokio::test]
async fn history_and_the_live_buffer_tell_the_same() {
    let place = Place::new();
    let store = place.open();
    let mut live = store.watch("p/", Revision::ZERO).unwrap();
    for n in 0..60u8 {
        let mut t = tx();
        for k in 0..(n % 4) {
            let k = key(&format!("p/{}", (n + k) % 7));
            t = if (n + k.as_str().len() as u8 + n / 3).is_multiple_of(3) { t.delete(k) } else { t.put(k, vec![n]) };
        }
        store.commit(t.put(key("other"), vec![n])).await.unwrap();
    }
    let seen = drain(&mut live);
    assert!(seen.len() > 30);
    drop((live, store));
    let store = place.open();
    let mut replayed = store.watch("p/", Revision::ZERO).unwrap();
    assert_eq!(drain(&mut replayed), seen);
    assert_eq!(replayed.revision(), store.revision());
}

#[tokio::test]
async fn changes_of_one_commit_stay_together() {
    let place = Place::new();
    let store = place.open();
    let mut watch = store.watch("p/", Revision::ZERO).unwrap();
    store.commit(tx().put(key("p/a"), "1").put(key("q"), "1").put(key("p/b"), "1")).await.unwrap();
    let first = watch.next().await.unwrap();
    assert!(!first.last);
    assert_eq!(watch.revision(), Revision::ZERO, "half of a commit is not a bookmark");
    let second = watch.next().await.unwrap();
    assert!(second.last);
    assert_eq!(watch.revision(), Revision(1));
}

#[tokio::test]
async fn a_bookmark_moves_on_with_other_prefixes() {
    let place = Place::new();
    let store = place.open();
    let mut watch = store.watch("p/", Revision::ZERO).unwrap();
    store.commit(tx().put(key("q"), "1")).await.unwrap();
    assert_eq!(watch.try_next().unwrap(), None);
    assert_eq!(watch.revision(), store.revision());
}

#[tokio::test]
async fn a_waiting_watch_wakes_up() {
    let place = Place::new();
    let store = place.open();
    let mut watch = store.watch("", Revision::ZERO).unwrap();
    let waiter = tokio::spawn(async move { watch.next().await });
    store.commit(tx().put(key("a"), "1")).await.unwrap();
    let change = tokio::time::timeout(Duration::from_secs(10), waiter).await.unwrap().unwrap().unwrap();
    assert_eq!(change.revision, Revision(1));
}

#[tokio::test]
async fn too_far_behind_is_said_and_never_skipped() {
    let place = Place::new();
    let store = place.open_with(StoreOptions { recent_bytes: 1, ..options() });
    let mut slow = store.watch("", Revision::ZERO).unwrap();
    for n in 0..20 {
        store.commit(tx().put(key("a"), format!("{n}"))).await.unwrap();
    }
    assert_eq!(slow.next().await.unwrap().revision, Revision(1), "history takes over from the buffer");
    // What it took in from history is its own; after that it is behind.
    store.compact(Revision(15)).await.unwrap();
    let mut last = 1;
    let late = store.watch("", Revision(14)).unwrap_err();
    assert!(matches!(late, WatchError::Compacted { floor: Revision(15), .. }), "{late}");
    assert!(matches!(store.watch("", Revision(21)), Err(WatchError::Future { .. })));
    while let Some(change) = slow.try_next().unwrap() {
        assert_eq!(change.revision.0, last + 1);
        last = change.revision.0;
    }
    assert_eq!(last, 20);

    let mut stalled = store.watch("", store.revision()).unwrap();
    for n in 0..20 {
        store.commit(tx().put(key("a"), format!("again {n}"))).await.unwrap();
    }
    store.compact(Revision(30)).await.unwrap();
    let told = stalled.next().await.unwrap_err();
    assert_eq!(told.to_string(), "changes after 20 are compacted away, history starts after 30; list again");
}

/// B08/B09: many watchers, one of them stopping and resuming all the time, one stalled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watcher_sees_every_change_once_in_order() {
    let place = Place::new();
    let store = place.open_with(StoreOptions { recent_bytes: 4 << 10, ..options() });
    const WRITES: u64 = 2000;
    let mut watchers = Vec::new();
    for n in 0..50 {
        let store = store.clone();
        watchers.push(tokio::spawn(async move { follow(&store, n == 0, WRITES).await }));
    }
    let mut stalled = store.watch("p/", Revision::ZERO).unwrap();
    let writers = (0..16u64).map(|w| {
        let store = store.clone();
        async move {
            for n in 0..WRITES / 16 {
                store.commit(tx().put(key(&format!("p/{w}")), format!("{n}"))).await.unwrap();
            }
        }
    });
    futures_util::future::join_all(writers).await;
    for watcher in watchers {
        watcher.await.unwrap();
    }
    let late = drain(&mut stalled);
    assert_eq!(late.iter().map(|c| c.revision.0).collect::<Vec<_>>(), (1..=WRITES).collect::<Vec<_>>());
}

async fn follow(store: &Store, resume: bool, until: u64) {
    let mut watch = store.watch("p/", Revision::ZERO).unwrap();
    let mut next = 1;
    while next <= until {
        let change = watch.next().await.unwrap();
        assert_eq!(change.revision.0, next);
        next += 1;
        if resume {
            watch = store.watch("p/", change.revision).unwrap();
        }
    }
}

#[tokio::test]
async fn list_then_watch_leaves_no_gap() {
    let place = Place::new();
    let store = place.open();
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..300u32 {
                let k = key(&format!("p/{}", n % 10));
                let t = if n % 7 == 0 { tx().delete(k) } else { tx().put(k, n.to_string()) };
                store.commit(t).await.unwrap();
            }
        })
    };
    tokio::task::yield_now().await;
    let page = store.list("p/", &ListOptions::default()).unwrap();
    let mut view: BTreeMap<_, _> = page.entries.into_iter().map(|e| (e.key, e.value)).collect();
    let mut watch = store.watch("p/", page.revision).unwrap();
    writer.await.unwrap();
    for change in drain(&mut watch) {
        let before = match change.value {
            Some(value) => view.insert(change.key, value),
            None => view.remove(&change.key),
        };
        assert_eq!(before, change.previous);
    }
    let end = store.list("p/", &ListOptions::default()).unwrap().entries;
    assert_eq!(view, end.into_iter().map(|e| (e.key, e.value)).collect());
}

#[tokio::test]
async fn history_is_kept_by_count_age_and_bytes() {
    let place = Place::new();
    let clock = HandClock::new();
    let limits = StoreOptions {
        history_commits: 50,
        history_age: Duration::from_secs(3600),
        history_bytes: 64 << 10,
        ..StoreOptions::new(clock.clock())
    };
    let store = place.open_with(limits);
    for n in 0..200 {
        store.commit(tx().put(key("a"), n.to_string())).await.unwrap();
    }
    assert_eq!((store.stats().history_commits, store.compacted()), (50, Revision(150)));
    assert!(store.get_at(&key("a"), Revision(149)).is_err());
    assert_eq!(&store.get_at(&key("a"), Revision(150)).unwrap().unwrap().value[..], b"149");
    clock.advance(3601);
    store.commit(tx().put(key("a"), "late")).await.unwrap();
    assert_eq!(store.stats().history_commits, 31, "at most 20 a commit");
    for n in 0..20u8 {
        store.commit(tx().put(key("big"), vec![n; 10 << 10])).await.unwrap();
    }
    let stats = store.stats();
    assert!(stats.history_bytes <= 64 << 10 && stats.history_commits >= 4, "{stats:?}");
}

/// U7, B10: a heartbeat must not grow the file for ever, nor make a list slower.
#[tokio::test]
async fn u07_endless_updates_keep_the_file_bounded_and_lists_quick() {
    // A million in release builds.
    const ROUNDS: u32 = if cfg!(debug_assertions) { 100 } else { 2000 };
    let place = Place::new();
    let store = place.open_with(StoreOptions { history_commits: 1000, ..options() });
    let mut after_warm_up = 0;
    for round in 0..ROUNDS {
        let batch = (0..500u32).map(|n| {
            let value = vec![u8::try_from(n % 251).unwrap(); 500 + (round % 7) as usize];
            store.commit(tx().put(key(&format!("node/{}", n % 10)), value))
        });
        for done in futures_util::future::join_all(batch).await {
            done.unwrap();
        }
        if round == 20 {
            after_warm_up = store.stats().file_bytes;
        }
    }
    assert!(store.revision().0 >= u64::from(ROUNDS) * 450);
    let end = store.stats().file_bytes;
    // redb's file grows by doubling. Without compaction it would hold all rounds.
    assert!(end <= after_warm_up * 2, "{after_warm_up} -> {end}");
    assert_eq!(store.list("node/", &ListOptions::default()).unwrap().entries.len(), 10);
    store.compact(store.revision()).await.unwrap();
    store.shrink().await.unwrap();
    let shrunk = store.stats().file_bytes;
    assert!(shrunk < 2 << 20, "{shrunk}");
}

/// Counts how often it is woken.
#[derive(Default)]
struct Wakes(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Wakes {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

#[tokio::test]
async fn commits_elsewhere_neither_wake_nor_outdate_a_watcher() {
    let place = Place::new();
    let store = place.open_with(StoreOptions { recent_bytes: 1, ..options() });
    let wakes = std::sync::Arc::new(Wakes::default());
    let count = || wakes.0.load(std::sync::atomic::Ordering::SeqCst);
    let waker = std::task::Waker::from(wakes.clone());
    let mut context = std::task::Context::from_waker(&waker);
    let mut one = store.watch("k/a/web", Revision::ZERO).unwrap();
    let mut all = store.watch("", Revision::ZERO).unwrap();
    assert!(one.poll_next(&mut context).is_pending());
    for n in 0..50 {
        store.commit(tx().put(key("k/b/x"), n.to_string())).await.unwrap();
    }
    assert_eq!(count(), 0);
    assert_eq!(one.revision(), Revision(50), "bookmarks go on all the same");
    store.compact(Revision(50)).await.unwrap();
    store.commit(tx().put(key("k/a/other"), "1")).await.unwrap();
    assert_eq!(count(), 1, "the same place");
    assert!(one.poll_next(&mut context).is_pending());
    store.commit(tx().put(key("k/a/web"), "1").put(key("z"), "1")).await.unwrap();
    assert_eq!((count(), one.next().await.unwrap().revision), (2, Revision(52)), "not told that it is behind");
    assert!(matches!(all.next().await, Err(WatchError::Compacted { .. })), "who never looked is behind");
    let mut all = store.watch("", Revision(52)).unwrap();
    assert!(all.poll_next(&mut context).is_pending());
    store.commit(tx().put(key("z"), "2")).await.unwrap();
    assert_eq!(all.next().await.unwrap().key, key("z"));
    drop(store);
}
