#!/usr/bin/env bash
# Shows the main job on this machine, as root, in directories and a network of its own, and leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${CARGO_TARGET_DIR:-target}/debug
work=$(mktemp -d /tmp/reddwarf-demo.XXXXXX)
mkdir "$work/manifests"
bold=$(tput bold 2>/dev/null || true) plain=$(tput sgr0 2>/dev/null || true)
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
ctl() { "$bin/reddwarfctl" --socket "$work/run/reddwarf.sock" "$@"; }
show() { local line="$*"; printf '$ %s\n' "${line/#ctl /reddwarfctl }"; "$@"; }

daemon= instance=
finish() {
  status=$?
  if [[ -n $daemon ]] && kill -0 "$daemon" 2>/dev/null; then
    ctl shutdown --stop-pods >/dev/null 2>&1 || kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
  fi
  # What a daemon leaves for the next one: its bridge, its tables of rules, its control groups.
  if [[ $instance == reddwarf* ]]; then
    nft delete table inet "${instance//-/_}" 2>/dev/null || true
    nft delete table inet "${instance//-/_}_services" 2>/dev/null || true
    find /sys/fs/cgroup -depth -type d -path "*/$instance*" -exec rmdir {} + 2>/dev/null || true
  fi
  ip link del rddemo0 2>/dev/null || true
  umount "$work/run/private/exe" "$work/run/private" 2>/dev/null || true
  if [[ $status != 0 ]]; then echo "the demo failed; the daemon's log:" >&2; tail -n 40 "$work/log" >&2; fi
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT

say "Start the daemon on an empty directory"
"$bin/reddwarfd" --manifests "$work/manifests" --state "$work/state" --run "$work/run" \
  --pod-cidr 10.90.77.0/24 --bridge rddemo0 --node-name demo >"$work/log" 2>&1 &
daemon=$!
for _ in $(seq 200); do ctl status >/dev/null 2>&1 && break; sleep 0.05; done
show ctl status

say "Drop a file into the directory: a web server and its page"
cp examples/manifests/web.yaml "$work/web.yaml"
show mv "$work/web.yaml" "$work/manifests/web.yaml"
show ctl wait pod/web --for=condition=Ready --timeout=20s
instance=$(sed 's/^reddwarf://' /sys/class/net/rddemo0/ifalias)
show ctl get pods -o wide
ip=$(ctl get pod web -o jsonpath='{.status.podIP}')
show curl -sS --max-time 5 --retry 5 --retry-connrefused --retry-delay 1 "http://$ip:8080/"

say "It is a process in namespaces and a cgroup of its own"
show ctl exec web -- sh -c 'hostname; ip -o -4 addr show eth0 2>/dev/null || true; ps 2>/dev/null | head -5 || true'

say "Edit the page: the file inside changes, the process goes on"
sed 's/hello from reddwarf/the page has changed/' "$work/manifests/web.yaml" >"$work/web.yaml"
show ctl plan "$work/web.yaml" || true
show mv "$work/web.yaml" "$work/manifests/web.yaml"
for _ in $(seq 100); do curl -sS --max-time 5 "http://$ip:8080/" | grep -q changed && break; sleep 0.05; done
show curl -sS --max-time 5 "http://$ip:8080/"

say "Break the file: the pod keeps running and the error is shown"
printf 'apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  container: []\n' >"$work/web.yaml"
show mv "$work/web.yaml" "$work/manifests/web.yaml"
for _ in $(seq 100); do ctl status >/dev/null 2>&1 || break; sleep 0.05; done
show ctl status || true
show curl -sS --max-time 5 "http://$ip:8080/"

say "Kill the daemon with -9 and start it again: the pod never notices"
before=$(ctl get pod web -o jsonpath='{.status.containerStatuses[0].state.running.startedAt}')
kill -9 "$daemon"; wait "$daemon" 2>/dev/null || true
show curl -sS --max-time 5 "http://$ip:8080/"
"$bin/reddwarfd" --manifests "$work/manifests" --state "$work/state" --run "$work/run" \
  --pod-cidr 10.90.77.0/24 --bridge rddemo0 --node-name demo >>"$work/log" 2>&1 &
daemon=$!
for _ in $(seq 200); do ctl status >/dev/null 2>&1 && break; sleep 0.05; done
after=$(ctl get pod web -o jsonpath='{.status.containerStatuses[0].state.running.startedAt}')
[[ $before == "$after" ]] && echo "running since $after, before and after"

say "Remove the file: nothing is left"
show rm "$work/manifests/web.yaml"
show ctl wait pod/web --for=delete --timeout=40s
show ctl get pods
echo "processes: $(pgrep -fc "$work/run/sandboxes" || true), mounts: $(grep -v 'run/private\(/exe\)\? ' /proc/self/mountinfo | grep -c "$work" || true), links: $(ip -o link show master rddemo0 2>/dev/null | wc -l)"
say "That was the whole story. More: README.md, docs/"
