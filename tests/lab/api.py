"""A client of the gateway's REST API, and of its stream of events: nothing but Python's own HTTP."""

import http.client
import json
import threading
import time
import urllib.parse


class Reply:
    """Status, headers (names in lower case) and body of one answer."""

    def __init__(self, status, headers, raw):
        self.status, self.headers, self.raw = status, headers, raw

    @property
    def json(self):
        """The body as JSON."""
        return json.loads(self.raw)

    def __getitem__(self, name):
        return self.json[name]

    def __repr__(self):
        return f"<{self.status} {self.raw[:600].decode(errors='replace')}>"


class Api:
    """The REST API with one bearer key."""

    def __init__(self, gateway, key):
        self.host, self.key = gateway.url.split("//")[1], key

    def ask(self, method, path, body=None, query=None, headers=None, key=None, raw=None):
        """One request. `raw` sends these bytes instead of JSON; `key` is another key, "" none."""
        if query:
            path += "?" + urllib.parse.urlencode({k: v for k, v in query.items() if v is not None})
        sent = {} if key == "" else {"Authorization": f"Bearer {key or self.key}"}
        data = raw
        if body is not None:
            data, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            connection.request(method, path, data, sent | (headers or {}))
            reply = connection.getresponse()
            return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def get(self, path, **query):
        """GET with a query; `from_` is sent as `from`."""
        return self.ask("GET", path, query={k.rstrip("_"): v for k, v in query.items()})

    def post(self, path, body=None, **how):
        """POST with a JSON body."""
        return self.ask("POST", path, body if body is not None else {}, **how)

    def call(self, call_id, account):
        """The record of one call, as the API shows it now."""
        reply = self.get(f"/v1/whatsapp/calls/{call_id}", accountId=account)
        assert reply.status == 200, reply
        return reply["call"]

    def until(self, call_id, account, status, timeout=10.0):
        """Waits until a call has a status; its record."""
        end = time.monotonic() + timeout
        while True:
            call = self.call(call_id, account)
            if call["status"] in ((status,) if isinstance(status, str) else status):
                return call
            assert time.monotonic() < end, f"the call is {call['status']} after {timeout} s, not {status}: {call}"
            time.sleep(0.05)


class Stream:
    """Server-Sent Events (WHATWG HTML §9.2), read in the background while used as a context manager."""

    def __init__(self, api, path="/v1/events", **query):
        self.api, self.path, self.events = api, path + ("?" + urllib.parse.urlencode(query) if query else ""), []

    def __enter__(self):
        self._connection = http.client.HTTPConnection(self.api.host, timeout=30)
        self._connection.request("GET", self.path, headers={
            "Authorization": f"Bearer {self.api.key}", "Accept": "text/event-stream"})
        self.reply = self._connection.getresponse()
        threading.Thread(target=self._read, name="events", daemon=True).start()
        return self

    def __exit__(self, *_):
        self._connection.sock and self._connection.sock.shutdown(2)
        self._connection.close()

    def _read(self):
        name, data = None, []
        try:
            for line in self.reply:
                line = line.decode().rstrip("\r\n")
                if line.startswith("event:"):
                    name = line[6:].strip()
                elif line.startswith("data:"):
                    data.append(line[5:].strip())
                elif not line and data:
                    self.events.append((name, json.loads("\n".join(data))))
                    name, data = None, []
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            return      # the test is over

    def wait(self, found, timeout=10.0):
        """Waits for an event of which `found(name, data)` is true; it."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for name, data in list(self.events):
                if found(name, data):
                    return name, data
            time.sleep(0.02)
        raise AssertionError(f"no such event among {[n for n, _ in self.events]}: {self.events[-3:]}")
