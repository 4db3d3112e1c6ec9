"""The bots notice what they are there to notice, and say what a test lets them say."""

import asyncio
import base64
import json
import ssl

import aiohttp
import numpy as np
import pytest

import network
import sound
from bot import Authority, Bearing, Bot, Pcm16, Telnyx, Twilio, to_mulaw, to_pcm16, wave

START = {
    "twilio": {"event": "start", "streamSid": "MZ1", "start": {"streamSid": "MZ1", "callSid": "CA1"}},
    "telnyx": {"event": "start", "stream_id": "u1", "start": {"call_control_id": "v3:1"}},
}


@pytest.fixture(scope="module")
def bot(tmp_path_factory):
    it = Bot(network.address(16), 8443, tmp_path_factory.mktemp("bot"), {
        "twilio": Bearing(Twilio()), "telnyx": Bearing(Telnyx()), "pcm16-24000": Bearing(Pcm16(24000)),
        "echo": Bearing(Twilio(), echo=True), "no": Bearing(Twilio(), refuse=403), "deaf": Bearing(Twilio(), deaf=True),
        "greets": Bearing(Twilio(), greet=(800, -12, 0.5)),
    }).start()
    yield it
    it.stop()


class Line:
    """A platform as small as can be, in the bot's own loop so that a test can block."""

    def __init__(self, bot, path, context=None):
        self.bot, self.path, self.got = bot, path, []
        self.context = context or ssl.create_default_context(cafile=bot.authority.file)

    def __enter__(self):
        self.bot.do(self._open())
        return self

    def __exit__(self, *_):
        self.bot.do(self._close())

    async def _open(self):
        self.client = aiohttp.ClientSession()
        try:
            self.ws = await self.client.ws_connect(self.bot.url(self.path), ssl=self.context)
        except BaseException:
            await self.client.close()
            raise

    async def _close(self):
        await self.ws.close()
        await self.client.close()

    def send(self, message):
        self.bot.do(self.ws.send_bytes(message) if isinstance(message, bytes) else self.ws.send_str(json.dumps(message)))

    def take(self, count):
        """The next messages."""
        async def take():
            return [await asyncio.wait_for(self.ws.receive(), 5) for _ in range(count)]
        return [m.data if m.type == aiohttp.WSMsgType.BINARY else m.data and json.loads(m.data) for m in self.bot.do(take())]


def test_mu_law_is_the_nearest_value():
    values = sound.G711[0]
    assert np.array_equal(sound.from_g711(0, to_mulaw(values)), values)
    x = wave(800, -10, 1, 8000)
    error = sound.from_g711(0, to_mulaw(x)) - x
    assert abs(sound.level(sound.from_g711(0, to_mulaw(x))) + 10) < 0.1 and sound.level(error) < -45
    assert sound.from_g711(0, to_mulaw(np.array([2.0, -2.0]))).tolist() == [values.max(), values.min()]


@pytest.mark.parametrize("path", ["twilio", "telnyx"])
def test_a_tone_arrives_at_a_bot_that_speaks_json(bot, path):
    with Line(bot, path) as line:
        line.send({"event": "connected"})
        line.send(START[path])
        talk = bot.called(path)
        talk.wait("start")
        data = to_mulaw(wave(700, -10, 2, 8000))
        for i in range(0, len(data), 160):
            line.send({"event": "media", "media": {"payload": base64.b64encode(data[i:i + 160]).decode()}})
        line.send({"event": "dtmf", "dtmf": {"digit": "5"}})
        line.send({"event": "mark", "mark": {"name": "a"}})
        talk.wait("mark")
        print(talk.tone(700, -10))
        assert talk.digits() == ["5"] and [n for _, n in talk.marks()] == ["a"] and not talk.faults
        talk.play(1000, -10, 0.5)
        talk.mark("m")
        talk.clear()
        *media, mark, clear = line.take(27)
        x = sound.from_g711(0, b"".join(base64.b64decode(m["media"]["payload"]) for m in media))
        assert abs(sound.frequency(x, 8000) - 1000) < 5 and mark["mark"]["name"] == "m" and clear["event"] == "clear"
        assert media[0].get("streamSid") == ("MZ1" if path == "twilio" else None)
        talk.hang_up()
    assert talk.closed() == 1000


def test_a_high_tone_passes_as_plain_pcm(bot):
    with Line(bot, "pcm16-24000") as line:
        talk = bot.called("pcm16-24000")
        line.send(to_pcm16(wave(5000, -10, 2, 24000)))
        talk.until(lambda: talk.sounds() or None, 5, "nothing")
        print(talk.tone(5000, -10))
        talk.play(5000, -20, 0.1, chunk=999)
        data = b"".join(line.take(5))
        assert len(data) == 4800 and abs(sound.frequency(np.frombuffer(data, "<i2") / 32768, 24000) - 5000) < 30


def test_what_no_bot_could_read_is_noticed(bot):
    with Line(bot, "twilio") as line:
        talk = bot.talks[-1]
        for wrong in ("{", "[]", json.dumps({"event": "media", "media": {}}), json.dumps({"event": "media", "media": {"payload": "%"}})):
            bot.do(line.ws.send_str(wrong))
        line.send(b"sound that is none here")
        talk.until(lambda: True if len(talk.faults) == 5 else None, 5, lambda: str(talk.faults))


def test_a_bot_echoes_greets_refuses_and_goes_silent(bot):
    with Line(bot, "echo") as line:
        line.send(START["twilio"])
        line.send({"event": "media", "media": {"payload": "//8="}})
        assert line.take(1)[0]["media"]["payload"] == "//8="
    with Line(bot, "greets") as line:
        line.send(START["twilio"])
        assert len(line.take(25)) == 25
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        with Line(bot, "no"):
            pass
    assert refused.value.status == 403 and bot.refused[-1][1:] == ("no", 403)
    with Line(bot, "deaf") as line:
        bot.do(line.ws.ping())
        talk = bot.called("deaf")
        talk.until(lambda: talk.pings or None, 5, "no ping")
        talk.die()
        assert talk.closed() == 1006


def test_nobody_else_vouches_for_the_bot(bot, tmp_path):
    stranger = ssl.create_default_context(cafile=Authority(tmp_path, network.address(16)).file)
    for context in (ssl.create_default_context(), stranger):
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            with Line(bot, "twilio", context):
                pass
