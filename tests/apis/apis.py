"""Both local APIs of a real sidecar, held to the OpenAPI documents that they serve.

The documents must be valid OpenAPI 3.1; then schemathesis sends what they allow
and what they do not, to every endpoint, for a bounded time. Two endpoints are
not for it, as one never ends and the other ends everything: they are asked here.

tests/apis/apis.py SIDECAR [SECONDS]: SECONDS for each document.
"""

import http.client
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
BIN = pathlib.Path(sys.executable).parent
POLICY = 'package test\ndefault result := {"decision": "ALLOW"}\n'
NOT_FOR_SCHEMATHESIS = {"/v1/stream", "/v1/shutdown"}


class Api:
    def __init__(self, name, address, token):
        self.name, self.token = name, token
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)
        self.url = "http://" + address

    def ask(self, method, path, headers={}, body=None):
        """The status, and the answer where it ends."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        bearer = {"Authorization": "Bearer " + self.token}
        connection.request(method, path, body, {**bearer, **headers})
        answer = connection.getresponse()
        endless = answer.headers.get_content_type() == "text/event-stream"
        text = "" if endless else answer.read().decode()
        connection.close()
        return answer.status, text

    def document(self):
        status, text = self.ask("GET", "/openapi.json")
        assert status == 200, text
        return json.loads(text)


class Sidecar:
    def __init__(self, program):
        self.folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self.folder.name)
        policy, state = folder / "policy.rego", folder / "state"
        policy.write_text(POLICY)
        listen = [word for name in ("http", "agent", "operator", "health") for word in (f"--{name}-listen", "127.0.0.1:0")]
        self.log = open(folder / "log", "w+")
        self.process = subprocess.Popen(
            [program, "serve", "--policy", policy, "--state-dir", state, "--log-format", "json", *listen],
            stderr=self.log,
            env={"PATH": os.environ["PATH"], "HOME": self.folder.name},
        )
        at = self._listening()
        operator = json.loads((state / "operator.json").read_text())["token"]
        agent = (state / "agent-token").read_text().strip()
        self.agent = Api("agent", at["agent"], agent)
        self.operator = Api("operator", at["operator"], operator)

    def _listening(self):
        for _ in range(600):
            self.log.seek(0)
            for line in self.log.read().splitlines():
                if '"message":"serving"' in line:
                    return dict(word.split("=", 1) for word in json.loads(line)["listening"].split())
            assert self.process.poll() is None, "the sidecar ended"
            time.sleep(0.05)
        raise AssertionError("the sidecar does not serve")

    def stop(self):
        self.process.kill()
        self.process.wait()

    def panicked(self):
        self.log.seek(0)
        return [line for line in self.log.read().splitlines() if "panicked" in line]


def is_valid(api, document):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"{api.name}.json"
        path.write_text(json.dumps(document))
        subprocess.run([BIN / "openapi-spec-validator", path], check=True)


def fuzzed(api, document, seconds):
    """Whether nothing was found in `seconds`."""
    document["paths"] = {path: item for path, item in document["paths"].items() if path not in NOT_FOR_SCHEMATHESIS}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"{api.name}.json"
        path.write_text(json.dumps(document))
        words = [
            *("--config-file", HERE / "schemathesis.toml"),
            *("run", path, "--url", api.url, "--header", f"Authorization: Bearer {api.token}"),
            *("--phases", "coverage,fuzzing", "--max-time", str(seconds), "--max-examples", "25"),
            *("--request-timeout", "30", "--seed", "1", "--no-shrink", "--continue-on-failure"),
            *("--suppress-health-check", "all", "--warnings", "off"),
        ]
        ended = subprocess.run([BIN / "schemathesis", *words], cwd=folder, env={"PATH": os.environ["PATH"], "HOME": folder, "NO_PROXY": "*"})
    return ended.returncode == 0


def streams_take_numbers_alone(api):
    chance = random.Random(1)
    for text in ["0", "18446744073709551615", "18446744073709551616", "-1", "x", " ", "1e3", "0x1", "é"] + [
        "".join(chance.choices("0123456789abc-+ .", k=chance.randint(1, 24))) for _ in range(100)
    ]:
        number = text.strip()
        good = number.isascii() and number.isdigit() and int(number) < 2**64
        status, told = api.ask("GET", "/v1/stream", {"Last-Event-ID": text.encode()})
        # A plus is a sign of the number for some readers.
        if number.startswith("+"):
            assert status in (200, 400), (text, status)
            continue
        assert status == (200 if good else 400), (text, status, told)


def no_route_is_for_strangers(api, document, other):
    """The other API's token, names that lead here by DNS, and pages of elsewhere open no operation at all."""
    attacks = [
        (401, {"Authorization": "Bearer " + other.token}),
        (401, {"Authorization": "Basic " + api.token}),
        (403, {"Host": "rebound.example"}),
        (403, {"Host": f"localhost.rebound.example:{api.port}"}),
        (403, {"Origin": "https://elsewhere.example"}),
        (403, {"Origin": "null"}),
        (403, {"Sec-Fetch-Site": "cross-site"}),
    ]
    for path, methods in document["paths"].items():
        for method in methods:
            for wanted, headers in attacks:
                status, told = api.ask(method.upper(), path.replace("{", "").replace("}", ""), headers)
                assert status == wanted, (api.name, method, path, headers, status, told)


def shutdown_is_the_operators(sidecar):
    for token in ("", "x", sidecar.agent.token, sidecar.operator.token[:-1], sidecar.operator.token + "x"):
        status, _ = sidecar.operator.ask("POST", "/v1/shutdown", {"Authorization": "Bearer " + token})
        assert status == 401, token
    status, _ = sidecar.agent.ask("POST", "/v1/shutdown")
    assert status == 404, status
    status, told = sidecar.operator.ask("POST", "/v1/shutdown")
    assert status == 202, told
    assert sidecar.process.wait(30) == 0


def main():
    program, seconds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 35
    sidecar = Sidecar(program)
    try:
        apis = [sidecar.agent, sidecar.operator]
        documents = [api.document() for api in apis]
        for api, document in zip(apis, documents):
            assert document["openapi"].startswith("3.1"), document["openapi"]
            is_valid(api, document)
            streams_take_numbers_alone(api)
            no_route_is_for_strangers(api, document, *(other for other in apis if other is not api))
        failed = [api.name for api, document in zip(apis, documents) if not fuzzed(api, document, seconds)]
        assert not failed, f"schemathesis found something in the API of {failed}"
        shutdown_is_the_operators(sidecar)
        assert not sidecar.panicked(), sidecar.panicked()
    finally:
        sidecar.stop()


if __name__ == "__main__":
    main()
