"""What the tests of the real binary share: one Asterisk, one cloud, one gateway for the whole run.

A test that needs a gateway of another kind starts one of its own on another address (`another`).
"""

import time

import pytest

import asterisk
import network
from gateway import Gateway
from whatsapp import Cloud, Number

EXTENSIONS = ["echo", "milliwatt", "record", "busy", "declined", "nobody", "broken", "silent", "late", "digits",
              "short", "early", "via-echo", "via-busy"]
NUMBERS = {e: Number(f"1065403522429{i:02}", f"+155501001{i:02}") for i, e in enumerate(EXTENSIONS)}


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


class Dial:
    """Makes users and remembers them, so that a test that fails leaves no call behind."""

    def __init__(self, cloud, pbx):
        self.cloud, self.pbx, self.made = cloud, pbx, []
        self.next = 4915110000000 + int(time.time() * 10) % 10**6 * 10

    def __call__(self, extension, **how):
        """A user about to call the number that leads to `extension`."""
        self.next += 1
        how.setdefault("user", str(self.next))
        call = self.cloud.call(NUMBERS[extension], **how)
        self.made.append(call)
        return call

    def answered(self, extension, timeout=10.0, **how):
        """A user whose call has been answered."""
        call = self(extension, **how)
        assert call.ring() == 200
        call.action("accept", timeout)
        return call

    def seen(self, call, timeout=5.0):
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

    def gone(self, call, timeout=5.0):
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
    until = time.monotonic() + 5
    while pbx.channels() and time.monotonic() < until:
        time.sleep(0.1)
    left = pbx.cli("core show channels concise").strip()
    if left:
        pbx.cli("channel request hangup all")       # so that one call left over fails one test, not all that follow
    assert not left, f"calls left at the PBX: {left}"
