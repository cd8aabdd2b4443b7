//! Server-side apply and `metadata.managedFields`: who owns which field.
//!
//! The registry's write path calls exactly four things:
//!
//! | when | call |
//! |---|---|
//! | after an update or any patch but apply, on the object with its defaults | [`track`] |
//! | after a create, likewise | [`made`] |
//! | for an apply patch, before defaults and validation | [`apply`] |
//! | last, before asking whether anything changed | [`keep_times`] |
//!
//! ```text
//! track:  compare(old, new) ─→ changed fields ─→ taken from all other entries, added to the writer's
//! apply:  extract(config) = what the manager owns now
//!         merge(live, config) ─→ remove what it applied before, left out now and nobody else owns
//!         compare(live, result) ∩ others' fields = conflicts
//! ```
//!
//! | to know | look in |
//! |---|---|
//! | how fields are named and sets of them stored | `element.rs`, `set.rs` |
//! | entries, their order and limit, what clients send | `managed.rs` |
//! | what nobody owns, what a subresource reaches | `owned.rs` |
//! | the walks over objects, by [`crate::schema::View`] | `compare.rs`, `made.rs`, `extract.rs`, `merge.rs`, `check.rs` |
//! | texts of conflicts | `conflict.rs` |
//! | kubectl's own annotation | `last_applied.rs` |
//!
//! Source: Kubernetes' documentation of server-side apply and the published cases of its structured-merge-diff library.

mod check;
mod compare;
mod conflict;
mod element;
mod extract;
mod last_applied;
mod made;
mod managed;
mod merge;
mod owned;
mod set;
#[cfg(test)]
mod tests;

use crate::{
    json,
    kind::Kind,
    object::{Object, timestamp},
    schema::View,
};
use chrono::{DateTime, Utc};
use conflict::Claim;
use managed::{Entry, Managed, Operation, Owner};
use owned::Reach;
use serde_json::{Map, Value};
use set::{FieldSet, FieldSetRef};

/// The manager of what was in an object before anybody owned anything.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

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
    /// What was applied does not fit the schema: 500 with this message and neither reason nor details in the reference.
    #[error("{0}")]
    Schema(String),
}

/// Brings `new.metadata.managedFields` up to date after a write that is no apply: `manager` now owns what differs between `old` and
/// `new`, and nobody else does. `old` is the stored object, none when it is created.
///
/// `new.metadata.managedFields` is read as the client sent it: `[]` or `[{}]` resets it, a list that makes sense is taken over,
/// anything else (and every list sent to a subresource) is ignored in favour of `old`'s. So don't strip or restore it before.
/// Fields that the subresource can't change (status of the main resource, everything but status and metadata of `/status`) are not owned.
pub fn track(kind: &Kind, old: Option<&Object>, new: &mut Object, manager: &FieldManager<'_>, now: DateTime<Utc>) {
    let sent = managed::take_list(new);
    let stored = old.and_then(managed::list);
    let reach = Reach::of(kind, manager.subresource);
    let none = Map::new();
    let comparison = reach.compare(View::of_kind(kind), old.map_or(&none, Object::map), new.map());
    let replaced = match sent {
        // A subresource's clients have no say in this.
        _ if manager.subresource.is_some() => None,
        Some(list) if managed::is_reset(&list) => Some(Managed::default()),
        Some(list) if Some(&list) != stored => Managed::sent(&list).filter(|managed| !managed.is_empty()),
        _ => None,
    };
    if replaced.is_none() && comparison.is_same() {
        return managed::put(new, stored.cloned());
    }
    let mut managed = replaced.unwrap_or_else(|| Managed::stored(stored.cloned()));
    // An object without owners gets none before somebody applies to it.
    if !managed.is_empty() || old.is_none() {
        let (changed, removed) = comparison.changed();
        managed.disown(&[&changed, &removed]);
        managed.update(Owner::new(Operation::Update, manager, new.api_version()), changed, now);
    }
    managed.write(new);
}

/// `metadata.managedFields` of an object that `manager` makes, as JSON: what [`track`] would put into it. It is taken out of the object.
/// None: nobody owns anything.
pub fn made(kind: &Kind, new: &mut Object, manager: &FieldManager<'_>, now: DateTime<Utc>) -> Option<Vec<u8>> {
    let sent = managed::take_list(new).filter(|list| !managed::is_reset(list));
    if sent.is_none()
        && let Ok(fields) = made::fields(View::of_kind(kind), Reach::of(kind, manager.subresource), new.map())
    {
        let owner = Owner::new(Operation::Update, manager, new.api_version());
        return (fields != b"{}").then(|| managed::one(&owner, &fields, now));
    }
    managed::put(new, sent);
    track(kind, None, new, manager, now);
    let mut text = Vec::new();
    json::write(&managed::take_list(new)?, &mut text);
    Some(text)
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
    let view = View::of_kind(kind);
    check_config(kind, view, config)?;
    let application = Application { kind, view, live, config, manager, now };
    let mut result = match application.carry_out(force) {
        Err(claims) if manager.name == last_applied::KUBECTL => application.take_over(claims)?,
        outcome => outcome.map_err(conflict::error)?,
    };
    if manager.name == last_applied::KUBECTL {
        last_applied::refresh(&mut result, config);
    }
    Ok(result)
}

fn check_config(kind: &Kind, view: View<'_>, config: &Object) -> Result<(), ApplyError> {
    let (group, version) = config.api_version().split_once('/').unwrap_or(("", config.api_version()));
    let gvk = format!("{group}/{version}, Kind={}", config.kind());
    if config.kind() != kind.kind || config.api_version() != kind.api_version() {
        return Err(ApplyError::BadRequest(format!("invalid object type: {gvk}")));
    }
    if managed::list(config).is_some() {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".to_owned()));
    }
    match check::problems(view, config.map()) {
        None => Ok(()),
        Some(problems) => {
            let (namespace, name) = (config.namespace().unwrap_or_default(), config.name());
            Err(ApplyError::Schema(format!(
                "failed to create typed patch object ({namespace}/{name}; {gvk}): {problems}"
            )))
        }
    }
}

/// One apply.
struct Application<'a> {
    kind: &'a Kind,
    view: View<'a>,
    live: Option<&'a Object>,
    config: &'a Object,
    manager: &'a FieldManager<'a>,
    now: DateTime<Utc>,
}

impl Application<'_> {
    fn carry_out(&self, force: bool) -> Result<Object, Vec<Claim>> {
        let reach = Reach::of(self.kind, self.manager.subresource);
        let owner = Owner::new(Operation::Apply, self.manager, self.config.api_version());
        let mut managed = self.owners_so_far(reach);
        let before = managed.take(&owner);
        let fields = reach.limit(extract::object(self.view, self.config.map()));

        let mut live = self.live.cloned().unwrap_or_else(|| self.empty());
        drop(managed::take_list(&mut live));
        let mut result = live.clone();
        merge::maps(self.view, result.map_mut(), self.config.map());
        if let Some(before) = &before {
            self.prune(result.map_mut(), &before.fields, &fields, &managed);
        }

        let (changed, removed) = reach.compare(self.view, live.map(), result.map()).changed();
        if !force {
            let claims: Vec<Claim> = managed
                .0
                .iter()
                .map(|entry| Claim { owner: entry.owner.clone(), fields: entry.fields.intersection(&changed) })
                .filter(|claim| !claim.fields.is_empty())
                .collect();
            if !claims.is_empty() {
                return Err(claims);
            }
        }
        managed.disown(&[&changed, &removed]);
        if !fields.is_empty() {
            let unchanged = before.filter(|before| before.fields == fields && result == live);
            let time = unchanged.map_or_else(|| Some(timestamp(self.now)), |before| before.time);
            managed.0.push(Entry { owner, time, fields });
        } else if self.live.is_none_or(|live| managed::list(live).is_none()) {
            // Still nobody owns anything by applying: no reason to begin.
            managed = Managed::default();
        }
        managed.write(&mut result);
        Ok(result)
    }

    /// Who owned what before. What nobody owned in an object without owners belongs to a manager of its own, so that it is not lost.
    fn owners_so_far(&self, reach: Reach) -> Managed {
        let Some(live) = self.live else { return Managed::default() };
        let mut managed = Managed::stored(managed::list(live).cloned());
        if managed.is_empty() {
            let first = FieldManager { name: BEFORE_FIRST_APPLY, subresource: self.manager.subresource };
            let (all, _) = reach.compare(self.view, &Map::new(), live.map()).changed();
            managed.update(Owner::new(Operation::Update, &first, live.api_version()), all, self.now);
        }
        managed
    }

    fn empty(&self) -> Object {
        let mut empty = Object::new(self.kind, None, "");
        empty.map_mut().remove("metadata");
        empty
    }

    /// Removes from the merged object what the manager applied before, leaves out now, and nobody owns.
    fn prune(&self, merged: &mut Map<String, Value>, before: &FieldSet, now: &FieldSet, others: &Managed) {
        if before.is_within(now) {
            return;
        }
        let named = |set: &FieldSet| extract::with_named_fields(self.view, set.as_ref());
        let all = named(&extract::object(self.view, merged));
        let before = named(before);
        // Who holds a map keeps it there when it becomes empty; applying null is not holding.
        let mut held = extract::object(self.view, &without_nulls(self.config.map()));
        others.0.iter().for_each(|entry| held.add(entry.fields.clone()));
        let mut owned = now.clone();
        owned.add(held.clone());
        // Gone for good is what goes with the manager's fields, is owned by nobody, and was owned by the manager.
        let mut kept = self.without(merged, &before, FieldSetRef::empty());
        kept.add(named(&owned));
        let mut unowned = all.clone();
        unowned.subtract(&kept);
        let mut gone = all;
        gone.subtract(&self.without(merged, &unowned, held.as_ref()));
        merge::remove(self.view, merged, gone.intersection(&before).as_ref(), held.as_ref());
    }

    /// The fields that stay when a set is removed.
    fn without(&self, object: &Map<String, Value>, set: &FieldSet, owned: FieldSetRef<'_>) -> FieldSet {
        let mut rest = object.clone();
        merge::remove(self.view, &mut rest, set.as_ref(), owned);
        extract::with_named_fields(self.view, extract::object(self.view, &rest).as_ref())
    }

    /// kubectl applied these fields itself before, without server-side apply: it may go on.
    fn take_over(&self, claims: Vec<Claim>) -> Result<Object, ApplyError> {
        let Some(own) = self.live.and_then(|live| last_applied::still_as_applied(self.view, live)) else {
            return Err(conflict::error(claims));
        };
        let foreign = claims.into_iter().map(|mut claim| {
            claim.fields.subtract(&own);
            claim
        });
        let foreign: Vec<Claim> = foreign.filter(|claim| !claim.fields.is_empty()).collect();
        if foreign.is_empty() { self.carry_out(true).map_err(conflict::error) } else { Err(conflict::error(foreign)) }
    }
}

fn without_nulls(map: &Map<String, Value>) -> Map<String, Value> {
    let value = |value: &Value| match value {
        Value::Object(map) => Value::Object(without_nulls(map)),
        Value::Array(list) => Value::Array(
            list.iter()
                .map(|element| match element {
                    Value::Object(map) => Value::Object(without_nulls(map)),
                    other => other.clone(),
                })
                .collect(),
        ),
        other => other.clone(),
    };
    map.iter().filter(|(_, field)| !field.is_null()).map(|(key, field)| (key.clone(), value(field))).collect()
}

/// Undoes changes of nothing but times in managedFields: when `new` differs from `old` in nothing else (resourceVersion aside), it
/// gets `old`'s managedFields, so that a write that changes nothing is seen as one.
pub fn keep_times(old: &Object, new: &mut Object) {
    let (Some(before), Some(after)) = (managed::list(old), managed::list(new)) else { return };
    if same_but_for_the_list(old, new) && before != after && same_but_for_times(before, after) {
        let before = before.clone();
        managed::put(new, Some(before));
    }
}

fn same_but_for_times(a: &Value, b: &Value) -> bool {
    // Times decide the order too.
    let timeless = |list: &Value| {
        let entries = list.as_array()?.iter().map(|entry| match entry {
            Value::Object(map) => {
                map.iter().filter(|(field, _)| *field != "time").map(|(f, v)| format!("{f}:{v}")).collect()
            }
            other => other.to_string(),
        });
        let mut entries: Vec<String> = entries.collect();
        entries.sort_unstable();
        Some(entries)
    };
    let lengths = (a.as_array().map(Vec::len), b.as_array().map(Vec::len));
    lengths.0 == lengths.1 && timeless(a) == timeless(b)
}

/// Compares all but managedFields and resourceVersion.
fn same_but_for_the_list(old: &Object, new: &Object) -> bool {
    fn same(a: &Map<String, Value>, b: &Map<String, Value>, skip: &[&str]) -> bool {
        let kept = |map: &Map<String, Value>| map.keys().filter(|key| !skip.contains(&key.as_str())).count();
        let equal = |(key, value): (&String, &Value)| skip.contains(&key.as_str()) || b.get(key) == Some(value);
        kept(a) == kept(b) && a.iter().all(equal)
    }
    match (old.map().get("metadata"), new.map().get("metadata")) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            same(old.map(), new.map(), &["metadata"]) && same(a, b, &["managedFields", "resourceVersion"])
        }
        _ => false,
    }
}
