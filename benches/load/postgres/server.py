"""A PostgreSQL of its own, for whoever measures or tests with one."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from harness import HOST_ADDRESS, Bench, Failed, apt_install, run_checked

UNPRIVILEGED = "postgres"  # who runs the server and pgbouncer where root starts them
READY_WITHIN_S = 30


def server_programs() -> Path:
    """Where the newest server's programs are: Debian has them on no PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if not folders:
        apt_install(["postgresql"])
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if not folders:
        raise Failed("postgresql is installed, but no initdb below /usr/lib/postgresql")
    return folders[-1].parent


def as_server(argv: list[str]) -> list[str]:
    """The server does not run as root."""
    if os.geteuid() != 0:
        return argv
    return ["setpriv", "--reuid", UNPRIVILEGED, "--clear-groups", *argv]


def start(bench: Bench, port: int, settings: dict[str, object], name: str = "server") -> None:
    """A new server in the bench's folder; anybody local is believed to be who they say."""
    folder = bench.dir / name
    folder.mkdir()
    if os.geteuid() == 0:
        shutil.chown(folder, UNPRIVILEGED)
    data = folder / "data"
    bin_folder = server_programs()
    argv = ["initdb", "--no-sync", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
    run_checked(as_server([str(bin_folder / argv[0]), *argv[1:], f"--pgdata={data}"]), "making a server")
    all_settings = {
        "port": port,
        "listen_addresses": HOST_ADDRESS,
        "unix_socket_directories": "",
        "fsync": "off",
        **settings,
    }
    argv = [str(bin_folder / "postgres"), "-D", str(data)]
    for key, value in all_settings.items():
        argv += ["-c", f"{key}={value}"]
    bench.start(name, as_server(argv), port)
    # Its port is open before it lets anybody in.
    ready = [str(bin_folder / "pg_isready"), "-q", "-t", str(READY_WITHIN_S), "-h", HOST_ADDRESS, "-p", str(port)]
    until = time.monotonic() + READY_WITHIN_S
    while subprocess.run(ready, check=False).returncode != 0:
        if time.monotonic() > until:
            raise Failed(f"the server lets nobody in after {READY_WITHIN_S} s")
        time.sleep(0.05)
