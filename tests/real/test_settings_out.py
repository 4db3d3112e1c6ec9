"""What the settings change for calls to WhatsApp: the DTLS role, the limits, the shut-down."""

import time

import pytest

import sound
from api import Api
from gateway import API_KEY
from test_outbound import both_heard


@pytest.mark.parametrize("word, offered, role", [("client", "active", "server"), ("server", "passive", "client")])
def test_the_dtls_role_is_the_one_in_the_file(lone, people, pbx, talk, word, offered, role):
    lone(whatsapp=f'dtls_role = "{word}"')
    person = people(frames=sound.tone(700, -10))
    pbx.dial(person.phone, "power")
    call = person.called()
    call.picked_up()
    talk(3.5)
    call.hang_up()
    assert (call.offered.setup, call.peer.dtls) == (offered, role)
    both_heard(pbx, call, f'dtls_role = "{word}"')


def test_limits_hold_for_calls_that_the_pbx_makes(lone, people, pbx, talk):
    gateway = lone(own={"max_call_seconds": "10"}, max_calls=1)
    first, second = people(), people()
    pbx.dial(first.phone, "power")
    call = first.called()
    call.picked_up()
    pbx.dial(second.phone, "power")
    code, _, headers = pbx.answer(second.phone)
    print(f"over max_calls: {code}, {headers.get('warning')}")
    assert code == 486 and second.attempts == []
    assert call.ended(15) == "terminate"
    print(f"ended {call.ended_at - call.accepted_at:.1f} s after the answer, max_call_seconds is 10")
    assert 9.5 <= call.ended_at - call.accepted_at <= 12
    assert gateway.record(call)["why"] == "too_long"


def test_sigterm_lets_a_call_to_whatsapp_finish_and_takes_no_new_one(lone, people, pbx, talk):
    gateway = lone(drain_seconds=20)
    first, second, third = people(), people(), people(answer=None, give_up=15)
    api = Api(gateway, API_KEY)
    pbx.dial(first.phone, "power")
    pbx.dial(third.phone, "power")
    call, ringing = first.called(), third.called()
    call.picked_up()
    assert pbx.answer(third.phone, 180)
    talk(0.5)
    gateway.terminate()
    talk(0.5)
    pbx.dial(second.phone, "power")
    code, _, headers = pbx.answer(second.phone)
    assert code == 503 and int(headers["retry-after"]) > 0 and second.attempts == []
    try:
        placed = api.post("/v1/whatsapp/calls", {"accountId": "lone", "to": second.phone})
        assert placed.status == 503 and int(placed.headers["retry-after"]) > 0, placed
    except OSError as error:
        print(f"the API is closed: {error}")
    assert gateway.process.poll() is None and not call.ended_at
    call.talking()
    call.hang_up()
    print(f"a call that still rang: {'goes on' if not ringing.ended_at else 'was ended'}")
    if not ringing.ended_at:
        pbx.gives_up(third.phone)
    assert ringing.ended(8) == "terminate"
    began = time.monotonic()
    assert gateway.wait(10) == 0
    print(f"gone {time.monotonic() - began:.2f} s after its last call")
    assert gateway.start().record(call)["why"] == "user_hung_up"
