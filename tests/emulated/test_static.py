"""The binaries for boxes: each carries a whole call, with the user and the PBX on this machine.

An ARM binary runs under qemu-user. That proves the code of its target and its system calls, not its speed.
"""

import asterisk
import sound


def test_it_carries_a_call_that_both_sides_hear(static, dial, talk, pbx):
    call = dial.answered("record", timeout=30, frames=sound.tone(700, -10))
    talk(8)
    call.hang_up()
    heard = call.measure()
    # An emulator that is late for a packet leaves a hole that a board doesn't: it stops to translate code, and
    # shares two cores with the PBX and the user. The tone must be right all the same, and sound for most of the time.
    gap = 0.4 if static.emulated else 0.06
    print("heard by the user: " + heard.tone(1004, asterisk.MILLIWATT_DBFS, gap=gap, skip=2.0))
    x, rate = pbx.heard(dial.seen(call)["num"])
    x = x[2 * rate:-rate // 2]
    f, level, hole = sound.frequency(x, rate), sound.level(x), sound.longest_gap(x, rate)
    print(f"heard by the PBX: {f:.1f} Hz at {level:.1f} dBFS, purity {sound.purity(x, rate, 700):.4f}, gap {1000 * hole:.0f} ms, "
          f"{len(x) / rate:.1f} s")
    assert len(x) > 4 * rate
    assert abs(f - 700) < 7 and abs(level + 10) <= 3 and hole <= gap
    record = static.record(call, 30)
    assert record["why"] == "user_hung_up" and record["answered"] is True
    assert 7 <= record["talk_seconds"] <= 12


def test_it_reads_the_keys_that_the_user_presses(static, dial, talk, pbx):
    call = dial.answered("digits", timeout=30)
    talk(2)
    call.press("159#")
    talk(3)
    keys = pbx.digits(dial.seen(call)["chan"])
    print(f"keys at the PBX: {keys}")
    assert [k for k, _ in keys] == list("159#")
    call.action("terminate")
