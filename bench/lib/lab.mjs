// Kernels by themselves: a memory with room, commands by the names of their arguments as assembly/README.md has them, matrices whose values a reference knows.
import { readFileSync } from "node:fs";
import { instantiateSync } from "@assemblyscript/loader";
import { check } from "./measure.mjs";

export const CODES = { f32: 0, f16: 1, bf16: 2, q8: 3, q4: 4, q4k: 21, q6k: 23 };
const FLOATS = new Set(["eps", "scale", "factor"]);
const COMMAND_BYTES = 64;

export const up = (n, to) => Math.ceil(n / to) * to;

export const EPS = 1e-5;
export const rms = (x) => Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length + EPS);

/** A value against its reference, relative to that where it is large. */
export const near = (got, expected, tolerance, what) =>
  check(Math.abs(got - expected) <= tolerance * Math.max(1, Math.abs(expected)), `${what}: expected ${expected}, got ${got}`);

/** "attention_f32, _f16" are two names. */
const expand = (names) =>
  names.split(",").map((name, _, all) => (name.trim().startsWith("_") ? all[0].replace(/_[a-z0-9]+$/, name.trim()) : name.trim()));

/** Ops by name: number, and names of the arguments. */
const abi = new Map();
for (const [, numbers, names, args] of readFileSync("assembly/README.md", "utf8").matchAll(
  /^\| ([\d, ]+) \| ([a-z0-9_, ]+) \| ([^|]*) \|/gm,
))
  expand(names).forEach((name, i) => {
    abi.set(name, { op: Number(numbers.split(",")[i]), args: args.trim() ? args.trim().split(/, */) : [] });
  });

/** Random bits: xorshift, the same for a seed. */
function fill(words, seed) {
  let x = seed * 2654435769 + 1;
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = x;
  }
}

/** f16 bits of a number from 2^-8 to 2^-7, and the number. */
const scaleOf = (bits) => ({ half: 0x1c00 | (bits & 0x3ff), value: 2 ** -8 * (1 + (bits & 0x3ff) / 1024) });

/** `count` stored rows of K values, the same for a seed. @returns their bytes, and a function that gives row r in float64 */
function storedRows(dtype, count, K, seed) {
  if (dtype === "f32" || dtype === "bf16" || dtype === "f16") {
    const words = new Uint32Array((count * K * (dtype === "f32" ? 4 : 2)) / 4);
    fill(words, seed);
    // signs and mantissas stay, exponents become that of [2^-6, 2^-5)
    const [keep, exponent] = { f32: [0x807fffff, 121 << 23], bf16: [0x807f807f, (121 << 7) * 65537], f16: [0x83ff83ff, (9 << 10) * 65537] }[
      dtype
    ];
    for (let i = 0; i < words.length; i++) words[i] = (words[i] & keep) | exponent;
    const bytes = new Uint8Array(words.buffer);
    const halves = new Uint16Array(words.buffer);
    const floats = new Float32Array(words.buffer);
    const one = new Float32Array(1);
    const bits = new Uint32Array(one.buffer);
    const value = (i) => {
      if (dtype === "f32") return floats[i];
      if (dtype === "f16") return (halves[i] & 0x8000 ? -1 : 1) * 2 ** -6 * (1 + (halves[i] & 0x3ff) / 1024);
      bits[0] = halves[i] << 16;
      return one[0];
    };
    return { bytes, row: (r) => Float64Array.from({ length: K }, (_, k) => value(r * K + k)) };
  }
  if (dtype === "q4k" || dtype === "q6k") return storedSuperBlocks(dtype, count, K, seed);
  const blockBytes = dtype === "q8" ? 34 : 18;
  const blocks = (count * K) / 32;
  const bytes = new Uint8Array(up(blocks * blockBytes, 4));
  fill(new Uint32Array(bytes.buffer), seed);
  for (let b = 0; b < blocks; b++) {
    const { half } = scaleOf(bytes[b * blockBytes] | (bytes[b * blockBytes + 1] << 8));
    bytes[b * blockBytes] = half & 255;
    bytes[b * blockBytes + 1] = half >> 8;
  }
  const row = (r) =>
    Float64Array.from({ length: K }, (_, k) => {
      const at = ((r * K) / 32 + (k >> 5)) * blockBytes;
      const { value } = scaleOf(bytes[at] | (bytes[at + 1] << 8));
      const i = k & 31;
      if (dtype === "q8") return value * ((bytes[at + 2 + i] << 24) >> 24);
      return value * (((i < 16 ? bytes[at + 2 + i] : bytes[at + 2 + i - 16] >> 4) & 15) - 8);
    });
  return { bytes: bytes.subarray(0, blocks * blockBytes), row };
}

const signed = (byte) => (byte << 24) >> 24;

/** Q4_K and Q6_K: 256 values in 144 and 210 bytes, laid out as assembly/README.md has them. */
const SUPER = {
  q4k: {
    size: 144,
    halves: [0, 2],
    value: (b, at, k) => {
      const [g, low] = [k >> 5, at + 4];
      const scale = g < 4 ? b[low + g] & 63 : (b[low + g + 4] & 15) | ((b[low + g - 4] >> 6) << 4);
      const minimum = g < 4 ? b[low + g + 4] & 63 : (b[low + g + 4] >> 4) | ((b[low + g] >> 6) << 4);
      const q = (b[at + 16 + 32 * (k >> 6) + (k & 31)] >> (k & 32 ? 4 : 0)) & 15;
      return scaleOf(b[at] | (b[at + 1] << 8)).value * scale * q - scaleOf(b[at + 2] | (b[at + 3] << 8)).value * minimum;
    },
  },
  q6k: {
    size: 210,
    halves: [208],
    value: (b, at, k) => {
      const low = (b[at + 64 * (k >> 7) + (k & 63)] >> (k & 64 ? 4 : 0)) & 15;
      const high = (b[at + 128 + 32 * (k >> 7) + (k & 31)] >> (2 * ((k >> 5) & 3))) & 3;
      return scaleOf(b[at + 208] | (b[at + 209] << 8)).value * signed(b[at + 192 + (k >> 4)]) * (low + 16 * high - 32);
    },
  },
};

function storedSuperBlocks(dtype, count, K, seed) {
  const { size, halves, value } = SUPER[dtype];
  const perRow = K / 256;
  const bytes = new Uint8Array(up(count * perRow * size, 4));
  fill(new Uint32Array(bytes.buffer), seed);
  for (let b = 0; b < count * perRow; b++)
    for (const at of halves) {
      const { half } = scaleOf(bytes[b * size + at] | (bytes[b * size + at + 1] << 8));
      bytes.set([half & 255, half >> 8], b * size + at);
    }
  const row = (r) => Float64Array.from({ length: K }, (_, k) => value(bytes, (r * perRow + (k >> 8)) * size, k & 255));
  return { bytes: bytes.subarray(0, count * perRow * size), row };
}

/** Rows that are made at a time: a multiple of 8. */
const WINDOW = 512;

/** One build of the kernels on a memory of its own. */
export class Lab {
  #next = 65536;

  constructor(variant) {
    this.variant = variant;
    this.memory = new WebAssembly.Memory({ initial: 1024, maximum: 65536 });
    const module = new WebAssembly.Module(readFileSync(`dist/kernels.${variant}.wasm`));
    this.kernels = instantiateSync(module, { env: { memory: this.memory } }).exports;
    this.commands = this.room(64 * COMMAND_BYTES);
    this.start = this.#next;
  }

  /** Forgets all buffers. */
  reset() {
    this.#next = this.start;
  }

  /** @returns the address of so many bytes, 64-byte aligned; what they hold is anything */
  room(bytes) {
    const at = this.#next;
    this.#next = up(at + bytes + 64, 64);
    const missing = this.#next - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / 65536));
    return at;
  }

  put(values) {
    const at = this.room(values.byteLength);
    new Uint8Array(this.memory.buffer, at).set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    return at;
  }

  floats(at, count) {
    return new Float32Array(this.memory.buffer, at, count);
  }

  /** n random floats of about unit size; the same for a seed. */
  random(count, seed) {
    const values = new Float32Array(count);
    const words = new Uint32Array(count);
    fill(words, seed);
    for (let i = 0; i < count; i++) values[i] = (words[i] | 0) / 2 ** 30;
    return values;
  }

  has(name) {
    return abi.has(name) && this.kernels.Op[name] !== undefined;
  }

  /** Writes commands, each [name, arguments by name]; what is not named is 0. @returns a function that runs them */
  record(...commands) {
    const address = this.room(commands.length * COMMAND_BYTES);
    const words = new Uint32Array(this.memory.buffer, address, (commands.length * COMMAND_BYTES) / 4);
    words.fill(0);
    const bits = new DataView(new ArrayBuffer(4));
    commands.forEach(([name, given], c) => {
      const { op, args } = abi.get(name);
      words[16 * c] = op;
      args.forEach((arg, i) => {
        const value = given[arg] ?? 0;
        if (FLOATS.has(arg)) bits.setFloat32(0, value, true);
        words[16 * c + 1 + i] = FLOATS.has(arg) ? bits.getUint32(0, true) : value;
      });
    });
    const { run } = this.kernels;
    return () => run(address, commands.length, 0, 1);
  }

  packedBytes(dtype, N, K) {
    return (up(N, 8) / 8) * (up(K, 32) / 32) * this.kernels.packed_block_bytes(CODES[dtype]);
  }

  descriptor(dtype, N, K, address) {
    return this.put(Uint32Array.of(1, K, up(K, 32), up(N, 8), CODES[dtype], N, up(N, 8), address));
  }

  /** Packs random rows (N, K). @returns addresses of `copies` equal matrices' descriptors, and a function that gives row r in float64 */
  matrix(dtype, N, K, seed, copies = 1) {
    const bytes = this.packedBytes(dtype, N, K);
    const first = this.room(bytes);
    const scratch = this.room(8 * up(K, 32) * 4);
    let window = 0;
    for (let row = 0; row < N; row += WINDOW) {
      const count = Math.min(WINDOW, N - row);
      const stored = storedRows(dtype, count, K, seed + row);
      window ||= this.room(stored.bytes.length);
      new Uint8Array(this.memory.buffer, window).set(stored.bytes);
      this.kernels.pack_rows(first, CODES[dtype], row, window, CODES[dtype], count, K, scratch);
    }
    const addresses = [first];
    for (let i = 1; i < copies; i++) {
      const address = this.room(bytes);
      new Uint8Array(this.memory.buffer).copyWithin(address, first, first + bytes);
      addresses.push(address);
    }
    const row = (r) => storedRows(dtype, Math.min(WINDOW, N - (r - (r % WINDOW))), K, seed + r - (r % WINDOW)).row(r % WINDOW);
    return { bytes, row, descriptors: addresses.map((address) => this.descriptor(dtype, N, K, address)) };
  }
}

/** Stored bytes and float64 rows, for who packs by hand. */
export { storedRows };
