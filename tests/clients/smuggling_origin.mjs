// An origin that writes down each request it has read, as `METHOD PATH`: Node's own server.
//
//     smuggling_origin.mjs LOG
//
// Its first line is its port.

import { appendFileSync } from "node:fs";
import http from "node:http";

const log = process.argv[2];
const server = http.createServer((request, response) => {
  request.resume();
  appendFileSync(log, `${request.method} ${request.url}\n`);
  request.on("end", () => response.end("read"));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
