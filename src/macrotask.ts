// Gives the runtime's event loop a turn between two steps of long work, so that signals, timers and input act. Knows no work.

/** What is used of a port; runtimes type it differently. */
interface Port {
  onmessage: (() => void) | null;
  postMessage(message: unknown): void;
}

/** @returns a function whose promise resolves when a message has gone through a channel of its own. */
function openTurnstile(): () => Promise<void> {
  const channel = new MessageChannel() as unknown as { readonly port1: Port; readonly port2: Port };
  const waiting: (() => void)[] = [];
  const turn = (): void => {
    const resume = waiting.shift();
    // A port with a listener keeps Node alive: it listens only while somebody waits.
    if (waiting.length === 0) channel.port1.onmessage = null;
    resume?.();
  };
  return () =>
    new Promise((resolve) => {
      waiting.push(resolve);
      channel.port1.onmessage = turn;
      channel.port2.postMessage(0);
    });
}

// Two in turn: Node hands out up to 1000 messages of one port before it looks at timers, signals and sockets, those posted meanwhile included.
const turnstiles = [openTurnstile(), openTurnstile()] as const;
let next: 0 | 1 = 0;

/** @returns a promise that resolves in a macrotask of its own: about 10 µs where `setTimeout(0)` would take 1 to 4 ms. */
export function nextMacrotask(): Promise<void> {
  next = next === 0 ? 1 : 0;
  return turnstiles[next]();
}
