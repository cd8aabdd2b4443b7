//! What pods and the node use: samples taken when somebody asks, rates between two of them.
//!
//! An idle daemon samples nothing. Who asks again and again gets rates over about the last fifteen seconds; who asks for the
//! first time waits a second for theirs.

mod asked;
mod summary;

pub use summary::{SummaryInput, summary};

use crate::key::PodKey;
use chrono::{DateTime, Utc};
use reddwarf_host::usage::{Consumption, SandboxUsage};
use reddwarf_host::{BootTime, Clock, Host, HostResult, SandboxId, UsageReport};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The span that rates should be over.
const WINDOW: Duration = Duration::from_secs(15);
/// A sample older than this says nothing about now.
const STALE: Duration = Duration::from_secs(60);
/// Rates over less than this say more about chance.
const LEAST: Duration = Duration::from_secs(1);
/// Samples kept at most.
const KEPT: usize = 16;

/// What something uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Billionths of a processor.
    pub cpu_nanocores: u64,
    /// Memory that can't be taken from it at once, in bytes.
    pub working_set_bytes: u64,
}

/// What the node and its pods use now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    /// When the later sample was taken.
    pub time: DateTime<Utc>,
    /// The time between the two samples.
    pub window: Duration,
    /// The host as a whole.
    pub node: Rate,
    /// Containers that run, by pod and name.
    pub pods: BTreeMap<PodKey, BTreeMap<String, Rate>>,
}

/// The newest samples, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Samples(VecDeque<Arc<UsageReport>>);

impl Samples {
    /// Two samples to make rates of, at least a second apart; taken when those that are there are too old.
    ///
    /// # Errors
    /// As [`Usage::usage`](reddwarf_host::Usage::usage).
    pub(crate) async fn pair(
        &mut self,
        host: &dyn Host,
        clock: &dyn Clock,
    ) -> HostResult<(Arc<UsageReport>, Arc<UsageReport>)> {
        self.0.retain(|s| clock.boot().since(s.at) <= STALE && s.at <= clock.boot());
        if self.0.is_empty() {
            self.0.push_back(Arc::new(host.usage().await?));
        }
        let newest = self.0.back().map_or(BootTime::default(), |s| s.at);
        let age = clock.boot().since(newest);
        if age < LEAST && self.0.len() > 1 {
            // Just taken for somebody else.
        } else {
            if age < LEAST {
                tokio::time::sleep(LEAST.saturating_sub(age)).await;
            }
            self.0.push_back(Arc::new(host.usage().await?));
            while self.0.len() > KEPT {
                self.0.pop_front();
            }
        }
        let (Some(last), Some(first)) = (self.0.back(), self.0.front()) else {
            // There are two at least; were there not, it would be an empty rate.
            let only = Arc::new(host.usage().await?);
            return Ok((only.clone(), only));
        };
        let base = self.0.iter().rev().skip(1).find(|s| last.at.since(s.at) >= WINDOW).unwrap_or(first);
        Ok((base.clone(), last.clone()))
    }
}

/// Rates between two samples. `names` says which pod a sandbox is; sandboxes without a pod are left out.
pub fn rates(before: &UsageReport, after: &UsageReport, names: &BTreeMap<SandboxId, PodKey>) -> Rates {
    let window = after.at.since(before.at);
    let mut pods: BTreeMap<PodKey, BTreeMap<String, Rate>> = BTreeMap::new();
    for (id, sandbox) in &after.sandboxes {
        let Some(pod) = names.get(id).filter(|_| !sandbox.containers.is_empty()) else { continue };
        pods.entry(pod.clone()).or_default().extend(containers(before.sandboxes.get(id), sandbox, window));
    }
    Rates { time: after.time, window, node: rate(Some(before.host), after.host, window), pods }
}

fn containers(before: Option<&SandboxUsage>, after: &SandboxUsage, window: Duration) -> BTreeMap<String, Rate> {
    let one = |(name, (attempt, now)): (&reddwarf_host::ContainerName, &(u32, Consumption))| {
        // Another attempt counts from zero, and was started within the window.
        let earlier = before.and_then(|b| b.containers.get(name)).filter(|(of, _)| of == attempt).map(|(_, c)| *c);
        (name.to_string(), rate(earlier, *now, window))
    };
    after.containers.iter().map(one).collect()
}

fn rate(before: Option<Consumption>, after: Consumption, window: Duration) -> Rate {
    let spent = after.cpu_nanos.saturating_sub(before.map_or(0, |b| b.cpu_nanos));
    let nanos = window.as_nanos().max(1);
    let cpu = u128::from(spent) * 1_000_000_000 / nanos;
    Rate { cpu_nanocores: u64::try_from(cpu).unwrap_or(u64::MAX), working_set_bytes: after.working_set_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reddwarf_host::ContainerName;
    use reddwarf_host::fake::{FakeHost, Fault, Op};
    use reddwarf_host::usage::HostPressure;

    fn report(seconds: u64, containers: &[(&str, u32, u64)]) -> UsageReport {
        let consumption = |cpu_nanos| Consumption { cpu_nanos, working_set_bytes: 4096, ..Consumption::default() };
        let containers = containers
            .iter()
            .map(|(name, attempt, cpu)| (ContainerName::new(*name).unwrap(), (*attempt, consumption(*cpu))))
            .collect();
        let id = SandboxId::new("default-web-1").unwrap();
        UsageReport {
            at: BootTime::from_duration(Duration::from_secs(seconds)),
            time: DateTime::UNIX_EPOCH,
            host: consumption(seconds * 500_000_000),
            host_traffic: None,
            pressure: HostPressure::default(),
            sandboxes: [(id, SandboxUsage { containers, ..SandboxUsage::default() })].into(),
        }
    }

    #[test]
    fn rates_are_of_the_same_attempt_and_never_negative() {
        let names = [(SandboxId::new("default-web-1").unwrap(), PodKey::new("default", "web"))].into();
        let before = report(10, &[("same", 0, 2_000_000_000), ("again", 0, 9_000_000_000), ("back", 0, 5)]);
        let after =
            report(20, &[("same", 0, 7_000_000_000), ("again", 1, 1_000_000_000), ("back", 0, 1), ("new", 0, 10)]);
        let found = rates(&before, &after, &names);
        assert_eq!((found.window, found.node.cpu_nanocores), (Duration::from_secs(10), 500_000_000));
        let cpu: Vec<(&str, u64)> = found.pods[&PodKey::new("default", "web")]
            .iter()
            .map(|(name, rate)| (name.as_str(), rate.cpu_nanocores))
            .collect();
        assert_eq!(cpu, [("again", 100_000_000), ("back", 0), ("new", 1), ("same", 500_000_000)]);
        assert!(rates(&before, &after, &BTreeMap::new()).pods.is_empty());
        assert_eq!(rates(&before, &before, &BTreeMap::new()).node.cpu_nanocores, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn samples_are_taken_when_somebody_asks_and_not_more_often_than_is_of_use() {
        let host = FakeHost::new();
        let clock = host.clock();
        let mut samples = Samples::default();
        let mut ask = async |wait: u64| {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let (before, after) = samples.pair(&host, &*clock).await.unwrap();
            (after.at.since(before.at), host.calls().of(Op::Usage))
        };
        assert_eq!(ask(0).await, (Duration::from_secs(1), 2), "the first time a second is waited for");
        assert_eq!(ask(200).await, (Duration::from_secs(1), 2), "at once again: the same answer");
        assert_eq!(ask(4800).await, (Duration::from_secs(6), 3));
        assert_eq!(ask(20_000).await, (Duration::from_secs(20), 4), "from the newest that is old enough");
        assert_eq!(ask(120_000).await, (Duration::from_secs(1), 6), "what is too old is forgotten");
        for _ in 0..100 {
            ask(1000).await;
        }
        let (window, _) = ask(1000).await;
        assert_eq!(window, WINDOW);
        host.faults().on(Op::Usage, Fault::FailBefore(reddwarf_host::HostErrorKind::Other));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(samples.pair(&host, &*clock).await.is_err());
        assert!(samples.0.len() <= KEPT);
    }
}
