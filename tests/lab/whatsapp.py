"""The stand-in for Meta's cloud: the webhook sender, the WhatsApp users and, from `graph`, the Graph API.

It runs on a thread of its own; everything a test calls is ordinary, blocking Python. What the gateway does
against the rules is written to `Call.faults` (to `Cloud.faults` where no call came about) and, where Meta would
refuse it, refused with Meta's code.
"""

import asyncio
import dataclasses
import hashlib
import hmac
import json
import logging
import threading
import time

import aiohttp
from aiohttp import web

import lateness
from calls import Call
from graph import PATH, WABA, Fault, Graph, refusal  # noqa: F401 (Fault and refusal are for the tests)
from people import Awaited, Manner, Person  # noqa: F401
from sdp import inspect_answer  # noqa: F401


@dataclasses.dataclass(frozen=True)
class Number:
    """A WhatsApp business number."""

    pnid: str
    phone: str


class Cloud(Awaited):
    """Graph API and webhook sender on one address."""

    def __init__(self, address, port, token, app_secret):
        super().__init__()
        self.address = address
        self.port = port
        self.token = token
        self.app_secret = app_secret
        self.webhook = None            # where webhooks go, set once the gateway's address is known, …
        self.webhooks = {}             # … unless Meta's id of the number is named here
        self.calls = {}
        self.people = {}               # who can be called, by phone number
        self.numbers = {}              # the business numbers seen so far, by Meta's id
        self.strays = []               # requests for things that are not there: (method, path, status)
        self.faults = []               # what was wrong with offers that were refused
        self.deaf = False              # webhooks are lost on the way
        self.graph = Graph(self)
        self._tasks = set()
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
        lateness.ahead()
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def do(self, coroutine, timeout=30.0):
        """Runs a coroutine on the cloud's loop and returns its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    async def _listen(self):
        app = web.Application()
        self.graph.routes(app.router)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.address, self.port).start()
        self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))

    async def _close(self):
        for call in self.calls.values():
            await call._bye()
        await self._client.close()
        await self._runner.cleanup()

    # Users

    def call(self, number, user="4915112345678", name="Ada Lovelace", user_id=None, payload=None, style="current",
             frames=None, impairment=None, patient=True, **broken):
        """A user who is about to call `number`; nothing happens before `ring`."""
        self.numbers[number.pnid] = number
        call = Call(self, number, user, name, user_id, payload, style, frames, impairment, patient, broken)
        self.calls[call.id] = call
        return call

    def person(self, phone=None, **how):
        """A user who can be called; see `Person` and `Manner` for what can be said about them."""
        if phone is None:
            self._next = getattr(self, "_next", int(time.time() * 10) % 10**6 * 1000) + 1
            phone = f"4917{self._next:09}"
        self.people[phone] = Person(self, phone, **how)
        return self.people[phone]

    def find(self, phone, user_id):
        """The user of a phone number or a user id, in any of the forms Graph takes."""
        if phone:
            return self.people.get("".join(c for c in str(phone) if c.isdigit()))
        return next((p for p in self.people.values() if user_id and p.user_id == user_id), None)

    def number(self, pnid):
        """The business number with Meta's id; one made up if no test has named it."""
        return self.numbers.setdefault(pnid, Number(pnid, "+15550000000"))

    def knows(self, *numbers):
        """Names business numbers before anyone has called them."""
        self.numbers.update({n.pnid: n for n in numbers})

    def notify(self):
        """Called by Graph after every request."""
        self._notify()

    # Webhooks

    def sign(self, body):
        """The X-Hub-Signature-256 of a body."""
        return "sha256=" + hmac.new(self.app_secret.encode(), body, hashlib.sha256).hexdigest()

    def send(self, *values, field="calls", secret=None, copies=1, raw=None):
        """Delivers webhook values in one POST (a batch if several); `copies` times. The last HTTP status.

        `secret` signs with another key, `raw` sends these bytes instead.
        """
        return self.do(self._send(values, field, secret, copies, raw))

    async def deliver(self, value, copies=1):
        """Delivers one webhook value; as Meta does, again and again for a while if nobody takes it."""
        try:
            if await self._send((value,), copies=copies) in (200, None):
                return
        except aiohttp.ClientError:
            pass
        self.soon(self._redeliver(value))

    async def _redeliver(self, value):
        for _ in range(20):
            await asyncio.sleep(0.5)
            try:
                if await self._send((value,)) in (200, None):
                    return
            except aiohttp.ClientError:
                pass

    def soon(self, coroutine):
        """Runs a coroutine of the cloud's own loop, without waiting."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, values, field="calls", secret=None, copies=1, raw=None):
        changes = [{"field": field, "value": v} for v in values]
        body = raw if raw is not None else json.dumps(
            {"object": "whatsapp_business_account", "entry": [{"id": WABA, "changes": changes}]}).encode()
        signature = self.sign(body)
        if secret is not None:
            signature = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        status = None
        url = self._where(values)
        for _ in range(0 if self.deaf or url is None else copies):
            async with self._client.post(url, data=body, headers={
                    "X-Hub-Signature-256": signature, "Content-Type": "application/json",
                    "User-Agent": "facebookexternalua"}) as reply:
                await reply.read()
                status = reply.status
        return status

    def _where(self, values):
        pnid = values[0]["metadata"]["phone_number_id"] if values else None
        return self.webhooks.get(pnid) or self.webhook
