"""A real SIPp that plays one scenario, out of tests/lab/sipp."""

import re

from tree import HERE, Program


class Sipp(Program):
    """One scenario at one address. `target` is who it calls, None for one that is called."""

    def __init__(self, scenario, address, target=None, calls=1, service="service", port=5060, **keys):
        super().__init__(f"sipp-{scenario}")
        self.scenario = scenario
        (self.run / "scenario.xml").write_text((HERE / "sipp" / f"{scenario}.xml").read_text())
        more = [word for key, value in keys.items() for word in ("-key", key, str(value))]
        at = target if isinstance(target, str) else f"{target[0]}:{target[1]}" if target else None
        self.argv = ["/usr/bin/sipp", *([at] if at else []), "-sf", f"{self.inside}/scenario.xml", "-i", address, "-p", str(port), "-m", str(calls),
                     "-s", service, "-nostdin", "-trace_msg", "-message_file", f"{self.inside}/messages", "-trace_err", "-error_file",
                     f"{self.inside}/errors", "-timeout", "60s", "-timeout_error", "-mi", address, "-aa", *more]

    def start(self):
        """Starts it; it listens a moment later."""
        self.launch(*self.argv)
        return self

    def done(self, timeout=45.0):
        """Waits for the end of the scenario; fails unless it went as it is written."""
        try:
            code = self.process.wait(timeout)
        except Exception:
            self.kill()
            code = "still running"
        assert code == 0, f"SIPp {self.scenario}: {code}\n{self.errors()[-1500:]}\n{self.messages()[-3000:]}"
        return self

    def messages(self):
        """The SIP messages, both ways, with their times."""
        path = self.run / "messages"
        return path.read_text(errors="replace") if path.exists() else ""

    def errors(self):
        """What it complained about."""
        path = self.run / "errors"
        return path.read_text(errors="replace") if path.exists() else ""

    def sent(self, start):
        """How many messages it sent whose first line begins so."""
        return len(re.findall(rf"message sent[^\n]*\n\n{re.escape(start)}", self.messages()))

    def received(self, start):
        """How many messages came whose first line begins so."""
        return len(re.findall(rf"message received[^\n]*\n\n{re.escape(start)}", self.messages()))
