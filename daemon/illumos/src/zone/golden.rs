//! Template zones: installed once for a brand (and an image, where the brand is installed from one), never booted, cloned
//! for each pod. On ZFS a clone takes a moment and no room.

use super::brand::ZoneBrand;
use super::config;
use super::drive::{Order, drive};
use super::state::Goal;
use crate::host::Shared;
use crate::images::ZoneSource;
use reddwarf_host::{HostError, HostErrorKind, HostResult, ImageId, SandboxId};

const OP: &str = "make template zone";

/// How templates' names begin.
pub(crate) fn prefix(instance: &str) -> String {
    format!("{instance}-golden-")
}

/// The template's name: `<instance>-golden-<brand>`, and of an image the first of its digest.
pub(crate) fn name(instance: &str, brand: ZoneBrand, image: Option<&ImageId>) -> String {
    let digest = image.map(|id| {
        let digest = id.as_str().rsplit(':').next().unwrap_or_default();
        format!("-{}", digest.get(..12).unwrap_or(digest))
    });
    format!("{}{}{}", prefix(instance), brand.name(), digest.unwrap_or_default())
}

/// Makes the template when it is not there; its name. Calls for the same template wait for one another.
pub(crate) async fn ensure(shared: &Shared, brand: ZoneBrand, source: Option<&ZoneSource>) -> HostResult<String> {
    let name = name(&shared.options.instance, brand, source.map(|s| &s.image));
    let id =
        SandboxId::new(&name).map_err(|e| HostError::new(HostErrorKind::Other, OP, name.clone(), e.to_string()))?;
    let _turn = shared.turns.take(&id).await;
    let wanted = config::of_golden(&name, brand, &shared.paths, &shared.options.instance)
        .map_err(|e| HostError::new(HostErrorKind::Other, OP, name.clone(), e.to_string()))?;
    let install = brand.install(source.map(|s| s.from.as_str()));
    let order = Order { zone: &name, owner: &name, config: Some(&wanted), install, clone: None };
    let _ = Box::pin(drive(shared, OP, &order, Goal::Installed)).await?;
    Ok(name)
}
