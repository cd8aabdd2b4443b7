//! Connections into fake sandboxes: a port that a script listens at sends everything back.

use super::{FakeHost, Op};
use crate::error::{HostErrorKind, HostResult};
use crate::names::SandboxId;
use crate::traits::{Connect, Connection};
use async_trait::async_trait;
use tokio::io::{AsyncWriteExt, duplex, split};

#[async_trait]
impl Connect for FakeHost {
    async fn connect(&self, id: &SandboxId, port: u16) -> HostResult<Connection> {
        let call = self.begin(Op::Connect, format!("{id}:{port}"), None).await?;
        let listener = {
            let world = self.world();
            world.sandboxes().get(id).map(|sandbox| {
                let mut live = sandbox.live().filter(|i| i.listens(port));
                live.next().map(|i| (i.spec.name.clone(), i.spec.attempt))
            })
        };
        let result = match listener {
            None => Err(call.error(HostErrorKind::NotFound, "no such sandbox")),
            Some(None) => Err(call.error(HostErrorKind::InvalidState, "connection refused: nobody listens there")),
            Some(Some((name, attempt))) => {
                let (ours, theirs) = duplex(super::exec::PIPE);
                let ended = self.clone().ended(id.clone(), name, attempt);
                tokio::spawn(async move {
                    let (mut read, mut write) = split(theirs);
                    tokio::select! {
                        _ = tokio::io::copy(&mut read, &mut write) => drop(write.shutdown().await),
                        () = ended => {}
                    }
                });
                Ok(Box::new(ours) as Connection)
            }
        };
        call.end_with(result, false).await
    }
}
