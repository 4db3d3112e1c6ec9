"""Where the PBX is: at an IPv6 address, on another host than the gateway's; behind a name of the DNS."""

import re
import time

import pytest

import asterisk
import network
import sound
from gateway import section
from nameserver import NameServer
from trunklab import PBX, SECRET, TLS, TrunkPbx, tone, until

NEAR, FAR = "fd99:2::1", "fd99:2::10"


@pytest.fixture(scope="module")
def six(authority):
    """A real PBX by the recipe that has IPv6 and nothing else, on a host of its own."""
    with network.Beyond(NEAR, FAR) as host:
        it = TrunkPbx(FAR, "six", authority.issue("six", FAR), [])
        it.host = host
        with it:
            yield it.start()


def has_ipv6(box):
    """The gateway listens everywhere, by IPv4 and IPv6, as README.md says. Its ports are none that anybody else of the lab has at
    another address: `::` takes them all."""
    text = box.config.read_text()
    for usual, here in ((f'listen = "{box.address}:5060"', 'listen = "[::]:5099"'),
                        (f'listen_ip = "{box.address}"', f'listen_ip = "::"\npublic_ip = "{box.address}"'),
                        ('"40000-40099"', '"25000-25099"'), ('"20000-20199"', '"25200-25399"')):
        assert usual in text, f"{usual} is not in the configuration"
        text = text.replace(usual, here)
    box.config.write_text(text)
    return box.start()


def test_a_real_pbx_over_ipv6_both_ways(boxes, rings, users, talk, six, authority):
    """By UDP and by TLS with SRTP: users call the PBX and somebody at the PBX calls users, while Meta is reached by IPv4."""
    trunks = [section("udp", f"sip:[{FAR}]:5060;transport=udp", username="whatsapp", password=SECRET, register=True, codecs=["opus"]),
              section("tls", f"sip:[{FAR}]:5061;transport=tls", username="whatsapp-tls", password=TLS, register=True, codecs=["pcma"],
                      srtp="required", tls_ca=str(authority.file))]
    accounts = {"udp": "whatsapp", "tls": "whatsapp-tls"}
    box = has_ipv6(boxes(36, trunks, {name: {"forward_to": f"sip:record@{name}", "trunk": name} for name in accounts}, ready=False))
    calls = {name: rings(box, name, frames=sound.tone(700, -10)) for name in accounts}
    persons = {name: users(frames=sound.tone(700, -10)) for name in accounts}
    for name, person in persons.items():
        six.dial(person.phone, accounts[name])
    for person in persons.values():
        person.called().picked_up()
        assert six.answer(person.phone)[0] == 200
    talk(3.5)
    for call in [*calls.values(), *(person.called() for person in persons.values())]:
        call.hang_up()
    for way, call in calls.items():
        seen = until(lambda: next((line for line in six.said("SEEN") if line["call"] == call.id), None), 5, "the PBX never saw it")
        for user, name in ((call, seen["num"]), (persons[way].called(), persons[way].phone)):
            x, rate = six.heard(name)
            x = x[rate:-rate // 2]
            f, level = sound.frequency(x, rate), sound.level(x)
            print(f"{way} over IPv6, heard by the user: {tone(user, 1004, asterisk.MILLIWATT_DBFS)}; by the PBX: {f:.1f} Hz at {level:.1f} dBFS")
            assert abs(f - 700) < 7 and abs(level + 10) <= 3
    said = [text for _, text in six.messages()]
    places = {re.search(r"(?m)^c=(.*?)\r?$", text).group(1) for text in said if "\nc=IN " in text}
    assert places == {f"IN IP6 {NEAR}", f"IN IP6 {FAR}"}
    assert not any(network.PREFIX in text for text in said), "an IPv4 address was named to somebody who has none"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_pbx_behind_a_name_whose_first_server_is_not_there(boxes, rings, users, talk, seen, trunk_pbx, transport):
    """NAPTR leads to SRV, that to two hosts, and at the better one nobody listens: the trunk registers at the other, and calls go and come."""
    service = f"_sip._{transport}.pbx.lab.example"
    records = [f"naptr-record=pbx.lab.example,10,10,s,SIP+D2{transport[0].upper()},,{service}",
               "naptr-record=pbx.lab.example,20,10,s,SIPS+D2T,,_sips._tcp.pbx.lab.example",
               f"srv-host={service},two.lab.example,5060,20,10", f"srv-host={service},one.lab.example,5060,10,10",
               f"host-record=one.lab.example,{network.address(48)}", f"host-record=two.lab.example,{PBX}"]
    with NameServer(network.address(47), records) as dns, dns.start().of_this_host():
        trunk = section("name", "sip:pbx.lab.example", username="whatsapp", password=SECRET, register=True, codecs=["pcma"])
        box = boxes(36, [trunk], {"record": {"forward_to": "sip:record@name", "trunk": "name"}}, ready=False)
        box.start_unready()
        begin = time.time()
        until(lambda: box.get("/readyz")[0] == 200, 15, lambda: f"it did not register: {box.tail()}")
        took, state = time.time() - begin, box.api.get("/v1/trunks")["trunks"][0]
        print(f"registered by {state['transport']} at {state['address']} {took:.1f} s after the start, roundabout; asked: {dns.asked()}")
        assert (state["address"], state["transport"]) == (f"{PBX}:5060", transport)
        assert {("NAPTR", "pbx.lab.example"), ("SRV", service), ("A", "one.lab.example"), ("A", "two.lab.example")} <= set(dns.asked())
        call = rings(box, "record", frames=sound.tone(700, -10))
        person = users(frames=sound.tone(700, -10))
        trunk_pbx.dial(person.phone, "whatsapp")
        person.called().picked_up()
        assert trunk_pbx.answer(person.phone)[0] == 200
        talk(3)
        call.hang_up()
        person.called().hang_up()
        for user, name in ((call, seen(call)["num"]), (person.called(), person.phone)):
            x, rate = trunk_pbx.heard(name)
            f, level = sound.frequency(x[rate:], rate), sound.level(x[rate:-rate // 2])
            print(f"heard by the user: {tone(user, 1004, asterisk.MILLIWATT_DBFS)}; by the PBX: {f:.1f} Hz at {level:.1f} dBFS")
            assert abs(f - 700) < 7 and abs(level + 10) <= 3
