#!/usr/bin/env python3
"""Name servers side by side: the same names, one load generator, one run. `make bench-dns` builds what it needs.

Each server gets one thread and the second core is the load generator's. Figures are answers a second as fast as they
come, answers a second of the server's own CPU time (which other load on the machine does not change), and how long
answers take at a bearable rate. The servers take turns, each started anew for its turn, and of each figure the middle one
counts: what else the machine does meets all of them alike. Servers come from Debian's packages, unpacked and not installed; those that can't be had
are left out; OTHER=PROGRAM is one more, on port 5399 with the same names. Prints a table for docs/performance.md.
"""
import json, os, pathlib, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

BENCH = sys.argv[1]
SERVICES = int(os.environ.get("SERVICES", "5000"))
# An address, two ports and a pointer each: 5,000 records.
REPLACED = 1250
# Of a turn as fast as answers come, of one at an even rate, and of the replacements.
SECONDS = os.environ.get("SECONDS_EACH", "2")
REPLACING = "6"
RATE = os.environ.get("RATE", "20000")
TURNS = int(os.environ.get("TURNS", "7"))
CACHE = pathlib.Path(os.environ.get("REDDWARF_CI_CACHE", "/var/cache/reddwarf-ci")) / "dns-servers"
PACKAGES = ("knot libdnssec9 libknot13 libzscanner4 libxdp1 libbpf1 liburcu8 liblmdb0 libfstrm0 libprotobuf-c1 libmaxminddb0 libuv1 "
            "libjemalloc2 bind9-libs bind9 nsd unbound dnsmasq-base aardvark-dns libevent-2.1-7 libnftables1 libnetfilter-conntrack3 "
            "libdbus-1-3 libldns3 libedit2 libxml2 libjson-c5 libnghttp2-14 libcap-ng0 libprotobuf-c1 libpython3.11 libhiredis0.14 "
            "libicu72 libnfnetlink0 libbsd0 libmd0 gdnsd libev4 libsodium23 libunwind8 yadifa pdns-server pdns-backend-bind "
            "libboost-program-options1.74.0 libcurl4 libluajit-5.1-2 libp11-kit0 libsqlite3-0 liblzma5 libyaml-cpp0.7").split()
PORT = 5399


def unpack():
    """Debian's packages below the cache; whatever can't be had is missing later."""
    asked = CACHE / "asked"
    asked.mkdir(parents=True, exist_ok=True)
    if not shutil.which("apt-get"):
        return
    with tempfile.TemporaryDirectory() as debs:
        for package in PACKAGES:
            if not (asked / package).exists():
                subprocess.run(["apt-get", "download", "-qq", package], cwd=debs, stderr=subprocess.DEVNULL)
                (asked / package).touch()
        for deb in pathlib.Path(debs).glob("*.deb"):
            subprocess.run(["dpkg", "-x", deb, CACHE], check=True)


def program(*names):
    for name in names:
        for root in (CACHE, pathlib.Path("/")):
            for directory in ("usr/sbin", "usr/bin", "usr/lib/podman"):
                path = root / directory / name
                if path.is_file():
                    return str(path)
    return None


def environment():
    libraries = [CACHE / "usr/lib/x86_64-linux-gnu", CACHE / "lib/x86_64-linux-gnu", CACHE / "usr/lib/aarch64-linux-gnu"]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(str(path) for path in libraries)}


def write(path, text):
    path.write_text(text)
    return str(path)


def knot(path, directory, zone):
    config = write(directory / "knot.conf", f"""
server:
    rundir: {directory}
    listen: 127.0.0.1@{PORT}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {directory}
zone:
  - domain: cluster.local
    file: {zone}
""")
    return [path, "-c", config]


def nsd(path, directory, zone):
    config = write(directory / "nsd.conf", f"""
server:
  ip-address: 127.0.0.1@{PORT}
  server-count: 1
  username: ""
  zonesdir: "{directory}"
  pidfile: ""
  xfrdfile: "{directory}/xfrd"
  zonelistfile: "{directory}/zones"
  database: ""
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone: {{
  name: cluster.local
  zonefile: {zone}
}}
""".replace("zone: {", "zone:").replace("\n}\n", "\n"))
    return [path, "-d", "-c", config]


def bind(path, directory, zone):
    config = write(directory / "named.conf", f"""
options {{ directory "{directory}"; listen-on port {PORT} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no;
  pid-file none; session-keyfile none; minimal-responses yes; dnssec-validation no; managed-keys-directory "{directory}"; }};
controls {{ }};
zone "cluster.local" {{ type primary; file "{zone}"; }};
""")
    return [path, "-g", "-n", "1", "-c", config]


def unbound(path, directory, zone):
    names = [line.split() for line in open(zone) if " A " in line and line.startswith("svc-")]
    data = "\n".join(f'  local-data: "{name}.cluster.local. 30 IN A {address}"' for name, _, address in names)
    config = write(directory / "unbound.conf", f"""
server:
  interface: 127.0.0.1@{PORT}
  num-threads: 1
  username: ""
  chroot: ""
  directory: "{directory}"
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  local-zone: "cluster.local." static
{data}
remote-control:
  control-enable: no
""")
    return [path, "-d", "-c", config]


def dnsmasq(path, directory, zone):
    names = [line.split() for line in open(zone) if " A " in line and line.startswith("svc-")]
    config = write(directory / "dnsmasq.conf", "\n".join(f"host-record={name}.cluster.local,{address}" for name, _, address in names) + "\n")
    return [path, "-k", "-C", config, "-p", str(PORT), "--listen-address=127.0.0.1", "--bind-interfaces", "-R", "-h", "-u", "root"]


def aardvark(path, directory, zone):
    # One network whose containers are the services: the format that netavark writes.
    names = [line.split() for line in open(zone) if " A " in line and line.startswith("svc-")]
    conf = directory / "networks"
    conf.mkdir()
    lines = [f"{n:064x} {address}  {name}.cluster.local" for n, (name, _, address) in enumerate(names)]
    write(conf / "podman", "127.0.0.1\n" + "\n".join(lines) + "\n")
    return [path, "--config", str(conf), "--port", str(PORT), "run"]


def gdnsd(path, directory, zone):
    (directory / "zones").mkdir()
    shutil.copy(zone, directory / "zones/cluster.local")
    write(directory / "config", f"""
options => {{ listen => 127.0.0.1:{PORT}, udp_threads => 1, tcp_threads => 1, run_dir => {directory}/run, state_dir => {directory}/state }}
""")
    return [path, "-c", str(directory), "start"]


def yadifa(path, directory, zone):
    config = write(directory / "yadifad.conf", f"""
<main>
    daemon off
    logpath "{directory}"
    pidfile "{directory}/pid"
    datapath "{directory}"
    keyspath "{directory}"
    xfrpath "{directory}"
    listen 127.0.0.1 port {PORT}
    uid root
    gid root
    max-tcp-queries 8
    thread-count-by-address 1
</main>
<zone>
    domain cluster.local
    type primary
    file "{zone}"
</zone>
""")
    return [path, "-c", config]


def powerdns(path, directory, zone):
    zones = write(directory / "named.conf", f'zone "cluster.local" {{ type master; file "{zone}"; }};')
    options = {"launch": "bind", "bind-config": zones, "local-address": "127.0.0.1", "local-port": PORT, "receiver-threads": 1,
               "distributor-threads": 1, "socket-dir": directory, "config-dir": directory, "module-dir": next(CACHE.glob("usr/lib/*/pdns")),
               "daemon": "no", "guardian": "no", "cache-ttl": 60, "query-cache-ttl": 60}
    return [path] + [f"--{name}={value}" for name, value in options.items()]


SERVERS = [("knot", ["knotd"], knot), ("NSD", ["nsd"], nsd), ("gdnsd", ["gdnsd"], gdnsd), ("YADIFA", ["yadifad"], yadifa),
           ("PowerDNS", ["pdns_server"], powerdns), ("BIND", ["named"], bind), ("unbound", ["unbound"], unbound),
           ("dnsmasq", ["dnsmasq"], dnsmasq), ("aardvark-dns", ["aardvark-dns"], aardvark)]


def tree(pid):
    """A process and all below it."""
    found, todo = set(), [pid]
    while todo:
        pid = todo.pop()
        found.add(pid)
        try:
            children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                children += (task / "children").read_text().split()
            todo += [int(child) for child in children if int(child) not in found]
        except OSError:
            pass
    return found


def listeners():
    """Who has our port."""
    said = subprocess.run(["ss", "-Hlnup", f"sport = :{PORT}"], capture_output=True, text=True).stdout
    return {int(part.split(",")[0]) for part in said.split("pid=")[1:]}


def cpu(pids):
    ticks = 0
    for pid in pids:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return ticks / os.sysconf("SC_CLK_TCK")


QUERY = b"\1\1\1\0\0\1\0\0\0\0\0\0\5svc-1\7default\3svc\7cluster\5local\0\0\1\0\1"


def answers(limit=15):
    until = time.monotonic() + limit
    while time.monotonic() < until:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.settimeout(0.2)
            try:
                udp.sendto(QUERY, ("127.0.0.1", PORT))
                answer = udp.recv(1000)
                if answer[7] == 1 and answer[3] & 15 == 0:
                    return True
            except OSError:
                pass
        time.sleep(0.1)
    return False


def load(*arguments, services=SERVICES):
    pin = ["taskset", "-c", "1"] if os.cpu_count() > 1 else []
    said = subprocess.run(pin + [BENCH, "load", f"127.0.0.1:{PORT}", str(services), *arguments], capture_output=True, check=True, text=True)
    return json.loads(said.stdout)


SPIN = """
import time
began = last = time.perf_counter()
still = 0
while last < began + 2:
    now = time.perf_counter()
    still += (now - last) * (now - last > 0.0003)
    last = now
print(still / 2)
"""


def standstill():
    """The share of time in which this machine runs nothing at all, seen by two loops that do nothing else: where it nears 1 %, a p99 is the machine's."""
    loops = [subprocess.Popen(["taskset", "-c", core, sys.executable, "-c", SPIN], stdout=subprocess.PIPE, text=True) for core in "01"]
    return max(float(loop.communicate()[0]) for loop in loops)


def measure(command, where):
    """One turn of one server: its figures, or in words why there are none."""
    where.mkdir()
    log = open(where / "log", "w")
    pin = ["taskset", "-c", "0"] if os.cpu_count() > 1 else []
    server = subprocess.Popen(pin + command(where), stdout=log, stderr=log, env=environment(), start_new_session=True)
    try:
        if not answers():
            return pathlib.Path(log.name).read_text()[-300:].strip().replace("\n", " / ")
        pids = tree(server.pid) | listeners()
        load("1")
        before = cpu(pids)
        fast = load(SECONDS)
        used = cpu(pids) - before
        even = load(SECONDS, RATE)
        return {"per_second": fast["per_second"], "per_cpu_second": fast["per_second"] * int(SECONDS) / used if used else 0,
                "p50": even["p50_us"], "p99": even["p99_us"], "lost": fast["lost"] + even["lost"]}
    finally:
        try:
            os.killpg(server.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        # Some put themselves into the background.
        for pid in listeners():
            os.kill(pid, signal.SIGKILL)
        server.wait()
        shutil.rmtree(where, ignore_errors=True)


def summary(turns):
    """The middle of each figure, and how far p99 reached."""
    middle = {what: statistics.median_low([turn[what] for turn in turns]) for what in turns[0]}
    p99 = [turn["p99"] for turn in turns]
    return {**middle, "best": min(p99), "worst": max(p99), "lost": sum(turn["lost"] for turn in turns)}


def figure(what, value, budget, at_least=False):
    good = value >= budget if at_least else value <= budget
    print(f"{what}: {value:,.0f} ({'at least' if at_least else 'budget'} {budget:,.0f}){'' if good else '  MISSED'}")


def main():
    unpack()
    turns = {}
    still = [standstill()] if os.cpu_count() > 1 else []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        os.chmod(scratch, 0o755)
        zone = scratch / "cluster.local.zone"
        zone.write_bytes(subprocess.run([BENCH, "zone", str(SERVICES)], capture_output=True, check=True).stdout)
        servers = {"reddwarfd": lambda _: [BENCH, "serve", f"127.0.0.1:{PORT}", str(SERVICES)]}
        for name, programs, configure in SERVERS:
            if path := program(*programs):
                servers[name] = lambda where, configure=configure, path=path: configure(path, where, zone)
            else:
                print(f"{name}: not to be had here", file=sys.stderr)
        if other := os.environ.get("OTHER"):
            servers[os.path.basename(other)] = lambda _: [other]
        for _ in range(TURNS):
            for name, command in servers.items():
                turns.setdefault(name, []).append(measure(command, scratch / name))
        # All records replaced every second under load.
        where = scratch / "replaced"
        where.mkdir()
        with open(where / "log", "w") as log:
            server = subprocess.Popen(["taskset", "-c", "0", BENCH, "serve", f"127.0.0.1:{PORT}", str(REPLACED), REPLACING], stdout=log)
            assert answers(), "the name server does not answer"
            under = load(str(int(REPLACING) - 2), RATE, services=REPLACED)
            server.wait()
        replacements = [json.loads(line) for line in (where / "log").read_text().splitlines() if line.startswith("{")]
        replaced, used = ([replacement[what] for replacement in replacements] for what in ("replaced_ms", "cpu_ms"))
    results = {}
    for name, of_server in turns.items():
        failed = [turn for turn in of_server if isinstance(turn, str)]
        if failed:
            print(f"{name} did not answer in {len(failed)} of {TURNS} turns: {failed[0]}", file=sys.stderr)
        if len(failed) < TURNS:
            results[name] = summary([turn for turn in of_server if not isinstance(turn, str)])
    print(f"{SERVICES} services, one thread a server; evenly: {RATE} questions a second; the middle ones of {TURNS} turns of {SECONDS} s\n")
    print("| server | answers/s | answers/s of CPU | p50 evenly | p99 evenly (best, worst) | lost |\n|---|---|---|---|---|---|")
    for name, its in results.items():
        print(f"| {name} | {its['per_second']:,.0f} | {its['per_cpu_second']:,.0f} | {its['p50']:.0f} µs | {its['p99']:.0f} µs "
              f"({its['best']:.0f}, {its['worst']:.0f}) | {its['lost']} |")
    print(f"\nall {4 * REPLACED} records of {REPLACED} services replaced: {min(replaced):.1f} to {max(replaced):.1f} ms (worst of {len(replaced)}), "
          f"{min(used):.1f} to {max(used):.1f} ms of CPU, meanwhile "
          f"{under['lost']} of the questions lost, {under['wrong']} wrong, p99 {under['p99_us']:.0f} µs")
    if still:
        still.append(standstill())
        print(f"\nthis machine stands still {min(still):.2%} to {max(still):.2%} of the time (before and after)")
    ours = results.pop("reddwarfd")
    best, whose = max(((its["per_cpu_second"], name) for name, its in results.items()), default=(0, "nobody"))
    print()
    figure("answers a second of one core", ours["per_cpu_second"], 60_000, at_least=True)
    figure(f"the same beside the best of the others ({whose})", ours["per_cpu_second"], best, at_least=True)
    figure(f"p99 at {RATE} questions a second, µs", ours["p99"], 1000)
    figure("5,000 records replaced under load at worst, ms", max(replaced), 20)
    figure("questions lost or answered wrong meanwhile", under["lost"] + under["wrong"], 0)


main()
