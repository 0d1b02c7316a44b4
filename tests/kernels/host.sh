#!/usr/bin/env bash
# Starts a virtual machine. tests/kernels/vm.py runs it as process 1 of new PID and mount namespaces, so that everything
# that is started and mounted here disappears with this process. In the end it becomes qemu. Its standard input and
# output are the VM's control channel; all messages and the kernel's console go to standard error.
#     VIRTIOFSD=PATH EMULATED=yes OWN_TIME= MEMORY=MEGABYTES FILES=/ VENV= TREE= SHOWN= TAP= host.sh KERNEL CHECKOUT ROOM
# KERNEL: a directory of tests/kernels/debian.py. ROOM: an empty directory; only this process sees what is mounted on it.
# EMULATED is empty if KVM runs the VM. TAP is the VM's network card at this end, or empty.
# The VM's root is this machine's root file system, without other file systems; whatever the VM writes stays in memory.
# A VM of another architecture cannot run this machine's programs. FILES is then the directory that the VM has as its
# root, and VENV the one that it has as the checkout's .venv. Otherwise FILES is /.
# If TREE is not empty, it is the VM's root, and the VM has this machine's root file system at /machine. SHOWN are files,
# one on each line, that the VM must see there although they may be on other file systems.
# With OWN_TIME, the clock of an emulated VM advances by 1 ns for each instruction, and as usual while the VM is idle.
# So it takes itself for a fast machine with one processor, and no time-out in it runs out because it is slow.
set -euo pipefail

kernel=$1 checkout=$2 room=$3
name=$(basename "$kernel")
memory=$MEMORY

mount -t tmpfs tmpfs "$room"
mkdir "$room/root" "$room/modules"
machine=$room/root
if [[ $TREE ]]; then
    mount --bind "$TREE" "$room/root"
    machine=$room/machine
    mkdir "$machine"
fi
mount --bind "$FILES" "$machine"
venv=$(realpath "$checkout/.venv")
if [[ $FILES == / ]]; then
    # The checkout and its Python packages may be on other file systems.
    needed=("$checkout" "$venv")
    [[ ! $SHOWN ]] || mapfile -t -O "${#needed[@]}" needed <<<"$SHOWN"
    for path in "${needed[@]}"; do
        mounted=$(stat --format %m "$path")
        [[ $mounted == / ]] || mountpoint --quiet "$machine$mounted" || mount --bind "$mounted" "$machine$mounted"
    done
else
    mkdir -p "$machine$checkout"
    mount --bind "$checkout" "$machine$checkout"
    mkdir -p "$machine$venv"
    mount --bind "$VENV" "$machine$venv"
fi
mount --bind "$kernel/lib/modules" "$room/modules"

# Busybox, and the modules that are needed to mount the root.
tree=$room/initramfs
mkdir -p "$tree"/{bin,proc,modules,lower,upper,root}
touch "$tree/modules/order" # there is none for a kernel that has all of them built in
cp "$machine/bin/busybox" "$tree/bin/busybox"
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
[[ ! $TREE ]] || share machine

qemu=qemu-system-x86_64 board=q35 console=ttyS0 words=""
if [[ $name == *-arm64 ]]; then
    qemu=qemu-system-aarch64 board=virt console=ttyAMA0
fi
if [[ $EMULATED ]]; then
    if [[ $OWN_TIME ]]; then
        options+=(-accel "tcg,thread=single,tb-size=1024" -icount "shift=0,sleep=on" -smp 1)
    else
        options+=(-accel "tcg,thread=multi,tb-size=1024" -smp 2)
    fi
    # The features that are left out here are costly to emulate, and do not change what the verifier does; mitigations=off
    # would.
    if [[ $name == *-arm64 ]]; then
        options+=(-cpu "max,pauth-impdef=on,sve=off,lpa2=off")
    else
        options+=(-cpu "max,-la57,-smap,-smep,-pku,-avx,-avx2")
        words+="nopti spectre_v2=off retbleed=off tsc=reliable no_timer_check"
    fi
    words+=" nokaslr init_on_alloc=0 transparent_hugepage=always"
else
    options+=(-accel kvm -cpu host -smp 2)
fi
words+=" console=$console loglevel=6 panic=-1 rdinit=/init checkout=$checkout"
[[ ! $TREE ]] || words+=" tree=yes"
if [[ $TAP ]]; then
    options+=(-netdev "tap,id=network,ifname=$TAP,script=no,downscript=no" -device virtio-net-pci,netdev=network)
else
    options+=(-nic none)
fi
exec "$qemu" -nodefaults -no-user-config -no-reboot -display none -machine "$board,memory-backend=memory" \
    -m "$memory" -object "memory-backend-memfd,id=memory,size=${memory}M,share=on" "${options[@]}" \
    -device virtio-serial-pci -chardev stdio,id=control,signal=off -device virtserialport,chardev=control,nr=1 \
    -chardev file,id=console,path=/dev/fd/2,append=on -serial chardev:console \
    -kernel "$kernel/vmlinuz" -initrd "$room/initramfs.cpio" -append "$words"
