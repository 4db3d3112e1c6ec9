"""What happens within a call: hold, refresh, transfer, and the words around it."""

import pytest

import network
import sound
from phone import Phone
from trunklab import PBX, account, until


@pytest.fixture(scope="module")
def phone(trunk_pbx):
    """A telephone on the PBX that plays back what it hears."""
    it = Phone.extension("1003", "1003-pw", network.address(25), PBX, "PCMA/8000/1")
    yield it.start().registered()
    it.stop()


@pytest.fixture(scope="module")
def box(boxes, trunk_pbx):
    """A gateway with one account at the PBX."""
    return boxes(31, [account("alaw"), account("music")],
                 {"phone": "phone-1003@alaw"})


def test_a_phone_behind_the_pbx_holds_and_resumes(box, phone, rings, talk, seen, trunk_pbx):
    call = rings(box, "phone", frames=sound.tone(700, -10))
    phone.talking()
    talk(2)
    phone.do("hold")
    talk(3)
    phone.do("resume")
    talk(2.5)
    call.hang_up()
    sip = seen(call)["sip"]
    msgs = trunk_pbx.messages(sip)
    for m in msgs: print(m[0], m[1].split("\n")[0], [l for l in m[1].splitlines() if l.startswith("a=send") or l.startswith("a=recv") or l.startswith("a=inact")])
    print(call.measure().tone(700, -10, gap=9))
