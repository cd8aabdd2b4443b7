//! Volumes that have outgrown their claims, where the engine can't keep them to their size: said, never mended. Nothing is
//! evicted, since a pod that goes frees nothing of a volume, and the next one meets the same.

use crate::storage::Storage;
use crate::volumes;
use chrono::{DateTime, Utc};
use reddwarf_host::time::leisurely;
use reddwarf_host::{Area, DatasetName};
use reddwarf_objects::{Object, ObjectKey};
use reddwarf_registry::{Author, EventTarget, EventType, Registry, RegistryError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const US: Author = Author::System("storage");
/// The condition of a claim.
const CONDITION: &str = "reddwarf.io/OverSize";
const SOON: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_secs(60);
/// Looking takes at most one part in so many of the time: it reads every file's size.
const REST: u32 = 50;

/// Looks now and then, for as long as the engine can't keep quotas.
pub(crate) async fn watch(storage: Arc<Storage>, registry: Registry, stop: CancellationToken) -> Result<(), String> {
    if storage.engine().about().features.quota {
        stop.cancelled().await;
        return Ok(());
    }
    let mut wait = SOON;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(leisurely(wait)) => {}
        }
        let began = Instant::now();
        if let Err(error) = look(&storage, &registry).await {
            tracing::debug!(error, "volumes were not measured");
        }
        wait = AGAIN.max(began.elapsed() * REST);
    }
}

async fn look(storage: &Storage, registry: &Registry) -> Result<(), String> {
    let most: BTreeMap<DatasetName, u64> = {
        let all = storage.engine().list().await.map_err(|e| e.chain())?;
        let of_volume = all.into_iter().filter(|(id, _)| id.area == Area::Volumes);
        of_volume.filter_map(|(id, dataset)| Some((id.name, dataset.limits.quota_bytes?))).collect()
    };
    if most.is_empty() {
        return Ok(());
    }
    let used = storage.engine().own_bytes(Area::Volumes).await.map_err(|e| e.chain())?;
    for volume in volumes::objects(registry, "PersistentVolume").map_err(|e| e.to_string())? {
        let bound = |field: &str| volume.get_str(&format!("/spec/claimRef/{field}")).unwrap_or_default();
        let name = volumes::handle(&volume).and_then(|handle| DatasetName::new(handle).ok());
        let Some((used, most)) = name.and_then(|name| Some((*used.get(&name)?, *most.get(&name)?))) else { continue };
        let key = ObjectKey::core("persistentvolumeclaims", bound("namespace"), bound("name"));
        let found = registry.find(&key).map_err(|e| e.to_string())?;
        if let Some(claim) = found.filter(|claim| claim.uid() == Some(bound("uid"))) {
            tell(registry, &key, &claim, used, most).await.map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

/// What to say of a claim whose files take `used` of `most` bytes; `None`: as before.
fn condition(claim: &Object, used: u64, most: u64, now: DateTime<Utc>) -> Option<Value> {
    let over = used > most;
    if over == claim.condition_holds(CONDITION) {
        return None;
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let (status, reason, message) = if over {
        let message = format!(
            "its files take {} MiB, {} MiB were asked for; this host's storage engine can't keep volumes to their size: \
             remove files, or ask for more",
            mib(used),
            mib(most)
        );
        ("True", "VolumeOverSize", message)
    } else {
        ("False", "VolumeFits", format!("its files take {} of {} MiB", mib(used), mib(most)))
    };
    let time = now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    Some(json!({"type": CONDITION, "status": status, "reason": reason, "message": message, "lastTransitionTime": time}))
}

async fn tell(registry: &Registry, key: &ObjectKey, claim: &Object, used: u64, most: u64) -> Result<(), RegistryError> {
    let Some(condition) = condition(claim, used, most, registry.now()) else { return Ok(()) };
    let written = registry.modify_status(&US, key, |live| {
        let all = live.get("/status/conditions").and_then(Value::as_array).into_iter().flatten();
        let kept: Vec<Value> = all.filter(|c| c["type"] != CONDITION).cloned().collect();
        live.set("/status/conditions", Value::Array(kept.into_iter().chain([condition.clone()]).collect()));
    });
    match written.await {
        Ok(_) => {}
        Err(RegistryError::NotFound(_)) => return Ok(()),
        Err(error) => return Err(error),
    }
    if condition["status"] == "True" {
        let message = condition["message"].as_str().unwrap_or_default();
        let target = EventTarget::of(claim);
        registry.record_event(&target, EventType::Warning, "VolumeOverSize", message, "reddwarfd").await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_hears_once_that_its_volume_is_too_large_and_once_that_it_is_not() {
        let mut claim = Object::from_value(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim"})).unwrap();
        let now = DateTime::UNIX_EPOCH;
        assert_eq!(condition(&claim, 10, 10, now), None);
        let over = condition(&claim, 11 << 20, 10 << 20, now).unwrap();
        assert_eq!(over["reason"], "VolumeOverSize");
        assert!(over["message"].as_str().unwrap().starts_with("its files take 11 MiB, 10 MiB were asked for"));
        claim.set("/status/conditions", Value::Array(vec![over]));
        assert_eq!(condition(&claim, 12 << 20, 10 << 20, now), None);
        let fits = condition(&claim, 10, 10, now).unwrap();
        assert_eq!((fits["status"].as_str(), fits["reason"].as_str()), (Some("False"), Some("VolumeFits")));
        claim.set("/status/conditions", Value::Array(vec![fits]));
        assert_eq!(condition(&claim, 10, 10, now), None);
    }
}
