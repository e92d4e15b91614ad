// The real kernels with a row of logits in linear memory, for the tests of sampling.
import { readFileSync } from "node:fs";
import { Logits } from "../../src/kernels/logits.ts";
import { instantiateKernels, type KernelInstance, type Variant } from "../../src/kernels/variants.ts";

/** Every build that this engine validates, the plain one first, each on a memory of its own. */
export async function instances(pages: number = 64): Promise<KernelInstance[]> {
  const build = (variant: Variant) => readFileSync(`dist/kernels.${variant}.wasm`);
  const variants = (["plain", "relaxed"] as const).filter((variant) => variant === "plain" || WebAssembly.validate(build(variant)));
  const memory = () => new WebAssembly.Memory({ initial: pages, maximum: 65_536 });
  return Promise.all(variants.map((variant) => instantiateKernels(async () => build(variant), memory(), variant)));
}

/** @returns `values` as a row of logits at `address`, its scratch behind it, everything around filled with NaN. */
export function logitsOf({ kernels, memory }: KernelInstance, values: ArrayLike<number>, address: number = 1 << 16): Logits {
  const scratch = address + Math.ceil((values.length * 4) / 64) * 64 + 64;
  new Float32Array(memory.buffer, address - 64, (scratch + Logits.scratchBytes(values.length) + 64 - address) / 4 + 16).fill(Number.NaN);
  new Float32Array(memory.buffer, address, values.length).set(values);
  return new Logits(kernels, memory, address, scratch, values.length);
}
