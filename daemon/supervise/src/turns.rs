//! One call at a time for each sandbox, or each of other things, whatever becomes of its caller.

use reddwarf_host::SandboxId;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// One call's exclusive time with one of them.
#[derive(Clone, Debug)]
pub struct Turn(#[allow(dead_code, reason = "held for its drop")] Arc<OwnedMutexGuard<()>>);

/// A lock for each that calls are busy with.
#[derive(Debug)]
pub struct Turns<Id = SandboxId>(Mutex<HashMap<Id, Weak<AsyncMutex<()>>>>);

impl<Id> Default for Turns<Id> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Id: Eq + Hash + Clone> Turns<Id> {
    /// Waits until no other call works on this one, a broken-off one included.
    pub async fn take(&self, id: &Id) -> Turn {
        Turn(Arc::new(self.of(id).lock_owned().await))
    }

    fn of(&self, id: &Id) -> Arc<AsyncMutex<()>> {
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
