"""Many calls at once: how many, what each of them says, and what all of that costs the machine.

In CI they are as many as two cores carry beside anything else; `make many` tries fifty.
"""

import os
import time

import sound

CALLS = int(os.environ.get("WATRUNK_MANY") or 20)
GROWTH = 8              # MiB that a second round may add: the allocator keeps what the first one needed, and not always the same


def pitches(first):
    """A tone for each call, in hertz, far enough from the others to be told from them."""
    return [first + 37 * i for i in range(CALLS)]


def frames(hertz):
    """What the user of a call says: such a tone."""
    return sound.tone(hertz, -10, seconds=6)


def used(pid):
    """CPU time of a process so far, in seconds."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Cost:
    """What processes cost while calls run: names and process ids; the lab is always one of them."""

    def __init__(self, **pids):
        self.pids = pids | {"lab": os.getpid()}
        self.begin()

    def begin(self):
        """From now on; the last measurement is forgotten."""
        self.at, self.before = time.monotonic(), {name: used(pid) for name, pid in self.pids.items()}

    def __str__(self):
        seconds = time.monotonic() - self.at
        return "of a core: " + ", ".join(f"{name} {100 * (used(pid) - self.before[name]) / seconds:.0f} %" for name, pid in self.pids.items())
