//! Kubernetes clients against a live daemon: worlds that are ready for them, and Python's client.

use crate::harness::{World, run, skip};
use std::path::{Path, PathBuf};

/// Programs of the image, all of them busybox.
const APPLETS: [&str; 13] =
    ["cat", "echo", "env", "httpd", "id", "ls", "mkdir", "ps", "sh", "sleep", "tar", "test", "true"];

/// A world whose API is open on 127.0.0.1:6443 and which has busybox as an image, by the name that everyone uses.
pub fn prepared(name: &str) -> World {
    let mut world = World::new(name).arg("--listen").arg("127.0.0.1:6443");
    world.start();
    let image = world.dir.join("busybox");
    for dir in ["bin", "tmp"] {
        std::fs::create_dir_all(image.join(dir)).unwrap();
    }
    let host = run("sh", &["-c", "command -v busybox"]).ok();
    std::fs::copy(host.trim(), image.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", image.join("bin").join(applet)).unwrap();
    }
    world.ctl(&["image", "import", image.to_str().unwrap(), "--name", "docker.io/library/busybox:latest"]).ok();
    world
}

/// The kubeconfig that the daemon wrote.
pub fn kubeconfig(world: &World) -> PathBuf {
    world.dir.join("state/admin.kubeconfig")
}

/// The interpreter that has the distribution's packages.
const PYTHON: &str = "/usr/bin/python3";

#[test]
fn pythons_client_notices_no_difference() {
    if skip() {
        return;
    }
    if run(PYTHON, &["-c", "import kubernetes, websocket"]).code != 0 {
        assert!(std::env::var_os("CI").is_none(), "python3-kubernetes is not installed: .ci/setup does");
        return eprintln!("SKIPPED: python3-kubernetes is not installed (.ci/setup does)");
    }
    let world = prepared("python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clients/client.py");
    let out = world.inside("timeout").args(["120", PYTHON]).arg(script).arg(kubeconfig(&world)).output().unwrap();
    assert!(out.status.success(), "{}\n{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}
