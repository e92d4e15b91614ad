// Chooses the build of the kernels that this engine runs best: the first that validates and multiplies exactly (the module probes how the engine's
// relaxed dot reads its operands). Knows neither files nor runtimes: a function hands it each build.
import { instantiateSync } from "@assemblyscript/loader";
import { PlatformError } from "../errors.ts";
import { type WasmMemory, type WasmModule, WebAssembly } from "../memory/wasm.ts";
import type { SamplingKernels } from "./logits.ts";

/** What the module exports beside its memory; assembly/README.md is the specification. Addresses are unsigned 32-bit, row strides are in floats. */
export interface Kernels extends SamplingKernels {
  /** @returns 0, or 1 when a thread failed and the step was left */
  run(commands: number, count: number, ith: number, nth: number): number;
  /** `run` by thread 0, after waking the helpers. */
  run_all(commands: number, count: number, nth: number): number;
  /** Wakes the helpers before `run_all`, which may then find them awake. */
  wake(): void;
  /** A helper's share of every step after number `seen`; returns when it is dismissed. */
  serve(seen: number, ith: number, nth: number): void;
  /** Has every helper return from `serve`, now or when it comes there. */
  dismiss(): void;
  /** Says that a helper waits for a step. @returns the number of the last step begun */
  ready(): number;
  /** Says that a share trapped: all threads leave the step. */
  fail(): void;
  /** Waits, after a step that failed, until `count` helpers have said `ready` since the start. @returns 0 when one never does */
  recover(count: number): number;
  /** @returns how often threads have gone to sleep so far */
  sleeps(): number;
  /** @returns 2 when the engine's relaxed dot is not exact for the build's layouts, which it then must not be used with */
  dot_operand_kind(): number;
  /** 1 in the builds with relaxed SIMD. */
  readonly IS_RELAXED: { readonly value: number };
  qd8_row_bytes(K: number): number;
  attention_scratch_bytes(queryHeads: number, kvHeads: number, headDim: number): number;
  attention_slot_bytes(headDim: number): number;
  decode_rows(out: number, outStride: number, src: number, srcType: number, rows: number, columns: number): void;
  /** @returns 0 when a value is NaN or infinite */
  pack_rows(
    dst: number,
    dstType: number,
    row0: number,
    src: number,
    srcType: number,
    rows: number,
    columns: number,
    scratch: number,
  ): number;
  /** Continues a checksum, 16 words at `state`, with bytes: a multiple of 16. */
  checksum(state: number, p: number, bytes: number): void;
  /** @returns what packed int8 is combined with (exclusive or) on this engine: 0 or 128 */
  q8_flip(): number;
  rope_frequencies(out: number, theta: number, headDim: number): void;
}

/** Answer of dot_operand_kind: this engine has no exact relaxed dot of 8 bits. */
const INEXACT_DOT = 2;

/** Names of the builds, best first. All give the same bits. */
export const VARIANTS = ["relaxed", "plain"] as const;
/** A build of the kernels: WASM SIMD alone, or with relaxed SIMD. */
export type Variant = (typeof VARIANTS)[number];

/** A build's file is named so: for one thread, or for several on a shared memory. */
export type KernelBuild = Variant | `${Variant}-threads`;
/** Names of all builds. */
export const KERNEL_BUILDS: readonly KernelBuild[] = ["plain", "relaxed", "plain-threads", "relaxed-threads"];

/** Hands over a build, compiled or as bytes; undefined where there is none for this engine. */
export type KernelSource = (build: KernelBuild) => Promise<WasmModule | Uint8Array | undefined>;

/** An instance of the kernels on one linear memory. */
export interface KernelInstance {
  readonly variant: Variant;
  readonly module: WasmModule;
  readonly kernels: Kernels;
  readonly memory: WasmMemory;
}

/** @returns an instance of `module` on `memory` */
export function instantiate(module: WasmModule, memory: WasmMemory): Kernels {
  return instantiateSync(module as never, { env: { memory: memory as never } }).exports as unknown as Kernels;
}

/**
 * @param source where the builds come from
 * @param memory the linear memory that the kernels work on
 * @param only takes this variant and no other
 * @param isShared whether threads share the memory
 * @throws PlatformError when there is no build that validates and multiplies exactly, of the variant and for the threads that are asked for
 */
export async function instantiateKernels(
  source: KernelSource,
  memory: WasmMemory,
  only?: Variant,
  isShared: boolean = false,
): Promise<KernelInstance> {
  for (const variant of only ? [only] : VARIANTS) {
    const build = await source(isShared ? `${variant}-threads` : variant);
    if (build === undefined || (build instanceof Uint8Array && !WebAssembly.validate(build))) continue;
    const module = build instanceof Uint8Array ? await WebAssembly.compile(build) : build;
    const kernels = instantiate(module, memory);
    // a build that a caller handed over says itself what it is
    if (kernels.dot_operand_kind() === INEXACT_DOT || (kernels.IS_RELAXED.value === 1) !== (variant === "relaxed")) continue;
    return { variant, module, kernels, memory };
  }
  throw new PlatformError(
    `kernels: expected ${only ? `the ${only} build` : "a build"}${isShared ? " for threads" : ""} that this engine runs exactly, got none. ` +
      "Leave variant and wasm out, or pass threads: 1; the oldest engines are Chrome and Edge 110, Firefox 115, Safari 16.4, Node 20.19.",
    { code: "no-build" },
  );
}
