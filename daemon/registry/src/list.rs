//! Reading one object, and lists over one consistent snapshot.

use crate::counters::Counting;
use crate::key::{kind_prefix, store_key};
use crate::select::Selection;
use crate::stored::{RawRef, damaged, decode};
use crate::{RawObject, Registry, RegistryError};
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine};
use reddwarf_objects::selector::{FieldSelector, LabelSelector};
use reddwarf_objects::{Kind, Object, ObjectKey, convert};
use reddwarf_store::{Entry, EntryRef, Key, ListOptions, Page, Revision, StoreError, VisitEnd};
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

/// How a page ended.
#[derive(Clone, Debug)]
pub struct ListEnd {
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
    /// Snapshot of the first page; the newest state when absent, as a client may go on after its snapshot was compacted.
    pub revision: Option<Revision>,
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
        self.inner.store.list(prefix, options).map_err(unreadable)
    }

    /// The same entry by entry, where they lie.
    fn walk(
        &self,
        prefix: &str,
        options: &ListOptions,
        each: &mut dyn FnMut(EntryRef<'_>) -> bool,
    ) -> Result<VisitEnd, RegistryError> {
        Counting::add(&self.inner.counting.lists);
        self.inner.store.visit(prefix, options, each).map_err(unreadable)
    }

    /// What `see` makes of one object as it is stored: an answer needs neither parsing nor a copy.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn look<T>(&self, key: &ObjectKey, see: impl Fn(RawRef<'_>) -> T) -> Result<T, RegistryError> {
        Counting::add(&self.inner.counting.gets);
        let seen = self.inner.store.look(&store_key(key)?, |entry| see(entry.into()))?;
        seen.ok_or_else(|| RegistryError::NotFound(key.clone()))
    }

    /// Objects of a kind.
    ///
    /// # Errors
    /// [`RegistryError::Expired`] when the snapshot is compacted, [`RegistryError::TooLarge`] for a future one.
    pub fn list(&self, query: &ListQuery) -> Result<ObjectList, RegistryError> {
        let mut items = Vec::new();
        let end = self.visit(query, None, |object| {
            items.push(object.object()?);
            Ok(())
        })?;
        Ok(ObjectList { items, revision: end.revision, next: end.next, remaining: end.remaining })
    }

    /// Hands the objects of a page over, one by one in key order. With `bytes`, the page also ends (perhaps empty, but with
    /// [`ListEnd::next`]) when about so many bytes were read, so that a list of any length can be streamed in pieces; how
    /// much remains is then not counted.
    ///
    /// # Errors
    /// As [`Registry::list`], and those of `visit`.
    pub fn visit(
        &self,
        query: &ListQuery,
        bytes: Option<usize>,
        mut visit: impl FnMut(RawRef<'_>) -> Result<(), RegistryError>,
    ) -> Result<ListEnd, RegistryError> {
        let prefix = query.prefix();
        let selection = Selection::of(query);
        let start = query.after.as_ref().map(|c| Key::new(format!("{prefix}{}", c.start)));
        let mut after = start.transpose().map_err(bad_token)?;
        let mut at = query.after.as_ref().map_or(query.at, |c| c.revision);
        let want = query.limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let stored = convert::is_stored(query.kind);
        let (mut given, mut last) = (0, String::new());
        loop {
            let options =
                ListOptions { at, limit: Some(PAGE), bytes: Some(bytes.unwrap_or(PAGE_BYTES)), after: after.take() };
            let (mut full, mut failed) = (false, None);
            let page = self.walk(&prefix, &options, &mut |entry| {
                // One more than wanted: the page has a next one.
                full = given == want;
                if full {
                    return false;
                }
                entry.key.clone_into(&mut last);
                let done = selection.wants(entry.key, entry.value).and_then(|wanted| {
                    given += usize::from(wanted);
                    match wanted {
                        false => Ok(()),
                        true if stored => visit(entry.into()),
                        true => visit(RawObject::from(entry.to_entry()).in_version(query.kind)?.as_ref()),
                    }
                });
                failed = done.err();
                failed.is_none()
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
            let VisitEnd { revision, more } = page;
            at = Some(revision);
            let next = |remaining| {
                let start = last.strip_prefix(&prefix).unwrap_or_default().to_owned();
                Some(Continue { revision: Some(revision), start, remaining })
            };
            if full && bytes.is_none() {
                let remaining = self.remaining(query, &prefix, revision, given);
                return Ok(ListEnd { revision, next: next(remaining), remaining });
            }
            if !more {
                return Ok(ListEnd { revision, next: None, remaining: None });
            }
            if full || bytes.is_some() {
                return Ok(ListEnd { revision, next: next(None), remaining: None });
            }
            after = Some(Key::new(&last).map_err(|e| damaged(&last, e))?);
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
        let place = if self.kind.namespaced { self.namespace.as_deref() } else { Some("-") };
        let prefix = kind_prefix(self.kind, place);
        // Who asks for one name (as waiting clients do) must not look at all others.
        match self.fields.exact_name().filter(|_| place.is_some()) {
            Some(name) => prefix + name,
            None => prefix,
        }
    }
}

/// The token as JSON inside base64url, as kube-apiserver's (`{"v":"meta.k8s.io/v1","rv":7227,"start":"..."}`).
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    start: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
}

impl fmt::Display for Continue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rv = self.revision.map_or(-1, |r| i64::try_from(r.get()).unwrap_or(i64::MAX));
        let (start, left) = (self.start.clone(), self.remaining);
        let token = Token { v: TOKEN_VERSION.to_owned(), rv, start, left };
        let json = serde_json::to_vec(&token).map_err(|_| fmt::Error)?;
        f.write_str(&LENIENT.encode(json))
    }
}

impl FromStr for Continue {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let bytes = LENIENT.decode(text.trim_end_matches('=')).map_err(|e| match e {
            DecodeError::InvalidByte(at, _) => bad_token(format!("illegal base64 data at input byte {at}")),
            other => bad_token(other),
        })?;
        if let Some(first) = bytes.first().filter(|b| **b != b'{') {
            let first = char::from(*first);
            return Err(bad_token(format!("invalid character '{first}' looking for beginning of value")));
        }
        let token: Token = serde_json::from_slice(&bytes).map_err(bad_token)?;
        if token.v != TOKEN_VERSION {
            return Err(bad_token(format!("server does not recognize this encoded version \"{}\"", token.v)));
        }
        if token.rv == 0 || token.start.is_empty() || token.start.contains("..") {
            return Err(bad_token("it is not one of ours"));
        }
        let revision = u64::try_from(token.rv).ok().map(Revision);
        Ok(Self { revision, start: token.start, remaining: token.left.filter(|_| revision.is_some()) })
    }
}

fn unreadable(error: StoreError) -> RegistryError {
    match error {
        StoreError::Compacted { asked, floor } => RegistryError::Expired { asked, oldest: floor },
        StoreError::Future { asked, current } => RegistryError::TooLarge { asked, current },
        other => RegistryError::Store(other),
    }
}

fn bad_token(why: impl fmt::Display) -> RegistryError {
    RegistryError::BadRequest(format!("invalid continue token: continue key is not valid: {why}"))
}

/// Objects visited in one transaction of the store, so that none is open for long.
const PAGE: usize = 500;
/// And bytes of them, as a list of large objects would take long otherwise.
const PAGE_BYTES: usize = 1 << 20;
/// As lenient with what clients send as the reference.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);
const TOKEN_VERSION: &str = "meta.k8s.io/v1";
