"""Extensions of the PBX call WhatsApp users: what both hear, and what the PBX is told when it can't be."""

import time

import pytest

import asterisk
import network
import sound
from caller import Caller
from conftest import DESK
from whatsapp import Fault, refusal


def both_heard(pbx, call, who):
    """Fails unless the user heard the PBX's tone and the PBX the user's 700 Hz; prints both."""
    print(f"{who}, heard by the user: " + call.measure().tone(1004, asterisk.MILLIWATT_DBFS))
    x, rate = pbx.heard(call.user)
    x = x[rate:-rate // 2]
    f, level, gap = sound.frequency(x, rate), sound.level(x), sound.longest_gap(x, rate)
    print(f"{who}, heard by the PBX: {f:.1f} Hz at {level:.1f} dBFS, gap {1000 * gap:.0f} ms")
    assert abs(f - 700) < 7 and abs(level + 10) <= 3 and gap <= 0.04


@pytest.mark.parametrize("setup, role", [("active", "server"), ("passive", "client")])
def test_an_extension_calls_a_user_and_both_hear_each_other(desk, people, pbx, talk, cloud, setup, role):
    person = people(setup=setup, ring=0.3, answer=1.2, frames=sound.tone(700, -10))
    dialled = time.time()
    pbx.dial(person.phone, "desk")
    call = person.called()
    assert call.number == DESK["desk"] and call.offered.setup == "actpass"
    assert pbx.answer(person.phone, 180) and call.rung()
    assert pbx.state(person.phone) == "Ringing"
    call.picked_up()
    assert pbx.answer(person.phone)[0] == 200
    talk(4)
    call.hang_up()
    done = pbx.done(person.phone)
    print(f"the box is the DTLS {role}; called {1000 * (call.begun_at - dialled):.0f} ms after it was dialled; {call.measure().early} packets "
          f"while it rang; talked {done['talked']} s")
    both_heard(pbx, call, f"DTLS {role}")
    assert call.peer.dtls != role and done["status"] == "ANSWER"
    assert call.measure().doubled == call.measure().missing == 0
    asked = [r for r in cloud.graph.asked("call_permissions") if r.query.get("user_wa_id", "").lstrip("+") == person.phone]
    assert asked and asked[0].at < call.begun_at, "Meta was not asked for the permission first"
    record = desk.record(call)
    assert (record["why"], record["answered"]) == ("user_hung_up", True) and 3 <= record["talk_seconds"] <= 6


def test_a_phone_behind_the_pbx_reaches_the_user_too(desk, people, pbx, talk):
    person = people(frames=sound.tone(700, -10))
    # The phone is rung first and is connected to whom the PBX dials then.
    pbx.cli(f"channel originate PJSIP/record-{person.phone}@phone extension 9{person.phone}@out-desk")
    call = person.called()
    call.picked_up()
    talk(3.5)
    call.hang_up()
    both_heard(pbx, call, "a phone")


@pytest.mark.parametrize("how", [{"reply": 0.8}, {"copies": 3}, {"backwards": True}, {"reply": 1.0, "connect": 0.05, "ring": 0.1, "answer": 0.5}],
                         ids=["connect before the reply", "three times", "backwards", "all before the reply"])
def test_webhooks_in_any_order_and_number_connect_one_call(desk, people, pbx, talk, how):
    person = people(frames=sound.tone(700, -10), **how)
    pbx.dial(person.phone, "desk")
    call = person.called()
    call.picked_up()
    assert pbx.answer(person.phone)[0] == 200
    talk(3)
    call.hang_up()
    both_heard(pbx, call, str(how))
    assert len(person.attempts) == 1
    assert sum(call.id in r.values() for r in desk.records()) == 1


# What Meta says, what the PBX hears, its cause (Q.850), the record, words in the Warning.
REFUSALS = {
    "no permission": ({"permission": "no_permission"}, [], 403, "21", "no_permission", "permission"),
    "permission withdrawn meanwhile": ({}, [refusal(138006)], 403, "21", "no_permission", "permission"),
    "not on WhatsApp": ({}, [refusal(138001)], 404, "1", "not_on_whatsapp", "WhatsApp"),
    "declined": ({"reject": 0.5}, [], 603, "21", "user_declined", ""),
    "no answer": ({"answer": None, "give_up": 1.0}, [], 480, "19", "user_no_answer", ""),
    "switched off": ({"ring": None, "give_up": 1.0}, [], 480, "19", "user_no_answer", ""),
    "in a call": ({}, [refusal(138003)], 486, "17", "user_busy", "already"),
    "daily limit": ({}, [refusal(138012)], 486, "17", None, ""),
    "too many calls": ({}, [refusal(138005)], 503, "38", "throttled", ""),
    "throttled": ({}, [refusal(130429, always=True)], 503, "38", "throttled", ""),
    "Graph is down": ({}, [Fault(status=500, code=2, always=True)], 503, "38", "graph_unreachable", ""),
    "Graph hangs up": ({}, [Fault(hang=True, always=True)], 503, "38", "graph_unreachable", ""),
    "the app can't reach the relay": ({"fail": (0.5, 138020, "the client could not reach the relay")}, [], 480, "19", None, ""),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_the_pbx_is_told_why_a_user_can_not_be_called(desk, people, pbx, case):
    how, plan, code, cause, why, words = REFUSALS[case]
    person = people(**how)
    person.plan = plan
    begin = time.monotonic()
    pbx.dial(person.phone, "desk")
    answer = pbx.answer(person.phone, timeout=15)
    done = pbx.done(person.phone)
    print(f"{case}: {answer[0]} {answer[1]} after {time.monotonic() - begin:.1f} s, {answer[2].get('warning')}, Retry-After "
          f"{answer[2].get('retry-after')}, Asterisk: {done['status']} cause {done['cause']}")
    assert answer[0] == code
    assert done["status"] in ("BUSY", "CONGESTION", "CHANUNAVAIL", "NOANSWER")
    assert words.lower() in answer[2].get("warning", "").lower()
    if code in (403, 404, 486, 503):
        assert answer[2].get("warning"), "no Warning says why"
    if code == 503:
        assert int(answer[2]["retry-after"]) > 0
    records = [r for r in desk.records() if any(person.phone in str(v) for v in r.values())]
    assert len(records) == 1 and records[0]["answered"] is False
    assert why is None or records[0]["why"] == why, records[0]


@pytest.mark.parametrize("fault", [Fault(status=500, code=138004), Fault(status=429, code=130429, retry_after=1)], ids=["500", "429"])
def test_a_stumble_of_meta_does_not_cost_the_outgoing_call(desk, people, pbx, talk, fault):
    person = people()
    person.plan = [fault]
    pbx.dial(person.phone, "desk")
    call = person.called(timeout=12)
    call.picked_up()
    assert pbx.answer(person.phone)[0] == 200
    call.talking()
    talk(0.5)
    call.hang_up()
    assert person.attempted(2)[:2] == [fault.status, 200]


def test_a_call_whose_confirmation_was_lost_is_not_left_ringing(desk, people, pbx, talk):
    person = people(answer=None, give_up=30)
    person.plan = [Fault(lost=True)]
    pbx.dial(person.phone, "desk")
    call = person.called()
    talk(3)
    try:
        pbx.gives_up(person.phone)
    except AssertionError:
        print("the PBX had been told that it can't be")
    call.finished(15)
    assert call.ended() == "terminate" and len(person.calls) == 1


@pytest.mark.parametrize("how, wait", [({}, "ringing"), ({"reply": 1.5, "connect": 1.6}, "asked"), ({"reply": 0.8, "connect": 0.1}, "asked"),
                                       ({"ring": None}, "connect")], ids=["ringing", "before Meta's reply", "after its answer", "not ringing yet"])
def test_a_caller_who_gives_up_ends_the_call_at_meta(desk, people, pbx, talk, how, wait):
    person = people(answer=None, give_up=30, **how)
    pbx.dial(person.phone, "desk")
    call = person.called()
    if wait == "ringing":
        assert pbx.answer(person.phone, 180)
    else:
        talk(0.4)
    before = time.time()
    pbx.gives_up(person.phone)
    assert pbx.answer(person.phone)[0] == 487
    assert call.ended(8) == "terminate"
    print(f"Meta was told {time.time() - before:.2f} s after")
    record = desk.record(call)
    assert (record["why"], record["answered"]) == ("far_gave_up", False)


def test_giving_up_in_the_moment_of_the_answer_leaves_nothing(desk, people, pbx, talk):
    for wait in (0.0, 0.02, 0.05):
        person = people(answer=0.6, ring=0.1)
        pbx.dial(person.phone, "desk")
        call = person.called()
        call.picked_up()
        talk(wait)
        pbx.gives_up(person.phone)
        pbx.done(person.phone)
        call.finished(8)


def test_a_caller_who_hangs_up_ends_the_call_at_meta(desk, people, pbx):
    person = people()
    pbx.dial(person.phone, "desk", then="brief")
    call = person.called()
    assert call.ended(10) == "terminate"
    print(f"ended {call.ended_at - call.accepted_at:.2f} s after it was answered: " + call.measure().tone(1004, -15, within_db=12, skip=0.5))
    record = desk.record(call)
    assert (record["why"], record["answered"]) == ("far_hung_up", True)


def test_the_pbx_reads_the_keys_of_a_user_who_was_called(desk, people, pbx, talk):
    person = people()
    pbx.dial(person.phone, "desk", then="keys")
    call = person.called()
    call.picked_up()
    call.talking()
    talk(0.5)
    call.press("159#")
    talk(1.5)
    call.finished(8)
    assert [r["keys"] for r in pbx.said("READ") if r["num"] == person.phone] == ["159"]


def test_two_extensions_that_call_one_user_get_one_call(desk, people, pbx, talk):
    person = people(answer=None, give_up=2.5)
    pbx.dial(person.phone, "desk")
    person.called()
    pbx.dial(person.phone, "desk")
    assert pbx.answer(person.phone)[0] == 486
    assert len(person.calls) == 1 and not person.calls[0].ended_at


def test_a_caller_without_an_offer_gets_one(desk, people, plain, talk):
    person = people(frames=sound.tone(700, -10), answer=0.8)
    plain.heard.clear()
    code, seen = plain.invite("+" + person.phone, number="200", late=True)
    assert code == 200 and 180 in seen
    assert "m=audio" in plain.final and "PCMU" in plain.final.upper()
    call = person.calls[0]
    plain.talk(3, hertz=1000)
    assert plain.bye() == 200
    assert call.ended() == "terminate"
    x = sound.from_g711(0, b"".join(plain.heard))[8000:]
    print(f"delayed offer, heard by the user: {call.measure().tone(1000, -10)}; by the PBX: {sound.frequency(x, 8000):.1f} Hz at {sound.level(x):.1f} dBFS")
    assert abs(sound.frequency(x, 8000) - 700) < 7 and call.number == DESK["plain"]


@pytest.mark.parametrize("form", ["+{}", "00{}", "0{national}", "{user_id}"])
def test_a_user_is_found_however_the_number_is_dialled(desk, people, plain, form):
    person = people(reject=0.2, user_id=f"DE.{time.monotonic_ns()}")
    dialled = form.format(person.phone, national=person.phone[2:], user_id=person.user_id)
    code, _ = plain.invite(dialled, number="200")
    print(f"{form}: {code}")
    assert code == 603
    body = person.calls[0].requests[0]
    if "user_id" in form:
        assert body["recipient"] == person.user_id and "to" not in body
    else:
        assert body["to"].lstrip("+") == person.phone


@pytest.mark.parametrize("dialled", ["nobody", "+", "0", "+49151x", "%2B49", "+491511234567890123456"])
def test_what_is_no_number_is_not_dialled(desk, people, plain, cloud, dialled):
    before = len(cloud.graph.requests)
    code, _ = plain.invite(dialled, number="200")
    assert code in (404, 484), code
    assert len(cloud.graph.requests) == before


def test_a_stranger_can_not_dial_out(desk, people, cloud):
    person = people()
    stranger = Caller(network.address(13), desk.address, "gw", "guess")
    try:
        code, _ = stranger.invite("+" + person.phone)
    finally:
        stranger.close()
    assert code in (401, 403)
    assert person.attempts == [] and not cloud.graph.asked("call_permissions")[-1].query.get("user_wa_id") == person.phone
