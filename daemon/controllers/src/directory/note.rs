//! What the loop keeps in the store for its next start: a value each, by name.

use reddwarf_registry::{Registry, RegistryError};
use reddwarf_store::{Key, Transaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn key(name: &str) -> Result<Key, RegistryError> {
    Key::from_segments(&["directory", name]).map_err(|e| RegistryError::BadRequest(e.to_string()))
}

/// What is kept. Something unreadable is as good as nothing: only what an earlier daemon knew is lost.
pub(super) fn load<T: DeserializeOwned>(registry: &Registry, name: &str) -> Result<Option<T>, RegistryError> {
    let entry = registry.store().get(&key(name)?)?;
    Ok(entry.and_then(|e| serde_json::from_slice(&e.value).ok()))
}

/// Keeps a value in place of the one before; `why` is for the store's history.
pub(super) async fn keep(
    registry: &Registry,
    name: &str,
    value: &impl Serialize,
    why: &str,
) -> Result<(), RegistryError> {
    let value = serde_json::to_vec(value).map_err(|e| RegistryError::BadRequest(e.to_string()))?;
    commit(registry, Transaction::new("directory", why).put(key(name)?, value)).await
}

/// Drops what is kept.
pub(super) async fn forget(registry: &Registry, name: &str, why: &str) -> Result<(), RegistryError> {
    commit(registry, Transaction::new("directory", why).delete(key(name)?)).await
}

async fn commit(registry: &Registry, transaction: Transaction) -> Result<(), RegistryError> {
    registry.store().commit(transaction).await.map_err(RegistryError::Commit)?;
    Ok(())
}
