#!/usr/bin/env python3
"""Drivers' own test suites, and PostgreSQL's, direct and through the relay: the same tests pass.

Fetches what each suite consists of (source packages from PyPI; PostgreSQL's from Debian, for
pg_regress), runs it against a new server, runs it again against another new server with the sidecar
in between and everything allowed, and compares test by test. The exit code is 1 when a test ends
differently and no reason is listed for it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from collections import Counter
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / "benches/load"), str(ROOT / "benches/load/postgres")]

import server  # noqa: E402  (they lie with the load benchmarks)
from harness import (  # noqa: E402
    CACHE,
    HOST_ADDRESS,
    Bench,
    Failed,
    apt_install,
    at,
    await_ready,
    clean_environment,
    found,
    found_or_fail,
    note,
    run_checked,
    tail,
)

FOLDER = CACHE.parent / "openbox-suites"
PYTHON_PACKAGES = {
    "asyncpg": "0.32.0",
    "psycopg2": "2.9.13",
    "pg8000": "1.31.6",
    "SQLAlchemy": "2.1.9",
}
VENV_PACKAGES = [
    *(f"{name}=={version}" for name, version in PYTHON_PACKAGES.items() if name != "psycopg2"),
    f"psycopg2-binary=={PYTHON_PACKAGES['psycopg2']}",
    "distro",
    "greenlet",
    "pytest",
    "python-dateutil",
    "pytz",
    "pytest-mock",
]
SUITE_WITHIN_S = 1_800
ALLOW = 'package openbox\n\nresult := {"decision": "ALLOW"}\n'

# Tests that may end differently, and why: what they test is not what the relay is for.
RACE = "whether the server's last words overtake the reset of its closed socket is chance, also without a relay"
EXPLAINED: dict[str, str] = {
    f"pg8000 test.{api}.test_connection.test_broken_pipe_read": RACE for api in ("dbapi", "legacy", "native")
}


# --------------------------------------------------------------------------- what a suite is


@dataclasses.dataclass(frozen=True)
class Suite:
    """`run` takes the port and a folder for its files, and says how each test ended."""

    name: str
    settings: dict[str, object]
    run: Callable[[int, Path], dict[str, str]]


def source(package: str) -> Path:
    """The unpacked source package."""
    version = PYTHON_PACKAGES[package]
    unpacked = FOLDER / f"{package.lower()}-{version}"
    if not unpacked.exists():
        note(f"fetching {package} {version}")
        argv = [str(venv() / "pip"), "download", "-q", "--no-deps", "--no-binary", package]
        run_checked([*argv, "--dest", str(FOLDER), f"{package}=={version}"], f"fetching {package}")
        archive = FOLDER / f"{package.lower()}-{version}.tar.gz"
        shutil.unpack_archive(archive, FOLDER, filter="data")
    return unpacked


def venv() -> Path:
    """The bin folder of a virtual environment with the drivers."""
    folder = FOLDER / "venv"
    stamp = folder / "installed.txt"
    wanted = "\n".join(VENV_PACKAGES)
    if not stamp.exists() or stamp.read_text() != wanted:
        note("installing " + ", ".join(VENV_PACKAGES))
        run_checked([sys.executable, "-m", "venv", "--clear", str(folder)], "making a virtual environment")
        run_checked([str(folder / "bin/pip"), "install", "-q", *VENV_PACKAGES], "installing the drivers")
        stamp.write_text(wanted)
    return folder / "bin"


def ask(port: int, *statements: str, database: str = "postgres") -> None:
    argv = [found_or_fail("psql"), "-q", "-v", "ON_ERROR_STOP=1", "-h", HOST_ADDRESS, "-p", str(port)]
    for statement in statements:
        argv += ["-c", statement]
    run_checked([*argv, "-U", "postgres", database], "preparing a database")


def pytest(folder: Path, arguments: list[str], env: dict[str, str], report: Path) -> dict[str, str]:
    """How each test ended: passed, failure, error or skipped."""
    argv = [str(venv() / "pytest"), "-q", "-p", "no:cacheprovider", "--tb=short"]
    argv += [f"--junitxml={report / 'report.xml'}", *arguments]
    with (report / "output.txt").open("wb") as output:
        subprocess.run(
            argv,
            cwd=folder,
            env={**clean_environment(), **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=SUITE_WITHIN_S,
            check=False,
        )
    try:
        tree = xml.etree.ElementTree.parse(report / "report.xml")
    except (OSError, xml.etree.ElementTree.ParseError) as error:
        raise Failed(f"no report ({error}):\n{tail((report / 'output.txt').read_text(errors='replace'))}") from error
    ended = {}
    for case in tree.iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        outcome = "passed"
        for kind in ("skipped", "failure", "error"):
            if case.find(kind) is not None:
                outcome = kind
        ended[re.sub(r"0x[0-9a-f]{6,}", "0x…", name)] = outcome
    return ended


# --------------------------------------------------------------------------- the suites


def asyncpg(port: int, report: Path) -> dict[str, str]:
    # Superuser and database as the suite makes them on its own servers. What it does with a
    # server's files or settings it leaves out where it is given one.
    env = {"PGHOST": HOST_ADDRESS, "PGPORT": str(port), "PGUSER": "postgres", "PGDATABASE": "postgres"}
    # Style of its own source, and what its version is: nothing of a server.
    arguments = ["tests", "--ignore=tests/test__sourcecode.py", "--ignore=tests/test__environment.py"]
    return pytest(source("asyncpg"), arguments + ["--import-mode=append"], env, report)


def psycopg2(port: int, report: Path) -> dict[str, str]:
    ask(port, "CREATE DATABASE psycopg2_test")
    ask(port, "CREATE EXTENSION hstore", database="psycopg2_test")
    env = {
        "PSYCOPG2_TESTDB_HOST": HOST_ADDRESS,
        "PSYCOPG2_TESTDB_PORT": str(port),
        "PSYCOPG2_TESTDB_USER": "postgres",
    }
    return pytest(source("psycopg2"), ["tests"], env, report)


def pg8000(port: int, report: Path) -> dict[str, str]:
    ask(port, "CREATE EXTENSION hstore")
    env = {"PGHOST": HOST_ADDRESS, "PGPORT": str(port), "PGPASSWORD": "pw"}
    # Its folders `auth` are for servers of other hba files, by port.
    ignored = [f"--ignore=test/{api}/auth" for api in ("dbapi", "legacy", "native")]
    # Statements of the README, which names its own server; and benchmarks.
    ignored += ["--ignore=test/test_readme.py", "--ignore-glob=*test_benchmarks.py"]
    return pytest(source("pg8000"), ["test", *ignored], env, report)


def sqlalchemy_with(driver: str) -> Callable[[int, Path], dict[str, str]]:
    def run(port: int, report: Path) -> dict[str, str]:
        ask(port, "CREATE DATABASE test")
        statements = ("CREATE SCHEMA test_schema", "CREATE SCHEMA test_schema_2")
        extensions = ("CREATE EXTENSION hstore", "CREATE EXTENSION citext")
        ask(port, *statements, *extensions, database="test")
        url = f"postgresql+{driver}://postgres@{HOST_ADDRESS}:{port}/test"
        # A plug-in of its own names tests by what it runs them with.
        arguments = ["test/dialect/postgresql", "test/dialect/test_suite.py", "--dburi", url, "-p", "no:warnings"]
        ended = pytest(source("SQLAlchemy"), arguments, {}, report)
        return {re.sub(r"_\d+_\d+(?=[.\[]|$)", "", name): outcome for name, outcome in ended.items()}

    return run


def regress_build() -> Path:
    """The folder of pg_regress, built from the sources of the server that runs here."""
    program = server.server_programs() / "postgres"
    version = run_checked([str(program), "--version"], "asking for the version").split()[2]
    folder = FOLDER / f"postgresql-{version}"
    built = folder / "src/test/regress"
    if (built / "regress.so").exists():
        return built
    for command in ("make", "gcc", "perl"):
        if found(command) is None:
            apt_install([command])
    fetch_postgres(version)
    note("building pg_regress")
    for argv in (
        ["./configure", "--without-readline", "--without-zlib"],
        ["make", "-C", "src/backend", "generated-headers"],
        ["make", "-C", "src/test/regress"],
    ):
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"building pg_regress failed ({' '.join(argv)}):\n{tail(done.stdout + done.stderr)}")
    return built


def fetch_postgres(version: str) -> None:
    """Debian's source package of that version, unpacked. Its lists of sources are left as they are."""
    major = version.split(".")[0]
    package = f"postgresql-{major}"
    query = ["dpkg-query", "-W", "-f", "${Version}", package]
    debian = run_checked(query, "asking for the package's version")
    release = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if release is None:
        raise Failed("/etc/os-release names no release of Debian")
    lists = FOLDER / "apt"
    (lists / "lists").mkdir(parents=True, exist_ok=True)
    (lists / "parts").mkdir(exist_ok=True)
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (lists / "sources.list").write_text(
        f"deb-src [signed-by={keys}] http://deb.debian.org/debian {release[1]} main\n"
        f"deb-src [signed-by={keys}] http://deb.debian.org/debian-security {release[1]}-security main\n"
    )
    options = [f"Dir::Etc::SourceList={lists / 'sources.list'}", f"Dir::Etc::SourceParts={lists / 'parts'}"]
    options += [f"Dir::State::Lists={lists / 'lists'}", "APT::Sandbox::User=root"]
    apt = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
    run_checked([*apt, "update"], "reading Debian's lists of sources")
    done = subprocess.run(
        [*apt, "source", "--download-only", f"{package}={debian}"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    archives = list(FOLDER.glob(f"{package}_{version}.orig.tar.*"))
    if done.returncode != 0 or not archives:
        raise Failed(f"Debian has no source of {package} {debian}:\n{tail(done.stdout + done.stderr)}")
    shutil.unpack_archive(archives[0], FOLDER, filter="data")


def regress(port: int, report: Path) -> dict[str, str]:
    """The output of each file, which is the outcome: it must be the same, be it the expected one or not."""
    built = regress_build()
    # The server, which is somebody else, loads its library and reads its files.
    folder = Path(tempfile.mkdtemp(prefix="openbox-regress-"))
    folder.chmod(0o755)
    try:
        shutil.copytree(built, folder / "regress", symlinks=True)
        results = folder / "regress"
        (results / "testtablespace").mkdir(exist_ok=True)
        for path in (results, results / "results", results / "testtablespace"):
            path.mkdir(exist_ok=True)
            path.chmod(0o777)
        argv = ["./pg_regress", "--inputdir=.", "--dlpath=.", "--outputdir=.", "--max-concurrent-tests=20"]
        argv += [f"--bindir={server.server_programs()}", f"--host={HOST_ADDRESS}", f"--port={port}"]
        argv += ["--user=postgres", "--schedule=parallel_schedule"]
        with (report / "output.txt").open("wb") as output:
            subprocess.run(
                argv, cwd=results, stdout=output, stderr=subprocess.STDOUT, timeout=SUITE_WITHIN_S, check=False
            )
        ended = {path.stem: steady(path.read_text(errors="replace")) for path in (results / "results").glob("*.out")}
        for name in ended:
            shutil.copy(results / "results" / f"{name}.out", report / f"{name}.out")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not ended:
        raise Failed(f"pg_regress ran nothing:\n{tail((report / 'output.txt').read_text(errors='replace'))}")
    return ended


def steady(text: str) -> str:
    """An output without what differs between any two runs."""
    return re.sub(r"/tmp/openbox-regress-\w+", "…", text)


SUITES = [
    Suite("asyncpg", {}, asyncpg),
    Suite("psycopg2", {"max_prepared_transactions": 10}, psycopg2),
    Suite("pg8000", {"max_prepared_transactions": 10}, pg8000),
    Suite("sqlalchemy-psycopg2", {"max_prepared_transactions": 10}, sqlalchemy_with("psycopg2")),
    Suite("sqlalchemy-asyncpg", {"max_prepared_transactions": 10}, sqlalchemy_with("asyncpg")),
    Suite("pg_regress", {"max_prepared_transactions": 0}, regress),
]


# --------------------------------------------------------------------------- direct and relayed


def sidecar_program(options: argparse.Namespace) -> Path:
    if options.sidecar is None:
        run_checked(
            ["cargo", "build", "--locked", "--manifest-path", str(ROOT / "Cargo.toml")], "building the sidecar"
        )
        options.sidecar = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/openbox-sidecar"
    return options.sidecar.resolve()


def start_sidecar(bench: Bench, program: Path, server_port: int) -> int:
    port, http, agent, operator, health = (bench.port() for _ in range(5))
    policy, state = bench.dir / "allow.rego", bench.dir / "state"
    policy.write_text(ALLOW)
    argv = [str(program), "serve", "--http-listen", at(http), "--agent-listen", at(agent)]
    argv += ["--operator-listen", at(operator), "--health-listen", at(health), "--state-dir", str(state)]
    argv += ["--policy", str(policy), "--pg", f"{at(port)}=postgres://{at(server_port)}"]
    bench.start("sidecar", argv, port)
    await_ready(bench, "sidecar", health)
    return port


def run_once(suite: Suite, relayed: bool, options: argparse.Namespace) -> dict[str, str]:
    way = "relayed" if relayed else "direct"
    report = options.reports / suite.name / way
    shutil.rmtree(report, ignore_errors=True)
    report.mkdir(parents=True)
    bench = Bench()
    try:
        port = bench.port()
        server.start(bench, port, suite.settings)
        if relayed:
            port = start_sidecar(bench, sidecar_program(options), port)
        note(f"{suite.name}, {way}")
        return suite.run(port, report)
    finally:
        for log in bench.dir.glob("*.log"):
            shutil.copy(log, report)
        bench.close(keep=False)


def compare(suite: Suite, direct: dict[str, str], relayed: dict[str, str]) -> list[str]:
    """The tests that end differently, each with how."""
    differing = []
    for name in sorted(direct.keys() | relayed.keys()):
        one, two = direct.get(name, "absent"), relayed.get(name, "absent")
        if one == two:
            continue
        shown = f"{one} → {two}" if len(one) < 20 else "another output"
        why = EXPLAINED.get(f"{suite.name} {name}")
        differing.append(f"{name}: {shown}" + (f" (explained: {why})" if why else ""))
    return differing


def count(suite: Suite, ended: dict[str, str]) -> str:
    if suite.name == "pg_regress":
        return f"{len(ended)} files"
    return ", ".join(f"{number} {outcome}" for outcome, number in sorted(Counter(ended.values()).items()))


def main() -> int:
    names = [suite.name for suite in SUITES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="which: " + ", ".join(names))
    parser.add_argument("--sidecar", type=Path, help="a built openbox-sidecar (default: build this repository)")
    parser.add_argument("--reports", type=Path, default=FOLDER / "reports", help="folder for logs and outputs")
    options = parser.parse_args()
    if unknown := set(options.suites) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(names)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    unexplained = 0
    for suite in SUITES:
        if options.suites and suite.name not in options.suites:
            continue
        try:
            direct, relayed = run_once(suite, False, options), run_once(suite, True, options)
        except (Failed, OSError, subprocess.SubprocessError) as error:
            print(f"{suite.name}: FAILED: {error}")
            unexplained += 1
            continue
        differing = compare(suite, direct, relayed)
        print(f"{suite.name}: direct {count(suite, direct)}; relayed {count(suite, relayed)}; {len(differing)} differ")
        for line in differing:
            print(f"    {line}")
        unexplained += sum("(explained: " not in line for line in differing)
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
