#!/usr/bin/env bash
# Times `podman kube play` of a one-container pod with a local image, for comparison with reddwarf (bench.py --podman).
#
#   sudo vm-tests/bench-podman.sh [RUNS] [IMAGE_PROGRAM]
#
# Prints one line a run: milliseconds from the call to the container's process running, and to the command's return.
# Needs: apt-get install --no-install-recommends podman crun netavark conmon catatonit iptables busybox-static
#
# Podman gets mount and network namespaces and storage of its own: nothing on the machine changes, and nothing stays.
set -euo pipefail
runs=${1:-7}
busybox=${2:-$(command -v busybox)}

if [[ ${BENCH_PODMAN_INSIDE:-} != 1 ]]; then
  for program in podman crun conmon iptables "$busybox"; do
    command -v "$program" >/dev/null || { echo "$program is not installed; see the head of $0" >&2; exit 1; }
  done
  [[ $(id -u) = 0 ]] || { echo "podman's pods with a bridge network need root" >&2; exit 1; }
  dir=$(mktemp -d /tmp/reddwarf-bench-podman.XXXXXX)
  trap 'rm -rf "$dir"' EXIT
  shopt -s nullglob
  before=$(echo /sys/fs/cgroup/{libpod_paren[t],*/libpod_parent})
  BENCH_PODMAN_INSIDE=1 BENCH_PODMAN_DIR=$dir unshare --mount --net --propagation private "$0" "$runs" "$busybox"
  # Podman leaves its empty parent cgroups behind.
  [[ $before ]] || for parent in /sys/fs/cgroup/{libpod_paren[t],*/libpod_parent}; do find "$parent" -depth -type d -exec rmdir {} + ; done
  exit
fi

dir=$BENCH_PODMAN_DIR
mkdir -p "$dir"/{root,out,image/bin,run,tmp}
ip link set lo up
for private in /run/netns /run/containers /run/libpod /run/crun /var/lib/cni; do
  [[ -d $private ]] && mount -t tmpfs tmpfs "$private"
done

# With hybrid cgroups crun wants a version-2 hierarchy without controllers: hide the one that has some.
unified=/sys/fs/cgroup/unified
if mountpoint -q "$unified" && grep -q . "$unified/cgroup.controllers"; then
  umount "$unified"
  mount -t tmpfs tmpfs "$unified"
fi

cat >"$dir/containers.conf" <<CONF
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
[network]
network_backend = "netavark"
network_config_dir = "$dir/networks"
CONF
# Without CAP_SYS_RESOURCE podman's default limits are above what it may set.
if ! (ulimit -Hn 1048576) 2>/dev/null; then
  printf '[containers]\ndefault_ulimits = ["nofile=%s:%s", "nproc=4096:4096"]\n' "$(ulimit -Hn)" "$(ulimit -Hn)" >>"$dir/containers.conf"
fi
export CONTAINERS_CONF=$dir/containers.conf TMPDIR=$dir/tmp
podman() { command podman --root "$dir/root" --runroot "$dir/run" --tmpdir "$dir/tmp" --storage-driver overlay "$@"; }

cp "$busybox" "$dir/image/bin/busybox"
ln -s busybox "$dir/image/bin/sh"
tar -C "$dir/image" -c . | podman import -q - localhost/rdbench:1 >/dev/null
cat >"$dir/pod.yaml" <<POD
apiVersion: v1
kind: Pod
metadata: {name: rdbench}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: localhost/rdbench:1
      imagePullPolicy: Never
      command: [/bin/sh, -c, "echo up > /out/up; exec /bin/busybox sleep 100000"]
      volumeMounts: [{name: out, mountPath: /out}]
  volumes: [{name: out, hostPath: {path: $dir/out}}]
POD

# play N: the time between the call and the modification time that the container's first write left.
play() {
  local began ended
  rm -f "$dir/out/up"
  began=$(date +%s%N)
  podman kube play "$dir/pod.yaml" >"$dir/log" 2>&1 || { cat "$dir/log" >&2; return 1; }
  ended=$(date +%s%N)
  until [[ -s $dir/out/up ]]; do sleep 0.01; done
  local up
  up=$(date -r "$dir/out/up" +%s%N)
  echo "$(((up - began) / 1000000)) $(((ended - began) / 1000000))"
  podman pod rm -f -t 0 rdbench >/dev/null 2>&1
}
play >/dev/null # the first one builds the infra image
for ((i = 0; i < runs; i++)); do play; done
podman kube down "$dir/pod.yaml" >/dev/null 2>&1 || true
