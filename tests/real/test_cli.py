"""The verbs that talk to the running gateway, as an operator types them."""

import json
import subprocess

import network
import sound
from conftest import DESK
from trunklab import until


def run(desk, *words, code=0):
    """One verb; its standard output. `code`: the exit code that it must end with, None: any but 0."""
    done = subprocess.run([*desk.command, *words, "--config", str(desk.config)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == code or code is None and done.returncode, (words, done.returncode, out, err)
    assert "panicked" not in err
    return out if code == 0 else out + err


def test_an_operator_calls_watches_and_hangs_up(desk, people, talk):
    person = people(frames=sound.tone(700, -10), answer=1.0)
    said = run(desk, "call", "+" + person.phone, "--number", "desk", "--forward-to", f"sip:record-{person.phone}@pbx")
    print(said)
    call = person.called()
    assert call.accepted_at, "it came back before the user had answered"
    shown = run(desk, "calls", "--limit", "5")
    assert person.phone in shown and "answered" in shown.lower()
    rows = json.loads(run(desk, "calls", "--json", "--status", "answered"))
    rows = rows["calls"] if isinstance(rows, dict) else rows
    ours = next(r for r in rows if person.phone in r["to"])
    call.talking()
    run(desk, "hangup", ours["_id"])
    assert call.ended() == "terminate"
    desk.record(call)

    def latest():
        found = json.loads(run(desk, "calls", "--json", "--limit", "1"))
        return (found["calls"] if isinstance(found, dict) else found)[0]
    until(lambda: latest()["status"] == "ended", 5, latest)
    assert "no" in run(desk, "hangup", "call_000000000000000000000000", code=1).lower()


def test_an_operator_is_told_why_a_user_was_not_reached(desk, people):
    shy, busy = people(permission="no_permission"), people(reject=0.3)
    said = run(desk, "call", "+" + shy.phone, "--number", "desk", code=1)
    assert "allow" in said or "permission" in said
    said = run(desk, "call", "+" + busy.phone, "--number", "desk", "--forward-to", "sip:echo@pbx", code=1)
    print(said)
    assert "declined" in said.lower() or "rejected" in said.lower()
    run(desk, "call", "nobody", "--number", "desk", code=None)
    run(desk, "call", "+" + busy.phone, "--number", "nosuch", code=1)


def test_an_operator_sees_numbers_trunks_permissions_and_the_state(desk, people):
    numbers = run(desk, "numbers")
    assert all(n.phone in numbers for n in DESK.values())
    assert len(json.loads(run(desk, "numbers", "--json"))["numbers"]) == len(DESK)
    trunks = run(desk, "trunks")
    assert "pbx" in trunks and "plain" in trunks
    person = people(permission="no_permission")
    assert "no" in run(desk, "permissions", "+" + person.phone, "--number", "desk").lower()
    run(desk, "permissions", "+" + person.phone, "--number", "desk", "--request", "May we?")
    assert person.request()["interactive"]["body"]["text"] == "May we?"
    assert json.loads(run(desk, "permissions", "+" + person.phone, "--number", "desk", "--json"))["permission"]["status"] == "no_permission"
    assert run(desk, "status") and isinstance(json.loads(run(desk, "status", "--json")), dict)
    wrong = run(desk, "status", "--key", "sk_wrong", "--api", desk.url, code=1)
    assert "key" in wrong.lower() or "unauthorized" in wrong.lower()
    assert "no gateway" in run(desk, "status", "--api", f"http://{network.address(20)}:9", "--key", "x", code=1)
