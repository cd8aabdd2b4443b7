//! Connections into fake sandboxes and to their addresses: a port that a script listens at sends everything back, a
//! [`FakeServer`] answers as it was told.

use super::call::Call;
use super::server::FakeServer;
use super::state::Sandbox;
use super::{FakeHost, Op};
use crate::error::{HostErrorKind, HostResult};
use crate::names::{ContainerName, SandboxId};
use crate::spec::SandboxNetwork;
use crate::traits::{Connect, Connection};
use async_trait::async_trait;
use std::net::IpAddr;
use tokio::io::{AsyncWriteExt, duplex, split};

/// A process that answers.
struct Listener {
    sandbox: SandboxId,
    container: ContainerName,
    attempt: u32,
    /// What it answers; `None`: it sends everything back.
    server: Option<FakeServer>,
}

#[async_trait]
impl Connect for FakeHost {
    async fn connect(&self, id: &SandboxId, port: u16) -> HostResult<Connection> {
        let call = self.begin(Op::Connect, format!("{id}:{port}"), None).await?;
        let found = self.world().sandboxes().get(id).map(|sandbox| self.listener(sandbox, port));
        let result = match found {
            None => Err(call.error(HostErrorKind::NotFound, "no such sandbox")),
            Some(found) => self.answer(&call, found, "connection refused: nobody listens there"),
        };
        call.end_with(result, false).await
    }

    async fn dial(&self, host: &str, port: u16) -> HostResult<Connection> {
        let call = self.begin(Op::Dial, format!("{host}:{port}"), None).await?;
        let own = &self.shared.options.info.addresses;
        let address = match host {
            "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            _ => host.trim_matches(['[', ']']).parse::<IpAddr>().ok(),
        };
        let result = match address {
            None => Err(call.error(HostErrorKind::NotFound, format!("dial tcp: lookup {host}: no such host"))),
            Some(address) => {
                let hosts_own = address.is_loopback() || own.contains(&address);
                let found = self.world().sandboxes().values().find_map(|sandbox| {
                    let there = match &sandbox.spec.network {
                        SandboxNetwork::Host => hosts_own,
                        network @ SandboxNetwork::Pod { .. } => network.ips().contains(&address),
                    };
                    self.listener(sandbox, port).filter(|_| there)
                });
                let host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
                self.answer(&call, found, &format!("dial tcp {host}:{port}: connect: connection refused"))
            }
        };
        call.end_with(result, false).await
    }
}

impl FakeHost {
    fn listener(&self, sandbox: &Sandbox, port: u16) -> Option<Listener> {
        let mut running = sandbox.live().filter(|i| i.is_running());
        running.find_map(|instance| {
            let server = self.server_for(&sandbox.spec, &instance.spec, port).filter(|s| !s.refuses());
            let (container, attempt) = (instance.spec.name.clone(), instance.spec.attempt);
            (server.is_some() || instance.listens(port)).then(|| Listener {
                sandbox: sandbox.spec.id.clone(),
                container,
                attempt,
                server,
            })
        })
    }

    fn answer(&self, call: &Call<'_>, found: Option<Listener>, refused: &str) -> HostResult<Connection> {
        let Some(Listener { sandbox, container, attempt, server }) = found else {
            return Err(call.error(HostErrorKind::InvalidState, refused));
        };
        let (ours, theirs) = duplex(super::exec::PIPE);
        let ended = self.clone().ended(sandbox, container, attempt);
        let host = self.clone();
        tokio::spawn(async move {
            let served = async {
                match server {
                    Some(server) => server.attend(host, theirs).await,
                    None => {
                        let (mut read, mut write) = split(theirs);
                        let _ = tokio::io::copy(&mut read, &mut write).await;
                        let _ = write.shutdown().await;
                    }
                }
            };
            tokio::select! {
                () = served => {}
                () = ended => {}
            }
        });
        Ok(Box::new(ours))
    }
}
