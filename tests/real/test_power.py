"""A power cut in every state of a call: what was open is closed at Meta, told in the history, and the file is whole."""

import errno
import sqlite3
import subprocess
import threading
import time

import pytest

import network
import sound
from api import Api
from conftest import desk_settings, nothing_left
from gateway import API_KEY, Gateway
from hook import Hook
from trunklab import until
from whatsapp import Number

POWER = {n: Number(f"1065403522431{i:02}", f"+155501003{i:02}") for i, n in enumerate(["silent", "echo", "desk"])}


@pytest.fixture
def disk(tmp_path):
    """A small disk for the history, and a function that fills it up."""
    place = tmp_path / "state"
    place.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(place)], check=True)

    def fill():
        try:
            with open(place / "filler", "wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
    yield fill
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def app():
    """The application that hears of it."""
    it = Hook(network.address(16), 8090, "power-hook-secret")
    yield it
    it.close()


@pytest.fixture
def box(cloud, pbx, app, tmp_path):
    """A gateway that may die."""
    settings = desk_settings(cloud)
    settings["own"] = {"desk": {"forward_to": '"sip:echo@pbx"     # a comment that must stay'}}
    settings["more"] = f'[[webhook]]\nid = "app"\nurl = "{app.url}"\nsecret = "{app.secret}"\n'
    it = Gateway(tmp_path, cloud, pbx, 6, POWER, trunk=("power", "power-secret-61b4"), apart=True, **settings)
    yield it.start()
    it.stop()


def whole(box):
    """Fails if one of the databases is damaged."""
    found = [p for p in (box.folder / "state").rglob("*") if p.is_file() and p.read_bytes()[:15] == b"SQLite format 3"]
    assert found
    for path in found:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], path
        connection.close()


def test_a_power_cut_in_any_state_of_a_call_leaves_nothing_open(box, dial, people, pbx, cloud, app, talk):
    dial.numbers = dial.numbers | POWER
    api = Api(box, API_KEY)
    calls = {}
    calls["ringing in"] = dial("silent")
    calls["ringing in"].ring()
    calls["ringing in"].action("pre_accept")
    calls["talking in"] = dial.answered("echo")
    asked = people(reply=20, connect=25, answer=None, give_up=40)
    dialling = people(connect=None, ring=30, answer=None, give_up=40)
    ringing = people(answer=None, give_up=40)
    talking = people()
    by_api = people()
    for person in (asked, dialling, ringing, talking):
        pbx.dial(person.phone, "power")
    placed = api.post("/v1/whatsapp/calls", {"accountId": "desk", "to": by_api.phone, "forwardTo": "sip:echo@pbx"})
    assert placed.status == 200, placed
    calls["dialling out"], calls["ringing out"], calls["talking out"] = dialling.called(), ringing.called(), talking.called()
    calls["talking out by API"], calls["asked, no reply yet"] = by_api.called(), asked.called()
    assert pbx.answer(ringing.phone, 180) and pbx.answer(talking.phone, 200)
    calls["talking out by API"].talking()
    talk(0.5)
    config = box.config.read_bytes()
    box.kill()
    killed = time.time()
    pbx.cli("channel request hangup all")           # the PBX has its own timers for a box that is gone
    box.start()
    print(f"up again {time.time() - killed:.1f} s after the cut")
    for state, call in calls.items():
        if state == "asked, no reply yet":
            continue
        assert call.ended(15) == "terminate", state
        record = box.record(call)
        assert record["why"] == "interrupted", (state, record)
        assert record["answered"] is state.startswith("talking"), (state, record)
        print(f"{state}: {record.get('detail')}; talked {record.get('talk_seconds')} s")
        told = app.wait(lambda h: [d for d in h.of() if d.json["call"]["metaCallId"] == call.id and d.event != "call.received"])
        assert [d.event for d in told] == ["call.failed"] and not app.forged(told[0]), state
    # Nobody told the gateway this call's id: Meta's next word about it does, and then it is ended.
    unknown = calls["asked, no reply yet"]
    cloud.send(unknown.status("RINGING"))
    assert unknown.ended(10) == "terminate"
    for status in ("ringing", "answered"):
        until(lambda status=status: api.get("/v1/whatsapp/calls", accountId="desk", status=status)["calls"] == [], 5,
              lambda status=status: api.get("/v1/whatsapp/calls", accountId="desk", status=status))
    assert box.config.read_bytes() == config
    whole(box)
    again = dial.answered("echo")
    talk(1)
    again.hang_up()
    assert box.record(again)["why"] == "user_hung_up"
    nothing_left(pbx)


def test_a_power_cut_while_settings_are_written_leaves_a_whole_file(box, talk):
    api = Api(box, API_KEY)
    for turn in range(3):
        over = threading.Event()
        written = []

        def write():
            while not over.is_set():
                seconds = 60 + len(written) % 1000
                try:
                    if api.ask("PATCH", "/v1/phone-numbers/desk/whatsapp/calling", {"accountId": "desk", "maxCallDurationSeconds": seconds}).status == 200:
                        written.append(seconds)
                except OSError:
                    return
        writer = threading.Thread(target=write)
        writer.start()
        until(lambda: written, 20, "nothing was written")
        talk(0.05 + 0.17 * turn)
        box.kill()
        over.set()
        writer.join(10)
        box.run("check")
        text = box.config.read_text()
        assert "# a comment that must stay" in text
        kept = int(text.split("max_call_seconds = ")[1].split()[0])
        assert kept in (written[-1], written[-1] + 1, 60), (kept, written[-1])
        assert box.config.stat().st_mode & 0o777 == 0o600
        box.start()
    print(f"three cuts; {len(written)} changes before the last one; beside the file: {sorted(p.name for p in box.folder.iterdir())}")
    assert not [p for p in box.folder.iterdir() if p.name.startswith(box.config.name) and p != box.config], "a half-written copy is left"
    whole(box)


def test_a_full_disk_stops_no_call_and_is_told(disk, box, dial, people, pbx, talk):
    dial.numbers = dial.numbers | POWER
    first = dial.answered("echo")
    first.hang_up()
    box.record(first)
    told = len(box.err)
    disk()
    call = dial.answered("echo", frames=sound.tone(700, -10))
    person = people()
    pbx.dial(person.phone, "power")
    out = person.called()
    out.picked_up()
    talk(2.5)
    call.hang_up()
    out.hang_up()
    print("with a full disk: " + call.measure().tone(700, -10, gap=0.2))
    said = [line for line in box.err[told:] if "WARN" in line]
    print("\n".join(said[:4]))
    assert any(word in line for line in said for word in ("disk", "history", "full")), "the admin was not told"
    assert len(said) < 20, "a full disk must not fill the log"
    (box.folder / "state" / "filler").unlink()
    talk(0.5)
    last = dial.answered("echo")
    talk(0.5)
    last.hang_up()
    assert box.record(last, 15)["answered"] is True
    kept = [any(c.id in r.values() for r in box.records()) for c in (call, out)]
    print(f"calls made while the disk was full are in the history afterwards: {kept}")
    whole(box)
