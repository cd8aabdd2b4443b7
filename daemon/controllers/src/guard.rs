//! The brake on mass deletion: an unmounted directory or a careless `rm` must not empty the host.

/// When to stop and ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneGuard {
    /// Most objects, in percent of those that files declare, that one generation may remove.
    pub percent: u8,
    /// Removing up to this many is always allowed.
    pub always: usize,
}

impl Default for PruneGuard {
    fn default() -> Self {
        Self { percent: 50, always: 5 }
    }
}

/// Why a removal is held back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{removed} of {declared} declared objects would be removed at once, more than {percent}%: held back. \
     If this is meant, run `reddwarfctl reconcile --allow-prune`; if not, restore the files"
)]
pub struct Held {
    /// Objects that would go.
    pub removed: usize,
    /// Objects that files declared before.
    pub declared: usize,
    /// The limit that was passed.
    pub percent: u8,
}

impl PruneGuard {
    /// Whether `removed` of `declared` objects may go in one step.
    ///
    /// # Errors
    /// [`Held`] when that is more than the guard allows.
    pub fn check(self, removed: usize, declared: usize) -> Result<(), Held> {
        if removed <= self.always || removed * 100 <= declared * usize::from(self.percent) {
            return Ok(());
        }
        Err(Held { removed, declared, percent: self.percent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_removals_pass_and_most_of_many_are_held() {
        let guard = PruneGuard::default();
        assert!(guard.check(0, 0).is_ok());
        assert!(guard.check(1, 1).is_ok(), "the only pod may be removed");
        assert!(guard.check(5, 5).is_ok());
        assert!(guard.check(6, 6).is_err());
        assert!(guard.check(10, 20).is_ok());
        assert!(guard.check(11, 20).is_err());
    }
}
