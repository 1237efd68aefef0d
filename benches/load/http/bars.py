"""What was asked of the HTTP proxy, and whether a run has found it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import bar  # noqa: E402  (it lies beside this folder)

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
]
CORE_ABOVE_DIRECT_US_MAX = 200.0
HOLD_KIB_MAX = 16.0
IDLE_MIB_MAX = 20.0
LISTENING_MS_MAX = 50.0


def judge(summary: dict, alone: dict) -> list[dict]:
    """What was asked of the sidecar, what it does, and whether that is enough."""
    verdicts = []
    for row, subject, peer, least in BARS:
        found = summary.get(row, {}).get("rps_ratio", {}).get(subject, {}).get(peer)
        if found is not None:
            verdicts.append(bar(f"{row}: requests/s against {peer}", f"at least {least:g} ×", found, found >= least))
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
    return verdicts
