// WebSocket with Node's `ws`: a server that says back what it hears, and the checks
// of a client.
//
//     websocket.mjs serve PORT_FILE
//     websocket.mjs check opaque|judged|redacted URL
//
// `ws` knows no proxy: an agent must give it an agent that opens a tunnel.

import { once } from "node:events";
import { renameSync, writeFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { randomBytes } from "node:crypto";
import tls from "node:tls";
import WebSocket, { WebSocketServer } from "ws";

const MIB = 1 << 20;
const CODES = [1000, 1001, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999];
const [, , what, ...rest] = process.argv;

function serve(portFile) {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: { threshold: 0 }, maxPayload: 4 * MIB });
  server.on("listening", () => {
    writeFileSync(`${portFile}.new`, String(server.address().port));
    renameSync(`${portFile}.new`, portFile);
  });
  server.on("connection", (socket) => {
    let heard = 0;
    socket.on("message", (data, binary) => {
      heard += 1;
      const text = binary ? "" : data.toString();
      if (text.startsWith("close ")) {
        const [, code, ...reason] = text.split(" ");
        socket.close(Number(code), reason.join(" "));
      } else if (text.startsWith("pieces ")) {
        const word = text.slice("pieces ".length);
        [...word].forEach((letter, at) => {
          if (at === 1) socket.ping("between");
          socket.send(letter, { fin: at === word.length - 1 });
        });
      } else if (text === "ping me") {
        socket.once("pong", () => socket.send("you are"));
        socket.ping("are you there");
      } else {
        socket.send(data, { binary });
      }
    });
    socket.on("error", () => {});
    socket.on("close", (code, reason) => {
      console.log("closed", code, reason.toString() || "-", "heard", heard, "with", socket.extensions || "-");
    });
  });
}

function equal(name, found, expected) {
  if (JSON.stringify(found) !== JSON.stringify(expected)) {
    console.error(`${name}: found ${JSON.stringify(found).slice(0, 300)}, expected ${JSON.stringify(expected).slice(0, 300)}`);
    process.exit(1);
  }
}

function agent(url) {
  const { hostname: host, port } = new URL(process.env.HTTP_PROXY);
  const { protocol, hostname, port: to } = new URL(url);
  const secure = protocol === "wss:";
  const tunnel = new (secure ? https : http).Agent();
  tunnel.createConnection = (_, done) => {
    const target = `${hostname}:${to}`;
    const asking = http.request({ host, port, method: "CONNECT", path: target, headers: { host: target } });
    asking.on("error", done);
    asking.on("connect", (answer, socket) => {
      if (answer.statusCode !== 200) return done(new Error(`CONNECT: ${answer.statusCode}`));
      if (!secure) return done(null, socket);
      const over = tls.connect({ socket, servername: hostname }, () => done(null, over));
      over.on("error", done);
    });
    asking.end();
  };
  return tunnel;
}

async function opened(url) {
  const socket = new WebSocket(url, { agent: agent(url), maxPayload: 4 * MIB });
  socket.inbox = [];
  socket.on("message", (data, binary) => socket.inbox.push(binary ? data : data.toString()));
  socket.on("error", (error) => (socket.failed = error.message));
  socket.over = new Promise((done) => socket.on("close", (code, reason) => done([code, reason.toString()])));
  await once(socket, "open", { signal: AbortSignal.timeout(20_000) });
  return socket;
}

async function next(socket) {
  const until = Date.now() + 20_000;
  while (socket.inbox.length === 0) {
    if (Date.now() > until || socket.readyState !== WebSocket.OPEN) throw new Error(`no message; ${socket.failed}`);
    await new Promise((done) => setTimeout(done, 2));
  }
  return socket.inbox.shift();
}

async function echoed(socket, name, message) {
  socket.send(message);
  const found = await next(socket);
  equal(name, Buffer.compare(Buffer.from(found), Buffer.from(message)), 0);
  equal(name, typeof found, typeof message);
}

async function messages(socket) {
  await echoed(socket, "text", "hello");
  await echoed(socket, "binary", Buffer.from([0, 1, 2, 255]));
  await echoed(socket, "nothing", "");
  await echoed(socket, "text of 1 MiB", "tätig".repeat(MIB / 8));
  await echoed(socket, "1 MiB", randomBytes(MIB));
  const pongs = [];
  socket.on("pong", (data) => pongs.push(data.toString()));
  socket.send("a", { fin: false });
  socket.ping("one");
  socket.send("b".repeat(70_000), { fin: false });
  socket.ping("two");
  socket.send("c", { fin: true });
  equal("pieces", (await next(socket)).length, 70_002);
  equal("pongs", pongs, ["one", "two"]);
  socket.send("pieces of-eight");
  equal("the server's pieces", await next(socket), "of-eight");
}

async function closes(url) {
  for (const code of CODES) {
    let socket = await opened(url);
    socket.close(code, `client says ${code}`);
    equal("our close", (await socket.over)[0], code);
    socket = await opened(url);
    socket.send(`close ${code} server says ${code}`);
    equal("the server's close", await socket.over, [code, `server says ${code}`]);
  }
}

async function refusals(url) {
  let socket = await opened(url);
  socket.send("please-block this");
  let [code, reason] = await socket.over;
  equal("a blocked message", [code, reason.split(" ")[0]], [1008, "blocked"]);
  socket = await opened(url);
  socket.send("pieces secret-answer");
  [code, reason] = await socket.over;
  equal("a blocked answer", [code, reason.split(" ")[0]], [1008, "outcome_blocked"]);
}

async function said(socket, name, message, expected) {
  socket.send(message);
  equal(name, await next(socket), expected);
}

// Mail addresses are not to be said, and numbers of cards not to be heard.
async function redactions(url) {
  const [mail, card, masked] = ["ann@example.com", "4111 1111 1111 1111", "<EMAIL_ADDRESS>"];
  let socket = await opened(url);
  await said(socket, "nothing to mask", "hello", "hello");
  await said(socket, "a mail", `to ${mail}`, `to ${masked}`);
  await said(socket, "what the server says", card, "<CREDIT_CARD>");
  await said(socket, "its pieces", `pieces ${card}`, "<CREDIT_CARD>");
  for (const length of [110, 111, 125, 126, 65_000]) {
    const filled = `${"ä".repeat(length / 2)} `;
    await said(socket, `a text of ${length}`, filled + mail, filled + masked);
  }
  socket.send("to ann@exa", { fin: false });
  socket.ping("between");
  socket.send("mple.com", { fin: true });
  equal("pieces", await next(socket), `to ${masked}`);
  socket.send(Buffer.from(mail));
  const [code, reason] = await socket.over;
  equal("bytes", [code, reason.split(" ")[0]], [1008, "not_judgeable"]);
}

if (what === "serve") {
  serve(...rest);
} else if (rest[0] === "redacted") {
  await redactions(rest[1]);
  console.log("all checks passed");
  process.exit(0);
} else {
  const [how, url] = rest;
  const socket = await opened(url);
  equal("extensions", socket.extensions, how === "opaque" ? "permessage-deflate" : "");
  await messages(socket);
  socket.close();
  await closes(url);
  if (how === "judged") await refusals(url);
  console.log("all checks passed");
  process.exit(0);
}
