"""The sound end of a PBX that is made by hand: RTP or SRTP in any codec, keys by RFC 4733, and what came in.

SRTP is libsrtp's, G.722 and Opus are FFmpeg's and libopus's: nothing of the gateway's own stack is in here.
"""

import base64
import dataclasses
import functools
import re
import secrets
import socket
import struct
import threading
import time
import weakref

import av
import numpy as np
from pylibsrtp import Policy, Session

import lateness
import sound
from caller import _mulaw

# SDES suites: libsrtp's profile, bytes of key and salt.
SUITES = {
    "AES_CM_128_HMAC_SHA1_80": (Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 30),
    "AES_CM_128_HMAC_SHA1_32": (Policy.SRTP_PROFILE_AES128_CM_SHA1_32, 30),
    "AEAD_AES_128_GCM": (Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 28),
    "AEAD_AES_256_GCM": (Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 44),
}
# Name in SDP, payload type, RTP clock, sampling rate.
CODECS = {"pcmu": ("PCMU/8000", 0, 8000, 8000), "pcma": ("PCMA/8000", 8, 8000, 8000),
          "g722": ("G722/8000", 9, 8000, 16000), "opus": ("opus/48000/2", 107, 48000, 48000)}
KEYS = "0123456789*#ABCD"


@dataclasses.dataclass
class Packet:
    """One RTP packet that came in."""

    at: float
    kind: int
    marker: bool
    seq: int
    ts: int
    ssrc: int
    payload: bytes
    source: tuple


def _alaw(x):
    """Samples (-1 to 1) as A-law bytes, by looking up the nearest step of ITU-T G.711's table."""
    steps = sound.G711[8]
    order = np.argsort(steps)
    at = np.clip(np.searchsorted(steps[order], x), 1, 255)
    near = np.where(np.abs(steps[order][at] - x) < np.abs(steps[order][at - 1] - x), at, at - 1)
    return order[near].astype(np.uint8).tobytes()


@functools.lru_cache(maxsize=32)
def packets(codec, hertz, dbfs=-10.0, ptime=20, seconds=10.0):
    """A tone as payloads of `ptime` ms, to be sent in a loop."""
    if codec == "opus":
        return sound.tone(hertz, dbfs, seconds=seconds)
    rate = CODECS[codec][3]
    n = np.arange(int(rate * seconds))
    x = np.sin(2 * np.pi * hertz * n / rate) * 10 ** (dbfs / 20)
    if codec == "g722":
        encoder = av.CodecContext.create("g722", "w")
        encoder.format, encoder.layout, encoder.sample_rate = "s16", "mono", rate
        step, out = rate // 50, b""
        pcm = (x * 32767).astype(np.int16)
        for i in range(0, len(pcm) - step + 1, step):
            frame = av.AudioFrame(format="s16", layout="mono", samples=step)
            frame.planes[0].update(pcm[i:i + step].tobytes())
            frame.sample_rate, frame.pts = rate, i
            out += b"".join(bytes(p) for p in encoder.encode(frame))
    else:
        out = _alaw(x) if codec == "pcma" else _mulaw(x)
    size = 8 * ptime
    return tuple(out[i:i + size] for i in range(0, len(out) - size + 1, size))


def decoded(codec, received):
    """Packets in the order of their numbers as samples, and their rate; what is missing stays silent."""
    if not received:
        return np.zeros(0), CODECS[codec][3]
    first = received[0].seq
    order = sorted({p.seq: p for p in received}.values(), key=lambda p: (p.seq - first + 2**15) % 2**16)
    if codec == "opus":
        return sound.from_opus([(p.ts, p.payload) for p in order])[0], 48000
    rate = CODECS[codec][3]
    if codec == "g722":
        decoder = av.CodecContext.create("g722", "r")
        decoder.sample_rate = rate
        parts = [np.concatenate([f.to_ndarray().reshape(-1) for f in decoder.decode(av.Packet(p.payload))]) / 32768 for p in order]
        ratio = 2
    else:
        parts, ratio = [sound.from_g711(CODECS[codec][1], p.payload) for p in order], 1
    start = order[0].ts
    out = np.zeros(max(ratio * ((p.ts - start) % 2**32) for p in order) + len(parts[-1]) + 1)
    for packet, part in zip(order, parts):
        at = ratio * ((packet.ts - start) % 2**32)
        out[at:at + len(part)] = part[:len(out) - at]
    return out, rate


class Voice:
    """One media end. `crypto` offers or wants these SDES suites, best first."""

    known = weakref.WeakSet()           # all that are there, for the one who ends a test

    def __init__(self, address, codecs=("pcma", "pcmu"), event=101, event_rate=8000, ptime=20, crypto=(), hertz=1004.0, dbfs=-10.0):
        self.address, self.codecs, self.ptime = address, list(codecs), ptime
        self.event, self.event_rate, self.crypto = event, event_rate, list(crypto)
        self.kinds = {c: CODECS[c][1] for c in CODECS}      # payload types, which an offer of the other side may change
        self.hertz, self.dbfs = hertz, dbfs
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((address, 0))
        self.sock.settimeout(0.2)
        self.port = self.sock.getsockname()[1]
        self.keys_made = {suite: secrets.token_bytes(SUITES[suite][1]) for suite in SUITES}
        self.version = 0
        self.received = []
        self.strange = []               # what could not be read
        self.sent = 0
        self.codec = self.target = self.suite = self._tx = self._rx = None
        self.muted = False
        self.made = time.monotonic()
        self.known.add(self)
        self._theirs = None
        self._keys = []
        self._seq, self._ts, self._ssrc = secrets.randbits(15), secrets.randbits(31), secrets.randbits(32)
        self._running = False
        self._thread = None
        threading.Thread(target=self._listen, name="voice", daemon=True).start()

    # Words

    def sdp(self, direction="sendrecv", connection=None, only=None, tags=None):
        """An offer, or the answer that picks `only` (codec and suite are then what was taken)."""
        self.version += 1
        codecs = [only] if only else self.codecs
        kinds = [str(self.kinds[c]) for c in codecs] + ([str(self.event)] if self.event else [])
        suites = ([self.suite] if self.suite else []) if only else self.crypto
        lines = ["v=0", f"o=- 77 {self.version} IN IP4 {self.address}", "s=-", f"c=IN IP4 {connection or self.address}", "t=0 0",
                 f"m=audio {self.port} RTP/{'SAVP' if suites else 'AVP'} {' '.join(kinds)}"]
        lines += [f"a=rtpmap:{self.kinds[c]} {CODECS[c][0]}" for c in codecs]
        if self.event:
            lines += [f"a=rtpmap:{self.event} telephone-event/{self.event_rate}", f"a=fmtp:{self.event} 0-15"]
        for n, suite in enumerate(suites):
            tag = (tags or {}).get(suite, n + 1)
            lines.append(f"a=crypto:{tag} {suite} inline:{base64.b64encode(self.keys_made[suite]).decode()}")
        lines += [f"a=ptime:{self.ptime}", f"a={direction}"]
        return "\r\n".join(lines) + "\r\n"

    def take(self, sdp, answer=True):
        """Reads the other side's offer (then the answer is returned) or its answer. Sound goes there from now on."""
        connection = re.search(r"(?m)^c=IN IP4 (\S+)", sdp).group(1)
        port, kinds = re.search(r"(?m)^m=audio (\d+) \S+ ([\d ]+)", sdp).groups()
        names = {int(k): n.lower() for k, n in re.findall(r"(?m)^a=rtpmap:(\d+) ([A-Za-z0-9-]+)", sdp)} | {0: "pcmu", 8: "pcma", 9: "g722"}
        theirs = [(names.get(int(k), "?"), int(k)) for k in kinds.split()]
        offered = dict(reversed(theirs))
        chosen = next((c for c in self.codecs if c in offered), None) if answer else next(n for n, _ in theirs if n in CODECS)
        if chosen is None:
            return None
        self.kinds[chosen] = offered[chosen]
        rates = re.findall(r"(?m)^a=rtpmap:(\d+) telephone-event/(\d+)", sdp)
        if answer and self.event:
            want = CODECS[chosen][2]
            pick = next(((k, r) for k, r in rates if int(r) == want), rates[0] if rates else None)
            self.event, self.event_rate = (int(pick[0]), int(pick[1])) if pick else (None, 8000)
        tags = {}
        offers = re.findall(r"(?m)^a=crypto:(\d+) (\S+) inline:([A-Za-z0-9+/=]+)", sdp)
        if offers and self.crypto:
            tags = {suite: int(tag) for tag, suite, _ in offers}
            keys = {suite: base64.b64decode(key) for _, suite, key in offers}
            self.suite = next((s for s in self.crypto if s in keys), None)
            if self.suite and self._theirs != keys[self.suite]:
                self._theirs = keys[self.suite]
                profile = SUITES[self.suite][0]
                self._tx = self._tx or Session(Policy(key=self.keys_made[self.suite], ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile))
                self._rx = Session(Policy(key=keys[self.suite], ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=profile))
        self.codec = chosen
        self.target = (connection, int(port))
        return self.sdp(only=chosen, tags=tags) if answer else None

    # Sound

    def start(self):
        """Sends from now on: the tone, or keys while there are any."""
        if not self._running:
            self._running = True
            self._thread = threading.Thread(target=self._speak, name="voice sends", daemon=True)
            self._thread.start()
        return self

    def press(self, keys, hold=5, pause=5, ends=3, drop=()):
        """Presses keys, each `hold` packets long with `pause` packets of tone behind; packets whose place in the key's
        own row is in `drop` are lost on the way."""
        self._keys += [(KEYS.index(key), hold, pause, ends, set(drop)) for key in keys]

    def send(self, kind, ts, payload, marker=False):
        """One RTP packet."""
        data = struct.pack("!BBHII", 128, kind | (128 if marker else 0), self._seq, ts % 2**32, self._ssrc) + payload
        self._seq = (self._seq + 1) & 0xFFFF
        if self._tx:
            data = self._tx.protect(data)
        try:
            self.sock.sendto(data, self.target)
            self.sent += 1
        except OSError:
            pass

    def raw(self, data, target=None):
        """These bytes, as they are."""
        self.sock.sendto(data, target or self.target)

    def _speak(self):
        lateness.ahead()
        packets(self.codec, self.hertz, self.dbfs, self.ptime)      # encoding takes its time: before the first is due
        due, i, row = time.monotonic(), 0, 0
        while self._running:
            step = CODECS[self.codec][2] * self.ptime // 1000
            lateness.note(lateness.PBX, due)
            if self._keys:
                row = self._key(row, step)
            elif not self.muted:
                payloads = packets(self.codec, self.hertz, self.dbfs, self.ptime)
                self.send(self.kinds[self.codec], self._ts, payloads[i % len(payloads)], marker=i == 0)
                i += 1
            self._ts += step
            due += self.ptime / 1000
            time.sleep(max(0.0, due - time.monotonic()))

    def _key(self, row, step):
        key, hold, pause, ends, drop = self._keys[0]
        if row == 0:
            self._began = self._ts
        if row < hold:
            last = row == hold - 1
            duration = (row + 1) * self.event_rate * self.ptime // 1000
            for n in range(ends if last else 1):
                if row + n in drop:
                    self._seq = (self._seq + 1) & 0xFFFF
                else:
                    self.send(self.event, self._began, struct.pack("!BBH", key, (128 if last else 0) | 10, duration), row == 0)
        elif not self.muted:
            payloads = packets(self.codec, self.hertz, self.dbfs, self.ptime)
            self.send(self.kinds[self.codec], self._ts, payloads[row % len(payloads)])
        row += 1
        if row >= hold + pause:
            self._keys.pop(0)
            row = 0
        return row

    def _listen(self):
        while True:
            try:
                data, source = self.sock.recvfrom(2048)
            except TimeoutError:
                continue
            except OSError:
                return
            if len(data) < 12 or data[0] >> 6 != 2 or 192 <= data[1] < 224:
                continue
            at = time.time()
            if self._rx:
                try:
                    data = self._rx.unprotect(data)
                except Exception as error:
                    self.strange.append(f"SRTP: {error}")
                    continue
            first, second, seq, ts, ssrc = struct.unpack("!BBHII", data[:12])
            self.received.append(Packet(at, second & 127, bool(second & 128), seq, ts, ssrc, data[12 + 4 * (first & 15):], source))

    def hush(self):
        """Nothing is sent any more: another call may have the gateway's port soon."""
        self._running = False

    def stop(self):
        """Silence, and the port is given back."""
        self.hush()
        if self._thread:
            self._thread.join(1)
        self.sock.close()

    # What came in

    def audio(self, since=0.0):
        """The packets of the agreed codec since a time."""
        kind = self.kinds[self.codec]
        return [p for p in list(self.received) if p.kind == kind and p.at >= since]

    def keys(self):
        """Keys that came by RFC 4733, as (key, milliseconds), each event once."""
        found = {}
        for p in list(self.received):
            if p.kind == self.event and len(p.payload) >= 4:
                key, flags, duration = struct.unpack("!BBH", p.payload[:4])
                found[p.ts] = (KEYS[key], max(duration, found.get(p.ts, ("", 0))[1]))
        return [(k, d * 1000 // self.event_rate) for k, d in found.values()]

    def tone(self, hertz, dbfs, within_db=3.0, gap=0.04, since=0.0, skip=0.5):
        """Fails unless this tone came in, at this level and whole; a line with the numbers. What the lab's users send
        late is missing here: that is not the gateway's gap."""
        x, rate = decoded(self.codec, self.audio(since))
        x = x[int(skip * rate):]
        f, level, longest = sound.frequency(x, rate), sound.level(x), sound.longest_gap(x, rate)
        pure = sound.purity(x, rate, hertz) if len(x) else 0
        late = lateness.allowance(self.made)
        line = (f"{self.codec}: {f:.1f} Hz at {level:.1f} dBFS, purity {pure:.4f}, longest gap {1000 * longest:.0f} ms, "
                f"{len(x) / rate:.1f} s" + (f", the lab up to {1000 * late:.0f} ms late" if late else ""))
        assert len(x) > rate / 2, line
        assert abs(f - hertz) <= hertz * 0.01, line
        assert abs(level - dbfs) <= within_db, line
        assert longest <= gap + late, line
        return line
