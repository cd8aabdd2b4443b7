//! A small table beside ours that nobody else can flush, and that keeps translated connections alive.
//!
//! The kernel translates the packets of a connection that stands by what it remembers of it, not by rules; but it only looks
//! while some chain of type nat and some rule about connections exist in the network namespace. `nft flush ruleset` takes the
//! last of them away: from then on replies reach clients from the pod's own address, are answered by a reset, and the
//! connection is gone, however soon the rules come back. This table belongs to our socket (NFT_TABLE_F_OWNER, Linux 5.12):
//! it has one chain and one rule that do nothing, and outlasts every flush. It goes with the socket: with the daemon.

use crate::nfnetlink::{NFTABLES, NLM_F_ACK, NLM_F_CREATE, Socket, Writer};
use std::io;

const NFPROTO_INET: u8 = 1;
const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NLM_F_APPEND: u16 = 0x800;
const TABLE_OWNER: u32 = 2;
const CHAIN: &str = "keep_connections";
/// NF_INET_LOCAL_IN, and NF_IP_PRI_NAT_SRC as chains of nft's own have it there.
const HOOK: u32 = 1;
const PRIORITY: u32 = 100;
const ACCEPT: u32 = 1;

/// Holds the table for as long as it lives.
pub(crate) struct Guard {
    _socket: Socket,
}

impl Guard {
    /// Makes the table.
    ///
    /// # Errors
    /// Kernels before 5.12 know no tables with owners.
    pub(crate) fn hold(table: &str) -> io::Result<Self> {
        let new = |kind: u16| (NFTABLES << 8 | kind, NLM_F_CREATE);
        let inet = (NFPROTO_INET, 0);
        let batch = Writer::batch(None, |w| {
            w.message(new(NEW_TABLE), inet, |w| {
                w.text(1, table);
                w.number(2, TABLE_OWNER);
            });
            w.message(new(NEW_CHAIN), inet, |w| {
                w.text(1, table);
                w.text(3, CHAIN);
                w.nest(4, |w| {
                    w.number(1, HOOK);
                    w.number(2, PRIORITY);
                });
                w.number(5, ACCEPT);
                w.text(7, "nat");
            });
            // `ct state`, into a register that nobody reads.
            let (kind, flags) = new(NEW_RULE);
            w.message((kind, flags | NLM_F_APPEND | NLM_F_ACK), inet, |w| {
                w.text(1, table);
                w.text(2, CHAIN);
                w.nest(4, |w| {
                    w.nest(1, |w| {
                        w.text(1, "ct");
                        w.nest(2, |w| {
                            w.number(1, 1);
                            w.number(2, 0);
                        });
                    });
                });
            });
        });
        let socket = Socket::connect()?;
        socket.transact(&batch)?;
        Ok(Self { _socket: socket })
    }
}
