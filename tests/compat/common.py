"""What the checks of both SDKs share: the operator's side, and a list of checks."""

import json
import os
import sys
import time
import traceback
import urllib.request

URL = os.environ["OPENBOX_URL"]
KEY = os.environ["OPENBOX_API_KEY"]
ORIGIN = os.environ.get("COMPAT_ORIGIN", "")


def operator(method, path, body=None):
    """Asks the operator's API, as the person at the terminal does."""
    request = urllib.request.Request(
        os.environ["COMPAT_OPERATOR_URL"] + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"authorization": "Bearer " + os.environ["COMPAT_OPERATOR_TOKEN"]},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def pending(activity_id):
    """The one approval that waits for this activity."""
    found = [
        approval
        for approval in operator("GET", "/v1/approvals")["approvals"]
        if approval.get("activity_id") == activity_id and approval["state"] == "pending"
    ]
    assert len(found) == 1, found
    return found[0]["approval_id"]


def approve(activity_id):
    operator("POST", f"/v1/approvals/{pending(activity_id)}/approve", {})


def reject(activity_id, reason):
    operator("POST", f"/v1/approvals/{pending(activity_id)}/reject", {"reason": reason})


def until(what, look):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def main(run):
    """Runs every check, says which failed, and ends accordingly."""
    failed = 0
    for function in CHECKS:
        try:
            run(function)
            print("ok", function.__name__)
        except BaseException:
            failed += 1
            print("FAILED", function.__name__)
            traceback.print_exc(file=sys.stdout)
    print(f"all checks passed: {len(CHECKS)}" if not failed else f"{failed} checks failed")
    sys.stdout.flush()
    os._exit(1 if failed else 0)
