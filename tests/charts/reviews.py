"""The admission webhook, asked over TLS what an API server asks: each review and its answer is a file beside this one,
and what a pod becomes is held against Kubernetes' own schemas.

    .venv-charts/bin/python tests/charts/reviews.py target/debug/openbox-sidecar     # UPDATE_GOLDEN=1 writes the answers
"""

import base64
import copy
import http.client
import json
import os
import pathlib
import ssl
import subprocess
import sys
import tempfile
import time

import kubernetes_validate
import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from checks import Checks, free_port  # noqa: E402  (it lies in the folder above)
from json_patch import applied  # noqa: E402

FOLDER = pathlib.Path(__file__).resolve().parent / "reviews"
VERSIONS = ["1.29", "1.33", "1.36"]
LABEL = "openbox.ai/inject"


# What is asked.

APP = {"name": "app", "image": "app:1", "imagePullPolicy": "IfNotPresent"}
TOKEN = {
    "name": "kube-api-access-x7k2p",
    "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]},
}
CONFINED = {"runAsUser": 4711, "runAsNonRoot": True, "allowPrivilegeEscalation": False}


def pod(owner, spec=None, annotations=None, label="enabled"):
    """As a controller makes it, and as admission plugins before the webhook have changed it."""
    mounted = {"name": TOKEN["name"], "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}
    spec = copy.deepcopy(spec or {"containers": [APP]})
    for container in spec["containers"]:
        container.setdefault("volumeMounts", []).append(mounted)
    labels = {"app": "agent"} | ({LABEL: label} if label else {})
    metadata = {"generateName": "agent-5d9c-", "labels": labels}
    if annotations:
        metadata["annotations"] = {f"openbox.ai/{name}": value for name, value in annotations.items()}
    if owner:
        metadata["ownerReferences"] = [{"apiVersion": owner[0], "kind": owner[1], "name": "agent-5d9c", "uid": "0b1c", "controller": True}]
    defaults = {"restartPolicy": "Never" if owner and owner[1] == "Job" else "Always", "serviceAccountName": "default", "volumes": [TOKEN]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec | defaults}


def workload(kind):
    made = pod(None, annotations={"pg": "postgres://orders-db:5432"})
    template = {"metadata": {key: made["metadata"][key] for key in ("labels", "annotations")}, "spec": {"containers": [APP]}}
    meta = {"metadata": {"name": "agent", "namespace": "shop"}}
    if kind == "Deployment":
        return {"apiVersion": "apps/v1", "kind": kind} | meta | {"spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": template}}
    template["spec"]["restartPolicy"] = "Never"
    job = {"spec": {"template": template}}
    if kind == "Job":
        return {"apiVersion": "batch/v1", "kind": kind} | meta | job
    return {"apiVersion": "batch/v1", "kind": kind} | meta | {"spec": {"schedule": "0 3 * * *", "jobTemplate": job}}


REPLICAS = ("apps/v1", "ReplicaSet")
JOB = ("batch/v1", "Job")
MIGRATED = {"initContainers": [{"name": "migrate", "image": "m:1"}], "containers": [APP]}
CORE = {"core-url": "https://core.example.com", "api-key-secret": "core/key"}


def confined(**more):
    return {"containers": [APP | {"securityContext": CONFINED | more}]}


# What becomes a pod, or stays as it is.
TAKEN = {
    "deployment": workload("Deployment"),
    "job": workload("Job"),
    "cron-job": workload("CronJob"),
    "pod-of-a-deployment": pod(REPLICAS),
    "pod-of-a-job": pod(JOB, annotations=CORE),
    "pod-with-init-containers": pod(REPLICAS, MIGRATED, {"policy-configmap": "policy", "journal-claim": "journal"}),
    "pod-with-databases": pod(
        REPLICAS,
        {"containers": [APP | {"env": [{"name": "DATABASE_URL", "value": "postgres://me@orders-db/x"}, {"name": "PGHOST", "valueFrom": {"secretKeyRef": {"name": "db", "key": "host"}}}]}]},
        {"pg": "postgres://orders-db:5432", "redis": "redis://cache"},
    ),
    "pod-with-a-token": pod(REPLICAS, annotations={"agent-token-secret": "agent/token"}),
    "pod-of-mode-redirect": pod(REPLICAS, confined(), {"mode": "redirect"}),
    "pod-of-a-short-grace": pod(REPLICAS, {"containers": [APP], "terminationGracePeriodSeconds": 5}),
    "pod-opted-out": pod(REPLICAS, label="disabled"),
    "pod-that-does-not-ask": pod(REPLICAS, label=None),
}
# What is refused, and what the answer names.
REFUSED = {
    "annotations-in-conflict": (pod(REPLICAS, annotations=CORE | {"policy-configmap": "p"}), ["openbox.ai/policy-configmap", "openbox.ai/core-url"]),
    "unknown-scheme": (pod(REPLICAS, annotations={"pg": "mongodb://orders-db"}), ["annotation openbox.ai/pg", "PostgreSQL server"]),
    "unknown-annotation": (pod(REPLICAS, annotations={"pgg": "postgres://db"}), ["annotation openbox.ai/pgg is not known"]),
    "unknown-mode": (pod(REPLICAS, annotations={"mode": "wishful"}), ["annotation openbox.ai/mode", "redirect"]),
    "missing-secret": (pod(REPLICAS, annotations={"core-url": "https://core.example.com"}), ["openbox.ai/core-url needs openbox.ai/api-key-secret"]),
    "two-sidecars": (pod(REPLICAS, {"containers": [APP, {"name": "openbox-sidecar", "image": "theirs"}]}), ["container openbox-sidecar already"]),
    "the-sidecars-user": (pod(REPLICAS, {"containers": [APP | {"securityContext": {"runAsUser": 1580}}]}), ["container app", "runAsUser is 1580"]),
    "the-sidecars-port": (pod(REPLICAS, {"containers": [APP | {"ports": [{"containerPort": 15801}]}]}), ["container app has port 15801"]),
    "host-network": (pod(REPLICAS, {"hostNetwork": True, "containers": [APP]}), ["spec.hostNetwork"]),
    "redirect-as-root": (pod(REPLICAS, confined(runAsUser=0), {"mode": "redirect"}), ["container app", "runAsUser is 0"]),
    "redirect-as-the-image-says": (
        pod(REPLICAS, {"containers": [APP | {"securityContext": {"runAsNonRoot": True}}]}, {"mode": "redirect"}),
        ["container app", "runAsUser is not said", "allowPrivilegeEscalation"],
    ),
    "the-sidecars-group": (pod(REPLICAS, {"containers": [APP], "securityContext": {"supplementalGroups": [1580]}}), ["spec.securityContext.supplementalGroups has 1580"]),
    "drain-longer-than-the-grace": (
        pod(REPLICAS, {"containers": [APP], "terminationGracePeriodSeconds": 10}, {"drain-within": "9s"}),
        ["annotation openbox.ai/drain-within", "terminationGracePeriodSeconds 10"],
    ),
    "redirect-with-capability": (pod(REPLICAS, confined(capabilities={"add": ["NET_RAW"]}), {"mode": "redirect"}), ["container app", "NET_RAW"]),
}


# Containers that come into a running pod, and what the answer names.
RUNNING = {
    "running-pod-debugged": ({"targetContainerName": "app"}, []),
    "running-pod-debugged-as-the-sidecar": ({"securityContext": {"runAsUser": 1580}}, ["container debug", "runAsUser is 1580"]),
    "running-pod-debugged-beside-the-sidecar": ({"targetContainerName": "openbox-sidecar"}, ["container debug", "targetContainerName is openbox-sidecar"]),
    "running-pod-debugged-with-its-keys": ({"volumeMounts": [{"name": "openbox-keys", "mountPath": "/k"}]}, ["container debug mounts volume openbox-keys"]),
}


def review(thing, part=None):
    group, _, version = thing["apiVersion"].rpartition("/")
    resource = {"Pod": "pods", "Deployment": "deployments", "Job": "jobs", "CronJob": "cronjobs"}[thing["kind"]]
    kind = {"group": group, "version": version, "kind": thing["kind"]}
    named = {"group": group, "version": version, "resource": resource}
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": kind,
        "resource": named,
        "requestKind": kind,
        "requestResource": named,
        "namespace": "shop",
        "operation": "CREATE",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "groups": ["system:authenticated"]},
        "object": thing,
        "oldObject": None,
        "dryRun": False,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    }
    if part:
        options = {"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1"}
        request |= {"operation": "UPDATE", "subResource": part, "requestSubResource": part, "options": options}
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


# Who is asked.


class Webhook:
    def __init__(self, binary, folder):
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=injector"]
        names = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
        certificate, key = folder / "tls.crt", folder / "tls.key"
        subprocess.run([*new, *names, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
        self.port = free_port()
        command = [binary, "injector", "--listen", f"127.0.0.1:{self.port}", "--cert", str(certificate), "--key", str(key)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.context = ssl.create_default_context(cafile=str(certificate))
        end = time.monotonic() + 60
        while True:
            try:
                if self.ask("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                pass
            if time.monotonic() > end or self.process.poll() is not None:
                sys.exit("the injector does not serve")
            time.sleep(0.05)

    def ask(self, method, path, body=None):
        connection = http.client.HTTPSConnection("localhost", self.port, context=self.context, timeout=30)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()

    def review(self, thing, part=None):
        status, body = self.ask("POST", "/mutate?timeout=5s", json.dumps(review(thing, part)))
        answer = json.loads(body)
        return status, answer


def validated(checks, what, thing):
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
            checks.that(what, True)
        except kubernetes_validate.ValidationError as error:
            checks.that(f"{what}: valid in {version}", False, error)


def kept(checks, name, value):
    path = FOLDER / f"{name}.yaml"
    text = yaml.safe_dump(value, sort_keys=False, width=120)
    if os.environ.get("UPDATE_GOLDEN"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(text)
    there = path.read_text() if path.exists() else ""
    checks.that(f"{path.name} is what is asked and answered (UPDATE_GOLDEN=1 writes it)", there == text, text)


def asked(checks, webhook, name, thing, part=None):
    status, answer = webhook.review(thing, part)
    response = answer["response"]
    checks.that(f"{name}: it is answered", status == 200 and answer["kind"] == "AdmissionReview", answer)
    checks.that(f"{name}: by its uid", response.pop("uid") == review(thing)["request"]["uid"], answer)
    patch = json.loads(base64.b64decode(response.pop("patch"))) if "patch" in response else []
    kept(checks, name, {"object": thing, "response": response, "patch": patch})
    return response, patch


def taken(checks, webhook):
    for name, thing in TAKEN.items():
        response, patch = asked(checks, webhook, name, thing)
        checks.that(f"{name}: it is allowed", response["allowed"], response)
        out = applied(thing, patch)
        if name in ("pod-opted-out", "pod-that-does-not-ask"):
            checks.that(f"{name}: it stays as it is", not patch, patch)
            continue
        checks.that(f"{name}: it has a sidecar", "restartPolicy: Always\n" in yaml.safe_dump(out), out)
        validated(checks, name, out)
        again = webhook.review(out)[1]["response"]
        checks.that(f"{name}: asked again, nothing changes", again["allowed"] and "patch" not in again, again)


def refused(checks, webhook):
    for name, (thing, told) in REFUSED.items():
        response, patch = asked(checks, webhook, name, thing)
        message = response.get("status", {}).get("message", "")
        checks.that(f"{name}: it is refused", not response["allowed"] and not patch, response)
        checks.that(f"{name}: and told why", all(word in message for word in told), message)


def running(checks, webhook):
    injected = json.loads(base64.b64decode(webhook.review(TAKEN["pod-of-a-deployment"])[1]["response"]["patch"]))
    for name, (container, told) in RUNNING.items():
        thing = applied(TAKEN["pod-of-a-deployment"], injected)
        thing["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "debug:1"} | container]
        response, patch = asked(checks, webhook, name, thing, "ephemeralcontainers")
        message = response.get("status", {}).get("message", "")
        checks.that(f"{name}: it is {'refused' if told else 'allowed'}, and nothing else of the pod is changed", response["allowed"] == (not told) and not patch, response)
        checks.that(f"{name}: and told why", all(word in message for word in told), message)


def main():
    checks = Checks()
    with tempfile.TemporaryDirectory() as folder:
        webhook = Webhook(sys.argv[1], pathlib.Path(folder))
        try:
            taken(checks, webhook)
            refused(checks, webhook)
            running(checks, webhook)
        finally:
            webhook.process.terminate()
            code = webhook.process.wait(30)
        checks.that("the injector ends as it should", code == 0, code)
    names = {path.stem for path in FOLDER.glob("*.yaml")}
    checks.that("every file is asked", names == set().union(TAKEN, REFUSED, RUNNING), names ^ set().union(TAKEN, REFUSED, RUNNING))
    print(f"{checks.passed} checks passed, {checks.failed} failed")
    sys.exit(1 if checks.failed else 0)


main()
