"""What agents written for Redis do, with redis-py, through the sidecar.

    redis.py sync2|sync3|hiredis2|hiredis3|asyncio|cache

Policy blocks what names "forbidden". Says what it has seen, or fails.
"""

import asyncio
import os
import sys
import time

# Not this file.
sys.path.pop(0)

import redis
import redis._parsers
import redis.asyncio

PORT = int(os.environ["REDIS_PORT"])
# By itself it gives up after 5 s and repeats what it asked: a test shares its machine.
PATIENCE = {"socket_timeout": 60, "socket_connect_timeout": 60}


def refused(call):
    try:
        call()
    except redis.exceptions.NoPermissionError as error:
        assert "the test says block" in str(error), error
    else:
        raise AssertionError("it was not refused")


def sync(protocol, parser):
    pool = redis.ConnectionPool(
        port=PORT, protocol=protocol, client_name="agent", decode_responses=True, parser_class=parser, **PATIENCE
    )
    r = redis.Redis(connection_pool=pool)
    assert r.set("k", "v") is True and r.get("k") == "v"
    refused(lambda: r.set("forbidden", "v"))
    r.hset("h", mapping={"a": "1", "b": "2"})
    assert r.hgetall("h") == {"a": "1", "b": "2"}
    # A pipeline without a transaction: neighbours of what is refused happen.
    pipe = r.pipeline(transaction=False)
    results = pipe.set("p", "1").get("forbidden").incr("p").execute(raise_on_error=False)
    assert results[0] is True and results[2] == 2, results
    assert isinstance(results[1], redis.exceptions.NoPermissionError), results
    # A transaction: nothing of it happens.
    refused(lambda: r.pipeline(transaction=True).set("q", "1").set("forbidden", "1").execute())
    assert r.exists("q") == 0
    assert r.pipeline(transaction=True).set("q", "1").incr("q").execute() == [True, 2]
    with r.pipeline() as pipe:
        pipe.watch("q")
        r.set("q", "5")
        pipe.multi()
        pipe.incr("q")
        try:
            pipe.execute()
        except redis.exceptions.WatchError:
            pass
        else:
            raise AssertionError("a watched key has changed")
    script = r.register_script("return redis.call('GET', KEYS[1])")
    assert script(keys=["k"]) == "v" and script(keys=["k"]) == "v"
    big = "x" * (1 << 20)
    r.set("big", big)
    assert r.get("big") == big
    messages = r.pubsub()
    messages.subscribe("news", "more")
    messages.psubscribe("n*")
    seen = [messages.get_message(timeout=60)["type"] for _ in range(3)]
    assert seen == ["subscribe", "subscribe", "psubscribe"], seen
    r.publish("news", "hello")
    seen = sorted(messages.get_message(timeout=60)["type"] for _ in range(2))
    assert seen == ["message", "pmessage"], seen
    messages.unsubscribe()
    messages.close()
    r.xadd("stream", {"a": "1"})
    assert len(r.xread({"stream": "0"}, block=10)) == 1
    assert list(r.scan_iter("k*")) == ["k"]
    assert r.blpop(["none"], timeout=0.1) is None
    r.select(2)
    assert r.get("k") is None
    r.close()


async def on_asyncio():
    r = redis.asyncio.Redis(port=PORT, protocol=3, decode_responses=True, **PATIENCE)
    assert await asyncio.gather(*(r.incr("n") for _ in range(100)))
    assert await r.get("n") == "100"
    try:
        await r.set("forbidden", "1")
    except redis.exceptions.NoPermissionError:
        pass
    else:
        raise AssertionError("it was not refused")
    async with r.pipeline(transaction=True) as pipe:
        assert await pipe.set("a", "1").incr("a").execute() == [True, 2]
    async with r.pubsub() as messages:
        await messages.subscribe("news")
        await messages.get_message(timeout=60)
        await r.publish("news", "hello")
        message = await messages.get_message(timeout=60)
        assert message["data"] == "hello", message
    await r.aclose()


def cached():
    """Answers that the client keeps until the server says that they changed."""
    from redis.cache import CacheConfig

    r = redis.Redis(port=PORT, protocol=3, decode_responses=True, cache_config=CacheConfig(), **PATIENCE)
    other = redis.Redis(port=PORT, decode_responses=True, **PATIENCE)
    other.set("k", "1")
    assert r.get("k") == "1"
    kept = r.get_cache()
    assert kept.size == 1, kept.size
    asked = other.info("commandstats")["cmdstat_get"]["calls"]
    assert r.get("k") == "1"
    assert other.info("commandstats")["cmdstat_get"]["calls"] == asked, "it was asked again"
    other.set("k", "2")
    # What comes unasked is read before the next answer is taken from the cache.
    deadline = time.monotonic() + 20
    while r.get("k") != "2":
        assert time.monotonic() < deadline, "it was not told"
    refused(lambda: r.get("forbidden"))
    r.close()


what = sys.argv[1]
PARSERS = {
    "sync2": redis._parsers._RESP2Parser,
    "sync3": redis._parsers._RESP3Parser,
    "hiredis2": redis._parsers._HiredisParser,
    "hiredis3": redis._parsers._HiredisParser,
}
if what == "asyncio":
    asyncio.run(on_asyncio())
elif what == "cache":
    cached()
else:
    sync(int(what[-1]), PARSERS[what])
print(what, "saw all")
