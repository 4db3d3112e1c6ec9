"""WhatsApp users who can be called, and how they take it."""

import dataclasses
import threading
import time


class Awaited:
    """Something that a test waits for while it happens on the cloud's loop."""

    def __init__(self):
        self._changed = threading.Condition()

    def _notify(self):
        with self._changed:
            self._changed.notify_all()

    def until(self, found, timeout, complaint):
        """Waits until `found()` is something else than None and returns it; fails with `complaint` (a text or a function)."""
        end = time.monotonic() + timeout
        with self._changed:
            while True:
                value = found()
                if value is not None:
                    return value
                left = end - time.monotonic()
                if left <= 0:
                    said = complaint() if callable(complaint) else complaint
                    raise AssertionError(f"{said} within {timeout} s")
                self._changed.wait(left)


@dataclasses.dataclass
class Manner:
    """What a user does when called, and what Meta does on the way. Times are seconds since Graph took the call."""

    reply: float = 0.0              # when Graph's reply to the POST goes out
    connect: float | None = 0.05    # when the webhook with Meta's answer is sent; before `reply` if it is less; None: never
    ring: float | None = 0.15       # when the phone rings; None: the phone is switched off
    answer: float | None = 0.6      # when the user picks up; None: never
    reject: float | None = None     # when the user declines
    give_up: float = 6.0            # when Meta ends a call that nobody took
    hang_up: float | None = None    # how long the user talks before hanging up; None: until told
    fail: tuple | None = None       # (seconds, code, details): the call breaks, `terminate` is FAILED with this error
    copies: int = 1                 # how often each webhook is delivered
    backwards: bool = False         # all of connect, RINGING, ACCEPTED at the moment of the last one, in reverse order
    setup: str = "active"           # DTLS role in Meta's answer: active, passive, or an illegal actpass


class Person(Awaited):
    """One WhatsApp user. `calls` are the calls to this user, oldest first; `asked` the permission requests received."""

    def __init__(self, cloud, phone, user_id=None, name="Grace Hopper", permission="permanent", manner=None, **how):
        super().__init__()
        self.cloud = cloud
        self.phone = phone                  # digits, no plus
        self.user_id = user_id
        self.name = name
        self.permission = permission        # no_permission, temporary, permanent
        self.expires = int(time.time()) + 7 * 86400
        self.requests_left = 1              # permission requests that Meta still takes today
        self.calls_left = 100               # calls that Meta still connects today
        self.manner = manner or Manner(**how)
        self.frames = None                  # what the user says, as Opus frames
        self.impairment = None
        self.plan = []                      # Faults for the next attempts to call this user
        self.attempts = []                  # (time, HTTP status, code) of every attempt to call this user
        self.calls = []
        self.asked = []

    def called(self, timeout=8.0, index=-1):
        """Waits until Graph has taken a call to this user; that call."""
        need = index + 1 if index >= 0 else 1
        return self.until(lambda: self.calls[index] if len(self.calls) >= need else None, timeout,
                          lambda: f"nobody called +{self.phone}; attempts: {[a[1:] for a in self.attempts]}")

    def attempted(self, count=1, timeout=8.0):
        """Waits for so many attempts, granted or not; their HTTP statuses."""
        return self.until(lambda: [s for _, s, _ in self.attempts] if len(self.attempts) >= count else None, timeout,
                          lambda: f"{len(self.attempts)} attempts to call +{self.phone}, not {count}")

    def request(self, timeout=8.0):
        """Waits for a permission request; its `POST /messages` body."""
        return self.until(lambda: self.asked[-1] if self.asked else None, timeout, f"+{self.phone} was not asked for permission")

    def reply(self, response="accept", permanent=False, number=None, source="user_action"):
        """The user taps on the permission request (or, without one, changes the business's profile). The HTTP status."""
        answer = {"response": response, "response_source": source}
        if response == "accept":
            self.permission = "permanent" if permanent else "temporary"
            answer["is_permanent"] = permanent
            if not permanent:
                answer["expiration_timestamp"] = str(self.expires)
        else:
            self.permission = "no_permission"
        message = {"from": self.phone, "id": f"wamid.{time.monotonic_ns()}", "timestamp": str(int(time.time())),
                   "type": "interactive", "interactive": {"type": "call_permission_reply", "call_permission_reply": answer}}
        if self.asked:
            message["context"] = {"from": number.phone.lstrip("+"), "id": self.asked[-1]["wamid"]}
        return self.cloud.send({
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": number.phone.lstrip("+"), "phone_number_id": number.pnid},
            "contacts": [{"profile": {"name": self.name}, "wa_id": self.phone}], "messages": [message]}, field="messages")

    def actions(self):
        """What Meta says may be done with this user now."""
        hour = int(time.time()) + 3600
        request = {"time_period": "PT24H", "max_allowed": 1, "current_usage": 1 - self.requests_left}
        start = {"time_period": "PT24H", "max_allowed": 100, "current_usage": 100 - self.calls_left}
        for limit, left in ((request, self.requests_left), (start, self.calls_left)):
            if left <= 0:
                limit["limit_expiration_time"] = hour
        return [
            {"action_name": "send_call_permission_request", "limits": [request],
             "can_perform_action": self.requests_left > 0 and self.permission != "permanent"},
            {"action_name": "start_call", "limits": [start],
             "can_perform_action": self.calls_left > 0 and self.permission != "no_permission"},
        ]
