// What an agent with Node's http2 does, through a tunnel.
//
//     http2.mjs PROXY URL CA

import { readFileSync } from "node:fs";
import http from "node:http";
import http2 from "node:http2";
import tls from "node:tls";

const [proxy, url, ca] = process.argv.slice(2);
const { hostname, port } = new URL(url);
const [proxyHost, proxyPort] = proxy.split(":");

const asking = http.request({ host: proxyHost, port: proxyPort, method: "CONNECT", path: `${hostname}:${port}`, headers: { host: `${hostname}:${port}` } });
const socket = await new Promise((done, failed) => {
  asking.on("connect", (answer, tunnel) => (answer.statusCode === 200 ? done(tunnel) : failed(new Error(String(answer.statusCode)))));
  asking.on("error", failed);
  asking.end();
});
const session = http2.connect(url, {
  createConnection: () => tls.connect({ socket, servername: hostname, ca: readFileSync(ca), ALPNProtocols: ["h2"] }),
});

const send = (path, { body, ...headers } = {}) =>
  new Promise((done, failed) => {
    const stream = session.request({ ":path": path, ":method": body ? "POST" : "GET", ...headers });
    const answer = { text: "", trailers: {} };
    stream.on("response", (head) => (answer.status = head[":status"]));
    stream.on("trailers", (trailers) => (answer.trailers = trailers));
    stream.on("data", (piece) => (answer.text += piece.toString("latin1")));
    stream.on("end", () => done(answer));
    stream.on("error", failed);
    stream.end(body);
  });

let answer = await send("/hello");
console.log("hello", answer.status, answer.text);
answer = await send("/echo", { body: "x".repeat(1 << 20), "content-type": "text/plain" });
console.log("upload", answer.status, JSON.parse(answer.text).text.length);
answer = await send("/trailers");
console.log("trailers", answer.status, answer.text, answer.trailers["x-sum"]);
answer = await send("/started/block");
console.log("blocked", answer.status, JSON.parse(answer.text).code);
const many = await Promise.all(Array.from({ length: 60 }, (_, n) => send(`/many/${n}`)));
console.log("many", many.every((one, n) => one.text === `hello from /many/${n}`));
session.close();
