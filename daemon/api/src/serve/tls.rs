//! From an accepted TCP connection to one that speaks TLS; plain HTTP is told so.

use crate::access::certificates::client::ClientCertificate;
use crate::access::certificates::keyring::Keyring;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The first byte of a TLS record that begins a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 0x16;

const PLAIN: &str = "Client sent an HTTP request to an HTTPS server: use https://\n";

/// A connection that is ready for HTTP.
pub(crate) struct Accepted {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) certificate: Option<ClientCertificate>,
    /// HTTP/2 was agreed on (ALPN `h2`).
    pub(crate) http2: bool,
}

/// Waits for the client's part of the handshake, at most so long.
///
/// # Errors
/// When there is none; the client was told what can be told.
pub(crate) async fn accept(keyring: &Keyring, stream: TcpStream, within: Duration) -> io::Result<Accepted> {
    let slow = || io::Error::new(io::ErrorKind::TimedOut, "the client did not finish the TLS handshake in time");
    timeout(within, handshake(keyring, stream)).await.map_err(|_| slow())?
}

async fn handshake(keyring: &Keyring, stream: TcpStream) -> io::Result<Accepted> {
    drop(stream.set_nodelay(true));
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first != [HANDSHAKE] {
        return Err(refuse_plain(stream).await);
    }
    let config = keyring.current().config.clone();
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let session = stream.get_ref().1;
    let http2 = session.alpn_protocol() == Some(b"h2");
    let chain = session.peer_certificates().map(<[_]>::to_vec);
    let certificate = chain.map(|chain| ClientCertificate::new(chain.into_iter().map(|c| c.into_owned()).collect()));
    Ok(Accepted { stream, certificate, http2 })
}

/// Says what is wrong to who can read it, as far as they take it.
async fn refuse_plain(mut stream: TcpStream) -> io::Error {
    // What they have sent is taken first: closing on unread bytes would reset the connection and lose the answer.
    let mut taken = [0; 4096];
    let text = stream.read(&mut taken).await.map(|n| taken.get(..n).unwrap_or_default().to_vec()).unwrap_or_default();
    if text.iter().all(|b| b.is_ascii()) {
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{PLAIN}",
            PLAIN.len()
        );
        drop(stream.write_all(answer.as_bytes()).await);
        drop(stream.shutdown().await);
        drop(stream.read(&mut taken).await);
    }
    io::Error::new(io::ErrorKind::InvalidData, "the client does not speak TLS")
}
