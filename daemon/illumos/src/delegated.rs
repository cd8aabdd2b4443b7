//! What administrators give to pods: ZFS volumes as disks, file systems for them to administer themselves.
//!
//! Who may have one is written on the dataset itself, by whoever administers it: a pod's annotation alone would open any dataset of
//! the host.

use crate::datasets;
use crate::host::Shared;
use reddwarf_host::spec::SandboxSpec;
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use reddwarf_storage::zfs::text::{Dataset, OWNER};

/// The user property that gives a file system to a pod to administer: `NAMESPACE/NAME`.
pub(crate) const GRANT: &str = "io.reddwarf:dataset";

/// A kind of dataset that can be given.
pub(crate) struct Gift {
    /// The user property that says to whom.
    pub(crate) grant: &'static str,
    /// As zfs(8) names the kind.
    pub(crate) kind: &'static str,
    /// How one is made.
    pub(crate) create: &'static str,
}

const FILE_SYSTEM: Gift = Gift { grant: GRANT, kind: "filesystem", create: "zfs create" };

/// The datasets that a pod names.
///
/// # Errors
/// `InvalidSpec` for what can't be a dataset's name.
pub(crate) fn named(op: &'static str, spec: &SandboxSpec) -> HostResult<Vec<Dataset>> {
    let parse =
        |name: &String| Dataset::new(name.as_str()).map_err(|e| refused(op, spec, format!("dataset {name:?}: {e}")));
    spec.datasets.iter().map(parse).collect()
}

/// The file systems that a pod is to administer are there, and its own to have.
///
/// # Errors
/// `InvalidSpec`, with what is missing and how it is given; the tools'.
pub(crate) async fn check(shared: &Shared, op: &'static str, spec: &SandboxSpec) -> HostResult<()> {
    for dataset in named(op, spec)? {
        given(shared, op, spec, &dataset, &FILE_SYSTEM).await?;
    }
    Ok(())
}

/// A dataset is there, of that kind, and was given to the pod.
///
/// # Errors
/// As [`check`].
pub(crate) async fn given(
    shared: &Shared,
    op: &'static str,
    spec: &SandboxSpec,
    dataset: &Dataset,
    gift: &Gift,
) -> HostResult<()> {
    let Gift { grant, kind, create } = gift;
    let found = datasets::properties_of(shared, op, dataset, &["type", "mountpoint", OWNER, grant]).await?;
    let of = |name: &str| found.as_ref()?.get(name);
    let pod = format!("{}/{}", spec.pod.namespace, spec.pod.name);
    let base = datasets::base(shared)?;
    let problem = match of("type").map(|p| p.value.as_str()) {
        None => format!("there is no {kind} {dataset}: {create} {dataset}"),
        Some(other) if other != *kind => format!("{dataset} is a {other}, not a {kind}: {create} {dataset}"),
        Some(_) if of(OWNER).is_some_and(|p| p.local) => format!("{dataset} is reddwarfd's own"),
        // What is below goes with a zone or a pod, what is above would take all of them along.
        Some(_) if dataset.is_within(&base) || base.is_within(dataset) => {
            format!("{dataset} is not apart from reddwarfd's own {base}: give one elsewhere")
        }
        Some(_) if of(grant).filter(|p| p.local).is_none_or(|p| p.value != pod) => {
            format!("{dataset} is not this pod's to use: zfs set {grant}={pod} {dataset}")
        }
        // zoneadm(8) would boot no zone that has it (verify_datasets); a volume has none.
        Some(_) if of("mountpoint").is_some_and(|p| p.inherited) => {
            format!(
                "{dataset} inherits its mountpoint, which no zone takes: zfs set mountpoint=/PLACE/IN/THE/ZONE {dataset}"
            )
        }
        Some(_) => return Ok(()),
    };
    Err(refused(op, spec, problem))
}

fn refused(op: &'static str, spec: &SandboxSpec, message: String) -> HostError {
    HostError::new(HostErrorKind::InvalidSpec, op, spec.id.as_str(), message)
}
