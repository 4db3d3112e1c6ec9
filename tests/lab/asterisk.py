"""A real Asterisk as the PBX: starts it from an unpacked tree on one address, and reads what it saw."""

import re
import struct
import subprocess
import time

import lateness
import sound
from tree import HERE, Program

RECIPE = HERE.parents[1] / "docs" / "pbx" / "asterisk" / "pjsip.conf"

# Asterisk's 1004 Hz tone: amplitude 23255 of 32767.
MILLIWATT_DBFS = -2.98

MODULES = """
res_timing_timerfd res_sorcery_config res_sorcery_memory res_sorcery_astdb res_crypto res_srtp
res_rtp_asterisk res_format_attr_opus codec_resample codec_ulaw codec_alaw codec_a_mu codec_g722
codec_opus_open_source format_pcm format_wav format_sln bridge_simple bridge_native_rtp bridge_softmix
bridge_builtin_features res_pjsip res_pjsip_session res_pjsip_authenticator_digest
res_pjsip_outbound_authenticator_digest res_pjsip_endpoint_identifier_user
res_pjsip_endpoint_identifier_ip res_pjsip_registrar res_pjsip_caller_id res_pjsip_diversion
res_pjsip_header_funcs res_pjsip_nat res_pjsip_rfc3326 res_pjsip_sdp_rtp res_pjsip_dtmf_info
res_pjsip_dlg_options res_pjsip_logger res_pjsip_refer res_pjsip_pubsub chan_pjsip func_pjsip_endpoint
pbx_config app_dial app_transfer app_echo app_milliwatt app_playback app_playtones app_read app_senddtmf app_record
app_mixmonitor app_verbose app_stack app_exec func_callerid func_channel func_strings func_logic
res_stasis res_clioriginate res_musiconhold res_http_websocket res_websocket_client chan_websocket
""".split()

# Files that Asterisk looks for; empty ones keep it quiet.
EMPTY = """
acl ccss cdr cel codecs features manager musiconhold pjproject stasis udptl websocket_client
""".split()


def sections(name, password, sha256=False, **endpoint):
    """The pjsip.conf sections of one account: endpoint, place, password. Keys of the endpoint win over the template's."""
    kind = "auth_type = digest\nsupported_algorithms_uas = SHA-256" if sha256 else "auth_type = userpass"
    own = "".join(("disallow = all\n" if k == "allow" else "") + f"{k} = {v}\n" for k, v in endpoint.items())
    return (
        f"[{name}](trunk)\nauth = {name}\naors = {name}\n{own}"
        f"[{name}](place)\n"
        f"[{name}]\ntype = auth\n{kind}\nusername = {name}\npassword = {password}\n"
    )


def trunk(name, password, address, sha256=False, **endpoint):
    """The sections of a trunk that is known by its address: who may register, from where, with which digest."""
    return sections(name, password, sha256, **endpoint) + f"[{name}]\ntype = identify\nendpoint = {name}\nmatch = {address}\n"


def phone(name, password, codecs):
    """The sections of a telephone on the PBX."""
    return sections(name, password, context="tests", allow=codecs, identify_by="username,auth_username")


class Asterisk(Program):
    """One running Asterisk. `trunks` are strings made by `trunk()`. `recipe` maps what stands in docs/pbx/asterisk/pjsip.conf
    to what holds here: then that file is used, with the trunks behind it."""

    def __init__(self, address, trunks, rtp=(20000, 20999), name="pbx", recipe=None):
        super().__init__(name)
        self.address = address
        self.etc = self.run / "etc"
        self._read, self._seen = 0, []
        self.etc.mkdir()
        whole = "\n".join(trunks)
        if recipe is not None:
            whole = RECIPE.read_text() + whole
            for theirs, ours in recipe.items():
                assert theirs in whole, f"{RECIPE} does not speak of {theirs}"
                whole = whole.replace(theirs, ours)
        modules = next(self.root.glob("usr/lib/*/asterisk/modules"))
        words = {
            "ADDR": address,
            "ETC": f"{self.inside}/etc",
            "RUN": self.inside,
            "MODULES": "/" + str(modules.relative_to(self.root)),
            "LOAD": "\n".join(f"load = {m}.so" for m in MODULES),
            "TRUNKS": "\n".join(trunks),
            "OUT": "\n".join(f"[out-{name}](dial)" for name in re.findall(r"(?m)^\[(\S+)\]\(trunk\)", whole)),
            "RTP_FIRST": str(rtp[0]),
            "RTP_LAST": str(rtp[1]),
        }
        for template in sorted((HERE / "asterisk" / "etc").glob("*.conf")):
            text = re.sub(r"@([A-Z_]+)@", lambda m: words[m.group(1)], template.read_text())
            (self.etc / template.name).write_text(whole if recipe is not None and template.name == "pjsip.conf" else text)
        for name in EMPTY:
            (self.etc / f"{name}.conf").touch()

    def start(self):
        """Returns once Asterisk takes calls; raises with its own words if it does not come up."""
        self.launch("/usr/sbin/asterisk", "-f", "-C", f"{self.inside}/etc/asterisk.conf")
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            if "fully booted" in self.cli("core waitfullybooted"):
                self.cli("pjsip set logger on")
                return self
            time.sleep(0.05)
        raise RuntimeError("Asterisk did not come up:\n" + self.printed() + self.log("messages"))

    def cli(self, command):
        """What Asterisk's console answers to a command; empty while it is not up."""
        done = subprocess.run(
            self.chroot("/usr/sbin/asterisk", "-C", f"{self.inside}/etc/asterisk.conf", "-rx", command),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
        return done.stdout.decode(errors="replace")

    def log(self, name):
        """One of the log files: messages, digits or trace."""
        path = self.run / name
        return path.read_text(errors="replace") if path.exists() else ""

    def said(self, word):
        """The dialplan's own lines of one kind (SEEN, GONE, READ), each as a dict, oldest first."""
        found = []
        for line in self.log("messages").splitlines():
            m = re.search(rf"\b{word} (\w+=.*)$", line)
            if m:
                found.append(dict(part.split("=", 1) for part in m.group(1).split("|") if "=" in part))
        return found

    def digits(self, channel):
        """Keys heard on one channel, as (digit, milliseconds)."""
        pattern = rf"DTMF end '(.)' received on {re.escape(channel)}, duration (\d+) ms"
        return [(d, int(ms)) for d, ms in re.findall(pattern, self.log("digits"))]

    def requests(self, method, call_id=None):
        """How many SIP requests of one method arrived, of one Call-ID or of all. One that came again because its answer was
        late is the same (RFC 3261 17.2.3: the branch tells)."""
        blocks = re.split(r"<--- (?=Received|Transmitting)", self.log("trace"))
        wanted = [b for b in blocks if re.match(rf"Received SIP request[^\n]*\n{method} ", b)]
        if call_id is not None:
            wanted = [b for b in wanted if re.search(rf"(?im)^(?:Call-ID|i):\s*{re.escape(call_id)}\s*$", b)]
        return len({re.search(r"(?im)^(?:Via|v):.*?branch=([^;\s]+)", b).group(1) for b in wanted})

    def awaits_socket(self, number, codec="slin16"):
        """A channel that waits for somebody to connect by WebSocket, and then hears and says what `other-` does; its URL."""
        before = set(re.findall(r"(?m)^(WebSocket/[^!]+)!", self.cli("core show channels concise")))
        said = self.cli(f"channel originate WebSocket/INCOMING/c({codec}) extension other-{number}@tests")
        assert not said.strip(), said
        until = time.monotonic() + 10
        while time.monotonic() < until:
            for name in set(re.findall(r"(?m)^(WebSocket/[^!]+)!", self.cli("core show channels concise"))) - before:
                m = re.search(r"MEDIA_WEBSOCKET_CONNECTION_ID=(\S+)", self.cli(f"core show channel {name}"))
                if m:
                    return f"ws://{self.address}:8088/media/{m.group(1)}"
            time.sleep(0.05)
        raise AssertionError("no channel waits for a WebSocket:\n" + self.cli("core show channels") + self.log("messages")[-2000:])

    # Out to WhatsApp

    def dial(self, number, trunk, then="talk"):
        """Somebody at the PBX dials a WhatsApp user (digits, no plus) through a trunk; `then` is what they do once it is
        answered: talk, brief or keys. Returns at once."""
        said = self.cli(f"channel originate Local/9{number}@out-{trunk}/n extension {then}-{number}@people")
        assert not said.strip(), said

    def gives_up(self, number):
        """That somebody hangs up."""
        names = re.findall(rf"(?m)^(Local/9{number}@[^!]+;1)!", self.cli("core show channels concise"))
        assert names, f"nobody at the PBX is calling +{number}"
        for name in names:
            self.cli(f"channel request hangup {name}")

    def state(self, number):
        """The state of the trunk's channel to a WhatsApp user (Down, Ringing, Up), None if there is none."""
        for line in self.cli("core show channels concise").splitlines():
            part = line.split("!")
            if part[0].startswith("PJSIP/") and any(p in (number, "9" + number, "+" + number) for p in part[1:]):
                return part[4]
        return None

    def answers(self, number):
        """The answers to INVITEs that dialled a number, oldest first: (code, reason, headers in lower case)."""
        path = self.run / "trace"
        with open(path, "rb") as trace:
            trace.seek(self._read)
            text = trace.read().decode("latin-1")       # one byte is one character
        *blocks, last = re.split(r"<--- (?=Received|Transmitting)", text)
        # The last block may still be on its way into the file: it is read again next time.
        self._read += sum(len(b) + len("<--- ") for b in blocks)
        self._seen += [a for a in map(self._answered, blocks) if a]
        return [a for to, a in self._seen + [s for s in [self._answered(last)] if s] if to == number]

    @staticmethod
    def _answered(block):
        m = re.match(r"Received SIP response[^\n]*\nSIP/2\.0 (\d{3}) ([^\r\n]*)", block)
        to = m and re.search(r"(?im)^To:.*sip:\+?([^@;>]+)@", block)
        if not to or not re.search(r"(?im)^CSeq: \d+ INVITE", block):
            return None
        headers = {k.lower(): v.strip() for k, v in re.findall(r"(?m)^([A-Za-z-]+):([^\r\n]*)", block)}
        return to.group(1), (int(m.group(1)), m.group(2), headers)

    def answer(self, number, code=None, timeout=12.0):
        """Waits for an answer to an INVITE: this code, or any final one other than a challenge; (code, reason, headers)."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            for answer in self.answers(number):
                if answer[0] == code or (code is None and answer[0] >= 200 and answer[0] not in (401, 407)):
                    return answer
            time.sleep(0.05)
        raise AssertionError(f"the PBX saw {[a[:2] for a in self.answers(number)]} for +{number}, not {code or 'a final answer'}")

    def done(self, number, timeout=12.0):
        """What the dialplan says of a call to WhatsApp that is over: status, cause, talked."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            for line in self.said("DONE"):
                if line["to"] == number:
                    return line
            time.sleep(0.05)
        raise AssertionError(f"the PBX is not done with +{number}: {self.said('DONE')[-3:]}")

    def heard(self, number, timeout=15.0):
        """Samples and rate of what one caller said to an extension that records, once that call is over: Asterisk writes the
        length into the head of the file when it closes it."""
        path = self.run / f"heard-{number}.wav16"
        until = time.monotonic() + timeout
        told = size = 0
        while time.monotonic() < until:
            if path.exists():
                with open(path, "rb") as file:
                    head = file.read(44)
                size = path.stat().st_size
                told = struct.unpack("<I", head[40:44])[0] if len(head) == 44 else 0
                if told > 1000 and told + 44 <= size:
                    return sound.from_wav(path)
            time.sleep(0.1)
        raise AssertionError(f"the PBX has no finished recording of {path.name}: {size} bytes, {told} are told of")

    def hears(self, number, hertz, dbfs=-10.0, within_db=3.0, gap=0.05, since=None):
        """Fails unless this tone is what one caller said to an extension that records, whole; a line with the numbers. What the
        lab's user sent late since a monotonic time is missing there. Asterisk's own recorder takes a frame out of its turn now
        and then: two of them are no gap."""
        x, rate = self.heard(number)
        x = x[rate:-rate // 2]
        f, level, longest = sound.frequency(x, rate), sound.level(x), sound.longest_gap(x, rate)
        late = lateness.allowance(since) if since is not None else 0.0
        line = (f"{f:.1f} Hz at {level:.1f} dBFS, longest gap {1000 * longest:.0f} ms in {len(x) / rate:.1f} s"
                + (f", the lab up to {1000 * late:.0f} ms late" if late else ""))
        right = abs(f - hertz) <= 0.01 * hertz and abs(level - dbfs) <= within_db and longest <= gap + late
        assert right and len(x) > rate / 2, f"{line}, not {hertz} Hz at {dbfs} without a gap of more than {1000 * (gap + late):.0f} ms"
        return line

    def channels(self):
        """How many channels are up now."""
        m = re.search(r"(\d+) active channel", self.cli("core show channels count"))
        return int(m.group(1)) if m else -1

    def contact(self, name):
        """The contact that registered for a trunk, or None."""
        m = re.search(rf"Contact:\s+{re.escape(name)}/(\S+)", self.cli(f"pjsip show aor {name}"))
        return m.group(1) if m else None
