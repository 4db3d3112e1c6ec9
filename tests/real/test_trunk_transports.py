"""The ways to a PBX: TCP, TLS with every kind of trust, large requests, one connection used again, a proxy in between."""

import hashlib
import re
import socket
import ssl
import time

import pytest

import asterisk
import network
import sound
from byhand import HandPbx
from certificates import Authority
from gateway import section
from kamailio import Kamailio
from trunklab import HAND, PBX, PROXY, TLS, TrunkPbx, tone, until, why
from voice import Voice


@pytest.fixture(scope="module")
def papers(authority):
    """The certificate of the PBX by hand."""
    return authority.issue("hand", HAND, hosts=["hand.lab.example"])


@pytest.fixture(scope="module", autouse=True)
def idle(boxes):
    """A connection on which nothing happens while the other tests run."""
    with HandPbx(network.address(46), transport="tcp") as hand:
        boxes(40, [section("idle", hand.uri(), username="gw", password="gw-idle-1e", register=True)], {"x": "someone@idle"})
        hand.since = time.time()
        yield hand


def tls(authority=None, pin=None, **keys):
    """A trunk to the PBX by hand over TLS."""
    return section("hand", f"sip:{HAND}:5061;transport=tls", register=False, codecs=["pcma"], tls_ca=authority and str(authority.file),
                   tls_pin=pin, **keys)


def state(box, name="hand"):
    """What the gateway says of a trunk."""
    reply = box.api.get("/v1/trunks")
    return next(t for t in reply["trunks"] if t["name"] == name)


def talks(rings, hand, box, talk, number="x"):
    """One call through the PBX by hand, measured both ways; the line."""
    call = rings(box, number, answered=False, frames=sound.tone(700, -10))
    line = hand.rung()
    line.pick_up(Voice(HAND))
    call.action("accept")
    talk(2)
    assert line.bye() == 200
    call.ended()
    print(f"{line.way.kind}: the user hears {tone(call, 1004, -10)}; the PBX {line.voice.tone(700, -10, skip=0.7)}")
    return line


def test_a_real_pbx_over_tcp_both_ways(boxes, rings, users, talk, seen, trunk_pbx):
    trunk = section("pbx", f"sip:{PBX}:5060;transport=tcp", username="ulaw", password="ulaw-secret-3e", register=True, codecs=["pcmu"])
    box = boxes(36, [trunk], {"record": {"forward_to": "sip:record@pbx", "trunk": "pbx"}})
    call = rings(box, "record", frames=sound.tone(700, -10))
    person = users(frames=sound.tone(700, -10))
    trunk_pbx.dial(person.phone, "ulaw")
    called = person.called()
    called.picked_up()
    assert trunk_pbx.answer(person.phone)[0] == 200
    talk(3.5)
    call.hang_up()
    called.hang_up()
    for user, name in ((call, seen(call)["num"]), (called, person.phone)):
        x, rate = trunk_pbx.heard(name)
        f = sound.frequency(x[rate:], rate)
        print(f"heard by the user: {tone(user, 1004, asterisk.MILLIWATT_DBFS)}; by the PBX: {f:.1f} Hz")
        assert abs(f - 700) < 7
    vias = [text for way, text in trunk_pbx.messages(seen(call)["sip"]) if way == "in" and text.startswith("INVITE")]
    assert vias and all("SIP/2.0/TCP" in text for text in vias)
    to_us = [text for way, text in trunk_pbx.messages() if way == "out" and text.startswith(f"INVITE sip:+{person.phone}@")]
    assert to_us and "SIP/2.0/TCP" in to_us[0]


@pytest.mark.parametrize("name, password, suite", [
    ("whatsapp-tls", TLS, "AES_CM_128_HMAC_SHA1_80"), ("srtp32", "srtp32-secret-3e", "AES_CM_128_HMAC_SHA1_32"),
], ids=["80", "32"])
def test_a_real_pbx_over_tls_with_srtp_both_ways(boxes, rings, users, talk, seen, trunk_pbx, authority, name, password, suite):
    """The recipe's account, and one with the shorter tag: the two suites that Asterisk can be set to."""
    trunk = section("pbx", f"sip:{PBX}:5061;transport=tls", username=name, password=password, register=True, srtp="required",
                    tls_ca=str(authority.file))
    box = boxes(36, [trunk], {"record": {"forward_to": "sip:record@pbx", "trunk": "pbx"}})
    call = rings(box, "record", frames=sound.tone(700, -10))
    person = users(frames=sound.tone(700, -10))
    trunk_pbx.dial(person.phone, name)
    called = person.called()
    called.picked_up()
    assert trunk_pbx.answer(person.phone)[0] == 200
    talk(3.5)
    call.hang_up()
    called.hang_up()
    for user, recording in ((call, seen(call)["num"]), (called, person.phone)):
        x, rate = trunk_pbx.heard(recording)
        f = sound.frequency(x[rate:], rate)
        print(f"heard by the user: {tone(user, 1004, asterisk.MILLIWATT_DBFS)}; by the PBX: {f:.1f} Hz")
        assert abs(f - 700) < 7
    talked = trunk_pbx.messages(seen(call)["sip"])
    offered = next(text for way, text in trunk_pbx.messages() if way == "out" and text.startswith(f"INVITE sip:+{person.phone}@"))
    suites = [re.findall(r"a=crypto:\d+ (\S+)", text) for text in (next(t for w, t in talked if w == "in" and "a=crypto" in t), offered)]
    print(f"suites offered by us and by Asterisk: {suites}")
    assert suites[1] == [suite] and len(suites[0]) == 4
    assert all("SIP/2.0/TLS" in text for way, text in talked if way == "in" and text.startswith("INVITE"))
    assert all("RTP/SAVP" in text for _, text in talked if "m=audio" in text)


@pytest.mark.parametrize("trust", ["authority", "pin", "sips"])
def test_a_certificate_that_is_trusted(boxes, rings, talk, authority, papers, trust):
    with HandPbx(HAND, 5061, "tls", papers.files) as hand:
        trunk = tls(pin=papers.pin) if trust == "pin" else tls(authority)
        if trust == "sips":
            trunk = trunk.replace(f"sip:{HAND}:5061;transport=tls", f"sips:{HAND}")
        box = boxes(36, [trunk], {"x": "someone@hand"})
        line = talks(rings, hand, box, talk)
        assert line.way.kind == "TLS" and hand.connections == 1, "one connection is enough for OPTIONS and a call"


@pytest.mark.parametrize("fault", ["of nobody", "of another host", "run out", "another pin", "no TLS at all"])
def test_a_certificate_that_is_not_trusted_is_refused(boxes, rings, authority, tmp_path, fault):
    stranger = Authority(tmp_path / "stranger")
    papers = {
        "of nobody": lambda: stranger.issue("hand", HAND),
        "of another host": lambda: authority.issue("elsewhere", network.address(45), hosts=["elsewhere.example"]),
        "run out": lambda: authority.issue("old", HAND, days=-1),
        "another pin": lambda: authority.issue("other", HAND),
        "no TLS at all": lambda: None,
    }[fault]()
    trunk = tls(pin=hashlib.sha256(b"another").hexdigest()) if fault == "another pin" else tls(authority)
    with HandPbx(HAND, 5061, "tls" if papers else "tcp", papers and papers.files) as hand:
        box = boxes(36, [trunk], {"x": "someone@hand"}, ready=False)
        box.start_unready()
        until(lambda: state(box)["state"] == "failed", 8, lambda: f"the trunk is {state(box)}")
        call = rings(box, "x", answered=False)
        assert call.ended(5) == "reject"
        print(f"{fault}: {state(box)}; the call: {why(box, call)}")
        assert not hand.seen, "something was said to a PBX that nobody trusts"
        assert why(box, call) == "trunk_down"
        told = state(box)["why"] + "".join(line for line in box.out + box.err if " WARN " in line)
        assert re.search(r"certificate|TLS|handshake", told), f"nobody was told why: {told}"


def test_a_pbx_comes_in_by_tls(boxes, users, talk, authority, papers):
    """The gateway's own certificate is shown and checked; a new one is taken up without a restart."""
    ours = authority.issue("box", network.address(36), hosts=["box.lab.example"])
    paths = f'tls_listen = "{network.address(36)}:5061"\ntls_cert = "{ours.cert}"\ntls_key = "{ours.key}"'
    with HandPbx(HAND, 5061, "tls", papers.files) as hand:
        box = boxes(36, [tls(authority)], {"x": {"forward_to": "sip:a@hand", "trunk": "hand"}}, sip=paths)
        context = ssl.create_default_context(cafile=str(authority.file))
        way = hand.connect(box.address, 5061, context)
        person = users(frames=sound.tone(700, -10))
        line = hand.dial(way, f"sip:+{person.phone}@{box.address}:5061;transport=tls", Voice(HAND))
        assert line.final(10).code == 200
        talk(2)
        assert line.bye() == 200
        print(f"over TLS that the PBX opened: {line.voice.tone(700, -10)}")

        def serial():
            with socket.create_connection((box.address, 5061), timeout=10, source_address=(HAND, 0)) as plain, \
                    context.wrap_socket(plain, server_hostname=box.address) as it:
                return int(it.getpeercert()["serialNumber"], 16)
        assert serial() == ours.serial
        renewed = authority.issue("box", network.address(36), hosts=["box.lab.example"])
        box.reload()
        until(lambda: serial() == renewed.serial, 20, "the new certificate was not taken up")


def test_a_request_that_is_too_large_for_a_datagram_goes_by_tcp(boxes, rings, talk):
    with HandPbx(HAND) as small, HandPbx(HAND, transport="tcp") as large:
        box = boxes(36, [section("hand", small.uri(), register=False)], {"x": "someone@hand"})
        call = rings(box, "x", answered=False, payload="order " + "0123456789" * 50, name="\u00c4da " * 40, frames=sound.tone(700, -10))
        line = large.rung()
        assert len(line.invite.raw) > 1300 and not small.requests("INVITE")
        line.pick_up(Voice(HAND))
        call.action("accept")
        talk(2)
        assert line.bye() == 200
        print(f"{len(line.invite.raw)} bytes by TCP: {tone(call, 1004, -10, skip=0.5)}")
    with HandPbx(HAND) as small:            # nobody listens on TCP: a large datagram is better than none (RFC 3261 18.1.1)
        call = rings(box, "x", answered=False, payload="order " + "0123456789" * 50, name="\u00c4da " * 40)
        line = small.rung()
        assert len(line.invite.raw) > 1300
        line.reply(486)
        call.ended()


def test_a_connection_is_kept_alive_and_made_anew_when_it_breaks(boxes, rings, talk):
    with HandPbx(HAND, transport="tcp") as hand:
        trunk = section("hand", hand.uri(), username="gw", password="gw-tcp-1e", register=True, codecs=["pcma"])
        box = boxes(36, [trunk], {"x": "someone@hand"})
        talks(rings, hand, box, talk)
        assert hand.connections == 1
        first = hand.requests("REGISTER")[-1].way
        first.close()
        at = time.time()
        until(lambda: hand.connections == 2 and hand.requests("REGISTER")[-1].at > at, 10, "it did not come back")
        print(f"back after {hand.requests('REGISTER')[-1].at - at:.2f} s")
        talks(rings, hand, box, talk)
        # What the PBX asks comes back by the connection that it was asked by (RFC 5626 in spirit).
        way = hand.requests("REGISTER")[-1].way
        line = hand.dial(way, f"sip:nobody@{box.address};transport=tcp", Voice(HAND))
        assert line.final().way is way
        assert hand.connections == 2


def test_a_silent_pbx_is_asked_again_by_udp_and_not_by_tcp(boxes, rings):
    with HandPbx(HAND) as udp, HandPbx(network.address(29), transport="tcp") as tcp:
        box = boxes(36, [section("udp", udp.uri(), register=False), section("tcp", tcp.uri(), register=False)], {"u": "a@udp", "t": "a@tcp"},
                    ring_seconds=6)
        calls = [rings(box, name, answered=False) for name in ("u", "t")]
        lines = [udp.rung(), tcp.rung()]
        time.sleep(4)
        for call in calls:
            call.hang_up()
        at = [m.at for m in lines[0].came("INVITE", again=True)]
        gaps = [b - a for a, b in zip(at, at[1:])]
        print(f"UDP: {len(at)} INVITEs, after {', '.join(f'{g:.2f}' for g in gaps)} s; TCP: {len(lines[1].came('INVITE', again=True))}")
        assert len(gaps) == 3 and abs(gaps[0] - 0.5) < 0.3 and abs(gaps[1] - 1) < 0.4 and abs(gaps[2] - 2) < 0.4
        assert len(lines[1].came("INVITE", again=True)) == 1


def test_a_proxy_in_front_of_the_pbx(boxes, rings, users, talk, authority):
    """docs/pbx/kamailio.cfg: TCP on our side, UDP on the PBX's, and everything within a call goes through it."""
    behind = network.address(24)
    more = (f"[proxy](trunk)\naors = proxy\nidentify_by = ip\n[proxy]\ntype = aor\ncontact = sip:{PROXY}:5060\n"
            f"[proxy]\ntype = identify\nendpoint = proxy\nmatch = {PROXY}\n")
    pbx = TrunkPbx(behind, "behind", authority.issue("behind", behind), [more])
    words = {"192.0.2.30": PROXY, "192.0.2.20": network.address(36), "192.0.2.10": behind}
    with pbx, Kamailio("proxy", PROXY, words) as proxy:
        pbx.start()
        proxy.start()
        box = boxes(36, [section("proxy", f"sip:{PROXY}:5060;transport=tcp", register=False)], {"record": "record@proxy"})
        call = rings(box, "record", frames=sound.tone(700, -10))
        person = users(frames=sound.tone(700, -10))
        pbx.dial(person.phone, "proxy")
        called = person.called()
        called.picked_up()
        assert pbx.answer(person.phone)[0] == 200
        talk(3.5)
        call.hang_up()
        pbx.gives_up(person.phone)
        assert called.ended() == "terminate"
        seen = next(line for line in pbx.said("SEEN") if line["call"] == call.id)
        for user, name in ((call, seen["num"]), (called, person.phone)):
            x, rate = pbx.heard(name)
            f = sound.frequency(x[rate:], rate)
            print(f"through the proxy, heard by the user: {tone(user, 1004, asterisk.MILLIWATT_DBFS)}; by the PBX: {f:.1f} Hz")
            assert abs(f - 700) < 7
        talked = [text for way, text in pbx.messages(seen["sip"]) if way == "in"]
        assert {text.split(" ")[0] for text in talked} >= {"INVITE", "ACK", "BYE"}
        assert all(PROXY in text for text in talked), "something went past the proxy"


def test_a_connection_on_which_nothing_happens_is_kept_alive(idle):
    """By a double CRLF (RFC 5626 4.4.1), or by an OPTIONS in its stead."""
    until(lambda: idle.pings or [m for m in idle.requests("OPTIONS") if m.at > idle.since + 1], max(1.0, idle.since + 45 - time.time()),
          "no sign of life in 45 s")
    print(f"{idle.pings} keep-alives, {len(idle.requests('OPTIONS'))} OPTIONS, {idle.connections} connection in {time.time() - idle.since:.0f} s")
    assert idle.connections == 1


def test_a_pin_that_was_wrong_is_mended_by_a_reload(boxes, rings, talk, authority, papers):
    with HandPbx(HAND, 5061, "tls", papers.files) as hand:
        wrong = hashlib.sha256(b"another").hexdigest()
        box = boxes(36, [tls(pin=wrong)], {"x": "someone@hand"}, ready=False)
        box.start_unready()
        until(lambda: state(box)["state"] == "failed", 8, lambda: f"the trunk is {state(box)}")
        box.config.write_text(box.config.read_text().replace(wrong, papers.pin))
        box.reload()
        until(lambda: state(box)["up"], 15, lambda: f"the trunk is {state(box)}")
        talks(rings, hand, box, talk)
