#!/bin/bash
# Lets the kernel run arm64 programs by an emulator, everywhere and in every chroot: binfmt.sh on EMULATOR, binfmt.sh off
#
# Debian's qemu-user-binfmt does the same for good; where it is installed there is nothing to do. Needs root.
set -euo pipefail
folder=/proc/sys/fs/binfmt_misc
name=watrunk-arm64

case ${1:-} in
    on)
        emulator=$(readlink -f "${2:?usage: binfmt.sh on EMULATOR}")
        [ -e "$folder/register" ] || mount -t binfmt_misc binfmt_misc "$folder"
        [ -e "$folder/qemu-aarch64" ] || [ -e "$folder/$name" ] && exit 0
        # The first 20 bytes of a 64-bit little-endian ELF file for machine 0xb7, binfmt_misc's own notation. F: the
        # emulator is opened now, so a chroot needs no copy; P: it is told what the program was called as.
        printf '%s' ":$name:M::"'\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'\
':\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'":$emulator:FP" >"$folder/register"
        ;;
    off)
        if [ -e "$folder/$name" ]; then echo -1 >"$folder/$name"; fi
        ;;
    *) echo "usage: binfmt.sh on EMULATOR, binfmt.sh off" >&2; exit 2 ;;
esac
