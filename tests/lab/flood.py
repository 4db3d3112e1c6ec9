"""Everything that strangers send to a SIP port, from a process of its own: flood.py TARGET SECONDS RATE KIND=ADDRESS…

Kinds: scan (OPTIONS, REGISTER and INVITE for one extension after the other, as SIPVicious does), junk (random datagrams),
torn (SIP that is cut, doubled, endless or contradicts itself), media (to the ports of the sound), streams (TCP connections
that say nothing, or half a message). Prints as JSON what it sent and how many bytes came back, by kind.
"""

import json
import random
import select
import socket
import sys
import time

AGENTS = ["friendly-scanner", "sipvicious", "VaxSIPUserAgent/3.1", "pplsip"]


def scan(dice, n, here, target):
    """The next message of a scan."""
    method = ("OPTIONS", "REGISTER", "INVITE")[n % 3]
    extension = 100 + n // 3 % 9900
    to = f"sip:{extension}@{target}"
    body = ""
    more = ""
    if method == "REGISTER":
        more = f"Contact: <sip:{extension}@{here}:5060>\r\nExpires: 3600\r\n"
        if n % 2:
            more += (f'Authorization: Digest username="{extension}", realm="asterisk", nonce="{dice.getrandbits(64):x}", uri="sip:{target}", '
                     f'response="{dice.getrandbits(128):032x}", algorithm=MD5\r\n')
    elif method == "INVITE":
        body = f"v=0\r\no=- 1 1 IN IP4 {here}\r\ns=-\r\nc=IN IP4 {here}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\n"
        more = f"Contact: <sip:{extension}@{here}:5060>\r\nContent-Type: application/sdp\r\n"
        to = f"sip:{dice.choice(['', '00', '+', '9', '011'])}{dice.randrange(10**10, 10**11)}@{target}"
    return (f"{method} {to if method != 'REGISTER' else 'sip:' + target} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {here}:5060;branch=z9hG4bK-{dice.getrandbits(48):x};rport\r\n"
            f"From: \"{extension}\" <sip:{extension}@{target}>;tag={dice.getrandbits(40):x}\r\nTo: <{to}>\r\nCall-ID: {dice.getrandbits(64)}\r\n"
            f"CSeq: {n % 7 + 1} {method}\r\nMax-Forwards: 70\r\nUser-Agent: {AGENTS[n % 4]}\r\n{more}"
            f"Content-Length: {len(body)}\r\n\r\n{body}").encode()


def junk(dice, n, here, target):
    """Bytes that mean nothing, some of them with the beginning of something."""
    beginnings = [b"", b"\r\n\r\n", b"\x16\x03\x01", b"GET / HTTP/1.0\r\n\r\n", b"\x80\x00", b"INVITE ", b"SIP/2.0 200 OK\r\n"]
    return dice.choice(beginnings) + dice.randbytes(dice.randrange(1, 900))


def torn(dice, n, here, target):
    """A good message that somebody has got at."""
    good = scan(dice, n, here, target)
    at = dice.randrange(1, len(good))
    ways = [
        lambda: good[:at], lambda: good[at:], lambda: good.replace(b"\r\n", b"\n"),
        lambda: good.replace(b"Content-Length: ", b"Content-Length: 9999999999"),
        lambda: good.replace(b"CSeq: ", b"CSeq: 99999999999999999999"), lambda: good.replace(b"Via: ", b"Via: " * 300),
        lambda: good[:at] + b"\0" * 40 + good[at:],
        lambda: good.replace(b"Max-Forwards: 70", b"Max-Forwards: -1"), lambda: good.replace(b"From: ", b"X: " + b"a" * 3000 + b"\r\nFrom: "),
        lambda: good.replace(b"\r\nTo:", b"\r\nTo: <sip:a@b\r\nTo:"), lambda: good.replace(b"SIP/2.0\r\n", b"SIP/7.0\r\n", 1),
        lambda: good.replace(b"Call-ID", b"Call-ID: x\r\n" * 50 + b"Call-ID"), lambda: good[:at] + dice.randbytes(60) + good[at + 60:],
    ]
    return dice.choice(ways)()[:60000]


def media(dice, n, here, target):
    """RTP, RTCP, STUN and DTLS of nobody."""
    heads = [b"\x80\x08", b"\x80\x00", b"\x80\x65", b"\x80\xc8\x00\x06", b"\x81\xcb", b"\x00\x01\x00\x00\x21\x12\xa4\x42", b"\x16\xfe\xfd"]
    return dice.choice(heads) + dice.randbytes(dice.randrange(10, 300))


def main():
    """Sends for some seconds."""
    target, seconds, rate = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    dice = random.Random(9)
    makers = {"scan": scan, "junk": junk, "torn": torn, "media": media}
    told = {}
    socks, streams = [], []
    for word in sys.argv[4:]:
        kind, address = word.split("=")
        told.setdefault(word, {"sent": 0, "back": 0})
        if kind != "streams":
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((address, 0))
            sock.setblocking(False)
            socks.append((word, makers[kind], address, sock, range(20000, 20060) if kind == "media" else range(5060, 5061)))
        else:
            streams.append((word, address, []))
    begin, n = time.monotonic(), 0
    while time.monotonic() < begin + seconds:
        for word, maker, address, sock, ports in socks:
            try:
                sock.sendto(maker(dice, n, address, target), (target, ports[n % len(ports)]))
                told[word]["sent"] += 1
            except OSError:
                pass
        if n % 20 == 0:
            for word, address, held in streams:
                sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                sock.setblocking(False)
                try:
                    sock.bind((address, 0))
                    sock.connect_ex((target, 5060))
                    held.append(sock)
                    told[word]["sent"] += 1
                    if len(held) > 3 and len(held) % 2:
                        held[-3].send(b"INVITE sip:x@y SIP/2.0\r\nVia: SIP/2.0/TCP ")
                except OSError:
                    pass
            for word, _, _, sock, _ in socks:
                while True:
                    try:
                        told[word]["back"] += len(sock.recv(65536))
                    except OSError:
                        break
        n += 1
        time.sleep(max(0.0, begin + n * len(socks) / rate - time.monotonic()))
    for word, _, held in streams:
        told[word]["open"] = 0
        for sock in held:
            readable = select.select([sock], [], [], 0)[0]
            try:
                told[word]["open"] += not (readable and sock.recv(100) == b"")
            except OSError:
                pass
    print(json.dumps(told))


main()
