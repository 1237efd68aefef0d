"""What the load benchmarks of the SQL relays share: their peers, how those are measured, and what is asked.

Statements are said by a load generator (a database's `load`), streams and idle connections by a
client of the protocol that does nothing it need not.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from harness import (
    CACHE,
    HOST_ADDRESS,
    Bench,
    Failed,
    at,
    attempt,
    await_ready,
    bar,
    carry_out,
    chosen,
    closing_lines,
    cpu_seconds,
    found_or_fail,
    machine,
    note,
    peak_kib,
    ratio,
    resident_kib,
    rotated,
    sidecar_program,
    stolen_and_total_ticks,
    summarize,
    tell,
)

CONNECTIONS_MAX = 2_600  # also for a pool that keeps those of the server that its clients have left
IDLE = 1_000
IDLE_SETTLE_S = 2.0
STREAM_BYTES = 1 << 30
LINE_BYTES = 1 << 10


# --------------------------------------------------------------------------- what differs


class Row(Protocol):
    """A kind of statements, and how many say them at once."""

    name: str
    title: str


@dataclasses.dataclass(frozen=True)
class Stream:
    name: str
    title: str
    run: Callable[[Any], int]  # with a client; bytes that it read or wrote


@dataclasses.dataclass
class Peer:
    """A way from the client to the server, once it runs."""

    name: str
    port: int
    process: subprocess.Popen | None = None


class SqlBench(Bench):
    """A bench, and the server that its peers lead to."""

    server_port: int


Start = Callable[[Any], Peer]


@dataclasses.dataclass(frozen=True)
class Database:
    """What is measured, and with what."""

    about: str  # of the command line
    name: str  # of the file with results
    flag: str  # of the sidecar, with LISTEN=URL
    scheme: str  # of that URL
    rows: list[Row]
    checks: list[Row]  # that each peer must serve before it is measured
    streams: list[Stream]
    others: dict[str, Start]  # peers besides direct, haproxy and the sidecar
    bench: Callable[[list[str]], SqlBench]
    load: Callable[[Peer, Any, float], dict]
    client: Callable[[str, int], Any]
    rest_after: str  # what an idle connection has run
    judge: Callable[[dict], list[dict]]  # statements: what was asked, and found


# --------------------------------------------------------------------------- the peers


def start_direct(bench: SqlBench) -> Peer:
    return Peer("direct", bench.server_port)


HAPROXY_CFG = """\
global
    maxconn {connections}
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen database
    bind {address}:{port}
    server only {address}:{server}
"""


def start_haproxy(bench: SqlBench) -> Peer:
    """haproxy that moves bytes and reads none."""
    port = bench.port()
    configuration = bench.dir / "haproxy.cfg"
    configuration.write_text(
        HAPROXY_CFG.format(address=HOST_ADDRESS, server=bench.server_port, port=port, connections=CONNECTIONS_MAX)
    )
    argv = [found_or_fail("haproxy"), "-db", "-f", str(configuration)]
    return Peer("haproxy", port, bench.start("haproxy", argv, port).process)


def sidecar_starter(database: Database, name: str, options: argparse.Namespace) -> Start:
    def start(bench: SqlBench) -> Peer:
        program = sidecar_program(options) if name == "sidecar" else options.against.resolve()
        state = bench.dir / f"{name}-state"
        state.mkdir()
        port, http, agent, operator, health = (bench.port() for _ in range(5))
        argv = [str(program), "serve", "--http-listen", at(http), "--agent-listen", at(agent)]
        argv += ["--operator-listen", at(operator), "--health-listen", at(health)]
        argv += ["--state-dir", str(state), "--log-format", "json"]
        argv += [database.flag, f"{at(port)}={database.scheme}://{at(bench.server_port)}", *options.sidecar_arg]
        process = bench.start(name, argv, port).process
        await_ready(bench, name, health)
        return Peer(name, port, process)

    return start


def starters(database: Database, options: argparse.Namespace) -> dict[str, Start]:
    """How each peer is started, in the order of the report."""
    ways = {
        "direct": start_direct,
        **database.others,
        "haproxy": start_haproxy,
        "sidecar": sidecar_starter(database, "sidecar", options),
    }
    if options.against is not None:
        ways["against"] = sidecar_starter(database, "against", options)
    return ways


# --------------------------------------------------------------------------- statements


def burst_of(database: Database, peer: Peer, row: Row, seconds: float) -> dict:
    """One burst: what its load generator reports, and the CPU time of the peer's processes."""
    before = cpu_seconds(peer.process)
    burst = database.load(peer, row, seconds)
    after = cpu_seconds(peer.process)
    if peer.process is not None and peer.process.poll() is not None:
        raise Failed(f"{peer.name} ended with {peer.process.returncode}")
    if before is not None and after is not None and burst["statements"]:
        burst["cpu_s_per_1000"] = (after - before) / burst["statements"] * 1000
    return burst


def measure(database: Database, peers: list[Peer], options: argparse.Namespace) -> dict[str, dict[str, list[dict]]]:
    """All bursts: by row, by peer, one for each round."""
    bursts: dict[str, dict[str, list[dict]]] = {name: {} for name in options.rows}
    for round_number in range(options.rounds):
        for row in options.rows.values():
            for peer in rotated(peers, round_number):
                burst = burst_of(database, peer, row, options.seconds)
                bursts[row.name].setdefault(peer.name, []).append(burst)
                note(
                    f"{round_number + 1}/{options.rounds} {row.name:16} {peer.name:10}{burst['tps']:9,.0f}/s"
                    f"{burst.get('cpu_s_per_1000', 0) * 1000:8.1f} µs CPU"
                    + (f"  {burst['errors']} errors" if burst["errors"] else "")
                )
    return bursts


# --------------------------------------------------------------------------- streams and idleness


def measure_streams(
    database: Database, peers: list[Peer], options: argparse.Namespace
) -> dict[str, dict[str, list[dict]]]:
    """Seconds, and what a stream adds to the peer's memory at its peak."""
    found_of: dict[str, dict[str, list[dict]]] = {name: {} for name in options.streams}
    for round_number in range(options.stream_rounds):
        for stream in options.streams.values():
            for peer in rotated(peers, round_number):
                with database.client(HOST_ADDRESS, peer.port) as client:
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


def measure_idle(database: Database, peers: list[Peer], count: int) -> dict[str, float]:
    """KiB of resident memory that each connection adds which has said something and then rests."""
    each = {}
    for peer in peers:
        if peer.process is None:
            continue
        # Once before: what is made on the first occasion belongs to no connection.
        for connections in (count // 4, count):
            before = resident_kib(peer.process)
            clients = [database.client(HOST_ADDRESS, peer.port) for _ in range(connections)]
            try:
                for client in clients:
                    client.read_all(database.rest_after)
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


def judge(statements: list[dict], streams: dict, idle: dict) -> list[dict]:
    """What was asked of the sidecar, what it does, and whether that is enough."""
    verdicts = list(statements)
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


def parse_arguments(database: Database) -> argparse.Namespace:
    names = ["direct", *database.others, "haproxy", "sidecar"]
    parser = argparse.ArgumentParser(description=database.about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of statements (3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a burst, whole seconds (3)")
    parser.add_argument("--stream-rounds", type=int, default=3, help="rounds of streams (3); 0 for none")
    parser.add_argument("--idle", type=int, default=IDLE, help=f"idle connections ({IDLE}); 0 for none")
    parser.add_argument("--quick", action="store_true", help="one round of one second, few idle connections")
    parser.add_argument("--rows", help="comma-separated: " + ",".join(row.name for row in database.rows))
    parser.add_argument("--streams", help="comma-separated: " + ",".join(stream.name for stream in database.streams))
    parser.add_argument("--peers", help="comma-separated: " + ",".join(names))
    parser.add_argument("--sidecar", type=Path, help="a built openbox-sidecar (default: build this repository)")
    parser.add_argument("--against", type=Path, help="another openbox-sidecar, as one more peer")
    parser.add_argument("--sidecar-arg", action="append", default=[], help="one more argument for the sidecar; repeatable")
    parser.add_argument("--awake", action="store_true", help="keep idle cores awake (see benches/README.md)")
    parser.add_argument("--json", type=Path, default=CACHE / f"{database.name}.json", help="file for the results")
    parser.add_argument("--markdown", action="store_true", help="print tables instead of JSON")
    parser.add_argument("--keep", action="store_true", help="keep the folder with configurations and logs")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
        options.stream_rounds, options.idle = min(options.stream_rounds, 1), min(options.idle, 100)
    if options.rounds < 0 or options.stream_rounds < 0:
        parser.error("a number of rounds is not negative")
    options.rows = chosen(parser, options.rows, {row.name: row for row in database.rows})
    options.streams = chosen(parser, options.streams, {stream.name: stream for stream in database.streams})
    options.peers = chosen(parser, options.peers, starters(database, options))
    return options


def allow_many_files() -> None:
    """Thousands of connections, in us and in what we start."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def start_peer(database: Database, bench: SqlBench, start: Start) -> Peer:
    """Starts it, and sees that it leads to the server in every mode."""
    peer = start(bench)
    for row in database.checks:
        if burst_of(database, peer, row, 1)["errors"]:
            raise Failed(f"{peer.name}: {row.title} fails\n{bench.log_tail(peer.name)}")
    return peer


def run(database: Database, bench: SqlBench, options: argparse.Namespace) -> dict:
    failed: dict[str, str] = {}
    peers = []
    for name, start in options.peers.items():
        if peer := attempt(name, failed, lambda start=start: start_peer(database, bench, start)):
            peers.append(peer)
    if not peers:
        raise Failed("no peer runs")
    about = machine()
    # First: memory that a load has left behind hides what a connection takes.
    idle = (attempt("idle", failed, lambda: measure_idle(database, peers, options.idle)) or {}) if options.idle else {}
    if options.awake:
        bench.keep_awake()
    stolen, total = stolen_and_total_ticks()
    bursts = measure(database, peers, options)
    streamed = attempt("streams", failed, lambda: measure_streams(database, peers, options)) or {}
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
        "bars": judge(database.judge(rows), streams, idle),
        "failed": failed,
        "bursts": bursts,
        "streamed": streamed,
    }


def main(database: Database) -> int:
    options = parse_arguments(database)
    allow_many_files()
    report = carry_out(
        lambda: database.bench(list(options.peers)), lambda bench: run(database, bench, options), options.keep
    )
    return report if isinstance(report, int) else tell(report, options, markdown)
