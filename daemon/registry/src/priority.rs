//! The PriorityClasses that every cluster has.

use crate::{Author, Registry, RegistryError};
use reddwarf_objects::admission::SYSTEM_CLASSES;
use reddwarf_objects::{Kind, ObjectKey};
use serde_json::json;

/// Is it one of the system's?
fn is_system(kind: &Kind, name: &str) -> bool {
    kind.group == "scheduling.k8s.io"
        && kind.kind == "PriorityClass"
        && SYSTEM_CLASSES.iter().any(|class| class.name == name)
}

/// Nobody's client deletes a class of the system.
pub(crate) fn check_delete(author: &Author, kind: &Kind, key: &ObjectKey) -> Result<(), RegistryError> {
    if !author.is_api() || !is_system(kind, &key.name) {
        return Ok(());
    }
    let message = "this is a system priority class and cannot be deleted".to_owned();
    Err(RegistryError::Forbidden { key: key.clone(), message })
}

impl Registry {
    /// Makes the system's PriorityClasses as far as they are missing.
    ///
    /// # Errors
    /// When the store can't be read or written.
    pub async fn make_system_classes(&self) -> Result<(), RegistryError> {
        for class in SYSTEM_CLASSES {
            let object = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": class.name},
                "value": class.value, "description": class.description});
            self.make_missing(object).await?;
        }
        Ok(())
    }
}
