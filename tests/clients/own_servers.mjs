// What undici is told by an origin of Node's own http, as its tests use, directly and through the sidecar. It waits for no
// 100 (Continue), so where one is expected, Node's own client asks.
//
//     own_servers.mjs serve [CERTIFICATE KEY]      says its port
//     own_servers.mjs compare PROXY SIDECAR_CA CA PLAIN_PORT SECURE_PORT
//
// Compared are status, fields, informational answers, trailers and body, or the code of the error. What is meant to differ is
// named in its row, with what is told instead.

import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import net from "node:net";
import tls from "node:tls";
import { gzipSync } from "node:zlib";

import { Pool, ProxyAgent } from "undici";

// --- The origin ---

async function whole(stream) {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces);
}

const paths = {
  "/echo": async (request, response) => {
    const body = await whole(request);
    const { method, url, rawTrailers } = request;
    // The case of their names is what was sent; the order of those of different names says nothing.
    const fields = pairs(request.rawHeaders, (name) => name).filter(([name]) => !["host", "content-length", "expect"].includes(name.toLowerCase()));
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ method, url, fields, rawTrailers, text: body.toString("latin1").slice(0, 100), bytes: body.length }));
  },
  "/trailers": (_, response) => {
    response.writeHead(200, { Trailer: "x-sum, x-other", "content-type": "application/octet-stream" });
    response.write("body");
    response.addTrailers({ "X-Sum": "7", "x-other": "a, b" });
    response.end();
  },
  "/text-trailers": (_, response) => {
    response.writeHead(200, { Trailer: "x-sum", "content-type": "text/plain" });
    response.addTrailers({ "x-sum": "8" });
    response.end("judged whole");
  },
  "/informed": (_, response) => {
    response.writeProcessing();
    response.writeEarlyHints({ link: ["</a.css>; rel=preload", "</b.js>; rel=preload"], "x-trace": "1" });
    response.end("informed");
  },
  "/hinted-late": (_, response) => {
    response.writeEarlyHints({ link: "</a.css>; rel=preload" });
    setTimeout(() => response.end("late"), 50);
  },
  "/raw-fields": (_, response) => {
    response.writeHead(201, "Made So", ["X-Mixed-Case", "A", "x-twice", "1", "x-twice", "2", "Set-Cookie", "a=1", "set-cookie", "b=2", "x-empty", "", "x-latin", "\xe9"]);
    response.end("fields");
  },
  "/chunks": async (_, response) => {
    for (const piece of ["one", "two", "x".repeat(70_000)]) {
      response.write(piece);
      await new Promise(setImmediate);
    }
    response.end();
  },
  "/large": (_, response) => response.end(Buffer.alloc(3_000_000, 7)),
  "/gzip": (_, response) => {
    response.writeHead(200, { "content-encoding": "gzip", "content-type": "text/plain" });
    response.end(gzipSync("coded".repeat(99)));
  },
  "/none": (_, response) => response.writeHead(204).end(),
  "/unchanged": (_, response) => response.writeHead(304, { etag: '"x"' }).end(),
  "/length-of-head": (_, response) => response.writeHead(200, { "content-length": "12345" }).end(),
  "/early": (_, response) => response.writeHead(413, { connection: "close" }).end("too much"),
  "/close": (_, response) => response.writeHead(200, { connection: "close" }).end("the last"),
  "/old": (request) => request.socket.end("HTTP/1.0 200 OK\r\ncontent-type: application/x\r\n\r\nold"),
  "/mute": (request) => request.socket.destroy(),
  "/garbage": (request) => request.socket.end("garbage\r\n\r\n"),
  "/half": (request, response) => {
    response.writeHead(200, { "content-length": "100000", "content-type": "application/octet-stream" });
    response.write("half", () => request.socket.destroy());
  },
  "/half-chunked": (request, response) => {
    response.writeHead(200, { "content-type": "application/octet-stream" });
    response.write("half", () => request.socket.destroy());
  },
  "/never": () => {},
};

function serve(certificate, key) {
  const options = { keepAliveTimeout: 75_000 };
  const handle = (request, response) => {
    const known = paths[new URL(request.url, "http://x").pathname.replace("/unseen", "")];
    if (known) return known(request, response);
    response.end(`hello from ${request.url}`);
  };
  const server = certificate ? https.createServer({ ...options, cert: readFileSync(certificate), key: readFileSync(key) }, handle) : http.createServer(options, handle);
  server.on("checkContinue", (request, response) => {
    if (request.url.endsWith("/not")) return response.writeHead(417, { connection: "close" }).end("not so");
    response.writeContinue();
    handle(request, response);
  });
  server.listen(0, "127.0.0.1", () => console.log(server.address().port));
}

// --- The client ---

// What is meant to differ, and what is told instead.
// An origin that ends its connection without an answer, or with none that can be read: whoever asked is told so, and by whom.
const BAD_GATEWAY = { status: 502 };
// Fields behind a body go on to who says that it takes them (RFC 9110 section 6.5.1).
const NO_TRAILERS = { trailers: [] };
// What an origin says before its answer ends here: the library has no way to say it.
const NOT_INFORMED = { informed: [] };
// A body that policy sees is asked for by the sidecar, and the origin hears nothing of the expectation.
const ASKED_FOR_HERE = { status: 200, body: "hello from /echo/not" };
const takes = ["te", "trailers"];
const binary = ["content-type", "application/octet-stream"];

const ROWS = [
  ["GET", "/hello?a=b%20c&&d"],
  ["HEAD", "/hello"],
  ["OPTIONS", "/hello"],
  ["DELETE", "/echo", { body: "x" }],
  ["GET", "/echo", { fields: { "X-Mixed-Case": "A", "x-twice": ["1", "2"], accept: "text/*" } }],
  ["GET", "/echo/../%2e/a//b?x=%2F"],
  ["POST", "/echo", { body: "grüße", fields: ["content-type", "text/plain"] }],
  ["POST", "/echo", { body: Buffer.alloc(300_000, 1), fields: binary }],
  ["PUT", "/echo", { pieces: ["one", "two", "x".repeat(70_000)], fields: binary }],
  ["PUT", "/echo", { pieces: [] }],
  ["POST", "/echo", { body: "x".repeat(1_000), expects: true }],
  ["POST", "/echo", { pieces: ["one", "two"], expects: true }],
  ["POST", "/echo/not", { body: "x".repeat(1_000), expects: true, instead: ASKED_FOR_HERE }],
  ["POST", "/unseen/echo", { body: "x".repeat(1_000), expects: true }],
  ["POST", "/unseen/echo/not", { body: "x".repeat(1_000), expects: true }],
  ["GET", "/trailers", { fields: takes }],
  ["GET", "/text-trailers", { fields: takes }],
  ["GET", "/trailers", { instead: NO_TRAILERS }],
  ["GET", "/text-trailers", { instead: NO_TRAILERS }],
  ["GET", "/informed", { instead: NOT_INFORMED }],
  ["GET", "/hinted-late", { instead: NOT_INFORMED }],
  ["GET", "/raw-fields"],
  ["GET", "/chunks"],
  ["HEAD", "/chunks"],
  ["GET", "/large"],
  ["GET", "/gzip"],
  ["GET", "/none"],
  ["GET", "/unchanged"],
  ["HEAD", "/length-of-head"],
  ["POST", "/early", { body: "x" }],
  ["GET", "/close"],
  ["GET", "/old"],
  ["GET", "/hello/after"],
  ["GET", "/mute", { instead: BAD_GATEWAY }],
  ["GET", "/garbage", { instead: BAD_GATEWAY }],
  ["GET", "/half"],
  ["GET", "/half-chunked"],
  ["GET", "/never", { aborted: true }],
  ["GET", "/large", { aborted: true }],
  ["GET", "/hello/last"],
];

// What is of one hop, and of one time.
const DIFFERS = ["connection", "keep-alive", "transfer-encoding", "date", "proxy-connection"];

function pairs(raw, as = (name) => name.toLowerCase()) {
  const found = [];
  for (let at = 0; at < raw.length; at += 2) found.push([as(raw[at].toString("latin1")), raw[at + 1].toString("latin1")]);
  return found.filter(([name]) => !DIFFERS.includes(name.toLowerCase())).sort();
}

async function* given(pieces) {
  yield* pieces;
}

// Everything that undici tells of one answer, by the hooks that it calls.
function ask(dispatcher, origin, method, path, { body, pieces, fields, aborted } = {}) {
  return new Promise((done) => {
    const found = { informed: [], status: null, fields: [], body: "", trailers: [], error: null };
    // A dispatcher of proxies writes into what it is given.
    const headers = Array.isArray(fields) ? fields : { ...fields };
    const options = { origin, method, path, headers, body: body ?? (pieces && given(pieces)) };
    const pieces_of_answer = [];
    let abort;
    const end = (error) => {
      const bytes = Buffer.concat(pieces_of_answer);
      // How much had come before it was aborted is chance.
      found.body = aborted ? "" : bytes.toString("latin1");
      found.error = error && (error.code ?? error.message);
      done(found);
    };
    dispatcher.dispatch(options, {
      onRequestStart(controller) {
        abort = (why) => controller.abort(why);
        if (aborted && path === "/never") setTimeout(() => abort(new Error("aborted")), 100);
      },
      onResponseStart(controller, status, _, message) {
        const raw = pairs(controller.rawHeaders ?? []);
        if (status < 200) return found.informed.push([status, raw]);
        Object.assign(found, { status, message, fields: raw });
      },
      onResponseData(controller, piece) {
        pieces_of_answer.push(piece);
        if (aborted) controller.abort(new Error("aborted"));
      },
      onResponseEnd(controller) {
        found.trailers = pairs(controller.rawTrailers ?? []);
        end(null);
      },
      onResponseError(_, error) {
        end(error);
      },
    });
  });
}

// A connection to `origin`, or a tunnel to it.
async function connected(origin, proxy, ca) {
  const { hostname, port, protocol } = new URL(origin);
  let socket;
  if (proxy) {
    const { hostname: host, port: at } = new URL(proxy);
    const path = `${hostname}:${port}`;
    const asking = http.request({ host, port: at, method: "CONNECT", path, headers: { host: path } }).end();
    socket = await new Promise((done, failed) => {
      asking.on("connect", ({ statusCode }, socket) => (statusCode === 200 ? done(socket) : failed(new Error(`CONNECT: ${statusCode}`))));
    });
  } else {
    socket = net.connect(port, hostname);
  }
  return protocol === "http:" ? socket : tls.connect({ socket, servername: hostname, ca: readFileSync(ca) });
}

async function ask_expecting(origin, proxy, ca, method, path, { body, pieces }) {
  const socket = await connected(origin, proxy, ca);
  const found = { informed: [], trailers: [] };
  const length = body ? { "content-length": body.length } : {};
  const headers = { host: new URL(origin).host, expect: "100-continue", ...length };
  const request = http.request({ createConnection: () => socket, method, path, headers });
  request.flushHeaders();
  request.on("information", ({ statusCode, rawHeaders }) => found.informed.push([statusCode, pairs(rawHeaders)]));
  request.on("continue", () => {
    for (const piece of pieces ?? [body]) request.write(piece);
    request.end();
  });
  const answer = await new Promise((done, failed) => request.on("response", done).on("error", failed));
  const { statusCode: status, statusMessage: message, rawHeaders } = answer;
  Object.assign(found, { status, message, fields: pairs(rawHeaders), body: (await whole(answer)).toString("latin1") });
  socket.destroy();
  return found;
}

function dispatcher(origin, proxy, ca) {
  const connect = { ca: readFileSync(ca) };
  const options = { pipelining: 10, connections: 1, headersTimeout: 30_000, bodyTimeout: 30_000 };
  if (!proxy) return new Pool(origin, { ...options, connect });
  return new ProxyAgent({ uri: proxy, requestTls: connect, proxyTunnel: true, ...options });
}

async function answers(origin, proxy, ca) {
  const found = [];
  const one = dispatcher(origin, proxy, ca);
  for (const [method, path, more] of ROWS) {
    const asked = more?.expects ? ask_expecting(origin, proxy, ca, method, path, more) : ask(one, origin, method, path, more);
    found.push(await asked);
  }
  await one.destroy();
  // All at once, over one connection: in the order that they were asked in.
  const many = dispatcher(origin, proxy, ca);
  const asked = Array.from({ length: 20 }, (_, number) => ask(many, origin, number % 5 ? "GET" : "HEAD", `/hello/${number}`));
  found.push(...(await Promise.all(asked)));
  await many.destroy();
  return found;
}

// The length stands where the chunks were, and only there.
function lengths(direct, through) {
  const length = ({ fields }) => fields.find(([name]) => name === "content-length");
  if (length(direct) || !length(through) || Number(length(through)[1]) !== through.body.length) return;
  through.fields = through.fields.filter(([name]) => name !== "content-length");
}

async function compare(proxy, sidecar_ca, ca, plain, secure) {
  let asked = 0;
  let intended = 0;
  let differ = 0;
  for (const origin of [`http://localhost:${plain}`, `https://localhost:${secure}`]) {
    const direct = await answers(origin, null, ca);
    const through = await answers(origin, `http://${proxy}`, sidecar_ca);
    for (const [at, was] of direct.entries()) {
      asked += 1;
      const found = through[at];
      const [method, path, more] = ROWS[at] ?? ["pipelined", at - ROWS.length];
      lengths(was, found);
      const instead = more?.instead;
      // Another status is another answer; otherwise all else is the same.
      const expected = !instead || instead.status ? (instead ?? was) : { ...was, ...instead };
      if (Object.keys(instead ?? {}).some((what) => JSON.stringify(was[what]) !== JSON.stringify(found[what]))) intended += 1;
      for (const [what, value] of Object.entries(expected)) {
        if (JSON.stringify(value) === JSON.stringify(found[what])) continue;
        differ += 1;
        console.log(origin.split(":")[0], method, path, what, JSON.stringify(value).slice(0, 400), "->", JSON.stringify(found[what])?.slice(0, 400));
      }
    }
  }
  console.log(`${asked} answers, ${intended} differ as intended, ${differ} differences`);
}

const [verb, ...words] = process.argv.slice(2);
if (verb === "serve") serve(...words);
else await compare(...words);
