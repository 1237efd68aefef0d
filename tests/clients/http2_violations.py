"""Violations of RFC 9113 §3 to §8, frame by frame, from either side of the sidecar.

    http2_violations.py client PROXY HOST:PORT   one connection each, to an origin of HTTP/2
    http2_violations.py origin PROXY             an origin that breaks the rule its path names

Prints a line for each: what is broken, and what was answered to it.
"""

import socket
import struct
import sys
import threading

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CODES = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
]
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8


def raw(kind, flags, stream, payload=b""):
    """A frame that no library would make."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def setting(number, value):
    return raw(SETTINGS, 0, 0, struct.pack(">HI", number, value))


class Wire:
    """One connection of HTTP/2, as frames."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(60)
        self.came = b""
        self.decoder = hpack.Decoder()

    def frame(self):
        """The next frame; None at the end."""
        while True:
            if len(self.came) >= 9:
                frame, length = Frame.parse_frame_header(memoryview(self.came[:9]))
                if len(self.came) >= 9 + length:
                    frame.parse_body(memoryview(self.came[9 : 9 + length]))
                    self.came = self.came[9 + length :]
                    return frame
            try:
                data = self.sock.recv(65_536)
            except (ConnectionError, TimeoutError) as error:
                return "silence" if isinstance(error, TimeoutError) else None
            if not data:
                return None
            self.came += data

    def say(self, *frames):
        try:
            self.sock.sendall(b"".join(f if isinstance(f, bytes) else f.serialize() for f in frames))
        except ConnectionError:
            pass

    def head(self, frame):
        return dict(self.decoder.decode(frame.data))


def block(*fields):
    # Without the table, so that every block stands alone.
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder.encode([hpack.NeverIndexedHeaderTuple(*field) for field in fields], huffman=False)


class Client:
    def __init__(self, proxy, authority):
        host, port = proxy.split(":")
        sock = socket.create_connection((host, int(port)), timeout=10)
        sock.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += sock.recv(1)
        assert b" 200 " in answer, answer
        self.wire = Wire(sock)
        self.authority = authority
        self.end = None

    def greet(self):
        self.wire.say(PREFACE, SettingsFrame(0))
        return self

    def fields(self, *more, method="GET", path="/x", leave=(), authority=None):
        pseudo = [
            (":method", method),
            (":scheme", "http"),
            (":authority", authority or self.authority),
            (":path", path),
        ]
        return block(*[field for field in pseudo if field[0] not in leave], *more)

    def request(self, stream, *more, end=True, **said):
        flags = ["END_HEADERS"] + (["END_STREAM"] if end else [])
        return HeadersFrame(stream, self.fields(*more, **said), flags=flags)

    def answered(self, stream=1):
        """What came of it, and whether the connection goes on."""
        found = None
        while found is None:
            frame = self.see()
            if frame is None:
                return "closed"
            if frame == "silence":
                return "silence"
            if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                self.wire.say(SettingsFrame(0, flags=["ACK"]))
            if isinstance(frame, GoAwayFrame):
                return f"GOAWAY {CODES[frame.error_code]}"
            if isinstance(frame, RstStreamFrame) and frame.stream_id == stream:
                found = f"RST_STREAM {CODES[frame.error_code]}"
            if isinstance(frame, HeadersFrame):
                status = self.wire.head(frame)[":status"]
                if frame.stream_id == stream:
                    found = f"status {status}"
        return f"{found}, {self.goes_on()}"

    def see(self):
        """The next frame, and what it ends."""
        frame = self.wire.frame()
        if frame is None or frame == "silence":
            self.end = self.end or "closed"
        elif isinstance(frame, RstStreamFrame):
            self.end = f"RST_STREAM {CODES[frame.error_code]}"
        elif isinstance(frame, (DataFrame, HeadersFrame)) and "END_STREAM" in frame.flags:
            self.end = "whole"
        return frame

    def body(self):
        """How the answer that began has ended."""
        while self.end is None:
            self.see()
        return self.end

    def goes_on(self):
        self.wire.say(PingFrame(0, b"still on"))
        while True:
            frame = self.see()
            if isinstance(frame, GoAwayFrame):
                return f"then GOAWAY {CODES[frame.error_code]}"
            if frame is None or frame == "silence":
                return "then closed"
            if isinstance(frame, PingFrame) and "ACK" in frame.flags:
                return "goes on"


def as_client(proxy, authority):
    here = Client(proxy, authority)
    made = here.request
    get = made(1)
    post = made(1, method="POST", end=False)
    whole = here.fields()
    half = HeadersFrame(1, whole[:10], flags=["END_STREAM"])
    long = made(1, method="POST", end=False)
    # What is broken; whether the preface is said first; what is sent.
    rows = [
        ("§3.4 no SETTINGS first", False, [PREFACE, get]),
        ("§3.4 a preface that goes on otherwise", False, [b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", SettingsFrame(0)]),
        ("§4.2 a frame above the size", True, [post, raw(DATA, 0, 1, bytes(16_385))]),
        ("§4.3 no header block", True, [raw(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\xff\xff\xff\xff\xff\xff")]),
        ("§4.3 a table above the size", True, [raw(HEADERS, END_HEADERS | END_STREAM, 1, b"\x3f\xe1\xff\x7f" + whole)]),
        ("§5.1 DATA on an idle stream", True, [DataFrame(1, b"x")]),
        ("§5.1 RST_STREAM on an idle stream", True, [RstStreamFrame(1, 8)]),
        ("§5.1 WINDOW_UPDATE on an idle stream", True, [WindowUpdateFrame(1, 1)]),
        ("§5.1 CONTINUATION on an idle stream", True, [ContinuationFrame(1, whole, flags=["END_HEADERS"])]),
        ("§5.1 DATA behind the end of a stream", True, [made(1, path="/never"), DataFrame(1, b"x")]),
        ("§5.1 HEADERS behind the end of a stream", True, [made(1, path="/never"), made(1)]),
        ("§5.1.1 an even stream", True, [made(2)]),
        ("§5.1.1 a stream below the last", True, [made(5, path="/never"), made(3)]),
        ("§5.1.2 more streams than are allowed", True, [made(2 * n + 1, path="/never") for n in range(101)]),
        ("§6.1 DATA on stream 0", True, [raw(DATA, 0, 0, b"x")]),
        ("§6.1 more padding than frame", True, [post, raw(DATA, PADDED, 1, b"\x05x")]),
        ("§6.2 HEADERS on stream 0", True, [raw(HEADERS, END_HEADERS, 0, whole)]),
        ("§6.2 more padding than frame", True, [raw(HEADERS, PADDED | END_HEADERS, 1, b"\xff" + whole[:5])]),
        ("§6.3 PRIORITY on stream 0", True, [raw(PRIORITY, 0, 0, bytes(5))]),
        ("§6.3 PRIORITY of 4 bytes", True, [post, raw(PRIORITY, 0, 1, bytes(4))]),
        ("§6.4 RST_STREAM on stream 0", True, [raw(RST, 0, 0, bytes(4))]),
        ("§6.4 RST_STREAM of 3 bytes", True, [post, raw(RST, 0, 1, bytes(3))]),
        ("§6.5 SETTINGS on a stream", True, [raw(SETTINGS, 0, 1)]),
        ("§6.5 an ACK that says something", True, [raw(SETTINGS, ACK, 0, bytes(6))]),
        ("§6.5 SETTINGS of 5 bytes", True, [raw(SETTINGS, 0, 0, bytes(5))]),
        ("§6.5.2 ENABLE_PUSH of 2", True, [setting(2, 2)]),
        ("§6.5.2 a window above the largest", True, [setting(4, 1 << 31)]),
        ("§6.5.2 frames below the smallest size", True, [setting(5, 100)]),
        ("§6.5.2 frames above the largest size", True, [setting(5, 1 << 24)]),
        ("§6.6 PUSH_PROMISE by a client", True, [post, PushPromiseFrame(1, 2, whole, flags=["END_HEADERS"])]),
        ("§6.7 PING on a stream", True, [raw(PING, 0, 1, bytes(8))]),
        ("§6.7 PING of 7 bytes", True, [raw(PING, 0, 0, bytes(7))]),
        ("§6.8 GOAWAY on a stream", True, [raw(GOAWAY, 0, 1, bytes(8))]),
        ("§6.9 WINDOW_UPDATE of 0", True, [raw(WINDOW, 0, 0, bytes(4))]),
        ("§6.9 WINDOW_UPDATE of 0 on a stream", True, [made(1, path="/never"), raw(WINDOW, 0, 1, bytes(4))]),
        ("§6.9 WINDOW_UPDATE of 3 bytes", True, [raw(WINDOW, 0, 0, bytes(3))]),
        ("§6.9.1 a window above the largest", True, [WindowUpdateFrame(0, (1 << 31) - 1)]),
        (
            "§6.9.1 the same of a stream",
            True,
            [made(1, path="/never"), WindowUpdateFrame(1, (1 << 31) - 1)],
        ),
        ("§6.9.1 more DATA than the window", True, [long] + [DataFrame(1, bytes(16_384))] * 2_100),
        ("§6.10 something between HEADERS and CONTINUATION", True, [half, PingFrame(0, bytes(8))]),
        ("§6.10 CONTINUATION of another stream", True, [half, ContinuationFrame(3, whole[10:], flags=["END_HEADERS"])]),
        ("§6.10 CONTINUATION without end", True, [half] + [ContinuationFrame(1, b"")] * 20_000),
        ("§8.1 trailers without the end", True, [post, HeadersFrame(1, block(("x", "1")), flags=["END_HEADERS"])]),
        ("§8.1.1 DATA above content-length", True, [made(1, ("content-length", "1"), method="POST", end=False), DataFrame(1, b"xy", flags=["END_STREAM"])]),
        ("§8.1.1 DATA below content-length", True, [made(1, ("content-length", "5"), method="POST", end=False), DataFrame(1, b"xy", flags=["END_STREAM"])]),
        ("§8.2.1 an upper-case name", True, [made(1, ("X-Upper", "1"))]),
        ("§8.2.1 NUL in a value", True, [made(1, ("x", "a\0b"))]),
        ("§8.2.1 a line end in a value", True, [made(1, ("x", "a\r\nb: c"))]),
        ("§8.2.1 a space in a name", True, [made(1, ("x y", "1"))]),
        ("§8.2.2 connection", True, [made(1, ("connection", "close"))]),
        ("§8.2.2 transfer-encoding", True, [made(1, ("transfer-encoding", "chunked"))]),
        ("§8.2.2 TE that is more than trailers", True, [made(1, ("te", "gzip"))]),
        ("§8.3 a pseudo-field behind a field", True, [HeadersFrame(1, block((":method", "GET"), ("x", "1"), (":scheme", "http"), (":path", "/x"), (":authority", here.authority)), flags=["END_HEADERS", "END_STREAM"])]),
        ("§8.3 an unknown pseudo-field", True, [made(1, (":unknown", "1"))]),
        ("§8.3 a pseudo-field of answers", True, [made(1, (":status", "200"))]),
        ("§8.3 a pseudo-field in trailers", True, [post, HeadersFrame(1, block((":path", "/y")), flags=["END_HEADERS", "END_STREAM"])]),
        ("§8.3.1 no :method", True, [made(1, leave=[":method"])]),
        ("§8.3.1 no :scheme", True, [made(1, leave=[":scheme"])]),
        ("§8.3.1 no :path", True, [made(1, leave=[":path"])]),
        ("§8.3.1 an empty :path", True, [made(1, path="")]),
        ("§8.3.1 two :path", True, [made(1, (":path", "/y"))]),
        ("§8.3.1 two :authority", True, [made(1, (":authority", "other.test"))]),
        ("§8.3.1 no authority at all", True, [made(1, leave=[":authority"])]),
        ("§8.3.1 a Host that differs", True, [made(1, ("host", "other.test"))]),
        ("§8.3.1 an authority with userinfo", True, [made(1, authority=f"me@{here.authority}")]),
        ("§8.5 CONNECT with a path", True, [made(1, method="CONNECT")]),
        ("§8.5 CONNECT to elsewhere", True, [made(1, method="CONNECT", authority="other.test:80", leave=[":path", ":scheme"])]),
    ]
    here.wire.sock.close()
    for name, greets, frames in rows:
        client = Client(proxy, authority)
        if greets:
            client.greet()
        client.wire.say(*frames)
        stream = 201 if "more streams" in name else 1
        print(f"{name}: {client.answered(stream)}")
        client.wire.sock.close()


class Server:
    """An origin that breaks the rule that the path of its first request names."""

    def __init__(self, rows):
        self.rows = rows
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.told = {}
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            sock, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=[sock], daemon=True).start()

    def serve(self, sock):
        wire = Wire(sock)
        while len(wire.came) < len(PREFACE):
            data = sock.recv(65_536)
            if not data:
                return
            wire.came += data
        wire.came = wire.came[len(PREFACE) :]
        wire.say(SettingsFrame(0))
        row = None
        while True:
            frame = wire.frame()
            if frame is None or frame == "silence":
                return self.tell(row, "closed")
            if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                wire.say(SettingsFrame(0, flags=["ACK"]))
            elif isinstance(frame, GoAwayFrame):
                self.tell(row, f"GOAWAY {CODES[frame.error_code]}")
            elif isinstance(frame, RstStreamFrame):
                self.tell(row, f"RST_STREAM {CODES[frame.error_code]}")
            elif isinstance(frame, HeadersFrame):
                path = wire.head(frame)[":path"]
                if path == "/fine":
                    wire.say(HeadersFrame(frame.stream_id, block((":status", "200"), ("content-length", "0")), flags=["END_HEADERS", "END_STREAM"]))
                else:
                    row = int(path[1:])
                    wire.say(*self.rows[row][1](frame.stream_id))

    def tell(self, row, what):
        if row is not None:
            self.told.setdefault(row, what)


def as_origin(proxy):
    plain = ("content-type", "application/octet-stream")

    def head(stream, *more, end=False, status="200"):
        flags = ["END_HEADERS"] + (["END_STREAM"] if end else [])
        return HeadersFrame(stream, block((":status", status), *more), flags=flags)

    rows = [
        ("§4.2 a frame above the size", lambda s: [head(s, plain), raw(DATA, 0, s, bytes(1 << 20))]),
        ("§4.3 no header block", lambda s: [raw(HEADERS, END_HEADERS, s, b"\xff\xff\xff\xff\xff\xff\xff")]),
        ("§5.1 DATA on an idle stream", lambda s: [DataFrame(s + 100, b"x")]),
        ("§5.1 DATA behind the end of a stream", lambda s: [head(s, plain), DataFrame(s, b"x", flags=["END_STREAM"]), DataFrame(s, b"y")]),
        ("§5.1.1 HEADERS on a stream of its own", lambda s: [head(2)]),
        ("§6.1 DATA on stream 0", lambda s: [raw(DATA, 0, 0, b"x")]),
        ("§6.1 more padding than frame", lambda s: [head(s, plain), raw(DATA, PADDED, s, b"\x05x")]),
        ("§6.1 DATA before HEADERS", lambda s: [DataFrame(s, b"x", flags=["END_STREAM"])]),
        ("§6.4 RST_STREAM on stream 0", lambda s: [raw(RST, 0, 0, bytes(4))]),
        ("§6.5 SETTINGS of 5 bytes", lambda s: [raw(SETTINGS, 0, 0, bytes(5))]),
        ("§6.5.2 a window above the largest", lambda s: [setting(4, 1 << 31)]),
        ("§6.5.2 ENABLE_PUSH of 1 by a server", lambda s: [setting(2, 1), head(s, end=True)]),
        ("§6.6 PUSH_PROMISE that was not asked for", lambda s: [PushPromiseFrame(s, 2, block((":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")), flags=["END_HEADERS"])]),
        ("§6.7 PING of 7 bytes", lambda s: [raw(PING, 0, 0, bytes(7))]),
        ("§6.9 WINDOW_UPDATE of 0", lambda s: [raw(WINDOW, 0, 0, bytes(4))]),
        ("§6.9.1 a window above the largest", lambda s: [WindowUpdateFrame(0, (1 << 31) - 1)]),
        ("§6.10 something between HEADERS and CONTINUATION", lambda s: [HeadersFrame(s, block((":status", "200"))), PingFrame(0, bytes(8))]),
        ("§8.1 trailers without the end", lambda s: [head(s, plain), DataFrame(s, b"x"), HeadersFrame(s, block(("x", "1")), flags=["END_HEADERS"])]),
        ("§8.1.1 DATA above content-length", lambda s: [head(s, plain, ("content-length", "1")), DataFrame(s, b"xy", flags=["END_STREAM"])]),
        ("§8.1.1 DATA below content-length", lambda s: [head(s, plain, ("content-length", "5")), DataFrame(s, b"xy", flags=["END_STREAM"])]),
        ("§8.2.1 an upper-case name", lambda s: [head(s, ("X-Upper", "1"), end=True)]),
        ("§8.2.1 a line end in a value", lambda s: [head(s, ("x", "a\r\nb: c"), end=True)]),
        ("§8.2.2 transfer-encoding", lambda s: [head(s, ("transfer-encoding", "chunked"), end=True)]),
        ("§8.3 a pseudo-field of requests", lambda s: [head(s, (":path", "/"), end=True)]),
        ("§8.3 a pseudo-field behind a field", lambda s: [HeadersFrame(s, block(("x", "1"), (":status", "200")), flags=["END_HEADERS", "END_STREAM"])]),
        ("§8.3.2 no :status", lambda s: [HeadersFrame(s, block(("x", "1")), flags=["END_HEADERS", "END_STREAM"])]),
        ("§8.3.2 a :status that is none", lambda s: [head(s, status="abc", end=True)]),
        ("§8.3.2 a :status of 101", lambda s: [head(s, status="101", end=True)]),
    ]
    # Of which the origin is told nothing.
    untold = {
        "§6.5.2 ENABLE_PUSH of 1 by a server",
        "§8.3 a pseudo-field of requests",
        "§8.3.2 no :status",
        "§8.3.2 a :status of 101",
    }
    server = Server(rows)
    authority = f"127.0.0.1:{server.listener.getsockname()[1]}"
    for number, (name, _) in enumerate(rows):
        client = Client(proxy, authority).greet()
        client.wire.say(client.request(1, path=f"/{number}"))
        found = client.answered()
        # The body of an answer that had begun ends as it must: never as if it were whole.
        ended = "" if not found.startswith("status 200") else f", body {client.body()}"
        for _ in range(20 if name in untold else 2_000):
            if number in server.told:
                break
            threading.Event().wait(0.01)
        print(f"{name}: {found}{ended}; origin {server.told.get(number, 'nothing')}")
        client.wire.sock.close()
    client = Client(proxy, authority).greet()
    client.wire.say(client.request(1, path="/fine"))
    print(f"fine: {client.answered()}")


if sys.argv[1] == "client":
    as_client(*sys.argv[2:])
else:
    as_origin(*sys.argv[2:])
