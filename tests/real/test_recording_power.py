"""Recordings when the power fails and when the disk does: what was written plays, and no call is disturbed."""

import subprocess
import time

import pytest

import asterisk
import lateness
import tapes
from disk import Disk
from tapes import FAR, FORMS, PROMPT_SECONDS, QUIET, USER
from trunklab import hears, until

COUNT = len(FORMS) + 1


@pytest.fixture
def on_disk(recorders):
    """Starts a gateway whose recordings have a disk of their own: (gateway, disk)."""
    made = []

    def start(host, more="", size=4 << 20):
        def mount(box):
            (box.folder / "state").mkdir(mode=0o700)
            made.append((host, Disk(tapes.folder(box), size)))
            box.environment |= made[-1][1].environment
        return recorders(host, more, before=mount), made[-1][1]
    yield start
    for host, disk in made:
        disk.well()
        recorders.boxes.end(host)
        disk.remove()


def test_what_a_power_cut_broke_off_plays_up_to_the_last_second_in_every_form(recorders, rings, talk, players, tmp_path, trunk_pbx):
    age = tapes.Age(tmp_path)
    box = recorders(64)
    calls = {}
    for form in [*FORMS, "sealed"]:
        recorders.change(box, FORMS.get(form, "sample_rate = 16000") + (f'\nencrypt_to = ["{age.public}"]' if form == "sealed" else ""))
        calls[form] = rings(box, "alaw", frames=tapes.sound.tone(USER, -10))
        talk(0.3)
    talk(PROMPT_SECONDS + QUIET + 1)
    paused = tapes.row(box, calls["sealed"])["_id"]
    for way in ("--pause", "--resume"):
        box.run("recording", paused, way)
        talk(2)
    box.kill()
    cut = time.time()
    trunk_pbx.cli("channel request hangup all")         # the PBX has its own timers for a box that is gone
    parts = [name for name in tapes.files(box) if name.endswith(".part")]
    assert len(parts) == COUNT, parts
    box.start()
    until(lambda: len([name for name in tapes.files(box) if not name.endswith(".part")]) == COUNT, 10, lambda: tapes.files(box))
    for form, call in calls.items():
        row = tapes.over(box, call)
        part = row["recording"]
        path = tapes.fetch(box, row, tmp_path)
        if form == "sealed":
            path = tapes.opened(box, row, age.identity, tmp_path / "opened.wav")
        tape = players.both(path)
        _, ended = tapes.prompted(call)
        print(f"{form}: {tape.seconds:.2f} s of {cut - ended - QUIET:.2f} s, {part['seconds']} s on the record; "
              + tapes.tones(tape, end=0.6 if form == "sealed" else -0.1))
        # What is being filled, the turns of the threads that write it, and what waits in the jitter buffers.
        assert cut - ended - QUIET - 1.1 < tape.seconds < cut - ended - QUIET + 0.3, "more than a second is missing"
        assert abs(part["seconds"] - tape.seconds) < 0.05 and (part["state"], part["outcome"]) == ("kept", "interrupted"), part
        assert box.api.get(f"/v1/calls/{row['_id']}")["call"]["why"] == "interrupted"
        assert part["sha256"] and part["consent"] == "announced", part
        assert (1.5 < part["pausedSeconds"] < 5) if form == "sealed" else part["pausedSeconds"] == 0, part
    assert not [name for name in tapes.files(box) if name.endswith(".part")]
    age.stop()


def test_a_disk_that_is_slow_or_broken_for_a_while_costs_nothing(on_disk, rings, talk, players, tmp_path):
    """Each write takes a tenth of a second and each sync six, and for two seconds nothing can be written at all."""
    box, disk = on_disk(65)
    disk.slow(write=0.1, sync=0.6)
    begun = time.monotonic()
    calls = [rings(box, "alaw", frames=tapes.sound.tone(USER, -10)) for _ in range(3)]
    until(lambda: len(tapes.files(box)) == 3, 15, lambda: tapes.files(box))
    talk(1.5)
    disk.broken()
    talk(2)
    disk.broken(0, 0)
    talk(2)
    for call in calls:
        call.hang_up()
    for call in calls:
        row = tapes.over(box, call, 40)
        tape = players.both(tapes.fetch(box, row, tmp_path))
        _, ended = tapes.prompted(call)
        print(f"{tape.seconds:.2f} s, {row['recording']['outcome']}, {row['recording']['lostSeconds']} s lost; {tapes.tones(tape, since=begun)}")
        assert abs(tape.seconds - (call.ended_at - ended - QUIET)) < 0.3 and row["recording"]["outcome"] == "complete", row["recording"]
        late = lateness.worst(begun)[0]
        print("the user heard " + hears(call, FAR, asterisk.MILLIWATT_DBFS, ended + QUIET + 0.4, call.ended_at - 0.1, gap=0.04 + late))
    said = [line for line in box.err if "WARN" in line]
    print("\n".join(said[:3]))
    assert any("disk" in line or "written" in line or "recording" in line for line in said), "nobody was told"
    assert len(said) < 10, said


def test_a_full_disk_costs_the_recording_and_never_the_call(on_disk, rings, talk, players, tmp_path):
    box, disk = on_disk(66, "sample_rate = 16000")
    begun = time.monotonic()
    calls = {name: rings(box, "alaw", frames=tapes.sound.tone(USER, -10)) for name in ("before", "short of it")}
    talk(PROMPT_SECONDS + QUIET + 2)
    disk.fill()
    talk(2.5)
    during = rings(box, "alaw", frames=tapes.sound.tone(USER, -10))
    talk(PROMPT_SECONDS + QUIET + 1.5)
    calls["short of it"].hang_up()                      # at its end the disk is still full
    during.hang_up()
    disk.relieve()
    disk.fill(leave=64_000)                             # room for a second
    talk(33)                                            # the recorder's patience after a call is half a minute
    disk.relieve()
    talk(1.5)
    calls["before"].hang_up()
    rows = {name: tapes.over(box, call, 45) for name, call in [*calls.items(), ("during", during)]}
    for name, row in rows.items():
        part = row["recording"]
        print(f"{name}: {part['outcome']}, {part['seconds']} s, {part['lostSeconds']} s lost: {part['error']}")
    late = lateness.worst(begun)[0]
    for name, call in [*calls.items(), ("during", during)]:
        _, ended = tapes.prompted(call)
        print(f"{name}: the user heard " + hears(call, FAR, asterisk.MILLIWATT_DBFS, ended + QUIET + 0.4, call.ended_at - 0.1, gap=0.04 + late))
        part = rows[name]["recording"]
        if part["state"] == "kept":
            tape = players.both(tapes.fetch(box, rows[name], tmp_path))
            talked = call.ended_at - ended - QUIET
            print(f"{name}: {tape.seconds:.2f} s of {talked:.2f} s; {tapes.tones(tape, end=1.5)}")
            assert abs(part["seconds"] - tape.seconds) < 0.05 and tape.seconds < talked + 0.3
            # What is not there is told.
            missing = talked - tape.seconds + part["lostSeconds"]
            assert part["outcome"] == ("gaps" if missing > 0.5 else "complete") and (missing < 0.5 or part["lostSeconds"] or part["error"]), part
    assert rows["during"]["recording"]["outcome"] == "failed" and rows["during"]["recording"]["error"], rows["during"]["recording"]
    assert rows["short of it"]["recording"]["outcome"] == "gaps" and rows["before"]["recording"]["state"] == "kept"
    after = rings(box, "alaw", frames=tapes.sound.tone(USER, -10))
    talk(PROMPT_SECONDS + QUIET + 1.5)
    after.hang_up()
    row = tapes.over(box, after)
    assert row["recording"]["outcome"] == "complete", row["recording"]
    said = [line for line in box.err if "WARN" in line]
    print("\n".join(said[:4]))
    assert said and len(said) < 12, "a full disk is told, and must not fill the log"


def test_a_folder_that_can_not_be_written_is_told_and_the_call_goes_on(on_disk, rings, talk):
    box, disk = on_disk(65)
    subprocess.run(["mount", "-o", "remount,ro", str(disk.path)], check=True)
    begun = time.monotonic()
    call = rings(box, "alaw", frames=tapes.sound.tone(USER, -10))
    talk(PROMPT_SECONDS + QUIET + 2)
    call.hang_up()
    row = tapes.over(box, call)
    part = row["recording"]
    _, ended = tapes.prompted(call)
    print(f"{part['outcome']}: {part['error']}; the user heard "
          + hears(call, FAR, asterisk.MILLIWATT_DBFS, ended + QUIET + 0.4, call.ended_at - 0.1, gap=0.04 + lateness.worst(begun)[0]))
    assert (part["state"], part["outcome"]) == ("failed", "failed") and part["error"] and row["recordingUrl"] is None
    reply = box.api.ask("GET", f"/v1/calls/{row['_id']}/recording")
    assert reply.status == 404 and part["error"] in reply["error"], reply
    subprocess.run(["mount", "-o", "remount,rw", str(disk.path)], check=True)
