//! Volumes that have no room left, and volumes that have outgrown their claims where the engine can't keep them to their size:
//! said, never mended. Nothing is evicted, since a pod that goes frees nothing of a volume, and the next one meets the same.

use crate::storage::{PATIENCE, Storage};
use crate::volumes;
use chrono::{DateTime, Utc};
use reddwarf_host::storage::no_room;
use reddwarf_host::time::leisurely;
use reddwarf_host::{Area, DatasetName};
use reddwarf_objects::object::timestamp;
use reddwarf_objects::{Object, ObjectKey};
use reddwarf_registry::{Author, EventTarget, EventType, Registry, RegistryError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const US: Author = Author::System("storage");
/// Conditions of a claim.
const OVER_SIZE: &str = "reddwarf.io/OverSize";
const FULL: &str = "reddwarf.io/VolumeFull";
const SOON: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_secs(60);
/// Looking takes at most one part in so many of the time: it may read every file's size.
const REST: u32 = 50;

/// Looks now and then.
pub(crate) async fn watch(storage: Arc<Storage>, registry: Registry, stop: CancellationToken) -> Result<(), String> {
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

/// A volume as measured, in bytes.
#[derive(Clone, Copy, Debug)]
struct Measured {
    used: u64,
    /// Its size.
    most: u64,
    /// The engine keeps it to that.
    kept: bool,
    /// Free in the place where all volumes lie.
    free: u64,
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
    let used = storage.engine().data_bytes(Area::Volumes).await.map_err(|e| e.chain())?;
    let free = storage.look(PATIENCE).await.map_err(|e| e.chain())?.free_bytes;
    let kept = storage.engine().about().features.quota;
    for volume in volumes::objects(registry, "PersistentVolume").map_err(|e| e.to_string())? {
        let bound = |field: &str| volume.get_str(&format!("/spec/claimRef/{field}")).unwrap_or_default();
        let name = volumes::handle(&volume).and_then(|handle| DatasetName::new(handle).ok());
        let Some((used, most)) = name.and_then(|name| Some((*used.get(&name)?, *most.get(&name)?))) else { continue };
        let key = ObjectKey::core("persistentvolumeclaims", bound("namespace"), bound("name"));
        let found = registry.find(&key).map_err(|e| e.to_string())?;
        if let Some(claim) = found.filter(|claim| claim.uid() == Some(bound("uid"))) {
            tell(registry, &key, &claim, Measured { used, most, kept, free }).await.map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// What to say of a claim's volume: nothing of what is as before.
fn news(claim: &Object, measured: Measured, now: DateTime<Utc>) -> Vec<Value> {
    let time = timestamp(now);
    [over_size(claim, measured), full(claim, measured)]
        .into_iter()
        .flatten()
        .map(|(kind, holds, reason, message)| {
            let status = if holds { "True" } else { "False" };
            json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": time})
        })
        .collect()
}

/// A condition's name, whether it holds, why in one word and in many.
type Finding = (&'static str, bool, &'static str, String);

fn over_size(claim: &Object, Measured { used, most, kept, .. }: Measured) -> Option<Finding> {
    let over = used > most && !kept;
    if over == claim.condition_holds(OVER_SIZE) {
        return None;
    }
    let (used, most) = (mib(used), mib(most));
    Some(if over {
        let message = format!(
            "its files take {used} MiB, {most} MiB were asked for; this host's storage engine can't keep volumes to their size: \
             remove files, or ask for more"
        );
        (OVER_SIZE, true, "VolumeOverSize", message)
    } else {
        (OVER_SIZE, false, "VolumeFits", format!("its files take {used} of {most} MiB"))
    })
}

/// Whether there is room for what is written next. Room that comes and goes by a little is none.
fn full(claim: &Object, Measured { used, most, kept, free }: Measured) -> Option<Finding> {
    let before = claim.condition_holds(FULL);
    let own = if kept { most.saturating_sub(used) } else { u64::MAX };
    let little = if before { no_room(most).saturating_mul(2) } else { no_room(most) };
    let holds = own.min(free) <= little;
    if holds == before {
        return None;
    }
    let (used, most) = (mib(used), mib(most));
    let message = match (holds, own <= free) {
        (false, _) => return Some((FULL, false, "VolumeHasRoom", format!("its files take {used} of {most} MiB"))),
        (true, true) => {
            format!("its files take {used} of {most} MiB, what is written fails: remove files, or ask for more")
        }
        (true, false) => {
            format!("the storage that it lies on has {} MiB left, what is written fails: make room there", free >> 20)
        }
    };
    Some((FULL, true, "VolumeFull", message))
}

/// Puts conditions in the place of those of the same type.
fn take_up(claim: &mut Object, news: &[Value]) {
    let all = claim.get("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let kept = all.filter(|c| news.iter().all(|new| new["type"] != c["type"])).cloned();
    let conditions = kept.chain(news.iter().cloned()).collect();
    claim.set("/status/conditions", Value::Array(conditions));
}

async fn tell(registry: &Registry, key: &ObjectKey, claim: &Object, measured: Measured) -> Result<(), RegistryError> {
    let news = news(claim, measured, registry.now());
    if news.is_empty() {
        return Ok(());
    }
    let written = registry.modify_status(&US, key, |live| take_up(live, &news));
    match written.await {
        Ok(_) => {}
        Err(RegistryError::NotFound(_)) => return Ok(()),
        Err(error) => return Err(error),
    }
    let target = EventTarget::of(claim);
    for condition in &news {
        let text = |field: &str| condition[field].as_str().unwrap_or_default();
        let kind = if text("status") == "True" { EventType::Warning } else { EventType::Normal };
        registry.record_event(&target, kind, text("reason"), text("message"), "reddwarfd").await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn claim() -> Object {
        Object::from_value(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim"})).unwrap()
    }

    /// What is said, taken up: condition, status and reason.
    fn hear(claim: &mut Object, measured: Measured) -> Vec<(String, String, String)> {
        let news = news(claim, measured, DateTime::UNIX_EPOCH);
        take_up(claim, &news);
        let text = |c: &Value, field: &str| c[field].as_str().unwrap().to_owned();
        news.iter().map(|c| (text(c, "type"), text(c, "status"), text(c, "reason"))).collect()
    }

    fn one(kind: &str, status: &str, reason: &str) -> Vec<(String, String, String)> {
        vec![(kind.to_owned(), status.to_owned(), reason.to_owned())]
    }

    #[test]
    fn a_claim_hears_once_that_its_volume_is_too_large_and_once_that_it_is_not() {
        let mut claim = claim();
        let used = |mib: u64| Measured { used: mib * MIB, most: 10 * MIB, kept: false, free: 1 << 40 };
        assert!(hear(&mut claim, used(10)).is_empty());
        let over = over_size(&claim, used(11)).unwrap().3;
        assert!(over.starts_with("its files take 11 MiB, 10 MiB were asked for"), "{over}");
        assert_eq!(hear(&mut claim, used(11)), one(OVER_SIZE, "True", "VolumeOverSize"));
        assert!(hear(&mut claim, used(12)).is_empty());
        assert_eq!(hear(&mut claim, used(10)), one(OVER_SIZE, "False", "VolumeFits"));
        assert!(hear(&mut claim, used(10)).is_empty());
    }

    #[test]
    fn a_claim_hears_once_that_its_volume_is_full_and_once_that_it_has_room_again() {
        let mut claim = claim();
        let used = |mib: u64| Measured { used: mib * MIB, most: 100 * MIB, kept: true, free: 1 << 40 };
        assert!(hear(&mut claim, used(80)).is_empty());
        let said = full(&claim, used(100)).unwrap().3;
        assert!(said.starts_with("its files take 100 of 100 MiB, what is written fails"), "{said}");
        // What the engine refused is not all there: as good as full is full.
        assert_eq!(hear(&mut claim, used(95)), one(FULL, "True", "VolumeFull"));
        assert!(hear(&mut claim, used(100)).is_empty() && hear(&mut claim, used(90)).is_empty());
        assert_eq!(hear(&mut claim, used(50)), one(FULL, "False", "VolumeHasRoom"));
        assert!(hear(&mut claim, used(50)).is_empty());
    }

    #[test]
    fn where_the_storage_itself_is_full_so_is_every_volume_on_every_engine() {
        for kept in [false, true] {
            let mut claim = claim();
            let free = |mib: u64| Measured { used: MIB, most: 100 * MIB, kept, free: mib * MIB };
            assert_eq!(hear(&mut claim, free(2)), one(FULL, "True", "VolumeFull"), "{kept}");
            assert!(hear(&mut claim, free(12)).is_empty());
            assert_eq!(hear(&mut claim, free(500)), one(FULL, "False", "VolumeHasRoom"), "{kept}");
            assert!(full(&claim, free(0)).unwrap().3.contains("the storage that it lies on has 0 MiB left"));
        }
    }
}
