//! Reading and writing: revisions, compare-and-swap, no-ops, lists of a snapshot, history.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

mod common;

use common::{HandClock, Place, key, options};
use reddwarf_store::{
    CommitError, Expect, Found, Key, ListOptions, Op, Revision, StoreError, StoreOptions, Transaction,
};

fn tx() -> Transaction {
    Transaction::new("api:alice", "test")
}

#[tokio::test]
async fn a_value_carries_the_revision_of_its_own_commit() {
    // U5, U6: reads used to give an old or random version.
    let place = Place::new();
    let store = place.open();
    let first = store.commit(tx().create(key("a/x"), "1")).await.unwrap();
    assert_eq!((first.revision, first.changed), (Revision(1), true));
    let second = store.commit(tx().replace(key("a/x"), first.revision, "2")).await.unwrap();
    let entry = store.get(&key("a/x")).unwrap().unwrap();
    assert_eq!((entry.created, entry.modified, entry.version), (first.revision, second.revision, 2));
    assert_eq!(&entry.value[..], b"2");
    assert_eq!(store.list("a/", &ListOptions::default()).unwrap().revision, second.revision);
    assert_eq!(store.get(&key("a/nothing")).unwrap(), None);
}

#[tokio::test]
async fn revisions_go_on_after_a_restart() {
    let place = Place::new();
    let mut last = Revision::ZERO;
    for n in 0..3 {
        let store = place.open();
        assert_eq!(store.revision(), last);
        let done = store.commit(tx().put(key("a"), format!("{n}"))).await.unwrap();
        assert!(done.revision > last);
        last = done.revision;
    }
}

#[tokio::test]
async fn stale_writes_conflict_and_say_what_was_found() {
    let place = Place::new();
    let store = place.open();
    store.commit(tx().create(key("a"), "1")).await.unwrap();
    let now = store.commit(tx().put(key("a"), "2")).await.unwrap().revision;
    let stale = store.commit(tx().replace(key("a"), Revision(1), "3")).await.unwrap_err();
    assert!(matches!(stale, CommitError::Conflict { found: Found::AtRevision(r), .. } if r == now), "{stale}");
    let twice = store.commit(tx().create(key("a"), "3")).await.unwrap_err();
    assert!(matches!(twice, CommitError::Conflict { expected: Expect::Absent, .. }));
    let gone = store.commit(tx().expect(key("b"), Expect::Exists).put(key("a"), "3")).await.unwrap_err();
    assert!(matches!(gone, CommitError::Conflict { found: Found::Absent, .. }));
    assert!(!gone.is_transient());
    assert_eq!(store.revision(), now);
}

#[tokio::test]
async fn a_transaction_happens_whole_or_not_at_all() {
    let place = Place::new();
    let store = place.open();
    let both = tx().create(key("pod/a"), "1").create(key("reserve/ip"), "a");
    let done = store.commit(both).await.unwrap();
    let refused = tx().put(key("pod/b"), "1").create(key("reserve/ip"), "b");
    assert!(store.commit(refused).await.is_err());
    assert_eq!(store.get(&key("pod/b")).unwrap(), None);
    let commits = store.commits(Revision(1)..=store.revision(), 10).unwrap();
    assert_eq!(commits.len(), 1);
    assert_eq!(
        (commits[0].revision, commits[0].changes.len(), commits[0].author.as_str()),
        (done.revision, 2, "api:alice")
    );
}

#[tokio::test]
async fn a_write_that_changes_nothing_makes_no_revision() {
    let place = Place::new();
    let store = place.open();
    let at = store.commit(tx().create(key("a"), "same")).await.unwrap().revision;
    let mut watch = store.watch("", at).unwrap();
    for _ in 0..100 {
        let again = store.commit(tx().put(key("a"), "same").delete(key("absent"))).await.unwrap();
        assert_eq!((again.revision, again.changed), (at, false));
    }
    assert_eq!(store.revision(), at);
    assert_eq!(watch.try_next().unwrap(), None);
    assert_eq!(store.stats().history_commits, 1);
}

#[tokio::test]
async fn senseless_transactions_are_refused() {
    let place = Place::new();
    let store = place.open_with(StoreOptions { max_value: 10, ..options() });
    let twice = store.commit(tx().put(key("a"), "1").delete(key("a"))).await.unwrap_err();
    assert_eq!(twice.to_string(), "invalid transaction: a is written twice");
    let large = store.commit(tx().put(key("a"), vec![0; 11])).await.unwrap_err();
    assert_eq!(large.to_string(), "invalid transaction: a: 11 bytes are more than the 10 allowed");
    for bad in ["", "a//b", "/a", "a/", "a\nb"] {
        assert!(Key::new(bad).is_err(), "{bad:?}");
    }
    assert!(Key::from_segments(&["k8s", "org/evil", "x"]).is_err());
    assert_eq!(Key::from_segments(&["k8s", "-", "pods"]).unwrap().as_str(), "k8s/-/pods");
}

#[tokio::test]
async fn pages_of_a_list_are_one_snapshot() {
    let place = Place::new();
    let store = place.open();
    let mut all = tx();
    for n in 0..25 {
        all = all.put(key(&format!("p/{n:02}")), "old");
    }
    store.commit(all.put(key("q/other"), "x")).await.unwrap();
    let first = store.list("p/", &ListOptions { limit: Some(10), ..Default::default() }).unwrap();
    assert!(first.more);
    // Changes between the pages are not seen by the later pages.
    store.commit(tx().put(key("p/12"), "new").delete(key("p/13")).put(key("p/12a"), "new")).await.unwrap();
    store.commit(tx().put(key("p/13"), "again").delete(key("p/24"))).await.unwrap();
    let mut seen: Vec<_> = first.entries.clone();
    let mut page = first.clone();
    while page.more {
        let after = page.entries.last().map(|e| e.key.clone());
        let next = ListOptions { at: Some(first.revision), limit: Some(10), after, ..Default::default() };
        page = store.list("p/", &next).unwrap();
        assert_eq!(page.revision, first.revision);
        seen.extend(page.entries.clone());
    }
    let names: Vec<_> = seen.iter().map(|e| e.key.to_string()).collect();
    assert_eq!(names, (0..25).map(|n| format!("p/{n:02}")).collect::<Vec<_>>());
    assert!(seen.iter().all(|e| &e.value[..] == b"old"));
    assert_eq!(store.count("p/").unwrap(), 25);
    assert_eq!(store.count("").unwrap(), 26);
    assert_eq!(store.list("p/9", &ListOptions { after: Some(key("q/z")), ..Default::default() }).unwrap().entries, []);
}

#[tokio::test]
async fn history_of_an_object_can_be_walked() {
    // B03: create, 5 updates, delete, create again.
    let place = Place::new();
    let clock = HandClock::new();
    let store = place.open_with(StoreOptions::new(clock.clock()));
    let object = key("a/x");
    store.commit(Transaction::new("file:/etc/x.yaml", "declared").create(object.clone(), "v0")).await.unwrap();
    for n in 1..=5 {
        clock.advance(60);
        store.commit(tx().put(key("noise"), format!("{n}"))).await.unwrap();
        store.commit(tx().put(object.clone(), format!("v{n}"))).await.unwrap();
    }
    let deleted = store.commit(tx().delete(object.clone())).await.unwrap().revision;
    store.commit(tx().create(object.clone(), "back")).await.unwrap();

    let walk = store.history(&object, 100).unwrap();
    assert_eq!(walk.len(), 8);
    assert_eq!(walk[0].parents, [deleted]);
    assert_eq!((walk[1].op, walk[1].value.clone(), walk[1].revision), (Op::Delete, None, deleted));
    for pair in walk.windows(2) {
        assert_eq!(pair[0].parents, [pair[1].revision]);
        assert!(pair[0].time >= pair[1].time);
    }
    let oldest = walk.last().unwrap();
    assert_eq!((oldest.parents.len(), oldest.author.as_str()), (0, "file:/etc/x.yaml"));
    assert_eq!(oldest.value.as_deref(), Some(&b"v0"[..]));
    for commit in &walk {
        assert_eq!(store.get_at(&object, commit.revision).unwrap().map(|e| e.value), commit.value);
    }
    assert_eq!(store.history(&object, 2).unwrap().len(), 2);
    let future = store.get_at(&object, Revision(999)).unwrap_err();
    assert!(matches!(future, StoreError::Future { .. }));
}

#[tokio::test]
async fn thirty_two_writers_increment_one_counter() {
    let place = Place::new();
    let store = place.open();
    store.commit(tx().create(key("n"), "0")).await.unwrap();
    let writers: Vec<_> = (0..32)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    loop {
                        let now = store.get(&key("n")).unwrap().unwrap();
                        let n: u64 = std::str::from_utf8(&now.value).unwrap().parse().unwrap();
                        match store.commit(tx().replace(key("n"), now.modified, (n + 1).to_string())).await {
                            Ok(_) => break,
                            Err(CommitError::Conflict { .. }) => {}
                            Err(e) => panic!("{e}"),
                        }
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let end = store.get(&key("n")).unwrap().unwrap();
    assert_eq!(&end.value[..], b"320");
    assert_eq!(end.version, 321);
}

#[tokio::test]
async fn concurrent_writers_share_a_sync() {
    let place = Place::new();
    let store = place.open();
    let all = (0..200).map(|n| {
        let store = store.clone();
        async move { store.commit(tx().create(key(&format!("a/{n}")), "x")).await.unwrap().revision }
    });
    let mut revisions: Vec<_> = futures_util::future::join_all(all).await;
    revisions.sort();
    revisions.dedup();
    assert_eq!(revisions.len(), 200);
    let stats = store.stats();
    assert_eq!(stats.commits, 200);
    assert!(stats.batches < 20, "{stats:?}");
}

#[tokio::test]
async fn a_full_queue_makes_writers_wait_not_fail() {
    let place = Place::new();
    let store = place.open_with(StoreOptions { queue: 2, ..options() });
    let all = (0..50).map(|n| store.commit(tx().create(key(&format!("a/{n}")), "x")));
    for done in futures_util::future::join_all(all).await {
        done.unwrap();
    }
    assert_eq!(store.count("a/").unwrap(), 50);
}

#[tokio::test]
async fn a_request_costs_one_commit_or_one_read() {
    // B13: counted, not believed.
    let place = Place::new();
    let store = place.open();
    store.commit(tx().create(key("a"), "1").create(key("b"), "1")).await.unwrap();
    let before = store.stats();
    store.get(&key("a")).unwrap();
    store.list("", &ListOptions::default()).unwrap();
    store.commit(tx().put(key("a"), "2").delete(key("b"))).await.unwrap();
    let after = store.stats();
    assert_eq!((after.reads - before.reads, after.batches - before.batches), (2, 1));
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let place = Place::new();
    let store = place.open();
    let mut watch = store.watch("", Revision::ZERO).unwrap();
    let other = store.clone();
    store.close().await;
    assert!(matches!(other.get(&key("a")), Err(StoreError::Closed)));
    assert!(matches!(other.commit(tx().put(key("a"), "1")).await, Err(CommitError::Closed)));
    assert!(watch.next().await.is_err());
    // The file is free again although handles and watches are left.
    place.open();
}

#[tokio::test]
async fn a_prefix_is_touched_by_what_changes_below_it_only() {
    let place = Place::new();
    let store = place.open();
    store.commit(tx().create(key("a/x"), "1")).await.unwrap();
    let before = store.touched("a/").unwrap();
    store.commit(tx().create(key("b/x"), "1")).await.unwrap();
    assert_eq!(store.touched("a/").unwrap(), before);
    for change in [tx().put(key("a/x"), "2"), tx().create(key("a/y/z"), "1"), tx().delete(key("a/x"))] {
        let done = store.commit(change).await.unwrap();
        assert_eq!(store.touched("a/").unwrap(), done.revision);
    }
    assert_eq!(store.count("a/").unwrap(), 1);
    let nothing = store.commit(tx().put(key("a/y/z"), "1")).await.unwrap();
    assert!(!nothing.changed && store.touched("a/").unwrap() <= nothing.revision);
}
