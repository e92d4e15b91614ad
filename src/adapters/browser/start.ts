// Starts a Web Worker by its file and, where the file is refused (a policy, another origin) or not there, by a blob of text. Knows not what workers do.

/** Of a worker's events what is used. */
interface WorkerEvent {
  readonly data?: unknown;
  readonly message?: string;
  readonly filename?: string;
  readonly lineno?: number;
  preventDefault(): void;
}

/** Of the browser's Worker what is used; there are no types of the DOM. */
export interface WebWorker {
  onmessage: ((event: WorkerEvent) => void) | null;
  onmessageerror: ((event: WorkerEvent) => void) | null;
  onerror: ((event: WorkerEvent) => void) | null;
  postMessage(message: unknown, transfer?: readonly object[]): void;
  terminate(): void;
}

/** How a worker is started, and who hears of it. */
export interface WorkerStart {
  /** Makes one of its file. The expression in it must be one that bundlers know: `new Worker(new URL("./NAME.js", import.meta.url), { type: "module" })`. */
  readonly fromFile: () => WebWorker;
  /** Texts of modules that do the same, to be tried one after the other where that fails. */
  readonly texts: readonly (() => string | Promise<string>)[];
  readonly onMessage: (message: unknown) => void;
  /** Is called when it cannot start, or fails later. */
  readonly onEnd: (cause: unknown) => void;
}

/** A worker that was started. */
export interface StartedWorker {
  post(message: unknown, transfer: readonly object[]): void;
  /** Ends it. Twice does no harm. */
  end(): void;
}

function fromText(text: string): { readonly worker: WebWorker; readonly forget: () => void } {
  const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  const { Worker } = globalThis as unknown as { readonly Worker: new (address: string, options: { readonly type: "module" }) => WebWorker };
  const forget = (): void => URL.revokeObjectURL(address);
  try {
    return { worker: new Worker(address, { type: "module" }), forget };
  } catch (error) {
    forget();
    throw error;
  }
}

/** @returns what an event says; one of a file that could not be loaded says nothing */
function causeOf({ message, filename, lineno }: WorkerEvent): Error {
  return new Error(message ? `${message} (${filename ?? ""}:${lineno ?? ""})` : "its file was not there, or was refused");
}

/** @throws nothing: whatever goes wrong is told to `onEnd`, later */
export function startWorker({ fromFile, texts, onMessage, onEnd }: WorkerStart): StartedWorker {
  let worker: WebWorker | undefined;
  let isOver = false;
  let isHeard = false;
  const attempt = (made: WebWorker, failed: (cause: unknown) => void): void => {
    worker = made;
    const fail = (cause: unknown): void => {
      made.terminate();
      if (isOver || worker !== made) return;
      isOver = isHeard;
      if (isHeard) onEnd(cause);
      else failed(cause);
    };
    made.onmessage = ({ data }) => {
      isHeard = true;
      if (!isOver) onMessage(data);
    };
    made.onmessageerror = () => fail(new Error("a message that could not be read"));
    made.onerror = (event) => {
      event.preventDefault();
      fail(causeOf(event));
    };
  };
  /** By the texts from number `next` on; the file's own reason says more than theirs. */
  const byText = async (next: number, cause: unknown): Promise<void> => {
    worker?.terminate();
    const text = texts[next];
    if (!text) {
      isOver = true;
      return onEnd(cause);
    }
    try {
      const { worker: made, forget } = fromText(await text());
      if (isOver) return made.terminate();
      attempt(made, () => {
        forget();
        void byText(next + 1, cause);
      });
    } catch {
      if (!isOver) void byText(next + 1, cause);
    }
  };
  try {
    attempt(fromFile(), (cause) => void byText(0, cause));
  } catch (cause) {
    void Promise.resolve().then(() => byText(0, cause));
  }
  const end = (): void => {
    isOver = true;
    worker?.terminate();
  };
  return { post: (message, transfer) => worker?.postMessage(message, transfer), end };
}
