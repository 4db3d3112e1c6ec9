"""Tones out, measurements in: Opus and G.711 with libopus (PyAV) and numpy.

Levels are in dBFS of a sine: a sine that just reaches full scale is 0 dB.
"""

import functools
import wave

import av
import numpy as np

FRAME = 0.02           # seconds in one packet
CLOCK = 48000          # RTP clock of Opus
RATE = 16000           # what WhatsApp's own encoder works at

SILENT = -60.0         # dBFS below which nothing is heard


@functools.lru_cache(maxsize=128)
def tone(hertz, dbfs=-10.0, on=1.0, off=0.0, seconds=20.0):
    """A tone as Opus frames of 20 ms, to be sent in a loop. `on` and `off` in seconds cut it into bursts.

    20 kbit/s, wideband, mono, in-band FEC: what WhatsApp sends.
    """
    n = np.arange(int(seconds * RATE))
    x = np.sin(2 * np.pi * hertz * n / RATE) * 10 ** (dbfs / 20)
    if off:
        x = np.where((n / RATE) % (on + off) < on, x, 0.0)
    return frames(x)


def frames(x):
    """Samples (-1 to 1) at RATE as Opus frames of 20 ms."""
    pcm = (x * 32767).astype(np.int16)
    codec = av.CodecContext.create("libopus", "w")
    codec.bit_rate = 20000
    codec.format = "s16"
    codec.layout = "mono"
    codec.sample_rate = RATE
    codec.options = {"application": "voip", "fec": "1", "packet_loss": "10", "frame_duration": "20"}
    step = int(RATE * FRAME)
    found = []
    for i in range(0, len(pcm) - step + 1, step):
        frame = av.AudioFrame(format="s16", layout="mono", samples=step)
        frame.planes[0].update(pcm[i:i + step].tobytes())
        frame.sample_rate = RATE
        frame.pts = i
        found += [bytes(p) for p in codec.encode(frame)]
    return tuple(found)


def from_opus(packets):
    """Packets as (RTP timestamp, payload) in sending order -> samples at 48 kHz, and where each packet begins.

    Nothing is invented for a packet that is not there: its place stays silent, so that a gap is seen as one.
    """
    if not packets:
        return np.zeros(0), []
    codec = av.CodecContext.create("libopus", "r")
    codec.format = "s16"
    codec.layout = "mono"
    codec.sample_rate = CLOCK
    first = packets[0][0]
    places = [((ts - first + 2**31) % 2**32) - 2**31 for ts, _ in packets]
    out = np.zeros(max(places) + 6 * 960)
    for place, (_, payload) in zip(places, packets):
        for frame in codec.decode(av.Packet(payload)):
            x = frame.to_ndarray()
            x = x.reshape(-1)[::len(frame.layout.channels)].astype(float) / (1 if x.dtype.kind == "f" else 32768)
            if place >= 0:
                out[place:place + len(x)] = x[:len(out) - place]
    return out[:max(places) + 960], places


def _mulaw(byte):
    byte = ~byte & 0xFF
    value = (((byte & 0x0F) << 3) + 0x84 << ((byte & 0x70) >> 4)) - 0x84
    return -value if byte & 0x80 else value


def _alaw(byte):
    byte ^= 0x55
    exponent, mantissa = (byte & 0x70) >> 4, byte & 0x0F
    value = (mantissa << 4) + 8 if exponent == 0 else ((mantissa << 4) + 0x108) << (exponent - 1)
    return value if byte & 0x80 else -value


G711 = {0: np.array([_mulaw(b) for b in range(256)]) / 32768, 8: np.array([_alaw(b) for b in range(256)]) / 32768}


def from_g711(payload_type, payload):
    """One payload of type 0 (mu-law) or 8 (A-law) as samples at 8 kHz."""
    return G711[payload_type][np.frombuffer(payload, dtype=np.uint8)]


def from_wav(path):
    """Samples and rate of a mono 16 bit WAV file."""
    with wave.open(str(path), "rb") as w:
        return np.frombuffer(w.readframes(w.getnframes()), dtype="<i2").astype(float) / 32768, w.getframerate()


def level(x):
    """Level in dBFS; silence is -120."""
    rms = np.sqrt(np.mean(np.square(x))) if len(x) else 0.0
    return 20 * np.log10(max(rms * np.sqrt(2), 1e-6))


def frequency(x, rate):
    """The strongest frequency in hertz, to a fraction of an FFT bin."""
    if len(x) < rate // 50 or level(x) < SILENT:
        return 0.0
    size = 1 << max(15, (len(x) - 1).bit_length())
    spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x)), size))
    k = int(np.argmax(spectrum[2:-1])) + 2
    a, b, c = np.log(spectrum[k - 1:k + 2] + 1e-12)
    shift = 0.5 * (a - c) / (a - 2 * b + c) if a - 2 * b + c else 0.0
    return float((k + shift) * rate / size)


def purity(x, rate, hertz, width=20.0):
    """The share of the power that lies within `width` hertz of a tone, 0 to 1."""
    spectrum = np.square(np.abs(np.fft.rfft(x * np.hanning(len(x)))))
    f = np.fft.rfftfreq(len(x), 1 / rate)
    total = spectrum.sum()
    return float(spectrum[np.abs(f - hertz) <= width].sum() / total) if total else 0.0


def envelope(x, rate, window=0.005):
    """Level per window as linear amplitude of a sine."""
    step = max(1, int(rate * window))
    cut = x[:len(x) // step * step].reshape(-1, step)
    return np.sqrt(np.mean(np.square(cut), axis=1)) * np.sqrt(2), step


def longest_gap(x, rate, below=10.0):
    """Seconds of the longest stretch that is `below` dB or more under the usual level."""
    e, step = envelope(x, rate)
    if not len(e):
        return 0.0
    floor = np.median(e) * 10 ** (-below / 20)
    best = run = 0
    for quiet in e < floor:
        run = run + 1 if quiet else 0
        best = max(best, run)
    return best * step / rate


def rises(x, rate, quiet=0.1):
    """Sample positions where a tone begins after at least `quiet` seconds without one."""
    e, step = envelope(x, rate, 0.002)
    if not len(e):
        return []
    half = np.percentile(e, 95) / 2
    need, calm, found = int(quiet / 0.002), 0, []
    for i, v in enumerate(e):
        if v >= half and half > 10 ** (SILENT / 20):
            if calm >= need:
                found.append(i * step)
            calm = 0
        elif v < half / 4:
            calm += 1
    return found
