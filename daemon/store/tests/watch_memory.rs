//! What a watcher costs; alone in its process, because it measures the process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

mod common;

use common::{Place, key};
use reddwarf_store::{Revision, Transaction, Watch};

#[tokio::test]
async fn a_thousand_watchers_are_cheap() {
    let place = Place::new();
    let store = place.open();
    let before = resident();
    let mut watches: Vec<_> = (0..1000).map(|_| store.watch("p/", Revision::ZERO).unwrap()).collect();
    store.commit(Transaction::new("t", "t").put(key("p/a"), vec![1; 1000])).await.unwrap();
    for watch in &mut watches {
        assert_eq!(watch.next().await.unwrap().revision, Revision(1));
    }
    let each = resident().saturating_sub(before) / 1000;
    assert!(each <= 8 << 10, "{each} bytes a watcher");
    assert!(std::mem::size_of::<Watch>() < 512);
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
