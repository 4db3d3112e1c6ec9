"""Where recordings are uploaded to: an S3-compatible store (moto's server, behind a proxy of ours that checks signatures) and a
plain HTTP endpoint. Both keep what came, and can be made to fail as servers in trouble do.

The proxy signs nothing and changes nothing; who uploads talks to `Store.url`, path-style (`URL/BUCKET/KEY`).
"""

import asyncio
import dataclasses
import datetime
import hashlib
import hmac
import re
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse

import aiohttp
import boto3
from aiohttp import web
from botocore.config import Config
from yarl import URL

from people import Awaited

REGION = "eu-central-1"
ACCESS_KEY, SECRET_KEY = "AKIALABRECORDINGS", "lab-s3-secret-2f61c0"

# moto's server, which ends with the run that started it.
MOTO = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from moto.server import main
main(sys.argv[1:])
"""


@dataclasses.dataclass
class Trouble:
    """What happens to requests instead of their being answered: to the next `times`, to those of one method if one is named.

    `status`: this answer, with S3's XML and `code`. `hang`: seconds without an answer, then the connection is closed. `cut`: the
    connection is closed after so many bytes of the body. `rate`: taken at so many bytes a second, then answered rightly.
    `lost`: done, but the connection is closed before the answer.
    """

    status: int | None = None
    code: str = "InternalError"
    hang: float | None = None
    cut: int | None = None
    rate: int | None = None
    lost: bool = False
    times: int = 1
    method: str | None = None


@dataclasses.dataclass
class Request:
    """One request as it came; `status` is None if it was not answered, `fault` says what was wrong with its credentials."""

    at: float
    method: str
    path: str
    query: str
    headers: dict
    size: int
    status: int | None = None
    fault: str | None = None


def signature_fault(method, path, query, headers, body, secret=SECRET_KEY, now=None):
    """What is wrong with a request's AWS Signature Version 4 (service s3), None if it is right. `path` and `query` as they stand
    in the request line."""
    headers = {k.lower(): " ".join(v.split()) for k, v in headers.items()}
    found = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, ?SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})",
                         headers.get("authorization", ""))
    if not found:
        return f"no such signature: {headers.get('authorization', '')[:200]!r}"
    access, day, region, names, signature = found.groups()
    if access != ACCESS_KEY or region != REGION:
        return f"signed by {access} for {region}"
    date, claimed = headers.get("x-amz-date", ""), headers.get("x-amz-content-sha256", "")
    try:
        at = datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc).timestamp()
    except ValueError:
        return f"x-amz-date is {date!r}"
    if not date.startswith(day) or abs(at - (time.time() if now is None else now)) > 900:
        return f"signed at {date}: RequestTimeTooSkewed"
    if claimed not in (hashlib.sha256(body).hexdigest(), "UNSIGNED-PAYLOAD"):
        return "x-amz-content-sha256 is not that of the body"
    if "host" not in names.split(";") or any(h.startswith("x-amz-") and h not in names.split(";") for h in headers):
        return f"host and every x-amz- header must be signed, not only {names}"
    pairs = sorted((urllib.parse.quote(k, safe="-_.~"), urllib.parse.quote(v, safe="-_.~")) for k, v in urllib.parse.parse_qsl(query, True))
    lines = "".join(f"{name}:{headers.get(name, '')}\n" for name in names.split(";"))
    canonical = "\n".join([method, path, "&".join(f"{k}={v}" for k, v in pairs), lines, names, claimed])
    text = "\n".join(["AWS4-HMAC-SHA256", date, f"{day}/{region}/s3/aws4_request", hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request", text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return None if hmac.compare_digest(key.hex(), signature) else "SignatureDoesNotMatch"


def _refusal(status, code):
    return web.Response(status=status, content_type="application/xml", text=(
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code}</Message><RequestId>LAB</RequestId></Error>'))


class Front(Awaited):
    """An HTTP server that fails on demand. `tls` is (certificate file, key file)."""

    def __init__(self, address, port, tls=None):
        super().__init__()
        self.address, self.port = address, port
        self.url = f"http{'s' if tls else ''}://{address}:{port}"
        self.requests = []              # every Request, oldest first
        self._troubles = []
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="front", daemon=True)

    def start(self):
        """Listens when this returns."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def stop(self):
        """Closes everything."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def fail(self, *troubles):
        """These happen, one after the other; each `times` times."""
        self._troubles += [dataclasses.replace(trouble) for trouble in troubles]

    def recover(self):
        """No trouble any more."""
        self._troubles.clear()

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _listen(self):
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{rest:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, auto_decompress=False)
        await self._runner.setup()
        context = None
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._tls)
        await web.TCPSite(self._runner, self.address, self.port, ssl_context=context).start()
        self._http = aiohttp.ClientSession(auto_decompress=False)

    async def _close(self):
        await self._http.close()
        await self._runner.cleanup()

    def _trouble(self, method):
        for trouble in self._troubles:
            if trouble.method in (None, method):
                trouble.times -= 1
                if trouble.times <= 0:
                    self._troubles.remove(trouble)
                return trouble
        return Trouble()

    async def _serve(self, request):
        trouble = self._trouble(request.method)
        path, _, query = request.raw_path.partition("?")
        seen = Request(time.time(), request.method, path, query, {k.lower(): v for k, v in request.headers.items()}, 0)
        self.requests.append(seen)
        body = b""
        async for part in request.content.iter_chunked(16384):
            body += part
            seen.size = len(body)
            if trouble.cut is not None and len(body) >= trouble.cut:
                return self._gone(request)
            if trouble.rate:
                await asyncio.sleep(len(part) / trouble.rate)
        if trouble.hang is not None:
            await asyncio.sleep(trouble.hang)
            return self._gone(request)
        if trouble.cut is not None:
            return self._gone(request)
        if trouble.status:
            seen.status = trouble.status
            self._notify()
            return _refusal(trouble.status, trouble.code)
        answer = await self._answer(seen, request, body)
        if trouble.lost:
            return self._gone(request)
        seen.status = answer.status
        self._notify()
        return answer

    def _gone(self, request):
        if request.transport:
            request.transport.abort()
        self._notify()
        return web.Response(status=500)         # nobody reads it


class Store(Front):
    """The store at `address`, with one empty bucket."""

    def __init__(self, address, port=9000, bucket="recordings", tls=None):
        super().__init__(address, port, tls)
        self.bucket = bucket
        self._inner = f"http://{address}:{port + 1}"
        self._moto = subprocess.Popen([sys.executable, "-c", MOTO, "-H", address, "-p", str(port + 1)], stdin=subprocess.PIPE,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self._said = []
        threading.Thread(target=lambda: self._said.extend(self._moto.stderr), name="moto", daemon=True).start()
        self._direct = self.client(self._inner)

    def client(self, url=None, secret=SECRET_KEY, verify=None):
        """A boto3 client for the store, or for what listens at another URL. `verify`: the file of its authority."""
        config = Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"total_max_attempts": 1},
                        request_checksum_calculation="when_required", connect_timeout=5, read_timeout=3)
        return boto3.client("s3", endpoint_url=url or self.url, region_name=REGION, aws_access_key_id=ACCESS_KEY,
                            aws_secret_access_key=secret, config=config, verify=verify and str(verify))

    def start(self, timeout=30.0):
        """Listens when this returns."""
        end = time.monotonic() + timeout
        while True:
            try:
                self._direct.create_bucket(Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
                break
            except Exception as error:
                if self._moto.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"moto's server did not come up: {error}\n" + b"".join(self._said[-20:]).decode()) from error
                time.sleep(0.1)
        return super().start()

    def stop(self):
        """Ends both."""
        super().stop()
        self._moto.terminate()
        self._moto.wait(10)

    # What is in it

    def objects(self):
        """Key -> size, of all that is stored."""
        pages = self._direct.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return {it["Key"]: it["Size"] for page in pages for it in page.get("Contents", [])}

    def body(self, key):
        """The bytes of an object."""
        return self._direct.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def head(self, key):
        """What S3 says about an object: ContentType, Metadata, …"""
        return self._direct.head_object(Bucket=self.bucket, Key=key)

    def stored(self, count=1, timeout=15.0):
        """Waits until so many objects are stored; their keys."""
        return self.until(lambda: sorted(self.objects()) if len(self.objects()) >= count else None, timeout,
                          lambda: f"{count} objects are not stored: {[(r.method, r.path, r.status, r.fault) for r in self.requests[-6:]]}")

    def empty(self):
        """Takes all objects out and forgets the requests."""
        for key in self.objects():
            self._direct.delete_object(Bucket=self.bucket, Key=key)
        self.requests.clear()

    async def _answer(self, seen, request, body):
        seen.fault = signature_fault(seen.method, seen.path, seen.query, request.headers, body)
        if seen.fault:
            return _refusal(403, "SignatureDoesNotMatch")
        kept = {k: v for k, v in request.headers.items() if k.lower() not in ("transfer-encoding", "connection", "expect")}
        async with self._http.request(request.method, URL(self._inner + request.raw_path, encoded=True), headers=kept, data=body) as reply:
            # The answer to HEAD has the length of what it does not have.
            ours = ("transfer-encoding", "connection") + (() if request.method == "HEAD" else ("content-length",))
            return web.Response(status=reply.status, body=None if request.method == "HEAD" else await reply.read(),
                                headers={k: v for k, v in reply.headers.items() if k.lower() not in ours})


class Endpoint(Front):
    """An HTTP endpoint that takes files by PUT or POST; `bodies` maps a path to the latest bytes. Without the header `token` (if
    there is one) a request is answered with 401."""

    def __init__(self, address, port=9100, token=None, tls=None):
        super().__init__(address, port, tls)
        self.token, self.bodies = token, {}

    async def _answer(self, seen, request, body):
        if self.token and request.headers.get("Authorization") != self.token:
            seen.fault = "no such Authorization"
            return web.Response(status=401)
        if request.method not in ("PUT", "POST"):
            return web.Response(status=405)
        self.bodies[seen.path] = body
        return web.Response(status=201)
