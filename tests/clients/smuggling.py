"""Requests that two readers may read differently, sent to real origins through the sidecar.

    smuggling.py PROXY PORT LOG

Each is sent on a connection of its own, with a request for /behind after it. LOG is where
the origin writes `METHOD PATH` for each request that it has read. Prints, for each: what
was answered to it, and what the origin has read.
"""

import re
import socket
import sys
import time

proxy, port, log = sys.argv[1:]
host, proxy_port = proxy.split(":")
origin = f"127.0.0.1:{port}"
# The last, so that nobody has to wait to see that nothing more comes.
REST = f"GET http://{origin}/behind HTTP/1.1\r\nHost: {origin}\r\nConnection: close\r\n\r\n"


def post(fields, body, path="/first", method="POST", version="HTTP/1.1"):
    return f"{method} http://{origin}{path} {version}\r\nHost: {origin}\r\n{fields}\r\n{body}"


SMUGGLED = f"GET http://{origin}/smuggled HTTP/1.1\r\nHost: {origin}\r\n\r\n"
LENGTH = len(SMUGGLED)
ROWS = {
    "CL.TE": post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nG"),
    "TE.CL": post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", f"{LENGTH:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
    "CL.CL": post(f"Content-Length: 0\r\nContent-Length: {LENGTH}\r\n", SMUGGLED),
    "CL in a list": post(f"Content-Length: 0, {LENGTH}\r\n", SMUGGLED),
    "CL twice the same": post("Content-Length: 2\r\nContent-Length: 2\r\n", "ab"),
    "CL with a sign": post(f"Content-Length: +{LENGTH}\r\n", SMUGGLED),
    "CL in hex": post("Content-Length: 0x5\r\n", SMUGGLED),
    "CL with a space in it": post("Content-Length: 1 0\r\n", SMUGGLED),
    "CL with an underscore": post("Content_Length: 5\r\nContent-Length: 0\r\n", SMUGGLED),
    "TE with a space before the colon": post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n" + SMUGGLED),
    "TE with a tab": post("Transfer-Encoding:\tchunked\r\n", "0\r\n\r\n"),
    "TE with a vertical tab": post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n" + SMUGGLED),
    "TE xchunked": post("Transfer-Encoding: xchunked\r\n", SMUGGLED),
    "TE chunked, identity": post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n" + SMUGGLED),
    "TE twice": post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n" + SMUGGLED),
    "TE in quotes": post('Transfer-Encoding: "chunked"\r\n', "0\r\n\r\n" + SMUGGLED),
    "TE folded": post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n" + SMUGGLED),
    "TE behind a bare CR": post("X: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n" + SMUGGLED),
    "TE behind a bare LF": post("X: y\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n" + SMUGGLED),
    "TE behind NUL": post("X: y\0\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    "TE of HTTP/1.0": post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n" + SMUGGLED, version="HTTP/1.0"),
    "TE nominated by Connection": post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", "2\r\nab\r\n0\r\n\r\n"),
    "CL nominated by Connection": post("Connection: Content-Length\r\nContent-Length: 2\r\n", "ab"),
    "a chunk size too large": post("Transfer-Encoding: chunked\r\n", "10000000000000005\r\nabcde\r\n0\r\n\r\n"),
    "a negative chunk size": post("Transfer-Encoding: chunked\r\n", "-5\r\nabcde\r\n0\r\n\r\n"),
    "a chunk size with 0x": post("Transfer-Encoding: chunked\r\n", "0x5\r\nabcde\r\n0\r\n\r\n"),
    "a chunk size with an underscore": post("Transfer-Encoding: chunked\r\n", "0_5\r\nabcde\r\n0\r\n\r\n"),
    "a chunk ended by LF": post("Transfer-Encoding: chunked\r\n", "5\nabcde\n0\n\n" + SMUGGLED),
    "a chunk longer than its size": post("Transfer-Encoding: chunked\r\n", "2\r\nabcde\r\n0\r\n\r\n" + SMUGGLED),
    "LF in a chunk extension": post("Transfer-Encoding: chunked\r\n", f"2;a\nxx\r\nab\r\n0\r\n\r\n{SMUGGLED}"),
    "a chunk extension": post("Transfer-Encoding: chunked\r\n", "2;a=b\r\nab\r\n0\r\n\r\n"),
    "CL among the trailers": post("Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 50\r\n\r\n" + SMUGGLED),
    "GET with a body": post(f"Content-Length: {LENGTH}\r\n", SMUGGLED, method="GET"),
    "lines that end in LF": post("", "").replace("\r\n", "\n"),
    "a space before the first field": f"GET http://{origin}/first HTTP/1.1\r\n Host: {origin}\r\n\r\n",
    "two hosts": post("Host: other.test\r\n", "", method="GET"),
    "an absolute form that is not its Host": f"GET http://{origin}/first HTTP/1.1\r\nHost: other.test\r\n\r\n",
    "userinfo in the authority": f"GET http://other.test@{origin}/first HTTP/1.1\r\nHost: {origin}\r\n\r\n",
    "a backslash in the path": post("", "", method="GET", path="/a\\..\\first"),
    "a space in the path": post("", "", method="GET", path="/first HTTP/1.1 /smuggled"),
    "a fragment": post("", "", method="GET", path="/first#frag"),
    "another version": post("", "", method="GET", version="HTTP/1.2"),
    "HTTP/2.0 on the line": post("", "", method="GET", version="HTTP/2.0"),
    "lower-case version": post("", "", method="GET", version="http/1.1"),
    "an empty name": post(": x\r\n", "", method="GET"),
    "a name with a space": post("X Y: z\r\n", "", method="GET"),
    "Upgrade with a body": post("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n", "ab"),
    "Expect with a body": post("Expect: 100-continue\r\nContent-Length: 2\r\n", "ab"),
    "an authority form in a tunnel": f"CONNECT {origin} HTTP/1.1\r\nHost: {origin}\r\n\r\nGET {origin} HTTP/1.1\r\nHost: {origin}\r\n\r\n",
    "two requests at once": post("Content-Length: 2\r\n", "ab"),
}


def heard():
    with open(log) as file:
        return file.read().splitlines()


def statuses(sock):
    """The statuses of all that comes until the connection ends."""
    sock.settimeout(20)
    came = b""
    try:
        while data := sock.recv(65_536):
            came += data
    except (ConnectionError, TimeoutError):
        pass
    return re.findall(r"HTTP/1\.1 (\d{3}) ", came.decode("latin1"))


for name, request in ROWS.items():
    before = len(heard())
    sock = socket.create_connection((host, int(proxy_port)))
    sock.sendall(request.encode("latin1") + REST.encode())
    answers = statuses(sock)
    sock.close()
    # nginx writes its line when the answer has gone out. What must not come has a moment, too.
    served = answers.count("200") - request.startswith("CONNECT")
    until = time.monotonic() + 20
    while len(heard()) - before < served and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    # nginx writes a backslash down as that.
    read = [line.replace("\\x5C", "\\") for line in heard()[before:]]
    print(f"{name}: {' '.join(answers)} | {', '.join(read)}", flush=True)
