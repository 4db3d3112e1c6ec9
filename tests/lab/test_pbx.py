"""The PBX of the lab does what the tests of the gateway rely on. A plain SIP caller drives it."""

import numpy as np
import pytest

import asterisk
import network
import sound
from caller import Callee, Caller


@pytest.fixture(scope="module")
def pbx():
    it = asterisk.Asterisk(network.address(10), [
        asterisk.trunk("gw", "gw-secret", network.address(2)),
        asterisk.trunk("gw256", "gw256-secret", network.address(3), sha256=True),
    ], name="proof")
    yield it.start()
    it.stop()


@pytest.fixture
def caller(pbx):
    c = Caller(network.address(2), pbx.address, "gw", "gw-secret")
    yield c
    c.close()


def heard(c):
    return sound.from_g711(0, b"".join(c.heard))


def test_it_registers_a_trunk_by_md5_and_by_sha_256_only_where_asked(pbx, caller):
    assert caller.register() == 200
    assert pbx.contact("gw") == f"sip:gw@{network.address(2)}:5060"
    c = Caller(network.address(3), pbx.address, "gw256", "gw256-secret")
    assert c.register() == 200 and c.algorithm == "SHA-256"
    c.password = "wrong"
    assert c.register() == 401
    c.close()


def test_it_echoes_and_writes_down_who_called(pbx, caller):
    code, _ = caller.invite("echo", "+4915199", "Ada L", "X-WhatsApp-Call-ID: wacid.x=\r\nX-WhatsApp-Payload: a b\r\n")
    assert code == 200
    caller.talk(2)
    assert caller.bye() == 200
    x = heard(caller)[8000:]
    assert abs(sound.frequency(x, 8000) - 700) < 5 and abs(sound.level(x) + 10) < 1
    seen = pbx.said("SEEN")[-1]
    assert (seen["num"], seen["name"], seen["call"], seen["payload"]) == ("+4915199", "Ada L", "wacid.x=", "a b")


@pytest.mark.parametrize("extension", ["milliwatt", "via-milliwatt"])
def test_its_milliwatt_is_1004_hz_at_a_known_level(pbx, caller, extension):
    assert caller.invite(extension)[0] == 200
    caller.talk(2)
    caller.bye()
    x = heard(caller)[4000:]
    print(f"{extension}: {sound.frequency(x, 8000):.2f} Hz, {sound.level(x):.2f} dBFS, gap {sound.longest_gap(x, 8000):.3f} s")
    assert abs(sound.frequency(x, 8000) - 1004) < 3
    assert abs(sound.level(x) - asterisk.MILLIWATT_DBFS) < 0.5


def test_it_records_what_it_hears_while_it_plays(pbx, caller):
    assert caller.invite("record", "4915777")[0] == 200
    caller.talk(3)
    caller.bye()
    x, rate = pbx.heard("4915777")
    x = x[rate:2 * rate]
    print(f"recorded at {rate}: {sound.frequency(x, rate):.1f} Hz {sound.level(x):.1f} dBFS")
    assert abs(sound.frequency(x, rate) - 700) < 5 and abs(sound.level(x) + 10) < 1
    assert abs(sound.frequency(heard(caller)[8000:], 8000) - 1004) < 3


@pytest.mark.parametrize("extension, code", [
    ("busy", 486), ("declined", 603), ("nobody", 404), ("nosuch", 404), ("broken", 503), ("via-busy", 486),
])
def test_it_refuses(pbx, caller, extension, code):
    assert caller.invite(extension)[0] == code


def test_it_rings_then_answers(pbx, caller):
    code, seen = caller.invite("late")
    caller.bye()
    assert code == 200 and 180 in seen


def test_it_gives_early_media_then_answers(pbx, caller):
    code, seen = caller.invite("early")
    caller.bye()
    assert code == 200 and 183 in seen


def test_it_reads_keys(pbx, caller):
    assert caller.invite("digits", "4915888")[0] == 200
    caller.talk(1.5, keys="159#")
    caller.bye()
    channel = [s for s in pbx.said("SEEN") if s["num"] == "4915888"][-1]["chan"]
    print(pbx.digits(channel), pbx.said("READ"))
    assert [d for d, _ in pbx.digits(channel)] == list("159#")
    assert [r["keys"] for r in pbx.said("READ") if r["num"] == "4915888"] == ["159"]
    assert np.all([80 <= ms <= 120 for _, ms in pbx.digits(channel)])


def test_it_hangs_up_by_itself(pbx, caller):
    assert caller.invite("short")[0] == 200
    caller.talk(3.2)
    assert any(caller.sip.recv(2000).startswith(b"BYE ") for _ in range(5)), "only other things came"


def test_it_dials_out_through_a_trunk_and_writes_down_what_became_of_it(pbx):
    gateway = Callee(network.address(3), pbx.address, "gw256", "gw256-secret")
    try:
        assert gateway.register() == 200
        pbx.dial("4915100001", "gw256")
        assert pbx.answer("4915100001")[0] == 486
        done = pbx.done("4915100001")
        assert (done["status"], done["cause"]) == ("BUSY", "17")
        assert pbx.answer("4915100001")[2]["warning"] == '399 lab "over the limit"'
        pbx.dial("4915100002", "gw256")
        assert pbx.answer("4915100002", 180)
        assert pbx.state("4915100002") == "Ringing"
        pbx.gives_up("4915100002")
        assert pbx.answer("4915100002")[0] == 487
        pbx.done("4915100002")
        pbx.dial("4915100003", "gw256")
        assert pbx.answer("4915100003")[0] == 200
        gateway.talk(2)
        gateway.bye()
        assert pbx.done("4915100003")["status"] == "ANSWER"
        x, rate = pbx.heard("4915100003")
        assert abs(sound.frequency(x[rate // 2:], rate) - 700) < 5
        assert abs(sound.frequency(heard(gateway)[8000:], 8000) - 1004) < 3
    finally:
        gateway.close()
