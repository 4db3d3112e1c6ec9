"""The sound of a trunk: every codec, SRTP, keys, odd packet times, and telephones behind a real PBX."""

import re
import time

import pytest

import asterisk
import network
import sound
from gateway import section
from peer import Impairment
from phone import Phone
from trunklab import HAND, PBX, account, flow, hears, pressed, stretch, tone, until, why
from voice import SUITES, Voice, packets
from wire import Wire

CODECS = {"opus": "opus", "g722": "g722", "alaw": "pcma", "ulaw": "pcmu"}


@pytest.fixture(scope="module")
def box(boxes, trunk_pbx, hand):
    """A gateway with an account for each codec at the PBX, and trunks to the PBX by hand."""
    trunks = [account(name, codecs=[codec]) for name, codec in CODECS.items()]
    trunks += [account("info", codecs=["pcma"], dtmf="info"), account("mux", codecs=["pcma"])]
    byhand = {"hand": {"codecs": ["pcma", "pcmu"]}}
    trunks += [section(name, hand.uri(), register=False, **keys) for name, keys in byhand.items()]
    numbers = {f"record-{name}": f"record@{name}" for name in CODECS}
    numbers |= {f"echo-{name}": f"echo@{name}" for name in CODECS}
    numbers |= {"mux": "record@mux", "info-digits": "digits@info", "info-press": "press@info", "rfc-digits": "digits@alaw", "rfc-press": "press@alaw",
                "early": "early@alaw", "1001": "phone-1001@g722", "1002": "phone-1002@opus", "1003": "phone-1003@alaw", "hand": "someone@hand"}
    return boxes(32, trunks, numbers)


def one(boxes, hand, rings, host=33, frames=None, voice=None, **keys):
    """A gateway with one trunk by hand, and a call on it that stands: (gateway, user's call, PBX's line)."""
    box = boxes(host, [section("hand", hand.uri(), register=False, **keys)], {"x": "someone@hand"})
    return box, *stands(box, hand, rings, "x", frames, voice)


def stands(box, hand, rings, number="hand", frames=None, voice=None):
    """One more call that stands."""
    call = rings(box, number, answered=False, frames=frames or sound.tone(700, -10))
    line = hand.rung(call=call)
    line.pick_up(voice or Voice(hand.address))
    call.action("accept")
    return call, line


def whole(call, keys):
    """Meta knows keys from the user only. Whatever becomes of the PBX's: none of them is doubled, halved or out of place."""
    return [k for k, _ in pressed(call)] in ([], list(keys))


def test_each_codec_carries_the_sound_both_ways(box, rings, talk, seen, trunk_pbx):
    calls = {name: rings(box, f"record-{name}", answered=False, frames=sound.tone(700, -10)) for name in CODECS}
    for call in calls.values():
        call.action("accept")
    talk(4)
    for call in calls.values():
        call.hang_up()
    for name, call in calls.items():
        line = seen(call)
        assert line["chan"].startswith(f"PJSIP/{name}-")
        print(f"{name}, heard by the user: " + tone(call, 1004, asterisk.MILLIWATT_DBFS))
        x, rate = trunk_pbx.heard(line["num"])
        x = x[rate:-rate // 2]
        f, level, gap = sound.frequency(x, rate), sound.level(x), sound.longest_gap(x, rate)
        print(f"{name}, heard by the PBX: {f:.1f} Hz at {level:.1f} dBFS, gap {1000 * gap:.0f} ms")
        assert abs(f - 700) < 7 and abs(level + 10) <= 3 and gap <= 0.04 + max(0.0, call.measure().stall - 0.03)


def test_sound_and_reports_share_a_port_if_the_pbx_wants_that(box, rings, talk, seen, trunk_pbx):
    """RTCP-mux (RFC 5761): Asterisk reports every five seconds."""
    with Wire(box.address, PBX) as wire:
        call = rings(box, "mux", frames=sound.tone(700, -10))
        talk(3)
        until(lambda: {(r.source[0], r.kind) for r in list(wire.reports)} >= {(PBX, 200), (box.address, 200)}, 12, "nobody reports")
        call.hang_up()
        line = seen(call)
        x, rate = trunk_pbx.heard(line["num"])
    bodies = [text for _, text in trunk_pbx.messages(line["sip"]) if "m=audio" in text]
    assert len(bodies) >= 2 and all("a=rtcp-mux" in text for text in bodies), "offer and answer"
    ports = {way: (address, int(re.search(r"(?m)^m=audio (\d+)", next(text for w, text in trunk_pbx.messages(line["sip"])
                                                                     if w == way and "m=audio" in text)).group(1)))
             for way, address in (("in", box.address), ("out", PBX))}
    ours = [r.kind for r in wire.reports if (r.source, r.target) == (ports["in"], ports["out"])]
    theirs = [r.kind for r in wire.reports if (r.source, r.target) == (ports["out"], ports["in"])]
    f, level = sound.frequency(x[rate:], rate), sound.level(x[rate:-rate // 2])
    print(f"reports of ours {ours}, of the PBX {theirs}; heard by the user: {tone(call, 1004, asterisk.MILLIWATT_DBFS)}; "
          f"by the PBX: {f:.1f} Hz at {level:.1f} dBFS")
    assert 200 in ours and 200 in theirs, "a sender's report each way"
    assert len(ours) + len(theirs) == len(wire.reports), f"reports elsewhere: {wire.reports}"
    assert abs(f - 700) < 7 and abs(level + 10) <= 3


def test_wideband_stays_wideband(box, rings, talk):
    calls = {name: rings(box, f"echo-{name}", frames=sound.tone(5000, -10)) for name in CODECS}
    talk(3)
    for call in calls.values():
        call.hang_up()
    level = {}
    for name, call in calls.items():
        x = call.measure().steady()
        level[name] = sound.level(x) if abs(sound.frequency(x, sound.CLOCK) - 5000) < 50 else -120.0
        print(f"5 kHz there and back through {name}: {sound.frequency(x, sound.CLOCK):.0f} Hz at {sound.level(x):.1f} dBFS")
    assert level["opus"] > -22 and level["g722"] > -22      # the user's own encoder takes half of it
    assert level["alaw"] < -40 and level["ulaw"] < -40, "a telephone's 3.4 kHz can't carry this"


def test_opus_passes_through_as_it_is(boxes, hand, rings, talk):
    voice = Voice(HAND, codecs=["opus"])
    _, call, line = one(boxes, hand, rings, voice=voice, codecs=["opus", "pcma"])
    talk(3)
    line.bye()
    said, heard = set(call.peer.frames), voice.audio(since=call.peer.sent[0][0] + 0.1)      # before that the gateway fills in
    mine, theirs = set(packets("opus", 1004, -10)), [p for p in call.measure().order]
    up = sum(p.payload in said for p in heard) / len(heard)
    down = sum(p.payload in mine for p in theirs) / len(theirs)
    print(f"{len(heard)} packets at the PBX, {100 * up:.1f} % of them byte for byte the user's; {len(theirs)} at the user, "
          f"{100 * down:.1f} % the PBX's")
    assert up > 0.8 and down > 0.8, "the codec was run in between"       # then hardly one would be the same
    assert len({p.ssrc for p in heard}) == 1
    print(voice.tone(700, -10, skip=0.7) + "; " + tone(call, 1004, -10))


def test_a_pause_of_opus_is_filled_towards_the_user(boxes, hand, rings, talk):
    voice = Voice(HAND, codecs=["opus"])
    _, call, line = one(boxes, hand, rings, voice=voice, codecs=["opus"])
    talk(1.5)
    voice.muted = True                      # discontinuous transmission: nothing is sent while nothing is said
    at = time.time()
    talk(2)
    voice.muted = False
    talk(1.5)
    line.bye()
    print(f"longest pause at the user while the PBX sent nothing: {1000 * flow(call, at, at + 2):.0f} ms")
    assert flow(call, at, at + 2) < 0.1
    print("then: " + hears(call, 1004, -10, at + 2.5, at + 3.4))


@pytest.mark.parametrize("codec", ["g722", "opus"])
def test_a_pbx_offers_its_own_payload_types(boxes, hand, users, talk, codec):
    box = boxes(33, [section("hand", hand.uri(), register=False, codecs=[codec])], {"x": {"trunk": "hand", "forward_to": "sip:a@hand"}})
    person = users(frames=sound.tone(700, -10))
    voice = Voice(HAND, codecs=[codec], event=96, event_rate=48000 if codec == "opus" else 8000)
    voice.kinds["opus"] = 120
    line = hand.dial(hand.towards((box.address, 5060)), f"sip:+{person.phone}@{box.address}", voice)
    assert line.final(10).code == 200
    call = person.called()
    talk(2)
    call.press("2#")
    talk(1)
    voice.press("80")
    talk(1.2)
    assert line.bye() == 200
    print(f"{codec}: {voice.tone(700, -10, gap=0.5)}; keys at the PBX {voice.keys()}, at the user {pressed(call)}")
    assert {p.kind for p in voice.received} <= {voice.kinds[codec], 96}
    assert [k for k, _ in voice.keys()] == ["2", "#"] and whole(call, "80")


def test_packets_of_any_length_are_taken_and_20_ms_are_sent(boxes, hand, rings, talk):
    box = boxes(33, [section("hand", hand.uri(), register=False, codecs=["pcma"])], {"x": "someone@hand"})
    calls = {}
    for ptime in (10, 30, 40, 60):
        voice = Voice(HAND, codecs=["pcma"], ptime=ptime)
        calls[ptime] = stands(box, hand, rings, "x", voice=voice), voice
    talk(3)
    for (_, line), _ in calls.values():
        line.bye()
    for ptime, ((call, _), voice) in calls.items():
        print(f"{ptime} ms: {tone(call, 1004, -10)}")
        assert {len(p.payload) for p in voice.audio()} == {160}
        voice.tone(700, -10)


@pytest.mark.parametrize("suite", SUITES)
def test_srtp_with_keys_in_the_sdp(boxes, hand, rings, users, talk, suite):
    """Offered by the gateway and offered by the PBX."""
    box = boxes(33, [section("hand", hand.uri(), register=False, codecs=["pcma"], srtp="required")],
                {"x": {"trunk": "hand", "forward_to": "sip:someone@hand"}})
    voice = Voice(HAND, codecs=["pcma"], crypto=[suite])
    call, line = stands(box, hand, rings, "x", voice=voice)
    assert "RTP/SAVP" in line.invite.body
    person = users(frames=sound.tone(700, -10))
    theirs = Voice(HAND, codecs=["pcma"], crypto=[suite])
    out = hand.dial(hand.towards((box.address, 5060)), f"sip:+{person.phone}@{box.address}", theirs)
    assert out.final(10).code == 200
    called = person.called()
    talk(2.5)
    line.bye()
    out.bye()
    for way, ours, user in (("offered by us", voice, call), ("offered by the PBX", theirs, called)):
        assert ours.suite == suite and not ours.strange, ours.strange[:2]
        print(f"{suite}, {way}: {tone(user, 1004, -10)}; {ours.tone(700, -10, skip=0.8)}")


def test_srtp_that_is_required_is_not_given_up(boxes, hand, rings, users):
    box = boxes(33, [section("hand", hand.uri(), register=False, codecs=["pcma"], srtp="required")],
                {"x": {"trunk": "hand", "forward_to": "sip:someone@hand"}})
    call = rings(box, "x", answered=False)
    line = hand.rung(call=call)
    voice = line.voice = Voice(HAND, codecs=["pcma"])
    line.reply(200, body=voice.take(line.invite.body))      # plain RTP
    line.wait("ACK")
    line.hung_up()
    assert call.ended() in ("reject", "terminate") and "accept" not in call.names()
    print(f"a plain answer: {why(box, call)}")
    person = users()
    out = hand.dial(hand.towards((box.address, 5060)), f"sip:+{person.phone}@{box.address}", Voice(HAND, codecs=["pcma"]))
    assert out.final().code == 488
    assert not person.calls


def test_srtp_that_is_optional_lets_a_plain_pbx_talk(boxes, hand, rings, talk):
    box = boxes(33, [section("hand", hand.uri(), register=False, codecs=["pcma"], srtp="optional")], {"x": "someone@hand"})
    call = rings(box, "x", answered=False, frames=sound.tone(700, -10))
    line = hand.rung(call=call)
    if "RTP/SAVP" in line.invite.body:          # a PBX that knows nothing of it says so, and is asked again without
        line.reply(488)
        line.wait("ACK")
        line = hand.rung()
    plain = Voice(HAND, codecs=["pcma"])
    line.pick_up(plain)
    call.action("accept")
    talk(2)
    line.bye()
    print(f"plain: {tone(call, 1004, -10)}")
    secret = Voice(HAND, codecs=["pcma"], crypto=["AES_CM_128_HMAC_SHA1_80"])
    call = rings(box, "x", answered=False, frames=sound.tone(700, -10))
    line = hand.rung(call=call)
    if "a=crypto" in line.invite.body:
        line.pick_up(secret)
        call.action("accept")
        talk(2)
        line.bye()
        print(f"secret: {tone(call, 1004, -10)}")
        assert secret.suite


def test_keys_reach_the_pbx_and_the_user(box, rings, talk, seen, trunk_pbx):
    """A real PBX collects them with Read() and sends them with SendDTMF(): by RFC 4733 and by INFO."""
    digits = {way: rings(box, f"{way}-digits") for way in ("rfc", "info")}
    press = {way: rings(box, f"{way}-press") for way in ("rfc", "info")}
    talk(1)
    for call in digits.values():
        call.press("159#")
    for way, call in press.items():
        call.ended(10)
    for way, call in digits.items():
        call.ended(10)
        channel = seen(call)["chan"]
        keys = [k for k, _ in trunk_pbx.digits(channel)]
        read = [r["keys"] for r in trunk_pbx.said("READ") if r["num"] == seen(call)["num"]]
        sent = [text for kind, text in trunk_pbx.messages(seen(call)["sip"]) if kind == "in" and text.startswith("INFO")]
        print(f"{way}: the PBX collected {keys} {read}; {len(sent)} INFO; its keys at the user: {pressed(press[way])}")
        assert keys == list("159#") and read == ["159"]
        assert len(sent) == (4 if way == "info" else 0)
        assert whole(press[way], "159#")


def test_no_key_is_doubled_or_lost_when_packets_are(boxes, hand, rings, talk):
    voice = Voice(HAND, codecs=["pcma"])
    _, call, line = one(boxes, hand, rings, voice=voice, codecs=["pcma"])
    talk(0.7)
    voice.press("1", drop=(0, 1))               # the beginning is lost,
    voice.press("2", drop=(4, 5))               # two of the three ends,
    voice.press("3", drop=(4, 5, 6))            # all of them,
    voice.press("55", hold=4, pause=1)          # twice the same in quick succession,
    voice.press("7", hold=150)                  # three seconds long
    talk(5)
    for keys in ("12", "99"):
        call.press(keys, hold=0.06, pause=0.06)
    talk(1)
    line.bye()
    print(f"at the user: {pressed(call)}; at the PBX: {voice.keys()}")
    assert whole(call, "123557")
    assert [k for k, _ in voice.keys()] == list("1299")


def test_no_key_of_the_user_is_doubled_or_lost_on_a_bad_network(box, rings, talk, seen, trunk_pbx):
    """One packet in ten is lost, others overtake each other: a real PBX collects every key once."""
    call = rings(box, "rfc-digits", frames=sound.tone(700, -10))
    talk(0.8)
    call.peer.impairment = Impairment(loss=0.1, jitter=0.04, seed=7)
    call.press("1199")
    talk(1.5)
    call.press("7", hold=0.6)
    talk(1.2)
    lost = call.peer.impairment.lost_out
    call.peer.impairment = None
    keys = trunk_pbx.digits(seen(call)["chan"])
    print(f"{lost} packets of the user were lost; the PBX collected {keys}")
    assert [k for k, _ in keys] == list("11997")
    call.hang_up()


def test_telephones_behind_the_pbx_talk_in_wideband(box, rings, talk, trunk_pbx):
    phones = [Phone.extension("1001", "1001-pw", network.address(25), PBX, "G722/16000/1", 16000),
              Phone.extension("1002", "1002-pw", network.address(26), PBX, "opus/48000/2", 48000)]
    try:
        for phone in phones:
            phone.start()
        for phone in phones:
            phone.registered()
        calls = {name: rings(box, name, frames=sound.tone(3800, -10)) for name in ("1001", "1002")}
        talk(3.5)
        for call in calls.values():
            call.hang_up()
        for name, call in calls.items():
            x = call.measure().steady(1.5)
            f, level, gap = sound.frequency(x, sound.CLOCK), sound.level(x), sound.longest_gap(x, sound.CLOCK)
            print(f"{name} plays back {f:.1f} Hz at {level:.1f} dBFS, longest gap {1000 * gap:.0f} ms")
            assert abs(f - 3800) < 38 and level > -16 and gap <= 0.1 + max(0.0, call.measure().stall - 0.03)
    finally:
        for phone in phones:
            phone.stop()


def test_sound_that_comes_from_elsewhere_than_the_sdp_says_is_followed(boxes, hand, rings, talk):
    box = boxes(33, [section("hand", hand.uri(), register=False, codecs=["pcma"])], {"x": "someone@hand"})
    call = rings(box, "x", answered=False, frames=sound.tone(700, -10))
    line = hand.rung(call=call)
    voice = Voice(HAND, codecs=["pcma"])
    body = voice.take(line.invite.body)
    line.reply(200, body=body.replace(f"m=audio {voice.port}", f"m=audio {voice.port ^ 1}"))
    line.wait("ACK")
    voice.start()
    call.action("accept")
    talk(2.5)
    stranger = Voice(network.address(39), codecs=["pcma"], hertz=2000)
    stranger.take(line.invite.body)
    stranger.start()                            # somebody who guessed the port, too late
    talk(1.5)
    stranger.stop()
    line.bye()
    print(f"the PBX: {voice.tone(700, -10)}; the user: {tone(call, 1004, -10)}")
    assert not stranger.received


def test_the_sound_of_a_pbx_behind_a_nat_is_learned_if_that_is_allowed(boxes, hand, rings, talk):
    """Its SDP names an address that nobody can reach; the sound comes from the one that can be."""
    heard = {}
    for learn in (True, False):
        box = boxes(33, [section("hand", hand.uri(), register=False, codecs=["pcma"], learn_media=learn)], {"x": "someone@hand"})
        call = rings(box, "x", answered=False, frames=sound.tone(700, -10))
        line = hand.rung()
        voice = Voice(HAND, codecs=["pcma"])
        line.reply(200, body=voice.take(line.invite.body).replace(f"c=IN IP4 {HAND}", "c=IN IP4 192.168.77.7"))
        line.wait("ACK")
        voice.start()
        call.action("accept")
        talk(2)
        line.bye()
        heard[learn] = sound.level(call.measure().steady())
        print(f"learn_media = {learn}: the user hears {heard[learn]:.1f} dBFS, {len(voice.received)} packets came back")
        assert (len(voice.received) > 50) is learn
    assert heard[True] > -14 and heard[False] < -50


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_the_sound_moves_to_another_address_within_a_call(boxes, hand, rings, talk, method):
    before = Voice(HAND, codecs=["pcma"])
    _, call, line = one(boxes, hand, rings, voice=before, codecs=["pcma"])
    talk(1.5)
    after = line.voice = Voice(HAND, codecs=["pcma"], hertz=1500)
    after.version, after.codec = before.version, "pcma"
    answer = line.reinvite(method=method)
    assert answer.code == 200
    after.take(answer.body, answer=False)
    after.start()
    before.hush()
    at = time.time()
    talk(2)
    line.bye()
    print(f"{method}: {after.tone(700, -10, gap=0.08)}; then the user hears " + hears(call, 1500, -10, at + 0.5, at + 1.9))
    late = [p for p in before.received if p.at > at + 0.5]
    assert not late, "sound still went to the old address"


def test_comfort_noise_of_the_pbx_is_heard_as_noise(boxes, hand, rings, talk):
    voice = Voice(HAND, codecs=["pcma"])
    _, call, line = one(boxes, hand, rings, voice=voice, codecs=["pcma"])
    talk(1.2)
    voice.muted = True
    for _ in range(4):
        voice.send(13, voice._ts, bytes([35]))  # RFC 3389: noise at -35 dBov
        talk(0.5)
    at = time.time()
    voice.muted = False
    talk(1.2)
    line.bye()
    noise = sound.level(stretch(call, at - 1.5, at))
    print(f"noise at {noise:.1f} dBFS, longest pause {1000 * flow(call, at - 2, at):.0f} ms; then " + hears(call, 1004, -10, at + 0.4, at + 1.1))
    assert flow(call, at - 2, at) < 0.1
    assert -60 < noise < -20


def test_early_media_reaches_nobody_and_the_answer_everybody(box, rings, talk):
    call = rings(box, "early", answered=False)
    assert call.action("accept") - call.rang_at >= 1.8
    talk(2)
    call.hang_up()
    print("after early media: " + tone(call, 1004, asterisk.MILLIWATT_DBFS))
    record = until(lambda: box.record(call), 5, "no record")
    print(f"record: { {k: v for k, v in record.items() if 'early' in k} }")
    assert record["answered"] is True and record["trunk"]["early_media"] is True
