"""What the tests of the real binary share: one Asterisk, one cloud, one gateway for the whole run.

A test that needs a gateway of another kind starts one of its own on another address (`another`).
"""

import time

import pytest

import asterisk
import network
from api import Api
from caller import PlainTrunk
from gateway import API_KEY, Gateway
from hook import Hook
from voice import Voice
from whatsapp import Cloud, Number

EXTENSIONS = ["echo", "milliwatt", "record", "busy", "declined", "nobody", "broken", "silent", "late", "digits",
              "short", "early", "via-echo", "via-busy"]
NUMBERS = {e: Number(f"1065403522429{i:02}", f"+155501001{i:02}") for i, e in enumerate(EXTENSIONS)}

# The numbers of the gateway that is also asked by programs.
DESK = {n: Number(f"1065403522430{i:02}", f"+155501002{i:02}") for i, n in enumerate(["desk", "plain", "settings", "fresh"])}
ACCOUNT = "acme-desk"
OPERATOR, READER, SLOW = "sk_lab_operator_77c1", "sk_lab_reader_02f9", "sk_lab_slow_5d31"
HOOK_SECRET = "whsec-lab-4400"


@pytest.fixture(autouse=True)
def hushed():
    """No voice of a test that broke off speaks into another's call, whose gateway may have the same ports."""
    yield
    for voice in list(Voice.known):
        voice.hush()


@pytest.fixture(scope="session")
def cloud():
    it = Cloud(network.address(1), 18080, "EAAG-lab-token-8c1d", "0123456789abcdef-lab-app-secret").start()
    yield it
    it.stop()


@pytest.fixture(scope="session")
def pbx():
    it = asterisk.Asterisk(network.address(10), [
        asterisk.trunk("gw", "gw-secret-1f6a", network.address(2)),
        asterisk.trunk("gw256", "gw256-secret-9be2", network.address(3), sha256=True),
        asterisk.trunk("gw3", "gw3-secret-77d0", network.address(4)),
        asterisk.trunk("desk", "desk-secret-9c20", network.address(5)),
        asterisk.trunk("power", "power-secret-61b4", network.address(6)),
    ])
    print(it.start().cli("core show version").strip())
    yield it
    it.stop()


@pytest.fixture(scope="session")
def gateway(cloud, pbx, tmp_path_factory):
    it = Gateway(tmp_path_factory.mktemp("gateway"), cloud, pbx, 2, NUMBERS, trunk=("gw", "gw-secret-1f6a"))
    yield it.start()
    it.stop()


@pytest.fixture
def another(cloud, pbx, gateway, tmp_path):
    """Starts one more gateway; calls go there until the test is over."""
    started = []

    def start(host, trunk, **settings):
        it = Gateway(tmp_path, cloud, pbx, host, NUMBERS, trunk=trunk, **settings)
        started.append(it)
        return it.start()
    yield start
    for it in started:
        it.stop()


def desk_settings(cloud, more=""):
    """What the gateway for programs has in its file beyond the usual."""
    keys = "".join(f'[[http.key]]\nname = "{name}"\nkey = "{key}"\nrole = "{role}"\n' for name, key, role in (
        ("operator", OPERATOR, "operator"), ("reader", READER, "read"), ("slow", SLOW, "read")))
    return dict(
        http=f"allow_private = true             # the lab's applications are on private addresses\nrate_per_minute = 0\n{keys}",
        whatsapp='waba_id = "102290129340398"',
        own={
            "desk": {"account_id": f'"{ACCOUNT}"', "forward_to": '"sip:record-desk@pbx"     # the front desk'},
            "plain": {"trunk": '"plain"', "forward_to": '"sip:echo@pbx"', "country_code": '"49"'},
            "settings": {"trunk": None, "forward_to": '"sip:echo@pbx"'},
            "fresh": {"trunk": None, "forward_to": None, "enabled": "false"},
        },
        more=f"""
# A trunk that does not register.
[[trunk]]
name = "plain"
server = "sip:{network.address(12)}:5060;transport=udp"
register = false
codecs = ["pcmu"]

[[rates]]
prefix = "+49"
meta_per_minute_usd = 0.06
carrier_per_minute_usd = 0.012

[[rates]]                          # the longer prefix wins
prefix = "+4917"
meta_per_minute_usd = 0.6
carrier_per_minute_usd = 0.03

[[rates]]
prefix = "+1"
meta_per_minute_usd = 0.0
carrier_per_minute_usd = 0.01
{more}""")


@pytest.fixture(scope="session")
def plain():
    """The trunk that does not register: what Asterisk can't do is done from here."""
    it = PlainTrunk(network.address(12), network.address(5))
    yield it
    it.close()


@pytest.fixture(scope="session")
def hook():
    """The application that wants to hear of everything."""
    it = Hook(network.address(14), 8090, HOOK_SECRET)
    yield it
    it.close()


@pytest.fixture(scope="session")
def desk(cloud, pbx, plain, hook, tmp_path_factory):
    """The gateway that dials out and is asked by programs."""
    more = f"""
[[webhook]]
id = "app"
name = "app"
url = "{hook.url}"
secret = "{HOOK_SECRET}"
"""
    it = Gateway(tmp_path_factory.mktemp("desk"), cloud, pbx, 5, DESK, trunk=("desk", "desk-secret-9c20"), apart=True,
                 **desk_settings(cloud, more))
    it.secrets += [OPERATOR, READER, SLOW, HOOK_SECRET]
    yield it.start()
    it.stop()


@pytest.fixture
def another_desk(cloud, pbx, plain, tmp_path):
    """One more such gateway, for requests that nobody knows the effect of. It has no PBX to speak of."""
    settings = desk_settings(cloud)
    numbers = {name: Number(number.pnid[:-3] + "9" + number.pnid[-2:], number.phone[:-3] + "9" + number.phone[-2:])
               for name, number in DESK.items()}
    it = Gateway(tmp_path, cloud, pbx, 6, numbers, trunk=("power", "power-secret-61b4"), apart=True, **settings)
    yield it.start()
    it.stop()


@pytest.fixture
def lone(cloud, pbx, tmp_path):
    """Starts a gateway with one number that dials out, with other settings than usual; `own` are keys of that number."""
    started = []

    def start(own=None, whatsapp="", **settings):
        usual = desk_settings(cloud)
        it = Gateway(tmp_path, cloud, pbx, 6, {"lone": Number("106540352243299", "+15550100399")}, trunk=("power", "power-secret-61b4"),
                     apart=True, http=usual["http"], whatsapp=whatsapp, own={"lone": {"forward_to": '"sip:echo@pbx"'} | (own or {})}, **settings)
        started.append(it)
        return it.start()
    yield start
    for it in started:
        it.stop()


@pytest.fixture
def api(desk):
    """The REST API with the admin's key."""
    return Api(desk, API_KEY)


@pytest.fixture
def people(cloud, pbx, plain):
    """Makes WhatsApp users who can be called; afterwards everyone kept to the rules, and no call is left anywhere."""
    made = []

    def make(**how):
        frames = how.pop("frames", None)
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
    faults = [f"{call.id}: {fault}" for call in calls for fault in call.measure().faults]
    faults += cloud.faults
    strays, cloud.strays[:], cloud.faults[:] = list(cloud.strays), [], []
    assert not left, f"calls left at Meta: {[(c.user, c.names()) for c in left]}"
    assert not faults, "\n".join(faults)
    assert not strays, strays
    nothing_left(pbx)


def nothing_left(pbx):
    """Fails if the PBX still has a call a while after it should be over."""
    until = time.monotonic() + 15
    while pbx.channels() and time.monotonic() < until:
        time.sleep(0.1)
    left = pbx.cli("core show channels concise").strip()
    if left:
        pbx.cli("channel request hangup all")       # so that one call left over fails one test, not all that follow
    assert not left, f"calls left at the PBX: {left}"


class Dial:
    """Makes users and remembers them, so that a test that fails leaves no call behind."""

    def __init__(self, cloud, pbx):
        self.cloud, self.pbx, self.made, self.numbers = cloud, pbx, [], NUMBERS | DESK
        self.next = 4915110000000 + int(time.time() * 10) % 10**6 * 10

    def __call__(self, extension, **how):
        """A user about to call the number that leads to `extension`."""
        self.next += 1
        how.setdefault("user", str(self.next))
        call = self.cloud.call(self.numbers[extension], **how)
        self.made.append(call)
        return call

    def answered(self, extension, timeout=10.0, **how):
        """A user whose call has been answered."""
        call = self(extension, **how)
        assert call.ring() == 200
        call.action("accept", timeout)
        return call

    def seen(self, call, timeout=10.0):
        """What the PBX wrote down about a call; waits for it."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            for line in self.pbx.said("SEEN"):
                if line["call"] == call.id:
                    return line
            time.sleep(0.05)
        raise AssertionError(f"the PBX never saw {call.id}: {self.pbx.said('SEEN')[-3:]}")

    def rang(self, call):
        """How often the PBX was called for this call."""
        return sum(line["call"] == call.id for line in self.pbx.said("SEEN"))

    def gone(self, call, timeout=10.0):
        """What the PBX wrote down when the call was over; waits for it."""
        channel = self.seen(call)["chan"]
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            for line in self.pbx.said("GONE"):
                if line["chan"] == channel:
                    return line
            time.sleep(0.05)
        raise AssertionError(f"the PBX still has {channel}")


@pytest.fixture
def dial(cloud, pbx):
    """Calls, and afterwards: everyone kept to the rules, and nothing is left of any call at the PBX."""
    it = Dial(cloud, pbx)
    yield it
    for call in it.made:
        if call.rang_at and not call.ended_at:
            call.hang_up()
    faults = [f"{call.id}: {fault}" for call in it.made for fault in call.measure().faults]
    strays, cloud.strays[:] = list(cloud.strays), []
    assert not faults, "\n".join(faults)
    assert not [s for s in strays if s[0] == "POST"], strays
    nothing_left(pbx)
