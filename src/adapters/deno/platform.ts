// What Deno gives to the core, in this thread and in a worker: Node's modules, as far as permissions go, and a turn of the event loop that lets sockets be heard.
import type { Platform } from "../../lfm2.ts";
import { byMessage } from "../../macrotask.ts";
import { nodePlatform } from "../node/platform.ts";

/** What is used of Deno's own. */
declare const Deno: {
  readonly permissions: {
    querySync(
      what: { readonly name: "env"; readonly variable: string } | { readonly name: "read" | "write"; readonly path: URL | string },
    ): {
      readonly state: string;
    };
  };
  readonly env: { get(name: string): string | undefined };
};

const may = (name: "read" | "write", path: string): boolean => Deno.permissions.querySync({ name, path }).state === "granted";

export const platform: Platform = nodePlatform({
  runtime: "deno",
  // without asking: nobody should have to answer for a variable that he never heard of
  variable: (name) => (Deno.permissions.querySync({ name: "env", variable: name }).state === "granted" ? Deno.env.get(name) : undefined),
  mayUse: (folder) => may("read", folder) && may("write", folder),
  mayRead: (path) => may("read", path),
  unreadable: (path) => (may("read", path) ? undefined : "Deno may not look for a path of that name (--allow-read)"),
  otherwise: async (build) => (await import("./modules.ts")).modules[build]?.(),
});

/** A thread is a file that is started, which takes the permission to read it. */
export function here(): Platform {
  const { state } = Deno.permissions.querySync({ name: "read", path: new URL(".", import.meta.url) });
  return state === "granted" ? platform : { ...platform, threads: undefined };
}

/** How long sockets may wait. */
const BREATH_MS = 4;
let lastBreath = 0;
let breath: Promise<void> | undefined;

/**
 * Deno looks at its sockets after every 61 turns, or when it has nothing to do (measured: an answer took 200 ms among steps of 1 ms). So now and then a
 * step is followed by a timer, which lets it have nothing to do for a millisecond; whoever comes meanwhile waits for it too.
 */
export async function denoTurn(): Promise<void> {
  const now = performance.now();
  if (!breath && now - lastBreath > BREATH_MS) {
    lastBreath = now;
    breath = new Promise((resolve) => {
      setTimeout(() => {
        breath = undefined;
        resolve();
      }, 0);
    });
    return breath;
  }
  await breath;
  return new Promise((resolve) => void setImmediate(resolve));
}

/**
 * A turn in a worker. What the thread that started it posts is heard after 61 turns, too (measured: an abort came 24 steps of 0.25 ms late, with the breath up to 9); behind a message
 * of its own the worker hears it at once (measured: before the second step). That costs 16 µs a step.
 */
export async function denoWorkerTurn(): Promise<void> {
  await new Promise<void>(byMessage);
  return denoTurn();
}
