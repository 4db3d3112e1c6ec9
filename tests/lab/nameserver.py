"""A real DNS server (dnsmasq) for the names of the lab, and no other."""

import contextlib
import pathlib
import re
import socket
import struct
import subprocess

from tree import Program


class NameServer(Program):
    """One dnsmasq. `records` are lines of its configuration."""

    def __init__(self, address, records):
        super().__init__("dns")
        self.address = address
        lines = ["no-resolv", "no-hosts", "bind-interfaces", "log-queries", "log-facility=-", f"listen-address={address}",
                 "except-interface=lo", "local=/lab.example/", "local-ttl=60", *records]
        (self.run / "dnsmasq.conf").write_text("\n".join(lines) + "\n")

    def start(self):
        """Returns once it answers."""
        self.launch("/usr/sbin/dnsmasq", "--keep-in-foreground", "--user=", "--group=", f"--conf-file={self.inside}/dnsmasq.conf", f"--pid-file={self.inside}/pid")
        return self.until(self._answers, 10, "dnsmasq did not answer")

    def _answers(self):
        question = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + b"\x03lab\x07example\x00" + struct.pack("!2H", 1, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.2)
            try:
                sock.connect((self.address, 53))
                sock.send(question)
                return sock.recv(512)[:2] == question[:2]
            except OSError:
                return False

    def asked(self):
        """What it was asked: (kind, name), the oldest first."""
        return re.findall(r"query\[(\w+)\] (\S+) from", self.printed())

    @contextlib.contextmanager
    def of_this_host(self):
        """Everything that is started meanwhile asks this server, and no other."""
        conf = self.run / "resolv.conf"
        conf.write_text(f"nameserver {self.address}\n")
        target = str(pathlib.Path("/etc/resolv.conf").resolve())
        subprocess.run(["mount", "--bind", str(conf), target], check=True)
        try:
            yield self
        finally:
            subprocess.run(["umount", target], check=True)
