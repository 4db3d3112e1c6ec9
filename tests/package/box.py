"""A box: a small Debian with systemd as PID 1, in which the package is installed like on a real one."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = pathlib.Path(os.environ.get("WATRUNK_CACHE") or pathlib.Path.home() / ".cache" / "watrunk")

# A sound config, all on loopback: nobody is called.
GOOD = """\
[gateway]
name = "box-under-test"

[http]
listen = "127.0.0.1:8080"

[whatsapp]
graph_url = "http://127.0.0.1:9"
app_secret = "app-secret-of-the-test"
access_token_file = "access_token"
verify_token = "verify-token-of-the-test"

[sip]
listen = "127.0.0.1:5060"

[[trunk]]
name = "pbx"
server = "sip:127.0.0.9:5060"
username = "gw"
password = "trunk-secret-of-the-test"
"""


def newest(arch):
    """The package that was built last for an architecture."""
    found = sorted((ROOT / "target" / "deb").glob(f"watrunk_*_{arch}.deb"), key=lambda p: p.stat().st_mtime)
    assert found, f"no package for {arch} in target/deb: make deb first"
    return found[-1]


def tree(arch=None):
    """The Debian that boxes are copies of, of this machine's architecture or another; made now if it is not there yet."""
    path = CACHE / (f"box-{arch}" if arch else "box")
    subprocess.run([str(HERE / "tree.sh"), str(path), *([arch] if arch else [])], check=True, stdin=subprocess.DEVNULL)
    return path


class Box:
    """One box. Its files are under `root`; `boot()` starts it, `run()` runs a command in it."""

    cursor = None                        # where in the journal `said()` begins

    def __init__(self, root, arch=None):
        self.root = pathlib.Path(root)
        subprocess.run(["cp", "-a", "--reflink=auto", str(tree(arch)), str(self.root)], check=True)
        self.process = self.pid = None

    def boot(self, timeout=90.0):
        """Returns once systemd has started everything."""
        self.process = subprocess.Popen([str(HERE / "boot.sh"), str(self.root)], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            assert self.process.poll() is None, self.process.stderr.read().decode()
            children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            self.pid = int(children[0]) if children else None
            if self.pid and self.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"):
                return self
            time.sleep(0.2)
        raise AssertionError("the box did not boot")

    def off(self):
        """Switches it off, hard, and takes it away."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        shutil.rmtree(self.root, ignore_errors=True)

    def run(self, *command, check=False, timeout=120):
        """A command in the box: its exit code, stdout and stderr."""
        if self.pid:
            inside = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--uts", "--ipc", "--cgroup"]
        else:
            inside = ["chroot", str(self.root)]
        done = subprocess.run([*inside, "env", "--chdir=/", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive",
                               "SYSTEMD_PAGER=", *command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=timeout)
        assert not check or done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def install(self, deb, *options):
        """dpkg installs a package file; what it said."""
        shutil.copy(deb, self.root / "root" / "watrunk.deb")
        done = self.run("dpkg", *options, "--install", "/root/watrunk.deb", check=True)
        return done.stdout + done.stderr

    def unit(self, *names):
        """Properties of watrunk.service, as a list of words."""
        text = self.run("systemctl", "show", "watrunk.service", *[f"--property={n}" for n in names]).stdout
        found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        return [found[name] for name in names]

    def settled(self, timeout=40.0):
        """The unit's state once it is neither starting nor stopping, and stays so for longer than RestartSec."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if self.unit("ActiveState")[0] in ("active", "failed", "inactive"):
                before = self.unit("ActiveState", "NRestarts")
                time.sleep(3.0)
                if self.unit("ActiveState", "NRestarts") == before:
                    return before[0]
            time.sleep(0.1)
        raise AssertionError(f"the unit does not settle: {self.unit('ActiveState', 'SubState', 'NRestarts')}")

    def said(self):
        """What the program itself wrote to the journal since the last `forget()`, line by line."""
        self.run("journalctl", "--sync")
        after = [f"--cursor={self.cursor}"] if self.cursor else []
        text = self.run("journalctl", "--unit=watrunk", "--output=cat", "--no-pager", "SYSLOG_IDENTIFIER=watrunk", *after).stdout
        return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in text.splitlines()]

    def forget(self):
        """What was said until now doesn't count, nor what failed."""
        self.run("systemctl", "stop", "watrunk")
        self.run("systemctl", "reset-failed", "watrunk")
        # A mark in the journal, not a time: clocks may be set.
        self.run("systemd-cat", "--identifier=mark", "echo", "mark", check=True)
        self.run("journalctl", "--sync")
        shown = self.run("journalctl", "--identifier=mark", "--lines=1", "--output=cat", "--show-cursor", check=True).stdout
        self.cursor = shown.split("-- cursor: ")[1].strip()

    def path(self, inside):
        """Where a file of the box is for us."""
        return self.root / str(inside).lstrip("/")
