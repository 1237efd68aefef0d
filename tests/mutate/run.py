#!/usr/bin/env python3
"""Breaks the sidecar on purpose, one way at a time, and says which test noticed.

Not run by `make test`. Works on a copy, with a target folder of its own: cargo tells a copy from
the original by nothing but the age of files.
    python3 tests/mutate/run.py LIST [words of the mutants to run]
LIST is one of the files beside this one: core, gate, mysql, postgres, proxy, redis, sql.
Exit code 1 if a mutant survives, does not compile, or no longer applies.

OPENBOX_MUTATE_THROUGH: a command that commands are run through, such as `nice -n 15`.
"""

import importlib
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = os.path.join(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"), "mutate")
LISTS = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "run")
THROUGH = shlex.split(os.environ.get("OPENBOX_MUTATE_THROUGH", ""))
ENDS_WITHIN_S = 240
NEVER_ENDED = 124  # what timeout(1) says


def called(folder, argv):
    env = dict(os.environ, CARGO_TARGET_DIR=TARGET, RUST_BACKTRACE="0", CARGO_MANIFEST_DIR=str(folder))
    env.setdefault("OPENBOX_TEST_PYTHON", str(ROOT / ".venv/bin/python"))
    return subprocess.run([*THROUGH, *argv], cwd=folder, env=env, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(folder, tests):
    """What the tests say: 'survived', 'does not compile: …' or 'caught by …'."""
    for which in tests:
        cut = which.index("--")
        command = ["cargo", "test", "--features", "testing", "--no-run", "--message-format=json"]
        built = called(folder, [*command, *which[:cut]])
        if built.returncode != 0:
            errors = [json.loads(line)["message"]["message"] for line in built.stdout.splitlines()
                      if line.startswith("{") and '"compiler-message"' in line and '"level":"error"' in line]
            return "DOES NOT COMPILE: " + " ".join((errors or [built.stderr[-300:]])[:1])
        programs = [json.loads(line)["executable"] for line in built.stdout.splitlines()
                    if line.startswith("{") and '"executable":"' in line and '"test":true' in line]
        for program in programs:
            done = called(folder, ["timeout", str(ENDS_WITHIN_S), program, *which[cut + 1:]])
            if done.returncode == NEVER_ENDED:
                return "caught by never ending"
            failed = sorted(line.split()[1].split("::")[-1] for line in done.stdout.splitlines()
                            if line.startswith("test ") and line.endswith("FAILED"))
            if failed:
                return f"caught by {len(failed)}: {failed[0]}"
            if done.returncode != 0:
                return "caught by a crash"
    return "SURVIVED"


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in LISTS:
        sys.exit("which list? one of: " + ", ".join(LISTS))
    listed, words = importlib.import_module(sys.argv[1]), sys.argv[2:]
    bad = 0
    with tempfile.TemporaryDirectory(prefix="openbox-mutate-") as folder:
        copy = pathlib.Path(folder) / "copy"
        ignored = shutil.ignore_patterns("target", ".git", ".venv*", ".tools", "node_modules", "__pycache__")
        # Newer than anything compiled before.
        shutil.copytree(ROOT, copy, ignore=ignored, copy_function=shutil.copyfile)
        for installed in (".tools", "tests/clients/node_modules"):
            (copy / installed).symlink_to(ROOT / installed)
        before = run(copy, listed.TESTS)
        if before != "SURVIVED":
            sys.exit(f"the tests fail as they are: {before}")
        for name, path, old, new in listed.MUTANTS:
            if words and not any(word in name for word in words):
                continue
            file = copy / path
            text = file.read_text()
            if text.count(old) != 1:
                found = f"NO LONGER APPLIES: found {text.count(old)} times"
            else:
                file.write_text(text.replace(old, new))
                found = run(copy, listed.TESTS)
                file.write_text(text)
            bad += not found.startswith("caught")
            print(f"{name:60} {found}", flush=True)
    print(f"{bad} to look at" if bad else "all caught")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
