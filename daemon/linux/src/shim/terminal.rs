//! The master side of a container's terminal, sent by the runtime through a socket.

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Listens in `dir`. Bound by a relative name: a socket's path may hold only 107 bytes.
pub(super) fn listen(dir: &Path) -> io::Result<(UnixListener, PathBuf)> {
    let path = dir.join("console.sock");
    crate::files::remove_file(&path)?;
    std::env::set_current_dir(dir)?;
    let listener = UnixListener::bind("console.sock");
    std::env::set_current_dir("/")?;
    Ok((listener?, path))
}

/// Takes the master. The runtime has connected and sent by the time the program runs.
pub(super) fn receive(listener: &UnixListener) -> io::Result<OwnedFd> {
    listener.set_nonblocking(true)?;
    let (stream, _) = listener.accept()?;
    receive_from(stream.as_raw_fd())
}

/// Receives one descriptor from a connected socket.
#[allow(unsafe_code)]
pub(crate) fn receive_from(socket: std::os::fd::RawFd) -> io::Result<OwnedFd> {
    let mut name = [0; 4096];
    let mut iov = [IoSliceMut::new(&mut name)];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 4]);
    let message = recvmsg::<UnixAddr>(socket, &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut found = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            for fd in fds {
                // SAFETY: the kernel has just made these descriptors for us; nobody else knows them. All but the
                // last are closed by being dropped.
                found = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    found.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "no terminal was sent"))
}
