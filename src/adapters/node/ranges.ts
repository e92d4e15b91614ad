// Ranges of large files by node:http, where nobody has changed what `fetch` does. What it has brought is given back at once, and not left to the collector of garbage, which
// else marks the whole heap for every few MB of a download, and finds new memory for them.
import type { Agent, ClientRequest, IncomingMessage } from "node:http";
import type { Fetch, FetchInit } from "../../weights/request.ts";
import { Body } from "./body.ts";
import { isOrdinary } from "./ordinary-fetch.ts";

/** How long a connection is kept for another request, ms: as Node's own agents. */
const IDLE_MS = 5000;

/** A server was not reached: it may be that only `fetch` knows the way, by a certificate or a name service of its own. */
class NotReached extends Error {}

/** Connections of our own: a program may let its global agents have few, and a reader that waits holds one. */
const agents = new Map<string, Agent>();

/**
 * Sends one request. A connection that the server had closed while it was idle counts for nothing.
 * @throws NotReached
 */
async function send(url: URL, { headers, signal }: FetchInit): Promise<IncomingMessage> {
  const isSecure = url.protocol === "https:";
  const { Agent, request } = isSecure ? await import("node:https") : await import("node:http");
  const agent = agents.get(url.protocol) ?? new Agent({ keepAlive: true, scheduling: "lifo", timeout: IDLE_MS });
  agents.set(url.protocol, agent);
  const options = { agent, signal, headers: { accept: "*/*", "user-agent": "node", ...headers } };
  for (;;) {
    let isReached = false;
    let sent: ClientRequest | undefined;
    try {
      return await new Promise((resolve, reject) => {
        sent = request(url, options, resolve).on("error", reject);
        sent.on("socket", (socket) => {
          if (socket.connecting) socket.once(isSecure ? "secureConnect" : "connect", () => (isReached = true));
          else isReached = true;
        });
        sent.end();
      });
    } catch (error) {
      if (signal.aborted) throw error;
      if (!isReached) throw new NotReached(undefined, { cause: error });
      if (!sent?.reusedSocket || !/^(?:ECONNRESET|EPIPE)$/.test((error as { code?: string }).code ?? "")) throw error;
    }
  }
}

/** `fetch` as a load uses it. */
export const fetchRanges: Fetch = async (url, init) => {
  if (init.headers.range === undefined || !isOrdinary()) return fetch(url, init);
  let response: IncomingMessage;
  try {
    response = await send(new URL(url), init);
  } catch (error) {
    if (error instanceof NotReached) return fetch(url, init);
    throw error;
  }
  const { headers, statusCode: status = 0 } = response;
  if (!/^(?:identity)?$/i.test(headers["content-encoding"] ?? "")) {
    response.destroy();
    return fetch(url, init); // which unpacks it
  }
  return { status, url, headers: { get: (name) => headers[name]?.toString() ?? null }, body: new Body(response) };
};
