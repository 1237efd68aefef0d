// What agents written for a cluster, or for Sentinel, do, with ioredis and node-redis.
//
//     redis_topology.mjs ioredis-cluster|node-redis-cluster|ioredis-sentinel
//
// Policy blocks what names "forbidden". Says what it has seen, or fails.

import assert from "node:assert/strict";

const refusal = /NOPERM blocked by policy: the test says block/;
const forbidden = ["forbidden1", "forbidden2", "forbidden3", "forbidden4"];

const used = async (redis) => {
  for (let key = 0; key < 60; key++) {
    assert.equal(await redis.set(`k${key}`, String(key)), "OK");
    assert.equal(await redis.get(`k${key}`), String(key));
  }
  for (const key of forbidden) await assert.rejects(redis.set(key, "1"), refusal);
};

const ioredisCluster = async () => {
  const { Cluster } = await import("ioredis");
  const redis = new Cluster([{ host: "127.0.0.1", port: Number(process.env.REDIS_PORT) }]);
  await used(redis);
  assert.equal(redis.nodes("master").length, 3);
  await redis.quit();
};

const nodeRedisCluster = async () => {
  const { createCluster } = await import("redis");
  const rootNodes = [{ url: `redis://127.0.0.1:${process.env.REDIS_PORT}` }];
  const redis = await createCluster({ rootNodes }).connect();
  await used(redis);
  assert.equal(redis.masters.length, 3);
  await redis.close();
};

const ioredisSentinel = async () => {
  const { Redis } = await import("ioredis");
  const sentinels = [{ host: "127.0.0.1", port: Number(process.env.SENTINEL_PORT) }];
  const redis = new Redis({ sentinels, name: "mymaster" });
  await used(redis);
  await redis.quit();
};

const what = process.argv[2];
await {
  "ioredis-cluster": ioredisCluster,
  "node-redis-cluster": nodeRedisCluster,
  "ioredis-sentinel": ioredisSentinel,
}[what]();
console.log(what, "saw all");
