"""The program under test, as a process: its configuration, its start, its log, its records, its end."""

import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
import urllib.request

import lateness
import network

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("WATRUNK_BINARY") or ROOT / "target" / "debug" / "watrunk")
VERIFY_TOKEN = "verify-d41d8cd98f00"
API_KEY = "sk_lab_5b3c1f0e9a7d"


def section(name, server, **keys):
    """A [[trunk]] of the configuration; a key of None is left out."""
    keys = {"name": name, "server": server} | keys
    return "[[trunk]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in keys.items() if v is not None)


class Gateway:
    """One `watrunk run`. `numbers` maps an extension of the PBX to the WhatsApp number that leads there.

    `command` starts another binary, or one under an emulator; `media`, `http`, `sip` and `whatsapp` are text for those
    sections, `more` is text for the end of the file. `trunks` are made by `section()` and stand in place of the one named
    "pbx". `own` are keys of single numbers that are not as usual, a value of None leaves one out. `apart`: only webhooks of
    its own numbers come to it. `environment` are more variables.
    """

    def __init__(self, folder, cloud, pbx, host, numbers, trunk=("gw", "gw-secret"), ring_seconds=6, max_calls=50,
                 drain_seconds=30, codecs=("pcma", "pcmu"), command=(BINARY,), media="", http="", whatsapp="", more="",
                 own=None, apart=False, sip="", trunks=None, environment=None):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cloud, self.pbx = cloud, pbx
        self.numbers, self.apart = numbers, apart
        self.address = network.address(host)
        self.secrets = [cloud.token, cloud.app_secret, VERIFY_TOKEN, API_KEY, trunk[1]]
        self.config = self.folder / "watrunk.toml"
        assert pathlib.Path(command[-1]).exists(), f"{command[-1]} is missing: build it first"
        self.command, self.environment = [str(word) for word in command], environment or {}
        self.process = None
        self.out, self.err = [], []
        if trunks is None:
            trunks = [section("pbx", f"sip:{pbx.address}:5060;transport=udp", username=trunk[0], password=trunk[1], register=True,
                              codecs=list(codecs))]
        self.secrets += re.findall(r'(?m)^password = "(.*)"$', "".join(trunks))
        first = re.search(r'(?m)^name = "(.*)"$', trunks[0]).group(1)
        text = f"""
[gateway]
name = "lab"
state_dir = "{self.folder}/state"
max_calls = {max_calls}
drain_seconds = {drain_seconds}
[http]
listen = "{self.address}:8080"
public_url = "https://lab.example"
{http}
[[http.key]]
name = "ops"
key = "{API_KEY}"
role = "admin"
[whatsapp]
graph_url = "{cloud.graph_url}"
app_secret = "{cloud.app_secret}"
access_token = "{cloud.token}"
verify_token = "{VERIFY_TOKEN}"
{whatsapp}
[media]
listen_ip = "{self.address}"
webrtc_ports = "40000-40099"
rtp_ports = "20000-20199"
{media}
[sip]
listen = "{self.address}:5060"
ring_seconds = {ring_seconds}
{sip}
""" + "".join(trunks)
        for extension, number in numbers.items():
            keys = {"id": f'"{extension}"', "phone_number_id": f'"{number.pnid}"', "phone_number": f'"{number.phone}"',
                    "forward_to": f'"sip:{extension}@{first}"', "trunk": f'"{first}"'} | (own or {}).get(extension, {})
            text += "\n[[number]]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items() if v is not None)
        text += more
        self.config.write_text(text)
        self.config.chmod(0o600)

    @property
    def url(self):
        """Where its HTTP listens."""
        return f"http://{self.address}:8080"

    def start(self, timeout=15.0):
        """Returns once it has printed its ready line and is registered; takes over the cloud's webhooks."""
        self.start_unready(timeout)
        self._until(lambda: self.get("/readyz")[0] == 200, timeout, "did not become ready to take calls")
        return self

    def start_unready(self, timeout=15.0):
        """Returns once it has printed its ready line, whether or not its trunks are up."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WATRUNK_")}
        environment["RUST_LOG"] = environment["WATRUNK_LOG"] = "info,watrunk=debug"
        environment |= self.environment
        self.process = subprocess.Popen([*self.command, "run", "--config", str(self.config)], env=environment,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        lateness.follow(self.process.pid)
        self._readers = [threading.Thread(target=self._read, args=streams, daemon=True)
                         for streams in ((self.process.stdout, self.out), (self.process.stderr, self.err))]
        for reader in self._readers:
            reader.start()
        self._until(lambda: any(re.search(r"\bready\b", line, re.I) for line in self.out), timeout, "printed no ready line")
        self._take_over()
        return self

    def _take_over(self):
        """From now on Meta's webhooks come here: those of its numbers, and unless it is `apart`, all that name none."""
        cloud, url = self.cloud, f"{self.url}/webhooks/whatsapp"
        if not hasattr(self, "_before"):
            self._before = cloud.webhook, {n.pnid: cloud.webhooks.get(n.pnid) for n in self.numbers.values()}
        cloud.knows(*self.numbers.values())
        cloud.webhooks |= {n.pnid: url for n in self.numbers.values()}
        if not self.apart:
            cloud.webhook = url

    def _hand_back(self):
        if hasattr(self, "_before"):
            webhook, routes = self._before
            self.cloud.webhooks |= routes
            if not self.apart:
                self.cloud.webhook = webhook

    def _read(self, pipe, lines):
        for line in pipe:
            lines.append(re.sub(r"\x1b\[[0-9;]*m", "", line.decode(errors="replace").rstrip()))

    def _until(self, true, timeout, complaint):
        until = time.monotonic() + timeout
        while not true():
            if self.process.poll() is not None:
                raise AssertionError(f"the gateway ended with {self.process.returncode}:\n" + self.tail())
            if time.monotonic() > until:
                raise AssertionError(f"the gateway {complaint} within {timeout} s:\n" + self.tail())
            time.sleep(0.02)

    def tail(self, lines=40):
        """The end of what it said."""
        return "\n".join(self.out[-10:] + self.err[-lines:])

    def get(self, path):
        """Status and body of a GET, 0 if nobody answers."""
        try:
            request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {API_KEY}"})
            with urllib.request.urlopen(request, timeout=10) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def run(self, *arguments):
        """One of the other verbs, with this gateway's configuration; what it printed."""
        done = subprocess.run([*self.command, *arguments, "--config", str(self.config)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        assert done.returncode == 0, f"watrunk {' '.join(arguments)}: exit {done.returncode}: {done.stderr.decode()}"
        return done.stdout.decode()

    def records(self):
        """What `watrunk calls --offline --json` lists, out of the history file: one dict a call."""
        text = self.run("calls", "--offline", "--json", "--limit", "100")
        try:
            found = json.loads(text)
        except ValueError:
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        while isinstance(found, dict):
            found = next((v for v in found.values() if isinstance(v, (list, dict))), [])
        return found

    def record(self, call, timeout=8.0):
        """The record of one call; waits until it is written."""
        until = time.monotonic() + timeout
        while True:
            for record in self.records():
                if call.id in [v for v in record.values() if isinstance(v, str)]:
                    return record
            if time.monotonic() > until:
                raise AssertionError(f"no record of {call.id} in `watrunk calls`:\n" + self.tail())
            time.sleep(0.1)

    def memory(self):
        """Resident memory in MiB."""
        return int(re.search(r"VmRSS:\s+(\d+)", self._proc("status")).group(1)) / 1024

    def descriptors(self):
        """How many files and sockets it has open: (TCP connections, everything else).

        TCP is told apart because idle connections to Graph are kept for the next request.
        """
        tcp, rest = 0, 0
        streams = set(re.findall(r"(?m)^(?:\s*\S+){9}\s+(\d+)", self._proc("net/tcp") + self._proc("net/tcp6")))
        for name in os.listdir(f"/proc/{self.process.pid}/fd"):
            try:
                target = os.readlink(f"/proc/{self.process.pid}/fd/{name}")
            except FileNotFoundError:
                continue
            found = re.fullmatch(r"socket:\[(\d+)\]", target)
            tcp, rest = (tcp + 1, rest) if found and found.group(1) in streams else (tcp, rest + 1)
        return tcp, rest

    def _proc(self, name):
        return pathlib.Path(f"/proc/{self.process.pid}/{name}").read_text()

    def udp_ports(self, first, last):
        """The UDP ports it has bound within a range."""
        local = "".join(f"{int(part):02X}" for part in reversed(self.address.split(".")))
        ports = (int(p, 16) for p in re.findall(rf"\b{local}:([0-9A-F]{{4}})", self._proc("net/udp")))
        return [p for p in ports if first <= p <= last]

    def kill(self):
        """SIGKILL: what a power cut is to a process."""
        lateness.forget(self.process.pid)
        self.process.kill()
        self.process.wait(10)

    def reload(self):
        """SIGHUP, without waiting."""
        self.process.send_signal(signal.SIGHUP)

    def terminate(self):
        """SIGTERM, without waiting."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout=10.0):
        """Its exit code."""
        lateness.forget(self.process.pid)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the gateway was still there {timeout} s after SIGTERM:\n" + self.tail()) from None

    def stop(self):
        """Ends it, then reads its log: exit 0, no line of level ERROR, no panic, nothing private above DEBUG."""
        self._hand_back()
        if self.process is None:
            return
        if self.process.poll() is None:
            self.terminate()
        code = self.wait(45)
        for reader in self._readers:
            reader.join(5)          # until it has read the last line
        (self.folder / "log.txt").write_text("\n".join(self.out + self.err))
        wrong = self.complaints()
        assert not wrong, "\n".join(wrong[:20])
        assert code == 0, f"exit {code} after SIGTERM:\n" + self.tail()

    def complaints(self):
        """Lines of the log that must not be there."""
        private = self.secrets + [c.user for c in self.cloud.calls.values() if c.user] + list(self.cloud.people)
        wrong, level = [], "INFO"
        for line in self.out + self.err:
            found = re.search(r"\b(TRACE|DEBUG|INFO|WARN|ERROR)\b", line)
            level = found.group(1) if found else level
            if level == "ERROR" or "panicked at" in line:
                wrong.append(f"a defect in the log: {line}")
            for word in private:
                if word in line and (word in self.secrets or level not in ("TRACE", "DEBUG")):
                    wrong.append(f"something private in the log ({level}): {line}")
        return wrong
