"""Shows every verdict of openbox-sidecar on an agent that knows nothing of it.

Usage: demo.py BINARY            the demonstration
       demo.py BINARY COMMAND    COMMAND, a shell's, governed by the starter policy
"""

import http.server
import json
import os
import pathlib
import shlex
import ssl
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
API_HOST, SHOP_HOST = "api.demo.test", "shop.demo.test"
ANSWERS = {
    "/weather": {"forecast": "rain"},
    "/orders": {"order": 12, "state": "placed"},
    "/refunds": {"refunded": 40},
    "/export": {"customers": [{"name": "A. Person", "card": "4111 1111 1111 1111"}]},
}
# Longest wait for anything in here, seconds; the whole takes a few.
WITHIN = 20


class Origin(http.server.ThreadingHTTPServer):
    """A service on loopback that remembers what reached it."""

    daemon_threads = True

    def __init__(self, name, certificate=None):
        super().__init__(("127.0.0.1", 0), Answering)
        self.name = name
        self.reached = []
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self):
        return self.server_address[1]

    def handle_error(self, request, client_address):
        """A client that hangs up is no news."""


class Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.reached.append(f"{self.command} {self.path}")
        text = json.dumps(ANSWERS.get(self.path, {"ok": True})).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *_):
        """The origin speaks at the end, through what reached it."""


def say(text=""):
    print(text, flush=True)


def operator(binary, state, *words):
    """One command of the operator's; what it printed."""
    command = [binary, "approvals", *words, "--state-dir", state]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False)
    return done.returncode, done.stdout, done.stderr


def approve_what_is_held(binary, state, ended, approved):
    """What a person does in another terminal: look, then agree."""
    until = time.monotonic() + WITHIN
    while time.monotonic() < until and not ended.is_set():
        code, listed, _ = operator(binary, state, "list", "--json")
        held = json.loads(listed) if code == 0 and listed.strip() else []
        if held:
            _, shown, _ = operator(binary, state, "list")
            say("person:  $ openbox-sidecar approvals list")
            for line in shown.splitlines():
                say(f"person:    {line}")
            approval = held[0]["approval_id"]
            say(f"person:  $ openbox-sidecar approvals approve {approval}")
            code, told, error = operator(binary, state, "approve", approval)
            say(f"person:    {(told or error).strip()}")
            approved.append(code == 0)
            return
        ended.wait(0.05)


def demonstrate(binary):
    api = Origin("api")
    shop = Origin("shop", (HERE / "origin" / "origin.pem", HERE / "origin" / "origin.key"))
    with tempfile.TemporaryDirectory(prefix="openbox-demo-") as state:
        command = [
            binary, "run",
            "--policy", str(HERE / "policy.rego"),
            "--upstream-ca", str(HERE / "origin" / "ca.pem"),
            "--allow-address", "127.0.0.0/8",
            "--resolve", f"{API_HOST}:{api.port}=127.0.0.1",
            "--resolve", f"{SHOP_HOST}:{shop.port}=127.0.0.1",
            "--state-dir", state,
            "--", sys.executable, str(HERE / "agent.py"),
        ]  # fmt: skip
        say(f"$ {shlex.join(command)}\n")
        environment = agent_environment(api, shop)
        ended, approved = threading.Event(), []
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as run:
            person = threading.Thread(
                target=approve_what_is_held, args=(binary, state, ended, approved)
            )
            person.start()
            printed = []
            for line in run.stdout:
                printed.append(line)
                say(line.rstrip())
            code = run.wait(timeout=WITHIN)
        ended.set()
        person.join()
        return summary(code, "".join(printed), approved, api.reached, shop.reached)


def agent_environment(api, shop):
    # Settings of the person at the keyboard are not part of the demonstration.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBOX_")}
    environment["DEMO_API"] = f"http://{API_HOST}:{api.port}"
    environment["DEMO_SHOP"] = f"https://{SHOP_HOST}:{shop.port}"
    return environment


def summary(code, printed, approved, api, shop):
    """What was shown, each line checked against what really happened."""
    halted_at = printed.find("/paste")
    after = printed[halted_at:]
    rows = [
        ("allowed: the weather was asked for", "GET /weather" in api),
        ("constrained: the order was placed, marked", "POST /orders" in shop and "openbox-constraints" in printed),
        ("blocked: nothing about the customer reached the shop", "DELETE /customers/7" not in shop and " 403 " in printed),
        ("held, approved by a person, served: the refund", approved == [True] and shop.count("POST /refunds") == 1),
        ("refused at completed: the shop answered, the agent did not see it", "GET /export" in shop and "4111" not in printed),
        ("halted: nothing left after the paste, and the run ended with 77",
         halted_at >= 0 and code == 77 and " 200 " not in after
         and not {"POST /paste", "GET /goodbye"} & set(api) and api.count("GET /weather") == 1
         and shop.count("POST /orders") == 1),
    ]  # fmt: skip
    say("\nwhat reached the origins")
    say(f"  api   {', '.join(api) or 'nothing'}")
    say(f"  shop  {', '.join(shop) or 'nothing'}")
    say("\nwhat was shown")
    for text, shown in rows:
        say(f"  {'ok ' if shown else 'NOT'}  {text}")
    return 0 if all(shown for _, shown in rows) else 1


def main():
    binary, *command = sys.argv[1:]
    if command:
        # The user's own: in a shell, as it was written.
        os.execv(binary, [binary, "run", "--", "sh", "-c", " ".join(command)])
    sys.exit(demonstrate(binary))


if __name__ == "__main__":
    main()
