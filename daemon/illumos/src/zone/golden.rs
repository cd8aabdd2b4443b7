//! Template zones: installed once for a brand (and an image, where the brand is installed from one), never booted, cloned
//! for each pod. On ZFS a clone takes a moment and no room.

use super::brand::ZoneBrand;
use super::config;
use super::drive::{Order, drive};
use super::state::Goal;
use crate::host::Shared;
use reddwarf_host::{HostError, HostErrorKind, HostResult, SandboxId};

const OP: &str = "make template zone";

/// How templates' names begin.
pub(crate) fn prefix(instance: &str) -> String {
    format!("{instance}-golden-")
}

/// The template's name: `<instance>-golden-<brand>`, and of an image the first of its digest.
pub(crate) fn name(instance: &str, brand: ZoneBrand, source: Option<&str>) -> String {
    let digest = source.map(|s| {
        let hex: String = s.chars().filter(char::is_ascii_hexdigit).take(12).collect();
        format!("-{}", hex.to_ascii_lowercase())
    });
    format!("{}{}{}", prefix(instance), brand.name(), digest.unwrap_or_default())
}

/// Makes the template when it is not there; its name. Calls for the same template wait for one another.
pub(crate) async fn ensure(shared: &Shared, brand: ZoneBrand, source: Option<&str>) -> HostResult<String> {
    let name = name(&shared.options.instance, brand, source);
    let id =
        SandboxId::new(&name).map_err(|e| HostError::new(HostErrorKind::Other, OP, name.clone(), e.to_string()))?;
    let _turn = shared.turns.take(&id).await;
    let wanted = config::of_golden(&name, brand, &shared.paths, &shared.options.instance)
        .map_err(|e| HostError::new(HostErrorKind::Other, OP, name.clone(), e.to_string()))?;
    let order = Order { zone: &name, owner: &name, config: Some(&wanted), install: brand.install(source), clone: None };
    let _ = Box::pin(drive(shared, OP, &order, Goal::Installed)).await?;
    Ok(name)
}
