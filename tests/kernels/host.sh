#!/usr/bin/env bash
# Starts a virtual machine. tests/kernels/vm.py runs it as process 1 of new PID and mount namespaces, so that everything
# that is started and mounted here disappears with this process. In the end it becomes qemu. Its standard input and
# output are the VM's control channel; all messages and the kernel's console go to standard error.
#     VIRTIOFSD=PATH EMULATED=yes host.sh KERNEL CHECKOUT ROOM
# KERNEL: a directory of tests/kernels/debian.py. ROOM: an empty directory; only this process sees what is mounted on it.
# EMULATED is empty if KVM runs the VM.
# The VM's root is this machine's root file system, without other file systems; whatever the VM writes stays in memory.
set -euo pipefail

kernel=$1 checkout=$2 room=$3
name=$(basename "$kernel")
memory=3072

mount -t tmpfs tmpfs "$room"
mkdir "$room/root" "$room/modules"
mount --bind / "$room/root"
# The checkout and its Python packages may be on other file systems.
for needed in "$checkout" "$(realpath "$checkout/.venv")"; do
    mounted=$(stat --format %m "$needed")
    [[ $mounted == / ]] || mountpoint --quiet "$room/root$mounted" || mount --bind "$mounted" "$room/root$mounted"
done
mount --bind "$kernel/lib/modules" "$room/modules"

# Busybox, and the modules that are needed to mount the root.
tree=$room/initramfs
mkdir -p "$tree"/{bin,proc,modules,lower,upper,root}
cp "$(command -v busybox)" "$tree/bin/busybox"
ln -s busybox "$tree/bin/sh"
cp "$(dirname "$0")/guest-init.sh" "$tree/init"
for module in virtio_pci virtio_console virtiofs overlay; do
    modprobe --show-depends --dirname "$kernel" --set-version "$name" "$module"
done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r path; do
    file=$(basename "$path" .xz)
    if [[ $path == *.xz ]]; then xz -dc "$path"; else cat "$path"; fi >"$tree/modules/$file"
    echo "$file" >>"$tree/modules/order"
done
(cd "$tree" && find . | cpio -o -H newc --quiet) >"$room/initramfs.cpio"

share() { # TAG
    "$VIRTIOFSD" --socket-path="$room/$1.socket" -o source="$room/$1" -o sandbox=chroot -o cache=always -o log_level=err &
    while [[ ! -S $room/$1.socket ]]; do
        kill -0 $! # fails if it has ended
        sleep 0.05
    done
    options+=(-chardev "socket,id=$1,path=$room/$1.socket" -device "vhost-user-fs-pci,chardev=$1,tag=$1")
}
options=()
share root
share modules

words="console=ttyS0 loglevel=6 panic=-1 rdinit=/init checkout=$checkout"
if [[ $EMULATED ]]; then
    options+=(-accel "tcg,thread=multi,tb-size=1024" -cpu "max,-la57,-smap,-smep,-pku,-avx,-avx2")
    # These features are costly to emulate, and do not change what the verifier does; mitigations=off would.
    words+=" nopti spectre_v2=off retbleed=off nokaslr init_on_alloc=0 transparent_hugepage=always"
    words+=" tsc=reliable no_timer_check"
else
    options+=(-accel kvm -cpu host)
fi
exec qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none -nic none -machine q35,memory-backend=memory \
    -smp 2 -m "$memory" -object "memory-backend-memfd,id=memory,size=${memory}M,share=on" "${options[@]}" \
    -device virtio-serial-pci -chardev stdio,id=control,signal=off -device virtserialport,chardev=control,nr=1 \
    -chardev file,id=console,path=/dev/fd/2,append=on -serial chardev:console \
    -kernel "$kernel/vmlinuz" -initrd "$room/initramfs.cpio" -append "$words"
