"""What happens within a call: hold, refresh, acknowledged ringing, and the words around it."""

import re
import time
import wave

import numpy as np
import pytest

import asterisk
import network
import sound
from gateway import section
from phone import Phone
from trunklab import HAND, PBX, account, flow, hears, pressed, stretch, tone, until, why
from voice import Voice

CLIP = 620.0        # the tone in the configured hold clip, Hz
TIMERS = ["Require: timer", "Session-Expires: 90;refresher={}"]


@pytest.fixture(scope="module")
def phone(trunk_pbx):
    """A telephone on the PBX that says a tone."""
    it = Phone.extension("1003", "1003-pw", network.address(25), PBX, "PCMA/8000/1", hertz=850)
    yield it.start().registered()
    it.stop()


@pytest.fixture(scope="module")
def box(boxes, trunk_pbx, hand):
    """A gateway with accounts at the PBX and a trunk by hand."""
    # Its phone is held for longer than the PBX may be silent.
    trunks = [account("alaw", silence_seconds=5), account("prack"), account("timers", session_expires=90),
              section("hand", hand.uri(), register=False, codecs=["pcma"], session_expires=90)]
    return boxes(34, trunks, {"phone": "phone-1003@alaw", "prack": "late@prack", "timers": "milliwatt@timers", "hand": "someone@hand",
                              "out": {"trunk": "hand", "forward_to": "sip:a@hand"}})


class Long:
    """A call that lasts; `line` is the PBX's end if that is played by hand."""

    def __init__(self, cloud, box, number, hand=None, refresher=None):
        self.call = cloud.call(box.numbers[number], user=str(4915800000000 + time.time_ns() // 10**6 % 10**8), frames=sound.tone(700, -10))
        self.call.ring()
        self.line = hand and hand.rung()
        if hand:
            self.line.pick_up(Voice(HAND), headers=[h.format(refresher) for h in TIMERS])
        self.call.action("accept")
        self.at = time.time()


@pytest.fixture(scope="module", autouse=True)
def long(box, hand, cloud):
    """Calls that begin with the module and are looked at when the other tests are done: session timers are 90 s at least."""
    it = {"PBX": Long(cloud, box, "timers"), "we refresh": Long(cloud, box, "hand", hand, "uac"),
          "nobody refreshes": Long(cloud, box, "hand", hand, "uas")}
    yield it
    for one in it.values():
        one.call.ended_at or one.call.hang_up()


def stands(box, hand, rings, number="hand", **how):
    """A call that stands with the PBX by hand: (user's call, PBX's line)."""
    call = rings(box, number, answered=False, frames=sound.tone(700, -10))
    line = hand.rung(call=call)
    line.pick_up(Voice(HAND), **how)
    call.action("accept")
    return call, line


def directions(messages):
    """The directions that the SDP of some messages says, in their order."""
    return [m for _, text in messages for m in re.findall(r"(?m)^a=(sendrecv|sendonly|recvonly|inactive)", text)]


# Hold


def test_a_phone_behind_the_pbx_holds_and_resumes(box, phone, rings, talk, seen, trunk_pbx):
    call = rings(box, "phone", frames=sound.tone(700, -10))
    phone.talking()
    begin = time.time()
    talk(2)
    phone.do("hold")
    held = time.time()
    talk(12)                # longer than silence_seconds
    phone.do("resume")
    resumed = time.time()
    talk(2.5)
    end = time.time()
    call.hang_up()
    words = directions(trunk_pbx.messages(seen(call)["sip"]))
    quiet = sound.level(stretch(call, held + 0.8, resumed - 0.2))
    print(f"directions {words}; before: {hears(call, 850, -10, begin + 0.8, held)}; held: {quiet:.1f} dBFS, longest pause "
          f"{1000 * flow(call, held, held + 3):.0f} ms; after: {hears(call, 850, -10, resumed + 0.8, end)}")
    assert "sendonly" in words and "recvonly" in words
    assert quiet < -30 and flow(call, held, held + 3) < 0.1


@pytest.mark.parametrize("how", ["sendonly with music", "inactive", "0.0.0.0"])
def test_a_held_user_hears_something_and_is_resumed(box, hand, rings, talk, how):
    call, line = stands(box, hand, rings)
    talk(1.2)
    music = how.startswith("sendonly")
    if music:
        line.voice.hertz = 440.0
    else:
        line.voice.muted = True
    answer = line.reinvite({"sendonly with music": "sendonly", "inactive": "inactive", "0.0.0.0": "sendrecv"}[how],
                           "0.0.0.0" if how == "0.0.0.0" else None)
    held = time.time()
    talk(2)
    resumed = time.time()
    line.voice.hertz, line.voice.muted = 1004.0, False
    again = line.reinvite()
    talk(1.5)
    end = time.time()
    line.bye()
    said = re.search(r"(?m)^a=(sendrecv|sendonly|recvonly|inactive)", answer.body).group(1)
    print(f"{how}: answered {said}; held: {sound.frequency(stretch(call, held + 0.5, resumed), 48000):.0f} Hz at "
          f"{sound.level(stretch(call, held + 0.5, resumed)):.1f} dBFS; then " + hears(call, 1004, -10, resumed + 0.5, end))
    if music:
        hears(call, 440, -10, held + 0.5, resumed)
    assert said in {"sendonly with music": ["recvonly"], "inactive": ["inactive"], "0.0.0.0": ["recvonly", "inactive", "sendrecv"]}[how]
    assert "a=sendrecv" in again.body and again.code == 200
    assert flow(call, held, end) < 0.1
    sent = [p for p in line.voice.received if held + 0.3 < p.at < resumed]
    assert music or not sent, f"{len(sent)} packets to a PBX that wanted none"
    line.voice.tone(700, -10, since=resumed + 0.3, skip=0.1)


def test_a_held_user_hears_the_configured_clip(boxes, hand, rings, talk, tmp_path):
    clip = tmp_path / "hold.wav"
    with wave.open(str(clip), "wb") as w:
        w.setnchannels(1)
        w.setsampwidth(2)
        w.setframerate(8000)
        w.writeframes((np.sin(2 * np.pi * CLIP * np.arange(8000 * 2) / 8000) * 0.25 * 32767).astype("<i2").tobytes())
    box = boxes(33, [section("hand", hand.uri(), register=False, codecs=["pcma"])], {"hand": "someone@hand"}, media=f'hold_clip = "{clip}"')
    call, line = stands(box, hand, rings)
    talk(1)
    line.voice.muted = True
    assert line.reinvite("inactive").code == 200
    held = time.time()
    talk(3)
    resumed = time.time()
    line.voice.muted = False
    assert line.reinvite().code == 200
    talk(1.5)
    line.bye()
    print(f"held: {hears(call, CLIP, -12, held + 0.5, resumed, gap=0.06)}; then {hears(call, 1004, -10, resumed + 0.5, resumed + 1.4)}")


# Ringing that is acknowledged (RFC 3262)


def test_a_ringing_that_must_be_acknowledged_is(box, hand, rings, talk, seen, trunk_pbx):
    call = rings(box, "prack", frames=sound.tone(700, -10))
    talk(2)
    call.hang_up()
    messages = trunk_pbx.messages(seen(call)["sip"])
    pracks = [text for way, text in messages if way == "in" and text.startswith("PRACK")]
    print(f"a real PBX: {len(pracks)} PRACK; {tone(call, 700, -10)}")
    assert len({re.search(r"branch=([^;\s]+)", text).group(1) for text in pracks}) == 1, pracks     # one, however often it was sent
    call = rings(box, "hand", answered=False, frames=sound.tone(700, -10))
    line = hand.rung(call=call)
    assert "100rel" in line.invite.get("supported", "")
    line.reply(180, headers=["Require: 100rel", "RSeq: 4711"])
    prack = line.wait("PRACK")
    assert prack.get("rack") == f"4711 {line.invite.cseq[0]} INVITE"
    line.reply(200, request=prack)
    line.reply(180, headers=["Require: 100rel", "RSeq: 4711"])      # once more, as if the network had doubled it
    line.reply(183, headers=["Require: 100rel", "RSeq: 4712"])
    second = line.wait(lambda m: m.method == "PRACK" and "4712" in m.get("rack", ""))
    line.reply(200, request=second)
    line.pick_up(Voice(HAND))
    call.action("accept")
    line.bye()
    assert {p.get("rack") for p in line.came("PRACK")} == {f"471{n} {line.invite.cseq[0]} INVITE" for n in (1, 2)}


def test_our_own_ringing_is_repeated_until_it_is_acknowledged(box, hand, users, talk):
    person = users(ring=0.3, answer=4.5)
    line = hand.dial(hand.towards((box.address, 5060)), f"sip:+{person.phone}@{box.address}", Voice(HAND),
                     headers=["Supported: 100rel", "Require: 100rel"])
    ringing = line.wait(180)
    assert "100rel" in ringing.get("require", "") and ringing.get("rseq")
    again = [line.wait(180, timeout=6).at for _ in range(2)]
    gaps = [b - a for a, b in zip([ringing.at, *again], again)]
    line.remote, line.target = ringing.get("to"), ringing.target
    line.request("PRACK", headers=[f"RAck: {ringing.get('rseq')} 1 INVITE"])
    line.wait(lambda m: m.code == 200 and m.method == "PRACK")
    talk(2.5)
    extra = [m for m in line.kept if m.code == 180]
    print(f"repeated after {', '.join(f'{g:.2f}' for g in gaps)} s; {len(extra)} more after PRACK")
    assert 0.3 < gaps[0] < 0.95 and 0.6 < gaps[1] < 1.8 and not extra      # half a second, then a whole one
    assert line.ack(line.wait(lambda m: m.code == 200 and m.method == "INVITE")).code == 200
    assert line.bye() == 200


# Elsewhere, refused, why


def test_a_call_is_sent_on_to_another_place_before_it_is_answered(box, hand, rings, talk):
    call = rings(box, "hand", answered=False, frames=sound.tone(700, -10))
    first = hand.rung()
    first.reply(302, headers=[f"Contact: <sip:moved@{HAND}:5060>"])
    first.wait("ACK")
    second = hand.rung()
    assert second.invite.user == "moved"
    second.pick_up(Voice(HAND))
    call.action("accept")
    talk(2)
    second.bye()
    print(tone(call, 1004, -10, skip=0.5))


def test_a_circle_of_redirections_has_an_end(box, hand, rings):
    call = rings(box, "hand", answered=False)
    count = 0
    while count < 40:
        try:
            line = hand.rung(timeout=2)
        except AssertionError:
            break
        count += 1
        line.reply(302, headers=[f"Contact: <sip:circle{count}@{HAND}>"])
    call.ended()
    print(f"gone round {count} times; {why(box, call)}")
    assert 2 <= count <= 12


def test_a_redirection_to_a_stranger_stays_with_the_trunk(box, hand, rings):
    """The trunk may know what to do with it; nobody else is asked."""
    call = rings(box, "hand", answered=False)
    hand.rung().reply(302, headers=["Contact: <sip:bill-me@203.0.113.9>"])
    try:
        hand.rung(2).reply(404)
    except AssertionError:
        print("not followed at all")
    call.ended()
    assert why(box, call) in ("far_unreachable", "far_declined")


def test_methods_that_are_not_for_us_are_refused_properly(box, hand, rings):
    _, line = stands(box, hand, rings)
    got = {}
    for method in ("MESSAGE", "SUBSCRIBE", "PUBLISH", "FOOBAR"):
        line.request(method, body="hello" if method == "MESSAGE" else "", kind="text/plain")
        answer = line.wait(lambda m, method=method: m.code and m.method == method)
        got[method] = answer.code
        if answer.code == 405:
            assert "INVITE" in answer.get("allow", "")
    print(got)
    assert all(code in (405, 501, 489) for code in got.values()) and got["FOOBAR"] in (405, 501)
    line.request("INFO", body="what is this", kind="application/x-unknown")
    assert line.wait(lambda m: m.code and m.method == "INFO").code in (415, 200)
    line.request("OPTIONS")
    options = line.wait(lambda m: m.code and m.method == "OPTIONS")
    assert options.code == 200 and {"INVITE", "BYE", "UPDATE"} <= set(options.get("allow").replace(" ", "").split(","))
    line.request("INVITE", body=line.voice.sdp(only="pcma"), headers=["Require: nonsense"])
    assert line.final().code == 420
    assert line.bye() == 200


def test_keys_by_info_are_taken(box, hand, rings, talk):
    call, line = stands(box, hand, rings)
    talk(0.6)
    for kind, body in (("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n"), ("application/dtmf-relay", "Signal= #\r\nDuration= 100\r\n"),
                       ("application/dtmf", "7")):
        line.request("INFO", body=body, kind=kind)
        assert line.wait(lambda m: m.code and m.method == "INFO").code == 200
    talk(1.5)
    line.bye()
    print(pressed(call))
    # Meta knows keys from the user only: whatever becomes of the PBX's, none is doubled or out of place.
    assert [k for k, _ in pressed(call)] in ([], list("5#7"))


def test_why_a_pbx_ended_it_is_in_the_record(box, hand, rings):
    call, line = stands(box, hand, rings)
    line.bye(headers=['Reason: Q.850;cause=27;text="Destination out of order"'])
    call.ended()
    hung_up = box.record(call)
    call = rings(box, "hand", answered=False)
    hand.rung().reply(500, headers=['Reason: Q.850;cause=38;text="Network out of order"'])
    call.ended()
    refused = box.record(call)
    print(f"BYE: {hung_up['why']}, {hung_up.get('detail')}; 500: {refused['why']}, {refused.get('detail')}")
    assert (hung_up["trunk"]["cause"], refused["trunk"]["cause"]) == (27, 38)
    assert hung_up["why"] == "far_hung_up" and "estination out of order" in str(hung_up)
    assert refused["why"] == "far_unreachable" and "etwork out of order" in str(refused)


def test_a_caller_without_a_name_and_one_who_was_diverted_get_through(box, hand, users):
    person = users(reject=0.3)
    line = hand.dial(hand.towards((box.address, 5060)), f"sip:+{person.phone}@{box.address}", Voice(HAND), caller="anonymous", name="Anonymous", headers=[
        f"P-Asserted-Identity: <sip:+4930123456@{HAND}>", "Privacy: id", f"Diversion: <sip:300@{HAND}>;reason=no-answer;counter=2",
        f"History-Info: <sip:300@{HAND}>;index=1, <sip:301@{HAND}?Reason=SIP%3Bcause%3D302>;index=1.1"])
    assert line.final().code == 603 and person.calls
    assert box.record(person.calls[0])["trunk"]["diverted_from"] == "300"
    assert not any("4930123456" in text for text in box.out + box.err), "who wanted to be nameless is in the log"


def test_two_who_change_the_call_at_once_are_told_to_wait(box, hand, users, talk):
    """Glare: while our offer waits for its answer in the ACK, another offer has to wait (RFC 3261 14.2)."""
    person = users(frames=sound.tone(700, -10))
    voice = Voice(HAND)
    line = hand.dial(hand.towards((box.address, 5060)), f"sip:+{person.phone}@{box.address}")
    offer = line.wait(200)
    line.remote, line.target, line.voice = offer.get("to"), offer.target, voice
    voice.take(offer.body)
    number = line.request("INVITE", body=voice.sdp(only="pcma"))
    glare = line.wait(lambda m: m.code and m.code >= 200 and m.cseq == (number, "INVITE"))
    print(f"a change before the ACK: {glare.start}")
    assert glare.code in (491, 500)
    line.ack(glare)
    line.request("ACK", body=voice.sdp(only="pcma"), cseq=1)
    voice.start()
    call = person.called()
    talk(1.5)
    assert line.reinvite().code == 200
    assert line.bye() == 200
    print(tone(call, 1004, -10, skip=0.3) + "; " + voice.tone(700, -10, gap=0.1))


# Session timers (RFC 4028)


def test_a_session_that_is_too_short_for_the_pbx_is_made_longer(box, hand, rings):
    call = rings(box, "hand", answered=False)
    first = hand.rung()
    assert int(first.invite.get("session-expires").split(";")[0]) == 90 and "timer" in first.invite.get("supported", "")
    first.reply(422, headers=["Min-SE: 600"])
    first.wait("ACK")
    second = until(lambda: [m for m in hand.requests("INVITE", first.id) if m.at > first.invite.at], 8, "no second INVITE")[0]
    assert int(second.get("session-expires").split(";")[0]) >= 600 and int(second.get("min-se")) >= 600
    first.reply(486, request=second)
    call.ended()


def test_sessions_are_refreshed_and_one_that_is_not_ends(long, box, hand, trunk_pbx, seen):
    """The calls began at the top of this module: most of the 90 s are over by now."""
    ours, theirs, dead = long["we refresh"], long["PBX"], long["nobody refreshes"]

    def refreshes():
        return ours.line.came("UPDATE") + ours.line.came("INVITE")[1:]
    until(refreshes, max(1.0, ours.at + 60 - time.time()), "we did not refresh the session")
    refresh = refreshes()[0]
    print(f"we refreshed after {refresh.at - ours.at:.1f} s with {refresh.method}, {refresh.get('session-expires')}")
    assert 30 <= refresh.at - ours.at <= 60
    bye = dead.line.wait("BYE", max(1.0, dead.at + 95 - time.time()))
    dead.line.reply(200, request=bye)
    print(f"the PBX that had promised to and did not was hung up on after {bye.at - dead.at:.1f} s: {bye.get('reason')}")
    assert 45 <= bye.at - dead.at <= 91
    dead.call.ended()
    messages = trunk_pbx.messages(seen(theirs.call)["sip"])
    met = [(way, text.split(" ")[0]) for way, text in messages if re.match(r"(INVITE|UPDATE) ", text)]
    print(f"with Asterisk, in is from us: {met}")
    assert len(met) >= 3, "neither refreshed (an INVITE, the one with digest, and then a refresh)"
    now = time.time()
    print("and its user still hears " + hears(theirs.call, 1004, asterisk.MILLIWATT_DBFS, now - 2, now))
