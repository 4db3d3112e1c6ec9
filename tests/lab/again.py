"""A test that fails while the lab was late proves nothing about the gateway, and is run again: at most twice, with its own and
its module's fixtures set up anew, once the lab has been on time for a second, and the report names it. A test that fails while
the lab was on time has failed."""

import time

import pytest
from _pytest.runner import CallInfo, runtestprotocol

import lateness

LATE = 0.03             # seconds: the jitter buffer is about as deep
TIMES = 3

_repeated = pytest.StashKey[list]()


def pytest_configure(config):
    config.stash[_repeated] = []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in range(1, TIMES + 1):
        begin = time.monotonic()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if attempt == TIMES or not any(report.failed for report in reports):
            break
        lateness.settle()
        late, who = lateness.worst(begin)
        if late <= LATE or item.session.shouldstop or item.session.shouldfail:
            break
        why = next(report for report in reports if report.failed)
        item.config.stash[_repeated].append((item.nodeid, attempt, late, who, _sentence(why)))
        _clear(item)
        lateness.calm(1.0, 20.0)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _sentence(report):
    crash = getattr(report.longrepr, "reprcrash", None)
    said = (crash.message if crash else str(report.longrepr)).strip().splitlines()
    return f"{report.when}: {said[0][:200] if said else '?'}"


def _clear(item):
    """Nothing is left of a test and of its module's fixtures; what the whole run shares stays, unless it could not be set up."""
    def down():
        item.session._setupstate.teardown_exact(item.session)
        item._initrequest()
        for definitions in item._fixtureinfo.name2fixturedefs.values():
            for definition in definitions:
                if definition.cached_result is not None and definition.cached_result[2] is not None:
                    definition.finish(item._request)
    call = CallInfo.from_call(down, when="teardown")
    if call.excinfo:                # what a gateway complains of at its end is never passed over
        item.ihook.pytest_runtest_logreport(report=item.ihook.pytest_runtest_makereport(item=item, call=call))
    item._request = False           # made anew by the next run
    item._report_sections.clear()


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[_repeated]:
        terminalreporter.section("run again, because the lab itself was late")
        for name, attempt, late, who, what in config.stash[_repeated]:
            terminalreporter.line(f"{name}, run {attempt}: {who} was {1000 * late:.0f} ms late; {what}")
