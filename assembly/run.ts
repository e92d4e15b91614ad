// The command switch, and with it the whole ABI at one glance: one call from the host walks a step.
// A command is 16 words of 32 bits: the op, then its arguments in the kernel's own order (f32 arguments as their bits).
import { silu_mul_f32 } from "./activation";
import { attention_f32_f16kv, attention_f32_f32kv, attention_f32_qb8kv, attention_merge_f32 } from "./attention/attention";
import { add_f32, copy } from "./elementwise";
import { gather_f32 } from "./gather";
import { await_step, barrier, begin_step, is_dismissed, ready, step_commands, step_count } from "./lib/threads";
import { largest_of_product, merge_largest } from "./matmul/largest";
import { matmul } from "./matmul/matrix";
import { rmsnorm_f32 } from "./norm";
import { quantize_f32_qd8 } from "./quantize";
import { norm_rope_append_f32_f16kv, norm_rope_append_f32_f32kv, norm_rope_append_f32_qb8kv, rope_table_f32 } from "./rope";
import { shortconv_f32 } from "./shortconv";

export const COMMAND_BYTES: i32 = 64;

/** Op numbers; src/kernels/commands.ts has the same, compared by a test. */
export enum Op {
  nop = 0,
  gather = 1,
  rmsnorm = 2,
  quantize = 3,
  matmul = 4,
  rope_table = 5,
  norm_rope_append_f32 = 6,
  norm_rope_append_f16 = 7,
  norm_rope_append_q8 = 8,
  attention_f32 = 9,
  attention_f16 = 10,
  shortconv = 11,
  silu_mul = 12,
  add = 13,
  copy = 14,
  largest = 15,
  merge_largest = 16,
  attention_q8 = 17,
  attention_merge = 18,
}

// @ts-ignore: decorator
@inline function u(c: usize, n: usize): usize { return load<usize>(c + (n << 2)); }
// @ts-ignore: decorator
@inline function f(c: usize, n: usize): f32 { return load<f32>(c + (n << 2)); }

/**
 * Executes count commands; thread ith of nth does its share of each and waits for the others behind each (in a build without threads nobody waits).
 * @returns 0, or 1 when a thread failed and the step was left
 */
export function run(commands: usize, count: i32, ith: usize, nth: usize): i32 {
  for (let c = commands; count > 0; count--, c += COMMAND_BYTES) {
    switch (load<i32>(c)) {
      case Op.nop: break;
      // out, ids, matrix, T, outStride
      case Op.gather: gather_f32(u(c, 1), u(c, 2), u(c, 3), u(c, 4), u(c, 5), ith, nth); break;
      // y, yq, x, r, g, rows, M, D, stride, eps
      case Op.rmsnorm:
        rmsnorm_f32(u(c, 1), u(c, 2), u(c, 3), u(c, 4), u(c, 5), u(c, 6), u(c, 7), u(c, 8), u(c, 9), f(c, 10), ith, nth);
        break;
      // out, x, M, Kp, xStride
      case Op.quantize: quantize_f32_qd8(u(c, 1), u(c, 2), u(c, 3), u(c, 4), u(c, 5), ith, nth); break;
      // y, x, xq, matrix, M, yStride, xStride, bias
      case Op.matmul: matmul(u(c, 1), u(c, 2), u(c, 3), u(c, 4), u(c, 5), u(c, 6), u(c, 7), u(c, 8), ith, nth); break;
      // table, rowTable, nseq, freq, hd, factor
      case Op.rope_table: rope_table_f32(u(c, 1), u(c, 2), u(c, 3), u(c, 4), u(c, 5), f(c, 6), ith, nth); break;
      // qkv, stride, gq, gk, table, rowTable, nseq, layerOffset, H, G, hd, eps
      case Op.norm_rope_append_f32:
        norm_rope_append_f32_f32kv(u(c, 1), u(c, 2), u(c, 3), u(c, 4), u(c, 5), u(c, 6), u(c, 7), u(c, 8), u(c, 9), u(c, 10), u(c, 11), f(c, 12), ith, nth);
        break;
      case Op.norm_rope_append_f16:
        norm_rope_append_f32_f16kv(u(c, 1), u(c, 2), u(c, 3), u(c, 4), u(c, 5), u(c, 6), u(c, 7), u(c, 8), u(c, 9), u(c, 10), u(c, 11), f(c, 12), ith, nth);
        break;
      case Op.norm_rope_append_q8:
        norm_rope_append_f32_qb8kv(u(c, 1), u(c, 2), u(c, 3), u(c, 4), u(c, 5), u(c, 6), u(c, 7), u(c, 8), u(c, 9), u(c, 10), u(c, 11), f(c, 12), ith, nth);
        break;
      // out, outStride, q, qStride, rowTable, nseq, layerOffset, slots, slotCount, scratch, H, G, hd, scale
      case Op.attention_f32:
        attention_f32_f32kv(
          u(c, 1), u(c, 2), u(c, 3), u(c, 4), u(c, 5), u(c, 6), u(c, 7), u(c, 8), u(c, 9), u(c, 10), u(c, 11), u(c, 12), u(c, 13), f(c, 14), ith, nth);
        break;
      case Op.attention_f16:
        attention_f32_f16kv(
          u(c, 1), u(c, 2), u(c, 3), u(c, 4), u(c, 5), u(c, 6), u(c, 7), u(c, 8), u(c, 9), u(c, 10), u(c, 11), u(c, 12), u(c, 13), f(c, 14), ith, nth);
        break;
      case Op.attention_q8:
        attention_f32_qb8kv(
          u(c, 1), u(c, 2), u(c, 3), u(c, 4), u(c, 5), u(c, 6), u(c, 7), u(c, 8), u(c, 9), u(c, 10), u(c, 11), u(c, 12), u(c, 13), f(c, 14), ith, nth);
        break;
      // out, outStride, rowTable, nseq, slots, slotCount, H, hd
      case Op.attention_merge: attention_merge_f32(u(c, 1), u(c, 2), u(c, 3), u(c, 4), u(c, 5), u(c, 6), u(c, 7), u(c, 8), ith, nth); break;
      // y, yStride, yq, bcu, bcuStride, rowTable, nseq, layerOffset, taps, bias, D, Kc
      case Op.shortconv:
        shortconv_f32(u(c, 1), u(c, 2), u(c, 3), u(c, 4), u(c, 5), u(c, 6), u(c, 7), u(c, 8), u(c, 9), u(c, 10), u(c, 11), u(c, 12), ith, nth);
        break;
      // y, yStride, yq, ab, abStride, T, F8
      case Op.silu_mul: silu_mul_f32(u(c, 1), u(c, 2), u(c, 3), u(c, 4), u(c, 5), u(c, 6), u(c, 7), ith, nth); break;
      // y, x, n
      case Op.add: add_f32(u(c, 1), u(c, 2), u(c, 3), ith, nth); break;
      // dst, src, bytes
      case Op.copy: copy(u(c, 1), u(c, 2), u(c, 3), ith, nth); break;
      // lists, room, columns, x, xq, matrix, M, xStride, N, k
      case Op.largest:
        largest_of_product(u(c, 1), u(c, 2), u(c, 3), u(c, 4), u(c, 5), u(c, 6), u(c, 7), u(c, 8), u(c, 9), u(c, 10), ith, nth);
        break;
      // lists, M, k
      case Op.merge_largest: merge_largest(u(c, 1), u(c, 2), u(c, 3), ith, nth); break;
      default: unreachable();
    }
    if (ASC_FEATURE_THREADS && nth > 1 && !barrier(ith, nth, c == commands)) return 1;
  }
  return 0;
}

/** A step with helpers, by thread 0: wakes them, then does share 0. @returns as run */
export function run_all(commands: usize, count: i32, nth: usize): i32 {
  begin_step(commands, count);
  return run(commands, count, 0, nth);
}

/** A helper thread's life: does its share of every step after number `seen`. It returns when they are dismissed; else it ends by a trap, or with its thread. */
export function serve(seen: i32, ith: usize, nth: usize): void {
  while (ASC_FEATURE_THREADS) {
    if (is_dismissed()) return; // also one that comes when all is over
    seen = await_step(seen);
    if (is_dismissed()) return;
    if (run(step_commands(), step_count(), ith, nth)) seen = ready();
  }
}
