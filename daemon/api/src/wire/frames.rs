//! Watch events as they go over the wire. An event is written once for all watchers that want it in the same form.
//!
//! Source: Kubernetes "API Concepts" (Efficient detection of changes, Streaming lists); WHATWG HTML, 9.2 (server-sent events).

use crate::serve::dispatch::State;
use crate::wire::accept::Shape;
use crate::wire::error::ApiError;
use crate::wire::table::{self, Include};
use bytes::Bytes;
use reddwarf_objects::Kind;
use reddwarf_registry::{RawObject, RawRef, RegistryError, WatchEventType};
use reddwarf_store::{Key, Revision};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// How events are told apart in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Style {
    /// A line each.
    Lines,
    /// `text/event-stream`: the id is the resourceVersion.
    ServerSent,
    /// A WebSocket message each.
    Messages,
}

impl Style {
    /// The value of `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Lines | Self::Messages => "application/json",
            Self::ServerSent => "text/event-stream",
        }
    }
}

/// What a watcher's frames look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventForm {
    pub(crate) kind: &'static Kind,
    pub(crate) shape: Shape,
    pub(crate) include: Include,
    pub(crate) style: Style,
}

impl EventForm {
    /// Must every event have a frame of its own?
    pub(crate) fn is_one_a_frame(&self) -> bool {
        self.style == Style::Messages
    }

    /// An event, shared with the other watchers of this form. A table's `columns` are told in the first event only.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`].
    pub(crate) fn event(
        &self,
        state: &State,
        kind: WatchEventType,
        object: &RawObject,
        columns: bool,
    ) -> Result<Bytes, RegistryError> {
        let columns = columns && matches!(self.shape, Shape::Table(_));
        if let Some(frame) = state.frames.find(self, kind, object, columns) {
            return Ok(frame);
        }
        let mut out = Vec::with_capacity(object.as_ref().stored_len() + 128);
        self.write_event(state, kind, object.as_ref(), columns, &mut out)?;
        let bytes = Bytes::from(out);
        let (key, revision) = (object.key().clone(), object.revision());
        state.frames.add(Known { form: *self, columns, kind, key, revision, bytes: bytes.clone() });
        Ok(bytes)
    }

    /// Appends an event.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`].
    pub(crate) fn write_event(
        &self,
        state: &State,
        kind: WatchEventType,
        object: RawRef<'_>,
        columns: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), RegistryError> {
        let kind = match kind {
            WatchEventType::Added => "ADDED",
            WatchEventType::Modified => "MODIFIED",
            WatchEventType::Deleted => "DELETED",
        };
        self.open(kind, object.revision(), out);
        self.write_object(state, object, columns, out)?;
        self.close(out);
        Ok(())
    }

    fn write_object(
        &self,
        state: &State,
        object: RawRef<'_>,
        columns: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), RegistryError> {
        match self.shape {
            Shape::Whole => object.write(out),
            Shape::Metadata(version) | Shape::MetadataList(version) => table::write_metadata(object, version, out),
            Shape::Table(version) => {
                table::write_start(self.kind, version, object.revision(), columns, out);
                let now = state.deps.registry.now();
                table::write_row(&state.rows, self.kind, object, version, self.include, now, out)?;
                out.extend_from_slice(b"]}");
                Ok(())
            }
        }
    }

    /// Up to where the watcher knows everything; `initial` marks the end of what was there when it began.
    pub(crate) fn bookmark(&self, revision: Revision, initial: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.shape {
            Shape::Whole => {
                json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata})
            }
            Shape::Metadata(version) | Shape::MetadataList(version) => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": metadata})
            }
            // As the reference: a row with nothing in it but the metadata, which clients read the mark from.
            Shape::Table(version) => {
                let row =
                    json!({"kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": metadata});
                json!({
                    "kind": "Table", "apiVersion": version.api_version(), "metadata": {"resourceVersion": revision.to_string()},
                    "columnDefinitions": [], "rows": if initial { json!([{"cells": [], "object": row}]) } else { json!([]) },
                })
            }
        };
        self.frame("BOOKMARK", revision, &object)
    }

    /// Why the watch ends.
    pub(crate) fn error(&self, error: &ApiError) -> Bytes {
        self.frame("ERROR", Revision::ZERO, &error.status())
    }

    fn frame(&self, kind: &str, revision: Revision, object: &Value) -> Bytes {
        let mut out = Vec::with_capacity(256);
        self.open(kind, revision, &mut out);
        // Into memory: no way to fail.
        let _ = serde_json::to_writer(&mut out, object);
        self.close(&mut out);
        out.into()
    }

    fn open(&self, kind: &str, revision: Revision, out: &mut Vec<u8>) {
        if self.style == Style::ServerSent {
            if revision != Revision::ZERO {
                let _ = writeln!(out, "id: {revision}");
            }
            out.extend_from_slice(b"data: ");
        }
        let _ = write!(out, "{{\"type\":\"{kind}\",\"object\":");
    }

    fn close(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(match self.style {
            Style::Lines => b"}\n",
            Style::ServerSent => b"}\n\n",
            Style::Messages => b"}",
        });
    }
}

/// Bytes of frames kept.
const KEPT_BYTES: usize = 512 << 10;
/// Frames kept: the watchers of an event come for it within moments.
const KEPT: usize = 64;

/// The newest frames, for the watchers that come for the same event next.
#[derive(Debug, Default)]
pub(crate) struct FrameCache(Mutex<Frames>);

#[derive(Debug, Default)]
struct Frames {
    newest_last: VecDeque<Known>,
    bytes: usize,
}

#[derive(Debug)]
struct Known {
    form: EventForm,
    columns: bool,
    kind: WatchEventType,
    key: Key,
    revision: Revision,
    bytes: Bytes,
}

impl FrameCache {
    fn find(&self, form: &EventForm, kind: WatchEventType, object: &RawObject, columns: bool) -> Option<Bytes> {
        let frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |known: &&Known| {
            known.revision == object.revision()
                && known.key == *object.key()
                && known.kind == kind
                && known.columns == columns
                && known.form == *form
        };
        frames.newest_last.iter().rev().find(same).map(|known| known.bytes.clone())
    }

    fn add(&self, known: Known) {
        if known.bytes.len() > KEPT_BYTES / 4 {
            return;
        }
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frames.bytes += known.bytes.len();
        frames.newest_last.push_back(known);
        while frames.newest_last.len() > KEPT || frames.bytes > KEPT_BYTES {
            let Some(oldest) = frames.newest_last.pop_front() else { return };
            frames.bytes -= oldest.bytes.len();
        }
    }
}
