"""Scanners and floods beside twenty running calls: nobody notices."""

import json
import pathlib
import subprocess
import sys
import time

import pytest

import network
import sound
from gateway import section
from trunklab import HAND, account, flow, tone, until, why
from voice import Voice

FLOOD = pathlib.Path(__file__).resolve().parents[1] / "lab" / "flood.py"
ALLOWED = network.address(50)       # an address of a trunk, from which nothing sensible comes
FOREIGN = [network.address(n) for n in range(51, 57)]


@pytest.fixture(scope="module")
def box(boxes, trunk_pbx, hand):
    """A gateway with a real PBX, and a trunk that more addresses belong to."""
    trunks = [account("alaw", codecs=["pcma"]), section("hand", hand.uri(), register=False, codecs=["pcma"], allow=[f"{ALLOWED}/32"])]
    return boxes(30, trunks, {"echo": "echo@alaw", "hand": {"forward_to": "sip:a@hand", "trunk": "hand"}})


def flood(box, seconds, rate, *kinds):
    """Begins a flood; the process."""
    return subprocess.Popen([sys.executable, str(FLOOD), box.address, str(seconds), str(rate), *kinds],
                            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)


def seconds_used(box):
    """CPU time of the gateway so far."""
    fields = box._proc("stat").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def streams(box):
    """How many TCP connections stand at its SIP port."""
    local = "".join(f"{int(part):02X}" for part in reversed(box.address.split("."))) + f":{5060:04X}"
    return sum(line.split()[1] == local and line.split()[3] == "01" for line in box._proc("net/tcp").splitlines()[1:])


def twenty(box, rings):
    """Twenty calls, each with a tone of its own, all answered."""
    calls = [rings(box, "echo", answered=False, frames=sound.tone(400 + 37 * n, -10, seconds=6)) for n in range(20)]
    for call in calls:
        call.action("accept", 15)
    return calls


def undisturbed(calls):
    """Fails unless everyone heard their tone whole; the longest interval between two packets."""
    worst = 0.0
    for n, call in enumerate(calls):
        heard = call.measure()
        heard.tone(400 + 37 * n, -10, gap=0.1, skip=1.5)
        worst = max(worst, heard.longest_interval)
    return worst


def test_no_call_is_disturbed_by_scanners_and_floods(box, rings, talk, cloud):
    requests = len(cloud.graph.requests)
    calls = twenty(box, rings)
    talk(2)
    files, memory, used = box.descriptors(), box.memory(), seconds_used(box)
    talk(2)
    calm = (seconds_used(box) - used) / 2
    used, begin = seconds_used(box), time.monotonic()
    running = flood(box, 8, 2000, f"scan={FOREIGN[0]}", f"junk={FOREIGN[1]}", f"torn={FOREIGN[2]}", f"media={FOREIGN[3]}", f"scan={FOREIGN[4]}",
                    f"scan={ALLOWED}", f"torn={ALLOWED}", f"streams={FOREIGN[5]}", f"streams={ALLOWED}")
    talk(4)
    during = rings(box, "echo")
    talk(1)
    during.hang_up()
    told = json.loads(running.communicate(timeout=30)[0])
    busy = (seconds_used(box) - used) / (time.monotonic() - begin)
    talk(1)
    for call in calls:
        call.hang_up()
    worst = undisturbed(calls)
    print(f"sent and got back: {told}")
    print(f"CPU {100 * calm:.0f} % of a core with twenty calls, {100 * busy:.0f} % with the flood; longest interval at a user "
          f"{1000 * worst:.0f} ms; a new call was answered after {during.accepted_at - during.rang_at:.2f} s")
    assert sum(v["sent"] for v in told.values()) > 4000, told
    for word, numbers in told.items():
        if ALLOWED not in word:
            assert numbers["back"] == 0, f"{word}: a stranger was answered"
    assert during.accepted_at - during.rang_at < 4
    until(lambda: box.descriptors()[1] <= files[1], 20, lambda: f"descriptors: {box.descriptors()} (before: {files})")
    until(lambda: not streams(box), 45, lambda: f"{streams(box)} connections to the SIP port are left")
    grown = box.memory() - memory
    print(f"memory {memory:.1f} MiB and {grown:+.1f} MiB afterwards")
    assert grown < 8
    asked = [r for r in cloud.graph.requests[requests:] if r.path.endswith("/calls") and (r.body or {}).get("action") == "connect"]
    assert not asked, f"somebody was called: {asked[:3]}"
    assert why(box, calls[0]) == "user_hung_up"


def test_a_second_flood_costs_no_more_memory_than_the_first(box, talk):
    memory = []
    for _ in range(2):
        flood(box, 5, 4000, f"scan={FOREIGN[0]}", f"torn={ALLOWED}", f"scan={ALLOWED}", f"junk={FOREIGN[1]}").communicate(timeout=30)
        talk(1)
        memory.append(box.memory())
    print(f"memory after the first {memory[0]:.1f} MiB, after the second {memory[1]:.1f} MiB")
    assert memory[1] - memory[0] < 4


def test_more_calls_than_there_is_room_for_are_refused_with_a_time_to_come_back(boxes, hand, users, talk):
    """Fixed memory: the PBX itself may ask for too much."""
    box = boxes(33, [section("hand", hand.uri(), register=False, codecs=["pcma"])], {"x": {"forward_to": "sip:a@hand", "trunk": "hand"}}, max_calls=3)
    people = [users(answer=None, give_up=20) for _ in range(6)]
    lines = [hand.dial(hand.towards((box.address, 5060)), f"sip:+{person.phone}@{box.address}", Voice(HAND)) for person in people]
    def finals():
        return {line: m for line in lines for m in list(hand.seen) if m.get("call-id") == line.id and m.code and m.code >= 300}
    until(lambda: len(finals()) >= 3, 8, lambda: f"refused: {[m.start for m in finals().values()]}")
    talk(1)                                     # no more than that
    refused = [line.ack(final) for line, final in finals().items()]
    print(f"{len(refused)} of 6 refused: {[(m.start, m.get('retry-after')) for m in refused]}")
    assert len(refused) == 3 and all(m.code in (486, 503) for m in refused) and all(m.get("retry-after") for m in refused if m.code == 503)
    for line in lines:
        if line.id not in [m.get("call-id") for m in refused]:
            line.cancel()
            line.final()


def test_a_trunk_that_has_gone_mad_leaves_room_for_the_others(box, rings, talk):
    """As fast as it can, from an address that is allowed: the one that is quiet is served all the same."""
    running = flood(box, 4, 6000, f"scan={ALLOWED}", f"scan={ALLOWED}")
    talk(1)
    call = rings(box, "echo", frames=sound.tone(700, -10))
    at = time.time()
    talk(2)
    call.hang_up()
    told = json.loads(running.communicate(timeout=30)[0])
    print(f"{told}; a call on the other trunk: answered after {call.accepted_at - call.rang_at:.2f} s, {tone(call, 700, -10, gap=0.1)}, "
          f"longest pause {1000 * flow(call, at, at + 1.8):.0f} ms")
    assert call.accepted_at - call.rang_at < 4
