#!/usr/bin/env python3
"""Tests that want another kernel than this machine's, in a small emulated one: docs/vm-tests.md.

  vm-tests/vm.py cgroup2            limits, out of memory, resizing, figures on a machine with cgroup v2 only
  vm-tests/vm.py host FILTER ...    of these the Linux host's tests, by parts of their names
  vm-tests/vm.py whole FILTER ...   of these the whole daemon's
  vm-tests/vm.py zfs                the storage engines' suite and pods' roots on OpenZFS
  vm-tests/vm.py image              only what is kept in the cache is made

Programs are built as who calls; the machine's disk is made as root (sudo). Exits with 1 when a test fails.
"""

import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

from machine import boot, image

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
# Emulation takes some forty times as long as this machine would; what tests wait for gets so many times its time.
PATIENCE = 20

# Tests of the Linux host, then of the whole daemon, by parts of their names.
HOST_TESTS = ["limits::", "ends::", "unified::", "contract::the_contract_holds", "survival::", "lifecycle::", "runtimes::crun"]
# The contract suite runs on cgroup v2 there anyway, and storage is none of its matter.
HOST_TESTS += ["--skip", "holds_on_cgroup_v2", "--skip", "holds_with_roots"]
WHOLE_TESTS = ["resources::", "usage::top", "usage::pressure", "ends::delays"]
ROOTS_TESTS = ["roots::"]


def built(*selection):
    """Programs that `cargo` builds for a selection of packages and targets: name of the target → path."""
    command = ["cargo", *selection, "--locked", "--message-format=json-render-diagnostics"]
    said = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True).stdout
    artifacts = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    found = {}
    for artifact in artifacts:
        if artifact.get("executable"):
            # A package's own tests and the programs that they start have different names here.
            found[artifact["target"]["name"]] = pathlib.Path(artifact["executable"])
    return found


def test_run(program, directory, filters, threads=1, limit=2400):
    """A line of shell that runs a test program where cargo would."""
    place = shlex.quote(str(REPOSITORY / directory))
    words = ["timeout", str(limit), str(program), "--color", "never", "--test-threads", str(threads), *filters]
    return f"(mkdir -p {place} && cd {place} && {shlex.join(words)}) || failed=1"


def script(*lines, environment=()):
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment]
    return "\n".join(["set -o pipefail; failed=0", f"export REDDWARF_TEST_PATIENCE={PATIENCE}", *exports, *lines, "exit $failed", ""])


def tracked(*paths):
    """Files that tests read, as far as they are under version control."""
    listed = subprocess.run(["git", "ls-files", "-z", *paths], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    return [REPOSITORY / name for name in listed.stdout.split("\0") if name]


def host_tests(filters):
    programs = built("test", "-p", "reddwarf-linux", "--test", "host", "--no-run")
    return list(programs.values()), test_run(programs["host"], "daemon/linux", filters, threads=2)


def whole_tests(filters):
    programs = built("test", "-p", "reddwarfd", "--test", "e2e", "--no-run")
    programs |= built("build", "-p", "reddwarfd", "-p", "reddwarfctl")
    return list(programs.values()), test_run(programs["e2e"], "daemon", filters)


def on_cgroup2(*parts):
    programs = [program for own, _ in parts for program in own]
    text = script(*(line for _, line in parts))
    return boot.run(image.base(), text, programs, tracked("daemon/node/tests/statuses", "examples"), limit=4800)


def cgroup2(_):
    return on_cgroup2(host_tests(HOST_TESTS), whole_tests(WHOLE_TESTS))


def host(filters):
    return on_cgroup2(host_tests(filters))


def whole(filters):
    return on_cgroup2(whole_tests(filters))


def zfs(_):
    modules = image.zfs_module()
    suite = built("test", "-p", "reddwarf-storage", "--test", "contract", "--no-run")
    bench = built("build", "-p", "reddwarf-storage", "--example", "storage_bench")
    host_programs, roots = host_tests(ROOTS_TESTS)
    slow = "2>&1 | sed 's/ (budget .*/, emulated: some forty times slower than the machine it runs on/'"
    lines = [
        f"insmod {image.IN_MACHINE}/spl.ko && insmod {image.IN_MACHINE}/zfs.ko && zfs version || exit 1",
        test_run(suite["contract"], "daemon/storage", ["zfs"]),
        roots,
        "truncate -s 3G /bench && zpool create -m /benchpool bench /bench",
        f"timeout 900 {bench['storage_bench']} bench/reddwarf 1024 {slow} || failed=1",
        "zfs create bench/bare && zfs snapshot bench/bare@golden && echo 'bare zfs clone, ten times:'",
        "time for n in 0 1 2 3 4 5 6 7 8 9; do zfs clone bench/bare@golden bench/c$n; done",
    ]
    text = script(*lines, environment=[("REDDWARF_TEST_ZFS", "kernel")])
    return boot.run(image.base(), text, [*suite.values(), *bench.values(), *host_programs], [], limit=4800, modules=modules)


def only_image(_):
    image.zfs_module()
    return 0


def main():
    commands = {"cgroup2": cgroup2, "host": host, "whole": whole, "zfs": zfs, "image": only_image}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    tempfile.tempdir = os.environ.get("TMPDIR", "/var/tmp")
    image.install_tools()
    sys.exit(commands[sys.argv[1]](sys.argv[2:]))


if __name__ == "__main__":
    main()
