#!/usr/bin/env bash
# Times pulling and unpacking an image of several layers from a registry on this machine, by reddwarf and by podman, in
# the same run, turn by turn.
#
#   sudo vm-tests/bench-pull.sh [DIRECTORY WITH reddwarfd AND reddwarfctl] [MB] [RUNS]
#
# Prints one line a run and the medians. Needs .ci/registry, and for the comparison podman of the distribution (see the
# head of bench-podman.sh); without podman only reddwarf is timed. Everything has directories, mount and network
# namespaces of its own: nothing on the machine changes, and nothing stays.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(realpath "${1:-target/release}")
megabytes=${2:-200}
runs=${3:-5}
registry=$(realpath "${CARGO_TARGET_DIR:-target}/tools/docker-registry")
[[ -x $registry ]] || { echo "docker-registry is missing: .ci/registry fetches it" >&2; exit 1; }
[[ $(id -u) = 0 ]] || { echo "images are unpacked as root" >&2; exit 1; }

if [[ ${BENCH_PULL_INSIDE:-} != 1 ]]; then
  dir=$(mktemp -d /var/tmp/reddwarf-bench-pull.XXXXXX)
  trap 'rm -rf "$dir"' EXIT
  BENCH_PULL_INSIDE=1 BENCH_PULL_DIR=$dir unshare --mount --net --propagation private "vm-tests/$(basename "$0")" "$@"
  exit
fi
dir=$BENCH_PULL_DIR
processes=()
trap 'kill "${processes[@]}" 2>/dev/null || true; wait' EXIT
ip link set lo up
for private in /run/netns /run/containers /run/libpod /var/lib/cni; do
  [[ -d $private ]] && mount -t tmpfs tmpfs "$private"
done
unified=/sys/fs/cgroup/unified
if mountpoint -q "$unified" && grep -q . "$unified/cgroup.controllers"; then
  umount "$unified"
  mount -t tmpfs tmpfs "$unified"
fi

# An image like real ones: many files of programs and libraries, in four layers.
mkdir -p "$dir/layers"
n=0 here=0 limit=$((megabytes * 1024 / 4))
while read -r size file; do
  ((n < 4)) || break
  mkdir -p "$dir/layers/$n$(dirname "$file")"
  cp -a "$file" "$dir/layers/$n$file" 2>/dev/null || continue
  here=$((here + size))
  ((here < limit)) || { n=$((n + 1)); here=0; }
done < <(find /usr/lib /usr/bin /usr/share -xdev -type f -size +1k -printf '%k %p\n' 2>/dev/null)
cat >"$dir/registry.yml" <<CONF
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $dir/registry}}
http: {addr: "127.0.0.1:5000"}
CONF
"$registry" serve "$dir/registry.yml" >"$dir/registry.log" 2>&1 &
processes+=($!)
until curl -so /dev/null http://127.0.0.1:5000/v2/; do sleep 0.1; done
python3 daemon/tests/e2e/registry/push.py http://127.0.0.1:5000 - - bench/image 1 gzip "$dir"/layers/* >/dev/null
echo "image: $(du -sm "$dir/layers" | cut -f1) MB unpacked, $(du -sm "$dir/registry" | cut -f1) MB in the registry, $(ls "$dir/layers" | wc -l) layers"

mkdir -p "$dir/manifests"
"$bin/reddwarfd" --manifests "$dir/manifests" --state "$dir/state" --run "$dir/run" --node-name bench >"$dir/reddwarfd.log" 2>&1 &
processes+=($!)
ctl() { "$bin/reddwarfctl" --socket "$dir/run/reddwarf.sock" "$@"; }
until ctl status >/dev/null 2>&1; do sleep 0.1; done

podman=
if command -v podman >/dev/null; then
  podman=$(podman --version)
  cat >"$dir/containers.conf" <<CONF
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
CONF
  export CONTAINERS_CONF=$dir/containers.conf
fi
podman_() { command podman --root "$dir/root" --runroot "$dir/podrun" --tmpdir "$dir/tmp" --storage-driver overlay "$@"; }
milliseconds() { # COMMAND...: how long it took
  local begun=$(date +%s%N)
  "$@" >/dev/null
  echo $((($(date +%s%N) - begun) / 1000000))
}
ours=() theirs=()
for ((run = 1; run <= runs; run++)); do
  ours+=("$(milliseconds ctl image pull 127.0.0.1:5000/bench/image:1)")
  ctl image prune >/dev/null
  if [[ $podman ]]; then
    theirs+=("$(milliseconds podman_ pull --quiet --tls-verify=false 127.0.0.1:5000/bench/image:1)")
    podman_ rmi --all --force >/dev/null
  fi
  echo "run $run: reddwarf ${ours[-1]} ms${podman:+, podman ${theirs[-1]} ms}"
done
median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }
echo "median: reddwarf $(median "${ours[@]}") ms${podman:+, $podman $(median "${theirs[@]}") ms}"
