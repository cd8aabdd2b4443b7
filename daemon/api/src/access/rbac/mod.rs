//! Role-based access control: Roles, ClusterRoles and their bindings, as objects of the registry.
//!
//! | to know | look in |
//! |---|---|
//! | what a rule allows, and whether rules cover another | [`rule`] |
//! | who has which rules | [`index`] |
//! | that nobody gives what they do not have | [`escalation`] |
//! | the roles that are there from the start | [`bootstrap`] |

pub(crate) mod bootstrap;
pub(crate) mod escalation;
pub(crate) mod index;
pub(crate) mod rule;

use crate::access::attributes::{Attributes, Target};
use crate::access::authorise::{Authoriser, Decision};
use crate::access::principal::Principal;
use index::Index;
use reddwarf_registry::{OBJECT_PREFIX, Registry, RegistryError};
use reddwarf_store::Watch;
use rule::Rule;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// Decides by the roles in the registry.
pub(crate) struct Rbac {
    registry: Registry,
    seen: Mutex<Option<Seen>>,
}

/// The rules as of the watch's position.
struct Seen {
    watch: Watch,
    index: Arc<Index>,
}

impl Rbac {
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry, seen: Mutex::new(None) }
    }

    /// The rules as they are now: what was answered before this call is in them.
    ///
    /// # Errors
    /// When they can't be read.
    pub(crate) fn index(&self) -> Result<Arc<Index>, RegistryError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = seen.as_mut()
            && matches!(before.watch.try_next(), Ok(None))
        {
            return Ok(before.index.clone());
        }
        *seen = None;
        let store = self.registry.store();
        // The watch first: a change while the lists are read is then seen again, not missed.
        let watch = store.watch(&format!("{OBJECT_PREFIX}{GROUP}/"), self.registry.revision());
        let index = Arc::new(Index::read(&self.registry)?);
        if let Ok(watch) = watch {
            *seen = Some(Seen { watch, index: index.clone() });
        }
        Ok(index)
    }

    /// What somebody may do in a namespace (or, when it is empty, in the whole cluster).
    ///
    /// # Errors
    /// When the rules can't be read.
    pub(crate) fn rules(&self, who: &Principal, namespace: &str) -> Result<Vec<Rule>, RegistryError> {
        Ok(self.index()?.grants(who, namespace).into_iter().flat_map(|grant| grant.rules.iter().cloned()).collect())
    }
}

impl Authoriser for Rbac {
    fn decide(&self, who: &Principal, what: &Attributes) -> Decision {
        let index = match self.index() {
            Ok(index) => index,
            Err(error) => return Decision::NoOpinion(format!("RBAC: the rules can't be read: {error}")),
        };
        let namespace = match &what.target {
            Target::Resource(target) => target.namespace.as_str(),
            Target::Path(_) => "",
        };
        for grant in index.grants(who, namespace) {
            if grant.rules.iter().any(|rule| rule.allows(what)) {
                return Decision::Allow(format!("RBAC: allowed by {}", grant.why()));
            }
        }
        Decision::NoOpinion(index.missing_roles(who, namespace))
    }
}
