"""Which variables a client heeds, of those that `openbox-sidecar run` sets.

    trust.py CLIENT PORT CERTIFICATE KEY FOLDER      under `run`

Serves what the client asks for as https://secure.test:PORT, and runs it with nothing but the
variables of its row; then without the first, which names the proxy, and without the other,
which names the authorities. Prints how it went each time.
"""

import base64
import hashlib
import http.server
import io
import json
import os
import ssl
import subprocess
import sys
import tarfile
import textwrap
import threading
import zipfile
from pathlib import Path

client, port, certificate, key, folder = sys.argv[1:]
folder = Path(folder)
site = folder / "site"
origin = f"https://secure.test:{port}"


def put(path, data):
    path = site / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def program(name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return str(path)


def tarred(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def fresh(number):
    return str(folder / f"into-{number}")


def curl(number):
    put("curl/x", "x")
    return ["curl", "--silent", "--fail", f"{origin}/curl/x"]


def git(number):
    work = folder / "work"
    if not work.exists():
        quiet = {"check": True, "capture_output": True}
        subprocess.run(["git", "init", "-q", work], **quiet)
        (work / "file").write_text("x")
        who = ["-c", "user.name=x", "-c", "user.email=x@x.test"]
        subprocess.run(["git", "-C", work, "add", "."], **quiet)
        subprocess.run(["git", "-C", work, *who, "commit", "-qm", "x"], **quiet)
        subprocess.run(["git", "clone", "-q", "--bare", work, site / "git/repo.git"], **quiet)
        subprocess.run(["git", "-C", site / "git/repo.git", "update-server-info"], **quiet)
    return ["git", "clone", "-q", f"{origin}/git/repo.git", fresh(number)]


def pip(number):
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("tinything.py", "x = 1\n")
        info = "tinything-1.0.dist-info"
        packed.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinything\nVersion: 1.0\n")
        packed.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{info}/RECORD", "")
    name = "tinything-1.0-py3-none-any.whl"
    put(f"pip/files/{name}", wheel.getvalue())
    put("pip/simple/tinything/index.html", f'<a href="{origin}/pip/files/{name}">{name}</a>')
    options = ["--quiet", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--retries", "0"]
    where = ["--index-url", f"{origin}/pip/simple/", "--target", fresh(number)]
    return [sys.executable, "-m", "pip", "install", *options, *where, "tinything"]


def npm(number):
    packed = tarred({"package/package.json": '{"name":"tinything","version":"1.0.0"}'})
    sum = base64.b64encode(hashlib.sha512(packed).digest()).decode()
    put("npm/files/tinything.tgz", packed)
    version = {
        "name": "tinything",
        "version": "1.0.0",
        "dist": {"tarball": f"{origin}/npm/files/tinything.tgz", "integrity": f"sha512-{sum}"},
    }
    put("npm/tinything", json.dumps({"name": "tinything", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}))
    options = ["--no-audit", "--no-fund", "--silent", "--no-update-notifier", "--fetch-retries", "0"]
    configs = ["--userconfig", fresh("user"), "--globalconfig", fresh("global")]
    places = ["--cache", fresh(f"{number}-cache"), "--prefix", fresh(number), "--registry", f"{origin}/npm/"]
    return ["npm", "install", *options, *configs, *places, "tinything"]


def cargo(number):
    manifest = '[package]\nname = "tinything"\nversion = "1.0.0"\n'
    packed = tarred({"tinything-1.0.0/Cargo.toml": manifest, "tinything-1.0.0/src/lib.rs": ""})
    put("cargo/files/tinything", packed)
    put("cargo/config.json", json.dumps({"dl": f"{origin}/cargo/files/{{crate}}"}))
    row = {"name": "tinything", "vers": "1.0.0", "deps": [], "cksum": hashlib.sha256(packed).hexdigest(), "features": {}, "yanked": False}
    put("cargo/ti/ny/tinything", json.dumps(row) + "\n")
    here = Path(fresh(number))
    for path, text in {
        "Cargo.toml": '[package]\nname = "x"\nversion = "0.1.0"\n[dependencies]\ntinything = { version = "1", registry = "local" }\n',
        "src/lib.rs": "",
        "../.cargo/config.toml": f'[registries.local]\nindex = "sparse+{origin}/cargo/"\n[net]\nretry = 0\n',
    }.items():
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(text)
    return ["cargo", "fetch", "--quiet", "--manifest-path", str(here / "Cargo.toml")]


def java(number):
    put("java/x", "x")
    source = program(
        "Ask.java",
        """
        import java.net.URI;
        import java.net.http.*;

        class Ask {
            public static void main(String[] words) throws Exception {
                var client = HttpClient.newBuilder().proxy(java.net.ProxySelector.getDefault()).build();
                var request = HttpRequest.newBuilder(URI.create(words[0])).build();
                var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
                System.exit(answer.statusCode() == 200 ? 0 : 1);
            }
        }
        """,
    )
    if number == 0:
        # Compiled once, and without the variable, which is for the program.
        subprocess.run(["javac", "-d", folder, source], check=True, env=alone({}))
    return ["java", "-cp", str(folder), "Ask", f"{origin}/java/x"]


def go(number):
    put("go/x", "x")
    source = program(
        "ask.go",
        """
        package main

        import (
            "net/http"
            "os"
        )

        func main() {
            answer, err := http.Get(os.Args[1])
            if err != nil {
                println(err.Error())
                os.Exit(1)
            }
            if answer.StatusCode != 200 {
                os.Exit(2)
            }
        }
        """,
    )
    built = folder / "ask"
    if number == 0:
        subprocess.run(["go", "build", "-o", built, source], check=True, env=alone({}))
    return [str(built), f"{origin}/go/x"]


def node(number):
    put(f"{client}/x", "x")
    here = Path(__file__).resolve()
    if client == "undici":
        package = here.parent / "node_modules/undici/index.js"
        fetch = f"import undici from {json.dumps(str(package))}; const dispatcher = new undici.EnvHttpProxyAgent(); const fetch = undici.fetch;"
        program_of_node = "node"
    else:
        fetch = "const dispatcher = undefined;"
        program_of_node = str(here.parents[2] / ".tools/node24/run")
    source = f"{fetch} const answer = await fetch(process.argv[2], {{ dispatcher }}); process.exit(answer.status === 200 ? 0 : 1);"
    return [program_of_node, program("ask.mjs", source), f"{origin}/{client}/x"]


PYTHON = {
    "urllib": "import urllib.request; urllib.request.urlopen(URL, timeout=20).read()",
    "requests": "import requests; requests.get(URL, timeout=20).raise_for_status()",
    "httpx": "import httpx; httpx.get(URL, timeout=20).raise_for_status()",
    "aiohttp": """
        import aiohttp, asyncio
        async def main():
            async with aiohttp.ClientSession(trust_env=True) as session:
                async with session.get(URL) as answer:
                    answer.raise_for_status()
        asyncio.run(main())
        """,
}


def python(number):
    put(f"{client}/x", "x")
    text = textwrap.dedent(PYTHON[client]).replace("URL", repr(f"{origin}/{client}/x"))
    return [sys.executable, "-c", text]


# The command, the variable that names the proxy, the one that names the authorities.
ROWS = {
    "curl": (curl, "https_proxy", "CURL_CA_BUNDLE"),
    "git": (git, "https_proxy", "GIT_SSL_CAINFO"),
    "pip": (pip, "https_proxy", "PIP_CERT"),
    "npm": (npm, "npm_config_https_proxy", "NODE_EXTRA_CA_CERTS"),
    "cargo": (cargo, "https_proxy", "CARGO_HTTP_CAINFO"),
    "java": (java, "JAVA_TOOL_OPTIONS", "JAVA_TOOL_OPTIONS"),
    "go": (go, "https_proxy", "SSL_CERT_FILE"),
    "urllib": (python, "https_proxy", "SSL_CERT_FILE"),
    "requests": (python, "https_proxy", "REQUESTS_CA_BUNDLE"),
    "httpx": (python, "https_proxy", "SSL_CERT_FILE"),
    "aiohttp": (python, "https_proxy", "SSL_CERT_FILE"),
    "undici": (node, "https_proxy", "NODE_EXTRA_CA_CERTS"),
    "fetch": (node, "NODE_USE_ENV_PROXY", "NODE_EXTRA_CA_CERTS"),
}
# What says where the proxy is, for a client whose row says whether that is heeded.
BESIDES = {"fetch": {"https_proxy"}}


def alone(variables, number=0):
    """An environment with nothing but these that could matter."""
    kept = {name: os.environ[name] for name in ["PATH", "LANG"] if name in os.environ}
    home = {"HOME": str(folder), "CARGO_HOME": fresh(f"{number}-cargo"), "PIP_CONFIG_FILE": os.devnull}
    rustup = os.environ.get("RUSTUP_HOME") or str(Path(os.environ["RUN_HOME"]) / ".rustup")
    return {**kept, **home, "RUSTUP_HOME": rustup, **{name: os.environ[name] for name in variables}}


def went(number, variables):
    command, _, _ = ROWS[client]
    words = command(number)
    variables = variables | BESIDES.get(client, set())
    done = subprocess.run(words, env=alone(variables, number), capture_output=True, text=True, cwd=folder)
    if done.returncode != 0:
        print(done.stdout, done.stderr, file=sys.stderr)
    return "yes" if done.returncode == 0 else "no"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments):
        super().__init__(*arguments, directory=str(site))

    def log_message(self, *_):
        pass


site.mkdir(parents=True, exist_ok=True)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Quiet)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
threading.Thread(target=server.serve_forever, daemon=True).start()

_, proxy, authorities = ROWS[client]
print("both", went(0, {proxy, authorities}))
if proxy == authorities:
    print("without", went(1, set()))
else:
    print("without", proxy, went(1, {authorities}))
    print("without", authorities, went(2, {proxy}))
