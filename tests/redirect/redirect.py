"""The rules of `init-net`, and the sidecar behind them, in network namespaces: a pod, and the world beside it.

    tests/redirect/redirect.py target/debug/openbox-sidecar [redirect] [tproxy] [gateway]

Must be root; without a word for what is to be run, all of it is. Programs of several users try to leave the pod; the world tells what arrived there.
"""

import http.server
import ipaddress
import json
import os
import pathlib
import re
import select
import shutil
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

import databases  # noqa: E402
import gateway  # noqa: E402
import ways_to_ask  # noqa: E402

SIDECAR = 1580
APP = 4711
# Whom others exempt: root, and the users of Istio's proxy and of distroless images.
USERS = [APP, 0, 1337, 65532]
POD = {4: "10.15.90.2", 6: "fd15:90::2"}
WORLD = {4: "10.15.90.1", 6: "fd15:90::1"}
CAPTURED = 15802
OPERATOR = 15810
ORIGINAL_DST = 80
IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75
# The rule and the table of routes that lead what is marked here.
ROUTED = 15802
# How connections are led to the sidecar, and what `init-net` is told for it.
WAYS = {"redirect": [], "tproxy": ["--tproxy"]}
# By which a program may have the addresses of others.
ANY_ADDRESS = ["--inh-caps=+net_admin", "--ambient-caps=+net_admin"]
# Addresses of the world's which no name leads to; the first is let pass unread.
LIAR = "10.15.90.3"
LIAR2 = "10.15.90.4"
NAMES = {"orders.test": 4, "secret.test": 4, "pinned.test": 4, "orders6.test": 6}
POLICY = """package pod
path := input.spans[0].attributes["url.path"]
host := input.spans[0].attributes["server.address"]
default result := {"decision": "ALLOW"}
result := {"decision": "BLOCK", "reason": "not that path"} if path == "/forbidden"
result := {"decision": "BLOCK", "reason": "not that host"} if host == "secret.test"
result := {"decision": "BLOCK", "reason": "not that one"} if contains(input.spans[0].db_statement, "forbidden")
"""
CONFIG = f"""
http: {{first_byte_within: 4s, passthrough: [pinned.test, {LIAR}]}}
policy: {{path: POLICY, evaluate_within: 20s}}
session: {{by_process: true}}
postgres: {{servers: ["127.0.0.1:15432=postgres://{databases.NAME}"], agent_tls: offer}}
mysql: {{servers: ["127.0.0.1:13306=mysql://{databases.NAME}"], agent_tls: offer}}
redis: {{servers: ["127.0.0.1:16379=redis://{databases.HERE[4]}"]}}
upstream:
  ca: [CA]
  resolve: [RESOLVE]
"""


# What runs apart: the world, what stands in for the sidecar, and the programs that want to leave.


def listening(family, kind, host, port, any_address=False):
    server = socket.socket(family, kind)
    if any_address:
        level, option = (socket.IPPROTO_IPV6, IPV6_TRANSPARENT) if family == socket.AF_INET6 else (socket.SOL_IP, IP_TRANSPARENT)
        server.setsockopt(level, option, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind((host, port))
    if kind == socket.SOCK_STREAM:
        server.listen(64)
    return server


def families():
    return [(4, socket.AF_INET), (6, socket.AF_INET6)]


def world():
    """Answers on every port of interest, and tells what came."""
    servers = []
    for number, family in families():
        address = (WORLD[number],)
        for port in (22, 53, 80, 443, 5432, OPERATOR, CAPTURED):
            servers.append((f"tcp{number}/{port}", listening(family, socket.SOCK_STREAM, *address, port)))
        for port in (53, 443, 9999):
            servers.append((f"udp{number}/{port}", listening(family, socket.SOCK_DGRAM, *address, port)))
    print("ready", flush=True)
    names = {server: name for name, server in servers}
    while True:
        for server in select.select(list(names), [], [])[0]:
            # Told before it is answered: who has the answer finds the line.
            print(names[server], flush=True)
            if names[server].startswith("udp"):
                said, whence = server.recvfrom(2048)
                server.sendto(b"world", whence)
            else:
                peer, _ = server.accept()
                peer.sendall(b"world")
                peer.close()


def stand_in(way):
    """Listens where the sidecar does, and tells each client whither it wanted."""
    servers = {}
    tproxy = way == "tproxy"
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        servers[listening(family, socket.SOCK_STREAM, host, CAPTURED, tproxy)] = "captured"
        servers[listening(family, socket.SOCK_STREAM, host, OPERATOR)] = "operator"
    print("ready", flush=True)
    while True:
        for server in select.select(list(servers), [], [])[0]:
            peer, _ = server.accept()
            said = servers[server]
            if said == "captured":
                said += " {} {}".format(*peer.getsockname()) if tproxy else " " + whither(peer)
            peer.sendall(said.encode())
            peer.close()


def whither(peer):
    if peer.family == socket.AF_INET:
        raw = peer.getsockopt(socket.SOL_IP, ORIGINAL_DST, 16)
        return f"{socket.inet_ntop(socket.AF_INET, raw[4:8])} {struct.unpack('>H', raw[2:4])[0]}"
    raw = peer.getsockopt(socket.IPPROTO_IPV6, ORIGINAL_DST, 28)
    return f"{socket.inet_ntop(socket.AF_INET6, raw[8:24])} {struct.unpack('>H', raw[2:4])[0]}"


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        offered = [name for name in ("Upgrade", "HTTP2-Settings") if name in self.headers]
        print(self.server.name, self.headers["Host"], self.path, body, *offered, flush=True)
        self.answer()

    def do_GET(self):
        print(self.server.name, self.headers["Host"], self.path, flush=True)
        self.answer()

    def answer(self):
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"orders")

    def log_message(self, *_):
        pass


class Origins(http.server.ThreadingHTTPServer):
    allow_reuse_address = True


class Origins6(Origins):
    address_family = socket.AF_INET6


def origin(certificate, key):
    """Web servers of the world, and one that speaks first; tell what they are asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    for address in [*WORLD.values(), LIAR2]:
        for port in (80, 443):
            server = (Origins6 if ":" in address else Origins)((address, port), Origin)
            server.name = f"{address}/{port}"
            if port == 443:
                server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            threading.Thread(target=server.serve_forever, daemon=True).start()
    servers = {listening(socket.AF_INET, socket.SOCK_STREAM, host, port): f"{host}/{port}" for host in (WORLD[4], LIAR) for port in (22, 5432)}
    print("ready", flush=True)
    while True:
        for server in select.select(list(servers), [], [])[0]:
            print(servers[server], flush=True)
            peer, _ = server.accept()
            peer.sendall(b"world")
            peer.close()


def leave(kind, host, port):
    """What a program gets that goes there: an answer, or the error's name."""
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as client:
        client.settimeout(15)
        try:
            client.connect((host, int(port)))
            if kind == "udp":
                client.send(b"hello")
            return client.recv(2048).decode()
        except OSError as error:
            return type(error).__name__ if error.errno is None else os.strerror(error.errno)


def from_one_port(port, *hosts):
    """Asks each of `hosts` from the same port, while the connections to those before stay open; tells who answered."""
    clients = []
    for host in hosts:
        sys.stdin.readline()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.settimeout(20)
        client.bind((POD[4], int(port)))
        client.connect((host, 80))
        client.sendall(f"GET /list HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        print(host if client.recv(4096).startswith(b"HTTP/1.1 200") else "refused", flush=True)
        clients.append(client)
    sys.stdin.readline()


# What drives them.


class Apart:
    """A process that says `ready`, and whose later lines are in a file: what it has said is there at once."""

    def __init__(self, *command, **options):
        self.said = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdout=self.said, **options)
        deadline = time.monotonic() + 20
        while self.all()[:1] != ["ready"]:
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"not ready: {command}")
            time.sleep(0.01)

    def all(self):
        return os.pread(self.said.fileno(), 1 << 20, 0).decode().splitlines()

    @property
    def lines(self):
        return self.all()[1:]

    def end(self):
        self.process.kill()
        self.process.wait()
        self.said.close()


def as_user(user, *command):
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *map(str, command)]


def tries(user, kind, host, port):
    return run(*as_user(user, sys.executable, __file__, "--leave", kind, host, port)).stdout.strip()


def the_network():
    """The pod's namespace is this one; the world's belongs to a process that sleeps in it."""
    keeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    while os.readlink(f"/proc/{keeper.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        time.sleep(0.01)
    run("ip", "link", "add", "pod0", "type", "veth", "peer", "name", "world0", "netns", keeper.pid)
    within = ["nsenter", f"--net=/proc/{keeper.pid}/ns/net"]
    for where, device, addresses in (([], "pod0", POD), (within, "world0", WORLD)):
        run(*where, "ip", "link", "set", "lo", "up")
        for number, bits in ((4, 24), (6, 64)):
            # Without a look for twins, which would make IPv6 wait.
            twins = ["nodad"] if number == 6 else []
            run(*where, "ip", "address", "add", f"{addresses[number]}/{bits}", "dev", device, *twins)
        run(*where, "ip", "link", "set", device, "up")
    for number in WORLD:
        run("ip", f"-{number}", "route", "add", "default", "via", WORLD[number])
    return keeper, within


def without_rules(checks):
    for number in WORLD:
        for kind, port in (("tcp", 443), ("udp", 443), ("udp", 9999), ("tcp", 5432)):
            got = tries(APP, kind, WORLD[number], port)
            checks.that(f"without rules, {kind}{number}/{port} is reached", got == "world", got)
        got = tries(APP, "tcp", "127.0.0.1", OPERATOR)
        checks.that("and so is the operator port", got == "operator", got)


def captured(checks, world):
    before = len(world.lines)
    for user in USERS:
        for number in WORLD:
            for port in (22, 80, 443, 5432, OPERATOR, CAPTURED):
                got = tries(user, "tcp", WORLD[number], port)
                expected = f"captured {WORLD[number]} {port}"
                checks.that(f"user {user}: tcp{number}/{port} comes to the sidecar", got == expected, got)
    checks.that("nothing of it arrived in the world", len(world.lines) == before, world.lines[before:])


def refused(checks, world):
    before = len(world.lines)
    for user in USERS:
        for number, loopback in ((4, "127.0.0.1"), (6, "::1")):
            for what, host, port in (
                ("the operator port", loopback, OPERATOR),
                ("the operator port by the pod's address", POD[number], OPERATOR),
                ("the port of what is captured", loopback, CAPTURED),
            ):
                got = tries(user, "tcp", host, port)
                checks.that(f"user {user}: {what} is refused, IPv{number}", got == "Connection refused", got)
            got = tries(user, "udp", WORLD[number], 443)
            checks.that(f"user {user}: QUIC is told at once that it may not, IPv{number}", got == "Operation not permitted", got)
            got = tries(user, "udp", WORLD[number], 9999)
            checks.that(f"user {user}: other datagrams are refused, IPv{number}", got == "Operation not permitted", got)
    checks.that("nothing of it arrived in the world, either", len(world.lines) == before, world.lines[before:])


def let_pass(checks, world):
    for number, loopback in ((4, "127.0.0.1"), (6, "::1")):
        for kind, port in (("tcp", 443), ("udp", 443), ("tcp", 5432)):
            got = tries(SIDECAR, kind, WORLD[number], port)
            checks.that(f"the sidecar itself leaves by {kind}{number}/{port}", got == "world", got)
        got = tries(SIDECAR, "tcp", loopback, OPERATOR)
        checks.that("and asks its own operator port", got == "operator", got)
        for kind in ("udp", "tcp"):
            got = tries(APP, kind, WORLD[number], 53)
            checks.that(f"names are resolved, {kind}{number}", got == "world", got)
        server = Apart(*as_user(APP, sys.executable, __file__, "--listen", loopback, 8000))
        got = tries(APP, "tcp", loopback, 8000)
        checks.that("programs of the pod reach each other", got == "listened", got)
        server.end()


def from_outside(checks, within):
    """What is asked of the pod is answered, and nobody outside comes to what is the sidecar's."""
    for number in POD:
        server = Apart(*as_user(APP, sys.executable, __file__, "--listen", POD[number], 8080))
        got = run(*within, sys.executable, __file__, "--leave", "tcp", POD[number], 8080).stdout.strip()
        checks.that(f"the pod's own server answers, IPv{number}", got == "listened", got)
        server.end()


def what_is_left():
    """What `init-net` has put into this network namespace."""
    routing = [f"ip {family} rule show pref {ROUTED}; ip {family} route show table {ROUTED} 2>&- || true" for family in ("-4", "-6")]
    return "".join(run("sh", "-c", command).stdout for command in ["nft list ruleset", *routing]).strip()


def only_some_users(checks, world, binary, resolv, way):
    """Two are named, one of them by a range; everybody else goes where he wants, as if there were no rules."""
    run(binary, "init-net", "install", "--resolv-conf", resolv, *WAYS[way], "--capture-uid", APP, "--capture-uid", "65000-65535")
    for number, loopback in ((4, "127.0.0.1"), (6, "::1")):
        for user in (APP, 65532):
            got = tries(user, "tcp", WORLD[number], 443)
            checks.that(f"{way}: user {user} is named, and is led, IPv{number}", got == f"captured {WORLD[number]} 443", got)
            got = tries(user, "udp", WORLD[number], 443)
            checks.that(f"{way}: QUIC of user {user} is refused, IPv{number}", got == "Operation not permitted", got)
            got = tries(user, "tcp", loopback, OPERATOR)
            checks.that(f"{way}: the operator port is refused to user {user}, IPv{number}", got == "Connection refused", got)
        for user in (0, 1337, SIDECAR):
            for kind, port in (("tcp", 443), ("udp", 443), ("udp", 9999)):
                got = tries(user, kind, WORLD[number], port)
                checks.that(f"{way}: user {user} is not named, and reaches {kind}{number}/{port}", got == "world", got)
            got = tries(user, "tcp", loopback, OPERATOR)
            checks.that(f"{way}: and the operator port, user {user}, IPv{number}", got == "operator", got)


def the_rules(checks, binary, folder, way):
    resolv = folder / "resolv.conf"
    resolv.write_text(f"search a.test\nnameserver {WORLD[4]}\nnameserver {WORLD[6]}\noptions ndots:5\n")
    world_keeper, within = the_network()
    world = Apart(*within, sys.executable, __file__, "--world")
    sidecar = Apart(*as_user(SIDECAR, *ANY_ADDRESS, sys.executable, __file__, "--stand-in", way))
    without_rules(checks)
    init_net = [binary, "init-net"]
    for _ in range(2):
        # Again, as where a pod's sandbox is made anew: the rules are in place of the earlier ones.
        installed = run(*init_net, "install", "--resolv-conf", resolv, *WAYS[way])
    checks.that("installing says so", "installed" in installed.stdout, installed)
    found = what_is_left()
    once = {"redirect": ["table inet", "redirect to"], "tproxy": ["table inet", "tproxy ip to", "tproxy ip6 to"]}[way]
    checks.that(f"{way}: they are there once", [found.count(one) for one in once] == [1] * len(once), found)
    checks.that(f"{way}: and so is their routing, of both families", found.count(f"lookup {ROUTED}") == found.count("local default dev lo") == (2 if way == "tproxy" else 0), found)
    captured(checks, world)
    refused(checks, world)
    forgotten(checks, way, within)
    let_pass(checks, world)
    from_outside(checks, within)
    only_some_users(checks, world, binary, resolv, way)
    other = next(other for other in WAYS if other != way)
    run(*init_net, "install", "--resolv-conf", resolv, *WAYS[other])
    run(*init_net, "install", "--resolv-conf", resolv, *WAYS[way])
    checks.that(f"{way}: what is installed in place of the other way is the same", what_is_left() == found, what_is_left())
    sidecar.end()
    for number in WORLD:
        before = len(world.lines)
        got = tries(APP, "tcp", WORLD[number], 443)
        checks.that(f"{way}: without the sidecar nothing leaves, IPv{number}", got == "Connection refused" and len(world.lines) == before, got)
    if way == "tproxy":
        run("ip", "rule", "delete", "pref", ROUTED)
        before = len(world.lines)
        run("timeout", "3", *as_user(APP, sys.executable, __file__, "--leave", "tcp", WORLD[4], 443), check=False)
        checks.that("without its routing nothing leaves, either", len(world.lines) == before, world.lines[before:])
    for _ in range(2):
        run(*init_net, "remove")
    checks.that(f"{way}: removed, nothing of them is left", what_is_left() == "", what_is_left())
    world.end()
    run("ip", "link", "delete", "pod0")
    world_keeper.kill()


def ask_again(host, port):
    """Sends when it is told to on a connection that was open before, and tells what comes of it."""
    with socket.create_connection((host, int(port)), 20) as client:
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            client.sendall(b"hello")
            print(client.recv(2048).decode(), flush=True)
        except OSError as error:
            print(type(error).__name__ if error.errno is None else os.strerror(error.errno), flush=True)


def echo(host, port):
    server = listening(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, host, int(port))
    print("ready", flush=True)
    while True:
        peer, _ = server.accept()
        threading.Thread(target=lambda peer=peer: peer.sendall(peer.recv(2048)), daemon=True).start()


def say_late(host, port):
    """Says something on a connection whose other end is closed, when the kernel has forgotten it."""
    with socket.create_connection((host, int(port)), 20) as client:
        said = client.recv(2048)
        while client.recv(2048):
            pass
        time.sleep(3)
        try:
            client.sendall(b"late")
            client.recv(2048)
        except OSError:
            pass
        print(said.decode())


def forgotten(checks, way, within):
    """What goes on without a beginning is led as well."""
    for state in ("close_wait", "fin_wait", "last_ack", "time_wait"):
        pathlib.Path(f"/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_{state}").write_text("1")
    run(*within, "nft", "table inet seen { chain arriving { type filter hook input priority 0; tcp dport 443 counter; }; }")
    for number in WORLD:
        got = run(*as_user(APP, sys.executable, __file__, "--say-late", WORLD[number], 443)).stdout.strip()
        seen = run(*within, "nft", "list table inet seen").stdout
        checks.that(f"{way}: what is said on a connection that the kernel forgot does not leave, IPv{number}", got == f"captured {WORLD[number]} 443" and "packets 0 " in seen, (got, seen))
    run(*within, "nft", "delete table inet seen")


def open_before(checks, binary, folder, way):
    """A connection that was open before the rules goes on if the kernel had a table of connections, and is reset if not."""
    keeper, within = the_network()
    (folder / "resolv.conf").write_text("")
    sidecar = Apart(*as_user(SIDECAR, *ANY_ADDRESS, sys.executable, __file__, "--stand-in", way))
    for table, expected in (("", "Connection reset by peer"), ("table inet other { chain kept { type filter hook output priority 0; ct state new accept; }; }", "hello")):
        run("nft", f"flush ruleset; {table}")
        for number in WORLD:
            server = Apart(*within, sys.executable, __file__, "--echo", WORLD[number], "7")
            client = Apart(*as_user(APP, sys.executable, __file__, "--ask-again", WORLD[number], "7"), stdin=subprocess.PIPE, text=True)
            run(binary, "init-net", "install", "--resolv-conf", folder / "resolv.conf", *WAYS[way])
            client.process.communicate("go\n", timeout=30)
            got = client.lines
            checks.that(f"{way}: what was open {'with' if table else 'without'} a table of connections, IPv{number}: {expected}", got == [expected], got)
            run(binary, "init-net", "remove")
            server.end()
    run("nft", "flush ruleset")
    sidecar.end()
    run("ip", "link", "delete", "pod0")
    keeper.kill()


class Sidecar:
    """The real one, as its own user, behind its rules."""

    def __init__(self, binary, folder, way, more=""):
        self.folder = folder
        names = ["-subj", "/CN=world", "-addext", f"subjectAltName=DNS:orders.test,DNS:orders6.test,DNS:pinned.test,IP:{WORLD[4]},IP:{WORLD[6]}"]
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        run(*new, *names, "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", folder / "key.pem", "-out", folder / "world.pem")
        (folder / "policy.rego").write_text(POLICY)
        resolved = [f"{name}:{port}={WORLD[number]}" for name, number in NAMES.items() for port in (80, 443)]
        resolved += [f"{databases.NAME}:{databases.PORTS[of]}={address}" for of in ("postgres", "mysql") for address in databases.HERE.values()]
        config = CONFIG.replace("POLICY", str(folder / "policy.rego")).replace("CA", str(folder / "world.pem"))
        config = config.replace("RESOLVE", ", ".join(f'"{one}"' for one in resolved))
        (folder / "config.yaml").write_text(config + more)
        shutil.rmtree(folder / "state", ignore_errors=True)
        (folder / "state").mkdir()
        shutil.chown(folder / "state", SIDECAR, SIDECAR)
        environment = {
            "OPENBOX_CONFIG": str(folder / "config.yaml"),
            "OPENBOX_TRANSPARENT_LISTEN": f"127.0.0.1:{CAPTURED}",
            "OPENBOX_TRANSPARENT_MODE": way,
            "OPENBOX_STATE_DIR": str(folder / "state/own"),
            "OPENBOX_SHARE_DIR": str(folder / "state/share"),
        }
        self.log = open(folder / "log", "w")
        # What other users' programs have open is for the eyes of who may trace them.
        caps = "+sys_ptrace,+dac_read_search" + (",+net_admin" if way == "tproxy" else "")
        sees = [f"--inh-caps={caps}", f"--ambient-caps={caps}"]
        self.process = subprocess.Popen(as_user(SIDECAR, *sees, binary, "serve"), env=environment, stdout=self.log, stderr=self.log)
        self.bundle = folder / "state/share/bundle.pem"
        self.token = folder / "state/share/agent-token"
        health = [*as_user(SIDECAR, binary, "health")]
        end = time.monotonic() + 60
        while run(*health, check=False).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > end:
                sys.exit(f"the sidecar does not serve:\n{self.said()}")
            time.sleep(0.05)

    def said(self):
        return (self.folder / "log").read_text()

    def by_process(self):
        """How many operations were attributed by the process they came from."""
        got = curl("http://127.0.0.1:15820/metrics", user=SIDECAR)
        found = re.search(r'openbox_attributions_total{rule="process"} (\d+)', got)
        return int(found[1]) if found else 0

    def tell(self, method, path, **what):
        got = curl("-X", method, "-H", f"Authorization: Bearer {self.token.read_text()}", "-H", "Content-Type: application/json", "-d", json.dumps(what), f"http://127.0.0.1:15800{path}")
        if "error" in got or '"code"' in got:
            sys.exit(f"the agent API: {path}: {got}")


def curl(*arguments, user=APP):
    """Without any proxy, and with names as the pod has them."""
    resolve = [f"{name}:{port}:{WORLD[number]}" for name, number in NAMES.items() for port in (80, 443)]
    options = [word for one in resolve for word in ("--resolve", one.replace(WORLD[6], f"[{WORLD[6]}]"))]
    done = run(*as_user(user, "curl", "-sS", "--noproxy", "*", "--max-time", "20", *options, *arguments), check=False, env={"PATH": os.environ["PATH"]})
    return done.stdout + done.stderr


def governed(checks, world, trust):
    for scheme, port in (("http", 80), ("https", 443)):
        for name, number in (("orders.test", 4), ("orders6.test", 6)):
            for user in (APP, 0, 1337):
                before = len(world.lines)
                got = curl(*trust, f"{scheme}://{name}/list", user=user)
                checks.that(f"user {user} is served by {scheme}, IPv{number}, and knows of no proxy", got == "orders", got)
                came = world.lines[before:]
                checks.that("the origin was asked by its name", came == [f"{WORLD[number]}/{port} {name} /list"], came)
            before = len(world.lines)
            got = curl(*trust, f"{scheme}://{name}/forbidden")
            checks.that(f"policy holds by {scheme}, IPv{number}", "not that path" in got, got)
            checks.that("what is blocked does not arrive", len(world.lines) == before, world.lines[before:])
    got = curl("https://orders.test/list")
    checks.that("TLS is opened, not passed on: who does not trust the sidecar is not served", "certificate" in got, got)
    for address in (WORLD[4], f"[{WORLD[6]}]"):
        got = curl(*trust, f"https://{address}/list")
        checks.that(f"without a name it is served by its address, {address}", got == "orders", got)


def pretended(checks, world, trust):
    def arrives(what, *arguments):
        before = len(world.lines)
        got = curl(*trust, *arguments)
        return what, got, world.lines[before:]

    what, got, came = arrives("another Host at the address of a name", "-H", "Host: secret.test", "http://orders.test/list")
    checks.that(f"{what}: judged by that Host, as it leads there", "not that host" in got and came == [], (got, came))
    what, got, came = arrives("a Host that leads nowhere", "-H", "Host: nowhere.test", "http://orders.test/list")
    checks.that(f"{what}: judged and asked for by address", came == [f"{WORLD[4]}/80 {WORLD[4]} /list"], (got, came))
    what, got, came = arrives("a name at another address", "--connect-to", f"orders.test:80:{LIAR2}:80", "http://orders.test/list")
    checks.that(f"{what}: judged and asked for by address", came == [f"{LIAR2}/80 {LIAR2} /list"], (got, came))
    what, got, came = arrives("a name of TLS at another address", "--connect-to", f"orders.test:443:{LIAR2}:443", "https://orders.test/list")
    checks.that(f"{what}: only who proves it gets the request", came == [f"{WORLD[4]}/443 orders.test /list"], (got, came))
    what, got, came = arrives("a name of TLS and another Host", "-H", "Host: secret.test", "https://orders.test/list")
    checks.that(f"{what}: refused", "misdirected" in got and came == [], (got, came))
    what, got, came = arrives("somebody else's proxy", "--noproxy", "", "--proxy", f"http://{WORLD[4]}:80", "https://orders.test/list")
    checks.that(f"{what}: refused", "400" in got and came == [], (got, came))


def neither_nor(checks, world, sidecar, trust):
    for port in (22, 5432):
        before = len(world.lines)
        got = tries(APP, "tcp", WORLD[4], port)
        checks.that(f"what is neither TLS nor HTTP does not leave, port {port}", got == "" and len(world.lines) == before, got)
        got = tries(APP, "tcp", LIAR, port)
        checks.that(f"but where its address is on http.passthrough, port {port}", got == "world", got)
    checks.that("why is in the log", "waits for the server to speak first" in sidecar.said(), sidecar.said())
    got = curl("--cacert", sidecar.folder / "world.pem", "https://pinned.test/forbidden")
    checks.that("a name on http.passthrough passes unread", got == "orders", got)
    got = curl(*trust, "--noproxy", "", "--proxy", "http://127.0.0.1:15801", "https://orders.test/list")
    checks.that("who knows the proxy uses it as ever", got == "orders", got)


def the_databases(checks, sidecar):
    """Asked for by their addresses, by programs that know of no sidecar."""
    for protocol, (allowed, answer, refused) in databases.STATEMENTS.items():
        for number, host in databases.HERE.items():
            got = databases.said(as_user(APP, *databases.client(protocol, host, allowed)))
            if (protocol, number) == ("redis", 6):
                checks.that("a server that is configured by its address is not known by another", answer not in got, got)
                continue
            checks.that(f"{protocol} at {host} answers through its relay", got == answer, got)
            got = databases.said(as_user(APP, *databases.client(protocol, host, refused)))
            checks.that(f"{protocol} at {host}: policy holds", "not that one" in got, got)
    for host in (databases.HERE[4], f"{databases.NAME} hostaddr={databases.HERE[4]}"):
        tls = f"sslmode=verify-full sslrootcert={sidecar.bundle}"
        got = databases.said(as_user(APP, *databases.client("postgres", host, "SELECT 6 * 7", tls)))
        checks.that(f"postgres by TLS, which proves {host}", got == "42", got)
    tls = f"--ssl-verify-server-cert --ssl-ca={sidecar.bundle}"
    got = databases.said(as_user(APP, *databases.client("mysql", databases.HERE[4], "SELECT 6 * 7", tls)))
    checks.that(f"mysql by TLS, which proves {databases.HERE[4]}", got == "42", got)
    got = databases.said(as_user(APP, "psql", "host=127.0.0.1 port=15432 user=postgres sslmode=disable", "-Atc", "SELECT 6 * 7"))
    checks.that("who knows the listener uses it as ever", got == "42", got)


def whose_it_is(checks, sidecar):
    """A process that was registered stands for its activity, however its connections come."""
    ids = {"workflow_id": "w", "run_id": "r"}
    sidecar.tell("POST", "/v1/workflows", **ids)
    sidecar.tell("POST", "/v1/activities", **ids, activity_id="a", activity_type="t")
    asks = {protocol: databases.client(protocol, databases.HERE[4], allowed) for protocol, (allowed, _, _) in databases.STATEMENTS.items()}
    asks["http"] = ["curl", "-sS", f"http://{WORLD[4]}/list"]
    for protocol, ask in asks.items():
        before = sidecar.by_process()
        # It waits until it is registered.
        waits = as_user(APP, "sh", "-c", 'read -r go && exec "$@"', "sh", "timeout", "30", *ask)
        process = subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        sidecar.tell("PUT", "/v1/contexts/me", **ids, activity_id="a", pid=process.pid)
        got, _ = process.communicate("go\n", timeout=60)
        after = sidecar.by_process()
        checks.that(f"a captured connection of {protocol} is its process's", after > before, (before, after, got))
        before = sidecar.by_process()
        got = databases.said(as_user(APP, *ask))
        after = sidecar.by_process()
        checks.that(f"and one of another process is not, by {protocol}", after == before, (before, after, got))


def from_a_port_that_is_taken(checks, sidecar, way):
    """The kernel gives the second of two redirected connections from one port another: its process is not found, and nobody's else."""
    ids = {"workflow_id": "w", "run_id": "r"}
    command = as_user(APP, sys.executable, __file__, "--from-one-port", 45678, WORLD[4], LIAR2)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    sidecar.tell("PUT", "/v1/contexts/me", **ids, activity_id="a", pid=process.pid)
    for host, more in ((WORLD[4], 1), (LIAR2, 1 if way == "tproxy" else 0)):
        before = sidecar.by_process()
        process.stdin.write("go\n")
        process.stdin.flush()
        got = process.stdout.readline().strip()
        found = sidecar.by_process() > before
        checks.that(f"{host} answers from a port of another connection", got == host, got)
        checks.that(f"and its process is {'' if more else 'not '}found", found == bool(more), found)
    process.stdin.close()
    process.wait(30)


def the_sidecar(checks, binary, folder, way):
    keeper, within = the_network()
    for number, bits in ((4, 24), (6, 64)):
        run(*within, "ip", "address", "add", f"{databases.HERE[number]}/{bits}", "dev", "world0", *(["nodad"] if number == 6 else []))
    run(*within, "ip", "address", "add", f"{LIAR}/24", "dev", "world0")
    run(*within, "ip", "address", "add", f"{LIAR2}/24", "dev", "world0")
    resolv = folder / "resolv.conf"
    resolv.write_text("")
    run(binary, "init-net", "install", "--resolv-conf", resolv, *WAYS[way])
    sidecar = Sidecar(binary, folder, way)
    world = Apart(*within, sys.executable, __file__, "--origin", folder / "world.pem", folder / "key.pem")
    servers = databases.Databases(within, folder)
    trust = ["--cacert", sidecar.bundle]
    try:
        governed(checks, world, trust)
        pretended(checks, world, trust)
        ways_to_ask.check(checks, world, within, sidecar, sys.modules[__name__])
        neither_nor(checks, world, sidecar, trust)
        the_databases(checks, sidecar)
        whose_it_is(checks, sidecar)
        from_a_port_that_is_taken(checks, sidecar, way)
        got = tries(APP, "tcp", "127.0.0.1", OPERATOR)
        checks.that("its operator port is closed to the app", got == "Connection refused", got)
        run("nft", "flush", "chain", "inet", "openbox_sidecar", "governed")
        run("nft", "chain", "inet", "openbox_sidecar", "governed", "{ policy accept; }")
        got = curl(f"http://127.0.0.1:{CAPTURED}/list")
        checks.that("who comes to that port by himself is not served, rules or not", "orders" not in got and "itself" in sidecar.said(), got)
    finally:
        sidecar.process.terminate()
        code = sidecar.process.wait(30)
    checks.that("it ends as it should", code == 0, sidecar.said())
    run(binary, "init-net", "remove")
    world.end()
    servers.end()
    run("ip", "link", "delete", "pod0")
    keeper.kill()


def rules_that_exempt_another(checks, binary, folder, way):
    """The sidecar's own connections come back to it: that ends before long, and says why."""
    keeper, within = the_network()
    resolv = folder / "resolv.conf"
    resolv.write_text("")
    sidecar = Sidecar(binary, folder, way)
    run(binary, "init-net", "install", "--resolv-conf", resolv, *WAYS[way], "--uid", 1337, "--operator-port", 9)
    began = time.monotonic()
    got = curl("http://orders.test/list")
    took = time.monotonic() - began
    checks.that(f"{way}: what goes in circles ends, after {took:.1f} s", took < 15 and "orders" not in got.split(), got)
    checks.that(f"{way}: and the log says that it does", "a captured connection is the sidecar's own" in sidecar.said(), sidecar.said()[-2000:])
    sidecar.process.terminate()
    code = sidecar.process.wait(30)
    checks.that(f"{way}: the sidecar ends as it should", code == 0, code)
    run(binary, "init-net", "remove")
    run("ip", "link", "delete", "pod0")
    keeper.kill()


def installed_again_in_vain(checks, binary, folder, told):
    """The earlier rules stay, and all that they need."""
    install = ["install", "--tproxy", "--resolv-conf", folder / "empty"]
    (folder / "no-nft").write_text("#!/bin/sh\necho 'Error: not that' >&2\nexit 1\n")
    (folder / "no-nft").chmod(0o755)
    run(binary, "init-net", *install)
    before = what_is_left()
    checks.that("rules and their routing are there", before.count(f"lookup {ROUTED}") == 2, before)
    code, text = told(0, *install, "--nft", folder / "no-nft")
    checks.that("installed again in vain, and told so", code == 1 and "not that" in text and "nothing was changed" in text, text)
    checks.that("nothing was changed, indeed", what_is_left() == before, what_is_left())
    run("ip", "-6", "rule", "delete", "pref", ROUTED)
    told(0, *install, "--nft", folder / "no-nft")
    checks.that("what was there stays, of one family alone too", what_is_left().count(f"lookup {ROUTED}") == 1, what_is_left())
    run(binary, "init-net", *install)
    checks.that("what is missing is added", what_is_left() == before, what_is_left())
    run(binary, "init-net", "remove")


def speaks_ipv6(disabled):
    pathlib.Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").write_text(disabled)


def only_on_loopback(checks, resolv, told):
    """Who answers for names on loopback asks others, whom the rules do not know."""
    for servers, more, warned in (
        (["127.0.0.53"], [], True),
        (["127.0.0.53", "::1"], [], True),
        (["127.0.0.53", WORLD[4]], [], False),
        (["127.0.0.53"], ["--capture-uid", APP], False),
        ([], [], False),
    ):
        resolv.write_text("".join(f"nameserver {one}\n" for one in servers))
        code, text = told(0, "install", "--resolv-conf", resolv, *more)
        told(0, "remove")
        checks.that(f"{servers} {more}: rules are put there, and {'' if warned else 'not '}warned of", code == 0 and ("--resolv-conf /run/systemd/resolve/resolv.conf" in text) == warned, text)


def what_goes_wrong(checks, binary, folder):
    def told(user, *arguments):
        done = run(*as_user(user, binary, "init-net", *arguments), check=False)
        return done.returncode, done.stderr

    resolv = folder / "resolv.conf"
    resolv.write_text("")
    plain = ["install", "--resolv-conf", resolv]
    code, text = told(APP, *plain)
    checks.that("who is not root is told", code == 1 and "NET_ADMIN" in text and "nothing was changed" in text, text)
    code, text = told(0, *plain, "--nft", "/nowhere/nft")
    checks.that("no nft is told", code == 1 and "/nowhere/nft" in text and "nftables" in text, text)
    code, text = told(0, "install", "--resolv-conf", folder / "none")
    checks.that("no file of name servers is told", code == 1 and "--resolv-conf" in text, text)
    (folder / "empty").write_text("")
    (folder / "allow.rego").write_text("package pod\ndefault result := {\"decision\": \"ALLOW\"}\n")
    (folder / "alone.yaml").write_text(f"policy: {{path: {folder}/allow.rego}}\nlisten: {{transparent: 127.0.0.1:{CAPTURED}, transparent_mode: tproxy}}\n")
    (folder / "alone").mkdir()
    shutil.chown(folder / "alone", SIDECAR, SIDECAR)
    resolv.write_text("nameserver dns.example.com\n")
    code, text = told(0, *plain)
    checks.that("a name server that is no address is told", code == 1 and "dns.example.com" in text, text)
    only_on_loopback(checks, folder / "loopback", told)
    code, text = told(0, "install", "--tproxy", "--resolv-conf", folder / "empty", "--ip", "/nowhere/ip")
    checks.that("no ip is told", code == 1 and "/nowhere/ip" in text and "iproute2" in text, text)
    code, text = told(0, "install", "--tproxy", "--resolv-conf", folder / "empty", "--nft", "/nowhere/nft")
    checks.that("where nft fails, the routing is taken back", code == 1 and what_is_left() == "", text)
    installed_again_in_vain(checks, binary, folder, told)
    run("ip", "link", "set", "lo", "up")
    run(binary, "init-net", "install", "--tproxy", "--resolv-conf", folder / "empty")
    speaks_ipv6("1")
    run(binary, "init-net", "remove")
    speaks_ipv6("0")
    checks.that("what was put there of IPv6 is taken out when it is spoken no more", what_is_left() == "", what_is_left())
    run("sh", "-c", f"ip -6 rule delete pref {ROUTED}; nft flush ruleset", check=False)
    code, text = told(0, "install", "--from", "pod0", "--resolv-conf", folder / "empty")
    checks.that("a device is for TPROXY alone", code != 0 and "--tproxy" in text, text)
    code, text = told(0, "install", "--capture-uid", "root", "--resolv-conf", folder / "empty")
    checks.that("a user is a number", code != 0 and "1000-1999" in text, text)
    done = run(*as_user(SIDECAR, binary, "serve"), check=False, env={"OPENBOX_CONFIG": str(folder / "alone.yaml"), "OPENBOX_STATE_DIR": str(folder / "alone")})
    checks.that("a sidecar that may not have other addresses says what it takes", done.returncode != 0 and "CAP_NET_ADMIN" in done.stderr, done.stderr)
    checks.that("and nothing is half there", what_is_left() == "", what_is_left())


def main():
    arguments = sys.argv[1:]
    if arguments[0] == "--world":
        return world()
    if arguments[0] == "--origin":
        return origin(*arguments[1:])
    if arguments[0] == "--stand-in":
        return stand_in(arguments[1])
    if arguments[0] == "--told-origin":
        return gateway.told_origin(*arguments[1:])
    if arguments[0] == "--leave":
        return print(leave(*arguments[1:]))
    if arguments[0] == "--from-one-port":
        return from_one_port(*arguments[1:])
    if arguments[0] == "--say-late":
        return say_late(*arguments[1:])
    if arguments[0] == "--ask-again":
        return ask_again(*arguments[1:])
    if arguments[0] == "--echo":
        return echo(*arguments[1:])
    if arguments[0] == "--listen":
        family = socket.AF_INET6 if ":" in arguments[1] else socket.AF_INET
        server = listening(family, socket.SOCK_STREAM, arguments[1], int(arguments[2]))
        print("ready", flush=True)
        while True:
            peer, _ = server.accept()
            peer.sendall(b"listened")
            peer.close()
    if "--inside" not in arguments:
        inside = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        os.execvp("unshare", [*inside, sys.executable, __file__, *arguments, "--inside"])
    checks = Checks()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        # Programs of other users start the binary from here.
        folder.chmod(0o711)
        binary = shutil.copy(arguments[0], folder / "openbox-sidecar")
        arguments.remove("--inside")
        wanted = arguments[1:] or [*WAYS, "gateway"]

        def own(name):
            """A folder that nothing else has left anything in."""
            (folder / name).mkdir(mode=0o711)
            return folder / name

        for way in WAYS:
            if way in wanted:
                apart = own(way)
                open_before(checks, binary, apart, way)
                the_rules(checks, binary, apart, way)
                the_sidecar(checks, binary, apart, way)
                rules_that_exempt_another(checks, binary, apart, way)
        if "gateway" in wanted:
            gateway.check(checks, binary, own("gateway"), sys.modules[__name__])
        what_goes_wrong(checks, binary, own("wrong"))
    print(f"{checks.passed} checks passed, {checks.failed} failed")
    sys.exit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
