use super::*;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn start(path: &Path, options: LogOptions, ended: Ended) -> mpsc::Receiver<io::Result<Bytes>> {
    stream(path.to_owned(), options, ended, LogWatcher::default())
}

async fn read(path: &Path, options: LogOptions) -> String {
    let mut chunks = start(path, options, Box::new(|| true));
    let mut text = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        text.extend_from_slice(&chunk.unwrap());
    }
    String::from_utf8(text).unwrap()
}

fn log(directory: &Path) -> PathBuf {
    let path = directory.join("0.log");
    std::fs::write(directory.join("0.log.1"), "2026-01-01T00:00:01.5Z stdout F one\ntorn line\n").unwrap();
    std::fs::write(
        &path,
        "2026-01-01T00:00:02Z stderr P tw\n2026-01-01T00:00:02.1Z stderr F o\n2026-01-01T00:00:03Z stdout F three\n",
    )
    .unwrap();
    path
}

#[tokio::test]
async fn rotated_files_partial_lines_and_torn_lines_are_read_as_one_text() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(directory.path());
    assert_eq!(read(&path, LogOptions::default()).await, "one\ntwo\nthree\n");
    let timestamps = LogOptions { timestamps: true, ..LogOptions::default() };
    assert_eq!(
        read(&path, timestamps).await,
        "2026-01-01T00:00:01.5Z one\n2026-01-01T00:00:02Z two\n2026-01-01T00:00:03Z three\n"
    );
    assert_eq!(read(&directory.path().join("7.log"), LogOptions::default()).await, "", "no log is an empty one");
}

#[tokio::test]
async fn tail_since_and_limit() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(directory.path());
    let tail = |n| LogOptions { tail_lines: Some(n), ..LogOptions::default() };
    assert_eq!(read(&path, tail(2)).await, "two\nthree\n");
    assert_eq!(read(&path, tail(0)).await, "");
    assert_eq!(read(&path, tail(u64::MAX)).await, "one\ntwo\nthree\n");
    let since = LogOptions { since: Some("2026-01-01T00:00:02Z".parse().unwrap()), ..LogOptions::default() };
    assert_eq!(read(&path, since).await, "two\nthree\n");
    let limit = LogOptions { limit_bytes: Some(6), ..LogOptions::default() };
    assert_eq!(read(&path, limit).await, "one\ntw");
    let both = LogOptions { limit_bytes: Some(5), ..tail(2) };
    assert_eq!(read(&path, both).await, "two\nt");
}

#[tokio::test]
async fn following_goes_on_over_a_rotation_and_ends_with_the_container() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    std::fs::write(&path, "2026-01-01T00:00:01Z stdout F one\n").unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let ended = over.clone();
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let watcher = LogWatcher::default();
    let ended: Ended = Box::new(move || ended.load(Ordering::SeqCst));
    let mut chunks = stream(path.clone(), options, ended, watcher.clone());
    assert_eq!(chunks.recv().await.unwrap().unwrap(), "one\n");
    let mut file = std::fs::File::options().append(true).open(&path).unwrap();
    let began = std::time::Instant::now();
    file.write_all(b"2026-01-01T00:00:02Z stdout F two\n").unwrap();
    assert_eq!(chunks.recv().await.unwrap().unwrap(), "two\n");
    assert!(began.elapsed() < LOOK, "it was told of, not found");
    file.write_all(b"2026-01-01T00:00:02Z stdout F late\n").unwrap();
    std::fs::rename(&path, directory.path().join("0.log.1")).unwrap();
    std::fs::write(&path, "2026-01-01T00:00:03Z stdout F three\n2026-01-01T00:00:03Z stdout P unfin").unwrap();
    let mut text = Vec::new();
    while text != b"late\nthree\n" {
        text.extend_from_slice(&chunks.recv().await.unwrap().unwrap());
        assert!(b"late\nthree\n".starts_with(&text), "{text:?}");
    }
    over.store(true, Ordering::SeqCst);
    assert_eq!(chunks.recv().await.unwrap().unwrap(), "unfin");
    assert!(chunks.recv().await.is_none());
    while !watcher.is_idle() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Writes as a shim does: whole entries, rotating by size, as fast as it can.
fn flood(dir: &Path, lines: u32, max_bytes: u64, keep: u32, pause: bool) {
    let path = dir.join("0.log");
    let mut file = std::fs::File::create(&path).unwrap();
    let (mut size, mut batch) = (0, String::new());
    for n in 0..lines {
        batch.push_str(&format!("2026-01-01T00:00:00Z stdout F line {n} and some text to make it longer\n"));
        if batch.len() < 4096 && n + 1 < lines {
            continue;
        }
        if size + batch.len() as u64 > max_bytes {
            for number in (1..keep).rev() {
                let _ = std::fs::rename(dir.join(format!("0.log.{number}")), dir.join(format!("0.log.{}", number + 1)));
            }
            std::fs::rename(&path, dir.join("0.log.1")).unwrap();
            file = std::fs::File::create(&path).unwrap();
            size = 0;
            if pause {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        file.write_all(batch.as_bytes()).unwrap();
        size += batch.len() as u64;
        batch.clear();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_while_files_are_rotated_under_the_reader() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().to_owned();
    std::fs::write(dir.join("0.log"), "").unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let ended = over.clone();
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let ended: Ended = Box::new(move || ended.load(Ordering::SeqCst));
    let mut chunks = start(&dir.join("0.log"), options, ended);
    let writer = tokio::task::spawn_blocking(move || {
        // About a hundred rotations; enough files are kept that only a reader that errs can miss some.
        flood(&dir, 60_000, 40_000, 200, true);
        over.store(true, Ordering::SeqCst);
    });
    let mut text = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        text.extend_from_slice(&chunk.unwrap());
    }
    writer.await.unwrap();
    let text = String::from_utf8(text).unwrap();
    let expected: String = (0..60_000).map(|n| format!("line {n} and some text to make it longer\n")).collect();
    assert!(text == expected, "{} of {} bytes", text.len(), expected.len());
}
