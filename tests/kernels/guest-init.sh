#!/bin/sh
# First program of the VM, in its initramfs. It mounts the machine's root read-only, and memory above it to write to.
# The kernel sets `checkout` and `tree` from its command line. With `tree` the root is another one, which has systemd.
fail() {
    echo "guest-init: $*" >/dev/console
    busybox poweroff -f
}
busybox mount -t proc proc /proc
while read -r module; do
    busybox insmod "/modules/$module" || fail "no module $module"
done </modules/order
busybox mount -t virtiofs -o ro root /lower || fail "no root"
busybox mount -t tmpfs -o size=75% tmpfs /upper
busybox mkdir /upper/files /upper/work
busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /root || fail "no overlay"
busybox mkdir -p /root/usr/lib/modules
busybox mount -t virtiofs -o ro modules /root/usr/lib/modules || fail "no modules"
for each in proc:proc sysfs:sys devtmpfs:dev tmpfs:run; do
    busybox mount -t "${each%:*}" "${each%:*}" "/root/${each#*:}"
done
if [ "$tree" ]; then
    busybox mkdir /root/machine
    busybox mount -t virtiofs -o ro machine /root/machine || fail "no files of the machine"
    busybox ln -s "/machine$checkout" /root/run/checkout
    exec busybox switch_root /root /lib/systemd/systemd
fi
exec busybox switch_root /root /bin/bash "$checkout/tests/kernels/guest-start.sh"
