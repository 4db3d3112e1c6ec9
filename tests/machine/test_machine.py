"""The package on a whole board: what only a kernel of its own, with every right, can show."""

import time

LED = "input0::capslock"                 # a keyboard's, for want of another
CGROUP = "/sys/fs/cgroup/system.slice/watrunk.service"


def threads(board):
    """Name -> (policy, real-time priority, cores) of each thread of the service."""
    pid = board.unit("MainPID")[0]
    # Fields 40 and 41 of proc(5) stat are priority and policy (1: SCHED_FIFO); the name before them may hold blanks.
    text = board.run(f"for t in /proc/{pid}/task/*; do echo $(cat $t/comm) $(sed 's/.*)//' $t/stat | cut -d' ' -f39,40)"
                     " $(sed -n 's/^Cpus_allowed_list:.//p' $t/status); done", check=True).stdout
    found = (line.split() for line in text.splitlines())
    return {name: (int(policy) & 15, int(priority), cores) for name, priority, policy, cores in found}


def test_the_package_finds_out_that_the_board_is_an_emulated_one(installed):
    assert installed.run("uname", "-m").stdout == "aarch64\n"
    assert installed.run("readlink", "/usr/lib/watrunk/board.toml").stdout == "boards/qemu.toml\n"
    assert installed.unit("UnitFileState") == ["enabled"]
    assert "board: qemu (Emulated machine)" in installed.run("watrunk", "check", check=True).stdout


def test_sound_has_real_time_priority_on_its_own_core_and_nothing_else_has(running):
    found = threads(running)
    print(found)
    assert found.pop("sound-0") == (1, 20, "0")
    assert "watrunk" in found and all((policy, priority) == (0, 0) for policy, priority, _ in found.values())


def test_the_memory_is_locked(running):
    pid = running.unit("MainPID")[0]
    status = dict(line.split(":", 1) for line in running.run("cat", f"/proc/{pid}/status", check=True).stdout.splitlines())
    locked, resident = (int(status[key].split()[0]) for key in ("VmLck", "VmRSS"))
    print(f"locked: {locked} KiB of address space, resident: {resident} KiB")
    assert locked >= resident > 0
    said = running.said()
    assert [line for line in said if " ready: " in line], said
    assert not [line for line in said if "memory is not locked" in line or "real-time" in line], said


def test_memory_and_tasks_are_bounded_and_a_leak_ends_the_process_not_the_box(running):
    assert running.run("cat", f"{CGROUP}/memory.max", f"{CGROUP}/pids.max").stdout.split() == ["268435456", "512"]
    before = running.unit("MainPID")[0]
    # The bound comes to the program instead of the program to the bound.
    running.run("systemctl", "set-property", "--runtime", "watrunk", "MemoryMax=512K", check=True)
    until = time.monotonic() + 90
    while running.unit("NRestarts") == ["0"] and time.monotonic() < until:
        time.sleep(1)
    running.run("systemctl", "set-property", "--runtime", "watrunk", "MemoryMax=256M", check=True)
    assert int(running.unit("NRestarts")[0]) >= 1
    while running.unit("ActiveState") != ["active"] and time.monotonic() < until:
        time.sleep(1)
    assert running.unit("ActiveState") == ["active"] and running.unit("MainPID") != [before]


def test_a_clock_of_1970_is_told_once_and_keeps_nothing_from_starting(installed):
    installed.forget()
    then = installed.run("date", "+%s").stdout.strip()
    # systemd itself has set the clock to the time of its own making: it is put back, to the second of January.
    installed.run("date", "--set=@86400", check=True)
    try:
        installed.run("systemctl", "start", "watrunk", check=True)
        until = time.monotonic() + 60
        while not [line for line in installed.said() if "1970" in line] and time.monotonic() < until:
            time.sleep(1)
        assert installed.unit("ActiveState", "NRestarts") == ["active", "0"]
        said = installed.said()
        told = [line for line in said if "1970" in line]
        print(told)
        assert len(told) == 1 and told[0].startswith("watrunk: the clock says it is 1970: "), said
    finally:
        installed.run("systemctl", "stop", "watrunk")
        installed.run("date", f"--set=@{then}", check=True)


def test_the_led_blinks_while_no_trunk_is_up_and_is_dark_when_nothing_runs(installed):
    """The keyboard's LED, for want of another; on when a trunk is up is shown by the unit tests."""
    names = installed.run("ls", "/sys/class/leds").stdout.split()
    assert LED in names, names
    installed.forget()
    installed.run("cp --remove-destination /usr/lib/watrunk/boards/qemu.toml /usr/lib/watrunk/board.toml"
                  f" && sed -i 's/^name = .*/&\\nled = \"{LED}\"/' /usr/lib/watrunk/board.toml", check=True)
    installed.run("/usr/lib/watrunk/board-setup", "overlay", check=True)
    installed.run("systemctl", "mask", "systemd-time-wait-sync.service", check=True)
    installed.run("systemctl", "daemon-reload", check=True)
    installed.run("systemctl", "start", "watrunk", check=True)
    level = f"cat /sys/class/leds/{LED}/brightness"
    seen = installed.run(f"for i in $(seq 40); do {level}; sleep 0.1; done", check=True).stdout.split()
    print("".join("-" if value == "0" else "#" for value in seen), installed.said()[-1])
    assert set(seen) == {"0", "1"}
    assert not [line for line in installed.said() if "the LED is not driven" in line]
    assert "[none]" in installed.run("cat", f"/sys/class/leds/{LED}/trigger", check=True).stdout
    installed.run("systemctl", "stop", "watrunk", check=True)
    assert installed.run(level).stdout == "0\n"


def test_a_root_that_is_read_only_is_enough_for_it_with_the_overlay(installed):
    installed.run("systemctl", "stop", "watrunk")
    installed.run("/usr/lib/watrunk/board-setup", "overlay", check=True)
    # Nobody answers here: the clock would be waited for, a whole minute.
    installed.run("systemctl", "mask", "systemd-time-wait-sync.service", check=True)
    installed.run("sync", check=True)
    installed.off()
    installed.boot(options="ro")
    assert installed.run("touch", "/etc/watrunk/x").returncode != 0
    until = time.monotonic() + 60
    while installed.unit("ActiveState") != ["active"] and time.monotonic() < until:
        time.sleep(1)
    assert installed.unit("ActiveState", "NRestarts") == ["active", "0"], installed.run("systemctl", "status", "watrunk").stdout
    assert "calls.db" in installed.run("ls", "/var/lib/watrunk", check=True).stdout
    print(installed.run("watrunk", "calls", check=True).stdout.strip())
