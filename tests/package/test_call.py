"""A whole call through the installed service, inside its sandbox: real systemd, real Asterisk, WebRTC by aiortc."""

import time
import urllib.request

import asterisk
import network
from conftest import configure
from gateway import API_KEY, VERIFY_TOKEN
from whatsapp import Cloud, Number

NUMBERS = {"milliwatt": Number("106540352242901", "+15550100101"), "echo": Number("106540352242902", "+15550100102")}


def config(cloud, pbx, address):
    text = f"""
[gateway]
name = "box"
max_calls = 10
[http]
listen = "{address}:8080"
[[http.key]]
name = "ops"
key = "{API_KEY}"
role = "admin"
[whatsapp]
graph_url = "{cloud.graph_url}"
app_secret = "{cloud.app_secret}"
access_token = "{cloud.token}"
verify_token = "{VERIFY_TOKEN}"
[media]
listen_ip = "{address}"
[sip]
listen = "{address}:5060"
[[trunk]]
name = "pbx"
server = "sip:{pbx.address}:5060;transport=udp"
username = "gw"
password = "gw-secret-1f6a"
"""
    for extension, number in NUMBERS.items():
        text += f"""
[[number]]
id = "{extension}"
phone_number_id = "{number.pnid}"
phone_number = "{number.phone}"
forward_to = "sip:{extension}@pbx"
trunk = "pbx"
"""
    return text


def ready(address, timeout=40.0):
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://{address}:8080/readyz", timeout=2) as reply:
                return reply.status == 200
        except OSError:
            time.sleep(0.1)
    return False


def written(box):
    """Bytes that the service has had written to disk, by /proc/PID/io."""
    pid = box.unit("MainPID")[0]
    text = box.run("cat", f"/proc/{pid}/io", check=True).stdout
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("write_bytes")))


def test_calls_work_in_the_sandbox_and_an_upgrade_lets_one_finish(fresh, newer, deb, talk):
    address = network.address(2)
    cloud = Cloud(network.address(1), 18080, "EAAG-lab-token-8c1d", "0123456789abcdef-lab-app-secret").start()
    pbx = asterisk.Asterisk(network.address(10), [asterisk.trunk("gw", "gw-secret-1f6a", address)])
    try:
        pbx.start()
        configure(fresh, config(cloud, pbx, address))
        fresh.run("systemctl", "start", "watrunk", check=True)
        assert ready(address), fresh.said()
        cloud.webhook = f"http://{address}:8080/webhooks/whatsapp"

        idle = written(fresh)
        for turn in range(3):
            call = cloud.call(NUMBERS["milliwatt"], user=f"49151100000{turn}")
            assert call.ring() == 200
            call.action("accept", 10)
            talk(3)
            call.hang_up()
            print("heard in the sandbox: " + call.measure().tone(1004, asterisk.MILLIWATT_DBFS))
        talk(2)
        print(f"written to disk: {idle} bytes until the first call, {(written(fresh) - idle) / 3:.0f} a call")
        until = time.monotonic() + 10
        while True:
            listed = fresh.run("watrunk", "calls", "--json", "--offline", check=True).stdout
            if listed.count('"user_hung_up"') == 3 or time.monotonic() > until:
                break
            time.sleep(0.2)
        assert listed.count('"user_hung_up"') == 3, listed

        # A call is running while the newer package comes: it is not cut, and the new process takes the next one.
        call = cloud.call(NUMBERS["echo"], user="491511000009")
        assert call.ring() == 200
        call.action("accept", 10)
        before = fresh.unit("MainPID")[0]
        import threading
        upgrade = threading.Thread(target=fresh.install, args=(newer, "--force-confdef"))
        upgrade.start()
        talk(6)
        assert not call.ended_at, "the upgrade cut the call"
        call.hang_up()
        upgrade.join(120)
        assert not upgrade.is_alive()
        assert fresh.unit("ActiveState")[0] == "active" and fresh.unit("MainPID")[0] != before
        assert ready(address)
        call = cloud.call(NUMBERS["milliwatt"], user="491511000010")
        assert call.ring() == 200
        call.action("accept", 10)
        talk(1)
        call.hang_up()
        assert not [line for line in fresh.said() if " ERROR " in line or "panicked" in line]
    finally:
        cloud.webhook = None
        pbx.stop()
        cloud.stop()
        fresh.install(deb, "--force-downgrade", "--force-confdef")
