"""Programs place, watch, transfer and end calls by the REST API; what it costs, and what they are told when it can't be."""

import concurrent.futures
import threading
import time

import pytest

import asterisk
import sound
from api import Api
from conftest import ACCOUNT, DESK, OPERATOR, READER, nothing_left
from gateway import API_KEY
from whatsapp import Fault, refusal


def place(api, person, then="record", account=ACCOUNT, **more):
    """Calls a user; the answer. The destination is an extension that is named after the user."""
    return api.post("/v1/whatsapp/calls", {"accountId": account, "to": "+" + person.phone,
                                           "forwardTo": f"sip:{then}-{person.phone}@pbx"} | more)


def test_a_program_connects_a_user_with_an_extension(api, desk, people, pbx, talk):
    person = people(frames=sound.tone(700, -10), answer=2.0)
    reply = place(api, person, biz_opaque_callback_data="order 66")
    assert reply.status == 200, reply
    placed = reply.json
    call = person.called()
    assert placed["success"] is True and placed["status"] == "dialing" and placed["direction"] == "outbound"
    assert placed["forwardTo"] == f"sip:record-{person.phone}@pbx" and placed["recordingEnabled"] is False
    assert placed["to"].lstrip("+") == person.phone and placed["callId"] and placed["telnyxCallControlId"]
    assert "biz_opaque_callback_data" not in placed
    shown = api.call(placed["callId"], ACCOUNT)
    assert shown["status"] == "ringing" and shown["direction"] == "outbound" and shown["_id"] == placed["callId"]
    call.picked_up()
    shown = api.until(placed["callId"], ACCOUNT, "answered")
    assert shown["answeredAt"] and shown["channel"] == "whatsapp" and shown["accountId"] == ACCOUNT
    call.talking()
    waited = next(p.at for p in call.peer.received if p.at > call.accepted_at) - call.accepted_at
    talk(4)
    ended = api.post(f"/v1/voice/calls/{placed['callId']}/end")
    assert ended.status == 200 and ended["status"] == "ending" and ended["callId"] == placed["callId"], ended
    assert call.ended() == "terminate"
    print(f"something to hear {1000 * waited:.0f} ms after the user picked up: "
          + call.measure().tone(1004, asterisk.MILLIWATT_DBFS, skip=1.5) + "; the PBX: " + pbx.hears(person.phone, 700, since=call.made))
    over = api.until(placed["callId"], ACCOUNT, "ended")
    assert over["endReason"] == "hangup" and over["endedAt"] and 3 <= over["durationSeconds"] <= 7
    again = api.post(f"/v1/voice/calls/{placed['callId']}/end")
    assert again.status == 200 and again["status"] == "ended", again
    # 6 s pulses of a call to +4917, rounded up.
    billing = over["billing"]
    print(f"billing: {billing}")
    pulses = -(-(call.ended_at - call.accepted_at) // 6)
    assert billing["currency"] == "USD" and abs(billing["metaCostUSD"] - 0.06 * pulses) < 0.0601, billing
    assert billing["totalCostUSD"] >= billing["billableCostUSD"] >= billing["telnyxCostUSD"] >= 0


def test_nobody_hears_dead_air_while_the_extension_still_rings(api, desk, people, pbx, talk):
    person = people(frames=sound.tone(700, -10))
    reply = api.post("/v1/whatsapp/calls", {"accountId": ACCOUNT, "to": person.phone, "forwardTo": "sip:late@pbx"})
    assert reply.status == 200, reply
    call = person.called()
    call.picked_up()
    call.talking(6)
    api.until(reply["callId"], ACCOUNT, "answered")
    talk(2.5)
    call.hang_up()
    heard = call.measure()
    x = heard.steady(0.0)
    first = sound.level(x[:int(0.8 * sound.CLOCK)])
    print(f"the first 0.8 s after picking up: {first:.1f} dBFS; longest interval {1000 * heard.longest_interval:.0f} ms")
    assert heard.longest_interval < 0.2 and abs(sound.frequency(x[-sound.CLOCK:], sound.CLOCK) - 700) < 7
    assert api.until(reply["callId"], ACCOUNT, "ended")["endReason"] == "hangup"


@pytest.mark.parametrize("outgoing", [False, True], ids=["inbound", "outbound"])
def test_a_running_call_is_transferred_to_another_extension(api, desk, people, dial, pbx, talk, outgoing):
    if outgoing:
        person = people(frames=sound.tone(700, -10))
        call_id = place(api, person)["callId"]
        call = person.called()
        call.picked_up()
    else:
        call = dial.answered("desk", frames=sound.tone(700, -10))
        call_id = api.get("/v1/whatsapp/calls", accountId=ACCOUNT, limit=1)["calls"][0]["_id"]
    api.until(call_id, ACCOUNT, "answered")
    call.talking() if outgoing else talk(1)
    talk(1)
    target = f"sip:other-{call.user}@pbx"
    moved = api.post(f"/v1/voice/calls/{call_id}/transfer", {"to": target})
    assert moved.status == 200 and moved["success"] is True and moved["transferredTo"] == target, moved
    at = time.time()
    talk(4)
    call.hang_up()
    heard = call.measure()
    x = heard.decode()
    tail = x[-2 * sound.CLOCK:]
    print(f"after the transfer: {sound.frequency(tail, sound.CLOCK):.1f} Hz; the new extension: {pbx.hears(call.user, 700, since=call.made)}; "
          f"longest interval {1000 * heard.longest_interval:.0f} ms")
    assert abs(sound.frequency(tail, sound.CLOCK) - 1477) < 8 and heard.longest_interval < 0.2
    assert [p.at for p in call.peer.received if p.at > at], "silence since the transfer"
    shown = api.until(call_id, ACCOUNT, "ended")
    assert shown["transferredAt"]
    again = api.post(f"/v1/voice/calls/{call_id}/transfer", {"to": target})
    assert again.status == 409, again


def test_a_transfer_that_reaches_nobody_does_not_leave_the_user_on_an_open_line(api, desk, dial, talk):
    call = dial.answered("desk")
    talk(1)
    call_id = api.get("/v1/whatsapp/calls", accountId=ACCOUNT, limit=1)["calls"][0]["_id"]
    moved = api.post(f"/v1/voice/calls/{call_id}/transfer", {"to": "sip:busy@pbx"})
    assert moved.status in (200, 409, 502), moved
    talk(2.5)
    shown = api.call(call_id, ACCOUNT)
    heard = sound.frequency(call.measure().decode()[-sound.CLOCK:], sound.CLOCK)
    print(f"after a transfer to a busy extension: {shown['status']}, the user hears {heard:.0f} Hz, {shown.get('callErrors')}")
    # Either the old destination is kept or the call ends: both are fine.
    if shown["status"] == "answered":
        assert abs(heard - 1004) < 10
        call.hang_up()
    else:
        assert call.ended() == "terminate"


def test_a_user_who_declines_or_does_not_answer_is_seen_as_such(api, people):
    cases = {"declined": ({"reject": 0.4}, "rejected"), "no answer": ({"answer": None, "give_up": 1.0}, "no_answer")}
    placed = {}
    for name, (how, _) in cases.items():
        reply = place(api, people(**how))
        assert reply.status == 200, reply
        placed[name] = reply["callId"]
    for name, (_, reason) in cases.items():
        call = api.until(placed[name], ACCOUNT, ("ended", "failed"))
        print(f"{name}: {call['status']}, {call['endReason']}, {call.get('hangupCause')}")
        assert call["endReason"] == reason and not call.get("answeredAt") and not call["billing"]["metaCostUSD"]


def test_the_extension_is_not_left_ringing_when_the_user_declines(api, people, pbx, talk):
    person = people(reject=0.8)
    reply = api.post("/v1/whatsapp/calls", {"accountId": ACCOUNT, "to": person.phone, "forwardTo": "sip:silent@pbx"})
    assert reply.status == 200, reply
    api.until(reply["callId"], ACCOUNT, "ended")
    nothing_left(pbx)


# A refusal: the user, Meta's plan, the request, HTTP status, words that must be somewhere in the answer.
REFUSALS = {
    "no permission": ({"permission": "no_permission"}, [], 409, "permission"),
    "permission withdrawn": ({}, [refusal(138006)], 409, "permission"),
    "not on WhatsApp": ({}, [refusal(138001)], 422, "138001"),
    "daily limit": ({}, [refusal(138012, "You may call again after 2026-12-01")], 429, "138012"),
    "country": ({}, [refusal(138013)], 422, "138013"),
    "throttled": ({}, [refusal(130429, always=True)], 429, "130429"),
    "Graph is down": ({}, [Fault(status=500, code=2, always=True)], 502, "meta"),
}


@pytest.fixture(scope="module")
def refused(desk, cloud):
    """All of them at once. Case -> answer."""
    api, everyone = Api(desk, API_KEY), {}
    for case, (how, plan, *_) in REFUSALS.items():
        everyone[case] = cloud.person(**how)
        everyone[case].plan = plan
    with concurrent.futures.ThreadPoolExecutor(len(REFUSALS)) as pool:
        found = dict(zip(everyone, pool.map(lambda person: place(api, person), everyone.values())))
    for person in everyone.values():
        for call in person.calls:
            call.hang_up()
    return found


@pytest.mark.parametrize("case", REFUSALS)
def test_a_program_is_told_why_a_user_can_not_be_called(refused, pbx, case):
    _, _, status, word = REFUSALS[case]
    reply = refused[case]
    print(f"{case}: {reply}")
    assert reply.status == status and word in reply.raw.decode()
    assert reply["error"] and reply["type"] and reply["code"]
    if status == 429:
        assert int(reply.headers["retry-after"]) > 0
    nothing_left(pbx)


def test_the_same_idempotency_key_places_one_call(api, people, talk):
    person, other = people(answer=None, give_up=4), people(reply=1.5, answer=None, give_up=4)
    key = {"Idempotency-Key": f"order-{time.monotonic_ns()}"}
    body = {"accountId": ACCOUNT, "to": person.phone, "forwardTo": "sip:echo@pbx"}
    first = api.post("/v1/whatsapp/calls", body, headers=key)
    again = api.post("/v1/whatsapp/calls", body, headers=key)
    assert (first.status, again.status) == (200, 200) and first.json == again.json and len(person.attempts) == 1
    changed = api.post("/v1/whatsapp/calls", body | {"to": other.phone}, headers=key)
    assert changed.status == 422 and changed["code"] == "idempotency_key_reused", changed
    # While the first one is still under way, the second one is told so.
    key = {"Idempotency-Key": f"slow-{time.monotonic_ns()}"}
    got = []
    body = {"accountId": ACCOUNT, "to": other.phone, "forwardTo": "sip:echo@pbx"}
    thread = threading.Thread(target=lambda: got.append(api.post("/v1/whatsapp/calls", body, headers=key)))
    thread.start()
    other.called()
    running = api.post("/v1/whatsapp/calls", body, headers=key)
    thread.join(20)
    assert got and got[0].status == 200, got
    # An answer that does not wait for Meta is there at once, and is replayed.
    assert running.status == 409 or running.json == got[0].json, running
    assert len(other.attempts) == 1
    print(f"while it runs: {running.status}")
    for placed in (first, got[0]):
        api.post(f"/v1/voice/calls/{placed['callId']}/end")


def test_calls_are_listed_newest_first_page_by_page(api, dial, people):
    for _ in range(3):
        dial.answered("desk").hang_up()
    place(api, people(reject=0.2))
    time.sleep(1.0)
    page = api.get("/v1/whatsapp/calls", accountId=ACCOUNT, limit=2)
    assert page.status == 200 and len(page["calls"]) == 2 and page["nextCursor"], page
    seen, cursor = [], None
    while True:
        page = api.get("/v1/whatsapp/calls", accountId=ACCOUNT, limit=2, before=cursor).json
        seen += page["calls"]
        cursor = page["nextCursor"]
        if not cursor or len(seen) > 300:
            break
    starts = [c["startedAt"] for c in seen]
    assert starts == sorted(starts, reverse=True) and len({c["_id"] for c in seen}) == len(seen) >= 4
    row = seen[0]
    assert {"_id", "direction", "from", "to", "status", "startedAt", "endedAt", "durationSeconds", "endReason", "recordingUrl",
            "billing"} <= set(row)
    inbound = api.get("/v1/whatsapp/calls", accountId=ACCOUNT, direction="inbound", limit=200)["calls"]
    assert inbound and {c["direction"] for c in inbound} == {"inbound"}
    ended = api.get("/v1/whatsapp/calls", accountId=ACCOUNT, status="ended", limit=200)["calls"]
    assert {c["status"] for c in ended} == {"ended"}
    assert api.get("/v1/whatsapp/calls", accountId=ACCOUNT, until="2020-01-01T00:00:00Z")["calls"] == []
    everything = api.get("/v1/calls", channel="whatsapp", number=DESK["desk"].phone, limit=200)["calls"]
    assert {c["_id"] for c in inbound} <= {c["_id"] for c in everything}
    assert api.get("/v1/calls", channel="pstn")["calls"] == []
    digits = row["to"].lstrip("+")[-6:]
    assert any(c["_id"] == row["_id"] for c in api.get("/v1/calls", search=digits)["calls"])
    whole = api.get(f"/v1/calls/{row['_id']}")["call"]
    assert whole["_id"] == row["_id"] and "contactName" in whole


def test_an_estimate_and_the_usage_follow_the_rates(api, desk, dial, talk):
    reply = api.get("/v1/whatsapp/calls/estimate", accountId=ACCOUNT, to="+4917012345678", minutes=10)
    assert reply.status == 200, reply
    print(f"estimate: {reply.json}")
    assert abs(reply["perMinuteUsd"] - 0.63) < 1e-6 or abs(reply["perMinuteUsd"] - 0.6) < 1e-6
    assert reply["destinationCountry"] == "DE" and reply["breakdown"]["metaMinutes"] == 10
    assert abs(reply["breakdown"]["metaCostUSD"] - 6.0) < 1e-6
    other = api.get("/v1/whatsapp/calls/estimate", accountId=ACCOUNT, to="+4930123456", minutes=1)
    assert abs(other["breakdown"]["metaCostUSD"] - 0.06) < 1e-6, other
    before = api.get("/v1/usage/calls")
    assert before.status == 200, before
    while True:                         # the calls of the tests before this one may still be on their way into the history
        talk(0.5)
        again = api.get("/v1/usage/calls")
        if again["totals"] == before["totals"]:
            break
        before = again
    call = dial.answered("desk")
    talk(1.5)
    call.hang_up()
    desk.record(call)
    after = api.get("/v1/usage/calls", groupBy="number").json
    assert after["totals"]["calls"] == before["totals"]["calls"] + 1
    assert after["totals"]["answered"] == before["totals"]["answered"] + 1
    assert after["groupBy"] == "number" and any(g["key"].endswith(DESK["desk"].phone) for g in after["groups"]), after
    days = api.get("/v1/usage/calls", groupBy="day").json["groups"]
    assert [d["key"] for d in days] == sorted((d["key"] for d in days), reverse=days[0]["key"] > days[-1]["key"])
    assert sum(d["calls"] for d in days) == after["totals"]["calls"]


WRONG = [
    ("POST", "/v1/whatsapp/calls", {"to": "+491701"}, 400, "accountId"),
    ("POST", "/v1/whatsapp/calls", {"accountId": ACCOUNT}, 400, "to"),
    ("POST", "/v1/whatsapp/calls", {"accountId": ACCOUNT, "to": "nobody"}, 400, "to"),
    ("POST", "/v1/whatsapp/calls", {"accountId": ACCOUNT, "to": 7}, 400, "to"),
    ("POST", "/v1/whatsapp/calls", {"accountId": "nobody", "to": "+4917012345678"}, 404, "accountId"),
    ("POST", "/v1/whatsapp/calls", {"accountId": "fresh", "to": "+4917012345678"}, 422, None),
    ("POST", "/v1/whatsapp/calls", {"accountId": ACCOUNT, "to": "+4917012345678", "forwardTo": "ftp://x"}, 400, "forwardTo"),
    ("POST", "/v1/whatsapp/calls", {"accountId": ACCOUNT, "to": "+4917012345678", "forwardTo": "tel:" + DESK["desk"].phone}, 400, "forwardTo"),
    ("POST", "/v1/whatsapp/calls", {"accountId": ACCOUNT, "to": "+4917012345678", "recordOverride": "yes"}, 400, "recordOverride"),
    ("POST", "/v1/whatsapp/calls", {"accountId": ACCOUNT, "to": "+4917012345678", "action": "dance"}, 400, "action"),
    ("POST", "/v1/whatsapp/calls", {"accountId": ACCOUNT, "to": "+4917012345678", "action": "send_call_permission_request", "bodyText": "x" * 1025}, 400, "bodyText"),
    ("POST", "/v1/whatsapp/calls", {"accountId": ACCOUNT, "to": "+4917012345678", "biz_opaque_callback_data": "x" * 513}, 400, "biz_opaque_callback_data"),
    ("GET", f"/v1/whatsapp/calls?accountId={ACCOUNT}&limit=0", None, 400, "limit"),
    ("GET", f"/v1/whatsapp/calls?accountId={ACCOUNT}&limit=201", None, 400, "limit"),
    ("GET", f"/v1/whatsapp/calls?accountId={ACCOUNT}&status=lost", None, 400, "status"),
    ("GET", f"/v1/whatsapp/calls?accountId={ACCOUNT}&before=yesterday", None, 400, "before"),
    ("GET", "/v1/whatsapp/calls", None, 400, "accountId"),
    ("GET", f"/v1/whatsapp/calls/call_nosuch?accountId={ACCOUNT}", None, 404, None),
    ("GET", "/v1/calls/call_nosuch", None, 404, None),
    ("GET", "/v1/calls/call_nosuch/recording", None, 404, None),
    ("GET", f"/v1/whatsapp/calls/estimate?accountId={ACCOUNT}&to=%2B491701234567&minutes=121", None, 400, "minutes"),
    ("GET", f"/v1/whatsapp/calls/estimate?accountId={ACCOUNT}", None, 400, "to"),
    ("GET", "/v1/usage/calls?groupBy=moon", None, 400, "groupBy"),
    ("GET", f"/v1/whatsapp/call-permissions?accountId={ACCOUNT}", None, 400, "to"),
    ("POST", "/v1/voice/calls/call_nosuch/end", {}, 404, None),
    ("POST", "/v1/voice/calls/call_nosuch/transfer", {"to": "sip:echo@pbx"}, 404, None),
    ("GET", "/v1/nothing/here", None, 404, None),
    ("DELETE", "/v1/calls", None, 405, None),
]


@pytest.mark.parametrize("method, path, body, status, param", WRONG, ids=[f"{m} {p[:40]} {pa}" for m, p, _, _, pa in WRONG])
def test_a_wrong_request_is_told_what_is_wrong(api, method, path, body, status, param):
    reply = api.ask(method, path, body)
    assert reply.status == status, reply
    assert reply["error"] and reply["type"] and reply["code"]
    assert param is None or reply.json.get("param") == param, reply
    assert reply.headers["x-request-id"]


def test_bodies_that_are_too_large_or_no_json_are_refused(api):
    big = api.ask("POST", "/v1/whatsapp/calls", raw=b"{" + b" " * 200_000, headers={"Content-Type": "application/json"})
    assert big.status == 413, big
    for raw in (b"{", b"[]", b"\xff", b'{"a":' * 5000):
        reply = api.ask("POST", "/v1/whatsapp/calls", raw=raw, headers={"Content-Type": "application/json"})
        assert reply.status == 400 and reply["error"], reply


def test_a_key_opens_what_its_role_may_open(api, desk):
    def status(method, path, key, body=None):
        return api.ask(method, path, body, key=key).status

    calls = f"/v1/whatsapp/calls?accountId={ACCOUNT}"
    assert [status("GET", calls, key) for key in ("", "sk_wrong", READER, OPERATOR)] == [401, 401, 200, 200]
    body = {"accountId": ACCOUNT}
    assert [status("POST", "/v1/whatsapp/calls", key, body) for key in ("", READER, OPERATOR)] == [401, 403, 400]
    patch = {"accountId": "settings", "recordingEnabled": 7}
    path = "/v1/phone-numbers/settings/whatsapp/calling"
    assert [status("PATCH", path, key, patch) for key in (READER, OPERATOR, None)] == [403, 403, 400]
    refused = api.ask("POST", "/v1/whatsapp/calls", body, key=READER)
    assert refused["code"] == "insufficient_permissions" and refused["type"] == "permission_error"
    assert api.ask("GET", calls, key="")["error"] == "Unauthorized"
    assert api.get("/healthz").status == 200


def test_every_answer_has_an_id_and_says_what_is_left_of_the_rate(api):
    reply = api.ask("GET", "/v1/status", headers={"X-Request-Id": "7f0e1c9a-lab"})
    assert reply.headers["x-request-id"] == "7f0e1c9a-lab"
    assert {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"} <= set(reply.headers)
    other = api.ask("GET", "/v1/status", headers={"X-Request-Id": "bad id\twith blanks" * 20})
    assert other.headers["x-request-id"] and other.headers["x-request-id"] != "bad id"
    assert api.ask("GET", f"/api/v1/whatsapp/calls?accountId={ACCOUNT}").status == 200, "the base URL with /api is served too"
