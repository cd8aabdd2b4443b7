"""The machine's root file system, kernel and ZFS module: made from Debian's packages, kept below /var/cache/reddwarf-ci.

A kept directory is named after a digest of what makes it; it may be deleted at any time. Nothing of it is installed here.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("REDDWARF_CI_CACHE", "/var/cache/reddwarf-ci"))
SUDO = [] if os.geteuid() == 0 else ["sudo"]
SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
# What tests call, as on a server; python3 comes with zfsutils-linux.
PACKAGES = [
    "btrfs-progs", "busybox-static", "crun", "curl", "iproute2", "iputils-ping", "kmod", "nftables", "openssl", "procps",
    "zfsutils-linux", "zstd",
]
COMPILER = ["gcc-14", "libc6-dev", "libelf1t64", "make", "file"]
DISK = "6G"
# Where the disk with the tests is mounted.
IN_MACHINE = "/job"


def say(text):
    print(f"vm: {text}", flush=True)


def run(*command, **options):
    subprocess.run(command, check=True, **options)


def install_tools():
    """What this machine needs: an emulator, of backports where the release's own is old, and mmdebstrap."""
    wanted = {"qemu-system-x86": "qemu-system-x86_64", "mmdebstrap": "mmdebstrap", "e2fsprogs": "mke2fs", "binutils": "strip"}
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    os.environ["PATH"] = path
    missing = [package for package, program in wanted.items() if not shutil.which(program)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        sys.exit(f"vm: install {', '.join(missing)} with your distribution's tools")
    say(f"installing {' '.join(missing)}")
    codename = subprocess.run(["sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME"], capture_output=True, text=True)
    release = ["-t", "bookworm-backports"] if codename.stdout.strip() == "bookworm" else []
    with tempfile.TemporaryDirectory() as lists:
        options = []
        if release:
            # Package lists of our own: the system's sources stay as they are.
            pathlib.Path(lists, "lists/partial").mkdir(parents=True)
            sources = pathlib.Path(lists, "sources.list")
            keys = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
            suites = ["bookworm", "bookworm-updates", "bookworm-backports"]
            sources.write_text("".join(f"deb {keys} {MIRROR} {suite} main\n" for suite in suites))
            places = {"Etc::SourceList": sources, "Etc::SourceParts": "/dev/null", "State::Lists": f"{lists}/lists"}
            options = [word for name, place in places.items() for word in ("-o", f"Dir::{name}={place}")]
            options += ["-o", "APT::Sandbox::User=root"]
        run(*SUDO, "apt-get", "-qq", *options, "update")
        command = ["apt-get", "-qq", "-y", "--no-install-recommends", *options, *release, "install", *missing]
        run(*SUDO, "env", "DEBIAN_FRONTEND=noninteractive", *command, stdout=subprocess.DEVNULL)


def kept(name, ingredients, make):
    """The directory in the cache that `make(directory)` fills, made when it is not there."""
    text = "\0".join(item.read_text() if isinstance(item, pathlib.Path) else item for item in ingredients)
    place = CACHE / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    run(*SUDO, "mkdir", "-p", CACHE)
    with locked(), tempfile.TemporaryDirectory(prefix="reddwarf-vm-") as scratch:
        if place.exists():
            return place
        say(f"making {place}")
        made = pathlib.Path(scratch, "made")
        made.mkdir()
        try:
            make(pathlib.Path(scratch, "tree"), made)
            # Earlier ones are of no more use.
            for old in CACHE.glob(f"{name}-*"):
                run(*SUDO, "rm", "-rf", old)
            run(*SUDO, "cp", "-r", "--sparse=always", made, f"{place}.new")
            run(*SUDO, "mv", f"{place}.new", place)
        finally:
            run(*SUDO, "rm", "-rf", pathlib.Path(scratch, "tree"))
    return place


@contextlib.contextmanager
def locked():
    """One of us at a time makes what is kept."""
    directory = os.open(CACHE, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def debootstrap(tree, packages, *options):
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--components=main,contrib", *options]
    run(*SUDO, *command, f"--include={','.join(packages)}", SUITE, tree, MIRROR)


def base():
    """`root.img`, `vmlinuz`, `version`, and in `packages` what a kernel module is built with."""
    hook = HERE / "kernel.sh"

    def make(tree, made):
        debootstrap(tree, PACKAGES, f"--customize-hook={hook} \"$1\" {made}")
        say("making the disk")
        run(*SUDO, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", tree, made / "root.img", DISK)

    return kept("vm-base", [hook, SUITE, DISK, *PACKAGES], make)


def zfs_module():
    """`zfs.ko` and `spl.ko` for the kernel of [`base`], of the same version as its tools."""
    of = base()
    build = HERE / "zfs-module.sh"

    def make(tree, made):
        debootstrap(tree, COMPILER)
        say("building OpenZFS's module: ten minutes and more")
        run(*SUDO, "nice", build, tree, of / "packages", made)

    packages = sorted(package.name for package in (of / "packages").iterdir())
    return kept("vm-zfs", [build, *packages, *COMPILER], make)
