//! What a program finds around itself: files of /etc, devices and processes, volumes. `linux` has the same for lx zones.

use super::{Failure, Start, StartMount, failed};
use crate::rooted;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Files of /etc, and volumes: what was mounted of it. Nothing stays mounted where something could not be.
pub(super) fn make(start: &Start) -> Result<Vec<PathBuf>, Failure> {
    let root = start.root.clone().unwrap_or_else(|| PathBuf::from("."));
    if !start.hostname.is_empty() {
        // A zone is named after its pod with a digest until somebody says otherwise.
        let _ = nix::unistd::sethostname(&start.hostname);
    }
    for name in ["hosts", "resolv.conf"] {
        // A root without /etc, or one that is read-only, does without.
        if let (Ok(text), Ok(etc)) = (fs::read(start.etc.join(name)), rooted::resolve(&root, Path::new("etc"))) {
            let _ = rooted::put(&etc, name, &text);
        }
    }
    let mut mounted = Vec::new();
    let all = mount_all(start, &root, &mut mounted);
    // What is mounted in the zone's own root is there for its other containers too.
    if start.root.is_none() {
        mounted.clear();
    }
    if all.is_err() {
        unmount(&mounted);
    }
    all.map(|()| mounted)
}

fn mount_all(start: &Start, root: &Path, mounted: &mut Vec<PathBuf>) -> Result<(), Failure> {
    // A root file system of its own has the zone's devices and processes too: no shell does without /dev/null.
    for name in ["dev", "proc"].into_iter().filter(|_| start.root.is_some()) {
        let what = || format!("mount /{name}");
        let source = Path::new("/").join(name);
        let target = rooted::resolve(root, Path::new(name)).map_err(failed(what()))?;
        place(&source, &target).map_err(failed(what()))?;
        if system::mount(&source, &target, false).map_err(failed(what()))? {
            mounted.push(target);
        }
    }
    for mount in &start.mounts {
        match volume(root, mount) {
            Ok(target) => mounted.extend(target),
            Err(_) if mount.optional => {}
            Err(e) => return Err(failed(format!("mount at {}", mount.target))(e)),
        }
    }
    Ok(())
}

/// Else the root file system can't be destroyed before the zone is halted.
pub(super) fn unmount(mounted: &[PathBuf]) {
    for target in mounted.iter().rev() {
        let _ = system::unmount(target);
    }
}

/// Mounts a volume; where, unless something is mounted there already.
fn volume(root: &Path, mount: &StartMount) -> io::Result<Option<PathBuf>> {
    let target = rooted::resolve(root, Path::new(&mount.target))?;
    // Volumes on memory that the system did not mount.
    if !mount.source.exists() {
        fs::create_dir_all(&mount.source)?;
    }
    place(&mount.source, &target)?;
    Ok(system::mount(&mount.source, &target, mount.read_only)?.then_some(target))
}

/// Something to mount on, of the source's own kind.
fn place(source: &Path, target: &Path) -> io::Result<()> {
    if target.exists() {
        return Ok(());
    }
    if source.is_dir() {
        return fs::create_dir_all(target);
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::File::create(target).map(drop)
}

/// Mounts within the zone, which every zone's root may make; what is mounted there already stays.
mod system {
    use std::io;
    use std::path::Path;

    #[cfg(not(target_os = "linux"))]
    const MOUNTED: &str = "/etc/mnttab";
    #[cfg(not(target_os = "linux"))]
    const BETWEEN: char = '\t';
    #[cfg(target_os = "linux")]
    const MOUNTED: &str = "/proc/self/mounts";
    #[cfg(target_os = "linux")]
    const BETWEEN: char = ' ';

    fn is_mounted(target: &Path) -> bool {
        let table = std::fs::read_to_string(MOUNTED).unwrap_or_default();
        table.lines().any(|line| line.split(BETWEEN).nth(1).map(plain).as_deref() == target.to_str())
    }

    /// A field of the table: blanks and the like are spelt `\040` on Linux, and stand for themselves in mnttab(5).
    fn plain(field: &str) -> String {
        let spelt = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
        spelt
            .iter()
            .filter(|_| BETWEEN == ' ')
            .fold(field.to_owned(), |field, (spelt, plain)| field.replace(spelt, plain))
    }

    /// Whether something was mounted.
    pub(super) fn mount(source: &Path, target: &Path, read_only: bool) -> io::Result<bool> {
        let (source, target) = (std::path::absolute(source)?, std::path::absolute(target)?);
        if is_mounted(&target) {
            return Ok(false);
        }
        really_mount(&source, &target, read_only)?;
        Ok(true)
    }

    /// lofs(4FS).
    #[cfg(not(target_os = "linux"))]
    fn really_mount(source: &Path, target: &Path, read_only: bool) -> io::Result<()> {
        let options: &[&str] = if read_only { &["-o", "ro"] } else { &[] };
        let words = ["-F", "lofs"].iter().chain(options).map(std::ffi::OsStr::new);
        run("/usr/sbin/mount", words.chain([source.as_os_str(), target.as_os_str()]))
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn unmount(target: &Path) -> io::Result<()> {
        run("/usr/sbin/umount", [std::path::absolute(target)?.as_os_str()])
    }

    #[cfg(not(target_os = "linux"))]
    fn run<'a>(program: &str, words: impl IntoIterator<Item = &'a std::ffi::OsStr>) -> io::Result<()> {
        #[expect(clippy::disallowed_methods, reason = "in the zone: a short run of the zone's own tool")]
        let mut command = std::process::Command::new(program);
        let said = command.env_clear().envs(reddwarf_command::ENVIRONMENT).args(words).output()?;
        if said.status.success() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&said.stderr).trim().to_owned()))
    }

    /// Zones that are processes of this machine (`vm-tests/hostsim`).
    #[cfg(target_os = "linux")]
    fn really_mount(source: &Path, target: &Path, read_only: bool) -> io::Result<()> {
        use nix::mount::{MsFlags, mount};
        mount(Some(source), target, None::<&Path>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&Path>)?;
        if read_only {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(None::<&Path>, target, None::<&Path>, flags, None::<&Path>)?;
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    pub(super) fn unmount(target: &Path) -> io::Result<()> {
        Ok(nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH)?)
    }
}
