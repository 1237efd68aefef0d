// What agents written for Node do, with its own fetch.
//
//     node.mjs PLAIN_URL SECURE_URL
//
// From Node 24 on, fetch takes the proxy from the environment. Before that it
// knows no proxy, and an agent must give it one: here by a connector that opens
// a tunnel with CONNECT. Authorities come from NODE_EXTRA_CA_CERTS.

import { createHash } from "node:crypto";

import { through } from "./dispatcher.mjs";

const MIB = 1 << 20;
const sites = process.argv.slice(2);

const knowsProxies = Number(process.versions.node.split(".")[0]) >= 24;
const dispatcher = knowsProxies ? undefined : await through(new URL(process.env.HTTP_PROXY));

const send = (url, options = {}) =>
  fetch(url, { dispatcher, signal: AbortSignal.timeout(20_000), ...options });

const pattern = (count) => Buffer.from(Uint8Array.from({ length: count }, (_, i) => (i * 31 + 7) % 251));
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

function equal(what, found, expected) {
  if (JSON.stringify(found) !== JSON.stringify(expected)) {
    console.error(`${what}: found ${JSON.stringify(found)}, expected ${JSON.stringify(expected)}`);
    process.exit(1);
  }
}

async function check(site) {
  let answer = await send(`${site}/hello`);
  equal("GET", [answer.status, await answer.text()], [200, "hello from /hello"]);

  const json = { "content-type": "application/json" };
  answer = await send(`${site}/echo`, { method: "POST", headers: json, body: '{"a": 1}' });
  const posted = await answer.json();
  equal("POST", [answer.status, posted.method, posted.text], [200, "POST", '{"a": 1}']);

  for (const [stage, code] of [["started", "blocked"], ["completed", "outcome_blocked"]]) {
    answer = await send(`${site}/${stage}/block`);
    equal(`${stage} block`, answer.status, 403);
    equal("kind", answer.headers.get("content-type"), "application/problem+json");
    equal("verdict", answer.headers.get("openbox-verdict"), "block");
    const problem = await answer.json();
    equal("problem", [problem.code, problem.reason], [code, "the test says block"]);
  }

  const large = pattern(5 * MIB);
  answer = await send(`${site}/bytes/${5 * MIB}`);
  equal("download", sha256(Buffer.from(await answer.arrayBuffer())), sha256(large));
  const binary = { "content-type": "application/octet-stream" };
  const stream = () =>
    new ReadableStream({
      start(to) {
        for (let at = 0; at < large.length; at += 65_536) to.enqueue(large.subarray(at, at + 65_536));
        to.close();
      },
    });
  for (const [framing, body] of [["whole", large], ["chunked", stream()]]) {
    answer = await send(`${site}/echo`, { method: "POST", headers: binary, body, duplex: "half" });
    const echoed = await answer.json();
    equal(`upload ${framing}`, echoed.sha256, sha256(large));
    const coding = Object.fromEntries(echoed.fields)["transfer-encoding"] ?? "none";
    equal(`framing, ${framing}`, coding, framing === "whole" ? "none" : "chunked");
  }

  answer = await send(`${site}/chunked`);
  equal("chunked answer", await answer.text(), "firstsecond");
  for (const status of [204, 304]) {
    answer = await send(`${site}/status/${status}`);
    equal("no body", [answer.status, await answer.text()], [status, ""]);
  }
  answer = await send(`${site}/bytes/1000`, { method: "HEAD" });
  equal("HEAD", [answer.status, answer.headers.get("content-length")], [200, "1000"]);
  await events(site);
}

// The origin sends its second event once the first was acknowledged.
async function events(site) {
  const answer = await send(`${site}/events/node`);
  const seen = [];
  for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
    for (const line of piece.split("\n").filter((line) => line.startsWith("data: "))) {
      seen.push(line);
      if (seen.length === 1) await (await send(`${site}/ack/node`)).text();
    }
  }
  equal("events", seen, ["data: first", "data: second"]);
}

for (const site of sites) await check(site);
console.log(`all checks passed: fetch, Node ${process.version}`);
await dispatcher?.close();
