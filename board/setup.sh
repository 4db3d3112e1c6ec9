#!/bin/sh
# Tells watrunk which board it is on, and sets up the operating system for it.
#
#   board-setup list                 the boards there are
#   board-setup detect               the board this machine is, by its device tree
#   board-setup use NAME|auto        makes NAME's file the lowest layer of the configuration
#   board-setup overlay              puts the overlay into /etc: journal, UDP buffers, clock, /tmp, watchdog, LED
#   board-setup clean                takes away what `use` and `overlay` made
#
# ROOT=DIR does the same to an image that is mounted at DIR. Nothing is started or restarted: reboot after `overlay`.
set -eu

root=${ROOT:-}
lib=$root/usr/lib/watrunk
overlay=$root/usr/share/watrunk/overlay
here=/usr/lib/watrunk
fail() { echo "board-setup: $*" >&2; exit 1; }

# The names of the Pi foundation, then what the processor can run.
detect() {
    model=$({ tr -d "\000" <"$root/proc/device-tree/model"; } 2>/dev/null || true)
    case $model in
        "Raspberry Pi 5"*|"Raspberry Pi Compute Module 5"*|"Raspberry Pi 500"*) echo pi5 ;;
        "Raspberry Pi Compute Module 4"*) echo cm4 ;;
        "Raspberry Pi 4"*) echo pi4 ;;
        "Raspberry Pi 3"*|"Raspberry Pi Compute Module 3"*) echo pi3 ;;
        "Raspberry Pi Zero 2"*) echo zero2 ;;
        "Raspberry Pi Zero"*|"Raspberry Pi Model"*) echo zero ;;
        linux,dummy-virt*) echo qemu ;;
        *)
            # The package holds the general board of its own architecture only.
            for file in "$lib"/boards/generic-*.toml; do
                [ -e "$file" ] && basename "$file" .toml && return
            done
            fail "no board file here fits this machine" ;;
    esac
}

# value KEY: a top-level value of the board in use, without quotes; nothing if it is not there.
value() { sed -n "s/^$1 = \"\{0,1\}\([^\"# ]*\).*/\1/p" "$lib/board.toml"; }

use() {
    name=$1
    if [ "$name" = auto ]; then
        name=$(detect)
        # A 32-bit system on a board whose file is for 64 bits, or a board that is not in this package.
        [ -e "$lib/boards/$name.toml" ] || name=$(basename "$(ls "$lib"/boards/generic-*.toml | head -n 1)" .toml)
    fi
    [ -e "$lib/boards/$name.toml" ] || fail "there is no board \"$name\"; see: board-setup list"
    ln -sfn "boards/$name.toml" "$lib/board.toml"
    echo "board-setup: $name"
}

apply() {
    [ -e "$lib/board.toml" ] || use auto
    [ -d "$overlay/etc" ] || fail "$overlay is missing"
    # Files of the operator's own with other names are not touched, and come later in the order.
    (cd "$overlay" && find etc -type f) | while read -r file; do
        mkdir -p "$root/$(dirname "$file")"
        cp "$overlay/$file" "$root/$file"
        chmod 0644 "$root/$file"
        echo "board-setup: /$file"
    done
    mkdir -p "$root/etc/systemd/system/local-fs.target.wants" "$root/etc/systemd/system.conf.d"
    ln -sfn ../tmp.mount "$root/etc/systemd/system/local-fs.target.wants/tmp.mount"
    seconds=$(value watchdog_seconds)
    if [ -n "$seconds" ]; then
        printf '%s\n' "# From $here/board.toml: the hardware resets the board when systemd itself stands still." \
            '[Manager]' "RuntimeWatchdogSec=$seconds" >"$root/etc/systemd/system.conf.d/50-watrunk.conf"
        echo "board-setup: /etc/systemd/system.conf.d/50-watrunk.conf"
    fi
    # "-": a board whose kernel shows no such LED starts all the same. "+": root lends the LED to the service's user, at
    # each start, because the kernel makes its files anew at each boot.
    led=$(value led)
    if [ -n "$led" ]; then
        files=/sys/class/leds/$led
        mkdir -p "$root/etc/systemd/system/watrunk.service.d"
        printf '%s\n' "# From $here/board.toml: the LED is off = stopped, blinking = no trunk, on = ready for calls." '[Service]' \
            "ReadWritePaths=-$files" \
            "ExecStartPre=-+/bin/sh -c 'cd $files && echo none >trigger && chgrp watrunk brightness && chmod g+w brightness'" \
            '# A process that was killed leaves it as it was.' \
            "ExecStopPost=-/bin/sh -c 'echo 0 >$files/brightness'" \
            >"$root/etc/systemd/system/watrunk.service.d/50-watrunk-led.conf"
        echo "board-setup: /etc/systemd/system/watrunk.service.d/50-watrunk-led.conf"
    fi
}

clean() {
    if [ -d "$overlay/etc" ]; then
        (cd "$overlay" && find etc -type f) | while read -r file; do
            rm -f "$root/$file"
            rmdir --ignore-fail-on-non-empty "$root/$(dirname "$file")" 2>/dev/null || true
        done
    fi
    rm -f "$root/etc/systemd/system/local-fs.target.wants/tmp.mount" "$root/etc/systemd/system.conf.d/50-watrunk.conf" \
        "$root/etc/systemd/system/watrunk.service.d/50-watrunk-led.conf" \
        "$lib/board.toml"
    for dir in system/local-fs.target.wants system.conf.d system/watrunk.service.d; do
        rmdir --ignore-fail-on-non-empty "$root/etc/systemd/$dir" 2>/dev/null || true
    done
}

case ${1:-} in
    list) for file in "$lib"/boards/*.toml; do basename "$file" .toml; done ;;
    detect) detect ;;
    use) use "${2:?a board name, or auto}" ;;
    overlay) apply ;;
    clean) clean ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
