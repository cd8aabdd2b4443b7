//! What a zone sees as its root.

use super::{INSIDE, Inside, below, said};
use crate::brand::{Brand, Mount};
use crate::call::{Sim, replace};
use crate::state::Config;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, mknod};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// What of this machine stands for a native zone's programs.
const PROGRAMS: &[&str] = &["usr", "bin", "sbin", "lib", "lib32", "lib64"];
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// Directories and files that every zone has, made where they are missing.
///
/// # Errors
/// The disk's.
pub(crate) fn furnish(root: &Path, brand: &str) -> io::Result<()> {
    std::fs::create_dir_all(root)?;
    std::fs::set_permissions(root, Permissions::from_mode(0o755))?;
    for name in ["dev", "proc", "etc", "tmp", "var", "var/tmp", "var/run", "root", "system", INSIDE] {
        let path = root.join(name);
        if path.symlink_metadata().is_err() {
            std::fs::create_dir_all(&path)?;
        }
    }
    for name in ["tmp", "var/tmp"] {
        std::fs::set_permissions(root.join(name), Permissions::from_mode(0o1777))?;
    }
    if brand != "lx" {
        let file = |name: &str, text: &str| {
            let path = root.join("etc").join(name);
            if path.symlink_metadata().is_ok() { Ok(()) } else { replace(&path, text.as_bytes()) }
        };
        file(
            "passwd",
            "root:x:0:0:Super-User:/root:/bin/sh\ndaemon:x:1:1::/:\nnobody:x:60001:60001:NFS Anonymous Access User:/:\n",
        )?;
        file("group", "root::0:\nother::1:root\nbin::2:root,daemon\nnobody::60001:\n")?;
    }
    Ok(())
}

/// Puts a zone's root together in this process' own mount namespace.
pub(super) fn assemble(sim: &Sim, root: &Path, config: &Config, about: &Inside) -> Result<(), String> {
    let brand = config.global("brand");
    let mounts = Brand::of(sim, config).mounts();
    match mounts {
        // Its own script made it: what is missing is missing.
        Some(_) => std::fs::create_dir_all(root.join(INSIDE)),
        None => furnish(root, brand),
    }
    .map_err(|e| format!("{}: {e}", root.display()))?;
    let text = serde_json::to_string(about).map_err(|e| e.to_string())?;
    replace(&root.join(INSIDE).join("zone"), text.as_bytes()).map_err(|e| e.to_string())?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    said(mount(None::<&str>, "/", None::<&str>, private, None::<&str>), "private mounts")?;
    bind(root, root, false)?;
    let bin = root.join(INSIDE).join("bin");
    std::fs::create_dir_all(&bin).map_err(|e| e.to_string())?;
    bind(&sim.tools(), &bin, true)?;
    if brand != "lx" {
        programs(root)?;
    }
    devices(root)?;
    for mount in mounts.iter().flatten() {
        brand_mount(root, mount)?;
    }
    for fs in config.all("fs") {
        resource(sim, root, fs)?;
    }
    Ok(())
}

fn bind(from: &Path, to: &Path, read_only: bool) -> Result<(), String> {
    let what = format!("{} on {}", from.display(), to.display());
    said(mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>), &what)?;
    if read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        // In a user namespace flags of the mount below are locked: it is as it is.
        let _ = mount(None::<&str>, to, None::<&str>, flags, None::<&str>);
    }
    Ok(())
}

/// This machine's programs, where the zone has none of its own.
fn programs(root: &Path) -> Result<(), String> {
    for name in PROGRAMS {
        let (here, there) = (Path::new("/").join(name), root.join(name));
        let empty = std::fs::read_dir(&there).map_or(true, |mut entries| entries.next().is_none());
        if !here.exists() || there.is_symlink() || !empty {
            continue;
        }
        match std::fs::read_link(&here) {
            Ok(target) => {
                let _ = std::fs::remove_dir(&there);
                symlink(target, &there).map_err(|e| format!("{}: {e}", there.display()))?;
            }
            Err(_) => {
                std::fs::create_dir_all(&there).map_err(|e| format!("{}: {e}", there.display()))?;
                bind(&here, &there, true)?;
            }
        }
    }
    Ok(())
}

fn devices(root: &Path) -> Result<(), String> {
    let dev = root.join("dev");
    said(mount(Some("dev"), &dev, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755")), "/dev")?;
    for name in DEVICES {
        let (here, there) = (Path::new("/dev").join(name), dev.join(name));
        let number = here.metadata().map_err(|e| format!("{}: {e}", here.display()))?.rdev();
        // Of their own: who mounts /dev elsewhere has them too.
        if mknod(&there, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), number).is_ok() {
            let open = std::fs::set_permissions(&there, Permissions::from_mode(0o666));
            open.map_err(|e| format!("{}: {e}", there.display()))?;
            continue;
        }
        File::create(&there).map_err(|e| format!("{}: {e}", there.display()))?;
        bind(&here, &there, false)?;
    }
    for name in ["pts", "shm"] {
        std::fs::create_dir(dev.join(name)).map_err(|e| e.to_string())?;
    }
    let pts = Some("newinstance,ptmxmode=0666,mode=0620");
    said(mount(Some("devpts"), &dev.join("pts"), Some("devpts"), MsFlags::MS_NOSUID, pts), "/dev/pts")?;
    said(mount(Some("shm"), &dev.join("shm"), Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=1777")), "/dev/shm")?;
    for (name, target) in
        [("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        symlink(target, dev.join(name)).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// One mount of a brand's platform.xml. Memory is mounted, programs, devices and processes are there by other ways, of the
/// others there is just the place.
fn brand_mount(root: &Path, mount: &Mount) -> Result<(), String> {
    let place = below(root, &mount.directory);
    if place.symlink_metadata().is_err() {
        return Err(format!("unable to mount {} at {}: no such file or directory", mount.special, mount.directory));
    }
    match mount.kind.as_str() {
        "tmpfs" => {
            let mode = place.metadata().map_err(|e| e.to_string())?.permissions().mode() & 0o7777;
            let options = format!("mode={mode:o}");
            said(mount_memory(&place, &options), &mount.directory)
        }
        "lofs" | "dev" | "proc" | "ctfs" | "objfs" | "mntfs" | "sharefs" => Ok(()),
        other => Err(format!("unable to mount {}: unknown type {other}", mount.directory)),
    }
}

fn mount_memory(place: &Path, options: &str) -> nix::Result<()> {
    mount(Some("swap"), place, Some("tmpfs"), MsFlags::MS_NOSUID, Some(options))
}

/// One `fs` resource.
fn resource(sim: &Sim, root: &Path, fs: &crate::state::Resource) -> Result<(), String> {
    let (dir, special) = (below(root, fs.get("dir")), fs.get("special"));
    let options = fs.list("options");
    let read_only = options.iter().any(|o| o == "ro");
    let error = |e: io::Error| format!("cannot mount {}: {e}", dir.display());
    match fs.get("type") {
        "lofs" => {
            let from = Path::new(special);
            if from.is_dir() {
                std::fs::create_dir_all(&dir).map_err(error)?;
            } else {
                std::fs::create_dir_all(dir.parent().unwrap_or(root)).map_err(error)?;
                File::options().create(true).append(true).open(&dir).map_err(error)?;
            }
            bind(from, &dir, read_only)
        }
        "tmpfs" => {
            std::fs::create_dir_all(&dir).map_err(error)?;
            let size = options.iter().find(|o| o.starts_with("size=")).cloned();
            said(mount(Some("swap"), &dir, Some("tmpfs"), MsFlags::MS_NOSUID, size.as_deref()), fs.get("dir"))
        }
        "zfs" => {
            let state = sim.lock().map_err(|e| e.to_string())?.state.clone();
            let from = crate::zfs::backing(sim, &state, special)
                .ok_or_else(|| format!("{special}: dataset does not exist"))?;
            std::fs::create_dir_all(&dir).map_err(error)?;
            bind(&from, &dir, read_only)
        }
        other => Err(format!("file systems of type {other} are not played")),
    }
}
