"""SDP as Meta words it, both as the one who calls and as the one who is called, and a strict reading of the gateway's."""

import dataclasses
import re

OPUS, EVENT = 111, 126
STREAM = "632a909f-1060-4369-96a4-7bd03e291ee7"
NOWHERE6 = "2001:db8:f343:131:face:b00c:0:699c"         # listed first by priority, and nobody is there


def offer(address, port, ufrag, pwd, digest, ssrc, style="current", **change):
    """An offer to the gateway. `style` is current or older; `change` breaks it on purpose: codec="PCMU", fingerprint=False,
    lines=2."""
    a = address
    opus = change.get("codec") or "opus/48000/2"
    tail = f" ufrag {ufrag}" if style == "older" else ""
    lines = [
        "v=0", "o=- 1741113186367 2 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE audio",
        f"a=msid-semantic: WMS {STREAM}", "a=ice-lite",
    ]
    audio = [
        f"m=audio {port} UDP/TLS/RTP/SAVPF {OPUS} {EVENT}", f"c=IN IP4 {a}", "a=rtcp:9 IN IP4 0.0.0.0",
        f"a=candidate:1775469887 1 udp 2122260223 {a} {port} typ host generation 0 network-cost 50{tail}",
        f"a=candidate:3355715111 1 udp 2122262783 {NOWHERE6} {port} typ host generation 0 network-cost 50{tail}",
        f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{pwd}",
    ]
    if change.get("fingerprint", True):
        audio.append(f"a=fingerprint:sha-256 {digest}")
    audio += ["a=setup:actpass", "a=mid:audio"]
    if style == "older":
        audio += [
            "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            "a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
        ]
        fmtp = "minptime=10;useinbandfec=1"
    else:
        fmtp = "maxaveragebitrate=20000;maxplaybackrate=16000;minptime=20;sprop-maxcapturerate=16000;useinbandfec=1"
    audio += [
        "a=sendrecv", f"a=msid:{STREAM} WhatsAppTrack1", "a=rtcp-mux", f"a=rtpmap:{OPUS} {opus}",
        f"a=rtcp-fb:{OPUS} transport-cc", f"a=fmtp:{OPUS} {fmtp}", f"a=rtpmap:{EVENT} telephone-event/8000",
        "a=maxptime:20", "a=ptime:20", f"a=ssrc:{ssrc} cname:WhatsAppAudioStream1",
    ]
    if style == "older":
        audio += [f"a=ssrc:{ssrc} msid:{STREAM} WhatsAppTrack1", f"a=ssrc:{ssrc} mslabel:{STREAM}",
                  f"a=ssrc:{ssrc} label:WhatsAppTrack1"]
    for n in range(change.get("lines", 1)):
        lines += audio if n == 0 else [line.replace("mid:audio", f"mid:audio{n}") for line in audio]
    return "\r\n".join(lines) + "\r\n"


@dataclasses.dataclass
class Offered:
    """What the gateway's offer says."""

    mid: str = "0"
    formats: str = "111"
    opus: int = OPUS
    event: int = EVENT
    ufrag: str = ""
    fingerprint: str = ""
    setup: str = ""
    maps: tuple = ()


def answer(offered, address, port, ufrag, pwd, fingerprint, ssrc, setup="active"):
    """Meta's answer to an offer of the gateway: its mid, its BUNDLE and its payload types come back."""
    lines = [
        "v=0", "o=- 7602563789789945080 2 IN IP4 127.0.0.1", "s=-", "t=0 0", f"a=group:BUNDLE {offered.mid}",
        f"a=msid-semantic: WMS {STREAM}", "a=ice-lite",
        f"m=audio {port} UDP/TLS/RTP/SAVPF {offered.formats}", f"c=IN IP4 {address}", "a=rtcp:9 IN IP4 0.0.0.0",
        f"a=candidate:1972637320 1 udp 2113937151 {address} {port} typ host generation 0 network-cost 50 ufrag {ufrag}",
        f"a=candidate:2163208203 1 udp 2113939711 {NOWHERE6} {port} typ host generation 0 network-cost 50 ufrag {ufrag}",
        f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{pwd}", "a=ice-options:trickle", f"a=fingerprint:sha-256 {fingerprint}",
        f"a=setup:{setup}", f"a=mid:{offered.mid}", "a=sendrecv", f"a=msid:{STREAM} WhatsAppTrack1", "a=rtcp-mux",
        *(f"a=rtpmap:{m}" for m in offered.maps), f"a=rtcp-fb:{offered.opus} transport-cc",
        f"a=fmtp:{offered.opus} minptime=10;useinbandfec=1", f"a=ssrc:{ssrc} cname:WhatsAppAudioStream1",
    ]
    return "\r\n".join(lines) + "\r\n"


def _common(sdp):
    """What is wrong with either kind, and a reader of attributes."""
    wrong = []
    lines = sdp.split("\r\n")
    if "\n" in sdp.replace("\r\n", "") or not sdp.endswith("\r\n"):
        wrong.append("SDP lines must end in CRLF, the last one too")

    def values(name):
        return [line[len(name) + 3:] for line in lines if line.startswith(f"a={name}:")]

    prints = values("fingerprint")
    if len(prints) != 1 or not prints[0].lower().startswith("sha-256 "):
        wrong.append(f"there must be exactly one fingerprint, sha-256: {[p.split()[0] for p in prints]}")
    if values("ptime") != ["20"]:
        wrong.append(f"ptime must be 20: {values('ptime')}")
    if any(v != "20" for v in values("maxptime")):
        wrong.append(f"maxptime must be 20: {values('maxptime')}")
    if "a=rtcp-mux" not in lines:
        wrong.append("no rtcp-mux")
    if "a=ice-lite" in lines:
        wrong.append("both sides ice-lite")
    for direction in ("sendonly", "recvonly", "inactive"):
        if f"a={direction}" in lines:
            wrong.append(f"the stream is {direction}")
    if len({v.split()[0] for v in values("ssrc")}) > 1:
        wrong.append("more than one SSRC")
    if not values("ice-ufrag") or not values("ice-pwd"):
        wrong.append("no ICE credentials")
    media = [line for line in lines if line.startswith("m=")]
    if len(media) != 1 or not re.match(r"m=audio \d+ UDP/TLS/RTP/SAVPF( \d+)+$", media[0]):
        wrong.append(f"there must be one audio line over UDP/TLS/RTP/SAVPF, there is {media}")
        media = []
    return wrong, media, values, (values("ice-ufrag") or [""])[0], (prints or ["x x"])[0].split()[-1]


def inspect_answer(sdp, offer):
    """What is wrong with the gateway's answer, as sentences; the parsed ufrag and fingerprint."""
    wrong, media, values, ufrag, fingerprint = _common(sdp)
    if media and media[0].split()[3] != str(OPUS):
        wrong.append(f"Opus must be on the payload type that was offered, {OPUS}: {media[0]}")
    if not any(re.fullmatch(rf"{OPUS} opus/48000/2", v, re.I) for v in values("rtpmap")):
        wrong.append("no rtpmap for Opus on the offered payload type")
    if values("setup") != ["active"]:
        wrong.append(f"setup must be active: {values('setup')}")
    if values("extmap"):
        wrong.append("header extensions must not be answered")
    mids = re.findall(r"(?m)^a=mid:(\S+)", offer)
    if values("mid") != mids[:1]:
        wrong.append(f"mid must be repeated: {values('mid')} for {mids}")
    if re.search(r"(?m)^a=rtpmap:\d+ (?!opus|telephone-event)", sdp, re.I):
        wrong.append("codecs that were not offered")
    return wrong, ufrag, fingerprint


def inspect_offer(sdp):
    """What is wrong with the gateway's offer, as sentences; what it says, as `Offered`."""
    wrong, media, values, ufrag, fingerprint = _common(sdp)
    found = Offered(ufrag=ufrag, fingerprint=fingerprint, maps=tuple(values("rtpmap")), setup=(values("setup") or [""])[0])
    formats = media[0].split()[3:] if media else []
    found.formats = " ".join(formats)
    maps = {v.split()[0]: v.split()[1].lower() for v in found.maps if len(v.split()) > 1}
    opus = [f for f in formats if maps.get(f) == "opus/48000/2"]
    events = [f for f in formats if maps.get(f) == "telephone-event/8000"]
    if not opus:
        wrong.append("Opus is not offered")
    if not events:
        wrong.append("telephone-event/8000 is not offered")
    found.opus, found.event = int((opus or [OPUS])[0]), int((events or [EVENT])[0])
    if values("setup") not in (["actpass"], ["active"], ["passive"]):
        wrong.append(f"setup must be actpass, active or passive: {values('setup')}")
    if len(values("mid")) != 1:
        wrong.append(f"there must be one mid: {values('mid')}")
    else:
        found.mid = values("mid")[0]
    if not re.search(rf"(?m)^a=group:BUNDLE {re.escape(found.mid)}\r?$", sdp):
        wrong.append("BUNDLE does not name the mid")
    return wrong, found
