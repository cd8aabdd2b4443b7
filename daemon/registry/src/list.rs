//! Reading one object, and lists over one consistent snapshot.

use crate::counters::Counting;
use crate::key::{kind_prefix, store_key};
use crate::stored::decode;
use crate::{RawObject, Registry, RegistryError};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
use reddwarf_objects::selector::{FieldSelector, LabelSelector};
use reddwarf_objects::{Kind, Object, ObjectKey};
use reddwarf_store::{Entry, Key, ListOptions, Page, Revision, StoreError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What to list or watch.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Which kind.
    pub kind: &'static Kind,
    /// Only this namespace; all when absent. Ignored for cluster-wide kinds.
    pub namespace: Option<String>,
    /// Only objects with such labels.
    pub labels: LabelSelector,
    /// Only objects with such fields.
    pub fields: FieldSelector,
    /// At most so many objects a page; all when absent.
    pub limit: Option<usize>,
    /// Where the page before ended; the snapshot is that page's.
    pub after: Option<Continue>,
    /// The state after this revision instead of the newest.
    pub at: Option<Revision>,
}

impl ListQuery {
    /// All objects of a kind.
    pub fn all(kind: &'static Kind) -> Self {
        Self {
            kind,
            namespace: None,
            labels: LabelSelector::default(),
            fields: FieldSelector::default(),
            limit: None,
            after: None,
            at: None,
        }
    }

    /// Those in one namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct ObjectList {
    /// Objects in key order, resourceVersion filled in.
    pub items: Vec<Object>,
    /// The revision that the list is true for: a watch after it continues it without gap.
    pub revision: Revision,
    /// Where the next page starts; absent on the last one.
    pub next: Option<Continue>,
    /// How many objects are after this page; only known without selectors.
    pub remaining: Option<u64>,
}

/// A page of a list, not parsed.
#[derive(Clone, Debug)]
pub struct RawList {
    /// Objects in key order.
    pub items: Vec<RawObject>,
    /// As [`ObjectList::revision`].
    pub revision: Revision,
    /// As [`ObjectList::next`].
    pub next: Option<Continue>,
    /// As [`ObjectList::remaining`].
    pub remaining: Option<u64>,
}

/// Position in a paged list; prints as the opaque token that Kubernetes clients carry around.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continue {
    /// Snapshot of the first page.
    pub revision: Revision,
    /// Store key of the last object delivered, relative to the list's prefix.
    pub start: String,
    /// Objects after it in the snapshot, when known.
    pub remaining: Option<u64>,
}

impl Registry {
    /// One object, resourceVersion filled in.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn get(&self, key: &ObjectKey) -> Result<Object, RegistryError> {
        self.find(key)?.ok_or_else(|| RegistryError::NotFound(key.clone()))
    }

    /// One object if it is there.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn find(&self, key: &ObjectKey) -> Result<Option<Object>, RegistryError> {
        self.entry(&store_key(key)?)?.as_ref().map(decode).transpose()
    }

    /// A key of the store, counted.
    pub(crate) fn entry(&self, key: &Key) -> Result<Option<Entry>, RegistryError> {
        Counting::add(&self.inner.counting.gets);
        Ok(self.inner.store.get(key)?)
    }

    /// A page of the store, counted.
    pub(crate) fn page(&self, prefix: &str, options: &ListOptions) -> Result<Page, RegistryError> {
        Counting::add(&self.inner.counting.lists);
        self.inner.store.list(prefix, options).map_err(|e| match e {
            StoreError::Compacted { asked, floor } => RegistryError::Expired { asked, oldest: floor },
            StoreError::Future { asked, current } => RegistryError::TooLarge { asked, current },
            other => RegistryError::Store(other),
        })
    }

    /// One object as it is stored: an answer needs no parsing.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn get_raw(&self, key: &ObjectKey) -> Result<RawObject, RegistryError> {
        match self.entry(&store_key(key)?)? {
            Some(entry) => Ok(RawObject { bytes: entry.value, revision: entry.modified }),
            None => Err(RegistryError::NotFound(key.clone())),
        }
    }

    /// Objects of a kind.
    ///
    /// # Errors
    /// [`RegistryError::Expired`] when the snapshot is compacted, [`RegistryError::TooLarge`] for a future one.
    pub fn list(&self, query: &ListQuery) -> Result<ObjectList, RegistryError> {
        let (items, revision, next) =
            self.collect(query, |entry| Ok(Some(decode(entry)?).filter(|o| query.matches(o))))?;
        Ok(ObjectList { items, revision, remaining: next.as_ref().and_then(|n| n.remaining), next })
    }

    /// The same without parsing, unless selectors must look into the objects.
    ///
    /// # Errors
    /// As [`Registry::list`].
    pub fn list_raw(&self, query: &ListQuery) -> Result<RawList, RegistryError> {
        let everything = query.labels.is_empty() && query.fields.is_empty();
        let (items, revision, next) = self.collect(query, |entry| {
            let wanted = everything || query.matches(&decode(entry)?);
            Ok(wanted.then(|| RawObject { bytes: entry.value.clone(), revision: entry.modified }))
        })?;
        Ok(RawList { items, revision, remaining: next.as_ref().and_then(|n| n.remaining), next })
    }

    /// A page of what `pick` makes of the entries.
    fn collect<T>(
        &self,
        query: &ListQuery,
        mut pick: impl FnMut(&Entry) -> Result<Option<T>, RegistryError>,
    ) -> Result<(Vec<T>, Revision, Option<Continue>), RegistryError> {
        let prefix = query.prefix();
        let start = query.after.as_ref().map(|c| Key::new(format!("{prefix}{}", c.start)));
        let mut after = start.transpose().map_err(bad_token)?;
        let mut at = query.after.as_ref().map(|c| c.revision).or(query.at);
        let want = query.limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let mut items = Vec::new();
        loop {
            let page = self.page(&prefix, &ListOptions { at, limit: Some(PAGE.min(want)), after: after.clone() })?;
            at = Some(page.revision);
            for (index, entry) in page.entries.iter().enumerate() {
                let Some(item) = pick(entry)? else { continue };
                items.push(item);
                let more = page.more || index + 1 < page.entries.len();
                if items.len() == want && more {
                    let remaining = self.remaining(query, &prefix, page.revision, items.len());
                    let start = entry.key.as_str().strip_prefix(&prefix).unwrap_or_default().to_owned();
                    return Ok((items, page.revision, Some(Continue { revision: page.revision, start, remaining })));
                }
            }
            after = page.entries.last().map(|e| e.key.clone());
            if !page.more || after.is_none() {
                return Ok((items, page.revision, None));
            }
        }
    }

    /// How many objects follow this page. Selectors make that unknown, as in the reference; later pages know it from
    /// their token, so that paging does not count again and again.
    fn remaining(&self, query: &ListQuery, prefix: &str, at: Revision, delivered: usize) -> Option<u64> {
        if !query.labels.is_empty() || !query.fields.is_empty() {
            return None;
        }
        let before = match &query.after {
            Some(token) => token.remaining?,
            None => {
                let count = self.inner.store.count(prefix).ok()?;
                (self.revision() == at).then_some(count)?
            }
        };
        before.checked_sub(delivered as u64)
    }
}

impl ListQuery {
    /// Prefix of the keys in question.
    pub(crate) fn prefix(&self) -> String {
        kind_prefix(self.kind, self.namespace.as_deref().filter(|_| self.kind.namespaced))
    }

    /// Do the selectors want this object?
    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }
}

/// The token as JSON inside base64url, as kube-apiserver's (`{"v":"meta.k8s.io/v1","rv":7227,"start":"..."}`).
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: u64,
    start: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
}

impl fmt::Display for Continue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rv, start, left) = (self.revision.get(), self.start.clone(), self.remaining);
        let token = Token { v: TOKEN_VERSION.to_owned(), rv, start, left };
        let json = serde_json::to_vec(&token).map_err(|_| fmt::Error)?;
        f.write_str(&URL_SAFE_NO_PAD.encode(json))
    }
}

impl FromStr for Continue {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(bad_token)?;
        let token: Token = serde_json::from_slice(&bytes).map_err(bad_token)?;
        if token.v != TOKEN_VERSION || token.rv == 0 || token.start.is_empty() || token.start.contains("..") {
            return Err(bad_token("it is not one of ours"));
        }
        Ok(Self { revision: Revision(token.rv), start: token.start, remaining: token.left })
    }
}

fn bad_token(why: impl fmt::Display) -> RegistryError {
    RegistryError::BadRequest(format!("invalid continue token: continue key is not valid: {why}"))
}

/// Objects read from the store at a time, so that a list never holds more raw entries than this.
const PAGE: usize = 500;
const TOKEN_VERSION: &str = "meta.k8s.io/v1";
