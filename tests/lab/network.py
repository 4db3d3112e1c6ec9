"""A network of our own for one test run: nothing in it can leave it. And mounts of our own.

ICE agents skip 127/8, so the run gets a network namespace with a pair of veth devices and ordinary
addresses on them. The namespace has no name: it goes away with the process, there is nothing to clean up.
"""

import ctypes
import os
import subprocess
import time

CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000
MS_REC, MS_SLAVE = 1 << 14, 1 << 19
PREFIX = "10.99.0"


def address(host):
    """The address of one host of the test network, 1 to 254."""
    return f"{PREFIX}.{host}"


def enter(hosts=range(1, 71)):
    """Moves this process, and all threads and children it starts from now on, into a namespace of its own.

    Call it before any thread exists; a second call does nothing. Needs root.
    """
    if getattr(enter, "done", False):
        return
    if os.geteuid() != 0:
        raise PermissionError("the tests need root for a network namespace: run them by `make test`")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "no network namespace: " + os.strerror(ctypes.get_errno()))
    # What is mounted from here on is gone with the run, however that ends.
    if libc.mount(None, b"/", None, MS_REC | MS_SLAVE, None) != 0:
        raise OSError(ctypes.get_errno(), "no mount namespace: " + os.strerror(ctypes.get_errno()))
    lines = ["link set lo up", "link add wa0 type veth peer name wa1"]
    lines += [f"addr add {address(h)}/24 dev wa0" for h in hosts]
    lines += ["link set wa0 up", "link set wa1 up"]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines).encode(), check=True)
    enter.done = True


class Beyond:
    """A second host, at the other end of a link: a namespace of its own, with one IPv6 address. The lab's end of the link has another."""

    def __init__(self, near, far, bits=64):
        self._host = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        self.inside = ["nsenter", f"--net=/proc/{self._host.pid}/ns/net"]
        try:
            self._until_apart()
            self._ip([], f"link add near0 type veth peer name far0 netns {self._host.pid}", f"addr add {near}/{bits} dev near0 nodad", "link set near0 up")
            self._ip(self.inside, "link set lo up", f"addr add {far}/{bits} dev far0 nodad", "link set far0 up")
        except BaseException:
            self.close()
            raise

    def _until_apart(self):
        until = time.monotonic() + 10
        while os.stat(f"/proc/{self._host.pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:
            assert self._host.poll() is None and time.monotonic() < until, "there is no second network namespace"
            time.sleep(0.01)

    @staticmethod
    def _ip(inside, *lines):
        subprocess.run([*inside, "ip", "-batch", "-"], input="\n".join(lines).encode(), check=True)

    def close(self):
        """The link is gone with the host."""
        self._host.kill()
        self._host.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
