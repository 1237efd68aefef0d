"""gRPC through the sidecar, with messages of plain bytes.

grpc_calls.py serve CERTIFICATE KEY     serves, and prints its port
grpc_calls.py call AUTHORITY CA CASE    runs a case; `http_proxy` names the sidecar
"""

import sys
import threading
import time
from concurrent import futures

import grpc


def one(request, context):
    context.set_trailing_metadata((("said-last", "yes"),))
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked: 100 %")
    if request == b"slow":
        time.sleep(20)
    return b"heard " + request[:20]


def up(requests, context):
    return b"%d in %d" % (sum(map(len, requests_kept := list(requests))), len(requests_kept))


def down(request, context):
    for number in range(int(request)):
        yield b"%d" % number * 1000


def both(requests, context):
    for request in requests:
        yield b"heard " + request


class Handler(grpc.GenericRpcHandler):
    """Any service: the policy decides by its name. The method says the kind of call, where it is one."""

    def service(self, details):
        kinds = {
            "/calls/up": grpc.stream_unary_rpc_method_handler(up),
            "/calls/down": grpc.unary_stream_rpc_method_handler(down),
            "/calls/both": grpc.stream_stream_rpc_method_handler(both),
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
    print(told(lambda: channel.unary_unary("/calls/one")(b"slow", timeout=1)).split(":")[0])


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


def held(channel):
    print(told(lambda: channel.unary_unary("/started/require_approval")(b"hello", timeout=60)))


def call(authority, ca, case):
    credentials = grpc.ssl_channel_credentials(open(ca, "rb").read())
    with grpc.secure_channel(authority, credentials) as channel:
        globals()[case](channel)


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:])
