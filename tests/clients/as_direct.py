"""What clients of HTTP are told by httpbin, directly and through the sidecar.

    as_direct.py serve [CERTIFICATE KEY]          serves httpbin
    as_direct.py compare PROXY SIDECAR_CA CA PLAIN_PORT SECURE_PORT
                                                  asks everything each way, and prints what differs

Compared are status, fields and body of the answer, what was redirected on the way, and (httpbin says it) what the
origin was asked. What may differ is named in DIFFERS, with its reason; anything else is printed.
"""

import asyncio
import json
import os
import ssl
import subprocess
import sys
from pathlib import Path

PER_HOP = "fields of one hop (RFC 9110 section 7.6.1)"
DIFFERS = {
    "connection": PER_HOP,
    "keep-alive": PER_HOP,
    "proxy-authenticate": PER_HOP,
    "transfer-encoding": "framing of one hop: what policy judged whole goes on with its length",
    "date": "the time of the answer",
}
# The length stands where the chunks were, and only there.
LENGTH = "content-length"

FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain"}
BINARY = {"content-type": "application/octet-stream"}
PARTS = {"content-type": "multipart/form-data; boundary=b"}
MULTIPART = b'--b\r\ncontent-disposition: form-data; name="a"; filename="a.txt"\r\n\r\nhello\r\n--b--\r\n'

# Method, path, and of `fields`, `body`, `pieces` (sent in chunks), `login` (user, password, kind) and `stay` (redirects are
# not followed) what there is. Those of one list share a session, and so cookies and connections.
SESSIONS = [
    [(method, "/anything/a?b=1", {}) for method in ("GET", "DELETE", "OPTIONS")],
    [("HEAD", path, {}) for path in ("/html", "/image/png", "/status/404", "/bytes/1000?seed=1", "/stream-bytes/10?seed=1")],
    [
        ("POST", "/anything", {"fields": FORM, "body": b"a=1&a=2&b=%C3%A9"}),
        ("PUT", "/anything", {"fields": JSON, "body": b'{"a": [1, null]}'}),
        ("PATCH", "/patch", {"fields": TEXT, "body": "grüße".encode()}),
        ("DELETE", "/delete", {"fields": JSON, "body": b"{}"}),
        ("POST", "/post", {"fields": PARTS, "body": MULTIPART}),
        ("POST", "/post", {"fields": TEXT, "body": b""}),
        ("POST", "/post", {"fields": TEXT, "body": b"x" * 2_000_000}),
        ("POST", "/post", {"fields": BINARY, "body": bytes(range(256)) * 2_000}),
        ("POST", "/post", {"fields": TEXT, "pieces": [b"one ", b"two ", b"x" * 100_000]}),
        ("POST", "/post", {"fields": BINARY, "pieces": [bytes(range(256))] * 500}),
    ],
    [
        ("GET", "/anything/%7Efoo/a%20b/%C3%A9?a=b%20c+d&x=%C3%A9&&y", {}),
        ("GET", "/anything//a/./b", {}),
        ("GET", "/headers", {"fields": {"x-odd": "a,  b ;c", "x-empty": "", "x-long": "y" * 4_000}}),
        ("GET", "/response-headers?x-a=1&x-a=2&x-b=a%2C%20b", {}),
    ],
    [
        ("GET", "/redirect/3", {}),
        ("GET", "/relative-redirect/2", {}),
        ("GET", "/absolute-redirect/2", {}),
        ("GET", "/redirect/1", {"stay": True}),
        *(
            ("POST", f"/redirect-to?url=/anything&status_code={status}", {"fields": FORM, "body": b"a=1"})
            for status in (301, 302, 303, 307, 308)
        ),
    ],
    [
        ("GET", "/cookies/set?a=1&b=%22two%22", {}),
        ("GET", "/cookies", {}),
        ("GET", "/cookies/delete?a", {}),
        ("GET", "/cookies", {}),
    ],
    [
        ("GET", "/basic-auth/ann/secret", {"login": ("ann", "secret", "basic")}),
        ("GET", "/basic-auth/ann/secret", {"login": ("ann", "wrong", "basic")}),
        ("GET", "/basic-auth/ann/secret", {}),
        ("GET", "/hidden-basic-auth/ann/secret", {}),
        ("GET", "/bearer", {"fields": {"authorization": "Bearer abc"}}),
    ],
    [
        ("GET", f"/digest-auth/{qop}/ann/secret/{algorithm}", {"login": ("ann", "secret", "digest")})
        for qop, algorithm in [("auth", "MD5"), ("auth", "SHA-256")]
    ],
    [("GET", f"/{coding}", {}) for coding in ("gzip", "deflate", "brotli")],
    [
        ("GET", "/stream/20", {}),
        ("GET", "/stream-bytes/50000?seed=1&chunk_size=333", {}),
        ("GET", "/bytes/100000?seed=1", {}),
        ("GET", "/bytes/0?seed=1", {}),
        ("GET", "/drip?duration=0.3&numbytes=10&delay=0.1", {}),
    ],
    [
        ("GET", "/range/70000?chunk_size=1000", {}),
        *(("GET", "/range/2048", {"fields": {"range": f"bytes={part}"}}) for part in ("0-99", "100-", "-10", "5000-")),
        ("GET", "/etag/x", {"fields": {"if-none-match": '"x"'}}),
        ("GET", "/etag/x", {"fields": {"if-match": '"y"'}}),
        ("GET", "/cache", {"fields": {"if-modified-since": "Wed, 21 Oct 2015 07:28:00 GMT"}}),
        ("GET", "/cache/60", {}),
    ],
    [
        ("GET", f"/status/{status}", {})
        for status in (200, 201, 202, 204, 206, 226, 304, 400, 402, 403, 404, 405, 406, 409, 410, 418, 422, 429, 451)
    ],
    [("GET", f"/status/{status}", {}) for status in (500, 501, 502, 503, 504, 520)],
    [
        ("GET", path, {})
        for path in ("/html", "/xml", "/json", "/robots.txt", "/deny", "/encoding/utf8", "/image/png", "/image/jpeg", "/image/svg", "/links/3/0", "/ip", "/user-agent", "/base64/aGVsbG8=")
    ],
]


def serve(*pair):
    """By gunicorn, which says where it listens, and keeps connections: as long as other servers do, as what comes just
    when it closes one is lost either way."""
    command = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "--worker-class", "gthread", "--threads", "16", "--keep-alive", "75"]
    if pair:
        command += ["--certfile", pair[0], "--keyfile", pair[1]]
    os.execv(sys.executable, [*command, "httpbin:app"])


class Way:
    """Where a client goes: straight to the server, or through the sidecar."""

    def __init__(self, url, proxy, ca):
        self.url, self.proxy, self.ca = url, proxy, ca
        self.tls = ssl.create_default_context(cafile=ca)


def said(status, fields, body, before=()):
    return {"status": status, "fields": sorted((n.lower(), v) for n, v in fields), "body": body, "before": list(before)}


def with_requests(way, asks):
    import requests
    from requests.auth import HTTPDigestAuth

    with requests.Session() as session:
        session.trust_env = False
        session.verify = way.ca
        session.proxies = {"http": way.proxy, "https": way.proxy} if way.proxy else {}
        for method, path, more in asks:
            login = more.get("login")
            auth = login and (login[:2] if login[2] == "basic" else HTTPDigestAuth(*login[:2]))
            data = iter(more["pieces"]) if "pieces" in more else more.get("body")
            follow = not more.get("stay")
            answer = session.request(
                method, way.url + path, headers=more.get("fields"), data=data, auth=auth, allow_redirects=follow, timeout=30
            )
            fields = answer.raw.headers.items()
            yield said(answer.status_code, fields, answer.content, [old.status_code for old in answer.history])


def with_urllib3(way, asks):
    import urllib3

    more = {"ca_certs": way.ca, "cert_reqs": "CERT_REQUIRED", "timeout": 30, "retries": urllib3.Retry(10, status=0)}
    pool = urllib3.ProxyManager(way.proxy, **more) if way.proxy else urllib3.PoolManager(**more)
    with pool:
        for method, path, more in asks:
            if "login" in more and more["login"][2] == "digest":
                continue
            # It says so by itself through a proxy alone.
            fields = {"Accept": "*/*", **more.get("fields", {})}
            if "login" in more:
                fields |= urllib3.make_headers(basic_auth=":".join(more["login"][:2]))
            body = iter(more["pieces"]) if "pieces" in more else more.get("body")
            follow = not more.get("stay") and "body" not in more
            answer = pool.request(method, way.url + path, headers=fields, body=body, redirect=follow)
            before = [old.status for old in answer.retries.history] if answer.retries else []
            yield said(answer.status, answer.headers.items(), answer.data, before)


def with_httpx(way, asks, http2=False):
    import httpx

    more = {"verify": way.tls, "trust_env": False, "timeout": 30, "http2": http2}
    with httpx.Client(proxy=way.proxy, follow_redirects=True, max_redirects=10, **more) as client:
        for method, path, more in asks:
            login = more.get("login")
            auth = login and (login[:2] if login[2] == "basic" else httpx.DigestAuth(*login[:2]))
            content = iter(more["pieces"]) if "pieces" in more else more.get("body")
            follow = not more.get("stay")
            asked = client.build_request(method, way.url + path, headers=more.get("fields"), content=content)
            answer = client.send(asked, auth=auth, follow_redirects=follow)
            fields = [(n.decode(), v.decode("latin-1")) for n, v in answer.headers.raw]
            yield said(answer.status_code, fields, answer.content, [old.status_code for old in answer.history])


def with_httpx_over_http2(way, asks):
    # In the clear it speaks HTTP/1.1, and so does httpbin: the sidecar translates.
    return with_httpx(way, asks, http2=bool(way.proxy))


async def pieces_of(pieces):
    for piece in pieces:
        yield piece


async def ask_aiohttp(way, asks):
    import aiohttp

    found = []
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        for method, path, more in asks:
            login = more.get("login")
            if login and login[2] == "digest":
                continue
            data = pieces_of(more["pieces"]) if "pieces" in more else more.get("body")
            fields = dict(more.get("fields", {}))
            if login:
                fields["authorization"] = aiohttp.encode_basic_auth(*login[:2])
            follow = not more.get("stay")
            async with session.request(
                method, way.url + path, headers=fields, data=data, allow_redirects=follow, proxy=way.proxy, ssl=way.tls
            ) as answer:
                before = [old.status for old in answer.history]
                found.append(said(answer.status, answer.headers.items(), await answer.read(), before))
    return found


def with_aiohttp(way, asks):
    return asyncio.run(ask_aiohttp(way, asks))


def with_fetch(way, asks):
    """Node's; it has no cookies and no logins of its own."""
    asks = [
        {"method": method, "path": path, "fields": more.get("fields", {}), "stay": more.get("stay", False)}
        | {name: list(b"".join(more["pieces"]) if name == "pieces" else more["body"]) for name in ("body", "pieces") if name in more}
        for method, path, more in asks
        if "login" not in more
    ]
    script = Path(__file__).with_name("as_direct.mjs")
    env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    env |= {"NODE_EXTRA_CA_CERTS": way.ca, "ASK_PROXY": way.proxy or ""}
    told = json.dumps({"url": way.url, "asks": asks})
    ended = subprocess.run(["node", script], input=told, env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for one in json.loads(ended.stdout):
        yield said(one["status"], one["fields"], bytes(one["body"]), one["before"])


CLIENTS = [with_requests, with_urllib3, with_httpx, with_httpx_over_http2, with_aiohttp, with_fetch]


def comparable(found):
    """What must be the same."""
    fields = [(name, value) for name, value in found["fields"] if name not in DIFFERS]
    try:
        told = [json.loads(found["body"])]
    except ValueError:
        try:
            told = [json.loads(line) for line in found["body"].splitlines()]
        except ValueError:
            return {**found, "fields": fields}
    echoes = [one for one in told if isinstance(one, dict) and isinstance(one.get("headers"), dict)]
    if not echoes:
        return {**found, "fields": fields}
    # What the origin was asked, as httpbin tells it.
    for one in echoes:
        one["headers"] = {n: v for n, v in one["headers"].items() if n.lower() not in DIFFERS}
    # The length is that of what was left out as well.
    fields = [(name, value) for name, value in fields if name != LENGTH]
    return {**found, "fields": fields, "body": told}


def differences(direct, through):
    direct, through = comparable(direct), comparable(through)
    names = [dict(one["fields"]) for one in (direct, through)]
    if LENGTH not in names[0] and LENGTH in names[1]:
        if int(names[1][LENGTH]) != len(through["body"]) and "content-encoding" not in names[1]:
            yield "content-length", len(through["body"]), names[1][LENGTH]
        through["fields"] = [(n, v) for n, v in through["fields"] if n != LENGTH]
    for what in direct:
        if direct[what] != through[what]:
            yield what, direct[what], through[what]


def compare(proxy, sidecar_ca, ca, plain, secure):
    asked = differ = 0
    for client in CLIENTS:
        urls = [f"https://localhost:{secure}"]
        if client is not with_httpx_over_http2:
            urls.append(f"http://localhost:{plain}")
        for url in urls:
            for asks in SESSIONS:
                ways = [Way(url, None, ca), Way(url, f"http://{proxy}", sidecar_ca)]
                one, other = (list(client(way, asks)) for way in ways)
                assert len(one) == len(other)
                if len(one) == len(asks):
                    names = [f"{method} {path}" for method, path, _ in asks]
                else:
                    names = [f"{number} of {asks[0][1]}" for number in range(len(one))]
                for name, direct, through in zip(names, one, other):
                    asked += 1
                    for what, was, found in differences(direct, through):
                        differ += 1
                        print(client.__name__, url.split(":")[0], name, what, str(was)[:300], "->", str(found)[:300])
    print(f"{len(CLIENTS)} clients, {asked} answers, {differ} differences")


if __name__ == "__main__":
    {"serve": serve, "compare": compare}[sys.argv[1]](*sys.argv[2:])
