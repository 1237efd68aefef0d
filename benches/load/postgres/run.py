#!/usr/bin/env python3
"""Load benchmark of the PostgreSQL relay against direct connections, pgbouncer and haproxy.

Every peer runs at the same time on loopback, and the rows are interleaved: round by round, row by
row, each peer gets a short burst. What the machine does to one it does to all.

Installs what is missing (the Debian packages postgresql, postgresql-contrib, pgbouncer and haproxy),
builds the sidecar, and ends what it started. The server is a new one, in a folder of its own.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import (  # noqa: E402  (it lies beside this folder)
    HOST_ADDRESS,
    Failed,
    bar,
    clean_environment,
    found_or_fail,
    install_missing,
    run_checked,
    tail,
)
from relay import (  # noqa: E402
    CONNECTIONS_MAX,
    LINE_BYTES,
    STREAM_BYTES,
    Database,
    Peer,
    SqlBench,
    Stream,
    main,
)

import server  # noqa: E402  (it lies in this folder)
from client import Client  # noqa: E402
from server import as_server  # noqa: E402

# By program; a peer's is called as the peer is.
PACKAGES = {
    "pgbouncer": "pgbouncer",
    "haproxy": "haproxy",
    "pgbench": "postgresql-contrib",
}
ACCOUNTS = 100_000


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


class PgBench(SqlBench):
    """A bench, and the server that its peers lead to."""

    def __init__(self, peers: list[str]) -> None:
        super().__init__()
        install_missing({one: PACKAGES[one] for one in PACKAGES if one in {"pgbench", *peers}})
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


# --------------------------------------------------------------------------- statements


def load(peer: Peer, row: Row, seconds: float) -> dict:
    """One burst: what pgbench reports of it."""
    argv = [found_or_fail("pgbench"), "-n", "-S", "-M", row.mode, "-c", str(row.clients), "-j", "1"]
    argv += ["-T", str(max(1, round(seconds))), "-h", HOST_ADDRESS, "-p", str(peer.port), "-U", "postgres", "postgres"]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=seconds + 60, check=False, env=clean_environment()
    )
    if done.returncode != 0:
        raise Failed(f"pgbench, through {peer.name}:\n{tail(done.stdout + done.stderr)}")
    return {
        "tps": number(done.stdout, r"^tps = ([\d.]+)"),
        "average_us": number(done.stdout, r"^latency average = ([\d.]+) ms") * 1000,
        "statements": number(done.stdout, r"^number of transactions actually processed: (\d+)"),
        "errors": int(number(done.stdout, r"^number of failed transactions: (\d+)")),
    }


def number(text: str, pattern: str) -> float:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise Failed(f"pgbench does not say {pattern}:\n{tail(text)}")
    return float(match[1])


def judge(rows: dict) -> list[dict]:
    """What was asked of the sidecar's statements, what it does, and whether that is enough."""
    verdicts = []
    for other, wish in (("haproxy", "at least 1 ×"), ("pgbouncer", "1 ×, the aim")):
        for name, row in rows.items():
            times = row["ratio"].get("sidecar", {}).get(other)
            if times is not None:
                verdicts.append(bar(f"{name}: statements/s against {other}", wish, times, times >= 1.0))
    return verdicts


POSTGRES = Database(
    about=__doc__ or "",
    name="postgres",
    flag="--pg",
    scheme="postgres",
    rows=ROWS,
    checks=[Row("check", f"{mode} mode", mode, 1) for mode in ("simple", "extended", "prepared")],
    streams=STREAMS,
    others={"pgbouncer": start_pgbouncer},
    bench=PgBench,
    load=load,
    client=Client,
    rest_after="SELECT abalance FROM pgbench_accounts WHERE aid = 7",
    judge=judge,
)

if __name__ == "__main__":
    sys.exit(main(POSTGRES))
