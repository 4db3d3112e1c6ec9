"""Recordings of real calls: each side on its own channel, nothing of before the consent, and no call disturbed."""

import os
import threading
import time

import pytest

import asterisk
import lateness
import many
import network
import sound
import tapes
from bot import Bearing, Bot, Pcm16
from peer import Impairment
from tapes import CODECS, EARLY, FAR, FORMS, NO, PROMPT_HERTZ, PROMPT_SECONDS, QUIET, RATES, USER
from trunklab import HAND, hears, stretch, tone, until
from voice import Voice

ASKED = {"recording_consent": "ask"}
# How long two ends with clocks of their own talk, and by how many millionths one is fast and the other slow.
DRIFT_SECONDS = int(os.environ.get("WATRUNK_DRIFT_SECONDS") or 34)
DRIFT_PPM = float(os.environ.get("WATRUNK_DRIFT_PPM") or 600)


@pytest.fixture(scope="module")
def bot(tmp_path_factory):
    """A voice agent that greets at once."""
    it = Bot(network.address(69), 8443, tmp_path_factory.mktemp("bot"), {"greets": Bearing(Pcm16(16000), greet=(1000, -10, 2.5))})
    yield it.start()
    it.stop()


@pytest.fixture(scope="module")
def box(recorders, bot):
    """A gateway whose numbers record in every way there is."""
    numbers = {
        "ask": ASKED | {"forward_to": "sip:digits@alaw", "trunk": "alaw"},
        "asked": ASKED | {"forward_to": "sip:record@alaw", "trunk": "alaw"},
        "both": {"forward_to": "sip:someone@hand", "trunk": "hand", "recording_announce_to": "both"},
        "builtin": {"forward_to": "sip:record@alaw", "trunk": "alaw", "recording_prompt": "builtin"},
        "agent": {"forward_to": bot.url("greets"), "dialect": "pcm16", "trunk": "alaw"},
        "quiet": {"forward_to": "sip:record@alaw", "trunk": "alaw", "recording": NO},
        "beeps": {"forward_to": "sip:someone@hand", "trunk": "hand", "recording_beep_seconds": tapes.Bare("5")},
    }
    return recorders(60, numbers=numbers, more=f'\n[agent]\nca_file = "{bot.authority.file}"\n')


@pytest.mark.parametrize("form", FORMS)
def test_the_user_is_on_the_left_the_destination_on_the_right_and_nothing_of_before_the_prompts_end(
        recorders, box, rings, talk, players, tmp_path, form):
    recorders.change(box, FORMS[form])
    begun = time.monotonic()
    calls = {codec: rings(box, codec, answered=False, frames=tapes.said(PROMPT_SECONDS - 0.4)) for codec in CODECS}
    for call in calls.values():
        call.action("accept")
    talk(PROMPT_SECONDS + QUIET + 3)
    for call in calls.values():
        call.hang_up()
    for codec, call in calls.items():
        row = tapes.over(box, call)
        path = tapes.fetch(box, row, tmp_path)
        tape, part = players.both(path), row["recording"]
        length, ended = tapes.prompted(call)
        # Asterisk moves its RTP time ahead where it was late itself by more than 13 ms (MAX_TIMESTAMP_SKEW, 640 of 48 kHz), which
        # on a busy machine is heard as a gap: in the call, and so in the recording.
        gap = 0.1 if codec == "opus" else 0.045
        early = max(side.share(hertz) for side, hertz in ((tape.left, EARLY), (tape.left, PROMPT_HERTZ), (tape.right, PROMPT_HERTZ)))
        print(f"{form}, {codec}: {tape.seconds:.2f} s, {call.ended_at - ended:.2f} s from the prompt's end to the call's; what was said "
              f"before {early:.0f} dBFS; offered {path.stat().st_size} bytes; {tapes.tones(tape, since=begun, gap=gap)}")
        assert early < -45, "what was said before the prompt's end is in the recording"
        assert abs(length - PROMPT_SECONDS) < 0.06 and abs(tape.seconds - (call.ended_at - ended - QUIET)) < 0.5, (length, call.ended_at - ended)
        assert tape.rate == RATES[form] and path.name == f"{row['_id']}.{'ogg' if form == 'ogg' else 'wav'}"
        assert (part["state"], part["outcome"], part["consent"]) == ("kept", "complete", "announced"), part
        assert abs(part["seconds"] - tape.seconds) < 0.03 and part["bytes"] == path.stat().st_size and not part["lostSeconds"]
        assert (tapes.folder(box) / path.name).stat().st_mode & 0o777 == 0o600 and tapes.folder(box).stat().st_mode & 0o777 == 0o700
        # The call itself was not disturbed.
        print(f"{codec}, heard by the user after the prompt: {hears(call, FAR, asterisk.MILLIWATT_DBFS, ended + QUIET + 0.4, call.ended_at - 0.1, gap=gap)}")


def test_the_prompt_is_heard_by_the_caller_and_by_the_pbx_only_if_it_is_told_to_be(recorders, box, rings, talk, players, tmp_path):
    recorders.change(box)
    ends = {name: Voice(HAND, codecs=["pcma"], hertz=1500) for name in ("hand", "both")}
    calls = {}
    for name, voice in ends.items():
        calls[name] = tapes.stands(recorders, box, rings, name, voice, frames=tapes.said(PROMPT_SECONDS - 0.4))
        # Each has its own prompt, and says something else well before that is over.
        threading.Timer(PROMPT_SECONDS - 0.6, setattr, (voice, "hertz", FAR)).start()
    builtin = rings(box, "builtin", user="5511987650001", frames=sound.tone(USER, -10))
    begun = time.monotonic()
    talk(PROMPT_SECONDS + 3 + QUIET)
    for call, line in calls.values():
        line.bye()
    builtin.hang_up()
    for name, (call, _) in calls.items():
        prompt, user = tapes.pbx_heard(ends[name], PROMPT_HERTZ), tapes.pbx_heard(ends[name], EARLY)
        length, ended = tapes.prompted(call)
        row = tapes.over(box, call)
        tape = players.both(tapes.fetch(box, row, tmp_path))
        print(f"{name}: the user heard the prompt for {length:.2f} s, the PBX for {prompt:.2f} s and what the user said meanwhile for "
              f"{user:.2f} s; 1500 Hz of before on the right {tape.right.share(1500):.0f} dBFS; " + tapes.tones(tape, dbfs=(-10, -10), since=begun))
        assert user == 0 and (prompt > 1.0 if name == "both" else prompt == 0), (name, user, prompt)
        assert tape.right.share(1500) < -45 and tape.left.share(EARLY) < -45
        assert row["recording"]["announcedToBoth"] is (name == "both")
        x = stretch(call, call.accepted_at, ended)
        assert tapes.stretch(x, sound.CLOCK, 1500) is None, "the user heard the destination during the prompt"
    row = tapes.over(box, builtin)
    heard = builtin.measure().steady(0)
    first = heard[:int(0.9 * sound.CLOCK)]
    # A vowel has 1004 Hz in it for an instant; the destination's tone would be most of all that is heard.
    speech, share = sound.level(first), sound.purity(first, sound.CLOCK, FAR)
    print(f"the built-in prompt ({row['recording']['prompt']}): {speech:.1f} dBFS in its first 0.9 s, {100 * share:.1f} % of it near "
          f"{FAR} Hz; recorded {row['recording']['seconds']} s")
    assert row["recording"]["prompt"] == "builtin:pt" and speech > -35 and share < 0.3
    assert row["recording"]["consent"] == "announced"


def test_who_presses_the_key_is_recorded_who_does_not_is_not_and_every_call_goes_on(recorders, box, rings, talk, players, tmp_path, seen, trunk_pbx):
    recorders.change(box)
    begun = time.monotonic()
    names = {"yes": "asked", "at once": "asked", "no key": "asked", "another": "asked", "late": "ask", "gives up": "asked"}
    calls = {name: rings(box, number, answered=False, frames=sound.tone(USER, -10)) for name, number in names.items()}
    for call in calls.values():
        call.action("accept")
    voice = Voice(HAND, codecs=["pcma"])
    short, line = tapes.stands(recorders, box, rings, "hand", voice)
    talk(0.4)
    calls["at once"].press("1")
    calls["gives up"].hang_up()
    line.bye()                                          # the call is over before the prompt is
    talk(PROMPT_SECONDS + 0.2)
    calls["yes"].press("1")
    calls["another"].press("5")
    talk(2.7)
    calls["late"].press("1")
    talk(1.2)
    ended = time.time()
    for name in ("yes", "at once", "no key", "another", "late"):
        calls[name].hang_up()
    calls["short"] = short
    rows = {name: tapes.over(box, call) for name, call in calls.items()}
    consents = {name: row["recording"]["consent"] for name, row in rows.items()}
    print(consents)
    assert consents == {"yes": "agreed", "at once": "agreed", "no key": "declined", "another": "declined", "late": "declined",
                        "gives up": "unfinished", "short": "unfinished"}
    for name, row in rows.items():
        reply = box.api.ask("GET", f"/v1/calls/{row['_id']}/recording", query={"as": "json"})
        if name in ("yes", "at once"):
            tape = players.both(tapes.fetch(box, row, tmp_path))
            # The lab's phone says nothing while a key is down.
            print(f"{name}: {tape.seconds:.2f} s; {tapes.tones(tape, begin=0.4, since=begun)}")
            low, high = (2.8, 4.9) if name == "yes" else (4.0, 6.5)
            assert low - QUIET < tape.seconds < high - QUIET
        else:
            assert reply.status == 404 and reply["details"]["consent"] == consents[name], reply
            assert (row["recording"]["state"], row["recording"]["outcome"], row["recordingUrl"]) == ("none", "nothing", None)
            assert not [file for file in tapes.files(box) if file.startswith(row["_id"])]
    for name in ("no key", "another"):
        print(f"{name}, goes on: {hears(calls[name], FAR, asterisk.MILLIWATT_DBFS, ended - 1.0, ended - 0.1)}")
        x, rate = trunk_pbx.heard(seen(calls[name])["num"])
        assert abs(sound.frequency(x[-rate:-rate // 4], rate) - USER) < 7 and abs(sound.level(x[-rate:-rate // 4]) + 10) < 3
    # What is pressed while being asked goes nowhere else; what is pressed afterwards does.
    keys = {name: trunk_pbx.digits(seen(calls[name])["chan"]) for name in ("yes", "another", "late")}
    print(f"keys that reached the PBX: {keys}")
    assert [keys["yes"], keys["another"], [k for k, _ in keys["late"]]] == [[], [], ["1"]]


def test_a_pause_by_a_program_by_a_key_and_by_info_is_silence_in_the_file(recorders, box, rings, talk, players, tmp_path):
    recorders.change(box)
    voices = {name: Voice(HAND, codecs=["opus" if name == "program" else "pcma"]) for name in ("program", "key", "info")}
    calls = {"program": tapes.stands(recorders, box, rings, "wide", voices["program"])}
    row = tapes.row(box, calls["program"][0])
    path = f"/v1/calls/{row['_id']}/recording"
    early = box.api.ask("PATCH", path, {"paused": True})
    assert early.status == 409, early                   # the prompt still plays
    calls |= {name: tapes.stands(recorders, box, rings, "hand", voices[name]) for name in ("key", "info")}

    def switch(paused):
        assert box.api.ask("PATCH", path, {"paused": paused}, key=tapes.READER).status == 403
        reply = box.api.ask("PATCH", path, {"paused": paused}, key=tapes.OPERATOR)
        assert reply.status == 200 and reply["paused"] is paused, reply
        voices["key"].press("*")
        calls["info"][1].request("INFO", "Signal=*\r\nDuration=160\r\n", kind="application/dtmf-relay")
    talk(PROMPT_SECONDS + QUIET + 1.2)
    paused = time.time()
    switch(True)
    talk(1.5)
    resumed = time.time()
    switch(False)
    talk(1.2)
    for _, line in calls.values():
        line.bye()
    for name, (call, _) in calls.items():
        row = tapes.over(box, call)
        tape = players.both(tapes.fetch(box, row, tmp_path))
        sides = [side.sounds(quiet=0.5) for side in tape.sides]
        quiet = [b[0] - a[1] for side in sides for a, b in zip(side, side[1:])]
        part = row["recording"]
        print(f"{name}: sound {[[(round(a, 2), round(b, 2)) for a, b in side] for side in sides]} in {tape.seconds:.2f} s; {part['pausedSeconds']} s paused")
        assert len(quiet) == 2 and all(abs(q - (resumed - paused)) < 0.5 for q in quiet), (quiet, resumed - paused, sides)
        assert abs(part["pausedSeconds"] - quiet[0]) < 0.3 and part["outcome"] == "complete", part
        for side, ((_, a), (b, _)) in zip(tape.sides, sides):
            assert side.level(a + 0.1, b - 0.1) < -75, "something is heard in the pause"
    print("meanwhile the user heard " + hears(calls["program"][0], FAR, -10, paused, resumed))
    row = tapes.row(box, calls["program"][0])
    assert box.api.ask("PATCH", path, {"paused": True}).status == 409, "the call is over"


def test_hold_a_transfer_and_a_voice_agent_are_in_the_recording(recorders, box, rings, talk, players, tmp_path, bot):
    recorders.change(box)
    at = time.time()
    agent = rings(box, "agent", frames=tapes.said(PROMPT_SECONDS - 0.4))
    session = bot.called("greets", at)
    voice = Voice(HAND, codecs=["pcma"], hertz=500)
    call, line = tapes.stands(recorders, box, rings, "hand", voice)
    began = time.monotonic()
    talk(PROMPT_SECONDS + QUIET + 1.2)
    assert line.reinvite("inactive").code == 200        # held
    voice.muted = True
    talk(1.2)
    assert line.reinvite("sendrecv").code == 200
    voice.muted = False
    talk(0.8)
    reply = box.api.post(f"/v1/voice/calls/{tapes.row(box, call)['_id']}/transfer", {"to": "sip:record@alaw"})
    assert reply.status == 200, reply
    line.hung_up()
    talk(2.5)
    call.hang_up()
    agent.hang_up()
    row = tapes.over(box, call)
    tape = players.both(tapes.fetch(box, row, tmp_path))
    tenths = [(tape.right.frequency(t, t + 0.2), tape.right.level(t, t + 0.2)) for t in (i * 0.2 for i in range(int(tape.seconds / 0.2)))]
    heard = "".join("." if level < -45 else "5" if abs(f - 500) < 25 else "M" if abs(f - FAR) < 25 else "?" for f, level in tenths)
    print(f"{tape.seconds:.2f} s; the destination in fifths of a second: {heard}")
    first, held, again = heard.partition("..")
    assert len(first) >= 4 and set(first) <= set("5?") and "5" in again and again.rstrip("?.").endswith("MMMMM"), heard
    assert 3 <= heard.count(".") - heard.rpartition("5")[2].count(".") <= 8, "the hold is not as long as it was"
    print("the user all the while: " + tape.left.tone(USER, -10, 0.1, tape.seconds - 0.1, gap=0.1 + lateness.worst(began)[0]))
    row = tapes.over(box, agent)
    tape = players.both(tapes.fetch(box, row, tmp_path))
    greeting = tape.right.sounds(quiet=0.3)
    _, ended = tapes.prompted(agent)
    first = session.sounds()[0][0]
    print(f"agent: {tape.seconds:.2f} s; the greeting from {greeting[0][0]:.2f} to {greeting[0][1]:.2f} s; the agent first heard the user "
          f"{first - ended:+.2f} s after the prompt; {session.tone(USER, -10, skip=0.3)}; {tape.left.tone(USER, -10, 0.1, tape.seconds - 0.1)}")
    assert greeting[0][0] < 0.3 and abs(greeting[0][1] - greeting[0][0] - 2.5) < 0.15, "the greeting was not held until the prompt's end"
    assert abs(tape.right.frequency(0.3, 2.3) - 1000) < 10 and first > ended + QUIET - 0.15
    assert tapes.stretch(session.heard(0), session.dialect.rate, EARLY) is None, "the agent heard the user during the prompt"
    assert tapes.stretch(session.heard(0), session.dialect.rate, PROMPT_HERTZ) is None, "the agent heard the prompt"


def test_what_is_said_at_the_same_moment_is_at_the_same_place_though_clocks_drift_and_the_network_is_bad(
        recorders, box, rings, talk, players, tmp_path):
    """The user's clock is fast, the PBX's slow; the user's packets are lost and overtake each other, the PBX's come straight. And
    a beep is heard by both. `make drift` does it for ten minutes with clocks as they are; here they are worse, so that it is seen soon."""
    recorders.change(box, FORMS["wide"])
    calls = {}
    for name, codec in (("hand", "pcma"), ("wide", "opus")):
        call = rings(box, name, answered=False, frames=tapes.pattern(USER), impairment=Impairment(loss=0.03, jitter=0.03, seed=11))
        call.peer.ppm = DRIFT_PPM
        line = recorders.hand.rung(call=call)
        line.pick_up(tapes.Bursts(HAND, call, tapes.pattern(FAR, codec), -DRIFT_PPM, codecs=[codec]))
        call.action("accept")
        calls[codec] = call, line
    voice = Voice(HAND, codecs=["pcma"])
    beeped, beep = tapes.stands(recorders, box, rings, "beeps", voice)
    talk(8)
    beep.bye()
    talk(DRIFT_SECONDS - 8)
    for codec, (call, line) in calls.items():
        line.bye()
    for codec, (call, line) in calls.items():
        tape = players.both(tapes.fetch(box, tapes.over(box, call), tmp_path))
        _, began = tapes.prompted(call)
        lost, found = call.peer.impairment, []
        for at, apart in tape.offsets(every=10.0):
            said = line.voice.behind(began + at, began + at + 10)
            found.append((at, said, apart - said))
        print(f"{codec}: {tape.seconds:.1f} s, {lost.lost_out} of {lost.lost_out + lost.passed_out} packets of the user lost; the PBX spoke "
              f"{1000 * found[0][1]:+.1f} ms behind at first, {1000 * found[-1][1]:+.1f} ms at last; in the file beyond that " + worst_each_minute(found))
        assert len(found) >= 3 and all(abs(beyond) < 0.02 for _, _, beyond in found)
        # The clocks did drift: the two ends, each placed by how much it had said, would be further apart than is allowed.
        assert found[-1][1] - found[0][1] > 0.02
    tapes.over(box, beeped)
    user = tapes.stretch(beeped.measure().decode(), sound.CLOCK, 1400, above=-32)
    print(f"beeps: heard by the user from {user[0]:.2f} to {user[1]:.2f} s, by the PBX for {tapes.pbx_heard(voice, 1400, -32):.2f} s")
    assert 4.5 < user[1] - user[0] < 6 and 0.3 < tapes.pbx_heard(voice, 1400, -32) < 0.7, "two beeps of 0.24 s were due"


def worst_each_minute(found):
    """How far from what was said the two sides were in each minute, where it was most."""
    minutes = [[beyond for at, _, beyond in found if at // 60 == m] for m in range(int(found[-1][0] // 60) + 1)]
    return "at most " + ", ".join(f"{1000 * max(minute, key=abs):+.1f} ms in minute {m + 1}" for m, minute in enumerate(minutes) if minute)


def test_a_call_that_goes_out_is_recorded_as_the_number_the_program_or_the_operator_says(recorders, box, users, talk, players, tmp_path):
    recorders.change(box)
    begun = time.monotonic()
    people = {name: users(frames=sound.tone(USER, -10)) for name in ("api", "cli", "not", "pbx")}
    for name, number, override in (("api", "quiet", True), ("not", "alaw", False)):
        reply = box.api.post("/v1/whatsapp/calls", {"accountId": number, "to": people[name].phone, "recordOverride": override,
                                                    "forwardTo": f"sip:record-{people[name].phone}@alaw"})
        assert reply.status == 200, reply
    print(box.run("call", "+" + people["cli"].phone, "--number", "quiet", "--record", "--forward-to", f"sip:record-{people['cli'].phone}@alaw"))
    line = recorders.hand.dial(recorders.hand.towards((box.address, 5060)), f"sip:+{people['pbx'].phone}@{box.address}",
                               Voice(HAND, codecs=["pcma"], dbfs=asterisk.MILLIWATT_DBFS))
    assert line.final(10).code == 200
    calls = {name: person.called() for name, person in people.items()}
    for call in calls.values():
        call.picked_up()
    talk(PROMPT_SECONDS + QUIET + 2.5)
    for call in calls.values():
        call.hang_up()
    for name, call in calls.items():
        row = tapes.over(box, call)
        assert row["recordingEnabled"] is (name != "not"), row
        if name == "not":
            assert row["recording"] is None and row["recordingUrl"] is None
            print(f"{name}: {tone(call, FAR, asterisk.MILLIWATT_DBFS)}")
            continue
        tape = players.both(tapes.fetch(box, row, tmp_path))
        _, ended = tapes.prompted(call)
        print(f"{name}: {tape.seconds:.2f} s; {tapes.tones(tape, since=begun)}")
        assert abs(tape.seconds - (call.ended_at - ended - QUIET)) < 0.5, (tape.seconds, call.ended_at - ended)


def test_many_recorded_calls_at_once_are_all_whole_and_none_is_disturbed(recorders, rings, talk, players, tmp_path, trunk_pbx):
    box = recorders(61, numbers={"echo": {"forward_to": "sip:echo@alaw", "trunk": "alaw"}})
    first = rings(box, "echo", frames=sound.tone(USER, -10))
    talk(1)
    first.hang_up()
    tapes.over(box, first)
    (_, files), memory = box.descriptors(), []
    cost = many.Cost(gateway=box.process.pid, asterisk=trunk_pbx.process.pid)
    hertz = many.pitches(700)                         # the prompt has 440
    for _ in range(2):
        begun = time.monotonic()
        calls = [rings(box, "echo", answered=False, frames=many.frames(f)) for f in hertz]
        for call in calls:
            call.action("accept", 15)
        cost.begin()
        talk(PROMPT_SECONDS + QUIET + 5)
        spent = str(cost)
        for call in calls:
            call.hang_up()
        late, interval, shares = lateness.worst(begun)[0], 0.0, []
        for f, call in zip(hertz, calls):
            _, ended = tapes.prompted(call)
            row = tapes.over(box, call, 20)
            tape = players.ffmpeg(tapes.fetch(box, row, tmp_path))
            assert row["recording"]["outcome"] == "complete" and not row["recording"]["lostSeconds"], row
            assert len(tape.sides) == 2 and abs(tape.seconds - (call.ended_at - ended - QUIET)) < 0.5, (tape.seconds, call.ended_at - ended)
            for name, side in zip(("left", "right"), tape.sides):
                pitch, loud, gap = (what(0.8, tape.seconds - 0.2) for what in (side.frequency, side.level, side.gap))
                assert abs(pitch - f) < 0.01 * f and abs(loud + 10) < 3 and gap <= 0.1 + late, \
                    f"{name} of {f} Hz: {pitch:.1f} Hz at {loud:.1f} dBFS, a gap of {1000 * gap:.0f} ms; the lab was {1000 * late:.0f} ms late"
            x = stretch(call, ended + QUIET + 0.5, call.ended_at - 0.1)
            assert abs(sound.frequency(x, sound.CLOCK) - f) < 0.01 * f and sound.longest_gap(x, sound.CLOCK) <= 0.1 + late
            interval = max(interval, call.measure().longest_interval)
            shares.append(tape.seconds)
        until(lambda: box.descriptors()[1] <= files + 1, 8, lambda: f"{box.descriptors()} are open, {files} were")
        memory.append(box.memory())
        print(f"{len(calls)} recordings of {min(shares):.2f} to {max(shares):.2f} s, {spent}; longest interval between packets at a user "
              f"{1000 * interval:.0f} ms; the lab was {1000 * late:.0f} ms late; memory {memory[-1]:.1f} MiB")
    assert not [name for name in tapes.files(box) if name.endswith(".part")]
    assert memory[1] - memory[0] <= many.GROWTH, memory
