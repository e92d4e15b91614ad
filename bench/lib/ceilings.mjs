// The machine's ceilings, measured from WebAssembly in this process: read bandwidth by how much is read, products a second in registers.
import { readFileSync } from "node:fs";
import { ensureProbes } from "../../scripts/build.mjs";

const OPERANDS = 1024;
const REGION = 65536;
const SIZES = { L2: 1 << 18, L3: 1 << 23, DRAM: 1 << 28 };

/** The machine is shared: the best of so many rounds, some 10 ms each, is the ceiling. */
const ROUNDS = 20;

/** GB/s or GMAC/s. */
function rate(units, work) {
  work();
  work();
  let best = 0;
  for (let i = 0; i < ROUNDS; i++) {
    const start = performance.now();
    work();
    best = Math.max(best, units / (performance.now() - start) / 1e6);
  }
  return best;
}

function probe(path) {
  const memory = new WebAssembly.Memory({ initial: 2 });
  const module = new WebAssembly.Module(readFileSync(path));
  const exports = new WebAssembly.Instance(module, { env: { memory } }).exports;
  new Uint8Array(memory.buffer, OPERANDS, 32).fill(0x3e); // small numbers, as bytes, i16 and f32
  return { memory, exports };
}

/**
 * @returns `read(bytes)` GB/s for that working set, by its class (`L2`, `L3`, `DRAM` name them); `dot.plain`, `dot.relaxed` (undefined where the engine lacks it)
 * and `muladd` in GMAC/s
 */
export function measureCeilings() {
  const [plainPath, relaxedPath] = ensureProbes();
  const { memory, exports: plain } = probe(plainPath);
  const most = Math.max(...Object.values(SIZES));
  memory.grow(Math.ceil((REGION + most) / 65536));
  new Uint8Array(memory.buffer, REGION, most).fill(1); // pages that nobody wrote are all the same page of zeros
  const bandwidth = {};
  for (const [name, size] of Object.entries(SIZES)) {
    const repeats = Math.max(1, (1 << 28) / size);
    bandwidth[name] = rate(repeats * size, () => {
      for (let i = 0; i < repeats; i++) plain.read(REGION, size);
    });
  }
  const steps = 1_000_000;
  const dots = (exports) => rate(steps * exports.dot_macs(), () => exports.dot(OPERANDS, steps));
  const relaxed = WebAssembly.validate(readFileSync(relaxedPath)) ? dots(probe(relaxedPath).exports) : undefined;
  return {
    bandwidth,
    dot: { plain: dots(plain), relaxed },
    muladd: rate(steps * plain.muladd_macs(), () => plain.muladd(OPERANDS, steps)),
  };
}

/** The class of cache that holds so many bytes. */
export const classOf = (bytes) => (bytes <= 2 * SIZES.L2 ? "L2" : bytes <= 2 * SIZES.L3 ? "L3" : "DRAM");

/** ms that the machine needs at the least to read `bytes` of a working set of `from` bytes and to make `macs` products. */
export function leastMs(ceilings, { bytes, from = bytes, macs = 0, rate: macRate = ceilings.muladd }) {
  return Math.max(bytes / ceilings.bandwidth[classOf(from)], macs / macRate) / 1e6;
}
