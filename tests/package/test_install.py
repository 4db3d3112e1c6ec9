"""The package on a clean Debian: installed, upgraded, removed, purged."""

import re
import shutil
import subprocess

import pytest

from box import CACHE, ROOT, newest
from conftest import configure, newer_than

TRACES = ["find", "/", "-xdev", "-not", "-path", "/proc/*", "-not", "-path", "/var/log/journal/*",
          "-not", "-path", "/root/watrunk.deb", "-iname", "*watrunk*"]


def main_pid(box):
    return box.unit("MainPID")[0]


@pytest.mark.parametrize("arch", ["amd64", "arm64", "armhf"])
def test_lintian_finds_no_error(arch):
    done = subprocess.run(["lintian", "--allow-root", "--fail-on", "error", "--tag-display-limit", "0", str(newest(arch))],
                          capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_chroot_without_proc_can_install_and_purge_it(bare, deb):
    said = bare.install(deb)
    assert "edit /etc/watrunk/watrunk.toml, then: watrunk check && systemctl start watrunk" in said
    assert "cannot open" not in said
    assert bare.run("dpkg", "--status", "watrunk").stdout.count("Status: install ok installed") == 1
    link = bare.path("/etc/systemd/system/multi-user.target.wants/watrunk.service")
    assert link.is_symlink(), "the service is enabled"
    assert bare.path("/usr/lib/watrunk/board.toml").is_symlink(), "a board was chosen"
    bare.run("dpkg", "--purge", "watrunk", check=True)
    assert bare.run(*TRACES).stdout == ""
    assert "watrunk" not in bare.path("/etc/passwd").read_text() + bare.path("/etc/group").read_text()


def test_what_is_installed_is_complete_and_nobody_else_reads_the_config(bare, deb):
    bare.install(deb)
    listed = bare.run("dpkg", "--listfiles", "watrunk").stdout.split()
    for path in ["/usr/share/man/man1/watrunk.1.gz", "/usr/share/bash-completion/completions/watrunk",
                 "/usr/share/zsh/vendor-completions/_watrunk", "/usr/share/fish/vendor_completions.d/watrunk.fish",
                 "/usr/share/doc/watrunk/copyright", "/usr/share/doc/watrunk/install.md"]:
        assert path in listed
    for path, owner in [("/etc/watrunk", "watrunk:watrunk 750"), ("/etc/watrunk/watrunk.toml", "watrunk:watrunk 600")]:
        assert bare.run("stat", "--format=%U:%G %a", path).stdout.strip() == owner, path
    example = bare.run("watrunk", "config", "example").stdout
    assert bare.path("/etc/watrunk/watrunk.toml").read_text() == example
    told = bare.run("watrunk", "check")
    assert told.returncode == 1 and "whatsapp.app_secret: is still the placeholder of the example" in told.stderr


def test_the_unit_is_verified_and_its_exposure_is_at_most_one_and_a_half(box):
    done = box.run("systemd-analyze", "verify", "--man=no", "/lib/systemd/system/watrunk.service")
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    told = box.run("systemd-analyze", "security", "--no-pager", "watrunk.service").stdout
    exposure = float(re.search(r"Overall exposure level for watrunk.service: ([\d.]+)", told).group(1))
    print(f"exposure {exposure}")
    assert exposure <= 1.5


def test_an_unedited_config_starts_no_gateway_and_makes_no_failed_unit(bare, deb):
    bare.boot()
    said = bare.install(deb)
    assert "edit /etc/watrunk/watrunk.toml" in said
    assert bare.unit("ActiveState", "UnitFileState") == ["inactive", "enabled"]


def test_an_upgrade_keeps_the_config_and_restarts_and_an_operators_choices_stay(fresh, deb, newer):
    fresh.run("systemctl", "start", "watrunk", check=True)
    before, config = main_pid(fresh), fresh.path("/etc/watrunk/watrunk.toml").read_text()
    fresh.install(newer, "--force-confdef")
    assert fresh.run("dpkg-query", "--show", "--showformat=${Version}", "watrunk").stdout.endswith("+newer")
    assert fresh.path("/etc/watrunk/watrunk.toml").read_text() == config
    assert fresh.run("stat", "--format=%U:%G %a", "/etc/watrunk/watrunk.toml").stdout.strip() == "watrunk:watrunk 600"
    assert fresh.unit("ActiveState")[0] == "active" and main_pid(fresh) != before

    fresh.run("systemctl", "disable", "--now", "watrunk", check=True)
    fresh.install(deb, "--force-downgrade", "--force-confdef")
    assert fresh.unit("UnitFileState")[0] == "disabled"
    fresh.run("systemctl", "enable", "watrunk", check=True)


def test_an_upgrade_that_refuses_the_config_leaves_the_running_gateway_alone(fresh, newer):
    fresh.run("systemctl", "start", "watrunk", check=True)
    before = main_pid(fresh)
    path = fresh.path("/etc/watrunk/watrunk.toml")
    path.write_text(path.read_text() + "[gatway]\n")
    said = fresh.install(newer, "--force-confdef")
    assert "gatway: unknown key; did you mean `gateway`?" in said
    assert "this version does not accept /etc/watrunk/watrunk.toml" in said
    assert (fresh.unit("ActiveState")[0], main_pid(fresh)) == ("active", before)


def test_removing_keeps_config_and_history_and_purging_leaves_nothing(bare, deb):
    bare.boot()
    bare.install(deb)
    configure(bare)
    bare.run("systemctl", "start", "watrunk", check=True)
    bare.run("/usr/lib/watrunk/board-setup", "overlay", check=True)
    assert bare.path("/etc/systemd/journald.conf.d/50-watrunk.conf").exists()

    bare.run("dpkg", "--remove", "watrunk", check=True)
    assert bare.unit("ActiveState", "LoadState") == ["inactive", "not-found"]
    assert bare.path("/etc/watrunk/watrunk.toml").exists() and bare.path("/var/lib/watrunk/calls.db").exists()
    assert not bare.path("/etc/systemd/journald.conf.d/50-watrunk.conf").exists()

    bare.run("dpkg", "--purge", "watrunk", check=True)
    left = [line for line in bare.run(*TRACES).stdout.split() if not line.startswith(("/sys/", "/run/", "/tmp/"))]
    assert left == []
    assert "watrunk" not in bare.path("/etc/passwd").read_text() + bare.path("/etc/group").read_text()


@pytest.mark.parametrize("model, board", [
    ("Raspberry Pi 4 Model B Rev 1.5", "pi4"), ("Raspberry Pi 5 Model B Rev 1.0", "pi5"),
    ("Raspberry Pi 3 Model B Plus Rev 1.3", "pi3"), ("Raspberry Pi Zero 2 W Rev 1.0", "zero2"),
    ("Raspberry Pi Compute Module 4 Rev 1.1", "cm4"), ("Raspberry Pi Zero W Rev 1.1", "zero"), ("Rock 5", "generic-aarch64"),
])
def test_a_board_is_known_by_its_device_tree(tmp_path, model, board):
    boards = tmp_path / "usr/lib/watrunk/boards"
    boards.mkdir(parents=True)
    for file in (ROOT / "board").glob("*.toml"):
        if "armv7" not in file.name and "x86" not in file.name:
            (boards / file.name).write_text(file.read_text())
    tree = tmp_path / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "model").write_bytes(model.encode() + b"\0")
    overlay = tmp_path / "usr/share/watrunk"
    overlay.mkdir(parents=True)
    (overlay / "overlay").symlink_to(ROOT / "board" / "overlay")

    def setup(*words):
        return subprocess.run([str(ROOT / "board" / "setup.sh"), *words], env={"ROOT": str(tmp_path), "PATH": "/usr/bin:/bin"},
                              check=True, capture_output=True, text=True).stdout

    assert setup("detect") == board + "\n"
    setup("use", "auto")
    assert (tmp_path / "usr/lib/watrunk/board.toml").read_text().count(f'name = "{board}"') == 1
    setup("overlay")
    made = {str(p.relative_to(tmp_path)) for p in (tmp_path / "etc").rglob("*") if not p.is_dir()}
    assert ("etc/systemd/system.conf.d/50-watrunk.conf" in made) == board.startswith(("pi", "zero", "cm"))
    if board == "pi4":
        assert "RuntimeWatchdogSec=15" in (tmp_path / "etc/systemd/system.conf.d/50-watrunk.conf").read_text()
        led = (tmp_path / "etc/systemd/system/watrunk.service.d/50-watrunk-led.conf").read_text()
        assert "ReadWritePaths=-/sys/class/leds/ACT\n" in led
    setup("clean")
    assert not [p for p in (tmp_path / "etc").rglob("*") if not p.is_dir()]


def test_on_arm_it_is_installed_upgraded_removed_and_purged_by_arms_own_dpkg(arm, tmp_path):
    assert arm.run("dpkg", "--print-architecture").stdout == "arm64\n"
    deb = newest("arm64")
    said = arm.install(deb)
    assert "edit /etc/watrunk/watrunk.toml, then: watrunk check && systemctl start watrunk" in said
    assert arm.path("/etc/systemd/system/multi-user.target.wants/watrunk.service").is_symlink()
    assert arm.path("/usr/lib/watrunk/board.toml").exists()
    assert re.fullmatch(r"watrunk \d+\.\d+\.\d+\n", arm.run("watrunk", "--version", check=True).stdout)
    configure(arm)
    print(arm.run("watrunk", "check", check=True).stdout.splitlines()[-4])
    edited = arm.path("/etc/watrunk/watrunk.toml").read_text()

    # The config is sound now, which the new version's script finds out by the ARM binary itself.
    said = arm.install(newer_than(deb, tmp_path), "--force-confdef")
    assert "does not accept" not in said
    assert arm.run("dpkg-query", "--show", "--showformat=${Version} ${Status}", "watrunk").stdout.endswith(
        "+newer install ok installed")
    assert arm.path("/etc/watrunk/watrunk.toml").read_text() == edited
    arm.path("/etc/watrunk/watrunk.toml").write_text(edited + "[gatway]\n")
    assert "this version does not accept /etc/watrunk/watrunk.toml" in arm.install(deb, "--force-downgrade", "--force-confdef")

    arm.run("dpkg", "--remove", "watrunk", check=True)
    assert arm.path("/etc/watrunk/watrunk.toml").exists() and not arm.path("/usr/bin/watrunk").exists()
    arm.run("dpkg", "--purge", "watrunk", check=True)
    assert arm.run(*TRACES).stdout == ""
    assert "watrunk" not in arm.path("/etc/passwd").read_text() + arm.path("/etc/group").read_text()


def test_the_package_of_32_bit_arm_installs_too(bare):
    """By this machine's dpkg: the scripts run as they are, the binary by its emulator."""
    bare.run("dpkg", "--add-architecture", "armhf", check=True)
    said = bare.install(newest("armhf"))
    # The postinst can't ask the binary about its config, and says what it says of a config that is not ready.
    assert "then: watrunk check && systemctl start watrunk" in said
    assert bare.run("dpkg-query", "--show", "--showformat=${Architecture} ${Status}", "watrunk").stdout == "armhf install ok installed"

    shutil.copy(CACHE / "cross" / "bin" / "qemu-arm-static", bare.path("/root/emulator"))
    version = bare.run("/root/emulator", "/usr/bin/watrunk", "--version", check=True).stdout
    assert re.fullmatch(r"watrunk \d+\.\d+\.\d+\n", version)
    configure(bare)
    told = bare.run("/root/emulator", "/usr/bin/watrunk", "check", check=True).stdout
    assert "board: generic-armv7 (" in told
    bare.run("dpkg", "--purge", "watrunk:armhf", check=True)
    bare.path("/root/emulator").unlink()
    assert bare.run(*TRACES).stdout == ""
