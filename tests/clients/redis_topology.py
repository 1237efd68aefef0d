"""What agents written for a cluster, or for Sentinel, do, with redis-py, through the sidecar.

    redis_topology.py cluster|sentinel

Policy blocks what names "forbidden". Says what it has seen, or fails.
"""

import os
import sys

# Not this file's folder, which has a redis.py.
sys.path.pop(0)

import redis
from redis.cluster import RedisCluster
from redis.sentinel import Sentinel

# By itself it gives up after 5 s and repeats what it asked: a test shares its machine.
PATIENCE = {"socket_timeout": 60, "socket_connect_timeout": 60}


def cluster():
    r = RedisCluster(host="127.0.0.1", port=int(os.environ["REDIS_PORT"]), decode_responses=True, **PATIENCE)
    for key in range(60):
        assert r.set(f"k{key}", key) and r.get(f"k{key}") == str(key)
    assert len(r.get_primaries()) == 3
    for key in ("forbidden1", "forbidden2", "forbidden3", "forbidden4"):
        try:
            r.set(key, 1)
        except redis.exceptions.NoPermissionError as error:
            assert "the test says block" in str(error), error
        else:
            raise AssertionError(f"{key} was not refused")
    with r.pipeline() as pipe:
        assert pipe.get("k1").get("k2").get("k3").execute() == ["1", "2", "3"]
    r.close()


def sentinel():
    s = Sentinel([("127.0.0.1", int(os.environ["SENTINEL_PORT"]))], decode_responses=True, **PATIENCE)
    r = s.master_for("mymaster")
    assert r.set("k", "v") and r.get("k") == "v"
    try:
        r.set("forbidden", 1)
    except redis.exceptions.NoPermissionError:
        pass
    else:
        raise AssertionError("it was not refused")
    r.close()


what = sys.argv[1]
{"cluster": cluster, "sentinel": sentinel}[what]()
print(what, "saw all")
