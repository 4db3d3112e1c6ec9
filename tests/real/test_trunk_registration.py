"""A trunk registers, stays registered and comes back: at a real Asterisk, and at a PBX that is played by hand."""

import pytest

import sound
from byhand import HandPbx, challenge, prove, proven
from gateway import section
from trunklab import HAND, PBX, SECRET, tone, until, why
from voice import Voice


def registers(pbx, again=False):
    """When REGISTERs arrived, seconds since 1970; `again`: also those that were sent again because the answer was late."""
    return [m.at for m in pbx.requests("REGISTER", again=again)]


def test_a_trunk_made_by_the_recipe_registers_and_carries_a_call(boxes, rings, talk, seen, trunk_pbx):
    name = "whatsapp"
    trunk = section("pbx", f"sip:{PBX}:5060;transport=udp", username=name, password=SECRET, register=True)
    box = boxes(31, [trunk], {"echo": "echo@pbx"})
    contact = until(lambda: trunk_pbx.contact(name), 10, "nothing was registered")
    call = rings(box, "echo", frames=sound.tone(700, -10))
    talk(2.5)
    call.hang_up()
    line = seen(call)
    assert line["chan"].startswith(f"PJSIP/{name}-")
    asked = [text for way, text in trunk_pbx.messages() if way == "in" and text.startswith("REGISTER") and f'username="{name}"' in text]
    assert asked and all("algorithm=MD5" in text.replace('"', "") for text in asked)
    print(f"{name} at {contact}: " + tone(call, 700, -10))
    assert why(box, call) == "user_hung_up"
    box.stop()
    until(lambda: trunk_pbx.contact(name) is None, 10, "the registration was not taken back at the end")


@pytest.fixture
def hand():
    """A PBX that is played by hand."""
    with HandPbx(HAND) as it:
        yield it


def registering(boxes, hand, ready=True, **keys):
    """A gateway whose one trunk registers at the PBX by hand."""
    trunk = section("hand", hand.uri(), username="gw", password="pw-by-hand-4c", register=True, **keys)
    boxes.end(31)               # it takes its registration back, which is not what is looked at here
    hand.seen.clear()
    box = boxes(31, [trunk], {"x": "someone@hand"}, ready=ready)
    if not ready:
        box.start_unready()
    return box


def state(box):
    """What the gateway says of its trunk."""
    return box.api.get("/v1/trunks")["trunks"][0]


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_a_digest_is_right_and_its_nonce_counted(boxes, hand, algorithm):
    def registrar(request):
        return (200, []) if proven(request, "pw-by-hand-4c") else (401, [challenge(nonce="n1", algorithm=algorithm)])
    hand.registrar = registrar
    box = registering(boxes, hand)
    asked = hand.requests("REGISTER")
    print(f"{[m.get('authorization') for m in asked]}")
    assert len(asked) == 2 and asked[0].cseq[0] + 1 == asked[1].cseq[0] and asked[0].get("call-id") == asked[1].get("call-id")
    assert "nc=00000001" in asked[1].get("authorization") and state(box)["state"] == "registered"


def test_the_strongest_digest_is_taken_of_several(boxes, hand):
    def registrar(request):
        return (200, []) if proven(request, "pw-by-hand-4c") else (401, [challenge(algorithm="SHA-256"), challenge(algorithm="MD5")])
    hand.registrar = registrar
    registering(boxes, hand)
    assert "SHA-256" in hand.requests("REGISTER")[-1].get("authorization")


def test_a_nonce_that_has_grown_old_is_exchanged_without_a_failure(boxes, hand, talk):
    nonces = iter("ab")
    now = [next(nonces)]

    def registrar(request):
        if proven(request, "pw-by-hand-4c") and f'nonce="{now[0]}"' in request.get("authorization"):
            return 200, [f"Contact: {request.get('contact')};expires=20"]
        return 401, [challenge(nonce=now[0], more=", stale=true" if request.get("authorization") else "")]
    hand.registrar = registrar
    box = registering(boxes, hand, expires=20)
    now[0] = next(nonces)
    until(lambda: len(hand.requests("REGISTER")) >= 4, 25, "no refresh")
    until(lambda: state(box)["state"] == "registered", 5, lambda: f"{state(box)}")
    assert not any("WARN" in line for line in box.out + box.err if "regist" in line)
    at = registers(hand)
    print(f"refreshed {at[2] - at[1]:.1f} s after a registration for 20 s")
    assert at[2] - at[1] < 20


def test_a_registrar_that_always_asks_again_is_not_asked_for_ever(boxes, hand, talk):
    hand.registrar = lambda request: (401, [challenge()])
    box = registering(boxes, hand, ready=False)
    until(lambda: state(box)["state"] == "failed", 15, lambda: f"{state(box)}")
    talk(5)
    print(f"{len(registers(hand))} REGISTERs in 5 s; {state(box)}")
    assert len(registers(hand)) <= 8
    assert "401" in str(state(box))


def test_a_lifetime_that_the_registrar_finds_too_short_is_made_longer(boxes, hand):
    hand.registrar = lambda request: (200, []) if int(request.get("expires")) >= 120 else (423, ["Min-Expires: 120"])
    registering(boxes, hand, expires=60)
    assert [m.get("expires") for m in hand.requests("REGISTER")] == ["60", "120"]


def test_a_registrar_that_is_overloaded_is_left_alone_as_long_as_it_asks(boxes, hand, talk):
    hand.registrar = lambda request: (503, ["Retry-After: 4"]) if len(registers(hand)) < 2 else (200, [])
    registering(boxes, hand, ready=False)
    until(lambda: len(registers(hand)) >= 2, 15, "it was never asked again")
    pause = registers(hand)[1] - registers(hand)[0]
    print(f"asked again after {pause:.1f} s")
    assert 3.9 <= pause <= 9


def test_calls_wait_for_a_challenge_of_the_proxy_too(boxes, hand, rings, talk):
    box = registering(boxes, hand, codecs=["pcma"])
    call = rings(box, "x", answered=False, frames=sound.tone(700, -10))
    line = hand.rung()
    line.reply(407, headers=[challenge().replace("WWW-Authenticate", "Proxy-Authenticate")])
    line.wait("ACK")
    again = line.wait("INVITE")
    assert proven(again, "pw-by-hand-4c") and again.get("proxy-authorization") and again.cseq[0] == line.invite.cseq[0] + 1
    line.invite, line.remote, line.local = again, again.get("from"), f"{again.get('to')};tag={line.tag}"
    line.pick_up()
    call.action("accept")
    talk(1.5)
    assert line.bye() == 200
    print(tone(call, 1004, -10, skip=0.5))


def test_a_call_that_is_challenged_for_ever_ends(boxes, hand, rings, talk):
    box = registering(boxes, hand)
    call = rings(box, "x", answered=False)
    line = hand.rung()
    request, count = line.invite, 1
    while count < 20:
        line.reply(401, headers=[challenge()], request=request)
        try:
            request = line.wait("INVITE", 2)
        except AssertionError:
            break
        count += 1
    call.ended()
    print(f"{count} INVITEs; {why(box, call)}")
    assert count <= 3 and why(box, call) in ("far_unreachable", "far_declined", "trunk_down")


def test_a_pbx_must_prove_itself_if_it_is_told_to(boxes, hand, users):
    """`challenge = true`: an INVITE without the account's digest is asked for it, and a wrong one is refused."""
    trunk = section("hand", hand.uri(), username="gw", password="pw-by-hand-4c", register=True, challenge=True)
    box = boxes(31, [trunk], {"x": {"forward_to": "sip:a@hand", "trunk": "hand"}})
    person = users(reject=0.2)
    found = []
    for password in ("wrong", "pw-by-hand-4c"):
        line = hand.dial(hand.towards((box.address, 5060)), f"sip:+{person.phone}@{box.address}", Voice(HAND))
        asked = line.wait(lambda m: m.code and m.code >= 300)
        line.ack(asked)
        name = "www-authenticate" if asked.code == 401 else "proxy-authenticate"
        assert asked.get(name) and not person.attempts
        line.request("INVITE", body=line.voice.sdp(), headers=[prove(asked.get(name), "INVITE", line.target, "gw", password, asked.code)])
        found.append(line.final().code)
    print(f"a wrong password: {found[0]}; the right one: {found[1]}")
    assert found[0] in (401, 403, 407) and found[1] == 603 and len(person.attempts) == 1
