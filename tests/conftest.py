"""Set-up for everything that pytest runs here: the lab on the path, a network of our own, timing."""

import pathlib
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lab"))


def pytest_configure(config):
    import network
    try:
        network.enter()
    except OSError as error:
        pytest.exit(f"no test was run: {error}", returncode=1)


@pytest.fixture
def talk():
    """Lets a call run for some seconds of real time: sound can't be hurried."""
    return time.sleep
