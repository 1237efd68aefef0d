// Node's fetch for as_direct.py: asks what it is told on its input, and writes down the answers.

import http from "node:http";
import tls from "node:tls";
import { text } from "node:stream/consumers";

const proxy = process.env.ASK_PROXY && new URL(process.env.ASK_PROXY);

// Through a tunnel, as a program must that is no newer than Node 23.
const connect = ({ hostname, port, protocol, servername }, done) => {
  const target = `${hostname}:${port || (protocol === "https:" ? 443 : 80)}`;
  const asking = http.request({ host: proxy.hostname, port: proxy.port, method: "CONNECT", path: target, headers: { host: target } });
  asking.on("error", (error) => done(error, null));
  asking.on("connect", (answer, socket) => {
    if (answer.statusCode !== 200) return done(new Error(`CONNECT: ${answer.statusCode}`), null);
    if (protocol !== "https:") return done(null, socket);
    const secure = tls.connect({ socket, servername: servername || hostname, ALPNProtocols: ["http/1.1"] });
    secure.once("error", (error) => done(error, null));
    secure.once("secureConnect", () => done(null, secure));
  });
  asking.end();
};

let dispatcher;
if (proxy) {
  await fetch("data:,"); // fetch is loaded when it is first used
  const Agent = globalThis[Symbol.for("undici.globalDispatcher.1")].constructor;
  dispatcher = new Agent({ connect });
}

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
