"""What git does over HTTP with a server that speaks its smart protocol: clone, fetch, push.

    git_smart.py PORT CERTIFICATE KEY AUTHORITIES FOLDER      under `run`

Serves `git http-backend` as https://secure.test:PORT, and does the same to it three times: directly, and through the
proxy of this environment over HTTP/1.1 and HTTP/2. Prints, for each, what came of it and how requests were framed.
"""

import http.server
import json
import os
import random
import shutil
import ssl
import subprocess
import sys
import threading
from pathlib import Path

port, certificate, key, authorities, folder = sys.argv[1:]
folder = Path(folder)
served = folder / "served"
origin = f"https://secure.test:{port}"
MIB = 1 << 20
# The same for every way, so that the commits are the same.
WHO = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "x"), ("EMAIL", "x@x.test"), ("DATE", "2026-01-01T00:00:00Z"))}
ALONE = {"HOME": str(folder), "PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", **WHO}
seen = []


class Backend(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self):
        body = self.body()
        path, _, query = self.path.partition("?")
        service = path.rpartition("/")[2]
        framing = "chunked" if "transfer-encoding" in self.headers else "length"
        seen.append((self.command, service, framing, self.headers.get("content-encoding", "")))
        cgi = {
            **ALONE,
            "GIT_PROJECT_ROOT": str(served),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
            "REMOTE_USER": "agent",
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=cgi, capture_output=True)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode().split("\r\n") if line]
        status = next((int(value.split()[0]) for name, value in fields if name == "Status"), 200)
        self.send_response(status)
        for name, value in fields:
            if name not in ("Status", "Content-Length"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


def git(*words, where=folder, env=ALONE):
    done = subprocess.run(["git", *words], cwd=where, env=env, capture_output=True, text=True, timeout=100)
    if done.returncode != 0:
        raise SystemExit(f"git {words}: {done.stderr}")
    return done.stdout.strip()


def commit(where, name, data):
    (where / name).write_bytes(data)
    git("add", ".", where=where)
    git("commit", "-qm", name, where=where)


def went(way, options, env):
    """Everything, by one way."""
    seen.clear()
    bare, work, clone = served / f"{way}.git", folder / f"{way}-work", folder / f"{way}-clone"
    git("init", "-q", "-b", "main", str(work))
    commit(work, "first", random.Random(1).randbytes(3 * MIB))
    # So many that a clone asks for them compressed.
    for number in range(40):
        git("commit", "-q", "--allow-empty", "-m", f"empty {number}", where=work)
        git("branch", f"branch-{number}", where=work)
    git("clone", "-q", "--bare", str(work), str(bare))
    git("config", "http.receivepack", "true", where=bare)
    url = f"{origin}/{way}.git"
    git(*options, "clone", "-q", url, str(clone), env=env)
    result = {"clone": git("rev-parse", "HEAD", where=clone)}
    commit(work, "second", b"second")
    git("push", "-q", str(bare), "main", where=work)
    git(*options, "fetch", "-q", where=clone, env=env)
    result["fetch"] = git("rev-parse", "origin/main", where=clone)
    git("checkout", "-q", "-b", "mine", where=clone)
    commit(clone, "large", random.Random(2).randbytes(5 * MIB))
    git(*options, "-c", "http.postBuffer=65536", "push", "-q", "origin", "mine", where=clone, env=env)
    result["push"] = git("rev-parse", "mine", where=bare)
    git("fsck", "--strict", where=bare)
    result["head"] = git("rev-parse", "HEAD", where=clone)
    kinds = {(method, service, framing, encoding) for method, service, framing, encoding in seen if method == "POST"}
    print(json.dumps({"way": way, **result, "framed": sorted(" ".join(kind).strip() for kind in kinds)}), flush=True)
    for path in (bare, work, clone):
        shutil.rmtree(path)


served.mkdir(parents=True)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Backend)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
threading.Thread(target=server.serve_forever, daemon=True).start()

here = ["-c", f"http.curloptResolve=secure.test:{port}:127.0.0.1"]
went("direct", here, {**ALONE, "GIT_SSL_CAINFO": authorities})
proxied = {**ALONE, **{name: os.environ[name] for name in ("https_proxy", "GIT_SSL_CAINFO")}}
went("http1", ["-c", "http.version=HTTP/1.1"], proxied)
went("http2", ["-c", "http.version=HTTP/2"], proxied)
