"""The WhatsApp user's media end: ICE-lite and always controlled, DTLS in either role, SRTP, one Opus stream, RFC 4733.

DTLS and SRTP are aiortc's (OpenSSL and libsrtp), STUN messages are aioice's; nothing of the gateway's own
stack is in here. Frames are encoded before the call and decoded after it, so fifty of these fit in one
process, and each packet keeps the kernel's time of arrival.
"""

import asyncio
import dataclasses
import random
import secrets
import socket
import struct
import time

from aioice import stun
from aiortc.rtcdtlstransport import RTCCertificate, RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport
from aiortc.rtp import RtcpByePacket, RtcpPacket, RtcpReceiverInfo, RtcpRrPacket, RtcpSenderInfo, RtcpSrPacket

import lateness
import sdp
import sound

SO_TIMESTAMPNS = 35
NTP = 2208988800


@dataclasses.dataclass
class Packet:
    """One RTP packet as it arrived. `at` is the kernel's stamp, seconds since 1970."""

    at: float
    kind: int
    marker: bool
    seq: int
    ts: int
    ssrc: int
    extended: bool
    payload: bytes


@dataclasses.dataclass
class Impairment:
    """A bad network on the user's side, both directions: loss as a share, jitter in seconds (0 to this, so
    packets overtake each other), decided by a seed: the same packets of each direction in every run."""

    loss: float = 0.0
    jitter: float = 0.0
    seed: int = 1
    lost_out: int = 0
    lost_in: int = 0
    passed_out: int = 0
    passed_in: int = 0

    def __post_init__(self):
        self.out_dice, self.in_dice = random.Random(self.seed), random.Random(self.seed + 1)

    def outbound(self):
        """Delay for the next packet that goes out, None if it is lost."""
        lost, delay = self.out_dice.random() < self.loss, self.out_dice.random() * self.jitter
        if lost:
            self.lost_out += 1
            return None
        self.passed_out += 1
        return delay

    def inbound(self):
        """The same for a packet that comes in."""
        lost, delay = self.in_dice.random() < self.loss, self.in_dice.random() * self.jitter
        if lost:
            self.lost_in += 1
            return None
        self.passed_in += 1
        return delay


class Peer:
    """One media end. Everything here runs on the lab's event loop; results are read when the call is over."""

    def __init__(self, address, frames=None, impairment=None, patient=True, first_port=None):
        self.address = address
        self.frames = frames or sound.tone(700)
        self.impairment = impairment
        self.patient = patient              # sends nothing before it has received something
        self.certificate = RTCCertificate.generateCertificate()
        self.ufrag = secrets.token_hex(4)
        self.pwd = secrets.token_hex(16)[:24]
        self.ssrc = secrets.randbits(32)
        self.faults = []                    # what the other side did against the rules
        self.received = []                  # every Packet
        self.sent = []                      # (time, RTP timestamp, index of the frame)
        self.reports = []                   # (time, RTCP packet) from the other side
        self.answer_at = None               # when the answer was known here, …
        self.nominated_at = None            # … a candidate pair was nominated, …
        self.connected_at = None            # … and DTLS was done, …
        self.failed_at = None               # … or failed
        self.answered_at = None
        self.remote = None
        self.role = "controlled"            # asked for by RTCDtlsTransport
        self.dtls = None                    # client or server, once it is settled
        self.ringing = False                # a phone that rings sends nothing, whatever it hears
        self.ppm = 0.0                      # by how many millionths the phone's clock is fast
        self.opus, self.event = sdp.OPUS, sdp.EVENT
        self._answer = None
        self._queue = asyncio.Queue()
        self._early = []
        self._keys = []
        self._seq = secrets.randbits(15)
        self._ts = secrets.randbits(32)
        self._sending = None
        self._tasks = []
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._sock.setblocking(False)
        self._sock.bind((address, first_port or 0))
        self.port = self._sock.getsockname()[1]
        self._dtls = RTCDtlsTransport(self, [self.certificate])
        self._loop.add_reader(self._sock, self._readable)

    # Signalling

    def offer(self, style="current", **change):
        """An offer as Meta words it; see `sdp.offer`."""
        return sdp.offer(self.address, self.port, self.ufrag, self.pwd, self.fingerprint, self.ssrc, style, **change)

    def take(self, offered, setup="active"):
        """Takes the gateway's offer; the answer, which says `setup`. Connectivity checks are understood from now on."""
        self.opus, self.event = offered.opus, offered.event
        # To an active offer Meta can only be the server, whatever the quirk.
        setup = {"active": "passive", "passive": "active"}.get(offered.setup, setup)
        self.answer(offered.ufrag, offered.fingerprint, "server" if setup == "passive" else "client")
        return sdp.answer(offered, self.address, self.port, self.ufrag, self.pwd, self.fingerprint, self.ssrc, setup)

    @property
    def fingerprint(self):
        """SHA-256 over the certificate, as SDP writes it."""
        return next(f for f in self.certificate.getFingerprints() if f.algorithm == "sha-256").value

    def answer(self, ufrag, fingerprint, role="server"):
        """Takes the gateway's answer. Only from now on are its connectivity checks understood."""
        if self._answer is None:
            self._answer = (ufrag, fingerprint)
            self.dtls = role
            self.answer_at = time.time()
            self._tasks.append(self._loop.create_task(self._handshake(fingerprint)))

    def accepted(self, at):
        """The caller's phone shows the call as answered, since `at`."""
        self.answered_at = at
        self.ringing = False
        if self.connected_at and (self.received or not self.patient):
            self._start()

    def press(self, keys, hold=0.1, pause=0.1):
        """Presses keys one after the other; the tone of a key lasts `hold` seconds."""
        for key in keys:
            self._keys.append((("0123456789*#ABCD").index(key), int(hold / sound.FRAME), int(pause / sound.FRAME)))

    def play(self, frames):
        """Sends other frames from now on, from their beginning."""
        self.frames = frames
        self._at = 0

    def bye(self):
        """Ends the media: RTCP BYE, DTLS close, socket closed."""
        if self._closed:
            return
        self._closed = True
        if self._sending:
            self._sending.cancel()
        for task in self._tasks:
            task.cancel()
        if self._dtls._tx_srtp and self.remote:
            self._out(self._dtls._tx_srtp.protect_rtcp(self._report() + bytes(RtcpByePacket(sources=[self.ssrc]))))
        if self._dtls._task:
            self._dtls._task.cancel()
            try:
                self._dtls._ssl.shutdown()
                self._out(self._dtls._ssl.bio_read(1500))
            except Exception:
                pass        # the other side was faster; there is nothing left to say goodbye to
        self._loop.remove_reader(self._sock)
        self._sock.close()

    # The transport that RTCDtlsTransport sees

    async def _recv(self):
        return await self._queue.get()

    async def _send(self, data):
        self._out(data)

    def _out(self, data):
        if self.remote and self._sock.fileno() >= 0:
            try:
                self._sock.sendto(data, self.remote)
            except OSError:
                pass

    # Datagrams

    def _readable(self):
        for _ in range(64):
            try:
                data, ancillary, _, source = self._sock.recvmsg(2048, 64)
            except (BlockingIOError, ConnectionRefusedError):
                return
            except OSError:
                return
            at = time.time()
            for level, kind, value in ancillary:
                if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                    seconds, nanos = struct.unpack("qq", value[:16])
                    at = seconds + nanos / 1e9
            if not data:
                continue
            if data[0] < 4:
                self._stun(data, source)
            elif 19 < data[0] < 64:
                if self.remote is None:
                    self.faults.append("DTLS before a candidate pair was nominated")
                self._queue.put_nowait(data)
            elif 127 < data[0] < 192:
                self._media(data, at)

    def _stun(self, data, source):
        try:
            message = stun.parse_message(data)
        except ValueError as error:
            self.faults.append(f"STUN that can't be read: {error}")
            return
        if message.message_class != stun.Class.REQUEST or self._answer is None:
            return
        if message.attributes.get("USERNAME") != f"{self.ufrag}:{self._answer[0]}":
            self.faults.append(f"STUN username {message.attributes.get('USERNAME')!r}")
            return
        if not message.check_message_integrity(self.pwd.encode()):
            self.faults.append("STUN with a wrong MESSAGE-INTEGRITY")
            return
        reply = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.RESPONSE,
                             transaction_id=message.transaction_id)
        if "ICE-CONTROLLING" not in message.attributes:
            self.faults.append("a check from an agent that is not controlling")
            reply.message_class = stun.Class.ERROR
            reply.attributes["ERROR-CODE"] = (487, "Role Conflict")
        else:
            reply.attributes["XOR-MAPPED-ADDRESS"] = source
            if "USE-CANDIDATE" in message.attributes:
                if self.remote not in (None, source):
                    self.faults.append("a second candidate pair was nominated")
                self.nominated_at = self.nominated_at or time.time()
                self.remote = source
        reply.add_message_integrity(self.pwd.encode())
        reply.add_fingerprint()
        self._sock.sendto(bytes(reply), source)

    async def _handshake(self, fingerprint):
        self._dtls._set_role(self.dtls)
        while self.dtls == "client" and self.remote is None:
            await asyncio.sleep(0.01)       # a client's first flight needs a way to go
        await self._dtls.start(RTCDtlsParameters(fingerprints=[RTCDtlsFingerprint("sha-256", fingerprint)]))
        if self._dtls.state != "connected":
            self.failed_at = time.time()
            return
        self.connected_at = time.time()
        for data, at in self._early:
            self._media(data, at)
        self._early.clear()
        self._tasks.append(self._loop.create_task(self._report_on()))
        if not self.patient and self.answered_at:
            self._start()

    def _media(self, data, at):
        if self._dtls._rx_srtp is None:
            if len(self._early) < 100:
                self._early.append((data, at))
            return
        if self.impairment and not 192 <= data[1] < 224:
            delay = self.impairment.inbound()
            if delay is None:
                return
            if delay:
                self._loop.call_later(delay, self._take, data, at + delay)
                return
        self._take(data, at)

    def _take(self, data, at):
        if self._closed:
            return
        try:
            if 192 <= data[1] < 224:
                plain = self._dtls._rx_srtp.unprotect_rtcp(data)
                self.reports += [(at, p) for p in RtcpPacket.parse(plain)]
                return
            plain = self._dtls._rx_srtp.unprotect(data)
        except Exception as error:
            self.faults.append(f"SRTP or RTCP that can't be read: {error}")
            return
        first, second, seq, ts, ssrc = struct.unpack("!BBHII", plain[:12])
        start = 12 + 4 * (first & 15)
        if first & 16:
            start += 4 + 4 * struct.unpack("!H", plain[start + 2:start + 4])[0]
        end = len(plain) - plain[-1] if first & 32 else len(plain)
        self.received.append(Packet(at, second & 127, bool(second & 128), seq, ts, ssrc, bool(first & 16), plain[start:end]))
        if self._sending is None and self.patient:
            self._start()

    # Sending

    def _start(self):
        if self._sending is None and not self._closed and not self.ringing:
            self._at = 0
            self._due = self._loop.time()       # the monotonic clock
            self._sending = self._loop.call_soon(self._tick)

    def _tick(self):
        if self._closed:
            return
        lateness.note(lateness.USER, self._due)
        self._due += sound.FRAME / (1 + self.ppm / 1e6)
        self._sending = self._loop.call_at(self._due, self._tick)
        if self._keys:
            self._event()
        else:
            payload = self.frames[self._at % len(self.frames)]
            self.sent.append((time.time(), self._ts, self._at))
            self._rtp(self.opus, self._ts, payload, marker=len(self.sent) == 1)
        self._at += 1
        self._ts = (self._ts + 960) & 0xFFFFFFFF

    def _event(self):
        # RFC 4733: all packets of one event carry the time it began, on the audio's 48 kHz line;
        # the duration counts in units of the event's own clock, 8 kHz.
        key, hold, pause = self._keys[0]
        step = getattr(self, "_step", 0)
        if step == 0:
            self._event_ts = self._ts
        if step < hold:
            duration, end = 160 * (step + 1), step == hold - 1
            for _ in range(3 if end else 1):
                self._rtp(self.event, self._event_ts, struct.pack("!BBH", key, (128 if end else 0) | 10, duration), step == 0)
        self._step = step + 1
        if self._step >= hold + pause:
            self._keys.pop(0)
            self._step = 0

    def _rtp(self, kind, ts, payload, marker=False):
        head = struct.pack("!BBHII", 128, kind | (128 if marker else 0), self._seq, ts, self.ssrc)
        self._seq = (self._seq + 1) & 0xFFFF
        data = self._dtls._tx_srtp.protect(head + payload)
        if self.impairment:
            delay = self.impairment.outbound()
            if delay is None:
                return
            if delay:
                self._loop.call_later(delay, self._out, data)
                return
        self._out(data)

    def _report(self):
        now = time.time() + NTP
        reports = []
        if self.received:
            latest = self.received[-1]
            reports = [RtcpReceiverInfo(ssrc=latest.ssrc, fraction_lost=0, packets_lost=0, highest_sequence=latest.seq,
                                        jitter=0, lsr=0, dlsr=0)]
        if self.sent:
            info = RtcpSenderInfo(ntp_timestamp=int(now * 2**32), rtp_timestamp=self.sent[-1][1],
                                  packet_count=len(self.sent), octet_count=60 * len(self.sent))
            return bytes(RtcpSrPacket(ssrc=self.ssrc, sender_info=info, reports=reports))
        return bytes(RtcpRrPacket(ssrc=self.ssrc, reports=reports))

    async def _report_on(self):
        while True:
            await asyncio.sleep(1)
            self._out(self._dtls._tx_srtp.protect_rtcp(self._report()))
