#!/usr/bin/env python3
"""What one evaluation by Core costs the sidecar's client, beside the SDK's own (httpx), on loopback.

A Core that answers at once runs in a process of its own, which is not counted. Round by round, each client gets a short
burst of the same two questions (both stages of a POST with 1 KB each way), with each identity, one and 64 at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import (  # noqa: E402  (it lies beside this folder)
    CACHE,
    Failed,
    bar,
    machine,
    note,
    repository,
    rotated,
    rounded,
    run_checked,
    tail,
)

IDENTITIES = ("unsigned", "did", "okta")
IN_FLIGHT = (1, 64)
CLIENTS = ("sidecar", "sdk")

# The bars.
TIMES_THE_SDK = 20
SIGNING_US = 60


def sidecar_client() -> Path:
    """Builds the program of `benches/core.rs`."""
    note("building benches/core.rs")
    argv = ["cargo", "build", "--release", "--locked", "--bench", "core", "--message-format", "json"]
    done = subprocess.run(argv, cwd=repository(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"building it failed:\n{tail(done.stderr)}")
    for line in reversed(done.stdout.splitlines()):
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "core":
            return Path(message["executable"])
    raise Failed("cargo names no program")


def sdk_python() -> Path:
    path = repository() / ".venv-compat/bin/python"
    if not path.exists():
        raise Failed(f"{path} is missing; scripts/needs.sh makes it")
    return path


def make_key(python: Path, path: Path) -> None:
    """An RSA key of 2,048 bits, PKCS#8 PEM."""
    code = (
        "import sys; from cryptography.hazmat.primitives import serialization as s;"
        "from cryptography.hazmat.primitives.asymmetric import rsa;"
        "key = rsa.generate_private_key(public_exponent=65537, key_size=2048);"
        "open(sys.argv[1], 'wb').write(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))"
    )
    run_checked([str(python), "-c", code, str(path)], "making an RSA key")


def write_questions(program: Path, path: Path) -> None:
    """The two questions as the sidecar asks them: both clients ask the same."""
    bodies: list[bytes] = []

    class Core(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            answer = b'{"verdict":"allow"}'
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Core)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    run_checked([str(program), "evaluate", str(server.server_port), "unsigned", "1", "0.01"], "asking for the questions")
    server.shutdown()
    questions = [json.loads(body) for body in bodies[:2]]
    stages = [question["spans"][0]["stage"] for question in questions]
    if stages != ["started", "completed"]:
        raise Failed(f"the questions are about {stages}")
    path.write_text(json.dumps(questions))
    note(f"questions of {len(bodies[0])} and {len(bodies[1])} bytes")


def burst(argv: list[str]) -> dict:
    said = json.loads(run_checked(argv, "a burst"))
    per_cpu = said["evaluations"] / said["cpu_seconds"]
    return {
        "per_second": said["evaluations"] / said["seconds"],
        "cpu_us": said["cpu_seconds"] / said["evaluations"] * 1e6,
        "per_cpu_second": per_cpu,
    }


def measure(commands, options) -> dict:
    """Per identity and number in flight, per client, one entry a round."""
    rows = {(identity, n): {name: [] for name in CLIENTS} for identity in IDENTITIES for n in IN_FLIGHT}
    for number in range(options.rounds):
        for (identity, in_flight), found in rows.items():
            for name in rotated(list(CLIENTS), number):
                found[name].append(burst(commands(name, identity, in_flight)))
    return rows


def summarize(rows: dict) -> list[dict]:
    summary = []
    for (identity, in_flight), found in rows.items():
        middle = {
            name: {key: statistics.median(one[key] for one in bursts) for key in bursts[0]}
            for name, bursts in found.items()
        }
        ratios = [a["per_cpu_second"] / b["per_cpu_second"] for a, b in zip(found["sidecar"], found["sdk"])]
        summary.append(
            {"identity": identity, "in_flight": in_flight, **middle, "times_the_sdk": statistics.median(ratios)}
        )
    return summary


def judge(rows: dict, summary: list[dict]) -> list[dict]:
    bars = []
    for row in summary:
        what = f"{row['identity']}, {row['in_flight']} in flight: evaluations per CPU second against the SDK"
        times = row["times_the_sdk"]
        bars.append(bar(what, f"at least {TIMES_THE_SDK} ×", times, times >= TIMES_THE_SDK))
    for identity in IDENTITIES[1:]:
        for in_flight in IN_FLIGHT:
            pairs = zip(rows[identity, in_flight]["sidecar"], rows["unsigned", in_flight]["sidecar"])
            adds = statistics.median(signed["cpu_us"] - bare["cpu_us"] for signed, bare in pairs)
            what = f"{identity}, {in_flight} in flight: CPU that signing adds, µs"
            bars.append(bar(what, f"under {SIGNING_US}", adds, adds < SIGNING_US))
    return bars


def markdown(report: dict) -> str:
    out = [
        "| identity | in flight | evaluations/s, sidecar | SDK | CPU µs each, sidecar | SDK | per CPU second against the SDK |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in report["rows"]:
        ours, sdk = row["sidecar"], row["sdk"]
        out.append(
            f"| {row['identity']} | {row['in_flight']} | {ours['per_second']:,.0f} | {sdk['per_second']:,.0f} "
            f"| {ours['cpu_us']:,.0f} | {sdk['cpu_us']:,.0f} | {row['times_the_sdk']:.1f} × |"
        )
    out += ["", "| | asked | found | |", "|---|---|---:|---|"]
    for entry in report["bars"]:
        met = "met" if entry["met"] else "**missed**"
        out.append(f"| {entry['what']} | {entry['asked']} | {entry['found']:.1f} | {met} |")
    of = report["machine"]
    sdk = next(row["sdk"] for row in report["rows"] if row["in_flight"] == 1)
    out += [
        "",
        f"The floor, a bare write and read for each question by a thread that sleeps in between: {report['floor_us']:.0f} µs, "
        f"{sdk['cpu_us'] / report['floor_us']:.1f} × the SDK's unsigned one.",
        "",
        f"{of['cpu']}, {of['cores']} cores, kernel {of['kernel']}; {report['rounds']} rounds of "
        f"{report['seconds']:g} s; load average before the run {of['load_average_before']:.1f}.",
    ]
    return "\n".join(out)


def run(options, folder: Path) -> dict:
    program, python = options.program or sidecar_client(), sdk_python()
    key, questions = folder / "okta.pem", folder / "questions.json"
    make_key(python, key)
    write_questions(program, questions)
    about = machine()
    stub = subprocess.Popen([program, "stub"], stdout=subprocess.PIPE, text=True)
    try:
        port = stub.stdout.readline().strip()

        def command(name: str, identity: str, in_flight: int) -> list[str]:
            shown = str(key) if identity == "okta" else identity
            common = [port, shown, str(in_flight), str(options.seconds)]
            if name == "sidecar":
                return [str(program), "evaluate", *common]
            return [str(python), str(HERE / "sdk.py"), *common, str(questions)]

        rows = measure(command, options)
        floors = [burst([str(program), "floor", port, str(options.seconds)]) for _ in range(options.rounds)]
    finally:
        stub.kill()
        stub.wait()
    summary = summarize(rows)
    return {
        "machine": about,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "rows": summary,
        "bars": judge(rows, summary),
        "floor_us": statistics.median(floor["cpu_us"] for floor in floors),
        "bursts": {f"{identity} {n}": found for (identity, n), found in rows.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds (3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a burst (2)")
    parser.add_argument("--quick", action="store_true", help="one round of half a second, to see that it works")
    parser.add_argument("--program", type=Path, help="a built benches/core.rs (default: build it)")
    parser.add_argument("--json", type=Path, default=CACHE / "core.json", help="file for the results")
    parser.add_argument("--markdown", action="store_true", help="print tables instead of JSON")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 0.5
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with tempfile.TemporaryDirectory(prefix="openbox-core-") as folder:
        try:
            report = rounded(run(options, Path(folder)))
        except Failed as error:
            note(f"FAILED: {error}")
            return 1
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    shown = {name: value for name, value in report.items() if name != "bursts"}
    print(markdown(report) if options.markdown else json.dumps(shown, indent=1))
    note(f"results in {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
