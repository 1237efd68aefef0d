// An origin of HTTP/2 that does what its paths say, and writes down each request
// as a line of JSON.
//
//     http2_origin.mjs plain | CERTIFICATE KEY [both]
//
// Its first line is its port.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import http2 from "node:http2";

const [certificate, key, both] = process.argv.slice(2);
const say = (what) => console.log(JSON.stringify(what));
const { NGHTTP2_HTTP_1_1_REQUIRED, NGHTTP2_REFUSED_STREAM } = http2.constants;
const seen = new Map();
// Breaks off what waits for it.
let onceTold = () => {};

const text = { ":status": 200, "content-type": "text/plain" };

async function whole(stream) {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces);
}

const paths = {
  "/echo": async (stream, headers) => {
    const trailers = new Promise((done) => {
      stream.on("trailers", done);
      stream.on("end", () => setImmediate(() => done({})));
    });
    const body = await whole(stream);
    stream.respond({ ":status": 200, "content-type": "application/json" });
    stream.end(JSON.stringify({ headers, text: body.toString("latin1").slice(0, 100), sha256: createHash("sha256").update(body).digest("hex"), trailers: await trailers }));
  },
  "/trailers": (stream) => {
    stream.respond({ ...text, "content-type": "application/octet-stream" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": "7" }));
    stream.end("body");
  },
  "/own-trailers": (stream) => {
    stream.respond(text, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": "8", "openbox-verdict": "allow", "x-openbox-a": "b" }));
    stream.end("body");
  },
  "/own-trailers/streamed": (stream) => {
    stream.respond({ ...text, "content-type": "application/octet-stream" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": "8", "openbox-verdict": "allow", "x-openbox-a": "b" }));
    stream.end("body");
  },
  "/blocking-trailers": (stream) => {
    stream.respond(text, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-verdict": "block" }));
    stream.end("body");
  },
  "/text-trailers": (stream) => {
    stream.respond(text, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": "8" }));
    stream.end("body");
  },
  "/large": (stream) => {
    stream.respond({ ":status": 200, "content-type": "application/octet-stream" });
    stream.end(Buffer.alloc(8 << 20, 7));
  },
  "/reset": (stream) => {
    stream.respond({ ":status": 200, "content-type": "application/octet-stream" });
    stream.write("begin");
    onceTold = () => stream.destroy(new Error("on purpose"));
  },
  "/lost": (stream) => {
    stream.respond({ ":status": 200, "content-type": "application/octet-stream" });
    stream.write("begin");
    onceTold = () => stream.session.destroy();
  },
  // Its client has what was sent: now the last of them breaks off.
  "/now": (stream) => {
    stream.respond(text);
    stream.end("now", onceTold);
  },
  "/refused": (stream, _, times) => {
    if (times === 1) return stream.close(NGHTTP2_REFUSED_STREAM);
    stream.respond(text);
    stream.end(`served at time ${times}`);
  },
  "/over-http1": (stream) => stream.close(NGHTTP2_HTTP_1_1_REQUIRED),
  "/last": (stream) => {
    stream.respond(text);
    stream.end("the last of its connection", () => stream.session.close());
  },
  "/never/upload": (stream) => stream.resume(),
  "/never": (stream) => stream.on("close", () => say({ path: "/never", ended: stream.rstCode })),
  "/slowly": (stream) => {
    stream.respond({ ":status": 200, "content-type": "text/event-stream" });
    stream.write("data: first\n\n");
    setTimeout(() => stream.end("data: last\n\n"), 2_000);
  },
  "/drip": (stream) => {
    stream.respond({ ":status": 200, "content-type": "text/event-stream" });
    const tick = setInterval(() => stream.write("data: tick\n\n"), 50);
    stream.on("close", () => {
      clearInterval(tick);
      say({ path: "/drip", ended: stream.rstCode });
    });
  },
};

async function serve(stream, headers) {
  const path = headers[":path"].split("?")[0];
  const times = (seen.get(path) ?? 0) + 1;
  seen.set(path, times);
  say({ path, authority: headers[":authority"], method: headers[":method"], session: stream.session.number, authorization: headers.authorization });
  stream.on("error", () => {});
  const known = paths[path];
  if (known) return known(stream, headers, times);
  stream.respond({ ...text, "x-version": "2" });
  stream.end(`hello from ${path}`);
}

const settings = { maxConcurrentStreams: 50 };
const server =
  certificate === "plain"
    ? http2.createServer({ settings })
    : http2.createSecureServer({ settings, allowHTTP1: both === "both", cert: readFileSync(certificate), key: readFileSync(key) });
if (both) {
  server.on("request", async (request, response) => {
    // Requests of HTTP/2 are those of "stream".
    if (request.httpVersion !== "1.1") return;
    say({ path: request.url, method: request.method, version: request.httpVersion, host: request.headers.host });
    const body = await whole(request);
    response.end(`over ${request.httpVersion}: ${body.length}`);
  });
}
let sessions = 0;
server.on("session", (session) => (session.number = ++sessions));
server.on("stream", (stream, headers) => serve(stream, headers).catch?.(() => {}) ?? 0);
server.on("sessionError", () => {});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
