"""Disks that are full, slow or broken: a small file system in memory, and what a program finds when it writes there.

Full is real: a tmpfs of a few MiB, in a mount namespace of the run's own (`network.enter`). Slow and broken are played by a
library that is preloaded into the program (`slowdisk.c`): dm-delay, nbdkit and the io controller of cgroups need a kernel or a
machine that not everybody has, and delay only what gets past the page cache; this needs the compiler that cargo needs too. It
works for the debug build, which is linked dynamically, not for the static one.
"""

import ctypes
import errno
import hashlib
import os
import pathlib
import struct
import subprocess

import pytest

from tree import CACHE, HERE

_ORDERS = struct.Struct("=QIIIiiIQQQ")           # `struct orders` of slowdisk.c
_MNT_DETACH = 2


def _call(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def library():
    """The library that is preloaded; compiled now if it is not there yet."""
    source = HERE / "slowdisk.c"
    path = CACHE / f"slowdisk-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}.so"
    if not path.exists():
        made = path.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True)
        made.rename(path)
    return path


class Disk:
    """A file system of `size` bytes at `path`, which is made. `environment` is what a program must be started with for
    `slow` and `broken` to mean anything to it."""

    def __init__(self, path, size):
        self.path = pathlib.Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        _call("mount", b"tmpfs", bytes(self.path), b"tmpfs", 0, f"size={size},mode=700".encode())
        self._orders = self.path.parent / f".{self.path.name}.orders"
        self._settings = dict(write_us=0, byte_ns=0, sync_us=0, write_error=0, sync_error=0)
        self._orders.write_bytes(_ORDERS.pack(os.stat(self.path).st_dev, *[0] * 9))
        self._file = open(self._orders, "r+b", buffering=0)

    @property
    def environment(self):
        """Variables for the program."""
        return {"LD_PRELOAD": str(library()), "LAB_DISK": str(self._orders)}

    # Full

    @property
    def free(self):
        """Bytes that still fit."""
        it = os.statvfs(self.path)
        return it.f_bavail * it.f_frsize

    def fill(self, leave=0):
        """Fills it up, but for some bytes (a page more or less)."""
        with open(self.path / ".ballast", "ab") as ballast:
            size = max(0, self.free - leave)
            if size:
                os.posix_fallocate(ballast.fileno(), ballast.tell(), size)

    def relieve(self):
        """Takes out again what `fill` has put in."""
        (self.path / ".ballast").unlink(missing_ok=True)

    # Slow and broken

    def _order(self, **change):
        self._settings |= change
        os.pwrite(self._file.fileno(), struct.pack("=IIIii", *self._settings.values()), 8)

    def slow(self, write=0.0, sync=0.0, rate=None):
        """From now on each write takes so many seconds, each fsync or fdatasync so many, and at most `rate` bytes a second are
        written by one thread."""
        self._order(write_us=int(write * 1e6), sync_us=int(sync * 1e6), byte_ns=int(1e9 / rate) if rate else 0)

    def broken(self, write=errno.EIO, sync=0):
        """From now on writes, or syncs, fail with this errno; 0 is none."""
        self._order(write_error=write, sync_error=sync)

    def well(self):
        """Neither slow nor broken any more."""
        self.slow()
        self.broken(0, 0)

    @property
    def asked(self):
        """(writes, bytes, syncs) that the program has asked for."""
        return struct.unpack("=QQQ", os.pread(self._file.fileno(), 24, 32))

    def remove(self):
        """Takes it away, whoever still uses it."""
        if self._file.closed:
            return
        self.well()
        self._file.close()
        self._orders.unlink(missing_ok=True)
        _call("umount2", bytes(self.path), _MNT_DETACH)


@pytest.fixture
def disks(tmp_path):
    """Makes disks that are gone with the test: `disks(name, bytes)`."""
    made = []

    def make(name="disk", size=4 << 20):
        made.append(Disk(tmp_path / name, size))
        return made[-1]
    yield make
    for it in made:
        it.remove()
