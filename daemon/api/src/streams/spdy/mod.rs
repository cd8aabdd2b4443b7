//! SPDY/3.1, the server's side, as far as Kubernetes' clients use it: streams that the client opens, with a few headers
//! each, for port-forward and for exec and attach of clients that know no WebSocket.
//!
//! ```text
//!  frame       bytes ⇄ frames; pure
//!  headers     header blocks: zlib with the protocol's dictionary; pure
//!  connection  reads and writes frames, hands out streams, keeps limits
//!  stream      one stream as AsyncRead and AsyncWrite, flow control
//! ```
//!
//! The protocol is that of the SPDY Protocol drafts 3 and 3.1 (dev.chromium.org/spdy). The clients in use are Go's
//! (moby/spdystream), which neither send WINDOW_UPDATE nor keep to a window: towards a peer that has never shown flow control we
//! send without a window, and what such a peer sends too much of is held back by not reading its connection.

mod connection;
mod frame;
mod headers;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use connection::Connection;
pub(crate) use stream::Stream;
