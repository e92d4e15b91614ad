// Serves one file with ranges and an ETag, as a worker of the benchmarks: a process of its own beside those who download. At /checked it tells the file's SHA-256 as a hub does;
// at /link all connections together get what a link of 1 Gbit/s would carry.
import { createHash } from "node:crypto";
import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { serve } from "./worker.mjs";

let server;

const LINK_BYTES_PER_MS = 125_000;
/** What a link owes after a timer that was late. */
const LINK_DEBT_MS = 20;
let linkFreeAt = 0;

/** The parts of a stream, none before the link has had time for it. */
async function* overLink(stream) {
  for await (const part of stream) {
    const now = performance.now();
    linkFreeAt = Math.max(now - LINK_DEBT_MS, linkFreeAt) + part.length / LINK_BYTES_PER_MS;
    if (linkFreeAt - now > 1) await sleep(linkFreeAt - now);
    yield part;
  }
}

serve({
  async load({ path }) {
    const { size } = statSync(path);
    const hash = createHash("sha256");
    for await (const part of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(part);
    const sha256 = hash.digest("hex");
    server = createServer((request, response) => {
      const [, a = "", b = ""] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
      const [from, to] = [Number(a), b === "" ? size : Math.min(size, Number(b) + 1)];
      const about = {
        "content-length": to - from,
        etag: '"one"',
        ...(request.url === "/checked" ? { "x-linked-etag": `"${sha256}"` } : {}),
      };
      if (a === "") response.writeHead(200, about);
      else response.writeHead(206, { ...about, "content-range": `bytes ${from}-${to - 1}/${size}` });
      const isLink = request.url === "/link";
      const content = createReadStream(path, { start: from, end: to - 1, highWaterMark: isLink ? 1 << 16 : 1 << 20 });
      (isLink ? Readable.from(overLink(content)) : content).pipe(response);
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    const origin = `http://127.0.0.1:${server.address().port}`;
    return { url: `${origin}/model.gguf`, checkedUrl: `${origin}/checked`, linkUrl: `${origin}/link` };
  },
});
