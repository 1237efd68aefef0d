"""What agents written in Python do, with one client library each.

    python.py urllib|requests|httpx|aiohttp PLAIN_URL SECURE_URL

Knows nothing of the sidecar: proxy and authorities come from the environment.
"""

import asyncio
import hashlib
import json
import sys
import threading

MIB = 1 << 20


def pattern(count):
    period = bytes((i * 31 + 7) % 251 for i in range(251))
    return (period * (count // 251 + 1))[:count]


def pieces(data):
    for start in range(0, len(data), 65_536):
        yield data[start : start + 65_536]


class Urllib:
    def send(self, method, url, headers=None, data=None):
        import urllib.error
        import urllib.request

        request = urllib.request.Request(url, data=data, headers=headers or {}, method=method)
        try:
            answer = urllib.request.urlopen(request, timeout=20)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return answer.status, lower(answer.headers), answer.read()

    def lines(self, url):
        import urllib.request

        with urllib.request.urlopen(url, timeout=20) as answer:
            for line in answer:
                yield line.decode().rstrip()


class Requests:
    def __init__(self):
        import requests

        self.session = requests.Session()

    def send(self, method, url, headers=None, data=None):
        answer = self.session.request(method, url, headers=headers, data=data, timeout=20)
        return answer.status_code, lower(answer.headers), answer.content

    def lines(self, url):
        with self.session.get(url, stream=True, timeout=20) as answer:
            for line in answer.iter_lines(chunk_size=1):
                yield line.decode()


class Httpx:
    def __init__(self):
        import httpx

        self.client = httpx.Client(timeout=20)

    def send(self, method, url, headers=None, data=None):
        answer = self.client.request(method, url, headers=headers, content=data)
        return answer.status_code, lower(answer.headers), answer.content

    def lines(self, url):
        with self.client.stream("GET", url) as answer:
            yield from answer.iter_lines()


class Aiohttp:
    def __init__(self):
        import aiohttp

        self.loop = asyncio.new_event_loop()

        async def session():
            timeout = aiohttp.ClientTimeout(total=20)
            return aiohttp.ClientSession(trust_env=True, timeout=timeout)

        self.session = self.loop.run_until_complete(session())

    def send(self, method, url, headers=None, data=None):
        async def send():
            body = data
            if data is not None and not isinstance(data, bytes):

                async def body_of():
                    for piece in data:
                        yield piece

                body = body_of()
            async with self.session.request(method, url, headers=headers, data=body) as answer:
                return answer.status, lower(answer.headers), await answer.read()

        return self.loop.run_until_complete(send())

    def lines(self, url):
        answer = self.loop.run_until_complete(self.session.get(url))
        while line := self.loop.run_until_complete(answer.content.readline()):
            yield line.decode().rstrip()
        answer.release()


def lower(headers):
    return {name.lower(): value for name, value in headers.items()}


def equal(what, found, expected):
    if found != expected:
        raise SystemExit(f"{what}: found {found!r}, expected {expected!r}")


def check(client, site):
    status, _, body = client.send("GET", site + "/hello")
    equal("GET", (status, body), (200, b"hello from /hello"))

    text = {"content-type": "application/json"}
    status, _, body = client.send("POST", site + "/echo", text, b'{"a": 1}')
    echoed = json.loads(body)
    equal("POST", (status, echoed["method"], echoed["text"]), (200, "POST", '{"a": 1}'))

    for stage, code in [("started", "blocked"), ("completed", "outcome_blocked")]:
        status, headers, body = client.send("GET", f"{site}/{stage}/block")
        equal(f"{stage} block", status, 403)
        equal("kind", headers["content-type"], "application/problem+json")
        equal("verdict", headers["openbox-verdict"], "block")
        problem = json.loads(body)
        equal("problem", (problem["code"], problem["reason"]), (code, "the test says block"))

    large = pattern(5 * MIB)
    digest = hashlib.sha256(large).hexdigest()
    status, _, body = client.send("GET", f"{site}/bytes/{5 * MIB}")
    equal("download", (status, hashlib.sha256(body).hexdigest()), (200, digest))
    binary = {"content-type": "application/octet-stream"}
    for framing, data in [("whole", large), ("chunked", pieces(large))]:
        status, _, body = client.send("POST", site + "/echo", binary, data)
        equal(f"upload {framing}", (status, json.loads(body)["sha256"]), (200, digest))
    names = dict(json.loads(body)["fields"])
    equal("framing of a generator", names.get("transfer-encoding", "").lower(), "chunked")

    status, _, body = client.send("GET", site + "/chunked")
    equal("chunked answer", (status, body), (200, b"firstsecond"))
    for status in (204, 304):
        equal("no body", client.send("GET", f"{site}/status/{status}")[::2], (status, b""))
    status, headers, body = client.send("HEAD", site + "/bytes/1000")
    equal("HEAD", (status, headers["content-length"], body), (200, "1000", b""))

    events(client, site)


def events(client, site):
    """The origin sends its second event once the first was acknowledged."""
    name = f"{type(client).__name__}-{threading.get_ident()}"
    seen = []
    for line in client.lines(f"{site}/events/{name}"):
        if line.startswith("data: "):
            seen.append(line)
            if len(seen) == 1:
                Urllib().send("GET", f"{site}/ack/{name}")
    equal("events", seen, ["data: first", "data: second"])


def main():
    name, plain, secure = sys.argv[1:]
    kinds = {"urllib": Urllib, "requests": Requests, "httpx": Httpx, "aiohttp": Aiohttp}
    client = kinds[name]()
    for site in (plain, secure):
        check(client, site)
    print(f"all checks passed: {name}, Python {sys.version.split()[0]}")


main()
