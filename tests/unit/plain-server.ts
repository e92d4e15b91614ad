// A server of files as plain ones are: no hub, no checksums, an ETag that tells one version from another.
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

/** Files with an ETag of no meaning, as plain servers have them; a range with `If-Range` of another version gets the whole. */
export class Plain {
  readonly files: Map<string, { bytes: Uint8Array; etag: string | undefined }> = new Map();
  sentBytes = 0;
  requests = 0;
  /** What was asked for. */
  readonly paths: Set<string> = new Set();
  drip = 0;
  readonly #server: Server = createServer(async (request, response) => {
    this.requests++;
    this.paths.add(request.url ?? "");
    const file = this.files.get(new URL(request.url ?? "", "http://x").pathname);
    if (!file) return void response.writeHead(404).end();
    const { bytes, etag } = file;
    const [, a = "", b = ""] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
    const isRange = a !== "" && (request.headers["if-range"] ?? etag) === etag;
    const [from, to] = isRange ? [Number(a), b === "" ? bytes.length : Math.min(bytes.length, Number(b) + 1)] : [0, bytes.length];
    response.writeHead(isRange ? 206 : 200, {
      "content-length": to - from,
      ...(etag === undefined ? {} : { etag }),
      ...(isRange ? { "content-range": `bytes ${from}-${to - 1}/${bytes.length}` } : {}),
    });
    for (let at = from; at < to && !response.destroyed; at += 16_384) {
      const piece = bytes.subarray(at, Math.min(to, at + 16_384));
      this.sentBytes += piece.length;
      response.write(piece);
      if (this.drip) await new Promise((go) => setTimeout(go, this.drip));
    }
    response.end();
  });

  async start(): Promise<string> {
    await new Promise<void>((go) => this.#server.listen(0, "127.0.0.1", go));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((go) => this.#server.close(() => go()));
  }
}
