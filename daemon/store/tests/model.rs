//! The store against a model that anybody can read: whatever is done in whatever order, both tell the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

mod common;

use common::{Place, key, options};
use proptest::prelude::*;
use reddwarf_store::{
    Change, CommitError, Expect, Key, ListOptions, Op, Revision, Store, StoreError, StoreOptions, Transaction, Watch,
    WatchError,
};
use std::collections::BTreeMap;

type Values = BTreeMap<Key, (Vec<u8>, u64)>;

/// The state after every revision, and what changed.
#[derive(Default)]
struct Model {
    states: BTreeMap<u64, Values>,
    changes: Vec<(u64, Key, Op, Option<Vec<u8>>)>,
    revision: u64,
    floor: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Commit { expect: Vec<(u8, Wanted)>, writes: Vec<(u8, Option<u8>)> },
    Compact(u64),
    Reopen,
    ReadAt(u64, u8),
    ListAt(u64),
    Poll(usize),
    Rewatch,
}

#[derive(Clone, Debug)]
enum Wanted {
    Absent,
    Exists,
    Any,
    Right,
    Wrong,
}

fn name(n: u8) -> Key {
    key(&format!("{}/{}", ["p", "p2", "q"][usize::from(n % 3)], n / 3))
}

impl Model {
    fn now(&self) -> Values {
        self.states.get(&self.revision).cloned().unwrap_or_default()
    }

    /// The transaction for a step and whether its expectations hold.
    fn transaction(&self, expect: &[(u8, Wanted)], writes: &[(u8, Option<u8>)]) -> (Transaction, bool) {
        let now = self.now();
        let mut t = Transaction::new("model", "step");
        let mut holds = true;
        for (n, wanted) in expect {
            let there = now.get(&name(*n)).map(|v| v.1);
            let (expect, ok) = match wanted {
                Wanted::Absent => (Expect::Absent, there.is_none()),
                Wanted::Exists => (Expect::Exists, there.is_some()),
                Wanted::Any => (Expect::Any, true),
                Wanted::Right => (Expect::AtRevision(Revision(there.unwrap_or(0))), there.is_some()),
                Wanted::Wrong => (Expect::AtRevision(Revision(there.unwrap_or(5) + 1)), false),
            };
            holds &= ok;
            t = t.expect(name(*n), expect);
        }
        for (n, value) in writes {
            t = match value {
                Some(value) => t.put(name(*n), vec![*value]),
                None => t.delete(name(*n)),
            };
        }
        (t, holds)
    }

    fn apply(&mut self, writes: &[(u8, Option<u8>)]) -> bool {
        let mut now = self.now();
        let next = self.revision + 1;
        let mut changes = Vec::new();
        for (n, value) in writes {
            let old = now.get(&name(*n)).map(|v| v.0.clone());
            match value {
                Some(v) if old.as_deref() != Some(&[*v][..]) => {
                    now.insert(name(*n), (vec![*v], next));
                    changes.push((next, name(*n), Op::Put, Some(vec![*v])));
                }
                None if old.is_some() => {
                    now.remove(&name(*n));
                    changes.push((next, name(*n), Op::Delete, None));
                }
                _ => {}
            }
        }
        if changes.is_empty() {
            return false;
        }
        self.revision = next;
        self.states.insert(next, now);
        self.changes.extend(changes);
        true
    }
}

struct Run {
    place: Place,
    store: Option<Store>,
    watch: Option<Watch>,
    seen: u64,
    model: Model,
    recent_bytes: usize,
}

impl Run {
    fn options(&self) -> StoreOptions {
        StoreOptions { recent_bytes: self.recent_bytes, ..options() }
    }

    fn store(&self) -> Store {
        self.store.clone().unwrap()
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Commit { expect, writes } => self.commit(expect, writes),
            Step::Compact(back) => {
                let before = self.model.revision.saturating_sub(*back);
                block_on(self.store().compact(Revision(before))).unwrap();
                self.model.floor = self.model.floor.max(before);
            }
            Step::Reopen => {
                self.watch = None;
                self.store = None;
                self.store = Some(self.place.open_with(self.options()));
                self.rewatch();
            }
            Step::ReadAt(back, n) => self.read_at(self.model.revision.saturating_sub(*back), *n),
            Step::ListAt(back) => self.list_at(self.model.revision.saturating_sub(*back)),
            Step::Poll(n) => self.poll(*n),
            Step::Rewatch => self.rewatch(),
        }
        let store = self.store();
        assert_eq!(store.revision(), Revision(self.model.revision));
        assert_eq!(store.compacted(), Revision(self.model.floor));
        assert_eq!(
            store.count("p/").unwrap(),
            self.model.now().keys().filter(|k| k.as_str().starts_with("p/")).count() as u64
        );
    }

    fn commit(&mut self, expect: &[(u8, Wanted)], writes: &[(u8, Option<u8>)]) {
        let mut unique: BTreeMap<u8, Option<u8>> = BTreeMap::new();
        unique.extend(writes.iter().copied());
        let writes: Vec<_> = unique.into_iter().collect();
        let (transaction, holds) = self.model.transaction(expect, &writes);
        match self.store().commit_blocking(transaction) {
            Ok(done) => {
                assert!(holds);
                let changed = self.model.apply(&writes);
                assert_eq!((done.changed, done.revision), (changed, Revision(self.model.revision)));
            }
            Err(CommitError::Conflict { .. }) => assert!(!holds),
            Err(e) => panic!("{e}"),
        }
    }

    fn read_at(&self, at: u64, n: u8) {
        match self.store().get_at(&name(n), Revision(at)) {
            Ok(entry) => {
                assert!(at >= self.model.floor);
                let want = self.model.states.get(&at).and_then(|s| s.get(&name(n))).cloned();
                assert_eq!(entry.map(|e| (e.value.to_vec(), e.modified.0)), want);
            }
            Err(StoreError::Compacted { .. }) => assert!(at < self.model.floor),
            Err(e) => panic!("{e}"),
        }
    }

    /// Page by page, two entries each.
    fn list_at(&self, at: u64) {
        let mut listed = Vec::new();
        let mut after = None;
        loop {
            let options =
                ListOptions { at: Some(Revision(at)), limit: Some(2), after: after.clone(), ..Default::default() };
            let page = match self.store().list("p", &options) {
                Ok(page) => page,
                Err(StoreError::Compacted { .. }) => return assert!(at < self.model.floor),
                Err(e) => panic!("{e}"),
            };
            after = page.entries.last().map(|e| e.key.clone());
            listed.extend(page.entries.into_iter().map(|e| (e.key, (e.value.to_vec(), e.modified.0))));
            if !page.more {
                break;
            }
        }
        let state = self.model.states.get(&at).cloned().unwrap_or_default();
        let want: Vec<_> = state.into_iter().filter(|(k, _)| k.as_str().starts_with('p')).collect();
        assert_eq!(listed, want);
    }

    fn rewatch(&mut self) {
        self.watch = match self.store().watch("p", Revision(self.seen)) {
            Ok(watch) => Some(watch),
            Err(WatchError::Compacted { .. }) => {
                assert!(self.seen < self.model.floor);
                self.seen = self.model.revision;
                Some(self.store().watch("p", Revision(self.seen)).unwrap())
            }
            Err(e) => panic!("{e}"),
        };
    }

    fn poll(&mut self, most: usize) {
        // Whole commits only, so that a new watch after `seen` repeats nothing.
        let mut taken = 0;
        loop {
            match self.watch.as_mut().unwrap().try_next() {
                Ok(Some(change)) => {
                    self.expect_change(&change);
                    taken += 1;
                    if change.last {
                        self.seen = change.revision.0;
                        if taken >= most {
                            return;
                        }
                    }
                }
                Ok(None) => {
                    assert_eq!(self.following().next(), None, "a change was not delivered");
                    return;
                }
                Err(WatchError::Compacted { .. }) => {
                    assert!(self.seen < self.model.floor);
                    self.seen = self.model.revision;
                    return self.rewatch();
                }
                Err(e) => panic!("{e}"),
            }
        }
    }

    fn following(&self) -> impl Iterator<Item = &(u64, Key, Op, Option<Vec<u8>>)> {
        self.model.changes.iter().filter(|c| c.0 > self.seen && c.1.as_str().starts_with('p'))
    }

    fn expect_change(&self, change: &Change) {
        let got = (change.revision.0, change.key.clone(), change.op, change.value.as_ref().map(|v| v.to_vec()));
        let next = self.following().next().expect("a change out of nowhere").0;
        assert_eq!(got.0, next, "a commit was skipped or repeated");
        assert!(self.following().take_while(|c| c.0 == next).any(|c| *c == got), "{got:?}");
        let before = self.model.states.get(&(next - 1)).and_then(|s| s.get(&change.key)).map(|v| v.0.clone());
        assert_eq!(change.previous.as_ref().map(|v| v.to_vec()), before);
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn step() -> impl Strategy<Value = Step> {
    let wanted = prop_oneof![
        3 => Just(Wanted::Any),
        2 => Just(Wanted::Right),
        1 => Just(Wanted::Absent),
        1 => Just(Wanted::Exists),
        1 => Just(Wanted::Wrong),
    ];
    let expect = prop::collection::vec((0..9u8, wanted), 0..2);
    let writes = prop::collection::vec((0..9u8, prop::option::weighted(0.7, 0..4u8)), 0..5);
    prop_oneof![
        10 => (expect, writes).prop_map(|(expect, writes)| Step::Commit { expect, writes }),
        1 => (0..12u64).prop_map(Step::Compact),
        1 => Just(Step::Reopen),
        3 => (0..12u64, 0..9u8).prop_map(|(back, n)| Step::ReadAt(back, n)),
        2 => (0..12u64).prop_map(Step::ListAt),
        3 => (1..6usize).prop_map(Step::Poll),
        1 => Just(Step::Rewatch),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_behaves_as_the_model(steps in prop::collection::vec(step(), 1..60), small in any::<bool>()) {
        let place = Place::new();
        let recent_bytes = if small { 300 } else { 1 << 20 };
        let mut run = Run { place, store: None, watch: None, seen: 0, model: Model::default(), recent_bytes };
        run.step(&Step::Reopen);
        for step in &steps {
            run.step(step);
        }
        run.poll(usize::MAX);
    }

    /// B12: no name in one tenant can end up in another's prefix.
    #[test]
    fn segments_keep_tenants_apart(a in "[a-z0-9./ -]{0,6}", b in "[a-z0-9./ -]{0,6}", name in "[a-z0-9./-]{1,6}") {
        if let (Ok(in_a), Ok(_)) = (Key::from_segments(&["k8s", &a, "pods", &name]), Key::from_segments(&["k8s", &b])) {
            prop_assert_eq!(in_a.as_str().starts_with(&format!("k8s/{b}/")), a == b);
        }
    }
}
