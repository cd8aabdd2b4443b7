//! Root file systems as a process inside sees them. They need root and say so when they have to skip.

use super::*;
use nix::sched::{CloneFlags, unshare};
use reddwarf_host::ImageId;
use std::collections::BTreeMap;

/// Prepares a root in a mount namespace of a thread's own and calls `look` with its path.
fn with_root<T: Send + 'static>(
    request: RootfsRequest,
    look: impl FnOnce(&Path) -> T + Send + 'static,
) -> Option<HostResult<T>> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root to mount");
        return None;
    }
    let thread = std::thread::spawn(move || {
        // CLONE_FS too: `prepare` changes the working directory.
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
        nix::mount::mount(
            None::<&str>,
            "/",
            None::<&str>,
            nix::mount::MsFlags::MS_SLAVE | nix::mount::MsFlags::MS_REC,
            None::<&str>,
        )
        .unwrap();
        std::fs::create_dir_all(&request.dir).unwrap();
        std::fs::create_dir_all(&request.mountpoint).unwrap();
        prepare(&request).map(|root| look(&root))
    });
    Some(thread.join().unwrap())
}

fn request(dir: &Path, brand: &str, image: ContainerImage) -> RootfsRequest {
    RootfsRequest {
        options: LinuxOptions::new(dir.join("run"), dir.join("state"), "/proc/self/exe"),
        brand: Brand::new(brand).unwrap(),
        image,
        dir: dir.join("container"),
        mountpoint: dir.join("rootfs"),
        users: None,
        cloned: None,
    }
}

fn run_in(root: &Path, script: &str) -> String {
    // A test's own shell, in the root under test.
    #[allow(clippy::disallowed_methods)]
    let out =
        std::process::Command::new("/usr/sbin/chroot").arg(root).args(["/bin/sh", "-c", script]).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn sparse_runs_the_hosts_programs_on_private_files() {
    let dir = tempfile::tempdir().unwrap();
    let request = request(dir.path(), "sparse", ContainerImage::Brand);
    let container = request.dir.clone();
    let begun = std::time::Instant::now();
    let seen = with_root(request, move |root| {
        eprintln!("sparse root: {:?}", begun.elapsed());
        BTreeMap::from([
            ("write /usr", run_in(root, "touch /usr/x")),
            ("write /usr/local", run_in(root, "touch /usr/local/x")),
            (
                "write",
                run_in(root, "echo hi > /etc/mine && echo hi > /var/lib/mine && echo hi > /tmp/mine && cat /tmp/mine"),
            ),
            ("secrets", run_in(root, "ls -A /root /home /etc/shadow /etc/ssl/private /etc/ssh")),
            ("resolve", run_in(root, "id -un; ls /etc/alternatives | head -n 1 | wc -l; ls -d /etc/ssl/certs")),
            ("certs", run_in(root, "touch /etc/ssl/certs/x")),
        ])
    });
    let Some(seen) = seen else { return };
    let seen = seen.unwrap();
    assert!(seen["write /usr"].contains("Read-only file system"), "{seen:?}");
    assert!(seen["write /usr/local"].contains("Read-only file system"), "{seen:?}");
    assert_eq!(seen["write"], "hi\n", "{seen:?}");
    assert!(seen["secrets"].contains("/home:\n\n/root:\n"), "{seen:?}");
    for hidden in ["/etc/shadow", "/etc/ssl/private", "/etc/ssh"] {
        assert!(seen["secrets"].contains(&format!("cannot access '{hidden}'")), "{seen:?}");
    }
    assert!(seen["resolve"].starts_with("root\n1\n"), "{seen:?}");
    assert!(seen["certs"].contains("Read-only file system"), "{seen:?}");
    // The mounts went with the thread's namespace; the writable part stays until it is released.
    assert_eq!(std::fs::read_to_string(container.join("root/etc/mine")).unwrap(), "hi\n");
    assert!(matches!(release(&container).unwrap(), Change::Changed(_)));
    assert!(!container.exists());
    assert_eq!(release(&container).unwrap(), Change::Unchanged);
    assert!(!Path::new("/usr/x").exists() && !Path::new("/etc/mine").exists());
}

#[test]
fn an_interrupted_preparation_starts_over() {
    let dir = tempfile::tempdir().unwrap();
    let request = request(dir.path(), "sparse", ContainerImage::Brand);
    std::fs::create_dir_all(request.dir.join("root.new/etc")).unwrap();
    for _ in 0..2 {
        let Some(seen) = with_root(request.clone(), |root| run_in(root, "cat /etc/passwd")) else { return };
        assert!(seen.unwrap().starts_with("root:x:0:0:"));
    }
}

#[test]
fn what_can_not_be_made_is_said_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let options = LinuxOptions::new(dir.path().join("run"), dir.path().join("state"), "/proc/self/exe");
    let kind = |brand: &str, image| check(&options, &Brand::new(brand).unwrap(), &image).unwrap_err().kind;
    assert_eq!(kind("oci", ContainerImage::Brand), HostErrorKind::InvalidSpec);
    assert_eq!(kind("lx", ContainerImage::Brand), HostErrorKind::InvalidSpec);
    let id = ImageId::new(format!("sha256:{}", "0".repeat(64))).unwrap();
    assert_eq!(kind("oci", ContainerImage::Image { id }), HostErrorKind::NotFound);
}
