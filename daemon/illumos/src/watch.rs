//! Events: the end of each supervisor, by a connection to its socket that ends with it. Those of zones: `zone_events`.

use crate::host::Shared;
use crate::stream::Hello;
use crate::{container, sandbox};
use reddwarf_host::{ContainerName, HostEvent, SandboxId};
use reddwarf_supervise::files::names_in;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Follows every container that runs, found at the start of the daemon.
pub(crate) fn follow_all(shared: &Arc<Shared>) {
    for name in names_in(&shared.paths.marks()).unwrap_or_default() {
        let Ok(id) = SandboxId::new(name) else { continue };
        if !matches!(sandbox::own_mark(shared, &id), Ok(Some(_))) {
            continue;
        }
        for (name, attempt, dir) in shared.paths.run.instances(&id).unwrap_or_default() {
            if matches!(dir.exit(), Ok(None)) {
                let socket = container::socket(shared, &id, &name, attempt);
                follow(shared, &id, &name, attempt, &socket);
            }
        }
    }
}

/// Sends an event when the supervisor that listens there ends.
pub(crate) fn follow(shared: &Shared, id: &SandboxId, name: &ContainerName, _attempt: u32, socket: &Path) {
    let (events, id, name, socket) = (shared.events.clone(), id.clone(), name.clone(), socket.to_owned());
    tokio::spawn(async move {
        // One that can't be connected to has ended.
        let _ = until_end(socket).await;
        // Nobody may be listening.
        let _ = events.send(HostEvent::Container(id, name));
    });
}

async fn until_end(socket: PathBuf) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(&socket).await?;
    let hello = Hello { stdin: false, stdout: false, stderr: false, watch: true };
    let mut line = serde_json::to_vec(&hello)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut buffer = [0; 256];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}
