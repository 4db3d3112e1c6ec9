"""A plain SIP caller with G.711: it proves the PBX before the gateway is asked to, and does what Asterisk can't."""

import hashlib
import queue
import re
import secrets
import socket
import struct
import threading
import time

import numpy as np

import lateness


def _mulaw(x):
    """Samples (-1 to 1) as mu-law bytes, ITU-T G.711."""
    v = np.clip(np.abs(x) * 32768, 0, 32635).astype(int) + 132
    exponent = np.floor(np.log2(v)).astype(int) - 7
    mantissa = (v >> (exponent + 3)) & 15
    return (~(np.where(x < 0, 128, 0) | (exponent << 4) | mantissa) & 255).astype(np.uint8).tobytes()


class Caller:
    """Registers and calls from one address. Not a SIP stack: no retransmission, loopback only."""

    def __init__(self, address, pbx, user, password):
        self.address, self.pbx, self.user, self.password = address, pbx, user, password
        self.sip = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sip.bind((address, 5060))
        self.sip.settimeout(8)
        self.rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.rtp.bind((address, 0))
        self.rtp.setblocking(False)
        self.heard = []
        self.seq = 0

    def _send(self, method, uri, to, cseq, extra="", body="", again=False):
        # The ACK of a refusal belongs to the transaction of its INVITE (RFC 3261 17.1.1.3): the branch is the same.
        self.branch = self.branch if again else secrets.token_hex(6)
        kind = "Content-Type: application/sdp\r\n" if body else ""
        self.sip.sendto((
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {self.address}:5060;branch=z9hG4bK{self.branch}\r\n"
            f"From: {self.sender};tag={self.tag}\r\nTo: {to}\r\nCall-ID: {self.id}\r\nCSeq: {cseq} {method}\r\n"
            f"Contact: <sip:{self.user}@{self.address}:5060>\r\nMax-Forwards: 70\r\n{extra}{kind}"
            f"Content-Length: {len(body)}\r\n\r\n{body}").encode(), (self.pbx, 5060))

    def _final(self):
        """The final answer, and the status codes seen before it. Requests of the PBX (OPTIONS) are passed over."""
        seen = []
        while True:
            text = self._next()
            if text.startswith("SIP/2.0") and f"\r\nCall-ID: {self.id}\r\n" in text:
                code = int(text[8:11])
                if code >= 200:
                    return code, text, seen
                seen.append(code)

    def _next(self):
        return self.sip.recv(4000).decode()

    def _digest(self, method, uri, text):
        want = re.search(r"WWW-Authenticate: Digest (.*)\r", text).group(1)
        part = {k: v.strip('"') for k, v in re.findall(r'(\w+)=("[^"]*"|[^,\s]+)', want)}
        self.algorithm = part.get("algorithm", "MD5")
        h = hashlib.sha256 if self.algorithm.upper() == "SHA-256" else hashlib.md5
        d = lambda s: h(s.encode()).hexdigest()  # noqa: E731
        ha1, ha2 = d(f"{self.user}:{part['realm']}:{self.password}"), d(f"{method}:{uri}")
        response = d(f"{ha1}:{part['nonce']}:00000001:abcd:auth:{ha2}")
        opaque = f', opaque="{part["opaque"]}"' if "opaque" in part else ""
        return (f'Authorization: Digest username="{self.user}", realm="{part["realm"]}", nonce="{part["nonce"]}", uri="{uri}", '
                f'algorithm={self.algorithm}, qop=auth, nc=00000001, cnonce="abcd", response="{response}"{opaque}\r\n')

    def _with_digest(self, method, uri, to, extra="", body=""):
        self._send(method, uri, to, 1, extra, body)
        code, text, seen = self._final()
        if code != 401:
            return code, text, seen
        if method == "INVITE":
            self._send("ACK", uri, re.search(r"To: (.*)\r", text).group(1), 1, again=True)
        self._send(method, uri, to, 2, extra + self._digest(method, uri, text), body)
        return self._final()

    def _fresh(self, sender):
        self.sender, self.tag, self.id = sender, secrets.token_hex(4), secrets.token_hex(8)

    def register(self):
        """The final status of a REGISTER with digest."""
        me = f"<sip:{self.user}@{self.pbx}>"
        self._fresh(me)
        return self._with_digest("REGISTER", f"sip:{self.pbx}", me, "Expires: 60\r\n")[0]

    def invite(self, extension, number="+4915112345678", name="Ada", headers="", late=False):
        """Calls; the final status and the provisional ones. `late`: without an offer, the other side makes one."""
        self._fresh(f'"{name}" <sip:{number}@{self.address}>')
        self.uri = f"sip:{extension}@{self.pbx}"
        port = self.rtp.getsockname()[1]
        body = (f"v=0\r\no=- 1 1 IN IP4 {self.address}\r\ns=-\r\nc=IN IP4 {self.address}\r\nt=0 0\r\n"
                f"m=audio {port} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\n")
        code, text, seen = self._with_digest("INVITE", self.uri, f"<{self.uri}>", headers, "" if late else body)
        self.to = re.search(r"To: (.*)\r", text).group(1)
        self.final = text
        if code == 200:
            self.uri = re.search(r"Contact: <(.*?)>", text).group(1)
            self.target = (re.search(r"c=IN IP4 (\S+)", text).group(1), int(re.search(r"m=audio (\d+)", text).group(1)))
        self._send("ACK", self.uri, self.to, int(re.search(r"CSeq: (\d+)", text).group(1)), "", body if late and code == 200 else "",
                   again=code != 200)
        return code, seen

    def talk(self, seconds, hertz=700, keys=""):
        """Sends a tone (or keys, one every 200 ms) and keeps what comes back."""
        t = time.monotonic()
        for i in range(int(seconds * 50)):
            key = keys[i // 10:i // 10 + 1]
            if key and i % 10 < 6:
                n = i % 10
                body = struct.pack("!BBH", "0123456789*#".index(key), (128 if n >= 4 else 0) | 10, min(n + 1, 5) * 160)
                head = struct.pack("!BBHII", 128, 101 | (128 if n == 0 else 0), self.seq, (i - n) * 160, 7)
            else:
                x = np.sin(2 * np.pi * hertz * np.arange(i * 160, i * 160 + 160) / 8000) * 10 ** (-10 / 20)
                head, body = struct.pack("!BBHII", 128, 0, self.seq, i * 160, 7), _mulaw(x)
            self.seq = (self.seq + 1) & 0xFFFF
            lateness.note(lateness.PBX, t + i * 0.02)
            self.rtp.sendto(head + body, self.target)
            time.sleep(max(0, t + (i + 1) * 0.02 - time.monotonic()))
            try:
                while True:
                    data = self.rtp.recv(2000)
                    if data[1] & 127 == 0:
                        self.heard.append(data[12:])
            except BlockingIOError:
                pass

    def bye(self):
        """Hangs up."""
        self._send("BYE", self.uri, self.to, 3)
        return self._final()[0]

    def close(self):
        """Gives the address back."""
        try:
            self.sip.shutdown(socket.SHUT_RDWR)         # wakes a thread that still reads, and the port is free only then
        except OSError:
            pass
        self.sip.close()
        self.rtp.close()


class PlainTrunk(Caller):
    """A trunk without registration and without much sense: it answers OPTIONS and BYE, and calls by hand."""

    def __init__(self, address, gateway):
        super().__init__(address, gateway, "plain", "")
        self._queue = queue.Queue()
        self.requests = []              # methods of the gateway's requests
        self.sip.settimeout(None)
        threading.Thread(target=self._listen, name="plain trunk", daemon=True).start()

    def _listen(self):
        while True:
            try:
                text, source = self.sip.recvfrom(8000)
            except OSError:
                return
            if not text:            # closed
                return
            text = text.decode(errors="replace")
            if text.startswith("SIP/2.0"):
                self._queue.put(text)
            elif text.strip():
                self.requests.append(text.split()[0])
                if not text.startswith("ACK"):
                    kept = "".join(line + "\r\n" for line in text.split("\r\n")
                                   if re.match(r"(?i)(via|v|from|f|to|t|call-id|i|cseq):", line) and line)
                    self.sip.sendto(f"SIP/2.0 200 OK\r\n{kept}Content-Length: 0\r\n\r\n".encode(), source)

    def _next(self):
        return self._queue.get(timeout=12)


class Callee(Caller):
    """Somebody who registers and is called: by the last digit of the number it refuses (1), rings (2) or answers (3)."""

    def register(self):
        """The final status of a REGISTER with digest; calls are taken from then on."""
        status = super().register()
        self.sip.settimeout(None)
        threading.Thread(target=self._serve, name="callee", daemon=True).start()
        return status

    def _serve(self):
        ringing = None
        while True:
            try:
                text = self.sip.recv(8000).decode()
                if not text:        # closed
                    return
                ringing = self._react(text, text.split()[0], ringing)
            except OSError:
                return

    def _react(self, text, method, ringing):
        if method == "INVITE":
            number = re.search(r"INVITE sip:\+?(\d+)", text).group(1)
            if number.endswith("1"):
                self._answer(text, "486 Busy Here", 'Warning: 399 lab "over the limit"\r\n')
            elif number.endswith("2"):
                ringing = text
                self._answer(text, "180 Ringing")
            else:
                self._picked_up(text)
        elif method == "CANCEL":
            self._answer(text, "200 OK")
            self._answer(ringing, "487 Request Terminated")
        elif method not in ("ACK", "SIP/2.0"):
            self._answer(text, "200 OK")
        return ringing

    def _picked_up(self, text):
        self.target = (re.search(r"c=IN IP4 (\S+)", text).group(1), int(re.search(r"m=audio (\d+)", text).group(1)))
        self.uri = re.search(r"Contact: <(.*?)>", text).group(1)
        self.to = re.search(r"From: (.*)\r", text).group(1)
        self.sender, self.id = re.search(r"To: (.*)\r", text).group(1), re.search(r"Call-ID: (.*)\r", text).group(1)
        port = self.rtp.getsockname()[1]
        self._answer(text, "200 OK", f"Contact: <sip:{self.user}@{self.address}:5060>\r\nContent-Type: application/sdp\r\n", (
            f"v=0\r\no=- 1 1 IN IP4 {self.address}\r\ns=-\r\nc=IN IP4 {self.address}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\n"))

    def _answer(self, request, status, extra="", body=""):
        kept = "".join(re.findall(r"(?m)^(?:Via|From|Call-ID|CSeq|Record-Route):.*\r\n", request))
        to = re.search(r"To: (.*)\r", request).group(1)
        to += "" if ";tag=" in to else f";tag={self.tag}"
        self.sip.sendto(f"SIP/2.0 {status}\r\n{kept}To: {to}\r\n{extra}Content-Length: {len(body)}\r\n\r\n{body}".encode(),
                        (self.pbx, 5060))

    def bye(self):
        """Hangs up; the answer is not waited for."""
        self._send("BYE", self.uri, self.to, 7)
