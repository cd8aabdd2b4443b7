//! The number of the kernel's nftables rule set: it grows with every transaction of anybody in this network namespace.
//!
//! While it is the same, a listing read before is still right: one exchange over netlink (some 20 µs) in place of a run
//! of nft (8 to 40 ms) at each observation. nft(8) keeps its own cache by it (`NFT_MSG_GETGEN`, linux/nf_tables.h).

use crate::nfnetlink::{self, NFTABLES, Socket, Writer};

const NFT_MSG_NEWGEN: u16 = 15;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_GEN_ID: u16 = 1;

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
    let socket = Socket::connect().ok()?;
    let mut request = Writer::default();
    request.message((NFTABLES << 8 | NFT_MSG_GETGEN, 0), (0, 0), |_| {});
    socket.send(&request).ok()?;
    number(socket.receive(&mut [0; 512]).ok()?)
}

fn number(answer: &[u8]) -> Option<u32> {
    let (kind, attributes) = nfnetlink::parts(answer)?;
    if kind == NFTABLES << 8 | NFT_MSG_NEWGEN { nfnetlink::number(attributes, NFTA_GEN_ID) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_a_strange_one_refused() {
        let message = |kind: u16| {
            let mut out = Writer::default();
            out.message((NFTABLES << 8 | kind, 0), (0, 0), |w| w.number(NFTA_GEN_ID, 300));
            out.bytes().to_vec()
        };
        let answer = message(NFT_MSG_NEWGEN);
        assert_eq!(number(&answer), Some(300));
        (0..answer.len()).for_each(|length| assert_eq!(number(&answer[..length]), None, "cut after {length}"));
        assert_eq!(number(&message(NFT_MSG_GETGEN)), None, "not an answer");
    }
}
