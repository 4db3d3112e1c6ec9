"""The lab's disks are as full, as slow and as broken as they are said to be, and other disks are not."""

import errno
import json
import os
import subprocess
import sys

import pytest

# What a program does there: (seconds, error) of each write of 16 kB and of each sync. Python's os.write is the C library's.
PROGRAM = """
import json, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_APPEND)
def timed(what):
    begin = time.monotonic()
    try:
        what(); error = 0
    except OSError as fault:
        error = fault.errno
    return time.monotonic() - begin, error
for line in sys.stdin:
    print(json.dumps([timed(lambda: os.write(fd, bytes(16000))), timed(lambda: os.fdatasync(fd)), timed(lambda: os.pwrite(fd, bytes(16000), 0))]), flush=True)
"""


@pytest.fixture
def writer():
    """Starts a program that writes to a file whenever it is told to."""
    started = []

    def start(path, disk):
        it = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], env=os.environ | disk.environment, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
        started.append(it)

        def once():
            it.stdin.write("\n")
            it.stdin.flush()
            return json.loads(it.stdout.readline())
        once()
        return once
    yield start
    for it in started:
        it.communicate()


def test_a_full_disk_has_no_room_until_it_is_relieved(disks):
    disk = disks("small", 1 << 20)
    assert 900_000 < disk.free <= 1 << 20
    disk.fill(leave=20_000)
    (disk.path / "fits").write_bytes(bytes(10_000))
    disk.fill()
    with pytest.raises(OSError) as told:
        (disk.path / "more").write_bytes(bytes(5_000))
    assert told.value.errno == errno.ENOSPC and disk.free == 0
    disk.relieve()
    (disk.path / "more").write_bytes(bytes(5_000))
    assert (disk.path / "fits").stat().st_size == 10_000


def test_a_slow_disk_is_slow_while_it_is_said_to_be_and_no_other_disk_is(disks, writer, tmp_path):
    disk = disks()
    there, elsewhere = writer(disk.path / "file", disk), writer(tmp_path / "file", disk)
    before = disk.asked
    disk.slow(write=0.2, sync=0.5)
    slow, other = there(), [elsewhere() for _ in range(5)]
    disk.slow(rate=160_000)
    throttled = there()
    disk.well()
    well = [there() for _ in range(5)]
    print(f"slow {slow}, throttled {throttled}, well {well}, elsewhere {other}")
    for (took, error), least in zip(slow, (0.2, 0.5, 0.2)):
        assert least <= took < least + 1 and not error
    assert throttled[0][0] >= 0.1 <= throttled[2][0]
    # A disk of its own accord takes a moment too, now and then: not each time.
    for kind in range(3):
        assert min(turn[kind][0] for turn in well) < 0.1 and min(turn[kind][0] for turn in other) < 0.1
    assert not any(error for turn in well + other for _, error in turn)
    assert [b - a for a, b in zip(before, disk.asked)] == [14, 224_000, 7]


def test_a_broken_disk_fails_as_it_is_told_to(disks, writer):
    disk = disks()
    there = writer(disk.path / "file", disk)
    disk.broken(write=errno.EIO)
    assert [error for _, error in there()] == [errno.EIO, 0, errno.EIO]
    disk.broken(write=0, sync=errno.ENOSPC)
    assert [error for _, error in there()] == [0, errno.ENOSPC, 0]
    disk.well()
    assert [error for _, error in there()] == [0, 0, 0]


def test_nothing_of_a_disk_is_left_when_it_is_removed(disks):
    disk = disks("gone")
    (disk.path / "file").touch()
    assert str(disk.path) in open("/proc/self/mounts").read()
    assert str(disk.path) not in open(f"/proc/{os.getppid()}/mounts").read(), "who started the run sees nothing of it"
    disk.remove()
    assert str(disk.path) not in open("/proc/self/mounts").read() and os.listdir(disk.path) == []
    disk.remove()               # once more does nothing
