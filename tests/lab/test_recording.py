"""What the lab says of a recording: players that disagree, wrong tones and channels that are apart are seen."""

import shutil
import struct
import subprocess
import wave

import numpy as np
import pytest

import sound
from caller import _mulaw
from recording import Players
from voice import _alaw

RATE = 8000


@pytest.fixture(scope="module")
def players():
    with Players() as it:
        yield it
    it.stop()


def bursts(hertz, dbfs, seconds=6.0, rate=RATE, late=0.0, every=1.3, drift=0.0):
    """Bursts of 0.3 s at uneven places (a pattern that fits itself at one place only), `late` seconds behind."""
    t = (np.arange(int(seconds * rate)) / rate - late) * (1 + drift)
    on = np.zeros(len(t), dtype=bool)
    for n in range(int(seconds / every) + 1):
        begin = n * every + 0.2 * ((n * n) % 3)
        on |= (t >= begin) & (t < begin + 0.3)
    return np.where(on, np.sin(2 * np.pi * hertz * t) * 10 ** (dbfs / 20), 0.0)


def wav(path, left, right, kind="pcm", rate=RATE):
    """A stereo WAV file: pcm, ulaw or alaw (RIFF's format tags 1, 7 and 6)."""
    if kind == "pcm":
        with wave.open(str(path), "wb") as w:
            w.setnchannels(2), w.setsampwidth(2), w.setframerate(rate)
            w.writeframes((np.stack([left, right], axis=1) * 32767).astype("<i2").tobytes())
        return path
    code, encode = {"ulaw": (7, _mulaw), "alaw": (6, _alaw)}[kind]
    data = np.stack([np.frombuffer(encode(x), dtype=np.uint8) for x in (left, right)], axis=1).tobytes()
    head = struct.pack("<HHIIHHH", code, 2, rate, 2 * rate, 2, 8, 0)
    fact = struct.pack("<I", len(left))
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"fact" + struct.pack("<I", 4) + fact + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


def ogg(players, path, left, right, rate=48000):
    """An Ogg Opus file with two channels, by FFmpeg's libopus."""
    source = wav(players.run / "source.wav", left, right, rate=rate)
    subprocess.run(players.chroot("ffmpeg", "-nostdin", "-v", "error", "-i", f"{players.inside}/source.wav", "-c:a", "libopus", "-b:a", "48k",
                                  "-metadata", "CALL=wacid.1", f"{players.inside}/made.ogg"), check=True)
    source.unlink()
    shutil.move(players.run / "made.ogg", path)     # another file system
    return path


@pytest.mark.parametrize("kind", ["pcm", "ulaw", "alaw", "ogg"])
def test_both_players_find_each_tone_on_its_side_and_how_far_the_sides_are_apart(players, tmp_path, kind):
    rate = 48000 if kind == "ogg" else RATE
    left, right = bursts(700, -10, rate=rate), bursts(1004, -6, rate=rate, late=0.012)
    path = tmp_path / f"call.{'ogg' if kind == 'ogg' else 'wav'}"
    ogg(players, path, left, right) if kind == "ogg" else wav(path, left, right, kind)
    for it in (players.both(path), players.sox(path)):
        assert abs(it.seconds - 6) < 0.02
        (begin, end), *rest = it.left.sounds()
        assert abs(begin) < 0.02 and abs(end - 0.3) < 0.02 and len(rest) == len(it.right.sounds()) - 1
        print(f"{kind} by {it.player}: left " + it.left.tone(700, -10, 0.02, 0.28) + ", right " + it.right.tone(1004, -6, 0.03, 0.29)
              + f"; apart {1000 * it.offset():.2f} ms; leak {it.left.share(1004, 0.02, 0.28):.0f} dBFS")
        assert abs(it.offset() - 0.012) < 0.001
        assert it.left.share(1004, 0.02, 0.28) < -45 and it.right.share(700, 0.03, 0.29) < -45


def test_what_is_in_the_metadata_is_seen(players, tmp_path):
    path = ogg(players, tmp_path / "call.ogg", bursts(700, -10, rate=48000), bursts(900, -10, rate=48000))
    about = players.ffmpeg(path).about
    assert about["codec_name"] == "opus" and about["tags"]["CALL"] == "wacid.1", about


def test_a_gap_a_wrong_tone_and_silence_are_seen(players, tmp_path):
    t = np.arange(4 * RATE) / RATE
    left = np.sin(2 * np.pi * 700 * t) * 0.3
    left[2 * RATE:int(2.1 * RATE)] = 0
    it = players.both(wav(tmp_path / "call.wav", left, np.zeros(len(left))))
    assert abs(it.left.gap() - 0.1) < 0.01 and it.right.level() == -120 and it.right.sounds() == []
    assert [round(x, 1) for pair in it.left.sounds(quiet=0.05) for x in pair] == [0.0, 2.0, 2.1, 4.0]
    for wrong in ({"hertz": 800, "dbfs": -10.5}, {"hertz": 700, "dbfs": -20}):
        with pytest.raises(AssertionError, match="not "):
            it.left.tone(**wrong, end=1.9)
    with pytest.raises(AssertionError, match="longest gap 1"):
        it.left.tone(700, -10.5)


def test_channels_that_drift_apart_are_measured_where_they_are(players, tmp_path):
    left, right = bursts(700, -10, 60), bursts(1004, -10, 60, drift=-0.0005)
    found = players.both(wav(tmp_path / "call.wav", left, right)).offsets(every=20)
    print("drift of 500 ppm: " + ", ".join(f"{1000 * apart:.1f} ms at {begin:.0f} s" for begin, apart in found))
    assert [round(1000 * apart) for _, apart in found] == pytest.approx([5, 15, 25], abs=2)


def test_clicks_on_both_sides_are_enough_to_tell_how_far_they_are_apart(players, tmp_path):
    left, right = np.zeros(5 * RATE), np.zeros(5 * RATE)
    for at in (0.5, 1.1, 2.4, 3.9):
        left[int(at * RATE):int(at * RATE) + 8] = 0.8
        right[int((at - 0.033) * RATE):int((at - 0.033) * RATE) + 8] = -0.4
    assert abs(players.both(wav(tmp_path / "call.wav", left, right)).offset() + 0.033) < 0.001
    noise = np.random.default_rng(3).normal(0, 0.1, 5 * RATE)
    it = players.both(wav(tmp_path / "call.wav", left, np.where(np.arange(5 * RATE) // 400 % 7 == 3, noise, 0)))
    with pytest.raises(AssertionError, match="no pattern in common"):
        it.offset()


@pytest.mark.parametrize("kind", ["wav", "ogg"])
def test_a_file_that_was_cut_off_is_complained_about(players, tmp_path, kind):
    rate = 48000 if kind == "ogg" else RATE
    left, right = bursts(700, -10, rate=rate), bursts(900, -10, rate=rate)
    path = tmp_path / f"call.{kind}"
    ogg(players, path, left, right) if kind == "ogg" else wav(path, left, right)
    whole = path.read_bytes()
    players.both(path)
    path.write_bytes(whole[:len(whole) * 6 // 10])
    with pytest.raises(AssertionError) as told:
        players.both(path)
    print(f"{kind}: {told.value}")
    if kind == "ogg":
        last = whole.rindex(b"OggS")
        for spoilt, what in ((whole[:last], "no page ends"), (whole[:400] + b"\0" + whole[401:], "damaged"), (whole[:-3], "cut off"),
                             (whole[:last // 2] + whole[last:], "no page at|cut off|where")):
            path.write_bytes(spoilt)
            with pytest.raises(AssertionError, match=what):
                players.both(path)
    path.write_bytes(b"\0" * 40)
    with pytest.raises(AssertionError, match="can't read"):
        players.both(path)
