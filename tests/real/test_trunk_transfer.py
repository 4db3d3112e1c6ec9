"""Transfers: a PBX sends a caller elsewhere by REFER, with and without a consultation, or takes a call over."""

import re
import time
import urllib.parse

import pytest

import network
import sound
from byhand import prove
from gateway import section
from phone import Phone
from trunklab import HAND, PBX, account, hears, stretch, until
from voice import Voice


@pytest.fixture(scope="module")
def phone(trunk_pbx):
    """A telephone on the PBX that says a tone."""
    with Phone.extension("1003", "1003-pw", network.address(25), PBX, "PCMA/8000/1", hertz=850) as it:
        yield it.start().registered()


@pytest.fixture(scope="module")
def box(boxes, trunk_pbx, hand):
    """A gateway with an account at the PBX, whose agents have addresses of their own, and a trunk by hand."""
    trunks = [account("alaw", allow=[f"{HAND}/32"]), section("hand", hand.uri(), register=False, codecs=["pcma"])]
    return boxes(35, trunks, {"refer": "refer-other-blind@alaw", "hand": "someone@hand", "agent": "sent-27@alaw"})


def stands(box, hand, rings):
    """A call that stands with the PBX by hand: (user's call, PBX's line)."""
    call = rings(box, "hand", answered=False, frames=sound.tone(700, -10))
    line = hand.rung(call=call)
    line.pick_up(Voice(HAND))
    call.action("accept")
    return call, line


def told(line, timeout=8.0, once=False):
    """What NOTIFY said about a transfer: (first line of its body, state of the subscription)."""
    found = []
    while True:
        try:
            notify = line.wait("NOTIFY", timeout)
        except AssertionError:
            return found
        found.append((notify.body.strip().split("\r\n")[0], notify.get("subscription-state", "")))
        if once or "terminated" in found[-1][1]:
            return found


def parted(line):
    """The end of the old call: whoever is first hangs up."""
    if line.came("BYE"):
        line.hung_up()
    else:
        line.bye(wait=False)


def test_a_pbx_sends_the_caller_elsewhere(box, rings, talk, seen, trunk_pbx):
    call = rings(box, "refer", frames=sound.tone(700, -10))
    at = call.accepted_at
    talk(6)
    call.hang_up()
    end = time.time()

    def heard(hertz, a, b):
        return hears(call, hertz, sound.level(stretch(call, a, b)), a, b)
    print(f"first: {heard(1004, at + 0.4, at + 1.2)}; then {heard(1477, at + 4, end - 0.3)}")
    done = until(lambda: trunk_pbx.said("REFERRED"), 10, "Asterisk never heard how its transfer went")
    assert done[-1]["status"] == "SUCCESS", done
    x, rate = trunk_pbx.heard("blind")
    f = sound.frequency(x[rate:], rate)
    print(f"Asterisk: {done[-1]}; whom the caller was sent to hears {f:.1f} Hz")
    assert abs(f - 700) < 7
    record = box.record(call)
    assert (record["why"], record["answered"]) == ("user_hung_up", True)


def test_a_blind_transfer_by_refer(box, hand, rings, talk):
    call, line = stands(box, hand, rings)
    talk(1)
    line.request("REFER", headers=[f"Refer-To: <sip:1234@{HAND}>", f"Referred-By: <sip:200@{HAND}>"])
    assert line.wait((202, 200)).code == 202
    first = told(line, once=True)
    new = hand.rung()
    assert new.invite.user == "1234" and "200@" in new.invite.get("referred-by", "")
    new.reply(180)
    talk(0.5)
    new.pick_up(Voice(HAND, hertz=1500))
    at = time.time()
    notes = first + told(line)
    print(f"told: {notes}")
    assert re.match(r"SIP/2.0 1\d\d", notes[0][0])
    assert notes[-1][0].startswith("SIP/2.0 200") and "terminated" in notes[-1][1]
    parted(line)
    talk(1.2)
    new.bye()
    call.ended()
    print("afterwards the user hears " + hears(call, 1500, -10, at + 0.6, at + 1.8) + "; the new one " + new.voice.tone(700, -10))


def test_a_transfer_that_fails_leaves_the_call_as_it_was(box, hand, rings, talk):
    call, line = stands(box, hand, rings)
    talk(1)
    line.request("REFER", headers=[f"Refer-To: <sip:9999@{HAND}>"])
    assert line.wait((202, 200)).code == 202
    new = hand.rung()
    new.reply(486)
    new.wait("ACK")
    notes = told(line)
    print(f"told: {notes}")
    assert notes[-1][0].startswith("SIP/2.0 486") and "terminated" in notes[-1][1]
    at = time.time()
    talk(1.5)
    assert line.bye() == 200
    print(hears(call, 1004, -10, at + 0.3, at + 1.4))


@pytest.mark.parametrize("target", ["sip:1234@203.0.113.9", "sip:+4917099887766@example.net", "mailto:a@b", "nonsense"])
def test_a_caller_is_not_sent_to_strangers(box, hand, rings, target):
    """The trunk may know what to do with such an address; nobody else is asked."""
    _, line = stands(box, hand, rings)
    line.request("REFER", headers=[f"Refer-To: <{target}>"])
    answer = line.wait(lambda m: m.code and m.method == "REFER")
    if answer.code < 300:
        hand.rung().reply(404)
    notes = told(line) if answer.code < 300 else []
    print(f"{target}: {answer.start}, {notes}")
    assert answer.code >= 400 or notes[-1][0].startswith("SIP/2.0 404")
    assert line.bye() == 200


def test_an_attended_transfer_replaces_the_consultation(box, hand, rings, talk):
    call, line = stands(box, hand, rings)
    talk(1)
    line.request("REFER", headers=[f"Refer-To: <sip:4321@{HAND}?Replaces=consult-7711%40pbx%3Bto-tag%3Dtt1%3Bfrom-tag%3Dff2>"])
    assert line.wait((202, 200)).code == 202
    told(line, once=True)
    new = hand.rung()
    said = new.invite.get("replaces", "")
    assert new.invite.user == "4321" and said.startswith("consult-7711@pbx") and "to-tag=tt1" in said and "from-tag=ff2" in said
    new.pick_up(Voice(HAND, hertz=1500))
    at = time.time()
    assert told(line)[-1][0].startswith("SIP/2.0 200")
    parted(line)
    talk(1.2)
    new.bye()
    print("the user hears " + hears(call, 1500, -10, at + 0.6, at + 1.6))


def test_an_agent_of_a_real_pbx_transfers_after_a_consultation(box, hand, phone, rings, talk):
    """Asterisk sends the user to an agent (302); the agent calls a telephone of Asterisk's and connects the two: REFER with
    Replaces, and Asterisk puts the user in the agent's place."""
    call = rings(box, "agent", answered=False, frames=sound.tone(700, -10))
    line = hand.rung(call=call)
    line.pick_up(Voice(HAND))
    call.action("accept")
    consultation = hand.dial(hand.towards((PBX, 5060)), f"sip:phone-1003@{PBX}", Voice(HAND), caller="1004")
    asked = consultation.ack(consultation.wait(401))
    consultation.request("INVITE", body=consultation.voice.sdp(),
                         headers=[prove(asked.get("www-authenticate"), "INVITE", consultation.target, "1004", "1004-pw")])
    answer = consultation.final()
    assert answer.code == 200
    talk(1)
    replaces = urllib.parse.quote(f"{consultation.id};to-tag={answer.tag('to')};from-tag={consultation.tag}", safe="")
    line.request("REFER", headers=[f"Refer-To: <sip:phone-1003@{PBX}?Replaces={replaces}>", f"Referred-By: <sip:1004@{PBX}>"])
    assert line.wait((202, 200)).code == 202
    assert told(line)[-1][0].startswith("SIP/2.0 200")
    parted(line)
    consultation.hung_up()
    at = time.time()
    talk(2)
    call.hang_up()
    print("the user hears the telephone: " + hears(call, 850, -10, at + 0.5, at + 1.8))
    phone.until(lambda: "terminated" in phone.printed(), 10, "the telephone's call did not end with the user's")


def test_a_pbx_takes_a_call_over_with_replaces(box, hand, rings, talk):
    """What a PBX does to end a transfer that it made itself: a new INVITE stands in for the old one."""
    call, line = stands(box, hand, rings)
    talk(1)
    voice = Voice(HAND, hertz=1500)
    replaces = f"Replaces: {line.id};to-tag={line.invite.tag('from')};from-tag={line.tag}"
    new = hand.dial(hand.towards((box.address, 5060)), f"sip:watrunk@{box.address}", voice, headers=[replaces, "Require: replaces"])
    assert new.final().code == 200
    line.hung_up()
    at = time.time()
    talk(1.5)
    assert new.bye() == 200
    call.ended()
    print("the user hears " + hears(call, 1500, -10, at + 0.4, at + 1.4) + "; the one who took over " + voice.tone(700, -10))


def test_nothing_is_taken_over_that_is_not_there(box, hand):
    other = hand.dial(hand.towards((box.address, 5060)), f"sip:watrunk@{box.address}", Voice(HAND), headers=["Replaces: nothing;to-tag=1;from-tag=2"])
    assert other.final().code == 481
