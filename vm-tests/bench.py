#!/usr/bin/env python3
"""Prints the figures that docs/performance.md quotes, measured on this machine with the release binaries.

    sudo vm-tests/bench.py --apply [--pods 100]     100 pods from one `kubectl apply` to all Ready, nothing else
    sudo vm-tests/bench.py [--pods 100] [--starts 60] [--podman] [--target target/release]

Runs in directories and a network namespace of its own; with --podman it also times `podman kube play` of such a pod in
the same run (bench-podman.sh says what to install for it).
"""

import argparse
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

POD = """apiVersion: v1
kind: Pod
metadata:
  name: {name}
  annotations: {{reddwarf.io/zone-brand: sparse}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      command: [sh, -c, "date +%s%N > /out/{name}; exec sleep 100000"]
      volumeMounts: [{{name: out, mountPath: /out}}]
  volumes: [{{name: out, hostPath: {{path: {out}}}}}]
"""


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self.path)


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def row(what, value, budget=""):
    print(f"{what:<58} {value:>16}   {budget}", flush=True)


class World:
    def __init__(self, target, extra=()):
        self.extra = list(extra)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="reddwarf-bench."))
        self.target = target
        self.netns = self.dir.name.replace(".", "")
        for sub in ("manifests", "out"):
            (self.dir / sub).mkdir()
        subprocess.run(["ip", "netns", "add", self.netns], check=True)
        subprocess.run(["ip", "-n", self.netns, "link", "set", "lo", "up"], check=True)
        # A host has an address: without one the daemon looks for it at every heartbeat.
        for arguments in (
            "link add uplink0 type veth peer name far0", "address add 192.0.2.1/24 dev uplink0",
            "link set uplink0 up", "link set far0 up", "route add default via 192.0.2.2",
        ):
            subprocess.run(["ip", "-n", self.netns, *arguments.split()], check=True)
        self.socket = str(self.dir / "run/reddwarf.sock")
        self.daemon = None

    def start(self, *more):
        began = time.monotonic()
        log = open(self.dir / "log", "a")
        self.daemon = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.netns}", "--", str(self.target / "reddwarfd"),
             "--manifests", str(self.dir / "manifests"), "--state", str(self.dir / "state"), "--run", str(self.dir / "run"),
             "--pod-cidr", "10.97.0.0/16", "--bridge", "rdbench0", "--node-name", "bench", "--max-pods", "2000",
             "--host-path-allow", str(self.dir / "out"), *self.extra, *more],
            stdout=log, stderr=log)
        while True:
            try:
                status, _ = self.get("/readyz")
                if status == 200:
                    return time.monotonic() - began
            except OSError:
                pass
            if self.daemon.poll() is not None:
                sys.exit("reddwarfd ended:\n" + (self.dir / "log").read_text()[-3000:])
            time.sleep(0.002)

    def get(self, path):
        connection = Unix(self.socket)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body

    def pods(self):
        return json.loads(self.get("/api/v1/pods")[1])["items"]

    def wait_running(self, count, limit=300):
        until = time.monotonic() + limit
        while time.monotonic() < until:
            running = [p for p in self.pods() if p.get("status", {}).get("phase") == "Running"]
            if len(running) >= count:
                return
            time.sleep(0.05)
        sys.exit("pods did not start:\n" + (self.dir / "log").read_text()[-3000:])

    def file(self, name):
        temporary = self.dir / "next.yaml"
        temporary.write_text(POD.format(name=name, out=self.dir / "out"))
        began = time.time_ns()
        os.rename(temporary, self.dir / "manifests" / f"{name}.yaml")
        return began

    def end(self):
        if self.daemon and self.daemon.poll() is None:
            subprocess.run([str(self.target / "reddwarfctl"), "--socket", self.socket, "shutdown", "--stop-pods"],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                self.daemon.wait(60)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        subprocess.run(["ip", "netns", "del", self.netns])
        # What a stopped daemon keeps for the next one: its private mounts and the root of its cgroups.
        instance = subprocess.run([str(self.target / "reddwarfd"), "__instance", str(self.dir / "run")],
                                  capture_output=True, text=True).stdout.strip()
        with open("/proc/self/mounts") as mounts:
            below = [line.split()[1] for line in mounts if line.split()[1].startswith(f"{self.dir}/")]
        for mount in reversed(below):
            subprocess.run(["umount", "-l", mount])
        for root in pathlib.Path("/sys/fs/cgroup").glob(f"**/{instance}") if instance else []:
            for group in sorted((g for g in root.rglob("*") if g.is_dir()), reverse=True):
                group.rmdir()
            root.rmdir()
        shutil.rmtree(self.dir, ignore_errors=True)


def private_kib(pid):
    total = 0
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1])
    return total


def rss_mib(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def switches(pid):
    """Voluntary context switches of every thread: how often it went to sleep, and so was woken."""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        text = (task / "status").read_text()
        found[task.name] = int(re.search(r"\nvoluntary_ctxt_switches:\s+(\d+)", text)[1])
    return found


def starts(world, prefix, count):
    """Milliseconds from a file's rename to its process running and to the first thing done for it, one pod after the other."""
    running, planned = [], []
    for i in range(count):
        name = f"{prefix}{i}"
        began = world.file(name)
        out = world.dir / "out" / name
        until = time.monotonic() + 20
        while not (out.exists() and out.read_text().strip()):
            if time.monotonic() > until:
                sys.exit("a pod did not start:\n" + (world.dir / "log").read_text()[-3000:])
            time.sleep(0.001)
        running.append((int(out.read_text()) - began) / 1e6)
        marks = [f.stat().st_mtime_ns for f in world.dir.glob(f"run/sandboxes/*{name}-*/*") if f.is_file()]
        if marks:
            planned.append((min(marks) - began) / 1e6)
        os.remove(world.dir / "manifests" / f"{name}.yaml")
        while any(p["metadata"]["name"] == name for p in world.pods()):
            time.sleep(0.01)
    return running, planned


def execs(world, pod, count):
    """Milliseconds that a command in a running pod takes, from the client's start to its end."""
    took = []
    for _ in range(count):
        began = time.monotonic()
        subprocess.run([str(world.target / "reddwarfctl"), "--socket", world.socket, "exec", pod, "--", "true"], check=True)
        took.append((time.monotonic() - began) * 1000)
    return took


def podman(runs):
    """Milliseconds from `podman kube play` to its process running, one a run."""
    script = pathlib.Path(__file__).with_name("bench-podman.sh")
    out = subprocess.run([str(script), str(runs)], check=True, stdout=subprocess.PIPE, text=True).stdout
    return [float(line.split()[0]) for line in out.splitlines()]


APPLIED = """apiVersion: v1
kind: Pod
metadata: {{name: a{number}, labels: {{app: bench}}, annotations: {{reddwarf.io/zone-brand: sparse}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{{name: main, command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"]}}]
"""


def ready_since(pod):
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def apply(world, options):
    """All pods in one command, by kubectl where there is one, else by reddwarfctl."""
    world.start("--listen", "127.0.0.1:6443")
    world.file("anchor")
    world.wait_running(1)
    manifest = world.dir / "all.yaml"
    manifest.write_text("---\n".join(APPLIED.format(number=number) for number in range(options.pods)))
    kubectl = shutil.which("kubectl-1.36") or shutil.which("kubectl")
    inside = ["nsenter", f"--net=/run/netns/{world.netns}", "--"]
    if kubectl:
        command = inside + [kubectl, "--kubeconfig", str(world.dir / "state/admin.kubeconfig"), "apply", "-f", str(manifest)]
    else:
        command = [str(world.target / "reddwarfctl"), "--socket", world.socket, "apply", "-f", str(manifest)]
    environment = {**os.environ, "HOME": str(world.dir)}
    load, cpu, began = os.getloadavg()[0], cpu_seconds(world.daemon.pid), time.monotonic()
    client = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    applied = None
    while True:
        if applied is None and client.poll() is not None:
            applied = time.monotonic() - began
            if client.returncode:
                sys.exit(f"{' '.join(command)} ended with {client.returncode}")
        if sum(map(ready_since, world.pods())) >= options.pods + 1:
            break
        if time.monotonic() - began > 300:
            sys.exit("pods are not ready:\n" + (world.dir / "log").read_text()[-3000:])
        time.sleep(0.05)
    took = time.monotonic() - began
    used = cpu_seconds(world.daemon.pid) - cpu
    what = "kubectl" if kubectl else "reddwarfctl"
    row(f"{options.pods} pods from one `{what} apply` to all Ready", f"{took:.1f} s", "15 s")
    row(f"  {what} itself was done after", f"{applied or took:.1f} s")
    row("  CPU of the daemon", f"{used:.1f} s", f"load before {load:.1f}, after {os.getloadavg()[0]:.1f}")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--pods", type=int, default=100)
    arguments.add_argument("--starts", type=int, default=60)
    arguments.add_argument("--idle-seconds", type=int, default=60)
    arguments.add_argument("--apply", action="store_true")
    arguments.add_argument("--podman", action="store_true")
    arguments.add_argument("--podman-runs", type=int, default=15)
    arguments.add_argument("--logs", action="store_true", help="only what reading and following logs costs")
    arguments.add_argument("--target", default="target/release")
    options = arguments.parse_args()
    # All that is written is kept, so that a slow reader shows as slow and not as one that missed something.
    world = World(pathlib.Path(options.target).resolve(), ["--log-max-bytes", str(64 << 20), "--log-max-files", "20"] if options.logs else [])
    try:
        (logs if options.logs else apply if options.apply else measure)(world, options)
    finally:
        world.end()


FLOOD = """apiVersion: v1
kind: Pod
metadata:
  name: flood
  annotations: {{reddwarf.io/zone-brand: sparse}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      command: [sh, -c, "while [ ! -e /out/go ]; do sleep 0.01; done; yes $(printf %099d 7) | head -c {size}; exec sleep 100000"]
      volumeMounts: [{{name: out, mountPath: /out}}]
  volumes: [{{name: out, hostPath: {{path: {out}}}}}]
"""


def read_log(world, query, size, started=lambda: None):
    """Seconds until `size` bytes of the pod's own text have come, from `started` on, and the daemon's CPU seconds."""
    connection = Unix(world.socket)
    connection.request("GET", f"/api/v1/namespaces/default/pods/flood/log?{query}")
    answer = connection.getresponse()
    cpu = cpu_seconds(world.daemon.pid)
    started()
    began, read = time.monotonic(), 0
    while read < size:
        piece = answer.read1(1 << 20)
        if not piece:
            sys.exit(f"the log ended after {read} of {size} bytes")
        read += len(piece)
    took = time.monotonic() - began
    connection.close()
    return took, cpu_seconds(world.daemon.pid) - cpu


def logs(world, _):
    size = 500_000_000
    world.start()
    (world.dir / "manifests" / "flood.yaml").write_text(FLOOD.format(size=size, out=world.dir / "out"))
    world.wait_running(1)
    took, cpu = read_log(world, "follow=true", size, lambda: (world.dir / "out" / "go").touch())
    row("following a container that writes as fast as it can", f"{size / took / 1e6:.0f} MB/s", f"50 MB/s; daemon CPU {cpu:.1f} s")
    took, cpu = read_log(world, "", size)
    row("reading a log of 500 MB in 20 files", f"{size / took / 1e6:.0f} MB/s", f"daemon CPU {cpu:.1f} s")
    began = time.monotonic()
    for _ in range(20):
        status, body = world.get("/api/v1/namespaces/default/pods/flood/log?tailLines=100")
        assert status == 200 and len(body) == 10_000, (status, len(body))
    row("the last 100 lines of it", f"{(time.monotonic() - began) / 20 * 1000:.1f} ms")


def measure(world, options):
    for name in ("reddwarfd", "reddwarf-shim", "reddwarfctl"):
        row(f"{name}: size", f"{(world.target / name).stat().st_size / 2**20:.1f} MiB", "30 MB / 8 MB")
    row("start on an empty state to ready", f"{world.start() * 1000:.0f} ms")
    time.sleep(3)
    row("RSS, no pods", f"{rss_mib(world.daemon.pid):.1f} MiB", "20 MB")

    # The last pod takes the pod network with it: one that stays keeps making it out of the figures.
    world.file("anchor")
    world.wait_running(1)
    starts(world, "w", 5)
    running, planned = starts(world, "s", options.starts)
    if planned:
        row("file rename -> plan started, p50 / p99", f"{quantile(planned, .5):.0f} / {quantile(planned, .99):.0f} ms", "p99 150 ms")
    row("file rename -> process running, p50 / p99", f"{quantile(running, .5):.0f} / {quantile(running, .99):.0f} ms", "150 ms / 1 s")
    commands = execs(world, "anchor", 40)
    row("reddwarfctl exec of `true`, p50 / p90", f"{quantile(commands, .5):.0f} / {quantile(commands, .9):.0f} ms", "60 ms")
    if options.podman:
        times = podman(options.podman_runs)
        row("podman kube play, p50", f"{statistics.median(times):.0f} ms")
        row("times faster than podman (p50)", f"{statistics.median(times) / quantile(running, .5):.1f}", "6")

    began = time.monotonic()
    cpu = cpu_seconds(world.daemon.pid)
    for i in range(options.pods):
        world.file(f"p{i}")
    world.wait_running(options.pods + 1)
    row(f"{options.pods} pods from files to Running", f"{time.monotonic() - began:.1f} s", f"daemon CPU {cpu_seconds(world.daemon.pid) - cpu:.2f} s")
    time.sleep(25)  # idle: the burst of the starts is over, and its heap given back
    row(f"RSS, {options.pods} pods", f"{rss_mib(world.daemon.pid):.1f} MiB", "30 MB")
    pids = [int(p) for p in subprocess.run(["pgrep", "-f", f"__shim {world.dir}"], capture_output=True, text=True).stdout.split()]
    shims = [private_kib(p) for p in pids]
    if shims:
        row(f"private memory of a shim, median / max of {len(shims)}", f"{statistics.median(shims):.0f} / {max(shims)} KiB", "1 MB")
    # What was too new to be believed when it was read is read once more by the first full pass, a minute after the starts at most.
    time.sleep(45)
    cpu, woken = cpu_seconds(world.daemon.pid), switches(world.daemon.pid)
    resident = []
    until = time.monotonic() + options.idle_seconds
    while time.monotonic() < until:
        time.sleep(1)
        resident.append(rss_mib(world.daemon.pid))
    row(f"idle CPU with {options.pods} pods", f"{(cpu_seconds(world.daemon.pid) - cpu) / options.idle_seconds * 100:.3f} %", "0.1 %")
    # A full pass, once a minute, brings code back that is handed back soon after.
    row(f"RSS, {options.pods} pods, median / most of {options.idle_seconds} s", f"{statistics.median(resident):.1f} / {max(resident):.1f} MiB", "30 MB")
    # Threads that ended in between are left out.
    woken = sum(count - woken.get(task, 0) for task, count in switches(world.daemon.pid).items())
    row("idle wake-ups", f"{woken / options.idle_seconds:.1f} /s", "2 /s")

    before = {p["metadata"]["name"]: p["status"]["containerStatuses"][0]["containerID"] for p in world.pods()}
    world.daemon.send_signal(signal.SIGKILL)
    world.daemon.wait()
    row(f"restart with {options.pods} pods: API ready", f"{world.start() * 1000:.0f} ms", "1 s")
    time.sleep(5)
    after = {p["metadata"]["name"]: p["status"]["containerStatuses"][0]["containerID"] for p in world.pods()}
    row("pods touched by the restart", str(sum(before[n] != after.get(n) for n in before)), "0")


if __name__ == "__main__":
    main()
