"""A pod as `k8s patch` makes it, started as a kubelet would: its containers in their order, each with the root, user,
capabilities, environment and volumes that the patched manifest says, in a network of its own.

The app is whatever curl is: not root, on a read-only root, once with the environment it was given and once without.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time

from checks import run
from json_patch import applied

POD = "10.15.81.2"
WORLD = "10.15.81.1"
APP = 4711
MANIFEST = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "agent",
        "annotations": {"openbox.ai/mode": "redirect", "openbox.ai/policy-configmap": "policy", "openbox.ai/config-configmap": "config"},
    },
    "spec": {
        "terminationGracePeriodSeconds": 9,
        "containers": [
            {
                "name": "app",
                "image": "app",
                "env": [{"name": "PATH", "value": "/usr/bin"}, {"name": "THEIRS", "value": "stays"}],
                "securityContext": {"runAsUser": APP, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    },
}
FIELDS = {"status.podIP": POD, "metadata.name": "agent", "metadata.uid": "705ab4f5"}
# By their numbers in linux/capability.h; the last that there is.
NET_ADMIN, LAST = 12, 40
CLONE_NEWNET = 0x40000000
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
LIBC = ctypes.CDLL(None, use_errno=True)


class Network:
    """The pod's namespace, which belongs to a process that sleeps in it, and the way from there to this one."""

    def __init__(self):
        self.keeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self.path = f"/proc/{self.keeper.pid}/ns/net"
        while os.readlink(self.path) == os.readlink("/proc/self/ns/net"):
            time.sleep(0.01)
        run("ip", "link", "add", "world0", "type", "veth", "peer", "name", "pod0", "netns", self.keeper.pid)
        within = ["nsenter", f"--net={self.path}"]
        for where, device, address in ([], "world0", WORLD), (within, "pod0", POD):
            run(*where, "ip", "link", "set", "lo", "up")
            run(*where, "ip", "address", "add", f"{address}/24", "dev", device)
            run(*where, "ip", "link", "set", device, "up")
        run(*within, "ip", "route", "add", "default", "via", WORLD)

    def end(self):
        self.keeper.kill()
        self.keeper.wait()


def patched(binary):
    path = pathlib.Path(binary)
    asked = [path, "k8s", "patch", "--emit", "patch", "-f", "-"]
    done = subprocess.run(asked, input=json.dumps(MANIFEST), capture_output=True, text=True, check=True)
    return applied(MANIFEST, json.loads(done.stdout))["spec"]


class Volumes:
    """The pod's volumes: empty ones are everybody's to write, maps have their files."""

    def __init__(self, spec, folder, maps):
        self.folders = {}
        for volume in spec["volumes"]:
            at = folder / "volumes" / volume["name"]
            at.mkdir(parents=True)
            if "configMap" in volume:
                for name, text in maps[volume["configMap"]["name"]].items():
                    (at / name).write_text(text)
            else:
                at.chmod(0o777)
            self.folders[volume["name"]] = at


class Container:
    """One container of a pod: its image's root, read-only, with what every runtime mounts and its volumes."""

    def __init__(self, container, image, root, network, volumes, folder):
        self.container, self.network = container, network
        self.command = [*image.get("Entrypoint", []), *container.get("args", image.get("Cmd", []))]
        self.environment = environment(container, image)
        self.root = folder / container["name"]
        self.root.mkdir()
        run("mount", "--rbind", root, self.root)
        run("mount", "--make-rslave", self.root)
        places = [(folder / name, f"etc/{name}") for name in ("resolv.conf", "hosts")]
        places += [(pathlib.Path("/dev", name), f"dev/{name}") for name in ("null", "zero", "full", "random", "urandom")]
        places += [(volumes.folders[mount["name"]], mount["mountPath"][1:]) for mount in container.get("volumeMounts", [])]
        for source, place in places:
            at = self.root / place
            at.parent.mkdir(parents=True, exist_ok=True)
            at.mkdir(exist_ok=True) if source.is_dir() else at.touch()
        run("mount", "-o", "remount,bind,ro", self.root)
        for source, place in places:
            run("mount", "--bind", source, self.root / place)
        for mount in container.get("volumeMounts", []):
            if mount.get("readOnly"):
                run("mount", "-o", "remount,bind,ro", self.root / mount["mountPath"][1:])

    def begin(self, *command, capabilities=None, environment=None, **options):
        security = self.container["securityContext"]
        added = security["capabilities"].get("add", []) if capabilities is None else capabilities
        assert security["capabilities"]["drop"] == ["ALL"] and set(added) <= {"NET_ADMIN"}, security
        network = os.open(self.network.path, os.O_RDONLY)

        def confine():
            called(LIBC.setns(network, CLONE_NEWNET))
            os.chroot(self.root)
            os.chdir("/")
            for capability in range(LAST + 1):
                if capability != NET_ADMIN or not added:
                    called(LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0))
            called(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
            os.setgroups([])
            group = security.get("runAsGroup", security["runAsUser"])
            os.setresgid(group, group, group)
            os.setresuid(*[security["runAsUser"]] * 3)

        environment = self.environment if environment is None else environment
        begun = subprocess.Popen(command or self.command, env=environment, preexec_fn=confine, **options)
        os.close(network)
        return begun

    def does(self, *command, **options):
        with self.begin(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options) as process:
            said, _ = process.communicate(timeout=60)
        return process.returncode, said


def called(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), "a call of the kernel's")


def environment(container, image):
    """What a kubelet makes of what is written."""
    made = dict(pair.split("=", 1) for pair in image.get("Env", []))
    for entry in container.get("env", []):
        if "valueFrom" in entry:
            made[entry["name"]] = FIELDS[entry["valueFrom"]["fieldRef"]["fieldPath"]]
            continue
        value = entry["value"].replace("$$", "\0")
        for name, known in made.items():
            value = value.replace(f"$({name})", known)
        made[entry["name"]] = value.replace("\0", "$")
    return made


def root_of_an_app(folder):
    """An image with curl in it: this machine's programs, and nothing else of it."""
    root = folder / "app-image"
    for name in ("usr", "etc", "dev", "openbox"):
        (root / name).mkdir(parents=True)
    run("mount", "--bind", "/usr", root / "usr")
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    for name in ("ld.so.cache", "nsswitch.conf"):
        shutil.copy(f"/etc/{name}", root / "etc" / name)
    return root


def the_patched_pod(checks, images, maps, origin, until, folder, resolver):
    """`images` are the configuration and root of the sidecar's and of init-net's."""
    (image, root), (net_image, net_root) = images
    folder = folder / "pod"
    folder.mkdir()
    folder.chmod(0o711)
    (folder / "resolv.conf").write_text(f"nameserver {WORLD}\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n")
    (folder / "hosts").write_text("127.0.0.1 localhost\n")
    spec = patched(root / "openbox-sidecar")
    network = Network()
    threading.Thread(target=resolver, args=[WORLD], daemon=True).start()
    volumes = Volumes(spec, folder, maps)
    init, sidecar = spec["initContainers"]
    (app,) = spec["containers"]
    checks.that("the sidecar ends within the pod's grace", {"name": "OPENBOX_DRAIN_WITHIN", "value": "7s"} in sidecar["env"], sidecar)
    init = Container(init, net_image, net_root, network, volumes, folder)
    sidecar = Container(sidecar, image, root, network, volumes, folder)
    app = Container(app, {}, root_of_an_app(folder), network, volumes, folder)
    try:
        rules(checks, init)
        runs(checks, sidecar, app, origin, until, folder)
    finally:
        network.end()
        for container in (init, sidecar, app):
            run("umount", "--recursive", "--lazy", container.root, check=False)
        run("umount", "--lazy", folder / "app-image/usr", check=False)


def rules(checks, init):
    security = init.container["securityContext"]
    checks.that("init-net is given NET_ADMIN and nothing else", security["capabilities"] == {"add": ["NET_ADMIN"], "drop": ["ALL"]}, security)
    code, said = init.does(capabilities=[])
    checks.that("without it the rules are not set, and it says so", code == 1 and "NET_ADMIN" in said and "nothing was changed" in said, said)
    code, said = init.does()
    checks.that("with it alone they are", code == 0 and "installed" in said, said)


def runs(checks, sidecar, app, origin, until, folder):
    def curl(*arguments, **options):
        return app.does("/usr/bin/curl", "-sS", "--max-time", "20", *arguments, **options)

    code, said = curl("http://orders.shop/list", environment={})
    checks.that("before the sidecar is there, nothing leaves", code != 0 and origin == [], said)
    with open(folder / "log", "w") as log:
        process = sidecar.begin(stdout=log, stderr=log)
    said = lambda: (folder / "log").read_text()  # noqa: E731
    until("the sidecar of the patched pod is ready", lambda: process.poll() is not None or sidecar.does("/openbox-sidecar", "health")[0] == 0)
    checks.that("the sidecar runs", process.poll() is None, said())
    checks.that("the app keeps what is its own", app.environment["THEIRS"] == "stays" and "HTTPS_PROXY" in app.environment, app.environment)
    for what, options in {"with its environment": {}, "without it": {"environment": {}}}.items():
        trust = ["--cacert", "/openbox/bundle.pem"] if options else []
        for scheme in ("http", "https"):
            code, got = curl(*trust, f"{scheme}://orders.shop/list", **options)
            checks.that(f"the app {what} is served by {scheme}", got == "orders", got)
            before = len(origin)
            code, got = curl(*trust, f"{scheme}://orders.shop/forbidden", **options)
            checks.that(f"and policy holds {what}, by {scheme}", '"code":"blocked"' in got.replace(" ", "") and len(origin) == before, got)
    outside = lambda port: subprocess.run(["curl", "-sS", "--noproxy", "*", "--max-time", "20", f"http://{POD}:{port}/readyz"], capture_output=True, text=True)  # noqa: E731
    asked = outside(15820)
    checks.that("a kubelet comes to its health", asked.returncode == 0 and "ready" in asked.stdout, asked)
    for port in (15800, 15801, 15802, 15810):
        asked = outside(port)
        checks.that(f"and nobody outside to port {port}", asked.returncode == 7, asked)
    code, got = app.does("/usr/bin/touch", "/etc/written", "/openbox/written")
    checks.that("the app's root, and what it shares with the sidecar, are read-only", code == 1 and got.count("Read-only") == 2, got)
    code, got = app.does("/usr/bin/cat", "/openbox/agent-token")
    checks.that("its token it may read", code == 0 and got.startswith("obx_test_"), got)
    code, got = curl("http://127.0.0.1:15810/v1/status", environment={})
    checks.that("the operator's port it does not reach", code == 7, got)
    process.send_signal(signal.SIGTERM)
    code = process.wait(30)
    checks.that("the sidecar ends in good order", code == 0, said())
    before = len(origin)
    code, got = curl("http://orders.shop/list", environment={})
    checks.that("after it, nothing leaves", code != 0 and len(origin) == before, got)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
