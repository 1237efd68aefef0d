// A dispatcher for Node's own fetch that leads through a proxy, as a program must have one that
// runs in no newer Node than 23: each connection is a tunnel that it asks for with CONNECT.

import http from "node:http";
import tls from "node:tls";

export const through = async (proxy) => {
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
  await fetch("data:,"); // fetch is loaded when it is first used
  const Agent = globalThis[Symbol.for("undici.globalDispatcher.1")].constructor;
  return new Agent({ connect });
};
