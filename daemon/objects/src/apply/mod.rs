//! Server-side apply and `metadata.managedFields`: who owns which field.
//!
//! The registry's write path calls exactly three things:
//!
//! | when | call |
//! |---|---|
//! | after a create, update or any patch but apply, on the object with its defaults | [`track`] |
//! | for an apply patch, before defaults and validation | [`apply`] |
//! | last, before asking whether anything changed | [`keep_times`] |

use crate::{kind::Kind, object::Object};
use chrono::{DateTime, Utc};

/// Who writes, and through what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldManager<'a> {
    /// `?fieldManager=`, else the User-Agent up to its first `/`. Empty counts as `unknown`.
    pub name: &'a str,
    /// `status`, `scale`, `ephemeralcontainers`, ...; none when the object itself is written.
    pub subresource: Option<&'a str>,
}

/// One field that somebody else owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The `message` of a Status cause: `conflict with "m1"`, `conflict with "m1" with subresource "scale" using apps/v1`.
    pub message: String,
    /// The `field` of a Status cause: `.spec.template.spec.containers[name="x"].image`.
    pub field: String,
}

/// Why an apply patch can't be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Others own fields with other values: 409 Conflict. `message` is the Status' message; each conflict is a cause with the reason
    /// `FieldManagerConflict`. Details hold nothing but the causes.
    #[error("{message}")]
    Conflicts {
        /// `Apply failed with 1 conflict: conflict with "m1": .data.a`
        message: String,
        /// In the order of the causes.
        conflicts: Vec<Conflict>,
    },
    /// What was applied can't be: another kind, managedFields given: 400 BadRequest with this message.
    #[error("{0}")]
    BadRequest(String),
    /// What was applied does not fit the schema: 500 InternalError with this message in the reference.
    #[error("{0}")]
    Schema(String),
}

/// Brings `new.metadata.managedFields` up to date after a write that is no apply: `manager` now owns what differs between `old` and
/// `new`, and nobody else does. `old` is the stored object, none when it is created.
///
/// `new.metadata.managedFields` is read as the client sent it: `[]` or `[{}]` resets it, a list that makes sense is taken over,
/// anything else (and every list sent to a subresource) is ignored in favour of `old`'s. So don't strip or restore it before.
/// Fields that the subresource can't change (status of the main resource, everything but status of `/status`) are not owned.
pub fn track(kind: &Kind, old: Option<&Object>, new: &mut Object, manager: &FieldManager<'_>, now: DateTime<Utc>) {
    let _ = (kind, old, new, manager, now);
}

/// Merges `config` into `live` (none when the object does not exist yet) and records that `manager` owns what it holds. Fields that
/// `manager` applied before, that `config` leaves out and that nobody else owns are removed. The result has no defaults and is not
/// validated; what is not in `config` and not removed is as in `live`, uid and resourceVersion included.
///
/// # Errors
/// [`ApplyError`]; conflicts only without `force`.
pub fn apply(
    kind: &Kind,
    live: Option<&Object>,
    config: &Object,
    manager: &FieldManager<'_>,
    force: bool,
    now: DateTime<Utc>,
) -> Result<Object, ApplyError> {
    let _ = (kind, live, config, manager, force, now);
    Err(ApplyError::BadRequest("server-side apply is not available yet".to_owned()))
}

/// Undoes changes of nothing but times in managedFields: when `new` differs from `old` in nothing else (resourceVersion aside), it
/// gets `old`'s managedFields, so that a write that changes nothing is seen as one.
pub fn keep_times(old: &Object, new: &mut Object) {
    let _ = (old, new);
}
