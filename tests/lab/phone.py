"""A real telephone: baresip, which registers at a PBX or is called directly, and plays back what it hears or a tone."""

import json
import re
import socket
import time
import wave

import numpy as np

from tree import Program

CONFIG = """
poll_method epoll
sip_listen {address}:5060
call_local_timeout 120
call_max_calls 4
audio_player aubridge,pseudo0
audio_source {source}
audio_alert aubridge,pseudo1
ausrc_srate {rate}
auplay_srate {rate}
audio_level no
rtp_tos 184
rtp_ports 41000-41100
jitter_buffer_delay 1-5
module_path /usr/lib/baresip/modules
module stdio.so
module g711.so
module g722.so
module opus.so
module aubridge.so
module aufile.so
module srtp.so
module_tmp uuid.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen {address}:4444
net_interface {address}
opus_bitrate 28000
opus_stereo no
opus_sprop_stereo no
opus_inbandfec yes
"""


class Phone(Program):
    """One baresip at one address. `account` is a line of its accounts file; `hertz` a tone to say instead of what it hears,
    for a call that is held: a loop does not come back from that."""

    def __init__(self, name, address, account, rate=8000, hertz=None):
        super().__init__(name)
        self.address = address
        source = "aubridge,pseudo0"
        if hertz:
            source = f"aufile,{self.inside}/tone.wav"
            with wave.open(str(self.run / "tone.wav"), "wb") as w:
                w.setnchannels(1)
                w.setsampwidth(2)
                w.setframerate(rate)
                w.writeframes((np.sin(2 * np.pi * hertz * np.arange(rate * 60) / rate) * 10 ** (-10 / 20) * 32767).astype("<i2").tobytes())
        (self.run / "config").write_text(CONFIG.format(address=address, rate=rate, source=source))
        (self.run / "accounts").write_text(account + "\n")
        (self.run / "contacts").touch()

    @classmethod
    def extension(cls, name, password, address, pbx, codec, rate=8000, transport="udp", more="", hertz=None):
        """A phone that registers at a PBX. `codec` as baresip writes it: PCMU/8000/1, G722/16000/1, opus/48000/2."""
        return cls(name, address, f"<sip:{name}@{pbx};transport={transport}>;auth_user={name};auth_pass={password};answermode=auto;"
                                  f"audio_codecs={codec};regint=120{more}", rate, hertz)

    @classmethod
    def peer(cls, name, address, codec, rate=8000, more=""):
        """A phone that is called without being registered anywhere: all of a PBX that there is."""
        return cls(name, address, f"<sip:{name}@{address}>;regint=0;catchall=yes;answermode=auto;audio_codecs={codec}{more}", rate)

    def start(self):
        """Returns once it takes commands."""
        self.launch("/usr/bin/baresip", "-v", "-s", "-f", self.inside, stdin=None)
        self._control = None

        def connected():
            try:
                self._control = socket.create_connection((self.address, 4444), timeout=5)
                return True
            except OSError:
                return False
        self.until(connected, 10, "baresip took no commands")
        return self

    def registered(self, timeout=8.0):
        """Waits until its PBX has taken it."""
        self.until(lambda: re.search(r"200 OK.*\[1 binding|\{0/UDP/v4\} 200 OK|All \d+ useragents? registered", self.printed()), timeout,
                   "baresip was not registered")
        return self

    def do(self, command, params="", settle=0.1):
        """One command of its menu: hold, resume, hangup, transfer, dial, …"""
        raw = json.dumps({"command": command, "params": params, "token": "t"}).encode()
        self._control.sendall(b"%d:%s," % (len(raw), raw))
        time.sleep(settle)

    def dial(self, uri):
        """Calls somebody."""
        self.do("dial", uri)

    def talking(self, timeout=8.0, times=1):
        """Waits until it has a call that stands."""
        self.until(lambda: len(re.findall("Call established", self.printed())) >= times, timeout, "baresip had no call")
        return self
