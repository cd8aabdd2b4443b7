//! What a long list costs when it is read page by page; alone in its process, because it measures the process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

mod common;

use common::{Place, key};
use reddwarf_store::{ListOptions, Transaction};

/// B02: a hundred thousand objects (fewer in debug builds), a thousand a page.
#[test]
fn a_long_list_needs_the_memory_of_a_page() {
    const PAGES: usize = if cfg!(debug_assertions) { 15 } else { 100 };
    let place = Place::new();
    let store = place.open();
    for page in 0..PAGES {
        let mut t = Transaction::new("t", "fill");
        for n in 0..1000 {
            t = t.put(key(&format!("p/{:06}", (n * PAGES + page) % (PAGES * 1000))), vec![b'x'; 500]);
        }
        store.commit_blocking(t).unwrap();
    }
    let before = resident();
    let (mut most, mut seen, mut last, mut at) = (0, 0, None, None);
    loop {
        let page = store
            .list("p/", &ListOptions { at, limit: Some(1000), after: last.clone(), ..Default::default() })
            .unwrap();
        at = Some(page.revision);
        for entry in &page.entries {
            assert!(last.as_ref().is_none_or(|l| *l < entry.key), "in key order");
            last = Some(entry.key.clone());
            seen += 1;
        }
        most = most.max(resident());
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, PAGES * 1000);
    let grown = most.saturating_sub(before);
    assert!(grown < 12 << 20, "{grown} bytes");
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
