//! Creating and changing single objects: read, edit, admit, compare-and-swap, and again when somebody was faster.

use crate::admit::{self, Changed, New, Writer, with_owners};
use crate::counters::Counting;
use crate::delete::goes_now;
use crate::edit::{Edit, Editor, Gate, Open, Patch};
use crate::key::{applied_key, kind_of, store_key};
use crate::namespace::Home;
use crate::ownership::{invalid, source_of};
use crate::part::Part;
use crate::service::Promises;
use crate::stored::{decode, encode, encode_with};
use crate::{Author, RawObject, Registry, RegistryError, scale};
use bytes::Bytes;
use reddwarf_objects::convert;
use reddwarf_objects::{FieldError, FieldPath, FieldReason, Kind, Object, ObjectKey, names, pod, validate};
use reddwarf_store::{CommitError, Committed, Entry, Key, Revision, Transaction};
use serde_json::Value;
use uuid::Uuid;

/// How often an unconditional write is repeated when others keep changing the object. Each failure means that another
/// writer succeeded, so this only bounds a fight.
pub(crate) const ATTEMPTS: u32 = 1000;
/// How often a generated name may be taken already (as in the reference).
const NAME_ATTEMPTS: u32 = 8;

/// How to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Do everything but store.
    pub dry_run: bool,
    /// Who owns the written fields in managedFields; by the author's name when absent.
    pub manager: Option<String>,
    /// Server-side apply takes over fields that others own.
    pub force: bool,
    /// The version that the writer speaks; when absent, that of the object it sends, or the stored one.
    pub version: Option<&'static Kind>,
}

impl WriteOptions {
    /// The field manager of a write of `author`.
    pub(crate) fn manager(&self, author: &Author) -> String {
        self.manager.clone().unwrap_or_else(|| author.manager())
    }
}

/// A write that was carried out.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object as it is now, resourceVersion filled in.
    pub object: Object,
    /// The same as it is stored now, when something was stored: an answer needs no printing.
    pub stored: Option<RawObject>,
    /// Whether anything differs from before; an identical write makes no version.
    pub changed: bool,
    /// The object was not there before.
    pub created: bool,
    /// Removing the last finalizer removed the object; `object` is its last state.
    pub deleted: bool,
    /// Fields that have no effect in this version, and what else its writer should know: for `Warning` headers and terminals.
    pub warnings: Vec<String>,
}

impl Written {
    /// With what admission says to the writer.
    fn told(mut self, warnings: &[String]) -> Self {
        self.warnings.extend_from_slice(warnings);
        self
    }
}

/// A create that was carried out. Its managedFields were stored as text, and are read into the object for those only who
/// need them there: who answers with what was stored does not.
struct Created {
    written: Written,
    owners: Option<Vec<u8>>,
}

impl Created {
    fn whole(self) -> Written {
        let Self { written, owners } = self;
        Written { object: with_owners(written.object, owners), ..written }
    }
}

/// The read half of a write.
struct Found {
    entry: Entry,
    object: Object,
}

impl Registry {
    /// Creates an object: its namespace must exist, `generateName` is honoured, status is dropped unless the daemon itself
    /// writes.
    ///
    /// # Errors
    /// [`RegistryError::AlreadyExists`], [`RegistryError::Invalid`], [`RegistryError::NotFound`] for the namespace,
    /// [`RegistryError::Terminating`] while that is being deleted.
    pub async fn create(
        &self,
        author: &Author,
        object: Object,
        options: WriteOptions,
    ) -> Result<Written, RegistryError> {
        Ok(self.create_any(author, object, &options, &mut Open).await?.whole())
    }

    /// The same through a gate. Of what was stored, managedFields are only in [`Written::stored`].
    ///
    /// # Errors
    /// As [`Registry::create`], and the gate's refusals.
    pub async fn create_through(
        &self,
        author: &Author,
        object: Object,
        options: &WriteOptions,
        gate: &mut dyn Gate,
    ) -> Result<Written, RegistryError> {
        Ok(self.create_any(author, object, options, gate).await?.written)
    }

    async fn create_any(
        &self,
        author: &Author,
        object: Object,
        options: &WriteOptions,
        gate: &mut dyn Gate,
    ) -> Result<Created, RegistryError> {
        let options = &WriteOptions { version: object.known_kind(), ..options.clone() };
        let object = convert::to_stored(object);
        if !object.name().is_empty() {
            return self.create_named(author, object, options, gate).await;
        }
        let kind = known(&object)?;
        for attempt in 1.. {
            let named = name(kind, object.clone(), Uuid::new_v4().as_u64_pair().0)?;
            match self.create_named(author, named, options, gate).await {
                Err(RegistryError::AlreadyExists(_)) if attempt < NAME_ATTEMPTS => {}
                done => return done,
            }
        }
        Err(RegistryError::AlreadyExists(object.key(kind)))
    }

    async fn create_named(
        &self,
        author: &Author,
        object: Object,
        options: &WriteOptions,
        gate: &mut dyn Gate,
    ) -> Result<Created, RegistryError> {
        let kind = known(&object)?;
        let manager = options.manager(author);
        let (version, dry_run) = (options.version, options.dry_run);
        let writer = Writer { author, part: Part::Main, version, manager: &manager, dry_run, now: self.now() };
        self.check_home(kind, &object)?;
        let around = self.around(author, kind, &object)?;
        let asked = Self::asked(kind, &object);
        let new = admit::create(&writer, kind, object, Uuid::new_v4(), &around, gate)?;
        self.store_new(author, kind, (asked.as_ref(), new), options.dry_run).await
    }

    /// Stores an admitted object that is not there yet.
    async fn store_new(
        &self,
        author: &Author,
        kind: &'static Kind,
        (asked, admitted): (Option<&Object>, New),
        dry_run: bool,
    ) -> Result<Created, RegistryError> {
        let New { object: mut new, owners, warnings } = admitted;
        let told = |written: Written| {
            let mut said = self::warnings(kind, &written.object);
            said.extend_from_slice(&warnings);
            Written { created: true, ..written }.told(&said)
        };
        let key = new.key(kind);
        let at = store_key(&key)?;
        for _ in 0..ATTEMPTS {
            let home = self.home(&key)?.open(&key)?;
            // What is given addresses is given others with the next attempt.
            let before = kind.is_core("Service").then(|| new.clone());
            let create = transaction(author, &format!("create {key}"));
            let promises = match self.allocate(kind, asked, None, &mut new, &create) {
                Err(_) if self.entry(&at)?.is_some() => return Err(RegistryError::AlreadyExists(key)),
                done => done?,
            };
            let bytes = encode_with(&new, owners.as_deref());
            let mut create = promises.hold(create.create(at.clone(), bytes.clone()));
            self.charge(kind, None, &new, &mut create)?;
            if dry_run {
                return match self.entry(&at)? {
                    Some(_) => Err(RegistryError::AlreadyExists(key)),
                    // Nothing is stored that an answer could be written from.
                    None => {
                        let object = with_owners(new, owners);
                        Ok(Created { written: told(written(object, None, None)), owners: None })
                    }
                };
            }
            match self.commit(home.hold(create)).await {
                Ok(done) => {
                    let written = told(written(new, Some(done), Some((at, bytes))));
                    return Ok(Created { written, owners });
                }
                Err(CommitError::Conflict { key: taken, .. }) if taken == at => {
                    return Err(RegistryError::AlreadyExists(key));
                }
                // The namespace changed in between, or an address was taken: look again.
                Err(CommitError::Conflict { .. }) => {
                    Counting::add(&self.inner.counting.retries);
                    new = before.unwrap_or(new);
                }
                Err(e) => return Err(RegistryError::Commit(e)),
            }
        }
        Err(RegistryError::Contended { key, attempts: ATTEMPTS })
    }

    /// Replaces everything but status. With a resourceVersion in the object only if that is still the current one;
    /// without, whatever is there.
    ///
    /// # Errors
    /// [`RegistryError::Conflict`], [`RegistryError::NotFound`], [`RegistryError::Invalid`],
    /// [`RegistryError::FileOwned`].
    pub async fn update(
        &self,
        author: &Author,
        object: Object,
        options: WriteOptions,
    ) -> Result<Written, RegistryError> {
        let key = object.key(known(&object)?);
        self.write(author, &key, Part::Main, Edit::Replace(object), &options, &mut Open).await
    }

    /// Replaces status only (also on objects that a file owns).
    ///
    /// # Errors
    /// As [`Registry::update`].
    pub async fn update_status(
        &self,
        author: &Author,
        object: Object,
        options: WriteOptions,
    ) -> Result<Written, RegistryError> {
        let key = object.key(known(&object)?);
        self.write(author, &key, Part::Status, Edit::Replace(object), &options, &mut Open).await
    }

    /// Patches a part of an object: one code path for the four kinds of patch. Repeated on conflict, unless the patch names a
    /// resourceVersion.
    ///
    /// # Errors
    /// As [`Registry::update`], [`RegistryError::Patch`], [`RegistryError::Apply`].
    pub async fn patch(
        &self,
        author: &Author,
        key: &ObjectKey,
        part: Part,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Written, RegistryError> {
        self.write(author, key, part, Edit::Patch(patch), options, &mut Open).await
    }

    /// Replaces or patches a part of an object, through a gate.
    ///
    /// # Errors
    /// As [`Registry::patch`], and the gate's refusals.
    pub async fn write(
        &self,
        author: &Author,
        key: &ObjectKey,
        part: Part,
        edit: Edit,
        options: &WriteOptions,
        gate: &mut dyn Gate,
    ) -> Result<Written, RegistryError> {
        let kind = kind_of(key)?;
        let replaced = match &edit {
            Edit::Replace(object) => object.known_kind(),
            Edit::Patch(_) => None,
        };
        let version = options.version.or(replaced).unwrap_or(kind);
        let edit = edit.to_stored();
        let manager = options.manager(author);
        let (force, dry_run) = (options.force, options.dry_run);
        let writer = Writer { author, part, version: Some(version), manager: &manager, dry_run, now: self.now() };
        for _ in 0..ATTEMPTS {
            let editor = Editor { kind, version, part, manager: &manager, force, dry_run, now: self.now() };
            let Some(found) = self.read(key)? else {
                return self.write_absent(&writer, &editor, key, edit, gate).await;
            };
            let (wanted, applied) = match &edit {
                Edit::Replace(scale) if part == Part::Scale => (scale::wanted(kind, &scale.value())?, false),
                Edit::Replace(object) => (object.clone(), false),
                Edit::Patch(patch) => (editor.patched(patch, &found.object, gate)?, matches!(patch, Patch::Apply(_))),
            };
            check_version(kind, key, &found, &wanted, matches!(edit, Edit::Replace(_)))?;
            if let Some(done) = self.swap(&writer, kind, key, found, wanted, applied, gate).await? {
                return Ok(done);
            }
        }
        Err(RegistryError::Contended { key: key.clone(), attempts: ATTEMPTS })
    }

    /// What a write of an object that is not there comes to: apply makes it, and so does PUT for some kinds.
    async fn write_absent(
        &self,
        writer: &Writer<'_>,
        editor: &Editor<'_>,
        key: &ObjectKey,
        edit: Edit,
        gate: &mut dyn Gate,
    ) -> Result<Written, RegistryError> {
        let kind = kind_of(key)?;
        let not_found = || RegistryError::NotFound(key.clone());
        let (object, applied) = match edit {
            _ if writer.part != Part::Main => return Err(not_found()),
            Edit::Replace(object) => {
                if !created_by_update(kind) {
                    return Err(not_found());
                }
                if object.get_str("/metadata/resourceVersion").is_some_and(|v| !matches!(v, "" | "0")) {
                    return Err(RegistryError::Conflict(key.clone()));
                }
                (object, false)
            }
            Edit::Patch(Patch::Apply(config)) => {
                if config.uid().is_some() {
                    return Err(RegistryError::Conflict(key.clone()));
                }
                let object = editor.applied(&config, None)?;
                (gate.decode(kind, &Patch::Apply(config), object.into_value())?, true)
            }
            Edit::Patch(_) => return Err(not_found()),
        };
        let uid = Uuid::new_v4();
        self.check_home(kind, &object)?;
        let around = self.around(writer.author, kind, &object)?;
        let asked = Self::asked(kind, &object);
        let new = if applied {
            admit::create_applied(writer, kind, object, uid, &around, gate)?
        } else {
            admit::create(writer, kind, object, uid, &around, gate)?
        };
        self.store_new(writer.author, kind, (asked.as_ref(), new), writer.dry_run).await.map(Created::whole)
    }

    /// What a client said of a service, before defaults: families follow from it. Of other kinds nothing matters.
    fn asked(kind: &Kind, object: &Object) -> Option<Object> {
        kind.is_core("Service").then(|| object.clone())
    }

    /// Reads the object, lets `change` edit everything but status, and writes it; repeated on conflict. `change` may
    /// run several times.
    ///
    /// # Errors
    /// As [`Registry::update`].
    pub async fn modify<F>(&self, author: &Author, key: &ObjectKey, change: F) -> Result<Written, RegistryError>
    where
        F: FnMut(&mut Object) + Send,
    {
        self.modify_part(author, key, Part::Main, change).await
    }

    /// The same for status only. `change` gets the whole object; only its status is kept.
    ///
    /// # Errors
    /// As [`Registry::update`].
    pub async fn modify_status<F>(&self, author: &Author, key: &ObjectKey, change: F) -> Result<Written, RegistryError>
    where
        F: FnMut(&mut Object) + Send,
    {
        self.modify_part(author, key, Part::Status, change).await
    }

    /// The same for any part.
    ///
    /// # Errors
    /// As [`Registry::update`].
    pub async fn modify_part<F>(
        &self,
        author: &Author,
        key: &ObjectKey,
        part: Part,
        mut change: F,
    ) -> Result<Written, RegistryError>
    where
        F: FnMut(&mut Object) + Send,
    {
        let kind = kind_of(key)?;
        let manager = author.manager();
        let writer = Writer { author, part, version: None, manager: &manager, dry_run: false, now: self.now() };
        for _ in 0..ATTEMPTS {
            let found = self.read(key)?.ok_or_else(|| RegistryError::NotFound(key.clone()))?;
            let mut wanted = found.object.clone();
            change(&mut wanted);
            if wanted == found.object {
                Counting::add(&self.inner.counting.unchanged);
                return Ok(unchanged(found.object));
            }
            if let Some(done) = self.swap(&writer, kind, key, found, wanted, false, &mut Open).await? {
                return Ok(done);
            }
        }
        Err(RegistryError::Contended { key: key.clone(), attempts: ATTEMPTS })
    }

    fn read(&self, key: &ObjectKey) -> Result<Option<Found>, RegistryError> {
        let Some(entry) = self.entry(&store_key(key)?)? else { return Ok(None) };
        let object = decode(&entry)?;
        Ok(Some(Found { entry, object }))
    }

    /// Admits what is wanted instead of what was found, and stores it. None when somebody else wrote in between.
    #[allow(clippy::too_many_arguments, reason = "one step of the two loops above, with all they know")]
    async fn swap(
        &self,
        writer: &Writer<'_>,
        kind: &'static Kind,
        key: &ObjectKey,
        found: Found,
        wanted: Object,
        applied: bool,
        gate: &mut dyn Gate,
    ) -> Result<Option<Written>, RegistryError> {
        let Found { entry, object: old } = found;
        let declared = self.applied(writer.author, &old, key)?;
        let pod_security = self.levels(writer.author, kind, writer.part, &old)?;
        let update = admit::Update { source: None, declared: declared.as_ref(), applied, pod_security };
        let changed = admit::update(writer, kind, &old, wanted, &update, gate).map_err(|e| self.with_line(e))?;
        let Changed { object: mut new, warnings: admitted } = changed;
        self.check_change(writer.author, kind, writer.part, &old, &new)?;
        let mut warnings = warnings_of_update(writer.part, kind, &old, &new);
        warnings.extend(admitted);
        warnings.extend(self.beyond_new_levels(kind, writer.part, &old, &new)?);
        let promises = match writer.part {
            Part::Main => self.allocate(kind, None, Some(&old), &mut new, &transaction(writer.author, ""))?,
            _ => Promises::default(),
        };
        if new == old {
            Counting::add(&self.inner.counting.unchanged);
            return Ok(Some(unchanged(old).told(&warnings)));
        }
        let deleted = goes_now(kind, &new);
        let bytes = encode(&new);
        let transaction = if deleted {
            self.removal(writer.author, key, entry.modified)?
        } else {
            let update = transaction(writer.author, &format!("update {key}"));
            let mut update = promises.hold(update.replace(entry.key.clone(), entry.modified, bytes.clone()));
            if may_grow(kind, writer.part) {
                self.charge(kind, Some(&old), &new, &mut update)?;
            }
            update
        };
        if writer.dry_run {
            warnings.extend(self.rehearsed(writer.author, kind, &old, &new, declared.as_ref()));
            let mut done = Written { deleted, ..written(new, None, None).told(&warnings) };
            done.object.set_resource_version(Some(entry.modified.get()));
            return Ok(Some(done));
        }
        match self.commit(transaction).await {
            Ok(done) => {
                if deleted || new.deletion_timestamp().is_some() {
                    self.settle_namespace(key).await;
                }
                let stored = Some((entry.key, bytes));
                Ok(Some(Written { deleted, ..written(new, Some(done), stored).told(&warnings) }))
            }
            Err(CommitError::Conflict { .. }) => {
                Counting::add(&self.inner.counting.retries);
                Ok(None)
            }
            Err(e) => Err(RegistryError::Commit(e)),
        }
    }

    /// The form in which a file last declared an object; only read where it decides something.
    fn applied(&self, author: &Author, old: &Object, key: &ObjectKey) -> Result<Option<Object>, RegistryError> {
        if !author.is_api() || source_of(old).is_none() {
            return Ok(None);
        }
        Ok(self.applied_record(&applied_key(key)?)?.map(|record| record.object))
    }

    /// A transaction that removes an object last changed at `revision`, and what we remember of its declaration.
    pub(crate) fn removal(
        &self,
        author: &Author,
        key: &ObjectKey,
        revision: Revision,
    ) -> Result<Transaction, RegistryError> {
        let at = store_key(key)?;
        let removal = transaction(author, &format!("delete {key}"))
            .expect(at.clone(), reddwarf_store::Expect::AtRevision(revision))
            .delete(at)
            .delete(applied_key(key)?);
        // What was read at another revision makes the transaction conflict.
        let kind = kind_of(key)?;
        let promises = if kind.is_core("Service") {
            self.read(key)?.map(|found| self.released(kind, &found.object)).unwrap_or_default()
        } else {
            Promises::default()
        };
        Ok(promises.hold(removal))
    }

    /// Sends a transaction, counted.
    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        Counting::add(&self.inner.counting.commits);
        self.inner.store.commit(transaction).await
    }

    /// Refuses an object whose namespace is not there or takes nothing: before its fields are looked at, as the reference. The
    /// transaction that stores it asks again.
    fn check_home(&self, kind: &Kind, object: &Object) -> Result<(), RegistryError> {
        let mut key = object.key(kind);
        if kind.namespaced {
            key.namespace.get_or_insert_with(|| "default".to_owned());
        }
        self.home(&key)?.open(&key).map(drop)
    }

    /// The namespace an object would live in, as it is now.
    pub(crate) fn home(&self, key: &ObjectKey) -> Result<Home, RegistryError> {
        match &key.namespace {
            None => Ok(Home::Cluster),
            Some(namespace) => self.inner.homes.get(self, namespace, || self.namespace_home(namespace)),
        }
    }
}

/// An empty transaction for the history.
pub(crate) fn transaction(author: &Author, message: &str) -> Transaction {
    Transaction::new(author.to_string(), message)
}

/// The kind of an object that somebody sent.
pub(crate) fn known(object: &Object) -> Result<&'static Kind, RegistryError> {
    object.known_kind().ok_or_else(|| {
        let text = format!("no matches for kind \"{}\" in version \"{}\"", object.kind(), object.api_version());
        RegistryError::BadRequest(text)
    })
}

/// Gives a nameless object its generated name; without `generateName` either, that is an error.
fn name(kind: &Kind, mut object: Object, entropy: u64) -> Result<Object, RegistryError> {
    if !object.name().is_empty() {
        return Ok(object);
    }
    match object.generate_name().map(str::to_owned) {
        Some(prefix) => object.set_name(&names::generate_name(&prefix, entropy)),
        None => {
            let error = FieldError::required(&FieldPath::of("metadata.name"), "name or generateName is required");
            return Err(invalid(kind, &object, vec![error]));
        }
    }
    Ok(object)
}

/// Refuses a write of a version that is not the current one. Without a version whatever is there is written over, but for
/// the kinds where a PUT must name it.
fn check_version(
    kind: &Kind,
    key: &ObjectKey,
    found: &Found,
    wanted: &Object,
    replaces: bool,
) -> Result<(), RegistryError> {
    match wanted.get("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default() {
        "" | "0" if replaces && conditional_update(kind) => {
            let path = FieldPath::of("metadata.resourceVersion");
            let mut error = FieldError::invalid(&path, "", "must be specified for an update");
            error.reason = FieldReason::Invalid;
            error.value = Some("0x0".to_owned());
            Err(invalid(kind, wanted, vec![error]))
        }
        "" | "0" => Ok(()),
        text => match text.parse::<Revision>() {
            Ok(version) if version == found.entry.modified => Ok(()),
            Ok(_) => Err(RegistryError::Conflict(key.clone())),
            Err(_) => {
                let path = FieldPath::of("metadata.resourceVersion");
                let message = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
                Err(invalid(kind, wanted, vec![FieldError::invalid(&path, text, message)]))
            }
        },
    }
}

/// Kinds of which a PUT makes what is not there, as in the reference.
fn created_by_update(kind: &Kind) -> bool {
    match kind.group {
        "" => matches!(kind.kind, "Endpoints" | "Event" | "LimitRange" | "Service"),
        "coordination.k8s.io" => kind.kind == "Lease",
        "events.k8s.io" => true,
        "node.k8s.io" => kind.kind == "RuntimeClass",
        "rbac.authorization.k8s.io" => true,
        _ => false,
    }
}

/// Kinds whose PUT must name the version that it replaces, as in the reference.
fn conditional_update(kind: &Kind) -> bool {
    match kind.group {
        "coordination.k8s.io" => kind.kind == "Lease",
        "policy" => kind.kind == "PodDisruptionBudget",
        "node.k8s.io" => kind.kind == "RuntimeClass",
        "apiextensions.k8s.io" | "apiregistration.k8s.io" | "admissionregistration.k8s.io" => true,
        _ => false,
    }
}

/// Can a write of this part make an object use more of a quota?
pub(crate) fn may_grow(kind: &Kind, part: Part) -> bool {
    match part {
        Part::Main => kind.is_core("PersistentVolumeClaim") || kind.is_core("Service"),
        Part::Resize => kind.is_core("Pod"),
        _ => false,
    }
}

/// The answer to a write that was carried out (`done`) or rehearsed.
fn written(mut object: Object, done: Option<Committed>, stored: Option<(Key, Bytes)>) -> Written {
    let revision = done.map(|done| done.revision);
    object.set_resource_version(revision.map(Revision::get));
    let stored = stored.zip(revision).map(|((key, bytes), revision)| RawObject { key, bytes, revision });
    Written { object, stored, changed: true, created: false, deleted: false, warnings: Vec::new() }
}

/// The answer to a write that changes nothing.
fn unchanged(object: Object) -> Written {
    Written { object, stored: None, changed: false, created: false, deleted: false, warnings: Vec::new() }
}

/// What the reference warns of, and fields that are accepted and have no effect in this version: never in silence.
pub(crate) fn warnings(kind: &Kind, object: &Object) -> Vec<String> {
    let mut warnings = validate::warnings(kind, object);
    warnings.extend(without_effect(kind, object));
    warnings
}

/// The same of a change: nothing where only a status, or another part that says nothing of what is wanted, is written.
fn warnings_of_update(part: Part, kind: &Kind, old: &Object, new: &Object) -> Vec<String> {
    match part {
        Part::Main | Part::Scale => {
            let mut warnings = validate::warnings_of_update(kind, old, new);
            warnings.extend(without_effect(kind, new));
            warnings
        }
        Part::EphemeralContainers | Part::Resize => without_effect(kind, new),
        Part::Status | Part::Approval | Part::Finalize => Vec::new(),
    }
}

fn without_effect(kind: &Kind, object: &Object) -> Vec<String> {
    let found = if kind.is_core("Pod") { pod::not_yet_supported(object) } else { Vec::new() };
    found.into_iter().map(|(path, text)| format!("{path}: {text}")).collect()
}
