"""The unpacked tree with the real SIP programs, and one of them as a process of its own."""

import os
import pathlib
import shutil
import signal
import subprocess
import time

import lateness
import network

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("WATRUNK_CACHE") or pathlib.Path.home() / ".cache" / "watrunk")


def tree():
    """Where it is; made now if it is not there yet."""
    path = CACHE / "peers"
    subprocess.run([str(HERE / "build-tree.sh"), str(path)], check=True, stdin=subprocess.DEVNULL)
    run = path / "run"
    # What they write is kept in memory and gone with the run's mounts: a PBX that waits for this machine's disk is silent.
    if getattr(network.enter, "done", False) and not os.path.ismount(run):
        folders = [it.name for it in run.iterdir() if it.is_dir() and not it.name.startswith("watrunk-")]
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g,mode=755", "tmpfs", str(run)], check=True)
        for name in folders:
            (run / name).mkdir()
    return path


class Program:
    """A program of the tree, in a folder of its own there: `run` as seen from here, `inside` as the program sees it."""

    def __init__(self, name):
        self.root = tree()
        self.inside = f"/run/watrunk-{os.getpid()}-{name}"
        self.run = self.root / self.inside[1:]
        self.process = None
        self.host = None                # a `network.Beyond`, if it runs at another host
        shutil.rmtree(self.run, ignore_errors=True)
        self.run.mkdir(parents=True)

    def chroot(self, *argv):
        """The command line that runs something in the tree."""
        return ["chroot", str(self.root), *map(str, argv)]

    def launch(self, *argv, stdin=subprocess.DEVNULL):
        """Starts it; what it prints goes into `stdout`."""
        with open(self.run / "stdout", "ab") as out:
            where = self.host.inside if self.host else []
            self.process = subprocess.Popen([*where, *self.chroot(*argv)], stdin=stdin, stdout=out, stderr=out, start_new_session=True)
        lateness.follow(self.process.pid, lateness.PROGRAM)

    def printed(self):
        """What it has printed so far."""
        path = self.run / "stdout"
        return path.read_text(errors="replace") if path.exists() else ""

    def until(self, true, timeout, complaint):
        """Waits until `true()`; fails if it does not come true, or the program is gone."""
        end = time.monotonic() + timeout
        while not true():
            gone = self.process.poll() is not None
            if gone or time.monotonic() > end:
                raise AssertionError(f"{complaint} within {timeout} s{' and is gone' if gone else ''}:\n" + self.printed()[-3000:])
            time.sleep(0.02)
        return self

    def kill(self):
        """SIGKILL: nobody is told anything."""
        if self.process:
            lateness.forget(self.process.pid)
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def end(self):
        """SIGTERM, and SIGKILL if that is not enough."""
        if self.process:
            lateness.forget(self.process.pid)
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()

    def stop(self):
        """Ends it and removes what this run left in the tree. WATRUNK_LAB_LOGS names a folder that keeps it."""
        self.end()
        if os.environ.get("WATRUNK_LAB_LOGS"):
            shutil.copytree(self.run, pathlib.Path(os.environ["WATRUNK_LAB_LOGS"]) / self.run.name, dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns("*.wav16", "asterisk.ctl", "*_fifo", "*.sock"))
        shutil.rmtree(self.run, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
