"""What programs change: the calling of a number, at Meta and in the file; and the permissions of users."""

import re
import threading
import time
import tomllib

import pytest

from api import Api
from conftest import ACCOUNT, DESK, READER, SLOW
from trunklab import until
from whatsapp import refusal

CONFIG = "/v1/phone-numbers/{}/whatsapp/calling"


def file_of(desk):
    return desk.config.read_text()


def number_in(desk, name):
    return next(n for n in tomllib.loads(file_of(desk))["number"] if n["id"] == name)


@pytest.fixture
def settings(cloud):
    """The settings of two numbers at Meta, as they were before when the test is over."""
    numbers = [DESK["settings"], DESK["fresh"]]
    yield cloud.graph.settings
    for number in numbers:
        cloud.graph.granted.pop(number.pnid, None)
    cloud.graph.subscribed = True
    cloud.graph.plan.clear()


def test_the_calling_of_a_number_is_shown(api):
    by_account = api.get("/v1/whatsapp/calling", accountId=ACCOUNT).json
    assert by_account["phoneNumberDocId"] == "desk" and by_account["phoneNumber"] == DESK["desk"].phone
    shown = api.get(CONFIG.format("desk")).json
    print(shown)
    assert shown["callingEnabled"] is True and shown["forwardTo"] == "sip:record-desk@pbx"
    assert shown["callDeepLink"] == "https://wa.me/call/" + DESK["desk"].phone.lstrip("+")
    assert (shown["recordingEnabled"], shown["sipAuthPasswordConfigured"], shown["forwardCallerId"]) == (False, False, "caller")
    assert "outboundDisabled" in shown and "callIconCountries" in shown and shown["maxCallDurationSeconds"]
    fresh = api.get(CONFIG.format("fresh")).json
    assert fresh["callingEnabled"] is False and fresh["callDeepLink"] is None and fresh["forwardTo"] is None
    assert api.get(CONFIG.format("nosuch")).status == 404
    assert api.get("/v1/whatsapp/calling", accountId="nosuch").status == 404


def test_enabling_sets_it_at_meta_and_in_the_file_and_keeps_every_comment(api, desk, cloud, settings, dial, talk):
    settings(DESK["fresh"])["status"] = "DISABLED"
    before = file_of(desk)
    path = CONFIG.format("fresh")
    assert api.ask("PATCH", path, {"accountId": "fresh", "recordingEnabled": False}).status == 422, "an update before it is enabled"
    reply = api.ask("POST", path, {"accountId": "fresh", "forwardTo": "sip:echo@pbx", "callIconCountries": ["DE", "FR"],
                                   "maxCallDurationSeconds": 600, "forwardCallerId": "business"})
    assert reply.status == 200 and reply["success"] is True and reply["callingEnabled"] is True and reply["forwardTo"] == "sip:echo@pbx", reply
    assert settings(DESK["fresh"])["status"] == "ENABLED"
    assert settings(DESK["fresh"])["call_icons"] == {"restrict_to_user_countries": ["DE", "FR"]}
    kept = number_in(desk, "fresh")
    assert (kept["enabled"], kept["forward_to"], kept["max_call_seconds"], kept["caller_id"]) == (True, "sip:echo@pbx", 600, "business")
    after = file_of(desk)
    comments = re.findall(r"#.*", before)
    assert comments and re.findall(r"#.*", after) == comments
    assert [line for line in before.splitlines() if line not in after.splitlines()] == ["enabled = false"]
    assert desk.config.stat().st_mode & 0o777 == 0o600
    call = dial.answered("fresh")       # it works at once
    talk(0.5)
    call.hang_up()
    assert desk.record(call)["answered"] is True
    shown = api.get(path).json
    assert shown["callIconCountries"] == ["DE", "FR"] and shown["maxCallDurationSeconds"] == 600 and shown["callDeepLink"]
    # An update writes what is given, clears what is null and leaves the rest.
    asked = len(cloud.graph.asked("settings", "POST"))
    reply = api.ask("PATCH", path, {"accountId": "fresh", "maxCallDurationSeconds": None, "forwardTo": "sip:milliwatt@pbx"})
    assert reply.status == 200, reply
    kept = number_in(desk, "fresh")
    assert kept["max_call_seconds"] == 0 and kept["forward_to"] == "sip:milliwatt@pbx" and kept["caller_id"] == "business"
    assert api.get(path)["maxCallDurationSeconds"] is None, "0 in the file is no limit"
    assert len(cloud.graph.asked("settings", "POST")) == asked, "an update of our own keys is none of Meta's business"
    reply = api.ask("PATCH", path, {"accountId": "fresh", "sipAuthUsername": "u", "sipAuthPassword": "a-secret-5521"})
    assert reply.status == 200 and b"a-secret-5521" not in reply.raw
    shown = api.get(path)
    assert shown["sipAuthPasswordConfigured"] is True and shown["sipAuthUsername"] == "u" and b"a-secret-5521" not in shown.raw
    desk.secrets.append("a-secret-5521")
    # Disabling keeps the destination.
    reply = api.ask("DELETE", path, query={"accountId": "fresh"})
    assert reply.status == 200, reply
    assert settings(DESK["fresh"])["status"] == "DISABLED"
    kept = number_in(desk, "fresh")
    assert kept["enabled"] is False and kept["forward_to"] == "sip:milliwatt@pbx"
    late = dial("fresh")
    late.ring()
    assert late.ended(5) == "reject"
    assert api.ask("POST", path, {"accountId": "fresh", "forwardTo": "sip:echo@pbx"}).status == 200
    assert api.ask("DELETE", "/v1/whatsapp/phone-numbers/fresh/calling", query={"accountId": "fresh"}).status == 200, "the old path"


def test_what_meta_refuses_is_explained_and_changes_nothing(api, desk, cloud, settings):
    path, body = CONFIG.format("fresh"), {"accountId": "fresh", "forwardTo": "sip:echo@pbx"}
    settings(DESK["fresh"])["status"] = "DISABLED"
    before = file_of(desk)
    cloud.graph.plan["POST settings"] = [refusal(138015)]
    reply = api.ask("POST", path, body)
    print(reply)
    assert reply.status == 400 and reply["code"] == "platform_api_error" and reply["platformError"]["code"] == 138015
    assert "2000" in reply.raw.decode()
    cloud.graph.subscribed = False
    reply = api.ask("POST", path, body)
    print(reply)
    assert reply.status in (400, 409, 422) and "subscri" in reply.raw.decode().lower()
    cloud.graph.subscribed = True
    settings(DESK["fresh"])["sip"]["status"] = "ENABLED"
    reply = api.ask("POST", path, body)
    print(reply)
    assert reply.status in (400, 409, 422) and "SIP" in reply.raw.decode()
    settings(DESK["fresh"])["sip"]["status"] = "DISABLED"
    cloud.graph.plan["POST settings"] = [refusal(80007, retry_after=9, always=True)]
    cloud.graph.plan["GET settings"] = [refusal(80007, retry_after=9, always=True)]
    reply = api.ask("POST", path, body)
    assert reply.status == 429 and 0 < int(reply.headers["retry-after"]) <= 60, reply
    cloud.graph.plan.clear()
    assert file_of(desk) == before and settings(DESK["fresh"])["status"] == "DISABLED"


@pytest.mark.parametrize("field, value", [
    ("forwardTo", "gopher://x"), ("forwardTo", 7), ("forwardTo", "tel:" + DESK["settings"].phone), ("forwardTo", ""),
    ("maxCallDurationSeconds", 29), ("maxCallDurationSeconds", 14401), ("maxCallDurationSeconds", "60"),
    ("recordingEnabled", "no"), ("callIconCountries", "DE"), ("callIconCountries", ["DEU"]), ("forwardCallerId", "both"),
    ("sipAuthUsername", {"a": 1}),
])
def test_a_wrong_setting_is_named_and_changes_nothing(api, desk, field, value):
    before = file_of(desk)
    reply = api.ask("PATCH", CONFIG.format("settings"), {"accountId": "settings", field: value})
    assert reply.status in (400, 422) and reply["param"].split("[")[0] == field, reply
    assert file_of(desk) == before


def test_changes_by_hand_and_by_program_do_not_lose_each_other(api, desk, talk):
    by_hand = file_of(desk).replace("[sip]", "# written by hand\n[sip]")
    desk.config.write_text(by_hand)
    assert api.ask("PATCH", CONFIG.format("settings"), {"accountId": "settings", "maxCallDurationSeconds": 777}).status == 200
    assert "# written by hand\n[sip]" in file_of(desk) and number_in(desk, "settings")["max_call_seconds"] == 777
    # Many at once: all of them arrive, and the file is whole at every moment.
    seen = []
    over = threading.Event()

    def watch():
        while not over.is_set():
            seen.append(tomllib.loads(file_of(desk))["gateway"]["name"])
    watcher = threading.Thread(target=watch)
    watcher.start()
    writers = [threading.Thread(target=api.ask, args=("PATCH", CONFIG.format(name), {"accountId": account, field: value})) for name, account, field, value in (
        ("settings", "settings", "maxCallDurationSeconds", 801), ("settings", "settings", "forwardCallerId", "business"),
        ("desk", ACCOUNT, "maxCallDurationSeconds", 802), ("plain", "plain", "maxCallDurationSeconds", 803))]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(20)
    over.set()
    watcher.join(5)
    got = [number_in(desk, n).get("max_call_seconds") for n in ("settings", "desk", "plain")]
    assert got == [801, 802, 803] and number_in(desk, "settings")["caller_id"] == "business"
    assert set(seen) == {"lab"}
    # A broken file is not made worse, and not taken.
    good = file_of(desk)
    desk.config.write_text(good + "\n[[number]\n")
    reply = api.ask("PATCH", CONFIG.format("settings"), {"accountId": "settings", "maxCallDurationSeconds": 60})
    assert reply.status >= 400 and file_of(desk).endswith("[[number]\n"), reply
    desk.config.write_text(good)
    desk.reload()
    talk(0.5)
    until(lambda: api.get(CONFIG.format("settings"))["maxCallDurationSeconds"] == 801, 5, lambda: api.get(CONFIG.format("settings")))


def test_a_changed_file_is_in_force_after_sighup_and_too_many_requests_are_held_back(api, desk, talk):
    slow = Api(desk, SLOW)
    before = file_of(desk)
    try:
        desk.config.write_text(before.replace("rate_per_minute = 0", "rate_per_minute = 5"))
        desk.reload()
        until(lambda: Api(desk, READER).get("/v1/status").headers.get("x-ratelimit-limit") == "5", 10, "the file is not in force")
        statuses = [slow.get("/v1/status") for _ in range(8)]
        assert [r.status for r in statuses] == [200] * 5 + [429] * 3, statuses
        held = statuses[-1]
        assert held["type"] == "rate_limit_error" and int(held.headers["retry-after"]) > 0
        assert held.headers["x-ratelimit-limit"] == "5" and held.headers["x-ratelimit-remaining"] == "0"
        assert abs(int(held.headers["x-ratelimit-reset"]) - time.time()) < 62
    finally:
        desk.config.write_text(before)
        desk.reload()
    until(lambda: slow.get("/v1/status").status == 200, 10, lambda: slow.get("/v1/status"))


# Permissions


def test_metas_word_on_a_permission_is_passed_on_whole(api, people, cloud):
    person = people(permission="temporary")
    person.requests_left = 0
    reply = api.get("/v1/whatsapp/call-permissions", accountId=ACCOUNT, to="+" + person.phone)
    assert reply.status == 200, reply
    assert reply["permission"] == {"status": "temporary", "expiration_time": person.expires}
    actions = {a["action_name"]: a for a in reply["actions"]}
    assert actions["start_call"]["can_perform_action"] is True
    ask = actions["send_call_permission_request"]
    assert ask["can_perform_action"] is False and ask["limits"][0]["time_period"] == "PT24H" and ask["limits"][0]["current_usage"] == 1
    nobody = api.get("/v1/whatsapp/call-permissions", accountId=ACCOUNT, to="+4917000000000")
    assert nobody.status == 200 and nobody["permission"]["status"] == "no_permission"
    cloud.graph.plan["call_permissions"] = [refusal(613, retry_after=3, always=True)]
    try:
        other = people()
        reply = api.get("/v1/whatsapp/call-permissions", accountId=ACCOUNT, to=other.phone)
        assert reply.status == 429 and int(reply.headers["retry-after"]) > 0, reply
    finally:
        cloud.graph.plan.clear()


def test_a_permission_is_asked_for_granted_and_used(api, people, cloud, hook, talk):
    person = people(permission="no_permission", answer=None, give_up=2)
    body = {"accountId": ACCOUNT, "to": "+" + person.phone}
    assert api.post("/v1/whatsapp/calls", body | {"forwardTo": "sip:echo@pbx"}).status == 409
    reply = api.post("/v1/whatsapp/calls", body | {"action": "send_call_permission_request", "bodyText": "May we call you?"})
    assert reply.status == 200, reply
    asked = person.request()
    assert asked["interactive"]["body"]["text"] == "May we call you?" and person.calls == []
    again = api.post("/v1/whatsapp/calls", body | {"action": "send_call_permission_request"})
    print(f"asked twice in a day: {again}")
    assert again.status == 429 and len(person.asked) == 1
    assert person.reply("accept", number=DESK["desk"]) == 200
    told = hook.wait(lambda h: next((d for d in h.of(event="call.permission_request")
                                     if d.json["permission"]["from"].lstrip("+") == person.phone), None))
    permission = told.json["permission"]
    assert permission["response"] == "accept" and permission["isPermanent"] is False and permission["responseSource"] == "user_action"
    assert permission["expirationTimestamp"] and not hook.forged(told)
    reply = api.post("/v1/whatsapp/calls", body | {"forwardTo": "sip:echo@pbx"})
    assert reply.status == 200, reply
    person.called()
    api.post(f"/v1/voice/calls/{reply['callId']}/end")
    # Taken back: by the user, or by Meta after four calls that nobody took.
    person.reply("reject", number=DESK["desk"], source="automatic")
    hook.wait(lambda h: [d for d in h.of(event="call.permission_request") if d.json["permission"]["from"].lstrip("+") == person.phone][1:])
    talk(0.2)
    assert api.post("/v1/whatsapp/calls", body | {"forwardTo": "sip:echo@pbx"}).status == 409
    lasting = people(permission="no_permission")
    lasting.permission = "permanent"
    reply = api.post("/v1/whatsapp/calls", {"accountId": ACCOUNT, "to": lasting.phone, "action": "send_call_permission_request"})
    print(f"asked somebody who has agreed for good: {reply}")
    assert reply.status == 200 or reply["error"]
