"""What every pytest run here shares: a network of our own, a watch on how late the lab is, and the measured numbers in the report."""

import time

import pytest

import lateness
import network

pytest_plugins = ["trunklab", "again", "disk", "tapes"]


def pytest_configure(config):
    try:
        network.enter()
    except OSError as error:
        pytest.exit(f"no test was run: {error}", returncode=1)
    lateness.watch()


def pytest_unconfigure():
    lateness.stop()


@pytest.fixture
def talk():
    """Lets a call run for some seconds of real time: sound can't be hurried."""
    return time.sleep


def pytest_terminal_summary(terminalreporter):
    """Prints what the passed tests measured: a number that drifts is seen before it breaks a test."""
    terminalreporter.section("measured")
    for report in terminalreporter.getreports("passed"):
        if report.when == "call" and report.capstdout:
            terminalreporter.line(report.nodeid.split("::")[-1])
            for line in report.capstdout.splitlines():
                terminalreporter.line("    " + line)
