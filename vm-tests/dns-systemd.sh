#!/usr/bin/env bash
# The daemon under the real systemd: the name server's sockets and the guard of services' rules outlive its restart and its crash;
# systemd-resolved.
#
#   vm-tests/dns-systemd.sh [DIRECTORY OF THE PROGRAMS]      default: target/debug
#
# Boots Debian trixie's systemd in a container with a network of its own (systemd-nspawn, root). Its tree is made with
# mmdebstrap once, about a minute, and kept below ${REDDWARF_CI_CACHE:-/var/cache/reddwarf-ci}; it may be deleted.
set -euo pipefail
cd "$(dirname "$0")/.."
programs=${1:-${CARGO_TARGET_DIR:-target}/debug}
cache=${REDDWARF_CI_CACHE:-/var/cache/reddwarf-ci}
tree=$cache/systemd-resolved-trixie.tar
[[ $(id -u) = 0 ]] || { echo "dns-systemd: needs root" >&2; exit 1; }

say() { echo "dns-systemd: $*"; }
fail() {
  say "FAILED: $*" >&2
  [[ -z ${leader:-} ]] || inside reddwarfctl status >&2 || true
  [[ -z ${leader:-} ]] || inside journalctl -u reddwarfd -n 40 --no-pager >&2 || true
  exit 1
}

need=()
command -v systemd-nspawn >/dev/null || need+=(systemd-container)
[[ -f $tree ]] || command -v mmdebstrap >/dev/null || need+=(mmdebstrap)
if ((${#need[@]})); then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
fi
if [[ ! -f $tree ]]; then
  mkdir -p "$cache"
  packages=systemd-sysv,dbus,systemd-resolved,libnss-resolve,iproute2,nftables,python3-minimal,bind9-dnsutils
  mmdebstrap --quiet --mode=root --variant=minbase --include=$packages trixie "$tree.new" && mv "$tree.new" "$tree"
fi

root=$(mktemp -d /tmp/reddwarf-systemd.XXXXXX)
nspawn='' leader=''
finish() {
  [[ -z $leader ]] || inside reddwarfctl shutdown --stop-pods >/dev/null 2>&1 || true
  if [[ -n $leader ]]; then kill -RTMIN+4 "$leader" 2>/dev/null || true; fi
  for _ in $(seq 50); do [[ -n $nspawn ]] && kill -0 "$nspawn" 2>/dev/null && sleep 0.1; done
  [[ -z $nspawn ]] || kill -9 "$nspawn" 2>/dev/null || true
  rm -rf "$root"
  for hierarchy in systemd unified; do
    find "/sys/fs/cgroup/$hierarchy/$machine" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}
machine=rddns$$
trap finish EXIT
tar -xf "$tree" -C "$root"
install -m 755 "$programs/reddwarfd" "$programs/reddwarfctl" "$root/usr/bin/"
install -m 644 daemon/systemd/reddwarfd.service "$root/etc/systemd/system/"
mkdir -p "$root"/etc/{reddwarf,reddwarf.d} "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../reddwarfd.service "$root/etc/systemd/system/multi-user.target.wants/"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
for unit in systemd-modules-load systemd-udevd systemd-networkd-wait-online; do ln -sf /dev/null "$root/etc/systemd/system/$unit.service"; done
echo 'host = "linux"' >"$root/etc/reddwarf/reddwarfd.toml"
cat >"$root/etc/reddwarf.d/web.yaml" <<'YAML'
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.7.7, ports: [{port: 80}]}
---
# The bridge comes with the first pod.
apiVersion: v1
kind: Pod
metadata: {name: sleeper, annotations: {reddwarf.io/zone-brand: sparse}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, command: [sleep, infinity]}]}
YAML
cat >"$root/asker.py" <<'PYTHON'
# Sends 500 queries a second for as many seconds as told, then waits for what is missing.
import select, socket, struct, sys, time
question = b"\3web\7default\3svc\7cluster\5local\0\0\1\0\1"
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
udp.connect(("10.88.0.1", 53))
sent, waiting, wrong, worst, refused = 0, {}, 0, 0, 0
def read():
    global wrong, worst, refused
    while select.select([udp], [], [], 0)[0]:
        try:
            answer = udp.recv(600)
        except ConnectionRefusedError:
            refused += 1
            continue
        since = waiting.pop(struct.unpack("!H", answer[:2])[0], None)
        wrong += answer[-4:] != bytes([10, 96, 7, 7])
        worst = max(worst, time.monotonic() - (since or 0)) if since else worst
due = time.monotonic()
end = due + float(sys.argv[1])
while due < end:
    try:
        udp.send(struct.pack("!H", sent & 0xffff) + b"\1\0\0\1\0\0\0\0\0\0" + question)
        waiting[sent & 0xffff] = time.monotonic()
        sent += 1
    except ConnectionRefusedError:
        refused += 1
    read()
    due += 0.002
    time.sleep(max(0, due - time.monotonic()))
until = time.monotonic() + 5
while waiting and time.monotonic() < until:
    read()
    time.sleep(0.01)
print(f"sent {sent} lost {len(waiting)} wrong {wrong} refused {refused} worst {worst:.2f} s", flush=True)
PYTHON

for hierarchy in systemd unified; do
  # A group of its own: nspawn would make its own at the root.
  if [[ -d /sys/fs/cgroup/$hierarchy ]]; then
    mkdir -p "/sys/fs/cgroup/$hierarchy/$machine"
    (echo $BASHPID >"/sys/fs/cgroup/$hierarchy/$machine/cgroup.procs") || true
  fi
done
boot() {
  for hierarchy in systemd unified; do
    [[ ! -d /sys/fs/cgroup/$hierarchy ]] || echo $BASHPID >"/sys/fs/cgroup/$hierarchy/$machine/cgroup.procs"
  done
  export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=1 SYSTEMD_SECCOMP=0
  exec systemd-nspawn -q --register=no --keep-unit -M "$machine" -D "$root" --private-network --capability=all -b --console=pipe
}
boot </dev/null >"$root.console" 2>&1 &
nspawn=$!
for _ in $(seq 100); do
  leader=$(pgrep -P "$nspawn" | head -1 || true)
  if [[ $leader ]] && nsenter -t "$leader" -a systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'; then break; fi
  sleep 0.2
done
inside() { nsenter -t "$leader" -a -- "$@"; }
[[ -n $leader ]] || { cat "$root.console" >&2; fail "systemd did not start"; }
rm -f "$root.console"

active() { for _ in $(seq 150); do inside systemctl is-active -q reddwarfd && return; sleep 0.1; done; fail "reddwarfd is not active"; }
active
dig() { inside dig +short +tries=1 +time=3 @10.88.0.1 web.default.svc.cluster.local; }
for _ in $(seq 50); do [[ $(dig) = 10.96.7.7 ]] && break; sleep 0.1; done
[[ $(dig) = 10.96.7.7 ]] || fail "the name server does not answer"
stored=$(inside systemctl show -P NFileDescriptorStore reddwarfd)
((stored >= 2)) || fail "systemd keeps $stored sockets"
say "systemd keeps $stored sockets"

# What holds the rules together while others flush them belongs to a socket that systemd keeps: it is there all the time.
cat >"$root/guarded.py" <<'PYTHON'
import subprocess, sys, time
looks, missing, end = 0, 0, time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    looks += 1
    missing += "reddwarf_services_guard" not in tables
    time.sleep(0.01)
print(f"looked {looks} times, missing {missing} times")
PYTHON
for _ in $(seq 50); do inside nft list tables | grep -q reddwarf_services_guard && break; sleep 0.1; done

# under_load NAME COMMAND…: no query may be lost or refused, nor the rules unguarded, while COMMAND restarts the daemon.
under_load() {
  local name=$1 said
  shift
  inside python3 /asker.py 8 >"$root/asker.out" 2>&1 &
  local asker=$!
  inside python3 /guarded.py 8 >"$root/guarded.out" 2>&1 &
  local guarded=$!
  sleep 1
  "$@"
  active
  wait "$asker" || true
  said=$(cat "$root/asker.out")
  say "$name: $said"
  [[ $said = *" lost 0 wrong 0 refused 0 "* ]] || fail "$name"
  wait "$guarded" || true
  said=$(cat "$root/guarded.out")
  say "$name: the guard of the services' rules: $said"
  [[ $said = *", missing 0 times" ]] || fail "$name: the rules were unguarded"
}
under_load "restart" inside systemctl restart reddwarfd
crash() {
  local before
  before=$(inside systemctl show -P NRestarts reddwarfd)
  inside systemctl kill -s KILL reddwarfd
  for _ in $(seq 100); do (($(inside systemctl show -P NRestarts reddwarfd) > before)) && return; sleep 0.1; done
  fail "systemd did not start it again"
}
under_load "crash" crash

# systemd-resolved asks us as soon as something is connected to the bridge.
inside ip link add port0 type veth peer name port1
inside ip link set port0 master reddwarf0 up
inside ip link set port1 up
for _ in $(seq 100); do [[ $(inside getent hosts web.default.svc.cluster.local || true) = 10.96.7.7* ]] && break; sleep 0.1; done
[[ $(inside getent hosts web.default.svc.cluster.local || true) = 10.96.7.7* ]] || { inside resolvectl --no-pager status >&2; fail "the host does not resolve names of services"; }
inside reddwarfctl status | grep -q 'systemd-resolved asks 10.88.0.1' || { inside reddwarfctl status >&2; fail "status does not say so"; }
inside resolvectl --no-pager domain reddwarf0 | grep -q '~cluster.local' || fail "not a routing domain"
inside resolvectl --no-pager default-route reddwarf0 | grep -q 'no' || fail "other names would be asked of us"
say "the host resolves names of services"
echo 'dns_listen = ["0.0.0.0:10053"]' >>"$root/etc/reddwarf/reddwarfd.toml"
inside systemctl restart reddwarfd
active
for _ in $(seq 50); do inside resolvectl --no-pager domain reddwarf0 | grep -q cluster.local || break; sleep 0.1; done
! inside resolvectl --no-pager domain reddwarf0 | grep -q cluster.local || fail "systemd-resolved was not told to stop"
[[ $(inside dig +short -p 10053 @127.0.0.1 web.default.svc.cluster.local) = 10.96.7.7 ]] || fail "0.0.0.0:10053 does not answer"
say "passed"
