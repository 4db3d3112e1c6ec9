"""The stand-ins are tested too: a lab that hears what is not there proves nothing.

A small gateway made of aiortc (`echo`, no PBX) plays the other side here.
"""

import asyncio

import numpy as np
import pytest

import network
import sound
from echo import NUMBER, Echo
from peer import Impairment
from whatsapp import Cloud, Fault, inspect_answer


@pytest.fixture(scope="module")
def pair():
    cloud = Cloud(network.address(1), 18999, "token", "secret").start()
    gateway = Echo(cloud, 18998)
    cloud.webhook = f"http://{network.address(2)}:18998/webhooks/whatsapp"
    yield cloud, gateway
    gateway.stop()
    cloud.stop()


@pytest.fixture
def lab(pair):
    cloud, gateway = pair
    gateway.spoil, gateway.late_accept = (lambda sdp: sdp), 0.0
    return pair


@pytest.mark.parametrize("style", ["current", "older"])
def test_a_user_talks_to_an_echo_and_hears_the_same_tone(lab, style, talk):
    cloud, _ = lab
    call = cloud.call(NUMBER, style=style, patient=False, frames=sound.tone(700, -10))
    assert call.ring() == 200
    call.action("accept")
    talk(4)
    call.hang_up()
    heard = call.measure()
    x = heard.steady()
    print(f"{style}: {sound.frequency(x, sound.CLOCK):.1f} Hz at {sound.level(x):.1f} dBFS, {heard.packets} packets")
    assert call.names() == ["pre_accept", "accept"]
    assert abs(sound.frequency(x, sound.CLOCK) - 700) < 7
    assert abs(sound.level(x) + 10) < 2


def test_sound_before_accept_is_noticed(lab, talk):
    cloud, gateway = lab
    gateway.late_accept = 1.5
    call = cloud.call(NUMBER, patient=False)
    call.accepted_at = 0.0
    cloud.do(asyncio.sleep(0))
    call.peer.answered_at = 1.0       # the user talks before accept, so the echo answers before accept
    call.ring()
    call.action("accept")
    talk(0.5)
    call.hang_up()
    assert any("before accept was answered" in fault for fault in call.measure().faults)


def test_loss_and_gaps_are_seen(lab, talk):
    cloud, _ = lab
    call = cloud.call(NUMBER, patient=False, frames=sound.tone(700))
    call.ring()
    call.action("accept")
    talk(1)
    call.peer.impairment = Impairment(loss=0.1, jitter=0.005, seed=7)
    call.peer.impairment.outbound = lambda: 0.0     # the echo's own way of coping is not what is tested
    talk(3)
    call.hang_up()
    heard = call.measure()
    lost = call.peer.impairment.lost_in
    print(f"{lost} packets dropped on the way in, {heard.missing} missing of {heard.packets}, gap {sound.longest_gap(heard.steady(), sound.CLOCK):.3f} s")
    assert lost >= 5 and abs(heard.missing - lost) <= 2
    assert sound.longest_gap(heard.steady(), sound.CLOCK) >= 0.02


@pytest.mark.parametrize("spoil, word", [
    (lambda s: s.replace("setup:active", "setup:passive"), "setup"),
    (lambda s: s.replace("a=fingerprint:sha-256", "a=fingerprint:sha-1"), "fingerprint"),
    (lambda s: s.replace(" 111 ", " 96 ").replace(" 111\r", " 96\r").replace(":111 ", ":96 "), "payload type"),
    (lambda s: s.replace("a=ptime:20\r\n", ""), "ptime"),
    (lambda s: s.replace("a=mid:", "a=extmap:1 urn:x\r\na=mid:"), "extensions"),
])
def test_a_wrong_answer_is_refused_as_meta_refuses_it(lab, spoil, word):
    cloud, gateway = lab
    gateway.spoil = spoil
    call = cloud.call(NUMBER)
    call.ring()
    call._wait(lambda: call.actions or None, 5, "no action")
    assert call.actions[0][2] == 400
    assert any(word in fault for fault in call.faults), call.faults
    call.hang_up()


def test_an_accept_with_another_answer_is_refused(lab):
    cloud, gateway = lab
    count = iter(range(9))
    gateway.spoil = lambda s: s.replace("o=- ", f"o=- {next(count)}")
    call = cloud.call(NUMBER)
    call.ring()
    call._wait(lambda: len(call.actions) == 2 or None, 5, "no second action")
    assert [s for _, _, s in call.actions] == [200, 400]
    call.hang_up()


def test_a_planned_failure_happens_once(lab):
    cloud, _ = lab
    call = cloud.call(NUMBER)
    call.plan["pre_accept"] = [Fault(status=429, code=130429)]
    call.ring()
    call._wait(lambda: call.actions or None, 5, "no action")
    assert call.actions[0][1:] == ("pre_accept", 429)
    call.hang_up()


def test_keys_go_out_as_rfc_4733_on_the_line_of_the_audio(lab, talk):
    cloud, _ = lab
    call = cloud.call(NUMBER, patient=False)
    call.ring()
    call.action("accept")
    talk(0.5)
    out = []
    rtp = call.peer._rtp
    call.peer._rtp = lambda kind, ts, payload, marker=False: (out.append((kind, ts, payload, marker)), rtp(kind, ts, payload, marker))
    call.press("5", hold=0.1, pause=0.1)
    talk(0.5)
    call.hang_up()
    events = [o for o in out if o[0] == 126]
    assert [int.from_bytes(p[2:4]) for _, _, p, _ in events] == [160, 320, 480, 640, 800, 800, 800]
    assert [m for *_, m in events] == [True] + [False] * 6
    assert len({ts for _, ts, _, _ in events}) == 1
    after = next(ts for kind, ts, _, _ in out[out.index(events[-1]):] if kind == 111)
    assert (after - events[0][1]) % 2**32 == 960 * 10


def test_the_measure_finds_level_frequency_and_gap_of_a_known_sound():
    rate = 8000
    x = np.sin(2 * np.pi * 1004 * np.arange(rate * 3) / rate) * 0.5
    x[rate:rate + 480] = 0
    assert abs(sound.frequency(x, rate) - 1004) < 0.5
    assert abs(sound.level(x[:rate]) + 6.02) < 0.1
    assert abs(sound.longest_gap(x, rate) - 0.06) < 0.011
    y = np.concatenate([np.zeros(rate // 2), x[:rate // 4], np.zeros(rate // 2), x[:rate // 4]])
    assert [round(r / rate, 2) for r in sound.rises(y, rate)] == [0.5, 1.25]
    for kind in (0, 8):
        byte = bytes(range(256))
        assert abs(np.max(sound.from_g711(kind, byte)) - 0.98) < 0.02


def test_the_inspection_of_an_answer_passes_a_good_one():
    offer = "v=0\r\na=mid:audio\r\n"
    good = ("v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE audio\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 126\r\n"
            "c=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 AA:BB\r\n"
            "a=setup:active\r\na=mid:audio\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n"
            "a=rtpmap:126 telephone-event/8000\r\na=ptime:20\r\na=maxptime:20\r\na=ssrc:1 cname:x\r\n")
    assert inspect_answer(good, offer) == ([], "abcd", "AA:BB")
