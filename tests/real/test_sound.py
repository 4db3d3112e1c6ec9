"""What people hear: the WhatsApp user and the person at the PBX, through the real gateway."""

import statistics

import pytest

import asterisk
import sound
from peer import Impairment
from wire import Wire


def test_the_user_hears_the_pbx_as_a_whole_tone(gateway, dial, talk):
    assert gateway.get("/readyz")[0] == 200
    call = dial.answered("milliwatt")
    talk(5)
    call.hang_up()
    heard = call.measure()
    print("heard by the user: " + heard.tone(1004, asterisk.MILLIWATT_DBFS))
    assert heard.longest_interval < 0.1
    assert heard.missing == 0 and heard.doubled == 0
    assert heard.reports >= 1 and heard.report_interval <= 6
    print(f"after the answer was known: candidate pair nominated {1000 * heard.path[0]:.0f} ms, DTLS done {1000 * heard.path[1]:.0f} ms")
    assert 0 <= heard.first < 1.0
    record = gateway.record(call)
    assert record["why"] == "user_hung_up" and record["answered"] is True


@pytest.mark.parametrize("style", ["current", "older"])
def test_the_pbx_hears_the_user_while_the_user_hears_the_pbx(gateway, dial, talk, pbx, style):
    call = dial.answered("record", style=style, frames=sound.tone(700, -10))
    talk(5)
    call.hang_up()
    print(f"{style} offer, heard by the user: " + call.measure().tone(1004, asterisk.MILLIWATT_DBFS))
    print(f"heard by the PBX: {pbx.hears(dial.seen(call)['num'], 700, since=call.made)}")


@pytest.mark.parametrize("extension", ["echo", "via-echo"])
def test_an_echo_brings_the_users_own_tone_back(gateway, dial, talk, extension):
    call = dial.answered(extension, frames=sound.tone(700, -10))
    talk(4)
    call.hang_up()
    print(f"{extension}: " + call.measure().tone(700, -10))


def test_sound_crosses_the_gateway_without_much_delay(gateway, dial, talk, pbx):
    with Wire(gateway.address, pbx.address) as wire:
        call = dial.answered("echo", frames=sound.tone(700, -10, on=0.2, off=0.8, seconds=10))
        talk(8)
        call.hang_up()
    sent = [t for t, _, at in call.peer.sent if at % 50 == 0][1:]
    out, back, heard = wire.rises(gateway.address, pbx.address), wire.rises(pbx.address, gateway.address), call.measure().rises()

    def after(start, marks):
        return next((m - start for m in marks if 0 < m - start < 0.7), None)

    up = [d for d in (after(t, out) for t in sent) if d is not None]
    down = [d for d in (after(t, heard) for t in back) if d is not None]
    trip = [d for d in (after(t, heard) for t in sent) if d is not None]
    assert min(len(up), len(down), len(trip)) >= 4, (len(sent), len(out), len(back), len(heard))
    ms = [round(1000 * statistics.median(d), 1) for d in (up, down, trip)]
    print(f"delay (median of {len(up)}): user to PBX {ms[0]} ms (worst {1000 * max(up):.1f}), PBX to user {ms[1]} ms "
          f"(worst {1000 * max(down):.1f}), there and back {ms[2]} ms; encoder's and decoder's own included")
    assert ms[0] < 200 and ms[1] < 200


def test_a_bad_network_is_survived_and_counted(gateway, dial, talk, pbx):
    call = dial("record", frames=sound.tone(700, -10))
    call.ring()
    call.action("accept")
    bad = call.peer.impairment = Impairment(loss=0.05, jitter=0.03, seed=20)
    talk(10)
    call.hang_up()
    heard = call.measure()
    x = heard.steady()
    f = sound.frequency(x, sound.CLOCK)
    y, rate = pbx.heard(dial.seen(call)["num"])
    y = y[rate:-rate // 2]
    g, gap = sound.frequency(y, rate), sound.longest_gap(y, rate)
    record = gateway.record(call)
    quality = record["whatsapp"]
    print(f"user lost {bad.lost_in} of {bad.lost_in + bad.passed_in} and hears {f:.1f} Hz; gateway lost {bad.lost_out} of "
          f"{bad.lost_out + bad.passed_out}, the PBX hears {g:.1f} Hz, longest gap {1000 * gap:.0f} ms; record: {quality}")
    assert abs(f - 1004) <= 10 and abs(g - 700) <= 7
    assert abs(quality["lost"] - bad.lost_out) <= 3
    assert abs(quality["received"] - len(call.peer.sent) + bad.lost_out) <= 5
    assert quality["concealed"] + quality["repaired"] >= bad.lost_out * 0.7
    assert quality["jitter_ms"] > 3
    assert gap <= 0.06
    assert record["why"] == "user_hung_up" and record["answered"] is True


def test_the_pbx_reads_the_keys_that_the_user_presses(gateway, dial, talk, pbx):
    call = dial.answered("digits")
    talk(1)
    call.press("159#")
    talk(2)
    channel = dial.seen(call)["chan"]
    keys = pbx.digits(channel)
    print(f"keys at the PBX: {keys}")
    assert [k for k, _ in keys] == list("159#")
    assert all(60 <= ms <= 160 for _, ms in keys)
    call.action("terminate")
    assert [r["keys"] for r in pbx.said("READ") if r["num"] == dial.seen(call)["num"]] == ["159"]
    assert gateway.record(call)["why"] == "far_hung_up"


def test_early_media_of_the_pbx_does_not_reach_a_caller_who_is_not_answered(gateway, dial, talk):
    call = dial("early")
    call.ring()
    accepted = call.action("accept")
    assert accepted - call.rang_at >= 1.8
    talk(3)
    call.hang_up()
    print("after early media: " + call.measure().tone(1004, asterisk.MILLIWATT_DBFS))
