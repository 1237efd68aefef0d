"""The image, built by buildah and started as a kubelet would: not root, its root read-only, volumes beside it.

    scripts/image-root.sh target/image --features testing && tests/image/image.py

No daemon and no registry: buildah isolates by chroot, and the image is started in a network namespace and a chroot of
its own. Must be root. An app of another user is beside it in the same network, with names, an origin and certificates
that only these namespaces have.
"""

import contextlib
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from checks import Checks, run  # noqa: E402  (it lies in the folder above)

import pod  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
USER = 1580
APP = 4711
ORIGIN = "10.15.80.1"
RESOLVER = "127.0.0.153"
COMPRESSED_BYTES_MAX = 25_000_000
# Everything that is in it.
FILES = {
    "etc/ssl/certs/ca-certificates.crt",
    "openbox-sidecar",
    "usr/share/doc/openbox-sidecar/LICENSE",
    "usr/share/doc/openbox-sidecar/sbom.cdx.json",
    "var/lib/openbox-sidecar/.keep",
}
POLICY = """package pod
default result := {"decision": "ALLOW"}
result := {"decision": "BLOCK", "reason": "not that one"} if input.spans[0].attributes["url.path"] == "/forbidden"
"""


def until(what, holds, within_s=60):
    end = time.monotonic() + within_s
    while not (found := holds()):
        if time.monotonic() > end:
            sys.exit(f"not within {within_s} s: {what}")
        time.sleep(0.05)
    return found


class Buildah:
    def __init__(self, folder):
        self.options = ["--root", folder / "store", "--runroot", folder / "run", "--storage-driver", "vfs"]

    def __call__(self, *command):
        return run("buildah", *self.options, *command).stdout.strip()


def the_image(checks, buildah, folder):
    arguments = ["--build-arg", "BINARY=prebuilt", "--build-arg", "VERSION=9.8.7"]
    buildah("bud", "--isolation", "chroot", "--format", "docker", *arguments, "-t", "openbox-sidecar", ROOT)
    image = json.loads(buildah("inspect", "--type", "image", "openbox-sidecar"))["Docker"]["config"]
    checks.that("it runs as its own user", image["User"] == f"{USER}:{USER}", image)
    checks.that("health is its own verb", image["Healthcheck"]["Test"] == ["CMD", "/openbox-sidecar", "health"], image)
    labels = image["Labels"]
    checks.that("its version is a label", labels["org.opencontainers.image.version"] == "9.8.7", labels)
    checks.that("its license is a label", labels["org.opencontainers.image.licenses"] == "Apache-2.0", labels)
    buildah("push", "openbox-sidecar", f"oci:{folder / 'oci'}")
    blobs = [path.stat().st_size for path in (folder / "oci/blobs/sha256").iterdir()]
    checks.that(f"it is under {COMPRESSED_BYTES_MAX} bytes, compressed", sum(blobs) < COMPRESSED_BYTES_MAX, sum(blobs))
    print(f"image: {sum(blobs) / 1e6:.1f} MB compressed, of this profile")
    return image


def the_root(checks, root):
    # buildah makes places to mount at.
    made = {path for path in root.rglob("*") if path.is_file() or path.is_symlink()}
    made = {str(path.relative_to(root)) for path in made}
    checks.that("there is nothing else in it, no shell either", made == FILES, made ^ FILES)
    writable = [path for path in root.rglob("*") if path.stat().st_uid == USER and not path.match("var/lib/openbox-sidecar*") and path.name != ".keep"]
    checks.that("nothing but its state folder is the user's", not writable, writable)
    static = run("file", root / "openbox-sidecar").stdout
    checks.that("the binary is static", "static" in static, static)
    bill = json.loads((root / "usr/share/doc/openbox-sidecar/sbom.cdx.json").read_text())
    stated = {(part["name"], part["version"]) for part in bill["components"]}
    lock = re.findall(r'name = "(.*)"\nversion = "(.*)"', (ROOT / "Cargo.lock").read_text())
    checks.that("the bill of materials is about this binary", bill["metadata"]["component"]["name"] == "openbox-sidecar")
    checks.that("it names what is locked", stated <= set(lock), stated - set(lock))
    names = {name for name, _ in stated}
    checks.that("it names what matters", {"rustls", "aws-lc-rs", "tokio", "regorus"} <= names, names)
    checks.that("it names nothing of tests", "divan" not in names, names)


def init_net(checks, buildah):
    """The other image sets the rules in a network namespace of its own, from a root that is its own."""
    arguments = ["--build-arg", "BINARY=prebuilt", "--target", "init-net", "-t", "openbox-sidecar-init-net", ROOT]
    buildah("bud", "--isolation", "chroot", "--format", "docker", *arguments)
    image = json.loads(buildah("inspect", "--type", "image", "openbox-sidecar-init-net"))["Docker"]["config"]
    root = pathlib.Path(buildah("mount", buildah("from", "--pull-never", "openbox-sidecar-init-net")))
    place = dict(pair.split("=", 1) for pair in image["Env"])
    resolv = root / "etc/resolv.conf"
    resolv.write_text("nameserver 10.96.0.10\n")
    # What every container runtime mounts.
    (root / "dev").mkdir(exist_ok=True)
    devices = [root / "dev" / name for name in ("random", "urandom")]
    for device in devices:
        device.touch()
        run("mount", "--bind", f"/dev/{device.name}", device)
    command = ["chroot", root, *image["Entrypoint"], *image["Cmd"]]
    inside = ["unshare", "--net", "sh", "-c", '"$@" && nft list ruleset', "sh"]
    done = subprocess.run([*inside, *map(str, command)], capture_output=True, text=True, env={"PATH": f"{place['PATH']}:{os.environ['PATH']}"})
    run("umount", *devices)
    checks.that("the image of init-net sets the rules", done.returncode == 0 and "redirect to :15802" in done.stdout, done)
    checks.that("and names are asked of the pod's server", "10.96.0.10" in done.stdout, done.stdout)
    shells = [path for name in ("sh", "bash", "busybox") for path in root.rglob(name) if path.is_file()]
    checks.that("it has no shell, either", not shells, shells)
    return image, root


def resolver(at):
    """Knows `orders.shop.svc.cluster.local`, over UDP, and answers as DNS does."""
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind((at, 53))
    while True:
        query, asker = names.recvfrom(512)
        place, labels = 12, []
        while query[place]:
            labels.append(query[place + 1 : place + 1 + query[place]].decode())
            place += query[place] + 1
        (kind,) = struct.unpack(">H", query[place + 1 : place + 3])
        known = labels == ["orders", "shop", "svc", "cluster", "local"]
        answers = known and kind == 1
        head = query[:2] + (b"\x81\x80" if known else b"\x81\x83") + query[4:6] + struct.pack(">HHH", answers, 0, 0)
        record = b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4" + socket.inet_aton(ORIGIN) if answers else b""
        names.sendto(head + query[12 : place + 5] + record, asker)


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked = []

    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"orders")

    def log_message(self, *_):
        pass


def origins(folder):
    subject = ["-subj", "/CN=orders.shop", "-addext", "subjectAltName=DNS:orders.shop", "-addext", "basicConstraints=critical,CA:FALSE"]
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    run(*new, *subject, "-keyout", folder / "origin.key", "-out", folder / "origin.pem")
    for port in (80, 443):
        server = http.server.ThreadingHTTPServer((ORIGIN, port), Origin)
        if port == 443:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / "origin.pem", folder / "origin.key")
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()


class Started:
    """The image as a container of a pod: read-only root, volumes for state, keys and what is shared."""

    def __init__(self, image, root, folder):
        self.image, self.folder, self.process = image, folder, None
        self.root = folder / "root"
        self.root.mkdir()
        run("mount", "--bind", root, self.root)
        for name in ("state", "keys", "share", "config"):
            (folder / name).mkdir()
        # An emptyDir belongs to root and is everybody's to write.
        for name in ("state", "keys", "share"):
            (folder / name).chmod(0o777)
        (folder / "config/policy.rego").write_text(POLICY)
        shutil.copy(folder / "origin.pem", folder / "config/origin.pem")
        (folder / "resolv.conf").write_text(
            f"nameserver {RESOLVER}\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
        )
        (folder / "hosts").write_text("127.0.0.1 localhost\n")
        places = {
            "state": "var/lib/openbox-sidecar",
            "keys": "run/openbox-sidecar",
            "share": "openbox",
            "config": "etc/openbox",
            "resolv.conf": "etc/resolv.conf",
            "hosts": "etc/hosts",
        }
        # What every container runtime mounts at /dev.
        devices = ["null", "zero", "full", "random", "urandom"]
        (folder / "dev").mkdir()
        for device in devices:
            (folder / "dev" / device).touch()
        places["dev"] = "dev"
        for source, place in places.items():
            at = self.root / place
            if (folder / source).is_dir():
                at.mkdir(parents=True, exist_ok=True)
            else:
                at.touch()
        run("mount", "-o", "remount,bind,ro", self.root)
        for source, place in places.items():
            run("mount", "--bind", folder / source, self.root / place)
        for device in devices:
            run("mount", "--bind", f"/dev/{device}", self.root / "dev" / device)
        self.environment = dict(pair.split("=", 1) for pair in image["Env"]) | {
            "OPENBOX_STATE_DIR": "/var/lib/openbox-sidecar/state",
            "OPENBOX_CA_DIR": "/run/openbox-sidecar/ca",
            "OPENBOX_SHARE_DIR": "/openbox",
            "OPENBOX_HEALTH_LISTEN": "0.0.0.0:15820",
            "OPENBOX_POLICY": "/etc/openbox/policy.rego",
            "OPENBOX_UPSTREAM_CA": "/etc/openbox/origin.pem",
            "OPENBOX_LOG_FORMAT": "json",
        }

    def command(self, *arguments):
        return ["chroot", f"--userspec={USER}:{USER}", "--groups=", str(self.root), *arguments]

    def once(self, *arguments):
        return run(*self.command(*arguments), env=self.environment, check=False)

    def start(self):
        self.log = open(self.folder / "log", "a")
        command = self.command(*self.image["Entrypoint"], *self.image["Cmd"])
        self.process = subprocess.Popen(command, env=self.environment, stdout=self.log, stderr=self.log)

        def ready():
            if self.process.poll() is not None:
                sys.exit(f"it ended with {self.process.returncode}:\n{(self.folder / 'log').read_text()}")
            return self.once(*self.image["Healthcheck"]["Test"][1:]).returncode == 0

        until("the sidecar is ready", ready)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def as_app(*command, environment=None):
    """What the container beside it does: another user, in the same network."""
    command = ["setpriv", f"--reuid={APP}", f"--regid={APP}", "--clear-groups", "--no-new-privs", *map(str, command)]
    return subprocess.run(command, capture_output=True, text=True, env=environment or {"PATH": os.environ["PATH"]})


def in_the_pod(checks, image, root, folder):
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{ORIGIN}/32", "dev", "lo")
    threading.Thread(target=resolver, args=[RESOLVER], daemon=True).start()
    origins(folder)
    pod = Started(image, root, folder)
    not_ready = pod.once("/openbox-sidecar", "health")
    checks.that("health says that nothing serves yet", not_ready.returncode == 1, not_ready)
    pod.start()
    refused = pod.once("/openbox-sidecar", "config", "default")
    checks.that("other verbs work", refused.returncode == 0, refused)
    with contextlib.suppress(OSError):
        (pod.root / "etc/written").touch()
        checks.that("its root is read-only", False)
    proxied = ["curl", "-sS", "--max-time", "20", "--proxy", "http://127.0.0.1:15801"]
    plain = as_app(*proxied, "http://orders.shop/list")
    checks.that("a name of the cluster is resolved, and its service reached", plain.stdout == "orders", plain)
    over_tls = as_app(*proxied, "--cacert", folder / "share/bundle.pem", "https://orders.shop/list")
    checks.that("so it is by TLS, under the shared bundle", over_tls.stdout == "orders", over_tls)
    before = len(Origin.asked)
    blocked = as_app(*proxied, "--cacert", folder / "share/bundle.pem", "https://orders.shop/forbidden")
    checks.that("policy holds", '"code":"blocked"' in blocked.stdout.replace(" ", ""), blocked)
    checks.that("what is blocked does not arrive", len(Origin.asked) == before, Origin.asked)
    unknown = as_app(*proxied, "http://nowhere.shop/")
    checks.that("a name that is not there is told", "nowhere.shop" in unknown.stdout, unknown)
    shared = (folder / "share/bundle.pem").read_text().count("BEGIN CERTIFICATE")
    checks.that("the bundle has the public authorities", shared > 100, shared)
    readable = as_app("find", folder / "keys", folder / "state", "-type", "f", "-readable", "-printf", "%f ").stdout
    public = {"ca.pem", "bundle.pem", "bundle.jks"}
    checks.that("the app reads no key, token or journal, were they mounted", set(readable.split()) <= public, readable)
    checks.that("it ends by SIGTERM", (code := pod.stop()) == 0, code)
    pod.start()
    again = as_app(*proxied, "http://orders.shop/list")
    checks.that("it is started again on what it has kept", again.stdout == "orders", again)
    checks.that("and ends again", (code := pod.stop()) == 0, code)
    verified = pod.once("/openbox-sidecar", "audit", "verify")
    checks.that("the journal is one chain over both starts", verified.returncode == 0, verified)


def a_patched_pod(checks, sidecar, net, folder):
    """The same world, which a pod with a network of its own reaches by a wire."""
    config = {"openbox-sidecar.yaml": "upstream: {ca: [/etc/openbox/config/origin.pem]}\n", "origin.pem": (folder / "origin.pem").read_text()}
    Origin.asked.clear()
    pod.the_patched_pod(checks, [sidecar, net], {"policy": {"policy.rego": POLICY}, "config": config}, Origin.asked, until, folder, resolver)


def main():
    if "--inside" not in sys.argv:
        # A network, mounts and processes that end with this.
        os.execvp("unshare", ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", sys.executable, __file__, "--inside"])
    checks = Checks()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        # Those who may not look into it reach what is shared all the same.
        folder.chmod(0o711)
        buildah = Buildah(folder)
        image = the_image(checks, buildah, folder)
        root = pathlib.Path(buildah("mount", buildah("from", "--pull-never", "openbox-sidecar")))
        the_root(checks, root)
        net = init_net(checks, buildah)
        try:
            in_the_pod(checks, image, root, folder)
            a_patched_pod(checks, (image, root), net, folder)
        finally:
            run("umount", "--recursive", "--lazy", folder / "root", check=False)
    print(f"{checks.passed} checks passed, {checks.failed} failed")
    sys.exit(1 if checks.failed else 0)


main()
