"""The agent API from Python, with nothing but its standard library.

`openbox-sidecar run -- python3 examples/openbox.py` runs the demonstration below;
`from openbox import Run` is all that an agent needs.
"""

import builtins
import functools
import http.client
import json
import os
import socket
import sys
import urllib.parse
import uuid


class Refused(PermissionError):
    """Policy, or a person, said no."""


def _token():
    """From the environment or, in a pod, from a file that is shared."""
    token = os.environ.get("OPENBOX_SIDECAR_TOKEN")
    if token is None:
        with builtins.open(os.environ["OPENBOX_SIDECAR_TOKEN_FILE"]) as file:
            token = file.read().strip()
    return token


def _connection():
    """To the sidecar, by its socket where it has one; never through a proxy."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(os.environ["OPENBOX_SIDECAR_URL"]).netloc, timeout=70)
    path = os.environ.get("OPENBOX_SIDECAR_SOCKET")
    if path:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(70)
        connection.sock.connect(path)
    return connection


def send(method, path, body=None):
    """Any request: the status and the text of the answer, but for streams, which do not end."""
    connection = _connection()
    try:
        connection.request(method, path, body and body.encode(), {"Authorization": "Bearer " + _token()})
        answer = connection.getresponse()
        ends = answer.headers.get_content_type() != "text/event-stream"
        return answer.status, answer.read().decode() if ends else ""
    finally:
        connection.close()


def call(method, path, body=None):
    status, text = send(method, path, json.dumps(body or {}))
    if status >= 400:
        raise RuntimeError(f"{path}: {text}")
    return status, json.loads(text)


def ask(path, body):
    """Asks until a person has decided, where one must; raises Refused on a no."""
    while True:
        status, answer = call("POST", path + "?wait=55s", body)
        if status != 202:
            break
    if answer["verdict"] not in ("allow", "constrain"):
        raise Refused(answer.get("reason") or answer["verdict"])
    return answer


class Run:
    """A run of a workflow: `with Run("refunds") as run`."""

    def __init__(self, workflow, run_id=None):
        self.ids = {"workflow_id": workflow, "run_id": run_id or str(uuid.uuid4())}

    def __enter__(self):
        ask("/v1/workflows", self.ids)
        return self

    def __exit__(self, kind, error, _):
        path = "/v1/workflows/{workflow_id}/runs/{run_id}/".format(**self.ids)
        call("POST", path + ("fail" if error else "complete"), {"error": {"message": str(error)}} if error else {})

    def activity(self, kind, *input):
        return Activity(self, kind, input)

    def activities(self, function):
        """Makes each call of a function an activity: `@run.activities`."""

        @functools.wraps(function)
        def called(*input):
            with self.activity(function.__name__, *input) as activity:
                activity.output = function(*activity.input)
                return activity.output

        return called


class Activity:
    """`with run.activity("refund", {"amount": 90}) as activity`; `activity.input` is what may be used."""

    def __init__(self, run, kind, input):
        self.input, self.output = list(input), None
        self.run, self.id = run, str(uuid.uuid4())
        self.ids = {**run.ids, "activity_id": self.id}
        self.kind = kind

    def __enter__(self):
        answer = ask("/v1/activities", {**self.ids, "activity_type": self.kind, "input": self.input})
        self.input = answer.get("redacted_input") or self.input
        return self

    def __exit__(self, kind, error, _):
        outcome = {"error": {"message": str(error)}} if error else {"output": self.output}
        call("POST", f"/v1/activities/{self.id}/complete", {**self.run.ids, **outcome})

    def hook(self, kind, span, work, told=lambda result: {}):
        """Asks about an operation, does it, and tells how it went."""
        begun = ask("/v1/evaluate", {**self.ids, "kind": kind, "stage": "started", "span": span})
        done = {"stage": "completed", "event_id": begun["event_id"]}
        try:
            result = work()
        except Exception as error:
            call("POST", "/v1/evaluate", {**done, "span": {"error": str(error)}})
            raise
        call("POST", "/v1/evaluate", {**done, "span": told(result)})
        return result

    def function(self, function):
        """Asks about each call of a function: `@activity.function`."""

        @functools.wraps(function)
        def called(*args):
            span = {"function": function.__name__, "module": function.__module__, "args": list(args)}
            return self.hook("function_call", span, lambda: function(*args), lambda result: {"result": result})

        return called

    def open(self, path, mode="r"):
        """The built-in `open`, each of whose reads and writes is asked about."""
        span = {"file_path": str(path), "file_mode": mode, "file_operation": "open"}
        return _File(self, path, self.hook("file_operation", span, lambda: builtins.open(path, mode)))


class _File:
    def __init__(self, activity, path, file):
        self._activity, self._path, self._file = activity, str(path), file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _ask(self, operation, *args):
        def told(result):
            moved = result if isinstance(result, (str, bytes)) else b""
            return {"bytes_read": len(moved)} if "read" in operation else {"bytes_written": len(args[0])} if operation == "write" else {}

        span = {"file_path": self._path, "file_operation": operation}
        return self._activity.hook("file_operation", span, lambda: getattr(self._file, operation)(*args), told)

    def read(self, *size):
        return self._ask("read", *size)

    def readline(self):
        return self._ask("readline")

    def readlines(self):
        return self._ask("readlines")

    def write(self, text):
        return self._ask("write", text)

    def writelines(self, lines):
        return self._ask("writelines", list(lines))

    def close(self):
        return self._ask("close")


if __name__ == "__main__" and sys.argv[1:] == ["-"]:  # any request at all, a line each: METHOD PATH JSON
    for line in sys.stdin:
        method, path, body = (line.strip() + "  ").split(" ", 2)
        status, text = send(method, path, body.strip() or None)
        print(status, text.split("\n")[0], flush=True)
elif __name__ == "__main__":
    with Run("python") as run:

        @run.activities
        def refund(order):
            return {"refunded": order["amount"]}

        assert refund({"amount": 90}) == {"refunded": 90}
        with run.activity("report") as activity:
            add = activity.function(lambda a, b: a + b)
            assert add(1, 2) == 3
            with activity.open("/etc/hostname") as file:
                file.read()
    print("done")
