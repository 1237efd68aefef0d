// What agents written for Redis do, with ioredis and node-redis.
//
//     redis.mjs ioredis|node-redis
//
// Policy blocks what names "forbidden". Says what it has seen, or fails.

import assert from "node:assert/strict";

const port = Number(process.env.REDIS_PORT);
const refusal = /^(ReplyError: )?NOPERM blocked by policy: the test says block/;

const ioredis = async () => {
  const { Redis } = await import("ioredis");
  const redis = new Redis({ port, connectionName: "agent" });
  assert.equal(await redis.set("k", "v"), "OK");
  assert.equal(await redis.get("k"), "v");
  await assert.rejects(redis.set("forbidden", "1"), { message: refusal });
  const results = await redis.pipeline().set("p", "1").get("forbidden").incr("p").exec();
  assert.match(results[1][0].message, refusal);
  assert.deepEqual([results[0], results[2]], [[null, "OK"], [null, 2]]);
  await assert.rejects(redis.multi().set("q", "1").set("forbidden", "1").exec(), /EXECABORT/);
  assert.deepEqual(await redis.multi().set("q", "1").incr("q").exec(), [[null, "OK"], [null, 2]]);
  redis.defineCommand("echoed", { numberOfKeys: 1, lua: "return redis.call('GET', KEYS[1])" });
  assert.equal(await redis.echoed("k"), "v");
  assert.equal(await redis.echoed("k"), "v");
  const messages = redis.duplicate();
  assert.equal(await messages.subscribe("news", "more"), 2);
  const said = new Promise((done) => messages.once("message", (_, text) => done(text)));
  await redis.publish("news", "hello");
  assert.equal(await said, "hello");
  await messages.unsubscribe();
  assert.equal(await messages.get("k"), "v");
  const big = "x".repeat(1 << 20);
  await redis.set("big", big);
  assert.equal(await redis.get("big"), big);
  await messages.quit();
  await redis.quit();
};

const nodeRedis = async () => {
  const { createClient } = await import("redis");
  const redis = await createClient({ url: `redis://127.0.0.1:${port}`, RESP: 3, name: "agent" }).connect();
  assert.equal(await redis.set("k", "v"), "OK");
  assert.equal(await redis.get("k"), "v");
  await assert.rejects(redis.set("forbidden", "1"), { message: refusal });
  const all = await Promise.allSettled([redis.set("p", "1"), redis.get("forbidden"), redis.incr("p")]);
  assert.deepEqual(all.map((one) => one.status), ["fulfilled", "rejected", "fulfilled"]);
  assert.equal(all[2].value, 2);
  assert.deepEqual(await redis.multi().set("q", "1").incr("q").exec(), ["OK", 2]);
  await assert.rejects(redis.multi().set("r", "1").set("forbidden", "1").exec());
  assert.equal(await redis.exists("r"), 0);
  assert.equal(await redis.eval("return redis.call('GET', KEYS[1])", { keys: ["k"] }), "v");
  const messages = await redis.duplicate().connect();
  const said = new Promise((done) => messages.subscribe("news", done));
  while ((await redis.publish("news", "hello")) === 0);
  assert.equal(await said, "hello");
  await messages.unsubscribe();
  assert.equal(await messages.get("k"), "v");
  await messages.close();
  await redis.close();
};

const what = process.argv[2];
await { ioredis, "node-redis": nodeRedis }[what]();
console.log(what, "saw all");
