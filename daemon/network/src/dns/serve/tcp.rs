//! Streams (RFC 7766): several queries one after the other on one connection, which ends when it is quiet.

use super::{Next, Server};
use crate::dns::Transport;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Connections at one time, of all askers and of one.
const MOST: usize = 256;
const MOST_OF_ONE: usize = 32;
/// A connection that is quiet for longer ends.
const QUIET: Duration = Duration::from_secs(10);
/// Time for one query or answer to pass.
const PASS: Duration = Duration::from_secs(5);

/// Who has how many connections.
type Open = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// Accepts until told to end.
pub(super) async fn serve(listener: TcpListener, server: Arc<Server>, stop: CancellationToken) {
    let open = Open::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = Place::take(&open, peer.ip()) else { continue };
                let (server, stop) = (Arc::clone(&server), stop.clone());
                tokio::spawn(async move {
                    if let Err(error) = connection(stream, peer.ip(), &server, &stop).await {
                        tracing::trace!(%error, %peer, "a connection to the name server ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to the name server could not be accepted");
                // Descriptors are used up: some are closed soon.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One connection's place among those that may be open.
struct Place(Open, IpAddr);

impl Place {
    fn take(open: &Open, peer: IpAddr) -> Option<Self> {
        let mut all = open.lock().unwrap_or_else(PoisonError::into_inner);
        if all.values().sum::<usize>() >= MOST {
            return None;
        }
        let of_one = all.entry(peer).or_default();
        if *of_one >= MOST_OF_ONE {
            return None;
        }
        *of_one += 1;
        Some(Self(Arc::clone(open), peer))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.1);
            }
        }
    }
}

async fn connection(mut stream: TcpStream, peer: IpAddr, server: &Server, stop: &CancellationToken) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut packet, mut framed, mut out) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let len = tokio::select! {
            biased;
            len = timeout(QUIET, stream.read_u16()) => len??,
            () = stop.cancelled() => return Ok(()),
        };
        packet.resize(usize::from(len), 0);
        timeout(PASS, stream.read_exact(&mut packet)).await??;
        server.counting.tcp.fetch_add(1, Ordering::Relaxed);
        let snapshot = server.snapshot();
        let next = server.respond(&snapshot, &packet, Transport::Tcp, peer, &mut out);
        drop(snapshot);
        match next {
            Next::Reply => {}
            Next::Silence => {
                server.counting.dropped.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Next::Later(asked, pending) => {
                let (send, receive) = oneshot::channel();
                server.later(asked, pending, move |answer| drop(send.send(answer)));
                out = receive.await.unwrap_or_default();
            }
        }
        framed.clear();
        framed.extend(u16::try_from(out.len()).unwrap_or_default().to_be_bytes());
        framed.extend(&out);
        timeout(PASS, stream.write_all(&framed)).await??;
    }
}
