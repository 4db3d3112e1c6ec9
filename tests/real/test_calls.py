"""How calls begin and end, what Meta and the PBX are told, and what the record says."""

import time

import pytest

from whatsapp import Fault, Number


def record_of(gateway, call, why, answered):
    record = gateway.record(call)
    print(f"record: {why}, answered {answered}: {record.get('detail', '')}")
    assert (record["why"], record["answered"]) == (why, answered)
    return record


def test_the_pbx_learns_who_calls(gateway, dial, talk):
    call = dial("echo", user="4915112345678", name="Ada Lovelace", user_id="DE.13491208655302741918", payload="order-66 x")
    call.ring()
    call.action("accept")
    talk(0.5)
    call.hang_up()
    seen = dial.seen(call)
    assert seen["num"].lstrip("+") == "4915112345678"
    assert seen["name"] == "Ada Lovelace"
    assert seen["user"] == "DE.13491208655302741918"
    assert seen["payload"] == "order-66 x"


def test_a_caller_without_a_phone_number_is_known_by_user_id(gateway, dial, talk):
    call = dial("echo", user=None, name="Zo\u00eb \u201cZ\u201d <x>", user_id="US.13491208655302741918")
    call.ring()
    call.action("accept")
    talk(0.5)
    call.hang_up()
    seen = dial.seen(call)
    print(f"caller at the PBX: {seen}")
    assert seen["user"] == "US.13491208655302741918"
    assert seen["num"] and "Zo\u00eb" in seen["name"]
    record_of(gateway, call, "user_hung_up", True)


@pytest.mark.parametrize("extension, why", [
    ("busy", "far_busy"), ("via-busy", "far_busy"), ("declined", "far_declined"), ("nobody", "far_unreachable"),
    ("broken", "far_unreachable"),
])
def test_a_pbx_that_refuses_ends_the_call_at_meta(gateway, dial, extension, why):
    call = dial(extension)
    call.ring()
    how = call.ended(10)
    print(f"{extension}: {call.names()}")
    assert how == ("terminate" if "pre_accept" in call.names() else "reject")
    assert "accept" not in call.names()
    record_of(gateway, call, why, False)


def test_a_pbx_that_never_answers_ends_the_call_when_the_ring_time_is_over(gateway, dial):
    call = dial("silent")
    call.ring()
    call.ended(12)
    assert "accept" not in call.names()
    assert 5 <= call.ended_at - call.rang_at <= 9
    dial.gone(call)
    record_of(gateway, call, "far_no_answer", False)


def test_accept_waits_until_the_pbx_has_answered(gateway, dial, talk):
    call = dial("late")
    call.ring()
    assert call.action("pre_accept") - call.rang_at < 1.9
    accepted = call.action("accept")
    print(f"answered {accepted - call.rang_at:.2f} s after it rang")
    assert 1.9 <= accepted - call.rang_at < 4.5
    talk(2)
    call.hang_up()
    heard = call.measure()
    print(heard.tone(700, -10))
    assert call.peer.connected_at < accepted and heard.first < 0.3, \
        f"the media path was to be ready before the PBX answered; it was {accepted - call.peer.connected_at:.2f} s before accept"


def test_a_caller_who_gives_up_stops_the_ringing(gateway, dial, pbx):
    call = dial("silent")
    call.ring()
    sip = dial.seen(call)["sip"]
    call.action("pre_accept")
    call.hang_up()
    dial.gone(call)
    assert pbx.requests("CANCEL", sip) == 1
    assert "accept" not in call.names()
    record_of(gateway, call, "user_gave_up", False)


def test_a_user_who_hangs_up_ends_the_call_at_the_pbx(gateway, dial, talk, pbx):
    call = dial.answered("echo")
    talk(1.5)
    before = time.time()
    call.hang_up()
    dial.gone(call)
    print(f"the PBX was told within {time.time() - before:.2f} s")
    assert pbx.requests("BYE", dial.seen(call)["sip"]) == 1
    record = record_of(gateway, call, "user_hung_up", True)
    assert 1 <= record["talk_seconds"] <= 4, record


def test_an_agent_who_hangs_up_ends_the_call_at_meta(gateway, dial):
    call = dial.answered("short")
    assert call.ended(8) == "terminate"
    print(f"terminated {call.ended_at - call.accepted_at:.2f} s after accept")
    assert 2 <= call.ended_at - call.accepted_at <= 5       # the PBX hangs up 3 s after it has answered
    record_of(gateway, call, "far_hung_up", True)


@pytest.mark.parametrize("action", ["pre_accept", "accept"])
def test_a_refusal_by_meta_ends_the_call_at_the_pbx(gateway, dial, action):
    call = dial("late")
    call.plan[action] = [Fault(status=400, code=138008, message="SDP Validation error")] * 9
    call.ring()
    call._wait(lambda: any(a == action for _, a, _ in call.actions) or None, 12, f"no {action}")
    dial.rang(call) and dial.gone(call)
    record = record_of(gateway, call, "graph_refused", False)
    assert 138008 in record.values()


@pytest.mark.parametrize("fault", [Fault(status=500, code=2), Fault(status=429, code=130429), Fault(hang=True, delay=0.3),
                                   Fault(lost=True)], ids=["500", "429", "cut off", "answer lost"])
@pytest.mark.parametrize("action", ["pre_accept", "accept"])
def test_a_stumble_of_meta_does_not_cost_the_call(gateway, dial, talk, action, fault):
    call = dial("echo")
    call.plan[action] = [fault]
    call.ring()
    call._wait(lambda: len(call.requests) >= 3 or None, 12, "no second try")
    call.action("accept", 12)
    print(f"{action} failed once; accepted after {call.accepted_at - call.rang_at:.2f} s")
    talk(1)
    call.hang_up()
    assert call.measure().packets > 20
    record_of(gateway, call, "user_hung_up", True)


def test_a_slow_meta_is_waited_for(gateway, dial, talk):
    call = dial("echo")
    call.plan = {"pre_accept": [Fault(delay=1.5)], "accept": [Fault(delay=1.5)]}
    call.ring()
    call.action("accept", 10)
    talk(1)
    call.hang_up()
    assert call.measure().packets > 20


def test_the_same_connect_three_times_rings_once(gateway, dial, talk):
    call = dial("echo")
    call.ring(copies=3)
    call.action("accept")
    talk(0.5)
    call.hang_up(copies=2)
    dial.gone(call)
    gateway.record(call)                # it is written by now, and was not written twice
    assert dial.rang(call) == 1
    assert call.names() == ["pre_accept", "accept"]
    assert sum(call.id in r.values() for r in gateway.records()) == 1


def test_an_end_before_the_beginning_rings_nobody(gateway, dial, talk):
    call = dial("echo")
    call.cloud.send(call.terminate())
    call.ring()
    talk(1.5)
    assert dial.rang(call) == 0
    assert call.actions == []
    call.ended_at = time.time()


def test_a_batch_brings_every_call_in_it(gateway, dial, talk, cloud):
    one, two = dial("echo"), dial("milliwatt")
    one.rang_at = two.rang_at = time.time()
    assert cloud.send(one.connect(), two.connect()) == 200
    for call in (one, two):
        call.action("accept")
    talk(0.5)
    one.hang_up()
    two.hang_up()
    assert dial.rang(one) == dial.rang(two) == 1


def test_calls_of_other_numbers_and_other_fields_are_none_of_ours(gateway, dial, cloud, talk):
    foreign = cloud.call(Number("999999999999999", "+15550999999"))
    assert cloud.send(foreign.connect()) == 200
    call = dial("echo")
    assert cloud.send(call.connect(), field="messages") == 200
    talk(1)
    assert foreign.actions == [] and call.actions == []
    assert dial.rang(foreign) == dial.rang(call) == 0
