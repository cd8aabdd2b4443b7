//! Services as the fake host has them: the table that was asked for, checked as a real host checks it.

use super::call::mutation;
use super::journal::Asked;
use super::{FakeHost, Op};
use crate::error::{HostErrorKind, HostResult};
use crate::observe::Change;
use crate::service::{Listener, ServiceTable};
use crate::traits::{HostEvent, Services};
use async_trait::async_trait;
use ipnet::IpNet;
use std::collections::BTreeSet;

/// The services as they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceState {
    table: ServiceTable,
    drift: Vec<String>,
}

#[async_trait]
impl Services for FakeHost {
    async fn services_ensure(&self, table: &ServiceTable) -> HostResult<Change> {
        let record = mutation(self, Op::ServicesEnsure, None, Asked::Services(Box::new(table.clone())));
        let call = self.begin(Op::ServicesEnsure, "services", Some(record)).await?;
        let routes = &self.shared.options.routes;
        let clash = routes.iter().find(|r| table.cluster.iter().any(|c| r.contains(c) || c.contains(*r)));
        let result = match (table.problem(), clash) {
            (Some(problem), _) => Err(call.error(HostErrorKind::InvalidSpec, problem)),
            (None, Some(route)) => {
                let message = format!("cluster addresses overlap {route}, which this host uses already");
                Err(call.error(HostErrorKind::Conflict, message))
            }
            (None, None) => {
                let mut world = self.world();
                let state = &mut world.services;
                let change = if state.table == *table && state.drift.is_empty() {
                    Change::Unchanged
                } else {
                    let words = format!("{} frontends", table.frontends.len());
                    if !call.nothing_done() {
                        *state = ServiceState { table: table.clone(), drift: Vec::new() };
                    }
                    Change::Changed(words)
                };
                Ok(change)
            }
        };
        call.end(result).await
    }

    async fn services_drift(&self) -> HostResult<Vec<String>> {
        let call = self.begin(Op::ServicesDrift, "services", None).await?;
        let drift = self.world().services.drift.clone();
        call.end_with(Ok(drift), false).await
    }

    async fn listeners(&self) -> HostResult<BTreeSet<Listener>> {
        let call = self.begin(Op::Listeners, "host", None).await?;
        let listeners = self.shared.options.listeners.clone();
        call.end_with(Ok(listeners), false).await
    }

    async fn routes(&self) -> HostResult<Vec<(String, IpNet)>> {
        let call = self.begin(Op::Routes, "host", None).await?;
        let routes = self.shared.options.routes.iter().map(|net| ("eth0".to_owned(), *net)).collect();
        call.end_with(Ok(routes), false).await
    }
}

impl FakeHost {
    /// The services as packets would find them.
    pub fn services(&self) -> ServiceTable {
        self.world().services.table.clone()
    }

    /// Someone flushes the rules behind our back.
    pub fn flush_services(&self) {
        {
            let mut world = self.world();
            world.services.table = ServiceTable::default();
            world.services.drift = vec!["the table is missing".into()];
        }
        self.event(HostEvent::Network);
    }
}
