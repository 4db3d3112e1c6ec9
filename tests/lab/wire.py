"""A look at the trunk's wire: which RTP crossed between gateway and PBX, and when, by the kernel's clock."""

import collections
import select
import socket
import struct
import threading

import sound

Report = collections.namedtuple("Report", "source target kind")     # two (address, port), and the first packet's type (RFC 3550 12.1)
Sound = collections.namedtuple("Sound", "at source target kind seq ts payload")
SO_TIMESTAMPNS = 35


class Wire:
    """Listens on the loopback device of this namespace while used as a context manager.

    Keeps RTP of G.711 between two addresses: `between(a, b)` are the packets from a to b. Of RTCP, `reports` says where it passed.
    """

    def __init__(self, one, other):
        self.ends = {one, other}
        self.packets = []
        self.reports = []

    def __enter__(self):
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._sock.bind(("lo", 0x0800))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="wire", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(2)
        self._sock.close()

    def _listen(self):
        while not self._over.is_set():
            if not select.select([self._sock], [], [], 0.1)[0]:
                continue
            data, ancillary, _, where = self._sock.recvmsg(2048, 64)
            if where[2] == 4:           # PACKET_OUTGOING: the same packet is seen once more when it comes in
                continue
            if data[9] != 17:
                continue
            source, target = socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20])
            if source == target or not {source, target} <= self.ends:
                continue
            udp = data[(data[0] & 15) * 4:]
            body = udp[8:]
            if len(body) >= 8 and body[0] >> 6 == 2 and 200 <= body[1] < 208:
                ports = struct.unpack("!HH", udp[:4])
                self.reports.append(Report((source, ports[0]), (target, ports[1]), body[1]))
            if len(body) < 13 or body[0] >> 6 != 2 or body[1] & 127 not in (0, 8):
                continue
            seconds, nanos = struct.unpack("qq", ancillary[0][2][:16])
            self.packets.append(Sound(seconds + nanos / 1e9, source, target, body[1] & 127,
                                      *struct.unpack("!HI", body[2:8]), body[12:]))

    def between(self, source, target):
        """The packets of one direction, in the order they were seen."""
        return [p for p in self.packets if (p.source, p.target) == (source, target)]

    def rises(self, source, target):
        """Times at which bursts of a tone passed in one direction, seconds since 1970."""
        packets = self.between(source, target)
        if not packets:
            return []
        import numpy as np
        x = np.concatenate([sound.from_g711(p.kind, p.payload) for p in packets])
        starts = np.cumsum([0] + [len(p.payload) for p in packets])
        found = []
        for at in sound.rises(x, 8000):
            i = int(np.searchsorted(starts, at, side="right")) - 1
            found.append(packets[i].at + (at - starts[i]) / 8000)
        return found
