"""Events to the user's own applications: signed, in order, until they are taken; and the live stream."""

import time

import pytest

import network
from api import Stream
from conftest import ACCOUNT, DESK
from hook import Hook
from trunklab import until
from whatsapp import Fault


@pytest.fixture
def other(api):
    """A second application, known by the API only; gone afterwards."""
    it = Hook(network.address(15), 8090, "another-secret-7e")
    reply = api.post("/v1/webhooks/settings", {"name": "other", "url": it.url, "secret": it.secret,
                                               "events": ["call.received", "call.ended", "call.failed"]})
    assert reply.status in (200, 201), reply
    settings = reply.json
    it.id = settings.get("_id") or settings.get("webhook", {}).get("_id")
    assert it.id, settings
    yield it
    api.ask("DELETE", "/v1/webhooks/settings", query={"id": it.id})
    it.close()


def test_a_call_is_told_from_beginning_to_end(desk, dial, hook, talk):
    call = dial.answered("desk", user_id="DE.1349120865530", name="Ada Lovelace")
    received = hook.wait(lambda h: next((d for d in h.of(event="call.received") if d.json["call"]["metaCallId"] == call.id), None))
    talk(1.2)
    call.hang_up()
    ours = received.json["call"]["id"]
    ended = hook.wait(lambda h: h.of(ours, "call.ended"))[0]
    print(f"call.received {1000 * (received.at - call.rang_at):.0f} ms after it rang, call.ended {1000 * (ended.at - call.ended_at):.0f} ms after the end")
    assert [d.event for d in hook.of(ours)] == ["call.received", "call.ended"]
    assert not hook.forged(received) + hook.forged(ended)
    got = received.json
    assert got["account"]["accountId"] == ACCOUNT and got["account"]["platform"] == "whatsapp" and got["timestamp"]
    assert got["call"] | {"direction": "inbound", "accountId": ACCOUNT, "phoneNumberId": DESK["desk"].pnid,
                          "forwardTo": "sip:record-desk@pbx"} == got["call"]
    assert got["call"]["from"].lstrip("+") == call.user and got["call"]["to"] == DESK["desk"].phone
    end = ended.json["call"]
    assert end["endReason"] == "hangup" and 1 <= end["durationSeconds"] <= 5 and end["metaCallId"] == call.id
    assert {"metaCostUSD", "telnyxCostUSD", "recordingCostUSD", "billableCostUSD", "totalCostUSD"} <= set(end["billing"])
    assert end["hangupCause"] and "recordingUrl" in end and "sipHangupCause" in end
    assert received.json["id"] != ended.json["id"]


def test_a_call_that_fails_is_told_as_failed(desk, dial, hook, people, api):
    call = dial("desk")
    call.plan["pre_accept"] = [Fault(status=400, code=138008, message="SDP Validation error")] * 9
    call.ring()
    failed = hook.wait(lambda h: next((d for d in h.of(event="call.failed") if d.json["call"]["metaCallId"] == call.id), None))
    assert failed.json["call"]["error"]["code"] == 138008 and failed.json["call"]["error"]["message"] and failed.json["call"]["failedAt"]
    assert not hook.forged(failed)
    assert not hook.of(failed.json["call"]["id"], "call.ended")
    # An outgoing call tells only its end.
    person = people(reject=0.3)
    ours = api.post("/v1/whatsapp/calls", {"accountId": ACCOUNT, "to": person.phone, "forwardTo": "sip:echo@pbx"})["callId"]
    hook.wait(lambda h: h.of(ours, "call.ended") or h.of(ours, "call.failed"))
    assert [d.event for d in hook.of(ours)] == ["call.ended"]
    assert hook.of(ours)[0].json["call"]["endReason"] == "rejected"


def test_an_application_that_stumbles_gets_every_event_in_order(desk, dial, other, hook, talk):
    other.plan = [500, 0]
    one = dial.answered("desk")
    talk(0.3)
    one.hang_up()
    two = dial.answered("desk")
    talk(0.3)
    two.hang_up()
    for call in (one, two):
        ended = other.wait(lambda h: next((d for d in h.of(event="call.ended") if d.json["call"]["metaCallId"] == call.id), None), 30)
        ours = ended.json["call"]["id"]
        taken = [d.event for d in other.of(ours)]
        assert taken == ["call.received", "call.ended"], taken
    first = [d for d in other.got if d.json["id"] == other.got[0].json["id"]]
    assert len(first) >= 2 and len({d.raw for d in first}) == 1, "a repeated delivery is the same, its id too"
    assert not [w for d in other.got for w in other.forged(d)]
    # The other application did not have to wait for this one.
    ended = hook.wait(lambda h: next((d for d in h.of(event="call.ended") if d.json["call"]["metaCallId"] == one.id), None))
    assert ended.at - one.ended_at < 3, f"{ended.at - one.ended_at:.2f} s after the end"
    print(f"first taken {first[-1].at - first[0].at:.1f} s after the first try, {len(first)} tries")


def test_a_slow_application_does_not_hold_up_the_others(desk, dial, other, hook, talk):
    other.delay = 5.0
    call = dial.answered("desk")
    talk(0.3)
    call.hang_up()
    ended = hook.wait(lambda h: next((d for d in h.of(event="call.ended") if d.json["call"]["metaCallId"] == call.id), None))
    print(f"call.ended at the quick one {1000 * (ended.at - call.ended_at):.0f} ms after the end")
    assert ended.at - call.ended_at < 3.5
    other.delay = 0.0


def test_webhooks_are_made_changed_tested_and_removed(api, desk, other):
    listed = api.get("/v1/webhooks/settings")
    assert listed.status == 200, listed
    rows = {w["_id"]: w for w in listed["webhooks"]}
    mine = rows[other.id]
    assert mine["name"] == "other" and mine["url"] == other.url and mine["isActive"] is True
    assert set(mine["events"]) == {"call.received", "call.ended", "call.failed"}
    assert other.secret not in listed.raw.decode() and "app" in rows
    assert other.url in desk.config.read_text()
    fired = api.post("/v1/webhooks/test", {"webhookId": other.id})
    assert fired.status == 200 and fired["success"] is True, fired
    got = other.wait(lambda h: h.of(event="webhook.test"))[0]
    assert not other.forged(got)
    other.plan = [500]
    fired = api.post("/v1/webhooks/test", {"webhookId": other.id})
    print(f"a test fire that fails: {fired}")
    assert fired.status in (200, 502) and "500" in fired.raw.decode()
    changed = api.ask("PUT", "/v1/webhooks/settings", {"_id": other.id, "name": "renamed", "isActive": False})
    assert changed.status == 200, changed
    assert {w["_id"]: w for w in api.get("/v1/webhooks/settings")["webhooks"]}[other.id]["name"] == "renamed"
    for wrong, param in (({"url": "ftp://x"}, "url"), ({"url": "https://example.com", "events": ["call.rang"]}, "events"),
                         ({"url": "https://example.com", "name": "x" * 51}, "name"), ({"name": "x"}, "url")):
        reply = api.post("/v1/webhooks/settings", {"events": ["call.ended"], "name": "n"} | wrong)
        assert reply.status == 400 and reply["param"].split("[")[0] == param, reply
    assert api.ask("DELETE", "/v1/webhooks/settings", query={"id": "nosuch"}).status == 404


def test_deliveries_are_logged_and_can_be_repeated(api, dial, other, talk):
    call = dial.answered("desk")
    call.hang_up()
    ended = other.wait(lambda h: next((d for d in h.of(event="call.ended") if d.json["call"]["metaCallId"] == call.id), None))

    def logged():
        logs = api.get("/v1/webhooks/logs", webhookId=other.id)
        assert logs.status == 200, logs
        return next((r for r in logs["logs"] if r["event"] == "call.ended" and ended.json["id"] in str(r)), None)
    row = until(logged, 5, "the delivery is not in the log")
    assert row["status"] == "success" and row["statusCode"] == 200 and row["attemptNumber"] == 1 and row["responseTime"] >= 0
    count = len(other.got)
    again = api.post("/v1/webhooks/logs/redeliver", {"webhookId": other.id, "eventId": row["eventId"]})
    assert again.status in (200, 202), again
    repeated = other.wait(lambda h: h.got[count:] or None)[0]
    assert repeated.json["id"] == ended.json["id"] and repeated.raw == ended.raw
    assert api.post("/v1/webhooks/logs/redeliver", {"webhookId": other.id, "eventId": "nosuch"}).status in (404, 422)
    assert api.post("/v1/webhooks/logs/redeliver", {"webhookId": "nosuch", "eventId": row["eventId"]}).status == 404


def test_events_that_nobody_took_survive_a_restart(desk, dial, other, talk):
    other.plan = [503] * 50
    call = dial.answered("desk")
    call.hang_up()
    other.wait(lambda h: h.got)
    desk.record(call)
    desk.terminate()
    assert desk.wait(40) == 0
    other.plan = []
    other.got.clear()
    desk.start()
    ended = other.wait(lambda h: next((d for d in h.of(event="call.ended") if d.json["call"]["metaCallId"] == call.id), None), 40)
    assert [d.event for d in other.of(ended.json["call"]["id"])] == ["call.received", "call.ended"]


def test_a_screen_sees_calls_as_they_happen(api, dial, people, talk):
    with Stream(api) as stream:
        assert stream.reply.status == 200 and stream.reply.getheader("content-type").startswith("text/event-stream")
        call = dial.answered("desk")
        _, seen = stream.wait(lambda n, d: n == "call.received" and d["call"]["metaCallId"] == call.id)
        print(f"on the screen, the events: {sorted({n for n, _ in stream.events})}")
        call.hang_up()
        stream.wait(lambda n, d: n == "call.ended" and d["call"]["id"] == seen["call"]["id"])
    assert time.time() - call.ended_at < 8
    assert api.ask("GET", "/v1/events", key="").status == 401
