//! May this be written? The last step of every write: it gives the author without whom the registry takes nothing.

use crate::access::attributes::{Attributes, ResourceTarget};
use crate::access::authorise::{Authoriser, Decision, forbidden};
use crate::access::policy::{check_enter, check_write};
use crate::access::rbac::escalation;
use crate::serve::dispatch::Call;
use crate::wire::error::ApiError;
use reddwarf_objects::{Kind, Object};
use reddwarf_registry::Author;

impl Call {
    /// Admits an object as it is to be written; `old` is what is there now.
    ///
    /// # Errors
    /// 403 for pods that would reach the host and are not an admin's.
    pub(crate) fn admit(&self, kind: &Kind, old: Option<&Object>, new: &Object) -> Result<Author, ApiError> {
        let access = &self.state.deps.access;
        if old.is_none() && self.verb() != "create" {
            // An update or apply of what is not there creates it: a right of its own.
            self.may("create", kind, new)?;
        }
        escalation::check(&access.rbac, &access.authoriser, &self.principal, kind, old, new)?;
        if let Err(error) = check_write(&self.principal, kind, old, new)
            && !self.may_reach_the_host(new)
        {
            return Err(error);
        }
        Ok(self.principal.author())
    }

    /// Admits a way into a pod.
    ///
    /// # Errors
    /// 403 for pods that reach the host and could not have been made by who asks.
    pub(crate) fn admit_entry(&self, kind: &Kind, pod: &Object) -> Result<(), ApiError> {
        check_enter(&self.principal, kind, pod).or_else(|e| if self.may_reach_the_host(pod) { Ok(()) } else { Err(e) })
    }

    /// Admits an object of a set that is applied as a whole: no request line told its verb.
    ///
    /// # Errors
    /// As [`Call::admit`]; 403 for who may not write it at all.
    pub(crate) fn admit_declared(&self, kind: &Kind, old: Option<&Object>, new: &Object) -> Result<Author, ApiError> {
        if old.is_some() {
            self.may("patch", kind, new)?;
        }
        self.admit(kind, old, new)
    }

    fn may(&self, verb: &'static str, kind: &Kind, new: &Object) -> Result<(), ApiError> {
        let access = &self.state.deps.access;
        let what = Attributes::resource(
            verb,
            ResourceTarget {
                group: kind.group.to_owned(),
                version: kind.version.to_owned(),
                resource: kind.plural.to_owned(),
                namespace: new.namespace().unwrap_or_default().to_owned(),
                name: new.name().to_owned(),
                ..ResourceTarget::default()
            },
        );
        match access.authoriser.decide(&self.principal, &what) {
            Decision::Allow(_) => Ok(()),
            Decision::NoOpinion(reason) => Err(forbidden(&self.principal, &what, &reason)),
        }
    }

    /// Has somebody given this principal the right to what is as good as root: verb `use` on
    /// `privilegedpods.reddwarf.io` (`cluster-admin` has it)?
    fn may_reach_the_host(&self, pod: &Object) -> bool {
        let what = Attributes::resource(
            "use",
            ResourceTarget {
                group: "reddwarf.io".to_owned(),
                version: "v1".to_owned(),
                resource: "privilegedpods".to_owned(),
                namespace: pod.namespace().unwrap_or_default().to_owned(),
                ..ResourceTarget::default()
            },
        );
        matches!(self.state.deps.access.authoriser.decide(&self.principal, &what), Decision::Allow(_))
    }

    /// Admits what makes no new object: deletions and writes of a status. That the verb may be used is all there is to
    /// check.
    pub(crate) fn admit_change(&self) -> Author {
        self.principal.author()
    }
}
