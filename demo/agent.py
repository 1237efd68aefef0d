"""An ordinary agent: the standard library, two services, no word about governance.

It tidies up a shop, step by step, as a language model might have planned it.
"""

import json
import os
import signal
import urllib.error
import urllib.request

API = os.environ["DEMO_API"]
SHOP = os.environ["DEMO_SHOP"]

stopping = False


def stop(_signal, _frame):
    """Asked to end: finish the step at hand, then say goodbye."""
    global stopping
    stopping = True


def call(method, url, body=None):
    """Calls a service and says what came back."""
    print(f"agent:   {method} {url}", flush=True)
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    if data is not None:
        request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text, status, headers = answer.read().decode(), answer.status, answer.headers
    except urllib.error.HTTPError as error:
        text, status, headers = error.read().decode(), error.code, error.headers
    except OSError as error:
        print(f"agent:     failed: {error}", flush=True)
        return
    told = ", ".join(f"{name}: {value}" for name, value in headers.items() if name.startswith("openbox-"))
    if headers.get("content-type", "").startswith("application/problem+json"):
        problem = json.loads(text)
        text = f"{problem.get('code')}: {problem.get('detail') or problem.get('reason')}"
    print(f"agent:     {status}  {text}", flush=True)
    if told:
        print(f"agent:     ({told})", flush=True)


def main():
    signal.signal(signal.SIGTERM, stop)
    steps = [
        ("GET", f"{API}/weather", None),
        ("POST", f"{SHOP}/orders", {"item": "umbrella"}),
        ("DELETE", f"{SHOP}/customers/7", None),
        ("POST", f"{SHOP}/refunds", {"order": 12, "amount": 40}),
        ("GET", f"{SHOP}/export", None),
        ("POST", f"{API}/paste", {"customers": "all of them"}),
        ("GET", f"{API}/weather", None),
        ("POST", f"{SHOP}/orders", {"item": "another umbrella"}),
    ]
    for method, url, body in steps:
        call(method, url, body)
        if stopping:
            print("agent:   asked to stop; one last try", flush=True)
            call("GET", f"{API}/goodbye")
            return


main()
