#!/bin/sh
# The machine's first process, from the tests' disk: mounts what a system has, runs /job/run, tells its exit code.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o gid=5,mode=620 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t tmpfs -o mode=755 tmpfs /run
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
ln -sf /proc/self/fd /dev/fd
exec </dev/null >/dev/hvc0 2>&1
stty -F /dev/hvc0 raw
hostname vm
ip link set lo up
# The rest is loaded when it is asked for; these have device nodes that nobody here makes before.
for module in loop fuse tun; do modprobe "$module" 2>/dev/null; done
cp -a /job/root/. /
echo "vm: Linux $(uname -r), cgroup v2 with $(cat /sys/fs/cgroup/cgroup.controllers); up $(cut -d' ' -f1 /proc/uptime) s"
bash /job/run
echo "@@EXIT $?"
sync
echo o >/proc/sysrq-trigger
sleep 60
