"""WebSocket with Python's `websockets`: a server that says back what it hears, and
the checks of a client.

    websocket.py serve PORT_FILE [CERTIFICATE KEY]
    websocket.py check opaque|judged|redacted URL

The client knows nothing of the sidecar: proxy and authorities come from the
environment. The server writes a line for each connection's end: its close code and
reason, and how many messages came.
"""

import asyncio
import os
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

MIB = 1 << 20
CODES = [1000, 1001, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]


async def talk(socket):
    heard = 0
    try:
        async for message in socket:
            heard += 1
            if isinstance(message, str) and message.startswith("close "):
                _, code, reason = message.split(" ", 2)
                await socket.close(int(code), reason)
            elif isinstance(message, str) and message.startswith("pieces "):
                word = message.removeprefix("pieces ")
                await socket.send(list(word))
            elif message == "ping me":
                await (await socket.ping(b"are you there"))
                await socket.send("you are")
            else:
                await socket.send(message)
    except ConnectionClosed:
        pass
    extensions = ",".join(extension.name for extension in socket.protocol.extensions)
    print("closed", socket.close_code, socket.close_reason or "-", "heard", heard, "with", extensions or "-", "as", socket.request.headers.get("Authorization", "-"), flush=True)


async def server(port_file, certificate=None, key=None):
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
    async with serve(talk, "127.0.0.1", 0, ssl=context, max_size=4 * MIB) as listening:
        port = listening.sockets[0].getsockname()[1]
        with open(port_file + ".new", "w") as file:
            file.write(str(port))
        os.rename(port_file + ".new", port_file)
        await asyncio.get_running_loop().create_future()


def equal(what, found, expected):
    if found != expected:
        sys.exit(f"{what}: found {str(found)[:300]!r}, expected {str(expected)[:300]!r}")


def opened(url):
    return connect(url, max_size=4 * MIB, open_timeout=20, close_timeout=10)


async def echoed(socket, what, message):
    await socket.send(message)
    equal(what, await asyncio.wait_for(socket.recv(), 20), message)


async def ended(socket):
    """How the server, or the sidecar, closed it."""
    try:
        while True:
            await asyncio.wait_for(socket.recv(), 20)
    except ConnectionClosed:
        return socket.close_code, socket.close_reason


async def messages(socket):
    await echoed(socket, "text", "hello")
    await echoed(socket, "binary", bytes(range(256)))
    await echoed(socket, "nothing", "")
    await echoed(socket, "text of 1 MiB", "tätig" * (MIB // 6))
    await echoed(socket, "1 MiB", os.urandom(MIB))
    await echoed(socket, "64 KiB", "x" * 65_536)
    await echoed(socket, "64 KiB and one", "x" * 65_537)

    async def pieces():
        for piece in ["a", "", "b" * 70_000, "c"]:
            yield piece
            # Pings and pongs between the frames of a message.
            await (await socket.ping())
            await socket.pong(b"unasked")

    await socket.send(pieces())
    equal("pieces", await socket.recv(), "a" + "b" * 70_000 + "c")
    await socket.send("pieces of eight")
    equal("the server's pieces", await socket.recv(), "of eight")
    await socket.send("ping me")
    equal("a ping of the server", await socket.recv(), "you are")
    for count in range(100):
        await socket.send(f"number {count}")
    for count in range(100):
        equal("in order", await socket.recv(), f"number {count}")


async def closes(url):
    for code in CODES:
        async with opened(url) as socket:
            await socket.send("hello")
            await socket.recv()
            await socket.close(code, f"client says {code}")
            equal("our close", socket.close_code, code)
        async with opened(url) as socket:
            await socket.send(f"close {code} server says {code}")
            equal("the server's close", await ended(socket), (code, f"server says {code}"))


async def refusals(url):
    async with opened(url) as socket:
        await echoed(socket, "before", "hello")
        await socket.send("please-block this")
        code, reason = await ended(socket)
        equal("a blocked message", (code, reason.split(" ")[0]), (1008, "blocked"))
    async with opened(url) as socket:
        await socket.send("pieces secret-answer")
        code, reason = await ended(socket)
        equal("a blocked answer", (code, reason.split(" ")[0]), (1008, "outcome_blocked"))
    async with opened(url) as socket:
        await socket.send(["please", "-blo", "ck", " in pieces"])
        code, reason = await ended(socket)
        equal("a blocked message in pieces", (code, reason.split(" ")[0]), (1008, "blocked"))
    async with opened(url) as socket:
        await socket.send(b"please-block in bytes is not read")
        equal("bytes", await socket.recv(), b"please-block in bytes is not read")


async def said(socket, what, message, expected):
    await socket.send(message)
    equal(what, await asyncio.wait_for(socket.recv(), 20), expected)


async def redactions(url):
    """Mail addresses are not to be said, and numbers of cards not to be heard."""
    mail, card = "ann@example.com", "4111 1111 1111 1111"
    masked = "<EMAIL_ADDRESS>"
    async with opened(url) as socket:
        await said(socket, "nothing to mask", "hello", "hello")
        await said(socket, "a mail", f"to {mail}", f"to {masked}")
        await said(socket, "what the server says", card, "<CREDIT_CARD>")
        await said(socket, "its pieces", f"pieces {card}", "<CREDIT_CARD>")
        await said(socket, "JSON", '{"to": "ann\\u0040example.com", "n":1.50}', '{"to": "%s", "n":1.50}' % masked)
        await said(socket, "pieces", ["to ann@exa", "mple.com", "!"], f"to {masked}!")
        for length in [110, 111, 125, 126, 65_000]:
            filled = "ä" * (length // 2) + " "
            await said(socket, f"a text of {length}", filled + mail, filled + masked)
        for count in range(50):
            await socket.send(f"{count} {mail}")
        for count in range(50):
            equal("in order", await socket.recv(), f"{count} {masked}")
        await (await socket.ping(b"still there"))
        await socket.send("x" * 66_000 + mail)
        code, reason = await ended(socket)
        equal("over the cap", (code, reason.split(" ")[0]), (1008, "not_judgeable"))
    async with opened(url) as socket:
        await socket.send(mail.encode())
        code, reason = await ended(socket)
        equal("bytes", (code, reason.split(" ")[0]), (1008, "not_judgeable"))


async def check(how, url):
    if how == "redacted":
        await redactions(url)
        print("all checks passed")
        return
    async with opened(url) as socket:
        names = [extension.name for extension in socket.protocol.extensions]
        equal("extensions", names, ["permessage-deflate"] if how == "opaque" else [])
        await messages(socket)
    await closes(url)
    if how == "judged":
        await refusals(url)
    print("all checks passed")


if sys.argv[1] == "serve":
    asyncio.run(server(*sys.argv[2:]))
else:
    asyncio.run(check(*sys.argv[2:]))
