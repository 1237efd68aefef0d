"""The charts, rendered by real Helm 4 and held against Kubernetes' own schemas; manifests patched by the real binary, too.

    .venv-charts/bin/python tests/charts/charts.py target/debug/openbox-sidecar

Helm talks to a cluster of one process, which takes what it is given. Custom resources have no schema here: they are
listed, so that nobody takes them for checked.
"""

import asyncio
import base64
import contextlib
import copy
import http.server
import json
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading

import helm_sdkpy as helm
import kubernetes_validate
import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from checks import Checks, free_port  # noqa: E402  (it lies in the folder above)

import policies  # noqa: E402
from watched import watched  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/openbox-sidecar"
LIBRARY = ROOT / "charts/openbox-sidecar-lib"
CONSUMER = ROOT / "tests/charts/consumer"
VERSIONS = ["1.29", "1.33", "1.36"]
# Of operators, whose schemas are not Kubernetes' own.
# Since when, where that is later than the oldest.
POLICIES = {
    "ValidatingAdmissionPolicy": "1.33",
    "ValidatingAdmissionPolicyBinding": "1.33",
    "MutatingAdmissionPolicy": "1.36",
    "MutatingAdmissionPolicyBinding": "1.36",
}
CUSTOM = {"PodMonitor", "ServiceMonitor", "PrometheusRule", "Certificate", "Issuer"}


class Cluster(http.server.BaseHTTPRequestHandler):
    """An API server of which `helm install` asks no more than this."""

    protocol_version = "HTTP/1.1"
    kept = {}
    groups = {
        "/api/v1": ["Secret", "ConfigMap", "Service", "ServiceAccount", "Namespace"],
        "/apis/apps/v1": ["Deployment"],
        "/apis/policy/v1": ["PodDisruptionBudget"],
        "/apis/networking.k8s.io/v1": ["NetworkPolicy"],
        "/apis/admissionregistration.k8s.io/v1": ["MutatingWebhookConfiguration"],
        "/apis/monitoring.coreos.com/v1": ["PodMonitor", "ServiceMonitor", "PrometheusRule"],
        "/apis/cert-manager.io/v1": ["Certificate", "Issuer"],
    }

    def log_message(self, *_):
        pass

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/version":
            return self.answer({"major": "1", "minor": "33", "gitVersion": "v1.33.0"})
        if path == "/api":
            return self.answer({"kind": "APIVersions", "versions": ["v1"]})
        if path == "/apis":
            names = [group.split("/")[2:] for group in self.groups if group.startswith("/apis")]
            versions = [({"groupVersion": f"{name}/{version}", "version": version}, name) for name, version in names]
            groups = [{"name": name, "versions": [version], "preferredVersion": version} for version, name in versions]
            return self.answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        if path in self.groups:
            group = path.removeprefix("/apis/").removeprefix("/api/")
            resources = [self.resource(kind) for kind in self.groups[path]]
            return self.answer({"kind": "APIResourceList", "groupVersion": group, "resources": resources})
        if path in self.kept:
            return self.answer(self.kept[path])
        if path.endswith("/secrets"):
            items = [kept for name, kept in self.kept.items() if name.startswith(path + "/")]
            return self.answer({"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": items})
        missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        return self.answer(missing, 404)

    def resource(self, kind):
        plural = kind.lower() + "s" if not kind.endswith("y") else kind.lower()[:-1] + "ies"
        namespaced = kind not in ("Namespace", "MutatingWebhookConfiguration", *POLICIES)
        verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
        return {"name": plural, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": verbs}

    def take(self, status, name=None):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.split("?")[0]
        if body[:4] == b"k8s\0":
            # Helm's own record of the release, in Protobuf: given back as it is.
            self.send_response(status)
            self.send_header("Content-Type", self.headers["Content-Type"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            return self.wfile.write(body)
        value = json.loads(body or b"{}")
        self.kept[path + (f"/{value['metadata']['name']}" if name is None else "")] = value
        return self.answer(value, status)

    def do_POST(self):
        self.take(201)

    def do_PUT(self):
        self.take(200, "")

    do_PATCH = do_PUT

    def do_DELETE(self):
        self.kept.pop(self.path.split("?")[0], None)
        self.answer({"kind": "Status", "status": "Success"})


# Settings of each kind; numbers so large that a careless renderer writes them with an exponent.
FILE = {
    "fail_mode": "closed",
    "http": {"hold_within": "9s", "capture": False, "connect_ports": ["443"]},
    "journal": {"keep_bytes": 8589934592, "keep_for": "24h"},
    "postgres": {"servers": ["postgres://orders-db:5432"], "agent_tls": "offer"},
}


class Newer(Cluster):
    """One that has admission policies."""

    kept = {}
    groups = Cluster.groups | {"/apis/admissionregistration.k8s.io/v1": ["MutatingWebhookConfiguration", *POLICIES]}


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(manifest, kind):
    return [document for document in manifest if document["kind"] == kind]


def validated(checks, what, manifest):
    for document in manifest:
        if document["kind"] in CUSTOM:
            continue
        for version in VERSIONS:
            if version < POLICIES.get(document["kind"], ""):
                continue
            try:
                kubernetes_validate.validate(document, version, strict=True)
                checks.that(what, True)
            except kubernetes_validate.ValidationError as error:
                checks.that(f"{what}: {document['kind']} is valid in {version}", False, error)


class Charts:
    def __init__(self, checks, kubeconfig):
        self.checks = checks
        self.configuration = helm.Configuration(namespace="openbox", kubeconfig=kubeconfig)
        self.number = 0

    def install(self, values, chart=CHART):
        self.number += 1
        install = helm.Install(self.configuration)
        return asyncio.run(install.run(f"r{self.number}", str(chart), values=values, wait=False))

    def render(self, values, chart=CHART):
        return documents(self.install(values, chart)["manifest"])

    def tests(self, values):
        """What `helm test` starts."""
        hooks = self.install(values)["hooks"]
        return [one for hook in hooks if "test" in hook["events"] for one in documents(hook["manifest"])]

    def refused(self, values, chart=CHART):
        try:
            self.render(values, chart)
        except helm.HelmError as error:
            return str(error)
        return ""


def the_chart(checks, charts):
    lint = asyncio.run(helm.Lint(charts.configuration).run(str(CHART)))
    checks.that("helm lint finds nothing", not lint.get("Errors"), lint)
    matrix = [
        {},
        {"injector": {"replicas": 1}},
        {"certificate": {"existingSecret": "tls"}},
        {"certificate": {"certManager": {"enabled": True}}},
        {"certificate": {"certManager": {"enabled": True, "issuerRef": {"name": "ca", "kind": "ClusterIssuer"}}}},
        {"injection": {"defaults": {"core-url": "https://core.test", "api-key-secret": "k"}, "failurePolicy": "Ignore"}},
        {"metrics": {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}, "dashboard": {"enabled": True}}},
        {"metrics": {"serviceMonitor": {"enabled": True, "namespaces": ["shop", "till"], "labels": {"release": "p"}}}},
        {"injector": {"networkPolicy": {"enabled": False}, "podAnnotations": {"a": "b"}, "nodeSelector": {"a": "b"}}},
        {"metrics": {"networkPolicy": {"enabled": True, "namespaces": ["shop", "till"]}}},
        {"metrics": {"networkPolicy": {"enabled": True, "namespaces": ["shop"], "from": []}}},
        {"imagePullSecrets": [{"name": "pull"}], "image": {"tag": "2", "pullPolicy": "Always"}},
        {"configuration": {"file": FILE, "namespaces": ["shop", "till"]}, "injection": {"defaults": {"config-configmap": "r13-configuration"}}},
    ]
    for values in matrix:
        validated(checks, f"rendered with {values}", charts.render(values))
    for values, told in [
        ({"injection": {"failurePolicy": "Perhaps"}}, "failurePolicy"),
        ({"injektion": {}}, "injektion"),
        ({"injector": {"replicas": 0}}, "replicas"),
        ({"injection": {"defaults": {"Core_URL": "x"}}}, "Core_URL"),
        ({"injection": {"defaults": {"core-ulr": "x"}}}, "core-ulr"),
        ({"injection": {"defaults": {"workers": "many"}}}, "workers"),
        ({"injection": {"defaults": {"fail-mode": "ajar"}}}, "fail-mode"),
        ({"injection": {"defaults": {"mode": "wishful"}}}, "mode"),
        ({"injection": {"defaults": {"drain-within": "soon"}}}, "drain-within"),
        ({"injection": {"defaults": {"pg": 5432}}}, "pg"),
        ({"injection": {"defaults": {"api-key-secret": "Core key"}}}, "api-key-secret"),
        ({"metrics": {"networkPolicy": {"enabled": True}}}, "namespaces"),
        ({"injection": {"timeoutSeconds": 31}}, "timeoutSeconds"),
        ({"metrics": {"serviceMonitor": {"enabled": True}}}, "namespaces"),
        ({"configuration": {"file": FILE}}, "namespaces"),
        ({"configuration": {"file": {"http": {"hold_withn": "9s"}}, "namespaces": ["shop"]}}, "hold_withn"),
        ({"configuration": {"file": {"http": {"hold_within": 9}}, "namespaces": ["shop"]}}, "hold_within"),
        ({"configuration": {"file": {"fail_mode": "ajar"}, "namespaces": ["shop"]}}, "fail_mode"),
        ({"configuration": {"file": {"journal": {"keep_bytes": 3}}, "namespaces": ["shop"]}}, "keep_bytes"),
        ({"configuration": {"file": {"postgres": {"servers": "db"}}, "namespaces": ["shop"]}}, "servers"),
        ({"configuration": {"file": {"state_dir": "/x"}, "namespaces": ["shop"]}}, "state_dir"),
        ({"configuration": {"namespaces": ["Shop"]}}, "namespaces"),
    ]:
        said = charts.refused(values)
        checks.that(f"{values} is refused by the schema", told in said and "schema" in said.lower(), said)


def what_is_rendered(checks, charts):
    manifest = charts.render({"injection": {"defaults": {"pg": "postgres://db", "workers": 2}}, "image": {"tag": "9"}})
    (webhook, running) = of_kind(manifest, "MutatingWebhookConfiguration")[0]["webhooks"]
    (secret,) = of_kind(manifest, "Secret")
    checks.that("the webhook trusts the certificate that is made", webhook["clientConfig"]["caBundle"] == secret["data"]["ca.crt"])
    pem = base64.b64decode(secret["data"]["tls.crt"])
    name = subprocess.run(["openssl", "x509", "-noout", "-ext", "subjectAltName"], input=pem, capture_output=True).stdout.decode()
    service = webhook["clientConfig"]["service"]
    checks.that("it is for the service", f"{service['name']}.{service['namespace']}.svc" in name, name)
    excluded = webhook["namespaceSelector"]["matchExpressions"][0]["values"]
    checks.that("its own namespace is excluded", excluded == ["kube-system", "openbox"], excluded)
    (deployment,) = of_kind(manifest, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    checks.that("the injector gets no sidecar", labels["openbox.ai/inject"] == "disabled", labels)
    alone = charts.render({"injector": {"replicas": 1}})
    checks.that("one replica has no disruption budget", not of_kind(alone, "PodDisruptionBudget"))
    injection = yaml.safe_load(of_kind(manifest, "ConfigMap")[0]["data"]["injection.yaml"])
    expected = {
        "image": "ghcr.io/openbox-ai/openbox-sidecar:9",
        "init_net_image": "ghcr.io/openbox-ai/openbox-sidecar-init-net:9",
        "image_pull_policy": "IfNotPresent",
    }
    checks.that("the injector is told what to inject", expected.items() <= injection.items(), injection)
    checks.that("defaults are words, as annotations are", injection["defaults"] == {"pg": "postgres://db", "workers": "2"}, injection)
    asked = [(rule["operations"], rule["resources"]) for one in (webhook, running) for rule in one["rules"]]
    unlabelled = "objectSelector" not in running and "openbox-sidecar" in running["matchConditions"][0]["expression"]
    checks.that("a running pod with a sidecar is known without its label", unlabelled, running)
    checks.that("it is asked about pods, and about containers that come into running ones", asked == [(["CREATE"], ["pods"]), (["UPDATE"], ["pods/ephemeralcontainers"])], asked)
    manifest = charts.render({"metrics": {"serviceMonitor": {"enabled": True, "namespaces": ["shop", "till"]}}})
    services = [one for one in of_kind(manifest, "Service") if one["spec"].get("clusterIP") == "None"]
    of = {(one["metadata"]["namespace"], one["spec"]["selector"]["openbox.ai/inject"]) for one in services}
    wanted = {(namespace, label) for namespace in ("shop", "till") for label in ("enabled", "disabled")}
    checks.that("each namespace has its Services of sidecars, injected or stated", of == wanted and len(services) == 4, services)
    (monitor,) = of_kind(manifest, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    checks.that("which is what is monitored", all(wanted <= one["metadata"]["labels"].items() for one in services), monitor)
    manifest = charts.render({"metrics": {"networkPolicy": {"enabled": True, "namespaces": ["shop"]}}})
    (policy,) = [one["spec"] for one in of_kind(manifest, "NetworkPolicy") if one["metadata"]["namespace"] == "shop"]
    anyone, some = policy["ingress"]
    open_to_all = {port for one in anyone["ports"] if one["protocol"] == "TCP" for port in range(one["port"], one["endPort"] + 1)}
    checks.that("one port of sidecars is closed to all but some", set(range(1, 65536)) - open_to_all == {15820} and "from" not in anyone, anyone)
    checks.that("and open to those", some["ports"] == [{"port": 15820, "protocol": "TCP"}] and some["from"], some)
    nothing_is_asked_of_the_cluster(checks, charts)
    return injection


def nothing_is_asked_of_the_cluster(checks, charts):
    """No rights, and no token to have any with: neither who injects nor a companion speaks to the API server."""
    everything = {"companion": {"enabled": True}, "metrics": {name: {"enabled": True} for name in ("podMonitor", "prometheusRule", "dashboard")}}
    manifest = charts.render(everything) + charts.tests(everything)
    rights = [one["kind"] for one in manifest if "Role" in one["kind"]]
    checks.that("nothing is granted rights", rights == [], rights)
    pods = [one["spec"] if one["kind"] == "Pod" else one["spec"]["template"]["spec"] for one in manifest if one["kind"] in ("Deployment", "Pod")]
    checks.that("and no pod has a token", len(pods) == 3 and all(one["automountServiceAccountToken"] is False for one in pods), pods)


APP = {"name": "app", "image": "app:1"}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "agent", "annotations": {"openbox.ai/pg": "postgres://orders-db:5432"}},
    "spec": {"containers": [APP], "initContainers": [{"name": "first", "image": "i"}]},
}


def workloads():
    template = {key: POD[key] for key in ("metadata", "spec")}
    template = {"metadata": {"labels": {"app": "a"}, "annotations": POD["metadata"]["annotations"]}, "spec": dict(POD["spec"])}
    once = {"metadata": template["metadata"], "spec": template["spec"] | {"restartPolicy": "Never"}}
    selector = {"matchLabels": {"app": "a"}}
    yield POD
    yield {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"selector": selector, "template": template}}
    yield {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {"template": once}}
    jobs = {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": once}}}
    yield {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "a"}, "spec": jobs}


def patched(binary, folder, manifest, *arguments):
    path = pathlib.Path(folder) / "manifest.yaml"
    path.write_text(yaml.safe_dump(manifest))
    command = [binary, "k8s", "patch", "-f", str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def what_is_configured(checks, charts, binary, folder):
    """The file that is rendered is the one that was said, to the sidecar itself."""
    manifest = charts.render({"configuration": {"file": FILE, "namespaces": ["shop", "till"]}})
    maps = [one for one in of_kind(manifest, "ConfigMap") if "openbox-sidecar.yaml" in one["data"]]
    checks.that("each namespace has its configuration", [one["metadata"]["namespace"] for one in maps] == ["shop", "till"], maps)
    text = maps[0]["data"]["openbox-sidecar.yaml"]
    checks.that("it is what was said", yaml.safe_load(text) == FILE and "8589934592" in text, text)
    path = pathlib.Path(folder) / "openbox-sidecar.yaml"
    path.write_text(text)
    done = subprocess.run([binary, "check", "--config", str(path)], capture_output=True, text=True)
    checks.that("the sidecar takes it", done.returncode == 0, done.stdout + done.stderr)
    checks.that("without namespaces there is none", not [one for one in of_kind(charts.render({}), "ConfigMap") if "openbox-sidecar.yaml" in one["data"]])


def of_environment(container, folder, ports):
    """What the kubelet makes of it, on this machine: another folder, and other ports."""
    made = {"OPENBOX_POD_IP": "127.0.0.1"}
    for entry in container["env"]:
        value = entry.get("value", made.get(entry["name"], "a"))
        value = value.replace("$(OPENBOX_POD_IP)", made["OPENBOX_POD_IP"])
        for port, here in ports.items():
            value = value.replace(f":{port}", f":{here}")
        made[entry["name"]] = f"{folder}{value}" if value.startswith("/") else value
    return made


@contextlib.contextmanager
def serving(binary, container, environment):
    """The sidecar of a rendered container, ready. What it said is told where it does not end as it should."""
    for name in ("OPENBOX_STATE_DIR", "OPENBOX_CA_DIR", "OPENBOX_SHARE_DIR"):
        pathlib.Path(environment[name]).parent.mkdir(parents=True, exist_ok=True)
    # A volume, which is there when a container starts.
    pathlib.Path(environment["OPENBOX_SHARE_DIR"]).mkdir(exist_ok=True)
    process = subprocess.Popen([binary, *container["args"]], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=30)
        if process.returncode != 0:
            print(said)


def what_is_tested(checks, charts, binary, folder):
    """The pod of `helm test`: valid, under the restricted profile, and its verbs do what it is for."""
    (pod,) = charts.tests({"imagePullSecrets": [{"name": "pull"}], "image": {"tag": "9"}})
    validated(checks, "the pod of helm test", [pod])
    (sidecar,), (asks,) = pod["spec"]["initContainers"], pod["spec"]["containers"]
    for container in (sidecar, asks):
        security = container["securityContext"]
        confined = security["runAsNonRoot"] and not security["allowPrivilegeEscalation"] and security["capabilities"] == {"drop": ["ALL"]}
        checks.that(f"{container['name']} fits the restricted profile", confined and security["seccompProfile"], security)
        checks.that(f"{container['name']} is of the installed image", container["image"].endswith("/openbox-sidecar:9"), container)
    checks.that("they are two users", sidecar["securityContext"]["runAsUser"] != asks["securityContext"]["runAsUser"])
    ports = {15820: free_port()}
    command = [binary, *(binary if word == "/openbox-sidecar" else word for word in asks["args"])]
    asked = of_environment(asks, folder, ports)
    hasty = ["1" if word == "30" else word for word in command]
    alone = subprocess.run(hasty, env=asked, capture_output=True, text=True, timeout=60)
    checks.that("without a sidecar it fails", alone.returncode != 0, alone)
    # Ports of its own, as this is no pod.
    anywhere = {f"OPENBOX_{name}_LISTEN": "127.0.0.1:0" for name in ("HTTP", "AGENT", "OPERATOR")}
    with serving(binary, sidecar, of_environment(sidecar, folder, ports) | anywhere):
        done = subprocess.run(command, env=asked, capture_output=True, text=True, timeout=60)
    checks.that("with one it passes", done.returncode == 0, done)


def what_is_watched(checks, charts, binary, folder):
    """Alerts and dashboard are about what a sidecar as a pod has it says of itself."""
    (pod,) = charts.tests({})
    folder = pathlib.Path(folder) / "watched"
    ports = {15820: free_port()}
    environment = of_environment(pod["spec"]["initContainers"][0], folder, ports)
    anywhere = {f"OPENBOX_{name}_LISTEN": "127.0.0.1:0" for name in ("HTTP", "AGENT", "OPERATOR")}
    with serving(binary, pod["spec"]["initContainers"][0], environment | anywhere):
        ready = subprocess.run([binary, "await", "--within", "30", "--", "true"], env=environment, timeout=60)
        checks.that("the sidecar to be watched is ready", ready.returncode == 0, ready)
        asked = ["curl", "-sS", "--noproxy", "*", "--max-time", "20", f"http://127.0.0.1:{ports[15820]}/metrics"]
        exposition = subprocess.run(asked, capture_output=True, text=True).stdout
    manifest = charts.render({"metrics": {"prometheusRule": {"enabled": True}, "dashboard": {"enabled": True}}})
    promtool = shutil.which("promtool") or ROOT / ".tools/bin/promtool"
    watched(checks, manifest, exposition, folder, promtool)


def what_is_noted(checks, charts):
    """What Helm says at the end is about what was installed."""
    for values, said, unsaid in [
        ({}, "openbox.ai/injection=enabled", "companion"),
        ({"companion": {"enabled": True}}, "openbox.ai/injection=enabled", "caBundle"),
        ({"injection": {"by": "none"}, "companion": {"enabled": True}}, "-companion-env", "openbox.ai/injection=enabled"),
        ({"certificate": {"existingSecret": "tls"}}, "caBundle", "companion"),
    ]:
        notes = charts.install(values)["info"]["notes"]
        checks.that(f"the notes fit {values}", said in notes and unsaid not in notes and "helm test" in notes, notes)


def the_companion(checks, charts, binary, folder):
    values = {
        "injection": {"by": "none"},
        "companion": {
            "enabled": True,
            "settings": {"OPENBOX_PG": "0.0.0.0:15432=postgres://db", "OPENBOX_WORKERS": 2},
            "agentTokenSecret": {"name": "agent"},
            "policyConfigMap": "p",
            "journalClaim": "j",
        },
    }
    manifest = charts.render(values)
    validated(checks, "a companion", manifest)
    kinds = sorted({document["kind"] for document in manifest})
    checks.that("it is alone", kinds == ["ConfigMap", "Deployment", "NetworkPolicy", "Secret", "Service"], kinds)
    name = f"r{charts.number}-companion"
    (deployment,), (service,) = of_kind(manifest, "Deployment"), of_kind(manifest, "Service")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    policies_of = {policy["metadata"]["name"]: policy["spec"] for policy in of_kind(manifest, "NetworkPolicy")}
    out, to_names = policies_of[f"{name}-apps"]["egress"]
    (only,) = out["to"]
    ports = [port["port"] for port in service["spec"]["ports"]]
    checks.that("its label's pods reach it and nobody else", only["podSelector"].get("matchLabels", {"any": ""}).items() <= labels and list(only) == ["podSelector"], out)
    checks.that("on the ports that it has for them, not the operator's", [port["port"] for port in out["ports"]] == ports == [15801, 15800, 15432, 13306, 16379], ports)
    checks.that("and name servers", {(port["port"], port["protocol"]) for port in to_names["ports"]} == {(53, "UDP"), (53, "TCP")}, to_names)
    (theirs, health) = policies_of[name]["ingress"]
    checks.that("it is reached by them alone, but for its health", theirs["from"] == [{"podSelector": policies_of[f"{name}-apps"]["podSelector"]}] and [port["port"] for port in health["ports"]] == [15820], policies_of)
    maps = {one["metadata"]["name"]: one["data"] for one in of_kind(manifest, "ConfigMap")}
    env = maps[f"{name}-env"]
    checks.that("apps are sent to it", env["HTTPS_PROXY"] == f"http://{name}.openbox.svc:15801" and env["SSL_CERT_FILE"] == "/openbox/ca.pem", env)
    elsewhere = {key: value for key, value in env.items() if "127.0.0.1" in value and "no" not in key.lower() or "bundle" in value}
    checks.that("and to nothing of their own pod", not elsewhere, elsewhere)
    without = charts.render({"injection": {"by": "none"}, "companion": {"enabled": True}})
    validated(checks, "a companion that says nothing", without)
    (env,) = [one["data"] for one in of_kind(without, "ConfigMap") if one["metadata"]["name"].endswith("-env")]
    checks.that("without a token there is no agent API", "OPENBOX_URL" not in env and "HTTP_PROXY" in env, env)
    checks.that("and without a companion nothing of it", not of_kind(charts.render({}), "NetworkPolicy")[1:])
    for wrong, told in [
        ({"settings": {"OPENBOX_PGG": "x"}}, "OPENBOX_PGG"),
        ({"settings": {"OPENBOX_HTTP_LISTEN": "off"}}, "OPENBOX_HTTP_LISTEN"),
        ({"settings": {"OPENBOX_CORE_URL": "https://core.test"}}, "needs apiKeySecret"),
        ({"apiKeySecret": "core/k"}, "apiKeySecret"),
        ({"replicas": 2}, "replicas"),
        ({"settings": {"OPENBOX_DRAIN_WITHIN": "29s"}}, "terminationGracePeriodSeconds 30"),
        ({"settings": {"OPENBOX_DRAIN_WITHIN": "soon"}}, "OPENBOX_DRAIN_WITHIN"),
    ]:
        said = charts.refused({"companion": {"enabled": True} | wrong})
        checks.that(f"a companion of {wrong} is refused", told in said, said)
    watched = charts.render(values | {"metrics": {"podMonitor": {"enabled": True}}})
    (companion,) = [one["spec"]["template"] for one in of_kind(watched, "Deployment")]
    (monitor,) = [one["spec"] for one in of_kind(watched, "PodMonitor")]
    checks.that("it is monitored, as are pods with either label, by the one that has a port for it", selects(monitor["selector"], companion["metadata"]["labels"]), monitor)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    checks.that("it is no init container there", "restartPolicy" not in container, container)
    (secret,) = of_kind(manifest, "Secret")
    companion_governs(checks, binary, folder, of_kind(without, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0], of_kind(without, "Secret")[0], secret)


def selects(selector, labels):
    matched = selector.get("matchLabels", {}).items() <= labels.items()
    return matched and all(one["operator"] == "Exists" and one["key"] in labels for one in selector.get("matchExpressions", []))


def companion_governs(checks, binary, folder, container, secret, other):
    """The real sidecar as the Deployment starts it, with the authority that Helm made, asked over TLS by who trusts that alone."""
    folder = pathlib.Path(folder) / "companion"
    ports = {15820: free_port(), 15801: free_port()}
    environment = of_environment(container, folder, ports)
    (mounted,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "openbox-ca"]
    authority = pathlib.Path(f"{folder}{mounted}")
    authority.mkdir(parents=True)
    for name, data in secret["data"].items():
        (authority / name).write_bytes(base64.b64decode(data))
        (authority / name).chmod(0o440)
    (folder / "other.pem").write_bytes(base64.b64decode(other["data"]["ca.pem"]))
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run([*new, "-keyout", folder / "key.pem", "-out", folder / "origin.pem"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "origin.pem", folder / "key.pem")
    origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cluster)
    origin.socket = context.wrap_socket(origin.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=origin.serve_forever, daemon=True).start()
    here = {"OPENBOX_UPSTREAM_CA": str(folder / "origin.pem"), "OPENBOX_ALLOW_ADDRESS": "127.0.0.0/8", "OPENBOX_OPERATOR_LISTEN": "127.0.0.1:0"}
    curl = ["curl", "-sS", "--noproxy", "", "--max-time", "20", "-x", f"http://127.0.0.1:{ports[15801]}", f"https://localhost:{origin.server_port}/version", "--cacert"]
    with serving(binary, container, environment | here):
        ready = subprocess.run([binary, "await", "--within", "30", "--", "true"], env=environment | os.environ, timeout=60)
        checks.that("the companion is ready", ready.returncode == 0, ready)
        done = subprocess.run([*curl, authority / "ca.pem"], capture_output=True, text=True)
        checks.that("the companion governs who trusts its Secret's authority", "gitVersion" in done.stdout, done)
        done = subprocess.run([*curl, folder / "other.pem"], capture_output=True, text=True)
        checks.that("and is not trusted by who trusts another release's", "gitVersion" not in done.stdout and "certificate" in done.stderr, done)


def what_is_injected(checks, binary, folder, injection):
    path = pathlib.Path(folder) / "injection.yaml"
    path.write_text(yaml.safe_dump(injection))
    everything = ["-a", "core-url=https://core.test", "-a", "api-key-secret=k", "-a", "journal-claim=j", "-a", "config-configmap=c"]
    for workload in workloads():
        for arguments in ([], ["--injection", str(path)], everything):
            out = documents(patched(binary, folder, workload, *arguments))
            checks.that(f"{workload['kind']} is injected", "restartPolicy: Always" in yaml.safe_dump(out))
            validated(checks, f"{workload['kind']} patched with {arguments}", out)
    kustomized(checks, binary, folder)
    confined = {"runAsUser": 4711, "allowPrivilegeEscalation": False}
    containers = {"containers": [POD["spec"]["containers"][0] | {"securityContext": confined}]}
    out = documents(patched(binary, folder, POD | {"spec": containers}, "-a", "mode=redirect"))
    validated(checks, "a pod of mode redirect", out)
    names = [container["name"] for container in out[0]["spec"]["initContainers"]]
    checks.that("its rules are set first", names == ["openbox-init-net", "openbox-sidecar"], names)


def by_policy(checks, charts, newer, binary, folder):
    """What an API server does itself with a pod is what `k8s patch` does, and what it cannot do it refuses."""
    for cluster, by, found in [(charts, "auto", "webhook"), (newer, "auto", "policy"), (newer, "policy", "policy"), (newer, None, "webhook")]:
        manifest = cluster.render({"injection": {"by": by}} if by else {})
        kinds = {document["kind"] for document in manifest}
        wanted = set(POLICIES) if found == "policy" else {"MutatingWebhookConfiguration", "Deployment", "Service", "Secret"}
        checks.that(f"injection by {by} is by {found}", wanted <= kinds and ("Deployment" in kinds) == (found == "webhook"), kinds)
        validated(checks, f"injection by {found}", manifest)
    for defaults, pod, annotations in policies.CASES:
        values = {"injection": {"by": "policy", "defaults": defaults}}
        policy = policies.Policy(newer.render(values))
        pod = POD | {"spec": pod, "metadata": {"name": "a"} | ({"annotations": {f"openbox.ai/{name}": value for name, value in annotations.items()}} if annotations else {})}
        refused = policy.refusals(pod)
        checks.that(f"{annotations} is not refused", refused == [], refused)
        ours = policy.mutated(pod)
        validated(checks, f"a pod by policy with {annotations}", [ours])
        said = [word for name, value in defaults.items() for word in ("-a", f"{name}={value}")]
        theirs = documents(patched(binary, folder, pod, *said))[0]
        policies.same(checks, f"{defaults} {annotations}", ours, theirs)
        refused = policy.refusals(ours)
        checks.that("asked again, the policy changes nothing and refuses nothing", policy.mutated(ours) == ours and refused == [], (ours, refused))
        later = ours | {"spec": ours["spec"] | {"containers": [*ours["spec"]["containers"], {"name": "later", "image": "l"}]}}
        *_, added = policy.mutated(later)["spec"]["containers"]
        checks.that("a container that comes later is sent through the sidecar", "HTTP_PROXY" in [entry["name"] for entry in added.get("env", [])], added)
    policy = policies.Policy(newer.render({"injection": {"by": "policy"}}))
    for pod, annotations, told in policies.REFUSED:
        pod = POD | {"spec": pod, "metadata": {"annotations": {f"openbox.ai/{name}": value for name, value in annotations.items()}}}
        refused = policy.refusals(pod)
        checks.that(f"{annotations} is refused", len(refused) == 1 and told in refused[0], refused)
    for container, told in policies.DEBUGGING:
        running = policy.mutated(POD)
        running["spec"]["ephemeralContainers"] = [container]
        refused = policy.refusals(running, policy.running)
        checks.that(f"a running pod's {container} is told of as {told}", [told in one for one in refused] == [True] if told else not refused, refused)
    who_poses_as_the_sidecar(checks, policy)


def who_poses_as_the_sidecar(checks, policy):
    """What a pod says of itself counts for nothing: its sidecar is the policy's own, or it is refused."""
    forged = {"containers": [APP], "initContainers": [{"name": "openbox-sidecar", "image": "busybox"}]}
    forged = POD | {"spec": forged, "metadata": {"annotations": {"openbox.ai/injected": "0.1.0"}}}
    refused = policy.refusals(policy.mutated(forged))
    checks.that("a container that is merely called so is refused, whatever the pod says", any("(image)" in one for one in refused), refused)
    said = {"policy-configmap": "p", "journal-claim": "j", "pg": "postgres://db:5432"}
    made = policy.mutated(POD | {"metadata": {"annotations": {f"openbox.ai/{name}": value for name, value in said.items()}}})
    for number, change in enumerate([change for change, _ in policies.POSING] + policies.BENIGN):
        pod = copy.deepcopy(made)
        change(pod["spec"]["initContainers"][0], {volume["name"]: volume for volume in pod["spec"]["volumes"]})
        told = policies.POSING[number][1] if number < len(policies.POSING) else None
        # What is null is not there, to an API server.
        pod["spec"]["volumes"] = [{key: value for key, value in volume.items() if value is not None} for volume in pod["spec"]["volumes"]]
        refused = policy.refusals(pod)
        checks.that(f"change {number} of the sidecar is told of as {told}", [told in one for one in refused] == [True] if told else not refused, refused)


def kustomized(checks, binary, folder):
    *_, cron_job = workloads()
    base = pathlib.Path(folder) / "kustomize"
    (base / "openbox").mkdir(parents=True)
    (base / "job.yaml").write_text(yaml.safe_dump(cron_job))
    (base / "kustomization.yaml").write_text("resources: [job.yaml]\ncomponents: [openbox]\n")
    component = patched(binary, folder, cron_job, "--emit", "kustomize")
    (base / "openbox/kustomization.yaml").write_text(component)
    kubectl = ["kubectl"] if shutil.which("kubectl") else [str(ROOT / ".tools/kubectl/run"), "kubectl"]
    built = subprocess.run([*kubectl, "kustomize", str(base)], capture_output=True, text=True)
    same = built.returncode == 0 and documents(built.stdout) == documents(patched(binary, folder, cron_job))
    checks.that("kustomize makes of it what `k8s patch` prints", same, built.stderr or built.stdout)


def known_annotations(binary, folder):
    """What `k8s patch` says that it knows."""
    path = pathlib.Path(folder) / "unknown.yaml"
    path.write_text(yaml.safe_dump(POD | {"metadata": {"name": "a", "annotations": {"openbox.ai/x": "y"}}}))
    told = subprocess.run([binary, "k8s", "patch", "-f", str(path)], capture_output=True, text=True).stderr
    return re.search(r"known are (.*)", told)[1].split(", ")


def kept(checks, path, text):
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    there = path.read_text() if path.exists() else ""
    checks.that(f"{path.relative_to(ROOT)} is what the binary makes (UPDATE_GOLDEN=1 writes it)", there == text, text)


# What annotations name beside settings. Empty takes a default back.
NAMED = {"type": "string", "pattern": r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"}
KEYED = {"type": "string", "pattern": r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[-._a-zA-Z0-9]+)?)?$"}
OBJECTS = {
    "mode": {"enum": ["", "cooperative", "redirect"]},
    "policy-configmap": NAMED,
    "config-configmap": NAMED,
    "journal-claim": NAMED,
    "api-key-secret": KEYED,
    "agent-token-secret": KEYED,
    "credentials-secret": NAMED,
    # As SDKs say it, too.
    "fail-mode": {"enum": ["", "open", "closed", "fail_open", "fail_closed"]},
}


def as_annotation(schema, key):
    """What a setting may be where it is said in words, by what the file's schema says of it."""
    for part in key.split("."):
        if "$ref" in schema:
            schema = root["$defs"][schema["$ref"].split("/")[-1]]
        else:
            root = schema
        schema = schema["properties"][part]
    kinds = schema.get("type", [])
    if "enum" in schema:
        return {"enum": ["", *(one for one in schema["enum"] if one is not None)]}
    if "integer" in kinds:
        return {"type": ["string", "integer"], "pattern": "^[0-9]*$"} | {bound: schema[bound] for bound in ("minimum",) if bound in schema}
    if any(re.fullmatch(r"[0-9]+(ms|s|m|h)", str(one)) for one in schema.get("examples", [])):
        return {"type": "string", "pattern": "^([0-9]+(ms|s|m|h)?)?$"}
    return {"type": "string"}


def configuration_file(binary):
    """The configuration's own schema, but for what the injection says itself."""
    printed = subprocess.run([binary, "config", "schema"], capture_output=True, text=True, check=True).stdout
    schema = json.loads(printed)
    # It is part of another one here.
    del schema["$schema"]
    for key in ("listen", "state_dir", "ca_dir", "share_dir"):
        del schema["properties"][key]
    return schema


def what_is_generated(checks, binary, folder):
    """What the chart's schema says of the sidecar's settings, and the app's environment in the library."""
    names = known_annotations(binary, folder)
    path = CHART / "values.schema.json"
    schema = json.loads(path.read_text())
    default = subprocess.run([binary, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    flags = re.findall(r"--([a-z-]+) <(?:(?!--[a-z-]+ <).)*?\[env: (\w+)", re.sub(r"\s+", " ", default))
    keys = dict(re.findall(r"--([a-z-]+) <(?:(?!--[a-z-]+ <).)*?key: ([\w.]+)", re.sub(r"\s+", " ", default)))
    file = configuration_file(binary)
    said = schema["properties"]["injection"]["properties"]["defaults"]
    said["propertyNames"] = {"enum": names}
    said["properties"] = {name: as_annotation(file, keys[name]) for name in names if name in keys} | OBJECTS
    schema["properties"]["configuration"]["properties"]["file"] = file
    variables = [variable for flag, variable in flags if flag in names]
    settings = {"propertyNames": {"enum": sorted(variables)}, "additionalProperties": {"type": ["string", "number", "boolean"]}}
    schema["properties"]["companion"]["properties"]["settings"].update(settings)
    kept(checks, path, json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
    plain = POD | {"metadata": {"name": "agent"}}
    (pod,) = documents(patched(binary, folder, plain))
    environment = [f"- {json.dumps(entry)}" for entry in pod["spec"]["containers"][0]["env"]]
    parts = [
        "{{/* What sends a container of the app through the sidecar. Made by tests/charts/charts.py. */}}",
        '{{- define "openbox-sidecar.env" -}}',
        *environment,
        "{{- end }}",
        "{{/* The settings that a pod may say, by their variables. Made by tests/charts/charts.py. */}}",
        '{{- define "openbox-sidecar.settings" -}}',
        json.dumps(variables),
        "{{- end }}",
        "{{/* The same, by their annotations. Made by tests/charts/charts.py. */}}",
        '{{- define "openbox-sidecar.annotations" -}}',
        json.dumps({flag: variable for flag, variable in flags if flag in names}),
        "{{- end }}",
    ]
    kept(checks, LIBRARY / "templates/_generated.tpl", "\n".join(parts) + "\n")
    for template in sorted((LIBRARY / "templates").glob("*.tpl")):
        # A dependency at a path would have to be fetched before the chart can be installed from its folder.
        text = "{{/* A copy of that of openbox-sidecar-lib. Made by tests/charts/charts.py. */}}\n" + template.read_text()
        kept(checks, CHART / f"templates/_lib{template.name}", text)
    checks.that("settings are generated", len(variables) > 8 and "OPENBOX_PG" in variables, variables)


def the_library(checks, charts, binary, folder):
    """A chart that uses the library has the pods that `k8s patch` makes."""
    consumer = pathlib.Path(folder) / "consumer"
    shutil.copytree(CONSUMER, consumer)
    shutil.copytree(LIBRARY, consumer / "charts/openbox-sidecar-lib")
    lint = asyncio.run(helm.Lint(charts.configuration).run(str(consumer)))
    checks.that("helm lint finds nothing in who uses the library", not lint.get("Errors"), lint)
    core = {"settings": {"OPENBOX_CORE_URL": "https://core.test"}, "apiKeySecret": {"name": "core", "key": "k"}}
    money = {"OPENBOX_PG": "postgres://db:5432/$(x)", "OPENBOX_LOG_FORMAT": "text"}
    for values, annotations in [
        ({}, {}),
        (core, {"core-url": "https://core.test", "api-key-secret": "core/k"}),
        ({"agentTokenSecret": {"name": "agent", "key": "t"}}, {"agent-token-secret": "agent/t"}),
        ({"credentialsSecret": "keys"}, {"credentials-secret": "keys"}),
        ({"settings": money}, {"pg": money["OPENBOX_PG"], "log-format": "text"}),
        ({"mode": "cooperative"}, {"mode": "cooperative"}),
        ({"terminationGracePeriodSeconds": 5}, {}),
        ({"terminationGracePeriodSeconds": 0}, {}),
        ({"settings": {"OPENBOX_DRAIN_WITHIN": "20s"}}, {"drain-within": "20s"}),
        ({"mode": "redirect", "settings": {"OPENBOX_PG": "postgres://db"}}, {"mode": "redirect", "pg": "postgres://db"}),
        (
            {"policyConfigMap": "p", "configConfigMap": "c", "journalClaim": "j", "image": "i:1"},
            {"policy-configmap": "p", "config-configmap": "c", "journal-claim": "j", "image": "i:1"},
        ),
    ]:
        manifest = charts.render({"openbox": values}, consumer)
        validated(checks, f"library with {values}", manifest)
        ours = manifest[0]["spec"]["template"]["spec"]
        pod = POD | {"metadata": {"annotations": {f"openbox.ai/{name}": value for name, value in annotations.items()}}}
        # Refused by `k8s patch` if what the library says of the app's containers were not enough.
        pod["spec"] = {"containers": [APP | {"securityContext": ours["containers"][0]["securityContext"]}]}
        if (grace := ours.get("terminationGracePeriodSeconds")) is not None:
            pod["spec"]["terminationGracePeriodSeconds"] = grace
        theirs = documents(patched(binary, folder, pod))[0]["spec"]
        for spec in (ours, theirs):
            spec["initContainers"][-1]["env"].sort(key=lambda entry: entry["name"])
        same = ours["initContainers"] == theirs["initContainers"]
        checks.that(f"the library's sidecar is that of k8s patch, with {values}", same, (ours["initContainers"], theirs["initContainers"]))
        checks.that(f"so are its volumes, with {values}", ours["volumes"] == theirs["volumes"], (ours["volumes"], theirs["volumes"]))
        app, theirs = ours["containers"][0], theirs["containers"][0]
        there = all(entry in theirs["env"] for entry in app["env"])
        tokens = [entry["name"] for entry in theirs["env"] if "valueFrom" in entry]
        there = there and all(name in [entry["name"] for entry in app["env"]] for name in tokens)
        checks.that(f"so is the app's environment, with {values}", there and app["volumeMounts"] == theirs["volumeMounts"], app)
    for values, told in [
        ({"settings": {"OPENBOX_PGG": "x"}}, "settings.OPENBOX_PGG is no setting"),
        ({"settings": {"OPENBOX_STATE_DIR": "x"}}, "settings.OPENBOX_STATE_DIR is no setting"),
        ({"setings": {}}, '"setings" is not known'),
        ({"mode": "wishful"}, 'mode is "wishful"'),
        ({"settings": core["settings"]}, "needs apiKeySecret"),
        (core | {"policyConfigMap": "p"}, "exclude each other"),
        ({"settings": {"OPENBOX_DRAIN_WITHIN": "1m"}}, "terminationGracePeriodSeconds 30"),
        ({"settings": {"OPENBOX_DRAIN_WITHIN": "9s"}, "terminationGracePeriodSeconds": 10}, "terminationGracePeriodSeconds 10"),
    ]:
        said = charts.refused({"openbox": values}, consumer)
        checks.that(f"the library refuses {values}", told in said, said)
    for user in (0, 1580, None):
        said = charts.refused({"app": {"runAsUser": user}}, consumer)
        checks.that(f"the library's securityContext is none of user {user}", "needs runAsUser" in said, said)


def the_readme(checks):
    """Every value, with its comment and default, stands in the chart's README."""
    rows, path, comment, silent = [], [], "", []
    value = yaml.safe_load((CHART / "values.yaml").read_text())
    for line in (CHART / "values.yaml").read_text().splitlines():
        if said := re.match(r"\s*# -- (.*)", line):
            comment = said[1]
        elif comment and (more := re.match(r"\s*# (.*)", line)):
            comment += f" {more[1]}"
        elif found := re.match(r"(\s*)(\w+):\s*(.*)", line):
            depth = len(found[1]) // 2
            path = path[:depth] + [found[2]]
            told = [row.split("`")[1] for row in rows]
            within = any(".".join(path[:upto]) in told for upto in range(1, len(path)))
            if found[3] and not comment and not within:
                silent.append(".".join(path))
            if comment:
                default = value
                for key in path:
                    default = default[key]
                rows.append(f"| `{'.'.join(path)}` | `{json.dumps(default)}` | {comment} |")
            comment = ""
    readme = CHART / "README.md"
    before, rest = readme.read_text().split("<!-- values -->\n")
    after = rest.split("<!-- /values -->")[1]
    table = "\n".join(["| value | default | meaning |", "| --- | --- | --- |", *rows])
    kept(checks, readme, f"{before}<!-- values -->\n{table}\n<!-- /values -->{after}")
    checks.that("every value is documented", len(rows) > 20 and not silent, silent)


def kubeconfig(folder, of):
    """The way to a cluster of this kind, which begins to serve."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), of)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = pathlib.Path(folder) / f"kubeconfig-{server.server_port}"
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    user = {"name": "u", "user": {}}
    config = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "users": [user], "current-context": "c"}
    path.write_text(yaml.safe_dump(config))
    return str(path)


def main():
    binary = sys.argv[1]
    checks = Checks()
    with tempfile.TemporaryDirectory() as folder:
        charts = Charts(checks, kubeconfig(folder, Cluster))
        newer = Charts(checks, kubeconfig(folder, Newer))
        what_is_generated(checks, binary, folder)
        the_chart(checks, charts)
        injection = what_is_rendered(checks, charts)
        what_is_configured(checks, charts, binary, folder)
        what_is_tested(checks, charts, binary, folder)
        what_is_watched(checks, charts, binary, folder)
        what_is_injected(checks, binary, folder, injection)
        by_policy(checks, charts, newer, binary, folder)
        the_companion(checks, charts, binary, folder)
        what_is_noted(checks, charts)
        the_library(checks, charts, binary, folder)
    the_readme(checks)
    print(f"{checks.passed} checks passed, {checks.failed} failed (custom resources have no schema here: {', '.join(sorted(CUSTOM))})")
    sys.exit(1 if checks.failed else 0)


main()
