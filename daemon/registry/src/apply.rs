//! Many declared objects in one transaction: generations of the directory and `reddwarfctl apply`.

use crate::admit::{self, Changed, New, Update, Writer, with_owners};
use crate::counters::Counting;
use crate::delete::{Removal, removal};
use crate::edit::{Gate, Open};
use crate::key::{APPLIED_PREFIX, applied_key, store_key};
use crate::merge::{three_way, wholly};
use crate::namespace::{BUILT_IN, Home, closing, namespace_key};
use crate::ownership::{invalid, source_of};
use crate::part::Part;
use crate::stored::{decode, decode_bytes, encode};
use crate::write::{ATTEMPTS, known, may_grow, transaction, warnings};
use crate::{Author, Registry, RegistryError};
use reddwarf_objects::admission::pod_security::{self, Policy, Template};
use reddwarf_objects::admission::{self, Surroundings, service_account_of};
use reddwarf_objects::apply::{self, FieldManager};
use reddwarf_objects::convert;
use reddwarf_objects::diff::{Change, diff};
use reddwarf_objects::{FieldError, FieldPath, Kind, Object, ObjectKey, SOURCE_ANNOTATION};
use reddwarf_store::{
    CommitError, Committed, Entry, Expect, Key, ListOptions, NewGeneration, Revision, Transaction, Write,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

/// An object as a file or an `apply` declares it.
#[derive(Clone, Debug)]
pub struct Declared {
    /// The object, namespaced; defaulted or not (it is defaulted here).
    pub object: Object,
    /// The declaring file as shown to users; it will own the object. `None` for `reddwarfctl apply`, whose objects
    /// belong to the API.
    pub source: Option<String>,
}

/// Which objects that are not in the set are deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PruneScope {
    /// None.
    #[default]
    Nothing,
    /// Every object that a file owns, except those of the files named here (files that could not be read this time:
    /// what they declared stays).
    FileOwned {
        /// Sources whose objects are kept.
        keep_sources: BTreeSet<String>,
    },
}

/// How to apply a set.
#[derive(Clone, Debug, Default)]
pub struct ApplyOptions {
    /// What else is deleted.
    pub prune: PruneScope,
    /// Work out the verdicts and store nothing.
    pub dry_run: bool,
    /// Recorded in the same transaction.
    pub generation: Option<NewGeneration>,
    /// For the history: `generation of 3 files`.
    pub message: String,
}

/// What became of one object.
#[derive(Debug)]
pub enum Verdict {
    /// Made.
    Created,
    /// Changed in these fields.
    Configured(Vec<Change>),
    /// Was already so.
    Unchanged,
    /// Not applied; the others are.
    Refused(RegistryError),
    /// An object of this name is being deleted; apply the set again once it is gone.
    Pending,
    /// Not in the set any more: deleted, or marked for deletion.
    Deleted,
}

/// One object of an applied set.
#[derive(Debug)]
pub struct Applied {
    /// Which.
    pub key: ObjectKey,
    /// Its declaring file (for `Deleted`: the one that declared it before).
    pub source: Option<String>,
    /// What became of it.
    pub verdict: Verdict,
    /// The object as it is now (dry run: as it would be); its last state when deleted, `None` when refused and absent.
    pub object: Option<Object>,
    /// Fields that have no effect in this version, and what else a person should know.
    pub warnings: Vec<String>,
}

/// The result of [`Registry::apply_set`].
#[derive(Debug)]
pub struct AppliedSet {
    /// In the order given, then the pruned ones in key order.
    pub objects: Vec<Applied>,
    /// The revision that holds all of it.
    pub revision: Revision,
    /// Whether anything was written.
    pub changed: bool,
    /// Number of the generation that was recorded.
    pub generation: Option<u64>,
}

impl Registry {
    /// Applies a set in one transaction. A bad object is refused alone; the others are applied. Objects that the set does
    /// not name are pruned as [`PruneScope`] says. Labels, annotations and fields that neither this nor the last
    /// declaration mentions are kept.
    ///
    /// A [`PruneScope`] is only honoured for [`Author::File`]. An object that an API client made and a file now
    /// declares becomes the file's. A pod that a file declares may change in every field and keeps its uid.
    ///
    /// # Errors
    /// When the store can't be read or written; refusals are verdicts.
    pub async fn apply_set(
        &self,
        author: &Author,
        set: Vec<Declared>,
        options: ApplyOptions,
    ) -> Result<AppliedSet, RegistryError> {
        self.apply_set_through(author, set, options, &mut Open).await
    }

    /// The same for a client: what it declares passes its gate, a verdict each.
    ///
    /// # Errors
    /// As [`Registry::apply_set`].
    pub async fn apply_set_through(
        &self,
        author: &Author,
        set: Vec<Declared>,
        options: ApplyOptions,
        gate: &mut dyn Gate,
    ) -> Result<AppliedSet, RegistryError> {
        let stored = |declared: Declared| Declared { object: convert::to_stored(declared.object), ..declared };
        let set: Vec<Declared> = set.into_iter().map(stored).collect();
        for _ in 0..ATTEMPTS {
            let mut work = Work::new(self, author, &options, gate);
            work.declare(&set)?;
            work.prune(&set)?;
            let Work { transaction, applied, .. } = work;
            let idle = transaction.writes.is_empty() && transaction.generation.is_none();
            if options.dry_run || idle {
                return Ok(AppliedSet {
                    objects: applied,
                    revision: self.revision(),
                    changed: false,
                    generation: None,
                });
            }
            match self.commit(transaction).await {
                Ok(done) => return Ok(self.settle(applied, done).await),
                Err(CommitError::Conflict { .. }) => Counting::add(&self.inner.counting.retries),
                Err(e) => return Err(RegistryError::Commit(e)),
            }
        }
        let key =
            set.first().and_then(|d| Some(d.object.key(d.object.known_kind()?))).unwrap_or(namespace_key("default"));
        Err(RegistryError::Contended { key, attempts: ATTEMPTS })
    }

    /// After the commit: revisions for the written objects, and the contents of namespaces that were pruned.
    async fn settle(&self, mut applied: Vec<Applied>, done: Committed) -> AppliedSet {
        for one in &mut applied {
            let written = matches!(one.verdict, Verdict::Created | Verdict::Configured(_) | Verdict::Deleted);
            if let Some(object) = one.object.as_mut().filter(|_| written) {
                object.set_resource_version(Some(done.revision.get()));
            }
        }
        for key in applied.iter().filter(|a| matches!(a.verdict, Verdict::Deleted)).map(|a| &a.key) {
            if key.resource != "namespaces" || !key.group.is_empty() {
                self.settle_namespace(key).await;
            } else if let Err(error) = self.empty_namespace(&key.name).await {
                tracing::warn!(namespace = %key.name, %error, "a namespace that is being deleted could not be emptied");
            }
        }
        AppliedSet { objects: applied, revision: done.revision, changed: done.changed, generation: done.generation }
    }

    /// The last declared form of an object.
    pub(crate) fn applied_record(&self, key: &Key) -> Result<Option<Record>, RegistryError> {
        self.entry(key)?.map(|entry| Record::decode(&entry)).transpose()
    }
}

/// The last declared form of an object, kept under [`crate::APPLIED_PREFIX`] as long as the object is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The declaring file; absent for `reddwarfctl apply`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    /// As declared.
    pub(crate) object: Object,
}

impl Record {
    fn decode(entry: &Entry) -> Result<Self, RegistryError> {
        serde_json::from_slice(&entry.value)
            .map_err(|e| RegistryError::Damaged { key: entry.key.to_string(), why: e.to_string() })
    }
}

/// One attempt: the transaction being put together and the verdicts so far.
struct Work<'a> {
    registry: &'a Registry,
    author: &'a Author,
    options: &'a ApplyOptions,
    transaction: Transaction,
    applied: Vec<Applied>,
    homes: BTreeMap<String, Home>,
    policies: BTreeMap<String, Policy>,
    gate: &'a mut dyn Gate,
}

/// What one declaration comes to, apart from its verdict's bookkeeping.
struct Outcome {
    verdict: Verdict,
    object: Option<Object>,
    warnings: Vec<String>,
}

impl<'a> Work<'a> {
    fn new(registry: &'a Registry, author: &'a Author, options: &'a ApplyOptions, gate: &'a mut dyn Gate) -> Self {
        let mut transaction = transaction(author, &options.message);
        transaction.generation = options.generation.clone();
        let (homes, policies) = (BTreeMap::new(), BTreeMap::new());
        Self { registry, author, options, transaction, applied: Vec::new(), homes, policies, gate }
    }

    /// Works out every declared object. Namespaces come first, so that objects find those of their own set, and quotas
    /// next, so that these hold for it; the verdicts keep the order given.
    fn declare(&mut self, set: &[Declared]) -> Result<(), RegistryError> {
        let mut seen = BTreeSet::new();
        let rank = |d: &Declared| match (d.object.api_version(), d.object.kind()) {
            ("v1", "Namespace") => 0,
            ("v1", "ResourceQuota") => 1,
            _ => 2,
        };
        let mut order: Vec<usize> = (0..set.len()).collect();
        order.sort_by_key(|i| rank(&set[*i]));
        let mut verdicts: Vec<Option<Applied>> = set.iter().map(|_| None).collect();
        for index in order {
            let declared = &set[index];
            let (key, outcome) = match known(&declared.object) {
                Ok(kind) => {
                    let key = declared.object.key(kind);
                    let fresh = seen.insert(key.clone());
                    let outcome = if fresh {
                        self.one(kind, &key, declared)
                    } else {
                        Err(RegistryError::AlreadyExists(key.clone()))
                    };
                    (key, outcome)
                }
                Err(e) => (unknown_key(&declared.object), Err(e)),
            };
            let outcome = match outcome {
                Ok(outcome) => outcome,
                Err(e @ (RegistryError::Store(_) | RegistryError::Damaged { .. })) => return Err(e),
                Err(e) => {
                    let live = self.registry.find(&key).ok().flatten();
                    Outcome { verdict: Verdict::Refused(e), object: live, warnings: Vec::new() }
                }
            };
            let Outcome { verdict, object, warnings } = outcome;
            let source = declared.source.clone();
            verdicts[index] = Some(Applied { key, source, verdict, object, warnings });
        }
        self.applied.extend(verdicts.into_iter().flatten());
        Ok(())
    }

    fn one(&mut self, kind: &'static Kind, key: &ObjectKey, declared: &Declared) -> Result<Outcome, RegistryError> {
        if key.name.is_empty() {
            let error = FieldError::required(&FieldPath::of("metadata.name"), "name is required to apply an object");
            return Err(invalid(kind, &declared.object, vec![error]));
        }
        let at = store_key(key)?;
        match self.registry.entry(&at)? {
            None => self.create(kind, key, at, declared),
            Some(entry) => {
                let old = decode(&entry)?;
                if old.deletion_timestamp().is_some() {
                    return Ok(Outcome { verdict: Verdict::Pending, object: Some(old), warnings: Vec::new() });
                }
                self.update(kind, key, &entry, &old, declared)
            }
        }
    }

    /// The writer of a declaration: the declaring file, or `reddwarfctl apply`.
    fn writer<'s>(&self, source: Option<&'s str>) -> Writer<'s>
    where
        'a: 's,
    {
        let manager = source.unwrap_or("reddwarfctl");
        let (author, dry_run, now) = (self.author, false, self.registry.now());
        Writer { author, part: Part::Main, version: None, manager, dry_run, now }
    }

    /// What is around a new object, with the account that the same declarations make.
    fn around(&self, kind: &Kind, object: &Object, policy: Policy) -> Result<Surroundings, RegistryError> {
        let mut around = self.registry.around(self.author, kind, object)?;
        if around.service_account.is_none() && kind.is_core("Pod") {
            let key = ObjectKey {
                group: String::new(),
                resource: "serviceaccounts".to_owned(),
                namespace: object.namespace().map(str::to_owned),
                name: service_account_of(object).to_owned(),
            };
            around.service_account = self.written(&key)?.map(Arc::new);
        }
        around.pod_security = policy;
        Ok(around)
    }

    /// An object as the transaction writes it.
    fn written(&self, key: &ObjectKey) -> Result<Option<Object>, RegistryError> {
        let at = store_key(key)?;
        let put = self.transaction.writes.iter().find_map(|(key, write)| match write {
            Write::Put(bytes) if *key == at => Some(bytes),
            _ => None,
        });
        put.map(|bytes| decode_bytes(at.as_str(), bytes, self.registry.revision())).transpose()
    }

    /// What becomes of the pods of a declaration in its namespace, by the same declarations if they write that: they come first.
    fn pod_security(&mut self, kind: &Kind, object: &Object) -> Result<Policy, RegistryError> {
        let namespace = object.namespace().unwrap_or("default");
        if Template::of(kind, object).is_none() {
            return Ok(Policy::default());
        }
        if let Some(policy) = self.policies.get(namespace) {
            return Ok(*policy);
        }
        let policy = match self.written(&namespace_key(namespace))? {
            Some(namespace) => Policy::of(&namespace),
            None => self.registry.pod_security(namespace)?,
        };
        self.policies.insert(namespace.to_owned(), policy);
        Ok(policy)
    }

    fn create(
        &mut self,
        kind: &'static Kind,
        key: &ObjectKey,
        at: Key,
        declared: &Declared,
    ) -> Result<Outcome, RegistryError> {
        let policy = self.pod_security(kind, &declared.object)?;
        let source = declared.source.as_deref();
        let uid = Uuid::new_v4();
        let mut object = declared.object.clone();
        let writer = self.writer(source);
        let (mut new, admitted) = match source {
            Some(_) => {
                own_declared(&writer, kind, None, &declared.object, &mut object);
                (admit::create_declared(&writer, kind, object, source, uid)?, Vec::new())
            }
            None => {
                let around = self.around(kind, &object, policy)?;
                let New { object, owners, warnings } = admit::create(&writer, kind, object, uid, &around, self.gate)?;
                (with_owners(object, owners), warnings)
            }
        };
        let promises = self.registry.allocate(kind, Some(&declared.object), None, &mut new, &self.transaction)?;
        let home = match &key.namespace {
            None => Home::Cluster,
            Some(namespace) => self.home(namespace)?,
        };
        if let Home::Closing { .. } = home {
            return Ok(Outcome { verdict: Verdict::Pending, object: None, warnings: Vec::new() });
        }
        self.hold(home.open(key)?);
        if kind.is_core("Namespace") {
            self.homes.insert(key.name.clone(), Home::Cluster);
        }
        if source.is_none() {
            self.registry.charge(kind, None, &new, &mut self.transaction)?;
        }
        self.transaction.expect.push((at.clone(), Expect::Absent));
        self.transaction.writes.push((at, Write::Put(encode(&new))));
        promises.add_to(&mut self.transaction);
        self.remember(key, None, declared)?;
        let warnings = told(kind, &new, source, policy, admitted);
        Ok(Outcome { verdict: Verdict::Created, object: Some(new), warnings })
    }

    fn update(
        &mut self,
        kind: &'static Kind,
        key: &ObjectKey,
        entry: &Entry,
        old: &Object,
        declared: &Declared,
    ) -> Result<Outcome, RegistryError> {
        let policy = self.pod_security(kind, &declared.object)?;
        let record = self.registry.applied_record(&applied_key(key)?)?;
        let last = record.as_ref().map(|r| &r.object);
        let wanted = without_server_fields(kind, &declared.object);
        let source = declared.source.as_deref();
        let writer = self.writer(source);
        let mut merged = match source {
            Some(_) => wholly(kind, old, last, &wanted),
            None => {
                let mut merged = three_way(old, last, &wanted);
                admission::keep(kind, old, &mut merged);
                merged
            }
        };
        // Declared as before and already so: the owners are as they were.
        let known = record.as_ref().is_some_and(|r| r.source == declared.source && r.object == wanted);
        if source.is_some() && !(known && merged == *old) {
            own_declared(&writer, kind, Some(old), &wanted, &mut merged);
        }
        let pod_security = if source.is_none() { policy } else { Policy::default() };
        let update = Update { source, declared: last, applied: source.is_some(), pod_security };
        let changed = admit::update(&writer, kind, old, merged, &update, self.gate)?;
        let Changed { object: mut new, warnings: mut admitted } = changed;
        self.registry.check_change(self.author, kind, writer.part, old, &new)?;
        admitted.extend(self.registry.beyond_new_levels(kind, writer.part, old, &new)?);
        let promises = self.registry.allocate(kind, None, Some(old), &mut new, &self.transaction)?;
        let warnings = told(kind, &new, source, policy, admitted);
        if new == *old {
            // Another declaration of the same object: remembered, but no version of the object.
            if record.is_none_or(|r| r.source != declared.source || r.object != wanted) {
                self.remember(key, Some(old), declared)?;
            }
            Counting::add(&self.registry.inner.counting.unchanged);
            return Ok(Outcome { verdict: Verdict::Unchanged, object: Some(new), warnings });
        }
        if source.is_none() && may_grow(kind, writer.part) {
            self.registry.charge(kind, Some(old), &new, &mut self.transaction)?;
        }
        self.transaction.expect.push((entry.key.clone(), Expect::AtRevision(entry.modified)));
        self.transaction.writes.push((entry.key.clone(), Write::Put(encode(&new))));
        promises.add_to(&mut self.transaction);
        self.remember(key, Some(old), declared)?;
        Ok(Outcome { verdict: Verdict::Configured(diff(kind, old, &new)), object: Some(new), warnings })
    }

    /// Deletes what files declared before and the set does not name any more.
    fn prune(&mut self, set: &[Declared]) -> Result<(), RegistryError> {
        let (Author::File(_), PruneScope::FileOwned { keep_sources }) = (self.author, &self.options.prune) else {
            return Ok(());
        };
        let named: BTreeSet<Key> =
            set.iter().filter_map(|d| applied_key(&d.object.key(d.object.known_kind()?)).ok()).collect();
        let page = self.registry.page(APPLIED_PREFIX, &ListOptions::default())?;
        let mut gone = Vec::new();
        for entry in page.entries.iter().filter(|e| !named.contains(&e.key)) {
            let record = Record::decode(entry)?;
            if let Some(source) = record.source.filter(|s| !keep_sources.contains(s))
                && let Some(kind) = record.object.known_kind()
            {
                gone.push((kind, record.object.key(kind), source));
            }
        }
        for (kind, key, source) in &gone {
            if let Some((verdict, object)) = self.prune_one(kind, key, source)? {
                let (key, source) = (key.clone(), Some(source.clone()));
                self.applied.push(Applied { key, source, verdict, object, warnings: Vec::new() });
            }
        }
        Ok(())
    }

    fn prune_one(
        &mut self,
        kind: &'static Kind,
        key: &ObjectKey,
        source: &str,
    ) -> Result<Option<(Verdict, Option<Object>)>, RegistryError> {
        let at = store_key(key)?;
        let Some(entry) = self.registry.entry(&at)? else {
            self.transaction.writes.push((applied_key(key)?, Write::Delete));
            return Ok(None);
        };
        let old = decode(&entry)?;
        if source_of(&old) != Some(source) {
            return Ok(None);
        }
        let new = if !kind.is_core("Namespace") {
            match removal(kind, &old, None, None, self.registry.now()) {
                Removal::Nothing => return Ok(None),
                Removal::Now => None,
                Removal::Mark(new) => Some(*new),
            }
        } else if BUILT_IN.contains(&key.name.as_str()) {
            return self.disown(key, &entry, old).map(Some);
        } else if let Some(text) = self.still_needed(&key.name)? {
            let refused = RegistryError::Forbidden { key: key.clone(), message: text };
            return Ok(Some((Verdict::Refused(refused), Some(old))));
        } else if old.deletion_timestamp().is_some() {
            return Ok(None);
        } else {
            Some(closing(&old, self.registry.now()))
        };
        self.transaction.expect.push((at.clone(), Expect::AtRevision(entry.modified)));
        match &new {
            Some(new) => self.transaction.writes.push((at, Write::Put(encode(new)))),
            None => {
                self.transaction.writes.push((at, Write::Delete));
                self.transaction.writes.push((applied_key(key)?, Write::Delete));
                self.registry.released(kind, &old).add_to(&mut self.transaction);
            }
        }
        Ok(Some((Verdict::Deleted, Some(new.unwrap_or(old)))))
    }

    /// A namespace that is always there is not deleted with its file, it only ceases to be the file's.
    fn disown(
        &mut self,
        key: &ObjectKey,
        entry: &Entry,
        old: Object,
    ) -> Result<(Verdict, Option<Object>), RegistryError> {
        let mut new = old.clone();
        new.remove_annotation(SOURCE_ANNOTATION);
        self.transaction.expect.push((entry.key.clone(), Expect::AtRevision(entry.modified)));
        self.transaction.writes.push((entry.key.clone(), Write::Put(encode(&new))));
        self.transaction.writes.push((applied_key(key)?, Write::Delete));
        let changes = match old.known_kind() {
            Some(kind) => diff(kind, &old, &new),
            None => Vec::new(),
        };
        Ok((Verdict::Configured(changes), Some(new)))
    }

    /// Why a namespace whose file is gone stays: files still declare something in it.
    fn still_needed(&self, namespace: &str) -> Result<Option<String>, RegistryError> {
        let in_set = self.applied.iter().find(|a| {
            a.key.namespace.as_deref() == Some(namespace)
                && !matches!(a.verdict, Verdict::Deleted | Verdict::Refused(_))
        });
        if let Some(Applied { key, source, .. }) = in_set {
            let by = source.as_deref().unwrap_or("an API client");
            return Ok(Some(format!("no file declares it any more, but {by} still declares {key} in it")));
        }
        let PruneScope::FileOwned { keep_sources } = &self.options.prune else { return Ok(None) };
        let kept = self.registry.declared_in(namespace)?.into_iter().find(|(_, source)| keep_sources.contains(source));
        Ok(kept.map(|(key, by)| format!("no file declares it any more, but {by} still declares {key} in it")))
    }

    fn home(&mut self, namespace: &str) -> Result<Home, RegistryError> {
        if let Some(home) = self.homes.get(namespace) {
            return Ok(home.clone());
        }
        let home = self.registry.namespace_home(namespace)?;
        self.homes.insert(namespace.to_owned(), home.clone());
        Ok(home)
    }

    /// Holds a namespace for the transaction, once, unless the transaction writes it itself.
    fn hold(&mut self, home: Home) {
        if let Home::Open { key, revision } = home
            && !self.transaction.expect.iter().any(|(held, _)| *held == key)
        {
            self.transaction.expect.push((key, Expect::AtRevision(revision)));
        }
    }

    /// Keeps the declared form as the base of the next merge. What a file declared is not replaced by what an API client
    /// adds to it.
    fn remember(&mut self, key: &ObjectKey, old: Option<&Object>, declared: &Declared) -> Result<(), RegistryError> {
        let Some(kind) = declared.object.known_kind() else { return Ok(()) };
        if declared.source.is_none() && old.and_then(source_of).is_some() {
            return Ok(());
        }
        let record = Record { source: declared.source.clone(), object: without_server_fields(kind, &declared.object) };
        let text = serde_json::to_vec(&record).map_err(|e| RegistryError::BadRequest(e.to_string()))?;
        self.transaction.writes.push((applied_key(key)?, Write::Put(text.into())));
        Ok(())
    }
}

/// What is to be said of a declaration. A file's pods run whatever their namespace enforces; but the pods of its Deployments are
/// refused, and somebody should know why.
fn told(kind: &Kind, new: &Object, source: Option<&str>, policy: Policy, admitted: Vec<String>) -> Vec<String> {
    let mut said = warnings(kind, new);
    said.extend(admitted);
    said.extend(source.and_then(|_| pod_security::warning(&policy, kind, new)));
    said
}

/// Records in `result` that the declaring file owns what it declares, as if it had applied it. What managers own decides over
/// nothing that a file declares, so what can't be recorded is left out.
fn own_declared(writer: &Writer<'_>, kind: &Kind, live: Option<&Object>, declared: &Object, result: &mut Object) {
    let manager = FieldManager { name: writer.manager, subresource: None };
    let applied = apply::apply(kind, live, declared, &manager, true, writer.now);
    let owners = applied.ok().and_then(|object| object.get("/metadata/managedFields").cloned());
    match owners {
        Some(owners) => result.set("/metadata/managedFields", owners),
        None => drop(result.remove("/metadata/managedFields")),
    }
}

/// The declaration without what is not its business: status and what the server writes into metadata.
fn without_server_fields(kind: &Kind, declared: &Object) -> Object {
    let mut wanted = declared.clone();
    if kind.has_status() {
        wanted.set_status(None);
    }
    for field in admit::SERVER_METADATA {
        wanted.remove(&format!("/metadata/{field}"));
    }
    wanted
}

/// A key for the verdict on an object of a kind that we do not know.
fn unknown_key(object: &Object) -> ObjectKey {
    let group = object.api_version().split_once('/').map_or("", |(group, _)| group);
    ObjectKey {
        group: group.to_owned(),
        resource: object.kind().to_ascii_lowercase(),
        namespace: object.namespace().map(str::to_owned),
        name: object.name().to_owned(),
    }
}
