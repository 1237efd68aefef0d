"""What clients of HTTP/2 do, one case a run.

    http2.py CASE PROXY URL [CA]

`httpx` is the client of agents; the other cases use h2 itself, which lets them
break off and misbehave. Prints what it found, one line a fact.
"""

import hashlib
import json
import socket
import ssl
import sys
import time
import urllib.parse

import h2.config
import h2.connection
import h2.events
import h2.exceptions

case, proxy, url, *rest = sys.argv[1:]
parts = urllib.parse.urlsplit(url)


def tunnel():
    host, port = proxy.split(":")
    sock = socket.create_connection((host, int(port)), timeout=20)
    name = f"{parts.hostname}:{parts.port}"
    sock.sendall(f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += sock.recv(1)
    assert b" 200 " in answer, answer
    if parts.scheme == "http":
        return sock
    context = ssl.create_default_context(cafile=rest[0])
    context.set_alpn_protocols(["h2", "http/1.1"])
    sock = context.wrap_socket(sock, server_hostname=parts.hostname)
    assert sock.selected_alpn_protocol() == "h2", sock.selected_alpn_protocol()
    return sock


class Client:
    """One connection; what happens on each stream, by its number."""

    def __init__(self, validate=True):
        self.sock = tunnel()
        config = h2.config.H2Configuration(
            header_encoding="utf-8",
            validate_outbound_headers=validate,
            normalize_outbound_headers=validate,
        )
        self.http = h2.connection.H2Connection(config)
        self.http.initiate_connection()
        self.streams = {}
        self.over = None
        self.flush()

    def flush(self):
        self.sock.sendall(self.http.data_to_send())

    def ask(self, path, method="GET", authority=None, fields=(), end=True, scheme=None, flush=True):
        stream = self.http.get_next_available_stream_id()
        head = [
            (":method", method),
            (":scheme", scheme or parts.scheme),
            (":authority", authority or parts.netloc),
            (":path", path),
            *fields,
        ]
        self.http.send_headers(stream, head, end_stream=end)
        self.streams[stream] = {"status": None, "body": b"", "trailers": {}, "reset": None, "done": False}
        if flush:
            self.flush()
        return stream

    def see(self):
        """Reads once; false at the end of the connection."""
        try:
            data = self.sock.recv(65_536)
        except (ConnectionError, ssl.SSLError):
            data = b""
        if not data:
            self.over = self.over or "closed"
            return False
        try:
            events = self.http.receive_data(data)
        except h2.exceptions.ProtocolError:
            # What follows a GOAWAY this library does not take, be it the end of
            # streams that were under way.
            self.over = "goaway"
            return False
        for event in events:
            stream = self.streams.get(getattr(event, "stream_id", None))
            match event:
                case h2.events.ResponseReceived():
                    stream["headers"] = dict(event.headers)
                    stream["status"] = stream["headers"][":status"]
                case h2.events.DataReceived():
                    stream["body"] += event.data
                    self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.TrailersReceived():
                    stream["trailers"] = dict(event.headers)
                case h2.events.StreamEnded():
                    stream["done"] = True
                case h2.events.StreamReset():
                    stream["reset"] = int(event.error_code)
                    stream["done"] = True
                case h2.events.ConnectionTerminated():
                    self.over = "goaway" if event.error_code == 0 else f"goaway {int(event.error_code)}"
        try:
            self.flush()
        except OSError:
            self.over = self.over or "closed"
            return False
        return True

    def wait(self, *streams):
        while not all(self.streams[stream]["done"] for stream in streams):
            if not self.see():
                break
        return [self.streams[stream] for stream in streams]

    def get(self, path, **more):
        return self.wait(self.ask(path, **more))[0]

    def end(self):
        while self.see():
            pass
        return self.over


def show(name, found):
    body = found["body"]
    body = body.decode() if len(body) < 400 else hashlib.sha256(body).hexdigest()
    print(name, found["status"], body, found["trailers"] or "", "" if found["reset"] is None else f"reset {found['reset']}")


def httpx_client():
    import asyncio

    import httpx

    async def main():
        context = ssl.create_default_context(cafile=rest[0])
        async with httpx.AsyncClient(http2=True, proxy=f"http://{proxy}", verify=context, timeout=30) as client:
            answer = await client.get(f"{url}/hello")
            print("hello", answer.status_code, answer.http_version, answer.text)
            data = bytes(range(256)) * 8192
            answer = await client.post(f"{url}/echo", content=data)
            print("upload", answer.status_code, answer.json()["sha256"] == hashlib.sha256(data).hexdigest())
            answer = await client.get(f"{url}/large")
            print("large", answer.status_code, answer.content == b"\7" * (8 << 20))
            answer = await client.get(f"{url}/started/block")
            print("blocked", answer.status_code, answer.http_version, answer.json()["code"])
            answer = await client.get(f"{url}/completed/block")
            print("withheld", answer.status_code, answer.json()["code"])
            many = [client.get(f"{url}/many/{n}") for n in range(150)]
            answers = await asyncio.gather(*many)
            right = [a.text == f"hello from /many/{n}" and a.status_code == 200 for n, a in enumerate(answers)]
            wrong = [(a.status_code, a.text[:300]) for a, is_right in zip(answers, right) if not is_right]
            print("many", len(right), wrong[:2] or True)

    asyncio.run(main())


def redacted():
    import httpx

    context = ssl.create_default_context(cafile=rest[0])
    with httpx.Client(http2=True, proxy=f"http://{proxy}", verify=context, timeout=30) as client:
        body = "to ann@example.com"
        answer = client.post(f"{url}/echo", content=body, headers={"content-type": "text/plain"})
        said = answer.json()
        length = said["headers"]["content-length"]
        right = said["sha256"] == hashlib.sha256(said["text"].encode()).hexdigest()
        print("sent", answer.status_code, answer.http_version, said["text"], length, right)
        answer = client.get(f"{url}/ann@example.com")
        print("got", answer.status_code, answer.text, answer.headers["content-length"], len(answer.content) == 27)


def trailers():
    client = Client()
    show("streamed", client.get("/trailers"))
    show("withheld", client.get("/text-trailers"))
    stream = client.ask("/echo", method="POST", fields=[("te", "trailers")], end=False)
    client.http.send_data(stream, b"hello")
    client.http.send_headers(stream, [("x-after", "9")], end_stream=True)
    client.flush()
    (found,) = client.wait(stream)
    print("sent", '"trailers":{"x-after":"9"}' in found["body"].decode())


def judged_trailers():
    client = Client(validate=False)
    ours = [("x-openbox-run-id", "r"), ("openbox-verdict", "allow"), ("authorization", "Bearer x"), ("host", "x.test")]

    def said(trailers, kind="text/plain"):
        fields = [("te", "trailers"), ("content-type", kind)]
        stream = client.ask("/echo", method="POST", fields=fields, end=False)
        client.http.send_data(stream, b"hello")
        client.http.send_headers(stream, trailers, end_stream=True)
        client.flush()
        return client.wait(stream)[0]

    def names(found):
        return *sorted(json.loads(found["body"])["trailers"]),

    found = said([("x-end", "yes"), ("x-api-key", "s3cret"), *ours])
    print("echoed", found["status"], *names(found))
    # Nobody reads it, so that it goes on as it comes.
    found = said([("x-end", "yes"), *ours], kind="image/png")
    print("passed", found["status"], *names(found))
    found = said([("x-verdict", "block")])
    print("refused", found["status"], json.loads(found["body"])["code"])
    found = client.get("/blocking-trailers")
    print("withheld", found["status"], json.loads(found["body"])["code"])
    for name, path in [("whole", "/own-trailers"), ("streamed", "/own-trailers/streamed")]:
        found = client.get(path)
        print(name, found["status"], *sorted(found["trailers"]))


def coalesced():
    client = Client(validate=False)
    show("other", {**client.get("/x", authority=f"other.test:{parts.port}"), "body": b""})
    show("scheme", {**client.get("/x", scheme="ftp"), "body": b""})
    fields = [("host", f"other.test:{parts.port}")]
    show("host", {**client.get("/x", fields=fields), "body": b""})
    show("still", client.get("/y"))


def endings():
    client = Client()

    def broken_off(path):
        # What was sent before the end may be lost with it, unless it is here.
        stream = client.ask(path)
        while not client.streams[stream]["body"]:
            client.see()
        client.ask("/now")
        return client.wait(stream)[0]

    show("reset", broken_off("/reset"))
    show("refused", client.get("/refused"))
    show("last", client.get("/last"))
    show("next", client.get("/next"))
    show("lost", broken_off("/lost"))
    show("after", client.get("/after"))


def cancelled():
    client = Client()
    never, drip = client.ask("/never"), client.ask("/drip")
    while not client.streams[drip]["body"]:
        client.see()
    client.http.reset_stream(never, 8)
    client.http.reset_stream(drip, 8)
    client.flush()
    show("still", client.get("/still"))
    never, drip = client.ask("/never"), client.ask("/drip")
    while not client.streams[drip]["body"]:
        client.see()
    client.sock.close()


def rapid_reset():
    client = Client()
    try:
        for _ in range(20):
            # Many at once: only those count that are reset before they are looked at.
            for _ in range(100):
                stream = client.ask("/never", flush=False)
                client.http.reset_stream(stream, 8)
            client.flush()
    except OSError:
        pass
    print("over", client.end())


def large_head():
    client = Client()
    found = client.get("/x", fields=[(f"x-{n}", "v") for n in range(150)])
    print("fields", found["status"])
    found = client.get("/x", fields=[("x-long", "v" * 9000) for n in range(9)])
    print("bytes", found["status"], found["reset"])
    show("still", client.get("/still"))


def held():
    client = Client()
    held, other = client.ask("/started/require_approval"), client.ask("/other")
    show("other", client.wait(other)[0])
    print("held", client.streams[held]["done"], flush=True)
    show("released", client.wait(held)[0])


def halted():
    client = Client()
    found = client.get("/started/halt")
    print("halt", found["status"])
    print("over", client.end())


def drained():
    client = Client()
    found = client.get("/hello")
    print("hello", found["status"], flush=True)
    print("over", client.end())


def drained_slowly():
    """Takes nothing of an answer for a while, and then all of it."""
    client = Client()
    stream = client.ask("/large")

    def frames():
        # The library reads nothing behind GOAWAY.
        came = b""
        while data := client.sock.recv(65_536):
            came += data
            while len(came) >= 9 and len(came) >= 9 + int.from_bytes(came[:3], "big"):
                length = int.from_bytes(came[:3], "big")
                yield came[3], came[4], length
                came = came[9 + length :]

    taken = None
    for kind, flags, length in frames():
        if kind == 1 and taken is None:
            taken = 0
            print("under way", flush=True)
            time.sleep(8)
        if kind == 0 and length:
            taken += length
            for number in (0, stream):
                client.sock.sendall(b"\0\0\4\x08\0" + number.to_bytes(4, "big") + length.to_bytes(4, "big"))
        if kind == 0 and flags & 1:
            print("taken", taken, "whole")
            break


def halted_under_way():
    client = Client()
    drip, never = client.ask("/drip"), client.ask("/never")
    fields = [("content-type", "application/octet-stream"), ("content-length", "1000000")]
    upload = client.ask("/never/upload", method="POST", fields=fields, end=False)
    client.http.send_data(upload, b"x" * 10_000)
    client.flush()
    while b"tick" not in client.streams[drip]["body"]:
        client.see()
    time.sleep(0.5)
    print("under way", flush=True)
    # The first refusal ends the connection, and this library reads nothing behind GOAWAY.
    over = client.end()
    found = client.streams[drip]
    print("drip", "whole" if found["done"] and found["reset"] is None else "broke off")
    print("answered", {client.streams[stream]["status"] for stream in (never, upload)} - {None, "403"})
    print("over", over)


def drips():
    """Sends a byte of its body now and then, and never the last."""
    client = Client()
    stream = client.ask("/echo", method="POST", fields=[("content-type", "image/png")], end=False)
    client.sock.settimeout(0.1)
    while not client.streams[stream]["done"]:
        try:
            client.see()
        except TimeoutError:
            client.http.send_data(stream, b"x")
            client.flush()
    found = client.streams[stream]
    print(found["status"], json.loads(found["body"])["code"])
    client.sock.settimeout(30)
    print("after", client.get("/trailers")["status"])


def takes_nothing():
    """Of the answer; it reads what comes, and says that it is there."""
    client = Client()
    client.ask("/large")
    client.http.acknowledge_received_data = lambda *_: None
    client.sock.settimeout(0.2)
    while True:
        try:
            if not client.see():
                break
        except TimeoutError:
            client.http.ping(b"still on")
            client.flush()
    print("over", client.over)


def reads_nothing():
    client = Client()
    client.http.increment_flow_control_window(2**30)
    client.flush()
    stream = client.ask("/large")
    client.http.increment_flow_control_window(2**30, stream)
    client.flush()
    time.sleep(30)


def no_path():
    client = Client(validate=False)

    def ask(path, *place):
        stream = client.http.get_next_available_stream_id()
        head = [(":method", "GET"), (":scheme", parts.scheme), (":path", path), *place]
        client.http.send_headers(stream, head, end_stream=True)
        client.streams[stream] = {"status": None, "body": b"", "trailers": {}, "reset": None, "done": False}
        client.flush()
        return client.wait(stream)[0]["status"]

    print("bare", ask("#x", ("host", parts.netloc)))
    print("named", ask("#x", (":authority", parts.netloc)))
    print("other", ask("/other", (":authority", parts.netloc)))


def silent():
    client = Client()
    for path in ["/first", "/never", "/after"]:
        print(path[1:], client.get(path)["status"])


def plain():
    client = Client()
    show("hello", client.get("/hello"))
    show("trailers", client.get("/trailers"))
    show("blocked", {**client.get("/started/block"), "body": b""})


def grpc_as_json():
    """Messages that are called JSON, whatever they are."""
    client = Client()
    fields = [("content-type", "application/grpc+json"), ("te", "trailers")]
    for path in ["/calls/one", "/show/it"]:
        for message in [b'{"a":\r\n1}', b"\x0a\x04drop"]:
            stream = client.ask(path, method="POST", fields=fields, end=False)
            client.http.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
            client.flush()
            (found,) = client.wait(stream)
            said = {**found["headers"], **found["trailers"]}
            print(said["grpc-status"], found["body"][5:], said.get("grpc-message", ""))


def one_request():
    show("answer", Client().get("/hello"))


globals()["httpx_client" if case == "httpx" else case]()
