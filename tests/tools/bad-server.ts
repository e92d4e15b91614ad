// A local server that answers like a hub's file endpoints and misbehaves on request: node:http only, port 0, 127.0.0.1.
//
// Endpoints: GET|HEAD /{org}/{repo}/resolve/{rev}/{path} · …/raw/{rev}/{path} (LFS: the pointer) · GET /api/models/{org}/{repo}[/revision/{rev}] · …/tree/{rev}.
// LFS files (by extension, or > 1 MiB): 302 to the CDN, another origin, with X-Linked-ETag = the sha256 in quotes, X-Linked-Size, X-Repo-Commit; others 200/206 in
// place with ETag = git's sha1 of the blob. Revisions: "main" and the commit; anything else is 404.
import { createHash } from "node:crypto";
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  type Server,
  type ServerResponse,
} from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { gzipSync } from "node:zlib";

/** What goes wrong. Faults hit matching requests (`match`, default: file bodies by GET); `after` lets so many pass, `times` (default: every one) then fails so many. */
export interface Fault {
  /** "api", "resolve" or "cdn". */
  readonly match?: string;
  readonly after?: number;
  readonly times?: number;
  /** Fault i for hit i, then healthy. */
  readonly script?: readonly Fault[];
  /** Destroys the socket after so many body bytes. */
  readonly drop?: number;
  /** Ends cleanly so many bytes early, chunked. */
  readonly short?: number;
  /** Sends so many body bytes, then nothing; the socket stays open. */
  readonly stall?: number;
  /** So many bytes every so many ms. */
  readonly drip?: readonly [bytes: number, ms: number];
  /** Writes so many bytes at a time. */
  readonly chunk?: number;
  /** 200 and the whole file for a Range request. */
  readonly ignoreRange?: boolean;
  readonly contentRange?: "shift" | "total" | "missing" | "unit";
  /** Content-Length is off by so many. */
  readonly contentLength?: number;
  /** Bit 0 of this file byte is wrong. */
  readonly flip?: number;
  /** The content changes, with a new ETag, after the first hit. */
  readonly swap?: boolean;
  readonly status?: number;
  /** Seconds, or "date" for one second from now. */
  readonly retryAfter?: string;
  readonly body?: string;
  /** Content-Encoding: gzip though nobody asked. */
  readonly gzip?: boolean;
  readonly noEtag?: boolean;
  readonly weakEtag?: boolean;
  /** 302 to itself for ever. */
  readonly loop?: boolean;
  /** So many redirects on the same origin before the answer. */
  readonly hops?: number;
  /** 302 to a file: URL. */
  readonly downgrade?: boolean;
  /** 200 with an HTML page in place of the file. */
  readonly html?: boolean;
  /** 200 with the pointer of Git LFS in place of the file. */
  readonly pointer?: boolean;
  /** 200 with Content-Length 0. */
  readonly empty?: boolean;
  /** 206 multipart/byteranges. */
  readonly multipart?: boolean;
  /** 416 for every Range request. */
  readonly refuseRange?: boolean;
  readonly noCors?: boolean;
  /** ms before the first byte. */
  readonly delay?: number;
  /** Destroys the socket before any byte. */
  readonly reset?: boolean;
  /** Headers never end. */
  readonly trickleHeaders?: boolean;
  /** 200 without a length. */
  readonly noLength?: boolean;
  /** Repositories need this bearer token: 401 without, 403 with another. */
  readonly token?: string;
  /** Refuses, and repeats in its message what the client sent as authorization. */
  readonly echo?: boolean;
  /** Files of a page of the listing. */
  readonly pageFiles?: number;
}

/** A ready-made fault and what a client may do with it: end with the right bytes ("yes"), reject with a typed error ("no"), do one of the two ("either"), or one of
 * the two where the right bytes may be those of the new file ("whole"). */
export interface Scenario extends Fault {
  readonly good: "yes" | "no" | "either" | "whole";
}

export const SCENARIOS: Readonly<Record<string, Scenario>> = {
  healthy: { good: "yes" },
  "drop-once": { good: "yes", drop: 10_000, times: 1 },
  "drop-five-times": { good: "yes", drop: 10_000, times: 5 },
  "drop-always-progress": { good: "yes", drop: 65_536 },
  "drop-at-zero-once": { good: "yes", drop: 0, times: 1 },
  "drop-at-zero-always": { good: "no", drop: 0 },
  "reset-once": { good: "yes", reset: true, times: 1 },
  "reset-always": { good: "no", reset: true },
  "short-chunked-once": { good: "yes", short: 7, times: 1 },
  "stall-once": { good: "yes", stall: 10_000, times: 1 },
  "stall-always": { good: "no", stall: 10_000 },
  "trickle-headers": { good: "no", trickleHeaders: true },
  drip: { good: "yes", drip: [4096, 1] },
  "one-byte-chunks": { good: "yes", chunk: 1, times: 1 },
  "ignore-range": { good: "yes", ignoreRange: true },
  "drop-then-ignore-range": { good: "yes", script: [{ drop: 10_000 }, { ignoreRange: true }] },
  "content-range-shifted": { good: "either", contentRange: "shift" },
  "content-range-wrong-total": { good: "either", contentRange: "total" },
  "content-range-missing": { good: "either", contentRange: "missing" },
  "content-range-unit": { good: "either", contentRange: "unit" },
  "content-length-too-large": { good: "either", contentLength: 100 },
  "content-length-too-small": { good: "no", contentLength: -100 },
  "flip-a-bit-once": { good: "yes", flip: 5000, times: 1 },
  "flip-a-bit-always": { good: "no", flip: 5000 },
  "file-changes": { good: "whole", drop: 10_000, swap: true, times: 1 },
  "429-once": { good: "yes", status: 429, retryAfter: "1", times: 1 },
  "429-date": { good: "yes", status: 429, retryAfter: "date", times: 1 },
  "429-an-hour": { good: "no", status: 429, retryAfter: "3600" },
  "503-three-times": { good: "yes", status: 503, times: 3 },
  "500-always": { good: "no", status: 500 },
  "403-expired-link": { good: "yes", status: 403, match: "cdn", times: 1, body: "Request has expired" },
  gzip: { good: "yes", gzip: true },
  "no-etag": { good: "yes", noEtag: true },
  "weak-etag": { good: "yes", weakEtag: true },
  "redirect-loop": { good: "no", loop: true },
  "redirect-3-hops": { good: "yes", hops: 3 },
  "redirect-30-hops": { good: "no", hops: 30 },
  "redirect-to-file": { good: "no", downgrade: true },
  "html-page": { good: "no", html: true },
  "empty-body": { good: "no", empty: true },
  multipart: { good: "either", multipart: true },
  "416-always": { good: "yes", refuseRange: true },
  "no-cors": { good: "yes", noCors: true },
  "slow-start": { good: "yes", delay: 1500 },
};

interface File {
  readonly name: string;
  readonly bytes: Buffer;
  readonly isLfs: boolean;
  readonly sha256: string;
  readonly oid: string;
}

interface Repo {
  readonly commit: string;
  readonly files: Map<string, File>;
}

/** A request as the server saw it. */
export interface Request {
  readonly host: "hub" | "cdn";
  readonly url: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  readonly ifRange: string | undefined;
  /** All that came, for who looks for what should not be there. */
  readonly headers: IncomingHttpHeaders;
  status: number;
  sentBytes: number;
  /** Whether the answer is over, well or badly. */
  isOver: boolean;
}

export interface BadServer {
  /** What a client takes for the hub's address. */
  readonly hub: string;
  readonly cdn: string;
  readonly log: Request[];
  /** Connections now open, and answers under way. */
  readonly open: number;
  readonly busy: number;
  /** Another fault; counters go back to zero. */
  set(fault: Fault): void;
  replace(repo: string, name: string, bytes: Uint8Array): void;
  /** Closes connections that wait for a next request. */
  closeIdle(): void;
  close(): Promise<void>;
}

const hash = (kind: string, ...parts: (string | Uint8Array)[]): string =>
  parts.reduce((h, part) => h.update(part), createHash(kind)).digest("hex");

function fileOf(name: string, content: Uint8Array | string): File {
  const bytes = Buffer.from(content as Uint8Array);
  const isLfs = /\.(safetensors|gguf|bin)$/i.test(name) || bytes.length > 1 << 20;
  return { name, bytes, isLfs, sha256: hash("sha256", bytes), oid: hash("sha1", `blob ${bytes.length}\0`, bytes) };
}

const pause = (ms: number, socket: Socket): Promise<void> =>
  new Promise((resolve) => {
    const finish = (): void => {
      clearTimeout(timer);
      socket.off("close", finish);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    socket.on("close", finish);
  });

/** "bytes=a-b" → [from, to); undefined when it cannot be satisfied, null when there is no single range. */
function parseRange(header: string | undefined, size: number): readonly [number, number] | undefined | null {
  const [, a = "", b = ""] = /^bytes=(\d*)-(\d*)$/.exec(header ?? "") ?? [];
  if (a === "" && b === "") return null;
  const from = a === "" ? Math.max(0, size - Number(b)) : Number(a);
  const to = a === "" || b === "" ? size : Math.min(size, Number(b) + 1);
  return from < to && from < size ? [from, to] : undefined;
}

class Answers {
  readonly repos: Map<string, Repo>;
  readonly log: Request[] = [];
  hub = "";
  cdn = "";
  #fault: Fault = {};
  #hits = 0;
  #swapped = new Map<string, File>();

  constructor(repos: Map<string, Repo>) {
    this.repos = repos;
  }

  set(fault: Fault): void {
    this.#fault = fault;
    this.#hits = 0;
    this.#swapped = new Map();
  }

  #faultFor(where: string, isBody: boolean): Fault {
    const { match, script, after = 0, times = Number.POSITIVE_INFINITY } = this.#fault;
    if (match === undefined ? !isBody : match !== where) return {};
    const hit = this.#hits++;
    if (script) return script[hit] ?? {};
    return hit >= after && hit < after + times ? this.#fault : {};
  }

  async answer(host: "hub" | "cdn", req: IncomingMessage, res: ServerResponse): Promise<void> {
    const { range, authorization, "if-range": ifRange } = req.headers;
    const entry: Request = {
      host,
      url: req.url ?? "",
      range,
      authorization,
      ifRange: ifRange as string | undefined,
      headers: req.headers,
      status: 0,
      sentBytes: 0,
      isOver: false,
    };
    this.log.push(entry);
    res.on("close", () => {
      entry.isOver = true;
    });
    const reply = (status: number, headers: OutgoingHttpHeaders = {}, body = ""): void => {
      entry.status = status;
      entry.sentBytes += Buffer.byteLength(body);
      const isRedirect = status >= 300 && status < 400;
      res
        .writeHead(status, { ...this.#cors(req), ...(isRedirect ? {} : { "content-length": Buffer.byteLength(body) }), ...headers })
        .end(body);
    };
    const url = new URL(req.url ?? "", host === "cdn" ? this.cdn : this.hub);
    const path = decodeURIComponent(url.pathname);
    const api = /^\/api\/models\/([^/]+\/[^/]+)(?:\/(revision|tree)\/([^/]+))?$/.exec(path);
    const resolve = /^\/([^/]+\/[^/]+)\/(?:resolve|raw)\/([^/]+)\/(.+)$/.exec(path);
    const blob = /^\/repos\/([^/]+\/[^/]+)\/([0-9a-f]{64})$/.exec(path);
    const name = (api ?? resolve ?? blob)?.[1] ?? "";
    const repo = this.repos.get(name);
    const error = (status: number, code: string, message: string): void =>
      reply(status, { "x-error-code": code, "x-error-message": message }, api ? JSON.stringify({ error: message }) : message);

    const { token, echo } = this.#fault;
    if (host === "hub" && echo) return error(403, "GatedRepo", `Not for ${authorization}.`);
    if (host === "hub" && token !== undefined) {
      if (!authorization) return error(401, "GatedRepo", `Access to model ${name} is restricted. Please log in.`);
      if (authorization !== `Bearer ${token}`) return error(403, "GatedRepo", `Access to model ${name} is restricted.`);
    }
    // the hub says 401 for an unknown repository to those whom it does not know
    if (!repo) return name ? error(401, "RepoNotFound", "Invalid username or password.") : error(404, "EntryNotFound", "Entry not found");
    const revision = api ? (api[3] ?? "main") : resolve?.[2];
    if (revision !== undefined && revision !== "main" && revision !== repo.commit)
      return error(404, "RevisionNotFound", `Invalid rev id: ${revision}`);
    if (api) return this.#listing(api[2] === "tree", name, repo, url, reply);

    const found = resolve ? repo.files.get(resolve[3] ?? "") : this.#blob(repo, blob?.[2]);
    if (!found) return resolve ? error(404, "EntryNotFound", "Entry not found") : error(403, "AccessDenied", "Access denied");
    await this.#file({ host, req, res, entry, reply, url, repo, name }, found, resolve !== null, path.split("/")[3] === "raw");
  }

  #cors(req: IncomingMessage): OutgoingHttpHeaders {
    if (this.#fault.noCors) return {};
    const exposed = "X-Repo-Commit,X-Error-Code,X-Error-Message,ETag,Link,Accept-Ranges,Content-Range,X-Linked-Size,X-Linked-ETag";
    return { "access-control-allow-origin": req.headers.origin ?? "*", vary: "Origin", "access-control-expose-headers": exposed };
  }

  #blob(repo: Repo, sha256: string | undefined): File | undefined {
    return [...repo.files.values()].find((f) => f.sha256 === sha256 || this.#swapped.get(f.name)?.sha256 === sha256);
  }

  #listing(isTree: boolean, id: string, repo: Repo, url: URL, reply: Reply): void {
    const fault = this.#faultFor("api", false);
    if (fault.status) {
      reply(fault.status, fault.retryAfter ? { "retry-after": fault.retryAfter } : {}, fault.body ?? "{}");
      return;
    }
    const files = [...repo.files.values()];
    const type = { "content-type": "application/json; charset=utf-8" };
    if (!isTree) {
      reply(
        200,
        type,
        JSON.stringify({
          id,
          sha: repo.commit,
          cardData: { license: "other", license_name: "lfm1.0" },
          siblings: files.map((f) => ({ rfilename: f.name })),
        }),
      );
      return;
    }
    const size = this.#fault.pageFiles ?? files.length;
    const at = Number(url.searchParams.get("cursor") ?? 0);
    const link = at + size < files.length ? { link: `<${url.origin}${url.pathname}?recursive=true&cursor=${at + size}>; rel="next"` } : {};
    const entries = files.slice(at, at + size).map((f) => ({
      type: "file",
      oid: f.oid,
      size: f.bytes.length,
      path: f.name,
      ...(f.isLfs ? { lfs: { oid: f.sha256, size: f.bytes.length, pointerSize: 134 } } : {}),
    }));
    reply(200, { ...type, ...link }, JSON.stringify(entries));
  }

  async #file(at: Place, found: File, isResolve: boolean, isRaw: boolean): Promise<void> {
    const { host, req, res, entry, reply, url, repo, name } = at;
    const pointer = (f: File): string => `version https://git-lfs.github.com/spec/v1\noid sha256:${f.sha256}\nsize ${f.bytes.length}\n`;
    let file = isRaw && found.isLfs ? { ...fileOf(found.name, pointer(found)), isLfs: false } : found;
    const fault = this.#faultFor(isResolve ? "resolve" : host, !isResolve || !file.isLfs);
    if (fault.swap && !this.#swapped.has(file.name)) {
      // this answer still has the old content, every later one the new
      const other = Buffer.from(file.bytes);
      other[other.length >> 1]! ^= 255;
      this.#swapped.set(file.name, { ...fileOf(file.name, other), isLfs: file.isLfs });
    } else file = this.#swapped.get(file.name) ?? file;

    // --- before the answer
    if (fault.reset) return void req.socket.destroy();
    if (fault.trickleHeaders) {
      req.socket.write("HTTP/1.1 200 OK\r\n");
      for (let i = 0; !req.socket.destroyed; i++) {
        req.socket.write(`X-Pad-${i}: 1\r\n`);
        await pause(200, req.socket);
      }
      return;
    }
    if (fault.delay) await pause(fault.delay, req.socket);
    if (fault.status) {
      const seconds = fault.retryAfter === "date" ? new Date(Date.now() + 1000).toUTCString() : fault.retryAfter;
      return reply(fault.status, seconds ? { "retry-after": seconds } : {}, fault.body ?? `${fault.status}`);
    }
    if (fault.loop) return reply(302, { location: req.url });
    if (fault.downgrade) return reply(302, { location: "file:///etc/passwd" });
    const hop = Number(url.searchParams.get("hop") ?? 0);
    if ((this.#fault.hops ?? 0) > hop && isResolve) {
      url.searchParams.set("hop", String(hop + 1));
      return reply(307, { location: url.pathname + url.search });
    }

    // --- headers
    const size = file.bytes.length;
    const tag = `"${file.isLfs ? file.sha256 : file.oid}"`;
    const etag = this.#fault.noEtag ? undefined : this.#fault.weakEtag ? `W/${tag}` : tag;
    const linked = file.isLfs ? { "x-linked-size": size, ...(etag ? { "x-linked-etag": etag } : {}) } : {};
    const shared: OutgoingHttpHeaders = { "accept-ranges": "bytes", ...(isResolve ? { "x-repo-commit": repo.commit, ...linked } : {}) };
    if (isResolve && file.isLfs)
      return reply(302, { ...shared, location: `${this.cdn}/repos/${name}/${file.sha256}?Signature=SECRET-LINK` });
    if (etag) shared.etag = etag;
    if (fault.html) return reply(200, { "content-type": "text/html" }, "<!DOCTYPE html><title>Sign in</title>");
    if (fault.pointer) return reply(200, {}, pointer(file));
    if (fault.empty) return reply(200, shared);
    const ifRange = req.headers["if-range"];
    const takesRange = !fault.ignoreRange && !fault.noLength && (ifRange === undefined || (ifRange === etag && !this.#fault.weakEtag));
    const wanted = takesRange ? parseRange(req.headers.range, size) : null;
    if (wanted === undefined || (fault.refuseRange && req.headers.range))
      return reply(416, { ...shared, "content-range": `bytes */${size}` });
    const [from, to] = wanted ?? [0, size];
    const headers: OutgoingHttpHeaders = {
      ...this.#cors(req),
      ...shared,
      "content-type": "application/octet-stream",
      "content-length": to - from + (fault.contentLength ?? 0),
    };
    if (wanted) {
      const right = `bytes ${from}-${to - 1}/${size}`;
      const wrong = {
        shift: `bytes ${from + 1}-${to}/${size}`,
        total: `bytes ${from}-${to - 1}/${size + 1}`,
        unit: `items ${right.slice(6)}`,
      };
      headers["content-range"] = fault.contentRange && fault.contentRange !== "missing" ? wrong[fault.contentRange] : right;
      if (fault.contentRange === "missing") delete headers["content-range"];
      if (fault.multipart) {
        delete headers["content-range"];
        delete headers["content-length"];
        headers["content-type"] = "multipart/byteranges; boundary=x";
      }
    }
    if (fault.short !== undefined || fault.gzip || fault.noLength) delete headers["content-length"];
    if (fault.gzip) headers["content-encoding"] = "gzip";
    entry.status = wanted ? 206 : 200;
    res.writeHead(entry.status, headers);
    await send({ ...at, fault }, file.bytes, from, to, wanted !== null);
  }
}

type Reply = (status: number, headers?: OutgoingHttpHeaders, body?: string) => void;

interface Place {
  readonly host: "hub" | "cdn";
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  readonly entry: Request;
  readonly reply: Reply;
  readonly url: URL;
  readonly repo: Repo;
  readonly name: string;
}

async function send(
  { req, res, entry, fault }: Place & { fault: Fault },
  bytes: Buffer,
  from: number,
  to: number,
  isPart: boolean,
): Promise<void> {
  const cut = fault.drop ?? fault.stall ?? (fault.short === undefined ? undefined : Math.max(0, to - from - fault.short));
  const limit = cut ?? ((fault.contentLength ?? 0) < 0 ? to - from + (fault.contentLength ?? 0) : Number.POSITIVE_INFINITY);
  const step = fault.chunk ?? fault.drip?.[0] ?? 65_536;
  const body = Buffer.from(bytes.subarray(from, Math.min(to, from + limit)));
  if (fault.flip !== undefined && fault.flip >= from && fault.flip < from + body.length) body[fault.flip - from]! ^= 1;
  if (fault.gzip) {
    const packed = gzipSync(body);
    entry.sentBytes = packed.length;
    return void res.end(packed);
  }
  const isMultipart = fault.multipart === true && isPart;
  if (isMultipart)
    res.write(`--x\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes ${from}-${to - 1}/${bytes.length}\r\n\r\n`);
  req.socket.setNoDelay(true);
  for (let at = 0; at < body.length && !res.destroyed; at += step) {
    const piece = body.subarray(at, at + step);
    entry.sentBytes += piece.length;
    if (!res.write(piece)) await drained(res);
    if (fault.drip) await pause(fault.drip[1], req.socket);
    else if (fault.chunk && at % 1024 === 0) await new Promise(setImmediate);
  }
  if (fault.stall !== undefined && fault.stall < to - from) return; // the socket stays open until somebody closes it
  if (fault.drop !== undefined && fault.drop < to - from) {
    await new Promise<void>((resolve) => void res.write("", () => resolve()));
    await pause(5, req.socket);
    return void req.socket.destroy();
  }
  if ((fault.contentLength ?? 0) > 0) {
    await pause(20, req.socket);
    return void req.socket.destroy();
  }
  res.end(isMultipart ? "\r\n--x--\r\n" : undefined);
}

function drained(res: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const go = (): void => {
      res.off("drain", go);
      res.off("close", go);
      resolve();
    };
    res.on("drain", go);
    res.on("close", go);
  });
}

/** @param content repositories by `org/name`, their files by path */
export async function serve(content: Readonly<Record<string, Readonly<Record<string, Uint8Array | string>>>>): Promise<BadServer> {
  const repos = new Map<string, Repo>();
  for (const [id, files] of Object.entries(content))
    repos.set(id, { commit: hash("sha1", id), files: new Map(Object.entries(files).map(([name, bytes]) => [name, fileOf(name, bytes)])) });
  const answers = new Answers(repos);
  const sockets = new Set<Socket>();
  const start = (host: "hub" | "cdn"): Promise<Server> =>
    new Promise((resolve, reject) => {
      const server = createServer((req, res) => {
        answers.answer(host, req, res).catch((error: Error) => res.destroy(error));
      });
      server.on("connection", (socket) => {
        sockets.add(socket);
        socket.on("error", () => {});
        socket.on("close", () => sockets.delete(socket));
      });
      server.on("error", reject).listen(0, "127.0.0.1", () => resolve(server));
    });
  const servers = [await start("hub"), await start("cdn")] as const;
  const [hub, cdn] = servers.map((s) => `http://127.0.0.1:${(s.address() as AddressInfo).port}`) as [string, string];
  Object.assign(answers, { hub, cdn });
  return {
    hub,
    cdn,
    log: answers.log,
    get open() {
      return sockets.size;
    },
    get busy() {
      return answers.log.filter((r) => !r.isOver).length;
    },
    set: (fault) => answers.set(fault),
    replace: (repo, name, bytes) => void repos.get(repo)?.files.set(name, fileOf(name, bytes)),
    closeIdle: () => servers.forEach((s) => void s.closeIdleConnections()),
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await Promise.all(servers.map((s) => new Promise((resolve) => s.close(resolve))));
    },
  };
}
