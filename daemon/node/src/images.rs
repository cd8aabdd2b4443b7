//! Which images are removed when room is needed: those that nobody uses and nobody imported by hand, the one that was
//! used longest ago first.

use crate::run::Shared;
use chrono::{DateTime, TimeDelta, Utc};
use reddwarf_host::spec::ContainerImage;
use reddwarf_host::time::leisurely;
use reddwarf_host::{HostObservation, ImageId, ImageInfo};
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// When images are removed to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageCollection {
    /// Begin when the file system of images is this full, in percent; 100 never begins.
    pub high_percent: u8,
    /// Go on until it is no fuller than this.
    pub low_percent: u8,
    /// Leave alone what was used or came within this time.
    pub min_age: Duration,
    /// How often it is looked at.
    pub period: Duration,
}

impl Default for ImageCollection {
    fn default() -> Self {
        let (min_age, period) = (Duration::from_secs(120), Duration::from_secs(300));
        Self { high_percent: 85, low_percent: 80, min_age, period }
    }
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Collected {
    /// Names, or ids of what had none.
    pub removed: Vec<String>,
    /// Bytes that they took, layers that others still have included.
    pub bytes: u64,
}

/// Images that may go, the first to go first. `None` for `images` or sandboxes that are not known: none may.
pub fn collectable(observed: &HostObservation, imported: bool) -> Vec<&ImageInfo> {
    let (Some(images), Some(used)) = (observed.images.known(), in_use(observed)) else { return Vec::new() };
    let mut free: Vec<&ImageInfo> =
        images.values().filter(|i| !used.contains(&i.id) && (imported || !i.is_imported())).collect();
    free.sort_by_key(|i| (i.last_used, i.id.clone()));
    free
}

/// Images that containers on the host were started from; `None`: not all containers are known.
fn in_use(observed: &HostObservation) -> Option<BTreeSet<&ImageId>> {
    let mut used = BTreeSet::new();
    for sandbox in observed.sandboxes.known()?.values() {
        for instance in sandbox.known()?.containers.values().flatten() {
            if let ContainerImage::Image { id } = &instance.spec.image {
                used.insert(id);
            }
        }
    }
    Some(used)
}

/// The images to remove so that `bytes` come free, as far as there are any that old.
pub fn choose(free: &[&ImageInfo], bytes: u64, min_age: Duration, now: DateTime<Utc>) -> Vec<ImageId> {
    let age = TimeDelta::from_std(min_age).unwrap_or(TimeDelta::MAX);
    let mut left = bytes;
    let mut chosen = Vec::new();
    for image in free.iter().filter(|i| i.last_used.is_none_or(|used| now - used >= age)) {
        if left == 0 {
            break;
        }
        left = left.saturating_sub(image.size_bytes);
        chosen.push(image.id.clone());
    }
    chosen
}

/// Looks again and again whether room must be made.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    let period = shared.settings.images.period;
    loop {
        tokio::select! {
            () = tokio::time::sleep(leisurely(period)) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if let Err(error) = make_room(&shared).await {
            tracing::warn!(error, "images could not be collected");
        }
    }
}

/// Makes room when the file system is too full.
async fn make_room(shared: &Shared) -> Result<(), String> {
    let ImageCollection { high_percent, low_percent, min_age, .. } = shared.settings.images;
    let storage = shared.host.pressure().await.map_err(|e| e.chain())?.storage;
    let used = storage.capacity_bytes.saturating_sub(storage.available_bytes);
    let percent = |p: u8| storage.capacity_bytes / 100 * u64::from(p.min(100));
    if storage.capacity_bytes == 0 || high_percent >= 100 || used < percent(high_percent) {
        return Ok(());
    }
    let wanted = used.saturating_sub(percent(low_percent));
    let observed = shared.observer.fresh().await;
    let chosen = choose(&collectable(&observed, false), wanted, min_age, shared.clock.wall());
    let collected = remove(shared, &observed, &chosen).await?;
    let (images, bytes) = (collected.removed.len(), collected.bytes);
    tracing::info!(images, bytes, wanted, "images were removed for want of room");
    if bytes < wanted {
        tracing::warn!(
            "the disk is {high_percent} % full, and images that nobody uses hold {bytes} of {wanted} bytes that should come free"
        );
    }
    Ok(())
}

/// Removes images at once.
pub(crate) async fn remove(
    shared: &Shared,
    observed: &HostObservation,
    chosen: &[ImageId],
) -> Result<Collected, String> {
    if chosen.is_empty() {
        return Ok(Collected::default());
    }
    let gone = shared.host.image_collect(chosen).await.map_err(|e| e.chain())?;
    let mut collected = Collected::default();
    for image in gone.iter().filter_map(|id| observed.images.known()?.get(id)) {
        collected.bytes = collected.bytes.saturating_add(image.size_bytes);
        match image.names.as_slice() {
            [] => collected.removed.push(image.id.to_string()),
            names => collected.removed.extend(names.iter().cloned()),
        }
    }
    Ok(collected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(n: u8, size_bytes: u64, used: i64) -> ImageInfo {
        ImageInfo {
            id: ImageId::of_digest([n; 32]),
            names: Vec::new(),
            size_bytes,
            config: Default::default(),
            pulled: Default::default(),
            last_used: DateTime::from_timestamp(used, 0),
        }
    }

    #[test]
    fn no_more_goes_than_must_and_nothing_young() {
        let all = [image(1, 10, 100), image(2, 10, 200), image(3, 10, 990)];
        let all: Vec<_> = all.iter().collect();
        let now = DateTime::from_timestamp(1000, 0).unwrap();
        let chosen = |bytes| choose(&all, bytes, Duration::from_secs(120), now).len();
        assert_eq!((chosen(0), chosen(10), chosen(11), chosen(1000)), (0, 1, 2, 2));
    }
}
