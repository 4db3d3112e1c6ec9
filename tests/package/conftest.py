"""What the tests of the package share: the package, a newer one, and boxes to install them in.

The package is $WATRUNK_DEB, or else the newest of this machine's architecture in target/deb.
"""

import os
import pathlib
import subprocess

import pytest

from box import CACHE, GOOD, HERE, Box, newest

@pytest.fixture(scope="session")
def deb():
    given = os.environ.get("WATRUNK_DEB")
    if given:
        return pathlib.Path(given).resolve()
    arch = subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True).stdout.strip()
    return newest(arch)


@pytest.fixture(scope="session")
def newer(deb, tmp_path_factory):
    return newer_than(deb, tmp_path_factory.mktemp("newer"))


def newer_than(deb, folder):
    """The same package with a higher version, and a config in it that changed."""
    subprocess.run(["dpkg-deb", "--raw-extract", str(deb), str(folder / "x")], check=True)
    control = folder / "x" / "DEBIAN" / "control"
    text = control.read_text()
    version = next(line for line in text.splitlines() if line.startswith("Version: "))
    control.write_text(text.replace(version, version + "+newer"))
    with open(folder / "x" / "etc" / "watrunk" / "watrunk.toml", "a") as config:
        config.write("# a line of the newer version\n")
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(folder / "x"), str(folder / "newer.deb")], check=True,
                   stdout=subprocess.DEVNULL)
    return folder / "newer.deb"


@pytest.fixture
def bare(tmp_path):
    """A box that is not switched on, and without the package."""
    box = Box(tmp_path / "box")
    yield box
    box.off()


@pytest.fixture
def arm(tmp_path):
    """A chroot in which everything is of arm64, dpkg and its scripts included, and runs by an emulator."""
    subprocess.run([str(HERE / "binfmt.sh"), "on", str(CACHE / "cross" / "bin" / "qemu-aarch64-static")], check=True)
    box = None
    try:
        box = Box(tmp_path / "arm", "arm64")
        yield box
    finally:
        if box:
            box.off()
        subprocess.run([str(HERE / "binfmt.sh"), "off"], check=True)


@pytest.fixture(scope="module")
def box(deb, tmp_path_factory):
    """A running box with the package in it, its config edited and sound, its service stopped."""
    box = Box(tmp_path_factory.mktemp("box") / "root").boot()
    box.install(deb)
    configure(box)
    yield box
    box.off()


@pytest.fixture
def fresh(box):
    """The same box with a sound config and a quiet past."""
    configure(box)
    box.forget()
    yield box
    box.run("systemctl", "stop", "watrunk")


def configure(box, text=GOOD):
    """Edits the config as an operator does: the file keeps its owner and mode."""
    box.path("/etc/watrunk/watrunk.toml").write_text(text)
    token = box.path("/etc/watrunk/access_token")
    token.write_text("token-of-the-test\n")
    box.run("chown", "root:watrunk", "/etc/watrunk/access_token", check=True)
    token.chmod(0o640)
