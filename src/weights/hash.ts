// Checksums of a stream by a small module of our own (assembly/hash.ts), for runtimes that have none: browsers hash only what is in memory as a whole.
// Only an adapter that needs it imports this file: the module lies in it as text.
import { WebAssembly } from "../memory/wasm.ts";
import type { Hash } from "./request.ts";

/** The module, base64: the build puts it here. */
declare const LFM2_HASH_WASM: string;

interface Exports {
  readonly memory: { readonly buffer: ArrayBuffer };
  readonly STATE: { readonly value: number };
  readonly INPUT: { readonly value: number };
  readonly INPUT_BYTES: { readonly value: number };
  sha256(blocks: number): void;
  sha1(blocks: number): void;
}

const START = {
  sha256: [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19],
  sha1: [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0],
} as const;

const BLOCK_BYTES = 64;

/** Small enough to be compiled on a page's main thread at once. */
let compiled: object | undefined;

function instantiate(): Exports {
  compiled ??= new WebAssembly.Module(Uint8Array.from(atob(LFM2_HASH_WASM), (c) => c.charCodeAt(0)));
  return new WebAssembly.Instance(compiled, {}).exports as unknown as Exports;
}

/** @returns a checksum under way, in a memory of its own of one page */
export function createHash(algorithm: "sha1" | "sha256"): Hash {
  const wasm = instantiate();
  const start = START[algorithm];
  const state = new Uint32Array(wasm.memory.buffer, wasm.STATE.value, start.length);
  const input = new Uint8Array(wasm.memory.buffer, wasm.INPUT.value, wasm.INPUT_BYTES.value);
  state.set(start);
  let filled = 0;
  let total = 0;
  /** Takes the whole blocks of the input, and moves what is left to its front. */
  const run = (): void => {
    const blocks = Math.floor(filled / BLOCK_BYTES);
    wasm[algorithm](blocks);
    input.copyWithin(0, blocks * BLOCK_BYTES, filled);
    filled -= blocks * BLOCK_BYTES;
  };
  const update = (bytes: Uint8Array): void => {
    for (let at = 0; at < bytes.length; ) {
      const count = Math.min(input.length - filled, bytes.length - at);
      input.set(bytes.subarray(at, at + count), filled);
      filled += count;
      at += count;
      if (filled === input.length) run();
    }
    total += bytes.length;
  };
  const digest = (): string => {
    const bits = BigInt(total) * 8n;
    const end = new Uint8Array(BLOCK_BYTES + 8 - ((total + 8) % BLOCK_BYTES)); // 1 to 64 bytes of padding, 8 of length
    end[0] = 0x80;
    new DataView(end.buffer).setBigUint64(end.length - 8, bits);
    update(end);
    run();
    return Array.from(state, (word) => word.toString(16).padStart(8, "0")).join("");
  };
  return { update, digest };
}
