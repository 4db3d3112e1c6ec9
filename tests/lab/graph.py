"""The Graph API of the stand-in: what Meta would grant, refuse and say, endpoint by endpoint."""

import asyncio
import copy
import dataclasses
import json
import secrets
import time

from aiohttp import web

import sdp
from calls import Outgoing

PATH = "/v25.0"
WABA = "102290129340398"

# HTTP status and text of Meta's codes.
CODES = {
    4: (429, "Application request limit reached"),
    80007: (429, "Rate limit hit: too many calls to this WhatsApp business account"),
    130429: (429, "Rate limit hit: throughput"),
    190: (401, "Error validating access token"),
    100: (400, "Invalid parameter"),
    613: (429, "Calls to this api have exceeded the rate limit"),
    131030: (400, "Recipient phone number not in allowed list"),
    131042: (400, "Business eligibility payment issue"),
    131055: (400, "Graph API calls are not allowed: SIP is enabled for this number"),
    138000: (401, "Calling not enabled"),
    138001: (400, "Receiver uncallable"),
    138002: (429, "Concurrent calls limit reached"),
    138003: (400, "Duplicate call"),
    138004: (500, "Connection error"),
    138005: (429, "Call rate limit exceeded"),
    138006: (401, "No approved call permission found"),
    138007: (500, "Connect timeout"),
    138008: (400, "SDP Validation error"),
    138009: (400, "Call permission request limit hit"),
    138012: (400, "Business initiated connected call per day limit hit"),
    138013: (400, "Business initiated calling is not available for this number"),
    138014: (400, "Calling temporarily disabled"),
    138015: (400, "Calling cannot be enabled: the messaging limit is below 2000"),
    138017: (400, "Permanent permission exists, a request is not needed"),
    138018: (400, "Calling cannot be enabled: no app is subscribed to the calls field and SIP is not set up"),
}


@dataclasses.dataclass
class Fault:
    """One request that goes wrong: a delay in seconds, then an HTTP status with Meta's error code,
    or silence (`hang`: the connection is cut after the delay, unanswered; `lost`: it is done, and the
    answer is lost). `always` repeats it for every request, `retry_after` is a header in seconds."""

    status: int = 0
    code: int = 0
    message: str = "stand-in"
    delay: float = 0.0
    hang: bool = False
    lost: bool = False
    always: bool = False
    retry_after: int | None = None


def refusal(code, details=None, **more):
    """The Fault by which Meta refuses with this code."""
    status, text = CODES[code]
    return Fault(status=status, code=code, message=details or text, **more)


@dataclasses.dataclass
class Request:
    """One request that the gateway made, for assertions."""

    at: float
    method: str
    path: str
    query: dict
    body: dict | None
    status: int


class Graph:
    """The endpoints. `plan` maps an endpoint (`GET settings`, `messages`, …) to Faults, `subscribed` is whether an app
    listens to the account, `granted` what each number's settings are."""

    def __init__(self, cloud):
        self.cloud = cloud
        self.plan = {}
        self.requests = []
        self.subscribed = True
        self.granted = {}

    def routes(self, router):
        """Puts the endpoints on the web server."""
        add = router.add_route
        add("POST", PATH + "/{id}/calls", self._guarded(self._calls))
        add("*", PATH + "/{id}/settings", self._guarded(self._settings))
        add("GET", PATH + "/{id}/call_permissions", self._guarded(self._permissions))
        add("POST", PATH + "/{id}/messages", self._guarded(self._messages))
        add("*", PATH + "/{id}/subscribed_apps", self._guarded(self._subscriptions))
        add("GET", PATH + "/{id}/phone_numbers", self._guarded(self._numbers))
        add("GET", PATH + "/{id:\\d+}", self._guarded(self._node))
        add("*", "/{rest:.*}", self._elsewhere)

    def asked(self, ending, method=None):
        """The requests to an endpoint, oldest first."""
        return [r for r in self.requests if r.path.endswith("/" + ending) and method in (None, r.method)]

    def settings(self, number):
        """The settings of one number, as they are now."""
        return self.granted.setdefault(number.pnid, {
            "status": "ENABLED", "call_icon_visibility": "DEFAULT", "callback_permission_status": "ENABLED",
            "srtp_key_exchange_protocol": "DTLS", "sip": {"status": "DISABLED"}})

    # Before every endpoint: who asks, and what is planned to go wrong.

    def _guarded(self, handler):
        async def handle(request):
            raw = await request.read()
            body = None
            if raw:
                try:
                    body = json.loads(raw)
                except ValueError:
                    pass
            reply = await self._judged(handler, request, body if isinstance(body, dict) else None)
            self.requests.append(Request(time.time(), request.method, request.path, dict(request.query), body, reply.status))
            self.cloud.notify()
            return reply
        return handle

    async def _judged(self, handler, request, body):
        if request.headers.get("Authorization") != f"Bearer {self.cloud.token}":
            return self.stray(request, 190)
        name = request.path.rsplit("/", 1)[1]
        fault = take(self.plan.get(f"{request.method} {name}")) or (take(self.plan.get(name)) if name != "calls" else None)
        if fault:
            spoiled = await self.spoil(fault, request)
            if spoiled is not None:
                return spoiled
        reply = await handler(request, body)
        if fault and fault.lost:
            request.transport.abort()
        return reply

    async def spoil(self, fault, request):
        """Does what the fault says; the reply it ends in, None if the request is to go on."""
        await asyncio.sleep(fault.delay)
        if fault.hang:
            request.transport.abort()
            return self.error(499, 0, "cut off")
        return self.error(fault.status, fault.code, fault.message, retry_after=fault.retry_after) if fault.status else None

    def error(self, status, code, details, retry_after=None):
        """Meta's error body."""
        reply = web.json_response({"error": {
            "is_transient": status >= 500 or status == 429,
            "message": f"(#{code}) {CODES.get(code, (0, details))[1]}", "type": "OAuthException", "code": code,
            "error_data": {"messaging_product": "whatsapp", "details": details},
            "fbtrace_id": secrets.token_hex(8)}}, status=status)
        if retry_after is not None:
            reply.headers["Retry-After"] = str(retry_after)
        return reply

    def refuse(self, code, details=None):
        """The reply for one of Meta's codes."""
        status, text = CODES[code]
        return self.error(status, code, details or text)

    def stray(self, request, code, details=None):
        """The same, for a request that should never have been made."""
        self.cloud.strays.append((request.method, request.path, CODES[code][0]))
        return self.refuse(code, details)

    def grant(self, **what):
        """A reply that says yes."""
        return web.json_response(what)

    # Calls

    async def _calls(self, request, body):
        if body is None or "action" not in body:
            return self.stray(request, 100, "action is missing or the body is no JSON")
        if body["action"] == "connect":
            return await self._connect(request, body)
        call = self.cloud.calls.get(body.get("call_id"))
        if call is None:
            return self.stray(request, 100, f"no call {body.get('call_id')!r}")
        action = body["action"]
        call.requests.append(body)
        fault = take(call.plan.get(action)) or take(self.plan.get(action))
        if fault:
            spoiled = await self.spoil(fault, request)
            if spoiled is not None:
                call.note(action, 0 if fault.hang else spoiled.status)
                return spoiled
        status, code, details = self._judge(request, call, action, body)
        if status != 200:
            call.note(action, status)
            return self.error(status, code, details)
        if action == "accept":
            call.accepted_at = time.time()
            call.peer.accepted(call.accepted_at)
        elif action in ("reject", "terminate"):
            call.over()
        call.note(action, 200)
        if fault and fault.lost:
            request.transport.abort()
        return self.grant(messaging_product="whatsapp", success=True)

    def _judge(self, request, call, action, body):
        if request.match_info["id"] != call.number.pnid:
            call.faults.append("an action on a call of another number")
            return 400, 100, "Invalid parameter: call_id"
        if body.get("messaging_product") != "whatsapp":
            call.faults.append("messaging_product is missing")
            return 400, 100, "messaging_product is required"
        if isinstance(call, Outgoing):
            if action == "terminate":
                return 200, 0, ""
            call.faults.append(f"{action} for a call that the business made")
            return 400, 100, f"Invalid parameter: action {action}"
        if call.rang_at is None:
            call.faults.append(f"{action} for a call that was never announced")
            return 400, 100, "Invalid parameter: call_id"
        if action in ("reject", "terminate"):
            if action == "reject" and "pre_accept" in call.names():
                call.faults.append("reject after pre_accept: Meta asks for terminate then")
            return 200, 0, ""
        if action not in ("pre_accept", "accept"):
            return 400, 100, f"Invalid parameter: action {action}"
        if call.ended_at:
            return 400, 100, "the call is already over"
        return self._answered(call, body)

    def _answered(self, call, body):
        session = body.get("session") or {}
        if session.get("sdp_type") != "answer":
            call.faults.append(f"sdp_type {session.get('sdp_type')!r} instead of answer")
            return 400, 138008, "SDP Validation error: sdp_type"
        text = session.get("sdp") or ""
        wrong, ufrag, fingerprint = sdp.inspect_answer(text, call.sdp)
        if call._answer not in (None, text):
            wrong.append("accept must repeat the SDP of pre_accept")
        if wrong:
            call.faults += wrong
            return 400, 138008, "SDP Validation error: " + "; ".join(wrong)
        call._answer = text
        call.peer.answer(ufrag, fingerprint)
        return 200, 0, ""

    async def _connect(self, request, body):
        person = self.cloud.find(body.get("to"), body.get("recipient"))
        fault = (take(person.plan) if person else None) or take(self.plan.get("connect"))
        if fault:
            spoiled = await self.spoil(fault, request)
            if spoiled is not None:
                if person:
                    person.attempts.append((time.time(), 0 if fault.hang else spoiled.status, fault.code))
                    person._notify()
                return spoiled
        reply = self._dialled(request, body, person)
        if isinstance(reply, web.Response):
            code = json.loads(reply.text)["error"]["code"]
            if person:
                person.attempts.append((time.time(), reply.status, code))
                person._notify()
            return reply
        person.attempts.append((time.time(), 200, 0))
        person.calls.append(reply)
        person._notify()
        await asyncio.sleep(person.manner.reply)
        if fault and fault.lost:
            request.transport.abort()
        return self.grant(messaging_product="whatsapp", calls=[{"id": reply.id}])

    def _dialled(self, request, body, person):
        """A new call, or the reply that refuses it."""
        number = self.cloud.number(request.match_info["id"])
        session = body.get("session") or {}
        wrong, offered = sdp.inspect_offer(session.get("sdp") or "")
        if session.get("sdp_type") != "offer":
            wrong.append(f"sdp_type {session.get('sdp_type')!r} instead of offer")
        if body.get("messaging_product") != "whatsapp":
            wrong.append("messaging_product is missing")
        if len(body.get("biz_opaque_callback_data") or "") > 512:
            wrong.append("biz_opaque_callback_data is longer than 512")
        if wrong:
            self.cloud.faults += wrong
            return self.refuse(138008, "SDP Validation error: " + "; ".join(wrong))
        settings = self.settings(number)
        if settings["sip"]["status"] == "ENABLED":
            return self.refuse(131055)
        if settings["status"] != "ENABLED":
            return self.refuse(138000)
        if person is None:
            return self.refuse(138001)
        if person.permission == "no_permission":
            return self.refuse(138006)
        if person.calls_left <= 0:
            return self.refuse(138012, "Limit hit. You may call this user again after 2026-12-01T09:00:00+0000")
        if any(c.number.pnid == number.pnid and not c.ended_at for c in person.calls):
            return self.refuse(138003)
        person.calls_left -= 1
        call = Outgoing(self.cloud, number, person, body, offered)
        self.cloud.calls[call.id] = call
        return call

    # Permissions and messages

    async def _permissions(self, request, _):
        query = request.query
        if not (query.get("user_wa_id") or query.get("recipient")):
            return self.refuse(100, "user_wa_id or recipient is required")
        person = self.cloud.find(query.get("user_wa_id"), query.get("recipient"))
        if person is None:
            return self.grant(messaging_product="whatsapp", permission={"status": "no_permission"}, actions=[
                {"action_name": a, "can_perform_action": False} for a in ("send_call_permission_request", "start_call")])
        permission = {"status": person.permission}
        if person.permission == "temporary":
            permission["expiration_time"] = person.expires
        return self.grant(messaging_product="whatsapp", permission=permission, actions=person.actions())

    async def _messages(self, request, body):
        person = self.cloud.find((body or {}).get("to"), (body or {}).get("recipient"))
        interactive = (body or {}).get("interactive") or {}
        wanted = {"type": "interactive", "messaging_product": "whatsapp"}
        if any(body.get(k) != v for k, v in wanted.items()) or interactive.get("type") != "call_permission_request" \
                or (interactive.get("action") or {}).get("name") != "call_permission_request" \
                or not {"type", "action", "body"} >= set(interactive):
            return self.refuse(100, f"not a call permission request: {json.dumps(body)[:300]}")
        if person is None:
            return self.refuse(131030)
        if person.permission == "permanent":
            return self.refuse(138017)
        if person.requests_left <= 0:
            return self.refuse(138009)
        person.requests_left -= 1
        wamid = "wamid." + secrets.token_urlsafe(18)
        person.asked.append(body | {"wamid": wamid})
        person._notify()
        return self.grant(messaging_product="whatsapp", contacts=[{"input": body.get("to"), "wa_id": person.phone}],
                          messages=[{"id": wamid}])

    # Settings and the account

    async def _settings(self, request, body):
        number = self.cloud.number(request.match_info["id"])
        now = self.settings(number)
        if request.method == "GET":
            return self.grant(calling=copy.deepcopy(now))
        wanted = (body or {}).get("calling")
        if not isinstance(wanted, dict):
            return self.refuse(100, "calling is missing")
        if wanted.get("status") == "ENABLED" and not self.subscribed and now["sip"]["status"] != "ENABLED":
            return self.refuse(138018)
        for key, value in wanted.items():
            now[key] = now[key] | value if isinstance(now.get(key), dict) and isinstance(value, dict) else value
        return self.grant(success=True)

    async def _subscriptions(self, request, _):
        if request.match_info["id"] != WABA:
            return self.refuse(100, "Unsupported get request: no such account")
        if request.method != "GET":
            self.subscribed = request.method == "POST"
            return self.grant(success=True)
        app = {"whatsapp_business_api_data": {"link": "https://www.facebook.com/games/?app_id=1", "name": "lab", "id": "1"}}
        return self.grant(data=[app] if self.subscribed else [])

    def _of(self, number):
        return {"id": number.pnid, "display_phone_number": number.phone, "verified_name": "Lab", "quality_rating": "GREEN",
                "platform_type": "CLOUD_API", "status": "CONNECTED", "code_verification_status": "VERIFIED"}

    async def _numbers(self, request, _):
        if request.match_info["id"] != WABA:
            return self.refuse(100, "Unsupported get request: no such account")
        return self.grant(data=[self._of(n) for n in self.cloud.numbers.values()])

    async def _node(self, request, _):
        """A number by its id; `fields=whatsapp_business_account` names the account it belongs to."""
        number = self.cloud.numbers.get(request.match_info["id"])
        if number is None:
            return self.refuse(100, "Unsupported get request: no such object")
        return self.grant(**self._of(number), whatsapp_business_account={"id": WABA, "name": "Lab"})

    async def _elsewhere(self, request):
        self.cloud.strays.append((request.method, request.path, 400))
        self.requests.append(Request(time.time(), request.method, request.path, dict(request.query), None, 400))
        return self.error(400, 100, f"Unsupported request: {request.method} {request.path}")


def take(plan):
    """The next fault of a list, used up unless it is for always."""
    if not plan:
        return None
    return plan[0] if plan[0].always else plan.pop(0)
