#!/usr/bin/env python3
"""Figures of services, in a network namespace of its own: throughput through a cluster IP beside pod to pod, and the time from a
pod's change to packets that go elsewhere. Needs root and built programs: vm-tests/bench-services.py [DIRECTORY OF PROGRAMS]"""
import json, os, shutil, subprocess, sys, tempfile, time

PROGRAMS = sys.argv[1] if len(sys.argv) > 1 else "target/debug"
NETNS = f"rdbench{os.getpid()}"
WORK = tempfile.mkdtemp(prefix=NETNS)
SERVER = """
import socket, threading
def serve(c):
    with c:
        n = 0
        while True:
            d = c.recv(1 << 20)
            if not d: return
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("", 8080)); s.listen(64)
while True:
    c, _ = s.accept(); threading.Thread(target=serve, args=(c,), daemon=True).start()
"""
CLIENT = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); data = b"x" * (1 << 20); n = 0; end = time.time() + 2
while time.time() < end: s.sendall(data); n += 1
print(n / 2)
"""


def ctl(*args):
    done = subprocess.run([f"{PROGRAMS}/reddwarfctl", "--socket", f"{WORK}/run/reddwarf.sock", *args],
                          capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def wait(ask, what):
    for _ in range(1500):
        found = ask()
        if found:
            return found
        time.sleep(0.01)
    sys.exit(f"waited in vain for {what}\n{open(WORK + '/log').read()[-3000:]}")


def pod(name, labels, program):
    text = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels,
            "annotations": {"reddwarf.io/zone-brand": "sparse"}}, "spec": {"terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "command": ["python3", "-c", program]}]}}
    file(name, text)


def file(name, value):
    with open(f"{WORK}/{name}", "w") as f:
        json.dump(value, f)
    os.rename(f"{WORK}/{name}", f"{WORK}/manifests/{name}.json")


def address(name):
    def ask():
        found = ctl("get", "pod", name, "-o", "json")
        status = json.loads(found)["status"] if found else {}
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
        return status.get("podIP") if ready else None
    return wait(ask, f"pod {name}")


def throughput(host, port):
    return float(ctl("exec", "client", "--", "python3", "-c", CLIENT, host, str(port)) or 0)


def rules():
    return subprocess.run(["nsenter", f"--net=/run/netns/{NETNS}", "nft", "list", "ruleset"], capture_output=True,
                          text=True).stdout


def main():
    os.mkdir(f"{WORK}/manifests")
    subprocess.run(["ip", "netns", "add", NETNS], check=True)
    subprocess.run(["ip", "-n", NETNS, "link", "set", "lo", "up"], check=True)
    log = open(f"{WORK}/log", "w")
    daemon = subprocess.Popen(["nsenter", f"--net=/run/netns/{NETNS}", f"{PROGRAMS}/reddwarfd", "--manifests", f"{WORK}/manifests",
        "--state", f"{WORK}/state", "--run", f"{WORK}/run", "--pod-cidr", "10.99.0.0/24", "--bridge", "rdbench0",
        "--node-name", "bench"], stdout=log, stderr=log)
    try:
        wait(lambda: ctl("status"), "the daemon")
        pod("server", {"app": "web"}, SERVER)
        pod("client", {}, "import time; time.sleep(10000)")
        file("service", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
             "ports": [{"port": 80, "targetPort": 8080}]}})
        server = address("server"); address("client")
        web = wait(lambda: json.loads(ctl("get", "service", "web", "-o", "json") or "{}").get("spec", {}).get("clusterIP"), "service")
        wait(lambda: f"{web} . tcp . 80 : {server}" in rules(), "rules")
        pairs = [(throughput(server, 8080), throughput(web, 80)) for _ in range(3)]
        direct, through = (sorted(p[i] for p in pairs)[1] for i in (0, 1))
        print(f"throughput: pod to pod {direct:.0f} MiB/s, through the cluster IP {through:.0f} MiB/s: {100 * through / direct:.0f} %")
        times = []
        for _ in range(5):
            for labels, there in ({"app": "gone"}, False), ({"app": "web"}, True):
                began = time.time()
                pod("server", labels, SERVER)
                wait(lambda: (f"{web} . tcp . 80 : {server}" in rules()) == there, "the change")
                times.append((time.time() - began) * 1000)
        times.sort()
        print(f"a pod's change to packets moved: median {times[len(times) // 2]:.0f} ms, most {times[-1]:.0f} ms")
    finally:
        ctl("shutdown", "--stop-pods")
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
        subprocess.run(f"grep -o '{WORK}[^ ]*' /proc/self/mountinfo | sort -ru | xargs -r -n1 umount -l", shell=True)
        subprocess.run(["ip", "netns", "del", NETNS])
        shutil.rmtree(WORK, ignore_errors=True)


main()
