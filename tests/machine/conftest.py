"""One board for all tests of a run: it takes a minute or more to boot."""

import pytest

from box import GOOD, newest
from machine import Machine


@pytest.fixture(scope="session")
def board(tmp_path_factory):
    machine = Machine(tmp_path_factory.mktemp("board"), newest("arm64"))
    try:
        yield machine.boot()
    finally:
        machine.off()


@pytest.fixture(scope="session")
def installed(board):
    """The same board with the package, a sound config, and the service stopped."""
    said = board.run("dpkg", "--install", "/root/watrunk.deb", check=True)
    assert "edit /etc/watrunk/watrunk.toml" in said.stderr, said
    board.write("/etc/watrunk/watrunk.toml", GOOD)
    board.run("install -o root -g watrunk -m 640 /dev/stdin /etc/watrunk/access_token <<<token-of-the-test", check=True)
    return board


@pytest.fixture
def running(installed):
    """The service, started anew."""
    installed.forget()
    installed.run("systemctl", "start", "watrunk", check=True)
    yield installed
    installed.run("systemctl", "stop", "watrunk")
