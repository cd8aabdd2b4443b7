//! Small things that every write asks the store for, remembered until an object of their kind changes.

use crate::key::kind_prefix;
use crate::{Registry, RegistryError};
use reddwarf_objects::kinds;
use reddwarf_store::Revision;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Names remembered at most.
const MOST: usize = 64;

/// What was made of objects of a kind, by name, as long as none of that kind changes.
#[derive(Debug)]
pub(crate) struct Remembered<T> {
    prefix: LazyLock<String>,
    known: Mutex<Known<T>>,
}

#[derive(Debug)]
struct Known<T> {
    /// As [`reddwarf_store::Store::touched`] said before they were read.
    touched: Revision,
    by_name: HashMap<Box<str>, T>,
}

impl<T> Remembered<T> {
    fn new(prefix: fn() -> String) -> Self {
        let known = Known { touched: Revision::ZERO, by_name: HashMap::new() };
        Self { prefix: LazyLock::new(prefix), known: Mutex::new(known) }
    }

    /// Of service accounts.
    pub(crate) fn of_accounts() -> Self {
        Self::new(|| prefix("", "serviceaccounts"))
    }

    /// Of namespaces.
    pub(crate) fn of_namespaces() -> Self {
        Self::new(|| prefix("", "namespaces"))
    }

    /// Of priority classes.
    pub(crate) fn of_priority_classes() -> Self {
        Self::new(|| prefix("scheduling.k8s.io", "priorityclasses"))
    }
}

fn prefix(group: &str, resource: &str) -> String {
    kinds().by_group_resource(group, resource).map(|kind| kind_prefix(kind, None)).unwrap_or_default()
}

impl<T: Clone> Remembered<T> {
    /// What is remembered under a name, else what `read` makes of the store.
    ///
    /// # Errors
    /// When the store can't be read, and those of `read`.
    pub(crate) fn get(
        &self,
        registry: &Registry,
        name: &str,
        read: impl FnOnce() -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        // First: what is read after it can only be newer.
        let touched = registry.inner.store.touched(&self.prefix)?;
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(value) = known.by_name.get(name).filter(|_| known.touched == touched) {
                return Ok(value.clone());
            }
        }
        let value = read()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.touched != touched || known.by_name.len() >= MOST {
            // Should another thread have been here with a later state, that is read again: it costs no more.
            known.by_name.clear();
            known.touched = touched;
        }
        known.by_name.insert(name.into(), value.clone());
        Ok(value)
    }
}
