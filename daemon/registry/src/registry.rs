//! The handle that api, controllers and node hold.

use crate::RegistryError;
use crate::counters::{Counters, Counting};
use crate::event::Correlator;
use crate::namespace::Home;
use crate::remember::Remembered;
use chrono::{DateTime, Utc};
use reddwarf_network::ServiceRanges;
use reddwarf_objects::Object;
use reddwarf_objects::admission::pod_security::Policy;
use reddwarf_store::{Revision, Store};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};

/// Where wall-clock times in objects come from.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// The one write path. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) counting: Counting,
    /// Events recorded since the start, to purge old ones from time to time.
    pub(crate) events: AtomicU64,
    /// What events said of late.
    pub(crate) heard: Mutex<Correlator>,
    /// What services are given addresses from.
    pub(crate) services: OnceLock<ServiceRanges>,
    /// Accounts that pods ran as of late, by namespace and name.
    pub(crate) accounts: Remembered<Option<Arc<Object>>>,
    /// Namespaces that were written to of late.
    pub(crate) homes: Remembered<Home>,
    /// What becomes of pods in namespaces that were written to of late.
    pub(crate) policies: Remembered<Policy>,
    /// All priority classes.
    pub(crate) priorities: Remembered<Arc<[Object]>>,
}

impl Registry {
    /// Over an open store. Call [`Registry::bootstrap`] before serving.
    pub fn new(store: Store, clock: Clock) -> Self {
        let (counting, events, services) = (Counting::default(), AtomicU64::new(0), OnceLock::new());
        let (heard, accounts) = (Mutex::default(), Remembered::of_accounts());
        let (homes, policies) = (Remembered::of_namespaces(), Remembered::of_namespaces());
        let priorities = Remembered::of_priority_classes();
        Self {
            inner: Arc::new(Inner {
                store,
                clock,
                counting,
                events,
                heard,
                services,
                accounts,
                homes,
                policies,
                priorities,
            }),
        }
    }

    /// [`Registry::new`] and [`Registry::bootstrap`].
    ///
    /// # Errors
    /// When the store can't be written.
    pub async fn open(store: Store, clock: Clock) -> Result<Self, RegistryError> {
        let registry = Self::new(store, clock);
        registry.bootstrap().await?;
        Ok(registry)
    }

    /// The store below, for reservations and generations; objects are written through the registry only.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Wall-clock time as written into objects.
    pub fn now(&self) -> DateTime<Utc> {
        (self.inner.clock)()
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.inner.store.revision()
    }

    /// Store operations so far.
    pub fn counters(&self) -> Counters {
        self.inner.counting.read()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("revision", &self.revision()).finish_non_exhaustive()
    }
}
