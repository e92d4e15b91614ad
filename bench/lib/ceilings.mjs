// The machine's ceilings, measured from WebAssembly in this process: read bandwidth by how much is read, products a second in registers.
import { readFileSync } from "node:fs";
import { ensureProbes } from "../../scripts/build.mjs";

const OPERANDS = 1024;
const REGION = 65536;
const SIZES = [18, 20, 22, 24, 26, 28].map((n) => 2 ** n);
const [NEAR, FAR] = [SIZES[0], SIZES.at(-1)];

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

/** @returns the probe with so many bytes to read, and functions that read the first `size` of them once: from first to last, and in four runs at a time */
export function readProbe(path, bytes) {
  const { memory, exports } = probe(path);
  memory.grow(Math.ceil((REGION + bytes) / 65536));
  new Uint8Array(memory.buffer, REGION, bytes).fill(1); // pages that nobody wrote are all the same page of zeros
  return { exports, read: (size = bytes) => exports.read(REGION, size), readRuns: (size = bytes) => exports.read_runs(REGION, size) };
}

/**
 * @returns `read(bytes)`: GB/s of reading a working set of so many bytes again and again, in the faster of two orders; `sequential(bytes)`: from first to last; `near` and `far`, the least and the most that was measured; `dot.plain`
 * and `dot.relaxed` (undefined where the engine lacks it), the best integer product, and `muladd`, f32, in GMAC/s
 */
export async function measureCeilings() {
  const [plainPath, relaxedPath] = await ensureProbes();
  const { exports: plain, read, readRuns } = readProbe(plainPath, FAR);
  const bandwidth = {};
  const sequential = {};
  for (const size of SIZES) {
    const repeats = Math.max(1, (1 << 27) / size);
    const [one, four] = [read, readRuns].map((order) =>
      rate(repeats * size, () => {
        for (let i = 0; i < repeats; i++) order(size);
      }),
    );
    sequential[size] = one;
    bandwidth[size] = Math.max(one, four);
  }
  const steps = 300_000;
  const dots = (exports, dot) => rate(steps * exports.dot_macs(), () => dot(OPERANDS, steps));
  const best = (exports) => Math.max(dots(exports, exports.dot), dots(exports, exports.dot_pairs));
  const relaxed = WebAssembly.validate(readFileSync(relaxedPath)) ? best(probe(relaxedPath).exports) : undefined;
  const nearest = (bytes) => SIZES.reduce((a, b) => (Math.abs(Math.log(bytes / b)) < Math.abs(Math.log(bytes / a)) ? b : a));
  return {
    bandwidth,
    near: bandwidth[NEAR],
    far: bandwidth[FAR],
    read: (bytes) => bandwidth[nearest(bytes)],
    sequential: (bytes) => sequential[nearest(bytes)],
    dot: { plain: dots(plain, plain.dot), relaxed },
    muladd: rate(steps * plain.muladd_macs(), () => plain.muladd(OPERANDS, steps)),
  };
}

/** ms that the machine needs at the least to read `bytes` of a working set of `from` bytes and to make `macs` products. */
export function leastMs(ceilings, { bytes, from = bytes, macs = 0, rate: macRate = ceilings.muladd }) {
  return Math.max(bytes / ceilings.read(from), macs / macRate) / 1e6;
}
