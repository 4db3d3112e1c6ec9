"""The PBX and the cloud are those of tests/real; the gateway is a static binary, under an emulator if need be."""

import importlib.util
import os
import pathlib
import shlex

import pytest

from gateway import ROOT, Gateway

_found = importlib.util.spec_from_file_location("real", ROOT / "tests" / "real" / "conftest.py")
real = importlib.util.module_from_spec(_found)
_found.loader.exec_module(real)
cloud, pbx, dial = real.cloud, real.pbx, real.dial

# Emulation is some ten times slower than the machine: cheap Opus, and a jitter buffer with room for the
# moments in which the emulator translates code that runs for the first time.
MEDIA = "jitter_ms = 120\nopus_complexity = 0\nthreads = 1\n"


def commands():
    """Target -> the words that start its binary. From WATRUNK_STATIC: one `target words…` a line."""
    lines = os.environ.get("WATRUNK_STATIC", "").splitlines()
    return {words[0]: words[1:] for words in (shlex.split(line) for line in lines) if words}


def pytest_generate_tests(metafunc):
    if "static" in metafunc.fixturenames:
        found = commands()
        assert found, "no binary to test: WATRUNK_STATIC is empty; `make cross-test` sets it"
        metafunc.parametrize("static", found.items(), ids=found.keys(), scope="module", indirect=True)


@pytest.fixture(scope="module")
def static(request, cloud, pbx, tmp_path_factory):
    """A gateway of one target, started and registered at the PBX."""
    target, command = request.param
    assert pathlib.Path(command[-1]).is_file(), f"{command[-1]} is missing: make cross"
    it = Gateway(tmp_path_factory.mktemp("static"), cloud, pbx, 2, real.NUMBERS, trunk=("gw", "gw-secret-1f6a"),
                 command=command, media=MEDIA)
    it.emulated = len(command) > 1
    yield it.start(90)
    it.stop()
