"""A call's signalling as a ladder and as a capture, with the sound of the PBX's side in it."""

import socket
import struct

import numpy as np
import pytest

import sound
from byhand import HandPbx
from gateway import section
from trunklab import HAND, until
from voice import Voice


@pytest.fixture(scope="module")
def hand():
    with HandPbx(HAND) as it:
        yield it


@pytest.fixture(scope="module")
def box(boxes, hand):
    return boxes(35, [section("hand", hand.uri(), register=False, codecs=["pcma"])], {"hand": "someone@hand"})


def datagrams(path):
    """The UDP datagrams of a capture file of raw IPv4: (seconds, from, to, payload)."""
    data = path.read_bytes()
    magic, _, _, _, _, _, kind = struct.unpack("<IHHiIII", data[:24])
    assert (magic, kind) == (0xA1B2C3D4, 101)
    at, found = 24, []
    while at < len(data):
        seconds, micros, length, _ = struct.unpack("<IIII", data[at:at + 16])
        packet = data[at + 16:at + 16 + length]
        at += 16 + length
        assert packet[0] == 0x45 and packet[9] == 17
        ends = [f"{socket.inet_ntoa(packet[12 + 4 * n:16 + 4 * n])}:{struct.unpack('!H', packet[20 + 2 * n:22 + 2 * n])[0]}" for n in (0, 1)]
        found.append((seconds + micros / 1e6, *ends, packet[28:]))
    return found


def test_a_call_can_be_read_as_a_ladder_and_its_capture_holds_both_voices(box, hand, rings, talk, tmp_path):
    assert "messages and sound are kept" in box.run("trace", "on", "--sound")
    call = rings(box, "hand", answered=False, frames=sound.tone(700, -10))
    line = hand.rung(call=call)
    line.pick_up(Voice(HAND))
    call.action("accept")
    talk(2)
    call.hang_up()
    record = box.record(call)
    ladder = box.run("trace", record["id"])
    steps = [text.split("──")[1].split("─")[0].split("(")[0].strip() if "──" in text else text for text in ladder.splitlines()]
    print(ladder.split("\n\n==")[0])
    order = [next(n for n, step in enumerate(ladder.splitlines()) if f" {word}" in step and "|" in step) for word in ("INVITE (SDP)", "200 OK (SDP)", "ACK", "BYE")]
    assert order == sorted(order) and len(set(order)) == 4, steps
    hidden = box.run("trace", record["id"], "--mask", "all")
    assert call.user.lstrip("+") in ladder and call.user.lstrip("+") not in hidden

    file = tmp_path / "call.pcap"
    box.run("trace", record["id"], "--pcap", str(file))
    seen = datagrams(file)
    assert [s[0] for s in seen] == sorted(s[0] for s in seen)
    assert any(payload.startswith(b"INVITE sip:") for _, _, _, payload in seen)
    rtp = [s for s in seen if s[3][0] == 0x80 and s[3][1] & 0x7F == 8 and len(s[3]) == 172]
    theirs = {s[1] for s in rtp if s[1].startswith(HAND)}
    voices = {}
    for who, mine in (("the PBX", True), ("the user", False)):
        pcm = np.concatenate([sound.from_g711(8, s[3][12:]) for s in rtp if (s[1] in theirs) == mine])
        voices[who] = (sound.frequency(pcm[8000 // 2:], 8000), sound.level(pcm[8000 // 2:]), len(pcm) / 8000)
    print("; ".join(f"{who}: {f:.1f} Hz at {db:.1f} dBFS, {s:.1f} s" for who, (f, db, s) in voices.items()))
    assert abs(voices["the PBX"][0] - 1004) < 10 and abs(voices["the user"][0] - 700) < 7
    assert all(s > 1.5 for _, _, s in voices.values())

    assert "not kept" in box.run("trace", "off")
    until(lambda: "nothing was traced" in box.run("trace", record["id"]), 5, "the trace was not let go of")
