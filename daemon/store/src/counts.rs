//! How many keys there are under a prefix, remembered: pages of lists tell how much is left, and counting means to read it all.

use crate::Revision;
use crate::recent::RecentCommit;
use crate::shared::hold;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Prefixes remembered at most.
const MOST: usize = 1024;

/// Numbers of keys under prefixes that end in a slash, as of the last commit told.
#[derive(Debug)]
pub(crate) struct Counts(Mutex<Known>);

#[derive(Debug)]
struct Known {
    at: Revision,
    by_prefix: HashMap<Box<str>, u64>,
}

impl Counts {
    /// None known, in a store at `revision`.
    pub(crate) fn new(revision: Revision) -> Self {
        Self(Mutex::new(Known { at: revision, by_prefix: HashMap::new() }))
    }

    /// The number, if it is known.
    pub(crate) fn get(&self, prefix: &str) -> Option<u64> {
        hold(&self.0).by_prefix.get(prefix).copied()
    }

    /// Remembers what was counted in a snapshot, if no commit was told since.
    pub(crate) fn learn(&self, prefix: &str, at: Revision, count: u64) {
        let mut known = hold(&self.0);
        if known.at == at && prefix.ends_with('/') && known.by_prefix.len() < MOST {
            known.by_prefix.insert(prefix.into(), count);
        }
    }

    /// Takes in commits, in order, up to `revision`.
    pub(crate) fn tell(&self, revision: Revision, commits: &[Arc<RecentCommit>]) {
        let mut known = hold(&self.0);
        known.at = known.at.max(revision);
        if known.by_prefix.is_empty() {
            return;
        }
        for change in commits.iter().flat_map(|commit| &commit.changes) {
            let more = match (&change.previous, &change.value) {
                (None, Some(_)) => true,
                (Some(_), None) => false,
                _ => continue,
            };
            let key = change.key.as_str();
            for (slash, _) in key.match_indices('/') {
                if let Some(count) = key.get(..=slash).and_then(|prefix| known.by_prefix.get_mut(prefix)) {
                    *count = if more { *count + 1 } else { count.saturating_sub(1) };
                }
            }
        }
    }

    /// Everything may be different at `revision`.
    pub(crate) fn forget(&self, revision: Revision) {
        *hold(&self.0) = Known { at: revision, by_prefix: HashMap::new() };
    }
}
