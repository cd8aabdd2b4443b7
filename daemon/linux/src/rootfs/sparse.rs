//! The `sparse` brand: the host's own /usr, read-only, below a root of the container's own.
//!
//! As on illumos, a pod needs no image: programs come from the host, state is private. What a container sees:
//!
//! | path | is |
//! |---|---|
//! | /usr, /nix/store | the host's, read-only |
//! | /bin, /sbin, /lib* | links into /usr as the host has them; bound read-only where they are directories |
//! | /etc | its own: written here, plus copies of the public files in [`ETC_FILES`], read-only [`ETC_DIRECTORIES`] |
//! | /var, /tmp, /root, /run, /home, /opt, /srv, /mnt, /media | its own, empty |
//! | /dev, /proc, /sys | made by the runtime |
//!
//! Nothing else of the host is visible: no /etc/shadow, no keys, no home directories.

use super::mount::{bind_tree, bind_tree_read_only};
use super::{PREPARE, io_error};
use crate::users::Users;
use reddwarf_host::HostResult;
use reddwarf_supervise::tree::remove_tree;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Files of /etc that programs of /usr read, and that hold nothing private. Copied when everyone may read them.
const ETC_FILES: [&str; 31] = [
    "bash.bashrc",
    "bindresvport.blacklist",
    "debian_version",
    "environment",
    "ethertypes",
    "gai.conf",
    "host.conf",
    "inputrc",
    "issue",
    "ld.so.cache",
    "ld.so.conf",
    "libaudit.conf",
    "locale.alias",
    "locale.conf",
    "localtime",
    "login.defs",
    "lsb-release",
    "magic",
    "magic.mime",
    "mime.types",
    "netconfig",
    "networks",
    "os-release",
    "profile",
    "protocols",
    "rpc",
    "services",
    "shells",
    "ssl/openssl.cnf",
    "timezone",
    "vconsole.conf",
];

/// Directories of /etc that are bound read-only: public by nature, and too big to copy for each container.
const ETC_DIRECTORIES: [&str; 8] = [
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "fonts",
    "ld.so.conf.d",
    "pki/ca-trust",
    "pki/tls/certs",
    "ssl/certs",
];

/// Our own, with modes.
const DIRECTORIES: [(&str, u32); 26] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/backups", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/local", 0o755),
    ("var/log", 0o755),
    ("var/mail", 0o755),
    ("var/opt", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
    ("etc/ssl", 0o755),
    ("etc/pki", 0o755),
];

const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n\
                        protocols: files\nservices: files\nrpc: files\nethers: files\n";

/// Makes the root file system on `mountpoint`; its writable part stays in `dir`.
pub(super) fn prepare(usr: &Path, dir: &Path, mountpoint: &Path, users: Option<&Users>) -> HostResult<()> {
    let root = dir.join("root");
    if !root.exists() {
        // Built aside and renamed, so that what an interrupted try left is never used.
        let unfinished = dir.join("root.new");
        remove_tree(&unfinished).map_err(|e| io_error(PREPARE, &unfinished, e.into()))?;
        build(Path::new("/"), &unfinished).map_err(|(path, e)| io_error(PREPARE, &path, e))?;
        std::fs::rename(&unfinished, &root).map_err(|e| io_error(PREPARE, &root, e))?;
    }
    bind_tree(&root, mountpoint, users)?;
    bind_tree_read_only(usr, &mountpoint.join("usr"), users)?;
    for name in top_level_directories(Path::new("/")) {
        bind_tree_read_only(&Path::new("/").join(&name), &mountpoint.join(&name), users)?;
    }
    for name in ETC_DIRECTORIES.iter().filter(|n| is_directory(&Path::new("/etc").join(n))) {
        bind_tree_read_only(&Path::new("/etc").join(name), &mountpoint.join("etc").join(name), users)?;
    }
    Ok(())
}

/// What must be bound because it is no link into /usr: /bin and so on before the usr-merge, NixOS' store.
fn top_level_directories(host: &Path) -> Vec<String> {
    usr_names(host).into_iter().chain(["nix/store".to_owned()]).filter(|name| is_directory(&host.join(name))).collect()
}

/// `bin`, `sbin` and whatever begins with `lib`.
fn usr_names(host: &Path) -> Vec<String> {
    let libs = std::fs::read_dir(host).into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
    let mut names: Vec<_> = libs.filter(|n| n.starts_with("lib") && !n.contains("usr-is-merged")).collect();
    names.extend(["bin".to_owned(), "sbin".to_owned()]);
    names.sort();
    names
}

fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|m| m.is_dir())
}

type Failed = (PathBuf, io::Error);

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, Failed> {
    result.map_err(|e| (path.to_owned(), e))
}

/// Writes the container's own part of the root.
fn build(host: &Path, root: &Path) -> Result<(), Failed> {
    make_directory(root, 0o755)?;
    for (name, mode) in DIRECTORIES {
        make_directory(&root.join(name), mode)?;
    }
    at(&root.join("var/run"), symlink("/run", root.join("var/run")))?;
    at(&root.join("var/lock"), symlink("/run/lock", root.join("var/lock")))?;
    for name in usr_names(host) {
        let path = root.join(&name);
        match std::fs::read_link(host.join(&name)) {
            Ok(target) => at(&path, symlink(target, &path))?,
            Err(_) if is_directory(&host.join(&name)) => make_directory(&path, 0o755)?,
            Err(_) => {}
        }
    }
    if is_directory(&host.join("nix/store")) {
        make_directory(&root.join("nix"), 0o755)?;
        make_directory(&root.join("nix/store"), 0o755)?;
    }
    build_etc(&host.join("etc"), &root.join("etc"))
}

fn build_etc(host: &Path, etc: &Path) -> Result<(), Failed> {
    for name in ETC_DIRECTORIES.iter().filter(|n| is_directory(&host.join(n))) {
        let path = etc.join(name);
        if let Some(parent) = path.parent() {
            at(parent, std::fs::create_dir_all(parent))?;
        }
        make_directory(&path, 0o755)?;
    }
    for name in ETC_FILES {
        copy_public(&host.join(name), &etc.join(name))?;
    }
    let accounts = |name: &str| std::fs::read_to_string(host.join(name)).unwrap_or_default();
    write(&etc.join("passwd"), system_users(&accounts("passwd")).as_bytes())?;
    write(&etc.join("group"), system_groups(&accounts("group")).as_bytes())?;
    write(&etc.join("nsswitch.conf"), NSSWITCH.as_bytes())?;
    // The sandbox's own are bound over these.
    for name in ["hosts", "hostname", "resolv.conf"] {
        write(&etc.join(name), b"")?;
    }
    at(&etc.join("mtab"), symlink("../proc/self/mounts", etc.join("mtab")))
}

/// The mode is set exactly, whatever the umask.
fn make_directory(path: &Path, mode: u32) -> Result<(), Failed> {
    at(path, DirBuilder::new().mode(0o700).create(path))?;
    at(path, std::fs::set_permissions(path, Permissions::from_mode(mode)))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failed> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
    let mut file = at(path, file)?;
    at(path, file.write_all(bytes))?;
    at(path, file.set_permissions(Permissions::from_mode(0o644)))
}

/// Copies a file that everyone may read; a link into /usr stays a link. Anything else is left out.
fn copy_public(from: &Path, to: &Path) -> Result<(), Failed> {
    const LARGEST: u64 = 4 << 20;
    if let Ok(target) = std::fs::read_link(from)
        && (target.starts_with("/usr") || target.starts_with("../usr"))
    {
        return at(to, symlink(target, to));
    }
    let Ok(file) = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(from) else { return Ok(()) };
    let Ok(meta) = file.metadata() else { return Ok(()) };
    if !meta.is_file() || meta.mode() & 0o004 == 0 || meta.len() > LARGEST {
        return Ok(());
    }
    let mut bytes = Vec::new();
    at(from, File::take(file, LARGEST).read_to_end(&mut bytes))?;
    write(to, &bytes)
}

/// The accounts that belong to the system rather than to people (login.defs(5): SYS_UID_MAX is 999 by default), without
/// passwords and personal data: programs of /usr expect theirs.
fn system_users(host: &str) -> String {
    let mut text = String::from("root:x:0:0:root:/root:/bin/sh\n");
    for line in host.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [name, _, uid, gid, _, home, shell] = fields[..]
            && is_system_account(name, uid)
            && gid.parse::<u32>().is_ok()
        {
            text.push_str(&format!("{name}:x:{uid}:{gid}::{home}:{shell}\n"));
        }
    }
    if !text.lines().any(|l| l.starts_with("nobody:")) {
        text.push_str("nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
    }
    text
}

fn system_groups(host: &str) -> String {
    let mut text = String::from("root:x:0:\n");
    for line in host.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [name, _, gid, _] = fields[..]
            && is_system_account(name, gid)
        {
            text.push_str(&format!("{name}:x:{gid}:\n"));
        }
    }
    if !text.lines().any(|l| l.ends_with(":65534:")) {
        text.push_str("nogroup:x:65534:\n");
    }
    text
}

fn is_system_account(name: &str, id: &str) -> bool {
    !name.is_empty() && name != "root" && id.parse::<u32>().is_ok_and(|id| (1..1000).contains(&id) || id == 65534)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn people_and_passwords_stay_out() {
        let passwd = system_users(
            "root:x:0:0:Boss:/root:/bin/bash\nwww-data:$6$secret:33:33:Web,,,555:/var/www:/usr/sbin/nologin\n\
             alice:x:1000:1000:Alice:/home/alice:/bin/bash\nnobody:x:65534:65534:n:/nonexistent:/bin/false\nbroken\n",
        );
        assert_eq!(
            passwd,
            "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\n\
             nobody:x:65534:65534::/nonexistent:/bin/false\n"
        );
        let group = system_groups("root:x:0:\nadm:x:4:alice\nalice:x:1000:\nnogroup:x:65534:\n");
        assert_eq!(group, "root:x:0:\nadm:x:4:\nnogroup:x:65534:\n");
        assert!(system_users("").contains("nobody:"));
        assert!(system_groups("").contains("nogroup:"));
    }

    #[test]
    fn only_public_files_of_etc_are_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (host, root) = (dir.path().join("host"), dir.path().join("root"));
        fs::create_dir_all(host.join("etc/ssl/private")).unwrap();
        fs::create_dir_all(host.join("etc/ssl/certs")).unwrap();
        fs::create_dir_all(host.join("lib64")).unwrap();
        symlink("usr/bin", host.join("bin")).unwrap();
        symlink("/usr/share/zoneinfo/UTC", host.join("etc/localtime")).unwrap();
        symlink("/etc/shadow", host.join("etc/magic")).unwrap();
        for (name, mode) in [("shadow", 0o644), ("services", 0o644), ("environment", 0o600), ("ssl/private/key", 0o644)]
        {
            let mut f = OpenOptions::new().create_new(true).write(true).open(host.join("etc").join(name)).unwrap();
            f.write_all(name.as_bytes()).unwrap();
            f.set_permissions(Permissions::from_mode(mode)).unwrap();
        }
        build(&host, &root).unwrap();
        assert_eq!(fs::read_to_string(root.join("etc/services")).unwrap(), "services");
        assert_eq!(fs::read_link(root.join("etc/localtime")).unwrap(), Path::new("/usr/share/zoneinfo/UTC"));
        assert_eq!(fs::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"));
        assert!(root.join("lib64").is_dir());
        for hidden in ["etc/shadow", "etc/environment", "etc/ssl/private"] {
            assert!(!root.join(hidden).exists(), "{hidden}");
        }
        assert_eq!(fs::read_dir(root.join("etc/ssl/certs")).unwrap().count(), 0);
        assert_eq!(fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(fs::metadata(root.join("root")).unwrap().mode() & 0o7777, 0o700);
    }
}
