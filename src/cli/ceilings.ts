// What this machine can do at most, seen from WebAssembly: read bandwidth by how much is read, products a second. The reference for "% of roof".

/** Put in by the build: the probe module without and with relaxed SIMD, base64. Its source is assembly/probe.ts. */
declare const LFM2_PROBES: { readonly plain: string; readonly relaxed: string };

interface Probe {
  read(address: number, bytes: number): number;
  read_runs(address: number, bytes: number): number;
  dot(address: number, n: number): number;
  dot_pairs(address: number, n: number): number;
  dot_macs(): number;
  muladd(address: number, n: number): number;
  muladd_macs(): number;
}

const OPERANDS = 1024;
const REGION = 65_536;
const SMALLEST = 1 << 18;
const LARGEST = 1 << 28;
const ROUNDS = 5;
/** A measurement that is shorter than this says little. */
const MEASURE_MS = 4;

/** Units a second, in thousand millions, in the best of five rounds: a ceiling. `work` does `units`, and is repeated until a round takes some milliseconds. */
function rate(units: number, work: () => void): number {
  work(); // V8 compiles it well by now
  let repeats = 1;
  const time = (): number => {
    const start = performance.now();
    for (let i = 0; i < repeats; i++) work();
    return performance.now() - start;
  };
  while (time() < MEASURE_MS) repeats *= 2;
  return Math.max(...Array.from({ length: ROUNDS }, () => (repeats * units) / time() / 1e6));
}

/** Measures when asked, each ceiling once. One thread. */
export class Ceilings {
  readonly #probe: Probe;
  readonly #memory: WebAssembly.Memory;
  readonly #isRelaxed: boolean;
  readonly #reads = new Map<number, number>();
  #dot = 0;
  #muladd = 0;

  constructor(probe: Probe, memory: WebAssembly.Memory, isRelaxed: boolean) {
    this.#probe = probe;
    this.#memory = memory;
    this.#isRelaxed = isRelaxed;
    new Uint8Array(memory.buffer, OPERANDS, 32).fill(0x3e); // small numbers, as bytes, i16 and f32
  }

  /** GB/s of reading `bytes` again and again, from first to last or in four runs at a time, whichever is faster; to a power of two, from 256 KiB to 256 MiB. */
  read(bytes: number): number {
    const size = Math.min(LARGEST, Math.max(SMALLEST, 2 ** Math.round(Math.log2(bytes))));
    const known = this.#reads.get(size);
    if (known !== undefined) return known;
    const missing = REGION + size - this.#memory.buffer.byteLength;
    if (missing > 0) this.#memory.grow(Math.ceil(missing / 65_536));
    new Uint8Array(this.#memory.buffer, REGION, size).fill(1); // pages that nobody wrote are all the same page of zeros
    const measured = Math.max(
      rate(size, () => this.#probe.read(REGION, size)),
      rate(size, () => this.#probe.read_runs(REGION, size)),
    );
    this.#reads.set(size, measured);
    return measured;
  }

  /** GMAC/s of the best integer product of the build, in registers. */
  get dot(): number {
    const of = (work: () => void): number => rate(10_000 * this.#probe.dot_macs(), work);
    this.#dot ||= Math.max(
      of(() => this.#probe.dot(OPERANDS, 10_000)),
      this.#isRelaxed ? of(() => this.#probe.dot_pairs(OPERANDS, 10_000)) : 0,
    );
    return this.#dot;
  }

  /** GMAC/s of f32 multiplications and additions, in registers. */
  get muladd(): number {
    this.#muladd ||= rate(10_000 * this.#probe.muladd_macs(), () => this.#probe.muladd(OPERANDS, 10_000));
    return this.#muladd;
  }
}

/** @returns the ceilings for kernels of that build */
export function openCeilings(variant: "plain" | "relaxed"): Ceilings {
  const memory = new WebAssembly.Memory({ initial: 2 });
  const module = new WebAssembly.Module(Buffer.from(LFM2_PROBES[variant], "base64"));
  return new Ceilings(new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as Probe, memory, variant === "relaxed");
}
