"""Cloud services with a protocol of their own, as far as their makers document it: a user talks to each, in the right order of
messages and in a wrong one, is handed over by a tool, and learns nothing of a key."""

import time

import pytest

import network
import sound
from bot import Bearing, Bot
from gateway import Gateway
from services import Deepgram, ElevenLabs, OpenAi
from whatsapp import Number

KINDS = {"openai": OpenAi, "deepgram": Deepgram, "elevenlabs": ElevenLabs}
ORDERS = ["right", "wrong", "refused", "failing"]
KEYS = {kind: f"lab-{kind}-key-4d1e" for kind in KINDS}
PATHS = [f"{kind}-{order}" for kind in KINDS for order in ORDERS]
NUMBERS = {path: Number(f"1065403522435{i:02}", f"+155501007{i:02}") for i, path in enumerate(PATHS)}
SIGNED = "v1/convai/conversation/get-signed-url"


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    """All of them, at one address."""
    bearings = {path: Bearing(KINDS[path.split("-")[0]](path.split("-")[1])) for path in PATHS}
    it = Bot(network.address(16), 8444, tmp_path_factory.mktemp("services"), bearings)
    yield it.start()
    it.stop()


@pytest.fixture(scope="module")
def box(cloud, pbx, services, tmp_path_factory):
    """The gateway whose numbers lead to services, each with a key of its own."""
    own = {}
    for path in PATHS:
        kind = path.split("-")[0]
        own[path] = {"forward_to": f'"{services.url(path, "?agent_id=a%20b" if kind == "elevenlabs" else "")}"', "dialect": f'"{kind}"',
                     "agent_key": f'"{KEYS[kind]}"', "trunk": '"pbx"'}
    more = f"""
[agent]
ca_file = "{services.authority.file}"
key = "lab-nobodys-key-0000"
"""
    it = Gateway(tmp_path_factory.mktemp("services"), cloud, pbx, 6, NUMBERS, trunk=("power", "power-secret-61b4"), apart=True,
                 http="allow_private = true\nrate_per_minute = 0", own=own, more=more)
    it.secrets += [*KEYS.values(), "lab-nobodys-key-0000"]
    yield it.start()
    it.stop()


@pytest.fixture
def talking(box, services, dial):
    """Makes a user who has called a service and was connected, and the service's end; the box kept to what a service can read."""
    dial.numbers = NUMBERS
    seen = len(services.talks)

    def talking(path, **how):
        at, kind = time.time(), path.split("-")[0]
        services.makes = {SIGNED: (200, {"signed_url": services.url(path, "?signature=s")})} if kind == "elevenlabs" else {}
        call = dial(path, **how)
        assert call.ring() == 200
        session = services.called(path, at)
        call.action("accept", 12)
        return call, session

    yield talking
    faults = [fault for session in services.talks[seen:] for fault in session.faults]
    assert not faults, faults


@pytest.mark.parametrize("kind", KINDS)
def test_the_user_and_the_service_hear_each_other(box, talking, talk, services, kind):
    asked = len(services.asked)
    call, session = talking(f"{kind}-right", frames=sound.tone(700, -10))
    session.send(session.dialect.line("Good morning"))
    session.play(1000, -10, 30)
    talk(4)
    call.press("5")                 # for as long as it lasts there is no sound
    session.wait(session.dialect.digits)
    cleared = session.clear()
    talk(1.5)
    call.hang_up()
    session.closed()
    heard = call.measure()
    tail = heard.decode()[-int(0.5 * sound.CLOCK):]
    record = box.record(call)
    print(f"{kind}: the service hears {session.tone(700, -10, gap=0.15)}; cut off at {cleared - call.accepted_at:.1f} s, after which the user hears "
          f"{sound.level(tail):.0f} dBFS; key: {session.dialect.digit(session.of(session.dialect.digits)[-1])!r}; {record['agent']}")
    first = heard.decode()[int(1.0 * sound.CLOCK):int(3.0 * sound.CLOCK)]
    assert abs(sound.frequency(first, sound.CLOCK) - 1000) < 6 and abs(sound.level(first) + 10) < 2
    assert sound.level(tail) < -40, "the user still hears what was cut off"
    assert "5" in session.dialect.digit(session.of(session.dialect.digits)[-1])
    assert record["agent"]["barge_ins"] == 1 and [line["text"] for line in record["agent"]["transcript"]] == ["Good morning"]
    if kind == "elevenlabs":
        [(_, headers, query)] = services.asked[asked:]
        assert headers["xi-api-key"] == KEYS[kind] and query == {"agent_id": "a b"}
        assert session.query == {"signature": "s"} and [m["event_id"] for m in session.of("pong")] == [1]
    else:
        assert session.headers["authorization"] == {"openai": "Bearer ", "deepgram": "Token "}[kind] + KEYS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_in_a_wrong_order_does_no_harm(box, talking, talk, kind):
    call, session = talking(f"{kind}-wrong", frames=sound.tone(700, -10))
    session.wait("start")
    session.play(1000, -10, 6)
    talk(3.5)
    call.hang_up()
    session.closed()
    tail = call.measure().decode()[-int(1.5 * sound.CLOCK):]
    print(f"{kind}: the service hears {session.tone(700, -10)}; the user {sound.frequency(tail, sound.CLOCK):.1f} Hz at {sound.level(tail):.1f} dBFS")
    assert abs(sound.frequency(tail, sound.CLOCK) - 1000) < 6
    assert box.record(call)["why"] == "user_hung_up"


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_that_the_service_refuses_is_no_call(box, services, dial, kind):
    path = f"{kind}-refused"
    dial.numbers = NUMBERS
    services.makes = {SIGNED: (200, {"signed_url": services.url(path)})} if kind == "elevenlabs" else {}
    call = dial(path)
    assert call.ring() == 200
    assert call.ended(15) in ("terminate", "reject")
    record = box.record(call)
    print(f"{kind}: {record['why']}: {record['detail']}")
    assert record["why"] == "far_unreachable" and not record["answered"]
    assert ("mp3_44100" if kind == "elevenlabs" else "No such voice") in record["detail"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_service_in_trouble_says_so_on_the_record_and_the_call_goes_on(box, talking, talk, kind):
    call, session = talking(f"{kind}-failing", frames=sound.tone(700, -10))
    talk(2.5)
    call.hang_up()
    session.closed()
    record = box.record(call)
    print(f"{kind}: {record['agent']['events']}; the service hears {session.tone(700, -10)}")
    assert any("You exceeded your current quota" in noted["detail"] for noted in record["agent"]["events"])
    assert record["why"] == "user_hung_up"


@pytest.mark.parametrize("kind", KINDS)
def test_a_tool_hands_the_user_over_to_an_extension_of_the_pbx(box, talking, talk, kind):
    call, session = talking(f"{kind}-right", frames=sound.tone(700, -10))
    session.play(1500, -10, 1)
    session.send(session.dialect.tool("transfer_call", {"to": "sip:milliwatt@pbx"}))
    session.closed(12)
    talk(3)
    call.hang_up()
    tail = call.measure().decode()[-sound.CLOCK:]
    record = box.record(call)
    print(f"{kind}: then the user hears {sound.frequency(tail, sound.CLOCK):.1f} Hz at {sound.level(tail):.1f} dBFS; {record['destination']}")
    assert abs(sound.frequency(tail, sound.CLOCK) - 1004) < 6
    assert record["destination"] == "sip:milliwatt@pbx" and record["why"] == "user_hung_up"


@pytest.mark.parametrize("kind", KINDS)
def test_a_tool_that_ends_the_call_lets_the_service_finish_its_goodbye(box, talking, talk, kind):
    call, session = talking(f"{kind}-right", frames=sound.tone(700, -10))
    session.play(1000, -10, 2)
    session.send(session.dialect.tool("end_call", {}))
    call.ended(10)
    heard = call.measure().decode()
    spoken = sound.level(heard), (sound.envelope(heard, sound.CLOCK, 0.02)[0] > 0.1).sum() * 0.02
    record = box.record(call)
    print(f"{kind}: heard {spoken[1]:.2f} s of the goodbye's 2 s; {record['why']}: {record['detail']}")
    assert 1.85 < spoken[1] < 2.15 and record["why"] == "far_hung_up"
