"""The stand-in for Meta's cloud: the Graph API, the webhook sender, and WhatsApp users who call.

It runs on a thread of its own; everything a test calls is ordinary, blocking Python. What the gateway does
against the rules is written to `Call.faults` and, where Meta would refuse it, refused with Meta's code.
"""

import asyncio
import bisect
import dataclasses
import hashlib
import hmac
import json
import logging
import re
import secrets
import threading
import time

import aiohttp
from aiohttp import web

import sound
from peer import EVENT, OPUS, Impairment, Peer  # noqa: F401 (Impairment is for the tests)

PATH = "/v25.0"


@dataclasses.dataclass
class Fault:
    """One request that goes wrong: a delay in seconds, then an HTTP status with Meta's error code,
    or silence (`hang`: the connection is cut after the delay, unanswered; `lost`: it is done, and the
    answer is lost)."""

    status: int = 0
    code: int = 0
    message: str = "stand-in"
    delay: float = 0.0
    hang: bool = False
    lost: bool = False


def inspect_answer(sdp, offer):
    """What is wrong with the gateway's answer, as sentences; the parsed ufrag and fingerprint."""
    wrong = []
    lines = sdp.split("\r\n")
    if "\n" in sdp.replace("\r\n", "") or not sdp.endswith("\r\n"):
        wrong.append("SDP lines must end in CRLF, the last one too")

    def values(name):
        return [line[len(name) + 3:] for line in lines if line.startswith(f"a={name}:")]

    media = [line for line in lines if line.startswith("m=")]
    if len(media) != 1 or not re.match(r"m=audio \d+ UDP/TLS/RTP/SAVPF( \d+)+$", media[0]):
        wrong.append(f"there must be one audio line over UDP/TLS/RTP/SAVPF, there is {media}")
    elif media[0].split()[3] != str(OPUS):
        wrong.append(f"Opus must be on the payload type that was offered, {OPUS}: {media[0]}")
    if not any(re.fullmatch(rf"{OPUS} opus/48000/2", v, re.I) for v in values("rtpmap")):
        wrong.append("no rtpmap for Opus on the offered payload type")
    prints = values("fingerprint")
    if len(prints) != 1 or not prints[0].lower().startswith("sha-256 "):
        wrong.append(f"there must be exactly one fingerprint, sha-256: {[p.split()[0] for p in prints]}")
    if values("setup") != ["active"]:
        wrong.append(f"setup must be active: {values('setup')}")
    if values("extmap"):
        wrong.append("header extensions must not be answered")
    if values("ptime") != ["20"]:
        wrong.append(f"ptime must be 20: {values('ptime')}")
    if any(v != "20" for v in values("maxptime")):
        wrong.append(f"maxptime must be 20: {values('maxptime')}")
    mids = re.findall(r"(?m)^a=mid:(\S+)", offer)
    if values("mid") != mids[:1]:
        wrong.append(f"mid must be repeated: {values('mid')} for {mids}")
    if "a=rtcp-mux" not in lines:
        wrong.append("no rtcp-mux")
    if "a=ice-lite" in lines:
        wrong.append("both sides ice-lite")
    for direction in ("sendonly", "recvonly", "inactive"):
        if f"a={direction}" in lines:
            wrong.append(f"the answer is {direction}")
    if len({v.split()[0] for v in values("ssrc")}) > 1:
        wrong.append("more than one SSRC")
    if not values("ice-ufrag") or not values("ice-pwd"):
        wrong.append("no ICE credentials")
    if re.search(r"(?m)^a=rtpmap:\d+ (?!opus|telephone-event)", sdp, re.I):
        wrong.append("codecs that were not offered")
    return wrong, (values("ice-ufrag") or [""])[0], (prints or ["x x"])[0].split()[-1]


class Call:
    """One call that a WhatsApp user makes."""

    def __init__(self, cloud, number, user, name, user_id, payload, style, frames, impairment, patient, broken):
        self.cloud = cloud
        self.number = number
        self.user = user
        self.name = name
        self.user_id = user_id
        self.payload = payload
        self.id = "wacid." + secrets.token_urlsafe(24) + "="
        self.plan = {}                # action -> list of Fault, used up one by one
        self.actions = []             # (time, action, HTTP status) as they were answered
        self.requests = []            # the JSON bodies
        self.faults = []
        self.rang_at = self.accepted_at = self.ended_at = None
        self.tells_end = True         # Meta sends a terminate for every ending, also for our own
        self._answer = None
        self._changed = threading.Condition()
        self._end_sent = False
        self.peer = cloud.do(self._make(style, frames, impairment, patient, broken))

    async def _make(self, style, frames, impairment, patient, broken):
        peer = Peer(self.cloud.address, frames, impairment, patient)
        self.sdp = peer.offer(style, **broken)
        return peer

    # What the user does

    def ring(self, **how):
        """The user calls: the connect webhook. Returns the gateway's HTTP status."""
        self.rang_at = time.time()
        return self.cloud.send(self.connect(), **how)

    def connect(self):
        """The webhook's `value` for this call's beginning."""
        call = {"id": self.id, "event": "connect", "direction": "USER_INITIATED", "to": self.number.phone.lstrip("+"),
                "timestamp": str(int(time.time())), "session": {"sdp_type": "offer", "sdp": self.sdp}}
        if self.payload:
            call["deeplink_payload"] = self.payload
        return self._value(call)

    def terminate(self, status="COMPLETED", errors=None):
        """The webhook's `value` for this call's end; start, end and duration only if it was answered."""
        call = {"id": self.id, "event": "terminate", "direction": "USER_INITIATED", "to": self.number.phone.lstrip("+"),
                "timestamp": str(int(time.time())), "status": status}
        if self.accepted_at:
            end = self.ended_at or time.time()
            call |= {"start_time": str(int(self.accepted_at)), "end_time": str(int(end)), "duration": int(end - self.accepted_at)}
        value = self._value(call)
        if errors:
            value["errors"] = errors
        return value

    def _value(self, call):
        if self.user:
            call["from"] = self.user
        if self.user_id:
            call["from_user_id"] = self.user_id
        contact = {"profile": {"name": self.name}}
        if self.user:
            contact["wa_id"] = self.user
        else:
            contact["profile"]["username"] = "ada.l"
        if self.user_id:
            contact["user_id"] = self.user_id
        return {"messaging_product": "whatsapp",
                "metadata": {"display_phone_number": self.number.phone.lstrip("+"), "phone_number_id": self.number.pnid},
                "contacts": [contact], "calls": [call]}

    def hang_up(self, **how):
        """The user hangs up, or gives up if nobody has answered: media ends, then the terminate webhook."""
        self.ended_at = time.time()
        self._end_sent = True
        self.cloud.do(self._bye())
        return self.cloud.send(self.terminate(), **how)

    def press(self, keys, **how):
        """Presses keys on the call's keypad."""
        self.cloud.do(self._peer_does("press", keys, **how))

    async def _peer_does(self, what, *args, **how):
        getattr(self.peer, what)(*args, **how)

    async def _bye(self):
        self.peer.bye()

    # What the gateway did

    def action(self, name, timeout=10.0):
        """Waits for an action (accept, reject, …) that Graph answered with 200; its time, or fails."""
        return self._wait(lambda: next((t for t, a, s in self.actions if a == name and s == 200), None), timeout,
                          f"Graph saw no {name}")

    def ended(self, timeout=10.0):
        """Waits until the gateway has ended the call (reject or terminate); which of the two."""
        return self._wait(lambda: next((a for _, a, s in self.actions if a in ("reject", "terminate") and s == 200), None),
                          timeout, "the gateway did not end the call")

    def _wait(self, found, timeout, complaint):
        until = time.monotonic() + timeout
        with self._changed:
            while True:
                value = found()
                if value is not None:
                    return value
                left = until - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"{complaint} within {timeout} s; seen: {[a for _, a, _ in self.actions]}, "
                                         f"faults: {self.faults + self.peer.faults}")
                self._changed.wait(left)

    def names(self):
        """The actions Graph granted, in order."""
        return [a for _, a, s in self.actions if s == 200]

    def note(self, action, status):
        """Called by the cloud: one more answered request."""
        with self._changed:
            self.actions.append((time.time(), action, status))
            self._changed.notify_all()

    def measure(self):
        """What the user heard, as a `Heard`. For a call that is over, or long enough under way."""
        return Heard(self)


class Heard:
    """The sound that reached the user, and how it arrived. Times in seconds."""

    def __init__(self, call):
        peer = call.peer
        packets = [p for p in list(peer.received) if p.kind == OPUS]
        self.packets = len(packets)
        self.faults = list(call.faults) + list(peer.faults)
        if len({p.ssrc for p in packets}) > 1:
            self.faults.append(f"{len({p.ssrc for p in packets})} SSRCs in one call")
        if any(p.extended for p in packets):
            self.faults.append("RTP header extensions that nobody negotiated")
        if {p.kind for p in peer.received} - {OPUS, EVENT}:
            self.faults.append("payload types that were not offered")
        if packets and call.accepted_at is None:
            self.faults.append(f"{len(packets)} packets for a call that was never accepted")
        # The stamp of "accepted" is taken just before the 200 is written, so nothing legal can be earlier.
        early = [p for p in packets if call.accepted_at and p.at < call.accepted_at]
        if early:
            self.faults.append(f"{len(early)} packets before accept was answered")
        self.first = packets[0].at - call.accepted_at if packets and call.accepted_at else None
        order = sorted(packets, key=lambda p: ((p.seq - packets[0].seq + 2**15) % 2**16)) if packets else []
        times = [p.at for p in packets]
        self.longest_interval = max((b - a for a, b in zip(times, times[1:])), default=0.0)
        self.missing = sum(((b.seq - a.seq) % 2**16) - 1 for a, b in zip(order, order[1:]) if a.seq != b.seq)
        self.doubled = sum(a.seq == b.seq for a, b in zip(order, order[1:]))
        steps = {((b.ts - a.ts) % 2**32, (b.seq - a.seq) % 2**16) for a, b in zip(order, order[1:])}
        if any(ts != 960 * n for ts, n in steps if n):
            self.faults.append(f"RTP time and sequence do not advance together: {sorted(steps)[:5]}")
        self.bytes = sum(len(p.payload) for p in packets)
        self.path = [(t - peer.answer_at) if t and peer.answer_at else None for t in (peer.nominated_at, peer.connected_at)]
        sent = [t for t, _, _ in list(peer.sent)]
        self.stall = max((b - a for a, b in zip(sent, sent[1:])), default=0.0)      # of the lab's own sending
        self.reports = len(peer.reports)
        at = [t for t, _ in peer.reports]
        self.report_interval = max((b - a for a, b in zip(at, at[1:])), default=0.0)
        self.order = order

    def decode(self):
        """Samples at 48 kHz; kept."""
        if not hasattr(self, "pcm"):
            self.pcm, self.places = sound.from_opus([(p.ts, p.payload) for p in self.order])
        return self.pcm

    def steady(self, skip=1.0):
        """The sound without the first second, where codecs and buffers settle."""
        return self.decode()[int(skip * sound.CLOCK):]

    def tone(self, hertz, dbfs, within_db=3.0, gap=0.04, skip=1.0):
        """Fails unless this tone was heard, at this level and whole; returns a line with the numbers."""
        x = self.steady(skip)
        f, loud, longest = sound.frequency(x, sound.CLOCK), sound.level(x), sound.longest_gap(x, sound.CLOCK)
        line = (f"{f:.1f} Hz at {loud:.1f} dBFS, purity {sound.purity(x, sound.CLOCK, hertz) if len(x) else 0:.4f}, "
                f"longest gap {1000 * longest:.0f} ms, {self.packets} packets, first {1000 * (self.first or 0):.0f} ms "
                f"after accept, longest interval {1000 * self.longest_interval:.0f} ms, own sending {1000 * self.stall:.0f} ms, {self.reports} RTCP packets")
        assert len(x) > sound.CLOCK / 2, line
        assert abs(f - hertz) <= hertz * 0.01, line
        assert abs(loud - dbfs) <= within_db, line
        assert longest <= gap, line
        return line

    def rises(self):
        """Times at which bursts of a tone arrived, seconds since 1970."""
        pcm, found = self.decode(), []
        for at in sound.rises(pcm, sound.CLOCK):
            i = bisect.bisect_right(self.places, at) - 1
            found.append(self.order[i].at + (at - self.places[i]) / sound.CLOCK)
        return found


@dataclasses.dataclass(frozen=True)
class Number:
    """A WhatsApp business number."""

    pnid: str
    phone: str


class Cloud:
    """Graph API and webhook sender on one address."""

    def __init__(self, address, port, token, app_secret):
        self.address = address
        self.port = port
        self.token = token
        self.app_secret = app_secret
        self.webhook = None            # set once the gateway's address is known
        self.calls = {}
        self.strays = []               # requests for things that are not there: (method, path, status)
        self.on_unknown = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="cloud", daemon=True)

    @property
    def graph_url(self):
        """What goes into the gateway's `graph_url`."""
        return f"http://{self.address}:{self.port}{PATH}"

    def start(self):
        """Listens when this returns."""
        logging.getLogger("aiohttp").setLevel(logging.ERROR)
        self._thread.start()
        self.do(self._listen())
        return self

    def stop(self):
        """Closes everything, calls included."""
        self.do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def do(self, coroutine, timeout=30.0):
        """Runs a coroutine on the cloud's loop and returns its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    async def _listen(self):
        app = web.Application()
        app.router.add_post(PATH + "/{pnid}/calls", self._calls)
        app.router.add_get(PATH + "/{pnid}/settings", self._settings)
        app.router.add_route("*", "/{rest:.*}", self._elsewhere)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.address, self.port).start()
        self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))

    async def _close(self):
        for call in self.calls.values():
            call.peer.bye()
        await self._client.close()
        await self._runner.cleanup()

    # Users

    def call(self, number, user="4915112345678", name="Ada Lovelace", user_id=None, payload=None, style="current",
             frames=None, impairment=None, patient=True, **broken):
        """A user who is about to call `number`; nothing happens before `ring`."""
        call = Call(self, number, user, name, user_id, payload, style, frames, impairment, patient, broken)
        self.calls[call.id] = call
        return call

    # Webhooks

    def sign(self, body):
        """The X-Hub-Signature-256 of a body."""
        return "sha256=" + hmac.new(self.app_secret.encode(), body, hashlib.sha256).hexdigest()

    def send(self, *values, field="calls", secret=None, copies=1, raw=None):
        """Delivers webhook values in one POST (a batch if several); `copies` times. The last HTTP status.

        `secret` signs with another key, `raw` sends these bytes instead.
        """
        return self.do(self._send(values, field, secret, copies, raw))

    async def _send(self, values, field="calls", secret=None, copies=1, raw=None):
        changes = [{"field": field, "value": v} for v in values]
        body = raw if raw is not None else json.dumps(
            {"object": "whatsapp_business_account", "entry": [{"id": "102290129340398", "changes": changes}]}).encode()
        signature = self.sign(body)
        if secret is not None:
            signature = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        status = None
        for _ in range(copies):
            async with self._client.post(self.webhook, data=body, headers={
                    "X-Hub-Signature-256": signature, "Content-Type": "application/json",
                    "User-Agent": "facebookexternalua"}) as reply:
                await reply.read()
                status = reply.status
        return status

    # Graph

    def _error(self, status, code, details):
        return web.json_response({"error": {
            "is_transient": status >= 500,
            "message": f"({code}) {details}", "type": "OAuthException", "code": code,
            "error_data": {"messaging_product": "whatsapp", "details": details},
            "fbtrace_id": secrets.token_hex(8)}}, status=status)

    def _refused(self, request):
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return self._error(401, 190, "Error validating access token")
        return None

    async def _calls(self, request):
        refused = self._refused(request)
        if refused is not None:
            self.strays.append(("POST", request.path, 401))
            return refused
        try:
            body = json.loads(await request.read())
            action, call = body["action"], self.calls[body["call_id"]]
        except (ValueError, KeyError, TypeError) as error:
            self.strays.append(("POST", request.path, 400))
            return self._error(400, 100, f"Invalid parameter: {error}")
        call.requests.append(body)
        lost = False
        for fault in [call.plan[action].pop(0)] if call.plan.get(action) else []:
            await asyncio.sleep(fault.delay)
            if fault.hang:
                call.note(action, 0)
                request.transport.abort()
                return web.Response()
            lost = fault.lost
            if fault.status:
                call.note(action, fault.status)
                return self._error(fault.status, fault.code, fault.message)
        status, code, details = self._judge(request, call, action, body)
        if status != 200:
            call.note(action, status)
            return self._error(status, code, details)
        if action == "accept":
            call.accepted_at = time.time()
            call.peer.accepted(call.accepted_at)
        elif action in ("reject", "terminate"):
            call.ended_at = call.ended_at or time.time()
            asyncio.get_running_loop().call_later(0.2, self._over, call)
        call.note(action, 200)
        if lost:
            request.transport.abort()
        return web.json_response({"messaging_product": "whatsapp", "success": True})

    def _judge(self, request, call, action, body):
        if request.match_info["pnid"] != call.number.pnid:
            call.faults.append("an action on a call of another number")
            return 400, 100, "Invalid parameter: call_id"
        if body.get("messaging_product") != "whatsapp":
            call.faults.append("messaging_product is missing")
            return 400, 100, "messaging_product is required"
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
        session = body.get("session") or {}
        if session.get("sdp_type") != "answer":
            call.faults.append(f"sdp_type {session.get('sdp_type')!r} instead of answer")
            return 400, 138008, "SDP Validation error: sdp_type"
        sdp = session.get("sdp") or ""
        wrong, ufrag, fingerprint = inspect_answer(sdp, call.sdp)
        if call._answer not in (None, sdp):
            wrong.append("accept must repeat the SDP of pre_accept")
        if wrong:
            call.faults += wrong
            return 400, 138008, "SDP Validation error: " + "; ".join(wrong)
        call._answer = sdp
        call.peer.answer(ufrag, fingerprint)
        return 200, 0, ""

    def _over(self, call):
        call.peer.bye()
        if call.tells_end and not call._end_sent:
            call._end_sent = True
            asyncio.get_running_loop().create_task(self._send((call.terminate(),)))

    async def _settings(self, request):
        refused = self._refused(request)
        return refused if refused is not None else web.json_response({"calling": {
            "status": "ENABLED", "call_icon_visibility": "DEFAULT", "callback_permission_status": "ENABLED",
            "srtp_key_exchange_protocol": "DTLS", "sip": {"status": "DISABLED"}}})

    async def _elsewhere(self, request):
        self.strays.append((request.method, request.path, 400))
        return self._error(400, 100, f"Unsupported request: {request.method} {request.path}")
