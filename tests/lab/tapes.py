"""What the tests of recordings share: gateways that record, the prompt that is played, and a recording as it is fetched."""

import re
import struct
import subprocess
import time
import urllib.request
import wave

import numpy as np
import pytest

import asterisk
import lateness
import sound
from gateway import section
from recording import Players
from tree import Program
from trunklab import account, until
from voice import Voice, _alaw, decoded

PROMPT_HERTZ, PROMPT_DBFS, PROMPT_SECONDS = 440, -10, 1.2
QUIET = 0.24                            # from the prompt's end until the two hear each other and the recording begins
USER, EARLY, FAR = 700, 1700, 1004      # what the user says; what the user says while the prompt plays; what the PBX says
CODECS = {"opus": "opus", "g722": "g722", "alaw": "pcma"}
FORMS = {"pcm": "", "wide": "sample_rate = 16000", "alaw": 'encoding = "alaw"', "ulaw": 'encoding = "ulaw"', "ogg": 'format = "ogg"'}
RATES = {"pcm": 8000, "wide": 16000, "alaw": 8000, "ulaw": 8000, "ogg": 48000}
OPERATOR, READER = "sk_lab_tapes_operator", "sk_lab_tapes_reader"
KEYS = "".join(f'[[http.key]]\nname = "{name}"\nkey = "{key}"\nrole = "{role}"\n'
               for name, key, role in (("operator", OPERATOR, "operator"), ("reader", READER, "read")))



@pytest.fixture(scope="module")
def players():
    """FFmpeg and SoX."""
    with Players() as it:
        yield it
    it.stop()


@pytest.fixture(scope="module")
def recorders(boxes, trunk_pbx, hand, tmp_path_factory):
    """Starts gateways that record."""
    return Recorders(boxes, hand, tmp_path_factory.mktemp("tapes"))


def tone_file(path, hertz=PROMPT_HERTZ, dbfs=PROMPT_DBFS, seconds=PROMPT_SECONDS, rate=8000):
    """A WAV file with a tone: a prompt that is easily told from everything else."""
    x = np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate) * 10 ** (dbfs / 20)
    with wave.open(str(path), "wb") as w:
        w.setnchannels(1), w.setsampwidth(2), w.setframerate(rate)
        w.writeframes((x * 32767).astype("<i2").tobytes())
    return path


class Recorders:
    """Starts gateways that record. Each has accounts at the PBX (opus, g722, alaw) and two trunks by hand ("hand" with A-law,
    "wide" with Opus), and a number of the same name for each."""

    def __init__(self, boxes, hand, folder):
        self.boxes, self.hand = boxes, hand
        self.prompt = tone_file(folder / "prompt.wav")

    def words(self, more="", upload=""):
        """The text of [recording]. `more` wins over what it usually says."""
        keys = {"consent_prompt": f'"{self.prompt}"', "consent_seconds": "2", "pause_key": '"*"', "min_free_mib": "1", "keep_days": "3"}
        keys |= dict(line.split(" = ", 1) for line in more.splitlines() if line.strip())
        return "\n[recording]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()) + (f"\n[recording.upload]\n{upload}\n" if upload else "")

    def numbers(self, more=None):
        """What the numbers are; `more` are others, or keys of these."""
        usual = {name: {"forward_to": f"sip:record@{name}", "trunk": name} for name in CODECS}
        usual |= {name: {"forward_to": f"sip:someone@{name}", "trunk": name} for name in ("hand", "wide")}
        for name, keys in (more or {}).items():
            usual[name] = usual.get(name, {}) | keys
        return {name: {"recording": YES} | keys for name, keys in usual.items()}

    def __call__(self, host, keys="", numbers=None, upload="", before=None, **settings):
        """A gateway. `before(box)` is called before it starts."""
        trunks = [account(name, codecs=[codec]) for name, codec in CODECS.items()]
        trunks += [section("hand", self.hand.uri(), register=False, codecs=["pcma"]), section("wide", self.hand.uri(), register=False, codecs=["opus"])]
        text = settings.pop("more", "") + self.words(keys, upload)
        box = self.boxes(host, trunks, self.numbers(numbers), ready=False, more=text, http=KEYS, **settings)
        box.secrets += [OPERATOR, READER]
        if before:
            before(box)
        box.start()
        # Ready is who has one trunk; a call of these tests may need any.
        until(lambda: all(trunk["up"] for trunk in box.api.get("/v1/trunks")["trunks"]), 15, lambda: box.api.get("/v1/trunks").json)
        return box

    def change(self, box, more="", upload=""):
        """Other words in [recording], in force when this returns."""
        text = box.config.read_text()
        box.config.write_text(text[:text.index("\n[recording]\n")] + self.words(more, upload))
        told = count(box, "reloaded")
        box.reload()
        until(lambda: count(box, "reloaded") > told, 15, "the gateway did not take the new file")


class Bare:
    """A value of the file that stands there without quotes."""

    def __init__(self, text):
        self.text = text

    def __str__(self):
        return self.text


YES, NO = Bare("true"), Bare("false")


def count(box, word):
    """How often a word is in the log."""
    return sum(word in line for line in list(box.err) + list(box.out))


def folder(box):
    """Where the recordings lie."""
    return box.folder / "state" / "recordings"


def files(box):
    """The names of what lies there."""
    return sorted(p.name for p in folder(box).iterdir()) if folder(box).exists() else []


# Calls

def said(early, hertz=USER, dbfs=-10):
    """Frames of a user who says one tone for some seconds and then another."""
    return sound.tone(EARLY, dbfs, seconds=early + 0.5)[:int(early * 50)] + sound.tone(hertz, dbfs)


def stands(recorders, box, rings, number="hand", voice=None, **how):
    """A call that stands with the PBX by hand: (user's call, PBX's line)."""
    how.setdefault("frames", sound.tone(USER, -10))
    call = rings(box, number, answered=False, **how)
    line = recorders.hand.rung(call=call)
    line.pick_up(voice or Voice(recorders.hand.address, codecs=["opus" if number == "wide" else "pcma"]))
    call.action("accept")
    return call, line


def row(box, call, timeout=8.0):
    """What the API says of a call of the lab; waits until it knows it."""
    def find():
        rows = box.api.get("/v1/calls", limit="200")["calls"]
        return next((r for r in rows if r["metaCallId"] == call.id), None)
    return until(find, timeout, lambda: f"no call {call.id}:\n{box.tail()}")


def over(box, call, timeout=10.0):
    """The same once the call is over, and its recording finished, whatever became of it."""
    def done():
        it = row(box, call)
        ready = it["status"] in ("ended", "failed") and (it["recording"] is None or it["recording"]["state"] != "running")
        return it if ready else None
    return until(done, timeout, lambda: f"not over: {row(box, call)}\n{box.tail()}")


def link(box, row):
    """A link to the file of a recording, as it works here."""
    reply = box.api.ask("GET", f"/v1/calls/{row['_id']}/recording", query={"as": "json"})
    assert reply.status == 200, reply
    return here(box, reply["url"])


def here(box, url):
    """A link that names the way from outside, or only a path."""
    return box.url + url[url.index("/v1/"):]


def fetch(box, row, folder):
    """The file of a recording, fetched by the API: its path."""
    with urllib.request.urlopen(link(box, row), timeout=30) as answer:
        name = re.search(r'filename="(.*)"', answer.headers["Content-Disposition"]).group(1)
        path = folder / name
        path.write_bytes(answer.read())
    return path


# What is heard

def _amplitude(x, rate, hertz, width=0.04, step=0.01):
    """The level of one frequency in dBFS, in windows of 40 ms each 10 ms."""
    n, hop = int(width * rate), int(step * rate)
    if len(x) < n:
        return np.zeros(0)
    window = np.hanning(n)
    wave = np.exp(-2j * np.pi * hertz * np.arange(n) / rate) * window * 2 / window.sum()
    frames = np.lib.stride_tricks.sliding_window_view(x, n)[::hop]
    return 20 * np.log10(np.maximum(np.abs(frames @ wave), 1e-6))


def _lasting(loud, least):
    """Where something is true for at least so many values in a row."""
    runs = np.split(np.arange(len(loud)), np.flatnonzero(np.diff(loud)) + 1)
    return np.concatenate([run for run in runs if len(run) >= least and loud[run[0]]] or [np.zeros(0, dtype=int)])


def stretch(x, rate, hertz, above=-25.0):
    """(begin, end) in seconds of where a tone is in some samples; None if it is nowhere. Where another tone begins or breaks
    off there are all frequencies for an instant, shorter than a packet: that is none."""
    at = _lasting(_amplitude(x, rate, hertz) > above, 4)
    return (at[0] * 0.01 + 0.01, at[-1] * 0.01 + 0.03) if len(at) else None


def prompted(call, hertz=PROMPT_HERTZ):
    """How long the prompt was that the user heard (seconds), and when it was over (seconds since 1970)."""
    heard = call.measure()
    found = stretch(heard.decode(), sound.CLOCK, hertz)
    assert found, "the user heard no prompt"
    places = np.array(heard.places)

    def at(seconds):
        sample = seconds * sound.CLOCK
        i = max(0, int(np.searchsorted(places, sample, "right")) - 1)
        return heard.order[i].at + (sample - places[i]) / sound.CLOCK
    return found[1] - found[0], at(found[1])


def pbx_heard(voice, hertz, above=-30.0):
    """For how many seconds a tone reached the PBX by hand."""
    x, rate = decoded(voice.codec, voice.audio())
    return float(len(_lasting(_amplitude(x, rate, hertz) > above, 4))) * 0.01


def tones(tape, left=USER, right=FAR, dbfs=(-10, asterisk.MILLIWATT_DBFS), begin=0.1, end=-0.1, since=None, apart=40.0, gap=0.045):
    """Fails unless the user's tone is on the left and the destination's on the right, each whole but for a `gap` and without the
    other's; a line with the numbers. Where the lab was late since a monotonic time, so much longer may a gap be."""
    late = lateness.worst(since)[0] if since is not None else 0.0
    end = tape.seconds + end if end < 0 else end
    line = []
    for name, side, mine, level, other in (("left", tape.left, left, dbfs[0], right), ("right", tape.right, right, dbfs[1], left)):
        told = side.tone(mine, level, begin, end, gap=gap + late)
        leak = side.level(begin, end) - side.share(other, begin, end)
        line.append(f"{name} {told}, the other {leak:.0f} dB down")
        assert leak >= apart, line[-1]
    return "; ".join(line)


# Both ends at the same moment

class Bursts(Voice):
    """A PBX's end that says bursts by a pattern of packets, at first in step with a user whose Opus frames have the same pattern.
    Its clock is fast by `ppm` millionths, or slow."""

    def __init__(self, address, user, payloads, ppm=0.0, **how):
        super().__init__(address, **how)
        self.user, self.payloads, self.ppm, self.spoken = user, payloads, ppm, []

    def _speak(self):
        # The user's clock: when frame 0 was said, as if each had been on time.
        begun = until(lambda: self.phase(self.user.peer.sent, 20), 5, "the user says nothing")
        now = time.time()
        i = max(0, round((now - begun) / 0.02)) + 1
        due = time.monotonic() + begun + i * 0.02 - now
        lateness.ahead()
        while self._running:
            time.sleep(max(0.0, due - time.monotonic()))
            lateness.note(lateness.PBX, due)
            self.send(self.kinds[self.codec], self._ts, self.payloads[i % len(self.payloads)], marker=not self.spoken)
            self.spoken.append((time.time(), 0, i))
            self._ts += {"opus": 960}.get(self.codec, 160)
            i += 1
            due += 0.02 / (1 + self.ppm / 1e6)

    @staticmethod
    def phase(sent, least=1, begin=0.0, end=float("inf")):
        """When frame 0 was or would have been said, of (time, …, index) as sent between two times; the median of what each says."""
        at = [at - 0.02 * i for at, _, i in list(sent) if begin <= at < end]
        return float(np.median(at)) if len(at) >= least else None

    def behind(self, begin, end):
        """Seconds by which this end says the pattern later than the user, between two times (since 1970)."""
        return self.phase(self.spoken, 1, begin, end) - self.phase(self.user.peer.sent, 1, begin, end)


def pattern(hertz, codec="opus", seconds=60.0, dbfs=-10.0):
    """Bursts of 300 ms at uneven places, as packets of 20 ms; the same places for every codec."""
    rate = sound.RATE if codec == "opus" else 8000
    t = np.arange(int(seconds * rate)) / rate
    on = np.zeros(len(t), dtype=bool)
    for n in range(int(seconds / 1.3)):
        begin = n * 1.3 + 0.2 * ((n * n) % 3) + 0.1 * (n % 2)
        on |= (t >= begin) & (t < begin + 0.3)
    x = np.where(on, np.sin(2 * np.pi * hertz * t) * 10 ** (dbfs / 20), 0.0)
    if codec == "opus":
        return sound.frames(x)
    data = _alaw(x)
    return tuple(data[i:i + 160] for i in range(0, len(data) - 159, 160))


# Encryption

MAGIC = b"watrunk-age-1\n"


class Age(Program):
    """The age of age-encryption.org, and a key pair that it made: `public`, and `identity`, a file."""

    def __init__(self, folder, name="age"):
        super().__init__(name)
        made = subprocess.run(self.chroot("age-keygen"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout.decode()
        self.public = re.search(r"age1[a-z0-9]+", made).group(0)
        self.identity = folder / f"{self.public[-6:]}.key"
        self.identity.write_text(made)
        (self.run / "key").write_text(made)

    def decrypt(self, message):
        """What is in one message of age."""
        done = subprocess.run(self.chroot("age", "-d", "-i", f"{self.inside}/key"), input=message, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


def sealed_blocks(data):
    """The messages of age in a sealed file, and the ticks that each says it holds; fails unless the file is made of them."""
    assert data.startswith(MAGIC), data[:20]
    at, found = len(MAGIC), []
    while at < len(data):
        length, ticks = struct.unpack(">II", data[at:at + 8])
        message = data[at + 8:at + 8 + length]
        assert len(message) == length and message.startswith(b"age-encryption.org/v1\n"), (at, length, message[:30])
        found.append((message, ticks))
        at += 8 + length
    return found


def opened(box, row, identity, path):
    """A sealed recording as `watrunk recording --identity -o` gives it: its path."""
    box.run("recording", row["_id"], "--identity", str(identity), "-o", str(path))
    return path
