#!/usr/bin/env python3
"""Prints what servers of Redis say of their commands, as src/protocols/redis/commands.txt has it.

    redis-commands.py PORT...

Each port is a server in clear on this machine: a Redis, a Valkey, a Sentinel.
Where several know a command, the last says where its keys are.
"""

import sys

import redis


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def as_map(values):
    if isinstance(values, dict):
        return {text(key): value for key, value in values.items()}
    return {text(key): value for key, value in zip(values[::2], values[1::2])}


def key(spec, only_reads):
    spec = as_map(spec)
    flags = {text(flag) for flag in spec["flags"]}
    # Modules say nothing of their keys.
    access = "R" if only_reads or "RO" in flags else "W"
    if "not_key" in flags:
        access = "N"
    begin, find = as_map(spec["begin_search"]), as_map(spec["find_keys"])
    kind, of = text(begin["type"]), as_map(begin["spec"])
    if kind == "index":
        at = f"i{of['index']}"
    elif kind == "keyword":
        at = f"k{text(of['keyword'])}@{of['startfrom']}"
    else:
        at = "?"
    kind, of = text(find["type"]), as_map(find["spec"])
    if kind == "range":
        where = f"r{of['lastkey']},{of['keystep']},{of['limit']}"
    elif kind == "keynum":
        where = f"n{of['keynumidx']},{of['firstkey']},{of['keystep']}"
    else:
        where = "?"
    return f"{access}:{at}:{where}" + ("!" if "incomplete" in flags else "")


def rows(commands, found):
    for command in commands:
        flags = [text(flag) for flag in command[2]]
        categories = {text(one).lstrip("@") for one in command[6]}
        told = [
            flag
            for flag in ("write", "readonly", "admin", "noscript", "no_auth", "blocking", "movablekeys")
            if flag in flags
        ]
        told += [one for one in ("connection", "dangerous") if one in categories]
        keys = [key(spec, "readonly" in flags) for spec in command[8]] or ["-"]
        name = text(command[0]).upper()
        found[name] = f"{name} {command[1]} {','.join(told) or '-'} {' '.join(keys)}"
        rows(command[9], found)


found = {}
for port in sys.argv[1:]:
    raw = redis.connection.Connection(port=int(port), decode_responses=False)
    raw.send_command("COMMAND")
    rows(raw.read_response(), found)
for name in sorted(found):
    print(found[name])
