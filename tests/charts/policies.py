"""Admission policies as an API server applies them: their CEL, evaluated by an interpreter of it.

The interpreter knows no Kubernetes; what of its types and functions the policies use is here. That an API server compiles
them is not shown by this.
"""

import copy
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
]
REFUSED = [
    ({"containers": [APP]}, {"pgg": "x"}, "known are allow-address, api-key-secret"),
    ({"containers": [APP]}, {"agent-token-secret": "a/b"}, "not known to injection by policy"),
    ({"containers": [APP]}, {"mode": "redirect"}, "openbox.ai/mode is not cooperative"),
    ({"containers": [APP]}, {"core-url": "https://core.test"}, "needs openbox.ai/api-key-secret"),
    ({"containers": [APP]}, CORE | {"policy-configmap": "p"}, "exclude each other"),
    ({"containers": [APP], "hostNetwork": True}, {}, "spec.hostNetwork is true"),
    ({"containers": [APP], "securityContext": {"runAsUser": 1580}}, {}, "spec.securityContext.runAsUser is 1580"),
    ({"containers": [APP | {"securityContext": {"runAsUser": 1580}}]}, {}, "spec.containers has securityContext.runAsUser"),
    ({"containers": [APP | {"env": [{"name": "OPENBOX_API_KEY", "value": "k"}]}]}, {}, "spec.containers has OPENBOX_API_KEY"),
    ({"containers": [APP], "initContainers": [{"name": "openbox-sidecar", "image": "i", "securityContext": {"runAsUser": 1580}}]}, {}, "openbox-sidecar already, in spec.initContainers"),
    ({"containers": [APP, {"name": "openbox-sidecar", "image": "i"}]}, {"injected": "0.1.0"}, "openbox-sidecar already, in spec.containers"),
    ({"containers": [APP | {"volumeMounts": [{"name": "openbox-keys", "mountPath": "/k"}]}]}, {}, "spec.containers mounts a volume openbox-"),
    ({"containers": [APP], "initContainers": [{"name": "first", "image": "i", "volumeMounts": [{"name": "openbox-state", "mountPath": "/k"}]}]}, {"injected": "0.1.0"}, "spec.initContainers mounts a volume openbox-"),
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


class Policy:
    def __init__(self, manifest):
        of = {document["kind"]: document["spec"] for document in manifest}
        self.mutating = of["MutatingAdmissionPolicy"]
        self.validating = of["ValidatingAdmissionPolicy"]

    def evaluated(self, spec, expression, pod):
        variables = celtypes.MapType()
        for variable in spec["variables"]:
            variables[celtypes.StringType(variable["name"])] = self.value(variable["expression"], pod, variables)
        return self.value(expression, pod, variables)

    def value(self, expression, pod, variables):
        # Names of types with dots in them, of which one begins another, are one name each to the interpreter.
        expression = re.sub(r"\bObject(\.\w+)*(?= ?\{)", lambda found: found[0].replace(".", "_"), expression)
        types = {name: Made for name in re.findall(r"\b(Object\w*|JSONPatch)\{", expression)}
        environment = celpy.Environment(annotations=types)
        program = environment.program(environment.compile(expression), functions=FUNCTIONS)
        return program.evaluate({"object": celpy.json_to_cel(pod), "variables": variables})

    def mutated(self, pod):
        pod = copy.deepcopy(pod)
        for mutation in self.mutating["mutations"]:
            if mutation["patchType"] == "JSONPatch":
                for change in plain(self.evaluated(self.mutating, mutation["jsonPatch"]["expression"], pod)):
                    add(pod, change)
            else:
                merge(pod, plain(self.evaluated(self.mutating, mutation["applyConfiguration"]["expression"], pod)))
        return pod

    def refusals(self, pod):
        held = [(self.evaluated(self.validating, one["expression"], pod), one["message"]) for one in self.validating["validations"]]
        return [message for holds, message in held if not holds]


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
