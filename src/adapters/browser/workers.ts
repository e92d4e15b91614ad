// The engine in a Web Worker: what `engine: "auto"` means in a page, whose own thread then never computes.
import type { EngineWorkers } from "../../remote/workers.ts";
import { startWorker, type WebWorker } from "./start.ts";
import { MAY_HANG, nestsSafely, startThread } from "./threads.ts";

declare const Worker: new (address: URL, options: { readonly type: "module" }) => WebWorker;

/** As it stands: Vite and webpack build the file that this names, and put its address here. */
const fromFile = (): WebWorker => new Worker(new URL("./worker.browser.js", import.meta.url), { type: "module" });

/** @returns where the worker's file is, which only the expression above knows once a bundler has moved it: a Worker that starts nothing is asked for it */
function addressOfFile(): string {
  const globals = globalThis as { Worker?: unknown };
  const { Worker } = globals;
  let address = "";
  globals.Worker = class {
    constructor(given: string | URL) {
      address = String(given);
    }
  };
  try {
    fromFile();
  } finally {
    globals.Worker = Worker;
  }
  return new URL(address, (globalThis as unknown as { readonly location: { readonly href: string } }).location.href).href;
}

const imported = (): string => `import ${JSON.stringify(addressOfFile())};`;

/** Where a policy holds for what a blob imports, too. The file is whole; only its own address it would not know. */
async function whole(): Promise<string> {
  const address = addressOfFile();
  const response = await fetch(address);
  if (!response.ok) throw new Error(`status ${response.status}`);
  return (await response.text()).replaceAll("import.meta.url", JSON.stringify(address));
}

/** A handle's class is there where handles are. */
const { FileSystemHandle } = globalThis as { readonly FileSystemHandle?: new () => object };

export const workers: EngineWorkers = {
  startThread,
  get isDefault() {
    return "document" in globalThis;
  },
  // a list of files does not: on the way they would forget the paths in their folder
  crosses: (source) => source instanceof Blob || (FileSystemHandle !== undefined && source instanceof FileSystemHandle),
  start: (onMessage, onEnd) => {
    if (!("Worker" in globalThis)) throw new Error("there are no workers here");
    if (!nestsSafely()) throw new Error(MAY_HANG);
    return startWorker({ fromFile, texts: [imported, whole], onMessage, onEnd });
  },
};
