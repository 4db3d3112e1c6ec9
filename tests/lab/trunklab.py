"""Fixtures of the trunk tests: a PBX made by its recipe, a proxy, phones, and gateways with any trunks."""

import os
import re
import time

import pytest

import asterisk
import network
import sound
from api import Api
from byhand import HandPbx
from certificates import Authority
from gateway import API_KEY, Gateway, section
from voice import KEYS
from whatsapp import Number

PBX, SECOND, PROXY = network.address(21), network.address(22), network.address(23)
HAND, SIPP = network.address(27), network.address(28)
SECRET, TLS = "lab-recipe-7d1c", "lab-tls-50aa"


def account(name, **keys):
    """A [[trunk]] that registers as `name` at the PBX; see `asterisk_accounts`."""
    return section(name, f"sip:{PBX}:5060;transport=udp", username=name, password=f"{name}-secret-3e", register=True, **keys)


def recipe(pbx, folder):
    """What the addresses and passwords of docs/pbx/asterisk/pjsip.conf are here."""
    ports = {"192.0.2.10:": f"[{pbx}]:"} if ":" in pbx else {}
    return ports | {"192.0.2.10": pbx, "CHANGE-ME-whatsapp": SECRET, "CHANGE-ME-tls": TLS,
            "/etc/asterisk/keys": folder, "minimum_expiration = 20": "minimum_expiration = 5"}


class TrunkPbx(asterisk.Asterisk):
    """An Asterisk by the recipe, with more accounts of the same kind. Its certificate is `papers`."""

    def __init__(self, address, name, papers, accounts, words=None):
        super().__init__(address, accounts, name=name, recipe=recipe(address, f"/run/watrunk-{os.getpid()}-{name}/keys") | (words or {}))
        self.papers = papers
        keys = self.run / "keys"
        keys.mkdir()
        for file, path in (("pbx.pem", papers.cert), ("pbx.key", papers.key)):
            (keys / file).write_bytes(path.read_bytes())

    def messages(self, call_id=None):
        """The SIP messages of Asterisk's own log: (received or transmitted, text), of one Call-ID or of all."""
        blocks = re.split(r"<--- (?=Received|Transmitting)", self.log("trace"))
        found = [("in" if b.startswith("Received") else "out", b.split("\n", 1)[1].strip()) for b in blocks[1:]]
        return [m for m in found if call_id is None or re.search(rf"(?im)^(?:Call-ID|i):\s*{re.escape(call_id)}\s*$", m[1])]


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """Signs the certificates of the trunks."""
    return Authority(tmp_path_factory.mktemp("trunk-ca"))


@pytest.fixture(scope="session")
def trunk_pbx(authority):
    """The PBX of the trunk tests."""
    extra = [asterisk.sections(name, f"{name}-secret-3e", **keys) for name, keys in ACCOUNTS.items()]
    extra += [asterisk.phone(name, f"{name}-pw", codecs) for name, codecs in PHONES.items()]
    it = TrunkPbx(PBX, "trunks", authority.issue("pbx", PBX, hosts=["pbx.lab.example"]), extra)
    print(it.start().cli("core show version").strip())
    yield it
    it.stop()


# Accounts at the PBX beside those of the recipe: what is not as there.
ACCOUNTS = {
    "opus": {"allow": "opus"},
    "g722": {"allow": "g722"},
    "alaw": {"allow": "alaw"},
    "ulaw": {"allow": "ulaw"},
    "info": {"dtmf_mode": "info"},
    "timers": {"timers": "always", "timers_min_se": "90", "timers_sess_expires": "90"},
    "prack": {"100rel": "required"},
    "mux": {"rtcp_mux": "yes"},
    "srtp32": {"media_encryption": "sdes", "srtp_tag_32": "yes"},
}
PHONES = {"1001": "g722", "1002": "opus", "1003": "alaw,ulaw", "1004": "alaw"}

_numbers = iter(range(100, 10000))


def number():
    """A WhatsApp business number that nobody else has."""
    n = next(_numbers)
    return Number(f"10654035225{n:05}", f"+1555020{n:04}")


@pytest.fixture(scope="module")
def boxes(cloud, tmp_path_factory):
    """Starts gateways with any trunks; they end with the module, or when another one starts at their address. `numbers`
    maps a name to where its calls go (`echo@opus`) or to the keys of that number."""
    started = []

    def end(host):
        for old in [it for it in started if it.address == network.address(host)]:
            started.remove(old)
            old.stop()

    def start(host, trunks, numbers, ready=True, **settings):
        end(host)
        own, ours = {}, {}
        for name, to in numbers.items():
            keys = to if isinstance(to, dict) else {"forward_to": f"sip:{to}", "trunk": to.split("@")[1]}
            own[name] = {k: f'"{v}"' if isinstance(v, str) else v for k, v in keys.items()}
            ours[name] = number()
        it = Gateway(tmp_path_factory.mktemp(f"box{host}-"), cloud, None, host, ours, apart=True, trunks=trunks, own=own,
                     http="allow_private = true\nrate_per_minute = 0\n" + settings.pop("http", ""), **settings)
        started.append(it)
        it.api = Api(it, API_KEY)
        return it.start() if ready else it
    start.end = end
    yield start
    wrong = []
    for it in started:
        try:
            it.stop()
        except AssertionError as error:
            wrong.append(str(error))
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def hand():
    """A PBX that is played by hand."""
    with HandPbx(HAND) as it:
        yield it


@pytest.fixture
def rings(cloud):
    """Makes users who call a number of a gateway; afterwards everyone kept to the rules and no call is left."""
    made = []

    def ring(box, extension, answered=True, timeout=10.0, **how):
        how.setdefault("user", str(4915700000000 + next(_numbers)))
        call = cloud.call(box.numbers[extension], **how)
        made.append(call)
        assert call.ring() == 200
        if answered:
            call.action("accept", timeout)
        return call
    yield ring
    for call in made:
        if call.rang_at and not call.ended_at:
            call.hang_up()
    faults = [f"{call.id}: {fault}" for call in made for fault in call.measure().faults]
    cloud.strays[:] = []
    assert not faults, "\n".join(faults)


@pytest.fixture
def users(cloud):
    """Makes WhatsApp users who can be called; afterwards everyone kept to the rules and no call is left."""
    made = []

    def make(frames=None, **how):
        person = cloud.person(**how)
        person.frames = frames
        made.append(person)
        return person
    yield make
    calls = [call for person in made for call in person.calls]
    until = time.monotonic() + 10
    while any(not call.ended_at for call in calls) and time.monotonic() < until:
        time.sleep(0.05)
    left = [call for call in calls if not call.ended_at]
    for call in left:
        call.hang_up()
    faults = [f"{call.id}: {fault}" for call in calls for fault in call.measure().faults] + cloud.faults
    cloud.strays[:], cloud.faults[:] = [], []
    assert not left, f"calls left at Meta: {[(c.user, c.names()) for c in left]}"
    assert not faults, "\n".join(faults)


def why(box, call):
    """The word in the record of a call, once it is written."""
    return box.record(call)["why"]


def until(true, timeout, complaint):
    """Waits for something; what it was."""
    end = time.monotonic() + timeout
    while True:
        value = true()
        if value:
            return value
        assert time.monotonic() < end, f"{complaint() if callable(complaint) else complaint} within {timeout} s"
        time.sleep(0.05)


@pytest.fixture
def seen(trunk_pbx):
    """What the PBX wrote down about a call of a WhatsApp user; waits for it."""
    def find(call, word="SEEN"):
        return until(lambda: next((line for line in trunk_pbx.said(word) if line.get("call") == call.id), None), 10,
                     lambda: f"the PBX never saw {call.id}: {trunk_pbx.said(word)[-3:]}")
    return find


def stretch(call, begin, end):
    """What a user heard between two times (seconds since 1970), as samples at 48 kHz."""
    heard = call.measure()
    pcm = heard.decode()
    places = [place for place, packet in zip(heard.places, heard.order) if begin <= packet.at < end]
    return pcm[max(0, min(places)):max(places) + 960] if places else pcm[:0]


def part(call, begin, end):
    """(hertz, dBFS, longest gap in seconds) of what a user heard between two times."""
    x = stretch(call, begin, end)
    return sound.frequency(x, sound.CLOCK), sound.level(x), sound.longest_gap(x, sound.CLOCK)


def hears(call, hertz, dbfs, begin, end, within_db=3.0, gap=0.04):
    """Fails unless a user heard this tone between two times, whole; a line with the numbers."""
    f, level, longest = part(call, begin, end)
    late = call.measure().late
    line = f"{f:.1f} Hz at {level:.1f} dBFS, longest gap {1000 * longest:.0f} ms in {end - begin:.1f} s"
    assert abs(f - hertz) <= hertz * 0.01 and abs(level - dbfs) <= within_db and longest <= gap + late, f"{line}, not {hertz} Hz at {dbfs}"
    return line


def pressed(call):
    """The keys that reached a WhatsApp user by RFC 4733, as (key, milliseconds), each event once."""
    found = {}
    for p in list(call.peer.received):
        if p.kind == call.peer.event and len(p.payload) >= 4:
            duration = int.from_bytes(p.payload[2:4], "big")
            found[p.ts] = (KEYS[p.payload[0]], max(duration, found.get(p.ts, ("", 0))[1]))
    return [(key, duration // 8) for key, duration in found.values()]


def tone(call, hertz, dbfs, gap=0.04, **how):
    """Fails unless a user heard this tone whole since the call was accepted; a line with the numbers."""
    return call.measure().tone(hertz, dbfs, gap=gap, **how)


def flow(call, begin, end):
    """The longest time (seconds) that nothing reached a user between two times."""
    at = [begin, *(p.at for p in list(call.peer.received) if p.kind == call.peer.opus and begin <= p.at < end), end]
    return max(b - a for a, b in zip(at, at[1:]))
