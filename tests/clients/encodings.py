"""Bodies in every content coding, between httpx and an origin of Python's.

    encodings.py CASE PROXY

`judged` prints what came of bodies that policy reads, `redacted` what of those that
guardrails redact. The client undoes the codings by itself, as those of agents do.
"""

import gzip
import hashlib
import http.server
import sys
import threading
import zlib

import brotli
import httpx
import zstandard

case, proxy = sys.argv[1:]


def deflated(data):
    return zlib.compress(data)


CODINGS = {
    "gzip": gzip.compress,
    "deflate": deflated,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
}


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    heard = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        coding, text = self.path.strip("/").split("/")
        data = CODINGS[coding.replace("+", ", ")]((text + " ").encode() * 20)
        self.answer(data, coding.replace("+", ", "))

    def do_POST(self):
        data = self.rfile.read(int(self.headers["content-length"]))
        self.heard.append((self.headers.get("content-encoding"), data))
        self.answer(b"heard", None)

    def answer(self, data, coding):
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        if coding:
            self.send_header("content-encoding", coding)
            self.send_header("x-sum", hashlib.sha256(data).hexdigest())
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"


def unchanged(client, path):
    with client.stream("GET", f"{url}/{path}") as answer:
        raw = b"".join(answer.iter_raw())
        same = hashlib.sha256(raw).hexdigest() == answer.headers["x-sum"]
        return same, answer.headers.get("content-encoding")


def judged(client):
    for coding, encode in CODINGS.items():
        path = coding.replace(", ", "+")
        same, said = unchanged(client, f"{path}/fine")
        refused = client.get(f"{url}/{path}/forbidden")
        print(coding, "got", same, said == coding, refused.status_code, refused.json()["code"])
        fields = {"content-type": "text/plain", "content-encoding": coding}
        data = encode(b"fine " * 20)
        sent = client.post(url, content=data, headers=fields)
        same = Origin.heard[-1] == (coding, data)
        refused = client.post(url, content=encode(b"forbidden"), headers=fields)
        print(coding, "sent", sent.text, same, refused.status_code, refused.json()["code"], len(Origin.heard))
        Origin.heard.clear()
    twice = gzip.compress(b"fine") + gzip.compress(b"forbidden")
    unread = client.post(url, content=twice, headers={"content-type": "text/plain", "content-encoding": "gzip"})
    print("two members", unread.status_code, unread.json()["code"], len(Origin.heard))


def redacted(client):
    for coding, encode in CODINGS.items():
        path = coding.replace(", ", "+")
        got = client.get(f"{url}/{path}/ann@example.com")
        right = got.text == "<EMAIL_ADDRESS> " * 20 or got.text
        print(coding, "got", right, got.headers.get("content-encoding"))
        fields = {"content-type": "text/plain", "content-encoding": coding}
        client.post(url, content=encode(b"to ann@example.com"), headers=fields)
        print(coding, "sent", *Origin.heard[-1])


with httpx.Client(proxy=f"http://{proxy}", timeout=30) as client:
    globals()[case](client)
