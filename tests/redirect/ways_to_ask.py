"""What programs of the pod send that know of no proxy: bodies, HTTP/2, gRPC, WebSockets.

A part of `redirect.py`, which starts it. Its servers of the world, and its clients, are of the Python of the tests:

    ways_to_ask.py serve CERTIFICATE KEY HOST
    ways_to_ask.py call grpc|grpcs|ws|h2 HOST BUNDLE PATH
"""

import os
import pathlib
import sys

PYTHON = os.environ.get("OPENBOX_TEST_PYTHON") or pathlib.Path(__file__).resolve().parents[2] / ".venv/bin/python"
GRPC, GRPCS, WS = 50051, 50052, 8765
JAVA = """
import java.net.URI;
import java.net.http.*;

class Ask {
    public static void main(String[] words) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(words[0])).POST(HttpRequest.BodyPublishers.ofString("said")).build();
        System.out.print(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body());
    }
}
"""


# What runs apart.


def serve(certificate, key, host):
    import asyncio
    from concurrent import futures

    import grpc
    from websockets.asyncio.server import serve as listen

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            print("grpc", details.method, flush=True)
            return grpc.unary_unary_rpc_method_handler(lambda request, _: b"heard " + request)

    pair = (open(key, "rb").read(), open(certificate, "rb").read())
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Handler()])
    server.add_insecure_port(f"{host}:{GRPC}")
    server.add_secure_port(f"{host}:{GRPCS}", grpc.ssl_server_credentials([pair]))
    server.start()

    async def talk(socket):
        print("ws", socket.request.path, flush=True)
        async for message in socket:
            await socket.send("heard " + message)

    async def forever():
        async with listen(talk, host, WS):
            print("ready", flush=True)
            await asyncio.get_running_loop().create_future()

    asyncio.run(forever())


def call_grpc(channel, path):
    import grpc

    try:
        return channel.unary_unary(path)(b"said", timeout=30, wait_for_ready=True).decode()
    except grpc.RpcError as error:
        return f"{error.code()} {error.details()}"


def call(kind, host, bundle, path):
    if kind == "ws":
        from websockets.exceptions import InvalidStatus
        from websockets.sync.client import connect

        try:
            with connect(f"ws://{host}:{WS}{path}", proxy=None, open_timeout=30) as socket:
                socket.send("said")
                return socket.recv(timeout=30)
        except InvalidStatus as error:
            return str(error.response.body)
    import grpc

    if kind == "grpc":
        return call_grpc(grpc.insecure_channel(f"{host}:{GRPC}"), path)
    trusted = grpc.ssl_channel_credentials(open(bundle, "rb").read())
    return call_grpc(grpc.secure_channel(f"{host}:{GRPCS}", trusted), path)


# What drives them.


def check(checks, world, within, sidecar, here):
    bodies(checks, world, sidecar, here)
    server = here.Apart(*within, PYTHON, __file__, "serve", sidecar.folder / "world.pem", sidecar.folder / "key.pem", here.WORLD[4])
    try:
        through = {"http_proxy": "http://127.0.0.1:15801"}
        for kind, came, more in (("grpc", "grpc", {}), ("grpcs", "grpc", {}), ("ws", "ws", {}), ("grpc", "grpc", through)):
            for path, arrives in (("/calls/one", True), ("/forbidden", False)):
                before = len(server.lines)
                asked = here.as_user(here.APP, PYTHON, __file__, "call", kind, here.WORLD[4], sidecar.bundle, path)
                done = here.run("timeout", "60", *asked, check=False, env={"PATH": os.environ["PATH"], **more})
                got, lines = done.stdout.strip(), server.lines[before:]
                if arrives:
                    checks.that(f"{kind} is served to who knows of {more or 'no proxy'}", got == "heard said" and lines == [f"{came} {path}"], (got, lines, done.stderr))
                else:
                    checks.that(f"policy holds for {kind}, {more}", "not that path" in got and lines == [], (got, lines, done.stderr))
    finally:
        server.end()


def bodies(checks, world, sidecar, here):
    """In the clear, and over TLS; `--http2` offers HTTP/2 beside the request, or in ALPN."""
    for scheme, port in (("http", 80), ("https", 443)):
        for version in ("--http1.1", "--http2"):
            before = len(world.lines)
            got = here.curl("--cacert", sidecar.bundle, version, "-d", "said", f"{scheme}://orders.test/list")
            came = world.lines[before:]
            checks.that(f"curl {version} posts by {scheme}", got == "orders" and came == [f"{here.WORLD[4]}/{port} orders.test /list said"], (got, came))
    source = sidecar.folder / "Ask.java"
    source.write_text(JAVA)
    before = len(world.lines)
    # Of no user's files: Java writes none for a program of one file.
    done = here.run("timeout", "120", *here.as_user(here.APP, "java", source, f"http://{here.WORLD[4]}/list"), check=False, env={"PATH": os.environ["PATH"]})
    came = world.lines[before:]
    checks.that("Java's HttpClient posts, which offers HTTP/2 in the clear", done.stdout == "orders" and came == [f"{here.WORLD[4]}/80 {here.WORLD[4]} /list said"], (done.stdout, done.stderr, came))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        print(call(*sys.argv[2:]))
