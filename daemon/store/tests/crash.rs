//! F1: `kill -9` at random moments, many times; acknowledged writes are there, revisions go up, invariants hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

mod common;

use common::{Place, key, options};
use reddwarf_store::{FileContent, ListOptions, NewFile, NewGeneration, Revision, Store, StoreOptions, Transaction};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const CHILD: &str = "REDDWARF_STORE_CRASH_CHILD";
const WRITERS: u64 = 8;

fn small() -> StoreOptions {
    StoreOptions { history_commits: 200, generations: 5, ..options() }
}

/// Not a test of its own: the process that gets killed. Each line it prints is an acknowledged transaction.
#[test]
fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let (path, start) = path.split_once('|').unwrap();
    let start: u64 = start.parse().unwrap();
    let opened = Store::open(path, small()).unwrap();
    assert_eq!(opened.recovery, None);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = &opened.store;
            scope.spawn(move || {
                for n in start.. {
                    let done = store.commit_blocking(transaction(writer, n)).unwrap();
                    // One write call a line, so that a kill never leaves half a line that looks whole.
                    std::io::stderr().write_all(format!("ok {writer} {n} {}\n", done.revision).as_bytes()).unwrap();
                }
            });
        }
    });
}

/// Moves a token, counts, replaces a pair; now and then a generation.
fn transaction(writer: u64, n: u64) -> Transaction {
    let n_text = n.to_string();
    let mut t = Transaction::new("child", "churn")
        .put(key(&format!("pair/{writer}/a")), n_text.clone())
        .put(key(&format!("pair/{writer}/b")), n_text.clone())
        .put(key(&format!("token/{writer}/{}", n % 5)), "here")
        .delete(key(&format!("token/{writer}/{}", (n + 4) % 5)));
    if n.is_multiple_of(10) {
        let content = FileContent::Bytes(format!("{writer} {n}").into());
        t = t.generation(NewGeneration {
            files: vec![NewFile { name: "f.yaml".to_owned(), content }],
            ..NewGeneration::default()
        });
    }
    t
}

#[test]
fn acknowledged_writes_survive_kill_nine() {
    let place = Place::new();
    let mut random = fastrand::Rng::with_seed(11);
    let mut acknowledged: BTreeMap<u64, u64> = BTreeMap::new();
    let (mut newest, mut start, mut total) = (0, 1, 0);
    for round in 0..25 {
        let seen = run_and_kill(&place.path(), start, Duration::from_millis(random.u64(5..120)));
        let before = newest;
        for (writer, n, revision) in seen {
            assert!(revision > before, "round {round}: revision {revision} came again after {before}");
            let last = acknowledged.entry(writer).or_default();
            *last = (*last).max(n);
            newest = newest.max(revision);
            total += 1;
        }
        let highest = check(&place.path(), &acknowledged, newest, round);
        start = highest + 1;
    }
    assert!(total > 500, "only {total} transactions were acknowledged");
}

fn run_and_kill(path: &Path, start: u64, after: Duration) -> Vec<(u64, u64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{}|{start}", path.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut out = Vec::new();
    // The clock starts with the first acknowledged write, so that every round does something.
    let first = lines.next();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap()
    });
    for line in first.into_iter().chain(lines) {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!((words.len(), words[0]), (4, "ok"), "{line}");
        let number = |n: usize| words[n].parse::<u64>().unwrap();
        out.push((number(1), number(2), number(3)));
    }
    killer.join().unwrap();
    out
}

/// Everything acknowledged is there, every pair is equal, every writer has one token, revisions never went back.
fn check(path: &Path, acknowledged: &BTreeMap<u64, u64>, newest: u64, round: u32) -> u64 {
    let opened = Store::open(path, small()).unwrap();
    assert_eq!(opened.recovery, None, "round {round}");
    let store = opened.store;
    assert!(store.revision() >= Revision(newest), "round {round}");
    let value = |k: &str| store.get(&key(k)).unwrap().map(|e| String::from_utf8(e.value.to_vec()).unwrap());
    let mut highest = 0;
    for (writer, n) in acknowledged {
        let (a, b) = (value(&format!("pair/{writer}/a")), value(&format!("pair/{writer}/b")));
        assert_eq!(a, b, "round {round}");
        let there: u64 = a.unwrap().parse().unwrap();
        assert!(there >= *n, "round {round}: writer {writer} had {n} acknowledged, {there} is there");
        let tokens = store.list(&format!("token/{writer}/"), &ListOptions::default()).unwrap().entries;
        assert!(tokens.iter().any(|t| t.key.as_str().ends_with(&format!("/{}", there % 5))), "round {round}");
        highest = highest.max(there);
    }
    // Replaying retained history onto the state at its start gives the present.
    let floor = store.compacted();
    let at = ListOptions { at: Some(floor), ..Default::default() };
    let mut view: BTreeMap<_, _> = store.list("", &at).unwrap().entries.into_iter().map(|e| (e.key, e.value)).collect();
    let mut watch = store.watch("", floor).unwrap();
    while let Some(change) = watch.try_next().unwrap() {
        match change.value {
            Some(value) => view.insert(change.key, value),
            None => view.remove(&change.key),
        };
    }
    let now = store.list("", &ListOptions::default()).unwrap().entries;
    assert_eq!(view, now.into_iter().map(|e| (e.key, e.value)).collect(), "round {round}");
    for generation in store.generations().unwrap() {
        assert!(generation.files.iter().all(|f| store.has_content(&f.digest).unwrap()), "round {round}");
    }
    highest
}
