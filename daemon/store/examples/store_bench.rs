//! How fast durable writes are here, beside the disk's own figure:
//! `cargo run --release -p reddwarf-store --example store_bench [DIRECTORY] [SECONDS] [ADDED_SYNC_MICROSECONDS]`.
//!
//! The third argument makes every sync take that much longer, to see the figure for a slower disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods)]

use redb::StorageBackend;
use reddwarf_store::{Key, ListOptions, Store, StoreOptions, Transaction};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WRITERS: usize = 64;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| ".".to_owned());
    let seconds: f64 = arguments.next().and_then(|s| s.parse().ok()).unwrap_or(5.0);
    let added = Duration::from_micros(arguments.next().and_then(|s| s.parse().ok()).unwrap_or(0));
    let place = tempfile::Builder::new().prefix("store-bench-").tempdir_in(directory).unwrap();
    let sync = fdatasync(place.path()) + added;
    println!("fdatasync of 4 KiB         p50 {}", micros(sync));

    let clock = Arc::new(chrono::Utc::now);
    let mut options = StoreOptions::new(clock);
    if !added.is_zero() {
        options.backend = Some(Arc::new(move |_, file| Ok(Box::new(SlowDisk::new(file, added)?))));
    }
    println!("resident before opening    {} KiB", resident());
    let path = place.path().join("store.redb");
    let store = Store::open(&path, options.clone()).unwrap().store;
    println!("resident, empty store      {} KiB", resident());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    one_writer(&runtime, &store);
    many_writers(&runtime, &store, Duration::from_secs_f64(seconds));
    println!("resident after writing     {} KiB", resident());
    reads(&store);
    let stats = store.stats();
    println!("file                       {} MiB, history {} commits", stats.file_bytes >> 20, stats.history_commits);
    println!("resident after reading     {} KiB", resident());
    drop(store);
    let start = Instant::now();
    let store = Store::open(&path, options).unwrap().store;
    println!("opening it again           {:?}, {} entries", start.elapsed(), store.count("").unwrap());
}

fn micros(d: Duration) -> String {
    format!("{:.0} µs", d.as_secs_f64() * 1e6)
}

fn fdatasync(directory: &Path) -> Duration {
    let mut file = File::create(directory.join("sync")).unwrap();
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            file.write_all(&[1; 4096]).unwrap();
            let start = Instant::now();
            file.sync_data().unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[100]
}

/// A value of about a small pod's size.
fn value(n: usize) -> Vec<u8> {
    format!("{{\"n\":{n},\"spec\":\"{}\"}}", "x".repeat(600)).into_bytes()
}

fn report(what: &str, mut times: Vec<Duration>, elapsed: Duration) {
    times.sort();
    let at = |p: usize| micros(times[(times.len() - 1) * p / 100]);
    let rate = times.len() as f64 / elapsed.as_secs_f64();
    println!("{what} {rate:.0} durable creates/s, latency p50 {}, p99 {}", at(50), at(99));
}

fn one_writer(runtime: &tokio::runtime::Runtime, store: &Store) {
    let start = Instant::now();
    let times = (0..300).map(|n| {
        let begin = Instant::now();
        let key = Key::new(format!("one/{n}")).unwrap();
        runtime.block_on(store.commit(Transaction::new("bench", "one").create(key, value(n)))).unwrap();
        begin.elapsed()
    });
    let times = times.collect();
    report("1 writer                  ", times, start.elapsed());
}

fn many_writers(runtime: &tokio::runtime::Runtime, store: &Store, how_long: Duration) {
    let before = store.stats();
    let start = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|w| {
            let store = store.clone();
            runtime.spawn(async move {
                let mut times = Vec::new();
                while start.elapsed() < how_long {
                    let begin = Instant::now();
                    let key = Key::new(format!("many/{w}/{}", times.len())).unwrap();
                    store.commit(Transaction::new("bench", "many").create(key, value(w))).await.unwrap();
                    times.push(begin.elapsed());
                }
                times
            })
        })
        .collect();
    let times = writers.into_iter().flat_map(|w| runtime.block_on(w).unwrap()).collect();
    report("64 writers                ", times, start.elapsed());
    let after = store.stats();
    let shared = (after.commits - before.commits) as f64 / (after.batches - before.batches) as f64;
    println!("creates that shared a sync {shared:.1}");
}

fn reads(store: &Store) {
    let key = Key::new("one/7").unwrap();
    let start = Instant::now();
    (0..10_000).for_each(|_| assert!(store.get(&key).unwrap().is_some()));
    println!("get                        {}", micros(start.elapsed() / 10_000));
    let start = Instant::now();
    let page = store.list("many/", &ListOptions { limit: Some(10_000), ..Default::default() }).unwrap();
    println!("list of {} entries      {:?}", page.entries.len(), start.elapsed());
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 4
}

/// The file with slower syncs.
#[derive(Debug)]
struct SlowDisk {
    file: redb::backends::FileBackend,
    added: Duration,
}

impl SlowDisk {
    fn new(file: File, added: Duration) -> io::Result<Self> {
        Ok(Self { file: redb::backends::FileBackend::new(file).map_err(io::Error::other)?, added })
    }
}

impl StorageBackend for SlowDisk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        std::thread::sleep(self.added);
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
