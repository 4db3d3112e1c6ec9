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
    print(f"{who}, heard by the PBX: {pbx.hears(call.user, 700, since=call.made)}")


@pytest.mark.parametrize("setup, role", [("active", "server"), ("passive", "client")])
def test_an_extension_calls_a_user_and_both_hear_each_other(desk, people, pbx, talk, cloud, setup, role):
    person = people(setup=setup, ring=0.3, answer=2.5, frames=sound.tone(700, -10))
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
    assert (record["why"], record["answered"]) == ("user_hung_up", True) and 3 <= record["talk_seconds"] <= 7, record


def test_a_phone_behind_the_pbx_reaches_the_user_too(desk, people, pbx, talk):
    person = people(frames=sound.tone(700, -10))
    # The phone is rung first and is connected to whom the PBX dials then.
    pbx.cli(f"channel originate PJSIP/record-{person.phone}@phone extension 9{person.phone}@out-desk")
    call = person.called()
    call.picked_up()
    talk(3.5)
    call.hang_up()
    both_heard(pbx, call, "a phone")


def test_webhooks_in_any_order_and_number_connect_one_call(desk, people, pbx, talk):
    everyone = {
        "connect before the reply": people(frames=sound.tone(700, -10), reply=0.8),
        "everything three times": people(frames=sound.tone(700, -10), copies=3),
        "backwards": people(frames=sound.tone(700, -10), backwards=True),
        "picked up before the reply": people(frames=sound.tone(700, -10), reply=1.0, connect=0.05, ring=0.1, answer=0.5),
    }
    for person in everyone.values():
        pbx.dial(person.phone, "desk")
    calls = {name: person.called() for name, person in everyone.items()}
    for name, call in calls.items():
        call.picked_up()
        assert pbx.answer(call.user)[0] == 200, name
    talk(3.5)
    for call in calls.values():
        call.hang_up()
    for name, call in calls.items():
        both_heard(pbx, call, name)
        assert len(call.person.attempts) == 1, name
        desk.record(call)
        assert sum(call.id in r.values() for r in desk.records()) == 1, name


# What Meta says, what the PBX hears, its cause (Q.850), the record, words in the Warning.
REFUSALS = {
    "no permission": ({"permission": "no_permission"}, [], 403, "21", "no_permission", "not allowed"),
    "permission withdrawn meanwhile": ({}, [refusal(138006)], 403, "21", "no_permission", ""),
    "not on WhatsApp": ({}, [refusal(138001)], 404, "1", "not_on_whatsapp", "WhatsApp"),
    "declined": ({"reject": 0.5}, [], 603, "21", "user_declined", ""),
    "no answer": ({"answer": None, "give_up": 1.0}, [], 480, "19", "user_no_answer", ""),
    "switched off": ({"ring": None, "give_up": 1.0}, [], 480, "19", "user_no_answer", ""),
    "in a call": ({}, [refusal(138003)], 486, "17", "user_busy", "already"),
    "daily limit": ({}, [refusal(138012)], 486, "17", None, ""),
    "too many calls": ({}, [refusal(138005)], 503, "34", "throttled", ""),
    "throttled": ({}, [refusal(130429, always=True)], 503, "34", "throttled", ""),
    # Here nobody knows whether Meta has begun the call: it is kept open for a while, to end it if a webhook tells of it.
    "Graph is down": ({}, [Fault(status=500, code=2, always=True)], 503, "34", "in doubt", ""),
    "Graph hangs up": ({}, [Fault(hang=True, always=True)], 503, "34", "in doubt", ""),
    "the app can't reach the relay": ({"fail": (0.5, 138020, "the client could not reach the relay")}, [], 480, "19", None, ""),
}


@pytest.fixture(scope="module")
def refused(desk, cloud, pbx):
    """All of them at once: what is waited for is waited for once. Case -> (SIP answer, dialplan, records)."""
    everyone = {}
    for case, (how, plan, *_) in REFUSALS.items():
        everyone[case] = cloud.person(**how)
        everyone[case].plan = plan
        pbx.dial(everyone[case].phone, "desk")
    found = {}
    for case, person in everyone.items():
        found[case] = [None, None, []]
        try:
            found[case][:2] = pbx.answer(person.phone, timeout=15), pbx.done(person.phone)
        except AssertionError as error:
            print(f"{case}: {error}")
            pbx.cli("channel request hangup all")

    def recorded(person):
        return [r for r in records if any(person.phone in str(v) for v in r.values())]
    end = time.monotonic() + 10             # the last ones are written a moment after the PBX has been told
    while True:
        records = desk.records()
        if time.monotonic() > end or all(recorded(person) for case, person in everyone.items() if REFUSALS[case][4] != "in doubt"):
            break
        time.sleep(0.2)
    for case, person in everyone.items():
        found[case][2] = recorded(person)
        for call in person.calls:
            if not call.ended_at:
                call.hang_up()
    return found


@pytest.mark.parametrize("case", REFUSALS)
def test_the_pbx_is_told_why_a_user_can_not_be_called(refused, case):
    _, _, code, cause, why, words = REFUSALS[case]
    answer, done, records = refused[case]
    assert answer, "the PBX never got a final answer"
    print(f"{case}: {answer[0]} {answer[1]}, {answer[2].get('warning')}, Retry-After {answer[2].get('retry-after')}, "
          f"Asterisk: {done['status']} cause {done['cause']}, record: {records and records[0].get('why')}")
    assert answer[0] == code
    assert (done["status"] == "BUSY") is (code == 486) and done["cause"] == cause
    assert words.lower() in answer[2].get("warning", "").lower()
    if code in (403, 404, 486, 503):
        assert answer[2].get("warning"), "no Warning says why"
    if code == 503:
        assert int(answer[2]["retry-after"]) > 0
    if why == "in doubt":
        assert records == [] or records[0]["why"] == "graph_unreachable"
        return
    assert len(records) == 1 and records[0]["answered"] is False
    assert why is None or records[0]["why"] == why, records[0]


def test_a_stumble_of_meta_does_not_cost_the_outgoing_call(desk, people, pbx, talk):
    stumbles = [Fault(status=500, code=138004), Fault(status=429, code=130429, retry_after=1)]
    everyone = [people() for _ in stumbles]
    for person, fault in zip(everyone, stumbles):
        person.plan = [fault]
        pbx.dial(person.phone, "desk")
    for person, fault in zip(everyone, stumbles):
        call = person.called(timeout=12)
        call.picked_up()
        assert pbx.answer(person.phone)[0] == 200
        call.talking()
        assert person.attempted(2)[:2] == [fault.status, 200]
    talk(0.3)
    for person in everyone:
        person.calls[0].hang_up()


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


def test_a_caller_who_gives_up_ends_the_call_at_meta(desk, people, pbx, talk):
    everyone = {
        "ringing": people(answer=None, give_up=30),
        "before Meta's reply": people(answer=None, give_up=30, reply=1.5, connect=1.6),
        "after its answer, before its reply": people(answer=None, give_up=30, reply=1.5, connect=0.1),
        "not ringing yet": people(ring=None, give_up=30),
    }
    for person in everyone.values():
        pbx.dial(person.phone, "desk")
    calls = {name: person.called() for name, person in everyone.items()}
    assert pbx.answer(everyone["ringing"].phone, 180)
    before = time.time()
    for person in everyone.values():
        pbx.gives_up(person.phone)
    for name, call in calls.items():
        assert pbx.answer(call.user)[0] == 487, name
        assert call.ended(8) == "terminate", name
        record = desk.record(call)
        print(f"{name}: Meta was told within {call.ended_at - before:.2f} s; {record.get('detail')}")
        assert (record["why"], record["answered"]) == ("far_gave_up", False), name


def test_giving_up_in_the_moment_of_the_answer_leaves_nothing(desk, people, pbx, talk):
    everyone = [people(answer=0.8 + 0.07 * n, ring=0.1) for n in range(5)]
    for person in everyone:
        pbx.dial(person.phone, "desk")
    for person in everyone:         # each takes about as long as the next one waits: before, at and after the answer
        pbx.gives_up(person.phone)
    for person in everyone:
        pbx.done(person.phone)
        person.called().finished(8)
    print(f"answered before the caller gave up: {sum(bool(p.calls[0].accepted_at) for p in everyone)} of {len(everyone)}")


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
    person = people(answer=None, give_up=20)
    pbx.dial(person.phone, "desk")
    call = person.called()
    pbx.dial(person.phone, "desk")
    assert pbx.answer(person.phone)[0] == 486
    assert len(person.calls) == 1 and not call.ended_at
    call.hang_up()


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
    # Other gateways of the run ask Meta for other things meanwhile.
    asked = [r for r in cloud.graph.requests[before:] if "call_permissions" in r.path or (r.body or {}).get("action") == "connect"]
    assert not asked, asked


def test_a_stranger_can_not_dial_out(desk, people, cloud):
    person = people()
    stranger = Caller(network.address(13), desk.address, "gw", "guess")
    stranger.sip.settimeout(1.5)
    try:
        with pytest.raises(TimeoutError):       # it is not even answered
            stranger.invite("+" + person.phone)
    finally:
        stranger.close()
    assert person.attempts == [] and person.phone not in [r.query.get("user_wa_id", "").lstrip("+") for r in cloud.graph.asked("call_permissions")]
