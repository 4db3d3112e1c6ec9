"""The service under a real systemd: what it survives, what it refuses, what it says."""

import json
import os
import urllib.request
import signal
import time

import pytest

from box import GOOD
from conftest import configure


def start(box):
    """Starts it, waits until nothing changes any more: (state, exit code, restarts, what the program said)."""
    box.run("systemctl", "start", "watrunk")
    state = box.settled()
    code, restarts = box.unit("ExecMainStatus", "NRestarts")
    return state, int(code), int(restarts), box.said()


def test_it_starts_ready_and_confined(fresh):
    state, code, restarts, said = start(fresh)
    assert (state, code, restarts) == ("active", 0, 0)
    assert any("ready: http=127.0.0.1:8080" in line for line in said), said
    pid = fresh.unit("MainPID")[0]
    status = fresh.run("cat", f"/proc/{pid}/status").stdout
    assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
    assert "CapBnd:\t0000000000000000" in status and "CapEff:\t0000000000000000" in status
    assert "VmLck:" in status
    threads = fresh.run("ps", "-L", "-o", "comm=,cls=,rtprio=", "-p", pid).stdout if fresh.run("which", "ps").returncode == 0 else ""
    print(threads, [line for line in status.splitlines() if line.startswith(("VmLck", "VmRSS", "Threads"))])
    assert fresh.run("stat", "--format=%U %a", "/var/lib/watrunk").stdout.strip() == "watrunk 700"


def test_its_sound_threads_have_real_time_priority(fresh):
    start(fresh)
    pid = fresh.unit("MainPID")[0]
    policies = {}
    for task in fresh.run("ls", f"/proc/{pid}/task").stdout.split():
        name = fresh.run("cat", f"/proc/{pid}/task/{task}/comm").stdout.strip()
        # Field 41 of proc(5) stat is the policy: 0 ordinary, 1 SCHED_FIFO; the name before it may hold blanks.
        fields = fresh.run("cat", f"/proc/{pid}/task/{task}/stat").stdout.rpartition(")")[2].split()
        policies[name] = int(fields[38]) & 0xF
    print(policies)
    limit = next(line.split()[-2] for line in fresh.run("cat", f"/proc/{pid}/limits").stdout.splitlines() if "realtime prio" in line)
    print(f"LimitRTPRIO as the host granted it: {limit}")
    sound = [policy for name, policy in policies.items() if name.startswith("sound-")]
    # A host whose root may not raise limits (a container) can't grant it: then they are ordinary, and work.
    assert sound and set(sound) == ({1} if limit == "20" else {0}), policies
    assert policies["watrunk"] == 0, "signalling is an ordinary thread"


def test_a_credential_of_systemd_is_the_secret(fresh):
    folder = fresh.path("/etc/systemd/system/watrunk.service.d")
    folder.mkdir(parents=True, exist_ok=True)
    # Only root can read it, and there is none beside the config.
    secret = fresh.path("/root/token")
    secret.write_text("token-of-the-test\n")
    secret.chmod(0o600)
    fresh.path("/etc/watrunk/access_token").unlink()
    (folder / "credentials.conf").write_text("[Service]\nLoadCredential=access_token:/root/token\n")
    fresh.run("systemctl", "daemon-reload", check=True)
    try:
        assert start(fresh)[0] == "active"
    finally:
        (folder / "credentials.conf").unlink()
        fresh.run("systemctl", "daemon-reload", check=True)


def test_a_credential_that_is_not_there_is_not_tried_for_ever(fresh):
    folder = fresh.path("/etc/systemd/system/watrunk.service.d")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "credentials.conf").write_text("[Service]\nLoadCredential=access_token:/root/nothing-here\n")
    fresh.run("systemctl", "daemon-reload", check=True)
    try:
        state, code, restarts, said = start(fresh)
        # 243: systemd could not hand over the credentials. It never comes to the program.
        assert (state, code, restarts, said) == ("failed", 243, 0, [])
    finally:
        (folder / "credentials.conf").unlink()
        fresh.run("systemctl", "daemon-reload", check=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGABRT])
def test_a_crash_is_restarted(fresh, how):
    assert start(fresh)[0] == "active"
    before = fresh.unit("MainPID")[0]
    fresh.run("systemctl", "kill", f"--signal={how.name}", "watrunk")
    until = time.monotonic() + 30
    while fresh.unit("MainPID")[0] in (before, "0") and time.monotonic() < until:
        time.sleep(0.2)
    assert fresh.settled() == "active"
    pid, restarts = fresh.unit("MainPID", "NRestarts")
    assert pid != before and restarts == "1"


def test_a_process_that_stands_still_is_restarted_by_the_watchdog(fresh):
    assert start(fresh)[0] == "active"
    before = fresh.unit("MainPID")[0]
    fresh.run("systemctl", "kill", "--signal=SIGSTOP", "watrunk")
    until = time.monotonic() + 90
    while time.monotonic() < until and fresh.unit("MainPID")[0] in (before, "0"):
        time.sleep(0.5)
    assert fresh.settled() == "active"
    assert fresh.unit("NRestarts")[0] == "1"


def test_the_watchdog_is_fed_while_it_turns(fresh):
    assert start(fresh)[0] == "active"
    before = fresh.unit("MainPID")[0]
    time.sleep(20)
    assert fresh.unit("ActiveState", "MainPID", "NRestarts") == ["active", before, "0"]


def test_reload_keeps_the_process_and_a_broken_file_is_told(fresh):
    assert start(fresh)[0] == "active"
    before = fresh.unit("MainPID")[0]
    configure(fresh, GOOD.replace("[gateway]", "[gateway]\nmax_call = 3"))
    fresh.run("systemctl", "reload", "watrunk", check=True)
    until = time.monotonic() + 10
    while not any("gateway.max_call: unknown key" in line for line in fresh.said()) and time.monotonic() < until:
        time.sleep(0.2)
    assert any("gateway.max_call: unknown key" in line for line in fresh.said()), fresh.said()
    assert fresh.unit("ActiveState", "MainPID") == ["active", before]


def test_stopping_drains_and_is_no_failure(fresh):
    assert start(fresh)[0] == "active"
    fresh.run("systemctl", "stop", "watrunk", check=True)
    assert fresh.unit("ActiveState", "Result") == ["inactive", "success"]


def refused(box, *words):
    """It must not have started, nor be tried again, and say one line with these words."""
    state, code, restarts, said = start(box)
    assert (state, code, restarts) == ("failed", 1, 0), said
    told = [line for line in said if all(word in line for word in words)]
    assert len(told) == 1 and said[-1] == told[0], said
    # Before it there may be notes about the config and the host, but no second complaint.
    assert not [line for line in said[:-1] if not line.startswith("note: ") and " INFO " not in line], said
    print(told[0])


def test_no_config(fresh):
    fresh.path("/etc/watrunk/watrunk.toml").rename(fresh.path("/etc/watrunk/away"))
    try:
        refused(fresh, "/etc/watrunk/watrunk.toml: can't be read: No such file")
    finally:
        fresh.path("/etc/watrunk/away").rename(fresh.path("/etc/watrunk/watrunk.toml"))


def test_a_config_that_the_services_user_can_not_read(fresh):
    path = fresh.path("/etc/watrunk/watrunk.toml")
    os.chown(path, 0, 0)
    try:
        refused(fresh, "/etc/watrunk/watrunk.toml: can't be read: Permission denied")
    finally:
        fresh.run("chown", "watrunk:watrunk", "/etc/watrunk/watrunk.toml", check=True)


def test_what_the_api_changes_is_in_the_file_sandbox_or_not(fresh):
    key = "sk_" + "k" * 40
    configure(fresh, GOOD + f"""
[[http.key]]
name = "ops"
key = "{key}"
role = "admin"

[[number]]
id = "support"                           # the desk
phone_number_id = "1001"
phone_number = "+15550100100"
forward_to = "sip:200@pbx"
""")
    assert start(fresh)[0] == "active"
    body = json.dumps({"accountId": "support", "forwardTo": "sip:300@pbx"}).encode()
    request = urllib.request.Request("http://127.0.0.1:8080/v1/phone-numbers/support/whatsapp/calling", body, method="PATCH",
                                     headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        assert reply.status == 200
    path = fresh.path("/etc/watrunk/watrunk.toml")
    text = path.read_text()
    assert 'forward_to = "sip:300@pbx"' in text and "# the desk" in text
    assert fresh.run("stat", "--format=%U:%G %a", "/etc/watrunk/watrunk.toml").stdout.strip() == "watrunk:watrunk 600"


def test_a_key_that_nobody_knows(fresh):
    configure(fresh, GOOD.replace("[gateway]", "[gateway]\nmax_call = 3"))
    refused(fresh, "/etc/watrunk/watrunk.toml:2: gateway.max_call: unknown key; did you mean `max_calls`?")


def test_a_board_file_with_a_key_that_nobody_knows(fresh):
    board = fresh.path("/usr/lib/watrunk/board.toml")
    target = os.readlink(board)
    board.unlink()
    board.write_text('name = "mine"\n[media]\nthreds = 2\n')
    try:
        refused(fresh, "/usr/lib/watrunk/board.toml:3: media.threds: unknown key; did you mean `threads`?")
    finally:
        board.unlink()
        board.symlink_to(target)


@pytest.mark.parametrize("key, address", [("sip.listen", "127.0.0.1:5060"), ("http.listen", "127.0.0.1:8080")])
def test_a_port_that_is_taken(fresh, key, address):
    import socket
    host, port = address.split(":")
    kind = socket.SOCK_DGRAM if key == "sip.listen" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as taken:
        # A connection of an earlier test may not be forgotten yet.
        if kind == socket.SOCK_STREAM:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, int(port)))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        refused(fresh, f"{key} {address} can't be bound: Address ")


def test_the_config_of_the_example(fresh):
    fresh.path("/etc/watrunk/watrunk.toml").write_text(fresh.run("watrunk", "config", "example").stdout)
    state, code, restarts, said = start(fresh)
    assert (state, code, restarts) == ("failed", 1, 0)
    assert said and all("is still the placeholder of the example" in line for line in said), said


def test_a_state_directory_that_is_a_file(fresh):
    configure(fresh, GOOD.replace("[gateway]", '[gateway]\nstate_dir = "/etc/hostname"'))
    refused(fresh, "/etc/hostname")
