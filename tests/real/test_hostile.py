"""What strangers and broken senders may try: no call is harmed, nobody is rung."""

import random
import socket
import time

import pytest

import network


def test_a_wrong_signature_is_refused_and_nothing_else_happens(gateway, dial, cloud, talk):
    call = dial("echo")
    assert cloud.send(call.connect(), secret="not the app secret") == 401
    talk(1)
    assert call.actions == [] and dial.rang(call) == 0
    assert not any(call.id in r.values() for r in gateway.records())


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b'{"entry": 7}', b'{"entry":[{"changes":[{"field":"calls","value":null}]}]}',
    b'{"object":"whatsapp_business_account","entry":[{"changes":[{"field":"calls","value":{"calls":[{"event":"connect"}]}}]}]}',
    b"\xff\xfe\x00", b"[" * 20000, b'{"a":' * 5000,
])
def test_a_signed_body_that_makes_no_sense_harms_nothing(gateway, cloud, body):
    assert cloud.send(raw=body) in (200, 400)
    assert gateway.get("/healthz")[0] == 200


def test_metas_handshake_wants_the_right_token(gateway):
    from gateway import VERIFY_TOKEN
    path = "/webhooks/whatsapp?hub.mode=subscribe&hub.challenge=11582012&hub.verify_token="
    assert gateway.get(path + VERIFY_TOKEN) == (200, b"11582012")
    assert gateway.get(path + "wrong")[0] == 403


@pytest.mark.parametrize("broken", [{"codec": "PCMU/8000"}, {"fingerprint": False}, {"lines": 2}],
                         ids=["no Opus", "no fingerprint", "two media lines"])
def test_an_offer_that_can_not_be_answered_is_rejected(gateway, dial, broken):
    call = dial("echo", **broken)
    assert call.ring() == 200
    assert call.ended(5) == "reject"
    assert dial.rang(call) == 0
    record = gateway.record(call)
    print(f"{broken}: {record.get('detail')}")
    assert (record["why"], record["answered"]) == ("bad_offer", False)


def test_an_sdp_that_is_no_sdp_is_rejected(gateway, dial):
    call = dial("echo")
    call.sdp = "v=0\r\n" + "a=" * 3000
    call.ring()
    assert call.ended(5) == "reject"
    assert gateway.record(call)["why"] == "bad_offer"


def test_garbage_on_every_port_does_not_disturb_a_running_call(gateway, dial, talk):
    call = dial.answered("echo")
    talk(1)
    dice = random.Random(4)
    ports = [5060] + gateway.udp_ports(20000, 20199) + gateway.udp_ports(40000, 40099)
    assert len(ports) >= 3, f"expected a SIP, an RTP and a WebRTC port: {ports}"
    sip = (b"INVITE sip:x@y SIP/2.0\r\n", b"SIP/2.0 200 OK\r\nCSeq: 1 INVITE\r\n\r\n", b"\r\n\r\n",
           b"BYE sip:gw SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK\r\nFrom: a\r\nTo: b\r\nCall-ID: c\r\nCSeq: 9 BYE\r\n\r\n",
           b"OPTIONS sip:x SIP/2.0\r\nContent-Length: 99999999999\r\n\r\n", b"REGISTER " + b"x" * 1400)
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind((network.address(20), 0))
        end = time.monotonic() + 3
        while time.monotonic() < end:
            for port in ports:
                head = dice.choice([b"", b"\x80\x00", b"\x80\x6f", b"\x80\xc8", b"\x00\x01\x00\x00\x21\x12\xa4\x42", b"\x16\xfe\xfd", b"\x80\x08"])
                body = dice.choice(sip) if port == 5060 and dice.random() < 0.5 else head + dice.randbytes(dice.randrange(0, 300))
                s.sendto(body, (gateway.address, port))
                sent += 1
            time.sleep(0.002)
    talk(1)
    call.hang_up()
    print(f"{sent} datagrams of garbage to ports {ports}; " + call.measure().tone(700, -10))
    record = gateway.record(call)
    assert (record["why"], record["answered"]) == ("user_hung_up", True)
