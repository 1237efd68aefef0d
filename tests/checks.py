"""What the scripts that check something share: checks that are counted, and commands that must not fail."""

import subprocess
import sys


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
