#!/bin/sh
# mmdebstrap's hook: unpacks the cloud kernel into the tree, and fetches beside it what modules are built with.
#
#   kernel.sh TREE OUTPUT
set -eu
tree=$1 output=$2
# in_tree COMMAND...: with the tree's own package lists.
in_tree() { chroot "$tree" "$@"; }
depends() { in_tree apt-cache depends "$1" | sed -n "s/.*Depends: \($2.*\)/\1/p" | head -n1; }
image=$(depends linux-image-cloud-amd64 linux-image-)
version=${image#linux-image-}
headers=linux-headers-$version
common=$(depends "$headers" 'linux-headers-.*-common')
kbuild=$(depends "$headers" linux-kbuild-)
in_tree sh -c "cd /root && apt-get -qq download $image $headers $common $kbuild zfs-dkms"
in_tree sh -c "cd /root && dpkg -x $image""_*.deb / && rm $image""_*.deb && depmod $version"
mkdir "$output/packages"
mv "$tree"/root/*.deb "$output/packages/"
cp "$tree/boot/vmlinuz-$version" "$output/vmlinuz"
echo "$version" >"$output/version"
rm -rf "$tree"/boot/* "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/* "$tree"/usr/share/doc/*
