"""What the load benchmarks share: processes, what they cost, and how results are told."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openbox-bench"

HOST_ADDRESS = "127.0.0.1"
STARTED_WITHIN_S = 30.0
LOG_TAIL_LINES = 25


class Failed(Exception):
    """A peer, or the bench itself, cannot run; the text says why."""


# --------------------------------------------------------------------------- what must be there


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run_checked(argv: list[str], what: str, env: dict[str, str] | None = None) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    if done.returncode != 0:
        raise Failed(f"{what} failed ({' '.join(argv)}):\n{tail(done.stdout + done.stderr)}")
    return done.stdout


def tail(text: str, lines: int = LOG_TAIL_LINES) -> str:
    return "\n".join("    " + line for line in text.splitlines()[-lines:])


def apt_install(packages: list[str]) -> None:
    """Installs Debian packages, with sudo where we are not root."""
    note("installing " + ", ".join(packages))
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = [*sudo, "apt-get", "install", "-y", "--no-install-recommends", *packages]
    what = "installing " + ", ".join(packages)
    try:
        run_checked(install, what, env)
    except Failed:
        run_checked([*sudo, "apt-get", "update"], "updating the package lists", env)
        run_checked(install, what, env)


def found(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def found_or_fail(program: str) -> str:
    path = found(program)
    if path is None:
        raise Failed(f"{program} is not there, although its package was installed")
    return path


def install_missing(packages: dict[str, str]) -> None:
    """Packages by the programs that are needed of them."""
    for program, package in packages.items():
        if found(program) is None:
            apt_install([package])


def cargo_build(package: Path, program: str, target: Path | None, profile: str = "release") -> Path:
    """Builds a binary and says where it is."""
    note(f"building {program}")
    argv = ["cargo", "build", "--profile", profile, "--locked", "--bin", program]
    argv += ["--manifest-path", str(package / "Cargo.toml"), "--message-format", "json"]
    env = dict(os.environ)
    if target is not None:
        env.setdefault("CARGO_TARGET_DIR", str(target))
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    if done.returncode != 0:
        raise Failed(f"building {program} failed:\n{tail(done.stderr)}")
    for line in reversed(done.stdout.splitlines()):
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == program:
            return Path(message["executable"])
    raise Failed(f"cargo built no {program}")


def repository() -> Path:
    """The folder of the sidecar's own Cargo.toml, above this one."""
    for folder in HERE.parents:
        manifest = folder / "Cargo.toml"
        if manifest.exists() and 'name = "openbox-sidecar"' in manifest.read_text():
            return folder
    raise Failed("no openbox-sidecar package above this folder: name its binary with --sidecar PATH")


def sidecar_program(options: argparse.Namespace) -> Path:
    if options.sidecar is None:
        options.sidecar = cargo_build(repository(), "openbox-sidecar", None, "dist")
    program = options.sidecar.resolve()
    if not program.exists():
        raise Failed(f"{program} does not exist")
    return program


# --------------------------------------------------------------------------- processes


@dataclasses.dataclass
class Started:
    process: subprocess.Popen
    listening_ms: float


class Bench:
    """The folder, the ports and the processes of one run; ends what it started."""

    def __init__(self) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="openbox-bench-"))
        self.dir.chmod(0o755)  # some peers, started by root, read their files as another user
        self.processes: list[tuple[str, subprocess.Popen]] = []
        self.ports_taken: set[int] = set()

    def port(self) -> int:
        """A port that is free now, and below those that clients are given."""
        for port in range(19_000, 20_000):
            if port in self.ports_taken:
                continue
            with socket.socket() as probe:
                try:
                    probe.bind((HOST_ADDRESS, port))
                except OSError:
                    continue
            self.ports_taken.add(port)
            return port
        raise Failed("no free port between 19000 and 19999")

    def start(
        self,
        name: str,
        argv: list[str],
        port: int,
        env: dict[str, str] | None = None,
        poll_s: float = 0.02,
    ) -> Started:
        """Starts a process and waits until it listens."""
        with (self.dir / f"{name}.log").open("wb") as output:
            begun = time.perf_counter()
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.dir,
                env={**clean_environment(), **(env or {})},
                start_new_session=True,
            )
        self.processes.append((name, process))
        while not listens(port):
            if process.poll() is not None:
                raise Failed(f"{name} ended with {process.returncode} at start:\n{self.log_tail(name)}")
            if time.perf_counter() - begun > STARTED_WITHIN_S:
                raise Failed(f"{name} does not listen on {port}:\n{self.log_tail(name)}")
            time.sleep(poll_s)
        return Started(process, (time.perf_counter() - begun) * 1000)

    def log_tail(self, name: str) -> str:
        logs = (self.dir / f"{name}.log", self.dir / f"{name}-cache.log")
        text = "".join(log.read_text(errors="replace") for log in logs if log.exists())
        return tail(text) or "    (its log is empty)"

    def stop(self, process: subprocess.Popen) -> None:
        """Ends a process of ours and what it started, which share a session."""
        for number, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
        self.processes = [entry for entry in self.processes if entry[1] is not process]

    def keep_awake(self) -> None:
        """Keeps every core from going to sleep, with loops that only run where nobody else would.

        A core of a virtual machine that halts is woken by the hypervisor, which takes longer than
        most requests; and with one connection every hop waits for that.
        """
        for core in sorted(os.sched_getaffinity(0)):
            process = subprocess.Popen(
                [sys.executable, "-c", "while True: pass"],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            self.processes.append((f"awake-{core}", process))
            os.sched_setaffinity(process.pid, {core})
            os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))

    def close(self, keep: bool) -> None:
        for _, process in reversed(list(self.processes)):
            self.stop(process)
        if keep:
            note(f"kept {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


def clean_environment() -> dict[str, str]:
    """Ours, less the settings that would send traffic elsewhere or change what a peer does."""
    unwanted = re.compile(r"(?i)(.*_proxy|openbox_.*|rust_log|ssl_cert_.*)$")
    return {name: value for name, value in os.environ.items() if not unwanted.match(name)}


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST_ADDRESS, port)) == 0


def process_tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (fields := stat_fields(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
    tree = [root]
    for pid in tree:  # grows while it is walked
        tree.extend(child for child, parent in parents.items() if parent == pid)
    return tree


def stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name: state, parent, and so on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def cpu_seconds(process: subprocess.Popen | None) -> float | None:
    """User and system time of a process tree so far."""
    if process is None:
        return None
    ticks = 0
    for pid in process_tree(process.pid):
        if fields := stat_fields(pid):
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_kib(process: subprocess.Popen) -> int:
    total = 0
    for pid in process_tree(process.pid):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        if found := re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE):
            total += int(found[1])
    return total


def peak_kib(process: subprocess.Popen) -> int:
    """The most that a process tree has had resident since this was last asked."""
    total = 0
    for pid in process_tree(process.pid):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        except OSError:
            continue
        if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            total += int(found[1])
    return total


def stolen_and_total_ticks() -> tuple[int, int]:
    """Ticks that a hypervisor gave to others, and all ticks, since boot."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return fields[7], sum(fields)


def at(port: int) -> str:
    return f"{HOST_ADDRESS}:{port}"


def await_ready(bench: Bench, name: str, health_port: int) -> None:
    deadline = time.monotonic() + STARTED_WITHIN_S
    answer = "nothing"
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://{at(health_port)}/readyz", timeout=2):
                return
        except urllib.error.HTTPError as error:
            answer = f"{error.code} {error.read(500).decode(errors='replace')}"
        except OSError as error:
            answer = str(error)
        time.sleep(0.02)
    raise Failed(f"{name} is not ready, /readyz says {answer}:\n{bench.log_tail(name)}")


def rotated(peers: list, by: int) -> Iterator:
    """Each round begins with another peer, so that none always follows the same one."""
    by %= len(peers)
    return iter(peers[by:] + peers[:by])


# --------------------------------------------------------------------------- results


def bar(what: str, asked: str, found: float, met: bool) -> dict:
    return {"what": what, "asked": asked, "found": found, "met": met}


def machine() -> dict:
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": cpu[1] if cpu else "unknown",
        "cores": os.cpu_count(),
        "kernel": os.uname().release,
        "load_average_before": os.getloadavg()[0],
    }


def rounded(value):
    """The same, its numbers to four decimals: nothing finer was measured."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return value


def chosen(parser: argparse.ArgumentParser, names: str | None, known: dict) -> dict:
    """The named entries, in the order known; all of them without names."""
    if names is None:
        return known
    wanted = {name.strip() for name in names.split(",")}
    if unknown := wanted - known.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return {name: entry for name, entry in known.items() if name in wanted}


def attempt(name: str, failed: dict[str, str], action: Callable[[], object]):
    """What the action returns, or None with its failure noted under the name."""
    try:
        return action()
    except (Failed, OSError, subprocess.SubprocessError) as error:
        failed[name] = str(error)
        note(f"FAILED {name}: {error}")
        return None


def ratio(mine: list[dict], other: list[dict], field: str) -> float:
    """How many times the other's it is: taken within a round first, then the median."""
    return statistics.median(one[field] / two[field] for one, two in zip(mine, other))


def summarize(bursts: dict, rows: dict, of_peer: Callable[[list[dict]], dict], field: str) -> dict:
    """What the rounds of each peer come to, and how many times another's `field` its own is."""
    return {
        name: {
            "title": rows[name].title,
            "peers": {peer: of_peer(rounds) for peer, rounds in of_row.items()},
            "ratio": {
                peer: {other: ratio(rounds, of_row[other], field) for other in of_row if other != peer}
                for peer, rounds in of_row.items()
            },
        }
        for name, of_row in bursts.items()
        if of_row
    }


def bar_lines(bars: list[dict]) -> list[str]:
    """A table of what was asked and found, in Markdown."""
    if not bars:
        return []
    out = ["#### Asked and found", "", "| | asked | found | |", "|---|---|---:|---|"]
    for entry in bars:
        met = "met" if entry["met"] else "**missed**"
        out.append(f"| {entry['what']} | {entry['asked']} | {entry['found']:.2f} | {met} |")
    return [*out, ""]


def closing_lines(report: dict) -> list[str]:
    """The end of a report in Markdown: what was asked, the machine, what failed."""
    out = bar_lines(report["bars"])
    of = report["machine"]
    out.append(
        f"{of['cpu']}, {of['cores']} cores, kernel {of['kernel']}; {report['rounds']} rounds of "
        f"{report['seconds']:g} s; {of['stolen_percent']:.1f} % of the time stolen by other guests; "
        f"load average before the run {of['load_average_before']:.1f}."
    )
    for name, why in report["failed"].items():
        out += ["", f"**{name} failed:** {why.splitlines()[0]}"]
    return out


def carry_out(make: Callable[[], Bench], run: Callable[[Bench], dict], keep: bool) -> dict | int:
    """The report of a run, or an exit code; ends what the run started, also when it is ended itself."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = None
    try:
        bench = make()
        return rounded(run(bench))
    except Failed as error:
        note(f"FAILED: {error}")
        return 1
    except KeyboardInterrupt:
        note("interrupted")
        return 130
    finally:
        if bench is not None:
            bench.close(keep)


def tell(report: dict, options: argparse.Namespace, markdown: Callable[[dict], str]) -> int:
    """Writes and prints a report, and says whether all went well: an exit code."""
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    shown = {name: value for name, value in report.items() if name not in ("bursts", "streamed")}
    print(markdown(report) if options.markdown else json.dumps(shown, indent=1))
    note(f"results in {options.json}")
    errors = sum(peer["errors"] for row in report["rows"].values() for peer in row["peers"].values())
    if errors or report["failed"]:
        note(f"{errors} errors in bursts; failed: {', '.join(report['failed']) or 'none'}")
        return 1
    return 0
