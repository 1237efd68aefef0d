// The agent API from Node with fetch. `openbox-sidecar run -- node examples/openbox.mjs`
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const { OPENBOX_SIDECAR_URL: url, OPENBOX_SIDECAR_TOKEN, OPENBOX_SIDECAR_TOKEN_FILE } = process.env;
const token = OPENBOX_SIDECAR_TOKEN ?? readFileSync(OPENBOX_SIDECAR_TOKEN_FILE, "utf8").trim(); // in a pod, a shared file

const call = (method, path, body) =>
  fetch(`${url}${path}`, { method, body, headers: { authorization: `Bearer ${token}` } });

export async function ask(path, body, method = "POST") {
  for (;;) {
    const answer = await call(method, path, JSON.stringify(body));
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.detail);
    if (answer.status === 202) continue; // a person must decide: the same request waits on
    if (!["allow", "constrain"].includes(said.verdict)) throw new Error(said.reason ?? said.verdict);
    return said;
  }
}

export async function activity(ids, kind, input, work) {
  const named = { ...ids, activity_id: crypto.randomUUID() };
  const begun = await ask("/v1/activities?wait=55s", { ...named, activity_type: kind, input });
  const end = (outcome) => ask(`/v1/activities/${named.activity_id}/complete`, { ...ids, ...outcome });
  try {
    const output = await work(begun.redacted_input ?? input, named);
    await end({ output });
    return output;
  } catch (error) {
    await end({ error: { message: String(error) } });
    throw error;
  }
}

if (process.argv[2] === "-") { // any request at all, a line each: METHOD PATH JSON
  for await (const line of createInterface({ input: process.stdin })) {
    const [, method, path, body] = line.match(/^(\S+) (\S+) ?(.*)$/);
    const answer = await call(method, path, body || undefined);
    const ends = !answer.headers.get("content-type")?.startsWith("text/event-stream");
    console.log(answer.status, ends ? (await answer.text()).split("\n")[0] : "");
    if (!ends) await answer.body.cancel();
  }
  process.exit();
}

const ids = { workflow_id: "node", run_id: crypto.randomUUID() };
await ask("/v1/workflows", ids);
await activity(ids, "refund", [{ amount: 90 }], async ([order], named) => {
  const span = { function: "charge", module: "shop", args: [order] };
  const begun = await ask("/v1/evaluate?wait=55s", { ...named, kind: "function_call", stage: "started", span });
  await ask("/v1/evaluate", { stage: "completed", event_id: begun.event_id, span: { result: { ok: true } } });
  return { refunded: order.amount };
});
await ask(`/v1/workflows/${ids.workflow_id}/runs/${ids.run_id}/complete`, {});
console.log("done");
