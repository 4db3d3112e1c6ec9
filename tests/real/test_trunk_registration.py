"""A trunk registers, stays registered and comes back: at a real Asterisk, and at a PBX that is played by hand."""

import time

import pytest

import asterisk
import network
import sound
from byhand import HandPbx, challenge, proven
from gateway import section
from trunklab import HAND, PBX, SECRET, account, until, why


def registers(pbx):
    """When REGISTERs arrived, seconds since 1970."""
    return [m.at for m in pbx.seen if m.code is None and m.method == "REGISTER"]


def test_a_trunk_made_by_the_recipe_registers_and_carries_a_call(boxes, rings, talk, seen, trunk_pbx):
    name, algorithm = "whatsapp", "SHA-256"
    trunk = section("pbx", f"sip:{PBX}:5060;transport=udp", username=name, password=SECRET, register=True)
    box = boxes(31, [trunk], {"echo": "echo@pbx"})
    contact = until(lambda: trunk_pbx.contact(name), 5, "nothing was registered")
    call = rings(box, "echo", frames=sound.tone(700, -10))
    talk(2.5)
    call.hang_up()
    line = seen(call)
    assert line["chan"].startswith(f"PJSIP/{name}-")
    asked = [text for way, text in trunk_pbx.messages() if way == "in" and text.startswith("REGISTER") and f'username="{name}"' in text]
    assert asked and all(f"algorithm={algorithm}" in text.replace('"', "") for text in asked)
    print(f"{name} at {contact}: " + call.measure().tone(700, -10))
    assert why(box, call) == "user_hung_up"
    box.stop()
    until(lambda: trunk_pbx.contact(name) is None, 5, "the registration was not taken back at the end")
