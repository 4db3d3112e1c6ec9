"""What reached the WhatsApp user: the sound, how it arrived, and whether everyone kept to the rules."""

import bisect

import lateness
import sound


class Heard:
    """The sound that reached the user, and how it arrived. Times in seconds."""

    def __init__(self, call):
        peer = call.peer
        packets = [p for p in list(peer.received) if p.kind == peer.opus]
        self.packets = len(packets)
        self.faults = list(call.faults) + list(peer.faults)
        # A call that ends meanwhile breaks the handshake off: nobody's fault.
        if peer.failed_at and (call.ended_at is None or peer.failed_at < call.ended_at - 1):
            self.faults.append("DTLS: the handshake or the fingerprint failed")
        if len({p.ssrc for p in packets}) > 1:
            self.faults.append(f"{len({p.ssrc for p in packets})} SSRCs in one call")
        if any(p.extended for p in packets):
            self.faults.append("RTP header extensions that nobody negotiated")
        if {p.kind for p in peer.received} - {peer.opus, peer.event}:
            self.faults.append("payload types that were not offered")
        # The stamp of "accepted" is taken just before the 200 is written, so nothing legal can be earlier.
        early = [p for p in packets if call.accepted_at is None or p.at < call.accepted_at]
        self.early = len(early)
        if early and call.outgoing:
            # Somebody who is being called may be sent silence, never what is said at the other end.
            loud = sound.level(sound.from_opus([(p.ts, p.payload) for p in early])[0])
            if loud > -50:
                self.faults.append(f"sound at {loud:.1f} dBFS before the user picked up")
        elif packets and call.accepted_at is None:
            self.faults.append(f"{len(packets)} packets for a call that was never accepted")
        elif early:
            self.faults.append(f"{len(early)} packets before accept was answered")
        later = packets[len(early):]
        self.begin_ts = later[0].ts if later else (packets[-1].ts if packets else 0)
        self.first = packets[0].at - call.accepted_at if packets and call.accepted_at else None      # below 0: silence before
        order = sorted(packets, key=lambda p: ((p.seq - packets[0].seq + 2**15) % 2**16)) if packets else []
        times = [p.at for p in packets]
        self.longest_interval = max((b - a for a, b in zip(times, times[1:])), default=0.0)
        self.missing = sum(((b.seq - a.seq) % 2**16) - 1 for a, b in zip(order, order[1:]) if a.seq != b.seq)
        self.doubled = sum(a.seq == b.seq for a, b in zip(order, order[1:]))
        steps = {((b.ts - a.ts) % 2**32, (b.seq - a.seq) % 2**16) for a, b in zip(order, order[1:])}
        if any(ts != 960 * n for ts, n in steps if n):
            self.faults.append(f"RTP time and sequence do not advance together: {sorted(steps)[:5]}")
        self.bytes = sum(len(p.payload) for p in packets)
        self.path = [(t - peer.answer_at) if t and peer.answer_at else None for t in (peer.nominated_at, peer.connected_at)]
        sent = [t for t, _, _ in list(peer.sent)]
        self.stall = max((b - a for a, b in zip(sent, sent[1:])), default=0.0)      # of the lab's own sending
        self.reports = len(peer.reports)
        at = [t for t, _ in peer.reports]
        self.report_interval = max((b - a for a, b in zip(at, at[1:])), default=0.0)
        self.order = order
        # What the lab itself sends late is missing from what comes back: that is not the gateway's gap.
        self.late = max(0.0, self.stall - 0.03, *(lateness.allowance(call.made, who) for who in (lateness.PBX, lateness.AGENT)))

    def decode(self):
        """Samples at 48 kHz; kept."""
        if not hasattr(self, "pcm"):
            self.pcm, self.places = sound.from_opus([(p.ts, p.payload) for p in self.order])
        return self.pcm

    def steady(self, skip=1.0):
        """The sound since the call was accepted, without the first second, where codecs and buffers settle."""
        start = ((self.begin_ts - self.order[0].ts) % 2**32) if self.early and self.order else 0
        return self.decode()[start + int(skip * sound.CLOCK):]

    def tone(self, hertz, dbfs, within_db=3.0, gap=0.04, skip=1.0):
        """Fails unless this tone was heard, at this level and whole but for a `gap`; returns a line with the numbers."""
        x = self.steady(skip)
        f, loud, longest = sound.frequency(x, sound.CLOCK), sound.level(x), sound.longest_gap(x, sound.CLOCK)
        line = (f"{f:.1f} Hz at {loud:.1f} dBFS, purity {sound.purity(x, sound.CLOCK, hertz) if len(x) else 0:.4f}, "
                f"longest gap {1000 * longest:.0f} ms, {self.packets} packets, first {1000 * (self.first or 0):.0f} ms "
                f"after accept, longest interval {1000 * self.longest_interval:.0f} ms, own sending {1000 * self.stall:.0f} ms, {self.reports} RTCP packets"
                + (f", the lab up to {1000 * self.late:.0f} ms late" if self.late else ""))
        assert len(x) > sound.CLOCK / 2, line
        assert abs(f - hertz) <= hertz * 0.01, line
        assert abs(loud - dbfs) <= within_db, line
        assert longest <= gap + self.late, line
        return line

    def rises(self):
        """Times at which bursts of a tone arrived, seconds since 1970."""
        pcm, found = self.decode(), []
        for at in sound.rises(pcm, sound.CLOCK):
            i = bisect.bisect_right(self.places, at) - 1
            found.append(self.order[i].at + (at - self.places[i]) / sound.CLOCK)
        return found
