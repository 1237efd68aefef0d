"""gRPC through the sidecar, with messages of plain bytes.

grpc_calls.py serve CERTIFICATE KEY     serves, and prints its port
grpc_calls.py call AUTHORITY CA CASE    runs a case; `http_proxy` names the sidecar
"""

import sys
import threading
import time
from concurrent import futures

import grpc


gone_on = threading.Event()


def one(request, context):
    context.set_trailing_metadata((("said-last", "yes"),))
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked: 100 %")
    if request == b"slow":
        time.sleep(30)
    if request == b"go on":
        gone_on.set()
    if request.startswith(b"say it"):
        if request.endswith(b"zipped"):
            context.set_compression(grpc.Compression.Gzip)
        return b"what is forbidden, " * 9
    return b"heard " + request[:20]


def up(requests, context):
    return b"%d in %d" % (sum(map(len, requests_kept := list(requests))), len(requests_kept))


def down(request, context):
    for number in range(int(request)):
        yield b"%d" % number * 1000


def both(requests, context):
    for request in requests:
        yield b"heard " + request


def greet(requests, context):
    """Speaks first."""
    yield b"welcome"
    for request in requests:
        yield b"heard " + request


def later(request, context):
    yield b"first"
    gone_on.wait(60)
    yield b"last"


class Handler(grpc.GenericRpcHandler):
    """Any service: the policy decides by its name. The method says the kind of call, where it is one."""

    def service(self, details):
        kinds = {
            "/calls/up": grpc.stream_unary_rpc_method_handler(up),
            "/calls/down": grpc.unary_stream_rpc_method_handler(down),
            "/calls/both": grpc.stream_stream_rpc_method_handler(both),
            "/calls/later": grpc.unary_stream_rpc_method_handler(later),
            "/calls/greet": grpc.stream_stream_rpc_method_handler(greet),
        }
        print(details.method, flush=True)
        print(*(f"as {value}" for name, value in details.invocation_metadata if name == "authorization"), flush=True)
        return kinds.get(details.method, grpc.unary_unary_rpc_method_handler(one))


def serve(certificate, key):
    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[Handler()])
    pair = (open(key, "rb").read(), open(certificate, "rb").read())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


def told(call):
    try:
        return call()
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"


def allowed(channel):
    for word in [b"hello", b"fail", b"x" * (1 << 20)]:
        print(told(lambda: channel.unary_unary("/calls/one")(word)))
    answer, call = channel.unary_unary("/calls/one").with_call(b"a")
    print(answer, dict(call.trailing_metadata()).get("said-last"))
    print(channel.stream_unary("/calls/up")(iter([b"x" * 10_000] * 300)))
    print(sum(len(message) for message in channel.unary_stream("/calls/down")(b"300")))
    print(told(lambda: channel.unary_unary("/calls/one")(b"slow", timeout=5)).split(":")[0])


def in_turns(channel):
    """Each message is answered before the next one is said."""
    answered = threading.Semaphore(0)

    def say():
        for number in range(20):
            yield b"%d" % number
            assert answered.acquire(timeout=30)

    heard = []
    for message in channel.stream_stream("/calls/both")(say()):
        heard.append(message.decode())
        answered.release()
    print(len(heard), heard[-1])


def refused(channel):
    print(told(lambda: channel.unary_unary("/started/block")(b"hello")))
    print(told(lambda: list(channel.unary_stream("/started/block")(b"hello"))))
    # The connection is as good as before.
    print(channel.unary_unary("/calls/one")(b"hello"))


def first_of_a_stream(channel):
    """The first message of an answer goes on before there is a second."""
    for message in channel.unary_stream("/calls/later")(b"hello"):
        print(message)
        if message == b"first":
            # It has come, and the second is not made before that is known.
            channel.unary_unary("/calls/one")(b"go on")


def whole_streams(channel):
    """Answers of many messages, of which policy must see all."""
    print(told(lambda: list(channel.unary_stream("/calls/down")(b"300"))).split(":")[0])
    print(len(list(channel.unary_stream("/calls/down")(b"20"))))


CODINGS = [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate]


def by_request(channel):
    call = channel.unary_unary("/calls/one")
    for coding in CODINGS:
        print(told(lambda: call(b"this is forbidden" * 9, compression=coding)))
        print(told(lambda: call(b"fine" * 9, compression=coding)))
    # In a message inside a message, as Protocol Buffers write it.
    print(told(lambda: call(b"\x08\x96\x01\x12\x0b\x0a\x09forbidden")))
    print(told(lambda: channel.stream_unary("/calls/up")(iter([b"forbidden"] * 3))))
    print(told(lambda: list(channel.unary_stream("/calls/down")(b"forbidden"))))
    # The connection is as good as before.
    print(call(b"hello"))


def by_answer(channel):
    call = channel.unary_unary("/calls/one")
    print(told(lambda: call(b"say it")))
    print(told(lambda: call(b"say it zipped")))
    print(call(b"hello"))


def shown(channel):
    call = channel.unary_unary("/show/it")
    for message in [b"hello", b"\x0a\x05hello\x10\x96\x01", b""]:
        print(told(lambda: call(message)))
    # Numbers in a row, a number of more than 32 bits, almost a text, a tag that not all read alike.
    for message in [
        b"\x0a\x02\x05\x07",
        b"\x08\x85\x80\x80\x80\x10",
        b"\x0a\x05drop\xff",
        b"\x8a\x80\x80\x80\x10\x04drop",
    ]:
        print(told(lambda: call(message)))
    # Groups, deeper than anybody reads them.
    print(told(lambda: call(b"\x10\x01" + b"\x0b" * 10_001 + b"\x0c" * 10_001)))
    print(told(lambda: call(b"\x0a\xc0\x84\x3d" + b"x" * 1_000_000)))
    print(told(lambda: channel.stream_unary("/show/it")(slowly([b"one", b"two"]))))


def slowly(messages):
    for message in messages:
        yield message
        time.sleep(1)


def over_the_cap(channel):
    """What is forbidden in what policy sees, and behind it."""
    call = channel.unary_unary("/calls/one")
    print(told(lambda: call(b"forbidden" + b"x" * 1_000_000)))
    print(told(lambda: call(b"x" * 1_000_000 + b"forbidden")))
    print(channel.stream_unary("/calls/up")(iter([b"x" * 10_000] * 300)))


def spoken_to_first(channel):
    """Says nothing before the server does."""
    welcomed = threading.Event()

    def say():
        assert welcomed.wait(30)
        for number in range(3):
            yield b"%d" % number

    begun = time.monotonic()
    for message in channel.stream_stream("/calls/greet")(say()):
        if not welcomed.is_set():
            # Nobody has waited for a second message of the request.
            print(message, time.monotonic() - begun < 15)
            welcomed.set()
    print(message)


def held(channel):
    print(told(lambda: channel.unary_unary("/started/require_approval")(b"hello", timeout=60)))


def call(authority, ca, case):
    credentials = grpc.ssl_channel_credentials(open(ca, "rb").read())
    with grpc.secure_channel(authority, credentials) as channel:
        globals()[case](channel)


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:])
