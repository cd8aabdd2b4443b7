"""Boots the machine with a disk of programs, runs a script in it, gives its exit code."""

import pathlib
import re
import subprocess
import tempfile
import threading

from .image import HERE, SUDO, run as must, say

MEMORY = "3G"
EXIT = re.compile(r"@@EXIT (\d+)")


def disk(directory, script, programs, files, modules):
    """The second disk: what init.sh copies to the same places as here, the script, kernel modules."""
    job = directory / "job"
    root = job / "root"
    for program in programs:
        place = root / program.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        must("strip", "-o", place, program)
    for file in files:
        place = root / file.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        must("cp", "-a", file, place)
    (job / "init").write_text((HERE / "init.sh").read_text())
    (job / "run").write_text(script)
    for module in modules.glob("*.ko") if modules else ():
        must("cp", module, job)
    # Directories that are there already keep their rights.
    must("chmod", "-R", "go-w,a+rX", job)
    must(*SUDO, "chown", "-R", "0:0", job)
    try:
        must(*SUDO, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", job, directory / "job.img", "2G")
    finally:
        must(*SUDO, "rm", "-rf", job)
    return directory / "job.img"


def command(base, job, kernel_log):
    # The drivers of the first disk and of ext4 are built in: no initramfs. The second disk says what is to be done.
    start = "mount -t devtmpfs devtmpfs /dev; modprobe virtio_blk; mkdir -p /job; mount -t ext4 /dev/vda /job && exec sh /job/init"
    append = f'root=/dev/nvme0n1 rw console=ttyS0 loglevel=5 panic=-1 net.ifnames=0 mitigations=off init=/bin/sh -- -c "{start}"'
    drive = "if=none,format=raw,snapshot=on,cache=unsafe"
    return [
        "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2", "-m", MEMORY,
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-kernel", base / "vmlinuz", "-append", append, "-serial", f"file:{kernel_log}",
        "-drive", f"id=root,file={base / 'root.img'},{drive}", "-drive", f"id=job,file={job},{drive}",
        "-device", "nvme,drive=root,serial=root", "-device", "virtio-blk-pci,drive=job",
        "-device", "virtio-serial-pci", "-chardev", "stdio,id=console,signal=off", "-device", "virtconsole,chardev=console",
    ]  # fmt: skip


def run(base, script, programs, files, limit, modules=None):
    """The exit code of `script` in the machine: 1 as well when it does not come to its end within `limit` seconds."""
    code = 1
    with tempfile.TemporaryDirectory(prefix="reddwarf-vm-") as name:
        directory = pathlib.Path(name)
        kernel_log = directory / "kernel.log"
        job = disk(directory, script, programs, files, modules)
        say(f"booting Linux {(base / 'version').read_text().strip()}")
        machine = subprocess.Popen(
            list(map(str, command(base, job, kernel_log))), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
        )
        alarm = threading.Timer(limit, machine.kill)
        alarm.start()
        results = []
        try:
            for line in machine.stdout:
                if found := EXIT.search(line):
                    code = int(found[1])
                    break
                print(line.rstrip("\r\n"), flush=True)
                if line.startswith("test result:") or "FAILED" in line:
                    results.append(line.strip())
            else:
                say(f"the machine ended or was ended after {limit} s; its kernel said last:")
                print("\n".join(kernel_log.read_text(errors="replace").splitlines()[-40:]))
        finally:
            alarm.cancel()
            machine.kill()
            machine.wait()
        say(f"{'passed' if code == 0 else 'FAILED'}: " + "; ".join(results))
    return code
