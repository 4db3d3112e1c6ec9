"""The stand-in for Meta as the one who is called: it rings, answers, refuses and counts as Meta does."""

import time

import pytest

import network
import sound
from echo import NUMBER, Echo
from graph import WABA, refusal
from whatsapp import Cloud, Fault


@pytest.fixture(scope="module")
def lab():
    cloud = Cloud(network.address(1), 18997, "token", "secret").start()
    cloud.knows(NUMBER)
    gateway = Echo(cloud, 18996)
    cloud.webhook = f"http://{network.address(2)}:18996/webhooks/whatsapp"
    yield cloud, gateway
    gateway.stop()
    cloud.stop()


@pytest.mark.parametrize("setup, role", [("active", "client"), ("passive", "server"), ("actpass", "client")])
def test_a_user_who_is_called_talks_and_hears_in_either_dtls_role(lab, setup, role, talk):
    cloud, gateway = lab
    person = cloud.person(setup=setup, answer=1.2)
    person.frames = sound.tone(700, -10)
    status, reply = gateway.connect(person.phone, opaque="order 7")
    assert status == 200
    call = person.called()
    assert reply["calls"] == [{"id": call.id}] and call.peer.dtls == role
    connect = gateway_event(gateway, call, "connect")
    assert connect["biz_opaque_callback_data"] == "order 7" and connect["direction"] == "BUSINESS_INITIATED"
    assert f"a=setup:{setup}\r\n" in connect["session"]["sdp"] and connect["session"]["sdp_type"] == "answer"
    call.picked_up()
    talk(2.5)
    call.hang_up()
    if setup == "actpass":      # aiortc does not take it in an answer; what matters is that Meta's answer can be like that
        return
    heard = call.measure()
    x = heard.steady()
    print(f"{role}: {sound.frequency(x, sound.CLOCK):.1f} Hz, {heard.early} silent packets while it rang, faults {heard.faults}")
    assert abs(sound.frequency(x, sound.CLOCK) - 700) < 7 and heard.early > 0
    assert gateway.said(call.id) == ["connect", "RINGING", "ACCEPTED", "terminate"]
    end = gateway_event(gateway, call, "terminate")
    assert end["status"] == "COMPLETED" and end["duration"] in (2, 3) and end["to"] == person.phone


def gateway_event(gateway, call, name, timeout=5.0):
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        for i, n, what in gateway.events:
            if (i, n) == (call.id, name):
                return what
        time.sleep(0.02)
    raise AssertionError(f"no {name} among {gateway.said(call.id)}")


def test_webhooks_come_early_twice_and_in_the_wrong_order(lab):
    cloud, gateway = lab
    person = cloud.person(reply=0.4, connect=0.05, ring=0.1, answer=0.3, copies=2)
    begin = time.monotonic()
    gateway.connect(person.phone)
    assert time.monotonic() - begin >= 0.4
    call = person.called()
    until = time.monotonic() + 5
    while len(gateway.said(call.id)) < 6 and time.monotonic() < until:
        time.sleep(0.02)
    assert gateway.said(call.id)[:6] == ["connect"] * 2 + ["RINGING"] * 2 + ["ACCEPTED"] * 2
    call.hang_up()
    other = cloud.person(backwards=True, answer=0.3)
    gateway.connect(other.phone)
    late = other.called()
    gateway_event(gateway, late, "connect")
    assert gateway.said(late.id) == ["ACCEPTED", "RINGING", "connect"]
    late.hang_up()


def test_declined_unanswered_and_broken_calls_end_as_meta_ends_them(lab):
    cloud, gateway = lab
    people = [cloud.person(reject=0.3), cloud.person(answer=None, give_up=0.4), cloud.person(ring=None, give_up=0.4),
              cloud.person(fail=(0.3, 138020, "the client could not reach the relay"))]
    for person in people:
        assert gateway.connect(person.phone)[0] == 200
    calls = [person.called() for person in people]
    ends = [gateway_event(gateway, call, "terminate") for call in calls]
    assert [gateway.said(c.id) for c in calls] == [
        ["connect", "RINGING", "REJECTED", "terminate"], ["connect", "RINGING", "terminate"], ["connect", "terminate"],
        ["connect", "RINGING", "terminate"]]
    assert [e["status"] for e in ends] == ["COMPLETED", "COMPLETED", "COMPLETED", "FAILED"]
    assert not any("duration" in e for e in ends)


def test_the_business_may_end_a_call_and_is_told_so(lab):
    cloud, gateway = lab
    person = cloud.person(answer=None)
    gateway.connect(person.phone)
    call = person.called()
    call.rung()
    assert gateway.graph(f"{NUMBER.pnid}/calls", {"messaging_product": "whatsapp", "call_id": call.id, "action": "terminate"})[0] == 200
    assert call.ended() == "terminate" and "duration" not in gateway_event(gateway, call, "terminate")
    assert gateway.graph(f"{NUMBER.pnid}/calls", {"messaging_product": "whatsapp", "call_id": call.id, "action": "accept"})[0] == 400
    assert any("accept for a call that the business made" in fault for fault in call.faults)


def test_calls_are_refused_with_metas_codes(lab):
    cloud, gateway = lab

    def code(person, **how):
        status, reply = gateway.connect(person if isinstance(person, str) else person.phone, **how)
        return status, reply.get("error", {}).get("code")

    assert code(cloud.person(permission="no_permission")) == (401, 138006)
    assert code("4999000000000") == (400, 138001)
    assert code(cloud.person(), change=lambda sdp: sdp.replace("a=ptime:20\r\n", "")) == (400, 138008)
    tired = cloud.person()
    tired.calls_left = 0
    assert code(tired) == (400, 138012)
    busy = cloud.person(answer=None)
    assert code(busy) == (200, None) and code(busy) == (400, 138003)
    busy.calls[0].hang_up()
    slow = cloud.person()
    slow.plan = [refusal(130429, retry_after=2), Fault(status=500, code=2), Fault(hang=True)]
    assert code(slow) == (429, 130429) and code(slow) == (500, 2)
    with pytest.raises(Exception, match="(?i)disconnected|cannot write|closing"):
        gateway.connect(slow.phone)
    assert code(slow) == (200, None) and [s for _, s, _ in slow.attempts] == [429, 500, 0, 200]
    assert gateway.graph(f"{NUMBER.pnid}/settings", token="wrong")[:1] == (401,)
    sip = cloud.graph.settings(NUMBER)["sip"]
    sip["status"] = "ENABLED"
    assert code(cloud.person()) == (400, 131055)
    sip["status"] = "DISABLED"


def test_permissions_are_asked_for_granted_and_counted(lab):
    cloud, gateway = lab
    person = cloud.person(permission="no_permission")

    def may():
        reply = gateway.graph(f"{NUMBER.pnid}/call_permissions?user_wa_id={person.phone}")[1]
        return reply["permission"]["status"], [a["can_perform_action"] for a in reply["actions"]], reply

    assert may()[:2] == ("no_permission", [True, False])
    ask = {"messaging_product": "whatsapp", "recipient_type": "individual", "to": person.phone, "type": "interactive",
           "interactive": {"type": "call_permission_request", "action": {"name": "call_permission_request"}, "body": {"text": "May we?"}}}
    status, reply, _ = gateway.graph(f"{NUMBER.pnid}/messages", ask)
    assert status == 200 and person.request()["wamid"] == reply["messages"][0]["id"]
    assert gateway.graph(f"{NUMBER.pnid}/messages", ask)[1]["error"]["code"] == 138009
    assert gateway.graph(f"{NUMBER.pnid}/messages", ask | {"type": "text"})[0] == 400
    assert person.reply("accept", number=NUMBER) == 200
    answer = next(what for _, name, what in gateway.events if name == "interactive")["interactive"]["call_permission_reply"]
    assert answer["response"] == "accept" and answer["is_permanent"] is False
    status, allowed, whole = may()
    assert (status, allowed) == ("temporary", [False, True]) and whole["permission"]["expiration_time"] == person.expires
    assert whole["actions"][0]["limits"][0]["current_usage"] == 1
    cloud.graph.plan["call_permissions"] = [refusal(80007, retry_after=7)]
    status, reply, headers = gateway.graph(f"{NUMBER.pnid}/call_permissions?user_wa_id={person.phone}")
    assert (status, reply["error"]["code"], headers["Retry-After"]) == (429, 80007, "7")
    assert [r.query["user_wa_id"] for r in cloud.graph.asked("call_permissions")][-1] == person.phone


def test_settings_are_kept_and_enabling_wants_a_subscription(lab):
    cloud, gateway = lab
    path = f"{NUMBER.pnid}/settings"
    assert gateway.graph(path)[1]["calling"]["status"] == "ENABLED"
    assert gateway.graph(path, {"calling": {"status": "DISABLED", "call_icons": {"restrict_to_user_countries": ["DE"]}}})[0] == 200
    assert gateway.graph(path)[1]["calling"]["call_icons"] == {"restrict_to_user_countries": ["DE"]}
    cloud.graph.subscribed = False
    assert gateway.graph(f"{WABA}/subscribed_apps")[1]["data"] == []
    assert gateway.graph(path, {"calling": {"status": "ENABLED"}})[1]["error"]["code"] == 138018
    cloud.graph.subscribed = True
    cloud.graph.plan["POST settings"] = [refusal(138015)]
    assert gateway.graph(path, {"calling": {"status": "ENABLED"}})[1]["error"]["code"] == 138015
    assert gateway.graph(path, {"calling": {"status": "ENABLED"}})[0] == 200
    assert cloud.graph.settings(NUMBER)["status"] == "ENABLED"
