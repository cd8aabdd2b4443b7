//! Bounds of a zone that runs. A configuration counts at a zone's boot only; its resource controls can be changed before
//! (prctl(1), rcapadm(8)), so that limits hold at once. What can't be is told, and comes with the next boot.

use super::commands;
use crate::host::Shared;
use crate::zonecfg::ZoneConfig;
use reddwarf_command::{Cause, CommandError, Invocation};
use std::collections::BTreeSet;

/// A bound of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    /// zonecfg's name for where it stands.
    property: &'static str,
    /// The kernel's.
    control: &'static str,
    value: Option<u64>,
}

/// Every zone has these shares, if nothing else is said. Taking the control away would give it the most there are.
const SHARES: (&str, u64) = ("zone.cpu-shares", 1);
/// Known to OmniOS' and SmartOS' kernels; elsewhere rcapd(8) keeps it.
const RESIDENT: &str = "zone.max-physical-memory";

/// All bounds that a running zone can be given.
fn bounds(config: &ZoneConfig) -> [Bound; 6] {
    let bound = |property, control, value| Bound { property, control, value };
    let cap = config.cpu_cap.map(|cap| u64::from(cap.hundredths()));
    [
        bound("capped-cpu", "zone.cpu-cap", cap),
        bound("cpu-shares", SHARES.0, Some(config.cpu_shares.unwrap_or(SHARES.1))),
        bound("capped-memory", RESIDENT, config.memory.physical),
        bound("capped-memory", "zone.max-swap", config.memory.swap),
        bound("max-lwps", "zone.max-lwps", config.max_lwps),
        bound("max-processes", "zone.max-processes", config.max_processes),
    ]
}

/// What of a changed configuration waits for the zone's next boot, by zonecfg's names: gives the running zone the bounds of
/// `wanted`, where they differ from those of `before`. `after_boot`: what an edit of the configuration did not do at once.
///
/// It may be repeated: that a bound is there already, or gone already, is fine.
pub(crate) async fn resize(
    shared: &Shared,
    zone: &str,
    before: &ZoneConfig,
    wanted: &ZoneConfig,
    after_boot: &BTreeSet<&'static str>,
) -> BTreeSet<&'static str> {
    let (was, is) = (bounds(before), bounds(wanted));
    let mut left: BTreeSet<_> =
        after_boot.iter().copied().filter(|p| !is.iter().any(|bound| bound.property == *p)).collect();
    for (_, bound) in was.iter().zip(&is).filter(|(was, is)| was != is) {
        if let Err(error) = set(shared, zone, bound).await {
            tracing::warn!(zone, control = bound.control, %error, "takes effect at the zone's next boot");
            left.insert(bound.property);
        }
    }
    left
}

async fn set(shared: &Shared, zone: &str, bound: &Bound) -> Result<(), CommandError> {
    let run = async |what: Invocation| shared.tools().run(&what).await.map(|_| ());
    let missing = |error: &CommandError| matches!(error, CommandError::Failed { cause: Cause::NotFound, .. });
    let said = match bound.value {
        Some(value) => match run(commands::replace_rctl(zone, bound.control, value)).await {
            Err(error) if missing(&error) => run(commands::add_rctl(zone, bound.control, value)).await,
            said => said,
        },
        None => match run(commands::remove_rctl(zone, bound.control)).await {
            Err(error) if missing(&error) => Ok(()),
            said => said,
        },
    };
    match said {
        // illumos-gate's kernel does not know it.
        Err(CommandError::Failed { .. }) if bound.control == RESIDENT => {
            run(commands::cap_resident(zone, bound.value.unwrap_or(0))).await
        }
        said => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::brand::ZoneBrand;
    use crate::zone::config;
    use crate::zonecfg::Text;
    use reddwarf_host::spec::Resources;

    /// A bound that a pod can have and that is not here would be forgotten.
    #[test]
    fn every_limit_of_a_pod_is_a_bound_of_a_running_zone() {
        let blank = || ZoneConfig::new(Text::new("sparse").unwrap(), Text::new("/z").unwrap());
        let mut full = blank();
        let resources = Resources {
            cpu_limit_millis: Some(1500),
            cpu_request_millis: Some(250),
            memory_limit_bytes: Some(1 << 20),
            pids_limit: Some(7),
            ..Resources::default()
        };
        config::limit(&mut full, ZoneBrand::Sparse, &resources).unwrap();
        let values = bounds(&full).map(|b| b.value.unwrap());
        assert_eq!(values, [150, 250, 1 << 20, 50 << 20, 100, 100]);
        let none = bounds(&blank()).map(|b| b.value);
        assert_eq!(none, [None, Some(1), None, None, None, None]);
        // Everything that an edit between the two touches can be changed at once.
        let edit = crate::zonecfg::edit(&blank(), &full).unwrap().unwrap();
        assert_eq!(edit.after_boot, bounds(&full).iter().map(|b| b.property).collect());
    }
}
