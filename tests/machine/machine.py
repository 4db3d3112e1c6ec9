"""A whole emulated ARM board: Debian's kernel, systemd as PID 1, every right that root has on a real one.

Slower than tests/package by far, but what those can't see on most hosts is in force here: real-time priority, locked
memory, limits of memory and tasks, a clock that can be set, a root that is read-only.
"""

import base64
import pathlib
import shlex
import shutil
import socket
import subprocess
import time

from box import CACHE, Box, tree

HERE = pathlib.Path(__file__).resolve().parent
# Of no use here, and each costs seconds.
OFF = ["serial-getty@ttyAMA0.service", "serial-getty@hvc0.service", "getty.target", "e2scrub_reap.service",
       "e2scrub_all.timer", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer",
       "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service"]


def _disk(path, size, *options):
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", *options, str(path), size], check=True, stdout=subprocess.DEVNULL)


class Machine(Box):
    """One machine. `run()` runs a command in it, like in a box; its files can't be reached from outside."""

    def __init__(self, folder, deb):
        self.folder = pathlib.Path(folder)
        self.process = self.pid = self.port = None
        self.asked = 0
        root = self.folder / "root"
        subprocess.run(["cp", "-a", str(tree("arm64")), str(root)], check=True)
        shutil.copy(deb, root / "root" / "watrunk.deb")
        shutil.copy(HERE / "agent.sh", root / "usr" / "local" / "sbin" / "agent")
        units = root / "etc" / "systemd" / "system"
        (units / "agent.service").write_text("[Service]\nExecStart=/usr/local/sbin/agent\nRestart=always\n")
        (units / "multi-user.target.wants").mkdir(exist_ok=True)
        (units / "multi-user.target.wants" / "agent.service").symlink_to("../agent.service")
        for name in OFF:
            (units / name).symlink_to("/dev/null")
        (root / "var" / "lib" / "watrunk").mkdir()                   # where the second disk is mounted if it is
        (root / "etc" / "hostname").write_text("board\n")
        _disk(self.folder / "disk", "900M", "-d", str(root))
        _disk(self.folder / "state", "32M")
        shutil.rmtree(root)

    def boot(self, timeout=900.0, options=""):
        """Switches it on at the turn of the year 1970, as a board without a battery; returns when systemd has started."""
        at = self.folder / "port"
        disks = [word for name in ("disk", "state") for word in
                 ("-drive", f"if=none,id={name},file={self.folder / name},format=raw,cache=unsafe",
                  "-device", f"virtio-blk-device,drive={name}")]
        self.process = subprocess.Popen(
            ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "768", "-display", "none",
             "-accel", "tcg,thread=multi", "-nodefaults", "-no-reboot", "-rtc", "base=1970-01-01T00:00:10",
             "-kernel", str(CACHE / "machine" / "vmlinuz"), "-initrd", str(CACHE / "machine" / "initrd"),
             "-append", f"console=ttyAMA0 loglevel=4 mitigations=off {options}",
             # The last that is named is the first that Linux finds.
             *disks[4:], *disks[:4], "-global", "virtio-mmio.force-legacy=false", "-device", "virtio-keyboard-device", "-device", "virtio-serial-device",
             "-chardev", f"socket,id=port,path={at},server=on,wait=off", "-device", "virtconsole,chardev=port",
             "-serial", f"file:{self.folder / 'console'}", "-monitor", "none"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            assert self.process.poll() is None, self.process.stderr.read().decode()
            self.port = socket.socket(socket.AF_UNIX)
            try:
                self.port.connect(str(at))
                # What is said before the console is open is lost: so it is asked again and again.
                while self.run("systemctl", "is-system-running", timeout=15).stdout.strip() not in ("running", "degraded"):
                    assert time.monotonic() < until
                    time.sleep(1)
                return self
            except OSError:
                self.port.close()
                time.sleep(1)
        raise AssertionError("the machine did not boot:\n" + (self.folder / "console").read_text(errors="replace")[-3000:])

    def off(self):
        """Pulls the plug."""
        if self.port:
            self.port.close()
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
        (self.folder / "port").unlink(missing_ok=True)

    def run(self, *command, check=False, timeout=180):
        """A command in the machine, one word: a line for its shell. Its exit code, stdout and stderr."""
        line = command[0] if len(command) == 1 else shlex.join(command)
        self.asked += 1
        self.port.settimeout(timeout)
        self.port.sendall(f"{self.asked} ".encode() + base64.b64encode(line.encode()) + b"\n")
        said = b""
        while True:
            while b"\n" not in said:
                more = self.port.recv(65536)
                if not more:
                    raise OSError("the machine went away")
                said += more
            answer, _, said = said.partition(b"\n")
            words = answer.decode(errors="replace").split()
            # Not the echo of what was asked before the console was set up, nor an answer that nobody waited for.
            if len(words) == 4 and words[0] == str(self.asked):
                break
        code, texts = int(words[1]), [base64.b64decode(word[:-1]).decode() for word in words[2:]]
        done = subprocess.CompletedProcess(line, code, *texts)
        assert not check or done.returncode == 0, f"{line}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def write(self, path, text):
        """Writes a file; one that is there keeps its owner and mode."""
        self.run(f"echo {base64.b64encode(text.encode()).decode()} | base64 -d >{shlex.quote(path)}", check=True)
