//! Loops that turn objects into objects. None of them knows a host or HTTP.
//!
//! | task | reads | writes |
//! |---|---|---|
//! | [`directory`] | the manifest directories (by [`watch`] and a periodic look), the registry | one registry transaction and one generation for every change |
//! | [`collect`] | everything that has owners | deletes what all owners have left, orphans, waits (garbage collection) |
//! | [`workload`] | Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs, CronJobs and their pods | what each makes, and statuses |
//! | [`schedule`] | pods without a node, nodes | where pods run, or why nowhere |
//! | [`endpoints`] | Services, pods, Endpoints | EndpointSlices and Endpoints; the service `kubernetes` |
//! | [`load_balancer`] | Services of type LoadBalancer | their addresses, in `status` |
//! | [`volume`] | PersistentVolumes, claims, storage classes, pods | which volume a claim has; volumes made, grown and destroyed through [`volume::Provisioner`]; ephemeral claims |
//! | [`namespace`] | namespaces that are being deleted | deletes what is in them, conditions |
//! | [`orphan`] | pods on nodes that are not there, nodes | deletes them |
//! | [`taint`] | nodes with `NoExecute` taints, pods there | deletes the pods that do not, or no longer, tolerate them |
//! | [`account`] | namespaces | ServiceAccount `default`, ConfigMap `kube-root-ca.crt` |
//! | [`account_token`] | ServiceAccounts, Secrets of type `kubernetes.io/service-account-token` | the tokens in them; deletes those of accounts that are gone |
//! | [`disruption`] | PodDisruptionBudgets and pods | how many may be evicted |
//! | [`quota`] | ResourceQuotas and what they count | `status.used` |
//!
//! All but the directory run on [`runtime`]: one loop, one shared view of slim projections, one queue. Each decides in a pure
//! function of values and has its own tests. [`guard`] is the pure brake on mass deletion that `directory` applies.

pub mod account;
pub mod account_token;
pub mod collect;
pub mod directory;
pub mod disruption;
pub mod endpoints;
pub mod guard;
pub mod load_balancer;
pub mod namespace;
pub mod orphan;
pub mod quota;
pub mod runtime;
pub mod schedule;
pub mod taint;
pub mod volume;
pub mod watch;
pub mod workload;

use reddwarf_registry::Registry;
use runtime::{Controller, Engine};
use std::sync::Arc;

/// What controllers are to know of the daemon.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Certificate of the authority behind the API's certificate, PEM: given to every namespace as ConfigMap `kube-root-ca.crt`.
    pub root_ca: Option<String>,
    /// Who makes tokens of ServiceAccounts for Secrets; without one such Secrets stay empty.
    pub tokens: Option<Arc<dyn account_token::SecretTokens>>,
    /// Addresses for services of type LoadBalancer; without any they are left to others.
    pub load_balancer: Vec<ipnet::IpNet>,
    /// The service `kubernetes`; without it there is none.
    pub kubernetes: Option<endpoints::kubernetes::KubernetesService>,
    /// Who makes volumes on this host; without one claims wait for others to do it.
    pub provisioner: Option<Arc<dyn volume::Provisioner>>,
    /// Name of this host's node, whose pods are nobody else's business; without it no pod is taken for an orphan.
    pub node: Option<String>,
}

/// All controllers that run on the engine.
pub fn all(options: &Options) -> Vec<Arc<dyn Controller>> {
    use workload::{
        cronjob::CronJobs, daemonset::DaemonSets, deployment::Deployments, job::Jobs, replicaset::ReplicaSets,
        statefulset::StatefulSets,
    };
    let all = [
        boxed(Some(collect::Collector::default())),
        boxed(ReplicaSets::new()),
        boxed(ReplicaSets::replication_controllers()),
        boxed(Deployments::new()),
        boxed(StatefulSets::new()),
        boxed(DaemonSets::new()),
        boxed(Jobs::new()),
        boxed(CronJobs::new()),
        boxed(schedule::Scheduler::new()),
        boxed(endpoints::Endpoints::new()),
        boxed(endpoints::kubernetes::Kubernetes::new(options.kubernetes.clone())),
        boxed(load_balancer::LoadBalancers::new(options.load_balancer.clone())),
        boxed(volume::Volumes::new(options.provisioner.clone())),
        boxed(volume::Ephemerals::new()),
        boxed(namespace::Namespaces::new()),
        boxed(orphan::Orphans::new(options.node.clone())),
        boxed(taint::TaintEvictions::new()),
        boxed(account::Accounts::new(options.root_ca.clone())),
        boxed(account_token::AccountTokens::new(options.tokens.clone(), options.root_ca.clone())),
        boxed(disruption::Budgets::new()),
        boxed(quota::Quotas::new()),
    ];
    all.into_iter().flatten().collect()
}

/// A controller; none when a kind that it needs is not in the table.
fn boxed<C: Controller>(controller: Option<C>) -> Option<Arc<dyn Controller>> {
    controller.map(|c| Arc::new(c) as Arc<dyn Controller>)
}

/// Runs all controllers until the future is dropped.
pub async fn run(registry: Registry, options: Options) {
    Engine::new(registry, all(&options)).run().await;
}
