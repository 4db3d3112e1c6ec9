#!/bin/bash
# Debian's kernel for 64-bit ARM, and a first file system that finds the disk: kernel.sh DIR. Makes DIR/vmlinuz and
# DIR/initrd, and does nothing if they are there. Needs a network, not root.
set -euo pipefail
dir=${1:?usage: kernel.sh DIR}
here=$(dirname "$(readlink -f "$0")")
complete=.complete-1                     # raise the number when what DIR must hold changes
# In the order in which they need one another: the disk, the port to the tests, the keyboard with its LEDs, the network.
modules=(crypto/crc32c_generic lib/crc16 fs/mbcache fs/jbd2/jbd2 fs/ext4/ext4 drivers/virtio/virtio_mmio
    drivers/block/virtio_blk drivers/char/virtio_console drivers/virtio/virtio_input
    net/core/failover drivers/net/net_failover drivers/net/virtio_net fs/autofs/autofs4)

mkdir -p "$dir"
dir=$(readlink -f "$dir")
exec 9>"$dir.lock"
flock 9
[ -e "$dir/$complete" ] && exit 0

# apt in a folder of its own, for the other architecture: the machine's own lists stay as they are.
apt=$dir/apt
rm -rf "$apt"
mkdir -p "$apt/etc/apt.conf.d" "$apt/etc/preferences.d" "$apt/state/lists/partial" "$apt/cache/archives/partial" "$dir/deb"
: >"$apt/state/status"
cat >"$apt/apt.conf" <<CONF
Dir "$apt/"; Dir::Etc "$apt/etc"; Dir::Etc::sourcelist "sources.list"; Dir::Etc::sourceparts "none";
Dir::Etc::trusted "/etc/apt/trusted.gpg"; Dir::Etc::trustedparts "/etc/apt/trusted.gpg.d";
Dir::State "$apt/state"; Dir::State::status "$apt/state/status"; Dir::Cache "$apt/cache";
APT::Architecture "arm64"; APT::Architectures { "arm64"; }; APT::Sandbox::User "root";
Acquire::Languages "none"; Acquire::Retries "3"; Acquire::Check-Valid-Until "false";
CONF
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 '/debian/\?$') \
    || { echo "kernel.sh: apt on this machine has no Debian mirror" >&2; exit 1; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm main" >"$apt/etc/sources.list"
export APT_CONFIG=$apt/apt.conf
apt-get update -qq
kernel=$(apt-cache depends linux-image-arm64 | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\).*/\1/p' | head -n 1)
(cd "$dir/deb" && rm -f ./*.deb && apt-get download -qq "$kernel" busybox-static)
version=${kernel#linux-image-}


rm -rf "$dir/unpacked" "$dir/first"
mkdir -p "$dir/unpacked" "$dir/first"/{bin,modules,dev,proc,root}
files=("${modules[@]/#/./lib/modules/$version/kernel/}")
dpkg-deb --fsys-tarfile "$dir"/deb/linux-image-*.deb | tar -x -C "$dir/unpacked" "./boot/vmlinuz-$version" "${files[@]/%/.ko}"
dpkg-deb --fsys-tarfile "$dir"/deb/busybox-static_*.deb | tar -x -C "$dir/first" ./bin/busybox

# "ro" on the kernel's command line leaves the root read-only; then what must be written is on the second disk.
cat >"$dir/first/init" <<'INIT'
#!/bin/busybox sh
busybox=/bin/busybox
$busybox mount -t devtmpfs dev /dev
$busybox mount -t proc proc /proc
for module in /modules/*; do $busybox insmod "$module"; done
read -r line </proc/cmdline
$busybox umount /proc
case " $line " in
*" ro "*)
    $busybox mount -o ro -t ext4 /dev/vda /root
    $busybox mount -t ext4 /dev/vdb /root/var/lib/watrunk
    ;;
*) $busybox mount -t ext4 /dev/vda /root ;;
esac
$busybox mount --move /dev /root/dev
exec $busybox switch_root /root /lib/systemd/systemd
INIT
chmod 755 "$dir/first/init"
number=10
for module in "${modules[@]}"; do
    cp "$dir/unpacked/lib/modules/$version/kernel/$module.ko" "$dir/first/modules/$number-${module##*/}.ko"
    number=$((number + 1))
done
emulator=${WATRUNK_CACHE:-$HOME/.cache/watrunk}/cross/bin/qemu-aarch64-static
(cd "$dir/first" && find . | "$emulator" bin/busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$dir/initrd"
mv "$dir/unpacked/boot/vmlinuz-$version" "$dir/vmlinuz"
rm -rf "$apt" "$dir/deb" "$dir/unpacked" "$dir/first"
touch "$dir/$complete"
echo "kernel.sh: Linux $version in $dir"
