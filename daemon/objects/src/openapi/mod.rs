//! OpenAPI documents, made from the tables of kinds and types whenever somebody asks for one.
//!
//! ```text
//! kinds.txt, bodies.txt ─→ operations.rs   what can be done at which path
//! types.txt             ─→ definitions.rs  what the bodies look like       ┐
//! descriptions.z        ─→ descriptions.rs what people read about it       ┘ definitions
//!                              └→ document.rs  OpenAPI 3 (one document a group and version), OpenAPI 2 (one document)
//!                                   └→ gnostic.rs  OpenAPI 2 as protobuf
//! ```
//!
//! Nothing is kept: a document is made piece by piece into one text, and what it was made from is dropped.
//!
//! Source: OpenAPI 2.0 and 3.0 specifications; Kubernetes "API concepts" and the `x-kubernetes-*` extensions as recorded from
//! kube-apiserver 1.36.

mod definitions;
mod descriptions;
mod document;
mod gnostic;
mod names;
mod operations;
#[cfg(test)]
mod tests;

pub use document::{group_versions, sources, v2_json, v2_protobuf, v3};
pub use names::definition_name;

/// Which OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 2.0 ("Swagger").
    V2,
    /// 3.0.
    V3,
}

impl Version {
    /// What a reference to a definition begins with.
    fn root(self) -> &'static str {
        match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        }
    }

    /// A reference to a definition.
    fn reference(self, name: &str) -> serde_json::Value {
        serde_json::json!({"$ref": format!("{}{name}", self.root())})
    }
}
