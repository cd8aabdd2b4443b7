//! One call at a time for each sandbox, whatever becomes of its caller.

use reddwarf_host::SandboxId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// One call's exclusive time with a sandbox.
#[derive(Clone, Debug)]
pub struct Turn(#[allow(dead_code, reason = "held for its drop")] Arc<OwnedMutexGuard<()>>);

/// A lock per sandbox that calls are busy with.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<SandboxId, Weak<AsyncMutex<()>>>>);

impl Turns {
    /// Waits until no other call works on this sandbox, a broken-off one included.
    pub async fn take(&self, id: &SandboxId) -> Turn {
        Turn(Arc::new(self.of(id).lock_owned().await))
    }

    fn of(&self, id: &SandboxId) -> Arc<AsyncMutex<()>> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = map.get(id).and_then(Weak::upgrade) {
            return lock;
        }
        map.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(AsyncMutex::new(()));
        map.insert(id.clone(), Arc::downgrade(&lock));
        lock
    }
}
