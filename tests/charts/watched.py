"""Alerts and dashboard: Prometheus' own tool reads their expressions, and every name in them is one that a running sidecar says.

What each alert is for is shown by series with which it fires, and without which it does not.
"""

import json
import re
import subprocess

import yaml

# What Prometheus itself adds to what it asks of a pod.
OF_TARGETS = {"namespace", "pod"}
POD = 'namespace="shop", pod="agent"'
# Of each alert: a series that grows or stays, minute by minute, and after how long it is told.
FIRES = {
    "OpenboxDecisionsByFailMode": (f'openbox_fail_mode_decisions_total{{{POD}, mode="open"}}', "0+1x30", "20m"),
    "OpenboxJournalFailures": (f"openbox_journal_failures_total{{{POD}}}", "0+1x30", "10m"),
    "OpenboxUntoldLag": (f"openbox_untold_lag_seconds{{{POD}}}", "1000+0x30", "10m"),
    "OpenboxHoldsOpen": (f"openbox_holds_open{{{POD}}}", "3+0x60", "45m"),
}


def watched(checks, manifest, exposition, folder, promtool):
    (rules,) = [one["spec"] for one in manifest if one["kind"] == "PrometheusRule"]
    (dashboard,) = [json.loads(one["data"]["openbox-sidecar.json"]) for one in manifest if one["kind"] == "ConfigMap" and "openbox-sidecar.json" in one["data"]]
    alerts = {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"]}
    shown = [target["expr"].replace("$__rate_interval", "5m") for panel in dashboard["panels"] for target in panel.get("targets", [])]
    checks.that("the dashboard shows something", len(shown) > 4, shown)
    said = metrics(exposition)
    for expression in [rule["expr"] for rule in alerts.values()] + shown:
        names = set(re.findall(r"openbox_\w+", expression))
        checks.that(f"{expression}: a sidecar says what it is about", names and names <= said.keys(), names - said.keys())
        by = {label for labels in re.findall(r"by \(([^)]*)\)", expression) for label in re.split(r",\s*", labels)}
        known = OF_TARGETS.union(*(said.get(name, set()) for name in names))
        checks.that(f"{expression}: and by what", by <= known, by - known)
    path = folder / "rules.yaml"
    recorded = [{"record": f"shown:{number}", "expr": expression} for number, expression in enumerate(shown)]
    path.write_text(yaml.safe_dump({"groups": [*rules["groups"], {"name": "dashboard", "rules": recorded}]}))
    done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True)
    checks.that("Prometheus reads every expression", done.returncode == 0 and f"{len(alerts) + len(shown)} rules found" in done.stdout, done)
    fires(checks, alerts, folder, promtool)


def metrics(exposition):
    """The names of what is said, with their labels."""
    said = {}
    for line in exposition.splitlines():
        if found := re.match(r"(openbox_\w+)(?:\{(.*)\})? ", line):
            said.setdefault(found[1], set()).update(re.findall(r"(\w+)=\"", found[2] or ""))
    return said


def fires(checks, alerts, folder, promtool):
    checks.that("each alert is tried", alerts.keys() == FIRES.keys(), alerts.keys() ^ FIRES.keys())
    tests = []
    for name, (series, values, after) in FIRES.items():
        told = [{"exp_labels": alerts[name]["labels"] | dict(re.findall(r'(namespace|pod)="(\w+)"', series)), "exp_annotations": alerts[name]["annotations"]}]
        for given, expected in ((values, told), ("0+0x60", [])):
            alert = {"eval_time": after, "alertname": name, "exp_alerts": expected}
            tests.append({"interval": "1m", "input_series": [{"series": series, "values": given}], "alert_rule_test": [alert]})
    path = folder / "tests.yaml"
    path.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}))
    done = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True)
    checks.that("alerts fire for what they are for, and for nothing else", done.returncode == 0, done.stdout + done.stderr)
