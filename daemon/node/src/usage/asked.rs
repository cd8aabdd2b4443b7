//! What the rest of the daemon asks about usage.

use crate::handle::{NodeError, NodeHandle};
use crate::key::PodKey;
use crate::run::Shared;
use crate::usage::{Rates, SummaryInput, rates, summary};
use reddwarf_host::{PodUid, SandboxId, UsageReport};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Looking at disks is given up after this.
const DISKS: Duration = Duration::from_secs(5);

impl NodeHandle {
    /// The Node object's name.
    pub fn name(&self) -> &str {
        &self.shared.settings.node_name
    }

    /// What the node and its pods use now.
    ///
    /// # Errors
    /// `Host` when it can't be read.
    pub async fn usage(&self) -> Result<Rates, NodeError> {
        let (before, after) = samples(&self.shared).await?;
        let names = pods(&self.shared, &after).into_iter().map(|(id, (key, _))| (id, key)).collect();
        Ok(rates(&before, &after, &names))
    }

    /// The kubelet's `/stats/summary`, disks included.
    ///
    /// # Errors
    /// `Host` when it can't be read.
    pub async fn stats_summary(&self) -> Result<serde_json::Value, NodeError> {
        let (before, after) = samples(&self.shared).await?;
        let pods = pods(&self.shared, &after);
        let ids: Vec<SandboxId> = pods.keys().cloned().collect();
        let disks = self.shared.host.disk_usage(&ids, DISKS).await?;
        let node = &self.shared.settings.node_name;
        Ok(summary(SummaryInput { node, before: &before, after: &after, pods: &pods, disks: &disks }))
    }
}

async fn samples(shared: &Shared) -> Result<(Arc<UsageReport>, Arc<UsageReport>), NodeError> {
    let mut samples = shared.samples.lock().await;
    Ok(samples.pair(&*shared.host, &*shared.clock).await?)
}

/// The pods that sandboxes belong to, of those that are wanted.
fn pods(shared: &Shared, report: &UsageReport) -> BTreeMap<SandboxId, (PodKey, PodUid)> {
    let state = shared.state();
    let known = state.observed.as_ref().and_then(|o| o.sandboxes.known());
    let pod = |(id, sandbox): (&SandboxId, &reddwarf_host::Observation<reddwarf_host::SandboxObserved>)| {
        let pod = &sandbox.known()?.spec.pod;
        let key = PodKey::from(pod);
        let wanted = report.sandboxes.contains_key(id) && state.desired.pods.contains_key(&key);
        wanted.then(|| (id.clone(), (key, pod.uid.clone())))
    };
    known.into_iter().flatten().filter_map(pod).collect()
}
