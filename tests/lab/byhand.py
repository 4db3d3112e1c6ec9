"""A PBX that is played by hand: every SIP message it sends is a line of the test, over UDP, TCP or TLS.

For what a real PBX can't be made to do: to answer and cancel in one breath, to fork, to lose an ACK, to
refuse a refresh. It does nothing on its own but answer OPTIONS, REGISTER and NOTIFY, and keep what it saw.
"""

import hashlib
import queue
import re
import secrets
import socket
import ssl
import threading
import time

from sipmessage import Message, framed
from voice import Voice

REASONS = {100: "Trying", 180: "Ringing", 181: "Call Is Being Forwarded", 183: "Session Progress", 200: "OK", 202: "Accepted",
           302: "Moved Temporarily", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 407: "Proxy Authentication Required",
           422: "Session Interval Too Small", 481: "Call/Transaction Does Not Exist", 486: "Busy Here", 487: "Request Terminated",
           488: "Not Acceptable Here", 491: "Request Pending", 500: "Server Internal Error", 503: "Service Unavailable", 603: "Decline"}


class Way:
    """How a message came, and how its answer goes back."""

    def __init__(self, send, peer, kind):
        self.send, self.peer, self.kind = send, peer, kind


class HandPbx:
    """One address of a PBX. `tls` is (certificate file, key file)."""

    def __init__(self, address, port=5060, transport="udp", tls=None):
        self.address, self.port, self.transport = address, port, transport
        self.seen = []                      # every message that came, oldest first
        self.sent = []                      # (time, first line) of every message that left
        self.lines = {}                     # by Call-ID
        self.pings = 0                      # keep-alives (CRLF) that came over a stream
        self.connections = 0                # streams accepted
        self.silent = False                 # answers nothing on its own
        self.registrar = lambda request: (200, [])
        self._rings = queue.Queue()
        self._open = []
        if transport == "udp":
            self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self._sock.bind((address, port))
            self._thread = threading.Thread(target=self._datagrams, name="by hand", daemon=True)
        else:
            self._tls = None
            if transport == "tls":
                self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                self._tls.load_cert_chain(*tls)
            self._sock = socket.create_server((address, port))
            self._thread = threading.Thread(target=self._accept, name="by hand", daemon=True)
        self._thread.start()

    def close(self):
        """Gives the address back."""
        for sock in [self._sock, *self._open]:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()
        self._thread.join(2)                # the port is free only when nobody reads any more
        for line in self.lines.values():
            line.voice and line.voice.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def uri(self, **parameters):
        """What goes into a trunk's `server`."""
        return f"sip:{self.address}:{self.port}" + f";transport={self.transport}"

    # The wire

    def _datagrams(self):
        while True:
            try:
                data, source = self._sock.recvfrom(65536)
            except OSError:
                return
            if data.strip():
                self._take(data, self.towards(source))

    def towards(self, target):
        """The way to an address over UDP."""
        return Way(lambda data: self._sock.sendto(data, target), target, "UDP")

    def _accept(self):
        while True:
            try:
                sock, peer = self._sock.accept()
            except OSError:
                return
            threading.Thread(target=self._stream, args=(sock, peer, True), name="by hand", daemon=True).start()

    def connect(self, host, port, context=None):
        """Opens a stream to the gateway; the way there."""
        sock = socket.create_connection((host, port), timeout=5, source_address=(self.address, 0))
        sock.settimeout(None)
        if context:
            sock = context.wrap_socket(sock, server_hostname=host)
        ready = queue.Queue()
        threading.Thread(target=self._stream, args=(sock, (host, port), False, ready), name="by hand", daemon=True).start()
        return ready.get(timeout=5)

    def _stream(self, sock, peer, accepted, ready=None):
        try:
            if accepted and self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True)
        except (OSError, ssl.SSLError):
            return sock.close()
        self._open.append(sock)
        self.connections += accepted
        lock = threading.Lock()

        def send(data):
            with lock:
                sock.sendall(data)
        way = Way(send, peer, "TLS" if isinstance(sock, ssl.SSLSocket) else "TCP")
        way.close = lambda: (sock.shutdown(socket.SHUT_RDWR), sock.close())
        ready and ready.put(way)
        rest = b""
        while True:
            try:
                data = sock.recv(65536)
            except (OSError, ssl.SSLError):
                data = b""
            if not data:
                return
            found, pings, rest = framed(rest + data)
            self.pings += pings
            for raw in found:
                self._take(raw, way)

    def _take(self, raw, way):
        message = Message(raw, time.time(), way)
        self.seen.append(message)
        if self.silent:
            return
        line = self.lines.get(message.get("call-id"))
        # The same call once more at another address: we have sent it on (RFC 3261 8.1.3.4 keeps the Call-ID).
        elsewhere = line and line.invite and message.code is None and message.method == "INVITE" and not message.tag("to") \
            and message.uri != line.invite.uri
        if line and not elsewhere:
            if message.code is None and message.method == "NOTIFY":
                self.answer(message, 200)
            # What is only sent again is in `seen`, but is no news to a test.
            if message.code or message.method == "ACK" or (message.branch, message.method) not in line.known:
                line.queue.put(message)
            line.known.add((message.branch, message.method))
        elif message.code is None and message.method == "OPTIONS":
            self.answer(message, 200)
        elif message.code is None and message.method == "REGISTER":
            code, headers = self.registrar(message)
            if code == 200 and not headers:
                headers = [f"Contact: {message.get('contact')};expires={message.get('expires', 300)}"]
            if code:
                self.answer(message, code, headers=headers)
        elif message.code is None and message.method == "INVITE":
            line = Line(self, message.get("call-id"), message)
            self.lines[line.id] = line
            self._rings.put(line)
        elif message.code is None and message.method == "CANCEL":
            self.answer(message, 481)

    def put(self, way, text):
        """Sends a message, given as text."""
        self.sent.append((time.time(), text.split("\r\n", 1)[0]))
        try:
            way.send(text.encode())
        except OSError:
            pass

    def answer(self, request, code, headers=(), body="", tag=None, reason=None, contact=True):
        """An answer to a request, by the way it came."""
        kept = [f"{n.title()}: {v}" for n, v in request.headers if n in ("via", "record-route")]
        to = request.get("to")
        if code > 100 and not request.tag("to"):
            to += f";tag={tag or secrets.token_hex(4)}"
        lines = [f"SIP/2.0 {code} {reason or REASONS.get(code, 'Because')}", *kept, f"From: {request.get('from')}", f"To: {to}",
                 f"Call-ID: {request.get('call-id')}", f"CSeq: {request.get('cseq')}"]
        if contact and request.method in ("INVITE", "UPDATE", "OPTIONS") and not any(h.lower().startswith("contact") for h in headers):
            lines.append(f"Contact: <{self.contact}>")
        lines += headers
        if body:
            lines.append("Content-Type: application/sdp")
        self.put(request.way, "\r\n".join(lines) + f"\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}")

    @property
    def contact(self):
        """Where this PBX is reached."""
        more = "" if self.transport == "udp" else f";transport={self.transport}"
        return f"sip:byhand@{self.address}:{self.port}{more}"

    # Calls

    def rung(self, timeout=8.0, call=None):
        """Waits for a call of the gateway, or for that of one WhatsApp user; its `Line`. What others left ringing is refused."""
        until = time.monotonic() + timeout
        while True:
            try:
                line = self._rings.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"nobody called the PBX within {timeout} s; it saw {[m.start for m in self.seen[-5:]]}") from None
            if call is None or line.invite.get("x-whatsapp-call-id") == call.id:
                return line
            line.reply(486)

    def dial(self, way, uri, voice=None, caller="200", headers=(), body=None, name=""):
        """Calls the gateway by a way; the `Line`, its INVITE just sent. A Voice makes the offer; without one there is none."""
        line = Line(self, secrets.token_hex(8) + "@byhand", None)
        line.way, line.target, line.voice = way, uri, voice
        line.local = f'{name and chr(34) + name + chr(34) + " "}<sip:{caller}@{self.address}>;tag={line.tag}'
        line.remote = f"<{uri}>"
        self.lines[line.id] = line
        line.request("INVITE", body=voice.sdp() if voice and body is None else body or "", headers=headers)
        return line

    def requests(self, method, call_id=None, again=False):
        """The requests of a method that came, of one call or of all; `again`: also those that were only sent again, as happens
        when this side is slow to answer. An ACK is never the same: each answers an answer."""
        found = [m for m in list(self.seen) if m.code is None and m.method == method and call_id in (None, m.get("call-id"))]
        once = {}
        for m in found:
            once.setdefault((m.get("call-id"), m.branch), m)
        return found if again or method == "ACK" else list(once.values())


class Line:
    """One dialog, begun by either side."""

    def __init__(self, pbx, call_id, invite):
        self.pbx, self.id, self.invite = pbx, call_id, invite
        self.queue = queue.Queue()
        self.kept = []                  # what came and was not what a test was waiting for
        self.tag = secrets.token_hex(4)
        self.cseq = 0
        self.route = []
        self.voice = None
        self.branches = {}
        self.known = {(invite.branch, "INVITE")} if invite else set()
        if invite:
            self.way, self.target = invite.way, invite.target
            self.remote, self.local = invite.get("from"), f"{invite.get('to')};tag={self.tag}"
            self.route = invite.all("record-route")

    # Answering a call

    def reply(self, code, headers=(), body="", request=None, tag=None, reason=None):
        """An answer to the INVITE, or to another request of this call."""
        self.pbx.answer(request or self.invite, code, headers, body, tag or self.tag, reason)

    def pick_up(self, voice=None, headers=(), say=True, acked=True, **how):
        """Answers with 200 and sound, and waits for the ACK, which is returned."""
        self.voice = voice or self.voice or Voice(self.pbx.address)
        answer = self.voice.take(self.invite.body)
        assert answer, f"no codec in common with\n{self.invite.body}"
        self.reply(200, headers=headers, body=answer, **how)
        ack = self.wait("ACK") if acked else None
        if say:
            self.voice.start()
        return ack

    # Requests

    def request(self, method, body="", headers=(), cseq=None, branch=None, kind="application/sdp", uri=None, remote=None):
        """Sends a request in this call; its CSeq number."""
        if cseq is None:
            self.cseq += 1
            cseq = self.cseq
        branch = branch or "z9hG4bK" + secrets.token_hex(6)
        self.branches[cseq, method] = branch
        lines = [f"{method} {uri or self.target} SIP/2.0",
                 f"Via: SIP/2.0/{self.way.kind} {self.pbx.address}:{self.pbx.port};rport;branch={branch}", "Max-Forwards: 70",
                 *(f"Route: {r}" for r in self.route), f"From: {self.local}", f"To: {remote or self.remote}", f"Call-ID: {self.id}",
                 f"CSeq: {cseq} {method}", f"Contact: <{self.pbx.contact}>", *headers]
        if body:
            lines.append(f"Content-Type: {kind}")
        self.pbx.put(self.way, "\r\n".join(lines) + f"\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}")
        return cseq

    def ack(self, answer, body="", take=True):
        """Acknowledges a final answer to our INVITE; of a 2xx the target and the sound are taken."""
        number = answer.cseq[0]
        if answer.code >= 300:
            self.request("ACK", cseq=number, branch=self.branches[number, "INVITE"], remote=answer.get("to"))
            return answer
        self.remote = answer.get("to")
        self.target = answer.target or self.target
        self.route = list(reversed(answer.all("record-route"))) or self.route
        self.request("ACK", body=body, cseq=number)
        if take and self.voice and answer.body and not body:
            self.voice.take(answer.body, answer=False)
            self.voice.start()
        return answer

    def cancel(self):
        """Takes our INVITE back."""
        self.request("CANCEL", cseq=self.cseq, branch=self.branches[self.cseq, "INVITE"])

    def bye(self, wait=True, headers=()):
        """Hangs up; the answer's code."""
        self.request("BYE", headers=headers)
        self.voice and self.voice.hush()
        return self.wait(lambda m: m.code and m.method == "BYE").code if wait else None

    def reinvite(self, direction="sendrecv", connection=None, headers=(), method="INVITE"):
        """Changes the session, waits for the final answer and acknowledges it; the answer."""
        body = self.voice.sdp(direction, connection, only=self.voice.codec)
        number = self.request(method, body=body, headers=headers)
        answer = self.wait(lambda m: m.code and m.code >= 200 and m.cseq == (number, method))
        if method == "INVITE":
            self.ack(answer, take=False)
        return answer

    # Waiting

    def wait(self, what, timeout=8.0):
        """Waits for a request of a method, an answer of a code (of any in a tuple) or what a function says; the message."""
        if callable(what):
            fits = what
        elif isinstance(what, str):
            fits = lambda m: m.code is None and m.method == what    # noqa: E731
        else:
            codes = what if isinstance(what, tuple) else (what,)
            fits = lambda m: m.code in codes                        # noqa: E731
        for i, message in enumerate(self.kept):
            if fits(message):
                return self.kept.pop(i)
        until = time.monotonic() + timeout
        while True:
            try:
                message = self.queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"the gateway did not send {what} within {timeout} s, but {[m.start for m in self.kept[-6:]]}") from None
            if fits(message):
                return message
            self.kept.append(message)

    def final(self, timeout=8.0):
        """Waits for the final answer to our INVITE, and acknowledges it."""
        number = self.cseq
        return self.ack(self.wait(lambda m: m.code and m.code >= 200 and m.cseq == (number, "INVITE"), timeout))

    def came(self, method, again=False):
        """All requests of a method in this call so far; `again`: also those that were only sent again."""
        return self.pbx.requests(method, self.id, again)

    def hung_up(self, timeout=8.0):
        """Waits for the gateway's BYE and answers it; the BYE."""
        bye = self.wait("BYE", timeout)
        self.voice and self.voice.hush()
        self.reply(200, request=bye)
        return bye


def challenge(realm="byhand", nonce=None, algorithm="MD5", more=""):
    """A WWW-Authenticate header."""
    return f'WWW-Authenticate: Digest realm="{realm}", nonce="{nonce or secrets.token_hex(8)}", algorithm={algorithm}, qop="auth"{more}'


def proven(request, password):
    """Whether a request's digest fits a password."""
    value = request.get("authorization") or request.get("proxy-authorization")
    if not value:
        return False
    part = {k: v.strip('"') for k, v in re.findall(r'(\w+)=("[^"]*"|[^,\s]+)', value)}
    h = hashlib.sha256 if part.get("algorithm", "MD5").upper().startswith("SHA-256") else hashlib.md5
    d = lambda s: h(s.encode()).hexdigest()     # noqa: E731
    ha1, ha2 = d(f"{part['username']}:{part['realm']}:{password}"), d(f"{request.method}:{part['uri']}")
    if "qop" in part:
        return part["response"] == d(f"{ha1}:{part['nonce']}:{part['nc']}:{part['cnonce']}:{part['qop']}:{ha2}")
    return part["response"] == d(f"{ha1}:{part['nonce']}:{ha2}")


def prove(asked, method, uri, user, password, code=401):
    """The header that answers a challenge with qop=auth."""
    part = {k: v.strip('"') for k, v in re.findall(r'(\w+)=("[^"]*"|[^,\s]+)', asked)}
    h = hashlib.sha256 if part.get("algorithm", "MD5").upper().startswith("SHA-256") else hashlib.md5
    d = lambda s: h(s.encode()).hexdigest()     # noqa: E731
    ha1, ha2 = d(f"{user}:{part['realm']}:{password}"), d(f"{method}:{uri}")
    response = d(f"{ha1}:{part['nonce']}:00000001:abcd:auth:{ha2}")
    more = f', opaque="{part["opaque"]}"' if "opaque" in part else ""
    name = "Authorization" if code == 401 else "Proxy-Authorization"
    return (f'{name}: Digest username="{user}", realm="{part["realm"]}", nonce="{part["nonce"]}", '
            f'uri="{uri}", algorithm={part.get("algorithm", "MD5")}, qop=auth, nc=00000001, cnonce="abcd", response="{response}"{more}')
