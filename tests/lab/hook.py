"""The user's own application: a small web server that takes the gateway's events and remembers them."""

import dataclasses
import hashlib
import hmac
import http.server
import json
import threading
import time


@dataclasses.dataclass
class Delivery:
    """One delivery as it came, and the status it was answered with."""

    at: float
    headers: dict
    raw: bytes
    status: int

    @property
    def json(self):
        """The body."""
        return json.loads(self.raw)

    @property
    def event(self):
        """The event's name."""
        return self.json["event"]


class Hook:
    """Listens on one address. `plan` holds statuses for the next deliveries (0: the connection is cut), then it is 200."""

    def __init__(self, address, port, secret=None):
        self.url, self.secret = f"http://{address}:{port}/hook", secret
        self.plan, self.got = [], []
        self.delay = 0.0
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                time.sleep(hook.delay)
                status = hook.plan.pop(0) if hook.plan else 200
                hook.got.append(Delivery(time.time(), {k.lower(): v for k, v in self.headers.items()}, raw, status))
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer((address, port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="hook", daemon=True).start()

    def close(self):
        """Gives the address back."""
        self._server.shutdown()
        self._server.server_close()

    def of(self, call_id=None, event=None, taken=True):
        """The deliveries of one call and of one kind, oldest first; `taken`: only those that were answered with 2xx."""
        return [d for d in list(self.got) if (not taken or d.status // 100 == 2)
                and (event is None or d.event == event) and (call_id is None or d.json.get("call", {}).get("id") == call_id)]

    def wait(self, found, timeout=15.0):
        """Waits until `found(self)` is something; that."""
        end = time.monotonic() + timeout
        while True:
            value = found(self)
            if value:
                return value
            assert time.monotonic() < end, f"not delivered within {timeout} s; got {[(d.event, d.status) for d in self.got][-8:]}"
            time.sleep(0.02)

    def forged(self, delivery):
        """What is wrong with the signature and the names of a delivery; empty if nothing is."""
        wrong = []
        for family in ("x-zernio-", "x-late-"):
            seen = delivery.headers
            if seen.get(family + "event") != delivery.json["event"]:
                wrong.append(f"{family}event is {seen.get(family + 'event')!r}")
            if seen.get(family + "event-id") != delivery.json["id"]:
                wrong.append(f"{family}event-id is {seen.get(family + 'event-id')!r}")
            want = hmac.new(self.secret.encode(), delivery.raw, hashlib.sha256).hexdigest() if self.secret else None
            if seen.get(family + "signature") != want:
                wrong.append(f"{family}signature is {seen.get(family + 'signature')!r}, not {want!r}")
        return wrong
