"""A board without a clock battery wakes up in 1970: that is said once, and keeps nothing from starting."""

import os
import signal
import subprocess
import threading
import time

import network
from gateway import BINARY

# The wall clock stands at the second of January 1970 when the process starts; every other clock is left alone.
LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t which, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    static time_t first;
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(which, at);
    if (code == 0 && which == CLOCK_REALTIME) {
        if (!first) first = at->tv_sec;
        at->tv_sec = at->tv_sec - first + 86400;
    }
    return code;
}
"""


def test_a_clock_that_was_never_set_is_told_in_one_line_and_the_gateway_runs(tmp_path):
    (tmp_path / "clock.c").write_text(LIBRARY)
    subprocess.run(["cc", "-shared", "-fPIC", "-O", "-o", tmp_path / "clock.so", tmp_path / "clock.c", "-ldl"], check=True)
    address = network.address(17)
    config = tmp_path / "watrunk.toml"
    config.write_text(f"""
[gateway]
state_dir = "{tmp_path}/state"
[http]
listen = "{address}:8080"
[whatsapp]
app_secret = "app-secret-of-the-test"
access_token = "token-of-the-test"
verify_token = "verify-token-of-the-test"
[media]
listen_ip = "{address}"
[sip]
listen = "{address}:5060"
[[trunk]]
name = "pbx"
server = "sip:{network.address(18)}:5060"
username = "gw"
password = "trunk-secret-of-the-test"
""")
    config.chmod(0o600)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WATRUNK_")}
    process = subprocess.Popen([BINARY, "run", "--config", config], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=environment | {"LD_PRELOAD": str(tmp_path / "clock.so")})
    limit = threading.Timer(30, process.kill)
    limit.start()
    try:
        ready = process.stdout.readline()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
    finally:
        limit.cancel()
    assert " ready: " in ready, said
    told = [line for line in said.splitlines() if "the clock says" in line]
    print(told)
    assert told == ["watrunk: the clock says it is 1970: Meta's certificates are refused until a time server has answered; "
                    "see timedatectl"], said
    assert process.returncode == 0, said
