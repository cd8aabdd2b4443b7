//! For a sandbox with users of its own: everything that its container is made of, in one place that these users can get to.
//!
//! The OCI runtime looks for root, volumes and namespaces after it has become one of them, and they may not pass the
//! daemon's directories. So a small file system is mounted over a directory that systems have, in this process' mount
//! namespace alone, and what the container needs is attached in there.

use super::creator::Failure;
use super::staging::stage;
use crate::mounts;
use crate::oci::{PidNamespace, ReadyMount};
use crate::record::Launch;
use crate::users::Users;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Directories that systems have. The first one that nothing of ours lies in is taken.
const PLACES: [&str; 5] = ["/mnt", "/media", "/srv", "/opt", "/home"];

/// Moves in: the paths in `launch`, `mounts` and `processes` are those in the shelter afterwards. Returns the root's.
pub(super) fn move_in(
    launch: &mut Launch,
    users: &Users,
    root: &Path,
    mounts: &mut [ReadyMount],
    processes: &mut PidNamespace,
) -> Result<PathBuf, Failure> {
    let mut moving = || {
        let mut shelter = Shelter::open(launch)?;
        // Its files belong to the right users already.
        let root = shelter.keep(&mounts::copy(&crate::inside::open_no_follow(root)?)?)?;
        for mount in mounts.iter_mut() {
            mount.source = shelter.keep(&users.view(&mount.source)?)?;
        }
        launch.shm = shelter.keep(&users.view(&launch.shm)?)?;
        launch.etc = shelter.keep(&users.view(&launch.etc)?)?;
        let namespaces = &mut launch.namespaces;
        for path in [&mut namespaces.net, &mut namespaces.ipc, &mut namespaces.uts].into_iter().flatten() {
            *path = shelter.namespace(path)?;
        }
        if let PidNamespace::Join(path) = processes {
            *path = shelter.namespace(path)?;
        }
        Ok(root)
    };
    moving().map_err(Failure::io("gather what the pod's own users need"))
}

struct Shelter {
    place: PathBuf,
    count: usize,
}

impl Shelter {
    fn open(launch: &Launch) -> io::Result<Self> {
        let ours = [&launch.options.run_dir, &launch.options.state_dir];
        let free = |place: &&&str| Path::new(place).is_dir() && !ours.iter().any(|dir| dir.starts_with(place));
        let place = PLACES.iter().find(free).map(PathBuf::from).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("none of {} is there to mount on", PLACES.join(", ")))
        })?;
        mounts::mount_tmpfs(&place, "mode=755,size=1m")?;
        Ok(Self { place, count: 0 })
    }

    fn next(&mut self) -> PathBuf {
        self.count += 1;
        self.place.join(self.count.to_string())
    }

    fn keep(&mut self, view: &OwnedFd) -> io::Result<PathBuf> {
        let path = self.next();
        stage(view, &path)?;
        Ok(path)
    }

    fn namespace(&mut self, pinned: &Path) -> io::Result<PathBuf> {
        let path = self.next();
        File::create(&path)?;
        mounts::bind(pinned, &path)?;
        Ok(path)
    }
}
