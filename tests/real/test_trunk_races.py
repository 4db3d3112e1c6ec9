"""Two things at once, and what is lost: SIPp plays scenarios, the PBX by hand the rest; timers are looked at."""

import datetime
import pathlib
import re
import time

import pytest

import network
import sound
from gateway import section
from sipp import Sipp
from trunklab import HAND, flow, tone, until, why
from voice import Voice


@pytest.fixture(scope="module")
def box(boxes, hand):
    """A gateway with a trunk by hand."""
    return boxes(38, [section("hand", hand.uri(), register=False, codecs=["pcma"])], {"hand": "someone@hand"}, ring_seconds=20)


@pytest.fixture
def race(box, hand, rings):
    """Starts a scenario and a user's call to it: the trunk's own server sends the call on to SIPp, at another port of its."""
    running = []

    def start(scenario):
        sipp = Sipp(scenario, HAND, port=5070)
        running.append(sipp)
        sipp.start()
        call = rings(box, "hand", answered=False)
        line = hand.rung()
        until(lambda: ":13CE 00000000:0000" in pathlib.Path("/proc/net/udp").read_text(), 15, "SIPp did not listen at 5070")
        line.reply(302, headers=[f"Contact: <sip:race@{HAND}:5070>"])
        return sipp, call
    yield start
    for sipp in running:
        sipp.stop()


def stamps(messages, direction, start):
    """When messages of SIPp's log that begin so were sent or received, seconds since 1970."""
    found = re.findall(r"-+ (\d{4}-\d\d-\d\d)[ T]([\d:.]+)[^\n]*\n\w+ message (\w+)[^\n]*\n\n([^\r\n]*)", messages)
    return [datetime.datetime.fromisoformat(f"{day} {at[:15]}").timestamp() for day, at, way, first in found
            if way == direction and first.startswith(start)]


def nothing_open(box):
    """Fails if the gateway still has a call."""
    until(lambda: not box.api.get("/v1/status")["calls"], 10, lambda: f"calls left: {box.api.get('/v1/status')['calls']}")


def test_an_answer_that_meets_a_cancel_is_hung_up(box, race):
    sipp, call = race("uas-answer-meets-cancel")
    until(lambda: sipp.sent("SIP/2.0 180"), 15, "SIPp was not called")
    call.hang_up()
    sipp.done()
    assert sipp.received("ACK") and sipp.received("BYE"), sipp.messages()
    assert why(box, call) == "user_gave_up" and "accept" not in call.names()


def test_both_hang_up_at_once(box, race, talk):
    sipp, call = race("uas-bye-meets-bye")
    call.action("accept")
    talk(0.5)
    call.hang_up()
    sipp.done()
    print("their BYE was answered", re.findall(r"SIP/2.0 (?:200|481)[^\r\n]*", sipp.messages())[-2:])
    assert sipp.received("BYE")
    assert why(box, call) == "user_hung_up"


def test_an_answer_that_is_repeated_is_acknowledged_each_time(box, hand, rings, talk):
    """As if our ACK had been lost on the way."""
    call = rings(box, "hand", answered=False)
    line = hand.rung(call=call)
    line.pick_up(Voice(HAND))
    call.action("accept")
    body = line.voice.sdp(only="pcma")
    for _ in range(3):
        talk(0.3)
        line.reply(200, body=body)
        line.wait("ACK")
    call.hang_up()
    line.hung_up()
    assert len(line.came("ACK")) == 4 and len(line.came("INVITE")) == 1
    assert call.names() == ["pre_accept", "accept"] and why(box, call) == "user_hung_up"


def test_a_storm_of_ringing_is_weathered(box, rings, race, talk, hand):
    call = rings(box, "hand", answered=False, frames=sound.tone(700, -10))
    calm = hand.rung()
    calm.pick_up(Voice(HAND))
    call.action("accept")
    talk(1)
    at = time.time()
    sipp, stormy = race("uas-storm")
    stormy.action("accept", 15)
    talk(0.5)
    stormy.hang_up()
    sipp.done()
    print(f"{sipp.sent('SIP/2.0 18')} provisional answers; the other call's longest pause {1000 * flow(call, at, time.time()):.0f} ms")
    assert stormy.names() == ["pre_accept", "accept"] and flow(call, at, time.time()) < 0.1
    calm.bye()
    calm.voice.tone(700, -10)


def test_a_second_phone_that_answers_late_is_hung_up_and_the_first_talks_on(box, hand, rings, talk):
    """A proxy has forked our INVITE: two 200s with different tags (RFC 3261 13.2.2.4)."""
    call = rings(box, "hand", answered=False, frames=sound.tone(700, -10))
    line = hand.rung(call=call)
    line.reply(180, tag="fork1")
    line.reply(180, tag="fork2")
    line.tag = "fork1"
    line.local = f"{line.invite.get('to')};tag=fork1"
    line.pick_up(Voice(HAND))
    call.action("accept")
    talk(1)
    for at in range(2):                 # the second phone, and once more, as if our ACK had been lost
        line.reply(200, tag="fork2", body=Voice(HAND).sdp(only="pcma"))
        ack = line.wait(lambda m: m.method == "ACK" and m.tag("to") == "fork2")
        assert ack
    bye = line.wait(lambda m: m.method == "BYE" and m.tag("to") == "fork2")
    hand.answer(bye, 200)
    talk(1.5)
    assert not [m for m in line.came("BYE") if m.tag("to") == "fork1"], "the wrong one was hung up"
    assert line.bye() == 200
    call.ended()
    print(f"the first talked on: {tone(call, 1004, -10)}; {line.voice.tone(700, -10)}")


def test_a_caller_who_gives_up_around_the_answer_leaves_nothing(box, hand, users):
    """CANCEL at, before and after the moment in which the user picks up; whoever wins, both ends agree in the end."""
    everyone = [users(answer=0.35 + 0.05 * n, ring=0.1) for n in range(6)]
    won = 0
    lines = [hand.dial(hand.towards((box.address, 5060)), f"sip:+{person.phone}@{box.address}", Voice(HAND)) for person in everyone]
    for n, line in enumerate(lines):
        line.wait(180, 8)
    time.sleep(0.35)
    for line in lines:
        line.cancel()
    for line, person in zip(lines, everyone):
        final = line.final()
        assert final.code in (200, 487)
        won += final.code == 200
        assert line.wait(lambda m: m.code and m.method == "CANCEL").code in (200, 481)
        if final.code == 200:
            assert line.bye() == 200
        person.called().finished(8)
    print(f"{won} of {len(lines)} were answered before they were taken back")
    nothing_open(box)


def test_a_cancel_that_comes_after_the_answer_changes_nothing(box, hand, users, talk):
    person = users(frames=sound.tone(700, -10))
    line = hand.dial(hand.towards((box.address, 5060)), f"sip:+{person.phone}@{box.address}", Voice(HAND))
    answer = line.wait(200, 8)
    line.cancel()
    assert line.wait(lambda m: m.code and m.method == "CANCEL").code in (200, 481)
    line.ack(answer)
    talk(1.5)
    assert line.bye() == 200
    print(tone(person.called(), 1004, -10, skip=0.5))


def test_the_same_request_again_is_answered_the_same(box, hand, users):
    """Retransmissions: of the INVITE while it rings and after a refusal, and of the BYE."""
    person = users(reject=0.8)
    line = hand.dial(hand.towards((box.address, 5060)), f"sip:+{person.phone}@{box.address}", Voice(HAND))
    first = line.wait(180)
    body = line.voice.sdp()
    for _ in range(3):
        line.request("INVITE", body=body, cseq=1, branch=line.branches[1, "INVITE"])
    assert line.wait((100, 180)).tag("to") in (None, first.tag("to"))
    final = line.wait(603)
    again = line.wait(603, 5)           # not acknowledged yet
    assert again.tag("to") == final.tag("to") == first.tag("to")
    line.ack(final)
    assert len(person.calls) == 1
    person = users()
    line = hand.dial(hand.towards((box.address, 5060)), f"sip:+{person.phone}@{box.address}", Voice(HAND))
    assert line.final().code == 200
    assert line.bye() == 200
    number = line.cseq
    line.request("BYE", cseq=number, branch=line.branches[number, "BYE"])
    assert line.wait(lambda m: m.code and m.method == "BYE").code == 200
    line.request("BYE")                 # a new one, for a call that is over: nobody minds which
    assert line.wait(lambda m: m.code and m.method == "BYE").code in (200, 481)


def test_requests_out_of_order_and_of_nobody_are_refused(box, hand, users):
    person = users()
    line = hand.dial(hand.towards((box.address, 5060)), f"sip:+{person.phone}@{box.address}", Voice(HAND))
    assert line.final().code == 200
    line.cseq = 10
    assert line.reinvite().code == 200
    number = line.request("INVITE", body=line.voice.sdp(only="pcma"), cseq=5)
    late = line.wait(lambda m: m.code and m.code >= 200 and m.cseq == (number, "INVITE"))
    line.ack(late, take=False)
    assert late.code == 500
    line.cseq = 20
    assert line.bye() == 200
    for method in ("INVITE", "UPDATE"):
        number = line.request(method, body=line.voice.sdp(only="pcma"))
        answer = line.wait(lambda m, asked=(number, method): m.code and m.code >= 200 and m.cseq == asked)
        assert answer.code == 481, (method, answer.start)
        if method == "INVITE":
            line.ack(answer, take=False)


def test_an_answer_that_is_never_acknowledged_is_repeated_and_then_hung_up(boxes, cloud):
    """RFC 3261 13.3.1.4: after 0.5, 1, 2 and then every 4 s; after 32 s the call is over, at Meta too."""
    at = network.address(44)
    box = boxes(39, [section("never", f"sip:{HAND}:5060", register=False, codecs=["pcma"], allow=[f"{at}/32"])],
                {"x": {"forward_to": "sip:a@never", "trunk": "never"}})
    person = cloud.person(answer=0.3)
    with Sipp("uac-never-acks", at, target=(box.address, 5060), service=f"+{person.phone}") as sipp:
        sipp.start().done(60)
        answers, byes = stamps(sipp.messages(), "received", "SIP/2.0 200"), stamps(sipp.messages(), "received", "BYE")
    gaps = [b - a for a, b in zip(answers, answers[1:])]
    print(f"repeated after {', '.join(f'{g:.1f}' for g in gaps)} s; BYE {byes[0] - answers[0]:.1f} s after the answer")
    assert [round(g, 0) for g in gaps[1:4]] == [1, 2, 4] and abs(gaps[0] - 0.5) < 0.4 and max(gaps) < 5
    assert 31 <= byes[0] - answers[0] <= 36
    assert person.calls[0].ended() == "terminate"
