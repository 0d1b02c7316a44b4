#!/bin/bash
# Process 1 of the VM. It mounts what systemd would mount, then runs guest.py, which takes orders until the host stops.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
exec </dev/null >/dev/console 2>&1
mkdir -p /dev/pts /dev/shm /run/lock
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
for each in /proc/self/fd:fd fd/0:stdin fd/1:stdout fd/2:stderr; do
    ln -sfn "${each%:*}" "/dev/${each#*:}"
done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
hostname kernels
cd "${checkout:?}" || exit
control=$(echo /dev/vport*p1)
.venv/bin/python -m tests.kernels.guest 0<>"$control" 1>&0
busybox poweroff -f
