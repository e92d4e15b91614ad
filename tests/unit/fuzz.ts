// Seeded randomness and mutations for the tests of parsers.
import assert from "node:assert/strict";
import { Lfm2Error } from "../../src/errors.ts";
import { pick } from "../scale.ts";

/** @returns a generator of unsigned 32-bit numbers: xorshift, the same on every machine. */
export function random(seed: number): () => number {
  let x = (seed * 2654435761 + 0x9e3779b9) >>> 0 || 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>>= 0);
  };
}

/** Values on which sums, products and signs break. */
const lengths: readonly bigint[] = [
  0n,
  1n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 32n,
  2n ** 53n - 1n,
  2n ** 53n + 1n,
  2n ** 61n,
  2n ** 63n,
  2n ** 64n - 1n,
];

function joined(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => {
    out.set(part, at);
    return at + part.length;
  }, 0);
  return out;
}

/** @returns `bytes` with one to four mutations: flips, splices, cuts, lengths. The first `hot` bytes get most of them. */
export function mutate(bytes: Uint8Array, hot: number, next: () => number): Uint8Array {
  let out = new Uint8Array(bytes);
  for (let n = 1 + (next() % 4); n > 0 && out.length > 0; n--) {
    const at = next() % Math.min(out.length, next() % 8 === 0 ? out.length : hot);
    const length = 1 + (next() % 16);
    switch (next() % 6) {
      case 0:
        out[at] = out[at]! ^ (1 << (next() % 8));
        break;
      case 1:
        out[at] = next();
        break;
      case 2:
        out = joined(out.subarray(0, at), out.subarray(at + length));
        break;
      case 3: {
        const from = next() % out.length;
        out = joined(out.subarray(0, at), out.subarray(from, from + length), out.subarray(at));
        break;
      }
      case 4:
        if (next() % 4 === 0) out = out.slice(0, at);
        else out[at] = '"\\{}[],:0-9.eE+<|>%\0\n '[next() % 22]!.charCodeAt(0);
        break;
      default:
        if (at + 8 <= out.length) new DataView(out.buffer).setBigUint64(at, lengths[next() % lengths.length]!, true);
    }
  }
  return out;
}

/** No header, table or text that a limit allows needs more at once: 1 Mi token ids, 8 MiB of JSON, some copies of the input. */
const MOST_BYTES = 64 << 20;
const BUFFERS = [
  "ArrayBuffer",
  "Uint8Array",
  "Int8Array",
  "Uint16Array",
  "Int32Array",
  "Uint32Array",
  "Float32Array",
  "Float64Array",
] as const;

/** Watches the buffers that are made by a number: one far beyond the input was allocated by what a file claims. */
class Allocations {
  mostBytes = 0;
  readonly #original = new Map<string, unknown>();

  constructor() {
    const scope = globalThis as Record<string, unknown>;
    for (const name of BUFFERS) {
      const Class = scope[name] as new (...args: unknown[]) => ArrayBuffer;
      this.#original.set(name, Class);
      scope[name] = new Proxy(Class, {
        construct: (target, args, made) => {
          const [size] = args as unknown[];
          if (typeof size === "number" && size * 8 > this.mostBytes) {
            const bytes = size * ((target as { BYTES_PER_ELEMENT?: number }).BYTES_PER_ELEMENT ?? 1);
            this.mostBytes = Math.max(this.mostBytes, bytes);
          }
          return Reflect.construct(target, args, made);
        },
      });
    }
  }

  end(): void {
    Object.assign(globalThis, Object.fromEntries(this.#original));
  }
}

/** The kept seeds, then all from 0 on. */
function* seedsOf(kept: readonly number[], cases: number): Generator<number> {
  yield* kept;
  for (let seed = 0; seed < cases; seed++) yield seed;
}

/**
 * Runs `parse` on mutations of a valid input. Only errors of this package may escape, nothing may take long, and no buffer may be made by a number that nobody has checked.
 * @param check - looks at what was accepted
 * @param options - `seeds`: those that have failed once, tried first in every run
 * @returns how many were accepted and how many refused
 */
export async function fuzz<T>(
  valid: Uint8Array,
  hot: number,
  cases: number,
  parse: (bytes: Uint8Array) => Promise<T> | T,
  check: (result: T, bytes: Uint8Array) => void = () => {},
  { seeds = [] }: { readonly seeds?: readonly number[] } = {},
): Promise<{ accepted: number; refused: number }> {
  const tally = { accepted: 0, refused: 0 };
  const allocations = new Allocations();
  try {
    let tried = 0;
    for (const seed of seedsOf(seeds, cases)) {
      if (tried++ === pick({ gate: Math.ceil(cases / 10), full: cases })) allocations.end(); // it costs a seventh of the time
      const bytes = mutate(valid, hot, random(seed));
      const start = performance.now();
      try {
        check(await parse(bytes), bytes);
        tally.accepted++;
      } catch (error) {
        assert.ok(error instanceof Lfm2Error, `seed ${seed}: ${error instanceof Error ? error.stack : String(error)}`);
        tally.refused++;
      }
      assert.ok(performance.now() - start < 40_000, `seed ${seed} took ${performance.now() - start} ms`);
      assert.ok(allocations.mostBytes <= MOST_BYTES, `seed ${seed} made a buffer of ${allocations.mostBytes} bytes`);
    }
  } finally {
    allocations.end();
  }
  return tally;
}
