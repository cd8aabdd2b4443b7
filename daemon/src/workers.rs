//! The async runtime.

use std::io;
use std::sync::mpsc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Threads that run tasks.
const WORKERS: usize = 2;
/// How often they are started at most, until they do not share an arena.
const TRIES: usize = 8;
/// Bytes of one piece of an arena other than the first (glibc's `HEAP_MAX_SIZE`).
const PIECE: usize = 64 << 20;

/// Too large for the few blocks that each thread keeps for itself, some of which others allocated.
type Block = Box<[u8; 2048]>;

/// The async runtime. The heap has two arenas (`host::keep_memory_small`), which glibc hands out to threads by turns, or past one that is in
/// use just then. Workers with the same one would wait for each other in allocations, 25 times in a write: those are started anew.
pub(crate) fn runtime() -> io::Result<Runtime> {
    for _ in 1..TRIES {
        let (runtime, blocks) = start()?;
        if apart(&blocks) {
            return Ok(runtime);
        }
    }
    Ok(start()?.0)
}

/// A runtime, and what its workers allocated.
fn start() -> io::Result<(Runtime, Vec<Block>)> {
    let (started, blocks) = mpsc::sync_channel(WORKERS);
    let runtime = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(32)
        // A heartbeat, every ten seconds, needs one: it stays.
        .thread_keep_alive(Duration::from_secs(15))
        .thread_stack_size(1 << 20)
        .on_thread_start(move || drop(started.try_send(Block::new([0; 2048]))))
        .enable_all()
        .build()?;
    let blocks = (0..WORKERS).filter_map(|_| blocks.recv_timeout(Duration::from_secs(1)).ok()).collect();
    Ok((runtime, blocks))
}

/// Are they from different arenas? Other C libraries have none.
fn apart(blocks: &[Block]) -> bool {
    let mut places: Vec<usize> = blocks.iter().map(|block| block.as_ptr().addr()).collect();
    places.sort_unstable();
    cfg!(not(target_env = "gnu")) || places.windows(2).all(|pair| matches!(pair, [a, b] if b - a >= PIECE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_allocate_apart() {
        let blocks = start().unwrap().1;
        assert_eq!(blocks.len(), WORKERS);
        // Tests may have as many arenas as threads.
        assert!(apart(&blocks));
        if cfg!(target_env = "gnu") {
            assert!(!apart(&[Block::new([0; 2048]), Block::new([0; 2048])]));
        }
        assert_eq!(runtime().unwrap().block_on(async { tokio::spawn(async { 7 }).await.unwrap() }), 7);
    }
}
