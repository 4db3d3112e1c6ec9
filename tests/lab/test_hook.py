"""The lab's own application and REST client notice what they are there to notice."""

import hashlib
import hmac
import http.client
import json

import pytest

import network
from api import Api, Stream
from hook import Hook


class Somebody:
    """What `Api` wants to know of a gateway."""

    url = f"http://{network.address(15)}:18091"


def deliver(hook, secret, event="call.ended", **spoiled):
    body = json.dumps({"id": "evt_1", "event": event, "call": {"id": "c1"}}).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {f"X-{family}-{name}": value for family in ("Zernio", "Late")
               for name, value in (("Event", event), ("Event-Id", "evt_1"), ("Signature", signature))} | spoiled
    connection = http.client.HTTPConnection(*hook.url.split("/")[2].split(":"), timeout=5)
    connection.request("POST", "/hook", body, headers)
    return connection.getresponse().status


def test_a_forged_or_half_named_delivery_is_noticed():
    hook = Hook(network.address(15), 18090, "secret")
    try:
        hook.plan = [503, 0]
        assert deliver(hook, "secret") == 503
        with pytest.raises(http.client.RemoteDisconnected):
            deliver(hook, "secret")
        assert deliver(hook, "secret") == 200 and not hook.forged(hook.got[-1])
        assert deliver(hook, "wrong") == 200 and len(hook.forged(hook.got[-1])) == 2
        assert deliver(hook, "secret", **{"X-Late-Event": "call.received"}) == 200 and len(hook.forged(hook.got[-1])) == 1
        assert [d.status for d in hook.got] == [503, 0, 200, 200, 200] and len(hook.of("c1", "call.ended")) == 3
        assert hook.of("c2") == [] and len(hook.of("c1", taken=False)) == 5
    finally:
        hook.close()


def test_events_are_read_from_a_stream_as_they_come():
    import http.server
    import threading

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.headers["Authorization"] == "Bearer key" else 401)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b": hello\n\nevent: call.received\ndata: {\"call\":\ndata: {\"id\": \"c1\"}}\n\nid: 7\nevent: call.ended\ndata: {}\n\n")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer((network.address(15), 18091), Server)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        with Stream(Api(Somebody, "key")) as stream:
            assert stream.wait(lambda n, d: n == "call.ended")[1] == {}
            assert stream.events[0] == ("call.received", {"call": {"id": "c1"}})
        assert Api(Somebody, "other").get("/").status == 401
    finally:
        server.shutdown()
        server.server_close()
