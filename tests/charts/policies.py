"""Admission policies as an API server applies them: their CEL, evaluated by an interpreter of it.

The interpreter knows no Kubernetes; what of its types and functions the policies use is here. That an API server compiles
them is not shown by this.
"""

import copy
import functools
import re

import celpy
from celpy import celtypes

APP = {"name": "app", "image": "app:1"}
CORE = {"core-url": "https://core.test", "api-key-secret": "core/k"}

# Defaults of the installation, the pod's spec, and its annotations.
CASES = [
    ({}, {"containers": [APP]}, {}),
    ({"log-format": "text"}, {"containers": [APP], "initContainers": [{"name": "first", "image": "i"}]}, {"pg": "postgres://db:5432/$(x)"}),
    (CORE, {"containers": [APP, {"name": "more", "image": "m", "env": [{"name": "A", "value": "b"}]}]}, {"fail-mode": "closed"}),
    (CORE, {"containers": [APP], "volumes": [{"name": "v", "emptyDir": {}}]}, {"core-url": "", "api-key-secret": "", "mysql": " mysql://db "}),
    ({}, {"containers": [APP], "securityContext": {"runAsNonRoot": True}}, {"core-url": "https://core.test", "api-key-secret": "core"}),
    ({}, {"containers": [APP]}, {"policy-configmap": "p", "config-configmap": "c", "journal-claim": "j", "image": "i:1", "mode": "cooperative"}),
    ({}, {"containers": [APP], "securityContext": {"fsGroup": 7}}, {"journal-claim": "j"}),
    ({}, {"containers": [APP], "terminationGracePeriodSeconds": 5}, {}),
    ({}, {"containers": [APP], "terminationGracePeriodSeconds": 0}, {}),
    ({"drain-within": "20s"}, {"containers": [APP]}, {}),
    ({}, {"containers": [APP], "terminationGracePeriodSeconds": 100}, {"drain-within": "98"}),
]
REFUSED = [
    ({"containers": [APP]}, {"pgg": "x"}, "known are allow-address, api-key-secret"),
    ({"containers": [APP]}, {"agent-token-secret": "a/b"}, "not known to injection by policy"),
    ({"containers": [APP]}, {"credentials-secret": "a"}, "not known to injection by policy"),
    ({"containers": [APP]}, {"mode": "redirect"}, "openbox.ai/mode is not cooperative"),
    ({"containers": [APP]}, {"core-url": "https://core.test"}, "needs openbox.ai/api-key-secret"),
    ({"containers": [APP]}, CORE | {"policy-configmap": "p"}, "exclude each other"),
    ({"containers": [APP], "hostNetwork": True}, {}, "spec.hostNetwork is true"),
    ({"containers": [APP], "securityContext": {"runAsUser": 1580}}, {}, "spec has securityContext.runAsUser 1580"),
    ({"containers": [APP], "securityContext": {"runAsGroup": 1580}}, {}, "spec has securityContext.runAsGroup 1580"),
    ({"containers": [APP], "securityContext": {"supplementalGroups": [7, 1580]}}, {}, "1580 among securityContext.supplementalGroups"),
    ({"containers": [APP | {"securityContext": {"runAsGroup": 1580}}]}, {}, "spec.containers has securityContext.runAsGroup"),
    ({"containers": [APP], "terminationGracePeriodSeconds": 21}, {"drain-within": "20s"}, "drain-within is longer than spec.terminationGracePeriodSeconds"),
    ({"containers": [APP], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "j"}}]}, {"journal-claim": "j"}, "is the claim of annotation openbox.ai/journal-claim"),
    ({"containers": [APP]}, {"drain-within": "soon"}, "drain-within is no duration"),
    ({"containers": [APP | {"securityContext": {"runAsUser": 1580}}]}, {}, "spec.containers has securityContext.runAsUser"),
    ({"containers": [APP | {"env": [{"name": "OPENBOX_API_KEY", "value": "k"}]}]}, {}, "spec.containers has OPENBOX_API_KEY"),
    ({"containers": [APP, {"name": "openbox-sidecar", "image": "i"}]}, {"injected": "0.1.0"}, "openbox-sidecar already, in spec.containers"),
    ({"containers": [APP | {"volumeMounts": [{"name": "openbox-keys", "mountPath": "/k"}]}]}, {}, "spec.containers mounts a volume openbox-"),
    ({"containers": [APP], "initContainers": [{"name": "first", "image": "i", "volumeMounts": [{"name": "openbox-state", "mountPath": "/k"}]}]}, {"injected": "0.1.0"}, "spec.initContainers mounts a volume openbox-"),
]
# What only poses as the sidecar: a change of the pod that the policy made, and what is then told of.
POSING = [
    (lambda sidecar, _: sidecar.update(image="busybox"), "(image)"),
    (lambda sidecar, _: sidecar.update(command=["/bin/sleep"]), "(args, command"),
    (lambda sidecar, _: sidecar.update(args=["health"]), "(args, command"),
    (lambda sidecar, _: sidecar.pop("restartPolicy"), "(args, command"),
    (lambda sidecar, _: sidecar.pop("startupProbe"), "(args, command"),
    (lambda sidecar, _: sidecar["securityContext"].update(runAsUser=0), "(securityContext)"),
    (lambda sidecar, _: sidecar["securityContext"].update(privileged=True), "(securityContext)"),
    (lambda sidecar, _: sidecar["securityContext"]["capabilities"].update(add=["SYS_PTRACE"]), "(securityContext)"),
    (lambda sidecar, _: sidecar["env"].pop(), "(env)"),
    (lambda sidecar, _: sidecar["env"].append({"name": "OPENBOX_PG", "value": "postgres://other"}), "(env)"),
    (lambda sidecar, _: sidecar["env"].append({"name": "OPENBOX_DEBUG", "value": "1"}), "(env)"),
    (lambda sidecar, _: sidecar["env"].append({"name": "SSL_CERT_FILE", "value": "/x"}), "(env)"),
    (lambda sidecar, _: sidecar["env"].append({"name": "OPENBOX_RUN_ID", "value": "r"}), "(env)"),
    (lambda sidecar, _: sidecar.update(envFrom=[{"configMapRef": {"name": "c"}}]), "(env)"),
    (lambda sidecar, _: sidecar["volumeMounts"].pop(), "(volumeMounts)"),
    (lambda sidecar, _: sidecar["volumeMounts"][0].update(mountPath="/elsewhere"), "(volumeMounts)"),
    (lambda sidecar, _: sidecar["volumeMounts"][0].update(subPath="x"), "(volumeMounts)"),
    (lambda sidecar, _: sidecar["volumeMounts"].append({"name": "v", "mountPath": "/etc/openbox/policy"}), "(volumeMounts)"),
    (lambda _, volumes: volumes["openbox-keys"].update(emptyDir=None, hostPath={"path": "/x"}), "a volume openbox-"),
    (lambda _, volumes: volumes["openbox-policy"]["configMap"].update(name="other"), "a volume openbox-"),
    (lambda _, volumes: volumes["openbox-state"]["persistentVolumeClaim"].update(claimName="other"), "a volume openbox-"),
]
# What other plugins give to every container.
BENIGN = [
    lambda sidecar, _: sidecar["env"].append({"name": "DD_AGENT_HOST", "value": "h"}),
    lambda sidecar, _: sidecar["volumeMounts"].append({"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}),
    lambda sidecar, _: sidecar.update(terminationMessagePath="/dev/termination-log", resources={}),
]
# Containers for running pods, and what is told.
DEBUGGING = [
    ({"name": "debug", "image": "i"}, None),
    ({"name": "debug", "image": "i", "targetContainerName": "app"}, None),
    ({"name": "debug", "image": "i", "targetContainerName": "openbox-sidecar"}, "targetContainerName openbox-sidecar"),
    ({"name": "openbox-sidecar", "image": "i"}, "a name of the sidecar's"),
    ({"name": "debug", "image": "i", "securityContext": {"runAsUser": 1580}}, "securityContext.runAsUser 1580"),
    ({"name": "debug", "image": "i", "securityContext": {"runAsGroup": 1580}}, "securityContext.runAsGroup 1580"),
    ({"name": "debug", "image": "i", "volumeMounts": [{"name": "openbox-keys", "mountPath": "/k"}]}, "spec.ephemeralContainers mounts a volume openbox-"),
]


# Variables that lead to databases, and begin so.
RELAYS = ("PG", "MYSQL_")


class Made(celtypes.MapType):
    """An `Object.path{…}` or a `JSONPatch{…}`."""

    def __init__(self, fields=None, **named):
        super().__init__({celtypes.StringType(name): value for name, value in (fields or named).items()})


FUNCTIONS = {
    "trim": lambda text: celtypes.StringType(text.strip()),
    "replace": lambda text, old, new: celtypes.StringType(text.replace(old, new)),
    "split": lambda text, by: celtypes.ListType([celtypes.StringType(part) for part in text.split(by)]),
    "substring": lambda text, start: celtypes.StringType(text[start:]),
}


@functools.cache
def program(expression):
    """Compiled once, which takes longer than to evaluate it."""
    # Names of types with dots in them, of which one begins another, are one name each to the interpreter.
    expression = re.sub(r"\bObject(\.\w+)*(?= ?\{)", lambda found: found[0].replace(".", "_"), expression)
    types = {name: Made for name in re.findall(r"\b(Object\w*|JSONPatch)\{", expression)}
    environment = celpy.Environment(annotations=types)
    return environment.program(environment.compile(expression), functions=FUNCTIONS)


class Policy:
    def __init__(self, manifest):
        of = {(document["kind"], *self.asked(document["spec"])): document["spec"] for document in manifest if document["kind"].endswith("Policy")}
        self.mutating = of["MutatingAdmissionPolicy", "CREATE", "pods"]
        self.validating = of["ValidatingAdmissionPolicy", "CREATE", "pods"]
        self.running = of["ValidatingAdmissionPolicy", "UPDATE", "pods/ephemeralcontainers"]

    @staticmethod
    def asked(spec):
        (rule,) = spec.get("matchConstraints", {}).get("resourceRules", [{"operations": [None], "resources": [None]}])
        return rule["operations"][0], rule["resources"][0]

    def evaluated(self, spec, expressions, pod):
        pod = celpy.json_to_cel(pod)
        variables = celtypes.MapType()
        for variable in spec.get("variables", []):
            variables[celtypes.StringType(variable["name"])] = self.value(variable["expression"], pod, variables)
        return [self.value(expression, pod, variables) for expression in expressions]

    def value(self, expression, pod, variables):
        return program(expression).evaluate({"object": pod, "variables": variables})

    def mutated(self, pod):
        pod = copy.deepcopy(pod)
        for mutation in self.mutating["mutations"]:
            if mutation["patchType"] == "JSONPatch":
                (changes,) = self.evaluated(self.mutating, [mutation["jsonPatch"]["expression"]], pod)
                for change in plain(changes):
                    add(pod, change)
            else:
                (applied,) = self.evaluated(self.mutating, [mutation["applyConfiguration"]["expression"]], pod)
                merge(pod, plain(applied))
        return pod

    def refusals(self, pod, of=None):
        of = of or self.validating
        held = self.evaluated(of, [one["expression"] for one in of["validations"]], pod)
        return [one["message"] for one, holds in zip(of["validations"], held) if not holds]


def plain(value):
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, celtypes.BoolType):
        return bool(value)
    return int(value) if isinstance(value, int) else str(value)


def add(pod, change):
    """RFC 6902, as far as policies use it."""
    assert change["op"] == "add", change
    *path, last = [part.replace("~1", "/").replace("~0", "~") for part in change["path"].split("/")[1:]]
    at = pod
    for part in path:
        at = at[int(part)] if isinstance(at, list) else at[part]
    if isinstance(at, list):
        at.insert(len(at) if last == "-" else int(last), change["value"])
    else:
        at[last] = change["value"]


def merge(into, applied):
    """Server-side apply of the lists that Kubernetes has by key, in which an entry that is there already is replaced."""
    for name, value in applied.items():
        if isinstance(value, list):
            key = "mountPath" if name == "volumeMounts" else "name"
            there = into.setdefault(name, [])
            for entry in value:
                same = [one for one in there if one[key] == entry[key]]
                if same:
                    merge(same[0], entry)
                else:
                    there.append(entry)
        elif isinstance(value, dict):
            merge(into.setdefault(name, {}), value)
        else:
            into[name] = value


def ordered(spec):
    """Without the order of what has none."""
    for container in spec["initContainers"] + spec["containers"]:
        for of, key in (("env", "name"), ("volumeMounts", "mountPath")):
            container.get(of, []).sort(key=lambda entry: entry[key])
    spec["volumes"].sort(key=lambda volume: volume["name"])
    return spec


def same(checks, what, ours, theirs):
    for pod in (ours, theirs):
        for container in pod["spec"]["initContainers"] + pod["spec"]["containers"]:
            # Where the relays are is not the policy's to know: it does not read what it hands on.
            container["env"] = [entry for entry in container["env"] if container["name"] == "openbox-sidecar" or not entry["name"].startswith(RELAYS)]
        ordered(pod["spec"])
    checks.that(f"{what}: the policy's pod is that of k8s patch", ours == theirs, f"{ours}\n{theirs}")
