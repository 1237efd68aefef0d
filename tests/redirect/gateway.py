"""What other machines send through this one, by TPROXY: a client behind it, whose address its origins see.

A part of `redirect.py`, which starts it and whose world it is in.
"""

import http.server
import os
import ssl
import subprocess
import sys
import threading

from checks import run

CLIENT = {4: "10.15.91.2", 6: "fd15:91::2"}
HERE = {4: "10.15.91.1", 6: "fd15:91::1"}
NETWORK = {4: "10.15.91.0/24", 6: "fd15:91::/64"}
DEVICE = "in0"
# Of a name server that another's rules lead to elsewhere, as those of a cluster do.
SERVICE = "10.15.92.53"
PUBLISHED = 8443


class Told(http.server.BaseHTTPRequestHandler):
    """Tells who asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        print(self.client_address[0], self.headers["Host"], self.path, flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"orders")

    def log_message(self, *_):
        pass


def told_origin(certificate, key, *addresses):
    import redirect

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    for address in addresses:
        for port in (80, 443):
            server = (redirect.Origins6 if ":" in address else redirect.Origins)((address, port), Told)
            if port == 443:
                server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


class Behind:
    """A network behind the pod, with one client in it."""

    def __init__(self, at):
        self.at = at
        self.keeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        while os.readlink(f"/proc/{self.keeper.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            pass
        run("ip", "link", "add", DEVICE, "type", "veth", "peer", "name", "client0", "netns", self.keeper.pid)
        self.within = ["nsenter", f"--net=/proc/{self.keeper.pid}/ns/net"]
        for where, device, addresses in (([], DEVICE, HERE), (self.within, "client0", CLIENT)):
            run(*where, "ip", "link", "set", "lo", "up")
            for number, bits in ((4, 24), (6, 64)):
                run(*where, "ip", "address", "add", f"{addresses[number]}/{bits}", "dev", device, *(["nodad"] if number == 6 else []))
            run(*where, "ip", "link", "set", device, "up")
        for number in HERE:
            run(*self.within, "ip", f"-{number}", "route", "add", "default", "via", HERE[number])

    def tries(self, kind, host, port):
        return run(*self.within, sys.executable, self.at.__file__, "--leave", kind, host, port).stdout.strip()

    def curl(self, *arguments):
        resolve = [f"{name}:{port}:{self.at.WORLD[number]}" for name, number in self.at.NAMES.items() for port in (80, 443)]
        options = [word for one in resolve for word in ("--resolve", one.replace(self.at.WORLD[6], f"[{self.at.WORLD[6]}]"))]
        done = run(*self.within, "curl", "-sS", "--noproxy", "*", "--max-time", "20", *options, *arguments, check=False, env={"PATH": os.environ["PATH"]})
        return done.stdout + done.stderr

    def end(self):
        run("ip", "link", "delete", DEVICE)
        self.keeper.kill()


def forwards():
    for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        with open(f"/proc/sys/net/{name}", "w") as setting:
            setting.write("1")


def check(checks, binary, folder, at):
    forwards()
    keeper, world_within = at.the_network()
    for number in CLIENT:
        # Answers to the client come back by the pod.
        run(*world_within, "ip", f"-{number}", "route", "add", NETWORK[number], "via", at.POD[number])
    behind = Behind(at)
    resolv = folder / "resolv.conf"
    resolv.write_text(f"nameserver {at.WORLD[4]}\nnameserver {at.WORLD[6]}\nnameserver {SERVICE}\n")
    led_without_a_sidecar(checks, binary, at, behind, world_within, resolv)
    published(checks, binary, at, behind, world_within, resolv)
    for source in ("own", "client"):
        asked(checks, binary, folder, at, (behind, world_within, resolv), source)
    behind.end()
    run("ip", "link", "delete", "pod0")
    keeper.kill()


def led_without_a_sidecar(checks, binary, at, behind, world_within, resolv):
    world = at.Apart(*world_within, sys.executable, at.__file__, "--world")
    closed = [(host, port) for host in (*HERE.values(), *at.POD.values()) for port in (at.OPERATOR, at.CAPTURED)]
    servers = [at.Apart(sys.executable, at.__file__, "--listen", host, str(port)) for host, port in closed]
    for host, port in closed:
        got = behind.tries("tcp", host, port)
        checks.that(f"without rules port {port} of {host} answers", got == "listened", got)
    for number in at.WORLD:
        got = behind.tries("tcp", at.WORLD[number], 443)
        checks.that(f"without rules the client is routed, IPv{number}", got == "world", got)
    run(binary, "init-net", "install", "--tproxy", "--from", DEVICE, "--resolv-conf", resolv)
    stand_in = at.Apart(*at.as_user(at.SIDECAR, *at.ANY_ADDRESS, sys.executable, at.__file__, "--stand-in", "tproxy"))
    before = len(world.lines)
    for number in at.WORLD:
        for port in (22, 443, at.OPERATOR, at.CAPTURED):
            got = behind.tries("tcp", at.WORLD[number], port)
            checks.that(f"what is routed comes to the sidecar, tcp{number}/{port}", got == f"captured {at.WORLD[number]} {port}", got)
        got = behind.tries("udp", at.WORLD[number], 443)
        checks.that(f"QUIC of the client is told that it may not, IPv{number}", got == "Connection refused", got)
        got = behind.tries("udp", at.WORLD[number], 9999)
        checks.that(f"and so are other datagrams, IPv{number}", got in ("No route to host", "Permission denied", "Connection refused"), got)
    for host, port in closed:
        got = behind.tries("tcp", host, port)
        checks.that(f"port {port} of {host} is refused to the client", got == "Connection refused", got)
    checks.that("nothing of the client's arrived in the world", len(world.lines) == before, world.lines[before:])
    for number in at.WORLD:
        for kind in ("udp", "tcp"):
            got = behind.tries(kind, at.WORLD[number], 53)
            checks.that(f"names are resolved by the client, {kind}{number}", got == "world", got)
    for ended in (stand_in, *servers):
        ended.end()
    before = len(world.lines)
    for number in at.WORLD:
        got = behind.tries("tcp", at.WORLD[number], 443)
        checks.that(f"without the sidecar the client goes nowhere, IPv{number}", got == "Connection refused" and len(world.lines) == before, got)
    run(binary, "init-net", "remove")
    for number in at.WORLD:
        got = behind.tries("tcp", at.WORLD[number], 443)
        checks.that(f"and is routed again without the rules, IPv{number}", got == "world", got)
    checks.that("of which nothing is left", at.what_is_left() == "", at.what_is_left())
    world.end()


def published(checks, binary, at, behind, world_within, resolv):
    """Ports of this machine's that another's rules lead on: the client would come by them to where it may not go."""
    world = at.Apart(*world_within, sys.executable, at.__file__, "--world")
    led_on = [f"ip daddr {SERVICE} udp dport 53 dnat ip to {at.WORLD[4]}:9999"]
    for number, word in ((4, "ip"), (6, "ip6")):
        for kind, port in (("tcp", 443), ("udp", 9999)):
            led_on.append(f"{word} daddr {HERE[number]} {kind} dport {PUBLISHED} dnat {word} to {at.WORLD[number]}:{port}".replace(at.WORLD[6], f"[{at.WORLD[6]}]"))
    rules = "; ".join(["type nat hook prerouting priority dstnat", *led_on])
    run("nft", f"table inet published {{ chain led_on {{ {rules}; }}; }}")
    ways = [(kind, number) for number in HERE for kind in ("tcp", "udp")]
    for kind, number in ways:
        got = behind.tries(kind, HERE[number], PUBLISHED)
        checks.that(f"without rules a published port leads on, {kind}{number}", got == "world", got)
    run(binary, "init-net", "install", "--tproxy", "--from", DEVICE, "--resolv-conf", resolv)
    before = len(world.lines)
    for kind, number in ways:
        got = behind.tries(kind, HERE[number], PUBLISHED)
        refused = ("Connection refused",) if kind == "tcp" else ("No route to host", "Permission denied", "Connection refused")
        checks.that(f"a published port is no way around the sidecar, {kind}{number}", got in refused and len(world.lines) == before, got)
    got = behind.tries("udp", SERVICE, 53)
    checks.that("a name server that is led to elsewhere is asked", got == "world", got)
    for number in CLIENT:
        server = at.Apart(*behind.within, sys.executable, at.__file__, "--listen", CLIENT[number], "8080")
        got = run(*world_within, sys.executable, at.__file__, "--leave", "tcp", CLIENT[number], 8080).stdout.strip()
        checks.that(f"a server behind this machine answers the world, IPv{number}", got == "listened", got)
        server.end()
    run(binary, "init-net", "remove")
    run("nft", "delete table inet published")
    world.end()


def set_in_kernel(name, value):
    with open(f"/proc/sys/net/ipv4/{name}", "r+") as setting:
        before = setting.read()
        setting.seek(0)
        setting.write(value)
    return before


def of_one_port(checks, at, behind, trust, sidecar):
    """Two destinations, and one port of the client's address for both."""
    set_in_kernel("ip_autobind_reuse", "1")
    before = set_in_kernel("ip_local_port_range", "20000 20000")
    for scheme in ("http", "https"):
        got = behind.curl(*trust, f"{scheme}://{at.WORLD[4]}/list")
        checks.that(f"a port of the client's address serves another destination too, {scheme}", got == "orders", (got, sidecar.said()[-2000:]))
    set_in_kernel("ip_local_port_range", before)


def asked(checks, binary, folder, at, network, source):
    behind, world_within, resolv = network
    run(binary, "init-net", "install", "--tproxy", "--from", DEVICE, "--resolv-conf", resolv)
    sidecar = at.Sidecar(binary, folder, "tproxy", f"  source: {source}\n")
    origin = at.Apart(*world_within, sys.executable, at.__file__, "--told-origin", folder / "world.pem", folder / "key.pem", *at.WORLD.values())
    trust = ["--cacert", sidecar.bundle]
    try:
        for name, number in (("orders.test", 4), ("orders6.test", 6)):
            for scheme in ("http", "https"):
                for _ in range(2):
                    before = len(origin.lines)
                    got = behind.curl(*trust, f"{scheme}://{name}/list")
                    came = origin.lines[before:]
                    who = CLIENT[number] if source == "client" else at.POD[number]
                    checks.that(f"source {source}: {name} is asked by {scheme} from {who}", (got, came) == ("orders", [f"{who} {name} /list"]), (got, came, sidecar.said()))
                before = len(origin.lines)
                got = behind.curl(*trust, f"{scheme}://{name}/forbidden")
                checks.that(f"source {source}: policy holds by {scheme}, IPv{number}", "not that path" in got and len(origin.lines) == before, got)
            # Of the pod itself, whose connections are its own, however many the client has kept open.
            before = len(origin.lines)
            got = at.curl(*trust, f"https://{name}/own")
            came = origin.lines[before:]
            checks.that(f"source {source}: the pod asks {name} from its own address", came == [f"{at.POD[number]} {name} /own"], (got, came))
        got = behind.curl("--cacert", folder / "world.pem", "https://pinned.test/unread")
        came = origin.lines[-1:]
        who = CLIENT[4] if source == "client" else at.POD[4]
        checks.that(f"source {source}: what passes unread comes from {who}", (got, came) == ("orders", [f"{who} pinned.test /unread"]), (got, came))
        if source == "client":
            of_one_port(checks, at, behind, trust, sidecar)
    finally:
        sidecar.process.terminate()
        code = sidecar.process.wait(30)
    checks.that("it ends as it should", code == 0, sidecar.said())
    run(binary, "init-net", "remove")
    origin.end()
