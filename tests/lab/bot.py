"""Voice agents: WebSocket servers that speak what bots on the market speak, and remember every message with its time.

They run on a thread of their own; what a test calls is ordinary, blocking Python. The certificate is one of a CA that
only the test knows.
"""

import asyncio
import base64
import dataclasses
import datetime
import ipaddress
import json
import socket
import ssl
import threading
import time

import numpy as np
from aiohttp import WSMsgType, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import lateness
import sound
from people import Awaited

_ORDER = np.argsort(sound.G711[0], kind="stable")
_EDGES = (sound.G711[0][_ORDER][1:] + sound.G711[0][_ORDER][:-1]) / 2


def to_mulaw(x):
    """Samples as the nearest values that mu-law has."""
    return _ORDER[np.searchsorted(_EDGES, x)].astype(np.uint8).tobytes()


def to_pcm16(x):
    """Samples as 16 bit, little-endian."""
    return (np.clip(x, -1, 1) * 32767).astype("<i2").tobytes()


def wave(hertz, dbfs, seconds, rate):
    """Samples of a tone."""
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate) * 10 ** (dbfs / 20)


class Twilio:
    """Media Streams, bidirectional: JSON, mu-law 8 kHz as base64."""

    rate, width = 8000, 1
    stream, call = "streamSid", "callSid"

    def encode(self, x):
        return to_mulaw(x)

    def decode(self, data):
        return sound.from_g711(0, data)

    def opens(self):
        """What the bot says as soon as it is connected."""
        return ()

    def replies(self, message):
        """What it says to a message at once."""
        return ()

    def names(self, start):
        """The stream's and the call's ids as the first messages tell them."""
        return start[self.stream], start["start"][self.call]

    def media(self, data, stream):
        return json.dumps({"event": "media", "streamSid": stream, "media": {"payload": base64.b64encode(data).decode()}})

    def mark(self, name, stream):
        return json.dumps({"event": "mark", "streamSid": stream, "mark": {"name": name}})

    def clear(self, stream):
        return json.dumps({"event": "clear", "streamSid": stream})

    def sound_of(self, message):
        """The sound in a message, None if it is something else."""
        if isinstance(message, dict) and message.get("event") == "media":
            return base64.b64decode(message["media"]["payload"], validate=True)
        return None

    def kind(self, message):
        """What a message that is no sound is."""
        return message.get("event")

    def marked(self, message):
        """The name in an echoed mark."""
        return message["mark"]["name"]

    def digit(self, message):
        """The key in a message about one."""
        return message["dtmf"]["digit"]


class Telnyx(Twilio):
    """The same in snake case; what the agent sends names no stream."""

    stream, call = "stream_id", "call_control_id"

    def media(self, data, stream):
        return json.dumps({"event": "media", "media": {"payload": base64.b64encode(data).decode()}})

    def mark(self, name, stream):
        return json.dumps({"event": "mark", "mark": {"name": name}})

    def clear(self, stream):
        return json.dumps({"event": "clear"})


class Pcm16:
    """Sound as binary frames, control as text frames."""

    width = 2

    def __init__(self, rate):
        self.rate = rate

    def opens(self):
        return ()

    def replies(self, message):
        return ()

    def encode(self, x):
        return to_pcm16(x)

    def decode(self, data):
        return np.frombuffer(data[:len(data) // 2 * 2], dtype="<i2") / 32768

    def media(self, data, stream):
        return data

    def mark(self, name, stream):
        return json.dumps({"type": "mark", "name": name})

    def clear(self, stream):
        return json.dumps({"type": "clear"})

    def sound_of(self, message):
        return message if isinstance(message, bytes) else None

    def kind(self, message):
        return message.get("type")

    def marked(self, message):
        return message["name"]

    def digit(self, message):
        return message["digit"]


class TelnyxWide(Telnyx):
    """The same with PCM16 at 16 kHz."""

    rate, width = 16000, 2

    def encode(self, x):
        return to_pcm16(x)

    def decode(self, data):
        return np.frombuffer(data[:len(data) // 2 * 2], dtype="<i2") / 32768


class Jambonz(Pcm16):
    """`listen`: metadata as the first text, then binary L16 both ways; `type` names what the bot wants."""

    def kind(self, message):
        return message.get("event") or message.get("type") or ("start" if "callSid" in message else None)

    def names(self, start):
        return start["callId"], start["callSid"]

    def mark(self, name, stream):
        return json.dumps({"type": "mark", "data": {"name": name}})

    def clear(self, stream):
        return json.dumps({"type": "killAudio"})

    def marked(self, message):
        return message["data"]["name"]

    def digit(self, message):
        return message["dtmf"]


class Vonage(Pcm16):
    """The first text tells the content type, then binary PCM16 both ways."""

    def kind(self, message):
        return {"websocket:connected": "start", "websocket:dtmf": "dtmf", "websocket:notify": "mark",
                "websocket:cleared": "cleared"}.get(message["event"], message["event"])

    def names(self, start):
        return None, start["call_id"]

    def mark(self, name, stream):
        return json.dumps({"action": "notify", "payload": {"mark": name}})

    def clear(self, stream):
        return json.dumps({"action": "clear"})

    def marked(self, message):
        return message["payload"]["mark"]


class Exotel(Twilio):
    """Twilio's shape in snake case, PCM16 at 8 kHz, 100 ms at a time."""

    stream, call, width = "stream_sid", "call_sid", 2

    def encode(self, x):
        return to_pcm16(x)

    def decode(self, data):
        return np.frombuffer(data[:len(data) // 2 * 2], dtype="<i2") / 32768

    def media(self, data, stream):
        return json.dumps({"event": "media", "stream_sid": stream, "media": {"payload": base64.b64encode(data).decode()}})

    def mark(self, name, stream):
        return json.dumps({"event": "mark", "stream_sid": stream, "mark": {"name": name}})

    def clear(self, stream):
        return json.dumps({"event": "clear", "stream_sid": stream})


class Plivo(Twilio):
    """No `connected`, and other words for the same things."""

    def names(self, start):
        return start["start"]["streamId"], start["start"]["callId"]

    def kind(self, message):
        return {"playedStream": "mark"}.get(message["event"], message["event"])

    def media(self, data, stream):
        return json.dumps({"event": "playAudio", "streamId": stream, "media": {
            "contentType": "audio/x-mulaw", "sampleRate": 8000, "payload": base64.b64encode(data).decode()}})

    def mark(self, name, stream):
        return json.dumps({"event": "checkpoint", "streamId": stream, "name": name})

    def clear(self, stream):
        return json.dumps({"event": "clearAudio", "streamId": stream})

    def marked(self, message):
        return message["name"]


@dataclasses.dataclass
class Bearing:
    """How the bot at one path behaves."""

    dialect: object
    refuse: int | None = None       # answers the upgrade with this HTTP status
    wait: float = 0.0               # seconds before it answers the upgrade at all
    greet: tuple | None = None      # (hertz, dbfs, seconds): said in one breath as soon as the session has begun
    echo: bool = False              # sends back what it hears
    deaf: bool = False              # answers no ping
    leave: float | None = None      # closes the socket after so many seconds
    busy: tuple = (0, 0)            # answers so many upgrades of a call with an HTTP status: (how many, which)


class Talk(Awaited):
    """One connection to the bot, seen from the bot. Times are seconds since 1970."""

    def __init__(self, bot, path, bearing, request):
        super().__init__()
        self.bot, self.path, self.bearing, self.dialect = bot, path, bearing, bearing.dialect
        self.query, self.headers = dict(request.query), {k.lower(): v for k, v in request.headers.items()}
        self.opened_at, self.made = time.time(), time.monotonic()
        self.closed_at = self.close_code = None
        self.got = []                   # (time, message): a dict, or bytes
        self.faults = []                # what no bot could read
        self.pings = []
        self.ready = False
        self._ws = self._stream = None

    async def run(self, request):
        """The connection's life."""
        self._ws = web.WebSocketResponse(autoping=False, max_msg_size=1 << 22, timeout=2)
        if request.transport is None:       # gone while it waited
            self.closed_at = time.time()
            return web.Response()
        await self._ws.prepare(request)
        self.ready = True
        self.bot._notify()
        leave = asyncio.get_running_loop().call_later(self.bearing.leave, lambda: self.bot._soon(self._ws.close())) \
            if self.bearing.leave is not None else None
        greeted = False
        for first in self.dialect.opens():
            await self._send(first)
        try:
            async for message in self._ws:
                if message.type == WSMsgType.PING:
                    self.pings.append(time.time())
                    if not self.bearing.deaf:
                        await self._ws.pong(message.data)
                    continue
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    continue
                said = self._take(message)
                for reply in self.dialect.replies(self.got[-1][1]) if self.got else ():
                    await self._send(reply)
                if self.bearing.greet and not greeted and self.begun:
                    greeted = True
                    hertz, dbfs, seconds = self.bearing.greet
                    await self._play(wave(hertz, dbfs, seconds, self.dialect.rate), None, False)
                if self.bearing.echo and said is not None:
                    await self._send(self.dialect.media(said, self.stream))
        finally:
            self.closed_at, self.close_code = time.time(), self._ws.close_code
            if leave:
                leave.cancel()
            self._notify()
        return self._ws

    def _take(self, message):
        try:
            body = json.loads(message.data) if message.type == WSMsgType.TEXT else bytes(message.data)
            said = self.dialect.sound_of(body)
            if said is None and not isinstance(body, dict):
                raise ValueError("neither sound nor an object")
        except (ValueError, KeyError, TypeError) as error:
            self.faults.append(f"unreadable: {error}: {str(message.data)[:200]}")
            return None
        self.got.append((time.time(), body))
        self._notify()
        return said

    @property
    def begun(self):
        """Whether sound may be sent: after `start`, or at once where there is no such message."""
        return type(self.dialect) is Pcm16 or bool(self.of("start"))

    @property
    def stream(self):
        """The stream's id; None before it is known."""
        if self._stream is None and type(self.dialect) is not Pcm16:
            start = self.of("start")
            self._stream = self.dialect.names(start[0])[0] if start else None
        return self._stream

    @property
    def call_id(self):
        """The call's id, as a REST request names it."""
        return self.dialect.names(self.wait("start"))[1]

    # What came

    def of(self, kind):
        """The messages of one kind, oldest first."""
        return [m for _, m in list(self.got) if isinstance(m, dict) and self.dialect.kind(m) == kind]

    def times(self, kind):
        """When they came."""
        return [t for t, m in list(self.got) if isinstance(m, dict) and self.dialect.kind(m) == kind]

    def wait(self, kind, count=1, timeout=8.0):
        """Waits for the message of one kind, or for so many; the last of these."""
        return self.until(lambda: self.of(kind)[count - 1] if len(self.of(kind)) >= count else None, timeout,
                          lambda: f"the bot got {len(self.of(kind))} {kind}, not {count}; closed: {self.close_code}")

    def closed(self, timeout=8.0):
        """Waits until the connection is closed; the code it was closed with."""
        self.until(lambda: self.closed_at, timeout, "the connection to the bot was not closed")
        return self.close_code

    def marks(self):
        """The echoed marks as (time, name)."""
        return [(t, self.dialect.marked(m)) for t, m in zip(self.times("mark"), self.of("mark"))]

    def digits(self):
        """The keys the user pressed."""
        return [self.dialect.digit(m) for m in self.of("dtmf")]

    def sounds(self):
        """The sound as it came: (time, bytes)."""
        return [(t, said) for t, m in list(self.got) if (said := self.dialect.sound_of(m)) is not None]

    def heard(self, skip=1.0):
        """The sound as samples at the dialect's rate, without the first seconds."""
        data = b"".join(said for _, said in self.sounds())
        return self.dialect.decode(data)[int(skip * self.dialect.rate):]

    def tone(self, hertz, dbfs, within_db=3.0, gap=0.04, skip=1.0):
        """Fails unless this tone was heard, at this level and whole; returns a line with the numbers."""
        x, rate = self.heard(skip), self.dialect.rate
        f, loud, longest = sound.frequency(x, rate), sound.level(x), sound.longest_gap(x, rate)
        line = f"{f:.1f} Hz at {loud:.1f} dBFS, purity {sound.purity(x, rate, hertz) if len(x) else 0:.4f}, longest gap {1000 * longest:.0f} ms"
        late = lateness.allowance(self.made)                        # what the lab's user sends late is missing here
        line += f", the lab up to {1000 * late:.0f} ms late" if late else ""
        whole = longest <= gap + late
        assert len(x) > rate / 2 and abs(f - hertz) <= hertz * 0.01 and abs(loud - dbfs) <= within_db and whole, line
        return line

    # What the bot does

    def play(self, hertz, dbfs=-10.0, seconds=1.0, chunk=None, paced=False):
        """Says a tone: in messages of `chunk` bytes (20 ms if None), as fast as it goes or `paced` in real time."""
        self.bot.do(self._play(wave(hertz, dbfs, seconds, self.dialect.rate), chunk, paced), 30 + seconds)

    async def _play(self, x, chunk, paced):
        data, dialect = self.dialect.encode(x), self.dialect
        step = chunk or dialect.rate // 50 * dialect.width
        begin = time.monotonic()
        for i in range(0, len(data), step):
            # However fast it goes: what is said later than it would be heard is a gap of the agent's own.
            lateness.note(lateness.AGENT, begin + i / dialect.width / dialect.rate)
            await self._send(dialect.media(data[i:i + step], self.stream))
            if paced:
                await asyncio.sleep(max(0.0, begin + (i + step) / dialect.width / dialect.rate - time.monotonic()))

    def mark(self, *names):
        """Sets marks at the end of what was said so far."""
        for name in names:
            self.send(self.dialect.mark(name, self.stream))

    def clear(self):
        """What was said is not to be heard any more; the time when this was sent."""
        at = time.time()
        self.send(self.dialect.clear(self.stream))
        return at

    def send(self, message):
        """Any message, whatever it may be."""
        self.bot.do(self._send(message))

    async def _send(self, message):
        if self._ws.closed:
            return
        await (self._ws.send_bytes(message) if isinstance(message, bytes) else self._ws.send_str(message))

    def stuck(self, yes=True):
        """Reads nothing more from the connection, or goes on."""
        self.bot.do(self._stuck(yes))

    async def _stuck(self, yes):
        transport = self._ws._req.transport
        if yes:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            transport.pause_reading()
        else:
            transport.resume_reading()

    def hang_up(self):
        """Closes the connection, as it should be; when."""
        at = time.time()
        self.bot.do(self._ws.close())
        return at

    def die(self):
        """The connection breaks off without a word."""
        self.bot.do(self._die())

    async def _die(self):
        transport = self._ws._req.transport     # aiohttp has no name for pulling the plug
        if transport:
            transport.abort()

    async def _bye(self):
        if self.ready and not self._ws.closed:
            await self._ws.close()


class Authority:
    """A CA of our own, with one certificate for one address. `folder` gets `ca.pem`."""

    def __init__(self, folder, address):
        folder.mkdir(parents=True, exist_ok=True)
        now = datetime.datetime.now(datetime.timezone.utc)
        long = {"before": now - datetime.timedelta(hours=1), "after": now + datetime.timedelta(days=2)}
        key, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab CA")])
        ca = self._made(name, name, key, key, long, [(x509.BasicConstraints(ca=True, path_length=0), True)])
        leaf = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bot")])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address)), x509.DNSName("bot.example")])
        cert = self._made(leaf, name, own, key, long, [(names, False), (x509.BasicConstraints(ca=False, path_length=None), True)])
        self.file = folder / "ca.pem"
        self.file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        chain = folder / "bot.pem"
        chain.write_bytes(cert.public_bytes(serialization.Encoding.PEM) + own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        self.chain = chain
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(chain)

    @staticmethod
    def _made(subject, issuer, key, signer, long, extensions):
        it = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
              .serial_number(x509.random_serial_number()).not_valid_before(long["before"]).not_valid_after(long["after"]))
        for extension, critical in extensions:
            it = it.add_extension(extension, critical=critical)
        return it.sign(signer, hashes.SHA256())


class Bot(Awaited):
    """Bots at one address. Each name in `bearings` is a path, and a way to behave."""

    def __init__(self, address, port, folder, bearings=None):
        super().__init__()
        self.address, self.port = address, port
        self.bearings = bearings or {}
        self.talks = []
        self.refused = []               # (time, path, status) of upgrades that were turned away
        self.knocks = {}
        self.makes = {}                 # path: (status, body) that a POST or a GET there is answered with
        self.asked = []                 # (path, headers, body) of those POSTs, and the query of GETs
        self.authority = Authority(folder, address)
        self._loop = asyncio.new_event_loop()
        self._tasks = set()
        self._thread = threading.Thread(target=self._run, name="bot", daemon=True)

    def url(self, path, more=""):
        """Where the bot at a path is."""
        return f"wss://{self.address}:{self.port}/{path}{more}"

    def start(self):
        """Listens when this returns."""
        self._thread.start()
        self.do(self._listen())
        return self

    def stop(self):
        """Closes everything."""
        self.do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        lateness.ahead()
        self._loop.run_forever()

    def do(self, coroutine, timeout=30.0):
        """Runs a coroutine on the bot's loop and returns its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    def _soon(self, coroutine):
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self):
        app = web.Application()
        app.router.add_route("GET", "/{path:.*}", self._serve)
        app.router.add_route("POST", "/{path:.*}", self._make)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.address, self.port, ssl_context=self.authority.context).start()

    async def _close(self):
        for talk in self.talks:
            await talk._bye()
        await self._runner.cleanup()

    async def _make(self, request):
        path = request.match_info["path"]
        self.asked.append((path, {k.lower(): v for k, v in request.headers.items()}, await request.json()))
        status, body = self.makes.get(path, (404, {"message": "no such thing"}))
        return web.json_response(body, status=status)

    async def _serve(self, request):
        path = request.match_info["path"]
        if path in self.makes and "Upgrade" not in request.headers:
            self.asked.append((path, {k.lower(): v for k, v in request.headers.items()}, dict(request.query)))
            status, body = self.makes[path]
            return web.json_response(body, status=status)
        bearing = self.bearings.get(path)
        status = 404 if bearing is None else bearing.refuse
        if bearing is not None and bearing.busy[0]:
            count, status = bearing.busy
            self.knocks[path] = (self.knocks.get(path, 0) + 1) % (count + 1)
            status = status if self.knocks[path] else None
        if bearing is not None and bearing.wait:
            await asyncio.sleep(bearing.wait)
        if status:
            self.refused.append((time.time(), path, status))
            self._notify()
            return web.Response(status=status, text="not today")
        talk = Talk(self, path, bearing, request)
        self.talks.append(talk)
        return await talk.run(request)

    def called(self, path, after=0.0, timeout=8.0):
        """Waits for a connection to one path, made since a time; it."""
        return self.until(lambda: next((t for t in self.talks if t.path == path and t.opened_at >= after and t.ready), None),
                          timeout, lambda: f"nobody connected to /{path}; refused: {self.refused[-3:]}")
