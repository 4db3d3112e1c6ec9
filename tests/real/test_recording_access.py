"""Who gets a recording, and how: links, ranges, roles, the command line, events, costs, encryption, deletion and the audit log."""

import datetime
import hashlib
import subprocess
import time
import urllib.error
import urllib.request

import pytest

import network
import tapes
from gateway import API_KEY
from hook import Hook
from tapes import FORMS, PROMPT_SECONDS, QUIET, USER
from trunklab import until

HOOK_SECRET = "whsec-lab-tapes"


@pytest.fixture(scope="module")
def ages(tmp_path_factory):
    """Two pairs of keys, made by age itself."""
    folder = tmp_path_factory.mktemp("age")
    made = [tapes.Age(folder, name) for name in ("age", "other-age")]
    yield made
    for it in made:
        it.stop()


@pytest.fixture(scope="module")
def hook():
    """The application that hears of calls."""
    it = Hook(network.address(68), 8090, HOOK_SECRET)
    yield it
    it.close()


@pytest.fixture(scope="module")
def box(recorders, hook):
    """A gateway whose recordings cost 60 cents a minute."""
    more = f'\n[[webhook]]\nid = "app"\nurl = "{hook.url}"\nsecret = "{HOOK_SECRET}"\n'
    it = recorders(62, "per_minute_usd = 0.6", more=more)
    it.secrets.append(HOOK_SECRET)
    return it


class Stay(urllib.request.HTTPRedirectHandler):
    """Follows nothing."""

    def redirect_request(self, *_):
        return None


def get(url, method="GET", **headers):
    """(status, headers, body) of a request without a key; nothing is followed."""
    request = urllib.request.Request(url, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.build_opener(Stay).open(request, timeout=5) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_a_recording_is_given_to_those_who_may_have_it_by_a_link_in_whole_and_in_parts(box, hook, rings, talk, players, tmp_path):
    calls = {name: rings(box, "alaw", frames=tapes.sound.tone(USER, -10)) for name in ("api", "cli")}
    ids = {name: tapes.row(box, call)["_id"] for name, call in calls.items()}
    path = f"/v1/calls/{ids['api']}/recording"
    talk(PROMPT_SECONDS + QUIET + 0.8)
    assert box.api.get(path).status == 409, "it is being written"
    state = lambda: tapes.row(box, calls["api"])["recording"]["state"]
    assert state() == "running"
    box.run("recording", ids["api"], "--pause")
    until(lambda: state() == "paused", 2, state)
    assert ", recording paused" in box.run("calls")
    talk(1.0)
    box.run("recording", ids["api"], "--resume")
    talk(1.5)
    for call in calls.values():
        call.hang_up()
    ended = hook.wait(lambda h: h.of(ids["api"], "call.ended"))[0]
    rows = {name: tapes.over(box, call) for name, call in calls.items()}
    row, part = rows["api"], rows["api"]["recording"]
    whole = tapes.fetch(box, row, tmp_path)
    data = whole.read_bytes()
    tape = players.both(whole)
    assert part["sha256"] == hashlib.sha256(data).hexdigest() and part["outcome"] == "complete" and 0.8 < part["pausedSeconds"] < 3
    tags = {k.lower(): v for k, v in tape.about["tags"].items()}
    print(f"{tape.seconds:.2f} s, the file says of itself {tags}")
    assert tags["title"] == ids["api"] and all(it in tags["comment"] for it in ("left: WhatsApp user, right: destination", "complete"))

    # What the event says.
    told = ended.json["call"]
    assert told["recordingUrl"].startswith("https://lab.example/v1/recordings/")
    assert until(lambda: (lambda got: got if got[0] == 200 else None)(get(tapes.here(box, told["recordingUrl"]))), 5, "no file")[2] == data
    expires = datetime.datetime.fromisoformat(told["recordingExpiresAt"]).timestamp()
    assert abs(expires - time.time() - 3 * 86400) < 60 and row["recordingExpiresAt"] == part["expiresAt"]

    # What it costs: begun seconds without the pause.
    paid = part["seconds"] - part["pausedSeconds"]
    print(f"{paid:.2f} s at 0.6 USD a minute: {row['billing']}")
    for billing in (row["billing"], told["billing"]):
        assert paid * 0.01 - 1e-9 <= billing["recordingCostUSD"] <= (paid + 1.05) * 0.01 and billing["billableCostUSD"] == billing["recordingCostUSD"]

    # Links: 302, as=json, whole, parts, wrong ones.
    status, headers, _ = get(box.url + path, Authorization=f"Bearer {API_KEY}")
    assert status == 302 and headers["Location"].startswith("../")
    url = urllib.request.urljoin(box.url + path, headers["Location"])
    assert get(url)[2] == data
    by_account = box.api.ask("GET", f"/v1/whatsapp/calls/{ids['api']}/recording", query={"accountId": row["accountId"], "as": "json"})
    assert by_account.status == 200 and get(tapes.here(box, by_account["url"]))[2] == data
    assert 590 < datetime.datetime.fromisoformat(by_account["expiresAt"]).timestamp() - time.time() < 605
    status, headers, body = get(url, Range="bytes=100-299")
    assert (status, body, headers["Content-Range"]) == (206, data[100:300], f"bytes 100-299/{len(data)}")
    assert get(url, Range="bytes=-50")[2] == data[-50:] and get(url, Range=f"bytes={len(data) - 7}-")[2] == data[-7:]
    status, headers, _ = get(url, Range=f"bytes={len(data)}-")
    assert status == 416 and headers["Content-Range"] == f"bytes */{len(data)}"
    status, headers, body = get(url, "HEAD")
    assert (status, body, int(headers["Content-Length"]), headers["Content-Type"]) == (200, b"", len(data), "audio/wav")
    assert headers["ETag"] == f'"{part["sha256"]}"' and headers["Accept-Ranges"] == "bytes"
    forged = [url.replace("signature=", "signature=0"), url.replace(ids["api"], ids["cli"]), url.replace("for=ops", "for=boss"),
              url.replace("expires=", "expires=9"), url.split("?")[0]]
    assert [get(it)[0] for it in forged] == [403] * 5

    # Roles.
    asked = [box.api.ask("GET", path, query={"as": "json"}, key=key).status for key in ("", "sk_wrong", tapes.READER, tapes.OPERATOR)]
    assert asked == [401, 401, 200, 200]
    assert [box.api.ask("DELETE", path, key=key).status for key in ("", tapes.READER, tapes.OPERATOR)] == [401, 403, 403]
    assert [box.api.ask("GET", "/v1/audit", key=key).status for key in ("", tapes.READER, tapes.OPERATOR)] == [401, 403, 403]

    # The command line: the same bytes, the list.
    for name in ids:
        with open(tmp_path / f"{name}.cli", "wb") as out:
            subprocess.run([*box.command, "recording", ids[name], "--config", str(box.config)], stdout=out, check=True, timeout=20)
    assert (tmp_path / "api.cli").read_bytes() == data
    listed = box.run("recordings")
    print(listed)
    assert all(it in listed for it in ids.values())

    # Deleted, once.
    gone = box.api.ask("DELETE", path)
    assert gone.status == 200 and gone["deleted"] is True, gone
    print(box.run("recording", ids["cli"], "--delete"))
    for name in ids:
        assert not [file for file in tapes.files(box) if file.startswith(ids[name])]
        again = box.api.ask("DELETE", f"/v1/calls/{ids[name]}/recording")
        assert again.status == 404 and again["details"]["deletedBy"] == "ops", again
        assert box.api.get(f"/v1/calls/{ids[name]}/recording").status == 404
        about = box.api.get(f"/v1/calls/{ids[name]}")["call"]
        assert about["recording"]["state"] == "deleted" and about["recording"]["consent"] == "announced" and about["recordingUrl"] is None
    assert get(url)[0] == 404, "the link is still good, the file is gone"
    entries = [(e["who"], e["action"], e["subject"]) for e in box.api.get("/v1/audit")["entries"]]
    print(box.run("audit"))
    assert entries.count(("ops", "recording.deleted", ids["api"])) == entries.count(("ops", "recording.deleted", ids["cli"])) == 1
    assert ("call.ended", "recording.fetched", ids["api"]) in entries and ("ops", "recording.fetched", ids["api"]) in entries
    assert not [e for e in entries if e[0] == "reader"], "a link that nobody used is nothing that was heard"


@pytest.mark.parametrize("form", ["ulaw", "ogg"])
def test_an_encrypted_recording_is_nothing_without_the_key_and_a_recording_with_it(recorders, box, rings, talk, players, ages, tmp_path, form):
    mine, other = ages
    recorders.change(box, f'{FORMS[form]}\nencrypt_to = ["{mine.public}"]')
    call = rings(box, "g722", frames=tapes.sound.tone(USER, -10))
    talk(PROMPT_SECONDS + QUIET + 2.5)
    call.hang_up()
    row = tapes.over(box, call)
    part, path = row["recording"], tapes.fetch(box, row, tmp_path)
    data = path.read_bytes()
    kind = "ogg" if form == "ogg" else "wav"
    assert part["encrypted"] is True and part["outcome"] == "complete" and part["format"] == kind, part
    assert path.name == f"{row['_id']}.{kind}.age" and path.name in tapes.files(box)
    assert b"RIFF" not in data and b"OggS" not in data and b"Opus" not in data
    with pytest.raises(AssertionError, match="can't read"):
        players.ffmpeg(path)
    blocks = tapes.sealed_blocks(data)
    plain = [mine.decrypt(message) for message, _ in blocks]        # by age itself
    heard = tapes.opened(box, row, mine.identity, tmp_path / f"heard.{kind}")
    tape = players.both(heard)
    print(f"{form}: {len(blocks)} blocks, {len(data)} bytes for {len(heard.read_bytes())}; {tapes.tones(tape)}")
    assert plain[0].startswith(b"RIFF" if kind == "wav" else b"OggS") and heard.read_bytes() == b"".join(plain)
    assert abs(sum(ticks for _, ticks in blocks) * 0.02 - tape.seconds) < 0.05 and abs(tape.seconds - part["seconds"]) < 0.05
    wrong = subprocess.run([*box.command, "recording", row["_id"], "--identity", str(other.identity), "--config", str(box.config)],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
    print(f"with another key: {wrong.stderr.decode().strip()}")
    assert wrong.returncode != 0 and not wrong.stdout
    changed = tmp_path / "identity"
    changed.write_text("no key at all\n")
    wrong = subprocess.run([*box.command, "recording", row["_id"], "--identity", str(changed), "--config", str(box.config)],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
    assert wrong.returncode != 0 and not wrong.stdout and b"no key at all" not in wrong.stderr


def test_above_the_quota_the_oldest_recording_goes_and_the_audit_log_says_so(recorders, rings, talk):
    box = recorders(63, "sample_rate = 16000\nmax_mib = 1")
    calls = []
    for _ in range(3):
        calls.append(rings(box, "alaw", frames=tapes.sound.tone(USER, -10)))
        talk(0.7)
    talk(PROMPT_SECONDS + QUIET + 4.3)
    rows = []
    for call in calls:
        talk(0.4)
        call.hang_up()
        rows.append(tapes.over(box, call))
    sizes = [row["recording"]["bytes"] for row in rows]
    assert sum(sizes) > 1 << 20 > sum(sizes[1:]), sizes
    begun = time.monotonic()
    gone = until(lambda: (lambda it: it if it["state"] == "deleted" else None)(box.api.get(f"/v1/calls/{rows[0]['_id']}")["call"]["recording"]),
                 75, lambda: f"{sizes} bytes are kept")
    print(f"of {sizes} bytes the first went {time.monotonic() - begun:.1f} s after the last call, by {gone['deletedBy']}")
    assert gone["deletedBy"] == "quota"
    assert [file.split(".")[0] for file in tapes.files(box)] == sorted(row["_id"] for row in rows[1:])
    entries = [(e["who"], e["action"], e["subject"]) for e in box.api.get("/v1/audit")["entries"]]
    assert ("quota", "recording.deleted", rows[0]["_id"]) in entries, entries
