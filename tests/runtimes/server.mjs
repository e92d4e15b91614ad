// Files for a runtime under test, from 127.0.0.1: folders by prefix, ranges, and what servers get wrong.
import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";

const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

/** Headers of a page whose workers may share memory. */
export const ISOLATED = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };

/**
 * @param {Record<string, string>} folders by URL prefix ("/models/"), the longest counts
 * @param {{ headers?: Record<string, string>, answer?: (request: import("node:http").IncomingMessage, response: import("node:http").ServerResponse) => boolean, versioned?: string }} [options]
 *   headers of every answer; `answer` may take a request; below the path `versioned` files have an ETag, and a page of another origin may read all headers
 * @returns {Promise<{ url: string, missing: string[], close(): Promise<void> }>} `missing`: paths that were asked for and not there
 */
export async function serveFolders(folders, { headers = {}, answer, versioned } = {}) {
  const missing = [];
  const server = createServer((request, response) => {
    if (answer?.(request, response)) return;
    const path = decodeURIComponent(request.url.split("?")[0]);
    const common = { "access-control-allow-origin": "*", "access-control-allow-headers": "*", "cache-control": "no-store", ...headers };
    if (request.method === "OPTIONS") return response.writeHead(204, common).end();
    // what a server may answer by mistake
    if (path.startsWith("/html/"))
      return response.writeHead(200, { ...common, "content-type": "text/html" }).end("<!doctype html><title>app</title>");
    const octets = path.startsWith("/octets/");
    const prefix = Object.keys(folders)
      .filter((p) => path.replace(/^\/octets/, "").startsWith(p))
      .sort((a, b) => b.length - a.length)[0];
    const rest = prefix === undefined ? "" : path.replace(/^\/octets/, "").slice(prefix.length);
    const file = prefix === undefined ? "" : join(folders[prefix], normalize(`/${rest}`));
    const stat = file ? statSync(file.endsWith("/") ? `${file}index.html` : file, { throwIfNoEntry: false }) : undefined;
    if (!stat?.isFile()) {
      if (path !== "/favicon.ico") missing.push(path);
      return response.writeHead(404, common).end();
    }
    const real = file.endsWith("/") ? `${file}index.html` : file;
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const from = range ? Number(range[1]) : 0;
    const to = range?.[2] ? Math.min(Number(range[2]), stat.size - 1) : stat.size - 1;
    const type = octets ? "application/octet-stream" : (TYPES[extname(real)] ?? "application/octet-stream");
    const tag =
      versioned !== undefined && path.startsWith(versioned)
        ? { etag: `"${stat.size}-${stat.mtimeMs}"`, "access-control-expose-headers": "*" }
        : {};
    if (range && from >= stat.size) return response.writeHead(416, { ...common, ...tag, "content-range": `bytes */${stat.size}` }).end();
    const about = { ...common, ...tag, "content-type": type, "content-length": to - from + 1, "accept-ranges": "bytes" };
    if (range) response.writeHead(206, { ...about, "content-range": `bytes ${from}-${to}/${stat.size}` });
    else response.writeHead(200, about);
    if (request.method === "HEAD" || stat.size === 0) return response.end();
    createReadStream(real, { start: from, end: to }).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    missing,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
