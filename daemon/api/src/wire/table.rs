//! Objects as rows of a `meta.k8s.io` Table, and as `PartialObjectMetadata`.
//!
//! Source: Kubernetes "API Concepts" (Receiving resources as Tables); column names as recorded from the reference.

use crate::wire::accept::MetaVersion;
use crate::wire::error::ApiError;
use crate::wire::request::Query;
use crate::wire::rows::RowCache;
use chrono::{DateTime, Utc};
use reddwarf_objects::print;
use reddwarf_objects::{Kind, Object};
use reddwarf_registry::{MetadataPlace, RawRef, RegistryError};
use reddwarf_store::Revision;
use serde_json::{Value, json};
use std::io::Write;

/// What of the object goes with its row (`?includeObject=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl Include {
    /// Reads the query.
    ///
    /// # Errors
    /// 400 for anything else than the three.
    pub(crate) fn parse(query: &Query) -> Result<Self, ApiError> {
        match query.get("includeObject") {
            None | Some("Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(ApiError::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: \"{other}\": must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// The definitions of a kind's columns.
pub(crate) fn columns(kind: &Kind) -> Value {
    let columns = kind.columns.iter().map(|column| {
        let about = print::column(kind, column);
        json!({
            "name": column.name,
            "type": about.kind,
            "format": about.format,
            "description": about.description,
            "priority": i32::from(column.wide),
        })
    });
    Value::Array(columns.collect())
}

/// The conditions of a row: there is one, of what is over.
pub(crate) fn conditions(completed: print::Completed) -> Value {
    json!([{"type": "Completed", "status": "True", "reason": completed.reason, "message": completed.message}])
}

/// One row.
pub(crate) fn row(kind: &Kind, object: &Object, version: MetaVersion, include: Include, now: DateTime<Utc>) -> Value {
    let mut row = json!({"cells": print::row(kind, object, now)});
    if let Some(completed) = print::completed(kind, object) {
        row["conditions"] = conditions(completed);
    }
    match include {
        Include::None => {}
        Include::Metadata => row["object"] = metadata_only(object, version),
        Include::Object => row["object"] = object.value(),
    }
    row
}

/// A Table of one object, as gets, writes and watches answer it. `columns` may be left out of a watch's later events.
pub(crate) fn of_one(
    kind: &Kind,
    object: &Object,
    version: MetaVersion,
    include: Include,
    with_columns: bool,
    now: DateTime<Utc>,
) -> Value {
    let mut table = json!({
        "kind": "Table",
        "apiVersion": version.api_version(),
        "metadata": {"resourceVersion": object.get_str("/metadata/resourceVersion").unwrap_or_default()},
        "columnDefinitions": [],
        "rows": [row(kind, object, version, include, now)],
    });
    if with_columns {
        table["columnDefinitions"] = columns(kind);
    }
    table
}

/// Appends a Table of one object up to where its row begins; after the row, `]}` ends it.
pub(crate) fn write_start(
    kind: &Kind,
    version: MetaVersion,
    revision: Revision,
    with_columns: bool,
    out: &mut Vec<u8>,
) {
    let (api_version, columns) = (version.api_version(), if with_columns { columns(kind) } else { json!([]) });
    // Into memory: no way to fail.
    let _ = write!(
        out,
        "{{\"kind\":\"Table\",\"apiVersion\":\"{api_version}\",\"metadata\":{{\"resourceVersion\":\"{revision}\"}},\"columnDefinitions\":{columns},\"rows\":["
    );
}

/// Appends the row of a stored object.
///
/// # Errors
/// [`RegistryError::Damaged`].
pub(crate) fn write_row(
    rows: &RowCache,
    kind: &Kind,
    object: RawRef<'_>,
    version: MetaVersion,
    include: Include,
    now: DateTime<Utc>,
    out: &mut Vec<u8>,
) -> Result<(), RegistryError> {
    out.extend_from_slice(b"{\"cells\":");
    // The cells, and the row's conditions where it has some.
    let metadata = rows.write(kind, object, now, out)?;
    match include {
        Include::None => {}
        Include::Metadata => {
            out.extend_from_slice(b",\"object\":");
            write_metadata_at(object, metadata, version, out)?;
        }
        Include::Object => {
            out.extend_from_slice(b",\"object\":");
            object.write(out)?;
        }
    }
    out.push(b'}');
    Ok(())
}

/// Appends the `PartialObjectMetadata` of a stored object.
///
/// # Errors
/// [`RegistryError::Damaged`].
pub(crate) fn write_metadata(object: RawRef<'_>, version: MetaVersion, out: &mut Vec<u8>) -> Result<(), RegistryError> {
    write_metadata_at(object, object.metadata(), version, out)
}

/// The same where the metadata's place is known.
fn write_metadata_at(
    object: RawRef<'_>,
    place: Option<MetadataPlace>,
    version: MetaVersion,
    out: &mut Vec<u8>,
) -> Result<(), RegistryError> {
    out.extend_from_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"");
    out.extend_from_slice(version.api_version().as_bytes());
    out.extend_from_slice(b"\",\"metadata\":");
    object.write_metadata(place, out)?;
    out.push(b'}');
    Ok(())
}

/// `PartialObjectMetadata`.
pub(crate) fn metadata_only(object: &Object, version: MetaVersion) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": version.api_version(),
        "metadata": object.get("/metadata").cloned().unwrap_or_else(|| json!({})),
    })
}
