"""Several trunks: who is asked first, who next, and what becomes of calls when a PBX dies."""

import time

import pytest

import network
import sound
from byhand import HandPbx
from gateway import section
from trunklab import SECOND, SECRET, TrunkPbx, tone, until, why
from voice import Voice

FIRST = network.address(24)
ONE, TWO, THREE = network.address(27), network.address(28), network.address(29)


@pytest.fixture
def pair(authority):
    """Two real PBXs by the recipe; each can be killed. The second takes the newer digest only."""
    pbxs = [TrunkPbx(FIRST, "first", authority.issue("first", FIRST), []),
            TrunkPbx(SECOND, "second", authority.issue("second", SECOND), [],
                     {"; default_auth_algorithms_uas = SHA-256,MD5": "default_auth_algorithms_uas = SHA-256"})]
    for it in pbxs:
        it.start()
    yield pbxs
    for it in pbxs:
        it.stop()


def site(transport, **keys):
    """Both as one group; the first is asked first."""
    return [section(name, f"sip:{at}:5060;transport={transport}", username="whatsapp", password=SECRET, register=True, group="site",
                    priority=n, **keys)
            for n, (name, at) in enumerate((("first", FIRST), ("second", SECOND)))]


def to_site(user):
    """A number whose calls go to the group."""
    return {"forward_to": f"sip:{user}@site", "trunk": "first"}


def saw(pbx, call):
    """What a PBX wrote down about a call, None if it did not see it."""
    return next((line for line in pbx.said("SEEN") if line["call"] == call.id), None)


@pytest.mark.parametrize("transport, codecs", [("udp", ["pcma"]), ("udp", None), ("tcp", None)], ids=["UDP", "UDP, but the INVITE is large", "TCP"])
def test_a_pbx_that_is_killed_while_it_rings_does_not_cost_the_call(boxes, rings, talk, pair, transport, codecs):
    first, second = pair
    box = boxes(37, site(transport, codecs=codecs), {"late": to_site("late"), "echo": to_site("echo")}, ring_seconds=15)
    call = rings(box, "late", answered=False, frames=sound.tone(700, -10))
    until(lambda: saw(first, call), 5, "the first PBX was not rung")
    talk(0.7)
    first.kill()
    at = time.time()
    answered = call.action("accept", 30)
    talk(2.5)
    call.hang_up()
    assert saw(second, call), "the second PBX never saw it"
    print(f"{transport}: answered by the second PBX {answered - at:.1f} s after the first was killed; {tone(call, 700, -10)}")
    assert answered - at < 2 + 12
    record = box.record(call)
    assert (record["why"], record["answered"]) == ("user_hung_up", True)
    # Who comes now does not wait for the dead.
    call = rings(box, "echo", frames=sound.tone(700, -10))
    print(f"the next call was answered {call.accepted_at - call.rang_at:.2f} s after it rang")
    assert call.accepted_at - call.rang_at < 3
    call.hang_up()


def test_a_pbx_that_is_killed_within_a_call_ends_it_and_the_next_goes_elsewhere(boxes, rings, talk, pair):
    first, second = pair
    box = boxes(37, site("udp", silence_seconds=5), {"echo": to_site("echo")})
    call = rings(box, "echo", frames=sound.tone(700, -10))
    talk(1.5)
    assert saw(first, call)
    first.kill()
    at = time.time()
    new = rings(box, "echo", frames=sound.tone(900, -10))
    print(f"a new call was answered after {new.accepted_at - new.rang_at:.2f} s")
    assert saw(second, new) and new.accepted_at - new.rang_at < 6
    assert call.ended(12) == "terminate"
    record = box.record(call)
    print(f"the old call ended {call.ended_at - at:.1f} s after the PBX was killed: {record['why']}, {record.get('detail')}")
    assert call.ended_at - at < 8 and record["why"] == "far_silent" and record["answered"] is True
    talk(1.5)
    new.hang_up()
    print("the new one: " + tone(new, 900, -10))


def test_a_pbx_that_comes_back_is_registered_within_its_back_off_and_used_again(boxes, rings, talk, pair):
    first, second = pair
    box = boxes(37, site("tcp"), {"echo": to_site("echo")})
    assert first.contact("whatsapp") and second.contact("whatsapp")
    proofs = [text for way, text in second.messages() if way == "in" and text.startswith("REGISTER") and "\nAuthorization:" in text]
    assert proofs and all("algorithm=SHA-256" in text for text in proofs), proofs
    first.kill()
    down = time.time()
    trunk = lambda: next(t for t in box.api.get("/v1/trunks")["trunks"] if t["name"] == "first")     # noqa: E731
    until(lambda: trunk()["state"] == "failed", 10, lambda: f"the death was not noticed: {trunk()}")
    print(f"noticed after {time.time() - down:.1f} s")
    call = rings(box, "echo")
    assert saw(second, call) and call.accepted_at - call.rang_at < 2
    call.hang_up()
    (first.run / "astdb.sqlite3").unlink()      # it has forgotten who was registered
    first.start()
    up = time.time()
    until(lambda: first.contact("whatsapp"), 20, lambda: f"it did not register again: {trunk()}")
    print(f"registered again {time.time() - up:.1f} s after the PBX was back")
    until(lambda: trunk()["state"] == "registered", 5, "the gateway does not know it")
    call = rings(box, "echo", frames=sound.tone(700, -10))
    talk(2)
    call.hang_up()
    assert saw(first, call)
    print(tone(call, 700, -10, skip=0.5))


@pytest.fixture
def hands():
    """Three PBXs that are played by hand."""
    with HandPbx(ONE) as one, HandPbx(TWO) as two, HandPbx(THREE) as three:
        yield one, two, three


def group(*keys):
    """Trunks of one group by hand, with these keys."""
    return [section(f"t{n}", f"sip:{at}:5060", register=False, group="site", codecs=["pcma"], **more)
            for n, (at, more) in enumerate(zip((ONE, TWO, THREE), keys))]


X = {"x": {"forward_to": "sip:someone@site", "trunk": "t0"}}


def test_a_pbx_that_says_it_can_not_is_passed_over_and_one_that_says_no_is_believed(boxes, rings, hands, talk):
    one, two, three = hands
    box = boxes(37, group({"priority": 1}, {"priority": 2}, {"priority": 3}), X)
    for code in (500, 503):
        call = rings(box, "x", answered=False)
        one.rung().reply(code)
        line = two.rung()
        line.pick_up(Voice(TWO))
        call.action("accept")
        line.bye()
        call.ended()
    call = rings(box, "x", answered=False)
    one.rung().reply(503)
    two.rung().reply(500)
    line = three.rung()
    print(f"the third was rung {time.time() - call.rang_at:.2f} s after the user called")
    line.pick_up(Voice(THREE))
    call.action("accept")
    line.bye()
    call.ended()
    for code, word in ((486, "far_busy"), (603, "far_declined"), (404, "far_unreachable")):
        call = rings(box, "x", answered=False)
        one.rung().reply(code)
        call.ended()
        assert why(box, call) == word
    assert len(two.requests("INVITE")) == 3, "somebody was rung who should not have been"


def test_a_pbx_that_says_nothing_is_passed_over_within_seconds(boxes, rings, hands):
    one, two, _ = hands
    box = boxes(37, group({"priority": 1}, {"priority": 2}), X, ring_seconds=15)
    one.silent = True
    call = rings(box, "x", answered=False)
    line = two.rung(15)
    waited = time.time() - call.rang_at
    print(f"the second was rung after {waited:.1f} s; the first had {len(one.requests('INVITE'))} INVITEs")
    assert waited < 8
    line.pick_up(Voice(TWO))
    call.action("accept")
    line.bye()
    call.ended()


def test_all_refuse_and_the_user_is_told_once(boxes, rings, hands):
    one, two, _ = hands
    box = boxes(37, group({"priority": 1}, {"priority": 2}), X)
    call = rings(box, "x", answered=False)
    one.rung().reply(503)
    two.rung().reply(503)
    assert call.ended(5) in ("reject", "terminate")
    record = box.record(call)
    print(f"{record['why']}: {record.get('detail')}")
    assert record["why"] == "far_unreachable" and not record["answered"]
    assert call.names().count("terminate") + call.names().count("reject") == 1


def test_calls_are_shared_by_weight(boxes, rings, hands):
    box = boxes(37, group({"weight": 30}, {"weight": 10}, {"weight": 0}), X, max_calls=100)
    for _ in range(48):
        rings(box, "x", answered=False)
    until(lambda: sum(len(pbx.lines) for pbx in hands) >= 48, 10, "not all were rung")
    share = [len(pbx.lines) for pbx in hands]
    for pbx in hands:
        for line in list(pbx.lines.values()):
            line.reply(486)
    print(f"48 calls to weights 30, 10, 0: {share}")
    assert 27 <= share[0] <= 45 and 3 <= share[1] <= 21 and share[2] <= 2


def test_each_trunk_registers_on_its_own(boxes, hands):
    one, two, three = hands
    two.registrar = lambda request: (403, [])
    three.registrar = lambda request: (None, [])        # no answer at all
    trunks = [section(f"t{n}", f"sip:{at}:5060", username=f"u{n}", password=f"pw-trunk-{n}", register=True) for n, at in enumerate((ONE, TWO, THREE))]
    box = boxes(37, trunks, {"x": "a@t0"}, ready=False)
    box.start_unready()
    states = lambda: {t["name"]: t["state"] for t in box.api.get("/v1/trunks")["trunks"]}       # noqa: E731
    until(lambda: states()["t0"] == "registered" and states()["t1"] == "failed", 5, lambda: f"{states()}")
    print(states())
    assert states()["t2"] in ("trying", "failed")
    assert len(two.requests("REGISTER")) <= 2


def test_a_pbx_that_dies_in_a_call_is_noticed_by_its_silence(boxes, hands, rings, talk):
    """OPTIONS are usually sent twice a minute, and waited for half a minute. A PBX that only says nothing for a while is not dead."""
    one, two, _ = hands
    box = boxes(37, [section("dies", one.uri(), register=False, codecs=["pcma"]), section("mute", two.uri(), register=False, codecs=["pcma"])],
                {"x": "a@dies", "y": "a@mute"})
    lines = []
    for name, hand in (("x", one), ("y", two)):
        call = rings(box, name, answered=False)
        lines.append(hand.rung(call=call))
        lines[-1].pick_up(Voice(hand.address, codecs=["pcma"]))
        call.action("accept")
    talk(1)
    one.silent = True
    for line in lines:
        line.voice.muted = True
    at = time.time()
    trunks = lambda: {t["name"]: t for t in box.api.get("/v1/trunks")["trunks"]}     # noqa: E731
    until(lambda: not trunks()["dies"]["up"], 25, lambda: f"it was not noticed: {trunks()}")
    print(f"noticed after {time.time() - at:.1f} s: {trunks()['dies']['why']}; the other: {trunks()['mute']['state']}")
    talk(1)
    assert trunks()["mute"]["up"]
    assert not any(line.came("BYE") for line in lines), "a call was ended by it"
    lines[1].bye()


def test_only_what_a_trunk_may_dial_is_dialled_and_not_too_often(boxes, hands, users):
    one, two, _ = hands
    box = boxes(37, [section("t0", f"sip:{ONE}:5060", register=False, dial_allow=["+4917"], dial_per_minute=3),
                     section("t1", f"sip:{TWO}:5060", register=False, dial_per_day=2)],
                {"x": {"forward_to": "sip:a@t0", "trunk": "t0"}, "y": {"forward_to": "sip:a@t1", "trunk": "t1"}})

    def dial(pbx, phone):
        line = pbx.dial(pbx.towards((box.address, 5060)), f"sip:+{phone}@{box.address}", Voice(pbx.address))
        return line.final().code
    abroad = users(phone="4315551234", reject=0.1)
    assert dial(one, abroad.phone) == 403 and not abroad.attempts
    people = [users(reject=0.1) for _ in range(5)]
    minute = [dial(one, person.phone) for person in people]
    day = [dial(two, person.phone) for person in [users(reject=0.1) for _ in range(3)]]
    print(f"three a minute: {minute}; two a day: {day}")
    assert minute[:3] == [603] * 3 and not any(code == 603 for code in minute[3:]) and [bool(p.attempts) for p in people] == [True] * 3 + [False] * 2
    assert day[:2] == [603] * 2 and day[2] != 603
    until(lambda: len(box.records()) >= 5, 8, "the calls are not in the history")
    box.kill()
    box.start()
    person = users(reject=0.1)
    assert dial(two, person.phone) == 486 and not person.attempts, "a power cut gave it another day"
