//! How many transactions share a commit: one more costs far less than one more commit, so writers who keep coming are waited for a
//! moment. Who writes alone, or with one other, never waits.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

/// The longest wait.
const LINGER: Duration = Duration::from_millis(2);
/// Commits by which the next one's size is guessed.
const REMEMBERED: usize = 4;
/// So many at once are worth waiting for.
const FEW: usize = 3;

/// The writers of late, as the writer thread knows them.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    batches: [usize; REMEMBERED],
    next: usize,
}

impl Crowd {
    /// So many transactions are likely to come together; 0 when it is not worth waiting for them.
    pub(crate) fn expected(&self) -> usize {
        self.batches.iter().copied().max().filter(|most| *most >= FEW).unwrap_or_default()
    }

    /// So many came together.
    pub(crate) fn note(&mut self, batch: usize) {
        if let Some(place) = self.batches.get_mut(self.next) {
            *place = batch;
        }
        self.next = (self.next + 1) % REMEMBERED;
    }
}

/// Where the writer thread waits for them.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    /// The length of the queue that ends the wait; 0 while nobody waits.
    wanted: AtomicUsize,
    writer: OnceLock<Thread>,
}

impl Gathering {
    /// Waits, on the writer thread, until `queued` says that so many are in the queue, or long enough.
    pub(crate) fn wait(&self, wanted: usize, queued: impl Fn() -> usize) {
        self.writer.get_or_init(std::thread::current);
        self.wanted.store(wanted, Ordering::SeqCst);
        if queued() < wanted {
            std::thread::park_timeout(LINGER);
        }
        self.wanted.store(0, Ordering::SeqCst);
    }

    /// One more is in the queue, which is so long now.
    pub(crate) fn arrived(&self, queued: usize) {
        let wanted = self.wanted.load(Ordering::SeqCst);
        if wanted > 0
            && queued >= wanted
            && self.wanted.swap(0, Ordering::SeqCst) > 0
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_alone_is_soon_not_waited_for() {
        let mut crowd = Crowd::default();
        assert_eq!(crowd.expected(), 0);
        crowd.note(16);
        for _ in 0..REMEMBERED {
            assert_eq!(crowd.expected(), 16);
            crowd.note(1);
        }
        assert_eq!(crowd.expected(), 0);
    }

    #[test]
    fn the_last_of_those_expected_ends_the_wait() {
        let gathering = Gathering::default();
        let queued = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while gathering.wanted.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
                for _ in 0..3 {
                    gathering.arrived(queued.fetch_add(1, Ordering::SeqCst) + 1);
                }
            });
            gathering.wait(3, || queued.load(Ordering::SeqCst));
        });
        assert_eq!((queued.load(Ordering::SeqCst), gathering.wanted.load(Ordering::SeqCst)), (3, 0));
        gathering.wait(3, || queued.load(Ordering::SeqCst));
    }
}
