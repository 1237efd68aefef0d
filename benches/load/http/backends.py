"""What the HTTP peers stand between: the client's side of a run, the origins, the deciders."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import (  # noqa: E402  (it lies beside this folder)
    STARTED_WITHIN_S,
    Bench,
    Failed,
    at,
    run_checked,
)

HOST_NAME = "origin.test"


class HttpBench(Bench):
    """A bench, and what its HTTP peers stand between."""

    def __init__(self, loadgen: Path) -> None:
        super().__init__()
        self.loadgen = loadgen
        self.http_port = self.https_port = self.h2_port = self.impostor_port = self.authz_port = self.core_port = 0
        self.proxy_ca = self.dir / "ca.pem"
        self.origin_ca = self.dir / "origin-ca.pem"


def start_backends(bench: HttpBench) -> None:
    """The origin, an origin whose certificate nobody trusts, and the two deciders."""
    run_checked([str(bench.loadgen), "ca", "--dir", str(bench.dir)], "making a proxy CA")
    bench.http_port, bench.https_port, bench.h2_port = bench.port(), bench.port(), bench.port()
    unused, bench.impostor_port, unused_too = bench.port(), bench.port(), bench.port()
    bench.authz_port, bench.core_port = bench.port(), bench.port()
    for name, http, https, h2, ca in (
        ("origin", bench.http_port, bench.https_port, bench.h2_port, bench.origin_ca),
        ("impostor", unused, bench.impostor_port, unused_too, bench.dir / "impostor-ca.pem"),
    ):
        argv = [str(bench.loadgen), "origin", "--http", at(http), "--https", at(https)]
        argv += ["--h2", at(h2), "--ca", str(ca)]
        bench.start(name, argv, https)
        wait_for_file(ca)
    bench.start("authz-stub", [str(bench.loadgen), "authz-stub", "--listen", at(bench.authz_port)], bench.authz_port)
    bench.start("core-stub", [str(bench.loadgen), "core-stub", "--listen", at(bench.core_port)], bench.core_port)


def wait_for_file(path: Path) -> None:
    deadline = time.monotonic() + STARTED_WITHIN_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise Failed(f"{path} was not written")
        time.sleep(0.02)
