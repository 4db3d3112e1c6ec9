"""A Pipecat bot as a process of its own, in its own environment: what it tells, and what it heard."""

import hashlib
import json
import os
import pathlib
import subprocess
import threading
import time

import numpy as np

from bot import Authority

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("WATRUNK_CACHE") or pathlib.Path.home() / ".cache" / "watrunk")


class Pipecat:
    """One running bot. `told` are its lines as dicts, oldest first."""

    def __init__(self, address, port, folder, rest, key):
        self.address, self.port, self.told = address, port, []
        self.authority = Authority(folder, address)
        pins = hashlib.sha256((HERE / "pipecat.txt").read_bytes()).hexdigest()[:12]
        python = CACHE / f"pipecat-{pins}" / "bin" / "python"
        assert python.exists(), f"{python} is missing: tests/lab/prepare.sh makes it"
        # -I: nothing of the lab is to be found under a name that Pipecat means for something else.
        self._process = subprocess.Popen(
            [python, "-I", HERE / "pipecat_bot.py", address, str(port), self.authority.chain, folder, rest, key],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=open(folder / "pipecat.log", "wb"))
        threading.Thread(target=self._read, name="pipecat", daemon=True).start()
        self._log = folder / "pipecat.log"

    def _read(self):
        for line in self._process.stdout:
            self.told.append(json.loads(line))

    def url(self, dialect):
        """Where the bot is."""
        return f"wss://{self.address}:{self.port}/{dialect}"

    def ready(self, timeout=60.0):
        """Returns once it listens."""
        self.wait(lambda: f":{self.port:04X} 00000000:0000 0A" in pathlib.Path("/proc/self/net/tcp").read_text(), timeout)
        return self

    def wait(self, found, timeout=8.0):
        """Waits until `found()` is something; that."""
        end = time.monotonic() + timeout
        while True:
            value = found()
            if value:
                return value
            log = self._log.read_text(errors="replace")[-3000:]
            assert self._process.poll() is None, f"the bot has ended:\n{log}"
            assert time.monotonic() < end, f"not within {timeout} s; told: {self.told[-5:]}\n{log}"
            time.sleep(0.05)

    def of(self, what, after):
        """The lines of one kind since a time."""
        return [t for t in self.told if t["what"] == what and t["at"] >= after]

    def heard(self, call):
        """What it heard on a call that is over: samples and rate."""
        self.wait(lambda: any(t["what"] == "over" and t["file"] == call["file"] for t in self.told))
        return np.frombuffer(pathlib.Path(call["file"]).read_bytes(), "<i2") / 32768, call["rate"]

    def stop(self):
        """Ends it."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
