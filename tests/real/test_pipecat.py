"""A bot made of Pipecat, unchanged: it talks to WhatsApp users through the gateway as it would through the platform it was made for."""

import time

import pytest

import lateness
import network
import sound
from framework import Pipecat
from gateway import API_KEY, Gateway
from whatsapp import Number

DIALECTS = ["twilio", "telnyx", "plivo", "exotel", "vonage"]
BOTS = {d: Number(f"1065403522434{i:02}", f"+155501006{i:02}") for i, d in enumerate(DIALECTS)}


@pytest.fixture(scope="module")
def pipecat(tmp_path_factory):
    """The bot, in a process of its own."""
    it = Pipecat(network.address(18), 8443, tmp_path_factory.mktemp("pipecat"), f"http://{network.address(6)}:8080", API_KEY)
    yield it.ready()
    it.stop()


@pytest.fixture(scope="module")
def agents(cloud, pbx, pipecat, tmp_path_factory):
    """The gateway whose numbers lead to it."""
    own = {d: {"forward_to": f'"{pipecat.url(d)}"', "dialect": f'"{d}"'} for d in DIALECTS}
    it = Gateway(tmp_path_factory.mktemp("agents"), cloud, pbx, 6, BOTS, trunk=("power", "power-secret-61b4"), apart=True,
                 http="allow_private = true\nrate_per_minute = 0", own=own, more=f'\n[agent]\nca_file = "{pipecat.authority.file}"\n')
    yield it.start()
    it.stop()


@pytest.fixture
def talking(agents, pipecat, dial):
    """A user whom the bot has answered, and the bot's word of it."""
    dial.numbers = BOTS

    def talking(dialect):
        at = time.time()
        call = dial(dialect, frames=sound.tone(700, -10))
        assert call.ring() == 200
        said = pipecat.wait(lambda: pipecat.of("call", at))[0]
        call.action("accept")
        return call, said
    return talking


@pytest.mark.parametrize("dialect", DIALECTS)
def test_pipecat_and_a_user_hear_each_other_and_the_user_interrupts(agents, pipecat, talking, talk, dialect):
    call, said = talking(dialect)
    talk(3.5)
    at = time.time()
    call.press("*")
    assert pipecat.wait(lambda: pipecat.of("key", at))[0]["key"] == "*"
    talk(2.5)
    call.hang_up()
    heard = call.measure()
    x, rate = pipecat.heard(said)
    middle = x[rate:3 * rate]
    f, level, gap = sound.frequency(middle, rate), sound.level(middle), sound.longest_gap(middle, rate)
    pcm = heard.decode()
    user = pcm[sound.CLOCK:3 * sound.CLOCK]
    print(f"{dialect}: the bot heard {f:.1f} Hz at {level:.1f} dBFS, gap {1000 * gap:.0f} ms; the user {sound.frequency(user, sound.CLOCK):.1f} Hz "
          f"at {sound.level(user):.1f} dBFS, gap {1000 * sound.longest_gap(user, sound.CLOCK):.0f} ms")
    assert said["kind"] == dialect
    if dialect == "twilio":
        assert said["data"]["from_number"] == "+" + call.user and said["data"]["to_number"] == BOTS[dialect].phone
    assert abs(f - 700) < 7 and abs(level + 10) < 3 and gap <= 0.04 + lateness.allowance(call.made)
    assert abs(sound.frequency(user, sound.CLOCK) - 1000) < 10 and abs(sound.level(user) + 10) < 3
    # What the bot says comes out of a program of its own, which paces it as well as it can.
    assert sound.longest_gap(user, sound.CLOCK) <= 0.06
    silence = sound.level(pcm[-int(0.9 * sound.CLOCK):])
    print(f"after the interruption: {silence:.1f} dBFS")
    assert silence < -50, "the bot was still heard after it had been interrupted"


def test_pipecat_ends_the_call_by_rest(agents, pipecat, talking, talk):
    call, said = talking("twilio")
    talk(1)
    call.press("#")
    assert call.ended() == "terminate"
    pipecat.wait(lambda: [t for t in pipecat.told if t["what"] == "over" and t["file"] == said["file"]])
    log = pipecat._log.read_text(errors="replace")
    assert "Successfully terminated Twilio call " + said["data"]["call_id"] in log, log[-2000:]
    record = agents.record(call)
    print(f"record: {record['why']}: {record['detail']}")
    assert record["answered"] is True and record["why"] in ("operator", "far_hung_up")
