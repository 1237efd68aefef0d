"""Real databases in the world of `redirect.py`, each at its own port of the same addresses, and clients of the pod."""

import os
import pathlib
import subprocess
import sys
import time

from checks import run

HERE = {4: "10.15.90.5", 6: "fd15:90::5"}
NAME = "orders-db.test"
PORTS = {"postgres": 5432, "mysql": 3306, "redis": 6379}
STARTS_WITHIN = 60


def postgres_bin():
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        sys.exit("there is no PostgreSQL: scripts/needs.sh was not run")
    return found[-1].parent


class Databases:
    """One server of each, started by `within`, a command that goes to where they are."""

    def __init__(self, within, folder):
        self.within = list(within)
        self.folder = folder
        self.servers = []
        try:
            self.postgres()
            self.mysql()
            self.start("redis", ["redis-server", "--bind", *HERE.values(), "--protected-mode", "no", "--save", "", "--dir", folder])
            self.until("redis", ["redis-cli", "-h", HERE[4], "PING"])
        except BaseException:
            self.end()
            raise

    def start(self, name, command):
        log = open(self.folder / f"{name}.log", "w")
        self.servers.append(subprocess.Popen([*self.within, *map(str, command)], stdout=log, stderr=log, cwd="/"))

    def until(self, name, command):
        end = time.monotonic() + STARTS_WITHIN
        while run(*self.within, *command, check=False).returncode != 0:
            if time.monotonic() > end:
                sys.exit(f"{name} does not answer:\n{(self.folder / f'{name}.log').read_text()}")
            time.sleep(0.1)

    def postgres(self):
        # It does not run as root.
        data = self.folder / "postgres"
        data.mkdir()
        run("chown", "postgres", data)
        as_its_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        run(*as_its_user, postgres_bin() / "initdb", "--no-sync", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", f"--pgdata={data}", cwd="/")
        with open(data / "pg_hba.conf", "a") as hba:
            hba.write("host all all all trust\n")
        command = [postgres_bin() / "postgres", "-D", data, "-k", data, "-h", ",".join(HERE.values()), "-c", "fsync=off"]
        self.start("postgres", [*as_its_user, *command])
        self.until("postgres", ["psql", f"host={HERE[4]} user=postgres", "-c", "CREATE TABLE forbidden ()"])

    def mysql(self):
        data = self.folder / "mysql"
        run("mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--user=root", f"--datadir={data}")
        self.start("mysql", ["mariadbd", "--no-defaults", "--user=root", "--skip-name-resolve", "--bind-address=*", f"--datadir={data}", f"--socket={data}/s"])
        admin = ["mariadb", "--no-defaults", "-uroot", f"-S{data}/s", "-e"]
        self.until("mysql", [*admin, "CREATE USER bob@'%'; CREATE DATABASE shop; GRANT ALL ON *.* TO bob@'%'; CREATE TABLE shop.forbidden (id int)"])

    def end(self):
        for server in self.servers:
            server.kill()
            server.wait()


def client(protocol, host, statement, tls=""):
    """A command that has `statement` done by the server at `host`; `tls` is what its client is told of TLS."""
    match protocol:
        case "postgres":
            return ["psql", f"host={host} user=postgres dbname=postgres connect_timeout=20 {tls or 'sslmode=disable'}", "-Atc", statement]
        case "mysql":
            return ["mariadb", "--no-defaults", f"-h{host}", "-ubob", "-N", "-B", "--connect-timeout=20", *(tls or "--skip-ssl").split(), "-e", statement]
        case "redis":
            return ["redis-cli", "-h", host, *statement.split()]


# What is allowed and what it answers, and what is refused.
STATEMENTS = {
    "postgres": ("SELECT 6 * 7", "42", "SELECT * FROM forbidden"),
    "mysql": ("SELECT 6 * 7", "42", "SELECT * FROM shop.forbidden"),
    "redis": ("ECHO 42", "42", "GET forbidden"),
}


def said(command):
    done = run("timeout", "30", *command, check=False, env={"PATH": os.environ["PATH"]})
    return (done.stdout + done.stderr).strip()
