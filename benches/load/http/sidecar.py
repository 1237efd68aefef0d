"""The sidecar by itself: how it is started, and what is measured of it without a peer."""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import (  # noqa: E402  (it lies beside this folder)
    HOST_ADDRESS,
    Failed,
    at,
    await_ready,
    resident_kib,
    sidecar_program,
)

from backends import HOST_NAME, HttpBench  # noqa: E402

HOLDS = 9_000
HOLD_SETTLE_S = 1.5
STARTS = 5
TUNNELS = 1_000
TUNNELS_SETTLE_S = 2.0

HOLD_POLICY = """\
# Every operation waits for a person: what a hold costs is measured with it.
package openbox

result := {"decision": "REQUIRE_APPROVAL", "reason": "the benchmark holds everything"}
"""

PASSES_POLICY = """\
# The starter policy has a person decide about tunnels that nobody looks into.
package openbox

result := {"decision": "ALLOW"}
"""


@dataclasses.dataclass
class Sidecar:
    """A running sidecar, and what a measurement needs of it."""

    process: subprocess.Popen
    port: int
    health_port: int
    state: Path
    listening_ms: float


def start_sidecar(
    bench: HttpBench, program: Path, name: str, arguments: list[str], env: dict[str, str], state: Path
) -> Sidecar:
    """Starts `serve`, and measures how long it takes until it listens."""
    state.mkdir(exist_ok=True)
    port, agent, operator, health = (bench.port() for _ in range(4))
    argv = [str(program), "serve", "--http-listen", at(port), "--agent-listen", at(agent)]
    argv += ["--operator-listen", at(operator), "--health-listen", at(health)]
    argv += ["--state-dir", str(state), "--upstream-ca", str(bench.origin_ca)]
    argv += ["--allow-address", "127.0.0.0/8", "--log-format", "json"]
    for origin_port in (bench.http_port, bench.https_port, bench.h2_port, bench.impostor_port):
        argv += ["--resolve", f"{HOST_NAME}:{origin_port}={HOST_ADDRESS}"]
    argv += arguments
    started = bench.start(name, argv, port, env, poll_s=0.000_2)
    await_ready(bench, name, health)
    return Sidecar(started.process, port, health, state, started.listening_ms)


def measure_start(bench: HttpBench, options: argparse.Namespace) -> dict:
    """Milliseconds until it listens, and resident memory with nothing to do."""
    program = sidecar_program(options)
    times: list[float] = []
    resident: list[int] = []
    state = bench.dir / "start-state"
    for _ in range(STARTS + 1):
        sidecar = start_sidecar(bench, program, "sidecar-start", list(options.sidecar_arg), {}, state)
        time.sleep(1.0)
        times.append(sidecar.listening_ms)
        resident.append(resident_kib(sidecar.process))
        bench.stop(sidecar.process)
    return {
        # The first one also makes the certificate authority.
        "first_listening_ms": times[0],
        "listening_ms": statistics.median(times[1:]),
        "idle_resident_mib": statistics.median(resident) / 1024,
    }


def measure_holds(bench: HttpBench, options: argparse.Namespace) -> dict:
    """Resident memory that each held request adds."""
    program = sidecar_program(options)
    policy = bench.dir / "hold.rego"
    policy.write_text(HOLD_POLICY)
    arguments = ["--policy", str(policy), *options.sidecar_arg]
    sidecar = start_sidecar(bench, program, "sidecar-hold", arguments, {}, bench.dir / "hold-state")
    time.sleep(1.0)
    before = resident_kib(sidecar.process)
    argv = [str(bench.loadgen), "hold", "--proxy", at(sidecar.port), "--requests", str(options.holds)]
    argv += ["--authority", f"{HOST_NAME}:{bench.http_port}", "--seconds", "90"]
    client = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    bench.processes.append(("hold", client))
    assert client.stdin is not None and client.stdout is not None
    sent = json.loads(client.stdout.readline() or "{}")
    time.sleep(HOLD_SETTLE_S)
    during = resident_kib(sidecar.process)
    gauges = hold_gauges(sidecar.health_port)
    client.stdin.write("status\n")
    client.stdin.flush()
    status = json.loads(client.stdout.readline() or "{}")
    client.stdin.close()
    client.wait(30)
    time.sleep(HOLD_SETTLE_S)
    after = resident_kib(sidecar.process)
    bench.stop(sidecar.process)
    if not status or status["failed"] or status["answered"]:
        raise Failed(f"not every request was held: {status or sent}\n{bench.log_tail('sidecar-hold')}")
    return {
        "holds": status["sent"],
        "opened_in_s": sent["seconds"],
        "gauges": gauges,
        "resident_before_kib": before,
        "resident_during_kib": during,
        "resident_after_kib": after,
        "kib_each": (during - before) / status["sent"],
    }


def hold_gauges(health_port: int) -> list[str]:
    """What the sidecar's own metrics say of open holds."""
    try:
        with urllib.request.urlopen(f"http://{at(health_port)}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError as error:
        return [str(error)]
    return [line for line in lines if "hold" in line and not line.startswith("#")]


def measure_tunnels(bench: HttpBench, options: argparse.Namespace) -> dict:
    """Resident memory that each idle tunnel adds: one that only passes bytes on, and one that is intercepted."""
    policy, config = bench.dir / "passes.rego", bench.dir / "passes.yaml"
    policy.write_text(PASSES_POLICY)
    config.write_text(f"http: {{passthrough: [{HOST_NAME}]}}\n")
    passes = ["--config", str(config), "--policy", str(policy)]
    return {
        "passed_on": idle_tunnels(bench, options, "sidecar-passes", passes, bench.origin_ca, "small"),
        "passed_on_after_64k": idle_tunnels(bench, options, "sidecar-passes-64k", passes, bench.origin_ca, "large"),
        "intercepted": idle_tunnels(bench, options, "sidecar-intercepts", [], None, "small"),
        "intercepted_after_64k": idle_tunnels(bench, options, "sidecar-intercepts-64k", [], None, "large"),
    }


def idle_tunnels(
    bench: HttpBench,
    options: argparse.Namespace,
    name: str,
    arguments: list[str],
    ca: Path | None,
    content: str,
) -> dict:
    """Tunnels with TLS and one request for `content` in each, which then rest, and still serve afterwards. The client meets
    a certificate of `ca`, or else of the sidecar's own authority."""
    program = sidecar_program(options)
    arguments = [*arguments, *options.sidecar_arg]
    sidecar = start_sidecar(bench, program, name, arguments, {}, bench.dir / f"{name}-state")
    argv = [str(bench.loadgen), "idle", "--proxy", at(sidecar.port), "--ca", str(ca or sidecar.state / "ca.pem")]
    argv += ["--authority", f"{HOST_NAME}:{bench.https_port}", "--content", content]
    found: dict = {}
    # Once before: what is made on the first occasion belongs to no tunnel.
    for tunnels in (max(1, options.tunnels // 4), options.tunnels):
        time.sleep(TUNNELS_SETTLE_S)
        before = resident_kib(sidecar.process)
        client = subprocess.Popen(
            [*argv, "--tunnels", str(tunnels)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        bench.processes.append(("idle", client))
        assert client.stdin is not None and client.stdout is not None
        resting = json.loads(client.stdout.readline() or "{}")
        time.sleep(TUNNELS_SETTLE_S)
        during = resident_kib(sidecar.process)
        client.stdin.close()
        end = json.loads(client.stdout.readline() or "{}")
        client.wait(30)
        if not end or end["failed"]:
            raise Failed(f"not every tunnel rested and served: {end or resting}\n{bench.log_tail(name)}")
        found = {
            "tunnels": tunnels,
            "resident_before_kib": before,
            "resident_during_kib": during,
            "kib_each": (during - before) / tunnels,
        }
    bench.stop(sidecar.process)
    return found
