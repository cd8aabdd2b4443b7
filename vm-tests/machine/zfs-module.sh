#!/bin/sh
# Builds OpenZFS's module in a tree of Debian's with its compiler: plain configure and make, no dkms.
#
#   zfs-module.sh TREE PACKAGES OUTPUT
set -eu
tree=$1 packages=$2 output=$3
for package in "$packages"/*.deb; do dpkg -x "$package" "$tree"; done
cat >"$tree/build" <<'BUILD'
set -eu
cd /usr/src/zfs-*
headers=$(echo /usr/src/linux-headers-*-amd64)
common=$(echo /usr/src/linux-headers-*-common)
export CC=gcc-14
# Without it no type information is made, which would want pahole.
rm -f "$headers/vmlinux"
./configure --with-config=kernel --with-linux="$common" --with-linux-obj="$headers" >/build.log 2>&1 || { tail -n 30 /build.log; exit 1; }
make -j"$(nproc)" >>/build.log 2>&1 || { tail -n 30 /build.log; exit 1; }
find module -name zfs.ko -o -name spl.ko | while read -r file; do strip --strip-debug -o "/$(basename "$file")" "$file"; done
BUILD
# With /proc and /dev for the time of the build only.
unshare --mount --propagation private sh -eu -c '
  mount -t proc proc "$1/proc"
  mount --rbind /dev "$1/dev"
  exec timeout 3600 chroot "$1" /bin/sh /build' sh "$tree"
cp "$tree/zfs.ko" "$tree/spl.ko" "$output/"
