//! What the daemon says to exec helpers and shims over their sockets, and they to it: a length in four bytes (native order, one machine)
//! and JSON; descriptors travel beside the first byte.

use crate::record::FailureKind;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Longer messages are refused: arguments are limited by the kernel to less.
const LONGEST: usize = 4 << 20;

/// First word of the daemon, with stdin, stdout and stderr beside it unless it is for a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) argv: Vec<String>,
    pub(crate) tty: bool,
    /// Hanging up kills all that the command started.
    pub(crate) contained: bool,
}

/// Later words of the daemon. Closing the socket ends the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resize {
    pub(crate) width: u16,
    pub(crate) height: u16,
}

/// Words of the helper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Report {
    /// The program runs; with a terminal, its master is beside it.
    Started,
    /// The program could not be run.
    NoProgram {
        message: String,
    },
    /// The container does not run any more.
    NotRunning,
    Failed {
        kind: FailureKind,
        message: String,
    },
    Exited {
        code: i32,
    },
}

/// First word of the daemon to a shim, with the writing ends of pipes for the wanted outputs beside it, stdout first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AttachWord {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

/// The shim's answer. Beside it: the terminal's master, or the writing end of standard input where `input` says so.
/// Afterwards the shim says nothing; it hangs up when the container's output has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attached {
    pub(crate) terminal: bool,
    /// The container has a standard input and it was asked for.
    pub(crate) input: bool,
}

/// A message with its length in front.
pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(value)?;
    let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Gathers bytes into messages.
#[derive(Default)]
pub(crate) struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next complete message.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(head) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_ne_bytes(*head) as usize;
        if length > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
        }
        let Some(body) = self.bytes.get(4..4 + length) else { return Ok(None) };
        let value = serde_json::from_slice(body)?;
        self.bytes.drain(..4 + length);
        Ok(Some(value))
    }
}

/// Writes a whole message, with descriptors beside its first byte. Blocking sockets only.
pub(crate) fn send(socket: &impl AsFd, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
    let raw = socket.as_fd().as_raw_fd();
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|r| !r.is_empty()) {
        let rights = [ControlMessage::ScmRights(fds)];
        let control: &[ControlMessage<'_>] = if sent == 0 && !fds.is_empty() { &rights } else { &[] };
        match sendmsg::<UnixAddr>(raw, &[IoSlice::new(rest)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(n) => sent += n,
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Receives some bytes and whatever descriptors came beside them; no bytes at the end.
#[allow(unsafe_code)]
pub(crate) fn receive(socket: RawFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0; 16 * 1024];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let mut iov = [IoSliceMut::new(&mut buffer)];
    let message = recvmsg::<UnixAddr>(socket, &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just made these descriptors for us; nobody else knows them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let length = message.bytes;
    buffer.truncate(length);
    Ok((buffer, fds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_any_cutting() {
        let first = Request { argv: vec!["a".into(), "b c".into()], tty: true, contained: false };
        let second = Request { argv: vec![], tty: false, contained: true };
        let bytes = [encode(&first).unwrap(), encode(&second).unwrap()].concat();
        for size in 1..bytes.len() {
            let mut decoder = Decoder::default();
            let mut found: Vec<Request> = Vec::new();
            for chunk in bytes.chunks(size) {
                decoder.push(chunk);
                while let Some(message) = decoder.next().unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, [first.clone(), second.clone()]);
        }
    }

    #[test]
    fn a_mad_length_is_refused() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_ne_bytes());
        assert!(decoder.next::<Request>().is_err());
    }
}
