"""What clients are told by the servers of their own tests, directly and through the sidecar.

    own_servers.py serve urllib3|aiohttp FOLDER [CERTIFICATE KEY]     says its port
    own_servers.py compare urllib3|aiohttp PROXY SIDECAR_CA CA PLAIN_PORT SECURE_PORT

urllib3's is `dummyserver` of its source package, in FOLDER; aiohttp's is its `TestServer` before handlers that do as those of
its tests do. Compared are status, fields and body, or the class of the exception. What is meant to differ is named in the row,
with what is told instead; anything else is printed.
"""

import asyncio
import gzip
import ssl
import sys
import zlib

from as_direct import Way, comparable, differences, said

FORM = {"content-type": "application/x-www-form-urlencoded"}
BINARY = {"content-type": "application/octet-stream"}

# What is meant to differ, and what is told instead.
# An origin that ends its connection without an answer, or with none that can be read: whoever asked is told so, and by whom.
BAD_GATEWAY = {"instead": ("status", 502)}
# A body that policy sees is asked for by the sidecar, and the origin hears nothing of the expectation.
ASKED_FOR_HERE = {"instead": ("status", 200)}
# aiohttp's server ends an answer to HEAD with a last chunk, over which its client stumbles if it comes in time; chunks are of
# one hop, and there are none.
NO_CHUNKS = {"instead": ("status", 200), "chance": True}
# Of 204 it must not be sent (RFC 9110 section 8.6), of 304 it need not be; what this server says is 0 for both.
NO_LENGTH = {"instead": ("fields", [("content-type", "text/html; charset=utf-8"), ("server", "hypercorn-h11")])}
# Through a proxy in the clear urllib3 itself joins fields of one name, and says others in another order.
JOINED_BY_THE_CLIENT = {"secure": True}


def failed(error):
    return said(type(error).__name__, [], str(type(getattr(error, "reason", None)).__name__))


# --- urllib3 ---


def serve_urllib3(folder, *pair):
    sys.path.insert(0, folder)
    import functools

    import hypercorn.trio
    import trio
    from dummyserver.app import hypercorn_app
    from dummyserver.hypercornserver import Config

    config = Config()
    config.bind = ["127.0.0.1:0"]
    # Both ways have connections that rest while others are asked.
    config.keep_alive_timeout = 75
    if pair:
        config.certfile, config.keyfile = pair
        config.alpn_protocols = ["http/1.1"]

    async def main():
        async with trio.open_nursery() as nursery:
            (address,) = await nursery.start(functools.partial(hypercorn.trio.serve, hypercorn_app, config, shutdown_trigger=trio.sleep_forever))
            print(address.rsplit(":", 1)[1], flush=True)

    trio.run(main)


URLLIB3 = [
    ("GET", "/", {}),
    ("HEAD", "/", {}),
    ("GET", "/nowhere", {}),
    ("DELETE", "/echo", {}),
    *((method, f"/specific_method?method={method}", {"body": b""}) for method in ("GET", "POST", "PUT")),
    ("POST", "/specific_method", {"form": {"method": "POST"}}),
    ("POST", "/specific_method?method=PUT", {"body": b""}),
    ("POST", "/upload", {"form": {"upload_param": "filefield", "upload_filename": "lolcat.txt", "upload_size": "11", "filefield": ("lolcat.txt", "I'm in ur m")}}),
    ("POST", "/upload", {"form": {"upload_param": "filefield", "upload_filename": "b.bin", "upload_size": "200000", "filefield": ("b.bin", bytes(200_000), "application/octet-stream")}}),
    ("POST", "/upload", {"form": {"upload_param": "f", "upload_filename": "grüße.txt", "upload_size": "1", "f": ("grüße.txt", "x")}}),
    ("GET", "/chunked", {}),
    ("GET", "/chunked", {"pieces_of": 2}),
    ("GET", "/chunked_gzip", {}),

    ("GET", "/chunked_gzip", {"pieces_of": 5}),
    ("GET", "/chunked_gzip", {"decode": False}),
    ("HEAD", "/chunked", {}),
    ("GET", "/keepalive?close=0", {}),
    ("GET", "/keepalive?close=1", {}),
    ("GET", "/echo?a=b&a=c&%C3%A9", {}),
    ("POST", "/echo", {"body": b"x" * 500_000}),
    ("PUT", "/echo", {"body": b"\0\xff" * 1_000, "fields": BINARY}),
    ("POST", "/echo", {"body": "grüße"}),
    ("POST", "/echo", {"chunks": [b"one", b"", b"two", b"x" * 70_000]}),
    ("PUT", "/echo", {"chunks": [b"\0\xff" * 40_000] * 3, "fields": BINARY}),
    ("POST", "/echo", {"chunks": []}),
    ("POST", "/echo_json", {"body": b'{"a": 1}', "fields": {"content-type": "application/json", "x-odd": "a,  b"}}),
    *(
        ("GET", f"/echo_uri{rest}", {})
        for rest in ("", "/", "/a%20b?x=%C3%A9", "/seg/ments", "//a//b", "/a?b?c", "/a;b=1,2", "/!$&'()*+,;=:@?!$'()*,;=:@/?", "/%2f%2F?%2f", "/x?", "/%00", "/a#fragment")
    ),
    ("GET", "/echo_params?q=%0D%0A&r=%2B+&s", {}),
    ("GET", "/headers", {"fields": {"x-a": "1", "X-Empty": "", "X-Long": "y" * 5_000}}),
    ("POST", "/headers", {"fields": FORM, "body": b"a=1"}),
    ("GET", "/headers_and_params?a=1&a=2", {}),
    ("GET", "/multi_headers", {"fields": [("x-multi", "one"), ("x-multi", "two"), ("x-other", "é")], **JOINED_BY_THE_CLIENT}),
    ("GET", "/headers", {"fields": {"user-agent": None}}),
    ("GET", "/multi_redirect?redirect_codes=303,302,307,308,200", {}),
    ("GET", "/multi_redirect?redirect_codes=303,302,200", {"redirects": 1}),
    *(("GET", "/encodingrequest", {"fields": {"accept-encoding": coding}}) for coding in ("gzip", "deflate", "garbage-gzip", "garbage-deflate", "identity")),
    ("GET", "/redirect?target=/echo?a=b", {}),
    ("GET", "/redirect?target=/echo?a=b", {"redirects": False}),
    ("GET", "/redirect?target=/&compressed=true", {}),
    ("POST", "/redirect?target=/echo&status=303", {"body": b"a=1", "fields": FORM}),
    ("POST", "/redirect?target=/echo&status=307", {"body": b"a=1"}),
    ("PUT", "/redirect?target=/echo&status=308", {"body": b"a=1"}),
    ("GET", "/redirect?target=/redirect", {}),
    *(("GET", f"/status?status={status}", NO_LENGTH) for status in ("204", "304")),
    *(("GET", f"/status?status={status}", {}) for status in ("200", "201", "400", "403", "404", "418", "429", "500", "502", "503", "504", "599")),
    ("GET", "/source_address", {}),
    ("GET", "/successful_retry", {"retried": 418}),
    ("PUT", "/successful_retry", {"retried": 418, "body": b"x"}),
    ("GET", "/successful_retry", {}),
]


def ask_urllib3(way):
    import urllib3

    more = {"ca_certs": way.ca, "cert_reqs": "CERT_REQUIRED", "timeout": 30}
    pool = urllib3.ProxyManager(way.proxy, **more) if way.proxy else urllib3.PoolManager(**more)
    with pool:
        for number, (method, path, row) in enumerate(URLLIB3):
            # It says `Accept` by itself through a proxy alone.
            fields = {"Accept": "*/*"}
            if "successful_retry" in path:
                fields["test-name"] = f"{way.proxy} {way.url} {number}"
            given = row.get("fields", {})
            if isinstance(given, dict):
                fields |= {name: urllib3.util.SKIP_HEADER if value is None else value for name, value in given.items()}
            else:
                fields = urllib3.HTTPHeaderDict([*fields.items(), *given])
            redirects = row.get("redirects", 5)
            retries = urllib3.Retry(5, redirect=redirects, status_forcelist=[row["retried"]] if "retried" in row else (), allowed_methods=None)
            options = {"fields": row["form"]} if "form" in row else {"body": iter(row["chunks"]) if "chunks" in row else row.get("body")}
            if "form" in row:
                # Otherwise one is made up for each request.
                options["multipart_boundary"] = "b0undary"
            try:
                answer = pool.request(method, way.url + path, headers=fields, retries=retries, redirect=redirects is not False, preload_content=False, **options)
                if "pieces_of" in row:
                    body = b"".join(answer.stream(row["pieces_of"], decode_content=True))
                else:
                    body = answer.read(decode_content=row.get("decode", True))
                before = [(one.method, one.status) for one in answer.retries.history]
                yield said(answer.status, answer.headers.items(), body, before)
                answer.release_conn()
            except Exception as error:
                yield failed(error)


# --- aiohttp ---


def serve_aiohttp(_, *pair):
    from aiohttp import web
    from aiohttp.test_utils import TestServer

    async def text(request):
        return web.Response(text=f"hello from {request.path}", headers={"x-method": request.method})

    async def echo(request):
        body = await request.read()
        told = {n.lower(): v for n, v in request.headers.items() if n.lower() not in ("host", "connection", "expect")}
        return web.json_response({"method": request.method, "path": request.path_qs, "headers": told, "body": body.decode("latin-1")})

    async def form(request):
        parts = await request.post()
        shown = [(name, [v.filename, v.content_type, v.file.read().decode("latin-1")] if hasattr(v, "file") else v) for name, v in parts.items()]
        return web.json_response(shown)

    async def streamed(request):
        answer = web.StreamResponse(headers={"content-type": request.query.get("type", "application/octet-stream")})
        if coding := request.query.get("coding"):
            answer.enable_compression(web.ContentCoding(coding))
        if request.query.get("chunked"):
            answer.enable_chunked_encoding()
        await answer.prepare(request)
        for number in range(int(request.query.get("pieces", 5))):
            await answer.write(f"piece {number} ".encode() * 200)
            await asyncio.sleep(0)
        await answer.write_eof()
        return answer

    async def coded(request):
        kind = request.match_info["kind"]
        bodies = {"gzip": gzip.compress(b"coded" * 99, mtime=0), "deflate": zlib.compress(b"coded" * 99), "garbage": b"garbage", "cut": gzip.compress(bytes(range(256)) * 9, mtime=0)[:-20]}
        name = kind if kind in ("gzip", "deflate") else "gzip"
        return web.Response(body=bodies[kind], headers={"content-encoding": name, "content-type": "text/plain"})

    async def raw(request):
        """Says bytes, and ends the connection: in good order or not."""
        head = {
            "mute": b"",
            "half-head": b"HTTP/1.1 200 OK\r\ncontent-",
            "half-body": b"HTTP/1.1 200 OK\r\ncontent-type: application/x\r\ncontent-length: 100000\r\n\r\nhalf",
            "half-chunk": b"HTTP/1.1 200 OK\r\ncontent-type: application/x\r\ntransfer-encoding: chunked\r\n\r\n10\r\nhalf",
            "no-last-chunk": b"HTTP/1.1 200 OK\r\ncontent-type: application/x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "to-the-end": b"HTTP/1.1 200 OK\r\ncontent-type: application/x\r\n\r\nall of it",
            "http10": b"HTTP/1.0 200 OK\r\ncontent-type: application/x\r\ncontent-length: 3\r\n\r\nold",
            "no-reason": b"HTTP/1.1 200 \r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
            "odd-status": b"HTTP/1.1 299 Odd Enough\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
            "garbage": b"this is not HTTP\r\n\r\n",
            "two-lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok!",
            "informed": b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        }[request.match_info["kind"]]
        request.transport.write(head)
        request.transport.close()
        return web.Response()

    async def expected(request):
        """As the handlers of its tests: one goes on, one says no."""
        if request.path.endswith("/expect/no"):
            raise web.HTTPExpectationFailed(text="not so")
        if request.path.endswith("/expect/forbidden"):
            raise web.HTTPForbidden(text="not you")
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0

    async def early(request):
        """Answers before it has read the body."""
        return web.Response(status=413, text="too much")

    async def redirect(request):
        left = int(request.match_info["left"])
        raise web.HTTPFound(f"/redirect/{left - 1}" if left else "/echo")

    async def cookies(request):
        answer = web.json_response(dict(request.cookies))
        answer.set_cookie("a", "1")
        answer.set_cookie("b", "two words", path="/", httponly=True, samesite="Lax")
        answer.headers.add("x-twice", "1")
        answer.headers.add("x-twice", "2")
        return answer

    async def status(request):
        return web.Response(status=int(request.match_info["status"]), headers={"etag": '"x"', "x-odd": "é ü"})

    async def closed(request):
        answer = web.Response(text="the last")
        answer.force_close()
        return answer

    async def socket(request):
        socket = web.WebSocketResponse(protocols=("b", "a"), compress=request.query.get("compress") != "no", max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.data == "close":
                await socket.close(code=4001, message=b"as asked")
            elif message.data == "abort":
                request.transport.abort()
            elif message.type.name == "TEXT":
                await socket.send_str(message.data + "!")
            else:
                await socket.send_bytes(message.data[::-1])
        return socket

    app = web.Application(client_max_size=1 << 24)
    app.add_routes(
        [
            web.get("/text/{rest:.*}", text),
            web.route("*", "/echo", echo),
            web.route("*", "/anything/{rest:.*}", echo),
            web.post("/form", form),
            web.get("/streamed", streamed),
            web.get("/coded/{kind}", coded),
            web.get("/raw/{kind}", raw),
            web.post("/early", early),
            web.get("/redirect/{left}", redirect),
            web.get("/cookies", cookies),
            web.get("/status/{status}", status),
            web.get("/closed", closed),
            web.get("/ws", socket),
            *(web.post(f"{seen}/expect/{kind}", echo, expect_handler=expected) for seen in ("", "/unseen") for kind in ("yes", "no", "forbidden")),
            web.post("/expect/by-itself", echo),
        ]
    )

    async def main():
        context = None
        if pair:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*pair)
        server = TestServer(app, scheme="https" if pair else "http", host="127.0.0.1", port=0)
        await server.start_server(ssl=context, keepalive_timeout=75)
        print(server.port, flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())


AIOHTTP = [
    ("GET", "/text/x", {}),
    ("HEAD", "/text/x", {}),
    ("GET", "/text/nowhere/é?a=b", {}),
    ("GET", "/nowhere", {}),
    ("POST", "/text/x", {}),
    *((method, "/echo?a=b%20c&d", {}) for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")),
    ("GET", "/anything/%7Ea/%2Fb/a%20b//c?x=%2B&&y#z", {}),
    ("POST", "/echo", {"data": b"x" * 300_000}),
    ("POST", "/echo", {"data": b"\0\xff", "fields": BINARY}),
    ("POST", "/echo", {"chunks": [b"one", b"two", b"x" * 70_000]}),
    ("POST", "/echo", {"chunks": []}),
    ("POST", "/echo", {"data": b"compressed" * 99, "compress": "deflate"}),
    ("POST", "/echo", {"data": b"compressed" * 99, "compress": "gzip"}),
    ("POST", "/echo", {"json": {"a": [1, None, "é"]}}),
    ("POST", "/form", {"form": [("a", "1"), ("a", "é")]}),
    ("POST", "/form", {"form": [("a", "1"), ("f", b"\0\xff" * 999)]}),
    *(("GET", f"/streamed?{query}", {}) for query in ("", "chunked=1", "coding=gzip", "coding=deflate", "coding=gzip&chunked=1", "pieces=0", "pieces=500", "type=text/plain", "type=text/event-stream&chunked=1", "type=text/plain&coding=gzip")),
    ("HEAD", "/streamed?chunked=1", NO_CHUNKS),
    ("HEAD", "/streamed", NO_CHUNKS),
    *(("GET", f"/coded/{kind}", {}) for kind in ("gzip", "deflate", "garbage", "cut")),
    *(("GET", f"/raw/{kind}", BAD_GATEWAY) for kind in ("mute", "half-head", "garbage", "two-lengths")),
    *(("GET", f"/raw/{kind}", {}) for kind in ("half-body", "half-chunk", "no-last-chunk", "to-the-end", "http10", "no-reason", "odd-status", "informed")),
    *(("POST", f"/expect/{kind}", {"data": b"x" * 1_000, "expect": True}) for kind in ("yes", "by-itself")),
    *(("POST", f"/expect/{kind}", {"data": b"x" * 1_000, "expect": True, **ASKED_FOR_HERE}) for kind in ("no", "forbidden")),
    *(("POST", f"/unseen/expect/{kind}", {"data": b"x" * 1_000, "expect": True}) for kind in ("yes", "no", "forbidden")),
    ("POST", "/expect/yes", {"chunks": [b"one", b"two"], "expect": True}),
    ("POST", "/early", {"data": b"x" * 1_000}),
    ("GET", "/redirect/3", {}),
    ("GET", "/redirect/3", {"stay": True}),
    ("GET", "/redirect/30", {}),
    ("GET", "/cookies", {}),
    ("GET", "/cookies", {}),
    *(("GET", f"/status/{status}", {}) for status in (200, 204, 206, 304, 400, 401, 404, 412, 500, 503)),
    ("GET", "/closed", {}),
    ("GET", "/text/after", {}),
]

# Of each: options of the client, and what is said.
SOCKETS = [
    ("/ws", {}, ["hello", "é" * 1_000, b"\0\1\2", "", "x" * 300_000, bytes(range(256)) * 2_000, "close"]),
    ("/ws", {"compress": 15}, ["hello", "hello", "é" * 1_000, b"\0\1\2", "x" * 300_000, "close"]),
    ("/ws", {"compress": 10}, ["hello", "x" * 30_000, "close"]),
    ("/ws?compress=no", {"compress": 15}, ["hello", "close"]),
    ("/ws", {"protocols": ("a", "c")}, ["hello", "close"]),
    ("/ws", {"protocols": ("a", "b"), "compress": 15}, ["hello", None]),
    ("/ws", {}, ["abort"]),
    ("/text/x", {}, []),
    ("/nowhere", {}, []),
]


async def chunks_of(chunks):
    for chunk in chunks:
        yield chunk


async def spoken(session, way, path, options, words):
    told = []
    try:
        async with session.ws_connect(way.url + path, proxy=way.proxy, ssl=way.tls, max_msg_size=0, **options) as socket:
            told += [socket.protocol, socket.compress]
            for word in words:
                if word is None:
                    told.append(await socket.close(code=4002, message=b"mine"))
                    break
                await (socket.send_str(word) if isinstance(word, str) else socket.send_bytes(word))
                heard = await asyncio.wait_for(socket.receive(), 30)
                told.append((heard.type.name, heard.data, heard.extra))
            told.append(socket.close_code)
        return said(101, [], repr(told))
    except Exception as error:
        return said(getattr(error, "status", None), [], type(error).__name__)


async def ask_all_of_aiohttp(way):
    import aiohttp

    found = []
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), timeout=aiohttp.ClientTimeout(30)) as session:
        for method, path, row in AIOHTTP:
            options = {"headers": row.get("fields"), "allow_redirects": not row.get("stay"), "expect100": row.get("expect", False), "compress": row.get("compress")}
            if "form" in row:
                form = aiohttp.FormData()
                for name, value in row["form"]:
                    form.add_field(name, value, filename="f.bin") if isinstance(value, bytes) else form.add_field(name, value)
                options["data"] = form
            elif "chunks" in row:
                options["data"] = chunks_of(row["chunks"])
            elif "json" in row:
                options["json"] = row["json"]
            else:
                options["data"] = row.get("data")
            try:
                async with session.request(method, way.url + path, proxy=way.proxy, ssl=way.tls, **options) as answer:
                    body = await answer.read()
                    found.append(said(answer.status, answer.headers.items(), body, [old.status for old in answer.history] + [answer.reason]))
            except Exception as error:
                found.append(failed(error))
        for path, options, words in SOCKETS:
            found.append(await spoken(session, way, path, options, words))
    return found


# --- Both ---

OF = {
    "urllib3": (serve_urllib3, URLLIB3, ask_urllib3),
    "aiohttp": (serve_aiohttp, AIOHTTP + [("WS", path, {}) for path, _, _ in SOCKETS], lambda way: asyncio.run(ask_all_of_aiohttp(way))),
}


def compare(which, proxy, sidecar_ca, ca, plain, secure):
    _, rows, ask = OF[which]
    asked = intended = differ = 0
    for url in [f"http://localhost:{plain}", f"https://localhost:{secure}"]:
        one, other = list(ask(Way(url, None, ca))), list(ask(Way(url, f"http://{proxy}", sidecar_ca)))
        assert len(one) == len(other) == len(rows)
        for (method, path, row), direct, through in zip(rows, one, other):
            if row.get("secure") and url.startswith("http:"):
                continue
            asked += 1
            found = list(differences(direct, through))
            if "instead" in row:
                what, instead = row["instead"]
                if comparable(through)[what] == instead and (found or "chance" in row):
                    intended += 1
                    continue
                found.append((what, instead, through[what]))
            for what, was, now in found:
                differ += 1
                print(url.split(":")[0], method, path, what, str(was)[:500], "->", str(now)[:500])
    print(f"{asked} answers, {intended} differ as intended, {differ} differences")


if __name__ == "__main__":
    verb, which, *rest = sys.argv[1:]
    OF[which][0](*rest) if verb == "serve" else compare(which, *rest)
