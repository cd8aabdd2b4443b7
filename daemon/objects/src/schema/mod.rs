//! The structure of every kind, from the compact table `schema/types.txt`.

mod check;
mod normalise;
mod table;
mod view;

pub use check::{check, prune_unknown};
pub use normalise::normalise;
pub use table::{
    Field, FieldNumber, FieldType, ListKind, Patch, Presence, SchemaOr, Type, TypeIndex, TypeTable, types,
};
pub use view::{Child, Container, Elements, Scalar, Shape, View};

use crate::kind::Kind;

/// The structure of a kind's objects. Every kind of the table has one (a test says so).
pub fn of_kind(kind: &Kind) -> Option<&'static Type> {
    let group = kind.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
    let version = kind.version.strip_prefix('v').filter(|v| *v != "1").unwrap_or_default();
    types().by_name(&format!("{group}{version}.{}", kind.kind))
}
