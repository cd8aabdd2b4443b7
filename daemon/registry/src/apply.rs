//! Many declared objects in one transaction: generations of the directory and `reddwarfctl apply`.

use crate::{Author, Registry, RegistryError};
use reddwarf_objects::diff::Change;
use reddwarf_objects::{Object, ObjectKey};
use reddwarf_store::{NewGeneration, Revision};
use std::collections::BTreeSet;

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
    /// Fields that have no effect in this version.
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
        let _ = (author, set, options);
        Err(RegistryError::BadRequest("skeleton".into()))
    }
}
