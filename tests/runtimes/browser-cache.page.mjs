// What the tests of a browser's cache run in a page or a worker there: the packed package, and the stores' own suite. It is bundled, and called by name with JSON.
import { availability, inspect, listModels, load, pull, removeModel } from "lfm2-wasm";
import { cacheStorage } from "../../src/adapters/browser/cache-storage.ts";
import { browserImages } from "../../src/adapters/browser/images.ts";
import { opfs } from "../../src/adapters/browser/opfs.ts";
import { ShelfStore } from "../../src/weights/shelf-store.ts";
import { run } from "./browser-stores.mjs";

/** Loads, and generates a little. `skipped`: what the event "cache-skipped" said. */
async function start(source, options) {
  const events = [];
  const model = await load(source, { ...options, onProgress: (event) => events.push(event) });
  const { tokens } = await model.generate("Hello", { maxTokens: 4, temperature: 0 });
  const { packedImage } = model.info;
  model.dispose();
  const skipped = events.find(({ phase }) => phase === "cache-skipped")?.reason;
  return { tokens: [...tokens], packedImage, phases: [...new Set(events.map(({ phase }) => phase))], skipped };
}

/** What the calls without a load say of an address that may be relative to the page. */
async function ask(address) {
  const { format } = await inspect(address);
  const { status, downloadBytes } = await availability(address);
  return [format, status, downloadBytes, await pull(address).catch(({ message }) => message)];
}

const root = () => navigator.storage.getDirectory();

/** Puts a file beside the cache, as a page of its own might. @returns its handle */
async function put(url) {
  const handle = await (await root()).getFileHandle("mine.gguf", { create: true });
  const writable = await handle.createWritable();
  await writable.write(await (await fetch(url)).arrayBuffer());
  await writable.close();
  return handle;
}

/** The bytes of a packed image of the test's own: its number, again and again. */
const PIECE = new Uint8Array(1 << 18);
const FOLDER = "suite-images";

/** Writes an image; older ones give way. @returns whether it was kept */
async function putImage(number, sizeBytes, mostBytes) {
  const images = await browserImages(FOLDER, mostBytes);
  const sink = await images.create(`image-${number}`, sizeBytes);
  if (!sink) return false;
  for (let left = sizeBytes; left > 0; left -= PIECE.length) await sink.write(PIECE.fill(number).subarray(0, left));
  await sink.commit();
  return true;
}

/** @returns the numbers of the images that open, each of them whole */
async function wholeImages(sizeBytes) {
  const images = await browserImages(FOLDER);
  const whole = [];
  for (const name of (await images.names()).sort()) {
    const image = await images.open(name);
    if (!image) continue;
    const number = Number(name.slice("image-".length));
    const bytes = await image.read(0, image.size);
    await image.close?.();
    if (bytes.length !== sizeBytes || !bytes.every((byte) => byte === number)) throw new Error(`${name} is torn: ${bytes.length} bytes`);
    whole.push(number);
  }
  return whole;
}

/** Waits until nobody holds a lock: what an aborted call had begun to write has been given back. */
async function untilFree() {
  while ((await navigator.locks.query()).held.length > 0) await new Promise((go) => setTimeout(go, 2));
}

/** Runs a call and aborts it when so many bytes of files have arrived, to the byte. @returns how it ended, and how many came */
async function abortedAt(bytes, name, id, options) {
  const control = new AbortController();
  let came = 0;
  const read = async (reader, rest) => {
    if (came >= bytes) {
      control.abort();
      return new Promise(() => {}); // what would come is not heard of any more
    }
    const { done, value } = rest.value ? { done: false, value: rest.value } : await reader.read();
    if (done) return { done };
    const part = value.subarray(0, bytes - came);
    rest.value = part.length < value.length ? value.subarray(part.length) : undefined;
    came += part.length;
    return { done: false, value: part };
  };
  const fetchSome = async (url, init) => {
    const response = await fetch(url, init);
    const { status, type, url: from, headers, body } = response;
    if (!body || !new URL(from).pathname.startsWith("/repos/")) return response;
    const getReader = () => {
      const reader = body.getReader();
      const rest = {};
      return { read: () => read(reader, rest), cancel: () => reader.cancel() };
    };
    return { status, type, url: from, headers, body: { getReader, cancel: () => body.cancel() } };
  };
  try {
    await calls[name](id, { ...options, fetch: fetchSome, signal: control.signal });
    return { ended: "well", came };
  } catch (error) {
    return { ended: error.name, came };
  } finally {
    await untilFree();
  }
}

/** @returns the SHA-256 of each file of a repository that the cache has whole */
async function hashes(kind, repo) {
  const store = new ShelfStore(await (kind === "opfs" ? opfs : cacheStorage)("lfm2-wasm"));
  const out = [];
  for (const { id, revisions } of await store.list()) {
    for (const { commit, files } of id === repo ? revisions : []) {
      for (const file of files) {
        const source = await store.open({ ...file, repo, commit });
        const digest = await crypto.subtle.digest("SHA-256", await source.read(0, source.size));
        await source.close?.();
        out.push([...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join(""));
      }
    }
  }
  return out;
}

const calls = {
  abortedAt,
  hashes,
  start,
  putImage,
  ask,
  wholeImages,
  pull,
  listModels,
  removeModel,
  conformance: async (kind, sizeBytes) => run({}, { kind, sizeBytes }),
  startHandle: async (url, options) => start(await put(url), options),
  files: async () => {
    const out = [];
    const walk = async (folder, prefix) => {
      for await (const [name, handle] of folder.entries()) {
        if (handle.kind === "directory") await walk(handle, `${prefix}${name}/`);
        else out.push(prefix + name);
      }
    };
    await walk(await root(), "");
    return out;
  },
};

/** @returns what a call gives, or its error by name, code and message */
async function call(name, args) {
  try {
    return { value: await calls[name](...args) };
  } catch (error) {
    const { name, code, message } = error;
    return { error: { name, code, message } };
  }
}

const scope = globalThis;
if (typeof scope.document === "object") {
  scope.inPage = call;
  const worker = new scope.Worker("/module.js", { type: "module" });
  const waiting = new Map();
  let count = 0;
  worker.onmessage = ({ data }) => waiting.get(data.id)?.(data.answer);
  scope.inWorker = (name, args) =>
    new Promise((resolve) => {
      waiting.set(++count, resolve);
      worker.postMessage({ id: count, name, args });
    });
  scope.document.title = "ready";
} else
  scope.onmessage = async ({ data }) => {
    scope.postMessage({ id: data.id, answer: await call(data.name, data.args) });
  };
