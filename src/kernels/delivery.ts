// From whatever a build of the kernels comes as to a compiled module: compiled once in each thread that loads, by streaming where that works, with an error that says what to
// do where it does not. Must not know where the files lie: an adapter or the caller names them.
import { InputError, PlatformError, UnsupportedError } from "../errors.ts";
import { type WasmModule, WebAssembly } from "../memory/wasm.ts";
import { isRecord, kindOf } from "../values.ts";
import { KERNEL_BUILDS, type KernelBuild, type KernelSource } from "./variants.ts";

/** What is used of a `Response`. */
export interface WasmResponse {
  readonly ok: boolean;
  readonly status: number;
  readonly url: string;
  readonly headers: { get(name: string): string | null };
  arrayBuffer(): Promise<ArrayBuffer>;
}

/** A build of the kernels: a compiled module, its address, an answer of `fetch`, its bytes. */
export type WasmInput = WasmModule | URL | string | WasmResponse | Uint8Array | ArrayBuffer;

/** One build, which computes in one thread; or several by name, of which the best one that the engine runs is taken. */
export type WasmOption = WasmInput | Readonly<Partial<Record<KernelBuild, WasmInput>>>;

/** Gets the file at an address. */
export type FetchWasm = (address: URL | string) => Promise<WasmResponse | Uint8Array>;

const MAGIC = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
/** A module of nothing: what refuses this one compiles none. */
const EMPTY = Uint8Array.from(MAGIC);
/** A module whose only function returns v128.const 0. */
const SIMD = Uint8Array.from([
  ...MAGIC,
  1,
  5,
  1,
  0x60,
  0,
  1,
  0x7b,
  3,
  2,
  1,
  0,
  10,
  22,
  1,
  20,
  0,
  0xfd,
  12,
  ...new Array<number>(16).fill(0),
  0x0b,
]);
/** … i32x4.relaxed_dot_i8x16_i7x16_add_s of three of its arguments. */
const RELAXED = Uint8Array.from([
  ...[...MAGIC, 1, 8, 1, 0x60, 3, 0x7b, 0x7b, 0x7b, 1, 0x7b, 3, 2, 1, 0],
  ...[10, 13, 1, 11, 0, 0x20, 0, 0x20, 1, 0x20, 2, 0xfd, 0x93, 2, 0x0b],
]);

/** Whether the engine has the instructions of a build; without asking, a build that it cannot run would be fetched first. */
const runs = (build: KernelBuild): boolean => WebAssembly.validate(build.startsWith("relaxed") ? RELAXED : SIMD);

/** Modules by the address that they came from, and by the object that was handed over. */
const byAddress = new Map<string, Promise<WasmModule>>();
const byObject = new WeakMap<object, Promise<WasmModule>>();

const isModule = (input: unknown): boolean => Object.prototype.toString.call(input) === "[object WebAssembly.Module]";
const isResponse = (input: object): input is WasmResponse => "arrayBuffer" in input && "headers" in input;
const isUrl = (input: object): input is URL => "href" in input && "protocol" in input;

function isInput(input: unknown): input is WasmInput {
  if (typeof input === "string") return true;
  if (typeof input !== "object" || input === null) return false;
  return isModule(input) || input instanceof Uint8Array || input instanceof ArrayBuffer || isResponse(input) || isUrl(input);
}

/** @throws UnsupportedError in an engine that has no WebAssembly SIMD */
function checkEngine(): void {
  if (runs("plain")) return;
  throw new UnsupportedError(
    "kernels: expected an engine with WebAssembly SIMD, got one without. Use Chrome or Edge 110, Firefox 115, Safari 16.4, Node 20.19, Deno 2, Bun 1 or newer.",
    { code: "no-simd" },
  );
}

async function bytesOf(response: WasmResponse): Promise<Uint8Array> {
  return new Uint8Array(await response.arrayBuffer());
}

const HELP =
  'Copy the .wasm files from "lfm2-wasm/dist" beside the bundle, pass their addresses as load(…, { wasm }), or import { load } from "lfm2-wasm/inline", which needs no files.';

function noFile(address: string, got: string, cause?: unknown): PlatformError {
  return new PlatformError(`kernels: expected a WebAssembly file at ${address}, got ${got}. ${HELP}`, { code: "no-wasm", cause });
}

async function compileBytes(bytes: Uint8Array, address: string): Promise<WasmModule> {
  try {
    return await WebAssembly.compile(bytes);
  } catch (cause) {
    await checkCompiles();
    if (MAGIC.some((byte, i) => bytes[i] !== byte)) throw noFile(address, "bytes of another kind", cause);
    throw new PlatformError(
      `kernels: expected a build that this engine compiles at ${address}, got an error: ${(cause as Error).message}. Pass the files of this version of the package.`,
      { code: "no-wasm", cause },
    );
  }
}

/** @throws PlatformError where nothing may be compiled */
async function checkCompiles(): Promise<void> {
  try {
    await WebAssembly.compile(EMPTY);
  } catch (cause) {
    throw new PlatformError(
      `kernels: expected a runtime that compiles WebAssembly, got one that refuses: ${(cause as Error).message}. ` +
        "In a page with a Content-Security-Policy, allow 'wasm-unsafe-eval' in script-src. " +
        'In a runtime that compiles no bytes, such as an edge worker, pass load(…, { wasm: module }) with import module from "lfm2-wasm/kernels.relaxed.wasm".',
      { code: "no-compile", cause },
    );
  }
}

async function compileResponse(response: WasmResponse, address: string): Promise<WasmModule> {
  if (!response.ok) throw noFile(address, `status ${response.status}`);
  const type = response.headers.get("content-type") ?? "";
  if (/^text\/html/i.test(type)) throw noFile(address, "an HTML page");
  // by its type, not by trying: a stream that failed leaves nothing to try again with
  if (!WebAssembly.compileStreaming || !/^application\/wasm\b/i.test(type)) return compileBytes(await bytesOf(response), address);
  try {
    return await WebAssembly.compileStreaming(response);
  } catch (cause) {
    await checkCompiles();
    throw noFile(address, `an error: ${(cause as Error).message}`, cause);
  }
}

async function compileAddress(address: URL | string, fetchWasm: FetchWasm): Promise<WasmModule> {
  const name = String(address);
  let got: WasmResponse | Uint8Array;
  try {
    got = await fetchWasm(address);
  } catch (cause) {
    throw noFile(name, `an error: ${(cause as Error).message}`, cause);
  }
  return got instanceof Uint8Array ? compileBytes(got, name) : compileResponse(got, name);
}

/** Remembers what comes of `make`, unless it fails. */
function once<K>(
  map: { get(key: K): Promise<WasmModule> | undefined; set(key: K, value: Promise<WasmModule>): unknown; delete(key: K): unknown },
  key: K,
  make: () => Promise<WasmModule>,
): Promise<WasmModule> {
  const known = map.get(key);
  if (known) return known;
  const made = make();
  map.set(key, made);
  made.catch(() => map.delete(key));
  return made;
}

/**
 * @returns the compiled module; the same one each time for the same address or object
 * @throws PlatformError that says what to do where the file is missing or compiling is forbidden
 */
export function compileWasm(input: WasmInput, fetchWasm: FetchWasm): Promise<WasmModule> {
  if (isModule(input)) return Promise.resolve(input as WasmModule);
  if (typeof input === "string" || isUrl(input)) return once(byAddress, String(input), () => compileAddress(input, fetchWasm));
  if (input instanceof Uint8Array) return once(byObject, input, () => compileBytes(input, "the bytes of load's wasm option"));
  if (input instanceof ArrayBuffer)
    return once(byObject, input, () => compileBytes(new Uint8Array(input), "the bytes of load's wasm option"));
  return once(byObject, input, () =>
    compileResponse(input as WasmResponse, (input as WasmResponse).url || "the response of load's wasm option"),
  );
}

/** @throws InputError for anything else than a WasmOption */
export function checkWasmOption(wasm: unknown): void {
  if (wasm === undefined || isInput(wasm)) return;
  if (isRecord(wasm)) {
    const wrong = Object.entries(wasm).find(([name, input]) => KERNEL_BUILDS.every((build) => build !== name) || !isInput(input));
    if (!wrong && Object.keys(wasm).length > 0) return;
  }
  throw new InputError(
    `load: wasm: expected a module, a URL, a response or bytes of kernels.*.wasm, or an object of these by ${KERNEL_BUILDS.join(", ")}; got ${kindOf(wasm)}${isRecord(wasm) ? ` with ${Object.keys(wasm).join(", ") || "nothing"}` : ""}.`,
  );
}

/**
 * @param wasm builds by name, or one build that computes in one thread
 * @returns the source that `instantiateKernels` asks: a build that the engine lacks instructions for is not there, and not fetched
 */
export function kernelSource(wasm: WasmOption, fetchWasm: FetchWasm): KernelSource {
  const one = isInput(wasm) ? wasm : undefined;
  const byName = wasm as Readonly<Partial<Record<KernelBuild, WasmInput>>>;
  return async (build) => {
    checkEngine();
    if (!runs(build)) return undefined;
    if (one !== undefined) return build.endsWith("-threads") ? undefined : compileWasm(one, fetchWasm);
    const input = byName[build];
    return input === undefined ? undefined : compileWasm(input, fetchWasm);
  };
}
