"""The lab's S3 store takes what is rightly signed, refuses the rest, and fails as it is told to; the client here is Amazon's own."""

import time
import urllib.error
import urllib.request

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, HTTPClientError, ReadTimeoutError

import network
from certificates import Authority
from s3 import SECRET_KEY, Endpoint, Store, Trouble, signature_fault


@pytest.fixture(scope="module")
def store():
    it = Store(network.address(15)).start()
    yield it
    it.stop()


@pytest.fixture
def s3(store):
    store.recover()
    store.empty()
    return store.client()


def put(s3, key, body, **more):
    return s3.put_object(Bucket="recordings", Key=key, Body=body, **more)


def test_an_upload_is_stored_as_it_is(store, s3):
    body = bytes(range(256)) * 4000
    put(s3, "acme/2026-11-23/call 1+ü.ogg", body, ContentType="audio/ogg", Metadata={"call": "wacid.1"})
    assert store.stored() == ["acme/2026-11-23/call 1+ü.ogg"] and store.body("acme/2026-11-23/call 1+ü.ogg") == body
    head = store.head("acme/2026-11-23/call 1+ü.ogg")
    assert head["ContentType"] == "audio/ogg" and head["Metadata"] == {"call": "wacid.1"}
    assert [(r.method, r.size, r.status, r.fault) for r in store.requests] == [("PUT", len(body), 200, None)]


def test_parts_are_put_together(store, s3):
    begun = s3.create_multipart_upload(Bucket="recordings", Key="long.wav")["UploadId"]
    tags = [s3.upload_part(Bucket="recordings", Key="long.wav", UploadId=begun, PartNumber=n, Body=bytes([n]) * (5 << 20))["ETag"] for n in (1, 2)]
    s3.complete_multipart_upload(Bucket="recordings", Key="long.wav", UploadId=begun, MultipartUpload={
        "Parts": [{"ETag": tag, "PartNumber": n} for n, tag in enumerate(tags, 1)]})
    assert store.body("long.wav") == bytes([1]) * (5 << 20) + bytes([2]) * (5 << 20)
    assert not [r.fault for r in store.requests if r.fault]


def test_a_wrong_key_a_changed_body_and_an_old_signature_are_refused(store, s3):
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        put(store.client(secret=SECRET_KEY + "x"), "call.ogg", b"sound")
    assert store.objects() == {} and store.requests[-1].fault == "SignatureDoesNotMatch"
    put(s3, "call.ogg", b"sound")
    right = store.requests[-1]

    def fault(body=b"sound", path=right.path, **more):
        return signature_fault(right.method, path, right.query, right.headers | more.pop("headers", {}), body, **more)
    assert fault() is None
    assert "not that of the body" in fault(b"other sound")
    assert fault(path=right.path + "x") == "SignatureDoesNotMatch"
    assert "TimeTooSkewed" in fault(now=time.time() + 1000)
    assert "must be signed" in fault(headers={"x-amz-acl": "public-read"})
    assert "no such signature" in fault(headers={"authorization": "Bearer token"})


@pytest.mark.parametrize("trouble, error, words", [
    (Trouble(status=503, code="SlowDown"), ClientError, "SlowDown"),
    (Trouble(status=403, code="AccessDenied"), ClientError, "AccessDenied"),
    (Trouble(hang=5.0), ReadTimeoutError, "timeout"),
    (Trouble(cut=20_000), (ConnectionClosedError, HTTPClientError), "."),
], ids=["slow down", "denied", "hangs", "cut off"])
def test_a_store_in_trouble_fails_once_and_then_works(store, s3, trouble, error, words):
    store.fail(trouble)
    begin = time.monotonic()
    with pytest.raises(error, match=words):
        put(s3, "call.ogg", bytes(200_000))
    assert store.objects() == {} and store.requests[-1].status == trouble.status
    print(f"failed after {time.monotonic() - begin:.1f} s with {store.requests[-1].size} bytes taken")
    put(s3, "call.ogg", bytes(200_000))
    assert store.objects() == {"call.ogg": 200_000}


def test_an_answer_can_be_lost_although_the_object_is_stored(store, s3):
    store.fail(Trouble(lost=True, method="PUT"))
    with pytest.raises((ConnectionClosedError, HTTPClientError)):
        put(s3, "call.ogg", b"sound")
    assert store.objects() == {"call.ogg": 5} and store.requests[-1].status is None


def test_a_slow_store_takes_its_time(store, s3):
    store.fail(Trouble(rate=100_000))
    begin = time.monotonic()
    put(s3, "call.ogg", bytes(50_000))
    assert 0.5 <= time.monotonic() - begin < 3 and store.objects() == {"call.ogg": 50_000}


def test_a_store_with_tls_and_one_that_is_gone(tmp_path):
    authority = Authority(tmp_path / "ca")
    it = Store(network.address(16), tls=authority.issue("s3", network.address(16)).files).start()
    client = it.client(verify=authority.file)
    put(client, "call.ogg", b"sound")
    assert it.url.startswith("https://") and it.objects() == {"call.ogg": 5}
    it.stop()
    with pytest.raises(EndpointConnectionError):
        put(client, "call.ogg", b"sound")


def send(url, body, **headers):
    try:
        return urllib.request.urlopen(urllib.request.Request(url, data=body, method="PUT", headers=headers), timeout=15).status
    except urllib.error.HTTPError as answer:
        return answer.code
    except OSError as error:
        return type(error)


def test_an_endpoint_takes_files_from_those_who_know_its_token():
    it = Endpoint(network.address(16), token="Bearer lab-7").start()
    url = it.url + "/in/call.ogg?id=1"
    assert send(url, b"sound") == 401 and it.bodies == {}
    it.fail(Trouble(status=502), Trouble(lost=True))
    assert send(url, b"sound", Authorization="Bearer lab-7") == 502 and it.bodies == {}
    assert isinstance(send(url, b"sound", Authorization="Bearer lab-7"), type) and it.bodies == {"/in/call.ogg": b"sound"}
    assert send(url, b"more sound", Authorization="Bearer lab-7") == 201 and it.bodies == {"/in/call.ogg": b"more sound"}
    assert [(r.path, r.query, r.status) for r in it.requests] == [("/in/call.ogg", "id=1", s) for s in (401, 502, None, 201)]
    it.stop()
