//! How many keys there are under a prefix and when the last of them changed, remembered: pages of lists tell how much is left, and
//! counting means to read it all; who remembers what he read asks whether it may have changed.

use crate::Revision;
use crate::recent::RecentCommit;
use crate::shared::hold;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Prefixes remembered at most.
const MOST: usize = 1024;

/// What is known of prefixes that end in a slash, as of the last commit told.
#[derive(Debug)]
pub(crate) struct Counts(Mutex<Known>);

#[derive(Debug)]
struct Known {
    at: Revision,
    by_prefix: HashMap<Box<str>, Count>,
}

/// What is known of a prefix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    /// So many keys begin with it.
    pub(crate) keys: u64,
    /// None of them changed after this commit.
    pub(crate) touched: Revision,
}

impl Counts {
    /// None known, in a store at `revision`.
    pub(crate) fn new(revision: Revision) -> Self {
        Self(Mutex::new(Known { at: revision, by_prefix: HashMap::new() }))
    }

    /// What is known of a prefix.
    pub(crate) fn get(&self, prefix: &str) -> Option<Count> {
        hold(&self.0).by_prefix.get(prefix).copied()
    }

    /// Remembers what was counted in a snapshot, if no commit was told since.
    pub(crate) fn learn(&self, prefix: &str, at: Revision, keys: u64) {
        let mut known = hold(&self.0);
        if known.at == at && prefix.ends_with('/') && known.by_prefix.len() < MOST {
            known.by_prefix.insert(prefix.into(), Count { keys, touched: at });
        }
    }

    /// Takes in commits, in order, up to `revision`.
    pub(crate) fn tell(&self, revision: Revision, commits: &[Arc<RecentCommit>]) {
        let mut known = hold(&self.0);
        known.at = known.at.max(revision);
        if known.by_prefix.is_empty() {
            return;
        }
        for (commit, change) in commits.iter().flat_map(|commit| commit.changes.iter().map(move |c| (commit, c))) {
            let key = change.key.as_str();
            for (slash, _) in key.match_indices('/') {
                if let Some(count) = key.get(..=slash).and_then(|prefix| known.by_prefix.get_mut(prefix)) {
                    count.touched = commit.revision;
                    count.keys = match (&change.previous, &change.value) {
                        (None, Some(_)) => count.keys + 1,
                        (Some(_), None) => count.keys.saturating_sub(1),
                        _ => count.keys,
                    };
                }
            }
        }
    }

    /// Everything may be different at `revision`.
    pub(crate) fn forget(&self, revision: Revision) {
        *hold(&self.0) = Known { at: revision, by_prefix: HashMap::new() };
    }
}
