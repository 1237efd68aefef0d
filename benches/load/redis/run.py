#!/usr/bin/env python3
"""Load benchmark of the Redis relay against direct connections, twemproxy and haproxy.

Every peer runs at the same time on loopback, and the rows are interleaved: round by round, row by
row, each peer gets a short burst. What the machine does to one it does to all.

Installs what is missing (the Debian packages redis-server, redis-tools, nutcracker and haproxy),
builds the sidecar, and ends what it started. The server is a new one that keeps nothing on disk.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import re
import shutil
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import (  # noqa: E402  (it lies beside this folder)
    CACHE,
    HOST_ADDRESS,
    Bench,
    Failed,
    apt_install,
    at,
    attempt,
    await_ready,
    bar,
    carry_out,
    chosen,
    clean_environment,
    closing_lines,
    cpu_seconds,
    machine,
    note,
    repository,
    rotated,
    sidecar_program,
    stolen_and_total_ticks,
    summarize,
    tail,
    tell,
)

# Programs by who needs them, and their packages.
PACKAGES = {
    "direct": {"redis-server": "redis-server", "redis-benchmark": "redis-tools"},
    "twemproxy": {"nutcracker": "nutcracker"},
    "haproxy": {"haproxy": "haproxy"},
}
PATH = "/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin"
CLIENTS = 50
KEYS = 10_000  # named at random: what was remembered of a key cannot help
ONE_KEY = "key:__rand_int__"  # what redis-benchmark names each time where it was not asked for random ones
TRIAL_COMMANDS = 4_000  # of a burst that only says how many commands the next ones get
COMMANDS_MIN = 2_000


# --------------------------------------------------------------------------- rows and peers


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    title: str
    command: str  # of redis-benchmark's tests
    pipeline: int
    size: int  # of values, bytes
    keys: int  # that it names at random; 1: the same each time, as redis-benchmark does unless asked


ROWS = [
    Row(
        f"{command}-{pipeline}-{size_name}{'-same' if keys == 1 else ''}",
        f"{command.upper()}, pipeline {pipeline}, values of {size_title}, {'one key' if keys == 1 else f'{keys:,} keys'}",
        command,
        pipeline,
        size,
        keys,
    )
    for size, size_name, size_title in ((3, "3b", "3 bytes"), (16 << 10, "16k", "16 KiB"))
    for keys in (KEYS, 1)
    for pipeline in (1, 16)
    for command in ("get", "set")
]


@dataclasses.dataclass
class Peer:
    """A way from the client to the server, once it runs."""

    name: str
    port: int
    process: subprocess.Popen | None = None
    # Commands a second, by row: how many the next burst gets.
    pace: dict[str, float] = dataclasses.field(default_factory=dict)


def found(program: str) -> str:
    path = shutil.which(program, path=PATH)
    if path is None:
        raise Failed(f"{program} is not there, although its package was installed")
    return path


class RedisBench(Bench):
    """A bench, and the server that its peers lead to."""

    def __init__(self, peers: Iterable[str]) -> None:
        super().__init__()
        needed = {k: v for name, programs in PACKAGES.items() if name in {"direct", *peers} for k, v in programs.items()}
        missing = [package for program, package in needed.items() if shutil.which(program, path=PATH) is None]
        if missing:
            apt_install(missing)
        self.server_port = self.port()
        argv = [found("redis-server"), "--port", str(self.server_port), "--bind", HOST_ADDRESS]
        argv += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", str(self.dir)]
        self.start("server", argv, self.server_port)

    def ask(self, *words: str) -> str:
        """What the server itself answers."""
        request = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        with socket.create_connection((HOST_ADDRESS, self.server_port), 30) as connection:
            connection.sendall(request.encode())
            answers = connection.makefile("rb")
            head = answers.readline().decode().rstrip()
            if head.startswith("$"):
                return answers.read(max(0, int(head[1:]))).decode()
            if head.startswith("-"):
                raise Failed(f"{words[0]}: {head}")
            return head

    def fill(self, size: int) -> None:
        """Every key that redis-benchmark may name has a value of that many bytes."""
        script = "for i = 0, ARGV[1] - 1 do redis.call('SET', string.format('key:%012d', i), ARGV[2]) end"
        self.ask("EVAL", script, "0", str(KEYS), "x" * size)
        self.ask("SET", ONE_KEY, "x" * size)

    def calls(self, command: str) -> int:
        """How many such commands have come to the server and were done."""
        counted = re.search(
            rf"^cmdstat_{command}:calls=(\d+),.*rejected_calls=(\d+),failed_calls=(\d+)",
            self.ask("INFO", "commandstats"),
            re.MULTILINE,
        )
        return int(counted[1]) - int(counted[3]) if counted else 0


# --------------------------------------------------------------------------- the peers


def start_direct(bench: RedisBench) -> Peer:
    return Peer("direct", bench.server_port)


NUTCRACKER_YML = """\
bench:
  listen: {listen}
  redis: true
  hash: fnv1a_64
  distribution: ketama
  preconnect: true
  servers:
   - {server}:1
"""


def start_twemproxy(bench: RedisBench) -> Peer:
    """twemproxy, which is one thread and leads all clients through one connection, as it comes."""
    port, stats = bench.port(), bench.port()
    configuration = bench.dir / "nutcracker.yml"
    configuration.write_text(NUTCRACKER_YML.format(listen=at(port), server=at(bench.server_port)))
    argv = [found("nutcracker"), "-c", str(configuration), "-a", HOST_ADDRESS, "-s", str(stats), "-v", "4"]
    return Peer("twemproxy", port, bench.start("twemproxy", argv, port).process)


HAPROXY_CFG = """\
global
    maxconn 1000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen redis
    bind {listen}
    server only {server}
"""


def start_haproxy(bench: RedisBench) -> Peer:
    """haproxy that moves bytes and reads none."""
    port = bench.port()
    configuration = bench.dir / "haproxy.cfg"
    configuration.write_text(HAPROXY_CFG.format(listen=at(port), server=at(bench.server_port)))
    argv = [found("haproxy"), "-db", "-f", str(configuration)]
    return Peer("haproxy", port, bench.start("haproxy", argv, port).process)


# redis-benchmark asks the server for its configuration first, which the starter policy has a person decide.
ASKED_FIRST = """\
else := {"decision": "ALLOW"} if {
	input.spans[0].db_operation == "CONFIG GET"
}

"""


def policy(bench: RedisBench) -> Path:
    """The starter policy, and one rule more."""
    path = bench.dir / "policy.rego"
    starter = (repository() / "config/policies/starter.rego").read_text()
    before = "# Statements that only read,"
    if before not in starter:
        raise Failed(f"the starter policy has no line that begins with {before!r}")
    path.write_text(starter.replace(before, ASKED_FIRST + before, 1))
    return path


def sidecar_starter(name: str, options: argparse.Namespace) -> Callable[[RedisBench], Peer]:
    def start(bench: RedisBench) -> Peer:
        program = options.against.resolve() if name == "against" else sidecar_program(options)
        state = bench.dir / f"{name}-state"
        state.mkdir()
        port, http, agent, operator, health = (bench.port() for _ in range(5))
        argv = [str(program), "serve", "--http-listen", at(http), "--agent-listen", at(agent)]
        argv += ["--operator-listen", at(operator), "--health-listen", at(health)]
        argv += ["--state-dir", str(state), "--log-format", "json", "--policy", str(policy(bench))]
        argv += ["--redis", f"{at(port)}=redis://{at(bench.server_port)}", *options.sidecar_arg]
        if name == "sidecar-none":
            configuration = bench.dir / f"{name}.yaml"
            configuration.write_text("journal: {durability: none}\n")
            argv += ["--config", str(configuration)]
        process = bench.start(name, argv, port).process
        await_ready(bench, name, health)
        return Peer(name, port, process)

    return start


# In the order of the report. The last is not asked for by default.
PEERS = ["direct", "twemproxy", "haproxy", "sidecar", "sidecar-none"]


def starters(options: argparse.Namespace) -> dict[str, Callable[[RedisBench], Peer]]:
    """How each peer is started."""
    ways = {
        "direct": start_direct,
        "twemproxy": start_twemproxy,
        "haproxy": start_haproxy,
        "sidecar": sidecar_starter("sidecar", options),
    }
    if options.against is not None:
        ways["against"] = sidecar_starter("against", options)
    if options.peers is not None:
        ways["sidecar-none"] = sidecar_starter("sidecar-none", options)
    return ways


# --------------------------------------------------------------------------- load


def load(bench: RedisBench, peer: Peer, row: Row, commands: int) -> dict:
    """One burst: what redis-benchmark reports of it, what the server saw, and the peer's CPU time."""
    commands -= commands % row.pipeline
    argv = [found("redis-benchmark"), "-h", HOST_ADDRESS, "-p", str(peer.port), "-c", str(CLIENTS), "--csv"]
    argv += ["-t", row.command, "-n", str(commands), "-P", str(row.pipeline), "-d", str(row.size)]
    argv += ["-r", str(row.keys)] if row.keys > 1 else []
    calls, cpu = bench.calls(row.command), cpu_seconds(peer.process)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=clean_environment())
    cpu_after, calls_after = cpu_seconds(peer.process), bench.calls(row.command)
    if peer.process is not None and peer.process.poll() is not None:
        raise Failed(f"{peer.name} ended with {peer.process.returncode}\n{bench.log_tail(peer.name)}")
    lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
    if done.returncode != 0 or len(lines) != 2:
        raise Failed(f"redis-benchmark, through {peer.name}:\n{tail(done.stdout + done.stderr)}")
    told = next(csv.DictReader(lines))
    burst = {
        "rps": float(told["rps"]),
        "p50_us": float(told["p50_latency_ms"]) * 1000,
        "p99_us": float(told["p99_latency_ms"]) * 1000,
        "commands": commands,
        # It may send a few more, whose answers it does not wait for.
        "errors": max(0, commands - (calls_after - calls)),
    }
    if cpu is not None and cpu_after is not None:
        burst["cpu_s_per_1000"] = (cpu_after - cpu) / commands * 1000
    return burst


def paced(bench: RedisBench, peer: Peer, row: Row, seconds: float) -> dict:
    """A burst of about that many seconds: redis-benchmark only counts commands."""
    if row.name not in peer.pace:
        peer.pace[row.name] = load(bench, peer, row, TRIAL_COMMANDS)["rps"]
    burst = load(bench, peer, row, max(COMMANDS_MIN, int(peer.pace[row.name] * seconds)))
    peer.pace[row.name] = burst["rps"]
    return burst


def measure(bench: RedisBench, peers: list[Peer], options: argparse.Namespace) -> dict[str, dict[str, list[dict]]]:
    """All bursts: by row, by peer, one for each round."""
    bursts: dict[str, dict[str, list[dict]]] = {name: {} for name in options.rows}
    for round_number in range(options.rounds):
        for row in options.rows.values():
            bench.fill(row.size)
            for peer in rotated(peers, round_number):
                burst = paced(bench, peer, row, options.seconds)
                bursts[row.name].setdefault(peer.name, []).append(burst)
                note(
                    f"{round_number + 1}/{options.rounds} {row.name:10} {peer.name:12}{burst['rps']:11,.0f}/s"
                    f"{burst.get('cpu_s_per_1000', 0) * 1000:8.2f} µs CPU"
                    + (f"  {burst['errors']} errors" if burst["errors"] else "")
                )
    return bursts


# --------------------------------------------------------------------------- results


def of_peer(rounds: list[dict]) -> dict:
    """Medians over the rounds."""
    cpu = [burst["cpu_s_per_1000"] for burst in rounds if "cpu_s_per_1000" in burst]
    return {
        **{field: statistics.median(burst[field] for burst in rounds) for field in ("rps", "p50_us", "p99_us")},
        "cpu_s_per_1000": statistics.median(cpu) if cpu else None,
        "errors": sum(burst["errors"] for burst in rounds),
    }


# By how deep the pipeline is: against whom, and at least how many times their commands.
BARS = {1: ("twemproxy", 0.9), 16: ("haproxy", 0.6)}


def judge(rows: dict, known: dict[str, Row]) -> list[dict]:
    """What was asked of the sidecar, what it does, and whether that is enough."""
    verdicts = []
    for name, row in rows.items():
        against, at_least = BARS[known[name].pipeline]
        times = row["ratio"].get("sidecar", {}).get(against)
        if times is not None:
            verdicts.append(
                bar(f"{name}: commands/s against {against}", f"at least {at_least:g} ×", times, times >= at_least)
            )
    for other in ("twemproxy", "haproxy"):
        for name, row in rows.items():
            times = row["ratio"].get("sidecar", {}).get(other)
            if times is not None:
                verdicts.append(bar(f"{name}: commands/s against {other}", "1 ×, the aim", times, times >= 1.0))
    return verdicts


def markdown(report: dict) -> str:
    """The tables of the report, for the page of results."""
    out = []
    for row in report["rows"].values():
        own = row["ratio"].get("sidecar", {})
        out += [
            f"#### {row['title']}",
            "",
            "| peer | commands/s | p50 µs | p99 µs | CPU s per 1,000 | errors | sidecar is |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        for name, peer in row["peers"].items():
            cpu = "–" if peer["cpu_s_per_1000"] is None else f"{peer['cpu_s_per_1000']:.4f}"
            times = f"{own[name]:.2f} ×" if name in own else "–"
            out.append(
                f"| {name} | {peer['rps']:,.0f} | {peer['p50_us']:,.0f} | {peer['p99_us']:,.0f} | {cpu} "
                f"| {peer['errors']} | {times} |"
            )
        out.append("")
    out += closing_lines(report)
    return "\n".join(out)


# --------------------------------------------------------------------------- command line


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a burst, about (2)")
    parser.add_argument("--quick", action="store_true", help="one round of short bursts, to see that it works")
    parser.add_argument("--rows", help="comma-separated: " + ",".join(row.name for row in ROWS))
    parser.add_argument("--peers", help="comma-separated: " + ",".join(PEERS))
    parser.add_argument("--sidecar", type=Path, help="a built openbox-sidecar (default: build this repository)")
    parser.add_argument("--against", type=Path, help="another openbox-sidecar, as one more peer")
    parser.add_argument("--sidecar-arg", action="append", default=[], help="one more argument for the sidecar; repeatable")
    parser.add_argument("--awake", action="store_true", help="keep idle cores awake (see benches/README.md)")
    parser.add_argument("--json", type=Path, default=CACHE / "redis.json", help="file for the results")
    parser.add_argument("--markdown", action="store_true", help="print tables instead of JSON")
    parser.add_argument("--keep", action="store_true", help="keep the folder with configurations and logs")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 0.3
    if options.rounds < 1:
        parser.error("at least one round")
    options.rows = chosen(parser, options.rows, {row.name: row for row in ROWS})
    options.peers = chosen(parser, options.peers, starters(options))
    return options


def start_peer(bench: RedisBench, start: Callable[[RedisBench], Peer]) -> Peer:
    """Starts it, and sees that it leads to the server."""
    peer = start(bench)
    if load(bench, peer, ROWS[0], COMMANDS_MIN)["errors"]:
        raise Failed(f"{peer.name}: commands do not come to the server\n{bench.log_tail(peer.name)}")
    return peer


def run(bench: RedisBench, options: argparse.Namespace) -> dict:
    failed: dict[str, str] = {}
    peers = []
    for name, start in options.peers.items():
        if peer := attempt(name, failed, lambda start=start: start_peer(bench, start)):
            peers.append(peer)
    if not peers:
        raise Failed("no peer runs")
    about = machine()
    if options.awake:
        bench.keep_awake()
    stolen, total = stolen_and_total_ticks()
    bursts = measure(bench, peers, options)
    stolen_after, total_after = stolen_and_total_ticks()
    about["stolen_percent"] = (stolen_after - stolen) / max(1, total_after - total) * 100
    rows = summarize(bursts, options.rows, of_peer, "rps")
    return {
        "machine": about,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "cores_kept_awake": options.awake,
        "rows": rows,
        "bars": judge(rows, options.rows),
        "failed": failed,
        "bursts": bursts,
    }


def main() -> int:
    options = parse_arguments()
    report = carry_out(lambda: RedisBench(options.peers), lambda bench: run(bench, options), options.keep)
    return report if isinstance(report, int) else tell(report, options, markdown)


if __name__ == "__main__":
    sys.exit(main())
