//! One question to one server.

use super::Asked;
use super::response::{self, Received, Stored};
use crate::dns::message::UDP_PAYLOAD;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    Silent,
    #[error("what it sent is no answer")]
    Malformed,
}

/// Asks by UDP from a port of the kernel's choice with an id that can't be guessed, and by TCP when the answer is too
/// long. The caller sets the time.
pub(super) async fn exchange(server: SocketAddr, asked: &Asked) -> Result<Stored, Failure> {
    let mut edns = true;
    loop {
        match by_udp(server, asked, edns).await? {
            Received::Answer(stored) => return Ok(stored),
            Received::WithoutEdns if edns => edns = false,
            Received::Truncated => {
                return match by_tcp(server, asked, edns).await? {
                    Received::Answer(stored) => Ok(stored),
                    _ => Err(Failure::Malformed),
                };
            }
            _ => return Err(Failure::Malformed),
        }
    }
}

async fn by_udp(server: SocketAddr, asked: &Asked, edns: bool) -> Result<Received, Failure> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    // Then the kernel drops what comes from elsewhere and tells when nobody listens there.
    socket.connect(server).await?;
    let sent = response::query(asked, random_id(), edns);
    socket.send(&sent).await?;
    let mut buffer = vec![0; usize::from(UDP_PAYLOAD) + 1];
    loop {
        let len = socket.recv(&mut buffer).await?;
        match Stored::read(buffer.get(..len).unwrap_or_default(), &sent, asked) {
            Received::Other => {}
            received => return Ok(received),
        }
    }
}

async fn by_tcp(server: SocketAddr, asked: &Asked, edns: bool) -> Result<Received, Failure> {
    let mut stream = TcpStream::connect(server).await?;
    let sent = response::query(asked, random_id(), edns);
    let mut framed = u16::try_from(sent.len()).unwrap_or_default().to_be_bytes().to_vec();
    framed.extend(&sent);
    stream.write_all(&framed).await?;
    let len = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(len)];
    stream.read_exact(&mut buffer).await?;
    Ok(Stored::read(&buffer, &sent, asked))
}

/// SipHash of a counter under a key that the system's random numbers gave: nobody outside can tell the next.
fn random_id() -> u16 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let [a, b, ..] = KEY.hash_one(NEXT.fetch_add(1, Ordering::Relaxed)).to_be_bytes();
    u16::from_be_bytes([a, b])
}
