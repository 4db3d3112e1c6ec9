"""Voice agents: a WhatsApp user talks to a bot behind a WebSocket, and everything that can become of that."""

import base64
import hashlib
import hmac
import re
import threading
import time

import numpy as np
import pytest

import lateness
import many
import network
import sound
from api import Api, Stream
from bot import Bearing, Bot, Exotel, Jambonz, Pcm16, Plivo, Telnyx, TelnyxWide, Twilio, Vonage
from echoes import Echoes
from gateway import API_KEY, Gateway
from trunklab import until
from whatsapp import Number

TOKEN, BEARER = "lab-agent-token-2f81", "lab-agent-bearer-90c4"
AUTH_TOKEN, SERVICE_KEY, MINT_KEY = "lab-auth-token-77ab", "lab-service-key-1e02", "lab-mint-key-5c39"
TALKS = {
    # path: (dialect in the file, how the bot there behaves)
    "twilio": ("twilio", Bearing(Twilio())),
    "telnyx": ("telnyx", Bearing(Telnyx())),
    "pcm16": ("pcm16", Bearing(Pcm16(16000))),
    "pcm24": ("pcm16-24000", Bearing(Pcm16(24000))),
    "echo": ("pcm16", Bearing(Pcm16(16000), echo=True)),
    "greets": (None, Bearing(Twilio(), greet=(1000, -10, 2.0))),
    "slow": ("twilio", Bearing(Twilio(), wait=1.5)),
    "no": ("twilio", Bearing(Twilio(), refuse=403)),
    "never": ("twilio", Bearing(Twilio(), wait=60)),
    "deaf": ("twilio", Bearing(Twilio(), deaf=True)),
    "leaves": ("twilio", Bearing(Twilio(), leave=0.0)),
    "telnyx16": ("telnyx-l16", Bearing(TelnyxWide())),
    "vonage": ("vonage", Bearing(Vonage(16000))),
    "jambonz": ("jambonz", Bearing(Jambonz(16000))),
    "exotel": ("exotel", Bearing(Exotel())),
    "plivo": ("plivo", Bearing(Plivo())),
    "later": ("twilio", Bearing(Twilio(), busy=(2, 503))),
    "refuses": ("twilio", Bearing(Twilio(), refuse=403)),
    "dies": ("twilio", Bearing(Twilio())),
    "vapi": ("vapi", Bearing(Pcm16(16000))),
    "echoes": ("pcm16", None),      # in a process of their own
}
# Where the call goes on if that agent fails.
GOES_ON = ["refuses", "dies", "gone"]
# Nobody is there, each in a way of its own.
NOWHERE = ["closed", "unknown", "stranger", "gone", "unpaid", "retell"]
AGENTS = {n: Number(f"1065403522433{i:02}", f"+155501005{i:02}") for i, n in enumerate([*TALKS, *NOWHERE])}
# Those where an agent must speak.
STRICT = {n: Number(f"1065403522434{i:02}", f"+155501006{i:02}") for i, n in enumerate(["mute", "mute-on"])}
CONNECT_SECONDS = 4


@pytest.fixture(scope="module")
def bot(tmp_path_factory):
    """The bots that are trusted."""
    it = Bot(network.address(16), 8443, tmp_path_factory.mktemp("bot"), {path: bearing for path, (_, bearing) in TALKS.items() if bearing})
    it.makes = {"call": (201, {"id": "1", "transport": {"websocketCallUrl": it.url("vapi")}}),
                "v2/register-phone-call": (201, {"call_id": "milliwatt"})}
    yield it.start()
    it.stop()


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A bot whose certificate nobody vouches for."""
    it = Bot(network.address(17), 8443, tmp_path_factory.mktemp("stranger"), {"twilio": Bearing(Twilio())})
    yield it.start()
    it.stop()


@pytest.fixture(scope="module")
def echoes(bot):
    """Agents that say what they hear."""
    it = Echoes(bot.address, 8444, bot.authority)
    yield it
    it.stop()


@pytest.fixture(scope="module")
def agents(cloud, pbx, bot, stranger, echoes, tmp_path_factory):
    """The gateway whose numbers lead to bots."""
    own = {}
    for path, (dialect, _) in TALKS.items():
        own[path] = {"forward_to": f'"{bot.url(path, f"?token={TOKEN}")}"', "dialect": dialect and f'"{dialect}"'}
    own["echoes"]["forward_to"] = f'"{echoes.url}"'
    own["closed"] = {"forward_to": f'"wss://{network.address(16)}:8999/twilio"'}
    own["unknown"] = {"forward_to": '"wss://bot.invalid/twilio"'}
    own["stranger"] = {"forward_to": f'"{stranger.url("twilio")}"'}
    own["gone"] = dict(own["closed"])
    for path in GOES_ON:
        own[path]["fallback_to"] = '"sip:milliwatt@pbx"'
    own["vapi"]["forward_to"] = f'"{bot.url("", "?assistantId=a-1")}"'
    own["unpaid"] = {"forward_to": f'"{stranger.url("", "?assistantId=a-1")}"', "dialect": '"vapi"'}
    own["retell"] = {"forward_to": '"sip:{minted}@pbx"', "mint_url": f'"https://{network.address(16)}:8443/v2/register-phone-call"',
                     "mint_body": """'{"agent_id": "a-1", "from_number": "{caller}"}'""", "mint_key": f'"{MINT_KEY}"',
                     "mint_field": '"/call_id"'}
    more = f"""
[agent]
dialect = "twilio"
ca_file = "{bot.authority.file}"
connect_seconds = {CONNECT_SECONDS}
headers = {{ Authorization = "Bearer {BEARER}" }}
auth_token = "{AUTH_TOKEN}"
key = "{SERVICE_KEY}"
"""
    it = Gateway(tmp_path_factory.mktemp("agents"), cloud, pbx, 6, AGENTS, trunk=("power", "power-secret-61b4"), apart=True,
                 http="allow_private = true\nrate_per_minute = 0", own=own, more=more)
    it.secrets += [TOKEN, BEARER, AUTH_TOKEN, SERVICE_KEY, MINT_KEY]
    yield it.start()
    it.stop()


@pytest.fixture(scope="module")
def strict(cloud, pbx, bot, tmp_path_factory):
    """A gateway whose agents must speak within 3 s."""
    own = {name: {"forward_to": f'"{bot.url("twilio")}"'} for name in STRICT}
    own["mute-on"]["fallback_to"] = '"sip:milliwatt@pbx"'
    more = f"""
[agent]
ca_file = "{bot.authority.file}"
silence_seconds = 3
"""
    it = Gateway(tmp_path_factory.mktemp("strict"), cloud, pbx, 4, STRICT, trunk=("gw3", "gw3-secret-77d0"), apart=True,
                 http="allow_private = true\nrate_per_minute = 0", own=own, more=more)
    yield it.start()
    it.stop()


@pytest.fixture
def api(agents):
    """Its REST API."""
    return Api(agents, API_KEY)


@pytest.fixture
def ring(agents, bot, dial):
    """Makes users who call one of the bots; the bot kept to what bots can read."""
    dial.numbers = {**AGENTS, **STRICT}
    seen = len(bot.talks)

    class Ring:
        """Calls, and the bot's end of them."""

        def __call__(self, path, **how):
            call = dial(path, **how)
            assert call.ring() == 200
            return call

        def talking(self, path, timeout=10.0, **how):
            """A call that is answered, and the bot's end."""
            at = time.time()
            call = self(path, **how)
            talk = bot.called(path, at)
            call.action("accept", timeout)
            return call, talk

    yield Ring()
    faults = [fault for talk in bot.talks[seen:] for fault in talk.faults]
    assert not faults, faults


def loud(call, above=-40.0):
    """The stretch in which the user heard something: when it began and ended (seconds since 1970), and how much of it was loud."""
    heard = call.measure()
    x = heard.decode()
    e, step = sound.envelope(x, sound.CLOCK, 0.005)
    places = np.flatnonzero(e > 10 ** (above / 20))
    if not len(places):
        return None, None, 0.0
    # When the sound's first sample came, as most packets tell: one that was late says nothing about the others.
    origin = float(np.median([packet.at - place / sound.CLOCK for packet, place in zip(heard.order, heard.places)]))

    def at(sample):
        return origin + sample / sound.CLOCK
    return at(int(places[0]) * step), at((int(places[-1]) + 1) * step), len(places) * step / sound.CLOCK


def over(agents, call, *whys, answered, word=""):
    """The record of a call that is over, which says why."""
    record = agents.record(call)
    print(f"record: {record['why']}, answered {record['answered']}: {record.get('detail', '')}")
    assert record["why"] in whys and record["answered"] is answered, record
    assert word in record["detail"], record
    return record


# The session

def test_the_call_is_accepted_once_the_agent_is_there(agents, ring):
    call, talk = ring.talking("slow")
    accepted = call.action("accept")
    talk.wait("start")
    start = talk.times("start")[0]
    print(f"pre-accepted {call.action('pre_accept') - call.rang_at:.2f} s, the session began {start - call.rang_at:.2f} s, "
          f"accepted {accepted - call.rang_at:.2f} s after it rang")
    # The agent takes 1.5 s to answer: the user's line is ready before that, and the user is connected after it.
    assert call.action("pre_accept") - call.rang_at < 1.45
    assert 1.4 < start - call.rang_at and 1.45 < accepted - call.rang_at < 4 and start < accepted + 1
    call.hang_up()


def strings(value, exempt=("sampleRate", "channels")):
    """Whether everything in a message is text, as it is at Twilio."""
    if isinstance(value, dict):
        return all(key in exempt or strings(inner) for key, inner in value.items())
    return all(map(strings, value)) if isinstance(value, list) else isinstance(value, str)


def test_the_first_messages_are_twilios(agents, ring, talk):
    call, bot = ring.talking("twilio", user="4915112340001")
    talk(1.5)
    call.press("7")
    bot.wait("dtmf")
    call.hang_up()
    bot.wait("stop")
    assert bot.closed() == 1000
    messages = [m for _, m in bot.got]
    connected, start, *_, stop = messages
    print(start)
    assert connected == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    assert start["event"] == "start" and all(map(strings, messages))
    inner = start["start"]
    assert re.fullmatch("MZ[0-9a-f]{32}", start["streamSid"]) and inner["streamSid"] == start["streamSid"]
    assert re.fullmatch("AC[0-9a-f]{32}", inner["accountSid"]) and re.fullmatch("CA[0-9a-f]{32}", inner["callSid"])
    assert inner["tracks"] == ["inbound"]
    assert inner["mediaFormat"] == {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
    own = inner["customParameters"]
    assert own["from_number"] == "+4915112340001" and own["to_number"] == AGENTS["twilio"].phone
    assert own["direction"] == "inbound" and own["channel"] == "whatsapp" and own["call_id"]
    media = bot.of("media")
    assert [m["media"]["chunk"] for m in media] == [str(i + 1) for i in range(len(media))]
    assert {len(base64.b64decode(m["media"]["payload"])) for m in media} == {160} and {m["media"]["track"] for m in media} == {"inbound"}
    stamps = [int(m["media"]["timestamp"]) for m in media]
    assert {b - a for a, b in zip(stamps, stamps[1:])} <= {20} and stamps[0] < 2000
    assert [m["sequenceNumber"] for m in messages[1:]] == [str(i + 1) for i in range(len(messages) - 1)]
    assert {m["streamSid"] for m in messages[1:]} == {start["streamSid"]}
    [digit] = bot.of("dtmf")
    assert digit["dtmf"] == {"track": "inbound_track", "digit": "7"}
    assert stop["event"] == "stop" and stop["stop"] == {"accountSid": inner["accountSid"], "callSid": inner["callSid"]}
    assert bot.query == {"token": TOKEN} and bot.headers["authorization"] == f"Bearer {BEARER}" and "sec-websocket-extensions" not in bot.headers
    assert bot.of("stop") == [stop]


def test_the_first_messages_are_telnyxs(agents, ring):
    call, bot = ring.talking("telnyx", user="4915112340002")
    start = bot.wait("start")
    print(start)
    connected = bot.got[0][1]
    assert connected["event"] == "connected" and connected["version"] == "1.0.0" and bot.got[1][1] == start
    inner = start["start"]
    assert start["stream_id"] and inner["call_control_id"] and inner["from"] == "+4915112340002" and inner["to"] == AGENTS["telnyx"].phone
    assert inner["media_format"] == {"encoding": "PCMU", "sample_rate": 8000, "channels": 1}
    bot.until(lambda: len(bot.sounds()) > 10 or None, 5, "nothing to hear")
    call.hang_up()
    bot.wait("stop")


# Sound

@pytest.mark.parametrize("path", ["twilio", "telnyx", "pcm16", "pcm24", "telnyx16", "vonage", "jambonz", "exotel", "plivo"])
def test_the_user_and_the_agent_hear_each_other(agents, ring, talk, path):
    call, bot = ring.talking(path, frames=sound.tone(700, -10))
    bot.play(1000, -10, 8)
    talk(4.5)
    call.hang_up()
    bot.closed()
    print(f"{path}, heard by the user: {call.measure().tone(1000, -10)}")
    print(f"{path}, heard by the agent: {bot.tone(700, -10)}")
    over(agents, call, "user_hung_up", answered=True)


@pytest.mark.parametrize("path, wide", [("pcm24", True), ("pcm16", True), ("telnyx16", True), ("twilio", False)])
def test_a_high_tone_passes_only_where_there_is_room_for_it(agents, ring, talk, path, wide):
    call, bot = ring.talking(path, frames=sound.tone(5000, -10))
    # What is above 4 kHz would fold down if a bot of 8 kHz tried to say it: only the others do.
    bot.play(5000 if wide else 3000, -10, 8)
    # The user's own encoder needs some seconds until it spends its bits on a tone that high.
    talk(5.5)
    call.hang_up()
    bot.closed()
    rate = bot.dialect.rate
    x, user = bot.heard()[-rate:], call.measure().steady()[-sound.CLOCK:]
    print(f"{path}: the agent heard {sound.frequency(x, rate):.1f} Hz at {sound.level(x):.1f} dBFS, "
          f"the user {sound.frequency(user, sound.CLOCK):.1f} Hz at {sound.level(user):.1f} dBFS")
    if wide:
        assert abs(sound.frequency(x, rate) - 5000) < 20 and abs(sound.level(x) + 10) < 4
        assert abs(sound.frequency(user, sound.CLOCK) - 5000) < 20 and abs(sound.level(user) + 10) < 4
    else:
        assert sound.level(x) < -35, "what does not fit must be filtered, not folded down"


@pytest.mark.parametrize("path", ["twilio", "pcm24"])
def test_sound_in_pieces_of_any_size_is_the_same(agents, ring, talk, path):
    call, bot = ring.talking(path)
    for chunk in (7, 159, 161, 65536):
        bot.play(1000, -10, 1.0, chunk=chunk)
    talk(4.6)
    call.hang_up()
    bot.closed()
    begin, end, seconds = loud(call)
    x = call.measure().decode()
    e, step = sound.envelope(x, sound.CLOCK)
    places = np.flatnonzero(e > 0.01)
    x = x[int(places[0]) * step:int(places[-1]) * step]
    purity, gap = sound.purity(x, sound.CLOCK, 1000), sound.longest_gap(x, sound.CLOCK)
    print(f"{path}: {seconds:.2f} s of {end - begin:.2f} s loud, purity {purity:.4f}, longest gap {1000 * gap:.0f} ms")
    assert abs(seconds - 4.0) < 0.1 and purity > 0.97 and gap < 0.025 + call.measure().late


def test_what_the_agent_says_before_the_user_is_there_is_held(agents, ring, talk):
    call, bot = ring.talking("greets")
    talk(3)
    call.hang_up()
    bot.closed()
    begin, end, seconds = loud(call)
    print(f"a greeting of 2 s was heard for {seconds:.2f} s, {1000 * (begin - call.accepted_at):.0f} ms after accept")
    assert abs(seconds - 2.0) < 0.1 and begin - call.accepted_at < 1


def test_a_minute_in_one_breath_is_played_in_real_time(agents, ring, talk):
    call, bot = ring.talking("pcm16")
    thread = threading.Thread(target=lambda: bot.play(1000, -10, 75, chunk=1_000_000))
    thread.start()
    talk(5)
    begun = time.time()
    call.hang_up()
    bot.closed()
    print(f"closed {time.time() - begun:.2f} s after the user hung up; " + call.measure().tone(1000, -10))
    thread.join(30)


def test_sound_comes_back_from_the_agent_without_much_delay(agents, ring, talk):
    call, bot = ring.talking("echo", frames=sound.tone(700, -10, on=0.2, off=0.8, seconds=10))
    talk(8)
    call.hang_up()
    sent = [t for t, _, at in call.peer.sent if at % 50 == 0][1:]
    heard = call.measure().rises()
    delays = [next((h - s for h in heard if 0 < h - s < 0.8), None) for s in sent[:-1]]
    delays = sorted(d for d in delays if d is not None)
    print(f"there and back: {[round(1000 * d) for d in delays]} ms")
    assert len(delays) >= 4 and delays[len(delays) // 2] < 0.25


# Marks and clear

def test_marks_are_echoed_when_they_were_played(agents, ring, talk):
    call, bot = ring.talking("twilio")
    talk(0.5)
    at = time.time()
    for name in ("a", "b", "c"):
        bot.play(1000, -10, 0.5)
        bot.mark(name)
    bot.wait("mark", 3)
    talk(0.3)
    call.hang_up()
    bot.closed()
    begin, end, seconds = loud(call)
    times = [t for t, _ in bot.marks()]
    print(f"played for {seconds:.2f} s from {begin - at:.3f} s; marks after {[round(t - at, 3) for t in times]} s")
    assert [n for _, n in bot.marks()] == ["a", "b", "c"]
    off = sorted(abs(t - (begin + 0.5 * (i + 1))) for i, t in enumerate(times))
    # One of them may be late on its way here.
    assert off[1] < 0.1 and off[2] < 0.3, f"marks are not echoed when their sound is played, but so many s beside that: {off}"


@pytest.mark.parametrize("path", ["twilio", "telnyx", "pcm24", "vonage", "jambonz", "exotel", "plivo"])
def test_a_clear_stops_within_a_frame_and_what_comes_after_it_is_played(agents, ring, talk, path):
    call, bot = ring.talking(path)
    bot.play(1000, -10, 30, chunk=1 << 14)
    bot.mark("one", "two", "three")
    talk(2)
    assert bot.marks() == []
    at = bot.clear()
    bot.wait("mark", 3)
    talk(1)
    bot.play(2000, -10, 1)
    bot.mark("four")
    bot.wait("mark", 4)
    talk(0.5)
    call.hang_up()
    bot.closed()
    echoed = [(n, round(t - at, 3)) for t, n in bot.marks()]
    heard = call.measure()
    x = heard.decode()
    e, step = sound.envelope(x, sound.CLOCK, 0.005)
    quiet = np.flatnonzero(e < 0.003)
    arrived = np.array([heard.order[max(0, int(np.searchsorted(heard.places, i * step, "right")) - 1)].at for i in quiet])
    after = quiet[arrived > at - 0.2]
    stopped = float(arrived[arrived > at - 0.2].min()) - at
    tail = x[int(after[0] + 10) * step:]            # what is heard from 50 ms after the first silence
    new = int(np.sum(sound.envelope(tail, sound.CLOCK, 0.005)[0] > 0.01)) * 0.005
    print(f"{path}: silent {1000 * stopped:.0f} ms after the clear was sent; marks {echoed}; then {sound.frequency(tail, sound.CLOCK):.1f} Hz "
          f"for {new:.2f} s")
    assert [n for n, _ in echoed] == ["one", "two", "three", "four"]
    assert all(after < 0.3 for _, after in echoed[:3])
    assert stopped < 0.15, "20 ms are one frame; the rest is what this machine and two codecs need"
    assert abs(sound.frequency(tail, sound.CLOCK) - 2000) < 20 and 0.85 < new < 1.15


# Digits, ends

@pytest.mark.parametrize("path", ["twilio", "telnyx", "pcm16", "vonage", "jambonz", "exotel", "plivo"])
def test_keys_reach_the_agent(agents, ring, talk, path):
    call, bot = ring.talking(path)
    talk(0.5)
    call.press("159*0#")
    bot.wait("dtmf", 6)
    talk(0.3)
    assert bot.digits() == list("159*0#")
    call.hang_up()
    bot.closed()


def test_a_user_who_hangs_up_ends_the_session(agents, ring, talk):
    call, bot = ring.talking("twilio")
    talk(1)
    at = time.time()
    call.hang_up()
    bot.wait("stop")
    assert bot.closed() == 1000
    print(f"closed {1000 * (bot.closed_at - at):.0f} ms after the user hung up")
    assert bot.closed_at - at < 3 and bot.got[-1][1]["event"] == "stop"
    over(agents, call, "user_hung_up", answered=True)


def test_a_user_who_gives_up_ends_the_session(agents, ring, bot):
    at = time.time()
    call = ring("slow")
    call.action("pre_accept")
    call.hang_up()
    over(agents, call, "user_gave_up", answered=False)
    time.sleep(1.5)                     # the agent has answered by now
    bot.until(lambda: all(talk.closed_at for talk in bot.talks if talk.opened_at > at) or None, 5, "a session was left open")


def test_an_agent_that_closes_its_socket_hangs_up(agents, ring, talk):
    call, bot = ring.talking("twilio")
    talk(1)
    at = bot.hang_up()
    assert call.ended() == "terminate"
    print(f"terminated {1000 * (call.ended_at - at):.0f} ms after the agent closed")
    assert call.ended_at - at < 3 and not bot.of("stop")
    over(agents, call, "far_hung_up", answered=True)


def test_an_agent_that_breaks_off_ends_the_call(agents, ring, talk):
    call, bot = ring.talking("twilio")
    talk(1)
    bot.die()
    assert call.ended() == "terminate"
    record = over(agents, call, "agent_failed", answered=True, word="the connection to the agent failed")
    assert "docs.rs" not in record["detail"] and record["agent"]["failure"] in record["detail"]


@pytest.mark.parametrize("path, word", [("no", "403"), ("never", ""), ("closed", ""), ("unknown", ""), ("stranger", ""), ("leaves", "")])
def test_an_agent_that_can_not_be_had_ends_the_call_at_meta(agents, ring, bot, path, word):
    at = time.time()
    call = ring(path)
    how = call.ended(CONNECT_SECONDS + 6)
    print(f"{path}: {call.names()} after {call.ended_at - call.rang_at:.2f} s, tried {sum(t > at for t, p, _ in bot.refused if p == path)} times")
    assert call.ended_at - call.rang_at < CONNECT_SECONDS + 2
    if path == "leaves":
        assert how in ("reject", "terminate")        # it was there for a moment: both are true
        agents.record(call)
        return
    assert "accept" not in call.names()
    assert how == ("terminate" if "pre_accept" in call.names() else "reject")
    record = over(agents, call, "far_unreachable", "far_declined", "far_no_answer", answered=False, word=word)
    assert record["detail"]


def test_a_dead_agent_is_noticed(agents, ring):
    call, bot = ring.talking("deaf")
    began = time.time()
    assert call.ended(45) == "terminate"
    print(f"ended {call.ended_at - began:.1f} s after it was answered, pings after {[round(t - bot.opened_at, 1) for t in bot.pings]} s")
    assert 15 < call.ended_at - began < 42 and len(bot.pings) >= 2
    assert all(8 < b - a < 12 for a, b in zip(bot.pings, bot.pings[1:]))
    over(agents, call, "agent_failed", answered=True, word="nothing was heard of the agent for 30 s")


def test_what_can_not_be_read_disturbs_nobody(agents, ring, talk):
    call, bot = ring.talking("twilio", frames=sound.tone(700, -10))
    other, witness = ring.talking("greets")
    for wrong in ('{"event":"media","media":{"payload":"%%%"}}', '{"event":"media"}', "{", "[]", "null", '"clear"', "\u0000", "[" * 9000,
                  '{"event":7}', '{"event":"mark"}', '{"event":"mark","mark":{"name":7}}', '{"event":"start"}', '{"event":"stop"}',
                  '{"event":"connected"}', "x" * 300_000, b"\x00" * 3333):
        bot.send(wrong)
    bot.play(1000, -10, 5)
    bot.mark("still here")
    talk(3.5)
    call.hang_up()
    other.hang_up()
    print(f"heard after all that: {call.measure().tone(1000, -10)}; heard by the agent: {bot.tone(700, -10)}")
    assert abs(loud(other)[2] - 2.0) < 0.1, f"the other call's greeting of 2 s was heard for {loud(other)[2]:.2f} s"
    over(agents, call, "user_hung_up", answered=True)
    assert witness.closed() == 1000


def test_a_message_beyond_all_measure_ends_one_call_only(agents, ring, talk):
    call, bot = ring.talking("twilio")
    other, witness = ring.talking("twilio")
    talk(0.5)
    thread = threading.Thread(target=lambda: bot.send('{"event":"media","media":{"payload":"' + "A" * 40_000_000 + '"}}'))
    thread.start()
    assert call.ended(12) == "terminate"
    thread.join(20)
    assert other.ended_at is None and not witness.closed_at
    print(f"{agents.memory():.0f} MiB")
    other.hang_up()
    assert agents.record(call)["detail"]


# Agents that fail

def goes_on(agents, call, talk, word, transferred):
    """The user hears the PBX's tone, and the record tells what became of the agent."""
    talk(2.5)
    call.hang_up()
    heard = call.measure()
    tail = heard.decode()[-int(1.5 * sound.CLOCK):]
    record = over(agents, call, "user_hung_up", answered=True, word=word)
    print(f"then the user heard {sound.frequency(tail, sound.CLOCK):.1f} Hz at {sound.level(tail):.1f} dBFS; {record['agent']}")
    assert abs(sound.frequency(tail, sound.CLOCK) - 1004) < 6 and sound.level(tail) > -8
    assert "the call went on to sip:milliwatt@pbx" in record["detail"] and record["destination"] == "sip:milliwatt@pbx"
    assert bool(record["transferred_at"]) is transferred and record["agent"]["failure"]
    return record


def test_an_agent_that_has_no_time_at_first_is_asked_again(agents, ring, bot):
    at = time.time()
    call, talk = ring.talking("later")
    knocks = [t for t, path, _ in bot.refused if path == "later" and t > at] + [talk.opened_at]
    print(f"asked after {[round(t - call.rang_at, 2) for t in knocks]} s, accepted after {call.accepted_at - call.rang_at:.2f} s")
    # A quarter of a second, then half a one, and what a connection takes to be made.
    assert len(knocks) == 3 and 0.2 < knocks[1] - knocks[0] < 1 and 0.45 < knocks[2] - knocks[1] < 1.5
    talk.until(lambda: talk.sounds() or None, 5, "the agent does not hear the user")
    call.hang_up()
    assert over(agents, call, "user_hung_up", answered=True)["agent"]["attempts"] == 3


@pytest.mark.parametrize("path, attempts, word", [("refuses", 1, "403"), ("gone", 5, "can't be reached")])
def test_a_call_whose_agent_can_not_be_had_goes_to_the_pbx(agents, ring, talk, path, attempts, word):
    call = ring(path)
    call.action("accept", 9)
    assert call.names().count("accept") == 1
    record = goes_on(agents, call, talk, word, transferred=False)
    assert record["agent"]["attempts"] == attempts and record["agent"]["first_audio_ms"] is None


def test_a_call_whose_agent_breaks_off_goes_on_at_the_pbx(agents, ring, talk):
    call, bot = ring.talking("dies")
    bot.play(500, -10, 1.0)
    talk(1.5)
    bot.die()
    record = goes_on(agents, call, talk, "the connection to the agent failed", transferred=True)
    assert record["agent"]["first_audio_ms"] < 2000 and call.names().count("accept") == 1


def test_an_agent_that_says_nothing_has_failed(strict, ring):
    call = ring("mute")
    call.action("accept")
    began = time.time()
    assert call.ended(8) == "terminate"
    print(f"ended {call.ended_at - began:.1f} s after it was answered")
    assert 2.5 < call.ended_at - began < 4.5
    over(strict, call, "agent_failed", answered=True, word="it has said nothing within 3 s")


def test_a_call_whose_agent_says_nothing_goes_on_at_the_pbx(strict, ring, talk):
    call = ring("mute-on")
    call.action("accept")
    talk(3.5)
    goes_on(strict, call, talk, "it has said nothing within 3 s", transferred=True)


def test_an_agent_that_does_not_read_misses_the_oldest_sound_and_keeps_its_call(agents, ring, talk):
    call, bot = ring.talking("pcm24", frames=sound.tone(700, -10, seconds=20))
    talk(1)
    bot.stuck()
    talk(10)
    before = len(bot.sounds())
    at = time.time()
    bot.stuck(False)
    talk(2)
    assert call.ended_at is None
    call.hang_up()
    bot.closed()
    record = over(agents, call, "user_hung_up", answered=True)
    late = [t - at for t, _ in bot.sounds()[before:]]
    print(f"{record['agent']['unread']} messages were not read; {len(late)} came in the two seconds after")
    assert record["agent"]["unread"] > 50 and len(late) > 50


def test_the_way_in_is_signed(agents, ring, bot):
    call, talk = ring.talking("twilio")
    wanted = base64.b64encode(hmac.new(AUTH_TOKEN.encode(), bot.url("twilio", f"?token={TOKEN}").encode(), hashlib.sha1).digest())
    assert talk.headers["x-twilio-signature"] == wanted.decode()
    call.hang_up()
    call, talk = ring.talking("telnyx")
    assert "x-twilio-signature" not in talk.headers
    call.hang_up()


# Services

def test_a_call_is_made_at_vapi_first(agents, ring, talk, bot):
    before = len(bot.asked)
    call, session = ring.talking("vapi", frames=sound.tone(700, -10), user="4915112340009")
    session.play(1000, -10, 6)
    talk(4)
    call.hang_up()
    session.closed()
    [(path, headers, body)] = bot.asked[before:]
    print(f"asked for {body}; the user heard {call.measure().tone(1000, -10)}; the agent {session.tone(700, -10)}")
    assert path == "call" and headers["authorization"] == f"Bearer {SERVICE_KEY}" and body["assistantId"] == "a-1"
    assert body["transport"]["provider"] == "vapi.websocket" and body["assistantOverrides"]["variableValues"]["from_number"] == "+4915112340009"


def test_a_vapi_that_can_not_be_trusted_is_not_told_the_key(agents, ring, stranger):
    call = ring("unpaid")
    assert call.ended(CONNECT_SECONDS + 6) in ("terminate", "reject")
    over(agents, call, "far_unreachable", answered=False, word="certificate")
    assert stranger.asked == []


def test_a_sip_service_makes_the_user_part_first(agents, ring, talk, bot):
    before = len(bot.asked)
    call = ring("retell", user="4915112340010")
    call.action("accept")
    talk(2)
    call.hang_up()
    [(path, headers, body)] = bot.asked[before:]
    assert headers["authorization"] == f"Bearer {MINT_KEY}" and body == {"agent_id": "a-1", "from_number": "+4915112340010"}
    tail = call.measure().decode()[-sound.CLOCK:]
    assert abs(sound.frequency(tail, sound.CLOCK) - 1004) < 6
    over(agents, call, "user_hung_up", answered=True)


def test_what_the_agent_understood_is_on_the_record_and_on_live_screens(agents, ring, talk, api):
    with Stream(api) as stream:
        call, bot = ring.talking("jambonz")
        bot.send('{"type":"transcription","data":{"text":"I would like a pizza"}}')
        bot.send('{"type":"json","data":{"mood":"hungry"}}')
        bot.play(1000, -10, 8)
        talk(1)
        bot.clear()
        talk(0.5)
        call_id = bot.wait("start")["callSid"]
        call.hang_up()
        bot.closed()
        _, live = stream.wait(lambda name, data: name == "call.transcript")
    assert live["call"]["text"] == "I would like a pizza" and live["call"]["role"] == "user"
    record = over(agents, call, "user_hung_up", answered=True)
    shown = api.until(call_id, "jambonz", "ended")
    print(record["agent"], live)
    assert [(line["who"], line["text"]) for line in record["agent"]["transcript"]] == [("user", "I would like a pizza")]
    assert record["agent"]["barge_ins"] == 1 and record["agent"]["dialect"] == "jambonz"
    assert shown["transcript"][0]["text"] == "I would like a pizza" and shown["transcript"][0]["role"] == "user"
    assert shown["agent"]["bargeIns"] == 1 and 0 <= shown["agent"]["firstAudioMs"] < 3000
    assert [event["name"] for event in shown["agentEvents"]] == ["json", "interruption"]


# REST

def rest_hang_up(api, sid, key=API_KEY, form="Status=completed"):
    """What Twilio's libraries send to end a call."""
    basic = "Basic " + base64.b64encode(f"AC{'0' * 32}:{key}".encode()).decode()
    return api.ask("POST", f"/2010-04-01/Accounts/AC{'0' * 32}/Calls/{sid}.json", raw=form.encode(),
                   headers={"Authorization": basic, "Content-Type": "application/x-www-form-urlencoded"})


@pytest.mark.parametrize("path", ["twilio", "telnyx"])
def test_an_agent_hangs_up_by_rest(agents, ring, talk, api, path):
    call, bot = ring.talking(path)
    talk(1)
    assert rest_hang_up(api, bot.call_id, key="sk_wrong").status == 401
    assert call.ended_at is None
    done = rest_hang_up(api, bot.call_id)
    print(done)
    assert done.status == 200 and done["sid"] == bot.call_id
    assert call.ended() == "terminate"
    bot.wait("stop")
    assert bot.closed() == 1000
    again = rest_hang_up(api, bot.call_id)
    assert again.status == 200 or (again.status == 404 and again["code"] == 20404), again
    nobody = rest_hang_up(api, "CA" + "0" * 32)
    assert nobody.status == 404 and nobody["code"] == 20404, nobody
    over(agents, call, "operator", answered=True)


def test_an_agent_hands_the_user_over_to_an_extension(agents, ring, talk, api, pbx):
    call, bot = ring.talking("twilio", frames=sound.tone(700, -10))
    bot.play(1000, -10, 20)
    talk(2)
    target = f"sip:other-{call.user}@pbx"
    call_id = bot.wait("start")["start"]["customParameters"]["call_id"]
    moved = api.post(f"/v1/voice/calls/{call_id}/transfer", {"to": target})
    assert moved.status == 200 and moved["transferredTo"] == target, moved
    at = time.time()
    bot.wait("stop")
    assert bot.closed() == 1000
    gone = bot.closed_at - at
    talk(4)
    call.hang_up()
    heard = call.measure()
    tail = heard.decode()[-2 * sound.CLOCK:]
    x, rate = pbx.heard(call.user)
    x = x[rate:-rate // 2]
    print(f"the agent was let go {gone:.2f} s after the request; then the user heard {sound.frequency(tail, sound.CLOCK):.1f} Hz, the extension "
          f"{sound.frequency(x, rate):.1f} Hz at {sound.level(x):.1f} dBFS; longest interval {1000 * heard.longest_interval:.0f} ms")
    assert abs(sound.frequency(tail, sound.CLOCK) - 1477) < 8 and heard.longest_interval < 0.2
    assert abs(sound.frequency(x, rate) - 700) < 7 and abs(sound.level(x) + 10) <= 3
    over(agents, call, "user_hung_up", answered=True)
    assert api.until(call_id, "twilio", "ended")["transferredAt"]


@pytest.mark.parametrize("codec", ["slin16", "ulaw"])
def test_a_real_asterisk_waits_at_its_own_websocket(agents, ring, talk, api, pbx, codec):
    call, bot = ring.talking("twilio", frames=sound.tone(700, -10))
    call_id = bot.wait("start")["start"]["customParameters"]["call_id"]
    number = f"{call.user}{len(codec)}"
    moved = api.post(f"/v1/voice/calls/{call_id}/transfer", {"to": pbx.awaits_socket(number, codec) + "?dialect=asterisk"})
    assert moved.status == 200, moved
    talk(4)
    call.hang_up()
    tail = call.measure().decode()[-2 * sound.CLOCK:]
    x, rate = pbx.heard(number)
    x = x[rate:-rate // 2]
    print(f"{codec}: the user heard {sound.frequency(tail, sound.CLOCK):.1f} Hz, Asterisk {sound.frequency(x, rate):.1f} Hz at "
          f"{sound.level(x):.1f} dBFS")
    assert abs(sound.frequency(tail, sound.CLOCK) - 1477) < 8
    assert abs(sound.frequency(x, rate) - 700) < 7 and abs(sound.level(x) + 10) <= 3
    record = over(agents, call, "user_hung_up", answered=True)
    assert record["agent"]["dialect"] == "asterisk"


# Outbound

def test_an_agent_calls_a_user_and_speaks_only_to_somebody_who_is_there(agents, bot, people, talk, api):
    person = people(answer=1.5, frames=sound.tone(700, -10))
    at = time.time()
    reply = api.post("/v1/whatsapp/calls", {"accountId": "greets", "to": "+" + person.phone})
    assert reply.status == 200 and reply["forwardTo"].startswith("wss://"), reply
    call = person.called()
    session = bot.called("greets", at)
    call.picked_up()
    start = session.wait("start")
    began = session.times("start")[0]
    talk(3.5)
    ended = api.post(f"/v1/voice/calls/{reply['callId']}/end")
    assert ended.status == 200, ended
    session.wait("stop")
    begin, end, seconds = loud(call)
    print(f"the session began {1000 * (began - call.accepted_at):.0f} ms after the user picked up; a greeting of 2 s was heard for {seconds:.2f} s, "
          f"{1000 * (begin - call.accepted_at):.0f} ms after picking up; the agent heard: {session.tone(700, -10)}")
    assert began >= call.accepted_at - 0.02 and abs(seconds - 2.0) < 0.1 and begin - call.accepted_at < 2
    own = start["start"]["customParameters"]
    assert own["direction"] == "outbound" and own["to_number"] == "+" + person.phone and own["from_number"] == AGENTS["greets"].phone


@pytest.mark.parametrize("manner, why", [({"reject": 0.6}, "user_declined"), ({"answer": None, "give_up": 1.5}, "user_no_answer")])
def test_an_agent_is_not_told_of_a_user_who_never_came(agents, bot, people, api, manner, why):
    person = people(**manner)
    at = time.time()
    reply = api.post("/v1/whatsapp/calls", {"accountId": "greets", "to": "+" + person.phone})
    assert reply.status == 200, reply
    call = person.called()
    call.finished()
    over(agents, call, why, answered=False)
    time.sleep(0.5)
    sessions = [talk for talk in bot.talks if talk.path == "greets" and talk.opened_at > at]
    bot.until(lambda: all(talk.closed_at for talk in sessions) or None, 5, "a session was left open")
    assert not any(talk.of("start") for talk in sessions), [talk.got for talk in sessions]


# Many

def test_many_calls_at_once_are_each_carried_to_their_own_agent_and_back_and_leave_nothing_behind(agents, ring, echoes, talk):
    """Each agent says what it hears, so that each user hears their own tone or somebody else's."""
    call = ring("echoes")
    call.action("accept"), talk(1), call.hang_up(), over(agents, call, "user_hung_up", answered=True)
    (_, files), memory = agents.descriptors(), []
    cost = many.Cost(gateway=agents.process.pid, agents=echoes.process.pid)
    for _ in range(2):
        at, begun = time.time(), time.monotonic()
        calls = [ring("echoes", frames=many.frames(hertz)) for hertz in many.pitches(400)]
        for call in calls:
            call.action("accept", 15)
        cost.begin()
        talk(4)
        spent = str(cost)
        for call in calls:
            call.hang_up()
        heard = sorted((s.samples() for s in echoes.sessions(at, len(calls))), key=lambda x: sound.frequency(x, 16000))
        late, gaps = lateness.worst(begun)[0], {"an agent": 0.0, "a user": 0.0}
        assert len(heard) == len(calls)
        for hertz, x, call in zip(many.pitches(400), heard, calls):
            user = call.measure()
            for who, x, rate in (("an agent", x, 16000), ("a user", user.steady(1.5), sound.CLOCK)):
                f, loud, longest = sound.frequency(x, rate), sound.level(x), sound.longest_gap(x, rate)
                gaps[who] = max(gaps[who], longest)
                assert abs(f - hertz) < 0.01 * hertz and abs(loud + 10) < 3 and longest <= 0.1 + late, f"{who} of {hertz}: {f} Hz, {loud} dBFS, {longest} s"
            record = agents.record(call)
            assert (record["why"], record["answered"]) == ("user_hung_up", True)
        until(lambda: agents.descriptors()[1] <= files + 1, 8, lambda: f"{agents.descriptors()} are open, {files} were")
        memory.append(agents.memory())
        print(f"{len(calls)} calls, {spent}; longest gap " + ", ".join(f"of {who} {1000 * gap:.0f} ms" for who, gap in gaps.items())
              + f" (the lab was {1000 * late:.0f} ms late); memory {memory[-1]:.1f} MiB")
    assert memory[1] - memory[0] <= many.GROWTH, memory
