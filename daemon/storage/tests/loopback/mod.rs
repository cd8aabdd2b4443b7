//! File systems in files, or on memory, for the time of a test.

use reddwarf_host::storage::Subvolumes;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

/// What the host does itself, as the daemon wires it.
#[cfg(target_os = "linux")]
pub(crate) fn calls() -> Option<Arc<dyn Subvolumes>> {
    Some(Arc::new(reddwarf_linux::btrfs::Calls))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn calls() -> Option<Arc<dyn Subvolumes>> {
    None
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|out| {
        if !out.status.success() {
            eprintln!("{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        }
        out.status.success()
    })
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A btrfs file system in a file.
pub(crate) struct Btrfs {
    dir: TempDir,
    at: PathBuf,
}

impl Btrfs {
    /// `None`, and says so, where that can't be had.
    pub(crate) fn mounted(mebibytes: u64) -> Option<Self> {
        if !is_root() || !run("mkfs.btrfs", &["--version"]) {
            eprintln!("SKIPPED: needs root and btrfs-progs");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (file, at) = (dir.path().join("disk"), dir.path().join("at"));
        std::fs::File::create(&file).unwrap().set_len(mebibytes << 20).unwrap();
        std::fs::create_dir(&at).unwrap();
        assert!(run("mkfs.btrfs", &["-q", "-f", file.to_str().unwrap()]));
        if !run("mount", &["-o", "loop", "-t", "btrfs", file.to_str().unwrap(), at.to_str().unwrap()]) {
            eprintln!("SKIPPED: btrfs can't be mounted here");
            return None;
        }
        Some(Self { dir, at })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        run("umount", &["-l", self.at.to_str().unwrap()]);
        let _ = &self.dir;
    }
}

/// A small file system on memory.
pub(crate) struct Small(TempDir);

impl Small {
    pub(crate) fn mounted(mebibytes: u64) -> Option<Self> {
        if !is_root() {
            eprintln!("SKIPPED: needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        assert!(run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", dir.path().to_str().unwrap()]));
        Some(Self(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.path().to_str().unwrap()]);
    }
}

/// ZFS with a pool in a file: the kernel's where `REDDWARF_TEST_ZFS=kernel` says so (`vm-tests/vm.py zfs`), else zfs-fuse, which is
/// not installed (it stands in the way of the kernel's): its package is unpacked by `.ci/setup`.
pub(crate) struct Zfs {
    dir: TempDir,
    /// Of zfs-fuse.
    daemon: Option<std::process::Child>,
    tools: PathBuf,
    pub(crate) pool: String,
}

impl Zfs {
    /// `None`, and says so, where that can't be had.
    pub(crate) fn with_pool(mebibytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (daemon, tools) = if std::env::var_os("REDDWARF_TEST_ZFS").is_some_and(|which| which == "kernel") {
            (None, PathBuf::from("/usr/sbin"))
        } else {
            Self::fuse(&dir)?
        };
        let file = dir.path().join("disk");
        std::fs::File::create(&file).unwrap().set_len(mebibytes << 20).unwrap();
        let made = Self { dir, daemon, tools, pool: format!("rd{}", std::process::id()) };
        let at = made.dir.path().join("at");
        let args = ["create", "-m", at.to_str().unwrap(), &made.pool, file.to_str().unwrap()];
        let began = std::time::Instant::now();
        while !made.zpool(&args) {
            assert!(began.elapsed().as_secs() < 20, "ZFS does not answer");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        Some(made)
    }

    /// zfs-fuse and where its tools are.
    fn fuse(dir: &TempDir) -> Option<(Option<std::process::Child>, PathBuf)> {
        let root = std::env::var_os("REDDWARF_ZFS_FUSE")
            .map_or_else(|| "/var/cache/reddwarf-ci/zfs-fuse".into(), PathBuf::from);
        if !is_root() || !root.join("sbin/zfs-fuse").exists() || !Path::new("/dev/fuse").exists() {
            eprintln!("SKIPPED: needs root, /dev/fuse and zfs-fuse unpacked at {} (see .ci/setup)", root.display());
            return None;
        }
        let tools = dir.path().join("tools");
        std::fs::create_dir(&tools).unwrap();
        let libraries = format!("{0}/usr/lib/x86_64-linux-gnu:{0}/lib/x86_64-linux-gnu", root.display());
        for tool in ["zfs", "zpool"] {
            let script = format!("#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {}/sbin/{tool} \"$@\"\n", root.display());
            std::fs::write(tools.join(tool), script).unwrap();
            std::fs::set_permissions(tools.join(tool), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let daemon = Command::new(root.join("sbin/zfs-fuse"))
            .args(["--no-daemon", "--no-kstat-mount"])
            .env("LD_LIBRARY_PATH", &libraries)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        Some((Some(daemon), tools))
    }

    /// Where its tools are.
    pub(crate) fn tools(&self) -> &Path {
        &self.tools
    }

    /// Runs zpool(8).
    pub(crate) fn zpool(&self, args: &[&str]) -> bool {
        run(self.tools.join("zpool").to_str().unwrap(), args)
    }

    /// Runs zfs(8).
    pub(crate) fn zfs(&self, args: &[&str]) -> bool {
        run(self.tools.join("zfs").to_str().unwrap(), args)
    }

    /// The directory that its pool lies in.
    pub(crate) fn directory(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Zfs {
    fn drop(&mut self) {
        Command::new(self.tools.join("zpool")).args(["destroy", "-f", &self.pool]).output().unwrap();
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for at in
            mounts.lines().filter_map(|l| l.split(' ').nth(4)).filter(|m| Path::new(m).starts_with(self.dir.path()))
        {
            run("umount", &["-l", at]);
        }
    }
}
