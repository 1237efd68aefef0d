"""What was asked of the HTTP proxy, and whether a run has found it."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import bar  # noqa: E402  (it lies beside this folder)

from rows import BODY_BYTES, LARGE_KIB  # noqa: E402  (it lies in this folder)

BARS = [
    # row                subject     peer               at least
    ("plain-1",          "sidecar",  "envoy-ext-authz", 2.0),
    ("plain-32",         "sidecar",  "envoy-ext-authz", 2.0),
    ("tls-1",            "sidecar",  "squid",           1.5),
    ("tls-32",           "sidecar",  "squid",           1.5),
    ("tls-1",            "sidecar",  "mitmproxy",       20.0),
    ("tls-32",           "sidecar",  "mitmproxy",       20.0),
    ("tls-new-16",       "sidecar",  "envoy-tunnel",    0.7),
    ("plain-1",          "sidecar",  "hudsucker",       1.0),
    ("plain-32",         "sidecar",  "hudsucker",       1.0),
    ("tls-1",            "sidecar",  "hudsucker",       1.0),
    ("tls-32",           "sidecar",  "hudsucker",       1.0),
    ("tls-new-16",       "sidecar",  "hudsucker",       1.0),
    ("plain-1",          "sidecar",  "sidecar-none",    0.9),
    ("plain-32",         "sidecar",  "sidecar-none",    0.9),
    ("tls-32",           "sidecar",  "sidecar-none",    0.9),
    ("tls-new-16",       "sidecar",  "tls-limit",       0.8),
]
# These were asked for together: ahead of whoever takes part.
AHEAD_IN = [
    "h2-1",
    "h2-32",
    "grpc-unary-32",
    "grpc-stream",
    "plain-64k-8",
    "plain-post-64k-8",
    "tls-64k-8",
]
AHEAD_OF = ["mitmproxy", "squid", "hudsucker", "hudsucker-nodelay"]
# Intercepted, and the same in plain; CPU of the first at most INTERCEPTED_CPU_MAX times that of the second.
INTERCEPTED = [("tls-1", "plain-1"), ("tls-32", "plain-32")]
INTERCEPTED_CPU_MAX = 1.3
# With a large body, the same with a small one, and who does nothing but copy it.
LARGE = [
    ("plain-64k-8", "plain-8", "copy"),
    ("plain-post-64k-8", "plain-8", "copy"),
    ("tls-64k-8", "tls-8", "tls-limit"),
]
LARGE_CPU_MAX = 1.5
TUNNEL_KIB_MAX = 12.0
TUNNELS = {
    "passed_on": "an idle tunnel that has carried 1 KiB",
    "passed_on_after_64k": "an idle tunnel that has carried 64 KiB",
}
CORE_ABOVE_DIRECT_US_MAX = 200.0
HOLD_KIB_MAX = 16.0
IDLE_MIB_MAX = 20.0
LISTENING_MS_MAX = 50.0


def large_bodies(bursts: dict) -> dict:
    """CPU µs that each KiB of a large body adds to a request with a small one, by row and peer."""
    return {
        row: {
            peer: statistics.median(added)
            for peer, rounds in bursts.get(row, {}).items()
            if (added := added_us_per_kib(rounds, bursts.get(base, {}).get(peer, [])))
        }
        for row, base, _ in LARGE
        if row in bursts and base in bursts
    }


def added_us_per_kib(large: list[dict], small: list[dict]) -> list[float]:
    more_kib = LARGE_KIB - BODY_BYTES / 1024
    return [(one - two) * 1000 / more_kib for one, two in cpu_pairs(large, small)]


def cpu_pairs(mine: list[dict], other: list[dict]) -> list[tuple[float, float]]:
    """CPU seconds per 1,000 of both, round by round."""
    costs = [(one.get("cpu_s_per_1000"), two.get("cpu_s_per_1000")) for one, two in zip(mine, other)]
    return [(one, two) for one, two in costs if one is not None and two]


def judge(summary: dict, bursts: dict, alone: dict, large: dict) -> list[dict]:
    """What was asked of the sidecar, what it does, and whether that is enough."""
    verdicts = []
    ahead = [(row, "sidecar", peer, 1.0) for row in AHEAD_IN for peer in AHEAD_OF]
    for row, subject, peer, least in [*BARS, *ahead]:
        found = summary.get(row, {}).get("rps_ratio", {}).get(subject, {}).get(peer)
        if found is not None:
            what = f"{row}: {summary[row]['unit']}/s against {peer}"
            verdicts.append(bar(what, f"at least {least:g} ×", found, found >= least))
    for row, plain in INTERCEPTED:
        of = cpu_pairs(bursts.get(row, {}).get("sidecar", []), bursts.get(plain, {}).get("sidecar", []))
        if of:
            found, most = statistics.median(one / two for one, two in of), INTERCEPTED_CPU_MAX
            verdicts.append(bar(f"{row}: CPU against {plain}", f"at most {most:g} ×", found, found <= most))
    for row, _, floor in LARGE:
        mine, least = large.get(row, {}).get("sidecar"), large.get(row, {}).get(floor)
        if mine is not None and least is not None and least > 0:
            found, most = mine / least, LARGE_CPU_MAX
            verdicts.append(bar(f"{row}: CPU a KiB adds, against {floor}", f"at most {most:g} ×", found, found <= most))
    above = summary.get("plain-1", {}).get("p50_above_direct_us", {}).get("sidecar-core")
    upper = [
        ("judged by Core: median above direct, µs", CORE_ABOVE_DIRECT_US_MAX, above),
        ("a held request, KiB", HOLD_KIB_MAX, alone.get("holds", {}).get("kib_each")),
        ("idle, MiB resident", IDLE_MIB_MAX, alone.get("start", {}).get("idle_resident_mib")),
        ("from start to listening, ms", LISTENING_MS_MAX, alone.get("start", {}).get("listening_ms")),
    ]
    for what, most, found in upper:
        if found is not None:
            verdicts.append(bar(what, f"at most {most:g}", found, found <= most))
    for kind, what in TUNNELS.items():
        tunnel = alone.get("tunnels", {}).get(kind, {}).get("kib_each")
        if tunnel is not None:
            verdicts.append(bar(f"{what}, KiB", f"under {TUNNEL_KIB_MAX:g}", tunnel, tunnel < TUNNEL_KIB_MAX))
    return verdicts
