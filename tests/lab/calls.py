"""One WhatsApp call, seen from Meta and the user: those that a user makes, and those that the business makes."""

import asyncio
import json
import secrets
import time

from heard import Heard
from people import Awaited
from peer import Peer


class Either(Awaited):
    """What both directions have in common."""

    outgoing = False
    direction = "USER_INITIATED"

    def __init__(self, cloud, number, user, name, user_id):
        super().__init__()
        self.cloud = cloud
        self.number = number
        self.user = user
        self.name = name
        self.user_id = user_id
        self.id = "wacid." + secrets.token_urlsafe(24) + "="
        self.plan = {}                # action -> list of Fault, used up one by one
        self.actions = []             # (time, action, HTTP status) as they were answered
        self.requests = []            # the JSON bodies
        self.faults = []
        self.rang_at = self.accepted_at = self.ended_at = None
        self.made = time.monotonic()
        self.tells_end = True         # Meta sends a terminate for every ending, also for our own
        self._end_sent = False

    def terminate(self, status="COMPLETED", errors=None):
        """The webhook's `value` for this call's end; start, end and duration only if it was answered."""
        call = self._event("terminate") | {"status": status}
        if self.accepted_at:
            end = self.ended_at or time.time()
            call |= {"start_time": str(int(self.accepted_at)), "end_time": str(int(end)), "duration": int(end - self.accepted_at)}
        value = self._value(calls=[call])
        if errors:
            value["errors"] = errors
        return value

    def _event(self, event):
        business = self.number.phone.lstrip("+")
        call = {"id": self.id, "event": event, "direction": self.direction, "timestamp": str(int(time.time()))}
        call["from" if self.outgoing else "to"] = business
        if self.user:
            call["to" if self.outgoing else "from"] = self.user
        if self.user_id:
            call["to_user_id" if self.outgoing else "from_user_id"] = self.user_id
        return call

    def _value(self, **what):
        contact = {"profile": {"name": self.name}}
        if self.user:
            contact["wa_id"] = self.user
        else:
            contact["profile"]["username"] = "ada.l"
        if self.user_id:
            contact["user_id"] = self.user_id
        return {"messaging_product": "whatsapp",
                "metadata": {"display_phone_number": self.number.phone.lstrip("+"), "phone_number_id": self.number.pnid},
                "contacts": [contact]} | what

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
        return self.until(found, timeout, lambda: f"{complaint} (seen: {[a for _, a, _ in self.actions]}, "
                          f"faults: {self.faults + self.peer.faults})")

    def names(self):
        """The actions Graph granted, in order."""
        return [a for _, a, s in self.actions if s == 200]

    def note(self, action, status):
        """Called by the cloud: one more answered request."""
        self.actions.append((time.time(), action, status))
        self._notify()

    def over(self):
        """Called by the cloud: the business has ended the call."""
        self.ended_at = self.ended_at or time.time()
        self._notify()
        asyncio.get_running_loop().call_later(0.2, self._over)

    def _over(self):
        self.peer.bye()
        if self.tells_end and not self._end_sent:
            self._end_sent = True
            self.cloud.soon(self.cloud.deliver(self.terminate()))

    def measure(self):
        """What the user heard, as a `Heard`. For a call that is over, or long enough under way."""
        return Heard(self)


class Call(Either):
    """One call that a WhatsApp user makes."""

    def __init__(self, cloud, number, user, name, user_id, payload, style, frames, impairment, patient, broken):
        super().__init__(cloud, number, user, name, user_id)
        self.payload = payload
        self._answer = None
        self.peer = cloud.do(self._make(style, frames, impairment, patient, broken))

    async def _make(self, style, frames, impairment, patient, broken):
        peer = Peer(self.cloud.address, frames, impairment, patient)
        self.sdp = peer.offer(style, **broken)
        return peer

    def ring(self, **how):
        """The user calls: the connect webhook. Returns the gateway's HTTP status."""
        self.rang_at = time.time()
        return self.cloud.send(self.connect(), **how)

    def connect(self):
        """The webhook's `value` for this call's beginning."""
        call = self._event("connect") | {"session": {"sdp_type": "offer", "sdp": self.sdp}}
        if self.payload:
            call["deeplink_payload"] = self.payload
        return self._value(calls=[call])


class Outgoing(Either):
    """One call that the business makes; it begins when Graph takes the `connect` and goes by the user's `Manner`."""

    outgoing = True
    direction = "BUSINESS_INITIATED"

    def __init__(self, cloud, number, person, body, offered):
        super().__init__(cloud, number, person.phone, person.name, person.user_id)
        self.person = person
        self.manner = person.manner
        self.offered = offered
        self.opaque = body.get("biz_opaque_callback_data")
        self.requests.append(body)
        self.rang_at = None                 # the phone rings, …
        self.rejected_at = None             # … or is declined
        self.begun_at = time.time()
        self.peer = Peer(cloud.address, person.frames, person.impairment)
        self.peer.ringing = True
        self.sdp = self.peer.take(offered, self.manner.setup)
        self._life = asyncio.get_running_loop().create_task(self._live())

    # Waiting, for a test

    def rung(self, timeout=8.0):
        """Waits until the phone rings."""
        return self._wait(lambda: self.rang_at, timeout, "the phone did not ring")

    def picked_up(self, timeout=10.0):
        """Waits until the user has picked up."""
        return self._wait(lambda: self.accepted_at, timeout, "the user did not pick up")

    def finished(self, timeout=10.0):
        """Waits until the call is over, whoever ended it."""
        return self._wait(lambda: self.ended_at, timeout, "the call did not end")

    def talking(self, timeout=10.0):
        """Waits until the user hears something after picking up."""
        def heard():
            return next((True for p in reversed(self.peer.received) if self.accepted_at and p.at > self.accepted_at), None)
        end = time.monotonic() + timeout
        while not heard():
            if time.monotonic() > end:
                raise AssertionError(f"nothing to hear {timeout} s after the call; faults: {self.faults + self.peer.faults}")
            time.sleep(0.02)
        return self

    # The webhooks

    def _echo(self, event):
        return event | ({"biz_opaque_callback_data": self.opaque} if self.opaque else {})

    def _event(self, event):
        return self._echo(super()._event(event))

    def connect(self):
        """The webhook's `value` with Meta's answer."""
        return self._value(calls=[self._event("connect") | {"session": {"sdp_type": "answer", "sdp": self.sdp}}])

    def status(self, word):
        """The webhook's `value` of RINGING, ACCEPTED or REJECTED."""
        status = {"id": self.id, "type": "call", "status": word, "timestamp": str(int(time.time()))}
        if self.user:
            status["recipient_id"] = self.user
        if self.user_id:
            status["recipient_user_id"] = self.user_id
        return self._value(statuses=[self._echo(status)])

    def _script(self):
        """(seconds, what) of everything that will happen unless the business ends the call."""
        m, script = self.manner, []
        if m.connect is not None:
            script.append((m.connect, "connect"))
        if m.ring is not None:
            script.append((m.ring, "RINGING"))
        if m.fail is not None:
            script.append((m.fail[0], "fail"))
        elif m.reject is not None:
            script.append((m.reject, "REJECTED"))
        elif m.answer is not None and m.ring is not None:
            script.append((m.answer, "ACCEPTED"))
        else:
            script.append((m.give_up, "nobody"))
        script.sort(key=lambda entry: entry[0])
        if m.backwards:
            at = script[-1][0]
            script = [(at + 0.05 * i, what) for i, (_, what) in enumerate(reversed(script))]
        return script

    async def _live(self):
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for at, what in self._script():
            await asyncio.sleep(max(0.0, begin + at - loop.time()))
            if self.ended_at:
                return
            await self._happen(what)
        if self.accepted_at and self.manner.hang_up is not None:
            await asyncio.sleep(self.manner.hang_up)
            await self._end()

    async def _happen(self, what):
        if what == "connect":
            await self._tell(self.connect())
        elif what == "RINGING":
            self.rang_at = time.time()
            self._notify()
            await self._tell(self.status(what))
        elif what == "ACCEPTED":
            self.accepted_at = time.time()
            self.peer.accepted(self.accepted_at)
            self._notify()
            await self._tell(self.status(what))
        elif what == "REJECTED":
            self.rejected_at = time.time()
            await self._tell(self.status(what))
            await self._end()
        elif what == "nobody":
            await self._end()
        else:
            _, code, details = self.manner.fail
            await self._end("FAILED", [{"code": code, "message": details, "href": "https://developers.facebook.com/docs",
                                        "error_data": {"details": details}}])

    async def _end(self, status="COMPLETED", errors=None):
        if self.ended_at:
            return
        self.ended_at = time.time()
        self._end_sent = True
        self.peer.bye()
        self._notify()
        await self._tell(self.terminate(status, errors))

    async def _tell(self, value):
        await self.cloud.deliver(value, copies=self.manner.copies)

    async def _bye(self):
        self._life.cancel()
        self.peer.bye()
        self._notify()

    def about(self):
        """A line for the report: what was offered and what was settled."""
        return json.dumps({"setup offered": self.offered.setup, "gateway is DTLS": {"client": "server", "server": "client"}[self.peer.dtls]})
