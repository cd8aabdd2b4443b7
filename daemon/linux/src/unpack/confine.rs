//! What an unpacking process gives up before it reads a byte of an image.
//!
//! It gets mount, network, IPC and UTS namespaces of its own, then the layer's tree as its root directory, then keeps
//! only the capabilities that writing files of any owner needs. A path that escaped every check would still end below
//! the layer.

use super::error::{Kind, Result, UnpackError};
use caps::{CapSet, Capability, CapsHashSet};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Namespaces of its own; mounts made from now on are seen by nobody else.
pub(super) fn leave_namespaces() -> Result<()> {
    let flags = CloneFlags::CLONE_FS
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(flags).map_err(|e| UnpackError::system("make namespaces for", "unpacking", e))?;
    const NONE: Option<&str> = None;
    mount(NONE, "/", NONE, MsFlags::MS_PRIVATE | MsFlags::MS_REC, NONE)
        .map_err(|e| UnpackError::system("make private", "/", e))
}

/// Mounts the layers below (lowest first, names in `layers_dir`) with `upper` on top, so that a layer is unpacked onto
/// what its image has so far: links, modes and whiteouts mean what they meant to whoever made it.
pub(super) fn mount_onto(layers_dir: &Path, below: &[String], upper: &Path, work: &Path, target: &Path) -> Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let io = |path: &Path, e: std::io::Error| UnpackError::io("use", path.display(), &e);
    let Some(top) = below.last() else { return Ok(()) };
    let meta = std::fs::metadata(layers_dir.join(top)).map_err(|e| io(&layers_dir.join(top), e))?;
    std::os::unix::fs::chown(upper, Some(meta.uid()), Some(meta.gid()))
        .and_then(|()| std::fs::set_permissions(upper, std::fs::Permissions::from_mode(meta.mode() & 0o7777)))
        .map_err(|e| io(upper, e))?;
    std::env::set_current_dir(layers_dir).map_err(|e| io(layers_dir, e))?;
    mount_overlay(below, &format!(",upperdir={},workdir={}", upper.display(), work.display()), target)
}

/// Mounts layers (lowest first, names in `layers_dir`, at least two) as they are seen together, to be read.
pub(super) fn mount_together(layers_dir: &Path, layers: &[String], target: &Path) -> Result<()> {
    std::env::set_current_dir(layers_dir).map_err(|e| UnpackError::io("use", layers_dir.display(), &e))?;
    mount_overlay(layers, "", target)
}

/// `more` is what follows the layers in the mount's options. Relative names are all that fits those.
fn mount_overlay(layers: &[String], more: &str, target: &Path) -> Result<()> {
    let lower: Vec<&str> = layers.iter().rev().map(String::as_str).collect();
    let options = format!("lowerdir={}{more},redirect_dir=off,metacopy=off,index=off", lower.join(":"));
    if options.len() > 4095 {
        return Err(UnpackError::invalid(format!("{} layers are more than overlayfs can stack here", layers.len())));
    }
    mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_str())).map_err(|errno| {
        let message = format!(
            "overlayfs can't be mounted on {} ({}): images need the kernel's overlayfs and a state directory on ext4, \
             xfs (ftype=1), btrfs or tmpfs",
            target.display(),
            errno.desc()
        );
        UnpackError::new(Kind::Unsupported, message)
    })
}

/// Makes `root` the root directory.
pub(super) fn enter(root: &Path) -> Result<()> {
    nix::unistd::chroot(root)
        .and_then(|()| nix::unistd::chdir("/"))
        .map_err(|e| UnpackError::system("enter", root.display(), e))
}

/// Keeps what files of any owner and mode need, no more: no mounting, no device nodes, no leaving of the root.
pub(super) fn drop_capabilities() -> Result<()> {
    let keep = CapsHashSet::from([
        Capability::CAP_CHOWN,
        Capability::CAP_DAC_OVERRIDE,
        Capability::CAP_FOWNER,
        Capability::CAP_FSETID,
        Capability::CAP_SETFCAP,
    ]);
    nix::sys::prctl::set_no_new_privs().map_err(|e| UnpackError::system("set", "no_new_privs", e))?;
    [CapSet::Ambient, CapSet::Inheritable]
        .into_iter()
        .try_for_each(|set| caps::clear(None, set))
        .and_then(|()| caps::set(None, CapSet::Effective, &keep))
        .and_then(|()| caps::set(None, CapSet::Permitted, &keep))
        .map_err(|e| UnpackError::new(Kind::Unsupported, format!("drop capabilities: {e}")))
}

/// Memory and open files, for a process that does nothing but unpack.
pub(super) fn limit_process() -> Result<()> {
    use nix::sys::resource::{Resource, setrlimit};
    for (resource, limit) in
        [(Resource::RLIMIT_AS, 1 << 30), (Resource::RLIMIT_NOFILE, 256), (Resource::RLIMIT_CORE, 0)]
    {
        setrlimit(resource, limit, limit).map_err(|e| UnpackError::system("limit", "resources", e))?;
    }
    Ok(())
}

/// Set in a process that works for a daemon behind its standard output.
static WORKS_FOR_A_DAEMON: AtomicBool = AtomicBool::new(false);

/// From now on [`check_not_abandoned`] looks whether somebody still waits for the answer.
pub(super) fn work_for_daemon() {
    WORKS_FOR_A_DAEMON.store(true, Ordering::Relaxed);
}

/// Whether the answer is still wanted: a killed daemon's successor wants the store for itself. About a microsecond.
///
/// # Errors
/// When nobody reads our standard output any more.
pub(super) fn check_not_abandoned() -> Result<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    if !WORKS_FOR_A_DAEMON.load(Ordering::Relaxed) {
        return Ok(());
    }
    let stdout = std::io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(n) if n > 0 => Err(UnpackError::new(Kind::Other, "the daemon that asked for this is gone")),
        _ => Ok(()),
    }
}
