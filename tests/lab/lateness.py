"""How late the lab itself is: its senders, and the machine it runs on.

Sound that the lab sends late is sound that the gateway has to do without: whoever sends notes each packet that it sends late.
And a small process sleeps 5 ms at a time and notes how much longer that took: what it was kept waiting, the gateway and the
PBX may have been too. It is a process of its own, so that it does not wait for the lab that computes.
"""

import collections
import os
import subprocess
import sys
import threading
import time

WORTH = 0.01            # seconds below which nobody is called late
NAP = 0.005

USER, PBX, AGENT, MACHINE = "the user's sound", "the PBX's sound", "the agent's sound", "the machine"

_notes = collections.deque(maxlen=20000)        # (monotonic time when it was noticed, seconds late, who)
_watchers = []

# What the process runs. It ends with the one that started it.
_PROCESS = f"""
import os, time
parent = os.getppid()
while os.getppid() == parent:
    begin = time.monotonic()
    time.sleep({NAP})
    late = time.monotonic() - begin - {NAP}
    if late > {WORTH}:
        print(f"{{begin + late}} {{late}}", flush=True)
"""


def note(who, due, now=None):
    """Called by a sender as it sends: what it sends was due at this monotonic time."""
    now = time.monotonic() if now is None else now
    if now - due > WORTH:
        _notes.append((now, now - due, who))


def worst(since, until=float("inf"), who=None):
    """(seconds, who) was the latest of all, or the latest of these, between two monotonic times; (0, nobody) if nobody was."""
    found = [(late, name) for at, late, name in list(_notes) if since <= at <= until and who in (None, name)]
    return max(found, default=(0.0, "nobody"))


def allowance(since, who=USER):
    """Seconds by which a gap in the sound may be longer than usual, because one of the lab's senders was late since a
    monotonic time: what it didn't send in time is missing, whoever listens."""
    return max(0.0, worst(since, who=who)[0] - WORTH)


def ahead():
    """Called by a thread that sends sound: it goes before the others of this process, if that is allowed here."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -10)
    except OSError:
        pass


def watch():
    """Starts the process; a second call does nothing. Its id."""
    if not _watchers:
        sys.setswitchinterval(0.001)        # a thread that computes lets one that sends go first sooner
        process = subprocess.Popen([sys.executable, "-S", "-c", _PROCESS], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=_hear, args=(process.stdout,), name="lateness of the machine", daemon=True).start()
        _watchers.append(process)
    return _watchers[0].pid


def settle(seconds=0.05):
    """Waits until the process has said what it noticed."""
    if _watchers:
        time.sleep(seconds)


def calm(seconds, most):
    """Waits until nobody has been late for so long, at most `most` seconds."""
    if _watchers:
        begin = time.monotonic()
        while time.monotonic() < begin + most and worst(max(begin, time.monotonic() - seconds))[0] or time.monotonic() < begin + seconds:
            time.sleep(0.05)


def stop():
    """Ends the process."""
    for process in _watchers:
        process.terminate()
        process.wait()


def _hear(lines):
    for line in lines:
        at, late = map(float, line.split())
        _notes.append((at, late, MACHINE))
