//! The number of the kernel's nftables rule set: it grows with every transaction of anybody in this network namespace.
//!
//! While it is the same, a listing read before is still right: one exchange over netlink (some 20 µs) in place of a run
//! of nft (8 to 40 ms) at each observation. nft(8) keeps its own cache by it (`NFT_MSG_GETGEN`, linux/nf_tables.h).

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::os::fd::AsRawFd;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWGEN: u16 = 15;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_GEN_ID: u16 = 1;
const NLM_F_REQUEST: u16 = 1;
/// `nlmsghdr` and `nfgenmsg`.
const HEADERS: usize = 16 + 4;

/// The number that our own last transaction left, for those who watch for others'.
#[derive(Debug, Default)]
pub(crate) struct Known(std::sync::atomic::AtomicU64);

impl Known {
    /// Notes it; `None`: others were at work too.
    pub(crate) fn note(&self, generation: Option<u32>) {
        let number = generation.map_or(0, |g| u64::from(g) + 1);
        self.0.store(number, std::sync::atomic::Ordering::Relaxed);
    }

    /// Is the rule set as we left it?
    pub(crate) fn is_ours(&self) -> bool {
        current().is_some_and(|now| self.0.load(std::sync::atomic::Ordering::Relaxed) == u64::from(now) + 1)
    }
}

/// The rule set's number now. `None` when the kernel does not tell: then nothing may be taken from a cache.
pub(crate) fn current() -> Option<u32> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter).ok()?;
    // The kernel answers within the call; this only bounds what can't be foreseen.
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(1, 0)).ok()?;
    sendto(socket.as_raw_fd(), &request(), &NetlinkAddr::new(0, 0), MsgFlags::empty()).ok()?;
    let mut answer = [0; 512];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).ok()?;
    number(answer.get(..length)?)
}

fn request() -> Vec<u8> {
    let kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN;
    let mut message = Vec::with_capacity(HEADERS);
    message.extend((HEADERS as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and port; then family, version and resource.
    message.extend([0; 8]);
    message.extend([0; 4]);
    message
}

/// Takes the number out of an answer; attributes are described in netlink(7), numbers of nftables are big-endian.
fn number(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind != NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN {
        return None;
    }
    let mut rest = answer.get(HEADERS..)?;
    while let Some(head) = rest.get(..4) {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let attribute = u16::from_ne_bytes([head[2], head[3]]);
        let value = rest.get(4..length)?;
        if attribute == NFTA_GEN_ID {
            return Some(u32::from_be_bytes(value.try_into().ok()?));
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_a_strange_one_refused() {
        let mut answer = request();
        answer[4] = NFT_MSG_NEWGEN as u8;
        answer.extend([8, 0, 1, 0, 0, 0, 1, 44]);
        assert_eq!(number(&answer), Some(300));
        for length in 0..answer.len() {
            assert_eq!(number(&answer[..length]), None, "cut after {length}");
        }
        // An attribute of length nought would go round for ever.
        answer[HEADERS] = 0;
        assert_eq!(number(&answer), None);
        assert_eq!(number(&request()), None, "not an answer");
    }
}
