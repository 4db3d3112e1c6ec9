"""Finished recordings go to a store: what fails is tried again, over a restart too, and what is not confirmed stays here."""

import hashlib
import time

import pytest

import network
import tapes
from s3 import ACCESS_KEY, REGION, SECRET_KEY, Endpoint, Store, Trouble
from tapes import FORMS, PROMPT_SECONDS, QUIET, USER
from trunklab import until

TOKEN = "lab-archive-token-0c5e"


@pytest.fixture(scope="module")
def store():
    """An S3-compatible store."""
    it = Store(network.address(68)).start()
    yield it
    it.stop()


@pytest.fixture(scope="module")
def endpoint():
    """Something that takes files by PUT."""
    it = Endpoint(network.address(68), token=f"Bearer {TOKEN}").start()
    yield it
    it.stop()


def test_a_recording_is_uploaded_though_the_store_fails_and_the_gateway_restarts(recorders, rings, talk, players, tmp_path, store, endpoint):
    s3 = f"""url = "s3://{store.bucket}/box/1"
endpoint = "{store.url}"
region = "{REGION}"
access_key = "{ACCESS_KEY}"
secret_key = "{SECRET_KEY}"
keep_local = false"""
    http = f'url = "{endpoint.url}/in"\ntoken = "{TOKEN}"\nkeep_local = true'
    boxes = {"s3": recorders(66, FORMS["ogg"], upload=s3), "http": recorders(67, upload=http)}
    for box in boxes.values():
        box.secrets += [SECRET_KEY, TOKEN]
    # Its key may put objects, and not look at them.
    store.fail(Trouble(status=503, code="SlowDown", method="PUT"), Trouble(status=403, code="AccessDenied", method="HEAD", times=99))
    endpoint.fail(Trouble(cut=20_000))
    calls = {name: rings(box, "alaw", frames=tapes.sound.tone(USER, -10)) for name, box in boxes.items()}
    talk(PROMPT_SECONDS + QUIET + 2.5)
    for call in calls.values():
        call.hang_up()
    rows = {name: tapes.over(boxes[name], call) for name, call in calls.items()}
    data = {name: tapes.fetch(boxes[name], row, tmp_path).read_bytes() for name, row in rows.items()}

    def part(name):
        return boxes[name].api.get(f"/v1/calls/{rows[name]['_id']}")["call"]["recording"]
    tried = {}

    def both():
        tried.update({name: it for name in boxes if name not in tried and (it := part(name))["uploadError"]})
        return len(tried) == 2
    until(both, 25, lambda: f"tried: {tried}")          # it is tried again ten seconds later
    for name, box in boxes.items():
        print(f"{name}: {tried[name]['upload']}, {tried[name]['uploadError']}")
        assert (tried[name]["state"], tried[name]["upload"]) == ("kept", "waiting"), tried
        assert [file.split(".")[0] for file in tapes.files(box)] == [rows[name]["_id"]], "it is not confirmed, and not here"
        assert not store.objects() and not endpoint.bodies
        box.terminate()
    for box in boxes.values():
        assert box.wait(30) == 0
        box.start()
    began = time.monotonic()
    for name, box in boxes.items():
        done = until(lambda: (lambda it: it if it["upload"] == "done" else None)(part(name)), 30, lambda: part(name))
        print(f"{name}: {done['uploadedTo']} {time.monotonic() - began:.1f} s after the restart")
        assert done["sha256"] == hashlib.sha256(data[name]).hexdigest() and done["uploadedAt"]
    [key] = store.stored()
    assert key == f"box/1/{rows['s3']['_id']}.ogg" and store.body(key) == data["s3"] and store.head(key)["ContentType"] == "audio/ogg"
    assert endpoint.bodies == {f"/in/{rows['http']['_id']}.wav": data["http"]}
    assert not [r.fault for r in store.requests + endpoint.requests if r.fault]
    copy = tmp_path / "copy.ogg"
    copy.write_bytes(store.body(key))
    print(tapes.tones(players.both(copy)))
    # What was confirmed goes here, if it is not to be kept.
    until(lambda: not tapes.files(boxes["s3"]), 10, "it is still here")
    moved = boxes["s3"].api.ask("GET", f"/v1/calls/{rows['s3']['_id']}/recording")
    assert part("s3")["state"] == "moved" and moved.status == 404 and rows["s3"]["_id"] in moved["details"]["uploadedTo"], moved
    assert part("http")["state"] == "kept" and tapes.fetch(boxes["http"], rows["http"], tmp_path).read_bytes() == data["http"]
    actions = [(e["action"], e["subject"]) for e in boxes["s3"].api.get("/v1/audit")["entries"]]
    assert ("recording.uploaded", rows["s3"]["_id"]) in actions, actions
