"""Voice agents that say what they hear, many of them, in a process of their own: Python runs one thread at a time, and fifty
agents would make the lab's WhatsApp users wait.

They speak the dialect `pcm16` over TLS. What came in is kept as it was, and read once the calls are over.
"""

import asyncio
import dataclasses
import pathlib
import pickle
import ssl
import struct
import subprocess
import sys
import time

# The process needs no more than this of the lab.
import lateness


@dataclasses.dataclass
class Session:
    """One connection, seen from the agent: when it was opened and closed (seconds since 1970), and the sound as (time, bytes)."""

    opened_at: float
    closed_at: float | None = None
    got: list = dataclasses.field(default_factory=list)

    def samples(self, skip=1.0, rate=16000):
        """What was heard, without the first seconds."""
        import bot
        return bot.Pcm16(rate).decode(b"".join(data for _, data in self.got))[int(skip * rate):]


class Echoes:
    """The process, seen from a test. `authority` is a `bot.Authority` for the address."""

    def __init__(self, address, port, authority):
        self.url = f"wss://{address}:{port}/"
        self.process = subprocess.Popen([sys.executable, str(pathlib.Path(__file__).resolve()), address, str(port), str(authority.chain)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._told() == "listens"

    def sessions(self, since, count, timeout=10.0):
        """The connections opened since a time, once there are so many and all are closed."""
        end = time.monotonic() + timeout
        while True:
            self.process.stdin.write(struct.pack("!d", since))
            self.process.stdin.flush()
            found = [Session(**fields) for fields in self._told()]
            if len(found) >= count and all(s.closed_at for s in found):
                return found
            assert time.monotonic() < end, f"{len(found)} connections within {timeout} s, {sum(not s.closed_at for s in found)} still open"
            time.sleep(0.3)

    def _told(self):
        head = self.process.stdout.read(4)
        assert len(head) == 4, f"the agents' process ended with {self.process.wait(5)}"
        return pickle.loads(self.process.stdout.read(*struct.unpack("!I", head)))

    def stop(self):
        """Ends it."""
        self.process.stdin.close()
        self.process.wait(10)


async def _run(address, port, chain):
    from aiohttp import WSMsgType, web
    sessions = []

    async def serve(request):
        socket = web.WebSocketResponse(max_msg_size=1 << 20, timeout=2)
        await socket.prepare(request)
        session = Session(time.time())
        sessions.append(session)
        try:
            async for message in socket:
                if message.type == WSMsgType.BINARY:        # what is text is no sound
                    session.got.append((time.time(), message.data))
                    await socket.send_bytes(message.data)
        except ConnectionError:
            pass                            # the user hung up while this was being said
        finally:
            session.closed_at = time.time()
        return socket

    def tell(what):
        data = pickle.dumps(what)
        sys.stdout.buffer.write(struct.pack("!I", len(data)) + data)
        sys.stdout.buffer.flush()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    app = web.Application()
    app.router.add_get("/", serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, address, port, ssl_context=context).start()
    lateness.ahead()
    tell("listens")
    while len(asked := await asyncio.to_thread(sys.stdin.buffer.read, 8)) == 8:
        since, = struct.unpack("!d", asked)
        tell([vars(s) if s.closed_at else vars(s) | {"got": []} for s in sessions if s.opened_at >= since])
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_run(*sys.argv[1:]))
