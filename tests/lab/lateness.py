"""How late the lab itself is: its senders, and the machine it runs on.

Sound that the lab sends late is sound that the gateway has to do without: whoever sends notes each packet that it sends late.

The machine is watched by small processes of their own, so that they don't wait for the lab that computes. One sleeps 5 ms at a
time, wherever the kernel puts it, and notes how much longer that took: what it was kept waiting, the gateway and the PBX may have
been too. One for each core does the same before everybody else there: it is late only if the core itself stood still. And one
reads how long the kernel let the threads of the PBX, the telephones and the gateway wait for a core (`run_delay` in schedstat):
what others took from them. What the gateway's own threads computed meanwhile is taken off its waits, so that a gateway that gets
into its own way is not excused.
"""

import collections
import os
import subprocess
import sys
import threading
import time

WORTH = 0.01            # seconds below which nobody is called late
NAP = 0.005
LOOK = 0.05             # seconds between two looks at the gateway's threads

USER, PBX, AGENT, MACHINE = "the user's sound", "the PBX's sound", "the agent's sound", "the machine"
GATEWAY, PROGRAM = "a processor for the gateway", "a processor for the PBX"

_notes = collections.deque(maxlen=20000)        # (monotonic time when it was noticed, seconds late, who)
_watchers = []
_WORDS = {"machine": MACHINE, "gateway": GATEWAY, "program": PROGRAM}

# What the processes run. They end with the one that started them.
_PROCESS = f"""
import os, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)    # they end with who started them
NAP, WORTH, LOOK = {NAP}, {WORTH}, {LOOK}

def say(at, late, who):
    try:
        os.write(1, f"{{at}} {{late}} {{who}}\\n".encode())
    except OSError:
        os._exit(0)             # nobody listens any more

def nap(parent, who):
    while os.getppid() == parent:
        begin = time.monotonic()
        time.sleep(NAP)
        late = time.monotonic() - begin - NAP
        if late > WORTH:
            say(begin + late, late, who)

def threads(pid):
    found = {{}}
    try:
        for name in os.listdir(f"/proc/{{pid}}/task"):
            with open(f"/proc/{{pid}}/task/{{name}}/schedstat") as stat:
                ran, waited, _ = map(int, stat.read().split())
            found[name] = ran / 1e9, waited / 1e9
    except (OSError, ValueError):
        pass
    return found

def follow(parent):
    os.set_blocking(0, False)
    pids, seen = {{}}, b""
    while os.getppid() == parent:
        time.sleep(LOOK)
        try:
            seen += os.read(0, 65536)
        except OSError:
            pass
        *lines, seen = seen.split(b"\\n")
        for line in lines:
            word, pid = line.split()
            pids.pop(int(pid), None)
            if word != b"gone":
                pids[int(pid)] = word.decode(), []
        now = time.monotonic()
        for pid, (who, past) in pids.items():
            found = threads(pid)
            past.append((now, found, sum(ran for ran, _ in found.values())))
            if len(past) < 2:
                continue
            late = 0.0
            for name, (_, waited) in found.items():
                wait = waited - past[-2][1].get(name, (0.0, waited))[1]
                if wait > WORTH:
                    # A wait is booked when it is over: it may have begun before the last look.
                    before = next((ran for at, _, ran in reversed(past[:-1]) if at <= now - LOOK - wait), past[0][2])
                    own = max(0.0, past[-1][2] - before) if who == "gateway" else 0.0
                    late = max(late, wait - own)
            if late > WORTH:
                say(now, late, who)
            del past[:-40]

me, parent = os.getpid(), os.getppid()
for core in sorted(os.sched_getaffinity(0)):
    if os.fork() == 0:
        try:
            os.sched_setaffinity(0, [core])
            os.setpriority(os.PRIO_PROCESS, 0, -20)
        except OSError:
            os._exit(0)         # at the same priority it would notice who is busy on this core, though there are others
        nap(me, "machine")
        os._exit(0)
if os.fork() == 0:
    follow(me)
    os._exit(0)
nap(parent, "machine")
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
    """Starts the processes; a second call does nothing. The id of the one that sleeps wherever it is put."""
    if not _watchers:
        sys.setswitchinterval(0.001)        # a thread that computes lets one that sends go first sooner
        process = subprocess.Popen([sys.executable, "-S", "-c", _PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=_hear, args=(process.stdout,), name="lateness of the machine", daemon=True).start()
        _watchers.append(process)
    return _watchers[0].pid


def follow(pid, who=GATEWAY):
    """From now on it is noted how long the threads of this process are kept waiting for a core by others."""
    _tell(next(word for word, name in _WORDS.items() if name == who), pid)


def forget(pid):
    """The process is gone."""
    _tell("gone", pid)


def _tell(word, pid):
    for process in _watchers:
        try:
            process.stdin.write(f"{word} {pid}\n")
            process.stdin.flush()
        except OSError:
            pass


def settle(seconds=0.15):
    """Waits until the processes have said what they noticed."""
    if _watchers:
        time.sleep(seconds)


def calm(seconds, most):
    """Waits until nobody has been late for so long, at most `most` seconds."""
    if _watchers:
        begin = time.monotonic()
        while time.monotonic() < begin + most and worst(max(begin, time.monotonic() - seconds))[0] or time.monotonic() < begin + seconds:
            time.sleep(0.05)


def stop():
    """Ends the processes."""
    for process in _watchers:
        process.terminate()
        process.wait()


def _hear(lines):
    for line in lines:
        at, late, who = line.split()
        _notes.append((float(at), float(late), _WORDS[who]))
