//! Notices when others change nftables: a firewall's reload, `nft flush ruleset` (group NFNLGRP_NFTABLES of netlink(7)).

use crate::host::Shared;
use crate::nfnetlink::{self, NFTABLES};
use crate::nft::TableName;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, recv, setsockopt,
    socket, sockopt,
};
use reddwarf_host::{Change, HostEvent};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

/// NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h); groups are bits, counted from 1.
const GROUPS: u32 = 1 << (7 - 1);
/// NFT_MSG_DELTABLE.
const DELETED_TABLE: u16 = NFTABLES << 8 | 2;
/// A reload is many transactions: they are looked at together. Our own are noted by then.
const QUIET: Duration = Duration::from_millis(60);

/// The socket's membership in the group of notices. The kernel writes a notice for each element of a transaction: for the twenty
/// thousand of a large table that takes longer than the table itself, so large ones of our own are made with the ear covered.
#[derive(Default)]
pub(crate) struct Ear(OnceLock<OwnedFd>);

impl Ear {
    /// Nothing is heard until the value is dropped. What others do meanwhile shows in the rule set's number.
    pub(crate) fn cover(&self) -> Covered<'_> {
        self.listen(0);
        Covered(self)
    }

    fn listen(&self, groups: u32) {
        let Some(socket) = self.0.get() else { return };
        // Bound again, to the address that it has.
        let bound = getsockname::<NetlinkAddr>(socket.as_raw_fd())
            .and_then(|own| bind(socket.as_raw_fd(), &NetlinkAddr::new(own.pid(), groups)));
        if let Err(error) = bound {
            tracing::warn!(%error, groups, "notices of changes of nftables can't be turned on and off");
        }
    }
}

/// As long as it lives, [`Ear`] hears nothing.
pub(crate) struct Covered<'e>(&'e Ear);

impl Drop for Covered<'_> {
    fn drop(&mut self) {
        self.0.listen(GROUPS);
    }
}

struct Source(OwnedFd);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Starts watching. `None`: the kernel does not tell, and periodic passes have to do.
pub(crate) fn start(shared: &Arc<Shared>, runtime: &tokio::runtime::Handle) -> Option<AbortHandle> {
    let listen = || -> io::Result<AsyncFd<Source>> {
        let socket = listening()?;
        let _ = shared.nft_ear.0.set(socket.try_clone()?);
        let _in_runtime = runtime.enter();
        register(Source(socket))
    };
    match listen() {
        Ok(source) => Some(runtime.spawn(run(source, Arc::downgrade(shared))).abort_handle()),
        Err(error) => {
            tracing::warn!(%error, "changes of nftables by others are only found by periodic passes");
            None
        }
    }
}

/// A socket that gets the notices.
fn listening() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
    // Notices that do not fit are lost, and that they were is all that has to be known.
    setsockopt(&socket, sockopt::RcvBuf, &(64 << 10))?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
    Ok(socket)
}

#[allow(unsafe_code)]
fn register(source: Source) -> io::Result<AsyncFd<Source>> {
    // SAFETY: `source` owns its descriptor, which stays open and the same for as long as the AsyncFd owns `source`.
    Ok(unsafe { AsyncFd::register(source) }?)
}

async fn run(source: AsyncFd<Source>, shared: Weak<Shared>) {
    let Some(name) = shared.upgrade().map(|s| TableName::for_instance(&s.options.instance)) else { return };
    loop {
        let Ok(mut ready) = source.readable().await else { return };
        let mut heard = drain(&source, name.as_str());
        ready.clear_ready();
        drop(ready);
        if heard == Heard::Nothing {
            continue;
        }
        // What is missing is put back at once: no packet finds its way by now.
        if heard == Heard::Removal {
            let Some(shared) = shared.upgrade() else { return };
            restore(&shared).await;
        }
        tokio::time::sleep(QUIET).await;
        heard = drain(&source, name.as_str());
        let Some(shared) = shared.upgrade() else { return };
        if heard == Heard::Removal {
            restore(&shared).await;
        }
        // A transaction of ours may be under way: what it leaves is noted when it is done.
        let services = shared.services.lock().await;
        drop(services);
        if !shared.nft_generation.is_ours() {
            let _ = shared.events.send(HostEvent::Network);
        }
    }
}

/// Both tables of ours. Failures show in the periodic passes, with their reasons.
async fn restore(shared: &Shared) {
    match super::restore_table(shared).await {
        Ok(false) => {}
        Ok(true) => tracing::info!("others removed the rules of the pod network: they are back"),
        Err(error) => tracing::warn!(error = error.chain(), "others removed the rules of the pod network"),
    }
    // Last, so that the rule set's number that it notes is the last one, and nothing has to be read back.
    let began = tokio::time::Instant::now();
    match crate::services::restore(shared).await {
        Ok(Change::Unchanged) => {}
        Ok(Change::Changed(what)) => {
            let milliseconds = began.elapsed().as_millis();
            tracing::info!(what, milliseconds, "others removed the rules of services: they are back");
        }
        Err(error) => tracing::warn!(error = error.chain(), "others removed the rules of services"),
    }
}

/// What notices said, the gravest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Heard {
    /// Nothing that is ours.
    Nothing,
    /// Something of ours was changed, or may have been.
    Change,
    /// A table of ours was removed, or may have been.
    Removal,
}

/// Reads all that is there, about tables whose names begin so. What was lost may be anything.
fn drain(source: &AsyncFd<Source>, name: &str) -> Heard {
    let mut heard = Heard::Nothing;
    let mut buffer = [0; 8192];
    loop {
        match recv(source.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) if length == buffer.len() => heard = Heard::Removal,
            Ok(length) => heard = heard.max(hear(buffer.get(..length).unwrap_or_default(), name)),
            Err(nix::errno::Errno::ENOBUFS) => heard = Heard::Removal,
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return heard,
        }
    }
}

/// The first attribute of all of nftables' messages is the table's name (`NFTA_*_TABLE`, but for elements: as well).
fn hear(buffer: &[u8], name: &str) -> Heard {
    let one = |message: &[u8]| {
        let Some((kind, attributes)) = nfnetlink::parts(message) else { return Heard::Nothing };
        let ours = nfnetlink::attribute(attributes, 1).is_some_and(|table| table.starts_with(name.as_bytes()));
        match (ours, kind) {
            (false, _) => Heard::Nothing,
            (true, DELETED_TABLE) => Heard::Removal,
            (true, _) => Heard::Change,
        }
    };
    nfnetlink::messages(buffer).map(one).max().unwrap_or(Heard::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nfnetlink::{NLM_F_ACK, NLM_F_CREATE, Socket, Writer};
    use nix::sched::{CloneFlags, unshare};

    /// In a network namespace of its own; skipped, loudly, without root.
    #[test]
    fn a_covered_ear_hears_nothing_until_it_is_open_again() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let test = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let socket = listening().unwrap();
            let ear = Ear(OnceLock::from(socket.try_clone().unwrap()));
            let add = |table: &str| {
                let kind = (NFTABLES << 8, NLM_F_CREATE | NLM_F_ACK);
                let batch = Writer::batch(None, |w| w.message(kind, (1, 0), |w| w.text(1, table)));
                Socket::connect().unwrap().transact(&batch).unwrap();
            };
            let heard = || recv(socket.as_raw_fd(), &mut [0; 8192], MsgFlags::empty()).is_ok();
            add("one");
            // The table, and the number of the rule set.
            assert!(heard() && heard() && !heard());
            let covered = ear.cover();
            add("two");
            assert!(!heard());
            drop(covered);
            assert!(!heard(), "what was missed comes late");
            add("three");
            assert!(heard());
        };
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn only_what_concerns_our_tables_is_heard() {
        let heard = |notices: &[(u16, &str)]| {
            let mut out = Writer::default();
            for (kind, table) in notices {
                out.message((NFTABLES << 8 | kind, 0), (1, 0), |w| w.text(1, table));
            }
            hear(out.bytes(), "rd_1")
        };
        assert_eq!(heard(&[]), Heard::Nothing);
        assert_eq!(heard(&[(2, "filter"), (5, "filter")]), Heard::Nothing);
        assert_eq!(heard(&[(5, "rd_1_services"), (2, "filter")]), Heard::Change);
        assert_eq!(heard(&[(5, "filter"), (2, "rd_1"), (15, "")]), Heard::Removal);
        assert_eq!(hear(&[1, 2, 3], "rd_1"), Heard::Nothing);
    }
}
