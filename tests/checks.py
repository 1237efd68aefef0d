"""What the scripts that check something share: checks that are counted, and commands that must not fail."""

import fcntl
import os
import pathlib
import random
import socket
import subprocess
import sys
import tempfile


class Checks:
    def __init__(self):
        self.failed = 0
        self.passed = 0

    def that(self, what, holds, shown=""):
        if holds:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED: {what}\n{shown}")


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if options.get("check") is None and done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done


# Files whose locks are held as long as this process is there.
reserved = []


def free_port():
    """A port for a program that must be told one: nobody else's of the tests as long as this process is there, and below those
    that the system gives to whoever asks for any. As `free_port` of tests/support does, with the same files."""
    folder = pathlib.Path(tempfile.gettempdir()) / f"openbox-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    while True:
        port = random.randrange(20_000, 32_000)
        file = open(folder / str(port), "w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            file.close()
            continue
        reserved.append(file)
        return port
