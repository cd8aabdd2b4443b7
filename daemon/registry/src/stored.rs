//! Objects as they lie in the store: JSON that begins with kind, apiVersion and metadata, without the resourceVersion. So an
//! answer needs neither parsing nor printing: the revision of the entry is spliced in on the way out.

use crate::RegistryError;
use bytes::Bytes;
use reddwarf_objects::partial::Partial;
use reddwarf_objects::{Kind, Object, convert, json};
use reddwarf_store::{Entry, EntryRef, Key, Revision};
use serde_json::Value;
use std::io::Write;

/// A stored object, not parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawObject {
    pub(crate) key: Key,
    pub(crate) bytes: Bytes,
    pub(crate) revision: Revision,
}

impl From<Entry> for RawObject {
    fn from(entry: Entry) -> Self {
        Self { key: entry.key, bytes: entry.value, revision: entry.modified }
    }
}

impl RawObject {
    /// The object's resourceVersion.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Where it lies in the store: no other object has it.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The stored text, without the resourceVersion.
    pub fn stored(&self) -> &Bytes {
        &self.bytes
    }

    /// The same, borrowed.
    pub fn as_ref(&self) -> RawRef<'_> {
        RawRef { key: self.key.as_str(), bytes: &self.bytes, revision: self.revision }
    }

    /// The same object in another version of its kind.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`].
    pub fn in_version(self, kind: &Kind) -> Result<Self, RegistryError> {
        if convert::is_stored(kind) {
            return Ok(self);
        }
        let bytes = encode(&convert::to_version(kind, self.object()?));
        Ok(Self { bytes, ..self })
    }

    /// The parsed object.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`].
    pub fn object(&self) -> Result<Object, RegistryError> {
        self.as_ref().object()
    }
}

/// A stored object, not parsed, where it lies: what a list shows its visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRef<'a> {
    key: &'a str,
    bytes: &'a [u8],
    revision: Revision,
}

impl<'a> From<EntryRef<'a>> for RawRef<'a> {
    fn from(entry: EntryRef<'a>) -> Self {
        Self { key: entry.key, bytes: entry.value, revision: entry.modified }
    }
}

impl<'a> RawRef<'a> {
    /// As [`RawObject::revision`].
    pub fn revision(self) -> Revision {
        self.revision
    }

    /// As [`RawObject::key`].
    pub fn key(self) -> &'a str {
        self.key
    }

    /// Bytes of the stored text; the written one is about 30 longer.
    pub fn stored_len(self) -> usize {
        self.bytes.len()
    }

    /// Appends the object as JSON, kind, apiVersion and resourceVersion included.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`].
    pub fn write(self, out: &mut Vec<u8>) -> Result<(), RegistryError> {
        match metadata_at(self.bytes) {
            Some(at) => self.splice(out, 0, at),
            None => json::write(&self.object()?.into_value(), out),
        }
        Ok(())
    }

    /// Appends the object as an item of a list: without kind and apiVersion.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`].
    pub fn write_item(self, out: &mut Vec<u8>) -> Result<(), RegistryError> {
        if let Some(at) = metadata_at(self.bytes) {
            out.push(b'{');
            self.splice(out, at, at);
            return Ok(());
        }
        let mut value = self.object()?.into_value();
        if let Some(map) = value.as_object_mut() {
            map.remove("kind");
            map.remove("apiVersion");
        }
        json::write(&value, out);
        Ok(())
    }

    /// The parsed object.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`].
    pub fn object(self) -> Result<Object, RegistryError> {
        decode_bytes(self.key, self.bytes, self.revision)
    }

    /// Where its metadata lies in the text; the same for every text of this key and revision. `None`: it must be parsed.
    pub fn metadata(self) -> Option<MetadataPlace> {
        Some(MetadataPlace { at: metadata_at(self.bytes)?, end: metadata_end(self.bytes)? })
    }

    /// Appends the object's metadata as JSON, resourceVersion included. `place` is what [`RawRef::metadata`] said of it.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`].
    pub fn write_metadata(self, place: Option<MetadataPlace>, out: &mut Vec<u8>) -> Result<(), RegistryError> {
        match place {
            Some(MetadataPlace { at, end }) => self.copy(out, at + METADATA.len() - 1, at, end),
            None => json::write(self.object()?.get("/metadata").unwrap_or(&Value::Null), out),
        }
        Ok(())
    }

    /// The fields that `partial` names; metadata.resourceVersion is not among them.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`].
    pub fn partial(self, partial: &Partial) -> Result<Object, RegistryError> {
        partial.read(self.bytes).map_err(|e| damaged(self.key, e))
    }

    /// Copies the text from `from`, with the resourceVersion as metadata's first field; `"metadata":{` begins at `metadata`.
    fn splice(self, out: &mut Vec<u8>, from: usize, metadata: usize) {
        self.copy(out, from, metadata, self.bytes.len());
    }

    /// The same up to `to`.
    fn copy(self, out: &mut Vec<u8>, from: usize, metadata: usize, to: usize) {
        let inside = metadata + METADATA.len();
        let (Some(head), Some(tail)) = (self.bytes.get(from..inside), self.bytes.get(inside..to)) else { return };
        out.reserve(to - from + 48);
        out.extend_from_slice(head);
        // Writing into memory has no way to fail.
        let _ = write!(out, "\"resourceVersion\":\"{}\"", self.revision);
        if tail.first() != Some(&b'}') {
            out.push(b',');
        }
        out.extend_from_slice(tail);
    }
}

/// A place in the text of one revision of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataPlace {
    /// Where `"metadata":{` begins.
    at: usize,
    /// Behind its brace.
    end: usize,
}

const METADATA: &[u8] = b"\"metadata\":{";

/// Where `"metadata":{` begins, in text that [`encode`] wrote; `None` for text of other writers (stores of older versions).
fn metadata_at(text: &[u8]) -> Option<usize> {
    let after_kind = value_end(text, b"{\"kind\":\"")?;
    let rest = text.get(after_kind..)?;
    let at = after_kind + value_end(rest, b",\"apiVersion\":\"")? + 1;
    text.get(at..)?.starts_with(METADATA).then_some(at)
}

/// Where the metadata ends (behind its brace), in text that [`encode`] wrote.
pub(crate) fn metadata_end(text: &[u8]) -> Option<usize> {
    let start = metadata_at(text)? + METADATA.len() - 1;
    let (mut depth, mut at) = (0_usize, start);
    loop {
        match text.get(at)? {
            b'"' => at = string_end(text, at + 1)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// Where the string ends whose contents begin at `at`: its closing quote.
fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The end of the string that follows `key` at the start of `text`. Neither kinds nor versions need escapes.
fn value_end(text: &[u8], key: &[u8]) -> Option<usize> {
    let value = text.strip_prefix(key)?;
    let end = value.iter().position(|b| matches!(b, b'"' | b'\\'))?;
    (value.get(end) == Some(&b'"')).then_some(key.len() + end + 1)
}

/// Bytes for the store: the object without its resourceVersion, which is the revision of the commit.
pub(crate) fn encode(object: &Object) -> Bytes {
    encode_with(object, None)
}

/// The same of an object whose managedFields are kept beside it, as JSON.
pub(crate) fn encode_with(object: &Object, owners: Option<&[u8]>) -> Bytes {
    let mut out = Vec::with_capacity(1024 + owners.map_or(0, <[u8]>::len));
    out.extend_from_slice(b"{\"kind\":");
    json::write_text(object.kind(), &mut out);
    out.extend_from_slice(b",\"apiVersion\":");
    json::write_text(object.api_version(), &mut out);
    out.extend_from_slice(b",\"metadata\":{");
    let metadata = object.map().get("metadata").and_then(Value::as_object);
    let fields = metadata.into_iter().flatten().filter(|(field, _)| *field != "resourceVersion");
    // In order of their names, as all fields are.
    let mut owners = owners;
    for (field, value) in fields {
        if let Some(owners) = owners.take_if(|_| field.as_str() > "managedFields") {
            write_owners(owners, &mut out);
        }
        json::write_field(field, value, &mut out);
        out.push(b',');
    }
    if let Some(owners) = owners {
        write_owners(owners, &mut out);
    }
    out.pop_if(|last| *last == b',');
    out.push(b'}');
    for (field, value) in object.map().iter().filter(|(f, _)| !["kind", "apiVersion", "metadata"].contains(&f.as_str()))
    {
        out.push(b',');
        json::write_field(field, value, &mut out);
    }
    out.push(b'}');
    Bytes::from(out)
}

fn write_owners(list: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"managedFields\":");
    out.extend_from_slice(list);
    out.push(b',');
}

/// What is stored under a key can't be read.
pub(crate) fn damaged(key: &str, why: impl std::fmt::Display) -> RegistryError {
    RegistryError::Damaged { key: key.to_owned(), why: why.to_string() }
}

/// The object in a store entry with its resourceVersion.
pub(crate) fn decode(entry: &Entry) -> Result<Object, RegistryError> {
    decode_bytes(entry.key.as_str(), &entry.value, entry.modified)
}

/// The same from bytes and a revision.
pub(crate) fn decode_bytes(key: &str, bytes: &[u8], revision: Revision) -> Result<Object, RegistryError> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| damaged(key, e))?;
    let mut object = Object::from_value(value).map_err(|e| damaged(key, e))?;
    object.set_resource_version(Some(revision.get()));
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn raw(bytes: impl Into<Bytes>) -> RawObject {
        RawObject { key: Key::new("k").unwrap(), bytes: bytes.into(), revision: Revision(7) }
    }

    fn written(raw: &RawObject, item: bool) -> Value {
        let mut out = Vec::new();
        if item { raw.as_ref().write_item(&mut out) } else { raw.as_ref().write(&mut out) }.unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn text_of_older_versions_is_read_too() {
        let old = raw(r#"{"apiVersion":"v1","data":{"metadata":"{"},"kind":"ConfigMap","metadata":{"name":"a"}}"#);
        let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"metadata": "{"},
            "metadata": {"name": "a", "resourceVersion": "7"}});
        assert_eq!(written(&old, false), wanted);
        assert_eq!(written(&old, true).get("kind"), None);
        assert!(raw("{").as_ref().write(&mut Vec::new()).is_err());
    }

    #[test]
    fn owners_beside_an_object_lie_where_those_in_it_do() {
        let owners = json!([{"manager": "m", "fieldsV1": {"f:a": {}}}]);
        for metadata in [json!({}), json!({"name": "a"}), json!({"labels": {}}), json!({"labels": {}, "name": "a"})] {
            let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}});
            let mut object = Object::from_value(value).unwrap();
            let beside = encode_with(&object, Some(owners.to_string().as_bytes()));
            object.set("/metadata/managedFields", owners.clone());
            assert_eq!(beside, encode(&object));
        }
    }

    proptest! {
        #[test]
        fn splicing_is_parsing_and_printing(
            metadata in prop::collection::btree_map("[a-z\"{]{0,8}", ".{0,6}", 0..4),
            data in prop::collection::btree_map("(metadata|[a-z\"{}\\\\]{0,4})", ".{0,6}", 0..4),
        ) {
            let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
            let mut object = Object::from_value(value).unwrap();
            object.set_resource_version(Some(3));
            let raw = raw(encode(&object));
            prop_assert_eq!(metadata_at(&raw.bytes).is_some(), true);
            object.set_resource_version(Some(7));
            prop_assert_eq!(raw.object().unwrap(), object.clone());
            prop_assert_eq!(written(&raw, false), object.value());
            let mut metadata = Vec::new();
            raw.as_ref().write_metadata(raw.as_ref().metadata(), &mut metadata).unwrap();
            prop_assert_eq!(&serde_json::from_slice::<Value>(&metadata).unwrap(), object.get("/metadata").unwrap());
            let mut item = object.into_value();
            item.as_object_mut().unwrap().retain(|field, _| field != "kind" && field != "apiVersion");
            prop_assert_eq!(written(&raw, true), item);
        }
    }
}
