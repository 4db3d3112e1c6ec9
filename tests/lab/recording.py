"""A recording of a call as other people's players read it: two channels, the tones, levels and pauses in each, and how far
they are apart.

The players are FFmpeg and SoX out of the tree of `build-tree.sh`; nothing of the gateway's own reads the file here.
"""

import json
import shutil
import struct
import subprocess

import numpy as np

import sound
from tree import Program

LEFT, RIGHT = 0, 1          # the caller, the destination


class Side:
    """One channel. Times are seconds of the recording."""

    def __init__(self, x, rate):
        self.x, self.rate = x, rate

    def cut(self, begin=0.0, end=None):
        """The samples between two times."""
        return self.x[int(begin * self.rate):None if end is None else int(end * self.rate)]

    def frequency(self, begin=0.0, end=None):
        """The strongest frequency, in hertz."""
        return sound.frequency(self.cut(begin, end), self.rate)

    def level(self, begin=0.0, end=None):
        """The level in dBFS; silence is -120."""
        return sound.level(self.cut(begin, end))

    def gap(self, begin=0.0, end=None):
        """The longest time without the usual sound, in seconds."""
        return sound.longest_gap(self.cut(begin, end), self.rate)

    def share(self, hertz, begin=0.0, end=None):
        """The level of one frequency alone, in dBFS: how much of the other side has leaked in here."""
        x = self.cut(begin, end)
        return self.level(begin, end) + 10 * np.log10(max(sound.purity(x, self.rate, hertz), 1e-9)) if len(x) else -120.0

    def sounds(self, quiet=0.1, above=-50.0):
        """(begin, end) of every stretch with sound above a level (dBFS); pauses shorter than `quiet` seconds are not seen."""
        e, step = sound.envelope(self.x, self.rate)
        found = []
        for i in np.flatnonzero(e >= 10 ** (above / 20)):
            begin, end = i * step / self.rate, (i + 1) * step / self.rate
            if found and begin - found[-1][1] < quiet:
                found[-1] = (found[-1][0], end)
            else:
                found.append((begin, end))
        return found

    def tone(self, hertz, dbfs, begin=0.0, end=None, within_db=3.0, gap=0.04):
        """Fails unless this tone is there, at this level and whole; a line with the numbers."""
        f, level, longest = self.frequency(begin, end), self.level(begin, end), self.gap(begin, end)
        line = f"{f:.1f} Hz at {level:.1f} dBFS, longest gap {1000 * longest:.0f} ms in {len(self.cut(begin, end)) / self.rate:.1f} s"
        assert len(self.cut(begin, end)) > self.rate / 4, line
        assert abs(f - hertz) <= hertz * 0.01 and abs(level - dbfs) <= within_db and longest <= gap, f"{line}, not {hertz} Hz at {dbfs}"
        return line


class Recording:
    """A file as one player reads it. `complaints`: what the player said about it, nothing if all is well; `about`: what FFmpeg
    knows of it (codec_name, channels, tags, …), None from SoX."""

    def __init__(self, player, x, rate, complaints, about=None):
        self.player, self.rate, self.complaints, self.about = player, rate, complaints, about
        self.sides = [Side(channel, rate) for channel in x.T]
        self.seconds = len(x) / rate

    @property
    def left(self):
        """The caller."""
        return self.sides[LEFT]

    @property
    def right(self):
        """The destination."""
        return self.sides[RIGHT]

    def offset(self, begin=0.0, end=None, most=0.5):
        """Seconds by which the right channel is behind the left, where both hold the same pattern of bursts or clicks (their
        pitch doesn't matter): the peak of the cross-correlation of their envelopes, sought up to `most` seconds. Fails if the
        patterns have nothing in common."""
        a, b = _pattern(self.left.cut(begin, end), self.rate), _pattern(self.right.cut(begin, end), self.rate)
        size = 1 << (len(a) + len(b)).bit_length()
        both = np.fft.irfft(np.conj(np.fft.rfft(a, size)) * np.fft.rfft(b, size), size)
        reach = min(int(most * STEPS), len(a) - 1)
        lags = np.arange(-reach, reach + 1)
        values = both[lags % size]
        at = int(np.argmax(values))
        alike = values[at] / max(np.sqrt(np.sum(a * a) * np.sum(b * b)), 1e-12)
        assert alike > 0.5, f"the channels have no pattern in common ({alike:.2f})"
        shift = 0.0
        if 0 < at < len(values) - 1:
            before, peak, after = values[at - 1:at + 2]
            shift = 0.5 * (before - after) / (before - 2 * peak + after)
        return float(lags[at] + shift) / STEPS

    def offsets(self, every=10.0, most=0.5):
        """(time, offset) of each stretch of `every` seconds: how the channels drift apart."""
        return [(begin, self.offset(begin, begin + every, most)) for begin in np.arange(0, self.seconds - every / 2, every)]


STEPS = 2000                # envelope values per second in a comparison


def _pattern(x, rate):
    """How loud it is, STEPS times a second and smoothed over some ms, around its own mean. Only whether there is sound counts,
    not how much."""
    width = max(1, int(0.004 * rate))
    power = np.convolve(np.square(x), np.ones(width) / width, "same")
    at = (np.arange(int(len(x) * STEPS / rate)) * rate / STEPS).astype(int)
    loud = np.sqrt(power[at])
    loud = np.minimum(loud / max(np.percentile(loud, 98) or np.max(loud, initial=0.0), 1e-9), 1.0)
    return loud - np.mean(loud)


def wav_faults(data):
    """What is wrong with a WAV file (RIFF, little endian): lengths that are not those of the file; nothing if all is well."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return ["no RIFF WAVE file"]
    found, at, names = [], 12, []
    if struct.unpack("<I", data[4:8])[0] != len(data) - 8:
        found.append(f"RIFF speaks of {struct.unpack('<I', data[4:8])[0]} bytes, {len(data) - 8} are there")
    while at + 8 <= len(data):
        name, size = data[at:at + 4].decode("latin-1"), struct.unpack("<I", data[at + 4:at + 8])[0]
        names.append(name)
        if at + 8 + size > len(data):
            found.append(f"chunk {name!r} speaks of {size} bytes, {len(data) - at - 8} are there")
        at += 8 + size + size % 2
    return found + [f"no chunk {name!r}" for name in ("fmt ", "data") if name not in names]


def _crc(page):
    """The checksum of an Ogg page whose own is zero: RFC 3533, 6."""
    value = 0
    for byte in page:
        value = (value << 8 & 0xFFFFFFFF) ^ _CRC[(value >> 24) ^ byte]
    return value


def _crc_table():
    for value in range(256):
        value <<= 24
        for _ in range(8):
            value = value << 1 & 0xFFFFFFFF ^ (0x04C11DB7 if value & 0x80000000 else 0)
        yield value


_CRC = list(_crc_table())


def ogg_faults(data):
    """What is wrong with an Ogg file of one stream (RFC 3533): pages that are cut off, missing, damaged or out of order, no page
    that ends it; nothing if all is well. FFmpeg and SoX play such a file without a word."""
    found, at, count, granule, flags = [], 0, 0, 0, 0
    while at < len(data):
        if data[at:at + 4] != b"OggS" or at + 27 > len(data):
            return found + [f"no page at byte {at} of {len(data)}"]
        flags, segments = data[at + 5], data[at + 26]
        position, number, crc = struct.unpack("<q4xII", data[at + 6:at + 26])
        end = at + 27 + segments + sum(data[at + 27:at + 27 + segments])
        if end > len(data):
            return found + [f"page {number} is cut off"]
        if _crc(data[at:at + 22] + bytes(4) + data[at + 26:end]) != crc:
            found.append(f"page {number} is damaged")
        if number != count:
            found.append(f"page {number} where {count} should be")
        if bool(flags & 2) != (at == 0):
            found.append(f"page {number} begins the stream" if flags & 2 else "no page begins the stream")
        if -1 < position < granule:
            found.append(f"page {number} goes back in time")
        at, count, granule = end, number + 1, max(granule, position)
    return found if flags & 4 else found + ["no page ends the stream"]


class Players(Program):
    """FFmpeg and SoX. A context manager: its folder in the tree goes away at the end."""

    def __init__(self):
        super().__init__("players")

    def _run(self, *argv):
        done = subprocess.run(self.chroot(*argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        # A plain WAV file says how many channels it has, not what they are called.
        return done.returncode, done.stdout, [line for line in said if "Guessed Channel Layout" not in line]

    def _here(self, path):
        copy = self.run / ("recording" + path.suffix)
        shutil.copyfile(path, copy)
        return copy, f"{self.inside}/{copy.name}"

    def ffmpeg(self, path):
        """The file as FFmpeg reads it. AssertionError if it can't."""
        copy, name = self._here(path)
        status, out, said = self._run("ffprobe", "-v", "error", "-show_streams", "-show_format", "-of", "json", name)
        assert status == 0, f"ffprobe can't read {path.name}: {said}"
        about = json.loads(out)
        stream = about["streams"][0] | {"tags": about["format"].get("tags", {}) | about["streams"][0].get("tags", {})}
        status, out, more = self._run("ffmpeg", "-nostdin", "-v", "warning", "-i", name, "-f", "f32le", "-c:a", "pcm_f32le", "pipe:1")
        copy.unlink()
        assert status == 0, f"ffmpeg can't play {path.name}: {more}"
        x = np.frombuffer(out, dtype="<f4").reshape(-1, stream["channels"]).astype(float)
        return Recording("ffmpeg", x, int(stream["sample_rate"]), said + more, stream)

    def sox(self, path):
        """The file as SoX reads it. AssertionError if it can't."""
        copy, name = self._here(path)
        facts = {}
        for flag in ("-r", "-c"):
            status, out, said = self._run("sox", "--info", flag, name)
            assert status == 0, f"sox can't read {path.name}: {said}"
            facts[flag] = int(out)
        status, out, said = self._run("sox", name, "-t", "f32", "-L", "-")
        copy.unlink()
        assert status == 0, f"sox can't play {path.name}: {said}"
        return Recording("sox", np.frombuffer(out, dtype="<f4").reshape(-1, facts["-c"]).astype(float), facts["-r"], said)

    def both(self, path, within=0.02):
        """What FFmpeg reads, once SoX has read the same: neither complains, both find two channels of one length (`within`
        seconds) and level, and the file is whole. AssertionError if not."""
        one, other = self.ffmpeg(path), self.sox(path)
        faults = (ogg_faults if path.suffix == ".ogg" else wav_faults)(path.read_bytes())
        assert not faults, f"{path.name}: {faults}"
        for it in (one, other):
            assert not it.complaints, f"{it.player} about {path.name}: {it.complaints}"
            assert len(it.sides) == 2, f"{it.player} finds {len(it.sides)} channels in {path.name}"
        assert abs(one.seconds - other.seconds) <= within, f"{path.name}: ffmpeg {one.seconds:.3f} s, sox {other.seconds:.3f} s"
        for a, b in zip(one.sides, other.sides):
            assert abs(a.level() - b.level()) < 0.5 or max(a.level(), b.level()) < -80, (a.level(), b.level())
        return one
