#!/usr/bin/env python3
"""Load benchmark of the PostgreSQL relay against direct connections, pgbouncer and haproxy.

Every peer runs at the same time on loopback, and the rows are interleaved: round by round, row by
row, each peer gets a short burst. What the machine does to one it does to all.

Installs what is missing (the Debian packages postgresql, postgresql-contrib, pgbouncer and haproxy),
builds the sidecar, and ends what it started. The server is a new one, in a folder of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import resource
import statistics
import subprocess
import sys
import time
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
    peak_kib,
    ratio,
    resident_kib,
    rotated,
    run_checked,
    sidecar_program,
    stolen_and_total_ticks,
    summarize,
    tail,
    tell,
)

import server  # noqa: E402  (it lies in this folder)
from client import Client  # noqa: E402
from server import as_server, found, found_or_fail  # noqa: E402

# By program; a peer's is called as the peer is.
PACKAGES = {
    "pgbouncer": "pgbouncer",
    "haproxy": "haproxy",
    "pgbench": "postgresql-contrib",
}
ACCOUNTS = 100_000
CONNECTIONS_MAX = 2_600  # pgbouncer keeps those of the server that its clients have left
IDLE = 1_000
IDLE_SETTLE_S = 2.0
STREAM_BYTES = 1 << 30
LINE_BYTES = 1 << 10


# --------------------------------------------------------------------------- rows and peers


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    title: str
    mode: str  # of pgbench: simple, extended, prepared
    clients: int


ROWS = [
    Row(f"{mode}-{clients}", f"{mode} protocol, {clients} client{'s' * (clients > 1)}", mode, clients)
    for mode in ("simple", "extended", "prepared")
    for clients in (1, 8)
]


@dataclasses.dataclass(frozen=True)
class Stream:
    name: str
    title: str
    run: Callable[[Client], int]  # bytes that the client read or wrote


def lines(count: int) -> str:
    return f"SELECT repeat('x', {LINE_BYTES - 1}) FROM generate_series(1, {count})"


STREAMS = [
    Stream("rows", "1 GiB result, rows of 1 KiB", lambda client: client.read_all(lines(STREAM_BYTES // LINE_BYTES))),
    Stream(
        "long-rows",
        "1 GiB result, rows of 16 MiB",
        lambda client: client.read_all(f"SELECT repeat('x', 1 << 24) FROM generate_series(1, {STREAM_BYTES >> 24})"),
    ),
    Stream(
        "copy-out",
        "COPY of 1 GiB to the client, lines of 1 KiB",
        lambda client: client.read_all(f"COPY ({lines(STREAM_BYTES // LINE_BYTES)}) TO STDOUT"),
    ),
    Stream(
        "copy-in",
        "COPY of 1 GiB to the server, lines of 1 KiB, none stored",
        lambda client: client.copy_in(
            "COPY sink FROM STDIN WHERE false", (b"x" * (LINE_BYTES - 1) + b"\n") * 64, STREAM_BYTES
        ),
    ),
]


@dataclasses.dataclass
class Peer:
    """A way from the client to the server, once it runs."""

    name: str
    port: int
    process: subprocess.Popen | None = None


class PgBench(Bench):
    """A bench, and the server that its peers lead to."""

    def __init__(self, peers: Iterable[str]) -> None:
        super().__init__()
        for program, package in PACKAGES.items():
            if program in {"pgbench", *peers} and found(program) is None:
                apt_install([package])
        self.server_port = self.port()
        self.start_server()

    def start_server(self) -> None:
        """A new server with pgbench's tables; anybody local is believed."""
        settings = {"max_connections": CONNECTIONS_MAX, "shared_buffers": "256MB", "jit": "off"}
        server.start(self, self.server_port, settings)
        scale = str(ACCOUNTS // 100_000)
        run_checked([*self.client_program("pgbench"), "-i", "-q", "-s", scale, "postgres"], "making pgbench's tables")
        run_checked(
            [*self.client_program("psql"), "-c", "CREATE TABLE sink (line text)", "postgres"], "making a table"
        )

    def client_program(self, name: str) -> list[str]:
        return [found_or_fail(name), "-h", HOST_ADDRESS, "-p", str(self.server_port), "-U", "postgres"]


# --------------------------------------------------------------------------- the peers


def start_direct(bench: PgBench) -> Peer:
    return Peer("direct", bench.server_port)


PGBOUNCER_INI = """\
[databases]
* = host={address} port={server}
[pgbouncer]
listen_addr = {address}
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = session
default_pool_size = {connections}
max_client_conn = {connections}
log_connections = 0
log_disconnections = 0
ignore_startup_parameters = extra_float_digits
"""


def start_pgbouncer(bench: PgBench) -> Peer:
    """pgbouncer in session mode: a connection of the server for each of a client."""
    port = bench.port()
    users, configuration = bench.dir / "users.txt", bench.dir / "pgbouncer.ini"
    users.write_text('"postgres" ""\n')
    configuration.write_text(
        PGBOUNCER_INI.format(
            address=HOST_ADDRESS, server=bench.server_port, port=port, users=users, connections=CONNECTIONS_MAX
        )
    )
    # It does not run as root, either.
    argv = as_server([found_or_fail("pgbouncer"), "-q", str(configuration)])
    return Peer("pgbouncer", port, bench.start("pgbouncer", argv, port).process)


HAPROXY_CFG = """\
global
    maxconn {connections}
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen postgres
    bind {address}:{port}
    server only {address}:{server}
"""


def start_haproxy(bench: PgBench) -> Peer:
    """haproxy that moves bytes and reads none."""
    port = bench.port()
    configuration = bench.dir / "haproxy.cfg"
    configuration.write_text(
        HAPROXY_CFG.format(address=HOST_ADDRESS, server=bench.server_port, port=port, connections=CONNECTIONS_MAX)
    )
    argv = [found_or_fail("haproxy"), "-db", "-f", str(configuration)]
    return Peer("haproxy", port, bench.start("haproxy", argv, port).process)


def sidecar_starter(name: str, options: argparse.Namespace) -> Callable[[PgBench], Peer]:
    def start(bench: PgBench) -> Peer:
        program = sidecar_program(options) if name == "sidecar" else options.against.resolve()
        state = bench.dir / f"{name}-state"
        state.mkdir()
        port, http, agent, operator, health = (bench.port() for _ in range(5))
        argv = [str(program), "serve", "--http-listen", at(http), "--agent-listen", at(agent)]
        argv += ["--operator-listen", at(operator), "--health-listen", at(health)]
        argv += ["--state-dir", str(state), "--log-format", "json"]
        argv += ["--pg", f"{at(port)}=postgres://{at(bench.server_port)}", *options.sidecar_arg]
        process = bench.start(name, argv, port).process
        await_ready(bench, name, health)
        return Peer(name, port, process)

    return start


# In the order of the report.
PEERS = ["direct", "pgbouncer", "haproxy", "sidecar"]


def starters(options: argparse.Namespace) -> dict[str, Callable[[PgBench], Peer]]:
    """How each peer is started."""
    ways = {
        "direct": start_direct,
        "pgbouncer": start_pgbouncer,
        "haproxy": start_haproxy,
        "sidecar": sidecar_starter("sidecar", options),
    }
    if options.against is not None:
        ways["against"] = sidecar_starter("against", options)
    return ways


# --------------------------------------------------------------------------- statements


def load(peer: Peer, row: Row, seconds: float) -> dict:
    """One burst: what pgbench reports of it, and the CPU time of the peer's processes."""
    argv = [found_or_fail("pgbench"), "-n", "-S", "-M", row.mode, "-c", str(row.clients), "-j", "1"]
    argv += ["-T", str(max(1, round(seconds))), "-h", HOST_ADDRESS, "-p", str(peer.port), "-U", "postgres", "postgres"]
    before = cpu_seconds(peer.process)
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=seconds + 60, check=False, env=clean_environment()
    )
    after = cpu_seconds(peer.process)
    if done.returncode != 0:
        raise Failed(f"pgbench, through {peer.name}:\n{tail(done.stdout + done.stderr)}")
    burst = {
        "tps": number(done.stdout, r"^tps = ([\d.]+)"),
        "average_us": number(done.stdout, r"^latency average = ([\d.]+) ms") * 1000,
        "statements": number(done.stdout, r"^number of transactions actually processed: (\d+)"),
        "errors": int(number(done.stdout, r"^number of failed transactions: (\d+)")),
    }
    if peer.process is not None and peer.process.poll() is not None:
        raise Failed(f"{peer.name} ended with {peer.process.returncode}")
    if before is not None and after is not None and burst["statements"]:
        burst["cpu_s_per_1000"] = (after - before) / burst["statements"] * 1000
    return burst


def number(text: str, pattern: str) -> float:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise Failed(f"pgbench does not say {pattern}:\n{tail(text)}")
    return float(match[1])


def measure(peers: list[Peer], options: argparse.Namespace) -> dict[str, dict[str, list[dict]]]:
    """All bursts: by row, by peer, one for each round."""
    bursts: dict[str, dict[str, list[dict]]] = {name: {} for name in options.rows}
    for round_number in range(options.rounds):
        for row in options.rows.values():
            for peer in rotated(peers, round_number):
                burst = load(peer, row, options.seconds)
                bursts[row.name].setdefault(peer.name, []).append(burst)
                note(
                    f"{round_number + 1}/{options.rounds} {row.name:12} {peer.name:10}{burst['tps']:9,.0f}/s"
                    f"{burst.get('cpu_s_per_1000', 0) * 1000:8.1f} µs CPU"
                    + (f"  {burst['errors']} errors" if burst["errors"] else "")
                )
    return bursts


# --------------------------------------------------------------------------- streams and idleness


def measure_streams(peers: list[Peer], options: argparse.Namespace) -> dict[str, dict[str, list[dict]]]:
    """Seconds, and what a stream adds to the peer's memory at its peak."""
    found_of: dict[str, dict[str, list[dict]]] = {name: {} for name in options.streams}
    for round_number in range(options.stream_rounds):
        for stream in options.streams.values():
            for peer in rotated(peers, round_number):
                with Client(HOST_ADDRESS, peer.port) as client:
                    before = resident_kib(peer.process) if peer.process else 0
                    if peer.process:
                        peak_kib(peer.process)  # counts anew from here
                    cpu = cpu_seconds(peer.process)
                    begun = time.perf_counter()
                    size = stream.run(client)
                    seconds = time.perf_counter() - begun
                    after = peak_kib(peer.process) if peer.process else 0
                    cpu_after = cpu_seconds(peer.process)
                burst = {"seconds": seconds, "bytes": size, "extra_kib": after - before}
                if cpu is not None and cpu_after is not None:
                    burst["cpu_s"] = cpu_after - cpu
                found_of[stream.name].setdefault(peer.name, []).append(burst)
                note(
                    f"{round_number + 1}/{options.stream_rounds} {stream.name:12} {peer.name:10}"
                    f"{seconds:7.2f} s {burst['extra_kib']:7,} KiB"
                )
    for name, of_stream in found_of.items():
        sizes = {burst["bytes"] for rounds in of_stream.values() for burst in rounds}
        if len(sizes) > 1:
            raise Failed(f"{name}: not every peer carried the same bytes: {sorted(sizes)}")
    return found_of


def measure_idle(peers: list[Peer], count: int) -> dict[str, float]:
    """KiB of resident memory that each connection adds which has said something and then rests."""
    each = {}
    for peer in peers:
        if peer.process is None:
            continue
        # Once before: what is made on the first occasion belongs to no connection.
        for connections in (count // 4, count):
            before = resident_kib(peer.process)
            clients = [Client(HOST_ADDRESS, peer.port) for _ in range(connections)]
            try:
                for client in clients:
                    client.read_all("SELECT abalance FROM pgbench_accounts WHERE aid = 7")
                time.sleep(IDLE_SETTLE_S)
                each[peer.name] = (resident_kib(peer.process) - before) / connections
            finally:
                for client in clients:
                    client.close()
            time.sleep(IDLE_SETTLE_S)
        note(f"idle {peer.name:10} {each[peer.name]:6.1f} KiB each")
    return each


# --------------------------------------------------------------------------- results


def of_peer(rounds: list[dict]) -> dict:
    """Medians over the rounds."""
    cpu = [burst["cpu_s_per_1000"] for burst in rounds if "cpu_s_per_1000" in burst]
    return {
        "tps": statistics.median(burst["tps"] for burst in rounds),
        "average_us": statistics.median(burst["average_us"] for burst in rounds),
        "cpu_s_per_1000": statistics.median(cpu) if cpu else None,
        "errors": sum(burst["errors"] for burst in rounds),
    }


def summarize_streams(found_of: dict, streams: dict[str, Stream]) -> dict:
    return {
        name: {
            "title": streams[name].title,
            "peers": {
                peer: {
                    "seconds": statistics.median(burst["seconds"] for burst in rounds),
                    "cpu_s": statistics.median(burst.get("cpu_s", 0.0) for burst in rounds),
                    "extra_mib": max(burst["extra_kib"] for burst in rounds) / 1024,
                    "time_of_haproxy": ratio(rounds, of_stream["haproxy"], "seconds")
                    if "haproxy" in of_stream
                    else None,
                }
                for peer, rounds in of_stream.items()
            },
        }
        for name, of_stream in found_of.items()
        if of_stream
    }


STREAM_TIME_MAX = 1.10
STREAM_MIB_MAX = 2.0
IDLE_KIB_MAX = 16.0


def judge(rows: dict, streams: dict, idle: dict) -> list[dict]:
    """What was asked of the sidecar, what it does, and whether that is enough."""
    verdicts = []
    for other, wish in (("haproxy", "at least 1 ×"), ("pgbouncer", "1 ×, the aim")):
        for name, row in rows.items():
            times = row["ratio"].get("sidecar", {}).get(other)
            if times is not None:
                verdicts.append(bar(f"{name}: statements/s against {other}", wish, times, times >= 1.0))
    for name, stream in streams.items():
        own = stream["peers"].get("sidecar")
        if own is None:
            continue
        if own["time_of_haproxy"] is not None:
            times = own["time_of_haproxy"]
            verdicts.append(
                bar(f"{name}: time against haproxy", f"at most {STREAM_TIME_MAX:g} ×", times, times <= STREAM_TIME_MAX)
            )
        extra = own["extra_mib"]
        verdicts.append(
            bar(f"{name}: extra memory, MiB", f"under {STREAM_MIB_MAX:g}", extra, extra < STREAM_MIB_MAX)
        )
    if "sidecar" in idle:
        each = idle["sidecar"]
        verdicts.append(bar("an idle connection, KiB", f"under {IDLE_KIB_MAX:g}", each, each < IDLE_KIB_MAX))
    return verdicts


def markdown(report: dict) -> str:
    """The tables of the report, for the page of results."""
    out = []
    for row in report["rows"].values():
        own = row["ratio"].get("sidecar", {})
        out += [
            f"#### {row['title'][0].upper()}{row['title'][1:]}",
            "",
            "| peer | statements/s | average µs | CPU s per 1,000 | errors | sidecar is |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for name, peer in row["peers"].items():
            cpu = "–" if peer["cpu_s_per_1000"] is None else f"{peer['cpu_s_per_1000']:.4f}"
            times = f"{own[name]:.2f} ×" if name in own else "–"
            out.append(
                f"| {name} | {peer['tps']:,.0f} | {peer['average_us']:,.0f} | {cpu} | {peer['errors']} | {times} |"
            )
        out.append("")
    for stream in report["streams"].values():
        out += [f"#### {stream['title']}", "", "| peer | seconds | CPU s | extra MiB | time of haproxy's |"]
        out.append("|---|---:|---:|---:|---:|")
        for name, peer in stream["peers"].items():
            times = "–" if peer["time_of_haproxy"] is None else f"{peer['time_of_haproxy']:.2f} ×"
            cost = f"{peer['cpu_s']:.2f} | {peer['extra_mib']:.1f}" if name != "direct" else "– | –"
            out.append(f"| {name} | {peer['seconds']:.2f} | {cost} | {times} |")
        out.append("")
    if report["idle_kib"]:
        out += ["#### An idle connection that has run one statement", "", "| peer | KiB |", "|---|---:|"]
        out += [f"| {name} | {each:.1f} |" for name, each in report["idle_kib"].items()]
        out.append("")
    out += closing_lines(report)
    return "\n".join(out)


# --------------------------------------------------------------------------- command line


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of statements (3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a burst, whole seconds (3)")
    parser.add_argument("--stream-rounds", type=int, default=3, help="rounds of streams (3); 0 for none")
    parser.add_argument("--idle", type=int, default=IDLE, help=f"idle connections ({IDLE}); 0 for none")
    parser.add_argument("--quick", action="store_true", help="one round of one second, few idle connections")
    parser.add_argument("--rows", help="comma-separated: " + ",".join(row.name for row in ROWS))
    parser.add_argument("--streams", help="comma-separated: " + ",".join(stream.name for stream in STREAMS))
    parser.add_argument("--peers", help="comma-separated: " + ",".join(PEERS))
    parser.add_argument("--sidecar", type=Path, help="a built openbox-sidecar (default: build this repository)")
    parser.add_argument("--against", type=Path, help="another openbox-sidecar, as one more peer")
    parser.add_argument("--sidecar-arg", action="append", default=[], help="one more argument for the sidecar; repeatable")
    parser.add_argument("--awake", action="store_true", help="keep idle cores awake (see benches/README.md)")
    parser.add_argument("--json", type=Path, default=CACHE / "postgres.json", help="file for the results")
    parser.add_argument("--markdown", action="store_true", help="print tables instead of JSON")
    parser.add_argument("--keep", action="store_true", help="keep the folder with configurations and logs")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
        options.stream_rounds, options.idle = min(options.stream_rounds, 1), min(options.idle, 100)
    if options.rounds < 0 or options.stream_rounds < 0:
        parser.error("a number of rounds is not negative")
    options.rows = chosen(parser, options.rows, {row.name: row for row in ROWS})
    options.streams = chosen(parser, options.streams, {stream.name: stream for stream in STREAMS})
    options.peers = chosen(parser, options.peers, starters(options))
    return options


def allow_many_files() -> None:
    """Thousands of connections, in us and in what we start."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def start_peer(bench: PgBench, start: Callable[[PgBench], Peer]) -> Peer:
    """Starts it, and sees that it leads to the server in every mode."""
    peer = start(bench)
    for mode in ("simple", "extended", "prepared"):
        if load(peer, Row("check", "", mode, 1), 1)["errors"]:
            raise Failed(f"{peer.name}: statements fail in {mode} mode\n{bench.log_tail(peer.name)}")
    return peer


def run(bench: PgBench, options: argparse.Namespace) -> dict:
    failed: dict[str, str] = {}
    peers = []
    for name, start in options.peers.items():
        if peer := attempt(name, failed, lambda start=start: start_peer(bench, start)):
            peers.append(peer)
    if not peers:
        raise Failed("no peer runs")
    about = machine()
    # First: memory that a load has left behind hides what a connection takes.
    idle = (attempt("idle", failed, lambda: measure_idle(peers, options.idle)) or {}) if options.idle else {}
    if options.awake:
        bench.keep_awake()
    stolen, total = stolen_and_total_ticks()
    bursts = measure(peers, options)
    streamed = attempt("streams", failed, lambda: measure_streams(peers, options)) or {}
    stolen_after, total_after = stolen_and_total_ticks()
    about["stolen_percent"] = (stolen_after - stolen) / max(1, total_after - total) * 100
    rows, streams = summarize(bursts, options.rows, of_peer, "tps"), summarize_streams(streamed, options.streams)
    return {
        "machine": about,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "cores_kept_awake": options.awake,
        "rows": rows,
        "streams": streams,
        "idle_kib": idle,
        "bars": judge(rows, streams, idle),
        "failed": failed,
        "bursts": bursts,
        "streamed": streamed,
    }


def main() -> int:
    options = parse_arguments()
    allow_many_files()
    report = carry_out(lambda: PgBench(options.peers), lambda bench: run(bench, options), options.keep)
    return report if isinstance(report, int) else tell(report, options, markdown)


if __name__ == "__main__":
    sys.exit(main())
