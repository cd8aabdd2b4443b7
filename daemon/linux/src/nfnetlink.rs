//! Messages of netfilter's netlink family (linux/netfilter/nfnetlink.h): making them, taking them apart, exchanging them.
//!
//! Numbers of netlink itself are in the machine's byte order, those of netfilter in the network's.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, getsockname, recv, sendto, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Parts of the family; a message's kind is `subsystem << 8 | number`.
pub(crate) const CONNTRACK: u16 = 1;
pub(crate) const NFTABLES: u16 = 10;
/// NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END and NFNL_BATCH_GENID.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const BATCH_GENERATION: u16 = 1;
pub(crate) const NLM_F_ACK: u16 = 4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `nlmsghdr` and `nfgenmsg`.
pub(crate) const HEADERS: usize = 16 + 4;
const NESTED: u16 = 1 << 15;
/// Bits of an attribute's kind that say which it is.
const KIND: u16 = 0x3fff;

/// Messages in the making.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// One message. `resource` is only of use at the ends of a batch.
    pub(crate) fn message(
        &mut self,
        (kind, flags): (u16, u16),
        (family, resource): (u8, u16),
        body: impl FnOnce(&mut Self),
    ) {
        let start = self.0.len();
        self.0.extend([0; 4]);
        self.0.extend(kind.to_ne_bytes());
        self.0.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        // Sequence and port; then family, version and resource.
        self.0.extend([0; 8]);
        self.0.extend([family, 0]);
        self.0.extend(resource.to_be_bytes());
        body(self);
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX).to_ne_bytes();
        self.patch(start, &length);
        self.pad();
    }

    /// What is made in one transaction: all of it or nothing. With a number: only if the rule set still has that one.
    pub(crate) fn batch(generation: Option<u32>, body: impl FnOnce(&mut Self)) -> Self {
        let mut out = Self::default();
        out.message((BATCH_BEGIN, 0), (0, NFTABLES), |w| {
            if let Some(number) = generation {
                w.number(BATCH_GENERATION, number);
            }
        });
        body(&mut out);
        out.message((BATCH_END, 0), (0, NFTABLES), |_| {});
        out
    }

    /// More of a message's header than netfilter's are long.
    pub(crate) fn header(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// One attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.0.extend(u16::try_from(4 + value.len()).unwrap_or(u16::MAX).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.pad();
    }

    /// A text, ended as C does.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat());
    }

    pub(crate) fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Attributes within an attribute, 64 KiB at most.
    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | NESTED).to_ne_bytes());
        body(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX).to_ne_bytes();
        self.patch(start, &length);
    }

    /// The same with attributes that were written already.
    pub(crate) fn nested(&mut self, kind: u16, attributes: &[u8]) {
        self.nest(kind, |w| {
            w.0.extend(attributes);
            w.pad();
        });
    }

    fn patch(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The value of the first attribute of a kind (netlink(7)).
pub(crate) fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some(head) = rest.get(..4) {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes([head[2], head[3]]) & KIND == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// An attribute that is a number.
pub(crate) fn number(attributes: &[u8], wanted: u16) -> Option<u32> {
    Some(u32::from_be_bytes(attribute(attributes, wanted)?.try_into().ok()?))
}

/// A message's kind and its attributes; `None` when it is cut off.
pub(crate) fn parts(message: &[u8]) -> Option<(u16, &[u8])> {
    Some((u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?), message.get(HEADERS..)?))
}

/// The messages of a buffer, one after another.
pub(crate) fn messages(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let size = usize::try_from(u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?)).ok()?;
        let one = rest.get(..size).filter(|one| one.len() >= 16)?;
        rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        Some(one)
    })
}

/// A conversation with the kernel about this thread's network namespace.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// With netfilter.
    pub(crate) fn connect() -> io::Result<Self> {
        Self::with(SockProtocol::NetlinkNetFilter)
    }

    /// With another part of the kernel, whose messages have other headers behind netlink's own.
    pub(crate) fn with(part: SockProtocol) -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, part)?;
        // The kernel answers within the call; this only bounds what can't be foreseen.
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(2, 0))?;
        Ok(Self(socket))
    }

    /// Its address, by which the kernel knows whose a thing is.
    pub(crate) fn port(&self) -> io::Result<u32> {
        Ok(getsockname::<NetlinkAddr>(self.0.as_raw_fd())?.pid())
    }

    pub(crate) fn send(&self, messages: &Writer) -> io::Result<()> {
        sendto(self.0.as_raw_fd(), messages.bytes(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    pub(crate) fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let length = loop {
            match recv(self.0.as_raw_fd(), buffer, MsgFlags::empty()) {
                // With a time limit no call goes on by itself after a signal (signal(7)).
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        Ok(buffer.get(..length).unwrap_or_default())
    }

    /// Sends a batch whose last message asks for an acknowledgement, and waits for that.
    pub(crate) fn transact(&self, batch: &Writer) -> io::Result<()> {
        // The whole of it is one datagram.
        let size = batch.bytes().len().saturating_mul(2).max(1 << 16);
        setsockopt(&self.0, sockopt::SndBufForce, &size)?;
        setsockopt(&self.0, sockopt::RcvBufForce, &(1 << 20))?;
        self.send(batch)?;
        let mut buffer = vec![0; 1 << 16];
        // Refusals come before the acknowledgement; one is enough.
        let answer = self.receive(&mut buffer)?;
        messages(answer).try_for_each(refusal)
    }

    /// Shows every message that answers.
    pub(crate) fn dump(&self, request: &Writer, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.send(request)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let answer = self.receive(&mut buffer)?;
            if answer.is_empty() {
                return Ok(());
            }
            for message in messages(answer) {
                match parts(message).map_or(NLMSG_DONE, |(kind, _)| kind) {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return refusal(message),
                    _ => each(message),
                }
            }
        }
    }
}

/// One that [`Socket::connect`] made.
impl From<OwnedFd> for Socket {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.0
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

/// What an NLMSG_ERROR says; an acknowledgement bears the number 0. Other messages refuse nothing.
pub(crate) fn refusal(message: &[u8]) -> io::Result<()> {
    let kind = message.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
    if kind != Some(NLMSG_ERROR) {
        return Ok(());
    }
    let number = message.get(16..20).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if number == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-number)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Writer::default();
        out.message((NFTABLES << 8 | 3, NLM_F_ACK), (1, 0), |w| {
            w.text(1, "abc");
            w.nest(2, |w| w.number(7, 300));
        });
        out.message((BATCH_END, 0), (0, NFTABLES), |_| {});
        let all: Vec<&[u8]> = messages(out.bytes()).collect();
        assert_eq!(all.len(), 2);
        let (kind, attributes) = parts(all[0]).unwrap();
        assert_eq!(kind, NFTABLES << 8 | 3);
        assert_eq!(attribute(attributes, 1), Some(&b"abc\0"[..]));
        assert_eq!(number(attribute(attributes, 2).unwrap(), 7), Some(300));
        assert_eq!(attribute(attributes, 9), None);
        assert!(refusal(all[0]).is_ok(), "no error message");
        // Cut off anywhere: less is found, nothing is wrong.
        for length in 0..out.bytes().len() {
            for message in messages(&out.bytes()[..length]) {
                let _ = parts(message).map(|(_, a)| attribute(a, 2));
            }
        }
        // A length of nought would go round for ever.
        assert_eq!(messages(&[0; 40]).count(), 0);
        assert_eq!(attribute(&[0; 40], 1), None);
    }

    #[test]
    fn refusals_say_why() {
        let mut message = vec![0; 36];
        message[..4].copy_from_slice(&36_u32.to_ne_bytes());
        message[4] = 2;
        assert!(refusal(&message).is_ok(), "an acknowledgement");
        message[16..20].copy_from_slice(&(-libc::EEXIST).to_ne_bytes());
        assert_eq!(refusal(&message).unwrap_err().raw_os_error(), Some(libc::EEXIST));
    }
}
