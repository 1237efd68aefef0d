// Node's fetch for as_direct.py: asks what it is told on its input, and writes down the answers.

import { text } from "node:stream/consumers";

import { through } from "./dispatcher.mjs";

const proxy = process.env.ASK_PROXY && new URL(process.env.ASK_PROXY);

const dispatcher = proxy ? await through(proxy) : undefined;

const { url, asks } = JSON.parse(await text(process.stdin));
const found = [];
for (const { method, path, fields, body, pieces, stay } of asks) {
  const stream = pieces && new ReadableStream({
    start(controller) {
      controller.enqueue(Uint8Array.from(pieces));
      controller.close();
    },
  });
  const answer = await fetch(url + path, {
    method,
    headers: fields,
    // Node 20 sends no other kind of bytes again where it is redirected.
    body: stream ?? (body && new Blob([Uint8Array.from(body)])),
    duplex: stream && "half",
    redirect: stay ? "manual" : "follow",
    dispatcher,
    signal: AbortSignal.timeout(30_000),
  });
  found.push({
    status: answer.status,
    fields: [...answer.headers],
    body: [...new Uint8Array(await answer.arrayBuffer())],
    before: answer.redirected ? [answer.url] : [],
  });
}
await new Promise((done) => process.stdout.write(JSON.stringify(found), done));
process.exit(0);
