// Gives the runtime's event loop a turn between two steps of long work, so that signals, timers and input act. Knows no work.

/** Resolves in a macrotask of its own. */
export type Turn = () => Promise<void>;

/** What is used of a port; runtimes type it differently. */
interface Port {
  onmessage: (() => void) | null;
  postMessage(message: unknown): void;
}

/** Where there is setImmediate (Node, Deno, Bun): its phase comes once a round of the loop, behind timers and input, and it holds no process open when nobody waits. */
const { setImmediate } = globalThis as { readonly setImmediate?: (callback: () => void) => unknown };

/** Elsewhere a message: about 10 µs where `setTimeout(0)` would take 4 ms in a browser. Made when first used: a module may be loaded where there are no channels. */
let channel: { readonly receiver: Port; readonly sender: Port } | undefined;
/** Who waits for a message, the oldest first. */
const waiting: (() => void)[] = [];

function openChannel(): NonNullable<typeof channel> {
  const { port1, port2 } = new MessageChannel() as unknown as { readonly port1: Port; readonly port2: Port };
  port1.onmessage = () => waiting.shift()?.();
  return { receiver: port1, sender: port2 };
}

/** Calls `act` behind a message to itself. */
export function byMessage(act: () => void): void {
  waiting.push(act);
  channel ??= openChannel();
  channel.sender.postMessage(0);
}

let begin: (act: () => void) => unknown = setImmediate ?? byMessage;

/** Takes a runtime's own way, where the ones above do not serve it. */
export function useTurn(own: Turn): void {
  begin = (act) => own().then(act);
}

/** Calls `act`, which throws nothing, in a macrotask of its own. Of many that wait the first comes first. */
export function inMacrotask(act: () => void): void {
  begin(act);
}

/** @returns a promise that resolves in a macrotask of its own. Many that wait resolve in the order in which they came. */
export function nextMacrotask(): Promise<void> {
  return new Promise((resolve) => inMacrotask(resolve));
}
