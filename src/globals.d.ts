// The few Web globals that every supported runtime has. The core is compiled with no DOM and no Node types; what is not here does not exist for it.

// ---- text and files: UTF-8 ----
interface TextDecoder {
  decode(input?: ArrayBufferView | ArrayBufferLike, options?: { stream?: boolean }): string;
}
declare var TextDecoder: { prototype: TextDecoder; new (label?: string, options?: { fatal?: boolean; ignoreBOM?: boolean }): TextDecoder };
declare function atob(base64: string): string;
interface TextEncoder {
  encode(input?: string): Uint8Array<ArrayBuffer>;
}
declare var TextEncoder: { prototype: TextEncoder; new (): TextEncoder };
// ---- end of text and files ----

// ---- abort ----
interface AbortSignal {
  readonly aborted: boolean;
  readonly reason: unknown;
}
declare var AbortController: { prototype: AbortController; new (): AbortController };
interface AbortController {
  readonly signal: AbortSignal;
  abort(reason?: unknown): void;
}
// ---- end of abort ----

// ---- network: timers; fetch itself is handed over by the adapter ----
declare function setTimeout(callback: () => void, ms: number): unknown;
declare function clearTimeout(timer: unknown): void;
// ---- end of network ----

// ---- engine and façade: event loop, clock, addresses ----
declare var MessageChannel: { new (): object };
declare function structuredClone<T>(value: T): T;
declare var performance: { now(): number };
interface AbortSignal {
  addEventListener(type: "abort", listener: () => void, options?: { once?: boolean }): void;
  removeEventListener(type: "abort", listener: () => void): void;
}
interface URL {
  readonly href: string;
  readonly protocol: string;
  readonly pathname: string;
  readonly origin: string;
  readonly host: string;
  readonly search: string;
  readonly username: string;
  readonly password: string;
}
declare var URL: { prototype: URL; new (url: string, base?: string | URL): URL };
interface ImportMeta {
  readonly url: string;
}
// ---- end of engine and façade ----

// ---- server: a fetch handler's request and answer ----
interface Headers {
  get(name: string): string | null;
  has(name: string): boolean;
  set(name: string, value: string): void;
}
interface ReadableStreamDefaultReader<T> {
  read(): Promise<{ readonly done: false; readonly value: T } | { readonly done: true; readonly value?: undefined }>;
  cancel(reason?: unknown): Promise<void>;
}
interface ReadableStreamDefaultController<T> {
  enqueue(value: T): void;
  close(): void;
}
interface WritableStream<W> {
  abort(reason?: W): Promise<void>;
}
interface ReadableStream<T> {
  getReader(): ReadableStreamDefaultReader<T>;
  pipeThrough<R>(through: { readonly readable: ReadableStream<R>; readonly writable: WritableStream<T> }): ReadableStream<R>;
}
declare var ReadableStream: {
  prototype: ReadableStream<unknown>;
  new <T>(
    source: { pull?(controller: ReadableStreamDefaultController<T>): Promise<void>; cancel?(reason?: unknown): Promise<void> },
    strategy?: { readonly highWaterMark?: number },
  ): ReadableStream<T>;
};
interface Request {
  readonly method: string;
  readonly url: string;
  readonly headers: Headers;
  readonly body: ReadableStream<Uint8Array> | null;
  readonly signal: AbortSignal;
}
interface Response {
  readonly status: number;
  readonly headers: Headers;
}
declare var Response: {
  prototype: Response;
  new (body: string | ReadableStream<Uint8Array> | null, init?: { status?: number; headers?: Readonly<Record<string, string>> }): Response;
};
declare var crypto: { randomUUID(): string };
// ---- end of server ----
