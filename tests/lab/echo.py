"""A small gateway made of aiortc that echoes: the other side for the tests of the lab itself."""

import asyncio
import collections
import fractions
import json
import logging
import re
import threading
import time

from aiohttp import ClientSession, web
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaRelay
from aiortc.mediastreams import MediaStreamTrack
from av import AudioFrame

import network
from whatsapp import Number

NUMBER = Number("106540352242922", "+15550100100")


class Back(MediaStreamTrack):
    """Sends back what was heard, and silence as long as there was nothing: the user speaks only to somebody who is heard."""

    kind = "audio"

    def __init__(self):
        super().__init__()
        self.frames = collections.deque()
        self._sent = 0

    async def recv(self):
        """The next 20 ms."""
        if not self._sent:
            self._begin = time.monotonic()
        await asyncio.sleep(max(0.0, self._begin + self._sent * 0.02 - time.monotonic()))
        if self.frames:
            frame = self.frames.popleft()
        else:
            frame = AudioFrame(format="s16", layout="stereo", samples=960)
            frame.planes[0].update(bytes(3840))
            frame.sample_rate = 48000
        frame.pts, frame.time_base = self._sent * 960, fractions.Fraction(1, 48000)
        self._sent += 1
        return frame


class Echo:
    """A gateway that answers every call itself and sends back what it hears. `spoil` changes its answers."""

    def __init__(self, cloud, port):
        self.cloud, self.port = cloud, port
        self.spoil = lambda sdp: sdp
        self.late_accept = 0.0
        self.peers = []
        self.events = []                # (id, name, what) of every webhook
        self.dialled = {}               # calls that wait for Meta's answer
        self.turns = []
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=lambda: (asyncio.set_event_loop(self._loop), self._loop.run_forever()), daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)

    def stop(self):
        async def close():
            for turn in self.turns:
                turn.cancel()
            await asyncio.gather(*self.turns, return_exceptions=True)
            for pc in self.peers:
                await pc.close()
            await self._runner.cleanup()
        # aiortc leaves the tasks of peers that never connected behind, and asyncio says so.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _listen(self):
        app = web.Application()
        app.router.add_post("/webhooks/whatsapp", self._webhook)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, network.address(2), self.port).start()

    async def _webhook(self, request):
        body = await request.read()
        if request.headers["X-Hub-Signature-256"] != self.cloud.sign(body):
            return web.Response(status=401)
        for change in json.loads(body)["entry"][0]["changes"]:
            value = change["value"]
            for call in value.get("calls", []):
                self.events.append((call["id"], call["event"], call))
                if call["event"] == "connect" and call["direction"] == "USER_INITIATED":
                    asyncio.create_task(self._answer(call))
                elif call["event"] == "connect":
                    await self._apply(call)
            for status in value.get("statuses", []):
                self.events.append((status["id"], status["status"], status))
            for message in value.get("messages", []):
                self.events.append((message["id"], message["type"], message))
        return web.Response()

    def said(self, call_id):
        """The names of the webhooks of one call, in the order they came."""
        return [name for i, name, _ in self.events if i == call_id]

    # As the one who calls

    def graph(self, path, body=None, token=None):
        """One Graph request: GET without a body, POST with one. Status, JSON, headers."""
        async def ask():
            async with ClientSession(headers={"Authorization": f"Bearer {token or self.cloud.token}"}) as http:
                method = http.get if body is None else http.post
                async with method(f"{self.cloud.graph_url}/{path}", **({} if body is None else {"json": body})) as reply:
                    return reply.status, await reply.json(), reply.headers
        return self.do(ask())

    def do(self, coroutine):
        """Runs a coroutine on the echo's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def connect(self, to, change=lambda sdp: sdp, opaque=None):
        """Calls a user; Graph's status and body."""
        pc = self.do(self._offer())
        sdp = re.sub(r"a=fingerprint:sha-(384|512) .*\r\n", "", pc.localDescription.sdp)
        sdp = re.sub(r"a=(extmap|ptime):.*\r\n", "", sdp)
        sdp = re.sub(r"(m=audio .*)\r\n", r"\1 126\r\n", sdp) + "a=rtpmap:126 telephone-event/8000\r\na=ptime:20\r\n"
        body = {"messaging_product": "whatsapp", "to": to, "action": "connect",
                "session": {"sdp_type": "offer", "sdp": change(sdp)}}
        status, reply, _ = self.graph(f"{NUMBER.pnid}/calls", body | ({"biz_opaque_callback_data": opaque} if opaque else {}))
        if status == 200:
            self.dialled[reply["calls"][0]["id"]] = pc
        return status, reply

    async def _offer(self):
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.peers.append(pc)
        back = Back()
        pc.addTrack(back)

        async def turn(track):
            while True:
                back.frames.append(await track.recv())
        pc.on("track", lambda track: self.turns.append(asyncio.create_task(turn(track))))
        await pc.setLocalDescription(await pc.createOffer())
        return pc

    async def _apply(self, call):
        pc = self.dialled.pop(call["id"], None)
        if pc:
            sdp = re.sub(r"a=candidate:.*2001:.*\r\n", "", call["session"]["sdp"])
            asyncio.create_task(pc.setRemoteDescription(RTCSessionDescription(sdp, "answer")))

    # As the one who is called

    async def _answer(self, call):
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.peers.append(pc)
        relay = MediaRelay()
        pc.on("track", lambda track: pc.addTrack(relay.subscribe(track)))
        # aiortc drops what follows a second SSRC attribute and answers extensions; Meta wants neither.
        await pc.setRemoteDescription(RTCSessionDescription(call["session"]["sdp"], "offer"))
        await pc.setLocalDescription(await pc.createAnswer())
        sdp = re.sub(r"a=fingerprint:sha-(384|512) .*\r\n", "", pc.localDescription.sdp)
        sdp = re.sub(r"a=extmap:.*\r\n", "", sdp).replace("a=setup:", "a=ptime:20\r\na=setup:")
        async with ClientSession() as http:
            for action in ("pre_accept", "accept"):
                if action == "accept":
                    await asyncio.sleep(self.late_accept)
                async with http.post(f"{self.cloud.graph_url}/{NUMBER.pnid}/calls",
                                     headers={"Authorization": f"Bearer {self.cloud.token}"},
                                     json={"messaging_product": "whatsapp", "call_id": call["id"], "action": action,
                                           "session": {"sdp_type": "answer", "sdp": self.spoil(sdp)}}) as reply:
                    if reply.status != 200:
                        return
