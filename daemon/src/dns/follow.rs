//! Keeps the name server's records in step with the registry. Idle, it sleeps.

use crate::chain::chain;
use reddwarf_network::dns::serve::Server;
use reddwarf_network::dns::{Change, Records};
use reddwarf_registry::{FollowAll, Followed, Registry, WatchError};
use std::sync::Arc;
use std::time::Duration;

/// Before everything is read anew after a watch broke.
const AGAIN: Duration = Duration::from_secs(1);

/// Reads all objects.
///
/// # Errors
/// When the store can't be read.
pub(super) fn list(registry: &Registry, records: &mut Records) -> Result<FollowAll, String> {
    records.clear();
    let watch = registry.follow_all(&mut |followed| take(records, &followed));
    watch.map_err(|e| format!("objects can't be listed: {}", chain(&e)))
}

/// Follows them for ever.
pub(super) async fn run(registry: Registry, mut records: Records, mut watch: FollowAll, server: Arc<Server>) {
    loop {
        let error = match changes(&mut watch, &mut records, &server).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        tracing::warn!(error = chain(&error), "the name server reads all objects anew");
        // Answers come from the last records meanwhile.
        loop {
            match list(&registry, &mut records) {
                Ok(new) => {
                    watch = new;
                    break;
                }
                Err(error) => tracing::warn!(error, "the name server could not read the objects"),
            }
            tokio::time::sleep(AGAIN).await;
        }
        publish(&mut records, &server);
    }
}

/// Takes all changes that there are, then publishes them together.
async fn changes(
    watch: &mut FollowAll,
    records: &mut Records,
    server: &Server,
) -> Result<std::convert::Infallible, WatchError> {
    loop {
        take(records, &watch.next().await?);
        while let Some(followed) = watch.try_next()? {
            take(records, &followed);
        }
        publish(records, server);
    }
}

fn publish(records: &mut Records, server: &Server) {
    if let Some(snapshot) = records.snapshot() {
        server.publish(snapshot);
    }
}

fn take(records: &mut Records, followed: &Followed) {
    let key = &followed.key;
    if !Change::concerns(&key.group, &key.resource) {
        return;
    }
    let namespace = key.namespace.as_deref().unwrap_or_default();
    match Change::read(&key.resource, namespace, &key.name, followed.json.as_deref()) {
        Ok(Some(change)) => records.apply(change),
        Ok(None) => {}
        Err(error) => tracing::error!(error = chain(&error), "its names stay as they are"),
    }
}
