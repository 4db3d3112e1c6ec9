"""The real programs of the trunk tests, and the PBX that is played by hand, do what those tests rely on."""

import time

import pytest

import network
from byhand import HandPbx
from kamailio import Kamailio
from phone import Phone
from sipp import Sipp
from voice import SUITES, Voice

ADDRESS = network.address(40)


@pytest.fixture
def hand():
    """A PBX by hand that plays the gateway here."""
    with HandPbx(ADDRESS) as it:
        yield it


@pytest.mark.parametrize("codec, name, rate", [("g722", "G722/16000/1", 16000), ("opus", "opus/48000/2", 48000), ("pcma", "PCMA/8000/1", 8000)])
def test_a_phone_that_is_called_directly_plays_back_what_it_hears(hand, talk, codec, name, rate):
    with Phone.peer("front", network.address(41), name, rate) as phone:
        phone.start()
        voice = Voice(ADDRESS, codecs=[codec], hertz=700)
        line = hand.dial(hand.towards((phone.address, 5060)), f"sip:front@{phone.address}", voice)
        assert line.final().code == 200
        talk(2.5)
        assert line.bye() == 200
        print("played back: " + voice.tone(700, -10, within_db=3, gap=0.1))


@pytest.mark.parametrize("suite", SUITES)
def test_two_ends_by_hand_talk_with_srtp(hand, talk, suite):
    with HandPbx(network.address(41)) as other:
        voice = Voice(ADDRESS, crypto=[suite], hertz=700)
        line = hand.dial(hand.towards((other.address, 5060)), f"sip:x@{other.address}", voice)
        answer = other.rung()
        answer.voice = Voice(other.address, codecs=["pcma"], crypto=[suite])
        answer.reply(200, body=answer.voice.take(answer.invite.body))
        assert line.final().code == 200
        answer.voice.start()
        talk(1.2)
        print(f"{suite}: " + answer.voice.tone(700, -10) + "; " + voice.tone(1004, -10))
        assert voice.suite == answer.voice.suite == suite and not voice.strange + answer.voice.strange


def test_the_proxy_stays_on_the_way_and_changes_the_transport():
    words = {"192.0.2.30": network.address(42), "192.0.2.20": ADDRESS, "192.0.2.10": network.address(41)}
    with Kamailio("proof", network.address(42), words) as proxy, HandPbx(ADDRESS, transport="tcp") as box, HandPbx(network.address(41)) as pbx:
        proxy.start()
        way = box.connect(proxy.address, 5060)
        line = box.dial(way, f"sip:echo@{proxy.address}:5060;transport=tcp", Voice(ADDRESS))
        other = pbx.rung()
        assert len(other.invite.all("record-route")) == 2, "one for each transport"
        other.pick_up(acked=False)
        assert line.final().code == 200
        other.wait("ACK")
        other.request("BYE")
        assert line.wait("BYE").way.kind == "TCP"


def test_a_scenario_is_played_to_its_end(hand):
    with Sipp("uac-brief", network.address(43), target=(ADDRESS, 5060), service="echo") as sipp:
        sipp.start()
        line = hand.rung()
        line.reply(180)
        line.pick_up(Voice(ADDRESS, codecs=["pcmu"]), say=False)
        line.hung_up()
        sipp.done()
        assert sipp.sent("INVITE") >= 1 and sipp.received("SIP/2.0 200") == 2


def test_what_is_seen_is_kept_with_its_time(hand):
    at = time.time()
    with HandPbx(network.address(41)) as other:
        other.put(other.towards((ADDRESS, 5060)), f"OPTIONS sip:x@{ADDRESS} SIP/2.0\r\nVia: SIP/2.0/UDP {other.address};branch=z9hG4bK1\r\n"
                  f"From: <sip:a@b>;tag=1\r\nTo: <sip:x@y>\r\nCall-ID: one\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n")
        until = time.monotonic() + 5
        while not other.seen and time.monotonic() < until:
            time.sleep(0.02)
        assert [m.code for m in other.seen] == [200]
    assert abs(hand.requests("OPTIONS")[0].at - at) < 5
