"""Many calls, the limits, the shut-down, and the trunk's other digest."""

import time

import many


def crowd(dial, gateway, talk, cost):
    calls = [dial("echo", user=str(4917200000000 + i), frames=many.frames(hertz)) for i, hertz in enumerate(many.pitches(400))]
    begin = time.monotonic()
    for call in calls:
        assert call.ring() == 200
    rung = time.monotonic() - begin
    for call in calls:
        call.action("accept", 15)
    up = max(c.accepted_at - c.rang_at for c in calls)
    cost.begin()
    talk(5)
    spent = str(cost)
    for call in calls:
        call.hang_up()
    print(f"{len(calls)} calls placed within {rung:.2f} s, the last accepted {up:.2f} s after it rang; {spent}")
    return calls


def settle(gateway, talk, files):
    until = time.monotonic() + 8
    while gateway.descriptors()[1] > files and time.monotonic() < until:
        talk(0.2)


def test_many_calls_at_once_all_talk_and_leave_nothing_behind(gateway, dial, talk, pbx):
    dial.answered("echo").hang_up()
    talk(1)
    (_, files), memory, tcp = gateway.descriptors(), [], []
    cost = many.Cost(gateway=gateway.process.pid, asterisk=pbx.process.pid)
    for _ in range(2):
        calls = crowd(dial, gateway, talk, cost)
        interval, first, stall = 0.0, 0.0, 0.0
        for i, (hertz, call) in enumerate(zip(many.pitches(400), calls)):
            heard = call.measure()
            # A busy machine makes the lab itself send late, and what it sends late is missing from the echo.
            heard.tone(hertz, -10, gap=0.1 + max(0.0, heard.stall - 0.03), skip=1.5)
            stall = max(stall, heard.stall)
            assert heard.packets > 200, f"call {i}: {heard.packets} packets in 5 s"
            interval, first = max(interval, heard.longest_interval), max(first, heard.first)
        for call in calls:
            record = gateway.record(call)
            assert (record["why"], record["answered"]) == ("user_hung_up", True)
        settle(gateway, talk, files)
        memory.append(gateway.memory())
        tcp.append(gateway.descriptors()[0])
        print(f"latest first packet {1000 * first:.0f} ms after accept, longest interval {1000 * interval:.0f} ms (the lab's own sending: "
              f"{1000 * stall:.0f} ms); memory {memory[-1]:.1f} MiB, descriptors {gateway.descriptors()[1]} (before: {files}) and {tcp[-1]} TCP connections")
    # The allocator may keep what the first round needed; the second must not add to it.
    assert memory[1] - memory[0] <= many.GROWTH, memory
    assert gateway.descriptors()[1] <= files + 1
    # Connections to Graph may be kept for the next call: one for each call that was up at once, no more.
    assert max(tcp) <= many.CALLS + 4, tcp


def test_a_trunk_that_takes_only_sha_256_is_registered_and_used(another, dial, talk, pbx):
    gateway = another(3, ("gw256", "gw256-secret-9be2"))
    assert pbx.contact("gw256")
    call = dial.answered("echo")
    talk(2.5)
    call.hang_up()
    assert dial.seen(call)["chan"].startswith("PJSIP/gw256")
    print("over the SHA-256 trunk: " + call.measure().tone(700, -10))
    gateway.record(call)


def test_a_call_over_the_limit_is_rejected(another, dial, talk):
    gateway = another(4, ("gw3", "gw3-secret-77d0"), max_calls=1)
    first = dial.answered("echo")
    second = dial("milliwatt")
    second.ring()
    assert second.ended(5) == "reject"
    assert dial.rang(second) == 0
    assert gateway.record(second)["why"] == "over_limit"
    talk(1)
    first.hang_up()
    dial.gone(first)
    gateway.record(first)
    third = dial.answered("milliwatt")
    third.hang_up()


def test_sigterm_lets_a_running_call_finish_and_takes_no_new_one(another, dial, talk):
    gateway = another(4, ("gw3", "gw3-secret-77d0"), drain_seconds=20)
    call = dial.answered("echo")
    talk(1)
    gateway.terminate()
    talk(0.5)
    late = dial("milliwatt")
    try:
        late.ring()
        assert late.ended(4) == "reject"
    except OSError as error:
        print(f"a new webhook is not taken: {error}")
        late.rang_at = None
    assert dial.rang(late) == 0
    talk(1.5)
    assert gateway.process.poll() is None, "it did not wait for the running call"
    call.hang_up()
    began = time.monotonic()
    assert gateway.wait(10) == 0
    assert not gateway.complaints()
    print(f"gone {time.monotonic() - began:.2f} s after its last call; " + call.measure().tone(700, -10))
    record = gateway.start().record(call)       # the history outlives the process
    assert (record["why"], record["answered"]) == ("user_hung_up", True)


def test_sigterm_ends_a_call_that_takes_too_long_to_finish(another, dial, talk):
    gateway = another(4, ("gw3", "gw3-secret-77d0"), drain_seconds=2)
    call = dial.answered("echo")
    gateway.terminate()
    assert call.ended(6) == "terminate"
    assert gateway.wait(10) == 0
    dial.gone(call)
    assert gateway.start().record(call)["why"] == "draining"
