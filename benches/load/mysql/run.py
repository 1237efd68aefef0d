#!/usr/bin/env python3
"""Load benchmark of the MySQL relay against direct connections and haproxy.

Every peer runs at the same time on loopback, and the rows are interleaved: round by round, row by
row, each peer gets a short burst. What the machine does to one it does to all.

Installs what is missing (the Debian packages mariadb-server-core, mariadb-client-core, sysbench and
haproxy), builds the sidecar, and ends what it started. The server is a new one, in a folder of its own.
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

from client import Client  # noqa: E402  (it lies in this folder)

# By program; a peer's is called as the peer is.
PACKAGES = {
    "mariadbd": "mariadb-server-core",
    "mariadb-install-db": "mariadb-server-core",
    "mariadb": "mariadb-client-core",
    "sysbench": "sysbench",
    "haproxy": "haproxy",
}
TABLE_ROWS = 100_000
TIMES_OF_HAPROXY = 0.9


# --------------------------------------------------------------------------- rows


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    title: str
    test: str  # of sysbench
    mode: str  # of its --db-ps-mode: disable is text, auto prepared
    clients: int


ROWS = [
    Row(f"{short}-{how}-{clients}", f"sysbench {test}, {how}, {clients} client{'s' * (clients > 1)}", test, mode, clients)
    for short, test in (("point", "oltp_point_select"), ("write", "oltp_read_write"))
    for how, mode in (("text", "disable"), ("prepared", "auto"))
    for clients in (1, 8)
]
STREAMS = [
    Stream(
        "rows",
        "1 GiB result, rows of 1 KiB",
        lambda client: client.read_all(
            f"SELECT repeat('x', {LINE_BYTES - 1}) FROM seq_1_to_{STREAM_BYTES // LINE_BYTES} -- nothing is kept of it"
        ),
    ),
    Stream(
        "long-rows",
        "1 GiB result, rows of 8 MiB",
        lambda client: client.read_all(
            f"SELECT repeat('x', 1 << 23) FROM seq_1_to_{STREAM_BYTES >> 23} -- nothing is kept of it, either"
        ),
    ),
]


class MysqlBench(SqlBench):
    """A bench, and the server that its peers lead to."""

    def __init__(self, peers: list[str]) -> None:
        super().__init__()
        install_missing({one: PACKAGES[one] for one in PACKAGES if one != "haproxy" or one in peers})
        self.server_port = self.port()
        self.start_server()

    def start_server(self) -> None:
        """A new server with sysbench's table; user bench is believed."""
        data, path = self.dir / "data", self.dir / "s"
        install = [found_or_fail("mariadb-install-db"), "--no-defaults", "--skip-test-db", "--user=root"]
        install += ["--auth-root-authentication-method=normal", f"--datadir={data}"]
        run_checked(install, "making a server")
        argv = [found_or_fail("mariadbd"), "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={path}"]
        argv += [f"--port={self.server_port}", f"--bind-address={HOST_ADDRESS}", "--skip-name-resolve"]
        argv += [f"--max-connections={CONNECTIONS_MAX}", "--innodb-buffer-pool-size=256M"]
        argv += ["--innodb-flush-log-at-trx-commit=0", "--max-allowed-packet=64M"]
        self.start("server", argv, self.server_port)
        made = "CREATE DATABASE bench; CREATE USER bench@'%'; GRANT ALL ON bench.* TO bench@'%'"
        run_checked([found_or_fail("mariadb"), "--no-defaults", "-uroot", f"-S{path}", "-e", made], "making a user")
        run_checked([*sysbench("oltp_read_write", self.server_port), "prepare"], "making sysbench's table")


# --------------------------------------------------------------------------- statements


def sysbench(test: str, port: int) -> list[str]:
    argv = [found_or_fail("sysbench"), test, "--db-driver=mysql", f"--mysql-host={HOST_ADDRESS}"]
    argv += [f"--mysql-port={port}", "--mysql-user=bench", "--mysql-db=bench", f"--table-size={TABLE_ROWS}"]
    return argv


def load(peer: Peer, row: Row, seconds: float) -> dict:
    """One burst: what sysbench reports of it."""
    argv = [*sysbench(row.test, peer.port), f"--db-ps-mode={row.mode}", f"--threads={row.clients}"]
    argv += [f"--time={max(1, round(seconds))}", "run"]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=seconds + 60, check=False, env=clean_environment()
    )
    if done.returncode != 0:
        raise Failed(f"sysbench, through {peer.name}:\n{tail(done.stdout + done.stderr)}")
    transactions = number(done.stdout, r"transactions: +(\d+)")
    statements = number(done.stdout, r"queries: +(\d+)")
    # Of a transaction sysbench says how long it took, and not of a statement.
    average_ms = number(done.stdout, r"avg: +([\d.]+)")
    return {
        "tps": number(done.stdout, r"queries: +\d+ +\(([\d.]+) per sec"),
        "average_us": average_ms * 1000 * transactions / max(1.0, statements),
        "statements": statements,
        # It leaves out of its errors what the server asks to be tried again: two who want the same row.
        "errors": int(number(done.stdout, r"reconnects: +(\d+)")),
    }


def number(text: str, pattern: str) -> float:
    match = re.search(pattern, text)
    if match is None:
        raise Failed(f"sysbench does not say {pattern}:\n{tail(text)}")
    return float(match[1])


def judge(rows: dict) -> list[dict]:
    """What was asked of the sidecar's statements, what it does, and whether that is enough."""
    verdicts = []
    for least, wish in ((TIMES_OF_HAPROXY, f"at least {TIMES_OF_HAPROXY:g} ×"), (1.0, "1 ×, the aim")):
        for name, row in rows.items():
            times = row["ratio"].get("sidecar", {}).get("haproxy")
            if times is not None:
                verdicts.append(bar(f"{name}: statements/s against haproxy", wish, times, times >= least))
    return verdicts


MYSQL = Database(
    about=__doc__ or "",
    name="mysql",
    flag="--mysql",
    scheme="mysql",
    rows=ROWS,
    checks=[
        Row("check", f"{test} in mode {mode}", test, mode, 1)
        for test in ("oltp_point_select", "oltp_read_write")
        for mode in ("disable", "auto")
    ],
    streams=STREAMS,
    others={},
    bench=MysqlBench,
    load=load,
    client=Client,
    rest_after="SELECT c FROM sbtest1 WHERE id = 7",
    judge=judge,
)

if __name__ == "__main__":
    sys.exit(main(MYSQL))
