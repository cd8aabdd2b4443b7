//! Notices when others change nftables: a firewall's reload, `nft flush ruleset` (group NFNLGRP_NFTABLES of netlink(7)).

use crate::host::Shared;
use crate::nft::TableName;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use reddwarf_host::HostEvent;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

/// linux/netfilter/nfnetlink.h; groups are bits, counted from 1.
const NFNLGRP_NFTABLES: u32 = 7;
/// A reload is many transactions: they are looked at together. Our own are noted by then.
const QUIET: Duration = Duration::from_millis(60);

struct Source(OwnedFd);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Starts watching. `None`: the kernel does not tell, and periodic passes have to do.
pub(crate) fn start(shared: &Arc<Shared>, runtime: &tokio::runtime::Handle) -> Option<AbortHandle> {
    let listen = || -> io::Result<AsyncFd<Source>> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        // Notices that do not fit are lost, and that they were is all that has to be known.
        setsockopt(&socket, sockopt::RcvBuf, &(64 << 10))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1 << (NFNLGRP_NFTABLES - 1)))?;
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

#[allow(unsafe_code)]
fn register(source: Source) -> io::Result<AsyncFd<Source>> {
    // SAFETY: `source` owns its descriptor, which stays open and the same for as long as the AsyncFd owns `source`.
    Ok(unsafe { AsyncFd::register(source) }?)
}

async fn run(source: AsyncFd<Source>, shared: Weak<Shared>) {
    let Some(name) = shared.upgrade().map(|s| TableName::for_instance(&s.options.instance)) else { return };
    loop {
        let Ok(mut ready) = source.readable().await else { return };
        let concerned = drain(&source, name.as_str());
        ready.clear_ready();
        drop(ready);
        if !concerned {
            continue;
        }
        tokio::time::sleep(QUIET).await;
        drain(&source, name.as_str());
        let Some(shared) = shared.upgrade() else { return };
        // A transaction of ours may be under way: what it leaves is noted when it is done.
        let services = shared.services.lock().await;
        drop(services);
        if !shared.nft_generation.is_ours() {
            let _ = shared.events.send(HostEvent::Network);
        }
    }
}

/// Reads all that is there. Is anything of it about a table whose name begins so? What was lost may be.
fn drain(source: &AsyncFd<Source>, name: &str) -> bool {
    let mut concerned = false;
    let mut buffer = [0; 8192];
    loop {
        match recv(source.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                let message = buffer.get(..length).unwrap_or_default();
                concerned |= length == buffer.len() || message.windows(name.len()).any(|part| part == name.as_bytes());
            }
            Err(nix::errno::Errno::ENOBUFS) => concerned = true,
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return concerned,
        }
    }
}
