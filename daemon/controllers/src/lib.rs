//! Loops that turn objects into objects. None of them knows a host or HTTP.
//!
//! | task | reads | writes |
//! |---|---|---|
//! | [`directory`] | the manifest directories (by [`watch`] and a periodic look), the registry | one registry transaction and one generation for every change |
//! | [`collect`] | everything that has owners | deletes what all owners have left, orphans, waits (garbage collection) |
//! | [`workload`] | Deployments, ReplicaSets, … and their pods | ReplicaSets, pods, their statuses |
//!
//! All but the directory run on [`runtime`]: one loop, one shared view of slim projections, one queue. Each decides in a pure
//! function of values and has its own tests. [`guard`] is the pure brake on mass deletion that `directory` applies.

pub mod collect;
pub mod directory;
pub mod guard;
pub mod runtime;
pub mod schedule;
pub mod watch;
pub mod workload;

use reddwarf_registry::Registry;
use runtime::{Controller, Engine};
use std::sync::Arc;

/// All controllers that run on the engine.
pub fn all() -> Vec<Arc<dyn Controller>> {
    use workload::{
        daemonset::DaemonSets, deployment::Deployments, replicaset::ReplicaSets, statefulset::StatefulSets,
    };
    let all = [
        boxed(Some(collect::Collector::default())),
        boxed(ReplicaSets::new()),
        boxed(ReplicaSets::replication_controllers()),
        boxed(Deployments::new()),
        boxed(StatefulSets::new()),
        boxed(DaemonSets::new()),
        boxed(schedule::Scheduler::new()),
    ];
    all.into_iter().flatten().collect()
}

/// A controller; none when a kind that it needs is not in the table.
fn boxed<C: Controller>(controller: Option<C>) -> Option<Arc<dyn Controller>> {
    controller.map(|c| Arc::new(c) as Arc<dyn Controller>)
}

/// Runs all controllers until the future is dropped.
pub async fn run(registry: Registry) {
    Engine::new(registry, all()).run().await;
}
