// Tells loaded weights apart, so that a saved state meets no other model. Knows where weights lie, not what they are for.
import { packedBytes } from "../memory/dtype.ts";
import { Hash } from "../memory/hash.ts";
import type { Matrix, Vector } from "../memory/tensor.ts";
import type { WasmMemory } from "../memory/wasm.ts";

/** Words that are looked at of each tensor, spread over it: training changes nearly all of them. */
const SAMPLES = 256;
/** Builds store int8 weights as q or as q + 128: the top bit of each byte is left out. */
const WITHOUT_TOP_BITS = 0x7f7f7f7f;

interface Stored {
  readonly address: number;
  readonly bytes: number;
  readonly mask: number;
}

const isTensor = (value: object): value is Matrix | Vector => "kind" in value && ["matrix", "vector", "taps"].includes(String(value.kind));

/** Adds every tensor in `value`, which may be records and lists of them, by its name. */
function collect(value: unknown, into: Map<string, Stored>): void {
  if (typeof value !== "object" || value === null) return;
  if (!isTensor(value)) for (const part of Object.values(value)) collect(part, into);
  else if (value.kind !== "matrix") into.set(value.name, { address: value.address, bytes: 4 * value.length * value.taps, mask: -1 });
  else
    for (const { name, dtype, rows, address } of value.segments) {
      const bytes = packedBytes(dtype, rows, value.columns);
      into.set(name, { address, bytes, mask: dtype === "q8" ? WITHOUT_TOP_BITS : -1 });
    }
}

/**
 * @param weights records of tensors, however they are arranged
 * @param facts what the results depend on beside the weights
 * @returns 16 hexadecimal digits, the same for every build of the kernels; other weights, or another dtype of them, give others
 */
export function fingerprint(memory: WasmMemory, weights: object, facts: readonly number[]): string {
  const stored = new Map<string, Stored>();
  collect(weights, stored);
  const hash = new Hash().add(new Uint32Array(Float32Array.from(facts).buffer));
  for (const name of [...stored.keys()].sort()) {
    const { address, bytes, mask } = stored.get(name) as Stored;
    const words = new Uint32Array(memory.buffer, address, bytes >> 2);
    const step = Math.max(1, Math.floor(words.length / SAMPLES));
    hash.add([...Array.from(name, (c) => c.charCodeAt(0)), bytes]);
    hash.add(Array.from({ length: Math.ceil(words.length / step) }, (_, i) => (words[i * step] ?? 0) & mask));
  }
  return hash.toString();
}
