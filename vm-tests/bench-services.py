#!/usr/bin/env python3
"""Figures of services beside their budgets, in a network namespace of its own: throughput through a cluster IP, the time from a
pod's readiness to packets that go elsewhere, large tables, repairs after a flush. Needs root and built programs:
vm-tests/bench-services.py [DIRECTORY OF PROGRAMS]. Takes about a minute."""
import http.client, json, os, re, shutil, socket, subprocess, sys, tempfile, time

PROGRAMS = sys.argv[1] if len(sys.argv) > 1 else "target/debug"
NETNS = f"rdbench{os.getpid()}"
WORK = tempfile.mkdtemp(prefix=NETNS)
SERVICES, ENDPOINTS = 1000, 10
SERVER = """
import socket, sys, threading
def serve(c):
    with c:
        c.sendall(sys.argv[1].encode())
        while c.recv(1 << 20): pass
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("", 8080)); s.listen(512)
while True:
    c, _ = s.accept(); threading.Thread(target=serve, args=(c,), daemon=True).start()
"""
CLIENT = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); data = b"x" * (1 << 20); n = 0; end = time.time() + 2
while time.time() < end: s.sendall(data); n += 1
print(n / 2)
"""
# Who answers a new connection, and when: a line each.
KNOCKER = """
import socket, sys, time
while True:
    began = time.time()
    try:
        with socket.create_connection((sys.argv[1], 80), timeout=2) as s: who = s.recv(100).decode()
    except OSError as e: who = type(e).__name__
    print(began, time.time(), who, flush=True); time.sleep(0.002)
"""
MISSED = []


def figure(what, value, unit, budget, at_least=False):
    good = value >= budget if at_least else value <= budget
    if not good:
        MISSED.append(what)
    word = "at least" if at_least else "budget"
    print(f"{what}: {value:.0f} {unit} ({word} {budget} {unit}){'' if good else '  MISSED'}", flush=True)


def ctl(*args):
    done = subprocess.run([f"{PROGRAMS}/reddwarfctl", "--socket", f"{WORK}/run/reddwarf.sock", *args],
                          capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


class Api(http.client.HTTPConnection):
    """The daemon's API at its socket, one connection."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(f"{WORK}/run/reddwarf.sock")

    def ask(self, method, path, body=None, kind="application/json"):
        self.request(method, path, json.dumps(body) if body else None, {"Content-Type": kind})
        answer = self.getresponse()
        text = answer.read()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {answer.status} {text[:500]}")
        return json.loads(text)


def wait(ask, what, pause=0.005):
    until = time.time() + 30
    while time.time() < until:
        found = ask()
        if found:
            return found
        time.sleep(pause)
    sys.exit(f"waited in vain for {what}\n{open(WORK + '/log').read()[-3000:]}")


def pod(name, labels, command, gated=False):
    spec = {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "command": command}]}
    if gated:
        spec["readinessGates"] = [{"conditionType": "bench/ready"}]
    file(name, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels,
         "annotations": {"reddwarf.io/zone-brand": "sparse"}}, "spec": spec})


def file(name, value):
    with open(f"{WORK}/{name}", "w") as f:
        json.dump(value, f)
    os.rename(f"{WORK}/{name}", f"{WORK}/manifests/{name}.json")


def address(name, ready=True):
    def ask():
        found = ctl("get", "pod", name, "-o", "json")
        status = json.loads(found)["status"] if found else {}
        wanted = "Ready" if ready else "ContainersReady"
        there = any(c["type"] == wanted and c["status"] == "True" for c in status.get("conditions", []))
        return status.get("podIP") if there else None
    return wait(ask, f"pod {name}")


def throughput(host, port):
    return float(ctl("exec", "client", "--", "python3", "-c", CLIENT, host, str(port)) or 0)


def nft(*args):
    return subprocess.run(["nsenter", f"--net=/run/netns/{NETNS}", "nft", *args], capture_output=True, text=True).stdout


def elements(table, name):
    return nft("list", "map", "inet", table, name).count(" : ")


def applied():
    """Of each change of the table: when, and how many milliseconds the host took."""
    return [int(ms) for ms in re.findall(r"services applied.*?milliseconds=(\d+)", open(f"{WORK}/log").read())]


def readiness(api, web):
    """From the write that makes a pod (un)ready to the first, or last, connection that it gets."""
    gate = lambda ready: api.ask("PATCH", "/api/v1/namespaces/default/pods/gated/status", {"status": {"conditions": [
        {"type": "bench/ready", "status": "True" if ready else "False"}]}}, "application/strategic-merge-patch+json")
    gate(True)
    address("gated")
    log = open(f"{WORK}/knocks", "w+")
    knocker = subprocess.Popen(["nsenter", f"--net=/run/netns/{NETNS}", "python3", "-c", KNOCKER, web], stdout=log)
    times = []
    try:
        time.sleep(1)
        for _ in range(10):
            for ready in False, True:
                began = time.time()
                gate(ready)
                time.sleep(1)
                knocks = [line.split() for line in open(log.name).read().splitlines() if line.count(" ") == 2]
                since = [(float(a), float(b), who) for a, b, who in knocks if float(b) > began]
                failed = [who for _, _, who in since if who not in ("gated", "server")]
                if failed:
                    sys.exit(f"connections failed: {failed[:3]}")
                gated = [b for _, b, who in since if who == "gated"]
                moved = (min(gated) if ready else max(gated, default=began)) - began
                times.append(moved * 1000)
    finally:
        knocker.kill()
        knocker.wait()
    times.sort()
    print(f"readiness changed to packets moved: median {times[len(times) // 2]:.0f} ms")
    figure("readiness changed to packets moved, at worst", times[-1], "ms", 500)


def large(api, table):
    """Services with endpoints that people write: nothing but the table is at work."""
    base = "/api/v1/namespaces/default/services"
    slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"

    def endpoint_slice(n, first):
        ends = [{"addresses": [f"10.{100 + (n * ENDPOINTS + e) // 65536}.{(n * ENDPOINTS + e) // 256 % 256}.{(n * ENDPOINTS + e) % 256}"]}
                for e in range(first, first + ENDPOINTS)]
        return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": f"s{n}",
                "labels": {"kubernetes.io/service-name": f"s{n}"}}, "addressType": "IPv4",
                "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": ends}

    for n in range(SERVICES):
        made = api.ask("POST", base, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"s{n}"},
                       "spec": {"ports": [{"port": 80, "targetPort": 8080}]}})
        api.ask("POST", slices, endpoint_slice(n, 0))
    last = made["spec"]["clusterIP"]
    there = lambda: elements(table, f"backends4_{ENDPOINTS - 1}") >= SERVICES
    wait(there, "all services")
    time.sleep(1)
    wholes, gaps = [], []
    for _ in range(5):
        before = len(applied())
        nft("flush", "ruleset")
        began = time.time()
        wait(there, "the table after a flush", 0.001)
        gaps.append((time.time() - began) * 1000)
        time.sleep(0.7)
        wholes += [int(ms) for ms in re.findall(r"others removed the rules of services: they are back.*?milliseconds=(\d+)", open(f"{WORK}/log").read())][-1:]
    figure(f"{SERVICES} services of {ENDPOINTS} endpoints applied", max(wholes, default=9999), "ms", 300)
    figure("a foreign flush of them noticed and repaired", max(gaps), "ms", 1000)
    smalls, seen = [], []
    for turn in range(10):
        before = len(applied())
        began = time.time()
        api.ask("PUT", f"{slices}/s{SERVICES - 1}", endpoint_slice(SERVICES - 1, turn % 2 + 1))
        wait(lambda: len(applied()) > before, "a change", 0.001)
        seen.append((time.time() - began) * 1000)
        smalls.append(applied()[-1])
        time.sleep(0.1)
    figure("one service's endpoints changed, in the host", max(smalls), "ms", 50)
    print(f"the same from the API's client on: median {sorted(seen)[len(seen) // 2]:.0f} ms, most {max(seen):.0f} ms (service at {last})")


def main():
    os.mkdir(f"{WORK}/manifests")
    subprocess.run(["ip", "netns", "add", NETNS], check=True)
    subprocess.run(["ip", "-n", NETNS, "link", "set", "lo", "up"], check=True)
    log = open(f"{WORK}/log", "w")
    daemon = subprocess.Popen(["nsenter", f"--net=/run/netns/{NETNS}", f"{PROGRAMS}/reddwarfd", "--manifests", f"{WORK}/manifests",
        "--state", f"{WORK}/state", "--run", f"{WORK}/run", "--pod-cidr", "10.99.0.0/24", "--bridge", "rdbench0",
        "--node-name", "bench"], stdout=log, stderr=log,
        env={**os.environ, "RUST_LOG": "info,reddwarf_node::services=debug", "NO_COLOR": "1"})
    try:
        wait(lambda: ctl("status"), "the daemon")
        python = lambda program, *args: ["python3", "-c", program, *args]
        pod("server", {"app": "web"}, python(SERVER, "server"))
        pod("client", {}, python("import time; time.sleep(10000)"))
        file("service", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
             "ports": [{"port": 80, "targetPort": 8080}]}})
        server = address("server"); address("client")
        web = wait(lambda: json.loads(ctl("get", "service", "web", "-o", "json") or "{}").get("spec", {}).get("clusterIP"), "service")
        wait(lambda: f"{web} . tcp . 80 : {server}" in nft("list", "ruleset"), "rules")
        pairs = [(throughput(server, 8080), throughput(web, 80)) for _ in range(3)]
        direct, through = (sorted(p[i] for p in pairs)[1] for i in (0, 1))
        print(f"throughput: pod to pod {direct:.0f} MiB/s, through the cluster IP {through:.0f} MiB/s")
        figure("throughput through the cluster IP", 100 * through / direct, "%", 95, at_least=True)
        pod("gated", {"app": "web"}, python(SERVER, "gated"), gated=True)
        address("gated", ready=False)
        api = Api("localhost")
        readiness(api, web)
        table = next(word for word in nft("list", "tables").split() if word.endswith("_services"))
        large(api, table)
        print("missed: " + ", ".join(MISSED) if MISSED else "all budgets are met")
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
