"""A SIP message, read leniently: what a test wants to know of it, nothing more."""

import re

COMPACT = {"v": "via", "f": "from", "t": "to", "i": "call-id", "m": "contact", "l": "content-length", "c": "content-type",
           "k": "supported", "s": "subject", "e": "content-encoding", "r": "refer-to", "b": "referred-by", "x": "session-expires"}


class Message:
    """One message as it came. `at` is seconds since 1970, `way` the connection it came by."""

    def __init__(self, raw, at=0.0, way=None):
        self.raw, self.at, self.way = raw, at, way
        head, _, body = raw.partition(b"\r\n\r\n")
        lines = re.sub(r"\r\n[ \t]+", " ", head.decode("utf-8", "replace")).split("\r\n")
        self.start, self.body = lines[0], body.decode("utf-8", "replace")
        self.headers = []
        for line in lines[1:]:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            self.headers.append((COMPACT.get(name, name), value.strip()))

    @property
    def code(self):
        """The status of an answer, None for a request."""
        return int(self.start.split()[1]) if self.start.startswith("SIP/2.0 ") else None

    @property
    def method(self):
        """The method of a request, or of the request that this answers."""
        return self.cseq[1] if self.code else self.start.split(" ")[0]

    @property
    def uri(self):
        """The request URI."""
        return self.start.split(" ")[1]

    @property
    def user(self):
        """The user part of the request URI."""
        return re.match(r"(?:sips?:)?([^@;]*)", self.uri).group(1)

    def get(self, name, default=None):
        """The first header of a name (in lower case)."""
        return next((v for n, v in self.headers if n == name), default)

    def all(self, name):
        """Every header of a name, lists cut at their commas outside of brackets and quotes."""
        found = []
        for value in (v for n, v in self.headers if n == name):
            found += [p.strip() for p in re.findall(r'(?:"[^"]*"|<[^>]*>|[^,])+', value)]
        return found

    @property
    def cseq(self):
        """Number and method."""
        number, method = self.get("cseq", "0 ?").split()
        return int(number), method

    def tag(self, name):
        """The tag of From or To, None without one."""
        m = re.search(r";\s*tag=([^;,\s]+)", self.get(name, ""))
        return m and m.group(1)

    @property
    def target(self):
        """The URI of Contact."""
        m = re.search(r"<([^>]*)>", self.get("contact", "")) or re.search(r"(sips?:[^;,\s]+)", self.get("contact", ""))
        return m and m.group(1)

    @property
    def branch(self):
        """The branch of the top Via."""
        m = re.search(r";\s*branch=([^;,\s]+)", self.get("via", ""))
        return m and m.group(1)

    def __repr__(self):
        return f"<{self.start}>"


def framed(buffer):
    """Takes whole messages off a stream's bytes; (messages, keep-alives, the rest)."""
    found, pings = [], 0
    while True:
        while buffer[:2] == b"\r\n":
            pings += 1
            buffer = buffer[2:]
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return found, pings, buffer
        m = re.search(rb"(?im)^(?:content-length|l)\s*:\s*(\d+)", buffer[:end])
        whole = end + 4 + (int(m.group(1)) if m else 0)
        if len(buffer) < whole:
            return found, pings, buffer
        found.append(buffer[:whole])
        buffer = buffer[whole:]
