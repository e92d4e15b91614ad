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
